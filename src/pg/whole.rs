//! Prevents the planner from inlining users' SQL functions.
//!
//! The planner puts the body of a simple LANGUAGE sql function in the place of its call, and looks names in it up while it plans: under our
//! search_path, where the tables of users are not. A function that Postgres must watch for a hook stays a call, and looks its names up
//! when it runs: under the caller's search_path, as in any statement of the caller.

use std::cell::Cell;

use pgrx::prelude::*;

use super::identity::FIRST_OF_USERS;

thread_local! {
    static WHOLE: Cell<bool> = const { Cell::new(false) };
    static BEFORE: Cell<pg_sys::needs_fmgr_hook_type> = const { Cell::new(None) };
}

/// While it lives, calls of functions that users made stay calls.
pub struct WholeFunctions {
    before: bool,
}

impl WholeFunctions {
    /// * `needed`: the statements that follow call functions of users; else nothing changes.
    pub fn where_needed(needed: bool) -> WholeFunctions {
        WholeFunctions {
            before: WHOLE.replace(needed || WHOLE.get()),
        }
    }
}

impl Drop for WholeFunctions {
    fn drop(&mut self) {
        WHOLE.set(self.before);
    }
}

/// Tells Postgres to ask; called once when the library is loaded.
pub fn register_hook() {
    // SAFETY: hooks are set while the library is loaded, by the only thread of a backend; whoever was there before is asked as well.
    unsafe {
        BEFORE.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(stays_a_call);
    }
}

/// # Safety
/// Postgres calls it with the oid of a function.
unsafe extern "C-unwind" fn stays_a_call(function: pg_sys::Oid) -> bool {
    if WHOLE.get() && function.to_u32() >= FIRST_OF_USERS {
        return true;
    }
    // SAFETY: the same call that Postgres would have made.
    BEFORE.get().is_some_and(|before| unsafe { before(function) })
}
