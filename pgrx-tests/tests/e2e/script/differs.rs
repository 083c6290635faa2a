//! Each thing that a statement says, said otherwise: what is there as written is `present` or `would_fail`, one word changed is `differs`
//! (or `missing`, where a statement changes something that was there).

use pgrx_tests::database_with;
use pgrx_tests::example::{lines, one};

/// A statement, and other ones that would have made something else of the same name; all run behind `BEFORE`.
const BEFORE: &str = "CREATE TABLE t (id int PRIMARY KEY, name text, span int4range); CREATE TABLE heir (id int); CREATE TABLE m (id int NOT NULL) PARTITION BY LIST (id);
    CREATE TABLE part (id int NOT NULL); CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch(); CREATE POLICY p ON t USING (id > 1); CREATE SEQUENCE s0";

const CASES: &[(&str, &[&str])] = &[
    (
        "ALTER TABLE t ADD CONSTRAINT x EXCLUDE USING gist (span WITH &&) WHERE (id > 1)",
        &[
            "ALTER TABLE t ADD CONSTRAINT x EXCLUDE USING gist (span WITH =) WHERE (id > 1)",
            "ALTER TABLE t ADD CONSTRAINT x EXCLUDE USING gist (span WITH &&) WHERE (id > 2)",
            "ALTER TABLE t ADD CONSTRAINT x EXCLUDE USING gist (span WITH &&, int4range(id, id + 1) WITH &&) WHERE (id > 1)",
            "ALTER TABLE t ADD CONSTRAINT x EXCLUDE USING spgist (span WITH &&) WHERE (id > 1)",
            "ALTER TABLE t ADD CONSTRAINT x EXCLUDE USING gist (span WITH &&) WHERE (id > 1) DEFERRABLE",
        ],
    ),
    (
        "CREATE TABLE x (a text COLLATE \"C\", b varchar(7))",
        &[
            "CREATE TABLE x (a text, b varchar(7))",
            "CREATE TABLE x (a text COLLATE \"POSIX\", b varchar(7))",
            "CREATE TABLE x (a text COLLATE \"C\", b varchar(7) COLLATE \"C\")",
            "CREATE TABLE x (a text COLLATE \"C\", b varchar(7)) PARTITION BY LIST (a)",
            "CREATE TABLE nothing_of_it (a text COLLATE \"C\", b varchar(7)); CREATE TABLE x (a text COLLATE \"C\", b varchar(7)) INHERITS (nothing_of_it)",
        ],
    ),
    (
        "CREATE INDEX x ON t (name COLLATE \"C\", lower(name))",
        &[
            "CREATE INDEX x ON t (name, lower(name))",
            "CREATE INDEX x ON t (name COLLATE \"POSIX\", lower(name))",
        ],
    ),
    (
        "CREATE FUNCTION x(a int, b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql SET search_path = pg_catalog, \"$user\" SET work_mem = '4MB' AS 'SELECT 1'",
        &[
            "CREATE FUNCTION x(other int, b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql SET search_path = pg_catalog, \"$user\" SET work_mem = '4MB' AS 'SELECT 1'",
            "CREATE FUNCTION x(a int, b text DEFAULT 'y' || 2, OUT c int) LANGUAGE sql SET search_path = pg_catalog, \"$user\" SET work_mem = '4MB' AS 'SELECT 1'",
            "CREATE FUNCTION x(a int, b text, OUT c int) LANGUAGE sql SET search_path = pg_catalog, \"$user\" SET work_mem = '4MB' AS 'SELECT 1'",
            "CREATE FUNCTION x(a int, INOUT b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql SET search_path = pg_catalog, \"$user\" SET work_mem = '4MB' AS 'SELECT NULL::text, 1'",
            "CREATE FUNCTION x(a int, b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql SET search_path = pg_catalog, other SET work_mem = '4MB' AS 'SELECT 1'",
            "CREATE FUNCTION x(a int, b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql SET search_path = pg_catalog, \"$user\" SET work_mem = '5MB' AS 'SELECT 1'",
            "CREATE FUNCTION x(a int, b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql SET search_path = pg_catalog, \"$user\" AS 'SELECT 1'",
            "CREATE FUNCTION x(a int, b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql PARALLEL SAFE SET search_path = pg_catalog, \"$user\" SET work_mem = '4MB' AS 'SELECT 1'",
            "CREATE FUNCTION x(a int, b text DEFAULT 'y' || 1, OUT c int) LANGUAGE sql LEAKPROOF SET search_path = pg_catalog, \"$user\" SET work_mem = '4MB' AS 'SELECT 1'",
        ],
    ),
    (
        "CREATE FUNCTION x() RETURNS TABLE (a int, b text) LANGUAGE sql AS 'SELECT 1, NULL::text'",
        &[
            "CREATE FUNCTION x() RETURNS TABLE (a int, other text) LANGUAGE sql AS 'SELECT 1, NULL::text'",
            "CREATE FUNCTION x() RETURNS TABLE (a int, b varchar) LANGUAGE sql AS 'SELECT 1, NULL::text'",
        ],
    ),
    (
        "CREATE FUNCTION x(a int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC DELETE FROM t WHERE t.id = x.a; SELECT count(*) FROM t WHERE id > a; END",
        &[
            "CREATE FUNCTION x(a int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC DELETE FROM t WHERE t.id = x.a; SELECT count(*) FROM t WHERE id < a; END",
            "CREATE FUNCTION x(a int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM t WHERE id > a; END",
            "CREATE FUNCTION x(a int) RETURNS bigint LANGUAGE sql RETURN 1",
            "CREATE FUNCTION x(a int) RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
        ],
    ),
    (
        "CREATE MATERIALIZED VIEW x (a, b) AS SELECT id, name FROM t WHERE id > 1",
        &[
            "CREATE MATERIALIZED VIEW x (a, b) AS SELECT id, name FROM t WHERE id > 2",
            "CREATE MATERIALIZED VIEW x (a, c) AS SELECT id, name FROM t WHERE id > 1",
            "CREATE VIEW x (a, b) AS SELECT id, name FROM t WHERE id > 1",
        ],
    ),
    (
        "CREATE TYPE x AS (a numeric(5, 2), b text COLLATE \"C\")",
        &[
            "CREATE TYPE x AS (a numeric(5, 3), b text COLLATE \"C\")",
            "CREATE TYPE x AS (a numeric(5, 2), b text)",
            "CREATE TYPE x AS (a numeric(5, 2), c text COLLATE \"C\")",
            "CREATE TYPE x AS (a numeric(5, 2))",
        ],
    ),
    (
        "CREATE DOMAIN x AS varchar(9) NOT NULL DEFAULT 'y' CHECK (VALUE <> 'z' AND length(VALUE) > 1)",
        &[
            "CREATE DOMAIN x AS varchar(8) NOT NULL DEFAULT 'y' CHECK (VALUE <> 'z' AND length(VALUE) > 1)",
            "CREATE DOMAIN x AS varchar(9) DEFAULT 'y' CHECK (VALUE <> 'z' AND length(VALUE) > 1)",
            "CREATE DOMAIN x AS varchar(9) NOT NULL CHECK (VALUE <> 'z' AND length(VALUE) > 1)",
            "CREATE DOMAIN x AS varchar(9) NOT NULL DEFAULT 'y' CHECK (VALUE <> 'z' AND length(VALUE) > 2)",
            "CREATE DOMAIN x AS varchar(9) NOT NULL DEFAULT 'y'",
            "CREATE DOMAIN x AS varchar(9) COLLATE \"C\" NOT NULL DEFAULT 'y' CHECK (VALUE <> 'z' AND length(VALUE) > 1)",
        ],
    ),
    (
        "CREATE TABLE x (id int, at date) PARTITION BY RANGE (at, (id % 7))",
        &[
            "CREATE TABLE x (id int, at date) PARTITION BY RANGE (at, (id % 8))",
            "CREATE TABLE x (id int, at date) PARTITION BY RANGE (at)",
            "CREATE TABLE x (id int, at date) PARTITION BY HASH (at, (id % 7))",
            "CREATE TABLE x (id int, at date)",
        ],
    ),
    (
        "CREATE TABLE x PARTITION OF m FOR VALUES IN (1, 2)",
        &[
            "CREATE TABLE x PARTITION OF m FOR VALUES IN (1, 3)",
            "CREATE TABLE x PARTITION OF m DEFAULT",
            "CREATE TABLE n (id int NOT NULL) PARTITION BY LIST (id); CREATE TABLE x PARTITION OF n FOR VALUES IN (1, 2)",
            "CREATE TABLE x (id int NOT NULL)",
        ],
    ),
    (
        "ALTER TABLE m ATTACH PARTITION part FOR VALUES IN (1)",
        &["ALTER TABLE m ATTACH PARTITION part FOR VALUES IN (2)", "SELECT 1"],
    ),
    (
        "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 3 MAXVALUE 99 START 5 CACHE 4 CYCLE OWNED BY t.id",
        &[
            "CREATE SEQUENCE x AS bigint INCREMENT 2 MINVALUE 3 MAXVALUE 99 START 5 CACHE 4 CYCLE OWNED BY t.id",
            "CREATE SEQUENCE x AS int INCREMENT 1 MINVALUE 3 MAXVALUE 99 START 5 CACHE 4 CYCLE OWNED BY t.id",
            "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 2 MAXVALUE 99 START 5 CACHE 4 CYCLE OWNED BY t.id",
            "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 3 MAXVALUE 98 START 5 CACHE 4 CYCLE OWNED BY t.id",
            "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 3 MAXVALUE 99 START 6 CACHE 4 CYCLE OWNED BY t.id",
            "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 3 MAXVALUE 99 START 5 CYCLE OWNED BY t.id",
            "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 3 MAXVALUE 99 START 5 CACHE 4 OWNED BY t.id",
            "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 3 MAXVALUE 99 START 5 CACHE 4 CYCLE",
            "CREATE SEQUENCE x AS int INCREMENT 2 MINVALUE 3 MAXVALUE 99 START 5 CACHE 4 CYCLE OWNED BY t.name",
        ],
    ),
    (
        "ALTER SEQUENCE s0 INCREMENT 5 OWNED BY t.id",
        &["ALTER SEQUENCE s0 OWNED BY t.id", "SELECT 1"],
    ),
    ("ALTER TABLE t OWNER TO pg_monitor", &["SELECT 1"]),
    ("ALTER FUNCTION touch() OWNER TO pg_monitor", &["SELECT 1"]),
    (
        "ALTER TABLE t DISABLE TRIGGER g",
        &["SELECT 1", "ALTER TABLE t ENABLE ALWAYS TRIGGER g"],
    ),
    (
        "CREATE CONSTRAINT TRIGGER x AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION touch()",
        &[
            "CREATE CONSTRAINT TRIGGER x AFTER UPDATE ON t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION touch()",
            "CREATE TRIGGER x AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()",
        ],
    ),
    (
        "CREATE TRIGGER x AFTER UPDATE ON t REFERENCING OLD TABLE AS was NEW TABLE AS becomes FOR EACH STATEMENT EXECUTE FUNCTION touch()",
        &[
            "CREATE TRIGGER x AFTER UPDATE ON t REFERENCING OLD TABLE AS was NEW TABLE AS other FOR EACH STATEMENT EXECUTE FUNCTION touch()",
            "CREATE TRIGGER x AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION touch()",
        ],
    ),
    (
        "CREATE POLICY x ON t USING (id > 1); ALTER POLICY x ON t TO pg_monitor USING (id > 2)",
        &[
            "CREATE POLICY x ON t USING (id > 1); ALTER POLICY x ON t TO pg_monitor USING (id > 3)",
            "CREATE POLICY x ON t USING (id > 1); ALTER POLICY x ON t USING (id > 2)",
        ],
    ),
];

