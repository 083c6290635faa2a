//! Where the value of a column can come from: sibling columns whose referenced row has a value of the same kind.
//!
//! The column to fill refers to some table R (Party, organizations). A sibling column that refers to a table P is a
//! source if P has *its own* R: a column named after R without a role in front (`Contact.partyId`, not
//! `Animal.buyerPartyId`), or its only reference to R where that is unique in P, or has the name of the column to fill. Of the siblings, those whose role is
//! that of the column come first (`buyerPartyId` from `buyerContactId`); only where there are none, those without a role
//! (`clientPartyId` from `contactId`).
//!
//! Before all of these, a column that is named after a sibling and a key of its parent is the copy of that key: `invoice_account_id` beside
//! `invoice_id` is `invoices.account_id`.
//!
//! A tenant key is everybody's: there, every path along references says it (see `keys`). For any other column they say
//! something else: who typed the invoice is not its client.

use super::InferError;
use super::reference::{self, Reference};
use crate::catalog::{Catalog, Column, Table};
use crate::names::{self, column_stem, prefix_before};
use crate::rule::{Hop, Source};

/// What was inferred for one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred {
    /// In order of precedence.
    pub sources: Vec<Source>,
    /// The row that the value means, where that is known.
    pub reference: Option<Reference>,
}

/// Infers the sources of `column`.
///
/// Errors: 42703 if there is none, 42702 with the choices if several answers are equally good.
pub fn infer(catalog: &Catalog, table: &Table, column: &Column) -> Result<Inferred, InferError> {
    let Some(reference) = reference::of(catalog, table, column) else {
        if let Some((source, reference)) = copied(catalog, table, column) {
            return Ok(Inferred {
                sources: vec![source],
                reference,
            });
        }
        return Err(InferError::NoSource {
            table: catalog.display(table),
            column: column.name.clone(),
            looked_for: format!(
                "{} has no foreign key, and no table is named after it: what its values mean is unknown",
                column.name
            ),
        });
    };
    let sources = infer_for(catalog, table, column, &reference)?;
    Ok(Inferred {
        sources,
        reference: Some(reference),
    })
}

/// As [`infer`], where it is known what the column refers to.
pub fn infer_for(
    catalog: &Catalog,
    table: &Table,
    column: &Column,
    reference: &Reference,
) -> Result<Vec<Source>, InferError> {
    let same = |to: &Reference| (to.parent, to.key) == (reference.parent, reference.key);
    if let Some((source, to)) = copied(catalog, table, column)
        && to.as_ref().is_none_or(same)
    {
        return Ok(vec![source]);
    }
    let siblings = match reference.parent == table.oid {
        // A parent of the same kind: nothing else in the row says which.
        true => vec![],
        false => siblings(catalog, table, column, reference),
    };
    if let Some(chosen) = by_role(catalog, table, column, reference, siblings)? {
        return Ok(chosen);
    }
    Err(InferError::NoSource {
        table: catalog.display(table),
        column: column.name.clone(),
        looked_for: match catalog.table(reference.parent) {
            Some(parent) => format!(
                "no other column of {} leads to a row that has its own reference to {}",
                catalog.display(table),
                catalog.display(parent)
            ),
            None => "the referenced table is not visible".into(),
        },
    })
}

/// The key that a column keeps a copy of, and what that key means: `invoice_account_id` beside `invoice_id` is the `account_id` of the
/// invoice. `None` where no name says so, or two do.
fn copied(catalog: &Catalog, table: &Table, column: &Column) -> Option<(Source, Option<Reference>)> {
    let words = names::words(&column.name);
    let base = |type_oid: u32| Some(catalog.base_type(type_oid, -1)?.0.oid);
    let own = base(column.type_oid)?;
    let mut found: Vec<(usize, Source, Option<Reference>)> = Vec::new();
    for sibling in table.columns.iter().filter(|c| c.number != column.number) {
        let stem = column_stem(&sibling.name);
        let Some(rest) = words.strip_prefix(stem.as_slice()).filter(|rest| rest.len() > 1) else {
            continue;
        };
        let Some((to, parent)) =
            reference::of(catalog, table, sibling).and_then(|to| Some((to.clone(), catalog.table(to.parent)?)))
        else {
            continue;
        };
        // A key: with an ending that says so, and not the one by which the parent is found.
        let is_key = |c: &&Column| {
            names::words(&c.name) == rest && column_stem(&c.name).len() < rest.len() && c.number != to.key
        };
        let mut keys = parent
            .columns
            .iter()
            .filter(is_key)
            .filter(|c| base(c.type_oid) == Some(own));
        if let (Some(key), None) = (keys.next(), keys.next()) {
            let hop = Hop {
                parent: parent.oid,
                key: vec![to.key],
                columns: vec![key.number],
            };
            let source = Source::of_columns(&[sibling.number], vec![hop]);
            found.push((stem.len(), source, reference::of(catalog, parent, key)));
        }
    }
    // `sales_order_account_id` beside `sales_order_id` and `sales_id`: the longer name says more.
    let longest = found.iter().map(|(length, ..)| *length).max()?;
    found.retain(|(length, ..)| *length == longest);
    match found.len() {
        1 => found.pop().map(|(_, source, reference)| (source, reference)),
        _ => None,
    }
}

