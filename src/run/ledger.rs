//! The ledger: what ran, and what was there before. The only place that writes pg_mend's state.
//!
//! ```text
//! State::check    the state tables are as they were installed, or nothing is done          (once per call)
//! open            a run gets its id and its row, before its first change
//! keep            the changes of one statement: it runs with the caller's rights, what it returns is written with ours
//! mark_undone     changes that another run has put back
//! wrote           the ids under which rows were written, by which they are found again while nobody has changed them
//! close           what the run came to
//! ```
//!
//! Roles have no right to write here. What is written in their name says so in `run_by`, and it is always what a statement of the
//! extension returned.

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::record::Record;
use super::session::Session;
use super::state_tables::ours;
use crate::pg::{self, Returned, Texts};
use crate::plan::kept::{Change, KEPT};
use crate::plan::{Share, Statement};
use crate::problem::Problem;

/// How many changes are moved at once.
const CHUNK: usize = 5_000;

/// Opens a run: from now on changes can be kept under its id.
///
/// Errors: those of SPI only.
pub fn open(session: &Session, operation: &str, table: &str, started: &str) -> Result<i64, Problem> {
    let sql = format!(
        "INSERT INTO mend.ledger_runs (operation, table_name, column_name, rule, statement, total, already_set, filled, unfilled, reasons,
                                       run_by, session_role, started_at, finished_at, schema_fingerprint, extension_version)
         VALUES ($1, $2, '', 'null', '', 0, 0, 0, 0, '{{}}', $3::pg_catalog.name, SESSION_USER, $4::pg_catalog.timestamptz,
                 pg_catalog.clock_timestamp(), '', '{}')
         RETURNING run_id",
        env!("CARGO_PKG_VERSION")
    );
    let arguments = [
        operation.into(),
        table.into(),
        session.role.as_str().into(),
        started.into(),
    ];
    let id = ours(|| {
        Ok(Spi::connect_mut(|client| {
            client.update(&sql, None, &arguments)?.first().get_one::<i64>()
        })?)
    })?;
    id.ok_or_else(|| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "mend.ledger_runs did not take the record of the run",
        )
        .hint("this is a bug in pg_mend: please report it with the call that you made")
    })
}

/// Closes a run: what it came to.
///
/// Errors: those of SPI only.
pub fn close(id: i64, record: &Record) -> Result<(), Problem> {
    let sql = "UPDATE mend.ledger_runs
               SET table_name = $2, column_name = $3, rule = $4::pg_catalog.jsonb, statement = $5, total = $6, already_set = $7,
                   filled = $8, unfilled = $9, reasons = $10::pg_catalog.jsonb, note = $11, finished_at = pg_catalog.clock_timestamp(),
                   schema_fingerprint = pg_catalog.md5($12)
               WHERE run_id = $1";
    let (already_set, filled, reasons, unfilled) = &record.counts;
    let arguments: Vec<DatumWithOid> = vec![
        id.into(),
        record.table.as_str().into(),
        record.column.as_str().into(),
        record.rule.to_string().into(),
        record.statement.as_str().into(),
        (already_set + filled + unfilled).into(),
        (*already_set).into(),
        (*filled).into(),
        (*unfilled).into(),
        reasons.to_string().into(),
        record.note.as_deref().into(),
        record.fingerprint.as_str().into(),
    ];
    ours(|| {
        Ok(Spi::connect_mut(|client| {
            client.update(sql, None, &arguments).map(|_| ())
        })?)
    })
}

/// Runs a statement of the form of [`crate::plan::kept::keeping`] with the caller's rights, keeps its changes, and returns its numbers.
///
/// * `table`: of the rows, with its schema.
/// * `columns`: see `mend.ledger_changes.columns`.
///
/// Errors: those of the statement.
pub fn keep(
    run: i64,
    change: Change,
    table: &str,
    columns: Option<&[String]>,
    statement: &Statement,
) -> Result<Vec<i64>, Problem> {
    let sql = "INSERT INTO mend.ledger_changes (run_id, change, table_name, columns, row_key, old_values, new_values, row_values)
               SELECT $1, $2, $3, $4, c.row_key::pg_catalog.jsonb, c.old_values::pg_catalog.jsonb, c.new_values::pg_catalog.jsonb,
                      c.row_values::pg_catalog.jsonb
               FROM ROWS FROM (pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8))
                    AS c (row_key, old_values, new_values, row_values)";
    let mut numbers = None;
    in_chunks(statement, |rows| {
        let mut lists: [Vec<Option<String>>; KEPT.len()] = Default::default();
        for (texts, row_numbers) in rows {
            match row_numbers {
                Some(found) => numbers = Some(found),
                None => lists.iter_mut().zip(texts).for_each(|(list, text)| list.push(text)),
            }
        }
        if lists[0].is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<DatumWithOid> = vec![
            run.into(),
            change.as_str().into(),
            table.into(),
            columns.map(<[String]>::to_vec).into(),
        ];
        arguments.extend(lists.into_iter().map(Into::into));
        ours(|| {
            Ok(Spi::connect_mut(|client| {
                client.update(sql, None, &arguments).map(|_| ())
            })?)
        })
    })?;
    numbers.ok_or_else(|| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a statement that keeps its changes returned no numbers",
        )
        .hint("this is a bug in pg_mend: please report it with the call that you made")
    })
}

