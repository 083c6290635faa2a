//! What a parent is found by and given: expressions over the row, of the types as they are stored.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use serde_json::{Map, Value};

use crate::catalog::{Catalog, Column, Table, numeric_modifier};
use crate::identifier::Literal;
use crate::pg;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::Session;

/// One column of the parent and where its value comes from.
#[derive(Debug, Clone)]
pub struct ColumnExpression<'a> {
    /// The parent's column.
    pub column: &'a Column,
    /// As typed, for the note and the record.
    pub expression: String,
    /// Over `t`, of the column's base type.
    pub sql: String,
    /// The column's base type.
    pub type_oid: u32,
    /// As Postgres would keep the expression; `None`: it is ours.
    pub tree: Option<String>,
    /// Over `t`: the value exists and is none of the type's (an enum's labels); with the type's name.
    pub misfit: Option<(String, String)>,
}

/// Reads each expression of `match` (with `normalize`) or `set`.
pub(super) fn column_expressions<'a>(
    session: &'a Session,
    table: &Table,
    parent: &'a Table,
    what: &str,
    asked: &Map<String, Value>,
    (normalize, each): (Option<&Map<String, Value>>, bool),
    problems: &mut Problems,
) -> Result<Vec<ColumnExpression<'a>>, Problem> {
    let catalog = &session.catalog;
    let mut found: Vec<ColumnExpression> = Vec::new();
    for (name, value) in asked {
        let Some(column) = problems.keep(catalog.resolve_column(parent, name)) else {
            continue;
        };
        let place = format!("{what}: {} of {}", column.quoted, catalog.display(parent));
        if found.iter().any(|g| g.column.number == column.number) {
            problems.push(Problem::invalid_parameter(
                format!("{place} is named twice"),
                "name it once",
            ));
            continue;
        }
        if column.generated || column.identity_always {
            problems.push(Problem::invalid_parameter(
                format!("{place} is computed by Postgres"),
                format!("leave it out of {what}"),
            ));
            continue;
        }
        let expression = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                problems.push(Problem::invalid_parameter(
                    format!("{place} is no expression"),
                    "give a text with an SQL expression over the row, a number or a boolean",
                ));
                continue;
            }
        };
        let (relation, caller) = (table.relation_sql(), session.caller.as_pairs());
        let read = pg::subtransaction(AssertUnwindSafe(|| {
            pg::qualify_expression(&expression, &place, &relation, table.oid, "t", &caller)
        }));
        let read = read.map_err(|problem| Problem {
            message: match problem.message.starts_with(&place) {
                true => problem.message.clone(),
                false => format!("{place}: {}", problem.message),
            },
            hint: problem.hint.or_else(|| {
                let columns: Vec<&str> = table.columns.iter().map(|c| c.quoted.as_str()).collect();
                Some(format!(
                    "it is an expression over the columns of {}: {}",
                    catalog.display(table),
                    columns.join(", ")
                ))
            }),
            ..problem
        });
        let Some(read) = problems.keep(read) else {
            continue;
        };
        if problems.keep(session.hold(read.relations.iter().copied())).is_none() {
            continue;
        }
        let (sql, volatile, from) = (read.prefixed, read.volatile, read.type_oid);
        if volatile && !(each && what == "set") {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("{place}: the expression is volatile: it returns a different value each time"),
                )
                .hint(
                    "rows that share a parent must agree on it; let a default of the column give it. A function of your own that always gives the same can be marked STABLE or IMMUTABLE",
                ),
            );
            continue;
        }
        if let Some(name) = row_reference_in(&sql) {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("{place}: the expression reads {name}"),
                )
                .hint("name the columns that it needs"),
            );
            continue;
        }
        let Some((base, _)) = catalog.base_type(column.type_oid, -1) else {
            continue;
        };
        if !base.is_trusted() {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("{place} is of type {}, which belongs to another role", base.display),
                )
                .detail("comparing its values could run a cast of that role with your rights")
                .hint("run it as that role"),
            );
            continue;
        }
        if base.equality.is_none() || base.category == 'A' {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!(
                        "{place} is of type {}, whose values cannot be compared here",
                        base.display
                    ),
                )
                .hint(format!("leave it out of {what}, and fill it afterwards")),
            );
            continue;
        }
        if !base.is_built_in() && base.kind != 'e' && from != base.oid && from != column.type_oid {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!("{place} is of type {}, the expression is not", base.display),
                )
                .detail("a cast between them may be a function of whoever owns the type, and is not run")
                .hint(format!("write it as a value of its type: $$'...'::{}$$", base.display)),
            );
            continue;
        }
        let mut misfit = None;
        // As it will be stored: an assignment rounds as a cast does. Of texts, a cast would cut what an assignment refuses.
        let mut cast = match base.is_string() {
            true => format!("({sql})::{}", base.sql()),
            false => format!("({sql})::{}", catalog.stored_type(column)?),
        };
        if base.kind == 'e' {
            let labels: Vec<String> = base
                .labels
                .iter()
                .map(|label| Literal::new(label).to_string())
                .collect();
            let text = format!("({})", catalog.text_sql(&format!("({sql})"), from));
            let fits = format!("{text} = ANY (ARRAY[{}]::pg_catalog.text[])", labels.join(", "));
            misfit = Some((format!("NOT ({fits})"), base.display.clone()));
            // Constants are read by the input function of the type; a cast from a text could be somebody's own function.
            let cases = labels
                .iter()
                .map(|label| format!("WHEN {label} THEN {label}::{}", base.sql()));
            cast = format!("CASE {text} {} END", cases.collect::<Vec<_>>().join(" "));
        }
        if let Some(condition) = not_a_number_condition(catalog, column, from, &sql).filter(|_| !volatile) {
            cast = format!("CASE WHEN NOT ({condition}) THEN {cast} END");
            misfit = Some((condition, base.display.clone()));
        }
        if let Some(normalize) = normalize {
            let mine = normalize.iter().find(|(name, _)| {
                catalog
                    .resolve_column(parent, name)
                    .is_ok_and(|c| c.number == column.number)
            });
            if let Some((_, ways)) = mine {
                cast = match base.is_string() {
                    true => normalized(&place, &cast, ways, problems),
                    false => {
                        problems.push(Problem::invalid_parameter(
                            format!("normalize: {} is of type {}", column.quoted, base.display),
                            "only texts are normalized",
                        ));
                        cast
                    }
                };
                cast = format!("({cast})::{}", base.sql());
            }
            // An empty part says as little as none.
            if base.is_string() {
                cast = format!("NULLIF({cast}, ''::{})", base.sql());
            }
        }
        if base.is_string() {
            if let Some(length) = longest(catalog, column) {
                // Blanks behind the end are cut by an assignment as well.
                cast = format!(
                    "CASE WHEN pg_catalog.char_length({cast}::pg_catalog.text) > {length} AND pg_catalog.char_length(pg_catalog.rtrim({cast}::pg_catalog.text, ' ')) <= {length} \
                     THEN pg_catalog.\"left\"({cast}::pg_catalog.text, {length})::{} ELSE {cast} END",
                    base.sql()
                );
            }
            // Compared and grouped as the parent's own key is.
            let collation = column.collation.as_deref().unwrap_or("pg_catalog.\"default\"");
            cast = format!("({cast}) COLLATE {collation}");
        }
        found.push(ColumnExpression {
            column,
            expression,
            sql: cast,
            type_oid: base.oid,
            tree: Some(read.tree),
            misfit,
        });
    }
    Ok(found)
}

