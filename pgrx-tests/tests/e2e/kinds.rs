//! Every kind of relation and type: supported with the right numbers, or refused with a clear error.

use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

const PARENT: &str = "
    CREATE TABLE party (id int PRIMARY KEY);
    CREATE TABLE contact (id int PRIMARY KEY, party_id int);
    INSERT INTO party SELECT generate_series(1, 9);
    INSERT INTO contact SELECT g, g FROM generate_series(1, 9) g;";

pub fn client(setup: &str) -> (pgrx_tests::Database<'static>, Client) {
    pgrx_tests::database_with(&format!("{PARENT};\n{setup}"))
}

/// `filled|unfilled|reasons` of the dry run, which must be that of the real run, which must leave nothing to do.
pub fn filled(client: &mut Client, table: &str, source: &str) -> String {
    let call = |client: &mut Client, dry_run: bool| {
        let table = table.replace('\'', "''");
        let sql = format!(
            "SELECT filled, unfilled, reasons FROM backfill('{table}', 'party_id', ARRAY['{source}'], {dry_run})"
        );
        one(client, &sql)
    };
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = call(client, true);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(call(client, false), dry);
    assert!(call(client, false).starts_with("0|"));
    dry
}

pub const SOURCE: &str = "contact_id -> contact.party_id";

