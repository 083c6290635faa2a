//! What a table already guarantees about one column, constraint by constraint, and who may change that: what locking a
//! column in starts from. Read anew for each step, because steps are separate transactions.

use pgrx::prelude::*;
use serde::Deserialize;

use super::data_type::Oid;
use super::load::IS_NOT_NULL;
use super::types::{Catalog, Column, Table};
use crate::pg::read_json;
use crate::problem::Problem;

/// Everything that bears on NOT NULL, foreign keys, indexes and policies of one column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Guarantees {
    /// The caller may ALTER the table and all its children.
    pub may_alter: bool,
    /// Who may; of several, one that the caller is not.
    pub owner: String,
    /// The column's type with its modifier, as SQL.
    pub type_sql: String,
    /// The table, its partitions and inheritance children at any depth.
    pub family: Vec<Oid>,
    /// CHECK (column IS NOT NULL), of the table itself and inherited by its children.
    pub not_null_checks: Vec<NotNullCheck>,
    /// A NOT NULL constraint that is NOT VALID (since 18).
    pub not_null_not_valid: Option<String>,
    /// Names of all constraints of the family.
    pub constraints: Vec<String>,
    /// Foreign keys of the table and its partitions as Postgres writes them: table, name, definition.
    pub foreign_keys: Vec<(Oid, String, String)>,
    /// Indexes that start with the column, of the table and of its partitions.
    pub indexes: Vec<Index>,
    /// Names of indexes and other relations that look like those that are generated here.
    pub relations: Vec<String>,
    /// Partitions that hold rows, at any depth.
    pub leaves: Vec<Oid>,
    /// Those of them that are foreign tables, as displayed.
    pub foreign_leaves: Vec<String>,
    /// Policies that read the column.
    pub policies: Vec<String>,
    /// Names of all policies.
    pub policy_names: Vec<String>,
}

/// A CHECK that says what NOT NULL says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NotNullCheck {
    /// Constraint name.
    pub name: String,
    /// It holds for every row.
    pub validated: bool,
    /// Its comment: how a CHECK of ours is told from the user's.
    pub comment: Option<String>,
}

/// An index whose first key is the column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// The table or partition.
    pub table: Oid,
    /// The bare name.
    pub name: String,
    /// Queries may use it, for every value but NULL.
    pub usable: bool,
    /// It is left over from a CREATE INDEX CONCURRENTLY that did not end well, or still runs.
    pub invalid: bool,
    /// Some session is, or may be, building it at this moment.
    pub building: bool,
    /// A plain btree on the column alone that is part of no other index: what CREATE INDEX on the partitioned table takes over
    /// instead of building its own.
    pub plain: bool,
}

/// As in `load`.
const ENFORCED: &str = if cfg!(feature = "pg18") {
    "AND k.conenforced"
} else {
    ""
};

/// NOT NULL constraints are in pg_constraint, and may be NOT VALID, since 18.
const NOT_NULL_NOT_VALID: &str = if cfg!(feature = "pg18") {
    "(SELECT n.conname FROM pg_constraint n
      WHERE n.conrelid = $1 AND n.contype = 'n' AND n.conkey[1] = $2 AND NOT n.convalidated)"
} else {
    "NULL::name"
};

/// One policy for row-level security.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Policy {
    /// The table.
    pub table: Oid,
    /// Policy name.
    pub name: String,
    /// Columns of the table that it reads.
    pub columns: Vec<i16>,
}

/// Every policy of the database, by table and name.
///
/// Errors: those of SPI only.
pub fn policies() -> Result<Vec<Policy>, Problem> {
    let sql = "
SELECT coalesce(jsonb_agg(jsonb_build_object(
         'table', p.polrelid::bigint, 'name', p.polname,
         'columns', (SELECT coalesce(jsonb_agg(DISTINCT d.refobjsubid), '[]')
                     FROM pg_depend d
                     WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0))
         ORDER BY p.polrelid, p.polname), '[]')
FROM pg_policy p";
    read_json(sql, &[])
}

