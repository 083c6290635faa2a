//! Which object of the script is which thing that is there, and which of the things that were said of it hold.
//!
//! Later statements supersede earlier ones, and names move: a column that a later step drops is not missing, and `t` may be the table
//! that was called so first, or the one that took the name of it. What a single step leaves to see is a [`Verdict`]; where it leaves
//! nothing, the prefix decides: the number of steps that explains all that is there.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::actual::ActualSchema;
use super::compare::{Difference, Entity};
use super::expected::{Claim, ExpectedSchema, Id, Property, class};
use super::prefix::Prefix;
use super::score::Score;
use crate::script::ast::Kind;

/// What becomes of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is so, and would not be so without this step.
    Present,
    /// It is so, and may always have been.
    Holds,
    /// It looks the same whether the step was run or not.
    Either,
    /// It is not so, and a step that may have been run undoes it.
    Open,
    /// It is not so, and would be if this step had been run.
    Missing,
    /// There is something else.
    Differs(String),
}

/// How an object is looked for: class, table, schema and name.
pub(super) type Key = (u8, Option<Id>, String, String);

/// Of an object whose name other objects of the script have had as well.
#[derive(Debug, Clone, Copy)]
struct Shared {
    /// The name (index into `names`).
    name: usize,
    /// The one that has it now.
    holder: Id,
    /// What is there fits this object as well as any.
    fits: bool,
    /// And fits no other one as well.
    alone: bool,
}

/// What is known of the objects of a script.
pub struct Judge<'a> {
    pub(super) expected: &'a ExpectedSchema,
    pub(super) actual: &'a ActualSchema,
    /// By object: what it is, and under which of its names.
    pub(super) found: Vec<Option<(Entity<'a>, usize)>>,
    /// Who has had a name: objects, with the index into their names.
    pub(super) names: HashMap<Key, Vec<(Id, usize)>>,
    shared: HashMap<Id, Vec<Shared>>,
    pub(super) differences: RefCell<HashMap<(Id, usize), Difference>>,
    /// How many steps explain what is there.
    pub prefix: Prefix,
}

impl<'a> Judge<'a> {
    /// Looks everything up.
    ///
    /// * `files`: the script of each step, where there are several, each run as a whole; else empty.
    pub fn new(expected: &'a ExpectedSchema, actual: &'a ActualSchema, files: &[usize]) -> Self {
        let mut names: HashMap<Key, Vec<(Id, usize)>> = HashMap::new();
        for id in 0..expected.objects.len() {
            for (at, key) in keys(expected, id).into_iter().enumerate() {
                if !key.3.is_empty() {
                    names.entry(key).or_default().push((id, at));
                }
            }
        }
        let mut judge = Judge {
            expected,
            actual,
            found: vec![],
            names,
            shared: HashMap::new(),
            differences: RefCell::default(),
            prefix: Prefix { least: 0, most: 0 },
        };
        // What each object of a name would be tells how far the script got, and that which of them it is.
        judge.assign(false);
        judge.prefix = judge.explain(files);
        judge.assign(true);
        judge
    }

