//! Values of a column that is dropped: copied by the primary keys of their rows.

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use crate::identifier::Literal;
use crate::pg;
use crate::plan::Statement;
use crate::plan::kept::{Change, json_object, keeping_each, text_of};
use crate::plan::program::{Keep, Progress, Reading, Step, Verdict, Verify, Write};
use crate::problem::Problem;
use crate::run::Session;
use crate::run::record;

/// Copies the values of a column to `mend.reset_values`, or nothing where the table has no primary key.
///
/// * `type_name`: as `format_type` writes it.
///
/// Errors of the steps: 55000 where the primary key does not tell all of its rows apart.
pub fn copying<'p>(session: &'p Session, oid: u32, column: &'p str, type_name: &str) -> Vec<Step<'p>> {
    let Some(table) = session.catalog.table(oid).filter(|t| t.primary_key().is_some()) else {
        return vec![];
    };
    // It is locked, and was looked at again since.
    pg::may_read([table.oid]);
    let name = record::qualified(table);
    let value = format!("t.{}", quote_identifier(column));
    let keys = table.primary_key_columns().into_iter();
    let kept = Statement::new(format!(
        "SELECT {} AS row_key, pg_catalog.jsonb_build_object({}, {}) AS old_values\nFROM {name} AS t",
        json_object(keys.map(|c| (c, text_of(&format!("t.{}", c.sql()))))),
        Literal::new(column),
        text_of(&value),
    ))
    .filter(format!("{value} IS DISTINCT FROM NULL"));
    let statement = keeping_each(kept, &["row_key", "old_values"]);
    let keep = Keep::Changes {
        change: Change::ValueDropped,
        columns: Some(vec![column.to_string(), type_name.to_string()]),
    };
    let keys = {
        let name = name.clone();
        move |progress: &Progress| {
            let count = "SELECT pg_catalog.count(DISTINCT row_key) FROM mend.reset_values";
            let count = Statement::new(count)
                .filter(format!("run_id = {}", progress.run))
                .filter(format!("table_name = {}", Literal::new(&name)))
                .filter(format!("column_name = {}", Literal::new(column)));
            Reading::Numbers(count)
        }
    };
    let judge = move |progress: &Progress| {
        let (written, keys) = (progress.last(), progress.found.numbers[0]);
        match keys == written {
            true => Verdict::Proved,
            false => Verdict::Wrong(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("{written} values of {name} have {keys} keys"),
                )
                .detail("tables inherit from it, and the primary key holds for each of them alone; nothing was dropped")
                .hint(format!("leave the column out of include: {}", quote_identifier(column))),
            ),
        }
    };
    vec![
        Step::Write(Write::once("copy", table, keep, statement)),
        Step::Verify(Verify::new("keys", keys, judge)),
    ]
}
