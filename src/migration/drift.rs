//! Several scripts in order: which are in, which are half in, and where they contradict each other.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use serde_json::Value;

use super::actual::ActualSchema;
use super::expected::{Claim, ExpectedSchema, Id, Property};
use super::status::{Line, status};
use super::summary::{ScriptState, summarize};
use super::{Compared, names_in, path_of};
use crate::problem::Problem;
use crate::run::Session;
use crate::script::ast::{Action, ColumnDefinition, Kind, Rule};
use crate::script::{self, ScriptStatement};

/// What is said of one script, or of two.
pub struct Drift {
    /// In order, from 1; `None`: not of one script.
    pub ordinal: Option<i32>,
    /// Of the script.
    pub name: Option<String>,
    /// That of `migration_status`, or `contradiction`.
    pub state: String,
    /// Steps that are there.
    pub done: Option<i64>,
    /// Steps that can be judged.
    pub judged: Option<i64>,
    /// In words.
    pub detail: String,
}

/// Names and texts, in order: an object (by name) or an array of objects with `name` and `script`.
///
/// Errors: 22023 for anything else.
pub fn scripts(given: &Value) -> Result<Vec<(String, String)>, Problem> {
    let wrong = || {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "scripts must be names with their texts",
        )
        .hint(r#"an object, in the order of its names: '{"001_users.sql": "CREATE TABLE ...", "002_orders.sql": "..."}'; or an array of {"name": ..., "script": ...}, in its own"#)
    };
    let mut all: Vec<(String, String)> = match given {
        Value::Object(all) => {
            let mut all: Vec<(String, String)> = all
                .iter()
                .map(|(name, text)| Some((name.clone(), text.as_str()?.to_string())))
                .collect::<Option<_>>()
                .ok_or_else(wrong)?;
            all.sort();
            all
        }
        Value::Array(all) => all
            .iter()
            .map(|one| {
                Some((
                    one.get("name")?.as_str()?.to_string(),
                    one.get("script")?.as_str()?.to_string(),
                ))
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    all.retain(|(name, _)| !name.is_empty());
    match all.is_empty() {
        true => Err(wrong()),
        false => Ok(all),
    }
}

/// Judges several scripts as one history.
///
/// Errors: those of `script::read`, with the script's name; those of SPI.
pub fn drift(session: &Session, scripts: &[(String, String)]) -> Result<Vec<Drift>, Problem> {
    let mut steps: Vec<ScriptStatement> = Vec::new();
    let mut of: Vec<usize> = Vec::new();
    for (at, (name, text)) in scripts.iter().enumerate() {
        let read = script::read(text).map_err(|problem| Problem {
            message: format!("{name}: {}", problem.message),
            ..problem
        })?;
        // Each is run in a session of its own.
        steps.push(ScriptStatement {
            number: 0,
            line: 0,
            kind: "script".into(),
            text: String::new(),
            actions: vec![Action::SearchPath(None)],
            data_lines: 0,
        });
        of.push(at);
        of.extend(std::iter::repeat_n(at, read.len()));
        steps.extend(read);
    }
    let path = path_of(session);
    let actual = ActualSchema::load(&names_in(&steps, &path), path)?;
    let expected = ExpectedSchema::of(&steps, &actual);
    let compared = Compared {
        steps,
        expected,
        actual,
    };
    let status = status(&compared.steps, &compared.expected, &compared.actual, &of, false)?;
    let mut rows = Vec::new();
    let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (at, (name, _)) in scripts.iter().enumerate() {
        let own: Vec<Line> = status
            .lines
            .iter()
            .zip(&of)
            .filter(|(line, script)| **script == at && line.step > 0)
            .map(|(line, _)| line.clone())
            .collect();
        let (sum, summary) = summarize(&own);
        *states.entry(short(sum)).or_default() += 1;
        let judged = own.iter().filter(|line| line.state.is_judged());
        rows.push(Drift {
            ordinal: Some(at as i32 + 1),
            name: Some(name.clone()),
            state: sum.as_str().into(),
            done: Some(judged.clone().filter(|line| line.state.is_done()).count() as i64),
            judged: Some(judged.count() as i64),
            detail: summary,
        });
    }
    let found = contradictions(&compared, scripts, &of);
    let contradict = found.len();
    rows.extend(found);
    let counts: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let half = rows.iter().find(|row| row.state == ScriptState::Partial.as_str());
    let mut summary = vec![format!("{} scripts: {}", scripts.len(), counts.join(", "))];
    if contradict > 0 {
        summary.push(format!("{contradict} contradictions"));
    }
    if let Some(half) = half {
        let name = half.name.clone().unwrap_or_default();
        summary.push(format!(
            "the first that is half in is {name}: SELECT * FROM migration_status(its text)"
        ));
    }
    rows.push(Drift {
        ordinal: None,
        name: None,
        state: "summary".into(),
        done: None,
        judged: None,
        detail: summary.join("; "),
    });
    Ok(rows)
}

fn short(sum: ScriptState) -> &'static str {
    match sum {
        ScriptState::Complete | ScriptState::CompleteFailsAgain => "in",
        ScriptState::Partial => "half in",
        ScriptState::NotStarted => "not in",
        ScriptState::Unknown => "cannot be judged",
    }
}

/// A step that makes a table, and with which columns.
type Made<'a> = (usize, &'a Vec<ColumnDefinition>);

/// Tables that are made twice, otherwise; references between columns of different types.
fn contradictions(compared: &Compared, scripts: &[(String, String)], of: &[usize]) -> Vec<Drift> {
    let place = |at: usize| format!("{} (line {})", scripts[of[at]].0, compared.steps[at].line);
    let mut details = made_twice(compared, &place);
    details.extend(types_that_differ(&compared.expected, &place));
    let row = |detail: String| Drift {
        ordinal: None,
        name: None,
        state: "contradiction".into(),
        done: None,
        judged: None,
        detail,
    };
    details.into_iter().map(row).collect()
}

/// Tables that two steps make, while both are there.
///
/// * `place`: a step in words.
fn made_twice(compared: &Compared, place: &impl Fn(usize) -> String) -> Vec<String> {
    let expected = &compared.expected;
    let mut found = Vec::new();
    let mut made: BTreeMap<(&str, &str), Vec<Made>> = BTreeMap::new();
    for (at, step) in compared.steps.iter().enumerate() {
        for action in &step.actions {
            if let (Action::CreateTable { columns, .. }, Some(Claim::Created(id))) =
                (action, expected.effects[at].claims.first())
            {
                let (_, schema, name) = &expected.objects[*id].names[0];
                made.entry((schema, name)).or_default().push((at, columns));
            }
        }
    }
    for ((_, table), all) in &made {
        for pair in all.windows(2) {
            let ((first, before), (second, after)) = (pair[0], pair[1]);
            // Between the two it was dropped, or is called otherwise.
            if let Some(Claim::Created(id)) = expected.effects[first].claims.first() {
                let object = &expected.objects[*id];
                let renamed = object
                    .names
                    .iter()
                    .any(|(since, ..)| (first + 1..=second).contains(since));
                if renamed || object.dropped.is_some_and(|dropped| dropped <= second) {
                    continue;
                }
            }
            found.push(format!(
                "table {table} is made by {} and by {}: {}",
                place(first),
                place(second),
                columns_that_differ(before, after)
            ));
        }
    }
    found
}

fn columns_that_differ(before: &[ColumnDefinition], after: &[ColumnDefinition]) -> String {
    let mut differences = Vec::new();
    for column in before {
        match after.iter().find(|c| c.name == column.name) {
            None => differences.push(format!("{} only in the former", column.name)),
            Some(other) => {
                if other.type_name.text != column.type_name.text {
                    differences.push(format!(
                        "{} is {} there and {} here",
                        column.name, column.type_name.text, other.type_name.text
                    ));
                }
                if other.not_null != column.not_null {
                    differences.push(format!("{} is NOT NULL in one of them only", column.name));
                }
            }
        }
    }
    for column in after.iter().filter(|c| !before.iter().any(|b| b.name == c.name)) {
        differences.push(format!("{} only in the latter", column.name));
    }
    match differences.is_empty() {
        true => "with the same columns".to_string(),
        false => differences.join(", "),
    }
}

/// Foreign keys between columns that scripts give different types.
///
/// * `place`: a step in words.
fn types_that_differ(expected: &ExpectedSchema, place: &impl Fn(usize) -> String) -> Vec<String> {
    let type_at = |table: Id, name: &str, at: usize| -> Option<String> {
        let mut all = expected.objects.iter();
        let column =
            all.find(|o| o.kind == Kind::Column && o.on == Some(table) && o.names.iter().any(|(_, _, n)| n == name))?;
        column
            .properties
            .iter()
            .rev()
            .filter(|(since, _)| *since <= at)
            .find_map(|(_, summary)| match summary {
                Property::Type(name, _) => Some(name.text.clone()),
                _ => None,
            })
    };
    let mut found = Vec::new();
    for object in expected.objects.iter().filter(|o| o.kind == Kind::Constraint) {
        for (at, summary) in &object.properties {
            let (Property::Constraint(written, Some(parent)), Some(table)) = (summary, object.on) else {
                continue;
            };
            let Rule::Foreign(key) = &written.rule else {
                continue;
            };
            for (own, there) in written.columns.iter().zip(&key.parent_columns) {
                if let (Some(a), Some(b)) = (type_at(table, own, *at), type_at(*parent, there, usize::MAX))
                    && plain(&a) != plain(&b)
                {
                    found.push(format!(
                        "{}.{own} is {a} and references {}.{there}, which is {b}: {}",
                        expected.objects[table].name(),
                        expected.objects[*parent].name(),
                        place(*at)
                    ));
                }
            }
        }
    }
    found
}

/// Without the schema of Postgres and without a length: those reference each other.
fn plain(name: &str) -> String {
    let bare = name.trim_start_matches("pg_catalog.");
    match bare {
        "varchar" | "bpchar" | "text" => "text".into(),
        "int2" | "int4" | "int8" => "integer".into(),
        other => other.into(),
    }
}
