//! `validate_tenant_fks` and `declare_reference`: what is found, what is clean, what is refused, what is not checked.

mod property;
mod within_tenant;

use pgrx_tests::example::{failure, lines, load_organizations, one};
use pgrx_tests::{database, database_with};
use postgres::Client;

/// Column, rows checked, orphans, cross-tenant, NULL tenants of both sides, verdict.
fn found(client: &mut Client, arguments: &str) -> Vec<String> {
    lines(
        client,
        &format!(
            "SELECT table_name || '.' || column_name, constraint_state, rows_checked, orphans, cross_tenant, null_tenant, parent_null_tenant, verdict
             FROM validate_tenant_fks({arguments})"
        ),
    )
}

const TENANTS: &str = "
    CREATE TABLE tenants (id int PRIMARY KEY);
    INSERT INTO tenants VALUES (1), (2);
    CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants);
    INSERT INTO customers VALUES (1, 1), (2, 2), (3, 1);";

#[test]
fn the_inverted_check_finds_broken_rows_where_no_foreign_key_exists() {
    // Seed 002 counted foreign keys, found none, and said that all were valid.
    let (_database, mut client) = database_with(
        "CREATE TABLE customers (id int PRIMARY KEY); CREATE TABLE jobs (id int PRIMARY KEY, customer_id int);
         INSERT INTO customers VALUES (1); INSERT INTO jobs VALUES (1, 1), (2, 7), (3, NULL), (4, 8);",
    );
    assert_eq!(
        found(&mut client, ""),
        [
            "jobs.customer_id|missing|2|2|-|-|-|violations",
            "total.1 reference|-|2|2|-|-|-|violations"
        ]
        .map(|line| line.replacen("|2|2|", "|3|2|", 1))
    );
    let sample = one(
        &mut client,
        "SELECT sample || jsonb_build_object('fix', fix) FROM validate_tenant_fks() WHERE table_name = 'jobs'",
    );
    assert_eq!(
        sample,
        r#"{"fix": "SELECT * FROM repair_orphans('jobs', 'customer_id', 'quarantine')", "orphans": [{"id": 2}, {"id": 4}]}"#
    );
}

#[test]
fn a_healthy_empty_database_is_not_checked_and_says_so() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY);
         CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants);",
    );
    assert_eq!(
        found(&mut client, "'tenants'"),
        [
            "customers.tenant_id|valid|0|0|0|0|0|not_checked",
            "total.1 reference|-|0|0|0|0|0|not_checked"
        ]
    );
    assert_eq!(
        lines(&mut client, "SELECT fix FROM validate_tenant_fks('tenants')"),
        [
            "nothing to check: customers has no rows",
            "nothing to check: no row has a reference"
        ]
    );
    client.batch_execute("DROP TABLE customers, tenants").unwrap();
    assert_eq!(found(&mut client, ""), ["total.0 references|-|0|0|-|-|-|not_checked"]);
}

#[test]
fn a_valid_constraint_is_no_proof() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, customer_id int REFERENCES customers);
         SET session_replication_role = replica;
         INSERT INTO jobs VALUES (1, 1, 1), (2, 1, 2), (3, 2, 99);
         RESET session_replication_role;"
    ));
    assert_eq!(
        found(&mut client, "table_name => 'jobs'"),
        [
            "jobs.tenant_id|valid|3|0|0|0|0|ok",
            "jobs.customer_id|valid|3|1|1|0|0|violations",
            "total.2 references|-|6|1|1|0|0|violations"
        ]
    );
}

