//! Runs a script for real, statement by statement, and takes everything back.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use pgrx::prelude::*;
use pgrx::spi::{SpiError, quote_identifier};

use super::shown::qualified;
use crate::pg::{Settings, run_any, subtransaction};
use crate::problem::Problem;
use crate::run::{Session, may_write};
use crate::script::ScriptStatement;
use crate::script::ast::Action;
use crate::script::split::called;

/// What one statement did.
#[derive(Debug, Clone)]
pub struct Rehearsed {
    /// From 1; `None`: what is said at the end.
    pub step: Option<i32>,
    /// In the script.
    pub line: Option<i32>,
    /// The command.
    pub kind: String,
    /// Its text.
    pub statement: Option<String>,
    /// What it raised.
    pub sqlstate: Option<String>,
    /// In words; also why it was not run.
    pub message: Option<String>,
    /// Rows that it wrote or returned.
    pub rows: Option<i64>,
    /// Milliseconds.
    pub duration: Option<f64>,
    /// The strongest lock that it took on something that was there before.
    pub lock: Option<String>,
    /// On what.
    pub locked: Option<String>,
}

/// How a rehearsal goes.
#[derive(Debug, Clone)]
pub struct RehearsalRequest {
    /// What comes behind the first error is not run.
    pub stop_at_error: bool,
    /// How long it waits for a lock, as `lock_timeout`.
    pub lock_timeout: String,
}

/// Functions whose effect no rollback undoes: a statement that names one of them is not run. Prefixes end in `*`.
const OUTSIDE: [&str; 34] = [
    "dblink*",
    // Citus: what runs on other nodes, and what changes which nodes there are and where rows lie.
    "run_command_on_*",
    "master_run_on_*",
    "citus_run_on_*",
    "citus_add_*",
    "citus_remove_node",
    "citus_activate_node",
    "citus_disable_node",
    "citus_drain_node",
    "citus_move_shard_placement",
    "citus_copy_shard_placement",
    "citus_rebalance_*",
    "isolate_tenant_to_new_shard",
    "http_*",
    "http",
    "urlencode_post",
    "lo_export",
    "pg_file_*",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_switch_wal",
    "pg_promote",
    "pg_create_restore_point",
    "pg_create_*_replication_slot",
    "pg_drop_replication_slot",
    "pg_replication_slot_advance",
    "pg_logical_emit_message",
    "pg_advisory_*",
    "pg_try_advisory_*",
    "pg_stat_reset*",
    "pg_start_backup",
    "pg_backup_start",
];

/// Lock modes from weak to strong (lockdefs.h).
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

struct Stage<'a> {
    request: &'a RehearsalRequest,
    /// Relations that were there before.
    before: BTreeMap<u32, String>,
    /// Their oids.
    oids: Vec<pg_sys::Oid>,
    /// Locks that are held by now.
    held: BTreeSet<(u32, String)>,
    rows: Vec<Rehearsed>,
    failed: bool,
}

/// Runs the script and rolls it back.
///
/// Errors: 25006 in a read-only transaction; those of SPI. What the statements raise is in the rows.
pub fn rehearse(
    session: &Session,
    steps: &[ScriptStatement],
    request: &RehearsalRequest,
) -> Result<Vec<Rehearsed>, Problem> {
    may_write()?;
    let sequences = last_values()?;
    let started = Instant::now();
    let before = relations()?;
    let mut stage = Stage {
        request,
        oids: before.keys().map(|oid| pg_sys::Oid::from(*oid)).collect(),
        before,
        held: BTreeSet::new(),
        rows: vec![],
        failed: false,
    };
    let mut done = false;
    let rolled_back: Result<(), Problem> = subtransaction(AssertUnwindSafe(|| {
        let mut settings = session.caller.as_pairs();
        settings.push(("lock_timeout", &request.lock_timeout));
        let _settings = Settings::push(&settings);
        stage.held = locks(&stage.oids)?;
        stage.all(steps)?;
        if !(stage.failed && request.stop_at_error) {
            stage.deferred(None)?;
        }
        done = true;
        // Whatever was done is taken back with this.
        Err(Problem::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, "rehearsed"))
    }));
    if let (Err(problem), false) = (rolled_back, done) {
        return Err(problem);
    }
    let mut rows = stage.rows;
    let moved: Vec<String> = {
        let now = last_values()?;
        let changed = sequences.iter().filter(|(name, value)| now.get(*name) != Some(value));
        changed.map(|(name, _)| name.clone()).collect()
    };
    rows.push(summary(&rows, started.elapsed().as_secs_f64() * 1000.0, &moved));
    Ok(rows)
}

