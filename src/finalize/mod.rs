//! From filled to locked in: the gate, then NOT NULL, foreign keys and what goes with them, with short locks.
//!
//! ```text
//! gate      no NULL is left, every reference has its parent: or an error with counts and the next call
//! steps     what is there → what is left to do; pure
//! execute   one step in one transaction, under a lock_timeout; who was in the way
//! ```
//!
//! Nothing is remembered between calls: how far an earlier try came is read from the catalog each time.

mod execute;
mod gate;
mod steps;

use pgrx::prelude::PgSqlErrorCode;

use crate::catalog::{Catalog, Column, ForeignKey, Key, State as KeyState, Table};
use crate::identifier::Literal;
use crate::problem::Problem;
use crate::rule::typed;
use crate::run::Session;
use crate::validate::reference::{Found, KeyReference, collect};
use crate::validate::sides::Sides;
use crate::validate::{declared, tenants};

pub use execute::{Stepped, step};
pub use gate::{assert_backfilled, assertion};
use steps::{Doer, Facts, Step, Wanted};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
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
pub fn plan(session: &Session, request: &Request) -> Result<Vec<Shown>, Problem> {
    let (table, column) = target(session, request)?;
    let sides = Sides::new(tenants(session, request.root.as_deref())?, true);
    let facts = facts(session, request, table, column, &sides)?;
    let mut steps = steps::all(&facts);
    let mut blocked = Vec::new();
    for at in 0..steps.len() {
        if let Doer::Gate(gate) = steps[at].doer
            && steps[at].state == steps::State::Pending
        {
            let step = &mut steps[at];
            match gate::look(session, &sides, &facts, gate)? {
                Ok(found) => {
                    step.state = steps::State::Done;
                    step.detail = found;
                }
                Err(problem) => {
                    step.state = steps::State::Blocked;
                    step.detail = [Some(problem.message), problem.hint.map(|h| format!("next: {h}"))]
                        .into_iter()
                        .flatten()
                        .collect::<Vec<_>>()
                        .join("; ");
                    blocked.push(gate);
                }
            }
        }
    }
    if let Some(next) = next(&steps)
        && steps[next].after.is_none_or(|gate| !blocked.contains(&gate))
    {
        steps[next].state = steps::State::Next;
    }
    Ok(steps
        .iter()
        .enumerate()
        .map(|(at, step)| shown(session, &facts, at, step))
        .collect())
}

/// The first step that is ours to do and not done.
fn next(steps: &[Step]) -> Option<usize> {
    steps
        .iter()
        .position(|s| s.doer == Doer::Mend && s.state == steps::State::Pending && !s.waits_for_hand)
}

fn shown(session: &Session, facts: &Facts, at: usize, step: &Step) -> Shown {
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
    if step.waits_for_hand && step.state == steps::State::Pending {
        detail = format!("after what is left by hand above; {detail}");
    }
    if step.doer == Doer::Mend && step.state != steps::State::Done && !facts.guarantees.may_alter {
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

fn target<'a>(session: &'a Session, request: &Request) -> Result<(&'a Table, &'a Column), Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(&request.table)?;
    let shown = catalog.display(table);
    if !table.is_table() || table.of_extension {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{shown} is no table that can be locked in"),
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
    request: &Request,
    table: &'a Table,
    column: &'a Column,
    sides: &Sides<'a>,
) -> Result<Facts<'a>, Problem> {
    let catalog = &session.catalog;
    let own_key = |of: &Table| -> Option<i16> {
        let key = sides.keys()?.of(of).first()?;
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
                    "SELECT * FROM finalize_plan({}, {}, policy => true)",
                    Literal::new(&catalog.display(table)),
                    Literal::new(&typed(&key.name))
                ),
                None => "SELECT * FROM tenant_columns() shows the tenant key of every table; root => '...' names the table that holds the tenants".into(),
            }));
        }
        policy = Some(column);
    }
    let mut wanted = references(session, request, table, column)?;
    if request.composite != Some(false) {
        let composites: Vec<Wanted> = wanted
            .iter()
            .filter_map(|single| {
                composite(
                    catalog,
                    request,
                    column,
                    single,
                    own_key(table),
                    own_key(single.reference.parent),
                )
            })
            // There already.
            .filter(|new| {
                !wanted.iter().any(|known| {
                    let pairs = |w: &Wanted| {
                        let mut pairs: Vec<(i16, i16)> = w
                            .reference
                            .columns
                            .iter()
                            .copied()
                            .zip(w.reference.key.iter().copied())
                            .collect();
                        pairs.sort_unstable();
                        pairs
                    };
                    known.reference.parent.oid == new.reference.parent.oid && pairs(known) == pairs(new)
                })
            })
            .collect();
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
            .detail("it needs a reference of this column alone, and a tenant key in the table and in its parent")
            .hint("SELECT * FROM tenant_columns() shows the tenant keys; parent => 'table(key)' names what the column references"));
        }
        wanted.extend(composites);
    }
    Ok(Facts {
        catalog,
        table,
        column,
        guarantees: catalog.guarantees(table, column)?,
        wanted,
        not_null: request.not_null,
        policy,
    })
}

