//! `migration_report`: every question on data where it must find something, and on data where it must not.

use pgrx_tests::example::{failure, lines, load_organizations, load_party, one};
use pgrx_tests::{database, database_with};
use postgres::Client;

/// Question, checked, found, verdict.
fn summary(client: &mut Client, arguments: &str) -> Vec<String> {
    lines(
        client,
        &format!(
            "SELECT question, checked, found, verdict FROM migration_report({arguments}) WHERE table_name IS NULL"
        ),
    )
}

/// Findings of one question: table, column, checked, found.
fn findings(client: &mut Client, question: &str) -> Vec<String> {
    lines(
        client,
        &format!(
            "SELECT table_name, column_name, checked, found FROM migration_report() WHERE question = '{question}' AND table_name IS NOT NULL"
        ),
    )
}

const CLEAN: &str = "
    CREATE TABLE tenants (id int PRIMARY KEY);
    CREATE TABLE customers (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants);
    CREATE TABLE jobs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, customer_id int REFERENCES customers);
    CREATE INDEX ON customers (tenant_id); CREATE INDEX ON jobs (tenant_id, id);
    CREATE INDEX ON jobs (customer_id) WHERE customer_id IS NOT NULL;
    ALTER TABLE customers ENABLE ROW LEVEL SECURITY; ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON customers USING (tenant_id = current_setting('app.tenant')::int);
    CREATE POLICY p ON jobs USING (tenant_id = current_setting('app.tenant')::int);";

const ROWS: &str = "INSERT INTO tenants VALUES (1), (2); INSERT INTO customers VALUES (1, 1), (2, 2);
    INSERT INTO jobs VALUES (1, 1, 1), (2, 2, 2), (3, 1, NULL);";

#[test]
fn a_finished_migration_is_ok_and_an_empty_one_was_not_checked() {
    let (_database, mut client) = database_with(CLEAN);
    assert_eq!(
        summary(&mut client, ""),
        [
            "legacy columns|0|0|not_checked",
            "mandatory NULLs|0|0|not_checked",
            "orphans|0|0|not_checked",
            "cross-tenant references|0|0|not_checked",
            "foreign keys|3|0|ok",
            "indexes|3|0|ok",
            "coverage|0|0|not_checked",
            "NOT NULL|2|0|ok",
            "row-level security|2|0|ok",
            "total|4|0|ok"
        ]
    );
    client.batch_execute(ROWS).unwrap();
    assert_eq!(
        summary(&mut client, ""),
        [
            "legacy columns|1|0|ok",
            "mandatory NULLs|2|0|ok",
            "orphans|3|0|ok",
            "cross-tenant references|3|0|ok",
            "foreign keys|3|0|ok",
            "indexes|3|0|ok",
            "coverage|1|0|ok",
            "NOT NULL|2|0|ok",
            "row-level security|2|0|ok",
            "total|9|0|ok"
        ]
    );
    // Read-only, and without tenants nothing is said about them.
    client.batch_execute("BEGIN READ ONLY").unwrap();
    assert_eq!(
        summary(&mut client, "''")[7..],
        [
            "NOT NULL|0|0|not_checked",
            "row-level security|0|0|not_checked",
            "total|4|0|ok"
        ]
    );
    client
        .batch_execute("COMMIT; DROP TABLE jobs, customers, tenants")
        .unwrap();
    assert_eq!(summary(&mut client, "").last().unwrap(), "total|0|0|not_checked");
}

#[test]
fn each_question_finds_what_is_broken() {
    let questions: [(&str, &str, &str); 9] = [
        ("legacy columns", "ALTER TABLE jobs ADD old_id int", "jobs|old_id|3|0"),
        (
            "mandatory NULLs",
            "ALTER TABLE jobs ALTER tenant_id DROP NOT NULL; UPDATE jobs SET tenant_id = NULL WHERE id = 1",
            "jobs|tenant_id|3|1",
        ),
        (
            "orphans",
            "SET session_replication_role = replica; UPDATE jobs SET customer_id = 9 WHERE id < 3",
            "jobs|customer_id|2|2",
        ),
        (
            "cross-tenant references",
            "UPDATE jobs SET customer_id = 2 WHERE id = 1",
            "jobs|customer_id|2|1",
        ),
        (
            "foreign keys",
            "ALTER TABLE jobs DROP CONSTRAINT jobs_customer_id_fkey",
            "jobs|customer_id|2|1",
        ),
        (
            "foreign keys",
            "ALTER TABLE jobs DROP CONSTRAINT jobs_customer_id_fkey, ADD FOREIGN KEY (customer_id) REFERENCES customers NOT VALID",
            "jobs|customer_id|2|1",
        ),
        (
            "coverage",
            "UPDATE jobs SET tenant_id = 2 WHERE id = 1",
            "jobs|tenant_id|3|1",
        ),
        (
            "NOT NULL",
            "ALTER TABLE jobs ALTER tenant_id DROP NOT NULL",
            "jobs|tenant_id|3|1",
        ),
        (
            "row-level security",
            "ALTER POLICY p ON jobs USING (id > 0)",
            "jobs|tenant_id|1|1",
        ),
    ];
    for (question, change, finding) in questions {
        let (_database, mut client) = database_with(&format!("{CLEAN} {ROWS} {change};"));
        assert_eq!(findings(&mut client, question), [finding], "{question}: {change}");
        let answer = format!("{question}|");
        assert!(
            summary(&mut client, "")
                .iter()
                .any(|line| line.starts_with(&answer) && line.ends_with("|1|open")),
            "{question}: {change}"
        );
    }
    for change in [
        "DROP INDEX jobs_tenant_id_id_idx",
        "DROP INDEX jobs_tenant_id_id_idx; CREATE INDEX ON jobs (tenant_id) WHERE id > 7",
    ] {
        let (_database, mut client) = database_with(&format!("{CLEAN} {ROWS} {change};"));
        assert_eq!(
            lines(
                &mut client,
                "SELECT table_name, column_name, next FROM migration_report() WHERE question = 'indexes' AND table_name IS NOT NULL"
            ),
            ["jobs|tenant_id|CREATE INDEX CONCURRENTLY ON public.\"jobs\" (tenant_id)"]
        );
    }
    for (change, detail) in [
        (
            "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
            "row-level security is off: its policies (p) do nothing",
        ),
        (
            "DROP POLICY p ON jobs",
            "row-level security is on without a policy: only its owner sees rows",
        ),
        (
            "DROP POLICY p ON jobs; ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
            "row-level security is off, and on for 1 other tenant tables",
        ),
    ] {
        let (_database, mut client) = database_with(&format!("{CLEAN} {ROWS} {change};"));
        assert_eq!(
            one(
                &mut client,
                "SELECT detail FROM migration_report() WHERE question = 'row-level security' AND table_name = 'jobs'"
            ),
            detail
        );
    }
}

