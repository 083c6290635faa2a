//! Taking back what a run changed, where nobody has changed it since: one way for the runs of all calls.
//!
//! ```text
//! which run      one of the caller's own
//! values         values that are to be what they were: filled, replaced, nullified
//! created        new rows that are to go, where nothing refers to them
//! deleted        rows that an undo has deleted
//! dropped_rows   rows that went with their tables, dropped_values: values that went with their columns
//! ```
//!
//! How the rows are found: values that were replaced or nullified were kept by the key of their row; what was NULL before needs no keeping:
//! rows that were filled or created still carry the id of the transaction that wrote them, or somebody has changed them since.

mod created;
mod deleted;
mod dropped_rows;
mod dropped_values;
mod recorded;
mod restored;
mod values;

pub use dropped_rows::restore as restore_reset;
pub use recorded::Undone;

use pgrx::prelude::*;
use serde_json::Value;

use crate::pg::{self};
use crate::plan::Mode;
use crate::plan::kept::Change;
use crate::problem::Problem;
use crate::run::{Session, attempts, may_write};

use created::Created;
use deleted::Deleted;
use recorded::Recorded;
use values::{Values, What};

/// Takes back what the run `id` changed, or counts what that would do.
///
/// Errors: 42704 if there is no such run of the caller's, or it changed nothing; 42P01, 42703 if a table or column is gone; 42501, 25006,
/// 25000, 27000, 40001, and whatever triggers raise: everything is left as it is then.
pub fn undo(session: &Session, id: i64, mode: Mode) -> Result<Vec<Undone>, Problem> {
    if mode.is_real() {
        may_write()?;
    }
    let recorded = Recorded::find(session, id)?;
    let parts = Part::all(session, &recorded)?;
    let dropped =
        !recorded.tables(Change::RowDropped)?.is_empty() || !recorded.tables(Change::ValueDropped)?.is_empty();
    if parts.is_empty() && !dropped {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("run {id} changed nothing that could be taken back"),
        )
        .detail(format!("it is a run of {}, on {}", recorded.operation, recorded.table))
        .hint("SELECT run_id, operation, table_name, filled FROM mend.runs ORDER BY run_id DESC shows your runs"));
    }
    for part in &parts {
        part.may(mode)?;
    }
    not_as_somebody_else(session, &parts)?;
    let all = || {
        let mut undone = vec![];
        for part in &parts {
            undone.push(match mode.is_real() {
                false => part.count(&parts)?,
                true => part.take_back(&parts)?,
            });
        }
        if dropped {
            let restored = dropped_rows::restore(session, id, mode, false)?;
            undone.extend(restored.into_iter().map(|of| Undone {
                table: of.table,
                change: match of.column {
                    Some(_) => Change::ValueDropped.as_str().into(),
                    None => Change::RowDropped.as_str().into(),
                },
                columns: of.column,
                total: of.total,
                undone: of.restored,
                reasons: of.reasons,
                run_id: of.run_id,
                note: None,
            }));
        }
        Ok(undone)
    };
    match mode.is_real() {
        false => all(),
        true => attempts(&[], |_| all()),
    }
}

/// What of a repair was put back, or would be: the same of a run of `repair_orphans` that nullified.
///
/// Errors: as [`undo`]; 0A000 if the run nullified nothing.
pub fn restore_repaired(session: &Session, id: i64, mode: Mode) -> Result<Undone, Problem> {
    let recorded = Recorded::find(session, id)?;
    let action = recorded.rule.get("action").and_then(Value::as_str).unwrap_or_default();
    if recorded.operation != "repair_orphans" || action == "create_parent" {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("run {id} nullified nothing"),
        )
        .detail("only what repair_orphans nullified or quarantined can be put back by this call")
        .hint(format!("SELECT * FROM undo_run({id}) takes back what any run did")));
    }
    if recorded.tables(Change::Nullified)?.is_empty() {
        // A repair that found nothing to do.
        let asked = recorded
            .rule
            .get("columns")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let asked: Vec<&str> = asked.filter_map(Value::as_str).collect();
        let table = session.catalog.resolve_table(&recorded.table)?;
        return Ok(Undone {
            table: session.catalog.display(table),
            columns: Some(crate::validate::reference::shown(&asked)),
            change: Change::Nullified.as_str().into(),
            ..Undone::default()
        });
    }
    let mut undone = undo(session, id, mode)?;
    Ok(undone.swap_remove(0))
}

