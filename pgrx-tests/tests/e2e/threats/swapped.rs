//! Names that come to mean something else while a call goes on: tables, schemas, types. Nothing that takes them is read or asked.

use pgrx_tests::example::one;
use pgrx_tests::{Database, database_with};
use postgres::Client;

use super::{Heard, Listener, role};

/// A call of a superuser that waits for a lock.
struct Waiting {
    thread: std::thread::JoinHandle<Heard>,
}

impl Waiting {
    /// Starts it, and returns when it waits.
    fn start(database: &Database, admin: &mut Client, call: &str) -> Waiting {
        let mut listener = Listener::connect(database, "postgres");
        let pid = one(&mut listener.client, "SELECT pg_backend_pid()");
        let sql = call.to_string();
        let thread = std::thread::spawn(move || listener.hear(&sql));
        while one(admin, &format!("SELECT cardinality(pg_blocking_pids({pid}))")) == "0" {
            assert!(!thread.is_finished(), "{call} did not wait");
            std::thread::yield_now();
        }
        Waiting { thread }
    }

    /// SQLSTATE and message of its error, and what it ran.
    fn end(self) -> Heard {
        self.thread.join().unwrap()
    }
}

#[test]
fn a_view_in_the_place_of_a_table_is_not_read() {
    let (database, mut admin) = database_with("");
    let hostile = role(&database, "att", "");
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA att AUTHORIZATION {hostile}; SET ROLE {hostile}; {}
             CREATE TABLE att.par (id int PRIMARY KEY); CREATE TABLE att.a_first (id int PRIMARY KEY, p int REFERENCES att.par);
             RESET ROLE",
            super::hooks::SHARED
        ))
        .unwrap();
    let mut owner = database.connect_as(&hostile);
    for call in [
        "SELECT * FROM validate_tenant_fks('')",
        "SELECT * FROM dead_columns()",
        "SELECT * FROM backfill('att.m', 'v', ARRAY['p -> att.a_first.p'])",
    ] {
        owner
            .batch_execute("CREATE TABLE att.m (id int PRIMARY KEY, p int REFERENCES att.par, v int)")
            .unwrap();
        // Statements sent as one are one transaction.
        owner
            .batch_execute("BEGIN; LOCK TABLE att.a_first IN ACCESS EXCLUSIVE MODE")
            .unwrap();
        let running = Waiting::start(&database, &mut admin, call);
        owner
            .batch_execute("ALTER TABLE att.m RENAME TO gone; CREATE VIEW att.m AS SELECT 1 AS id, att.num('view', 1) AS p, 1 AS v; COMMIT")
            .unwrap();
        let (failed, songs) = running.end();
        assert!(songs.is_empty(), "{call}: {songs:?}");
        assert_eq!(failed.map(|(code, _)| code).as_deref(), Some("40001"), "{call}");
        owner.batch_execute("DROP VIEW att.m; DROP TABLE att.gone").unwrap();
    }
    // Also in a transaction that sees the catalog as it was.
    let mut listener = Listener::connect(&database, "postgres");
    owner
        .batch_execute("CREATE TABLE att.m (id int PRIMARY KEY, p int REFERENCES att.par)")
        .unwrap();
    listener
        .client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        .unwrap();
    owner
        .batch_execute("ALTER TABLE att.m RENAME TO gone; CREATE VIEW att.m AS SELECT 1 AS id, att.num('view', 1) AS p")
        .unwrap();
    let (failed, songs) = listener.hear("SELECT * FROM validate_tenant_fks('')");
    assert_eq!(
        (failed.map(|(code, _)| code).as_deref(), songs.len()),
        (Some("40001"), 0)
    );
    drop((owner, listener));
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
        ))
        .unwrap();
}

