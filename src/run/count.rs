//! Rows counted by reason: the dry run, and the proof of a real one.

use super::query::not_a_number;
use super::reader::Reader;
use super::session::Session;
use super::surroundings::settings;
use crate::pg::{self, Instant, WholeFunctions};
use crate::plan::fill::does_not_reconcile;
use crate::plan::program::Found;
use crate::plan::{Blueprint, Count, Counts, Moment, Numbers, Statement};
use crate::problem::Problem;

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

pub(super) fn count(session: &Session, blueprint: &Blueprint, moment: Moment) -> Result<(Counts, Numbers), Problem> {
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
pub(super) fn under_callers_settings(session: &Session, blueprint: &Blueprint, statement: Statement) -> Statement {
    let notices = blueprint.asks_user_code() || session.caller.texts_differ();
    match blueprint.reader.is_none() && notices {
        true => statement.under_callers_settings(&session.caller),
        false => statement,
    }
}

/// Counts every row as it is before the run.
pub(super) fn count_all(session: &Session, blueprint: &Blueprint) -> Result<Counts, Problem> {
    let (counts, numbers) = count(session, blueprint, Moment::Before)?;
    reconcile(blueprint, numbers.total, counts.total())?;
    Ok(counts)
}
