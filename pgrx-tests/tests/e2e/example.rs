//! The promises of the design on the example data, in which every table is in every situation it can be in.

use pgrx_tests::example::{PARTY_COLUMNS, failure, lines, load_party, one};
use postgres::Client;

const RESULT: &str = "table_name, column_name, total, already_set, filled, unfilled, reasons";

fn loaded(database: &pgrx_tests::Database) -> Client {
    let mut client = database.connect();
    load_party(&mut client);
    client
}

/// Every row of every target: key, value and row version.
fn contents(client: &mut Client) -> Vec<String> {
    PARTY_COLUMNS
        .iter()
        .flat_map(|(table, column)| {
            lines(
                client,
                &format!("SELECT '{table}', id, \"{column}\", ctid, xmin FROM \"{table}\" ORDER BY id"),
            )
        })
        .collect()
}

#[test]
fn the_dry_run_over_all_tables_is_what_the_run_then_does_and_a_second_run_writes_nothing() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    let before = contents(&mut client);
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = lines(
        &mut client,
        &format!("SELECT {RESULT} FROM backfill_party_ids(NULL, true)"),
    );
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(contents(&mut client), before);
    let real = lines(
        &mut client,
        &format!("SELECT {RESULT} FROM backfill_party_ids(NULL, false)"),
    );
    assert_eq!(dry, real);
    // Worked out by hand from the comments in examples/party.sql: three tenants, one row per situation and tenant.
    assert_eq!(
        real,
        [
            r#""Contact"|partyId|30|27|0|3|{"no_source": 3}"#,
            r#""Organization"|partyId|12|9|0|3|{"no_source": 3}"#,
            r#""User"|partyId|18|3|6|9|{"no_source": 3, "source_null": 3, "source_missing": 3}"#,
            r#""Animal"|buyerPartyId|48|3|27|18|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3}"#,
            r#""AnimalOwner"|partyId|48|3|15|30|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 12}"#,
            r#""BreedingAttempt"|studOwnerPartyId|33|3|15|15|{"no_source": 3, "source_null": 3, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 3}"#,
            r#""ContractParty"|partyId|51|3|12|36|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 18}"#,
            r#""Invoice"|clientPartyId|48|3|24|21|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 3}"#,
            r#""Message"|senderPartyId|6|3|0|3|{"no_source": 3}"#,
            r#""Offspring"|buyerPartyId|48|3|24|21|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 3}"#,
            r#""OffspringContract"|buyerPartyId|48|3|24|21|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 3}"#,
            r#""OffspringGroupBuyer"|buyerPartyId|48|3|15|30|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 12}"#,
            r#""PlanParty"|partyId|48|3|15|30|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 12}"#,
            r#""TagAssignment"|taggedPartyId|48|3|15|30|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 12}"#,
            r#""WaitlistEntry"|clientPartyId|48|3|24|21|{"conflict": 3, "no_source": 3, "source_null": 6, "cross_tenant": 3, "source_missing": 3, "constraint_failed": 3}"#,
        ]
    );

    let after = contents(&mut client);
    let again = lines(&mut client, "SELECT sum(filled) FROM backfill_party_ids(NULL, false)");
    assert_eq!(again, ["0"]);
    assert_eq!(contents(&mut client), after, "the second run wrote a row");
}

