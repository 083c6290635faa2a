//! `repair_orphans` and `restore_repaired`: dry = real, what is refused, what is kept, what concurrent writers do.

mod property;
mod values;

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

const ENTRIES: &str = "
    CREATE TYPE kind AS ENUM ('CONTACT', 'ORGANIZATION');
    CREATE TABLE tenants (id int PRIMARY KEY);
    CREATE TABLE party (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, kind kind NOT NULL,
      name text NOT NULL UNIQUE, code text DEFAULT 'x');
    CREATE TABLE entry (id int PRIMARY KEY, tenant_id int REFERENCES tenants, party_id int, status text DEFAULT 'OPEN',
      CONSTRAINT paid_by CHECK (status <> 'PAID' OR party_id IS NOT NULL));
    INSERT INTO tenants VALUES (1), (2);
    INSERT INTO party OVERRIDING SYSTEM VALUE VALUES (1, 1, 'CONTACT', 'a'), (2, 2, 'CONTACT', 'b');
    INSERT INTO entry (id, tenant_id, party_id) VALUES (1, 1, 1), (2, 1, 2), (3, 1, 90), (4, 2, 91), (5, 1, 92), (6, 2, 92), (7, 1, 93),
      (8, 1, 93), (10, NULL, 95), (11, NULL, 93), (12, 1, NULL);
    INSERT INTO entry VALUES (9, 1, 94, 'PAID');
    ALTER TABLE entry ADD FOREIGN KEY (party_id) REFERENCES party NOT VALID;";

const SET: &str = r#"set => '{"kind": "CONTACT", "name": "Recovered {key} of {tenant}"}'"#;

/// Violations, repaired, created, reasons.
fn repaired(client: &mut Client, arguments: &str) -> String {
    one(
        client,
        &format!("SELECT violations, repaired, created, unrepaired, reasons FROM repair_orphans({arguments})"),
    )
}

/// The same as a dry run and for real.
fn both(client: &mut Client, action: &str, rest: &str) -> String {
    let before = contents(client);
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = repaired(client, &format!("'entry', 'party_id', '{action}', true{rest}"));
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(contents(client), before, "the dry run wrote");
    let real = repaired(client, &format!("'entry', 'party_id', '{action}', false{rest}"));
    assert_eq!(dry, real, "dry and real run differ");
    let written = contents(client);
    repaired(client, &format!("'entry', 'party_id', '{action}', false{rest}"));
    assert_eq!(contents(client), written, "a second run wrote");
    real
}

fn contents(client: &mut Client) -> Vec<String> {
    lines(
        client,
        "SELECT 'entry', id, tenant_id, party_id, xmin::text FROM entry UNION ALL SELECT 'party', id, tenant_id, NULL, xmin::text FROM party ORDER BY 1, 2",
    )
}

