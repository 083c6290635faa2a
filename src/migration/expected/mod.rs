//! What a script makes of the database, statement by statement, without looking at what is there: objects with the names that they have had,
//! and what was said of them when.

mod follow;
mod follow_table;
mod parts;
mod property;

pub use property::{Parent, Property};

use std::collections::HashMap;

use crate::pg::ast::TypeName;
use crate::script::ScriptStatement;
use crate::script::ast::{Kind, Name, Target};

use super::actual::ActualSchema;

/// The number of an object in the schema that the script makes.
pub type Id = usize;

/// Something that the script creates or speaks of.
#[derive(Debug, Clone)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// The table (of a label: the type) to which it belongs.
    pub on: Option<Id>,
    /// Schema and name, since which step (by index). The name is empty where Postgres chooses it.
    pub names: Vec<(usize, String, String)>,
    /// The step that creates it; `None`: it must be there before.
    pub created: Option<usize>,
    /// The step that drops it.
    pub dropped: Option<usize>,
    /// IF NOT EXISTS under a name that this one has by then: it is made where that was not.
    pub instead_of: Option<Id>,
    /// Of a constraint without a name: the one that Postgres chooses, where it is free.
    pub chosen: Option<String>,
    /// What is said of it, and by which step.
    pub properties: Vec<(usize, Property)>,
    /// Of a function: the types of its arguments.
    pub arguments: Option<Vec<TypeName>>,
    /// The search_path under which it was first named.
    pub path: Vec<String>,
    /// It has columns that the script does not name (a view, LIKE, CREATE TABLE AS).
    pub open: bool,
    /// Made by something else (the sequence of a serial), and gone with it.
    pub implicit: bool,
    /// Gone with its session.
    pub temporary: bool,
    /// Steps that may drop it as a side effect (a column goes with its indexes; CASCADE).
    pub may_go: Vec<usize>,
    /// The last step that changes something of it that is not compared.
    pub altered: Option<usize>,
}

impl Object {
    /// The name that it has in the end.
    pub fn name(&self) -> &str {
        self.names.last().map_or("", |(_, _, name)| name)
    }

    /// What it is looked up by: one of its names, that of a function with the types of its arguments.
    pub fn key(&self, name: &str) -> String {
        match self.kind {
            Kind::Function => {
                let types: Vec<&str> = self.arguments.iter().flatten().map(|t| t.text.as_str()).collect();
                format!("{name}({})", types.join(","))
            }
            _ => name.into(),
        }
    }
}

/// What is true of the schema after a statement.
#[derive(Debug, Clone)]
pub enum Claim {
    /// It exists.
    Created(Id),
    /// It does not.
    Dropped(Id),
    /// It has this name (index into `names`).
    Named(Id, usize),
    /// This holds of it (index into `said`).
    Property(Id, usize),
}

impl Claim {
    /// What it speaks of.
    pub fn object(&self) -> Id {
        match *self {
            Claim::Created(id) | Claim::Dropped(id) | Claim::Named(id, _) | Claim::Property(id, _) => id,
        }
    }
}

/// Something without which a step cannot run.
#[derive(Debug, Clone)]
pub enum Need {
    /// An object.
    Object(Id),
    /// A type, under this search_path.
    Type(TypeName),
    /// A function of this name.
    Function(Name),
    /// A schema.
    Schema(String),
}

