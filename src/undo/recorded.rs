//! A run that is to be taken back, and how one part of that is a run of its own.

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiError;
use serde_json::{Value, json};

use crate::catalog::Table;
use crate::identifier::Identifier;
use crate::pg::{Jsonb, Settings};
use crate::plan::expression::indent;
use crate::plan::kept::Change;
use crate::plan::program::{Program, Step, Surroundings};
use crate::plan::{Reason, Statement, Tally};
use crate::problem::Problem;
use crate::run::interpret;
use crate::run::record::{self, Record};
use crate::run::{Session, query};

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
pub(super) struct Recorded {
    pub(super) id: i64,
    pub(super) operation: String,
    /// With its schema, as recorded.
    pub(super) table: String,
    /// As recorded.
    pub(super) column: String,
    pub(super) filled: i64,
    pub(super) rule: Value,
}

impl Recorded {
    /// Finds it.
    ///
    /// Errors: 42704 if the caller has no such run, 42501 if it is another role's.
    pub(super) fn find(session: &Session, id: i64) -> Result<Recorded, Problem> {
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
    pub(super) fn tables(&self, change: Change) -> Result<Vec<String>, Problem> {
        let sql = "SELECT table_name FROM mend.changes WHERE run_id = $1 AND change = $2 GROUP BY table_name ORDER BY min(change_id)";
        texts(sql, &[self.id.into(), change.as_str().into()])
    }

    /// Names of columns that are in what was kept of a table.
    ///
    /// * `kept`: the column of `mend.changes`, of type jsonb.
    pub(super) fn names_in(&self, kept: &str, change: Change, table: &Table) -> Result<Vec<String>, Problem> {
        let sql = format!(
            "SELECT DISTINCT k FROM mend.changes r, pg_catalog.jsonb_object_keys(r.{kept}) k
             WHERE r.run_id = $1 AND r.change = $2 AND r.table_name = $3 ORDER BY k"
        );
        let arguments = [self.id.into(), change.as_str().into(), record::qualified(table).into()];
        texts(&sql, &arguments)
    }
}

/// The first column of what a statement returns.
pub(super) fn texts(sql: &str, arguments: &[DatumWithOid]) -> Result<Vec<String>, Problem> {
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
pub(super) fn outcomes(judged: &str) -> Result<Tally, Problem> {
    let sql = format!(
        "SELECT outcome, pg_catalog.count(*)\nFROM (\n{}\n) AS judged",
        indent(judged, 2)
    );
    query::tally(&Statement::new(sql).ending("GROUP BY outcome"))
}

pub(super) fn column_is_gone(session: &Session, table: &Table, name: &str, hint: &str) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!(
            "column {name} of {} does not exist any more",
            session.catalog.display(table)
        ),
    )
    .hint(hint)
}

/// Changes are found by keys that are computed from what was kept: of how many there are, Postgres knows nothing, and a nested loop over them
/// takes their square.
pub(super) fn by_hash() -> Settings {
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
pub(super) fn carry_out<'p>(
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
pub(super) const PUT_BACK: &str = "put back";
