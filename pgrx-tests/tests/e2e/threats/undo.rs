//! What a hostile owner can put in the way of an undo.

use pgrx_tests::database_with;
use pgrx_tests::example::one;

use super::Listener;
use super::role;

/// A run of a superuser on a table of hostile's; then hostile changes the table. Neither counting nor, as far as it goes, undoing runs
/// hostile's code as the superuser.
#[test]
fn an_undo_runs_no_code_that_came_after_the_run() {
    // (what hostile does, after which run; what a real undo runs, as an UPDATE or DELETE in plain SQL does)
    let filled = "SELECT FROM backfill('att.t', 'v', ARRAY['p_id -> att.p.tenant_id'], false)";
    let nullified = "SELECT FROM repair_orphans('att.t', 'gone_id', 'nullify', dry_run => false, root => '')";
    let created = "SELECT FROM repair_orphans('att.t', 'gone_id', 'create_parent', dry_run => false, root => '')";
    let cases: [(&str, &str, bool); 9] = [
        (filled, "ALTER TABLE att.t ADD CHECK (att.yes('check', v)) NOT VALID", true),
        (filled, "CREATE UNIQUE INDEX ON att.t ((att.num('index', v)), id)", true),
        (filled, "CREATE DOMAIN att.d AS int CHECK (att.yes('domain', VALUE)); ALTER TABLE att.t ALTER v TYPE att.d", true),
        (
            filled,
            "ALTER TABLE att.t RENAME TO t_old; CREATE FUNCTION att.xid() RETURNS xid LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('xmin'); RETURN '1'; END $$;
             CREATE VIEW att.t AS SELECT *, att.xid() AS xmin FROM att.t_old",
            false,
        ),
        (
            filled,
            "CREATE TABLE att.other (v int); CREATE RULE r AS ON UPDATE TO att.t DO INSTEAD UPDATE att.other SET v = 1 WHERE att.yes('rule', 1)",
            false,
        ),
        (
            nullified,
            "CREATE DOMAIN att.d AS int CHECK (att.yes('domain of another column', VALUE)); ALTER TABLE att.t ADD COLUMN other att.d",
            true,
        ),
        (nullified, "ALTER TABLE att.t ADD CHECK (att.yes('check', v)) NOT VALID", true),
        (
            created,
            "UPDATE att.t SET gone_id = NULL; CREATE RULE r AS ON DELETE TO att.gone DO INSTEAD SELECT att.yes('rule', 1)",
            false,
        ),
        (
            created,
            "UPDATE att.t SET gone_id = NULL; CREATE TABLE att.beside (gone_id att.e); INSERT INTO att.beside VALUES ('c');
             CREATE TYPE att.w AS (x int); CREATE FUNCTION att.w2i(att.w) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM att.canary('cast'); RETURN 7; END $$;
             CREATE CAST (att.w AS int) WITH FUNCTION att.w2i(att.w) AS IMPLICIT; CREATE TABLE att.by_cast (p att.w)",
            false,
        ),
    ];
    for (run, change, in_plain_sql) in cases {
        let (database, mut admin) = database_with("");
        let hostile = role(&database, "att", "");
        admin
            .batch_execute(&format!(
                "SELECT grant_mend('{hostile}'); CREATE SCHEMA att AUTHORIZATION {hostile}; SET ROLE {hostile}; {}
                 CREATE TYPE att.e AS ENUM ('a', 'b', 'c');
                 CREATE TABLE att.gone (id att.e PRIMARY KEY);
                 CREATE TABLE att.t (id int PRIMARY KEY, p_id int REFERENCES att.p, v int, gone_id att.e);
                 INSERT INTO att.t VALUES (1, 1, NULL, 'a'), (2, 2, NULL, 'b');
                 ALTER TABLE att.t ADD FOREIGN KEY (gone_id) REFERENCES att.gone NOT VALID; RESET ROLE",
                super::hooks::SHARED
            ))
            .unwrap();
        admin.batch_execute(run).unwrap();
        admin
            .batch_execute(&format!("SET ROLE {hostile}; {change}; RESET ROLE"))
            .unwrap();
        let mut listener = Listener::connect(&database, "postgres");
        for (call, plain) in [
            ("SELECT * FROM undo_run(1)", false),
            ("SELECT * FROM undo_run(1, false)", in_plain_sql),
        ] {
            let (failed, songs) = listener.hear(call);
            for (hook, by, restricted) in songs {
                assert!(
                    plain || by == hostile && restricted,
                    "{hook} runs as {by}: {call}: {change}"
                );
            }
            if let Some((code, message)) = failed {
                assert!(
                    !matches!(code.as_str(), "XX000" | "42601" | "42883" | "42P01"),
                    "{code} {message}: {change}"
                );
            }
        }
        drop(listener);
        admin
            .batch_execute(&format!(
                "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
            ))
            .unwrap();
    }
}

/// A foreign key that deletes along, with rows that came meanwhile; tables of strangers that are only named so.
#[test]
fn an_undo_of_new_rows_takes_nobody_elses_rows_along() {
    let (database, mut admin) = database_with(
        "CREATE TABLE pa (id int PRIMARY KEY); CREATE TABLE ch (id int PRIMARY KEY, pa_id int);
         INSERT INTO ch VALUES (1, 7), (2, 8); ALTER TABLE ch ADD FOREIGN KEY (pa_id) REFERENCES pa ON DELETE CASCADE NOT VALID;
         SELECT FROM repair_orphans('ch', 'pa_id', 'create_parent', dry_run => false, root => ''); DELETE FROM ch",
    );
    let stranger = role(&database, "stranger", "");
    admin
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {stranger}; SET ROLE {stranger};
             CREATE TABLE public.zz (id int PRIMARY KEY, pa_id int); INSERT INTO public.zz VALUES (1, 7), (2, 8); RESET ROLE"
        ))
        .unwrap();
    // A superuser trusts nobody but itself and other superusers: what a stranger's column is called says nothing.
    let mut writer = database.connect();
    writer.batch_execute("BEGIN; INSERT INTO ch VALUES (3, 7)").unwrap();
    let mut undoing = database.connect();
    let pid = one(&mut undoing, "SELECT pg_backend_pid()");
    let running =
        std::thread::spawn(move || one(&mut undoing, "SELECT total, undone, reasons FROM undo_run(1, false)"));
    while one(&mut admin, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) == "0" {
        assert!(!running.is_finished(), "it did not wait");
        std::thread::yield_now();
    }
    writer.batch_execute("COMMIT").unwrap();
    assert_eq!(running.join().unwrap(), r#"2|1|{"referenced": 1}"#);
    assert_eq!(
        one(&mut admin, "SELECT count(*) FROM ch JOIN pa ON pa.id = ch.pa_id"),
        "1"
    );
    drop(writer);
    admin
        .batch_execute(&format!("DROP OWNED BY {stranger}; DROP ROLE {stranger}"))
        .unwrap();
}