/// The condition under which a number, or a text, is no value of the number or uuid column that it is to be stored in.
///
/// * `from`: the type of the value.
///
/// `None`: it always is, or only the cast itself can tell.
fn not_a_number_condition(catalog: &Catalog, column: &Column, from: u32, sql: &str) -> Option<String> {
    let (base, modifier) = catalog.base_type(column.type_oid, column.type_modifier)?;
    let built_in = |name: &str| base.schema == "pg_catalog" && base.name == name;
    let (source, _) = catalog.base_type(from, -1).unzip();
    // Types of constants are not among those of columns: oids of pg_type.dat.
    let source = source.map_or(from, |source| source.oid);
    let text = format!("({sql})::pg_catalog.text");
    if built_in("uuid") && matches!(source, 25 | 1042 | 1043) {
        let plain = "^[[:space:]]*[{]?[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}[}]?[[:space:]]*$";
        return Some(format!("{text} !~ '{plain}'"));
    }
    let (least, most) = match base.name.as_str() {
        _ if base.schema != "pg_catalog" => return None,
        "int2" => (i16::MIN.to_string(), i16::MAX.to_string()),
        "int4" => (i32::MIN.to_string(), i32::MAX.to_string()),
        "int8" => (i64::MIN.to_string(), i64::MAX.to_string()),
        "numeric" if modifier >= 4 => {
            let (precision, scale) = numeric_modifier(modifier);
            let limit = format!("(10::pg_catalog.numeric ^ ({}))", precision - scale);
            let number = |value: &str| {
                format!("pg_catalog.abs(pg_catalog.round({value}, {scale})) >= {limit} AND {value} <> 'NaN'")
            };
            return match source {
                20 | 21 | 23 | 700 | 701 | 1700 => Some(number(&format!("({sql})::pg_catalog.numeric"))),
                _ => None,
            };
        }
        _ => return None,
    };
    let outside = |value: &str| format!("pg_catalog.round({value}) NOT BETWEEN {least} AND {most}");
    match source {
        20 | 23 | 700 | 701 | 1700 if source != base.oid => Some(outside(&format!("({sql})::pg_catalog.numeric"))),
        25 | 1042 | 1043 => Some(format!(
            "CASE WHEN {text} ~ '^[[:space:]]*[+-]?[0-9]+[[:space:]]*$' THEN {} ELSE {text} IS NOT NULL END",
            outside(&format!("({text})::pg_catalog.numeric"))
        )),
        _ => None,
    }
}

