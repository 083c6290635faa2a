//! `assert_backfilled`, `finalize_plan`, `finalize_backfill` and its single steps: what is locked in, in which order, under which
//! locks, and what is left where something is in the way.

mod gate;
mod locks;
mod steps;

use pgrx_tests::example::lines;
use postgres::Client;

pub const SCHEMA: &str = "
    CREATE TABLE tenants (id int PRIMARY KEY);
    CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, UNIQUE (tenant_id, id));
    CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int, customer_id int REFERENCES customers ON DELETE SET NULL ON UPDATE CASCADE);
    INSERT INTO tenants VALUES (1), (2);
    INSERT INTO customers VALUES (1, 1), (2, 2);
    INSERT INTO jobs SELECT g, 1 + g % 2, 1 + g % 2 FROM generate_series(1, 100) g;";

/// State and statement of each step.
pub fn plan(client: &mut Client, arguments: &str) -> Vec<String> {
    lines(
        client,
        &format!("SELECT state || ': ' || replace(statement, E'\\n', ' ') FROM finalize_plan({arguments})"),
    )
}

/// Every constraint and index of a table.
pub fn guarantees(client: &mut Client, table: &str) -> Vec<String> {
    lines(
        client,
        &format!(
            "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype <> 'n'
             UNION ALL SELECT attname || ' NOT NULL' FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnotnull AND attnum > 0
             UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = '{table}'::regclass
             ORDER BY 1"
        ),
    )
}
