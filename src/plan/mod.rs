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
    /// The statement for a person who will run it by hand: parameters become literals.
    pub fn for_review(&self) -> String {
        // Parameters only ever stand in a CAST, which no name of the user can imitate: names are quoted.
        self.parameters
            .iter()
            .enumerate()
            .fold(self.sql.clone(), |sql, (i, value)| {
                let literal = crate::identifier::Literal::new(value);
                sql.replace(&format!("CAST(${} AS ", i + 1), &format!("CAST({literal} AS "))
            })
    }
}

/// A statement that counts, and what its columns mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Returns one row of bigint: total, one per outcome, unguarded, and in a proof written and proved.
    pub statement: Statement,
    /// Outcomes in the order of their columns; `filled` in a proof means: could be filled, but is not.
    pub outcomes: Vec<String>,
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

    /// Is any table replaced?
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
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
}
