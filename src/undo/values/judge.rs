//! The outcome of each row: conditions under which its old values cannot be restored.

use super::{Values, What};
use crate::catalog::{Catalog, Column};
use crate::identifier::Literal;
use crate::plan::kept::Change;
use crate::plan::kept::{key_conditions, old_value, same_as_kept};
use crate::plan::reason::{self, Reason};
use crate::plan::refusal::{ChangedRow, Refusal};
use crate::plan::written_as;
use crate::run::record;

impl Values<'_> {
    /// The value that a column is to have again.
    pub(super) fn old(&self, column: &Column) -> String {
        if self.what == What::Filled {
            let base = self.session.catalog.base_type(column.type_oid, -1);
            return base.map_or("NULL".into(), |(base, _)| format!("NULL::{}", base.sql()));
        }
        old_value(&self.session.catalog, column, "kept.old_values")
    }

    /// The row has what the run wrote.
    pub(super) fn as_written(&self) -> String {
        let catalog = &self.session.catalog;
        let columns = self.columns.iter();
        let same: Vec<String> = columns
            .map(|c| {
                let own = format!("t.{}", c.sql());
                match self.what {
                    What::Kept(Change::Nullified) => format!("{own} IS NOT DISTINCT FROM NULL"),
                    What::Kept(_) => same_or_null(catalog, c, "kept.new_values"),
                    What::Filled => format!("{own} IS DISTINCT FROM NULL"),
                }
            })
            .collect();
        same.join(" AND ")
    }

    /// The row as it would be.
    fn changed(&self) -> ChangedRow<'_> {
        ChangedRow {
            catalog: &self.session.catalog,
            table: self.table,
            generated: &self.details.generated,
            written: self.columns.iter().map(|c| (*c, self.old(c))).collect(),
        }
    }

    /// Why a row cannot have its values again, in order.
    fn refusals(&self) -> Vec<Refusal> {
        let mut refusals = vec![(format!("NOT ({})", self.as_written()), Reason::ChangedSince)];
        for column in self
            .columns
            .iter()
            .filter(|c| c.never_null || self.details.domain_not_null)
        {
            let null = format!("({}) IS NOT DISTINCT FROM NULL", self.old(column));
            refusals.push((null, Reason::refused_by(&format!("NOT NULL of {}", column.name))));
        }
        let changed = self.changed();
        refusals.extend(changed.checks(&self.details.checks, &self.domain_checks));
        refusals.extend(changed.foreign_keys());
        refusals
    }

    /// Conditions under which the row would have the key of another row, or of one that is to be put back as well.
    fn collisions(&self) -> Vec<Refusal> {
        // Rows that are put back already, or gone, are in nobody's way; nor are those that are refused anyway.
        let mut together: Vec<String> = match self.what {
            What::Filled => vec![],
            What::Kept(_) => vec!["(kept.undone_by IS NULL AND t.ctid IS NOT NULL)".into()],
        };
        let refused: Vec<String> = self
            .refusals()
            .iter()
            .map(|(refused, _)| format!("({refused})"))
            .collect();
        together.push(format!("({}) IS TRUE", refused.join(" OR ")));
        let indexes = self.details.unique_indexes.iter();
        indexes
            .map(|index| self.changed().collision(index, &together))
            .collect()
    }

    /// Changes of the run that are not taken back yet, as a condition on `mend.changes`.
    pub(super) fn of_run(&self, alias: &str) -> String {
        let change = match self.what {
            What::Kept(change) => change.as_str(),
            What::Filled => "",
        };
        format!(
            "{alias}.run_id = {} AND {alias}.change = '{change}' AND {alias}.table_name = {} AND {alias}.undone_by IS NULL",
            self.id,
            Literal::new(&record::qualified(self.table))
        )
    }

    /// The ids of the rows that were filled.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.shares
            .borrow()
            .iter()
            .flat_map(|share| share.ids.iter().copied())
            .collect()
    }

    /// Rows that were filled under these ids, as a condition over `t`.
    pub(super) fn filled_as(&self, ids: &[u32]) -> String {
        let mut conditions = vec![written_as("t", ids), self.as_written()];
        if self.replaced > 0 {
            // What was replaced is kept by itself.
            let mut kept = key_conditions(&self.session.catalog, self.table, "t", "kept.row_key");
            kept.push(format!("kept.run_id = {} AND kept.change = 'replaced'", self.id));
            conditions.push(format!(
                "NOT EXISTS (SELECT FROM mend.changes AS kept WHERE {})",
                kept.join(" AND ")
            ));
        }
        conditions.join(" AND ")
    }

    /// Which rows of which table would be NULL in which column, as a condition over `t`.
    pub(in crate::undo) fn unlinked(&self) -> Option<(u32, i16, String)> {
        let column = self.columns.first().filter(|_| self.what == What::Filled)?;
        let mut conditions = vec![self.filled_as(&self.ids())];
        conditions.extend(self.accepted());
        Some((self.table.oid, column.number, conditions.join(" AND ")))
    }

    /// Nothing refuses it.
    fn accepted(&self) -> Vec<String> {
        let refusals = self.refusals();
        refusals
            .iter()
            .map(|(refused, _)| format!("({refused}) IS NOT TRUE"))
            .collect()
    }

    /// The rows, each with what becomes of it as `outcome`: of filled ones `row_ctid`, `row_table` and the old values as `old_1`, ..., of
    /// others `change_id`.
    pub(super) fn judged_rows(&self) -> String {
        let catalog = &self.session.catalog;
        let mut cases = match self.what {
            What::Filled => vec![],
            What::Kept(_) => vec![
                ("kept.undone_by IS NOT NULL".to_string(), Reason::AlreadyRestored),
                ("t.ctid IS NULL".to_string(), Reason::RowIsGone),
            ],
        };
        cases.extend(self.refusals());
        cases.extend(self.collisions());
        let outcome = reason::case(&cases, &Reason::Undone);
        let table = self.table.relation_sql();
        match self.what {
            What::Filled => {
                let old: Vec<String> = self
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(i, c)| {
                        let text = catalog.text_sql(&format!("t.{}", c.sql()), c.type_oid);
                        format!("{text} AS old_{}", i + 1)
                    })
                    .collect();
                format!(
                    "SELECT t.ctid AS row_ctid, t.tableoid AS row_table, {}, ({outcome})::pg_catalog.text AS outcome\n\
                     FROM {table} AS t\nWHERE {}",
                    old.join(", "),
                    self.filled_as(&self.ids())
                )
            }
            What::Kept(change) => {
                let key = key_conditions(catalog, self.table, "t", "kept.row_key");
                format!(
                    "SELECT kept.change_id, ({outcome})::pg_catalog.text AS outcome\nFROM mend.changes AS kept\nLEFT JOIN {table} AS t ON {}\n\
                     WHERE kept.run_id = {} AND kept.change = '{}' AND kept.table_name = {}",
                    key.join(" AND "),
                    self.id,
                    change.as_str(),
                    Literal::new(&record::qualified(self.table))
                )
            }
        }
    }
}

/// The column of the row `t` has the value that was kept in `json`, or is NULL as that is.
pub(super) fn same_or_null(catalog: &Catalog, column: &Column, json: &str) -> String {
    let own = format!("t.{}", column.sql());
    let kept = format!("{json} ->> {}", Literal::new(&column.name));
    let same = same_as_kept(catalog, &own, column, column, json);
    format!("CASE WHEN ({kept}) IS NULL THEN {own} IS NOT DISTINCT FROM NULL ELSE ({same}) IS TRUE END")
}
