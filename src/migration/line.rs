//! One statement of a script, as the status shows it.

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
    /// Everything is as it is, whether it was run or not.
    Unknown,
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
            State::Unknown => "unknown",
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
        !matches!(self, State::Unknown | State::Data | State::Opaque | State::Skipped)
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
    pub rerun_sqlstate: Option<&'static str>,
}
