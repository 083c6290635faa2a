//! Other sessions, other roles, other names.

use pgrx_tests::example::{Failure, failure, lines, one};
use pgrx_tests::{Database, database_with};

use super::{SCHEMA, guarantees, plan};

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
