//! The statements that put values back, and what is read back of them.

use pgrx::prelude::*;

use super::super::recorded::PUT_BACK;
use super::judge::same_or_null;
use super::{Values, What};
use crate::identifier::Literal;
use crate::plan::expression::indent;
use crate::plan::kept::{Change, json_object, keeping, keeping_each, key_conditions};
use crate::plan::program::{Keep, Mark, Parts, Progress, Reading, Step, Trace, Verdict, Verify, Write};
use crate::plan::{Share, Statement, Versions, written_as};
use crate::problem::Problem;
use crate::run::query;

impl Values<'_> {
    /// What was filled becomes NULL, share by share; what it was is kept where the row has a key.
    pub(super) fn steps_of_filled<'p>(&'p self, shares: &'p [Share]) -> Vec<Step<'p>> {
        let write = Write {
            name: PUT_BACK,
            table: self.table,
            parts: Parts::Only(shares),
            keep: Keep::Changes {
                change: Change::Nullified,
                columns: None,
            },
            traces: vec![Trace {
                table: self.table,
                column: None,
                created: false,
                // The other runs of the share can be taken back as before.
                forgets: Some(self.id),
            }],
            by_hash: false,
            statement: Box::new(|_, versions| match versions {
                Versions::WrittenAs(ids) => self.nullify(ids),
                _ => self.nullify(&self.ids()),
            }),
        };
        let read = |progress: &Progress| {
            let null = self.columns.iter();
            let null = null.map(|c| format!("t.{} IS NOT DISTINCT FROM NULL", c.sql()));
            let count = format!("SELECT pg_catalog.count(*) FROM {} AS t", self.table.relation_sql());
            let count = Statement::new(count)
                .filter(written_as("t", &progress.ids_of(PUT_BACK)))
                .filters(null);
            Reading::Numbers(count)
        };
        vec![Step::Write(write), Step::Verify(self.holds(read))]
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
        .filter(match &*self.accepted.borrow() {
            Some(rows) => rows.clone(),
            None => "judged.outcome = 'undone'".into(),
        })
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

    /// Values that were kept are put back, in parts.
    pub(super) fn steps_of_kept<'p>(&'p self, shares: &'p [Share]) -> Vec<Step<'p>> {
        let write = Write {
            name: PUT_BACK,
            table: self.table,
            parts: Parts::ByShare(shares),
            keep: Keep::Undone,
            traces: vec![Trace {
                table: self.table,
                column: None,
                created: false,
                forgets: None,
            }],
            by_hash: false,
            statement: Box::new(|_, versions| self.write(versions)),
        };
        let read = |progress: &Progress| {
            let catalog = &self.session.catalog;
            let mut on = key_conditions(catalog, self.table, "t", "kept.row_key");
            on.extend(self.columns.iter().map(|c| same_or_null(catalog, c, "kept.old_values")));
            let count = Statement::new(format!(
                "SELECT pg_catalog.count(*) FROM mend.changes AS kept JOIN {} AS t ON {}",
                self.table.relation_sql(),
                on.join(" AND ")
            ));
            Reading::Numbers(count.filter(format!("kept.undone_by = {}", progress.run)))
        };
        vec![
            Step::Write(write),
            Step::Mark(Mark::Reversed),
            Step::Verify(self.holds(read)),
        ]
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
        conditions.push(match &*self.accepted.borrow() {
            Some(rows) => rows.clone(),
            None => format!(
                "kept.change_id IN (\n    SELECT judged.change_id FROM (\n{}\n    ) AS judged WHERE judged.outcome = 'undone')",
                indent(&self.judged_rows(), 6)
            ),
        });
        let update = Statement::new(format!(
            "UPDATE {} AS t SET {}\nFROM mend.changes AS kept",
            self.table.relation_sql(),
            set.join(", "),
        ))
        .filters(conditions)
        .under_callers_settings(&self.session.caller.with_exact_texts());
        keeping_each(update.ending("RETURNING kept.change_id AS row_key"), &["row_key"])
    }

    /// Which rows are taken back, as a condition over `judged` (of filled rows) or `kept`.
    pub(super) fn accepted_rows(&self) -> Result<String, Problem> {
        let ids = match self.what {
            What::Filled => "ARRAY[judged.row_table::pg_catalog.text, judged.row_ctid::pg_catalog.text]",
            What::Kept(_) => "ARRAY[judged.change_id::pg_catalog.text]",
        };
        let accepted = Statement::new(format!(
            "SELECT {ids}\nFROM (\n{}\n) AS judged",
            indent(&self.judged_rows(), 2)
        ))
        .filter("judged.outcome = 'undone'");
        let rows = self.reader.get().run(|| query::lists(&accepted))?;
        let list = |at: usize| -> String {
            let texts = rows.iter().filter_map(|row| row.get(at).cloned().flatten());
            let quoted: Vec<String> = texts.map(|text| format!("\"{text}\"")).collect();
            Literal::new(&format!("{{{}}}", quoted.join(","))).to_string()
        };
        Ok(match self.what {
            What::Filled => format!(
                "(judged.row_table, judged.row_ctid) IN (SELECT r.t, r.c FROM ROWS FROM (pg_catalog.unnest({}::pg_catalog.oid[]), \
                 pg_catalog.unnest({}::pg_catalog.tid[])) AS r (t, c))",
                list(0),
                list(1)
            ),
            What::Kept(_) => format!("kept.change_id = ANY ({}::pg_catalog.int8[])", list(0)),
        })
    }

    /// As many rows are as they are to be as were written; else a trigger has changed them, and nothing is put back.
    fn holds<'p>(&'p self, read: impl Fn(&Progress) -> Reading<'p> + 'p) -> Verify<'p> {
        Verify::new("holds", read, |progress| {
            let (written, found) = (progress.written(PUT_BACK), progress.found.numbers[0]);
            match found == written {
                true => Verdict::Proved,
                false => Verdict::Wrong(self.does_not_hold(written, found)),
            }
        })
    }

    fn does_not_hold(&self, written: i64, found: i64) -> Problem {
        Problem::new(
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
        .hint("ALTER TABLE ... DISABLE TRIGGER ... for the call, in the same transaction")
    }
}
