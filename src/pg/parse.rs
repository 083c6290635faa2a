//! One statement of a script, parsed by Postgres itself.
//!
//! The parse trees live in the memory context of the call: a handle must not outlive the SQL function that made it, and none does (they
//! are locals of it).

use std::ffi::{CStr, CString, c_void};
use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use super::ast::Action;
use super::tree::nodes;
use super::{decode, subtransaction};
use crate::problem::Problem;

/// What was parsed: the command as Postgres calls it, and what it does.
pub type Parsed = (String, Vec<Action>);

/// Parses one statement; `None` for an empty one.
///
/// Errors: 42601 and whatever the parser raises, with the position in the text (characters, from 1).
pub fn parse(text: &str) -> Result<Option<Parsed>, (Problem, i32)> {
    let Ok(sql) = CString::new(text) else {
        return Err((
            Problem::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, "the script contains a zero byte"),
            1,
        ));
    };
    let mut position: i32 = 0;
    let scratch = Scratch::enter();
    let list = {
        let seen: *mut i32 = &mut position;
        subtransaction(AssertUnwindSafe(|| {
            // SAFETY: the callback and its argument outlive the call of the parser, and are taken off the stack again whether it returns
            // or raises. The string is NUL-terminated and lives as long as the call.
            unsafe {
                let previous = pg_sys::error_context_stack;
                let mut callback = pg_sys::ErrorContextCallback {
                    previous,
                    callback: Some(note_position),
                    arg: seen.cast::<c_void>(),
                };
                let added: *mut pg_sys::ErrorContextCallback = &mut callback;
                let list = PgTryBuilder::new(AssertUnwindSafe(|| {
                    pg_sys::error_context_stack = added;
                    pg_sys::pg_parse_query(sql.as_ptr())
                }))
                .finally(|| pg_sys::error_context_stack = previous)
                .execute();
                Ok(list)
            }
        }))
    };
    let list = list.map_err(|problem| (problem, position.max(1)))?;
    // SAFETY: the parser returns a list of RawStmt, or NIL.
    unsafe {
        let statements = nodes(list);
        match statements.as_slice() {
            [] => Ok(None),
            [one] => {
                let raw = one.cast::<pg_sys::RawStmt>();
                let tag = pg_sys::CreateCommandTag((*raw).stmt);
                let name = CStr::from_ptr(pg_sys::GetCommandTagName(tag))
                    .to_string_lossy()
                    .into_owned();
                let actions = decode::actions((*raw).stmt);
                // Nothing of the tree is needed any more where only data are written.
                if !actions.iter().all(|action| {
                    matches!(
                        action,
                        Action::Data { .. } | Action::Skipped { .. } | Action::Outside { .. }
                    )
                }) {
                    scratch.keep();
                }
                Ok(Some((name, actions)))
            }
            _ => Err((
                Problem::new(
                    PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                    "two statements where one was expected",
                ),
                1,
            )),
        }
    }
}

/// A memory context for one parse tree: given back at once, or kept for as long as the call.
struct Scratch {
    outer: pg_sys::MemoryContext,
    own: pg_sys::MemoryContext,
    kept: std::cell::Cell<bool>,
}

impl Scratch {
    fn enter() -> Scratch {
        // SAFETY: a child of the current context; switched back to that when this value is dropped.
        unsafe {
            let outer = pg_sys::CurrentMemoryContext;
            let own = pg_sys::AllocSetContextCreateExtended(
                outer,
                c"statement of a script".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            pg_sys::CurrentMemoryContext = own;
            Scratch {
                outer,
                own,
                kept: std::cell::Cell::new(false),
            }
        }
    }

    fn keep(&self) {
        self.kept.set(true);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: both were valid when this value was made, and nothing else switched between them; errors are caught inside.
        unsafe {
            pg_sys::CurrentMemoryContext = self.outer;
            if !self.kept.get() {
                pg_sys::MemoryContextDelete(self.own);
            }
        }
    }
}

/// Remembers where in the text the error is.
#[pg_guard]
unsafe extern "C-unwind" fn note_position(argument: *mut c_void) {
    // SAFETY: the argument is the i32 that `parse` passed; called while an error is being raised.
    unsafe { *argument.cast::<i32>() = pg_sys::geterrposition() }
}
