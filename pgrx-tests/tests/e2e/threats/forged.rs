//! What others wrote is believed only where they had the right: state tables, records, run ids; nobody can hold the locks of runs.

use pgrx_tests::example::{failure, one};
use pgrx_tests::{database, database_with};

use super::{TABLES, role};

#[test]
fn state_that_is_not_as_installed_is_refused_by_every_call() {
    let (_database, mut client) = database_with(TABLES);
    let tampered = [
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON mend.ledger_runs FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE RULE r AS ON INSERT TO mend.ledger_changes DO ALSO SELECT 1",
        "ALTER TABLE mend.ledger_references ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON mend.ledger_runs USING (true)",
        "CREATE TABLE heir () INHERITS (mend.ledger_changes)",
        "ALTER EXTENSION pg_mend DROP VIEW mend.runs; DROP VIEW mend.runs; CREATE VIEW mend.runs AS SELECT * FROM mend.ledger_runs",
        "ALTER EXTENSION pg_mend DROP VIEW mend.declared_references; DROP VIEW mend.declared_references",
        "ALTER VIEW mend.repaired_rows OWNER TO pg_monitor",
        "ALTER SCHEMA mend OWNER TO pg_monitor",
    ];
    let calls = [
        "SELECT * FROM validate_tenant_fks()",
        "SELECT * FROM migration_report()",
        "SELECT * FROM tenant_columns()",
        "SELECT * FROM backfill('orders', 'tenant_id', ARRAY['customer_id -> customers.tenant_id'])",
        "SELECT * FROM backfill_tenant_ids('tenants', dry_run => false)",
        "SELECT * FROM repair_orphans('orders', 'customer_id', 'nullify')",
        "SELECT * FROM restore_repaired(1)",
        "SELECT declare_reference('orders', 'customer_id', 'customers')",
        "SELECT forget_reference('orders', 'customer_id')",
        "SELECT * FROM migration_status('CREATE TABLE x ()')",
    ];
    for tamper in tampered {
        for call in calls {
            client.batch_execute(&format!("BEGIN; {tamper}")).unwrap();
            let failed = failure(&mut client, call);
            assert_eq!(failed.code, "55000", "{tamper}; {call}: {failed:?}");
            assert!(
                failed.detail.contains("mend.") || failed.detail.contains("mend"),
                "{failed:?}"
            );
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
    client.batch_execute(calls[0]).unwrap();
}

#[test]
fn the_owner_of_a_database_has_no_hold_on_the_state() {
    let cluster = pgrx_tests::shared();
    let database = cluster.empty_database().unwrap();
    let mut admin = database.connect();
    let owner = role(&database, "dbo", "");
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {} OWNER TO {owner}; GRANT CREATE ON SCHEMA public TO {owner}",
            database.name
        ))
        .unwrap();
    let mut client = database.connect_as(&owner);
    client.batch_execute("CREATE EXTENSION pg_mend").unwrap();
    client
        .batch_execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
        .unwrap();
    for attack in [
        "CREATE TRIGGER t BEFORE INSERT ON mend.ledger_runs FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE RULE r AS ON INSERT TO mend.ledger_runs DO ALSO SELECT 1",
        "CREATE POLICY p ON mend.ledger_runs USING (true)",
        "ALTER TABLE mend.ledger_runs ENABLE ROW LEVEL SECURITY",
        "CREATE TABLE heir () INHERITS (mend.ledger_runs)",
        "DROP VIEW mend.runs",
        "CREATE OR REPLACE VIEW mend.runs AS SELECT 1",
        "CREATE TABLE mend.more (id int)",
        "ALTER SCHEMA mend RENAME TO other",
        "ALTER EXTENSION pg_mend DROP VIEW mend.runs",
        "DROP SCHEMA mend CASCADE",
        "INSERT INTO mend.ledger_references (table_schema, table_name, columns, declared_by) VALUES ('public', 't', '{a}', 'postgres')",
        "UPDATE mend.ledger_runs SET run_by = 'postgres'",
        "DELETE FROM mend.ledger_changes",
        "TRUNCATE mend.ledger_changes",
        "SELECT setval('mend.ledger_runs_run_id_seq', 1000)",
        "SELECT nextval('mend.ledger_runs_run_id_seq')",
        "GRANT INSERT ON mend.ledger_runs TO PUBLIC",
    ] {
        let failed = client
            .simple_query(attack)
            .err()
            .map(|error| error.code().unwrap().code().to_string());
        // Postgres only warns of a GRANT that grants nothing.
        let harmless = attack.starts_with("GRANT")
            && one(
                &mut admin,
                "SELECT NOT has_table_privilege('public', 'mend.ledger_runs', 'INSERT')",
            ) == "t";
        assert!(
            harmless || matches!(failed.as_deref(), Some("42501" | "2BP01" | "55000")),
            "{attack}: {failed:?}"
        );
    }
    // Read, let others in, dump: that is what the installer can do.
    client
        .batch_execute("SELECT * FROM mend.ledger_runs; SELECT * FROM mend.runs")
        .unwrap();
    let dump = cluster.program("pg_dump", &database.name, &["-U", &owner], "").unwrap();
    assert!(
        dump.contains("COPY mend.ledger_changes (change_id,") && !dump.contains("pg_dump: error"),
        "{dump}"
    );
    drop(client);
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {} OWNER TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}",
            database.name
        ))
        .unwrap();
}

