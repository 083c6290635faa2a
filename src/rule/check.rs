//! From typed words to a rule: every name looked up, every type compared, everything that is wrong reported at once.

use pgrx::prelude::PgSqlErrorCode;

use super::{Hop, Path, Source, SourceSpec};
use crate::catalog::{Catalog, Column, Table};
use crate::names;
use crate::problem::Problem;

/// Problems found so far; several become one error that lists them all.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: impl Into<Problem>) {
        self.0.push(problem.into());
    }

    /// Keeps the value, or adds the problem.
    pub fn keep<T, E: Into<Problem>>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problem) => {
                self.push(problem);
                None
            }
        }
    }

    /// Nothing found?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` if there are none. One is returned as it is; several under the SQLSTATE of the first, DETAIL listing all and
    /// HINT what to do about each.
    pub fn into_result(mut self) -> Result<(), Problem> {
        // The same of several tables (a tenant that is no number) is said once.
        let mut seen: Vec<Problem> = Vec::new();
        self.0.retain(|problem| {
            let new = !seen.contains(problem);
            seen.push(problem.clone());
            new
        });
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            count => {
                let lines: Vec<String> = self
                    .0
                    .iter()
                    .enumerate()
                    .map(|(i, p)| {
                        let detail = p.detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default();
                        format!("{}. {}{detail}", i + 1, p.message)
                    })
                    .collect();
                let hints: Vec<String> = self
                    .0
                    .iter()
                    .enumerate()
                    .filter_map(|(i, p)| p.hint.as_ref().map(|hint| format!("{}. {hint}", i + 1)))
                    .collect();
                let mut problem = Problem::new(
                    self.0[0].code,
                    format!("the rule has {count} problems; nothing was written"),
                )
                .detail(lines.join("\n"));
                if !hints.is_empty() {
                    problem = problem.hint(hints.join("\n"));
                }
                Err(problem)
            }
        }
    }
}

/// Looks up one source path.
///
/// Adds to `problems`: 42601 grammar, 42P01 / 42703 unknown names, 42830 no key to join by, 42804 types that do not fit.
pub fn source(
    catalog: &Catalog,
    table: &Table,
    column: &Column,
    spec: &SourceSpec,
    problems: &mut Problems,
) -> Option<Source> {
    let path = match spec {
        SourceSpec::Path(path) => path.clone(),
        SourceSpec::Text(text) => problems.keep(text.parse::<Path>())?,
    };
    let lists = std::iter::once(&path.columns).chain(path.hops.iter().map(|hop| &hop.columns));
    let last = path.hops.last().map_or(&path.columns, |hop| &hop.columns);
    if lists.clone().any(|columns| columns.is_empty()) || last.len() != 1 {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("source {} does not end in one column", serde_json::json!(path)),
            )
            .hint("\"columns\" names the key of the next hop, at the end the one column whose value is taken"),
        );
        return None;
    }
    let mut columns = look_up(catalog, table, &path.columns, problems);
    // `None` once a name was not found: later hops are still checked as far as they can be.
    let mut from: Option<(&Table, Vec<i16>)> = columns.clone().map(|columns| (table, columns));
    let mut hops = Vec::new();
    for hop in &path.hops {
        let parent = problems.keep(catalog.resolve_table(&hop.table))?;
        let taken = look_up(catalog, parent, &hop.columns, problems);
        let key = match &hop.key {
            Some(key) => look_up(catalog, parent, key, problems),
            None => from.as_mut().and_then(|(child, named)| {
                let (all, key) = problems.keep(implied_key(catalog, child, named, parent))?;
                // The tenant of a row goes without saying.
                if all != *named {
                    match hops.last_mut() {
                        Some(Hop { columns, .. }) => *columns = all.clone(),
                        None => columns = Some(all.clone()),
                    }
                    *named = all;
                }
                Some(key)
            }),
        };
        if let (Some((child, columns)), Some(key)) = (&from, &key) {
            comparable(catalog, child, columns, parent, key, problems);
        }
        if let (Some(key), Some(taken)) = (key, taken.clone()) {
            hops.push(Hop {
                parent: parent.oid,
                key,
                columns: taken,
            });
        }
        from = taken.map(|columns| (parent, columns));
    }
    let (owner, value) = from?;
    // A name was not found: that is reported already.
    if hops.len() != path.hops.len() {
        return None;
    }
    let value = owner.column(value[0])?;
    if owner.oid == table.oid && value.number == column.number && path.hops.is_empty() {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("source \"{path}\" is the column to fill itself"),
            )
            .hint("name another column, or a path to one"),
        );
    }
    assignable(catalog, table, column, owner, value, problems);
    Some(Source::of_columns(&columns?, hops))
}

fn look_up(catalog: &Catalog, table: &Table, names: &[String], problems: &mut Problems) -> Option<Vec<i16>> {
    let found: Vec<Option<i16>> = names
        .iter()
        .map(|name| problems.keep(catalog.resolve_column(table, name)).map(|c| c.number))
        .collect();
    found.into_iter().collect()
}

