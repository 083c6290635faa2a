//! One call's surroundings: the catalog as it is now, the caller's names, and settings under which our SQL means what
//! it says.

use std::cell::Cell;

use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use super::ledger::State;
use crate::catalog::{self, Catalog, Table};
use crate::pg::Settings;
use crate::problem::Problem;

static TENANT_ROOT: GucSetting<Option<std::ffi::CString>> = GucSetting::<Option<std::ffi::CString>>::new(None);

/// Where names in our own SQL are looked up.
pub(super) const SAFE_PATH: &str = "pg_catalog, pg_temp";

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

/// From its creation to its end, names in our SQL are looked up in pg_catalog only; the caller's search_path is kept
/// for the names that the caller typed.
pub struct Session {
    /// The database.
    pub catalog: Catalog,
    /// The caller's setting, as text.
    pub search_path: String,
    /// The caller's setting, `on` or `off`.
    pub row_security: String,
    /// The role whose rights the call has (current_user).
    pub role: String,
    /// pg_mend's own tables, found as they were installed.
    pub state: State,
    /// The id of the transaction that the call is part of, if it has written already.
    pub transaction: Option<u32>,
    /// The root that the call itself names.
    named_root: Cell<Option<u32>>,
    _settings: Settings,
}

impl Session {
    /// Reads the catalog. Assigns no transaction id.
    pub fn begin() -> Result<Session, Problem> {
        // The two calls are qualified and use no operator, so they are safe under any search_path.
        let (search_path, row_security, transaction, schemas, role) = Spi::connect(|client| {
            let row = client
                .select(
                    "SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('row_security'),
                            pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text,
                            pg_catalog.current_schemas(true)::pg_catalog.text[], CURRENT_USER::pg_catalog.text",
                    None,
                    &[],
                )?
                .first();
            let text = |column: usize| Ok::<_, spi::Error>(row.get::<String>(column)?.unwrap_or_default());
            let schemas = row.get::<Vec<Option<String>>>(4)?.unwrap_or_default();
            Ok::<_, spi::Error>((text(1)?, text(2)?, text(3)?, schemas, text(5)?))
        })?;
        // Rows carry the lower half of the id in xmin.
        let transaction = transaction.parse::<u64>().ok().map(|id| id as u32);
        let settings = Settings::push(&[("search_path", SAFE_PATH)]);
        let state = State::check()?;
        let catalog = catalog::load(schemas.into_iter().flatten().collect())?;
        let session = Session {
            catalog,
            search_path,
            row_security,
            role,
            state,
            transaction,
            named_root: Cell::new(None),
            _settings: settings,
        };
        // What the setting says holds for everything that is inferred; a setting that names no table is reported by
        // whoever needs it.
        if let Ok(Some(root)) = session.tenant_root() {
            session.catalog.settle_tenant_root(root.oid);
        }
        Ok(session)
    }

    /// Was the role given what it needs to use pg_mend, the records of its runs included?
    pub fn may_record(&self) -> bool {
        self.catalog
            .table_in("mend", "runs")
            .is_some_and(|runs| runs.may_use_schema && runs.may_select)
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
