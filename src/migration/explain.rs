//! What speaks against each number of steps: the names and properties of a script's objects, each with its small history.

use std::collections::{HashMap, HashSet};

use super::compare::Entity;
use super::expected::{Claim, Id, Need};
use super::judge::{Judge, Key, is_shared};
use super::prefix::{ABSENT, HINT, Prefix, THERE, Votes};
use crate::script::ast::Kind;

/// One object under one of its names: after how many steps it has it.
pub(super) struct Holding {
    /// The step that gives it the name; `None`: it was there before.
    since: Option<usize>,
    pub(super) from: usize,
    pub(super) to: usize,
    /// From here on it may be gone as well.
    sure: usize,
}

impl<'a> Judge<'a> {
    /// Counts what speaks against each number of steps.
    ///
    /// * `files`: the script of each step, where there are several; else empty.
    pub(super) fn explain(&self, files: &[usize]) -> Prefix {
        let steps = self.expected.effects.len();
        let mut votes = Votes::new(files);
        let needed = self.needed();
        // What belongs to one of several tables of a name is not there while it is another of them.
        let mut names: HashMap<Key, Vec<(Id, usize)>> = HashMap::new();
        for (key, holders) in &self.names {
            let (class, on, schema, name) = key.clone();
            let on = on.map(|on| self.tied(on).first().copied().unwrap_or(on));
            names.entry((class, on, schema, name)).or_default().extend(holders);
        }
        for holders in names.values() {
            self.vote_on_name(holders, &needed, &mut votes);
        }
        for (id, object) in self.expected.objects.iter().enumerate() {
            if object.name().is_empty() && object.chosen.is_none() {
                self.vote_on_name(&[(id, 0)], &needed, &mut votes);
            }
            if let Some((entity, _)) = self.found[id].filter(|_| !self.is_of_displaced(id)) {
                self.vote_on_properties(id, entity, &mut votes);
            }
        }
        votes.result(steps)
    }

    /// By object: the first step that cannot be run without it.
    fn needed(&self) -> Vec<Option<usize>> {
        let mut needed = vec![None; self.expected.objects.len()];
        for (at, effects) in self.expected.effects.iter().enumerate() {
            let mut need = |id: Id| {
                needed[id].get_or_insert(at);
            };
            for claim in &effects.claims {
                match *claim {
                    Claim::Named(id, _) | Claim::Property(id, _) => need(id),
                    Claim::Created(id) => self.expected.objects[id].on.into_iter().for_each(&mut need),
                    Claim::Dropped(_) => {}
                }
            }
            for one in &effects.needs {
                if let Need::Object(id) = one
                    && (self.expected.objects[*id].kind.is_relation()
                        || self.expected.objects[*id].kind == Kind::Column)
                {
                    need(*id);
                }
            }
        }
        needed
    }

    /// From which number of steps to which it is there.
    pub(super) fn life(&self, id: Id) -> (usize, usize) {
        let from = self.expected.objects[id].created.map_or(0, |made| made + 1);
        (from, self.gone(id))
    }

    /// And those of the same name that it may be instead.
    fn lives(&self, id: Id) -> Vec<(usize, usize)> {
        let others = self.tied(id).into_iter().filter(|other| *other != id);
        std::iter::once(id).chain(others).map(|one| self.life(one)).collect()
    }

    /// The last number of steps after which it is there: it goes with what it belongs to.
    fn gone(&self, id: Id) -> usize {
        let mut last = self.expected.effects.len();
        let mut above = Some(id);
        while let Some(one) = above {
            let object = &self.expected.objects[one];
            last = last.min(object.dropped.unwrap_or(last));
            above = object.on;
        }
        last
    }

    /// From which number of steps to which an object has one of its names.
    pub(super) fn holding(&self, id: Id, name: usize) -> Holding {
        let object = &self.expected.objects[id];
        let since = match name {
            0 => object.created,
            _ => Some(object.names[name].0),
        };
        let from = since.map_or(0, |step| step + 1);
        let last = self.expected.effects.len();
        let renamed = object.names.get(name + 1).map(|(step, ..)| *step);
        let to = self.gone(id).min(renamed.unwrap_or(last));
        let may_go = object.may_go.iter().copied().filter(|step| *step >= from).min();
        Holding {
            since,
            from,
            to,
            sure: to.min(may_go.unwrap_or(to)),
        }
    }

