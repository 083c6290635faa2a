//! What a script makes of the world, statement by statement, without looking at what is there: objects with the names that they have had,
//! and what was said of them when.

use std::collections::HashMap;

use crate::pg::tree::{Expression, TypeName};
use crate::script::Step;
use crate::script::ast::{
    Action, ColumnChange, ColumnDefinition, ConstraintDefinition, FunctionDefinition, IndexDefinition, Kind, Name,
    PolicyDefinition, Rule, Target, TriggerDefinition,
};

use super::actual::Actual;

/// The number of an object in the world.
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
    /// What is said of it, and by which step.
    pub said: Vec<(usize, Said)>,
    /// Of a function: the types of its arguments.
    pub arguments: Option<Vec<TypeName>>,
    /// The search_path under which it was first named.
    pub path: Vec<String>,
}

impl Object {
    /// The name that it has in the end.
    pub fn name(&self) -> &str {
        self.names.last().map_or("", |(_, _, name)| name)
    }
}

/// One thing that is said of an object. Two of the same slot supersede each other.
#[derive(Debug, Clone)]
pub enum Said {
    /// Type of a column.
    Type(TypeName),
    /// NOT NULL.
    NotNull(bool),
    /// DEFAULT.
    Default(Option<Expression>),
    /// A sequence of its own.
    Serial,
    /// GENERATED ALWAYS AS (...).
    Generated(Expression),
    /// IDENTITY.
    Identity(Option<char>),
    /// Of a constraint.
    Constraint(ConstraintDefinition),
    /// VALIDATE.
    Valid,
    /// Of an index.
    Index(IndexDefinition),
    /// Of a function.
    Function(FunctionDefinition),
    /// Of a trigger.
    Trigger(TriggerDefinition),
    /// Of a policy.
    Policy(PolicyDefinition),
    /// Of a view.
    View(Expression, Vec<String>),
    /// Of an enum.
    Labels(Vec<String>),
    /// Of a domain.
    Base(TypeName),
    /// ENABLE, DISABLE ROW LEVEL SECURITY.
    RowSecurity(bool),
    /// FORCE, NO FORCE.
    Force(bool),
    /// COMMENT.
    Comment(Option<String>),
}

impl Said {
    /// What it speaks of: a later one of the same slot takes its place.
    pub fn slot(&self) -> &'static str {
        match self {
            Said::Type(_) => "type",
            Said::NotNull(_) => "NOT NULL",
            Said::Default(_) | Said::Serial => "default",
            Said::Generated(_) => "generated",
            Said::Identity(_) => "identity",
            Said::Valid => "valid",
            Said::RowSecurity(_) => "row-level security",
            Said::Force(_) => "forced row-level security",
            Said::Comment(_) => "comment",
            Said::Labels(_) => "labels",
            Said::Base(_) => "base type",
            _ => "definition",
        }
    }
}

