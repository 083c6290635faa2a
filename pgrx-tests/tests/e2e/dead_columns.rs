//! Columns that are NULL in every row: nothing that uses one may be missed, and dropping one is guarded.

use pgrx_tests::example::{failure, lines, load_organizations, one};
use postgres::Client;

fn client(setup: &str) -> (pgrx_tests::Database<'static>, Client) {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    client
        .batch_execute(setup)
        .unwrap_or_else(|error| panic!("{setup}: {error:?}"));
    (database, client)
}

#[test]
fn the_dead_column_of_the_example_is_found_and_the_one_that_a_view_reads_is_not_dead() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_organizations(&mut client);
    assert_eq!(
        lines(
            &mut client,
            "SELECT column_name, data_type, verdict, rows_checked, used_by, statement IS NULL FROM dead_columns() WHERE table_name = 'conversations'"
        ),
        [
            "customer_id|uuid|dead|60|{}|f",
            "metadata|jsonb|used|60|{\"view public.conversation_overview\"}|t",
        ]
    );
}

#[test]
fn every_kind_of_user_is_named() {
    let (_database, mut client) = client(
        "CREATE TABLE other (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY, fk int REFERENCES other, ix int, expr text, pred int, chk int CHECK (chk > 0), viewed int, mat int,
           policy int, upd int, whened int, defaulted int DEFAULT 7, source int, doubled int GENERATED ALWAYS AS (source * 2) STORED,
           body int, atomic int, trg int, stat1 int, stat2 int, \"Mixed Case\" int, row_type int, nothing int, elsewhere int);
         CREATE INDEX ON t (ix); CREATE INDEX ON t (lower(expr)); CREATE INDEX ON t (id) WHERE pred = 1;
         CREATE VIEW v AS SELECT viewed FROM t; CREATE MATERIALIZED VIEW m AS SELECT mat FROM t;
         CREATE POLICY p ON t USING (policy = 1);
         CREATE FUNCTION trigger_body() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.trg := NULL; RETURN NEW; END';
         CREATE TRIGGER fires BEFORE UPDATE OF upd ON t FOR EACH ROW WHEN (NEW.whened > 1) EXECUTE FUNCTION trigger_body();
         CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(body) FROM t';
         CREATE FUNCTION g() RETURNS bigint BEGIN ATOMIC SELECT count(atomic) FROM t; END;
         CREATE FUNCTION h() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(\"Mixed Case\") FROM T); END';
         CREATE FUNCTION takes(r t) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN r.row_type; END';
         CREATE FUNCTION unrelated() RETURNS int LANGUAGE sql AS 'SELECT elsewhere FROM (SELECT 1 AS elsewhere) s';
         CREATE STATISTICS st ON stat1, stat2 FROM t;
         INSERT INTO t (id, defaulted) VALUES (1, NULL), (2, NULL)",
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT column_name, verdict, used_by FROM dead_columns('public')"
        ),
        [
            "-|not_checked|{}",
            "Mixed Case|used|{\"function public.h()\"}",
            "atomic|used|{\"function public.g()\"}",
            "body|used|{\"function public.f()\"}",
            "chk|used|{\"constraint t_chk_check on table public.t\"}",
            "defaulted|used|{\"default value for column defaulted of table public.t\"}",
            "elsewhere|dead|{}",
            "expr|used|{\"index public.t_lower_idx\"}",
            "fk|used|{\"constraint t_fk_fkey on table public.t\"}",
            "ix|used|{\"index public.t_ix_idx\"}",
            "mat|used|{\"materialized view public.m\"}",
            "nothing|dead|{}",
            "policy|used|{\"policy p on table public.t\"}",
            "pred|used|{\"index public.t_id_idx\"}",
            "row_type|used|{\"function public.takes(public.t)\"}",
            "source|used|{\"default value for column doubled of table public.t\"}",
            "stat1|used|{\"statistics object public.st\"}",
            "stat2|used|{\"statistics object public.st\"}",
            "trg|used|{\"function public.trigger_body()\"}",
            "upd|used|{\"trigger fires on table public.t\"}",
            "viewed|used|{\"view public.v\"}",
            "whened|used|{\"trigger fires on table public.t\"}",
        ][1..]
    );
    let checked = one(
        &mut client,
        "SELECT checked FROM dead_columns() WHERE column_name = 'elsewhere'",
    );
    assert!(checked.contains("1 function names a elsewhere but not t"), "{checked}");
}

#[test]
fn an_empty_table_proves_nothing_and_one_value_at_the_end_is_enough() {
    let (_database, mut client) = client(
        "CREATE TABLE empty (id int PRIMARY KEY, a int); CREATE TABLE late (id int PRIMARY KEY, a int, b int);
         INSERT INTO late SELECT g, CASE WHEN g = 5000 THEN 1 END FROM generate_series(1, 5000) g",
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, column_name, verdict, rows_checked FROM dead_columns()"
        ),
        ["empty|-|not_checked|-", "late|b|dead|5000"]
    );
}

#[test]
fn the_statement_drops_what_still_is_empty_and_nothing_else() {
    let (_database, mut client) = client(
        "CREATE TABLE \"Odd $mend$ 100% 'name'\" (id int PRIMARY KEY, \"gone; --\" int, kept int);
         INSERT INTO \"Odd $mend$ 100% 'name'\" VALUES (1)",
    );
    let statement = |client: &mut Client, column: &str| {
        let sql = format!("SELECT statement FROM dead_columns() WHERE column_name = '{column}'");
        let rows = client.query(&sql, &[]).unwrap();
        rows[0].get::<_, String>(0)
    };
    let (gone, kept) = (statement(&mut client, "gone; --"), statement(&mut client, "kept"));
    client
        .batch_execute("UPDATE \"Odd $mend$ 100% 'name'\" SET kept = 1")
        .unwrap();
    client.batch_execute(&gone).unwrap();
    let failed = failure(&mut client, &kept);
    assert_eq!(failed.code, "55000");
    assert!(
        failed
            .message
            .ends_with(".\"kept\" is no longer empty, nothing was dropped"),
        "{failed:?}"
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT attname FROM pg_attribute WHERE attrelid = '\"Odd $mend$ 100% ''name''\"'::regclass AND attnum > 0 AND NOT attisdropped"
        ),
        ["id", "kept"]
    );
}

#[test]
fn inheritance_children_and_partitions_count_with_their_parent() {
    let (_database, mut client) = client(
        "CREATE TABLE parent (id int, a int, b int); CREATE TABLE child (c int) INHERITS (parent);
         CREATE TABLE parts (id int, a int, b int) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1); INSERT INTO parts VALUES (1, 1)",
    );
    assert_eq!(
        lines(&mut client, "SELECT table_name, column_name FROM dead_columns()"),
        ["child|c", "parent|b", "parts|b"]
    );
}

#[test]
fn a_schema_that_does_not_exist_is_an_error_with_the_nearest_name() {
    let (_database, mut client) = client("CREATE SCHEMA billing; CREATE TABLE billing.t (id int)");
    let failed = failure(&mut client, "SELECT * FROM dead_columns('biling')");
    assert_eq!(
        (failed.code.as_str(), failed.hint.as_str()),
        ("3F000", "did you mean billing?")
    );
}
