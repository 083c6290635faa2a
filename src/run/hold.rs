//! Locks relations and checks that they are still the ones found in the catalog.
//!
//! The catalog is read first; statements that name what it says come later, and look names up anew. Meanwhile an owner could put a view
//! in the place of a table, and whoever reads it would run the view's code. So tables are locked by their ids before they are named, as
//! any SELECT locks them, and compared with what was found: from then on nobody can drop, rename or alter them.

use std::collections::HashSet;

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
    /// Locks tables (by their ids) as a SELECT does, until the end of the transaction. Statements name the types of their columns as well:
    /// those cannot be locked, but are compared behind the locks, so that nobody can make us wait and rename them meanwhile.
    ///
    /// Errors: 40001 where one of them is not what the catalog says any more.
    pub fn hold(&self, tables: impl IntoIterator<Item = u32>) -> Result<(), Problem> {
        let mut oids: Vec<u32> = tables.into_iter().collect();
        oids.sort_unstable();
        oids.dedup();
        {
            // What is locked stays as it is, until a rollback gives the locks back.
            let mut held = self.held.borrow_mut();
            if held.0 != pg::rollbacks() {
                *held = (pg::rollbacks(), HashSet::new());
            }
            oids.retain(|oid| !held.1.contains(oid));
        }
        if oids.is_empty() {
            return Ok(());
        }
        let tables: Vec<&Table> = oids.iter().filter_map(|oid| self.catalog.table(*oid)).collect();
        let found: Vec<Found> = tables.iter().map(|table| Found::table(table)).collect();
        hold(&found)?;
        // What a view reads is in its rule by its id: nobody can put something else in its place.
        let mut read: Vec<u32> = vec![];
        let mut next: Vec<u32> = tables.iter().flat_map(|table| table.reads.iter().copied()).collect();
        while let Some(oid) = next.pop() {
            if !read.contains(&oid) {
                read.push(oid);
                next.extend(
                    self.catalog
                        .table(oid)
                        .iter()
                        .flat_map(|table| table.reads.iter().copied()),
                );
            }
        }
        pg::may_read(read);
        let columns = tables.iter().flat_map(|table| &table.columns);
        let types = columns.flat_map(|column| {
            let base = self.catalog.base_type(column.type_oid, -1).map(|(base, _)| base);
            self.catalog.type_of(column.type_oid).into_iter().chain(base)
        });
        let mut types: Vec<(u32, &str, &str)> = types
            .filter(|of_column| !of_column.is_built_in())
            .map(|of_column| (of_column.oid, of_column.schema.as_str(), of_column.name.as_str()))
            .collect();
        types.sort_unstable();
        types.dedup();
        same_types(&types)?;
        self.held.borrow_mut().1.extend(oids);
        Ok(())
    }
}

/// Types are called what they were called.
///
/// Errors: 40001 where one is not.
fn same_types(types: &[(u32, &str, &str)]) -> Result<(), Problem> {
    if types.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = types
        .iter()
        .map(|(oid, schema, name)| json!({"oid": oid, "schema": schema, "name": name}))
        .collect();
    let sql = "
SELECT string_agg(f.schema || '.' || f.name, ', ')
FROM jsonb_to_recordset($1::jsonb) AS f (oid oid, schema text, name text)
LEFT JOIN pg_type t ON t.oid = f.oid
LEFT JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE (n.nspname::text, t.typname::text) IS DISTINCT FROM (f.schema, f.name)";
    let _latest = Instant::latest();
    let changed = pg::read_row(sql, &[serde_json::Value::Array(list).to_string()])?;
    match changed.into_iter().next().flatten() {
        None => Ok(()),
        Some(changed) => Err(not_the_same(&changed)),
    }
}

fn not_the_same(changed: &str) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("{changed} was changed by another session during this call"),
    )
    .detail("a table, its columns, their types or its owner are not what they were when the call began")
    .hint("run it again")
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
        None => {
            pg::may_read(found.iter().map(|relation| relation.oid));
            Ok(())
        }
        Some(changed) => Err(not_the_same(&changed)),
    }
}
