//! Other sessions write while a run goes on. Nothing here waits for time to pass: each step waits for the state that it
//! needs (a session that is blocked by a lock).

use std::sync::mpsc;
use std::thread::JoinHandle;

use pgrx_tests::example::{failure, lines, one};
use pgrx_tests::{Cluster, Database, Options};
use postgres::Client;

const SCHEMA: &str = "
    CREATE TABLE tenant (id int PRIMARY KEY);
    CREATE TABLE party (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant);
    CREATE TABLE contact (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, party_id int REFERENCES party);
    CREATE TABLE entry (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, contact_id int REFERENCES contact,
                        party_id int REFERENCES party, touched int NOT NULL DEFAULT 0);
    INSERT INTO tenant VALUES (1);
    INSERT INTO party SELECT g, 1 FROM generate_series(1, 200) g;
    INSERT INTO contact SELECT g, 1, g FROM generate_series(1, 100) g;
    INSERT INTO entry SELECT g, 1, g, NULL FROM generate_series(1, 100) g;";

const CALL: &str = "SELECT total, already_set, filled, unfilled FROM backfill('entry', 'party_id', dry_run => false)";

/// The same from two sources, which is written in another way: by joining the table with its own classification.
const CALL_TWO: &str = "SELECT total, already_set, filled, unfilled FROM backfill('entry', 'party_id',
                        ARRAY['contact_id -> contact.party_id', 'contact_id -> contact.party_id'], dry_run => false)";

/// A statement under way in a session of its own.
struct Running {
    thread: JoinHandle<Result<Vec<String>, String>>,
    pid: i32,
}

fn start(database: &Database, sql: &str) -> Running {
    let mut client = database.connect();
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let sql = sql.to_string();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        sender.send(()).unwrap();
        match client.simple_query(&sql) {
            Ok(messages) => Ok(messages
                .iter()
                .filter_map(|m| match m {
                    postgres::SimpleQueryMessage::Row(row) => Some(
                        (0..row.len())
                            .map(|i| row.get(i).unwrap_or("-"))
                            .collect::<Vec<_>>()
                            .join("|"),
                    ),
                    _ => None,
                })
                .collect()),
            Err(error) => Err(error
                .code()
                .map(|c| c.code().to_string())
                .unwrap_or_else(|| "connection lost".into())),
        }
    });
    receiver.recv().unwrap();
    Running { thread, pid }
}

