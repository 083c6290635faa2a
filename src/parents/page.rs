//! A page of rows: so many that can be linked, by their keys.

use pgrx::prelude::*;

use super::execute::PreparedParents;
use crate::catalog::{Column, texts_can_be_read};
use crate::pg::Settings;
use crate::plan::expression::indent;
use crate::plan::{Blueprint, Extra, Moment, RowSet, Statement};
use crate::problem::Problem;
use crate::run::{query, settings};

/// How many rows a page may have: their keys are part of the statement.
const MOST_ROWS: i64 = 100_000;

impl PreparedParents<'_> {
    /// Of the rows that can be linked, the first `most` (in the order of the primary key) are this page. By their keys: what the rows
    /// behind them are decides about these as well (a unique index), so that a mere boundary would let more through.
    pub(super) fn limit(&mut self, most: i64) -> Result<(), Problem> {
        let table = self.identity.table;
        if !(1..=MOST_ROWS).contains(&most) {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("max_rows must be between 1 and {MOST_ROWS}"),
            )
            .hint("leave it out to link all rows"));
        }
        let Some(key) = table.primary_key() else {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                format!(
                    "{} has no primary key, by which a page is told",
                    self.session.catalog.display(table)
                ),
            )
            .hint("leave max_rows out to link all rows"));
        };
        for column in key.columns.iter().filter_map(|c| table.column(*c)) {
            texts_can_be_read(&self.session.catalog, column)?;
        }
        let (overlays, _) = self.overlays();
        let page = Blueprint {
            overlays: overlays.clone(),
            ..self.plain.clone()
        };
        let columns: Vec<String> = key.columns.iter().map(|c| format!("classified.column_{c}")).collect();
        let own: Vec<&Column> = key.columns.iter().filter_map(|c| table.column(*c)).collect();
        let catalog = &self.session.catalog;
        let texts: Vec<String> = columns
            .iter()
            .zip(&own)
            .map(|(sql, column)| catalog.text_sql(sql, column.type_oid))
            .collect();
        let first = Statement::new(format!(
            "SELECT ARRAY[{}] AS key\nFROM (\n{}\n) AS classified",
            texts.join(", "),
            indent(&page.classification(Moment::Before, Extra::Columns), 2),
        ))
        .filter("classified.outcome = 'filled'")
        .ending(format!("ORDER BY {}\nLIMIT {most}", columns.join(", ")));
        let statement = self.reading(&overlays, first);
        let _settings = settings(true);
        let _joins = Settings::push(&[("enable_nestloop", "off")]);
        let keys = self.reader().run(|| query::lists(&statement))?;
        let keys: Vec<Vec<String>> = keys
            .into_iter()
            .map(|key| key.into_iter().map(Option::unwrap_or_default).collect())
            .collect();
        self.limited = Some(keys.len() as i64);
        self.page.rows = RowSet::Keys {
            columns: own.iter().map(|c| c.number).collect(),
            keys,
        };
        Ok(())
    }
}
