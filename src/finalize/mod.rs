//! From filled to locked in: the gate, then NOT NULL, foreign keys and what goes with them, with short locks.
//!
//! ```text
//! gate      no NULL is left, every reference has its parent: or an error with counts and the next call
//! steps     what is there → what is left to do; pure. foreign_keys: those of them
//! execute   one step in one transaction, under a lock_timeout; who was in the way
//! ```
//!
//! Nothing is remembered between calls: how far an earlier try came is read from the catalog each time.

mod calls;
mod execute;
mod foreign_keys;
mod gate;
mod step;
mod steps;

use pgrx::prelude::PgSqlErrorCode;

use crate::catalog::{Catalog, Column, ForeignKey, Key, State as KeyState, Table, Type};
use crate::identifier::Literal;
use crate::infer::tenancy::resolver::TenantResolver;
use crate::problem::Problem;
use crate::rule::typed;
use crate::run::Session;
use crate::validate::reference::{Found, KeyReference, collect};
use crate::validate::{declared, tenants};

pub use calls::assertion;
use calls::named_root;
pub use execute::{Stepped, step};
pub use gate::assert_backfilled;
use step::{Executor, Facts, FinalizeStep, State, Wanted};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct FinalizeRequest {
    /// As typed.
    pub table: String,
    /// As typed.
    pub column: String,
    /// NOT NULL is wanted.
    pub not_null: bool,
    /// `customers(id)`; empty: no foreign key; `None`: what is declared or inferred.
    pub parent: Option<String>,
    /// What a delete of the parent does, where the foreign key is new.
    pub on_delete: OnDelete,
    /// A foreign key over (tenant, column): `None`: where the parent has such a key.
    pub composite: Option<bool>,
    /// The text of a policy is wanted.
    pub policy: bool,
    /// See `validate_tenant_fks`.
    pub root: Option<String>,
}

/// ON DELETE, as pg_constraint.confdeltype has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDelete(pub char);

impl std::str::FromStr for OnDelete {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text.trim().to_ascii_lowercase().as_str() {
            "no action" => Ok(OnDelete('a')),
            "restrict" => Ok(OnDelete('r')),
            "cascade" => Ok(OnDelete('c')),
            "set null" => Ok(OnDelete('n')),
            "set default" => Ok(OnDelete('d')),
            _ => Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("there is no ON DELETE \"{text}\""),
            )
            .hint("on_delete is 'no action' (default), 'restrict', 'cascade', 'set null' or 'set default'")),
        }
    }
}

/// One step as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// From 1.
    pub step: i32,
    /// Semicolons between several, which are run in one transaction.
    pub statement: String,
    /// Mode and tables.
    pub lock: String,
    /// `done`, `next`, `pending`, `blocked`, `by hand`, `optional`.
    pub state: &'static str,
    /// In words.
    pub detail: String,
}

/// Every step, those that are done included. Counts the rows that stand in the way; changes nothing.
///
/// Errors: 42P01, 42703 (names), 42809 (no table, a partition), 42601, 42804, 42830 (`parent`), 22023 (`policy` where the
/// column is no tenant key, `composite` where nothing has tenants), 42P08 (ambiguous root), 42501 (reading).
pub fn plan(session: &Session, request: &FinalizeRequest) -> Result<Vec<Shown>, Problem> {
    let (table, column) = target(session, request)?;
    let resolver = TenantResolver::new(tenants(session, request.root.as_deref())?, true);
    let facts = facts(session, request, table, column, &resolver)?;
    let mut steps = steps::all(&facts);
    let mut blocked = Vec::new();
    for step in &mut steps {
        if let Executor::Check(gate) = step.executor
            && step.state == State::Pending
        {
            match gate::look(session, &resolver, &facts, gate)? {
                Ok(found) => {
                    step.state = State::Done;
                    step.detail = found;
                }
                Err(problem) => {
                    step.state = State::Blocked;
                    let next = problem.hint.map(|hint| format!("next: {hint}"));
                    step.detail = [Some(problem.message), next]
                        .into_iter()
                        .flatten()
                        .collect::<Vec<_>>()
                        .join("; ");
                    blocked.push(gate);
                }
            }
        }
    }
    // Nothing is begun before all rows are ready; what goes on with what was begun needs its own rows only.
    if let Some(next) = next(&steps)
        && (!steps[next].begins() || blocked.is_empty())
        && steps[next].after.is_none_or(|gate| !blocked.contains(&gate))
    {
        steps[next].state = State::Next;
    }
    Ok(steps
        .iter()
        .enumerate()
        .map(|(at, step)| shown(session, &facts, at, step))
        .collect())
}

