//! Values of a column that a reset has dropped: put back by the primary keys of their rows, once the column is there again.

use pgrx::prelude::*;
use pgrx::spi::{SpiError, quote_identifier};
use serde_json::json;

use super::restored::{Restored, advance_sequences};
use crate::catalog::{Column, Table, is_plain, texts_can_be_read};
use crate::identifier::Literal;
use crate::plan::kept::{from_text, keeping_each, text_of};
use crate::plan::program::{Keep, Program, Progress, Reading, Step, Surroundings, Verdict, Verify, Write};
use crate::plan::{Mode, Reason, Statement, Tally};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::current_columns::columns_now;
use crate::run::in_one_time_zone;
use crate::run::interpret;
use crate::run::record::{self, Record};
use crate::run::{Session, query, readable, settings, updatable};

/// Values of one column that were copied by one run, and are not back yet.
#[derive(Debug, Clone)]
pub struct Group {
    /// With its schema, quoted where needed.
    table: String,
    column: String,
    /// As `format_type` writes it.
    type_name: String,
    total: i64,
}

/// What a run copied, by column.
///
/// Errors: those of SPI.
pub fn kept(id: i64) -> Result<Vec<Group>, Problem> {
    let _settings = settings(false);
    let sql = "SELECT table_name, column_name, column_type, pg_catalog.count(*) FROM mend.reset_values
               WHERE run_id = $1 AND restored_by IS NULL AND run_by = CURRENT_USER GROUP BY 1, 2, 3 ORDER BY 1, 2";
    Ok(Spi::connect(|client| {
        let mut found = Vec::new();
        for row in client.select(sql, None, &[id.into()])? {
            let text = |column: usize| Ok::<_, SpiError>(row.get::<String>(column)?.unwrap_or_default());
            found.push(Group {
                table: text(1)?,
                column: text(2)?,
                type_name: text(3)?,
                total: row.get::<i64>(4)?.unwrap_or(0),
            });
        }
        Ok::<_, SpiError>(found)
    })?)
}

/// Does one of these tables reference the column?
pub fn is_referenced(session: &Session, group: &Group, tables: &[String]) -> bool {
    let catalog = &session.catalog;
    let Ok(parent) = catalog.resolve_table(&group.table) else {
        return false;
    };
    let Some(column) = parent.column_named(&group.column) else {
        return false;
    };
    tables
        .iter()
        .filter_map(|name| catalog.resolve_table(name).ok())
        .any(|table| {
            catalog
                .foreign_keys_of(table.oid)
                .any(|key| key.parent == parent.oid && key.parent_columns.contains(&column.number))
        })
}

/// Puts values back where the column is NULL, its default, or still what ADD COLUMN made it; or counts them.
///
/// * `overwrite`: whatever the column is now.
///
/// Errors: 42501; 40001 where rows change meanwhile; whatever constraints and triggers raise. Nothing is put back then.
pub fn put_back(session: &Session, id: i64, group: Group, overwrite: bool, mode: Mode) -> Result<Restored, Problem> {
    let nothing = |reason: Reason| Restored {
        table: group.table.clone(),
        column: Some(group.column.clone()),
        total: group.total,
        restored: 0,
        reasons: [(reason, group.total)].into_iter().collect(),
        run_id: None,
    };
    let Some((now, _)) = columns_now(&group.table)? else {
        return Ok(nothing(Reason::TableMissing));
    };
    let Ok(table) = session.catalog.resolve_table(&group.table) else {
        return Ok(nothing(Reason::TableMissing));
    };
    let Some(column) = table.column_named(&group.column) else {
        return Ok(nothing(Reason::ColumnMissing));
    };
    if !now.contains(&format!("{} {}", quote_identifier(&group.column), group.type_name)) || column.generated {
        return Ok(nothing(Reason::ColumnsDiffer));
    }
    if table.primary_key().is_none() {
        return Ok(nothing(Reason::KeyDiffers));
    }
    if column.identity_always {
        return Ok(nothing(Reason::IdentityAlways));
    }
    may(session, table, column, mode)?;
    session.hold([table.oid])?;
    let work = ValueRestore {
        session,
        id,
        group: &group,
        table,
        column,
        overwrite,
    };
    let _settings = settings(!mode.is_real());
    let _texts = in_one_time_zone();
    let mut reasons = work.count()?;
    let mut restored = Restored {
        restored: reasons.take(&Reason::Restored),
        reasons,
        ..nothing(Reason::Restored)
    };
    if mode.is_real() && restored.restored > 0 {
        restored.run_id = Some(work.write(&restored)?);
    }
    Ok(restored)
}

