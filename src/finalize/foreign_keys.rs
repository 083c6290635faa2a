//! The steps of one foreign key: first NOT VALID (an instant), then validated (a scan beside readers and writers). Pure.
//!
//! Before 18 a partitioned table can have no foreign key that is NOT VALID: there each partition gets its own, and the one on top
//! takes them over without a look (tryAttachPartitionForeignKey in tablecmds.c).

use super::calls::validation;
use super::step::{Executor, Facts, FinalizeStep, Gate, INSTANT, Lock, SCAN, Wanted, step};
use crate::catalog::{ForeignKey, Table};
use crate::identifier::Identifier;

/// Partitioned tables take foreign keys that are NOT VALID (since 18).
const PARTITIONED_NOT_VALID: bool = cfg!(feature = "pg18");

/// ON DELETE SET NULL (column) (since 15).
const SET_COLUMN: bool = !cfg!(any(feature = "pg13", feature = "pg14"));

/// Every step of the foreign key with this number among those wanted.
pub(super) fn steps(facts: &Facts, number: usize) -> Vec<FinalizeStep> {
    let (catalog, table, wanted) = (facts.catalog, facts.table, &facts.wanted[number]);
    let reference = &wanted.reference;
    let parent = reference.parent;
    let mut steps = Vec::new();
    let quoted = |of: &Table, columns: &[i16]| -> String {
        let names = of.names_of(columns);
        let names: Vec<String> = names.iter().map(|n| Identifier::new(n).to_string()).collect();
        names.join(", ")
    };
    if !reference.unique {
        let name = facts.name(parent, &parent.names_of(&reference.key), "key");
        let concurrently = if parent.kind == 'p' { "" } else { " CONCURRENTLY" };
        steps.push(step(
            if wanted.optional { Executor::OptionalManual } else { Executor::Manual },
            format!(
                "CREATE UNIQUE INDEX{concurrently} {} ON {} ({})",
                Identifier::new(&name),
                parent.sql(),
                quoted(parent, &reference.key)
            ),
            match parent.kind {
                'p' => Lock::Share,
                _ => Lock::ShareUpdateExclusive,
            },
            &[parent.oid],
            false,
            &match wanted.keeps_tenants_apart {
                _ if parent.kind == 'p' => "keeps writers out while it is built: a partitioned table can have none CONCURRENTLY".into(),
                true => format!(
                    "with this key of {} a foreign key can make references to other tenants impossible: call again with composite => true",
                    catalog.display(parent)
                ),
                false => "a foreign key needs a unique key; cannot run inside a function".into(),
            },
        ));
        if wanted.optional {
            return steps;
        }
    }
    let there = wanted.declared;
    let valid = there.is_some_and(|key| key.validated && key.enforced);
    let gate = Gate::Reference(number);
    steps.push(step(
        Executor::Check(gate),
        validation(facts, wanted),
        Lock::AccessShare,
        &[table.oid, parent.oid],
        valid,
        "the foreign key is valid",
    ));
    let both = |child: &Table| [child.oid, parent.oid];
    let add = |child: &Table, name: &str, columns: &[i16], valid: bool| {
        let mut known = facts.guarantees.foreign_keys.iter();
        if let Some((_, _, definition)) = known.find(|(table, known, _)| *table == child.oid && known == name) {
            let name = Identifier::new(name);
            return format!("ALTER TABLE {} ADD CONSTRAINT {name} {definition}", child.sql());
        }
        format!(
            "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}){}{}",
            child.sql(),
            Identifier::new(name),
            quoted(child, columns),
            parent.sql(),
            quoted(parent, &reference.key),
            actions(&wanted.like, wanted.only).unwrap_or_default(),
            if valid { "" } else { " NOT VALID" }
        )
    };
    let validate = |child: &Table, name: &str, done: bool| {
        step(
            Executor::Extension,
            format!(
                "ALTER TABLE {} VALIDATE CONSTRAINT {}",
                child.sql(),
                Identifier::new(name)
            ),
            Lock::ShareUpdateExclusive,
            &[child.oid],
            done,
            SCAN,
        )
    };
    let generated = |child: &Table, columns: &[i16]| facts.name(child, &child.names_of(columns), "fkey");
    let mut own: Vec<FinalizeStep> = Vec::new();
    let on_partitions = table.kind == 'p' && !PARTITIONED_NOT_VALID;
    if on_partitions {
        for leaf in facts.guarantees.leaves.iter().filter_map(|oid| catalog.table(*oid)) {
            let columns: Vec<i16> = table
                .names_of(&reference.columns)
                .iter()
                .filter_map(|name| Some(leaf.column_named(name)?.number))
                .collect();
            let there = catalog.foreign_keys_of(leaf.oid).find(|key| {
                key.columns == columns
                    && key.parent == parent.oid
                    && key.parent_columns == reference.key
                    && key.enforced
                    && taken_over(facts, wanted, key)
            });
            let name = there.map_or_else(|| generated(leaf, &columns), |key| key.name.clone());
            own.push(step(
                Executor::Extension,
                add(leaf, &name, &columns, false),
                Lock::ShareRowExclusive,
                &both(leaf),
                there.is_some(),
                INSTANT,
            ));
            own.push(validate(leaf, &name, there.is_some_and(|key| key.validated)));
        }
    }
    let name = there.map_or_else(|| generated(table, &reference.columns), |key| key.name.clone());
    let mut locked = facts.guarantees.family.clone();
    locked.push(parent.oid);
    own.push(step(
        Executor::Extension,
        add(table, &name, &reference.columns, on_partitions),
        Lock::ShareRowExclusive,
        &locked,
        there.is_some(),
        &match (on_partitions, wanted.keeps_tenants_apart) {
            (true, _) => "for an instant: it takes over the foreign keys of the partitions".to_string(),
            (_, true) => {
                let nullable = match facts.nullable_tenant {
                    Some(key) => format!(" (where its own {} is not NULL)", key.quoted),
                    None => String::new(),
                };
                let moves = match wanted.like.on_update {
                    'c' => "; ON UPDATE CASCADE: rows follow their parent to another tenant",
                    _ => "",
                };
                format!("{INSTANT}; from now on no row{nullable} can reference another tenant's{moves}")
            }
            _ => format!("{INSTANT}; from now on no orphan can be written"),
        },
    ));
    if !on_partitions {
        own.push(validate(table, &name, valid));
    }
    if let Some(key) = there.filter(|key| !key.enforced) {
        // Since 18. Turning it on reads the rows under a lock that keeps writers out.
        own = vec![step(
            Executor::Manual,
            format!(
                "ALTER TABLE {} ALTER CONSTRAINT {} ENFORCED",
                table.sql(),
                Identifier::new(&key.name)
            ),
            Lock::ShareRowExclusive,
            &both(table),
            false,
            "it is NOT ENFORCED; this reads every row while writers wait",
        )];
    }
    for step in &mut own {
        step.after = Some(gate);
        step.waits_for_manual_step = !reference.unique;
    }
    steps.extend(own);
    steps
}

