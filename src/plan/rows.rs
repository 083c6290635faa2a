//! Which rows of a table a statement is about: by where they are, by their keys, by who wrote them.

use crate::catalog::{Catalog, Table};
use crate::identifier::Literal;

/// The rows of the target that are classified. Which rows take part in what is judged over the whole table (values that collide under a
/// unique index) does not hang on it: a row comes to the same in whatever set it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RowSet {
    /// All.
    #[default]
    All,
    /// Those of these keys.
    Keys {
        /// Columns of a key of the table.
        columns: Vec<i16>,
        /// Their values, as texts of their types.
        keys: Vec<Vec<String>>,
    },
    /// Those behind one key, up to another one.
    KeyRange {
        /// Columns of a key of the table.
        columns: Vec<i16>,
        /// The last key before them; `None`: from the first row on.
        after: Option<Vec<String>>,
        /// Their last key; `None`: to the last row.
        up_to: Option<Vec<String>>,
    },
    /// Those in these blocks of a plain table.
    Blocks {
        /// The first.
        from: u32,
        /// The one behind the last; `None`: to the end.
        to: Option<u32>,
    },
    /// One new row, which is in no table yet: a FROM item without its alias.
    New(String),
}

impl RowSet {
    /// The condition that rows called `alias` are of them; `None`: all are.
    ///
    /// ```text
    /// (t.org, t.id) > ('7'::pg_catalog.int4, '10'::pg_catalog.int4)
    /// ```
    pub fn condition(&self, catalog: &Catalog, table: &Table, alias: &str) -> Option<String> {
        let own = |columns: &[i16]| -> String {
            let own = columns.iter().filter_map(|c| table.column(*c));
            let own: Vec<String> = own.map(|c| format!("{alias}.{}", c.sql())).collect();
            format!("({})", own.join(", "))
        };
        let typed = |columns: &[i16], key: &[String]| -> String {
            let values = columns.iter().filter_map(|c| table.column(*c)).zip(key);
            let values = values.map(|(column, value)| {
                let base = catalog.base_type(column.type_oid, -1);
                let cast = base.map(|(base, _)| format!("::{}", base.sql())).unwrap_or_default();
                format!("{}{cast}", Literal::new(value))
            });
            format!("({})", values.collect::<Vec<_>>().join(", "))
        };
        match self {
            RowSet::All | RowSet::New(_) => None,
            RowSet::Keys { keys, .. } if keys.is_empty() => Some("false".into()),
            RowSet::Keys { columns, keys } => {
                let rows: Vec<String> = keys.iter().map(|key| typed(columns, key)).collect();
                Some(format!("{} IN (VALUES {})", own(columns), rows.join(", ")))
            }
            RowSet::KeyRange { columns, after, up_to } => {
                let after = after
                    .iter()
                    .map(|key| format!("{} > {}", own(columns), typed(columns, key)));
                let up_to = up_to
                    .iter()
                    .map(|key| format!("{} <= {}", own(columns), typed(columns, key)));
                let both: Vec<String> = after.chain(up_to).collect();
                (!both.is_empty()).then(|| both.join(" AND "))
            }
            RowSet::Blocks { from, to } => {
                let mut both = vec![format!("{alias}.ctid >= '({from},0)'::pg_catalog.tid")];
                both.extend(to.map(|to| format!("{alias}.ctid < '({to},0)'::pg_catalog.tid")));
                Some(both.join(" AND "))
            }
        }
    }
}

/// Rows of the target, by the ids under which this call has written them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Versions {
    /// All, whoever wrote them.
    #[default]
    All,
    /// Written under one of these.
    WrittenAs(Vec<u32>),
    /// Written under none of these.
    NotWrittenAs(Vec<u32>),
}

impl Versions {
    /// The condition that rows called `alias` are of them; `None`: all are.
    ///
    /// ```text
    /// t.xmin = ANY ('{731,732}'::pg_catalog.xid[])
    /// ```
    pub fn condition(&self, alias: &str) -> Option<String> {
        match self {
            Versions::All => None,
            Versions::WrittenAs(ids) => Some(written_as(alias, ids)),
            Versions::NotWrittenAs(ids) => Some(format!("NOT {}", written_as(alias, ids))),
        }
    }
}

/// Rows called `alias` were written under one of these transaction ids.
pub fn written_as(alias: &str, ids: &[u32]) -> String {
    match ids {
        [id] => format!("{alias}.xmin = '{id}'::pg_catalog.xid"),
        ids => {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            format!("{alias}.xmin = ANY ('{{{}}}'::pg_catalog.xid[])", ids.join(","))
        }
    }
}

/// Rows that hold values of the same runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// The ids under which they were written.
    pub ids: Vec<u32>,
    /// The runs.
    pub runs: Vec<i64>,
}
