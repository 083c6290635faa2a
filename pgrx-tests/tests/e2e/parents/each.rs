//! A parent for each row: in its tenant, proved; triggers, rows that change meanwhile, long pages and odd keys.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

const USERS: &str = "
    CREATE TABLE tenant (id int PRIMARY KEY); INSERT INTO tenant VALUES (1), (2);
    CREATE TYPE kind AS ENUM ('CONTACT', 'USER');
    CREATE TABLE party (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, kind kind NOT NULL, name text CHECK (name <> ''));
    CREATE TABLE users (id int PRIMARY KEY, email text, party_id int UNIQUE REFERENCES party);
    CREATE TABLE contacts (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, name text, party_id int REFERENCES party);
    CREATE TABLE membership (user_id int REFERENCES users, tenant_id int REFERENCES tenant, PRIMARY KEY (user_id, tenant_id));
    INSERT INTO party (tenant_id, kind) VALUES (1, 'USER');
    INSERT INTO users VALUES (1, 'a', 1), (2, 'b', NULL), (3, 'c', NULL), (4, '', NULL), (5, 'e', NULL), (6, 'f', NULL);
    INSERT INTO contacts VALUES (1, 1, 'same', NULL), (2, 2, 'same', NULL), (3, 2, 'same', NULL);
    INSERT INTO membership VALUES (1, 1), (2, 2), (3, 1), (3, 2), (4, 1), (6, 1);";

#[test]
fn one_parent_for_each_row_in_its_tenant_keys_first() {
    let (_database, mut client) = database_with(USERS);
    let call = |dry_run: bool| {
        format!(
            "SELECT filled, parents_created, reasons, note FROM backfill_parents('users', 'party_id', match => '{{}}',
               set => '{{\"kind\": \"''USER''\", \"name\": \"email\"}}', root => 'tenant', dry_run => {dry_run})"
        )
    };
    let dry = one(&mut client, &call(true));
    // 3 is a member of two tenants, 5 of none, 4 has an empty name.
    assert!(
        dry.starts_with(
            r#"2|2|{"ambiguous": 1, "no_source": 1, "constraint_failed": 1}|refused: 1 by party_name_check"#
        ),
        "{dry}"
    );
    assert_eq!(one(&mut client, &call(false)), dry);
    assert_eq!(
        lines(
            &mut client,
            "SELECT u.id, p.tenant_id, p.kind, p.name FROM users u LEFT JOIN party p ON p.id = u.party_id ORDER BY 1"
        ),
        [
            "1|1|USER|-",
            "2|2|USER|b",
            "3|-|-|-",
            "4|-|-|-",
            "5|-|-|-",
            "6|1|USER|f"
        ]
    );
    assert!(one(&mut client, &call(false)).starts_with("0|0|"));
    assert_eq!(one(&mut client, "SELECT count(*) FROM party"), "3");
    // Rows with a tenant of their own; nothing but the row itself tells them apart.
    assert_eq!(
        one(
            &mut client,
            "SELECT filled, parents_created FROM backfill_parents('contacts', 'party_id', match => '{}', set => '{\"kind\": \"''CONTACT''\", \"name\": \"name\"}',
               root => 'tenant', dry_run => false)"
        ),
        "3|3"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT count(DISTINCT party_id), bool_and(p.tenant_id = c.tenant_id) FROM contacts c JOIN party p ON p.id = c.party_id"
        ),
        "3|t"
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill_parents('contacts', 'party_id', match => '{}', set => '{\"kind\": \"name\"}', root => 'tenant', dry_run => NULL)",
    );
    assert_eq!(failed.code, "22004");
}

const EACH: &str = "
    CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2), (3);
    CREATE TABLE p (id serial PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, n text);
    CREATE TABLE c (a int PRIMARY KEY, tenant_id int REFERENCES tenants, n text, p_id int);
    INSERT INTO p (tenant_id) VALUES (1); INSERT INTO c SELECT g, 1, 'n' || g FROM generate_series(1, 3) g;";

