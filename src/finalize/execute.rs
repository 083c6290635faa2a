//! One step in one transaction, under a lock_timeout; and who was in the way.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::step::{Executor, Facts, FinalizeStep, Lock, State};
use super::steps;
use super::{FinalizeRequest, Shown, facts, gate, next, shown, target};
use crate::catalog::Table;
use crate::infer::tenancy::resolver::TenantResolver;
use crate::pg::{self, Settings};
use crate::problem::Problem;
use crate::run::obstacles::rows_are_here;
use crate::run::{Session, try_lock};
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
/// * `begin`: begins a session that sees the database as it is now.
/// * `lock_timeout`: milliseconds, for each lock, those of what only looks included.
///
/// After the step nothing else is looked at: its lock is held until the end of the transaction.
///
/// Errors: those of `plan`; P0004 and 23503 where rows stand in the way; 55P03 with who holds the lock; 25001 where this
/// transaction already holds a strong lock; 25006; 42501 for who is not the owner.
pub fn step(
    begin: impl Fn() -> Result<Session, Problem>,
    request: &FinalizeRequest,
    lock_timeout: i64,
) -> Result<Stepped, Problem> {
    if pg::is_read_only() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "constraints cannot be added in a read-only transaction or on a standby",
        )
        .hint("finalize_plan() works here; lock in on the primary, outside BEGIN READ ONLY"));
    }
    let timeout = format!("{lock_timeout}ms");
    let _timeout = Settings::push(&[("lock_timeout", &timeout)]);
    nothing_held()?;
    {
        let session = begin()?;
        let (table, _) = target(&session, request)?;
        if !try_lock(&session, table) {
            return Err(somebody_else(&session, table));
        }
    }
    // Only now: whoever had the lock has changed what is there.
    let result = pg::subtransaction(AssertUnwindSafe(|| {
        let session = begin()?;
        advance(&session, request, lock_timeout)
    }));
    result.or_else(|problem| match (problem.code, &problem.detail) {
        // What only looks waited for somebody who keeps even readers out.
        (PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, None) => {
            let session = begin()?;
            let (table, _) = target(&session, request)?;
            let tables: Vec<u32> = session.catalog.tables.iter().map(|t| t.oid).collect();
            let holders = holders(&session, &tables, Lock::AccessShare, &[]).unwrap_or_default();
            Err(not_in_time(
                format!(
                    "no lock to read {} and what it references within {lock_timeout} ms",
                    session.catalog.display(table)
                ),
                None,
                &holders,
            ))
        }
        _ => Err(problem),
    })
}

fn advance(session: &Session, request: &FinalizeRequest, lock_timeout: i64) -> Result<Stepped, Problem> {
    let (table, column) = target(session, request)?;
    let resolver = TenantResolver::new(tenants(session, request.root.as_deref())?, true);
    let facts = facts(session, request, table, column, &resolver)?;
    let mut steps = steps::all(&facts);
    let at = next(&steps);
    let mut done = None;
    if let Some(at) = at {
        may_alter(session, &facts)?;
        if steps[at].begins() {
            for other in &steps {
                if let Executor::Check(gate) = other.executor
                    && other.state == State::Pending
                {
                    gate::look(session, &resolver, &facts, gate)??;
                }
            }
        }
        run(session, &resolver, &facts, &steps[at], lock_timeout)?;
        steps[at].state = State::Done;
        done = Some(shown(session, &facts, at, &steps[at]));
    }
    let own = |s: &&FinalizeStep| s.executor == Executor::Extension;
    Ok(Stepped {
        done,
        next: next(&steps).map(|at| steps[at].statements.join(";\n")),
        by_hand: steps
            .iter()
            .filter(|s| s.state == State::ByHand)
            .map(|s| s.statements.join(";\n"))
            .collect(),
        steps: (
            steps.iter().filter(own).count(),
            steps.iter().filter(own).filter(|s| s.state == State::Done).count(),
        ),
    })
}

fn somebody_else(session: &Session, table: &Table) -> Problem {
    let shown = session.catalog.display(table);
    Problem::new(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("another run of pg_mend is at work on {shown}"),
    )
    .detail("a finalize_backfill, a backfill or a repair; mend.runs shows those that are done, pg_stat_activity those under way")
    .hint("call again when it is through")
}

fn may_alter(session: &Session, facts: &Facts) -> Result<(), Problem> {
    rows_are_here(session, facts.table)?;
    let shown = session.catalog.display(facts.table);
    let parts = if facts.guarantees.family.len() > 1 {
        ", or one of its children,"
    } else {
        ""
    };
    let denied = |message: String| Problem::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
    if !facts.guarantees.may_alter {
        return Err(denied(format!("only the owner of {shown} may lock it in"))
            .detail(format!("it{parts} belongs to {}", facts.guarantees.owner))
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
                "{}; or parent => '' for no foreign key",
                session.grant("REFERENCES", &parent)
            )))
        }
    }
}

