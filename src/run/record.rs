//! The record of a real run in `mend.runs`, in the same transaction as the run.

use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::json;

use super::Outcome;
use crate::catalog::{Catalog, Details, Table};
use crate::pg::Settings;
use crate::plan::Blueprint;
use crate::problem::Problem;

/// The time now, as text that Postgres reads back exactly.
pub fn clock() -> Result<String, Problem> {
    let sql = "SELECT pg_catalog.clock_timestamp()::pg_catalog.text";
    Ok(Spi::connect(|client| client.select(sql, None, &[])?.first().get_one::<String>())?.unwrap_or_default())
}

/// The id of a run whose record is written later: what it replaces is kept under it.
///
/// Errors: 42501 if the role was never given what it needs.
pub fn next_id() -> Result<i64, Problem> {
    let sql = "SELECT pg_catalog.nextval('mend.runs_run_id_seq'::pg_catalog.regclass)";
    let id = Spi::connect_mut(|client| client.update(sql, None, &[])?.first().get_one::<i64>())?;
    id.ok_or_else(not_recorded)
}

/// The record of a run comes after what it replaced, whatever the caller has set for all constraints.
///
/// Errors: those of SPI only.
pub fn comes_last() -> Result<(), Problem> {
    let defer = "SET CONSTRAINTS mend.replaced_values_run_id_fkey, mend.repaired_rows_run_id_fkey, mend.created_rows_run_id_fkey, mend.reset_rows_run_id_fkey, mend.reset_values_run_id_fkey DEFERRED";
    Ok(Spi::connect_mut(|client| client.update(defer, None, &[]).map(|_| ()))?)
}

/// What is written about a run, whatever it did.
#[derive(Debug, Clone)]
pub struct Record {
    /// The family of calls: `backfill`, `repair_orphans`.
    pub operation: &'static str,
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
    /// When it began, see [`clock`].
    pub started: String,
    /// What of the schema decided the run.
    pub fingerprint: String,
}

/// Writes the record of a backfill; returns its id.
///
/// * `id`: taken before by [`next_id`].
///
/// Errors: 42501 if the role was never given what it needs.
pub fn of_backfill(blueprint: &Blueprint, outcome: &Outcome, started: &str, id: Option<i64>) -> Result<i64, Problem> {
    let undeclared = blueprint
        .reference
        .as_ref()
        .filter(|r| blueprint.refuse_dangling && !r.declared);
    let rule = match blueprint
        .rule
        .to_spec(blueprint.catalog, undeclared.map(|r| (r.parent, r.key)))
    {
        Some(spec) => serde_json::to_value(spec)?,
        None => serde_json::Value::Null,
    };
    let counts = &outcome.counts;
    let reasons = serde_json::to_value(&counts.reasons)?;
    let statement = Blueprint {
        for_review: true,
        ..blueprint.clone()
    }
    .write(None)
    .sql;
    let reads = blueprint.reads().into_iter().map(|(table, _)| table).collect();
    let record = Record {
        operation: "backfill",
        table: qualified(blueprint.table),
        column: outcome.column.clone(),
        rule,
        statement,
        counts: (counts.already_set, counts.filled, reasons, counts.unfilled()),
        note: outcome.note.clone(),
        started: started.into(),
        fingerprint: fingerprinted(blueprint.catalog, reads, &blueprint.details),
    };
    insert(&record, id)
}

/// The name of a table as it is recorded: always with its schema.
pub fn qualified(table: &Table) -> String {
    format!("{}.{}", table.quoted_schema, table.quoted_name)
}

/// Writes a record; returns its id.
///
/// * `id`: taken before by [`next_id`].
///
/// Errors: 42501 if the role was never given what it needs.
pub fn insert(record: &Record, id: Option<i64>) -> Result<i64, Problem> {
    let (column, overriding, value) = match id {
        Some(_) => ("run_id, ", "OVERRIDING SYSTEM VALUE", "$14, "),
        None => Default::default(),
    };
    let sql = format!(
        "INSERT INTO mend.runs ({column}operation, table_name, column_name, rule, statement, total, already_set, filled, unfilled, reasons, \
               note, started_at, finished_at, schema_fingerprint, extension_version)
               {overriding}
               VALUES ({value}$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::pg_catalog.timestamptz, pg_catalog.clock_timestamp(), \
               pg_catalog.md5($13), '{}')
               RETURNING run_id",
        env!("CARGO_PKG_VERSION")
    );
    // A caller who has switched it off is not above the policies of mend.runs, and need not be.
    let _settings = Settings::push(&[("row_security", "on")]);
    let (already_set, filled, reasons, unfilled) = record.counts.clone();
    let mut arguments = vec![
        record.operation.into(),
        record.table.clone().into(),
        record.column.clone().into(),
        JsonB(record.rule.clone()).into(),
        record.statement.clone().into(),
        (already_set + filled + unfilled).into(),
        already_set.into(),
        filled.into(),
        unfilled.into(),
        JsonB(reasons).into(),
        record.note.clone().into(),
        record.started.clone().into(),
        record.fingerprint.clone().into(),
    ];
    arguments.extend(id.map(Into::into));
    let id = Spi::connect_mut(|client| client.update(&sql, None, &arguments)?.first().get_one::<i64>())?;
    id.ok_or_else(not_recorded)
}

fn not_recorded() -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        "mend.runs did not take the record of the run",
    )
    .hint("does it have a trigger that returns NULL? pg_mend's state tables must stay as they were created")
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
