//! `nullify` and `quarantine`: the reference becomes NULL, what it was is kept.
//!
//! The rows to write are found by their values, never by where they are: a row that somebody changes meanwhile is looked at
//! again by Postgres, and no longer has the value.

use pgrx::prelude::*;
use serde_json::json;

use super::prepared::{PreparedRepair, RepairStrategy};
use super::request::{Action, Violation};
use crate::catalog::{Check, Column, Details, Table, UniqueIndex};
use crate::identifier::Literal;
use crate::infer::tenancy::resolver::RowTenant;
use crate::plan::expression::{asks_user_code, calls_user_code, equal, indent};
use crate::plan::join::same_key;
use crate::plan::kept::Change;
use crate::plan::kept::{json_object, keeping_each, key_conditions, same_as_kept};
use crate::plan::reason::{self, Reason};
use crate::plan::refusal::{ChangedRow, Refusal};
use crate::plan::{Mode, Statement};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::obstacles::{
    column_can_be_filled, details_can_be_predicted, overwriting_can_be_kept, relation_can_be_filled,
};
use crate::run::record;

/// What is written, and what the table says to it.
pub(super) struct Nullification<'a> {
    columns: Vec<&'a Column>,
    details: Details,
    /// CHECKs of the columns' domains, with the column.
    domain_checks: Vec<(&'a Column, Check)>,
    /// Unique indexes under which rows that become NULL can collide: NULLs are one value there, or it has a predicate or an expression.
    unique_indexes: Vec<UniqueIndex>,
}

