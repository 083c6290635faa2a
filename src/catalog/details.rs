//! What one target table enforces on a new value: read in a second query, only for the table that is written.

use pgrx::prelude::*;
use serde::{Deserialize, Serialize};

use super::code::is_plain;
use super::data_type::Oid;
use super::types::{Catalog, Column, Table};
use crate::pg::read_json;
use crate::problem::Problem;

/// Everything on a table that can refuse or change a value that an UPDATE writes to one column.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Details {
    /// CHECK constraints of the table, and (since 18) NOT NULL constraints that are NOT VALID: an UPDATE is checked
    /// against all of them, also those that do not name the column.
    pub checks: Vec<Check>,
    /// CHECK constraints of the column's domain and of the domains below; their expressions speak of VALUE.
    pub domain_checks: Vec<Check>,
    /// Unique indexes whose keys, expressions or predicate use the column.
    pub unique_indexes: Vec<UniqueIndex>,
    /// Exclusion constraints that use the column.
    pub exclusions: Vec<Exclusion>,
    /// Row and statement triggers of the user that fire on an UPDATE of the column.
    pub triggers: Vec<String>,
    /// Rewrite rules ON UPDATE.
    pub update_rules: Vec<String>,
    /// Generated columns with their expressions, by column number.
    pub generated: Vec<(i16, String)>,
    /// The column is part of the partition key.
    pub partition_key: bool,
    /// Constraints and unique indexes that only single partitions have.
    pub partition_only: Vec<String>,
    /// The column's domain refuses NULL.
    #[serde(default)]
    pub domain_not_null: bool,
    /// Of a table whose owner the caller does not trust: CHECKs, domains, indexes and generated columns that run code of somebody; asking what
    /// the table enforces runs it.
    #[serde(default, skip_serializing)]
    pub code: Vec<String>,
}

/// A CHECK constraint.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Check {
    /// Constraint name.
    pub name: String,
    /// The condition, with bare column names.
    pub expression: String,
    /// Columns that it reads; 0 stands for the whole row.
    pub columns: Vec<i16>,
}

/// A unique index that a new value of the column can collide with.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct UniqueIndex {
    /// Index name (the constraint's name as well, where there is one).
    pub name: String,
    /// Key expressions in order, with bare column names.
    pub expressions: Vec<String>,
    /// The type of each key.
    pub types: Vec<Oid>,
    /// WHERE of a partial index.
    pub predicate: Option<String>,
    /// The collation of each key where it is not the database's, as SQL.
    #[serde(default)]
    pub collations: Vec<Option<String>>,
    /// NULLs count as equal (since 15).
    pub nulls_not_distinct: bool,
    /// Columns that keys, expressions and predicate read.
    #[serde(default)]
    pub columns: Vec<i16>,
}

/// An exclusion constraint.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Exclusion {
    /// Constraint name.
    pub name: String,
}

/// `indnullsnotdistinct` exists since 15.
pub(super) const NULLS_NOT_DISTINCT: &str = if cfg!(any(feature = "pg13", feature = "pg14")) {
    "false"
} else {
    "i.indnullsnotdistinct"
};

