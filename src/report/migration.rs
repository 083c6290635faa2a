//! `migration_report`: one checklist for a tenant or party migration, every answer counted now.
//!
//! Per question a row that says how much was looked at and how much of it is open, then one row per finding. It asks those
//! who know: `validate` for references, `run::tenant_coverage` for tenant keys, `infer::party` for legacy columns,
//! `dead_columns`, the catalog for constraints, indexes and policies.

use std::collections::HashSet;

use super::dead_columns::dead_columns;
use super::party_columns::{MigratedColumn, MigratedCounts, count, migrated_columns};
use crate::catalog::{Catalog, Policy, Table, policies};
use crate::identifier::{Identifier, Literal};
use crate::infer::tenancy::keys::TenantKeys;
use crate::problem::Problem;
use crate::rule::typed;
use crate::run::{Coverage, Session, tenant_coverage};
use crate::validate::reference::{Found, KeyReference, collect};
use crate::validate::{self, Checked, Verdict, declared, tenants};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct MigrationReportRequest {
    /// See `validate_tenant_fks`.
    pub root: Option<String>,
    /// The table of the parties, as typed; `None`: `Party`, where there is one.
    pub party: Option<String>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What is asked.
    pub question: &'static str,
    /// As displayed; `None`: the answer to the whole question.
    pub table: Option<String>,
    /// As typed.
    pub column: Option<String>,
    /// Rows (of a finding) or things (of a question) looked at.
    pub checked: i64,
    /// Those of them that are open.
    pub found: i64,
    /// `ok`, `open`, `not_checked`.
    pub verdict: &'static str,
    /// In words.
    pub detail: String,
    /// The next call.
    pub next: Option<String>,
}

/// A question with its findings.
struct Question {
    name: &'static str,
    /// What was looked at, and how much.
    things: &'static str,
    checked: i64,
    /// Why nothing was.
    nothing: &'static str,
    findings: Vec<Finding>,
}

struct Finding {
    table: String,
    column: String,
    checked: i64,
    found: i64,
    detail: String,
    next: Option<String>,
}

/// Every question with its answer, then what it is made of; last, how it stands altogether.
///
/// Errors: 42P01 (names), 42P08 (ambiguous root), 42501 with every table that may not be read, or of which policies would
/// hide rows.
pub fn report(session: &Session, request: &MigrationReportRequest) -> Result<Vec<Answer>, Problem> {
    let catalog = &session.catalog;
    let keys = tenants(session, request.root.as_deref())?;
    let party = match &request.party {
        Some(name) => Some(catalog.resolve_table(name)?),
        None => catalog.resolve_table("Party").ok().filter(|party| party.is_table()),
    };
    let migrated_columns = match party {
        Some(party) => migrated_columns(catalog, party)?,
        None => vec![],
    };
    let declared = declared::load(session)?;
    let references: Vec<KeyReference> = collect(catalog, None, true, &declared)
        .into_iter()
        .filter_map(|found| match found {
            Found::Reference(reference) => Some(reference),
            Found::Unchecked(_) => None,
        })
        .collect();
    let validation = validate::ValidateRequest {
        root: request.root.clone(),
        table: None,
        include_inferred: true,
        samples: 0,
    };
    let mut checked = validate::validate(session, &validation)?;
    // The sum is made here.
    checked.pop();
    let coverage = match &keys {
        Some(_) => tenant_coverage(session, request.root.as_deref().filter(|root| !root.trim().is_empty()))?,
        None => vec![],
    };
    let counted = count(session, &migrated_columns)?;
    let questions = [
        legacy(session, keys.as_ref(), &migrated_columns, &counted)?,
        nulls(catalog, keys.as_ref(), &coverage, &migrated_columns, &counted),
        violations("orphans", &checked, |c| c.orphans, "find no row"),
        violations(
            "cross-tenant references",
            &checked,
            |c| c.cross_tenant,
            "find a row of another tenant",
        ),
        foreign_keys(&checked),
        indexes(catalog, keys.as_ref(), &references),
        disagreements(catalog, keys.as_ref(), &coverage),
        not_null(catalog, keys.as_ref(), &coverage),
        row_security(catalog, keys.as_ref(), &policies()?),
    ];
    let mut answers: Vec<Answer> = questions.into_iter().flat_map(Question::answers).collect();
    let total = total(&answers, keys.as_ref());
    answers.push(total);
    Ok(answers)
}

