//! In which order the keys of a database are filled: parents before children.

use std::collections::{HashMap, HashSet};

use super::{NotFollowed, Paths, TenantKey, TenantKeys};
use crate::catalog::Table;
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
}

impl KeyPaths {
    fn id(&self) -> (u32, i16) {
        (self.table, self.key.column)
    }

    /// The keys that a path reads, but for its own (a tree is filled in passes).
    fn reads(&self) -> impl Iterator<Item = (u32, i16)> {
        let own = self.id();
        let values = self.paths.found.iter().filter_map(move |path| path.source.value(own.0));
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
    tenants: &TenantKeys,
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
            leave_out(tenants, &mut pending, &waiting)?;
        }
        for key in ready {
            waiting.remove(&key.id());
            ordered.push(key);
        }
    }
    Ok(ordered)
}

/// Every pending key waits for another one: takes the worst path of a circle out.
fn leave_out(keys: &TenantKeys, pending: &mut [KeyPaths], waiting: &HashSet<(u32, i16)>) -> Result<(), InferError> {
    let at: HashMap<(u32, i16), usize> = pending.iter().enumerate().map(|(i, key)| (key.id(), i)).collect();
    // (path, the pending key that it reads) of each key.
    let edges: Vec<Vec<(usize, usize)>> = pending
        .iter()
        .map(|key| {
            let paths = key.paths.found.iter().enumerate();
            let values = paths.filter_map(|(p, path)| Some((p, path.source.value(key.table)?)));
            values
                .filter(|(_, value)| *value != key.id() && waiting.contains(value))
                .filter_map(|(p, value)| Some((p, *at.get(&value)?)))
                .collect()
        })
        .collect();
    let component = components(&edges);
    // (key, path) of every path on a circle, and of those where the key keeps another path that is on none.
    let mut circle: Vec<(usize, usize)> = Vec::new();
    let mut closing: Vec<(usize, usize)> = Vec::new();
    for (k, key) in pending.iter().enumerate() {
        let on_circle = edges[k].iter().filter(|(_, to)| component[*to] == component[k]);
        let on_circle: Vec<(usize, usize)> = on_circle.map(|(p, _)| (k, *p)).collect();
        if on_circle.len() < key.paths.found.len() {
            closing.extend(&on_circle);
        }
        circle.extend(on_circle);
    }
    let worst = |candidates: &[(usize, usize)]| {
        let path = |at: &(usize, usize)| &pending[at.0].paths.found[at.1].rank;
        candidates.iter().max_by(|a, b| path(a).cmp(path(b))).copied()
    };
    let Some((k, p)) = worst(&closing) else {
        let shown = |at: &(usize, usize)| {
            let key = &pending[at.0];
            let table = keys.catalog.table(key.table)?;
            let path = &key.paths.found[at.1].source;
            let start = table.names_of(&path.columns()).join(", ");
            let parent = keys.catalog.table(path.value(key.table)?.0)?;
            Some((keys.catalog.display(table), start, keys.catalog.display(parent)))
        };
        return Err(InferError::TenantCycle {
            root: keys.catalog.display(keys.root),
            edges: circle.iter().filter_map(shown).collect(),
            weakest: worst(&circle).as_ref().and_then(shown).unwrap_or_default(),
        });
    };
    let path = pending[k].paths.found.remove(p);
    pending[k].paths.not_followed.push((path, NotFollowed::Circle));
    Ok(())
}

/// For each node, the number of its strongly connected component: two nodes have the same one if each leads to the other.
/// (Kosaraju: in the order in which a walk ends at them, walked against the edges.)
fn components(edges: &[Vec<(usize, usize)>]) -> Vec<usize> {
    let mut backwards: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (from, to) in edges
        .iter()
        .enumerate()
        .flat_map(|(from, all)| all.iter().map(move |(_, to)| (from, *to)))
    {
        backwards[to].push(from);
    }
    let mut ended = Vec::new();
    let mut seen = vec![false; edges.len()];
    for start in 0..edges.len() {
        // (node, how many of its edges are walked)
        let mut walk = vec![(start, 0)];
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        while let Some((at, next)) = walk.last_mut() {
            match edges[*at].get(*next) {
                Some((_, to)) => {
                    *next += 1;
                    if !std::mem::replace(&mut seen[*to], true) {
                        walk.push((*to, 0));
                    }
                }
                None => {
                    ended.push(*at);
                    walk.pop();
                }
            }
        }
    }
    let mut component = vec![usize::MAX; edges.len()];
    for start in ended.into_iter().rev() {
        let mut next = vec![start];
        while let Some(at) = next.pop() {
            if component[at] == usize::MAX {
                component[at] = start;
                next.extend(&backwards[at]);
            }
        }
    }
    component
}