/// A step and what it says.
#[derive(Debug, Clone, Default)]
pub struct StatementEffects {
    /// In order; the first is what the step is about.
    pub claims: Vec<Claim>,
    /// In order.
    pub needs: Vec<Need>,
    /// What running it a second time would raise: SQLSTATE and the object.
    pub rerun_error: Option<(&'static str, Id)>,
    /// It says IF NOT EXISTS or OR REPLACE.
    pub quiet: bool,
    /// What of it is not compared.
    pub not_compared: Vec<String>,
    /// Tables whose rows it writes.
    pub data: Vec<Id>,
    /// It writes data.
    pub is_data: bool,
    /// What it does cannot be known.
    pub opaque: Option<String>,
    /// It leaves nothing behind.
    pub skipped: Option<String>,
    /// The search_path under which it runs: existing schemas, in order.
    pub path: Vec<String>,
    /// CASCADE is written.
    pub cascades: bool,
    /// ATTACH, DETACH, INHERIT, NO INHERIT.
    pub link: Option<Link>,
    /// PARTITION OF, INHERITS: the child and what it is made of.
    pub made_of: Vec<(Id, Id)>,
}

/// A table becomes a partition or an heir of another one, or ceases to be it.
#[derive(Debug, Clone)]
pub struct Link {
    /// The partition or heir.
    pub child: Id,
    /// Of what.
    pub parent: Id,
    /// ATTACH, INHERIT.
    pub yes: bool,
    /// What a second time raises.
    pub rerun_error: &'static str,
}

/// The whole script.
#[derive(Debug, Default)]
pub struct ExpectedSchema {
    /// By their numbers.
    pub objects: Vec<Object>,
    /// Those that are types.
    pub types: Vec<Id>,
    /// By step.
    pub effects: Vec<StatementEffects>,
    /// By step: as it is written, in lower case.
    texts: Vec<String>,
    /// The last step that renames something.
    pub last_rename: Option<usize>,
    /// The last step that adds a column to a table.
    pub last_added: Option<usize>,
    /// Which object has which name at this point of the script: class, table, schema, name.
    live: HashMap<(u8, Option<Id>, String, String), Vec<Id>>,
    path: Vec<String>,
}

/// Things of one class share their names.
pub fn class(kind: Kind) -> u8 {
    match kind {
        kind if kind.is_relation() => 0,
        Kind::Type | Kind::Domain => 1,
        Kind::Function => 2,
        Kind::Schema => 3,
        Kind::Extension => 4,
        Kind::Column => 5,
        Kind::Constraint => 6,
        Kind::Trigger => 7,
        Kind::Policy => 8,
        Kind::Label => 9,
        _ => 10,
    }
}

impl ExpectedSchema {
    /// Follows a script.
    pub fn of(steps: &[ScriptStatement], actual: &ActualSchema) -> ExpectedSchema {
        let mut expected = ExpectedSchema {
            path: actual.path.clone(),
            ..ExpectedSchema::default()
        };
        for (at, step) in steps.iter().enumerate() {
            expected.texts.push(step.text.to_lowercase());
            let mut effects = StatementEffects {
                path: expected.path.clone(),
                ..StatementEffects::default()
            };
            for action in &step.actions {
                expected.follow(at, action, actual, &mut effects);
            }
            expected.leave_out_temporary(&mut effects);
            expected.effects.push(effects);
        }
        expected
    }

    /// What is done to temporary tables is gone with them.
    fn leave_out_temporary(&self, effects: &mut StatementEffects) {
        let temporary = |id: Id| {
            let object = &self.objects[id];
            object.temporary || object.on.is_some_and(|on| self.objects[on].temporary)
        };
        let about = effects.claims.first().map(Claim::object);
        if about.is_some_and(temporary) || effects.data.iter().any(|id| temporary(*id)) {
            effects.claims.clear();
            effects.needs.clear();
            effects.data.clear();
            effects.rerun_error = None;
            effects.skipped = Some("of a temporary table: gone with its session".into());
        }
    }

    fn object(&mut self, at: usize, kind: Kind, on: Option<Id>, (schema, name): (String, String), created: bool) -> Id {
        let id = self.objects.len();
        self.objects.push(Object {
            kind,
            on,
            names: vec![(at, schema.clone(), name.clone())],
            created: created.then_some(at),
            dropped: None,
            instead_of: None,
            chosen: None,
            properties: vec![],
            arguments: None,
            path: self.path.clone(),
            open: kind == Kind::View || kind == Kind::MaterializedView,
            implicit: false,
            temporary: false,
            may_go: vec![],
            altered: None,
        });
        if matches!(kind, Kind::Type | Kind::Domain) {
            self.types.push(id);
        }
        if !name.is_empty() {
            self.live.entry((class(kind), on, schema, name)).or_default().push(id);
        }
        id
    }

