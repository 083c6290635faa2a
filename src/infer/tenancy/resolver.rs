//! The tenant of the rows of a table, for each side of a reference: by the row's own key, else through its parents.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::catalog::Table;
use crate::infer::tenancy::keys::TenantKeys;
use crate::rule::Source;

/// Where the tenant of a table's rows is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowTenant {
    /// No tenant key and no path: the rows are shared by all tenants.
    Shared,
    /// In columns of the row. Several where it belongs to more than one (a fork and its source).
    Columns(Vec<i16>),
    /// Through parents, the best path first; the next one counts where the one before gives nothing.
    Paths(Vec<Source>),
}

/// The tenants of a database.
pub struct TenantResolver<'a> {
    keys: Option<TenantKeys<'a>>,
    /// Also by names and paths that no foreign key declares.
    inferred: bool,
    known: RefCell<HashMap<u32, Rc<RowTenant>>>,
}

impl<'a> TenantResolver<'a> {
    /// * `keys`: `None` where the database has no tenants; then everything is everybody's.
    /// * `inferred`: also those that only names and types suggest.
    pub fn new(keys: Option<TenantKeys<'a>>, inferred: bool) -> Self {
        TenantResolver {
            keys,
            inferred,
            known: RefCell::default(),
        }
    }

    /// The table that holds the tenants.
    pub fn root(&self) -> Option<&'a Table> {
        self.keys.as_ref().map(|keys| keys.root)
    }

    /// A table as displayed; empty without tenants.
    pub fn shown(&self, table: &Table) -> String {
        self.keys
            .as_ref()
            .map(|keys| keys.catalog().display(table))
            .unwrap_or_default()
    }

    /// The tenant keys behind it.
    pub fn keys(&self) -> Option<&TenantKeys<'a>> {
        self.keys.as_ref()
    }

    /// Where the tenant of the rows of `table` is found.
    pub fn of(&self, table: &Table) -> Rc<RowTenant> {
        if let Some(known) = self.known.borrow().get(&table.oid) {
            return known.clone();
        }
        let row_tenant = Rc::new(self.find(table));
        self.known.borrow_mut().insert(table.oid, row_tenant.clone());
        row_tenant
    }

    fn find(&self, table: &Table) -> RowTenant {
        let Some(keys) = &self.keys else {
            return RowTenant::Shared;
        };
        if table.oid == keys.root.oid {
            return RowTenant::Columns(vec![keys.key.number]);
        }
        let own: Vec<i16> = keys
            .of(table)
            .iter()
            .filter(|key| key.comparable && (self.inferred || key.foreign_key.is_some()))
            .map(|key| key.column)
            .collect();
        if !own.is_empty() {
            // Of a key with a foreign key and one that is only named so, the first; of several that nothing tells apart, all.
            let several = keys.of(table).iter().any(|key| key.one_of_several);
            return RowTenant::Columns(if several { own } else { own[..1].to_vec() });
        }
        let through = keys.row_paths(table, self.inferred);
        match through.is_empty() {
            true => RowTenant::Shared,
            false => RowTenant::Paths(through),
        }
    }
}
