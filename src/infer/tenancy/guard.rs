//! Which tenant a row belongs to: the tenant root, and the way from a table to it.
//!
//! A side has its tenant in a column that references the root, or reaches such a column through its parents
//! (AnimalOwner → Animal.tenantId). Where one table of the catalog stands out as the root (`root::known`), or the setting names one, it is
//! that one, as for all who ask, by the columns that `keys` tells. Else, of several common parents the root is told by points: the column has the same name on
//! both sides (4), it is named after the parent (5), it is NOT NULL on both (2), how many tables share it compared with
//! the other candidates (up to 6), the parent is not itself a child of another candidate (1). No signal decides alone: in
//! a half-done migration the tenant key may still be nullable where `createdBy` or `country_id` is not. Less than 2.5
//! points between the first and the second is a tie, and a tie is an error: a guard by the wrong parent would let other
//! tenants' values through. Without the setting, columns of different names that are not both named after the parent
//! are no evidence at all.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::keys::{self, TenantKeys};
use super::root::{self, CLEAR, Points, named_after};
use crate::catalog::{Catalog, Column, ForeignKey, Table};
use crate::infer::InferError;
use crate::infer::reference;
use crate::names;
use crate::rule::{Hop, Source};

/// Through so many parents every way to the tenant is looked at; further away, one way to each table.
const EVERY_WAY: usize = 3;

/// How a row of `table` leads to its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPath {
    /// Where it starts.
    pub table: u32,
    /// Parents on the way; none where the table has the column itself. The last hop's `columns` is the tenant column.
    pub hops: Vec<Hop>,
    /// Columns of the start: the key of the first hop, or the tenant column.
    pub columns: Vec<i16>,
    /// The table that has the tenant column.
    pub owner: u32,
    /// The tenant column there.
    pub column: i16,
    /// What counts where it gives nothing, in this order.
    pub otherwise: Vec<TenantPath>,
}

impl TenantPath {
    /// As a source of the rows of its table.
    pub fn as_source(&self) -> Source {
        Source::of_columns(&self.columns, self.hops.clone())
    }
}

/// The two sides of a guarded reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantGuard {
    /// The table whose key is the tenant.
    pub root: u32,
    /// The row that is written.
    pub row: TenantPath,
    /// The row that the value means.
    pub value: TenantPath,
}

/// What the guard can do for one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Switched off by the caller.
    Off,
    /// The value is the tenant itself: there is nothing to guard.
    TenantItself,
    /// Cannot guard; why, as a sentence for the note.
    Unguarded(String),
    /// Compares the two sides.
    By(TenantGuard),
}

