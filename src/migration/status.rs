//! How far a script got: each step compared with what is there.

use std::collections::{BTreeMap, BTreeSet};

use pgrx::prelude::*;

use super::actual::ActualSchema;
use super::compare::{self, Entity};
use super::expected::{Claim, ExpectedSchema, Id, Need, Object, StatementEffects};
use super::judge::{Judge, Verdict};
pub use super::line::{Line, State};
use super::rerun::RerunState;
use super::summary::{ScriptState, summarize};
use crate::identifier::Identifier;
use crate::pg::ast::TypeName;
use crate::pg::{self, Settings, subtransaction};
use crate::problem::Problem;
use crate::run::hold::{Found, hold};
use crate::run::settings;
use crate::script::ScriptStatement;
use crate::script::ast::{Kind, Name};

const UNKNOWN: &str = "looks the same whether it was run or not";
const BY_ORDER: &str = "leaves nothing to see by itself: judged by the steps around it";

/// The whole answer.
pub struct Status<'a> {
    /// By step.
    pub lines: Vec<Line>,
    /// All in all.
    pub sum: ScriptState,
    /// In words, with the next call.
    pub summary: String,
    /// For those who go on with it.
    pub judge: Judge<'a>,
}

/// Judges a script.
///
/// * `files`: the script of each step, where there are several, each run as a whole; else empty.
/// * `with_rows`: count the rows of its tables, for those who show them; each table is read as a whole.
///
/// Errors: those of SPI.
pub fn status<'a>(
    steps: &[ScriptStatement],
    expected: &'a ExpectedSchema,
    actual: &'a ActualSchema,
    files: &[usize],
    with_rows: bool,
) -> Result<Status<'a>, Problem> {
    let judge = Judge::new(expected, actual, files);
    let mut lines: Vec<Line> = Vec::new();
    let mut names = RerunState::new(expected, &judge, actual)?;
    let states = states(&judge, expected, files);
    for (at, (step, (mut state, mut detail))) in steps.iter().zip(states).enumerate() {
        pgrx::check_for_interrupts!();
        let effects = &expected.effects[at];
        if state == State::Missing
            && let Some(why) = (MissingStep {
                expected,
                judge: &judge,
                actual,
                effects,
                at,
                lines: &lines,
            })
            .blocked()
        {
            // Whether a DO block makes it is known when it has run.
            let opaque = lines.iter().find(|line| line.state == State::Opaque);
            (state, detail) = match opaque {
                Some(line) => (
                    State::Missing,
                    vec![format!("{why}; unless step {} does, which cannot be judged", line.step)],
                ),
                None => (State::Blocked, vec![why]),
            };
        }
        // In order: what an earlier statement would make again is there for a later one.
        let raised = names.rerun_error(effects, at);
        let again = raised.filter(|_| matches!(state, State::Present | State::Unknown));
        match again {
            Some(code) if state == State::Present => {
                state = State::WouldFail;
                detail.insert(0, format!("as written; running it again raises {code}"));
            }
            Some(code) => detail.push(format!("running it now raises {code}")),
            None => {}
        }
        if (state.is_judged() || state == State::Opaque) && !effects.not_compared.is_empty() {
            let mut not = effects.not_compared.clone();
            not.dedup();
            detail.push(format!("not compared: {}", not.join(", ")));
        }
        if state == State::Data && step.data_lines > 0 {
            detail.push(format!("{} lines of data", step.data_lines));
        }
        let (object, rows) = about(expected, &judge, effects, at, with_rows)?;
        lines.push(Line {
            step: step.number,
            line: step.line,
            kind: step.kind.clone(),
            object,
            state,
            detail: (!detail.is_empty()).then(|| detail.join("; ")),
            rows,
            rerun_sqlstate: again,
        });
    }
    let (sum, summary) = summarize(&lines);
    Ok(Status {
        lines,
        sum,
        summary,
        judge,
    })
}

/// What a step leaves to see by itself.
enum Evidence {
    /// This is its state.
    State(State, Vec<String>),
    /// All of it looks the same whether it was run or not.
    None,
}

