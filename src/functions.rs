//! What SQL sees. Each function decodes its arguments, makes one call, reports. Their COMMENTs are in `sql/comments.sql`.

// What pgrx raises as a Postgres error; each is made once, at the very end of a call.
#![allow(clippy::result_large_err)]
// pgrx reads the columns of a result from the signature itself, an alias would hide them from it.
#![allow(clippy::type_complexity)]

use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::problem::Problem;
use crate::report;
use crate::rule::{OnConflict, RuleSpec, SourceSpec};
use crate::run::{self, Outcome, PartyRequest, Request, Session, TenantRequest};

/// One row of the result: table, column, dry run, total, already set, filled, unfilled, reasons, run, note.
type Row = (
    String,
    String,
    bool,
    i64,
    i64,
    i64,
    i64,
    JsonB,
    Option<i64>,
    Option<String>,
);

/// Fills one column from its sources, or (by default) counts what that would do.
///
/// * `table_name`, `column_name`: the target, as people type it (`WaitlistEntry`, `public."WaitlistEntry"`).
/// * `sources`: paths in order of precedence, such as `contactId -> Contact.partyId`; NULL: inferred.
/// * `dry_run`: true counts and writes nothing; works read-only and on a standby.
/// * `on_conflict`: `skip`, `first`, `error` or `any_two`, for sources that give different values.
/// * `only_where`: a condition over the target's columns; other rows are `excluded`.
/// * `tenant_guard`: refuse values whose row belongs to another tenant.
/// * `tenant`: only rows of this tenant (its key as text).
/// * `overwrite`: `nothing` (default), or `mismatched`: replace values that all sources contradict with one other value, and keep
///   the old ones in `mend.replaced_values`.
///
/// Returns one row: `total = already_set + filled + unfilled`, and `unfilled` is the sum of `reasons`.
///
/// Errors: 42P01, 42703 (names, with the nearest ones), 42601 (grammar), 42804 (types), 42830 (no key to join by), 42809,
/// 428C9, 0A000 (what cannot be filled), 42501 (privileges, row-level security), 42P08 (ambiguous tenant root), 21000
/// (conflicts under `error`), 25006 (read-only), 40001, 27000; all problems of a rule at once.
///
/// ```sql
/// SELECT * FROM backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId -> Contact.partyId']);
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn backfill(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: default!(Option<Vec<Option<String>>>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    overwrite: default!(Option<&str>, "'nothing'"),
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
            name!(reasons, JsonB),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let spec = spec(
        table_name,
        column_name,
        sources,
        on_conflict,
        only_where,
        tenant_guard,
        tenant,
        overwrite,
    )?;
    let outcome = fill(&spec, given(dry_run, "dry_run")?)?;
    Ok(TableIterator::once(row(outcome)))
}

/// The same as `backfill(table, column, ...)`, the rule as one JSON object.
///
/// Keys: `table`, `column` (required); `sources` (array of paths as text, or as
/// `{"columns": [...], "hops": [{"table": ..., "key": [...], "columns": [...]}]}`), `on_conflict`, `only_where`,
/// `tenant_guard`, `tenant`, `overwrite`, and `references` (`{"table": ..., "column": ...}`, the row that a value means where no foreign
/// key says so). An unknown key is an error, so that a misspelt one is not ignored.
///
/// Errors: 22023 for JSON that is no rule; those of `backfill`.
///
/// ```sql
/// SELECT * FROM backfill('{"table": "WaitlistEntry", "column": "clientPartyId"}');
/// ```
#[pg_extern(name = "backfill")]
fn backfill_rule(
    rule: Option<JsonB>,
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
            name!(reasons, JsonB),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let JsonB(value) = given(rule, "rule")?;
    let spec: RuleSpec = serde_json::from_value(value).map_err(|error| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("this JSON is no rule: {error}"),
        )
        .detail("keys: table, column, sources, on_conflict, only_where, tenant_guard, tenant, overwrite, references")
        .hint(r#"for example backfill('{"table": "WaitlistEntry", "column": "clientPartyId"}')"#)
    })?;
    let outcome = fill(&spec, given(dry_run, "dry_run")?)?;
    Ok(TableIterator::once(row(outcome)))
}