impl Running {
    /// Waits until the session is blocked by a lock.
    fn blocked(&self, client: &mut Client) {
        for _ in 0..6000 {
            let sql = format!("SELECT cardinality(pg_blocking_pids({})) > 0", self.pid);
            if one(client, &sql) == "t" {
                return;
            }
            assert!(!self.thread.is_finished(), "it ended without being blocked");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("never blocked");
    }

    fn result(self) -> Result<Vec<String>, String> {
        self.thread.join().unwrap()
    }
}

fn prepared() -> (Database<'static>, Client, Client) {
    let database = pgrx_tests::database();
    let mut writer = database.connect();
    writer.batch_execute(SCHEMA).unwrap();
    let watcher = database.connect();
    (database, writer, watcher)
}

/// Rows whose value is not what their contact says now.
const STALE: &str = "SELECT e.id, e.party_id, c.party_id FROM entry e LEFT JOIN contact c ON c.id = e.contact_id
                     WHERE e.party_id IS DISTINCT FROM c.party_id ORDER BY 1";

/// The writer holds row 100, so the run has written rows before it and waits; then the writer does more and commits. For
/// each way of writing, the run returns `result`, no value is stale, and `check` holds.
fn while_it_waits(change: &str, result: &str, check: impl Fn(&mut Client)) {
    for call in [CALL, CALL_TWO] {
        let (database, mut writer, mut watcher) = prepared();
        writer
            .batch_execute("BEGIN; UPDATE entry SET touched = 1 WHERE id = 100")
            .unwrap();
        let run = start(&database, call);
        run.blocked(&mut watcher);
        writer.batch_execute(change).unwrap();
        writer.batch_execute("COMMIT").unwrap();
        assert_eq!(run.result().unwrap(), [result], "{call}");
        check(&mut watcher);
    }
}

fn nothing_is_stale(client: &mut Client) {
    assert_eq!(lines(client, STALE), Vec::<String>::new());
}

#[test]
fn a_row_that_points_elsewhere_now_gets_its_new_value() {
    while_it_waits(
        "UPDATE entry SET contact_id = 7 WHERE id = 100",
        "100|0|100|0",
        |client| {
            nothing_is_stale(client);
            assert_eq!(
                one(client, "SELECT party_id, touched FROM entry WHERE id = 100"),
                "7|1",
                "no lost update"
            );
        },
    );
}

#[test]
fn a_row_that_lost_its_source_stays_empty() {
    while_it_waits(
        "UPDATE entry SET contact_id = NULL WHERE id = 100",
        "100|0|99|1",
        nothing_is_stale,
    );
}

#[test]
fn a_value_set_meanwhile_is_not_overwritten() {
    while_it_waits(
        "UPDATE entry SET party_id = 150 WHERE id = 100",
        "100|1|99|0",
        |client| {
            assert_eq!(one(client, "SELECT party_id FROM entry WHERE id = 100"), "150");
        },
    );
}

#[test]
fn a_source_that_changes_under_the_run_is_followed() {
    // Rows 1 and 2 are written already, with the old parties of their contacts.
    let change = "UPDATE contact SET party_id = 199 WHERE id = 1; UPDATE contact SET party_id = NULL WHERE id = 2";
    while_it_waits(change, "100|0|99|1", |client| {
        nothing_is_stale(client);
        assert_eq!(
            lines(client, "SELECT party_id FROM entry WHERE id IN (1, 2) ORDER BY id"),
            ["199", "-"]
        );
    });
}

#[test]
fn a_deleted_row_is_gone_and_an_inserted_one_is_filled() {
    let change = "DELETE FROM entry WHERE id = 100; INSERT INTO entry VALUES (101, 1, 50, NULL), (102, 1, 51, NULL)";
    while_it_waits(change, "101|0|101|0", nothing_is_stale);
}

#[test]
fn two_runs_of_the_same_backfill_do_the_work_once() {
    let (database, mut first, mut watcher) = prepared();
    first.batch_execute("BEGIN").unwrap();
    assert_eq!(lines(&mut first, CALL), ["100|0|100|0"]);
    let second = start(&database, CALL);
    second.blocked(&mut watcher);
    first.batch_execute("COMMIT").unwrap();
    assert_eq!(second.result().unwrap(), ["100|100|0|0"]);
    assert_eq!(
        one(&mut watcher, "SELECT count(*), sum(filled) FROM mend.runs"),
        "2|100"
    );
}

#[test]
fn a_deadlock_with_another_writer_is_not_left_to_the_caller() {
    let (database, mut writer, mut watcher) = prepared();
    // The writer never gives in, so the run is the victim: it looks for a deadlock once, when the writer has long been waiting as well.
    writer
        .batch_execute("SET deadlock_timeout = '1h'; BEGIN; UPDATE entry SET touched = 1 WHERE id = 100")
        .unwrap();
    let run = start(&database, &format!("SET deadlock_timeout = '2s'; {CALL}"));
    run.blocked(&mut watcher);
    // Row 1 was written by the run. The run is told of the deadlock, lets go of everything, and begins again.
    writer
        .batch_execute("UPDATE entry SET touched = 1 WHERE id = 1")
        .unwrap();
    writer.batch_execute("COMMIT").unwrap();
    assert_eq!(run.result().unwrap(), ["100|0|100|0"]);
    assert_eq!(lines(&mut watcher, STALE), Vec::<String>::new());
    assert_eq!(one(&mut watcher, "SELECT count(*) FROM entry WHERE touched = 1"), "2");
}

#[test]
fn a_cancelled_run_leaves_nothing_behind() {
    let (database, mut writer, mut watcher) = prepared();
    writer
        .batch_execute("BEGIN; UPDATE entry SET touched = 1 WHERE id = 100")
        .unwrap();
    let run = start(&database, CALL);
    run.blocked(&mut watcher);
    watcher
        .simple_query(&format!("SELECT pg_cancel_backend({})", run.pid))
        .unwrap();
    assert_eq!(run.result().unwrap_err(), "57014");
    writer.batch_execute("ROLLBACK").unwrap();
    assert_eq!(one(&mut watcher, "SELECT count(party_id) FROM entry"), "0");
    assert_eq!(one(&mut watcher, "SELECT count(*) FROM mend.runs"), "0");
    assert_eq!(
        one(
            &mut watcher,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ),
        "0"
    );
}

#[test]
fn a_failed_run_leaves_nothing_behind() {
    let (_database, mut client, _) = prepared();
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF NEW.id = 77 THEN RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation', HINT = 'ask again'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let failed = failure(&mut client, CALL);
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str(), failed.hint.as_str()),
        ("23514", "not this one", "ask again")
    );
    assert_eq!(one(&mut client, "SELECT count(party_id) FROM entry"), "0");
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.runs"), "0");
    // The session is as usable as before, its settings included.
    assert_eq!(
        one(
            &mut client,
            "SELECT current_setting('search_path'), current_setting('row_security')"
        ),
        "\"$user\", public|on"
    );
}