#[test]
fn composite_keys_two_references_to_one_parent_and_partly_null_keys_are_counted_right() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} ALTER TABLE customers ADD UNIQUE (tenant_id, id);
         CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int REFERENCES tenants, customer_id int, payer_id int REFERENCES customers,
           FOREIGN KEY (tenant_id, customer_id) REFERENCES customers (tenant_id, id));
         CREATE TABLE notes (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES customers (tenant_id, id) MATCH FULL);
         SET session_replication_role = replica;
         INSERT INTO jobs VALUES (1, 1, 1, 2), (2, 1, 2, 3), (3, NULL, 2, NULL), (4, 2, NULL, 2), (5, NULL, NULL, 9);
         INSERT INTO notes VALUES (1, 1, 1), (2, NULL, NULL), (3, NULL, 1), (4, 2, 1);
         RESET session_replication_role;"
    ));
    let checked = found(&mut client, "'tenants'");
    // (1, 2) is no key of customers; a NULL part exempts a row; (NULL, 1) violates MATCH FULL.
    for expected in [
        "jobs.tenant_id|valid|3|0|0|2|0|violations",
        "jobs.(tenant_id, customer_id)|valid|2|1|0|0|0|violations",
        "jobs.payer_id|valid|4|1|1|1|0|violations",
        "customers.tenant_id|valid|3|0|0|0|0|ok",
    ] {
        assert!(checked.contains(&expected.to_string()), "{expected}: {checked:#?}");
    }
    let notes = checked.iter().find(|line| line.starts_with("notes.")).unwrap();
    assert!(notes.starts_with("notes.(a, b)|valid|3|2|"), "{notes}");
}

#[test]
fn the_tenant_of_a_table_without_a_key_comes_through_its_parents_and_shared_tables_have_none() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} CREATE TABLE countries (id int PRIMARY KEY); INSERT INTO countries VALUES (1);
         CREATE TABLE addresses (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, country_id int REFERENCES countries, bill_to_id int REFERENCES customers);
         INSERT INTO addresses VALUES (1, 1, 1, 3), (2, 1, NULL, 2), (3, 2, 1, NULL);"
    ));
    assert_eq!(
        found(&mut client, "'tenants', 'addresses'"),
        [
            "addresses.customer_id|valid|3|0|0|0|0|ok",
            "addresses.country_id|valid|2|0|-|-|-|ok",
            "addresses.bill_to_id|valid|2|0|1|0|0|violations",
            "total.3 references|-|7|0|1|0|0|violations"
        ]
    );
    // Without tenants, references all the same; and it says so.
    assert_eq!(
        found(&mut client, "'', 'addresses'").last().unwrap(),
        "total.3 references|-|7|0|-|-|-|ok"
    );
    let said = one(
        &mut client,
        "SELECT fix FROM validate_tenant_fks('') WHERE table_name = 'total'",
    );
    assert!(
        said.starts_with("no tenants: whether a reference stays inside"),
        "{said}"
    );
}

#[test]
fn soft_references_may_mean_keys_that_are_not_unique() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} ALTER TABLE customers ADD external_id text; UPDATE customers SET external_id = CASE id WHEN 3 THEN 'b' ELSE 'a' END;
         CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int REFERENCES tenants, customer_ref text);
         INSERT INTO jobs VALUES (1, 1, 'a'), (2, 2, 'a'), (3, 2, 'b'), (4, 1, 'c'), (5, NULL, 'a');"
    ));
    assert_eq!(
        one(
            &mut client,
            "SELECT declare_reference('jobs', 'customer_ref', 'customers(external_id)')"
        ),
        "jobs.customer_ref -> customers(external_id)"
    );
    // 'a' is a customer of each tenant: no row of theirs is elsewhere. 'b' is tenant 1's only.
    let expected = "jobs.customer_ref|missing|5|1|1|1|0|violations";
    assert!(found(&mut client, "'tenants', 'jobs'").contains(&expected.to_string()));
    assert_eq!(
        found(&mut client, "'tenants', 'jobs', include_inferred => false").len(),
        2
    );
    // It is what the name would say otherwise, and can be taken back.
    client
        .batch_execute("ALTER TABLE jobs ADD customer_id int; UPDATE jobs SET customer_id = 77")
        .unwrap();
    assert!(
        found(&mut client, "'tenants', 'jobs'").contains(&"jobs.customer_id|missing|5|5|0|1|0|violations".to_string())
    );
    client
        .batch_execute("SELECT declare_reference('jobs', 'customer_id', NULL)")
        .unwrap();
    // Left out, and said: by whom.
    assert_eq!(
        lines(
            &mut client,
            "SELECT verdict, rows_checked, declaration FROM validate_tenant_fks('tenants', 'jobs') WHERE column_name = 'customer_id'"
        ),
        ["not_checked|0|postgres: jobs.customer_id is no reference"]
    );
    assert_eq!(one(&mut client, "SELECT forget_reference('jobs', 'customer_id')"), "1");
    assert!(
        found(&mut client, "'tenants', 'jobs'")
            .iter()
            .any(|line| line.contains("customer_id"))
    );
    // What it names can go away: that is no silence.
    client.batch_execute("ALTER TABLE customers DROP external_id").unwrap();
    let broken = lines(
        &mut client,
        "SELECT verdict, fix FROM validate_tenant_fks('tenants', 'jobs') WHERE column_name = 'customer_ref'",
    );
    assert_eq!(
        broken,
        [
            "not_checked|column external_id of customers does not exist any more; declare_reference() or forget_reference() puts it right"
        ]
    );
}

