//! Filling one column, every party column; what is left; the statements.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{object, required_argument, row};
use crate::parents;
use crate::pg::Jsonb;
use crate::plan::Mode;
use crate::problem::Problem;
use crate::rule::{OnConflict, RuleSpec, SourceSpec};
use crate::run::{self, Outcome, PartyRequest, PrepareOptions, Session, record};

/// Fills one column from its sources, or (by default) counts what that would do.
///
/// * `table_name`, `column_name`: the target, as people type it (`WaitlistEntry`, `public."WaitlistEntry"`).
/// * `sources`: paths in order of precedence, such as `contactId -> Contact.partyId`; NULL: inferred.
/// * `dry_run`: true counts and writes nothing; works read-only and on a standby.
/// * `on_conflict`: `skip`, `first`, `error` or `any_two`, for sources that give different values.
/// * `only_where`: a condition over the target's columns; other rows are `excluded`.
/// * `tenant_guard`: refuse values whose row belongs to another tenant.
/// * `tenant`: only rows of this tenant (its key as text).
/// * `overwrite`: `nothing` (default), or `mismatched`: replace values that all sources contradict with one other value, and keep
///   the old ones in `mend.replaced_values`.
///
/// Returns one row: `total = already_set + filled + unfilled`, and `unfilled` is the sum of `reasons`.
///
/// Errors: 42P01, 42703 (names, with the nearest ones), 42601 (grammar), 42804 (types), 42830 (no key to join by), 42809,
/// 428C9, 0A000 (what cannot be filled), 42501 (privileges, row-level security), 42P08 (ambiguous tenant root), 21000
/// (conflicts under `error`), 25006 (read-only), 25000 (REPEATABLE READ, SERIALIZABLE), 40001, 27000; all problems of a rule at once.
///
/// ```sql
/// SELECT * FROM backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId -> Contact.partyId']);
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn backfill(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: default!(Option<Vec<Option<String>>>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    overwrite: default!(Option<&str>, "'nothing'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(dry_run, bool),
            name!(total, i64),
            name!(already_set, i64),
            name!(filled, i64),
            name!(unfilled, i64),
            name!(reasons, Jsonb),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let spec = spec(
        table_name,
        column_name,
        sources,
        on_conflict,
        only_where,
        tenant_guard,
        tenant,
        overwrite,
    )?;
    let outcome = fill(&spec, None, required_argument(dry_run, "dry_run")?)?;
    Ok(TableIterator::once(row(outcome)))
}

/// The same as `backfill(table, column, ...)`, the rule as one JSON object.
///
/// Keys: `table`, `column` (required); `sources` (array of paths as text, or as
/// `{"columns": [...], "hops": [{"table": ..., "key": [...], "columns": [...]}]}`), `on_conflict`, `only_where`,
/// `tenant_guard`, `tenant`, `overwrite`, and `references` (`{"table": ..., "column": ...}`, the row that a value means where no foreign
/// key says so). An unknown key is an error, so that a misspelt one is not ignored.
///
/// Errors: 22023 for JSON that is no rule; those of `backfill`.
///
/// ```sql
/// SELECT * FROM backfill('{"table": "WaitlistEntry", "column": "clientPartyId"}');
/// ```
#[pg_extern(name = "backfill")]
fn backfill_rule(
    rule: Option<Jsonb>,
    dry_run: default!(Option<bool>, "true"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(dry_run, bool),
            name!(total, i64),
            name!(already_set, i64),
            name!(filled, i64),
            name!(unfilled, i64),
            name!(reasons, Jsonb),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let rule = required_argument(rule, "rule")?;
    let spec: RuleSpec = serde_json::from_value(rule.value("rule")?).map_err(|error| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("this JSON is no rule: {error}"),
        )
        .detail("keys: table, column, sources, on_conflict, only_where, tenant_guard, tenant, overwrite, references")
        .hint(r#"for example backfill('{"table": "WaitlistEntry", "column": "clientPartyId"}')"#)
    })?;
    let outcome = fill(&spec, Some(&rule), required_argument(dry_run, "dry_run")?)?;
    Ok(TableIterator::once(row(outcome)))
}

/// Fills every column that references Party from its legacy contact, organization and user columns, parents first.
///
/// * `table_name`: one table; NULL: all.
/// * `party_table`: the table of the parties.
/// * `create_missing`: rows that are parties themselves (contacts, organizations, users) and have none get one first, in their tenant
///   (of a row without a tenant key: through its membership; `ambiguous` where it is a member of several, `no_source` of none).
///   Not where the row names another that exists (a user its contact): it takes the party from there.
/// * `set`: with `create_missing`, table → column of the parties → SQL expression over its rows, what new parties get,
///   `'{"Contact": {"displayName": "name"}}'`. By themselves: an enum label that is the table's name, and required columns of which
///   the row has one of the same name.
/// * the others as in `backfill`.
///
/// Returns one row per column, in the order of the run, all in one transaction; `parents_created`: new parties. When all tables are
/// asked, one whose legacy columns are gone is a row with a note.
///
/// Errors: 42703 if the named table has no party column, or none that can be derived; 22023 where parties are to be created for a
/// table whose rows are none; 23502 with everything that new parties need; those of `backfill` and `backfill_parents`.
///
/// ```sql
/// SELECT * FROM backfill_party_ids('WaitlistEntry', true);
/// SELECT * FROM backfill_party_ids(create_missing => true, set => '{"Contact": {"displayName": "name"}}');
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn backfill_party_ids(
    table_name: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "true"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    party_table: default!(Option<&str>, "'Party'"),
    create_missing: default!(Option<bool>, "false"),
    set: default!(Option<Jsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(dry_run, bool),
            name!(total, i64),
            name!(already_set, i64),
            name!(filled, i64),
            name!(unfilled, i64),
            name!(reasons, Jsonb),
            name!(parents_created, i64),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = PartyRequest {
        table: table_name.map(str::to_string),
        party_table: required_argument(party_table, "party_table")?.to_string(),
        mode: Mode::of(required_argument(dry_run, "dry_run")?),
        on_conflict: required_argument(on_conflict, "on_conflict")?.parse()?,
        only_where: only_where.map(str::to_string),
        tenant_guard: required_argument(tenant_guard, "tenant_guard")?,
        tenant: tenant.map(str::to_string),
        create_missing: required_argument(create_missing, "create_missing")?,
        set: object(set, "set")?.unwrap_or_default(),
    };
    let columns = parents::party(&Session::begin()?, &request)?;
    Ok(TableIterator::new(columns.into_iter().map(|column| {
        let created = column.created;
        let (table, name, dry_run, total, already_set, filled, unfilled, reasons, run_id, note) = row(column.outcome);
        (
            table,
            name,
            dry_run,
            total,
            already_set,
            filled,
            unfilled,
            reasons,
            created,
            run_id,
            note,
        )
    })))
}

/// The rows that `backfill` with the same arguments leaves empty: key, reason, and what was found in words.
///
/// * `max_rows`: at most this many; rows that the caller excluded come last.
/// * the others as in `backfill`.
///
/// Rows without a primary key are named by their ctid. Writes nothing.
///
/// Errors: those of `backfill`; 22023 for a negative `max_rows`.
///
/// ```sql
/// SELECT * FROM backfill_unfilled('WaitlistEntry', 'clientPartyId') WHERE reason = 'conflict';
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn backfill_unfilled(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: default!(Option<Vec<Option<String>>>, "NULL"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    max_rows: default!(Option<i64>, "100"),
    overwrite: default!(Option<&str>, "'nothing'"),
) -> Result<
    TableIterator<'static, (name!(key, Jsonb), name!(reason, String), name!(detail, Option<String>))>,
    ErrorReport,
> {
    let max_rows = required_argument(max_rows, "max_rows")?;
    if max_rows < 0 {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "max_rows must not be negative",
        )
        .hint("max_rows => 100 shows the first hundred")
        .into());
    }
    let spec = spec(
        table_name,
        column_name,
        sources,
        on_conflict,
        only_where,
        tenant_guard,
        tenant,
        overwrite,
    )?;
    let session = Session::begin()?;
    let mut blueprint = run::prepare(&session, &spec, PrepareOptions::default())?;
    Ok(TableIterator::new(run::unfilled(&session, &mut blueprint, max_rows)?))
}

/// The statements that `backfill` with the same arguments would run, formatted for review. Runs none of them.
///
/// In this order, the first one included, they do by hand what the function does (without its proof and its record).
///
/// Errors: those of `backfill`.
///
/// ```sql
/// SELECT statement FROM backfill_sql('WaitlistEntry', 'clientPartyId') ORDER BY step;
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn backfill_sql(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: default!(Option<Vec<Option<String>>>, "NULL"),
    on_conflict: default!(Option<&str>, "'skip'"),
    only_where: default!(Option<&str>, "NULL"),
    tenant_guard: default!(Option<bool>, "true"),
    tenant: default!(Option<&str>, "NULL"),
    overwrite: default!(Option<&str>, "'nothing'"),
) -> Result<TableIterator<'static, (name!(step, i32), name!(purpose, String), name!(statement, String))>, ErrorReport> {
    let spec = spec(
        table_name,
        column_name,
        sources,
        on_conflict,
        only_where,
        tenant_guard,
        tenant,
        overwrite,
    )?;
    let session = Session::begin()?;
    let blueprint = run::prepare(&session, &spec, PrepareOptions::default())?;
    let statements = run::sql(&blueprint).into_iter().enumerate();
    Ok(TableIterator::new(
        statements.map(|(i, (purpose, statement))| (i as i32 + 1, purpose, statement)),
    ))
}

/// * `recorded`: the rule as JSON, which may be what another role has recorded.
fn fill(spec: &RuleSpec, recorded: Option<&Jsonb>, dry_run: bool) -> Result<Outcome, Problem> {
    let session = Session::begin()?;
    let other = recorded.map(record::recorded_by_another).transpose()?.flatten();
    let request = PrepareOptions {
        mode: Mode::of(dry_run),
        ..PrepareOptions::default()
    };
    // Reading a condition may already run code: it is not read.
    if let (Some(other), Some(condition)) = (&other, &spec.only_where) {
        let hint = "look at its only_where, and say it yourself: backfill(table, column, only_where => ...)";
        return Err(record::not_ones_own(other, &format!("its condition {condition}"), hint));
    }
    let mut blueprint = run::prepare(&session, spec, request)?;
    let mut outcome = match dry_run {
        true => run::simulate_run(&session, &mut blueprint, false)?,
        false => run::execute_run(&session, &blueprint, &[])?,
    };
    if let Some(other) = other {
        outcome.first.push(format!("the rule is one that {other} has recorded"));
    }
    Ok(outcome)
}

#[allow(clippy::too_many_arguments)]
fn spec(
    table_name: Option<&str>,
    column_name: Option<&str>,
    sources: Option<Vec<Option<String>>>,
    on_conflict: Option<&str>,
    only_where: Option<&str>,
    tenant_guard: Option<bool>,
    tenant: Option<&str>,
    overwrite: Option<&str>,
) -> Result<RuleSpec, Problem> {
    let sources = sources
        .map(|paths| {
            paths
                .into_iter()
                .map(|path| required_argument(path, "each of sources").map(SourceSpec::Text))
                .collect()
        })
        .transpose()?;
    let on_conflict: OnConflict = required_argument(on_conflict, "on_conflict")?.parse()?;
    Ok(RuleSpec {
        table: required_argument(table_name, "table_name")?.to_string(),
        column: required_argument(column_name, "column_name")?.to_string(),
        sources,
        on_conflict,
        only_where: only_where.map(str::to_string),
        tenant_guard: required_argument(tenant_guard, "tenant_guard")?,
        tenant: tenant.map(str::to_string),
        overwrite: required_argument(overwrite, "overwrite")?.parse()?,
        references: None,
    })
}
