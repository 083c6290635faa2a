//! Puts back the rows and values that a reset copied, once their tables and columns are there again.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::{SpiError, quote_identifier};
use serde_json::json;

use super::dropped_values as values;
use super::restored::{Restored, advance_sequences};
use crate::identifier::Literal;
use crate::pg::{Watch, subtransaction};
use crate::plan::kept::keeping_each;
use crate::plan::program::{Keep, Program, Progress, Reading, Step, Surroundings, Verdict, Verify, Write};
use crate::plan::{Mode, Reason, Statement};
use crate::problem::Problem;
use crate::run::current_columns::columns_now;
use crate::run::in_one_time_zone;
use crate::run::interpret;
use crate::run::record::Record;
use crate::run::{Session, may_write, settings};

/// Puts back what the run kept.
///
/// * `overwrite`: values of columns go back whatever the column is now.
///
/// Errors: 42704 if the caller has no such run, or nothing of it is kept; 25006; whatever constraints and triggers raise, and then nothing is
/// put back.
pub fn restore(session: &Session, id: i64, mode: Mode, overwrite: bool) -> Result<Vec<Restored>, Problem> {
    if mode.is_real() {
        may_write()?;
    }
    let kept = kept(id)?;
    let columns = values::kept(id)?;
    if kept.is_empty() && columns.is_empty() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("run {id} has no saved rows left to restore"),
        )
        .detail("it is no run of migration_reset with include, not yours, or all of its rows are back")
        .hint("SELECT run_id, table_name, count(*) FROM mend.reset_rows WHERE restored_by IS NULL GROUP BY 1, 2; of columns: mend.reset_values"));
    }
    let all = || {
        let mut all: Vec<Restored> = Vec::new();
        // Values that rows reference come before the rows, others behind them: they may reference the rows.
        let tables: Vec<String> = kept.iter().map(|(table, ..)| table.clone()).collect();
        let (first, last): (Vec<_>, Vec<_>) = columns
            .into_iter()
            .partition(|group| values::is_referenced(session, group, &tables));
        for group in first {
            all.push(values::put_back(session, id, group, overwrite, mode)?);
        }
        for (table, columns, rows) in kept {
            all.push(match mode.is_real() {
                false => counted(session, table, &columns, rows)?,
                true => put_back(session, id, table, &columns, rows)?,
            });
        }
        for group in last {
            all.push(values::put_back(session, id, group, overwrite, mode)?);
        }
        Ok(all)
    };
    match mode.is_real() {
        false => all(),
        true => subtransaction(AssertUnwindSafe(all)),
    }
}

type Kept = (String, Vec<String>, i64);

fn kept(id: i64) -> Result<Vec<Kept>, Problem> {
    let _settings = settings(false);
    let sql =
        "SELECT table_name, columns, pg_catalog.count(*) FROM mend.reset_rows WHERE run_id = $1 AND restored_by IS NULL
               AND run_by = CURRENT_USER GROUP BY table_name, columns ORDER BY pg_catalog.min(change_id)";
    Ok(Spi::connect(|client| {
        let mut found = Vec::new();
        for row in client.select(sql, None, &[id.into()])? {
            let columns = row.get::<Vec<Option<String>>>(2)?.unwrap_or_default();
            found.push((
                row.get::<String>(1)?.unwrap_or_default(),
                columns.into_iter().flatten().collect(),
                row.get::<i64>(3)?.unwrap_or(0),
            ));
        }
        // What was dropped last was made first.
        found.reverse();
        Ok::<_, SpiError>(found)
    })?)
}

fn counted(session: &Session, table: String, columns: &[String], rows: i64) -> Result<Restored, Problem> {
    let is_table = session
        .catalog
        .resolve_table(&table)
        .is_ok_and(|found| found.is_table());
    let reason = match columns_now(&table)?.filter(|_| is_table) {
        None => Some(Reason::TableMissing),
        Some((now, _)) if now != columns => Some(Reason::ColumnsDiffer),
        Some(_) => None,
    };
    Ok(Restored {
        table,
        column: None,
        total: rows,
        restored: if reason.is_none() { rows } else { 0 },
        reasons: reason.map(|reason| (reason, rows)).into_iter().collect(),
        run_id: None,
    })
}

