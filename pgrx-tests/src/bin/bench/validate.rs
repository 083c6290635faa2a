//! Validation: all checks fused into one statement per table against one query per check, and against Postgres's own
//! VALIDATE CONSTRAINT; and how long a schema of 800 tables with 1,400 references takes.
//!
//! 200 organizations ← ROWS / 250 domains ← ROWS / 5 conversations ← ROWS messages, every reference a foreign key, every table with
//! its organization. Ten checks: five times orphans, twice parents of another organization, three times rows without one. By hand
//! each is one query, with the same settings (work_mem as much as validation may use, no JIT compilation, two workers). VALIDATE
//! CONSTRAINT, of the five foreign keys, finds orphans only, and stops at the first.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use pgrx_tests::Cluster;
use postgres::Client;

use super::{median, show};

const BY_HAND: [&str; 10] = [
    "SELECT count(*) FROM domains t LEFT JOIN organizations p ON p.id = t.organization_id WHERE t.organization_id IS NOT NULL AND p.id IS NULL",
    "SELECT count(*) FROM conversations t LEFT JOIN organizations p ON p.id = t.organization_id WHERE t.organization_id IS NOT NULL AND p.id IS NULL",
    "SELECT count(*) FROM messages t LEFT JOIN organizations p ON p.id = t.organization_id WHERE t.organization_id IS NOT NULL AND p.id IS NULL",
    "SELECT count(*) FROM conversations t LEFT JOIN domains p ON p.id = t.domain_id WHERE t.domain_id IS NOT NULL AND p.id IS NULL",
    "SELECT count(*) FROM messages t LEFT JOIN conversations p ON p.id = t.conversation_id WHERE t.conversation_id IS NOT NULL AND p.id IS NULL",
    "SELECT count(*) FROM conversations t JOIN domains p ON p.id = t.domain_id WHERE t.organization_id <> p.organization_id",
    "SELECT count(*) FROM messages t JOIN conversations p ON p.id = t.conversation_id WHERE t.organization_id <> p.organization_id",
    "SELECT count(*) FROM domains WHERE organization_id IS NULL",
    "SELECT count(*) FROM conversations WHERE organization_id IS NULL",
    "SELECT count(*) FROM messages WHERE organization_id IS NULL",
];

const KEYS: [(&str, &str, &str); 5] = [
    ("domains", "organization_id", "organizations"),
    ("conversations", "organization_id", "organizations"),
    ("messages", "organization_id", "organizations"),
    ("conversations", "domain_id", "domains"),
    ("messages", "conversation_id", "conversations"),
];

/// Broken on purpose, so that both sides have the same to find.
const CROSS_TENANT: i64 = 7;

pub fn run(cluster: &Cluster, sizes: &[i64], rounds: usize) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(vec![
        "messages + conversations + domains",
        "one query per check",
        "validate_tenant_fks",
        "VALIDATE CONSTRAINT",
    ]);
    for &rows in sizes {
        let database = cluster.database()?;
        let mut client = database.connect();
        fresh(&mut client, rows)?;
        let mut measured: Vec<Vec<Duration>> = vec![Vec::new(); 3];
        for round in 1..=rounds {
            eprintln!("{rows} messages: round {round} of {rounds}");
            for place in 0..3 {
                let which = (place + round) % 3;
                let elapsed = match which {
                    0 => {
                        client.batch_execute("SET work_mem = '64MB'; SET jit = off")?;
                        let start = Instant::now();
                        let mut found = 0;
                        for check in BY_HAND {
                            found += client.query_one(check, &[])?.get::<_, i64>(0);
                        }
                        let elapsed = start.elapsed();
                        client.batch_execute("RESET work_mem; RESET jit")?;
                        ensure!(found == CROSS_TENANT, "by hand: {found}");
                        elapsed
                    }
                    1 => {
                        let sql = "SELECT orphans + cross_tenant + null_tenant, rows_checked FROM validate_tenant_fks('organizations') WHERE table_name = 'total'";
                        let start = Instant::now();
                        let row = client.query_one(sql, &[])?;
                        let elapsed = start.elapsed();
                        let expected = rows * 2 + rows / 5 * 2 + rows / 250;
                        ensure!(
                            (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (CROSS_TENANT, expected),
                            "fused: {row:?}"
                        );
                        elapsed
                    }
                    _ => {
                        for (table, column, parent) in KEYS {
                            client.batch_execute(&format!(
                                "ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_fkey,
                                 ADD CONSTRAINT {table}_{column}_fkey FOREIGN KEY ({column}) REFERENCES {parent} NOT VALID"
                            ))?;
                        }
                        let start = Instant::now();
                        for (table, column, _) in KEYS {
                            client.batch_execute(&format!(
                                "ALTER TABLE {table} VALIDATE CONSTRAINT {table}_{column}_fkey"
                            ))?;
                        }
                        start.elapsed()
                    }
                };
                measured[which].push(elapsed);
            }
        }
        let times: Vec<f64> = measured.iter_mut().map(|times| median(times)).collect();
        table.add_row(vec![
            format!("{rows} + {} + {}", rows / 5, rows / 250),
            format!("1.00 ({:.2} s)", times[0]),
            format!("{:.2}", times[1] / times[0]),
            format!("{:.2}", times[2] / times[0]),
        ]);
    }
    show(table);
    scale(cluster, rounds)
}

