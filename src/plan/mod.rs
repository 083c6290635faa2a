//! Rule + catalog → SQL. Pure: typed values in, statements out; nothing here talks to a server.
//!
//! Everything rests on one query, the *classification* (`classify`): for each row of the target its outcome (a reason
//! of the design, for `constraint_failed` with the constraint's name) and the value that would be written. The dry run
//! counts it, the real run writes from it and proves itself with it, the list of unfilled rows shows it.

mod classify;
mod constraints;
mod expression;
mod sources;
mod statements;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::catalog::{Catalog, Column, Details, Table};
use crate::infer::reference::Reference;
use crate::infer::tenant::{Guard, TenantPath};
use crate::rule::Rule;

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
    /// Parameters are written as literals: for a person who reviews the statement, never for what we execute.
    pub for_review: bool,
}

/// A statement with its parameters (all of type text).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// SQL with $1, $2 ...
    pub sql: String,
    /// Values of the parameters.
    pub parameters: Vec<String>,
}

impl Statement {
    /// The same statement, planned under the settings of now and executed under those of the caller: a condition in front of
    /// everything else sets them when execution starts. Names in the statement have been looked up by then; functions of
    /// the user that it calls (triggers, CHECKs) find what they find in any other statement of the caller.
    ///
    /// The statement must end in a WHERE clause, or in a FROM clause (`filtered` false).
    pub fn under_callers_settings(mut self, search_path: &str, row_security: &str, filtered: bool) -> Statement {
        let join = if filtered { "\n  AND" } else { "\nWHERE" };
        let first = self.parameters.len() + 1;
        self.sql.push_str(&format!(
            "{join} (SELECT pg_catalog.set_config('search_path', ${first}, true)) IS NOT NULL\n  \
             AND (SELECT pg_catalog.set_config('row_security', ${}, true)) IS NOT NULL",
            first + 1
        ));
        self.parameters
            .extend([search_path.to_string(), row_security.to_string()]);
        self
    }
}

/// A statement that counts, and what its columns mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Returns one row: total, the outcomes, unguarded, and with rows written by the run written and proved.
    pub statement: Statement,
    /// Outcomes in the order of their columns.
    pub outcomes: Vec<String>,
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

    /// How many columns the statement of [`Blueprint::count`] returns.
    pub fn width(&self, view: View) -> usize {
        1 + self.outcomes.len().div_ceil(3) + if view.has_written() { 3 } else { 1 }
    }

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
        Numbers {
            total: at(0) as i64,
            outcomes: outcomes.collect(),
            unguarded: at(1 + sums) as i64,
            written: at(2 + sums) as i64,
            proved: at(3 + sums) as i64,
        }
    }

    /// As [`Count::read`], for [`Blueprint::count_plainly`].
    pub fn read_plainly(&self, columns: &[i64]) -> Numbers {
        let at = |i: usize| columns.get(i).copied().unwrap_or(0);
        let n = self.outcomes.len();
        Numbers {
            total: at(0),
            outcomes: (0..n).map(|i| at(1 + i)).collect(),
            unguarded: at(1 + n),
            written: at(2 + n),
            proved: at(3 + n),
        }
    }
}

/// What earlier steps of a dry run would have written: a stand-in for each table that they would have changed.
#[derive(Debug, Clone, Default)]
pub struct Overlays {
    /// WITH queries in order of dependency: name, text.
    queries: Vec<(String, String)>,
    /// Table → the query that stands in for it.
    latest: HashMap<u32, String>,
}

impl Overlays {
    /// From now on `table` is read as `sql` says.
    pub fn push(&mut self, table: &Table, sql: String) {
        let name = format!("after_step_{}", self.queries.len() + 1);
        self.latest.insert(table.oid, name.clone());
        self.queries.push((name, sql));
    }

    /// Is this table replaced?
    pub fn replaces(&self, table: &Table) -> bool {
        self.latest.contains_key(&table.oid)
    }

    /// How FROM names the table.
    fn relation_sql(&self, table: &Table) -> String {
        self.latest
            .get(&table.oid)
            .cloned()
            .unwrap_or_else(|| table.relation_sql())
    }

    /// `WITH ...` in front of a statement, or nothing.
    fn with_sql(&self) -> String {
        if self.queries.is_empty() {
            return String::new();
        }
        let queries: Vec<String> = self
            .queries
            .iter()
            .map(|(name, sql)| format!("{name} AS (\n{}\n)", expression::indent(sql, 2)))
            .collect();
        format!("WITH {}\n", queries.join(",\n"))
    }
}

/// In whose eyes a row is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Before the run: every row.
    All,
    /// Before the run: only rows whose target column is NULL, as the write itself needs them.
    Missing,
    /// After the run: every row, those that the run wrote (their xmin is this transaction id) judged as if they were
    /// still empty.
    Proof(u32),
    /// As `Proof`, in a dry run over a table that fills itself: what earlier levels would have written is in the overlay.
    Level,
}

impl View {
    /// Are there rows that the run itself wrote?
    pub fn has_written(self) -> bool {
        matches!(self, View::Proof(_) | View::Level)
    }
}
