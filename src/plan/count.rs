//! Statements that count, and their numbers.

use super::{Reason, Statement, Tally};

/// A statement that counts, and what its columns mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Returns one row: total, the outcomes, unguarded, where the rule overwrites replaced, and with rows written by the
    /// run written and proved.
    pub statement: Statement,
    /// Reasons in the order of their columns.
    pub outcomes: Vec<Reason>,
    /// There is a column for rows whose value would be replaced.
    pub replaces: bool,
}

/// The numbers of a count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// All rows, counted by themselves.
    pub total: i64,
    /// Rows per outcome, in the order of [`Count::outcomes`]; `filled` includes rows that the run wrote.
    pub outcomes: Vec<i64>,
    /// Filled rows where one side has no tenant.
    pub unguarded: i64,
    /// Filled rows that had another value (only where the rule overwrites).
    pub replaced: i64,
    /// Rows that the run wrote.
    pub written: i64,
    /// Those of them that say what their sources say.
    pub proved: i64,
}

impl Count {
    /// What a row of each of three outcomes adds to their common sum: 1, 2^31, 2^62.
    pub(super) const WEIGHTS: [i64; 3] = [1, 1 << 31, 1 << 62];

    /// From this many rows on, one outcome could spill into the next: count plainly instead.
    pub const TOO_MANY: i64 = 1 << 31;

    /// The numbers in the columns of [`crate::plan::Blueprint::count`], read as integers.
    ///
    /// ```text
    /// sum of three outcomes = a + b * 2^31 + c * 2^62
    /// ```
    pub fn read(&self, columns: &[i128]) -> Numbers {
        let sums = self.outcomes.len().div_ceil(3);
        let at = |i: usize| columns.get(i).copied().unwrap_or(0);
        let outcomes = (0..self.outcomes.len()).map(|i| {
            let sum = at(1 + i / 3);
            let shifted = sum >> (31 * (i % 3));
            // The last of three has all that is left.
            (if i % 3 == 2 { shifted } else { shifted & 0x7fff_ffff }) as i64
        });
        self.numbers(outcomes.collect(), at(0) as i64, &|i| at(1 + sums + i) as i64)
    }

    /// As [`Count::read`], for [`crate::plan::Blueprint::count_plainly`].
    pub fn read_plainly(&self, columns: &[i64]) -> Numbers {
        let at = |i: usize| columns.get(i).copied().unwrap_or(0);
        let n = self.outcomes.len();
        self.numbers((0..n).map(|i| at(1 + i)).collect(), at(0), &|i| at(1 + n + i))
    }

    fn numbers(&self, outcomes: Vec<i64>, total: i64, rest: &dyn Fn(usize) -> i64) -> Numbers {
        let replaces = usize::from(self.replaces);
        Numbers {
            total,
            outcomes,
            unguarded: rest(0),
            replaced: if self.replaces { rest(1) } else { 0 },
            written: rest(1 + replaces),
            proved: rest(2 + replaces),
        }
    }
}

/// Rows per reason. `already_set + filled + the others = total`, always: each row is in exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows whose target column had a value.
    pub already_set: i64,
    /// Rows that were filled, or would be.
    pub filled: i64,
    /// Rows of every other reason.
    pub reasons: Tally,
    /// Filled rows where one side has no tenant, so that nothing could be compared.
    pub unguarded: i64,
    /// Filled rows that had another value before.
    pub replaced: i64,
}

impl Counts {
    /// All rows of the table.
    pub fn total(&self) -> i64 {
        self.already_set + self.filled + self.unfilled()
    }

    /// Rows that stay NULL.
    pub fn unfilled(&self) -> i64 {
        self.reasons.total()
    }

    /// Further rows of one reason.
    pub fn add(&mut self, reason: &Reason, rows: i64) {
        match reason {
            Reason::AlreadySet => self.already_set += rows,
            Reason::Filled => self.filled += rows,
            other => self.reasons.add(other.clone(), rows),
        }
    }
}