/// What its claims come to.
fn evidence(judge: &Judge, effects: &StatementEffects, at: usize) -> Evidence {
    if let Some(what) = &effects.opaque {
        return Evidence::State(State::Opaque, vec![what.clone()]);
    }
    if let Some(what) = &effects.skipped {
        return Evidence::State(State::Skipped, vec![what.clone()]);
    }
    if effects.is_data {
        return Evidence::State(
            State::Data,
            vec!["writes data: whether it ran is not in the catalog".into()],
        );
    }
    if effects.claims.is_empty() {
        return Evidence::State(State::Opaque, vec![]);
    }
    let claims = match effects.claims.first() {
        // What it is made of says nothing of what is there instead of it.
        Some(Claim::Created(id)) if judge.is_displaced(*id) => &effects.claims[..1],
        _ => &effects.claims[..],
    };
    let verdicts: Vec<Verdict> = claims.iter().map(|claim| judge.verdict(at, claim)).collect();
    let mut differences: Vec<String> = verdicts
        .iter()
        .filter_map(|verdict| match verdict {
            Verdict::Differs(what) => Some(what.clone()),
            _ => None,
        })
        .collect();
    let present = verdicts.contains(&Verdict::Present);
    let missing = verdicts.contains(&Verdict::Missing);
    if present && missing {
        for (claim, verdict) in effects.claims.iter().zip(&verdicts) {
            // Of what is not there, nothing else needs to be said.
            let gone = matches!(claim, Claim::Property(id, _) if judge.found(*id).is_none());
            if *verdict == Verdict::Missing && !gone {
                differences.push(judge.what_is_missing(claim, at));
            }
        }
    }
    differences.dedup();
    if !differences.is_empty() {
        if effects.quiet {
            differences.push("has IF NOT EXISTS or OR REPLACE: running the statement again would not raise an error for this difference".into());
        }
        return Evidence::State(State::Differs, differences);
    }
    match () {
        () if missing => Evidence::State(State::Missing, vec![]),
        () if present => Evidence::State(State::Present, vec![]),
        () if verdicts.contains(&Verdict::Open) => Evidence::State(State::Unknown, vec![UNKNOWN.into()]),
        () => Evidence::None,
    }
}

/// The state of each step: those that leave nothing to see by themselves are where the others are.
///
/// * `files`: the script of each step, where there are several, each run as a whole; else empty.
fn states(judge: &Judge, expected: &ExpectedSchema, files: &[usize]) -> Vec<(State, Vec<String>)> {
    let all: Vec<Evidence> = expected
        .effects
        .iter()
        .enumerate()
        .map(|(at, effects)| evidence(judge, effects, at))
        .collect();
    // By script: what is seen of it.
    let mut seen: BTreeMap<usize, BTreeSet<&'static str>> = BTreeMap::new();
    for (file, evidence) in files.iter().zip(&all) {
        if let Evidence::State(state, _) = evidence
            && matches!(state, State::Present | State::Differs | State::Missing | State::Unknown)
        {
            seen.entry(*file).or_default().insert(state.as_str());
        }
    }
    let only = |at: usize, states: &[State]| {
        let seen = files.get(at).and_then(|file| seen.get(file));
        seen.is_some_and(|seen| seen.iter().all(|one| states.iter().any(|state| state.as_str() == *one)))
    };
    let by_order = |at: usize| match () {
        () if only(at, &[State::Present, State::Differs]) => State::Present,
        () if only(at, &[State::Missing]) => State::Missing,
        () if only(at, &[State::Unknown]) => State::Unknown,
        () if at < judge.prefix.least => State::Present,
        () if at >= judge.prefix.most => State::Missing,
        () => State::Unknown,
    };
    all.into_iter()
        .enumerate()
        .map(|(at, evidence)| match evidence {
            Evidence::State(state, detail) => (state, detail),
            Evidence::None => match by_order(at) {
                State::Unknown => (State::Unknown, vec![UNKNOWN.into()]),
                state => (state, vec![BY_ORDER.into()]),
            },
        })
        .collect()
}

/// A missing step, and what is known when its turn comes.
struct MissingStep<'w, 'a> {
    expected: &'w ExpectedSchema,
    judge: &'w Judge<'a>,
    actual: &'w ActualSchema,
    effects: &'w StatementEffects,
    at: usize,
    /// Of the steps before it.
    lines: &'w [Line],
}

impl MissingStep<'_, '_> {
    /// Why it cannot be made.
    fn blocked(&self) -> Option<String> {
        self.effects.needs.iter().find_map(|need| match need {
            Need::Object(id) => self.lacks_object(*id),
            Need::Type(name) => self.lacks_type(name),
            Need::Function(name) => self.lacks_function(name),
            Need::Schema(name) => self.lacks_schema(name),
        })
    }

    fn made_by(&self, id: Id) -> Option<usize> {
        self.expected.objects[id].created.filter(|step| *step < self.at)
    }

    /// The first object made before this step of which this holds.
    fn made(&self, fits: impl Fn(&Object) -> bool) -> Option<usize> {
        let all = self
            .expected
            .objects
            .iter()
            .enumerate()
            .filter(|(_, object)| fits(object));
        all.filter_map(|(id, _)| self.made_by(id)).next()
    }

    /// What an extension brings is not known before it is there.
    fn extension_to_come(&self) -> bool {
        self.expected.objects.iter().enumerate().any(|(id, object)| {
            object.kind == Kind::Extension && self.made_by(id).is_some() && self.judge.found(id).is_none()
        })
    }

    fn behind(&self, what: String, step: usize) -> Option<String> {
        let line = &self.lines[step];
        (line.state == State::Blocked).then(|| format!("needs {what}, which step {} makes; that is blocked", line.step))
    }

    fn lacks(&self, what: String) -> Option<String> {
        Some(format!(
            "needs {what}, which neither exists nor is made earlier in the script"
        ))
    }

