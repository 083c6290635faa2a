//! Migration scripts: what they did, would do, and how to take back the half.

mod again;
mod corpus;
mod differs;
mod generate;
mod history;
mod property;
mod rehearse;
mod reset;
mod root;
mod values;

use pgrx_tests::example::{failure, lines, load_ascora, one};
use pgrx_tests::{database, database_with};
use postgres::Client;

/// State, object, detail of each step.
fn status(client: &mut Client, script: &str) -> Vec<String> {
    lines(
        client,
        &format!("SELECT state, object, detail FROM migration_status($mend${script}$mend$)"),
    )
}

/// State of each step.
fn states(client: &mut Client, script: &str) -> Vec<String> {
    let all = status(client, script);
    all.iter()
        .map(|line| line.split('|').next().unwrap().to_string())
        .collect()
}

#[test]
fn the_missing_organizations_are_said_and_a_second_run_after_success_is_no_failure() {
    let database = database();
    let mut client = database.connect();
    load_ascora(&mut client);
    let script = |name: &str| format!("migration_status((SELECT script FROM scripts WHERE name = '{name}'))");
    let before = lines(
        &mut client,
        &format!(
            "SELECT state, count(*) FROM {} WHERE step IS NOT NULL GROUP BY 1 ORDER BY 1",
            script("006_ascora_integration.sql")
        ),
    );
    assert_eq!(before, ["blocked|16", "missing|1"]);
    for name in ["005_organizations.sql", "006_ascora_integration.sql"] {
        let text = one(
            &mut client,
            &format!("SELECT script FROM scripts WHERE name = '{name}'"),
        );
        client.batch_execute(&text).unwrap();
    }
    let summary = one(
        &mut client,
        &format!(
            "SELECT state, detail FROM {} WHERE step IS NULL",
            script("006_ascora_integration.sql")
        ),
    );
    assert!(
        summary.starts_with("complete, fails again|17 of 17 steps are there; run again, it stops at step 7 (line 67, CREATE INDEX idx_ascora_org) with 42P07"),
        "{summary}"
    );
    // In a transaction that writes nothing, and without rights on the tables but their names.
    client
        .batch_execute("CREATE ROLE looks; SELECT grant_mend('looks'); GRANT SELECT ON scripts TO looks")
        .unwrap();
    client.batch_execute("BEGIN READ ONLY; SET LOCAL ROLE looks").unwrap();
    let seen = lines(
        &mut client,
        &format!(
            "SELECT state, count(*), count(rows) FROM {} WHERE step IS NOT NULL GROUP BY 1 ORDER BY 1",
            script("006_ascora_integration.sql")
        ),
    );
    client
        .batch_execute("ROLLBACK; DROP OWNED BY looks; DROP ROLE looks")
        .unwrap();
    assert_eq!(seen, ["present|9|0", "would_fail|8|0"]);
}

