//! How the keys of a root are found.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::edge::ReferenceEdge;
use super::{TenantKey, TenantKeys};
use crate::catalog::{Catalog, Column, DeclaredKey, ForeignKey, State, Table};
use crate::identifier::Identifier;
use crate::infer::tenancy::root::named_after;
use crate::names;

/// What was found of a root. The catalog keeps it for the call (`Catalog::of_root`).
#[derive(Default)]
pub(super) struct Found {
    /// The root's key; `None`: it has none of one column.
    pub(super) key: Option<i16>,
    /// The keys of every table that has one.
    pub(super) by_table: HashMap<u32, Vec<TenantKey>>,
    /// What most keys are called, quoted where needed.
    pub(super) usual_name: String,
    /// Tables from which a row that carries a key can be reached, once somebody asks.
    pub(super) leading: OnceCell<HashSet<u32>>,
    /// The references that a path can follow, by the table that has them.
    pub(super) steps: RefCell<HashMap<u32, Rc<Vec<ReferenceEdge>>>>,
}

impl Found {
    /// Looks for the keys, once per call and root.
    pub(super) fn of(catalog: &Catalog, root: &Table) -> Rc<Found> {
        let kept = catalog.of_root.borrow().clone().filter(|(of, _)| *of == root.oid);
        if let Some(found) = kept.and_then(|(_, found)| found.downcast::<Found>().ok()) {
            return found;
        }
        let found = root_key(catalog, root).map_or_else(Found::default, |key| Search { catalog, root, key }.columns());
        let found = Rc::new(found);
        let kept: Rc<dyn Any> = found.clone();
        catalog.of_root.replace(Some((root.oid, kept)));
        found
    }
}

/// A search for the keys of one root.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) root: &'a Table,
    pub(super) key: &'a Column,
}

impl<'a> Search<'a> {
    /// Columns with a foreign key to the root's key.
    pub(super) fn declared_columns<'t>(self, table: &'t Table) -> impl Iterator<Item = (&'t Column, &'a ForeignKey)> {
        self.catalog.foreign_keys_of(table.oid).filter_map(move |key| {
            let at = key.parent_columns.iter().position(|c| *c == self.key.number)?;
            let ours =
                key.parent == self.root.oid && (key.columns.len() == 1 || self.root.is_unique(&[self.key.number]));
            Some((table.column(key.columns[at]).filter(|_| ours)?, key))
        })
    }

    fn columns(&self) -> Found {
        let tables = || {
            self.catalog
                .tables
                .iter()
                .filter(|t| t.is_table() && !t.of_extension && t.oid != self.root.oid)
        };
        // What keys are called: names by which a table references the root and has no other way to, if there are such tables.
        let mut uses: HashMap<&str, usize> = HashMap::new();
        let mut alone: HashSet<&str> = HashSet::new();
        for table in tables().filter(|t| !t.is_partition) {
            let columns: HashSet<&str> = self.declared_columns(table).map(|(c, _)| c.name.as_str()).collect();
            columns.iter().for_each(|name| *uses.entry(*name).or_default() += 1);
            if columns.len() == 1 {
                alone.extend(columns);
            }
        }
        uses.retain(|name, _| alone.is_empty() || alone.contains(name));
        let most = uses.values().copied().max().unwrap_or(0);
        let usual = |name: &str| uses.get(name).is_some_and(|uses| *uses >= 2 && *uses * 2 >= most);
        let found: Vec<(u32, Vec<TenantKey>)> = tables()
            .map(|table| (table.oid, self.columns_of(table, &usual)))
            .filter(|(_, keys)| !keys.is_empty())
            .collect();
        // The most frequent name of all keys, declared or not; the first in the alphabet of equals.
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (table, keys) in &found {
            let table = self.catalog.table(*table);
            for column in keys.iter().filter_map(|key| table?.column(key.column)) {
                *names.entry(column.quoted.as_str()).or_default() += 1;
            }
        }
        let all: usize = names.values().sum();
        let name = names.into_iter().max_by_key(|(name, uses)| (*uses, Reverse(*name)));
        // What one table calls its own way says nothing of the others (`assigned_to`).
        let name = name.filter(|(name, uses)| named_after(name, &self.root.name) || *uses >= 2 && *uses * 2 > all);
        Found {
            key: Some(self.key.number),
            usual_name: name.map_or_else(|| self.name_of_root_and_key(), |(name, _)| name.to_string()),
            by_table: found.into_iter().collect(),
            ..Found::default()
        }
    }

    /// The keys of one table; `usual`: a name that the keys of other tables have.
    fn columns_of(&self, table: &Table, usual: &dyn Fn(&str) -> bool) -> Vec<TenantKey> {
        if let Some(declared) = self.catalog.declared_keys.get(&table.oid) {
            return self.declared_key(table, declared).into_iter().collect();
        }
        let plainly = |column: &Column| named_after(&column.name, &self.root.name) || usual(&column.name);
        let mut keys: Vec<(&Column, TenantKey)> = Vec::new();
        for (column, foreign) in self.declared_columns(table) {
            let key = TenantKey {
                column: column.number,
                foreign_key: Some(foreign.name.clone()),
                state: foreign.state(),
                comparable: true,
                one_of_several: false,
                declared_by: None,
            };
            match keys.iter_mut().find(|(known, _)| known.number == column.number) {
                // Two foreign keys on one column: the one that vouches for more.
                Some((_, known)) if known.state != State::Valid => *known = key,
                Some(_) => {}
                None => keys.push((column, key)),
            }
        }
        for column in table.columns.iter().filter(|c| plainly(c)) {
            let referencing = self
                .catalog
                .foreign_keys_of(table.oid)
                .any(|key| key.columns == [column.number]);
            if referencing || keys.iter().any(|(known, _)| known.number == column.number) {
                continue;
            }
            let comparable = self.catalog.comparable(column.type_oid, self.key.type_oid);
            // A column `organization` of another type is a name, not a key.
            let called_key = names::words(&column.name).len() > names::column_stem(&column.name).len();
            if comparable || called_key {
                let key = TenantKey {
                    column: column.number,
                    foreign_key: None,
                    state: State::Missing,
                    comparable,
                    one_of_several: false,
                    declared_by: None,
                };
                keys.push((column, key));
            }
        }
        if keys.len() > 1 {
            if keys.iter().any(|(column, _)| plainly(column)) {
                keys.retain(|(column, _)| plainly(column));
            } else {
                // A row that must have one of them has that one (target_project_id, and source_project_id for a fork).
                let never_null = keys.iter().filter(|(column, _)| column.never_null).count();
                match never_null {
                    1 => keys.retain(|(column, _)| column.never_null),
                    _ => keys.iter_mut().for_each(|(_, key)| key.one_of_several = true),
                }
            }
        }
        keys.sort_by_key(|(column, key)| (key.foreign_key.is_none(), column.number));
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// The key of a table of which it was declared.
    fn declared_key(&self, table: &Table, declared: &DeclaredKey) -> Option<TenantKey> {
        let column = table.column(declared.column?)?;
        let foreign = self
            .declared_columns(table)
            .filter(|(own, _)| own.number == column.number);
        let foreign = foreign
            .map(|(_, key)| key)
            .max_by_key(|key| key.state() == State::Valid);
        Some(TenantKey {
            column: column.number,
            foreign_key: foreign.map(|key| key.name.clone()),
            state: foreign.map_or(State::Missing, ForeignKey::state),
            comparable: foreign.is_some() || self.catalog.comparable(column.type_oid, self.key.type_oid),
            one_of_several: false,
            declared_by: Some(declared.declared_by.clone()),
        })
    }

    /// `account_id` of `accounts(id)`, `tenantId` of `"Tenant"(id)`: as the columns of the root are written.
    fn name_of_root_and_key(&self) -> String {
        let stem = names::stem(&self.root.name);
        let key = names::words(&self.key.name);
        // tenants(tenant_id) says it already.
        let words = match key.starts_with(&stem) {
            true => key,
            false => [stem, key].concat(),
        };
        let capital = |name: &str| name.chars().any(char::is_uppercase);
        let camel = capital(&self.root.name) || self.root.columns.iter().any(|column| capital(&column.name));
        let name = match camel {
            false => words.join("_"),
            true => {
                let capitalized = |word: &String| {
                    let mut letters = word.chars();
                    let first = letters.next().map(|c| c.to_uppercase().to_string());
                    first.unwrap_or_default() + letters.as_str()
                };
                let rest: String = words.iter().skip(1).map(capitalized).collect();
                words.first().cloned().unwrap_or_default() + &rest
            }
        };
        Identifier::new(&name).to_string()
    }
}

