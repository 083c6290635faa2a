//! `restore_repaired`: puts back what a repair nullified, where nobody changed it since.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use pgrx::spi::SpiError;
use serde_json::{Value, json};

use crate::catalog::{Check, Column, Details, Table, UniqueIndex, texts_can_be_read};
use crate::identifier::Identifier;
use crate::pg::{Jsonb, Settings, WholeFunctions};
use crate::plan::Statement;
use crate::plan::expression::{all_set, equal, indent};
use crate::plan::join::same_key;
use crate::plan::kept::{keeping, key_conditions, old_value, same_as_kept};
use crate::plan::new_row::{in_new_row, of_value};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::ledger;
use crate::run::record::{self, Record};
use crate::run::{Reader, Session, lock, may_write, readable, settings, updatable};

/// What was put back, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// As displayed.
    pub table: String,
    /// As typed.
    pub columns: String,
    /// Rows that the run had nullified.
    pub total: i64,
    /// Rows that have their values again.
    pub restored: i64,
    /// Rows left as they are, by reason.
    pub reasons: BTreeMap<String, i64>,
    /// `mend.runs.run_id` of a real run.
    pub run_id: Option<i64>,
}

/// The run that is to be taken back.
struct Run<'a> {
    session: &'a Session,
    id: i64,
    table: &'a Table,
    columns: Vec<&'a Column>,
    shown: String,
    details: Details,
    /// CHECKs of the columns' domains, with the column.
    domain_checks: Vec<(&'a Column, Check)>,
}

/// Puts back what the run `id` nullified, or counts what that would do.
///
/// Errors: 42704 if there is no such run of the caller's; 0A000 if it was no repair that nullified; 42P01, 42703 if table
/// or column are gone; 42501, 25006, and whatever triggers raise.
pub fn restore(session: &Session, id: i64, dry_run: bool) -> Result<Restored, Problem> {
    if !dry_run {
        may_write()?;
    }
    let run = Run::find(session, id)?;
    run.may(dry_run)?;
    let parents = session.catalog.foreign_keys_of(run.table.oid).map(|key| key.parent);
    session.hold(parents.chain([run.table.oid]))?;
    let _whole = WholeFunctions::where_needed(!run.details.code.is_empty());
    if run.columns.is_empty() {
        // A repair that found nothing to do.
        return Ok(run.outcome(BTreeMap::new()));
    }
    if dry_run {
        let _settings = settings(true);
        return Ok(run.outcome(run.count()?));
    }
    let started = record::clock()?;
    lock(session, run.table);
    let table = record::qualified(run.table);
    let restored_by = ledger::open(session, "restore_repaired", &table, &started)?;
    let _settings = settings(false);
    let before = {
        let _own = Settings::of_one_statement();
        run.count()?
    };
    let statement = run.write();
    let written = {
        let _own = Settings::of_one_statement();
        ledger::mark_undone(restored_by, &statement)?
    };
    run.holds(restored_by, written)?;
    let mut outcome = run.outcome(before);
    // What somebody changed between the count and the write has stayed as it is.
    let changed = outcome.restored - written;
    if changed > 0 {
        *outcome.reasons.entry("changed_since".into()).or_default() += changed;
    }
    outcome.restored = written;
    outcome.total = written + outcome.reasons.values().sum::<i64>();
    let record = Record {
        table,
        column: run.shown.clone(),
        rule: json!({ "run_id": id }),
        statement: super::for_review(statement.clone()),
        counts: (
            0,
            written,
            serde_json::to_value(&outcome.reasons)?,
            outcome.total - written,
        ),
        note: None,
        fingerprint: record::fingerprinted(&session.catalog, vec![run.table.oid], &run.details),
    };
    ledger::close(restored_by, &record)?;
    outcome.run_id = Some(restored_by);
    Ok(outcome)
}

