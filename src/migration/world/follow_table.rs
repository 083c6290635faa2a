//! What statements say of tables and of what belongs to them.

use super::{Claim, Id, Kind, Link, Need, Parent, Said, Told, World, class};
use crate::migration::actual::Actual;
use crate::pg::tree::Expression;
use crate::script::ast::{Action, ColumnChange, Name, Rule};

impl World {
    /// Adds what one action says of a table.
    pub(super) fn follow_table(&mut self, at: usize, action: &Action, actual: &Actual, told: &mut Told) {
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
                self.say(at, id, Said::PartitionKey(partition_key.clone()), told);
                self.descends(at, id, parents, *bound, told, actual);
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
                match query {
                    Some(query) if *materialized_view => self.say(at, id, Said::View(*query, columns.clone()), told),
                    _ => told.not_compared.push("its query".into()),
                }
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
                    ColumnChange::Type(name, collation) => {
                        told.needs.push(Need::Type(name.clone()));
                        self.say(at, id, Said::Type(name.clone(), collation.clone()), told);
                    }
                    ColumnChange::Default(value) => self.say(at, id, Said::Default(*value), told),
                    ColumnChange::NotNull(yes) => self.say(at, id, Said::NotNull(*yes), told),
                    ColumnChange::Expression(expression) => self.say(at, id, Said::Generated(*expression), told),
                    ColumnChange::Identity(identity, quiet) => {
                        self.again(told, *quiet, "55000", id);
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
                    (Rule::Unique { .. } | Rule::Exclude(_), Some(_)) => self.again(told, false, "42P07", id),
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
                self.say(at, id, Said::Firing('O'), told);
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
            Action::AlterPolicy {
                name,
                table,
                roles,
                using,
                check,
            } => {
                let table = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Policy, table, name);
                told.needs.push(Need::Object(id));
                let before = self.objects[id].said.iter().rev().find_map(|(_, said)| match said {
                    Said::Policy(policy) => Some(policy.clone()),
                    _ => None,
                });
                match before {
                    Some(mut policy) => {
                        policy.roles = roles.clone().unwrap_or(policy.roles);
                        policy.using = using.or(policy.using);
                        policy.check = check.or(policy.check);
                        self.say(at, id, Said::Policy(policy), told);
                    }
                    None => {
                        self.objects[id].altered = Some(at);
                        told.not_compared.push("what ALTER POLICY changes".into());
                    }
                }
            }
            Action::Partition { parent, table, bound } => {
                let id = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(id));
                let whole = Parent {
                    name: parent.clone(),
                    id: self.find(at, Kind::Table, parent, actual),
                };
                told.needs.push(Need::Object(whole.id));
                told.link = Some(Link {
                    child: id,
                    parent: whole.id,
                    yes: bound.is_some(),
                    again: if bound.is_some() { "42809" } else { "42P01" },
                });
                self.say(at, id, Said::Partition(bound.map(|bound| (whole, bound))), told);
            }
            Action::Inherit { table, parent, yes } => {
                let id = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(id));
                let from = Parent {
                    name: parent.clone(),
                    id: self.find(at, Kind::Table, parent, actual),
                };
                told.needs.push(Need::Object(from.id));
                told.link = Some(Link {
                    child: id,
                    parent: from.id,
                    yes: *yes,
                    again: if *yes { "42P07" } else { "42P01" },
                });
                let before = self.objects[id].said.iter().rev().find_map(|(_, said)| match said {
                    Said::Inherits(parents) => Some(parents.clone()),
                    _ => None,
                });
                match before {
                    Some(mut parents) => {
                        parents.retain(|parent| parent.id != from.id);
                        if *yes {
                            parents.push(from);
                        }
                        self.say(at, id, Said::Inherits(parents), told);
                    }
                    None => told.not_compared.push("from which tables it inherits".into()),
                }
            }
            Action::Firing { table, trigger, state } => {
                let table = self.find(at, Kind::Table, table, actual);
                told.needs.push(Need::Object(table));
                let id = self.part(at, Kind::Trigger, table, trigger);
                told.needs.push(Need::Object(id));
                self.say(at, id, Said::Firing(*state), told);
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
        told: &mut Told,
        actual: &Actual,
    ) {
        let parents: Vec<Parent> = parents
            .iter()
            .map(|name| Parent {
                name: name.clone(),
                id: self.find(at, Kind::Table, name, actual),
            })
            .collect();
        told.made_of.extend(parents.iter().map(|parent| (id, parent.id)));
        let (whole, inherited) = match bound {
            Some(bound) => (parents.into_iter().next().map(|whole| (whole, bound)), vec![]),
            None => (None, parents),
        };
        self.say(at, id, Said::Partition(whole), told);
        self.say(at, id, Said::Inherits(inherited), told);
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
}
