//! Which tenant a row belongs to: root + table → shared, columns of its own, or ranked paths. The one answer for guard, `tenant =>`,
//! tenant columns, coverage, checks, parents, repairs, locking in and report.
//!
//! ```text
//! root       the table that holds the tenants
//! keys       which columns hold its key, by which paths each gets there, and in which order they are filled
//! resolver   the tenant of the rows of a table, as checks and repairs ask for it
//! guard      what is compared where a value leads to another row
//! ```

pub mod guard;
pub mod keys;
pub mod resolver;
pub mod root;
