//! `dead_columns`: columns that are NULL in every row and that nothing in the database uses.
//!
//! First the data: a look at the first rows of a table sorts most columns out, one scan counts the rest. Then who uses
//! them: what Postgres records as dependent on the column (foreign keys, indexes, views, policies, defaults, triggers,
//! generated columns, function bodies of the SQL standard), and function bodies of text that name both the column and its
//! table, take its rows, or are its triggers. A column of a table without rows is not dead: nothing was checked.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use crate::catalog::{Column, Table};
use crate::identifier::Literal;
use crate::names::nearest;
use crate::pg::Settings;
use crate::problem::Problem;
use crate::run::Session;

/// Rows that are looked at before a column is worth counting.
const FIRST_ROWS: usize = 1000;

/// What was found about one column, or why a table was not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadColumn {
    /// As displayed.
    pub table: String,
    /// The bare name; `None` where the table was not checked.
    pub column: Option<String>,
    /// As Postgres writes it.
    pub data_type: Option<String>,
    /// `dead`, `used`, `not_checked`.
    pub verdict: &'static str,
    /// Rows that were read, all NULL.
    pub rows_checked: Option<i64>,
    /// What still uses it.
    pub used_by: Vec<String>,
    /// What was looked at, in words; or why nothing was.
    pub checked: String,
    /// For a dead one: what drops it if it still is empty then.
    pub statement: Option<String>,
}

/// A column that is NULL in every row.
struct Empty<'a> {
    table: &'a Table,
    column: &'a Column,
    rows: i64,
}

/// Looks at all tables of `schema` (`None`: of all schemas but the system's).
///
/// Errors: 3F000 with the nearest names.
pub fn dead_columns(session: &Session, schema: Option<&str>) -> Result<Vec<DeadColumn>, Problem> {
    let catalog = &session.catalog;
    if let Some(name) = schema.filter(|name| !catalog.tables.iter().any(|t| t.schema == **name)) {
        return Err(no_schema(session, name));
    }
    let inherited = inherited_columns()?;
    let mut empty: Vec<Empty> = Vec::new();
    let mut result: Vec<DeadColumn> = Vec::new();
    let tables = catalog
        .tables
        .iter()
        .filter(|t| t.is_table() && !t.is_partition && !t.of_extension);
    let tables: Vec<&Table> = tables
        .filter(|t| schema.is_none_or(|schema| t.schema == schema))
        .collect();
    // All at once: one by one it takes longer.
    let readable = |t: &&&Table| t.may_use_schema && t.may_select && !t.row_security_active;
    session.hold(tables.iter().filter(readable).map(|table| table.oid))?;
    for table in tables {
        pgrx::check_for_interrupts!();
        let columns: Vec<&Column> = table
            .columns
            .iter()
            .filter(|c| !c.not_null && !c.generated && !inherited.contains(&(table.oid, c.number)))
            .collect();
        if columns.is_empty() {
            continue;
        }
        match empty_columns(session, table, &columns)? {
            Ok((rows, found)) => empty.extend(found.into_iter().map(|column| Empty { table, column, rows })),
            Err(why) => result.push(DeadColumn {
                table: catalog.display(table),
                column: None,
                data_type: None,
                verdict: "not_checked",
                rows_checked: None,
                used_by: vec![],
                checked: why,
                statement: None,
            }),
        }
    }
    let users = users(&empty)?;
    for (column, found) in empty.iter().zip(users) {
        result.push(described(session, column, found));
    }
    result.sort_by(|a, b| (&a.table, &a.column).cmp(&(&b.table, &b.column)));
    Ok(result)
}

/// The number of rows and the columns that are NULL in all of them; in words, why nothing can be said.
#[allow(clippy::type_complexity)]
fn empty_columns<'a>(
    session: &Session,
    table: &Table,
    columns: &[&'a Column],
) -> Result<Result<(i64, Vec<&'a Column>), String>, Problem> {
    let shown = session.catalog.display(table);
    if !table.may_use_schema || columns.iter().any(|c| !c.may_select) {
        return Ok(Err(format!(
            "permission denied to read {shown}: {}",
            session.grant("SELECT", &shown)
        )));
    }
    if table.row_security_active {
        return Ok(Err(format!(
            "row-level security of {shown} would hide rows from you: ask as its owner or as a role with BYPASSRLS"
        )));
    }
    session.hold([table.oid])?;
    let _settings = Settings::push(&[("row_security", "off"), ("jit", "off"), ("transaction_read_only", "on")]);
    // With its inheritance children: dropping the column drops it there too.
    let relation = table.sql();
    let any: Vec<String> = columns
        .iter()
        .map(|c| format!("pg_catalog.bool_or(t.{} IS DISTINCT FROM NULL)", c.sql()))
        .collect();
    let names: Vec<String> = columns.iter().map(|c| c.sql().to_string()).collect();
    let first = format!(
        "SELECT {}\nFROM (SELECT {} FROM {relation} LIMIT {FIRST_ROWS}) AS t",
        any.join(", "),
        names.join(", ")
    );
    let seen = Spi::connect(|client| {
        let row = client.select(&first, None, &[])?.first();
        (1..=columns.len())
            .map(|i| row.get::<bool>(i))
            .collect::<Result<Vec<_>, SpiError>>()
    })?;
    if seen.iter().all(Option::is_none) {
        return Ok(Err(format!(
            "{shown} has no rows: every column of it is empty, and that says nothing"
        )));
    }
    let left: Vec<&Column> = columns
        .iter()
        .zip(&seen)
        .filter(|(_, seen)| **seen == Some(false))
        .map(|(column, _)| *column)
        .collect();
    if left.is_empty() {
        return Ok(Ok((0, left)));
    }
    let counts: Vec<String> = left
        .iter()
        .map(|c| format!("pg_catalog.count(t.{})", c.sql()))
        .collect();
    let all = format!(
        "SELECT pg_catalog.count(*), {}\nFROM {relation} AS t",
        counts.join(", ")
    );
    let counted = Spi::connect(|client| {
        let row = client.select(&all, None, &[])?.first();
        (1..=left.len() + 1)
            .map(|i| row.get::<i64>(i))
            .collect::<Result<Vec<_>, SpiError>>()
    })?;
    let rows = counted[0].unwrap_or_default();
    let empty = left
        .iter()
        .zip(&counted[1..])
        .filter(|(_, set)| **set == Some(0))
        .map(|(column, _)| *column);
    Ok(Ok((rows, empty.collect())))
}