fn put_back(session: &Session, id: i64, table: String, columns: &[String], rows: i64) -> Result<Restored, Problem> {
    let mut restored = counted(session, table.clone(), columns, rows)?;
    if restored.restored == 0 {
        return Ok(restored);
    }
    let target = session.catalog.resolve_table(&table)?;
    session.hold([target.oid])?;
    let Some((_, written)) = columns_now(&table)? else {
        return Ok(restored);
    };
    let names: Vec<&str> = written.iter().map(String::as_str).collect();
    let list = names.iter().map(quote_identifier).collect::<Vec<_>>().join(", ");
    let values: Vec<String> = names.iter().map(|name| value(session, &table, name)).collect();
    let insert = Statement::new(format!(
        "INSERT INTO {table} ({list})\nOVERRIDING SYSTEM VALUE\nSELECT {}\nFROM (\n  \
         SELECT kept.row_values, pg_catalog.jsonb_populate_record(NULL::{table}, kept.row_values) AS full_row\n  \
         FROM mend.reset_rows AS kept WHERE {}\n  OFFSET 0\n) AS kept",
        values.join(", "),
        of_run(id, &table)
    ));
    let back = Statement::new("SELECT change_id AS row_key FROM mend.reset_rows").filter(of_run(id, &table));
    let back = keeping_each(back, &["row_key"]);
    let judge = |progress: &Progress| match progress.last() {
        inserted if inserted == rows => Verdict::Proved,
        inserted => Verdict::Wrong(
            Problem::new(
                PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
                format!("{inserted} of {rows} rows of {table} were put back"),
            )
            .detail("a trigger returns NULL; nothing was put back")
            .hint("ALTER TABLE ... DISABLE TRIGGER ... for the run, in the same transaction"),
        ),
    };
    let review = insert.for_review();
    let program = Program {
        operation: "restore_reset",
        object: table.clone(),
        lock: Some(target),
        surroundings: Surroundings::default(),
        steps: vec![
            Step::Write(Write::once("put back", target, Keep::Nothing, insert)),
            Step::Verify(Verify::new("inserted", |_| Reading::Nothing, judge)),
            Step::Write(Write::once("back", target, Keep::Undone, back)),
        ],
    };
    let _texts = in_one_time_zone();
    let _pause = Watch::pause();
    let (run, ()) = interpret::run(session, program, |_| {
        advance_sequences(&table, &written)?;
        let record = Record {
            table: table.clone(),
            column: String::new(),
            rule: json!({ "run_id": id }),
            statement: review,
            counts: (0, rows, json!({}), 0),
            note: None,
            fingerprint: columns.join(", "),
        };
        Ok(((), record))
    })?;
    restored.run_id = Some(run);
    Ok(restored)
}

/// Rows of the run that are not put back yet, as a condition on `mend.reset_rows`.
fn of_run(id: i64, table: &str) -> String {
    format!(
        "run_id = {id} AND table_name = {} AND restored_by IS NULL AND run_by = CURRENT_USER",
        Literal::new(table)
    )
}

/// The value of a column, by the input function of its type; a text would become a JSON string.
fn value(session: &Session, table: &str, name: &str) -> String {
    let column = session.catalog.resolve_table(table).ok();
    let column = column.and_then(|table| table.column_named(name));
    let base = column.and_then(|column| session.catalog.base_type(column.type_oid, -1));
    match base {
        Some((base, _)) if base.is_json() => {
            format!("(kept.row_values ->> {})::{}", Literal::new(name), base.sql())
        }
        _ => format!("(kept.full_row).{}", quote_identifier(name)),
    }
}
