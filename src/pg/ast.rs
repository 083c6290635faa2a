//! What the statements of a migration do, in our own terms: names, columns, constraints. Expressions, types and queries stay what the
//! parser made of them, to be compared with the catalog.

use pgrx::pg_sys;

/// An expression, condition or query as the parser left it.
#[derive(Debug, Clone, Copy)]
pub struct Expression(pub(super) *mut pg_sys::Node);

/// A type as the parser left it.
#[derive(Debug, Clone)]
pub struct TypeName {
    pub(super) node: *mut pg_sys::TypeName,
    /// As written, more or less.
    pub text: String,
}

/// A name as written: `schema.name` or `name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// As written, if it is.
    pub schema: Option<String>,
    /// The name itself.
    pub name: String,
}

/// What is created, dropped, renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A schema.
    Schema,
    /// An extension.
    Extension,
    /// A table, partitioned or not, foreign or not.
    Table,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A sequence.
    Sequence,
    /// An index.
    Index,
    /// A type: enum, composite, range.
    Type,
    /// A domain.
    Domain,
    /// A label of an enum.
    Label,
    /// A function, procedure or aggregate.
    Function,
    /// A column of a table.
    Column,
    /// A constraint of a table.
    Constraint,
    /// A trigger of a table.
    Trigger,
    /// A policy of a table.
    Policy,
    /// A privilege on an object.
    Grant,
}

impl Kind {
    /// As Postgres calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Schema => "schema",
            Kind::Extension => "extension",
            Kind::Table => "table",
            Kind::View => "view",
            Kind::MaterializedView => "materialized view",
            Kind::Sequence => "sequence",
            Kind::Index => "index",
            Kind::Type => "type",
            Kind::Domain => "domain",
            Kind::Label => "enum label",
            Kind::Function => "function",
            Kind::Column => "column",
            Kind::Constraint => "constraint",
            Kind::Trigger => "trigger",
            Kind::Policy => "policy",
            Kind::Grant => "grant",
        }
    }

    /// Tables, views, sequences and indexes share their names.
    pub fn is_relation(self) -> bool {
        matches!(
            self,
            Kind::Table | Kind::View | Kind::MaterializedView | Kind::Sequence | Kind::Index
        )
    }
}

/// A column as written.
#[derive(Debug, Clone)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// Its type; `serial` as what it stands for.
    pub type_name: TypeName,
    /// COLLATE.
    pub collation: Option<Name>,
    /// `serial`: a sequence gives its default.
    pub serial: bool,
    /// NOT NULL is written.
    pub not_null: bool,
    /// DEFAULT.
    pub default: Option<Expression>,
    /// GENERATED ALWAYS AS (...).
    pub generated: Option<Expression>,
    /// Not STORED (18).
    pub is_virtual: bool,
    /// `a`: ALWAYS, `d`: BY DEFAULT AS IDENTITY.
    pub identity: Option<char>,
    /// Other constraints.
    pub constraints: Vec<ConstraintDefinition>,
}

/// A foreign key as written.
#[derive(Debug, Clone)]
pub struct ForeignKeyDefinition {
    /// What it references.
    pub parent: Name,
    /// Columns there; none: its primary key.
    pub parent_columns: Vec<String>,
    /// `s`: SIMPLE, `f`: FULL.
    pub matching: char,
    /// ON UPDATE, as in `pg_constraint.confupdtype`.
    pub on_update: char,
    /// ON DELETE.
    pub on_delete: char,
}

/// What a constraint says.
#[derive(Debug, Clone)]
pub enum Rule {
    /// PRIMARY KEY.
    Primary,
    /// UNIQUE.
    Unique {
        /// NULLS NOT DISTINCT.
        nulls_not_distinct: bool,
    },
    /// CHECK.
    Check(Expression),
    /// REFERENCES.
    Foreign(ForeignKeyDefinition),
    /// EXCLUDE.
    Exclude(Exclusion),
}

/// An exclusion constraint as written.
#[derive(Debug, Clone)]
pub struct Exclusion {
    /// The index behind it.
    pub index: IndexDefinition,
    /// WITH: the operator of each of its parts.
    pub operators: Vec<Name>,
}

