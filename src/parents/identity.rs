//! From what was asked to SQL: which parent, by what it is found, what it is given; everything that is wrong at once.

use pgrx::prelude::*;
use serde_json::{Map, Value};

use super::ParentsRequest;
use super::column_expressions::{ColumnExpression, column_expressions};
use super::placeholder_key::placeholder_key;
use super::tenant::tenant_expression;
use crate::catalog::{Column, Insertion, Key, Table};
use crate::identifier::{Identifier, Literal};
use crate::infer::reference;
use crate::infer::tenancy::resolver::{RowTenant, TenantResolver};
use crate::plan::Overlays;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::rule::typed;
use crate::rule::{Expression, Operand};
use crate::run::obstacles::{relation_can_be_filled, required_columns};
use crate::run::{Session, readable};
use crate::validate::declared::parent_typed;

/// Everything about one call that does not depend on rows.
pub struct Identity<'a> {
    /// The table whose rows lack a parent.
    pub table: &'a Table,
    /// The column that references it.
    pub column: &'a Column,
    /// The parent.
    pub parent: &'a Table,
    /// Its key, as the column references it.
    pub key: &'a Column,
    /// A foreign key says so.
    pub declared: bool,
    /// What a parent is found by: never NULL, never empty.
    pub matched: Vec<ColumnExpression<'a>>,
    /// What else a new one is given.
    pub set: Vec<ColumnExpression<'a>>,
    /// The unique index on what it is found by.
    pub index: &'a Key,
    /// What a new row of the parent needs and meets.
    pub insertion: Insertion,
    /// Which column is the tenant, added by us.
    pub tenant: Option<i16>,
    /// Why the tenant of a row is not known: a reason over `t`, NULL where it is.
    pub unknown_tenant: Option<String>,
    /// The parent's tenant column, whoever named it.
    pub tenant_column: Option<i16>,
    /// Each row gets a parent of its own: what the key gets by default. `matched` is a key that stands in for it.
    pub each: Option<String>,
}

/// Adds why rows of `parent` cannot be created for rows of `table`.
fn parents_can_be_made(
    session: &Session,
    (table, column): (&Table, &Column),
    (parent, key): (&Table, &Column),
    insertion: &Insertion,
    problems: &mut Problems,
) {
    let catalog = &session.catalog;
    let shown = catalog.display(parent);
    for of in [key, column] {
        if let Some((base, _)) = catalog
            .base_type(of.type_oid, -1)
            .filter(|(base, _)| !base.is_trusted())
        {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!(
                        "{} is of type {}, which belongs to another role",
                        of.quoted, base.display
                    ),
                )
                .detail("comparing its values could run a cast of that role with your rights")
                .hint(format!("run it as the owner of {shown}")),
            );
        }
    }
    if parent.oid == table.oid {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("{shown} is its own parent: rows that are created could lack a parent themselves"),
            )
            .hint("create them by hand, one level after the other"),
        );
    }
    for rule in &insertion.rules {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("rule {rule} rewrites every INSERT into {shown}"),
            )
            .hint("disable it for the run: ALTER TABLE ... DISABLE RULE ..."),
        );
    }
}

/// Adds which columns of normalize nothing is found by.
fn normalized_columns_are_matched<'n>(
    session: &Session,
    parent: &Table,
    normalized: impl Iterator<Item = &'n String>,
    matched: &[ColumnExpression],
    problems: &mut Problems,
) {
    for name in normalized {
        let known = session
            .catalog
            .resolve_column(parent, name)
            .is_ok_and(|column| matched.iter().any(|m| m.column.number == column.number));
        if !known {
            problems.push(Problem::invalid_parameter(
                format!("normalize: {name} is not in match"),
                "normalize names columns of match, as in '{\"address\": [\"trim\", \"casefold\"]}'",
            ));
        }
    }
}

