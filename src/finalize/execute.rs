//! One step in one transaction, under a lock_timeout; and who was in the way.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::steps::{self, Doer, Facts, Step};
use super::{Request, Shown, facts, gate, next, shown, target};
use crate::catalog::Table;
use crate::pg::{self, Settings};
use crate::problem::Problem;
use crate::run::{Session, may_write};
use crate::validate::sides::Sides;
use crate::validate::tenants;

/// What one call did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// The step; `None`: nothing was left to do.
    pub done: Option<Shown>,
    /// What the next call would run.
    pub next: Option<String>,
    /// Statements that are left for a person.
    pub by_hand: Vec<String>,
    /// How many steps there are, and how many are done.
    pub steps: (usize, usize),
}

/// Runs the next step, if one is left. An error leaves everything as it was.
///
/// * `begin`: begins a session that sees what this transaction did.
/// * `lock_timeout`: milliseconds, for each lock.
///
/// Errors: those of `plan`; P0004 and 23503 where rows stand in the way; 55P03 with who holds the lock; 25001 where this
/// transaction already holds a strong lock; 25006; 42501 for who is not the owner.
pub fn step(
    begin: impl Fn() -> Result<Session, Problem>,
    request: &Request,
    lock_timeout: i64,
) -> Result<Stepped, Problem> {
    may_write()?;
    let done = {
        let session = begin()?;
        let (table, column) = target(&session, request)?;
        let sides = Sides::new(tenants(&session, request.root.as_deref())?, true);
        let facts = facts(&session, request, table, column, &sides)?;
        let steps = steps::all(&facts);
        match next(&steps) {
            None => None,
            Some(at) => {
                let step = &steps[at];
                nothing_held(&session, step)?;
                may_alter(&session, &facts)?;
                if let Some(gate) = step.after
                    && steps
                        .iter()
                        .any(|s| s.doer == Doer::Gate(gate) && s.state == steps::State::Pending)
                {
                    gate::look(&session, &sides, &facts, gate)??;
                }
                run(&session, &facts, step, lock_timeout)?;
                let done = Step {
                    state: steps::State::Done,
                    ..step.clone()
                };
                Some(shown(&session, &facts, at, &done))
            }
        }
    };
    // With fresh eyes: what the catalog says now, not what was meant.
    let session = begin()?;
    let (table, column) = target(&session, request)?;
    let sides = Sides::new(tenants(&session, request.root.as_deref())?, true);
    let facts = facts(&session, request, table, column, &sides)?;
    let steps = steps::all(&facts);
    if let Some(done) = &done
        && steps
            .iter()
            .any(|s| s.state != steps::State::Done && s.statements.join(";\n") == done.statement)
    {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "the step was run and is not in the catalog; it is rolled back",
        )
        .detail(done.statement.clone())
        .hint("an event trigger may have undone it; else this is a bug in pg_mend, please report it"));
    }
    let own = |s: &&Step| matches!(s.doer, Doer::Mend);
    Ok(Stepped {
        done,
        next: next(&steps).map(|at| steps[at].statements.join(";\n")),
        by_hand: steps
            .iter()
            .filter(|s| s.state == steps::State::ByHand)
            .map(|s| s.statements.join(";\n"))
            .collect(),
        steps: (
            steps.iter().filter(own).count(),
            steps
                .iter()
                .filter(own)
                .filter(|s| s.state == steps::State::Done)
                .count(),
        ),
    })
}

fn may_alter(session: &Session, facts: &Facts) -> Result<(), Problem> {
    let shown = session.catalog.display(facts.table);
    let denied = |message: String| Problem::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
    if !facts.guarantees.may_alter {
        return Err(denied(format!("only the owner of {shown} may lock it in"))
            .detail(format!("it belongs to {}", facts.guarantees.owner))
            .hint(format!("SET ROLE {}; or ask them", facts.guarantees.owner)));
    }
    let forbidden: Vec<&Table> = facts
        .wanted
        .iter()
        .filter(|w| w.declared.is_none() && !w.optional && !w.reference.parent.may_reference)
        .map(|w| w.reference.parent)
        .collect();
    match forbidden.first() {
        None => Ok(()),
        Some(parent) => {
            let parent = session.catalog.display(parent);
            Err(denied(format!("permission denied to reference {parent}")).hint(format!(
                "GRANT REFERENCES ON {parent} TO ...; or parent => '' for no foreign key"
            )))
        }
    }
}

/// A strong lock is never held over a scan: also not one that an earlier call in the same transaction took.
fn nothing_held(session: &Session, step: &Step) -> Result<(), Problem> {
    let tables: Vec<pg_sys::Oid> = step.locked.iter().map(|oid| pg_sys::Oid::from(*oid)).collect();
    let sql = "SELECT l.relation, l.mode
               FROM pg_catalog.pg_locks l
               WHERE l.locktype = 'relation' AND l.granted AND l.pid = pg_catalog.pg_backend_pid()
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                 AND l.relation = ANY ($1)
                 AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
               LIMIT 1";
    let held = Spi::connect(|client| {
        let rows = client.select(sql, None, &[tables.into()])?;
        match rows.is_empty() {
            true => Ok(None),
            false => rows.first().get_two::<pg_sys::Oid, String>().map(Some),
        }
    })?;
    let Some((table, mode)) = held else {
        return Ok(());
    };
    let shown = table
        .and_then(|oid| session.catalog.table(oid.to_u32()))
        .map(|t| session.catalog.display(t))
        .unwrap_or_default();
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
        format!("this transaction holds a strong lock on {shown} already"),
    )
    .detail(format!(
        "{}: the next step would keep others waiting for as long as it reads",
        mode.unwrap_or_default()
    ))
    .hint("COMMIT first: each step is a transaction of its own"))
}

