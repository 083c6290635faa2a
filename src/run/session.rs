//! One call's surroundings: the catalog as it is now, the caller's names, and settings under which our SQL means what
//! it says.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use super::placement::{CITUS_IS_THERE, Placement};
use super::state_tables::{self, State};
use crate::catalog::{self, Catalog, Table};
use crate::pg::{self, Qualified, Settings, Watch};
use crate::problem::Problem;
use crate::settings::{CallersSettings, EXACT_TEXTS, SAFE_PATH};

static TENANT_ROOT: GucSetting<Option<std::ffi::CString>> = GucSetting::<Option<std::ffi::CString>>::new(None);

/// Registers `pg_mend.tenant_root`; called once when the library is loaded.
pub fn register_settings() {
    GucRegistry::define_string_guc(
        c"pg_mend.tenant_root",
        c"The table whose key is the tenant, where more than one could be.",
        c"For example 'organizations'. Empty: found from the foreign keys that both sides share.",
        &TENANT_ROOT,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// From its creation to its end, names in our SQL are looked up in pg_catalog only, and texts of values are exact; the caller's settings
/// are kept for what the caller typed, and for the code of tables (triggers, CHECKs).
pub struct Session {
    /// The database.
    pub catalog: Catalog,
    /// The settings of the caller.
    pub caller: CallersSettings,
    /// The role whose rights the call has (current_user).
    pub role: String,
    /// pg_mend's own tables, found as they were installed.
    pub state: State,
    /// The id of the transaction that the call is part of, if it has written already.
    pub transaction: Option<u32>,
    /// Which tables Citus keeps elsewhere.
    pub(super) placement: Placement,
    /// The root that the call itself names.
    named_root: Cell<Option<u32>>,
    /// Tables that are locked and as they were found, since so many rollbacks.
    pub(super) held: RefCell<(u64, HashSet<u32>)>,
    // Ends before the settings do.
    _watch: Option<Watch>,
    _settings: Settings,
}

impl Session {
    /// Reads the catalog. Assigns no transaction id.
    pub fn begin() -> Result<Session, Problem> {
        // The calls are qualified and use no operator, so they are safe under any search_path.
        let (caller, transaction, schemas, role, citus) = Spi::connect(|client| {
            let names = ["search_path", "row_security"].into_iter();
            let names: Vec<&'static str> = names.chain(EXACT_TEXTS.map(|(name, _)| name)).collect();
            let settings: String = names
                .iter()
                .map(|name| format!(", pg_catalog.current_setting('{name}')"))
                .collect();
            let sql = format!(
                "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text,
                        pg_catalog.current_schemas(true)::pg_catalog.text[], CURRENT_USER::pg_catalog.text, {CITUS_IS_THERE}{settings}"
            );
            let row = client.select(&sql, None, &[])?.first();
            let text = |column: usize| Ok::<_, spi::Error>(row.get::<String>(column)?.unwrap_or_default());
            let schemas = row.get::<Vec<Option<String>>>(2)?.unwrap_or_default();
            let mut caller = vec![];
            for (at, name) in names.into_iter().enumerate() {
                let value = text(5 + at)?;
                // DateStyle has two parts, of which we set the first.
                let ours = EXACT_TEXTS.iter().any(|(of_texts, exact)| {
                    *of_texts == name
                        && value
                            .split(',')
                            .next()
                            .is_some_and(|first| first.eq_ignore_ascii_case(exact))
                });
                if !ours {
                    caller.push((name, value));
                }
            }
            let citus = row.get::<bool>(4)?.unwrap_or(false);
            Ok::<_, spi::Error>((CallersSettings(caller), text(1)?, schemas, text(3)?, citus))
        })?;
        // Rows carry the lower half of the id in xmin.
        let transaction = transaction.parse::<u64>().ok().map(|id| id as u32);
        let mut ours = vec![("search_path", SAFE_PATH)];
        ours.extend(EXACT_TEXTS);
        let settings = Settings::push(&ours);
        let state = State::check()?;
        let placement = if citus {
            Placement::load()?
        } else {
            Placement::default()
        };
        let mut catalog = catalog::load(schemas.into_iter().flatten().collect())?;
        state_tables::load_tenant_keys(&mut catalog)?;
        state_tables::load_declared_references(&mut catalog)?;
        pg::let_texts_differ(caller.texts_differ());
        // Its own state tables belong to nobody who could put something in their place. Where the caller's search_path is ours, code of the
        // caller could not be told from statements of ours.
        let own = catalog
            .tables
            .iter()
            .filter(|table| table.schema == "mend")
            .map(|table| table.oid);
        let told_apart = caller
            .0
            .iter()
            .all(|(name, value)| *name != "search_path" || value != SAFE_PATH);
        let watch = told_apart.then(|| Watch::begin(own));
        let session = Session {
            catalog,
            caller,
            role,
            state,
            transaction,
            placement,
            named_root: Cell::new(None),
            held: RefCell::default(),
            _watch: watch,
            _settings: settings,
        };
        // What the setting says holds for everything that is inferred; a setting that names no table is reported by
        // whoever needs it.
        if let Ok(Some(root)) = session.tenant_root() {
            session.catalog.settle_tenant_root(root.oid);
        }
        Ok(session)
    }

    /// Refuses a condition whose answer may depend on how values look as texts, where the caller has another look than we have: old values
    /// are kept in the statement that asks it.
    pub fn same_for_all_texts(&self, typed: &Qualified) -> Result<(), Problem> {
        if !typed.mutable || !self.caller.texts_differ() {
            return Ok(());
        }
        let names = self.caller.0.iter().map(|(name, _)| *name);
        let names: Vec<&str> = names
            .filter(|name| EXACT_TEXTS.iter().any(|(exact, _)| exact == name))
            .collect();
        Err(Problem::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "the condition may depend on settings of the session",
        )
        .detail(format!(
            "it calls what is not IMMUTABLE, and old values are kept as texts that do not depend on {}",
            names.join(", ")
        ))
        .hint(format!("RESET {}, for this call", names.join("; RESET "))))
    }

    /// The caller's search_path.
    pub fn search_path(&self) -> &str {
        let mut all = self.caller.0.iter();
        all.find(|(name, _)| *name == "search_path")
            .map_or("", |(_, value)| value)
    }

    /// Was the role given what it needs to use pg_mend, the records of its runs included?
    pub fn may_record(&self) -> bool {
        self.catalog
            .table_in("mend", "runs")
            .is_some_and(|runs| runs.may_use_schema && runs.may_select)
    }

    /// A real run is recorded.
    ///
    /// Errors: 42501 where the role was not given what it needs.
    pub fn must_record(&self) -> Result<(), Problem> {
        if self.may_record() {
            return Ok(());
        }
        Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "permission denied to record the run in mend.runs",
        )
        .hint("one call by the extension's owner gives a role all that it needs: SELECT grant_mend('role')"))
    }

    /// From now on `name` is the table that holds the tenants, whatever the setting says.
    ///
    /// Errors: 42P01 if it names none, 42809 if it is no table.
    pub fn use_tenant_root(&self, name: &str) -> Result<&Table, Problem> {
        let root = self.catalog.resolve_table(name)?;
        if !root.is_table() {
            let shown = self.catalog.display(root);
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{shown} is no table, it cannot hold the tenants"),
            )
            .hint("name the table whose key the others reference"));
        }
        self.named_root.set(Some(root.oid));
        self.catalog.settle_tenant_root(root.oid);
        Ok(root)
    }

    /// The table that the call names, or that `pg_mend.tenant_root` does, if one of them is set.
    ///
    /// Errors: 42P01 if the setting names none.
    pub fn tenant_root(&self) -> Result<Option<&Table>, Problem> {
        if let Some(named) = self.named_root.get() {
            return Ok(self.catalog.table(named));
        }
        let setting = TENANT_ROOT.get().map(|value| value.to_string_lossy().into_owned());
        match setting.filter(|name| !name.trim().is_empty()) {
            None => Ok(None),
            Some(name) => self.catalog.resolve_table(&name).map(Some).map_err(|error| {
                let problem = Problem::from(error);
                let message = format!("pg_mend.tenant_root: {}", problem.message);
                Problem { message, ..problem }
            }),
        }
    }
}