#[test]
fn a_killed_server_comes_back_with_all_or_nothing() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let database = cluster.database().unwrap();
    let mut writer = database.connect();
    writer.batch_execute(SCHEMA).unwrap();
    writer
        .batch_execute("CHECKPOINT; BEGIN; UPDATE entry SET touched = 1 WHERE id = 100")
        .unwrap();
    let run = start(&database, CALL);
    run.blocked(&mut database.connect());
    cluster.crash().unwrap();
    assert!(run.result().is_err());
    drop(writer);
    let mut client = database.connect();
    assert_eq!(one(&mut client, "SELECT count(party_id) FROM entry"), "0");
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.runs"), "0");
    assert_eq!(lines(&mut client, CALL), ["100|0|100|0"]);
    assert_eq!(lines(&mut client, STALE), Vec::<String>::new());
}

#[test]
fn a_transaction_that_keeps_its_first_snapshot_is_refused() {
    let (database, mut writer, mut watcher) = prepared();
    writer
        .batch_execute("BEGIN; UPDATE entry SET contact_id = 7 WHERE id = 100")
        .unwrap();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let run = start(&database, &format!("BEGIN ISOLATION LEVEL {level}; {CALL}"));
        assert_eq!(run.result().unwrap_err(), "25000", "{level}");
    }
    writer.batch_execute("COMMIT").unwrap();
    assert_eq!(one(&mut watcher, "SELECT count(party_id) FROM entry"), "0");
}

/// Every entry points at party 200, which its contact contradicts; the run waits for row 100 while `change` happens.
fn while_it_overwrites(change: &str, check: impl Fn(&mut Client)) {
    let (database, mut writer, mut watcher) = prepared();
    writer.batch_execute("UPDATE entry SET party_id = 200").unwrap();
    writer
        .batch_execute("BEGIN; UPDATE entry SET touched = 1 WHERE id = 100")
        .unwrap();
    let call = "SELECT total, already_set + filled FROM backfill('entry', 'party_id', overwrite => 'mismatched', dry_run => false)";
    let run = start(&database, call);
    run.blocked(&mut watcher);
    writer.batch_execute(change).unwrap();
    writer.batch_execute("COMMIT").unwrap();
    assert_eq!(run.result().unwrap(), ["100|100"]);
    nothing_is_stale(&mut watcher);
    assert_eq!(
        one(
            &mut watcher,
            "SELECT count(*) FROM entry e JOIN contact c ON c.id = e.contact_id WHERE e.party_id <> c.party_id"
        ),
        "0"
    );
    // One record for each row that this run replaced, in its name.
    assert_eq!(
        one(
            &mut watcher,
            "SELECT count(DISTINCT row_key) = count(*) AND bool_and(run_id = (SELECT max(run_id) FROM mend.runs)) FROM mend.replaced_values"
        ),
        "t"
    );
    check(&mut watcher);
}

