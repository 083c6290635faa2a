//! The caller's condition over the rows of a table, read under the caller's settings.

use std::panic::AssertUnwindSafe;

use super::session::Session;
use crate::catalog::Table;
use crate::pg::{self, Qualified};
use crate::problem::Problem;

/// Reads `only_where`, and holds what it reads.
///
/// * `relation`: as FROM names the table.
/// * `exact_texts`: old values are kept by the statement that asks it.
///
/// Errors: whatever Postgres says of it; 0A000 where its answer may depend on how values look as texts; with the columns as a hint.
pub fn only_where(
    session: &Session,
    table: &Table,
    relation: &str,
    typed: &str,
    exact_texts: bool,
) -> Result<Qualified, Problem> {
    let (oid, caller) = (table.oid, session.caller.as_pairs());
    // A subtransaction, so that Postgres's own complaint about the condition joins the list of problems.
    let result = pg::subtransaction(AssertUnwindSafe(|| {
        pg::qualify_condition(typed, relation, oid, "t", &caller)
    }));
    let result = result.and_then(|typed| {
        if exact_texts {
            session.same_for_all_texts(&typed)?;
        }
        session.hold(typed.relations.iter().copied()).map(|()| typed)
    });
    result.map_err(|problem| {
        let columns = || {
            let columns: Vec<&str> = table.columns.iter().map(|c| c.quoted.as_str()).collect();
            let shown = session.catalog.display(table);
            format!("it is a condition over the columns of {shown}: {}", columns.join(", "))
        };
        Problem {
            message: format!("only_where: {}", problem.message),
            hint: Some(problem.hint.clone().unwrap_or_else(columns)),
            ..problem
        }
    })
}
