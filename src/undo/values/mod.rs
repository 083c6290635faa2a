//! Values of rows, put back: what was nullified or replaced gets its old value again, what was filled becomes NULL again.

mod judge;
mod write;

use std::cell::{Cell, RefCell};

use pgrx::prelude::*;

use super::recorded::{Recorded, Undone, by_hash, carry_out, column_is_gone, outcomes};
use crate::catalog::{Check, Column, Details, Table, texts_can_be_read};
use crate::pg::WholeFunctions;
use crate::plan::Share;
use crate::plan::expression::asks_user_code;
use crate::plan::kept::Change;
use crate::plan::program::Surroundings;
use crate::plan::{Mode, Reason, Statement, Versions};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::ledger;
use crate::run::obstacles::{column_can_be_filled, details_can_be_predicted, relation_can_be_filled};
use crate::run::{Reader, Session, lock, query, readable, settings, updatable};

/// What a run did to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::undo) enum What {
    /// They were nullified or replaced, and kept.
    Kept(Change),
    /// They were NULL.
    Filled,
}

/// Values of one table that a run changed.
pub(in crate::undo) struct Values<'a> {
    session: &'a Session,
    id: i64,
    what: What,
    table: &'a Table,
    columns: Vec<&'a Column>,
    shown: String,
    details: Details,
    /// The same, column by column.
    details_of: Vec<Details>,
    /// CHECKs of the columns' domains, with the column.
    domain_checks: Vec<(&'a Column, Check)>,
    /// Who asks what the table would refuse; known once it is known whether that can be.
    reader: Cell<Reader>,
    /// Of filled rows: those that nobody has changed since.
    shares: RefCell<Vec<Share>>,
    /// Of filled rows: how many there were.
    filled: i64,
    /// Of filled rows: how many are NULL again by an earlier undo.
    undone_before: Cell<i64>,
    /// The run has replaced values of the same column as well.
    replaced: i64,
    /// The rows that are taken back, told once for all parts of the write: what one part writes may make room for another row.
    accepted: RefCell<Option<String>>,
}

impl<'a> Values<'a> {
    /// * `table`: with its schema, as recorded.
    pub(in crate::undo) fn find(
        session: &'a Session,
        run: &Recorded,
        table: &str,
        what: What,
    ) -> Result<Values<'a>, Problem> {
        let table = session.catalog.resolve_table(table)?;
        let names = match what {
            // By its number: it may have another name by now, and another column its name.
            What::Filled => match ledger::filled_column(run.id)?.filter(|(oid, _)| *oid == table.oid) {
                Some((_, number)) => table.names_of(&[number]).into_iter().map(str::to_string).collect(),
                None => vec![run.column.clone()],
            },
            // The columns that were written are those whose old values were kept.
            What::Kept(change) => run.names_in("old_values", change, table)?,
        };
        let mut columns = Vec::new();
        let mut details = Details::default();
        let mut domain_checks = Vec::new();
        let mut details_of = Vec::new();
        for name in &names {
            let gone = || column_is_gone(session, table, name, "the values are in mend.changes");
            let column = table.column_named(name).ok_or_else(gone)?;
            let of_column = session.catalog.details(table, column)?;
            details_of.push(of_column.clone());
            details.checks = of_column.checks;
            details.generated = of_column.generated;
            details.code.extend(of_column.code);
            details.triggers.extend(of_column.triggers);
            details.domain_not_null |= of_column.domain_not_null;
            for index in of_column.unique_indexes {
                if !details.unique_indexes.iter().any(|known| known.name == index.name) {
                    details.unique_indexes.push(index);
                }
            }
            domain_checks.extend(of_column.domain_checks.into_iter().map(|check| (column, check)));
            columns.push(column);
        }
        details.triggers.sort();
        details.triggers.dedup();
        if columns.is_empty() {
            return Err(column_is_gone(
                session,
                table,
                &run.column,
                "the filled values were dropped with the column",
            ));
        }
        let replaced = match what {
            What::Kept(_) => 0,
            What::Filled => query::number(
                &Statement::new("SELECT pg_catalog.count(*) FROM mend.changes AS c")
                    .filter(format!("c.run_id = {}", run.id))
                    .filter("c.change = 'replaced'"),
            )?,
        };
        let shown = crate::validate::reference::shown(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let values = Values {
            session,
            id: run.id,
            what,
            table,
            columns,
            shown,
            details,
            details_of,
            domain_checks,
            reader: Cell::default(),
            shares: RefCell::default(),
            filled: run.filled,
            undone_before: Cell::default(),
            replaced,
            accepted: RefCell::default(),
        };
        values.look()?;
        Ok(values)
    }