    fn lacks_object(&self, id: Id) -> Option<String> {
        let object = &self.expected.objects[id];
        let shown = format!("{} {}", object.kind.as_str(), self.judge.shown(id, self.at));
        match (self.judge.found(id), self.made_by(id)) {
            (Some(_), _) => None,
            (None, Some(step)) => self.behind(shown, step),
            (None, None) if object.created == Some(self.at) => None,
            (None, None) => match object.on {
                // Of a table that is not there, or that has columns which the script does not name, nothing is known.
                Some(on) if self.expected.objects[on].open => None,
                Some(on) if self.judge.found(on).is_none() && self.made_by(on).is_none() => None,
                _ => self.lacks(shown),
            },
        }
    }

    fn lacks_type(&self, name: &TypeName) -> Option<String> {
        // The type of a column that is made meanwhile.
        if name.text.contains("%TYPE") {
            return None;
        }
        match compare::type_of(name, &self.effects.path) {
            Ok(Some(_)) => None,
            Err(problem) => Some(problem.message),
            Ok(None) => {
                let bare = name.text.rsplit('.').next().unwrap_or_default().trim_end_matches("[]");
                let made = self.made(|object| {
                    matches!(object.kind, Kind::Type | Kind::Domain | Kind::Table)
                        && object.names.iter().any(|(_, _, name)| name == bare)
                });
                match made {
                    Some(step) => self.behind(format!("type {}", name.text), step),
                    None if self.extension_to_come() => None,
                    None => self.lacks(format!("type {}", name.text)),
                }
            }
        }
    }

    fn lacks_function(&self, name: &Name) -> Option<String> {
        let there = self.actual.functions.iter().any(|f| {
            f.name == name.name
                && match &name.schema {
                    Some(schema) => *schema == f.schema,
                    None => self.effects.path.contains(&f.schema),
                }
        });
        if there || of_postgres(&name.name) {
            return None;
        }
        match self.made(|object| object.kind == Kind::Function && object.name() == name.name) {
            Some(step) => self.behind(format!("function {}", name.name), step),
            None if self.extension_to_come() => None,
            None => self.lacks(format!("function {}", name.name)),
        }
    }

    fn lacks_schema(&self, name: &str) -> Option<String> {
        if self.actual.has_schema(name) {
            return None;
        }
        let made = self.made(|object| object.kind == Kind::Schema && object.names.iter().any(|(_, _, n)| n == name));
        match made {
            Some(step) => self.behind(format!("schema {name}"), step),
            None => self.lacks(format!("schema {name}")),
        }
    }
}

fn of_postgres(function: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = $1 AND pronamespace = 'pg_catalog'::regnamespace)";
    let found = Spi::connect(|client| client.select(sql, None, &[function.into()])?.first().get_one::<bool>());
    found.ok().flatten().unwrap_or(false)
}

/// What the step is about, and how many rows that has.
fn about(
    expected: &ExpectedSchema,
    judge: &Judge,
    effects: &StatementEffects,
    at: usize,
    with_rows: bool,
) -> Result<(Option<String>, Option<i64>), Problem> {
    let principal = effects.claims.first().map(Claim::object);
    let principal = principal.or(effects.data.first().copied());
    let Some(id) = principal else { return Ok((None, None)) };
    let countable = with_rows && (effects.is_data || expected.objects[id].kind == Kind::Table);
    let rows = match judge.found(id) {
        Some(Entity::Relation(relation)) if countable => rows_of(relation, false)?,
        _ => None,
    };
    Ok((Some(judge.shown(id, at)), rows))
}

/// All rows of a table; `None` where the caller may not see all of them.
///
/// * `fresh`: as of now, not as of when the call began; the transaction must be able to write.
///
/// Errors: those of SPI, but for missing rights.
pub fn rows_of(relation: &super::actual::Relation, fresh: bool) -> Result<Option<i64>, Problem> {
    if !relation.may_select || !matches!(relation.kind, 'r' | 'p') {
        return Ok(None);
    }
    let found = Found::named(relation.oid, &relation.schema, &relation.name, relation.kind);
    if hold(&[found]).is_err() {
        return Ok(None);
    }
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM {} {}.{}",
        // Rows of tables that inherit from it are theirs.
        if relation.kind == 'r' { "ONLY" } else { "" },
        Identifier::new(&relation.schema),
        Identifier::new(&relation.name)
    );
    counted(&sql, fresh)
}

/// The number that a query counts; `None` where the caller may not see all rows.
///
/// * `fresh`: as in [`rows_of`].
///
/// Errors: those of SPI, but for missing rights.
pub fn counted(sql: &str, fresh: bool) -> Result<Option<i64>, Problem> {
    let counted = subtransaction(std::panic::AssertUnwindSafe(|| {
        if fresh {
            // With an id of its own, a statement sees what is committed by then.
            pg::current_transaction_id();
        }
        let _settings = settings(false);
        let _policies = Settings::push(&[("row_security", "off")]);
        Ok(Spi::connect(|client| {
            client.select(sql, None, &[])?.first().get_one::<i64>()
        })?)
    }));
    match counted {
        Err(problem) if problem.code == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => Ok(None),
        counted => counted,
    }
}