#[test]
fn no_run_creates_a_cross_tenant_reference_or_touches_a_value() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    client
        .batch_execute("CREATE TABLE before AS SELECT id, \"clientPartyId\" FROM \"WaitlistEntry\"")
        .unwrap();
    client.simple_query("SELECT backfill_party_ids(NULL, false)").unwrap();
    for (table, column) in PARTY_COLUMNS {
        // Whose a row is, written by hand for each shape of table.
        let tenant = match *table {
            "User" => continue,
            "AnimalOwner" => "(SELECT a.\"tenantId\" FROM \"Animal\" a WHERE a.id = t.\"animalId\")",
            "ContractParty" => "(SELECT c.\"tenantId\" FROM \"Contract\" c WHERE c.id = t.\"contractId\")",
            "PlanParty" => "(SELECT p.\"tenantId\" FROM \"Plan\" p WHERE p.id = t.\"planId\")",
            "TagAssignment" => "(SELECT g.\"tenantId\" FROM \"Tag\" g WHERE g.id = t.\"tagId\")",
            "OffspringGroupBuyer" => "(SELECT g.\"tenantId\" FROM \"OffspringGroup\" g WHERE g.id = t.\"groupId\")",
            // Three contacts had another tenant's party before anything ran.
            "Contact" => continue,
            _ => "t.\"tenantId\"",
        };
        let crossing = format!(
            "SELECT count(*) FROM \"{table}\" t JOIN \"Party\" p ON p.id = t.\"{column}\" WHERE p.\"tenantId\" <> {tenant}"
        );
        assert_eq!(one(&mut client, &crossing), "0", "{table}");
    }
    let overwritten = "SELECT count(*) FROM before b JOIN \"WaitlistEntry\" w USING (id)
                       WHERE b.\"clientPartyId\" IS NOT NULL AND b.\"clientPartyId\" IS DISTINCT FROM w.\"clientPartyId\"";
    assert_eq!(one(&mut client, overwritten), "0");
}

#[test]
fn the_six_tables_of_the_runbook_work_by_name() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    for (table, filled) in [
        ("WaitlistEntry", 24),
        ("AnimalOwner", 15),
        ("BreedingAttempt", 15),
        ("Offspring", 24),
        ("User", 6),
        ("Invoice", 24),
    ] {
        let sql = format!("SELECT filled FROM backfill_party_ids('{table}', dry_run => false)");
        assert_eq!(one(&mut client, &sql), filled.to_string(), "{table}");
    }
}

#[test]
fn a_table_without_legacy_columns_is_a_note_among_all_and_an_error_by_name() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    let note = one(
        &mut client,
        "SELECT note FROM backfill_party_ids() WHERE table_name = '\"Message\"'",
    );
    assert!(
        note.starts_with("nothing to fill it from: no other column of \"Message\" leads to a row"),
        "{note}"
    );
    let failed = failure(&mut client, "SELECT * FROM backfill_party_ids('Message')");
    assert_eq!(failed.code, "42703");
    assert_eq!(
        failed.message,
        "no source for \"Message\".senderPartyId can be inferred"
    );
    assert!(failed.hint.contains("sources => ARRAY["), "{failed:?}");
    // A contact is not the organization that it works for.
    let failed = failure(&mut client, "SELECT * FROM backfill_party_ids('Contact')");
    assert!(
        failed.detail.contains("relates one kind of party to another"),
        "{failed:?}"
    );
    let failed = failure(&mut client, "SELECT * FROM backfill_party_ids('Tenant')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42703", "no column of \"Tenant\" references \"Party\"")
    );
}

#[test]
fn every_way_of_asking_gives_the_same_numbers() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    let spelled = "SELECT total, filled, reasons FROM backfill('WaitlistEntry', 'clientPartyId',
                   ARRAY['contactId -> Contact.partyId', 'organizationId -> Organization.partyId'])";
    let expected = one(&mut client, spelled);
    for call in [
        "backfill('\"WaitlistEntry\"', '\"clientPartyId\"')",
        "backfill('public.WaitlistEntry', 'clientPartyId')",
        "backfill('\"WaitlistEntry\"'::regclass::text, 'clientPartyId')",
        "backfill_party_ids('WaitlistEntry')",
        r#"backfill('{"table": "WaitlistEntry", "column": "clientPartyId"}')"#,
        r#"backfill('{"table": "WaitlistEntry", "column": "clientPartyId", "sources": ["contactId -> Contact(id).partyId",
            {"columns": ["organizationId"], "hops": [{"table": "Organization", "columns": ["partyId"]}]}]}', true)"#,
    ] {
        assert_eq!(
            one(&mut client, &format!("SELECT total, filled, reasons FROM {call}")),
            expected,
            "{call}"
        );
    }
}

