//! What each kind of statement says.

use std::collections::BTreeSet;

use super::{Claim, ExpectedSchema, Id, Need, Object, Property, StatementEffects, class};
use crate::migration::actual::ActualSchema;
use crate::script::ast::{Action, Kind, Name, Rule, SequenceOption, SequenceSetting, SequenceValue};

impl ExpectedSchema {
    /// Adds what one action says.
    pub(super) fn follow(&mut self, at: usize, action: &Action, actual: &ActualSchema, effects: &mut StatementEffects) {
        match action {
            Action::CreateSchema { name, if_not_exists } => {
                let id = self.create(at, Kind::Schema, None, (String::new(), name.clone()), effects);
                self.set_rerun_error(effects, *if_not_exists, "42P06", id);
            }
            Action::CreateExtension { name, if_not_exists } => {
                let id = self.create(at, Kind::Extension, None, (String::new(), name.clone()), effects);
                self.set_rerun_error(effects, *if_not_exists, "42710", id);
            }
            Action::CreateFunction(function) => {
                self.needs_schema(&function.name, effects);
                for needed in function.arguments.iter().chain(&function.returns) {
                    effects.needs.push(Need::Type(needed.clone()));
                }
                let id = self.function(at, &function.name, Some(&function.arguments), actual, true);
                self.objects[id].created.get_or_insert(at);
                effects.claims.push(Claim::Created(id));
                self.set_rerun_error(effects, function.replace, "42723", id);
                self.set_property(at, id, Property::Function(function.clone()), effects);
            }
            Action::Owner { target, role } => {
                let id = self.find_target(at, target, actual);
                effects.needs.push(Need::Object(id));
                match (role, target.kind) {
                    // An index is its table's owner's; who an extension's is, is not looked at.
                    (Some(role), kind) if !matches!(kind, Kind::Index | Kind::Extension) => {
                        self.set_property(at, id, Property::Owner(role.clone()), effects);
                    }
                    _ => effects.not_compared.push("the owner".into()),
                }
            }
            Action::CreateEnum { name, labels } => {
                self.needs_schema(name, effects);
                let place = self.place(name);
                let id = self.create(at, Kind::Type, None, place, effects);
                self.set_rerun_error(effects, false, "42710", id);
                for label in labels {
                    let label = self.object(at, Kind::Label, Some(id), (String::new(), label.clone()), true);
                    effects.claims.push(Claim::Created(label));
                }
                self.set_property(at, id, Property::Labels(labels.clone()), effects);
            }
            Action::CreateType { name } => {
                self.made(at, Kind::Type, name, effects);
                effects.not_compared.push("what the type is made of".into());
            }
            Action::CreateComposite { name, attributes } => {
                for (_, needed, _) in attributes {
                    effects.needs.push(Need::Type(needed.clone()));
                }
                let id = self.made(at, Kind::Type, name, effects);
                self.set_property(at, id, Property::Attributes(attributes.clone()), effects);
            }
            Action::CreateDomain { name, domain } => {
                effects.needs.push(Need::Type(domain.base.clone()));
                let id = self.made(at, Kind::Domain, name, effects);
                self.set_property(at, id, Property::Domain(domain.clone()), effects);
            }
            Action::AddLabel {
                name,
                label,
                if_not_exists,
            } => {
                let on = self.find(at, Kind::Type, name, actual);
                effects.needs.push(Need::Object(on));
                let id = self.create(at, Kind::Label, Some(on), (String::new(), label.clone()), effects);
                self.set_rerun_error(effects, *if_not_exists, "42710", id);
            }
            Action::CreateSequence {
                name,
                if_not_exists,
                options,
            } => {
                self.needs_schema(name, effects);
                let place = self.place(name);
                let id = self.create(at, Kind::Sequence, None, place, effects);
                self.set_rerun_error(effects, *if_not_exists, "42P07", id);
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
                        self.set_property(at, id, Property::Sequence(option, value), effects);
                    }
                }
                self.set_sequence(at, id, options, effects);
            }
            Action::AlterSequence {
                name,
                options,
                restarts,
            } => {
                let id = self.find(at, Kind::Sequence, name, actual);
                effects.needs.push(Need::Object(id));
                if *restarts {
                    effects.not_compared.push("where a sequence stands".into());
                }
                self.set_sequence(at, id, options, effects);
            }
            Action::CreateView {
                name,
                replace,
                columns,
                query,
            } => {
                self.needs_schema(name, effects);
                let place = self.place(name);
                let id = self.create(at, Kind::View, None, place, effects);
                self.set_rerun_error(effects, *replace, "42P07", id);
                self.set_property(at, id, Property::View(*query, columns.clone()), effects);
            }
            Action::Drop {
                target,
                if_exists,
                cascade,
            } => {
                let id = self.find_target(at, target, actual);
                if let (Some(on), false) = (self.objects[id].on, *if_exists) {
                    effects.needs.push(Need::Object(on));
                }
                effects.quiet |= *if_exists;
                effects.cascades |= *cascade;
                self.objects[id].dropped = Some(at);
                for other in self.instead(id) {
                    self.objects[other].dropped.get_or_insert(at);
                }
                self.bury(id);
                self.goes_along(at, id, *cascade);
                effects.claims.push(Claim::Dropped(id));
                let code = match target.kind {
                    Kind::Column => "42703",
                    Kind::Function => "42883",
                    Kind::Schema => "3F000",
                    kind if kind.is_relation() => "42P01",
                    _ => "42704",
                };
                self.set_rerun_error(effects, *if_exists, code, id);
            }
            Action::Rename { target, to, .. } => {
                let id = self.find_target(at, target, actual);
                effects.needs.push(Need::Object(id));
                let (_, schema, name) = self.objects[id].names.last().cloned().unwrap_or_default();
                self.named(at, id, schema, to.clone(), effects);
                if target.kind == Kind::Schema {
                    self.moved(at, &name, to);
                }
                let code = match target.kind {
                    Kind::Column => "42703",
                    Kind::Label => "22023",
                    kind if kind.is_relation() => "42P01",
                    _ => "42704",
                };
                self.set_rerun_error(effects, false, code, id);
            }
            Action::SetSchema { target, to } => {
                let id = self.find_target(at, target, actual);
                effects.needs.push(Need::Object(id));
                effects.needs.push(Need::Schema(to.clone()));
                let name = self.objects[id].name().to_string();
                self.named(at, id, to.clone(), name, effects);
                self.set_rerun_error(effects, false, "42P01", id);
            }
            Action::Grant {
                revoke,
                privileges,
                targets,
                roles,
            } => {
                for target in targets {
                    let on = self.find_target(at, target, actual);
                    effects.needs.push(Need::Object(on));
                    for role in roles {
                        for privilege in all_of(target.kind, privileges) {
                            let name = format!("{privilege} to {role}");
                            let id = match revoke {
                                true => {
                                    let id = self.part(at, Kind::Grant, on, &name);
                                    self.objects[id].dropped = Some(at);
                                    self.bury(id);
                                    effects.claims.push(Claim::Dropped(id));
                                    id
                                }
                                false => self.create(at, Kind::Grant, Some(on), (String::new(), name), effects),
                            };
                            self.belongs(id, on);
                        }
                    }
                }
                effects.quiet = true;
            }
            Action::Comment { target, text } => {
                let id = self.find_target(at, target, actual);
                effects.needs.push(Need::Object(id));
                match target.kind {
                    Kind::Constraint | Kind::Trigger | Kind::Policy | Kind::Extension => {
                        effects.not_compared.push("the comment".into());
                    }
                    _ => self.set_property(at, id, Property::Comment(text.clone()), effects),
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
                effects.skipped = Some("from here on, names are looked up there".into());
            }
            Action::Data { tables } => {
                effects.is_data = true;
                for table in tables {
                    let id = self.find(at, Kind::Table, table, actual);
                    effects.needs.push(Need::Object(id));
                    effects.data.push(id);
                }
            }
            Action::Outside { .. } => {}
            Action::Opaque { what } => effects.opaque = Some(what.clone()),
            Action::Skipped { what } => effects.skipped = Some(what.clone()),
            Action::NotCompared { what, target } => {
                if let Some(target) = target {
                    let id = self.find_target(at, target, actual);
                    effects.needs.push(Need::Object(id));
                    self.objects[id].altered = Some(at);
                }
                effects.not_compared.push(what.clone());
            }
            of_table => self.follow_table(at, of_table, actual, effects),
        }
    }
}

