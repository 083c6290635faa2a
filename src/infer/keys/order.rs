//! In which order the keys of a database are filled: parents before children.

use std::collections::{HashMap, HashSet};

use super::{Paths, TenantKey, TenantKeys, TenantSource};
use crate::catalog::{Catalog, Table};
use crate::infer::InferError;

/// One key with the paths that give its value.
#[derive(Debug, Clone)]
pub struct KeyPaths {
    /// The table.
    pub table: u32,
    /// The key in it.
    pub key: TenantKey,
    /// The paths, the best first.
    pub paths: Paths,
    /// Paths that a run over all tables leaves out, because they would close a circle.
    pub left_out: Vec<TenantSource>,
}

impl KeyPaths {
    fn id(&self) -> (u32, i16) {
        (self.table, self.key.column)
    }

    /// The keys that a path reads, but for its own (a tree is filled in passes).
    fn reads(&self) -> impl Iterator<Item = (u32, i16)> {
        let own = self.id();
        let values = self.paths.found.iter().map(move |path| path.source.value(own.0));
        values.filter(move |value| *value != own)
    }
}

impl TenantKeys<'_> {
    /// Every key of every table (not of single partitions), by schema and name, with its paths.
    pub fn all(&self) -> Vec<KeyPaths> {
        let tables = self.catalog.tables.iter().filter(|t| !t.is_partition);
        tables.flat_map(|table| self.of_table(table)).collect()
    }

    /// The keys of one table, with their paths.
    pub fn of_table(&self, table: &Table) -> Vec<KeyPaths> {
        let with_paths = |key: &TenantKey| KeyPaths {
            table: table.oid,
            key: key.clone(),
            paths: self.paths(table, Some(key)),
            left_out: vec![],
        };
        self.of(table).iter().map(with_paths).collect()
    }
}

/// Puts keys before those that are filled from them; otherwise the order stays. Where other paths remain, one that would
/// close a circle is left out, the worst first.
///
/// `filled`: is this key written at all? Others depend on nothing.
///
/// Errors: 42P17 where keys can only be filled from each other.
pub fn in_order(
    catalog: &Catalog,
    keys: Vec<KeyPaths>,
    filled: impl Fn(&KeyPaths) -> bool,
) -> Result<Vec<KeyPaths>, InferError> {
    let mut pending = keys;
    let mut waiting: HashSet<(u32, i16)> = pending.iter().filter(|k| filled(k)).map(KeyPaths::id).collect();
    let mut ordered = Vec::new();
    while !pending.is_empty() {
        let (ready, blocked): (Vec<KeyPaths>, Vec<KeyPaths>) = pending
            .into_iter()
            .partition(|key| !filled(key) || key.reads().all(|value| !waiting.contains(&value)));
        pending = blocked;
        if ready.is_empty() {
            leave_out(catalog, &mut pending, &waiting)?;
        }
        for key in ready {
            waiting.remove(&key.id());
            ordered.push(key);
        }
    }
    Ok(ordered)
}

/// Every pending key waits for another one: takes the worst path of a circle out.
fn leave_out(catalog: &Catalog, pending: &mut [KeyPaths], waiting: &HashSet<(u32, i16)>) -> Result<(), InferError> {
    let graph: HashMap<(u32, i16), Vec<(u32, i16)>> = pending
        .iter()
        .map(|key| (key.id(), key.reads().filter(|value| waiting.contains(value)).collect()))
        .collect();
    let reaches = |from: (u32, i16), to: (u32, i16)| {
        let mut seen = HashSet::from([from]);
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            if at == to {
                return true;
            }
            next.extend(graph.get(&at).into_iter().flatten().filter(|v| seen.insert(**v)));
        }
        false
    };
    // (key, path) of every path on a circle, where the key keeps another path that is on none.
    let mut closing: Vec<(usize, usize)> = Vec::new();
    let mut circle: Vec<(usize, usize)> = Vec::new();
    for (k, key) in pending.iter().enumerate() {
        let on_circle: Vec<usize> = (0..key.paths.found.len())
            .filter(|p| {
                let value = key.paths.found[*p].source.value(key.table);
                value != key.id() && waiting.contains(&value) && reaches(value, key.id())
            })
            .collect();
        circle.extend(on_circle.iter().map(|p| (k, *p)));
        if on_circle.len() < key.paths.found.len() {
            closing.extend(on_circle.iter().map(|p| (k, *p)));
        }
    }
    let worst = |candidates: &[(usize, usize)]| {
        let ranked = candidates.iter().max_by(|a, b| {
            let path = |at: &(usize, usize)| &pending[at.0].paths.found[at.1].rank;
            path(a).cmp(path(b))
        });
        ranked.copied()
    };
    let Some((k, p)) = worst(&closing) else {
        let shown = |at: &(usize, usize)| {
            let key = &pending[at.0];
            let table = catalog.table(key.table)?;
            let start = table.names_of(&key.paths.found[at.1].source.columns).join(", ");
            let parent = catalog.table(key.paths.found[at.1].source.value(key.table).0)?;
            Some((catalog.display(table), start, catalog.display(parent)))
        };
        return Err(InferError::TenantCycle {
            edges: circle.iter().filter_map(shown).collect(),
            weakest: worst(&circle).as_ref().and_then(shown).unwrap_or_default(),
        });
    };
    let path = pending[k].paths.found.remove(p);
    pending[k].left_out.push(path);
    Ok(())
}
