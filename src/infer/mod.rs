//! From the catalog to rules: what a column refers to, where its value can come from, and which column says whose tenant
//! a row is. Reads typed values only; no SPI.

pub mod party;
pub mod reference;
pub mod sources;
pub mod tenant;

use pgrx::prelude::PgSqlErrorCode;

use crate::problem::Problem;

/// Why nothing, or not one thing, can be inferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InferError {
    /// No path to a value.
    NoSource {
        /// As displayed.
        table: String,
        /// As displayed.
        column: String,
        /// What was looked for.
        looked_for: String,
    },
    /// Several answers are equally good.
    AmbiguousSources {
        /// As displayed.
        table: String,
        /// Bare names.
        column: String,
        /// Each a list of paths, ready to be typed.
        choices: Vec<Vec<String>>,
    },
    /// Several tables could be the tenant root.
    AmbiguousRoot {
        /// As displayed.
        table: String,
        /// As displayed.
        value_table: String,
        /// As displayed, with the columns that lead there.
        choices: Vec<(String, String)>,
    },
    /// `pg_mend.tenant_root` names a table that does not fit.
    NoTenant {
        /// As displayed.
        table: String,
        /// As displayed.
        root: Option<String>,
    },
    /// The fills depend on each other in a circle.
    Cycle {
        /// As displayed, in order.
        tables: Vec<String>,
    },
}

impl From<InferError> for Problem {
    fn from(error: InferError) -> Self {
        match error {
            InferError::NoSource {
                table,
                column,
                looked_for,
            } => Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("no source for {table}.{column} can be inferred"),
            )
            .detail(looked_for)
            .hint(format!(
                "name the sources: backfill('{}', '{}', sources => ARRAY['some_column -> other_table.{}'])",
                table.replace('\'', "''"),
                column.replace('\'', "''"),
                column.replace('\'', "''"),
            )),
            InferError::AmbiguousSources { table, column, choices } => {
                let array = |paths: &Vec<String>| {
                    let quoted: Vec<String> = paths.iter().map(|p| format!("'{}'", p.replace('\'', "''"))).collect();
                    format!("ARRAY[{}]", quoted.join(", "))
                };
                let list: Vec<String> = choices.iter().map(array).collect();
                Problem::new(
                    PgSqlErrorCode::ERRCODE_AMBIGUOUS_COLUMN,
                    format!("the source of {table}.{column} is ambiguous"),
                )
                .detail(format!("equally good: {}", list.join(" or ")))
                .hint(format!(
                    "pass the one that is right, for this column nobody else can say: backfill('{}', '{}', sources => ARRAY['...'])",
                    table.replace('\'', "''"),
                    column.replace('\'', "''"),
                ))
            }
            InferError::AmbiguousRoot {
                table,
                value_table,
                choices,
            } => {
                let list: Vec<String> = choices.iter().map(|(root, how)| format!("{root} ({how})")).collect();
                Problem::new(
                    PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
                    format!("the tenant root of {table} and {value_table} is ambiguous"),
                )
                .detail(format!("both reference {}", list.join(" and ")))
                .hint(format!(
                    "say which table holds the tenants: SET pg_mend.tenant_root = '{}'; or pass tenant_guard => false",
                    choices[0].0.replace('\'', "''")
                ))
            }
            InferError::NoTenant { table, root } => {
                let problem = Problem::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("the tenant of a row of {table} cannot be told"),
                );
                match root {
                    Some(root) => problem
                        .detail(format!(
                            "no foreign key leads from {table} to {root}, directly or through parents"
                        ))
                        .hint("leave out tenant => ..., or restrict the rows with only_where"),
                    None => problem
                        .detail("no tenant root was found: no parent table stands out as the tenant")
                        .hint("say which table holds the tenants: SET pg_mend.tenant_root = 'tenants'"),
                }
            }
            InferError::Cycle { tables } => Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION,
                "the party columns depend on each other in a circle",
            )
            .detail(tables.join(" -> "))
            .hint(
                "break it by filling one table first: backfill(table, column, sources => ARRAY[...], dry_run => false)",
            ),
        }
    }
}
