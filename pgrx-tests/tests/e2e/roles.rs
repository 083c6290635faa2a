//! Who may do what: privileges, records, row-level security, a hostile search_path.

use pgrx_tests::Database;
use pgrx_tests::example::{failure, lines, one};

/// Roles belong to the whole cluster, so each test has its own.
fn role(database: &Database, name: &str, options: &str) -> String {
    let role = format!("{name}_{}", database.name);
    database
        .connect()
        .batch_execute(&format!("CREATE ROLE {role} LOGIN {options}"))
        .unwrap();
    role
}

const TABLES: &str = "
    CREATE TABLE party (id int PRIMARY KEY);
    CREATE TABLE contact (id int PRIMARY KEY, party_id int REFERENCES party);
    CREATE TABLE entry (id int PRIMARY KEY, contact_id int REFERENCES contact, party_id int REFERENCES party);
    INSERT INTO party VALUES (1), (2); INSERT INTO contact VALUES (1, 1), (2, 2);
    INSERT INTO entry SELECT g, g FROM generate_series(1, 2) g;";

#[test]
fn a_role_may_nothing_until_one_call_lets_it_in_and_then_sees_its_own_runs_only() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    let (owner, other) = (role(&database, "app", ""), role(&database, "other", ""));
    admin
        .batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {owner}, {other}"))
        .unwrap();
    let mut client = database.connect_as(&owner);
    client.batch_execute(TABLES).unwrap();
    assert_eq!(
        failure(&mut client, "SELECT * FROM backfill('entry', 'party_id')").code,
        "42501"
    );
    assert_eq!(failure(&mut client, "SELECT * FROM mend.runs").code, "42501");
    assert_eq!(
        failure(&mut client, &format!("SELECT grant_mend('{owner}')")).code,
        "42501"
    );

    let said = one(&mut admin, &format!("SELECT grant_mend('{owner}')"));
    assert!(
        said.starts_with(&format!("{owner} may call 33 functions of pg_mend")),
        "{said}"
    );
    admin.simple_query(&format!("SELECT grant_mend('{other}')")).unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('entry', 'party_id', dry_run => false)"
        ),
        "2"
    );
    assert_eq!(
        one(&mut client, "SELECT run_by = current_user, filled FROM mend.runs"),
        "t|2"
    );

    let mut stranger = database.connect_as(&other);
    assert_eq!(one(&mut stranger, "SELECT count(*) FROM mend.runs"), "0");
    assert_eq!(one(&mut admin, "SELECT count(*) FROM mend.runs"), "1");
    // Nobody writes records in another name, and nobody changes or deletes them.
    let forged = format!(
        "INSERT INTO mend.runs (operation, table_name, column_name, rule, statement, total, already_set, filled, unfilled, reasons, run_by, started_at, finished_at, schema_fingerprint, extension_version)
         VALUES ('backfill', 't', 'c', '{{}}', 's', 0, 0, 0, 0, '{{}}', '{owner}', now(), now(), '', '')"
    );
    assert_eq!(failure(&mut stranger, &forged).code, "42501");
    for sql in [
        "UPDATE mend.runs SET filled = 0",
        "DELETE FROM mend.runs",
        "TRUNCATE mend.ledger_runs",
        "SELECT * FROM mend.ledger_runs",
        "SELECT nextval('mend.ledger_runs_run_id_seq')",
    ] {
        assert_eq!(failure(&mut client, sql).code, "42501", "{sql}");
    }
    // The stranger's rights on tables are what they were.
    let failed = failure(&mut stranger, "SELECT * FROM backfill('entry', 'party_id')");
    assert_eq!(failed.code, "42501");
    assert!(
        failed.detail.contains("permission denied to read") && failed.hint.contains("GRANT SELECT ON entry"),
        "{failed:?}"
    );

    admin.simple_query(&format!("SELECT revoke_mend('{owner}')")).unwrap();
    assert_eq!(
        failure(&mut client, "SELECT * FROM backfill('entry', 'party_id')").code,
        "42501"
    );
    admin
        .batch_execute(&format!("DROP OWNED BY {owner}, {other}; DROP ROLE {owner}, {other}"))
        .unwrap();
}

