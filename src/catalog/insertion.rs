//! What a new row of a table needs and meets: read only for the table to which rows are added.

use pgrx::prelude::*;
use serde::Deserialize;

use super::code::is_plain;
use super::details::{Check, NULLS_NOT_DISTINCT, UniqueIndex, unique_index};
use super::types::{Catalog, Column, Table};
use crate::pg::read_json;
use crate::problem::Problem;

/// Everything that decides what an INSERT that names only some columns does.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Insertion {
    /// Columns that have a value without being named: a default, an identity, a generated column, a domain's default.
    pub with_default: Vec<i16>,
    /// What a column gets where it is not named, as SQL: its default, or the next value of its identity.
    #[serde(default)]
    pub defaults: Vec<(i16, String)>,
    /// Columns whose domain refuses NULL.
    pub domain_not_null: Vec<i16>,
    /// CHECK constraints.
    pub checks: Vec<Check>,
    /// Generated columns with their expressions.
    pub generated: Vec<(i16, String)>,
    /// Unique indexes that are no plain keys: with predicates, expressions, NULLS NOT DISTINCT.
    pub unique_indexes: Vec<UniqueIndex>,
    /// Exclusion constraints: they are not predicted.
    pub exclusions: Vec<String>,
    /// Triggers that fire on INSERT.
    pub triggers: Vec<String>,
    /// Rewrite rules ON INSERT.
    pub rules: Vec<String>,
    /// Sequences behind columns: column, name for setval.
    pub sequences: Vec<(i16, String)>,
    /// CHECKs of the columns' domains, with the column; their expressions speak of VALUE.
    pub domain_checks: Vec<(i16, Check)>,
    /// As [`super::Details::code`].
    pub code: Vec<String>,
}

/// `conenforced` exists since 18.
const ENFORCED: &str = if cfg!(feature = "pg18") {
    "AND k.conenforced"
} else {
    ""
};

impl Insertion {
    /// Is what these columns get known before the row is written?
    ///
    /// * `known`: the call gives it.
    pub fn is_known(&self, columns: &[i16], known: &dyn Fn(i16) -> bool) -> bool {
        // 0 stands for the whole row.
        !columns.contains(&0) && columns.iter().all(|c| known(*c) || !self.with_default.contains(c))
    }

    /// What may refuse a new row of `table` for what is not known before: constraints, indexes, a partition that is not there.
    pub fn unpredicted(&self, table: &Table, known: &dyn Fn(i16) -> bool) -> Vec<&str> {
        let checks = self.checks.iter().map(|check| (&check.name, &check.columns));
        let indexes = self.unique_indexes.iter().map(|index| (&index.name, &index.columns));
        self.exclusions
            .iter()
            .chain(
                checks
                    .chain(indexes)
                    .filter(|(_, columns)| !self.is_known(columns, known))
                    .map(|(name, _)| name),
            )
            .map(String::as_str)
            .chain((table.kind == 'p').then_some("a partition for each new row"))
            .collect()
    }
}

impl Catalog {
    /// The type in which a column's values are stored, with its modifier (of a domain the base, with that of the domain), as SQL.
    ///
    /// Errors: those of SPI only.
    pub fn stored_type(&self, column: &Column) -> Result<String, Problem> {
        let Some((base, modifier)) = self.base_type(column.type_oid, column.type_modifier) else {
            return Ok("pg_catalog.text".into());
        };
        if modifier < 0 {
            return Ok(base.sql());
        }
        let sql = "SELECT pg_catalog.format_type($1, $2)";
        let arguments = [pg_sys::Oid::from(base.oid).into(), modifier.into()];
        let name = Spi::connect(|client| client.select(sql, None, &arguments)?.first().get_one::<String>())?;
        Ok(name.unwrap_or_else(|| base.sql()))
    }

