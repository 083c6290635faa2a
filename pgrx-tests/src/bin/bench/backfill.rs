//! One column: the real run against the UPDATE by hand, the dry run against BEGIN; UPDATE; ROLLBACK.
//!
//! The table: ROWS entries of about 250 bytes with a primary key, a foreign key with index to one contact in five rows,
//! and the column to fill with foreign key and index; contacts point at parties; every row has a tenant. Before each
//! writing measurement the table is created anew and a checkpoint is taken, so that each starts from the same state and writes the
//! same rows. "conflict checks" adds a second source, an organization, to one row in two; all rows can be filled.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use pgrx_tests::Cluster;
use postgres::Client;

use super::{median, show};

const HAND_WRITTEN: &str =
    "UPDATE entry e SET party_id = c.party_id FROM contact c WHERE c.id = e.contact_id AND e.party_id IS NULL";

const ONE: &str = "ARRAY['contact_id -> contact.party_id']";
const TWO: &str = "ARRAY['contact_id -> contact.party_id', 'organization_id -> organization.party_id']";

pub fn run(cluster: &Cluster, sizes: &[i64], rounds: usize) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(vec![
        "rows",
        "hand-written UPDATE",
        "real run",
        "with conflict checks",
        "BEGIN; UPDATE; ROLLBACK",
        "dry run",
        "dry, conflict checks",
    ]);
    for &rows in sizes {
        eprintln!("{rows} rows: loading");
        let database = cluster.database()?;
        let mut client = database.connect();
        load(&mut client, rows)?;
        let mut measured: Vec<Vec<Duration>> = vec![Vec::new(); 6];
        for round in 1..=rounds {
            eprintln!("{rows} rows: round {round} of {rounds}");
            // Another order each round, so that none profits from its place.
            for place in 0..4 {
                let which = (place + round) % 4;
                let (sql, roll_back) = match which {
                    0 => (HAND_WRITTEN.to_string(), false),
                    1 => (call(ONE, false), false),
                    2 => (call(TWO, false), false),
                    _ => (HAND_WRITTEN.to_string(), true),
                };
                measured[which].push(write(&mut client, rows, &sql, roll_back)?);
            }
            fresh(&mut client)?;
            measured[4].push(read(&mut client, rows, &call(ONE, true))?);
            measured[5].push(read(&mut client, rows, &call(TWO, true))?);
        }
        let times: Vec<f64> = measured.iter_mut().map(|times| median(times)).collect();
        table.add_row(vec![
            rows.to_string(),
            format!("1.00 ({:.2} s)", times[0]),
            format!("{:.2}", times[1] / times[0]),
            format!("{:.2}", times[2] / times[0]),
            format!("1.000 ({:.2} s)", times[3]),
            format!("{:.3}", times[4] / times[3]),
            format!("{:.3}", times[5] / times[3]),
        ]);
    }
    show(table);
    Ok(())
}

fn call(sources: &str, dry_run: bool) -> String {
    format!("SELECT filled FROM backfill('entry', 'party_id', {sources}, dry_run => {dry_run})")
}

fn load(client: &mut Client, rows: i64) -> Result<()> {
    let parents = rows / 5;
    client.batch_execute(&format!(
        "CREATE TABLE tenant (id int PRIMARY KEY);
         CREATE TABLE party (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant);
         CREATE TABLE contact (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, party_id int REFERENCES party);
         CREATE TABLE organization (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, party_id int REFERENCES party);
         INSERT INTO tenant SELECT generate_series(1, 100);
         INSERT INTO party SELECT g, g % 100 + 1 FROM generate_series(1, {parents}) g;
         INSERT INTO contact SELECT g, g % 100 + 1, g FROM generate_series(1, {parents}) g;
         INSERT INTO organization SELECT g, g % 100 + 1, g FROM generate_series(1, {parents}) g;
         -- Contacts are scattered over the entries, as they are in a table that grew over years.
         CREATE TABLE pristine AS
         SELECT g AS id, c % 100 + 1 AS tenant_id, c AS contact_id, CASE WHEN g % 2 = 0 THEN c END AS organization_id,
                NULL::int AS party_id, repeat('x', 200) AS filler
         FROM generate_series(1, {rows}) g, LATERAL (SELECT (g::bigint * 7919 % {parents} + 1)::int AS c) x;
         ANALYZE"
    ))?;
    Ok(())
}

/// The table anew, with its keys and indexes: nothing filled, no dead rows, everything in memory.
fn fresh(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "SET client_min_messages = warning;
         DROP TABLE IF EXISTS entry;
         CREATE TABLE entry (id int, tenant_id int NOT NULL, contact_id int, organization_id int, party_id int, filler text NOT NULL);
         INSERT INTO entry SELECT * FROM pristine ORDER BY id;
         ALTER TABLE entry ADD PRIMARY KEY (id), ADD FOREIGN KEY (tenant_id) REFERENCES tenant,
           ADD FOREIGN KEY (contact_id) REFERENCES contact, ADD FOREIGN KEY (organization_id) REFERENCES organization,
           ADD FOREIGN KEY (party_id) REFERENCES party;
         CREATE INDEX ON entry (contact_id);
         CREATE INDEX ON entry (party_id)",
    )?;
    client.batch_execute("VACUUM ANALYZE entry")?;
    client.batch_execute("CHECKPOINT")?;
    client.batch_execute("SELECT count(filler) FROM entry; SELECT count(party_id) FROM contact; SELECT count(party_id) FROM organization")?;
    Ok(())
}

fn write(client: &mut Client, rows: i64, sql: &str, roll_back: bool) -> Result<Duration> {
    fresh(client)?;
    let start = Instant::now();
    client.batch_execute("BEGIN")?;
    client.batch_execute(sql)?;
    client.batch_execute(if roll_back { "ROLLBACK" } else { "COMMIT" })?;
    let elapsed = start.elapsed();
    let filled: i64 = client.query_one("SELECT count(party_id) FROM entry", &[])?.get(0);
    ensure!(
        filled == if roll_back { 0 } else { rows },
        "{sql} filled {filled} of {rows}"
    );
    Ok(elapsed)
}

fn read(client: &mut Client, rows: i64, sql: &str) -> Result<Duration> {
    let start = Instant::now();
    let filled: i64 = client.query_one(sql, &[])?.get(0);
    let elapsed = start.elapsed();
    ensure!(filled == rows, "{sql} would fill {filled} of {rows}");
    Ok(elapsed)
}