impl<'a> Nullification<'a> {
    /// Adds everything that is in the way.
    pub(super) fn prepare(work: &PreparedRepair<'a>, problems: &mut Problems) -> Result<Self, Problem> {
        let (session, table) = (work.session, work.reference.table);
        let shown = session.catalog.display(table);
        relation_can_be_filled(session, table, problems);
        let of_reference: Vec<&Column> = work.reference.columns.iter().filter_map(|c| table.column(*c)).collect();
        // The tenant of a row stays; of the other columns, one NULL is enough, and MATCH FULL wants all of them.
        let tenant = match work.resolver.of(table).as_ref() {
            RowTenant::Columns(columns) => columns.clone(),
            _ => vec![],
        };
        let partly = of_reference.len() > 1 && !work.reference.match_full;
        let columns: Vec<&Column> = of_reference
            .iter()
            .filter(|c| !partly || !c.never_null && !tenant.contains(&c.number))
            .copied()
            .collect();
        let not_null: Vec<&str> = match columns.is_empty() {
            true => of_reference.iter().map(|c| c.quoted.as_str()).collect(),
            false => columns
                .iter()
                .filter(|c| c.never_null)
                .map(|c| c.quoted.as_str())
                .collect(),
        };
        if !not_null.is_empty() {
            problems.push(cannot_be_null(work, &shown, &not_null));
        }
        let mut details = Details::default();
        let mut domain_checks = Vec::new();
        let mut unique_indexes: Vec<UniqueIndex> = Vec::new();
        for column in &columns {
            column_can_be_filled(session, table, column, problems);
            if !table.is_table() {
                continue;
            }
            let of_column = session.catalog.details(table, column)?;
            details_can_be_predicted(session, table, column, &of_column, problems);
            overwriting_can_be_kept(session, table, Some(column), problems);
            for index in of_column.unique_indexes {
                let plain = index
                    .expressions
                    .iter()
                    .all(|e| table.columns.iter().any(|c| c.quoted == *e));
                let known = unique_indexes.iter().any(|known| known.name == index.name);
                if !known && (index.nulls_not_distinct || index.predicate.is_some() || !plain) {
                    unique_indexes.push(index);
                }
            }
            details.triggers.extend(of_column.triggers);
            details.checks = of_column.checks;
            details.generated = of_column.generated;
            details.code.extend(of_column.code);
            domain_checks.extend(of_column.domain_checks.into_iter().map(|check| (*column, check)));
            if of_column.domain_not_null {
                problems.push(cannot_be_null(work, &shown, &[column.quoted.as_str()]));
            }
            if !column.may_update && work.request.mode.is_real() {
                problems.push(
                    Problem::new(
                        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                        format!("permission denied to update {} of {shown}", column.quoted),
                    )
                    .hint(session.grant(&format!("UPDATE ({})", column.quoted), &shown)),
                );
            }
        }
        for list in [&mut details.triggers, &mut details.code] {
            list.sort();
            list.dedup();
        }
        let other_full = session.catalog.foreign_keys_of(table.oid).find(|key| {
            key.match_full
                && key.columns.len() > 1
                && key.columns != work.reference.columns
                && columns.iter().any(|c| key.columns.contains(&c.number))
        });
        if let Some(key) = other_full {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!(
                        "{} of {shown} is MATCH FULL and shares a column with the reference",
                        key.name
                    ),
                )
                .detail("it refuses rows of which only some of its columns are NULL")
                .hint("drop it first, repair, and add it again NOT VALID, then VALIDATE"),
            );
        }
        work.read_with(table, &details.code, &[], problems);
        let of_indexes = unique_indexes.iter();
        let of_indexes = of_indexes.flat_map(|index| index.expressions.iter().chain(&index.predicate));
        let asks = asks_user_code(&details) || of_indexes.into_iter().any(|text| calls_user_code(text));
        work.calls_code.set(work.calls_code.get() || asks);
        Ok(Nullification {
            columns,
            details,
            domain_checks,
            unique_indexes,
        })
    }

    /// Conditions under which the table refuses the row as it would be.
    fn refusals(&self, work: &PreparedRepair) -> Vec<Refusal> {
        self.changed(work).checks(&self.details.checks, &self.domain_checks)
    }

    /// The row as it would be.
    fn changed<'p>(&'p self, work: &'p PreparedRepair) -> ChangedRow<'p> {
        let null = |c: &Column| {
            // Of a domain the base: its own CHECKs are asked by themselves.
            let base = work.session.catalog.base_type(c.type_oid, -1);
            base.map_or("NULL".into(), |(base, _)| format!("NULL::{}", base.sql()))
        };
        ChangedRow {
            catalog: &work.session.catalog,
            table: work.reference.table,
            generated: &self.details.generated,
            written: self.columns.iter().map(|c| (*c, null(c))).collect(),
        }
    }

    /// What becomes of a violating row `t`: only in the list of a SELECT over all of them.
    fn outcome(&self, work: &PreparedRepair) -> String {
        let mut cases = self.refusals(work);
        let refused: Vec<String> = cases.iter().map(|(refused, _)| format!("({refused})")).collect();
        let together = match refused.is_empty() {
            true => vec![],
            false => vec![format!("({}) IS TRUE", refused.join(" OR "))],
        };
        let changed = self.changed(work);
        cases.extend(
            self.unique_indexes
                .iter()
                .map(|index| changed.collision(index, &together)),
        );
        reason::case(&cases, &Reason::Repaired)
    }

    /// Names in CHECKs and in the caller's condition are looked up as the caller would.
    fn gated(&self, work: &PreparedRepair, statement: Statement, writes: bool) -> Statement {
        let code = self
            .details
            .checks
            .iter()
            .map(|c| &c.expression)
            .chain(
                self.unique_indexes
                    .iter()
                    .flat_map(|i| i.expressions.iter().chain(&i.predicate)),
            )
            .chain(&work.only_where);
        let asks = work.reader.get().is_caller() && code.into_iter().any(|expression| calls_user_code(expression));
        match writes || asks {
            true => statement.under_callers_settings(&work.session.caller.with_exact_texts()),
            false => statement,
        }
    }

    /// Columns whose values decide that a row is violating.
    fn deciding(&self, work: &PreparedRepair) -> Vec<i16> {
        let mut columns = work.reference.columns.clone();
        if work.request.violation == Violation::CrossTenant {
            for column in work.pass.own_tenant_columns() {
                if !columns.contains(&column) {
                    columns.push(column);
                }
            }
        }
        columns
    }

    /// The UPDATE, without its end.
    fn update(&self, work: &PreparedRepair) -> Statement {
        let table = work.reference.table;
        let deciding: Vec<&Column> = self.deciding(work).iter().filter_map(|c| table.column(*c)).collect();
        let values: Vec<String> = deciding
            .iter()
            .enumerate()
            .map(|(i, c)| {
                let own = format!("t.{}", c.sql());
                let text = work.session.catalog.text_sql(&own, c.type_oid);
                format!("{own} AS value_{0}, {text} AS text_{0}", i + 1)
            })
            .collect();
        let mut on = Vec::new();
        for (i, column) in deciding.iter().enumerate() {
            let n = i + 1;
            if work.reference.columns.contains(&column.number) && !work.reference.match_full {
                let own = format!("t.{}", column.sql());
                on.push(equal(
                    &work.session.catalog,
                    &own,
                    column.type_oid,
                    &format!("violating.value_{n}"),
                ));
            }
            let text = work
                .session
                .catalog
                .text_sql(&format!("t.{}", column.sql()), column.type_oid);
            on.push(format!("({text}) IS NOT DISTINCT FROM violating.text_{n}"));
        }
        on.push(format!("({})", work.conditions.set));
        on.extend(work.only_where.iter().map(|condition| format!("({condition}) IS TRUE")));
        let set: Vec<String> = self.columns.iter().map(|c| format!("{} = NULL", c.sql())).collect();
        let violating = match self.unique_indexes.is_empty() {
            // By their values: a row that somebody changes meanwhile is looked at again, and no longer has them.
            true => {
                let refusals = self.refusals(work).into_iter();
                on.extend(refusals.map(|(refused, _)| format!("({refused}) IS NOT TRUE")));
                format!("DISTINCT {}", values.join(", "))
            }
            // Which rows collide is told of each: one that somebody changes meanwhile has another place.
            false => {
                on.push("violating.outcome = 'repaired'".into());
                on.push("t.tableoid = violating.row_table AND t.ctid = violating.row_ctid".into());
                format!(
                    "t.tableoid AS row_table, t.ctid AS row_ctid, ({})::pg_catalog.text AS outcome, {}",
                    self.outcome(work),
                    values.join(", ")
                )
            }
        };
        Statement::new(format!(
            "UPDATE {} AS t SET {}\nFROM (\n  SELECT {violating}\n{}\n  WHERE {}\n) AS violating",
            table.relation_sql(),
            set.join(", "),
            indent(&work.pass.from(), 2),
            work.violating,
        ))
        .filters(on)
        .with_parameters(work.pass.parameters.clone())
    }
}

