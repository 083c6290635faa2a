//! Carries out plans: counted dry, for real with proof, and the record of it.
//!
//! ```text
//! prepare     names, preflight, guard → Blueprint          (nothing is written, everything wrong is reported at once)
//! count       the classification, counted: the dry run, and the proof
//! interpret   programs carried out: locks, attempts, writes, proof, corrections; ledger: what they keep, and the record
//! steps       several rules as one call; written: what it wrote, proved at one moment
//! ```

mod access;
mod attempts;
mod condition;
mod count;
pub mod current_columns;
mod execute;
pub mod hold;
pub mod interpret;
pub mod ledger;
pub mod obstacles;
mod outcome;
mod party;
mod placement;
mod prepare;
pub mod query;
mod reader;
pub mod record;
mod session;
pub mod state_tables;
mod steps;
mod surroundings;
pub mod tenant_keys;
mod tenants;
mod written;
mod written_parts;

pub use crate::plan::program::PASSES;
pub use access::{readable, updatable};
pub use attempts::attempts;
pub use condition::only_where;
pub use execute::{coverage, execute_run, simulate_run, sql, unfilled};
pub use outcome::Outcome;
pub use party::{PartyRequest, party};
pub use prepare::{PrepareOptions, prepare, who_reads};
pub use reader::Reader;
pub use session::{Session, register_settings};
pub use steps::{RuleSequence, RuleStep, together};
pub use surroundings::{in_one_time_zone, lock, may_write, settings, try_lock};
pub use tenants::{Coverage, TenantKeysRequest, tenant_coverage, tenant_keys, tenants};
pub use written::Origin;
pub use written_parts::Part;