#[test]
fn nullify_keeps_the_old_values_and_leaves_what_a_check_refuses() {
    let (_database, mut client) = database_with(ENTRIES);
    assert_eq!(both(&mut client, "nullify", ""), r#"9|8|0|1|{"constraint_failed": 1}"#);
    assert_eq!(
        lines(
            &mut client,
            "SELECT row_key, old_values, row_values FROM mend.repaired_rows WHERE run_id = 1 ORDER BY (row_key ->> 'id')::int LIMIT 2"
        ),
        [r#"{"id": 3}|{"party_id": "90"}|-"#, r#"{"id": 4}|{"party_id": "91"}|-"#]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT operation, total, filled, unfilled, rule ->> 'action' FROM mend.runs WHERE run_id = 1"
        ),
        "repair_orphans|9|8|1|nullify"
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM entry"), "12");
}

#[test]
fn quarantine_keeps_the_row_and_what_is_kept_can_be_put_back() {
    let (_database, mut client) = database_with(ENTRIES);
    let before = lines(&mut client, "SELECT * FROM entry ORDER BY id");
    assert_eq!(
        both(&mut client, "quarantine", ""),
        r#"9|8|0|1|{"constraint_failed": 1}"#
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT row_values FROM mend.repaired_rows WHERE row_key = '{\"id\": 3}'"
        ),
        r#"{"id": 3, "status": "OPEN", "party_id": 90, "tenant_id": 1}"#
    );
    // A foreign key, though NOT VALID, refuses new values without a parent; somebody changed one, another is gone.
    client
        .batch_execute(
            "INSERT INTO party OVERRIDING SYSTEM VALUE VALUES (90, 1, 'CONTACT', 'c'), (91, 2, 'CONTACT', 'd');
             UPDATE entry SET party_id = 1 WHERE id = 4; DELETE FROM entry WHERE id = 5",
        )
        .unwrap();
    let restored = "SELECT total, restored, unrestored, reasons FROM restore_repaired(1, ";
    let expected = r#"8|1|7|{"row_is_gone": 1, "changed_since": 1, "source_missing": 5}"#;
    assert_eq!(one(&mut client, &format!("{restored} true)")), expected);
    assert_eq!(one(&mut client, &format!("{restored} false)")), expected);
    assert_eq!(one(&mut client, "SELECT party_id FROM entry WHERE id = 3"), "90");
    client
        .batch_execute("ALTER TABLE entry DROP CONSTRAINT entry_party_id_fkey")
        .unwrap();
    assert_eq!(
        one(&mut client, &format!("{restored} false)")),
        r#"8|5|3|{"row_is_gone": 1, "changed_since": 1, "already_restored": 1}"#
    );
    let after = lines(&mut client, "SELECT * FROM entry WHERE id NOT IN (4, 5) ORDER BY id");
    let kept: Vec<String> = before
        .into_iter()
        .filter(|line| !line.starts_with("4|") && !line.starts_with("5|"))
        .collect();
    assert_eq!(after, kept);
    assert_eq!(failure(&mut client, "SELECT * FROM restore_repaired(99)").code, "42704");
}

#[test]
fn one_parent_per_missing_key_and_tenant_and_none_for_two_tenants_or_nobody() {
    let (_database, mut client) = database_with(ENTRIES);
    assert_eq!(
        both(&mut client, "create_parent", &format!(", {SET}")),
        r#"9|6|4|3|{"two_tenants": 2, "tenant_unknown": 1}"#
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT id, tenant_id, kind, name, code FROM party WHERE id > 2 ORDER BY id"
        ),
        [
            "90|1|CONTACT|Recovered 90 of 1|x",
            "91|2|CONTACT|Recovered 91 of 2|x",
            "93|1|CONTACT|Recovered 93 of 1|x",
            "94|1|CONTACT|Recovered 94 of 1|x"
        ]
    );
    assert_eq!(
        one(&mut client, "SELECT count(*), min(table_name) FROM mend.created_rows"),
        "4|public.party"
    );
    let note = one(&mut client, "SELECT note FROM mend.runs WHERE run_id = 1");
    assert!(note.contains("sequence public.party_id_seq is behind"), "{note}");
    assert_eq!(
        one(
            &mut client,
            "SELECT cross_tenant FROM validate_tenant_fks('tenants', 'entry') WHERE column_name = 'party_id'"
        ),
        "1"
    );
}

