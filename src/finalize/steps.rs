//! From what is there to the steps that are left. Pure: no SPI.
//!
//! A strong lock is never held over a scan. NOT NULL goes through a CHECK that is first NOT VALID (an instant) and then
//! validated (a scan beside readers and writers), because SET NOT NULL believes a valid CHECK and does not look itself
//! (NotNullImpliedByRelConstraints in tablecmds.c, since 12).

use std::cell::RefCell;
use std::collections::HashSet;

use super::foreign_keys;
use crate::catalog::{Catalog, Column, ForeignKey, Guarantees, NotNullCheck, Table};
use crate::identifier::Identifier;
use crate::names;
use crate::validate::reference::KeyReference;

/// How a CHECK of ours is told from the user's.
pub const COMMENT: &str = "pg_mend: dropped by finalize_backfill as soon as the column is NOT NULL";

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
pub enum Doer {
    /// The rows have to be ready: looked at, nothing is done.
    Gate(Gate),
    /// We do.
    Mend,
    /// A person, outside any transaction.
    Hand,
    /// A person who likes to.
    Anybody,
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
pub struct Step {
    /// Who does it.
    pub doer: Doer,
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
    pub waits_for_hand: bool,
}

impl Step {
    /// From here on rows can be refused: not before all of them are ready. (A validation looks at the rows itself.)
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

/// Every step, in order, those that are done included.
pub fn all(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    match facts.not_null {
        true => steps.extend(not_null(facts)),
        false => steps.extend(left_over(facts)),
    }
    if !facts.wanted.is_empty() {
        steps.extend(index(facts));
    }
    for number in 0..facts.wanted.len() {
        steps.extend(foreign_keys::steps(facts, number));
    }
    if let Some(key) = facts.policy {
        steps.extend(policy(facts, key));
    }
    steps
}

pub(super) const INSTANT: &str = "for an instant";
pub(super) const SCAN: &str = "reads every row; readers and writers go on";

pub(super) fn step(doer: Doer, statement: String, lock: Lock, locked: &[u32], done: bool, detail: &str) -> Step {
    Step {
        doer,
        statements: vec![statement],
        lock,
        locked: locked.to_vec(),
        state: match (done, doer) {
            (true, _) => State::Done,
            (false, Doer::Hand) => State::ByHand,
            (false, Doer::Anybody) => State::Optional,
            (false, _) => State::Pending,
        },
        detail: detail.into(),
        after: None,
        waits_for_hand: false,
    }
}

fn not_null(facts: &Facts) -> Vec<Step> {
    let Facts {
        table,
        column,
        guarantees,
        ..
    } = facts;
    let (name, is) = (table.sql(), column.sql());
    let there = column.not_null;
    let ours = guarantees.not_null_checks.iter().find(|c| is_ours(c));
    let users = guarantees.not_null_checks.iter().find(|c| !is_ours(c));
    let past = there || guarantees.not_null_checks.iter().any(|c| c.validated);
    let family = &guarantees.family;
    let mut steps = vec![step(
        Doer::Gate(Gate::Nulls),
        super::assertion(facts.catalog, table, column, None),
        Lock::AccessShare,
        family,
        past,
        match there {
            true => "the column is NOT NULL",
            false => "a valid CHECK says so",
        },
    )];
    let validate = |constraint: &str, done: bool| Step {
        after: Some(Gate::Nulls),
        ..step(
            Doer::Mend,
            format!("ALTER TABLE {name} VALIDATE CONSTRAINT {}", Identifier::new(constraint)),
            Lock::ShareUpdateExclusive,
            family,
            done,
            SCAN,
        )
    };
    if let (Some(constraint), false) = (&guarantees.not_null_not_valid, there) {
        // Since 18: the NOT NULL itself is there, not valid.
        steps.push(validate(constraint, false));
        return steps;
    }
    let set = step(
        Doer::Mend,
        format!("ALTER TABLE {name} ALTER COLUMN {is} SET NOT NULL"),
        Lock::AccessExclusive,
        family,
        there,
        "for an instant: the valid CHECK is its proof",
    );
    if let (Some(users), None) = (users, ours) {
        steps.push(validate(&users.name, users.validated || there));
        steps.push(set);
        return steps;
    }
    let check = match ours {
        Some(ours) => ours.name.clone(),
        // Not `not_null`: so Postgres itself calls the NOT NULL since 18, which would become `..._not_null1`.
        None => facts.name(table, &[&column.name], "no_nulls"),
    };
    let quoted = Identifier::new(&check);
    let add = Step {
        statements: vec![
            format!("ALTER TABLE {name} ADD CONSTRAINT {quoted} CHECK ({is} IS NOT NULL) NOT VALID"),
            format!("COMMENT ON CONSTRAINT {quoted} ON {name} IS '{COMMENT}'"),
        ],
        after: Some(Gate::Nulls),
        ..step(
            Doer::Mend,
            String::new(),
            Lock::AccessExclusive,
            family,
            there || ours.is_some(),
            "for an instant; from now on no NULL can be written",
        )
    };
    let drop = step(
        Doer::Mend,
        format!("ALTER TABLE {name} DROP CONSTRAINT {quoted}"),
        Lock::AccessExclusive,
        family,
        there && ours.is_none(),
        "for an instant: NOT NULL says the same",
    );
    steps.extend([
        add,
        validate(&check, there || ours.is_some_and(|c| c.validated)),
        set,
        drop,
    ]);
    steps
}

/// The CHECK of an earlier call that wanted NOT NULL.
fn left_over(facts: &Facts) -> Vec<Step> {
    let table = facts.table;
    let ours = facts.guarantees.not_null_checks.iter().filter(|c| is_ours(c));
    ours.map(|check| {
        step(
            Doer::Anybody,
            format!(
                "ALTER TABLE {} DROP CONSTRAINT {}",
                table.sql(),
                Identifier::new(&check.name)
            ),
            Lock::AccessExclusive,
            &facts.guarantees.family,
            false,
            "left from an earlier call, which goes on with not_null => true",
        )
    })
    .collect()
}

fn is_ours(check: &NotNullCheck) -> bool {
    check.comment.as_deref() == Some(COMMENT)
}

/// An index by which the parent's deletes find their rows, and queries those of a tenant.
fn index(facts: &Facts) -> Vec<Step> {
    let Facts {
        catalog,
        table,
        column,
        guarantees,
        ..
    } = facts;
    let mut steps = Vec::new();
    let served = guarantees.indexes.iter().find(|i| i.table == table.oid && i.usable);
    let shown = |table: &Table| catalog.display(table);
    for broken in guarantees.indexes.iter().filter(|i| i.invalid) {
        let Some(owner) = catalog.table(broken.table) else {
            continue;
        };
        steps.push(step(
            Doer::Hand,
            format!(
                "DROP INDEX CONCURRENTLY {}.{}",
                Identifier::new(&owner.schema),
                Identifier::new(&broken.name)
            ),
            Lock::ShareUpdateExclusive,
            &[owner.oid],
            false,
            match broken.building {
                true => "it may be being built at this moment (its table is locked as for that): then wait for it, do not drop it",
                false => "it is invalid, left over from a CREATE INDEX CONCURRENTLY that did not end well",
            },
        ));
    }
    let create = |on: &Table, concurrently: bool, name: &str| {
        format!(
            "CREATE INDEX {}{} ON {} ({})",
            if concurrently { "CONCURRENTLY " } else { "" },
            Identifier::new(name),
            on.sql(),
            column.sql()
        )
    };
    let by_hand = "cannot run inside a function; outside BEGIN, it lets readers and writers go on";
    let generated = |on: &Table| facts.name(on, &[&column.name], "idx");
    match (served, table.kind) {
        (Some(index), _) => steps.push(step(
            Doer::Hand,
            create(table, table.kind != 'p', &index.name),
            Lock::ShareUpdateExclusive,
            &[table.oid],
            true,
            &format!("{} serves", Identifier::new(&index.name)),
        )),
        (None, 'p') => {
            let mut missing = false;
            // A foreign table has no index, and none is asked of it.
            let leaves = guarantees.leaves.iter().filter_map(|oid| catalog.table(*oid));
            for leaf in leaves.filter(|leaf| leaf.is_table()) {
                let there = guarantees.indexes.iter().find(|i| i.table == leaf.oid && i.plain);
                missing |= there.is_none();
                let name = there.map_or_else(|| generated(leaf), |index| index.name.clone());
                steps.push(step(
                    Doer::Hand,
                    create(leaf, true, &name),
                    Lock::ShareUpdateExclusive,
                    &[leaf.oid],
                    there.is_some(),
                    by_hand,
                ));
            }
            steps.push(Step {
                waits_for_hand: missing,
                ..step(
                    Doer::Mend,
                    create(table, false, &generated(table)),
                    Lock::Share,
                    &guarantees.family,
                    false,
                    "for an instant: it takes over the indexes of the partitions",
                )
            });
        }
        (None, _) => steps.push(step(
            Doer::Hand,
            create(table, true, &generated(table)),
            Lock::ShareUpdateExclusive,
            &[table.oid],
            false,
            &format!(
                "{by_hand}; without it each delete from the parent reads all of {}",
                shown(table)
            ),
        )),
    }
    steps
}

/// Text to review: which setting holds the tenant is the application's.
fn policy(facts: &Facts, key: &Column) -> Vec<Step> {
    let table = facts.table;
    let name = names::generated(&table.name, &["tenant"], "isolation", |name| {
        facts.guarantees.policy_names.iter().any(|p| p == name)
    });
    let is_tenant = format!(
        "{} = pg_catalog.current_setting('app.tenant_id')::{}",
        key.sql(),
        facts.guarantees.type_sql
    );
    let reads = facts.guarantees.policies.first();
    vec![
        step(
            Doer::Anybody,
            format!(
                "CREATE POLICY {} ON {} USING ({is_tenant}) WITH CHECK ({is_tenant})",
                Identifier::new(&name),
                table.sql()
            ),
            Lock::AccessExclusive,
            &[table.oid],
            reads.is_some(),
            &match reads {
                Some(policy) => format!("policy {} reads {}", Identifier::new(policy), key.quoted),
                None => "put the way in which your application says whose request it is in the place of app.tenant_id"
                    .into(),
            },
        ),
        step(
            Doer::Anybody,
            format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY", table.sql()),
            Lock::AccessExclusive,
            &[table.oid],
            table.row_security,
            "for an instant; after the policy, since without one only the owner sees rows",
        ),
    ]
}
