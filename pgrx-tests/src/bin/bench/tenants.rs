//! Tenant keys: a chain of tables against the UPDATEs by hand in the right order; and how long a schema of 1,000 tables takes.
//!
//! The chain: 100 organizations → ROWS / 100 domains → ROWS / 10 conversations → ROWS messages, every key with a foreign key and an
//! index, all but those of domains to be filled. The script by hand updates conversations, then messages from conversations. Before
//! each writing measurement the tables are created anew and a checkpoint is taken. "dry run" is compared with the script in
//! BEGIN; ...; ROLLBACK, "coverage" with the joins that count disagreements by hand.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use pgrx_tests::Cluster;
use postgres::Client;

use super::{median, show};

const BY_HAND: &str = "
    UPDATE conversations c SET organization_id = d.organization_id FROM domains d WHERE d.id = c.domain_id AND c.organization_id IS NULL;
    UPDATE messages m SET organization_id = c.organization_id FROM conversations c WHERE c.id = m.conversation_id AND m.organization_id IS NULL;";

const COUNTS_BY_HAND: &str = "
    SELECT count(*), count(organization_id) FROM domains;
    SELECT count(*), count(c.organization_id), count(*) FILTER (WHERE c.organization_id <> d.organization_id)
    FROM conversations c LEFT JOIN domains d ON d.id = c.domain_id;
    SELECT count(*), count(m.organization_id), count(*) FILTER (WHERE m.organization_id <> c.organization_id)
    FROM messages m LEFT JOIN conversations c ON c.id = m.conversation_id;";

pub fn run(cluster: &Cluster, sizes: &[i64], rounds: usize) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(vec![
        "messages",
        "UPDATEs by hand",
        "backfill_tenant_ids",
        "BEGIN; by hand; ROLLBACK",
        "dry run",
        "counts by hand",
        "backfill_coverage",
    ]);
    for &rows in sizes {
        let database = cluster.database()?;
        let mut client = database.connect();
        let mut measured: Vec<Vec<Duration>> = vec![Vec::new(); 6];
        for round in 1..=rounds {
            eprintln!("{rows} messages: round {round} of {rounds}");
            for place in 0..3 {
                let which = (place + round) % 3;
                fresh(&mut client, rows)?;
                let start = Instant::now();
                client.batch_execute("BEGIN")?;
                match which {
                    1 => client.batch_execute("SELECT * FROM backfill_tenant_ids(dry_run => false)")?,
                    _ => client.batch_execute(BY_HAND)?,
                }
                client.batch_execute(if which == 2 { "ROLLBACK" } else { "COMMIT" })?;
                measured[which].push(start.elapsed());
                let filled: i64 = client
                    .query_one("SELECT count(organization_id) FROM messages", &[])?
                    .get(0);
                ensure!(
                    filled == if which == 2 { 0 } else { rows },
                    "{filled} of {rows} messages were filled"
                );
            }
            let dry = "SELECT filled FROM backfill_tenant_ids() WHERE table_name = 'messages'";
            fresh(&mut client, rows)?;
            measured[3].push(read(&mut client, dry, rows)?);
            client.batch_execute(BY_HAND)?;
            client.batch_execute("VACUUM ANALYZE")?;
            for place in 0..2 {
                match (place + round) % 2 {
                    0 => {
                        let start = Instant::now();
                        client.batch_execute(COUNTS_BY_HAND)?;
                        measured[4].push(start.elapsed());
                    }
                    _ => {
                        let sql = "SELECT populated FROM backfill_coverage() WHERE table_name = 'messages'";
                        measured[5].push(read(&mut client, sql, rows)?);
                    }
                }
            }
        }
        let times: Vec<f64> = measured.iter_mut().map(|times| median(times)).collect();
        table.add_row(vec![
            rows.to_string(),
            format!("1.00 ({:.2} s)", times[0]),
            format!("{:.2}", times[1] / times[0]),
            format!("1.000 ({:.2} s)", times[2]),
            format!("{:.3}", times[3] / times[2]),
            format!("1.00 ({:.3} s)", times[4]),
            format!("{:.2}", times[5] / times[4]),
        ]);
    }
    show(table);
    scale(cluster, rounds)
}

fn read(client: &mut Client, sql: &str, expected: i64) -> Result<Duration> {
    let start = Instant::now();
    let found: i64 = client.query_one(sql, &[])?.get(0);
    let elapsed = start.elapsed();
    ensure!(found == expected, "{sql}: {found} of {expected}");
    Ok(elapsed)
}

