//! What a check of one reference found.

use crate::catalog::State;
use crate::pg::Jsonb;

/// What was found about one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// As displayed.
    pub table: String,
    /// As typed.
    pub columns: String,
    /// As displayed; `None` where nothing says which table is meant.
    pub parent: Option<String>,
    /// As typed.
    pub key: Option<String>,
    /// The foreign key.
    pub constraint: Option<String>,
    /// How far Postgres vouches for it.
    pub state: Option<State>,
    /// Rows whose reference is set: each was looked up.
    pub rows_checked: i64,
    /// Rows that find no parent.
    pub orphans: Option<i64>,
    /// Rows whose parent is another tenant's; `None`: not compared.
    pub cross_tenant: Option<i64>,
    /// Rows whose own tenant is NULL.
    pub null_tenant: Option<i64>,
    /// Rows whose parent's tenant is NULL.
    pub parent_null_tenant: Option<i64>,
    /// What it comes to.
    pub verdict: Verdict,
    /// Keys of rows per kind of violation.
    pub sample: Option<Jsonb>,
    /// The next call; of what was not checked, why.
    pub fix: Option<String>,
    /// The declaration that the row rests on: whose it is, and what it says.
    pub declaration: Option<String>,
}

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// At least one row was looked up, and nothing is wrong.
    Ok,
    /// Something is.
    Violations,
    /// Nothing was looked up.
    NotChecked,
}

impl Verdict {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Violations => "violations",
            Verdict::NotChecked => "not_checked",
        }
    }
}

impl Checked {
    /// Rows that violate the reference or cannot be judged, by kind.
    pub fn kinds(&self) -> [(&'static str, Option<i64>); 4] {
        [
            ("orphans", self.orphans),
            ("cross_tenant", self.cross_tenant),
            ("null_tenant", self.null_tenant),
            ("parent_null_tenant", self.parent_null_tenant),
        ]
    }
}