#[test]
fn a_table_without_a_primary_key_is_filled_and_its_rows_named_by_ctid() {
    let (_database, mut client) =
        client("CREATE TABLE entry (contact_id int, party_id int); INSERT INTO entry VALUES (1), (1), (NULL), (99)");
    let list = format!("SELECT key, reason FROM backfill_unfilled('entry', 'party_id', ARRAY['{SOURCE}'])");
    assert_eq!(
        lines(&mut client, &list),
        [r#"{"ctid": "(0,3)"}|no_source"#, r#"{"ctid": "(0,4)"}|source_missing"#]
    );
    assert_eq!(
        filled(&mut client, "entry", SOURCE),
        r#"2|2|{"no_source": 1, "source_missing": 1}"#
    );
}

#[test]
fn a_row_value_with_null_fields_is_a_value() {
    let (_database, mut client) = client(
        "CREATE TYPE pair AS (a int, b int);
         CREATE TABLE source (id int PRIMARY KEY, party_id pair);
         CREATE TABLE entry (id int PRIMARY KEY, source_id int REFERENCES source, party_id pair);
         INSERT INTO source VALUES (1, '(1,1)'), (2, '(2,)'), (3, '(,)'), (4, NULL);
         INSERT INTO entry SELECT g, g FROM generate_series(1, 4) g; INSERT INTO entry VALUES (5, 1, '(,5)')",
    );
    let found = filled(&mut client, "entry", "source_id -> source.party_id");
    assert_eq!(found, r#"3|1|{"source_null": 1}"#);
    assert_eq!(
        lines(&mut client, "SELECT party_id::text FROM entry ORDER BY id"),
        ["(1,1)", "(2,)", "(,)", "-", "(,5)"]
    );
}

#[test]
fn a_partitioned_table_is_filled_across_partitions_with_equal_ctids() {
    let (_database, mut client) = client(
        "CREATE TABLE entry (id int, contact_id int, party_id int REFERENCES party, UNIQUE (id, party_id)) PARTITION BY RANGE (id);
         CREATE TABLE entry_1 PARTITION OF entry FOR VALUES FROM (0) TO (10);
         CREATE TABLE entry_2 PARTITION OF entry FOR VALUES FROM (10) TO (20);
         INSERT INTO entry SELECT g, g % 10, NULL FROM generate_series(1, 19) g",
    );
    assert_eq!(filled(&mut client, "entry", SOURCE), r#"18|1|{"source_missing": 1}"#);
    assert_eq!(
        one(&mut client, "SELECT count(*) FROM entry WHERE party_id <> id % 10"),
        "0"
    );
    client.batch_execute("UPDATE entry SET party_id = NULL").unwrap();
    assert_eq!(filled(&mut client, "entry_1", SOURCE), "9|0|{}");
    client
        .batch_execute(
            "UPDATE entry SET party_id = NULL; ALTER TABLE entry_2 ADD CONSTRAINT small CHECK (party_id < 5)",
        )
        .unwrap();
    let failed = failure(
        &mut client,
        &format!("SELECT * FROM backfill('entry', 'party_id', ARRAY['{SOURCE}'])"),
    );
    assert_eq!(failed.code, "0A000");
    assert!(failed.message.contains("entry_2: small"), "{failed:?}");
    assert_eq!(
        filled(&mut client, "entry_2", SOURCE),
        r#"4|6|{"source_missing": 1, "constraint_failed": 5}"#
    );
}

#[test]
fn a_partition_key_is_refused() {
    let (_database, mut client) = client(
        "CREATE TABLE entry (contact_id int, party_id int) PARTITION BY LIST (party_id);
         CREATE TABLE entry_d PARTITION OF entry DEFAULT",
    );
    for table in ["entry", "entry_d"] {
        let failed = failure(
            &mut client,
            &format!("SELECT * FROM backfill('{table}', 'party_id', ARRAY['{SOURCE}'])"),
        );
        assert_eq!(
            (
                failed.code.as_str(),
                failed.message.contains("is part of the partition key")
            ),
            ("0A000", true),
            "{failed:?}"
        );
    }
}

#[test]
fn inheritance_children_are_left_alone_and_said() {
    let (_database, mut client) = client(
        "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int); CREATE TABLE old_entry () INHERITS (entry);
         INSERT INTO entry VALUES (1, 1); INSERT INTO old_entry VALUES (2, 2)",
    );
    let note = one(
        &mut client,
        &format!("SELECT note FROM backfill('entry', 'party_id', ARRAY['{SOURCE}'])"),
    );
    assert!(
        note.contains("tables that inherit from entry are not touched"),
        "{note}"
    );
    assert_eq!(filled(&mut client, "entry", SOURCE), "1|0|{}");
    assert_eq!(one(&mut client, "SELECT party_id FROM old_entry"), "-");
    assert_eq!(filled(&mut client, "old_entry", SOURCE), "1|0|{}");
}

#[test]
fn temporary_unlogged_and_typed_tables_are_filled() {
    let (_database, mut client) = client(
        "CREATE TEMPORARY TABLE t1 (contact_id int, party_id int); CREATE UNLOGGED TABLE t2 (contact_id int, party_id int);
         CREATE TYPE shape AS (contact_id int, party_id int); CREATE TABLE t3 OF shape;
         INSERT INTO t1 VALUES (1); INSERT INTO t2 VALUES (1); INSERT INTO t3 VALUES (1)",
    );
    for table in ["t1", "t2", "t3"] {
        assert_eq!(filled(&mut client, table, SOURCE), "1|0|{}", "{table}");
    }
}

#[test]
fn what_is_no_table_or_cannot_be_written_is_refused() {
    let (_database, mut client) = client(
        "CREATE VIEW v AS SELECT 1 AS contact_id, NULL::int AS party_id;
         CREATE MATERIALIZED VIEW m AS SELECT 1 AS contact_id, NULL::int AS party_id;
         CREATE TYPE c AS (contact_id int, party_id int);
         CREATE EXTENSION file_fdw; CREATE SERVER s FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE f (contact_id int, party_id int) SERVER s OPTIONS (filename '/dev/null');
         CREATE TABLE g (contact_id int, party_id int GENERATED ALWAYS AS (contact_id + 1) STORED);
         CREATE TABLE i (contact_id int, party_id int GENERATED ALWAYS AS IDENTITY);
         CREATE TABLE r (contact_id int, party_id int); CREATE RULE nothing AS ON UPDATE TO r DO INSTEAD NOTHING;
         CREATE EXTENSION btree_gist; CREATE TABLE x (contact_id int, party_id int, EXCLUDE USING gist (party_id WITH =));
         CREATE TABLE w (contact_id int, party_id int); ALTER TABLE w ADD CONSTRAINT whole CHECK (w IS NOT NULL)",
    );
    for (table, code, message) in [
        ("v", "42809", "v is a view, it cannot be filled"),
        ("m", "42809", "m is a materialized view, it cannot be filled"),
        ("c", "42809", "c is a composite type, it cannot be filled"),
        ("f", "42809", "f is a foreign table, it cannot be filled"),
        ("g", "428C9", "g.party_id is a generated column"),
        ("i", "428C9", "i.party_id is GENERATED ALWAYS AS IDENTITY"),
        ("r", "0A000", "rule nothing rewrites every UPDATE of r"),
        (
            "x",
            "0A000",
            "exclusion constraint x_party_id_excl uses party_id: what it refuses cannot be predicted",
        ),
        (
            "w",
            "0A000",
            "CHECK whole of w reads the whole row: what it refuses cannot be predicted",
        ),
        ("mend.ledger_runs", "42809", "mend.ledger_runs belongs to an extension"),
    ] {
        let source = if table == "mend.ledger_runs" {
            "run_id".to_string()
        } else {
            SOURCE.into()
        };
        let column = if table == "mend.ledger_runs" {
            "note"
        } else {
            "party_id"
        };
        let failed = failure(
            &mut client,
            &format!("SELECT * FROM backfill('{table}', '{column}', ARRAY['{source}'])"),
        );
        let said = format!("{} {}", failed.message, failed.detail);
        assert_eq!(
            (failed.code.as_str(), said.contains(message)),
            (code, true),
            "{table}: {failed:?}"
        );
        assert!(!failed.hint.is_empty(), "{table}");
    }
}

#[test]
fn views_and_foreign_tables_can_be_parents_by_an_explicit_key() {
    let (_database, mut client) = client(
        "CREATE VIEW both_kinds AS SELECT id, party_id FROM contact UNION ALL SELECT 1, 5 UNION ALL SELECT 2, 2;
         CREATE TABLE entry (contact_id int, party_id int); INSERT INTO entry VALUES (1), (2), (3)",
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('entry', 'party_id', ARRAY['contact_id -> both_kinds.party_id'])",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42830", "no key of both_kinds is known for contact_id")
    );
    // 1 matches parties 1 and 5; 2 matches twice the same.
    assert_eq!(
        filled(&mut client, "entry", "contact_id -> both_kinds(id).party_id"),
        r#"2|1|{"ambiguous": 1}"#
    );
}

#[test]
fn a_tree_that_fills_itself_is_followed_to_its_leaves_dry_and_real() {
    let (_database, mut client) = client(
        "CREATE TABLE node (id int PRIMARY KEY, parent_id int REFERENCES node, party_id int REFERENCES party);
         INSERT INTO node VALUES (1, NULL, 7), (2, 1, NULL), (3, 2, NULL), (4, 3, NULL), (5, 4, NULL), (6, NULL, NULL), (7, 6, NULL), (8, 8, NULL)",
    );
    assert_eq!(
        filled(&mut client, "node", "parent_id -> node.party_id"),
        r#"4|3|{"no_source": 1, "source_null": 2}"#
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM node WHERE party_id = 7"), "5");
}

#[test]
fn types_of_extensions_and_collations_are_compared_by_their_own_operators() {
    let (_database, mut client) = client(
        "CREATE EXTENSION citext;
         CREATE TABLE site (domain citext PRIMARY KEY, party_id citext); INSERT INTO site VALUES ('Example.org', 'ABC'), ('other.org', 'abc');
         CREATE TABLE entry (id int PRIMARY KEY, domain citext, other citext, party_id citext);
         INSERT INTO entry VALUES (1, 'example.ORG', 'OTHER.org'), (2, 'nowhere', NULL)",
    );
    // ABC and abc are equal, so the two sources agree.
    let sql = "SELECT filled, reasons FROM backfill('entry', 'party_id', ARRAY['domain -> site.party_id', 'other -> site.party_id'], dry_run => false)";
    assert_eq!(one(&mut client, sql), r#"1|{"source_missing": 1}"#);
    assert_eq!(one(&mut client, "SELECT party_id FROM entry WHERE id = 1"), "ABC");
}

#[test]
fn enums_uuids_and_arrays_are_values_like_others() {
    let (_database, mut client) = client(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE parent (id uuid PRIMARY KEY, mood mood, tags text[]); INSERT INTO parent VALUES ('00000000-0000-0000-0000-000000000001', 'glad', '{a,b}');
         CREATE TABLE entry (id int PRIMARY KEY, parent_id uuid REFERENCES parent, mood mood, tags text[]); INSERT INTO entry VALUES (1, '00000000-0000-0000-0000-000000000001'), (2, NULL)",
    );
    for column in ["mood", "tags"] {
        let sql = format!(
            "SELECT filled, reasons FROM backfill('entry', '{column}', ARRAY['parent_id -> parent.{column}'], dry_run => false)"
        );
        assert_eq!(one(&mut client, &sql), r#"1|{"no_source": 1}"#);
    }
    assert_eq!(
        one(&mut client, "SELECT mood, tags FROM entry WHERE id = 1"),
        "glad|{a,b}"
    );
}

#[test]
fn a_condition_over_the_column_itself_is_a_condition_like_any_other() {
    let (_database, mut client) = client(
        "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int); INSERT INTO entry VALUES (1, 1, NULL), (2, NULL, NULL), (3, 3, 5)",
    );
    for dry_run in [true, false] {
        let sql = format!(
            "SELECT filled, already_set, reasons FROM backfill('entry', 'party_id', ARRAY['{SOURCE}'], only_where => 'party_id IS NULL', dry_run => {dry_run})"
        );
        assert_eq!(one(&mut client, &sql), r#"1|0|{"excluded": 1, "no_source": 1}"#);
    }
}

#[test]
fn a_tree_with_a_second_source_is_judged_by_what_it_becomes() {
    let (_database, mut client) = client(
        "CREATE TABLE node (id int PRIMARY KEY, parent_id int REFERENCES node, contact_id int REFERENCES contact, party_id int REFERENCES party);
         INSERT INTO node VALUES (1, NULL, 1, NULL), (2, 1, 2, NULL), (3, 1, 1, NULL), (4, 3, NULL, NULL)",
    );
    for dry_run in [true, false] {
        let sql = format!(
            "SELECT filled, reasons FROM backfill('node', 'party_id', ARRAY['contact_id -> contact.party_id', 'parent_id -> node.party_id'], {dry_run})"
        );
        assert_eq!(one(&mut client, &sql), r#"3|{"conflict": 1}"#, "dry run: {dry_run}");
    }
    client.batch_execute("CREATE VIEW seen AS SELECT * FROM node").unwrap();
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('node', 'party_id', ARRAY['parent_id -> seen(id).party_id'])",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("0A000", "seen reads node, the table that is filled")
    );
}