fn fresh(client: &mut Client, rows: i64) -> Result<()> {
    let (domains, conversations) = (rows / 250, rows / 5);
    client.batch_execute(&format!(
        "CREATE TABLE organizations (id bigint PRIMARY KEY);
         CREATE TABLE domains (id bigint PRIMARY KEY, organization_id bigint);
         CREATE TABLE conversations (id bigint PRIMARY KEY, domain_id bigint, organization_id bigint, filler text);
         CREATE TABLE messages (id bigint PRIMARY KEY, conversation_id bigint, organization_id bigint, filler text);
         INSERT INTO organizations SELECT generate_series(1, 200);
         INSERT INTO domains SELECT g, g % 200 + 1 FROM generate_series(1, {domains}) g;
         INSERT INTO conversations
           SELECT g, d, d % 200 + 1, repeat('x', 40)
           FROM generate_series(1, {conversations}) g, LATERAL (SELECT g::bigint * 7919 % {domains} + 1 AS d) x;
         INSERT INTO messages
           SELECT g, c, (c * 7919 % {domains} + 1) % 200 + 1, repeat('x', 40)
           FROM generate_series(1, {rows}) g, LATERAL (SELECT g::bigint * 7919 % {conversations} + 1 AS c) x;
         UPDATE messages SET organization_id = organization_id % 200 + 1 WHERE id <= {CROSS_TENANT};"
    ))?;
    for (table, column, parent) in KEYS {
        client.batch_execute(&format!(
            "ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_fkey FOREIGN KEY ({column}) REFERENCES {parent}"
        ))?;
    }
    client.batch_execute("VACUUM ANALYZE")?;
    client.batch_execute("CHECKPOINT")?;
    Ok(())
}

/// 800 tables of 100 rows: each has its organization, three quarters of them a parent as well.
fn scale(cluster: &Cluster, rounds: usize) -> Result<()> {
    const TABLES: usize = 800;
    let database = cluster.database()?;
    let mut client = database.connect();
    client.batch_execute(
        "CREATE TABLE organizations (id bigint PRIMARY KEY); INSERT INTO organizations SELECT generate_series(1, 10)",
    )?;
    let mut references = 0;
    for i in 1..TABLES {
        let parent = match i % 4 {
            0 => String::new(),
            _ if i == 1 => String::new(),
            _ => format!(", parent_id bigint REFERENCES table_{}", i / 2),
        };
        references += 1 + usize::from(!parent.is_empty());
        let values = if parent.is_empty() { "" } else { ", g" };
        client.batch_execute(&format!(
            "CREATE TABLE table_{i} (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations{parent});
             INSERT INTO table_{i} SELECT g, g % 10 + 1{values} FROM generate_series(1, 100) g"
        ))?;
    }
    client.batch_execute("VACUUM ANALYZE")?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let row = client.query_one(
            "SELECT column_name, rows_checked FROM validate_tenant_fks() WHERE table_name = 'total'",
            &[],
        )?;
        times.push(start.elapsed());
        ensure!(
            row.get::<_, String>(0) == format!("{references} references")
                && row.get::<_, i64>(1) == references as i64 * 100,
            "{row:?}"
        );
    }
    println!(
        "\n{TABLES} tables, {references} references: validate_tenant_fks() {:.1} s",
        median(&mut times)
    );
    let start = Instant::now();
    let answers = client.query("SELECT * FROM migration_report()", &[])?.len();
    println!(
        "migration_report() {:.1} s, {answers} rows",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
