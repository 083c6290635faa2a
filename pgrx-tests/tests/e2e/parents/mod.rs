//! `backfill_parents`: missing parents are created and linked; what is refused, kept, killed, and done by two at once.

mod each;
mod party;
mod property;
mod refusals;

use pgrx_tests::example::{failure, lines, load_properties, one};
use pgrx_tests::{database, database_with};
use postgres::Client;

const RULE: &str = r#"{"table": "orders", "column": "property_id", "match": {"addr_key": "address"},
  "set": {"city": "city", "state": "state", "postal_code": "postal_code"}, "normalize": {"addr_key": ["trim", "casefold", "spaces"]}}"#;

/// Already set, filled, parents found, parents created, reasons.
fn called(client: &mut Client, rule: &str, dry_run: bool) -> String {
    one(
        client,
        &format!(
            "SELECT already_set, filled, parents_found, parents_created, reasons FROM backfill_parents($${rule}$$::jsonb, {dry_run})"
        ),
    )
}

fn contents(client: &mut Client) -> Vec<String> {
    lines(
        client,
        "SELECT id, property_id, xmin::text FROM orders UNION ALL SELECT NULL, id, xmin::text FROM properties ORDER BY 1, 2",
    )
}

#[test]
fn the_example_is_linked_as_the_dry_run_says_and_what_is_there_is_not_touched() {
    let database = database();
    let mut client = database.connect();
    load_properties(&mut client);
    let before = contents(&mut client);
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = called(&mut client, RULE, true);
    let by_tenant = lines(
        &mut client,
        &format!("SELECT * FROM backfill_parents_by_tenant($${RULE}$$)"),
    );
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(
        dry,
        r#"0|112|1|56|{"conflict": 2, "no_source": 2, "constraint_failed": 4}"#
    );
    assert_eq!(
        by_tenant,
        [
            r#"00000000-0000-0000-0000-000000000001|40|0|36|1|17|4|{"conflict": 2, "constraint_failed": 2}"#,
            r#"00000000-0000-0000-0000-000000000002|40|0|37|0|19|3|{"no_source": 1, "constraint_failed": 2}"#,
            r#"00000000-0000-0000-0000-000000000003|40|0|39|0|20|1|{"no_source": 1}"#,
        ]
    );
    assert_eq!(contents(&mut client), before);
    let there = "SELECT * FROM properties WHERE id = '00000000-0000-0000-0001-000000000001'";
    let property = one(&mut client, there);
    assert_eq!(called(&mut client, RULE, false), dry);
    assert_eq!(one(&mut client, there), property);
    // An independent look: each order has the property of its own organisation and address, and no address two.
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*), count(DISTINCT o.property_id), bool_and(o.created_by = p.org_id),
                    bool_and(p.addr_key = lower(btrim(regexp_replace(o.address, '\\s+', ' ', 'g'))))
             FROM orders o JOIN properties p ON p.id = o.property_id"
        ),
        "112|57|t|t"
    );
    let after = contents(&mut client);
    assert_eq!(
        called(&mut client, RULE, false),
        r#"112|0|0|0|{"conflict": 2, "no_source": 2, "constraint_failed": 4}"#
    );
    assert_eq!(contents(&mut client), after, "a second run wrote");
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*), min(table_name), min(run_id) FROM mend.created_rows"
        ),
        "56|public.properties|1"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT operation, total, filled, unfilled, rule ->> 'parents_created' FROM mend.runs WHERE run_id = 1"
        ),
        "backfill_parents|120|112|8|56"
    );
    // Two cities for one address: the caller decides.
    let first = RULE.replace("\"table\"", "\"on_conflict\": \"first\", \"table\"");
    assert_eq!(
        called(&mut client, &first, false),
        r#"112|2|0|1|{"no_source": 2, "constraint_failed": 4}"#
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT DISTINCT p.city FROM orders o JOIN properties p ON p.id = o.property_id WHERE o.id IN (12, 15)"
        ),
        "Dallas"
    );
}

