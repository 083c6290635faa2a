//! Migration scripts: how far they got.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::given;
use crate::migration::{self, status};
use crate::run::Session;

/// How far a migration script got: each of its statements, compared with what is there. Nothing is run.
///
/// * `script`: SQL as `psql` would read it, parsed by Postgres's own parser.
///
/// Returns one row per statement: `step` from 1, `line` in the script, `kind` (`CREATE TABLE`), `object`, `state`, `detail`, `rows` (of the
/// table that it makes or writes, now; NULL where the caller may not see all of them). `state`: `present` (as written: columns with types,
/// nullability and defaults, constraints, indexes, functions, triggers, policies, enum labels, privileges), `would_fail` (as written, and
/// running it again raises the SQLSTATE in `detail`), `missing`, `differs` (something else is there, with the difference), `blocked` (missing,
/// and needs something that neither exists nor is made earlier in the script), `data` (writes rows: not in the catalog), `opaque` (DO, CALL, or
/// not compared), `skipped` (BEGIN, SET, psql's commands). The last row (`step` NULL, `kind` `summary`) has in `state` `not started`, `partial`,
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
    let script = given(script, "script")?;
    let session = Session::begin()?;
    let compared = migration::compared(&session, script)?;
    let status = status::status(&compared.steps, &compared.world, &compared.actual)?;
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
        Some(status.said),
        None,
    ));
    Ok(TableIterator::new(rows))
}
