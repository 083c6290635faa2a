//! Tenant keys that were declared: which column of a table says whose its rows are. Kept by name, so that they survive a dump; what they say
//! holds for every call, and for all roles.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::Session;
use super::ledger;
use crate::catalog::{Catalog, DeclaredKey, Table};
use crate::identifier::Literal;
use crate::problem::Problem;

/// Puts what was declared, and counts now, into the catalog. A column that does not exist any more is left out.
///
/// Errors: those of SPI only.
pub fn load(catalog: &mut Catalog) -> Result<(), Problem> {
    let sql = "SELECT table_schema, table_name, column_name, declared_by::pg_catalog.text FROM mend.declared_tenant_keys WHERE in_force";
    // Who may use pg_mend but not read its tables gets the same answers.
    let rows = ledger::ours(|| {
        Ok(Spi::connect(|client| {
            let mut rows = vec![];
            for row in client.select(sql, None, &[])? {
                let text = |column: usize| Ok::<_, SpiError>(row.get::<String>(column)?.unwrap_or_default());
                rows.push((text(1)?, text(2)?, row.get::<String>(3)?, text(4)?));
            }
            Ok::<_, SpiError>(rows)
        })?)
    })?;
    for (schema, name, column, declared_by) in rows {
        let Some(table) = catalog.table_in(&schema, &name) else {
            continue;
        };
        let found = column
            .as_ref()
            .and_then(|name| table.column_named(name))
            .map(|c| c.number);
        if column.is_none() || found.is_some() {
            let declared = DeclaredKey {
                column: found,
                declared_by,
            };
            let oid = table.oid;
            catalog.declared_keys.insert(oid, declared);
        }
    }
    Ok(())
}

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
    ledger::ours(|| {
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
    let gone = ledger::ours(|| {
        Ok(Spi::connect_mut(|client| {
            Ok::<_, SpiError>(client.update(sql, None, &arguments)?.len())
        })?)
    })?;
    match gone {
        0 => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("nothing was declared of the tenant key of {shown}"),
        )
        .hint(format!(
            "SELECT declare_tenant_key({}, 'column') declares it",
            Literal::new(&shown)
        ))),
        _ => Ok(format!("the tenant key of {shown} is inferred again")),
    }
}
