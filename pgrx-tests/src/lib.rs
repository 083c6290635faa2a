//! pg_mend's harness: throwaway clusters for tests, demo and benchmarks, and what `#[pg_test]` calls.
//!
//! A cluster lives in a temporary folder, listens on a socket in that folder only, and is watched over by a shell that
//! stops and removes it as soon as the process that started it is gone, however it went. As root, servers run as the
//! system user `postgres`.

mod cluster;
pub mod example;
pub mod print;

use std::sync::OnceLock;

pub use cluster::{Cluster, Database, Options};
use postgres::Client;

/// One cluster for all tests of a binary, with the extension in a template database.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Options::default()).unwrap_or_else(|error| panic!("{error:#}")))
}

/// A fresh database with pg_mend in it, dropped with the value.
pub fn database() -> Database<'static> {
    shared().database().unwrap_or_else(|error| panic!("{error:#}"))
}

/// As [`database`], with `setup` run in it, and a session there.
pub fn database_with(setup: &str) -> (Database<'static>, Client) {
    let database = database();
    let mut client = database.connect();
    client
        .batch_execute(setup)
        .unwrap_or_else(|error| panic!("{setup}: {error:?}"));
    (database, client)
}

/// The contract of the `#[pg_test]` macro: runs `tests.name()` in a transaction that is rolled back.
///
/// `expected`: the message of the error that the test must raise.
pub fn run_test(name: &str, expected: Option<&str>, _settings: Vec<&'static str>) -> Result<(), String> {
    let database = database();
    let mut client = database.connect();
    let mut transaction = client.transaction().map_err(|error| error.to_string())?;
    let result = transaction.simple_query(&format!("SELECT tests.\"{name}\"()"));
    match (result, expected) {
        (Ok(_), None) => Ok(()),
        (Ok(_), Some(message)) => Err(format!("expected the error: {message}")),
        (Err(error), expected) => match error.as_db_error() {
            Some(raised) if Some(raised.message()) == expected => Ok(()),
            Some(raised) => Err(format!("{}: {}", raised.code().code(), raised.message())),
            None => Err(error.to_string()),
        },
    }
}

/// The random cases of one of two parts of a property test: parts run side by side. `MEND_CASES` sets how many there are in all, `MEND_CASE`
/// runs one (in the part that has it).
///
/// * `default`: how many there are in all.
/// * `part`: 0 or 1.
pub fn cases(default: u64, part: u64) -> Vec<u64> {
    let number = |name: &str| {
        let typed = std::env::var(name).ok()?;
        Some(typed.parse().unwrap_or_else(|_| panic!("{name}={typed} is no number")))
    };
    let all = match number("MEND_CASE") {
        Some(one) => one..one + 1,
        None => 0..number("MEND_CASES").unwrap_or(default),
    };
    all.filter(|seed| seed % 2 == part).collect()
}
