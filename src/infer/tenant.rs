//! Whose row is it: the tenant root, and the way from a table to it.
//!
//! A side has its tenant in a column that references the root, or reaches such a column through its parents
//! (AnimalOwner → Animal.tenantId). Of several common parents the root is told by, in this order: the column has the
//! same name on both sides; it is NOT NULL on both; the parent is not itself a child of another candidate; the column
//! is named after the parent; more tables share that column.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::InferError;
use crate::catalog::{Catalog, ForeignKey, Table};
use crate::names::prefix_before;
use crate::rule::Hop;

/// How many parents the way to the tenant may pass through.
const LONGEST_WAY: usize = 3;

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
    if root.is_some_and(|root| root.oid == value_table.oid) {
        return Ok(Guard::Unguarded(format!(
            "not guarded: {} is the tenant itself",
            catalog.display(value_table)
        )));
    }
    let values = ways(catalog, value_table, None, &[]);
    let rows = ways(catalog, table, Some(target), sources);
    let mut candidates: Vec<(Score, u32, &TenantPath, &TenantPath)> = Vec::new();
    for (&parent, value) in &values {
        if root.is_some_and(|root| root.oid != parent) {
            continue;
        }
        let Some(row) = rows.get(&parent) else { continue };
        // The value's own table must keep its tenant close: a Party that reaches the root only through someone else's
        // row is judged by that row, but a direct column wins whenever there is one.
        let pair = best_pair(catalog, parent, row, value);
        if let Some((score, row, value)) = pair {
            candidates.push((score, parent, row, value));
        }
    }
    // A candidate that is itself a child of another candidate is no root.
    let parents: Vec<u32> = candidates.iter().map(|c| c.1).collect();
    for candidate in &mut candidates {
        let above = catalog
            .foreign_keys_of(candidate.1)
            .filter(|key| key.columns.len() == 1 && parents.contains(&key.parent) && key.parent != candidate.1)
            .count();
        candidate.0.top = above == 0;
    }
    candidates.sort_by_key(|(score, parent, _, _)| (Reverse(score.clone()), *parent));
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
        [first, second, ..] if first.0 == second.0 => {
            let choices = candidates
                .iter()
                .filter(|c| c.0 == first.0)
                .filter_map(|c| Some((catalog.display(catalog.table(c.1)?), describe(catalog, c.2))))
                .collect();
            Err(InferError::AmbiguousRoot {
                table: catalog.display(table),
                value_table: catalog.display(value_table),
                choices,
            })
        }
        [(_, parent, row, value), ..] => Ok(Guard::By(TenantGuard {
            root: *parent,
            row: (*row).clone(),
            value: (*value).clone(),
        })),
    }
}

/// The tenant of a table's rows without a second side, for `tenant => ...`: the root of the setting, else the best
/// direct parent by the same signals.
///
/// Errors: 42703 if there is no way, 42P08 if two are equally likely.
pub fn of_table(
    catalog: &Catalog,
    table: &Table,
    root: Option<&Table>,
    target: i16,
    sources: &[i16],
) -> Result<(u32, TenantPath), InferError> {
    let nothing = || InferError::NoTenant {
        table: catalog.display(table),
        root: root.map(|root| catalog.display(root)),
    };
    let ways = ways(catalog, table, Some(target), sources);
    let mut candidates: Vec<(Score, u32, &TenantPath)> = Vec::new();
    for (&parent, paths) in &ways {
        if root.is_some_and(|root| root.oid != parent) {
            continue;
        }
        if let Some((mut score, path, _)) = best_pair(catalog, parent, paths, paths) {
            score.top = !catalog
                .foreign_keys_of(parent)
                .any(|key| key.parent != parent && ways.contains_key(&key.parent));
            candidates.push((score, parent, path));
        }
    }
    candidates.sort_by_key(|(score, parent, _)| (Reverse(score.clone()), *parent));
    match candidates.as_slice() {
        [] => Err(nothing()),
        [first, second, ..] if first.0 == second.0 => Err(InferError::AmbiguousRoot {
            table: catalog.display(table),
            value_table: catalog.display(table),
            choices: candidates
                .iter()
                .filter_map(|c| Some((catalog.display(catalog.table(c.1)?), describe(catalog, c.2))))
                .collect(),
        }),
        [(_, parent, path), ..] => Ok((*parent, (*path).clone())),
    }
}

