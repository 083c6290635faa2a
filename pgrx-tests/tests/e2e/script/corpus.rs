//! Scripts as people write them, each run statement by statement: before, after each, and at the end the status must say exactly how far it
//! is; whatever holds before it was run (a DROP IF EXISTS of what is not there) is said to hold.

use pgrx_tests::database;
use pgrx_tests::example::{lines, one};

use super::property::SIGNATURE;

/// Each script, statement by statement.
const SCRIPTS: &[(&str, &[&str])] = &[
    (
        "an enum is swapped",
        &[
            "CREATE TYPE \"Status\" AS ENUM ('a', 'b')",
            "CREATE TABLE \"Order\" (id serial PRIMARY KEY, status \"Status\" NOT NULL DEFAULT 'a')",
            "CREATE TYPE \"Status_new\" AS ENUM ('a', 'c')",
            "ALTER TABLE \"Order\" ALTER COLUMN status DROP DEFAULT",
            "ALTER TABLE \"Order\" ALTER COLUMN status TYPE \"Status_new\" USING (status::text::\"Status_new\")",
            "ALTER TYPE \"Status\" RENAME TO \"Status_old\"",
            "ALTER TYPE \"Status_new\" RENAME TO \"Status\"",
            "DROP TYPE \"Status_old\"",
            "ALTER TABLE \"Order\" ALTER COLUMN status SET DEFAULT 'c'",
        ],
    ),
    (
        "policies with roles and subqueries",
        &[
            "CREATE TABLE orgs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text COLLATE \"C\" NOT NULL)",
            "CREATE TABLE members (org_id uuid REFERENCES orgs ON DELETE CASCADE, user_id text NOT NULL, PRIMARY KEY (org_id, user_id))",
            "ALTER TABLE orgs ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE orgs FORCE ROW LEVEL SECURITY",
            "CREATE POLICY see ON orgs FOR SELECT TO pg_read_all_data, pg_monitor USING (EXISTS (SELECT 1 FROM members m WHERE m.org_id = orgs.id AND m.user_id = (SELECT current_user::text)))",
            "CREATE POLICY change ON orgs AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (true) WITH CHECK (name <> '')",
            "DROP POLICY IF EXISTS change ON orgs",
            "CREATE POLICY change ON orgs FOR ALL USING (id IN (SELECT org_id FROM members))",
        ],
    ),
    (
        "columns go with what stands on them",
        &[
            "CREATE TABLE a (id int PRIMARY KEY, b int, c int, CHECK (b > c))",
            "CREATE INDEX a_b ON a (b)",
            "CREATE TABLE d (id int PRIMARY KEY, a int REFERENCES a (id), UNIQUE (a))",
            "ALTER TABLE a DROP COLUMN b",
            "ALTER TABLE d DROP COLUMN a",
            "ALTER TABLE a DROP CONSTRAINT a_pkey CASCADE",
            "ALTER TABLE a ADD PRIMARY KEY (c)",
        ],
    ),
    (
        "views",
        &[
            "CREATE TABLE t (a int, b text)",
            "CREATE VIEW v1 AS SELECT 1 AS a UNION ALL SELECT 2",
            "CREATE VIEW v2 (x, y) AS SELECT a, b FROM t UNION SELECT a + 1, upper(b) FROM t",
            "CREATE VIEW v3 AS VALUES (1, 'x'), (2, 'y')",
            "CREATE VIEW v4 AS WITH w AS (SELECT a FROM t) SELECT w.a, t.b FROM w JOIN t USING (a) WHERE t.b LIKE 'x%' ORDER BY 1",
            "CREATE OR REPLACE VIEW v1 AS SELECT 1 AS a UNION ALL SELECT 3",
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t",
            "CREATE UNIQUE INDEX m_n ON m (n)",
        ],
    ),
    (
        "schemas, names and moves",
        &[
            "CREATE SCHEMA s1",
            "CREATE TABLE s1.t (id int PRIMARY KEY, \"Odd name\" text)",
            "CREATE INDEX ON s1.t (\"Odd name\")",
            "ALTER SCHEMA s1 RENAME TO s2",
            "ALTER TABLE s2.t RENAME COLUMN \"Odd name\" TO plain",
            "ALTER TABLE s2.t ADD CONSTRAINT plain_not_empty CHECK (plain <> '')",
            "CREATE SCHEMA s3",
            "ALTER TABLE s2.t SET SCHEMA s3",
            "SET search_path = s3, public",
            "CREATE TABLE u (id int REFERENCES t)",
            "ALTER INDEX t_pkey RENAME TO t_key",
        ],
    ),
    (
        "functions and triggers",
        &[
            "CREATE FUNCTION f(a int, b text DEFAULT 'x') RETURNS text LANGUAGE sql IMMUTABLE STRICT AS 'SELECT b || a'",
            "CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql AS $$ SELECT a; $$",
            "CREATE FUNCTION g() RETURNS SETOF int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS 'BEGIN RETURN; END'",
            "CREATE FUNCTION h(OUT x int, OUT y text) LANGUAGE sql AS 'SELECT 1, ''a'''",
            "CREATE FUNCTION i(n int) RETURNS TABLE (a int, b text) LANGUAGE sql AS 'SELECT n, ''a'''",
            "CREATE PROCEDURE p(INOUT x int) LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE TABLE t (id int, b text)",
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER t1 AFTER INSERT OR UPDATE OF id, b ON t FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION touch('ö', 'a\\b', '')",
            "CREATE CONSTRAINT TRIGGER t2 AFTER DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION touch()",
            "CREATE TRIGGER t3 BEFORE TRUNCATE ON t EXECUTE FUNCTION touch()",
            "DROP FUNCTION f(text)",
            "ALTER FUNCTION g() RENAME TO g2",
            "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        ],
    ),
    (
        "types and domains",
        &[
            "CREATE TYPE pair AS (a int, b text)",
            "CREATE DOMAIN amount AS numeric(12, 2) CHECK (VALUE >= 0)",
            "CREATE TYPE span AS RANGE (subtype = date)",
            "CREATE TYPE mood AS ENUM ('good', 'bad')",
            "ALTER TYPE mood ADD VALUE 'so so' BEFORE 'bad'",
            "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'",
            "CREATE TABLE t (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, p pair, a amount NOT NULL DEFAULT 0, m mood[] DEFAULT '{}', twice numeric GENERATED ALWAYS AS (a * 2) STORED, at timestamp(3) with time zone)",
            "COMMENT ON TABLE t IS 'it''s a table'",
            "COMMENT ON COLUMN t.a IS 'money'",
            "COMMENT ON TYPE mood IS 'moods'",
            "DROP DOMAIN IF EXISTS nothing",
        ],
    ),
    (
        "keys and indexes",
        &[
            "CREATE TABLE p (a int, b int, c text, PRIMARY KEY (a, b))",
            "CREATE TABLE q (a int, b int, d int UNIQUE, CONSTRAINT to_p FOREIGN KEY (a, b) REFERENCES p MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE)",
            "ALTER TABLE p ADD COLUMN q int, ADD CONSTRAINT to_q FOREIGN KEY (q) REFERENCES q (d) NOT VALID",
            "ALTER TABLE p VALIDATE CONSTRAINT to_q",
            "CREATE INDEX ON p (lower(c) text_pattern_ops, a DESC) INCLUDE (b) WHERE c IS NOT NULL",
            "CREATE UNIQUE INDEX p_once ON p (a)",
            "ALTER TABLE q ADD CONSTRAINT q_pkey PRIMARY KEY (a)",
            "ALTER TABLE p ALTER COLUMN c TYPE varchar(40), ALTER COLUMN c SET DEFAULT lower('X')",
            "ALTER TABLE p RENAME CONSTRAINT to_q TO to_q_renamed",
            "ALTER TABLE q DROP CONSTRAINT to_p",
        ],
    ),
    (
        "partitions, inheritance, grants, sequences",
        &[
            "CREATE TABLE m (id int, at date NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE m_1 PARTITION OF m FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
            "CREATE INDEX m_at ON m (at)",
            "CREATE TABLE base (id int PRIMARY KEY)",
            "CREATE TABLE child (extra text) INHERITS (base)",
            "CREATE TABLE alike (LIKE base INCLUDING ALL, more int)",
            "CREATE SEQUENCE numbers START 100",
            "ALTER TABLE base ALTER COLUMN id SET DEFAULT nextval('numbers')",
            "GRANT SELECT, INSERT ON base TO PUBLIC",
            "GRANT USAGE ON SEQUENCE numbers TO PUBLIC",
            "REVOKE INSERT ON base FROM PUBLIC",
            "ALTER TABLE base ENABLE ROW LEVEL SECURITY",
        ],
    ),
    (
        "what pg_dump writes, what parents and domains hand down, names that move",
        &[
            "CREATE TABLE q (c int NOT NULL)",
            "ALTER TABLE q ALTER COLUMN c ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME q_c_seq START WITH 10)",
            "CREATE TABLE p0 (b text NOT NULL DEFAULT 'x')",
            "CREATE TABLE c0 (b text) INHERITS (p0)",
            "CREATE TABLE ex (c text, d int, EXCLUDE (c WITH =))",
            "ALTER TABLE ex ADD CONSTRAINT x2 EXCLUDE (c WITH =) WHERE (d > 0)",
            "CREATE TYPE e AS ENUM ('a')",
            "CREATE FUNCTION g(e) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "COMMENT ON FUNCTION g(e) IS 'x'",
            "CREATE DOMAIN d AS int DEFAULT 2",
            "CREATE DOMAIN dd AS d",
            "CREATE PROCEDURE p1(a int, OUT b int) LANGUAGE sql AS 'SELECT 1'",
            "COMMENT ON PROCEDURE p1(a int, OUT b int) IS 'y'",
            "ALTER TABLE ex RENAME c TO cc",
            "ALTER TYPE e RENAME TO e2",
        ],
    ),
];

/// A step that is judged, and done.
fn done(line: &str) -> Option<bool> {
    match line.split('|').next().unwrap() {
        "present" | "would_fail" => Some(true),
        "missing" | "blocked" => Some(false),
        "unknown" | "skipped" | "data" | "opaque" => None,
        other => panic!("{other}: {line}"),
    }
}

#[test]
fn scripts_as_people_write_them() {
    for (name, statements) in SCRIPTS {
        let database = database();
        let mut client = database.connect();
        let mut other = database.connect();
        let script: String = statements.iter().map(|statement| format!("{statement};\n")).collect();
        let mut signatures = Vec::new();
        for prefix in 0..=statements.len() {
            signatures.push(one(&mut other, SIGNATURE));
            // Of another session, whose search_path is what it was.
            let status = lines(
                &mut other,
                &format!("SELECT state, kind, object, detail FROM migration_status($mend${script}$mend$)"),
            );
            let shown = || {
                let all = status.iter().zip(statements.iter().map(Some).chain([None]));
                let text: Vec<String> = all
                    .map(|(line, statement)| format!("{line}\n      {}", statement.unwrap_or(&"")))
                    .collect();
                format!("{name}, {prefix} run:\n{}", text.join("\n"))
            };
            let states: Vec<Option<bool>> = status[..statements.len()]
                .iter()
                .map(|line| std::panic::catch_unwind(|| done(line)).unwrap_or_else(|_| panic!("{}", shown())))
                .collect();
            // Up to which step; those that cannot be judged are either.
            let said = states
                .iter()
                .position(|state| *state == Some(false))
                .unwrap_or(statements.len());
            assert!(!states[said..].contains(&Some(true)), "no prefix: {}", shown());
            // What was made and dropped again leaves nothing to tell by, nor does what is not judged.
            let same = |a: usize, b: usize| {
                a == b || signatures.get(a) == signatures.get(b) || (a.min(b)..a.max(b)).all(|at| states[at].is_none())
            };
            assert!(same(said, prefix), "{said} instead of {prefix}: {}", shown());
            if prefix == statements.len() {
                assert!(status[prefix].starts_with("complete"), "{}", shown());
            }
            if let Some(statement) = statements.get(prefix) {
                client
                    .batch_execute(statement)
                    .unwrap_or_else(|error| panic!("{statement}: {error}"));
            }
        }
    }
}
