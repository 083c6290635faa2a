//! `nullify` and `quarantine`: the reference becomes NULL, what it was is kept.
//!
//! The rows to write are found by their values, never by where they are: a row that somebody changes meanwhile is looked at
//! again by Postgres, and no longer has the value.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use serde_json::json;

use super::{Action, Violation, Way, Work};
use crate::catalog::{Column, Details};
use crate::identifier::Literal;
use crate::plan::Statement;
use crate::plan::expression::{calls_user_code, equal, indent};
use crate::plan::new_row::in_new_row;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::obstacles::{
    column_can_be_filled, details_can_be_predicted, overwriting_can_be_kept, relation_can_be_filled,
};
use crate::run::record;
use crate::validate::sides::Whose;

/// What is written, and what the table says to it.
pub(super) struct Nullification<'a> {
    columns: Vec<&'a Column>,
    details: Details,
    /// Unique indexes that take NULL, or that read a column in an expression.
    unpredicted: Vec<String>,
}

impl<'a> Nullification<'a> {
    /// Adds everything that is in the way.
    pub(super) fn prepare(work: &Work<'a>, problems: &mut Problems) -> Result<Self, Problem> {
        let (session, table) = (work.session, work.reference.table);
        let shown = session.catalog.display(table);
        relation_can_be_filled(session, table, problems);
        let of_reference: Vec<&Column> = work.reference.columns.iter().filter_map(|c| table.column(*c)).collect();
        // The tenant of a row stays; of the other columns, one NULL is enough, and MATCH FULL wants all of them.
        let tenant = match work.sides.of(table).as_ref() {
            Whose::Own(columns) => columns.clone(),
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
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
                    format!("{} of {shown} cannot become NULL", not_null.join(", ")),
                )
                .detail("it is NOT NULL, a CHECK says so, or it is the tenant of the row")
                .hint(format!(
                    "create the parents instead: SELECT * FROM repair_orphans({}, {}, 'create_parent'); or, if a row may be without one: ALTER TABLE {shown} ALTER COLUMN {} DROP NOT NULL",
                    Literal::new(&shown),
                    Literal::new(&work.reference.columns_shown()),
                    not_null[0]
                )),
            );
        }
        let mut details = Details::default();
        let mut unpredicted = Vec::new();
        for column in &columns {
            column_can_be_filled(session, table, column, problems);
            if !table.is_table() {
                continue;
            }
            let of_column = session.catalog.details(table, column)?;
            details_can_be_predicted(session, table, column, &of_column, problems);
            overwriting_can_be_kept(session, table, Some(column), problems);
            for index in &of_column.unique_indexes {
                let plain = index
                    .expressions
                    .iter()
                    .all(|e| table.columns.iter().any(|c| c.quoted == *e));
                if index.nulls_not_distinct || index.predicate.is_some() || !plain {
                    unpredicted.push(index.name.clone());
                }
            }
            details.triggers.extend(of_column.triggers);
            details.checks = of_column.checks;
            details.generated = of_column.generated;
            if !column.may_update && !work.request.dry_run {
                problems.push(
                    Problem::new(
                        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                        format!("permission denied to update {} of {shown}", column.quoted),
                    )
                    .hint(format!("GRANT UPDATE ({}) ON {shown} TO ...", column.quoted)),
                );
            }
        }
        for list in [&mut details.triggers, &mut unpredicted] {
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
        Ok(Nullification {
            columns,
            details,
            unpredicted,
        })
    }

    /// Conditions under which a constraint refuses the row as it would be, with the constraint's name.
    fn refusals(&self, work: &Work) -> Vec<(String, &str)> {
        let new_value = |c: &Column| {
            let written = self.columns.iter().any(|column| column.number == c.number);
            let type_sql = work.session.catalog.type_of(c.type_oid).map(|t| t.sql());
            type_sql.filter(|_| written).map(|name| format!("NULL::{name}"))
        };
        self.details
            .checks
            .iter()
            .map(|check| {
                let holds = in_new_row(
                    work.reference.table,
                    &self.details.generated,
                    &new_value,
                    &check.expression,
                    &check.columns,
                );
                (format!("NOT {holds}"), check.name.as_str())
            })
            .collect()
    }

    /// Names in CHECKs and in the caller's condition are looked up as the caller would.
    fn gated(&self, work: &Work, statement: Statement, writes: bool) -> Statement {
        let code = self
            .details
            .checks
            .iter()
            .map(|c| &c.expression)
            .chain(&work.only_where);
        match writes || code.into_iter().any(|expression| calls_user_code(expression)) {
            true => statement.under_callers_settings(&work.session.search_path, &work.session.row_security, true),
            false => statement,
        }
    }

    /// Columns whose values decide that a row is violating.
    fn deciding(&self, work: &Work) -> Vec<i16> {
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
    fn update(&self, work: &Work) -> Statement {
        let table = work.reference.table;
        let deciding: Vec<&Column> = self.deciding(work).iter().filter_map(|c| table.column(*c)).collect();
        let values: Vec<String> = deciding
            .iter()
            .enumerate()
            .map(|(i, c)| format!("t.{0} AS value_{1}, t.{0}::pg_catalog.text AS text_{1}", c.sql(), i + 1))
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
            on.push(format!(
                "t.{}::pg_catalog.text IS NOT DISTINCT FROM violating.text_{n}",
                column.sql()
            ));
        }
        on.push(format!("({})", work.conditions.set));
        on.extend(work.only_where.iter().map(|condition| format!("({condition}) IS TRUE")));
        on.extend(
            self.refusals(work)
                .iter()
                .map(|(refused, _)| format!("({refused}) IS NOT TRUE")),
        );
        let set: Vec<String> = self.columns.iter().map(|c| format!("{} = NULL", c.sql())).collect();
        Statement {
            sql: format!(
                "UPDATE {} AS t SET {}\nFROM (\n  SELECT DISTINCT {}\n{}\n  WHERE {}\n) AS violating\nWHERE {}",
                table.relation_sql(),
                set.join(", "),
                values.join(", "),
                indent(&work.pass.from(), 2),
                work.violating,
                on.join("\n  AND ")
            ),
            parameters: work.pass.parameters.clone(),
        }
    }
}