impl Question {
    fn answers(self) -> Vec<Answer> {
        let open = self.findings.len() as i64;
        let verdict = match (self.checked, open) {
            (_, 1..) => "open",
            (0, _) => "not_checked",
            _ => "ok",
        };
        let mut answers = vec![Answer {
            question: self.name,
            table: None,
            column: None,
            checked: self.checked,
            found: open,
            verdict,
            detail: match self.checked {
                0 if open == 0 => self.nothing.to_string(),
                checked => format!("{open} of {checked} {}", self.things),
            },
            next: None,
        }];
        answers.extend(self.findings.into_iter().map(|finding| Answer {
            question: self.name,
            table: Some(finding.table),
            column: Some(finding.column),
            checked: finding.checked,
            found: finding.found,
            verdict: "open",
            detail: finding.detail,
            next: finding.next,
        }));
        answers
    }
}

fn total(answers: &[Answer], keys: Option<&TenantKeys>) -> Answer {
    let of = |verdict: &str| {
        answers
            .iter()
            .filter(|a| a.table.is_none() && a.verdict == verdict)
            .count() as i64
    };
    let (ok, open, not_checked) = (of("ok"), of("open"), of("not_checked"));
    let tenants = match keys {
        Some(keys) => format!("tenants are in {}", keys.catalog().display(keys.root)),
        None => "no table of tenants: root => '...' names one".into(),
    };
    Answer {
        question: "total",
        table: None,
        column: None,
        checked: ok + open,
        found: open,
        verdict: match (open, ok) {
            (1.., _) => "open",
            (0, 1..) => "ok",
            _ => "not_checked",
        },
        detail: format!("{ok} questions ok, {open} open, {not_checked} without anything to check; {tenants}"),
        next: None,
    }
}

fn call(function: &str, table: &str, column: &str) -> String {
    format!(
        "SELECT * FROM {function}({}, {})",
        Literal::new(table),
        Literal::new(&typed(column))
    )
}

/// Legacy columns that still exist, and columns that nothing fills or uses.
fn legacy(
    session: &Session,
    keys: Option<&TenantKeys>,
    migrated_columns: &[MigratedColumn],
    counted: &[MigratedCounts],
) -> Result<Question, Problem> {
    let catalog = &session.catalog;
    let mut findings = Vec::new();
    let mut known: HashSet<(String, String)> = HashSet::new();
    for (of, counted) in migrated_columns.iter().zip(counted) {
        let table = catalog.display(of.table);
        for (column, set) in of.legacy.iter().zip(&counted.legacy) {
            known.insert((table.clone(), column.name.clone()));
            let condition = format!("{} IS NOT NULL", Identifier::new(&column.name));
            findings.push(Finding {
                table: table.clone(),
                column: column.name.clone(),
                checked: counted.rows,
                found: *set,
                detail: format!(
                    "still exists, set in {set} of {} rows; {} takes its place",
                    counted.rows, of.column.quoted
                ),
                next: Some(format!(
                    "SELECT assert_backfilled({}, {}, {})",
                    Literal::new(&table),
                    Literal::new(&typed(&of.column.name)),
                    Literal::new(&condition)
                )),
            });
        }
        known.insert((table, of.column.name.clone()));
    }
    let tables = catalog
        .tables
        .iter()
        .filter(|t| t.is_table() && !t.of_extension && !t.is_partition);
    for table in tables {
        let own = keys.map(|keys| keys.of(table)).unwrap_or_default();
        for column in own.iter().filter_map(|key| table.column(key.column)) {
            known.insert((catalog.display(table), column.name.clone()));
        }
    }
    // Of a table without rows nothing can be said.
    let mut unread: HashSet<String> = HashSet::new();
    for dead in dead_columns(session, None)? {
        let Some(column) = dead.column else {
            unread.insert(dead.table);
            continue;
        };
        if known.contains(&(dead.table.clone(), column.clone())) {
            continue;
        }
        let used = match dead.used_by.is_empty() {
            true => "nothing in the database uses it".to_string(),
            false => format!("used by {}", dead.used_by.join(", ")),
        };
        findings.push(Finding {
            next: Some(format!(
                "SELECT statement, used_by FROM dead_columns() WHERE table_name = {} AND column_name = {}",
                Literal::new(&dead.table),
                Literal::new(&column)
            )),
            table: dead.table,
            column,
            checked: dead.rows_checked.unwrap_or(0),
            found: 0,
            detail: format!("NULL in every row; {used}"),
        });
    }
    let tables = catalog
        .tables
        .iter()
        .filter(|t| t.is_table() && !t.of_extension && !t.is_partition);
    let read = tables.filter(|t| !unread.contains(&catalog.display(t)));
    let may_be_empty = read.flat_map(|t| &t.columns).filter(|c| !c.not_null && !c.generated);
    let checked = (may_be_empty.count() as i64).max(findings.len() as i64);
    Ok(Question {
        name: "legacy columns",
        things: "nullable columns are legacy or empty",
        checked,
        nothing: "no table with rows has a column that may be empty",
        findings,
    })
}

