//! Runs the statements of a blueprint and proves what they did.

use std::cell::Cell;

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::attempts::attempts;
use super::ledger::{self, Change, Share};
use super::outcome::{Counts, Outcome, outcome};
use super::query::{self, not_a_number};
use super::reader::Reader;
use super::record;
use super::session::{SAFE_PATH, Session};
use super::written::{Write, Writes};
use crate::catalog::Table;
use crate::pg::{self, Instant, Jsonb, Settings, WholeFunctions};
use crate::plan::{Blueprint, Count, Numbers, Reason, Statement, Versions, View};
use crate::problem::Problem;
use crate::rule::OnConflict;

/// How often a run writes what turned up (or what its sources changed) while it was writing, before it gives up.
pub const PASSES: usize = 25;

/// How deep a tree may be that a table fills from itself.
const LEVELS: usize = 100;

/// What reading back found.
struct Proof {
    /// Every row in its reason; `filled` are the rows that the run wrote and that say what their sources say.
    counts: Counts,
    /// Rows that the run wrote.
    written: i64,
    /// Rows that could be filled and are not: they turned up while the run was writing.
    left: i64,
}

/// Settings under which our statements are planned: policies must not hide rows, and compiling a plan takes longer than
/// most counts. A dry run is READ ONLY, so that a function in a CHECK cannot write either.
pub fn settings(dry_run: bool) -> Settings {
    // search_path and the texts as well, so that what a statement sets for its own execution ends with this guard.
    let mut settings = vec![("search_path", SAFE_PATH), ("row_security", "off"), ("jit", "off")];
    settings.extend(pg::texts_to_put_back());
    if dry_run {
        settings.push(("transaction_read_only", "on"));
    }
    Settings::push(&settings)
}

/// Keeps two runs off the same table until the end of the transaction.
pub fn lock(session: &Session, table: &Table) {
    pg::lock_for_us(session.state.runs, table.oid, true);
}

/// As [`lock`], but does not wait: false where another session has it.
pub fn try_lock(session: &Session, table: &Table) -> bool {
    pg::lock_for_us(session.state.runs, table.oid, false)
}

/// Errors: 25006 in a READ ONLY transaction and on a standby; 25000 in one that is not READ COMMITTED: what others have committed since
/// it began would be overlooked, and proved with the same old eyes.
pub fn may_write() -> Result<(), Problem> {
    if pg::is_read_only() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "a real run cannot be done in a read-only transaction or on a standby",
        )
        .hint("dry_run => true works here; run for real on the primary, outside BEGIN READ ONLY"));
    }
    if pg::keeps_one_snapshot() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            "a real run must see what others have committed since the transaction began",
        )
        .detail("the transaction is REPEATABLE READ or SERIALIZABLE; a source that changed meanwhile would be written as it was, and found right")
        .hint("BEGIN ISOLATION LEVEL READ COMMITTED; where it is the default: SET default_transaction_isolation = 'read committed'"));
    }
    Ok(())
}

/// What a run would do. Writes nothing; works in READ ONLY transactions and on standbys.
///
/// Pushes what it would write onto the blueprint's overlays where later passes or steps must see it.
pub fn dry(session: &Session, blueprint: &mut Blueprint, for_later_steps: bool) -> Result<Outcome, Problem> {
    let before = count_all(session, blueprint)?;
    let mut counts = before.clone();
    if blueprint.settles_in_levels() {
        // Rows that this level would fill give values to the rows below them: look again, as if they were filled, until
        // nothing is left. What is filled once stays: nothing that it was derived from changes (see Blueprint::compared).
        let mut levels = 0;
        let mut settled = counts.filled == 0;
        while !settled {
            if levels == LEVELS {
                return Err(Problem::new(
                    PgSqlErrorCode::ERRCODE_STATEMENT_TOO_COMPLEX,
                    format!(
                        "the rows of {} depend on each other more than {LEVELS} levels deep",
                        shown(blueprint)
                    ),
                )
                .hint("run it for real: it is not limited in depth, and it can be rolled back"));
            }
            pgrx::check_for_interrupts!();
            let after = blueprint.after(if levels == 0 { View::All } else { View::Level });
            blueprint.overlays.push(blueprint.table, after);
            let proof = prove(session, blueprint, View::Level)?;
            settled = proof.left == 0;
            counts = proof.counts;
            levels += 1;
        }
    } else if for_later_steps && counts.filled > 0 {
        let after = blueprint.after(View::All);
        blueprint.overlays.push(blueprint.table, after);
    }
    no_conflict_if_forbidden(blueprint, &counts)?;
    Ok(outcome(session, blueprint, counts, true, None))
}