/// As [`keep`], for a statement that puts changes back: each row's `row_key` is a `change_id`.
///
/// Errors: those of the statement.
pub fn mark_undone(by: i64, statement: &Statement) -> Result<i64, Problem> {
    let sql = "UPDATE mend.ledger_changes SET undone_by = $1 WHERE change_id = ANY ($2)";
    let mut marked = 0;
    in_chunks(statement, |rows| {
        let ids: Vec<i64> = rows
            .into_iter()
            .filter(|(_, numbers)| numbers.is_none())
            .filter_map(|(texts, _)| texts.into_iter().next()??.parse().ok())
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let arguments = [by.into(), ids.into()];
        let rows = ours(|| {
            Ok(Spi::connect_mut(|client| {
                Ok::<_, SpiError>(client.update(sql, None, &arguments)?.len())
            })?)
        })?;
        marked += rows as i64;
        Ok(())
    })?;
    Ok(marked)
}

/// Rows that a run had created and that an undo has deleted: each by its key.
///
/// * `by`: the undo, with its own record of them.
///
/// Errors: those of SPI only.
pub fn mark_deleted(by: i64, run: i64, table: &str) -> Result<i64, Problem> {
    let sql = "UPDATE mend.ledger_changes AS c SET undone_by = $1
               FROM mend.ledger_changes AS gone
               WHERE gone.run_id = $1 AND gone.change = 'deleted' AND gone.table_name = $3
                 AND c.run_id = $2 AND c.change = 'created' AND c.table_name = $3 AND c.undone_by IS NULL AND c.row_key = gone.row_key";
    let arguments = [by.into(), run.into(), table.into()];
    ours(|| {
        Ok(Spi::connect_mut(|client| {
            Ok::<_, SpiError>(client.update(sql, None, &arguments)?.len() as i64)
        })?)
    })
}

/// Rows that an undo had deleted and that are there again.
///
/// * `by`: the run that made them, with its own record of them.
///
/// Errors: those of SPI only.
pub fn mark_made_again(by: i64, run: i64, table: &str) -> Result<i64, Problem> {
    // A row was deleted by the key by which others referenced it; it was made by its primary key.
    let sql = "UPDATE mend.ledger_changes AS c SET undone_by = $1
               FROM mend.ledger_changes AS made
               WHERE made.run_id = $1 AND made.change = 'created' AND made.table_name = $3
                 AND c.run_id = $2 AND c.change = 'deleted' AND c.table_name = $3 AND c.undone_by IS NULL
                 AND (SELECT pg_catalog.bool_and(c.row_values ->> k = made.new_values ->> k) FROM pg_catalog.jsonb_object_keys(made.row_key) AS k)";
    let arguments = [by.into(), run.into(), table.into()];
    ours(|| {
        Ok(Spi::connect_mut(|client| {
            Ok::<_, SpiError>(client.update(sql, None, &arguments)?.len() as i64)
        })?)
    })
}

/// Keeps what an undo wrote as changes of its own: the other way round.
///
/// Errors: those of SPI only.
pub fn keep_reversed(by: i64) -> Result<(), Problem> {
    let sql = "INSERT INTO mend.ledger_changes (run_id, change, table_name, row_key, old_values, new_values)
               SELECT $1, 'restored', c.table_name, c.row_key,
                      COALESCE(c.new_values, (SELECT pg_catalog.jsonb_object_agg(k, NULL) FROM pg_catalog.jsonb_object_keys(c.old_values) AS k)),
                      c.old_values
               FROM mend.ledger_changes AS c WHERE c.undone_by = $1 AND c.change IN ('replaced', 'nullified', 'restored') ORDER BY c.change_id";
    ours(|| {
        Ok(Spi::connect_mut(|client| {
            client.update(sql, None, &[by.into()]).map(|_| ())
        })?)
    })
}

