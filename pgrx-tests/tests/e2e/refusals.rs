//! What a wrong call says: SQLSTATE, message, and a hint with the next call; nothing is written.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, load_party, one};

#[test]
fn a_wrong_call_says_what_is_wrong_and_what_to_do() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_party(&mut client);
    client
        .batch_execute(
            "CREATE SCHEMA other; CREATE TABLE other.\"Ledger\" (id int);
             CREATE TABLE loose (id int, ref text, doc json, name text, day date);
             CREATE TABLE pairs (a int, b int, v int, PRIMARY KEY (a, b)); CREATE SCHEMA \"T\"; CREATE TABLE \"T\".x (id int); CREATE TABLE \"T.x\" (id int)",
        )
        .unwrap();
    // (call, SQLSTATE, in the message, in detail or hint)
    for (call, code, message, more) in [
        (
            "backfill('WaitlistEntri', 'clientPartyId')",
            "42P01",
            "table \"WaitlistEntri\" does not exist",
            "did you mean '\"WaitlistEntry\"'?",
        ),
        (
            "backfill('waitlistentry', 'clientPartyId')",
            "42P01",
            "does not exist",
            "did you mean '\"WaitlistEntry\"'?",
        ),
        (
            "backfill('Ledger', 'id')",
            "42P01",
            "does not exist",
            "did you mean 'other.\"Ledger\"'?",
        ),
        ("backfill('', 'id')", "42P01", "table \"\" does not exist", ""),
        (
            "backfill('T.x', 'id')",
            "42P09",
            "can be read as more than one table",
            "\"public\".\"T.x\" or \"T\".\"x\"",
        ),
        (
            "backfill('WaitlistEntry', 'clientParty')",
            "42703",
            "column \"clientParty\" of table \"WaitlistEntry\" does not exist",
            "did you mean clientPartyId?",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId => Contact.partyId'])",
            "42601",
            "expected '->' or the end at position 21",
            "a path reads like",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId -> Contact'])",
            "42601",
            "expected '.' and the column to take from the table at position 21",
            "contactId -> Contact\n                    ^",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId -> Contct.partyId'])",
            "42P01",
            "table \"Contct\"",
            "'\"Contact\"'",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId -> Contact(idd).partyId'])",
            "42703",
            "column \"idd\" of table \"Contact\"",
            "did you mean id",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY[]::text[])",
            "22023",
            "sources is an empty array",
            "NULL",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY[NULL])",
            "22004",
            "each of sources must not be NULL",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['clientPartyId'])",
            "22023",
            "is the column to fill itself",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['status'])",
            "42804",
            "is integer, but \"WaitlistEntry\".status is text",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['status -> Contact.partyId'])",
            "42804",
            "(text) cannot be compared with \"Contact\".id (integer)",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId -> loose.id'])",
            "42830",
            "no key of loose is known for contactId",
            "name the key",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', ARRAY['contactId -> pairs(a, b).v'])",
            "42830",
            "1 columns cannot be compared with a key of 2",
            "",
        ),
        (
            "backfill('loose', 'doc', ARRAY['doc -> loose(doc).doc'])",
            "42804",
            "the rule has 2 problems",
            "values of type json cannot be compared",
        ),
        (
            "backfill('loose', 'id')",
            "42703",
            "no source for loose.id can be inferred",
            "sources => ARRAY[",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', on_conflict => 'ignore')",
            "22023",
            "on_conflict cannot be \"ignore\"",
            "'skip', 'first', 'error', 'any_two'",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', dry_run => NULL)",
            "22004",
            "dry_run must not be NULL",
            "",
        ),
        (
            "backfill(NULL, 'clientPartyId')",
            "22004",
            "table_name must not be NULL",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', only_where => 'stats = 1')",
            "42703",
            "only_where: column \"stats\" does not exist",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', only_where => 'id')",
            "42804",
            "only_where: argument of WHERE must be type boolean",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', only_where => 'id = 1; DROP TABLE loose')",
            "42601",
            "only_where",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', only_where => 'true) UNION SELECT (true')",
            "42601",
            "only_where must be one condition",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', only_where => 'true) ORDER BY (1')",
            "42601",
            "only_where must be one condition",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', only_where => 'count(*) > 1')",
            "42803",
            "only_where: aggregate functions are not allowed in WHERE",
            "",
        ),
        (
            "backfill('WaitlistEntry', 'clientPartyId', tenant => 'acme')",
            "22P02",
            "tenant: invalid input syntax for type integer",
            "of type integer",
        ),
        (
            "backfill('loose', 'name', ARRAY['ref'], tenant => '1')",
            "42703",
            "the tenant of the rows of loose cannot be determined",
            "",
        ),
        (
            "backfill('{\"table\": \"loose\", \"colum\": \"id\"}'::jsonb)",
            "22023",
            "unknown field `colum`",
            "keys: table, column",
        ),
        ("backfill('[1]'::jsonb)", "22023", "this JSON is no rule", ""),
        (
            "backfill_party_ids('loose')",
            "42703",
            "no column of loose references \"Party\"",
            "",
        ),
        (
            "backfill_party_ids(party_table => 'Parties')",
            "42P01",
            "table \"Parties\" does not exist",
            "'\"Party\"'",
        ),
        (
            "backfill_unfilled('WaitlistEntry', 'clientPartyId', max_rows => -1)",
            "22023",
            "max_rows must not be negative",
            "",
        ),
    ] {
        let failed = failure(&mut client, &format!("SELECT * FROM {call}"));
        assert_eq!(failed.code, code, "{call}: {failed:?}");
        assert!(failed.message.contains(message), "{call}: {failed:?}");
        let said = format!("{}\n{}", failed.detail, failed.hint);
        assert!(said.contains(more), "{call}: {failed:?}");
    }
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.runs"), "0");
}