/// A sibling column that leads to a value.
struct Sibling {
    /// The words before the referenced table's name; `None` if it is not named after that table.
    role: Option<Vec<String>>,
    source: Source,
}

fn siblings(catalog: &Catalog, table: &Table, column: &Column, wanted: &Reference) -> Vec<Sibling> {
    let mut found = Vec::new();
    for sibling in table.columns.iter().filter(|c| c.number != column.number) {
        let Some(to) = reference::of(catalog, table, sibling) else {
            continue;
        };
        // Who invited a user, or a parent in a tree, is another row of the same kind: not inferred.
        if to.parent == wanted.parent || to.parent == table.oid {
            continue;
        }
        let Some(parent) = catalog.table(to.parent) else {
            continue;
        };
        let Some(own) = own_reference(catalog, parent, wanted, Some(&column.name)) else {
            continue;
        };
        found.push(Sibling {
            role: prefix_before(&sibling.name, &parent.name),
            source: Source::of_columns(
                &[sibling.number],
                vec![Hop {
                    parent: parent.oid,
                    key: vec![to.key],
                    columns: vec![own],
                }],
            ),
        });
    }
    found
}

/// The column in which a row of `parent` keeps its own `wanted` (Contact.partyId), as opposed to one in some role
/// (Animal.buyerPartyId).
///
/// `same_name`: a column of that name counts as its own too (`organization_id` on both sides, whatever the table is
/// called).
pub fn own_reference(catalog: &Catalog, parent: &Table, wanted: &Reference, same_name: Option<&str>) -> Option<i16> {
    let wanted_table = catalog.table(wanted.parent)?;
    if parent.oid == wanted.parent {
        return None;
    }
    let referring: Vec<&Column> = parent
        .columns
        .iter()
        .filter(|c| reference::of(catalog, parent, c).is_some_and(|r| r.parent == wanted.parent && r.key == wanted.key))
        .collect();
    let without_role = referring
        .iter()
        .find(|c| prefix_before(&c.name, &wanted_table.name).is_some_and(|role| role.is_empty()));
    match (without_role, referring.as_slice()) {
        (Some(own), _) => Some(own.number),
        (None, [only]) if parent.is_unique(&[only.number]) => Some(only.number),
        // org_id -> profiles on both sides: what the row itself has. A role on both sides is not (buyerPartyId).
        (None, several) => several
            .iter()
            .find(|c| same_name == Some(c.name.as_str()) && prefix_before(&c.name, &wanted_table.name).is_none())
            .map(|c| c.number),
    }
}

