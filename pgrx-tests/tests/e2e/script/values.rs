//! Values of columns that a reset drops on purpose, and puts back.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

use super::reset::kept;

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
    assert_eq!(
        lines(
            &mut client,
            "SELECT action, reason FROM migration_reset('ALTER TABLE t ADD COLUMN c int', include => '{t.c}', dry_run => false) WHERE kind = 'column'"
        ),
        ["keep|tables inherit from its table, whose keys are their own, so that its values could not be put back"]
    );
    assert_eq!(one(&mut client, "SELECT sum(c) FROM t"), "3");
}

/// Resets one column with `include`, makes it again, puts it back; what the column holds, before and after.
fn there_and_back(
    before: &str,
    script: &str,
    values: &str,
    column: &str,
    settings: &str,
) -> (String, String, Vec<String>) {
    let (_database, mut client) = database_with(before);
    client.batch_execute(script).unwrap();
    client.batch_execute(values).unwrap();
    let (table, name) = column.rsplit_once('.').unwrap();
    let look = format!(
        "SELECT string_agg(format('%s: %s, %s', o, {name} IS NULL, {name}), '; ' ORDER BY o) FROM (SELECT t::text COLLATE \"C\" AS o, t.* FROM {table} AS t) AS x"
    );
    let was = one(&mut client, &look);
    client.batch_execute(settings).unwrap();
    let run = one(
        &mut client,
        &format!(
            "SELECT run_id FROM migration_reset($mend${script}$mend$, include => '{{{column}}}', dry_run => false) WHERE kind = 'summary'"
        ),
    );
    client.batch_execute("RESET ALL").unwrap();
    client.batch_execute(script).unwrap();
    client.batch_execute(settings).unwrap();
    let restored = lines(
        &mut client,
        &format!("SELECT total = restored, reasons FROM restore_reset({run}, dry_run => false)"),
    );
    client.batch_execute("RESET ALL").unwrap();
    (was, one(&mut client, &look), restored)
}

#[test]
fn values_of_odd_types_keys_and_settings_come_back() {
    let mood = "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE FUNCTION lossy(mood) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
        CREATE CAST (mood AS text) WITH FUNCTION lossy(mood); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)";
    let plain = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)";
    for (before, type_name, value, settings) in [
        (mood, "mood", "'b'", "SELECT 1"),
        (plain, "bpchar", "'ab   '", "SELECT 1"),
        (plain, "text[]", "'{NULL,\"NULL\",a}'", "SET array_nulls = off"),
        (plain, "regclass", "'-'", "SELECT 1"),
        (plain, "int[][]", "'{}'", "SELECT 1"),
        (plain, "jsonb", "'{\"a\": \"\\\\u0041\"}'", "SELECT 1"),
        (plain, "xml", "'<a/>'", "SELECT 1"),
        (plain, "char(5)", "'ab'", "SELECT 1"),
        (plain, "numeric", "'NaN'", "SELECT 1"),
        (
            "CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
            "pair",
            "'(,\"x, y\")'",
            "SELECT 1",
        ),
        (
            "CREATE TABLE t (id int[] PRIMARY KEY); INSERT INTO t VALUES ('{1}'), ('{1,NULL}')",
            "text",
            "'q'",
            "SELECT 1",
        ),
        (
            "CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id pair PRIMARY KEY); INSERT INTO t VALUES ('(1,x)')",
            "text",
            "'q'",
            "SELECT 1",
        ),
        (
            "CREATE TABLE t (id jsonb PRIMARY KEY); INSERT INTO t VALUES ('{\"a\": 1}')",
            "text",
            "'q'",
            "SELECT 1",
        ),
        (
            "CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
            "text COLLATE nd DEFAULT 'abc'",
            "'ABC'",
            "SELECT 1",
        ),
    ] {
        let (was, is, restored) = there_and_back(
            before,
            &format!("ALTER TABLE t ADD COLUMN c {type_name}"),
            &format!("UPDATE t SET c = {value}"),
            "t.c",
            settings,
        );
        assert_eq!(was, is, "{type_name} {value}: {restored:?}");
        assert_eq!(restored, ["t|{}"], "{type_name} {value}");
    }
}

