//! Reading results as texts, and several statements at one and the same moment.
//!
//! What pgrx's own accessors return is copied into the memory context above SPI's, which is the transaction's: it stays there until the
//! end of the transaction. Here everything is copied into Rust's own memory, and SPI's goes with SPI.

use std::ffi::{CStr, CString};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use serde::de::DeserializeOwned;

use super::has_transaction_id;
use crate::problem::Problem;

/// One moment: what is committed by then, and what this transaction has written. Ends when it is dropped.
pub struct Instant(());

impl Instant {
    /// From now on statements that only read see what is there now.
    pub fn now() -> Instant {
        // SAFETY: called inside a transaction, as every function call is. As SPI does for a statement that is not read-only.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        Instant(())
    }

    /// As [`Instant::now`], also in a transaction that keeps its first snapshot.
    pub fn latest() -> Instant {
        // SAFETY: as in `now`.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        Instant(())
    }

    /// From now on, what this transaction has written since is seen as well; what others have committed since is not.
    ///
    /// Call it only while no later instant is in force.
    pub fn with_own_writes(&self) {
        // SAFETY: the snapshot that is active is the copy that `now` pushed: nobody else refers to it.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::UpdateActiveSnapshotCommandId();
        }
    }

    /// [`Instant::now`] in a transaction that has written: there, as SPI has it, each statement sees what is committed by then; in any
    /// other, what its caller sees.
    pub fn of_statement() -> Option<Instant> {
        has_transaction_id().then(Instant::now)
    }
}

impl Drop for Instant {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction pops it.
        if !std::thread::panicking() {
            // SAFETY: pushed by `now`, and whatever was pushed since has been popped by then.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}

/// A row as texts.
pub type Texts = Vec<Option<String>>;

/// The only row of a statement that reads. It sees what is there at the [`Instant`] that is in force, else what its caller sees.
///
/// * `parameters`: all of type text.
///
/// Errors: those of the statement; XX000 where it returns no row.
pub fn read_row(sql: &str, parameters: &[String]) -> Result<Texts, Problem> {
    read_rows(sql, parameters)?.into_iter().next().ok_or_else(|| {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "a statement that counts returned nothing",
        )
        .hint("this is a bug in pg_mend: please report it with the call that you made")
    })
}

/// As [`read_row`], all rows.
///
/// Errors: those of the statement.
pub fn read_rows(sql: &str, parameters: &[String]) -> Result<Vec<Texts>, Problem> {
    let arguments: Vec<DatumWithOid> = parameters.iter().map(|value| value.as_str().into()).collect();
    read(sql, &arguments)
}

/// The only value of a statement that reads, which is JSON. In a transaction that has written, it sees what is committed by now.
///
/// Errors: those of the statement; XX000 where the JSON does not fit the type.
pub fn read_json<T: DeserializeOwned>(sql: &str, arguments: &[DatumWithOid]) -> Result<T, Problem> {
    let _now = Instant::of_statement();
    let rows = read(sql, arguments)?;
    let text = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    Ok(serde_json::from_str(text.as_deref().unwrap_or("null"))?)
}

fn read(sql: &str, arguments: &[DatumWithOid]) -> Result<Vec<Texts>, Problem> {
    let text = CString::new(sql).map_err(|_| zero_byte())?;
    let (mut types, mut values, nulls) = split(arguments);
    Spi::connect(|_| {
        // SAFETY: SPI is connected; all pointers live as long as the call. Read-only, the statement takes the snapshot that is active; a
        // row limit of 0 is what lets it use parallel workers.
        unsafe {
            let status = pg_sys::SPI_execute_with_args(
                text.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_ptr(),
                true,
                0,
            );
            Spi::check_status(status)?;
            Ok(texts())
        }
    })
}

/// A statement that writes and returns rows, run to its end and handed over in parts: Postgres keeps what it returned in a file where
/// that is much.
pub struct Returned {
    portal: CString,
}

impl Returned {
    /// Opens it; it runs when the first rows are asked for.
    ///
    /// * `parameters`: all of type text.
    ///
    /// Errors: those of the statement.
    pub fn of(sql: &str, parameters: &[String]) -> Result<Returned, Problem> {
        let text = CString::new(sql).map_err(|_| zero_byte())?;
        let arguments: Vec<DatumWithOid> = parameters.iter().map(|value| value.as_str().into()).collect();
        let (mut types, mut values, nulls) = split(&arguments);
        Spi::connect_mut(|_| {
            // SAFETY: as in `read`; the portal lives until it is closed or the transaction ends, its name is copied.
            unsafe {
                let portal = pg_sys::SPI_cursor_open_with_args(
                    std::ptr::null(),
                    text.as_ptr(),
                    types.len() as i32,
                    types.as_mut_ptr(),
                    values.as_mut_ptr(),
                    nulls.as_ptr(),
                    false,
                    0,
                );
                Ok(Returned {
                    portal: CStr::from_ptr((*portal).name).to_owned(),
                })
            }
        })
    }

