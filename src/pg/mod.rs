//! The one room with `unsafe`: what pgrx offers no safe call for.
//!
//! Scoped settings, subtransactions, the id of the current (sub)transaction, and reading a condition that a user typed
//! with Postgres's own parser.

pub mod analysis;
pub mod ast;
mod decode;
mod decode_routine;
mod decode_table;
mod decode_type;
mod identity;
mod jsonb;
pub mod parse;
mod read;
mod tree;
mod watch;
mod whole;

use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, UnwindSafe};

pub use identity::{Confinement, as_role, keeps_one_snapshot, lock_for_reading, lock_for_us};
pub use jsonb::Jsonb;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
pub use read::{Instant, Returned, Texts, read_json, read_row, read_rows};
pub use watch::{Watch, may_read};
pub use whole::WholeFunctions;

use crate::problem::Problem;
use crate::settings::EXACT_TEXTS;

/// Registers what Postgres asks us; called once when the library is loaded.
pub fn register_hooks() {
    whole::register_hook();
    watch::register_hook();
}

thread_local! {
    /// How often something was rolled back.
    static ROLLBACKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    /// Statements of the innermost call may set for their own execution how values look as texts.
    static TEXTS_DIFFER: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Changes whenever a subtransaction of ours was rolled back, and with it the locks that it took.
pub fn rollbacks() -> u64 {
    ROLLBACKS.get()
}

/// From now on statements do, or do not, set for their own execution how values look as texts: only then that must be put back behind each.
pub fn let_texts_differ(differ: bool) {
    TEXTS_DIFFER.set(differ);
}

/// [`EXACT_TEXTS`] where statements may change them, else nothing.
pub fn texts_to_put_back() -> &'static [(&'static str, &'static str)] {
    match TEXTS_DIFFER.get() {
        true => &EXACT_TEXTS,
        false => &[],
    }
}

/// Settings that hold until this value is dropped, like the SET clause of a function.
///
/// Postgres itself puts them back when an error ends the (sub)transaction.
pub struct Settings {
    level: i32,
    /// What `XactReadOnly` was, where it was switched on.
    was_read_only: Option<bool>,
}

impl Settings {
    /// Sets each `(name, value)` for the life of the returned guard.
    ///
    /// Errors: whatever the setting's own check raises (22023 for a bad value).
    pub fn push(settings: &[(&str, &str)]) -> Settings {
        // SAFETY: called inside a transaction, as every function call is; the level is handed back on drop.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        let mut guard = Settings {
            level,
            was_read_only: None,
        };
        for (name, value) in settings {
            // Since 16 Postgres refuses to save this one for a function (GUC_NO_RESET); xact.c itself sets and restores the variable, and
            // whatever rolls a (sub)transaction back puts it back (AbortSubTransaction).
            if *name == "transaction_read_only" {
                // SAFETY: a flag of this backend, only ever switched on here.
                unsafe {
                    guard.was_read_only.get_or_insert(pg_sys::XactReadOnly);
                    pg_sys::XactReadOnly |= *value == "on";
                }
                continue;
            }
            let (Ok(name), Ok(value)) = (CString::new(*name), CString::new(*value)) else {
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    "a setting contains a zero byte",
                )
                .raise()
            };
            // SAFETY: both strings are NUL-terminated and copied by Postgres before it returns.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
        }
        guard
    }
}

impl Settings {
    /// Whatever a statement sets for its own execution (see `Statement::under_callers_settings`) ends when the returned guard does:
    /// one for each statement, or the next one would be planned under the caller's search_path.
    pub fn of_one_statement() -> Settings {
        // Only what was saved at this level is put back: a SET LOCAL by itself would go on to the level above.
        let now = |name: &str| {
            let name = CString::new(name).unwrap_or_default();
            // SAFETY: the name is that of a setting every server has; the value is copied before anything else runs.
            unsafe {
                let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
                match value.is_null() {
                    true => String::new(),
                    false => CStr::from_ptr(value).to_string_lossy().into_owned(),
                }
            }
        };
        let names = ["search_path", "row_security"].into_iter();
        let names = names.chain(texts_to_put_back().iter().map(|(name, _)| *name));
        let values: Vec<(&str, String)> = names.map(|name| (name, now(name))).collect();
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Settings::push(&values)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction restores the settings; doing it here as well
        // would pop a level that no longer is ours.
        if !std::thread::panicking() {
            // SAFETY: `level` came from NewGUCNestLevel in this transaction and guards are dropped in reverse order.
            unsafe {
                pg_sys::AtEOXact_GUC(true, self.level);
                if let Some(was) = self.was_read_only {
                    pg_sys::XactReadOnly = was;
                }
            }
        }
    }
}

