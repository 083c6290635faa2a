//! The columns of a table as they are now, by its name: also of one that the catalog of the call does not know yet.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::surroundings::settings;
use crate::problem::Problem;

/// Columns as `name type`, and the names of those that can be written.
pub type Columns = (Vec<String>, Vec<String>);

/// The table's columns now.
///
/// Errors: those of SPI.
pub fn columns_now(table: &str) -> Result<Option<Columns>, Problem> {
    let sql = "SELECT pg_catalog.concat_ws(' ', pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod)), a.attname::pg_catalog.text, a.attgenerated = ''
               FROM pg_catalog.pg_attribute a WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let _settings = settings(false);
    let columns = Spi::connect(|client| {
        let mut all = Vec::new();
        for row in client.select(sql, None, &[table.into()])? {
            all.push((
                row.get::<String>(1)?.unwrap_or_default(),
                row.get::<String>(2)?.unwrap_or_default(),
                row.get::<bool>(3)?.unwrap_or(false),
            ));
        }
        Ok::<_, SpiError>(all)
    })?;
    if columns.is_empty() {
        return Ok(None);
    }
    let written = columns
        .iter()
        .filter(|(_, _, writable)| *writable)
        .map(|(_, name, _)| name.clone());
    let written = written.collect();
    Ok(Some((columns.into_iter().map(|(shown, ..)| shown).collect(), written)))
}
