//! The reference: paths by trying everything, rows one by one, trees pass after pass.

use std::collections::BTreeMap;

use super::generate::{Graph, Table};

/// A way along references: (table, number of the reference in it), from the table itself on; the row at the end carries
/// the key.
pub(super) type Way = Vec<(usize, usize)>;

/// Not declared, up the own tree, nullable where it starts, nullable at all, not cascading, key nullable, hops, column; and
/// further up.
type Rank = (
    bool,
    bool,
    bool,
    bool,
    bool,
    bool,
    usize,
    usize,
    Vec<(bool, bool, bool, usize)>,
);

/// What a way gives for one row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Gives {
    Unset,
    Missing,
    Null,
    Tenant(i32),
}

/// What must come out for one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Expected {
    pub(super) already_set: i64,
    pub(super) filled: i64,
    pub(super) reasons: BTreeMap<String, i64>,
}

impl Graph {
    /// Every way from `table` to the first row that carries a key, the best first.
    pub(super) fn ways(&self, table: usize) -> Vec<Way> {
        let mut found = Vec::new();
        self.walk(table, table, vec![], &mut found);
        found.sort_by_key(|way| self.rank(table, way));
        found
    }

    fn walk(&self, start: usize, at: usize, way: Way, found: &mut Vec<Way>) {
        for (r, reference) in self.tables[at].references.iter().enumerate() {
            let mut longer = way.clone();
            longer.push((at, r));
            let own_tree = reference.parent == start;
            if own_tree {
                if way.is_empty() && self.tables[start].key.is_some() {
                    found.push(longer);
                }
                continue;
            }
            if way.iter().any(|(table, _)| *table == reference.parent) || reference.parent == at {
                continue;
            }
            match self.tables[reference.parent].key {
                Some(_) => found.push(longer),
                None => self.walk(start, reference.parent, longer, found),
            }
        }
    }

    /// The signals in their order; smaller is better.
    fn rank(&self, start: usize, way: &Way) -> Rank {
        let steps: Vec<_> = way
            .iter()
            .map(|(table, r)| &self.tables[*table].references[*r])
            .collect();
        let end = &self.tables[steps[steps.len() - 1].parent];
        (
            steps.iter().any(|step| !step.declared),
            steps[0].parent == start,
            !steps[0].not_null,
            steps.iter().skip(1).any(|step| !step.not_null),
            !steps[0].cascades,
            !end.key.as_ref().unwrap().not_null,
            way.len(),
            way[0].1,
            // Where ways part only further up, the same signals there.
            way.iter()
                .zip(&steps)
                .skip(1)
                .map(|((_, r), step)| (!step.declared, !step.not_null, !step.cascades, *r))
                .collect(),
        )
    }

    pub(super) fn path(&self, way: &Way) -> String {
        let mut text = self.tables[way[0].0].references[way[0].1].column.clone();
        for (i, (table, r)) in way.iter().enumerate() {
            let parent = &self.tables[self.tables[*table].references[*r].parent];
            let next = match way.get(i + 1) {
                Some((table, r)) => self.tables[*table].references[*r].column.clone(),
                None => parent.key.as_ref().unwrap().column.clone(),
            };
            text.push_str(&format!(" -> {}.{next}", parent.name));
        }
        text
    }

    fn gives(&self, way: &Way, row: usize) -> Gives {
        let mut at = row;
        for (i, (table, r)) in way.iter().enumerate() {
            let Some(id) = self.tables[*table].rows[at].references[*r] else {
                return if i == 0 { Gives::Unset } else { Gives::Null };
            };
            let parent = &self.tables[self.tables[*table].references[*r].parent];
            match parent.rows.iter().position(|row| row.id == id) {
                // A row that is its own parent says nothing about itself.
                Some(found) if i + 1 == way.len() && parent.name == self.tables[way[0].0].name && found == row => {
                    return Gives::Null;
                }
                Some(found) if i + 1 == way.len() => {
                    return parent.rows[found].tenant.map_or(Gives::Null, Gives::Tenant);
                }
                Some(found) => at = found,
                None => return Gives::Missing,
            }
        }
        Gives::Null
    }

    /// The ways that a run follows, those from outside before the one (at most) that leads up the table's own tree.
    fn followed(&self, t: usize) -> (Vec<Way>, Option<Way>) {
        let (own, outside): (Vec<Way>, Vec<Way>) = self
            .ways(t)
            .into_iter()
            .partition(|way| self.tables[t].references[way[0].1].parent == t);
        (outside, own.into_iter().next())
    }

