//! Tenant keys that were declared: which column of a table says whose its rows are. Kept by name, so that they survive a dump; what they say
//! holds for every call, and for all roles.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::Session;
use super::state_tables;
use crate::catalog::Table;
use crate::identifier::Literal;
use crate::problem::Problem;

/// What is declared of a table holds for all roles: only its owner says it, and the owner of the extension.
///
/// * `what`: `references of t`, `the tenant key of t`.
///
/// Errors: 42501 for everybody else.
pub fn may_declare(table: &Table, what: &str, hint: &str) -> Result<(), Problem> {
    let sql = "SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE')
                      OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_mend' AND pg_catalog.pg_has_role(e.extowner, 'USAGE')),
                      pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text
               FROM pg_catalog.pg_class c WHERE c.oid = $1";
    let arguments = [pg_sys::Oid::from(table.oid).into()];
    let (may, owner) = Spi::connect(|client| client.select(sql, None, &arguments)?.first().get_two::<bool, String>())?;
    if may == Some(true) {
        return Ok(());
    }
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied to declare {what}"),
    )
    .detail("what is declared of a table holds for all roles, so only its owner may, and the owner of the extension")
    .hint(format!(
        "ask {}, or a role that has its rights; {hint}",
        owner.unwrap_or_default()
    )))
}

/// Keeps which column of a table is its tenant key, in the place of what was declared before; returns it in words.
///
/// * `column`: `None`: none of its columns is.
///
/// Errors: 42P01, 42703 (names), 42809 (no table), 42501.
pub fn declare(session: &Session, table: &str, column: Option<&str>) -> Result<String, Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(table)?;
    let shown = catalog.display(table);
    if !table.is_table() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{shown} is no table"),
        )
        .hint("name the table below it"));
    }
    let column = column.map(|name| catalog.resolve_column(table, name)).transpose()?;
    may_declare(
        table,
        &format!("the tenant key of {shown}"),
        "for one call, name the path yourself: backfill(..., sources => ARRAY[...])",
    )?;
    let sql = "INSERT INTO mend.ledger_tenant_keys AS d (table_schema, table_name, column_name, declared_by)
               VALUES ($1, $2, $3, $4::pg_catalog.name)
               ON CONFLICT (table_schema, table_name)
               DO UPDATE SET column_name = excluded.column_name, declared_by = excluded.declared_by, declared_at = pg_catalog.now()";
    let arguments = [
        table.schema.clone().into(),
        table.name.clone().into(),
        column.map(|c| c.name.clone()).into(),
        session.role.as_str().into(),
    ];
    // Whoever may declare has the rights of the owner: what somebody else has said of its table does not bind it.
    state_tables::ours(|| {
        Ok(Spi::connect_mut(|client| {
            client.update(sql, None, &arguments).map(|_| ())
        })?)
    })?;
    Ok(match column {
        Some(column) => format!("{shown}.{} is the tenant key", column.quoted),
        None => format!("no column of {shown} is a tenant key"),
    })
}

/// Forgets what was declared of a table; true where something was.
///
/// Errors: 42P01, 42501; 42704 where nothing was declared.
pub fn forget(session: &Session, table: &str) -> Result<String, Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(table)?;
    let shown = catalog.display(table);
    may_declare(
        table,
        &format!("the tenant key of {shown}"),
        "SELECT * FROM mend.declared_tenant_keys shows what was declared",
    )?;
    let sql = "DELETE FROM mend.ledger_tenant_keys WHERE table_schema = $1 AND table_name = $2";
    let arguments = [table.schema.clone().into(), table.name.clone().into()];
    let gone = state_tables::ours(|| {
        Ok(Spi::connect_mut(|client| {
            Ok::<_, SpiError>(client.update(sql, None, &arguments)?.len())
        })?)
    })?;
    match gone {
        0 => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("no tenant key is declared for {shown}"),
        )
        .hint(format!(
            "SELECT declare_tenant_key({}, 'column') declares it",
            Literal::new(&shown)
        ))),
        _ => Ok(format!("the tenant key of {shown} is inferred again")),
    }
}
