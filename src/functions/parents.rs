//! Creating missing parents and linking them.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::Value;

use super::{object, reasons, required_argument};
use crate::parents::{self, Parents, ParentsRequest};
use crate::pg::Jsonb;
use crate::plan::{Mode, Reason};
use crate::problem::Problem;
use crate::run::{Session, record};

/// The row that both forms return.
type Row = (
    String,
    String,
    bool,
    i64,
    i64,
    i64,
    i64,
    Jsonb,
    i64,
    i64,
    Option<i64>,
    Option<String>,
);

/// Links every row to its parent, and creates the parents that are missing; or (by default) counts what that would do.
///
/// * `table_name`, `column_name`: the rows, and the column that references the parent.
/// * `match`: parent column → SQL expression over the row, `'{"address_key": "lower(address)"}'`: rows with the same values share
///   a parent, and parents that are there are found by it first. It needs a unique key of the parent on exactly these columns. The
///   parent's tenant is added by itself, from the tenant key of the row. NULL: a proposal is counted, and nothing is created.
/// * `set`: what else a new parent gets, parent column → expression. Existing parents are never changed.
/// * `dry_run`: true counts and writes nothing; works read-only and on a standby.
/// * `tenant`: only rows of this tenant. `only_where`: only these rows.
/// * `normalize`: parent column of `match` → `trim`, `casefold`, `spaces` (or a list). Postgres wants it quoted where it is
///   named: `"normalize" => ...`.
/// * `on_conflict`: rows that would give the parent that they share different values: `skip`, `first` (of the first row, by primary
///   key) or `error`.
/// * `max_rows`: link at most so many rows in this call; the others are `excluded`, and the next call goes on with them.
/// * `parent`: `'properties'` or `'properties(id)'`, where nothing says what the column references.
/// * `root`: the table that holds the tenants, as in `validate_tenant_fks`.
///
/// Returns one row as `backfill` does, with `parents_found` (parents that were there, to which rows are linked now) and
/// `parents_created`. A row whose identity has a NULL or empty part is `no_source`. New parents are in `mend.created_rows`.
///
/// Errors: 42P01, 42703, 42704 (names), 42601 (expressions), 42830 (no unique key, with the statement), 23502 (required columns,
/// all at once), 22004 (`match` is NULL in a real run), 22023, 0A000, 21000 (`on_conflict => 'error'`), 22P02 (a value is none of
/// the column's type), 42501, 25006 (read-only), 25000 (REPEATABLE READ), 40001.
///
/// ```sql
/// SELECT * FROM backfill_parents('orders', 'property_id', match => '{"addr_key": "lower(address)"}', set => '{"city": "city"}');
/// ```
// MATCH is a keyword of Rust, not of Postgres: the argument is called what people would call it.
#[pg_extern(sql = r#"
CREATE FUNCTION backfill_parents(
    table_name  text,
    column_name text,
    match       jsonb DEFAULT NULL,
    set         jsonb DEFAULT NULL,
    dry_run     boolean DEFAULT true,
    tenant      text DEFAULT NULL,
    only_where  text DEFAULT NULL,
    "normalize" jsonb DEFAULT NULL,
    on_conflict text DEFAULT 'skip',
    max_rows    bigint DEFAULT NULL,
    parent      text DEFAULT NULL,
    root        text DEFAULT NULL)
RETURNS TABLE (
    table_name text, column_name text, dry_run boolean, total bigint, already_set bigint, filled bigint, unfilled bigint,
    reasons jsonb, parents_found bigint, parents_created bigint, run_id bigint, note text)
    LANGUAGE c
    AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