impl Catalog {
    /// Reads what `table` guarantees about `column`.
    ///
    /// Errors: those of SPI only.
    pub fn guarantees(&self, table: &Table, column: &Column) -> Result<Guarantees, Problem> {
        let sql = format!(
            r#"
WITH RECURSIVE tree AS (
  SELECT $1::oid AS relid
  UNION
  SELECT h.inhrelid FROM tree t JOIN pg_inherits h ON h.inhparent = t.relid
),
leaves AS (
  SELECT c.oid AS relid, c.relkind, c.oid::regclass::text AS shown
  FROM tree t
  JOIN pg_class c ON c.oid = t.relid
  WHERE $3 AND c.relkind <> 'p'
),
family AS (
  SELECT c.oid, c.relnamespace, c.relowner, a.attnum
  FROM tree t
  JOIN pg_class c ON c.oid = t.relid
  JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
                     AND a.attname = (SELECT attname FROM pg_attribute WHERE attrelid = $1 AND attnum = $2)
),
relevant AS (
  SELECT i.indexrelid, i.indrelid, c.relname, i.indisvalid, i.indisunique, i.indpred, i.indnatts, i.indnkeyatts, f.attnum,
         c.relkind, m.amname,
         -- A partial index WHERE column IS NOT NULL serves every look-up by a value.
         coalesce(i.indpred::text ~ {IS_NOT_NULL} AND i.indpred::text ~ (' :varattno ' || f.attnum || ' '), true) AS all_values,
         EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) AS attached,
         EXISTS (SELECT FROM pg_opclass o WHERE o.oid = i.indclass[0] AND o.opcdefault)
           AND i.indcollation[0] = a.attcollation AND i.indoption[0] = 0 AS defaults
  FROM family f
  JOIN pg_index i ON i.indrelid = f.oid AND i.indkey[0] = f.attnum
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_am m ON m.oid = c.relam
  JOIN pg_attribute a ON a.attrelid = f.oid AND a.attnum = f.attnum
  WHERE f.oid = $1 OR f.oid IN (SELECT relid FROM leaves)
)
SELECT jsonb_build_object(
  'may_alter', (SELECT bool_and(pg_has_role(f.relowner, 'USAGE')) FROM family f),
  'owner', (SELECT quote_ident(pg_get_userbyid(f.relowner)) FROM family f
            ORDER BY pg_has_role(f.relowner, 'USAGE'), f.oid <> $1 LIMIT 1),
  'type_sql', (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum = $2),
  'family', (SELECT jsonb_agg(f.oid::bigint ORDER BY f.oid <> $1, f.oid) FROM family f),
  'not_null_checks', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
             'name', k.conname, 'validated', k.convalidated, 'comment', obj_description(k.oid, 'pg_constraint'))
             ORDER BY k.convalidated DESC, k.conname), '[]')
    FROM pg_constraint k
    WHERE k.conrelid = $1 AND k.contype = 'c' AND k.conkey = ARRAY[$2] {ENFORCED}
      AND (NOT k.connoinherit OR NOT t.relhassubclass)
      AND k.conbin::text ~ {IS_NOT_NULL}),
  'not_null_not_valid', {NOT_NULL_NOT_VALID},
  'constraints', (SELECT coalesce(jsonb_agg(k.conname), '[]') FROM pg_constraint k
                  WHERE k.conrelid IN (SELECT oid FROM family)),
  'foreign_keys', (SELECT coalesce(jsonb_agg(jsonb_build_array(
                            k.conrelid::bigint, k.conname, pg_get_constraintdef(k.oid))), '[]')
                   FROM pg_constraint k
                   WHERE k.conrelid IN (SELECT oid FROM family) AND k.contype = 'f'),
  'indexes', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
             'table', r.indrelid::bigint, 'name', r.relname,
             'usable', r.indisvalid AND r.all_values AND r.amname IN ('btree', 'hash'),
             'invalid', NOT r.indisvalid AND r.relkind = 'i',
             'building', EXISTS (SELECT FROM pg_stat_get_progress_info('CREATE INDEX') p
                                 WHERE p.param7 = r.indexrelid::bigint)
                         -- What others build is not for everybody to see; the lock under which they do is.
                         OR EXISTS (SELECT FROM pg_locks l
                                    WHERE l.locktype = 'relation' AND l.relation = r.indrelid AND l.granted
                                      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                                      AND l.mode = 'ShareUpdateExclusiveLock'),
             'plain', r.indisvalid AND r.indpred IS NULL AND r.indnatts = 1 AND NOT r.indisunique AND r.amname = 'btree'
                      AND r.defaults AND NOT r.attached)
             ORDER BY r.indrelid, r.relname), '[]')
    FROM relevant r),
  'relations', (SELECT coalesce(jsonb_agg(DISTINCT c.relname), '[]') FROM pg_class c
                WHERE c.relname ~ '_(idx|key)[0-9]*$'),
  'leaves', (SELECT coalesce(jsonb_agg(relid::bigint ORDER BY shown), '[]') FROM leaves),
  'foreign_leaves', (SELECT coalesce(jsonb_agg(shown ORDER BY shown), '[]') FROM leaves WHERE relkind = 'f'),
  'policies', (
    SELECT coalesce(jsonb_agg(DISTINCT p.polname), '[]')
    FROM pg_policy p
    JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.refobjsubid = $2
    WHERE p.polrelid = $1),
  'policy_names', (SELECT coalesce(jsonb_agg(p.polname), '[]') FROM pg_policy p WHERE p.polrelid = $1))
FROM pg_class t
WHERE t.oid = $1"#
        );
        let arguments = [
            pg_sys::Oid::from(table.oid).into(),
            column.number.into(),
            (table.kind == 'p').into(),
        ];
        read_json(&sql, &arguments)
    }
}