/// Writes, proves, records. An error leaves the data as it was.
///
/// Errors: 25006 in a read-only transaction, 40001 where other writers never pause, 27000 where a trigger changes what
/// was written, 21000 for a conflict under `on_conflict => 'error'`, and whatever the table's own triggers raise.
///
/// * `before`: what this call has written of the table before, see [`Write`].
pub fn real(session: &Session, blueprint: &Blueprint, before: &[Share]) -> Result<Outcome, Problem> {
    may_write()?;
    let started = record::clock()?;
    let run = ledger::open(session, "backfill", &record::qualified(blueprint.table), &started)?;
    let mut outcome = proved(session, blueprint, run, before)?;
    ledger::close(run, &record::of_backfill(blueprint, &outcome)?)?;
    outcome.run_id = Some(run);
    Ok(outcome)
}

/// As [`real`], as a part of the run `run` that somebody else opened and closes.
pub fn proved(session: &Session, blueprint: &Blueprint, run: i64, before: &[Share]) -> Result<Outcome, Problem> {
    may_write()?;
    lock(session, blueprint.table);
    // Whoever writes the same rows in another order can deadlock with us. The same where what was written cannot be corrected in place.
    let done = attempts(&[], |changed| {
        let kept = blueprint.overwrites().then_some(Kept {
            run,
            replaced: Cell::new(0),
        });
        let mut done = write_and_prove(session, blueprint, run, kept.as_ref(), before, changed)?;
        if let Some(kept) = &kept {
            done.counts.replaced = kept.replaced.get();
        }
        Ok(done)
    })?;
    no_conflict_if_forbidden(blueprint, &done.counts)?;
    let mut outcome = outcome(session, blueprint, done.counts, false, done.skipped_by_trigger);
    outcome.writes = done.writes;
    Ok(outcome)
}

/// The statements that a real run would execute, for review: purpose and text.
pub fn sql(blueprint: &Blueprint) -> Vec<(String, String)> {
    let count = blueprint.count_plainly(View::All).statement.for_review();
    let write = match blueprint.settles_in_levels() {
        true => "write (repeat until it reports no rows)",
        false => "write",
    };
    vec![
        (
            "settings: operators below mean those of Postgres".into(),
            "SET search_path = pg_catalog, pg_temp".into(),
        ),
        ("count what would happen".into(), count.clone()),
        (write.into(), blueprint.write(&Versions::All).for_review()),
        ("count again, to prove it".into(), count),
        ("settings of before".into(), "RESET search_path".into()),
    ]
}

/// The rows that stay empty: key, reason, detail.
pub fn unfilled(
    session: &Session,
    blueprint: &mut Blueprint,
    limit: i64,
) -> Result<Vec<(Jsonb, String, Option<String>)>, Problem> {
    if blueprint.settles_in_levels() {
        // The rows that stay empty in the end, not those of the first level.
        dry(session, blueprint, false)?;
    }
    let view = match blueprint.overlays.replaces(blueprint.table) {
        true => View::Level,
        false => View::All,
    };
    let _settings = settings(true);
    let statement = under_callers_settings(session, blueprint, blueprint.unfilled(limit, view));
    let _whole = WholeFunctions::where_needed(blueprint.asks_user_code());
    let _now = Instant::of_statement();
    let rows = Reader::for_blueprint(blueprint).run(|| pg::read_rows(&statement.sql(), statement.parameters()))?;
    let explained = rows.into_iter().map(|row| {
        let mut texts = row.into_iter();
        let mut next = || texts.next().flatten();
        let key = Jsonb(next().unwrap_or("null".into()));
        (key, next().unwrap_or_default(), next())
    });
    Ok(explained.collect())
}

/// Where a run that overwrites keeps what it replaced.
struct Kept {
    /// The id of the run.
    run: i64,
    /// Values replaced so far.
    replaced: Cell<i64>,
}

