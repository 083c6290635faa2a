//! The tenant key of every table, and the paths that give its value.
//!
//! A key is told by what it references, not by its name: `orders.created_by -> profiles(id)` and
//! `properties.org_id -> profiles(id)` are the same one. A column without a foreign key counts where it is named after the root
//! or like the keys of other tables. Of several columns that reference the root, those with such a name are the keys and
//! the others are roles (`assigned_to`); where none has, the only one that is NOT NULL is; else each is a key. What was declared
//! (`declare_tenant_key`) stands before all of this.
//!
//! A path leads along references to the first row that carries a key. Every path is a *reason* to believe in a tenant,
//! so all of them become sources of one rule: the best one first, the others compared with it (rows where they differ are
//! `conflict`). Which is best: the first of these signals that differs. The figures say how often each pointed the right
//! and the wrong way among 192 paths that the engineers of a large public schema had declared by hand (issue 3).
//!
//! | signal | right : wrong |
//! |---|---|
//! | every hop is a declared foreign key | |
//! | it leads to another table, not up the table's own tree | |
//! | the column where it starts is NOT NULL, then those further up | 31 : 0 |
//! | the key to fill is named after the column where the path starts | 7 : 0 |
//! | ON DELETE CASCADE | 6 : 0 |
//! | the key at the end is NOT NULL | 21 : 3 |
//! | the parent's name starts the child's (the more words the better) | 29 : 7 |
//! | fewer hops | 10 : 4 |
//! | the earlier column | 55 : 10 |

mod edge;
mod order;
mod paths;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

pub use order::{KeyPaths, in_order};
pub use paths::{MOST_PATHS, NotFollowed, Paths, TenantSource};

use edge::ReferenceEdge;

use super::root::named_after;
use crate::catalog::{Catalog, Column, DeclaredKey, ForeignKey, State, Table, TenantColumns};
use crate::identifier::Identifier;
use crate::infer::InferError;
use crate::infer::reference::{self, Reference};
use crate::infer::sources::Inferred;
use crate::names;

/// The tenant keys of a database.
pub struct TenantKeys<'a> {
    catalog: &'a Catalog,
    /// The table that holds the tenants.
    pub root: &'a Table,
    /// Its key, as the others reference it.
    pub key: &'a Column,
    by_table: Rc<HashMap<u32, Vec<TenantKey>>>,
    /// What most keys are called, quoted where needed.
    usual_name: String,
    /// Tables from which a row that carries a key can be reached.
    leading: Rc<HashSet<u32>>,
    steps: RefCell<HashMap<u32, Rc<Vec<ReferenceEdge>>>>,
}

/// What was found of a root, without the catalog: kept there, see `Catalog::of_root`.
struct Found {
    by_table: Rc<HashMap<u32, Vec<TenantKey>>>,
    usual_name: String,
    leading: Rc<HashSet<u32>>,
    steps: RefCell<HashMap<u32, Rc<Vec<ReferenceEdge>>>>,
}

/// One column that says whose row it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantKey {
    /// Its number.
    pub column: i16,
    /// The name of its foreign key to the root; `None`: only its name says so.
    pub foreign_key: Option<String>,
    /// How far Postgres vouches for it.
    pub state: State,
    /// Its values can be those of the root's key.
    pub comparable: bool,
    /// One of several columns that reference the root, and nothing says which of them is the tenant.
    pub one_of_several: bool,
    /// The role that declared it to be the key, where one did.
    pub declared_by: Option<String>,
}

impl<'a> TenantKeys<'a> {
    /// Finds the keys of all tables.
    ///
    /// Errors: 42830 if the root has no key of one column, 42703 if no column references it.
    pub fn find(catalog: &'a Catalog, root: &'a Table) -> Result<Self, InferError> {
        let mut keys = TenantKeys::of_root(catalog, root)?;
        if keys.by_table.is_empty() {
            return Err(InferError::NothingReferencesRoot {
                root: catalog.display(root),
                key: keys.key.quoted.clone(),
                candidates: super::root::candidates(catalog)
                    .iter()
                    .take(3)
                    .filter_map(|c| Some(catalog.display(catalog.table(c.table)?)))
                    .collect(),
            });
        }
        keys.find_leading();
        Ok(keys)
    }