/// An [`UniqueIndex`] as jsonb, of a row `u` of pg_index with its `relname`.
pub(super) fn unique_index() -> String {
    format!(
        "jsonb_build_object(
      'name', u.relname,
      'expressions', (SELECT jsonb_agg(pg_get_indexdef(u.indexrelid, n, false) ORDER BY n)
                      FROM generate_series(1, u.indnkeyatts) n),
      'types', (SELECT jsonb_agg(a.atttypid::bigint ORDER BY a.attnum) FROM pg_attribute a
                WHERE a.attrelid = u.indexrelid AND a.attnum <= u.indnkeyatts),
      'collations', (SELECT jsonb_agg(CASE WHEN l.collname <> 'default'
                                           THEN quote_ident(n.nspname) || '.' || quote_ident(l.collname) END ORDER BY k.position)
                     FROM unnest(u.indcollation::oid[]) WITH ORDINALITY k(oid, position)
                     LEFT JOIN pg_collation l ON l.oid = k.oid
                     LEFT JOIN pg_namespace n ON n.oid = l.collnamespace
                     WHERE k.position <= u.indnkeyatts),
      'predicate', pg_get_expr(u.indpred, u.indrelid),
      'nulls_not_distinct', {},
      'columns', (SELECT coalesce(jsonb_agg(DISTINCT read.number), '[]') FROM (
                    SELECT k.number FROM unnest(u.indkey::int2[]) WITH ORDINALITY k(number, position)
                    WHERE k.number <> 0 AND k.position <= u.indnkeyatts
                    UNION ALL
                    SELECT d.refobjsubid FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = u.indexrelid AND d.refclassid = 'pg_class'::regclass
                      AND d.refobjid = u.indrelid AND d.refobjsubid > 0
                    UNION ALL
                    -- The whole row leaves no dependency.
                    SELECT 0 WHERE concat(u.indexprs::text, u.indpred::text) ~ ':varattno 0 ') read (number)))",
        NULLS_NOT_DISTINCT.replace("i.", "u.")
    )
}

/// NOT NULL constraints are in pg_constraint, and may be NOT VALID, since 18.
const NOT_NULL_NOT_VALID: &str = if cfg!(feature = "pg18") {
    "UNION ALL
     SELECT n.conname, quote_ident(a.attname) || ' IS NOT NULL', n.conkey, NULL::text
     FROM pg_constraint n JOIN pg_attribute a ON a.attrelid = n.conrelid AND a.attnum = n.conkey[1]
     WHERE n.conrelid = $1 AND n.contype = 'n' AND NOT n.convalidated"
} else {
    ""
};

/// `conenforced` exists since 18.
const CHECK_ENFORCED: &str = if cfg!(feature = "pg18") {
    "AND k.conenforced"
} else {
    ""
};