#[test]
fn all_problems_of_a_rule_are_reported_at_once() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_party(&mut client);
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('WaitlistEntry', 'clientPartyId', ARRAY['contctId -> Contact.partyId', 'contactId -> Contact.name', 'x ->'],
                                only_where => 'nope', tenant => 'acme')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42703", "the rule has 5 problems; nothing was written")
    );
    for (at, part) in failed.detail.lines().zip([
        "1. column \"contctId\"",
        "2. \"WaitlistEntry\".\"clientPartyId\" is integer, but",
        "3. source path: expected a table at position 5",
    ]) {
        assert!(at.starts_with(part), "{at}");
    }
    assert!(
        failed.detail.contains("4. only_where: column \"nope\" does not exist"),
        "{failed:?}"
    );
    assert!(
        failed
            .detail
            .contains("5. tenant: invalid input syntax for type integer: \"acme\""),
        "{failed:?}"
    );
}

#[test]
fn an_ambiguous_tenant_root_lists_its_choices_and_the_setting_settles_it() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE region (id int PRIMARY KEY); CREATE TABLE division (id int PRIMARY KEY); INSERT INTO region VALUES (1), (2); INSERT INTO division VALUES (1), (2);
             CREATE TABLE party (id int PRIMARY KEY, region_id int NOT NULL REFERENCES region, division_id int NOT NULL REFERENCES division);
             CREATE TABLE contact (id int PRIMARY KEY, party_id int REFERENCES party);
             CREATE TABLE entry (id int PRIMARY KEY, region_id int NOT NULL REFERENCES region, division_id int NOT NULL REFERENCES division, contact_id int REFERENCES contact, party_id int REFERENCES party);
             INSERT INTO party VALUES (1, 1, 2); INSERT INTO contact VALUES (1, 1); INSERT INTO entry VALUES (1, 1, 1, 1)",
        )
        .unwrap();
    let failed = failure(&mut client, "SELECT * FROM backfill('entry', 'party_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42P08", "the tenant root of entry and party is ambiguous")
    );
    assert_eq!(
        failed.detail,
        "both reference region (region_id) and division (division_id)"
    );
    assert!(failed.hint.contains("SET pg_mend.tenant_root = 'region'"), "{failed:?}");
    for (root, expected) in [("region", "1|{}"), ("division", r#"0|{"cross_tenant": 1}"#)] {
        client
            .batch_execute(&format!("SET pg_mend.tenant_root = '{root}'"))
            .unwrap();
        assert_eq!(
            one(&mut client, "SELECT filled, reasons FROM backfill('entry', 'party_id')"),
            expected
        );
    }
    client.batch_execute("SET pg_mend.tenant_root = 'divsion'").unwrap();
    let failed = failure(&mut client, "SELECT * FROM backfill('entry', 'party_id')");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42P01", "pg_mend.tenant_root: table \"divsion\" does not exist")
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('entry', 'party_id', tenant_guard => false)"
        ),
        "1"
    );
}

