//! All in all: the last row.

use super::line::{Line, State};

/// The last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptState {
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

impl ScriptState {
    /// As the result shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            ScriptState::NotStarted => "not started",
            ScriptState::Partial => "partial",
            ScriptState::Complete => "complete",
            ScriptState::CompleteFailsAgain => "complete, fails again",
            ScriptState::Unknown => "unknown",
        }
    }
}

/// The sum of all lines, and what it means, with the next call.
pub fn summarize(lines: &[Line]) -> (ScriptState, String) {
    let judged: Vec<&Line> = lines.iter().filter(|line| line.state.is_judged()).collect();
    let done = judged.iter().filter(|line| line.state.is_done()).count();
    let count = |state: State| lines.iter().filter(|line| line.state == state).count();
    let again: Vec<&&Line> = judged.iter().filter(|line| line.rerun_sqlstate.is_some()).collect();
    let first = |state: State| lines.iter().find(|line| line.state == state);
    let mut summary = vec![format!("{done} of {} steps are there", judged.len())];
    for (state, what) in [
        (State::Data, "write data"),
        (State::Opaque, "cannot be judged"),
        (State::Unknown, "leave nothing to see"),
    ] {
        if count(state) > 0 {
            summary.push(format!("{} {what}", count(state)));
        }
    }
    let place = |line: &Line| match &line.object {
        Some(object) => format!("step {} (line {}, {} {object})", line.step, line.line, line.kind),
        None => format!("step {} (line {}, {})", line.step, line.line, line.kind),
    };
    let sum = match (judged.len(), done) {
        (0, _) => ScriptState::Unknown,
        (_, 0) if count(State::Differs) == 0 => ScriptState::NotStarted,
        (all, done) if all == done && again.is_empty() => ScriptState::Complete,
        (all, done) if all == done => ScriptState::CompleteFailsAgain,
        _ => ScriptState::Partial,
    };
    if let Some(line) = first(State::Blocked) {
        summary.push(format!(
            "{} blocked, the first is {}: {}",
            count(State::Blocked),
            place(line),
            line.detail.clone().unwrap_or_default()
        ));
    }
    if let Some(line) = first(State::Differs) {
        summary.push(format!(
            "{} differ, the first is {}",
            count(State::Differs),
            place(line)
        ));
    }
    if let (ScriptState::Partial, Some(line)) = (sum, first(State::Missing)) {
        summary.push(format!(
            "{} missing, the first is {}",
            count(State::Missing),
            place(line)
        ));
    }
    if let Some(line) = again.first() {
        summary.push(format!(
            "run again, it stops at {} with {}",
            place(line),
            line.rerun_sqlstate.unwrap_or_default()
        ));
    }
    summary.push(match sum {
        ScriptState::Complete => "nothing is to be done".into(),
        ScriptState::CompleteFailsAgain => "nothing is to be done: do not run it again".into(),
        ScriptState::NotStarted if count(State::Blocked) > 0 => "make what is missing first, then migration_rehearse(script)".into(),
        ScriptState::NotStarted => "next: migration_rehearse(script) shows what it would do".into(),
        ScriptState::Partial => "next: migration_rehearse(script) shows what running it now would do, migration_reset(script) what can be taken back".into(),
        ScriptState::Unknown => "next: migration_rehearse(script) shows what it would do".into(),
    });
    (sum, summary.join("; "))
}