    /// What an object is, if it is there.
    pub fn found(&self, id: Id) -> Option<Entity<'a>> {
        self.found[id].map(|(entity, _)| entity)
    }

    /// What is there under a name of the script, whatever object of it that is.
    pub fn entity(&self, id: Id, name: usize) -> Option<Entity<'a>> {
        let (_, schema, name) = &self.expected.objects[id].names[name];
        self.lookup(id, schema, name)
    }

    /// Is something there under a name of the script?
    pub fn there(&self, id: Id, name: usize) -> bool {
        self.entity(id, name).is_some()
    }

    /// Which object is what.
    ///
    /// * `one`: of those that share a name, the one that the prefix says; else all that fit.
    fn assign(&mut self, one: bool) {
        self.found = vec![None; self.expected.objects.len()];
        self.shared.clear();
        self.differences.borrow_mut().clear();
        let mut told_apart: HashSet<Key> = HashSet::new();
        for id in 0..self.expected.objects.len() {
            if self.is_of_displaced(id) {
                continue;
            }
            for (at, key) in keys(self.expected, id).into_iter().enumerate().rev() {
                let Some(entity) = self.entity(id, at) else { continue };
                let holders = self.names.get(&key).filter(|holders| is_shared(holders)).cloned();
                if let Some(holders) = holders {
                    if told_apart.insert(key.clone()) {
                        self.tell_apart(&holders, entity, one);
                    }
                    // IF NOT EXISTS: what is said of either later is said of what is there.
                    let has = |of: Id| self.shares(of).any(|shared| shared.name == at && shared.holder == of);
                    let instead = |(other, _): &(Id, usize)| self.expected.objects[*other].instead_of == Some(id);
                    if !has(id) && !holders.iter().any(|other| instead(other) && has(other.0)) {
                        continue;
                    }
                }
                self.found[id] = Some((entity, at));
                break;
            }
        }
    }

    /// Which of the objects that have had this name has it now.
    fn tell_apart(&mut self, holders: &[(Id, usize)], entity: Entity<'a>, one: bool) {
        let fitting = self.fitting(holders, entity);
        let holder = self.choose(holders, &fitting);
        for (id, name) in holders {
            let fits = fitting.contains(id);
            let shared = Shared {
                name: *name,
                holder: if fits && !one { *id } else { holder },
                fits,
                alone: fitting.len() == 1,
            };
            self.shared.entry(*id).or_default().push(shared);
        }
    }

    fn choose(&self, holders: &[(Id, usize)], fitting: &[Id]) -> Id {
        let free: Vec<Id> = holders
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| self.found[*id].is_none())
            .collect();
        // IF NOT EXISTS makes nothing where the one before it fits.
        let made = |id: &Id| {
            self.expected.objects[*id]
                .instead_of
                .is_none_or(|first| !fitting.contains(&first))
        };
        let fits = |id: &Id| fitting.contains(id) && made(id) || !free.iter().any(|id| fitting.contains(id));
        // How far from what explains the rest it has the name; of two the one that has it later, if that was run.
        let Prefix { least, most } = self.prefix;
        let rank = |(id, name): &(Id, usize)| {
            let holding = self.holding(*id, *name);
            let away = holding.from.saturating_sub(most).max(least.saturating_sub(holding.to));
            let since = self.expected.objects[*id].names[*name].0;
            let later = if since < least { usize::MAX - since } else { since };
            (away, since >= least, later, *id)
        };
        let ranked = holders.iter().filter(|(id, _)| free.contains(id) && fits(id));
        ranked
            .min_by_key(|holder| rank(holder))
            .map_or(holders[0].0, |(id, _)| *id)
    }

    /// Those of them that fit best what is there.
    pub(super) fn fitting(&self, holders: &[(Id, usize)], entity: Entity<'a>) -> Vec<Id> {
        let mut ids: Vec<Id> = holders.iter().map(|(id, _)| *id).collect();
        ids.dedup();
        if ids.len() == 1 {
            return ids;
        }
        let scores: Vec<Score> = ids.iter().map(|id| self.score(*id, entity)).collect();
        let best = scores.iter().max();
        let all = ids.iter().zip(&scores).filter(|(_, score)| Some(*score) == best);
        all.map(|(id, _)| *id).collect()
    }

    /// What becomes of a claim of this step.
    pub fn verdict(&self, at: usize, claim: &Claim) -> Verdict {
        match self.verdict_on_holder(at, claim) {
            // It says so of one object, and what is there may be another.
            Verdict::Present | Verdict::Missing if self.may_be_another(claim.object()) => Verdict::Either,
            verdict => verdict,
        }
    }

    /// Within what explains what is there, another object may have the name of this one, or of what it belongs to.
    fn may_be_another(&self, id: Id) -> bool {
        let mut above = Some(id);
        while let Some(one) = above {
            if self.is_tied(one)
                && self
                    .tied(one)
                    .into_iter()
                    .any(|other| other != one && self.may_have_name(other))
            {
                return true;
            }
            above = self.expected.objects[one].on;
        }
        false
    }

    /// Within what explains what is there, it has the name that it shares with others.
    fn may_have_name(&self, id: Id) -> bool {
        let shared = self.shares(id).filter(|shared| shared.fits && !shared.alone);
        shared
            .map(|shared| self.holding(id, shared.name))
            .any(|holding| holding.from <= self.prefix.most && self.prefix.least <= holding.to)
    }

    fn verdict_on_holder(&self, at: usize, claim: &Claim) -> Verdict {
        match *claim {
            // An earlier step has made it already.
            Claim::Created(id) if self.expected.objects[id].created != Some(at) && self.found[id].is_some() => {
                // IF NOT EXISTS does nothing then; a privilege is granted once more.
                match self.expected.effects[at].quiet && self.expected.objects[id].kind != Kind::Grant {
                    true => Verdict::Holds,
                    false => Verdict::Either,
                }
            }
            Claim::Created(id) => self.exists(id),
            Claim::Dropped(id) => match (self.found[id], self.expected.objects[id].created) {
                (Some(_), _) => Verdict::Missing,
                (None, Some(_)) => Verdict::Either,
                (None, None) => Verdict::Holds,
            },
            Claim::Named(id, name) => match self.found[id] {
                Some((_, now)) => self.is_named(id, name, now),
                None => self.absent(id),
            },
            Claim::Property(id, property) => match self.found[id] {
                Some((entity, _)) => self.property_holds(id, property, entity),
                None => self.absent(id),
            },
        }
    }

    /// * `name`: the one that a step gives it.
    /// * `now`: the one that it has; it can have had it more than once.
    fn is_named(&self, id: Id, name: usize, now: usize) -> Verdict {
        let names = &self.expected.objects[id].names;
        let same = |at: &usize| (&names[*at].1, &names[*at].2) == (&names[now].1, &names[now].2);
        let first = (0..names.len()).find(same);
        match () {
            () if now < name => Verdict::Missing,
            () if first.is_some_and(|first| first >= name) => Verdict::Present,
            () => Verdict::Either,
        }
    }

    /// What is there may as well be another object of the script with the same name.
    fn is_tied(&self, id: Id) -> bool {
        self.shares(id).any(|shared| shared.holder == id && !shared.alone)
    }

    /// Another one was made instead of it.
    pub fn is_displaced(&self, id: Id) -> bool {
        self.displacing(id).next().is_some()
    }

    /// It was made with a table instead of which another one is there.
    pub(super) fn is_of_displaced(&self, id: Id) -> bool {
        let object = &self.expected.objects[id];
        object
            .on
            .is_some_and(|on| self.is_displaced(on) && self.expected.objects[on].created == object.created)
    }

    fn exists(&self, id: Id) -> Verdict {
        let Some((entity, _)) = self.found[id].filter(|_| !self.is_displaced(id)) else {
            return self.absent(id);
        };
        match is_another(self.expected.objects[id].kind, entity) {
            Some(what) if self.expected.objects[id].created.is_some() => Verdict::Differs(format!("it is {what}")),
            _ => Verdict::Present,
        }
    }

    /// Of something that is not there: was it made, and removed by a step that was run?
    fn absent(&self, id: Id) -> Verdict {
        let mut above = Some(id);
        while let Some(one) = above.filter(|one| self.found[*one].is_none() || *one == id && self.is_displaced(id)) {
            let object = &self.expected.objects[one];
            let Prefix { least, most } = self.prefix;
            let removed = object.dropped.iter().chain(&object.may_go).min();
            if let Some(removed) = removed.filter(|step| **step < most) {
                let made = object.created.is_some_and(|made| made < least);
                return if made && *removed >= least {
                    Verdict::Open
                } else {
                    Verdict::Either
                };
            }
            if self.is_displaced(one) {
                return self.displaced(one);
            }
            above = object.on.filter(|_| object.kind != Kind::Index || one == id);
        }
        Verdict::Missing
    }

    /// Of an object whose name another one has.
    fn displaced(&self, id: Id) -> Verdict {
        let object = &self.expected.objects[id];
        let quiet = object.created.is_some_and(|made| self.expected.effects[made].quiet);
        let explained = |shared: &Shared| {
            let made = self.expected.objects[shared.holder].created;
            let superseded = object
                .dropped
                .is_some_and(|dropped| made.is_some_and(|made| made >= dropped));
            // IF NOT EXISTS leaves what an earlier step has made.
            shared.fits || superseded || quiet && made < object.created
        };
        match self.displacing(id).any(explained) {
            true => Verdict::Either,
            false => Verdict::Missing,
        }
    }

    /// Those that have a name of it, where it is not there under another one.
    fn displacing(&self, id: Id) -> impl Iterator<Item = &Shared> {
        let others = self.shares(id).filter(move |shared| shared.holder != id);
        others.filter(move |shared| {
            self.found[id].is_none() || self.expected.objects[shared.holder].instead_of == Some(id)
        })
    }

    /// Objects of the same name that fit what is there as well as this one, itself included.
    pub(super) fn tied(&self, id: Id) -> Vec<Id> {
        let names = self.shares(id).filter(|shared| shared.fits && !shared.alone);
        let keys = keys(self.expected, id);
        let holders = names.flat_map(|shared| self.names.get(&keys[shared.name]).into_iter().flatten());
        let mut all: Vec<Id> = holders
            .map(|(id, _)| *id)
            .filter(|other| *other == id || self.shares(*other).any(|shared| shared.fits && !shared.alone))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn shares(&self, id: Id) -> impl Iterator<Item = &Shared> {
        self.shared.get(&id).into_iter().flatten()
    }

    /// What was said of a slot of an object, by step, and which of it fits what is there.
    pub(super) fn slot(&self, id: Id, slot: &str, entity: Entity<'a>) -> (Vec<usize>, Vec<usize>) {
        let object = &self.expected.objects[id];
        let all: Vec<usize> = (0..object.properties.len())
            .filter(|i| object.properties[*i].1.slot() == slot)
            .collect();
        let fitting: Vec<usize> = all
            .iter()
            .copied()
            .filter(|i| self.difference(id, *i, entity).is_none())
            .collect();
        // What fits only because something was changed that is not compared gives way to what fits as it is.
        let exactly = |i: &usize| {
            let (at, property) = &object.properties[*i];
            self.compare_strictly(id, *at, property, entity).is_none()
        };
        let exact: Vec<usize> = match fitting.len() {
            0 | 1 => vec![],
            _ => fitting.iter().copied().filter(exactly).collect(),
        };
        match exact.is_empty() {
            true => (all, fitting),
            false => (all, exact),
        }
    }

    fn property_holds(&self, id: Id, property: usize, entity: Entity<'a>) -> Verdict {
        let object = &self.expected.objects[id];
        let (at, what) = &object.properties[property];
        let (all, fitting) = self.slot(id, what.slot(), entity);
        let creates = object.created == Some(*at);
        let (Some(first), Some(last)) = (fitting.first(), fitting.last()) else {
            let later = |i: &usize| *i > property && object.properties[*i].0 < self.prefix.least;
            return match creates {
                _ if all.iter().any(later) => Verdict::Either,
                true => {
                    let difference = self.difference(id, property, entity).unwrap_or_default();
                    Verdict::Differs(self.sentence(id, &difference))
                }
                // Whether it was like that before, or somebody has changed it since.
                false => Verdict::Missing,
            };
        };
        match () {
            () if property > *last => Verdict::Missing,
            // Another step says the same, or it is superseded.
            () if property != *first => Verdict::Either,
            () if !self.is_said_at_creation(id, &all) && self.holds_anyway(id, property) => match all[0] == property {
                true => Verdict::Holds,
                false => Verdict::Either,
            },
            () => Verdict::Present,
        }
    }

    /// The object was made with one of these.
    fn is_said_at_creation(&self, id: Id, all: &[usize]) -> bool {
        let object = &self.expected.objects[id];
        object.created == Some(object.properties[all[0]].0)
    }

    /// May this hold of something of which nothing was said before?
    pub(super) fn holds_anyway(&self, id: Id, property: usize) -> bool {
        let what = &self.expected.objects[id].properties[property].1;
        // What the caller makes is the caller's without a word.
        is_negative(what) || matches!(what, Property::Owner(role) if *role == self.actual.user)
    }

    fn sentence(&self, id: Id, difference: &str) -> String {
        let object = &self.expected.objects[id];
        match object.kind {
            Kind::Column | Kind::Constraint => {
                let name = match object.name() {
                    "" => String::new(),
                    name => format!(" {name}"),
                };
                format!("{}{name}: {difference}", object.kind.as_str())
            }
            _ => difference.to_string(),
        }
    }
}