#[test]
fn records_are_put_back_by_the_role_that_made_them_and_written_by_nobody() {
    let (database, mut admin) = database_with(TABLES);
    let (app, other) = (role(&database, "app", ""), role(&database, "other", ""));
    admin
        .batch_execute(&format!(
            "SELECT grant_mend('{app}'), grant_mend('{other}'); GRANT ALL ON ALL TABLES IN SCHEMA public TO {app}"
        ))
        .unwrap();
    let mut client = database.connect_as(&app);
    let run = one(
        &mut client,
        "SELECT run_id FROM repair_orphans('orders', 'customer_id', 'nullify', dry_run => false)",
    );
    // A superuser does not write with its rights what another role has recorded; a stranger does not even see it.
    let failed = failure(
        &mut admin,
        &format!("SELECT * FROM restore_repaired({run}, dry_run => false)"),
    );
    assert_eq!(
        (failed.code.as_str(), failed.hint.contains("SET ROLE")),
        ("42501", true),
        "{failed:?}"
    );
    let mut stranger = database.connect_as(&other);
    assert_eq!(
        failure(&mut stranger, &format!("SELECT * FROM restore_repaired({run})")).code,
        "42704"
    );
    // Run ids cannot be taken in advance, rows cannot be put under those of others.
    let next: i64 = run.parse::<i64>().unwrap() + 1;
    for forged in [
        format!(
            "INSERT INTO mend.repaired_rows (run_id, row_key, old_values, run_by) VALUES ({run}, '{{\"id\": 1}}', '{{\"is_admin\": \"t\"}}', '{app}')"
        ),
        format!(
            "INSERT INTO mend.ledger_changes (run_id, change, table_name) VALUES ({run}, 'nullified', 'public.orders')"
        ),
        format!("INSERT INTO mend.ledger_runs (run_id) OVERRIDING SYSTEM VALUE VALUES ({next})"),
        "SELECT nextval('mend.ledger_runs_run_id_seq')".into(),
        format!("UPDATE mend.repaired_rows SET restored_by = NULL WHERE run_id = {run}"),
        "DELETE FROM mend.ledger_changes".into(),
        "SELECT * FROM mend.ledger_changes".into(),
    ] {
        for session in [&mut client, &mut stranger] {
            let code = failure(session, &forged).code;
            assert!(matches!(code.as_str(), "42501" | "55000"), "{forged}: {code}");
        }
    }
    assert_eq!(
        one(
            &mut client,
            &format!("SELECT total, restored FROM restore_repaired({run}, dry_run => false)")
        ),
        "1|1"
    );
}

#[test]
fn no_role_can_hold_the_lock_of_a_run() {
    let (database, mut admin) = database_with(TABLES);
    let hostile = role(&database, "att", "");
    admin.batch_execute(&format!("SELECT grant_mend('{hostile}')")).unwrap();
    let mut holder = database.connect_as(&hostile);
    holder
        .batch_execute(&format!(
            "SELECT pg_advisory_lock({}, {})",
            0x6d65_6e64,
            one(&mut admin, "SELECT 'orders'::regclass::oid::int")
        ))
        .unwrap();
    holder
        .batch_execute("BEGIN; SELECT * FROM mend.runs; SELECT * FROM mend.declared_references; LOCK TABLE mend.runs IN ACCESS SHARE MODE")
        .unwrap();
    for strong in ["SHARE", "EXCLUSIVE"] {
        let mut other = database.connect_as(&hostile);
        let sql = format!("BEGIN; LOCK TABLE mend.runs IN {strong} MODE");
        assert_eq!(failure(&mut other, &sql).code, "42501");
    }
    admin.batch_execute("SET lock_timeout = '20s'").unwrap();
    let call = "SELECT filled FROM backfill('orders', 'tenant_id', ARRAY['customer_id -> customers.tenant_id'], dry_run => false)";
    assert_eq!(one(&mut admin, call), "1");
    // Two runs still keep out of each other's way.
    admin.batch_execute(&format!("BEGIN; {call}")).unwrap();
    let mut second = database.connect();
    second.batch_execute("SET lock_timeout = '200ms'").unwrap();
    assert_eq!(failure(&mut second, call).code, "55P03");
    admin.batch_execute("ROLLBACK").unwrap();
    drop(holder);
    admin
        .batch_execute(&format!("DROP OWNED BY {hostile}; DROP ROLE {hostile}"))
        .unwrap();
}

