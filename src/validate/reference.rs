//! Which references there are to check: declared foreign keys, those that are only meant, and those that the user declared.

use crate::catalog::{Catalog, Column, State, Table};
use crate::identifier::Literal;
use crate::infer::tenancy::keys;

use super::declared::Declaration;
pub use super::key_reference::{Found, KeyReference, Unchecked, shown};

/// Every reference of `only` (`None`: of all tables), ordered by table, columns, constraint.
///
/// * `inferred`: also those that no foreign key declares: a column that is called `..._id` (or key, uuid, ref, fk) after the
///   one table whose key has its type.
/// * `declared`: what the user declared; it replaces what its columns' names would say.
pub fn collect<'a>(
    catalog: &'a Catalog,
    only: Option<&Table>,
    inferred: bool,
    declared: &[Declaration],
) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    let tables = catalog.tables.iter().filter(|t| !t.of_extension);
    for table in tables.filter(|t| only.is_none_or(|only| only.oid == t.oid)) {
        let mut of_table: Vec<KeyReference> = foreign_keys(catalog, table);
        // What is said about a foreign key.
        for key in &mut of_table {
            let declared_here = declared
                .iter()
                .find(|d| d.is_about(table, &key.columns) && d.is_to(key.parent) && d.may_cross_tenants);
            key.may_cross_tenants = declared_here.is_some();
            key.declaration = declared_here.map(|d| d.attributed(catalog));
        }
        let mut unchecked = by_cast(catalog, table);
        let mut spoken_of: Vec<i16> = Vec::new();
        for declaration in declared.iter().filter(|d| d.is_of(table)) {
            // A composite key says nothing of what a single one of its columns means.
            if let [only] = declaration.column_numbers(table)[..] {
                spoken_of.push(only);
            }
            match declaration.resolve(catalog, table) {
                Ok(Some(reference)) if inferred => {
                    let known = of_table.iter().any(|key| {
                        key.constraint.is_some()
                            && key.columns == reference.columns
                            && key.parent.oid == reference.parent.oid
                            && key.key == reference.key
                            && reference.discriminator.is_none()
                    });
                    if !known {
                        of_table.push(reference);
                    }
                }
                Ok(None) => unchecked.push(declaration.no_reference(catalog, table)),
                Ok(Some(_)) => {}
                Err(why) => unchecked.push(declaration.unchecked(catalog, catalog.display(table), why)),
            }
        }
        if inferred && table.is_table() && !table.is_partition {
            let spoken = |column: &i16| spoken_of.contains(column);
            for meant in meant(catalog, table) {
                match meant {
                    Found::Reference(to) if !to.columns.last().is_some_and(spoken) => of_table.push(to),
                    Found::Unchecked(to) => {
                        let column = table.columns.iter().find(|c| c.name == to.columns);
                        if !column.is_some_and(|column| spoken(&column.number)) {
                            unchecked.push(to);
                        }
                    }
                    Found::Reference(_) => {}
                }
            }
        }
        of_table.sort_by(|a, b| {
            let key = |r: &KeyReference| {
                (
                    r.columns.clone(),
                    r.constraint.map(str::to_string),
                    r.discriminator.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        found.extend(of_table.into_iter().map(Found::Reference));
        found.extend(unchecked.into_iter().map(Found::Unchecked));
    }
    if only.is_none() {
        found.extend(
            declared
                .iter()
                .filter(|d| !catalog.tables.iter().any(|t| d.is_of(t)))
                .map(|d| d.unchecked(catalog, d.table_shown(), "the table does not exist any more".into()))
                .map(Found::Unchecked),
        );
    }
    found
}

/// Foreign keys that Postgres compares through a cast of a role whom the caller does not trust.
fn by_cast(catalog: &Catalog, table: &Table) -> Vec<Unchecked> {
    let keys = catalog.foreign_keys_by_cast.iter();
    keys.filter(|key| key.table == table.oid && !key.inherited)
        .map(|key| {
            let shown_table = catalog.display(table);
            Unchecked {
                columns: shown(&table.names_of(&key.columns)),
                parent: catalog.table(key.parent).map(|parent| catalog.display(parent)),
                constraint: Some(key.name.clone()),
                state: Some(key.state()),
                why: format!(
                    "comparing would run a cast of another role with your rights: ask as the owner of {shown_table}, or give both sides one type"
                ),
                declaration: None,
                table: shown_table,
            }
        })
        .collect()
}

fn foreign_keys<'a>(catalog: &'a Catalog, table: &'a Table) -> Vec<KeyReference<'a>> {
    let keys = catalog.foreign_keys_of(table.oid).filter(|key| !key.inherited);
    keys.filter_map(|key| {
        Some(KeyReference {
            table,
            columns: key.columns.clone(),
            parent: catalog.table(key.parent)?,
            key: key.parent_columns.clone(),
            constraint: Some(&key.name),
            state: key.state(),
            match_full: key.match_full,
            discriminator: None,
            may_cross_tenants: false,
            unique: true,
            within_tenant: false,
            declaration: None,
        })
    })
    .collect()
}

/// References that only a name speaks of.
fn meant<'a>(catalog: &'a Catalog, table: &'a Table) -> Vec<Found<'a>> {
    let of = |column: &Column| {
        let alone = keys::meant_by_name(catalog, table, column);
        let (parent, columns, key, within_tenant) = match alone {
            Some(to) => (to.parent, vec![column.number], vec![to.key], false),
            None => match keys::meant_within_tenant(catalog, table, column)? {
                Ok(to) => (
                    to.parent,
                    vec![to.own_tenant, column.number],
                    vec![to.tenant, to.key],
                    true,
                ),
                Err(parent) => {
                    let parent = catalog.table(parent)?;
                    return Some(Found::Unchecked(no_own_tenant(catalog, table, column, parent)));
                }
            },
        };
        Some(Found::Reference(KeyReference {
            table,
            columns,
            parent: catalog.table(parent)?,
            key,
            constraint: None,
            state: State::Missing,
            match_full: false,
            discriminator: None,
            may_cross_tenants: false,
            unique: true,
            within_tenant,
            declaration: None,
        }))
    };
    table.columns.iter().filter_map(of).collect()
}

/// A column that means a key of (tenant, id), of a table whose rows do not say which tenant is theirs.
fn no_own_tenant(catalog: &Catalog, table: &Table, column: &Column, parent: &Table) -> Unchecked {
    let shown_table = catalog.display(table);
    let key = parent.primary_key().map(|key| shown(&parent.names_of(&key.columns)));
    Unchecked {
        columns: shown(&[column.name.as_str()]),
        parent: Some(catalog.display(parent)),
        constraint: None,
        state: Some(State::Missing),
        why: format!(
            "the key of {} is {}, and {shown_table} has no tenant key of its own: SELECT declare_tenant_key({}, '...') names it, or declare_reference() what is meant",
            catalog.display(parent),
            key.unwrap_or_default(),
            Literal::new(&shown_table)
        ),
        declaration: None,
        table: shown_table,
    }
}