    /// Reads what a new row of `table` needs.
    ///
    /// Errors: those of SPI only.
    pub fn insertion(&self, table: &Table) -> Result<Insertion, Problem> {
        let sql = format!(
            r#"
WITH RECURSIVE domains AS (
  SELECT a.attnum, t.oid, t.typtype, t.typnotnull, t.typdefault, t.typbasetype
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT d.attnum, t.oid, t.typtype, t.typnotnull, t.typdefault, t.typbasetype
  FROM domains d JOIN pg_type t ON t.oid = d.typbasetype
  WHERE d.typtype = 'd'
)
SELECT jsonb_build_object(
  'with_default', (
    SELECT coalesce(jsonb_agg(a.attnum ORDER BY a.attnum), '[]') FROM pg_attribute a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
      AND (a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> ''
           OR EXISTS (SELECT FROM domains d WHERE d.attnum = a.attnum AND d.typtype = 'd' AND d.typdefault IS NOT NULL))),
  'defaults', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(d.attnum, d.value) ORDER BY d.attnum), '[]')
    FROM (
      SELECT a.attnum, pg_get_expr(f.adbin, f.adrelid) AS value
      FROM pg_attribute a JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
      WHERE a.attrelid = $1 AND a.attgenerated = '' AND NOT a.attisdropped
      UNION ALL
      SELECT d.refobjsubid, 'nextval(' || quote_literal(d.objid::regclass::text) || '::regclass)'
      FROM pg_depend d
      WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype = 'i'
        AND d.refobjsubid > 0 AND EXISTS (SELECT FROM pg_class s WHERE s.oid = d.objid AND s.relkind = 'S')) d),
  'domain_not_null', (
    SELECT coalesce(jsonb_agg(DISTINCT d.attnum), '[]') FROM domains d WHERE d.typtype = 'd' AND d.typnotnull),
  'checks', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
             'name', k.conname, 'expression', pg_get_expr(k.conbin, k.conrelid), 'columns', coalesce(k.conkey, '{{}}'))
             ORDER BY k.conname), '[]')
    FROM pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'c' {ENFORCED}),
  'generated', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(a.attnum, pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attnum), '[]')
    FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1 AND a.attgenerated <> '' AND NOT a.attisdropped),
  'unique_indexes', (
    SELECT coalesce(jsonb_agg({unique_index} ORDER BY u.relname), '[]')
    FROM (SELECT i.*, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid) u
    WHERE u.indrelid = $1 AND u.indisready AND u.indisunique AND NOT u.indisexclusion
      AND (u.indpred IS NOT NULL OR u.indexprs IS NOT NULL OR {nulls_not_distinct})),
  'exclusions', (
    SELECT coalesce(jsonb_agg(c.relname ORDER BY c.relname), '[]')
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = $1 AND i.indisready AND i.indisexclusion),
  'triggers', (
    SELECT coalesce(jsonb_agg(g.tgname ORDER BY g.tgname), '[]') FROM pg_trigger g
    WHERE g.tgrelid = $1 AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND (g.tgtype & 4) <> 0),
  'rules', (
    SELECT coalesce(jsonb_agg(r.rulename ORDER BY r.rulename), '[]') FROM pg_rewrite r
    WHERE r.ev_class = $1 AND r.ev_type = '3' AND r.ev_enabled <> 'D'),
  'domain_checks', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(d.attnum, jsonb_build_object(
             'name', k.conname, 'expression', pg_get_expr(k.conbin, 0), 'columns', '[]'::jsonb)) ORDER BY d.attnum, k.conname), '[]')
    FROM domains d JOIN pg_constraint k ON k.contypid = d.oid AND k.contype = 'c' WHERE d.typtype = 'd'),
  'code', (
    SELECT coalesce(jsonb_agg(DISTINCT c.name), '[]')
    FROM (
      SELECT k.conname::text, k.conbin::text FROM pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'c' {ENFORCED}
      UNION ALL
      SELECT k.conname, k.conbin::text FROM domains d JOIN pg_constraint k ON k.contypid = d.oid AND k.contype = 'c'
      UNION ALL
      SELECT c.relname, i.indexprs::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1
      UNION ALL
      SELECT c.relname, i.indpred::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1
      UNION ALL
      SELECT a.attname, d.adbin::text
      FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = $1 AND a.attgenerated <> '' AND NOT a.attisdropped
    ) c (name, tree)
    WHERE NOT {plain}),
  'sequences', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(d.refobjsubid, quote_ident(n.nspname) || '.' || quote_ident(s.relname))), '[]')
    FROM pg_depend d
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    JOIN pg_namespace n ON n.oid = s.relnamespace
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
      AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0))"#,
            unique_index = unique_index(),
            nulls_not_distinct = NULLS_NOT_DISTINCT.replace("i.", "u."),
            plain = is_plain("c.tree"),
        );
        let arguments = [pg_sys::Oid::from(table.oid).into()];
        read_json(&sql, &arguments)
    }
}
