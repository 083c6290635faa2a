//! How far a script got: each step compared with what is there.

use std::collections::HashMap;

use pgrx::prelude::*;

use super::actual::Actual;
use super::compare::{self, Entity};
use super::judge::{Judge, Verdict};
use super::world::{Claim, Id, Need, Told, World, class};
use crate::identifier::{Identifier, Literal};
use crate::pg::{Settings, subtransaction};
use crate::problem::Problem;
use crate::rule::typed;
use crate::run::settings;
use crate::script::Step;
use crate::script::ast::Kind;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is there, as written; running it again does no harm.
    Present,
    /// It is there, as written; running it again raises an error.
    WouldFail,
    /// It is not there.
    Missing,
    /// Something else is there.
    Differs,
    /// It is not there, and cannot be made: something that it needs is missing.
    Blocked,
    /// It writes data: the catalog does not tell.
    Data,
    /// What it does is not in the statement, or not compared.
    Opaque,
    /// It leaves nothing behind.
    Skipped,
}

impl State {
    /// As the result shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Present => "present",
            State::WouldFail => "would_fail",
            State::Missing => "missing",
            State::Differs => "differs",
            State::Blocked => "blocked",
            State::Data => "data",
            State::Opaque => "opaque",
            State::Skipped => "skipped",
        }
    }

    /// Its effect is there.
    pub fn is_done(self) -> bool {
        matches!(self, State::Present | State::WouldFail)
    }

    /// Its effect can be told from the catalog.
    pub fn is_judged(self) -> bool {
        !matches!(self, State::Data | State::Opaque | State::Skipped)
    }
}

/// What is said of one step.
#[derive(Debug, Clone)]
pub struct Line {
    /// From 1.
    pub step: i32,
    /// In the script.
    pub line: i32,
    /// The command.
    pub kind: String,
    /// What it is about.
    pub object: Option<String>,
    /// What became of it.
    pub state: State,
    /// Why.
    pub detail: Option<String>,
    /// Rows of the table that it makes or writes, now.
    pub rows: Option<i64>,
    /// What running it again raises.
    pub again: Option<&'static str>,
}

/// The last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// Nothing of it is there.
    NotStarted,
    /// Something is missing, or different.
    Partial,
    /// All of it is there.
    Complete,
    /// All of it is there, and running it again fails.
    CompleteFailsAgain,
    /// Nothing in it can be told from the catalog.
    Unknown,
}

impl Sum {
    /// As the result shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Sum::NotStarted => "not started",
            Sum::Partial => "partial",
            Sum::Complete => "complete",
            Sum::CompleteFailsAgain => "complete, fails again",
            Sum::Unknown => "unknown",
        }
    }
}

/// The whole answer.
pub struct Status<'a> {
    /// By step.
    pub lines: Vec<Line>,
    /// All in all.
    pub sum: Sum,
    /// In words, with the next call.
    pub said: String,
    /// For those who go on with it.
    pub judge: Judge<'a>,
}

/// Judges a script.
///
/// Errors: those of SPI.
pub fn status<'a>(steps: &[Step], world: &'a World, actual: &'a Actual) -> Result<Status<'a>, Problem> {
    let judge = Judge::new(world, actual);
    let mut lines: Vec<Line> = Vec::new();
    let mut names = Names::new(world, &judge);
    for (at, step) in steps.iter().enumerate() {
        pgrx::check_for_interrupts!();
        let told = &world.told[at];
        let (mut state, mut detail) = judged(&judge, told, at);
        let mut again = None;
        match state {
            State::Missing => {
                if let Some(why) = blocked(world, &judge, actual, told, at, &lines) {
                    (state, detail) = (State::Blocked, vec![why]);
                }
            }
            State::Present => {
                again = names.again(told, at);
                if let Some(code) = again {
                    state = State::WouldFail;
                    detail.insert(0, format!("as written; running it again raises {code}"));
                }
            }
            _ => {}
        }
        if state != State::WouldFail {
            names.follow(told, at);
        }
        if state.is_judged() && !told.not_compared.is_empty() {
            let mut not = told.not_compared.clone();
            not.dedup();
            detail.push(format!("not compared: {}", not.join(", ")));
        }
        if state == State::Data && step.data_lines > 0 {
            detail.push(format!("{} lines of data", step.data_lines));
        }
        let (object, rows) = about(world, &judge, actual, told)?;
        lines.push(Line {
            step: step.number,
            line: step.line,
            kind: step.kind.clone(),
            object,
            state,
            detail: (!detail.is_empty()).then(|| detail.join("; ")),
            rows,
            again,
        });
    }
    let (sum, said) = summed(&lines);
    Ok(Status {
        lines,
        sum,
        said,
        judge,
    })
}