/// Finds the guard for values of `column` in `table` that mean rows of `value_table`.
///
/// * `root`: the setting `pg_mend.tenant_root`, looked up.
/// * `target`: the column to fill; the way to the tenant must not start with it.
/// * `sources`: columns of `table` through whose parents it must not lead either: a row's contact proves nothing about
///   that contact.
///
/// Errors: 42P08 where two roots are equally likely.
pub fn guard(
    catalog: &Catalog,
    table: &Table,
    value_table: &Table,
    root: Option<&Table>,
    target: i16,
    sources: &[i16],
) -> Result<Guard, InferError> {
    let settled = root.or_else(|| root::known(catalog));
    if settled.is_some_and(|root| root.oid == value_table.oid) {
        return Ok(Guard::TenantItself);
    }
    let keys = settled.and_then(|root| TenantKeys::of_root(catalog, root));
    let mut values = ways(catalog, value_table, keys.as_ref(), None, &[]);
    let mut rows = ways(catalog, table, keys.as_ref(), Some(target), sources);
    if let Some(root) = settled {
        for (sides, of, target, sources) in [
            (&mut rows, table, Some(target), sources),
            (&mut values, value_table, None, &[][..]),
        ] {
            if let Some(path) = best_path(catalog, root, of, target, sources) {
                sides.insert(root.oid, vec![path]);
            }
        }
    }
    let found = values
        .iter()
        .filter(|(parent, _)| root.is_none_or(|root| root.oid == **parent))
        // The value's own table is not whose the value is: another way from the row to it proves nothing.
        .filter(|(parent, _)| **parent != value_table.oid)
        .filter_map(|(&parent, value)| best_pair(catalog, parent, rows.get(&parent)?, value, root.is_some()))
        .collect();
    let mut candidates = ranked_candidates(catalog, found);
    // The one that stands out in the whole catalog is it, as for everybody else who asks.
    if let Some(at) = settled.and_then(|root| candidates.iter().position(|c| c.root == root.oid)) {
        candidates = vec![candidates.swap_remove(at)];
    }
    match candidates.as_slice() {
        [] => Ok(Guard::Unguarded(match root {
            Some(root) => format!(
                "not guarded: no foreign keys lead from both {} and {} to {}",
                catalog.display(table),
                catalog.display(value_table),
                catalog.display(root)
            ),
            None => format!(
                "not guarded: {} and {} have no tenant in common",
                catalog.display(table),
                catalog.display(value_table)
            ),
        })),
        [first, second, ..] if first.points - second.points < CLEAR => Err(InferError::AmbiguousRoot {
            table: catalog.display(table),
            value_table: catalog.display(value_table),
            choices: candidates
                .iter()
                .filter(|c| first.points - c.points < CLEAR)
                .filter_map(|c| Some((catalog.display(catalog.table(c.root)?), describe(catalog, c.row))))
                .collect(),
        }),
        [best, ..] => Ok(Guard::By(TenantGuard {
            root: best.root,
            row: best.row.clone(),
            value: best.value.clone(),
        })),
    }
}

/// The tenant of a table's rows without a second side, for `tenant => ...`: the way to the root of the setting, else to
/// the table that stands out as the root of the whole catalog.
///
/// Errors: 42703 if there is no root or no way.
pub fn of_table(
    catalog: &Catalog,
    table: &Table,
    root: Option<&Table>,
    target: i16,
    sources: &[i16],
) -> Result<TenantPath, InferError> {
    let root = root.or_else(|| root::known(catalog));
    let best = root.and_then(|root| best_path(catalog, root, table, Some(target), sources));
    let found = best.or_else(|| {
        let root = root?;
        let ways = ways(
            catalog,
            table,
            TenantKeys::of_root(catalog, root).as_ref(),
            Some(target),
            sources,
        );
        let paths = ways.get(&root.oid)?;
        best_pair(catalog, root.oid, paths, paths, true).map(|best| best.row.clone())
    });
    found.ok_or_else(|| InferError::NoTenant {
        table: catalog.display(table),
        root: root.map(|root| catalog.display(root)),
    })
}

/// Of a table without a key of its own: the path by which all others go, too, who ask for the tenant of its rows. `None` where it has one, or
/// no path is followed.
///
/// * `target`, `sources`: as in [`guard`].
fn best_path(
    catalog: &Catalog,
    root: &Table,
    table: &Table,
    target: Option<i16>,
    sources: &[i16],
) -> Option<TenantPath> {
    let keys = TenantKeys::find(catalog, root).ok()?;
    let own = |key: &keys::TenantKey| key.comparable && Some(key.column) != target;
    if table.oid == root.oid || keys.of(table).iter().any(own) {
        return None;
    }
    let usable = |source: &Source| {
        let start = source.columns();
        start.iter().all(|c| Some(*c) != target && !sources.contains(c))
    };
    let ended = |source: Source| {
        let (owner, column) = source.value(table.oid)?;
        Some(TenantPath {
            table: table.oid,
            columns: source.columns(),
            hops: source.hops,
            owner,
            column,
            otherwise: vec![],
        })
    };
    let paths = keys.row_paths(table, true).into_iter().filter(usable).filter_map(ended);
    let base = |path: &TenantPath| {
        let column = catalog.table(path.owner).and_then(|owner| owner.column(path.column));
        column
            .and_then(|column| catalog.base_type(column.type_oid, -1))
            .map(|(base, _)| base.oid)
    };
    let mut paths: Vec<TenantPath> = paths.collect();
    let mut best = (!paths.is_empty()).then(|| paths.remove(0))?;
    // Values of one type, or which of them is meant cannot be said in one expression.
    best.otherwise = paths.into_iter().filter(|path| base(path) == base(&best)).collect();
    Some(best)
}