/// Columns that belong to a parent table: it is dropped there.
fn inherited_columns() -> Result<Vec<(u32, i16)>, Problem> {
    let sql = "SELECT attrelid, attnum FROM pg_catalog.pg_attribute WHERE attinhcount > 0 AND attnum > 0";
    Ok(Spi::connect(|client| {
        let mut found = Vec::new();
        for row in client.select(sql, None, &[])? {
            if let (Some(table), Some(column)) = (row.get::<pg_sys::Oid>(1)?, row.get::<i16>(2)?) {
                found.push((table.to_u32(), column));
            }
        }
        Ok::<_, SpiError>(found)
    })?)
}

/// What uses each column, and in how many function bodies another table's column of that name is meant.
fn users(columns: &[Empty]) -> Result<Vec<(Vec<String>, i64)>, Problem> {
    let mut found: Vec<(Vec<String>, i64)> = vec![Default::default(); columns.len()];
    let sql = r"WITH RECURSIVE asked AS (
  SELECT c.number::int4 AS number, c.relation, a.attname
  FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY AS c(relation, attribute, number)
  JOIN pg_attribute a ON a.attrelid = c.relation AND a.attnum = c.attribute
),
-- Dropping the column drops it in partitions and inheritance children as well.
family AS (
  SELECT number, relation, attname FROM asked
  UNION
  SELECT f.number, h.inhrelid, f.attname FROM family f JOIN pg_inherits h ON h.inhparent = f.relation
),
columns AS (
  SELECT f.number, f.relation, a.attnum AS attribute,
         E'(^|\\W)' || pg_catalog.regexp_replace(a.attname, E'(\\W)', E'\\\\\\1', 'g') || E'($|\\W)' AS names_column,
         E'(^|\\W)' || pg_catalog.regexp_replace(r.relname, E'(\\W)', E'\\\\\\1', 'g') || E'($|\\W)' AS names_table
  FROM family f
  JOIN pg_class r ON r.oid = f.relation
  JOIN pg_attribute a ON a.attrelid = f.relation AND a.attname = f.attname AND NOT a.attisdropped
),
dependent AS (
  SELECT c.number, d.classid, d.objid, d.objsubid, d.refobjsubid, w.ev_class AS view
  FROM columns c
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.relation AND d.refobjsubid IN (0, c.attribute)
  LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
),
recorded AS (
  SELECT d.number,
         CASE WHEN v.relkind = 'v' THEN 'view ' || v.oid::regclass::text
              WHEN v.relkind = 'm' THEN 'materialized view ' || v.oid::regclass::text
              ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
         -- A view shows stars only where it takes a row as one value.
         || CASE WHEN d.refobjsubid = 0 THEN ' (the whole row)' ELSE '' END AS used_by
  FROM dependent d
  LEFT JOIN pg_class v ON v.oid = d.view
  WHERE d.refobjsubid <> 0 OR v.relkind IN ('v', 'm') AND pg_get_viewdef(v.oid) ~ E'\\.\\*'
  UNION ALL
  SELECT c.number, 'partition key of ' || p.partrelid::regclass::text
  FROM columns c
  JOIN pg_partitioned_table p ON p.partrelid = c.relation AND c.attribute = ANY (p.partattrs::int2[])
),
bodies AS (
  SELECT p.oid, p.prosrc, p.prorettype, p.proargtypes
  FROM pg_proc p
  JOIN pg_language l ON l.oid = p.prolang
  JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE l.lanname NOT IN ('internal', 'c') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND NOT EXISTS (SELECT FROM pg_depend e
                    WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
),
named AS (
  SELECT c.number, b.oid,
         pg_catalog.bool_or(
           b.prosrc ~* c.names_table
           OR EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.relation AND g.tgfoid = b.oid)
           OR EXISTS (SELECT FROM pg_type t
                      WHERE t.typrelid = c.relation AND (t.oid = b.prorettype OR t.oid = ANY (b.proargtypes::oid[]))))
           AS of_table
  FROM columns c
  JOIN bodies b ON b.prosrc ~* c.names_column
  GROUP BY c.number, b.oid
)
SELECT number, used_by, 0::int8 FROM recorded
UNION
SELECT number, 'function ' || oid::regprocedure::text, 0 FROM named WHERE of_table
UNION ALL
SELECT number, NULL, pg_catalog.count(*) FROM named WHERE NOT of_table GROUP BY number
ORDER BY 1, 2";
    let tables: Vec<pg_sys::Oid> = columns.iter().map(|c| pg_sys::Oid::from(c.table.oid)).collect();
    let numbers: Vec<i16> = columns.iter().map(|c| c.column.number).collect();
    Spi::connect(|client| {
        for row in client.select(sql, None, &[tables.into(), numbers.into()])? {
            let Some(of) = row.get::<i32>(1)?.and_then(|n| found.get_mut(n as usize - 1)) else {
                continue;
            };
            match row.get::<String>(2)? {
                Some(used_by) => of.0.push(used_by),
                None => of.1 += row.get::<i64>(3)?.unwrap_or_default(),
            }
        }
        Ok::<_, SpiError>(())
    })?;
    Ok(found)
}