/// What its claims come to.
fn judged(judge: &Judge, told: &Told, at: usize) -> (State, Vec<String>) {
    if let Some(what) = &told.opaque {
        return (State::Opaque, vec![what.clone()]);
    }
    if let Some(what) = &told.skipped {
        return (State::Skipped, vec![what.clone()]);
    }
    if told.is_data {
        return (
            State::Data,
            vec!["writes data: whether it ran is not in the catalog".into()],
        );
    }
    if told.claims.is_empty() {
        return (State::Opaque, vec![]);
    }
    let verdicts: Vec<Verdict> = told.claims.iter().map(|claim| judge.verdict(claim)).collect();
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
        for (claim, verdict) in told.claims.iter().zip(&verdicts) {
            if *verdict == Verdict::Missing {
                differences.push(judge.what_is_missing(claim));
            }
        }
    }
    differences.dedup();
    if !differences.is_empty() {
        if told.quiet {
            differences.push("IF NOT EXISTS or OR REPLACE: running it again says nothing of it".into());
        }
        return (State::Differs, differences);
    }
    match () {
        () if missing => (State::Missing, vec![]),
        () if present => (State::Present, vec![]),
        () if verdicts.contains(&Verdict::Either) => match judge.frontier.is_some_and(|frontier| at <= frontier) {
            true => (State::Present, vec!["superseded by a later step".into()]),
            false => (State::Missing, vec![]),
        },
        () => (State::Present, vec!["holds; whether it ran cannot be told".into()]),
    }
}

