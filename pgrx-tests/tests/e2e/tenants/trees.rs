//! Tables that hang on themselves or on each other.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

#[test]
fn a_circle_names_its_tables_and_the_edge_to_break() {
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id int PRIMARY KEY);
         CREATE TABLE eggs (id int PRIMARY KEY, organization_id int REFERENCES organizations);
         CREATE TABLE hens (id int PRIMARY KEY, egg_id int REFERENCES eggs, organization_id int REFERENCES organizations);
         ALTER TABLE eggs ADD hen_id int NOT NULL REFERENCES hens;
         CREATE TABLE feathers (id int PRIMARY KEY, hen_id int REFERENCES hens, organization_id int REFERENCES organizations);
         INSERT INTO organizations VALUES (1); INSERT INTO hens VALUES (1, NULL, 1); INSERT INTO eggs VALUES (1, NULL, 1);
         INSERT INTO hens VALUES (2, 1, NULL); INSERT INTO feathers VALUES (1, 2, NULL)",
    );
    let failed = failure(&mut client, "SELECT * FROM backfill_tenant_ids()");
    assert_eq!(failed.code, "42P17");
    assert_eq!(failed.detail, "eggs.hen_id -> hens, hens.egg_id -> eggs");
    assert!(
        failed.hint.starts_with("break the cycle at hens.egg_id"),
        "{}",
        failed.hint
    );
    let note = one(
        &mut client,
        "SELECT note FROM tenant_columns() WHERE table_name = 'hens'",
    );
    assert!(
        note.starts_with("it can only be filled from eggs, which is filled from it in turn"),
        "{note}"
    );
    // The calls of the hint, one after the other.
    let calls: Vec<&str> = failed
        .hint
        .split("backfill_tenant_ids(")
        .skip(1)
        .map(|c| c.split(')').next().unwrap())
        .collect();
    assert_eq!(calls.len(), 2);
    for arguments in calls {
        let filled = one(
            &mut client,
            &format!("SELECT filled FROM backfill_tenant_ids({arguments})"),
        );
        assert_eq!(filled, "1", "{arguments}");
    }
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill_tenant_ids(table_name => 'feathers', dry_run => false)"
        ),
        "1"
    );
}

#[test]
fn a_circle_with_another_way_in_is_broken_where_it_says_least() {
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id int PRIMARY KEY);
         CREATE TABLE accounts (id int PRIMARY KEY, organization_id int NOT NULL REFERENCES organizations);
         CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts, organization_id int REFERENCES organizations);
         CREATE TABLE boards (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects, organization_id int REFERENCES organizations);
         ALTER TABLE projects ADD main_board_id int REFERENCES boards;
         INSERT INTO organizations VALUES (1); INSERT INTO accounts VALUES (1, 1); INSERT INTO projects VALUES (1, 1);
         INSERT INTO boards VALUES (1, 1); UPDATE projects SET main_board_id = 1",
    );
    let rows = lines(
        &mut client,
        "SELECT table_name, filled, note FROM backfill_tenant_ids(dry_run => false) WHERE filled > 0",
    );
    assert_eq!(
        rows,
        [
            "projects|1|main_board_id -> boards.organization_id is not followed in a run over all tables, where it would close a circle; with table_name it is; from account_id -> accounts.organization_id",
            "boards|1|from project_id -> projects.organization_id",
        ]
    );
}