impl Way for Nullification<'_> {
    fn count(&self, work: &Work) -> Result<BTreeMap<String, i64>, Problem> {
        let mut whens: Vec<String> = self
            .refusals(work)
            .iter()
            .map(|(refused, name)| {
                format!(
                    "WHEN {refused} THEN {}",
                    Literal::new(&format!("constraint_failed:{name}"))
                )
            })
            .collect();
        whens.push("ELSE 'repaired'".into());
        let case = match whens.len() {
            1 => "'repaired'".into(),
            _ => format!("CASE {} END", whens.join("\n    ")),
        };
        let inner = Statement {
            sql: format!(
                "SELECT {case}::pg_catalog.text AS outcome\n{}\nWHERE ({})",
                work.pass.from(),
                work.violating
            ),
            parameters: work.pass.parameters.clone(),
        };
        let inner = self.gated(work, inner, false);
        work.pairs(&Statement {
            sql: format!(
                "SELECT outcome, pg_catalog.count(*)\nFROM (\n{}\n) AS judged\nGROUP BY outcome",
                indent(&inner.sql, 2)
            ),
            parameters: inner.parameters,
        })
    }

    fn parents(&self, _: &Work) -> Result<i64, Problem> {
        Ok(0)
    }

    fn write(&self, work: &Work, run: i64) -> Result<i64, Problem> {
        let table = work.reference.table;
        let update = self.gated(work, self.update(work), true);
        let deciding = self.deciding(work);
        let of = |column: &Column| deciding.iter().position(|c| *c == column.number).map_or(0, |at| at + 1);
        let pairs = |what: &str| {
            let pairs: Vec<String> = self
                .columns
                .iter()
                .map(|c| format!("{}, violating.{what}_{}", Literal::new(&c.name), of(c)))
                .collect();
            format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
        };
        let row = match work.request.action {
            Action::Quarantine => format!("pg_catalog.to_jsonb(t) || {}", pairs("value")),
            _ => "NULL::pg_catalog.jsonb".into(),
        };
        work.number(&Statement {
            sql: format!(
                "WITH written AS (\n{}\n  RETURNING {} AS row_key, {} AS old_values, {row} AS row_values\n), kept AS (\n  \
                 INSERT INTO mend.repaired_rows (run_id, row_key, old_values, row_values)\n  \
                 SELECT {run}, row_key, old_values, row_values FROM written\n)\nSELECT pg_catalog.count(*) FROM written",
                indent(&update.sql, 2),
                table.row_key_sql("t"),
                pairs("text")
            ),
            parameters: update.parameters,
        })
    }

    /// A parent that was created while the run went on: its rows must keep their reference.
    fn holds(&self, work: &Work, run: i64) -> Result<bool, Problem> {
        if work.request.violation != Violation::Orphan {
            return Ok(true);
        }
        let (table, parent) = (work.reference.table, work.reference.parent);
        let key: Vec<String> = crate::plan::kept::key_conditions(&work.session.catalog, table, "t", "kept.row_key");
        let on: Vec<String> = work
            .reference
            .key
            .iter()
            .zip(&work.reference.columns)
            .filter_map(|(key, column)| Some((parent.column(*key)?, table.column(*column)?)))
            .map(|(key, column)| {
                let was = match self.columns.iter().any(|c| c.number == column.number) {
                    true => crate::plan::kept::old_value(&work.session.catalog, column, "kept.old_values"),
                    false => format!("t.{}", column.sql()),
                };
                equal(&work.session.catalog, &format!("p.{}", key.sql()), key.type_oid, &was)
            })
            .collect();
        let sql = format!(
            "SELECT pg_catalog.count(*)\nFROM mend.repaired_rows AS kept\nJOIN {} AS t ON {}\nJOIN {} AS p ON {}\nWHERE kept.run_id = {run}",
            table.relation_sql(),
            key.join(" AND "),
            parent.relation_sql(),
            on.join(" AND ")
        );
        let _policies = crate::pg::Settings::push(&[("row_security", "on")]);
        let found = work.number(&Statement {
            sql,
            parameters: vec![],
        })?;
        Ok(found == 0)
    }

    fn statement(&self, work: &Work) -> String {
        super::for_review(self.update(work))
    }

    fn note(&self, work: &Work, _: bool) -> Result<Option<String>, Problem> {
        let mut notes = Vec::new();
        let columns: Vec<&str> = self.columns.iter().map(|c| c.quoted.as_str()).collect();
        if columns.len() < work.reference.columns.len() {
            notes.push(format!("only {} becomes NULL", columns.join(", ")));
        }
        if !self.unpredicted.is_empty() {
            notes.push(format!(
                "not predicted, would fail the whole run: unique index {}",
                self.unpredicted.join(", ")
            ));
        }
        if !self.details.triggers.is_empty() {
            notes.push(format!("triggers fire: {}", self.details.triggers.join(", ")));
        }
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    fn fingerprint(&self, work: &Work) -> String {
        let reads = work.pass.reads().iter().map(|(table, _)| *table).collect();
        let details = json!(self.details.checks.len());
        format!(
            "{}{details}",
            record::fingerprinted(&work.session.catalog, reads, &self.details)
        )
    }
}