/// A constraint as written.
#[derive(Debug, Clone)]
pub struct ConstraintDefinition {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its columns; of a CHECK none.
    pub columns: Vec<String>,
    /// `USING INDEX`.
    pub using_index: Option<String>,
    /// What it says.
    pub rule: Rule,
    /// DEFERRABLE.
    pub deferrable: bool,
    /// INITIALLY DEFERRED.
    pub deferred: bool,
    /// NOT VALID.
    pub not_valid: bool,
    /// Not NOT ENFORCED (18).
    pub enforced: bool,
    /// WITHOUT OVERLAPS, PERIOD (18).
    pub period: bool,
}

/// One column or expression of an index.
#[derive(Debug, Clone)]
pub struct IndexPart {
    /// A column.
    pub column: Option<String>,
    /// Or an expression.
    pub expression: Option<Expression>,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST; by default where it is DESC.
    pub nulls_first: bool,
    /// A named operator class.
    pub operator_class: Option<String>,
    /// COLLATE.
    pub collation: Option<Name>,
}

/// An index as written.
#[derive(Debug, Clone)]
pub struct IndexDefinition {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its table.
    pub table: Name,
    /// `btree` ...
    pub method: String,
    /// UNIQUE.
    pub unique: bool,
    /// NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// Its keys.
    pub parts: Vec<IndexPart>,
    /// INCLUDE.
    pub including: Vec<String>,
    /// WHERE.
    pub predicate: Option<Expression>,
    /// CONCURRENTLY.
    pub concurrently: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
}

/// A parameter of a function.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// As in `pg_proc.proargmodes`.
    pub mode: char,
    /// Its type.
    pub type_name: TypeName,
    /// DEFAULT.
    pub default: Option<Expression>,
}

/// A function as written.
#[derive(Debug, Clone)]
pub struct FunctionDefinition {
    /// Its name.
    pub name: Name,
    /// PROCEDURE.
    pub procedure: bool,
    /// OR REPLACE.
    pub replace: bool,
    /// Types of the arguments by which it is told from others.
    pub arguments: Vec<TypeName>,
    /// All of them, columns of RETURNS TABLE included.
    pub parameters: Vec<Parameter>,
    /// RETURNS; `None`: a procedure, TABLE, or OUT arguments.
    pub returns: Option<TypeName>,
    /// RETURNS SETOF or TABLE.
    pub set: bool,
    /// LANGUAGE, in lower case.
    pub language: Option<String>,
    /// AS; `None`: BEGIN ATOMIC.
    pub body: Option<String>,
    /// BEGIN ATOMIC, RETURN.
    pub statements: Option<Expression>,
    /// `i`, `s`, `v`.
    pub volatility: char,
    /// STRICT.
    pub strict: bool,
    /// SECURITY DEFINER.
    pub security_definer: bool,
    /// LEAKPROOF.
    pub leakproof: bool,
    /// PARALLEL, as in `pg_proc.proparallel`.
    pub parallel: char,
    /// `search_path` and others that it sets; `None`: FROM CURRENT.
    pub sets: Vec<(String, Option<Expression>)>,
}

/// A domain as written.
#[derive(Debug, Clone)]
pub struct DomainDefinition {
    /// Its base type.
    pub base: TypeName,
    /// COLLATE.
    pub collation: Option<Name>,
    /// NOT NULL.
    pub not_null: bool,
    /// DEFAULT.
    pub default: Option<Expression>,
    /// CHECKs.
    pub checks: Vec<Expression>,
}

/// PARTITION BY as written.
#[derive(Debug, Clone)]
pub struct PartitionKey {
    /// `LIST`, `RANGE`, `HASH`.
    pub strategy: &'static str,
    /// A column or an expression, with what is written behind it.
    pub parts: Vec<(Option<String>, Option<Expression>, String)>,
}

/// An option of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceOption {
    /// AS.
    Type,
    /// INCREMENT.
    Increment,
    /// MINVALUE.
    Minimum,
    /// MAXVALUE.
    Maximum,
    /// START.
    Start,
    /// CACHE.
    Cache,
    /// CYCLE.
    Cycle,
    /// OWNED BY.
    Owner,
}

/// The value of an option of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SequenceValue {
    /// A number.
    Number(String),
    /// CYCLE, NO CYCLE.
    Yes(bool),
    /// The bare name of a type.
    Type(String),
    /// A column with its table; `["none"]`.
    Column(Vec<String>),
}

/// An option and its value; `None`: the default (NO MINVALUE).
pub type SequenceSetting = (SequenceOption, Option<SequenceValue>);