/// Rows without a tenant, or without a party.
fn nulls(
    catalog: &Catalog,
    keys: Option<&TenantKeys>,
    coverage: &[Coverage],
    migrated_columns: &[MigratedColumn],
    counted: &[MigratedCounts],
) -> Question {
    let root = root(catalog, keys);
    let mut findings: Vec<Finding> = Vec::new();
    for key in coverage.iter().filter(|c| c.populated < c.total) {
        findings.push(Finding {
            table: key.table.clone(),
            column: key.column.clone(),
            checked: key.total,
            found: key.total - key.populated,
            detail: format!("no tenant in {} of {} rows", key.total - key.populated, key.total),
            next: Some(format!(
                "SELECT * FROM backfill_tenant_ids({root}, table_name => {})",
                Literal::new(&key.table)
            )),
        });
    }
    for (of, counted) in migrated_columns
        .iter()
        .zip(counted)
        .filter(|(_, counted)| counted.nulls > 0)
    {
        let table = catalog.display(of.table);
        findings.push(Finding {
            checked: counted.rows,
            found: counted.nulls,
            detail: match counted.left_behind {
                0 => format!(
                    "no party in {} of {} rows, none of which has a legacy value",
                    counted.nulls, counted.rows
                ),
                left => format!(
                    "no party in {} of {} rows, {left} of which have a legacy value",
                    counted.nulls, counted.rows
                ),
            },
            next: Some(call("backfill_unfilled", &table, &of.column.name)),
            table,
            column: of.column.name.clone(),
        });
    }
    Question {
        name: "mandatory NULLs",
        things: "tenant and party columns have NULLs",
        checked: (coverage.iter().filter(|c| c.total > 0).count() + counted.iter().filter(|c| c.rows > 0).count())
            as i64,
        nothing: "no table with rows has a tenant key or a party column",
        findings,
    }
}

fn violations(name: &'static str, checked: &[Checked], number: fn(&Checked) -> Option<i64>, what: &str) -> Question {
    let looked_at = checked.iter().filter(|c| number(c).is_some() && c.rows_checked > 0);
    let findings = looked_at.clone().filter(|c| number(c).is_some_and(|rows| rows > 0));
    Question {
        name,
        things: "references with rows are violated",
        checked: looked_at.count() as i64,
        nothing: "no reference with rows could be compared",
        findings: findings
            .map(|c| Finding {
                table: c.table.clone(),
                column: c.columns.clone(),
                checked: c.rows_checked,
                found: number(c).unwrap_or(0),
                detail: format!(
                    "{} of {} rows {what} in {}",
                    number(c).unwrap_or(0),
                    c.rows_checked,
                    c.parent.clone().unwrap_or_else(|| "any table".into())
                ),
                next: c.fix.clone(),
            })
            .collect(),
    }
}

