//! `assert_backfilled`, `finalize_plan`, `finalize_backfill` and its single steps: what is locked in, in which order, under which
//! locks, and what is left where something is in the way.

use pgrx_tests::example::{Failure, failure, lines, load_organizations, load_party, one};
use pgrx_tests::{Database, database, database_with};
use postgres::Client;

const SCHEMA: &str = "
    CREATE TABLE tenants (id int PRIMARY KEY);
    CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, UNIQUE (tenant_id, id));
    CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int, customer_id int REFERENCES customers ON DELETE SET NULL ON UPDATE CASCADE);
    INSERT INTO tenants VALUES (1), (2);
    INSERT INTO customers VALUES (1, 1), (2, 2);
    INSERT INTO jobs SELECT g, 1 + g % 2, 1 + g % 2 FROM generate_series(1, 100) g;";

/// State and statement of each step.
fn plan(client: &mut Client, arguments: &str) -> Vec<String> {
    lines(
        client,
        &format!("SELECT state || ': ' || replace(statement, E'\\n', ' ') FROM finalize_plan({arguments})"),
    )
}

/// Every constraint and index of a table.
fn guarantees(client: &mut Client, table: &str) -> Vec<String> {
    lines(
        client,
        &format!(
            "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass
             UNION ALL SELECT attname || ' NOT NULL' FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnotnull AND attnum > 0
             UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = '{table}'::regclass
             ORDER BY 1"
        ),
    )
}

#[test]
fn the_gate_fails_with_counts_reasons_and_the_next_call() {
    let database = database();
    let mut client = database.connect();
    load_party(&mut client);
    let failed = failure(
        &mut client,
        "SELECT assert_backfilled('WaitlistEntry', 'clientPartyId')",
    );
    assert_eq!(failed.code, "P0004");
    assert_eq!(
        failed.message,
        "\"WaitlistEntry\".\"clientPartyId\" is NULL in 45 of 48 rows"
    );
    assert!(
        failed
            .detail
            .starts_with("backfill can fill 24 of them; not the others: ")
            && failed.detail.contains("no_source 3"),
        "{failed:?}"
    );
    // The hint leads on until nothing is left but what nobody can fill.
    client.batch_execute(&failed.hint).unwrap();
    let failed = failure(
        &mut client,
        "SELECT assert_backfilled('WaitlistEntry', 'clientPartyId')",
    );
    assert_eq!(
        failed.message,
        "\"WaitlistEntry\".\"clientPartyId\" is NULL in 21 of 48 rows"
    );
    assert!(
        failed.detail.starts_with("backfill can fill none of them: "),
        "{failed:?}"
    );
    assert_eq!(
        failed.hint,
        "SELECT * FROM backfill_unfilled('\"WaitlistEntry\"', 'clientPartyId')"
    );
    assert_eq!(lines(&mut client, &failed.hint).len(), 21);
    client
        .batch_execute("DELETE FROM \"WaitlistEntry\" WHERE \"clientPartyId\" IS NULL")
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT assert_backfilled('public.WaitlistEntry', '\"clientPartyId\"')"
        )
        .replace("clientPartyId", "x"),
        "\"WaitlistEntry\".\"x\" is set in all 27 rows"
    );
    client.batch_execute("TRUNCATE \"WaitlistEntry\" CASCADE").unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT assert_backfilled('WaitlistEntry', 'clientPartyId')"
        ),
        "nothing to check: \"WaitlistEntry\" has no rows"
    );
}

#[test]
fn only_some_rows_must_have_a_value() {
    let database = database();
    let mut client = database.connect();
    load_party(&mut client);
    // The conditions of a real runbook: only attempts with a stud, only offspring with a buyer.
    for (table, column, condition) in [
        ("BreedingAttempt", "studOwnerPartyId", "\"studId\" IS NOT NULL"),
        ("Offspring", "buyerPartyId", "\"placementState\" = 'WITH_BUYER'"),
    ] {
        let counted = one(
            &mut client,
            &format!(
                "SELECT count(*) FILTER (WHERE \"{column}\" IS NULL) || ' of ' || count(*) FROM \"{table}\" WHERE {condition}"
            ),
        );
        assert!(!counted.starts_with("0 of"), "{counted}");
        let call = format!("SELECT assert_backfilled('{table}', '{column}', $${condition}$$)");
        let failed = failure(&mut client, &call);
        assert_eq!(
            failed.message,
            format!("\"{table}\".\"{column}\" is NULL in {counted} rows where {condition}")
        );
        assert!(failed.hint.contains("only_where => "), "{failed:?}");
        client.batch_execute(&failed.hint).unwrap();
        client
            .batch_execute(&format!(
                "DELETE FROM \"{table}\" WHERE {condition} AND \"{column}\" IS NULL"
            ))
            .unwrap();
        assert!(one(&mut client, &call).contains("is set in all"));
        // Rows outside the condition are still NULL.
        assert_eq!(
            failure(&mut client, &format!("SELECT assert_backfilled('{table}', '{column}')")).code,
            "P0004"
        );
    }
    // An assertion is not swallowed by those who catch everything.
    let failed = failure(
        &mut client,
        "DO $$ BEGIN PERFORM assert_backfilled('Invoice', 'clientPartyId'); EXCEPTION WHEN OTHERS THEN NULL; END $$",
    );
    assert_eq!(failed.code, "P0004");
    for (call, code) in [
        ("'Invoice', 'clientPartyID2'", "42703"),
        ("'Invoices', 'clientPartyId'", "42P01"),
        ("'Invoice', NULL", "22004"),
        ("'Invoice', 'clientPartyId', 'nonsense ='", "42601"),
        ("'Invoice', 'clientPartyId', 'missing > 1'", "42703"),
        ("'Invoice', 'clientPartyId', 'true; SELECT 1'", "42601"),
    ] {
        let failed = failure(&mut client, &format!("SELECT assert_backfilled({call})"));
        assert_eq!(failed.code, code, "{failed:?}");
        assert!(!failed.hint.is_empty(), "{failed:?}");
    }
}

