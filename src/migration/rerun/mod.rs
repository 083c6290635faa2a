//! Running a script once more, in order, as psql does: what is called how by then, and what each statement would raise. A statement that
//! fails changes nothing, and those behind it are run all the same.

use std::collections::{HashMap, HashSet};

mod drops;

use super::actual::{ActualSchema, Relation};
use super::compare::Entity;
use super::expected::{Claim, ExpectedSchema, Id, Need, Property, StatementEffects, class};
use super::judge::Judge;
use crate::problem::Problem;
use crate::script::ast::{Kind, Rule};
use drops::Drops;

/// Something to which others belong (a table, an enum), by its schema and name.
type Place = (u8, String, String);

/// What a name stands for by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct NameBinding(usize);

/// Object names during a second run of the script.
pub struct RerunState<'w, 'a> {
    expected: &'w ExpectedSchema,
    judge: &'w Judge<'a>,
    actual: &'w ActualSchema,
    /// What changed: `None` is gone.
    places: HashMap<Place, Option<NameBinding>>,
    /// By their number: what was there before under which name; `None`: made in this run.
    origins: Vec<Option<Place>>,
    /// What changed of what belongs to them.
    parts: HashMap<(NameBinding, u8, String), bool>,
    /// Partitions and heirs, and of what: what changed.
    links: HashMap<(Id, Id), bool>,
    /// What is not what was there before.
    anew: HashSet<Id>,
    drops: Drops,
}

impl<'w, 'a> RerunState<'w, 'a> {
    /// Nothing was run once more yet.
    ///
    /// Errors: those of SPI.
    pub fn new(expected: &'w ExpectedSchema, judge: &'w Judge<'a>, actual: &'w ActualSchema) -> Result<Self, Problem> {
        Ok(RerunState {
            expected,
            judge,
            actual,
            places: HashMap::new(),
            origins: vec![],
            parts: HashMap::new(),
            links: HashMap::new(),
            anew: HashSet::new(),
            drops: Drops::new(expected, judge)?,
        })
    }

