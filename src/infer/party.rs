//! The party model: every column that references Party, and in which order they are filled.
//!
//! A table that others take their party from (Contact, Organization, User) comes before those others. Its own party
//! column is special: `Contact.organizationId` says where a contact works, not who the contact is, so it is no source
//! for `Contact.partyId`; `User.contactId` says which contact the user is, so it is one. What tells them apart: both
//! tables are kinds of Party (labels of an enum column of Party are named after them), or other tables use them as
//! alternatives to each other (`contactId` *or* `organizationId`).

use std::collections::{HashMap, HashSet};

use super::InferError;
use super::reference::{self, Reference};
use super::sources;
use super::tenancy::keys;
use crate::catalog::{Catalog, Column, Table};
use crate::names::{prefix_before, stem, words};
use crate::rule::Source;

/// One column that references Party.
#[derive(Debug, Clone)]
pub struct PartyColumn {
    /// The table that has it.
    pub table: u32,
    /// Its number.
    pub column: i16,
    /// What it refers to.
    pub reference: Reference,
    /// Its sources, or why there are none.
    pub sources: Result<Vec<Source>, InferError>,
    /// It says who the row itself is (Contact.partyId): a row without a party can be given a new one. Not so where it says
    /// whose the row is (Invoice.clientPartyId).
    pub is_party: bool,
}

/// Every column that references `party`, in the order in which they must be filled.
///
/// Errors: a circle of tables that take their party from each other.
pub fn columns(catalog: &Catalog, party: &Table) -> Result<Vec<PartyColumn>, InferError> {
    let mut columns = in_order(catalog, find(catalog, party, false))?;
    let kinds = kinds(catalog, party);
    let read: HashSet<(u32, i16)> = columns
        .iter()
        .flat_map(|c| c.sources.iter().flatten().filter_map(|s| s.value(c.table)))
        .collect();
    for column in &mut columns {
        let own = catalog
            .table(column.table)
            .and_then(|table| sources::own_reference(catalog, table, &column.reference, None));
        column.is_party = own == Some(column.column)
            && (kinds.contains(&column.table) || read.contains(&(column.table, column.column)));
    }
    Ok(columns)
}

/// The sources of one column, for a call that names it: the same answer that a run over all columns of its parent would
/// give.
///
/// Errors: 42703 if there is none, 42702 with the choices if several answers are equally good.
pub fn infer(catalog: &Catalog, table: &Table, column: &Column) -> Result<sources::Inferred, InferError> {
    if let Some(as_tenant_key) = keys::infer(catalog, table, column) {
        return as_tenant_key;
    }
    let inferred = sources::infer(catalog, table, column)?;
    let Some(party) = inferred.reference.as_ref().and_then(|to| catalog.table(to.parent)) else {
        return Ok(inferred);
    };
    let same = find(catalog, party, true)
        .into_iter()
        .find(|c| c.table == table.oid && c.column == column.number);
    match same {
        Some(found) => Ok(sources::Inferred {
            sources: found.sources?,
            reference: Some(found.reference),
        }),
        None => Ok(inferred),
    }
}

/// Every column that references `party`. With `any_parent`, nobody said that it is a table of parties: it may as well be
/// the table of tenants, where one parent's key is a source for another's. Then tables count as kinds of it only if they
/// hold their key one to one.
fn find(catalog: &Catalog, party: &Table, any_parent: bool) -> Vec<PartyColumn> {
    let mut found = Vec::new();
    for table in catalog
        .tables
        .iter()
        .filter(|t| t.is_table() && !t.is_partition && !t.of_extension)
    {
        if table.oid == party.oid {
            continue;
        }
        for column in &table.columns {
            if let Some(reference) = refers_to(catalog, table, column, party) {
                let sources = sources::infer_for(catalog, table, column, &reference);
                found.push(PartyColumn {
                    table: table.oid,
                    column: column.number,
                    reference,
                    sources,
                    is_party: false,
                });
            }
        }
    }
    drop_relations_between_kinds(catalog, party, &mut found, any_parent);
    found
}

