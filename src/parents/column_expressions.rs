//! What a parent is found by and given: expressions over the row, of the types as they are stored.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use serde_json::{Map, Value};

use crate::catalog::{Catalog, Column, Table, Type, numeric_modifier};
use crate::identifier::Literal;
use crate::pg::{self, Qualified};
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
    let request = ExpressionRequest {
        session,
        table,
        parent,
        what,
        normalize,
        each,
    };
    let mut found: Vec<ColumnExpression> = Vec::new();
    for (name, value) in asked {
        let Some(column) = problems.keep(session.catalog.resolve_column(parent, name)) else {
            continue;
        };
        let known = found.iter().any(|g| g.column.number == column.number);
        found.extend(request.column_expression(column, value, known, problems)?);
    }
    Ok(found)
}

/// Where expressions are read from, and for what.
struct ExpressionRequest<'s, 'a> {
    session: &'a Session,
    table: &'s Table,
    parent: &'a Table,
    /// `match` or `set`.
    what: &'s str,
    normalize: Option<&'s Map<String, Value>>,
    /// A parent for each row.
    each: bool,
}

impl<'a> ExpressionRequest<'_, 'a> {
    /// What one column of the parent is given; `None` where something is in the way, which is added.
    ///
    /// * `known`: the column was given something before.
    fn column_expression(
        &self,
        column: &'a Column,
        value: &Value,
        known: bool,
        problems: &mut Problems,
    ) -> Result<Option<ColumnExpression<'a>>, Problem> {
        let catalog = &self.session.catalog;
        let place = format!("{}: {} of {}", self.what, column.quoted, catalog.display(self.parent));
        if known {
            problems.push(Problem::invalid_parameter(
                format!("{place} is named twice"),
                "name it once",
            ));
            return Ok(None);
        }
        if column.generated || column.identity_always {
            problems.push(Problem::invalid_parameter(
                format!("{place} is computed by Postgres"),
                format!("leave it out of {}", self.what),
            ));
            return Ok(None);
        }
        let Some(expression) = problems.keep(typed(&place, value)) else {
            return Ok(None);
        };
        let Some(read) = self.read(&place, &expression, problems) else {
            return Ok(None);
        };
        let Some((base, _)) = catalog.base_type(column.type_oid, -1) else {
            return Ok(None);
        };
        if problems
            .keep(self.may_be_stored(&place, column, base, read.type_oid))
            .is_none()
        {
            return Ok(None);
        }
        let (mut sql, misfit) = stored(catalog, column, base, &read)?;
        if self.normalize.is_some() {
            sql = self.normalized(&place, column, base, sql, problems);
        }
        if base.is_string() {
            sql = compared_as_key(catalog, column, base, sql);
        }
        Ok(Some(ColumnExpression {
            column,
            expression,
            sql,
            type_oid: base.oid,
            tree: Some(read.tree),
            misfit,
        }))
    }

    fn read(&self, place: &str, expression: &str, problems: &mut Problems) -> Option<Qualified> {
        let (relation, caller) = (self.table.relation_sql(), self.session.caller.as_pairs());
        let read = pg::subtransaction(AssertUnwindSafe(|| {
            pg::qualify_expression(expression, place, &relation, self.table.oid, "t", &caller)
        }));
        let read = read.map_err(|problem| Problem {
            message: match problem.message.starts_with(place) {
                true => problem.message.clone(),
                false => format!("{place}: {}", problem.message),
            },
            hint: problem.hint.or_else(|| {
                let columns: Vec<&str> = self.table.columns.iter().map(|c| c.quoted.as_str()).collect();
                Some(format!(
                    "it is an expression over the columns of {}: {}",
                    self.session.catalog.display(self.table),
                    columns.join(", ")
                ))
            }),
            ..problem
        });
        let read = problems.keep(read)?;
        problems.keep(self.session.hold(read.relations.iter().copied()))?;
        let refused = |message: String| Problem::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
        if read.volatile && !(self.each && self.what == "set") {
            problems.push(
                refused(format!("{place}: the expression is volatile: it returns a different value each time")).hint(
                    "rows that share a parent must agree on it; let a default of the column give it. A function of your own that always gives the same can be marked STABLE or IMMUTABLE",
                ),
            );
            return None;
        }
        if let Some(name) = row_reference_in(&read.prefixed) {
            problems
                .push(refused(format!("{place}: the expression reads {name}")).hint("name the columns that it needs"));
            return None;
        }
        Some(read)
    }

    /// * `from`: the type of the expression.
    fn may_be_stored(&self, place: &str, column: &Column, base: &Type, from: u32) -> Result<(), Problem> {
        if !base.is_trusted() {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{place} is of type {}, which belongs to another role", base.display),
            )
            .detail("comparing its values could run a cast of that role with your rights")
            .hint("run it as that role"));
        }
        if base.equality.is_none() || base.category == 'A' {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "{place} is of type {}, whose values cannot be compared here",
                    base.display
                ),
            )
            .hint(format!("leave it out of {}, and fill it afterwards", self.what)));
        }
        if !base.is_built_in() && base.kind != 'e' && from != base.oid && from != column.type_oid {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("{place} is of type {}, the expression is not", base.display),
            )
            .detail("a cast between them may be a function of whoever owns the type, and is not run")
            .hint(format!("write it as a value of its type: $$'...'::{}$$", base.display)));
        }
        Ok(())
    }

    /// A value of `match`, in the ways that `normalize` names.
    fn normalized(
        &self,
        place: &str,
        column: &Column,
        base: &Type,
        mut cast: String,
        problems: &mut Problems,
    ) -> String {
        let catalog = &self.session.catalog;
        let mine = self.normalize.into_iter().flatten().find(|(name, _)| {
            let named = catalog.resolve_column(self.parent, name);
            named.is_ok_and(|c| c.number == column.number)
        });
        if let Some((_, ways)) = mine {
            cast = match base.is_string() {
                true => normalized(place, &cast, ways, problems),
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
        match base.is_string() {
            true => format!("NULLIF({cast}, ''::{})", base.sql()),
            false => cast,
        }
    }
}

/// The expression as typed.
fn typed(place: &str, value: &Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Problem::invalid_parameter(
            format!("{place} is no expression"),
            "give a text with an SQL expression over the row, a number or a boolean",
        )),
    }
}

