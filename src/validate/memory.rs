//! What is set around the statements that read whole tables.

use pgrx::prelude::*;

use super::pass::Pass;
use crate::pg::Settings;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::{Session, readable};

/// Settings under which our statements only read, and read every row.
pub fn reading() -> Settings {
    Settings::push(&[("row_security", "off"), ("jit", "off"), ("transaction_read_only", "on")])
}

/// How much memory a statement may use. Like Postgres's own validation of a foreign key, a pass may use
/// maintenance_work_mem (RI_Initial_Check in ri_triggers.c), shared among its joins.
pub struct Memory {
    work: i64,
    maintenance: i64,
}

impl Memory {
    /// Reads the caller's settings, in kilobytes.
    ///
    /// Errors: those of SPI only.
    pub fn read() -> Result<Memory, Problem> {
        let sql = "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) / 1024,
                          pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) / 1024";
        let (work, maintenance) = Spi::connect(|client| client.select(sql, None, &[])?.first().get_two::<i64, i64>())?;
        Ok(Memory {
            work: work.unwrap_or(4096),
            maintenance: maintenance.unwrap_or(4096),
        })
    }

    /// Holds until dropped.
    pub fn for_joins(&self, joins: usize) -> Settings {
        let share = self.maintenance / joins.max(1) as i64;
        Settings::push(&[("work_mem", &format!("{}kB", share.max(self.work)))])
    }
}

/// Adds what keeps the caller from reading what the pass reads.
pub fn may_be_read(session: &Session, pass: &Pass, problems: &mut Problems) {
    for (oid, columns) in pass.reads() {
        if let Some(table) = session.catalog.table(*oid) {
            readable(session, table, columns, false, problems);
        }
    }
}
