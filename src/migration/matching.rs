//! Does the existing object match the definition in the script? Names are those of now: later steps may have changed them.

use super::compare::{self, Difference, Entity};
use super::expected::{Id, Object, Parent, Property};
use super::judge::Judge;
use crate::script::ast::{Kind, Rule};

impl<'a> Judge<'a> {
    /// How well this is what the script says of the object.
    pub(super) fn score(&self, id: Id, entity: Entity<'a>) -> i64 {
        let object = &self.expected.objects[id];
        let mut score = 0;
        for (at, property) in object.properties.iter().map(|(at, property)| (*at, property)) {
            if property.slot() == "definition" {
                score += match self.compare(id, at, property, entity) {
                    None => 1,
                    Some(_) => -1,
                };
            }
        }
        if let Entity::Type(found) = entity {
            let mut labels = 0;
            for label in self
                .expected
                .objects
                .iter()
                .filter(|c| c.on == Some(id) && c.kind == Kind::Label)
            {
                let there = label.names.iter().any(|(_, _, name)| found.labels.contains(name));
                // Those that a later step adds may not be there yet.
                let must = label.created == object.created;
                labels += usize::from(there);
                score += if there { 1 } else { -i64::from(must) };
            }
            score -= found.labels.len().saturating_sub(labels) as i64;
        }
        if let Entity::Relation(relation) = entity {
            let made_with = |c: &&Object| c.on == Some(id) && c.kind == Kind::Column && c.created == object.created;
            for child in self.expected.objects.iter().filter(made_with) {
                let called = |name: &str| relation.columns.iter().find(|c| c.name == name);
                let Some(column) = child.names.iter().rev().find_map(|(_, _, name)| called(name)) else {
                    score += if child.dropped.is_some() { 1 } else { -1 };
                    continue;
                };
                score += 1;
                for (at, property) in child.properties.iter().filter(|(at, _)| Some(*at) == object.created) {
                    score += match self.compare(id, *at, property, Entity::Column(relation, column)) {
                        None => 1,
                        Some(_) => -1,
                    };
                }
            }
        }
        score
    }

    /// The type that the script has made under this name by then, arrays aside.
    fn type_made(&self, text: &str, at: usize) -> Option<Id> {
        let (schema, bare) = match text.rsplit_once('.') {
            Some((schema, bare)) => (Some(schema), bare),
            None => (None, text),
        };
        self.expected.types.iter().rev().copied().find(|id| {
            let object = &self.expected.objects[*id];
            let name = object.names.iter().rev().find(|(since, ..)| *since <= at);
            matches!(object.kind, Kind::Type | Kind::Domain)
                && object.created.is_some_and(|created| created <= at)
                && object.dropped.is_none_or(|dropped| dropped > at)
                && name.is_some_and(|(_, s, n)| n == bare && schema.is_none_or(|schema| schema == s))
        })
    }

    pub(super) fn is_defined_so(&self, id: Id, entity: Entity<'a>) -> bool {
        self.expected.objects[id]
            .properties
            .iter()
            .all(|(at, property)| property.slot() != "definition" || self.compare(id, *at, property, entity).is_none())
    }

    pub(super) fn difference(&self, id: Id, property: usize, entity: Entity<'a>) -> Difference {
        if let Some(known) = self.differences.borrow().get(&(id, property)) {
            return known.clone();
        }
        let (at, what) = &self.expected.objects[id].properties[property];
        let difference = self.compare(id, *at, what, entity);
        self.differences.borrow_mut().insert((id, property), difference.clone());
        difference
    }

    /// Does this hold of what is there, as far as nothing changes it later that is not compared?
    fn compare(&self, id: Id, at: usize, property: &Property, entity: Entity<'a>) -> Difference {
        let later = |step: Option<usize>| step.is_some_and(|step| step > at);
        let own = self.expected.objects[id].on;
        let altered = later(self.expected.objects[id].altered)
            || own.is_some_and(|own| later(self.expected.objects[own].altered));
        self.compare_strictly(id, at, property, entity).filter(|_| !altered)
    }

    /// Does this hold of what is there? Names of tables and columns are those of now: later steps may have renamed them.
    pub(super) fn compare_strictly(&self, id: Id, at: usize, property: &Property, entity: Entity<'a>) -> Difference {
        let own = self.expected.objects[id].on;
        let column = |table: Option<Id>, name: &String| -> String {
            let current = table.and_then(|table| {
                self.expected
                    .objects
                    .iter()
                    .zip(&self.found)
                    .find_map(|(object, found)| {
                        let called = || {
                            object
                                .names
                                .iter()
                                .rev()
                                .find(|(since, ..)| *since <= at)
                                .is_some_and(|(_, _, n)| n == name)
                        };
                        match (object.kind, object.on == Some(table), found) {
                            (Kind::Column, true, Some((Entity::Column(_, column), _))) if called() => {
                                Some(column.name.clone())
                            }
                            _ => None,
                        }
                    })
            });
            current.unwrap_or_else(|| name.clone())
        };
        let columns = |table: Option<Id>, names: &mut Vec<String>| {
            for name in names {
                *name = column(table, name);
            }
        };
        let later = |step: Option<usize>| step.is_some_and(|step| step > at);
        let renamed = later(self.expected.last_rename)
            || matches!(property, Property::View(..)) && later(self.expected.last_added);
        // A type of the script's is that type, whatever it is called by now.
        if let (Property::Type(name, _), Entity::Column(_, is)) = (property, entity)
            && let Some(made) = self.type_made(&name.text, at)
        {
            return match self.found[made] {
                Some((Entity::Type(found), _)) if found.oid == is.type_oid => None,
                _ => Some(format!("the type is {}, written is {}", is.type_name, name.text)),
            };
        }
        // An index of another table is another one, whatever its name.
        if let (Property::Index(_), Entity::Relation(is)) = (property, entity)
            && let Some(index) = &is.index
            && let Some((Entity::Relation(table), _)) = own.and_then(|own| self.found[own])
            && index.table != table.oid
        {
            return Some(format!("it is {}", index.definition));
        }
        let mut now = property.clone();
        let known = |parent: &mut Parent| {
            if let Some((Entity::Relation(relation), _)) = self.found[parent.id] {
                parent.name.schema = Some(relation.schema.clone());
                parent.name.name = relation.name.clone();
            }
        };
        match &mut now {
            Property::Partition(Some((whole, _))) => known(whole),
            Property::Inherits(parents) => parents.iter_mut().for_each(known),
            _ => {}
        }
        if renamed {
            match &mut now {
                Property::Constraint(written, parent) => {
                    columns(own, &mut written.columns);
                    if let Rule::Exclude(exclusion) = &mut written.rule {
                        for part in &mut exclusion.index.parts {
                            part.column = part.column.as_ref().map(|name| column(own, name));
                        }
                        columns(own, &mut exclusion.index.including);
                    }
                    if let Rule::Foreign(key) = &mut written.rule {
                        columns(*parent, &mut key.parent_columns);
                        if let Some((Entity::Relation(relation), _)) = parent.and_then(|parent| self.found[parent]) {
                            key.parent.schema = Some(relation.schema.clone());
                            key.parent.name = relation.name.clone();
                        }
                    }
                }
                Property::Index(written) => {
                    for part in &mut written.parts {
                        part.column = part.column.as_ref().map(|name| column(own, name));
                    }
                    columns(own, &mut written.including);
                }
                Property::Trigger(written) => columns(own, &mut written.columns),
                _ => {}
            }
        }
        compare::holds(&now, entity, &self.expected.effects[at].path, renamed, self.actual)
    }
}
