//! What a real run does, as data: a few steps, whose statements are built from how far the run is. `run::interpret` carries them out;
//! a script could be written from the same steps.
//!
//! ```text
//! Attempt     all of it, or nothing of it: begun anew where others got in the way
//!   Hold      rows are locked
//!   Define    something is defined or dropped
//!   Write     rows are written, and what they were is kept
//!   Mark      the ledger: which changes are taken back by that
//!   Verify    what was written is read back and judged: proved, more to do, to be put right, to be begun anew, or wrong
//!   Repeat    until nothing is left
//! ```

use std::collections::BTreeMap;

use pgrx::PgSqlErrorCode;

use super::kept::Change;
use super::{Blueprint, Counts, Moment, Share, Statement, Versions};
use crate::catalog::Table;
use crate::problem::Problem;

/// How often a run writes what turned up (or what its sources changed) while it was writing, before it gives up.
pub const PASSES: usize = 25;

/// How far a run is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// `mend.runs.run_id`.
    pub run: i64,
    /// What the writes and checks of each name counted, summed up over the attempt; of a write, its rows come first.
    pub totals: BTreeMap<&'static str, Vec<i64>>,
    /// Under which transaction ids each write has written.
    pub ids: BTreeMap<&'static str, Vec<u32>>,
    /// What the last write counted, its rows first.
    pub numbers: Vec<i64>,
    /// Rows of all writes.
    pub rows: i64,
    /// Writes (or attempts) in a row that wrote nothing.
    pub idle: usize,
    /// What the last reading but one found.
    pub before: Found,
    /// What the last reading found.
    pub found: Found,
    /// Rows that were counted, and are counted no more after a write.
    pub settled: i64,
    /// How often what was written was put right in this pass.
    pub corrections: usize,
    /// Rows that a trigger keeps from being written.
    pub refused: Option<i64>,
}

impl Progress {
    /// Rows of all writes of this name.
    pub fn written(&self, name: &str) -> i64 {
        self.total(name, 0)
    }

    /// One of the sums of this name.
    pub fn total(&self, name: &str, at: usize) -> i64 {
        self.totals
            .get(name)
            .and_then(|sums| sums.get(at))
            .copied()
            .unwrap_or(0)
    }

    /// The ids of this name.
    pub fn ids_of(&self, name: &str) -> Vec<u32> {
        self.ids.get(name).cloned().unwrap_or_default()
    }

    /// Rows of the last write.
    pub fn last(&self) -> i64 {
        self.numbers.first().copied().unwrap_or(0)
    }

    /// A write, or an attempt, wrote so many rows.
    pub fn wrote(&mut self, rows: i64) {
        self.rows += rows;
        self.idle = match rows {
            0 => self.idle + 1,
            _ => 0,
        };
    }

    /// Adds to the sums of a name.
    pub fn add(&mut self, name: &'static str, numbers: &[i64]) {
        let sums = self.totals.entry(name).or_default();
        if sums.len() < numbers.len() {
            sums.resize(numbers.len(), 0);
        }
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
}

/// What a reading found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Rows per reason; of rows that were written, `filled` are those that say what their sources say.
    pub counts: Counts,
    /// Rows that the run wrote.
    pub written: i64,
    /// Rows that could be written and are not: they turned up while the run was writing.
    pub left: i64,
    /// Of a reading of numbers: those.
    pub numbers: Vec<i64>,
}

/// What is read back.
pub enum Reading<'p> {
    /// Every row of the target in its reason.
    Classified(Box<Blueprint<'p>>, Moment),
    /// Rows per reason: a statement that returns both.
    Reasons(Statement),
    /// A row of numbers of type bigint, besides what was found before.
    Numbers(Statement),
    /// What takes more than one statement.
    Computed(Computed<'p>),
    /// Nothing but what the last write counted.
    Nothing,
}

/// A reading that runs statements of its own.
pub type Computed<'p> = Box<dyn FnOnce() -> Result<Found, Problem> + 'p>;

/// Which rows a write is about.
#[derive(Debug, Clone, Copy)]
pub enum Parts<'p> {
    /// All at once.
    Whole,
    /// Rows that the same runs have written go together, the others by themselves: each part under an id of its own.
    ByShare(&'p [Share]),
    /// Only these.
    Only(&'p [Share]),
}

/// What is kept of a write.
#[derive(Debug, Clone)]
pub enum Keep {
    /// Nothing: the ids under which it wrote say enough.
    Nothing,
    /// A change for each row that the statement returns.
    Changes {
        /// What happened to them.
        change: Change,
        /// See `mend.ledger_changes.columns`.
        columns: Option<Vec<String>>,
    },
    /// The changes whose ids it returns are taken back.
    Undone,
}

/// How rows are found again that a write has written.
#[derive(Debug, Clone, Copy)]
pub struct Trace<'p> {
    /// Their table.
    pub table: &'p Table,
    /// The column that was filled.
    pub column: Option<i16>,
    /// The rows are new: they hold no values of other runs.
    pub created: bool,
    /// A run whose values they hold no more.
    pub forgets: Option<i64>,
}

/// A statement, from how far the run is and which rows it is about.
pub type Build<'p> = Box<dyn Fn(&Progress, &Versions) -> Statement + 'p>;

/// Rows are written.
pub struct Write<'p> {
    /// By which its numbers and ids are found.
    pub name: &'static str,
    /// The table whose rows it keeps.
    pub table: &'p Table,
    /// Which rows.
    pub parts: Parts<'p>,
    /// What it keeps.
    pub keep: Keep,
    /// How its rows are found again.
    pub traces: Vec<Trace<'p>>,
    /// It joins what Postgres has no statistics of, see [`Surroundings::joins_by_hash`].
    pub by_hash: bool,
    /// The statement, complete.
    pub statement: Build<'p>,
}