#[test]
fn who_may_read_but_not_update_gets_a_dry_run_that_says_so() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    admin.batch_execute(TABLES).unwrap();
    let reader = role(&database, "reader", "");
    admin
        .batch_execute(&format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}; SELECT grant_mend('{reader}')"
        ))
        .unwrap();
    let mut client = database.connect_as(&reader);
    let dry = one(&mut client, "SELECT filled, note FROM backfill('entry', 'party_id')");
    assert!(
        dry.starts_with("2|") && dry.contains("the real run needs UPDATE on entry.party_id"),
        "{dry}"
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('entry', 'party_id', dry_run => false)",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42501", "permission denied to update party_id of entry")
    );
    // Updating one column is enough, but the record needs its own rights.
    admin
        .batch_execute(&format!(
            "GRANT UPDATE (party_id) ON entry TO {reader}; REVOKE ALL ON mend.runs FROM {reader}"
        ))
        .unwrap();
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('entry', 'party_id', dry_run => false)",
    );
    assert_eq!(
        (failed.message.as_str(), failed.hint.contains("grant_mend")),
        ("permission denied to record the run in mend.runs", true)
    );
    admin.batch_execute(&format!("SELECT grant_mend('{reader}')")).unwrap();
    client.batch_execute("SET row_security = off").unwrap();
    admin
        .batch_execute(&format!("GRANT UPDATE (party_id) ON entry TO {reader}"))
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('entry', 'party_id', dry_run => false)"
        ),
        "2"
    );
    admin
        .batch_execute(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}"))
        .unwrap();
}

#[test]
fn row_level_security_that_would_hide_rows_is_a_refusal_not_a_smaller_count() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    let (owner, reader) = (role(&database, "owner", ""), role(&database, "reader", ""));
    admin
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {owner}; SELECT grant_mend('{owner}'); SELECT grant_mend('{reader}')"
        ))
        .unwrap();
    let mut client = database.connect_as(&owner);
    client.batch_execute(TABLES).unwrap();
    client
        .batch_execute(&format!(
            "GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {reader};
             ALTER TABLE contact ENABLE ROW LEVEL SECURITY; CREATE POLICY first ON contact USING (id = 1)"
        ))
        .unwrap();
    // The owner is above the policy, the reader is not: a parent that hides rows would turn values into source_missing.
    assert_eq!(
        one(&mut client, "SELECT filled FROM backfill('entry', 'party_id')"),
        "2"
    );
    let mut second = database.connect_as(&reader);
    for dry_run in [true, false] {
        let failed = failure(
            &mut second,
            &format!("SELECT * FROM backfill('entry', 'party_id', dry_run => {dry_run})"),
        );
        assert_eq!(
            (failed.code.as_str(), failed.message.as_str()),
            ("42501", "row-level security of contact would hide rows from you")
        );
        assert!(failed.hint.contains("BYPASSRLS"), "{failed:?}");
    }
    client
        .batch_execute("ALTER TABLE contact FORCE ROW LEVEL SECURITY")
        .unwrap();
    assert_eq!(
        failure(&mut client, "SELECT * FROM backfill('entry', 'party_id')").code,
        "42501"
    );
    assert_eq!(one(&mut admin, "SELECT filled FROM backfill('entry', 'party_id')"), "2");
    admin
        .batch_execute(&format!("DROP OWNED BY {owner}, {reader}; DROP ROLE {owner}, {reader}"))
        .unwrap();
}

#[test]
fn the_owner_of_a_database_installs_it_in_a_schema_of_choice_uses_it_and_passes_it_on() {
    let cluster = pgrx_tests::shared();
    let database = cluster.empty_database().unwrap();
    let mut admin = database.connect();
    let (owner, app) = (role(&database, "dbo", ""), role(&database, "app", ""));
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {} OWNER TO {owner}; GRANT CREATE ON SCHEMA public TO {owner}",
            database.name
        ))
        .unwrap();
    let mut client = database.connect_as(&owner);
    client
        .batch_execute("CREATE SCHEMA tools; CREATE EXTENSION pg_mend SCHEMA tools")
        .unwrap();
    client.batch_execute(TABLES).unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM tools.backfill('entry', 'party_id', dry_run => false)"
        ),
        "2"
    );
    client
        .batch_execute(&format!(
            "SELECT tools.grant_mend('{app}'); GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {app}"
        ))
        .unwrap();
    let mut second = database.connect_as(&app);
    assert_eq!(
        one(
            &mut second,
            "SELECT already_set FROM tools.backfill('entry', 'party_id', dry_run => false)"
        ),
        "2"
    );
    assert_eq!(one(&mut second, "SELECT count(*) FROM mend.runs"), "1");
    assert_eq!(
        one(&mut client, "SELECT count(*) FROM mend.runs"),
        "2",
        "the extension's owner sees all"
    );
    // The owner can dump the database, records included.
    let dump = cluster.program("pg_dump", &database.name, &["-U", &owner], "").unwrap();
    assert!(
        dump.contains("COPY mend.ledger_runs (run_id,") && !dump.contains("pg_dump: error"),
        "{dump}"
    );
    // What one role granted another cannot revoke, and is not told that it did.
    let failed = failure(
        &mut admin,
        &format!("SET SESSION AUTHORIZATION {owner}; SELECT tools.revoke_mend('postgres')"),
    );
    assert_eq!(failed.code, "42501");
    assert!(failed.message.starts_with("postgres may still call"), "{failed:?}");
    admin.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    client
        .batch_execute(&format!("SELECT tools.revoke_mend('{app}')"))
        .unwrap();
    assert_eq!(
        failure(&mut second, "SELECT * FROM tools.backfill('entry', 'party_id')").code,
        "42501"
    );
    client.batch_execute("DROP EXTENSION pg_mend").unwrap();
    assert_eq!(
        one(&mut client, "SELECT count(*) FROM pg_namespace WHERE nspname = 'mend'"),
        "0"
    );
    drop((client, second));
    let name = database.name.clone();
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {name} OWNER TO postgres; DROP OWNED BY {owner}, {app}; DROP ROLE {owner}, {app}"
        ))
        .unwrap();
}

