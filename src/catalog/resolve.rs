//! From a name that a person typed to the table or column that is meant.
//!
//! The exact letters win over the folded ones, so `WaitlistEntry` finds `"WaitlistEntry"` without quotes. A dot may be a
//! separator or part of a name; every reading is tried, and two readings that find two tables are an error.

use pgrx::prelude::PgSqlErrorCode;

use super::types::{Catalog, Column, Table};
use crate::identifier::{NamePart, split_name};
use crate::names::nearest;
use crate::problem::Problem;

/// Why a name leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// No table of that name. `near`: what it may have meant, ready to be typed.
    NoTable {
        /// As typed.
        name: String,
        /// Ready to be typed.
        near: Vec<String>,
    },
    /// Several tables fit.
    AmbiguousTable {
        /// As typed.
        name: String,
        /// With schema, ready to be typed.
        choices: Vec<String>,
    },
    /// No column of that name in `table`.
    NoColumn {
        /// As typed.
        name: String,
        /// As displayed.
        table: String,
        /// Ready to be typed.
        near: Vec<String>,
        /// Every column of the table.
        all: Vec<String>,
    },
}

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NoTable { name, near } => {
                let problem = Problem::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                    format!("table \"{}\" does not exist", name.trim()),
                )
                .detail("looked for exactly these letters first, then folded to lower case, on the search_path");
                if near.is_empty() {
                    problem.hint("name the schema too, as in 'my_schema.my_table'; \\dt *.* in psql lists all tables")
                } else {
                    problem.hint(format!("did you mean {}?", near.join(" or ")))
                }
            }
            ResolveError::AmbiguousTable { name, choices } => Problem::new(
                PgSqlErrorCode::ERRCODE_AMBIGUOUS_ALIAS,
                format!("\"{}\" can be read as more than one table", name.trim()),
            )
            .detail(format!("it could be {}", choices.join(" or ")))
            .hint(format!("put quotes around each part, as in '{}'", choices[0])),
            ResolveError::NoColumn { name, table, near, all } => {
                let problem = Problem::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("column \"{name}\" of table {table} does not exist"),
                )
                .detail(format!("{table} has {}", all.join(", ")));
                if near.is_empty() {
                    problem
                } else {
                    problem.hint(format!("did you mean {}?", near.join(" or ")))
                }
            }
        }
    }
}

impl Catalog {
    /// Finds the table that `name` means: `WaitlistEntry`, `"WaitlistEntry"`, `public.WaitlistEntry`,
    /// `"Odd Schema"."T.x"`, `Odd Schema.T.x`.
    ///
    /// Errors: 42P01 with the nearest names, 42P09 if two readings find two tables.
    pub fn resolve_table(&self, name: &str) -> Result<&Table, ResolveError> {
        if name.len() > LONGEST {
            return Err(ResolveError::NoTable {
                name: shortened(name),
                near: vec![],
            });
        }
        let readings = readings(name);
        for exact in [true, false] {
            let mut found: Vec<&Table> = Vec::new();
            for reading in &readings {
                if let Some(table) = self.find(reading, exact)
                    && !found.iter().any(|t| t.oid == table.oid)
                {
                    found.push(table);
                }
            }
            match found.as_slice() {
                [] => continue,
                [table] => return Ok(table),
                several => {
                    let choices = several
                        .iter()
                        .map(|t| format!("{}.{}", quote(&t.schema), quote(&t.name)))
                        .collect();
                    return Err(ResolveError::AmbiguousTable {
                        name: name.into(),
                        choices,
                    });
                }
            }
        }
        Err(ResolveError::NoTable {
            name: name.into(),
            near: self.near_tables(name),
        })
    }

    /// Finds the column of `table` that `name` means, quotes allowed.
    ///
    /// Errors: 42703 with the nearest names.
    pub fn resolve_column<'a>(&self, table: &'a Table, name: &str) -> Result<&'a Column, ResolveError> {
        if name.len() > LONGEST {
            return Err(ResolveError::NoColumn {
                name: shortened(name),
                table: self.display(table),
                near: vec![],
                all: table.columns.iter().map(|c| c.quoted.clone()).collect(),
            });
        }
        let whole = NamePart {
            text: name.trim().into(),
            quoted: false,
        };
        let unquoted = split_name(name)
            .filter(|parts| parts.len() == 1)
            .map(|mut parts| parts.remove(0));
        let spellings = unquoted.iter().chain([&whole]).flat_map(NamePart::spellings);
        for spelling in spellings {
            if let Some(column) = table.column_named(&spelling) {
                return Ok(column);
            }
        }
        Err(ResolveError::NoColumn {
            name: name.trim().trim_matches('"').into(),
            table: self.display(table),
            near: nearest(name, table.columns.iter().map(|c| c.name.as_str())),
            all: table.columns.iter().map(|c| c.quoted.clone()).collect(),
        })
    }

    fn find(&self, reading: &Reading, exact: bool) -> Option<&Table> {
        let letters = |part: &NamePart| match (exact, part.spellings().pop()) {
            (false, Some(folded)) => folded,
            _ => part.text.clone(),
        };
        let name = letters(&reading.name);
        let has = |schema: &str| self.table_in(schema, &name);
        match &reading.schema {
            Some(schema) => has(&letters(schema)),
            None => self.search_path.iter().find_map(|schema| has(schema)),
        }
    }

    /// Same name in a schema off the path first, then names that look alike.
    fn near_tables(&self, name: &str) -> Vec<String> {
        let wanted = readings(name).pop().map(|r| r.name.text).unwrap_or_default();
        let candidates = || self.tables.iter().filter(|t| !t.of_extension && t.kind != 'c');
        let elsewhere = candidates().filter(|t| t.name.eq_ignore_ascii_case(&wanted));
        let mut names: Vec<String> = elsewhere.map(|t| format!("'{}'", self.display(t))).collect();
        for near in nearest(&wanted, candidates().map(|t| t.name.as_str())) {
            names.extend(
                candidates()
                    .filter(|t| t.name == near)
                    .map(|t| format!("'{}'", self.display(t))),
            );
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|n| seen.insert(n.clone()));
        names.truncate(3);
        names
    }
}

