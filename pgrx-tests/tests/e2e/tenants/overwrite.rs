//! What overwrite replaces, keeps and refuses.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, load_organizations, one};

#[test]
fn values_that_their_source_contradicts_are_replaced_only_when_asked_and_kept() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_organizations(&mut client);
    let fill = |how: &str| {
        format!(
            "SELECT already_set, filled, unfilled, note ~ 'replaced' FROM backfill('structured_extractions', 'organization_id'{how})"
        )
    };
    assert_eq!(lines(&mut client, &fill(", dry_run => false")), ["30|0|0|f"]);
    let before = lines(
        &mut client,
        "SELECT id, organization_id FROM structured_extractions WHERE id IN (4, 8, 15) ORDER BY id",
    );
    assert_eq!(lines(&mut client, &fill(", overwrite => 'mismatched'")), ["27|3|0|t"]);
    assert_eq!(
        lines(&mut client, &fill(", overwrite => 'mismatched', dry_run => false")),
        ["27|3|0|t"]
    );
    let kept = "SELECT row_key ->> 'id', old_value FROM mend.replaced_values JOIN mend.runs USING (run_id)
                WHERE column_name = 'organization_id' ORDER BY (row_key ->> 'id')::int";
    assert_eq!(lines(&mut client, kept), before);
    assert_eq!(
        one(
            &mut client,
            "SELECT disagrees FROM backfill_coverage() WHERE table_name = 'structured_extractions'"
        ),
        "0"
    );
    assert_eq!(
        lines(&mut client, &fill(", overwrite => 'mismatched', dry_run => false")),
        ["30|0|0|f"]
    );
    // What was replaced can be put back by hand from the record.
    client
        .batch_execute(
            "UPDATE structured_extractions s SET organization_id = k.old_value::uuid FROM mend.replaced_values k
             WHERE s.id = (k.row_key ->> 'id')::bigint",
        )
        .unwrap();
    let again = lines(
        &mut client,
        "SELECT id, organization_id FROM structured_extractions WHERE id IN (4, 8, 15) ORDER BY id",
    );
    assert_eq!(again, before);
    // The same by the recorded rule.
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill((SELECT rule FROM mend.runs WHERE filled = 3), false)"
        ),
        "3"
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('messages', 'organization_id', overwrite => 'all')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("22023", "overwrite cannot be \"all\"")
    );
}

#[test]
fn what_could_not_be_put_back_is_not_overwritten() {
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id int PRIMARY KEY); CREATE TABLE sites (id int PRIMARY KEY, organization_id int REFERENCES organizations);
         CREATE TABLE logs (site_id int REFERENCES sites, organization_id int REFERENCES organizations);
         CREATE TABLE folders (id int PRIMARY KEY, parent_id int REFERENCES folders, organization_id int REFERENCES organizations);
         INSERT INTO organizations VALUES (1), (2); INSERT INTO sites VALUES (1, 1); INSERT INTO logs VALUES (1, 2);
         INSERT INTO folders VALUES (1, NULL, 1), (2, 1, 2)",
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('logs', 'organization_id', overwrite => 'mismatched')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        (
            "42830",
            "logs has no primary key, so what is overwritten could not be put back"
        )
    );
    client.batch_execute(&failed.hint).unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('logs', 'organization_id', overwrite => 'mismatched')"
        ),
        "1"
    );
    // In a tree, which of two rows that disagree is the wrong one cannot be told: it keeps what it has.
    assert_eq!(
        one(
            &mut client,
            "SELECT already_set FROM backfill('folders', 'organization_id', overwrite => 'mismatched')"
        ),
        "2"
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, already_set, filled FROM backfill_tenant_ids(overwrite => 'mismatched', dry_run => false) ORDER BY 1"
        ),
        ["folders|2|0", "logs|0|1", "sites|1|0"]
    );
}