#[test]
fn every_step_in_its_order_and_whichever_way_the_same_end() {
    let arguments = "'jobs', 'tenant_id'";
    let (_database, mut client) = database_with(SCHEMA);
    assert_eq!(
        plan(&mut client, arguments),
        [
            "done: SELECT assert_backfilled('jobs', 'tenant_id')",
            "next: ALTER TABLE public.\"jobs\" ADD CONSTRAINT \"jobs_tenant_id_not_null\" CHECK (tenant_id IS NOT NULL) NOT VALID; COMMENT ON CONSTRAINT \"jobs_tenant_id_not_null\" ON public.\"jobs\" IS 'pg_mend: dropped by finalize_backfill as soon as the column is NOT NULL'",
            "pending: ALTER TABLE public.\"jobs\" VALIDATE CONSTRAINT \"jobs_tenant_id_not_null\"",
            "pending: ALTER TABLE public.\"jobs\" ALTER COLUMN tenant_id SET NOT NULL",
            "pending: ALTER TABLE public.\"jobs\" DROP CONSTRAINT \"jobs_tenant_id_not_null\"",
            "by hand: CREATE INDEX CONCURRENTLY \"jobs_tenant_id_idx\" ON public.\"jobs\" (tenant_id)",
            "done: SELECT * FROM validate_tenant_fks(table_name => 'jobs')",
            "pending: ALTER TABLE public.\"jobs\" ADD CONSTRAINT \"jobs_tenant_id_fkey\" FOREIGN KEY (tenant_id) REFERENCES public.\"tenants\" (id) NOT VALID",
            "pending: ALTER TABLE public.\"jobs\" VALIDATE CONSTRAINT \"jobs_tenant_id_fkey\"",
        ]
    );
    let statements = lines(
        &mut client,
        &format!(
            "SELECT replace(statement, E'\\n', ' ') FROM finalize_plan({arguments}) WHERE state IN ('next', 'pending')"
        ),
    );
    client
        .batch_execute(&format!("CALL finalize_backfill({arguments})"))
        .unwrap();
    let end = guarantees(&mut client, "jobs");
    assert_eq!(
        end,
        [
            "CREATE UNIQUE INDEX jobs_pkey ON public.jobs USING btree (id)",
            "id NOT NULL",
            "jobs_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers(id) ON UPDATE CASCADE ON DELETE SET NULL",
            "jobs_pkey PRIMARY KEY (id)",
            "jobs_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants(id)",
            "tenant_id NOT NULL",
        ]
    );
    // What the call says, and that a second one changes nothing.
    assert_eq!(
        one(&mut client, &format!("CALL finalize_backfill({arguments})")),
        "6 of 6 steps are done, 0 of them now; by hand: CREATE INDEX CONCURRENTLY \"jobs_tenant_id_idx\" ON public.\"jobs\" (tenant_id)"
    );
    let handed_out = one(
        &mut client,
        &format!("SELECT statement FROM finalize_plan({arguments}) WHERE state = 'by hand'"),
    );
    client.simple_query(&handed_out).unwrap();
    assert_eq!(
        one(&mut client, &format!("CALL finalize_backfill({arguments})")),
        "6 of 6 steps are done, 0 of them now; nothing is left"
    );
    assert_eq!(
        one(
            &mut client,
            &format!("SELECT string_agg(DISTINCT state, ',') FROM finalize_plan({arguments})")
        ),
        "done"
    );

    // Step by step, what was announced is what is run; and from wherever one stops, the call goes on.
    for stop in 0..=statements.len() {
        let (_database, mut client) = database_with(SCHEMA);
        for statement in &statements[..stop] {
            let next = one(
                &mut client,
                &format!("SELECT replace(statement, E'\\n', ' ') FROM finalize_plan({arguments}) WHERE state = 'next'"),
            );
            let ran = one(
                &mut client,
                &format!("SELECT state, replace(statement, E'\\n', ' ') FROM finalize_backfill_step({arguments})"),
            );
            assert_eq!((next.as_str(), ran), (statement.as_str(), format!("done|{statement}")));
        }
        let said = one(&mut client, &format!("CALL finalize_backfill({arguments})"));
        assert!(
            said.starts_with(&format!("6 of 6 steps are done, {} of them now", 6 - stop)),
            "{said}"
        );
        assert_eq!(guarantees(&mut client, "jobs"), end);
    }
    // By hand, exactly as printed, too.
    let (_database, mut client) = database_with(SCHEMA);
    for statement in &statements {
        client.batch_execute(statement).unwrap();
    }
    assert_eq!(guarantees(&mut client, "jobs"), end);
}