/// Adds which columns are given twice.
///
/// * `shown`: the parent table.
fn set_columns_are_not_matched(
    shown: &str,
    matched: &[ColumnExpression],
    set: &[ColumnExpression],
    problems: &mut Problems,
) {
    for twice in set
        .iter()
        .filter(|s| matched.iter().any(|m| m.column.number == s.column.number))
    {
        problems.push(Problem::invalid_parameter(
            format!("{} of {shown} is in match and in set", twice.column.quoted),
            "leave it out of set: a parent has what it is found by",
        ));
    }
}

/// Adds that new rows would have to reference each other.
fn named_columns_reference_others(session: &Session, parent: &Table, named: &[i16], problems: &mut Problems) {
    let shown = session.catalog.display(parent);
    let itself = session
        .catalog
        .foreign_keys_of(parent.oid)
        .find(|f| f.parent == parent.oid && f.columns.iter().any(|c| named.contains(c)));
    if let Some(itself) = itself {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "{} of {shown} references the same table: the result would depend on the order in which rows are created",
                    itself.name
                ),
            )
            .hint("leave its columns out, and fill them afterwards"),
        );
    }
}

impl<'a> Identity<'a> {
    /// Resolves a request whose `match` is given. `overlays`: the tables as they would be by now.
    ///
    /// Errors: 42P01, 42703 (names), 42601 and whatever Postgres says (expressions), 42830 (no unique key), 23502 (required
    /// columns, all at once), 0A000, 22023, 42501; several as one.
    pub fn resolve(
        session: &'a Session,
        resolver: &TenantResolver<'a>,
        request: &ParentsRequest,
        overlays: &Overlays,
    ) -> Result<Self, Problem> {
        let catalog = &session.catalog;
        let table = catalog.resolve_table(&request.table)?;
        let column = catalog.resolve_column(table, &request.column)?;
        let (parent, key, declared) = parent_of(session, table, column, request.parent.as_deref())?;
        let mut problems = Problems::default();
        relation_can_be_filled(session, parent, &mut problems);
        let insertion = match parent.is_table() {
            true => catalog.insertion(parent)?,
            false => Insertion::default(),
        };
        let shown = catalog.display(parent);
        parents_can_be_made(session, (table, column), (parent, key), &insertion, &mut problems);
        let normalize = request.normalize.clone().unwrap_or_default();
        let empty = Map::new();
        let asked = request.matched.as_ref().unwrap_or(&empty);
        let each = request.matched.as_ref().is_some_and(Map::is_empty);
        let mut matched = column_expressions(
            session,
            table,
            parent,
            "match",
            asked,
            (Some(&normalize), each),
            &mut problems,
        )?;
        normalized_columns_are_matched(session, parent, normalize.keys(), &matched, &mut problems);
        let mut set = column_expressions(
            session,
            table,
            parent,
            "set",
            request.set.as_ref().unwrap_or(&empty),
            (None, each),
            &mut problems,
        )?;
        set_columns_are_not_matched(&shown, &matched, &set, &mut problems);
        let tenant = tenant_expression(session, resolver, table, parent, (&matched, &set), each, &mut problems);
        let (tenant, unknown_tenant) = match tenant {
            Some((given, unknown)) => (Some(given), unknown),
            None => (None, None),
        };
        let tenant_column = tenant.as_ref().map(|tenant| tenant.column.number);
        let mut default = None;
        match each {
            true => {
                if set.iter().any(|g| g.column.number == key.number) {
                    problems.push(Problem::invalid_parameter(
                        format!("set: {} of {shown} is the key, which its default gives", key.quoted),
                        "leave it out; or name it in match, for a parent that is found by it",
                    ));
                }
                set.extend(tenant);
                matched.extend(placeholder_key(session, table, parent, key, overlays, &mut problems));
                default = insertion
                    .defaults
                    .iter()
                    .find(|(c, _)| *c == key.number)
                    .map(|(_, sql)| sql.clone());
                if default.is_none() {
                    problems.push(
                        Problem::new(
                            PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                            format!("{} of {shown} has no default, so that a new row has no key", key.quoted),
                        )
                        .hint("give it a default, or name in match what a parent is found by"),
                    );
                }
            }
            false => matched.extend(tenant),
        }
        let unclear = !problems.is_empty();
        let index = match each {
            true => parent.keys.iter().find(|k| k.columns == [key.number]),
            // What was not understood cannot be missing.
            false if unclear => None,
            false => index(session, parent, &matched, &mut problems),
        };
        let named: Vec<i16> = matched.iter().chain(&set).map(|g| g.column.number).collect();
        let missing: Vec<&Column> = needed(parent, &insertion)
            .filter(|c| !named.contains(&c.number))
            .collect();
        if !missing.is_empty() && !unclear {
            problems.push(missing_required_columns(session, parent, &missing));
        }
        if !each && !named.contains(&key.number) && !insertion.with_default.contains(&key.number) && !key.not_null {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                    format!("{} of {shown} has no default, so that a new row has no key", key.quoted),
                )
                .hint("give it a default, or name it in match or set"),
            );
        }
        named_columns_reference_others(session, parent, &named, &mut problems);
        let all: Vec<i16> = parent.columns.iter().map(|c| c.number).collect();
        readable(session, parent, &all, false, &mut problems);
        let every: Vec<i16> = table.columns.iter().map(|c| c.number).collect();
        readable(session, table, &every, true, &mut problems);
        problems.into_result()?;
        let Some(index) = index else {
            return Err(Problem::invalid_parameter(
                "match is empty",
                "name what a parent is found by",
            ));
        };
        Ok(Identity {
            table,
            column,
            parent,
            key,
            declared,
            matched,
            set,
            index,
            insertion,
            tenant: tenant_column,
            tenant_column: match resolver.of(parent).as_ref() {
                RowTenant::Columns(columns) if columns.len() == 1 => Some(columns[0]),
                _ => None,
            },
            unknown_tenant,
            each: default,
        })
    }

    /// The tenant that the parent of a row gets, over `t`; `None`: parents belong to nobody, or the call gives no such column.
    pub fn tenant_of_row(&self) -> Option<&str> {
        let column = self.tenant_column?;
        let mut all = self.matched.iter().chain(&self.set);
        all.find(|given| given.column.number == column)
            .map(|given| given.sql.as_str())
    }

    /// What a new row is given in this column, in the query of the groups.
    pub fn value(&self, column: i16) -> Option<String> {
        let at = |list: &[ColumnExpression]| list.iter().position(|g| g.column.number == column);
        match (at(&self.matched), at(&self.set)) {
            (Some(at), _) => Some(format!("given.match_{}", at + 1)),
            (None, Some(at)) => Some(format!("given.set_{}", at + 1)),
            _ => None,
        }
    }

    /// What the parents are looked up by, in the order of the unique index.
    pub fn operands(&self) -> Vec<Operand> {
        let expression = |given: &ColumnExpression| Expression {
            name: given.expression.clone(),
            sql: given.sql.clone(),
            type_oid: given.type_oid,
            tree: given.tree.clone(),
        };
        self.matched
            .iter()
            .map(|given| Operand::Expression(expression(given)))
            .collect()
    }

    /// What else is evaluated where rows are looked at: what new parents are given, and what checks them.
    pub fn further(&self) -> Vec<Expression> {
        let given = self.set.iter().map(|given| (given.sql.clone(), given.tree.clone()));
        let checks = self.insertion.checks.iter().map(|check| &check.expression);
        let domains = self.insertion.domain_checks.iter().map(|(_, check)| &check.expression);
        let checks = checks.chain(domains).map(|expression| (expression.clone(), None));
        given
            .chain(checks)
            .map(|(sql, tree)| Expression {
                name: String::new(),
                sql,
                type_oid: 0,
                tree,
            })
            .collect()
    }

    /// `org_id = created_by, addr_key = lower(address)`.
    pub fn shown_assignments(list: &[ColumnExpression]) -> String {
        let parts: Vec<String> = list
            .iter()
            .map(|given| format!("{} = {}", given.column.quoted, given.expression))
            .collect();
        parts.join(", ")
    }
}