/// The way in words: `tenantId`, or `animalId -> Animal.tenantId`.
pub fn describe(catalog: &Catalog, path: &TenantPath) -> String {
    let Some(table) = catalog.table(path.table) else {
        return String::new();
    };
    let source = crate::rule::Source {
        columns: path.columns.clone(),
        hops: path.hops.clone(),
    };
    source.to_path(catalog, table).to_string()
}

/// Signals in the order of their weight; the derived order compares them one after the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    same_name: bool,
    not_null: bool,
    top: bool,
    named_after: bool,
    shared_by: usize,
}

/// The best way on each side to `parent`: the pair of columns with the same name if there is one.
fn best_pair<'a>(
    catalog: &Catalog,
    parent: u32,
    rows: &'a [TenantPath],
    values: &'a [TenantPath],
) -> Option<(Score, &'a TenantPath, &'a TenantPath)> {
    let root = catalog.table(parent)?;
    let column = |path: &TenantPath| catalog.table(path.owner).and_then(|t| t.column(path.column));
    let mut best: Option<(Score, &TenantPath, &TenantPath)> = None;
    for value in values {
        for row in rows {
            let (Some(a), Some(b)) = (column(row), column(value)) else {
                continue;
            };
            let itself = row.owner == parent || value.owner == parent;
            let score = Score {
                same_name: a.name == b.name || itself,
                not_null: a.not_null && b.not_null,
                top: true,
                named_after: [a, b]
                    .iter()
                    .any(|c| prefix_before(&c.name, &root.name).is_some_and(|role| role.is_empty())),
                shared_by: sharing(catalog, parent, &a.name),
            };
            // `rows` and `values` are in order of preference, so only a better score replaces an earlier pair.
            if best.as_ref().is_none_or(|(found, _, _)| score > *found) {
                best = Some((score, row, value));
            }
        }
    }
    best
}

/// How many tables reference `parent` through a column of this name.
fn sharing(catalog: &Catalog, parent: u32, name: &str) -> usize {
    catalog
        .foreign_keys
        .iter()
        .filter(|key| key.parent == parent && key.columns.len() == 1)
        .filter(|key| {
            catalog
                .table(key.table)
                .and_then(|t| t.column(key.columns[0]))
                .is_some_and(|column| column.name == name)
        })
        .count()
}

/// Every table that can be reached as a tenant, with the ways that lead there, best first: direct columns, then through
/// parents. Only the shortest kind of way is kept per root.
fn ways(catalog: &Catalog, table: &Table, target: Option<i16>, sources: &[i16]) -> HashMap<u32, Vec<TenantPath>> {
    let mut found: HashMap<u32, Vec<TenantPath>> = HashMap::new();
    // A row of the root is its own tenant.
    if let Some(key) = table.primary_key().filter(|key| key.columns.len() == 1) {
        let own = TenantPath {
            table: table.oid,
            hops: vec![],
            columns: key.columns.clone(),
            owner: table.oid,
            column: key.columns[0],
        };
        found.insert(table.oid, vec![own]);
    }
    // (columns of the start, hops so far, where we are)
    let mut level: Vec<(Vec<i16>, Vec<Hop>, u32)> = vec![(vec![], vec![], table.oid)];
    for depth in 0..=LONGEST_WAY {
        let mut at_this_depth: HashMap<u32, Vec<TenantPath>> = HashMap::new();
        let mut next = Vec::new();
        for (start, hops, at) in &level {
            let Some(here) = catalog.table(*at) else { continue };
            for key in ranked(catalog, here) {
                if depth == 0 && key.columns.iter().any(|c| Some(*c) == target) {
                    continue;
                }
                if key.columns.len() == 1 && key.parent != *at {
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
                if !again && !through_source && parent.is_unique(&key.parent_columns) {
                    next.push(onward(start, hops, key));
                }
            }
        }
        for (root, paths) in at_this_depth {
            found.entry(root).or_insert(paths);
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
        let not_null = key.columns.iter().all(|c| table.column(*c).is_some_and(|c| c.not_null));
        let in_front = catalog
            .table(key.parent)
            .is_some_and(|parent| crate::names::words(&table.name).starts_with(&crate::names::stem(&parent.name)));
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
            guarded(&catalog, "Entry", None, &[]).unwrap(),
            Guard::Unguarded(_)
        ));
    }
}
