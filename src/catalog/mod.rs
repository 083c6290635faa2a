//! The database as typed values: tables, columns, keys, foreign keys, and what a target table enforces.
//!
//! `load` reads the whole graph once per call into a [`Catalog`]; `details` adds, for the one table that will be
//! written, the constraints, indexes, triggers and expressions that decide whether a value is accepted. Nothing else in
//! the extension asks pg_catalog. Everything here is plain data, so the rooms behind it can be tested without a server.

mod code;
mod data_type;
mod details;
mod guarantees;
mod insertion;
mod load;
mod resolve;
mod types;

pub use code::{all_are_plain, domains_of_others_run_code, is_plain, texts_can_be_read};
pub use data_type::{Operator, Type, numeric_modifier};
pub use details::{Check, Details, Exclusion, UniqueIndex};
pub use guarantees::{Guarantees, Index, NotNullCheck, Policy, policies};
pub use insertion::Insertion;
pub use load::load;
pub use resolve::ResolveError;
#[cfg(test)]
pub use types::testing;
pub use types::{Catalog, Column, DeclaredKey, DeclaredReference, ForeignKey, Key, State, Table};
