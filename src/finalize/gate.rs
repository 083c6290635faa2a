//! What the rows must be like before they are locked in: an error with counts, reasons and the next call where they are not.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use super::calls::{declaration, named_root, validation};
use super::step::{Facts, Gate};
use crate::catalog::{Column, Table};
use crate::identifier::Literal;
use crate::infer::tenancy::resolver::TenantResolver;
use crate::pg;
use crate::plan::Reason;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::rule::{OnConflict, Overwrite, RuleSpec, typed};
use crate::run::record;
use crate::run::{self, Session, readable};
use crate::validate::{check_one, reading};

/// Fails where the column is NULL in a row (that `only_where` is true of); else says what was looked at.
///
/// Errors: P0004 with counts, reasons and the next call; 42P01, 42703 (names); 42601, 42703 ... for `only_where`; 42501.
pub fn assert_backfilled(
    session: &Session,
    table: &str,
    column: &str,
    only_where: Option<&str>,
) -> Result<String, Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(table)?;
    let column = catalog.resolve_column(table, column)?;
    no_nulls(
        session,
        table,
        column,
        only_where.filter(|text| !text.trim().is_empty()),
    )
}

fn no_nulls(session: &Session, table: &Table, column: &Column, only_where: Option<&str>) -> Result<String, Problem> {
    let catalog = &session.catalog;
    let shown = catalog.display(table);
    let mut problems = Problems::default();
    // Children of the table by inheritance are locked in with it.
    let relation = table.sql();
    let condition = only_where
        .map(|typed| run::only_where(session, table, &relation, typed, false).map(|read| read.prefixed))
        .transpose()?;
    // Whoever names a condition may read what it names, or Postgres says so.
    readable(session, table, &[column.number], false, &mut problems);
    problems.into_result()?;
    session.hold([table.oid])?;
    let inside = condition.map(|c| format!("\nWHERE ({c}) IS TRUE")).unwrap_or_default();
    let is = column.sql();
    let sql = format!(
        "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE t.{is} IS NOT DISTINCT FROM NULL)\nFROM {relation} AS t{inside}"
    );
    let (rows, nulls) = {
        let _settings = reading();
        // Functions and operators of the condition are named with their schemas; what those bodies name is the caller's.
        let _callers = only_where.map(|_| pg::Settings::push(&session.caller.as_pairs()));
        Spi::connect(|client| client.select(&sql, None, &[])?.first().get_two::<i64, i64>())?
    };
    let (rows, nulls) = (rows.unwrap_or(0), nulls.unwrap_or(0));
    let scope = only_where
        .map(|text| format!(" where {}", text.trim()))
        .unwrap_or_default();
    let name = format!("{shown}.{}", column.quoted);
    if nulls == 0 {
        return Ok(match rows {
            0 => format!("nothing to check: {shown} has no rows{scope}"),
            _ => format!("{name} is set in all {rows} rows{scope}"),
        });
    }
    let problem = Problem::new(
        PgSqlErrorCode::ERRCODE_ASSERT_FAILURE,
        format!("{name} is NULL in {nulls} of {rows} rows{scope}"),
    );
    Err(why(session, table, column, only_where, nulls, problem))
}