/// Have several objects had it?
pub(super) fn is_shared(holders: &[(Id, usize)]) -> bool {
    holders.iter().any(|(id, _)| *id != holders[0].0)
}

/// What it is, where that is not what the script makes.
fn is_another(kind: Kind, entity: Entity) -> Option<&'static str> {
    let what = match entity {
        Entity::Relation(relation) => match relation.kind {
            'r' | 'p' | 'f' => (Kind::Table, "a table"),
            'v' => (Kind::View, "a view"),
            'm' => (Kind::MaterializedView, "a materialized view"),
            'S' => (Kind::Sequence, "a sequence"),
            _ => (Kind::Index, "an index"),
        },
        Entity::Type(found) if found.kind == 'd' => (Kind::Domain, "a domain"),
        Entity::Type(_) => (Kind::Type, "a type"),
        _ => return None,
    };
    (what.0 != kind).then_some(what.1)
}

/// What holds of everything of which nothing was said.
fn is_negative(property: &Property) -> bool {
    matches!(
        property,
        Property::NotNull(false)
            | Property::Default(None)
            | Property::Identity(None)
            | Property::RowSecurity(false)
            | Property::Force(false)
            | Property::Comment(None)
            | Property::Partition(None)
            | Property::Firing('O')
    )
}

/// How an object is looked for, for each of its names.
pub(super) fn keys(expected: &ExpectedSchema, id: Id) -> Vec<Key> {
    let object = &expected.objects[id];
    let on = object.on.filter(|_| object.kind != Kind::Index);
    object
        .names
        .iter()
        .map(|(_, schema, name)| {
            let name = match &object.chosen {
                Some(chosen) if name.is_empty() => chosen.clone(),
                _ => object.key(name),
            };
            (class(object.kind), on, schema.clone(), name)
        })
        .collect()
}
