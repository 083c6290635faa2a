//! Values of rows, put back: what was nullified or replaced gets its old value again, what was filled becomes NULL again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::{Recorded, Undone, by_hash, recorded};
use crate::catalog::{Check, Column, Details, Table, UniqueIndex, texts_can_be_read};
use crate::identifier::Literal;
use crate::pg::{Settings, WholeFunctions};
use crate::plan::expression::{all_set, asks_user_code, equal, indent};
use crate::plan::join::same_key;
use crate::plan::kept::{json_object, keeping, key_conditions, old_value, same_as_kept};
use crate::plan::new_row::{in_new_row, of_value};
use crate::plan::{Statement, Versions, written_as};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::ledger::{self, Change, Share};
use crate::run::obstacles::{column_can_be_filled, details_can_be_predicted, relation_can_be_filled};
use crate::run::record;
use crate::run::{Reader, Session, Writes, as_one, lock, readable, settings, updatable};

/// What a run did to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// They were nullified or replaced, and kept.
    Kept(Change),
    /// They were NULL.
    Filled,
}

/// Values of one table that a run changed.
pub(super) struct Values<'a> {
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
}

impl<'a> Values<'a> {
    /// * `table`: with its schema, as recorded.
    pub(super) fn find(session: &'a Session, run: &Recorded, table: &str, what: What) -> Result<Values<'a>, Problem> {
        let table = session.catalog.resolve_table(table)?;
        let number = |sql: &str| -> Result<i64, Problem> {
            let arguments = [run.id.into()];
            Ok(Spi::connect(|client| client.select(sql, None, &arguments)?.first().get_one::<i64>())?.unwrap_or(0))
        };
        let names = match what {
            // By its number: it may have another name by now, and another column its name.
            What::Filled => match ledger::filled_column(run.id)?.filter(|(oid, _)| *oid == table.oid) {
                Some((_, number)) => table.names_of(&[number]).into_iter().map(str::to_string).collect(),
                None => vec![run.column.clone()],
            },
            // The columns that were written are those whose old values were kept.
            What::Kept(change) => {
                let sql = "SELECT DISTINCT k FROM mend.changes r, pg_catalog.jsonb_object_keys(r.old_values) k
                           WHERE r.run_id = $1 AND r.change = $2 AND r.table_name = $3 ORDER BY k";
                let arguments = [run.id.into(), change.as_str().into(), record::qualified(table).into()];
                Spi::connect(|client| {
                    let mut names = Vec::new();
                    for row in client.select(sql, None, &arguments)? {
                        names.extend(row.get::<String>(1)?);
                    }
                    Ok::<_, SpiError>(names)
                })?
            }
        };
        let mut columns = Vec::new();
        let mut details = Details::default();
        let mut domain_checks = Vec::new();
        let mut details_of = Vec::new();
        for name in &names {
            let column = table.column_named(name).ok_or_else(|| {
                Problem::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!(
                        "column {name} of {} does not exist any more",
                        session.catalog.display(table)
                    ),
                )
                .hint("the values are in mend.changes")
            })?;
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
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!(
                    "column {} of {} does not exist any more",
                    run.column,
                    session.catalog.display(table)
                ),
            )
            .hint("what was filled went with it"));
        }
        let sql = "SELECT pg_catalog.count(*) FROM mend.changes c WHERE c.run_id = $1 AND c.change = 'replaced'";
        let replaced = match what {
            What::Kept(_) => 0,
            What::Filled => number(sql)?,
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
        };
        values.look()?;
        Ok(values)
    }

    /// Which rows the run filled, and how many an undo has had since.
    fn look(&self) -> Result<(), Problem> {
        if self.what != What::Filled {
            return Ok(());
        }
        let sql = "SELECT COALESCE(pg_catalog.sum(r.filled), 0)::pg_catalog.int8 FROM mend.runs r
                   WHERE r.operation = 'undo_run' AND r.rule @> pg_catalog.jsonb_build_object('run_id', $1, 'change', 'filled')";
        let arguments = [self.id.into()];
        let _own = Settings::of_one_statement();
        let before = Spi::connect(|client| client.select(sql, None, &arguments)?.first().get_one::<i64>())?;
        self.undone_before.set(before.unwrap_or(0));
        self.shares.replace(ledger::written_by(Some(self.id), self.table.oid)?);
        Ok(())
    }

    pub(super) fn may(&self, dry_run: bool) -> Result<(), Problem> {
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
                    .detail("its rows would lose what they reference, or change along")
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
        for column in self.columns.iter().filter(|_| !dry_run) {
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
    pub(super) fn table(&self) -> &'a Table {
        self.table
    }

    /// Is it asked as somebody else what the table would refuse?
    pub(super) fn asks_as_owner(&self) -> bool {
        !self.reader.get().is_caller()
    }

    /// The old value of a column in `json`.
    fn old_in(&self, column: &Column, json: &str) -> String {
        if self.what == What::Filled {
            let base = self.session.catalog.base_type(column.type_oid, -1);
            return base.map_or("NULL".into(), |(base, _)| format!("NULL::{}", base.sql()));
        }
        old_value(&self.session.catalog, column, json)
    }

    /// The value that a column is to have again.
    fn old(&self, column: &Column) -> String {
        self.old_in(column, "kept.old_values")
    }

    /// The row has what the run wrote.
    fn as_written(&self) -> String {
        let catalog = &self.session.catalog;
        let columns = self.columns.iter();
        let same: Vec<String> = columns
            .map(|c| {
                let own = format!("t.{}", c.sql());
                match self.what {
                    What::Kept(Change::Nullified) => format!("{own} IS NOT DISTINCT FROM NULL"),
                    What::Kept(_) => {
                        let written = format!("kept.new_values ->> {}", Literal::new(&c.name));
                        let same = same_as_kept(catalog, &own, c, c, "kept.new_values");
                        format!("CASE WHEN ({written}) IS NULL THEN {own} IS NOT DISTINCT FROM NULL ELSE ({same}) IS TRUE END")
                    }
                    What::Filled => format!("{own} IS DISTINCT FROM NULL"),
                }
            })
            .collect();
        same.join(" AND ")
    }

    /// Why a row cannot have its values again, in order.
    fn refusals(&self) -> Vec<(String, String)> {
        let mut refusals = vec![(format!("NOT ({})", self.as_written()), "changed_since".to_string())];
        for column in self
            .columns
            .iter()
            .filter(|c| c.never_null || self.details.domain_not_null)
        {
            let null = format!("({}) IS NOT DISTINCT FROM NULL", self.old(column));
            refusals.push((null, "constraint_failed".into()));
        }
        let new_value = |c: &Column| {
            let written = self.columns.iter().any(|column| column.number == c.number);
            written.then(|| self.old(c))
        };
        for (column, check) in &self.domain_checks {
            let holds = of_value(&check.expression, &self.old(column));
            refusals.push((format!("NOT {holds}"), "constraint_failed".into()));
        }
        for check in &self.details.checks {
            let holds = in_new_row(
                self.table,
                &self.details.generated,
                &new_value,
                &check.expression,
                &check.columns,
            );
            refusals.push((format!("NOT {holds}"), "constraint_failed".into()));
        }
        // A foreign key, valid or not, refuses a new value that has no parent.
        let catalog = &self.session.catalog;
        for key in catalog.foreign_keys_of(self.table.oid).filter(|key| key.enforced) {
            let concerns = self.columns.iter().any(|c| key.columns.contains(&c.number));
            let Some(parent) = catalog.table(key.parent).filter(|_| concerns) else {
                continue;
            };
            let own: Vec<String> = key
                .columns
                .iter()
                .filter_map(|c| self.table.column(*c))
                .map(|c| new_value(c).unwrap_or_else(|| format!("t.{}", c.sql())))
                .collect();
            if key.match_full && own.len() > 1 {
                let null: Vec<String> = own.iter().map(|own| format!("({own}) IS NULL")).collect();
                let partly = format!("({}) AND NOT ({})", null.join(" OR "), null.join(" AND "));
                refusals.push((partly, "constraint_failed".into()));
            }
            let on: Vec<String> = key
                .parent_columns
                .iter()
                .filter_map(|c| parent.column(*c))
                .zip(own.iter().zip(&key.columns))
                .map(|(c, (value, column))| {
                    let of_parent = format!("p.{}", c.sql());
                    same_key(
                        catalog,
                        &of_parent,
                        c,
                        &format!("({value})"),
                        self.table.column(*column),
                    )
                })
                .collect();
            refusals.push((
                format!(
                    "{} AND NOT EXISTS (SELECT FROM {} AS p WHERE {})",
                    all_set(&own.iter().map(|own| format!("({own})")).collect::<Vec<_>>()),
                    parent.relation_sql(),
                    on.join(" AND ")
                ),
                "source_missing".into(),
            ));
        }
        refusals
    }

    /// Conditions under which the row would have the key of another row, or of one that is to be put back as well: of the rows that are
    /// judged together, only in the list of a SELECT over them.
    fn collisions(&self) -> Vec<String> {
        self.details
            .unique_indexes
            .iter()
            .map(|index| self.collides(index))
            .collect()
    }

    fn collides(&self, index: &UniqueIndex) -> String {
        let catalog = &self.session.catalog;
        let new_value = |c: &Column| {
            let written = self.columns.iter().any(|column| column.number == c.number);
            written.then(|| self.old(c))
        };
        let in_new_row =
            |expression: &str| in_new_row(self.table, &self.details.generated, &new_value, expression, &[]);
        let as_it_would_be = |expression: &str| {
            let mut plain = self.table.columns.iter();
            match plain.find(|c| c.quoted == expression && !c.generated) {
                Some(column) => new_value(column).unwrap_or_else(|| format!("t.{}", column.sql())),
                None => in_new_row(expression),
            }
        };
        let (mut keys, mut existing) = (vec![], vec![]);
        for (at, expression) in index.expressions.iter().enumerate() {
            let collation = index.collations.get(at).cloned().flatten();
            let collation = collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            let key = format!("({}){collation}", as_it_would_be(expression));
            let there = format!("({expression}){collation}");
            let type_oid = index.types.get(at).copied().unwrap_or_default();
            existing.push(match index.nulls_not_distinct {
                true => format!("{there} IS NOT DISTINCT FROM {key}"),
                false => equal(catalog, &there, type_oid, &key),
            });
            keys.push(key);
        }
        let table = self.table.relation_sql();
        let same_row = match self.table.kind {
            'p' => "existing.tableoid = t.tableoid AND existing.ctid = t.ctid",
            _ => "existing.ctid = t.ctid",
        };
        existing.extend(index.predicate.iter().map(|predicate| format!("({predicate})")));
        let applies = index.predicate.as_ref().map(|p| format!("{} IS TRUE", in_new_row(p)));
        let mut together = keys.clone();
        together.extend(applies.iter().cloned());
        // Rows that are put back already, or gone, are in nobody's way.
        together.push(match self.what {
            What::Filled => "true".into(),
            What::Kept(_) => "(kept.undone_by IS NULL AND t.ctid IS NOT NULL)".into(),
        });
        let mut conditions: Vec<String> = applies.into_iter().collect();
        if !index.nulls_not_distinct {
            conditions.push(all_set(&keys));
        }
        conditions.push(format!(
            "(pg_catalog.count(*) OVER (PARTITION BY {}) > 1 OR EXISTS (SELECT FROM {table} AS existing WHERE {} AND NOT ({same_row})))",
            together.join(", "),
            existing.join(" AND ")
        ));
        conditions.join(" AND ")
    }

    /// Changes of the run that are not taken back yet, as a condition on `mend.changes`.
    fn of_run(&self, alias: &str) -> String {
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
    fn ids(&self) -> Vec<u32> {
        self.shares
            .borrow()
            .iter()
            .flat_map(|share| share.ids.iter().copied())
            .collect()
    }

    /// Rows that were filled under these ids, as a condition over `t`.
    fn filled_as(&self, ids: &[u32]) -> String {
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
    pub(super) fn unlinked(&self) -> Option<(u32, i16, String)> {
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
    fn judged_rows(&self) -> String {
        let catalog = &self.session.catalog;
        let refused = self.refusals().into_iter();
        let collisions = self
            .collisions()
            .into_iter()
            .map(|c| (c, "constraint_failed".to_string()));
        let refused: Vec<String> = refused
            .chain(collisions)
            .map(|(refused, reason)| format!("WHEN {refused} THEN '{reason}'"))
            .collect();
        let refused = refused.join("\n    ");
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
                    "SELECT t.ctid AS row_ctid, t.tableoid AS row_table, {}, CASE {refused}\n    ELSE 'undone' END::pg_catalog.text AS outcome\n\
                     FROM {table} AS t\nWHERE {}",
                    old.join(", "),
                    self.filled_as(&self.ids())
                )
            }
            What::Kept(change) => {
                let key = key_conditions(catalog, self.table, "t", "kept.row_key");
                format!(
                    "SELECT kept.change_id, CASE WHEN kept.undone_by IS NOT NULL THEN 'already_restored'\n    WHEN t.ctid IS NULL THEN 'row_is_gone'\n    \
                     {refused}\n    ELSE 'undone' END::pg_catalog.text AS outcome\nFROM mend.changes AS kept\nLEFT JOIN {table} AS t ON {}\n\
                     WHERE kept.run_id = {} AND kept.change = '{}' AND kept.table_name = {}",
                    key.join(" AND "),
                    self.id,
                    change.as_str(),
                    Literal::new(&record::qualified(self.table))
                )
            }
        }
    }

    /// What becomes of the rows: outcome and number.
    fn judged(&self) -> Result<BTreeMap<String, i64>, Problem> {
        let inner = self.judged_rows();
        let statement = Statement {
            sql: format!(
                "SELECT outcome, pg_catalog.count(*)\nFROM (\n{}\n) AS judged\nGROUP BY outcome",
                indent(&inner, 2)
            ),
            parameters: vec![],
        };
        let _own = Settings::of_one_statement();
        self.reader.get().run(|| {
            Ok(Spi::connect(|client| {
                let mut counts = BTreeMap::new();
                for row in client.select(&statement.sql, None, &[])? {
                    let outcome = row.get::<String>(1)?.unwrap_or_default();
                    counts.insert(outcome, row.get::<i64>(2)?.unwrap_or(0));
                }
                Ok::<_, SpiError>(counts)
            })?)
        })
    }

    /// Counts what taking it back would do.
    pub(super) fn count(&self) -> Result<Undone, Problem> {
        let _settings = settings(true);
        let _hash = by_hash();
        self.counted()
    }

    fn counted(&self) -> Result<Undone, Problem> {
        let _whole = WholeFunctions::where_needed(asks_user_code(&self.details));
        let mut counts = self.judged()?;
        if self.what == What::Filled {
            // Rows that do not carry our id any more: an earlier undo has had them, or somebody has changed them.
            let found: i64 = counts.values().sum();
            let other = (self.filled - self.replaced - found).max(0);
            let before = self.undone_before.get().min(other);
            for (reason, rows) in [("already_restored", before), ("changed_since", other - before)] {
                if rows > 0 {
                    *counts.entry(reason.into()).or_default() += rows;
                }
            }
        }
        let mut notes = vec![];
        if !self.details.triggers.is_empty() && counts.contains_key("undone") {
            notes.push(format!("triggers fire: {}", self.details.triggers.join(", ")));
        }
        if self.what == What::Filled && self.table.primary_key().is_none() && counts.contains_key("undone") {
            notes.push("without a primary key its rows cannot be found again: this undo cannot be taken back".into());
        }
        let null: Vec<&str> = self
            .columns
            .iter()
            .filter(|c| c.never_null)
            .map(|c| c.quoted.as_str())
            .collect();
        if !null.is_empty() && counts.contains_key("constraint_failed") {
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
            total: counts.values().sum(),
            undone: counts.remove("undone").unwrap_or(0),
            reasons: counts,
            run_id: None,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }

    /// Writes, reads back, records.
    pub(super) fn take_back(&self) -> Result<Undone, Problem> {
        lock(self.session, self.table);
        // Whoever had the lock may have taken back a part of it.
        self.look()?;
        let _settings = settings(false);
        let _hash = by_hash();
        let _whole = WholeFunctions::where_needed(asks_user_code(&self.details));
        let mut undone = self.counted()?;
        if undone.undone == 0 {
            return Ok(undone);
        }
        let table = record::qualified(self.table);
        let statement = match self.what {
            What::Filled => self.nullify(&self.ids()),
            What::Kept(_) => self.write(&Versions::All),
        };
        let review = statement.for_review();
        let change = undone.change.clone();
        let (run, rows) = recorded(
            self.session,
            self.id,
            &change,
            table,
            &undone,
            review,
            |run| match self.what {
                What::Filled => self.nullify_filled(run),
                What::Kept(_) => self.write_kept(run),
            },
        )?;
        let changed = (undone.undone - rows).max(0);
        if changed > 0 {
            *undone.reasons.entry("changed_since".into()).or_default() += changed;
        }
        undone.undone = rows;
        undone.total = rows + undone.reasons.values().sum::<i64>();
        undone.run_id = Some(run);
        Ok(undone)
    }

    /// What was filled becomes NULL, share by share; what it was is kept where the row has a key.
    fn nullify_filled(&self, run: i64) -> Result<i64, Problem> {
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

    fn nullify(&self, ids: &[u32]) -> Statement {
        let catalog = &self.session.catalog;
        let set: Vec<String> = self.columns.iter().map(|c| format!("{} = NULL", c.sql())).collect();
        let old = self.columns.iter().enumerate();
        let old = old.map(|(i, c)| (*c, format!("judged.old_{}", i + 1)));
        // A row that somebody changes meanwhile has another place and another id.
        let same = match self.table.kind {
            'p' => "judged.row_table = t.tableoid AND judged.row_ctid = t.ctid",
            _ => "judged.row_ctid = t.ctid",
        };
        let update = Statement {
            sql: format!(
                "UPDATE {} AS t SET {}\nFROM (\n{}\n) AS judged\nWHERE judged.outcome = 'undone' AND {same} AND {}",
                self.table.relation_sql(),
                set.join(", "),
                indent(&self.judged_rows(), 2),
                written_as("t", ids),
            ),
            parameters: vec![],
        };
        let update = update.under_callers_settings(&self.session.caller.with_exact_texts(), true);
        let with = format!(
            "written AS (\n{}\n  RETURNING {} AS row_key, {} AS old_values\n)",
            indent(&update.sql, 2),
            self.table.row_key_sql(catalog, "t"),
            json_object(old)
        );
        // Without a key nobody could find the row again.
        let from = match self.table.primary_key() {
            Some(_) => "FROM written",
            None => "FROM written WHERE false",
        };
        Statement {
            sql: keeping(
                &with,
                &["(SELECT pg_catalog.count(*) FROM written)"],
                &[
                    ("row_key", "row_key::pg_catalog.text"),
                    ("old_values", "old_values::pg_catalog.text"),
                ],
                from,
            ),
            parameters: update.parameters,
        }
    }

    fn write_kept(&self, run: i64) -> Result<i64, Problem> {
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
        conditions.extend(self.columns.iter().map(|c| {
            let own = format!("t.{}", c.sql());
            let old = format!("kept.old_values ->> {}", Literal::new(&c.name));
            let same = same_as_kept(&self.session.catalog, &own, c, c, "kept.old_values");
            format!("CASE WHEN ({old}) IS NULL THEN {own} IS NOT DISTINCT FROM NULL ELSE ({same}) IS TRUE END")
        }));
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
    fn write(&self, versions: &Versions) -> Statement {
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
        let update = Statement {
            sql: format!(
                "UPDATE {} AS t SET {}\nFROM mend.changes AS kept\nWHERE {}",
                self.table.relation_sql(),
                set.join(", "),
                conditions.join("\n  AND ")
            ),
            parameters: vec![],
        };
        let update = update.under_callers_settings(&self.session.caller.with_exact_texts(), true);
        Statement {
            sql: keeping(
                &format!(
                    "written AS (\n{}\n  RETURNING kept.change_id\n)",
                    indent(&update.sql, 2)
                ),
                &["(SELECT pg_catalog.count(*) FROM written)"],
                &[("row_key", "change_id::pg_catalog.text")],
                "FROM written",
            ),
            parameters: update.parameters,
        }
    }

    /// Reads back what was written.
    ///
    /// * `sql`: counts the rows that are as they are to be.
    ///
    /// Errors: 27000 where a trigger has changed it: nothing is put back then.
    fn holds(&self, sql: &str, written: i64) -> Result<(), Problem> {
        let found = Spi::connect(|client| client.select(sql, None, &[])?.first().get_one::<i64>())?.unwrap_or(0);
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