impl Catalog {
    /// Reads what `table` enforces on `column`. Expressions come out with every name qualified that
    /// `search_path = pg_catalog, pg_temp` does not find.
    pub fn details(&self, table: &Table, column: &Column) -> Result<Details, Problem> {
        // Who is trusted is not asked: it takes as long to plan as all the rest.
        let code = match table.owner_is_trusted {
            true => "'[]'::jsonb".to_string(),
            false => format!(
                "(
    SELECT coalesce(jsonb_agg(DISTINCT c.name), '[]')
    FROM (
      SELECT k.name::text, k.tree FROM checks k
      UNION ALL
      SELECT k.conname, k.conbin::text FROM domains d JOIN pg_constraint k ON k.contypid = d.oid AND k.contype = 'c'
      UNION ALL
      SELECT u.relname, u.indexprs::text FROM uses u
      UNION ALL
      SELECT u.relname, u.indpred::text FROM uses u
      UNION ALL
      SELECT a.attname, d.adbin::text
      FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = $1 AND a.attgenerated <> '' AND NOT a.attisdropped
    ) c (name, tree)
    WHERE NOT {plain})",
                plain = is_plain("c.tree")
            ),
        };
        let sql = format!(
            r#"
WITH RECURSIVE domains AS (
  SELECT $3::oid AS oid
  UNION ALL
  SELECT t.typbasetype FROM domains d JOIN pg_type t ON t.oid = d.oid WHERE t.typtype = 'd'
),
checks AS (
  SELECT k.conname AS name, pg_get_expr(k.conbin, k.conrelid) AS expression, coalesce(k.conkey, '{{}}') AS columns, k.conbin::text AS tree
  FROM pg_constraint k
  WHERE k.conrelid = $1 AND k.contype = 'c' {CHECK_ENFORCED}
  {NOT_NULL_NOT_VALID}
),
-- The column, and those that are computed and may be computed from it.
changing AS (
  SELECT a.attnum FROM pg_attribute a
  WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND (a.attnum = $2 OR a.attgenerated <> '')
),
uses AS (
  SELECT i.*, c.relname
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
  WHERE i.indrelid = $1 AND i.indisready
    AND ((i.indkey::int2[])[0:i.indnkeyatts - 1] && (SELECT array_agg(attnum) FROM changing)
         OR ((i.indpred IS NOT NULL OR i.indexprs IS NOT NULL)
             AND EXISTS (SELECT FROM pg_depend d
                         WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                           AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
                           AND d.refobjsubid IN (SELECT attnum FROM changing))))
),
partitions AS (
  SELECT p.relid FROM pg_partition_tree($1::regclass) p WHERE $4 AND p.relid <> $1::oid
)
SELECT jsonb_build_object(
  'checks', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.name, 'expression', k.expression, 'columns', k.columns)
                                       ORDER BY k.name), '[]') FROM checks k),
  'domain_not_null', EXISTS (SELECT FROM domains d JOIN pg_type t ON t.oid = d.oid WHERE t.typtype = 'd' AND t.typnotnull),
  'code', {code},
  'domain_checks', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
             'name', k.conname, 'expression', pg_get_expr(k.conbin, 0), 'columns', '[]'::jsonb) ORDER BY k.conname), '[]')
    FROM domains d
    JOIN pg_constraint k ON k.contypid = d.oid AND k.contype = 'c'),
  'unique_indexes', (
    SELECT coalesce(jsonb_agg({unique_index} ORDER BY u.relname), '[]') FROM uses u WHERE u.indisunique),
  'exclusions', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('name', u.relname) ORDER BY u.relname), '[]')
    FROM uses u WHERE u.indisexclusion),
  'triggers', (
    SELECT coalesce(jsonb_agg(g.tgname ORDER BY g.tgname), '[]')
    FROM pg_trigger g
    WHERE g.tgrelid = $1 AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A')
      AND (g.tgtype & 16) <> 0
      AND (cardinality(g.tgattr::int2[]) = 0 OR $2 = ANY (g.tgattr::int2[]))),
  'update_rules', (
    SELECT coalesce(jsonb_agg(r.rulename ORDER BY r.rulename), '[]')
    FROM pg_rewrite r WHERE r.ev_class = $1 AND r.ev_type = '2' AND r.ev_enabled <> 'D'),
  'generated', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(a.attnum, pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attnum), '[]')
    FROM pg_attribute a
    JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1 AND a.attgenerated <> '' AND NOT a.attisdropped),
  'partition_key', EXISTS (
    SELECT FROM pg_partitioned_table p
    WHERE p.partrelid IN (SELECT $1::oid UNION SELECT a.relid FROM pg_partition_ancestors($1::regclass) a)
      AND ((SELECT a.attname FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum = $2) IN (
             SELECT b.attname FROM pg_attribute b
             WHERE b.attrelid = p.partrelid AND b.attnum = ANY (p.partattrs::int2[]))
           OR p.partexprs IS NOT NULL)),
  'partition_only', (
    SELECT coalesce(jsonb_agg(x.name ORDER BY x.name), '[]')
    FROM (
      SELECT k.conrelid::regclass || ': ' || k.conname AS name
      FROM pg_constraint k
      WHERE k.conrelid IN (SELECT relid FROM partitions) AND k.contype IN ('c', 'f', 'x') AND k.conislocal
        AND k.conparentid = 0
        AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.conrelid = $1 AND p.conname = k.conname AND p.contype = k.contype)
      UNION ALL
      SELECT i.indrelid::regclass || ': ' || c.relname
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      WHERE i.indrelid IN (SELECT relid FROM partitions) AND (i.indisunique OR i.indisexclusion)
        AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
      UNION ALL
      SELECT g.tgrelid::regclass || ': trigger ' || g.tgname
      FROM pg_trigger g
      WHERE g.tgrelid IN (SELECT relid FROM partitions) AND NOT g.tgisinternal AND (g.tgtype & 16) <> 0
        AND NOT EXISTS (SELECT FROM pg_trigger p WHERE p.tgrelid = $1 AND p.tgname = g.tgname)
    ) x)
)"#,
            unique_index = unique_index(),
        );
        let arguments = [
            pg_sys::Oid::from(table.oid).into(),
            column.number.into(),
            pg_sys::Oid::from(column.type_oid).into(),
            (table.kind == 'p').into(),
        ];
        read_json(&sql, &arguments)
    }
}
