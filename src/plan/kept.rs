//! Rows that were recorded by their primary key (see `Table::row_key_sql`), found again; values that were recorded as text.

use super::expression::equal;
use super::{Query, Statement};
use crate::catalog::{Catalog, Column, Table};
use crate::identifier::Literal;

/// The values of the primary key in `json` are those of the row `alias`.
pub fn key_conditions(catalog: &Catalog, table: &Table, alias: &str, json: &str) -> Vec<String> {
    let key = table.primary_key().map(|key| key.columns.clone()).unwrap_or_default();
    key.iter()
        .filter_map(|c| table.column(*c))
        .map(|c| same_as_kept(catalog, &format!("{alias}.{}", c.sql()), c, c, json))
        .collect()
}

/// `own`, a value of the type of `column`, is the value of the column `kept` in `json`. Of a type that is not Postgres's own the texts are
/// compared: the way back from a text is a cast, and that may be somebody's own function.
pub fn same_as_kept(catalog: &Catalog, own: &str, column: &Column, kept: &Column, json: &str) -> String {
    let name = Literal::new(&kept.name);
    match (
        catalog.base_type(column.type_oid, -1),
        catalog.base_type(kept.type_oid, -1),
    ) {
        (Some((base, _)), Some((of_kept, _))) if base.is_built_in() && of_kept.is_built_in() => {
            let value = format!("({json} ->> {name})::{}", of_kept.sql());
            equal(catalog, own, column.type_oid, &value)
        }
        _ => format!("{} = ({json} ->> {name})", catalog.text_sql(own, column.type_oid)),
    }
}

/// The value of a column that is kept as text in `json`, by the input function of its type. Never through the row of the table: that would
/// ask the domains of its other columns.
pub fn old_value(catalog: &Catalog, column: &Column, json: &str) -> String {
    from_text(catalog, column, &format!("{json} ->> {}", Literal::new(&column.name)))
}

/// The value of a column's type (of a domain, of its base) that the expression `text` writes.
pub fn from_text(catalog: &Catalog, column: &Column, text: &str) -> String {
    match catalog.base_type(column.type_oid, -1) {
        // regclass and its kin have a cast of their own, which does not know the text of an oid without an object.
        Some((base, _)) if base.is_built_in() && !base.name.starts_with("reg") => format!("({text})::{}", base.sql()),
        Some((base, _)) => format!(
            "(SELECT r.v FROM pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object('v', {text})) AS r (v {}))",
            base.sql()
        ),
        None => format!("({text})"),
    }
}

/// A value as its type's output function writes it: a cast to text may be somebody's own, or drop blanks.
pub fn text_of(value: &str) -> String {
    format!("(pg_catalog.concat({value}) COLLATE pg_catalog.\"C\")")
}

/// `jsonb_build_object` of columns and their values, in parts: a call takes 100 arguments at most (FUNC_MAX_ARGS).
pub fn json_object<'a>(values: impl IntoIterator<Item = (&'a Column, String)>) -> String {
    let pairs: Vec<String> = values
        .into_iter()
        .map(|(column, value)| format!("{}, {value}", Literal::new(&column.name)))
        .collect();
    let parts = pairs.chunks(50);
    let parts: Vec<String> = parts
        .map(|part| format!("pg_catalog.jsonb_build_object({})", part.join(", ")))
        .collect();
    match parts.is_empty() {
        true => "'{}'::pg_catalog.jsonb".into(),
        false => parts.join(" || "),
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A value was replaced by another one.
    Replaced,
    /// Values became NULL.
    Nullified,
    /// An undo has put a value back.
    Restored,
    /// The row is new.
    Created,
    /// A row that a run had created went with the undo of it.
    Deleted,
    /// The row went with its table.
    RowDropped,
    /// The value went with its column.
    ValueDropped,
}

impl Change {
    /// As it is kept in `mend.ledger_changes.change`.
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Replaced => "replaced",
            Change::Nullified => "nullified",
            Change::Restored => "restored",
            Change::Created => "created",
            Change::Deleted => "deleted",
            Change::RowDropped => "row_dropped",
            Change::ValueDropped => "value_dropped",
        }
    }
}

/// Columns of a statement whose changes are kept; those that it does not have are NULL. All are text but the last.
pub const KEPT: [&str; 4] = ["row_key", "old_values", "new_values", "row_values"];

/// A SELECT whose rows `run::ledger::keep` takes: numbers first, then one row per change. It has no parameters yet.
///
/// * `queries`: WITH queries.
/// * `numbers`: bigint expressions, each a whole scalar.
/// * `changes`: column of [`KEPT`] and its expression (of type text) over `from`.
/// * `from`: the query with a row per change.
/// * `only`: which of them are kept; `None`: all.
pub fn keeping(
    queries: Vec<Query>,
    numbers: &[&str],
    changes: &[(&str, &str)],
    from: &str,
    only: Option<&str>,
) -> Statement {
    let columns: Vec<String> = KEPT
        .iter()
        .map(|name| {
            let given = changes.iter().find(|(column, _)| column == name);
            given.map_or("NULL::pg_catalog.text".into(), |(_, sql)| sql.to_string())
        })
        .collect();
    let first = Statement::new(format!(
        "SELECT {}, ARRAY[{}]::pg_catalog.int8[] AS numbers",
        vec!["NULL::pg_catalog.text"; KEPT.len()].join(", "),
        numbers.join(", "),
    ));
    let rows = Statement::new(format!(
        "SELECT {}, NULL::pg_catalog.int8[]\nFROM {from}",
        columns.join(", ")
    ));
    Statement::union_all(vec![first, rows.filters(only.map(str::to_string))]).with_queries(queries)
}

/// As [`keeping`] of all rows that one statement returns; its number is how many they are, its parameters stay.
///
/// * `changed`: returns `columns`, called as in [`KEPT`].
///
/// ```text
/// keeping_each(update.ending("RETURNING ... AS row_key"), &["row_key"])
/// ```
pub fn keeping_each(changed: Statement, columns: &[&str]) -> Statement {
    let parameters = changed.parameters().to_vec();
    let texts: Vec<String> = columns.iter().map(|name| format!("{name}::pg_catalog.text")).collect();
    let changes: Vec<(&str, &str)> = columns.iter().copied().zip(texts.iter().map(String::as_str)).collect();
    let count = ["(SELECT pg_catalog.count(*) FROM changed)"];
    keeping(vec![changed.as_query("changed")], &count, &changes, "changed", None).with_parameters(parameters)
}

#[cfg(test)]
mod tests {
    use super::keeping;
    use crate::plan::Query;

    #[test]
    fn a_statement_that_keeps_its_changes_returns_numbers_and_then_changes() {
        let statement = keeping(
            vec![Query::new("written", "UPDATE t SET a = 1 RETURNING a")],
            &["(SELECT pg_catalog.count(*) FROM written)"],
            &[("old_values", "a::text")],
            "written",
            Some("a IS NOT NULL"),
        );
        let expected = "WITH written AS (\n  UPDATE t SET a = 1 RETURNING a\n)\n\
            SELECT NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text, \
            ARRAY[(SELECT pg_catalog.count(*) FROM written)]::pg_catalog.int8[] AS numbers\nUNION ALL\n\
            SELECT NULL::pg_catalog.text, a::text, NULL::pg_catalog.text, NULL::pg_catalog.text, \
            NULL::pg_catalog.int8[]\nFROM written\nWHERE a IS NOT NULL";
        assert_eq!(statement.sql(), expected);
    }
}
