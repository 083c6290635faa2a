//! Which object of the script is which thing that is there, and which of the things that were said of it hold.
//!
//! Later statements supersede earlier ones, and names move: a column that a later step drops is not missing, and `t` may be the table
//! that was called so first, or the one that took the name of it. Where what is there fits several moments of the script, the steps whose
//! effect is beyond doubt decide: what comes before the last of them has been run.

use std::cell::RefCell;
use std::collections::HashMap;

use super::actual::ActualSchema;
use super::compare::{self, Difference, Entity};
use super::expected::{Claim, ExpectedSchema, Id, Property, class};
use crate::script::ast::{Kind, Rule};

/// What becomes of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is so, and was not before.
    Present,
    /// It is so, and may always have been.
    Holds,
    /// It is so at several moments of the script, the beginning among them.
    Either,
    /// It is not so.
    Missing,
    /// There is something else.
    Differs(String),
}

type Key = (u8, Option<Id>, String, String);

/// What is known of the objects of a script.
pub struct Judge<'a> {
    pub(super) expected: &'a ExpectedSchema,
    pub(super) actual: &'a ActualSchema,
    /// By object: what it is, and under which of its names.
    pub(super) found: Vec<Option<(Entity<'a>, usize)>>,
    /// Objects by name, where several have had it.
    shared: HashMap<Key, Vec<Id>>,
    pub(super) differences: RefCell<HashMap<(Id, usize), Difference>>,
    /// The last step whose effect is beyond doubt.
    pub frontier: Option<usize>,
    /// Several objects have had this name; which one has it now is not decided yet.
    deciding: bool,
}

impl<'a> Judge<'a> {
    /// Looks everything up.
    pub fn new(expected: &'a ExpectedSchema, actual: &'a ActualSchema) -> Self {
        let mut all: HashMap<Key, Vec<Id>> = HashMap::new();
        for (id, object) in expected.objects.iter().enumerate() {
            for key in keys(expected, id) {
                if !object.name().is_empty() {
                    let ids = all.entry(key).or_default();
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
            }
        }
        all.retain(|_, ids| ids.len() > 1);
        let mut judge = Judge {
            expected,
            actual,
            found: vec![],
            shared: all,
            differences: RefCell::default(),
            frontier: None,
            deciding: true,
        };
        judge.assign(true);
        judge.advance();
        judge.deciding = false;
        if !judge.shared.is_empty() {
            judge.assign(false);
            judge.advance();
        }
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

    fn assign(&mut self, only_clear: bool) {
        self.found = vec![None; self.expected.objects.len()];
        self.differences.borrow_mut().clear();
        let mut taken: HashMap<Key, Id> = HashMap::new();
        for id in 0..self.expected.objects.len() {
            let object = &self.expected.objects[id];
            for (at, key) in keys(self.expected, id).into_iter().enumerate().rev() {
                let Some(entity) = self.lookup(id, &object.names[at].1, &object.names[at].2) else {
                    continue;
                };
                if let Some(candidates) = self.shared.get(&key) {
                    if only_clear {
                        break;
                    }
                    let winner = match taken.get(&key) {
                        Some(winner) => *winner,
                        None => self.chosen(candidates, &key, entity),
                    };
                    taken.insert(key, winner);
                    if winner != id {
                        continue;
                    }
                }
                self.found[id] = Some((entity, at));
                break;
            }
        }
    }

    /// Which of the objects that have had this name has it now.
    fn chosen(&self, candidates: &[Id], key: &Key, entity: Entity<'a>) -> Id {
        let mut ranked: Vec<(i64, usize, Id)> = candidates
            .iter()
            .filter(|id| self.found[**id].is_none())
            .map(|id| {
                let since = keys(self.expected, *id).iter().position(|k| k == key).unwrap_or(0);
                (self.score(*id, entity), self.expected.objects[*id].names[since].0, *id)
            })
            .collect();
        let best = ranked.iter().map(|(score, ..)| *score).max().unwrap_or(0);
        ranked.retain(|(score, ..)| *score == best);
        ranked.sort_by_key(|(_, since, id)| (*since, *id));
        let run = |since: usize| self.frontier.is_some_and(|frontier| since <= frontier);
        let last_run = ranked.iter().rev().find(|(_, since, _)| run(*since));
        last_run.or(ranked.first()).map_or(candidates[0], |(.., id)| *id)
    }

    fn lookup(&self, id: Id, schema: &str, name: &str) -> Option<Entity<'a>> {
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
                    r.index.as_ref().is_some_and(|i| i.table == table && !i.of_constraint) && !self.is_taken(r.oid)
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
            Kind::Constraint if name.is_empty() => {
                let table = table?;
                let like = |c: &&super::actual::Constraint| self.is_defined_so(id, Entity::Constraint(table, c));
                let free = |c: &&super::actual::Constraint| {
                    object.dropped.is_none()
                        && !self
                            .found
                            .iter()
                            .any(|f| matches!(f, Some((Entity::Constraint(_, other), _)) if other.oid == c.oid))
                };
                let found = table.constraints.iter().find(like).or_else(|| {
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
                    let mut all = table.constraints.iter().filter(|c| c.kind == kind).filter(free);
                    all.find(|c| kind == 'p' || c.columns == written.columns)
                });
                found.map(|constraint| Entity::Constraint(table, constraint))
            }
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

    fn is_taken(&self, oid: u32) -> bool {
        self.found
            .iter()
            .any(|found| matches!(found, Some((Entity::Relation(relation), _)) if relation.oid == oid))
    }

    /// What becomes of a claim of this step.
    pub fn verdict(&self, at: usize, claim: &Claim) -> Verdict {
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
                // It was made; so it was dropped.
                (None, Some(made)) if self.was_run(made) => Verdict::Present,
                (None, Some(_)) => Verdict::Either,
                (None, None) => Verdict::Holds,
            },
            Claim::Named(id, name) => match self.found[id] {
                Some((_, now)) if now >= name => Verdict::Present,
                Some(_) => Verdict::Missing,
                None => self.exists(id),
            },
            Claim::Property(id, property) => self.property_holds(id, property),
        }
    }