#[test]
fn no_step_scans_under_a_strong_lock() {
    let (database, mut client) = database_with(SCHEMA);
    // Postgres itself says whether SET NOT NULL looked at the rows.
    let notices = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut config = database.config();
    let seen = notices.clone();
    config.notice_callback(move |notice| seen.lock().unwrap().push(notice.message().to_string()));
    let mut listening = config.connect(postgres::NoTls).unwrap();
    listening.batch_execute("SET client_min_messages = debug1").unwrap();
    listening
        .batch_execute("CALL finalize_backfill('jobs', 'tenant_id')")
        .unwrap();
    let notices = notices.lock().unwrap();
    assert!(
        notices
            .iter()
            .any(|n| n.contains("are sufficient to prove that it does not contain nulls")),
        "{notices:#?}"
    );
    // Only the two validations read rows, in Postgres's own words.
    let scans: Vec<(&String, &String)> = notices
        .iter()
        .zip(&notices[1..])
        .filter(|(n, _)| n.starts_with("verifying table") || n.starts_with("validating foreign key"))
        .collect();
    assert_eq!(scans.len(), 2, "{notices:#?}");
    assert!(
        scans.iter().all(|(_, next)| next.contains(" VALIDATE CONSTRAINT ")),
        "{notices:#?}"
    );

    // Several steps in one transaction would hold the lock of the first over the scan of the second.
    let (_database, mut client2) = database_with(SCHEMA);
    client2
        .batch_execute("BEGIN; SELECT finalize_backfill_step('jobs', 'tenant_id')")
        .unwrap();
    let failed = failure(&mut client2, "SELECT finalize_backfill_step('jobs', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.hint.as_str()),
        ("25001", "COMMIT first: each step is a transaction of its own")
    );
    client2.batch_execute("ROLLBACK").unwrap();
    for call in [
        "BEGIN; CALL finalize_backfill('jobs', 'tenant_id')",
        "SELECT 1; CALL finalize_backfill('jobs', 'tenant_id')",
    ] {
        let failed = failure(&mut client, call);
        assert_eq!(failed.code, "2D000");
        assert!(failed.hint.contains("finalize_backfill_step"), "{failed:?}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn nothing_is_locked_in_while_rows_stand_in_the_way() {
    let (_database, mut client) = database_with(&format!(
        "{SCHEMA} UPDATE jobs SET tenant_id = NULL WHERE id <= 3; INSERT INTO jobs VALUES (101, 9, 1);"
    ));
    let before = guarantees(&mut client, "jobs");
    let states = plan(&mut client, "'jobs', 'tenant_id'");
    assert!(
        states[0].starts_with("blocked: SELECT assert_backfilled"),
        "{states:#?}"
    );
    assert!(states[6].starts_with("blocked: SELECT * FROM validate"), "{states:#?}");
    assert!(!states.iter().any(|s| s.starts_with("next")), "{states:#?}");
    let failed = failure(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("P0004", "jobs.tenant_id is NULL in 3 of 101 rows")
    );
    assert_eq!(guarantees(&mut client, "jobs"), before);
    client.batch_execute(&failed.hint).unwrap();
    // Now the reference to a tenant that does not exist: still nothing is begun.
    let failed = failure(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        (
            "23503",
            "1 of 101 rows of jobs reference a row of tenants that does not exist"
        )
    );
    assert_eq!(
        failed.hint,
        "SELECT * FROM repair_orphans('jobs', 'tenant_id', 'create_parent')"
    );
    assert_eq!(guarantees(&mut client, "jobs"), before);
    client
        .batch_execute("SELECT repair_orphans('jobs', 'tenant_id', 'create_parent', dry_run => false)")
        .unwrap();
    client
        .batch_execute("CALL finalize_backfill('jobs', 'tenant_id')")
        .unwrap();
    // A NULL written between the CHECK and its validation is impossible; one from before is found by Postgres.
    client
        .batch_execute("ALTER TABLE jobs ALTER tenant_id DROP NOT NULL, ADD CONSTRAINT mine CHECK (tenant_id > 0)")
        .unwrap();
    client
        .batch_execute("SELECT finalize_backfill_step('jobs', 'tenant_id')")
        .unwrap();
    assert_eq!(failure(&mut client, "INSERT INTO jobs VALUES (102)").code, "23514");
    client
        .batch_execute(
            "ALTER TABLE jobs DROP CONSTRAINT jobs_tenant_id_not_null; INSERT INTO jobs VALUES (102);
                        ALTER TABLE jobs ADD CONSTRAINT users CHECK (tenant_id IS NOT NULL) NOT VALID",
        )
        .unwrap();
    let failed = failure(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("P0004", "jobs.tenant_id is NULL in 1 of 102 rows")
    );
    assert!(plan(&mut client, "'jobs', 'tenant_id'")[0].starts_with("blocked: "));
}

#[test]
fn constraints_of_the_user_are_used_and_never_dropped() {
    let (_database, mut client) = database_with(&format!(
        "{SCHEMA} ALTER TABLE jobs ADD CONSTRAINT jobs_tenant_id_not_null CHECK (tenant_id IS NOT NULL) NOT VALID;
         ALTER TABLE jobs ADD CONSTRAINT theirs FOREIGN KEY (tenant_id) REFERENCES tenants ON DELETE CASCADE NOT VALID;
         CREATE INDEX theirs_too ON jobs (tenant_id, id) WHERE tenant_id IS NOT NULL;"
    ));
    assert_eq!(
        plan(&mut client, "'jobs', 'tenant_id'")[1..4],
        [
            "next: ALTER TABLE public.\"jobs\" VALIDATE CONSTRAINT \"jobs_tenant_id_not_null\"",
            "pending: ALTER TABLE public.\"jobs\" ALTER COLUMN tenant_id SET NOT NULL",
            "done: CREATE INDEX CONCURRENTLY \"theirs_too\" ON public.\"jobs\" (tenant_id)",
        ]
    );
    assert_eq!(
        one(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')"),
        "4 of 4 steps are done, 3 of them now; nothing is left"
    );
    let end = guarantees(&mut client, "jobs");
    assert!(
        end.contains(&"jobs_tenant_id_not_null CHECK ((tenant_id IS NOT NULL))".to_string()),
        "{end:#?}"
    );
    assert!(
        end.contains(&"theirs FOREIGN KEY (tenant_id) REFERENCES tenants(id) ON DELETE CASCADE".to_string()),
        "{end:#?}"
    );
    // A constraint that happens to have our name and says something else.
    let (_database, mut client) = database_with(&format!(
        "{SCHEMA} ALTER TABLE jobs ADD CONSTRAINT jobs_tenant_id_not_null CHECK (tenant_id > 0), ADD CONSTRAINT jobs_tenant_id_fkey CHECK (id > 0);"
    ));
    client
        .batch_execute("CALL finalize_backfill('jobs', 'tenant_id')")
        .unwrap();
    let end = guarantees(&mut client, "jobs");
    assert!(
        end.contains(&"jobs_tenant_id_not_null CHECK ((tenant_id > 0))".to_string()),
        "{end:#?}"
    );
    assert!(
        end.contains(&"jobs_tenant_id_fkey1 FOREIGN KEY (tenant_id) REFERENCES tenants(id)".to_string()),
        "{end:#?}"
    );
    assert!(end.contains(&"tenant_id NOT NULL".to_string()), "{end:#?}");
    assert!(!end.iter().any(|g| g.contains("IS NOT NULL")), "{end:#?}");
}

#[test]
fn a_key_over_the_tenant_makes_references_to_other_tenants_impossible() {
    let arguments = "'jobs', 'customer_id', not_null => false";
    let (_database, mut client) = database_with(SCHEMA);
    client
        .batch_execute("UPDATE jobs SET customer_id = 2 WHERE id IN (2, 4)")
        .unwrap();
    let failed = failure(&mut client, &format!("CALL finalize_backfill({arguments})"));
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        (
            "23503",
            "2 of 100 rows of jobs reference a row of customers that is another tenant's, or none"
        )
    );
    let blocked = plan(&mut client, arguments);
    assert!(
        blocked.iter().any(|s| s.starts_with("blocked: SELECT * FROM validate")),
        "{blocked:#?}"
    );
    assert!(
        one(
            &mut client,
            &format!("CALL finalize_backfill({arguments}, composite => false)")
        )
        .starts_with("2 of 2 steps")
    );
    client
        .batch_execute("SELECT * FROM repair_orphans('jobs', 'customer_id', 'quarantine', violation => 'cross_tenant', dry_run => false)")
        .unwrap();
    client
        .batch_execute(&format!("CALL finalize_backfill({arguments})"))
        .unwrap();
    assert!(
        guarantees(&mut client, "jobs").contains(
            &"jobs_tenant_id_customer_id_fkey FOREIGN KEY (tenant_id, customer_id) REFERENCES customers(tenant_id, id) ON UPDATE CASCADE ON DELETE SET NULL (customer_id)".to_string()
        )
    );
    assert_eq!(
        failure(&mut client, "UPDATE jobs SET customer_id = 2 WHERE id = 2").code,
        "23503"
    );
    // What a delete and an update of the parent did before, they do still; the tenant stays.
    client
        .batch_execute("UPDATE customers SET id = 20 WHERE id = 2; DELETE FROM customers WHERE id = 1")
        .unwrap();
    assert_eq!(
        lines(
            &mut client,
            "SELECT DISTINCT tenant_id, customer_id FROM jobs ORDER BY 1, 2"
        ),
        ["1|-", "2|20"]
    );
    // Where the parent has no such key, the way to one is shown, and nothing waits for it unless it was asked for.
    let (_database, mut client) = database_with(&format!(
        "{SCHEMA} ALTER TABLE customers DROP CONSTRAINT customers_tenant_id_id_key;"
    ));
    let shown = plan(&mut client, arguments);
    let statement =
        "CREATE UNIQUE INDEX CONCURRENTLY \"customers_tenant_id_id_key\" ON public.\"customers\" (tenant_id, id)";
    assert_eq!(shown.last().unwrap(), &format!("optional: {statement}"));
    assert!(
        one(&mut client, &format!("CALL finalize_backfill({arguments})"))
            .starts_with("2 of 2 steps are done, 0 of them now")
    );
    let asked = format!("{arguments}, composite => true");
    assert!(plan(&mut client, &asked).contains(&format!("by hand: {statement}")));
    let said = one(&mut client, &format!("CALL finalize_backfill({asked})"));
    assert!(
        said.starts_with("2 of 4 steps are done, 0 of them now; by hand: ") && said.contains(statement),
        "{said}"
    );
    client.simple_query(statement).unwrap();
    assert!(
        one(&mut client, &format!("CALL finalize_backfill({asked})"))
            .starts_with("4 of 4 steps are done, 2 of them now")
    );
    let failed = failure(
        &mut client,
        "SELECT finalize_plan('customers', 'tenant_id', composite => true)",
    );
    assert_eq!(failed.code, "22023");
}

#[test]
fn a_lock_that_is_not_had_in_time_leaves_everything_and_names_who_has_it() {
    let (database, mut client) = database_with(SCHEMA);
    let mut reader = database.connect();
    reader
        .batch_execute("SET application_name = 'nightly report'; BEGIN; SELECT count(*) FROM jobs")
        .unwrap();
    let pid: i32 = reader.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let before = guarantees(&mut client, "jobs");
    let failed = failure(
        &mut client,
        "CALL finalize_backfill('jobs', 'tenant_id', lock_timeout => '20ms')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("55P03", "no ACCESS EXCLUSIVE lock on jobs within 20 ms")
    );
    assert!(
        failed.detail.contains(&format!(
            "held by pid {pid} (AccessShareLock on jobs), user postgres, nightly report, idle in transaction"
        )) && failed.detail.contains("SELECT pg_backend_pid()"),
        "{failed:?}"
    );
    assert_eq!(guarantees(&mut client, "jobs"), before);
    assert_eq!(one(&mut client, "SHOW lock_timeout"), "0");
    reader.batch_execute("COMMIT").unwrap();

    // In the middle: what is done stays, the next call goes on. The lock of the other session is on the parent only.
    for _ in 0..4 {
        client
            .batch_execute("SELECT finalize_backfill_step('jobs', 'tenant_id')")
            .unwrap();
    }
    reader.batch_execute("BEGIN; INSERT INTO tenants VALUES (7)").unwrap();
    let failed = failure(&mut client, "CALL finalize_backfill('jobs', 'tenant_id', '20ms')");
    assert_eq!(failed.code, "55P03");
    assert!(
        failed
            .detail
            .contains(&format!("pid {pid} (RowExclusiveLock on tenants)")),
        "{failed:?}"
    );
    reader.batch_execute("ROLLBACK").unwrap();
    assert!(
        one(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')")
            .starts_with("6 of 6 steps are done, 2 of them now")
    );
    for timeout in ["0", "-1s", "100 days"] {
        let failed: Failure = failure(
            &mut client,
            &format!("CALL finalize_backfill('jobs', 'tenant_id', lock_timeout => '{timeout}')"),
        );
        assert_eq!(failed.code, "22023", "{failed:?}");
    }
}

#[test]
fn a_killed_validation_is_taken_up_again() {
    let end = {
        let (_database, mut client) = database_with(SCHEMA);
        client
            .batch_execute("CALL finalize_backfill('jobs', 'tenant_id')")
            .unwrap();
        guarantees(&mut client, "jobs")
    };
    let (database, mut client) = database_with(SCHEMA);
    let mut other = database.connect();
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    client
        .batch_execute("SELECT finalize_backfill_step('jobs', 'tenant_id')")
        .unwrap();
    let half = guarantees(&mut client, "jobs");
    // Whoever vacuums keeps the validation waiting, and readers and writers go on beside both.
    client
        .batch_execute("BEGIN; LOCK TABLE jobs IN SHARE UPDATE EXCLUSIVE MODE")
        .unwrap();
    let worker = std::thread::spawn(move || {
        other
            .simple_query("CALL finalize_backfill('jobs', 'tenant_id', lock_timeout => '1h')")
            .map(|_| ())
    });
    let mut watcher = database.connect();
    while one(
        &mut watcher,
        &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"),
    ) == "0"
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    watcher
        .batch_execute("INSERT INTO jobs VALUES (101, 1, 1); SELECT * FROM jobs")
        .unwrap();
    watcher.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    assert!(worker.join().unwrap().is_err());
    assert_eq!(guarantees(&mut watcher, "jobs"), half);
    client.batch_execute("ROLLBACK").unwrap();
    client
        .batch_execute("CALL finalize_backfill('jobs', 'tenant_id')")
        .unwrap();
    assert_eq!(guarantees(&mut client, "jobs"), end);
}

#[test]
fn partitions_get_their_indexes_and_keys_first() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2);
         CREATE TABLE ev (id int, at int, tenant_id int) PARTITION BY RANGE (at);
         CREATE TABLE ev1 PARTITION OF ev FOR VALUES FROM (0) TO (10);
         CREATE TABLE ev2 PARTITION OF ev FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
         CREATE TABLE \"Ev 2a\" (junk int, tenant_id int, at int, id int);
         ALTER TABLE \"Ev 2a\" DROP COLUMN junk;
         ALTER TABLE ev2 ATTACH PARTITION \"Ev 2a\" DEFAULT;
         INSERT INTO ev SELECT g, g, 1 + g % 2 FROM generate_series(0, 19) g;",
    );
    let call = "CALL finalize_backfill('ev', 'tenant_id')";
    let said = one(&mut client, call);
    assert!(
        said.starts_with("9 of 10 steps are done, 9 of them now; by hand: "),
        "{said}"
    );
    let by_hand = lines(
        &mut client,
        "SELECT statement FROM finalize_plan('ev', 'tenant_id') WHERE state = 'by hand'",
    );
    assert_eq!(by_hand.len(), 2);
    for statement in by_hand {
        client.simple_query(&statement).unwrap();
    }
    assert_eq!(
        one(&mut client, call),
        "9 of 9 steps are done, 1 of them now; nothing is left"
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT conrelid::regclass, conname, convalidated, conparentid <> 0 FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY conrelid::regclass::text COLLATE \"C\""
        ),
        [
            "\"Ev 2a\"|Ev 2a_tenant_id_fkey|t|t",
            "ev|ev_tenant_id_fkey|t|f",
            "ev1|ev1_tenant_id_fkey|t|t",
            "ev2|ev_tenant_id_fkey|t|t"
        ]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT bool_and(attnotnull) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attname = 'tenant_id' AND relkind IN ('r', 'p')"
        ),
        "t"
    );

    // The key on top takes the partitions' over without reading them: a row that is broken behind its back is not noticed.
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1);
         CREATE TABLE ev (at int, tenant_id int) PARTITION BY RANGE (at);
         CREATE TABLE ev1 PARTITION OF ev FOR VALUES FROM (0) TO (10);
         INSERT INTO ev VALUES (1, 1);
         ALTER TABLE ev1 ADD CONSTRAINT ev1_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants;
         CREATE FUNCTION breaks() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_query() LIKE '%finalize%' THEN
             SET LOCAL session_replication_role = replica; UPDATE ev SET tenant_id = 9; SET LOCAL session_replication_role = origin;
           END IF; END $$;
         CREATE EVENT TRIGGER breaks ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION breaks();",
    );
    client
        .batch_execute("CALL finalize_backfill('ev', 'tenant_id', not_null => false)")
        .unwrap();
    assert_eq!(one(&mut client, "SELECT tenant_id FROM ev"), "9");
    let failed = failure(&mut client, "SELECT finalize_plan('ev1', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.hint.as_str()),
        ("42809", "name the partitioned table")
    );
}

