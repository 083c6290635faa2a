//! Preflight: from a request to a blueprint, or to one error that lists everything that is in the way.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::PgSqlErrorCode;
use pgrx::prelude::*;

use super::access::{readable, updatable};
use super::condition::only_where;
use super::obstacles::{
    column_can_be_filled, details_can_be_predicted, overwriting_can_be_kept, relation_can_be_filled,
    tree_can_be_followed,
};
use super::{Reader, Session};
use crate::catalog::{Column, Details, Table, texts_can_be_read};
use crate::identifier::Literal;
use crate::infer::reference::{self, Reference};
use crate::infer::tenancy::guard::{self, Guard, TenantPath};
use crate::infer::tenancy::keys;
use crate::infer::{InferError, party};
use crate::pg;
use crate::plan::{Blueprint, Mode, Overlays, RowSet};
use crate::problem::Problem;
use crate::rule::check::{self, Problems};
use crate::rule::{Condition, Expression, Overwrite, Rule, RuleSpec, Source};

/// What is to be prepared, beyond the rule itself.
#[derive(Debug, Clone, Default)]
pub struct PrepareOptions {
    /// The sources are inferred already (the party model).
    pub inferred: Option<(Vec<Source>, Reference)>,
    /// A table whose rows have no tenant is no error: with `tenant`, all its rows are excluded.
    pub tenant_optional: bool,
    /// Of a real run the privilege to write must be there; of a count, what would be in the way of a write is not asked.
    pub mode: Mode,
    /// What is evaluated besides, in statements around the classification.
    pub further: Vec<Expression>,
    /// The column is known to be a tenant key.
    pub tenant_key: bool,
}

/// Looks everything up and checks everything.
///
/// Errors: see `rule::check`; further 42809 (not a table), 428C9 (generated or identity column), 0A000 (what cannot be
/// predicted or proved), 42501 (privileges, row-level security), 42P08 (ambiguous root), 22P02 (bad tenant). Several at
/// once are one error with all of them in DETAIL.
pub fn prepare<'a>(session: &'a Session, spec: &RuleSpec, request: PrepareOptions) -> Result<Blueprint<'a>, Problem> {
    let catalog = &session.catalog;
    let mut problems = Problems::default();
    let table = match problems.keep(catalog.resolve_table(&spec.table)) {
        Some(table) => table,
        // Without the table nothing else can be looked up, but paths that do not even parse can be told.
        None => {
            for source in spec.sources.iter().flatten() {
                if let crate::rule::SourceSpec::Text(text) = source {
                    problems.keep(text.parse::<crate::rule::Path>());
                }
            }
            problems.into_result()?;
            return Err(internal("a table was neither found nor missed"));
        }
    };
    relation_can_be_filled(session, table, &mut problems);
    let column = problems.keep(catalog.resolve_column(table, &spec.column));
    if let Some(column) = column.filter(|_| !request.mode.is_count()) {
        column_can_be_filled(session, table, column, &mut problems);
    }
    let details = match column {
        Some(_) if request.mode.is_count() => Some(Details::default()),
        Some(column) if table.is_table() => problems.keep(catalog.details(table, column)),
        _ => None,
    };
    if let (Some(details), Some(column), false) = (&details, column, request.mode.is_count()) {
        details_can_be_predicted(session, table, column, details, &mut problems);
    }

    let (mut found, mut inferred_reference) = sources_of(session, spec, &request, table, column, &mut problems);
    if spec.overwrite == Overwrite::Mismatched && !request.mode.is_count() {
        overwriting_can_be_kept(session, table, column, &mut problems);
    }
    if let Some(column) = column.filter(|_| problems.is_empty()) {
        tree_can_be_followed(session, table, column, &mut found, &mut problems);
    }
    no_view_of_the_target(session, table, &found, &mut problems);
    let typed = spec.only_where.as_ref().filter(|text| !text.trim().is_empty());
    let only_where = typed.and_then(|typed| {
        let keeps = spec.overwrite == Overwrite::Mismatched;
        let read = only_where(session, table, &table.relation_sql(), typed, keeps);
        problems.keep(read).map(|typed| Condition {
            portable: typed.bare,
            qualified: typed.prefixed,
            trees: vec![typed.tree],
        })
    });

    let (Some(column), Some(details)) = (column, details) else {
        problems.into_result()?;
        return Err(internal("a column was neither found nor missed"));
    };
    if inferred_reference.is_none() {
        inferred_reference = spec
            .references
            .as_ref()
            .and_then(|to| named_reference(session, column, to, &mut problems));
    }
    let declared_here = catalog.declared_references.get(&(table.oid, column.number));
    // Nothing is written, so there is no value to refuse.
    let refuse_dangling = inferred_reference.is_some() && !request.mode.is_count();
    let reference = inferred_reference
        .or_else(|| reference::declared(catalog, table, column))
        .or_else(|| declared_here.and_then(|_| keys::meaning(catalog, table, column)))
        .or_else(|| reference_of_values(session, table, &found))
        .or_else(|| keys::meaning(catalog, table, column));
    let asked = spec.tenant_guard || spec.tenant.is_some();
    let setting = if asked {
        problems.keep(session.tenant_root())
    } else {
        Some(None)
    };
    let root = setting.flatten();
    // Where parents are found by what they are, their tenant is part of it, and proves something.
    let key_columns: Vec<i16> = found.iter().flat_map(Source::columns).collect();
    let guard = match setting {
        // The setting is wrong: that is the problem, not what would be found without it.
        None => Guard::Off,
        Some(_) if !spec.tenant_guard || request.mode.is_count() => Guard::Off,
        Some(root) => guard_of(
            session,
            table,
            column,
            reference.as_ref(),
            root,
            &key_columns,
            &mut problems,
        ),
    };
    let restriction = spec.tenant.as_ref().and_then(|wanted| {
        let path = match &guard {
            Guard::By(guard) => Some(guard.row.clone()),
            // The tenant key itself: see Blueprint::tenant_of.
            _ if request.tenant_key || keys::is_key(catalog, table, column) => Some(TenantPath {
                table: table.oid,
                hops: vec![],
                columns: vec![column.number],
                owner: table.oid,
                column: column.number,
                otherwise: vec![],
            }),
            _ => match guard::of_table(catalog, table, root, column.number, &key_columns) {
                Err(InferError::NoTenant { .. }) if request.tenant_optional => None,
                result => problems.keep(result),
            },
        };
        path.inspect(|path| tenant_reads_as_key(session, path, wanted, &mut problems))
    });

    let rule = Rule {
        table: table.oid,
        column: column.number,
        sources: found,
        on_conflict: spec.on_conflict,
        only_where,
        overwrite: spec.overwrite,
        tenant_guard: spec.tenant_guard,
        tenant: spec.tenant.clone(),
    };
    let mut blueprint = Blueprint {
        catalog,
        table,
        column,
        rule,
        details,
        reference,
        refuse_dangling,
        guard,
        restriction,
        rows: RowSet::All,
        overlays: Overlays::default(),
        touched: session.transaction.into_iter().collect(),
        written_as: vec![],
        further: request.further,
        reader: None,
    };
    if let Some(reader) = problems.keep(who_reads(session, &blueprint, &[])) {
        blueprint.reader = reader.role();
    }
    everything_can_be_read(session, &blueprint, request.mode, &mut problems);
    problems.into_result()?;
    session.hold(blueprint.reads().into_iter().map(|(table, _)| table))?;
    Ok(blueprint)
}

