//! `migration_reset`: what is taken back, what is kept and why, and rows that are put back.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

const SCRIPT: &str = "
    CREATE SCHEMA IF NOT EXISTS app;
    CREATE TYPE app.mood AS ENUM ('good', 'bad');
    CREATE TABLE app.a (id int PRIMARY KEY, m app.mood, twice int GENERATED ALWAYS AS (id * 2) STORED);
    CREATE TABLE app.b (id bigserial PRIMARY KEY, a_id int REFERENCES app.a, data jsonb, \"Odd, name\" bytea);
    ALTER TABLE app.a ADD COLUMN b_id bigint REFERENCES app.b;
    CREATE SEQUENCE app.numbers;
    CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER touch BEFORE UPDATE ON app.b FOR EACH ROW EXECUTE FUNCTION app.touch();
    CREATE VIEW app.v AS SELECT id FROM app.b;
    ALTER TABLE old ADD COLUMN a_id int REFERENCES app.a, ADD COLUMN noted text DEFAULT 'x';
    CREATE INDEX old_a ON old (a_id);
    ALTER TABLE old ALTER COLUMN id SET DEFAULT 7;
    GRANT SELECT ON old TO PUBLIC";

fn prepared() -> (pgrx_tests::Database<'static>, Client) {
    let (database, mut client) =
        database_with("CREATE TABLE old (id int PRIMARY KEY); INSERT INTO old VALUES (1), (2)");
    client.batch_execute(SCRIPT).unwrap();
    (database, client)
}

/// Object and action, and why it is kept.
fn reset(client: &mut Client, rest: &str) -> Vec<String> {
    lines(
        client,
        &format!(
            "SELECT action, object, reason FROM migration_reset($mend${SCRIPT}$mend${rest}) WHERE kind <> 'summary'"
        ),
    )
}

#[test]
fn what_is_lost_is_kept_with_the_reason() {
    let (_database, mut client) = prepared();
    // Two tables that reference each other, a column with values, what was there before.
    assert_eq!(
        reset(&mut client, ""),
        [
            "drop|old_a|-",
            "drop|old_a_id_fkey on old|-",
            "drop|old.a_id|-",
            "drop|app.v|-",
            "drop|app.numbers|-",
            "drop|app.a|-",
            "drop|app.b|with the one before: they reference each other",
            "drop|app.touch()|-",
            "drop|app.mood|-",
            "keep|SELECT on old to public|whether the privilege was there before is not known",
            "keep|old.id|a change of something that was there before: what it was is not known",
            "keep|app|IF NOT EXISTS: it may have been there before, in another form",
            "keep|old.noted|2 rows have a value",
        ]
    );
    client
        .batch_execute(
            "INSERT INTO app.a VALUES (1, 'good'); SELECT nextval('app.numbers');
             CREATE TABLE foreign_to_it (m app.mood); CREATE FUNCTION uses_it() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM app.touch(); RETURN 1; END';
             ALTER TABLE app.b ADD COLUMN by_hand int; CREATE VIEW mine AS SELECT a_id FROM old",
        )
        .unwrap();
    let got = reset(&mut client, "");
    for line in [
        "drop|old_a|-",
        "keep|app.a|it has 1 rows",
        "keep|app.b|not the script's, and lost with it: column by_hand",
        "keep|app.numbers|it has been used, up to 1",
        "keep|app.touch()|named in the body of public.uses_it()",
        "keep|app.mood|depends on it: column m of table app.a, column m of table public.foreign_to_it",
        "keep|old.a_id|depends on it: view public.mine",
        "drop|app.v|-",
    ] {
        assert!(got.contains(&line.to_string()), "{line}\n{}", got.join("\n"));
    }
    // The dry run works where nothing can be written; nothing but what it says is dropped.
    client.batch_execute("BEGIN READ ONLY").unwrap();
    assert_eq!(reset(&mut client, ""), got);
    client.batch_execute("ROLLBACK").unwrap();
    let dropped: Vec<String> = got.iter().map(|line| line.replace("drop|", "dropped|")).collect();
    assert_eq!(reset(&mut client, ", dry_run => false"), dropped);
    assert_eq!(
        one(
            &mut client,
            "SELECT to_regclass('app.v') IS NULL, to_regclass('old_a') IS NULL, (SELECT count(*) FROM app.a), (SELECT count(*) FROM old)"
        ),
        "t|t|1|2"
    );
    assert_eq!(
        one(&mut client, "SELECT operation, filled, unfilled FROM mend.runs"),
        format!(
            "migration_reset|{}|{}",
            dropped.iter().filter(|l| l.starts_with("dropped|")).count(),
            got.iter().filter(|l| l.starts_with("keep|")).count()
        )
    );
}

#[test]
fn rows_that_are_lost_on_purpose_are_put_back_exactly() {
    let (_database, mut client) = prepared();
    client
        .batch_execute(
            "INSERT INTO app.a (id, m) VALUES (1, 'good'), (2, NULL);
             INSERT INTO app.b (a_id, data, \"Odd, name\") VALUES (1, 'null', '\\x00ff'), (NULL, NULL, NULL), (2, '{\"a\": [1, null]}', '');
             UPDATE app.a SET b_id = 2 WHERE id = 1",
        )
        .unwrap();
    let rows = "SELECT md5((SELECT string_agg(a::text, '' ORDER BY id) FROM app.a a) || (SELECT string_agg(b::text, '' ORDER BY id) FROM app.b b))";
    let before = one(&mut client, rows);
    let failed = failure(
        &mut client,
        &format!("SELECT * FROM migration_reset($mend${SCRIPT}$mend$, include => '{{nothing}}')"),
    );
    assert_eq!(failed.code, "42704", "{failed:?}");
    let run = lines(
        &mut client,
        &format!(
            "SELECT reason, rows, run_id FROM migration_reset($mend${SCRIPT}$mend$, include => '{{app.a,app.b}}', dry_run => false) WHERE kind = 'summary'"
        ),
    );
    assert_eq!(run, ["9 objects dropped, 4 kept; 5 were copied to schema mend|5|1"]);
    assert_eq!(
        one(
            &mut client,
            "SELECT to_regclass('app.a') IS NULL AND to_regclass('app.b') IS NULL"
        ),
        "t"
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, total, restored, reasons FROM restore_reset(1) ORDER BY 1"
        ),
        ["app.a|2|0|{\"table_missing\": 2}", "app.b|3|0|{\"table_missing\": 3}"]
    );
    // Made again; the two reference each other, so that rows wait for each other.
    let again = SCRIPT
        .split(";\n")
        .filter(|s| s.contains("app.") && !s.contains(" old"));
    for statement in again {
        client.batch_execute(statement).unwrap();
    }
    let failed = failure(&mut client, "SELECT * FROM restore_reset(1, dry_run => false)");
    assert_eq!(failed.code, "23503", "{failed:?}");
    assert_eq!(
        one(
            &mut client,
            "SELECT (SELECT count(*) FROM app.a), (SELECT count(*) FROM app.b), (SELECT count(*) FROM mend.reset_rows WHERE restored_by IS NULL)"
        ),
        "0|0|5"
    );
    client.batch_execute("ALTER TABLE app.a ALTER CONSTRAINT a_b_id_fkey DEFERRABLE INITIALLY DEFERRED; ALTER TABLE app.b ALTER CONSTRAINT b_a_id_fkey DEFERRABLE INITIALLY DEFERRED").unwrap();
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, total, restored FROM restore_reset(1, dry_run => false) ORDER BY 1"
        ),
        ["app.a|2|2", "app.b|3|3"]
    );
    assert_eq!(one(&mut client, rows), before);
    // The sequence goes on where the rows end.
    assert_eq!(
        one(&mut client, "INSERT INTO app.b (a_id) VALUES (1) RETURNING id"),
        "4"
    );
    assert_eq!(failure(&mut client, "SELECT * FROM restore_reset(1)").code, "42704");
}

