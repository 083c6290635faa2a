//! Runs the statements of a blueprint and proves what they did.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::count::{classified, count_all, under_callers_settings};
use super::interpret::{self, Done};
use super::outcome::{Outcome, outcome};
use super::query::{self, not_a_number};
use super::reader::Reader;
use super::record::{self, Record};
use super::session::Session;
use super::surroundings::settings;
use crate::pg::{self, Instant, Jsonb, WholeFunctions};
use crate::plan::fill::{FILL, fill};
use crate::plan::program::Program;
use crate::plan::{Blueprint, Counts, Moment, Reason, Share, Versions};
use crate::problem::Problem;
use crate::rule::OnConflict;

/// How deep a tree may be that a table fills from itself.
const LEVELS: usize = 100;

/// What a run would do. Writes nothing; works in READ ONLY transactions and on standbys.
///
/// Pushes what it would write onto the blueprint's overlays where later passes or steps must see it.
pub fn simulate_run(session: &Session, blueprint: &mut Blueprint, for_later_steps: bool) -> Result<Outcome, Problem> {
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
                        blueprint.target_shown()
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
/// * `before`: what this call has written of the table before, see [`Share`].
pub fn execute_run(session: &Session, blueprint: &Blueprint, before: &[Share]) -> Result<Outcome, Problem> {
    let program = program(session, blueprint, before);
    let (run, mut outcome) = interpret::run(session, program, |done| {
        let outcome = told(session, blueprint, done)?;
        let record = record_of(blueprint, &outcome)?;
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
        simulate_run(session, blueprint, false)?;
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
        format!("{conflicts} rows of {} have sources that disagree", blueprint.target_shown()),
    )
    .detail(format!("on_conflict is 'error': nothing was written, {} rows could have been filled", counts.filled))
    .hint(format!(
        "see them: SELECT * FROM backfill_unfilled('{table}', '{}') WHERE reason = 'conflict'; or leave them alone with on_conflict => 'skip'",
        blueprint.column.name.replace('\'', "''")
    )))
}

/// The record of a backfill.
///
/// Errors: none that a user can cause.
fn record_of(blueprint: &Blueprint, outcome: &Outcome) -> Result<Record, Problem> {
    let undeclared = blueprint
        .reference
        .as_ref()
        .filter(|r| blueprint.refuse_dangling && !r.declared);
    let rule = match blueprint
        .rule
        .to_spec(blueprint.catalog, undeclared.map(|r| (r.parent, r.key)))
    {
        Some(spec) => serde_json::to_value(spec)?,
        None => serde_json::Value::Null,
    };
    let counts = &outcome.counts;
    let reasons = counts.reasons.to_json();
    let statement = blueprint.write(&Versions::All).for_review();
    let reads = blueprint.reads().into_iter().map(|(table, _)| table).collect();
    Ok(Record {
        table: record::qualified(blueprint.table),
        column: outcome.column.clone(),
        rule,
        statement,
        counts: (counts.already_set, counts.filled, reasons, counts.unfilled()),
        note: outcome.note(),
        fingerprint: record::fingerprinted(blueprint.catalog, reads, &blueprint.details),
    })
}