fn fresh(client: &mut Client, rows: i64) -> Result<()> {
    let (domains, conversations) = (rows / 100, rows / 10);
    client.batch_execute(&format!(
        "SET client_min_messages = warning;
         DROP TABLE IF EXISTS messages, conversations, domains, organizations;
         CREATE TABLE organizations (id bigint PRIMARY KEY);
         CREATE TABLE domains (id bigint PRIMARY KEY, organization_id bigint NOT NULL REFERENCES organizations);
         CREATE TABLE conversations (id bigint PRIMARY KEY, domain_id bigint NOT NULL, organization_id bigint, filler text);
         CREATE TABLE messages (id bigint PRIMARY KEY, conversation_id bigint NOT NULL, organization_id bigint, filler text);
         INSERT INTO organizations SELECT generate_series(1, 100);
         INSERT INTO domains SELECT g, g % 100 + 1 FROM generate_series(1, {domains}) g;
         INSERT INTO conversations SELECT g, g::bigint * 7919 % {domains} + 1, NULL, repeat('x', 100) FROM generate_series(1, {conversations}) g;
         INSERT INTO messages SELECT g, g::bigint * 7919 % {conversations} + 1, NULL, repeat('x', 200) FROM generate_series(1, {rows}) g;
         ALTER TABLE conversations ADD FOREIGN KEY (domain_id) REFERENCES domains, ADD FOREIGN KEY (organization_id) REFERENCES organizations;
         ALTER TABLE messages ADD FOREIGN KEY (conversation_id) REFERENCES conversations, ADD FOREIGN KEY (organization_id) REFERENCES organizations;
         CREATE INDEX ON conversations (organization_id); CREATE INDEX ON messages (organization_id)"
    ))?;
    client.batch_execute("VACUUM ANALYZE")?;
    client.batch_execute("CHECKPOINT")?;
    Ok(())
}

/// 1,000 tables with 1,500 foreign keys; a third have no key, the rest one that is nullable.
fn scale(cluster: &Cluster, rounds: usize) -> Result<()> {
    const TABLES: usize = 1000;
    let database = cluster.database()?;
    let mut client = database.connect();
    client.batch_execute("CREATE TABLE organizations (id bigint PRIMARY KEY, name text)")?;
    let mut keys = 0;
    for i in 1..TABLES {
        let key = match i % 3 {
            0 => "",
            _ => ", organization_id bigint REFERENCES organizations",
        };
        keys += usize::from(i % 3 != 0);
        let mut parents = String::new();
        if i > 1 && keys < 1500 {
            parents.push_str(&format!(", parent_id bigint REFERENCES table_{}", 1 + i * 7 % (i - 1)));
            keys += 1;
        }
        // As many second parents as are missing to 1,500.
        if i > 3 && i % 6 == 0 && keys < 1500 {
            parents.push_str(&format!(", other_id bigint REFERENCES table_{}", 1 + i * 13 % (i - 1)));
            keys += 1;
        }
        client.batch_execute(&format!(
            "CREATE TABLE table_{i} (id bigint PRIMARY KEY, a text, b text NOT NULL DEFAULT '', c int, d timestamptz{key}{parents});
             INSERT INTO table_{i} (id) SELECT generate_series(1, 10)"
        ))?;
    }
    client.batch_execute("ANALYZE")?;
    let found: i64 = client
        .query_one("SELECT count(*) FROM pg_constraint WHERE contype = 'f'", &[])?
        .get(0);
    println!(
        "\n{TABLES} tables, {found} foreign keys (seconds, median of {rounds}; peak memory of the server process after the call)\n"
    );
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_header(vec!["call", "seconds", "peak memory"]);
    for call in [
        "SELECT count(*) FROM pg_class",
        "SELECT count(*) FROM tenant_columns()",
        "SELECT length(tenant_map())",
        "SELECT count(*) FROM backfill_tenant_ids()",
        "SELECT count(*) FROM backfill_coverage()",
        "SELECT count(*) FROM dead_columns()",
    ] {
        // A session of its own: what it holds at its peak is what this call took.
        let mut client = database.connect();
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let mut times = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            client.batch_execute(call)?;
            times.push(start.elapsed());
        }
        table.add_row(vec![call.to_string(), format!("{:.2}", median(&mut times)), peak(pid)]);
    }
    show(table);
    Ok(())
}

/// Memory of its own that a process held at its peak; shared buffers do not count.
fn peak(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| -> i64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse().ok())
            .unwrap_or(0)
    };
    format!("{} MB", (of("VmHWM:") - of("RssShmem:") - of("RssFile:")).max(0) / 1024)
}