impl Stage<'_> {
    /// Every statement; what stands between BEGIN and COMMIT succeeds or fails as one.
    fn all(&mut self, steps: &[ScriptStatement]) -> Result<(), Problem> {
        let mut at = 0;
        while at < steps.len() {
            pgrx::check_for_interrupts!();
            let step = &steps[at];
            at += 1;
            if self.failed && self.request.stop_at_error {
                self.not_run(step, "not reached: stop_at_error");
                continue;
            }
            match step.kind.as_str() {
                "BEGIN" | "START TRANSACTION" => {
                    let end = steps[at..]
                        .iter()
                        .position(ends)
                        .map_or(steps.len(), |offset| at + offset);
                    self.not_run(step, "the rehearsal is a transaction of its own");
                    self.block(&steps[at..end], steps.get(end))?;
                    at = end + 1;
                }
                "COMMIT" | "ROLLBACK" => self.not_run(step, "no transaction of the script is open"),
                _ => {
                    self.one(step, false)?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, steps: &[ScriptStatement], end: Option<&ScriptStatement>) -> Result<(), Problem> {
        let mut aborted = false;
        let keep = end.is_none_or(|end| end.kind != "ROLLBACK");
        let mut outcome = Ok(());
        let this = &mut *self;
        let result = subtransaction(AssertUnwindSafe(|| {
            for step in steps {
                if this.failed && this.request.stop_at_error {
                    this.not_run(step, "not reached: stop_at_error");
                } else if aborted {
                    this.push(
                        step,
                        Some("25P02".into()),
                        "not run: an earlier statement of the transaction failed",
                    );
                } else if step.kind == "BEGIN" || step.kind == "START TRANSACTION" {
                    this.not_run(step, "a transaction is open already, which is a warning");
                } else if step.kind == "SAVEPOINT" || step.kind == "RELEASE" || step.kind == "ROLLBACK" {
                    this.not_run(step, "savepoints of the script are not followed");
                } else {
                    match this.one(step, true) {
                        Ok(true) => {}
                        Ok(false) => aborted = true,
                        Err(problem) => {
                            outcome = Err(problem);
                            aborted = true;
                        }
                    }
                }
            }
            if keep && !aborted && end.is_some() {
                aborted = !this.deferred(end)?;
            }
            match keep && !aborted {
                true => Ok(()),
                false => Err(Problem::new(
                    PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                    "rolled back",
                )),
            }
        }));
        outcome?;
        match result {
            Err(problem) if problem.code != PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION => return Err(problem),
            _ => {}
        }
        if let Some(end) = end {
            let said = match (keep, aborted) {
                (true, false) => "its statements hold for those behind it",
                (true, true) => "its statements are rolled back: one of them failed",
                (false, _) => "its statements are rolled back",
            };
            self.not_run(end, said);
        }
        Ok(())
    }

    /// Runs one statement; false where it failed.
    fn one(&mut self, step: &ScriptStatement, in_block: bool) -> Result<bool, Problem> {
        let why = match cannot_be_run(step) {
            Some(why) => Some(why),
            None => writes_elsewhere(step)?,
        };
        if let Some(why) = why {
            self.not_run(step, &why);
            return Ok(true);
        }
        let started = Instant::now();
        let result = subtransaction(AssertUnwindSafe(|| {
            // Whatever the script sets: nobody is to queue behind a rehearsal.
            let _timeout = Settings::push(&[("lock_timeout", &self.request.lock_timeout)]);
            run_any(&step.text)
        }));
        let duration = started.elapsed().as_secs_f64() * 1000.0;
        let (lock, locked) = self.new_locks()?;
        let counts = matches!(
            step.kind.as_str(),
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "SELECT" | "COPY" | "CREATE TABLE AS" | "SELECT INTO"
        );
        let mut row = Rehearsed {
            duration: Some(duration),
            lock,
            locked,
            ..line(step)
        };
        let mut succeeded = true;
        match result {
            Ok(rows) => {
                row.rows = counts.then_some(rows);
                row.message = leaves(step);
            }
            // In a block of the script's own it would be raised as well.
            Err(problem) if problem.code == PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION && !in_block => {
                row.message = Some(format!("not run: {}", problem.message));
                row.duration = None;
            }
            Err(problem) => {
                succeeded = false;
                self.failed = true;
                row.sqlstate = Some(sqlstate(problem.code));
                let artefact = match problem.code {
                    PgSqlErrorCode::ERRCODE_UNSAFE_NEW_ENUM_VALUE_USAGE => {
                        Some("of the rehearsal: a label can be used once its transaction has committed".to_string())
                    }
                    PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_TERMINATION => {
                        Some("of the rehearsal: COMMIT in DO or CALL works outside of a transaction only".to_string())
                    }
                    PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => Some(format!(
                        "somebody holds the lock; the rehearsal waited {} for it",
                        self.request.lock_timeout
                    )),
                    _ => None,
                };
                let parts = [Some(problem.message), problem.detail, artefact];
                row.message = Some(parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
            }
        }
        self.rows.push(row);
        Ok(succeeded)
    }

    /// Constraints that wait for the end of the transaction; false where one fails.
    fn deferred(&mut self, end: Option<&ScriptStatement>) -> Result<bool, Problem> {
        let result = subtransaction(AssertUnwindSafe(|| {
            Spi::connect_mut(|client| client.update("SET CONSTRAINTS ALL IMMEDIATE", None, &[]).map(|_| ()))?;
            // Rolled back, so that they are deferred again.
            Err::<(), _>(Problem::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, "checked"))
        }));
        let problem = match result {
            Err(problem) if problem.code != PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION => problem,
            _ => return Ok(true),
        };
        self.failed = true;
        let mut row = match end {
            Some(end) => line(end),
            None => Rehearsed {
                step: None,
                line: None,
                statement: None,
                kind: "COMMIT".into(),
                ..empty()
            },
        };
        row.sqlstate = Some(sqlstate(problem.code));
        let parts = [Some(problem.message), problem.detail];
        row.message = Some(parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
        self.rows.push(row);
        Ok(false)
    }

    fn new_locks(&mut self) -> Result<(Option<String>, Option<String>), Problem> {
        let now = locks(&self.oids)?;
        let mut strongest: Option<(usize, Vec<String>)> = None;
        for (relation, mode) in now.difference(&self.held) {
            let (Some(name), Some(strength)) = (self.before.get(relation), MODES.iter().position(|m| m == mode)) else {
                continue;
            };
            match &mut strongest {
                Some((most, names)) if *most == strength => names.push(name.clone()),
                Some((most, _)) if *most > strength => {}
                _ => strongest = Some((strength, vec![name.clone()])),
            }
        }
        self.held = now;
        Ok(match strongest {
            Some((strength, names)) => (Some(MODES[strength].to_string()), Some(names.join(", "))),
            None => (None, None),
        })
    }

    fn push(&mut self, step: &ScriptStatement, sqlstate: Option<String>, message: &str) {
        self.rows.push(Rehearsed {
            sqlstate,
            message: Some(message.to_string()),
            ..line(step)
        });
    }

    fn not_run(&mut self, step: &ScriptStatement, why: &str) {
        self.push(step, None, &format!("not run: {why}"));
    }
}

fn ends(step: &ScriptStatement) -> bool {
    step.kind == "COMMIT" || step.kind == "ROLLBACK" && !rolls_back_to(step)
}

fn rolls_back_to(step: &ScriptStatement) -> bool {
    step.text.split_whitespace().any(|word| word.eq_ignore_ascii_case("to"))
}

fn empty() -> Rehearsed {
    Rehearsed {
        step: None,
        line: None,
        kind: String::new(),
        statement: None,
        sqlstate: None,
        message: None,
        rows: None,
        duration: None,
        lock: None,
        locked: None,
    }
}

fn line(step: &ScriptStatement) -> Rehearsed {
    Rehearsed {
        step: Some(step.number),
        line: Some(step.line),
        kind: step.kind.clone(),
        statement: Some(step.text.clone()),
        ..empty()
    }
}

/// Five letters (`MAKE_SQLSTATE`, elog.h).
fn sqlstate(code: PgSqlErrorCode) -> String {
    let code = code as i32;
    (0..5)
        .map(|i| char::from(b'0' + ((code >> (6 * i)) & 0x3f) as u8))
        .collect()
}

/// Why a statement that writes is not run: its rows lie on another server, in a table as it is by now, or in a partition of it.
///
/// Errors: those of SPI.
fn writes_elsewhere(step: &ScriptStatement) -> Result<Option<String>, Problem> {
    let names = step.actions.iter().filter_map(|action| match action {
        Action::Data { tables } => Some(tables),
        _ => None,
    });
    for name in names.flatten() {
        let quoted = match &name.schema {
            Some(schema) => qualified(schema, &name.name),
            None => quote_identifier(&name.name),
        };
        // Its partitions are themselves among what this returns.
        let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) AS t
                   JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.relid
                   WHERE c.relkind OPERATOR(pg_catalog.=) 'f'
                   UNION ALL
                   SELECT pg_catalog.count(*) FROM pg_catalog.pg_class AS c
                   WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1) AND c.relkind OPERATOR(pg_catalog.=) 'f'";
        let foreign: i64 = Spi::connect(|client| {
            let rows = client.select(sql, None, &[quoted.as_str().into()])?;
            let mut foreign = 0;
            for row in rows {
                foreign += row.get::<i64>(1)?.unwrap_or_default();
            }
            Ok::<_, SpiError>(foreign)
        })?;
        if foreign > 0 {
            return Ok(Some(format!(
                "{quoted} is a foreign table, or has partitions that are: another server may not undo what is written there"
            )));
        }
    }
    Ok(None)
}

/// Why a statement is not run.
fn cannot_be_run(step: &ScriptStatement) -> Option<String> {
    if step.text.starts_with('\\') {
        return Some("psql runs this itself".into());
    }
    let outside = step.actions.iter().find_map(|action| match action {
        Action::Outside { what } => Some(what),
        _ => None,
    });
    if let Some(what) = outside {
        return Some(format!("{what}: no rollback undoes that"));
    }
    if step.kind == "COPY" {
        return Some("its data come from or go to psql".into());
    }
    match step.kind.as_str() {
        "SAVEPOINT" | "RELEASE" | "PREPARE TRANSACTION" | "COMMIT PREPARED" | "ROLLBACK PREPARED" => {
            return Some("it begins or ends a transaction".into());
        }
        "PREPARE" | "EXECUTE" | "DEALLOCATE" | "DEALLOCATE ALL" | "DECLARE CURSOR" | "CLOSE CURSOR"
        | "CLOSE CURSOR ALL" | "FETCH" | "MOVE" | "DISCARD" | "DISCARD ALL" | "DISCARD PLANS" | "DISCARD SEQUENCES"
        | "DISCARD TEMP" | "LISTEN" | "UNLISTEN" | "LOAD" => {
            return Some("it changes the session, which no rollback undoes".into());
        }
        _ => {}
    }
    // Named, not called.
    let only_names = [
        "CREATE FUNCTION",
        "CREATE PROCEDURE",
        "CREATE VIEW",
        "CREATE TRIGGER",
        "CREATE RULE",
        "CREATE POLICY",
        "GRANT",
        "REVOKE",
        "COMMENT",
    ];
    if only_names.contains(&step.kind.as_str())
        || step.kind.starts_with("DROP")
        || step.kind.starts_with("ALTER FUNCTION")
    {
        return None;
    }
    let names = called(&step.text);
    let outside = OUTSIDE.iter().find_map(|pattern| {
        let (head, tail) = pattern.split_once('*').unwrap_or((pattern, ""));
        let fits = |name: &&String| match pattern.contains('*') {
            true => name.starts_with(head) && name.ends_with(tail),
            false => *name == pattern,
        };
        names.iter().filter(|name| !name.contains("xact")).find(fits).cloned()
    })?;
    Some(format!("{outside} has effects that a rollback does not undo"))
}

/// What a rollback does not undo, of what was run.
fn leaves(step: &ScriptStatement) -> Option<String> {
    let names = called(&step.text);
    let moved = names.contains("nextval") || names.contains("setval");
    if moved && !step.kind.starts_with("CREATE") && !step.kind.starts_with("ALTER") {
        return Some("sequences are not rolled back".into());
    }
    match step.kind.as_str() {
        "NOTIFY" => Some("no notification is sent: NOTIFY sends at commit".into()),
        "DO" | "CALL" => Some("what it does outside of this database is not undone".into()),
        _ => None,
    }
}

fn relations() -> Result<BTreeMap<u32, String>, Problem> {
    let sql = "SELECT c.oid, c.oid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'";
    Ok(Spi::connect(|client| {
        let mut found = BTreeMap::new();
        for row in client.select(sql, None, &[])? {
            if let (Some(oid), Some(name)) = (row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?) {
                found.insert(oid.to_u32(), name);
            }
        }
        Ok::<_, SpiError>(found)
    })?)
}

/// Those that are held on these relations.
fn locks(on: &[pg_sys::Oid]) -> Result<BTreeSet<(u32, String)>, Problem> {
    let sql = "SELECT relation, mode FROM pg_catalog.pg_locks
               WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND granted AND locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text
                 AND relation OPERATOR(pg_catalog.=) ANY ($1)";
    let _jit = Settings::push(&[("jit", "off")]);
    let arguments = [on.to_vec().into()];
    Ok(Spi::connect(|client| {
        let mut found = BTreeSet::new();
        for row in client.select(sql, None, &arguments)? {
            if let (Some(oid), Some(mode)) = (row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?) {
                found.insert((oid.to_u32(), mode));
            }
        }
        Ok::<_, SpiError>(found)
    })?)
}

/// Of the sequences that the caller may read.
fn last_values() -> Result<BTreeMap<String, Option<i64>>, Problem> {
    let sql = "SELECT c.oid::pg_catalog.regclass::pg_catalog.text, pg_catalog.pg_sequence_last_value(c.oid) FROM pg_catalog.pg_class c
               WHERE CASE WHEN c.relkind = 'S' AND c.relpersistence <> 't' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT,USAGE') END";
    Ok(Spi::connect(|client| {
        let mut found = BTreeMap::new();
        for row in client.select(sql, None, &[])? {
            if let Some(name) = row.get::<String>(1)? {
                found.insert(name, row.get::<i64>(2)?);
            }
        }
        Ok::<_, SpiError>(found)
    })?)
}

fn summary(rows: &[Rehearsed], duration: f64, moved: &[String]) -> Rehearsed {
    let failed: Vec<&Rehearsed> = rows.iter().filter(|row| row.sqlstate.is_some()).collect();
    let not_run = rows
        .iter()
        .filter(|row| row.sqlstate.is_none() && row.message.as_deref().is_some_and(|m| m.starts_with("not run")))
        .count();
    let ran = rows.len() - failed.len() - not_run;
    let mut said = vec![format!(
        "{ran} statements would succeed, {} fail, {not_run} were not run; everything was rolled back",
        failed.len()
    )];
    if let Some(first) = failed.first() {
        said.push(match first.step {
            Some(step) => format!(
                "the first that fails is step {step} with {}",
                first.sqlstate.clone().unwrap_or_default()
            ),
            None => format!(
                "constraints fail at the end, with {}",
                first.sqlstate.clone().unwrap_or_default()
            ),
        });
    }
    if !moved.is_empty() {
        said.push(format!("sequences that have moved on: {}", moved.join(", ")));
    }
    let strength = |row: &&Rehearsed| row.lock.as_ref().and_then(|lock| MODES.iter().position(|m| m == lock));
    let strongest = rows.iter().filter(|row| row.lock.is_some()).max_by_key(strength);
    Rehearsed {
        kind: "summary".into(),
        sqlstate: failed.first().and_then(|row| row.sqlstate.clone()),
        message: Some(said.join("; ")),
        duration: Some(duration),
        lock: strongest.and_then(|row| row.lock.clone()),
        locked: strongest.and_then(|row| row.locked.clone()),
        ..empty()
    }
}
