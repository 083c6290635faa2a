//! The grammar of source paths, as a person types them.
//!
//! ```text
//! path    = columns { "->" hop }
//! hop     = table [ "(" column { "," column } ")" ] "." columns
//! columns = column | "(" column { "," column } ")"
//! table   = name { "." name }
//! name    = letters without  . , ( ) " ->   |   '"' letters '"'
//! ```
//!
//! `contactId -> Contact.partyId` · `conversation_id -> conversations.domain_id -> domains.organization_id` ·
//! `legacy_domain -> domains(domain).organization_id` · `(tenant_id, ref) -> "Contact"(tenant_id, ref).party_id` ·
//! `created_by`.

use std::fmt;

use pgrx::prelude::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// A source path as typed: names not yet looked up, with their quotes where they had some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// Columns of the target row: the key of the first hop, or the value itself where there is no hop.
    pub columns: Vec<String>,
    /// Parents on the way, in order.
    #[serde(default)]
    pub hops: Vec<PathHop>,
}

/// One parent on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathHop {
    /// The parent table.
    pub table: String,
    /// Its key columns; where missing, the foreign key's, else the primary key's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// The columns taken from it: the key of the next hop, or the value.
    pub columns: Vec<String>,
}

/// Where the text stops making sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The whole text.
    pub text: String,
    /// Characters before the place, from 0.
    pub position: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        Problem::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            format!("source path: expected {} at position {}", error.expected, error.position + 1),
        )
        .detail(format!("{}\n{}^", error.text, " ".repeat(error.position)))
        .hint("a path reads like 'contactId -> Contact.partyId' or '(tenant_id, ref) -> contacts(tenant_id, ref).party_id'")
    }
}

/// No path is longer, in bytes.
const LONGEST: usize = 10_000;

impl std::str::FromStr for Path {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > LONGEST {
            return Err(ParseError {
                text: text.chars().take(60).collect(),
                position: 60,
                expected: "no more than 10,000 bytes: no path is as long, the text ends",
            });
        }
        Parser {
            text: text.chars().collect(),
            at: 0,
        }
        .path()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(&self.columns, false))?;
        for hop in &self.hops {
            write!(f, " -> {}", hop.table)?;
            if let Some(key) = &hop.key {
                f.write_str(&list(key, true))?;
            }
            write!(f, ".{}", list(&hop.columns, false))?;
        }
        Ok(())
    }
}

/// A name as the grammar can read it again.
pub fn typed(name: &str) -> String {
    let special =
        name.is_empty() || name.trim() != name || name.contains("->") || name.contains(['.', ',', '(', ')', '"']);
    if special {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_string()
    }
}