/// Fills every column that references Party from its legacy contact, organization and user columns, parents first.
///
/// * `table_name`: one table; NULL: all.
/// * `party_table`: the table of the parties.
/// * the others as in `backfill`.
///
/// Returns one row per column, in the order of the run, all in one transaction. When all tables are asked, one whose
/// legacy columns are gone is a row with a note.
///
/// Errors: 42703 if the named table has no party column, or none that can be derived; those of `backfill`.
///
/// ```sql
/// SELECT * FROM backfill_party_ids('WaitlistEntry', true);
/// ```
#[pg_extern]
fn backfill_party_ids(
    table_name: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    party_table: default!(Option<&str>, "'Party'"),
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
            name!(reasons, JsonB),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = PartyRequest {
        table: table_name.map(str::to_string),
        party_table: given(party_table, "party_table")?.to_string(),
        dry_run: given(dry_run, "dry_run")?,
        on_conflict: given(on_conflict, "on_conflict")?.parse()?,
        only_where: only_where.map(str::to_string),
        tenant_guard: given(tenant_guard, "tenant_guard")?,
        tenant: tenant.map(str::to_string),
    };
    let outcomes = run::party(&Session::begin()?, &request)?;
    Ok(TableIterator::new(outcomes.into_iter().map(row)))
}

/// Fills the tenant key of every table that has one, along the paths that [`tenant_columns`] shows, parents before children.
///
/// * `root`: the table that holds the tenants; NULL: the setting `pg_mend.tenant_root`, else inferred.
/// * `table_name`: one table; NULL: all.
/// * `tenant`: only rows that are this tenant's already, or would be.
/// * the others as in `backfill`.
///
/// Returns one row per key, in the order of the run, all in one transaction. Rows where two paths differ are `conflict`; a
/// row whose parent has no tenant stays NULL and is `source_null`. A key that is NOT NULL, or that nothing leads to, is a row
/// with a note.
///
/// Errors: 42P08 (ambiguous root, with the candidates), 42704 (none), 42703 (nothing references the root; the named table has
/// no key, or none that can be derived), 42P17 (tables that can only be filled from each other); those of `backfill`.
///
/// ```sql
/// SELECT * FROM backfill_tenant_ids('organizations', dry_run => true);
/// ```
#[pg_extern]
fn backfill_tenant_ids(
    root: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
    table_name: default!(Option<&str>, "NULL"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant: default!(Option<&str>, "NULL"),
    overwrite: default!(Option<&str>, "'nothing'"),
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
            name!(reasons, JsonB),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = TenantRequest {
        root: root.map(str::to_string),
        table: table_name.map(str::to_string),
        dry_run: given(dry_run, "dry_run")?,
        on_conflict: given(on_conflict, "on_conflict")?.parse()?,
        only_where: only_where.map(str::to_string),
        tenant: tenant.map(str::to_string),
        overwrite: given(overwrite, "overwrite")?.parse()?,
    };
    let outcomes = run::tenants(&Session::begin()?, &request)?;
    Ok(TableIterator::new(outcomes.into_iter().map(row)))
}

/// The tenant key of every table: how far it is, and the path to its value.
///
/// * `root`: the table that holds the tenants; NULL: the setting `pg_mend.tenant_root`, else inferred. Several with commas between them
///   (`'projects, groups'`) where a row belongs to one or the other: a table has a row for each key that it holds.
///
/// Returns one row per key, and one per table that has none. `status`: `root`, `ready` (NOT NULL, foreign key valid), `nullable`
/// (no NULL is left), `unconstrained` (NOT NULL, without a valid foreign key), `needs_backfill` (NULLs possible or seen),
/// `needs_column` (a path, no column that can hold it), `shared` (no path: everybody's), `ambiguous` (several columns could be
/// it), `unreachable` (only paths that no foreign key declares). `constraint_state`: `valid`, `not_valid`, `not_enforced`,
/// `missing`. `estimated_rows` comes from ANALYZE, NULL where it never ran.
///
/// Errors: 42P08 (ambiguous root, with the candidates), 42704 (none), 42703 (nothing references it), 42P01, 42809, 42830.
///
/// ```sql
/// SELECT table_name, tenant_column, status, path FROM tenant_columns('organizations');
/// ```
#[pg_extern]
fn tenant_columns(
    root: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(tenant_column, Option<String>),
            name!(status, String),
            name!(path, Option<String>),
            name!(alternatives, Vec<String>),
            name!(constraint_name, Option<String>),
            name!(constraint_state, Option<String>),
            name!(not_null, Option<bool>),
            name!(indexed, Option<bool>),
            name!(row_security, bool),
            name!(estimated_rows, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let rows = report::tenant_columns::of_roots(&Session::begin()?, root)?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        (
            row.table,
            row.column,
            row.status.as_str().to_string(),
            row.path,
            row.alternatives,
            row.constraint,
            row.constraint_state.map(str::to_string),
            row.not_null,
            row.indexed,
            row.row_security,
            row.estimated_rows,
            row.note,
        )
    })))
}