#[test]
fn one_tenant_pages_and_conflicts_that_are_errors() {
    let database = database();
    let mut client = database.connect();
    load_properties(&mut client);
    let error = RULE.replace("\"table\"", "\"on_conflict\": \"error\", \"table\"");
    let failed = failure(
        &mut client,
        &format!("SELECT * FROM backfill_parents($${error}$$::jsonb, false)"),
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        (
            "21000",
            "2 rows of orders would give the parent that they share different values"
        )
    );
    let tenant = RULE.replace(
        "\"table\"",
        "\"tenant\": \"00000000-0000-0000-0000-000000000002\", \"table\"",
    );
    // Rows of other tenants are not waited for.
    let mut other = database.connect();
    other
        .batch_execute("BEGIN; UPDATE orders SET city = city WHERE created_by = '00000000-0000-0000-0000-000000000001'")
        .unwrap();
    client.batch_execute("SET lock_timeout = '10s'").unwrap();
    assert_eq!(
        called(&mut client, &tenant, false),
        r#"0|37|0|19|{"excluded": 80, "no_source": 1, "constraint_failed": 2}"#
    );
    other.batch_execute("ROLLBACK").unwrap();
    let page = RULE.replace("\"table\"", "\"max_rows\": 30, \"table\"");
    let mut filled = Vec::new();
    loop {
        let line = called(&mut client, &page, false);
        let now = line.split('|').nth(1).unwrap().to_string();
        if now == "0" {
            break;
        }
        filled.push(now);
    }
    assert_eq!(filled, ["30", "30", "15"]);
    assert_eq!(
        called(&mut client, RULE, true),
        r#"112|0|0|0|{"conflict": 2, "no_source": 2, "constraint_failed": 4}"#
    );
}

