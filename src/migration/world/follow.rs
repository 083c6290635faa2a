//! What each kind of statement says.

use super::{Claim, Id, Need, Said, Told, World, class};
use crate::migration::actual::Actual;
use crate::script::ast::{Action, ColumnChange, Kind, Rule};

impl World {
    /// Adds what one action says.
    pub(super) fn follow(&mut self, at: usize, action: &Action, actual: &Actual, told: &mut Told) {
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
                options: _,
            } => {
                if *temporary {
                    return self.temporary(at, &name.name, told);
                }
                self.needs_schema(name, told);
                let place = self.place(name);
                let known = self.live(Kind::Table, None, &place.0, &place.1);
                let known = known.filter(|id| self.objects[*id].created.is_some() && *if_not_exists);
                let id = match known {
                    // A second CREATE TABLE IF NOT EXISTS does nothing.
                    Some(id) if self.has_columns(id, columns) => {
                        told.claims.push(Claim::Created(id));
                        told.quiet = true;
                        return;
                    }
                    // Which of two different ones is there, is there to be seen.
                    Some(_) => {
                        let id = self.object(at, Kind::Table, None, place, true);
                        told.claims.push(Claim::Created(id));
                        id
                    }
                    None => self.create(at, Kind::Table, None, place, told),
                };
                self.again(told, *if_not_exists, "42P07", id);
                for parent in from {
                    let parent = self.find(at, Kind::Table, parent, actual);
                    told.needs.push(Need::Object(parent));
                    told.not_compared.push("columns that come from another table".into());
                    self.objects[id].open = true;
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
                    return self.temporary(at, &name.name, told);
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
                self.objects[id].open = true;
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
                self.last_added = Some(at);
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
                        self.again(told, false, "55000", id);
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
                    (Rule::Unique { .. } | Rule::Exclude, Some(_)) => self.again(told, false, "42P07", id),
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
                self.belongs(id, table);
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
                self.goes_along(at, id, *cascade);
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
                let (_, schema, name) = self.objects[id].names.last().cloned().unwrap_or_default();
                self.named(at, id, schema, to.clone(), told);
                if target.kind == Kind::Schema {
                    self.moved(at, &name, to);
                }
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
                            self.belongs(id, on);
                        }
                    }
                }
                told.quiet = true;
            }
            Action::Comment { target, text } => {
                let id = self.find_target(at, target, actual);
                told.needs.push(Need::Object(id));
                match target.kind {
                    Kind::Constraint | Kind::Trigger | Kind::Policy | Kind::Extension => {
                        told.not_compared.push("the comment".into());
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
            Action::Outside { .. } => {}
            Action::Opaque { what } => told.opaque = Some(what.clone()),
            Action::Skipped { what } => told.skipped = Some(what.clone()),
            Action::NotCompared { what, target } => {
                if let Some(target) = target {
                    let id = self.find_target(at, target, actual);
                    told.needs.push(Need::Object(id));
                    self.objects[id].altered = Some(at);
                }
                told.not_compared.push(what.clone());
            }
        }
    }
}

impl World {
    /// It belongs to this, unless it does already, or this to it: nothing lies in itself, whatever a script says.
    fn belongs(&mut self, id: Id, to: Id) {
        let mut above = Some(to);
        while let Some(one) = above {
            if one == id {
                return;
            }
            above = self.objects[one].on;
        }
        self.objects[id].on.get_or_insert(to);
    }

    /// A temporary table: found first, whatever the search_path.
    fn temporary(&mut self, at: usize, name: &str, told: &mut Told) {
        let id = self.object(at, Kind::Table, None, ("pg_temp".into(), name.to_string()), true);
        self.objects[id].temporary = true;
        self.objects[id].open = true;
        for schema in self.path.clone() {
            let key = (class(Kind::Table), None, schema, name.to_string());
            self.live.entry(key).or_default().push(id);
        }
        told.claims.push(Claim::Created(id));
    }

    /// What a DROP takes along without naming it.
    fn goes_along(&mut self, at: usize, id: Id, cascade: bool) {
        let (kind, on) = (self.objects[id].kind, self.objects[id].on);
        for other in 0..self.objects.len() {
            let object = &self.objects[other];
            let of_column = kind == Kind::Column
                && object.on == on
                && matches!(
                    object.kind,
                    Kind::Constraint | Kind::Index | Kind::Trigger | Kind::Policy
                );
            let along = cascade
                && matches!(
                    object.kind,
                    Kind::View
                        | Kind::MaterializedView
                        | Kind::Constraint
                        | Kind::Policy
                        | Kind::Trigger
                        | Kind::Function
                        | Kind::Column
                        | Kind::Index
                );
            if other != id && (of_column || along) {
                self.objects[other].may_go.push(at);
            }
        }
    }

    /// A schema has another name: so has what is in it.
    fn moved(&mut self, at: usize, from: &str, to: &str) {
        for id in 0..self.objects.len() {
            let Some((_, schema, name)) = self.objects[id].names.last().cloned() else {
                continue;
            };
            if schema == from {
                self.bury(id);
                self.objects[id].names.push((at, to.to_string(), name.clone()));
                let object = &self.objects[id];
                let on = object.on.filter(|_| object.kind != Kind::Index);
                self.live
                    .entry((class(object.kind), on, to.to_string(), name))
                    .or_default()
                    .push(id);
            }
        }
        for schema in &mut self.path {
            if schema == from {
                *schema = to.to_string();
            }
        }
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
