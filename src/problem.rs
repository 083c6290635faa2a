//! What every room says when it cannot go on: SQLSTATE, message, DETAIL and a HINT with the next call to make.
//!
//! Each room has an error enum of its own whose variants know these four; `Problem` is what they become at the door, and
//! the only thing that turns into a Postgres error.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// A refusal as the user reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// SQLSTATE, see the Postgres manual, appendix A.
    pub code: PgSqlErrorCode,
    /// One sentence, lower case, no full stop (the style of Postgres).
    pub message: String,
    /// What was looked at, with names and counts.
    pub detail: Option<String>,
    /// What to do next, where possible as a call that can be pasted.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without DETAIL and HINT yet.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Problem {
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// A value of an argument that cannot be used: 22023.
    pub fn invalid_parameter(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message).hint(hint)
    }

    /// Sets DETAIL.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Sets HINT.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Raises it as a Postgres ERROR, which rolls back what the statement has done.
    pub fn raise(self) -> ! {
        ErrorReport::from(self).report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

impl From<Problem> for ErrorReport {
    fn from(problem: Problem) -> Self {
        let mut report = ErrorReport::new(problem.code, problem.message, "pg_mend");
        if let Some(detail) = problem.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = problem.hint {
            report = report.set_hint(hint);
        }
        report
    }
}

/// SPI's own failures are ours to mend: they say nothing about the user's data.
impl From<spi::Error> for Problem {
    fn from(error: spi::Error) -> Self {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("pg_mend could not read its own query: {error}"),
        )
        .hint("this is a bug in pg_mend: please report it with the call that you made")
    }
}

/// Likewise: our own query returned jsonb that our own types do not fit.
impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Problem::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("pg_mend could not decode the catalog: {error}"),
        )
        .hint("this is a bug in pg_mend: please report it with the call that you made")
    }
}
