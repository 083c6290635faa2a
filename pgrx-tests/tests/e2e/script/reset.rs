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
fn kept(script: &str, before: &str, after: &str, rest: &str) -> Vec<String> {
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
            "drop|pgcrypto|others may use it without saying so",
            "drop|s|it has been used, up to 1"
        ]
    );
    // What was there before, in another form, is not known.
    for (script, before, reason) in [
        (
            "DROP POLICY IF EXISTS p ON old; CREATE POLICY p ON old USING (true)",
            "CREATE TABLE old (id int)",
            "the script drops what was called so before: what that was is not known",
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

const COLUMNS: &str = "ALTER TABLE app.orders ADD COLUMN org_id bigint, ADD COLUMN state text NOT NULL DEFAULT 'new', ADD COLUMN twice int GENERATED ALWAYS AS (qty * 2) STORED;
    ALTER TABLE app.orders ADD COLUMN weight float8; ALTER TABLE app.orders ADD COLUMN number serial; CREATE INDEX orders_org ON app.orders (org_id)";

fn columns_reset(client: &mut Client, rest: &str) -> Vec<String> {
    lines(
        client,
        &format!("SELECT action, object, rows, reason FROM migration_reset($mend${COLUMNS}$mend${rest})"),
    )
}

#[test]
fn values_that_are_lost_on_purpose_are_put_back_exactly() {
    let (_database, mut client) = database_with(
        "CREATE SCHEMA app; CREATE TABLE app.orders (tenant int, \"Day, of\" date, qty int, PRIMARY KEY (tenant, \"Day, of\"));
         INSERT INTO app.orders SELECT n % 3, date '2024-01-01' + n, n FROM generate_series(1, 10) n",
    );
    client.batch_execute(COLUMNS).unwrap();
    client
        .batch_execute(
            "UPDATE app.orders SET org_id = qty * 7 WHERE qty > 4; UPDATE app.orders SET state = 'paid' WHERE qty % 2 = 0;
             UPDATE app.orders SET weight = 0.1::float8 + 0.2::float8 WHERE qty = 3; UPDATE app.orders SET number = 100 - qty",
        )
        .unwrap();
    // Without a word nothing of it goes, but for what is computed; the others keep their values.
    assert_eq!(
        columns_reset(&mut client, ""),
        [
            "drop|app.orders_org|-|-",
            "drop|app.orders.twice|-|-",
            "keep|app.orders.org_id|-|6 rows have a value",
            "keep|app.orders.state|-|10 rows have a value",
            "keep|app.orders.weight|-|1 rows have a value",
            "keep|app.orders.number|-|10 rows have a value",
            "drop|-|-|2 objects would be dropped, 4 kept",
        ]
    );
    let values = "SELECT md5(string_agg(format('%s %s %s %s %s %s', tenant, \"Day, of\", org_id, state, weight, number), ',' ORDER BY qty)) FROM app.orders";
    let before = one(&mut client, values);
    let all = ", include => ARRAY['app.orders.org_id', 'app.orders.state', 'app.orders.weight', 'app.orders.number']";
    client
        .batch_execute("SET datestyle = 'SQL, DMY'; SET extra_float_digits = 0")
        .unwrap();
    let would = columns_reset(&mut client, all);
    assert_eq!(
        would,
        [
            "drop|app.orders_org|-|-",
            "drop|app.orders.number|10|-",
            "drop|app.orders.weight|1|-",
            "drop|app.orders.twice|-|-",
            "drop|app.orders.state|10|-",
            "drop|app.orders.org_id|6|-",
            "drop|-|27|6 objects would be dropped, 0 kept; 27 would be copied to schema mend",
        ]
    );
    let done = columns_reset(&mut client, &format!("{all}, dry_run => false"));
    let says: Vec<String> = would.iter().map(|line| line.replace("drop|", "dropped|")).collect();
    assert_eq!(done[..6], says[..6]);
    assert_eq!(
        one(
            &mut client,
            "SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = 'app.orders'::regclass AND attnum > 0 AND NOT attisdropped"
        ),
        "tenant,Day, of,qty"
    );
    let restore = |client: &mut Client, rest: &str| {
        lines(
            client,
            &format!("SELECT table_name, column_name, total, restored, reasons FROM restore_reset(1{rest}) ORDER BY 2"),
        )
    };
    assert_eq!(
        restore(&mut client, "")[..2],
        [
            "app.orders|number|10|0|{\"column_missing\": 10}",
            "app.orders|org_id|6|0|{\"column_missing\": 6}",
        ]
    );
    // Made again, with one column of another type, one row gone, one key changed, and one value given meanwhile.
    client
        .batch_execute(&COLUMNS.replace("weight float8", "weight numeric"))
        .unwrap();
    client
        .batch_execute("DELETE FROM app.orders WHERE qty = 10; UPDATE app.orders SET tenant = 7 WHERE qty = 9; UPDATE app.orders SET state = 'lost' WHERE qty = 8")
        .unwrap();
    let would = [
        "app.orders|number|10|0|{\"row_is_gone\": 2, \"changed_since\": 8}",
        "app.orders|org_id|6|4|{\"row_is_gone\": 2}",
        "app.orders|state|10|7|{\"row_is_gone\": 2, \"changed_since\": 1}",
        "app.orders|weight|1|0|{\"columns_differ\": 1}",
    ];
    client.batch_execute("BEGIN READ ONLY").unwrap();
    assert_eq!(restore(&mut client, ""), would);
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(restore(&mut client, ", dry_run => false"), would);
    assert_eq!(
        one(
            &mut client,
            "SELECT string_agg(concat_ws(' ', qty, org_id, state), ',' ORDER BY qty) FROM app.orders"
        ),
        "1 new,2 paid,3 new,4 paid,5 35 new,6 42 paid,7 49 new,8 56 lost,9 new"
    );
    // What is put right by hand can follow, by name over what is there now.
    client
        .batch_execute(
            "UPDATE app.orders SET tenant = 0 WHERE qty = 9; ALTER TABLE app.orders ALTER COLUMN weight TYPE float8;
             INSERT INTO app.orders (tenant, \"Day, of\", qty) VALUES (1, '2024-01-11', 10)",
        )
        .unwrap();
    assert_eq!(
        restore(&mut client, ", dry_run => false, overwrite => true"),
        [
            "app.orders|number|10|10|{}",
            "app.orders|org_id|2|2|{}",
            "app.orders|state|3|3|{}",
            "app.orders|weight|1|1|{}",
        ]
    );
    client.batch_execute("RESET ALL").unwrap();
    assert_eq!(one(&mut client, values), before);
    assert_eq!(failure(&mut client, "SELECT * FROM restore_reset(1)").code, "42704");
    // The sequence goes on behind what was put back.
    assert_eq!(one(&mut client, "SELECT nextval('app.orders_number_seq') > 99"), "t");
}

#[test]
fn values_without_a_way_back_stay() {
    let script = "ALTER TABLE t ADD COLUMN c int";
    for (before, after, reason) in [
        (
            "CREATE TABLE t (id int)",
            "SELECT 1",
            "its table has no primary key, by which its values could be put back",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE watcher; SELECT grant_mend('watcher'); ALTER TABLE t OWNER TO watcher; ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY",
            "SET ROLE watcher",
            "its values cannot be counted, so that they cannot be copied: SELECT is not granted, or policies hide some",
        ),
    ] {
        let (_database, mut client) = database_with(before);
        client.batch_execute(script).unwrap();
        client.batch_execute("INSERT INTO t VALUES (1, 1)").unwrap();
        client.batch_execute(after).unwrap();
        let got = lines(
            &mut client,
            &format!(
                "SELECT action, object, reason FROM migration_reset('{script}', include => '{{t.c}}', dry_run => false) WHERE kind = 'column'"
            ),
        );
        assert_eq!(got, [format!("keep|t.c|{reason}")]);
        client.batch_execute("RESET ROLE; DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'watcher') THEN DROP OWNED BY watcher; DROP ROLE watcher; END IF; END $$").unwrap();
    }
    // A key of the script's own goes as well; children have keys of their own.
    let script = "ALTER TABLE t ADD COLUMN id serial PRIMARY KEY, ADD COLUMN c int";
    let got = kept(
        script,
        "CREATE TABLE t (a int)",
        "INSERT INTO t (a, c) VALUES (1, 1)",
        ", include => '{t.c,t.id}'",
    );
    let reason = "the primary key of its table is the script's, so that its values could not be put back";
    assert!(got.contains(&format!("keep|t.c|{reason}")), "{got:?}");
    assert!(got.contains(&format!("keep|t.id|{reason}")), "{got:?}");
    let (_database, mut client) = database_with(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE child () INHERITS (t); ALTER TABLE t ADD COLUMN c int; INSERT INTO t VALUES (1, 1); INSERT INTO child VALUES (1, 2)",
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM migration_reset('ALTER TABLE t ADD COLUMN c int', include => '{t.c}', dry_run => false)",
    );
    assert_eq!(failed.code, "55000", "{failed:?}");
    assert_eq!(one(&mut client, "SELECT sum(c) FROM t"), "3");
}
