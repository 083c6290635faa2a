//! What a run reports: the counts, and the note that a reader needs besides them.

use super::session::Session;
use super::written_parts::Part;
use crate::infer::tenancy::guard::{Guard, describe};
use crate::plan::{Blueprint, Counts};

/// What a run did, or would do: one row of the result.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// As displayed.
    pub table: String,
    /// The bare name.
    pub column: String,
    /// Nothing was written.
    pub dry_run: bool,
    /// Rows per reason.
    pub counts: Counts,
    /// `mend.runs.run_id` of a real run.
    pub run_id: Option<i64>,
    /// What comes first in the note.
    pub first: Vec<String>,
    /// What a reader should know besides, most important first.
    pub notes: Vec<String>,
    /// The ids under which a real run wrote.
    pub parts: Vec<Part>,
}

impl Outcome {
    /// What comes first, what refused rows, then the notes, as one text.
    pub fn note(&self) -> Option<String> {
        let mut all = self.first.clone();
        all.extend(self.counts.reasons.refused());
        all.extend(self.notes.iter().cloned());
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// The outcome of a run that was counted.
pub(super) fn outcome(
    session: &Session,
    blueprint: &Blueprint,
    counts: Counts,
    dry_run: bool,
    skipped_by_trigger: Option<i64>,
) -> Outcome {
    let notes = notes(session, blueprint, &counts, dry_run, skipped_by_trigger);
    Outcome {
        table: blueprint.catalog.display(blueprint.table),
        column: blueprint.column.name.clone(),
        dry_run,
        counts,
        run_id: None,
        parts: vec![],
        first: vec![],
        notes,
    }
}

/// What a reader should know besides the numbers, most important first.
fn notes(
    session: &Session,
    blueprint: &Blueprint,
    counts: &Counts,
    dry_run: bool,
    skipped_by_trigger: Option<i64>,
) -> Vec<String> {
    let (catalog, table) = (blueprint.catalog, blueprint.table);
    let mut note = Vec::new();
    if blueprint.overwrites() {
        let only_its_tree = blueprint
            .rule
            .sources
            .iter()
            .all(|source| source.reads(table.oid, blueprint.column.number));
        note.push(match (dry_run, counts.replaced) {
            _ if only_its_tree => {
                "all sources lead to other rows of the same table, so no value is replaced: it is unknown which of two different rows is wrong".into()
            }
            (_, 0) => "all existing values agree with their sources".into(),
            (true, rows) => {
                format!("{rows} of the rows counted as filled have a different value, which would be replaced and recorded")
            }
            (false, rows) => {
                format!("{rows} of the filled rows had another value, kept in mend.replaced_values")
            }
        });
    }
    let triggers = blueprint.details.triggers.join(", ");
    if let Some(rows) = skipped_by_trigger {
        note.push(format!(
            "{rows} rows were refused by a trigger that returned NULL ({triggers})"
        ));
    }
    if dry_run && !triggers.is_empty() {
        note.push(format!(
            "triggers fire when it is written and cannot be predicted: {triggers}"
        ));
    }
    match &blueprint.guard {
        Guard::By(guard) => {
            let root = catalog
                .table(guard.root)
                .map(|root| catalog.display(root))
                .unwrap_or_default();
            let value = catalog
                .table(guard.value.table)
                .map(|t| catalog.display(t))
                .unwrap_or_default();
            note.push(format!(
                "tenant guard: {} must equal {} of {value} ({root})",
                describe(catalog, &guard.row),
                describe(catalog, &guard.value)
            ));
            if counts.unguarded > 0 {
                note.push(format!(
                    "{} filled rows have no tenant on one side and are not guarded",
                    counts.unguarded
                ));
            }
        }
        Guard::Unguarded(why) => note.push(why.clone()),
        Guard::TenantItself => {}
        Guard::Off => note.push("not guarded: tenant_guard is off".into()),
    }
    if let (Some(path), Some(tenant)) = (&blueprint.restriction, &blueprint.rule.tenant) {
        note.push(format!("restricted to {} = {tenant}", describe(catalog, path)));
    }
    if blueprint.rule.tenant.is_some() && blueprint.restriction.is_none() {
        note.push("all rows are excluded: nothing says which tenant they belong to".into());
    }
    let sources = blueprint.rule.sources.iter().filter(|source| !source.is_computed());
    let sources: Vec<String> = sources
        .map(|source| source.to_path(catalog, table).to_string())
        .collect();
    if !sources.is_empty() {
        note.push(format!("from {}", sources.join(", ")));
    }
    for (source, text) in blueprint.rule.sources.iter().zip(&sources) {
        if !source.is_unique(catalog) {
            note.push(format!(
                "{text}: the key is not unique, rows that match several different values are ambiguous"
            ));
        }
    }
    for parent in blueprint
        .rule
        .sources
        .iter()
        .flat_map(|s| &s.hops)
        .filter_map(|hop| catalog.table(hop.parent))
    {
        if parent.kind == 'r' && parent.has_children {
            note.push(format!(
                "tables that inherit from {} are not read",
                catalog.display(parent)
            ));
        }
    }
    if table.kind == 'r' && table.has_children {
        note.push(format!(
            "tables that inherit from {} are not touched",
            catalog.display(table)
        ));
    }
    if dry_run && !blueprint.column.may_update {
        note.push(format!("the real run needs UPDATE on {}", blueprint.target_shown()));
    }
    if dry_run && !session.may_record() {
        note.push("the real run needs rights on mend.runs: SELECT grant_mend('role')".into());
    }
    note
}
