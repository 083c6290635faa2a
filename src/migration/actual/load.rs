//! One query, one JSON document.

use std::collections::BTreeSet;

use super::ActualSchema;
use crate::catalog::domains_of_others_run_code;
use crate::pg::Settings;
use crate::pg::read_json;
use crate::problem::Problem;

/// `indnullsnotdistinct` exists since 15.
const NULLS_NOT_DISTINCT: &str = if cfg!(any(feature = "pg13", feature = "pg14")) {
    "false"
} else {
    "i.indnullsnotdistinct"
};

/// `conenforced` and `conperiod` exist since 18.
const ENFORCED_AND_PERIOD: (&str, &str) = if cfg!(feature = "pg18") {
    ("k.conenforced", "k.conperiod")
} else {
    ("true", "false")
};

/// Since 18 there is NOT NULL ... NOT VALID, with `attnotnull` set: NULLs may be there.
const NOT_NULL: &str = if cfg!(feature = "pg18") {
    "(a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint n
                                   WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND n.conkey[1] = a.attnum AND NOT n.convalidated))"
} else {
    "a.attnotnull"
};

/// `prosqlbody` exists since 14.
const STATEMENTS: &str = if cfg!(feature = "pg13") {
    "NULL"
} else {
    "p.prosqlbody::text"
};

fn privileges(acl: &str, kind: char, owner: &str) -> String {
    format!(
        "(SELECT coalesce(jsonb_agg(jsonb_build_array(CASE x.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(x.grantee) END, x.privilege_type)), '[]')
          FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) x)"
    )
}