#[allow(clippy::too_many_arguments)]
fn backfill_parents(
    table_name: Option<&str>,
    column_name: Option<&str>,
    matched: default!(Option<Jsonb>, "NULL"),
    set: default!(Option<Jsonb>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    only_where: default!(Option<&str>, "NULL"),
    normalize: default!(Option<Jsonb>, "NULL"),
    on_conflict: default!(Option<&str>, "'skip'"),
    max_rows: default!(Option<i64>, "NULL"),
    parent: default!(Option<&str>, "NULL"),
    root: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(dry_run, bool),
            name!(total, i64),
            name!(already_set, i64),
            name!(filled, i64),
            name!(unfilled, i64),
            name!(reasons, Jsonb),
            name!(parents_found, i64),
            name!(parents_created, i64),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = ParentsRequest {
        table: required_argument(table_name, "table_name")?.to_string(),
        column: required_argument(column_name, "column_name")?.to_string(),
        matched: object(matched, "match")?,
        set: object(set, "set")?,
        normalize: object(normalize, "normalize")?,
        tenant: tenant.map(str::to_string),
        only_where: only_where.map(str::to_string),
        on_conflict: required_argument(on_conflict, "on_conflict")?.parse()?,
        max_rows,
        parent: parent.map(str::to_string),
        root: root.map(str::to_string),
    };
    let done = parents::backfill_parents(
        &Session::begin()?,
        &request,
        Mode::of(required_argument(dry_run, "dry_run")?),
    )?;
    Ok(TableIterator::once(row(done)))
}

/// The same as `backfill_parents(table, column, ...)`, the rule as one JSON object with the keys `table`, `column`, `match`, `set`,
/// `normalize`, `tenant`, `only_where`, `on_conflict`, `max_rows`, `parent`, `root`; an unknown key is an error.
///
/// Errors: 22023 for JSON that is no rule; those of `backfill_parents`.
///
/// ```sql
/// SELECT * FROM backfill_parents('{"table": "orders", "column": "property_id", "match": {"addr_key": "lower(address)"}}');
/// ```
#[pg_extern(name = "backfill_parents")]
fn backfill_parents_rule(
    rule: Option<Jsonb>,
    dry_run: default!(Option<bool>, "true"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(dry_run, bool),
            name!(total, i64),
            name!(already_set, i64),
            name!(filled, i64),
            name!(unfilled, i64),
            name!(reasons, Jsonb),
            name!(parents_found, i64),
            name!(parents_created, i64),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let session = Session::begin()?;
    let request = ones_own(&required_argument(rule, "rule")?)?;
    let done = parents::backfill_parents(&session, &request, Mode::of(required_argument(dry_run, "dry_run")?))?;
    Ok(TableIterator::once(row(done)))
}

/// What `backfill_parents` with this rule would do, tenant by tenant; `tenant` in the rule: for one. Writes nothing.
///
/// Returns one row per tenant (NULL: rows without one): rows scanned, those that are linked already, those that would be, parents
/// found and created for them, rows skipped and why.
///
/// Errors: those of `backfill_parents`; 22004 where the rule has no `match`; 22023 where the parents belong to nobody.
///
/// ```sql
/// SELECT * FROM backfill_parents_by_tenant('{"table": "orders", "column": "property_id", "match": {"addr_key": "lower(address)"}}');
/// ```
#[pg_extern]
fn backfill_parents_by_tenant(
    rule: Option<Jsonb>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(tenant, Option<String>),
            name!(scanned, i64),
            name!(already_linked, i64),
            name!(linked, i64),
            name!(parents_found, i64),
            name!(parents_created, i64),
            name!(skipped, i64),
            name!(reasons, Jsonb),
        ),
    >,
    ErrorReport,
> {
    let session = Session::begin()?;
    let found = parents::by_tenant(&session, &ones_own(&required_argument(rule, "rule")?)?)?;
    // Rows of other tenants, where the rule names one, were not looked at.
    let seen = found.into_iter().map(|mut of| {
        let excluded = of.counts.reasons.take(&Reason::Excluded);
        (of, excluded)
    });
    Ok(TableIterator::new(
        seen.filter(|(of, excluded)| of.counts.total() > 0 || *excluded == 0)
            .map(|(of, _)| {
                (
                    of.tenant,
                    of.counts.total(),
                    of.counts.already_set,
                    of.counts.filled,
                    of.found,
                    of.created,
                    of.counts.unfilled(),
                    reasons(&of.counts.reasons),
                )
            }),
    ))
}

/// A rule whose expressions are the caller's own words.
fn ones_own(rule: &Jsonb) -> Result<ParentsRequest, Problem> {
    if let Some(other) = record::recorded_by_another(rule)? {
        let hint =
            "read its expressions, and say them yourself: backfill_parents(table, column, match => ..., set => ...)";
        return Err(record::not_ones_own(&other, "its expressions", hint));
    }
    parsed(rule.value("rule")?)
}

fn parsed(rule: Value) -> Result<ParentsRequest, Problem> {
    let Some(rule) = object(Some(Jsonb::from(&rule)), "rule")? else {
        return Ok(serde_json::from_value(Value::Null)?);
    };
    serde_json::from_value(Value::Object(rule)).map_err(|error| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("this JSON is no rule: {error}"),
        )
        .detail("keys: table, column, match, set, normalize, tenant, only_where, on_conflict, max_rows, parent, root")
        .hint(r#"for example '{"table": "orders", "column": "property_id", "match": {"addr_key": "lower(address)"}}'"#)
    })
}

fn row(done: Parents) -> Row {
    let (outcome, counts) = (&done.outcome, &done.outcome.counts);
    (
        outcome.table.clone(),
        outcome.column.clone(),
        outcome.dry_run,
        counts.total(),
        counts.already_set,
        counts.filled,
        counts.unfilled(),
        reasons(&counts.reasons),
        done.found,
        done.created,
        outcome.run_id,
        outcome.note(),
    )
}