/// The way in words: `tenantId`, or `animalId -> Animal.tenantId`.
pub fn describe(catalog: &Catalog, path: &TenantPath) -> String {
    let Some(table) = catalog.table(path.table) else {
        return String::new();
    };
    let shown = |path: &TenantPath| path.as_source().to_path(catalog, table).to_string();
    let all = std::iter::once(path).chain(&path.otherwise).map(shown);
    all.collect::<Vec<_>>().join(", else ")
}

/// A table that both sides reach.
struct Candidate<'a> {
    root: u32,
    /// Without those that need the other candidates to compare with.
    points: Points,
    shared_by: usize,
    row: &'a TenantPath,
    value: &'a TenantPath,
}

/// Adds the points that compare candidates with each other, and puts the best first.
fn ranked_candidates<'a>(catalog: &Catalog, mut candidates: Vec<Candidate<'a>>) -> Vec<Candidate<'a>> {
    let most = candidates.iter().map(|c| c.shared_by).max().unwrap_or(1).max(1) as i64;
    let roots: Vec<u32> = candidates.iter().map(|c| c.root).collect();
    for candidate in &mut candidates {
        candidate.points += 6000 * candidate.shared_by as i64 / most;
        let below = catalog
            .foreign_keys_of(candidate.root)
            .any(|key| key.columns.len() == 1 && key.parent != candidate.root && roots.contains(&key.parent));
        if !below {
            candidate.points += 1000;
        }
    }
    candidates.sort_by_key(|c| (Reverse(c.points), c.root));
    candidates
}

/// The best way on each side to `parent`: the pair of columns with the most points, the first of equals. `settled`: the
/// setting says that it is the root, so the columns' names need not.
fn best_pair<'a>(
    catalog: &Catalog,
    parent: u32,
    rows: &'a [TenantPath],
    values: &'a [TenantPath],
    settled: bool,
) -> Option<Candidate<'a>> {
    let root = catalog.table(parent)?;
    let column = |path: &TenantPath| catalog.table(path.owner).and_then(|t| t.column(path.column));
    let named = |column: &Column| named_after(&column.name, &root.name);
    let mut best: Option<Candidate> = None;
    for value in values {
        for row in rows {
            let (Some(a), Some(b)) = (column(row), column(value)) else {
                continue;
            };
            // A row of the root is its own tenant, and its key has a name of its own.
            let itself = row.owner == parent && row.hops.is_empty();
            let mut points = 0;
            if a.name == b.name {
                points += 4000;
            } else if !(settled || named(b) && (itself || named(a))) {
                continue;
            }
            if named(a) || named(b) {
                points += 5000;
            }
            if a.never_null && b.never_null {
                points += 2000;
            }
            // `rows` and `values` are in order of preference, so only more points replace an earlier pair.
            if best.as_ref().is_none_or(|found| points > found.points) {
                let shared_by = sharing(catalog, parent, &a.name).max(sharing(catalog, parent, &b.name));
                best = Some(Candidate {
                    root: parent,
                    points,
                    shared_by,
                    row,
                    value,
                });
            }
        }
    }
    best
}

/// How many tables reference `parent` through a column of this name, declared or not.
fn sharing(catalog: &Catalog, parent: u32, name: &str) -> usize {
    let tables = catalog.tables.iter().filter(|t| t.is_table() && !t.is_partition);
    tables
        .filter_map(|table| table.column_named(name).map(|column| (table, column)))
        .filter(|(table, column)| reference::of(catalog, table, column).is_some_and(|r| r.parent == parent))
        .count()
}