impl ExpectedSchema {
    /// A type or domain of this name.
    fn made(&mut self, at: usize, kind: Kind, name: &Name, effects: &mut StatementEffects) -> Id {
        self.needs_schema(name, effects);
        let place = self.place(name);
        let id = self.create(at, kind, None, place, effects);
        self.set_rerun_error(effects, false, "42710", id);
        id
    }

    fn set_sequence(&mut self, at: usize, id: Id, options: &[SequenceSetting], effects: &mut StatementEffects) {
        for (option, value) in options {
            // Without MINVALUE the direction decides, which is compared.
            if let Some(value) = value {
                self.set_property(at, id, Property::Sequence(*option, value.clone()), effects);
            }
        }
        if effects.claims.is_empty() {
            effects.not_compared.push("options of a sequence".into());
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

    /// What a DROP may take along without naming it.
    fn goes_along(&mut self, at: usize, id: Id, cascade: bool) {
        let going = if cascade { self.cascade(id) } else { BTreeSet::new() };
        for other in 0..self.objects.len() {
            if other != id && (self.stands_on(other, id) || going.contains(&other)) {
                self.objects[other].may_go.push(at);
            }
        }
    }

    /// What CASCADE may take: whatever has a word in its text that names something of it.
    fn cascade(&self, dropped: Id) -> BTreeSet<Id> {
        let mut going = BTreeSet::new();
        let mut last = vec![dropped];
        while let Some(one) = last.pop() {
            for other in 0..self.objects.len() {
                if other != dropped && !going.contains(&other) && self.may_cascade(other, one) {
                    going.insert(other);
                    last.push(other);
                }
            }
        }
        going
    }

    /// Does it go with a column without a word?
    fn stands_on(&self, other: Id, column: Id) -> bool {
        let (object, column) = (&self.objects[other], &self.objects[column]);
        if column.kind != Kind::Column || object.on != column.on {
            return false;
        }
        let called = |name: &String| column.names.iter().any(|(_, _, own)| own == name);
        // What an expression names is not looked up: that the statement has such a word is enough.
        let text = object.created.map(|made| self.texts[made].as_str());
        let has = |name: &String| text.is_none_or(|text| has_word(text, &name.to_lowercase()));
        let written = || column.names.iter().any(|(_, _, name)| has(name));
        let uses = |property: &Property| match property {
            Property::Constraint(made, _) if matches!(made.rule, Rule::Check(_) | Rule::Exclude(_)) => written(),
            Property::Constraint(made, _) => made.columns.iter().any(called),
            Property::Index(_) | Property::Trigger(_) | Property::Policy(_) => written(),
            _ => false,
        };
        object.properties.iter().any(|(_, said)| uses(said))
    }

    /// Can CASCADE take it with this one?
    fn may_cascade(&self, other: Id, dropped: Id) -> bool {
        let (object, gone) = (&self.objects[other], &self.objects[dropped]);
        let of_schema =
            gone.kind == Kind::Schema && object.names.last().is_some_and(|(_, schema, _)| schema == gone.name());
        // An extension's own objects have any name.
        let of_extension = gone.kind == Kind::Extension && object.kind.is_relation();
        let generated = || {
            object
                .properties
                .iter()
                .any(|(_, said)| matches!(said, Property::Generated(_)))
        };
        let can = match object.kind {
            Kind::View | Kind::MaterializedView | Kind::Constraint | Kind::Function => true,
            Kind::Policy | Kind::Trigger | Kind::Index => true,
            Kind::Column => {
                matches!(gone.kind, Kind::Type | Kind::Domain | Kind::Function | Kind::Extension) || generated()
            }
            _ => false,
        };
        of_schema || of_extension || can && self.writes_of(object, gone)
    }

    /// Does the statement that made it name the other, or its table?
    fn writes_of(&self, object: &Object, named: &Object) -> bool {
        let table = named.on.map_or(named, |on| &self.objects[on]);
        let text = object.created.map(|made| self.texts[made].as_str());
        text.is_none_or(|text| {
            table
                .names
                .iter()
                .any(|(_, _, name)| has_word(text, &name.to_lowercase()))
        })
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

/// Does a text have this word, as a name of its own?
fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
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
