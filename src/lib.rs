//! pg_mend: backfill, validate and repair multi-tenant data, inside Postgres.
//!
//! One way through, no going back: **call → rule → plan → run → report**.
//!
//! | room | holds |
//! |---|---|
//! | [`catalog`] | the database as typed values; name resolution |
//! | [`rule`] | the rule: types, path grammar, JSON, checks against the catalog |
//! | [`infer`] | catalog → rules: what a column refers to, its sources |
//! | [`infer::tenancy`] | which tenant a row belongs to: the one answer for all rooms |
//! | [`plan`] | rule + catalog → SQL statements and programs of them; pure |
//! | [`run`] | interprets programs, counts dry runs; the proof; the record |
//! | [`validate`] | every reference, checked against the rows |
//! | [`repair`] | rows that violate a reference: nullified, quarantined, or given their parent |
//! | [`finalize`] | the gate, and NOT NULL, foreign keys, indexes with short locks |
//! | [`parents`] | creating the missing parents of rows, and linking them |
//! | [`script`] | migration scripts: text → statements, parsed by Postgres → what each does |
//! | [`migration`] | a script against the catalog: how far it got, what it would do now, how to take back the half |
//! | [`undo`] | taking back what a run changed |
//! | [`settings`] | which settings decide how values look as texts |
//! | [`report`] | what the database looks like: tenant columns, the map, dead columns |
//! | `functions` | what SQL sees |
//! | [`pg`] | the one room with `unsafe` |
//!
//! [`problem`] is how every room refuses, [`identifier`] and [`names`] are about names.

::pgrx::pg_module_magic!(name, version);

pub mod catalog;
pub mod finalize;
mod functions;
pub mod identifier;
pub mod infer;
pub mod migration;
pub mod names;
pub mod parents;
pub mod pg;
pub mod plan;
pub mod problem;
pub mod repair;
pub mod report;
pub mod rule;
pub mod run;
pub mod script;
pub mod settings;
#[cfg(feature = "pg_test")]
mod tests;
pub mod undo;
pub mod validate;

use pgrx::prelude::*;

extension_sql_file!("../sql/state.sql", name = "state", bootstrap);
extension_sql_file!("../sql/procedures.sql", name = "procedures");
extension_sql_file!("../sql/comments.sql", name = "comments", finalize);

/// Called by Postgres when it loads the library.
#[pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    run::register_settings();
    pg::register_hooks();
}

/// What `#[pg_test]` looks for at the root of the crate; the harness brings its own cluster and needs nothing of it.
#[cfg(all(test, feature = "pg_test"))]
pub mod pg_test {
    /// Called once before the first test.
    pub fn setup(_options: Vec<&str>) {}

    /// Lines for postgresql.conf.
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