/// The key of `parent` that `columns` of `child` mean: that of the foreign key, else the primary key. A single column may mean a key of
/// two: by the foreign key that it is part of, or where it is named after one (`domain_id`, `id`) and the other has a namesake in `child`
/// (`org_id`). Returns all columns, and the
/// key in their order.
fn implied_key(
    catalog: &Catalog,
    child: &Table,
    columns: &[i16],
    parent: &Table,
) -> Result<(Vec<i16>, Vec<i16>), Problem> {
    let foreign_keys = || {
        catalog
            .foreign_keys_of(child.oid)
            .filter(|key| key.parent == parent.oid)
    };
    let by_foreign_key = || {
        foreign_keys()
            .filter(|key| key.columns.len() == columns.len())
            .find_map(|key| {
                // Same columns in any order; the parent's in the order of ours.
                columns
                    .iter()
                    .map(|c| key.columns.iter().position(|k| k == c).map(|at| key.parent_columns[at]))
                    .collect::<Option<Vec<i16>>>()
            })
    };
    let by_primary_key = || {
        parent
            .primary_key()
            .filter(|key| key.columns.len() == columns.len())
            .map(|key| key.columns.clone())
    };
    let found = by_foreign_key()
        .or_else(by_primary_key)
        .map(|key| (columns.to_vec(), key));
    let [only] = *columns else {
        return found.ok_or_else(|| no_key(catalog, child, columns, parent));
    };
    let part_of_foreign_key = || {
        let key = foreign_keys().find(|key| key.columns.len() == 2 && key.columns.contains(&only))?;
        Some((key.columns.clone(), key.parent_columns.clone()))
    };
    let with_namesake = || {
        let [a, b] = parent.primary_key()?.columns[..] else {
            return None;
        };
        let namesake = |of: i16| Some(child.column_named(&parent.column(of)?.name)?.number);
        let own = child.column(only)?;
        let with = |tenant: i16, key: i16| {
            let to = parent.column(key)?;
            let other = namesake(tenant).filter(|other| *other != only)?;
            // domain_id means the id, not the org_id.
            let named = names::words(&own.name).ends_with(&names::words(&to.name));
            (named && catalog.comparable(own.type_oid, to.type_oid)).then(|| (vec![other, only], vec![tenant, key]))
        };
        // Where both fit, which of them is meant cannot be told.
        match (with(a, b), with(b, a)) {
            (Some(found), None) | (None, Some(found)) => Some(found),
            _ => None,
        }
    };
    found
        .or_else(part_of_foreign_key)
        .or_else(with_namesake)
        .ok_or_else(|| no_key(catalog, child, columns, parent))
}

fn no_key(catalog: &Catalog, child: &Table, columns: &[i16], parent: &Table) -> Problem {
    let shown = catalog.display(parent);
    Problem::new(
        PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
        format!("no key of {shown} is known for {}", child.names_of(columns).join(", ")),
    )
    .detail(format!(
        "no foreign key leads there, and {shown} has no primary key of {} column{}",
        columns.len(),
        if columns.len() == 1 { "" } else { "s" }
    ))
    .hint(format!(
        "name the key, as in \"{} -> {shown}(key_column).value\"",
        child.names_of(columns).join(", ")
    ))
}

fn comparable(catalog: &Catalog, child: &Table, columns: &[i16], parent: &Table, key: &[i16], problems: &mut Problems) {
    if columns.len() != key.len() {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                format!(
                    "{} columns cannot be compared with a key of {}",
                    columns.len(),
                    key.len()
                ),
            )
            .detail(format!(
                "({}) against {}({})",
                child.names_of(columns).join(", "),
                catalog.display(parent),
                parent.names_of(key).join(", ")
            ))
            .hint("write both sides with the same number of columns: '(a, b) -> parent(x, y).value'"),
        );
        return;
    }
    for (a, b) in columns.iter().zip(key) {
        let (Some(a), Some(b)) = (child.column(*a), parent.column(*b)) else {
            continue;
        };
        if !catalog.comparable(a.type_oid, b.type_oid) {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!(
                        "{}.{} ({}) cannot be compared with {}.{} ({})",
                        catalog.display(child),
                        a.quoted,
                        type_name(catalog, a),
                        catalog.display(parent),
                        b.quoted,
                        type_name(catalog, b)
                    ),
                )
                .hint(
                    "give one side the type of the other (a view or a generated column will do), then name that column",
                ),
            );
        }
    }
}

/// Can a value of `value` be written to `column` without losing or changing anything? Same base type; any string type
/// to another, any integer type to another (values that do not fit are refused one by one); integers to numeric.
pub fn fits(catalog: &Catalog, column: &Column, value: &Column) -> bool {
    let (Some((to, to_modifier)), Some((from, from_modifier))) = (
        catalog.base_type(column.type_oid, column.type_modifier),
        catalog.base_type(value.type_oid, value.type_modifier),
    ) else {
        return false;
    };
    let strings = to.is_string() && from.is_string();
    let integers = from.integer_range().is_some()
        && (to.integer_range().is_some() || (to.schema == "pg_catalog" && to.name == "numeric" && to_modifier == -1));
    strings || integers || to.oid == from.oid && (to_modifier == -1 || to_modifier == from_modifier)
}

fn assignable(
    catalog: &Catalog,
    table: &Table,
    column: &Column,
    owner: &Table,
    value: &Column,
    problems: &mut Problems,
) {
    let Some((to, _)) = catalog.base_type(column.type_oid, column.type_modifier) else {
        return;
    };
    if !fits(catalog, column, value) {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "{}.{} is {}, but {}.{} is {}",
                    catalog.display(table),
                    column.quoted,
                    type_name(catalog, column),
                    catalog.display(owner),
                    value.quoted,
                    type_name(catalog, value)
                ),
            )
            .hint("take the value from a column of the same type"),
        );
    } else if to.equality.is_none() {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                format!("values of type {} cannot be compared", to.display),
            )
            .detail(format!(
                "{}.{} could be filled, but the result could not be verified",
                catalog.display(table),
                column.quoted
            ))
            .hint("use a type with an equality operator (jsonb instead of json)"),
        );
    }
}

fn type_name(catalog: &Catalog, column: &Column) -> String {
    catalog
        .type_of(column.type_oid)
        .map(|t| t.with_modifier(column.type_modifier))
        .unwrap_or_else(|| "of an unknown type".into())
}