/// Why a missing step cannot be made.
fn blocked(world: &World, judge: &Judge, actual: &Actual, told: &Told, at: usize, lines: &[Line]) -> Option<String> {
    let made_by = |id: Id| world.objects[id].created.filter(|step| *step < at);
    // What an extension brings is not known before it is there.
    let extension_to_come = || {
        world.objects.iter().enumerate().any(|(id, object)| {
            object.kind == Kind::Extension && object.created.is_some_and(|step| step < at) && judge.found(id).is_none()
        })
    };
    let behind = |what: String, step: usize| match lines[step].state {
        State::Blocked => Some(format!(
            "needs {what}, which step {} makes; that is blocked",
            lines[step].step
        )),
        _ => None,
    };
    for need in &told.needs {
        let why = match need {
            Need::Object(id) => {
                let object = &world.objects[*id];
                let shown = format!("{} {}", object.kind.as_str(), judge.shown(*id));
                match (judge.found(*id), made_by(*id)) {
                    (Some(_), _) => None,
                    (None, Some(step)) => behind(shown, step),
                    (None, None) if object.created == Some(at) => None,
                    (None, None) => match object.on {
                        // Of a table that is not there, or that has columns which the script does not name, nothing is known.
                        Some(on) if world.objects[on].open || judge.found(on).is_none() && made_by(on).is_none() => {
                            None
                        }
                        _ => Some(format!(
                            "needs {shown}, which neither exists nor is made earlier in the script"
                        )),
                    },
                }
            }
            Need::Type(name) => match compare::type_of(name, &told.path) {
                Ok(Some(_)) => None,
                Err(problem) => Some(problem.message),
                Ok(None) => {
                    let bare = name.text.rsplit('.').next().unwrap_or_default().trim_end_matches("[]");
                    let made = (0..world.objects.len()).find(|id| {
                        let object = &world.objects[*id];
                        matches!(object.kind, Kind::Type | Kind::Domain | Kind::Table)
                            && object.names.iter().any(|(_, _, name)| name == bare)
                            && made_by(*id).is_some()
                    });
                    match made {
                        Some(id) => made_by(id).and_then(|step| behind(format!("type {}", name.text), step)),
                        None if extension_to_come() => None,
                        None => Some(format!(
                            "needs type {}, which neither exists nor is made earlier in the script",
                            name.text
                        )),
                    }
                }
            },
            Need::Function(name) => {
                let there = actual.functions.iter().any(|f| {
                    f.name == name.name
                        && match &name.schema {
                            Some(schema) => *schema == f.schema,
                            None => told.path.contains(&f.schema),
                        }
                });
                let made = (0..world.objects.len()).find(|id| {
                    let object = &world.objects[*id];
                    object.kind == Kind::Function && object.name() == name.name && made_by(*id).is_some()
                });
                match made {
                    _ if there || of_postgres(&name.name) => None,
                    Some(id) => made_by(id).and_then(|step| behind(format!("function {}", name.name), step)),
                    None if extension_to_come() => None,
                    None => Some(format!(
                        "needs function {}, which neither exists nor is made earlier in the script",
                        name.name
                    )),
                }
            }
            Need::Schema(name) => {
                let made = (0..world.objects.len()).find(|id| {
                    world.objects[*id].kind == Kind::Schema
                        && world.objects[*id].name() == name
                        && made_by(*id).is_some()
                });
                match made {
                    _ if actual.has_schema(name) => None,
                    Some(id) => made_by(id).and_then(|step| behind(format!("schema {name}"), step)),
                    None => Some(format!(
                        "needs schema {name}, which neither exists nor is made earlier in the script"
                    )),
                }
            }
        };
        if why.is_some() {
            return why;
        }
    }
    None
}

fn of_postgres(function: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = $1 AND pronamespace = 'pg_catalog'::regnamespace)";
    let found = Spi::connect(|client| client.select(sql, None, &[function.into()])?.first().get_one::<bool>());
    found.ok().flatten().unwrap_or(false)
}

/// What the step is about, and how many rows that has.
fn about(world: &World, judge: &Judge, actual: &Actual, told: &Told) -> Result<(Option<String>, Option<i64>), Problem> {
    let principal = told.claims.first().map(|claim| match claim {
        Claim::Created(id) | Claim::Dropped(id) | Claim::Named(id, _) | Claim::Said(id, _) => *id,
    });
    let principal = principal.or(told.data.first().copied());
    let Some(id) = principal else { return Ok((None, None)) };
    let countable = told.is_data || world.objects[id].kind == Kind::Table;
    let rows = match judge.found(id) {
        Some(Entity::Relation(relation)) if countable => rows_of(relation)?,
        _ => None,
    };
    let _ = actual;
    Ok((Some(judge.shown(id)), rows))
}

/// All rows of a table; `None` where the caller may not see all of them.
///
/// Errors: those of SPI, but for missing rights.
pub fn rows_of(relation: &super::actual::Relation) -> Result<Option<i64>, Problem> {
    if !relation.may_select || !matches!(relation.kind, 'r' | 'p') {
        return Ok(None);
    }
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM {}.{}",
        Identifier::new(&relation.schema),
        Identifier::new(&relation.name)
    );
    let counted = subtransaction(std::panic::AssertUnwindSafe(|| {
        let _settings = settings(false);
        let _policies = Settings::push(&[("row_security", "off")]);
        Ok(Spi::connect(|client| {
            client.select(&sql, None, &[])?.first().get_one::<i64>()
        })?)
    }));
    match counted {
        Err(problem) if problem.code == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => Ok(None),
        counted => counted,
    }
}