fn run(session: &Session, facts: &Facts, step: &Step, lock_timeout: i64) -> Result<(), Problem> {
    let timeout = format!("{lock_timeout}ms");
    let result = pg::subtransaction(AssertUnwindSafe(|| {
        // Every name in the statements is qualified, and there is no operator; event triggers look theirs up as they are used to.
        let _settings = Settings::push(&[
            ("lock_timeout", &timeout),
            ("search_path", &session.search_path),
            ("row_security", "off"),
        ]);
        Spi::connect_mut(|client| {
            for statement in &step.statements {
                client.update(statement.as_str(), None, &[])?;
            }
            Ok::<_, SpiError>(())
        })?;
        Ok(())
    }));
    result.map_err(|problem| explained(session, facts, step, lock_timeout, problem))
}

fn explained(session: &Session, facts: &Facts, step: &Step, lock_timeout: i64, problem: Problem) -> Problem {
    let shown = session.catalog.display(facts.table);
    let statement = step.statements.join(";\n");
    match problem.code {
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
            let holders = holders(session, step).unwrap_or_default();
            Problem::new(
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                format!(
                    "no {} lock on {} within {lock_timeout} ms",
                    step.lock.as_str(),
                    session
                        .catalog
                        .table(step.locked[0])
                        .map(|t| session.catalog.display(t))
                        .unwrap_or_default()
                ),
            )
            .detail(match holders.is_empty() {
                true => format!("for: {statement}\nwhoever held it has let go by now"),
                false => format!("for: {statement}\nheld by {}", holders.join("; ")),
            })
            .hint("nothing was changed by this step, and what was done before stays: call again when they are through, or with a longer lock_timeout (others queue behind it meanwhile)")
        }
        PgSqlErrorCode::ERRCODE_CHECK_VIOLATION | PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION => Problem {
            hint: Some(format!(
                "{} says which rows; call again when they are filled",
                super::assertion(&session.catalog, facts.table, facts.column, None)
            )),
            detail: Some(format!(
                "{}for: {statement}",
                problem.detail.map(|d| format!("{d}\n")).unwrap_or_default()
            )),
            ..problem
        },
        PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION => Problem {
            hint: Some(format!(
                "{} says how many rows, and what to do",
                super::validation(&session.catalog, facts.table)
            )),
            ..problem
        },
        _ => Problem {
            hint: problem
                .hint
                .or_else(|| Some(format!("{shown} is as it was before this step: {statement}"))),
            ..problem
        },
    }
}

/// Other sessions, and prepared transactions, with locks that stand in the way.
fn holders(session: &Session, step: &Step) -> Result<Vec<String>, Problem> {
    let tables: Vec<pg_sys::Oid> = step.locked.iter().map(|oid| pg_sys::Oid::from(*oid)).collect();
    let modes: Vec<String> = step.lock.conflicts().iter().map(|mode| mode.to_string()).collect();
    let sql = "SELECT l.pid, pg_catalog.string_agg(DISTINCT l.mode, ', '),
                      pg_catalog.array_agg(DISTINCT l.relation),
                      pg_catalog.min(a.usename::text), pg_catalog.min(a.application_name), pg_catalog.min(a.state),
                      pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - pg_catalog.min(a.xact_start))::int8,
                      pg_catalog.min(pg_catalog.left(pg_catalog.regexp_replace(a.query, '[[:space:]]+', ' ', 'g'), 100)),
                      pg_catalog.min(x.gid)
               FROM pg_catalog.pg_locks l
               LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
               LEFT JOIN pg_catalog.pg_locks own ON l.pid IS NULL AND own.virtualtransaction = l.virtualtransaction
                                                AND own.locktype = 'transactionid'
               LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid
               WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1) AND l.mode = ANY ($2)
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                 AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
               GROUP BY l.pid, l.virtualtransaction
               ORDER BY min(a.xact_start) NULLS FIRST
               LIMIT 5";
    Ok(Spi::connect(|client| {
        let mut found = Vec::new();
        for row in client.select(sql, None, &[tables.into(), modes.into()])? {
            let text = |column: usize| Ok::<_, SpiError>(row.get::<String>(column)?.unwrap_or_default());
            let names: Vec<String> = row
                .get::<Vec<Option<pg_sys::Oid>>>(3)?
                .unwrap_or_default()
                .into_iter()
                .flatten()
                .filter_map(|oid| session.catalog.table(oid.to_u32()))
                .map(|table| session.catalog.display(table))
                .collect();
            let (modes, on) = (text(2)?, names.join(", "));
            found.push(match (row.get::<i32>(1)?, row.get::<String>(9)?) {
                (None, Some(gid)) => format!(
                    "the prepared transaction '{gid}' ({modes} on {on}): COMMIT PREPARED or ROLLBACK PREPARED ends it"
                ),
                (None, None) => format!("a prepared transaction ({modes} on {on})"),
                (Some(pid), _) => {
                    let mut line = format!("pid {pid} ({modes} on {on})");
                    for (label, value) in [("user ", text(4)?), ("", text(5)?), ("", text(6)?)] {
                        if !value.is_empty() {
                            line.push_str(&format!(", {label}{value}"));
                        }
                    }
                    if let Some(seconds) = row.get::<i64>(7)? {
                        line.push_str(&format!(", in transaction for {seconds} s"));
                    }
                    let query = text(8)?;
                    if !query.is_empty() {
                        line.push_str(&format!(": {query}"));
                    }
                    line
                }
            });
        }
        Ok::<_, SpiError>(found)
    })?)
}
