//! Which steps, in which order, with what was there before; partitions and children.

use pgrx_tests::example::{failure, lines, load_organizations, one};
use pgrx_tests::{database, database_with};

use postgres::Client;

use super::{SCHEMA, guarantees, plan};

/// Since 18 a partitioned table takes a foreign key that is NOT VALID.
fn partitioned_not_valid(client: &mut Client) -> bool {
    one(client, "SELECT current_setting('server_version_num')::int >= 180000") == "t"
}

#[test]
fn every_step_in_its_order_and_whichever_way_the_same_end() {
    let arguments = "'jobs', 'tenant_id'";
    let (_database, mut client) = database_with(SCHEMA);
    assert_eq!(
        plan(&mut client, arguments),
        [
            "done: SELECT assert_backfilled('jobs', 'tenant_id')",
            "next: ALTER TABLE public.\"jobs\" ADD CONSTRAINT \"jobs_tenant_id_no_nulls\" CHECK (tenant_id IS NOT NULL) NOT VALID; COMMENT ON CONSTRAINT \"jobs_tenant_id_no_nulls\" ON public.\"jobs\" IS 'pg_mend: dropped by finalize_backfill as soon as the column is NOT NULL'",
            "pending: ALTER TABLE public.\"jobs\" VALIDATE CONSTRAINT \"jobs_tenant_id_no_nulls\"",
            "pending: ALTER TABLE public.\"jobs\" ALTER COLUMN tenant_id SET NOT NULL",
            "pending: ALTER TABLE public.\"jobs\" DROP CONSTRAINT \"jobs_tenant_id_no_nulls\"",
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
        "{SCHEMA} ALTER TABLE jobs ADD CONSTRAINT jobs_tenant_id_no_nulls CHECK (tenant_id > 0), ADD CONSTRAINT jobs_tenant_id_fkey CHECK (id > 0);"
    ));
    client
        .batch_execute("CALL finalize_backfill('jobs', 'tenant_id')")
        .unwrap();
    let end = guarantees(&mut client, "jobs");
    assert!(
        end.contains(&"jobs_tenant_id_no_nulls CHECK ((tenant_id > 0))".to_string()),
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
            "2 of 100 rows of jobs reference a row of customers that belongs to another tenant or does not exist"
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
    // Since 18 the partitions need no foreign keys of their own first.
    let native = partitioned_not_valid(&mut client);
    let (all, own) = if native { (6, "ev") } else { (9, "ev1") };
    assert!(
        said.starts_with(&format!(
            "{all} of {} steps are done, {all} of them now; by hand: ",
            all + 1
        )),
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
        format!("{all} of {all} steps are done, 1 of them now; nothing is left")
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT conrelid::regclass, conname, convalidated, conparentid <> 0 FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY conrelid::regclass::text COLLATE \"C\""
        ),
        [
            format!("\"Ev 2a\"|{}_tenant_id_fkey|t|t", if native { "ev" } else { "Ev 2a" }),
            "ev|ev_tenant_id_fkey|t|f".to_string(),
            format!("ev1|{own}_tenant_id_fkey|t|t"),
            "ev2|ev_tenant_id_fkey|t|t".to_string(),
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
        match partitioned_not_valid(&mut client) {
            true => ["validating foreign key constraint \"c_p_id_fkey\""],
            false => ["validating foreign key constraint \"ca_p_id_fkey\""],
        },
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
    let many = if partitioned_not_valid(&mut client) { 2 } else { 6 };
    assert_eq!((statements.len(), unique.len()), (many, many), "{statements:#?}");
    for statement in &statements {
        client
            .simple_query(statement)
            .unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    assert!(one(&mut client, "CALL finalize_backfill('m', 'p_id', root => '')").ends_with("nothing is left"));
}
