//! Taking back what a run changed, where nobody has changed it since: one way for the runs of all calls.
//!
//! ```text
//! which run      one of the caller's own
//! values         values that are to be what they were: filled, replaced, nullified
//! created        new rows that are to go, where nothing refers to them
//! deleted        rows that an undo has deleted
//! ```
//! Rows and values that went with their tables and columns are put back by `migration::reset`.
//!
//! How the rows are found: values that were replaced or nullified were kept by the key of their row; what was NULL before needs no keeping:
//! rows that were filled or created still carry the id of the transaction that wrote them, or somebody has changed them since.

mod created;
mod deleted;
mod values;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiError;
use serde_json::{Value, json};

use crate::catalog::Table;
use crate::identifier::Identifier;
use crate::migration::reset;
use crate::pg::{self, Jsonb, Settings};
use crate::plan::expression::indent;
use crate::plan::kept::Change;
use crate::plan::program::{Program, Step, Surroundings};
use crate::plan::{Mode, Reason, Statement, Tally};
use crate::problem::Problem;
use crate::run::interpret;
use crate::run::record::{self, Record};
use crate::run::{Session, attempts, may_write, query};

use created::Created;
use deleted::Deleted;
use values::{Values, What};

/// What of a run was taken back, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undone {
    /// As displayed.
    pub table: String,
    /// The columns whose values were put back; `None`: whole rows.
    pub columns: Option<String>,
    /// What the run had done to them: `filled`, or as in `mend.changes.change`.
    pub change: String,
    /// Rows that it had changed.
    pub total: i64,
    /// Rows that are as they were before it.
    pub undone: i64,
    /// Rows left as they are, by reason.
    pub reasons: Tally,
    /// `mend.runs.run_id` of a real undo.
    pub run_id: Option<i64>,
    /// What else there is to know.
    pub note: Option<String>,
}

/// A run that is to be taken back.
struct Recorded {
    id: i64,
    operation: String,
    /// With its schema, as recorded.
    table: String,
    /// As recorded.
    column: String,
    filled: i64,
    rule: Value,
}

impl Recorded {
    /// Finds it.
    ///
    /// Errors: 42704 if the caller has no such run, 42501 if it is another role's.
    fn find(session: &Session, id: i64) -> Result<Recorded, Problem> {
        let sql = "SELECT operation, table_name, column_name, run_by::pg_catalog.text, filled, rule FROM mend.runs WHERE run_id = $1";
        let found = Spi::connect(|client| {
            let rows = client.select(sql, None, &[id.into()])?;
            if rows.is_empty() {
                return Ok(None);
            }
            let row = rows.first();
            let text = |column: usize| Ok::<_, SpiError>(row.get::<String>(column)?.unwrap_or_default());
            let texts = (text(1)?, text(2)?, text(3)?, text(4)?);
            Ok::<_, SpiError>(Some((texts, row.get::<i64>(5)?.unwrap_or(0), row.get::<Jsonb>(6)?)))
        })?;
        let Some(((operation, table, column, run_by), filled, rule)) = found else {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("there is no run {id} of yours"),
            )
            .hint("SELECT run_id, operation, table_name FROM mend.runs ORDER BY run_id DESC shows your runs"));
        };
        if run_by != session.role {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("run {id} was made by {run_by}"),
            )
            .detail("what a role has recorded is not written with the rights of another")
            .hint(format!(
                "put it back as that role: SET ROLE {}",
                Identifier::new(&run_by)
            )));
        }
        let rule = rule.map(|rule| rule.value("rule")).transpose()?.unwrap_or(Value::Null);
        Ok(Recorded {
            id,
            operation,
            table,
            column,
            filled,
            rule,
        })
    }

    /// Tables of which it changed rows in this way.
    fn tables(&self, change: Change) -> Result<Vec<String>, Problem> {
        let sql = "SELECT table_name FROM mend.changes WHERE run_id = $1 AND change = $2 GROUP BY table_name ORDER BY min(change_id)";
        texts(sql, &[self.id.into(), change.as_str().into()])
    }

    /// Names of columns that are in what was kept of a table.
    ///
    /// * `kept`: the column of `mend.changes`, of type jsonb.
    fn names_in(&self, kept: &str, change: Change, table: &Table) -> Result<Vec<String>, Problem> {
        let sql = format!(
            "SELECT DISTINCT k FROM mend.changes r, pg_catalog.jsonb_object_keys(r.{kept}) k
             WHERE r.run_id = $1 AND r.change = $2 AND r.table_name = $3 ORDER BY k"
        );
        let arguments = [self.id.into(), change.as_str().into(), record::qualified(table).into()];
        texts(&sql, &arguments)
    }
}

/// The first column of what a statement returns.
fn texts(sql: &str, arguments: &[DatumWithOid]) -> Result<Vec<String>, Problem> {
    Ok(Spi::connect(|client| {
        let mut texts = vec![];
        for row in client.select(sql, None, arguments)? {
            texts.extend(row.get::<String>(1)?);
        }
        Ok::<_, SpiError>(texts)
    })?)
}

/// Rows per reason.
///
/// * `judged`: a SELECT with the reason of each row as `outcome`.
fn outcomes(judged: &str) -> Result<Tally, Problem> {
    let sql = format!(
        "SELECT outcome, pg_catalog.count(*)\nFROM (\n{}\n) AS judged",
        indent(judged, 2)
    );
    query::tally(&Statement::new(sql).ending("GROUP BY outcome"))
}

fn column_is_gone(session: &Session, table: &Table, name: &str, hint: &str) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!(
            "column {name} of {} does not exist any more",
            session.catalog.display(table)
        ),
    )
    .hint(hint)
}

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
            let restored = reset::restore(session, id, mode, false)?;
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
        .detail("what it would refuse cannot be asked as the owner together with what refers to the new rows")
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

/// Changes are found by keys that are computed from what was kept: of how many there are, Postgres knows nothing, and a nested loop over them
/// takes their square.
fn by_hash() -> Settings {
    Settings::push(&[("enable_nestloop", "off")])
}

/// Takes back one part of a run as a run of its own.
///
/// * `id`: the run that is undone.
/// * `undone`: as it was counted.
/// * `statement`: as a person reviews it.
/// * `steps`: one of them is a write called [`PUT_BACK`].
///
/// Errors: those of the steps.
fn carry_out<'p>(
    session: &Session,
    id: i64,
    table: &'p Table,
    undone: Undone,
    statement: String,
    surroundings: Surroundings,
    steps: Vec<Step<'p>>,
) -> Result<Undone, Problem> {
    let program = Program {
        operation: "undo_run",
        object: record::qualified(table),
        lock: Some(table),
        surroundings: Surroundings {
            joins_by_hash: true,
            ..surroundings
        },
        steps,
    };
    let (run, mut undone) = interpret::run(session, program, |done| {
        let rows = done.progress.written(PUT_BACK);
        let mut undone = undone;
        // What somebody changed between the count and the write has stayed as it is.
        undone.reasons.add(Reason::ChangedSince, (undone.undone - rows).max(0));
        let left = undone.reasons.total();
        undone.undone = rows;
        undone.total = rows + left;
        let record = Record {
            table: record::qualified(table),
            column: undone.columns.clone().unwrap_or_default(),
            rule: json!({ "run_id": id, "change": undone.change }),
            statement,
            counts: (0, rows, undone.reasons.to_json(), left),
            note: undone.note.clone(),
            fingerprint: String::new(),
        };
        Ok((undone, record))
    })?;
    undone.run_id = Some(run);
    Ok(undone)
}

/// The name of the write of an undo.
const PUT_BACK: &str = "put back";