/// For the tenant key of every table, exactly: rows, rows where it is set, and rows where it is not what its path says.
///
/// * `root`: the table that holds the tenants; NULL: the setting `pg_mend.tenant_root`, else inferred.
///
/// `percent` is rounded down: 100.00 means that no row is missing; NULL for a table without rows. `disagrees` counts rows whose
/// key is set and differs from what the first path that gives a value says; NULL where no path leads to the key, because then
/// nothing was compared. `backfill(..., overwrite => 'mismatched')` repairs them. Reads every table once; writes nothing.
///
/// Errors: those of [`tenant_columns`]; 42501 with every table that may not be read or whose policies would hide rows.
///
/// ```sql
/// SELECT * FROM backfill_coverage('organizations') WHERE missing > 0 OR disagrees > 0;
/// ```
#[pg_extern]
fn backfill_coverage(
    root: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(tenant_column, String),
            name!(total, i64),
            name!(populated, i64),
            name!(missing, i64),
            name!(percent, Option<AnyNumeric>),
            name!(disagrees, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let coverage = run::tenant_coverage(&Session::begin()?, root)?;
    Ok(TableIterator::new(coverage.into_iter().map(|c| {
        (
            c.table,
            c.column,
            c.total,
            c.populated,
            c.total - c.populated,
            percent(c.populated, c.total),
            c.disagrees,
        )
    })))
}

/// `part` of `whole` in percent with two digits, rounded down; `None` of nothing.
fn percent(part: i64, whole: i64) -> Option<AnyNumeric> {
    if whole == 0 {
        return None;
    }
    let hundredths = i128::from(part) * 10_000 / i128::from(whole);
    AnyNumeric::try_from(format!("{}.{:02}", hundredths / 100, hundredths % 100).as_str()).ok()
}

/// The tables from the tenants downwards: what hangs on what, by which column, and how far each is.
///
/// * `root`: the table that holds the tenants; NULL: the setting `pg_mend.tenant_root`, else inferred.
/// * `format`: `mermaid` (a flowchart for mermaid.js; dotted edges are further paths, which are named in the table where there are more
///   than 20) or `tree` (text).
///
/// Numbers with `~` come from ANALYZE.
///
/// Errors: those of [`tenant_columns`]; 22023 for another format.
///
/// ```sql
/// SELECT tenant_map(format => 'tree');
/// ```
#[pg_extern]
fn tenant_map(
    root: default!(Option<&str>, "NULL"),
    format: default!(Option<&str>, "'mermaid'"),
) -> Result<String, ErrorReport> {
    let format = given(format, "format")?.parse()?;
    let session = Session::begin()?;
    let keys = run::tenant_keys(&session, root)?;
    let rows = report::tenant_columns::tenant_columns(&session, &keys)?;
    Ok(report::tenant_map::tenant_map(&rows, format))
}

/// Columns that are NULL in every row, with what still uses them, or the statement that drops them.
///
/// * `schema`: one schema; NULL: all but the system's.
///
/// `verdict`: `dead` (nothing uses it; `statement` drops it if it still is empty by then), `used` (`used_by` names what depends
/// on it), `not_checked` (a table, without a column: it has no rows, or may not be read; `checked` says which). Reads every
/// table; what applications send cannot be seen from here.
///
/// Errors: 3F000 with the nearest names.
///
/// ```sql
/// SELECT table_name, column_name, verdict, used_by FROM dead_columns('public');
/// ```
#[pg_extern]
fn dead_columns(
    schema: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, Option<String>),
            name!(data_type, Option<String>),
            name!(verdict, String),
            name!(rows_checked, Option<i64>),
            name!(used_by, Vec<String>),
            name!(checked, String),
            name!(statement, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let found = report::dead_columns::dead_columns(&Session::begin()?, schema)?;
    Ok(TableIterator::new(found.into_iter().map(|c| {
        (
            c.table,
            c.column,
            c.data_type,
            c.verdict.to_string(),
            c.rows_checked,
            c.used_by,
            c.checked,
            c.statement,
        )
    })))
}

/// The rows that `backfill` with the same arguments leaves empty: key, reason, and what was found in words.
///
/// * `max_rows`: at most this many; rows that the caller excluded come last.
/// * the others as in `backfill`.
///
/// Rows without a primary key are named by their ctid. Writes nothing.
///
/// Errors: those of `backfill`; 22023 for a negative `max_rows`.
///
/// ```sql
/// SELECT * FROM backfill_unfilled('WaitlistEntry', 'clientPartyId') WHERE reason = 'conflict';
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn backfill_unfilled(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: default!(Option<Vec<Option<String>>>, "NULL"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    max_rows: default!(Option<i64>, "100"),
    overwrite: default!(Option<&str>, "'nothing'"),
) -> Result<
    TableIterator<'static, (name!(key, JsonB), name!(reason, String), name!(detail, Option<String>))>,
    ErrorReport,
> {
    let max_rows = given(max_rows, "max_rows")?;
    if max_rows < 0 {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "max_rows must not be negative",
        )
        .hint("max_rows => 100 shows the first hundred")
        .into());
    }
    let spec = spec(
        table_name,
        column_name,
        sources,
        on_conflict,
        only_where,
        tenant_guard,
        tenant,
        overwrite,
    )?;
    let session = Session::begin()?;
    let mut blueprint = run::prepare(&session, &spec, Request::default())?;
    Ok(TableIterator::new(run::unfilled(&session, &mut blueprint, max_rows)?))
}

