//! Which objects the script created, and what other people added to its tables.

use std::collections::BTreeSet;

use pgrx::spi::quote_identifier;

use crate::migration::actual::{ActualSchema, Column, Relation};
use crate::migration::compare::Entity;
use crate::migration::depend::Address;
use crate::migration::expected::{ExpectedSchema, Id, Property};
use crate::migration::judge::Judge;
use crate::script::ast::Kind;

/// What of the parts of tables is the script's.
pub struct CreatedObjects {
    /// Class (column, constraint, trigger, policy), table, number or oid.
    parts: BTreeSet<(u8, u32, u32)>,
    /// oids.
    indexes: BTreeSet<u32>,
    /// Everything that the script made.
    pub addresses: BTreeSet<Address>,
}

impl CreatedObjects {
    /// Looks through everything that the script speaks of.
    pub fn of(expected: &ExpectedSchema, judge: &Judge) -> CreatedObjects {
        let mut own = CreatedObjects {
            parts: BTreeSet::new(),
            indexes: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        for id in 0..expected.objects.len() {
            let made = judge.found(id).filter(|_| expected.objects[id].created.is_some());
            own.addresses.extend(made.and_then(Address::of));
            let part = match judge.found(id) {
                Some(Entity::Column(table, column)) => (0, table.oid, column.number as u32),
                Some(Entity::Constraint(table, constraint)) => (1, table.oid, constraint.oid),
                Some(Entity::Trigger(table, trigger)) => (2, table.oid, trigger.oid),
                Some(Entity::Policy(table, policy)) => (3, table.oid, policy.oid),
                Some(Entity::Relation(index)) if index.index.is_some() => {
                    own.indexes.insert(index.oid);
                    continue;
                }
                _ => continue,
            };
            own.parts.insert(part);
        }
        own
    }
}

/// Who must drop it, where the caller may not: its owner, of a whole object also that of its schema.
pub fn owner_to_ask(actual: &ActualSchema, entity: Entity) -> Option<String> {
    let (owner, schema) = match entity {
        Entity::Relation(relation) => (&relation.owner, Some(&relation.schema)),
        Entity::Function(function) => (&function.owner, Some(&function.schema)),
        Entity::Type(found) => (&found.owner, Some(&found.schema)),
        Entity::Schema(schema) => (&schema.owner, None),
        Entity::Column(relation, _)
        | Entity::Constraint(relation, _)
        | Entity::Trigger(relation, _)
        | Entity::Policy(relation, _) => (&relation.owner, None),
        // Postgres says it of what is left.
        Entity::Extension(..) | Entity::Plain => return None,
    };
    let has = |role: &String| actual.roles.contains(role);
    let above = schema.and_then(|name| actual.schemas.iter().find(|s| s.name == *name));
    let may = has(owner) || above.is_some_and(|schema| has(&schema.owner));
    (!may).then(|| format!("only its owner {} may drop it", quote_identifier(owner)))
}

/// What somebody else has of a column, and would lose with it.
pub fn column_additions_by_others(
    expected: &ExpectedSchema,
    id: Id,
    relation: &Relation,
    column: &Column,
) -> Option<String> {
    if column.inherited {
        return Some("it comes from the table that its own inherits from".into());
    }
    if !relation.row_type_used_by.is_empty() {
        return Some(format!(
            "the row type of its table is used, and values of it would lose it: {}",
            relation.row_type_used_by.join(", ")
        ));
    }
    (column.comment.is_some() && !is_commented(expected, id))
        .then(|| "not the script's, and lost with it: its comment".into())
}

/// Does the script say something of its comment?
fn is_commented(expected: &ExpectedSchema, id: Id) -> bool {
    let mut properties = expected.objects[id].properties.iter();
    properties.any(|(_, properties)| matches!(properties, Property::Comment(_)))
}

/// What somebody else has put on the table, and would be lost with it.
pub fn additions_by_others(
    expected: &ExpectedSchema,
    own: &CreatedObjects,
    actual: &ActualSchema,
    id: Id,
    relation: &Relation,
) -> Option<String> {
    if !matches!(relation.kind, 'r' | 'p') {
        return None;
    }
    let mut others: Vec<String> = Vec::new();
    if relation.comment.is_some() && !is_commented(expected, id) {
        others.push("its comment".into());
    }
    for (at, object) in expected.objects.iter().enumerate() {
        if object.kind == Kind::Column
            && object.on == Some(id)
            && let Some(column) = relation.columns.iter().find(|c| c.name == object.name())
            && column.comment.is_some()
            && !is_commented(expected, at)
        {
            others.push(format!("the comment on {}", quote_identifier(&column.name)));
        }
    }
    let mut add = |class: u8, oid: u32, what: &str, name: &str| {
        if !own.parts.contains(&(class, relation.oid, oid)) {
            others.push(format!("{what} {}", quote_identifier(name)));
        }
    };
    if !expected.objects[id].open {
        for column in &relation.columns {
            add(0, column.number as u32, "column", &column.name);
        }
        // NOT NULL goes with its column.
        for constraint in relation.constraints.iter().filter(|c| c.kind != 'n' && !c.attached) {
            add(1, constraint.oid, "constraint", &constraint.name);
        }
    }
    for trigger in &relation.triggers {
        add(2, trigger.oid, "trigger", &trigger.name);
    }
    for policy in &relation.policies {
        add(3, policy.oid, "policy", &policy.name);
    }
    let of_table = |r: &&Relation| {
        r.index
            .as_ref()
            .is_some_and(|i| i.table == relation.oid && !i.of_constraint && !i.attached)
    };
    for index in actual.relations.iter().filter(of_table) {
        if !own.indexes.contains(&index.oid) {
            others.push(format!("index {}", quote_identifier(&index.name)));
        }
    }
    (!others.is_empty()).then(|| format!("not the script's, and lost with it: {}", others.join(", ")))
}