/// A strong lock is never held over a scan: also not one, on whatever table, that this transaction took before.
fn nothing_held() -> Result<(), Problem> {
    // Objects below 16384 are Postgres's own.
    let sql = "SELECT l.relation::pg_catalog.regclass::pg_catalog.text, l.mode
               FROM pg_catalog.pg_locks l
               WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted
                 AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
                 AND l.relation OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
                 AND l.mode OPERATOR(pg_catalog.=) ANY ('{ShareLock, ShareRowExclusiveLock, ExclusiveLock, AccessExclusiveLock}'::pg_catalog.text[])
               LIMIT 1";
    let held = Spi::connect(|client| {
        let rows = client.select(sql, None, &[])?;
        match rows.is_empty() {
            true => Ok(None),
            false => rows.first().get_two::<String, String>().map(Some),
        }
    })?;
    let Some((table, mode)) = held else {
        return Ok(());
    };
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
        format!(
            "this transaction holds a strong lock already, on {}",
            table.unwrap_or_default()
        ),
    )
    .detail(format!(
        "{}: the next step would keep others waiting for as long as it reads",
        mode.unwrap_or_default()
    ))
    .hint("COMMIT first: each step is a transaction of its own"))
}

fn run(
    session: &Session,
    resolver: &TenantResolver,
    facts: &Facts,
    step: &FinalizeStep,
    lock_timeout: i64,
) -> Result<(), Problem> {
    let result = pg::subtransaction(AssertUnwindSafe(|| {
        // Every name in the statements is qualified, and there is no operator; event triggers look theirs up as they are used to.
        let mut settings = session.caller.as_pairs();
        settings.push(("row_security", "off"));
        let _settings = Settings::push(&settings);
        Spi::connect_mut(|client| {
            for statement in &step.statements {
                client.update(statement.as_str(), None, &[])?;
            }
            Ok::<_, SpiError>(())
        })?;
        Ok(())
    }));
    result.map_err(|problem| explained(session, resolver, facts, step, lock_timeout, problem))
}

fn explained(
    session: &Session,
    resolver: &TenantResolver,
    facts: &Facts,
    step: &FinalizeStep,
    lock_timeout: i64,
    problem: Problem,
) -> Problem {
    let statement = step.statements.join(";\n");
    match problem.code {
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
            let names: Vec<String> = step
                .locked
                .iter()
                .filter_map(|oid| session.catalog.table(*oid))
                .map(|t| session.catalog.display(t))
                .collect();
            // A foreign key is validated under a weak lock on the parent.
            let parents: Vec<u32> = facts
                .wanted
                .iter()
                .map(|w| w.reference.parent.oid)
                .filter(|parent| !step.locked.contains(parent))
                .collect();
            let holders = holders(session, &step.locked, step.lock, &parents).unwrap_or_default();
            not_in_time(
                format!(
                    "no {} lock on {} within {lock_timeout} ms",
                    step.lock.as_str(),
                    names.join(" or ")
                ),
                Some(&statement),
                &holders,
            )
        }
        PgSqlErrorCode::ERRCODE_CHECK_VIOLATION
        | PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION
        | PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION => {
            // The step is rolled back; how many rows there are, and what to do, the gate says.
            let looked = step.after.map(|gate| gate::look(session, resolver, facts, gate));
            match looked {
                Some(Ok(Err(found))) => found,
                _ => Problem {
                    hint: problem
                        .hint
                        .or_else(|| Some("rows changed meanwhile: call again".into())),
                    ..problem
                },
            }
        }
        PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED => Problem {
            hint: Some("this step was rolled back, what was done before stays: call again".into()),
            ..problem
        },
        _ => {
            let detail = problem.detail.map(|detail| format!("{detail}\n")).unwrap_or_default();
            Problem {
                detail: Some(format!("{detail}for: {statement}")),
                hint: problem.hint.or_else(|| {
                    Some("this step was rolled back, what was done before stays; finalize_plan() shows what is left, and arguments that leave steps out: not_null => false, parent => '', composite => false".into())
                }),
                ..problem
            }
        }
    }
}

fn not_in_time(message: String, statement: Option<&str>, holders: &[String]) -> Problem {
    let statement = statement.map(|s| format!("for: {s}\n")).unwrap_or_default();
    Problem::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, message)
        .detail(match holders.is_empty() {
            true => format!("{statement}the lock was released in the meantime"),
            false => format!("{statement}held by {}", holders.join("; ")),
        })
        .hint("nothing was changed by this step, and what was done before stays: call again when they are through, or with a longer lock_timeout (others queue behind it meanwhile)")
}

/// Other sessions, and prepared transactions, with locks that stand in the way.
///
/// * `parents`: tables of which only ROW SHARE is needed.
fn holders(session: &Session, tables: &[u32], lock: Lock, parents: &[u32]) -> Result<Vec<String>, Problem> {
    let oids = |tables: &[u32]| -> Vec<pg_sys::Oid> { tables.iter().map(|oid| pg_sys::Oid::from(*oid)).collect() };
    let (tables, parents) = (oids(tables), oids(parents));
    let modes: Vec<String> = lock.conflicts().iter().map(|mode| mode.to_string()).collect();
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
               WHERE l.locktype = 'relation' AND l.granted 
                 AND (l.relation = ANY ($1) AND l.mode = ANY ($2)
                      OR l.relation = ANY ($3) AND l.mode IN ('ExclusiveLock', 'AccessExclusiveLock'))
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                 AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
               GROUP BY l.pid, l.virtualtransaction
               ORDER BY min(a.xact_start) NULLS FIRST
               LIMIT 5";
    Ok(Spi::connect(|client| {
        let mut found = Vec::new();
        for row in client.select(sql, None, &[tables.into(), modes.into(), parents.into()])? {
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