/// No name is longer, in bytes: schema and table of 63 each (NAMEDATALEN), every letter a quote that is doubled, with blanks around.
const LONGEST: usize = 1_000;

/// The beginning of what is too long to be a name.
fn shortened(text: &str) -> String {
    let beginning: String = text.chars().take(60).collect();
    format!("{beginning}...")
}

/// One way to understand a typed name.
struct Reading {
    schema: Option<NamePart>,
    name: NamePart,
}

/// Every way: as quoted parts; without quotes also the whole text as one name, and a split at each dot.
fn readings(text: &str) -> Vec<Reading> {
    let text = text.trim();
    let plain = |s: &str| NamePart {
        text: s.trim().into(),
        quoted: false,
    };
    let mut all = Vec::new();
    if !text.contains('"') {
        all.push(Reading {
            schema: None,
            name: plain(text),
        });
        for (at, _) in text.match_indices('.') {
            all.push(Reading {
                schema: Some(plain(&text[..at])),
                name: plain(&text[at + 1..]),
            });
        }
    } else if let Some(mut parts) = split_name(text) {
        let name = parts.pop();
        match (parts.pop(), name, parts.is_empty()) {
            (schema, Some(name), true) => all.push(Reading { schema, name }),
            _ => all.push(Reading {
                schema: None,
                name: plain(text),
            }),
        }
    } else {
        // An unbalanced quote can still be the exact name of a table.
        all.push(Reading {
            schema: None,
            name: plain(text),
        });
    }
    all
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Builder;
    use super::*;

    fn catalog() -> Catalog {
        Builder::new()
            .table("WaitlistEntry", &["id", "clientPartyId?", "status?"])
            .table("Users", &["id"])
            .table("users", &["id"])
            .table("T.x", &["id"])
            .table_in("Odd Schema", "T.x", &["id"])
            .table_in("T", "x", &["id"])
            .table_in("other", "ledger", &["id"])
            .build()
    }

    fn found(name: &str) -> Result<String, ResolveError> {
        let catalog = catalog();
        catalog.resolve_table(name).map(|t| format!("{}|{}", t.schema, t.name))
    }

    #[test]
    fn every_way_to_type_a_table_finds_it() {
        for name in [
            "WaitlistEntry",
            "\"WaitlistEntry\"",
            "public.WaitlistEntry",
            "public.\"WaitlistEntry\"",
            " \"public\" . \"WaitlistEntry\" ",
            "PUBLIC.\"WaitlistEntry\"",
        ] {
            assert_eq!(found(name).unwrap(), "public|WaitlistEntry", "{name}");
        }
        assert_eq!(found("\"Odd Schema\".\"T.x\"").unwrap(), "Odd Schema|T.x");
        assert_eq!(found("Odd Schema.T.x").unwrap(), "Odd Schema|T.x");
        assert_eq!(found("\"T.x\"").unwrap(), "public|T.x");
        assert_eq!(found("\"T\".x").unwrap(), "T|x");
    }

    #[test]
    fn exact_letters_win_over_folded_ones() {
        assert_eq!(found("Users").unwrap(), "public|Users");
        assert_eq!(found("users").unwrap(), "public|users");
        assert_eq!(found("USERS").unwrap(), "public|users");
        assert!(found("\"USERS\"").is_err());
    }

    #[test]
    fn two_readings_that_find_two_tables_are_an_error() {
        let ResolveError::AmbiguousTable { choices, .. } = found("T.x").unwrap_err() else {
            panic!("not ambiguous")
        };
        assert_eq!(choices, ["\"public\".\"T.x\"", "\"T\".\"x\""]);
    }

    #[test]
    fn what_is_too_long_to_be_a_name_is_not_looked_for() {
        let name = "x.".repeat(10_000_000);
        let ResolveError::NoTable { name, near } = catalog().resolve_table(&name).map(|_| ()).unwrap_err() else {
            panic!("found")
        };
        assert_eq!((name.len(), near.len()), (63, 0));
    }

    #[test]
    fn a_miss_names_what_is_near() {
        assert_eq!(
            found("waitlistentry"),
            Err(ResolveError::NoTable {
                name: "waitlistentry".into(),
                near: vec!["'\"WaitlistEntry\"'".into()]
            })
        );
        let ResolveError::NoTable { near, .. } = found("ledger").unwrap_err() else {
            panic!("found")
        };
        assert_eq!(
            near,
            ["'other.ledger'"
                .replace("other", "\"other\"")
                .replace("ledger", "\"ledger\"")]
        );
    }

    #[test]
    fn columns_by_exact_letters_then_folded() {
        let catalog = catalog();
        let table = catalog.resolve_table("WaitlistEntry").unwrap();
        assert_eq!(catalog.resolve_column(table, "clientPartyId").unwrap().number, 2);
        assert_eq!(catalog.resolve_column(table, "\"clientPartyId\"").unwrap().number, 2);
        assert_eq!(catalog.resolve_column(table, "STATUS").unwrap().number, 3);
        let problem = Problem::from(catalog.resolve_column(table, "clientPartyID").unwrap_err());
        assert_eq!(problem.code, PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN);
        assert_eq!(problem.hint.unwrap(), "did you mean clientPartyId?");
    }
}
