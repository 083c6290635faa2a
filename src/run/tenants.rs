//! `backfill_tenant_ids` and `backfill_coverage`: the tenant keys of all tables.

use pgrx::prelude::PgSqlErrorCode;

use super::steps::{self, RuleStep};
use super::{Outcome, PrepareOptions, Session, execute, prepare};
use crate::catalog::Table;
use crate::infer::InferError;
use crate::infer::tenancy::keys::{KeyPaths, TenantKeys, in_order};
use crate::infer::tenancy::root;
use crate::plan::Blueprint;
use crate::plan::Mode;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::rule::{OnConflict, Overwrite, RuleSpec};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct TenantKeysRequest {
    /// The table that holds the tenants, as typed; `None`: the setting, else inferred.
    pub root: Option<String>,
    /// One table, or all.
    pub table: Option<String>,
    /// Count only.
    pub mode: Mode,
    /// What happens where paths disagree.
    pub on_conflict: OnConflict,
    /// Only these rows.
    pub only_where: Option<String>,
    /// Only this tenant.
    pub tenant: Option<String>,
    /// May values that are there be replaced?
    pub overwrite: Overwrite,
}

/// How far the key of one table is filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// As displayed.
    pub table: String,
    /// The bare name.
    pub column: String,
    /// Rows.
    pub total: i64,
    /// Rows whose key is set.
    pub populated: i64,
    /// Rows whose key is not what their path says; `None` where no path says anything.
    pub disagrees: Option<i64>,
}

/// The keys of the caller's database.
///
/// * `named`: the root as typed; `None`: the setting, else inferred.
///
/// Errors: 42P01, 42P08, 42704, 42703, 42830, see `infer::root` and `infer::keys`.
pub fn tenant_keys<'a>(session: &'a Session, named: Option<&str>) -> Result<TenantKeys<'a>, Problem> {
    let root = match named {
        Some(name) => session.use_tenant_root(name)?,
        None => match session.tenant_root()? {
            Some(root) => root,
            None => root::find(&session.catalog)?,
        },
    };
    Ok(TenantKeys::find(&session.catalog, root)?)
}

/// Fills (or counts) the tenant key of every table, parents before children; one outcome per key.
///
/// All steps are checked before the first is executed. In a dry run each step sees what the steps before it would have
/// written.
///
/// Errors: those of [`tenant_keys`] and `prepare`; 42P17 for a circle of tables; 42703 if the named table has no key, or
/// none that can be derived.
pub fn tenants(session: &Session, request: &TenantKeysRequest) -> Result<Vec<Outcome>, Problem> {
    let keys = tenant_keys(session, request.root.as_deref())?;
    let named = request
        .table
        .as_ref()
        .map(|name| session.catalog.resolve_table(name))
        .transpose()?;
    let found = match named {
        Some(table) => {
            let found = keys.of_table(table);
            if found.is_empty() {
                return Err(no_key(session, &keys, table));
            }
            found
        }
        None => {
            let is_filled = |key: &KeyPaths| can_be_filled(session, key, request.overwrite).is_ok();
            in_order(&keys, keys.all(), is_filled)?
        }
    };
    hold_all(session, &found)?;
    let mut problems = Problems::default();
    let mut steps = Vec::new();
    for key in &found {
        let why_not = can_be_filled(session, key, request.overwrite).err();
        if let (Some(table), Some(WhyNot::NoPath)) = (named, &why_not) {
            problems.push(InferError::NoSource {
                table: session.catalog.display(table),
                column: name_of(session, key),
                looked_for: keys.why_no_path(table, &key.paths),
            });
            continue;
        }
        if let Some(step) = problems.keep(step(session, &keys, request, key, why_not)) {
            steps.push(step);
        }
    }
    problems.into_result()?;
    steps::run(session, steps, request.mode)
}

/// Looks at all tables at once, where the caller may read them: one by one it takes longer.
fn hold_all(session: &Session, keys: &[KeyPaths]) -> Result<(), Problem> {
    let tables = keys.iter().filter_map(|key| session.catalog.table(key.table));
    session.hold(tables.filter(|table| table.may_select).map(|table| table.oid))
}

