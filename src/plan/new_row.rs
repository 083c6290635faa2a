//! A row as it would be after a write, for the expressions that decide whether it is accepted.

use crate::catalog::{Column, Table};

/// `expression` (bare column names) evaluated on the row `t` as it would be.
///
/// * `generated`: generated columns with their expressions; they are computed anew.
/// * `new_value`: what is written to a column; `None`: it stays what it is.
/// * `columns`: those that the expression reads; none: all.
pub fn in_new_row(
    table: &Table,
    generated: &[(i16, String)],
    new_value: &dyn Fn(&Column) -> Option<String>,
    expression: &str,
    columns: &[i16],
) -> String {
    let generated: Vec<&(i16, String)> = generated
        .iter()
        .filter(|(n, _)| columns.is_empty() || columns.contains(n))
        .collect();
    let wanted = |n: i16| columns.is_empty() || columns.contains(&n) || !generated.is_empty();
    let stored = table
        .columns
        .iter()
        .filter(|c| !c.generated && wanted(c.number))
        .map(|c| {
            let value = new_value(c).unwrap_or_else(|| format!("t.{}", c.sql()));
            format!("{value} AS {}", c.sql())
        });
    let mut row = format!("(SELECT {}) AS new_row", stored.collect::<Vec<_>>().join(", "));
    if !generated.is_empty() {
        let computed: Vec<String> = generated
            .iter()
            .filter_map(|(n, expression)| table.column(*n).map(|c| format!("({expression}) AS {}", c.sql())))
            .collect();
        row = format!("(SELECT new_row.*, {} FROM {row}) AS new_row", computed.join(", "));
    }
    format!("(SELECT {expression} FROM {row})")
}
