//! One statement of a script, parsed by Postgres itself; what the parser made of expressions and types stays here as a handle.
//!
//! The parse trees live in the memory context of the call: a handle must not outlive the SQL function that made it, and none does (they
//! are locals of it).

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use super::{decode, subtransaction};
use crate::problem::Problem;
use crate::script::ast::{Action, Name};

/// An expression, condition or query as the parser left it.
#[derive(Debug, Clone, Copy)]
pub struct Expression(pub(super) *mut pg_sys::Node);

/// A type as the parser left it.
#[derive(Debug, Clone)]
pub struct TypeName {
    pub(super) node: *mut pg_sys::TypeName,
    /// As written, more or less.
    pub text: String,
}

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

/// The cells of a list of nodes.
///
/// # Safety
/// `list` is NIL or a valid list of pointers.
pub(super) unsafe fn nodes(list: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the caller's promise; a non-NIL list has `length` cells.
    unsafe {
        if list.is_null() {
            return vec![];
        }
        (0..(*list).length as usize)
            .map(|at| (*(*list).elements.add(at)).ptr_value.cast::<pg_sys::Node>())
            .collect()
    }
}

/// The tag of a node.
///
/// # Safety
/// `node` is NULL or points at a node.
pub(super) unsafe fn is(node: *mut pg_sys::Node, tag: pg_sys::NodeTag) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !node.is_null() && (*node).type_ == tag }
}

/// A C string as ours; `None` for NULL.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
pub(super) unsafe fn string(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    unsafe { (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned()) }
}

/// The text of a String node.
///
/// # Safety
/// `node` is NULL or points at a node.
pub(super) unsafe fn text_of(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: the tag is checked before the cast.
    unsafe {
        if !is(node, pg_sys::NodeTag::T_String) {
            return None;
        }
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        let text = (*node.cast::<pg_sys::Value>()).val.str_;
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
        let text = (*node.cast::<pg_sys::String>()).sval;
        string(text)
    }
}

/// The texts of a list of String nodes.
///
/// # Safety
/// As [`nodes`].
pub(super) unsafe fn texts(list: *mut pg_sys::List) -> Vec<String> {
    // SAFETY: the caller's promise.
    unsafe { nodes(list).into_iter().filter_map(|node| text_of(node)).collect() }
}

/// A constant, or a cast of one, as text.
///
/// # Safety
/// `node` is NULL or points at a node.
pub(super) unsafe fn constant(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: tags are checked before casts; the union is read as its own tag says.
    unsafe {
        let mut node = node;
        // Not by recursion: a script may stack as many casts as it likes.
        while is(node, pg_sys::NodeTag::T_TypeCast) {
            node = (*node.cast::<pg_sys::TypeCast>()).arg;
        }
        if !is(node, pg_sys::NodeTag::T_A_Const) {
            return text_of(node);
        }
        let value = &mut (*node.cast::<pg_sys::A_Const>()).val;
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        let inner = (value as *mut pg_sys::Value).cast::<pg_sys::Node>();
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
        let inner = (value as *mut pg_sys::ValUnion).cast::<pg_sys::Node>();
        text_of(inner)
    }
}

/// Is this DefElem's argument not false?
///
/// # Safety
/// `node` is NULL or points at a node.
pub(super) unsafe fn truth(node: *mut pg_sys::Node) -> bool {
    // SAFETY: tags are checked before casts.
    unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        {
            !is(node, pg_sys::NodeTag::T_Integer) || (*node.cast::<pg_sys::Value>()).val.ival != 0
        }
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
        {
            if is(node, pg_sys::NodeTag::T_Boolean) {
                return (*node.cast::<pg_sys::Boolean>()).boolval;
            }
            !is(node, pg_sys::NodeTag::T_Integer) || (*node.cast::<pg_sys::Integer>()).ival != 0
        }
    }
}

/// A whole number as text; `None` where it is not written.
///
/// # Safety
/// `node` is NULL or points at a node.
pub(super) unsafe fn number(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: tags are checked before casts.
    unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        {
            if is(node, pg_sys::NodeTag::T_Integer) {
                return Some((*node.cast::<pg_sys::Value>()).val.ival.to_string());
            }
            // What does not fit into four bytes is a Float.
            is(node, pg_sys::NodeTag::T_Float)
                .then(|| string((*node.cast::<pg_sys::Value>()).val.str_))
                .flatten()
        }
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
        {
            if is(node, pg_sys::NodeTag::T_Integer) {
                return Some((*node.cast::<pg_sys::Integer>()).ival.to_string());
            }
            is(node, pg_sys::NodeTag::T_Float)
                .then(|| string((*node.cast::<pg_sys::Float>()).fval))
                .flatten()
        }
    }
}

/// `schema.name` from a list of String nodes; a database in front is dropped.
pub(super) fn name_of(parts: &[String]) -> Name {
    let last = parts.len().saturating_sub(1);
    Name {
        schema: (last > 0).then(|| parts[last - 1].clone()),
        name: parts.get(last).cloned().unwrap_or_default(),
    }
}

/// A relation's name as written.
///
/// # Safety
/// `relation` points at a RangeVar.
pub(super) unsafe fn range(relation: *mut pg_sys::RangeVar) -> Name {
    // SAFETY: the caller's promise.
    unsafe {
        Name {
            schema: string((*relation).schemaname),
            name: string((*relation).relname).unwrap_or_default(),
        }
    }
}

/// A type's name.
///
/// # Safety
/// `node` points at a TypeName.
pub(super) unsafe fn type_name(node: *mut pg_sys::TypeName) -> TypeName {
    // SAFETY: the caller's promise.
    unsafe {
        TypeName {
            node,
            text: string(pg_sys::TypeNameToString(node)).unwrap_or_default(),
        }
    }
}

/// An expression, if there is one.
pub(super) fn expression(node: *mut pg_sys::Node) -> Option<Expression> {
    (!node.is_null()).then_some(Expression(node))
}

/// The name of a role; `None` for CURRENT_USER and the like.
///
/// # Safety
/// `node` is NULL or points at a RoleSpec.
pub(super) unsafe fn role(node: *mut pg_sys::RoleSpec) -> Option<String> {
    // SAFETY: the caller's promise.
    unsafe {
        if node.is_null() || (*node).roletype != pg_sys::RoleSpecType::ROLESPEC_CSTRING {
            return None;
        }
        string((*node).rolename)
    }
}

/// Names of roles, sorted; `public` for everybody, CURRENT_USER and the like as they are called.
///
/// # Safety
/// As [`nodes`]: a list of RoleSpec.
pub(super) unsafe fn roles(list: *mut pg_sys::List) -> Vec<String> {
    // SAFETY: tags are checked before casts.
    unsafe {
        let mut names: Vec<String> = nodes(list)
            .into_iter()
            .filter(|node| is(*node, pg_sys::NodeTag::T_RoleSpec))
            .map(|node| {
                let role = &*node.cast::<pg_sys::RoleSpec>();
                match role.roletype {
                    pg_sys::RoleSpecType::ROLESPEC_CSTRING => string(role.rolename).unwrap_or_default(),
                    pg_sys::RoleSpecType::ROLESPEC_PUBLIC => "public".into(),
                    pg_sys::RoleSpecType::ROLESPEC_SESSION_USER => "session_user".into(),
                    _ => "current_user".into(),
                }
            })
            .collect();
        names.sort();
        names
    }
}