#[test]
fn what_the_owners_code_sets_ends_with_it() {
    let (database, mut admin) = database_with("");
    let hostile = role(&database, "att", "");
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA att AUTHORIZATION {hostile}; SET ROLE {hostile};
             CREATE FUNCTION att.sets(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
               PERFORM set_config('search_path', 'att', false); PERFORM set_config('work_mem', '64kB', false); RETURN true; END $$;
             CREATE FUNCTION att.fails(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'no'; END $$;
             CREATE TABLE att.p (id int PRIMARY KEY, v int); CREATE TABLE att.t (id int PRIMARY KEY, p_id int REFERENCES att.p, v int CHECK (att.sets(v)));
             CREATE TABLE att.f (id int PRIMARY KEY, p_id int REFERENCES att.p, v int);
             INSERT INTO att.p VALUES (1, 1); INSERT INTO att.t VALUES (1, 1); INSERT INTO att.f VALUES (1, 1);
             ALTER TABLE att.f ADD CONSTRAINT never CHECK (att.fails(v)) NOT VALID; RESET ROLE; RESET search_path; RESET work_mem"
        ))
        .unwrap();
    let before = one(
        &mut admin,
        "SELECT current_setting('search_path'), current_setting('work_mem'), current_user",
    );
    assert_eq!(
        one(
            &mut admin,
            "SELECT filled FROM backfill('att.t', 'v', ARRAY['p_id -> att.p.v'])"
        ),
        "1"
    );
    let failed = failure(
        &mut admin,
        "SELECT filled FROM backfill('att.f', 'v', ARRAY['p_id -> att.p.v'])",
    );
    assert_eq!(
        (failed.message.as_str(), failed.detail.contains("ran as the owner")),
        ("no", true),
        "{failed:?}"
    );
    assert_eq!(
        one(
            &mut admin,
            "SELECT current_setting('search_path'), current_setting('work_mem'), current_user"
        ),
        before
    );
    // A condition of the caller's that calls functions is never run as somebody else: refused, with the way out.
    let failed = failure(
        &mut admin,
        "SELECT * FROM backfill('att.t', 'v', ARRAY['p_id -> att.p.v'], only_where => 'query_to_xml($$SELECT 1$$, true, true, $$$$) IS NOT NULL')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.hint.contains("SET ROLE")),
        ("42501", true),
        "{failed:?}"
    );
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
        ))
        .unwrap();
}

#[test]
fn a_role_that_may_only_create_in_a_schema_gets_nothing_run() {
    let database = database();
    let mut admin = database.connect();
    let hostile = role(&database, "planter", "");
    admin
        .batch_execute(&format!(
            "{TABLES} CREATE SCHEMA shared; GRANT USAGE, CREATE ON SCHEMA shared TO {hostile}; SET ROLE {hostile};
             CREATE FUNCTION shared.boom() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
             CREATE FUNCTION shared.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
             CREATE OPERATOR shared.= (LEFTARG = int, RIGHTARG = int, FUNCTION = shared.eq);
             CREATE OPERATOR shared.<> (LEFTARG = int, RIGHTARG = int, FUNCTION = shared.eq);
             CREATE FUNCTION shared.count(int) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
             CREATE FUNCTION shared.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
             CREATE VIEW shared.tenants AS SELECT 1 AS id, shared.boom() AS b;
             RESET ROLE"
        ))
        .unwrap();
    admin
        .batch_execute("SET search_path = shared, public, pg_catalog")
        .unwrap();
    for call in [
        "public.validate_tenant_fks('public.tenants')",
        "public.backfill_tenant_ids('public.tenants')",
        "public.backfill_coverage('public.tenants')",
        "public.tenant_columns('public.tenants')",
        "public.repair_orphans('public.orders', 'customer_id', 'quarantine', root => 'public.tenants')",
        "public.backfill('public.orders', 'tenant_id', ARRAY['customer_id -> public.customers.tenant_id'], dry_run => false)",
    ] {
        admin
            .batch_execute(&format!("SELECT * FROM {call}"))
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    admin
        .batch_execute(&format!(
            "RESET search_path; DROP SCHEMA shared CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
        ))
        .unwrap();
}
