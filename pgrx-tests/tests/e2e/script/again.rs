//! What the status says of running a script once more is what running it once more raises.

use pgrx_tests::database;
use pgrx_tests::example::lines;

/// Scripts that drop what they make: each is run once, and then told what a second time would raise.
const SCRIPTS: &[&[&str]] = &[
    &[
        "DROP TABLE IF EXISTS a",
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (a_id int REFERENCES a)",
    ],
    &[
        "DROP TABLE IF EXISTS b",
        "DROP TABLE IF EXISTS a",
        "CREATE TABLE a (id serial PRIMARY KEY, t text UNIQUE)",
        "CREATE TABLE b (id int CONSTRAINT b_key PRIMARY KEY, a_id int REFERENCES a)",
        "CREATE INDEX b_a ON b (a_id)",
        "CREATE INDEX ON b (a_id)",
        "ALTER TABLE b ADD COLUMN more text",
        "ALTER TABLE b ADD CONSTRAINT more_once UNIQUE (more)",
    ],
    &[
        "DROP TABLE IF EXISTS b",
        "CREATE TABLE b (id int)",
        "CREATE VIEW v AS SELECT id FROM b",
        "CREATE VIEW w AS SELECT id FROM v",
    ],
    &[
        "DROP TABLE IF EXISTS b CASCADE",
        "CREATE TABLE b (id int PRIMARY KEY)",
        "CREATE INDEX b_id ON b (id)",
        "CREATE VIEW v AS SELECT id FROM b",
        "CREATE MATERIALIZED VIEW w AS SELECT id FROM v",
        "CREATE INDEX w_id ON w (id)",
        "CREATE TABLE c (b_id int CONSTRAINT to_b REFERENCES b)",
        "ALTER TABLE c ADD CONSTRAINT again_to_b FOREIGN KEY (b_id) REFERENCES b",
    ],
    &[
        "DROP TABLE IF EXISTS b, a",
        "CREATE TABLE a (id int PRIMARY KEY)",
        "CREATE TABLE b (id int REFERENCES a)",
    ],
    &[
        "DROP TYPE IF EXISTS mood",
        "CREATE TYPE mood AS ENUM ('good')",
        "CREATE TABLE t (m mood)",
    ],
    &["DROP TYPE IF EXISTS mood", "CREATE TYPE mood AS ENUM ('good')"],
    &[
        "DROP FUNCTION IF EXISTS touch()",
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TABLE t (id int)",
        "DROP TRIGGER IF EXISTS g ON t",
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch()",
    ],
    &[
        "DROP SCHEMA IF EXISTS s",
        "CREATE SCHEMA s",
        "CREATE TABLE s.t (id int)",
    ],
    &[
        "DROP SCHEMA IF EXISTS s CASCADE",
        "CREATE SCHEMA s",
        "CREATE TABLE s.t (id int)",
        "CREATE INDEX i ON s.t (id)",
    ],
    &[
        "DROP TABLE IF EXISTS m",
        "CREATE TABLE m (id int) PARTITION BY LIST (id)",
        "CREATE TABLE m_1 PARTITION OF m FOR VALUES IN (1)",
        "CREATE TABLE m_2 (id int)",
        "ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES IN (2)",
        "CREATE INDEX m_id ON m (id)",
    ],
    &[
        "CREATE TABLE m (id int) PARTITION BY LIST (id)",
        "CREATE TABLE m_2 (id int)",
        "ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES IN (2)",
        "ALTER TABLE m DETACH PARTITION m_2",
        "ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES IN (3)",
    ],
    &[
        "CREATE TABLE p (id int)",
        "CREATE TABLE h (id int)",
        "ALTER TABLE h INHERIT p",
        "ALTER TABLE h NO INHERIT p",
    ],
    &[
        "CREATE TABLE t (id int)",
        "ALTER TABLE t DROP COLUMN IF EXISTS c",
        "ALTER TABLE t ADD COLUMN c int",
        "CREATE VIEW v AS SELECT c FROM t",
    ],
    &[
        "CREATE TABLE t (id int)",
        "ALTER TABLE t DROP COLUMN IF EXISTS c CASCADE",
        "ALTER TABLE t ADD COLUMN c int",
        "CREATE INDEX t_c ON t (c)",
        "CREATE VIEW v AS SELECT c FROM t",
    ],
    &[
        "DROP SEQUENCE IF EXISTS s",
        "CREATE SEQUENCE s",
        "CREATE TABLE t (id int DEFAULT nextval('s'))",
    ],
    &[
        "CREATE TABLE t (id int CONSTRAINT t_key PRIMARY KEY)",
        "ALTER TABLE t DROP CONSTRAINT IF EXISTS t_key",
        "ALTER TABLE t ADD CONSTRAINT t_key PRIMARY KEY (id)",
        "CREATE TABLE u (id int REFERENCES t)",
    ],
    &[
        "DROP DOMAIN IF EXISTS d",
        "CREATE DOMAIN d AS int CHECK (VALUE > 0)",
        "CREATE TABLE t (id d)",
    ],
];

#[test]
fn a_second_run_raises_what_was_foretold() {
    for statements in SCRIPTS {
        let database = database();
        let mut client = database.connect();
        let script: String = statements.iter().map(|statement| format!("{statement};\n")).collect();
        client.batch_execute(&script).unwrap();
        let told = lines(
            &mut client,
            &format!(
                "SELECT coalesce(substring(detail FROM 'running it again raises (.....)'), '-') FROM migration_status($mend${script}$mend$) WHERE step IS NOT NULL"
            ),
        );
        // As psql runs it: a statement that fails changes nothing, and the next one is run.
        let raised: Vec<String> = statements
            .iter()
            .map(|statement| match client.batch_execute(statement) {
                Ok(()) => "-".to_string(),
                Err(error) => error.code().unwrap().code().to_string(),
            })
            .collect();
        let shown: Vec<String> = statements
            .iter()
            .zip(told.iter().zip(&raised))
            .map(|(statement, (told, raised))| format!("{told} {raised}  {statement}"))
            .collect();
        assert_eq!(told, raised, "foretold, raised:\n{}", shown.join("\n"));
    }
}