/// Runs `work` in a subtransaction: committed into the outer one if it returns `Ok`, rolled back if it returns `Err`
/// or raises.
///
/// Returns what `work` returned, or the Postgres error that it raised, with nothing of it left behind.
pub fn subtransaction<T>(work: impl FnOnce() -> Result<T, Problem> + UnwindSafe) -> Result<T, Problem> {
    // SAFETY: the order is that of plpgsql's exception blocks (pl_exec.c): remember context and owner, begin, work,
    // then release or roll back and put both back. SPI connections made by `work` are closed by their own guards.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let roll_back = move || {
            ROLLBACKS.set(ROLLBACKS.get() + 1);
            pg_sys::CurrentMemoryContext = context;
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            pg_sys::CurrentMemoryContext = context;
            pg_sys::CurrentResourceOwner = owner;
        };
        PgTryBuilder::new(AssertUnwindSafe(move || {
            let result = work();
            if result.is_ok() {
                pg_sys::ReleaseCurrentSubTransaction();
                pg_sys::CurrentMemoryContext = context;
                pg_sys::CurrentResourceOwner = owner;
            } else {
                roll_back();
            }
            result
        }))
        .catch_others(move |error| {
            roll_back();
            match error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                    let problem = problem_of(&report);
                    match problem.code {
                        // Whoever cancels the statement, or the server that is at its end, means all of it.
                        PgSqlErrorCode::ERRCODE_QUERY_CANCELED
                        | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
                        | PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN
                        | PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY => problem.raise(),
                        _ => Err(problem),
                    }
                }
                // Not a Postgres error: our own bug. Let it out as it is.
                panic @ CaughtError::RustPanic { .. } => panic.rethrow(),
            }
        })
        .execute()
    }
}

fn problem_of(report: &pg_sys::panic::ErrorReportWithLevel) -> Problem {
    let message = report.message();
    let gone = ["could not open relation with OID", "cache lookup failed for"];
    if report.sql_error_code() == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR
        && gone.iter().any(|text| message.starts_with(text))
    {
        return Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "something was dropped while it was looked at",
        )
        .detail(message.to_string())
        .hint("run it again");
    }
    Problem {
        code: report.sql_error_code(),
        message: report.message().to_string(),
        detail: report.detail().map(str::to_string),
        hint: report.hint().map(str::to_string),
    }
}

/// Runs one statement of whatever kind; returns how many rows it wrote or returned.
///
/// `SpiClient::update` panics at what it does not know: MERGE ... RETURNING, since 17.
///
/// Errors: those of SPI and of the statement.
pub fn run_any(statement: &str) -> Result<i64, Problem> {
    /// `SPI_OK_MERGE_RETURNING`, which older bindings lack.
    const MERGE_RETURNING: i32 = 19;
    let Ok(text) = CString::new(statement) else {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            "the statement contains a zero byte",
        ));
    };
    Ok(Spi::connect_mut(|_| {
        // SAFETY: SPI is connected; the string is NUL-terminated and lives as long as the call. The transaction id is assigned first, as
        // `SpiClient::update` does, so that whoever reads next sees what was written.
        unsafe {
            pg_sys::GetCurrentTransactionId();
            match pg_sys::SPI_execute(text.as_ptr(), false, 0) {
                MERGE_RETURNING => {}
                status => {
                    Spi::check_status(status)?;
                }
            }
            Ok::<_, spi::SpiError>(pg_sys::SPI_processed as i64)
        }
    })?)
}

/// The id under which this (sub)transaction writes: what `xmin` of a row that it wrote shows. Assigns one if needed.
pub fn current_transaction_id() -> u32 {
    // SAFETY: called inside a transaction that may write.
    unsafe { pg_sys::GetCurrentTransactionId().into_inner() }
}

/// All of an id of this transaction or of one of its subtransactions, whose lower half is given. Assigns one if needed.
pub fn full_transaction_id(id: u32) -> u64 {
    // SAFETY: called inside a transaction that may write.
    let top = unsafe { pg_sys::GetTopFullTransactionId().value };
    // Subtransactions get their ids after the transaction itself, perhaps in the next epoch.
    let epoch = (top >> 32) + u64::from(id < top as u32);
    (epoch << 32) | u64::from(id)
}

/// The id that the next transaction of the cluster gets.
pub fn next_full_transaction_id() -> u64 {
    // SAFETY: reads shared memory under its own lock.
    unsafe { pg_sys::ReadNextFullTransactionId().value }
}

