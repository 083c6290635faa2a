//! What a column refers to: by its foreign key, else by name and type.

use crate::catalog::{Catalog, Column, Table};
use crate::names::column_stem;

/// A column's parent row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The parent table.
    pub parent: u32,
    /// The parent's column that holds the same value.
    pub key: i16,
    /// It is declared; otherwise name and type say so.
    pub declared: bool,
}

/// The reference that `column` of `table` is, by foreign key. A composite key counts for the column that is compared
/// with a column that is unique on its own in the parent (`(tenant_id, party_id) -> party(tenant_id, id)`).
pub fn declared(catalog: &Catalog, table: &Table, column: &Column) -> Option<Reference> {
    let mut candidates: Vec<(usize, Reference)> = catalog
        .foreign_keys_of(table.oid)
        .filter_map(|key| {
            let at = key.columns.iter().position(|c| *c == column.number)?;
            let parent = catalog.table(key.parent)?;
            let parent_column = key.parent_columns[at];
            (key.columns.len() == 1 || parent.is_unique(&[parent_column])).then_some((
                key.columns.len(),
                Reference {
                    parent: key.parent,
                    key: parent_column,
                    declared: true,
                },
            ))
        })
        .collect();
    candidates.sort_by_key(|(length, _)| *length);
    candidates.into_iter().next().map(|(_, reference)| reference)
}

/// As [`declared`], else the one table after which the column is named and whose single-column primary key has the
/// same type. Two tables of that name: no answer.
pub fn of(catalog: &Catalog, table: &Table, column: &Column) -> Option<Reference> {
    declared(catalog, table, column).or_else(|| {
        if catalog
            .foreign_keys_of(table.oid)
            .any(|key| key.columns.contains(&column.number))
        {
            return None;
        }
        named(catalog, table, column, |parent| by_name(catalog, column, parent))
    })
}

/// What `fits` says of the one table after which `column` is named. Two tables of that name: no answer.
pub fn named<T: Clone>(
    catalog: &Catalog,
    table: &Table,
    column: &Column,
    fits: impl Fn(&Table) -> Option<T>,
) -> Option<T> {
    // The longest table name explains most of the column's name, so the shortest prefix goes first.
    let stem = column_stem(&column.name);
    for prefix in 0..stem.len() {
        let named: Vec<(&Table, T)> = catalog
            .tables_of_stem(&stem[prefix..])
            .filter(|parent| parent.is_table() && !parent.is_partition && !parent.of_extension)
            .filter(|parent| parent.schema == table.schema)
            .filter_map(|parent| Some((parent, fits(parent)?)))
            .collect();
        // A table that somebody else put beside it does not hide the one of the same owner.
        let mut own = named.iter().filter(|(parent, _)| parent.owner == table.owner);
        match (named.as_slice(), own.next(), own.next()) {
            ([], ..) => continue,
            ([(_, only)], ..) | (_, Some((_, only)), None) => return Some(only.clone()),
            _ => return None,
        }
    }
    None
}

/// `column` as an undeclared reference to `parent`: the types must be the same, and a primary key or generated column is
/// no reference.
pub fn by_name(catalog: &Catalog, column: &Column, parent: &Table) -> Option<Reference> {
    let key = parent.primary_key().filter(|key| key.columns.len() == 1)?;
    let parent_column = parent.column(key.columns[0])?;
    let same = catalog.base_type(column.type_oid, -1)?.0.oid == catalog.base_type(parent_column.type_oid, -1)?.0.oid;
    (same && !column.generated).then_some(Reference {
        parent: parent.oid,
        key: parent_column.number,
        declared: false,
    })
}