#[test]
fn nobody_loses_rows_that_come_meanwhile() {
    let (database, mut client) = database_with("SELECT 1");
    let script = "CREATE TABLE t (id int); CREATE TABLE u (id int)";
    client.batch_execute(script).unwrap();
    let mut other = database.connect();
    other.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    let call = format!(
        "SELECT action, object, reason FROM migration_reset('{script}', dry_run => false, lock_timeout => '100 ms')"
    );
    let failed = failure(&mut client, &call);
    assert_eq!(failed.code, "55P03", "{failed:?}");
    assert_eq!(
        one(
            &mut client,
            "SELECT to_regclass('t') IS NOT NULL AND to_regclass('u') IS NOT NULL"
        ),
        "t"
    );
    // The dry run had seen an empty table; with the lock had, the row is seen.
    let waiting = std::thread::scope(|scope| {
        let waits = scope.spawn(|| failure(&mut client, &call.replace("100 ms", "20 s")));
        let mut watcher = database.connect();
        while one(&mut watcher, "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            std::thread::yield_now();
        }
        other.batch_execute("COMMIT").unwrap();
        waits.join().unwrap()
    });
    assert_eq!(waiting.code, "40001", "{waiting:?}");
    assert_eq!(
        one(
            &mut client,
            "SELECT (SELECT count(*) FROM t), to_regclass('u') IS NOT NULL"
        ),
        "1|t"
    );
    client.batch_execute("BEGIN READ ONLY").unwrap();
    assert_eq!(failure(&mut client, &call).code, "25006");
}