/// A run that was proved.
struct Done {
    counts: Counts,
    /// Rows that a trigger refused without an error.
    skipped_by_trigger: Option<i64>,
    /// The ids under which it wrote.
    writes: Vec<Write>,
}

/// May what a rule wrote be corrected in place, where its sources changed meanwhile? Correcting writes a row a second time: a trigger may
/// have changed what its value was derived from, and a foreign key that is NOT VALID would be checked now. Nor can it put back a value
/// that it replaced. There, everything is rolled back and begun anew instead.
pub fn may_correct(blueprint: &Blueprint) -> bool {
    blueprint.details.triggers.is_empty()
        && !blueprint.overwrites()
        && blueprint
            .catalog
            .foreign_keys_of(blueprint.table.oid)
            .all(|key| key.validated || !key.enforced)
}

/// `changed` is set where what was written does not hold and another attempt may help.
fn write_and_prove(
    session: &Session,
    blueprint: &Blueprint,
    run: i64,
    kept: Option<&Kept>,
    before: &[Share],
    changed: &Cell<bool>,
) -> Result<Done, Problem> {
    let mut expected: i64 = 0;
    let mut idle = 0;
    let passes = if blueprint.settles_in_levels() {
        usize::MAX
    } else {
        PASSES
    };
    let may_correct = may_correct(blueprint);
    // The moment before the first write, to tell a trigger that changes what is written from a source that changed since.
    let moment = (!blueprint.details.triggers.is_empty()).then(Instant::now);
    let mut written = blueprint.clone();
    let mut writes = Writes::of(before);
    for _ in 0..passes {
        pgrx::check_for_interrupts!();
        let written_now = writes.each(|versions| match kept {
            Some(kept) => replace(session, &written, kept, versions),
            None => execute(session, &written, written.write(versions)),
        })?;
        written.written_as = writes.ids();
        let mut proof = prove(session, &written, View::Proof)?;
        let mut corrections = 0;
        expected += written_now;
        while proof.written != proof.counts.filled {
            pgrx::check_for_interrupts!();
            if corrections == PASSES || !may_correct {
                changed.set(!may_correct);
                return Err(disagrees(session, &written, moment.as_ref()));
            }
            let before = proof.written;
            writes.again(|ids| correct(session, &written, ids))?;
            written.written_as = writes.ids();
            proof = prove(session, &written, View::Proof)?;
            // Rows whose sources no longer give a value are NULL again.
            expected -= before - proof.written;
            corrections += 1;
        }
        if proof.written != expected {
            return Err(does_not_reconcile(blueprint, expected, proof.written));
        }
        if proof.left == 0 {
            writes.keep(run, blueprint.table.oid, Some(blueprint.column.number))?;
            return Ok(Done {
                counts: proof.counts,
                skipped_by_trigger: None,
                writes: writes.done(),
            });
        }
        idle = if written_now == 0 { idle + 1 } else { 0 };
        if idle == PASSES {
            break;
        }
        if idle == 2 && !blueprint.details.triggers.is_empty() {
            // Nobody else is writing them, and neither can we: a BEFORE trigger returns NULL.
            proof.counts.reasons.add(Reason::ConstraintFailed(None), proof.left);
            writes.keep(run, blueprint.table.oid, Some(blueprint.column.number))?;
            return Ok(Done {
                counts: proof.counts,
                skipped_by_trigger: Some(proof.left),
                writes: writes.done(),
            });
        }
    }
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!(
            "other sessions write to {} faster than it can be filled",
            shown(blueprint)
        ),
    )
    .detail(format!(
        "after {PASSES} passes there still were new rows to fill; nothing was written"
    ))
    .hint("run it again at a quieter time, or LOCK TABLE ... IN SHARE MODE first in the same transaction"))
}

/// Counts every row as it is before the run.
fn count_all(session: &Session, blueprint: &Blueprint) -> Result<Counts, Problem> {
    let (counts, numbers) = count(session, blueprint, View::All)?;
    reconcile(blueprint, numbers.total, counts.total())?;
    Ok(counts)
}

/// Reads everything back after writing.
fn prove(session: &Session, blueprint: &Blueprint, view: View) -> Result<Proof, Problem> {
    let (mut counts, numbers) = count(session, blueprint, view)?;
    reconcile(blueprint, numbers.total, counts.total())?;
    // Meaningful once all that was written is proved; until then, nobody asks.
    let left = counts.filled - numbers.proved;
    counts.filled = numbers.proved;
    Ok(Proof {
        counts,
        written: numbers.written,
        left,
    })
}