#[test]
fn with_a_parent_for_each_row_what_triggers_change_is_noticed() {
    let call = "SELECT * FROM backfill_parents('c', 'p_id', match => '{}', set => '{\"n\": \"n\"}', root => 'tenants', dry_run => false)";
    for (body, on) in [
        ("NEW.id := NEW.id + 100;", "INSERT ON p"),
        ("NEW.tenant_id := 3;", "INSERT ON p"),
        ("NEW.p_id := (SELECT min(id) FROM p);", "UPDATE ON c"),
        ("NEW.p_id := OLD.p_id;", "UPDATE ON c"),
        ("NEW.tenant_id := 2;", "UPDATE ON c"),
        ("IF NEW.n = 'n2' THEN RETURN NULL; END IF;", "UPDATE ON c"),
    ] {
        let (_database, mut client) = database_with(&format!(
            "{EACH} CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
             CREATE TRIGGER changes BEFORE {on} FOR EACH ROW EXECUTE FUNCTION f();"
        ));
        let failed = failure(&mut client, call);
        assert_eq!(failed.code, "27000", "{body}: {failed:?}");
        assert!(failed.detail.contains("changes"), "{body}: {failed:?}");
        assert_eq!(
            one(
                &mut client,
                "SELECT count(*), (SELECT count(p_id) FROM c), (SELECT count(*) FROM mend.created_rows) FROM p"
            ),
            "1|0|0",
            "{body}"
        );
    }
    let (_database, mut client) = database_with(EACH);
    let refused = failure(&mut client, &call.replace("\"n\": \"n\"", "\"id\": \"a + 10\""));
    assert_eq!(refused.code, "22023", "{refused:?}");
    assert_eq!(one(&mut client, &call.replace('*', "filled, parents_created")), "3|3");
    assert_eq!(
        one(
            &mut client,
            "SELECT count(DISTINCT p_id), bool_and(p.n = c.n AND p.tenant_id = c.tenant_id) FROM c JOIN p ON p.id = p_id"
        ),
        "3|t"
    );
}

#[test]
fn a_row_that_comes_and_changes_while_others_are_waited_for_gets_no_stale_parent() {
    let (database, mut client) = database_with(EACH);
    client.batch_execute("DELETE FROM c WHERE a > 1").unwrap();
    let mut first = database.connect();
    first
        .batch_execute("BEGIN; SELECT FROM c WHERE a = 1 FOR UPDATE")
        .unwrap();
    let mut worker = database.connect();
    let pid: i32 = worker.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let handle = std::thread::spawn(move || {
        one(
            &mut worker,
            "SELECT filled FROM backfill_parents('c', 'p_id', match => '{}', set => '{\"n\": \"n\"}', root => 'tenants', dry_run => false)",
        )
    });
    let waits = |client: &mut Client| {
        while one(client, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) == "0" {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    waits(&mut client);
    // A row that the run has not seen when it held the others; somebody is about to give it to another tenant.
    client.batch_execute("INSERT INTO c VALUES (2, 1, 'old')").unwrap();
    let mut second = database.connect();
    second
        .batch_execute("BEGIN; UPDATE c SET n = 'new', tenant_id = 2 WHERE a = 2")
        .unwrap();
    let blocker: i32 = second.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    first.batch_execute("COMMIT").unwrap();
    while one(
        &mut client,
        &format!("SELECT pg_blocking_pids({pid}) @> ARRAY[{blocker}]"),
    ) == "f"
    {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    second.batch_execute("COMMIT").unwrap();
    handle.join().unwrap();
    assert_eq!(
        lines(
            &mut client,
            "SELECT c.a, p.tenant_id = c.tenant_id, p.n = c.n FROM c LEFT JOIN p ON p.id = c.p_id ORDER BY 1"
        ),
        ["1|t|t", "2|t|t"]
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM p"), "3");
}

#[test]
fn long_pages_odd_keys_and_conditions_that_change_their_mind() {
    let (_database, mut client) = database_with(
        "CREATE TABLE pp (id serial PRIMARY KEY, n text UNIQUE); CREATE TABLE cc (a int PRIMARY KEY, n text, pp_id int REFERENCES pp);
         INSERT INTO cc SELECT g, 'n' || g FROM generate_series(1, 12000) g;
         CREATE TABLE pt (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n text);
         CREATE TABLE ct (a text, b text, pt_id uuid REFERENCES pt, PRIMARY KEY (a, b));
         INSERT INTO ct VALUES ('x', E'y\x01z'), (E'x\x01y', 'z');
         CREATE TABLE pv (id varchar(36) PRIMARY KEY DEFAULT gen_random_uuid()::text, n text);
         CREATE TABLE cv (a int PRIMARY KEY, pv_id varchar(36) REFERENCES pv); INSERT INTO cv VALUES (1), (2);",
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT filled, reasons FROM backfill_parents('cc', 'pp_id', match => '{\"n\": \"n\"}', root => '', max_rows => 10000, dry_run => false)"
        ),
        r#"10000|{"excluded": 2000}"#
    );
    for (table, column, rows) in [("ct", "pt_id", "2|2"), ("cv", "pv_id", "2|2")] {
        for dry_run in [true, false] {
            assert_eq!(
                one(
                    &mut client,
                    &format!(
                        "SELECT filled, parents_created FROM backfill_parents('{table}', '{column}', match => '{{}}', root => '', dry_run => {dry_run})"
                    )
                ),
                rows
            );
        }
    }
    // It is noticed by its answers: two of them are alike once in eighty times.
    let call = "SELECT * FROM backfill_parents('cc', 'pp_id', match => '{\"n\": \"n\"}', root => '', only_where => 'random() < 0.5')";
    let noticed = (0..8).any(|_| match client.simple_query(call) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.code().map(|code| code.code()), Some("0A000"), "{error:?}");
            true
        }
    });
    assert!(noticed);
}
