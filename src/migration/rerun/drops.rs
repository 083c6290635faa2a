//! What a DROP would be refused for, and what goes with it.

use std::collections::{BTreeSet, HashMap};

use crate::migration::compare::Entity;
use crate::migration::depend::{Address, Graph};
use crate::migration::expected::{Claim, ExpectedSchema, Id};
use crate::migration::judge::Judge;
use crate::problem::Problem;
use crate::script::ast::Kind;

/// Dependencies of what is there, as far as the script speaks of it, and what of it is gone by now.
pub struct Drops {
    graph: Graph,
    /// Of what is there under a name of the script: its address, and what goes along with it.
    along: HashMap<Id, (Address, BTreeSet<Address>)>,
    gone: BTreeSet<Address>,
}

impl Drops {
    /// Looks up what depends on what the script speaks of; nothing where it drops nothing.
    ///
    /// Errors: those of SPI.
    pub fn new(expected: &ExpectedSchema, judge: &Judge) -> Result<Drops, Problem> {
        let drops = expected
            .effects
            .iter()
            .any(|effects| effects.claims.iter().any(|claim| matches!(claim, Claim::Dropped(_))));
        let mut roots: Vec<(Id, Address)> = Vec::new();
        if drops {
            for (id, object) in expected.objects.iter().enumerate() {
                let entity = judge
                    .found(id)
                    .or_else(|| judge.entity(id, 0))
                    .filter(|_| object.kind != Kind::Grant);
                roots.extend(entity.and_then(Address::of).map(|address| (id, address)));
            }
        }
        let addresses: Vec<Address> = roots.iter().map(|(_, address)| *address).collect();
        let graph = Graph::from(&addresses)?;
        let along = roots
            .into_iter()
            .map(|(id, address)| (id, (address, graph.along(address))))
            .collect();
        Ok(Drops {
            graph,
            along,
            gone: BTreeSet::new(),
        })
    }

    /// What goes when these are dropped, themselves included.
    fn going(&self, entities: &[Entity]) -> BTreeSet<Address> {
        let addresses = entities.iter().filter_map(|entity| Address::of(*entity));
        addresses.flat_map(|address| self.graph.along(address)).collect()
    }

    /// Does something stand on one of these that neither goes along nor is gone?
    pub fn are_refused(&self, entities: &[Entity]) -> bool {
        let mut going = self.going(entities);
        let asked = going.clone();
        going.extend(self.gone.iter().copied());
        asked
            .iter()
            .any(|address| !self.graph.normal_dependents(*address, &going).is_empty())
    }

    /// Adds what CASCADE takes as well.
    fn cascade(&self, going: &mut BTreeSet<Address>) {
        loop {
            let before = going.len();
            let more: Vec<Address> = going
                .iter()
                .flat_map(|address| self.graph.normal_dependents(*address, going))
                .collect();
            for address in more {
                going.extend(self.graph.along(address));
            }
            // A view goes with its rule.
            for (_, along) in self.along.values() {
                if along.iter().any(|address| going.contains(address) && address.is_rule()) {
                    going.extend(along.iter().copied());
                }
            }
            if going.len() == before {
                return;
            }
        }
    }

    /// They are dropped; returns the objects of the script that are gone with them.
    pub fn follow(&mut self, entities: &[Entity], cascade: bool) -> Vec<Id> {
        let mut going = self.going(entities);
        if cascade {
            self.cascade(&mut going);
        }
        self.gone.extend(going.iter().copied());
        let gone = self.along.iter().filter(|(_, (address, _))| going.contains(address));
        gone.map(|(id, _)| *id).collect()
    }
}
