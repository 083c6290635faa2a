//! What a script writes, in the words of the catalog: expressions analyzed against the table that is there, and deparsed as Postgres
//! deparses what it has stored. Nothing is run.

use std::ffi::{CStr, CString, c_char};
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

use super::ast::{Expression, TypeName};
use super::{Settings, subtransaction};
use crate::problem::Problem;

// Not in pgrx's bindings: parser/parse_utilcmd.h and executor/functions.h, the same in 13 to 18. Called through `pg_guard_ffi_boundary`.
#[allow(non_snake_case)]
unsafe extern "C-unwind" {
    fn transformPartitionBound(
        state: *mut pg_sys::ParseState,
        parent: pg_sys::Relation,
        spec: *mut pg_sys::PartitionBoundSpec,
    ) -> *mut pg_sys::PartitionBoundSpec;
    #[cfg(not(feature = "pg13"))]
    fn prepare_sql_fn_parse_info(
        procedure: pg_sys::HeapTuple,
        call: *mut pg_sys::Node,
        collation: pg_sys::Oid,
    ) -> *mut std::ffi::c_void;
    #[cfg(not(feature = "pg13"))]
    fn sql_fn_parser_setup(state: *mut pg_sys::ParseState, info: *mut std::ffi::c_void);
}

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
    /// A part of a partition key.
    Partition,
    /// DEFAULT of a parameter of this type.
    Parameter {
        /// Its type.
        type_oid: u32,
    },
    /// CHECK of a domain over this type and modifier.
    Domain {
        /// The base type.
        type_oid: u32,
        /// Its modifier, -1 for none.
        modifier: i32,
    },
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
                Use::Parameter { type_oid } => {
                    // As in interpret_function_parameter_list (functioncmds.c).
                    let kind = pg_sys::ParseExprKind::EXPR_KIND_FUNCTION_DEFAULT;
                    let node = pg_sys::transformExpr(state, raw, kind);
                    let type_oid = pg_sys::Oid::from(type_oid);
                    let node = pg_sys::coerce_to_specific_type(state, node, type_oid, c"DEFAULT".as_ptr());
                    pg_sys::assign_expr_collations(state, node);
                    node
                }
                _ => {
                    if let Use::Domain { type_oid, modifier } = form {
                        value_stands_for(state, type_oid, modifier);
                    }
                    let kind = match form {
                        Use::Policy => pg_sys::ParseExprKind::EXPR_KIND_POLICY,
                        Use::Predicate => pg_sys::ParseExprKind::EXPR_KIND_INDEX_PREDICATE,
                        Use::Key => pg_sys::ParseExprKind::EXPR_KIND_INDEX_EXPRESSION,
                        Use::Partition => pg_sys::ParseExprKind::EXPR_KIND_PARTITION_EXPRESSION,
                        Use::Domain { .. } => pg_sys::ParseExprKind::EXPR_KIND_DOMAIN_CHECK,
                        _ => pg_sys::ParseExprKind::EXPR_KIND_CHECK_CONSTRAINT,
                    };
                    let mut node = pg_sys::transformExpr(state, raw, kind);
                    if !matches!(form, Use::Key | Use::Partition) {
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

/// VALUE means the value of the domain, as in domainAddConstraint (typecmds.c).
///
/// # Safety
/// `state` is a fresh parse state of this memory context.
unsafe fn value_stands_for(state: *mut pg_sys::ParseState, type_oid: u32, modifier: i32) {
    // SAFETY: the node is made in the memory context of the state, zeroed but for what is set here.
    unsafe {
        let size = size_of::<pg_sys::CoerceToDomainValue>();
        let value = pg_sys::palloc0(size).cast::<pg_sys::CoerceToDomainValue>();
        (*value).xpr.type_ = pg_sys::NodeTag::T_CoerceToDomainValue;
        (*value).typeId = pg_sys::Oid::from(type_oid);
        (*value).typeMod = modifier;
        (*value).collation = pg_sys::get_typcollation((*value).typeId);
        (*value).location = -1;
        (*state).p_pre_columnref_hook = Some(value_of_domain);
        (*state).p_ref_hook_state = value.cast();
    }
}

/// The hook of a CHECK of a domain: `VALUE` is its value.
#[pg_guard]
unsafe extern "C-unwind" fn value_of_domain(
    state: *mut pg_sys::ParseState,
    column: *mut pg_sys::ColumnRef,
) -> *mut pg_sys::Node {
    // SAFETY: called by the parser with its own state, in which `value_stands_for` left the node.
    unsafe {
        match super::tree::texts((*column).fields).as_slice() {
            [name] if name == "value" => pg_sys::copyObjectImpl((*state).p_ref_hook_state).cast(),
            _ => std::ptr::null_mut(),
        }
    }
}

/// The bound of a partition as Postgres shows it; `None` where it is computed, which is not done here.
///
/// * `whole`: oid of the partitioned table.
///
/// Errors: as [`stored`].
pub fn stored_bound(bound: Expression, whole: u32, search_path: &str) -> Result<Option<String>, Problem> {
    subtransaction(AssertUnwindSafe(|| {
        let path = Settings::push(&[("search_path", search_path)]);
        // SAFETY: the node is a PartitionBoundSpec (see decode_table), copied; the relation is open while it is looked at.
        unsafe {
            let spec = pg_sys::copyObjectImpl(bound.0.cast()).cast::<pg_sys::PartitionBoundSpec>();
            for list in [(*spec).listdatums, (*spec).lowerdatums, (*spec).upperdatums] {
                for node in super::tree::nodes(list) {
                    // Constants, MINVALUE and MAXVALUE; anything else would run functions.
                    let plain = super::tree::is(node, pg_sys::NodeTag::T_A_Const)
                        || super::tree::is(node, pg_sys::NodeTag::T_ColumnRef);
                    if !plain {
                        return Ok(None);
                    }
                }
            }
            let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
            let relation = pg_sys::table_open(pg_sys::Oid::from(whole), lock);
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            // Constants become values of the key's type: a domain asks its CHECKs then.
            let owner = (*(*relation).rd_rel).relowner;
            let bound = || Ok(pg_guard_ffi_boundary(|| transformPartitionBound(state, relation, spec)));
            let found = match pg_sys::is_member_of_role(owner, pg_sys::GetUserId()) {
                true => bound(),
                false => super::as_role(owner.to_u32(), super::Confinement::Restricted, || {
                    let _path = Settings::push(&[("search_path", "pg_catalog, pg_temp")]);
                    bound()
                }),
            }?;
            pg_sys::table_close(relation, lock);
            drop(path);
            let text = pg_sys::deparse_expression(found.cast(), std::ptr::null_mut(), false, false);
            Ok(Some(CStr::from_ptr(text).to_string_lossy().into_owned()))
        }
    }))
}

/// The statements of a function as the catalog keeps them (`pg_proc.prosqlbody::text`).
///
/// * `function`: its oid; names of parameters are those that it has.
///
/// Errors: as [`stored`].
#[cfg(not(feature = "pg13"))]
pub fn stored_statements(body: Expression, function: u32, search_path: &str) -> Result<String, Problem> {
    subtransaction(AssertUnwindSafe(|| {
        let _path = Settings::push(&[("search_path", search_path)]);
        // SAFETY: as in interpret_AS_clause (functioncmds.c): a list of a list of statements, or one statement; all of it is copied. The
        // tuple is released when nothing needs it any more.
        unsafe {
            let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
            let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Oid::from(function).into());
            if tuple.is_null() {
                return Ok(String::new());
            }
            let info =
                pg_guard_ffi_boundary(|| prepare_sql_fn_parse_info(tuple, std::ptr::null_mut(), pg_sys::Oid::INVALID));
            let analyzed = |statement: *mut pg_sys::Node| {
                let state = pg_sys::make_parsestate(std::ptr::null_mut());
                (*state).p_sourcetext = c"".as_ptr();
                pg_guard_ffi_boundary(|| sql_fn_parser_setup(state, info));
                let query = pg_sys::transformStmt(state, statement);
                // Closes the table that the statement writes.
                pg_sys::free_parsestate(state);
                query
            };
            let raw = pg_sys::copyObjectImpl(body.0.cast()).cast::<pg_sys::Node>();
            let node: *mut pg_sys::Node = match super::tree::is(raw, pg_sys::NodeTag::T_List) {
                false => analyzed(raw).cast(),
                true => {
                    let mut all = std::ptr::null_mut();
                    let inner = super::tree::nodes(raw.cast());
                    for statement in inner.into_iter().flat_map(|list| super::tree::nodes(list.cast())) {
                        all = pg_sys::lappend(all, analyzed(statement).cast());
                    }
                    pg_sys::lappend(std::ptr::null_mut(), all.cast()).cast()
                }
            };
            pg_sys::ReleaseSysCache(tuple);
            Ok(CStr::from_ptr(pg_sys::nodeToString(node.cast()))
                .to_string_lossy()
                .into_owned())
        }
    }))
}

/// There is no such body before 14.
#[cfg(feature = "pg13")]
pub fn stored_statements(_body: Expression, _function: u32, _search_path: &str) -> Result<String, Problem> {
    Ok(String::new())
}

/// The value that a SET stands for, as `pg_proc.proconfig` keeps it; `None`: the default.
///
/// Errors: whatever Postgres raises for a setting that makes no sense.
pub fn setting(set: Expression) -> Result<Option<String>, Problem> {
    subtransaction(AssertUnwindSafe(|| {
        // SAFETY: the node is a VariableSetStmt (see decode_routine); the text lives as long as the call.
        unsafe {
            let value = pg_sys::ExtractSetVariableArgs(set.0.cast());
            Ok(super::tree::string(value))
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
