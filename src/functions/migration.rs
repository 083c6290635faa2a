//! Migration scripts: how far they got.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{milliseconds, object, reasons, required_argument};
use crate::migration::{self, drift, rehearse, reset, root, status};
use crate::pg::Jsonb;
use crate::plan::Mode;
use crate::run::Session;
use crate::script;
use crate::undo;

/// How far a migration script got: each of its statements, compared with what is there. Nothing is run.
///
/// * `script`: SQL as `psql` would read it, parsed by Postgres's own parser.
///
/// Returns one row per statement: `step` from 1, `line` in the script, `kind` (`CREATE TABLE`), `object`, `state`, `detail`, `rows` (of the
/// table that it makes or writes, now; NULL where the caller may not see all of them). `state`: `present` (as written: columns with types,
/// nullability and defaults, constraints, indexes, functions, triggers, policies, enum labels, privileges), `would_fail` (as written, and
/// running it again raises the SQLSTATE in `detail`), `missing`, `differs` (something else is there, with the difference), `blocked` (missing,
/// and needs something that neither exists nor is made earlier in the script), `unknown` (everything is as it is whether it was run or not),
/// `data` (writes rows: not in the catalog), `opaque` (DO, CALL, or not compared), `skipped` (BEGIN, SET, psql's commands). The last row (`step` NULL, `kind` `summary`) has in `state` `not started`, `partial`,
/// `complete`, `complete, fails again` or `unknown`, and in `detail` the counts and the next call. Works read-only and on a standby.
///
/// Errors: 42601 with line and column, 22023 (no statement), 54000 (too large), 22004.
///
/// ```sql
/// SELECT step, line, kind, object, state, detail FROM migration_status($$CREATE TABLE t (id int PRIMARY KEY); CREATE INDEX i ON t (id)$$);
/// ```
#[pg_extern]
fn migration_status(
    script: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(step, Option<i32>),
            name!(line, Option<i32>),
            name!(kind, String),
            name!(object, Option<String>),
            name!(state, String),
            name!(detail, Option<String>),
            name!(rows, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let script = required_argument(script, "script")?;
    let session = Session::begin()?;
    let compared = migration::compared(&session, script)?;
    let status = status::status(&compared.steps, &compared.expected, &compared.actual, &[], true)?;
    let mut rows: Vec<_> = status
        .lines
        .into_iter()
        .map(|line| {
            (
                Some(line.step),
                Some(line.line),
                line.kind,
                line.object,
                line.state.as_str().to_string(),
                line.detail,
                line.rows,
            )
        })
        .collect();
    rows.push((
        None,
        None,
        "summary".into(),
        None,
        status.sum.as_str().into(),
        Some(status.summary),
        None,
    ));
    Ok(TableIterator::new(rows))
}

/// Runs a migration script for real, statement by statement, and rolls everything back: what it would do now.
///
/// * `script`: SQL as `psql` would read it.
/// * `stop_at_error`: what comes behind the first error is not run; by default each statement is, as `psql -f` does it.
/// * `lock_timeout`: how long a statement waits for a lock (55P03 behind that), so that nobody queues behind a rehearsal for long. Locks that it
///   gets are held until the call ends.
///
/// Returns one row per statement: `sqlstate` and `message` where it raised an error or was not run, `rows` of what writes data,
/// `duration_ms`, `lock` (the strongest that it took on something that was there before) and `lock_on`. What stands between BEGIN and COMMIT
/// succeeds or fails as one; deferred constraints are checked where they would be. Not run, and said so: what cannot run in a transaction
/// (CONCURRENTLY, VACUUM, ALTER SYSTEM), data of psql, and functions whose effect no rollback undoes (dblink, pg_terminate_backend, files).
/// The last row (`kind` `summary`) has the counts, and which sequences have moved on.
///
/// Errors: 25006 in a read-only transaction and on a standby; 42601, 22023, 54000 as `migration_status`; 22004.
///
/// ```sql
/// SELECT step, kind, sqlstate, message, rows, lock, lock_on FROM migration_rehearse($$CREATE INDEX i ON orders (id)$$);
/// ```
#[pg_extern]
fn migration_rehearse(
    script: Option<&str>,
    stop_at_error: default!(Option<bool>, "false"),
    lock_timeout: default!(Option<Interval>, "'1 second'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(step, Option<i32>),
            name!(line, Option<i32>),
            name!(kind, String),
            name!(statement, Option<String>),
            name!(sqlstate, Option<String>),
            name!(message, Option<String>),
            name!(rows, Option<i64>),
            name!(duration_ms, Option<f64>),
            name!(lock, Option<String>),
            name!(lock_on, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let timeout = milliseconds(&required_argument(lock_timeout, "lock_timeout")?)?;
    let request = rehearse::RehearsalRequest {
        stop_at_error: required_argument(stop_at_error, "stop_at_error")?,
        lock_timeout: format!("{timeout}ms"),
    };
    let session = Session::begin()?;
    let steps = script::read(required_argument(script, "script")?)?;
    let rows = rehearse::rehearse(&session, &steps, &request)?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        (
            row.step,
            row.line,
            row.kind,
            row.statement,
            row.sqlstate,
            row.message,
            row.rows,
            row.duration,
            row.lock,
            row.locked,
        )
    })))
}