/// By foreign key, else by name (`clientPartyId`) and type.
fn refers_to(catalog: &Catalog, table: &Table, column: &Column, party: &Table) -> Option<Reference> {
    match reference::declared(catalog, table, column) {
        Some(reference) => (reference.parent == party.oid).then_some(reference),
        None => {
            let undeclared = !catalog
                .foreign_keys_of(table.oid)
                .any(|key| key.columns.contains(&column.number));
            let named = prefix_before(&column.name, &party.name).is_some();
            let whole = table.primary_key().is_some_and(|key| key.columns == [column.number]);
            if undeclared && named && !whole {
                reference::by_name(catalog, column, party)
            } else {
                None
            }
        }
    }
}

/// Removes sources that lead from one kind of party to another.
fn drop_relations_between_kinds(catalog: &Catalog, party: &Table, columns: &mut [PartyColumn], any_parent: bool) {
    let kinds = kinds(catalog, party);
    // How often a table serves as a source, and how often two serve the same column.
    let mut uses: HashMap<u32, usize> = HashMap::new();
    let mut together: HashMap<(u32, u32), usize> = HashMap::new();
    for column in columns.iter() {
        let parents: HashSet<u32> = column
            .sources
            .iter()
            .flatten()
            .filter_map(|s| s.hops.first())
            .map(|hop| hop.parent)
            .collect();
        for &a in &parents {
            *uses.entry(a).or_default() += 1;
            for &b in parents.iter().filter(|&&b| b != a) {
                *together.entry((a, b)).or_default() += 1;
            }
        }
    }
    for column in columns.iter_mut() {
        let Some(table) = catalog.table(column.table) else {
            continue;
        };
        let own = sources::own_reference(catalog, table, &column.reference, None) == Some(column.column);
        if !own || !(uses.contains_key(&table.oid) || kinds.contains(&table.oid)) {
            continue;
        }
        let Ok(sources) = &mut column.sources else { continue };
        let before = sources.clone();
        sources.retain(|source| {
            let Some(parent) = source.hops.first().map(|hop| hop.parent) else {
                return true;
            };
            if kinds.contains(&table.oid) && kinds.contains(&parent) {
                return false;
            }
            let own = source.value(table.oid);
            let one_to_one = table.is_unique(&[column.column])
                && own.is_some_and(|(owner, key)| catalog.table(owner).is_some_and(|parent| parent.is_unique(&[key])));
            if any_parent && !one_to_one {
                return true;
            }
            let both = together.get(&(table.oid, parent)).copied().unwrap_or(0);
            let either = uses
                .get(&table.oid)
                .copied()
                .unwrap_or(0)
                .max(uses.get(&parent).copied().unwrap_or(0));
            table.is_unique(&source.columns()) || both * 2 < either.max(1)
        });
        if sources.is_empty() {
            let dropped: Vec<String> = before.iter().map(|s| s.to_path(catalog, table).to_string()).collect();
            column.sources = Err(InferError::NoSource {
                table: catalog.display(table),
                column: table.column(column.column).map(|c| c.name.clone()).unwrap_or_default(),
                looked_for: format!(
                    "{} relates one kind of party to another, it does not say whose party the row itself is",
                    dropped.join(", ")
                ),
            });
        }
    }
}

/// Tables named like a label of an enum column of `party` (CONTACT, ORGANIZATION).
fn kinds(catalog: &Catalog, party: &Table) -> HashSet<u32> {
    let labels: Vec<Vec<String>> = party
        .columns
        .iter()
        .filter_map(|column| catalog.base_type(column.type_oid, -1))
        .flat_map(|(column_type, _)| column_type.labels.iter().map(|label| words(&label.to_lowercase())))
        .collect();
    catalog
        .tables
        .iter()
        .filter(|t| labels.contains(&stem(&t.name)))
        .map(|t| t.oid)
        .collect()
}

