//! Repairing references: rows without a parent, or with one of another tenant. Never deletes.
//!
//! ```text
//! which reference    by table and columns; several parents are an error that names them
//! preflight          everything that is in the way, at once
//! dry                counts what each violating row would come to
//! real               writes, keeps what was there before, counts again; an error leaves the data as it was
//! ```

mod create;
mod missing;
mod nullify;
mod parent_values;
mod prepared;
mod request;

use std::cell::Cell;

use pgrx::prelude::*;

use crate::identifier::Literal;
use crate::infer::tenancy::resolver::TenantResolver;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::{self, Session, may_write};
use crate::validate::pass::Pass;
use crate::validate::reference::{Found, KeyReference, collect};
use crate::validate::{declared, may_be_read, tenants};
use prepared::PreparedRepair;
pub use request::{Action, RepairRequest, Repaired, Violation};

/// Repairs the rows that violate one reference, or counts what that would do.
///
/// Errors: 42P01, 42703 (names; no such reference), 42P08 (several), 23502 (NOT NULL; required columns of the parent), 42830
/// (no primary key), 0A000 (what cannot be predicted), 42501, 25006, 22P02 (values), 40001, and whatever triggers raise.
pub fn repair(session: &Session, request: &RepairRequest) -> Result<Repaired, Problem> {
    if request.mode.is_real() {
        may_write()?;
    }
    let keys = tenants(session, request.root.as_deref())?;
    let resolver = TenantResolver::new(keys, true);
    let reference = find(session, request)?;
    let mut problems = Problems::default();
    let only_where = request
        .only_where
        .as_ref()
        .filter(|text| !text.trim().is_empty())
        .and_then(|text| {
            problems.keep(run::only_where(
                session,
                reference.table,
                &reference.table.relation_sql(),
                text,
                true,
            ))
        });
    let mut pass = Pass::over(&session.catalog, &resolver, reference.table);
    let conditions = pass.conditions(&reference);
    let violating = match (request.violation, &conditions.tenants) {
        (Violation::Orphan, _) => conditions.orphan.clone(),
        (Violation::CrossTenant, Some(tenants)) => tenants.cross.clone(),
        (Violation::CrossTenant, None) => {
            problems.push(no_tenants(session, &reference));
            "false".into()
        }
    };
    let violating = match &only_where {
        Some(condition) => format!("({violating}) AND ({}) IS TRUE", condition.prefixed),
        None => violating,
    };
    let (only_where, typed) = only_where.map(|typed| (typed.prefixed, typed.tree)).unzip();
    let work = PreparedRepair {
        session,
        request,
        reference,
        pass,
        conditions,
        violating,
        only_where,
        typed,
        reader: Cell::default(),
        calls_code: Cell::default(),
        resolver: &resolver,
    };
    may_be_read(session, &work.pass, &mut problems);
    if request.mode.is_real() {
        problems.keep(session.must_record());
    }
    let reads = work.pass.reads().iter().map(|(table, _)| *table);
    let catalog = &session.catalog;
    let above = [work.reference.table, work.reference.parent];
    let above = above.map(|table| catalog.foreign_keys_of(table.oid).map(|key| key.parent));
    session.hold(
        reads
            .chain([work.reference.parent.oid])
            .chain(above.into_iter().flatten()),
    )?;
    match request.action {
        Action::CreateParent => {
            let plan = create::Creation::prepare(&work, &mut problems)?;
            problems.into_result()?;
            work.run(&plan)
        }
        Action::Nullify | Action::Quarantine => {
            let plan = nullify::Nullification::prepare(&work, &mut problems)?;
            problems.into_result()?;
            work.run(&plan)
        }
    }
}

/// The reference that the call means.
fn find<'a>(session: &'a Session, request: &RepairRequest) -> Result<KeyReference<'a>, Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(&request.table)?;
    let parent = request
        .parent
        .as_ref()
        .map(|name| catalog.resolve_table(name))
        .transpose()?;
    let declared = declared::load(session)?;
    let all: Vec<KeyReference> = collect(catalog, Some(table), true, &declared)
        .into_iter()
        .filter_map(|found| match found {
            Found::Reference(reference) => Some(reference),
            Found::Unchecked(_) => None,
        })
        .collect();
    let wanted = request.columns.trim();
    // As shown, else as typed: one name, or several in parentheses.
    let shown: Vec<&KeyReference> = all.iter().filter(|r| r.columns_shown() == wanted).collect();
    let mut found = shown;
    if found.is_empty() {
        let mut columns = Vec::new();
        for name in declared::columns_typed(wanted)? {
            columns.push(catalog.resolve_column(table, &name)?.number);
        }
        found = all
            .iter()
            .filter(|r| {
                let with_type: Vec<i16> = r
                    .discriminator
                    .iter()
                    .map(|(c, _)| *c)
                    .chain(r.columns.clone())
                    .collect();
                // The tenant goes without saying.
                let without_tenant = r.within_tenant && r.columns[1..] == columns;
                r.columns == columns || with_type == columns || without_tenant
            })
            .collect();
    }
    found.retain(|r| parent.is_none_or(|parent| parent.oid == r.parent.oid));
    // Two foreign keys that say the same.
    found.dedup_by(|a, b| (a.parent.oid, &a.key, &a.discriminator) == (b.parent.oid, &b.key, &b.discriminator));
    let display = catalog.display(table);
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            let list: Vec<String> = all.iter().map(KeyReference::columns_shown).collect();
            Err(Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("nothing says what {wanted} of {display} references"),
            )
            .detail(match list.is_empty() {
                true => format!("{display} has no references"),
                false => format!("references of {display}: {}", list.join(", ")),
            })
            .hint(format!(
                "say it: SELECT declare_reference({}, {}, 'parent_table(key)')",
                Literal::new(&display),
                Literal::new(wanted)
            )))
        }
        several => {
            let list: Vec<String> = several
                .iter()
                .map(|r| format!("{} -> {}", r.columns_shown(), catalog.display(r.parent)))
                .collect();
            let first = catalog.display(several[0].parent);
            Err(Problem::new(
                PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
                format!("{wanted} of {display} has {} references", several.len()),
            )
            .detail(list.join(", "))
            .hint(match several.iter().all(|r| r.parent.oid == several[0].parent.oid) {
                true => format!(
                    "name the columns as shown: {}",
                    Literal::new(&several[0].columns_shown())
                ),
                false => format!("say which: parent_table => {}", Literal::new(&first)),
            }))
        }
    }
}

fn no_tenants(session: &Session, reference: &KeyReference) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!(
            "cannot determine whether {} of {} references rows of another tenant",
            reference.columns_shown(),
            session.catalog.display(reference.table)
        ),
    )
    .detail("the rows of one of the two tables are shared (they belong to no tenant), or the reference was declared with may_cross_tenants")
    .hint("SELECT * FROM tenant_columns() shows the tenant key of each table")
}