#[test]
fn what_differs_is_said_with_the_difference() {
    let (_database, mut client) = database_with(
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(20), amount numeric DEFAULT 1, old text);
         CREATE INDEX t_name ON t (name);
         CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
         CREATE TYPE mood AS ENUM ('bad', 'good');
         CREATE VIEW v AS SELECT id FROM t;
         CREATE TABLE w (id int);
         ALTER TABLE t ADD CONSTRAINT positive CHECK (amount > 0) NOT VALID;
         CREATE POLICY p ON t FOR SELECT USING (id > 1);
         COMMENT ON TABLE t IS 'a table'",
    );
    let script = "CREATE TABLE IF NOT EXISTS t (id bigint PRIMARY KEY, name varchar(30) NOT NULL, amount numeric DEFAULT 2, missing text);
        CREATE INDEX IF NOT EXISTS t_name ON t (lower(name)) WHERE amount > 0;
        CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 2';
        CREATE TYPE mood AS ENUM ('good', 'bad');
        CREATE VIEW v AS SELECT id + 1 AS id FROM t;
        CREATE VIEW w AS SELECT 1;
        ALTER TABLE t ADD CONSTRAINT positive CHECK (amount > 0);
        CREATE POLICY p ON t FOR UPDATE USING (id > 1);
        COMMENT ON TABLE t IS 'another';
        ALTER TABLE t ALTER COLUMN old SET NOT NULL;
        DROP TABLE w";
    let got = status(&mut client, script);
    let expected = [
        (
            "differs",
            "column id: the type is integer, written is pg_catalog.int8; column name: the type is character varying(20), written is pg_catalog.varchar",
        ),
        ("differs", "it is CREATE INDEX t_name ON public.t USING btree (name)"),
        ("differs", "its body is another"),
        ("differs", "the order is"),
        ("differs", "its query is SELECT"),
        ("differs", "it is a table"),
        ("differs", "constraint positive: it is NOT VALID"),
        ("differs", "the command is 'r', written is 'w'"),
        ("missing", ""),
        ("missing", ""),
        ("missing", ""),
    ];
    for (line, (state, detail)) in got.iter().zip(expected) {
        assert!(
            line.starts_with(state) && line.contains(detail),
            "{line}\nexpected {state}: {detail}"
        );
    }
    for part in [
        "column name: it is nullable, written is NOT NULL",
        "column amount: the default is 1, written is 2",
        "column t.missing is missing",
        "IF NOT EXISTS",
    ] {
        assert!(got[0].contains(part), "{}", got[0]);
    }
    // Nobody's tampering is overlooked, nor is what was put back.
    client.batch_execute("ALTER TABLE t ADD CONSTRAINT u UNIQUE (name); CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()").unwrap();
    let small = "ALTER TABLE t ADD CONSTRAINT u UNIQUE (name); CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()";
    assert_eq!(
        states(&mut client, small),
        ["would_fail", "would_fail", "complete, fails again"]
    );
    client
        .batch_execute(
            "ALTER TABLE t DISABLE TRIGGER g; ALTER TABLE t DROP CONSTRAINT u, ADD CONSTRAINT u UNIQUE (id, name)",
        )
        .unwrap();
    assert_eq!(states(&mut client, small), ["differs", "differs", "partial"]);
}

#[test]
fn what_cannot_be_told_is_said_and_never_guessed() {
    let (_database, mut client) = database_with("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 7)");
    let script = "\\set ON_ERROR_STOP on\nBEGIN;\nSET statement_timeout = 0;\nINSERT INTO t VALUES (8);\nDO $$ BEGIN EXECUTE 'DROP TABLE t'; END $$;\n\
                  CALL something();\nCOPY t FROM stdin;\n1\n2\n\\.\nCREATE STATISTICS s ON id, id FROM t;\nCREATE TEMPORARY TABLE tmp (a int);\nALTER TABLE tmp ADD b int;\n\
                  CREATE TABLE u (id int REFERENCES nowhere);\nCREATE INDEX ON u (id);\nCREATE TABLE x (a no_such_type);\nCREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing();\nCOMMIT;";
    let got = lines(
        &mut client,
        &format!("SELECT line, kind, state, rows FROM migration_status($mend${script}$mend$) WHERE step IS NOT NULL"),
    );
    assert_eq!(
        got,
        [
            "1|\\set|skipped|-",
            "2|BEGIN|skipped|-",
            "3|SET|skipped|-",
            "4|INSERT|data|7",
            "5|DO|opaque|-",
            "6|CALL|opaque|-",
            "7|COPY|data|7",
            "11|CREATE STATISTICS|opaque|-",
            "12|CREATE TABLE|skipped|-",
            "13|ALTER TABLE|skipped|-",
            "14|CREATE TABLE|missing|-",
            "15|CREATE INDEX|missing|-",
            "16|CREATE TABLE|missing|-",
            "17|CREATE TRIGGER|missing|-",
            "18|COMMIT|skipped|-",
        ]
    );
    assert_eq!(
        states(&mut client, "SELECT 1; INSERT INTO t VALUES (1)")
            .last()
            .unwrap(),
        "unknown"
    );
}