    /// The next rows, at most `most`; none at the end, and then it is closed.
    ///
    /// Errors: those of the statement; 34000 where somebody closed it.
    pub fn next(&self, most: usize) -> Result<Vec<Texts>, Problem> {
        // A session of its own for each part, because only its end frees the rows.
        Spi::connect_mut(|_| {
            // SAFETY: SPI is connected; the portal is looked up by its name, which is NUL-terminated.
            unsafe {
                let portal = pg_sys::SPI_cursor_find(self.portal.as_ptr());
                if portal.is_null() {
                    return Err(Problem::new(
                        PgSqlErrorCode::ERRCODE_INVALID_CURSOR_NAME,
                        "a trigger has closed what a run of pg_mend reads",
                    )
                    .hint("ALTER TABLE ... DISABLE TRIGGER ... for the run, in the same transaction"));
                }
                pg_sys::SPI_cursor_fetch(portal, true, most as std::ffi::c_long);
                let rows = texts();
                if rows.is_empty() {
                    pg_sys::SPI_cursor_close(portal);
                }
                Ok(rows)
            }
        })
    }
}

/// The rows of the last statement of SPI.
///
/// # Safety
/// SPI is connected, and its last call returned rows.
unsafe fn texts() -> Vec<Texts> {
    // SAFETY: the caller's promise; each value is copied, then freed.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        if table.is_null() {
            return vec![];
        }
        let width = (*(*table).tupdesc).natts;
        (0..pg_sys::SPI_processed as usize)
            .map(|row| {
                let tuple = *(*table).vals.add(row);
                (1..=width)
                    .map(|column| {
                        let value = pg_sys::SPI_getvalue(tuple, (*table).tupdesc, column);
                        (!value.is_null()).then(|| {
                            let text = CStr::from_ptr(value).to_string_lossy().into_owned();
                            pg_sys::pfree(value.cast());
                            text
                        })
                    })
                    .collect()
            })
            .collect()
    }
}

/// Arguments as SPI takes them: types, values, `n` for NULL.
fn split(arguments: &[DatumWithOid]) -> (Vec<pg_sys::Oid>, Vec<pg_sys::Datum>, Vec<std::ffi::c_char>) {
    let value = |argument: &DatumWithOid| argument.datum().map(|datum| datum.sans_lifetime());
    (
        arguments.iter().map(DatumWithOid::oid).collect(),
        arguments
            .iter()
            .map(|a| value(a).unwrap_or(pg_sys::Datum::from(0_usize)))
            .collect(),
        arguments
            .iter()
            .map(|a| {
                if value(a).is_some() {
                    b' ' as std::ffi::c_char
                } else {
                    b'n' as std::ffi::c_char
                }
            })
            .collect(),
    )
}

fn zero_byte() -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
        "the statement contains a zero byte",
    )
}
