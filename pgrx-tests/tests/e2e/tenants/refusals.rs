//! Roots that cannot be one, and rows that may not be seen.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, load_organizations, one};
use postgres::Client;

#[test]
fn a_root_that_cannot_be_one_is_refused_with_the_next_call() {
    let (_database, mut client) = database_with(
        "CREATE TABLE alpha (id int PRIMARY KEY); CREATE TABLE beta (id int PRIMARY KEY); CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b));
         CREATE TABLE one (id int PRIMARY KEY, alpha_id int REFERENCES alpha, beta_id int REFERENCES beta);
         CREATE TABLE two (id int PRIMARY KEY, alpha_id int REFERENCES alpha, beta_id int REFERENCES beta);
         CREATE TABLE alone (id int PRIMARY KEY); CREATE VIEW seen AS SELECT * FROM alpha",
    );
    let failed = failure(&mut client, "SELECT * FROM tenant_columns()");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42P08", "the tenant root is ambiguous")
    );
    assert_eq!(
        failed.detail,
        "equally likely: alpha (reached by 2 tables), beta (reached by 2 tables)"
    );
    for call in ["backfill_tenant_ids()", "backfill_coverage()", "tenant_map()"] {
        assert_eq!(
            failure(&mut client, &format!("SELECT * FROM {call}")).code,
            "42P08",
            "{call}"
        );
    }
    client.batch_execute("SET pg_mend.tenant_root = 'alpha'").unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT table_name FROM tenant_columns() WHERE status = 'root'"
        ),
        "alpha"
    );
    // The argument wins over the setting.
    assert_eq!(
        one(
            &mut client,
            "SELECT table_name FROM tenant_columns('beta') WHERE status = 'root'"
        ),
        "beta"
    );
    let refused = |client: &mut Client, root: &str| {
        let failed = failure(client, &format!("SELECT * FROM tenant_columns('{root}')"));
        assert!(!failed.hint.is_empty(), "{failed:?}");
        (failed.code, failed.message)
    };
    let expect = |code: &str, message: &str| (code.to_string(), message.to_string());
    assert_eq!(
        refused(&mut client, "alone"),
        expect("42703", "no column references alone")
    );
    assert_eq!(
        refused(&mut client, "pair"),
        expect("42830", "pair has no key of a single column")
    );
    assert_eq!(
        refused(&mut client, "seen"),
        expect("42809", "seen is no table, it cannot hold the tenants")
    );
    assert_eq!(
        refused(&mut client, "alfa"),
        expect("42P01", "table \"alfa\" does not exist")
    );
    let failed = failure(&mut client, "SELECT tenant_map(format => 'svg')");
    assert_eq!(failed.code, "22023");
    let failed = failure(&mut client, "SELECT * FROM backfill_tenant_ids(dry_run => NULL)");
    assert_eq!(failed.code, "22004");
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill_tenant_ids('alpha', table_name => 'alone')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42703", "alone has no tenant column")
    );
}

#[test]
fn no_root_at_all_is_said() {
    let (_database, mut client) = database_with(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a_id int REFERENCES a)",
    );
    let failed = failure(&mut client, "SELECT * FROM tenant_columns()");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42704", "no table stands out as the tenant root")
    );
}

#[test]
fn rows_that_a_policy_hides_are_never_counted_less() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    load_organizations(&mut admin);
    let role = format!("reader_{}", database.name);
    admin
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT grant_mend('{role}'); GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; REVOKE SELECT ON messages FROM {role}"))
        .unwrap();
    let mut reader = database.connect_as(&role);
    // The catalog may be read; what it says of rows is no more than ANALYZE knows and the role may see.
    assert_eq!(
        lines(
            &mut reader,
            "SELECT status, note FROM tenant_columns() WHERE table_name IN ('conversations', 'messages') ORDER BY table_name"
        ),
        [
            "needs_backfill|NULLs are possible; backfill_coverage() counts",
            "needs_backfill|NULLs are possible; backfill_coverage() counts; 2 paths: a run compares them, rows where they differ are conflicts",
        ]
    );
    let failed = failure(&mut reader, "SELECT * FROM backfill_coverage()");
    assert_eq!(failed.code, "42501");
    assert!(
        failed
            .detail
            .contains("row-level security of conversations would hide rows from you")
            && failed.detail.contains("permission denied to read messages"),
        "{failed:?}"
    );
    let failed = failure(&mut reader, "SELECT * FROM backfill_tenant_ids(dry_run => false)");
    assert_eq!(failed.code, "42501");
    let not_checked = "SELECT table_name, checked FROM dead_columns() WHERE verdict = 'not_checked'";
    let not_checked = lines(&mut reader, not_checked);
    assert!(
        not_checked.len() == 2
            && not_checked[0].starts_with("conversations|row-level security")
            && not_checked[1].starts_with("messages|permission denied"),
        "{not_checked:?}"
    );
}

