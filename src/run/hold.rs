//! Tables stay what they were found to be while statements name them.
//!
//! The catalog is read first; statements that name what it says come later, and look names up anew. Meanwhile an owner could put a view
//! in the place of a table, and whoever reads it would run the view's code. So tables are locked by their ids before they are named, as
//! any SELECT locks them, and compared with what was found: from then on nobody can drop, rename or alter them.

use pgrx::prelude::*;
use serde_json::json;

use super::session::Session;
use crate::catalog::Table;
use crate::pg::{self, Instant};
use crate::problem::Problem;

/// A relation as it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// pg_class.oid
    pub oid: u32,
    /// `schema|name|kind`, for a table of the catalog also `|owner|number:type,...` of its columns.
    pub signature: String,
}

impl Found {
    /// By its name and kind alone.
    pub fn named(oid: u32, schema: &str, name: &str, kind: char) -> Found {
        Found {
            oid,
            signature: format!("{schema}|{name}|{kind}"),
        }
    }

    fn table(table: &Table) -> Found {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|c| format!("{}:{}", c.number, c.type_oid))
            .collect();
        Found {
            oid: table.oid,
            signature: format!(
                "{}|{}|{}|{}|{}",
                table.schema,
                table.name,
                table.kind,
                table.owner,
                columns.join(",")
            ),
        }
    }
}

impl Session {
    /// Locks tables (by their ids) as a SELECT does, until the end of the transaction.
    ///
    /// Errors: 40001 where one of them is not what the catalog says any more.
    pub fn hold(&self, tables: impl IntoIterator<Item = u32>) -> Result<(), Problem> {
        let mut oids: Vec<u32> = tables.into_iter().collect();
        oids.sort_unstable();
        oids.dedup();
        let found: Vec<Found> = oids
            .iter()
            .filter_map(|oid| self.catalog.table(*oid))
            .map(Found::table)
            .collect();
        hold(&found)
    }
}

/// As [`Session::hold`].
///
/// Errors: 40001 where one of them is not what was found any more.
pub fn hold(found: &[Found]) -> Result<(), Problem> {
    if found.is_empty() {
        return Ok(());
    }
    for relation in found {
        pg::lock_for_reading(relation.oid);
    }
    let sql = "
SELECT string_agg(split_part(f.signature, '|', 1) || '.' || split_part(f.signature, '|', 2), ', ')
FROM jsonb_to_recordset($1::jsonb) AS f (oid oid, signature text)
LEFT JOIN pg_class c ON c.oid = f.oid
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE f.signature IS DISTINCT FROM concat_ws('|', n.nspname, c.relname, c.relkind)
  AND f.signature IS DISTINCT FROM concat_ws('|', n.nspname, c.relname, c.relkind, c.relowner, coalesce((
        SELECT string_agg(a.attnum || ':' || a.atttypid, ',' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), ''))";
    let list: Vec<_> = found
        .iter()
        .map(|f| json!({"oid": f.oid, "signature": f.signature}))
        .collect();
    // As it is now, also in a transaction that keeps its first snapshot.
    let _latest = Instant::latest();
    let changed = pg::read_row(sql, &[serde_json::Value::Array(list).to_string()])?;
    match changed.into_iter().next().flatten() {
        None => Ok(()),
        Some(changed) => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("{changed} changed while pg_mend was looking at it"),
        )
        .detail("the table, its columns or its owner are not what they were when the call began")
        .hint("run it again")),
    }
}
