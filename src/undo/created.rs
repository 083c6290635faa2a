//! Rows that a run created: they go, where nobody has changed them since and nothing refers to them.

use pgrx::prelude::*;

use super::recorded::{PUT_BACK, Recorded, Undone, by_hash, carry_out, column_is_gone, outcomes, texts};
use crate::catalog::{Column, Table, texts_can_be_read};
use crate::identifier::Literal;
use crate::plan::join::same_key;
use crate::plan::kept::Change;
use crate::plan::kept::{json_object, keeping_each, old_value, same_as_kept};
use crate::plan::program::{Keep, Mark, Progress, Reading, Step, Surroundings, Verdict, Verify, Write};
use crate::plan::reason::{self, Reason};
use crate::plan::{Mode, Statement, written_as};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::ledger;
use crate::run::obstacles::relation_can_be_filled;
use crate::run::record;
use crate::run::{Session, lock, query, readable, settings};
use crate::validate::declared;
use crate::validate::reference::{Found, KeyReference, collect};

/// Rows of one table that a run created.
pub(super) struct Created<'a> {
    session: &'a Session,
    id: i64,
    table: &'a Table,
    /// The columns by which they were kept.
    key: Vec<&'a Column>,
    /// Under which ids they were written.
    ids: Vec<u32>,
    /// What refers to them, whether a foreign key says so or not.
    references: Vec<KeyReference<'a>>,
    triggers: Vec<String>,
    /// Rules that rewrite a DELETE.
    rules: Vec<String>,
}