/// How many letters a varchar(n) or char(n) holds.
pub fn longest(catalog: &Catalog, column: &Column) -> Option<i32> {
    let (base, modifier) = catalog.base_type(column.type_oid, column.type_modifier)?;
    let bounded = base.schema == "pg_catalog" && matches!(base.name.as_str(), "varchar" | "bpchar") && modifier > 4;
    bounded.then_some(modifier - 4)
}

/// What of the row a deparsed expression reads besides its columns: the row as a whole, or where it is stored.
fn row_reference_in(sql: &str) -> Option<&'static str> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == '$';
    let after = |name: &str| {
        sql.match_indices(name).any(|(at, _)| {
            let before = sql[..at].chars().next_back().is_none_or(|c| !word(c));
            before && (name.ends_with('*') || sql[at + name.len()..].chars().next().is_none_or(|c| !word(c)))
        })
    };
    let system = ["t.ctid", "t.tableoid", "t.xmin", "t.xmax", "t.cmin", "t.cmax"];
    match after("t.*") {
        true => Some("the row as a whole"),
        false => system.iter().any(|name| after(name)).then_some("a system column"),
    }
}

fn normalized(place: &str, sql: &str, ways: &Value, problems: &mut Problems) -> String {
    let ways: Vec<&Value> = match ways {
        Value::Array(ways) => ways.iter().collect(),
        one => vec![one],
    };
    let mut sql = format!("({sql})::pg_catalog.text");
    for way in ways {
        sql = match way.as_str() {
            Some("trim") => format!("pg_catalog.btrim({sql}, E' \\t\\n\\r')"),
            Some("casefold") => format!("pg_catalog.lower({sql})"),
            Some("spaces") => format!("pg_catalog.regexp_replace({sql}, E'\\\\s+', ' ', 'g')"),
            _ => {
                problems.push(Problem::invalid_parameter(
                    format!("{place}: there is no way to normalize called {way}"),
                    "normalize offers 'trim', 'casefold' and 'spaces', or a list of them; any other is an expression in match",
                ));
                sql
            }
        };
    }
    sql
}
