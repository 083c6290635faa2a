//! Rows that stand in the way, what is refused, and what hints lead to.

use pgrx_tests::example::{failure, lines, load_party, one};
use pgrx_tests::{database, database_with};

use super::{SCHEMA, guarantees, plan};

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
            "ALTER TABLE jobs DROP CONSTRAINT jobs_tenant_id_no_nulls; INSERT INTO jobs VALUES (102);
                        ALTER TABLE jobs ADD CONSTRAINT users CHECK (tenant_id IS NOT NULL) NOT VALID",
        )
        .unwrap();
    let failed = failure(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("P0004", "jobs.tenant_id is NULL in 1 of 102 rows")
    );
    let blocked = plan(&mut client, "'jobs', 'tenant_id'");
    assert!(
        blocked[0].starts_with("blocked: ") && !blocked.iter().any(|s| s.starts_with("next")),
        "{blocked:#?}"
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
        "optional: ALTER TABLE public.\"jobs\" DROP CONSTRAINT \"jobs_tenant_id_no_nulls\""
    );
    assert!(
        one(&mut client, "CALL finalize_backfill('jobs', 'tenant_id')")
            .starts_with("6 of 6 steps are done, 5 of them now")
    );
}