    /// Which rows the run filled, and how many an undo has had since.
    fn look(&self) -> Result<(), Problem> {
        if self.what != What::Filled {
            return Ok(());
        }
        let before =
            Statement::new("SELECT COALESCE(pg_catalog.sum(r.filled), 0)::pg_catalog.int8 FROM mend.runs AS r")
                .filter("r.operation = 'undo_run'")
                .filter(format!(
                    "r.rule OPERATOR(pg_catalog.@>) pg_catalog.jsonb_build_object('run_id', {}, 'change', 'filled')",
                    self.id
                ));
        self.undone_before.set(query::number(&before)?);
        self.shares.replace(ledger::written_by(Some(self.id), self.table.oid)?);
        Ok(())
    }

    pub(in crate::undo) fn may(&self, mode: Mode) -> Result<(), Problem> {
        let (session, table) = (self.session, self.table);
        let catalog = &session.catalog;
        let mut problems = Problems::default();
        relation_can_be_filled(session, table, &mut problems);
        for (column, details) in self.columns.iter().zip(&self.details_of) {
            column_can_be_filled(session, table, column, &mut problems);
            details_can_be_predicted(session, table, column, details, &mut problems);
        }
        let written: Vec<i16> = self.columns.iter().map(|c| c.number).collect();
        let keys = catalog.foreign_keys.iter().chain(&catalog.foreign_keys_by_cast);
        for key in keys.filter(|key| key.parent == table.oid && key.enforced && !key.inherited) {
            if key.parent_columns.iter().any(|c| written.contains(c)) {
                let child = catalog
                    .table(key.table)
                    .map(|child| catalog.display(child))
                    .unwrap_or_default();
                problems.push(
                    Problem::new(
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        format!(
                            "{} of {child} references {} of {}",
                            key.name,
                            self.shown,
                            catalog.display(table)
                        ),
                    )
                    .detail("its rows would lose the row they reference, or be changed by ON UPDATE")
                    .hint("drop the foreign key first, or put the values back by hand: they are in mend.changes"),
                );
            }
        }
        let all: Vec<i16> = table.columns.iter().map(|c| c.number).collect();
        readable(session, table, &all, false, &mut problems);
        if table.primary_key().is_none() && self.what != What::Filled {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                    format!(
                        "{} has no primary key any more, so its rows cannot be found again",
                        catalog.display(table)
                    ),
                )
                .hint("the values are in mend.changes"),
            );
        }
        let parents = || catalog.foreign_keys_of(table.oid).map(|key| key.parent);
        let mut reads: Vec<u32> = parents().chain([table.oid]).collect();
        if self.what != What::Filled || self.replaced > 0 {
            // What was kept nobody reads but the caller and us: code of an owner whom the caller does not trust is not run together with it.
            reads.extend(catalog.table_in("mend", "ledger_changes").map(|state| state.oid));
        }
        let reader = Reader::of(session, &[(table, &self.details.code)], &reads, &[]);
        if let Some(reader) = problems.keep(reader) {
            self.reader.set(reader);
        }
        for column in self.columns.iter().filter(|_| mode.is_real()) {
            updatable(session, table, column, &mut problems);
        }
        problems.into_result()?;
        session.hold(parents().chain([table.oid]))?;
        // From here on nobody can make us wait, and change a type meanwhile.
        let mut problems = Problems::default();
        let key = table.primary_key().map(|key| key.columns.clone()).unwrap_or_default();
        let key = key.iter().filter_map(|c| table.column(*c));
        for column in self.columns.iter().copied().chain(key) {
            problems.keep(texts_can_be_read(catalog, column));
        }
        problems.into_result()
    }

    /// The table.
    pub(in crate::undo) fn table(&self) -> &'a Table {
        self.table
    }

    /// Is it asked as somebody else what the table would refuse?
    pub(in crate::undo) fn asks_as_owner(&self) -> bool {
        !self.reader.get().is_caller()
    }

    /// Counts what taking it back would do.
    pub(in crate::undo) fn count(&self) -> Result<Undone, Problem> {
        let _settings = settings(true);
        let _hash = by_hash();
        self.counted()
    }

    fn counted(&self) -> Result<Undone, Problem> {
        let _whole = WholeFunctions::where_needed(asks_user_code(&self.details));
        let judged = self.judged_rows();
        let mut counts = self.reader.get().run(|| outcomes(&judged))?;
        if self.what == What::Filled {
            // Rows that do not carry our id any more: an earlier undo has had them, or somebody has changed them.
            let other = (self.filled - self.replaced - counts.total()).max(0);
            let before = self.undone_before.get().min(other);
            counts.add(Reason::AlreadyRestored, before);
            counts.add(Reason::ChangedSince, other - before);
        }
        let undone = counts.rows(&Reason::Undone) > 0;
        let mut notes: Vec<String> = counts.refused().into_iter().collect();
        if !self.details.triggers.is_empty() && undone {
            notes.push(format!("triggers fire: {}", self.details.triggers.join(", ")));
        }
        if self.what == What::Filled && self.table.primary_key().is_none() && undone {
            notes.push("without a primary key its rows cannot be found again: this undo cannot be taken back".into());
        }
        let null: Vec<&str> = self
            .columns
            .iter()
            .filter(|c| c.never_null)
            .map(|c| c.quoted.as_str())
            .collect();
        if !null.is_empty() && counts.rows(&Reason::ConstraintFailed(None)) > 0 {
            notes.push(format!(
                "{} is NOT NULL now: ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL",
                null.join(", "),
                self.session.catalog.display(self.table),
                null[0]
            ));
        }
        Ok(Undone {
            table: self.session.catalog.display(self.table),
            columns: Some(self.shown.clone()),
            change: match self.what {
                What::Filled => "filled".into(),
                What::Kept(change) => change.as_str().into(),
            },
            total: counts.total(),
            undone: counts.take(&Reason::Undone),
            reasons: counts,
            run_id: None,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }

    /// Writes, reads back, records.
    pub(in crate::undo) fn take_back(&self) -> Result<Undone, Problem> {
        lock(self.session, self.table);
        // Whoever had the lock may have taken back a part of it.
        self.look()?;
        let _settings = settings(false);
        let _hash = by_hash();
        let _whole = WholeFunctions::where_needed(asks_user_code(&self.details));
        let undone = self.counted()?;
        if undone.undone == 0 {
            return Ok(undone);
        }
        let review = match self.what {
            What::Filled => self.nullify(&self.ids()),
            What::Kept(_) => self.write(&Versions::All),
        };
        // Of filled rows those that nobody has changed since; of others, what other runs wrote can be taken back as before.
        let shares = match self.what {
            What::Filled => self.shares.borrow().clone(),
            What::Kept(_) => ledger::written_by(None, self.table.oid)?,
        };
        if !self.details.unique_indexes.is_empty() && shares.len() > 1 {
            self.accepted.replace(Some(self.accepted_rows()?));
        }
        let steps = match self.what {
            What::Filled => self.steps_of_filled(&shares),
            What::Kept(_) => self.steps_of_kept(&shares),
        };
        let surroundings = Surroundings {
            calls_user_code: asks_user_code(&self.details),
            ..Surroundings::default()
        };
        let review = review.for_review();
        carry_out(self.session, self.id, self.table, undone, review, surroundings, steps)
    }
}
