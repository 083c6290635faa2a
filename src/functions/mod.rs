//! What SQL sees. Each function decodes its arguments, makes one call, reports. Their COMMENTs are in `sql/comments.sql`.

// What pgrx raises as a Postgres error; each is made once, at the very end of a call.
#![allow(clippy::result_large_err)]
// pgrx reads the columns of a result from the signature itself, an alias would hide them from it.
#![allow(clippy::type_complexity)]

mod backfill;
mod finalize;
mod migration;
mod parents;
mod repair;
mod tenants;
mod validate;

use pgrx::datum::Interval;
use pgrx::prelude::*;
use serde_json::{Map, Value};

use crate::pg::Jsonb;
use crate::plan::Tally;
use crate::problem::Problem;
use crate::run::Outcome;

/// One row of the result: table, column, dry run, total, already set, filled, unfilled, reasons, run, note.
type Row = (
    String,
    String,
    bool,
    i64,
    i64,
    i64,
    i64,
    Jsonb,
    Option<i64>,
    Option<String>,
);

/// NULL is never taken for a default: a NULL `dry_run` must not mean anything.
fn required_argument<T>(value: Option<T>, name: &str) -> Result<T, Problem> {
    value.ok_or_else(|| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("{name} must not be NULL"),
        )
        .hint("leave the argument out to have its default")
    })
}

/// Rows by reason.
fn reasons(rows: &Tally) -> Jsonb {
    Jsonb::from(&rows.to_json())
}

/// An argument that is a JSON object.
fn object(value: Option<Jsonb>, name: &str) -> Result<Option<Map<String, Value>>, Problem> {
    match value.map(|value| value.value(name)).transpose()? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{name} is no JSON object"),
        )
        .hint(format!(
            r#"for example {name} => '{{"column of the parent": "expression over the row"}}'"#
        ))),
    }
}

fn row(outcome: Outcome) -> Row {
    let (counts, note) = (&outcome.counts, outcome.note());
    (
        outcome.table,
        outcome.column,
        outcome.dry_run,
        counts.total(),
        counts.already_set,
        counts.filled,
        counts.unfilled(),
        reasons(&counts.reasons),
        outcome.run_id,
        note,
    )
}

fn milliseconds(timeout: &Interval) -> Result<i64, Problem> {
    let milliseconds = timeout.as_micros() / 1000;
    // 0 would wait for ever; the setting is an int4.
    match i64::try_from(milliseconds) {
        Ok(milliseconds) if (1..=i64::from(i32::MAX)).contains(&milliseconds) => Ok(milliseconds),
        _ => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "lock_timeout must be at least a millisecond, and at most 24 days",
        )
        .detail("while a session waits for a strong lock, all other sessions queue behind it")
        .hint("lock_timeout => '2s' is the default")),
    }
}
