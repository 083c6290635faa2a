//! A script of STATEMENTS statements: what `migration_status`, `migration_rehearse` and `migration_reset` cost, beside running it (each
//! statement by itself, over a socket on this machine), and how much memory of its own the backend needs.
//!
//! A fifth each: CREATE TABLE (a serial key, a CHECK, a foreign key to the table before), CREATE INDEX on an expression with a predicate, ALTER
//! TABLE ADD COLUMN, COMMENT, INSERT. Each call is made in a session of its own, in a fresh database where nothing of it is there, and in one
//! where all of it is.

use std::time::Instant;

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use pgrx_tests::{Cluster, Database};

use super::{median, show};

fn script(statements: i64) -> Vec<String> {
    (0..statements / 5)
        .flat_map(|i| {
            let parent = match i {
                0 => String::new(),
                i => format!(" REFERENCES t_{}", i - 1),
            };
            [
                format!("CREATE TABLE t_{i} (id serial PRIMARY KEY, name text NOT NULL DEFAULT 'x', amount numeric(10, 2) CHECK (amount >= 0), parent_id int{parent})"),
                format!("CREATE INDEX t_{i}_name ON t_{i} (lower(name)) WHERE amount > 0"),
                format!("ALTER TABLE t_{i} ADD COLUMN extra jsonb DEFAULT '{{}}'"),
                format!("COMMENT ON TABLE t_{i} IS 'table {i}'"),
                format!("INSERT INTO t_{i} (name) VALUES ('a')"),
            ]
        })
        .collect()
}

/// Seconds, the counted rows, and how many MB a fresh backend has used at most.
fn call(database: &Database, text: &str, function: &str) -> Result<(std::time::Duration, i64, i64)> {
    let mut client = database.connect();
    let start = Instant::now();
    let row = client.query_one(&format!("SELECT count(*) FROM {function}($1)"), &[&text])?;
    let duration = start.elapsed();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // RssAnon is memory of its own, without what all backends share.
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes: i64 = own
        .and_then(|n| n.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    Ok((duration, row.get(0), kilobytes / 1024))
}

pub fn run(cluster: &Cluster, sizes: &[i64], rounds: usize) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(vec![
        "statements",
        "running it",
        "status, nothing there",
        "status, all there",
        "rehearsal",
        "reset, dry",
        "own memory, MB",
    ]);
    for &size in sizes {
        let statements = script(size);
        let text = statements.iter().map(|s| format!("{s};\n")).collect::<String>();
        let mut measured = vec![Vec::new(); 5];
        let mut memory = 0;
        for round in 1..=rounds {
            eprintln!("{size} statements: round {round} of {rounds}");
            let database = cluster.database()?;
            let rows = statements.len() as i64 + 1;
            for (at, function) in [(1, "migration_status"), (3, "migration_rehearse")] {
                let (duration, counted, used) = call(&database, &text, function)?;
                ensure!(counted == rows, "{function}: {counted} rows of {rows}");
                measured[at].push(duration);
                memory = memory.max(used);
            }
            let mut client = database.connect();
            let start = Instant::now();
            for statement in &statements {
                client.batch_execute(statement)?;
            }
            measured[0].push(start.elapsed());
            for (at, function) in [(2, "migration_status"), (4, "migration_reset")] {
                let (duration, counted, used) = call(&database, &text, function)?;
                ensure!(counted > size / 5, "{function}: {counted} rows");
                measured[at].push(duration);
                memory = memory.max(used);
            }
        }
        let running = median(&mut measured[0]);
        let mut row = vec![size.to_string(), format!("1 ({running:.1} s)")];
        for one in &mut measured[1..] {
            let seconds = median(one);
            row.push(format!("{:.3} ({seconds:.1} s)", seconds / running));
        }
        row.push(memory.to_string());
        table.add_row(row);
    }
    show(table);
    Ok(())
}
