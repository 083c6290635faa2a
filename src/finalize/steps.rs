//! From what is there to the steps that are left. Pure: no SPI.
//!
//! A strong lock is never held over a scan. NOT NULL goes through a CHECK that is first NOT VALID (an instant) and then
//! validated (a scan beside readers and writers), because SET NOT NULL believes a valid CHECK and does not look itself
//! (NotNullImpliedByRelConstraints in tablecmds.c, since 12).

use super::calls::assertion;
use super::foreign_keys;
use super::step::{Executor, Facts, FinalizeStep, Gate, Lock, SCAN, step};
use crate::catalog::{Column, NotNullCheck, Table};
use crate::identifier::Identifier;
use crate::names;

/// How a CHECK of ours is told from the user's.
pub const COMMENT: &str = "pg_mend: dropped by finalize_backfill as soon as the column is NOT NULL";

/// Every step, in order, those that are done included.
pub fn all(facts: &Facts) -> Vec<FinalizeStep> {
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

fn not_null(facts: &Facts) -> Vec<FinalizeStep> {
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
        Executor::Check(Gate::Nulls),
        assertion(facts.catalog, table, column, None),
        Lock::AccessShare,
        family,
        past,
        match there {
            true => "the column is NOT NULL",
            false => "a valid CHECK says so",
        },
    )];
    let validate = |constraint: &str, done: bool| FinalizeStep {
        after: Some(Gate::Nulls),
        ..step(
            Executor::Extension,
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
        Executor::Extension,
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
    let add = FinalizeStep {
        statements: vec![
            format!("ALTER TABLE {name} ADD CONSTRAINT {quoted} CHECK ({is} IS NOT NULL) NOT VALID"),
            format!("COMMENT ON CONSTRAINT {quoted} ON {name} IS '{COMMENT}'"),
        ],
        after: Some(Gate::Nulls),
        ..step(
            Executor::Extension,
            String::new(),
            Lock::AccessExclusive,
            family,
            there || ours.is_some(),
            "for an instant; from now on no NULL can be written",
        )
    };
    let drop = step(
        Executor::Extension,
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
fn left_over(facts: &Facts) -> Vec<FinalizeStep> {
    let table = facts.table;
    let ours = facts.guarantees.not_null_checks.iter().filter(|c| is_ours(c));
    ours.map(|check| {
        step(
            Executor::OptionalManual,
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
fn index(facts: &Facts) -> Vec<FinalizeStep> {
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
            Executor::Manual,
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
            Executor::Manual,
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
                    Executor::Manual,
                    create(leaf, true, &name),
                    Lock::ShareUpdateExclusive,
                    &[leaf.oid],
                    there.is_some(),
                    by_hand,
                ));
            }
            steps.push(FinalizeStep {
                waits_for_manual_step: missing,
                ..step(
                    Executor::Extension,
                    create(table, false, &generated(table)),
                    Lock::Share,
                    &guarantees.family,
                    false,
                    "for an instant: it takes over the indexes of the partitions",
                )
            });
        }
        (None, _) => steps.push(step(
            Executor::Manual,
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
fn policy(facts: &Facts, key: &Column) -> Vec<FinalizeStep> {
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
            Executor::OptionalManual,
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
            Executor::OptionalManual,
            format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY", table.sql()),
            Lock::AccessExclusive,
            &[table.oid],
            table.row_security,
            "for an instant; after the policy, since without one only the owner sees rows",
        ),
    ]
}
