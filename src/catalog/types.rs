//! The typed values themselves, and the questions that can be answered from them alone.

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::data_type::{Oid, Type};
use crate::identifier::{Identifier, Literal};
use crate::names;

/// Every table that the caller's database has, with columns, keys and foreign keys.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Catalog {
    /// Tables, views and foreign tables of all schemas but the system's, ordered by schema and name.
    pub tables: Vec<Table>,
    /// The types of all columns, domains followed down to their base.
    pub types: Vec<Type>,
    /// Every declared foreign key, one entry each (partitions' inherited copies included, on the partition).
    pub foreign_keys: Vec<ForeignKey>,
    /// Foreign keys whose two sides are compared through a cast that somebody may have written whom the caller does not trust: Postgres
    /// runs it, we do not.
    #[serde(skip)]
    pub foreign_keys_by_cast: Vec<ForeignKey>,
    /// The schemas in which a bare name is looked up, in order; the caller's, not ours.
    #[serde(default)]
    pub search_path: Vec<String>,
    #[serde(skip)]
    by_oid: HashMap<Oid, usize>,
    #[serde(skip)]
    type_by_oid: HashMap<Oid, usize>,
    #[serde(skip)]
    by_name: HashMap<(String, String), usize>,
    #[serde(skip)]
    by_words: HashMap<Vec<String>, Vec<usize>>,
    #[serde(skip)]
    keys_of: HashMap<Oid, Vec<usize>>,
    /// What `infer::root` found out about the whole catalog, kept because it is asked for every column.
    #[serde(skip)]
    pub(crate) tenant_root: RefCell<Option<Option<Oid>>>,
    /// Tenant keys that were declared, per table.
    #[serde(skip)]
    pub declared_keys: HashMap<Oid, DeclaredKey>,
    /// References that were declared of single columns, by table and column, where the declaration is in force.
    #[serde(skip)]
    pub declared_references: HashMap<(Oid, i16), DeclaredReference>,
    /// The tenant keys that were found for one root; kept, because they are asked for every column. What they are, `infer::tenancy`
    /// knows.
    #[serde(skip)]
    pub(crate) of_root: RefCell<Option<(Oid, Rc<dyn std::any::Any>)>>,
}

/// What was declared of a single column: which row its values mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredReference {
    /// The parent and its column; `None`: they mean no row.
    pub to: Option<(Oid, i16)>,
    /// It depends on another column of the row which table is meant.
    pub by_type: bool,
    /// It may lead to another tenant.
    pub may_cross_tenants: bool,
}

/// What was declared of the tenant key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredKey {
    /// The column; `None`: the table has none.
    pub column: Option<i16>,
    /// The role that said so.
    pub declared_by: String,
}

/// One relation.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Table {
    /// pg_class.oid
    pub oid: Oid,
    /// The bare schema name.
    pub schema: String,
    /// The bare name.
    pub name: String,
    /// `schema.name`, quoted by Postgres's own rules where needed.
    pub quoted_schema: String,
    /// As `quoted_schema`, the name.
    pub quoted_name: String,
    /// pg_class.relkind: r table, p partitioned, v view, m materialized view, f foreign, c composite type.
    pub kind: char,
    /// pg_class.relispartition
    pub is_partition: bool,
    /// Other tables inherit from it (partitions included).
    pub has_children: bool,
    /// Policies would hide rows from the caller.
    pub row_security_active: bool,
    /// Row-level security is switched on for the table.
    pub row_security: bool,
    /// pg_class.reltuples, negative where never analyzed.
    pub estimated_rows: f64,
    /// The caller may read all columns.
    pub may_select: bool,
    /// The caller may add rows.
    #[serde(skip_serializing)]
    pub may_insert: bool,
    /// The caller may declare foreign keys to it.
    #[serde(skip_serializing, default)]
    pub may_reference: bool,
    /// The caller may look into the schema.
    pub may_use_schema: bool,
    /// pg_class.relowner
    #[serde(skip_serializing, default)]
    pub owner: Oid,
    /// The owner has the caller's rights anyway (is the caller, a member of it, or a superuser): code of the owner may run with them.
    #[serde(skip_serializing, default)]
    pub owner_is_trusted: bool,
    /// An extension's own table (pg_mend's state included): never inferred as a target or source.
    pub of_extension: bool,
    /// For a view, the relations that it names.
    #[serde(default)]
    pub reads: Vec<Oid>,
    /// In the order of the table.
    pub columns: Vec<Column>,
    /// Primary key first, then unique indexes without expression and predicate.
    pub keys: Vec<Key>,
    /// Columns that are the first of some valid index without a predicate (but that the column is not NULL): what a look-up by
    /// them can use.
    #[serde(default)]
    pub indexed: Vec<i16>,
}