#[test]
fn conflicts_follow_the_policy() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    let counts = |client: &mut Client, policy: &str| {
        let sql = format!(
            "SELECT filled, coalesce(reasons ->> 'conflict', '0') FROM backfill_party_ids('WaitlistEntry', on_conflict => '{policy}')"
        );
        one(client, &sql)
    };
    assert_eq!(counts(&mut client, "skip"), "24|3");
    assert_eq!(counts(&mut client, "first"), "27|0");
    // Agreeing, disagreeing, and the deleted contact with an organization: two keys are set in each.
    assert_eq!(counts(&mut client, "any_two"), "18|9");
    for dry_run in [true, false] {
        let sql = format!("SELECT * FROM backfill_party_ids('WaitlistEntry', {dry_run}, on_conflict => 'error')");
        let failed = failure(&mut client, &sql);
        assert_eq!(
            (failed.code.as_str(), failed.message.as_str()),
            (
                "21000",
                "3 rows of \"WaitlistEntry\".\"clientPartyId\" have sources that disagree"
            )
        );
        assert!(
            failed
                .hint
                .contains("backfill_unfilled('\"WaitlistEntry\"', 'clientPartyId')"),
            "{failed:?}"
        );
    }
    assert_eq!(
        one(&mut client, "SELECT count(\"clientPartyId\") FROM \"WaitlistEntry\""),
        "3",
        "an error leaves nothing"
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.runs"), "0");
}

#[test]
fn rows_left_empty_are_listed_with_what_was_found() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    let sql = "SELECT DISTINCT ON (reason) reason, detail FROM backfill_unfilled('WaitlistEntry', 'clientPartyId') ORDER BY reason, key";
    assert_eq!(
        lines(&mut client, sql),
        [
            "conflict|contactId = 4 gives 4; organizationId = 4 gives 104",
            "constraint_failed|refused by WaitlistEntry_cancelled_has_no_client; contactId = 13 gives 13; organizationId is NULL",
            "cross_tenant|contactId = 28 gives 201; organizationId is NULL; \"Party\" 201 belongs to tenant 2, the row to 1",
            "no_source|contactId is NULL; organizationId is NULL",
            "source_missing|contactId = 9001: contactId -> Contact.partyId finds no row; organizationId is NULL",
            "source_null|contactId = 25: Contact.partyId is NULL; organizationId is NULL",
        ]
    );
    let counted = "SELECT count(*) FROM backfill_unfilled('WaitlistEntry', 'clientPartyId', max_rows => 1000)";
    let unfilled = one(
        &mut client,
        "SELECT unfilled FROM backfill('WaitlistEntry', 'clientPartyId')",
    );
    assert_eq!(one(&mut client, counted), unfilled);
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*) FROM backfill_unfilled('WaitlistEntry', 'clientPartyId', max_rows => 5)"
        ),
        "5"
    );
}

#[test]
fn only_where_and_tenant_exclude_and_say_so() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    let sql = "SELECT filled, reasons ->> 'excluded' FROM backfill('WaitlistEntry', 'clientPartyId', tenant => '2', only_where => $$status = 'OPEN'$$)";
    assert_eq!(one(&mut client, sql), "8|33");
    let run = "SELECT filled, reasons ->> 'excluded' FROM backfill('WaitlistEntry', 'clientPartyId', tenant => '2', dry_run => false)";
    assert_eq!(one(&mut client, run), "8|32");
    let written = "SELECT DISTINCT \"tenantId\" FROM \"WaitlistEntry\" w WHERE xmin <> (SELECT min(xmin::text::int)::text::xid FROM \"WaitlistEntry\")";
    assert_eq!(lines(&mut client, written), ["2"]);
    // A user belongs to no single tenant: none of them is of tenant 2.
    let user = "SELECT reasons, note FROM backfill_party_ids(tenant => '2') WHERE table_name = '\"User\"'";
    let user = one(&mut client, user);
    assert!(
        user.starts_with(r#"{"excluded": 18}|"#) && user.contains("nothing says which tenant they belong to"),
        "{user}"
    );
    // Enum labels, subqueries and names in the caller's own search_path mean what they mean to the caller.
    let sql = "SELECT reasons ->> 'excluded' FROM backfill('Offspring', 'buyerPartyId', only_where => $$\"Offspring\".\"placementState\" = 'WITH_BUYER'::\"PlacementState\" AND \"tenantId\" IN (SELECT id FROM \"Tenant\" WHERE name ~ '1$') -- comment$$)";
    assert_eq!(one(&mut client, sql), "33");
}

