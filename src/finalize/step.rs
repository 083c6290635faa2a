//! A step of locking in, what it waits for, and the facts that all steps are told from.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::catalog::{Catalog, Column, ForeignKey, Guarantees, Table};
use crate::names;
use crate::validate::reference::KeyReference;

/// The strength of a lock, see the Postgres manual, 13.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Readers.
    AccessShare,
    /// Keeps writers out.
    Share,
    /// Lets readers and writers go on.
    ShareUpdateExclusive,
    /// Keeps writers out.
    ShareRowExclusive,
    /// Keeps everybody out.
    AccessExclusive,
}

impl Lock {
    /// As LOCK TABLE has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Lock::AccessShare => "ACCESS SHARE",
            Lock::Share => "SHARE",
            Lock::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Lock::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Lock::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// Modes of other sessions that stand in its way, as `pg_locks` writes them.
    pub fn conflicts(self) -> &'static [&'static str] {
        const ALL: [&str; 8] = [
            "AccessExclusiveLock",
            "ExclusiveLock",
            "ShareRowExclusiveLock",
            "ShareUpdateExclusiveLock",
            "ShareLock",
            "RowExclusiveLock",
            "RowShareLock",
            "AccessShareLock",
        ];
        match self {
            Lock::AccessShare => &ALL[..1],
            Lock::Share => &[
                "AccessExclusiveLock",
                "ExclusiveLock",
                "ShareRowExclusiveLock",
                "ShareUpdateExclusiveLock",
                "RowExclusiveLock",
            ],
            Lock::ShareUpdateExclusive => &ALL[..5],
            Lock::ShareRowExclusive => &ALL[..6],
            Lock::AccessExclusive => &ALL,
        }
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Done,
    /// The next one to be run.
    Next,
    /// After that.
    Pending,
    /// The rows are not ready for it.
    Blocked,
    /// It cannot run in a function: for a person.
    ByHand,
    /// Nothing waits for it.
    Optional,
}

impl State {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Done => "done",
            State::Next => "next",
            State::Pending => "pending",
            State::Blocked => "blocked",
            State::ByHand => "by hand",
            State::Optional => "optional",
        }
    }
}

/// Who does a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// The rows have to be ready: looked at, nothing is done.
    Check(Gate),
    /// We do.
    Extension,
    /// A person, outside any transaction.
    Manual,
    /// A person who likes to.
    OptionalManual,
}

/// What has to be true of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// No NULL is left.
    Nulls,
    /// Each row of this reference (by its number among those wanted) has its parent, and in its own tenant where that is
    /// what the foreign key will say.
    Reference(usize),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalizeStep {
    /// Who does it.
    pub executor: Executor,
    /// What is run, in order, in one transaction.
    pub statements: Vec<String>,
    /// The strongest lock, on all of `locked`.
    pub lock: Lock,
    /// The tables.
    pub locked: Vec<u32>,
    /// How far it is; `Pending` until somebody knows better.
    pub state: State,
    /// In words.
    pub detail: String,
    /// What must be true of the rows before.
    pub after: Option<Gate>,
    /// Something before it is for a person to do, and it cannot go first.
    pub waits_for_manual_step: bool,
}

impl FinalizeStep {
    /// From this step on the table refuses rows, so all rows must satisfy the gates first. (A validation looks at the rows itself.)
    pub fn begins(&self) -> bool {
        self.after.is_some() && self.lock != Lock::ShareUpdateExclusive
    }
}

/// A foreign key that is there or should be.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// What references what.
    pub reference: KeyReference<'a>,
    /// The foreign key, where there is one.
    pub declared: Option<&'a ForeignKey>,
    /// What a foreign key is to be like: actions, deferrable.
    pub like: ForeignKey,
    /// Only this column becomes NULL (or its default) when a parent goes.
    pub only: Option<&'a str>,
    /// Something in the database says so, not only the call.
    pub known: bool,
    /// It makes references to other tenants impossible.
    pub keeps_tenants_apart: bool,
    /// Nobody asked for it by name.
    pub optional: bool,
}

/// All that decides.
pub struct Facts<'a> {
    /// The database.
    pub catalog: &'a Catalog,
    /// The table.
    pub table: &'a Table,
    /// Its column.
    pub column: &'a Column,
    /// What is there.
    pub guarantees: Guarantees,
    /// Foreign keys of the column.
    pub wanted: Vec<Wanted<'a>>,
    /// NOT NULL is wanted.
    pub not_null: bool,
    /// A policy is wanted, on this column.
    pub policy: Option<&'a Column>,
    /// The tenant key of the table, where it may be NULL.
    pub nullable_tenant: Option<&'a Column>,
    /// The table of the tenants as the call named it.
    pub root: Option<&'a str>,
    /// Names that were given to what is not there yet: none is given twice.
    pub named: RefCell<HashSet<String>>,
}

impl Facts<'_> {
    /// A name that neither the catalog nor this plan has.
    pub(super) fn name(&self, table: &Table, columns: &[&str], ending: &str) -> String {
        let (taken, mut named) = (&self.guarantees, self.named.borrow_mut());
        let name = names::generated(&table.name, columns, ending, |name| {
            named.contains(name)
                || taken.constraints.iter().any(|c| c == name)
                || taken.relations.iter().any(|r| r == name)
                || table.keys.iter().any(|key| key.name == name)
        });
        named.insert(name.clone());
        name
    }
}

pub(super) const INSTANT: &str = "for an instant";

pub(super) const SCAN: &str = "reads every row; readers and writers go on";

pub(super) fn step(
    executor: Executor,
    statement: String,
    lock: Lock,
    locked: &[u32],
    done: bool,
    detail: &str,
) -> FinalizeStep {
    FinalizeStep {
        executor,
        statements: vec![statement],
        lock,
        locked: locked.to_vec(),
        state: match (done, executor) {
            (true, _) => State::Done,
            (false, Executor::Manual) => State::ByHand,
            (false, Executor::OptionalManual) => State::Optional,
            (false, _) => State::Pending,
        },
        detail: detail.into(),
        after: None,
        waits_for_manual_step: false,
    }
}