/// One column.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Column {
    /// pg_attribute.attnum
    pub number: i16,
    /// The bare name.
    pub name: String,
    /// As `name`, quoted where needed.
    pub quoted: String,
    /// pg_attribute.atttypid
    pub type_oid: Oid,
    /// pg_attribute.atttypmod
    pub type_modifier: i32,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// Declared NOT NULL, or a valid CHECK (column IS NOT NULL) says the same.
    #[serde(default)]
    pub never_null: bool,
    /// Its collation as SQL, where it is not the database's.
    #[serde(default)]
    pub collation: Option<String>,
    /// GENERATED ALWAYS AS (expression).
    pub generated: bool,
    /// GENERATED ALWAYS AS IDENTITY.
    pub identity_always: bool,
    /// The caller may read it.
    pub may_select: bool,
    /// The caller may UPDATE it.
    pub may_update: bool,
}

/// A unique key over plain columns.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Key {
    /// Name of its index.
    pub name: String,
    /// Column numbers in the order of the index.
    pub columns: Vec<i16>,
    /// Is it the primary key?
    pub primary: bool,
    /// It is checked at once; a deferrable one may have duplicates inside a transaction, and no foreign key can lead to it.
    #[serde(default = "yes")]
    pub immediate: bool,
}

fn yes() -> bool {
    true
}

/// A declared foreign key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ForeignKey {
    /// Constraint name.
    pub name: String,
    /// The referencing table.
    pub table: Oid,
    /// Its columns.
    pub columns: Vec<i16>,
    /// The referenced table.
    pub parent: Oid,
    /// Its columns, in the same order.
    pub parent_columns: Vec<i16>,
    /// pg_constraint.convalidated
    pub validated: bool,
    /// pg_constraint.conenforced (always true before 18)
    pub enforced: bool,
    /// pg_constraint.confdeltype: a no action, r restrict, c cascade, n set null, d set default.
    pub on_delete: char,
    /// pg_constraint.confupdtype: as `on_delete`.
    #[serde(default)]
    pub on_update: char,
    /// DEFERRABLE
    #[serde(default)]
    pub deferrable: bool,
    /// INITIALLY DEFERRED
    #[serde(default)]
    pub deferred: bool,
    /// MATCH FULL
    pub match_full: bool,
    /// It is a partition's copy of a foreign key of the table above.
    #[serde(default)]
    pub inherited: bool,
}

/// The state of a foreign key: valid, not valid, not enforced, or missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// A foreign key that holds for every row.
    #[default]
    Valid,
    /// NOT VALID: rows from before it may be anything.
    NotValid,
    /// NOT ENFORCED (since 18).
    NotEnforced,
    /// No foreign key.
    Missing,
}

impl ForeignKey {
    /// How far Postgres vouches for it.
    pub fn state(&self) -> State {
        match (self.enforced, self.validated) {
            (false, _) => State::NotEnforced,
            (true, false) => State::NotValid,
            (true, true) => State::Valid,
        }
    }
}

impl State {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Valid => "valid",
            State::NotValid => "not_valid",
            State::NotEnforced => "not_enforced",
            State::Missing => "missing",
        }
    }
}

impl Catalog {
    /// Builds the look-up tables; to be called once after decoding.
    pub fn index(mut self) -> Self {
        self.by_oid = self.tables.iter().enumerate().map(|(i, t)| (t.oid, i)).collect();
        self.type_by_oid = self.types.iter().enumerate().map(|(i, t)| (t.oid, i)).collect();
        let keys = std::mem::take(&mut self.foreign_keys);
        let (foreign_keys, by_cast) = keys.into_iter().partition(|key| self.compares_without_casts(key));
        self.foreign_keys = foreign_keys;
        self.foreign_keys_by_cast = by_cast;
        for (i, table) in self.tables.iter().enumerate() {
            self.by_name.insert((table.schema.clone(), table.name.clone()), i);
            self.by_words.entry(names::stem(&table.name)).or_default().push(i);
        }
        for (i, key) in self.foreign_keys.iter().enumerate() {
            self.keys_of.entry(key.table).or_default().push(i);
        }
        self
    }

    /// Says which table holds the tenants, before anybody has to infer it.
    pub fn settle_tenant_root(&self, root: Oid) {
        self.tenant_root.replace(Some(Some(root)));
    }