/// What is kept, and why, of a script that was run before or behind other statements.
pub(super) fn kept(script: &str, before: &str, after: &str, rest: &str) -> Vec<String> {
    let (_database, mut client) = database_with(before);
    client.batch_execute(script).unwrap();
    client.batch_execute(after).unwrap();
    lines(
        &mut client,
        &format!(
            "SELECT action, object, reason FROM migration_reset($mend${script}$mend${rest}) WHERE kind <> 'summary'"
        ),
    )
}

#[test]
fn what_is_somebody_elses_stays() {
    let column = "ALTER TABLE old ADD COLUMN c int";
    for (after, reason) in [
        (
            "CREATE INDEX by_hand ON old (id, c)",
            "depends on it: index public.by_hand",
        ),
        (
            "ALTER TABLE old ADD CONSTRAINT by_hand CHECK (c > 0)",
            "depends on it: constraint by_hand on table public.old",
        ),
        (
            "CREATE STATISTICS by_hand ON id, c FROM old",
            "depends on it: statistics object public.by_hand",
        ),
        (
            "CREATE SEQUENCE by_hand OWNED BY old.c",
            "depends on it: sequence public.by_hand",
        ),
    ] {
        assert_eq!(
            kept(column, "CREATE TABLE old (id int)", after, ""),
            [format!("keep|old.c|{reason}")],
            "{after}"
        );
    }
    let table = "CREATE TABLE t (id int PRIMARY KEY, p int); CREATE INDEX t_p ON t (p)";
    for (after, reason) in [
        (
            "CREATE RULE by_hand AS ON INSERT TO t DO ALSO NOTIFY x",
            "depends on it: rule by_hand on table public.t",
        ),
        (
            "CREATE PUBLICATION by_hand FOR TABLE t",
            "depends on it: publication of table public.t in publication by_hand",
        ),
        (
            "CREATE TABLE child () INHERITS (t)",
            "depends on it: table public.child",
        ),
        (
            "CREATE FUNCTION uses() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM public.t); END'",
            "named in the body of public.uses()",
        ),
        (
            "CREATE POLICY by_hand ON t USING (true)",
            "not the script's, and lost with it: policy by_hand",
        ),
        (
            "COMMENT ON TABLE t IS 'by hand'; COMMENT ON COLUMN t.p IS 'by hand'",
            "not the script's, and lost with it: its comment, the comment on p",
        ),
    ] {
        let got = kept(table, "SELECT 1", after, "");
        assert_eq!(got[0], format!("keep|t|{reason}"), "{after}: {got:?}");
    }
    // What is given away on purpose and not copied is said; extensions are looked up without writing.
    let script = "CREATE SEQUENCE s; CREATE EXTENSION pgcrypto";
    let (_database, mut client) = database_with(script);
    client.batch_execute("SELECT nextval('s'); BEGIN READ ONLY").unwrap();
    let got = lines(
        &mut client,
        &format!(
            "SELECT action, object, reason FROM migration_reset('{script}', include => '{{s,pgcrypto}}') WHERE kind <> 'summary' ORDER BY 2"
        ),
    );
    assert_eq!(
        got,
        [
            "drop|pgcrypto|other objects may use it without a recorded dependency",
            "drop|s|it has been used, up to 1"
        ]
    );
    // What was there before, in another form, is not known.
    for (script, before, reason) in [
        (
            "DROP POLICY IF EXISTS p ON old; CREATE POLICY p ON old USING (true)",
            "CREATE TABLE old (id int)",
            "the script drops an older object of this name, which cannot be restored: its definition is unknown",
        ),
        (
            "CREATE SEQUENCE IF NOT EXISTS s",
            "CREATE SEQUENCE s",
            "IF NOT EXISTS: it may have been there before, in another form",
        ),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT 1",
            "OR REPLACE: it may have been there before, in another form",
        ),
    ] {
        let got = kept(script, before, "SELECT 1", "");
        assert!(
            got.iter()
                .any(|line| line.starts_with("keep|") && line.ends_with(reason)),
            "{script}: {got:?}"
        );
        assert!(!got.iter().any(|line| line.starts_with("drop|")), "{script}: {got:?}");
    }
}