/// What newer versions know: since which one.
const NEWER: &[(i32, &str, &[&str])] = &[
    (
        17,
        "CREATE TABLE x (a int, b int GENERATED ALWAYS AS (a * 2) STORED); ALTER TABLE x ALTER COLUMN b SET EXPRESSION AS (a * 3)",
        &["CREATE TABLE x (a int, b int GENERATED ALWAYS AS (a * 2) STORED)"],
    ),
    (
        18,
        "CREATE TABLE x (a int, b int GENERATED ALWAYS AS (a * 2))",
        &["CREATE TABLE x (a int, b int GENERATED ALWAYS AS (a * 2) STORED)"],
    ),
    (
        18,
        "ALTER TABLE t ADD CONSTRAINT x CHECK (id > 0) NOT ENFORCED",
        &[
            "ALTER TABLE t ADD CONSTRAINT x CHECK (id > 0)",
            "ALTER TABLE t ADD CONSTRAINT x CHECK (id > 0) NOT VALID",
        ],
    ),
    (
        18,
        "CREATE TABLE x (a int CHECK (a > 0) NOT ENFORCED, b int, NOT NULL b)",
        &[
            "CREATE TABLE x (a int CHECK (a > 0), b int, NOT NULL b)",
            "CREATE TABLE x (a int CHECK (a > 0) NOT ENFORCED, b int)",
        ],
    ),
    (
        18,
        "CREATE TABLE x (a int4range, b int4range, UNIQUE (a, b WITHOUT OVERLAPS))",
        &["CREATE TABLE x (a int4range, b int4range, UNIQUE (a, b))"],
    ),
];