    /// The table with exactly this schema and name.
    pub fn table_in(&self, schema: &str, name: &str) -> Option<&Table> {
        self.by_name
            .get(&(schema.to_string(), name.to_string()))
            .map(|&i| &self.tables[i])
    }

    /// Tables whose names have these words, the last one in the singular (see [`names::stem`]).
    pub fn tables_of_stem(&self, stem: &[String]) -> impl Iterator<Item = &Table> {
        self.by_words.get(stem).into_iter().flatten().map(|&i| &self.tables[i])
    }

    /// The table with this id, if the caller's database has it outside the system's schemas.
    pub fn table(&self, oid: Oid) -> Option<&Table> {
        self.by_oid.get(&oid).map(|&i| &self.tables[i])
    }

    /// The type with this id.
    pub fn type_of(&self, oid: Oid) -> Option<&Type> {
        self.type_by_oid.get(&oid).map(|&i| &self.types[i])
    }

    /// The type below all domains, and the modifier that holds there.
    pub fn base_type(&self, oid: Oid, modifier: i32) -> Option<(&Type, i32)> {
        let mut current = self.type_of(oid)?;
        let mut modifier = modifier;
        while let Some(base) = current.base {
            modifier = current.base_modifier;
            current = self.type_of(base)?;
        }
        Some((current, modifier))
    }

    /// Foreign keys declared on `table`.
    pub fn foreign_keys_of(&self, table: Oid) -> impl Iterator<Item = &ForeignKey> {
        self.keys_of
            .get(&table)
            .into_iter()
            .flatten()
            .map(|&i| &self.foreign_keys[i])
    }

    /// Can `a = b` be asked of values of these column types? Same base type with an equality operator, or two built-in
    /// types of the string or of the number family.
    pub fn comparable(&self, a: Oid, b: Oid) -> bool {
        let (Some((a, _)), Some((b, _))) = (self.base_type(a, -1), self.base_type(b, -1)) else {
            return false;
        };
        if a.oid == b.oid {
            return a.equality.is_some();
        }
        let family = |t: &Type| t.schema == "pg_catalog" && t.equality.is_some() && matches!(t.category, 'S' | 'N');
        family(a) && family(b) && a.category == b.category && a.name != "char" && b.name != "char"
    }

    /// The value `sql` of this type as text, written by the output function of the type. A cast to text could be somebody's own function,
    /// and so could one to json, which `to_jsonb` and its kin look for; of Postgres's own types neither can.
    pub fn text_sql(&self, sql: &str, type_oid: Oid) -> String {
        match self.base_type(type_oid, -1) {
            Some((base, _)) if base.is_built_in() => format!("{sql}::pg_catalog.text"),
            _ => format!("CASE WHEN {sql} IS DISTINCT FROM NULL THEN pg_catalog.concat({sql}) END"),
        }
    }

    /// The value `sql` of this type as an argument of `jsonb_build_object`: as it is where JSON has it too (numbers, booleans, texts, and
    /// dates, which it writes as ISO does), else as text. Either way `->>` and the input function of the type give the value again.
    pub fn json_sql(&self, sql: &str, type_oid: Oid) -> String {
        let kept = |base: &Type| {
            let number = matches!(
                base.name.as_str(),
                "int2" | "int4" | "int8" | "numeric" | "float4" | "float8"
            );
            base.is_built_in() && (number || matches!(base.category, 'B' | 'S' | 'D'))
        };
        match self.base_type(type_oid, -1) {
            Some((base, _)) if kept(base) => sql.to_string(),
            _ => self.text_sql(sql, type_oid),
        }
    }

    /// Can both sides be compared without running a cast of somebody whom the caller does not trust?
    fn compares_without_casts(&self, key: &ForeignKey) -> bool {
        let base = |table: Oid, column: i16| {
            let column = self.table(table)?.column(column)?;
            self.base_type(column.type_oid, -1).map(|(base, _)| base)
        };
        key.columns
            .iter()
            .zip(&key.parent_columns)
            .all(|(a, b)| match (base(key.table, *a), base(key.parent, *b)) {
                (Some(a), Some(b)) => a.oid == b.oid || a.is_trusted() && b.is_trusted(),
                _ => true,
            })
    }