impl<'a> Created<'a> {
    /// * `table`: with its schema, as recorded.
    pub(super) fn find(session: &'a Session, run: &Recorded, table: &str) -> Result<Created<'a>, Problem> {
        let catalog = &session.catalog;
        let table = catalog.resolve_table(table)?;
        let mut key = vec![];
        for name in run.names_in("row_key", Change::Created, table)? {
            let gone = || column_is_gone(session, table, &name, "the keys of the rows are in mend.changes");
            key.push(table.column_named(&name).ok_or_else(gone)?);
        }
        let declared = declared::load(session)?;
        let references = collect(catalog, None, true, &declared)
            .into_iter()
            .filter_map(|found| match found {
                // What only a column's name says, the owner of a table says of its own tables, and who is trusted.
                Found::Reference(reference) if reference.parent.oid == table.oid => {
                    let is_stated = reference.constraint.is_some() || reference.declaration.is_some();
                    let own = reference.table.owner == table.owner || reference.table.owner_is_trusted;
                    (is_stated || own).then_some(reference)
                }
                _ => None,
            });
        let shares = ledger::written_by(Some(run.id), table.oid)?;
        Ok(Created {
            session,
            id: run.id,
            table,
            key,
            ids: shares.into_iter().flat_map(|share| share.ids).collect(),
            references: references.collect(),
            triggers: triggers(table)?,
            rules: rules(table)?,
        })
    }

    pub(super) fn may(&self, mode: Mode) -> Result<(), Problem> {
        let catalog = &self.session.catalog;
        let mut problems = Problems::default();
        relation_can_be_filled(self.session, self.table, &mut problems);
        let all: Vec<i16> = self.table.columns.iter().map(|c| c.number).collect();
        readable(self.session, self.table, &all, false, &mut problems);
        for reference in &self.references {
            readable(self.session, reference.table, &reference.columns, false, &mut problems);
        }
        for rule in &self.rules {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("rule {rule} rewrites every DELETE from {}", catalog.display(self.table)),
                )
                .hint("disable it for the call: ALTER TABLE ... DISABLE RULE ..."),
            );
        }
        let shown = catalog.display(self.table);
        let by_cast = catalog
            .foreign_keys_by_cast
            .iter()
            .filter(|key| key.parent == self.table.oid);
        for key in by_cast {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("{} compares by a cast of a role that you do not trust", key.name),
                )
                .detail(format!(
                    "whether a row of {shown} is referenced cannot be told without running it"
                ))
                .hint("SET ROLE to a role that owns the types, or leave the rows"),
            );
        }
        if mode.is_real() && !may_delete(self.table)? {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("permission denied to delete from {shown}"),
                )
                .detail(
                    "its rows are locked first, so that nobody can refer to them meanwhile: that needs UPDATE as well",
                )
                .hint(self.session.grant("UPDATE, DELETE", &shown)),
            );
        }
        problems.into_result()?;
        let tables = self.references.iter().map(|reference| reference.table.oid);
        self.session.hold(tables.chain([self.table.oid]))?;
        // From here on nobody can make us wait, and change a type meanwhile.
        let mut problems = Problems::default();
        for reference in &self.references {
            for column in reference.columns.iter().filter_map(|c| reference.table.column(*c)) {
                problems.keep(texts_can_be_read(catalog, column));
            }
        }
        for column in &self.table.columns {
            problems.keep(texts_can_be_read(catalog, column));
        }
        problems.into_result()
    }

    /// The row `p` is referred to.
    ///
    /// * `unlinked`: rows that are not linked any more by then: table, column, condition over `t`.
    /// * `itself`: a row that refers to itself counts.
    fn referenced(&self, unlinked: &[(u32, i16, String)], itself: bool) -> String {
        let catalog = &self.session.catalog;
        let mut found = vec![];
        for reference in &self.references {
            let columns = reference.columns.iter().zip(&reference.key);
            let mut on: Vec<String> = columns
                .filter_map(|(column, key)| Some((reference.table.column(*column)?, self.table.column(*key)?)))
                .map(|(column, key)| {
                    let own = format!("t.{}", column.sql());
                    same_key(catalog, &format!("p.{}", key.sql()), key, &own, Some(column))
                })
                .collect();
            if let Some((column, text)) = &reference.discriminator
                && let Some(column) = reference.table.column(*column)
            {
                let own = catalog.text_sql(&format!("t.{}", column.sql()), column.type_oid);
                on.push(format!("{own} = {}", Literal::new(text)));
            }
            for (table, column, condition) in unlinked {
                if *table == reference.table.oid && reference.columns == [*column] {
                    on.push(format!("({condition}) IS NOT TRUE"));
                }
            }
            if reference.table.oid == self.table.oid && !itself {
                on.push("(t.tableoid, t.ctid) IS DISTINCT FROM (p.tableoid, p.ctid)".into());
            }
            found.push(format!(
                "EXISTS (SELECT FROM {} AS t WHERE {})",
                reference.table.relation_sql(),
                on.join(" AND ")
            ));
        }
        match found.is_empty() {
            true => "false".into(),
            false => found.join(" OR "),
        }
    }

    /// The row `p` is the one that was kept.
    fn same_row(&self) -> String {
        let catalog = &self.session.catalog;
        let key = self.key.iter();
        let same: Vec<String> = key
            .map(|c| same_as_kept(catalog, &format!("p.{}", c.sql()), c, c, "kept.row_key"))
            .collect();
        same.join(" AND ")
    }

    fn of_run(&self) -> String {
        format!(
            "kept.run_id = {} AND kept.change = 'created' AND kept.table_name = {}",
            self.id,
            Literal::new(&record::qualified(self.table))
        )
    }

    /// Counts what taking it back would do.
    pub(super) fn count(&self, unlinked: &[(u32, i16, String)]) -> Result<Undone, Problem> {
        let _settings = settings(true);
        let _hash = by_hash();
        self.counted(unlinked)
    }

    fn counted(&self, unlinked: &[(u32, i16, String)]) -> Result<Undone, Problem> {
        let first = self.key.first().map_or("p".into(), |c| format!("p.{}", c.sql()));
        let cases = [
            ("kept.undone_by IS NOT NULL".to_string(), Reason::AlreadyRestored),
            (format!("{first} IS NOT DISTINCT FROM NULL"), Reason::RowIsGone),
            (format!("NOT {}", written_as("p", &self.ids)), Reason::ChangedSince),
            (self.referenced(unlinked, false), Reason::Referenced),
        ];
        let judged = format!(
            "SELECT {} AS outcome\nFROM mend.changes AS kept\nLEFT JOIN {} AS p ON {}\nWHERE {}",
            reason::case(&cases, &Reason::Undone),
            self.table.relation_sql(),
            self.same_row(),
            self.of_run()
        );
        let mut counts = outcomes(&judged)?;
        Ok(Undone {
            table: self.session.catalog.display(self.table),
            columns: None,
            change: Change::Created.as_str().into(),
            total: counts.total(),
            undone: counts.take(&Reason::Undone),
            note: (!self.triggers.is_empty()).then(|| format!("triggers on DELETE: {}", self.triggers.join(", "))),
            reasons: counts,
            run_id: None,
        })
    }

    /// Deletes, keeps what the rows were, records.
    pub(super) fn take_back(&self, unlinked: &[(u32, i16, String)]) -> Result<Undone, Problem> {
        lock(self.session, self.table);
        let _settings = settings(false);
        let _hash = by_hash();
        self.hold()?;
        let undone = self.counted(unlinked)?;
        if undone.undone == 0 {
            return Ok(undone);
        }
        let catalog = &self.session.catalog;
        let delete = Statement::new(format!(
            "DELETE FROM {} AS p\nUSING mend.changes AS kept",
            self.table.relation_sql()
        ))
        .filter(self.of_run())
        .filter(self.same_row())
        .filter("kept.undone_by IS NULL")
        .filter(written_as("p", &self.ids))
        .filter(format!("({}) IS NOT TRUE", self.referenced(unlinked, false)));
        let review = delete.for_review();
        let delete = delete.under_callers_settings(&self.session.caller.with_exact_texts());
        let texts = self.table.columns.iter();
        let texts = texts.map(|c| (c, catalog.text_sql(&format!("p.{}", c.sql()), c.type_oid)));
        let gone = delete.ending(format!("RETURNING kept.row_key, {} AS row_values", json_object(texts)));
        let statement = keeping_each(gone, &["row_key", "row_values"]);
        let keep = Keep::Changes {
            change: Change::Deleted,
            columns: None,
        };
        let write = Write::once(PUT_BACK, self.table, keep, statement);
        let steps = vec![
            Step::Write(write),
            Step::Mark(Mark::Deleted {
                of: self.id,
                table: record::qualified(self.table),
            }),
            Step::Verify(self.nobody_refers_to_them()),
            Step::Verify(self.they_are_gone()),
        ];
        let surroundings = Surroundings::default();
        carry_out(self.session, self.id, self.table, undone, review, surroundings, steps)
    }

    /// No foreign key has kept anybody off who refers to what this undo has deleted.
    fn nobody_refers_to_them(&self) -> Verify<'_> {
        let read = |progress: &Progress| Reading::Numbers(self.referring(progress.run));
        Verify::new("referring", read, |progress| match progress.found.numbers[0] {
            0 => Verdict::Proved,
            _ => Verdict::Wrong(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                    format!(
                        "somebody refers to rows of {} meanwhile",
                        self.session.catalog.display(self.table)
                    ),
                )
                .detail("nothing was taken back")
                .hint("run it again"),
            ),
        })
    }

    /// What this undo has deleted is not there any more.
    fn they_are_gone(&self) -> Verify<'_> {
        let read = |progress: &Progress| Reading::Numbers(self.left(progress.run));
        Verify::new("left", read, |progress| {
            let (rows, left) = (progress.written(PUT_BACK), progress.found.numbers[0]);
            match left == 0 && progress.total("marked", 0) == rows {
                true => Verdict::Proved,
                false => Verdict::Wrong(
                    Problem::new(
                        PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
                        format!(
                            "{rows} rows of {} were deleted, {left} of them are there",
                            self.session.catalog.display(self.table)
                        ),
                    )
                    .detail(format!(
                        "triggers on DELETE: {}; nothing was taken back",
                        self.triggers.join(", ")
                    ))
                    .hint("ALTER TABLE ... DISABLE TRIGGER ... for the call, in the same transaction"),
                ),
            }
        })
    }

    /// Locks the rows: from then on no foreign key lets anybody refer to them, and who did before is seen by what follows. (A foreign key
    /// ON DELETE CASCADE would take rows along.)
    fn hold(&self) -> Result<(), Problem> {
        let held = format!(
            "SELECT pg_catalog.count(*) FROM (\n  SELECT FROM {} AS p, mend.changes AS kept WHERE {} AND {} AND {}\n  FOR UPDATE OF p\n) AS held",
            self.table.relation_sql(),
            self.of_run(),
            self.same_row(),
            written_as("p", &self.ids)
        );
        query::update(&Statement::new(held)).map(|_| ())
    }

    /// References to what this undo has deleted, which no foreign key has kept off.
    fn referring(&self, run: i64) -> Statement {
        let columns: Vec<String> = self
            .table
            .columns
            .iter()
            .map(|c| {
                let value = old_value(&self.session.catalog, c, "kept.row_values");
                format!("{value} AS {}", c.sql())
            })
            .collect();
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM (\n  SELECT {} FROM mend.changes AS kept WHERE kept.run_id = {run} AND kept.change = 'deleted'\n) AS p\nWHERE {}",
            columns.join(", "),
            self.referenced(&[], true)
        );
        Statement::new(sql)
    }

    /// Rows that this undo has deleted, and that are there all the same.
    fn left(&self, run: i64) -> Statement {
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM mend.changes AS kept JOIN {} AS p ON {} WHERE kept.run_id = {run} AND kept.change = 'deleted'",
            self.table.relation_sql(),
            self.same_row()
        );
        Statement::new(sql)
    }
}