/// The first step that is ours to do and not done.
fn next(steps: &[FinalizeStep]) -> Option<usize> {
    steps
        .iter()
        .position(|s| s.executor == Executor::Extension && s.state == State::Pending && !s.waits_for_manual_step)
}

fn shown(session: &Session, facts: &Facts, at: usize, step: &FinalizeStep) -> Shown {
    let mut names: Vec<String> = Vec::new();
    for table in step.locked.iter().filter_map(|oid| session.catalog.table(*oid)) {
        let name = session.catalog.display(table);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // A thousand partitions are not worth a thousand names.
    let rest = names.len().saturating_sub(4);
    if rest > 1 {
        names.truncate(4);
        names.push(format!("{rest} more"));
    }
    let mut detail = step.detail.clone();
    if step.waits_for_manual_step && step.state == State::Pending {
        detail = format!("waits for the manual steps above; {detail}");
    }
    if step.executor == Executor::Extension && step.state != State::Done && !facts.guarantees.may_alter {
        detail = format!("only {} may; {detail}", facts.guarantees.owner);
    }
    Shown {
        step: at as i32 + 1,
        statement: step.statements.join(";\n"),
        lock: format!("{} on {}", step.lock.as_str(), names.join(", ")),
        state: step.state.as_str(),
        detail,
    }
}

fn target<'a>(session: &'a Session, request: &FinalizeRequest) -> Result<(&'a Table, &'a Column), Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(&request.table)?;
    let shown = catalog.display(table);
    if !table.is_table() || table.of_extension {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{shown} is not a table that can be finalized"),
        )
        .detail("constraints are of tables and partitioned tables, not of views, foreign tables or an extension's own tables")
        .hint("name the table below it"));
    }
    if table.is_partition {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{shown} is a partition"),
        )
        .detail("what is locked in holds for all partitions together")
        .hint("name the partitioned table"));
    }
    Ok((table, catalog.resolve_column(table, &request.column)?))
}

fn facts<'a>(
    session: &'a Session,
    request: &'a FinalizeRequest,
    table: &'a Table,
    column: &'a Column,
    resolver: &TenantResolver<'a>,
) -> Result<Facts<'a>, Problem> {
    let catalog = &session.catalog;
    preflight(session, request, table, column)?;
    let own_key = |of: &Table| -> Option<i16> {
        let key = resolver.keys()?.of(of).first()?;
        (key.comparable && !key.one_of_several).then_some(key.column)
    };
    let mut policy = None;
    if request.policy {
        if own_key(table) != Some(column.number) {
            let key = own_key(table).and_then(|key| table.column(key));
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{} of {} is no tenant key, a policy on it would not keep tenants apart", column.quoted, catalog.display(table)),
            )
            .hint(match key {
                Some(key) => format!(
                    "SELECT * FROM finalize_plan({}, {}, policy => true{})",
                    Literal::new(&catalog.display(table)),
                    Literal::new(&typed(&key.name)),
                    named_root(request.root.as_deref(), true)
                ),
                None => "SELECT * FROM tenant_columns() shows the tenant key of every table; root => '...' names the table that holds the tenants".into(),
            }));
        }
        policy = Some(column);
    }
    let mut wanted = references(session, request, table, column)?;
    if request.composite != Some(false) {
        let pairs = |reference: &KeyReference| {
            let (columns, key) = (reference.columns.iter().copied(), reference.key.iter().copied());
            let mut pairs: Vec<(i16, i16)> = columns.zip(key).collect();
            pairs.sort_unstable();
            (reference.parent.oid, pairs)
        };
        let mut composites: Vec<Wanted> = Vec::new();
        for single in &wanted {
            let (own, theirs) = (own_key(table), own_key(single.reference.parent));
            let Some(new) = composite(catalog, request, column, single, own, theirs) else {
                continue;
            };
            // There already, or meant by another foreign key of the column.
            let known = |known: &Wanted| pairs(&known.reference) == pairs(&new.reference);
            if !wanted.iter().any(known) && !composites.iter().any(known) {
                composites.push(new);
            }
        }
        let none = composites.is_empty() && !wanted.iter().any(|w| w.reference.columns.len() > 1);
        if none && request.composite == Some(true) {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!(
                    "no foreign key over the tenant and {} of {} is possible",
                    column.quoted,
                    catalog.display(table)
                ),
            )
            .detail("it needs a reference of this column alone that is no tenant key itself, a tenant key in the table and in its parent, and a foreign key that sets nothing to NULL ON UPDATE")
            .hint("SELECT * FROM tenant_columns() shows the tenant keys; parent => 'table(key)' names what the column references"));
        }
        wanted.extend(composites);
    }
    let guarantees = catalog.guarantees(table, column)?;
    if let (Some(foreign), true) = (
        guarantees.foreign_leaves.first(),
        wanted.iter().any(|w| w.declared.is_none() && !w.optional),
    ) {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("{} can have no foreign key", catalog.display(table)),
        )
        .detail(format!("its partition {foreign} is a foreign table"))
        .hint("parent => '' leaves foreign keys out"));
    }
    let nullable_tenant = own_key(table)
        .and_then(|key| table.column(key))
        .filter(|key| !key.never_null);
    Ok(Facts {
        catalog,
        table,
        column,
        guarantees,
        wanted,
        not_null: request.not_null,
        policy,
        nullable_tenant,
        root: request.root.as_deref(),
        named: Default::default(),
    })
}