fn foreign_keys(checked: &[Checked]) -> Question {
    let references: Vec<&Checked> = checked.iter().filter(|c| c.state.is_some()).collect();
    let open = references
        .iter()
        .filter(|c| c.state.is_some_and(|s| s.as_str() != "valid"));
    Question {
        name: "foreign keys",
        things: "references have no valid foreign key",
        checked: references.len() as i64,
        nothing: "no reference was found",
        findings: open
            .map(|c| Finding {
                table: c.table.clone(),
                column: c.columns.clone(),
                checked: c.rows_checked,
                found: 1,
                detail: match (&c.constraint, c.state) {
                    (Some(name), Some(state)) => format!("{name} is {}", state.as_str()),
                    _ => format!(
                        "no foreign key to {}",
                        c.parent.clone().unwrap_or_else(|| "what it references".into())
                    ),
                },
                next: match c.verdict {
                    Verdict::NotChecked => single(c),
                    _ => c.fix.clone().or_else(|| single(c)),
                },
            })
            .collect(),
    }
}

/// What would be done for a reference of one column.
fn single(checked: &Checked) -> Option<String> {
    (checked.parent.is_some() && !checked.columns.starts_with('(')).then(|| {
        format!(
            "SELECT * FROM finalize_plan({}, {}, not_null => false)",
            Literal::new(&checked.table),
            Literal::new(&checked.columns)
        )
    })
}

/// References and tenant keys by which no index finds the rows.
fn indexes(catalog: &Catalog, keys: Option<&TenantKeys>, references: &[KeyReference]) -> Question {
    let mut wanted: Vec<(&Table, Vec<i16>)> = Vec::new();
    let tables = catalog.tables.iter().filter(|t| t.is_table() && !t.is_partition);
    for table in tables {
        let own = keys.map(|keys| keys.of(table)).unwrap_or_default();
        wanted.extend(own.iter().map(|key| (table, vec![key.column])));
    }
    for reference in references {
        let one = (reference.table, reference.columns.clone());
        if reference.table.is_table() && !wanted.iter().any(|(t, c)| t.oid == one.0.oid && *c == one.1) {
            wanted.push(one);
        }
    }
    wanted.sort_by_key(|(table, columns)| (&table.schema, &table.name, columns.clone()));
    let open = wanted
        .iter()
        .filter(|(table, columns)| !columns.iter().any(|c| table.indexed.contains(c)));
    Question {
        name: "indexes",
        things: "references and tenant keys have no index",
        checked: wanted.len() as i64,
        nothing: "no reference and no tenant key was found",
        findings: open
            .map(|(table, columns)| {
                let names = table.names_of(columns);
                let quoted: Vec<String> = names.iter().map(|n| Identifier::new(n).to_string()).collect();
                Finding {
                    table: catalog.display(table),
                    column: validate::reference::shown(&names),
                    checked: table.estimated_rows.max(0.0) as i64,
                    found: 1,
                    detail: "no index starts with it".into(),
                    next: Some(match table.kind {
                        'p' => format!(
                            "SELECT statement FROM finalize_plan({}, {}, not_null => false)",
                            Literal::new(&catalog.display(table)),
                            Literal::new(&typed(names[0]))
                        ),
                        _ => format!("CREATE INDEX CONCURRENTLY ON {} ({})", table.sql(), quoted.join(", ")),
                    }),
                }
            })
            .collect(),
    }
}

fn disagreements(catalog: &Catalog, keys: Option<&TenantKeys>, coverage: &[Coverage]) -> Question {
    let root = root(catalog, keys);
    let compared = coverage.iter().filter(|c| c.disagrees.is_some() && c.total > 0);
    let open = compared.clone().filter(|c| c.disagrees.is_some_and(|rows| rows > 0));
    Question {
        name: "coverage",
        things: "tenant keys are not what their path says",
        checked: compared.count() as i64,
        nothing: "no tenant key with rows and a path to compare it with",
        findings: open
            .map(|c| {
                let rows = c.disagrees.unwrap_or(0);
                Finding {
                    table: c.table.clone(),
                    column: c.column.clone(),
                    checked: c.total,
                    found: rows,
                    detail: format!(
                        "{} of {} rows are filled, {rows} of them not with what the path says",
                        c.populated, c.total
                    ),
                    next: Some(format!(
                        "SELECT * FROM backfill_tenant_ids({root}, table_name => {}, overwrite => 'mismatched')",
                        Literal::new(&c.table)
                    )),
                }
            })
            .collect(),
    }
}

