//! A row as it would be after a write, for the expressions that decide whether it is accepted.

use crate::catalog::{Catalog, Column, Insertion, Table};

use super::expression::{all_set, equal};
use super::join::same_key;
use super::{Overlays, Reason};

/// `expression` (bare column names) evaluated on the row `t` as it would be.
///
/// * `generated`: generated columns with their expressions; they are computed anew.
/// * `new_value`: what is written to a column; `None`: it stays what it is.
/// * `columns`: those that the expression reads; none: all.
pub fn in_new_row(
    table: &Table,
    generated: &[(i16, String)],
    new_value: &dyn Fn(&Column) -> Option<String>,
    expression: &str,
    columns: &[i16],
) -> String {
    let generated: Vec<&(i16, String)> = generated
        .iter()
        .filter(|(n, _)| columns.is_empty() || columns.contains(n))
        .collect();
    let wanted = |n: i16| columns.is_empty() || columns.contains(&n) || !generated.is_empty();
    let stored = table
        .columns
        .iter()
        .filter(|c| !c.generated && wanted(c.number))
        .map(|c| {
            let value = new_value(c).unwrap_or_else(|| format!("t.{}", c.sql()));
            format!("{value} AS {}", c.sql())
        });
    let mut row = format!("(SELECT {}) AS new_row", stored.collect::<Vec<_>>().join(", "));
    if !generated.is_empty() {
        let computed: Vec<String> = generated
            .iter()
            .filter_map(|(n, expression)| table.column(*n).map(|c| format!("({expression}) AS {}", c.sql())))
            .collect();
        row = format!("(SELECT new_row.*, {} FROM {row}) AS new_row", computed.join(", "));
    }
    format!("(SELECT {expression} FROM {row})")
}

/// The CHECK of a domain, over VALUE, of this value (of the type below the domain).
pub fn of_value(expression: &str, value: &str) -> String {
    format!("(SELECT {expression} FROM (SELECT {value} AS \"value\") AS domain_value)")
}