/// Counts, for the key of every table, the rows where it is set and those where its path says something else.
///
/// Errors: those of [`tenant_keys`]; 42501 with every table that the caller may not read, or of which policies would hide
/// rows.
pub fn tenant_coverage(session: &Session, named: Option<&str>) -> Result<Vec<Coverage>, Problem> {
    let keys = tenant_keys(session, named)?;
    let all = keys.all();
    hold_all(session, &all)?;
    let mut problems = Problems::default();
    let mut blueprints: Vec<Blueprint> = Vec::new();
    for key in all {
        blueprints.extend(problems.keep(blueprint(session, &keys, &key, &TenantKeyRuleOptions::counting())));
    }
    problems.into_result()?;
    let mut coverage = Vec::new();
    for blueprint in &blueprints {
        pgrx::check_for_interrupts!();
        let (total, populated, disagrees) = execute::coverage(session, blueprint)?;
        coverage.push(Coverage {
            table: session.catalog.display(blueprint.table),
            column: blueprint.column.name.clone(),
            total,
            populated,
            disagrees,
        });
    }
    Ok(coverage)
}

/// Why a key is only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhyNot {
    NotNull,
    WrongType,
    NoPath,
}

fn can_be_filled(session: &Session, key: &KeyPaths, overwrite: Overwrite) -> Result<(), WhyNot> {
    let table = session.catalog.table(key.table);
    let column = table.and_then(|table| table.column(key.key.column));
    if !key.key.comparable {
        return Err(WhyNot::WrongType);
    }
    if overwrite == Overwrite::Nothing && column.is_some_and(|column| column.never_null) {
        return Err(WhyNot::NotNull);
    }
    // A tree only fills what is empty, and nothing contradicts what is not.
    if column.is_some_and(|column| column.never_null) && key.paths.found.iter().all(|path| path.in_own_tree()) {
        return Err(WhyNot::NotNull);
    }
    match key.paths.found.is_empty() {
        true => Err(WhyNot::NoPath),
        false => Ok(()),
    }
}

/// What of a request a single rule needs.
#[derive(Debug, Clone, Default)]
struct TenantKeyRuleOptions {
    on_conflict: OnConflict,
    only_where: Option<String>,
    tenant: Option<String>,
    tenant_optional: bool,
    overwrite: Overwrite,
    mode: Mode,
    without_sources: bool,
}

impl TenantKeyRuleOptions {
    fn counting() -> Self {
        TenantKeyRuleOptions {
            mode: Mode::Count,
            ..TenantKeyRuleOptions::default()
        }
    }
}

