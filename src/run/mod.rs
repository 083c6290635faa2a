//! Executes plans: dry, for real with proof, and the record of it.
//!
//! ```text
//! prepare   names, preflight, guard → Blueprint            (nothing is written, everything wrong is reported at once)
//! dry       the classification, counted
//! real      write, count again, write again if more turned up meanwhile, correct what sources changed under us,
//!           compare the numbers; record
//! ```

mod access;
mod attempts;
mod execute;
pub mod hold;
pub mod interpret;
pub mod ledger;
pub mod obstacles;
mod outcome;
mod party;
mod prepare;
pub mod query;
mod reader;
pub mod record;
mod session;
mod steps;
pub mod tenant_keys;
mod tenants;
mod written;

pub use crate::plan::program::PASSES;
pub use access::{readable, updatable};
pub use attempts::attempts;
pub use execute::{coverage, dry, lock, may_write, real, settings, sql, try_lock, unfilled};
pub use outcome::Outcome;
pub use party::{PartyRequest, party};
pub use prepare::{Request, prepare, who_reads};
pub use reader::Reader;
pub use session::{Session, register_settings};
pub use steps::{Origin, Sequence, Step, together};
pub use tenants::{Coverage, TenantRequest, tenant_coverage, tenant_keys, tenants};
pub use written::{Part, as_one};