/// A schema that changes its name in the middle of a call: what takes the name of its tables is not read.
#[test]
fn a_schema_that_is_renamed_meanwhile_brings_no_views_in() {
    let (database, mut admin) = database_with("");
    let hostile = role(&database, "att", "");
    admin
        .batch_execute(&format!(
            "GRANT CREATE ON DATABASE {} TO {hostile}; CREATE SCHEMA att AUTHORIZATION {hostile}; SET ROLE {hostile}; {}
             CREATE TABLE att.a (id int PRIMARY KEY, p_id int REFERENCES att.p); INSERT INTO att.a VALUES (1, 1);
             CREATE TABLE att.z (id int PRIMARY KEY, p_id int REFERENCES att.p); INSERT INTO att.z VALUES (1, 1); RESET ROLE",
            database.name,
            super::hooks::SHARED
        ))
        .unwrap();
    let mut owner = database.connect_as(&hostile);
    for call in [
        "SELECT * FROM validate_tenant_fks('att.tenants')",
        "SELECT * FROM migration_report('att.tenants')",
        "SELECT * FROM backfill('att.z', 'p_id', ARRAY['id -> att.p(id).id'], overwrite => 'mismatched')",
        "SELECT * FROM dead_columns('att')",
    ] {
        // The last table is waited for: everything else is looked at, and locked, by then.
        owner
            .batch_execute("BEGIN; LOCK TABLE att.z IN ACCESS EXCLUSIVE MODE")
            .unwrap();
        let running = Waiting::start(&database, &mut admin, call);
        owner
            .batch_execute(
                "ALTER SCHEMA att RENAME TO att_old; CREATE SCHEMA att; GRANT USAGE ON SCHEMA att TO PUBLIC;
                 CREATE VIEW att.tenants AS SELECT id FROM att_old.tenants WHERE att_old.yes('view', id);
                 CREATE VIEW att.p AS SELECT * FROM att_old.p WHERE att_old.yes('view', id);
                 CREATE VIEW att.a AS SELECT * FROM att_old.a WHERE att_old.yes('view', id);
                 CREATE VIEW att.z AS SELECT * FROM att_old.z WHERE att_old.yes('view', id);
                 GRANT SELECT ON ALL TABLES IN SCHEMA att TO PUBLIC; COMMIT",
            )
            .unwrap();
        let (failed, songs) = running.end();
        assert!(songs.is_empty(), "{call}: {songs:?}");
        assert_eq!(failed.map(|(code, _)| code).as_deref(), Some("40001"), "{call}");
        owner
            .batch_execute("DROP SCHEMA att CASCADE; ALTER SCHEMA att_old RENAME TO att")
            .unwrap();
    }
    drop(owner);
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
        ))
        .unwrap();
}

/// A type that changes its name: what takes its name is not asked.
#[test]
fn a_type_that_is_renamed_meanwhile_is_not_asked() {
    let (database, mut admin) = database_with("");
    let hostile = role(&database, "att", "");
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA att AUTHORIZATION {hostile}; SET ROLE {hostile}; {} CREATE TYPE att.kind AS ENUM ('x');
             CREATE FUNCTION att.says(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM att.canary('type'); RETURN true; END $$;
             CREATE TABLE att.p3 (id int PRIMARY KEY, kind att.kind NOT NULL); CREATE TABLE att.c3 (id int PRIMARY KEY, p_id int);
             INSERT INTO att.c3 VALUES (1, 7); ALTER TABLE att.c3 ADD FOREIGN KEY (p_id) REFERENCES att.p3 NOT VALID; RESET ROLE",
            super::hooks::SHARED
        ))
        .unwrap();
    let mut owner = database.connect_as(&hostile);
    owner
        .batch_execute("BEGIN; LOCK TABLE att.c3, att.p3 IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let call =
        "SELECT * FROM repair_orphans('att.c3', 'p_id', 'create_parent', set => '{\"kind\": \"x\"}', root => '')";
    let running = Waiting::start(&database, &mut admin, call);
    owner
        .batch_execute(
            "ALTER TYPE att.kind RENAME TO kind_old; CREATE DOMAIN att.kind AS att.kind_old CHECK (att.says(VALUE::text)); COMMIT",
        )
        .unwrap();
    let (failed, songs) = running.end();
    assert!(songs.is_empty(), "{songs:?}");
    assert_eq!(failed.map(|(code, _)| code).as_deref(), Some("40001"));
    drop(owner);
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
        ))
        .unwrap();
}