#[test]
fn children_by_inheritance_and_indexes_left_over_are_seen() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1);
         CREATE TABLE base (id int PRIMARY KEY, tenant_id int); CREATE TABLE child () INHERITS (base);
         INSERT INTO base VALUES (1, 1), (2, 1); INSERT INTO child VALUES (3, NULL);
         CREATE TABLE twice (id int PRIMARY KEY, tenant_id int); INSERT INTO twice VALUES (1, 1), (2, 1);",
    );
    let failed = failure(&mut client, "CALL finalize_backfill('base', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("P0004", "base.tenant_id is NULL in 1 of 3 rows")
    );
    client.batch_execute("UPDATE child SET tenant_id = 1").unwrap();
    client
        .batch_execute("CALL finalize_backfill('base', 'tenant_id')")
        .unwrap();
    assert_eq!(
        lines(
            &mut client,
            "SELECT attrelid::regclass, attnotnull FROM pg_attribute WHERE attname = 'tenant_id' AND attrelid::regclass::text IN ('base', 'child') ORDER BY 1::text"
        ),
        ["base|t", "child|t"]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text IN ('base', 'child')"
        ),
        "0"
    );
    // An index that could not be built.
    client
        .simple_query("CREATE UNIQUE INDEX CONCURRENTLY twice_tenant_id_idx ON twice (tenant_id)")
        .unwrap_err();
    assert_eq!(
        lines(
            &mut client,
            "SELECT statement FROM finalize_plan('twice', 'tenant_id') WHERE state = 'by hand'"
        ),
        [
            "DROP INDEX CONCURRENTLY public.\"twice_tenant_id_idx\"",
            "CREATE INDEX CONCURRENTLY \"twice_tenant_id_idx1\" ON public.\"twice\" (tenant_id)",
        ]
    );
}

