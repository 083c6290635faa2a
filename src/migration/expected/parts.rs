//! Columns and constraints, as a table is made with them or gets them later.

use super::{Claim, ExpectedSchema, Id, Need, Object, Property, StatementEffects, class};
use crate::migration::actual::ActualSchema;
use crate::script::ast::{ColumnDefinition, ConstraintDefinition, Kind, Rule};

impl ExpectedSchema {
    /// A column, with all that its definition says.
    pub(super) fn column(
        &mut self,
        at: usize,
        table: Id,
        column: &ColumnDefinition,
        effects: &mut StatementEffects,
        actual: &ActualSchema,
    ) -> Id {
        let id = self.create(
            at,
            Kind::Column,
            Some(table),
            (String::new(), column.name.clone()),
            effects,
        );
        effects.needs.push(Need::Type(column.type_name.clone()));
        let collation = column.collation.clone();
        self.set_property(at, id, Property::Type(column.type_name.clone(), collation), effects);
        self.set_property(at, id, Property::NotNull(column.not_null), effects);
        match (&column.generated, column.identity, column.serial) {
            (Some(expression), ..) => {
                self.set_property(at, id, Property::Generated(*expression), effects);
                self.set_property(at, id, Property::Virtual(column.is_virtual), effects);
            }
            (_, Some(identity), _) => self.set_property(at, id, Property::Identity(Some(identity)), effects),
            (_, _, true) => {
                let table = self.objects[table].names.last().cloned().unwrap_or_default();
                let sequence = (table.1, format!("{}_{}_seq", table.2, column.name));
                let sequence = self.object(at, Kind::Sequence, None, sequence, true);
                self.objects[sequence].implicit = true;
                self.set_property(at, id, Property::Serial, effects);
            }
            _ => self.set_property(at, id, Property::Default(column.default), effects),
        }
        for constraint in &column.constraints {
            self.constraint(at, table, constraint, effects, actual);
        }
        id
    }

    /// A constraint, and what it needs.
    pub(super) fn constraint(
        &mut self,
        at: usize,
        table: Id,
        constraint: &ConstraintDefinition,
        effects: &mut StatementEffects,
        actual: &ActualSchema,
    ) -> Id {
        let name = constraint.name.clone().unwrap_or_default();
        let id = match name.is_empty() {
            true => {
                let id = self.object(at, Kind::Constraint, Some(table), (String::new(), name), true);
                effects.claims.push(Claim::Created(id));
                // Later statements name it as Postgres does.
                let chosen = self.chosen_name(table, constraint);
                // That of a CHECK depends on the columns that it names.
                let checks = matches!(constraint.rule, Rule::Check(_));
                self.objects[id].chosen = Some(chosen.clone()).filter(|_| !checks);
                let key = (class(Kind::Constraint), Some(table), String::new(), chosen);
                self.live.entry(key).or_default().push(id);
                id
            }
            false => self.create(at, Kind::Constraint, Some(table), (String::new(), name), effects),
        };
        let mut referenced = None;
        if let Rule::Foreign(key) = &constraint.rule {
            let parent = self.find(at, Kind::Table, &key.parent, actual);
            referenced = Some(parent);
            effects.needs.push(Need::Object(parent));
            for column in &key.parent_columns {
                let column = self.part(at, Kind::Column, parent, column);
                effects.needs.push(Need::Object(column));
            }
        }
        for column in &constraint.columns {
            let column = self.part(at, Kind::Column, table, column);
            effects.needs.push(Need::Object(column));
            if matches!(constraint.rule, Rule::Primary) {
                self.set_property(at, column, Property::NotNull(true), effects);
            }
        }
        if let Some(index) = &constraint.using_index {
            self.take_index(at, table, index, constraint, effects);
        }
        self.set_property(at, id, Property::Constraint(constraint.clone(), referenced), effects);
        if !constraint.not_valid {
            self.set_property(at, id, Property::Valid, effects);
        }
        id
    }

    /// The name that Postgres chooses for a constraint, where it is free (ChooseConstraintName, pg_constraint.c).
    fn chosen_name(&self, on: Id, constraint: &ConstraintDefinition) -> String {
        let table = self.objects[on].name();
        let columns = constraint.columns.join("_");
        let chosen = match constraint.rule {
            Rule::Primary => format!("{table}_pkey"),
            Rule::Unique { .. } => format!("{table}_{columns}_key"),
            Rule::Foreign(_) => format!("{table}_{columns}_fkey"),
            Rule::Exclude(_) => format!("{table}_{columns}_excl"),
            Rule::Check(_) => format!("{table}_check"),
        };
        let free = |name: &String| self.live(Kind::Constraint, Some(on), "", name).is_none();
        let numbered = (1..).map(|number| format!("{chosen}{number}"));
        std::iter::once(chosen.clone())
            .chain(numbered)
            .find(free)
            .unwrap_or(chosen)
    }

    /// A constraint that stands on an index takes its columns, and gives it its name.
    fn take_index(
        &mut self,
        at: usize,
        table: Id,
        index: &str,
        constraint: &ConstraintDefinition,
        effects: &mut StatementEffects,
    ) {
        effects.not_compared.push(format!("that {index} is its index"));
        let schema = self.objects[table]
            .names
            .last()
            .map(|(_, schema, _)| schema.clone())
            .unwrap_or_default();
        let Some(id) = self.live(Kind::Index, None, &schema, index) else {
            return;
        };
        let columns: Vec<String> = self.objects[id]
            .properties
            .iter()
            .filter_map(|(_, property)| match property {
                Property::Index(index) => Some(index.parts.iter().filter_map(|part| part.column.clone())),
                _ => None,
            })
            .flatten()
            .collect();
        if matches!(constraint.rule, Rule::Primary) {
            for column in &columns {
                let column = self.part(at, Kind::Column, table, column);
                self.set_property(at, column, Property::NotNull(true), effects);
            }
        }
        if let Some(name) = constraint.name.as_ref().filter(|name| *name != index) {
            self.bury(id);
            self.objects[id].names.push((at, schema.clone(), name.clone()));
            self.live
                .entry((class(Kind::Index), None, schema, name.clone()))
                .or_default()
                .push(id);
        }
    }

    /// Was the table made with these columns?
    pub(super) fn has_columns(&self, table: Id, columns: &[ColumnDefinition]) -> bool {
        let made = self.objects[table].created;
        let own: Vec<&Object> = self
            .objects
            .iter()
            .filter(|o| o.kind == Kind::Column && o.on == Some(table) && o.created == made)
            .collect();
        let same = |object: &Object, column: &ColumnDefinition| {
            object.names[0].2 == column.name
                && object.properties.iter().any(|(at, property)| {
                    Some(*at) == made
                        && matches!(property, Property::Type(name, _) if name.text == column.type_name.text)
                })
                && object.properties.iter().any(|(at, property)| {
                    Some(*at) == made && matches!(property, Property::NotNull(yes) if *yes == column.not_null)
                })
        };
        own.len() == columns.len()
            && columns
                .iter()
                .all(|column| own.iter().any(|object| same(object, column)))
    }
}
