//! Types of others: their domains, casts and constants are not asked with the caller's rights; their values are shown as they are.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};

use super::{Listener, role};

/// What a hostile tester found, again. Each call is refused or does without; the canary is silent.
#[test]
fn texts_and_constants_of_others_types_are_not_read_with_the_callers_rights() {
    let (database, mut admin) = database_with("");
    let (hostile, app, low) = (
        role(&database, "att", ""),
        role(&database, "app", ""),
        role(&database, "low", ""),
    );
    admin
        .batch_execute(&format!(
            "SELECT grant_mend('{hostile}'), grant_mend('{app}'), grant_mend('{low}');
             CREATE SCHEMA att AUTHORIZATION {hostile}; CREATE SCHEMA app AUTHORIZATION {app}; CREATE SCHEMA low AUTHORIZATION {low};
             SET ROLE {hostile}; {}
             CREATE DOMAIN att.d AS int CHECK (att.yes('domain', VALUE)); CREATE TYPE att.key AS (x att.d);
             CREATE TABLE att.t (id int PRIMARY KEY, tags att.d[], k att.key, p_id int REFERENCES att.p, v int);
             CREATE TABLE att.c (id int PRIMARY KEY, p_id int REFERENCES att.p, v int,
                                 CHECK (v IS NULL OR cardinality('{{1}}'::att.d[]) > 0));
             INSERT INTO att.c VALUES (1, 1, NULL); INSERT INTO att.t VALUES (1, NULL, NULL, 1, NULL);
             CREATE TABLE att.keyed (id att.key PRIMARY KEY); CREATE TABLE att.of_key (id int PRIMARY KEY, keyed_id att.key REFERENCES att.keyed);
             CREATE TABLE att.wide (id int PRIMARY KEY, arr att.d[]); CREATE TABLE att.low (id int PRIMARY KEY, wide_id int);
             INSERT INTO att.low VALUES (1, 7);
             RESET ROLE",
            super::hooks::SHARED
        ))
        .unwrap();
    let mut listener = Listener::connect(&database, "postgres");
    for call in [
        "SELECT * FROM migration_status($$ALTER TABLE att.t ALTER tags SET DEFAULT '{1}'$$)",
        "SELECT * FROM migration_status($$ALTER TABLE att.t ADD CHECK (k <> '(1)')$$)",
        "SELECT * FROM migration_reset($$ALTER TABLE att.t ALTER tags SET DEFAULT '{1}'$$)",
        "SELECT * FROM backfill_tenant_ids('att.keyed', tenant => '(1)')",
        "SELECT declare_reference('att.low', 'wide_id', 'att.wide(id)')",
        "SELECT * FROM repair_orphans('att.low', 'wide_id', 'create_parent', root => '', set => '{\"arr\": [1]}')",
        "SELECT * FROM backfill('att.t', 'v', ARRAY['p_id -> att.p.tenant_id'])",
        "SELECT * FROM backfill('att.c', 'v', ARRAY['p_id -> att.p.tenant_id'])",
        "SELECT * FROM repair_orphans('att.c', 'p_id', 'nullify', root => '')",
    ] {
        for (hook, by, restricted) in listener.hear(call).1 {
            assert!(by == hostile && restricted, "{hook} runs as {by}: {call}");
        }
    }
    // Nor does a caller get its own code run as the owner: by a constant of its own type, or by a table of its own.
    admin
        .batch_execute(&format!(
            "SET ROLE {app}; CREATE FUNCTION app.ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
             CREATE TABLE app.t (id int PRIMARY KEY, ref int, v int CHECK (app.ok(v))); INSERT INTO app.t VALUES (1, 1); GRANT SELECT ON app.t TO {low};
             GRANT USAGE ON SCHEMA app TO {low}; RESET ROLE;
             SET ROLE {low}; CREATE FUNCTION low.steal(text, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
               $f$ BEGIN RAISE WARNING 'canary|%|%|f', $1, current_user; RETURN 1; END $f$;
             CREATE DOMAIN low.dom AS int CHECK (low.steal('constant', VALUE) = 1);
             CREATE TABLE low.s (id int PRIMARY KEY, v int); INSERT INTO low.s VALUES (1, 1); CREATE INDEX ON low.s ((low.steal('index', 1)));
             GRANT USAGE ON SCHEMA low TO PUBLIC; GRANT SELECT ON low.s TO PUBLIC; RESET ROLE"
        ))
        .unwrap();
    let mut listener = Listener::connect(&database, &low);
    for (arguments, refused) in [
        (
            "ARRAY['ref'], only_where => $$cardinality('{1}'::low.dom[]) > 0$$",
            true,
        ),
        ("ARRAY['ref -> low.s.v']", true),
        ("ARRAY['ref']", false),
    ] {
        let (failed, songs) = listener.hear(&format!("SELECT * FROM backfill('app.t', 'v', {arguments})"));
        assert_eq!(
            failed.map(|(code, _)| code),
            refused.then(|| "42501".into()),
            "{arguments}"
        );
        for (hook, by, _) in songs {
            assert_eq!(by, low, "{hook}: {arguments}");
        }
    }
    drop(listener);
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att, app, low CASCADE; DROP OWNED BY {hostile}, {app}, {low}; DROP ROLE {hostile}, {app}, {low}"
        ))
        .unwrap();
}

