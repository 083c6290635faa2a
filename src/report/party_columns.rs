//! Party columns next to the legacy columns they replace, and how many values have been migrated.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use crate::catalog::{Catalog, Column, Table};
use crate::infer::party;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::{Session, readable};
use crate::validate::reading;

/// A column that references a party, with the columns that did before.
pub(super) struct MigratedColumn<'a> {
    pub table: &'a Table,
    pub column: &'a Column,
    pub legacy: Vec<&'a Column>,
}

/// Columns that reference a party, and what they are filled from.
pub(super) fn migrated_columns<'a>(catalog: &'a Catalog, party: &Table) -> Result<Vec<MigratedColumn<'a>>, Problem> {
    let mut found = Vec::new();
    for column in party::columns(catalog, party)? {
        let Some(table) = catalog.table(column.table) else {
            continue;
        };
        let Some(to_fill) = table.column(column.column) else {
            continue;
        };
        let mut legacy: Vec<&Column> = Vec::new();
        for source in column.sources.iter().flatten().filter(|s| !s.hops.is_empty()) {
            for start in source.columns().into_iter().filter_map(|c| table.column(c)) {
                if !legacy.iter().any(|c| c.number == start.number) {
                    legacy.push(start);
                }
            }
        }
        found.push(MigratedColumn {
            table,
            column: to_fill,
            legacy,
        });
    }
    Ok(found)
}

/// Of one such column: rows, rows without a party, those of them with a legacy value, and per legacy column rows with a value.
pub(super) struct MigratedCounts {
    pub rows: i64,
    pub nulls: i64,
    pub left_behind: i64,
    pub legacy: Vec<i64>,
}

pub(super) fn count(session: &Session, migrated_columns: &[MigratedColumn]) -> Result<Vec<MigratedCounts>, Problem> {
    let mut problems = Problems::default();
    for of in migrated_columns {
        let mut columns: Vec<i16> = of.legacy.iter().map(|c| c.number).collect();
        columns.push(of.column.number);
        readable(session, of.table, &columns, false, &mut problems);
    }
    problems.into_result()?;
    session.hold(migrated_columns.iter().map(|of| of.table.oid))?;
    let _settings = reading();
    let mut counted = Vec::new();
    for of in migrated_columns {
        pgrx::check_for_interrupts!();
        let is = of.column.sql();
        let mut numbers = vec![
            "pg_catalog.count(*)".to_string(),
            format!("pg_catalog.count(*) FILTER (WHERE t.{is} IS NULL)"),
        ];
        let set: Vec<String> = of.legacy.iter().map(|c| format!("t.{} IS NOT NULL", c.sql())).collect();
        numbers.push(match set.is_empty() {
            true => "0::int8".into(),
            false => format!(
                "pg_catalog.count(*) FILTER (WHERE t.{is} IS NULL AND ({}))",
                set.join(" OR ")
            ),
        });
        numbers.extend(of.legacy.iter().map(|c| format!("pg_catalog.count(t.{})", c.sql())));
        let sql = format!("SELECT {} FROM {} AS t", numbers.join(", "), of.table.relation_sql());
        let row = Spi::connect(|client| {
            let row = client.select(&sql, None, &[])?.first();
            (1..=numbers.len())
                .map(|i| row.get::<i64>(i).map(Option::unwrap_or_default))
                .collect::<Result<Vec<i64>, SpiError>>()
        })?;
        counted.push(MigratedCounts {
            rows: row[0],
            nulls: row[1],
            left_behind: row[2],
            legacy: row[3..].to_vec(),
        });
    }
    Ok(counted)
}