/// Has this (sub)transaction an id, because it has written or will? Then each of its statements sees what is committed by then.
pub fn has_transaction_id() -> bool {
    // SAFETY: a plain read of backend state.
    unsafe { pg_sys::GetCurrentTransactionIdIfAny() != pg_sys::TransactionId::INVALID }
}

/// Is the current statement part of a transaction block (BEGIN, or several statements sent as one)?
pub fn in_transaction_block() -> bool {
    // SAFETY: a plain read of backend state.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// Is the current transaction unable to write (READ ONLY, or a standby)?
pub fn is_read_only() -> bool {
    // SAFETY: plain reads of backend state.
    unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() }
}

/// The longest condition or expression that is read, in bytes: Postgres's parser cannot be cancelled while it reads.
const LONGEST: usize = 100_000;

fn bounded(what: &str, text: &str) -> Result<(), Problem> {
    if text.len() <= LONGEST {
        return Ok(());
    }
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("{what} has {} bytes, more than the {LONGEST} that are read", text.len()),
    )
    .hint("put what it lists into a table, and name that: id IN (SELECT id FROM ...)"))
}

/// What a person typed, read by Postgres and written out again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qualified {
    /// With the alias in front of columns.
    pub prefixed: String,
    /// With bare column names.
    pub bare: String,
    /// As Postgres would keep it (`pg_node_tree`).
    pub tree: String,
    /// It may give something else the next time.
    pub volatile: bool,
    /// It may give something else under other settings.
    pub mutable: bool,
    /// The relations that it reads besides the table itself, by oid.
    pub relations: Vec<u32>,
    /// The oid of its type.
    pub type_oid: u32,
}

/// A condition over one table, as the caller typed it, in the form in which we may embed it.
///
/// * `relation`: the table as SQL text (`public."T"`), `oid` its id.
/// * `alias`: the name that the result gives to the table.
/// * `caller`: the caller's own settings, under which names in the condition are looked up and constants are read.
///
/// The result names every function, operator and type with its schema as far as the *current* search_path needs it, so
/// with `pg_catalog` alone in the path it means the same whatever the path is later. Only a single condition is
/// accepted: no second statement, no UNION or ORDER BY smuggled in behind a parenthesis.
///
/// Errors: 42601 for a text that is no single condition; whatever Postgres raises for unknown names and types.
pub fn qualify_condition(
    condition: &str,
    relation: &str,
    oid: u32,
    alias: &str,
    caller: &[(&str, &str)],
) -> Result<Qualified, Problem> {
    let not_one = || {
        Problem::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            "only_where must be one condition over the table's columns",
        )
        .detail(format!("got: {condition}"))
        .hint("for example only_where => $$status = 'OPEN' AND archived_at IS NULL$$")
    };
    bounded("only_where", condition)?;
    let text = format!("SELECT FROM {relation} WHERE (\n{condition}\n)");
    let (Ok(text), Ok(alias)) = (CString::new(text), CString::new(alias)) else {
        return Err(not_one());
    };
    // SAFETY: the parse trees are palloc'd in the current memory context and used before it is reset; each node's tag
    // is checked before it is cast; lists are only asked for their length and first cell.
    unsafe {
        let quals = {
            let _callers = Settings::push(caller);
            let statements = pg_sys::pg_parse_query(text.as_ptr());
            if statements.is_null() || (*statements).length != 1 {
                return Err(not_one());
            }
            let raw = (*(*statements).elements).ptr_value.cast::<pg_sys::RawStmt>();
            if !is_bare_select((*raw).stmt) {
                return Err(not_one());
            }
            #[cfg(any(feature = "pg13", feature = "pg14"))]
            let query = pg_sys::parse_analyze(raw, text.as_ptr(), std::ptr::null_mut(), 0, std::ptr::null_mut());
            #[cfg(not(any(feature = "pg13", feature = "pg14")))]
            let query =
                pg_sys::parse_analyze_fixedparams(raw, text.as_ptr(), std::ptr::null(), 0, std::ptr::null_mut());
            (*(*query).jointree).quals
        };
        if quals.is_null() {
            return Err(not_one());
        }
        Ok(qualified(quals, &alias, oid))
    }
}