/// Every table that can be reached as a tenant, with the ways that lead there, best first: direct columns, then through
/// parents. Only the shortest kind of way is kept per root.
///
/// * `keys`: those of the settled root.
fn ways(
    catalog: &Catalog,
    table: &Table,
    keys: Option<&TenantKeys>,
    target: Option<i16>,
    sources: &[i16],
) -> HashMap<u32, Vec<TenantPath>> {
    let mut found: HashMap<u32, Vec<TenantPath>> = HashMap::new();
    // A row of the root is its own tenant.
    if let Some(key) = table.primary_key().filter(|key| key.columns.len() == 1) {
        let own = TenantPath {
            table: table.oid,
            hops: vec![],
            columns: key.columns.clone(),
            owner: table.oid,
            column: key.columns[0],
            otherwise: vec![],
        };
        found.insert(table.oid, vec![own]);
    }
    // (columns of the start, hops so far, where we are)
    let mut level: Vec<(Vec<i16>, Vec<Hop>, u32)> = vec![(vec![], vec![], table.oid)];
    let mut seen: HashSet<u32> = HashSet::from([table.oid]);
    for depth in 0.. {
        let mut at_this_depth: HashMap<u32, Vec<TenantPath>> = HashMap::new();
        let mut next = Vec::new();
        for (start, hops, at) in &level {
            let Some(here) = catalog.table(*at) else { continue };
            for key in ranked(catalog, here) {
                if depth == 0 && key.columns.iter().any(|c| Some(*c) == target) {
                    continue;
                }
                let role = keys.is_some_and(|keys| keys.is_role(here, key.columns[0], key.parent));
                if key.columns.len() == 1 && key.parent != *at && !role {
                    at_this_depth.entry(key.parent).or_default().push(arrive(
                        table.oid,
                        start,
                        hops,
                        *at,
                        key.columns[0],
                    ));
                }
                // On through this parent: it must be one row, and not one that we came from.
                let Some(parent) = catalog.table(key.parent) else {
                    continue;
                };
                let again = key.parent == table.oid || hops.iter().any(|hop| hop.parent == key.parent);
                let through_source = depth == 0 && key.columns.iter().any(|c| sources.contains(c));
                let leads_on = !again && !through_source && parent.is_unique(&key.parent_columns);
                if leads_on && (seen.insert(key.parent) || depth < EVERY_WAY) {
                    next.push(onward(start, hops, key));
                }
            }
            // A tenant key that was never declared (`tenant_id uuid NOT NULL`, no foreign key) is one all the same.
            for column in here.columns.iter().filter(|c| depth > 0 || Some(c.number) != target) {
                let named = reference::of(catalog, here, column);
                let known = keys.filter(|keys| keys.is_key(here, column.number) && named.is_none());
                let to = match (named, known) {
                    (None, Some(keys)) => Some(keys.root.oid),
                    (named, _) => named.filter(|r| !r.declared).map(|r| r.parent),
                };
                let role = |parent: u32| keys.is_some_and(|keys| keys.is_role(here, column.number, parent));
                if let Some(parent) = to.filter(|parent| parent != at && !role(*parent)) {
                    let way = arrive(table.oid, start, hops, *at, column.number);
                    at_this_depth.entry(parent).or_default().push(way);
                }
            }
        }
        for (root, paths) in at_this_depth {
            found.entry(root).or_insert(paths);
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    found
}

fn arrive(table: u32, start: &[i16], hops: &[Hop], owner: u32, column: i16) -> TenantPath {
    let mut hops = hops.to_vec();
    let columns = match hops.last_mut() {
        Some(last) => {
            last.columns = vec![column];
            start.to_vec()
        }
        None => vec![column],
    };
    TenantPath {
        table,
        hops,
        columns,
        owner,
        column,
        otherwise: vec![],
    }
}

fn onward(start: &[i16], hops: &[Hop], key: &ForeignKey) -> (Vec<i16>, Vec<Hop>, u32) {
    let mut hops = hops.to_vec();
    let start = match hops.last_mut() {
        Some(last) => {
            last.columns = key.columns.clone();
            start.to_vec()
        }
        None => key.columns.clone(),
    };
    hops.push(Hop {
        parent: key.parent,
        key: key.parent_columns.clone(),
        columns: vec![],
    });
    (start, hops, key.parent)
}

/// Foreign keys of a table, the most telling way to an owner first: NOT NULL, ON DELETE CASCADE, the parent's name in
/// front of the child's (Animal, AnimalOwner), earlier column.
fn ranked<'a>(catalog: &'a Catalog, table: &'a Table) -> Vec<&'a ForeignKey> {
    let mut keys: Vec<&ForeignKey> = catalog.foreign_keys_of(table.oid).filter(|key| key.enforced).collect();
    keys.sort_by_key(|key| {
        let not_null = key
            .columns
            .iter()
            .all(|c| table.column(*c).is_some_and(|c| c.never_null));
        let in_front = catalog
            .table(key.parent)
            .is_some_and(|parent| names::words(&table.name).starts_with(&names::stem(&parent.name)));
        (
            Reverse(not_null),
            Reverse(key.on_delete == 'c'),
            Reverse(in_front),
            key.columns.clone(),
        )
    });
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::Builder;

    fn by(guard: Guard) -> TenantGuard {
        match guard {
            Guard::By(guard) => guard,
            other => panic!("no guard: {other:?}"),
        }
    }

    fn guarded(catalog: &Catalog, table: &str, root: Option<&str>, avoid: &[&str]) -> Result<Guard, InferError> {
        let table = catalog.resolve_table(table).unwrap();
        let avoid: Vec<i16> = avoid
            .iter()
            .map(|name| table.column_named(name).unwrap().number)
            .collect();
        let root = root.map(|name| catalog.resolve_table(name).unwrap());
        guard(catalog, table, catalog.resolve_table("Party").unwrap(), root, 0, &avoid)
    }

    fn base() -> Builder {
        Builder::new()
            .table("Tenant", &["id"])
            .table("users", &["id"])
            .table("Party", &["id", "tenantId", "createdBy"])
            .references("Party", "tenantId", "Tenant")
            .references("Party", "createdBy", "users")
    }

    #[test]
    fn the_tenant_is_told_apart_from_another_common_parent() {
        let catalog = base()
            .table("Entry", &["id", "createdBy", "tenantId", "partyId?"])
            .references("Entry", "createdBy", "users")
            .references("Entry", "tenantId", "Tenant")
            .build();
        let guard = by(guarded(&catalog, "Entry", None, &[]).unwrap());
        assert_eq!(catalog.table(guard.root).unwrap().name, "Tenant");
        assert_eq!(describe(&catalog, &guard.row), "tenantId");
    }

    #[test]
    fn a_table_without_the_column_finds_it_through_its_parent_but_not_through_its_source() {
        let catalog = base()
            .table("Animal", &["id", "tenantId"])
            .references("Animal", "tenantId", "Tenant")
            .table("Contact", &["id", "tenantId", "partyId?"])
            .references("Contact", "tenantId", "Tenant")
            .table("AnimalOwner", &["id", "contactId?", "animalId", "partyId?"])
            .references("AnimalOwner", "contactId", "Contact")
            .references("AnimalOwner", "animalId", "Animal")
            .build();
        let guard = by(guarded(&catalog, "AnimalOwner", None, &["contactId"]).unwrap());
        assert_eq!(describe(&catalog, &guard.row), "animalId -> Animal.tenantId");
    }

    #[test]
    fn a_tie_is_an_error_that_the_setting_settles() {
        let catalog = Builder::new()
            .table("alpha", &["id"])
            .table("beta", &["id"])
            .table("Party", &["id", "x", "y"])
            .references("Party", "x", "alpha")
            .references("Party", "y", "beta")
            .table("Entry", &["id", "x", "y", "partyId?"])
            .references("Entry", "x", "alpha")
            .references("Entry", "y", "beta")
            .build();
        let error = guarded(&catalog, "Entry", None, &[]).unwrap_err();
        assert!(matches!(error, InferError::AmbiguousRoot { .. }));
        let guard = by(guarded(&catalog, "Entry", Some("beta"), &[]).unwrap());
        assert_eq!(catalog.table(guard.root).unwrap().name, "beta");
    }

    #[test]
    fn nothing_in_common_is_said() {
        let catalog = base().table("Entry", &["id", "partyId?"]).build();
        assert!(matches!(
            guarded(&catalog, "Entry", None, &["partyId"]).unwrap(),
            Guard::Unguarded(_)
        ));
    }
}