    /// As [`TenantKeys::find`], found once per call.
    pub fn known(catalog: &'a Catalog, root: &'a Table) -> Option<Self> {
        let kept = catalog.of_root.borrow().clone();
        let kept = kept.filter(|(of, _)| *of == root.oid);
        if let Some(found) = kept.and_then(|(_, found)| found.downcast::<Found>().ok()) {
            return Some(TenantKeys {
                catalog,
                root,
                key: root_key(catalog, root)?,
                by_table: found.by_table.clone(),
                usual_name: found.usual_name.clone(),
                leading: found.leading.clone(),
                steps: RefCell::new(found.steps.borrow().clone()),
            });
        }
        let keys = TenantKeys::find(catalog, root).ok()?;
        let found = Found {
            by_table: keys.by_table.clone(),
            usual_name: keys.usual_name.clone(),
            leading: keys.leading.clone(),
            steps: RefCell::new(keys.steps.borrow().clone()),
        };
        catalog.of_root.replace(Some((root.oid, Rc::new(found))));
        Some(keys)
    }

    /// The keys alone, without what leads to them.
    fn of_root(catalog: &'a Catalog, root: &'a Table) -> Result<Self, InferError> {
        let key = root_key(catalog, root).ok_or_else(|| InferError::RootWithoutKey {
            root: catalog.display(root),
        })?;
        let mut keys = TenantKeys {
            catalog,
            root,
            key,
            by_table: Rc::default(),
            usual_name: String::new(),
            leading: Rc::default(),
            steps: RefCell::default(),
        };
        keys.find_columns();
        Ok(keys)
    }

    /// The database.
    pub fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    /// The keys of a table, in the order of its columns; none where it has no such column.
    pub fn of(&self, table: &Table) -> &[TenantKey] {
        self.by_table.get(&table.oid).map_or(&[], |keys| keys.as_slice())
    }

    /// Columns of `table` that reference the root and are no key (`assigned_to`).
    pub fn roles<'t>(&'t self, table: &'t Table) -> Vec<&'t str> {
        let keys = self.of(table);
        self.declared_columns(table)
            .filter(|(column, _)| !keys.iter().any(|key| key.column == column.number))
            .map(|(column, _)| column.quoted.as_str())
            .collect()
    }