#[test]
fn the_record_tells_what_ran_and_can_be_run_again() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    let run = one(
        &mut client,
        "SELECT run_id FROM backfill('WaitlistEntry', 'clientPartyId', dry_run => false, only_where => 'id > 0')",
    );
    let record = format!("SELECT * FROM mend.runs WHERE run_id = {run}");
    let row = client.query_one(&record, &[]).unwrap();
    let text = |name: &str| row.get::<_, String>(name);
    assert_eq!(
        (text("operation"), text("table_name"), text("column_name")),
        (
            "backfill".into(),
            "public.\"WaitlistEntry\"".into(),
            "clientPartyId".into()
        )
    );
    assert_eq!(row.get::<_, i64>("filled"), 24);
    assert!(
        text("statement").starts_with("UPDATE public.\"WaitlistEntry\" AS t\nSET \"clientPartyId\" = classified.value")
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT run_by, session_role, duration >= interval '0', length(schema_fingerprint) FROM mend.runs"
        ),
        "postgres|postgres|t|32"
    );
    // The rule is complete: the same call again, and nothing is left to do.
    let again = "SELECT b.filled, b.already_set FROM mend.runs r, backfill(r.rule, false) b";
    assert_eq!(one(&mut client, again), "0|27");
    // Another schema, another fingerprint.
    client
        .batch_execute("ALTER TABLE \"WaitlistEntry\" ADD COLUMN extra text")
        .unwrap();
    client
        .simple_query("SELECT backfill('WaitlistEntry', 'clientPartyId', dry_run => false)")
        .unwrap();
    assert_eq!(
        one(&mut client, "SELECT count(DISTINCT schema_fingerprint) FROM mend.runs"),
        "2"
    );
}

#[test]
fn the_statements_for_review_do_by_hand_what_the_call_does() {
    let database = pgrx_tests::database();
    let mut client = loaded(&database);
    for table in ["WaitlistEntry", "AnimalOwner", "PlanParty"] {
        let column = PARTY_COLUMNS.iter().find(|(name, _)| *name == table).unwrap().1;
        let expected = one(
            &mut client,
            &format!("SELECT filled FROM backfill('{table}', '{column}', tenant => '1')"),
        );
        let write = one(
            &mut client,
            &format!(
                "SELECT statement FROM backfill_sql('{table}', '{column}', tenant => '1') WHERE purpose = 'write'"
            ),
        );
        // The count for people says what the call says.
        let count = one(
            &mut client,
            &format!(
                "SELECT statement FROM backfill_sql('{table}', '{column}', tenant => '1') WHERE purpose LIKE 'count what%'"
            ),
        );
        let shown = client.query_one(&count, &[]).unwrap();
        let filled: i64 = shown.get(shown.len() - 2);
        assert_eq!(filled.to_string(), expected, "{count}");
        // As it stands, behind the settings that are part of it.
        client
            .batch_execute("BEGIN; SET LOCAL search_path = pg_catalog")
            .unwrap();
        let written = client.execute(&write, &[]).unwrap();
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(written.to_string(), expected, "{write}");
        assert_eq!(
            one(
                &mut client,
                &format!("SELECT filled FROM backfill('{table}', '{column}', tenant => '1')")
            ),
            "0"
        );
    }
}

#[test]
fn everything_installed_has_a_comment_and_nobody_else_may_call_it() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    let uncommented = "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
                       WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
                         AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_mend')
                         AND obj_description(objid, classid::regclass::text) IS NULL
                         AND classid NOT IN ('pg_type'::regclass)
                         AND NOT (classid = 'pg_class'::regclass AND (SELECT relkind FROM pg_class WHERE oid = objid) = 'S')";
    assert_eq!(lines(&mut client, uncommented), Vec::<String>::new());
    let columns = "SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'mend.runs'::regclass AND a.attnum > 0
                   AND col_description(a.attrelid, a.attnum) IS NULL";
    assert_eq!(lines(&mut client, columns), Vec::<String>::new());
    let open = "SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
                JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mend',
                LATERAL aclexplode(p.proacl) a WHERE a.grantee = 0
                UNION SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
                JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mend' WHERE p.proacl IS NULL OR p.prosecdef";
    assert_eq!(lines(&mut client, open), Vec::<String>::new());
}