/// The sources of a rule, and what its values mean where that was inferred with them.
fn sources_of(
    session: &Session,
    spec: &RuleSpec,
    request: &PrepareOptions,
    table: &Table,
    column: Option<&Column>,
    problems: &mut Problems,
) -> (Vec<Source>, Option<Reference>) {
    let catalog = &session.catalog;
    match (&request.inferred, &spec.sources, column) {
        (Some((sources, reference)), _, _) => (sources.clone(), Some(reference.clone())),
        (None, Some(specs), Some(column)) => {
            if specs.is_empty() {
                problems.push(
                    Problem::new(
                        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                        "sources is an empty array",
                    )
                    .hint("leave sources out (NULL) to have them inferred"),
                );
            }
            let sources = specs.iter();
            let sources = sources.filter_map(|s| check::source(catalog, table, column, s, problems));
            (sources.collect(), None)
        }
        (None, None, Some(column)) => match party::infer(catalog, table, column) {
            Ok(inferred) => (inferred.sources, inferred.reference),
            Err(error) => {
                problems.push(error);
                (vec![], None)
            }
        },
        (None, _, None) => (vec![], None),
    }
}

/// A source that is a view of the table that is filled changes with it.
fn no_view_of_the_target(session: &Session, table: &Table, sources: &[Source], problems: &mut Problems) {
    let catalog = &session.catalog;
    for hop in sources.iter().flat_map(|source| &source.hops) {
        let parent = catalog.table(hop.parent);
        if let Some(view) = parent.filter(|parent| catalog.reads(parent, table.oid)) {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!(
                        "{} reads {}, the table that is filled",
                        catalog.display(view),
                        catalog.display(table)
                    ),
                )
                .detail("its result changes while the table is filled, and a dry run cannot predict how")
                .hint("name the table itself in the path"),
            );
        }
    }
}

/// How the tenant is guarded, where that was asked for.
///
/// * `root`: as the setting says.
/// * `key_columns`: columns from which sources start.
fn guard_of(
    session: &Session,
    table: &Table,
    column: &Column,
    reference: Option<&Reference>,
    root: Option<&Table>,
    key_columns: &[i16],
    problems: &mut Problems,
) -> Guard {
    let catalog = &session.catalog;
    let declared = catalog.declared_references.get(&(table.oid, column.number));
    let values = &column.quoted;
    if declared.is_some_and(|declared| declared.may_cross_tenants) {
        return Guard::Unguarded(format!(
            "not guarded: the reference of {values} was declared with may_cross_tenants"
        ));
    }
    if declared.is_some_and(|declared| declared.by_type) {
        return Guard::Unguarded(format!(
            "not guarded: which table the values of {values} mean depends on another column"
        ));
    }
    let Some(reference) = reference else {
        return Guard::Unguarded(format!(
            "not guarded: nothing says what the values of {values} mean; SELECT declare_reference(table, column, 'parent(key)') does"
        ));
    };
    let Some(parent) = catalog.table(reference.parent) else {
        return Guard::Unguarded("not guarded: the referenced table is not visible".into());
    };
    let found = guard::guard(catalog, table, parent, root, column.number, key_columns);
    problems.keep(found).unwrap_or(Guard::Off)
}