    /// Columns of `table` that are named like references to a table that does not exist (any more).
    pub fn dangling_names<'t>(&self, table: &'t Table) -> Vec<&'t str> {
        let keys = self.of(table);
        table
            .columns
            .iter()
            .filter(|column| !table.keys.iter().any(|key| key.columns == [column.number]))
            .filter(|column| !keys.iter().any(|key| key.column == column.number))
            .filter(|column| names::words(&column.name).len() > names::column_stem(&column.name).len())
            .filter(|column| self.catalog.comparable(column.type_oid, self.key.type_oid))
            .filter(|column| {
                self.catalog
                    .foreign_keys_of(table.oid)
                    .all(|key| !key.columns.contains(&column.number))
            })
            .filter(|column| reference::of(self.catalog, table, column).is_none())
            .map(|column| column.quoted.as_str())
            .collect()
    }

    /// The row that a value of this key means.
    pub fn reference(&self, key: &TenantKey) -> Reference {
        Reference {
            parent: self.root.oid,
            key: self.key.number,
            declared: key.foreign_key.is_some(),
        }
    }

    /// What is wrong with a column that is named like a key and cannot be one.
    pub fn wrong_type(&self, table: &Table, key: &TenantKey) -> String {
        let type_of = |column: &Column| self.catalog.type_of(column.type_oid);
        let Some(column) = table.column(key.column) else {
            return String::new();
        };
        let (Some(is), Some(wanted)) = (type_of(column), type_of(self.key)) else {
            return String::new();
        };
        // Text can be read as anything; a number is no uuid.
        let next = match is.is_string() {
            true => format!(
                "where all its values are of that type: ALTER TABLE {1} ALTER COLUMN {0} TYPE {2} USING {0}::{2}",
                column.quoted,
                self.catalog.display(table),
                wanted.display
            ),
            false => "give it another name, and the table a column that can".into(),
        };
        format!(
            "{} is {}, {}.{} is {}: it cannot hold the tenant; {next}",
            column.quoted,
            is.display,
            self.catalog.display(self.root),
            self.key.quoted,
            wanted.display
        )
    }

    /// The definition of a key column for a table that has none: called what most are called.
    pub fn new_column(&self) -> String {
        let key_type = self
            .catalog
            .type_of(self.key.type_oid)
            .map(|t| t.display.clone())
            .unwrap_or_default();
        format!(
            "{} {key_type} REFERENCES {}({})",
            self.usual_name,
            self.catalog.display(self.root),
            self.key.quoted
        )
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

    /// What was looked at where no path was found.
    pub fn why_no_path(&self, table: &Table, paths: &Paths) -> String {
        if let Some((path, why)) = paths.not_followed.first() {
            return format!("{} {}", path.source.to_path(self.catalog, table), why.as_str());
        }
        if !paths.unfit.is_empty() {
            return format!("types do not fit: {}", paths.unfit.join(", "));
        }
        let dangling = self.dangling_names(table);
        let mut why = format!(
            "no reference of {} leads to a row that has a tenant, directly or through parents",
            self.catalog.display(table)
        );
        if !dangling.is_empty() {
            why.push_str(&format!("; {} names no table that exists", dangling.join(", ")));
        }
        why
    }

    /// Columns with a foreign key to the root's key.
    fn declared_columns<'t>(&'t self, table: &'t Table) -> impl Iterator<Item = (&'t Column, &'t ForeignKey)> {
        self.catalog.foreign_keys_of(table.oid).filter_map(|key| {
            let at = key.parent_columns.iter().position(|c| *c == self.key.number)?;
            let ours =
                key.parent == self.root.oid && (key.columns.len() == 1 || self.root.is_unique(&[self.key.number]));
            Some((table.column(key.columns[at]).filter(|_| ours)?, key))
        })
    }

    fn find_columns(&mut self) {
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
        self.usual_name = name.map_or_else(|| self.name_of_root_and_key(), |(name, _)| name.to_string());
        self.by_table = Rc::new(found.into_iter().collect());
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

    /// Against the direction of the references, from the rows that carry a key.
    fn find_leading(&mut self) {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for table in self.catalog.tables.iter().filter(|t| t.is_table() && !t.of_extension) {
            for step in self.steps(table).iter() {
                children.entry(step.parent).or_default().push(table.oid);
            }
        }
        let mut next: Vec<u32> = self.by_table.keys().copied().chain([self.root.oid]).collect();
        let mut leading: HashSet<u32> = HashSet::new();
        while let Some(at) = next.pop() {
            for child in children.get(&at).into_iter().flatten() {
                if leading.insert(*child) {
                    next.push(*child);
                }
            }
        }
        self.leading = Rc::new(leading);
    }
}

/// The columns by which rows say whose they are, per table, for this root; tables that have none are left out. Kept, because it is asked
/// for every column.
pub fn columns(catalog: &Catalog, root: &Table) -> TenantColumns {
    if let Some((of, found)) = &*catalog.tenant_columns.borrow()
        && *of == root.oid
    {
        return found.clone();
    }
    let keys = TenantKeys::of_root(catalog, root)
        .map(|keys| keys.by_table)
        .unwrap_or_default();
    let comparable = |keys: &[TenantKey]| -> Vec<i16> {
        let keys = keys.iter().filter(|key| key.comparable);
        keys.map(|key| key.column).collect()
    };
    let found = keys.iter().map(|(table, keys)| (*table, comparable(keys)));
    let mut found: HashMap<u32, Vec<i16>> = found.filter(|(_, columns)| !columns.is_empty()).collect();
    // None is a key where that was declared.
    let none = catalog
        .declared_keys
        .iter()
        .filter(|(_, declared)| declared.column.is_none());
    found.extend(none.map(|(table, _)| (*table, vec![])));
    let found = Rc::new(found);
    catalog.tenant_columns.replace(Some((root.oid, found.clone())));
    found
}

