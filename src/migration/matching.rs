//! Does the existing object match the definition in the script? Names are those of now: later steps may have changed them.

use super::actual::Relation;
use super::compare::{self, Difference, Entity};
use super::expected::{Id, Object, Parent, Property};
use super::judge::Judge;
use super::score::Score;
use crate::script::ast::{Kind, Rule};

impl<'a> Judge<'a> {
    /// How well this is what the script says of the object.
    pub(super) fn score(&self, id: Id, entity: Entity<'a>) -> Score {
        let object = &self.expected.objects[id];
        // Of what was there before, nothing is known.
        let mut score = Score::of(object.created.is_some());
        let mut slots: Vec<&str> = object.properties.iter().map(|(_, property)| property.slot()).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| *slot == "definition" || object.kind == Kind::Column);
        for slot in slots {
            score.expect(self.fits_slot(id, slot, None, entity));
        }
        match entity {
            Entity::Type(found) => self.score_labels(id, &found.labels, &mut score),
            Entity::Relation(relation) => self.score_columns(id, relation, &mut score),
            _ => {}
        }
        score
    }

    fn score_labels(&self, id: Id, labels: &[String], score: &mut Score) {
        let object = &self.expected.objects[id];
        let own = |label: &&Object| label.on == Some(id) && label.kind == Kind::Label;
        let mut seen = 0;
        for label in self.expected.objects.iter().filter(own) {
            let there = label.names.iter().any(|(_, _, name)| labels.contains(name));
            seen += usize::from(there);
            // Those that a later step adds may not be there yet.
            score.expect(there || label.created != object.created);
        }
        for _ in seen..labels.len() {
            score.expect(object.created.is_none());
        }
    }

    fn score_columns(&self, id: Id, relation: &'a Relation, score: &mut Score) {
        let table = &self.expected.objects[id];
        // IF NOT EXISTS: what was said later was said of the one that had the name.
        let first = table.instead_of;
        let own = |c: &&(Id, &Object)| c.1.kind == Kind::Column && c.1.on == Some(id);
        let of_first = |c: &&(Id, &Object)| c.1.kind == Kind::Column && c.1.on.is_some() && c.1.on == first;
        let all: Vec<(Id, &Object)> = self.expected.objects.iter().enumerate().collect();
        for (column, made) in all
            .iter()
            .filter(own)
            .filter(|(_, column)| column.created == table.created)
        {
            let before = |other: &Object| other.created.is_none() || other.created < made.created;
            let later = all
                .iter()
                .filter(of_first)
                .find(|(_, other)| before(other) && other.names[0].2 == made.names[0].2);
            self.score_column((*column, made), later.copied(), relation, score);
        }
        if table.open || table.created.is_none() {
            return;
        }
        for column in &relation.columns {
            let called = |object: &Object| object.names.iter().any(|(_, _, name)| *name == column.name);
            let mut known = all
                .iter()
                .filter(|c| own(c) || of_first(c))
                .filter(|(_, c)| c.created.is_some());
            score.expect(known.any(|(_, object)| called(object)));
        }
    }

    /// * `made`: a column that a table is made with.
    /// * `later`: the one of which later steps speak, where that is another.
    fn score_column(
        &self,
        made: (Id, &Object),
        later: Option<(Id, &Object)>,
        relation: &'a Relation,
        score: &mut Score,
    ) {
        let called = |name: &str| relation.columns.iter().find(|c| c.name == name);
        let names = made
            .1
            .names
            .iter()
            .chain(later.iter().flat_map(|(_, other)| &other.names));
        let later_dropped = later
            .and_then(|(_, other)| other.dropped)
            .filter(|at| Some(*at) >= made.1.created);
        let dropped = made.1.dropped.or(later_dropped);
        let Some(column) = names.rev().find_map(|(_, _, name)| called(name)) else {
            score.expect(dropped.is_some());
            return;
        };
        // It was dropped, and another one got its name.
        let again = |other: &Object| {
            let same_table = other.on == made.1.on || later.is_some_and(|(_, later)| other.on == later.on);
            let mut names = other.names.iter();
            let same_name = names.any(|(since, _, name)| *name == column.name && Some(*since) >= dropped);
            other.kind == Kind::Column && same_table && same_name
        };
        let replaced = dropped.is_some() && self.expected.objects.iter().any(again);
        let entity = Entity::Column(relation, column);
        let mut slots: Vec<&str> = made.1.properties.iter().map(|(_, property)| property.slot()).collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            let later = later.is_some_and(|(id, _)| self.fits_slot(id, slot, made.1.created, entity));
            score.expect(replaced || later || self.fits_slot(made.0, slot, None, entity));
        }
    }

    /// Does anything fit that was said of this slot?
    ///
    /// * `since`: from this step on.
    fn fits_slot(&self, id: Id, slot: &str, since: Option<usize>, entity: Entity<'a>) -> bool {
        let said = self.expected.objects[id].properties.iter();
        let mut said = said.filter(|(at, property)| property.slot() == slot && Some(*at) >= since);
        said.any(|(at, property)| self.compare(id, *at, property, entity).is_none())
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
        let later = |step: Option<usize>| step.is_some_and(|step| step > at);
        let renamed = later(self.expected.last_rename)
            || matches!(property, Property::View(..)) && later(self.expected.last_added);
        let mut now = property.clone();
        match &mut now {
            Property::Partition(Some((whole, _))) => self.call_as_now(whole),
            Property::Inherits(parents) => parents.iter_mut().for_each(|parent| self.call_as_now(parent)),
            _ => {}
        }
        if renamed {
            self.rename_as_now(own, at, &mut now);
        }
        compare::holds(&now, entity, &self.expected.effects[at].path, renamed, self.actual)
    }

    /// A parent by the name that it has now.
    fn call_as_now(&self, parent: &mut Parent) {
        if let Some((Entity::Relation(relation), _)) = self.found[parent.id] {
            parent.name.schema = Some(relation.schema.clone());
            parent.name.name = relation.name.clone();
        }
    }

    /// The columns and parents that a property names, by the names that they have now.
    fn rename_as_now(&self, own: Option<Id>, at: usize, now: &mut Property) {
        let column = |table: Option<Id>, name: &String| self.column_now(table, name, at);
        let columns = |table: Option<Id>, names: &mut Vec<String>| {
            for name in names {
                *name = column(table, name);
            }
        };
        match now {
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

    /// What the column is called now that a step calls by this name.
    fn column_now(&self, table: Option<Id>, name: &str, at: usize) -> String {
        let current = table.and_then(|table| {
            let mut all = self.expected.objects.iter().zip(&self.found);
            all.find_map(|(object, found)| {
                let called = || {
                    let mut names = object.names.iter().rev();
                    names
                        .find(|(since, ..)| *since <= at)
                        .is_some_and(|(_, _, n)| n == name)
                };
                match (object.kind, object.on == Some(table), found) {
                    (Kind::Column, true, Some((Entity::Column(_, column), _))) if called() => Some(column.name.clone()),
                    _ => None,
                }
            })
        });
        current.unwrap_or_else(|| name.to_string())
    }
}
