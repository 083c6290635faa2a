//! Which parent row a key means: compared as foreign keys compare.

use super::expression::equal;
use crate::catalog::{Catalog, Column};

/// `key = value`, where `key` is a column of the parent and `value` of the type of `column`: in the key's own string type (char(n)
/// ignores trailing blanks, text does not), and by its collation (ri_GenerateQualCollation in ri_triggers.c).
///
/// * `column`: where the value comes from; `None`: it has the key's type already.
pub fn same_key(catalog: &Catalog, key: &str, key_column: &Column, value: &str, column: Option<&Column>) -> String {
    let value = match column {
        Some(column) => as_key(catalog, value, column, key_column),
        None => value.to_string(),
    };
    equal(catalog, key, key_column.type_oid, &value)
}

/// `value`, of the type of `column`, in the string type and the collation of `key`: two values are equal then where they mean one parent.
pub fn as_key(catalog: &Catalog, value: &str, column: &Column, key: &Column) -> String {
    let base = |c: &Column| catalog.base_type(c.type_oid, -1).map(|(base, _)| base);
    let value = match (base(column), base(key)) {
        (Some(from), Some(to)) if from.is_string() && to.is_string() && from.oid != to.oid => {
            format!("{value}::{}", to.sql())
        }
        _ => value.to_string(),
    };
    collated(&value, column, key)
}

/// `value`, of the collation of `from`, with that of `to`.
pub fn collated(value: &str, from: &Column, to: &Column) -> String {
    match from.collation == to.collation {
        true => value.to_string(),
        false => format!("{value} COLLATE {}", collation(to)),
    }
}

/// The collation of a column as SQL.
pub fn collation(column: &Column) -> &str {
    column.collation.as_deref().unwrap_or("pg_catalog.\"default\"")
}