#[test]
fn polymorphic_references_are_checked_per_type_and_unknown_types_are_orphans() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} CREATE TABLE invoices (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants); INSERT INTO invoices VALUES (1, 1), (2, 2);
         CREATE TABLE files (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, resource_type text, resource_id int);
         INSERT INTO files VALUES (1, 1, 'invoice', 1), (2, 1, 'invoice', 2), (3, 1, 'invoice', 9), (4, 2, 'customer', 2), (5, 2, 'customer', 5),
           (6, 1, 'ghost', 1), (7, 1, NULL, 1), (8, 1, 'invoice', NULL);
         SELECT declare_reference('files', '(resource_type, resource_id)', 'invoices', type_value => 'invoice');
         SELECT declare_reference('files', '(resource_type, resource_id)', 'customers(id)', type_value => 'customer');"
    ));
    let checked = found(&mut client, "'tenants', 'files'");
    assert_eq!(
        checked[1..4],
        [
            "files.(resource_type = 'customer', resource_id)|missing|2|1|0|0|0|violations",
            "files.(resource_type = 'invoice', resource_id)|missing|3|1|1|0|0|violations",
            "files.(resource_type, resource_id)|-|2|2|-|-|-|violations",
        ]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT sample FROM validate_tenant_fks('tenants', 'files') WHERE parent_table IS NULL AND constraint_state IS NULL AND table_name = 'files'"
        ),
        r#"{"orphans": [{"id": 6}, {"id": 7}]}"#
    );
}

#[test]
fn partitioned_tables_are_read_as_one_and_inheritance_alone() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} CREATE TABLE events (id int, tenant_id int NOT NULL REFERENCES tenants, customer_id int REFERENCES customers, day int) PARTITION BY RANGE (day);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (10);
         CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20);
         SET session_replication_role = replica;
         INSERT INTO events VALUES (1, 1, 1, 1), (2, 1, 2, 11), (3, 2, 50, 12);
         RESET session_replication_role;"
    ));
    assert_eq!(
        found(&mut client, "'tenants'")
            .into_iter()
            .filter(|line| line.starts_with("events"))
            .collect::<Vec<_>>(),
        [
            "events.tenant_id|valid|3|0|0|0|0|ok",
            "events.customer_id|valid|3|1|1|0|0|violations"
        ]
    );
}

#[test]
fn references_are_compared_as_their_foreign_keys_compare() {
    let (_database, mut client) = database_with(
        r#"CREATE TABLE tenants (id text COLLATE "C" PRIMARY KEY); INSERT INTO tenants VALUES ('x'), ('y');
         CREATE TABLE codes (code varchar(5) PRIMARY KEY, tenant_id text COLLATE "POSIX" NOT NULL REFERENCES tenants);
         CREATE TABLE jobs (id int PRIMARY KEY, tenant_id text NOT NULL REFERENCES tenants, code char(5) REFERENCES codes);
         INSERT INTO codes VALUES ('a', 'x'), ('a ', 'y'); INSERT INTO jobs VALUES (1, 'x', 'a'), (2, 'y', 'a');"#,
    );
    // 'a' of char(5) is 'a' of varchar, not 'a '; and two collations are no error.
    assert_eq!(
        found(&mut client, "'tenants'"),
        [
            "codes.tenant_id|valid|2|0|0|0|0|ok",
            "jobs.tenant_id|valid|2|0|0|0|0|ok",
            "jobs.code|valid|2|0|1|0|0|violations",
            "total.3 references|-|6|0|1|0|0|violations"
        ]
    );
}

