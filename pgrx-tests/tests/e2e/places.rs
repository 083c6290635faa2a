//! Where its users call it: psql, an SQL editor, pg_cron, a standby; and that a dump takes the records along.

use pgrx_tests::example::{failure, lines, load_party, one};
use pgrx_tests::{Cluster, Options};

#[test]
fn a_dry_run_works_on_a_standby_and_a_real_run_says_why_it_does_not() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let database = cluster.database().unwrap();
    let mut client = database.connect();
    load_party(&mut client);
    let expected = lines(
        &mut client,
        "SELECT table_name, filled, reasons FROM backfill_party_ids()",
    );
    let standby = cluster.standby().unwrap();
    let mut copy = standby.connect(&database.name, "postgres").unwrap();
    assert_eq!(one(&mut copy, "SELECT pg_is_in_recovery()"), "t");
    assert_eq!(
        lines(
            &mut copy,
            "SELECT table_name, filled, reasons FROM backfill_party_ids()"
        ),
        expected
    );
    assert_eq!(
        one(
            &mut copy,
            "SELECT count(*) FROM backfill_unfilled('WaitlistEntry', 'clientPartyId', only_where => 'id > 0', max_rows => 1000)"
        ),
        "21"
    );
    let failed = failure(&mut copy, "SELECT * FROM backfill_party_ids('WaitlistEntry', false)");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        (
            "25006",
            "a real run cannot be done in a read-only transaction or on a standby"
        )
    );
}

#[test]
fn psql_shows_rows_and_a_readable_error() {
    let database = pgrx_tests::database();
    load_party(&mut database.connect());
    let printed = database.psql(
        &["-A", "-t"],
        "SELECT filled, unfilled FROM backfill_party_ids('WaitlistEntry', true);",
    );
    assert_eq!(printed, "24|21\n");
    let printed = database.psql(
        &[],
        "\\set VERBOSITY verbose\nSELECT * FROM backfill_party_ids('Waitlist');",
    );
    assert!(
        printed.starts_with("ERROR:  42P01: table \"Waitlist\" does not exist\nDETAIL:"),
        "{printed}"
    );
    assert!(printed.contains("\nHINT:  "), "{printed}");
}

/// An SQL editor: an ordinary role that owns the tables, one statement a call, each in a transaction of its own, and
/// nothing shown but rows.
#[test]
fn an_sql_editor_sees_everything_as_rows() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    let role = format!("editor_{}", database.name);
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}; GRANT TEMPORARY ON DATABASE {} TO {role}; SELECT grant_mend('{role}')", database.name)).unwrap();
    load_party(&mut database.connect_as(&role));
    let editor = |sql: &str| {
        let mut client = database.connect_as(&role);
        client.batch_execute("BEGIN").unwrap();
        let rows = lines(&mut client, sql);
        client.batch_execute("COMMIT").unwrap();
        rows
    };
    assert_eq!(
        editor("SELECT filled, unfilled FROM backfill_party_ids('WaitlistEntry', true)"),
        ["24|21"]
    );
    assert_eq!(
        editor("SELECT filled, unfilled, run_id IS NOT NULL FROM backfill_party_ids('WaitlistEntry', false)"),
        ["24|21|t"]
    );
    assert_eq!(
        editor(
            "SELECT reason, count(*) FROM backfill_unfilled('WaitlistEntry', 'clientPartyId') GROUP BY 1 ORDER BY 1"
        )
        .len(),
        6
    );
    assert_eq!(
        editor("SELECT table_name, filled FROM mend.runs"),
        ["public.\"WaitlistEntry\"|24"]
    );
    admin
        .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .unwrap();
}

#[test]
fn a_scheduled_call_repairs_rows_that_came_in_meanwhile() {
    let options = Options {
        settings: vec![
            "shared_preload_libraries = 'pg_cron'".into(),
            "cron.use_background_workers = on".into(),
            "cron.database_name = 'postgres'".into(),
            "max_worker_processes = 20".into(),
        ],
        ..Options::default()
    };
    let cluster = Cluster::start(options).unwrap();
    assert!(
        cluster.offers("pg_cron").unwrap(),
        "install Debian's postgresql-15-cron: dev/setup does"
    );
    let mut client = cluster.connect("postgres", "postgres").unwrap();
    client
        .batch_execute("CREATE EXTENSION pg_cron; CREATE EXTENSION pg_mend")
        .unwrap();
    load_party(&mut client);
    client.simple_query("SELECT backfill_party_ids(NULL, false)").unwrap();
    // A row that an old version of the application writes.
    client
        .batch_execute("INSERT INTO \"WaitlistEntry\" (\"tenantId\", \"contactId\") VALUES (1, 1)")
        .unwrap();
    let runs: i64 = one(&mut client, "SELECT max(run_id) FROM mend.runs").parse().unwrap();
    // As in the README. (The pg_cron of Debian 12 knows no shorter interval: this waits for the next full minute.)
    client
        .simple_query("SELECT cron.schedule('mend', '* * * * *', 'SELECT backfill_party_ids(NULL, false)')")
        .unwrap();
    for attempt in 0.. {
        let sql = format!("SELECT coalesce(sum(filled), 0) FROM mend.runs WHERE run_id > {runs}");
        if one(&mut client, &sql) != "0" {
            break;
        }
        assert!(
            attempt < 1200,
            "the job never ran: {:?}",
            lines(
                &mut client,
                "SELECT status, return_message FROM cron.job_run_details LIMIT 3"
            )
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    client.simple_query("SELECT cron.unschedule('mend')").unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT \"clientPartyId\" FROM \"WaitlistEntry\" ORDER BY id DESC LIMIT 1"
        ),
        "1"
    );
}

#[test]
fn a_dump_takes_the_records_along() {
    let cluster = pgrx_tests::shared();
    let database = cluster.database().unwrap();
    let mut client = database.connect();
    load_party(&mut client);
    client.simple_query("SELECT backfill_party_ids(NULL, false)").unwrap();
    let runs = lines(
        &mut client,
        "SELECT run_id, table_name, filled, reasons FROM mend.runs ORDER BY 1",
    );
    let dump = cluster.program("pg_dump", &database.name, &[], "").unwrap();
    let copy = cluster.empty_database().unwrap();
    let printed = copy.psql(&["-v", "ON_ERROR_STOP=1", "-o", "/dev/null"], &dump);
    assert_eq!(printed, "");
    let mut client = copy.connect();
    assert_eq!(
        lines(
            &mut client,
            "SELECT run_id, table_name, filled, reasons FROM mend.runs ORDER BY 1"
        ),
        runs
    );
    client
        .batch_execute("UPDATE \"WaitlistEntry\" SET \"clientPartyId\" = NULL")
        .unwrap();
    let next: i64 = one(
        &mut client,
        "SELECT run_id FROM backfill_party_ids('WaitlistEntry', false)",
    )
    .parse()
    .unwrap();
    assert!(next > runs.len() as i64, "the sequence goes on where it was");
}