#[test]
fn a_hostile_search_path_changes_nothing_and_runs_nothing() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    admin.batch_execute(TABLES).unwrap();
    // What an attacker with CREATE on a schema early in the path can plant: operators and functions that fit better.
    admin
        .batch_execute(
            "CREATE SCHEMA evil; CREATE TABLE evil.log (what text);
             CREATE FUNCTION evil.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.log VALUES ('='); RETURN false; END $$;
             CREATE FUNCTION evil.ne(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.log VALUES ('<>'); RETURN true; END $$;
             CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.eq);
             CREATE OPERATOR evil.<> (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.ne);
             CREATE FUNCTION evil.text_eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.log VALUES ('text ='); RETURN false; END $$;
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_eq);
             CREATE FUNCTION evil.count(*) RETURNS bigint LANGUAGE sql AS 'SELECT 666::bigint'",
        )
        .or_else(|_| {
            // An aggregate cannot be planted that way on every version; the operators are the point.
            admin.batch_execute(
                "CREATE SCHEMA evil; CREATE TABLE evil.log (what text);
                 CREATE FUNCTION evil.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.log VALUES ('='); RETURN false; END $$;
                 CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.eq);
                 CREATE FUNCTION evil.text_eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.log VALUES ('text ='); RETURN false; END $$;
                 CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_eq);
                 CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_eq);
                 CREATE FUNCTION evil.md5(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.log VALUES ('md5'); RETURN ''; END $$;
                 CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE sql AS $$ SELECT 'evil.log' $$;
                 CREATE TABLE evil.pg_class (oid oid); CREATE TABLE evil.pg_attribute (attrelid oid)",
            )
        })
        .unwrap();
    admin
        .batch_execute("SET search_path = evil, public, pg_catalog")
        .unwrap();
    assert_eq!(
        lines(
            &mut admin,
            "SELECT total, filled FROM public.backfill('entry', 'party_id')"
        ),
        ["2|2"]
    );
    assert_eq!(
        lines(
            &mut admin,
            "SELECT total, filled FROM public.backfill('entry', 'party_id', dry_run => false, tenant_guard => false)"
        ),
        ["2|2"]
    );
    assert_eq!(
        lines(
            &mut admin,
            "SELECT reason FROM public.backfill_unfilled('entry', 'party_id')"
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        lines(
            &mut admin,
            "SELECT table_name FROM public.backfill_party_ids(party_table => 'party') ORDER BY 1"
        ),
        ["contact", "entry"]
    );
    assert_eq!(lines(&mut admin, "SELECT what FROM evil.log"), Vec::<String>::new());
    assert_eq!(
        one(&mut admin, "SELECT pg_catalog.current_setting('search_path')"),
        "evil, public, pg_catalog"
    );
    // The record's rows are seen by nobody else because of a planted operator either.
    let victim = role(&database, "victim", "");
    admin.batch_execute(&format!("RESET search_path; SELECT grant_mend('{victim}'); GRANT ALL ON SCHEMA evil TO {victim}; GRANT ALL ON evil.log TO {victim}")).unwrap();
    let mut client = database.connect_as(&victim);
    client
        .batch_execute("SET search_path = evil, public, pg_catalog")
        .unwrap();
    assert_eq!(lines(&mut client, "SELECT run_id FROM mend.runs"), Vec::<String>::new());
    drop(client);
    admin
        .batch_execute(&format!("DROP OWNED BY {victim}; DROP ROLE {victim}"))
        .unwrap();
}
