//! What a table refuses where columns of a row get other values or become NULL: CHECKs, domains, foreign keys, unique indexes, each asked in
//! SQL before it is written. (A backfill asks the same of values that it finds by joins, see `constraints`; a new row is in `new_row`.)

use super::expression::{all_set, equal};
use super::join::same_key;
use super::new_row::{in_new_row, of_value};
use super::reason::Reason;
use crate::catalog::{Catalog, Check, Column, Table, UniqueIndex};

/// A row `t` of a table, some columns of which get new values.
pub struct ChangedRow<'a> {
    /// The database.
    pub catalog: &'a Catalog,
    /// Its table.
    pub table: &'a Table,
    /// Generated columns with their expressions.
    pub generated: &'a [(i16, String)],
    /// The columns that are written, with their new values, of the base of a domain.
    pub written: Vec<(&'a Column, String)>,
}

/// A condition under which a row is refused, and by what.
pub type Refusal = (String, Reason);

impl ChangedRow<'_> {
    fn new_value(&self, column: &Column) -> Option<String> {
        let written = self.written.iter().find(|(of, _)| of.number == column.number);
        written.map(|(_, value)| value.clone())
    }

    /// `expression` (bare column names) of the row as it would be.
    ///
    /// * `columns`: those that it reads; none: all.
    fn expression(&self, expression: &str, columns: &[i16]) -> String {
        in_new_row(self.table, self.generated, &|c| self.new_value(c), expression, columns)
    }

    /// A column or an expression of the row as it would be.
    fn key(&self, expression: &str) -> String {
        let mut columns = self.table.columns.iter();
        match columns.find(|c| c.quoted == expression && !c.generated) {
            Some(column) => self.new_value(column).unwrap_or_else(|| format!("t.{}", column.sql())),
            None => self.expression(expression, &[]),
        }
    }

    /// CHECKs of the table, and of the domains of columns that are written.
    pub fn checks(&self, of_table: &[Check], of_domains: &[(&Column, Check)]) -> Vec<Refusal> {
        let domains = of_domains.iter().map(|(column, check)| {
            let value = self.new_value(column).unwrap_or_else(|| "NULL".into());
            (
                format!("NOT {}", of_value(&check.expression, &value)),
                Reason::refused_by(&check.name),
            )
        });
        let checks = of_table.iter().map(|check| {
            (
                format!("NOT {}", self.expression(&check.expression, &check.columns)),
                Reason::refused_by(&check.name),
            )
        });
        domains.chain(checks).collect()
    }

    /// Foreign keys, valid or not, that refuse a new value without a parent.
    pub fn foreign_keys(&self) -> Vec<Refusal> {
        let mut refusals = vec![];
        for key in self.catalog.foreign_keys_of(self.table.oid).filter(|key| key.enforced) {
            let concerns = self.written.iter().any(|(c, _)| key.columns.contains(&c.number));
            let Some(parent) = self.catalog.table(key.parent).filter(|_| concerns) else {
                continue;
            };
            let own = key.columns.iter().filter_map(|c| self.table.column(*c));
            let own: Vec<String> = own
                .map(|c| self.new_value(c).unwrap_or_else(|| format!("t.{}", c.sql())))
                .collect();
            if key.match_full && own.len() > 1 {
                let null: Vec<String> = own.iter().map(|own| format!("({own}) IS NULL")).collect();
                let partly = format!("({}) AND NOT ({})", null.join(" OR "), null.join(" AND "));
                refusals.push((partly, Reason::refused_by(&key.name)));
            }
            let on: Vec<String> = key
                .parent_columns
                .iter()
                .filter_map(|c| parent.column(*c))
                .zip(own.iter().zip(&key.columns))
                .map(|(c, (value, column))| {
                    let (of_parent, column) = (format!("p.{}", c.sql()), self.table.column(*column));
                    same_key(self.catalog, &of_parent, c, &format!("({value})"), column)
                })
                .collect();
            let set: Vec<String> = own.iter().map(|own| format!("({own})")).collect();
            let missing = format!(
                "{} AND NOT EXISTS (SELECT FROM {} AS p WHERE {})",
                all_set(&set),
                parent.relation_sql(),
                on.join(" AND ")
            );
            refusals.push((missing, Reason::SourceMissing));
        }
        refusals
    }

    /// The row would have the key of another one, or of one that is changed together with it: only in the list of a SELECT over all rows
    /// that are changed together.
    ///
    /// * `together`: what rows must have in common to be in each other's way.
    pub fn collision(&self, index: &UniqueIndex, together: &[String]) -> Refusal {
        let (mut keys, mut existing) = (vec![], vec![]);
        for (at, expression) in index.expressions.iter().enumerate() {
            let collation = index.collations.get(at).cloned().flatten();
            let collation = collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            let key = format!("({}){collation}", self.key(expression));
            let there = format!("({expression}){collation}");
            let type_oid = index.types.get(at).copied().unwrap_or_default();
            existing.push(match index.nulls_not_distinct {
                true => format!("{there} IS NOT DISTINCT FROM {key}"),
                false => equal(self.catalog, &there, type_oid, &key),
            });
            keys.push(key);
        }
        let same_row = match self.table.kind {
            'p' => "existing.tableoid = t.tableoid AND existing.ctid = t.ctid",
            _ => "existing.ctid = t.ctid",
        };
        existing.extend(index.predicate.iter().map(|predicate| format!("({predicate})")));
        let applies = index.predicate.as_ref();
        let applies = applies.map(|predicate| format!("{} IS TRUE", self.expression(predicate, &[])));
        let mut partition = keys.clone();
        partition.extend(applies.iter().cloned());
        partition.extend(together.iter().cloned());
        let mut conditions: Vec<String> = applies.into_iter().collect();
        if !index.nulls_not_distinct {
            conditions.push(all_set(&keys));
        }
        conditions.push(format!(
            "(pg_catalog.count(*) OVER (PARTITION BY {}) > 1 OR EXISTS (SELECT FROM {} AS existing WHERE {} AND NOT ({same_row})))",
            partition.join(", "),
            self.table.relation_sql(),
            existing.join(" AND ")
        ));
        (conditions.join(" AND "), Reason::refused_by(&index.name))
    }
}