    /// A name, and who has it when.
    fn vote_on_name(&self, holders: &[(Id, usize)], needed: &[Option<usize>], votes: &mut Votes<'_>) {
        let visible = |id: Id| {
            let object = &self.expected.objects[id];
            !object.implicit
                && !object.temporary
                && !self.is_of_displaced(id)
                && object.on.is_none_or(|on| self.found[on].is_some())
        };
        let holders: Vec<(Id, usize)> = holders.iter().copied().filter(|(id, _)| visible(*id)).collect();
        let entity = holders.iter().find_map(|(id, name)| self.entity(*id, *name));
        let Some(entity) = entity else {
            for (id, name) in &holders {
                let holding = self.holding(*id, *name);
                if let Some(step) = holding.since.or(needed[*id]) {
                    votes.against(step, ABSENT, step + 1, holding.sure);
                }
            }
            return;
        };
        let fitting: HashSet<Id> = match is_shared(&holders) {
            true => self.fitting(&holders, entity).into_iter().collect(),
            false => holders.iter().map(|(id, _)| *id).collect(),
        };
        let held = holders.iter().filter(|(id, _)| fitting.contains(id));
        let mut held: Vec<Holding> = held.map(|(id, name)| self.holding(*id, *name)).collect();
        held.sort_by_key(|holding| (holding.from, holding.to));
        // What belongs to a table tells nothing of the time when there is no such table.
        let tables = holders.iter().filter_map(|(id, _)| self.expected.objects[*id].on);
        let lives: Vec<(usize, usize)> = tables.flat_map(|table| self.lives(table)).collect();
        let begin = lives.iter().map(|(from, _)| *from).min().unwrap_or(0);
        let end = lives
            .iter()
            .map(|(_, to)| *to)
            .max()
            .unwrap_or(self.expected.effects.len());
        let mut covered = begin;
        for holding in &held {
            // It is there: whoever has the name next was made.
            if let Some(step) = holding.since {
                votes.against(step, THERE, covered, holding.from.saturating_sub(1));
            }
            covered = covered.max(holding.to + 1);
        }
        // Nobody has it any more.
        if let Some(last) = held.iter().map(|holding| holding.to).max() {
            votes.against(last, THERE, last + 1, end);
        }
    }

    /// Each property, and which value it has when.
    fn vote_on_properties(&self, id: Id, entity: Entity<'a>, votes: &mut Votes<'_>) {
        let object = &self.expected.objects[id];
        let end = self.gone(id);
        let mut seen: Vec<&str> = vec![];
        for (first, property) in &object.properties {
            let slot = property.slot();
            if seen.contains(&slot) {
                continue;
            }
            seen.push(slot);
            let (all, fitting) = self.slot(id, slot, entity);
            let step = |i: usize| object.properties[i].0;
            // It was made otherwise, or was changed by hand: nothing says when.
            if fitting.is_empty() && object.created == Some(*first) {
                continue;
            }
            for (nth, one) in all.iter().enumerate() {
                let to = all.get(nth + 1).map_or(end, |next| step(*next)).min(end);
                if !fitting.contains(one) {
                    let next = fitting.iter().find(|fits| *fits > one);
                    let (blamed, weight) = next.map_or((step(*one), ABSENT), |next| (step(*next), THERE));
                    votes.against(blamed, weight, step(*one) + 1, to);
                }
            }
            // Before the first word on it: what nobody says otherwise does not hold.
            if let Some(fits) = fitting.first()
                && !self.holds_anyway(id, *fits)
            {
                let (weight, from) = match object.created {
                    Some(made) => (THERE, made + 1),
                    None => (HINT, 0),
                };
                votes.against(step(*fits), weight, from, *first);
                // Of another object of the same name nothing of the kind was said.
                for other in self.tied(id).into_iter().filter(|other| *other != id) {
                    let silent = &self.expected.objects[other];
                    if let (Some(made), false) =
                        (silent.created, silent.properties.iter().any(|(_, p)| p.slot() == slot))
                    {
                        let (from, to) = self.life(other);
                        votes.against(made, THERE, from, to);
                    }
                }
            }
        }
    }
}
