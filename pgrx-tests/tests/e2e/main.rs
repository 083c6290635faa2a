//! End-to-end tests: real clients against a real cluster, for what a transaction that is rolled back cannot show.
//!
//! * `property`: random schemas and rows against a row-by-row reference
//! * `example`: the promises of the design on the example data
//! * `agree`: one answer to each question, whichever call asks it
//! * `concurrency`: other writers, deadlocks, cancelled and killed runs
//! * `inference`: what is inferred from realistic schemas, and what is not
//! * `kinds`: every kind of relation and type that is supported or refused
//! * `constraints`: what a table enforces, and what its triggers do
//! * `refusals`: what a wrong call says
//! * `roles`: privileges, row-level security, hostile search_path
//! * `threats`: the threat model: who may be hostile, and what no call then does
//! * `places`: a standby, psql, SQL editors, pg_cron
//! * `tenants`, `tenant_graph`: tenant keys by inference; random graphs of tables against a reference
//! * `validate`: references against the rows, random schemas against one query per check
//! * `repair`: what is done about them, and put back
//! * `undo`: what any run changed, taken back
//! * `ownership`: every call is asked for the tenant of every table
//! * `foretold`: a dry run says what the real run does, whichever call writes
//! * `parents`: missing parents created and linked, random rows against a model
//! * `finalize`: the gate, and locking in with short locks
//! * `migration`: one checklist for all of it
//! * `dead_columns`: what is empty, and what uses it
//! * `documents`: the README's examples produce what the README shows
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod agree;
mod concurrency;
mod constraints;
mod dead_columns;
mod documents;
mod example;
mod finalize;
mod foretold;
mod inference;
mod kinds;
mod migration;
mod ownership;
mod parents;
mod places;
mod property;
mod refusals;
mod repair;
mod roles;
mod script;
mod tenant_graph;
mod tenants;
mod threats;
mod undo;
mod validate;
