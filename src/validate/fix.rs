//! The next call for what was found.

use super::checked::{Checked, Verdict};
use super::reference::KeyReference;
use crate::catalog::{Catalog, State, Table};
use crate::identifier::{Identifier, Literal};
use crate::infer::tenancy::resolver::{RowTenant, TenantResolver};
use crate::names;

/// What to do about it; of what was not checked, why. `rows`: all rows of the table.
pub fn next(
    catalog: &Catalog,
    resolver: &TenantResolver,
    reference: &KeyReference,
    checked: &Checked,
    rows: i64,
) -> Option<String> {
    let table = Literal::new(&checked.table).to_string();
    let columns = Literal::new(&checked.columns).to_string();
    let many = |number: Option<i64>| number.is_some_and(|number| number > 0);
    if checked.verdict == Verdict::NotChecked {
        return Some(match rows {
            0 => format!("nothing to check: {} has no rows", checked.table),
            _ => format!(
                "nothing to check: none of the {rows} rows of {} has a value there",
                checked.table
            ),
        });
    }
    if many(checked.orphans) {
        // What can be nullified loses least; what cannot needs its parent.
        let nullable = |c: &i16| reference.table.column(*c).is_some_and(|c| !c.never_null);
        let action = match reference.columns.iter().any(nullable) {
            true => "quarantine",
            false => "create_parent",
        };
        return Some(format!("SELECT * FROM repair_orphans({table}, {columns}, '{action}')"));
    }
    if many(checked.null_tenant) {
        return Some(fill(catalog, resolver, reference.table));
    }
    if many(checked.parent_null_tenant) {
        return Some(fill(catalog, resolver, reference.parent));
    }
    if many(checked.cross_tenant) {
        // Where the row got its tenant along this very reference, the tenant is as likely to be wrong.
        if let Some(key) = filled_along(resolver, reference) {
            return Some(format!(
                "SELECT * FROM backfill({table}, {}, overwrite => 'mismatched')",
                Literal::new(key)
            ));
        }
        return Some(format!(
            "SELECT * FROM repair_orphans({table}, {columns}, 'quarantine', violation => 'cross_tenant')"
        ));
    }
    match (reference.state, reference.constraint) {
        (State::NotValid, Some(_)) if reference.columns.len() == 1 && !reference.table.is_partition => {
            Some(lock_in(resolver, &table, &columns))
        }
        (State::NotValid, Some(name)) => Some(format!(
            "ALTER TABLE {} VALIDATE CONSTRAINT {}",
            checked.table,
            Identifier::new(name)
        )),
        (State::NotEnforced, Some(name)) => Some(format!(
            "ALTER TABLE {} ALTER CONSTRAINT {} ENFORCED",
            checked.table,
            Identifier::new(name)
        )),
        (State::Missing, _)
            if reference.discriminator.is_none()
                && reference.unique
                && reference.table.is_table()
                && reference.parent.is_table() =>
        {
            Some(match reference.columns.len() {
                1 => lock_in(resolver, &table, &columns),
                _ => foreign_key(reference, checked),
            })
        }
        _ => None,
    }
}

/// The foreign key that would keep it so, step by step with short locks.
fn lock_in(resolver: &TenantResolver, table: &str, column: &str) -> String {
    let root = resolver.root().map(|root| resolver.shown(root)).unwrap_or_default();
    format!(
        "CALL finalize_backfill({table}, {column}, not_null => false, root => {})",
        Literal::new(&root)
    )
}

/// The foreign key that would keep it so. NOT VALID first: it reads no row while writers wait.
fn foreign_key(reference: &KeyReference, checked: &Checked) -> String {
    let quoted = |names: Vec<&str>| -> String {
        let names: Vec<String> = names.iter().map(|n| Identifier::new(n).to_string()).collect();
        names.join(", ")
    };
    let columns = reference.table.names_of(&reference.columns);
    let name = names::generated(&reference.table.name, &columns, "fkey", |_| false);
    format!(
        "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) NOT VALID",
        checked.table,
        Identifier::new(&name),
        quoted(columns),
        checked.parent.clone().unwrap_or_default(),
        quoted(reference.parent.names_of(&reference.key)),
    )
}

/// Fills the tenants of a table, or those of the table from which its rows have theirs.
fn fill(catalog: &Catalog, resolver: &TenantResolver, table: &Table) -> String {
    let owner = match resolver.of(table).as_ref() {
        RowTenant::Paths(paths) => paths[0].value(table.oid).map_or(table.oid, |(owner, _)| owner),
        _ => table.oid,
    };
    let owner = catalog.table(owner).unwrap_or(table);
    let root = resolver
        .root()
        .map(|root| Literal::new(&catalog.display(root)).to_string())
        .unwrap_or_default();
    let shown = catalog.display(owner);
    let shown = Literal::new(&shown);
    // Where nothing gives its tenant, what is known about the table is the next thing to read.
    let fillable = resolver.keys().is_some_and(|keys| {
        keys.of(owner)
            .iter()
            .any(|key| !keys.paths(owner, Some(key)).found.is_empty())
    });
    match fillable {
        true => format!("SELECT * FROM backfill_tenant_ids({root}, table_name => {shown})"),
        false => format!("SELECT * FROM tenant_columns({root}) WHERE table_name = {shown}"),
    }
}

/// The tenant key of the row, if its best path starts with this reference.
fn filled_along<'a>(resolver: &TenantResolver, reference: &KeyReference<'a>) -> Option<&'a str> {
    let keys = resolver.keys()?;
    let key = keys.of(reference.table).first()?;
    let best = keys.paths(reference.table, Some(key)).found.into_iter().next()?;
    let along = best.source.columns() == reference.columns && best.source.hops[0].parent == reference.parent.oid;
    // A key that must be there was entered with the row.
    let column = reference.table.column(key.column)?;
    (along && !column.never_null).then_some(column.name.as_str())
}

/// Rows of a polymorphic reference whose type nobody declared.
pub fn unknown_types(table: String, columns: String, rows: i64) -> Checked {
    Checked {
        fix: Some(format!(
            "SELECT declare_reference({}, {}, '...', type_value => '...') for the types that are missing",
            Literal::new(&table),
            Literal::new(&columns)
        )),
        table,
        columns,
        parent: None,
        key: None,
        constraint: None,
        state: None,
        rows_checked: rows,
        orphans: Some(rows),
        cross_tenant: None,
        null_tenant: None,
        parent_null_tenant: None,
        verdict: Verdict::Violations,
        sample: None,
        declaration: None,
    }
}
