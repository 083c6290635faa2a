//! Migration scripts: text → statements (`split`), each parsed by Postgres's own parser (`crate::pg::parse`) into what it does (`ast`).
//!
//! Nothing here looks at the database, and nothing is run.

pub mod split;

pub use crate::pg::ast;
use crate::pg::parse;
use crate::problem::Problem;
use ast::Action;
use pgrx::prelude::PgSqlErrorCode;
use split::Piece;

/// One statement of a script.
#[derive(Debug, Clone)]
pub struct ScriptStatement {
    /// From 1.
    pub number: i32,
    /// Of the script, from 1: where the statement begins.
    pub line: i32,
    /// As Postgres calls the command: `CREATE TABLE`; psql's commands as typed (`\i`).
    pub kind: String,
    /// The text, without comments in front of it and the semicolon.
    pub text: String,
    /// What it does, in order.
    pub actions: Vec<Action>,
    /// Lines of data behind a `COPY ... FROM stdin`.
    pub data_lines: i64,
}

/// Larger scripts are dumps; they are refused before memory is.
pub const MOST_BYTES: usize = 64 << 20;

/// Reads a whole script.
///
/// Errors: 22023 for a script without a statement, 54000 for one that is too large, 42601 for what is no SQL of Postgres, with line and
/// column.
pub fn read(script: &str) -> Result<Vec<ScriptStatement>, Problem> {
    if script.len() > MOST_BYTES {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!(
                "the script has {} bytes, more than the {MOST_BYTES} that are read",
                script.len()
            ),
        )
        .hint("leave out the data: pg_dump --schema-only"));
    }
    let pieces =
        split::split(script).map_err(|open| syntax(open.line, open.column, &format!("unterminated {}", open.what)))?;
    let mut steps = Vec::new();
    for piece in pieces {
        pgrx::check_for_interrupts!();
        let number = steps.len() as i32 + 1;
        match piece {
            Piece::Meta { line, text } => steps.push(ScriptStatement {
                number,
                line,
                kind: text.split_whitespace().next().unwrap_or("\\").to_string(),
                actions: vec![Action::Skipped {
                    what: "psql runs this itself".into(),
                }],
                text,
                data_lines: 0,
            }),
            Piece::Statement {
                line,
                column,
                text,
                data_lines,
            } => {
                let parsed = parse::parse(&text).map_err(|(problem, at)| {
                    let (line, column) = split::place(&text, at, line, column);
                    syntax(line, column, &problem.message)
                })?;
                if let Some((kind, actions)) = parsed {
                    steps.push(ScriptStatement {
                        number,
                        line,
                        kind,
                        text,
                        actions,
                        data_lines,
                    });
                }
            }
        }
    }
    if steps.is_empty() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the script has no statement",
        )
        .hint("pass the text of the script, for example from psql: \\set script `cat migration.sql`, then migration_status(:'script')"));
    }
    Ok(steps)
}

fn syntax(line: i32, column: i32, message: &str) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
        format!("line {line}, column {column}: {message}"),
    )
    .detail("the script was read by Postgres's own parser; nothing was compared or run")
    .hint("is it written for this version of Postgres, and for Postgres at all?")
}
