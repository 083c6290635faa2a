//! Columns that are NULL in every row: nothing that uses one may be missed, and dropping one is guarded.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, load_organizations, one};
use postgres::Client;

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
    let (_database, mut client) = database_with(
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
    let (_database, mut client) = database_with(
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
    let (_database, mut client) = database_with(
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
    let (_database, mut client) = database_with(
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
    let (_database, mut client) = database_with("CREATE SCHEMA billing; CREATE TABLE billing.t (id int)");
    let failed = failure(&mut client, "SELECT * FROM dead_columns('biling')");
    assert_eq!(
        (failed.code.as_str(), failed.hint.as_str()),
        ("3F000", "did you mean billing?")
    );
}

#[test]
fn users_of_a_partition_of_the_whole_row_and_the_partition_key_count() {
    let (_database, mut client) = database_with(
        "CREATE TABLE q (id int, indexed text, viewed text, checked text, named text) PARTITION BY RANGE (id);
         CREATE TABLE q_1 PARTITION OF q FOR VALUES FROM (0) TO (100); INSERT INTO q VALUES (1);
         CREATE INDEX q_1_indexed ON q_1 (indexed); CREATE VIEW of_part AS SELECT viewed FROM q_1; ALTER TABLE q_1 ADD CONSTRAINT part_check CHECK (checked <> 'x');
         CREATE FUNCTION of_part_only() RETURNS bigint LANGUAGE sql AS 'SELECT count(named) FROM q_1';
         CREATE TABLE k (id int, key text) PARTITION BY LIST (key); CREATE TABLE k_null PARTITION OF k FOR VALUES IN (NULL); INSERT INTO k VALUES (1, NULL);
         CREATE TABLE w (id int, v text); INSERT INTO w VALUES (1); CREATE VIEW whole AS SELECT to_jsonb(w) AS row FROM w",
    );
    // Postgres reads backslashes as it did before 9.1.
    client.batch_execute("SET standard_conforming_strings = off").unwrap();
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, column_name, verdict, used_by FROM dead_columns()"
        ),
        [
            "k|key|used|{\"partition key of public.k\"}",
            "q|checked|used|{\"constraint part_check on table public.q_1\"}",
            "q|indexed|used|{\"index public.q_1_indexed\"}",
            "q|named|used|{\"function public.of_part_only()\"}",
            "q|viewed|used|{\"view public.of_part\"}",
            "w|v|used|{\"view public.whole (the whole row)\"}",
        ]
    );
}

#[test]
fn the_drop_sees_a_row_of_nulls_what_a_policy_hides_and_what_was_written_before_its_lock() {
    let (database, mut client) = database_with(
        "CREATE TYPE comp AS (x int, y int); CREATE TABLE c (id int PRIMARY KEY, v comp); INSERT INTO c VALUES (1, NULL);
         CREATE TABLE p (id int PRIMARY KEY, v text); INSERT INTO p VALUES (1, NULL);",
    );
    let statement = |client: &mut Client, table: &str| {
        let sql = format!("SELECT statement FROM dead_columns() WHERE table_name = '{table}'");
        client.query_one(&sql, &[]).unwrap().get::<_, String>(0)
    };
    let (of_c, of_p) = (statement(&mut client, "c"), statement(&mut client, "p"));
    client.batch_execute("UPDATE c SET v = ROW(1, NULL)").unwrap();
    assert_eq!(failure(&mut client, &of_c).code, "55000");
    let owner = format!("dropper_{}", database.name);
    client
        .batch_execute(&format!(
            "CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner}; ALTER TABLE p OWNER TO {owner}; UPDATE p SET v = 'precious';
             ALTER TABLE p ENABLE ROW LEVEL SECURITY; ALTER TABLE p FORCE ROW LEVEL SECURITY; CREATE POLICY hides ON p USING (id > 5); SET ROLE {owner}"
        ))
        .unwrap();
    assert_eq!(failure(&mut client, &of_p).code, "42501");
    client.batch_execute("RESET ROLE").unwrap();
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    assert_eq!(failure(&mut client, &of_c).code, "25000");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(one(&mut client, "SELECT v FROM p"), "precious");
}

#[test]
fn a_table_of_which_only_some_columns_may_be_read_is_looked_at_as_far_as_that_goes() {
    let (database, mut client) = database_with(
        "CREATE TABLE t (id int NOT NULL, n text); INSERT INTO t VALUES (1); CREATE TABLE u (id int NOT NULL, n text, o text); INSERT INTO u VALUES (1)",
    );
    let role = format!("limited_{}", database.name);
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; SELECT grant_mend('{role}'); GRANT SELECT (n) ON t, u TO {role}"
        ))
        .unwrap();
    let mut limited = database.connect_as(&role);
    assert_eq!(
        lines(
            &mut limited,
            "SELECT table_name, column_name, verdict FROM dead_columns('public')"
        ),
        ["t|n|dead", "u|-|not_checked"]
    );
}