/// What can never work.
fn preflight(session: &Session, request: &FinalizeRequest, table: &Table, column: &Column) -> Result<(), Problem> {
    let catalog = &session.catalog;
    let shown = format!("{} of {}", column.quoted, catalog.display(table));
    let is_row = catalog
        .base_type(column.type_oid, -1)
        .is_some_and(|(base, _)| base.kind == 'c');
    if is_row && request.not_null && !column.not_null {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("{shown} is of a row type, and cannot become NOT NULL with short locks"),
        )
        .detail("of a row type IS NOT NULL means that every field has a value, so that no CHECK can be the proof")
        .hint(format!(
            "ALTER TABLE {} ALTER COLUMN {} SET NOT NULL reads every row while all others wait; not_null => false leaves it out",
            table.sql(),
            column.sql()
        )));
    }
    if request.on_delete.0 == 'n' && (request.not_null || column.never_null) {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("ON DELETE SET NULL could never work: {shown} is NOT NULL, or is to be"),
        )
        .hint("on_delete => 'cascade' or 'restrict', or not_null => false where the column may be NULL"));
    }
    Ok(())
}

/// The foreign keys that the column is part of, and the one that it should have.
fn references<'a>(
    session: &'a Session,
    request: &FinalizeRequest,
    table: &'a Table,
    column: &'a Column,
) -> Result<Vec<Wanted<'a>>, Problem> {
    let catalog = &session.catalog;
    let named = request.parent.as_deref().map(str::trim);
    if named == Some("") {
        return Ok(vec![]);
    }
    let declared = declared::load(session)?;
    let mut unknown = false;
    let mut found: Vec<KeyReference> = collect(catalog, Some(table), true, &declared)
        .into_iter()
        .filter_map(|found| match found {
            // A foreign key cannot be for some rows only, nor lead to a view.
            Found::Reference(r) if r.discriminator.is_none() && r.parent.is_table() => Some(r),
            _ => None,
        })
        .filter(|r| r.columns.contains(&column.number))
        .filter(|r| r.constraint.is_some() || r.columns.len() == 1)
        .collect();
    if let Some(parent) = named {
        let (parent, key) = declared::parent_typed(catalog, table, column, parent).map_err(|problem| {
            let hint = match problem.code {
                PgSqlErrorCode::ERRCODE_SYNTAX_ERROR => {
                    Some("for example parent => 'customers' or parent => 'customers(external_id)'".into())
                }
                _ => problem.hint.clone(),
            };
            Problem { hint, ..problem }
        })?;
        if !parent.is_table() {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{} is no table, no foreign key can lead to it", catalog.display(parent)),
            )
            .hint("name a table, or parent => '' for no foreign key"));
        }
        let key: Vec<i16> = key.iter().map(|c| c.number).collect();
        let the_same = |r: &KeyReference| r.columns == [column.number] && r.parent.oid == parent.oid && r.key == key;
        found.retain(|r| r.constraint.is_some() || the_same(r));
        if !found.iter().any(the_same) {
            unknown = true;
            found.push(KeyReference {
                table,
                columns: vec![column.number],
                parent,
                unique: exactly_unique(parent, &key),
                within_tenant: false,
                key,
                constraint: None,
                state: KeyState::Missing,
                match_full: false,
                discriminator: None,
                may_cross_tenants: false,
                declaration: None,
            });
        }
    }
    for reference in found.iter().filter(|r| r.constraint.is_none()) {
        types_can_be_keyed(catalog, reference)?;
    }
    // In the same order before and after one over several columns is there.
    found.sort_by_key(|r| r.columns.len());
    let foreign_key = |reference: &KeyReference| {
        let mut own = catalog.foreign_keys_of(table.oid);
        own.find(|key| Some(key.name.as_str()) == reference.constraint)
    };
    Ok(found
        .into_iter()
        .map(|mut reference| {
            let declared = foreign_key(&reference);
            reference.unique = declared.is_some() || exactly_unique(reference.parent, &reference.key);
            Wanted {
                like: declared.cloned().unwrap_or_else(|| request.new_key()),
                only: None,
                known: declared.is_some() || !unknown,
                keeps_tenants_apart: reference.columns.len() > 1,
                declared,
                reference,
                optional: false,
            }
        })
        .collect())
}

