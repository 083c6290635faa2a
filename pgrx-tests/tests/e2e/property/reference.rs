//! The reference: row by row over plain text, as slow and as obvious as can be.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::generate::{Case, Hop, Source};
use super::{Row, Value};

impl Case {
    /// The tenant of a target row: its own column, else its holder's.
    pub(super) fn tenant_of(&self, row: &Row) -> Value {
        match &self.tenant_column {
            Some(own) => row[own].clone(),
            None => row["holder_id"].as_ref().and_then(|id| self.holder_rows[id].clone()),
        }
    }

    /// The reason of each row by id, and the value of those that are filled.
    pub(super) fn reference(&self) -> (BTreeMap<u32, String>, HashMap<u32, String>) {
        let mut reasons = BTreeMap::new();
        let mut values: HashMap<u32, String> = HashMap::new();
        for row in &self.rows {
            let id: u32 = row["id"].as_ref().unwrap().parse().unwrap();
            let (reason, value) = self.judge(row);
            reasons.insert(id, reason);
            if let Some(value) = value {
                values.insert(id, value);
            }
        }
        // Collisions, among the candidates and with what is there; a value that is replaced makes room for another.
        if self.checks.unique {
            let in_index = |row: &Row| !self.checks.partial || row["flag"].as_ref().is_some_and(|f| f != "0");
            let id_of = |row: &Row| -> u32 { row["id"].as_ref().unwrap().parse().unwrap() };
            let mut done: HashSet<u32> = HashSet::new();
            loop {
                let collides = |row: &Row| {
                    let (id, value) = (id_of(row), values.get(&id_of(row)));
                    let (Some(value), Some(group), true) = (value, &row["grp"], in_index(row)) else {
                        return false;
                    };
                    self.rows.iter().any(|other| {
                        let theirs = values.get(&id_of(other));
                        let old = other[&self.column].as_ref().filter(|_| !done.contains(&id_of(other)));
                        id_of(other) != id
                            && in_index(other)
                            && other["grp"].as_ref() == Some(group)
                            && (theirs == Some(value) || old == Some(value))
                    })
                };
                let free: Vec<u32> = self
                    .rows
                    .iter()
                    .filter(|row| values.contains_key(&id_of(row)) && !done.contains(&id_of(row)) && !collides(row))
                    .map(id_of)
                    .collect();
                if free.is_empty() {
                    break;
                }
                done.extend(free);
            }
            values.retain(|id, _| done.contains(id));
            for (id, reason) in &mut reasons {
                if reason == "filled" && !done.contains(id) {
                    *reason = "constraint_failed".into();
                }
            }
        }
        (reasons, values)
    }

    pub(super) fn judge(&self, row: &Row) -> (String, Option<String>) {
        let no = |reason: &str| (reason.to_string(), None);
        if self.only_where && row["flag"].as_ref().is_none_or(|f| f.parse::<i32>().unwrap() < 1) {
            return no("excluded");
        }
        if self.tenant.is_some() && self.tenant_of(row) != self.tenant {
            return no("excluded");
        }
        let found: Vec<Found> = self.sources.iter().map(|s| s.look(row)).collect();
        if let Some(old) = &row[&self.column] {
            // Contradicted by the first source that gives one value, if the column could hold that.
            let first = found
                .iter()
                .find_map(|f| if let Found::Value(v) = f { Some(v) } else { None });
            let contradicted = first.is_some_and(|v| v != old && !(self.checks.limited && v.len() > 2));
            if !(self.overwrite && contradicted) {
                return no("already_set");
            }
        }
        if found.iter().all(|f| matches!(f, Found::Unset)) {
            return no("no_source");
        }
        let gives = |f: &Found| matches!(f, Found::Value(_) | Found::Several);
        if !found.iter().any(gives) {
            let missing = found.iter().any(|f| matches!(f, Found::Missing));
            return no(if missing { "source_missing" } else { "source_null" });
        }
        if found.iter().any(|f| matches!(f, Found::Several)) {
            return no("ambiguous");
        }
        let values: Vec<&String> = found
            .iter()
            .filter_map(|f| if let Found::Value(v) = f { Some(v) } else { None })
            .collect();
        let set = found.iter().filter(|f| !matches!(f, Found::Unset)).count();
        let conflict = match self.on_conflict {
            "first" => false,
            "any_two" => set > 1,
            _ => values.iter().any(|v| *v != values[0]),
        };
        if conflict {
            return no("conflict");
        }
        let value = values[0].clone();
        let party = self.party_rows.get(&value);
        // What the value means is known by the foreign key only.
        if self.guard
            && self.checks.foreign_key
            && let (Some(theirs), Some(ours)) = (party.cloned().flatten(), self.tenant_of(row))
            && theirs != ours
        {
            return no("cross_tenant");
        }
        let refused = (self.checks.limited && value.len() > 2)
            || (self.checks.domain && !self.checks.limited && value.ends_with('3'))
            || (self.checks.check && row["flag"].as_deref() == Some("2"))
            || (self.checks.foreign_key && party.is_none());
        if refused {
            no("constraint_failed")
        } else {
            ("filled".into(), Some(value))
        }
    }
}

pub(super) enum Found {
    Unset,
    Missing,
    Null,
    Value(String),
    Several,
}

impl Source {
    pub(super) fn look(&self, row: &Row) -> Found {
        let key: Vec<Value> = self.columns.iter().map(|c| row[c].clone()).collect();
        if key.iter().any(Option::is_none) {
            return Found::Unset;
        }
        if self.hops.is_empty() {
            return Found::Value(key[0].clone().unwrap());
        }
        let mut values = HashSet::new();
        let mut missing = false;
        follow(&self.hops, key, &mut values, &mut missing);
        match values.len() {
            0 if missing => Found::Missing,
            0 => Found::Null,
            1 => Found::Value(values.into_iter().next().unwrap()),
            _ => Found::Several,
        }
    }
}

pub(super) fn follow(hops: &[Hop], key: Vec<Value>, values: &mut HashSet<String>, missing: &mut bool) {
    let Some((hop, rest)) = hops.split_first() else { return };
    let mut any = false;
    for parent in &hop.rows {
        if hop.key.iter().zip(&key).all(|(name, value)| parent[name] == *value) {
            any = true;
            match (&parent[&hop.taken], rest.is_empty()) {
                (Some(value), true) => {
                    values.insert(value.clone());
                }
                (Some(value), false) => follow(rest, vec![Some(value.clone())], values, missing),
                (None, _) => {}
            }
        }
    }
    *missing |= !any;
}