const KEPT_OF_100: &str =
    "SELECT string_agg(old_value || ' ' || new_value, ',') FROM mend.replaced_values WHERE row_key ->> 'id' = '100'";

#[test]
fn what_is_overwritten_is_kept_as_it_was_at_that_moment() {
    while_it_overwrites("UPDATE entry SET party_id = 150 WHERE id = 100", |client| {
        assert_eq!(one(client, KEPT_OF_100), "150 100");
    });
    while_it_overwrites("UPDATE entry SET party_id = 100 WHERE id = 100", |client| {
        assert_eq!(one(client, KEPT_OF_100), "-", "somebody else put it right");
        assert_eq!(one(client, "SELECT count(*) FROM mend.replaced_values"), "99");
    });
    while_it_overwrites("UPDATE contact SET party_id = 150 WHERE id = 50", |client| {
        assert_eq!(one(client, "SELECT party_id FROM entry WHERE id = 50"), "150");
        assert_eq!(
            one(
                client,
                "SELECT old_value || ' ' || new_value FROM mend.replaced_values WHERE row_key ->> 'id' = '50'"
            ),
            "200 150"
        );
    });
}

/// What one step of a call has proved, another session changes while a later step waits: all of it is looked at again at the end.
#[test]
fn a_customer_that_moves_while_a_later_table_waits_leaves_no_row_with_its_old_tenant() {
    let schema = "
        CREATE TABLE tenants (id int PRIMARY KEY);
        CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants);
        CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, tenant_id int REFERENCES tenants,
                             seller_tenant_id int REFERENCES tenants);
        CREATE TABLE visits (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, tenant_id int REFERENCES tenants, touched int);
        INSERT INTO tenants VALUES (1), (2);
        INSERT INTO customers VALUES (1, 1), (2, 2);
        INSERT INTO orders SELECT g, 1 + g % 2, NULL, NULL FROM generate_series(1, 50) g;
        -- One that disagreed before, and stays as it is.
        INSERT INTO orders VALUES (51, 1, 2, NULL);
        INSERT INTO visits SELECT g, 1 + g % 2, NULL, 0 FROM generate_series(1, 50) g";
    let calls = [
        "SELECT sum(filled) FROM backfill_tenant_ids('tenants', dry_run => false)",
        "SELECT sum(filled) FROM backfill_tenant_ids('tenants', dry_run => false, on_conflict => 'first')",
    ];
    for call in calls {
        let database = pgrx_tests::database();
        let (mut writer, mut watcher) = (database.connect(), database.connect());
        writer.batch_execute(schema).unwrap();
        writer
            .batch_execute("BEGIN; UPDATE visits SET touched = 1 WHERE id = 50")
            .unwrap();
        let run = start(&database, call);
        run.blocked(&mut watcher);
        writer
            .batch_execute("UPDATE customers SET tenant_id = 2 WHERE id = 1; COMMIT")
            .unwrap();
        run.result().unwrap();
        for table in ["orders", "visits"] {
            let stale = format!(
                "SELECT t.id FROM {table} t JOIN customers c ON c.id = t.customer_id WHERE t.tenant_id IS DISTINCT FROM c.tenant_id"
            );
            assert_eq!(lines(&mut watcher, &stale), Vec::<String>::new(), "{table}: {call}");
        }
        assert_eq!(
            one(
                &mut watcher,
                "SELECT sum(cross_tenant) FROM validate_tenant_fks('tenants') WHERE table_name <> 'total'"
            ),
            "0"
        );
        // Put right in place: a call that begins anew would have used up ids.
        assert_eq!(
            one(&mut watcher, "SELECT max(run_id) = count(*) FROM mend.runs"),
            "t",
            "{call}"
        );
    }
}

