//! The rule: what a person or a program asks for, and the same thing after every name has been looked up.
//!
//! [`RuleSpec`] is typed words (SQL arguments or JSON); [`Rule`] is catalog ids. `check` leads from one to the other and
//! reports everything that is wrong with a spec at once.

pub mod check;
mod path;

use serde::{Deserialize, Serialize};

pub use path::{Path, PathHop, typed};

use crate::catalog::{Catalog, Table};
use crate::problem::Problem;

/// A rule as asked for. As JSON: `{"table": "WaitlistEntry", "column": "clientPartyId", "sources":
/// ["contactId -> Contact.partyId"], "on_conflict": "skip", "only_where": "status = 'OPEN'", "tenant_guard": true,
/// "tenant": "7"}`; all but table and column may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// The table to fill, as typed.
    pub table: String,
    /// The column to fill, as typed.
    pub column: String,
    /// Source paths in order of precedence; `None`: inferred.
    #[serde(default)]
    pub sources: Option<Vec<SourceSpec>>,
    /// What happens where sources disagree.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// A condition over the target's columns; rows for which it is not true are `excluded`.
    #[serde(default)]
    pub only_where: Option<String>,
    /// Refuse values whose row belongs to another tenant.
    #[serde(default = "yes")]
    pub tenant_guard: bool,
    /// Restrict the run to the rows of this tenant (the tenant's key as text).
    #[serde(default)]
    pub tenant: Option<String>,
    /// May values that are there be replaced?
    #[serde(default, skip_serializing_if = "Overwrite::is_nothing")]
    pub overwrite: Overwrite,
    /// The row that a value means, where no foreign key says so; a value without such a row is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<ReferenceSpec>,
}

/// A key that a column means without a foreign key: `{"table": "Party", "column": "id"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceSpec {
    /// The parent table, as typed.
    pub table: String,
    /// Its key column, as typed.
    pub column: String,
}

fn yes() -> bool {
    true
}

/// A source path as text or spelled out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SourceSpec {
    /// `"contactId -> Contact.partyId"`
    Text(String),
    /// `{"columns": ["contactId"], "hops": [{"table": "Contact", "columns": ["partyId"]}]}`
    Path(Path),
}

/// May values that are there be replaced?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// Never.
    #[default]
    Nothing,
    /// Where the sources agree on another value; the old one is kept in `mend.replaced_values`.
    Mismatched,
}

impl Overwrite {
    fn is_nothing(&self) -> bool {
        *self == Overwrite::Nothing
    }
}

impl std::str::FromStr for Overwrite {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text {
            "nothing" => Ok(Overwrite::Nothing),
            "mismatched" => Ok(Overwrite::Mismatched),
            other => Err(Problem::new(
                pgrx::PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("overwrite cannot be \"{other}\""),
            )
            .detail("it is one of 'nothing', 'mismatched'")
            .hint("overwrite => 'mismatched' replaces values that the sources contradict and keeps the old ones")),
        }
    }
}

/// What happens where sources give different values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// Leave the row alone and count it as `conflict`.
    #[default]
    Skip,
    /// The first source that gives a value wins.
    First,
    /// Raise an error, nothing is written.
    Error,
    /// As `skip`, and two sources that are set count as a conflict even when they agree.
    AnyTwo,
}

impl std::str::FromStr for OnConflict {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text {
            "skip" => Ok(OnConflict::Skip),
            "first" => Ok(OnConflict::First),
            "error" => Ok(OnConflict::Error),
            "any_two" => Ok(OnConflict::AnyTwo),
            other => Err(Problem::new(
                pgrx::PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("on_conflict cannot be \"{other}\""),
            )
            .detail("it is one of 'skip', 'first', 'error', 'any_two'")
            .hint("on_conflict => 'skip' leaves rows whose sources disagree alone and counts them as conflict")),
        }
    }
}

/// A rule whose names have been looked up.
#[derive(Debug, Clone)]
pub struct Rule {
    /// pg_class.oid of the target table.
    pub table: u32,
    /// Number of the target column.
    pub column: i16,
    /// In order of precedence; may be empty only where nothing could be inferred and that is not an error.
    pub sources: Vec<Source>,
    /// What happens where sources disagree.
    pub on_conflict: OnConflict,
    /// With every name qualified, for our statements and for the record.
    pub only_where: Option<Condition>,
    /// May values that are there be replaced?
    pub overwrite: Overwrite,
    /// Guard asked for.
    pub tenant_guard: bool,
    /// Restriction asked for.
    pub tenant: Option<String>,
}

/// A condition of the caller.
#[derive(Debug, Clone)]
pub struct Condition {
    /// With bare column names: what can be passed as `only_where` under any search_path.
    pub portable: String,
    /// With the alias `t` in front of columns: as embedded in our statements.
    pub qualified: String,
    /// As Postgres would keep it, for each part that the caller typed.
    pub trees: Vec<String>,
}

impl Condition {
    /// Both hold.
    pub fn and(before: Option<Condition>, more: &Condition) -> Condition {
        match before {
            None => more.clone(),
            Some(before) => Condition {
                portable: format!("({}) AND ({})", before.portable, more.portable),
                qualified: format!("({}) AND ({})", before.qualified, more.qualified),
                trees: [before.trees, more.trees.clone()].concat(),
            },
        }
    }
}

/// An expression over a row of the target, called `t`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// In words.
    pub name: String,
    /// SQL, of exactly this type.
    pub sql: String,
    /// pg_type.oid of its value.
    pub type_oid: u32,
    /// As Postgres would keep what the caller typed of it; `None`: it is ours.
    pub tree: Option<String>,
}

