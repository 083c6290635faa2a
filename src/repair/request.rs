//! What a repair is asked for, and what it came to.

use pgrx::prelude::*;
use serde_json::Value;

use crate::plan::{Mode, Tally};
use crate::problem::Problem;

/// What is done to a row that violates its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The reference becomes NULL; the old values are kept.
    Nullify,
    /// As nullify, with a copy of the row.
    Quarantine,
    /// The missing parent is created.
    CreateParent,
}

/// Which rows are repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// No parent.
    Orphan,
    /// A parent of another tenant.
    CrossTenant,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct RepairRequest {
    /// As typed.
    pub table: String,
    /// As typed: `customer_id`, `(tenant_id, ref)`, or as `validate_tenant_fks` shows it.
    pub columns: String,
    /// What to do.
    pub action: Action,
    /// Count only.
    pub mode: Mode,
    /// Which parent, where the columns have more than one reference; as typed.
    pub parent: Option<String>,
    /// Which rows.
    pub violation: Violation,
    /// Values of the columns of new parents, a JSON object.
    pub set: Option<Value>,
    /// Only these rows.
    pub only_where: Option<String>,
    /// See `validate_tenant_fks`.
    pub root: Option<String>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// As displayed.
    pub table: String,
    /// As typed.
    pub columns: String,
    /// As displayed.
    pub parent: String,
    /// Rows that violate the reference: `repaired` and the sum of `reasons`.
    pub violations: i64,
    /// Rows that do no longer.
    pub repaired: i64,
    /// Parents that are new.
    pub created: i64,
    /// Rows left as they were, by reason.
    pub reasons: Tally,
    /// `mend.runs.run_id` of a real run.
    pub run_id: Option<i64>,
    /// What else there is to know.
    pub note: Option<String>,
}

impl Action {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Nullify => "nullify",
            Action::Quarantine => "quarantine",
            Action::CreateParent => "create_parent",
        }
    }
}

impl std::str::FromStr for Action {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let all = [Action::Nullify, Action::Quarantine, Action::CreateParent];
        all.into_iter().find(|action| action.as_str() == text).ok_or_else(|| {
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("there is no action \"{text}\""),
            )
            .hint("action is 'nullify', 'create_parent' or 'quarantine'; nothing ever deletes rows")
        })
    }
}

impl Violation {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Violation::Orphan => "orphan",
            Violation::CrossTenant => "cross_tenant",
        }
    }
}

impl std::str::FromStr for Violation {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let all = [Violation::Orphan, Violation::CrossTenant];
        all.into_iter()
            .find(|violation| violation.as_str() == text)
            .ok_or_else(|| {
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("there is no violation \"{text}\""),
                )
                .hint("violation is 'orphan' (default) or 'cross_tenant'")
            })
    }
}