#[test]
fn what_a_column_references_can_be_said_or_denied() {
    let (_database, mut client) = database_with(&format!(
        "{SCHEMA} ALTER TABLE customers ADD code text UNIQUE; UPDATE customers SET code = 'c' || id;
         CREATE TABLE notes (id int PRIMARY KEY, by_code text, subject_id int); INSERT INTO notes VALUES (1, 'c1', 1);
         CREATE VIEW everybody AS SELECT * FROM customers;"
    ));
    // Nothing says what it references: no key, no index, NOT NULL only.
    assert_eq!(plan(&mut client, "'notes', 'by_code'").len(), 5);
    client
        .batch_execute(
            "CALL finalize_backfill('notes', 'by_code', parent => 'customers(code)', on_delete => 'cascade')",
        )
        .unwrap();
    assert!(guarantees(&mut client, "notes").contains(
        &"notes_by_code_fkey FOREIGN KEY (by_code) REFERENCES customers(code) ON DELETE CASCADE".to_string()
    ));
    // What was declared is meant; on a key that is not unique, the way to one is by hand.
    client
        .batch_execute("SELECT declare_reference('notes', 'subject_id', 'customers(tenant_id)')")
        .unwrap();
    assert!(
        plan(&mut client, "'notes', 'subject_id'")
            .contains(&"by hand: CREATE UNIQUE INDEX CONCURRENTLY \"customers_tenant_id_key\" ON public.\"customers\" (tenant_id)".to_string())
    );
    assert_eq!(plan(&mut client, "'notes', 'subject_id', parent => ''").len(), 5);
    for (arguments, code) in [
        ("'notes', 'subject', not_null => false", "42703"),
        ("'note', 'subject_id'", "42P01"),
        ("'everybody', 'id'", "42809"),
        ("'notes', 'subject_id', parent => 'everybody'", "42830"),
        ("'notes', 'subject_id', parent => 'customers(code)'", "42804"),
        ("'notes', 'subject_id', parent => 'custmers'", "42P01"),
        ("'notes', 'subject_id', parent => 'a -> b'", "42601"),
        ("'notes', 'subject_id', on_delete => 'forget'", "22023"),
        ("'notes', 'subject_id', policy => true", "22023"),
        ("'notes', NULL", "22004"),
        ("'notes', 'subject_id', NULL", "22004"),
        ("'mend.runs', 'note'", "42809"),
    ] {
        let failed = failure(&mut client, &format!("SELECT * FROM finalize_plan({arguments})"));
        assert_eq!(failed.code, code, "{arguments}: {failed:?}");
        assert!(!failed.hint.is_empty(), "{arguments}: {failed:?}");
    }
}

