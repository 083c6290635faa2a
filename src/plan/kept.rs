//! Rows that were recorded by their primary key (see `Table::row_key_sql`), found again; values that were recorded as text.

use super::expression::equal;
use crate::catalog::{Catalog, Column, Table};
use crate::identifier::Literal;

/// The values of the primary key in `json` are those of the row `alias`.
pub fn key_conditions(catalog: &Catalog, table: &Table, alias: &str, json: &str) -> Vec<String> {
    let key = table.primary_key().map(|key| key.columns.clone()).unwrap_or_default();
    key.iter()
        .filter_map(|c| table.column(*c))
        .map(|c| {
            let own = format!("{alias}.{}", c.sql());
            equal(catalog, &own, c.type_oid, &old_value(catalog, c, json))
        })
        .collect()
}

/// The value of a column that is kept as text in `json`.
pub fn old_value(catalog: &Catalog, column: &Column, json: &str) -> String {
    let type_sql = catalog.type_of(column.type_oid).map(|t| t.sql()).unwrap_or_default();
    format!("({json} ->> {})::{type_sql}", Literal::new(&column.name))
}
