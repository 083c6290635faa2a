//! Catalogs for tests, written down table by table.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use super::super::data_type::Operator;
use super::*;

const INT: Oid = 23;
const TEXT: Oid = 25;

fn builtin(oid: Oid, name: &str, display: &str, category: char) -> Type {
    Type {
        oid,
        schema: "pg_catalog".into(),
        name: name.into(),
        display: display.into(),
        kind: 'b',
        category,
        owner_is_trusted: true,
        base_modifier: -1,
        equality: Some(Operator {
            schema: "pg_catalog".into(),
            name: "=".into(),
        }),
        ..Type::default()
    }
}

/// Adds tables step by step: `Builder::new().table("Contact", &["id", "partyId?"]).build()`. The first column is the
/// primary key; `?` marks a nullable one, `:text` a text one (int otherwise).
#[derive(Default)]
pub struct Builder(Catalog);

impl Builder {
    pub fn new() -> Self {
        Builder(Catalog {
            types: vec![builtin(INT, "int4", "integer", 'N'), builtin(TEXT, "text", "text", 'S')],
            search_path: vec!["public".into()],
            ..Catalog::default()
        })
    }

    pub fn table(self, name: &str, columns: &[&str]) -> Self {
        self.table_in("public", name, columns)
    }

    pub fn table_in(mut self, schema: &str, name: &str, columns: &[&str]) -> Self {
        let oid = 1000 + self.0.tables.len() as Oid;
        let columns = columns
            .iter()
            .enumerate()
            .map(|(i, spec)| {
                let name = spec.trim_end_matches('?');
                let (name, type_oid) = match name.strip_suffix(":text") {
                    Some(name) => (name, TEXT),
                    None => (name, INT),
                };
                Column {
                    number: i as i16 + 1,
                    name: name.into(),
                    quoted: Identifier::new(name).to_string(),
                    type_oid,
                    type_modifier: -1,
                    not_null: !spec.ends_with('?'),
                    never_null: !spec.ends_with('?'),
                    may_select: true,
                    may_update: true,
                    ..Column::default()
                }
            })
            .collect();
        self.0.tables.push(Table {
            oid,
            schema: schema.into(),
            name: name.into(),
            quoted_schema: Identifier::new(schema).to_string(),
            quoted_name: Identifier::new(name).to_string(),
            kind: 'r',
            may_select: true,
            may_use_schema: true,
            columns,
            keys: vec![Key {
                name: format!("{name}_pkey"),
                columns: vec![1],
                primary: true,
                immediate: true,
            }],
            ..Table::default()
        });
        self
    }

    /// Declares `table.column -> parent(first column)`.
    pub fn references(self, table: &str, column: &str, parent: &str) -> Self {
        self.references_key(table, &[column], parent, &[1], 'n')
    }

    /// As `references`, ON DELETE CASCADE.
    pub fn cascades(self, table: &str, column: &str, parent: &str) -> Self {
        self.references_key(table, &[column], parent, &[1], 'c')
    }

    /// Declares a foreign key to any columns of the parent, by number.
    pub fn references_key(mut self, table: &str, columns: &[&str], parent: &str, key: &[i16], on_delete: char) -> Self {
        let find = |name: &str| {
            self.0
                .tables
                .iter()
                .find(|t| t.name == name)
                .expect("a table of this catalog")
        };
        let (child, parent) = (find(table), find(parent));
        let number = |name: &&str| child.column_named(name).expect("a column of this table").number;
        self.0.foreign_keys.push(ForeignKey {
            name: format!("{table}_{}_fkey", columns.join("_")),
            table: child.oid,
            columns: columns.iter().map(number).collect(),
            parent: parent.oid,
            parent_columns: key.to_vec(),
            validated: true,
            enforced: true,
            on_delete,
            on_update: 'a',
            deferrable: false,
            deferred: false,
            match_full: false,
            inherited: false,
        });
        self
    }

    pub fn build(self) -> Catalog {
        self.0.index()
    }
}