impl FinalizeRequest {
    /// What a foreign key that is not there yet is to be like.
    fn new_key(&self) -> ForeignKey {
        ForeignKey {
            on_delete: self.on_delete.0,
            on_update: 'a',
            ..ForeignKey::default()
        }
    }
}

/// Postgres compares them by an operator of the parent's key: of two integers, of two texts, of one type; an integer becomes
/// numeric, and not the other way round.
///
/// Errors: 42804.
fn types_can_be_keyed(catalog: &Catalog, reference: &KeyReference) -> Result<(), Problem> {
    fn base<'c>(catalog: &'c Catalog, table: &'c Table, column: i16) -> Option<(&'c Type, &'c Column)> {
        let column = table.column(column)?;
        Some((catalog.base_type(column.type_oid, -1)?.0, column))
    }
    for (column, key) in reference.columns.iter().zip(&reference.key) {
        let (Some((a, column)), Some((b, key))) = (
            base(catalog, reference.table, *column),
            base(catalog, reference.parent, *key),
        ) else {
            continue;
        };
        if b.integer_range().is_some() && a.integer_range().is_none() && a.oid != b.oid {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "a foreign key from {} ({}) to {}.{} ({}) is impossible",
                    column.quoted,
                    a.display,
                    catalog.display(reference.parent),
                    key.quoted,
                    b.display
                ),
            )
            .hint(format!(
                "ALTER TABLE {} ALTER COLUMN {} TYPE {} first; or parent => '' for no foreign key",
                reference.table.sql(),
                column.sql(),
                b.display
            )));
        }
    }
    Ok(())
}

/// Is there an index with exactly these keys, as a foreign key needs it?
fn exactly_unique(table: &Table, columns: &[i16]) -> bool {
    let same = |key: &Key| {
        key.immediate && key.columns.len() == columns.len() && columns.iter().all(|c| key.columns.contains(c))
    };
    table.keys.iter().any(same)
}

/// The foreign key over (tenant, column) that makes references to other tenants impossible.
fn composite<'a>(
    catalog: &Catalog,
    request: &FinalizeRequest,
    column: &'a Column,
    single: &Wanted<'a>,
    own: Option<i16>,
    parents: Option<i16>,
) -> Option<Wanted<'a>> {
    let reference = &single.reference;
    let (own, parents) = (own?, parents?);
    let is_single = reference.columns == [column.number] && reference.key.len() == 1;
    if !is_single || own == column.number || reference.key[0] == parents || reference.may_cross_tenants {
        return None;
    }
    let types = |table: &Table, column: i16| table.column(column).map(|c| c.type_oid);
    if !catalog.comparable(types(reference.table, own)?, types(reference.parent, parents)?) {
        return None;
    }
    let key = vec![parents, reference.key[0]];
    let unique = exactly_unique(reference.parent, &key);
    foreign_keys::actions(&single.like, Some(&column.name))?;
    Some(Wanted {
        like: ForeignKey {
            match_full: false,
            ..single.like.clone()
        },
        only: Some(&column.name),
        known: single.known,
        keeps_tenants_apart: true,
        declared: None,
        optional: !unique && request.composite.is_none(),
        reference: KeyReference {
            columns: vec![own, column.number],
            unique,
            key,
            constraint: None,
            state: KeyState::Missing,
            ..reference.clone()
        },
    })
}
