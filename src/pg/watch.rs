//! Refuses statements that would read a relation other than the one the call checked (after a rename).
//!
//! Tables are looked at first, and named in statements later. A lock on a table keeps it as it is, but not its schema: who owns that renames
//! it, and puts a view where the table was, in the middle of a call. So before a statement of ours is planned, the relations that it has come
//! to mean are compared with those that the call has locked. From its analysis on they are locked, whatever their names become.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::CStr;

use pgrx::prelude::*;

use super::identity::FIRST_OF_USERS;
use crate::problem::Problem;

/// What statements of a call may read.
struct Known {
    /// Tells the calls apart.
    number: u64,
    /// Whose rights they have, and in which security context.
    role: pg_sys::Oid,
    context: i32,
    relations: HashSet<u32>,
}

thread_local! {
    /// The innermost call last.
    static CALLS: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
    static NUMBERS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    static BEFORE: std::cell::Cell<pg_sys::planner_hook_type> = const { std::cell::Cell::new(None) };
}

/// A call whose statements are looked at, until it is dropped. Only those that are planned with the caller's rights and under our own
/// search_path: code of others has another path or other rights, and may read what it likes.
pub struct Watch {
    number: u64,
}

impl Watch {
    /// * `relations`: what may be read from the beginning, by oid.
    pub fn begin(relations: impl IntoIterator<Item = u32>) -> Watch {
        let (role, context) = identity();
        Watch::with(role, context, relations.into_iter().collect())
    }

    fn with(role: pg_sys::Oid, context: i32, relations: HashSet<u32>) -> Watch {
        let number = NUMBERS.get() + 1;
        NUMBERS.set(number);
        CALLS.with_borrow_mut(|calls| {
            calls.push(Known {
                number,
                role,
                context,
                relations,
            });
        });
        Watch { number }
    }

    /// Until it is dropped, nothing is looked at: for a statement whose triggers run under our search_path.
    pub fn pause() -> Watch {
        // Nobody's.
        Watch::with(pg_sys::Oid::INVALID, 0, HashSet::new())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        CALLS.with_borrow_mut(|calls| calls.retain(|call| call.number != self.number));
    }
}

/// These relations are locked, and what they were found to be: statements may read them.
pub fn may_read(relations: impl IntoIterator<Item = u32>) {
    CALLS.with_borrow_mut(|calls| {
        if let Some(call) = calls.last_mut() {
            call.relations.extend(relations);
        }
    });
}

fn identity() -> (pg_sys::Oid, i32) {
    let (mut role, mut context) = (pg_sys::Oid::INVALID, 0);
    // SAFETY: both are written.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut role, &mut context) };
    (role, context)
}

/// Has Postgres ask before it plans; called once when the library is loaded.
pub fn register_hook() {
    // SAFETY: hooks are set while the library is loaded, by the only thread of a backend; whoever was there before goes on.
    unsafe {
        BEFORE.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(planned);
    }
}

/// # Safety
/// Postgres calls it with a query that was analyzed and rewritten.
#[pg_guard]
unsafe extern "C-unwind" fn planned(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    options: i32,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the same arguments go on to whoever would have been called.
    unsafe {
        if let Some(stranger) = stranger(query) {
            let name = pg_sys::get_rel_name(stranger);
            let name = match name.is_null() {
                true => "a relation".to_string(),
                false => format!("\"{}\"", CStr::from_ptr(name).to_string_lossy()),
            };
            Problem::new(
                PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("{name} is not the relation that pg_mend checked"),
            )
            .detail(
                "since the call began, another relation has got the name of this table (or another schema the name of its schema)",
            )
            .hint("run it again")
            .raise()
        }
        match BEFORE.get() {
            Some(before) => before(query, text, options, parameters),
            None => pg_sys::standard_planner(query, text, options, parameters),
        }
    }
}

/// A relation that the query reads, and that the call does not know.
///
/// # Safety
/// As [`planned`].
unsafe fn stranger(query: *mut pg_sys::Query) -> Option<pg_sys::Oid> {
    CALLS.with_borrow(|calls| {
        let call = calls.last()?;
        if identity() != (call.role, call.context) {
            return None;
        }
        // SAFETY: the setting always has a value; the lists are Postgres's own, of oids.
        unsafe {
            if CStr::from_ptr(pg_sys::namespace_search_path) != c"pg_catalog, pg_temp" {
                return None;
            }
            let found = relations(query.cast()).into_iter();
            found
                .filter(|oid| *oid >= FIRST_OF_USERS && !call.relations.contains(oid))
                .map(pg_sys::Oid::from)
                // A sequence is named by a constant: it is not read as a relation, and runs nothing.
                .find(|oid| pg_sys::get_rel_relkind(*oid) != b'S' as std::ffi::c_char)
        }
    })
}

/// The relations that a query or an expression reads, by oid.
///
/// # Safety
/// `node` is an analyzed query or expression.
pub(super) unsafe fn relations(node: *mut pg_sys::Node) -> Vec<u32> {
    // SAFETY: the caller's promise; the list is Postgres's own, of oids.
    unsafe {
        let (mut found, mut others, mut secured) = (std::ptr::null_mut(), std::ptr::null_mut(), false);
        pg_sys::extract_query_dependencies(node, &mut found, &mut others, &mut secured);
        if found.is_null() {
            return vec![];
        }
        let all = 0..(*found).length as usize;
        all.map(|at| (*(*found).elements.add(at)).oid_value.to_u32()).collect()
    }
}
