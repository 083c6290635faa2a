//! What statements say of tables and of what belongs to them.

use super::{Claim, ExpectedSchema, Id, Kind, Link, Need, Parent, Property, StatementEffects, class};
use crate::migration::actual::ActualSchema;
use crate::pg::ast::Expression;
use crate::script::ast::{Action, ColumnChange, Name, Rule};

impl ExpectedSchema {
    /// Adds what one action says of a table.
    pub(super) fn follow_table(
        &mut self,
        at: usize,
        action: &Action,
        actual: &ActualSchema,
        effects: &mut StatementEffects,
    ) {
        match action {
            Action::CreateTable {
                name,
                temporary,
                if_not_exists,
                columns,
                constraints,
                from,
                parents,
                bound,
                partition_key,
            } => {
                if *temporary {
                    return self.temporary(at, &name.name, effects);
                }
                self.needs_schema(name, effects);
                let place = self.place(name);
                let known = self.live(Kind::Table, None, &place.0, &place.1);
                let known = known.filter(|id| self.objects[*id].created.is_some() && *if_not_exists);
                let id = match known {
                    // A second CREATE TABLE IF NOT EXISTS does nothing.
                    Some(id) if self.has_columns(id, columns) => {
                        effects.claims.push(Claim::Created(id));
                        effects.quiet = true;
                        return;
                    }
                    Some(id) => self.create_instead(at, Kind::Table, id, place, effects),
                    None => self.create(at, Kind::Table, None, place, effects),
                };
                self.set_rerun_error(effects, *if_not_exists, "42P07", id);
                for parent in from {
                    let parent = self.find(at, Kind::Table, parent, actual);
                    effects.needs.push(Need::Object(parent));
                    effects.not_compared.push("columns that come from another table".into());
                    self.objects[id].open = true;
                }
                for column in columns {
                    self.column(at, id, column, effects, actual);
                }
                for constraint in constraints {
                    self.constraint(at, id, constraint, effects, actual);
                }
                self.set_property(at, id, Property::PartitionKey(partition_key.clone()), effects);
                self.descends(at, id, parents, *bound, effects, actual);
            }
            Action::CreateTableAs {
                name,
                materialized_view,
                temporary,
                if_not_exists,
                columns,
                query,
            } => {
                if *temporary {
                    return self.temporary(at, &name.name, effects);
                }
                self.needs_schema(name, effects);
                let kind = if *materialized_view {
                    Kind::MaterializedView
                } else {
                    Kind::Table
                };
                let place = self.place(name);
                let id = self.create(at, kind, None, place, effects);
                self.set_rerun_error(effects, *if_not_exists, "42P07", id);
                match query {
                    Some(query) if *materialized_view => {
                        self.set_property(at, id, Property::View(*query, columns.clone()), effects)
                    }
                    _ => effects.not_compared.push("its query".into()),
                }
                self.objects[id].open = true;
            }
            Action::AddColumn {
                table,
                column,
                if_not_exists,
            } => {
                let table = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(table));
                let known = self.live(Kind::Column, Some(table), "", &column.name);
                if known.is_some_and(|id| self.objects[id].created.is_some()) && *if_not_exists {
                    effects.quiet = true;
                    effects.claims.extend(known.map(Claim::Created));
                    return;
                }
                self.last_added = Some(at);
                let id = self.column(at, table, column, effects, actual);
                self.set_rerun_error(effects, *if_not_exists, "42701", id);
            }
            Action::AlterColumn { table, column, change } => {
                let table = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Column, table, column);
                effects.needs.push(Need::Object(id));
                match change {
                    ColumnChange::Type(name, collation) => {
                        effects.needs.push(Need::Type(name.clone()));
                        self.set_property(at, id, Property::Type(name.clone(), collation.clone()), effects);
                    }
                    ColumnChange::Default(value) => self.set_property(at, id, Property::Default(*value), effects),
                    ColumnChange::NotNull(yes) => self.set_property(at, id, Property::NotNull(*yes), effects),
                    ColumnChange::Expression(expression) => {
                        self.set_property(at, id, Property::Generated(*expression), effects)
                    }
                    ColumnChange::Identity(identity, quiet) => {
                        self.set_rerun_error(effects, *quiet, "55000", id);
                        self.set_property(at, id, Property::Identity(*identity), effects);
                    }
                }
            }
            Action::AddConstraint { table, constraint } => {
                let table = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(table));
                let id = self.constraint(at, table, constraint, effects, actual);
                match (&constraint.rule, &constraint.name) {
                    (Rule::Primary, _) => self.set_rerun_error(effects, false, "42P16", id),
                    (Rule::Unique { .. } | Rule::Exclude(_), Some(_)) => {
                        self.set_rerun_error(effects, false, "42P07", id)
                    }
                    (_, Some(_)) => self.set_rerun_error(effects, false, "42710", id),
                    // Postgres chooses another name, and makes a second one.
                    (_, None) => {}
                }
            }
            Action::ValidateConstraint { table, name } => {
                let table = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Constraint, table, name);
                effects.needs.push(Need::Object(id));
                self.set_property(at, id, Property::Valid, effects);
            }
            Action::RowSecurity { table, force, on } => {
                let table = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(table));
                let property = if *force {
                    Property::Force(*on)
                } else {
                    Property::RowSecurity(*on)
                };
                self.set_property(at, table, property, effects);
            }
            Action::CreateIndex(index) => {
                let table = self.find(at, Kind::Table, &index.table, actual);
                effects.needs.push(Need::Object(table));
                for part in index.parts.iter().filter_map(|part| part.column.as_ref()) {
                    let column = self.part(at, Kind::Column, table, part);
                    effects.needs.push(Need::Object(column));
                }
                let schema = self.objects[table].names.last().map(|(_, schema, _)| schema.clone());
                let place = (schema.unwrap_or_default(), index.name.clone().unwrap_or_default());
                let known = self.live(Kind::Index, None, &place.0, &place.1);
                let known = known.filter(|id| self.objects[*id].created.is_some() && index.if_not_exists);
                let id = match index.name {
                    Some(_) if known.is_some() => {
                        self.create_instead(at, Kind::Index, known.unwrap_or_default(), place, effects)
                    }
                    Some(_) => self.create(at, Kind::Index, None, place, effects),
                    None => {
                        let id = self.object(at, Kind::Index, None, place, true);
                        effects.claims.push(Claim::Created(id));
                        id
                    }
                };
                self.belongs(id, table);
                if index.name.is_some() {
                    self.set_rerun_error(effects, index.if_not_exists, "42P07", id);
                }
                self.set_property(at, id, Property::Index(index.clone()), effects);
            }
            Action::CreateTrigger(trigger) => {
                let table = self.find(at, Kind::Table, &trigger.table, actual);
                effects.needs.push(Need::Object(table));
                effects.needs.push(Need::Function(trigger.function.clone()));
                let id = self.create(
                    at,
                    Kind::Trigger,
                    Some(table),
                    (String::new(), trigger.name.clone()),
                    effects,
                );
                self.set_rerun_error(effects, trigger.replace, "42710", id);
                self.set_property(at, id, Property::Trigger(trigger.clone()), effects);
                self.set_property(at, id, Property::Firing('O'), effects);
            }
            Action::CreatePolicy(policy) => {
                let table = self.find(at, Kind::Table, &policy.table, actual);
                effects.needs.push(Need::Object(table));
                let id = self.create(
                    at,
                    Kind::Policy,
                    Some(table),
                    (String::new(), policy.name.clone()),
                    effects,
                );
                self.set_rerun_error(effects, false, "42710", id);
                self.set_property(at, id, Property::Policy(policy.clone()), effects);
            }
            Action::AlterPolicy {
                name,
                table,
                roles,
                using,
                check,
            } => {
                let table = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Policy, table, name);
                effects.needs.push(Need::Object(id));
                let before = self.objects[id]
                    .properties
                    .iter()
                    .rev()
                    .find_map(|(_, property)| match property {
                        Property::Policy(policy) => Some(policy.clone()),
                        _ => None,
                    });
                match before {
                    Some(mut policy) => {
                        policy.roles = roles.clone().unwrap_or(policy.roles);
                        policy.using = using.or(policy.using);
                        policy.check = check.or(policy.check);
                        self.set_property(at, id, Property::Policy(policy), effects);
                    }
                    None => {
                        self.objects[id].altered = Some(at);
                        effects.not_compared.push("what ALTER POLICY changes".into());
                    }
                }
            }
            Action::Partition { parent, table, bound } => {
                let id = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(id));
                let whole = Parent {
                    name: parent.clone(),
                    id: self.find(at, Kind::Table, parent, actual),
                };
                effects.needs.push(Need::Object(whole.id));
                effects.link = Some(Link {
                    child: id,
                    parent: whole.id,
                    yes: bound.is_some(),
                    rerun_error: if bound.is_some() { "42809" } else { "42P01" },
                });
                self.set_property(at, id, Property::Partition(bound.map(|bound| (whole, bound))), effects);
            }
            Action::Inherit { table, parent, yes } => {
                let id = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(id));
                let from = Parent {
                    name: parent.clone(),
                    id: self.find(at, Kind::Table, parent, actual),
                };
                effects.needs.push(Need::Object(from.id));
                effects.link = Some(Link {
                    child: id,
                    parent: from.id,
                    yes: *yes,
                    rerun_error: if *yes { "42P07" } else { "42P01" },
                });
                let before = self.objects[id]
                    .properties
                    .iter()
                    .rev()
                    .find_map(|(_, property)| match property {
                        Property::Inherits(parents) => Some(parents.clone()),
                        _ => None,
                    });
                match before {
                    Some(mut parents) => {
                        parents.retain(|parent| parent.id != from.id);
                        if *yes {
                            parents.push(from);
                        }
                        self.set_property(at, id, Property::Inherits(parents), effects);
                    }
                    None => effects.not_compared.push("from which tables it inherits".into()),
                }
            }
            Action::Firing { table, trigger, state } => {
                let table = self.find(at, Kind::Table, table, actual);
                effects.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Trigger, table, trigger);
                effects.needs.push(Need::Object(id));
                self.set_property(at, id, Property::Firing(*state), effects);
            }
            // The others are not about tables.
            _ => {}
        }
    }

    /// A partition, or a child of others.
    fn descends(
        &mut self,
        at: usize,
        id: Id,
        parents: &[Name],
        bound: Option<Expression>,
        effects: &mut StatementEffects,
        actual: &ActualSchema,
    ) {
        let parents: Vec<Parent> = parents
            .iter()
            .map(|name| Parent {
                name: name.clone(),
                id: self.find(at, Kind::Table, name, actual),
            })
            .collect();
        effects.made_of.extend(parents.iter().map(|parent| (id, parent.id)));
        let (whole, inherited) = match bound {
            Some(bound) => (parents.into_iter().next().map(|whole| (whole, bound)), vec![]),
            None => (None, parents),
        };
        self.set_property(at, id, Property::Partition(whole), effects);
        self.set_property(at, id, Property::Inherits(inherited), effects);
    }

    /// A temporary table: found first, whatever the search_path.
    fn temporary(&mut self, at: usize, name: &str, effects: &mut StatementEffects) {
        let id = self.object(at, Kind::Table, None, ("pg_temp".into(), name.to_string()), true);
        self.objects[id].temporary = true;
        self.objects[id].open = true;
        for schema in self.path.clone() {
            let key = (class(Kind::Table), None, schema, name.to_string());
            self.live.entry(key).or_default().push(id);
        }
        effects.claims.push(Claim::Created(id));
    }
}