/// Columns that a new row must be given.
pub fn needed<'a>(parent: &'a Table, insertion: &Insertion) -> impl Iterator<Item = &'a Column> {
    parent
        .columns
        .iter()
        .filter(|c| c.not_null || insertion.domain_not_null.contains(&c.number))
        .filter(|c| !insertion.with_default.contains(&c.number))
}

/// The parent and its key.
pub fn parent_of<'a>(
    session: &'a Session,
    table: &Table,
    column: &Column,
    named: Option<&str>,
) -> Result<(&'a Table, &'a Column, bool), Problem> {
    let catalog = &session.catalog;
    let found = reference::of(catalog, table, column);
    if let Some(named) = named {
        let (parent, key) = parent_typed(catalog, table, column, named)?;
        let declared = found.is_some_and(|f| f.declared && f.parent == parent.oid && f.key == key[0].number);
        return Ok((parent, key[0], declared));
    }
    let to = found.and_then(|f| {
        let parent = catalog.table(f.parent)?;
        Some((parent, parent.column(f.key)?, f.declared))
    });
    to.ok_or_else(|| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!(
                "nothing says what {} of {} references",
                column.quoted,
                catalog.display(table)
            ),
        )
        .detail("no foreign key, and no table after which it is named")
        .hint("name it: parent => 'properties' or parent => 'properties(id)'")
    })
}

