//! Runs the statements of a blueprint and proves what they did.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::interpret::{self, Done};
use super::outcome::{Outcome, outcome};
use super::query::{self, not_a_number};
use super::reader::Reader;
use super::record;
use super::session::{SAFE_PATH, Session};
use crate::catalog::Table;
use crate::pg::{self, Instant, Jsonb, Settings, WholeFunctions};
use crate::plan::fill::{FILL, does_not_reconcile, fill};
use crate::plan::program::{Found, Program};
use crate::plan::{Blueprint, Count, Counts, Moment, Numbers, Reason, Share, Statement, Versions};
use crate::problem::Problem;
use crate::rule::OnConflict;

/// How deep a tree may be that a table fills from itself.
const LEVELS: usize = 100;

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
            let after = blueprint.after(if levels == 0 { Moment::Before } else { Moment::Levels });
            blueprint.overlays.push(blueprint.table, after);
            let proof = classified(session, blueprint, Moment::Levels)?;
            settled = proof.left == 0;
            counts = proof.counts;
            levels += 1;
        }
    } else if for_later_steps && counts.filled > 0 {
        let after = blueprint.after(Moment::Before);
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
/// * `before`: what this call has written of the table before, see [`Part`].
pub fn real(session: &Session, blueprint: &Blueprint, before: &[Share]) -> Result<Outcome, Problem> {
    let program = program(session, blueprint, before);
    let (run, mut outcome) = interpret::run(session, program, |done| {
        let outcome = told(session, blueprint, done)?;
        let record = record::of_backfill(blueprint, &outcome)?;
        Ok((outcome, record))
    })?;
    outcome.run_id = Some(run);
    Ok(outcome)
}

fn program<'p>(session: &Session, blueprint: &Blueprint<'p>, before: &'p [Share]) -> Program<'p> {
    Program {
        operation: "backfill",
        object: record::qualified(blueprint.table),
        lock: Some(blueprint.table),
        surroundings: interpret::surroundings(blueprint),
        steps: vec![fill(blueprint, &session.caller, before)],
    }
}

/// What a program that fills came to.
fn told(session: &Session, blueprint: &Blueprint, done: Done) -> Result<Outcome, Problem> {
    let mut counts = done.progress.found.counts.clone();
    if let Some(rows) = done.progress.refused {
        counts.reasons.add(Reason::ConstraintFailed(None), rows);
    }
    if blueprint.overwrites() {
        counts.replaced = done.progress.total(FILL, 1);
    }
    no_conflict_if_forbidden(blueprint, &counts)?;
    let mut outcome = outcome(session, blueprint, counts, false, done.progress.refused);
    outcome.parts = done.parts_of(FILL);
    Ok(outcome)
}

/// The statements that a real run would execute, for review: purpose and text.
pub fn sql(blueprint: &Blueprint) -> Vec<(String, String)> {
    let count = blueprint.count_plainly(Moment::Before).statement.for_review();
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
    let moment = match blueprint.overlays.replaces(blueprint.table) {
        true => Moment::Levels,
        false => Moment::Before,
    };
    let _settings = settings(true);
    let statement = under_callers_settings(session, blueprint, blueprint.unfilled(limit, moment));
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

/// Counts every row as it is before the run.
fn count_all(session: &Session, blueprint: &Blueprint) -> Result<Counts, Problem> {
    let (counts, numbers) = count(session, blueprint, Moment::Before)?;
    reconcile(blueprint, numbers.total, counts.total())?;
    Ok(counts)
}

/// Reads everything back after writing.
pub(super) fn classified(session: &Session, blueprint: &Blueprint, moment: Moment) -> Result<Found, Problem> {
    let (mut counts, numbers) = count(session, blueprint, moment)?;
    reconcile(blueprint, numbers.total, counts.total())?;
    // Meaningful once all that was written is proved; until then, nobody asks.
    let left = counts.filled - numbers.proved;
    counts.filled = numbers.proved;
    Ok(Found {
        counts,
        written: numbers.written,
        left,
        numbers: vec![],
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

fn count(session: &Session, blueprint: &Blueprint, moment: Moment) -> Result<(Counts, Numbers), Problem> {
    count_at(session, blueprint, moment, None)
}

/// * `now`: the moment as of which is counted; `None`: that of the statement.
pub fn count_at(
    session: &Session,
    blueprint: &Blueprint,
    moment: Moment,
    now: Option<&Instant>,
) -> Result<(Counts, Numbers), Problem> {
    let _settings = settings(moment != Moment::After);
    let count = blueprint.count(moment);
    let parsed = |statement: &Statement| -> Result<Vec<i128>, Problem> {
        one_row(session, blueprint, statement.clone(), now)?
            .iter()
            .map(|number| number.parse::<i128>().map_err(|_| not_a_number(number)))
            .collect()
    };
    let columns = parsed(&count.statement)?;
    let mut numbers = count.read(&columns);
    if numbers.total >= Count::TOO_MANY {
        let plain = blueprint.count_plainly(moment);
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

pub(super) fn shown(blueprint: &Blueprint) -> String {
    format!(
        "{}.{}",
        blueprint.catalog.display(blueprint.table),
        blueprint.column.quoted
    )
}
