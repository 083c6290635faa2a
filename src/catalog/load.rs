//! One query reads the graph as one jsonb, serde does the rest. It assigns no transaction id, so that it works in READ
//! ONLY transactions and on standbys.

use super::Catalog;
use crate::pg::read_json;
use crate::problem::Problem;

/// `conenforced` exists since 18; before, every constraint is enforced.
const ENFORCED: &str = if cfg!(feature = "pg18") {
    "f.conenforced"
} else {
    "true"
};

/// Since 18 a foreign key may ask for a time that is covered (PERIOD), not for an equal key: that is no reference as we know them.
const EQUALITY: &str = if cfg!(feature = "pg18") {
    "NOT f.conperiod"
} else {
    "true"
};

/// As [`ENFORCED`], of a CHECK.
const ENFORCED_CHECK: &str = if cfg!(feature = "pg18") {
    "k.conenforced"
} else {
    "true"
};

/// Since 18 a NOT NULL may be NOT VALID, and `attnotnull` is set all the same.
const NOT_NULL: &str = if cfg!(feature = "pg18") {
    "(a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint n
                                   WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND n.conkey[1] = a.attnum
                                     AND NOT n.convalidated))"
} else {
    "a.attnotnull"
};

/// `column IS NOT NULL` as Postgres stores it, the same in 13 to 18. Asking for its text (pg_get_expr) would wait for whoever
/// holds a strong lock on the table. Of a row type the test is stricter than NOT NULL, and is not meant.
pub(super) const IS_NOT_NULL: &str =
    r"'^[(]?[{]NULLTEST :arg [{]VAR [^{}]*[}] :nulltesttype 1 :argisrow false :location -?[0-9]+[}][)]?$'";

