//! `migration_rehearse`: what a script would do, and that nothing of it stays.

use pgrx_tests::example::{failure, lines, one};
use pgrx_tests::{database, database_with};

const TABLES: &str = "
    CREATE TABLE parents (id int PRIMARY KEY, name text UNIQUE); INSERT INTO parents VALUES (1, 'a'), (2, 'b');
    CREATE TABLE children (id serial PRIMARY KEY, parent_id int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
    CREATE SEQUENCE numbers;";

#[test]
fn what_no_rollback_takes_back_is_not_run() {
    let (_database, mut client) = database_with(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE SCHEMA far;
         CREATE FOREIGN TABLE far.rows (id int) SERVER s;
         CREATE TABLE parted (id int) PARTITION BY LIST (id);
         CREATE TABLE near PARTITION OF parted FOR VALUES IN (1);
         CREATE FUNCTION run_command_on_workers(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION citus_add_node(text, int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    );
    let script = "INSERT INTO parted VALUES (1);
        CREATE FOREIGN TABLE beside PARTITION OF parted FOR VALUES IN (2) SERVER s;
        INSERT INTO parted VALUES (1);
        INSERT INTO far.rows VALUES (1);
        UPDATE far.rows SET id = 2;
        SET search_path = far, public;
        DELETE FROM rows;
        SELECT run_command_on_workers('DROP TABLE x');
        SELECT citus_add_node('there', 5432)";
    let got = lines(
        &mut client,
        &format!("SELECT kind, message FROM migration_rehearse($mend${script}$mend$) WHERE step IS NOT NULL"),
    );
    let foreign = "is a foreign table, or has partitions that are: another server may not undo what is written there";
    let outside = "has effects that a rollback does not undo";
    assert_eq!(
        got,
        [
            "INSERT|-".to_string(),
            "CREATE FOREIGN TABLE|-".into(),
            format!("INSERT|not run: parted {foreign}"),
            format!("INSERT|not run: far.rows {foreign}"),
            format!("UPDATE|not run: far.rows {foreign}"),
            "SET|-".into(),
            format!("DELETE|not run: rows {foreign}"),
            format!("SELECT|not run: run_command_on_workers {outside}"),
            format!("SELECT|not run: citus_add_node {outside}"),
        ]
    );
}

#[test]
fn statements_blocks_rows_and_locks() {
    let (_database, mut client) = database_with(TABLES);
    let script = "INSERT INTO parents VALUES (3, 'c'), (4, 'd');
        BEGIN; UPDATE parents SET name = 'x' WHERE id = 1; UPDATE parents SET nope = 1; SELECT 1; COMMIT;
        BEGIN; DELETE FROM parents WHERE id = 4; ROLLBACK;
        BEGIN; INSERT INTO children (parent_id) VALUES (99); COMMIT;
        SELECT count(*) FROM parents;
        ALTER TABLE parents ADD COLUMN more int;
        CREATE INDEX CONCURRENTLY i ON parents (name);
        VACUUM parents;
        SELECT setval('numbers', 50), nextval('numbers');
        SELECT pg_terminate_backend(1);
        COPY parents TO '/tmp/should_not_be_there';
        \\echo hello
        INSERT INTO parents VALUES (1, 'again');
        SET search_path = nowhere;
        SELECT * FROM parents;
        NOTIFY somebody";
    let before = one(
        &mut client,
        "SELECT md5(string_agg(p::text, '')) || (SELECT count(*) FROM children) || current_setting('search_path') FROM parents p",
    );
    let got = lines(
        &mut client,
        &format!("SELECT kind, sqlstate, rows, lock, lock_on, message FROM migration_rehearse($mend${script}$mend$)"),
    );
    let expected = [
        "INSERT|-|2|RowExclusiveLock|public.parents",
        "BEGIN|-|-|-|-|not run: the rehearsal is a transaction of its own",
        "UPDATE|-|1|",
        "UPDATE|42703|-|-|-|column \"nope\" of relation \"parents\" does not exist",
        "SELECT|25P02|-|-|-|not run: an earlier statement of the transaction failed",
        "COMMIT|-|-|-|-|not run: its statements are rolled back: one of them failed",
        "BEGIN|",
        "DELETE|-|1|",
        "ROLLBACK|-|-|-|-|not run: its statements are rolled back",
        "BEGIN|",
        "INSERT|-|1|",
        "COMMIT|23503|-|-|-|insert or update on table \"children\" violates foreign key",
        "COMMIT|-|-|-|-|not run: its statements are rolled back: one of them failed",
        "SELECT|-|1|",
        "ALTER TABLE|-|-|AccessExclusiveLock|public.parents",
        "CREATE INDEX|-|-|-|-|not run: CREATE INDEX CONCURRENTLY cannot run inside a transaction block",
        "VACUUM|-|-|-|-|not run: VACUUM cannot",
        "SELECT|-|1|-|-|sequences are not rolled back",
        "SELECT|-|-|-|-|not run: pg_terminate_backend has effects that a rollback does not undo",
        "COPY|-|-|-|-|not run: a file: no rollback undoes that",
        "\\echo|-|-|-|-|not run: psql runs this itself",
        "INSERT|23505|",
        "SET|-|",
        "SELECT|42P01|-|-|-|relation \"parents\" does not exist",
        "NOTIFY|-|-|-|-|no notification is sent: NOTIFY sends at commit",
        "summary|42703|-|AccessExclusiveLock|public.parents|",
    ];
    assert_eq!(got.len(), expected.len(), "{}", got.join("\n"));
    for (line, start) in got.iter().zip(expected) {
        assert!(line.starts_with(start), "{line}\nexpected {start}\n{}", got.join("\n"));
    }
    assert!(
        got.last()
            .unwrap()
            .contains("sequences that have moved on: public.children_id_seq, public.numbers"),
        "{got:?}"
    );
    let after = one(
        &mut client,
        "SELECT md5(string_agg(p::text, '')) || (SELECT count(*) FROM children) || current_setting('search_path') FROM parents p",
    );
    assert_eq!(before, after);
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*) FROM pg_stat_file('/tmp/should_not_be_there', true) WHERE size IS NOT NULL"
        ),
        "0"
    );
    // However it is written; and what changes the session.
    let outside = "COPY parents TO PROGRAM'touch /tmp/should_not_be_there'; COPY parents TO/**/E'/tmp/should_not_be_there'; SELECT 1 -- it's (\n , pg_advisory_lock (7);
        CREATE TABLE x AS SELECT pg_try_advisory_lock(7); SELECT pg_advisory_unlock_all(); PREPARE p AS SELECT 1; DEALLOCATE ALL; CLOSE ALL; LISTEN x; SELECT pg_try_advisory_xact_lock(7)";
    let got = lines(
        &mut client,
        &format!(
            "SELECT sqlstate, coalesce(left(message, 7), 'run') FROM migration_rehearse($mend${outside}$mend$) WHERE step IS NOT NULL"
        ),
    );
    assert_eq!(
        got,
        [
            "-|not run",
            "-|not run",
            "-|not run",
            "-|not run",
            "-|not run",
            "-|not run",
            "-|not run",
            "-|not run",
            "-|not run",
            "-|run"
        ]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ),
        "0"
    );
    // Two blocks with deferred constraints, the script's own lock_timeout, and what a block does not bear.
    let blocks = "BEGIN; INSERT INTO children (parent_id) VALUES (50); INSERT INTO parents VALUES (50); COMMIT; BEGIN; INSERT INTO children (parent_id) VALUES (51); INSERT INTO parents VALUES (51); COMMIT;
        SET lock_timeout = 0; BEGIN; SELECT 1; VACUUM parents; SELECT 2; COMMIT";
    let got = lines(
        &mut client,
        &format!(
            "SELECT coalesce(sqlstate, 'ok') FROM migration_rehearse($mend${blocks}$mend$) WHERE step IS NOT NULL"
        ),
    );
    assert_eq!(
        got,
        [
            "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "25001", "25P02", "ok"
        ]
    );
    // Cancelled is cancelled.
    client.batch_execute("SET statement_timeout = '300 ms'").unwrap();
    let cancelled = failure(
        &mut client,
        "SELECT * FROM migration_rehearse('SELECT pg_sleep(10); SELECT pg_sleep(10)')",
    );
    assert_eq!(cancelled.code, "57014", "{cancelled:?}");
    client.batch_execute("RESET statement_timeout").unwrap();
    // What comes behind the first error, if that is asked.
    let stopped = lines(
        &mut client,
        "SELECT sqlstate, message FROM migration_rehearse('SELECT 1; SELECT 1/0; SELECT 2', stop_at_error => true)",
    );
    assert_eq!(
        stopped[..3],
        ["-|-", "22012|division by zero", "-|not run: not reached: stop_at_error"]
    );
}