#[test]
fn the_party_model_is_asked_for_its_legacy_columns() {
    let database = database();
    let mut client = database.connect();
    load_party(&mut client);
    let by_hand = one(
        &mut client,
        "SELECT count(*) FILTER (WHERE \"clientPartyId\" IS NULL), count(*) FILTER (WHERE \"clientPartyId\" IS NULL AND (\"contactId\" IS NOT NULL OR \"organizationId\" IS NOT NULL)) FROM \"WaitlistEntry\"",
    );
    let detail = one(
        &mut client,
        "SELECT found, detail FROM migration_report() WHERE question = 'mandatory NULLs' AND table_name = '\"WaitlistEntry\"'",
    );
    let (nulls, left) = by_hand.split_once('|').unwrap();
    assert_eq!(
        detail,
        format!("{nulls}|no party in {nulls} of 48 rows, {left} of which have a legacy value")
    );
    // Also those of which nothing says where they could come from.
    assert!(findings(&mut client, "mandatory NULLs").contains(&"\"Message\"|senderPartyId|6|3".to_string()));
    let legacy = findings(&mut client, "legacy columns");
    assert!(
        legacy.contains(&"\"WaitlistEntry\"|contactId|48|39".to_string()),
        "{legacy:#?}"
    );
    assert_eq!(
        findings(&mut client, "cross-tenant references"),
        ["\"Contact\"|partyId|27|3"]
    );
    client
        .batch_execute("ALTER TABLE \"WaitlistEntry\" DROP COLUMN \"contactId\", DROP COLUMN \"organizationId\"")
        .unwrap();
    assert!(
        !findings(&mut client, "legacy columns")
            .iter()
            .any(|line| line.contains("WaitlistEntry"))
    );
    assert_eq!(
        failure(&mut client, "SELECT * FROM migration_report(party_table => 'Partei')").code,
        "42P01"
    );
}

#[test]
fn every_next_call_runs_and_leads_to_the_end() {
    let database = database();
    let mut client = database.connect();
    load_organizations(&mut client);
    client
        .batch_execute("SELECT backfill_tenant_ids(dry_run => false)")
        .unwrap();
    client
        .batch_execute("SELECT backfill_tenant_ids(dry_run => false, overwrite => 'mismatched')")
        .unwrap();
    // What nobody can fill is decided by a person.
    client
        .batch_execute(
            "DELETE FROM page_embeddings WHERE organization_id IS NULL;
             DELETE FROM messages WHERE organization_id IS NULL OR conversation_id IN (SELECT id FROM conversations WHERE organization_id IS NULL);
             DELETE FROM conversations WHERE organization_id IS NULL;",
        )
        .unwrap();
    for _ in 0..2 {
        for next in lines(
            &mut client,
            "SELECT DISTINCT next FROM migration_report() WHERE next IS NOT NULL",
        ) {
            let shown = client
                .simple_query(&next)
                .unwrap_or_else(|error| panic!("{next}: {error:?}"));
            // Policies are printed to be run.
            if next.starts_with("SELECT statement FROM finalize_plan") {
                for message in shown {
                    if let postgres::SimpleQueryMessage::Row(row) = message {
                        client.simple_query(row.get(0).unwrap()).unwrap();
                    }
                }
            }
        }
    }
    assert_eq!(
        lines(
            &mut client,
            "SELECT question, table_name, column_name, detail FROM migration_report() WHERE verdict = 'open' AND table_name IS NOT NULL"
        ),
        [
            "legacy columns|conversations|customer_id|NULL in every row; nothing in the database uses it",
            "legacy columns|conversations|metadata|NULL in every row; used by view public.conversation_overview",
        ]
    );
}
