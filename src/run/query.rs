//! Statements run through SPI: their parameters, and the shapes of their results.

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiError;

use crate::pg::{self, Instant, Settings};
use crate::plan::{Reason, Statement, Tally};
use crate::problem::Problem;

/// The parameters of a statement, as SPI takes them.
pub fn arguments(statement: &Statement) -> Vec<DatumWithOid<'_>> {
    let values = statement.parameters().iter();
    values.map(|value| value.as_str().into()).collect()
}

/// Runs a statement that writes; how many rows.
///
/// Errors: those of the statement.
pub fn update(statement: &Statement) -> Result<i64, Problem> {
    let _own = Settings::of_one_statement();
    let rows = Spi::connect_mut(|client| {
        Ok::<_, SpiError>(client.update(&statement.sql(), None, &arguments(statement))?.len())
    })?;
    Ok(rows as i64)
}

/// The only number of a statement that reads.
///
/// Errors: those of the statement; XX000 where it is NULL: a count must never pass for 0 because it could not be read.
pub fn number(statement: &Statement) -> Result<i64, Problem> {
    numbers(statement)?
        .first()
        .copied()
        .ok_or_else(|| not_a_number("nothing"))
}

/// The numbers in the only row of a statement that reads.
///
/// Errors: as [`number`].
pub fn numbers(statement: &Statement) -> Result<Vec<i64>, Problem> {
    let _own = Settings::of_one_statement();
    let _now = Instant::of_statement();
    let texts = pg::read_row(&statement.sql(), statement.parameters())?;
    let read = |text: Option<String>| {
        let text = text.unwrap_or("NULL".into());
        text.parse().map_err(|_| not_a_number(&text))
    };
    texts.into_iter().map(read).collect()
}

/// The lists of texts that a statement returns.
///
/// Errors: those of the statement.
pub fn lists(statement: &Statement) -> Result<Vec<Vec<Option<String>>>, Problem> {
    let _own = Settings::of_one_statement();
    Ok(Spi::connect(|client| {
        let mut lists = vec![];
        for row in client.select(&statement.sql(), None, &arguments(statement))? {
            lists.extend(row.get::<Vec<Option<String>>>(1)?);
        }
        Ok::<_, SpiError>(lists)
    })?)
}

/// Rows per reason, of a statement that returns both.
///
/// Errors: those of the statement; XX000 where a reason or a number cannot be read.
pub fn tally(statement: &Statement) -> Result<Tally, Problem> {
    let _own = Settings::of_one_statement();
    let found = Spi::connect(|client| {
        let mut found = vec![];
        for row in client.select(&statement.sql(), None, &arguments(statement))? {
            found.push((row.get::<String>(1)?.unwrap_or_default(), row.get::<i64>(2)?));
        }
        Ok::<_, SpiError>(found)
    })?;
    let read = |(text, rows): (String, Option<i64>)| {
        let reason = Reason::parse(&text).ok_or_else(|| not_a_number(&text))?;
        Ok((reason, rows.ok_or_else(|| not_a_number("NULL"))?))
    };
    found.into_iter().map(read).collect()
}

/// What was counted cannot be read.
pub fn not_a_number(text: &str) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("pg_mend counted \"{text}\", which is no number"),
    )
    .hint("this is a bug in pg_mend: please report it with the call that you made")
}