fn described(session: &Session, empty: &Empty, (used_by, elsewhere): (Vec<String>, i64)) -> DeadColumn {
    let shown = session.catalog.display(empty.table);
    let mut checked = format!(
        "NULL in all {} rows; looked for foreign keys, indexes, constraints, views, policies, triggers, defaults, \
         generated columns, statistics, publications and function bodies",
        empty.rows
    );
    if elsewhere > 0 {
        let functions = if elsewhere == 1 {
            "function names"
        } else {
            "functions name"
        };
        checked.push_str(&format!(
            "; {elsewhere} {functions} a {} but not {shown}",
            empty.column.quoted
        ));
    }
    checked.push_str("; what applications send is not known here");
    let data_type = session
        .catalog
        .type_of(empty.column.type_oid)
        .map(|t| t.display.clone());
    DeadColumn {
        table: shown,
        column: Some(empty.column.name.clone()),
        data_type,
        verdict: if used_by.is_empty() { "dead" } else { "used" },
        rows_checked: Some(empty.rows),
        statement: used_by.is_empty().then(|| guarded_drop(empty.table, empty.column)),
        used_by,
        checked,
    }
}

/// Drops the column if it still is empty when nobody can write to it any more; else raises, and drops nothing. It looks
/// with a snapshot taken after the lock (READ COMMITTED), past no policy, and takes a row of NULLs for a value.
fn guarded_drop(table: &Table, column: &Column) -> String {
    let (name, attribute) = (table.sql(), column.sql());
    let literal = |text: &str| Literal::new(&text.replace('%', "%%")).to_string();
    let message = literal(&format!("{name}.{attribute} is no longer empty, nothing was dropped"));
    // A name may hold anything, the end of a dollar quote included.
    let mut quote = String::from("$mend$");
    while name.contains(&quote) || attribute.to_string().contains(&quote) {
        quote.insert(5, '_');
    }
    format!(
        "DO {quote}
DECLARE
  before text := pg_catalog.current_setting('lock_timeout');
BEGIN
  IF NOT pg_catalog.starts_with(pg_catalog.current_setting('transaction_isolation'), 'read ') THEN
    RAISE EXCEPTION 'run this in READ COMMITTED: an older snapshot could not see what was written before the lock'
      USING ERRCODE = 'invalid_transaction_state', HINT = 'SET default_transaction_isolation = ''read committed''';
  END IF;
  PERFORM pg_catalog.set_config('row_security', 'off', true), pg_catalog.set_config('lock_timeout', '2s', true);
  LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;
  PERFORM pg_catalog.set_config('lock_timeout', before, true);
  IF EXISTS (SELECT FROM {name} AS t WHERE t.{attribute} IS DISTINCT FROM NULL) THEN
    RAISE EXCEPTION {message}
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  ALTER TABLE {name} DROP COLUMN {attribute} RESTRICT;
END
{quote};"
    )
}

fn no_schema(session: &Session, name: &str) -> Problem {
    let mut schemas: Vec<&str> = session.catalog.tables.iter().map(|t| t.schema.as_str()).collect();
    schemas.dedup();
    let near = nearest(name, schemas.iter().copied());
    let problem = Problem::new(
        PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME,
        format!("no schema \"{name}\" with tables"),
    )
    .detail(format!("schemas with tables: {}", schemas.join(", ")));
    match near.is_empty() {
        true => problem.hint("leave schema out to look at all of them"),
        false => problem.hint(format!("did you mean {}?", near.join(" or "))),
    }
}
