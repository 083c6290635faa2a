//! What a new parent may be given, and what it must: its tenant, the caller's values, the columns that have none.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use serde_json::Value;

use super::prepared::PreparedRepair;
use crate::catalog::{Column, Insertion, Table, Type, texts_can_be_read};
use crate::identifier::Literal;
use crate::infer::tenancy::resolver::RowTenant;
use crate::names::nearest;
use crate::pg;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::Session;
use crate::run::obstacles::required_columns;

/// The column that holds the tenant of a new parent, where its key does not.
pub(super) fn tenant_column<'a>(work: &PreparedRepair<'a>, problems: &mut Problems) -> Option<&'a Column> {
    let (parent, key) = (work.reference.parent, &work.reference.key);
    let shown = work.session.catalog.display(parent);
    let refuse = |detail: String| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("the tenant of new rows of {shown} cannot be determined"),
        )
        .detail(detail)
        .hint("create the parents by hand, or use 'quarantine' or 'nullify'")
    };
    match work.resolver.of(parent).as_ref() {
        RowTenant::Shared => None,
        RowTenant::Columns(columns) if columns.iter().any(|c| key.contains(c)) => None,
        RowTenant::Columns(columns) => {
            if columns.len() > 1 {
                problems.push(refuse(format!(
                    "several of its columns reference the tenant: {}",
                    parent.names_of(columns).join(", ")
                )));
                return None;
            }
            match work.resolver.of(work.reference.table).as_ref() {
                RowTenant::Columns(own) if own.len() > 1 => {
                    problems.push(refuse(format!(
                        "the rows that reference it belong to several tenants: {}",
                        work.reference.table.names_of(own).join(", ")
                    )));
                    None
                }
                _ => parent.column(columns[0]),
            }
        }
        RowTenant::Paths(paths) => {
            let path = paths[0].to_path(&work.session.catalog, parent);
            problems.push(refuse(format!(
                "its tenant comes through {path}, which a new row does not have"
            )));
            None
        }
    }
}

/// May the caller give this column a value?
pub(super) fn may_be_set(
    work: &PreparedRepair,
    insertion: &Insertion,
    tenant: Option<&Column>,
    column: &Column,
    problems: &mut Problems,
) -> bool {
    let refuse = |why: &str| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!(
                "set: {} of {} {why}",
                column.quoted,
                work.session.catalog.display(work.reference.parent)
            ),
        )
        .hint("leave it out of set")
    };
    if work.reference.key.contains(&column.number) {
        problems.push(refuse("is the key that is missing"));
    } else if tenant.is_some_and(|tenant| tenant.number == column.number) {
        // One tenant for all would be a guess for most.
        problems.push(refuse(
            "is the tenant: it is that of the rows that reference the parent",
        ));
    } else if column.generated || insertion.generated.iter().any(|(c, _)| *c == column.number) {
        problems.push(refuse("is a generated column"));
    } else {
        return true;
    }
    false
}

/// Is it a value of the column's type? Asked of Postgres itself.
pub(super) fn value_fits(
    work: &PreparedRepair,
    parent: &Table,
    column: &Column,
    value: &Value,
    problems: &mut Problems,
) -> bool {
    let session = work.session;
    let place = format!("{} of {}", column.quoted, session.catalog.display(parent));
    if value.is_null() && column.not_null {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
                format!("set: {place} cannot be NULL"),
            )
            .hint("give it a value"),
        );
        return false;
    }
    let base: Option<(&Type, i32)> = session.catalog.base_type(column.type_oid, column.type_modifier);
    if let (Some((base, _)), Some(text)) = (base, value.as_str())
        && base.kind == 'e'
        && !base.labels.iter().any(|label| label == text)
    {
        let near = nearest(text, base.labels.iter().map(String::as_str));
        let problem = Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
            format!("set: {place} cannot be \"{text}\""),
        )
        .detail(format!("{} has {}", base.display, base.labels.join(", ")));
        problems.push(match near.first() {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem.hint(format!(
                r#"for example set => '{{"{}": "{}"}}'"#,
                column.name,
                base.labels.first().cloned().unwrap_or_default()
            )),
        });
        return false;
    }
    if problems.keep(texts_can_be_read(&session.catalog, column)).is_none() {
        return false;
    }
    // Of a domain the base: its own CHECKs are asked of each row.
    let stored = match session.catalog.stored_type(column) {
        Ok(stored) => stored,
        Err(problem) => {
            problems.push(problem);
            return false;
        }
    };
    let sql = format!(
        "SELECT r.{name} IS NULL FROM pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object({}, $1)) AS r ({name} {stored})",
        Literal::new(&column.name),
        name = column.sql()
    );
    if let Some(text) = value
        .as_str()
        .filter(|text| text.contains("{key}") || text.contains("{tenant}"))
    {
        // A text is judged when the placeholder has become one. Of other types only the placeholder itself can be a value.
        let whole = matches!(text, "{key}" | "{tenant}");
        let is_string = base.is_some_and(|(base, _)| base.is_string());
        let of_its_type = is_string || whole && stands_for(work, text, column);
        if !of_its_type {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("set: {place} cannot be \"{text}\""),
                )
                .detail(format!(
                    "it is of type {}, and what the placeholder stands for is not",
                    session
                        .catalog
                        .type_of(column.type_oid)
                        .map(|t| t.display.clone())
                        .unwrap_or_default()
                ))
                .hint("use placeholders in text columns; a placeholder alone may also be used for a column that has the type of the key (or tenant)"),
            );
            return false;
        }
        return true;
    }
    let read = pg::subtransaction(AssertUnwindSafe(|| {
        let argument = [pg::Jsonb::from(value).into()];
        Ok(Spi::connect(|client| client.select(&sql, None, &argument).map(|_| ()))?)
    }));
    problems
        .keep(read.map_err(|problem| Problem {
            message: format!("set: {place}: {}", problem.message),
            hint: Some(format!(
                "it is of type {}",
                session.catalog.type_of(column.type_oid).map(|t| t.display.clone()).unwrap_or_default()
            )),
            ..problem
        }))
        .is_some()
}

/// Is what the placeholder stands for of the column's type?
fn stands_for(work: &PreparedRepair, placeholder: &str, column: &Column) -> bool {
    let catalog = &work.session.catalog;
    let base = |type_oid: u32| catalog.base_type(type_oid, -1).map(|(base, _)| base.oid);
    let of = match placeholder {
        "{key}" => match work.reference.columns.as_slice() {
            [only] => work.reference.table.column(*only).map(|c| c.type_oid),
            _ => None,
        },
        _ => work.conditions.tenants.as_ref().map(|tenants| tenants.own.type_oid),
    };
    of.is_some_and(|of| base(of).is_some() && base(of) == base(column.type_oid))
}

pub(super) fn missing_required_columns(session: &Session, shown: &str, missing: &[&Column]) -> Problem {
    let (list, example) = required_columns(session, missing, false);
    let example = Value::Object(example).to_string();
    Problem::new(
        PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        format!("set gives no value for required columns of {shown}: {}", list),
    )
    .detail("these columns are NOT NULL and have no default")
    .hint(format!(
        "give them values: set => {}; {{key}} and {{tenant}} in a text stand for those of the row",
        Literal::new(&example)
    ))
}
