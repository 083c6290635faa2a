//! The joins of a pass: each needed one once, compared as a foreign key compares; and the tenant at their end.

use crate::catalog::{Catalog, Column, Table};
use crate::plan::join::same_key;
use crate::rule::Source;

use crate::infer::tenancy::resolver::RowTenant;

/// A tenant as SQL.
#[derive(Debug, Clone)]
pub struct Side {
    /// One expression, or several any of which may be it.
    pub any: Vec<String>,
    /// Their type.
    pub type_oid: u32,
    /// It is a column that Postgres keeps free of NULLs.
    pub(super) never_null: bool,
    /// It is a column of the row itself.
    pub(super) direct: bool,
    /// Its collation, where it is not the database's.
    pub(super) collation: Option<String>,
}

pub(super) fn type_of(table: &Table, column: i16) -> u32 {
    table.column(column).map(|c| c.type_oid).unwrap_or_default()
}

/// LEFT JOINs, each needed one once.
pub(super) struct Joins<'a> {
    catalog: &'a Catalog,
    prefix: &'static str,
    pub(super) list: Vec<Join>,
    pub(super) reads: Vec<(u32, Vec<i16>)>,
}

/// From alias, its columns, the parent, its key, a condition.
type JoinedBy = (String, Vec<i16>, u32, Vec<i16>, Option<String>);

pub(super) struct Join {
    /// `None` for one of its own kind.
    by: Option<JoinedBy>,
    alias: String,
    pub(super) sql: String,
}

impl<'a> Joins<'a> {
    pub(super) fn new(catalog: &'a Catalog, prefix: &'static str) -> Self {
        Joins {
            catalog,
            prefix,
            list: vec![],
            reads: vec![],
        }
    }

    pub(super) fn next_alias(&self) -> String {
        format!("{}_{}", self.prefix, self.list.len() + 1)
    }

    pub(super) fn reads(&mut self, table: &Table, columns: &[i16]) {
        match self.reads.iter_mut().find(|(oid, _)| *oid == table.oid) {
            Some((_, known)) => {
                let new: Vec<i16> = columns.iter().filter(|c| !known.contains(c)).copied().collect();
                known.extend(new);
            }
            None => self.reads.push((table.oid, columns.to_vec())),
        }
    }

    pub(super) fn column(&self, alias: &str, table: &Table, column: i16) -> String {
        match table.column(column) {
            Some(column) => format!("{alias}.{}", column.sql()),
            None => "NULL".into(),
        }
    }

    /// Joins the one row of `parent` that columns of `from` mean; its alias.
    pub(super) fn to(
        &mut self,
        from: &str,
        from_table: &Table,
        columns: &[i16],
        when: Option<&str>,
        parent: &Table,
        key: &[i16],
    ) -> String {
        let by = (
            from.to_string(),
            columns.to_vec(),
            parent.oid,
            key.to_vec(),
            when.map(str::to_string),
        );
        if let Some(known) = self.list.iter().find(|join| join.by.as_ref() == Some(&by)) {
            return known.alias.clone();
        }
        self.reads(from_table, columns);
        self.reads(parent, key);
        let alias = self.next_alias();
        let mut on: Vec<String> = key
            .iter()
            .zip(columns)
            .map(|(key, column)| {
                let value = self.column(from, from_table, *column);
                match parent.column(*key) {
                    Some(key) => same_key(
                        self.catalog,
                        &self.column(&alias, parent, key.number),
                        key,
                        &value,
                        from_table.column(*column),
                    ),
                    None => "false".into(),
                }
            })
            .collect();
        on.extend(when.map(str::to_string));
        let sql = format!("LEFT JOIN {} AS {alias} ON {}", parent.relation_sql(), on.join(" AND "));
        self.list.push(Join {
            by: Some(by),
            alias: alias.clone(),
            sql,
        });
        alias
    }

    pub(super) fn add_other(&mut self, alias: String, sql: String, reads: Vec<(u32, Vec<i16>)>) {
        self.list.push(Join { by: None, alias, sql });
        for (oid, columns) in reads {
            match self.catalog.table(oid) {
                Some(table) => self.reads(table, &columns),
                None => self.reads.push((oid, columns)),
            }
        }
    }

    /// The tenant of the row `alias` of `table`.
    pub(super) fn side(&mut self, table: &'a Table, alias: &str, row_tenant: &RowTenant) -> Option<Side> {
        match row_tenant {
            RowTenant::Shared => None,
            RowTenant::Columns(columns) => {
                self.reads(table, columns);
                Some(Side {
                    any: columns.iter().map(|c| self.column(alias, table, *c)).collect(),
                    type_oid: type_of(table, columns[0]),
                    // Of a foreign table, NOT NULL is a promise that nobody keeps.
                    never_null: table.is_table()
                        && columns.iter().any(|c| table.column(*c).is_some_and(|c| c.not_null)),
                    direct: true,
                    collation: table.column(columns[0]).and_then(|c| c.collation.clone()),
                })
            }
            RowTenant::Paths(paths) => {
                let mut values = Vec::new();
                let (mut type_oid, mut of_collation) = (0, None);
                for path in paths {
                    let (value, column) = self.along(table, alias, path)?;
                    // One value of several columns has one collation: that of the first.
                    let same = values.is_empty() || of_collation == column.collation;
                    if values.is_empty() {
                        (type_oid, of_collation) = (column.type_oid, column.collation.clone());
                    }
                    values.push(match (same, &of_collation) {
                        (true, _) => value,
                        (false, Some(first)) => format!("{value} COLLATE {first}"),
                        (false, None) => format!("{value} COLLATE pg_catalog.\"default\""),
                    });
                }
                let value = match values.as_slice() {
                    [one] => one.clone(),
                    several => format!("COALESCE({})", several.join(", ")),
                };
                Some(Side {
                    any: vec![value],
                    type_oid,
                    never_null: false,
                    direct: false,
                    collation: of_collation,
                })
            }
        }
    }

    /// The value at the end of a path.
    pub(super) fn along(&mut self, table: &'a Table, alias: &str, path: &Source) -> Option<(String, &'a Column)> {
        let (mut from, mut at, mut columns) = (alias.to_string(), table, path.columns());
        for hop in &path.hops {
            let parent = self.catalog.table(hop.parent)?;
            from = self.to(&from, at, &columns, None, parent, &hop.key);
            at = parent;
            columns = hop.columns.clone();
        }
        self.reads(at, &columns);
        Some((self.column(&from, at, columns[0]), at.column(columns[0])?))
    }
}
