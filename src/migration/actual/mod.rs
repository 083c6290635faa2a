//! The catalog as far as a script speaks of it: everything that is called like something in the script.

mod load;

use std::collections::HashMap;

use serde::Deserialize;

/// A relation that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Relation {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// As in `pg_class.relkind`.
    pub kind: char,
    /// ENABLE ROW LEVEL SECURITY.
    pub row_security: bool,
    /// FORCE ROW LEVEL SECURITY.
    pub force: bool,
    /// COMMENT.
    pub comment: Option<String>,
    /// May the caller count its rows?
    pub may_select: bool,
    /// Grantee (`public`) and privilege.
    pub privileges: Vec<(String, String)>,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its constraints.
    pub constraints: Vec<Constraint>,
    /// Its triggers.
    pub triggers: Vec<Trigger>,
    /// Its policies.
    pub policies: Vec<Policy>,
    /// Of an index: what it indexes.
    pub index: Option<Index>,
    /// Of a view: `pg_get_viewdef`.
    pub query: Option<String>,
}

/// A column that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Column {
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: u32,
    /// Its modifier.
    pub modifier: i32,
    /// As Postgres shows the two.
    pub type_name: String,
    /// NOT NULL.
    pub not_null: bool,
    /// Its default, or what it is computed from.
    pub default: Option<String>,
    /// As in `pg_attribute.attidentity`, empty if none.
    pub identity: String,
    /// As in `pg_attribute.attgenerated`.
    pub generated: String,
    /// A sequence that belongs to it gives its default.
    pub serial: bool,
    /// COMMENT.
    pub comment: Option<String>,
}

/// A constraint that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Constraint {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// As in `pg_constraint.contype`.
    pub kind: char,
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// Of a foreign key: schema and name of the parent.
    pub parent: Option<(String, String)>,
    /// Its columns there.
    pub parent_columns: Vec<String>,
    /// As in `confmatchtype`, `confupdtype`, `confdeltype`.
    pub matching: String,
    /// ON UPDATE.
    pub on_update: String,
    /// ON DELETE.
    pub on_delete: String,
    /// DEFERRABLE.
    pub deferrable: bool,
    /// INITIALLY DEFERRED.
    pub deferred: bool,
    /// Not NOT VALID.
    pub validated: bool,
    /// Of a CHECK: its expression.
    pub expression: Option<String>,
    /// NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// `pg_get_constraintdef`.
    pub definition: String,
}

/// What an index indexes.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// oid of its table.
    pub table: u32,
    /// UNIQUE.
    pub unique: bool,
    /// Not left behind by a failed CONCURRENTLY.
    pub valid: bool,
    /// NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// `btree` ...
    pub method: String,
    /// Its keys.
    pub keys: Vec<IndexKey>,
    /// INCLUDE.
    pub including: Vec<String>,
    /// WHERE.
    pub predicate: Option<String>,
    /// `pg_get_indexdef`.
    pub definition: String,
    /// A constraint stands on it.
    pub of_constraint: bool,
}

/// One key of an index.
#[derive(Debug, Clone, Deserialize)]
pub struct IndexKey {
    /// A column.
    pub column: Option<String>,
    /// Or an expression.
    pub expression: Option<String>,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
    /// Its operator class.
    pub operator_class: String,
    /// That of its type.
    pub default_class: bool,
}

/// A trigger that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Trigger {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// As in `pg_trigger.tgtype`.
    pub kind: i16,
    /// UPDATE OF.
    pub columns: Vec<String>,
    /// Schema and name of what it runs.
    pub function: (String, String),
    /// Its arguments.
    pub arguments: Vec<String>,
    /// `tgqual::text`.
    pub condition: Option<String>,
    /// `pg_get_triggerdef`.
    pub definition: String,
    /// Does not fire: ALTER TABLE ... DISABLE TRIGGER.
    pub disabled: bool,
}

/// A policy that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Policy {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// As in `pg_policy.polcmd`.
    pub command: char,
    /// PERMISSIVE.
    pub permissive: bool,
    /// Sorted; `public`.
    pub roles: Vec<String>,
    /// USING.
    pub using: Option<String>,
    /// WITH CHECK.
    pub check: Option<String>,
}

/// A function that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Function {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Types of its arguments.
    pub arguments: Vec<u32>,
    /// As Postgres shows them.
    pub signature: String,
    /// What it returns.
    pub returns: u32,
    /// SETOF.
    pub set: bool,
    /// Its language.
    pub language: String,
    /// `prosrc`.
    pub body: String,
    /// `provolatile`.
    pub volatility: char,
    /// STRICT.
    pub strict: bool,
    /// SECURITY DEFINER.
    pub security_definer: bool,
    /// Settings that it makes, names only.
    pub sets: Vec<String>,
    /// COMMENT.
    pub comment: Option<String>,
    /// Grantee and privilege.
    pub privileges: Vec<(String, String)>,
}

/// A type that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Type {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// As in `pg_type.typtype`.
    pub kind: char,
    /// Of an enum, in order.
    pub labels: Vec<String>,
    /// Of a domain: base type and modifier.
    pub base: (u32, i32),
    /// COMMENT.
    pub comment: Option<String>,
    /// Grantee and privilege.
    pub privileges: Vec<(String, String)>,
}

/// A schema that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Schema {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// COMMENT.
    pub comment: Option<String>,
    /// Grantee and privilege.
    pub privileges: Vec<(String, String)>,
}

/// Everything that is called like something in a script.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Actual {
    /// Tables, views, sequences, indexes.
    pub relations: Vec<Relation>,
    /// Functions and procedures.
    pub functions: Vec<Function>,
    /// Types, those of tables aside.
    pub types: Vec<Type>,
    /// All schemas.
    pub schemas: Vec<Schema>,
    /// All extensions, by name and oid.
    pub extensions: Vec<(String, u32)>,
    /// The schemas of the search_path that exist, in order.
    pub path: Vec<String>,
    /// Where in `relations` which is, by schema and name.
    #[serde(skip)]
    by_name: HashMap<(String, String), usize>,
}

impl Actual {
    /// Nothing is there.
    pub fn nothing(path: Vec<String>) -> Actual {
        Actual {
            path,
            ..Actual::default()
        }
    }

    /// A relation by its schema and name.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        let at = self.by_name.get(&(schema.to_string(), name.to_string()))?;
        self.relations.get(*at)
    }

    /// Is there such a schema?
    pub fn has_schema(&self, name: &str) -> bool {
        self.schemas.iter().any(|schema| schema.name == name)
    }
}
