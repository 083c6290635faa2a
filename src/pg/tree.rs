//! Nodes of parse trees, read: lists, names, texts, types. What the parser made of expressions and types stays there as a handle.

use std::ffi::{CStr, c_char};

use pgrx::prelude::*;

use super::ast::{Expression, Name, TypeName};

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