/// Does the foreign key on top take this one of a partition over? It does where they are alike in everything; what is not in the
/// catalog that was read (which columns become NULL) is in the definition.
fn taken_over(facts: &Facts, wanted: &Wanted, key: &ForeignKey) -> bool {
    let like = &wanted.like;
    let alike = (
        key.on_delete,
        key.on_update,
        key.match_full,
        key.deferrable,
        key.deferred,
    ) == (
        like.on_delete,
        like.on_update,
        like.match_full,
        like.deferrable,
        like.deferred,
    );
    let definition = |of: &ForeignKey| {
        let mut all = facts.guarantees.foreign_keys.iter();
        all.find(|(table, name, _)| *table == of.table && *name == of.name)
            .map(|(_, _, definition)| definition.clone())
            .unwrap_or_default()
    };
    let names_columns =
        |definition: String| definition.contains(" SET NULL (") || definition.contains(" SET DEFAULT (");
    let wanted_names = match wanted.declared {
        Some(there) => names_columns(definition(there)),
        None => wanted.only.is_some() && matches!(like.on_delete, 'n' | 'd'),
    };
    alike && names_columns(definition(key)) == wanted_names
}

/// What becomes of the rows of a deleted parent and whether the check can wait, in SQL with a space in front; `only`: the column
/// that becomes NULL. `None` where other columns would as well.
pub fn actions(key: &ForeignKey, only: Option<&str>) -> Option<String> {
    let columns = match (only, SET_COLUMN) {
        (Some(column), true) => format!(" ({})", Identifier::new(column)),
        // The tenant would become NULL as well.
        (Some(_), false) if matches!(key.on_delete, 'n' | 'd') => return None,
        _ => String::new(),
    };
    let on_delete = match key.on_delete {
        'c' => " ON DELETE CASCADE".to_string(),
        'r' => " ON DELETE RESTRICT".to_string(),
        'n' => format!(" ON DELETE SET NULL{columns}"),
        'd' => format!(" ON DELETE SET DEFAULT{columns}"),
        _ => String::new(),
    };
    let on_update = match key.on_update {
        'c' => " ON UPDATE CASCADE",
        'r' => " ON UPDATE RESTRICT",
        // Columns cannot be named here: the tenant would become NULL as well.
        'n' | 'd' if only.is_some() => return None,
        'n' => " ON UPDATE SET NULL",
        'd' => " ON UPDATE SET DEFAULT",
        _ => "",
    };
    let deferrable = match (key.deferrable, key.deferred) {
        (true, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        _ => "",
    };
    let full = if key.match_full { " MATCH FULL" } else { "" };
    Some(format!("{full}{on_delete}{on_update}{deferrable}"))
}
