//! The key that stands in for one that a new parent will get.

use pgrx::prelude::*;

use super::column_expressions::ColumnExpression;
use crate::catalog::{Column, Table};
use crate::plan::Overlays;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::Session;

/// Bytes that a row needs at least: a line pointer and its header (storage/itemid.h, access/htup_details.h).
const SMALLEST_ROW: usize = 28;

/// For a row that gets a parent of its own: a key that no parent has, told from the row, to stand in for the one that it will get.
pub(super) fn placeholder_key<'a>(
    session: &Session,
    table: &Table,
    parent: &Table,
    key: &'a Column,
    overlays: &Overlays,
    problems: &mut Problems,
) -> Option<ColumnExpression<'a>> {
    let catalog = &session.catalog;
    let own: Vec<&Column> = match table.primary_key() {
        Some(own) => own.columns.iter().filter_map(|c| table.column(*c)).collect(),
        None => {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                    format!(
                        "{} has no primary key, by which its rows are told apart",
                        catalog.display(table)
                    ),
                )
                .hint("add one, or name in match what a parent is found by"),
            );
            return None;
        }
    };
    let (base, _) = catalog.base_type(key.type_oid, -1)?;
    let text: Vec<String> = own
        .iter()
        .map(|c| catalog.text_sql(&format!("t.{}", c.sql()), c.type_oid))
        .collect();
    let hash = format!(
        "pg_catalog.md5(pg_catalog.jsonb_build_array('mend', {}, {})::pg_catalog.text)",
        table.oid,
        text.join(", ")
    );
    let integer = |c: &Column| {
        catalog
            .base_type(c.type_oid, -1)
            .is_some_and(|(b, _)| b.integer_range().is_some())
    };
    let sql = match (base.category, base.name.as_str(), own.as_slice()) {
        (_, "uuid", _) => format!("{hash}::pg_catalog.uuid"),
        _ if base.is_string() => format!("{hash}::{}", base.sql()),
        // Where the row is stored, as a number: less than the rows that fit into the table. Not across partitions.
        ('N', ..) if table.kind == 'r' => format!(
            "((SELECT COALESCE(pg_catalog.max(p.{}), 0) FROM {} AS p)::pg_catalog.numeric \
             + (t.ctid::pg_catalog.text::pg_catalog.point)[0]::pg_catalog.numeric \
             * pg_catalog.div(pg_catalog.current_setting('block_size')::pg_catalog.numeric, {SMALLEST_ROW}::pg_catalog.numeric) \
             + (t.ctid::pg_catalog.text::pg_catalog.point)[1]::pg_catalog.numeric)::{}",
            key.sql(),
            overlays.relation_sql(parent),
            base.sql(),
        ),
        ('N', _, [one]) if integer(one) => format!(
            "((SELECT COALESCE(pg_catalog.max(p.{}), 0) FROM {} AS p)::pg_catalog.numeric + t.{own}::pg_catalog.numeric \
             - (SELECT pg_catalog.min(c.{own}) FROM {} AS c) + 1)::{}",
            key.sql(),
            overlays.relation_sql(parent),
            table.sql(),
            base.sql(),
            own = one.sql(),
        ),
        _ => {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!(
                        "pg_mend cannot predict a new key of {} for each row of {}",
                        catalog.display(parent),
                        catalog.display(table)
                    ),
                )
                .detail("it can for uuid and text keys; for numeric keys only if the table has no partitions, or has an integer primary key")
                .hint("name in match what a parent is found by"),
            );
            return None;
        }
    };
    Some(ColumnExpression {
        column: key,
        expression: "one for each row".into(),
        sql,
        type_oid: base.oid,
        misfit: None,
        tree: None,
    })
}