impl<'a> Run<'a> {
    fn find(session: &'a Session, id: i64) -> Result<Run<'a>, Problem> {
        let sql = "SELECT operation, table_name, rule, run_by::pg_catalog.text FROM mend.runs WHERE run_id = $1";
        let found = Spi::connect(|client| {
            let rows = client.select(sql, None, &[id.into()])?;
            if rows.is_empty() {
                return Ok(None);
            }
            let row = rows.first();
            let texts = (row.get::<String>(1)?, row.get::<String>(2)?, row.get::<String>(4)?);
            Ok::<_, SpiError>(Some((texts, row.get::<Jsonb>(3)?)))
        })?;
        let Some(((operation, table, run_by), rule)) = found else {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("there is no run {id} of yours"),
            )
            .hint("SELECT run_id, operation, table_name FROM mend.runs ORDER BY run_id DESC shows your runs"));
        };
        let rule = rule.map(|rule| rule.value("rule")).transpose()?.unwrap_or(Value::Null);
        let run_by = run_by.unwrap_or_default();
        if run_by != session.role {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("run {id} was made by {run_by}"),
            )
            .detail("what a role has recorded is not written with the rights of another")
            .hint(format!(
                "put it back as that role: SET ROLE {}",
                Identifier::new(&run_by)
            )));
        }
        let action = rule.get("action").and_then(Value::as_str).unwrap_or_default();
        if operation.as_deref() != Some("repair_orphans") || action == "create_parent" {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("run {id} nullified nothing"),
            )
            .detail("only what repair_orphans nullified or quarantined can be put back by this call")
            .hint("SELECT run_id FROM mend.runs WHERE operation = 'repair_orphans' shows such runs"));
        }
        let table = session.catalog.resolve_table(&table.unwrap_or_default())?;
        // The columns that were written are those whose old values were kept.
        let sql = "SELECT DISTINCT k FROM mend.repaired_rows r, pg_catalog.jsonb_object_keys(r.old_values) k WHERE r.run_id = $1 ORDER BY k";
        let names = Spi::connect(|client| {
            let mut names = Vec::new();
            for row in client.select(sql, None, &[id.into()])? {
                names.extend(row.get::<String>(1)?);
            }
            Ok::<_, SpiError>(names)
        })?;
        let mut columns = Vec::new();
        let mut details = Details::default();
        let mut domain_checks = Vec::new();
        for name in &names {
            let column = table.column_named(name).ok_or_else(|| {
                Problem::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!(
                        "column {name} of {} does not exist any more",
                        session.catalog.display(table)
                    ),
                )
                .hint("the values are in mend.repaired_rows")
            })?;
            let of_column = session.catalog.details(table, column)?;
            details.checks = of_column.checks;
            details.generated = of_column.generated;
            details.code.extend(of_column.code);
            details.triggers.extend(of_column.triggers);
            for index in of_column.unique_indexes {
                if !details.unique_indexes.iter().any(|known| known.name == index.name) {
                    details.unique_indexes.push(index);
                }
            }
            domain_checks.extend(of_column.domain_checks.into_iter().map(|check| (column, check)));
            columns.push(column);
        }
        // Of a run that repaired nothing, those that it looked at.
        let asked = rule.get("columns").and_then(Value::as_array).into_iter().flatten();
        let shown: Vec<&str> = match names.is_empty() {
            true => asked.filter_map(Value::as_str).collect(),
            false => names.iter().map(String::as_str).collect(),
        };
        let shown = crate::validate::reference::shown(&shown);
        Ok(Run {
            session,
            id,
            table,
            columns,
            shown,
            details,
            domain_checks,
        })
    }

    fn may(&self, dry_run: bool) -> Result<(), Problem> {
        let mut problems = Problems::default();
        let all: Vec<i16> = self.table.columns.iter().map(|c| c.number).collect();
        readable(self.session, self.table, &all, false, &mut problems);
        if self.table.primary_key().is_none() {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                    format!(
                        "{} has no primary key any more, so its rows cannot be found again",
                        self.session.catalog.display(self.table)
                    ),
                )
                .hint("the values are in mend.repaired_rows"),
            );
        }
        // Who owns the table cannot see what others have recorded: its code is run for whom it trusts, or not at all.
        let state = self.session.catalog.table_in("mend", "repaired_rows");
        let reads: Vec<u32> = state.iter().map(|state| state.oid).collect();
        problems.keep(Reader::of(
            self.session,
            &[(self.table, &self.details.code)],
            &reads,
            &[],
        ));
        let key = self
            .table
            .primary_key()
            .map(|key| key.columns.clone())
            .unwrap_or_default();
        for column in self
            .columns
            .iter()
            .copied()
            .chain(key.iter().filter_map(|c| self.table.column(*c)))
        {
            problems.keep(texts_can_be_read(&self.session.catalog, column));
        }
        for column in self.columns.iter().filter(|_| !dry_run) {
            updatable(self.session, self.table, column, &mut problems);
        }
        problems.into_result()
    }

    /// The old value of a column in `json`.
    fn old_in(&self, column: &Column, json: &str) -> String {
        old_value(&self.session.catalog, self.table, column, json)
    }

    fn old(&self, column: &Column) -> String {
        self.old_in(column, "kept.old_values")
    }

    /// Why a row cannot have its values again, in order.
    fn refusals(&self) -> Vec<(String, String)> {
        let still_null: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("t.{} IS NOT DISTINCT FROM NULL", c.sql()))
            .collect();
        let mut refusals = vec![(
            format!("NOT ({})", still_null.join(" AND ")),
            "changed_since".to_string(),
        )];
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
        for index in &self.details.unique_indexes {
            refusals.push((self.collides(index, &new_value), "constraint_failed".into()));
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

    /// The row would have the key of another row, or of one that is to be put back as well.
    fn collides(&self, index: &UniqueIndex, new_value: &dyn Fn(&Column) -> Option<String>) -> String {
        let catalog = &self.session.catalog;
        // The key of a row as it would be: of this one, and of another one (`o`, with what is kept of it in `other`).
        let of_other = |c: &Column| {
            let written = self.columns.iter().any(|column| column.number == c.number);
            Some(match written {
                true => self.old_in(c, "other.old_values"),
                false => format!("o.{}", c.sql()),
            })
        };
        let as_it_would_be = |expression: &str, new_value: &dyn Fn(&Column) -> Option<String>| {
            let plain = self.table.columns.iter();
            match plain.into_iter().find(|c| c.quoted == expression && !c.generated) {
                Some(column) => new_value(column).unwrap_or_else(|| format!("t.{}", column.sql())),
                None => in_new_row(self.table, &self.details.generated, new_value, expression, &[]),
            }
        };
        let (mut keys, mut existing, mut others) = (vec![], vec![], vec![]);
        for (at, expression) in index.expressions.iter().enumerate() {
            let collation = index.collations.get(at).cloned().flatten();
            let collation = collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
            let key = format!("({}){collation}", as_it_would_be(expression, new_value));
            let there = format!("({expression}){collation}");
            let other = format!("({}){collation}", as_it_would_be(expression, &of_other));
            let type_oid = index.types.get(at).copied().unwrap_or_default();
            let same = |there: &str| match index.nulls_not_distinct {
                true => format!("{there} IS NOT DISTINCT FROM {key}"),
                false => equal(catalog, there, type_oid, &key),
            };
            existing.push(same(&there));
            others.push(same(&other));
            keys.push(key);
        }
        let table = self.table.relation_sql();
        let same_row = match self.table.kind {
            'p' => "existing.tableoid = t.tableoid AND existing.ctid = t.ctid",
            _ => "existing.ctid = t.ctid",
        };
        existing.extend(index.predicate.iter().map(|predicate| format!("({predicate})")));
        let applies = |new_value: &dyn Fn(&Column) -> Option<String>| {
            let predicate = index.predicate.as_ref()?;
            Some(format!(
                "{} IS TRUE",
                in_new_row(self.table, &self.details.generated, new_value, predicate, &[])
            ))
        };
        others.extend(applies(&of_other));
        let key = key_conditions(catalog, self.table, "o", "other.row_key");
        let found = format!(
            "(EXISTS (SELECT FROM {table} AS existing WHERE {} AND NOT ({same_row})) \
             OR EXISTS (SELECT FROM mend.repaired_rows AS other JOIN {table} AS o ON {} WHERE other.run_id = {} \
             AND other.restored_by IS NULL AND other.change_id <> kept.change_id AND {}))",
            existing.join(" AND "),
            key.join(" AND "),
            self.id,
            others.join(" AND ")
        );
        let mut conditions: Vec<String> = applies(new_value).into_iter().collect();
        if !index.nulls_not_distinct {
            conditions.push(all_set(&keys));
        }
        conditions.push(found);
        conditions.join(" AND ")
    }

    /// Reads back what was written.
    ///
    /// Errors: 27000 where a trigger has changed it: nothing is put back then.
    fn holds(&self, restored_by: i64, written: i64) -> Result<(), Problem> {
        let catalog = &self.session.catalog;
        let mut conditions = key_conditions(catalog, self.table, "t", "kept.row_key");
        conditions.extend(
            self.columns
                .iter()
                .map(|c| same_as_kept(catalog, &format!("t.{}", c.sql()), c, c, "kept.old_values"))
                .map(|same| format!("({same})")),
        );
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM mend.repaired_rows AS kept JOIN {} AS t ON {}\nWHERE kept.restored_by = {restored_by}",
            self.table.relation_sql(),
            conditions.join(" AND ")
        );
        let found = Spi::connect(|client| client.select(&sql, None, &[])?.first().get_one::<i64>())?.unwrap_or(0);
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

    fn count(&self) -> Result<BTreeMap<String, i64>, Problem> {
        let mut whens = vec!["WHEN kept.restored_by IS NOT NULL THEN 'already_restored'".to_string()];
        let key = key_conditions(&self.session.catalog, self.table, "t", "kept.row_key");
        let missing: Vec<String> = self
            .table
            .primary_key()
            .and_then(|key| self.table.column(key.columns[0]))
            .map(|c| format!("WHEN t.{} IS NOT DISTINCT FROM NULL THEN 'row_is_gone'", c.sql()))
            .into_iter()
            .collect();
        whens.extend(missing);
        whens.extend(
            self.refusals()
                .iter()
                .map(|(refused, reason)| format!("WHEN {refused} THEN '{reason}'")),
        );
        let inner = Statement {
            sql: format!(
                "SELECT CASE {}\n    ELSE 'restored' END::pg_catalog.text AS outcome\nFROM mend.repaired_rows AS kept\nLEFT JOIN {} AS t ON {}\nWHERE kept.run_id = {}",
                whens.join("\n    "),
                self.table.relation_sql(),
                key.join(" AND "),
                self.id
            ),
            parameters: vec![],
        };
        let sql = format!(
            "SELECT outcome, pg_catalog.count(*)\nFROM (\n{}\n) AS judged\nGROUP BY outcome",
            indent(&inner.sql, 2)
        );
        let counts = Spi::connect(|client| {
            let mut counts = BTreeMap::new();
            for row in client.select(&sql, None, &[])? {
                let outcome = row.get::<String>(1)?.unwrap_or_default();
                counts.insert(outcome, row.get::<i64>(2)?.unwrap_or(0));
            }
            Ok::<_, SpiError>(counts)
        })?;
        Ok(counts)
    }

    /// Writes the values back; returns the changes that are undone by that, as [`ledger::mark_undone`] takes them.
    fn write(&self) -> Statement {
        let set: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("{} = {}", c.sql(), self.old(c)))
            .collect();
        let mut conditions = key_conditions(&self.session.catalog, self.table, "t", "kept.row_key");
        conditions.push(format!("kept.run_id = {}", self.id));
        conditions.push("kept.restored_by IS NULL".into());
        conditions.extend(
            self.refusals()
                .iter()
                .map(|(refused, _)| format!("({refused}) IS NOT TRUE")),
        );
        let update = Statement {
            sql: format!(
                "UPDATE {} AS t SET {}\nFROM mend.repaired_rows AS kept\nWHERE {}",
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

    fn outcome(&self, mut counts: BTreeMap<String, i64>) -> Restored {
        let total = counts.values().sum();
        Restored {
            table: self.session.catalog.display(self.table),
            columns: self.shown.clone(),
            total,
            restored: counts.remove("restored").unwrap_or(0),
            reasons: counts,
            run_id: None,
        }
    }
}
