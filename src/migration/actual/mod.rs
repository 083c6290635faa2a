//! The catalog as far as a script speaks of it: everything that is called like something in the script.

mod load;

use std::collections::HashMap;

use serde::Deserialize;

/// Schema and name of a collation, and whether it is another than by default.
pub type Collation = (String, String, bool);

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
    /// Its owner.
    pub owner: String,
    /// `pg_get_partkeydef`.
    pub partition_key: Option<String>,
    /// Of a partition: schema, name and oid of what it is a part of, and its bound as Postgres shows it.
    pub partition_of: Option<(String, String, u32, String)>,
    /// Others inherit from it; partitions aside.
    pub has_heirs: bool,
    /// What uses its row type.
    pub row_type_used_by: Vec<String>,
    /// Schema and name of what it inherits from, in order; partitions aside.
    pub inherits: Vec<(String, String)>,
    /// Of a sequence.
    pub sequence: Option<Sequence>,
}

/// A sequence that is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Sequence {
    /// Its type.
    pub type_oid: u32,
    /// START.
    pub start: i64,
    /// INCREMENT.
    pub increment: i64,
    /// MINVALUE.
    pub minimum: i64,
    /// MAXVALUE.
    pub maximum: i64,
    /// CACHE.
    pub cache: i64,
    /// CYCLE.
    pub cycle: bool,
    /// OWNED BY: schema, table and column.
    pub owned: Option<(String, String, String)>,
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
    /// Of a type that has collations.
    pub collation: Option<Collation>,
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
    /// It comes from a table that its own inherits from, or is a partition of.
    pub inherited: bool,
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
    /// It comes with that of the partitioned table.
    pub attached: bool,
    /// Not NOT ENFORCED.
    pub enforced: bool,
    /// WITHOUT OVERLAPS, PERIOD.
    pub period: bool,
    /// Of a CHECK: its expression.
    pub expression: Option<String>,
    /// NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// Of an exclusion constraint: schema and name of its operators, in order.
    pub operators: Vec<(String, String)>,
    /// oid of the index behind it, 0 for none.
    pub index: u32,
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
    /// It is a partition of an index of the partitioned table.
    pub attached: bool,
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
    /// Of a type that has collations; other than by default: another than the column's.
    pub collation: Option<Collation>,
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
    /// As in `pg_trigger.tgenabled`.
    pub firing: char,
    /// CONSTRAINT, DEFERRABLE, INITIALLY DEFERRED.
    pub constraint: (bool, bool, bool),
    /// REFERENCING: OLD TABLE AS, NEW TABLE AS.
    pub transitions: (Option<String>, Option<String>),
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
    /// Its owner.
    pub owner: String,
    /// Types of its arguments.
    pub arguments: Vec<u32>,
    /// Name, mode (as in `pg_proc.proargmodes`), type and default of each parameter.
    pub parameters: Vec<(String, char, u32, Option<String>)>,
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
    /// LEAKPROOF.
    pub leakproof: bool,
    /// `proparallel`.
    pub parallel: char,
    /// Settings that it makes.
    pub sets: Vec<(String, String)>,
    /// BEGIN ATOMIC, RETURN: `prosqlbody::text`.
    pub statements: Option<String>,
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
    /// Its owner.
    pub owner: String,
    /// Of a domain: base type and modifier.
    pub base: (u32, i32),
    /// Of a domain: its base type is one.
    pub over_domain: bool,
    /// Of a domain over a type that has collations.
    pub collation: Option<Collation>,
    /// Of a domain.
    pub not_null: bool,
    /// Of a domain.
    pub default: Option<String>,
    /// Of a domain: its CHECKs.
    pub checks: Vec<String>,
    /// Of a composite type: names, types, modifiers and collations.
    pub attributes: Vec<(String, u32, i32, Option<Collation>)>,
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
    /// Its owner.
    pub owner: String,
    /// COMMENT.
    pub comment: Option<String>,
    /// Grantee and privilege.
    pub privileges: Vec<(String, String)>,
}

/// Everything that is called like something in a script.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ActualSchema {
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
    /// See [`crate::catalog::domains_of_others_run_code`].
    #[serde(skip)]
    pub code_of_others: bool,
    /// CURRENT_USER.
    pub user: String,
    /// The roles whose rights the caller has.
    pub roles: Vec<String>,
    /// The schemas of the search_path that exist, in order.
    pub path: Vec<String>,
    /// Where in `relations` which is, by schema and name.
    #[serde(skip)]
    by_name: HashMap<(String, String), usize>,
}

impl ActualSchema {
    /// Nothing is there.
    pub fn empty(path: Vec<String>) -> ActualSchema {
        ActualSchema {
            path,
            ..ActualSchema::default()
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
