//! Small pieces of SQL text: comparisons that cannot be hijacked, lists, indentation.

use crate::catalog::{Catalog, Type};

/// `a = b` for values of these column types, by the operator of the type itself: for a type outside pg_catalog the
/// plain sign would silently fall back to another type's (citext to text).
pub fn equal(catalog: &Catalog, a: &str, a_type: u32, b: &str) -> String {
    match foreign_operator(catalog, a_type) {
        Some(operator) => format!("{a} {operator} {b}"),
        None => format!("{a} = {b}"),
    }
}

/// `NOT a = b`; NULL where either is NULL.
pub fn differs(catalog: &Catalog, a: &str, a_type: u32, b: &str) -> String {
    match foreign_operator(catalog, a_type) {
        Some(operator) => format!("NOT ({a} {operator} {b})"),
        None => format!("{a} <> {b}"),
    }
}

fn foreign_operator(catalog: &Catalog, type_oid: u32) -> Option<String> {
    let (base, _): (&Type, i32) = catalog.base_type(type_oid, -1)?;
    let operator = base
        .equality
        .as_ref()
        .filter(|operator| operator.schema != "pg_catalog")?;
    Some(format!(
        "OPERATOR({}.{})",
        crate::identifier::Identifier::new(&operator.schema),
        operator.name
    ))
}

/// `a IS NOT NULL AND b IS NOT NULL`
pub fn all_set(expressions: &[String]) -> String {
    expressions
        .iter()
        .map(|e| format!("{e} IS NOT NULL"))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// Joins with OR, in parentheses where more than one; `false` for none.
pub fn any(conditions: &[String]) -> String {
    match conditions {
        [] => "false".into(),
        [one] => one.clone(),
        several => format!("({})", several.join(" OR ")),
    }
}

/// Puts `by` spaces in front of every line.
pub fn indent(sql: &str, by: usize) -> String {
    let pad = " ".repeat(by);
    sql.lines()
        .map(|line| {
            if line.is_empty() {
                String::new()
            } else {
                format!("{pad}{line}")
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}
