//! Drops what the plan says, with the rows that are lost on purpose kept.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use serde_json::json;

use super::loss::Copied;
use super::plan::{Drop, Plan, plan};
use super::{ResetObject, ResetRequest, values};
use crate::migration::compared;
use crate::migration::shown::qualified;
use crate::pg::{self, Settings, Watch, subtransaction};
use crate::plan::Statement;
use crate::plan::kept::Change;
use crate::plan::kept::text_of;
use crate::plan::kept::{json_object, keeping_each};
use crate::plan::program::{Keep, Program, Progress, Reading, Step, Surroundings, Verdict, Verify, Write};
use crate::problem::Problem;
use crate::run::current_columns::columns_now;
use crate::run::in_one_time_zone;
use crate::run::interpret;
use crate::run::record::Record;
use crate::run::{Session, may_write, settings};

/// What was done, or would be.
pub struct Reset {
    /// What is dropped, in order, then what is kept.
    pub taken: Vec<ResetObject>,
    /// Objects that are dropped.
    pub dropped: i64,
    /// Objects that are kept.
    pub kept: i64,
    /// Rows and values that are copied.
    pub copied: i64,
    /// `mend.runs.run_id` of a real run.
    pub run_id: Option<i64>,
}

/// Takes back what the script made, or says what that would do.
///
/// Errors: those of `script::read` and `plan`; 25006 in a read-only transaction; 25000 in one that is not READ COMMITTED; 55P03 where a lock is not had in time; 40001 where what is
/// there changed meanwhile; 42501 without the right to drop. Nothing is dropped then.
pub fn reset(request: &ResetRequest) -> Result<Reset, Problem> {
    if request.mode.is_real() {
        may_write()?;
    }
    let session = Session::begin()?;
    let first = {
        let compared = compared(&session, &request.script)?;
        plan(&compared, &request.include, false)?
    };
    if !request.mode.is_real() {
        return Ok(into_result(first, None));
    }
    // A subtransaction: what was dropped before something fails is there again.
    let (plan, run) = subtransaction(AssertUnwindSafe(|| real(&session, request, &first)))?;
    Ok(into_result(plan, run))
}

fn real(session: &Session, request: &ResetRequest, first: &Plan) -> Result<(Plan, Option<i64>), Problem> {
    let _timeout = Settings::push(&[("lock_timeout", &request.lock_timeout)]);
    for drop in &first.dropped {
        if let Some((schema, name)) = &drop.table {
            run(&format!(
                "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
                qualified(schema, name)
            ))?;
        }
    }
    // With everything locked: what is there now is what is dropped. With an id of its own, each statement sees what is committed by then.
    pg::current_transaction_id();
    let compared = compared(session, &request.script)?;
    let plan = plan(&compared, &request.include, true)?;
    let statements =
        |plan: &Plan| -> Vec<Option<String>> { plan.dropped.iter().map(|d| d.taken.statement.clone()).collect() };
    if statements(&plan) != statements(first) {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "the schema changed before the tables were locked",
        )
        .detail("nothing was dropped")
        .hint("look again: SELECT * FROM migration_reset(script)"));
    }
    if plan.dropped.is_empty() {
        return Ok((plan, None));
    }
    let table = plan
        .dropped
        .first()
        .map(|drop| drop.taken.object.clone())
        .unwrap_or_default();
    let mut steps = vec![];
    for drop in &plan.dropped {
        steps.extend(copying(session, drop)?);
    }
    let mut done: Vec<&String> = Vec::new();
    for statement in plan.dropped.iter().filter_map(|drop| drop.taken.statement.as_ref()) {
        if !done.contains(&statement) {
            steps.push(Step::Define(Statement::new(statement)));
            done.push(statement);
        }
    }
    let program = Program {
        operation: "migration_reset",
        object: table.clone(),
        lock: None,
        surroundings: Surroundings::default(),
        steps,
    };
    let record = Record {
        table,
        column: String::new(),
        rule: json!({ "script": request.script, "include": request.include }),
        statement: done.into_iter().cloned().collect::<Vec<_>>().join(";\n"),
        counts: (
            0,
            plan.dropped.len() as i64,
            kept_objects(&plan),
            plan.kept.len() as i64,
        ),
        note: None,
        fingerprint: request.script.clone(),
    };
    let (id, ()) = {
        let _texts = in_one_time_zone();
        interpret::run(session, program, |_| Ok(((), record)))?
    };
    Ok((plan, Some(id)))
}

fn kept_objects(plan: &Plan) -> serde_json::Value {
    match plan.kept.len() {
        0 => json!({}),
        kept => json!({ "kept": kept }),
    }
}

/// What is copied before something is dropped: as much as was counted, or nothing is dropped.
fn copying<'p>(session: &'p Session, drop: &'p Drop) -> Result<Vec<Step<'p>>, Problem> {
    let mut steps = match &drop.copied {
        Copied::Nothing => return Ok(vec![]),
        Copied::Rows => rows(session, drop)?,
        Copied::Values {
            table,
            column,
            type_name,
        } => values::copying(session, *table, column, type_name),
    };
    let counted = drop.taken.rows.unwrap_or_default();
    let copied = if steps.is_empty() { Some(0) } else { None };
    let judge = move |progress: &Progress| match copied.unwrap_or(progress.last()) {
        copied if copied == counted => Verdict::Proved,
        copied => Verdict::Wrong(
            Problem::new(
                PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("of {} {copied} were copied, {counted} were counted", drop.taken.object),
            )
            .detail("nothing was dropped")
            .hint("run it again"),
        ),
    };
    steps.push(Step::Verify(Verify::new("copied", |_| Reading::Nothing, judge)));
    Ok(steps)
}

/// Rows as text, column by column, by the output functions of their types: what is read back is what was written.
fn rows<'p>(session: &'p Session, drop: &Drop) -> Result<Vec<Step<'p>>, Problem> {
    let Some((schema, name)) = &drop.table else {
        return Ok(vec![]);
    };
    let table = qualified(schema, name);
    let columns = columns_now(&table)?.map(|(columns, _)| columns).unwrap_or_default();
    let Some(found) = session.catalog.table_in(schema, name) else {
        return Ok(vec![]);
    };
    // It is locked, and was looked at again since.
    pg::may_read([found.oid]);
    let texts = found.columns.iter().map(|c| {
        let value = format!("t.{}", c.sql());
        let text = format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN {} END", text_of(&value));
        (c, text)
    });
    let kept = Statement::new(format!(
        "SELECT {} AS row_values FROM ONLY {table} AS t",
        json_object(texts)
    ));
    let statement = keeping_each(kept, &["row_values"]);
    let keep = Keep::Changes {
        change: Change::RowDropped,
        columns: Some(columns),
    };
    Ok(vec![Step::Write(Write::once("copy", found, keep, statement))])
}

fn run(statement: &str) -> Result<(), Problem> {
    let _settings = settings(false);
    let _pause = Watch::pause();
    Ok(Spi::connect_mut(|client| {
        client.update(statement, None, &[]).map(|_| ())
    })?)
}

fn into_result(plan: Plan, run_id: Option<i64>) -> Reset {
    let (dropped, kept) = (plan.dropped.len() as i64, plan.kept.len() as i64);
    let copied = plan
        .dropped
        .iter()
        .filter(|d| d.copied != Copied::Nothing)
        .filter_map(|d| d.taken.rows)
        .sum();
    let mut taken: Vec<ResetObject> = plan.dropped.into_iter().map(|drop| drop.taken).collect();
    taken.extend(plan.kept);
    Reset {
        taken,
        dropped,
        kept,
        copied,
        run_id,
    }
}