/// Tenant keys in which the next INSERT may leave a NULL.
fn not_null(catalog: &Catalog, keys: Option<&TenantKeys>, coverage: &[Coverage]) -> Question {
    let root = root(catalog, keys);
    let mut findings = Vec::new();
    let tables = catalog.tables.iter().filter(|t| t.is_table() && !t.is_partition);
    let mut checked = 0;
    for table in tables {
        for key in keys.map(|keys| keys.of(table)).unwrap_or_default() {
            let Some(column) = table.column(key.column) else {
                continue;
            };
            checked += 1;
            if column.not_null {
                continue;
            }
            let name = catalog.display(table);
            let known = coverage.iter().find(|c| c.table == name && c.column == column.name);
            let (rows, nulls) = known.map_or((0, 0), |c| (c.total, c.total - c.populated));
            findings.push(Finding {
                column: column.name.clone(),
                checked: rows,
                found: 1,
                detail: match nulls {
                    0 => "may be NULL, and is in no row".into(),
                    nulls => format!("may be NULL, and is in {nulls} rows: fill them first"),
                },
                next: Some(match nulls {
                    0 => format!(
                        "CALL finalize_backfill({}, {}, root => {root})",
                        Literal::new(&name),
                        Literal::new(&typed(&column.name))
                    ),
                    _ => call("backfill_unfilled", &name, &column.name),
                }),
                table: name,
            });
        }
    }
    Question {
        name: "NOT NULL",
        things: "tenant keys may be NULL",
        checked,
        nothing: "no tenant key was found",
        findings,
    }
}

/// Tenant tables that policies do not keep apart.
fn row_security(catalog: &Catalog, keys: Option<&TenantKeys>, policies: &[Policy]) -> Question {
    let root = root(catalog, keys);
    let tables: Vec<&Table> = catalog
        .tables
        .iter()
        .filter(|t| t.is_table() && !t.is_partition && keys.is_some_and(|keys| !keys.of(t).is_empty()))
        .collect();
    let on = tables.iter().filter(|t| t.row_security).count();
    let mut findings = Vec::new();
    for table in tables.iter().filter(|_| on > 0) {
        let own = keys.map(|keys| keys.of(table)).unwrap_or_default();
        let mut of_table = policies.iter().filter(|p| p.table == table.oid);
        let guarded = of_table
            .clone()
            .any(|p| own.iter().any(|key| p.columns.contains(&key.column)));
        if table.row_security && guarded {
            continue;
        }
        let Some(key) = own.first().and_then(|key| table.column(key.column)) else {
            continue;
        };
        let names: Vec<&str> = of_table.by_ref().map(|p| p.name.as_str()).collect();
        let name = catalog.display(table);
        findings.push(Finding {
            checked: names.len() as i64,
            found: 1,
            detail: match (table.row_security, names.is_empty()) {
                (false, true) => format!("row-level security is off, and on for {on} other tenant tables"),
                (false, false) => format!(
                    "row-level security is off: its policies ({}) do nothing",
                    names.join(", ")
                ),
                (true, true) => "row-level security is on without a policy: only its owner sees rows".into(),
                (true, false) => format!("no policy ({}) reads {}", names.join(", "), key.quoted),
            },
            next: Some(format!(
                "SELECT statement FROM finalize_plan({}, {}, policy => true, root => {root}) WHERE state = 'optional'",
                Literal::new(&name),
                Literal::new(&typed(&key.name))
            )),
            column: key.name.clone(),
            table: name,
        });
    }
    Question {
        name: "row-level security",
        things: "tenant tables are not kept apart by a policy on their key",
        checked: if on > 0 { tables.len() as i64 } else { 0 },
        nothing: "no tenant table uses row-level security",
        findings,
    }
}

fn root(catalog: &Catalog, keys: Option<&TenantKeys>) -> String {
    match keys {
        Some(keys) => Literal::new(&catalog.display(keys.root)).to_string(),
        None => "NULL".into(),
    }
}
