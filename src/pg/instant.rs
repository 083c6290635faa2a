//! Several statements that see the database at one and the same moment.

use std::ffi::{CStr, CString};

use pgrx::prelude::*;

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

/// The only row of a statement that reads, as texts. It sees what is there at the [`Instant`] that is in force, else what its caller sees.
///
/// * `parameters`: all of type text.
///
/// Errors: those of the statement; XX000 where it returns no row.
pub fn read_row(sql: &str, parameters: &[String], width: usize) -> Result<Vec<Option<String>>, Problem> {
    let Ok(text) = CString::new(sql) else {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            "the statement contains a zero byte",
        ));
    };
    let mut types = vec![pg_sys::TEXTOID; parameters.len()];
    let mut values: Vec<pg_sys::Datum> = parameters
        .iter()
        .map(|value| value.as_str().into_datum().unwrap_or(pg_sys::Datum::from(0_usize)))
        .collect();
    Spi::connect(|_| {
        // SAFETY: SPI is connected; all pointers live as long as the call. Read-only, it takes the snapshot that is active;
        // a row limit of 0 is what lets it use parallel workers. The tuple is read before SPI is left, the texts are copied.
        unsafe {
            let status = pg_sys::SPI_execute_with_args(
                text.as_ptr(),
                parameters.len() as i32,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                std::ptr::null(),
                true,
                0,
            );
            Spi::check_status(status)?;
            if pg_sys::SPI_processed < 1 || pg_sys::SPI_tuptable.is_null() {
                return Err(Problem::new(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    "a statement that counts returned nothing",
                )
                .hint("this is a bug in pg_mend: please report it with the call that you made"));
            }
            let table = pg_sys::SPI_tuptable;
            let tuple = *(*table).vals;
            Ok((1..=width as i32)
                .map(|column| {
                    let value = pg_sys::SPI_getvalue(tuple, (*table).tupdesc, column);
                    (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
                })
                .collect())
        }
    })
}
