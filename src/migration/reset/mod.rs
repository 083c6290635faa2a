//! Takes back what a script made, and only where that loses nothing: no rows, no values, nothing that somebody else stands on, nothing that
//! is not as the script wrote it.
//!
//! ```text
//! plan      what the script made → statements in the order of dependency, and what is kept, with the reason; reads only
//! loss      what goes with an object, and what of it can be copied
//! execute   tables locked, planned again, rows and values copied, dropped
//! restore   the copied rows put back
//! values    values of columns, copied by the primary keys of their rows, and put back
//! ```

mod execute;
mod loss;
mod own;
mod plan;
mod restore;
mod values;

pub use execute::reset;
pub use restore::restore;

use crate::pg::Settings;
use crate::plan::Mode;

/// Values as text, and back again, whatever the session has set: as in every call (`settings::EXACT_TEXTS`), and in one time zone, because
/// nothing that a caller typed is read in between.
fn exact_texts() -> Settings {
    Settings::push(&[("timezone", "UTC")])
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
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
pub struct Taken {
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