#[test]
fn bad_input_is_a_clear_error() {
    let (_database, mut client) = database_with("CREATE TABLE t (id int)");
    let cases: [(&str, &str, &str); 9] = [
        ("", "22023", "no statement"),
        ("-- nothing\n/* at all */ ;;", "22023", "no statement"),
        (
            "SELECT 1;\n  SELEC 2;",
            "42601",
            "line 2, column 3: syntax error at or near \"SELEC\"",
        ),
        (
            "CREATE TABLE ü (a int);\n\n\tCREATE TABLE x (a int,, b int)",
            "42601",
            "line 3, column 24: syntax error at or near \",\"",
        ),
        ("SELECT 'abc", "42601", "line 1, column 8: unterminated quoted string"),
        (
            "CREATE TABLE `t` (id INT AUTO_INCREMENT) ENGINE=InnoDB",
            "42601",
            "line 1, column 14",
        ),
        ("DECLARE @x INT;\nGO", "42601", "line 1"),
        ("\u{1}\u{2}\u{7f}", "42601", "line 1, column 1"),
        ("CREATE TABLE a (x int)); DROP TABLE t", "42601", "line 1, column 23"),
    ];
    for (script, code, message) in cases {
        for call in ["migration_status", "migration_rehearse", "migration_reset"] {
            let failed = failure(&mut client, &format!("SELECT * FROM {call}($mend${script}$mend$)"));
            assert_eq!(failed.code, code, "{script}: {failed:?}");
            assert!(
                failed.message.contains(message) && !failed.hint.is_empty(),
                "{script}: {failed:?}"
            );
        }
    }
    assert_eq!(
        failure(&mut client, "SELECT * FROM migration_status(NULL)").code,
        "22004"
    );
    assert_eq!(
        failure(
            &mut client,
            "SELECT * FROM migration_status(repeat('SELECT 1; ', 7000000))"
        )
        .code,
        "54000"
    );
    // A dump of 20 MB of rows is read, not refused.
    let dump = "SELECT state, count(*) FROM migration_status('CREATE TABLE t (id int);' || (SELECT string_agg('INSERT INTO t VALUES (1, ''' || repeat('x', 2000) || ''');', '') FROM generate_series(1, 10000))) GROUP BY 1 ORDER BY 2";
    assert_eq!(
        lines(&mut client, dump),
        ["would_fail|1", "complete, fails again|1", "data|10000"]
    );
}

#[test]
fn names_quotes_paths_and_hostile_operators() {
    let (_database, mut client) = database_with(
        "CREATE SCHEMA evil; CREATE SCHEMA \"Odd, schema\";
         CREATE FUNCTION evil.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
         CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.eq);
         CREATE FUNCTION evil.eq(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
         CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.eq);
         CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
         CREATE FUNCTION evil.count() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$",
    );
    client
        .batch_execute("SET search_path = evil, pg_catalog, public")
        .unwrap();
    let script = "CREATE TABLE \"Odd, schema\".\"T;'1\" (\"a \"\"b\" int PRIMARY KEY CHECK (\"a \"\"b\" OPERATOR(pg_catalog.>) 0));
                  CREATE INDEX \"i $$\" ON \"Odd, schema\".\"T;'1\" ((\"a \"\"b\" OPERATOR(pg_catalog.+) 1));
                  SET search_path = \"Odd, schema\"; CREATE VIEW \"v.1\" AS SELECT \"a \"\"b\" AS x FROM \"T;'1\"";
    let call = |function: &str| {
        format!(
            "SELECT pg_catalog.count(*), pg_catalog.string_agg(DISTINCT state, ',') FROM public.{function}($mend${script}$mend$) WHERE step OPERATOR(pg_catalog.>) 0"
        )
    };
    assert_eq!(one(&mut client, &call("migration_status")), "4|missing,skipped");
    assert_eq!(
        one(
            &mut client,
            &format!("SELECT pg_catalog.count(sqlstate) FROM public.migration_rehearse($mend${script}$mend$)")
        ),
        "0"
    );
    client.batch_execute(script).unwrap();
    client
        .batch_execute("SET search_path = evil, pg_catalog, public")
        .unwrap();
    assert_eq!(one(&mut client, &call("migration_status")), "4|skipped,would_fail");
    assert_eq!(
        lines(
            &mut client,
            &format!(
                "SELECT statement FROM public.migration_reset($mend${script}$mend$, dry_run => false) WHERE statement IS NOT NULL"
            )
        ),
        [
            "DROP VIEW \"Odd, schema\".\"v.1\"",
            "DROP TABLE \"Odd, schema\".\"T;'1\""
        ]
    );
}