    /// What a step would drop, as far as it is what was there before.
    fn dropped(&mut self, effects: &StatementEffects, at: usize) -> Vec<Entity<'a>> {
        let mut all = Vec::new();
        for claim in &effects.claims {
            let Claim::Dropped(id) = *claim else { continue };
            let name = self.name_at(id, at);
            let own = &self.expected.objects[id].names[name].2;
            let touched = match self.above(id, at) {
                Some(None) => true,
                Some(Some(origin)) => {
                    let key = (origin, class(self.expected.objects[id].kind), own.clone());
                    self.relation(origin).is_none() || self.parts.contains_key(&key)
                }
                None => self.places.contains_key(&self.place(id, name)),
            };
            if !touched {
                all.extend(self.judge.entity(id, name));
            }
        }
        all
    }

    /// Is this a partition or an heir of that, by now?
    fn is_linked(&self, child: Id, parent: Id) -> bool {
        if let Some(linked) = self.links.get(&(child, parent)) {
            return *linked;
        }
        match (self.judge.found(child), self.judge.found(parent)) {
            _ if self.anew.contains(&child) || self.anew.contains(&parent) => false,
            (Some(Entity::Relation(child)), Some(Entity::Relation(parent))) => {
                let of = |schema: &String, name: &String| *schema == parent.schema && *name == parent.name;
                child
                    .partition_of
                    .as_ref()
                    .is_some_and(|(schema, name, ..)| of(schema, name))
                    || child.inherits.iter().any(|(schema, name)| of(schema, name))
            }
            _ => false,
        }
    }

    /// The name that an object has when a step begins.
    fn name_at(&self, id: Id, at: usize) -> usize {
        let names = &self.expected.objects[id].names;
        names.iter().rposition(|(since, ..)| *since < at).unwrap_or(0)
    }

    fn place(&self, id: Id, name: usize) -> Place {
        let object = &self.expected.objects[id];
        let (_, schema, name) = &object.names[name];
        (class(object.kind), schema.clone(), object.key(name))
    }

    /// Of what belongs to a table: that, by now.
    fn above(&mut self, id: Id, at: usize) -> Option<Option<NameBinding>> {
        let object = &self.expected.objects[id];
        let on = object.on.filter(|_| object.kind != Kind::Index)?;
        let place = self.place(on, self.name_at(on, at));
        if let Some(known) = self.places.get(&place) {
            return Some(*known);
        }
        if !self.judge.there(on, self.name_at(on, at)) {
            return Some(None);
        }
        self.origins.push(Some(place.clone()));
        let origin = NameBinding(self.origins.len() - 1);
        self.places.insert(place, Some(origin));
        Some(Some(origin))
    }

    fn relation(&self, origin: NameBinding) -> Option<&'w Relation> {
        let (_, schema, name) = self.origins[origin.0].as_ref()?;
        self.actual.relation(schema, name)
    }

    fn is_there(&mut self, id: Id, name: usize, at: usize) -> bool {
        let expected = self.expected;
        let object = &expected.objects[id];
        match self.above(id, at) {
            Some(None) => false,
            Some(Some(origin)) => {
                let own = &object.names[name].2;
                let key = (origin, class(object.kind), own.clone());
                if let Some(there) = self.parts.get(&key) {
                    return *there;
                }
                if object.kind == Kind::Label {
                    let place = self.origins[origin.0].as_ref();
                    return place.is_some_and(|(_, schema, name)| {
                        let mut all = self.actual.types.iter();
                        all.any(|t| t.schema == *schema && t.name == *name && t.labels.contains(own))
                    });
                }
                let Some(relation) = self.relation(origin) else {
                    return false;
                };
                match object.kind {
                    Kind::Column => relation.columns.iter().any(|c| c.name == *own),
                    Kind::Constraint if own.is_empty() => relation.constraints.iter().any(|c| c.kind == 'p'),
                    Kind::Constraint => relation.constraints.iter().any(|c| c.name == *own),
                    Kind::Trigger => relation.triggers.iter().any(|t| t.name == *own),
                    Kind::Policy => relation.policies.iter().any(|p| p.name == *own),
                    _ => false,
                }
            }
            None => match self.places.get(&self.place(id, name)) {
                Some(origin) => origin.is_some(),
                None => self.judge.there(id, name),
            },
        }
    }

    /// What the step raises, if it is run once more; its effect, if not.
    pub fn rerun_error(&mut self, effects: &StatementEffects, at: usize) -> Option<&'static str> {
        let raised = self.needed(effects, at).or_else(|| self.claimed(effects, at));
        if raised.is_none() {
            self.follow(effects, at);
        }
        raised
    }

    /// What it needs and is not there by now.
    fn needed(&mut self, effects: &StatementEffects, at: usize) -> Option<&'static str> {
        for need in &effects.needs {
            let Need::Object(id) = need else { continue };
            let object = &self.expected.objects[*id];
            let made_here = effects
                .claims
                .iter()
                .any(|claim| matches!(claim, Claim::Created(one) if one == id));
            let open = object.on.is_some_and(|on| self.expected.objects[on].open);
            if made_here || open || self.is_there(*id, self.name_at(*id, at), at) {
                continue;
            }
            return Some(match object.kind {
                Kind::Column => "42703",
                Kind::Function => "42883",
                Kind::Schema => "3F000",
                Kind::Label => "22023",
                kind if kind.is_relation() => "42P01",
                _ => "42704",
            });
        }
        None
    }

    /// The index behind a named key or exclusion constraint: its name is taken among tables and indexes.
    fn index_behind(&self, id: Id, at: usize) -> Option<Place> {
        let object = &self.expected.objects[id];
        let written = object.properties.iter().find_map(|(_, property)| match property {
            Property::Constraint(written, _) => Some(&written.rule),
            _ => None,
        })?;
        let name = object.name();
        if name.is_empty() || !matches!(written, Rule::Primary | Rule::Unique { .. } | Rule::Exclude(_)) {
            return None;
        }
        let on = object.on?;
        let (_, schema, _) = &self.expected.objects[on].names[self.name_at(on, at)];
        Some((class(Kind::Index), schema.clone(), name.to_string()))
    }

    /// Is there a table, index, view or sequence of this name by now?
    fn is_taken(&self, place: &Place) -> bool {
        match self.places.get(place) {
            Some(origin) => origin.is_some(),
            None => self.actual.relation(&place.1, &place.2).is_some(),
        }
    }

    /// What is there already, or is not there any more.
    fn claimed(&mut self, effects: &StatementEffects, at: usize) -> Option<&'static str> {
        if let Some(link) = &effects.link
            && self.is_linked(link.child, link.parent) == link.yes
        {
            return Some(link.rerun_error);
        }
        if !effects.cascades {
            let dropped = self.dropped(effects, at);
            if self.drops.are_refused(&dropped) {
                return Some("2BP01");
            }
        }
        if let (true, Some(Claim::Created(id))) = (effects.quiet, effects.claims.first())
            && self.is_there(*id, self.name_at(*id, at), at)
        {
            return None;
        }
        for claim in &effects.claims {
            if let Claim::Created(id) = *claim
                && !self.is_there(id, self.name_at(id, at), at)
                && self.index_behind(id, at).is_some_and(|place| self.is_taken(&place))
            {
                return Some("42P07");
            }
        }
        let (code, id) = effects.rerun_error?;
        for claim in &effects.claims {
            match *claim {
                Claim::Created(one) if one == id && !effects.quiet => {
                    let unnamed = self.expected.objects[id].name().is_empty() && code != "42P16";
                    if !unnamed && self.is_there(id, self.name_at(id, at), at) {
                        return Some(code);
                    }
                }
                Claim::Dropped(one) if one == id && !effects.quiet && !self.is_there(id, self.name_at(id, at), at) => {
                    return Some(code);
                }
                Claim::Named(one, name) if one == id => {
                    if !self.is_there(id, name.saturating_sub(1), at) {
                        return (!effects.quiet).then_some(code);
                    }
                    if self.is_there(id, name, at) {
                        return Some(match self.expected.objects[id].kind {
                            Kind::Column => "42701",
                            Kind::Function => "42723",
                            Kind::Schema => "42P06",
                            kind if kind.is_relation() => "42P07",
                            _ => "42710",
                        });
                    }
                }
                Claim::Property(one, _) if one == id && code == "55000" && !effects.quiet => return Some(code),
                _ => {}
            }
        }
        None
    }

    /// What is there after it.
    fn follow(&mut self, effects: &StatementEffects, at: usize) {
        // IF NOT EXISTS: nothing of the statement is done.
        if let (true, Some(Claim::Created(id))) = (effects.quiet, effects.claims.first())
            && self.is_there(*id, self.name_at(*id, at), at)
        {
            return;
        }
        if let Some(link) = &effects.link {
            self.links.insert((link.child, link.parent), link.yes);
        }
        let dropped = self.dropped(effects, at);
        for id in self.drops.follow(&dropped, effects.cascades) {
            self.set(id, self.name_at(id, at), at, false);
        }
        for claim in &effects.claims {
            match *claim {
                Claim::Created(id) => {
                    let name = self.name_at(id, at);
                    if !self.is_there(id, name, at) {
                        self.set(id, name, at, true);
                        let made_of = effects.made_of.iter().filter(|(child, _)| *child == id);
                        self.links.extend(made_of.map(|link| (*link, true)));
                    }
                }
                Claim::Dropped(id) => self.set(id, self.name_at(id, at), at, false),
                Claim::Named(id, name) => {
                    let (old, new) = (name.saturating_sub(1), name);
                    match self.above(id, at) {
                        Some(_) => {
                            self.set(id, old, at, false);
                            self.set(id, new, at, true);
                        }
                        None => {
                            let (old, new) = (self.place(id, old), self.place(id, new));
                            let origin = match self.places.get(&old) {
                                Some(origin) => *origin,
                                None => {
                                    self.origins.push(Some(old.clone()));
                                    Some(NameBinding(self.origins.len() - 1))
                                }
                            };
                            self.places.insert(old, None);
                            self.places.insert(new, origin);
                        }
                    }
                }
                Claim::Property(..) => {}
            }
        }
    }

    fn set(&mut self, id: Id, name: usize, at: usize, there: bool) {
        if self.expected.objects[id].kind == Kind::Table {
            self.anew.insert(id);
            self.links.retain(|(child, parent), _| *child != id && *parent != id);
        }
        if let Some(place) = self.index_behind(id, at) {
            let origin = there.then(|| {
                self.origins.push(None);
                NameBinding(self.origins.len() - 1)
            });
            self.places.insert(place, origin);
        }
        let object = &self.expected.objects[id];
        match self.above(id, at) {
            Some(Some(origin)) => {
                let own = object.names[name].2.clone();
                self.parts.insert((origin, class(object.kind), own), there);
            }
            Some(None) => {}
            None => {
                let place = self.place(id, name);
                let origin = there.then(|| {
                    self.origins.push(None);
                    NameBinding(self.origins.len() - 1)
                });
                self.places.insert(place, origin);
            }
        }
    }
}
