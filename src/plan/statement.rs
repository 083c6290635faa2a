//! Statements in parts: WITH queries, body, conditions, ending, parameters. Text is made once, when all parts are known.

use super::expression::indent;
use crate::identifier::Literal;
use crate::settings::CallersSettings;

/// A WITH query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    name: String,
    sql: String,
    materialized: bool,
}

impl Query {
    /// * `name`: as others name it.
    pub fn new(name: impl Into<String>, sql: impl Into<String>) -> Query {
        Query {
            name: name.into(),
            sql: sql.into(),
            materialized: false,
        }
    }

    /// Evaluated once, however often it is named.
    pub fn materialized(self) -> Query {
        Query {
            materialized: true,
            ..self
        }
    }

    /// `name AS (...)`
    fn sql(&self) -> String {
        let once = if self.materialized { "MATERIALIZED " } else { "" };
        format!("{} AS {once}(\n{}\n)", self.name, indent(&self.sql, 2))
    }
}

/// A statement and its parameters, all of which are of type text.
///
/// ```text
/// WITH name AS (...)        with
/// UPDATE ... SET ...        the body
/// WHERE ... AND ...         conditions
/// RETURNING ...             the ending
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statement {
    with: Vec<Query>,
    body: String,
    conditions: Vec<String>,
    ending: Vec<String>,
    parameters: Vec<String>,
}

impl Statement {
    /// * `body`: everything up to WHERE; it names parameters as `$1`, `$2` ...
    pub fn new(body: impl Into<String>) -> Statement {
        Statement {
            body: body.into(),
            ..Statement::default()
        }
    }

    /// Several SELECTs as one, parameters in the order of the parts: each numbers its own behind those of the parts before it.
    pub fn union_all(parts: Vec<Statement>) -> Statement {
        let sql: Vec<String> = parts.iter().map(Statement::sql).collect();
        Statement {
            body: sql.join("\nUNION ALL\n"),
            parameters: parts.into_iter().flat_map(|part| part.parameters).collect(),
            ..Statement::default()
        }
    }

    /// Values of `$1`, `$2` ...
    pub fn with_parameters(self, parameters: Vec<String>) -> Statement {
        Statement { parameters, ..self }
    }

    /// WITH queries, in order of dependency.
    pub fn with_queries(mut self, queries: impl IntoIterator<Item = Query>) -> Statement {
        self.with.extend(queries);
        self
    }

    /// A further condition of WHERE.
    pub fn filter(mut self, condition: impl Into<String>) -> Statement {
        self.conditions.push(condition.into());
        self
    }

    /// Further conditions.
    pub fn filters(mut self, conditions: impl IntoIterator<Item = String>) -> Statement {
        self.conditions.extend(conditions);
        self
    }

    /// What stands behind WHERE: GROUP BY, ORDER BY, ON CONFLICT, RETURNING.
    pub fn ending(mut self, line: impl Into<String>) -> Statement {
        self.ending.push(line.into());
        self
    }

    /// The same statement, planned under the settings of now and executed under those of the caller: a condition sets them when
    /// execution starts. Names in the statement have been looked up by then; functions of the user that it calls (triggers, CHECKs)
    /// find what they find in any other statement of the caller.
    pub fn under_callers_settings(mut self, caller: &CallersSettings) -> Statement {
        for (name, value) in &caller.0 {
            self.parameters.push(value.clone());
            let number = self.parameters.len();
            let set = format!("(SELECT pg_catalog.set_config('{name}', ${number}, true)) IS NOT NULL");
            self.conditions.push(set);
        }
        self
    }

    /// As a WITH query of this name; whoever takes it takes its parameters as well.
    pub fn as_query(&self, name: impl Into<String>) -> Query {
        Query::new(name, self.sql())
    }

    /// The values of the parameters.
    pub fn parameters(&self) -> &[String] {
        &self.parameters
    }

    /// The text, as Postgres gets it.
    pub fn sql(&self) -> String {
        let mut sql = String::new();
        if !self.with.is_empty() {
            let with: Vec<String> = self.with.iter().map(Query::sql).collect();
            sql.push_str(&format!("WITH {}\n", with.join(",\n")));
        }
        sql.push_str(&self.body);
        if !self.conditions.is_empty() {
            sql.push_str(&format!("\nWHERE {}", self.conditions.join("\n  AND ")));
        }
        for line in &self.ending {
            sql.push('\n');
            sql.push_str(line);
        }
        sql
    }

    /// The text, as a person reviews it: parameters as literals.
    pub fn for_review(&self) -> String {
        let sql = self.sql();
        let mut shown = String::with_capacity(sql.len());
        let mut rest = sql.as_str();
        // What looks like a parameter inside of quotes is part of a value or a name.
        let mut quote = None;
        while let Some(c) = rest.chars().next() {
            let mut taken = c.len_utf8();
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                (None, '$') => {
                    let digits = rest[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - 1);
                    let number = rest[1..1 + digits].parse::<usize>().ok();
                    if let Some(value) = number.and_then(|number| self.parameters.get(number.checked_sub(1)?)) {
                        shown.push_str(&Literal::new(value).to_string());
                        rest = &rest[1 + digits..];
                        continue;
                    }
                }
                _ => {}
            }
            // A character at a time: `c` is a whole one.
            taken = taken.min(rest.len());
            shown.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::{Query, Statement};
    use crate::settings::CallersSettings;

    #[test]
    fn parts_become_text_in_the_order_of_sql() {
        let statement = Statement::new("UPDATE t SET a = 1")
            .ending("RETURNING a")
            .filter("t.b = $1")
            .with_parameters(vec!["x".into()])
            .with_queries([Query::new("q", "SELECT 1").materialized()])
            .under_callers_settings(&CallersSettings(vec![("search_path", "public".into())]));
        assert_eq!(
            statement.sql(),
            "WITH q AS MATERIALIZED (\n  SELECT 1\n)\nUPDATE t SET a = 1\nWHERE t.b = $1\n  AND (SELECT pg_catalog.set_config('search_path', $2, true)) IS NOT NULL\nRETURNING a"
        );
        assert_eq!(statement.parameters(), ["x", "public"]);
    }

    #[test]
    fn a_review_shows_literals_and_leaves_quotes_alone() {
        let statement =
            Statement::new("SELECT $1, '$1', \"$2\", $12, $2").with_parameters(vec!["it's $2".into(), "b".into()]);
        assert_eq!(statement.for_review(), "SELECT 'it''s $2', '$1', \"$2\", $12, 'b'");
    }

    #[test]
    fn parts_of_a_union_keep_their_parameters() {
        let part = |value: &str, sql: &str| Statement::new(sql).with_parameters(vec![value.into()]);
        let all = Statement::union_all(vec![part("a", "SELECT $1"), part("b", "SELECT $2")]);
        assert_eq!(
            (all.sql().as_str(), all.parameters()),
            ("SELECT $1\nUNION ALL\nSELECT $2", &["a".into(), "b".into()][..])
        );
    }
}