#[test]
fn things_that_lie_in_each_other_end_neither_server_nor_patience() {
    let (_database, mut client) = database_with("SELECT 1");
    for script in [
        "create index aa on bb(x); create index bb on aa(x)",
        "create index ix on ix(a)",
        "create index i on i(i) where i",
        "create table tt (a int); create index if not exists tt on tt (a)",
        "alter table x rename to y; create index y on y(a)",
        "create index i on t(a); create index j on i(a); create index i on j(a)",
        "alter index i set (fillfactor = 70); create index j on i(a); create index i on j(a); create index i on i(a)",
        "create table a (id int); alter table a rename to b; create view a as select 1; create index b on a(x); drop table b; create type a as enum ('x')",
        "grant select on t to public; revoke select on t from public; grant all on t to t",
        "create view v as select 1; create view v as select * from v",
        "create table t (id int references t); drop table t; create table t (like t)",
    ] {
        for call in [
            "migration_status($1)",
            "migration_reset($1)",
            "migration_rehearse($1)",
            "migration_drift(jsonb_build_object('a', $1))",
        ] {
            let rows: i64 = client
                .query_one(
                    &format!("SELECT count(*) FROM {}", call.replace("$1", "$1::text")),
                    &[&script],
                )
                .unwrap()
                .get(0);
            assert!(rows > 0, "{call}: {script}");
        }
    }
}

#[test]
fn a_folder_of_scripts_and_where_they_contradict_each_other() {
    let (_database, mut client) = database_with(
        "CREATE TABLE users (user_id text PRIMARY KEY, email text NOT NULL); CREATE TABLE teams (id int PRIMARY KEY, name text)",
    );
    let call = "SELECT ordinal, name, state, done, judged, detail FROM migration_drift(jsonb_build_object(
        '003_teams.sql', 'CREATE TABLE teams (id int PRIMARY KEY); ALTER TABLE teams ADD COLUMN name text; ALTER TABLE teams ADD COLUMN later text',
        '001_users.sql', 'SET search_path = nowhere; CREATE TABLE IF NOT EXISTS public.users (user_id uuid PRIMARY KEY, email text)',
        '002_users.sql', 'CREATE TABLE IF NOT EXISTS users (user_id text PRIMARY KEY, email text NOT NULL)',
        '004_jobs.sql', 'CREATE TABLE jobs (id int, team_id uuid REFERENCES teams (id))',
        '005_data.sql', 'INSERT INTO users VALUES (1)'))";
    let got = lines(&mut client, call);
    let starts = [
        "1|001_users.sql|not started|0|1",
        "2|002_users.sql|complete|1|1",
        "3|003_teams.sql|partial|2|3",
        "4|004_jobs.sql|not started|0|1",
        "5|005_data.sql|unknown|0|0",
        "-|-|contradiction|-|-|table users is made by 001_users.sql (line 1) and by 002_users.sql (line 1): user_id is uuid there and text here, email is NOT NULL in one of them only",
        "-|-|contradiction|-|-|jobs.team_id is uuid and references teams.id, which is pg_catalog.int4: 004_jobs.sql (line 1)",
        "-|-|summary|-|-|5 scripts: 1 cannot be judged, 1 half in, 1 in, 2 not in; 2 contradictions; the first that is half in is 003_teams.sql",
    ];
    for (line, start) in got.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\nexpected {start}");
    }
    assert_eq!(got.len(), starts.len(), "{got:?}");
    for (scripts, code) in [
        ("'[]'", "22023"),
        ("'{\"a\": 1}'", "22023"),
        ("'{\"a.sql\": \"SELEC\"}'", "42601"),
        ("NULL", "22004"),
    ] {
        let failed = failure(&mut client, &format!("SELECT * FROM migration_drift({scripts})"));
        assert_eq!(failed.code, code, "{failed:?}");
    }
    assert!(
        failure(&mut client, "SELECT * FROM migration_drift('{\"a.sql\": \"SELEC\"}')")
            .message
            .starts_with("a.sql: line 1")
    );
}
