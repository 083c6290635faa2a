//! Creating the missing parents of rows, and linking them: one parent per identity, found by it first.
//!
//! ```text
//! identity   what was asked → parent, identity, other values, as SQL over the child row; everything wrong at once
//! groups     rows without a parent, one group per identity: what it would be given, or why it cannot be created; pure
//! execute    dry: groups stand in for parents, and the rows are classified as in any backfill
//! write      created, linked, proved
//! party      the party model: contacts, organizations and users get a party first, then everything takes theirs
//! propose    what the identity could be, where the call does not say
//! ```
//!
//! The rows are linked by the same rule that `backfill` would use, whose source starts from computed values instead of columns:
//! reasons, tenant guard, constraints and the proof are the same ones.

mod column_expressions;
mod execute;
mod groups;
mod identity;
mod page;
mod party;
mod placeholder_key;
mod propose;
mod statistics;
mod tenant;
mod write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use execute::{Parents, backfill_parents};
pub use party::{OfParty, party};
pub use statistics::{OfTenant, by_tenant};

use crate::rule::OnConflict;

/// What was asked for; also the JSON form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentsRequest {
    /// The table whose rows lack a parent, as typed.
    pub table: String,
    /// The column that references it, as typed.
    pub column: String,
    /// Parent column → expression over the row: which rows share a parent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matched: Option<Map<String, Value>>,
    /// Parent column → expression: what else a new parent gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Map<String, Value>>,
    /// Parent column → `trim`, `casefold`, `spaces`, or several of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Map<String, Value>>,
    /// Only rows of this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only these rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_where: Option<String>,
    /// What happens where rows that share a parent give it different values.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// At most so many rows are linked in this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<i64>,
    /// `customers` or `customers(id)`; `None`: what the column references.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// See `validate_tenant_fks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}
