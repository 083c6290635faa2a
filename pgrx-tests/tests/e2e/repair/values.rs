//! Values of every kind come back as they were, whatever the sessions that took them and put them back have set.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

/// Types and values whose texts depend on settings, or that JSON does not have.
const VALUES: [(&str, &str); 20] = [
    ("date", "'2024-02-01'"),
    ("timestamp", "'2024-02-01 03:04:05.678901'"),
    ("timestamptz", "'2024-02-01 03:04:05.678901+05:45'"),
    ("interval", "'-1 year -2 mons +3 days -04:05:06'"),
    ("float8", "0.30000000000000004"),
    ("float4", "'-0.1'"),
    ("numeric", "123456789012345678901234567.890"),
    ("numeric(5,1)", "1234.5"),
    ("bytea", r"'\x00ff5c27'"),
    ("boolean", "true"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    ("varchar(5)", "'a ''b'"),
    ("char(5)", "'ab'"),
    ("integer[]", "'{1,NULL,3}'"),
    ("text[]", r#"'{a,"NULL",NULL,"b,c"}'"#),
    ("jsonb", r#"'"x"'"#),
    ("tstzrange", "'[2024-02-01 00:00+00,2024-03-02 00:00+00)'"),
    ("tsrange", "'[2024-02-01,2024-03-02)'"),
    ("mood", "'so so'"),
    ("pair", "'(1,2024-02-01)'"),
];

const WRITTEN_UNDER: &str =
    "SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard; SET extra_float_digits = -10;
    SET bytea_output = escape; SET timezone = 'Asia/Kolkata';";

const READ_UNDER: &str =
    "SET datestyle = 'German'; SET intervalstyle = iso_8601; SET extra_float_digits = 0; SET array_nulls = off;
    SET bytea_output = escape; SET timezone = 'America/St_Johns';";

/// A session with its defaults.
const DEFAULTS: &str = "RESET ALL";

fn contents(client: &mut Client, table: &str) -> Vec<String> {
    client.batch_execute(DEFAULTS).unwrap();
    lines(client, &format!("SELECT t::text FROM {table} AS t ORDER BY 1"))
}

#[test]
fn every_kind_of_value_and_key_is_put_back_whatever_the_session_has_set() {
    let (_database, mut client) = database_with(
        "CREATE TYPE mood AS ENUM ('glad', 'so so'); CREATE TYPE pair AS (a int, b date);
         CREATE FUNCTION day_of(text) RETURNS text LANGUAGE sql AS 'SELECT $1';",
    );
    for (at, (kind, value)) in VALUES.iter().enumerate() {
        // Columns are called like the aliases that statements use.
        let schema = format!(
            "CREATE TABLE p{at} (id {kind} PRIMARY KEY);
             CREATE TABLE c{at} (id {kind} PRIMARY KEY, t text, kept int, old_values {kind});
             INSERT INTO c{at} VALUES ({value}, 'x', 1, {value});
             ALTER TABLE c{at} ADD CONSTRAINT reference FOREIGN KEY (old_values) REFERENCES p{at} NOT VALID"
        );
        client.batch_execute(&schema).unwrap();
        let before = contents(&mut client, &format!("c{at}"));
        client.batch_execute(WRITTEN_UNDER).unwrap();
        for action in ["nullify", "quarantine"] {
            let call = |dry: bool| {
                format!(
                    "SELECT violations, repaired FROM repair_orphans('c{at}', 'old_values', '{action}', dry_run => {dry})"
                )
            };
            let dry = one(&mut client, &call(true));
            assert_eq!(
                (dry.as_str(), &one(&mut client, &call(false))),
                ("1|1", &dry),
                "{kind} {action}"
            );
            let run = one(&mut client, "SELECT max(run_id) FROM mend.runs");
            client
                .batch_execute(&format!("ALTER TABLE c{at} DROP CONSTRAINT reference; {READ_UNDER}"))
                .unwrap();
            let restored = |dry: bool| format!("SELECT total, restored FROM restore_repaired({run}, {dry})");
            let dry = one(&mut client, &restored(true));
            assert_eq!(
                (dry.as_str(), &one(&mut client, &restored(false))),
                ("1|1", &dry),
                "{kind} {action}"
            );
            assert_eq!(contents(&mut client, &format!("c{at}")), before, "{kind} {action}");
            client
                .batch_execute(&format!(
                    "ALTER TABLE c{at} ADD CONSTRAINT reference FOREIGN KEY (old_values) REFERENCES p{at} NOT VALID; {WRITTEN_UNDER}"
                ))
                .unwrap();
        }
    }
}

/// What the caller types is read as the caller has it set, also where the texts that we write are exact.
#[test]
fn what_a_caller_types_is_read_under_the_callers_settings() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY);
         CREATE TABLE p (id int PRIMARY KEY, tenant_id int REFERENCES tenants, since date);
         CREATE TABLE c (id int PRIMARY KEY, tenant_id int REFERENCES tenants, p_id int, d date);
         CREATE TABLE log (line text);
         CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.d::text); RETURN NEW; END $$;
         CREATE TRIGGER noted BEFORE UPDATE OF tenant_id ON c FOR EACH ROW EXECUTE FUNCTION noted();
         INSERT INTO tenants VALUES (1);
         INSERT INTO c VALUES (1, 1, 7, '2024-02-01'), (2, 1, 8, '2024-01-02');
         ALTER TABLE c ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID;
         SET datestyle = 'SQL, DMY'",
    );
    let call = |dry: bool| {
        format!(
            "SELECT violations, repaired, created FROM repair_orphans('c', 'p_id', 'create_parent', dry_run => {dry},
               set => '{{\"since\": \"03/04/2024\"}}', only_where => $$d = '01/02/2024'$$)"
        )
    };
    assert_eq!(one(&mut client, &call(true)), "1|1|1");
    assert_eq!(one(&mut client, &call(false)), "1|1|1");
    client
        .batch_execute("UPDATE c SET tenant_id = NULL WHERE id = 1; DELETE FROM log")
        .unwrap();
    let call = "SELECT filled FROM backfill('c', 'tenant_id', ARRAY['p_id -> p.tenant_id'], false, only_where => $$d = '01/02/2024'$$)";
    assert_eq!(one(&mut client, call), "1");
    // A trigger sees the settings that it would see in any UPDATE of this session.
    assert_eq!(lines(&mut client, "SELECT line FROM log"), ["01/02/2024"]);
    client.batch_execute("RESET datestyle").unwrap();
    assert_eq!(lines(&mut client, "SELECT id, since FROM p"), ["7|2024-04-03"]);
}