fn step<'a>(
    session: &'a Session,
    keys: &TenantKeys,
    request: &TenantKeysRequest,
    key: &KeyPaths,
    why_not: Option<WhyNot>,
) -> Result<RuleStep<'a>, Problem> {
    let Some(table) = session.catalog.table(key.table) else {
        return Err(Problem::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a table was lost"));
    };
    let rule = TenantKeyRuleOptions {
        on_conflict: request.on_conflict,
        only_where: request.only_where.clone(),
        // What the column holds is no tenant: it cannot be compared with one.
        tenant: request.tenant.clone().filter(|_| why_not != Some(WhyNot::WrongType)),
        tenant_optional: request.table.is_none(),
        overwrite: match why_not {
            Some(_) => Overwrite::Nothing,
            None => request.overwrite,
        },
        mode: request.mode.only_if(why_not.is_none()),
        without_sources: why_not.is_some(),
    };
    let instead_of_note = why_not.map(|why| match why {
        WhyNot::NotNull => "NOT NULL: nothing to fill".into(),
        WhyNot::WrongType => keys.wrong_type(table, &key.key),
        WhyNot::NoPath => format!("nothing to fill it from: {}", keys.why_no_path(table, &key.paths)),
    });
    match blueprint(session, keys, key, &rule) {
        Ok(blueprint) => Ok(RuleStep {
            blueprint,
            mode: request.mode.only_if(why_not.is_none()),
            before_note: instead_of_note
                .is_none()
                .then(|| cautions(session, table, key))
                .flatten(),
            instead_of_note,
        }),
        // One table that cannot be filled at all is no reason to fill none of the others.
        Err(problem) if request.table.is_none() && cannot_be_filled_at_all(&problem) => {
            let counting = TenantKeyRuleOptions {
                mode: Mode::Count,
                without_sources: true,
                overwrite: Overwrite::Nothing,
                ..rule
            };
            let parts = [
                Some(problem.message.clone()),
                problem.detail.clone(),
                problem.hint.clone(),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            Ok(RuleStep {
                blueprint: blueprint(session, keys, key, &counting).map_err(|_| problem)?,
                mode: Mode::Count,
                before_note: None,
                instead_of_note: Some(format!("not filled: {}", parts.join("; "))),
            })
        }
        Err(problem) => Err(problem),
    }
}

/// What the table is made like is in the way, not what was asked for or who asked.
fn cannot_be_filled_at_all(problem: &Problem) -> bool {
    matches!(
        problem.code,
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED
            | PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS
            | PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY
    )
}

/// What a reader should know of the paths themselves.
fn cautions(session: &Session, table: &Table, key: &KeyPaths) -> Option<String> {
    let mut notes: Vec<String> = key.paths.found.iter().filter_map(|path| path.caution.clone()).collect();
    let not_followed = key.paths.not_followed.iter().map(|(path, why)| {
        let path = path.source.to_path(&session.catalog, table);
        format!("{path} {}", why.as_str())
    });
    notes.extend(not_followed);
    if key.paths.more {
        notes.push(format!(
            "there are more paths than the {} that are compared",
            key.paths.found.len()
        ));
    }
    notes.dedup();
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn blueprint<'a>(
    session: &'a Session,
    keys: &TenantKeys,
    key: &KeyPaths,
    rule: &TenantKeyRuleOptions,
) -> Result<Blueprint<'a>, Problem> {
    let (table, column) = match session.catalog.table(key.table) {
        Some(table) => (
            super::record::qualified(table),
            table
                .column(key.key.column)
                .map(|c| c.quoted.clone())
                .unwrap_or_default(),
        ),
        None => Default::default(),
    };
    let spec = RuleSpec {
        table,
        column,
        sources: None,
        on_conflict: rule.on_conflict,
        only_where: rule.only_where.clone(),
        tenant_guard: true,
        tenant: rule.tenant.clone(),
        overwrite: rule.overwrite,
        references: None,
    };
    let sources = match rule.without_sources {
        true => vec![],
        false => key.paths.found.iter().map(|path| path.source.clone()).collect(),
    };
    let request = PrepareOptions {
        inferred: Some((sources, keys.reference(&key.key))),
        tenant_optional: rule.tenant_optional,
        mode: rule.mode,
        tenant_key: true,
        further: vec![],
    };
    prepare(session, &spec, request)
}

fn name_of(session: &Session, key: &KeyPaths) -> String {
    let table = session.catalog.table(key.table);
    let column = table.and_then(|table| table.column(key.key.column));
    column.map(|column| column.name.clone()).unwrap_or_default()
}

fn no_key(session: &Session, keys: &TenantKeys, table: &Table) -> Problem {
    let (shown, root) = (session.catalog.display(table), session.catalog.display(keys.root));
    if !table.is_table() {
        return Problem::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{shown} is no table, it cannot be filled"),
        )
        .hint("name the table below it");
    }
    if table.oid == keys.root.oid {
        return Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("{shown} holds the tenants themselves"),
        )
        .hint("leave table_name out to fill the tables that reference it");
    }
    let problem = Problem::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("{shown} has no tenant column"),
    );
    let paths = keys.paths(table, None);
    match paths.found.first() {
        Some(best) => problem
            .detail(format!(
                "no column of it references {root}; its rows get there by {}",
                best.source.to_path(&session.catalog, table)
            ))
            .hint(format!(
                "ALTER TABLE {shown} ADD COLUMN {}; then call this again",
                keys.new_column()
            )),
        None => problem
            .detail(format!("{} (root: {root})", keys.why_no_path(table, &paths)))
            .hint(format!(
                "see which tables have one: SELECT table_name, status, note FROM tenant_columns('{}')",
                root.replace('\'', "''")
            )),
    }
}
