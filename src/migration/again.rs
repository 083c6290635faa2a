//! Running a script once more: what is called how by then, and what the statements would raise.

use std::collections::HashMap;

use super::judge::Judge;
use super::world::{Claim, Id, Told, World, class};
use crate::script::ast::Kind;

/// What is called how while the script would run once more.
pub struct Names<'w, 'a> {
    world: &'w World,
    judge: &'w Judge<'a>,
    /// By class, table, schema and name: is it there by then?
    there: HashMap<(u8, Option<Id>, String, String), bool>,
}

impl<'w, 'a> Names<'w, 'a> {
    /// Nothing was run once more yet.
    pub fn new(world: &'w World, judge: &'w Judge<'a>) -> Self {
        Names {
            world,
            judge,
            there: HashMap::new(),
        }
    }

    fn key(&self, id: Id, name: usize) -> (u8, Option<Id>, String, String) {
        let object = &self.world.objects[id];
        let on = object.on.filter(|_| object.kind != Kind::Index);
        let (_, schema, name) = &object.names[name];
        (class(object.kind), on, schema.clone(), name.clone())
    }

    /// The name of an object at a step.
    fn name_at(&self, id: Id, at: usize) -> usize {
        let names = &self.world.objects[id].names;
        names.iter().rposition(|(since, ..)| *since < at).unwrap_or(0)
    }

    fn is_there(&self, id: Id, name: usize) -> bool {
        match self.there.get(&self.key(id, name)) {
            Some(there) => *there,
            None => self.judge.there(id, name),
        }
    }

    /// What the step raises, if it is run once more.
    pub fn again(&self, told: &Told, at: usize) -> Option<&'static str> {
        let (code, id) = told.again?;
        if told.quiet {
            return None;
        }
        let fails = told.claims.iter().any(|claim| match claim {
            Claim::Created(one) if *one == id => self.is_there(id, self.name_at(id, at)),
            Claim::Dropped(one) if *one == id => !self.is_there(id, self.name_at(id, at)),
            Claim::Named(one, name) if *one == id => !self.is_there(id, name.saturating_sub(1)),
            Claim::Said(one, _) if *one == id => code == "55000",
            _ => false,
        });
        fails.then_some(code)
    }

    /// What is there after it.
    pub fn follow(&mut self, told: &Told, at: usize) {
        for claim in &told.claims {
            match claim {
                Claim::Created(id) => {
                    let key = self.key(*id, self.name_at(*id, at));
                    self.there.insert(key, true);
                }
                Claim::Dropped(id) => {
                    let key = self.key(*id, self.name_at(*id, at));
                    self.there.insert(key, false);
                }
                Claim::Named(id, name) => {
                    let (old, new) = (self.key(*id, name.saturating_sub(1)), self.key(*id, *name));
                    self.there.insert(old, false);
                    self.there.insert(new, true);
                }
                Claim::Said(..) => {}
            }
        }
    }
}