/// Parents' own party columns before those that are taken from them; otherwise by schema and name.
fn in_order(catalog: &Catalog, columns: Vec<PartyColumn>) -> Result<Vec<PartyColumn>, InferError> {
    let targets: HashSet<(u32, i16)> = columns.iter().map(|c| (c.table, c.column)).collect();
    let mut pending = columns;
    // Tables that others take their party from go first among equals: users read the result from the top.
    let feeding: HashSet<(u32, i16)> = pending
        .iter()
        .flat_map(|c| c.sources.iter().flatten())
        .filter_map(|s| s.value(0))
        .collect();
    pending.sort_by_key(|c| !feeding.contains(&(c.table, c.column)));
    let mut done: HashSet<(u32, i16)> = HashSet::new();
    let mut ordered = Vec::new();
    while !pending.is_empty() {
        let ready = pending.iter().position(|c| {
            c.sources
                .iter()
                .flatten()
                .filter_map(|s| s.value(c.table))
                .all(|value| !targets.contains(&value) || done.contains(&value) || value == (c.table, c.column))
        });
        match ready {
            Some(at) => {
                let next = pending.remove(at);
                done.insert((next.table, next.column));
                ordered.push(next);
            }
            None => {
                let tables = pending
                    .iter()
                    .filter_map(|c| catalog.table(c.table))
                    .map(|t| catalog.display(t))
                    .collect();
                return Err(InferError::Cycle { tables });
            }
        }
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::Builder;

    fn model() -> Builder {
        Builder::new()
            .table("Party", &["id"])
            .table("AnimalOwner", &["id", "partyId?", "contactId?", "organizationId?"])
            .table("Contact", &["id", "partyId?", "organizationId?"])
            .table(
                "ContractParty",
                &["id", "partyId?", "userId?", "contactId?", "organizationId?"],
            )
            .table("Organization", &["id", "partyId?"])
            .table("User", &["id", "partyId?", "contactId?"])
            .table(
                "WaitlistEntry",
                &["id", "clientPartyId?", "contactId?", "organizationId?"],
            )
            .references("AnimalOwner", "partyId", "Party")
            .references("AnimalOwner", "contactId", "Contact")
            .references("AnimalOwner", "organizationId", "Organization")
            .references("Contact", "partyId", "Party")
            .references("Contact", "organizationId", "Organization")
            .references("ContractParty", "partyId", "Party")
            .references("ContractParty", "userId", "User")
            .references("ContractParty", "contactId", "Contact")
            .references("ContractParty", "organizationId", "Organization")
            .references("Organization", "partyId", "Party")
            .references("User", "partyId", "Party")
            .references("User", "contactId", "Contact")
            .references("WaitlistEntry", "contactId", "Contact")
            .references("WaitlistEntry", "organizationId", "Organization")
    }

    #[test]
    fn parents_first_and_no_relation_between_kinds_of_party() {
        let catalog = model().build();
        let found = columns(&catalog, catalog.resolve_table("Party").unwrap()).unwrap();
        let described: Vec<String> = found
            .iter()
            .map(|c| {
                let table = catalog.table(c.table).unwrap();
                let sources = match &c.sources {
                    Ok(s) => s
                        .iter()
                        .map(|s| s.to_path(&catalog, table).to_string())
                        .collect::<Vec<_>>()
                        .join(", "),
                    Err(_) => "-".into(),
                };
                format!("{}.{}: {sources}", table.name, table.column(c.column).unwrap().name)
            })
            .collect();
        assert_eq!(
            described,
            [
                "Contact.partyId: -",
                "Organization.partyId: -",
                "User.partyId: contactId -> Contact.partyId",
                "AnimalOwner.partyId: contactId -> Contact.partyId, organizationId -> Organization.partyId",
                "ContractParty.partyId: userId -> User.partyId, contactId -> Contact.partyId, \
                 organizationId -> Organization.partyId",
                "WaitlistEntry.clientPartyId: contactId -> Contact.partyId, organizationId -> Organization.partyId",
            ]
        );
    }
}