fn states(client: &mut postgres::Client, script: &str) -> Vec<String> {
    lines(
        client,
        &format!("SELECT state, detail FROM migration_status($mend${script}$mend$) WHERE step IS NOT NULL"),
    )
}

#[test]
fn one_word_makes_a_difference() {
    let (_database, mut client) = database_with(BEFORE);
    let version: i32 = one(&mut client, "SELECT current_setting('server_version_num')::int / 10000")
        .parse()
        .unwrap();
    let newer = NEWER.iter().filter(|(since, ..)| version >= *since);
    let newer = newer.map(|(_, script, others)| (script, others));
    for (script, others) in CASES.iter().map(|(script, others)| (script, others)).chain(newer) {
        client.batch_execute(&format!("BEGIN; {script}")).unwrap();
        let got = states(&mut client, script);
        client.batch_execute("ROLLBACK").unwrap();
        assert!(
            got.iter()
                .all(|line| line.starts_with("present") || line.starts_with("would_fail")),
            "{script}\n{got:?}"
        );
        for other in *others {
            client
                .batch_execute(&format!("BEGIN; {other}"))
                .unwrap_or_else(|error| panic!("{other}: {error}"));
            let got = states(&mut client, script);
            client.batch_execute("ROLLBACK").unwrap();
            assert!(
                got.iter()
                    .any(|line| line.starts_with("differs") || line.starts_with("missing")),
                "{script}\n{other}\n{got:?}"
            );
        }
    }
}