#[test]
fn declarations_touch_what_they_name_and_nothing_else() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} CREATE SCHEMA old; CREATE TABLE old.jobs (id int, customer_id int);
         CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int, customer_id int REFERENCES customers);
         INSERT INTO jobs VALUES (1, 1, 2), (2, 9, 1);
         SELECT declare_reference('old.jobs', 'customer_id', 'customers'), declare_reference('jobs', 'customer_id', 'customers');
         DROP TABLE old.jobs"
    ));
    assert_eq!(
        one(&mut client, "SELECT forget_reference('old.jobs', 'customer_id')"),
        "1"
    );
    assert_eq!(
        one(&mut client, "SELECT table_schema FROM mend.declared_references"),
        "public"
    );
    // Crossing to another parent says nothing about this one, a composite key nothing about its first column.
    client
        .batch_execute(
            "ALTER TABLE customers ADD UNIQUE (tenant_id, id);
             SELECT declare_reference('jobs', 'customer_id', 'tenants', may_cross_tenants => true),
                    declare_reference('jobs', '(tenant_id, customer_id)', 'customers(tenant_id, id)')",
        )
        .unwrap();
    let checked = found(&mut client, "'tenants', 'jobs'");
    for expected in [
        "jobs.customer_id|valid|2|0|2|0|0|violations",
        "jobs.tenant_id|missing|2|1|0|0|0|violations",
    ] {
        assert!(checked.contains(&expected.to_string()), "{expected}: {checked:#?}");
    }
    for call in [
        "'jobs', 'customer_id -> tenants.id', 'customers'",
        "'jobs', 'customer_id', 'tenants.id -> customers'",
    ] {
        assert_eq!(
            failure(&mut client, &format!("SELECT declare_reference({call})")).code,
            "42601"
        );
    }
}

#[test]
fn what_may_cross_tenants_is_said_once() {
    let (_database, mut client) = database_with(&format!(
        "{TENANTS} CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, partner_id int REFERENCES customers);
         INSERT INTO jobs VALUES (1, 1, 2);"
    ));
    assert!(
        found(&mut client, "'tenants', 'jobs'").contains(&"jobs.partner_id|valid|1|0|1|0|0|violations".to_string())
    );
    client
        .batch_execute("SELECT declare_reference('jobs', 'partner_id', 'customers', may_cross_tenants => true)")
        .unwrap();
    assert!(found(&mut client, "'tenants', 'jobs'").contains(&"jobs.partner_id|valid|1|0|-|-|-|ok".to_string()));
}

#[test]
fn every_fix_that_is_shown_runs_and_leads_on() {
    let database = database();
    let mut client = database.connect();
    load_organizations(&mut client);
    let fixes = lines(
        &mut client,
        "SELECT DISTINCT fix FROM validate_tenant_fks() WHERE fix LIKE 'SELECT%' OR fix LIKE 'ALTER%'",
    );
    assert!(fixes.len() >= 5, "{fixes:#?}");
    for fix in fixes {
        client
            .batch_execute(&fix)
            .unwrap_or_else(|error| panic!("{fix}: {error:?}"));
    }
}

