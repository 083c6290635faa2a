//! Objects and claims in words.

use pgrx::spi::quote_identifier;

use super::compare::Entity;
use super::expected::{Claim, Id};
use super::judge::Judge;
use crate::identifier::Literal;
use crate::script::ast::Kind;

/// A name for people: with the schema only where it does not go without.
pub fn shown_name(schema: &str, name: &str, path: &[String]) -> String {
    match schema.is_empty() || path.iter().any(|s| s == schema) {
        true => quote_identifier(name),
        false => format!("{}.{}", quote_identifier(schema), quote_identifier(name)),
    }
}

impl Judge<'_> {
    /// An object for people, as it is called at a step.
    pub fn shown(&self, id: Id, at: usize) -> String {
        let object = &self.expected.objects[id];
        let name = object
            .names
            .iter()
            .rev()
            .find(|(since, ..)| *since <= at)
            .or(object.names.first());
        let (_, schema, name) = name.cloned().unwrap_or_default();
        let name = match (self.found(id), name.is_empty()) {
            (Some(Entity::Constraint(_, constraint)), true) => constraint.name.clone(),
            (Some(Entity::Relation(relation)), true) => relation.name.clone(),
            _ => name,
        };
        let own = match (name.is_empty(), object.kind) {
            (true, kind) => format!("an unnamed {}", kind.as_str()),
            (false, Kind::Label) => Literal::new(&name).to_string(),
            (false, Kind::Grant) => name.clone(),
            (false, _) => shown_name(&schema, &name, &self.actual.path),
        };
        let of = object.on.map(|on| self.shown(on, at)).unwrap_or_default();
        match object.kind {
            Kind::Column => format!("{of}.{own}"),
            Kind::Constraint | Kind::Trigger | Kind::Policy => format!("{own} on {of}"),
            Kind::Label => format!("{own} of {of}"),
            Kind::Grant => match own.split_once(" to ") {
                Some((privilege, role)) => format!("{privilege} on {of} to {}", quote_identifier(role)),
                None => own,
            },
            Kind::Function => match &object.arguments {
                Some(arguments) => {
                    let types: Vec<&str> = arguments.iter().map(|t| t.text.as_str()).collect();
                    format!("{own}({})", types.join(", "))
                }
                None => own,
            },
            Kind::Index if name.is_empty() => format!("{own} on {of}"),
            _ => own,
        }
    }

    /// A claim that does not hold, in words.
    pub fn what_is_missing(&self, claim: &Claim, at: usize) -> String {
        match claim {
            Claim::Created(id) => format!(
                "{} {} is missing",
                self.expected.objects[*id].kind.as_str(),
                self.shown(*id, at)
            ),
            Claim::Dropped(id) => format!(
                "{} {} is still there",
                self.expected.objects[*id].kind.as_str(),
                self.shown(*id, at)
            ),
            Claim::Named(id, name) => {
                let (_, _, name) = &self.expected.objects[*id].names[*name];
                format!("{} is not called {}", self.shown(*id, at), quote_identifier(name))
            }
            Claim::Property(id, said) => {
                let what = self.expected.objects[*id].properties[*said].1.slot();
                format!("{what} of {} is another", self.shown(*id, at))
            }
        }
    }
}

/// `"schema"."name"` where it needs quotes.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}