/// What is called how while the script would run once more.
struct Names<'w, 'a> {
    world: &'w World,
    judge: &'w Judge<'a>,
    /// By class, table, schema and name: is it there by then?
    there: HashMap<(u8, Option<Id>, String, String), bool>,
}

impl<'w, 'a> Names<'w, 'a> {
    fn new(world: &'w World, judge: &'w Judge<'a>) -> Self {
        Names {
            world,
            judge,
            there: HashMap::new(),
        }
    }

    fn key(&self, id: Id, name: usize) -> (u8, Option<Id>, String, String) {
        let object = &self.world.objects[id];
        let on = object.on.filter(|_| object.kind != Kind::Index);
        let (_, schema, name) = &object.names[name];
        (class(object.kind), on, schema.clone(), name.clone())
    }

    /// The name of an object at a step.
    fn name_at(&self, id: Id, at: usize) -> usize {
        let names = &self.world.objects[id].names;
        names.iter().rposition(|(since, ..)| *since < at).unwrap_or(0)
    }

    fn is_there(&self, id: Id, name: usize) -> bool {
        match self.there.get(&self.key(id, name)) {
            Some(there) => *there,
            None => self.judge.there(id, name),
        }
    }

    /// What the step raises, if it is run once more.
    fn again(&self, told: &Told, at: usize) -> Option<&'static str> {
        let (code, id) = told.again?;
        if told.quiet {
            return None;
        }
        let fails = told.claims.iter().any(|claim| match claim {
            Claim::Created(one) if *one == id => self.is_there(id, self.name_at(id, at)),
            Claim::Dropped(one) if *one == id => !self.is_there(id, self.name_at(id, at)),
            Claim::Named(one, name) if *one == id => !self.is_there(id, name.saturating_sub(1)),
            Claim::Said(one, _) if *one == id => code == "55000",
            _ => false,
        });
        fails.then_some(code)
    }

    /// What is there after it.
    fn follow(&mut self, told: &Told, at: usize) {
        for claim in &told.claims {
            match claim {
                Claim::Created(id) => {
                    let key = self.key(*id, self.name_at(*id, at));
                    self.there.insert(key, true);
                }
                Claim::Dropped(id) => {
                    let key = self.key(*id, self.name_at(*id, at));
                    self.there.insert(key, false);
                }
                Claim::Named(id, name) => {
                    let (old, new) = (self.key(*id, name.saturating_sub(1)), self.key(*id, *name));
                    self.there.insert(old, false);
                    self.there.insert(new, true);
                }
                Claim::Said(..) => {}
            }
        }
    }
}

fn summed(lines: &[Line]) -> (Sum, String) {
    let judged: Vec<&Line> = lines.iter().filter(|line| line.state.is_judged()).collect();
    let done = judged.iter().filter(|line| line.state.is_done()).count();
    let count = |state: State| lines.iter().filter(|line| line.state == state).count();
    let again: Vec<&&Line> = judged.iter().filter(|line| line.again.is_some()).collect();
    let first = |state: State| lines.iter().find(|line| line.state == state);
    let mut said = vec![format!("{done} of {} steps are there", judged.len())];
    for (state, what) in [(State::Data, "write data"), (State::Opaque, "cannot be judged")] {
        if count(state) > 0 {
            said.push(format!("{} {what}", count(state)));
        }
    }
    let place = |line: &Line| match &line.object {
        Some(object) => format!("step {} (line {}, {} {object})", line.step, line.line, line.kind),
        None => format!("step {} (line {}, {})", line.step, line.line, line.kind),
    };
    let sum = match (judged.len(), done) {
        (0, _) => Sum::Unknown,
        (_, 0) if count(State::Differs) == 0 => Sum::NotStarted,
        (all, done) if all == done && again.is_empty() => Sum::Complete,
        (all, done) if all == done => Sum::CompleteFailsAgain,
        _ => Sum::Partial,
    };
    if let Some(line) = first(State::Blocked) {
        said.push(format!(
            "{} blocked, the first is {}: {}",
            count(State::Blocked),
            place(line),
            line.detail.clone().unwrap_or_default()
        ));
    }
    if let Some(line) = first(State::Differs) {
        said.push(format!(
            "{} differ, the first is {}",
            count(State::Differs),
            place(line)
        ));
    }
    if let (Sum::Partial, Some(line)) = (sum, first(State::Missing)) {
        said.push(format!(
            "{} missing, the first is {}",
            count(State::Missing),
            place(line)
        ));
    }
    if let Some(line) = again.first() {
        said.push(format!(
            "run again, it stops at {} with {}",
            place(line),
            line.again.unwrap_or_default()
        ));
    }
    said.push(match sum {
        Sum::Complete => "nothing is to be done".into(),
        Sum::CompleteFailsAgain => "nothing is to be done: do not run it again".into(),
        Sum::NotStarted if count(State::Blocked) > 0 => "make what is missing first, then migration_rehearse(script)".into(),
        Sum::NotStarted => "next: migration_rehearse(script) shows what it would do".into(),
        Sum::Partial => "next: migration_rehearse(script) shows what running it now would do, migration_reset(script) what can be taken back".into(),
        Sum::Unknown => "next: migration_rehearse(script) shows what it would do".into(),
    });
    (sum, said.join("; "))
}