    /// The reason of a row, given the values before the run, and the value that it gets.
    fn judge(&self, t: usize, row: usize, old: &[Option<i32>], overwrite: bool) -> (&'static str, Option<i32>) {
        let (outside, tree) = self.followed(t);
        let tenant = |gives: &Gives| if let Gives::Tenant(t) = gives { Some(*t) } else { None };
        let said =
            |row: usize| -> Vec<i32> { outside.iter().filter_map(|way| tenant(&self.gives(way, row))).collect() };
        let mut given: Vec<Gives> = outside.iter().map(|way| self.gives(way, row)).collect();
        let mut values = said(row);
        let contradicted = overwrite && values.first().is_some_and(|value| Some(*value) != old[row]);
        if let Some(tree) = &tree {
            let up = self.gives(tree, row);
            // A row that is about to be put right says nothing until it is.
            let above = self.tables[t].rows[row].references[tree[0].1];
            let above = self.tables[t].rows.iter().position(|row| Some(row.id) == above);
            let disputed = overwrite
                && above.is_some_and(|above| {
                    said(above)
                        .first()
                        .is_some_and(|own| tenant(&up).is_some_and(|up| up != *own))
                });
            let up = if disputed { Gives::Null } else { up };
            given.push(up);
            if values.is_empty() {
                values.extend(tenant(&up));
            }
            if values.is_empty() {
                // Nothing to compare.
            } else if let Some(parent) = self.tables[t].rows[row].references[tree[0].1] {
                // What the row up there had, or what its own ways say; not what it has by now.
                if let Some(parent) = self.tables[t].rows.iter().position(|row| row.id == parent) {
                    let (own, before) = (said(parent).first().copied(), old[parent]);
                    values.extend(if overwrite { own.or(before) } else { before.or(own) });
                }
            }
        }
        if self.tenant.is_some() && old[row].or(values.first().copied()) != self.tenant {
            return ("excluded", None);
        }
        if old[row].is_some() && !contradicted {
            return ("already_set", None);
        }
        if given.iter().all(|g| *g == Gives::Unset) {
            return ("no_source", None);
        }
        match values.first() {
            None if given.contains(&Gives::Missing) => ("source_missing", None),
            None => ("source_null", None),
            Some(first) if self.on_conflict == "skip" && values.iter().any(|v| v != first) => ("conflict", None),
            Some(first) => ("filled", Some(*first)),
        }
    }

    /// What a run over all tables does: fills `self`, and says what it counted for each table with a key.
    pub(super) fn run(&mut self) -> BTreeMap<String, Expected> {
        let mut expected = BTreeMap::new();
        // Parents have smaller numbers than their children, so this is an order in which they can be filled.
        for t in 0..self.tables.len() {
            let Some(key) = self.tables[t].key.clone() else {
                continue;
            };
            let (outside, tree) = self.followed(t);
            let only_counted = key.not_null && (!self.overwrite || outside.is_empty());
            let old: Vec<Option<i32>> = self.tables[t].rows.iter().map(|row| row.tenant).collect();
            let judged = loop {
                let judge = |row: usize| match only_counted || outside.is_empty() && tree.is_none() {
                    true if self.tenant.is_some() && old[row] != self.tenant => ("excluded", None),
                    true if old[row].is_some() => ("already_set", None),
                    true => ("no_source", None),
                    false => self.judge(t, row, &old, self.overwrite),
                };
                let judged: Vec<_> = (0..old.len()).map(judge).collect();
                let now: Vec<Option<i32>> = judged.iter().zip(&old).map(|((_, new), old)| new.or(*old)).collect();
                let settled = self.tables[t]
                    .rows
                    .iter()
                    .zip(&now)
                    .all(|(row, now)| row.tenant == *now);
                self.tables[t]
                    .rows
                    .iter_mut()
                    .zip(now)
                    .for_each(|(row, now)| row.tenant = now);
                if settled {
                    break judged;
                }
            };
            let mut counts = Expected::default();
            for (reason, _) in judged {
                match reason {
                    "already_set" => counts.already_set += 1,
                    "filled" => counts.filled += 1,
                    other => *counts.reasons.entry(other.into()).or_default() += 1,
                }
            }
            expected.insert(self.tables[t].name.clone(), counts);
        }
        expected
    }

    /// total, populated, disagrees
    pub(super) fn coverage(&self, t: usize) -> (i64, i64, Option<i64>) {
        let (outside, tree) = self.followed(t);
        let ways: Vec<Way> = outside.into_iter().chain(tree).collect();
        let table: &Table = &self.tables[t];
        let disagrees = (0..table.rows.len()).filter(|row| {
            let mut values = ways.iter().map(|way| self.gives(way, *row));
            let first = values.find_map(|g| if let Gives::Tenant(t) = g { Some(t) } else { None });
            first.is_some() && table.rows[*row].tenant.is_some() && first != table.rows[*row].tenant
        });
        (
            table.rows.len() as i64,
            table.rows.iter().filter(|row| row.tenant.is_some()).count() as i64,
            (!ways.is_empty()).then(|| disagrees.count() as i64),
        )
    }

    /// The status of a table, as far as it does not depend on the data.
    pub(super) fn status_without_key(&self, t: usize) -> &'static str {
        let declared = |way: &Way| way.iter().all(|(table, r)| self.tables[*table].references[*r].declared);
        match self.ways(t).first() {
            Some(best) if declared(best) => "needs_column",
            Some(_) => "unreachable",
            None => "shared",
        }
    }
}
