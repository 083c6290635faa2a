//! What is set and locked around the statements of a call.

use pgrx::prelude::*;

use super::session::Session;
use crate::catalog::Table;
use crate::pg::{self, Settings};
use crate::problem::Problem;
use crate::settings::SAFE_PATH;

/// Settings under which our statements are planned: policies must not hide rows, and compiling a plan takes longer than
/// most counts. A dry run is READ ONLY, so that a function in a CHECK cannot write either.
pub fn settings(dry_run: bool) -> Settings {
    // search_path and the texts as well, so that what a statement sets for its own execution ends with this guard.
    let mut settings = vec![("search_path", SAFE_PATH), ("row_security", "off"), ("jit", "off")];
    settings.extend(pg::texts_to_put_back());
    if dry_run {
        settings.push(("transaction_read_only", "on"));
    }
    Settings::push(&settings)
}

/// Keeps two runs off the same table until the end of the transaction.
pub fn lock(session: &Session, table: &Table) {
    pg::lock_for_us(session.state.runs, table.oid, true);
}

/// As [`lock`], but does not wait: false where another session has it.
pub fn try_lock(session: &Session, table: &Table) -> bool {
    pg::lock_for_us(session.state.runs, table.oid, false)
}

/// Errors: 25006 in a READ ONLY transaction and on a standby; 25000 in one that is not READ COMMITTED: what others have committed since
/// it began would be overlooked, and proved with the same old eyes.
pub fn may_write() -> Result<(), Problem> {
    if pg::is_read_only() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "a real run cannot be done in a read-only transaction or on a standby",
        )
        .hint("dry_run => true works here; run for real on the primary, outside BEGIN READ ONLY"));
    }
    if pg::keeps_one_snapshot() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            "a real run must see what others have committed since the transaction began",
        )
        .detail("the transaction is REPEATABLE READ or SERIALIZABLE; a source that changed meanwhile would be written as it was, and found right")
        .hint("BEGIN ISOLATION LEVEL READ COMMITTED; where it is the default: SET default_transaction_isolation = 'read committed'"));
    }
    Ok(())
}

/// For values that are copied as texts and read back: in one time zone, because nothing that a caller typed is read in between.
pub fn in_one_time_zone() -> Settings {
    Settings::push(&[("timezone", "UTC")])
}