impl ActualSchema {
    /// Reads what is called by one of `names` (bare).
    ///
    /// * `path`: the schemas of the search_path that exist, in order.
    ///
    /// Errors: those of SPI. Waits for whoever holds an ACCESS EXCLUSIVE lock on one of the tables.
    pub fn load(names: &BTreeSet<String>, path: Vec<String>) -> Result<ActualSchema, Problem> {
        let of_relation = privileges("c.relacl", 'r', "c.relowner");
        let of_function = privileges("p.proacl", 'f', "p.proowner");
        let of_type = privileges("t.typacl", 'T', "t.typowner");
        let (enforced, period) = ENFORCED_AND_PERIOD;
        let of_schema = privileges("n.nspacl", 'n', "n.nspowner");
        let names_of = |array: &str, table: &str| {
            format!(
                "(SELECT coalesce(jsonb_agg(named.attname ORDER BY listed.n), '[]') FROM unnest({array}) WITH ORDINALITY AS listed (number, n)
                  JOIN pg_attribute named ON named.attrelid = {table} AND named.attnum = listed.number)"
            )
        };
        let sql = format!(
            r#"
WITH seen AS (
  SELECT n.oid, n.nspname FROM pg_namespace n
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'),
relation AS (
  SELECT c.*, s.nspname FROM pg_class c JOIN seen s ON s.oid = c.relnamespace
  WHERE c.relname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'i', 'I', 'f')
  UNION
  -- Indexes of tables that are named: the script may not say what they are called.
  SELECT c.*, s.nspname FROM pg_class c JOIN seen s ON s.oid = c.relnamespace
  JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_class t ON t.oid = i.indrelid
  WHERE t.relname = ANY ($1))
SELECT jsonb_build_object(
  'path', '[]'::jsonb, 'user', CURRENT_USER,
  'roles', (SELECT coalesce(jsonb_agg(r.rolname), '[]') FROM pg_roles r WHERE pg_has_role(r.oid, 'USAGE')),
  'extensions', (SELECT coalesce(jsonb_agg(jsonb_build_array(extname, oid::int8)), '[]') FROM pg_extension),
  'schemas', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('oid', n.oid::int8, 'name', n.nspname, 'owner', coalesce(pg_get_userbyid(n.nspowner), ''), 'comment', obj_description(n.oid, 'pg_namespace'),
      'privileges', {of_schema})), '[]') FROM pg_namespace n),
  'types', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'oid', t.oid::int8, 'schema', s.nspname, 'name', t.typname, 'kind', t.typtype,
      'labels', (SELECT coalesce(jsonb_agg(e.enumlabel ORDER BY e.enumsortorder), '[]') FROM pg_enum e WHERE e.enumtypid = t.oid),
      'owner', coalesce(pg_get_userbyid(t.typowner), ''), 'base', jsonb_build_array(t.typbasetype::int8, t.typtypmod), 'not_null', t.typnotnull,
      'over_domain', EXISTS (SELECT FROM pg_type b WHERE b.oid = t.typbasetype AND b.typtype = 'd'),
      'collation', (SELECT {collation} FROM pg_collation o JOIN pg_type b ON b.oid = t.typbasetype WHERE o.oid = t.typcollation),
      'default', CASE WHEN t.typtype = 'd' THEN pg_get_expr(t.typdefaultbin, 0) END,
      'checks', (SELECT coalesce(jsonb_agg(pg_get_expr(k.conbin, 0) ORDER BY k.oid), '[]') FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'),
      'attributes', (
        SELECT coalesce(jsonb_agg(jsonb_build_array(a.attname, a.atttypid::int8, a.atttypmod, {attribute_collation}) ORDER BY a.attnum), '[]')
        FROM pg_attribute a WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped),
      'comment', obj_description(t.oid, 'pg_type'), 'privileges', {of_type})), '[]')
    FROM pg_type t JOIN seen s ON s.oid = t.typnamespace
    WHERE t.typname = ANY ($1) AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))),
  'functions', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'oid', p.oid::int8, 'schema', s.nspname, 'name', p.proname, 'owner', coalesce(pg_get_userbyid(p.proowner), ''),
      'parameters', (
        SELECT coalesce(jsonb_agg(jsonb_build_array(coalesce(p.proargnames[a.n], ''), coalesce(p.proargmodes[a.n], 'i'), a.type::int8,
                                                    pg_get_function_arg_default(p.oid, a.n::int)) ORDER BY a.n), '[]')
        FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS a (type, n)),
      'leakproof', p.proleakproof, 'parallel', p.proparallel, 'statements', {STATEMENTS},
      'arguments', CASE WHEN p.prokind = 'p' THEN coalesce(to_jsonb(p.proallargtypes::int8[]), to_jsonb(p.proargtypes::oid[]::int8[]))
                        ELSE to_jsonb(p.proargtypes::oid[]::int8[]) END,
      'signature', coalesce(pg_get_function_identity_arguments(p.oid), ''), 'returns', p.prorettype::int8, 'set', p.proretset,
      'language', l.lanname, 'body', p.prosrc, 'volatility', p.provolatile, 'strict', p.proisstrict, 'security_definer', p.prosecdef,
      'sets', (SELECT coalesce(jsonb_agg(jsonb_build_array(split_part(x, '=', 1), substr(x, strpos(x, '=') + 1))), '[]') FROM unnest(p.proconfig) x),
      'comment', obj_description(p.oid, 'pg_proc'), 'privileges', {of_function})), '[]')
    FROM pg_proc p JOIN seen s ON s.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE p.proname = ANY ($1)),
  'relations', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
      'oid', c.oid::int8, 'schema', c.nspname, 'name', c.relname, 'kind', c.relkind, 'row_security', c.relrowsecurity,
      'force', c.relforcerowsecurity, 'comment', obj_description(c.oid, 'pg_class'),
      -- What is dropped meanwhile is NULL.
      'may_select', coalesce(c.relkind NOT IN ('i', 'I') AND has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), false),
      'privileges', {of_relation},
      'query', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END, 'owner', coalesce(pg_get_userbyid(c.relowner), ''),
      'partition_key', CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
      'partition_of', (
        SELECT jsonb_build_array(n.nspname, w.relname, w.oid::int8, coalesce(pg_get_expr(c.relpartbound, c.oid), ''))
        FROM pg_inherits h JOIN pg_class w ON w.oid = h.inhparent JOIN pg_namespace n ON n.oid = w.relnamespace
        WHERE h.inhrelid = c.oid AND c.relispartition AND c.relkind NOT IN ('i', 'I')),
      'has_heirs', c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid),
      'row_type_used_by', (
        SELECT coalesce(jsonb_agg(coalesce(pg_describe_object(d.classid, d.objid, d.objsubid), '') ORDER BY d.classid, d.objid, d.objsubid), '[]')
        FROM pg_type y JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid IN (y.oid, y.typarray)
        WHERE y.oid = c.reltype AND c.reltype <> 0 AND d.deptype = 'n' AND c.relkind IN ('r', 'p', 'f')
          AND d.classid IN ('pg_class'::regclass, 'pg_type'::regclass)),
      'inherits', (
        SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, w.relname) ORDER BY h.inhseqno), '[]')
        FROM pg_inherits h JOIN pg_class w ON w.oid = h.inhparent JOIN pg_namespace n ON n.oid = w.relnamespace
        WHERE h.inhrelid = c.oid AND NOT c.relispartition AND c.relkind NOT IN ('i', 'I')),
      'sequence', CASE WHEN c.relkind = 'S' THEN (
        SELECT jsonb_build_object(
          'type_oid', q.seqtypid::int8, 'start', q.seqstart, 'increment', q.seqincrement, 'minimum', q.seqmin, 'maximum', q.seqmax,
          'cache', q.seqcache, 'cycle', q.seqcycle,
          'owned', (SELECT jsonb_build_array(n.nspname, o.relname, a.attname)
                    FROM pg_depend d JOIN pg_class o ON o.oid = d.refobjid JOIN pg_namespace n ON n.oid = o.relnamespace
                    JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum = d.refobjsubid
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
        FROM pg_sequence q WHERE q.seqrelid = c.oid) END,
      'columns', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
          'number', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::int8, 'modifier', a.atttypmod, 'type_name', coalesce(format_type(a.atttypid, a.atttypmod), ''),
          'collation', {attribute_collation},
          'not_null', {NOT_NULL}, 'default', pg_get_expr(d.adbin, d.adrelid), 'identity', a.attidentity::text, 'generated', a.attgenerated::text,
          'serial', EXISTS (SELECT FROM pg_depend x JOIN pg_class q ON q.oid = x.objid AND q.relkind = 'S'
                            WHERE x.classid = 'pg_class'::regclass AND x.refclassid = 'pg_class'::regclass AND x.refobjid = a.attrelid
                              AND x.refobjsubid = a.attnum AND x.deptype = 'a'),
          'inherited', a.attinhcount > 0,
          'comment', col_description(a.attrelid, a.attnum)) ORDER BY a.attnum), '[]')
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind NOT IN ('i', 'I', 'S')),
      'constraints', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
          'oid', k.oid::int8, 'name', k.conname, 'kind', k.contype, 'columns', {own_columns},
          'parent', CASE WHEN k.confrelid <> 0 THEN (SELECT jsonb_build_array(n.nspname, f.relname) FROM pg_class f JOIN pg_namespace n ON n.oid = f.relnamespace
                                                     WHERE f.oid = k.confrelid) END,
          'parent_columns', {parent_columns},
          'matching', k.confmatchtype::text, 'on_update', k.confupdtype::text, 'on_delete', k.confdeltype::text,
          'deferrable', k.condeferrable, 'deferred', k.condeferred, 'validated', k.convalidated,
          'enforced', {enforced}, 'period', {period}, 'attached', k.conparentid <> 0,
          'expression', CASE WHEN k.contype = 'c' THEN pg_get_expr(k.conbin, k.conrelid) END, 'index', k.conindid::int8,
          'operators', (SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, o.oprname) ORDER BY x.n), '[]')
                        FROM unnest(k.conexclop) WITH ORDINALITY AS x (operator, n) JOIN pg_operator o ON o.oid = x.operator JOIN pg_namespace n ON n.oid = o.oprnamespace),
          'nulls_not_distinct', coalesce((SELECT {NULLS_NOT_DISTINCT} FROM pg_index i WHERE i.indexrelid = k.conindid), false),
          'definition', coalesce(pg_get_constraintdef(k.oid), '')) ORDER BY k.conname), '[]')
        FROM pg_constraint k WHERE k.conrelid = c.oid AND c.relkind NOT IN ('i', 'I') AND k.contype IN ('c', 'f', 'p', 'u', 'x', 'n')),
      'triggers', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
          'oid', g.oid::int8, 'name', g.tgname, 'kind', g.tgtype, 'columns', {trigger_columns},
          'function', (SELECT jsonb_build_array(n.nspname, p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = g.tgfoid),
          'arguments', (
            SELECT coalesce(jsonb_agg(convert_from(decode(replace(part.hex, ' ', ''), 'hex'), current_setting('server_encoding')) ORDER BY part.n), '[]')
            FROM unnest(string_to_array(regexp_replace(encode(g.tgargs, 'hex'), '(..)', '\1 ', 'g'), '00 ')) WITH ORDINALITY AS part (hex, n)
            WHERE part.n <= g.tgnargs),
          'condition', g.tgqual::text, 'definition', coalesce(pg_get_triggerdef(g.oid), ''), 'firing', g.tgenabled, 'constraint', jsonb_build_array(g.tgconstraint <> 0, g.tgdeferrable, g.tginitdeferred),
          'transitions', jsonb_build_array(g.tgoldtable, g.tgnewtable))), '[]')
        FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgparentid = 0),
      'policies', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
          'oid', y.oid::int8, 'name', y.polname, 'command', y.polcmd, 'permissive', y.polpermissive,
          'roles', (SELECT jsonb_agg(CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r) END ORDER BY CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r) END COLLATE "C") FROM unnest(y.polroles) r),
          'using', pg_get_expr(y.polqual, y.polrelid), 'check', pg_get_expr(y.polwithcheck, y.polrelid))), '[]')
        FROM pg_policy y WHERE y.polrelid = c.oid),
      'index', (
        SELECT jsonb_build_object(
          'table', i.indrelid::int8, 'unique', i.indisunique, 'valid', i.indisvalid, 'nulls_not_distinct', {NULLS_NOT_DISTINCT},
          'method', m.amname, 'predicate', pg_get_expr(i.indpred, i.indrelid), 'definition', coalesce(pg_get_indexdef(i.indexrelid), ''),
          'attached', EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid),
          'of_constraint', EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')),
          'including', (SELECT coalesce(jsonb_agg(a.attname ORDER BY k.n), '[]')
                        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, n) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                        WHERE k.n > i.indnkeyatts),
          'keys', (SELECT jsonb_agg(jsonb_build_object(
                     'column', a.attname,
                     'expression', CASE WHEN k.number = 0 THEN pg_get_indexdef(i.indexrelid, k.n::int, false) END,
                     'descending', i.indoption[k.n - 1] & 1 <> 0, 'nulls_first', i.indoption[k.n - 1] & 2 <> 0,
                     'operator_class', o.opcname, 'default_class', o.opcdefault,
                     'collation', (SELECT jsonb_build_array(n.nspname, l.collname, k.number <> 0 AND l.oid <> a.attcollation)
                                   FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = i.indcollation[k.n - 1])) ORDER BY k.n)
                   FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, n)
                   LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number <> 0
                   LEFT JOIN pg_opclass o ON o.oid = i.indclass[k.n - 1]
                   WHERE k.n <= i.indnkeyatts))
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam WHERE i.indexrelid = c.oid)
      )), '[]')
    FROM relation c))"#,
            own_columns = names_of("k.conkey", "k.conrelid"),
            parent_columns = names_of("k.confkey", "k.confrelid"),
            trigger_columns = names_of("g.tgattr::int2[]", "g.tgrelid"),
            collation = "jsonb_build_array((SELECT n.nspname FROM pg_namespace n WHERE n.oid = o.collnamespace), o.collname, o.oid <> b.typcollation)",
            attribute_collation = "(SELECT jsonb_build_array(n.nspname, o.collname, o.oid <> b.typcollation) FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace
                                    JOIN pg_type b ON b.oid = a.atttypid WHERE o.oid = a.attcollation)",
        );
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // Compiling the statement takes longer than it runs.
        let _jit = Settings::push(&[("jit", "off")]);
        let arguments = [names.into()];
        let mut actual: ActualSchema = read_json(&sql, &arguments)?;
        actual.path = path;
        actual.code_of_others = domains_of_others_run_code()?;
        let names = actual.relations.iter().enumerate();
        actual.by_name = names.map(|(at, r)| ((r.schema.clone(), r.name.clone()), at)).collect();
        Ok(actual)
    }
}