/// Two columns of one table: the second write does not hide which rows the first one wrote, whatever else changes in the table.
#[test]
fn a_second_column_of_the_same_table_hides_nothing_of_the_first() {
    let schema = r#"
        CREATE TABLE "Tenant" (id int PRIMARY KEY);
        CREATE TABLE "Party" (id int PRIMARY KEY, "tenantId" int NOT NULL REFERENCES "Tenant");
        CREATE TABLE "Contact" (id int PRIMARY KEY, "tenantId" int NOT NULL REFERENCES "Tenant", "partyId" int REFERENCES "Party");
        CREATE TABLE "Deal" (id int PRIMARY KEY, "tenantId" int NOT NULL REFERENCES "Tenant",
          "buyerContactId" int REFERENCES "Contact", "buyerPartyId" int REFERENCES "Party",
          "sellerContactId" int REFERENCES "Contact", "sellerPartyId" int REFERENCES "Party", touched int);
        INSERT INTO "Tenant" VALUES (1), (2);
        INSERT INTO "Party" SELECT i, 1 FROM generate_series(1, 10) i;
        INSERT INTO "Contact" SELECT i, 1, i FROM generate_series(1, 10) i;
        -- The second one disagreed before; the third is held by another session, and has nothing to get in the first column.
        INSERT INTO "Deal" VALUES (1, 1, 1, NULL, 2, NULL), (2, 1, 3, 9, 4, 4), (3, 1, 5, 5, 6, NULL)"#;
    let changes = [
        (r#"UPDATE "Party" SET "tenantId" = 2 WHERE id = 1"#, "-"),
        (r#"UPDATE "Contact" SET "partyId" = 7 WHERE id = 1"#, "7"),
    ];
    for (change, expected) in changes {
        for fixed in ["", r#"; UPDATE "Deal" SET "buyerPartyId" = 3 WHERE id = 2"#] {
            let database = pgrx_tests::database();
            let (mut writer, mut watcher) = (database.connect(), database.connect());
            writer.batch_execute(schema).unwrap();
            writer
                .batch_execute(r#"BEGIN; UPDATE "Deal" SET touched = 1 WHERE id = 3"#)
                .unwrap();
            let run = start(&database, "SELECT sum(filled) FROM backfill_party_ids(NULL, false)");
            run.blocked(&mut watcher);
            writer.batch_execute(&format!("{change}{fixed}; COMMIT")).unwrap();
            run.result().unwrap();
            assert_eq!(
                one(&mut watcher, r#"SELECT "buyerPartyId" FROM "Deal" WHERE id = 1"#),
                expected,
                "{change}{fixed}"
            );
            assert_eq!(
                one(&mut watcher, r#"SELECT "sellerPartyId" FROM "Deal" WHERE id = 1"#),
                "2",
                "{change}{fixed}"
            );
        }
    }
}

/// Sources that never rest are one thing, a trigger that changes what is written another.
#[test]
fn a_harmless_trigger_is_not_blamed_for_sources_that_change() {
    let (database, mut writer, mut watcher) = prepared();
    writer
        .batch_execute(
            "CREATE SEQUENCE turn;
             CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.id = 100 THEN PERFORM pg_advisory_xact_lock(nextval('turn')); END IF; RETURN NEW; END $$;
             CREATE TRIGGER waits BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION waits();
             SELECT pg_advisory_lock(g) FROM generate_series(1, 5) g",
        )
        .unwrap();
    let run = start(&database, CALL);
    for turn in 1..=5 {
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE pid = {} AND locktype = 'advisory' AND objid = {turn} AND NOT granted",
            run.pid
        );
        while one(&mut watcher, &waits) == "0" {
            assert!(!run.thread.is_finished(), "it ended before turn {turn}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        writer
            .batch_execute(&format!("UPDATE contact SET party_id = {turn} + 100 WHERE id = 1"))
            .unwrap();
        writer
            .batch_execute(&format!("SELECT pg_advisory_unlock({turn})"))
            .unwrap();
    }
    assert_eq!(run.result(), Err("40001".into()));
    // And one that does change it.
    writer
        .batch_execute(
            "DROP TRIGGER waits ON entry;
             CREATE FUNCTION spoils() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.party_id := 150; RETURN NEW; END $$;
             CREATE TRIGGER spoils BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION spoils()",
        )
        .unwrap();
    assert_eq!(start(&database, CALL).result(), Err("27000".into()));
    assert_eq!(one(&mut watcher, "SELECT count(party_id) FROM entry"), "0");
}
