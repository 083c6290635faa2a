//! The party model: a step for every column, parents first.

use super::steps::RuleStep;
use super::{PrepareOptions, Session, prepare};
use crate::infer::InferError;
use crate::infer::party::{self, PartyColumn};
use crate::plan::Mode;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::rule::{OnConflict, Overwrite, RuleSpec};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct PartyRequest {
    /// One table, or all.
    pub table: Option<String>,
    /// The Party table, as typed.
    pub party_table: String,
    /// Count only.
    pub mode: Mode,
    /// What happens where sources disagree.
    pub on_conflict: OnConflict,
    /// Only these rows.
    pub only_where: Option<String>,
    /// Refuse other tenants' parties.
    pub tenant_guard: bool,
    /// Only this tenant.
    pub tenant: Option<String>,
    /// Contacts, organizations and users without a party get one first.
    pub create_missing: bool,
    /// Table → column of the parties → expression over its rows: what new parties get.
    pub set: serde_json::Map<String, serde_json::Value>,
}

/// The party columns that were asked for, in the order of the run, each with the step that fills it from its sources.
///
/// Errors: 42703 if the named table has no party column or none that can be derived; those of `prepare`.
pub fn party<'a>(session: &'a Session, request: &PartyRequest) -> Result<Vec<(PartyColumn, RuleStep<'a>)>, Problem> {
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
        if !request.create_missing
            && columns.iter().all(|c| c.sources.is_err())
            && let Err(error) = &first.sources
        {
            return Err(error.clone().into());
        }
    }
    let mut problems = Problems::default();
    let mut steps = Vec::new();
    for column in columns {
        if let Some(step) = problems.keep(step(session, request, &column)) {
            steps.push((column, step));
        }
    }
    problems.into_result()?;
    Ok(steps)
}

fn step<'a>(session: &'a Session, request: &PartyRequest, column: &PartyColumn) -> Result<RuleStep<'a>, Problem> {
    let catalog = &session.catalog;
    let (sources, without_sources) = match &column.sources {
        Ok(sources) => (sources.clone(), None),
        Err(error) => (vec![], Some(error.clone())),
    };
    let (table, name) = match catalog.table(column.table) {
        Some(table) => (
            super::record::qualified(table),
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
        overwrite: Overwrite::Nothing,
        references: None,
    };
    let prepared = PrepareOptions {
        inferred: Some((sources, column.reference.clone())),
        tenant_optional: request.table.is_none(),
        mode: match without_sources {
            None => request.mode,
            Some(_) => Mode::Dry,
        },
        tenant_key: false,
        further: vec![],
    };
    let why = without_sources.map(|error| match error {
        InferError::NoSource { looked_for, .. } => format!("nothing to fill it from: {looked_for}"),
        error => {
            let problem = Problem::from(error);
            let parts = [Some(problem.message), problem.detail, problem.hint];
            parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
        }
    });
    Ok(RuleStep {
        blueprint: prepare(session, &spec, prepared)?,
        mode: request.mode.only_if(why.is_none()),
        instead_of_note: why,
        before_note: None,
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
