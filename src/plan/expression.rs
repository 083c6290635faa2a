//! Small pieces of SQL text: comparisons that cannot be hijacked, lists, indentation.

use crate::catalog::{Catalog, Details};

/// `a = b` for values of these column types, by the operator of the type itself: for a type outside pg_catalog the
/// plain sign would silently fall back to another type's (citext to text).
///
/// Of a type whose owner the caller does not trust, the texts are compared: a cast of the owner's could come before the operator.
pub fn equal(catalog: &Catalog, a: &str, a_type: u32, b: &str) -> String {
    match Comparison::of(catalog, a_type) {
        Comparison::Plain => format!("{a} = {b}"),
        Comparison::By(operator) => format!("{a} {operator} {b}"),
        Comparison::ByText => format!("({}) = ({})", catalog.text_sql(a, a_type), catalog.text_sql(b, a_type)),
    }
}

/// `a = ANY (array)`, for an array of texts where [`compared_as_text`]; NULL where `a` is NULL, or the array has none like it and holds a
/// NULL.
pub fn equals_any(catalog: &Catalog, a: &str, a_type: u32, array: &str) -> String {
    match Comparison::of(catalog, a_type) {
        Comparison::Plain => format!("{a} = ANY ({array})"),
        Comparison::By(operator) => format!("{a} {operator} ANY ({array})"),
        Comparison::ByText => format!("({}) = ANY ({array})", catalog.text_sql(a, a_type)),
    }
}

/// `a` is what `text` (an expression of type text) says, read as a value of this type. Of a type that is not Postgres's own the texts are
/// compared: a cast from a text could be somebody's own function.
pub fn equals_text(catalog: &Catalog, a: &str, a_type: u32, text: &str) -> String {
    match catalog.base_type(a_type, -1) {
        Some((base, _)) if base.is_built_in() => equal(catalog, a, a_type, &format!("CAST({text} AS {})", base.sql())),
        _ => format!("({}) = {text}", catalog.text_sql(a, a_type)),
    }
}

/// `NOT a = b`; NULL where either is NULL.
pub fn differs(catalog: &Catalog, a: &str, a_type: u32, b: &str) -> String {
    match Comparison::of(catalog, a_type) {
        Comparison::Plain => format!("{a} <> {b}"),
        Comparison::By(operator) => format!("NOT ({a} {operator} {b})"),
        Comparison::ByText => format!("({}) <> ({})", catalog.text_sql(a, a_type), catalog.text_sql(b, a_type)),
    }
}

/// Are values of this type compared by their texts, because somebody whom the caller does not trust owns it?
pub fn compared_as_text(catalog: &Catalog, type_oid: u32) -> bool {
    matches!(Comparison::of(catalog, type_oid), Comparison::ByText)
}

/// How values of one type are compared.
enum Comparison {
    /// By the sign: it finds the type's own operator, in pg_catalog.
    Plain,
    /// By an operator outside of it.
    By(String),
    /// By their texts.
    ByText,
}

impl Comparison {
    fn of(catalog: &Catalog, type_oid: u32) -> Comparison {
        let Some((base, _)) = catalog.base_type(type_oid, -1) else {
            return Comparison::Plain;
        };
        if !base.is_trusted() {
            return Comparison::ByText;
        }
        match base
            .equality
            .as_ref()
            .filter(|operator| operator.schema != "pg_catalog")
        {
            Some(operator) => Comparison::By(format!(
                "OPERATOR({}.{})",
                crate::identifier::Identifier::new(&operator.schema),
                operator.name
            )),
            None => Comparison::Plain,
        }
    }
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
    let padding = " ".repeat(by);
    let mut indented = String::with_capacity(sql.len() + by);
    // Inside quotes a line break is part of a value or a name, and what follows it as well.
    let (mut quote, mut starts) = (None, true);
    for c in sql.chars() {
        if starts && c != '\n' {
            indented.push_str(&padding);
        }
        starts = false;
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '\n') => starts = true,
            _ => {}
        }
        indented.push(c);
    }
    indented
}

/// Does an expression that Postgres wrote out under `search_path = pg_catalog` name a function or operator outside of
/// pg_catalog? Those are the ones with a schema in front: `public.f(x)`, `OPERATOR(public.=)`. (A string that looks like
/// one counts too: nothing is lost but parallel workers.)
pub fn calls_user_code(expression: &str) -> bool {
    if expression.contains("OPERATOR(") {
        return true;
    }
    expression.match_indices('.').any(|(at, _)| {
        let rest = &expression[at + 1..];
        let name = match rest.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map(|end| end + 2),
            None => Some(
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
                    .unwrap_or(rest.len()),
            ),
        };
        name.is_some_and(|end| end > 0 && rest[end..].starts_with('('))
    })
}

/// Does what a table enforces call code of users, see [`calls_user_code`]?
pub fn asks_user_code(details: &Details) -> bool {
    let checks = details.checks.iter().chain(&details.domain_checks);
    let indexes = details.unique_indexes.iter();
    let indexes = indexes.flat_map(|index| index.expressions.iter().chain(&index.predicate));
    checks
        .map(|check| &check.expression)
        .chain(indexes)
        .chain(details.generated.iter().map(|(_, expression)| expression))
        .any(|text| calls_user_code(text))
}

#[cfg(test)]
mod tests {
    use super::{calls_user_code, indent};

    #[test]
    fn what_stands_in_quotes_is_not_moved() {
        assert_eq!(indent("a\n\nb = 'x\ny''\nz'\nc", 2), "  a\n\n  b = 'x\ny''\nz'\n  c");
        assert_eq!(indent("\"odd\nname\"\n, 'it\"s\n'", 1), " \"odd\nname\"\n , 'it\"s\n'");
    }

    #[test]
    fn calls_of_other_schemas_are_told_from_columns_and_built_in_functions() {
        for own in ["(public.f(t.id) > 1)", "t.a OPERATOR(public.=) t.b", "\"S\".\"f\"(x)"] {
            assert!(calls_user_code(own), "{own}");
        }
        for built_in in [
            "(t.id > 1)",
            "(lower(name) = 'x'::text)",
            "(kind = 'A'::public.\"Kind\")",
            "t.a IN (1.5, 2)",
        ] {
            assert!(!calls_user_code(built_in), "{built_in}");
        }
    }
}