/// Conditions under which a table refuses a new row, as far as its values are known before, each with the name of the
/// constraint: CHECKs, unique keys (rows that are in the table and the other new ones, all rows of which are listed in the
/// query that these stand in), foreign keys.
///
/// * `overlays`: the tables as they would be by now.
/// * `value`: what a column gets; `None`: its default.
/// * `found_by`: the key by which the row was looked for and not found.
pub fn refusals_of_new_row(
    catalog: &Catalog,
    parent: &Table,
    overlays: &Overlays,
    insertion: &Insertion,
    value: &dyn Fn(i16) -> Option<String>,
    found_by: &[i16],
) -> Vec<(String, Reason)> {
    let known = |c: i16| value(c).is_some();
    // `expression` (bare column names) of the new row.
    let of_new_row = |expression: &str, columns: &[i16]| {
        let row: Vec<String> = columns
            .iter()
            .filter_map(|c| parent.column(*c))
            .map(|c| {
                // Of a domain the base: its own CHECKs are asked by themselves.
                let base = catalog.base_type(c.type_oid, -1);
                let type_sql = base.map(|(base, _)| base.sql()).unwrap_or_default();
                format!(
                    "{}::{type_sql} AS {}",
                    value(c.number).unwrap_or("NULL".into()),
                    c.sql()
                )
            })
            .collect();
        let row = match row.is_empty() {
            true => "1".into(),
            false => row.join(", "),
        };
        format!("(SELECT {expression} FROM (SELECT {row}) AS new_row)")
    };
    let mut refusals = Vec::new();
    for (column, check) in &insertion.domain_checks {
        let base = parent.column(*column).and_then(|c| catalog.base_type(c.type_oid, -1));
        if let (Some(value), Some((base, _))) = (value(*column), base) {
            let value = format!("{value}::{}", base.sql());
            refusals.push((
                format!("NOT {}", of_value(&check.expression, &value)),
                Reason::refused_by(&check.name),
            ));
        }
    }
    for check in &insertion.checks {
        if insertion.is_known(&check.columns, &known) {
            refusals.push((
                format!("NOT {}", of_new_row(&check.expression, &check.columns)),
                Reason::refused_by(&check.name),
            ));
        }
    }
    for index in &insertion.unique_indexes {
        if !insertion.is_known(&index.columns, &known) {
            continue;
        }
        let collated = |at: usize, sql: String| match index.collations.get(at).cloned().flatten() {
            Some(name) => format!("({sql}) COLLATE {name}"),
            None => sql,
        };
        let keys: Vec<String> = index
            .expressions
            .iter()
            .enumerate()
            .map(|(at, expression)| collated(at, of_new_row(expression, &index.columns)))
            .collect();
        let applies = index.predicate.as_ref().map(|p| of_new_row(p, &index.columns));
        let mut found: Vec<String> = index.predicate.iter().map(|p| format!("({p})")).collect();
        for (at, (expression, key)) in index.expressions.iter().zip(&keys).enumerate() {
            let existing = collated(at, format!("({expression})"));
            found.push(match index.nulls_not_distinct {
                true => format!("{existing} IS NOT DISTINCT FROM {key}"),
                false => equal(
                    catalog,
                    &existing,
                    index.types.get(at).copied().unwrap_or_default(),
                    key,
                ),
            });
        }
        let mut partition = keys.clone();
        partition.extend(applies.iter().map(|applies| format!("{applies} IS TRUE")));
        let mut refused: Vec<String> = applies.into_iter().collect();
        if !index.nulls_not_distinct {
            refused.push(all_set(&keys));
        }
        refused.push(format!(
            "(pg_catalog.count(*) OVER (PARTITION BY {}) > 1 OR EXISTS (SELECT FROM {} AS existing WHERE {}))",
            partition.join(", "),
            overlays.relation_sql(parent),
            found.join(" AND ")
        ));
        refusals.push((refused.join(" AND "), Reason::refused_by(&index.name)));
    }
    for key in parent.keys.iter().filter(|key| key.columns != *found_by) {
        let values: Option<Vec<String>> = key.columns.iter().map(|c| value(*c)).collect();
        let Some(values) = values else { continue };
        let on: Vec<String> = key
            .columns
            .iter()
            .filter_map(|c| parent.column(*c))
            .zip(&values)
            .map(|(c, value)| equal(catalog, &format!("existing.{}", c.sql()), c.type_oid, value))
            .collect();
        refusals.push((
                format!(
                    "{} AND (pg_catalog.count(*) OVER (PARTITION BY {}) > 1 OR EXISTS (SELECT FROM {} AS existing WHERE {}))",
                    all_set(&values),
                    values.join(", "),
                    overlays.relation_sql(parent),
                    on.join(" AND ")
                ),
                Reason::refused_by(&key.name),
            ));
    }
    for key in catalog.foreign_keys_of(parent.oid).filter(|key| key.enforced) {
        let values: Option<Vec<String>> = key.columns.iter().map(|c| value(*c)).collect();
        let (Some(values), Some(above)) = (values, catalog.table(key.parent)) else {
            continue;
        };
        if key.match_full && values.len() > 1 {
            let null: Vec<String> = values.iter().map(|v| format!("{v} IS NULL")).collect();
            refusals.push((
                format!("({}) AND NOT ({})", null.join(" OR "), null.join(" AND ")),
                Reason::refused_by(&key.name),
            ));
        }
        let on: Vec<String> = key
            .parent_columns
            .iter()
            .filter_map(|c| above.column(*c))
            .zip(values.iter().zip(&key.columns))
            .map(|(c, (value, own))| same_key(catalog, &format!("above.{}", c.sql()), c, value, parent.column(*own)))
            .collect();
        refusals.push((
            format!(
                "{} AND NOT EXISTS (SELECT FROM {} AS above WHERE {})",
                all_set(&values),
                overlays.relation_sql(above),
                on.join(" AND ")
            ),
            Reason::refused_by(&key.name),
        ));
    }
    refusals
}