/// Takes back what a migration script made, and only where that loses nothing; or (by default) says what that would do.
///
/// * `script`: SQL as `psql` would read it; what of it is there is told as in `migration_status`.
/// * `dry_run`: true shows the statements and drops nothing; works read-only and on a standby.
/// * `include`: objects that are dropped although something is lost, by the names that the result shows (`ARRAY['ascora_jobs']`): rows of
///   tables are copied to `mend.reset_rows` first, values of columns by the primary keys of their rows to `mend.reset_values`;
///   `restore_reset(run_id)` puts them back. Not what differs, nor what others depend on.
/// * `lock_timeout`: how long a real run waits for each table (55P03 behind that).
///
/// Returns one row per object: `action` `drop` (in this order, without CASCADE) or `keep` with the `reason`: rows, values, used sequences,
/// something outside of the script that depends on it, an object that differs from the script or has something that is not the script's, one
/// that only another role may drop, OR REPLACE (what was there before is not known). Changes of what was there before are kept, and named. The last row (`kind` `summary`) has the
/// counts and the run's id.
///
/// Errors: 42704 (`include` names nothing of the script), 25006, 55P03, 40001; 42601, 22023, 54000, 22004. Nothing is dropped then.
///
/// ```sql
/// SELECT ordinal, object, action, statement, reason, rows FROM migration_reset($$CREATE TABLE t (id int)$$);
/// ```
#[pg_extern]
fn migration_reset(
    script: Option<&str>,
    dry_run: default!(Option<bool>, "true"),
    include: default!(Option<Vec<Option<String>>>, "NULL"),
    lock_timeout: default!(Option<Interval>, "'2 seconds'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(ordinal, Option<i32>),
            name!(kind, String),
            name!(object, Option<String>),
            name!(action, String),
            name!(statement, Option<String>),
            name!(reason, Option<String>),
            name!(rows, Option<i64>),
            name!(run_id, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let timeout = milliseconds(&required_argument(lock_timeout, "lock_timeout")?)?;
    let dry_run = required_argument(dry_run, "dry_run")?;
    let request = reset::ResetRequest {
        script: required_argument(script, "script")?.to_string(),
        mode: Mode::of(dry_run),
        include: include.into_iter().flatten().flatten().collect(),
        lock_timeout: format!("{timeout}ms"),
    };
    let done = reset::reset(&request)?;
    let dropped = if dry_run { "drop" } else { "dropped" };
    let mut rows: Vec<_> = done
        .taken
        .into_iter()
        .enumerate()
        .map(|(at, taken)| {
            let action = match taken.statement.is_some() {
                true => dropped,
                false => "keep",
            };
            (
                Some(at as i32 + 1),
                taken.kind,
                Some(taken.object),
                action.to_string(),
                taken.statement,
                taken.reason,
                taken.rows,
                None,
            )
        })
        .collect();
    let mut summary = format!("{} objects dropped, {} kept", done.dropped, done.kept);
    if dry_run {
        summary = format!("{} objects would be dropped, {} kept", done.dropped, done.kept);
    }
    if done.copied > 0 {
        let copied = if dry_run { "would be copied" } else { "were copied" };
        summary.push_str(&format!("; {} {copied} to schema mend", done.copied));
    }
    rows.push((
        None,
        "summary".into(),
        None,
        dropped.to_string(),
        None,
        Some(summary),
        (done.copied > 0).then_some(done.copied),
        done.run_id,
    ));
    Ok(TableIterator::new(rows))
}

/// Puts back the rows and the values of columns that a run of `migration_reset` copied, once their tables and columns are there again; or (by
/// default) counts them.
///
/// * `run_id`: the run, one of the caller's own.
/// * `dry_run`: true counts and writes nothing.
/// * `overwrite`: false puts a value back where the column is NULL or has its default; true whatever it is now.
///
/// Returns one row per table (`column_name` NULL) or column: `total` kept rows or values that are not back yet, `restored`, `reasons`
/// (`table_missing`, `column_missing`, `columns_differ`: other names or types; `key_differs`: another primary key; `row_is_gone`,
/// `changed_since`, `identity_always`: such a column cannot be written). Sequences behind the columns go on where the rows end.
///
/// Errors: 42704 (no such run of the caller's, or nothing left), 25006, and whatever constraints and triggers raise: nothing is put back then.
///
/// ```sql
/// SELECT * FROM restore_reset(7, dry_run => false);
/// ```
#[pg_extern]
fn restore_reset(
    run_id: Option<i64>,
    dry_run: default!(Option<bool>, "true"),
    overwrite: default!(Option<bool>, "false"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, Option<String>),
            name!(dry_run, bool),
            name!(total, i64),
            name!(restored, i64),
            name!(reasons, Jsonb),
            name!(restore_id, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let dry_run = required_argument(dry_run, "dry_run")?;
    let overwrite = required_argument(overwrite, "overwrite")?;
    let session = Session::begin()?;
    let restored = undo::restore_reset(
        &session,
        required_argument(run_id, "run_id")?,
        Mode::of(dry_run),
        overwrite,
    )?;
    Ok(TableIterator::new(restored.into_iter().map(move |table| {
        (
            table.table,
            table.column,
            dry_run,
            table.total,
            table.restored,
            reasons(&table.reasons),
            table.run_id,
        )
    })))
}

/// Several migration scripts as one history: which are in, which are half in, and where they contradict each other. Nothing is run.
///
/// * `scripts`: an object, name → text, in the order of the names; or an array of `{"name": ..., "script": ...}`, in its own.
///
/// Returns one row per script: `state` as in the last row of `migration_status`, `done` of `judged` steps; what a later script changes is not
/// missing in an earlier one. Then one row per contradiction (`state` `contradiction`): a table that is made twice, with the differences; a
/// reference between columns of different types. The last row is the `summary`.
///
/// Errors: 22023 (no scripts), 42601 with the script's name, line and column; 54000, 22004.
///
/// ```sql
/// SELECT name, state, done, judged, detail FROM migration_drift('{"001.sql": "CREATE TABLE a (id int)", "002.sql": "CREATE TABLE a (id text)"}');
/// ```
#[pg_extern]
fn migration_drift(
    scripts: Option<Jsonb>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(ordinal, Option<i32>),
            name!(name, Option<String>),
            name!(state, String),
            name!(done, Option<i64>),
            name!(judged, Option<i64>),
            name!(detail, String),
        ),
    >,
    ErrorReport,
> {
    let scripts = required_argument(scripts, "scripts")?.value("scripts")?;
    let rows = drift::drift(&Session::begin()?, &drift::scripts(&scripts)?)?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        (row.ordinal, row.name, row.state, row.done, row.judged, row.detail)
    })))
}

