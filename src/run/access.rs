//! May the caller see what a call is about to count? Privileges, and policies that would hide rows.

use pgrx::prelude::PgSqlErrorCode;
use pgrx::spi::quote_identifier;

use super::Session;
use crate::catalog::{Column, Table};
use crate::problem::Problem;
use crate::rule::check::Problems;

impl Session {
    /// The statement that gives the caller a right: `GRANT SELECT ON orders TO app`.
    ///
    /// * `right`: `SELECT`, `UPDATE (a)`.
    /// * `on`: as SQL: a table, `SCHEMA s`.
    pub fn grant(&self, right: &str, on: &str) -> String {
        format!("GRANT {right} ON {on} TO {}", quote_identifier(&self.role))
    }
}

/// Adds what keeps the caller from reading these columns of every row of `table`.
///
/// * `whole`: rights on single columns are not enough, because rows are told apart by what only the whole table shows.
pub fn readable(session: &Session, table: &Table, columns: &[i16], whole: bool, problems: &mut Problems) {
    let shown = session.catalog.display(table);
    let denied = |message: String| Problem::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message);
    if !table.may_use_schema {
        problems.push(
            denied(format!("permission denied for schema {}", table.quoted_schema))
                .hint(session.grant("USAGE", &format!("SCHEMA {}", table.quoted_schema))),
        );
    }
    if whole && !table.may_select {
        problems.push(
            denied(format!("permission denied to read {shown}"))
                .detail("rights on single columns are not enough for the table that is filled")
                .hint(session.grant("SELECT", &shown)),
        );
        return;
    }
    let unreadable: Vec<&str> = columns
        .iter()
        .filter_map(|n| table.column(*n))
        .filter(|c| !c.may_select)
        .map(|c| c.quoted.as_str())
        .collect();
    if !table.may_select && !unreadable.is_empty() {
        problems.push(
            denied(format!(
                "permission denied to read {} of {shown}",
                unreadable.join(", ")
            ))
            .hint(session.grant("SELECT", &shown)),
        );
    }
    if table.row_security_active {
        problems.push(
            denied(format!("row-level security of {shown} would hide rows from you"))
                .detail("counts of only the rows that the policies show would look complete, but would not be")
                .hint(format!(
                    "run as the owner of {shown} (without FORCE ROW LEVEL SECURITY) or as a role with BYPASSRLS"
                )),
        );
    }
}

/// Adds that the caller may not UPDATE this column, where that is so.
pub fn updatable(session: &Session, table: &Table, column: &Column, problems: &mut Problems) {
    if column.may_update {
        return;
    }
    let shown = session.catalog.display(table);
    problems.push(
        Problem::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied to update {} of {shown}", column.quoted),
        )
        .hint(session.grant(&format!("UPDATE ({})", column.quoted), &shown)),
    );
}
