//! What the values of a column mean, by its foreign key, a declaration or its name.

use super::TenantKeys;
use crate::catalog::{Catalog, Column, Table};
use crate::infer::InferError;
use crate::infer::reference::{self, Reference};
use crate::infer::sources::Inferred;
use crate::infer::tenancy::root;
use crate::names;

/// Is `column` the tenant key of its table, and not one that references the root in another role (`assigned_to`)?
pub fn is_key(catalog: &Catalog, table: &Table, column: &Column) -> bool {
    let keys = root::known(catalog).and_then(|root| TenantKeys::of_root(catalog, root));
    keys.is_some_and(|keys| keys.is_key(table, column.number))
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

/// A row of the same tenant, of a table whose key is (tenant, id).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceWithinTenant {
    /// The parent table.
    pub parent: u32,
    /// The referencing row's tenant key.
    pub own_tenant: i16,
    /// That of the parent.
    pub tenant: i16,
    /// The other column of the parent's primary key.
    pub key: i16,
}

/// As [`meant_by_name`], where the primary key of the table after which the column is named is its tenant key and one more column: the
/// column is a reference together with its own row's tenant key. `Err`: the parent, where the row has no tenant key to look for.
pub fn meant_within_tenant(
    catalog: &Catalog,
    table: &Table,
    column: &Column,
) -> Option<Result<ReferenceWithinTenant, u32>> {
    let declared = catalog
        .foreign_keys_of(table.oid)
        .any(|key| key.columns.contains(&column.number));
    if declared || column.generated || names::words(&column.name).len() <= names::column_stem(&column.name).len() {
        return None;
    }
    let keys = TenantKeys::of_root(catalog, root::known(catalog)?)?;
    let tenant_of = |table: &Table| Some(keys.of(table).iter().find(|key| key.comparable)?.column);
    let base = |type_oid: u32| Some(catalog.base_type(type_oid, -1)?.0.oid);
    let (parent, tenant, key) = reference::named(catalog, table, column, |parent| {
        let tenant = tenant_of(parent)?;
        let [first, second] = parent.primary_key()?.columns[..] else {
            return None;
        };
        let key = match tenant {
            tenant if tenant == first => second,
            tenant if tenant == second => first,
            _ => return None,
        };
        let itself = (parent.oid, key) == (table.oid, column.number);
        let same = base(column.type_oid)? == base(parent.column(key)?.type_oid)?;
        (same && !itself).then_some((parent.oid, tenant, key))
    })?;
    let of_parent = catalog.table(parent)?.column(tenant)?;
    let comparable = |own: &i16| {
        let own = table.column(*own);
        own.is_some_and(|own| catalog.comparable(own.type_oid, of_parent.type_oid))
    };
    match tenant_of(table) {
        Some(own) if own == column.number => None,
        own => Some(match own.filter(comparable) {
            Some(own_tenant) => Ok(ReferenceWithinTenant {
                parent,
                own_tenant,
                tenant,
                key,
            }),
            None => Err(parent),
        }),
    }
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
fn reference_of(catalog: &Catalog, table: &Table, column: &Column) -> Option<Reference> {
    let keys = TenantKeys::of_root(catalog, root::known(catalog)?)?;
    let own = keys
        .of(table)
        .iter()
        .find(|key| key.comparable && key.column == column.number)?;
    let declared = catalog
        .foreign_keys_of(table.oid)
        .any(|key| key.columns.contains(&column.number));
    (!declared && !column.generated).then(|| keys.reference(own))
}

/// The sources of `column` where it is a tenant key of the catalog's root; `None` where it is none.
///
/// Errors: 42703 if no path gives its value.
pub fn infer(catalog: &Catalog, table: &Table, column: &Column) -> Option<Result<Inferred, InferError>> {
    let keys = TenantKeys::of_root(catalog, root::known(catalog)?)?;
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
            reference: Some(keys.reference(key)),
            sources: paths.found.into_iter().map(|path| path.source).collect(),
        }),
    })
}
