//! Rule + catalog → SQL. Pure: typed values in, statements out; nothing here talks to a server.
//!
//! Everything rests on one query, the *classification* (`classify`): for each row of the target its outcome (a reason
//! of the design, for `constraint_failed` with the constraint's name) and the value that would be written. The dry run
//! counts it, the real run writes from it and proves itself with it, the list of unfilled rows shows it.
//!
//! ```text
//! statement   a statement in parts: WITH, body, conditions, ending, parameters
//! reason      the class of a row, and rows per class
//! rows        which rows a statement is about: all, by keys, a range, blocks, one new row; by who wrote them
//! classify    sources, constraints, uniqueness → each row in its reason
//! refusal     what a table refuses where columns of a row change; new_row: where a row is new
//! program     what a real run does, as data; fill: that of a backfill
//! ```

mod classify;
mod constraints;
mod count;
pub mod expression;
pub mod fill;
pub mod fit;
pub mod join;
pub mod kept;
mod mode;
pub mod new_row;
mod overlays;
pub mod program;
pub mod reason;
pub mod refusal;
mod rows;
mod sources;
mod statement;
mod statements;

#[cfg(test)]
mod tests;

pub use classify::Extra;
pub use count::{Count, Counts, Numbers};
pub use mode::Mode;
pub use overlays::Overlays;
pub use reason::{Reason, Tally};
pub use rows::{RowSet, Share, Versions, written_as};
pub use statement::{Query, Statement};

use crate::catalog::{Catalog, Column, Details, Table};
use crate::infer::reference::Reference;
use crate::infer::tenancy::guard::{Guard, TenantPath};
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
    /// Which rows of the target are looked at.
    pub rows: RowSet,
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

/// When rows are looked at, seen from the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before it: as they are.
    Before,
    /// While it writes: only rows that may be written (their target column is NULL, or the rule overwrites).
    During,
    /// After it: rows that the run wrote ([`Blueprint::written_as`]) are judged as if they were still empty.
    After,
    /// As `After`, in a dry run over a table that fills itself: what earlier levels would have written is in the overlay.
    Levels,
}

impl Moment {
    /// Are there rows that the run itself wrote?
    pub fn has_written(self) -> bool {
        matches!(self, Moment::After | Moment::Levels)
    }
}
