//! Tenant keys of all tables: what they are, how far, filling them; what is dead.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{required_argument, row};
use crate::pg::Jsonb;
use crate::plan::Mode;
use crate::report;
use crate::run::{self, Session, TenantKeysRequest};

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
            name!(reasons, Jsonb),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = TenantKeysRequest {
        root: root.map(str::to_string),
        table: table_name.map(str::to_string),
        mode: Mode::of(required_argument(dry_run, "dry_run")?),
        on_conflict: required_argument(on_conflict, "on_conflict")?.parse()?,
        only_where: only_where.map(str::to_string),
        tenant: tenant.map(str::to_string),
        overwrite: required_argument(overwrite, "overwrite")?.parse()?,
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
    let format = required_argument(format, "format")?.parse()?;
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

/// One checklist for a migration to tenants or parties: every question answered from the rows and the catalog as they are now.
///
/// * `root`: the table that holds the tenants, as in `validate_tenant_fks`; empty: without tenants.
/// * `party_table`: the table of the parties; NULL: `Party`, where there is one.
///
/// Returns per question one row without a table (`checked` things, `found` open ones, `verdict` `ok`, `open` or `not_checked`)
/// and then one row per finding (`checked` rows, `found` of them) with the next call; the last row, `total`, sums up. The questions:
/// `legacy columns`, `mandatory NULLs`, `orphans`, `cross-tenant references`, `foreign keys`, `indexes`, `coverage` (tenant keys
/// that are not what their path says), `NOT NULL`, `row-level security`.
///
/// Errors: 42P01 (names), 42P08 (ambiguous root), 42501 with every table that may not be read, or of which policies would hide
/// rows; 42P17 for tables that take their party from each other.
///
/// ```sql
/// SELECT question, checked, found, verdict FROM migration_report('organizations') WHERE table_name IS NULL;
/// ```
#[pg_extern]
fn migration_report(
    root: default!(Option<&str>, "NULL"),
    party_table: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(question, String),
            name!(table_name, Option<String>),
            name!(column_name, Option<String>),
            name!(checked, i64),
            name!(found, i64),
            name!(verdict, String),
            name!(detail, String),
            name!(next, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = report::migration::MigrationReportRequest {
        root: root.map(str::to_string),
        party: party_table.map(str::to_string),
    };
    let answers = report::migration::report(&Session::begin()?, &request)?;
    Ok(TableIterator::new(answers.into_iter().map(|a| {
        (
            a.question.to_string(),
            a.table,
            a.column,
            a.checked,
            a.found,
            a.verdict.to_string(),
            a.detail,
            a.next,
        )
    })))
}