#[test]
fn validating_writes_nothing_works_read_only_and_leaves_nothing_when_killed() {
    let (database, mut client) = database_with(&format!(
        "{TENANTS} CREATE TABLE big (id int PRIMARY KEY, customer_id int);
         INSERT INTO big SELECT g, 1 FROM generate_series(1, 300000) g;
         CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN $1; END';
         CREATE VIEW slow_parents AS SELECT slow(id) AS id FROM customers;
         SELECT declare_reference('big', 'customer_id', 'slow_parents(id)');"
    ));
    let mut other = database.connect();
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let worker = std::thread::spawn(move || {
        other
            .simple_query("SELECT * FROM validate_tenant_fks('tenants')")
            .map(|_| ())
    });
    // In its pass: the view is being read.
    while one(
        &mut client,
        &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"),
    ) == "0"
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    client.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    assert!(worker.join().unwrap().is_err());
    while one(
        &mut client,
        &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"),
    ) != "0"
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = 'big'"
        ),
        "0"
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.runs"), "0");
    client
        .batch_execute("SELECT forget_reference('big', 'customer_id'); BEGIN READ ONLY")
        .unwrap();
    assert_eq!(
        found(&mut client, "'tenants', 'big'").last().unwrap(),
        "total.1 reference|-|300000|0|0|0|0|ok"
    );
    client.batch_execute("COMMIT").unwrap();
}

#[test]
fn wrong_calls_and_missing_rights_are_answered_with_the_next_call() {
    let (database, mut client) = database_with(&format!(
        "{TENANTS} CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int REFERENCES tenants, customer_id int REFERENCES customers);"
    ));
    let failed = failure(&mut client, "SELECT * FROM validate_tenant_fks(table_name => 'job')");
    assert_eq!(
        (failed.code.as_str(), failed.hint.as_str()),
        ("42P01", "did you mean 'jobs'?")
    );
    assert_eq!(
        failure(&mut client, "SELECT * FROM validate_tenant_fks(samples => -1)").code,
        "22023"
    );
    let failed = failure(
        &mut client,
        "SELECT declare_reference('jobs', 'custmer_id', 'customers')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.hint.as_str()),
        ("42703", "did you mean customer_id?")
    );
    assert_eq!(
        failure(&mut client, "SELECT declare_reference('jobs', 'id ->', 'customers')").code,
        "42601"
    );
    assert_eq!(
        failure(
            &mut client,
            "SELECT declare_reference('jobs', '(tenant_id, customer_id)', 'customers')"
        )
        .code,
        "42830"
    );
    client.batch_execute("ALTER TABLE customers ADD code text").unwrap();
    assert_eq!(
        failure(
            &mut client,
            "SELECT declare_reference('jobs', 'customer_id', 'customers(code)')"
        )
        .code,
        "42804"
    );
    assert_eq!(
        failure(&mut client, "SELECT forget_reference('jobs', 'customer_id')").code,
        "42704"
    );

    let role = format!("reader_{}", database.name);
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; SELECT grant_mend('{role}'); GRANT SELECT ON jobs, tenants TO {role};
             SELECT declare_reference('jobs', 'customer_id', 'customers')"
        ))
        .unwrap();
    let mut reader = database.connect_as(&role);
    let failed = failure(&mut reader, "SELECT * FROM validate_tenant_fks('tenants', 'jobs')");
    assert_eq!(failed.code, "42501");
    assert!(failed.message.contains("customers"), "{failed:?}");
    // What another role declared stays.
    assert_eq!(
        failure(
            &mut reader,
            "SELECT declare_reference('jobs', 'customer_id', 'tenants')"
        )
        .code,
        "42501"
    );
    assert_eq!(
        failure(&mut reader, "SELECT forget_reference('jobs', 'customer_id')").code,
        "42704"
    );
    client
        .batch_execute(&format!(
            "GRANT SELECT ON customers TO {role}; ALTER TABLE customers ENABLE ROW LEVEL SECURITY"
        ))
        .unwrap();
    let failed = failure(&mut reader, "SELECT * FROM validate_tenant_fks('tenants', 'jobs')");
    assert_eq!(failed.code, "42501");
    assert!(failed.message.contains("row-level security of customers"), "{failed:?}");
    assert!(failed.hint.contains("BYPASSRLS"), "{failed:?}");
    client
        .batch_execute("ALTER TABLE customers DISABLE ROW LEVEL SECURITY")
        .unwrap();
    assert_eq!(found(&mut reader, "'tenants', 'jobs'").len(), 3);
}
