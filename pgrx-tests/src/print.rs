//! Query results as tables for people, the way psql prints them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use postgres::{Client, SimpleQueryMessage};

/// Runs `sql` and returns its rows as a table; numbers to the right, NULL empty.
pub fn table(client: &mut Client, sql: &str) -> Result<String, postgres::Error> {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled);
    let mut numeric: Vec<bool> = Vec::new();
    for message in client.simple_query(sql)? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                table.set_header(columns.iter().map(|c| c.name().to_string()));
                numeric = vec![true; columns.len()];
            }
            SimpleQueryMessage::Row(row) => {
                let cells: Vec<String> = (0..row.len()).map(|i| row.get(i).unwrap_or("").to_string()).collect();
                for (flag, cell) in numeric.iter_mut().zip(&cells) {
                    *flag &= cell.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-');
                }
                table.add_row(cells);
            }
            _ => {}
        }
    }
    for (i, is_number) in numeric.into_iter().enumerate() {
        if is_number && let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table.to_string())
}
