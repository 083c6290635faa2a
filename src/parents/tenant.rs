//! The tenant that a new parent gets: that of its rows, or through a membership.

use pgrx::prelude::*;

use super::column_expressions::ColumnExpression;
use crate::catalog::{Column, Table};
use crate::infer::tenancy::resolver::{RowTenant, TenantResolver};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::{Session, readable};

/// What a new parent gets as its tenant, and (through a membership) why there is none: `ambiguous` or `no_source`, else NULL, over `t`.
type Tenant<'a> = (ColumnExpression<'a>, Option<String>);

/// The tenant of a new parent is that of the rows, and part of its identity.
pub(super) fn tenant_expression<'a>(
    session: &'a Session,
    resolver: &TenantResolver<'a>,
    table: &Table,
    parent: &'a Table,
    (matched, set): (&[ColumnExpression], &[ColumnExpression]),
    each: bool,
    problems: &mut Problems,
) -> Option<Tenant<'a>> {
    let catalog = &session.catalog;
    if resolver.root().is_some_and(|root| root.oid == parent.oid) {
        return None;
    }
    let shown = catalog.display(parent);
    let key = match resolver.of(parent).as_ref() {
        RowTenant::Columns(columns) if columns.len() == 1 => parent.column(columns[0])?,
        _ => return None,
    };
    if let Some(fixed) = set.iter().find(|g| g.column.number == key.number) {
        if each {
            return None;
        }
        problems.push(Problem::invalid_parameter(
            format!("set: {} of {shown} is the tenant", fixed.column.quoted),
            "leave it out: it is that of the rows; or put the expression into match",
        ));
        return None;
    }
    if matched.iter().any(|g| g.column.number == key.number) {
        return None;
    }
    match resolver.of(table).as_ref() {
        RowTenant::Columns(columns) if columns.len() == 1 => {
            let own = table.column(columns[0])?;
            let (base, _) = catalog.base_type(key.type_oid, -1)?;
            let given = ColumnExpression {
                column: key,
                expression: own.quoted.clone(),
                sql: format!("t.{}::{}", own.sql(), base.sql()),
                type_oid: base.oid,
                misfit: None,
                tree: None,
            };
            Some((given, None))
        }
        RowTenant::Shared | RowTenant::Paths(_) if each && !memberships(session, resolver, table).is_empty() => {
            through_membership(session, resolver, table, key, problems)
        }
        _ => {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("the tenant of new rows of {shown} cannot be determined"),
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

/// A table that says which tenants a row of another one belongs to: (table, column that references the row, the row's key, tenant
/// key).
type Membership<'a> = (&'a Table, &'a Column, i16, &'a Column);

fn memberships<'a>(session: &'a Session, resolver: &TenantResolver<'a>, table: &Table) -> Vec<Membership<'a>> {
    let Some(keys) = resolver.keys() else { return vec![] };
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
    resolver: &TenantResolver<'a>,
    table: &Table,
    key: &'a Column,
    problems: &mut Problems,
) -> Option<Tenant<'a>> {
    let catalog = &session.catalog;
    let found = memberships(session, resolver, table);
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
    let given = ColumnExpression {
        column: key,
        expression: format!("the only one of {}.{}", catalog.display(member), tenant.quoted),
        sql,
        type_oid: base.oid,
        misfit: None,
        tree: None,
    };
    Some((given, Some(unknown)))
}