/// Citus is not here; its catalog is, as far as pg_mend reads it (citus 13.2: pg_dist_partition, pg_dist_local_group).
const CITUS: &str = "
    SET allow_system_table_mods = on;
    CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod \"char\", repmodel \"char\");
    CREATE TABLE pg_catalog.pg_dist_local_group (groupid int);
    GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_local_group TO PUBLIC;
    INSERT INTO pg_catalog.pg_dist_local_group VALUES (0);
    RESET allow_system_table_mods;
    CREATE TABLE orgs (id int PRIMARY KEY); INSERT INTO orgs VALUES (1);
    CREATE TABLE users (id int PRIMARY KEY, org_id int REFERENCES orgs); INSERT INTO users VALUES (1, 1);
    CREATE TABLE posts (id int PRIMARY KEY, org_id int REFERENCES orgs, user_id int); INSERT INTO posts VALUES (1, NULL, 1), (2, NULL, 9);
    CREATE TABLE notes (id int PRIMARY KEY, org_id int REFERENCES orgs, user_id int); INSERT INTO notes VALUES (1, NULL, 1);
    INSERT INTO pg_catalog.pg_dist_partition VALUES ('posts', 'h', 's'), ('orgs', 'n', 't'), ('users', 'n', 's');";

#[test]
fn what_lies_on_other_nodes_is_not_written() {
    let (_database, mut client) = database_with(CITUS);
    let calls = [
        "SELECT * FROM backfill('posts', 'org_id', ARRAY['user_id -> users.org_id'])",
        "SELECT * FROM backfill('posts', 'org_id', ARRAY['user_id -> users.org_id'], dry_run => false)",
        "SELECT * FROM repair_orphans('posts', 'user_id', 'nullify')",
        "SELECT * FROM repair_orphans('posts', 'user_id', 'quarantine', dry_run => false)",
        "CALL finalize_backfill('posts', 'user_id', not_null => false, root => 'orgs')",
    ];
    for call in calls {
        let refused = failure(&mut client, call);
        assert_eq!(
            (refused.code.as_str(), refused.message.as_str()),
            (
                "0A000",
                "posts is a distributed table of Citus, which pg_mend does not write yet"
            ),
            "{call}: {refused:?}"
        );
        assert!(refused.hint.contains("undistribute_table"), "{call}: {refused:?}");
    }
    let refused = failure(
        &mut client,
        "SELECT * FROM repair_orphans('users', 'org_id', 'create_parent', dry_run => false)",
    );
    assert_eq!(
        refused.message,
        "orgs is a reference table of Citus, which pg_mend does not write yet"
    );
    // A local table that Citus knows of, and one that it does not, are written as ever.
    let notes = "SELECT filled FROM backfill('notes', 'org_id', ARRAY['user_id -> users.org_id'], dry_run => false)";
    assert_eq!(one(&mut client, notes), "1");
    assert_eq!(
        one(
            &mut client,
            "SELECT orphans FROM validate_tenant_fks() WHERE column_name = 'user_id' AND table_name = 'posts'"
        ),
        "1"
    );
    client
        .batch_execute("UPDATE pg_catalog.pg_dist_local_group SET groupid = 2")
        .unwrap();
    let refused = failure(&mut client, notes);
    assert_eq!(
        (refused.code.as_str(), refused.message.as_str(), refused.hint.as_str()),
        (
            "0A000",
            "this server is a worker of Citus: notes is not written here",
            "run the call on the coordinator"
        )
    );
}