/// Who counts what a blueprint would do.
///
/// * `others`: further tables that are asked what they would refuse, with what of them is code.
///
/// Errors: see [`Reader::of`].
pub fn who_reads(session: &Session, blueprint: &Blueprint, others: &[(&Table, &[String])]) -> Result<Reader, Problem> {
    let mut asked = vec![(blueprint.table, blueprint.details.code.as_slice())];
    asked.extend(others);
    let mut reads: Vec<u32> = blueprint.reads().into_iter().map(|(table, _)| table).collect();
    reads.extend(others.iter().map(|(table, _)| table.oid));
    let typed = blueprint.rule.only_where.iter().flat_map(|condition| &condition.trees);
    let computed = blueprint
        .expressions()
        .filter_map(|expression| expression.tree.as_ref());
    let typed: Vec<&str> = typed.chain(computed).map(String::as_str).collect();
    Reader::of(session, &asked, &reads, &typed)
}

pub(super) fn internal(what: &str) -> Problem {
    Problem::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, what).hint("this is a bug in pg_mend: please report it")
}

/// What the values mean, as a recorded rule says it.
fn named_reference(
    session: &Session,
    column: &Column,
    to: &crate::rule::ReferenceSpec,
    problems: &mut Problems,
) -> Option<Reference> {
    let parent = problems.keep(session.catalog.resolve_table(&to.table))?;
    let key = problems.keep(session.catalog.resolve_column(parent, &to.column))?;
    if !session.catalog.comparable(column.type_oid, key.type_oid) || !parent.is_unique(&[key.number]) {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                format!(
                    "references: {}.{} is no key that {} can mean",
                    session.catalog.display(parent),
                    key.quoted,
                    column.quoted
                ),
            )
            .hint("name a column that is unique by itself and of the same type, or leave references out"),
        );
        return None;
    }
    Some(Reference {
        parent: parent.oid,
        key: key.number,
        declared: false,
    })
}

/// What the values mean where the target column has no foreign key: what all sources' value columns reference.
fn reference_of_values(session: &Session, table: &Table, sources: &[Source]) -> Option<Reference> {
    let mut references = sources.iter().map(|source| {
        let (owner, column) = source.value(table.oid)?;
        let owner = session.catalog.table(owner)?;
        let column = owner.column(column)?;
        reference::declared(&session.catalog, owner, column).or_else(|| {
            // A source may take the key of the parent itself: organization_id -> organizations.id.
            owner.is_unique(&[column.number]).then_some(Reference {
                parent: owner.oid,
                key: column.number,
                declared: false,
            })
        })
    });
    let first = references.next()??;
    references
        .all(|r| {
            r.as_ref()
                .is_some_and(|r| r.parent == first.parent && r.key == first.key)
        })
        .then_some(Reference {
            declared: false,
            ..first
        })
}

/// `tenant => 'x'` must be a value of the tenant key's type.
fn tenant_reads_as_key(session: &Session, path: &TenantPath, wanted: &str, problems: &mut Problems) {
    let catalog = &session.catalog;
    let base = catalog
        .table(path.owner)
        .and_then(|t| t.column(path.column))
        .and_then(|c| catalog.base_type(c.type_oid, -1));
    let Some((base, _)) = base else { return };
    let column = catalog.table(path.owner).and_then(|t| t.column(path.column));
    if column.is_some_and(|column| problems.keep(texts_can_be_read(catalog, column)).is_none()) {
        return;
    }
    // A constant is read by the input function of the type; a cast from a text could be somebody's own function.
    let sql = format!("SELECT {}::{} IS NULL", Literal::new(wanted), base.sql());
    let result = pg::subtransaction(AssertUnwindSafe(|| {
        Ok(Spi::connect(|client| client.select(&sql, None, &[]).map(|_| ()))?)
    }));
    problems.keep(result.map_err(|p| Problem {
        message: format!("tenant: {}", p.message),
        hint: Some(format!("pass the tenant's key as text, of type {}", base.display)),
        ..p
    }));
}

/// Privileges and row-level security of every table that takes part.
fn everything_can_be_read(session: &Session, blueprint: &Blueprint, mode: Mode, problems: &mut Problems) {
    for (oid, columns) in blueprint.reads() {
        let Some(table) = session.catalog.table(oid) else {
            continue;
        };
        // Which row it is (ctid, xmin) is for those to see who may read the whole table.
        readable(session, table, &columns, oid == blueprint.table.oid, problems);
    }
    let (table, column) = (blueprint.table, blueprint.column);
    if mode.is_real() {
        problems.keep(session.must_record());
        updatable(session, table, column, problems);
    }
}