/// The reasons must sum to the rows of the table, which were counted by themselves.
fn reconcile(blueprint: &Blueprint, total: i64, sum: i64) -> Result<(), Problem> {
    if total == sum {
        Ok(())
    } else {
        Err(does_not_reconcile(blueprint, total, sum))
    }
}

/// Puts right what was written under these ids.
///
/// Errors: those of the statement.
pub fn correct(session: &Session, blueprint: &Blueprint, ids: &[u32]) -> Result<i64, Problem> {
    let blueprint = Blueprint {
        written_as: ids.to_vec(),
        ..blueprint.clone()
    };
    execute(session, &blueprint, blueprint.correct())
}

/// What was written does not say what its sources say now. Where it did not say what they said before either, it was a trigger.
fn disagrees(session: &Session, blueprint: &Blueprint, moment: Option<&Instant>) -> Problem {
    let Some(moment) = moment else {
        return sources_change(blueprint);
    };
    moment.with_own_writes();
    match count_at(session, blueprint, View::Proof, Some(moment)) {
        Ok((_, numbers)) if numbers.written == numbers.proved => sources_change(blueprint),
        Ok(_) => trigger_changes(blueprint),
        Err(problem) => problem,
    }
}

fn count(session: &Session, blueprint: &Blueprint, view: View) -> Result<(Counts, Numbers), Problem> {
    count_at(session, blueprint, view, None)
}

/// * `now`: the moment as of which is counted; `None`: that of the statement.
pub fn count_at(
    session: &Session,
    blueprint: &Blueprint,
    view: View,
    now: Option<&Instant>,
) -> Result<(Counts, Numbers), Problem> {
    let _settings = settings(view != View::Proof);
    let count = blueprint.count(view);
    let parsed = |statement: &Statement| -> Result<Vec<i128>, Problem> {
        one_row(session, blueprint, statement.clone(), now)?
            .iter()
            .map(|number| number.parse::<i128>().map_err(|_| not_a_number(number)))
            .collect()
    };
    let columns = parsed(&count.statement)?;
    let mut numbers = count.read(&columns);
    if numbers.total >= Count::TOO_MANY {
        let plain = blueprint.count_plainly(view);
        let columns = parsed(&plain.statement)?;
        let columns: Vec<i64> = columns.into_iter().map(|number| number as i64).collect();
        numbers = plain.read_plainly(&columns);
    }
    let mut counts = Counts {
        replaced: numbers.replaced,
        unguarded: numbers.unguarded,
        ..Counts::default()
    };
    for (outcome, rows) in count
        .outcomes
        .iter()
        .zip(&numbers.outcomes)
        .filter(|(_, rows)| **rows > 0)
    {
        counts.add(outcome, *rows);
    }
    Ok((counts, numbers))
}

/// The only row of a statement that counts, as texts. Without a row limit it may use parallel workers.
fn one_row(
    session: &Session,
    blueprint: &Blueprint,
    statement: Statement,
    now: Option<&Instant>,
) -> Result<Vec<String>, Problem> {
    let statement = under_callers_settings(session, blueprint, statement);
    let _whole = WholeFunctions::where_needed(blueprint.asks_user_code());
    let _own = match now {
        Some(_) => None,
        None => Instant::of_statement(),
    };
    let row = Reader::for_blueprint(blueprint).run(|| pg::read_row(&statement.sql(), statement.parameters()))?;
    // A count must never pass for 0 because it could not be read.
    row.into_iter()
        .map(|text| text.ok_or_else(|| not_a_number("NULL")))
        .collect()
}

/// set_config keeps parallel workers away, so a statement that only reads sets the caller's settings only where something
/// could notice them.
fn under_callers_settings(session: &Session, blueprint: &Blueprint, statement: Statement) -> Statement {
    let notices = blueprint.asks_user_code() || session.caller.texts_differ();
    match blueprint.reader.is_none() && notices {
        true => statement.under_callers_settings(&session.caller),
        false => statement,
    }
}