impl TenantKeys<'_> {
    /// From this table a row that carries a key can be reached.
    pub(super) fn leads(&self, table: u32) -> bool {
        self.found.leading.get_or_init(|| self.find_leading()).contains(&table)
    }

    /// Against the direction of the references, from the rows that carry a key.
    fn find_leading(&self) -> HashSet<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for table in self.catalog.tables.iter().filter(|t| t.is_table() && !t.of_extension) {
            for step in self.steps(table).iter() {
                children.entry(step.parent).or_default().push(table.oid);
            }
        }
        let mut next: Vec<u32> = self.found.by_table.keys().copied().chain([self.root.oid]).collect();
        let mut leading: HashSet<u32> = HashSet::new();
        while let Some(at) = next.pop() {
            for child in children.get(&at).into_iter().flatten() {
                if leading.insert(*child) {
                    next.push(*child);
                }
            }
        }
        leading
    }
}

/// The column of the root by which most others reference it, else its primary key.
pub(super) fn root_key<'a>(catalog: &Catalog, root: &'a Table) -> Option<&'a Column> {
    let mut uses: HashMap<i16, usize> = HashMap::new();
    for key in catalog
        .foreign_keys
        .iter()
        .filter(|key| key.parent == root.oid && key.table != root.oid)
    {
        if let [only] = key.parent_columns[..] {
            *uses.entry(only).or_default() += 1;
        }
    }
    let primary = root
        .primary_key()
        .filter(|key| key.columns.len() == 1)
        .map(|key| key.columns[0]);
    let most = uses
        .into_iter()
        .max_by_key(|(column, uses)| (*uses, Some(*column) == primary, Reverse(*column)));
    let single = root
        .keys
        .iter()
        .find(|key| key.columns.len() == 1)
        .map(|key| key.columns[0]);
    root.column(most.map(|(column, _)| column).or(primary).or(single)?)
}
