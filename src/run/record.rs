//! The record of a real run in `mend.runs`, in the same transaction as the run.

use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::json;

use super::Outcome;
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

/// Writes the record; returns its id.
///
/// * `id`: taken before by [`next_id`].
///
/// Errors: 42501 if the role was never given what it needs.
pub fn insert(blueprint: &Blueprint, outcome: &Outcome, started: &str, id: Option<i64>) -> Result<i64, Problem> {
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
    let reasons = serde_json::to_value(&outcome.counts.reasons)?;
    let table = format!("{}.{}", blueprint.table.quoted_schema, blueprint.table.quoted_name);
    let (column, overriding, value) = match id {
        Some(_) => ("run_id, ", "OVERRIDING SYSTEM VALUE", "$14, "),
        None => Default::default(),
    };
    let sql = format!(
        "INSERT INTO mend.runs ({column}operation, table_name, column_name, rule, statement, total, already_set, filled, unfilled, reasons, \
               note, started_at, finished_at, schema_fingerprint, extension_version)
               {overriding}
               VALUES ({value}'backfill', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::pg_catalog.timestamptz, pg_catalog.clock_timestamp(), \
               pg_catalog.md5($12), $13)
               RETURNING run_id"
    );
    let statement = Blueprint {
        for_review: true,
        ..blueprint.clone()
    }
    .write(None)
    .sql;
    // A caller who has switched it off is not above the policies of mend.runs, and need not be.
    let _settings = Settings::push(&[("row_security", "on")]);
    let counts = &outcome.counts;
    let mut arguments = vec![
        table.into(),
        outcome.column.clone().into(),
        JsonB(rule).into(),
        statement.into(),
        counts.total().into(),
        counts.already_set.into(),
        counts.filled.into(),
        counts.unfilled().into(),
        JsonB(reasons).into(),
        outcome.note.clone().into(),
        started.into(),
        fingerprinted(blueprint).into(),
        env!("CARGO_PKG_VERSION").into(),
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
fn fingerprinted(blueprint: &Blueprint) -> String {
    let catalog = blueprint.catalog;
    let mut reads: Vec<u32> = blueprint.reads().into_iter().map(|(table, _)| table).collect();
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
    json!({"tables": tables, "details": blueprint.details}).to_string()
}