/// Chooses among siblings by role; `None` where no sibling fits.
fn by_role(
    catalog: &Catalog,
    table: &Table,
    column: &Column,
    wanted: &Reference,
    siblings: Vec<Sibling>,
) -> Result<Option<Vec<Source>>, InferError> {
    let Some(wanted_table) = catalog.table(wanted.parent) else {
        return Ok(None);
    };
    let role = prefix_before(&column.name, &wanted_table.name).unwrap_or_default();
    let of_role = |role: &[String]| -> Vec<Source> {
        siblings
            .iter()
            .filter(|s| s.role.as_deref() == Some(role))
            .map(|s| s.source.clone())
            .collect()
    };
    let same = of_role(&role);
    if !same.is_empty() {
        return Ok(Some(same));
    }
    let plain = of_role(&[]);
    if !role.is_empty() && !plain.is_empty() {
        // Siblings without a role belong to a column without a role, if there is one; if several columns with roles
        // could claim them, nobody can say whose they are.
        let others: Vec<&Column> = table
            .columns
            .iter()
            .filter(|c| c.number != column.number)
            .filter(|c| reference::of(catalog, table, c).is_some_and(|r| r.parent == wanted.parent))
            .filter(|c| {
                let other = prefix_before(&c.name, &wanted_table.name).unwrap_or_default();
                other.is_empty() || of_role(&other).is_empty()
            })
            .collect();
        if others.is_empty() {
            return Ok(Some(plain));
        }
        return Err(InferError::AmbiguousSources {
            table: catalog.display(table),
            column: column.name.clone(),
            choices: plain
                .iter()
                .map(|s| vec![s.to_path(catalog, table).to_string()])
                .collect(),
        });
    }
    if !plain.is_empty() {
        return Ok(Some(plain));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::Builder;

    fn party() -> Builder {
        Builder::new()
            .table("Party", &["id"])
            .table("Contact", &["id", "partyId?"])
            .table("Organization", &["id", "partyId?"])
            .table("User", &["id", "partyId?", "contactId?"])
            .references("Contact", "partyId", "Party")
            .references("Organization", "partyId", "Party")
            .references("User", "partyId", "Party")
            .references("User", "contactId", "Contact")
    }

    fn inferred(catalog: &Catalog, table: &str, column: &str) -> Result<Vec<String>, InferError> {
        let table = catalog.resolve_table(table).unwrap();
        let column = catalog.resolve_column(table, column).unwrap();
        infer(catalog, table, column).map(|found| {
            found
                .sources
                .iter()
                .map(|s| s.to_path(catalog, table).to_string())
                .collect()
        })
    }

    #[test]
    fn a_key_of_the_parent_is_copied_by_name() {
        let catalog = Builder::new()
            .table("accounts", &["id"])
            .table("invoices", &["id", "account_id?", "region_id?", "number?"])
            .table(
                "lines",
                &[
                    "id",
                    "invoice_id?",
                    "account_id?",
                    "invoice_account_id?",
                    "invoice_region_id?",
                    "invoice_number?",
                ],
            )
            .table("Line", &["id", "invoiceId?", "invoiceAccountId?"])
            .references("invoices", "account_id", "accounts")
            .references("lines", "invoice_id", "invoices")
            .references("Line", "invoiceId", "invoices");
        let catalog = catalog.build();
        for (table, column, source) in [
            ("lines", "invoice_account_id", "invoice_id -> invoices.account_id"),
            ("lines", "invoice_region_id", "invoice_id -> invoices.region_id"),
            ("Line", "invoiceAccountId", "invoiceId -> invoices.account_id"),
        ] {
            assert_eq!(inferred(&catalog, table, column).unwrap(), [source]);
        }
        // A number is no key: nothing says that it is kept as a copy.
        assert!(inferred(&catalog, "lines", "invoice_number").is_err());
    }

    #[test]
    fn the_same_role_first_then_no_role() {
        let catalog = party()
            .table(
                "Offspring",
                &[
                    "id",
                    "buyerPartyId?",
                    "buyerContactId?",
                    "buyerOrganizationId?",
                    "contactId?",
                ],
            )
            .references("Offspring", "buyerPartyId", "Party")
            .references("Offspring", "buyerContactId", "Contact")
            .references("Offspring", "buyerOrganizationId", "Organization")
            .references("Offspring", "contactId", "Contact")
            .table(
                "WaitlistEntry",
                &["id", "clientPartyId?", "contactId?", "organizationId?"],
            )
            .references("WaitlistEntry", "clientPartyId", "Party")
            .references("WaitlistEntry", "contactId", "Contact")
            .references("WaitlistEntry", "organizationId", "Organization")
            .build();
        assert_eq!(
            inferred(&catalog, "Offspring", "buyerPartyId").unwrap(),
            [
                "buyerContactId -> Contact.partyId",
                "buyerOrganizationId -> Organization.partyId"
            ]
        );
        assert_eq!(
            inferred(&catalog, "WaitlistEntry", "clientPartyId").unwrap(),
            ["contactId -> Contact.partyId", "organizationId -> Organization.partyId"]
        );
        assert_eq!(
            inferred(&catalog, "User", "partyId").unwrap(),
            ["contactId -> Contact.partyId"]
        );
    }

    #[test]
    fn a_parent_that_has_a_party_in_some_role_is_no_source() {
        let catalog = party()
            .table("Animal", &["id", "buyerPartyId?", "buyerContactId?"])
            .references("Animal", "buyerPartyId", "Party")
            .references("Animal", "buyerContactId", "Contact")
            .table("AnimalOwner", &["id", "partyId?", "animalId", "contactId?"])
            .references("AnimalOwner", "partyId", "Party")
            .references("AnimalOwner", "animalId", "Animal")
            .references("AnimalOwner", "contactId", "Contact")
            .build();
        assert_eq!(
            inferred(&catalog, "AnimalOwner", "partyId").unwrap(),
            ["contactId -> Contact.partyId"]
        );
    }

    #[test]
    fn two_columns_that_could_claim_the_same_sibling_are_ambiguous() {
        let catalog = party()
            .table("Deal", &["id", "sellerPartyId?", "buyerPartyId?", "contactId?"])
            .references("Deal", "sellerPartyId", "Party")
            .references("Deal", "buyerPartyId", "Party")
            .references("Deal", "contactId", "Contact")
            .build();
        assert!(matches!(
            inferred(&catalog, "Deal", "buyerPartyId"),
            Err(InferError::AmbiguousSources { .. })
        ));
    }

    #[test]
    fn legacy_columns_without_foreign_keys_are_found_by_name_and_type() {
        let catalog = party()
            .table("Invoice", &["id", "clientPartyId?", "contactId?", "note:text?"])
            .references("Invoice", "clientPartyId", "Party")
            .table("Loose", &["id", "partyId?", "contactId:text?"])
            .build();
        assert_eq!(
            inferred(&catalog, "Invoice", "clientPartyId").unwrap(),
            ["contactId -> Contact.partyId"]
        );
        assert!(matches!(
            inferred(&catalog, "Loose", "partyId"),
            Err(InferError::NoSource { .. })
        ));
    }
}
