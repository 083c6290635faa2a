//! What of a reset was put back, and what goes with it.

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use crate::identifier::Literal;
use crate::plan::Tally;
use crate::problem::Problem;
use crate::run::settings;

/// One table whose rows were kept, or one column whose values were.
pub struct Restored {
    /// With its schema.
    pub table: String,
    /// The column whose values were kept; `None`: whole rows.
    pub column: Option<String>,
    /// Rows that were kept and are not put back yet.
    pub total: i64,
    /// Rows that were put back, or would be.
    pub restored: i64,
    /// Rows left out, by reason.
    pub reasons: Tally,
    /// Of a real run.
    pub run_id: Option<i64>,
}

/// Sequences behind the columns go on where the rows end.
///
/// Errors: those of SPI.
pub fn advance_sequences(table: &str, columns: &[String]) -> Result<(), Problem> {
    for name in columns {
        // Only of integers: of other types the cast to a number may be somebody's own.
        let owned = format!(
            "SELECT pg_catalog.pg_get_serial_sequence({table}, {name}) FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = pg_catalog.to_regclass({table}) AND a.attname = {name} AND a.atttypid IN (20, 21, 23)",
            table = Literal::new(table),
            name = Literal::new(name)
        );
        let _settings = settings(false);
        let owned = Spi::connect(|client| {
            let found = client.select(&owned, None, &[])?;
            match found.is_empty() {
                true => Ok(None),
                false => found.first().get_one::<String>(),
            }
        })?;
        if let Some(owned) = owned {
            let sql = format!(
                "SELECT pg_catalog.setval({sequence}::pg_catalog.regclass, m.largest) FROM (SELECT pg_catalog.max(t.{column})::pg_catalog.int8 AS largest FROM {table} AS t) AS m
                 WHERE m.largest > COALESCE(pg_catalog.pg_sequence_last_value({sequence}::pg_catalog.regclass), 0)",
                sequence = Literal::new(&owned),
                column = quote_identifier(name),
            );
            Spi::connect_mut(|client| client.update(&sql, None, &[]).map(|_| ()))?;
        }
    }
    Ok(())
}