#[test]
fn an_owner_may_and_others_may_not_and_policies_are_text() {
    let (database, mut client) = database_with(SCHEMA);
    let name = |role: &str| format!("{role}_{}", database.name);
    let (owner, stranger) = (name("owner"), name("stranger"));
    client
        .batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {stranger} LOGIN; ALTER TABLE jobs OWNER TO {owner};
             GRANT SELECT ON tenants, customers TO {owner}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {stranger};
             SELECT grant_mend('{owner}'), grant_mend('{stranger}')"
        ))
        .unwrap();
    let as_user = |user: &str, database: &Database| database.connect_as(user);
    let mut other = as_user(&stranger, &database);
    let failed = failure(&mut other, "CALL finalize_backfill('jobs', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42501", "only the owner of jobs may lock it in")
    );
    assert!(plan(&mut other, "'jobs', 'tenant_id'")[1].starts_with("next: "));
    let mut own = as_user(&owner, &database);
    let failed = failure(&mut own, "CALL finalize_backfill('jobs', 'tenant_id')");
    assert!(
        failed.code == "42501" && failed.hint.starts_with("GRANT REFERENCES ON tenants TO"),
        "{failed:?}"
    );
    client
        .batch_execute(&format!("GRANT REFERENCES ON tenants TO {owner}"))
        .unwrap();
    own.batch_execute("CALL finalize_backfill('jobs', 'tenant_id')")
        .unwrap();
    // The text of a policy, on the tenant key only; run as printed, it is found.
    let arguments = "'jobs', 'tenant_id', policy => true";
    let policy = lines(
        &mut own,
        &format!("SELECT statement FROM finalize_plan({arguments}) WHERE state = 'optional'"),
    );
    assert_eq!(policy.len(), 2);
    for statement in &policy {
        own.batch_execute(statement).unwrap();
    }
    assert_eq!(
        lines(
            &mut own,
            &format!("SELECT state FROM finalize_plan({arguments}) WHERE state = 'optional'")
        )
        .len(),
        0
    );
    client
        .batch_execute(&format!("GRANT SELECT ON jobs TO {stranger}"))
        .unwrap();
    assert_eq!(
        one(&mut other, "SET app.tenant_id = '2'; SELECT count(*) FROM jobs"),
        "50"
    );
    // Where policies hide rows, the gate does not count.
    let failed = failure(&mut other, "SELECT assert_backfilled('jobs', 'customer_id')");
    assert!(
        failed.code == "42501" && failed.message.contains("row-level security"),
        "{failed:?}"
    );
    drop((own, other));
    client
        .batch_execute(&format!(
            "REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}, {stranger}; DROP ROLE {owner}, {stranger}"
        ))
        .unwrap();
}