fn cannot_be_null(work: &PreparedRepair, shown: &str, columns: &[&str]) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        format!("{} of {shown} cannot become NULL", columns.join(", ")),
    )
    .detail("it is NOT NULL, a CHECK or its domain says so, or it is the tenant of the row")
    .hint(format!(
        "create the parents instead: SELECT * FROM repair_orphans({}, {}, 'create_parent'); or, if a row may be without one: ALTER TABLE {shown} ALTER COLUMN {} DROP NOT NULL",
        Literal::new(shown),
        Literal::new(&work.reference.columns_shown()),
        columns[0]
    ))
}

impl RepairStrategy for Nullification<'_> {
    fn judged(&self, work: &PreparedRepair) -> Statement {
        let inner = Statement::new(format!(
            "SELECT ({})::pg_catalog.text AS outcome\n{}",
            self.outcome(work),
            work.pass.from()
        ))
        .filter(format!("({})", work.violating))
        .with_parameters(work.pass.parameters.clone());
        let inner = self.gated(work, inner, false);
        let counting = Statement::new(format!(
            "SELECT outcome, pg_catalog.count(*)\nFROM (\n{}\n) AS judged",
            indent(&inner.sql(), 2)
        ));
        counting
            .ending("GROUP BY outcome")
            .with_parameters(inner.parameters().to_vec())
    }

    fn parents(&self, _: &PreparedRepair) -> Result<i64, Problem> {
        Ok(0)
    }

    fn change<'p>(&'p self, work: &'p PreparedRepair<'p>) -> (&'p Table, Change) {
        (work.reference.table, Change::Nullified)
    }

    fn write(&self, work: &PreparedRepair) -> Statement {
        let table = work.reference.table;
        let update = self.gated(work, self.update(work), true);
        let deciding = self.deciding(work);
        let of = |column: &Column| deciding.iter().position(|c| *c == column.number).map_or(0, |at| at + 1);
        let catalog = &work.session.catalog;
        let old_texts = self.columns.iter().map(|c| (*c, format!("violating.text_{}", of(c))));
        // The row as it was: what became NULL has its old value.
        let row = match work.request.action {
            Action::Quarantine => json_object(table.columns.iter().map(|c| {
                let own = match self.columns.iter().any(|written| written.number == c.number) {
                    true => format!("violating.value_{}", of(c)),
                    false => format!("t.{}", c.sql()),
                };
                (c, catalog.json_sql(&own, c.type_oid))
            })),
            _ => "NULL::pg_catalog.jsonb".into(),
        };
        let written = update.ending(format!(
            "RETURNING {} AS row_key, {} AS old_values, {row} AS row_values",
            table.row_key_sql(catalog, "t"),
            json_object(old_texts)
        ));
        keeping_each(written, &["row_key", "old_values", "row_values"])
    }

    /// A parent that was created while the run went on: its rows must keep their reference.
    fn contradicted(&self, work: &PreparedRepair, run: i64) -> Option<Statement> {
        if work.request.violation != Violation::Orphan {
            return None;
        }
        let (table, parent) = (work.reference.table, work.reference.parent);
        let key: Vec<String> = key_conditions(&work.session.catalog, table, "t", "kept.row_key");
        let on: Vec<String> = work
            .reference
            .key
            .iter()
            .zip(&work.reference.columns)
            .filter_map(|(key, column)| Some((parent.column(*key)?, table.column(*column)?)))
            .map(|(key, column)| {
                let of_parent = format!("p.{}", key.sql());
                match self.columns.iter().any(|c| c.number == column.number) {
                    true => same_as_kept(&work.session.catalog, &of_parent, key, column, "kept.old_values"),
                    false => {
                        let own = format!("t.{}", column.sql());
                        same_key(&work.session.catalog, &of_parent, key, &own, Some(column))
                    }
                }
            })
            .collect();
        let sql = format!(
            "SELECT pg_catalog.count(*)\nFROM mend.repaired_rows AS kept\nJOIN {} AS t ON {}\nJOIN {} AS p ON {}\nWHERE kept.run_id = {run}",
            table.relation_sql(),
            key.join(" AND "),
            parent.relation_sql(),
            on.join(" AND ")
        );
        Some(Statement::new(sql))
    }

    fn statement(&self, work: &PreparedRepair) -> String {
        self.update(work).for_review()
    }

    fn note(&self, work: &PreparedRepair, _: Mode) -> Result<Option<String>, Problem> {
        let mut notes = Vec::new();
        let columns: Vec<&str> = self.columns.iter().map(|c| c.quoted.as_str()).collect();
        if columns.len() < work.reference.columns.len() {
            notes.push(format!("only {} becomes NULL", columns.join(", ")));
        }
        if !self.details.triggers.is_empty() {
            notes.push(format!("triggers fire: {}", self.details.triggers.join(", ")));
        }
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    fn fingerprint(&self, work: &PreparedRepair) -> String {
        let reads = work.pass.reads().iter().map(|(table, _)| *table).collect();
        let details = json!(self.details.checks.len());
        format!(
            "{}{details}",
            record::fingerprinted(&work.session.catalog, reads, &self.details)
        )
    }
}
