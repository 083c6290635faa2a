//! What a script writes, in the words of the catalog: expressions analyzed against the table that is there, and deparsed as Postgres
//! deparses what it has stored. Nothing is run.

use std::ffi::{CStr, CString, c_char};
use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use super::tree::{Expression, TypeName};
use super::{Settings, subtransaction};
use crate::problem::Problem;

/// What an expression is for.
#[derive(Debug, Clone, Copy)]
pub enum Use<'a> {
    /// DEFAULT of a column of this type and modifier, or (`generated`) what it is computed from.
    Default {
        /// The column.
        column: &'a str,
        /// Its type.
        type_oid: u32,
        /// Its modifier, -1 for none.
        modifier: i32,
        /// GENERATED ALWAYS AS.
        generated: bool,
    },
    /// CHECK.
    Check,
    /// USING or WITH CHECK of a policy.
    Policy,
    /// WHERE of an index.
    Predicate,
    /// A key of an index.
    Key,
}

/// The types behind a name: oid and modifier; `None` where there is no such type under the current search_path.
///
/// Errors: whatever Postgres raises for a modifier that makes no sense.
pub fn type_of(name: &TypeName) -> Result<Option<(u32, i32)>, Problem> {
    let node = name.node;
    subtransaction(AssertUnwindSafe(|| {
        // SAFETY: the node comes from the parser and lives as long as the call; the tuple is released.
        unsafe {
            let mut modifier: i32 = -1;
            let found = pg_sys::LookupTypeName(std::ptr::null_mut(), node, &mut modifier, true);
            if found.is_null() {
                return Ok(None);
            }
            let oid = pg_sys::typeTypeId(found);
            pg_sys::ReleaseSysCache(found);
            Ok(Some((oid.to_u32(), modifier)))
        }
    }))
}

/// An expression over the columns of a table, as `pg_get_expr` would show it if it were stored: under a search_path without anything of
/// the user's.
///
/// * `table`: oid; 0 where the expression has no table.
/// * `search_path`: under which names in it are looked up.
///
/// Errors: whatever Postgres raises for names and types that do not fit.
pub fn stored(expression: Expression, form: Use, table: u32, search_path: &str) -> Result<String, Problem> {
    subtransaction(AssertUnwindSafe(|| {
        let path = Settings::push(&[("search_path", search_path)]);
        // SAFETY: the relation is open while its columns are looked up; the node is copied, so that the script's own tree stays
        // as the parser left it; strings live as long as the calls.
        unsafe {
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            let raw = pg_sys::copyObjectImpl(expression.0.cast()).cast::<pg_sys::Node>();
            let mut context = std::ptr::null_mut();
            if table != 0 {
                let oid = pg_sys::Oid::from(table);
                let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
                let relation = pg_sys::table_open(oid, lock);
                let name = CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()).to_owned();
                let item =
                    pg_sys::addRangeTableEntryForRelation(state, relation, lock, std::ptr::null_mut(), false, true);
                pg_sys::addNSItemToQuery(state, item, true, true, true);
                pg_sys::table_close(relation, lock);
                context = pg_sys::deparse_context_for(pg_sys::pstrdup(name.as_ptr()), oid);
            }
            let node = match form {
                Use::Default {
                    column,
                    type_oid,
                    modifier,
                    generated,
                } => {
                    let column = CString::new(column).unwrap_or_default();
                    let kind = if generated { b's' as c_char } else { 0 };
                    pg_sys::cookDefault(state, raw, pg_sys::Oid::from(type_oid), modifier, column.as_ptr(), kind)
                }
                _ => {
                    let kind = match form {
                        Use::Policy => pg_sys::ParseExprKind::EXPR_KIND_POLICY,
                        Use::Predicate => pg_sys::ParseExprKind::EXPR_KIND_INDEX_PREDICATE,
                        Use::Key => pg_sys::ParseExprKind::EXPR_KIND_INDEX_EXPRESSION,
                        _ => pg_sys::ParseExprKind::EXPR_KIND_CHECK_CONSTRAINT,
                    };
                    let mut node = pg_sys::transformExpr(state, raw, kind);
                    if !matches!(form, Use::Key) {
                        node = pg_sys::coerce_to_boolean(state, node, c"WHERE".as_ptr());
                    }
                    pg_sys::assign_expr_collations(state, node);
                    node
                }
            };
            // Deparsed under the search_path without anything of the user's.
            drop(path);
            Ok(match node.is_null() {
                // DEFAULT NULL is no default.
                true => String::new(),
                false => CStr::from_ptr(pg_sys::deparse_expression(node, context, false, false))
                    .to_string_lossy()
                    .into_owned(),
            })
        }
    }))
}