fn may_delete(table: &Table) -> Result<bool, Problem> {
    let sql =
        "SELECT pg_catalog.has_table_privilege($1, 'DELETE') AND pg_catalog.has_any_column_privilege($1, 'UPDATE')";
    let arguments = [pg_sys::Oid::from(table.oid).into()];
    let may = Spi::connect(|client| client.select(sql, None, &arguments)?.first().get_one::<bool>())?;
    Ok(may == Some(true))
}

/// Triggers that fire when a row is deleted, the checks of foreign keys left out.
fn triggers(table: &Table) -> Result<Vec<String>, Problem> {
    // pg_trigger.h: TRIGGER_TYPE_DELETE.
    let sql = "SELECT pg_catalog.quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
               WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 8) <> 0 ORDER BY 1";
    texts(sql, &[pg_sys::Oid::from(table.oid).into()])
}

/// Rules on DELETE.
fn rules(table: &Table) -> Result<Vec<String>, Problem> {
    // parsenodes.h: CMD_DELETE is 4.
    let sql = "SELECT pg_catalog.quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
               WHERE r.ev_class = $1 AND r.ev_type = '4' AND r.ev_enabled <> 'D' ORDER BY 1";
    texts(sql, &[pg_sys::Oid::from(table.oid).into()])
}
