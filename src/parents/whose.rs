//! Whose a new parent is, and the key that stands in for one that it will get.

use pgrx::prelude::*;

use super::given::Given;
use super::identity::invalid;
use crate::catalog::{Column, Table};
use crate::plan::Overlays;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::{Session, readable};
use crate::validate::sides::{Sides, Whose};

/// What a new parent gets as its tenant, and (through a membership) why there is none: `ambiguous` or `no_source`, else NULL, over `t`.
type Tenant<'a> = (Given<'a>, Option<String>);

/// The tenant of a new parent is that of the rows, and part of its identity.
pub(super) fn tenant<'a>(
    session: &'a Session,
    sides: &Sides<'a>,
    table: &Table,
    parent: &'a Table,
    (matched, set): (&[Given], &[Given]),
    each: bool,
    problems: &mut Problems,
) -> Option<Tenant<'a>> {
    let catalog = &session.catalog;
    if sides.root().is_some_and(|root| root.oid == parent.oid) {
        return None;
    }
    let shown = catalog.display(parent);
    let key = match sides.of(parent).as_ref() {
        Whose::Own(columns) if columns.len() == 1 => parent.column(columns[0])?,
        _ => return None,
    };
    if let Some(fixed) = set.iter().find(|g| g.column.number == key.number) {
        if each {
            return None;
        }
        problems.push(invalid(
            format!("set: {} of {shown} is the tenant", fixed.column.quoted),
            "leave it out: it is that of the rows; or put the expression into match".into(),
        ));
        return None;
    }
    if matched.iter().any(|g| g.column.number == key.number) {
        return None;
    }
    match sides.of(table).as_ref() {
        Whose::Own(columns) if columns.len() == 1 => {
            let own = table.column(columns[0])?;
            let (base, _) = catalog.base_type(key.type_oid, -1)?;
            let given = Given {
                column: key,
                expression: own.quoted.clone(),
                sql: format!("t.{}::{}", own.sql(), base.sql()),
                type_oid: base.oid,
                misfit: None,
                tree: None,
            };
            Some((given, None))
        }
        Whose::Everybodys | Whose::Through(_) if each && !memberships(session, sides, table).is_empty() => {
            through_membership(session, sides, table, key, problems)
        }
        _ => {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("whose a new row of {shown} would be is not known"),
                )
                .detail(format!(
                    "{} of {shown} is its tenant, and {} has no single column that is the same",
                    key.quoted,
                    catalog.display(table)
                ))
                .hint(format!(
                    "say it in {}: {}",
                    if each { "set" } else { "match" },
                    serde_json::json!({ key.name.clone(): "an expression over the row" })
                )),
            );
            None
        }
    }
}

/// Bytes that a row needs at least: a line pointer and its header (storage/itemid.h, access/htup_details.h).
const SMALLEST_ROW: usize = 28;

/// For a row that gets a parent of its own: a key that no parent has, told from the row, to stand in for the one that it will get.
pub(super) fn stand_in<'a>(
    session: &Session,
    table: &Table,
    parent: &Table,
    key: &'a Column,
    overlays: &Overlays,
    problems: &mut Problems,
) -> Option<Given<'a>> {
    let catalog = &session.catalog;
    let own: Vec<&Column> = match table.primary_key() {
        Some(own) => own.columns.iter().filter_map(|c| table.column(*c)).collect(),
        None => {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                    format!(
                        "{} has no primary key, by which its rows are told apart",
                        catalog.display(table)
                    ),
                )
                .hint("add one, or name in match what a parent is found by"),
            );
            return None;
        }
    };
    let (base, _) = catalog.base_type(key.type_oid, -1)?;
    let text: Vec<String> = own
        .iter()
        .map(|c| catalog.text_sql(&format!("t.{}", c.sql()), c.type_oid))
        .collect();
    let hash = format!(
        "pg_catalog.md5(pg_catalog.jsonb_build_array('mend', {}, {})::pg_catalog.text)",
        table.oid,
        text.join(", ")
    );
    let integer = |c: &Column| {
        catalog
            .base_type(c.type_oid, -1)
            .is_some_and(|(b, _)| b.integer_range().is_some())
    };
    let sql = match (base.category, base.name.as_str(), own.as_slice()) {
        (_, "uuid", _) => format!("{hash}::pg_catalog.uuid"),
        _ if base.is_string() => format!("{hash}::{}", base.sql()),
        // Where the row is stored, as a number: less than the rows that fit into the table. Not across partitions.
        ('N', ..) if table.kind == 'r' => format!(
            "((SELECT COALESCE(pg_catalog.max(p.{}), 0) FROM {} AS p)::pg_catalog.numeric \
             + (t.ctid::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.numeric \
             * pg_catalog.div(pg_catalog.current_setting('block_size')::pg_catalog.numeric, {SMALLEST_ROW}::pg_catalog.numeric) \
             + (t.ctid::pg_catalog.text::pg_catalog.point)[1]::pg_catalog.numeric)::{}",
            key.sql(),
            overlays.relation_sql(parent),
            base.sql(),
        ),
        ('N', _, [one]) if integer(one) => format!(
            "((SELECT COALESCE(pg_catalog.max(p.{}), 0) FROM {} AS p)::pg_catalog.numeric + t.{own}::pg_catalog.numeric \
             - (SELECT pg_catalog.min(c.{own}) FROM {} AS c) + 1)::{}",
            key.sql(),
            overlays.relation_sql(parent),
            table.sql(),
            base.sql(),
            own = one.sql(),
        ),
        _ => {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!(
                        "a key of {} cannot be foretold for each row of {}",
                        catalog.display(parent),
                        catalog.display(table)
                    ),
                )
                .detail("it can for uuid and text keys, and for numbers where the table has no partitions or an integer primary key")
                .hint("name in match what a parent is found by"),
            );
            return None;
        }
    };
    Some(Given {
        column: key,
        expression: "one for each row".into(),
        sql,
        type_oid: base.oid,
        misfit: None,
        tree: None,
    })
}