/// Rows of a table were written under a transaction id.
///
/// * `run`: the run that wrote.
/// * `column`: the one that it filled.
/// * `runs`: all runs whose values these rows hold.
///
/// Errors: those of SPI only.
pub fn wrote(run: i64, table: u32, column: Option<i16>, transaction: u32, runs: &[i64]) -> Result<(), Problem> {
    let sql = "INSERT INTO mend.ledger_writes (run_id, table_oid, column_number, transaction, runs) VALUES ($1, $2, $5, $3::pg_catalog.xid8, $4)";
    let full = pg::full_transaction_id(transaction).to_string();
    let arguments = [
        run.into(),
        pg_sys::Oid::from(table).into(),
        full.into(),
        runs.to_vec().into(),
        column.into(),
    ];
    ours(|| {
        Ok(Spi::connect_mut(|client| {
            client.update(sql, None, &arguments).map(|_| ())
        })?)
    })
}

/// The column that a run filled: the oid of its table, and its number.
///
/// Errors: those of SPI only.
pub fn filled_column(run: i64) -> Result<Option<(u32, i16)>, Problem> {
    let sql = "SELECT table_oid, column_number FROM mend.ledger_writes WHERE run_id = $1 AND column_number IS NOT NULL LIMIT 1";
    ours(|| {
        Ok(Spi::connect(|client| {
            let found = client.select(sql, None, &[run.into()])?;
            if found.is_empty() {
                return Ok(None);
            }
            let (table, column) = found.first().get_two::<pg_sys::Oid, i16>()?;
            Ok::<_, SpiError>(table.map(|table| table.to_u32()).zip(column))
        })?)
    })
}

/// How many shares of a table are told apart when its rows are put back.
const MOST_SHARES: usize = 16;

/// The rows of a table that runs wrote and nobody has changed since, in shares: by the runs whose values they hold.
///
/// * `run`: only those that hold values of this one; `None`: the latest.
///
/// Errors: those of SPI only.
pub fn written_by(run: Option<i64>, table: u32) -> Result<Vec<Share>, Problem> {
    // An id is used again after 2^32 others.
    let sql = format!(
        "SELECT pg_catalog.array_to_string(w.runs, ','), pg_catalog.string_agg(w.transaction::pg_catalog.text, ',')
         FROM mend.ledger_writes AS w
         WHERE ($1 IS NULL OR w.runs @> ARRAY[$1]) AND w.table_oid = $2
           AND $3::pg_catalog.numeric - w.transaction::pg_catalog.text::pg_catalog.numeric < 4294967296
         GROUP BY w.runs ORDER BY pg_catalog.max(w.write_id) DESC{}",
        match run {
            Some(_) => String::new(),
            None => format!(" LIMIT {MOST_SHARES}"),
        }
    );
    let next = pg::next_full_transaction_id().to_string();
    let arguments = [run.into(), pg_sys::Oid::from(table).into(), next.into()];
    let rows = ours(|| {
        Ok(Spi::connect(|client| {
            let mut rows = vec![];
            for row in client.select(&sql, None, &arguments)? {
                rows.push((
                    row.get::<String>(1)?.unwrap_or_default(),
                    row.get::<String>(2)?.unwrap_or_default(),
                ));
            }
            Ok::<_, SpiError>(rows)
        })?)
    })?;
    let parsed = |(runs, ids): (String, String)| Share {
        runs: runs.split(',').filter_map(|run| run.parse().ok()).collect(),
        // Rows carry the lower half.
        ids: ids
            .split(',')
            .filter_map(|id| Some(id.parse::<u64>().ok()? as u32))
            .collect(),
    };
    Ok(rows.into_iter().map(parsed).collect())
}

/// Texts of the columns in [`KEPT`], and the numbers.
type Row = (Texts, Option<Vec<i64>>);

/// Runs a statement to its end, then hands its rows over in chunks.
fn in_chunks(statement: &Statement, mut take: impl FnMut(Vec<Row>) -> Result<(), Problem>) -> Result<(), Problem> {
    let returned = Returned::of(&statement.sql(), statement.parameters())?;
    loop {
        pgrx::check_for_interrupts!();
        let rows = returned.next(CHUNK)?;
        if rows.is_empty() {
            return Ok(());
        }
        let split = |mut row: Texts| {
            let numbers = row.pop().flatten();
            let parsed = |array: String| -> Vec<i64> {
                let numbers = array.trim_matches(['{', '}']).split(',');
                numbers.filter_map(|number| number.parse().ok()).collect()
            };
            (row, numbers.map(parsed))
        };
        take(rows.into_iter().map(split).collect())?;
    }
}
