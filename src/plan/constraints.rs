//! What refuses a value: the type, domains, CHECKs, foreign keys, unique indexes, each asked in SQL before it is written.

use super::classify::Extra;
use super::expression::{all_set, equal, indent};
use super::new_row::{in_new_row, of_value};
use super::reason::Reason;
use super::sources::Joined;
use super::{Blueprint, Moment};
use crate::catalog::{Check, Column, ForeignKey, UniqueIndex};
use crate::rule::typed;

impl Blueprint<'_> {
    /// Conditions under which a constraint refuses the value, with the outcome that names it.
    pub(super) fn refusals(&self) -> Vec<(String, Reason)> {
        let mut refusals = Vec::new();
        // What the type itself refuses comes first: behind it the value can be cast.
        if let Some((type_name, condition)) = self.type_limit("found.value") {
            refusals.push((condition, Reason::refused_by(&type_name)));
        }
        for check in &self.details.domain_checks {
            let holds = of_value(&check.expression, &self.value_as_target());
            refusals.push((format!("NOT {holds}"), Reason::refused_by(&check.name)));
        }
        for check in &self.details.checks {
            refusals.push((
                format!("NOT {}", self.check_sql(check)),
                Reason::refused_by(&check.name),
            ));
        }
        for (i, key) in self.foreign_keys().enumerate() {
            let alias = match self.is_reference(key) {
                true => "referenced".to_string(),
                false => format!("foreign_key_{}", i + 1),
            };
            let others: Vec<String> = key
                .columns
                .iter()
                .filter(|c| **c != self.column.number)
                .map(|c| self.new_key(*c))
                .collect();
            refusals.push((self.dangling(key, &alias, &others), Reason::refused_by(&key.name)));
        }
        // A row that this transaction wrote before is checked against its other foreign keys as well; those that are
        // NOT VALID may dangle since long ago.
        if let Some(touched) = self.touched_sql() {
            for (i, key) in self.old_keys().enumerate() {
                let columns: Vec<String> = key.columns.iter().map(|c| self.target_column_sql(*c)).collect();
                let dangling = format!(
                    "{} AND old_key_{}.{} IS NULL",
                    all_set(&columns),
                    i + 1,
                    self.column_sql(key.parent, key.parent_columns[0])
                );
                refusals.push((format!("{touched} AND {dangling}"), Reason::refused_by(&key.name)));
            }
        }
        if self.refuse_dangling
            && let Some(reference) = self.reference.as_ref().filter(|r| !r.declared)
            && let Some(parent) = self.catalog.table(reference.parent)
        {
            let name = format!(
                "{} -> {} (no such row)",
                typed(&self.column.name),
                self.catalog.display(parent)
            );
            let key = self.column_sql(reference.parent, reference.key);
            refusals.push((format!("referenced.{key} IS NULL"), Reason::refused_by(&name)));
        }
        refusals
    }

    /// The new key of the row finds no parent. `others`: its columns besides the one that is filled.
    fn dangling(&self, key: &ForeignKey, alias: &str, others: &[String]) -> String {
        let not_found = format!("{alias}.{} IS NULL", self.column_sql(key.parent, key.parent_columns[0]));
        match (others.is_empty(), key.match_full) {
            (true, _) => not_found,
            // MATCH FULL: all or none; MATCH SIMPLE: a NULL part exempts the row.
            (false, true) => format!("(NOT ({}) OR {not_found})", all_set(others)),
            (false, false) => format!("{} AND {not_found}", all_set(others)),
        }
    }

    /// A column of the row as it would be.
    fn new_key(&self, column: i16) -> String {
        match self.table.column(column) {
            Some(c) if c.number == self.column.number => "found.value".into(),
            Some(c) if c.generated => self.in_new_row(&c.sql().to_string(), &[]),
            _ => self.target_column_sql(column),
        }
    }

    /// Enforced foreign keys that are not validated and do not change: asked only of rows written before.
    fn old_keys(&self) -> impl Iterator<Item = &ForeignKey> {
        let asked = self.touched_sql().is_some();
        self.catalog
            .foreign_keys_of(self.table.oid)
            .filter(move |key| asked && key.enforced && !key.validated && !self.changes(key))
    }

    pub(super) fn old_key_joins(&self) -> Vec<String> {
        let own = |key: &ForeignKey| Joined::columns("t", self.table.oid, &key.columns);
        self.old_keys()
            .enumerate()
            .map(|(i, key)| {
                self.join(
                    &format!("old_key_{}", i + 1),
                    key.parent,
                    &key.parent_columns,
                    &own(key),
                )
            })
            .collect()
    }

    pub(super) fn check_sql(&self, check: &Check) -> String {
        self.in_new_row(&check.expression, &check.columns)
    }

    /// `expression` (bare column names) evaluated on the row as it would be: the target column replaced by the value,
    /// generated columns computed anew.
    pub(super) fn in_new_row(&self, expression: &str, columns: &[i16]) -> String {
        let new_value = |c: &Column| (c.number == self.column.number).then(|| self.value_as_target());
        in_new_row(self.table, &self.details.generated, &new_value, expression, columns)
    }

    /// A key of a unique index on the row as it would be; plain columns without the detour (true).
    pub(super) fn new_row_value(&self, expression: &str) -> (String, bool) {
        match self
            .table
            .columns
            .iter()
            .find(|c| c.quoted == expression && !c.generated)
        {
            Some(c) if c.number == self.column.number => (self.value_as_target(), true),
            Some(c) => (format!("t.{}", c.sql()), true),
            None => (self.in_new_row(expression, &[]), false),
        }
    }

    /// Wraps the classification: rows whose value would collide, with a row of the table or with each other, are
    /// refused. All rows that collide with each other are: nobody can say which of them is right.
    pub(super) fn with_unique(&self, derived: &str, unique: &[&UniqueIndex], moment: Moment, extra: Extra) -> String {
        let written = moment.has_written();
        let candidate = if written {
            "outcome = 'filled' AND NOT written"
        } else {
            "outcome = 'filled'"
        };
        let mut windows = Vec::new();
        let mut whens: Vec<(String, Reason)> = Vec::new();
        for (i, index) in unique.iter().enumerate() {
            let n = i + 1;
            let keys: Vec<String> = (1..=index.expressions.len())
                .map(|k| format!("unique_{n}_{k}"))
                .collect();
            let applies = index.predicate.as_ref().map(|_| format!("unique_{n}_applies"));
            let mut partition = vec![candidate.to_string()];
            partition.extend(applies.iter().map(|a| format!("{a} IS TRUE")));
            partition.extend(keys.iter().cloned());
            windows.push(format!(
                "count(*) OVER (PARTITION BY {}) AS unique_{n}_same",
                partition.join(", ")
            ));

            let mut matches: Vec<String> = index
                .expressions
                .iter()
                .zip(&keys)
                .zip(&index.types)
                .enumerate()
                .map(|(k, ((expression, key), type_oid))| {
                    let collation = index.collations.get(k).cloned().flatten();
                    let collation = collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
                    let existing = format!("({expression}){collation}");
                    let key = format!("derived.{key}");
                    if index.nulls_not_distinct {
                        format!("{existing} IS NOT DISTINCT FROM {key}")
                    } else {
                        equal(self.catalog, &existing, *type_oid, &key)
                    }
                })
                .collect();
            matches.extend(index.predicate.iter().map(|p| format!("({p})")));
            // The row itself is in the index too if the target column is not a plain part of its key.
            if self.is_stored() && !index.expressions.contains(&self.column.quoted) {
                matches.push(match self.rows_need_table() {
                    true => "NOT (existing.tableoid = derived.row_table AND existing.ctid = derived.row_ctid)".into(),
                    false => "existing.ctid <> derived.row_ctid".into(),
                });
            }
            let exists = format!(
                "EXISTS (SELECT FROM {} AS existing WHERE {})",
                self.overlays.relation_sql(self.table),
                matches.join(" AND ")
            );
            let mut conditions = vec![candidate.to_string()];
            conditions.extend(applies);
            if !index.nulls_not_distinct {
                conditions.push(all_set(&keys));
            }
            conditions.push(format!("(unique_{n}_same > 1 OR {exists})"));
            let refused = Reason::refused_by(&index.name);
            whens.push((conditions.join(" AND "), refused));
        }
        let mut columns: Vec<String> = Vec::new();
        if extra != Extra::None && self.is_stored() {
            columns.push("row_ctid".into());
            if self.rows_need_table() {
                columns.push("row_table".into());
            }
        }
        match extra {
            Extra::Columns => {
                columns.push("touched".into());
                columns.extend(self.table.columns.iter().map(|c| format!("column_{}", c.number)));
            }
            Extra::Explained => columns.extend(["key".into(), "detail".into()]),
            Extra::Replaced => columns.extend(["key".into(), "old_value".into()]),
            Extra::None | Extra::Row => {}
        }
        let whens: Vec<String> = whens
            .iter()
            .map(|(condition, reason)| format!("WHEN {condition} THEN {}", reason.sql()))
            .collect();
        columns.push(format!(
            "CASE\n    {}\n    ELSE outcome\n  END AS outcome",
            whens.join("\n    ")
        ));
        columns.extend(["value".into(), "unguarded".into()]);
        if self.overwrites() {
            columns.push("replaces".into());
        }
        if written {
            columns.extend(["written".into(), "agrees".into()]);
        }
        let in_set = match self.rows.condition(self.catalog, self.table, "t") {
            Some(_) => "\nWHERE derived.in_set",
            None => "",
        };
        format!(
            "SELECT\n  {}\nFROM (\n  SELECT derived.*,\n    {}\n  FROM (\n{}\n  ) AS derived\n) AS derived{in_set}",
            columns.join(",\n  "),
            windows.join(",\n    "),
            indent(derived, 4)
        )
    }

    pub(super) fn foreign_key_joins(&self) -> Vec<String> {
        self.foreign_keys()
            .enumerate()
            .filter(|(_, key)| !self.is_reference(key))
            .map(|(i, key)| {
                let alias = format!("foreign_key_{}", i + 1);
                let on: Vec<String> = key
                    .columns
                    .iter()
                    .zip(&key.parent_columns)
                    .map(|(column, parent_column)| {
                        let of_parent = format!("{alias}.{}", self.column_sql(key.parent, *parent_column));
                        let own = self.table.column(*column);
                        self.same_key(&of_parent, key.parent, *parent_column, &self.new_key(*column), own)
                    })
                    .collect();
                format!(
                    "LEFT JOIN {} AS {alias} ON {}",
                    self.overlays.relation_sql(self.table_of(key.parent)),
                    on.join(" AND ")
                )
            })
            .collect()
    }
}