/// Is `column` the tenant key of its table, and not one that references the root in another role (`assigned_to`)?
pub fn is_key(catalog: &Catalog, table: &Table, column: &Column) -> bool {
    super::root::known(catalog).is_some_and(|root| {
        let columns = columns(catalog, root);
        columns.get(&table.oid).is_some_and(|own| own.contains(&column.number))
    })
}

/// The row that the name and type of a column without a foreign key speak of: `title_id` of titles, never `title`; nor is
/// `orders.order_id` a reference of orders. A tenant key means its tenant.
pub fn meant_by_name(catalog: &Catalog, table: &Table, column: &Column) -> Option<Reference> {
    if names::words(&column.name).len() <= names::column_stem(&column.name).len() {
        return None;
    }
    let to = reference::of(catalog, table, column).or_else(|| reference_of(catalog, table, column));
    to.filter(|to| !to.declared && (to.parent, to.key) != (table.oid, column.number))
}

/// The row that the values of a column mean: by its foreign key, else as declared, else by its name. `None`: nothing says so, it is
/// declared to be no reference, or which table is meant depends on another column.
pub fn meaning(catalog: &Catalog, table: &Table, column: &Column) -> Option<Reference> {
    if let Some(found) = reference::declared(catalog, table, column) {
        return Some(found);
    }
    match catalog.declared_references.get(&(table.oid, column.number)) {
        Some(said) if said.by_type => None,
        Some(said) => {
            let (parent, key) = said.to?;
            let of = catalog
                .table(parent)
                .filter(|of| of.is_table() && of.is_unique(&[key]))?;
            // One row at most, found without a cast of somebody else's.
            let comparable = catalog.comparable(column.type_oid, of.column(key)?.type_oid);
            comparable.then_some(Reference {
                parent,
                key,
                declared: false,
            })
        }
        None => meant_by_name(catalog, table, column),
    }
}

/// The reference to the root that a tenant key without a foreign key is, in whatever schema; `None` for every other column.
pub fn reference_of(catalog: &Catalog, table: &Table, column: &Column) -> Option<Reference> {
    let root = super::root::known(catalog).filter(|_| is_key(catalog, table, column))?;
    let declared = catalog
        .foreign_keys_of(table.oid)
        .any(|key| key.columns.contains(&column.number));
    let key = root_key(catalog, root).filter(|_| !declared && !column.generated)?;
    Some(Reference {
        parent: root.oid,
        key: key.number,
        declared: false,
    })
}

/// The sources of `column` where it is a tenant key of the catalog's root; `None` where it is none.
///
/// Errors: 42703 if no path gives its value.
pub fn infer(catalog: &Catalog, table: &Table, column: &Column) -> Option<Result<Inferred, InferError>> {
    let root = super::root::known(catalog)?;
    let keys = TenantKeys::find(catalog, root).ok()?;
    let key = keys
        .of(table)
        .iter()
        .find(|key| key.column == column.number && key.comparable)?;
    let paths = keys.paths(table, Some(key));
    Some(match paths.found.is_empty() {
        true => Err(InferError::NoSource {
            table: catalog.display(table),
            column: column.name.clone(),
            looked_for: keys.why_no_path(table, &paths),
        }),
        false => Ok(Inferred {
            reference: keys.reference(key),
            sources: paths.found.into_iter().map(|path| path.source).collect(),
        }),
    })
}

/// The column of the root by which most others reference it, else its primary key.
fn root_key<'a>(catalog: &Catalog, root: &'a Table) -> Option<&'a Column> {
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

#[cfg(test)]
mod tests;