#[test]
fn a_tree_is_filled_in_passes_and_the_tenant_may_be_part_of_other_keys() {
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id int PRIMARY KEY);
         CREATE TABLE folders (id int PRIMARY KEY, parent_id int REFERENCES folders, organization_id int REFERENCES organizations, UNIQUE (organization_id, id));
         CREATE TABLE files (id int PRIMARY KEY, folder_id int NOT NULL, organization_id int, FOREIGN KEY (organization_id, folder_id) REFERENCES folders (organization_id, id));
         INSERT INTO organizations VALUES (1), (2);
         INSERT INTO folders SELECT g, CASE WHEN g > 2 THEN g - 2 END, CASE WHEN g <= 2 THEN g END FROM generate_series(1, 60) g;
         INSERT INTO files SELECT g, g FROM generate_series(1, 60) g",
    );
    let dry = lines(
        &mut client,
        "SELECT table_name, already_set, filled, unfilled FROM backfill_tenant_ids()",
    );
    let real = lines(
        &mut client,
        "SELECT table_name, already_set, filled, unfilled FROM backfill_tenant_ids(dry_run => false)",
    );
    assert_eq!(dry, ["folders|2|58|0", "files|0|60|0"]);
    assert_eq!(real, dry);
    assert_eq!(
        one(
            &mut client,
            "SELECT bool_and(organization_id = 2 - id % 2) FROM (SELECT * FROM folders UNION ALL SELECT id, 0, organization_id FROM files) x"
        ),
        "t"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT path FROM tenant_columns() WHERE table_name = 'files'"
        ),
        "folder_id -> folders.organization_id"
    );
}

const NODES: &str = "
    CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o VALUES (1), (2);
    CREATE TABLE d (id int PRIMARY KEY, o_id int NOT NULL REFERENCES o); INSERT INTO d VALUES (1, 1), (2, 2);";

/// The dry run, then the real one: the same, and a second one finds nothing.
fn dry_is_real(client: &mut Client, call: &str) -> Vec<String> {
    let run = |client: &mut Client, dry_run: bool| {
        let sql = format!("SELECT table_name, filled, reasons FROM backfill_tenant_ids('o', {dry_run}{call})");
        lines(client, &sql)
    };
    let dry = run(client, true);
    assert_eq!(run(client, false), dry);
    let again = format!("SELECT coalesce(sum(filled), 0) FROM backfill_tenant_ids('o', false{call})");
    assert_eq!(one(client, &again), "0");
    dry
}

#[test]
fn rows_that_hang_on_each_other_in_a_circle_do_not_keep_a_run_busy_forever() {
    let (_database, mut client) = database_with(&format!(
        "{NODES} CREATE TABLE n (id int PRIMARY KEY, d_id int REFERENCES d, o_id int REFERENCES o, parent_id int REFERENCES n);
         INSERT INTO n VALUES (1, NULL, 1, NULL), (2, NULL, 2, NULL);
         INSERT INTO n VALUES (3, 1, NULL, NULL), (4, 2, NULL, 3), (5, NULL, NULL, NULL), (6, NULL, NULL, 5);
         UPDATE n SET parent_id = 4 WHERE id = 3; UPDATE n SET parent_id = 6 WHERE id = 5"
    ));
    assert_eq!(
        dry_is_real(&mut client, ", 'n'"),
        ["n|0|{\"conflict\": 2, \"source_null\": 2}"]
    );
    client
        .batch_execute("ALTER TABLE n ADD copied_from_id int REFERENCES n")
        .unwrap();
    assert_eq!(
        lines(
            &mut client,
            "SELECT path, alternatives FROM tenant_columns('o') WHERE table_name = 'n'"
        ),
        ["d_id -> d.o_id|{\"parent_id -> n.o_id\",\"copied_from_id -> n.o_id\"}"]
    );
    let note = one(
        &mut client,
        "SELECT note FROM tenant_columns('o') WHERE table_name = 'n'",
    );
    assert!(
        note.contains("copied_from_id -> n.o_id is not followed: a tree is filled along one reference only"),
        "{note}"
    );
}

