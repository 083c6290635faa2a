//! Calls that are shown to a person: what to run next.

use super::step::{Facts, Wanted};
use crate::catalog::{Catalog, Column, Table};
use crate::identifier::Literal;
use crate::rule::typed;

/// The call that is this gate, as a person types it.
pub fn assertion(catalog: &Catalog, table: &Table, column: &Column, only_where: Option<&str>) -> String {
    let condition = match only_where {
        Some(condition) => format!(", {}", Literal::new(condition)),
        None => String::new(),
    };
    format!(
        "SELECT assert_backfilled({}, {}{condition})",
        Literal::new(&catalog.display(table)),
        Literal::new(&typed(&column.name))
    )
}

/// The root as an argument of a printed call, where this call has one.
pub(super) fn named_root(root: Option<&str>, follows: bool) -> String {
    match root {
        Some(root) => format!("{}root => {}", if follows { ", " } else { "" }, Literal::new(root)),
        None => String::new(),
    }
}

/// The call that looks at a reference, as a person types it.
pub(super) fn validation(facts: &Facts, wanted: &Wanted) -> String {
    let table = facts.catalog.display(facts.table);
    let root = match facts.root {
        Some(_) => format!("{}, ", named_root(facts.root, false)),
        None => String::new(),
    };
    format!(
        "{}SELECT * FROM validate_tenant_fks({root}table_name => {})",
        declaration(facts, wanted),
        Literal::new(&table)
    )
}

/// What nobody but this call knows of is declared first.
pub(super) fn declaration(facts: &Facts, wanted: &Wanted) -> String {
    if wanted.known || wanted.reference.columns.len() > 1 {
        return String::new();
    }
    let reference = &wanted.reference;
    let key: Vec<String> = reference
        .parent
        .names_of(&reference.key)
        .iter()
        .map(|name| typed(name))
        .collect();
    format!(
        "SELECT declare_reference({}, {}, {});\n",
        Literal::new(&facts.catalog.display(facts.table)),
        Literal::new(&typed(&facts.column.name)),
        Literal::new(&format!(
            "{}({})",
            facts.catalog.display(reference.parent),
            key.join(", ")
        ))
    )
}