#[test]
fn it_waits_for_nobody_for_long_and_needs_rights() {
    let (database, mut client) = database_with(TABLES);
    let mut other = database.connect();
    other
        .batch_execute("BEGIN; LOCK TABLE parents IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let got = lines(
        &mut client,
        "SELECT sqlstate, message FROM migration_rehearse('ALTER TABLE parents ADD x int; SELECT 1', lock_timeout => '50 ms') LIMIT 2",
    );
    assert!(
        got[0].starts_with("55P03|") && got[0].contains("somebody holds the lock"),
        "{got:?}"
    );
    assert_eq!(got[1], "-|-");
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        failure(
            &mut client,
            "SELECT * FROM migration_rehearse('SELECT 1', lock_timeout => '0')"
        )
        .code,
        "22023"
    );
    client.batch_execute("BEGIN READ ONLY").unwrap();
    assert_eq!(
        failure(&mut client, "SELECT * FROM migration_rehearse('SELECT 1')").code,
        "25006"
    );
    client.batch_execute("ROLLBACK").unwrap();
    // A role can do nothing through it that it could not do by itself.
    client
        .batch_execute("CREATE ROLE rehearses; SELECT grant_mend('rehearses'); SET ROLE rehearses")
        .unwrap();
    let denied = lines(
        &mut client,
        "SELECT sqlstate FROM migration_rehearse('DROP TABLE parents; SELECT * FROM parents; SET ROLE postgres; CREATE ROLE x SUPERUSER') WHERE step IS NOT NULL",
    );
    client
        .batch_execute("RESET ROLE; DROP OWNED BY rehearses; DROP ROLE rehearses")
        .unwrap();
    assert_eq!(denied[..2], ["42501", "42501"]);
    assert_eq!(one(&mut client, "SELECT count(*) FROM parents"), "2");
}