/// Runs an UPDATE under the caller's own settings; returns the number of rows.
fn execute(session: &Session, blueprint: &Blueprint, statement: Statement) -> Result<i64, Problem> {
    let _settings = settings(false);
    let _whole = WholeFunctions::where_needed(blueprint.asks_user_code());
    let statement = statement.under_callers_settings(&session.caller);
    query::update(&statement)
}

/// As [`execute`], for a rule that overwrites: the old values are kept in the same statement.
fn replace(session: &Session, blueprint: &Blueprint, kept: &Kept, versions: &Versions) -> Result<i64, Problem> {
    let _settings = settings(false);
    let _whole = WholeFunctions::where_needed(blueprint.asks_user_code());
    let write = blueprint
        .write(versions)
        .under_callers_settings(&session.caller.with_exact_texts());
    let statement = blueprint.keeping_old_values(write);
    let table = record::qualified(blueprint.table);
    let numbers = ledger::keep(kept.run, Change::Replaced, &table, None, &statement)?;
    let [rows, replaced] = numbers[..] else {
        return Err(not_a_number("NULL"));
    };
    kept.replaced.set(kept.replaced.get() + replaced);
    Ok(rows)
}

/// `total`, `populated` and `disagrees` of [`Blueprint::coverage`].
pub fn coverage(session: &Session, blueprint: &Blueprint) -> Result<(i64, i64, Option<i64>), Problem> {
    let _settings = settings(true);
    let _whole = WholeFunctions::where_needed(blueprint.asks_user_code());
    let statement = under_callers_settings(session, blueprint, blueprint.coverage());
    let row = Spi::connect(|client| {
        let row = client
            .select(&statement.sql(), None, &query::arguments(&statement))?
            .first();
        Ok::<_, SpiError>((row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<i64>(3)?))
    })?;
    match row {
        (Some(total), Some(populated), disagrees) => Ok((total, populated, disagrees)),
        _ => Err(not_a_number("NULL")),
    }
}

fn no_conflict_if_forbidden(blueprint: &Blueprint, counts: &Counts) -> Result<(), Problem> {
    let conflicts = counts.reasons.rows(&Reason::Conflict);
    if blueprint.rule.on_conflict != OnConflict::Error || conflicts == 0 {
        return Ok(());
    }
    let table = blueprint.catalog.display(blueprint.table).replace('\'', "''");
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION,
        format!("{conflicts} rows of {} have sources that disagree", shown(blueprint)),
    )
    .detail(format!("on_conflict is 'error': nothing was written, {} rows could have been filled", counts.filled))
    .hint(format!(
        "see them: SELECT * FROM backfill_unfilled('{table}', '{}') WHERE reason = 'conflict'; or leave them alone with on_conflict => 'skip'",
        blueprint.column.name.replace('\'', "''")
    )))
}

/// What a caller is told where sources change, time and again.
pub fn sources_change(blueprint: &Blueprint) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!(
            "the sources of {} change faster than they can be read",
            shown(blueprint)
        ),
    )
    .hint("run it again at a quieter time")
}

fn trigger_changes(blueprint: &Blueprint) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
        format!("a trigger changes the values that are written to {}", shown(blueprint)),
    )
    .detail(format!(
        "read back, they are not what the sources say; triggers on UPDATE: {}; nothing was written",
        blueprint.details.triggers.join(", ")
    ))
    .hint("ALTER TABLE ... DISABLE TRIGGER ... for the backfill, in the same transaction")
}

fn does_not_reconcile(blueprint: &Blueprint, expected: i64, found: i64) -> Problem {
    let code = if blueprint.details.triggers.is_empty() {
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR
    } else {
        PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION
    };
    Problem::new(
        code,
        format!(
            "the numbers of {} do not reconcile; nothing was written",
            shown(blueprint)
        ),
    )
    .detail(format!(
        "expected {expected} rows, reading back finds {found}; triggers on UPDATE: {}",
        if blueprint.details.triggers.is_empty() {
            "none".into()
        } else {
            blueprint.details.triggers.join(", ")
        }
    ))
    .hint("a trigger that writes or deletes the same rows must be disabled for the backfill")
}

pub(super) fn shown(blueprint: &Blueprint) -> String {
    format!(
        "{}.{}",
        blueprint.catalog.display(blueprint.table),
        blueprint.column.quoted
    )
}
