//! Texts without end, odd names and encodings, many calls in one transaction.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};

use super::TABLES;

#[test]
fn only_databases_in_utf8_take_the_extension() {
    let cluster = pgrx_tests::shared();
    let mut admin = cluster.connect("postgres", "postgres").unwrap();
    let name = format!("latin_{}", std::process::id());
    admin
        .batch_execute(&format!(
            "CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        ))
        .unwrap();
    let mut client = cluster.connect(&name, "postgres").unwrap();
    let failed = failure(&mut client, "CREATE EXTENSION pg_mend");
    assert_eq!(
        (failed.code.as_str(), failed.hint.is_empty()),
        ("0A000", false),
        "{failed:?}"
    );
    drop(client);
    admin.batch_execute(&format!("DROP DATABASE {name}")).unwrap();
}

#[test]
fn texts_without_end_are_refused_before_they_cost_anything() {
    let (_database, mut client) = database_with(TABLES);
    for (call, code) in [
        (
            "backfill('orders', 'tenant_id', ARRAY[repeat('customer_id -> orders.', 1000000)])",
            "42601",
        ),
        ("backfill('orders', 'tenant_id', ARRAY[repeat('c', 20000000)])", "42601"),
        ("backfill(repeat('c', 20000000), 'tenant_id')", "42P01"),
        ("backfill('orders', repeat('c.', 10000000))", "42703"),
        (
            "backfill('orders', 'tenant_id', ARRAY['customer_id -> customers.tenant_id'], only_where => repeat('(id = 1) OR ', 1000000) || 'true')",
            "54000",
        ),
        ("migration_status(repeat('x', 70000000))", "54000"),
    ] {
        let failed = failure(&mut client, &format!("SELECT * FROM {call}"));
        assert_eq!(
            failed.code,
            code,
            "{call}: {}",
            failed.message.chars().take(200).collect::<String>()
        );
        assert!(
            failed.message.len() + failed.detail.len() + failed.hint.len() < 20_000,
            "{call}"
        );
    }
}

#[test]
fn a_call_leaves_next_to_nothing_in_the_memory_of_its_transaction() {
    let (_database, mut client) = database_with(TABLES);
    let used = "SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext'";
    for call in [
        "backfill('orders', 'tenant_id', ARRAY['customer_id -> customers.tenant_id'])",
        "backfill_tenant_ids('tenants')",
        "validate_tenant_fks()",
        "repair_orphans('orders', 'customer_id', 'nullify')",
        "tenant_columns()",
    ] {
        let many = |times: u32| {
            format!(
                "DO $$ DECLARE r record; BEGIN FOR i IN 1..{times} LOOP FOR r IN SELECT * FROM {call} LOOP END LOOP; END LOOP; END $$"
            )
        };
        client.batch_execute(&format!("BEGIN; {}", many(5))).unwrap();
        let before: i64 = one(&mut client, used).parse().unwrap();
        client.batch_execute(&many(50)).unwrap();
        let after: i64 = one(&mut client, used).parse().unwrap();
        client.batch_execute("ROLLBACK").unwrap();
        assert!(
            (after - before) / 50 < 4096,
            "{call}: {} bytes a call",
            (after - before) / 50
        );
    }
}

#[test]
fn names_with_commas_and_line_breaks_are_names() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY, tenant_id int REFERENCES tenants);
         CREATE TABLE t (id int PRIMARY KEY, \"odd, (name\" int, tenant_id int REFERENCES tenants);
         INSERT INTO t VALUES (1, 7); ALTER TABLE t ADD FOREIGN KEY (\"odd, (name\") REFERENCES p NOT VALID;
         CREATE TABLE \"a\nroot  (all)\" (id int PRIMARY KEY, tenant_id int REFERENCES tenants)",
    );
    let shown = one(
        &mut client,
        "SELECT column_name FROM validate_tenant_fks('tenants', 't') WHERE orphans = 1 AND table_name = 't'",
    );
    for typed in [shown.as_str(), "\"odd, (name\"", "(\"odd, (name\")"] {
        let call = format!("SELECT violations FROM repair_orphans('t', '{typed}', 'nullify')");
        assert_eq!(one(&mut client, &call), "1", "{typed}");
    }
    let tree = lines(&mut client, "SELECT tenant_map('tenants', 'tree')").join("");
    assert!(!tree.contains("\nroot") && tree.contains("\\nroot"), "{tree}");
    // A repair that found nothing has nothing to put back.
    client.batch_execute("UPDATE t SET \"odd, (name\" = NULL").unwrap();
    let run = one(
        &mut client,
        "SELECT run_id FROM repair_orphans('t', '\"odd, (name\"', 'nullify', dry_run => false)",
    );
    for dry_run in [true, false] {
        let call = format!("SELECT total, restored FROM restore_repaired({run}, dry_run => {dry_run})");
        assert_eq!(one(&mut client, &call), "0|0");
    }
    // What it was about is gone.
    client.batch_execute("DROP TABLE t").unwrap();
    assert_eq!(
        failure(&mut client, &format!("SELECT * FROM restore_repaired({run})")).code,
        "42P01"
    );
}