/// Whether a new row is referred to is asked together with what the linked table would refuse: both with the caller's rights, or not at all.
///
/// Errors: 42501 where the latter is code of somebody whom the caller does not trust.
fn not_as_somebody_else(session: &Session, parts: &[Part]) -> Result<(), Problem> {
    let created = parts.iter().any(|part| matches!(part, Part::Created(_)));
    let foreign = parts.iter().find_map(|part| match part {
        Part::Values(values) if values.asks_as_owner() => Some(values.table()),
        _ => None,
    });
    match foreign.filter(|_| created) {
        None => Ok(()),
        Some(table) => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!(
                "{} has code of its owner, which is not run with your rights",
                session.catalog.display(table)
            ),
        )
        .detail("one statement would have to check that code as the owner, and the references to the new rows with your rights; that is not possible")
        .hint("drop or disable that CHECK, or take the rows back by hand: they are in mend.changes")),
    }
}

/// One kind of change to one table.
enum Part<'a> {
    Values(Box<Values<'a>>),
    Created(Created<'a>),
    Deleted(Box<Deleted<'a>>),
}

impl<'a> Part<'a> {
    /// What a run did, in the order in which it is taken back: rows that were linked to new parents come before those.
    fn all(session: &'a Session, recorded: &Recorded) -> Result<Vec<Part<'a>>, Problem> {
        let mut parts = vec![];
        for table in recorded.tables(Change::Deleted)? {
            parts.push(Part::Deleted(Box::new(Deleted::find(session, recorded, &table)?)));
        }
        for change in [Change::Nullified, Change::Replaced, Change::Restored] {
            for table in recorded.tables(change)? {
                let what = What::Kept(change);
                parts.push(Part::Values(Box::new(Values::find(session, recorded, &table, what)?)));
            }
        }
        let fills = matches!(recorded.operation.as_str(), "backfill" | "backfill_parents");
        if fills && recorded.filled > 0 {
            let what = What::Filled;
            parts.push(Part::Values(Box::new(Values::find(
                session,
                recorded,
                &recorded.table,
                what,
            )?)));
        }
        for table in recorded.tables(Change::Created)? {
            parts.push(Part::Created(Created::find(session, recorded, &table)?));
        }
        Ok(parts)
    }

    fn may(&self, mode: Mode) -> Result<(), Problem> {
        match self {
            Part::Values(values) => values.may(mode),
            Part::Created(created) => created.may(mode),
            Part::Deleted(deleted) => deleted.may(mode),
        }
    }

    /// * `all`: the parts of the same run: what one leaves behind another may need.
    fn count(&self, all: &[Part]) -> Result<Undone, Problem> {
        match self {
            Part::Values(values) => values.count(),
            Part::Created(created) => created.count(&unlinked(all)),
            Part::Deleted(deleted) => deleted.count(),
        }
    }

    fn take_back(&self, all: &[Part]) -> Result<Undone, Problem> {
        // With an id of its own, each statement sees what is committed by then.
        pg::current_transaction_id();
        match self {
            Part::Values(values) => values.take_back(),
            // What was linked is not any more.
            Part::Created(created) => created.take_back(&unlinked(all)),
            Part::Deleted(deleted) => deleted.take_back(),
        }
    }
}

/// Of a dry run: which rows of which table would be NULL by then, as a condition over `t`.
fn unlinked(parts: &[Part]) -> Vec<(u32, i16, String)> {
    let mut found = vec![];
    for part in parts {
        if let Part::Values(values) = part {
            found.extend(values.unlinked());
        }
    }
    found
}