/// A table that says which tenants a row of another one belongs to: (table, column that references the row, the row's key, tenant
/// key).
type Membership<'a> = (&'a Table, &'a Column, i16, &'a Column);

fn memberships<'a>(session: &'a Session, sides: &Sides<'a>, table: &Table) -> Vec<Membership<'a>> {
    let Some(keys) = sides.keys() else { return vec![] };
    let catalog = &session.catalog;
    let mut found = Vec::new();
    for key in catalog
        .foreign_keys
        .iter()
        .filter(|key| key.parent == table.oid && key.columns.len() == 1 && !key.inherited)
    {
        let Some(member) = catalog.table(key.table).filter(|t| t.is_table() && t.oid != table.oid) else {
            continue;
        };
        let named = crate::names::words(&member.name)
            .iter()
            .any(|word| word.starts_with("member"));
        let tenant = keys.of(member).iter().find(|k| k.comparable && !k.one_of_several);
        if let (true, Some(column), Some(tenant)) = (
            named,
            member.column(key.columns[0]),
            tenant.and_then(|k| member.column(k.column)),
        ) {
            found.push((member, column, key.parent_columns[0], tenant));
        }
    }
    found
}

/// The tenant of a row through its membership; of one that is a member of several, or of none, nothing is known.
fn through_membership<'a>(
    session: &'a Session,
    sides: &Sides<'a>,
    table: &Table,
    key: &'a Column,
    problems: &mut Problems,
) -> Option<Tenant<'a>> {
    let catalog = &session.catalog;
    let found = memberships(session, sides, table);
    let [(member, column, own, tenant)] = found.as_slice() else {
        let names: Vec<String> = found
            .iter()
            .map(|(m, c, ..)| format!("{}.{}", catalog.display(m), c.quoted))
            .collect();
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
                format!(
                    "several tables say which tenant a row of {} belongs to",
                    catalog.display(table)
                ),
            )
            .detail(names.join(", "))
            .hint(format!(
                "say it in set: {}",
                serde_json::json!({ key.name.clone(): "an expression over the row" })
            )),
        );
        return None;
    };
    readable(session, member, &[column.number, tenant.number], false, problems);
    problems.keep(session.hold([member.oid]))?;
    let (base, _) = catalog.base_type(key.type_oid, -1)?;
    let own = table.column(*own)?;
    let value = format!("m.{}::{}", tenant.sql(), base.sql());
    let sql = format!(
        "(SELECT CASE WHEN pg_catalog.count(DISTINCT {value}) = 1 THEN (pg_catalog.array_agg(DISTINCT {value}) FILTER (WHERE {value} IS NOT NULL))[1] END \
         FROM {} AS m WHERE m.{} = t.{})",
        member.relation_sql(),
        column.sql(),
        own.sql(),
    );
    let unknown = format!(
        "(SELECT CASE pg_catalog.count(DISTINCT {value}) WHEN 0 THEN 'no_source' WHEN 1 THEN NULL ELSE 'ambiguous' END \
         FROM {} AS m WHERE m.{} = t.{})",
        member.relation_sql(),
        column.sql(),
        own.sql(),
    );
    let given = Given {
        column: key,
        expression: format!("the only one of {}.{}", catalog.display(member), tenant.quoted),
        sql,
        type_oid: base.oid,
        misfit: None,
        tree: None,
    };
    Some((given, Some(unknown)))
}