/// A name for people: with the schema only where it does not go without.
pub fn shown_name(schema: &str, name: &str, path: &[String]) -> String {
    match schema.is_empty() || path.iter().any(|s| s == schema) {
        true => typed(name),
        false => format!("{}.{}", typed(schema), typed(name)),
    }
}

impl Judge<'_> {
    /// An object for people.
    pub fn shown(&self, id: Id) -> String {
        let object = &self.world.objects[id];
        let (_, schema, name) = object.names.last().cloned().unwrap_or_default();
        let name = match (self.found(id), name.is_empty()) {
            (Some(Entity::Constraint(_, constraint)), true) => constraint.name.clone(),
            (Some(Entity::Relation(relation)), true) => relation.name.clone(),
            _ => name,
        };
        let own = match (name.is_empty(), object.kind) {
            (true, kind) => format!("an unnamed {}", kind.as_str()),
            (false, Kind::Label) => Literal::new(&name).to_string(),
            (false, Kind::Grant) => name.clone(),
            (false, _) => shown_name(&schema, &name, &self.actual.path),
        };
        let of = object.on.map(|on| self.shown(on)).unwrap_or_default();
        match object.kind {
            Kind::Column => format!("{of}.{own}"),
            Kind::Constraint | Kind::Trigger | Kind::Policy => format!("{own} on {of}"),
            Kind::Label => format!("{own} of {of}"),
            Kind::Grant => match own.split_once(" to ") {
                Some((privilege, role)) => format!("{privilege} on {of} to {}", typed(role)),
                None => own,
            },
            Kind::Function => match &object.arguments {
                Some(arguments) => {
                    let types: Vec<&str> = arguments.iter().map(|t| t.text.as_str()).collect();
                    format!("{own}({})", types.join(", "))
                }
                None => own,
            },
            Kind::Index if name.is_empty() => format!("{own} on {of}"),
            _ => own,
        }
    }

    /// A claim that does not hold, in words.
    pub fn what_is_missing(&self, claim: &Claim) -> String {
        match claim {
            Claim::Created(id) => format!(
                "{} {} is missing",
                self.world.objects[*id].kind.as_str(),
                self.shown(*id)
            ),
            Claim::Dropped(id) => format!(
                "{} {} is still there",
                self.world.objects[*id].kind.as_str(),
                self.shown(*id)
            ),
            Claim::Named(id, name) => {
                let (_, _, name) = &self.world.objects[*id].names[*name];
                format!("{} is not called {}", self.shown(*id), typed(name))
            }
            Claim::Said(id, said) => {
                let what = self.world.objects[*id].said[*said].1.slot();
                format!("{what} of {} is another", self.shown(*id))
            }
        }
    }
}