/// A cast of a user's type to a number is not run to see how far a sequence is; a script cannot stack casts until the server falls.
#[test]
fn sequences_are_looked_at_behind_integers_only_and_casts_may_be_as_many_as_they_like() {
    let (database, mut admin) = database_with("");
    let hostile = role(&database, "att", "");
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA att AUTHORIZATION {hostile}; SET ROLE {hostile}; {} CREATE TYPE att.e AS ENUM ('a', 'b');
             CREATE FUNCTION att.big(att.e) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM att.canary('cast'); RETURN 1; END $$;
             CREATE CAST (att.e AS bigint) WITH FUNCTION att.big(att.e);
             CREATE TABLE att.par (k att.e PRIMARY KEY); CREATE SEQUENCE att.s OWNED BY att.par.k;
             CREATE TABLE att.chi (id int PRIMARY KEY, e att.e); INSERT INTO att.chi VALUES (1, 'b');
             ALTER TABLE att.chi ADD FOREIGN KEY (e) REFERENCES att.par NOT VALID; RESET ROLE",
            super::hooks::SHARED
        ))
        .unwrap();
    let mut listener = Listener::connect(&database, "postgres");
    let (failed, songs) =
        listener.hear("SELECT * FROM repair_orphans('att.chi', 'e', 'create_parent', dry_run => false, root => '')");
    assert!(failed.is_none() && songs.is_empty(), "{failed:?} {songs:?}");
    drop(listener);
    let casts = "::text".repeat(1_000_000);
    let deep = format!(
        "SELECT count(*) FROM migration_status($$SELECT pg_catalog.set_config('search_path', 'a'{casts}, false)$$)"
    );
    let _ = admin.simple_query(&deep);
    assert_eq!(one(&mut admin, "SELECT 1"), "1", "the server is there");
    let failed = failure(&mut admin, "SELECT * FROM undo_run(-1)");
    assert_eq!(failed.code, "42704");
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
        ))
        .unwrap();
}

#[test]
fn keys_are_shown_as_they_are() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let (_database, mut client) = database_with(&format!(
        "CREATE TABLE p (id int PRIMARY KEY, v int); INSERT INTO p VALUES (1, NULL);
         CREATE TABLE n (id numeric PRIMARY KEY, p_id int, v int); INSERT INTO n VALUES (123456789012345678901234567, 7), (1e310, 7), (0.10, 7);
         ALTER TABLE n ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID;
         CREATE TABLE j (id jsonb PRIMARY KEY, p_id int, v int); INSERT INTO j VALUES ('{deep}', 7);
         ALTER TABLE j ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID;
         CREATE TYPE e AS ENUM ('a', 'it''s'); CREATE TABLE k (id e PRIMARY KEY, p_id int, v int); INSERT INTO k VALUES ('it''s', 7);
         ALTER TABLE k ADD FOREIGN KEY (p_id) REFERENCES p NOT VALID"
    ));
    // What JSON does not have as the type does is shown as the type writes it.
    for (table, shown) in [("n", "id"), ("j", "id::text"), ("k", "id")] {
        let keys = format!(
            "SELECT key = jsonb_build_object('id', {shown}) FROM backfill_unfilled('{table}', 'v', ARRAY['p_id -> p.v']) u JOIN {table} t ON u.key -> 'id' = to_jsonb({shown})"
        );
        let count = one(&mut client, &format!("SELECT count(*) FROM {table}"));
        assert_eq!(lines(&mut client, &keys).len().to_string(), count, "{table}");
        let sample = format!(
            "SELECT sample -> 'orphans' = (SELECT jsonb_agg(jsonb_build_object('id', {shown}) ORDER BY id) FROM {table}) FROM validate_tenant_fks('', '{table}') WHERE table_name = '{table}'"
        );
        assert_eq!(one(&mut client, &sample), "t", "{table}");
    }
    let failed = failure(&mut client, &format!("SELECT * FROM backfill('{deep}'::jsonb)"));
    assert_eq!(
        (failed.code.as_str(), failed.hint.is_empty()),
        ("54001", false),
        "{failed:?}"
    );
}