#[test]
fn a_dump_is_the_same_before_and_after() {
    let database = database();
    let mut client = database.connect();
    pgrx_tests::example::load_organizations(&mut client);
    let dump = || {
        let text = database
            .cluster()
            .program("pg_dump", &database.name, &["--no-owner"], "")
            .unwrap();
        // Newer versions put a random word around it.
        let lines = text.lines().filter(|line| !line.contains("restrict "));
        lines.collect::<Vec<_>>().join("\n")
    };
    let before = dump();
    let script = "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 100); DROP SCHEMA mend CASCADE;
        UPDATE organizations SET name = 'x'; DELETE FROM messages; TRUNCATE page_embeddings CASCADE; ALTER TABLE domains ADD COLUMN x int DEFAULT 1;
        CREATE ROLE nobody_new; DO $$ BEGIN CREATE TABLE b (); DROP TABLE conversations CASCADE; END $$; SELECT 1/0; CREATE TABLE c (id int REFERENCES a)";
    let got = lines(
        &mut client,
        &format!(
            "SELECT sqlstate FROM migration_rehearse($mend${script}$mend$) WHERE sqlstate IS NOT NULL AND step IS NOT NULL"
        ),
    );
    assert!(got.contains(&"22012".to_string()), "{got:?}");
    assert_eq!(dump(), before);
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*) FROM pg_roles WHERE rolname = 'nobody_new'"
        ),
        "0"
    );
}