#[test]
fn one_table_that_cannot_be_filled_is_a_row_with_a_note_and_no_reason_to_fill_none() {
    let (_database, mut client) = database_with(
        "CREATE EXTENSION btree_gist; CREATE TABLE o (id uuid PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY, o_id uuid NOT NULL REFERENCES o);
         CREATE TABLE good (id int PRIMARY KEY, d_id int REFERENCES d, o_id uuid REFERENCES o);
         CREATE TABLE wrong_type (id int PRIMARY KEY, d_id int REFERENCES d, o_id text);
         CREATE TABLE wrong_number (id int PRIMARY KEY, d_id int REFERENCES d, o_id bigint);
         CREATE TABLE by_key (id int, d_id int REFERENCES d, o_id uuid REFERENCES o) PARTITION BY LIST (o_id); CREATE TABLE by_key_rest PARTITION OF by_key DEFAULT;
         CREATE TABLE apart (id int PRIMARY KEY, d_id int REFERENCES d, o_id uuid REFERENCES o, EXCLUDE USING gist (o_id WITH =));
         CREATE TABLE computed (id int PRIMARY KEY, d_id int REFERENCES d, given uuid, o_id uuid GENERATED ALWAYS AS (given) STORED REFERENCES o);
         INSERT INTO o VALUES ('00000000-0000-0000-0000-000000000001'); INSERT INTO d VALUES (1, '00000000-0000-0000-0000-000000000001');
         INSERT INTO good VALUES (1, 1); INSERT INTO wrong_type VALUES (1, 1); INSERT INTO wrong_number VALUES (1, 1); INSERT INTO by_key VALUES (1, 1);
         INSERT INTO apart VALUES (1, 1); INSERT INTO computed VALUES (1, 1)",
    );
    let call = |dry_run: bool| {
        format!(
            "SELECT table_name, total, filled, unfilled, left(note, 30) FROM backfill_tenant_ids('o', {dry_run}) ORDER BY table_name"
        )
    };
    let expected = [
        "apart|1|0|1|not filled: exclusion constrai",
        "by_key|1|0|1|not filled: by_key.o_id is par",
        "computed|1|0|1|not filled: computed.o_id is a",
        "d|1|0|0|NOT NULL: nothing to fill",
        "good|1|1|0|from d_id -> d.o_id",
        "wrong_number|1|0|1|o_id is bigint, o.id is uuid: ",
        "wrong_type|1|0|1|o_id is text, o.id is uuid: it",
    ];
    assert_eq!(lines(&mut client, &call(true)), expected);
    assert_eq!(lines(&mut client, &call(false)), expected);
    // Asked for by name, it is an error.
    let code = |client: &mut Client, table: &str| {
        failure(
            client,
            &format!("SELECT * FROM backfill_tenant_ids('o', table_name => '{table}')"),
        )
        .code
    };
    assert_eq!(code(&mut client, "by_key"), "0A000");
    assert_eq!(code(&mut client, "computed"), "428C9");
}

#[test]
fn a_table_above_the_likeliest_root_is_named_instead_of_forgotten() {
    let (_database, mut client) = database_with(
        "CREATE TABLE stores (id int PRIMARY KEY); CREATE TABLE products (id int PRIMARY KEY, store_id int NOT NULL REFERENCES stores);
         CREATE TABLE accounts (id int PRIMARY KEY, store_id int NOT NULL REFERENCES stores);
         CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts); CREATE TABLE carts (id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts);
         CREATE TABLE reviews (id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts)",
    );
    let failed = failure(&mut client, "SELECT * FROM backfill_tenant_ids()");
    assert_eq!(
        (failed.code.as_str(), failed.detail.as_str()),
        (
            "42P08",
            "equally likely: accounts (reached by 3 tables), stores (reached by 5 tables)"
        )
    );
    // A plan or a country is above organizations as well, but nothing hangs on it that does not hang on them.
    client
        .batch_execute(
            "DROP TABLE stores, products, accounts, orders, carts, reviews; CREATE TABLE plans (id int PRIMARY KEY);
             CREATE TABLE organizations (id int PRIMARY KEY, plan_id int NOT NULL REFERENCES plans);
             CREATE TABLE subscriptions (id int PRIMARY KEY, plan_id int NOT NULL REFERENCES plans, organization_id int REFERENCES organizations);
             CREATE TABLE notes (id int PRIMARY KEY, organization_id int REFERENCES organizations);
             CREATE TABLE files (id int PRIMARY KEY, organization_id int REFERENCES organizations);
             CREATE TABLE tasks (id int PRIMARY KEY, organization_id int REFERENCES organizations)",
        )
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT table_name FROM tenant_columns() WHERE status = 'root'"
        ),
        "organizations"
    );
}