impl<'p> Write<'p> {
    /// A statement that does not hang on how far the run is.
    pub fn once(name: &'static str, table: &'p Table, keep: Keep, statement: Statement) -> Write<'p> {
        Write {
            name,
            table,
            parts: Parts::Whole,
            keep,
            traces: vec![],
            by_hash: false,
            statement: Box::new(move |_, _| statement.clone()),
        }
    }
}

/// What a reading comes to.
pub enum Verdict {
    /// All is as it is to be.
    Proved,
    /// More rows have turned up.
    More,
    /// What was written does not say what its sources say now: put right in place.
    Stale,
    /// The same, where it cannot be put right in place. (Or a trigger did it: what its sources said before the first write tells.)
    Contradicted {
        /// Another attempt may help.
        again: bool,
    },
    /// A trigger keeps so many rows from being written: they stay.
    Refused(i64),
    /// Others got in the way: everything is begun anew.
    Anew(Problem),
    /// It is wrong, and will be again.
    Wrong(Problem),
}

/// The statement that writes under these ids once more.
pub type Correction<'p> = Box<dyn Fn(&[u32]) -> Statement + 'p>;

/// What was written is read back.
pub struct Verify<'p> {
    /// By which its numbers are found.
    pub name: &'static str,
    /// What is read.
    pub read: Box<dyn Fn(&Progress) -> Reading<'p> + 'p>,
    /// What it comes to.
    pub judge: Box<dyn Fn(&Progress) -> Verdict + 'p>,
    /// Puts right what the write of this name wrote under some ids.
    pub correct: Option<(&'static str, Correction<'p>)>,
    /// What a contradiction is called: by others, by a trigger.
    pub contradiction: Option<[Box<dyn Fn() -> Problem + 'p>; 2]>,
}

impl<'p> Verify<'p> {
    /// A reading without corrections.
    pub fn new(
        name: &'static str,
        read: impl Fn(&Progress) -> Reading<'p> + 'p,
        judge: impl Fn(&Progress) -> Verdict + 'p,
    ) -> Verify<'p> {
        Verify {
            name,
            read: Box::new(read),
            judge: Box::new(judge),
            correct: None,
            contradiction: None,
        }
    }
}

/// Steps that are done until nothing is left.
pub struct Repeat<'p> {
    /// How often.
    pub most: usize,
    /// The last of them is a [`Verify`].
    pub steps: Vec<Step<'p>>,
    /// Something is left each time.
    pub exhausted: Box<dyn Fn() -> Verdict + 'p>,
}

/// Steps of which nothing is left where one fails.
pub struct Attempt<'p> {
    /// SQLSTATEs that others may have caused, besides a deadlock: it is begun anew.
    pub others: Vec<PgSqlErrorCode>,
    /// What is done.
    pub steps: Vec<Step<'p>>,
}

/// What the ledger is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The changes that this run took back are changes of its own, the other way round.
    Reversed,
    /// Rows that this run deleted were created by another one.
    Deleted {
        /// The run that created them.
        of: i64,
        /// With its schema.
        table: String,
    },
    /// Rows that this run made again were deleted by another one.
    MadeAgain {
        /// The run that deleted them.
        of: i64,
        /// With its schema.
        table: String,
    },
}

/// One step of a run.
pub enum Step<'p> {
    /// Rows are locked until the end.
    Hold(Statement),
    /// A statement that defines or drops something.
    Define(Statement),
    /// Rows are counted, to compare with what is there after a write.
    Count(Box<dyn Fn(&Progress) -> Reading<'p> + 'p>),
    /// What sources say now is remembered, to tell a trigger from a source that changed since.
    Remember,
    /// See there.
    Write(Write<'p>),
    /// The ledger is told; what it counted is the total `marked`.
    Mark(Mark),
    /// See there.
    Verify(Verify<'p>),
    /// See there.
    Repeat(Repeat<'p>),
    /// See there.
    Attempt(Attempt<'p>),
}

/// A whole run.
pub struct Program<'p> {
    /// `mend.runs.operation`.
    pub operation: &'static str,
    /// What it is about, as recorded: a table with its schema.
    pub object: String,
    /// Nobody else's run writes this table until the end.
    pub lock: Option<&'p Table>,
    /// Around its statements.
    pub surroundings: Surroundings,
    /// What is done.
    pub steps: Vec<Step<'p>>,
}

/// What is set around the statements of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// They call functions of users, which stay calls.
    pub calls_user_code: bool,
    /// They join what Postgres has no statistics of: by hash, or a nested loop would take the square.
    pub joins_by_hash: bool,
    /// The role (oid) with whose rights those that only read are run; `None`: the caller.
    pub reader: Option<u32>,
}