#[test]
fn nothing_goes_along_unsaid_and_rows_find_the_values_that_they_reference() {
    // Values of the row type elsewhere, comments by hand, sequences that are kept, columns of parents, children.
    for (before, script, after, include, reason) in [
        (
            "CREATE TABLE ct (id int PRIMARY KEY)",
            "ALTER TABLE ct ADD COLUMN c text",
            "CREATE TABLE h (v ct, d ct[])",
            "",
            "keep|ct.c|the row type of its table is used, and values of it would lose it: column v of table public.h, column d of table public.h",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY)",
            "ALTER TABLE t ADD COLUMN n int",
            "COMMENT ON COLUMN t.n IS 'precious'",
            "",
            "keep|t.n|not the script's, and lost with it: its comment",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY)",
            "ALTER TABLE t ADD COLUMN n int; CREATE SEQUENCE extra OWNED BY t.n",
            "SELECT nextval('extra')",
            ", include => '{t.n}'",
            "keep|t.n|dropping it would also drop extra, which is kept",
        ),
        (
            "CREATE TABLE p (id int); CREATE TABLE c () INHERITS (p)",
            "ALTER TABLE c ADD COLUMN n int",
            "ALTER TABLE p ADD COLUMN n int",
            "",
            "keep|c.n|it comes from the table that its own inherits from",
        ),
        (
            "CREATE TABLE b (a int); CREATE TABLE b2 (a int); CREATE INDEX x ON b2 (a)",
            "CREATE INDEX IF NOT EXISTS x ON b (a)",
            "SELECT 1",
            "",
            "keep|x|it differs from what the script writes: it is CREATE INDEX x ON public.b2 USING btree (a); has IF NOT EXISTS or OR REPLACE: running the statement again would not raise an error for this difference",
        ),
    ] {
        let got = kept(script, before, after, include);
        assert!(got.contains(&reason.to_string()), "{script}: {got:#?}");
    }
    let script = "ALTER TABLE t2 ADD COLUMN code text UNIQUE; CREATE TABLE n2 (id int PRIMARY KEY, code text REFERENCES t2 (code))";
    let (_database, mut client) = database_with("CREATE TABLE t2 (id int PRIMARY KEY); INSERT INTO t2 VALUES (1), (2)");
    client.batch_execute(script).unwrap();
    client
        .batch_execute("UPDATE t2 SET code = 'c' || id; INSERT INTO n2 VALUES (1, 'c1')")
        .unwrap();
    // By any name that means it.
    let call = format!(
        "SELECT run_id FROM migration_reset('{script}', include => ARRAY['\"public\".\"t2\".\"code\"', 'public.n2'], dry_run => false) WHERE kind = 'summary'"
    );
    let run = one(&mut client, &call);
    client.batch_execute(script).unwrap();
    assert_eq!(
        lines(
            &mut client,
            &format!("SELECT table_name, total, restored FROM restore_reset({run}, dry_run => false)")
        ),
        ["public.t2|2|2", "public.n2|1|1"]
    );
}

#[test]
fn a_role_keeps_what_it_may_not_drop_dry_and_real() {
    let script =
        "CREATE TABLE mine (id int); ALTER TABLE theirs ADD COLUMN c int; CREATE INDEX theirs_id ON theirs (id)";
    let (_database, mut client) = database_with(
        "CREATE ROLE guest_of_reset; SELECT grant_mend('guest_of_reset'); GRANT CREATE ON SCHEMA public TO guest_of_reset; CREATE TABLE theirs (id int)",
    );
    client.batch_execute(script).unwrap();
    client
        .batch_execute("ALTER TABLE mine OWNER TO guest_of_reset; GRANT SELECT ON theirs TO guest_of_reset; SET ROLE guest_of_reset")
        .unwrap();
    let call = |rest: &str| {
        format!(
            "SELECT action, object, reason FROM migration_reset('{script}'{rest}) WHERE kind <> 'summary' ORDER BY 2"
        )
    };
    let dry = lines(&mut client, &call(""));
    let real = lines(&mut client, &call(", dry_run => false"));
    client
        .batch_execute("RESET ROLE; DROP OWNED BY guest_of_reset; DROP ROLE guest_of_reset")
        .unwrap();
    assert_eq!(
        dry,
        [
            "drop|mine|-",
            "keep|theirs.c|only its owner postgres may drop it",
            "keep|theirs_id|only its owner postgres may drop it",
        ]
    );
    let dropped: Vec<String> = dry.iter().map(|line| line.replace("drop|", "dropped|")).collect();
    assert_eq!(real, dropped);
}