#[test]
fn a_role_sees_what_its_own_runs_replaced() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    let (owner, other) = (format!("owner_{}", database.name), format!("other_{}", database.name));
    admin
        .batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {other} LOGIN; SELECT grant_mend('{owner}'); SELECT grant_mend('{other}');
             GRANT CREATE ON SCHEMA public TO {owner}"
        ))
        .unwrap();
    let mut client = database.connect_as(&owner);
    client
        .batch_execute(
            "CREATE TABLE organizations (id int PRIMARY KEY); CREATE TABLE sites (id int PRIMARY KEY, organization_id int REFERENCES organizations);
             CREATE TABLE pages (id int PRIMARY KEY, site_id int REFERENCES sites, organization_id int REFERENCES organizations);
             INSERT INTO organizations VALUES (1), (2); INSERT INTO sites VALUES (1, 1); INSERT INTO pages VALUES (1, 1, 2), (2, 1, 1)",
        )
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('pages', 'organization_id', overwrite => 'mismatched', dry_run => false)"
        ),
        "1"
    );
    let kept = "SELECT row_key, old_value, new_value FROM mend.replaced_values";
    assert_eq!(lines(&mut client, kept), [r#"{"id": 1}|2|1"#]);
    assert!(lines(&mut database.connect_as(&other), kept).is_empty());
    assert_eq!(lines(&mut admin, kept).len(), 1);
}

#[test]
fn constraints_that_are_checked_at_once_and_rows_that_were_empty_are_no_surprise() {
    let (_database, mut client) = database_with(
        "CREATE TABLE o (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY, o_id int NOT NULL REFERENCES o);
         CREATE TABLE p (id int PRIMARY KEY, d_id int REFERENCES d, o_id int REFERENCES o, slug text, UNIQUE (o_id, slug));
         INSERT INTO o VALUES (1), (2); INSERT INTO d VALUES (1, 1), (2, 2); INSERT INTO p VALUES (1, 1, NULL, 'a'), (2, 1, 2, 'b'), (3, 2, 1, 'b')",
    );
    let call = |dry_run: bool| {
        format!(
            "SELECT filled, split_part(note, ';', 1) FROM backfill('p', 'o_id', overwrite => 'mismatched', dry_run => {dry_run})"
        )
    };
    assert_eq!(
        one(&mut client, &call(true)),
        "1|refused: 2 by p_o_id_slug_key",
        "each wants the place of the other"
    );
    client.batch_execute("UPDATE p SET slug = 'c' WHERE id = 3").unwrap();
    assert_eq!(
        one(&mut client, &call(true)),
        "3|2 of the rows counted as filled have a different value, which would be replaced and recorded"
    );
    client.batch_execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE").unwrap();
    assert_eq!(
        one(&mut client, &call(false)),
        "3|2 of the filled rows had another value, kept in mend.replaced_values"
    );
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.replaced_values"), "2");
}

#[test]
fn a_column_that_other_rows_reference_is_not_overwritten_under_them() {
    let (_database, mut client) = database_with(
        "CREATE TABLE o (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY, o_id int NOT NULL REFERENCES o);
         CREATE TABLE p (id int PRIMARY KEY, d_id int REFERENCES d, o_id int REFERENCES o, UNIQUE (o_id, id));
         CREATE TABLE c (id int PRIMARY KEY, p_id int, o_id int, CONSTRAINT to_p FOREIGN KEY (o_id, p_id) REFERENCES p (o_id, id) ON UPDATE CASCADE);
         INSERT INTO o VALUES (1), (2); INSERT INTO d VALUES (1, 1); INSERT INTO p VALUES (1, 1, 2); INSERT INTO c VALUES (1, 1, 2)",
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('p', 'o_id', overwrite => 'mismatched', dry_run => false)",
    );
    assert_eq!(
        (failed.code.as_str(), failed.detail.as_str()),
        ("0A000", "foreign keys to it: to_p of c")
    );
    // Over all tables it is a row with a note, with or without a tenant.
    for tenant in ["NULL", "'2'"] {
        let sql = format!(
            "SELECT filled, note FROM backfill_tenant_ids('o', false, overwrite => 'mismatched', tenant => {tenant}) WHERE table_name = 'p'"
        );
        let row = one(&mut client, &sql);
        assert!(
            row.starts_with("0|not filled: p.o_id is referenced by other rows"),
            "{row}"
        );
    }
    assert_eq!(one(&mut client, "SELECT o_id FROM c"), "2");
}