/// Writes an analyzed expression over one table out.
///
/// # Safety
/// `node` is an analyzed expression over the first range table entry, in the current memory context.
unsafe fn qualified(node: *mut pg_sys::Node, alias: &CStr, table: u32) -> Qualified {
    // SAFETY: the caller's promise; all texts are copied.
    unsafe {
        let context = pg_sys::deparse_context_for(alias.as_ptr(), pg_sys::Oid::from(table));
        let deparsed = |prefixed: bool| {
            CStr::from_ptr(pg_sys::deparse_expression(node, context, prefixed, false))
                .to_string_lossy()
                .into_owned()
        };
        Qualified {
            prefixed: deparsed(true),
            bare: deparsed(false),
            tree: CStr::from_ptr(pg_sys::nodeToString(node.cast()))
                .to_string_lossy()
                .into_owned(),
            volatile: pg_sys::contain_volatile_functions(node),
            mutable: pg_sys::contain_mutable_functions(node),
            relations: watch::relations(node),
            type_oid: pg_sys::exprType(node).to_u32(),
        }
    }
}

/// An expression over the columns of one table, as the caller typed it, in the form in which we may embed it.
///
/// * `what`: what it is for, for the error.
/// * the others as in [`qualify_condition`].
///
/// One value per row: no aggregate, window function or set; subqueries are fine.
///
/// Errors: 42601 for a text that is no single expression; whatever Postgres raises for unknown names and types.
pub fn qualify_expression(
    expression: &str,
    what: &str,
    relation: &str,
    oid: u32,
    alias: &str,
    caller: &[(&str, &str)],
) -> Result<Qualified, Problem> {
    let not_one = || {
        Problem::new(
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            format!("{what} must be one expression over the table's columns"),
        )
        .detail(format!("got: {expression}"))
        .hint("for example 'lower(address)', 'created_by', or a constant in its own quotes, $$'US'$$")
    };
    bounded(what, expression)?;
    let text = format!("SELECT (\n{expression}\n) FROM {relation}");
    let (Ok(text), Ok(alias)) = (CString::new(text), CString::new(alias)) else {
        return Err(not_one());
    };
    // SAFETY: as in `qualify_condition`; the only target is asked for its expression after the list's length was checked.
    unsafe {
        let value = {
            let _callers = Settings::push(caller);
            let statements = pg_sys::pg_parse_query(text.as_ptr());
            if statements.is_null() || (*statements).length != 1 {
                return Err(not_one());
            }
            let raw = (*(*statements).elements).ptr_value.cast::<pg_sys::RawStmt>();
            if !is_bare((*raw).stmt, 1) {
                return Err(not_one());
            }
            #[cfg(any(feature = "pg13", feature = "pg14"))]
            let query = pg_sys::parse_analyze(raw, text.as_ptr(), std::ptr::null_mut(), 0, std::ptr::null_mut());
            #[cfg(not(any(feature = "pg13", feature = "pg14")))]
            let query =
                pg_sys::parse_analyze_fixedparams(raw, text.as_ptr(), std::ptr::null(), 0, std::ptr::null_mut());
            let targets = (*query).targetList;
            if (*query).hasAggs
                || (*query).hasWindowFuncs
                || (*query).hasTargetSRFs
                || targets.is_null()
                || (*targets).length != 1
            {
                return Err(not_one());
            }
            let entry = (*(*targets).elements).ptr_value.cast::<pg_sys::TargetEntry>();
            (*entry).expr.cast::<pg_sys::Node>()
        };
        Ok(qualified(value, &alias, oid))
    }
}

/// Is this `SELECT FROM one_table WHERE ...` and nothing more?
///
/// # Safety
/// `node` points at a valid parse node.
unsafe fn is_bare_select(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller's promise; a bare statement is a SelectStmt.
    unsafe { is_bare(node, 0) && !(*node.cast::<pg_sys::SelectStmt>()).whereClause.is_null() }
}

/// Is this a SELECT with so many targets from one table, with at most a condition?
///
/// # Safety
/// `node` points at a valid parse node.
unsafe fn is_bare(node: *mut pg_sys::Node, targets: i32) -> bool {
    // SAFETY: the tag is checked before the cast; the fields are pointers that are only compared with NULL, and the
    // list headers of non-NULL lists.
    unsafe {
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_SelectStmt {
            return false;
        }
        let select = &*node.cast::<pg_sys::SelectStmt>();
        let length = |list: *mut pg_sys::List| if list.is_null() { 0 } else { (*list).length };
        select.op == pg_sys::SetOperation::SETOP_NONE
            && length(select.targetList) == targets
            && length(select.fromClause) == 1
            && (targets == 0 || select.whereClause.is_null())
            && select.distinctClause.is_null()
            && select.intoClause.is_null()
            && select.groupClause.is_null()
            && select.havingClause.is_null()
            && select.windowClause.is_null()
            && select.valuesLists.is_null()
            && select.sortClause.is_null()
            && select.limitOffset.is_null()
            && select.limitCount.is_null()
            && select.lockingClause.is_null()
            && select.withClause.is_null()
    }
}
