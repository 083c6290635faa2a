//! What is there under a name of the script.

use super::actual::{Constraint, Relation};
use super::compare::{self, Entity};
use super::expected::{Id, Property};
use super::judge::Judge;
use crate::script::ast::{Kind, Rule};

impl<'a> Judge<'a> {
    /// What is there under this name, if it is of the object's kind.
    pub(super) fn lookup(&self, id: Id, schema: &str, name: &str) -> Option<Entity<'a>> {
        let object = &self.expected.objects[id];
        let actual = self.actual;
        let on = object.on.and_then(|on| self.found[on]).map(|(entity, _)| entity);
        let table = match on {
            Some(Entity::Relation(relation)) => Some(relation),
            _ => None,
        };
        match object.kind {
            Kind::Index if name.is_empty() => {
                let table = table?.oid;
                let mut all = actual.relations.iter().filter(|r| {
                    r.index.as_ref().is_some_and(|i| i.table == table && !i.of_constraint) && !self.is_taken(id, r.oid)
                });
                all.find(|r| self.is_defined_so(id, Entity::Relation(r)))
                    .map(Entity::Relation)
            }
            kind if kind.is_relation() => actual.relation(schema, name).map(Entity::Relation),
            Kind::Type | Kind::Domain => {
                let mut all = actual.types.iter();
                all.find(|t| t.schema == schema && t.name == name).map(Entity::Type)
            }
            Kind::Function => self.function(id, schema, name),
            Kind::Schema => actual.schemas.iter().find(|s| s.name == name).map(Entity::Schema),
            Kind::Extension => {
                let mut all = actual.extensions.iter();
                all.find(|(extension, _)| extension == name)
                    .map(|(name, oid)| Entity::Extension(name, *oid))
            }
            Kind::Column => {
                let table = table?;
                let column = table.columns.iter().find(|c| c.name == name)?;
                Some(Entity::Column(table, column))
            }
            Kind::Constraint if name.is_empty() => self.unnamed_constraint(id, table?),
            Kind::Constraint => {
                let table = table?;
                let constraint = table.constraints.iter().find(|c| c.name == name)?;
                Some(Entity::Constraint(table, constraint))
            }
            Kind::Trigger => {
                let table = table?;
                Some(Entity::Trigger(table, table.triggers.iter().find(|t| t.name == name)?))
            }
            Kind::Policy => {
                let table = table?;
                Some(Entity::Policy(table, table.policies.iter().find(|p| p.name == name)?))
            }
            Kind::Label => match on? {
                Entity::Type(found) => found.labels.iter().any(|l| l == name).then_some(Entity::Plain),
                _ => None,
            },
            Kind::Grant => {
                let privileges = match on? {
                    Entity::Relation(relation) => &relation.privileges,
                    Entity::Function(function) => &function.privileges,
                    Entity::Schema(schema) => &schema.privileges,
                    Entity::Type(found) => &found.privileges,
                    _ => return None,
                };
                let (privilege, role) = name.split_once(" to ")?;
                let has = |(to, what): &(String, String)| to == role && what == privilege;
                privileges.iter().any(has).then_some(Entity::Plain)
            }
            _ => None,
        }
    }

    /// A constraint that the script does not name.
    fn unnamed_constraint(&self, id: Id, table: &'a Relation) -> Option<Entity<'a>> {
        let object = &self.expected.objects[id];
        let free = table.constraints.iter().filter(|c| !self.is_taken(id, c.oid));
        let like = |c: &&Constraint| self.is_defined_so(id, Entity::Constraint(table, c));
        // By the name that Postgres gives it, where it has that; else by what it is, where its name is not for another one.
        let named = |c: &&Constraint| object.chosen.as_ref() == Some(&c.name);
        let others = |c: &&Constraint| {
            let mut all = self.expected.objects.iter().filter(|other| other.on == object.on);
            !all.any(|other| other.chosen.as_ref() == Some(&c.name))
        };
        let own = free.clone().filter(like).find(named);
        let found = own.or_else(|| free.clone().filter(like).find(others)).or_else(|| {
            // Not as written: the primary key is the primary key, and a foreign key over these columns the one that is meant.
            let written = object.properties.iter().find_map(|(_, property)| match property {
                Property::Constraint(written, _) => Some(written),
                _ => None,
            })?;
            let kind = match written.rule {
                Rule::Primary => 'p',
                Rule::Foreign(_) => 'f',
                Rule::Unique { .. } => 'u',
                _ => return None,
            };
            let fits = |c: &&Constraint| c.kind == kind && (kind == 'p' || c.columns == written.columns);
            free.filter(fits)
                .find(|c| named(c) || others(c))
                .filter(|_| object.dropped.is_none())
        });
        found.map(|constraint| Entity::Constraint(table, constraint))
    }

    fn function(&self, id: Id, schema: &str, name: &str) -> Option<Entity<'a>> {
        let object = &self.expected.objects[id];
        let mut all = self
            .actual
            .functions
            .iter()
            .filter(|f| f.schema == schema && f.name == name);
        let Some(arguments) = &object.arguments else {
            return all.next().map(Entity::Function);
        };
        // What is called otherwise by now fits every type.
        let types: Vec<Option<u32>> = arguments
            .iter()
            .map(|name| compare::type_of(name, &object.path).ok().flatten().map(|(oid, _)| oid))
            .collect();
        let renamed = self.expected.last_rename.is_some();
        let fits = |is: &[u32]| {
            is.len() == types.len()
                && is
                    .iter()
                    .zip(&types)
                    .all(|(is, written)| written.map_or(renamed, |written| written == *is))
        };
        all.find(|f| fits(&f.arguments)).map(Entity::Function)
    }

    /// Is it another object of the script already?
    fn is_taken(&self, id: Id, oid: u32) -> bool {
        self.found.iter().enumerate().any(|(other, found)| {
            other != id
                && self.expected.objects[other].on == self.expected.objects[id].on
                && match found {
                    Some((Entity::Relation(relation), _)) => relation.oid == oid,
                    Some((Entity::Constraint(_, constraint), _)) => constraint.oid == oid,
                    _ => false,
                }
        })
    }
}
