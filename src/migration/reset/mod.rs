//! Takes back what a script made, and only where that loses nothing: no rows, no values, nothing that somebody else stands on, nothing that
//! is not as the script wrote it.
//!
//! ```text
//! plan      what the script made → statements in the order of dependency, and what is kept, with the reason; reads only
//! loss      what goes with an object, and what of it can be copied
//! execute   tables locked, planned again, rows and values copied, dropped
//! values    values of columns, copied by the primary keys of their rows
//! ```
//! `undo` puts back what was copied.

mod created_objects;
mod execute;
mod loss;
mod plan;
mod values;

pub use execute::reset;

use crate::plan::Mode;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct ResetRequest {
    /// The script.
    pub script: String,
    /// Count only.
    pub mode: Mode,
    /// Objects that are dropped although that loses something.
    pub include: Vec<String>,
    /// For `lock_timeout`.
    pub lock_timeout: String,
}

/// What becomes of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetObject {
    /// `table` ...
    pub kind: String,
    /// As displayed.
    pub object: String,
    /// The statement that takes it back; `None`: it is kept.
    pub statement: Option<String>,
    /// Why it is kept.
    pub reason: Option<String>,
    /// Rows of a table.
    pub rows: Option<i64>,
}