#[test]
fn a_partitioned_table_goes_with_what_its_partitions_have_of_it() {
    let script = "CREATE TABLE m (id int, v int, PRIMARY KEY (id), UNIQUE (id, v)) PARTITION BY LIST (id);
        CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1); CREATE TABLE m2 (id int NOT NULL, v int);
        ALTER TABLE m ATTACH PARTITION m2 FOR VALUES IN (2); CREATE INDEX m_v ON m (v);
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER g AFTER INSERT ON m FOR EACH ROW EXECUTE FUNCTION touch()";
    let got = kept(script, "SELECT 1", "SELECT 1", "");
    assert!(got.iter().all(|line| line.starts_with("drop|")), "{got:?}");
    // What somebody has given to a partition alone is theirs.
    let got = kept(script, "SELECT 1", "CREATE INDEX by_hand ON m1 (v, id)", "");
    assert!(
        got.contains(&"keep|m1|not the script's, and lost with it: index by_hand".to_string()),
        "{got:?}"
    );
    assert!(
        got.iter()
            .any(|line| line.starts_with("keep|m|depends on it: index public.by_hand")),
        "{got:?}"
    );
}

#[test]
fn rows_that_cannot_be_seen_cannot_be_given_away_and_texts_are_exact() {
    let (_database, mut client) =
        database_with("CREATE ROLE holder; SELECT grant_mend('holder'); GRANT CREATE ON SCHEMA public TO holder");
    let script = "CREATE TABLE hidden (tenant text); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY; CREATE POLICY p ON hidden USING (tenant = 'a')";
    client.batch_execute("SET ROLE holder").unwrap();
    client.batch_execute(script).unwrap();
    client
        .batch_execute("RESET ROLE; INSERT INTO hidden VALUES ('a'), ('b'); SET ROLE holder")
        .unwrap();
    let got = lines(
        &mut client,
        &format!(
            "SELECT action, object, reason FROM migration_reset($mend${script}$mend$, include => '{{hidden}}') WHERE kind = 'table'"
        ),
    );
    assert!(
        got[0].starts_with("keep|hidden|its rows cannot be counted, so that they cannot be copied"),
        "{got:?}"
    );
    client
        .batch_execute("RESET ROLE; DROP OWNED BY holder; DROP ROLE holder")
        .unwrap();

    let script = "CREATE TABLE v (d date, f float8, i interval, t timestamptz, b bytea, n numeric)";
    client.batch_execute(script).unwrap();
    client
        .batch_execute(
            "INSERT INTO v VALUES ('2024-02-03', 0.1::float8 + 0.2::float8, '1 mon -2 days', '2024-07-01 12:00:00.123456+02', '\\x00ff', 'NaN'),
                                  ('infinity', '-infinity', '0', '0044-03-15 00:00:00+00 BC', '', 1e-20), (NULL, NULL, NULL, NULL, NULL, NULL)",
        )
        .unwrap();
    let rows = "SELECT string_agg(md5(v::text), ',' ORDER BY md5(v::text)) FROM v";
    let before = one(&mut client, rows);
    client
        .batch_execute("SET datestyle = 'SQL, DMY'; SET extra_float_digits = 0; SET intervalstyle = sql_standard; SET timezone = 'Asia/Kolkata'; SET bytea_output = escape")
        .unwrap();
    let run = one(
        &mut client,
        &format!(
            "SELECT run_id FROM migration_reset($mend${script}$mend$, include => '{{v}}', dry_run => false) WHERE kind = 'summary'"
        ),
    );
    client.batch_execute("RESET ALL").unwrap();
    client.batch_execute(script).unwrap();
    assert_eq!(
        one(
            &mut client,
            &format!("SELECT restored FROM restore_reset({run}, dry_run => false)")
        ),
        "3"
    );
    assert_eq!(one(&mut client, rows), before);
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    let failed = failure(
        &mut client,
        &format!("SELECT * FROM migration_reset($mend${script}$mend$, dry_run => false)"),
    );
    assert_eq!(failed.code, "25000", "{failed:?}");
}