    /// Does reading `table` run code (a view's, a foreign server's) of somebody whom the caller does not trust?
    pub fn runs_code_of_others(&self, table: &Table) -> bool {
        let mut seen = vec![];
        let mut next = vec![table.oid];
        while let Some(oid) = next.pop() {
            let Some(relation) = self.table(oid).filter(|_| !seen.contains(&oid)) else {
                continue;
            };
            seen.push(oid);
            if matches!(relation.kind, 'v' | 'f') && !relation.owner_is_trusted {
                return true;
            }
            if relation.kind == 'v' {
                next.extend(&relation.reads);
            }
        }
        false
    }

    /// Is `view` a view that reads `table`, directly or through other views?
    pub fn reads(&self, view: &Table, table: Oid) -> bool {
        let mut seen = vec![view.oid];
        let mut next: Vec<Oid> = view.reads.clone();
        while let Some(oid) = next.pop() {
            if oid == table {
                return true;
            }
            if !seen.contains(&oid) {
                seen.push(oid);
                next.extend(self.table(oid).into_iter().flat_map(|t| &t.reads));
            }
        }
        false
    }

    /// How a table is called in results: like `regclass::text`, the schema only where the search_path does not find it.
    pub fn display(&self, table: &Table) -> String {
        if self.visible(table) {
            table.quoted_name.clone()
        } else {
            format!("{}.{}", table.quoted_schema, table.quoted_name)
        }
    }

    /// Does the bare name find this table?
    pub fn visible(&self, table: &Table) -> bool {
        self.search_path
            .iter()
            .find_map(|schema| self.table_in(schema, &table.name))
            .is_some_and(|found| found.oid == table.oid)
    }
}

impl Table {
    /// The name as it enters SQL text: always with its schema.
    pub fn sql(&self) -> String {
        format!("{}.{}", Identifier::new(&self.schema), Identifier::new(&self.name))
    }

    /// The name for FROM and UPDATE. A table with inheritance children (not partitions) is read alone, because keys and
    /// foreign keys of Postgres concern it alone.
    pub fn relation_sql(&self) -> String {
        if self.kind == 'r' && self.has_children {
            format!("ONLY {}", self.sql())
        } else {
            self.sql()
        }
    }

    /// The column with this number.
    pub fn column(&self, number: i16) -> Option<&Column> {
        self.columns.iter().find(|c| c.number == number)
    }

    /// The column with exactly this name.
    pub fn column_named(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The primary key, where there is one.
    pub fn primary_key(&self) -> Option<&Key> {
        self.keys.iter().find(|k| k.primary)
    }

    /// The columns of the primary key; none where there is none.
    pub fn primary_key_columns(&self) -> Vec<&Column> {
        let key = self.primary_key().into_iter().flat_map(|key| &key.columns);
        key.filter_map(|c| self.column(*c)).collect()
    }

    /// Is a combination of values in these columns found at most once? (Some key is contained in them.)
    pub fn is_unique(&self, columns: &[i16]) -> bool {
        self.keys
            .iter()
            .any(|key| key.columns.iter().all(|c| columns.contains(c)))
    }

    /// Ordinary or partitioned: a table whose rows can be written.
    pub fn is_table(&self) -> bool {
        matches!(self.kind, 'r' | 'p')
    }

    /// What a row is called in results, as jsonb: its primary key (`{"id": 7}`), else its ctid. `alias` is the table's.
    pub fn row_key_sql(&self, catalog: &Catalog, alias: &str) -> String {
        let pairs: Vec<String> = match self.primary_key() {
            Some(key) => key
                .columns
                .iter()
                .filter_map(|c| self.column(*c))
                .map(|c| {
                    let value = catalog.json_sql(&format!("{alias}.{}", c.sql()), c.type_oid);
                    format!("{}, {value}", Literal::new(&c.name))
                })
                .collect(),
            // ctids are repeated across partitions.
            None if self.kind == 'p' => {
                vec![
                    format!("'table', {alias}.tableoid::pg_catalog.regclass::pg_catalog.text"),
                    format!("'ctid', {alias}.ctid::pg_catalog.text"),
                ]
            }
            None => vec![format!("'ctid', {alias}.ctid::pg_catalog.text")],
        };
        format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
    }

    /// Names of the columns with these numbers; a number that is unknown is left out.
    pub fn names_of(&self, columns: &[i16]) -> Vec<&str> {
        columns
            .iter()
            .filter_map(|n| self.column(*n))
            .map(|c| c.name.as_str())
            .collect()
    }
}

impl Column {
    /// The name as it enters SQL text.
    pub fn sql(&self) -> Identifier<'_> {
        Identifier::new(&self.name)
    }
}

// A part of this one: it builds what is private here.
#[cfg(test)]
#[path = "testing.rs"]
pub mod testing;