/// A trigger as written.
#[derive(Debug, Clone)]
pub struct TriggerDefinition {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: Name,
    /// OR REPLACE.
    pub replace: bool,
    /// As in `pg_trigger.tgtype`.
    pub kind: i16,
    /// UPDATE OF.
    pub columns: Vec<String>,
    /// What it runs.
    pub function: Name,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// WHEN.
    pub condition: Option<Expression>,
    /// CONSTRAINT, DEFERRABLE, INITIALLY DEFERRED.
    pub constraint: (bool, bool, bool),
    /// REFERENCING: OLD TABLE AS, NEW TABLE AS.
    pub transitions: (Option<String>, Option<String>),
}

/// A policy as written.
#[derive(Debug, Clone)]
pub struct PolicyDefinition {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: Name,
    /// As in `pg_policy.polcmd`: `*`, `r`, `a`, `w`, `d`.
    pub command: char,
    /// PERMISSIVE.
    pub permissive: bool,
    /// Sorted; `public` for everybody.
    pub roles: Vec<String>,
    /// USING.
    pub using: Option<Expression>,
    /// WITH CHECK.
    pub check: Option<Expression>,
}

/// What ALTER COLUMN changes.
#[derive(Debug, Clone)]
pub enum ColumnChange {
    /// TYPE, and COLLATE.
    Type(TypeName, Option<Name>),
    /// SET or DROP DEFAULT.
    Default(Option<Expression>),
    /// SET or DROP NOT NULL.
    NotNull(bool),
    /// ADD or DROP IDENTITY; IF EXISTS.
    Identity(Option<char>, bool),
    /// SET EXPRESSION (17).
    Expression(Expression),
}

/// An object as a statement names it.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Its name; of what belongs to a table its own name.
    pub name: Name,
    /// The table (of a label: the type) to which it belongs.
    pub on: Option<Name>,
    /// Of a function: its argument types, if they are written.
    pub arguments: Option<Vec<TypeName>>,
}

