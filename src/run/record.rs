//! What is recorded of a real run in `mend.runs`; the ledger writes it.

use pgrx::prelude::*;
use serde_json::json;

use crate::catalog::{Catalog, Details, Table};
use crate::pg::Jsonb;
use crate::problem::Problem;

/// The time now, as text that Postgres reads back exactly.
pub fn clock() -> Result<String, Problem> {
    let sql = "SELECT pg_catalog.clock_timestamp()::pg_catalog.text";
    Ok(Spi::connect(|client| client.select(sql, None, &[])?.first().get_one::<String>())?.unwrap_or_default())
}

/// What is written about a run, whatever it did.
#[derive(Debug, Clone)]
pub struct Record {
    /// With its schema, quoted where needed.
    pub table: String,
    /// The bare name, or as typed where there are several.
    pub column: String,
    /// What was asked, complete.
    pub rule: serde_json::Value,
    /// What was run.
    pub statement: String,
    /// Rows that needed nothing, rows that were written, rows left by reason.
    pub counts: (i64, i64, serde_json::Value, i64),
    /// Besides the numbers.
    pub note: Option<String>,
    /// What of the schema decided the run.
    pub fingerprint: String,
}

/// The role that has recorded exactly this rule, where the caller has not: its words would be run as the caller's own.
///
/// Errors: those of SPI only.
pub fn recorded_by_another(rule: &Jsonb) -> Result<Option<String>, Problem> {
    let sql = "SELECT pg_catalog.min(r.run_by::pg_catalog.text) FROM mend.runs r WHERE r.rule = $1
               HAVING NOT COALESCE(pg_catalog.bool_or(r.run_by = CURRENT_USER), false)";
    let arguments = [rule.clone().into()];
    Ok(Spi::connect(|client| {
        let found = client.select(sql, None, &arguments)?;
        match found.is_empty() {
            true => Ok(None),
            false => found.first().get_one::<String>(),
        }
    })?)
}

/// Refuses words of another role.
pub fn not_ones_own(role: &str, what: &str, hint: &str) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("{role} has recorded this rule, not you"),
    )
    .detail(format!("{what} would be run with your rights"))
    .hint(hint)
}

/// The name of a table as it is recorded: always with its schema.
pub fn qualified(table: &Table) -> String {
    format!("{}.{}", table.quoted_schema, table.quoted_name)
}

/// What of the schema decided the run, as text whose hash changes when the schema does: columns, types and keys of
/// every table read, and what the target enforces.
pub fn fingerprinted(catalog: &Catalog, mut reads: Vec<u32>, details: &Details) -> String {
    reads.sort_by_key(|oid| catalog.table(*oid).map(|t| (t.schema.clone(), t.name.clone())));
    let tables: Vec<serde_json::Value> = reads
        .iter()
        .filter_map(|oid| catalog.table(*oid))
        .map(|t| {
            let columns: Vec<_> = t
                .columns
                .iter()
                .map(|c| {
                    let column_type = catalog.type_of(c.type_oid).map(|t| (t.schema.clone(), t.name.clone()));
                    json!([c.name, column_type, c.type_modifier, c.not_null, c.generated])
                })
                .collect();
            let keys: Vec<_> = t
                .keys
                .iter()
                .map(|k| json!([k.name, t.names_of(&k.columns), k.primary]))
                .collect();
            let foreign: Vec<_> = catalog
                .foreign_keys_of(t.oid)
                .map(|k| json!([k.name, t.names_of(&k.columns), k.validated, k.enforced]))
                .collect();
            json!({"schema": t.schema, "name": t.name, "columns": columns, "keys": keys, "foreign_keys": foreign})
        })
        .collect();
    json!({"tables": tables, "details": details}).to_string()
}