#[test]
fn what_new_parents_need_is_said_at_once_and_enum_values_are_checked() {
    let (_database, mut client) = database_with(ENTRIES);
    let failed = failure(
        &mut client,
        "SELECT * FROM repair_orphans('entry', 'party_id', 'create_parent')",
    );
    assert_eq!(failed.code, "23502");
    assert!(
        failed.message.contains("kind")
            && failed.message.contains("CONTACT, ORGANIZATION")
            && failed.message.contains("name text"),
        "{failed:?}"
    );
    assert!(
        failed.hint.contains(r#"set => '{"kind":"CONTACT","name":"..."}'"#),
        "{failed:?}"
    );
    let failed = failure(
        &mut client,
        r#"SELECT * FROM repair_orphans('entry', 'party_id', 'create_parent', set => '{"kind": "CONTCT", "nam": "x", "tenant_id": 1}')"#,
    );
    for part in ["cannot be \"CONTCT\"", "column \"nam\"", "is the tenant"] {
        assert!(failed.detail.contains(part), "{part}: {failed:?}");
    }
    // A name for all of them meets a UNIQUE key: predicted, and nothing is created.
    let set = r#", set => '{"kind": "CONTACT", "name": "Recovered"}'"#;
    assert_eq!(
        both(&mut client, "create_parent", set),
        r#"9|0|0|9|{"two_tenants": 2, "tenant_unknown": 1, "constraint_failed": 6}"#
    );
}

#[test]
fn references_to_other_tenants_are_quarantined_by_name_only() {
    let (_database, mut client) = database_with(ENTRIES);
    assert_eq!(
        both(&mut client, "quarantine", ", violation => 'cross_tenant'"),
        "1|1|0|0|{}"
    );
    assert_eq!(one(&mut client, "SELECT party_id FROM entry WHERE id = 2"), "-");
    assert_eq!(one(&mut client, "SELECT count(*) FROM entry WHERE party_id >= 90"), "9");
}

#[test]
fn what_cannot_be_repaired_is_refused_before_anything_is_written() {
    let (_database, mut client) = database_with(&format!(
        "{ENTRIES} CREATE TABLE strict (id int PRIMARY KEY, party_id int NOT NULL); INSERT INTO strict VALUES (1, 90);
         CREATE TABLE keyless (party_id int); INSERT INTO keyless VALUES (90);
         CREATE TABLE two (id int PRIMARY KEY, x int); ALTER TABLE two ADD FOREIGN KEY (x) REFERENCES party NOT VALID, ADD FOREIGN KEY (x) REFERENCES tenants NOT VALID;"
    ));
    let mut code = |call: &str| {
        let failed = failure(&mut client, &format!("SELECT * FROM repair_orphans({call})"));
        (failed.code, failed.hint)
    };
    let (strict, hint) = code("'strict', 'party_id', 'nullify', root => 'tenants'");
    assert_eq!(strict, "23502");
    assert!(
        hint.contains("repair_orphans('strict', 'party_id', 'create_parent')"),
        "{hint}"
    );
    assert_eq!(code("'keyless', 'party_id', 'nullify', root => 'tenants'").0, "42830");
    let (two, hint) = code("'two', 'x', 'nullify', root => 'tenants'");
    assert_eq!(two, "42P08");
    assert!(hint.contains("parent_table =>"), "{hint}");
    assert_eq!(code("'entry', 'status', 'nullify'").0, "42704");
    assert_eq!(code("'entry', 'party', 'nullify'").0, "42703");
    assert_eq!(code("'entry', 'party_id', 'delete'").0, "22023");
    assert_eq!(
        code("'entry', 'party_id', 'nullify', only_where => 'nothing = 1'").0,
        "42703"
    );
    client.batch_execute("BEGIN READ ONLY").unwrap();
    assert_eq!(
        failure(
            &mut client,
            "SELECT * FROM repair_orphans('entry', 'party_id', 'nullify', false)"
        )
        .code,
        "25006"
    );
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.runs"), "0");
}

#[test]
fn a_row_that_gets_a_parent_while_it_is_repaired_keeps_its_reference() {
    let (database, mut client) = database_with(ENTRIES);
    let mut other = database.connect();
    // Somebody else corrects row 3 and has not committed yet; the repair waits for the row.
    other
        .batch_execute("BEGIN; UPDATE entry SET party_id = 1 WHERE id = 3")
        .unwrap();
    let mut worker = database.connect();
    let pid: i32 = worker.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let repair = std::thread::spawn(move || repaired(&mut worker, "'entry', 'party_id', 'nullify', false"));
    while one(&mut client, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) == "0" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // And the parent of row 4 appears.
    client
        .batch_execute("INSERT INTO party OVERRIDING SYSTEM VALUE VALUES (91, 2, 'CONTACT', 'd')")
        .unwrap();
    other.batch_execute("COMMIT").unwrap();
    assert_eq!(repair.join().unwrap(), r#"7|6|0|1|{"constraint_failed": 1}"#);
    assert_eq!(
        lines(
            &mut client,
            "SELECT id, party_id FROM entry WHERE id IN (3, 4) ORDER BY id"
        ),
        ["3|1", "4|91"]
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.repaired_rows"), "6");
}

#[test]
fn a_failing_trigger_leaves_everything_as_it_was() {
    let (_database, mut client) = database_with(&format!(
        "{ENTRIES} CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF OLD.id = 8 THEN RAISE EXCEPTION ''no''; END IF; RETURN NEW; END';
         CREATE TRIGGER no BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION no()"
    ));
    let before = contents(&mut client);
    let failed = failure(
        &mut client,
        "SELECT * FROM repair_orphans('entry', 'party_id', 'quarantine', false)",
    );
    assert_eq!((failed.code.as_str(), failed.message.as_str()), ("P0001", "no"));
    assert_eq!(contents(&mut client), before);
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.repaired_rows"), "0");
    // One that skips rows silently is told.
    client
        .batch_execute("CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        .unwrap();
    assert_eq!(
        failure(
            &mut client,
            "SELECT * FROM repair_orphans('entry', 'party_id', 'quarantine', false)"
        )
        .code,
        "27000"
    );
    assert_eq!(contents(&mut client), before);
}

#[test]
fn composite_references_lose_the_reference_and_keep_the_tenant() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2);
         CREATE TABLE customers (tenant_id int REFERENCES tenants, id int, PRIMARY KEY (tenant_id, id)); INSERT INTO customers VALUES (1, 1);
         CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int REFERENCES tenants, customer_id int);
         INSERT INTO jobs VALUES (1, 1, 1), (2, 2, 1), (3, 1, 7);
         ALTER TABLE jobs ADD FOREIGN KEY (tenant_id, customer_id) REFERENCES customers NOT VALID",
    );
    let call = "'jobs', '(tenant_id, customer_id)', 'nullify', false, root => 'tenants', only_where => 'id = 3'";
    assert_eq!(repaired(&mut client, call), "1|1|0|0|{}");
    let call = "'jobs', '(tenant_id, customer_id)', 'create_parent', false, root => 'tenants'";
    assert_eq!(repaired(&mut client, call), "1|1|1|0|{}");
    assert_eq!(
        lines(&mut client, "SELECT * FROM jobs ORDER BY id"),
        ["1|1|1", "2|2|1", "3|1|-"]
    );
    assert_eq!(lines(&mut client, "SELECT * FROM customers ORDER BY 1"), ["1|1", "2|1"]);
}