#[test]
fn a_trigger_or_a_foreign_key_that_is_not_valid_is_no_obstacle_in_a_tree() {
    let (_database, mut client) = database_with(&format!(
        "{NODES} CREATE TABLE msg (id int PRIMARY KEY, d_id int REFERENCES d, reply_to int REFERENCES msg, o_id int REFERENCES o, updated_at timestamptz);
         INSERT INTO msg VALUES (4, 2, NULL, NULL), (3, NULL, 4, NULL), (2, 1, 3, NULL), (1, 1, NULL, NULL), (5, NULL, 3, NULL);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at = now(); RETURN NEW; END';
         CREATE TRIGGER touch BEFORE UPDATE ON msg FOR EACH ROW EXECUTE FUNCTION touch();
         ALTER TABLE msg DROP CONSTRAINT msg_reply_to_fkey; ALTER TABLE msg ADD FOREIGN KEY (reply_to) REFERENCES msg NOT VALID"
    ));
    assert_eq!(dry_is_real(&mut client, ", 'msg'"), ["msg|5|{}"]);
    assert_eq!(
        one(&mut client, "SELECT string_agg(o_id::text, ',' ORDER BY id) FROM msg"),
        "1,1,2,2,2"
    );
}

#[test]
fn a_unique_index_holds_for_every_row_of_a_tree() {
    let (_database, mut client) = database_with(&format!(
        "{NODES} CREATE TABLE n (id int PRIMARY KEY, parent_id int REFERENCES n, o_id int REFERENCES o, slug text, UNIQUE (o_id, slug));
         INSERT INTO n VALUES (100, NULL, 1, 'r1'), (200, NULL, 2, 'r2'), (20, 200, NULL, 'm'), (3, 20, NULL, 'x'), (4, 200, NULL, 'x'), (5, 100, NULL, 'r1')"
    ));
    for policy in ["skip", "first"] {
        client.batch_execute("BEGIN").unwrap();
        let call = format!(", 'n', on_conflict => '{policy}'");
        assert_eq!(
            dry_is_real(&mut client, &call),
            ["n|2|{\"constraint_failed\": 2}"],
            "{policy}"
        );
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn a_chain_of_many_tables_is_no_harder_for_the_dry_run_than_for_the_real_one() {
    let mut setup = String::from(
        "CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o VALUES (1);
        CREATE TABLE t0 (id int PRIMARY KEY, o_id int NOT NULL REFERENCES o); INSERT INTO t0 VALUES (1, 1);",
    );
    for i in 1..60 {
        setup.push_str(&format!(
            "CREATE TABLE t{i} (id int PRIMARY KEY, up_id int REFERENCES t{}, o_id int REFERENCES o); INSERT INTO t{i} VALUES (1, 1), (2, NULL);",
            i - 1
        ));
    }
    let (_database, mut client) = database_with(&setup);
    // With the exponential text that this replaced, twelve tables took half a minute and sixty the machine.
    let dry = dry_is_real(&mut client, "");
    assert_eq!(dry.len(), 60);
    assert_eq!(dry[59], "t59|1|{\"no_source\": 1}");
}

#[test]
fn the_rows_that_stay_empty_in_a_tree_are_those_that_the_run_counts() {
    let (_database, mut client) = database_with(&format!(
        "{NODES} CREATE TABLE n (id int PRIMARY KEY, parent_id int REFERENCES n, d_id int REFERENCES d, o_id int REFERENCES o);
         INSERT INTO n VALUES (1, NULL, NULL, 1), (2, 1, NULL, NULL), (3, 2, NULL, NULL), (4, 3, 2, NULL), (5, NULL, NULL, NULL), (6, 1, 2, NULL)"
    ));
    for condition in ["NULL", "'o_id IS NULL'"] {
        let counted = one(
            &mut client,
            &format!("SELECT reasons FROM backfill('n', 'o_id', only_where => {condition})"),
        );
        let listed = one(
            &mut client,
            &format!(
                "SELECT jsonb_object_agg(reason, rows) FROM (SELECT reason, count(*) AS rows
                 FROM backfill_unfilled('n', 'o_id', only_where => {condition}) GROUP BY reason) r"
            ),
        );
        assert_eq!(listed, counted);
    }
}