/// What was overwritten is kept as exactly.
#[test]
fn replaced_values_are_kept_exactly() {
    let (_database, mut client) = database_with(
        "CREATE TABLE source (id int PRIMARY KEY, d date, f float8);
         CREATE TABLE target (id int PRIMARY KEY, source_id int REFERENCES source, d date, f float8);
         INSERT INTO source VALUES (1, '2024-08-07', 0.5);
         INSERT INTO target VALUES (1, 1, '2024-02-01', 0.30000000000000004);
         SET datestyle = 'SQL, DMY'; SET extra_float_digits = -10",
    );
    for column in ["d", "f"] {
        let call = format!(
            "SELECT filled FROM backfill('target', '{column}', ARRAY['source_id -> source.{column}'], false, overwrite => 'mismatched')"
        );
        assert_eq!(one(&mut client, &call), "1");
    }
    assert_eq!(
        lines(
            &mut client,
            "SELECT old_value, new_value FROM mend.replaced_values ORDER BY 1"
        ),
        ["0.30000000000000004|0.5", "2024-02-01|2024-08-07"]
    );
}

/// Two rows that each could have their value again, but not both: a unique index says so by its condition or expression.
#[test]
fn rows_that_collide_with_each_other_are_foretold() {
    for index in [
        "CREATE UNIQUE INDEX collide ON c (grp) WHERE p_id > 5",
        "CREATE UNIQUE INDEX collide ON c ((grp + p_id / 100))",
        "CREATE UNIQUE INDEX collide ON c (grp, (p_id > 5))",
    ] {
        let (_database, mut client) = database_with(
            "CREATE TABLE p (id int PRIMARY KEY);
             CREATE TABLE c (id int PRIMARY KEY, grp int, p_id int);
             INSERT INTO c VALUES (1, 1, 7), (2, 1, 8), (3, 2, 9);
             ALTER TABLE c ADD CONSTRAINT reference FOREIGN KEY (p_id) REFERENCES p NOT VALID;
             SELECT FROM repair_orphans('c', 'p_id', 'nullify', dry_run => false);
             ALTER TABLE c DROP CONSTRAINT reference",
        );
        client.batch_execute(index).unwrap();
        let call = |dry: bool| format!("SELECT total, restored, unrestored, reasons FROM restore_repaired(1, {dry})");
        let dry = one(&mut client, &call(true));
        assert_eq!(dry, r#"3|1|2|{"constraint_failed": 2}"#, "{index}");
        assert_eq!(one(&mut client, &call(false)), dry, "{index}");
        assert_eq!(
            lines(&mut client, "SELECT id, p_id FROM c ORDER BY id"),
            ["1|-", "2|-", "3|9"]
        );
    }
}

/// What becomes of a placeholder is judged, not the placeholder.
#[test]
fn placeholders_are_judged_by_what_they_become() {
    let schema = "
        CREATE TABLE p (id int PRIMARY KEY, n varchar(8), code varchar(6) NOT NULL DEFAULT '', same int, CHECK (same < 50));
        CREATE TABLE c (id int PRIMARY KEY, p_id int);
        INSERT INTO c VALUES (1, 1), (2, 1000000000), (3, 60), (4, 60);
        ALTER TABLE c ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID";
    let cases = [
        (r#"{"n": "Rec {key}"}"#, r#"4|3|2|{"constraint_failed": 1}"#),
        (r#"{"code": "key-{key}"}"#, r#"4|3|2|{"constraint_failed": 1}"#),
        (r#"{"same": "{key}"}"#, r#"4|1|1|{"constraint_failed": 3}"#),
    ];
    for (set, expected) in cases {
        let (_database, mut client) = database_with(schema);
        let call = |dry: bool| {
            format!(
                "SELECT violations, repaired, created, reasons FROM repair_orphans('c', 'p_id', 'create_parent', set => '{set}', dry_run => {dry})"
            )
        };
        let dry = one(&mut client, &call(true));
        assert_eq!(dry, expected, "{set}");
        assert_eq!(one(&mut client, &call(false)), dry, "{set}");
    }
}

/// Values that the parent's key does not tell apart are one parent.
#[test]
fn keys_are_grouped_as_the_parent_compares_them() {
    let (_database, mut client) = database_with(
        "CREATE TABLE p (id char(3) PRIMARY KEY);
         CREATE TABLE c (id int PRIMARY KEY, p_id text);
         INSERT INTO c VALUES (1, 'ab '), (2, 'ab'), (3, 'cd');
         ALTER TABLE c ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID",
    );
    let call = |dry: bool| {
        format!(
            "SELECT violations, repaired, created FROM repair_orphans('c', 'p_id', 'create_parent', dry_run => {dry})"
        )
    };
    let dry = one(&mut client, &call(true));
    assert_eq!(dry, "3|3|2");
    assert_eq!(one(&mut client, &call(false)), dry);
}

/// A condition that looks at values as texts finds what the same condition finds in any SELECT of the session, dry and real.
#[test]
fn conditions_see_values_as_the_session_does() {
    let (_database, mut client) = database_with(
        "CREATE TABLE p (id int PRIMARY KEY, v int); INSERT INTO p SELECT g, g * 10 FROM generate_series(1, 4) g;
         CREATE TABLE t (id int PRIMARY KEY, p_id int REFERENCES p, v int, d date);
         INSERT INTO t SELECT g, g, NULL, '2020-03-02' FROM generate_series(1, 4) g;
         SET datestyle = 'German'",
    );
    for (condition, rows) in [("d::text = ''02.03.2020''", "4"), ("d::text = ''2020-03-02''", "0")] {
        let call = |dry: bool| {
            format!("SELECT filled FROM backfill('t', 'v', ARRAY['p_id -> p.v'], {dry}, only_where => '{condition}')")
        };
        assert_eq!(one(&mut client, &call(true)), rows, "{condition}");
        assert_eq!(one(&mut client, &call(false)), rows, "{condition}");
        client.batch_execute("UPDATE t SET v = NULL").unwrap();
        // Where old values are kept in the same statement, it is refused.
        client.batch_execute("UPDATE t SET v = 1").unwrap();
        for dry in [true, false] {
            let call = format!(
                "SELECT * FROM backfill('t', 'v', ARRAY['p_id -> p.v'], {dry}, only_where => '{condition}', overwrite => 'mismatched')"
            );
            let failed = failure(&mut client, &call);
            assert_eq!(
                (failed.code.as_str(), failed.hint.as_str()),
                ("0A000", "RESET datestyle, for this call")
            );
        }
        client.batch_execute("UPDATE t SET v = NULL").unwrap();
    }
}
