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
mod find;
mod meaning;
mod order;
mod paths;

use std::rc::Rc;

pub use meaning::{infer, is_key, meaning, meant_by_name, meant_within_tenant};
pub use order::{KeyPaths, in_order};
pub use paths::{MOST_PATHS, NotFollowed, Paths, TenantSource};

use find::{Found, Search};

use crate::catalog::{Catalog, Column, State, Table};
use crate::infer::InferError;
use crate::infer::reference::{self, Reference};
use crate::names;

/// The tenant keys of a database.
pub struct TenantKeys<'a> {
    catalog: &'a Catalog,
    /// The table that holds the tenants.
    pub root: &'a Table,
    /// Its key, as the others reference it.
    pub key: &'a Column,
    found: Rc<Found>,
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
    /// The keys of all tables, looked for once per call.
    ///
    /// Errors: 42830 if the root has no key of one column, 42703 if no column references it.
    pub fn find(catalog: &'a Catalog, root: &'a Table) -> Result<Self, InferError> {
        let keys = TenantKeys::of_root(catalog, root).ok_or_else(|| InferError::RootWithoutKey {
            root: catalog.display(root),
        })?;
        if keys.found.by_table.is_empty() {
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
        Ok(keys)
    }

    /// The keys of all tables, also where there are none; `None` if the root has no key of one column.
    pub fn of_root(catalog: &'a Catalog, root: &'a Table) -> Option<Self> {
        let found = Found::of(catalog, root);
        Some(TenantKeys {
            catalog,
            root,
            key: root.column(found.key?)?,
            found,
        })
    }

    /// The database.
    pub fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    fn search(&self) -> Search<'a> {
        Search {
            catalog: self.catalog,
            root: self.root,
            key: self.key,
        }
    }

    /// The keys of a table, in the order of its columns; none where it has no such column.
    pub fn of(&self, table: &Table) -> &[TenantKey] {
        self.found.by_table.get(&table.oid).map_or(&[], |keys| keys.as_slice())
    }

    /// `column` of `table` says whose a row is, whatever its name or foreign key say.
    pub fn is_key(&self, table: &Table, column: i16) -> bool {
        self.of(table).iter().any(|key| key.comparable && key.column == column)
    }

    /// `column` of `table` references `parent`, the root, in another role (`assigned_to`): the table has its key elsewhere, or was declared
    /// to have none.
    pub fn is_role(&self, table: &Table, column: i16, parent: u32) -> bool {
        let declared = self.catalog.declared_keys.get(&table.oid);
        let none = declared.is_some_and(|declared| declared.column.is_none());
        let settled = none || self.of(table).iter().any(|key| key.comparable);
        parent == self.root.oid && settled && !self.is_key(table, column)
    }

    /// Columns of `table` that reference the root and are no key (`assigned_to`).
    pub fn roles<'t>(&'t self, table: &'t Table) -> Vec<&'t str> {
        let keys = self.of(table);
        self.search()
            .declared_columns(table)
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
            self.found.usual_name,
            self.catalog.display(self.root),
            self.key.quoted
        )
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
}

#[cfg(test)]
mod tests;