/// Makes the table that holds the tenants, and that of their members, where they are missing; or (by default) says what that would be.
///
/// * `table_name`: the tenants.
/// * `users`: who owns tenants and is a member, `'users'` or `'users(user_id)'`: referenced by its real key and type. NULL: nobody.
/// * `members`: the table of the members; NULL: none.
/// * `columns`: column → definition as in CREATE TABLE, `'{"name": "text NOT NULL"}'`.
/// * `key`: the definition of the key, without PRIMARY KEY.
/// * `owner`: what the column that references the owner is called.
/// * `roles`: what members can be, the owner's first, the default last.
/// * `first_tenant`: column → value of a first tenant, made only where there is none; `first_owner`: the key of the user who owns it, always
///   named by the caller.
/// * `dry_run`: true makes nothing.
///
/// Returns one row per table and index (`action` `present`, `create` or `created`), per first tenant (`insert`, `inserted`), and per reference
/// to the tenants (`checked`): what enforces it, rows, rows that point at no tenant, and in `statement` what mends it.
///
/// Errors: 42P07 where something else is there, with the differences; 42P01, 42703, 42830 (users); 42601 (definitions); 22004 (a first
/// tenant without an owner); 23503 (an owner who is no user); 22023, 25006, 55P03. Nothing is made then.
///
/// ```sql
/// SELECT * FROM ensure_tenant_root('organizations', users => 'users', members => 'organization_members');
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn ensure_tenant_root(
    table_name: Option<&str>,
    users: default!(Option<&str>, "NULL"),
    members: default!(Option<&str>, "NULL"),
    columns: default!(Option<Jsonb>, "'{\"name\": \"text NOT NULL\"}'"),
    key: default!(Option<&str>, "'id uuid DEFAULT gen_random_uuid()'"),
    owner: default!(Option<&str>, "'owner_id'"),
    roles: default!(Option<Vec<Option<String>>>, "'{owner,admin,member}'"),
    first_tenant: default!(Option<Jsonb>, "NULL"),
    first_owner: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
    lock_timeout: default!(Option<Interval>, "'2 seconds'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(object, String),
            name!(action, String),
            name!(statement, Option<String>),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let timeout = milliseconds(&required_argument(lock_timeout, "lock_timeout")?)?;
    let request = root::TenantRootRequest {
        table: required_argument(table_name, "table_name")?.to_string(),
        users: users.map(str::to_string),
        members: members.map(str::to_string),
        key: required_argument(key, "key")?.to_string(),
        columns: object(columns, "columns")?.unwrap_or_default(),
        owner: required_argument(owner, "owner")?.to_string(),
        roles: roles.into_iter().flatten().flatten().collect(),
        first_tenant: object(first_tenant, "first_tenant")?,
        first_owner: first_owner.map(str::to_string),
        mode: Mode::of(required_argument(dry_run, "dry_run")?),
        lock_timeout: format!("{timeout}ms"),
    };
    let lines = root::ensure(&request)?;
    Ok(TableIterator::new(lines.into_iter().map(|line| {
        (line.object, line.action.to_string(), line.statement, line.detail)
    })))
}