/// One thing that a statement does.
#[derive(Debug, Clone)]
pub enum Action {
    /// CREATE SCHEMA.
    CreateSchema {
        /// Its name.
        name: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// CREATE EXTENSION.
    CreateExtension {
        /// Its name.
        name: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// CREATE TABLE.
    CreateTable {
        /// Its name.
        name: Name,
        /// TEMPORARY: gone with the session.
        temporary: bool,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// Its columns.
        columns: Vec<ColumnDefinition>,
        /// Its own constraints.
        constraints: Vec<ConstraintDefinition>,
        /// LIKE, INHERITS, PARTITION OF.
        from: Vec<Name>,
        /// INHERITS; with a bound PARTITION OF.
        parents: Vec<Name>,
        /// FOR VALUES, DEFAULT.
        bound: Option<Expression>,
        /// PARTITION BY.
        partition_key: Option<PartitionKey>,
    },
    /// CREATE TABLE ... AS, CREATE MATERIALIZED VIEW.
    CreateTableAs {
        /// Its name.
        name: Name,
        /// A materialized view.
        materialized_view: bool,
        /// TEMPORARY.
        temporary: bool,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// Names of its columns, if they are written.
        columns: Vec<String>,
        /// What it shows.
        query: Option<Expression>,
    },
    /// ATTACH and DETACH PARTITION.
    Partition {
        /// The table that is or was partitioned.
        parent: Name,
        /// The partition.
        table: Name,
        /// FOR VALUES, DEFAULT; `None`: DETACH.
        bound: Option<Expression>,
    },
    /// INHERIT, NO INHERIT.
    Inherit {
        /// The child.
        table: Name,
        /// The parent.
        parent: Name,
        /// INHERIT.
        yes: bool,
    },
    /// ENABLE, DISABLE TRIGGER.
    Firing {
        /// Of which table.
        table: Name,
        /// Which.
        trigger: String,
        /// As in `pg_trigger.tgenabled`.
        state: char,
    },
    /// OWNER TO.
    Owner {
        /// Of what.
        target: Target,
        /// `None`: CURRENT_USER and the like.
        role: Option<String>,
    },
    /// ADD COLUMN.
    AddColumn {
        /// To which table.
        table: Name,
        /// What.
        column: ColumnDefinition,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// ALTER COLUMN.
    AlterColumn {
        /// Of which table.
        table: Name,
        /// Which.
        column: String,
        /// What.
        change: ColumnChange,
    },
    /// ADD CONSTRAINT.
    AddConstraint {
        /// To which table.
        table: Name,
        /// What.
        constraint: ConstraintDefinition,
    },
    /// VALIDATE CONSTRAINT.
    ValidateConstraint {
        /// Of which table.
        table: Name,
        /// Which.
        name: String,
    },
    /// ENABLE, DISABLE, FORCE, NO FORCE ROW LEVEL SECURITY.
    RowSecurity {
        /// Of which table.
        table: Name,
        /// FORCE or NO FORCE; else ENABLE or DISABLE.
        force: bool,
        /// ENABLE or FORCE.
        on: bool,
    },
    /// CREATE INDEX.
    CreateIndex(IndexDefinition),
    /// CREATE FUNCTION, CREATE PROCEDURE.
    CreateFunction(FunctionDefinition),
    /// CREATE TRIGGER.
    CreateTrigger(TriggerDefinition),
    /// CREATE POLICY.
    CreatePolicy(PolicyDefinition),
    /// CREATE TYPE ... AS ENUM.
    CreateEnum {
        /// Its name.
        name: Name,
        /// In order.
        labels: Vec<String>,
    },
    /// ALTER POLICY: what is not written stays.
    AlterPolicy {
        /// Which.
        name: String,
        /// Of which table.
        table: Name,
        /// TO.
        roles: Option<Vec<String>>,
        /// USING.
        using: Option<Expression>,
        /// WITH CHECK.
        check: Option<Expression>,
    },
    /// CREATE TYPE of another kind: a range, a base type.
    CreateType {
        /// Its name.
        name: Name,
    },
    /// CREATE TYPE ... AS (...).
    CreateComposite {
        /// Its name.
        name: Name,
        /// Names, types and collations.
        attributes: Vec<(String, TypeName, Option<Name>)>,
    },
    /// CREATE DOMAIN.
    CreateDomain {
        /// Its name.
        name: Name,
        /// What it is.
        domain: DomainDefinition,
    },
    /// ALTER TYPE ... ADD VALUE.
    AddLabel {
        /// The enum.
        name: Name,
        /// The label.
        label: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// CREATE SEQUENCE.
    CreateSequence {
        /// Its name.
        name: Name,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// As written.
        options: Vec<SequenceSetting>,
    },
    /// ALTER SEQUENCE.
    AlterSequence {
        /// Its name.
        name: Name,
        /// As written.
        options: Vec<SequenceSetting>,
        /// RESTART is written: where it stands is data.
        restarts: bool,
    },
    /// CREATE VIEW.
    CreateView {
        /// Its name.
        name: Name,
        /// OR REPLACE.
        replace: bool,
        /// Names of its columns, if they are written.
        columns: Vec<String>,
        /// What it shows.
        query: Expression,
    },
    /// DROP.
    Drop {
        /// What.
        target: Target,
        /// IF EXISTS.
        if_exists: bool,
        /// CASCADE.
        cascade: bool,
    },
    /// RENAME.
    Rename {
        /// What.
        target: Target,
        /// To what.
        to: String,
        /// IF EXISTS.
        if_exists: bool,
    },
    /// SET SCHEMA.
    SetSchema {
        /// What.
        target: Target,
        /// To where.
        to: String,
    },
    /// GRANT, REVOKE.
    Grant {
        /// REVOKE.
        revoke: bool,
        /// In upper case; none: ALL.
        privileges: Vec<String>,
        /// On what.
        targets: Vec<Target>,
        /// To whom; `public` for everybody.
        roles: Vec<String>,
    },
    /// COMMENT.
    Comment {
        /// On what.
        target: Target,
        /// `None`: removes it.
        text: Option<String>,
    },
    /// SET search_path; `None`: the default.
    SearchPath(Option<Vec<String>>),
    /// INSERT, UPDATE, DELETE, TRUNCATE, COPY, SELECT: what it changes is data.
    Data {
        /// The tables that it writes.
        tables: Vec<Name>,
    },
    /// It reads or writes a file, or runs a program.
    Outside {
        /// What.
        what: String,
    },
    /// DO, CALL, EXECUTE: what it does is not in the statement.
    Opaque {
        /// Why.
        what: String,
    },
    /// A transaction is begun or ended; a setting; psql's commands.
    Skipped {
        /// Why.
        what: String,
    },
    /// A part of the statement that is not compared.
    NotCompared {
        /// What.
        what: String,
        /// The object concerned, if it is known.
        target: Option<Target>,
    },
}