fn may(session: &Session, table: &Table, column: &Column, mode: Mode) -> Result<(), Problem> {
    let mut problems = Problems::default();
    let all: Vec<i16> = table.columns.iter().map(|c| c.number).collect();
    readable(session, table, &all, false, &mut problems);
    problems.keep(texts_can_be_read(&session.catalog, column));
    if mode.is_real() {
        updatable(session, table, column, &mut problems);
    }
    problems.into_result()
}

struct ValueRestore<'a> {
    session: &'a Session,
    id: i64,
    group: &'a Group,
    table: &'a Table,
    column: &'a Column,
    overwrite: bool,
}

impl ValueRestore<'_> {
    fn name(&self) -> String {
        record::qualified(self.table)
    }

    fn of_run(&self) -> String {
        format!(
            "kept.run_id = {} AND kept.table_name = {} AND kept.column_name = {} AND kept.restored_by IS NULL AND kept.run_by = CURRENT_USER",
            self.id,
            Literal::new(&self.group.table),
            Literal::new(&self.group.column)
        )
    }

    /// Keys are compared as they were written: whatever their type, the same row writes the same.
    fn keys(&self) -> String {
        let all = self.table.primary_key_columns().into_iter();
        let same = all.map(|c| {
            let own = text_of(&format!("t.{}", c.sql()));
            format!("{own} = (kept.row_key ->> {})", Literal::new(&c.name))
        });
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// The value, by the type's input function.
    fn value(&self) -> String {
        from_text(&self.session.catalog, self.column, "kept.old_value")
    }

    /// The row has its value (again).
    fn same(&self) -> String {
        let value = format!("t.{}", self.column.sql());
        format!(
            "({value} IS DISTINCT FROM NULL AND {} = kept.old_value)",
            text_of(&value)
        )
    }

    /// Nobody has given it another one: it is NULL, its default, or what ADD COLUMN gave to the rows that were there.
    fn free(&self) -> Result<String, Problem> {
        if self.overwrite {
            return Ok("true".into());
        }
        let value = format!("t.{}", self.column.sql());
        let mut free = format!(
            "NOT ({value} IS DISTINCT FROM NULL) OR {} = (\n    \
             SELECT (a.attmissingval::pg_catalog.text::pg_catalog.text[])[1] FROM pg_catalog.pg_attribute AS a\n    \
             WHERE a.attrelid = t.tableoid AND a.attname = {})",
            text_of(&value),
            Literal::new(&self.column.name)
        );
        if let Some(default) = self.default()? {
            free.push_str(&format!(
                "\n    OR {} = {}",
                text_of(&value),
                text_of(&format!("({default})"))
            ));
        }
        Ok(format!("({free})"))
    }

    /// Its default, where that is the same for every row. A rewrite of the table forgets what ADD COLUMN gave.
    fn default(&self) -> Result<Option<String>, Problem> {
        let sql = format!(
            "SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
             WHERE d.adrelid = $1 AND d.adnum = $2 AND d.adbin::pg_catalog.text !~ ':seqid' AND {}
               AND NOT EXISTS (SELECT FROM pg_catalog.regexp_matches(d.adbin::pg_catalog.text, ':(?:op)?funcid (\\d+)', 'g') AS called (oids)
                               JOIN pg_catalog.pg_proc p ON p.oid = called.oids[1]::pg_catalog.oid WHERE p.provolatile = 'v')",
            is_plain("d.adbin::pg_catalog.text")
        );
        let arguments = [pg_sys::Oid::from(self.table.oid).into(), self.column.number.into()];
        Ok(Spi::connect(|client| {
            let found = client.select(&sql, None, &arguments)?;
            match found.is_empty() {
                true => Ok(None),
                false => found.first().get_one::<String>(),
            }
        })?)
    }

    fn count(&self) -> Result<Tally, Problem> {
        let names: Vec<String> = self
            .table
            .primary_key()
            .map(|key| self.table.names_of(&key.columns))
            .unwrap_or_default()
            .into_iter()
            .map(|name| Literal::new(name).to_string())
            .collect();
        let first = self
            .table
            .primary_key()
            .and_then(|key| self.table.column(key.columns[0]));
        let gone = first.map_or("false".into(), |c| format!("t.{} IS NOT DISTINCT FROM NULL", c.sql()));
        let sql = format!(
            "SELECT outcome, pg_catalog.count(*)\nFROM (\n  SELECT CASE\n    \
             WHEN NOT kept.row_key OPERATOR(pg_catalog.?&) ARRAY[{}]\n      OR (SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_object_keys(kept.row_key)) <> {} THEN 'key_differs'\n    \
             WHEN {gone} THEN 'row_is_gone'\n    WHEN {} OR {} THEN 'restored'\n    ELSE 'changed_since' END AS outcome\n  \
             FROM mend.reset_values AS kept\n  LEFT JOIN {} AS t ON {}\n  WHERE {}\n) AS judged\nGROUP BY outcome",
            names.join(", "),
            names.len(),
            self.same(),
            self.free()?,
            self.name(),
            self.keys(),
            self.of_run()
        );
        query::tally(&Statement::new(sql))
    }

    fn write(&self, counted: &Restored) -> Result<i64, Problem> {
        let update = Statement::new(format!(
            "UPDATE {} AS t SET {} = {}\nFROM mend.reset_values AS kept",
            self.name(),
            self.column.sql(),
            self.value(),
        ))
        .filter(self.keys())
        .filter(self.of_run())
        .filter(format!("NOT ({})", self.same()))
        .filter(self.free()?);
        let review = update.for_review();
        let update = update.under_callers_settings(&self.session.caller.with_exact_texts());
        // What is marked is what is there: a row that a trigger keeps from its value is none.
        let back = Statement::new(format!(
            "SELECT DISTINCT kept.change_id AS row_key FROM mend.reset_values AS kept, {} AS t",
            self.name()
        ))
        .filter(self.keys())
        .filter(self.of_run())
        .filter(self.same());
        let back = keeping_each(back, &["row_key"]);
        let (expected, table) = (counted.restored, self.table);
        let judge = move |progress: &Progress| match progress.last() {
            marked if marked == expected => Verdict::Proved,
            marked => Verdict::Wrong(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                    format!(
                        "{marked} rows of {} have their values again, {expected} were to get them",
                        record::qualified(table)
                    ),
                )
                .detail("somebody changed rows meanwhile, or a trigger did; nothing was put back")
                .hint("run it again, or ALTER TABLE ... DISABLE TRIGGER ... for the run, in the same transaction"),
            ),
        };
        let program = Program {
            operation: "restore_reset",
            object: self.name(),
            lock: Some(table),
            surroundings: Surroundings::default(),
            steps: vec![
                Step::Write(Write::once("put back", table, Keep::Nothing, update)),
                Step::Write(Write::once("back", table, Keep::Undone, back)),
                Step::Verify(Verify::new("marked", |_| Reading::Nothing, judge)),
            ],
        };
        let (run, ()) = interpret::run(self.session, program, |_| {
            advance_sequences(&self.name(), std::slice::from_ref(&self.column.name))?;
            let record = Record {
                table: self.name(),
                column: self.column.name.clone(),
                rule: json!({ "run_id": self.id, "overwrite": self.overwrite }),
                statement: review,
                counts: (0, expected, counted.reasons.to_json(), counted.total - expected),
                note: None,
                fingerprint: self.group.type_name.clone(),
            };
            Ok(((), record))
        })?;
        Ok(run)
    }
}
