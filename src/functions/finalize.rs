//! The gate, and what locks a column in.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{milliseconds, required_argument};
use crate::finalize::{self, FinalizeRequest};
use crate::pg;
use crate::problem::Problem;
use crate::run::Session;

/// Fails where a column still is NULL: the line above a `SET NOT NULL` or `DROP COLUMN` in a migration.
///
/// * `table_name`, `column_name`: as people type them.
/// * `only_where`: a condition over the table's columns; only rows of which it is true must have a value
///   (`"studId" IS NOT NULL`).
///
/// Returns what was looked at, in words: `"User"."partyId" is set in all 18 rows`; a table without such rows passes, and it
/// says that nothing was checked.
///
/// Errors: P0004 (which `EXCEPTION WHEN OTHERS` of a DO block does not swallow) with counts, reasons and the next call; 42P01,
/// 42703 (names), 42601 (grammar of the condition), 42501 (privileges, row-level security).
///
/// ```sql
/// SELECT assert_backfilled('BreedingAttempt', 'studOwnerPartyId', '"studId" IS NOT NULL');
/// ```
#[pg_extern]
fn assert_backfilled(
    table_name: Option<&str>,
    column_name: Option<&str>,
    only_where: default!(Option<&str>, "NULL"),
) -> Result<String, ErrorReport> {
    let (table, column) = (
        required_argument(table_name, "table_name")?,
        required_argument(column_name, "column_name")?,
    );
    Ok(finalize::assert_backfilled(
        &Session::begin()?,
        table,
        column,
        only_where,
    )?)
}

/// Every step from filled to locked in, those that are done included. Changes nothing; works read-only and on a standby.
///
/// * `not_null`: the column is to be NOT NULL.
/// * `parent`: what it references, `customers` or `customers(external_id)`; NULL: what is declared or inferred; empty: no
///   foreign key.
/// * `on_delete`: of a foreign key that is new: `no action`, `restrict`, `cascade`, `set null`, `set default`.
/// * `composite`: a foreign key over (tenant, column), which makes references to other tenants impossible; NULL: where the
///   parent has such a key; true: it is wanted, and the statement for the key is handed out.
/// * `policy`: the text of a policy on a tenant key is wanted.
/// * `root`: the table that holds the tenants, as in `validate_tenant_fks`.
///
/// Returns one row per step: the statement as it is run, its strongest lock, `state` (`done`, `next`, `pending`, `blocked`: the
/// rows are not ready, `by hand`: it cannot run in a function, `optional`), and `detail`.
///
/// Errors: 42P01, 42703 (names), 42809 (no table, a partition), 42601, 42804, 42830 (`parent`), 22023, 42P08 (ambiguous root),
/// 42501.
///
/// ```sql
/// SELECT step, statement, lock, state FROM finalize_plan('conversations', 'organization_id');
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn finalize_plan(
    table_name: Option<&str>,
    column_name: Option<&str>,
    not_null: default!(Option<bool>, "true"),
    parent: default!(Option<&str>, "NULL"),
    on_delete: default!(Option<&str>, "'no action'"),
    composite: default!(Option<bool>, "NULL"),
    policy: default!(Option<bool>, "false"),
    root: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(step, i32),
            name!(statement, String),
            name!(lock, String),
            name!(state, String),
            name!(detail, String),
        ),
    >,
    ErrorReport,
> {
    let request = request(
        table_name,
        column_name,
        not_null,
        parent,
        on_delete,
        composite,
        policy,
        root,
    )?;
    let steps = finalize::plan(&Session::begin()?, &request)?;
    Ok(TableIterator::new(
        steps
            .into_iter()
            .map(|s| (s.step, s.statement, s.lock, s.state.to_string(), s.detail)),
    ))
}

