//! `backfill_party_ids`: every column of the party model, parents first, in one transaction.

use super::execute;
use super::{Outcome, Request, Session, prepare};
use crate::infer::InferError;
use crate::infer::party::{self, PartyColumn};
use crate::plan::{Blueprint, Overlays};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::rule::{OnConflict, RuleSpec};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct PartyRequest {
    /// One table, or all.
    pub table: Option<String>,
    /// The Party table, as typed.
    pub party_table: String,
    /// Count only.
    pub dry_run: bool,
    /// What happens where sources disagree.
    pub on_conflict: OnConflict,
    /// Only these rows.
    pub only_where: Option<String>,
    /// Refuse other tenants' parties.
    pub tenant_guard: bool,
    /// Only this tenant.
    pub tenant: Option<String>,
}

/// One step: its blueprint, and why it has no sources if it has none.
struct Step<'a> {
    blueprint: Blueprint<'a>,
    without_sources: Option<InferError>,
}

/// Fills (or counts) every party column that was asked for; one outcome each, in the order of the run.
///
/// All steps are checked before the first is executed. In a dry run each step sees what the steps before it would have
/// written.
///
/// Errors: 42703 if the named table has no party column or none that can be derived; those of `prepare`.
pub fn party(session: &Session, request: &PartyRequest) -> Result<Vec<Outcome>, Problem> {
    let catalog = &session.catalog;
    let party_table = catalog.resolve_table(&request.party_table).map_err(|error| {
        let problem = Problem::from(error);
        let hint = problem.hint.as_deref().unwrap_or_default();
        let hint = format!("{hint} (party_table => '...' says how the table of the parties is called)");
        problem.hint(hint.trim().to_string())
    })?;
    let only = request
        .table
        .as_ref()
        .map(|name| catalog.resolve_table(name))
        .transpose()?;
    let mut columns = party::columns(catalog, party_table)?;
    if columns.is_empty() {
        return Err(nothing_references(session, party_table));
    }
    if let Some(table) = only {
        columns.retain(|c| c.table == table.oid);
        let Some(first) = columns.first() else {
            return Err(no_party_column(session, table, party_table));
        };
        if columns.iter().all(|c| c.sources.is_err())
            && let Err(error) = &first.sources
        {
            return Err(error.clone().into());
        }
    }
    let mut problems = Problems::default();
    let mut steps = Vec::new();
    for column in &columns {
        if let Some(step) = problems.keep(step(session, request, column)) {
            steps.push(step);
        }
    }
    problems.into_result()?;

    let mut overlays = Overlays::default();
    let mut outcomes = Vec::new();
    let mut touched: Vec<u32> = Vec::new();
    for step in &mut steps {
        let mut outcome = if request.dry_run {
            step.blueprint.overlays = overlays;
            let outcome = execute::dry(session, &mut step.blueprint, true)?;
            overlays = std::mem::take(&mut step.blueprint.overlays);
            outcome
        } else if step.without_sources.is_some() {
            // Nothing can be written: a count is all there is to do, and no run to record.
            Outcome {
                dry_run: false,
                ..execute::dry(session, &mut step.blueprint, false)?
            }
        } else {
            step.blueprint.touched.extend(&touched);
            let outcome = execute::real(session, &step.blueprint)?;
            touched.extend(outcome.transaction);
            outcome
        };
        if let Some(InferError::NoSource { looked_for, .. }) = &step.without_sources {
            outcome.note = Some(format!("nothing to fill it from: {looked_for}"));
        } else if let Some(error) = &step.without_sources {
            let problem = Problem::from(error.clone());
            let parts = [Some(problem.message), problem.detail, problem.hint];
            outcome.note = Some(parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn step<'a>(session: &'a Session, request: &PartyRequest, column: &PartyColumn) -> Result<Step<'a>, Problem> {
    let catalog = &session.catalog;
    let (sources, without_sources) = match &column.sources {
        Ok(sources) => (sources.clone(), None),
        Err(error) => (vec![], Some(error.clone())),
    };
    let (table, name) = match catalog.table(column.table) {
        Some(table) => (
            format!("{}.{}", table.quoted_schema, table.quoted_name),
            table
                .column(column.column)
                .map(|c| c.quoted.clone())
                .unwrap_or_default(),
        ),
        None => Default::default(),
    };
    let spec = RuleSpec {
        table,
        column: name,
        sources: None,
        on_conflict: request.on_conflict,
        only_where: request.only_where.clone(),
        tenant_guard: request.tenant_guard,
        tenant: request.tenant.clone(),
        references: None,
    };
    let prepared = Request {
        inferred: Some((sources, column.reference.clone())),
        tenant_optional: request.table.is_none(),
        will_write: !request.dry_run && without_sources.is_none(),
        overlays: Overlays::default(),
    };
    Ok(Step {
        blueprint: prepare(session, &spec, prepared)?,
        without_sources,
    })
}

fn no_party_column(session: &Session, table: &crate::catalog::Table, party: &crate::catalog::Table) -> Problem {
    let (shown, party) = (session.catalog.display(table), session.catalog.display(party));
    let columns: Vec<&str> = table.columns.iter().map(|c| c.quoted.as_str()).collect();
    Problem::new(
        pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("no column of {shown} references {party}"),
    )
    .detail(format!("{shown} has {}; none has a foreign key to {party}, or its name and type", columns.join(", ")))
    .hint(format!("ALTER TABLE {shown} ADD COLUMN ... REFERENCES {party}; or name the column: backfill('{}', 'column', sources => ARRAY[...])", shown.replace('\'', "''")))
}

fn nothing_references(session: &Session, party: &crate::catalog::Table) -> Problem {
    let shown = session.catalog.display(party);
    let key = party
        .primary_key()
        .map(|key| party.names_of(&key.columns).join(", "))
        .unwrap_or_else(|| "none".into());
    Problem::new(
        pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("no column references {shown}"),
    )
    .detail(format!(
        "looked for foreign keys to a column that is unique by itself, and for columns of its name and type; primary key: {key}"
    ))
    .hint("where parties are known by a composite key, fill one column at a time: backfill('table', 'column', sources => ARRAY['(tenant_id, contact_id) -> contact(tenant_id, id).party_id'])")
}
