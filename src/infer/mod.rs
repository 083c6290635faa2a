//! From the catalog to rules: what a column refers to, where its value can come from, and which column says whose tenant
//! a row is. Reads typed values only; no SPI.

pub mod party;
pub mod reference;
pub mod sources;
pub mod tenancy;

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
    /// No table stands out as the one that holds the tenants.
    NoSingleRoot {
        /// As displayed, with the number of tables that lead there; equally likely.
        choices: Vec<(String, usize)>,
    },
    /// The root cannot be referenced by one column.
    RootWithoutKey {
        /// As displayed.
        root: String,
    },
    /// The root is not one: nothing leads there.
    NothingReferencesRoot {
        /// As displayed.
        root: String,
        /// Quoted where needed.
        key: String,
        /// As displayed: tables that others do reference.
        candidates: Vec<String>,
    },
    /// `pg_mend.tenant_root` names a table that does not fit.
    NoTenant {
        /// As displayed.
        table: String,
        /// As displayed.
        root: Option<String>,
    },
    /// Tenant keys can only be filled from each other.
    TenantCycle {
        /// As displayed.
        root: String,
        /// Table, column, parent, as displayed.
        edges: Vec<(String, String, String)>,
        /// The one of them that says least.
        weakest: (String, String, String),
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
                    "pass the correct one; pg_mend cannot choose for this column: backfill('{}', '{}', sources => ARRAY['...'])",
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
            InferError::NoSingleRoot { choices } if choices.is_empty() => Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                "no table stands out as the tenant root",
            )
            .detail("no table is referenced by two or more others, by foreign keys or by columns named after it")
            .hint("name it: root => 'organizations', or SET pg_mend.tenant_root = 'organizations'"),
            InferError::NoSingleRoot { choices } => {
                let list: Vec<String> = choices
                    .iter()
                    .map(|(table, tables)| format!("{table} (reached by {tables} tables)"))
                    .collect();
                Problem::new(
                    PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
                    "the tenant root is ambiguous",
                )
                .detail(format!("equally likely: {}", list.join(", ")))
                .hint(format!(
                    "say which table holds the tenants: root => '{0}', or for all calls: SET pg_mend.tenant_root = '{0}'",
                    choices[0].0.replace('\'', "''")
                ))
            }
            InferError::RootWithoutKey { root } => Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                format!("{root} has no key of a single column"),
            )
            .detail("the key of a tenant is one column that is unique by itself, and that the tenant's rows reference")
            .hint(format!(
                "give it one: ALTER TABLE {root} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY UNIQUE"
            )),
            InferError::NothingReferencesRoot { root, key, candidates } => {
                let problem = Problem::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("no column references {root}"),
                )
                .detail(format!(
                    "looked for foreign keys to {root}({key}), and for columns of its type that are named after it"
                ));
                match candidates.as_slice() {
                    [] => problem.hint("leave root out, or name the table that the others reference"),
                    [first, ..] => problem.hint(format!(
                        "tables that others do reference: {}; for example tenant_columns('{}')",
                        candidates.join(", "),
                        first.replace('\'', "''")
                    )),
                }
            }
            InferError::NoTenant { table, root } => {
                let problem = Problem::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("the tenant of the rows of {table} cannot be determined"),
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
            InferError::TenantCycle { root, edges, weakest } => {
                let quoted = |name: &str| name.replace('\'', "''");
                let list: Vec<String> = edges
                    .iter()
                    .map(|(table, column, parent)| format!("{table}.{column} -> {parent}"))
                    .collect();
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION,
                    "the tenant keys of these tables can only be filled from each other, in a circle",
                )
                .detail(list.join(", "))
                .hint(format!(
                    "break the cycle at {0}.{1}, the least reliable reference: fill {2} by itself first, backfill_tenant_ids('{5}', table_name => '{3}', dry_run => false), \
                     then backfill_tenant_ids('{5}', table_name => '{4}', dry_run => false)",
                    weakest.0,
                    weakest.1,
                    weakest.2,
                    quoted(&weakest.2),
                    quoted(&weakest.0),
                    quoted(&root)
                ))
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
