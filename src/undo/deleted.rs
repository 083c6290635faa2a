//! Rows that an undo deleted: they are there again, as they were.

use pgrx::prelude::*;

use super::recorded::{PUT_BACK, Recorded, Undone, by_hash, carry_out, column_is_gone, outcomes};
use crate::catalog::{Column, Insertion, Table, texts_can_be_read};
use crate::identifier::Literal;
use crate::pg::WholeFunctions;
use crate::plan::expression::indent;
use crate::plan::kept::Change;
use crate::plan::kept::{json_object, keeping_each, key_conditions, old_value};
use crate::plan::new_row::refusals_of_new_row;
use crate::plan::program::{Keep, Mark, Reading, Step, Surroundings, Trace, Verdict, Verify, Write};
use crate::plan::reason::{self, Reason};
use crate::plan::{Mode, Overlays, Statement};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::obstacles::relation_can_be_filled;
use crate::run::record;
use crate::run::{Reader, Session, lock, readable, settings};

/// Rows of one table that an undo deleted.
pub(super) struct Deleted<'a> {
    session: &'a Session,
    id: i64,
    table: &'a Table,
    /// Columns that can be written.
    columns: Vec<&'a Column>,
    insertion: Insertion,
}

impl<'a> Deleted<'a> {
    /// * `table`: with its schema, as recorded.
    pub(super) fn find(session: &'a Session, run: &Recorded, table: &str) -> Result<Deleted<'a>, Problem> {
        let table = session.catalog.resolve_table(table)?;
        let names = run.names_in("row_values", Change::Deleted, table)?;
        if let Some(gone) = names.iter().find(|name| table.column_named(name).is_none()) {
            return Err(column_is_gone(session, table, gone, "the rows are in mend.changes"));
        }
        let kept = |c: &&Column| !c.generated && names.contains(&c.name);
        Ok(Deleted {
            session,
            id: run.id,
            table,
            columns: table.columns.iter().filter(kept).collect(),
            insertion: match table.is_table() {
                true => session.catalog.insertion(table)?,
                false => Insertion::default(),
            },
        })
    }

    pub(super) fn may(&self, mode: Mode) -> Result<(), Problem> {
        let catalog = &self.session.catalog;
        let mut problems = Problems::default();
        relation_can_be_filled(self.session, self.table, &mut problems);
        let shown = catalog.display(self.table);
        let all: Vec<i16> = self.table.columns.iter().map(|c| c.number).collect();
        readable(self.session, self.table, &all, false, &mut problems);
        if self.table.primary_key().is_none() {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                    format!("{shown} has no primary key any more, so nothing tells whether its rows are there"),
                )
                .hint("the rows are in mend.changes"),
            );
        }
        for rule in &self.insertion.rules {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("rule {rule} rewrites every INSERT into {shown}"),
                )
                .hint("disable it for the call: ALTER TABLE ... DISABLE RULE ..."),
            );
        }
        // Nobody reads it but the caller and us: no code of an owner whom the caller does not trust is run together with it.
        let state = catalog.table_in("mend", "ledger_changes");
        let reads: Vec<u32> = state.iter().map(|state| state.oid).collect();
        problems.keep(Reader::of(
            self.session,
            &[(self.table, &self.insertion.code)],
            &reads,
            &[],
        ));
        if mode.is_real() && !self.table.may_insert {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("permission denied to insert into {shown}"),
                )
                .hint(self.session.grant("INSERT", &shown)),
            );
        }
        let parents = catalog.foreign_keys_of(self.table.oid).map(|key| key.parent);
        problems.into_result()?;
        self.session.hold(parents.chain([self.table.oid]))?;
        // From here on nobody can make us wait, and change a type meanwhile.
        let mut problems = Problems::default();
        for column in &self.columns {
            problems.keep(texts_can_be_read(catalog, column));
        }
        problems.into_result()
    }

    /// The value of a column in the row that was kept.
    fn value(&self, column: &Column) -> String {
        old_value(&self.session.catalog, column, "kept.row_values")
    }

    /// Each row with what becomes of it: `change_id`, `row_values`, `outcome`.
    fn judged(&self) -> String {
        let catalog = &self.session.catalog;
        let known = |c: i16| {
            self.columns
                .iter()
                .find(|column| column.number == c)
                .map(|c| self.value(c))
        };
        let refused = refusals_of_new_row(catalog, self.table, &Overlays::default(), &self.insertion, &known, &[]);
        let is_there = format!(
            "EXISTS (SELECT FROM {} AS t WHERE {})",
            self.table.relation_sql(),
            key_conditions(catalog, self.table, "t", "kept.row_values").join(" AND "),
        );
        let mut cases = vec![
            ("kept.undone_by IS NOT NULL".to_string(), Reason::AlreadyRestored),
            (is_there, Reason::RowIsThere),
        ];
        cases.extend(refused);
        format!(
            "SELECT kept.change_id, kept.row_values, {} AS outcome\n\
             FROM mend.changes AS kept\nWHERE kept.run_id = {} AND kept.change = 'deleted' AND kept.table_name = {}",
            reason::case(&cases, &Reason::Undone),
            self.id,
            Literal::new(&record::qualified(self.table))
        )
    }

    /// Counts what taking it back would do.
    pub(super) fn count(&self) -> Result<Undone, Problem> {
        let _settings = settings(true);
        let _hash = by_hash();
        self.counted()
    }

    fn counted(&self) -> Result<Undone, Problem> {
        let _whole = WholeFunctions::where_needed(!self.insertion.code.is_empty());
        let mut counts = outcomes(&self.judged())?;
        let unpredicted = self
            .insertion
            .unpredicted(self.table, &|c| self.columns.iter().any(|column| column.number == c));
        let mut notes: Vec<String> = counts.refused().into_iter().collect();
        if !unpredicted.is_empty() {
            notes.push(format!(
                "cannot be checked in a dry run, and would fail the whole run: {}",
                unpredicted.join(", ")
            ));
        }
        if !self.insertion.triggers.is_empty() {
            notes.push(format!("triggers fire: {}", self.insertion.triggers.join(", ")));
        }
        Ok(Undone {
            table: self.session.catalog.display(self.table),
            columns: None,
            change: Change::Deleted.as_str().into(),
            total: counts.total(),
            undone: counts.take(&Reason::Undone),
            reasons: counts,
            run_id: None,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }

    /// Inserts, marks, records.
    pub(super) fn take_back(&self) -> Result<Undone, Problem> {
        lock(self.session, self.table);
        let _settings = settings(false);
        let _hash = by_hash();
        let _whole = WholeFunctions::where_needed(!self.insertion.code.is_empty());
        let undone = self.counted()?;
        if undone.undone == 0 {
            return Ok(undone);
        }
        let names: Vec<String> = self.columns.iter().map(|c| c.sql().to_string()).collect();
        let values: Vec<String> = self.columns.iter().map(|c| self.value(c)).collect();
        let insert = Statement::new(format!(
            "INSERT INTO {} ({})\nOVERRIDING SYSTEM VALUE\nSELECT {}\nFROM (\n{}\n) AS kept",
            self.table.sql(),
            names.join(", "),
            values.join(", "),
            indent(&self.judged(), 2)
        ))
        .filter("kept.outcome = 'undone'");
        let review = insert.for_review();
        let insert = insert.under_callers_settings(&self.session.caller.with_exact_texts());
        let catalog = &self.session.catalog;
        let key = self.table.row_key_sql(catalog, &self.table.quoted_name);
        let texts = self.columns.iter();
        let texts = texts.map(|c| {
            let own = format!("{}.{}", self.table.quoted_name, c.sql());
            (*c, catalog.text_sql(&own, c.type_oid))
        });
        let made = insert.ending(format!(
            "RETURNING {key} AS row_key, {} AS new_values",
            json_object(texts)
        ));
        let statement = keeping_each(made, &["row_key", "new_values"]);
        let keep = Keep::Changes {
            change: Change::Created,
            columns: None,
        };
        let write = Write {
            traces: vec![Trace {
                table: self.table,
                column: None,
                created: true,
                forgets: None,
            }],
            ..Write::once(PUT_BACK, self.table, keep, statement)
        };
        let steps = vec![
            Step::Write(write),
            Step::Mark(Mark::MadeAgain {
                of: self.id,
                table: record::qualified(self.table),
            }),
            Step::Verify(self.all_are_there(undone.undone)),
        ];
        let surroundings = Surroundings {
            calls_user_code: !self.insertion.code.is_empty(),
            ..Surroundings::default()
        };
        carry_out(self.session, self.id, self.table, undone, review, surroundings, steps)
    }

    fn all_are_there(&self, expected: i64) -> Verify<'_> {
        Verify::new(
            "marked",
            |_| Reading::Nothing,
            move |progress| {
                let (rows, marked) = (progress.written(PUT_BACK), progress.total("marked", 0));
                match (rows, marked) == (expected, expected) {
                    true => Verdict::Proved,
                    false => Verdict::Wrong(
                        Problem::new(
                            PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
                            format!(
                                "{expected} rows of {} were to be there again, {marked} are",
                                self.session.catalog.display(self.table)
                            ),
                        )
                        .detail(format!(
                            "triggers on INSERT: {}; nothing was put back",
                            self.insertion.triggers.join(", ")
                        ))
                        .hint("ALTER TABLE ... DISABLE TRIGGER ... for the call, in the same transaction"),
                    ),
                }
            },
        )
    }
}