#[test]
fn odd_names_and_a_hostile_search_path_change_nothing() {
    let (_database, mut client) = database_with(
        "CREATE SCHEMA \"Odd Schema\"; CREATE SCHEMA hostile;
         CREATE TABLE \"Odd Schema\".\"T.en ants\" (id int PRIMARY KEY); INSERT INTO \"Odd Schema\".\"T.en ants\" VALUES (1);
         CREATE TABLE \"Odd Schema\".\"it's \"\"a\"\" 100% table; DROP\" (id int PRIMARY KEY, \"ten ant\" int);
         INSERT INTO \"Odd Schema\".\"it's \"\"a\"\" 100% table; DROP\" VALUES (1, 1);
         CREATE FUNCTION hostile.count(int) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
         CREATE FUNCTION hostile.format(text, VARIADIC \"any\") RETURNS text LANGUAGE internal AS 'text_format';
         CREATE FUNCTION hostile.eq(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
         CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.eq);
         CREATE FUNCTION hostile.plus(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';
         CREATE OPERATOR hostile.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.plus);
         CREATE FUNCTION hostile.finalize_backfill_step(text, text, interval, boolean, text, text, boolean, text) RETURNS int
           LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END';",
    );
    client.batch_execute("SET search_path = hostile, pg_catalog").unwrap();
    let table = "'\"Odd Schema\".\"it''s \"\"a\"\" 100% table; DROP\"'";
    let said = one(
        &mut client,
        &format!("CALL public.finalize_backfill({table}, 'ten ant', parent => '\"Odd Schema\".\"T.en ants\"')"),
    );
    assert!(
        said.starts_with("6 of 6 steps are done, 6 of them now; by hand: "),
        "{said}"
    );
    let by_hand = one(
        &mut client,
        &format!(
            "SELECT statement FROM public.finalize_plan({table}, 'ten ant') WHERE state OPERATOR(pg_catalog.=) 'by hand'"
        ),
    );
    client.simple_query(&by_hand).unwrap();
    let gate = one(
        &mut client,
        &format!("SELECT statement FROM public.finalize_plan({table}, 'ten ant', parent => '') LIMIT 1"),
    );
    assert!(one(&mut client, &gate.replace("SELECT ", "SELECT public.")).contains("is set in all 1 rows"));
}

#[test]
fn what_validation_hands_out_leads_to_a_locked_in_example() {
    let database = database();
    let mut client = database.connect();
    load_organizations(&mut client);
    client
        .batch_execute("SELECT backfill_tenant_ids(dry_run => false)")
        .unwrap();
    let fixes = lines(
        &mut client,
        "SELECT fix FROM validate_tenant_fks() WHERE fix LIKE 'CALL%'",
    );
    assert!(!fixes.is_empty());
    for fix in fixes {
        client
            .simple_query(&fix)
            .unwrap_or_else(|error| panic!("{fix}: {error:?}"));
    }
    assert_eq!(
        lines(
            &mut client,
            "SELECT fix FROM validate_tenant_fks() WHERE fix LIKE 'CALL%'"
        )
        .len(),
        0
    );
}

#[test]
fn what_can_never_work_is_refused_before_anything_is_begun() {
    let (_database, mut client) = database_with(&format!(
        "{SCHEMA} CREATE TYPE pair AS (x int, y int); CREATE TABLE rows_of (id int PRIMARY KEY, v pair); INSERT INTO rows_of VALUES (1, (1, NULL));
         CREATE TABLE numbers (id int PRIMARY KEY, customer numeric); INSERT INTO numbers VALUES (1, 1);
         CREATE TABLE late (id int PRIMARY KEY, code int, UNIQUE (code) DEFERRABLE);
         CREATE TABLE uses_late (id int PRIMARY KEY, late_code int); INSERT INTO late VALUES (1, 1); INSERT INTO uses_late VALUES (1, 1);
         CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
         CREATE TABLE ev (at int, customer_id int) PARTITION BY RANGE (at); CREATE TABLE ev1 PARTITION OF ev FOR VALUES FROM (0) TO (10);
         CREATE FOREIGN TABLE ev2 PARTITION OF ev FOR VALUES FROM (10) TO (20) SERVER far;"
    ));
    for (call, code) in [
        ("'rows_of', 'v'", "0A000"),
        ("'numbers', 'customer', parent => 'customers'", "42804"),
        ("'jobs', 'customer_id', on_delete => 'set null'", "22023"),
        ("'ev', 'customer_id', not_null => false", "0A000"),
    ] {
        for sql in [
            format!("SELECT * FROM finalize_plan({call})"),
            format!("CALL finalize_backfill({call})"),
        ] {
            let failed = failure(&mut client, &sql);
            assert_eq!(failed.code, code, "{sql}: {failed:?}");
            assert!(!failed.hint.is_empty(), "{failed:?}");
        }
    }
    // NULL and a row of NULLs are two things.
    assert_eq!(
        one(&mut client, "SELECT assert_backfilled('rows_of', 'v')"),
        "rows_of.v is set in all 1 rows"
    );
    // A deferrable key is no key for a foreign key: the way to one is shown, and its name is free.
    assert_eq!(
        lines(
            &mut client,
            "SELECT state, statement FROM finalize_plan('uses_late', 'late_code', parent => 'late(code)') WHERE state = 'by hand'"
        ),
        [
            "by hand|CREATE INDEX CONCURRENTLY \"uses_late_late_code_idx\" ON public.\"uses_late\" (\"late_code\")",
            "by hand|CREATE UNIQUE INDEX CONCURRENTLY \"late_code_key1\" ON public.\"late\" (\"code\")"
        ]
    );
}

#[test]
fn what_only_the_call_knows_is_declared_by_its_hints() {
    let (_database, mut client) = database_with(&format!(
        "{SCHEMA} CREATE TABLE notes (id int PRIMARY KEY, about int); INSERT INTO notes VALUES (1, 1), (2, 99);"
    ));
    let call = "CALL finalize_backfill('notes', 'about', not_null => false, parent => 'customers')";
    let failed = failure(&mut client, call);
    assert_eq!(failed.code, "23503");
    client
        .batch_execute(&failed.hint.replace("'quarantine'", "'quarantine', false"))
        .unwrap();
    client.batch_execute(call).unwrap();
    assert!(
        guarantees(&mut client, "notes")
            .contains(&"notes_about_fkey FOREIGN KEY (about) REFERENCES customers(id)".to_string())
    );
    // A CHECK that an earlier call left is shown, and gone on with.
    client
        .batch_execute("SELECT finalize_backfill_step('jobs', 'tenant_id')")
        .unwrap();
    assert_eq!(
        plan(&mut client, "'jobs', 'tenant_id', not_null => false")[0],
        "optional: ALTER TABLE public.\"jobs\" DROP CONSTRAINT \"jobs_tenant_id_not_null\""
    );
    assert!(
        one(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')")
            .starts_with("6 of 6 steps are done, 5 of them now")
    );
}

#[test]
fn foreign_keys_of_partitions_that_differ_are_left_and_names_are_given_once() {
    let (_database, mut client) = database_with(
        "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);
         CREATE TABLE c (id int, p_id int) PARTITION BY LIST (id); CREATE TABLE ca PARTITION OF c FOR VALUES IN (1); INSERT INTO c VALUES (1, 1);
         ALTER TABLE ca ADD CONSTRAINT theirs FOREIGN KEY (p_id) REFERENCES p ON DELETE CASCADE;
         CREATE TABLE m (id int, p_id int) PARTITION BY LIST (id);
         CREATE TABLE measurements_of_the_north_eastern_region_of_the_country_2024_01 PARTITION OF m FOR VALUES IN (1);
         CREATE TABLE measurements_of_the_north_eastern_region_of_the_country_2024_02 PARTITION OF m FOR VALUES IN (2);",
    );
    let database = &_database;
    let notices = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut config = database.config();
    let seen = notices.clone();
    config.notice_callback(move |notice| seen.lock().unwrap().push(notice.message().to_string()));
    let mut listening = config.connect(postgres::NoTls).unwrap();
    listening.batch_execute("SET client_min_messages = debug1").unwrap();
    listening
        .batch_execute("CALL finalize_backfill('c', 'p_id', root => '')")
        .unwrap();
    let notices = notices.lock().unwrap().clone();
    let scans: Vec<&String> = notices
        .iter()
        .filter(|n| n.starts_with("validating foreign key"))
        .collect();
    assert_eq!(
        scans,
        ["validating foreign key constraint \"ca_p_id_fkey\""],
        "{notices:#?}"
    );
    assert!(
        guarantees(&mut client, "ca")
            .contains(&"theirs FOREIGN KEY (p_id) REFERENCES p(id) ON DELETE CASCADE".to_string())
    );
    let statements = lines(
        &mut client,
        "SELECT statement FROM finalize_plan('m', 'p_id', root => '') WHERE statement LIKE '%\"measurements%'",
    );
    let unique: std::collections::HashSet<&String> = statements.iter().collect();
    assert_eq!((statements.len(), unique.len()), (6, 6), "{statements:#?}");
    for statement in &statements {
        client
            .simple_query(statement)
            .unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    assert!(one(&mut client, "CALL finalize_backfill('m', 'p_id', root => '')").ends_with("nothing is left"));
}

#[test]
fn nothing_else_is_waited_for_while_a_strong_lock_is_held_and_two_calls_do_not_meet() {
    let (database, mut client) = database_with(&format!(
        "{SCHEMA} CREATE TABLE other (id int CHECK (id > 0), v int CHECK (v IS NOT NULL));"
    ));
    // An unrelated table that nobody can even look at.
    let mut holder = database.connect();
    holder
        .batch_execute("BEGIN; LOCK TABLE other IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    client
        .batch_execute("CALL finalize_backfill('jobs', 'tenant_id', '1s')")
        .unwrap();
    holder.batch_execute("ROLLBACK").unwrap();
    // The table itself: what only looks has the same patience.
    holder
        .batch_execute("BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let failed = failure(
        &mut client,
        "CALL finalize_backfill('jobs', 'customer_id', '20ms', not_null => false)",
    );
    assert_eq!(failed.code, "55P03");
    assert!(failed.detail.contains("AccessExclusiveLock on customers"), "{failed:?}");
    holder.batch_execute("ROLLBACK").unwrap();
    holder
        .batch_execute("BEGIN; SELECT finalize_backfill_step('customers', 'id', parent => '')")
        .unwrap();
    let failed = failure(&mut client, "CALL finalize_backfill('customers', 'id', parent => '')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("55P03", "another run of pg_mend is at work on customers")
    );
    holder.batch_execute("ROLLBACK").unwrap();
    // A second table in the same transaction would be read under the lock of the first.
    client
        .batch_execute("ALTER TABLE jobs ALTER tenant_id DROP NOT NULL")
        .unwrap();
    client
        .batch_execute("BEGIN; SELECT finalize_backfill_step('jobs', 'tenant_id')")
        .unwrap();
    assert_eq!(
        failure(&mut client, "SELECT finalize_backfill_step('other', 'v')").code,
        "25001"
    );
    client.batch_execute("ROLLBACK").unwrap();
}