/// What `backfill` would make of the rows, where it can say.
fn why(
    session: &Session,
    table: &Table,
    column: &Column,
    only_where: Option<&str>,
    nulls: i64,
    problem: Problem,
) -> Problem {
    let spec = RuleSpec {
        table: record::qualified(table),
        column: column.quoted.clone(),
        sources: None,
        on_conflict: OnConflict::Skip,
        only_where: only_where.map(str::to_string),
        tenant_guard: true,
        tenant: None,
        overwrite: Overwrite::Nothing,
        references: None,
    };
    let counted = pg::subtransaction(AssertUnwindSafe(|| {
        let mut blueprint = run::prepare(session, &spec, run::PrepareOptions::default())?;
        run::simulate_run(session, &mut blueprint, false)
    }));
    let mut arguments = format!(
        "{}, {}",
        Literal::new(&session.catalog.display(table)),
        Literal::new(&typed(&column.name))
    );
    if let Some(condition) = only_where {
        arguments.push_str(&format!(", only_where => {}", Literal::new(condition)));
    }
    let outcome = match counted {
        Ok(outcome) => outcome,
        Err(cannot) => {
            return problem
                .detail(format!("no source for the missing values is known: {}", cannot.message))
                .hint(match cannot.hint {
                    Some(hint) => hint,
                    None => format!("SELECT * FROM backfill({arguments}, sources => ARRAY['...'])"),
                });
        }
    };
    let mut left = outcome.counts.reasons.clone();
    left.take(&Reason::Excluded);
    let words = left.by_word().into_iter();
    let mut reasons: Vec<String> = words.map(|(reason, rows)| format!("{reason} {rows}")).collect();
    let filled = outcome.counts.filled;
    let accounted = filled + left.total();
    if accounted < nulls {
        reasons.push(format!("in tables that inherit from it {}", nulls - accounted));
    }
    let detail = match (filled, reasons.is_empty()) {
        (0, _) => format!("backfill can fill none of them: {}", reasons.join(", ")),
        (_, true) => format!("backfill can fill all of them ({filled})"),
        (_, false) => format!(
            "backfill can fill {filled} of them; not the others: {}",
            reasons.join(", ")
        ),
    };
    problem.detail(detail).hint(match filled {
        0 => format!("SELECT * FROM backfill_unfilled({arguments})"),
        _ => format!("SELECT * FROM backfill({arguments}, dry_run => false)"),
    })
}

/// What was found, or what is wrong.
pub fn look(
    session: &Session,
    resolver: &TenantResolver,
    facts: &Facts,
    gate: Gate,
) -> Result<Result<String, Problem>, Problem> {
    let number = match gate {
        Gate::Nulls => {
            return match no_nulls(session, facts.table, facts.column, None) {
                Err(problem) if problem.code == PgSqlErrorCode::ERRCODE_ASSERT_FAILURE => Ok(Err(problem)),
                Err(problem) => Err(problem),
                Ok(found) => Ok(Ok(found)),
            };
        }
        Gate::Reference(number) => number,
    };
    let wanted = &facts.wanted[number];
    let reference = &wanted.reference;
    let checked = check_one(session, resolver, reference)?;
    let (child, parent) = (checked.table.clone(), checked.parent.clone().unwrap_or_default());
    let columns = Literal::new(&checked.columns).to_string();
    let orphans = checked.orphans.unwrap_or(0);
    if orphans == 0 {
        return Ok(Ok(match checked.rows_checked {
            0 => format!("nothing to check: no row of {child} has a value there"),
            rows => format!("all {rows} rows that have one find their row in {parent}"),
        }));
    }
    let violation =
        |message: String, hint: String| Problem::new(PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION, message).hint(hint);
    let table = Literal::new(&child).to_string();
    let root = named_root(facts.root, true);
    let not_null = facts.not_null || facts.column.never_null;
    // Over (tenant, column), a parent of another tenant is no parent.
    if wanted.keeps_tenants_apart && reference.constraint.is_none() {
        let single = Literal::new(&facts.column.name);
        let repair = match not_null {
            false => format!(
                "SELECT * FROM repair_orphans({table}, {single}, 'quarantine', violation => 'cross_tenant'{root})"
            ),
            true => format!(
                "SELECT sample FROM {} shows rows: give them a parent of their own tenant, or the tenant of their parent",
                validation(facts, wanted).trim_start_matches("SELECT * FROM ")
            ),
        };
        return Ok(Err(violation(
            format!(
                "{orphans} of {} rows of {child} reference a row of {parent} that belongs to another tenant or does not exist",
                checked.rows_checked
            ),
            format!("{repair}; or composite => false for a foreign key that lets them be"),
        )));
    }
    let action = match not_null {
        false => "quarantine",
        true => "create_parent",
    };
    // Where the columns could mean more than one parent.
    let which = match facts
        .wanted
        .iter()
        .filter(|w| w.reference.columns == reference.columns)
        .count()
    {
        1 if wanted.known => String::new(),
        _ => format!(", parent_table => {}", Literal::new(&parent)),
    };
    Ok(Err(violation(
        format!(
            "{orphans} of {} rows of {child} reference a row of {parent} that does not exist",
            checked.rows_checked
        ),
        format!(
            "{}SELECT * FROM repair_orphans({table}, {columns}, '{action}'{which}{root})",
            declaration(facts, wanted)
        ),
    )))
}