/// Runs the next step of [`finalize_plan`] and nothing more: for SQL editors, where a procedure cannot commit. Each call is to
/// be a transaction of its own.
///
/// * `lock_timeout`: how long to wait for each lock; others queue behind who waits, so it is to be short.
/// * the others as in `finalize_plan`.
///
/// Returns one row: the step (NULL where nothing was left to do), its statement, lock, state, and what comes after: the next
/// step, then what is left by hand, then that nothing is.
///
/// Errors: those of `finalize_plan`; P0004 and 23503 where rows stand in the way, with counts and the next call; 55P03 with who
/// holds the lock, everything is as it was; 25001 where this transaction already holds a strong lock on the table; 25006; 42501
/// for who does not own the table.
///
/// ```sql
/// SELECT statement, next FROM finalize_backfill_step('conversations', 'organization_id');
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn finalize_backfill_step(
    table_name: Option<&str>,
    column_name: Option<&str>,
    lock_timeout: default!(Option<Interval>, "'2s'"),
    not_null: default!(Option<bool>, "true"),
    parent: default!(Option<&str>, "NULL"),
    on_delete: default!(Option<&str>, "'no action'"),
    composite: default!(Option<bool>, "NULL"),
    root: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(step, Option<i32>),
            name!(statement, Option<String>),
            name!(lock, Option<String>),
            name!(state, String),
            name!(next, String),
            name!(steps_done, i32),
            name!(steps, i32),
            name!(by_hand, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let request = request(
        table_name,
        column_name,
        not_null,
        parent,
        on_delete,
        composite,
        Some(false),
        root,
    )?;
    let timeout = milliseconds(&required_argument(lock_timeout, "lock_timeout")?)?;
    let stepped = finalize::step(Session::begin, &request, timeout)?;
    let (all, done) = stepped.steps;
    let next = match (stepped.next, stepped.by_hand.is_empty()) {
        (Some(statement), _) => statement,
        (None, false) => format!("by hand: {}", stepped.by_hand.join("; ")),
        (None, true) => "nothing is left".into(),
    };
    let (step, statement, lock, state) = match stepped.done {
        Some(step) => (Some(step.step), Some(step.statement), Some(step.lock), step.state),
        None => (None, None, None, "done"),
    };
    Ok(TableIterator::once((
        step,
        statement,
        lock,
        state.to_string(),
        next,
        done as i32,
        all as i32,
        stepped.by_hand,
    )))
}

/// For `finalize_backfill`: fails inside a transaction block before anything is done, since it commits between its steps.
///
/// Errors: 2D000.
#[pg_extern(sql = r#"
CREATE FUNCTION mend.outside_transaction_block(called text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn outside_transaction_block(called: Option<&str>) -> Result<(), ErrorReport> {
    if !pg::in_transaction_block() {
        return Ok(());
    }
    let called = required_argument(called, "called")?;
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_TERMINATION,
        format!("{called} commits between its steps, so it cannot run inside a transaction block"),
    )
    .detail("nothing was done")
    .hint(format!(
        "call it outside BEGIN (psql: not with -1; an SQL editor may wrap it: there, SELECT * FROM {called}_step(...) does one step a call)"
    ))
    .into())
}

#[allow(clippy::too_many_arguments)]
fn request(
    table_name: Option<&str>,
    column_name: Option<&str>,
    not_null: Option<bool>,
    parent: Option<&str>,
    on_delete: Option<&str>,
    composite: Option<bool>,
    policy: Option<bool>,
    root: Option<&str>,
) -> Result<FinalizeRequest, Problem> {
    Ok(FinalizeRequest {
        table: required_argument(table_name, "table_name")?.to_string(),
        column: required_argument(column_name, "column_name")?.to_string(),
        not_null: required_argument(not_null, "not_null")?,
        parent: parent.map(str::to_string),
        on_delete: required_argument(on_delete, "on_delete")?.parse()?,
        composite,
        policy: required_argument(policy, "policy")?,
        root: root.map(str::to_string),
    })
}
