//! Rule + catalog → SQL. Pure: typed values in, statements out; nothing here talks to a server.
//!
//! Everything rests on one query, the *classification* (`classify`): for each row of the target its outcome (a reason
//! of the design, for `constraint_failed` with the constraint's name) and the value that would be written. The dry run
//! counts it, the real run writes from it and proves itself with it, the list of unfilled rows shows it.

mod classify;
mod constraints;
pub mod expression;
pub mod fit;
pub mod join;
pub mod kept;
mod mode;
pub mod new_row;
pub mod reason;
mod sources;
mod statement;
mod statements;

#[cfg(test)]
mod tests;

pub use classify::Extra;
pub use mode::Mode;
pub use reason::{Reason, Tally};
pub use statement::{Query, Statement};
use std::collections::HashMap;

use crate::catalog::{Catalog, Column, Details, Table};
use crate::infer::reference::Reference;
use crate::infer::tenant::{Guard, TenantPath};
use crate::rule::{Expression, Rule};

/// What is needed to write the statements of one rule. Built by preflight, which guarantees that every id in it is in
/// the catalog.
#[derive(Debug, Clone)]
pub struct Blueprint<'a> {
    /// The database.
    pub catalog: &'a Catalog,
    /// The target table.
    pub table: &'a Table,
    /// The target column.
    pub column: &'a Column,
    /// What was asked for.
    pub rule: Rule,
    /// What the table enforces.
    pub details: Details,
    /// The row that a value means, where that is known.
    pub reference: Option<Reference>,
    /// A value whose row does not exist is refused although no constraint says so (the reference was inferred).
    pub refuse_dangling: bool,
    /// How the tenant is guarded.
    pub guard: Guard,
    /// The way to the row's tenant, where the run is restricted to one.
    pub restriction: Option<TenantPath>,
    /// Tables as they would be after earlier steps of a dry run.
    pub overlays: Overlays,
    /// Transaction ids under which this transaction has written rows before.
    pub touched: Vec<u32>,
    /// Those of them under which this rule has written rows of the target.
    pub written_as: Vec<u32>,
    /// What is evaluated besides, in statements around the classification: it may call functions of users.
    pub further: Vec<Expression>,
    /// The role (oid) with whose rights statements that only read are run, see `run::Reader`; `None`: the caller.
    pub reader: Option<u32>,
}

/// Rows of the target, by the ids under which this call has written them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Versions {
    /// All, whoever wrote them.
    #[default]
    All,
    /// Written under one of these.
    WrittenAs(Vec<u32>),
    /// Written under none of these.
    NotWrittenAs(Vec<u32>),
}

impl Versions {
    /// The condition that rows called `alias` are of them; `None`: all are.
    ///
    /// ```text
    /// t.xmin = ANY ('{731,732}'::pg_catalog.xid[])
    /// ```
    pub fn condition(&self, alias: &str) -> Option<String> {
        match self {
            Versions::All => None,
            Versions::WrittenAs(ids) => Some(written_as(alias, ids)),
            Versions::NotWrittenAs(ids) => Some(format!("NOT {}", written_as(alias, ids))),
        }
    }
}

/// Rows called `alias` were written under one of these transaction ids.
pub fn written_as(alias: &str, ids: &[u32]) -> String {
    match ids {
        [id] => format!("{alias}.xmin = '{id}'::pg_catalog.xid"),
        ids => {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            format!("{alias}.xmin = ANY ('{{{}}}'::pg_catalog.xid[])", ids.join(","))
        }
    }
}

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
    const WEIGHTS: [i64; 3] = [1, 1 << 31, 1 << 62];

    /// From this many rows on, one outcome could spill into the next: count plainly instead.
    pub const TOO_MANY: i64 = 1 << 31;

    /// The numbers in the columns of [`Blueprint::count`], read as integers.
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

    /// As [`Count::read`], for [`Blueprint::count_plainly`].
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

/// What earlier steps of a dry run would have written: a stand-in for each table that they would have changed.
#[derive(Debug, Clone, Default)]
pub struct Overlays {
    /// WITH queries in order of dependency; the n-th (from 1) is called `after_step_n`.
    queries: Vec<String>,
    /// Table → the number of the query that stands in for it.
    latest: HashMap<u32, usize>,
}

/// How the queries of [`Overlays`] are called, before their number.
const OVERLAY: &str = "after_step_";

impl Overlays {
    /// From now on `table` is read as `sql` says.
    pub fn push(&mut self, table: &Table, sql: String) {
        self.queries.push(sql);
        self.latest.insert(table.oid, self.queries.len());
    }

    /// Is this table replaced?
    pub fn replaces(&self, table: &Table) -> bool {
        self.latest.contains_key(&table.oid)
    }

    /// Does this text read one of them?
    fn are_in(&self, text: &str) -> bool {
        !self.queries.is_empty() && text.contains(OVERLAY)
    }

    /// How FROM names the table.
    pub fn relation_sql(&self, table: &Table) -> String {
        match self.latest.get(&table.oid) {
            Some(number) => format!("{OVERLAY}{number}"),
            None => table.relation_sql(),
        }
    }

    /// Adds a query that others may name; returns its name.
    pub fn define(&mut self, sql: String) -> String {
        self.queries.push(sql);
        format!("{OVERLAY}{}", self.queries.len())
    }

    /// `statement` with the queries that it names in front of it, directly or through others. Not all there are: a run over a thousand
    /// tables would have Postgres read each of them a thousand times.
    pub fn before(&self, statement: Statement) -> Statement {
        match self.queries.is_empty() {
            true => statement,
            false => {
                let queries = self.queries_of(&statement.sql());
                statement.with_queries(queries)
            }
        }
    }

    /// The WITH queries that `sql` names, directly or through others.
    pub fn queries_of(&self, sql: &str) -> Vec<Query> {
        let mut needed = vec![false; self.queries.len()];
        let mut texts = vec![sql];
        while let Some(text) = texts.pop() {
            for (at, _) in text.match_indices(OVERLAY) {
                let digits = text[at + OVERLAY.len()..].chars().take_while(char::is_ascii_digit);
                let number: usize = digits.collect::<String>().parse().unwrap_or(0);
                if number > 0 && number <= needed.len() && !needed[number - 1] {
                    needed[number - 1] = true;
                    texts.push(&self.queries[number - 1]);
                }
            }
        }
        (1..)
            .zip(&self.queries)
            .filter(|(number, _)| needed[number - 1])
            .map(|(number, sql)| Query::new(format!("{OVERLAY}{number}"), sql))
            .collect()
    }
}

/// In whose eyes a row is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Before the run: every row.
    All,
    /// Only rows that the write may write: their target column is NULL, or the rule overwrites.
    Missing,
    /// After the run: every row, those that the run wrote ([`Blueprint::written_as`]) judged as if they were still empty.
    Proof,
    /// As `Proof`, in a dry run over a table that fills itself: what earlier levels would have written is in the overlay.
    Level,
}

impl View {
    /// Are there rows that the run itself wrote?
    pub fn has_written(self) -> bool {
        matches!(self, View::Proof | View::Level)
    }
}