fn list(names: &[String], always: bool) -> String {
    match names {
        [one] if !always => one.clone(),
        several => format!("({})", several.join(", ")),
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
}

impl Parser {
    fn path(mut self) -> Result<Path, ParseError> {
        let columns = self.columns()?;
        let mut hops = Vec::new();
        while self.take("->") {
            hops.push(self.hop()?);
        }
        if self.peek().is_some() {
            return Err(self.error("'->' or the end"));
        }
        if hops.is_empty() && columns.len() > 1 {
            return Err(self.error("'->' and a table behind a composite key"));
        }
        if hops.last().is_some_and(|hop| hop.columns.len() > 1) {
            return Err(self.error("'->' and a table, or a single value column before the end"));
        }
        Ok(Path { columns, hops })
    }

    fn hop(&mut self) -> Result<PathHop, ParseError> {
        // Table parts and value column look alike until we know what follows them.
        let mut parts = vec![self.name("a table")?];
        let mut key = None;
        let mut columns = None;
        loop {
            if self.take("(") {
                key = Some(self.rest_of_list()?);
                if !self.take(".") {
                    return Err(self.error("'.' and the column to take from the table"));
                }
                columns = Some(self.columns()?);
            } else if self.take(".") {
                if self.peek() == Some('(') {
                    columns = Some(self.columns()?);
                } else {
                    parts.push(self.name("a column")?);
                    continue;
                }
            }
            break;
        }
        let columns = match columns {
            Some(columns) => columns,
            None if parts.len() > 1 => vec![parts.pop().unwrap_or_default()],
            None => return Err(self.error("'.' and the column to take from the table")),
        };
        Ok(PathHop {
            table: parts.join("."),
            key,
            columns,
        })
    }

    fn columns(&mut self) -> Result<Vec<String>, ParseError> {
        if self.take("(") {
            self.rest_of_list()
        } else {
            Ok(vec![self.name("a column")?])
        }
    }

    fn rest_of_list(&mut self) -> Result<Vec<String>, ParseError> {
        let mut names = vec![self.name("a column")?];
        while self.take(",") {
            names.push(self.name("a column")?);
        }
        if self.take(")") {
            Ok(names)
        } else {
            Err(self.error("',' or ')'"))
        }
    }

    /// One name, quotes kept where they stood: the resolver needs to know.
    fn name(&mut self, expected: &'static str) -> Result<String, ParseError> {
        self.spaces();
        let start = self.at;
        if self.text.get(self.at) == Some(&'"') {
            self.at += 1;
            loop {
                match (self.text.get(self.at), self.text.get(self.at + 1)) {
                    (Some('"'), Some('"')) => self.at += 2,
                    (Some('"'), _) => break,
                    (Some(_), _) => self.at += 1,
                    (None, _) => return Err(self.error("a closing '\"'")),
                }
            }
            self.at += 1;
            if self.at - start <= 2 {
                self.at = start;
                return Err(self.error(expected));
            }
        } else {
            while let Some(c) = self.text.get(self.at) {
                let arrow = *c == '-' && self.text.get(self.at + 1) == Some(&'>');
                if arrow || matches!(c, '.' | ',' | '(' | ')' | '"') {
                    break;
                }
                self.at += 1;
            }
        }
        let name: String = self.text[start..self.at].iter().collect::<String>().trim().to_string();
        if name.is_empty() {
            Err(self.error(expected))
        } else {
            Ok(name)
        }
    }

    fn spaces(&mut self) {
        while self.text.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.spaces();
        self.text.get(self.at).copied()
    }

    fn take(&mut self, token: &str) -> bool {
        self.spaces();
        let end = self.at + token.len();
        let found = self
            .text
            .get(self.at..end)
            .is_some_and(|s| s.iter().copied().eq(token.chars()));
        if found {
            self.at = end;
        }
        found
    }

    fn error(&self, expected: &'static str) -> ParseError {
        ParseError {
            text: self.text.iter().collect(),
            position: self.at,
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Path {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e:?}"))
    }

    fn hop(table: &str, key: Option<&[&str]>, columns: &[&str]) -> PathHop {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        PathHop {
            table: table.into(),
            key: key.map(own),
            columns: own(columns),
        }
    }

    #[test]
    fn every_form_of_the_design_parses() {
        assert_eq!(
            parsed("created_by"),
            Path {
                columns: vec!["created_by".into()],
                hops: vec![]
            }
        );
        assert_eq!(
            parsed("contactId -> Contact.partyId").hops,
            [hop("Contact", None, &["partyId"])]
        );
        assert_eq!(
            parsed("conversation_id->conversations.domain_id->domains.organization_id").hops,
            [
                hop("conversations", None, &["domain_id"]),
                hop("domains", None, &["organization_id"])
            ]
        );
        assert_eq!(
            parsed("legacy_domain -> domains(domain).organization_id").hops,
            [hop("domains", Some(&["domain"]), &["organization_id"])]
        );
        let composite = parsed("(tenant_id, ref) -> \"Contact\"(tenant_id, ref).party_id");
        assert_eq!(composite.columns, ["tenant_id", "ref"]);
        assert_eq!(
            composite.hops,
            [hop("\"Contact\"", Some(&["tenant_id", "ref"]), &["party_id"])]
        );
        assert_eq!(
            parsed("a -> b.(x, y) -> c(x, y).z").hops,
            [hop("b", None, &["x", "y"]), hop("c", Some(&["x", "y"]), &["z"])]
        );
    }

    #[test]
    fn odd_names_need_no_quotes_unless_they_hold_the_grammars_own_letters() {
        assert_eq!(
            parsed("legacy contact -> My Table.party-id").hops,
            [hop("My Table", None, &["party-id"])]
        );
        assert_eq!(
            parsed("a -> \"Odd Schema\".\"T.x\".c").hops,
            [hop("\"Odd Schema\".\"T.x\"", None, &["c"])]
        );
        assert_eq!(parsed("\"a -> b\" -> t.\"c\"\"d\"").columns, ["\"a -> b\""]);
        assert_eq!(parsed("x -> t.\"c\"\"d\"").hops[0].columns, ["\"c\"\"d\""]);
        assert_eq!(parsed("straße -> Länder.größe").hops, [hop("Länder", None, &["größe"])]);
    }

    #[test]
    fn a_path_prints_as_it_can_be_read_again() {
        for text in [
            "created_by",
            "contactId -> Contact.partyId",
            "(tenant_id, ref) -> \"Contact\"(tenant_id, ref).party_id",
            "a -> b.(x, y) -> c(x, y).z",
            "\"a -> b\" -> t(k).\"c\"\"d\"",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
    }

    #[test]
    fn errors_point_at_the_place() {
        for (text, position) in [
            ("", 0),
            ("-> Contact.partyId", 0),
            ("contactId ->", 12),
            ("contactId -> Contact", 20),
            ("contactId -> Contact.", 21),
            ("contactId -> Contact(id", 23),
            ("contactId -> Contact(id)", 24),
            ("(a, b", 5),
            ("(a, b)", 6),
            ("a -> \"open", 10),
            ("a -> b.c)", 8),
            ("a -> b.(x, y)", 13),
            ("a -> \"\".c", 5),
        ] {
            match text.parse::<Path>() {
                Err(error) => assert_eq!(error.position, position, "{text}: {error:?}"),
                Ok(path) => panic!("{text} parsed as {path:?}"),
            }
        }
        let problem = Problem::from("contactId -> Contact".parse::<Path>().unwrap_err());
        assert_eq!(problem.detail.unwrap(), "contactId -> Contact\n                    ^");
    }
}