/// The foreign keys that the column is part of, and the one that it should have.
fn references<'a>(
    session: &'a Session,
    request: &Request,
    table: &'a Table,
    column: &'a Column,
) -> Result<Vec<Wanted<'a>>, Problem> {
    let catalog = &session.catalog;
    let named = request.parent.as_deref().map(str::trim);
    if named == Some("") {
        return Ok(vec![]);
    }
    let declared = declared::load(session)?;
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
        let (parent, key) = declared::parent_typed(catalog, table, column, parent)?;
        if !parent.is_table() {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{} is no table, no foreign key can lead to it", catalog.display(parent)),
            )
            .hint("name a table, or parent => '' for no foreign key"));
        }
        let key: Vec<i16> = key.iter().map(|c| c.number).collect();
        found.retain(|r| r.constraint.is_some());
        if !found
            .iter()
            .any(|r| r.columns == [column.number] && r.parent.oid == parent.oid && r.key == key)
        {
            found.push(KeyReference {
                table,
                columns: vec![column.number],
                parent,
                unique: exactly_unique(parent, &key),
                key,
                constraint: None,
                state: KeyState::Missing,
                match_full: false,
                discriminator: None,
                may_cross_tenants: false,
            });
        }
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
            reference.unique |= declared.is_some();
            let new = ForeignKey {
                on_delete: request.on_delete.0,
                on_update: 'a',
                ..ForeignKey::default()
            };
            Wanted {
                actions: steps::actions(declared.unwrap_or(&new), None).unwrap_or_default(),
                // A foreign key over several columns with the tenant among them; told in words only.
                keeps_tenants_apart: reference.columns.len() > 1,
                declared,
                reference,
                optional: false,
            }
        })
        .collect())
}

/// Is there an index with exactly these keys, as a foreign key needs it?
fn exactly_unique(table: &Table, columns: &[i16]) -> bool {
    let same = |key: &Key| key.columns.len() == columns.len() && columns.iter().all(|c| key.columns.contains(c));
    table.keys.iter().any(same)
}

/// The foreign key over (tenant, column) that makes references to other tenants impossible.
fn composite<'a>(
    catalog: &Catalog,
    request: &Request,
    column: &Column,
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
    let new = ForeignKey {
        on_delete: request.on_delete.0,
        on_update: 'a',
        ..ForeignKey::default()
    };
    let key = vec![parents, reference.key[0]];
    let unique = exactly_unique(reference.parent, &key);
    Some(Wanted {
        actions: steps::actions(single.declared.unwrap_or(&new), Some(&column.name))?,
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

/// The call that looks at the references of a table.
fn validation(catalog: &Catalog, table: &Table) -> String {
    format!(
        "SELECT * FROM validate_tenant_fks(table_name => {})",
        Literal::new(&catalog.display(table))
    )
}
