//! One write in parts, each under an id of its own.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use super::ledger;
use crate::pg;
use crate::plan::program::Trace;
use crate::plan::{Share, Versions};
use crate::problem::Problem;

/// One part of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which rows: those of this share of what was written before; `None`: of no share.
    pub of: Option<usize>,
    /// The id under which they are now.
    pub id: u32,
}

/// The ids under which one rule writes, part by part.
pub struct WrittenParts<'a> {
    before: &'a [Share],
    /// Rows of no share are written as well.
    others: bool,
    done: Vec<Part>,
}

impl<'a> WrittenParts<'a> {
    /// * `before`: the shares of the table.
    pub fn of(before: &'a [Share]) -> Self {
        WrittenParts {
            before,
            others: true,
            done: vec![],
        }
    }

    /// Only rows of these shares are written.
    pub fn of_these(shares: &'a [Share]) -> Self {
        WrittenParts {
            others: false,
            ..WrittenParts::of(shares)
        }
    }

    /// Runs `write` once per part; returns how many rows all of them wrote.
    ///
    /// Errors: those of `write`.
    pub fn write_each(&mut self, mut write: impl FnMut(&Versions) -> Result<i64, Problem>) -> Result<i64, Problem> {
        if self.before.is_empty() && self.others {
            let rows = write(&Versions::All)?;
            self.wrote(None, pg::current_transaction_id());
            return Ok(rows);
        }
        // A rule that writes in several passes can come to a row again.
        let ids_of = |done: &[Part], share: usize| {
            let mut ids = self.before[share].ids.clone();
            ids.extend(done.iter().filter(|w| w.of == Some(share)).map(|w| w.id));
            ids
        };
        let mut rows = 0;
        for share in 0..self.before.len() {
            let ids = ids_of(&self.done, share);
            rows += self.part(Some(share), || write(&Versions::WrittenAs(ids)))?;
        }
        if !self.others {
            return Ok(rows);
        }
        let all = (0..self.before.len()).flat_map(|share| ids_of(&self.done, share));
        let all = Versions::NotWrittenAs(all.collect());
        rows += self.part(None, || write(&all))?;
        Ok(rows)
    }

    /// Runs `write` once per part that was written: with the ids of its rows.
    ///
    /// Errors: those of `write`.
    pub fn rewrite_each(&mut self, mut write: impl FnMut(&[u32]) -> Result<i64, Problem>) -> Result<(), Problem> {
        let parts: BTreeSet<Option<usize>> = self.done.iter().map(|write| write.of).collect();
        for of in parts {
            let ids: Vec<u32> = self.done.iter().filter(|w| w.of == of).map(|w| w.id).collect();
            match self.before.is_empty() {
                true => {
                    write(&ids)?;
                    self.wrote(of, pg::current_transaction_id());
                }
                false => {
                    self.part(of, || write(&ids))?;
                }
            }
        }
        Ok(())
    }

    /// One part, under an id of its own.
    fn part(&mut self, of: Option<usize>, write: impl FnOnce() -> Result<i64, Problem>) -> Result<i64, Problem> {
        let (rows, id) = as_one(write)?;
        if let Some(id) = id {
            self.wrote(of, id);
        }
        Ok(rows)
    }

    fn wrote(&mut self, of: Option<usize>, id: u32) {
        let write = Part { of, id };
        if !self.done.contains(&write) {
            self.done.push(write);
        }
    }

    /// Keeps what `run` wrote, to be found again.
    ///
    /// Errors: those of SPI only.
    pub fn keep(&self, run: i64, trace: &Trace) -> Result<(), Problem> {
        for part in &self.done {
            let mut runs = match trace.created {
                true => vec![run],
                false => runs_after(self.before, part, run),
            };
            runs.retain(|run| Some(*run) != trace.forgets);
            ledger::wrote(run, trace.table.oid, trace.column, part.id, &runs)?;
        }
        Ok(())
    }

    /// The ids so far.
    pub fn ids(&self) -> Vec<u32> {
        self.done.iter().map(|write| write.id).collect()
    }

    /// What was done.
    pub fn done(self) -> Vec<Part> {
        self.done
    }
}

/// Runs `write` in a subtransaction; rows, and the id under which it wrote, if it wrote any.
///
/// Errors: those of `write`.
pub fn as_one(write: impl FnOnce() -> Result<i64, Problem>) -> Result<(i64, Option<u32>), Problem> {
    pg::subtransaction(AssertUnwindSafe(|| {
        let rows = write()?;
        Ok((rows, (rows > 0).then(pg::current_transaction_id)))
    }))
}

/// The runs whose values the rows of this part hold after it was written.
pub(super) fn runs_after(before: &[Share], write: &Part, run: i64) -> Vec<i64> {
    let earlier = write.of.and_then(|of| before.get(of));
    let mut runs = earlier.map(|share| share.runs.clone()).unwrap_or_default();
    if !runs.contains(&run) {
        runs.push(run);
    }
    runs
}