#[test]
fn what_is_wrong_is_said_at_once_and_nothing_is_created_on_a_guess() {
    let database = database();
    let mut client = database.connect();
    load_properties(&mut client);
    let mut refused = |arguments: &str| {
        failure(
            &mut client,
            &format!("SELECT * FROM backfill_parents('orders', 'property_id', {arguments})"),
        )
    };
    let failed = refused(
        r#"match => '{"addr_kye": "address", "city": "cty"}', set => '{"state": "1 +", "org_id": "created_by", "postal_code": null}'"#,
    );
    for part in [
        "column \"addr_kye\" of table properties does not exist",
        "match: city of properties: column \"cty\" does not exist",
        "set: state of properties: syntax error",
        "set: org_id of properties is the tenant",
        "set: postal_code of properties is no expression",
    ] {
        assert!(failed.detail.contains(part), "{part}: {failed:?}");
    }
    for (arguments, code) in [
        (
            r#"match => '{"city": "city"}', set => '{"addr_key": "address"}'"#,
            "42830",
        ),
        (r#"match => '{"addr_key": "count(address)"}'"#, "42601"),
        (r#"match => '{"addr_key": "address), (city"}'"#, "42601"),
        (r#"match => '{"addr_key": "address; SELECT 1"}'"#, "42601"),
        (r#"match => '{"addr_key": "generate_series(1, 2)::text"}'"#, "42601"),
        (
            r#"match => '{"addr_key": "address"}', "normalize" => '{"addr_key": "shout"}'"#,
            "22023",
        ),
        (
            r#"match => '{"addr_key": "address"}', "normalize" => '{"city": "trim"}'"#,
            "22023",
        ),
        (
            r#"match => '{"org_id": "created_by"}', set => '{"state": "state"}'"#,
            "42830",
        ),
        (
            r#"match => '{"addr_key": "address"}', on_conflict => 'any_two'"#,
            "22023",
        ),
        (r#"match => '{"addr_key": "random()::text"}'"#, "0A000"),
        (r#"match => '{"addr_key": "md5(orders::text)"}'"#, "0A000"),
        (
            r#"match => '{"addr_key": "address"}', set => '{"city": "tableoid::text"}'"#,
            "0A000",
        ),
        (r#"match => '[1]'"#, "22023"),
        (r#"match => '{"addr_key": "address"}', max_rows => 0"#, "22023"),
        (r#"match => '{"addr_key": "address"}', on_conflict => 'guess'"#, "22023"),
        (r#"match => '{"addr_key": "address"}', tenant => 'acme'"#, "22P02"),
        (r#"match => '{"addr_key": "address"}', dry_run => NULL"#, "22004"),
        (r#"match => '{"addr_key": "1 / (id - id)"}'"#, "22012"),
    ] {
        let failed = refused(arguments);
        assert_eq!(failed.code, code, "{arguments}: {failed:?}");
    }
    let failed = refused("dry_run => false");
    assert_eq!(failed.code, "42704");
    assert!(
        failed
            .hint
            .contains(r#"match => '{"addr_key":"an expression over the row"}'"#),
        "{failed:?}"
    );
    // Where names say enough, a proposal: counted, and not carried out.
    client
        .batch_execute("ALTER TABLE orders RENAME address TO \"addrKey\"")
        .unwrap();
    let note = one(
        &mut client,
        "SELECT filled, note FROM backfill_parents('orders', 'property_id')",
    );
    assert!(
        note.starts_with("115|nothing was created; proposed call: SELECT * FROM backfill_parents("),
        "{note}"
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill_parents('orders', 'property_id', dry_run => false)",
    );
    assert_eq!(failed.code, "22004");
    assert_eq!(one(&mut client, "SELECT count(*) FROM properties"), "1");
    client.batch_execute(&failed.hint).unwrap();
    assert_ne!(one(&mut client, "SELECT count(*) FROM properties"), "1");
}

#[test]
fn two_at_once_create_each_parent_once_and_a_failing_run_leaves_nothing() {
    let database = database();
    let mut client = database.connect();
    load_properties(&mut client);
    // Somebody else is about to create one of them: the run waits for it and takes it as it is.
    let mut other = database.connect();
    other
        .batch_execute("BEGIN; INSERT INTO properties (org_id, addr_key, city) VALUES ('00000000-0000-0000-0000-000000000002', '2 oak street', 'theirs')")
        .unwrap();
    let mut workers = Vec::new();
    for _ in 0..2 {
        let mut worker = database.connect();
        let pid: i32 = worker.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let handle = std::thread::spawn(move || called(&mut worker, RULE, false));
        while one(&mut client, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) == "0" {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        workers.push(handle);
    }
    other.batch_execute("COMMIT").unwrap();
    let said: Vec<String> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    assert_eq!(
        said,
        [
            r#"0|112|2|55|{"conflict": 2, "no_source": 2, "constraint_failed": 4}"#,
            r#"112|0|0|0|{"conflict": 2, "no_source": 2, "constraint_failed": 4}"#
        ]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*), count(DISTINCT (org_id, addr_key)) FROM properties"
        ),
        "57|57"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT city FROM properties WHERE org_id::text LIKE '%2' AND addr_key = '2 oak street'"
        ),
        "theirs"
    );

    // A trigger that raises half-way.
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_properties(&mut client);
    client
        .batch_execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.addr_key LIKE ''15%'' THEN RAISE EXCEPTION ''no''; END IF; RETURN NEW; END';
             CREATE TRIGGER no BEFORE INSERT ON properties FOR EACH ROW EXECUTE FUNCTION no()",
        )
        .unwrap();
    let before = contents(&mut client);
    let failed = failure(
        &mut client,
        &format!("SELECT * FROM backfill_parents($${RULE}$$::jsonb, false)"),
    );
    assert_eq!((failed.code.as_str(), failed.message.as_str()), ("P0001", "no"));
    assert_eq!(contents(&mut client), before);
    assert_eq!(
        one(
            &mut client,
            "SELECT (SELECT count(*) FROM mend.runs) + (SELECT count(*) FROM mend.created_rows)"
        ),
        "0"
    );
}

#[test]
fn a_killed_run_leaves_nothing_and_another_one_ends_it() {
    let database = database();
    let mut client = database.connect();
    load_properties(&mut client);
    let before = contents(&mut client);
    // The run has created its properties and waits for an order that somebody else holds.
    let mut other = database.connect();
    other
        .batch_execute("BEGIN; UPDATE orders SET city = city WHERE id = 100")
        .unwrap();
    let mut worker = database.connect();
    let pid: i32 = worker.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let handle = std::thread::spawn(move || {
        worker
            .simple_query(&format!("SELECT * FROM backfill_parents($${RULE}$$::jsonb, false)"))
            .map(|_| ())
    });
    while one(&mut client, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) == "0" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    client.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    assert!(handle.join().unwrap().is_err());
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(contents(&mut client), before);
    assert_eq!(
        called(&mut client, RULE, false),
        r#"0|112|1|56|{"conflict": 2, "no_source": 2, "constraint_failed": 4}"#
    );
}

#[test]
fn a_role_needs_its_rights_and_policies_are_not_counted_past() {
    let database = database();
    let mut client = database.connect();
    load_properties(&mut client);
    let role = format!("app_{}", database.name);
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON orders TO {role}; GRANT SELECT ON properties, profiles TO {role}; SELECT grant_mend('{role}')"
        ))
        .unwrap();
    let mut app = database.connect_as(&role);
    let note = one(
        &mut app,
        &format!("SELECT filled, note FROM backfill_parents($${RULE}$$::jsonb)"),
    );
    assert!(
        note.starts_with("112|") && note.contains("the real run needs INSERT on properties"),
        "{note}"
    );
    let failed = failure(
        &mut app,
        &format!("SELECT * FROM backfill_parents($${RULE}$$::jsonb, false)"),
    );
    assert_eq!(
        (failed.code.as_str(), failed.hint.as_str()),
        ("42501", format!("GRANT INSERT ON properties TO {role}").as_str())
    );
    client
        .batch_execute(&format!("GRANT INSERT ON properties TO {role}"))
        .unwrap();
    assert!(called(&mut app, RULE, false).starts_with("0|112|1|56|"));
    client
        .batch_execute("ALTER TABLE properties ENABLE ROW LEVEL SECURITY")
        .unwrap();
    let failed = failure(&mut app, &format!("SELECT * FROM backfill_parents($${RULE}$$::jsonb)"));
    assert!(
        failed.code == "42501" && failed.message.contains("row-level security of properties"),
        "{failed:?}"
    );
    drop(app);
    client
        .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .unwrap();
}

const PLAIN: &str = "
    CREATE TABLE par (id serial PRIMARY KEY, k text NOT NULL UNIQUE, city text);
    CREATE TABLE ch (id int PRIMARY KEY, a text, c text, pid int REFERENCES par);
    INSERT INTO ch VALUES (1, 'k1', 'c1'), (2, 'k2', 'c2'), (3, 'k3', 'c3');";

/// Already set, filled, found, created, reasons, of `ch`.
fn plain(client: &mut Client, rest: &str) -> String {
    one(
        client,
        &format!(
            "SELECT already_set, filled, parents_found, parents_created, reasons FROM backfill_parents('ch', 'pid', match => '{{\"k\": \"a\"}}', root => '', {rest})"
        ),
    )
}

#[test]
fn a_row_that_changes_or_goes_meanwhile_leaves_no_parent_behind() {
    for change in [
        "UPDATE ch SET a = 'k9' WHERE id = 1",
        "DELETE FROM ch WHERE id = 1",
        "UPDATE ch SET a = NULL WHERE id = 1",
    ] {
        let (database, mut client) = database_with(PLAIN);
        let mut other = database.connect();
        other.batch_execute(&format!("BEGIN; {change}")).unwrap();
        let mut worker = database.connect();
        let pid: i32 = worker.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let handle = std::thread::spawn(move || plain(&mut worker, "dry_run => false"));
        while one(&mut client, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) == "0" {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        other.batch_execute("COMMIT").unwrap();
        let said = handle.join().unwrap();
        assert_eq!(
            one(
                &mut client,
                "SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (SELECT FROM ch WHERE pid = p.id)) FROM par p"
            ),
            if change.contains("k9") { "3|0" } else { "2|0" },
            "{change}: {said}"
        );
        assert_eq!(
            one(
                &mut client,
                "SELECT count(*) FROM ch WHERE a IS NOT NULL AND pid IS NULL"
            ),
            "0"
        );
    }
    // A condition that reads the parents' table sees other rows once they are there: refused, nothing is left.
    let (_database, mut client) = database_with(PLAIN);
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill_parents('ch', 'pid', match => '{\"k\": \"a\"}', only_where => 'NOT EXISTS (SELECT FROM par p WHERE p.k = a)', root => '', dry_run => false)",
    );
    assert_eq!(failed.code, "27000");
    assert_eq!(one(&mut client, "SELECT count(*) FROM par"), "0");
    // One that speaks of the column itself is true before and false after.
    assert_eq!(
        plain(&mut client, "only_where => 'pid IS NULL AND id < 3', dry_run => false"),
        r#"0|2|0|2|{"excluded": 1}"#
    );
    // Triggers that skip or change what is written are told, with nothing left.
    for (trigger, on) in [
        ("RETURN NULL;", "INSERT ON par"),
        ("NEW.k := upper(NEW.k); RETURN NEW;", "INSERT ON par"),
        ("RETURN NULL;", "UPDATE ON ch"),
    ] {
        let (_database, mut client) = database_with(&format!(
            "{PLAIN} CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {trigger} END $$;
             CREATE TRIGGER skips BEFORE {on} FOR EACH ROW EXECUTE FUNCTION f();"
        ));
        let failed = failure(
            &mut client,
            "SELECT * FROM backfill_parents('ch', 'pid', match => '{\"k\": \"a\"}', root => '', dry_run => false)",
        );
        assert_eq!(failed.code, "27000", "{on}: {failed:?}");
        assert!(failed.detail.contains("skips"), "{failed:?}");
        assert_eq!(
            one(
                &mut client,
                "SELECT (SELECT count(*) FROM par) + (SELECT count(*) FROM mend.created_rows)"
            ),
            "0"
        );
    }
}

#[test]
fn values_are_compared_and_kept_as_they_are_stored() {
    let (_database, mut client) = database_with(
        "CREATE TABLE n (id serial PRIMARY KEY, k numeric(6,1) UNIQUE, v varchar(3), s numeric(3,1) CHECK (s <= 10.0));
         CREATE TABLE cn (id int PRIMARY KEY, a numeric, v text, s numeric, nid int REFERENCES n);
         INSERT INTO cn VALUES (1, 1.24, 'abc  ', 10.04), (2, 1.21, 'abc  ', 10.04), (3, 7, 'abcd', 1), (4, 8, 'ok', 11);",
    );
    let call = |dry_run: bool| {
        format!(
            "SELECT filled, parents_created, reasons FROM backfill_parents('cn', 'nid', match => '{{\"k\": \"a\"}}', set => '{{\"v\": \"v\", \"s\": \"s\"}}', root => '', dry_run => {dry_run})"
        )
    };
    let dry = one(&mut client, &call(true));
    assert_eq!(dry, r#"2|1|{"constraint_failed": 2}"#);
    assert_eq!(one(&mut client, &call(false)), dry);
    assert_eq!(one(&mut client, "SELECT k, v || '|', s FROM n"), "1.2|abc||10.0");
    // What stands in quotes is kept letter for letter.
    let (_database, mut client) = database_with(PLAIN);
    client
        .batch_execute(
            r#"SELECT backfill_parents('ch', 'pid', match => '{"k": "'' two\n  lines''||a"}', set => '{"city": "E''x\ty\n z''"}', root => '', only_where => E'c <> $$\n$$', dry_run => false)"#,
        )
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*), bool_and(k = E' two\n  lines' || 'k' || right(k, 1)), bool_and(city = E'x\ty\n z') FROM par"
        ),
        "3|t|t"
    );
    // Letters that the parent's collation takes for the same are the same parent.
    let (_database, mut client) = database_with(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE par (id serial PRIMARY KEY, k text COLLATE ci NOT NULL UNIQUE, city text);
         CREATE TABLE ch (id int PRIMARY KEY, a text, c text, pid int REFERENCES par); INSERT INTO ch VALUES (1, 'Foo'), (2, 'foo'), (3, 'bar');",
    );
    assert_eq!(plain(&mut client, "dry_run => true"), "0|3|0|2|{}");
    assert_eq!(plain(&mut client, "dry_run => false"), "0|3|0|2|{}");
    // Checks that call functions of the user find what they find in any other statement.
    let (_database, mut client) = database_with(&format!(
        "{PLAIN} CREATE TABLE allowed (name text); INSERT INTO allowed VALUES ('c1');
         CREATE FUNCTION ok(text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM allowed WHERE name = $1); END';
         ALTER TABLE par ADD CONSTRAINT is_allowed CHECK (ok(city));"
    ));
    let rest = "set => '{\"city\": \"c\"}', dry_run => ";
    assert_eq!(
        plain(&mut client, &format!("{rest} true")),
        r#"0|1|0|1|{"constraint_failed": 2}"#
    );
    assert_eq!(
        plain(&mut client, &format!("{rest} false")),
        r#"0|1|0|1|{"constraint_failed": 2}"#
    );
}