/// What a source starts from in a row of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// One of its columns, by number.
    Column(i16),
    /// Something computed from it.
    Expression(Expression),
}

impl Operand {
    /// Its number, if it is a column.
    pub fn column(&self) -> Option<i16> {
        match self {
            Operand::Column(number) => Some(*number),
            Operand::Expression(_) => None,
        }
    }
}

/// Columns as operands.
pub fn operands(columns: &[i16]) -> Vec<Operand> {
    columns.iter().copied().map(Operand::Column).collect()
}

/// One way to derive the value, by catalog ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What of the target row is looked up; without hops, the value itself.
    pub start: Vec<Operand>,
    /// Parents on the way.
    pub hops: Vec<Hop>,
}

/// One parent on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The parent table.
    pub parent: u32,
    /// The columns that are compared with the previous hop's.
    pub key: Vec<i16>,
    /// The columns that are taken.
    pub columns: Vec<i16>,
}

impl Source {
    /// A source that starts from columns of the target row.
    pub fn of_columns(columns: &[i16], hops: Vec<Hop>) -> Source {
        Source {
            start: operands(columns),
            hops,
        }
    }

    /// The columns of the target row that it starts from.
    pub fn columns(&self) -> Vec<i16> {
        self.start.iter().filter_map(Operand::column).collect()
    }

    /// Does it start from something computed?
    pub fn is_computed(&self) -> bool {
        self.start.iter().any(|operand| operand.column().is_none())
    }

    /// The table and column whose value is taken (the target's own where there is no hop); `None`: it is computed.
    pub fn value(&self, target: u32) -> Option<(u32, i16)> {
        match self.hops.last() {
            Some(hop) => Some((hop.parent, hop.columns[0])),
            None => Some((target, self.start.first()?.column()?)),
        }
    }

    /// Does it lead through this column of this table?
    pub fn reads(&self, table: u32, column: i16) -> bool {
        self.hops
            .iter()
            .any(|hop| hop.parent == table && hop.columns.contains(&column))
    }

    /// Does each key on the way find at most one row?
    pub fn is_unique(&self, catalog: &Catalog) -> bool {
        self.hops
            .iter()
            .all(|hop| catalog.table(hop.parent).is_some_and(|t| t.is_unique(&hop.key)))
    }

    /// The path in the grammar, with keys spelled out where they are not the primary key.
    pub fn to_path(&self, catalog: &Catalog, target: &Table) -> Path {
        self.path(catalog, target, |parent| shown_table(catalog, parent), false)
    }

    /// The path as it means the same under any search_path and whatever foreign keys come later.
    pub fn to_portable_path(&self, catalog: &Catalog, target: &Table) -> Path {
        self.path(catalog, target, portable, true)
    }

    fn path(&self, catalog: &Catalog, target: &Table, shown: impl Fn(&Table) -> String, keys: bool) -> Path {
        let names = |table: &Table, columns: &[i16]| -> Vec<String> {
            table.names_of(columns).into_iter().map(typed).collect()
        };
        let hops = self
            .hops
            .iter()
            .filter_map(|hop| catalog.table(hop.parent).map(|parent| (hop, parent)))
            .map(|(hop, parent)| {
                let implied = parent.primary_key().is_some_and(|key| key.columns == hop.key);
                PathHop {
                    table: shown(parent),
                    key: (keys || !implied).then(|| names(parent, &hop.key)),
                    columns: names(parent, &hop.columns),
                }
            })
            .collect();
        let start = self.start.iter().filter_map(|operand| match operand {
            Operand::Column(number) => target.column(*number).map(|column| typed(&column.name)),
            Operand::Expression(expression) => Some(expression.name.clone()),
        });
        Path {
            columns: start.collect(),
            hops,
        }
    }
}

/// A table with its schema, each in quotes.
fn portable(table: &Table) -> String {
    format!(
        "\"{}\".\"{}\"",
        table.schema.replace('"', "\"\""),
        table.name.replace('"', "\"\"")
    )
}

/// A table as the path grammar reads it: bare where that finds it, quoted only where the grammar needs it.
fn shown_table(catalog: &Catalog, table: &Table) -> String {
    if catalog.visible(table) {
        typed(&table.name)
    } else {
        format!("{}.{}", typed(&table.schema), typed(&table.name))
    }
}

impl Rule {
    /// The rule as it is kept in `mend.runs`: complete, so that `backfill(rule)` does the same again.
    ///
    /// `references`: table and column of a reference that no foreign key declares.
    pub fn to_spec(&self, catalog: &Catalog, references: Option<(u32, i16)>) -> Option<RuleSpec> {
        let references = references.and_then(|(parent, column)| {
            let parent = catalog.table(parent)?;
            Some(ReferenceSpec {
                table: portable(parent),
                column: parent.column(column)?.quoted.clone(),
            })
        });
        let table = catalog.table(self.table)?;
        let column = table.column(self.column)?;
        Some(RuleSpec {
            table: format!("{}.{}", table.quoted_schema, table.quoted_name),
            column: column.quoted.clone(),
            sources: Some(
                self.sources
                    .iter()
                    .map(|s| SourceSpec::Text(s.to_portable_path(catalog, table).to_string()))
                    .collect(),
            ),
            on_conflict: self.on_conflict,
            only_where: self.only_where.as_ref().map(|c| c.portable.clone()),
            tenant_guard: self.tenant_guard,
            tenant: self.tenant.clone(),
            overwrite: self.overwrite,
            references,
        })
    }
}