/// What a step says that is so afterwards.
#[derive(Debug, Clone)]
pub enum Claim {
    /// It exists.
    Created(Id),
    /// It does not.
    Dropped(Id),
    /// It has this name (index into `names`).
    Named(Id, usize),
    /// This holds of it (index into `said`).
    Said(Id, usize),
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
pub struct Told {
    /// In order; the first is what the step is about.
    pub claims: Vec<Claim>,
    /// In order.
    pub needs: Vec<Need>,
    /// What running it a second time would raise: SQLSTATE and the object.
    pub again: Option<(&'static str, Id)>,
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
}

/// The whole script.
#[derive(Debug, Default)]
pub struct World {
    /// By their numbers.
    pub objects: Vec<Object>,
    /// By step.
    pub told: Vec<Told>,
    /// What is called how at the moment: class, table, schema, name.
    live: HashMap<(u8, Option<Id>, String, String), Vec<Id>>,
    path: Vec<String>,
}

fn class(kind: Kind) -> u8 {
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

impl World {
    /// Follows a script.
    pub fn of(steps: &[Step], actual: &Actual) -> World {
        let mut world = World {
            path: actual.path.clone(),
            ..World::default()
        };
        for (at, step) in steps.iter().enumerate() {
            let mut told = Told {
                path: world.path.clone(),
                ..Told::default()
            };
            for action in &step.actions {
                world.follow(at, action, actual, &mut told);
            }
            world.told.push(told);
        }
        world
    }

    fn object(&mut self, at: usize, kind: Kind, on: Option<Id>, (schema, name): (String, String), created: bool) -> Id {
        let id = self.objects.len();
        self.objects.push(Object {
            kind,
            on,
            names: vec![(at, schema.clone(), name.clone())],
            created: created.then_some(at),
            dropped: None,
            said: vec![],
            arguments: None,
            path: self.path.clone(),
        });
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
    fn find(&mut self, at: usize, kind: Kind, name: &Name, actual: &Actual) -> Id {
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

    fn find_target(&mut self, at: usize, target: &Target, actual: &Actual) -> Id {
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
        actual: &Actual,
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
    fn create(&mut self, at: usize, kind: Kind, on: Option<Id>, place: (String, String), told: &mut Told) -> Id {
        let id = match self.live(kind, on, &place.0, &place.1) {
            // What was only spoken of before (DROP ... IF EXISTS) is another one.
            Some(id) if self.objects[id].created.is_some() => id,
            Some(id) if on.is_none() && self.objects[id].dropped.is_none() && self.objects[id].said.is_empty() => {
                self.objects[id].created = Some(at);
                id
            }
            _ => self.object(at, kind, on, place, true),
        };
        told.claims.push(Claim::Created(id));
        id
    }

    fn say(&mut self, at: usize, id: Id, said: Said, told: &mut Told) {
        self.objects[id].said.push((at, said));
        told.claims.push(Claim::Said(id, self.objects[id].said.len() - 1));
    }

    fn again(&self, told: &mut Told, quiet: bool, code: &'static str, id: Id) {
        told.quiet |= quiet;
        if !quiet && told.again.is_none() {
            told.again = Some((code, id));
        }
    }

    fn needs_schema(&self, name: &Name, told: &mut Told) {
        if let Some(schema) = &name.schema {
            told.needs.push(Need::Schema(schema.clone()));
        }
    }

    fn column(&mut self, at: usize, table: Id, column: &ColumnDefinition, told: &mut Told, actual: &Actual) -> Id {
        let id = self.create(
            at,
            Kind::Column,
            Some(table),
            (String::new(), column.name.clone()),
            told,
        );
        told.needs.push(Need::Type(column.type_name.clone()));
        self.say(at, id, Said::Type(column.type_name.clone()), told);
        self.say(at, id, Said::NotNull(column.not_null), told);
        match (&column.generated, column.identity, column.serial) {
            (Some(expression), ..) => self.say(at, id, Said::Generated(*expression), told),
            (_, Some(identity), _) => self.say(at, id, Said::Identity(Some(identity)), told),
            (_, _, true) => self.say(at, id, Said::Serial, told),
            _ => self.say(at, id, Said::Default(column.default), told),
        }
        for constraint in &column.constraints {
            self.constraint(at, table, constraint, told, actual);
        }
        id
    }

    fn constraint(
        &mut self,
        at: usize,
        table: Id,
        constraint: &ConstraintDefinition,
        told: &mut Told,
        actual: &Actual,
    ) -> Id {
        let name = constraint.name.clone().unwrap_or_default();
        let id = match name.is_empty() {
            true => {
                let id = self.object(at, Kind::Constraint, Some(table), (String::new(), name), true);
                told.claims.push(Claim::Created(id));
                id
            }
            false => self.create(at, Kind::Constraint, Some(table), (String::new(), name), told),
        };
        if let Rule::Foreign(key) = &constraint.rule {
            let parent = self.find(at, Kind::Table, &key.parent, actual);
            told.needs.push(Need::Object(parent));
            for column in &key.parent_columns {
                let column = self.part(at, Kind::Column, parent, column);
                told.needs.push(Need::Object(column));
            }
        }
        for column in &constraint.columns {
            let column = self.part(at, Kind::Column, table, column);
            told.needs.push(Need::Object(column));
            if matches!(constraint.rule, Rule::Primary) {
                self.say(at, column, Said::NotNull(true), told);
            }
        }
        if let Some(index) = &constraint.using_index {
            told.not_compared.push(format!("that {index} is its index"));
        }
        if matches!(constraint.rule, Rule::Exclude) {
            told.not_compared.push("what an exclusion constraint says".into());
        }
        self.say(at, id, Said::Constraint(constraint.clone()), told);
        id
    }

    fn follow(&mut self, at: usize, action: &Action, actual: &Actual, told: &mut Told) {
        match action {
            Action::CreateSchema { name, if_not_exists } => {
                let id = self.create(at, Kind::Schema, None, (String::new(), name.clone()), told);
                self.again(told, *if_not_exists, "42P06", id);
            }
            Action::CreateExtension { name, if_not_exists } => {
                let id = self.create(at, Kind::Extension, None, (String::new(), name.clone()), told);
                self.again(told, *if_not_exists, "42710", id);
            }
            Action::CreateTable {
                name,
                temporary,
                if_not_exists,
                columns,
                constraints,
                from,
            } => {
                if *temporary {
                    told.skipped = Some("a temporary table: gone with its session".into());
                    return;
                }
                self.needs_schema(name, told);
                let place = self.place(name);
                let known = self.live(Kind::Table, None, &place.0, &place.1);
                let id = self.create(at, Kind::Table, None, place, told);
                self.again(told, *if_not_exists, "42P07", id);
                // The second CREATE TABLE IF NOT EXISTS of a script does nothing.
                if known == Some(id) && *if_not_exists && self.objects[id].created != Some(at) {
                    return;
                }
                for parent in from {
                    let parent = self.find(at, Kind::Table, parent, actual);
                    told.needs.push(Need::Object(parent));
                    told.not_compared.push("columns that come from another table".into());
                }
                for column in columns {
                    self.column(at, id, column, told, actual);
                }
                for constraint in constraints {
                    self.constraint(at, id, constraint, told, actual);
                }
            }
            Action::CreateTableAs {
                name,
                materialized_view,
                temporary,
                if_not_exists,
            } => {
                if *temporary {
                    told.skipped = Some("a temporary table: gone with its session".into());
                    return;
                }
                self.needs_schema(name, told);
                let kind = if *materialized_view {
                    Kind::MaterializedView
                } else {
                    Kind::Table
                };
                let place = self.place(name);
                let id = self.create(at, kind, None, place, told);
                self.again(told, *if_not_exists, "42P07", id);
                told.not_compared.push("its query".into());
            }
            Action::AddColumn {
                table,
                column,
                if_not_exists,
            } => {
                let table = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(table));
                let known = self.live(Kind::Column, Some(table), "", &column.name);
                if known.is_some_and(|id| self.objects[id].created.is_some()) && *if_not_exists {
                    told.quiet = true;
                    told.claims.extend(known.map(Claim::Created));
                    return;
                }
                let id = self.column(at, table, column, told, actual);
                self.again(told, *if_not_exists, "42701", id);
            }
            Action::AlterColumn { table, column, change } => {
                let table = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Column, table, column);
                told.needs.push(Need::Object(id));
                match change {
                    ColumnChange::Type(name) => {
                        told.needs.push(Need::Type(name.clone()));
                        self.say(at, id, Said::Type(name.clone()), told);
                    }
                    ColumnChange::Default(value) => self.say(at, id, Said::Default(*value), told),
                    ColumnChange::NotNull(yes) => self.say(at, id, Said::NotNull(*yes), told),
                    ColumnChange::Identity(identity) => {
                        if identity.is_some() {
                            self.again(told, false, "55000", id);
                        }
                        self.say(at, id, Said::Identity(*identity), told);
                    }
                }
            }
            Action::AddConstraint { table, constraint } => {
                let table = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(table));
                let id = self.constraint(at, table, constraint, told, actual);
                match (&constraint.rule, &constraint.name) {
                    (Rule::Primary, _) => self.again(told, false, "42P16", id),
                    (Rule::Unique { .. }, Some(_)) => self.again(told, false, "42P07", id),
                    (_, Some(_)) => self.again(told, false, "42710", id),
                    // Postgres chooses another name, and makes a second one.
                    (_, None) => {}
                }
            }
            Action::ValidateConstraint { table, name } => {
                let table = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Constraint, table, name);
                told.needs.push(Need::Object(id));
                self.say(at, id, Said::Valid, told);
            }
            Action::RowSecurity { table, force, on } => {
                let table = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(table));
                let said = if *force {
                    Said::Force(*on)
                } else {
                    Said::RowSecurity(*on)
                };
                self.say(at, table, said, told);
            }
            Action::CreateIndex(index) => {
                let table = self.find(at, Kind::Table, &index.table, actual);
                told.needs.push(Need::Object(table));
                for part in index.parts.iter().filter_map(|part| part.column.as_ref()) {
                    let column = self.part(at, Kind::Column, table, part);
                    told.needs.push(Need::Object(column));
                }
                let schema = self.objects[table].names.last().map(|(_, schema, _)| schema.clone());
                let place = (schema.unwrap_or_default(), index.name.clone().unwrap_or_default());
                let id = match index.name {
                    Some(_) => self.create(at, Kind::Index, None, place, told),
                    None => {
                        let id = self.object(at, Kind::Index, None, place, true);
                        told.claims.push(Claim::Created(id));
                        id
                    }
                };
                self.objects[id].on = Some(table);
                if index.name.is_some() {
                    self.again(told, index.if_not_exists, "42P07", id);
                }
                self.say(at, id, Said::Index(index.clone()), told);
            }
            Action::CreateFunction(function) => {
                self.needs_schema(&function.name, told);
                for needed in function.arguments.iter().chain(&function.returns) {
                    told.needs.push(Need::Type(needed.clone()));
                }
                let id = self.function(at, &function.name, Some(&function.arguments), actual, true);
                self.objects[id].created.get_or_insert(at);
                told.claims.push(Claim::Created(id));
                self.again(told, function.replace, "42723", id);
                self.say(at, id, Said::Function(function.clone()), told);
            }
            Action::CreateTrigger(trigger) => {
                let table = self.find(at, Kind::Table, &trigger.table, actual);
                told.needs.push(Need::Object(table));
                told.needs.push(Need::Function(trigger.function.clone()));
                let id = self.create(
                    at,
                    Kind::Trigger,
                    Some(table),
                    (String::new(), trigger.name.clone()),
                    told,
                );
                self.again(told, trigger.replace, "42710", id);
                self.say(at, id, Said::Trigger(trigger.clone()), told);
            }
            Action::CreatePolicy(policy) => {
                let table = self.find(at, Kind::Table, &policy.table, actual);
                told.needs.push(Need::Object(table));
                let id = self.create(
                    at,
                    Kind::Policy,
                    Some(table),
                    (String::new(), policy.name.clone()),
                    told,
                );
                self.again(told, false, "42710", id);
                self.say(at, id, Said::Policy(policy.clone()), told);
            }
            Action::CreateEnum { name, labels } => {
                self.needs_schema(name, told);
                let place = self.place(name);
                let id = self.create(at, Kind::Type, None, place, told);
                self.again(told, false, "42710", id);
                for label in labels {
                    let label = self.object(at, Kind::Label, Some(id), (String::new(), label.clone()), true);
                    told.claims.push(Claim::Created(label));
                }
                self.say(at, id, Said::Labels(labels.clone()), told);
            }
            Action::CreateType { kind, name, base } => {
                self.needs_schema(name, told);
                let place = self.place(name);
                let id = self.create(at, *kind, None, place, told);
                self.again(told, false, "42710", id);
                match base {
                    Some(base) => {
                        told.needs.push(Need::Type(base.clone()));
                        self.say(at, id, Said::Base(base.clone()), told);
                        told.not_compared.push("defaults and constraints of the domain".into());
                    }
                    None => told.not_compared.push("what the type is made of".into()),
                }
            }
            Action::AddLabel {
                name,
                label,
                if_not_exists,
            } => {
                let on = self.find(at, Kind::Type, name, actual);
                told.needs.push(Need::Object(on));
                let id = self.create(at, Kind::Label, Some(on), (String::new(), label.clone()), told);
                self.again(told, *if_not_exists, "42710", id);
            }
            Action::CreateSequence { name, if_not_exists } => {
                self.needs_schema(name, told);
                let place = self.place(name);
                let id = self.create(at, Kind::Sequence, None, place, told);
                self.again(told, *if_not_exists, "42P07", id);
            }
            Action::CreateView {
                name,
                replace,
                columns,
                query,
            } => {
                self.needs_schema(name, told);
                let place = self.place(name);
                let id = self.create(at, Kind::View, None, place, told);
                self.again(told, *replace, "42P07", id);
                self.say(at, id, Said::View(*query, columns.clone()), told);
            }
            Action::Drop {
                target,
                if_exists,
                cascade,
            } => {
                let id = self.find_target(at, target, actual);
                if let (Some(on), false) = (self.objects[id].on, *if_exists) {
                    told.needs.push(Need::Object(on));
                }
                told.quiet |= *if_exists;
                told.cascades |= *cascade;
                self.objects[id].dropped = Some(at);
                self.bury(id);
                told.claims.push(Claim::Dropped(id));
                let code = match target.kind {
                    Kind::Column => "42703",
                    Kind::Function => "42883",
                    Kind::Schema => "3F000",
                    kind if kind.is_relation() => "42P01",
                    _ => "42704",
                };
                self.again(told, *if_exists, code, id);
            }
            Action::Rename { target, to, .. } => {
                let id = self.find_target(at, target, actual);
                told.needs.push(Need::Object(id));
                let schema = self.objects[id].names.last().map(|(_, schema, _)| schema.clone());
                self.named(at, id, schema.unwrap_or_default(), to.clone(), told);
                let code = match target.kind {
                    Kind::Column => "42703",
                    Kind::Label => "22023",
                    kind if kind.is_relation() => "42P01",
                    _ => "42704",
                };
                self.again(told, false, code, id);
            }
            Action::SetSchema { target, to } => {
                let id = self.find_target(at, target, actual);
                told.needs.push(Need::Object(id));
                told.needs.push(Need::Schema(to.clone()));
                let name = self.objects[id].name().to_string();
                self.named(at, id, to.clone(), name, told);
                self.again(told, false, "42P01", id);
            }
            Action::Grant {
                revoke,
                privileges,
                targets,
                roles,
            } => {
                for target in targets {
                    let on = self.find_target(at, target, actual);
                    told.needs.push(Need::Object(on));
                    for role in roles {
                        for privilege in all_of(target.kind, privileges) {
                            let name = format!("{privilege} to {role}");
                            let id = match revoke {
                                true => {
                                    let id = self.part(at, Kind::Grant, on, &name);
                                    self.objects[id].dropped = Some(at);
                                    self.bury(id);
                                    told.claims.push(Claim::Dropped(id));
                                    id
                                }
                                false => self.create(at, Kind::Grant, Some(on), (String::new(), name), told),
                            };
                            self.objects[id].on = Some(on);
                        }
                    }
                }
                told.quiet = true;
            }
            Action::Comment { target, text } => {
                let id = self.find_target(at, target, actual);
                told.needs.push(Need::Object(id));
                match target.kind {
                    Kind::Constraint | Kind::Trigger | Kind::Policy | Kind::Extension | Kind::Index => {
                        told.not_compared.push("its text".into());
                        told.claims.push(Claim::Created(id));
                    }
                    _ => self.say(at, id, Said::Comment(text.clone()), told),
                }
            }
            Action::SearchPath(names) => {
                self.path = match names {
                    None => actual.path.clone(),
                    Some(names) => {
                        let made = |name: &String| self.live(Kind::Schema, None, "", name).is_some();
                        let all = names.iter().filter(|name| actual.has_schema(name) || made(name));
                        all.cloned().collect()
                    }
                };
                told.skipped = Some("from here on, names are looked up there".into());
            }
            Action::Data { tables } => {
                told.is_data = true;
                for table in tables {
                    let id = self.find(at, Kind::Table, table, actual);
                    told.needs.push(Need::Object(id));
                    told.data.push(id);
                }
            }
            Action::Opaque { what } => told.opaque = Some(what.clone()),
            Action::Skipped { what } => told.skipped = Some(what.clone()),
            Action::NotCompared { what, target } => {
                if let Some(target) = target {
                    let id = self.find_target(at, target, actual);
                    told.needs.push(Need::Object(id));
                }
                told.not_compared.push(what.clone());
            }
        }
    }

    fn named(&mut self, at: usize, id: Id, schema: String, name: String, told: &mut Told) {
        self.bury(id);
        let (kind, on) = (self.objects[id].kind, self.objects[id].on);
        // Indexes are found by their own name, whatever they index.
        let on = if kind == Kind::Index { None } else { on };
        self.objects[id].names.push((at, schema.clone(), name.clone()));
        told.claims.push(Claim::Named(id, self.objects[id].names.len() - 1));
        self.live.entry((class(kind), on, schema, name)).or_default().push(id);
    }
}

/// The privileges that ALL stands for (aclchk.c, ACL_ALL_RIGHTS_*), without what only newer versions have.
fn all_of(kind: Kind, privileges: &[String]) -> Vec<String> {
    if !privileges.is_empty() {
        return privileges.to_vec();
    }
    let all: &[&str] = match kind {
        Kind::Sequence => &["USAGE", "SELECT", "UPDATE"],
        Kind::Function => &["EXECUTE"],
        Kind::Schema => &["USAGE", "CREATE"],
        Kind::Type | Kind::Domain => &["USAGE"],
        _ => &[
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "TRUNCATE",
            "REFERENCES",
            "TRIGGER",
        ],
    };
    all.iter().map(|name| name.to_string()).collect()
}
