//! The statements that put values back, and what is read back of them.

use pgrx::prelude::*;

use super::super::number;
use super::Values;
use super::judge::same_or_null;
use crate::pg::Settings;
use crate::plan::expression::indent;
use crate::plan::kept::{json_object, keeping, key_conditions};
use crate::plan::{Statement, Versions, written_as};
use crate::problem::Problem;
use crate::run::ledger::{self, Change};
use crate::run::record;
use crate::run::{Writes, as_one};

impl Values<'_> {
    /// What was filled becomes NULL, share by share; what it was is kept where the row has a key.
    pub(super) fn nullify_filled(&self, run: i64) -> Result<i64, Problem> {
        let table = record::qualified(self.table);
        let (mut rows, mut ids) = (0, vec![]);
        let shares = self.shares.borrow().clone();
        for share in &shares {
            pgrx::check_for_interrupts!();
            let statement = self.nullify(&share.ids);
            let (written, id) = as_one(|| {
                let _own = Settings::of_one_statement();
                Ok(ledger::keep(run, Change::Nullified, &table, None, &statement)?[0])
            })?;
            rows += written;
            if let Some(id) = id {
                ids.push(id);
                // The other runs of the share can be taken back as before.
                let mut runs: Vec<i64> = share.runs.iter().copied().filter(|of| *of != self.id).collect();
                runs.push(run);
                ledger::wrote(run, self.table.oid, None, id, &runs)?;
            }
        }
        let null: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("t.{} IS NOT DISTINCT FROM NULL", c.sql()))
            .collect();
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM {} AS t WHERE {} AND {}",
            self.table.relation_sql(),
            written_as("t", &ids),
            null.join(" AND ")
        );
        self.holds(&sql, rows)?;
        Ok(rows)
    }

    pub(super) fn nullify(&self, ids: &[u32]) -> Statement {
        let catalog = &self.session.catalog;
        let set: Vec<String> = self.columns.iter().map(|c| format!("{} = NULL", c.sql())).collect();
        let old = self.columns.iter().enumerate();
        let old = old.map(|(i, c)| (*c, format!("judged.old_{}", i + 1)));
        // A row that somebody changes meanwhile has another place and another id.
        let same = match self.table.kind {
            'p' => "judged.row_table = t.tableoid AND judged.row_ctid = t.ctid",
            _ => "judged.row_ctid = t.ctid",
        };
        let update = Statement::new(format!(
            "UPDATE {} AS t SET {}\nFROM (\n{}\n) AS judged",
            self.table.relation_sql(),
            set.join(", "),
            indent(&self.judged_rows(), 2),
        ))
        .filter("judged.outcome = 'undone'")
        .filter(same)
        .filter(written_as("t", ids))
        .under_callers_settings(&self.session.caller.with_exact_texts());
        let parameters = update.parameters().to_vec();
        let written = update.ending(format!(
            "RETURNING {} AS row_key, {} AS old_values",
            self.table.row_key_sql(catalog, "t"),
            json_object(old)
        ));
        keeping(
            vec![written.as_query("written")],
            &["(SELECT pg_catalog.count(*) FROM written)"],
            &[
                ("row_key", "row_key::pg_catalog.text"),
                ("old_values", "old_values::pg_catalog.text"),
            ],
            "written",
            // Without a key nobody could find the row again.
            self.table.primary_key().is_none().then_some("false"),
        )
        .with_parameters(parameters)
    }

    pub(super) fn write_kept(&self, run: i64) -> Result<i64, Problem> {
        // In parts, so that what other runs wrote of the same rows can be taken back as before.
        let before = ledger::written_by(None, self.table.oid)?;
        let mut writes = Writes::of(&before);
        let written = writes.each(|versions| {
            let statement = self.write(versions);
            let _own = Settings::of_one_statement();
            ledger::mark_undone(run, &statement)
        })?;
        writes.keep(run, self.table.oid, None)?;
        ledger::keep_reversed(run)?;
        let mut conditions = key_conditions(&self.session.catalog, self.table, "t", "kept.row_key");
        let catalog = &self.session.catalog;
        conditions.extend(self.columns.iter().map(|c| same_or_null(catalog, c, "kept.old_values")));
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM mend.changes AS kept JOIN {} AS t ON {}\nWHERE kept.undone_by = {run}",
            self.table.relation_sql(),
            conditions.join(" AND ")
        );
        self.holds(&sql, written)?;
        Ok(written)
    }

    /// Writes the values back; returns the changes that are undone by that, as [`ledger::mark_undone`] takes them.
    ///
    /// * `versions`: only these rows.
    pub(super) fn write(&self, versions: &Versions) -> Statement {
        let set: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("{} = {}", c.sql(), self.old(c)))
            .collect();
        let mut conditions = key_conditions(&self.session.catalog, self.table, "t", "kept.row_key");
        conditions.push(self.of_run("kept"));
        conditions.push(self.as_written());
        conditions.extend(versions.condition("t"));
        conditions.push(format!(
            "kept.change_id IN (\n    SELECT judged.change_id FROM (\n{}\n    ) AS judged WHERE judged.outcome = 'undone')",
            indent(&self.judged_rows(), 6)
        ));
        let update = Statement::new(format!(
            "UPDATE {} AS t SET {}\nFROM mend.changes AS kept",
            self.table.relation_sql(),
            set.join(", "),
        ))
        .filters(conditions)
        .under_callers_settings(&self.session.caller.with_exact_texts());
        let parameters = update.parameters().to_vec();
        keeping(
            vec![update.ending("RETURNING kept.change_id").as_query("written")],
            &["(SELECT pg_catalog.count(*) FROM written)"],
            &[("row_key", "change_id::pg_catalog.text")],
            "written",
            None,
        )
        .with_parameters(parameters)
    }

    /// Reads back what was written.
    ///
    /// * `sql`: counts the rows that are as they are to be.
    ///
    /// Errors: 27000 where a trigger has changed it: nothing is put back then.
    fn holds(&self, sql: &str, written: i64) -> Result<(), Problem> {
        let found = number(sql, &[])?;
        if found == written {
            return Ok(());
        }
        Err(Problem::new(
            PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
            format!(
                "{written} rows of {} were put back, and {found} of them have their old values",
                self.session.catalog.display(self.table)
            ),
        )
        .detail(format!(
            "a trigger changes what is written, or another column became NULL; triggers on UPDATE: {}; nothing was put back",
            self.details.triggers.join(", ")
        ))
        .hint("ALTER TABLE ... DISABLE TRIGGER ... for the call, in the same transaction"))
    }
}
