//! What each kind of statement says.

use super::{Claim, Id, Need, Said, Told, World, class};
use crate::migration::actual::Actual;
use crate::script::ast::{Action, Kind, Name, SequenceOption, SequenceSetting, SequenceValue};

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
            Action::Owner { target, role } => {
                let id = self.find_target(at, target, actual);
                told.needs.push(Need::Object(id));
                match (role, target.kind) {
                    // An index is its table's owner's; who an extension's is, is not looked at.
                    (Some(role), kind) if !matches!(kind, Kind::Index | Kind::Extension) => {
                        self.say(at, id, Said::Owner(role.clone()), told);
                    }
                    _ => told.not_compared.push("the owner".into()),
                }
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
            Action::CreateType { name } => {
                self.made(at, Kind::Type, name, told);
                told.not_compared.push("what the type is made of".into());
            }
            Action::CreateComposite { name, attributes } => {
                for (_, needed, _) in attributes {
                    told.needs.push(Need::Type(needed.clone()));
                }
                let id = self.made(at, Kind::Type, name, told);
                self.say(at, id, Said::Attributes(attributes.clone()), told);
            }
            Action::CreateDomain { name, domain } => {
                told.needs.push(Need::Type(domain.base.clone()));
                let id = self.made(at, Kind::Domain, name, told);
                self.say(at, id, Said::Domain(domain.clone()), told);
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
            Action::CreateSequence {
                name,
                if_not_exists,
                options,
            } => {
                self.needs_schema(name, told);
                let place = self.place(name);
                let id = self.create(at, Kind::Sequence, None, place, told);
                self.again(told, *if_not_exists, "42P07", id);
                // What is not written is what Postgres takes (sequence.c, init_params).
                let plain = [
                    (SequenceOption::Type, SequenceValue::Type("int8".into())),
                    (SequenceOption::Increment, SequenceValue::Number("1".into())),
                    (SequenceOption::Cache, SequenceValue::Number("1".into())),
                    (SequenceOption::Cycle, SequenceValue::Yes(false)),
                    (SequenceOption::Owner, SequenceValue::Column(vec!["none".into()])),
                ];
                for (option, value) in plain {
                    if !options.iter().any(|(written, _)| *written == option) {
                        self.say(at, id, Said::Sequence(option, value), told);
                    }
                }
                self.set_sequence(at, id, options, told);
            }
            Action::AlterSequence {
                name,
                options,
                restarts,
            } => {
                let id = self.find(at, Kind::Sequence, name, actual);
                told.needs.push(Need::Object(id));
                if *restarts {
                    told.not_compared.push("where a sequence stands".into());
                }
                self.set_sequence(at, id, options, told);
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
            of_table => self.follow_table(at, of_table, actual, told),
        }
    }
}

impl World {
    /// A type or domain of this name.
    fn made(&mut self, at: usize, kind: Kind, name: &Name, told: &mut Told) -> Id {
        self.needs_schema(name, told);
        let place = self.place(name);
        let id = self.create(at, kind, None, place, told);
        self.again(told, false, "42710", id);
        id
    }

    fn set_sequence(&mut self, at: usize, id: Id, options: &[SequenceSetting], told: &mut Told) {
        for (option, value) in options {
            // Without MINVALUE the direction decides, which is compared.
            if let Some(value) = value {
                self.say(at, id, Said::Sequence(*option, value.clone()), told);
            }
        }
        if told.claims.is_empty() {
            told.not_compared.push("options of a sequence".into());
        }
    }

    /// It belongs to this, unless it does already, or this to it: nothing lies in itself, whatever a script says.
    pub(super) fn belongs(&mut self, id: Id, to: Id) {
        let mut above = Some(to);
        while let Some(one) = above {
            if one == id {
                return;
            }
            above = self.objects[one].on;
        }
        self.objects[id].on.get_or_insert(to);
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