/// The value as the column will store it, and when there is none, see [`ColumnExpression::misfit`].
fn stored(
    catalog: &Catalog,
    column: &Column,
    base: &Type,
    read: &Qualified,
) -> Result<(String, Option<(String, String)>), Problem> {
    let (sql, from) = (&read.prefixed, read.type_oid);
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
    if let Some(condition) = not_a_number_condition(catalog, column, from, sql).filter(|_| !read.volatile) {
        cast = format!("CASE WHEN NOT ({condition}) THEN {cast} END");
        misfit = Some((condition, base.display.clone()));
    }
    Ok((cast, misfit))
}

/// A text as the column keeps it, compared and grouped as the parent's own key is.
fn compared_as_key(catalog: &Catalog, column: &Column, base: &Type, mut cast: String) -> String {
    if let Some(length) = longest(catalog, column) {
        // Blanks behind the end are cut by an assignment as well.
        cast = format!(
            "CASE WHEN pg_catalog.char_length({cast}::pg_catalog.text) > {length} AND pg_catalog.char_length(pg_catalog.rtrim({cast}::pg_catalog.text, ' ')) <= {length} \
             THEN pg_catalog.\"left\"({cast}::pg_catalog.text, {length})::{} ELSE {cast} END",
            base.sql()
        );
    }
    let collation = column.collation.as_deref().unwrap_or("pg_catalog.\"default\"");
    format!("({cast}) COLLATE {collation}")
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