    fn live(&self, kind: Kind, on: Option<Id>, schema: &str, name: &str) -> Option<Id> {
        let key = (class(kind), on, schema.to_string(), name.to_string());
        self.live.get(&key).and_then(|ids| ids.last()).copied()
    }

    fn bury(&mut self, id: Id) {
        for ids in self.live.values_mut() {
            ids.retain(|one| *one != id);
        }
    }

    /// Where a new object of this name goes.
    fn place(&self, name: &Name) -> (String, String) {
        let schema = name.schema.clone().or_else(|| self.path.first().cloned());
        (schema.unwrap_or_else(|| "public".into()), name.name.clone())
    }

    /// What this name means: something of the script's, something that is there, or something that must be.
    fn find(&mut self, at: usize, kind: Kind, name: &Name, actual: &ActualSchema) -> Id {
        if matches!(kind, Kind::Schema | Kind::Extension) {
            return self
                .live(kind, None, "", &name.name)
                .unwrap_or_else(|| self.object(at, kind, None, (String::new(), name.name.clone()), false));
        }
        let schemas: Vec<String> = match &name.schema {
            Some(schema) => vec![schema.clone()],
            None => self.path.clone(),
        };
        for schema in &schemas {
            if let Some(id) = self.live(kind, None, schema, &name.name) {
                return id;
            }
            let there = match kind {
                kind if kind.is_relation() => actual.relation(schema, &name.name).is_some(),
                Kind::Function => actual
                    .functions
                    .iter()
                    .any(|f| f.schema == *schema && f.name == name.name),
                _ => actual.types.iter().any(|t| t.schema == *schema && t.name == name.name),
            };
            // What the script drops and has not made again is not what is there.
            if there && !self.was_here(kind, schema, &name.name) {
                return self.object(at, kind, None, (schema.clone(), name.name.clone()), false);
            }
        }
        let place = self.place(name);
        self.object(at, kind, None, place, false)
    }

    fn was_here(&self, kind: Kind, schema: &str, name: &str) -> bool {
        self.objects.iter().any(|object| {
            class(object.kind) == class(kind)
                && object.on.is_none()
                && object.names.iter().any(|(_, s, n)| s == schema && n == name)
        })
    }

    fn find_target(&mut self, at: usize, target: &Target, actual: &ActualSchema) -> Id {
        if target.kind == Kind::Function {
            return self.function(at, &target.name, target.arguments.as_deref(), actual, false);
        }
        match &target.on {
            None => self.find(at, target.kind, &target.name, actual),
            Some(on) => {
                let kind = if target.kind == Kind::Label {
                    Kind::Type
                } else {
                    Kind::Table
                };
                let on = self.find(at, kind, on, actual);
                self.part(at, target.kind, on, &target.name.name)
            }
        }
    }

    /// What belongs to a table, by its name.
    fn part(&mut self, at: usize, kind: Kind, on: Id, name: &str) -> Id {
        self.live(kind, Some(on), "", name)
            .unwrap_or_else(|| self.object(at, kind, Some(on), (String::new(), name.to_string()), false))
    }

    /// A function by its name and the types of its arguments, as text: overloads are told apart by it.
    fn function(
        &mut self,
        at: usize,
        name: &Name,
        arguments: Option<&[TypeName]>,
        actual: &ActualSchema,
        create: bool,
    ) -> Id {
        let texts = |types: &[TypeName]| -> Vec<String> { types.iter().map(|t| t.text.clone()).collect() };
        let schemas: Vec<String> = match (&name.schema, create) {
            (Some(schema), _) => vec![schema.clone()],
            (None, true) => vec![self.place(name).0],
            (None, false) => self.path.clone(),
        };
        for schema in &schemas {
            let key = (class(Kind::Function), None, schema.clone(), name.name.clone());
            let all = self.live.get(&key).cloned().unwrap_or_default();
            let same = all
                .iter()
                .rev()
                .find(|id| match (&self.objects[**id].arguments, arguments) {
                    (Some(own), Some(asked)) => texts(own) == texts(asked),
                    _ => true,
                });
            if let Some(id) = same {
                return *id;
            }
            if actual
                .functions
                .iter()
                .any(|f| f.schema == *schema && f.name == name.name)
                || create
            {
                let id = self.object(at, Kind::Function, None, (schema.clone(), name.name.clone()), create);
                self.objects[id].arguments = arguments.map(<[TypeName]>::to_vec);
                return id;
            }
        }
        let place = self.place(name);
        let id = self.object(at, Kind::Function, None, place, create);
        self.objects[id].arguments = arguments.map(<[TypeName]>::to_vec);
        id
    }

