//! Missing parents: `backfill_parents` against the client loop that such endpoints are (pages of 1,000 orders; per order one upsert of
//! its property and one UPDATE), and against the best SQL by hand: one INSERT ... SELECT DISTINCT ... ON CONFLICT, one
//! UPDATE ... FROM (with an ANALYZE between them, as who knows the
//! planner writes it).
//!
//! ROWS orders of 100 organisations at ROWS / 5 addresses, with an index on (org_id, addr_key) and one on orders.property_id. Each way
//! starts from fresh tables and ends with the same rows. The loop runs prepared statements over a socket on this machine, a
//! transaction a page; a network in between would cost it a multiple.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};
use pgrx_tests::Cluster;
use postgres::Client;

use super::{median, show};

const BY_HAND: &str = "
    BEGIN;
    INSERT INTO properties (org_id, addr_key, city)
    SELECT DISTINCT ON (o.created_by, lower(o.address)) o.created_by, lower(o.address), o.city
    FROM orders o WHERE o.property_id IS NULL AND o.address <> '' ORDER BY o.created_by, lower(o.address), o.id
    ON CONFLICT (org_id, addr_key) DO NOTHING;
    ANALYZE properties;
    UPDATE orders o SET property_id = p.id FROM properties p
    WHERE o.property_id IS NULL AND p.org_id = o.created_by AND p.addr_key = lower(o.address);
    COMMIT;";

const CALL: &str = r#"SELECT filled, parents_created FROM backfill_parents('orders', 'property_id', match => '{"addr_key": "lower(address)"}',
    set => '{"city": "city"}', root => 'organizations', dry_run => "#;

pub fn run(cluster: &Cluster, sizes: &[i64], rounds: usize) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(vec![
        "orders",
        "client loop with upserts",
        "backfill_parents",
        "two statements by hand",
        "dry run",
    ]);
    for &rows in sizes {
        let database = cluster.database()?;
        let mut client = database.connect();
        let mut measured: Vec<Vec<Duration>> = vec![Vec::new(); 4];
        for round in 1..=rounds {
            eprintln!("{rows} orders: round {round} of {rounds}");
            for place in 0..4 {
                let which = (place + round) % 4;
                fresh(&mut client, rows)?;
                let start = Instant::now();
                match which {
                    0 => client_loop(&mut client)?,
                    1 => {
                        let row = client.query_one(&format!("{CALL}false)"), &[])?;
                        ensure!(
                            (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (rows, rows / 5),
                            "{row:?}"
                        );
                    }
                    2 => client.batch_execute(BY_HAND)?,
                    _ => {
                        let row = client.query_one(&format!("{CALL}true)"), &[])?;
                        ensure!(
                            (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (rows, rows / 5),
                            "{row:?}"
                        );
                    }
                }
                measured[which].push(start.elapsed());
                let found: i64 = client
                    .query_one(
                        "SELECT count(*) FROM orders o JOIN properties p ON p.id = o.property_id AND p.org_id = o.created_by AND p.addr_key = lower(o.address)",
                        &[],
                    )?
                    .get(0);
                ensure!(
                    found == if which == 3 { 0 } else { rows },
                    "{found} of {rows} orders were linked"
                );
            }
        }
        let times: Vec<f64> = measured.iter_mut().map(|times| median(times)).collect();
        table.add_row(vec![
            rows.to_string(),
            format!("1.00 ({:.1} s)", times[0]),
            format!("{:.3} ({:.1} × faster)", times[1] / times[0], times[0] / times[1]),
            format!("{:.3}", times[2] / times[0]),
            format!("{:.3}", times[3] / times[0]),
        ]);
    }
    show(table);
    Ok(())
}

/// Keyset pages of 1,000 orders; per order an upsert that returns the key, and an UPDATE.
fn client_loop(client: &mut Client) -> Result<()> {
    let page = client.prepare(
        "SELECT id, created_by, address, city FROM orders WHERE id > $1 AND property_id IS NULL AND address <> '' ORDER BY id LIMIT 1000",
    )?;
    let upsert = client.prepare(
        "INSERT INTO properties (org_id, addr_key, city) VALUES ($1, $2, $3)
         ON CONFLICT (org_id, addr_key) DO UPDATE SET addr_key = excluded.addr_key RETURNING id",
    )?;
    let link = client.prepare("UPDATE orders SET property_id = $1 WHERE id = $2")?;
    let mut last = 0i64;
    loop {
        let mut transaction = client.transaction()?;
        let rows = transaction.query(&page, &[&last])?;
        for row in &rows {
            let (id, address): (i64, String) = (row.get(0), row.get(2));
            let property: i64 = transaction
                .query_one(
                    &upsert,
                    &[&row.get::<_, i64>(1), &address.to_lowercase(), &row.get::<_, String>(3)],
                )?
                .get(0);
            transaction.execute(&link, &[&property, &id])?;
            last = id;
        }
        transaction.commit()?;
        if rows.len() < 1000 {
            return Ok(());
        }
    }
}

fn fresh(client: &mut Client, rows: i64) -> Result<()> {
    let addresses = rows / 500;
    client.batch_execute(&format!(
        "SET client_min_messages = warning;
         DROP TABLE IF EXISTS orders, properties, organizations;
         CREATE TABLE organizations (id bigint PRIMARY KEY);
         CREATE TABLE properties (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, org_id bigint NOT NULL REFERENCES organizations,
           addr_key text NOT NULL, city text, UNIQUE (org_id, addr_key));
         CREATE TABLE orders (id bigint PRIMARY KEY, created_by bigint NOT NULL REFERENCES organizations, address text, city text,
           property_id bigint REFERENCES properties, filler text);
         INSERT INTO organizations SELECT generate_series(1, 100);
         INSERT INTO orders
         SELECT g, g % 100 + 1, (g / 100 % {addresses}) || ' Oak Street', 'Austin', NULL, repeat('x', 100) FROM generate_series(1, {rows}) g;
         CREATE INDEX ON orders (property_id)"
    ))?;
    // Not the empty table: of one that was found empty, Postgres plans the check of the foreign key as a scan, and keeps that plan.
    client.batch_execute("VACUUM ANALYZE organizations")?;
    client.batch_execute("VACUUM ANALYZE orders")?;
    client.batch_execute("CHECKPOINT")?;
    Ok(())
}