/// WHEN of a trigger, as the catalog keeps it (`pg_trigger.tgqual::text`).
///
/// Errors: as [`stored`].
pub fn stored_when(expression: Expression, table: u32, search_path: &str) -> Result<String, Problem> {
    subtransaction(AssertUnwindSafe(|| {
        let _path = Settings::push(&[("search_path", search_path)]);
        // SAFETY: as in `stored`; OLD is the first and NEW the second range table entry, as in CreateTrigger (trigger.c).
        unsafe {
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let relation = pg_sys::table_open(pg_sys::Oid::from(table), lock);
            for alias in [c"old", c"new"] {
                let alias = pg_sys::makeAlias(alias.as_ptr(), std::ptr::null_mut());
                let item = pg_sys::addRangeTableEntryForRelation(state, relation, lock, alias, false, false);
                pg_sys::addNSItemToQuery(state, item, false, true, true);
            }
            let raw = pg_sys::copyObjectImpl(expression.0.cast()).cast::<pg_sys::Node>();
            let node = pg_sys::transformExpr(state, raw, pg_sys::ParseExprKind::EXPR_KIND_TRIGGER_WHEN);
            let node = pg_sys::coerce_to_boolean(state, node, c"WHEN".as_ptr());
            pg_sys::assign_expr_collations(state, node);
            pg_sys::table_close(relation, lock);
            Ok(CStr::from_ptr(pg_sys::nodeToString(node.cast()))
                .to_string_lossy()
                .into_owned())
        }
    }))
}

/// The query of a view, as `pg_get_viewdef` would show it; `None` where this version of Postgres cannot.
///
/// * `columns`: names that the view gives its columns.
/// * `view`: its oid.
///
/// Errors: as [`stored`].
#[cfg_attr(not(feature = "pg15"), allow(unused_variables))]
pub fn stored_query(
    query: Expression,
    columns: &[String],
    view: u32,
    search_path: &str,
) -> Result<Option<String>, Problem> {
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    return Ok(None);
    #[cfg(not(any(feature = "pg13", feature = "pg14")))]
    {
        subtransaction(AssertUnwindSafe(|| {
            let path = Settings::push(&[("search_path", search_path)]);
            // SAFETY: the statement is a copy, in the memory context of the call; targets are TargetEntry nodes, range table entries
            // RangeTblEntry nodes.
            unsafe {
                let raw = pg_sys::copyObjectImpl(query.0.cast()).cast::<pg_sys::Node>();
                let mut statement = pg_sys::RawStmt {
                    type_: pg_sys::NodeTag::T_RawStmt,
                    stmt: raw,
                    stmt_location: 0,
                    stmt_len: 0,
                };
                let analyzed = pg_sys::parse_analyze_fixedparams(
                    &mut statement,
                    c"".as_ptr(),
                    std::ptr::null(),
                    0,
                    std::ptr::null_mut(),
                );
                if (*analyzed).commandType != pg_sys::CmdType::CMD_SELECT || !(*analyzed).utilityStmt.is_null() {
                    return Ok(None);
                }
                let mut names: Vec<*mut c_char> = Vec::new();
                let mut written = columns.iter();
                for node in super::tree::nodes((*analyzed).targetList) {
                    let target = node.cast::<pg_sys::TargetEntry>();
                    if !(*target).resjunk {
                        if let Some(name) = written.next() {
                            let name = CString::new(name.as_str()).unwrap_or_default();
                            (*target).resname = pg_sys::pstrdup(name.as_ptr());
                        }
                        names.push((*target).resname);
                    }
                }
                // The branches of a UNION are shown with the columns of the view.
                if !(*analyzed).setOperations.is_null() {
                    named(analyzed, &names);
                }
                // Until 15 a view keeps entries for OLD and NEW in front; names are told apart from theirs, and columns are shown with their
                // table wherever there is more than one entry.
                #[cfg(feature = "pg15")]
                {
                    let state = pg_sys::make_parsestate(std::ptr::null_mut());
                    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
                    let relation = pg_sys::relation_open(pg_sys::Oid::from(view), lock);
                    let mut entries = std::ptr::null_mut();
                    for alias in [c"old", c"new"] {
                        let alias = pg_sys::makeAlias(alias.as_ptr(), std::ptr::null_mut());
                        let item = pg_sys::addRangeTableEntryForRelation(state, relation, lock, alias, false, false);
                        entries = pg_sys::lappend(entries, (*item).p_rte.cast());
                    }
                    pg_sys::relation_close(relation, lock);
                    pg_sys::OffsetVarNodes(analyzed.cast(), 2, 0);
                    (*analyzed).rtable = pg_sys::list_concat(entries, (*analyzed).rtable);
                }
                drop(path);
                Ok(Some(
                    CStr::from_ptr(pg_sys::pg_get_querydef(analyzed, false))
                        .to_string_lossy()
                        .into_owned(),
                ))
            }
        }))
    }
}

/// Gives the branches of a set operation the names of its columns.
///
/// # Safety
/// `query` points at an analyzed query, `names` at strings that live as long as it.
#[cfg(not(any(feature = "pg13", feature = "pg14")))]
unsafe fn named(query: *mut pg_sys::Query, names: &[*mut c_char]) {
    // SAFETY: the caller's promise; entries of a range table are RangeTblEntry nodes, those of a subquery have one.
    unsafe {
        for node in super::tree::nodes((*query).rtable) {
            let entry = node.cast::<pg_sys::RangeTblEntry>();
            if (*entry).rtekind != pg_sys::RTEKind::RTE_SUBQUERY || (*entry).subquery.is_null() || (*entry).inFromCl {
                continue;
            }
            let mut all = names.iter();
            for node in super::tree::nodes((*(*entry).subquery).targetList) {
                let target = node.cast::<pg_sys::TargetEntry>();
                if !(*target).resjunk
                    && let Some(name) = all.next()
                {
                    (*target).resname = *name;
                }
            }
            if !(*(*entry).subquery).setOperations.is_null() {
                named((*entry).subquery, names);
            }
        }
    }
}