    /// Creates an object, unless the script already has.
    fn create(
        &mut self,
        at: usize,
        kind: Kind,
        on: Option<Id>,
        place: (String, String),
        effects: &mut StatementEffects,
    ) -> Id {
        let id = match self.live(kind, on, &place.0, &place.1) {
            // What was only spoken of before (DROP ... IF EXISTS) is another one.
            Some(id) if self.objects[id].created.is_some() && self.objects[id].kind == kind => id,
            Some(id)
                if on.is_none()
                    && self.objects[id].created.is_none()
                    && self.objects[id].dropped.is_none()
                    && self.objects[id].properties.is_empty()
                    && self.objects[id].kind == kind =>
            {
                self.objects[id].created = Some(at);
                id
            }
            _ => self.object(at, kind, on, place, true),
        };
        effects.claims.push(Claim::Created(id));
        id
    }

    /// IF NOT EXISTS: what has the name already stays, and is what later statements mean. Which of the two is there is there to be seen.
    fn create_instead(
        &mut self,
        at: usize,
        kind: Kind,
        of: Id,
        place: (String, String),
        effects: &mut StatementEffects,
    ) -> Id {
        let id = self.object(at, kind, None, place.clone(), true);
        self.objects[id].instead_of = Some(of);
        if let Some(live) = self.live.get_mut(&(class(kind), None, place.0, place.1)) {
            live.retain(|one| *one != id);
        }
        effects.claims.push(Claim::Created(id));
        id
    }

    /// What may be there instead of this, and is meant by later statements then: under IF NOT EXISTS, or as a part of such a table.
    fn instead(&self, id: Id) -> Vec<Id> {
        let object = &self.objects[id];
        let all = (0..self.objects.len()).filter(|other| {
            let other = &self.objects[*other];
            let part = other.kind == object.kind
                && object.on.is_some()
                && other.on.is_some_and(|on| self.objects[on].instead_of == object.on)
                && other.name() == object.name();
            other.instead_of == Some(id) || part
        });
        all.collect()
    }

    fn set_property(&mut self, at: usize, id: Id, property: Property, effects: &mut StatementEffects) {
        self.objects[id].properties.push((at, property));
        effects
            .claims
            .push(Claim::Property(id, self.objects[id].properties.len() - 1));
    }

    fn set_rerun_error(&self, effects: &mut StatementEffects, quiet: bool, code: &'static str, id: Id) {
        effects.quiet |= quiet;
        if !quiet && effects.rerun_error.is_none() {
            effects.rerun_error = Some((code, id));
        }
    }

    fn needs_schema(&self, name: &Name, effects: &mut StatementEffects) {
        if let Some(schema) = &name.schema {
            effects.needs.push(Need::Schema(schema.clone()));
        }
    }

    fn named(&mut self, at: usize, id: Id, schema: String, name: String, effects: &mut StatementEffects) {
        self.bury(id);
        self.last_rename = Some(at);
        let (kind, on) = (self.objects[id].kind, self.objects[id].on);
        // Indexes are found by their own name, whatever they index.
        let on = if kind == Kind::Index { None } else { on };
        for other in self.instead(id) {
            self.objects[other].names.push((at, schema.clone(), name.clone()));
        }
        self.objects[id].names.push((at, schema.clone(), name.clone()));
        effects.claims.push(Claim::Named(id, self.objects[id].names.len() - 1));
        self.live.entry((class(kind), on, schema, name)).or_default().push(id);
    }
}