/// The unique index by which parents are found, and by which nobody else can create the same one meanwhile.
fn index<'a>(
    session: &Session,
    parent: &'a Table,
    matched: &[ColumnExpression],
    problems: &mut Problems,
) -> Option<&'a Key> {
    let columns: Vec<i16> = matched.iter().map(|g| g.column.number).collect();
    if columns.is_empty() {
        problems.push(Problem::invalid_parameter(
            "match names nothing by which a parent is found",
            "for example match => '{\"address_key\": \"lower(address)\"}'",
        ));
        return None;
    }
    let same = |key: &&Key| {
        key.columns.len() == columns.len() && columns.iter().all(|c| key.columns.contains(c)) && key.immediate
    };
    let found = parent.keys.iter().find(same);
    if found.is_none() {
        let shown = session.catalog.display(parent);
        let names: Vec<String> = matched
            .iter()
            .map(|g| Identifier::new(&g.column.name).to_string())
            .collect();
        let keys: Vec<String> = parent
            .keys
            .iter()
            .filter(|key| key.immediate)
            .map(|key| {
                parent
                    .names_of(&key.columns)
                    .iter()
                    .map(|n| typed(n))
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .collect();
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                format!("{shown} has no unique key on {}", names.join(", ")),
            )
            .detail(format!(
                "without it two runs could create the same parent twice; unique keys: {}",
                match keys.is_empty() {
                    true => "none".to_string(),
                    false => keys.join("; "),
                }
            ))
            .hint(format!(
                "CREATE UNIQUE INDEX CONCURRENTLY ON {} ({})",
                parent.sql(),
                names.join(", ")
            )),
        );
    }
    found
}

fn missing_required_columns(session: &Session, parent: &Table, missing: &[&Column]) -> Problem {
    let (list, example) = required_columns(session, missing, true);
    Problem::new(
        PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        format!(
            "match and set give no value for required columns of {}: {}",
            session.catalog.display(parent),
            list
        ),
    )
    .detail("these columns are NOT NULL and have no default")
    .hint(format!(
        "give them values, expressions over the row: set => {}",
        Literal::new(&Value::Object(example).to_string())
    ))
}