    fn exists(&self, id: Id) -> Verdict {
        if let Some((entity, _)) = self.found[id] {
            return match is_another(self.expected.objects[id].kind, entity) {
                Some(what) if self.expected.objects[id].created.is_some() => Verdict::Differs(format!("it is {what}")),
                _ => Verdict::Present,
            };
        }
        let mut above = Some(id);
        while let Some(one) = above {
            let undecided = self.deciding && keys(self.expected, one).iter().any(|key| self.shared.contains_key(key));
            let object = &self.expected.objects[one];
            if undecided || object.dropped.is_some() || !object.may_go.is_empty() {
                return Verdict::Either;
            }
            above = self.expected.objects[one]
                .on
                .filter(|_| object.kind != Kind::Index || one == id);
        }
        Verdict::Missing
    }

    fn property_holds(&self, id: Id, property: usize) -> Verdict {
        let object = &self.expected.objects[id];
        let Some((entity, _)) = self.found[id] else {
            return self.exists(id);
        };
        let (at, what) = &object.properties[property];
        let slot = what.slot();
        let all: Vec<usize> = (0..object.properties.len())
            .filter(|i| object.properties[*i].1.slot() == slot)
            .collect();
        let mut fitting: Vec<usize> = all
            .iter()
            .copied()
            .filter(|i| self.difference(id, *i, entity).is_none())
            .collect();
        // What fits only because something was changed that is not compared gives way to what fits as it is.
        let exactly = |i: &usize| {
            self.compare_strictly(id, object.properties[*i].0, &object.properties[*i].1, entity)
                .is_none()
        };
        let exact: Vec<usize> = match fitting.len() {
            0 | 1 => vec![],
            _ => fitting.iter().copied().filter(exactly).collect(),
        };
        if !exact.is_empty() {
            fitting = exact;
        }
        let creates = object.created == Some(*at);
        // What was said until the last step that was run is what it is at least.
        let least = all
            .iter()
            .rev()
            .find(|i| self.was_run(object.properties[**i].0))
            .copied()
            .unwrap_or(0);
        let least = fitting.iter().find(|i| **i >= least).or(fitting.last());
        let Some((first, last)) = least.zip(fitting.last()) else {
            let difference = self.difference(id, property, entity).unwrap_or_default();
            return match creates {
                true => Verdict::Differs(self.sentence(id, &difference)),
                // Whether it was like that before, or somebody has changed it since.
                false => Verdict::Missing,
            };
        };
        if first == last {
            return match property <= *first {
                // What always holds of something that was there before says nothing.
                true if object.created.is_none() && is_negative(what) && all.len() == 1 => Verdict::Holds,
                // What the caller makes is the caller's without a word.
                true if matches!(what, Property::Owner(role) if *role == self.actual.user) && property == all[0] => {
                    Verdict::Holds
                }
                true => Verdict::Present,
                false => Verdict::Missing,
            };
        }
        // Between two moments that look the same, the steps around it decide.
        match () {
            () if property <= *first => Verdict::Present,
            () if property > *last => Verdict::Missing,
            () => Verdict::Either,
        }
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

    /// It comes before something whose effect is beyond doubt.
    fn was_run(&self, step: usize) -> bool {
        self.frontier.is_some_and(|frontier| step <= frontier)
    }

    /// What is known of one step tells more of others.
    fn advance(&mut self) {
        loop {
            let next = self.last_beyond_doubt();
            if next <= self.frontier {
                break;
            }
            self.frontier = next;
        }
    }

    /// The last step of which something is so that was not before.
    fn last_beyond_doubt(&self) -> Option<usize> {
        (0..self.expected.effects.len()).rev().find(|step| {
            let verdicts: Vec<Verdict> = self.expected.effects[*step]
                .claims
                .iter()
                .map(|c| self.verdict(*step, c))
                .collect();
            verdicts.contains(&Verdict::Present)
                && !verdicts
                    .iter()
                    .any(|v| matches!(v, Verdict::Missing | Verdict::Differs(_)))
        })
    }
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
fn keys(expected: &ExpectedSchema, id: Id) -> Vec<Key> {
    let object = &expected.objects[id];
    let on = object.on.filter(|_| object.kind != Kind::Index);
    object
        .names
        .iter()
        .map(|(_, schema, name)| (class(object.kind), on, schema.clone(), object.key(name)))
        .collect()
}