/// Reads the catalog. Runs under `search_path = pg_catalog, pg_temp`; `search_path` is the caller's own, resolved to
/// schemas, for looking up and showing bare names.
///
/// ```text
/// tables        relations of all schemas but the system's and other sessions' temporary ones
/// types         of their columns, domains followed to their base
/// foreign_keys  declared ones; the extra rows that Postgres keeps per partition of a *referenced* table are left out
/// ```
pub fn load(search_path: Vec<String>) -> Result<Catalog, Problem> {
    let sql = format!(
        r#"
WITH RECURSIVE relations AS (
  SELECT c.oid, c.relname, c.relkind, c.relispartition, c.relhassubclass, c.relrowsecurity, c.reltuples, n.nspname,
         coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false) AS may_select,
         coalesce(pg_catalog.has_table_privilege(c.oid, 'UPDATE'), false) AS may_update,
         coalesce(pg_catalog.has_table_privilege(c.oid, 'INSERT'), false) AS may_insert,
         coalesce(pg_catalog.has_table_privilege(c.oid, 'REFERENCES'), false) AS may_reference,
         coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false) AS may_use_schema,
         pg_catalog.pg_has_role(c.relowner, CURRENT_USER, 'MEMBER') AS owner_is_trusted, c.relowner,
         EXISTS (SELECT FROM pg_depend d
                 WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') AS of_extension
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    AND NOT pg_is_other_temp_schema(n.oid)
    -- Dropped since this query began: nothing can be asked about it.
    AND pg_catalog.has_table_privilege(c.oid, 'SELECT') IS NOT NULL
),
-- How large databases get a NOT NULL without a long lock: CHECK (column IS NOT NULL), validated later.
never_null AS (
  SELECT DISTINCT k.conrelid, k.conkey[1] AS attnum
  FROM pg_constraint k
  JOIN relations r ON r.oid = k.conrelid
  WHERE k.contype = 'c' AND k.convalidated AND {ENFORCED_CHECK} AND cardinality(k.conkey) = 1
    AND k.conbin::text ~ {IS_NOT_NULL}
),
attributes AS (
  SELECT a.attrelid, a.atttypid,
         jsonb_build_object(
           'number', a.attnum, 'name', a.attname, 'quoted', quote_ident(a.attname), 'type_oid', a.atttypid::bigint,
           'type_modifier', a.atttypmod, 'not_null', {NOT_NULL}, 'never_null', {NOT_NULL} OR k.conrelid IS NOT NULL, 'generated', a.attgenerated <> '',
           'collation', CASE WHEN l.collname <> 'default' THEN quote_ident(ln.nspname) || '.' || quote_ident(l.collname) END,
           'identity_always', a.attidentity = 'a',
           'may_select', r.may_select OR coalesce(has_column_privilege(r.oid, a.attnum, 'SELECT'), false),
           'may_update', r.may_update OR coalesce(has_column_privilege(r.oid, a.attnum, 'UPDATE'), false)) AS described,
         a.attnum
  FROM relations r
  JOIN pg_attribute a ON a.attrelid = r.oid
  LEFT JOIN never_null k ON k.conrelid = a.attrelid AND k.attnum = a.attnum
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
  LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
  WHERE a.attnum > 0 AND NOT a.attisdropped
),
columns_of AS (
  SELECT attrelid, jsonb_agg(described ORDER BY attnum) AS described FROM attributes GROUP BY attrelid
),
keys_of AS (
  SELECT i.indrelid,
         jsonb_agg(jsonb_build_object(
           'name', c.relname, 'primary', i.indisprimary, 'immediate', i.indimmediate,
           'columns', (SELECT jsonb_agg(k.attnum ORDER BY k.position)
                       FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, position)
                       WHERE k.position <= i.indnkeyatts))
           ORDER BY i.indisprimary DESC, c.relname) AS described
  FROM relations r
  JOIN pg_index i ON i.indrelid = r.oid
  JOIN pg_class c ON c.oid = i.indexrelid
  WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  GROUP BY i.indrelid
),
indexed AS (
  SELECT i.indrelid, jsonb_agg(DISTINCT i.indkey[0]) AS described
  FROM relations r
  JOIN pg_index i ON i.indrelid = r.oid
  WHERE i.indisvalid AND i.indkey[0] <> 0
    -- A partial index WHERE column IS NOT NULL serves every look-up by a value.
    AND (i.indpred IS NULL OR i.indpred::text ~ {IS_NOT_NULL}
                              AND i.indpred::text ~ (' :varattno ' || i.indkey[0] || ' '))
  GROUP BY i.indrelid
),
used_types AS (
  SELECT DISTINCT atttypid AS oid FROM attributes
  UNION
  SELECT t.typbasetype FROM used_types u JOIN pg_type t ON t.oid = u.oid WHERE t.typbasetype <> 0
),
equality AS (
  SELECT DISTINCT ON (c.opcintype) c.opcintype, n.nspname, o.oprname
  FROM pg_opclass c
  JOIN pg_am m ON m.oid = c.opcmethod AND m.amname IN ('btree', 'hash')
  JOIN pg_amop p ON p.amopfamily = c.opcfamily AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype
                AND p.amopstrategy = CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END
  JOIN pg_operator o ON o.oid = p.amopopr
  JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE c.opcdefault
  ORDER BY c.opcintype, m.amname
)
SELECT jsonb_build_object(
  'tables', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'oid', r.oid::bigint, 'schema', r.nspname, 'name', r.relname,
      'quoted_schema', quote_ident(r.nspname), 'quoted_name', quote_ident(r.relname),
      'kind', r.relkind, 'is_partition', r.relispartition,
      'has_children', r.relhassubclass AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = r.oid),
      'row_security', r.relrowsecurity,
      'row_security_active', CASE WHEN r.relrowsecurity THEN row_security_active(r.oid) ELSE false END,
      'estimated_rows', r.reltuples, 'may_select', r.may_select, 'may_insert', r.may_insert,
      'may_use_schema', r.may_use_schema, 'may_reference', r.may_reference,
      'owner', r.relowner::bigint, 'owner_is_trusted', r.owner_is_trusted,
      'of_extension', r.of_extension,
      'reads', CASE WHEN r.relkind IN ('v', 'm') THEN (
        SELECT coalesce(jsonb_agg(DISTINCT d.refobjid::bigint), '[]')
        FROM pg_rewrite w
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
        WHERE w.ev_class = r.oid) ELSE '[]' END,
      'columns', coalesce(a.described, '[]'), 'keys', coalesce(k.described, '[]'),
      'indexed', coalesce(x.described, '[]'))
      ORDER BY r.nspname, r.relname), '[]')
    FROM relations r
    LEFT JOIN columns_of a ON a.attrelid = r.oid
    LEFT JOIN keys_of k ON k.indrelid = r.oid
    LEFT JOIN indexed x ON x.indrelid = r.oid),
  'types', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'oid', t.oid::bigint, 'schema', n.nspname, 'name', t.typname, 'display', format_type(t.oid, NULL),
      'kind', t.typtype, 'category', t.typcategory, 'base', nullif(t.typbasetype::bigint, 0),
      'base_modifier', t.typtypmod, 'owner_is_trusted', pg_has_role(t.typowner, CURRENT_USER, 'MEMBER'),
      'equality', CASE
        WHEN e.oprname IS NOT NULL THEN jsonb_build_object('schema', e.nspname, 'name', e.oprname)
        WHEN t.typtype IN ('c', 'e', 'r', 'm') OR t.typcategory = 'A' OR t.oid = 'varchar'::regtype
          THEN '{{"schema": "pg_catalog", "name": "="}}'::jsonb
      END,
      'labels', coalesce((SELECT jsonb_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l
                          WHERE l.enumtypid = t.oid), '[]'))), '[]')
    FROM used_types u
    JOIN pg_type t ON t.oid = u.oid
    JOIN pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN equality e ON e.opcintype = t.oid),
  'foreign_keys', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', f.conname, 'table', f.conrelid::bigint, 'columns', f.conkey, 'parent', f.confrelid::bigint,
      'parent_columns', f.confkey, 'validated', f.convalidated, 'enforced', {ENFORCED},
      'on_delete', f.confdeltype, 'on_update', f.confupdtype,
      'deferrable', f.condeferrable, 'deferred', f.condeferred, 'match_full', f.confmatchtype = 'f',
      'inherited', f.conparentid <> 0)
      ORDER BY f.conrelid, f.conkey, f.conname), '[]')
    FROM pg_constraint f
    JOIN relations r ON r.oid = f.conrelid
    WHERE f.contype = 'f' AND {EQUALITY}
      AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = f.conparentid AND p.conrelid = f.conrelid))
)"#
    );
    let mut catalog: Catalog = read_json(&sql, &[])?;
    catalog.search_path = search_path;
    Ok(catalog.index())
}