/// The statements that `backfill` with the same arguments would run, formatted for review. Runs none of them.
///
/// In this order, the first one included, they do by hand what the function does (without its proof and its record).
///
/// Errors: those of `backfill`.
///
/// ```sql
/// SELECT statement FROM backfill_sql('WaitlistEntry', 'clientPartyId') ORDER BY step;
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn backfill_sql(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: default!(Option<Vec<Option<String>>>, "NULL"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    overwrite: default!(Option<&str>, "'nothing'"),
) -> Result<TableIterator<'static, (name!(step, i32), name!(purpose, String), name!(statement, String))>, ErrorReport> {
    let spec = spec(
        table_name,
        column_name,
        sources,
        on_conflict,
        only_where,
        tenant_guard,
        tenant,
        overwrite,
    )?;
    let session = Session::begin()?;
    let blueprint = run::prepare(&session, &spec, Request::default())?;
    let statements = run::sql(&blueprint).into_iter().enumerate();
    Ok(TableIterator::new(
        statements.map(|(i, (purpose, statement))| (i as i32 + 1, purpose, statement)),
    ))
}

fn fill(spec: &RuleSpec, dry_run: bool) -> Result<Outcome, Problem> {
    let session = Session::begin()?;
    let request = Request {
        will_write: !dry_run,
        ..Request::default()
    };
    let mut blueprint = run::prepare(&session, spec, request)?;
    if dry_run {
        run::dry(&session, &mut blueprint, false)
    } else {
        run::real(&session, &blueprint)
    }
}

#[allow(clippy::too_many_arguments)]
fn spec(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: Option<Vec<Option<String>>>,
    on_conflict: Option<&str>,
    only_where: Option<&str>,
    tenant_guard: Option<bool>,
    tenant: Option<&str>,
    overwrite: Option<&str>,
) -> Result<RuleSpec, Problem> {
    let sources = sources
        .map(|paths| {
            paths
                .into_iter()
                .map(|path| given(path, "each of sources").map(SourceSpec::Text))
                .collect()
        })
        .transpose()?;
    let on_conflict: OnConflict = given(on_conflict, "on_conflict")?.parse()?;
    Ok(RuleSpec {
        table: given(table_name, "table_name")?.to_string(),
        column: given(column_name, "column_name")?.to_string(),
        sources,
        on_conflict,
        only_where: only_where.map(str::to_string),
        tenant_guard: given(tenant_guard, "tenant_guard")?,
        tenant: tenant.map(str::to_string),
        overwrite: given(overwrite, "overwrite")?.parse()?,
        references: None,
    })
}

/// NULL is never taken for a default: a NULL `dry_run` must not mean anything.
fn given<T>(value: Option<T>, name: &str) -> Result<T, Problem> {
    value.ok_or_else(|| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("{name} must not be NULL"),
        )
        .hint("leave the argument out to have its default")
    })
}

fn row(outcome: Outcome) -> Row {
    let counts = &outcome.counts;
    let reasons = counts
        .reasons
        .iter()
        .map(|(reason, rows)| (reason.clone(), (*rows).into()))
        .collect();
    (
        outcome.table,
        outcome.column,
        outcome.dry_run,
        counts.total(),
        counts.already_set,
        counts.filled,
        counts.unfilled(),
        JsonB(serde_json::Value::Object(reasons)),
        outcome.run_id,
        outcome.note,
    )
}
