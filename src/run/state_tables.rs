//! pg_mend's own tables in schema `mend`: found as they were installed, written as their owner.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use crate::catalog::{Catalog, DeclaredKey, DeclaredReference};
use crate::pg::{self, Confinement, Settings};
use crate::problem::Problem;
use crate::settings::SAFE_PATH;

/// The owner of everything in `mend`: BOOTSTRAP_SUPERUSERID (pg_authid.dat).
const OWNER: u32 = 10;

/// The state tables of this database, found to be as they were installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The oid of `mend.ledger_runs`.
    pub runs: u32,
}

impl State {
    /// Looks at what is called `mend.…`: kind, owner, membership, triggers, rules, policies, inheritance. Whoever could put code there
    /// would have it run with the rights of every later caller.
    ///
    /// Errors: 55000 with everything that is not as installed.
    pub fn check() -> Result<State, Problem> {
        let sql = "
WITH expected (name, kind) AS (
  VALUES ('ledger_runs', 'r'), ('ledger_changes', 'r'), ('ledger_writes', 'r'), ('ledger_references', 'r'), ('ledger_tenant_keys', 'r'),
         ('runs', 'v'), ('declared_tenant_keys', 'v'), ('changes', 'v'), ('replaced_values', 'v'), ('repaired_rows', 'v'), ('created_rows', 'v'), ('reset_rows', 'v'), ('reset_values', 'v'), ('declared_references', 'v')
),
found AS (
  SELECT e.name, e.kind, c.oid, c.relkind, c.relowner, c.relrowsecurity, n.nspowner
  FROM expected e
  LEFT JOIN pg_namespace n ON n.nspname = 'mend'
  LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = e.name
)
SELECT max(f.oid) FILTER (WHERE f.name = 'ledger_runs'),
       string_agg(concat_ws(' ', 'mend.' || f.name, w.why), '; ' ORDER BY f.name, w.why) FILTER (WHERE w.why IS NOT NULL)
FROM found f
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN f.oid IS NULL THEN 'is missing'
    WHEN f.relkind::text <> f.kind THEN 'is of another kind'
    WHEN f.relowner <> $1 OR f.nspowner <> $1 THEN 'belongs to another role'
    WHEN NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'pg_mend'
                     WHERE d.classid = 'pg_class'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_extension'::regclass
                       AND d.deptype = 'e') THEN 'is no part of the extension'
    WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = f.oid AND NOT t.tgisinternal) THEN 'has a trigger'
    WHEN EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = f.oid AND (f.kind = 'r' OR r.rulename <> '_RETURN')) THEN 'has a rule'
    WHEN f.relrowsecurity OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = f.oid) THEN 'has a policy'
    WHEN EXISTS (SELECT FROM pg_inherits h WHERE f.oid IN (h.inhrelid, h.inhparent)) THEN 'inherits or is inherited'
  END AS why
) w";
        let arguments = [pg_sys::Oid::from(OWNER).into()];
        let (runs, wrong) = Spi::connect(|client| {
            client
                .select(sql, None, &arguments)?
                .first()
                .get_two::<pg_sys::Oid, String>()
        })?;
        match (runs, wrong) {
            (Some(runs), None) => Ok(State { runs: runs.to_u32() }),
            (_, wrong) => Err(Problem::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "pg_mend's state tables are not as they were installed; nothing was read or written",
            )
            .detail(wrong.unwrap_or_else(|| "mend.ledger_runs is missing".into()))
            .hint("a superuser can put that right; or save what is in schema mend, DROP EXTENSION pg_mend, CREATE EXTENSION pg_mend")),
        }
    }
}

/// Runs a statement that writes state, with the rights of its owner and names looked up in pg_catalog only.
///
/// Errors: those of `work`.
pub fn ours<T>(work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    pg::as_role(OWNER, Confinement::Local, || {
        let _settings = Settings::push(&[("search_path", SAFE_PATH), ("row_security", "on")]);
        work()
    })
}

/// Puts what was declared, and counts now, into the catalog. A column that does not exist any more is left out.
///
/// Errors: those of SPI only.
pub fn load_tenant_keys(catalog: &mut Catalog) -> Result<(), Problem> {
    let sql = "SELECT table_schema, table_name, column_name, declared_by::pg_catalog.text FROM mend.declared_tenant_keys WHERE in_force";
    // Who may use pg_mend but not read its tables gets the same answers.
    let rows = ours(|| {
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

/// Puts references of single columns that were declared, and count now, into the catalog. What does not exist any more is left out.
///
/// Errors: those of SPI only.
pub fn load_declared_references(catalog: &mut Catalog) -> Result<(), Problem> {
    let sql = "SELECT table_schema, table_name, columns[1], type_column IS NOT NULL, parent_schema, parent_table, parent_columns[1], may_cross_tenants
               FROM mend.declared_references
               WHERE in_force AND pg_catalog.cardinality(columns) = 1 ORDER BY reference_id";
    let rows = ours(|| {
        Ok(Spi::connect(|client| {
            let mut rows = vec![];
            for row in client.select(sql, None, &[])? {
                let text = |column: usize| Ok::<_, SpiError>(row.get::<String>(column)?.unwrap_or_default());
                let flag = |column: usize| Ok::<_, SpiError>(row.get::<bool>(column)?.unwrap_or_default());
                rows.push((
                    [text(1)?, text(2)?, text(3)?],
                    flag(4)?,
                    [text(5)?, text(6)?, text(7)?],
                    flag(8)?,
                ));
            }
            Ok::<_, SpiError>(rows)
        })?)
    })?;
    for ([schema, name, column], by_type, [parent_schema, parent, key], may_cross_tenants) in rows {
        let found = |schema: &str, name: &str, column: &str| {
            let table = catalog.table_in(schema, name)?;
            Some((table.oid, table.column_named(column)?.number))
        };
        let (Some(own), to) = (found(&schema, &name, &column), found(&parent_schema, &parent, &key)) else {
            continue;
        };
        // A parent that is gone says nothing; what was declared to be no reference is none.
        if to.is_none() && !parent.is_empty() {
            continue;
        }
        let declared = DeclaredReference {
            to,
            by_type,
            may_cross_tenants,
        };
        catalog.declared_references.insert(own, declared);
    }
    Ok(())
}
