//! One answer to each question, whichever call asks it: the tenant of a row, the parent that a key means, what a table refuses.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};
use postgres::Client;

#[test]
fn the_tenant_is_found_however_far_away_it_is() {
    // leaf -> l5 -> l4 -> l3 -> l2 -> l1 -> tenants; the value of the other side is as far away.
    let mut schema = "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2);
        CREATE TABLE l1 (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants); INSERT INTO l1 VALUES (1, 1), (2, 2);"
        .to_string();
    for level in 2..=6 {
        let above = level - 1;
        schema.push_str(&format!(
            "CREATE TABLE l{level} (id int PRIMARY KEY, l{above}_id int NOT NULL REFERENCES l{above}); INSERT INTO l{level} VALUES (1, 1), (2, 2);"
        ));
    }
    schema.push_str(
        "CREATE TABLE things (id int PRIMARY KEY, l6_id int NOT NULL REFERENCES l6); INSERT INTO things VALUES (1, 1), (2, 2);
         CREATE TABLE legacy (id int PRIMARY KEY, thing_id int REFERENCES things); INSERT INTO legacy VALUES (1, 1), (2, 2);
         CREATE TABLE leaf (id int PRIMARY KEY, l6_id int NOT NULL REFERENCES l6, legacy_id int REFERENCES legacy, thing_id int REFERENCES things);
         INSERT INTO leaf VALUES (1, 1, 1), (2, 1, 2), (3, 2, 2);",
    );
    let (_database, mut client) = database_with(&schema);
    let call = "SELECT filled, reasons FROM backfill('leaf', 'thing_id', ARRAY['legacy_id -> legacy.thing_id']";
    assert_eq!(one(&mut client, &format!("{call})")), "2|{\"cross_tenant\": 1}");
    assert_eq!(
        one(&mut client, &format!("{call}, dry_run => false)")),
        "2|{\"cross_tenant\": 1}"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT coalesce(sum(cross_tenant), 0) FROM validate_tenant_fks('tenants', 'leaf') WHERE column_name = 'thing_id'"
        ),
        "0"
    );
}

#[test]
fn a_foreign_key_between_columns_of_different_collation_is_compared_as_postgres_compares_it() {
    let (_database, mut client) = database_with(
        "CREATE TABLE p (code text COLLATE \"C\" PRIMARY KEY, v text COLLATE \"POSIX\", n varchar(5));
         CREATE TABLE t (id int PRIMARY KEY, p_code text REFERENCES p, other varchar(9) COLLATE \"POSIX\" REFERENCES p,
                         v text, w text COLLATE \"C\", target text REFERENCES p);
         INSERT INTO p VALUES ('a', 'x', 'a'), ('b', 'y', 'b'); INSERT INTO t VALUES (1, 'a', 'a'), (2, 'b', 'a'), (3, NULL, 'b')",
    );
    for (column, sources, filled) in [
        ("v", "ARRAY['p_code -> p.v']", "2"),
        ("w", "ARRAY['p_code -> p.v', 'other -> p.v']", "2"),
        ("target", "ARRAY['p_code -> p.code', 'other -> p.n']", "2"),
    ] {
        for dry_run in [true, false] {
            let call = format!("SELECT filled FROM backfill('t', '{column}', {sources}, dry_run => {dry_run})");
            assert_eq!(one(&mut client, &call), filled, "{call}");
        }
    }
    assert_eq!(
        lines(
            &mut client,
            "SELECT column_name, verdict FROM validate_tenant_fks('') WHERE table_name = 't' ORDER BY 1"
        ),
        ["other|ok", "p_code|ok", "target|ok"]
    );
}

#[test]
fn a_parent_whose_key_refuses_the_value_is_foretold() {
    for (key, child, values, refused) in [
        ("char(3)", "text", "('abc'), ('abcd'), ('ab')", 1),
        ("varchar(3)", "text", "('abc'), ('abcd')", 1),
        ("numeric(3,0)", "numeric", "(999), (1000), (1.5)", 2),
        ("numeric(3,1)", "numeric", "(99.9), (99.95), (100)", 2),
        ("smallint", "bigint", "(32767), (32768)", 1),
        ("small", "int", "(1), (11)", 1),
    ] {
        let (_database, mut client) = database_with(&format!(
            "CREATE DOMAIN small AS int CHECK (VALUE < 10);
             CREATE TABLE p (id {key} PRIMARY KEY); CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, p_id {child});
             INSERT INTO t (p_id) VALUES {values}; SELECT declare_reference('t', 'p_id', 'p(id)')"
        ));
        let call = |dry_run: bool| {
            format!(
                "SELECT created, unrepaired, reasons FROM repair_orphans('t', 'p_id', 'create_parent', root => '', dry_run => {dry_run})"
            )
        };
        let dry = one(&mut client, &call(true));
        assert!(
            dry.ends_with(&format!("|{refused}|{{\"constraint_failed\": {refused}}}")),
            "{key}: {dry}"
        );
        assert_eq!(one(&mut client, &call(false)), dry, "{key}");
    }
}

#[test]
fn what_refuses_a_restored_value_is_foretold_and_what_changes_it_is_an_error() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p SELECT generate_series(1, 3);
        CREATE TABLE t (id int PRIMARY KEY, p_id int, kind text DEFAULT 'a'); INSERT INTO t VALUES (1, 7), (2, 8), (3, 8), (4, 9), (5, 1);
        SELECT declare_reference('t', 'p_id', 'p(id)');
        SELECT * FROM repair_orphans('t', 'p_id', 'nullify', root => '', dry_run => false)";
    let restore = |dry_run: bool| format!("SELECT restored, reasons FROM restore_repaired(1, dry_run => {dry_run})");
    for (between, expected) in [
        ("", "4|{}"),
        (
            "CREATE UNIQUE INDEX u ON t (p_id); INSERT INTO t VALUES (6, 9)",
            "1|{\"constraint_failed\": 3}",
        ),
        (
            "CREATE UNIQUE INDEX u ON t (kind, p_id)",
            "2|{\"constraint_failed\": 2}",
        ),
        (
            "CREATE UNIQUE INDEX u ON t ((p_id + 1)) WHERE id > 2; INSERT INTO t VALUES (6, 9)",
            "3|{\"constraint_failed\": 1}",
        ),
        ("ALTER TABLE t ADD CHECK (p_id < 9)", "3|{\"constraint_failed\": 1}"),
    ] {
        let (_database, mut client) = database_with(setup);
        client.batch_execute(between).unwrap();
        assert_eq!(one(&mut client, &restore(true)), expected, "{between}");
        assert_eq!(one(&mut client, &restore(false)), expected, "{between}");
    }
    let (_database, mut client) = database_with(setup);
    client
        .batch_execute(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.p_id := 1; RETURN NEW; END';
             CREATE TRIGGER changes BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        )
        .unwrap();
    let failed = failure(&mut client, &restore(false));
    assert_eq!(
        (failed.code.as_str(), failed.detail.contains("changes")),
        ("27000", true),
        "{failed:?}"
    );
    assert_eq!(one(&mut client, "SELECT count(p_id) FROM t"), "1");
    assert_eq!(
        one(&mut client, "SELECT count(restored_by) FROM mend.repaired_rows"),
        "0"
    );
}

/// A tenant key is one in whatever schema, with a foreign key or without: `tenant_columns` names it, `validate_tenant_fks` checks it.
#[test]
fn a_tenant_key_of_another_schema_is_checked_as_well() {
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id int PRIMARY KEY); INSERT INTO organizations VALUES (1);
         CREATE TABLE projects (id int PRIMARY KEY, organization_id int NOT NULL REFERENCES organizations);
         CREATE TABLE tasks (id int PRIMARY KEY, organization_id int NOT NULL REFERENCES organizations, project_id int REFERENCES projects);
         CREATE SCHEMA billing;
         CREATE TABLE billing.invoices (id int PRIMARY KEY, organization_id int, project_id int REFERENCES projects);
         INSERT INTO projects VALUES (1, 1); INSERT INTO billing.invoices VALUES (1, 1, 1), (2, 7, 1), (3, 7, NULL)",
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT tenant_column FROM tenant_columns('organizations') WHERE table_name = 'billing.invoices'"
        ),
        ["organization_id"]
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT column_name, parent_table, orphans, cross_tenant FROM validate_tenant_fks() WHERE table_name = 'billing.invoices' ORDER BY 1"
        ),
        ["organization_id|organizations|2|0", "project_id|projects|0|1"]
    );
    // And the guard goes by it.
    client
        .batch_execute("ALTER TABLE billing.invoices ADD task_id int REFERENCES tasks, ADD legacy int; INSERT INTO tasks VALUES (1, 1, 1); UPDATE billing.invoices SET legacy = 1")
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled, reasons FROM backfill('billing.invoices', 'task_id', ARRAY['legacy -> tasks(id).id'])"
        ),
        r#"1|{"cross_tenant": 2}"#
    );
}

/// Of several columns that reference the root, all calls take the same one.
#[test]
fn the_same_one_of_several_references_to_the_root_is_the_tenant() {
    let (_database, mut client) = database_with(
        "CREATE TABLE profiles (id int PRIMARY KEY); INSERT INTO profiles VALUES (1), (2);
         CREATE TABLE properties (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_by int NOT NULL REFERENCES profiles, address text, UNIQUE (created_by, address));
         CREATE TABLE notes (id int PRIMARY KEY, created_by int NOT NULL REFERENCES profiles);
         CREATE TABLE orders (id int PRIMARY KEY, assigned_to int NOT NULL REFERENCES profiles, created_by int NOT NULL REFERENCES profiles,
                              property_id int REFERENCES properties, address text);
         INSERT INTO orders VALUES (1, 2, 1, NULL, 'a'), (2, 1, 1, NULL, 'a'), (3, 1, 2, NULL, 'a');
         SET pg_mend.tenant_root = 'profiles'",
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT tenant_column FROM tenant_columns('profiles') WHERE table_name = 'orders'"
        ),
        ["created_by"]
    );
    let call = |dry: bool| {
        format!(
            "SELECT filled, parents_created, note FROM backfill_parents('orders', 'property_id', match => '{{\"address\": \"address\"}}', dry_run => {dry})"
        )
    };
    let dry = one(&mut client, &call(true));
    assert!(
        dry.starts_with("3|2|") && dry.contains("created_by must equal created_by"),
        "{dry}"
    );
    assert_eq!(one(&mut client, &call(false)), dry);
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*) FROM orders o JOIN properties p ON p.id = o.property_id WHERE p.created_by <> o.created_by"
        ),
        "0"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT sum(cross_tenant) FROM validate_tenant_fks() WHERE table_name = 'orders' AND column_name = 'property_id'"
        ),
        "0"
    );
}

/// What was declared settles it for every call, and every row says whose word it is; only who has the rights of the table's owner may.
#[test]
fn a_declared_tenant_key_is_the_one_that_every_call_goes_by() {
    let (database, mut client) = database_with(
        "CREATE TABLE profiles (id int PRIMARY KEY); INSERT INTO profiles VALUES (1), (2);
         CREATE TABLE properties (id int PRIMARY KEY, created_by int NOT NULL REFERENCES profiles);
         CREATE TABLE notes (id int PRIMARY KEY, created_by int NOT NULL REFERENCES profiles);
         CREATE TABLE orders (id int PRIMARY KEY, assigned_to int REFERENCES profiles, created_by int REFERENCES profiles,
                              property_id int REFERENCES properties, legacy int);
         INSERT INTO properties VALUES (1, 1), (2, 2); INSERT INTO orders VALUES (1, 1, 2, NULL, 1), (2, 2, 1, NULL, 1);
         SET pg_mend.tenant_root = 'profiles'",
    );
    // The key of orders, as each call tells it.
    let told = |client: &mut Client| -> Vec<String> {
        [
            "SELECT string_agg(tenant_column, ', ') FROM tenant_columns('profiles') WHERE table_name = 'orders'",
            "SELECT string_agg(tenant_column, ', ') FROM backfill_coverage('profiles') WHERE table_name = 'orders'",
            "SELECT substring(note FROM 'guard: ([a-z_]+)') FROM backfill('orders', 'property_id', ARRAY['legacy -> properties(id).id'])",
            "SELECT substring(note FROM 'restricted to ([a-z_]+)') FROM backfill('orders', 'property_id', ARRAY['legacy -> properties(id).id'], tenant => '1')",
        ]
        .map(|sql| one(client, sql))
        .to_vec()
    };
    assert_eq!(told(&mut client), ["created_by"; 4]);
    let call = "SELECT filled, reasons FROM backfill('orders', 'property_id', ARRAY['legacy -> properties(id).id'])";
    assert_eq!(one(&mut client, call), r#"1|{"cross_tenant": 1}"#);
    assert_eq!(
        one(&mut client, "SELECT declare_tenant_key('orders', 'assigned_to')"),
        "orders.assigned_to is the tenant key"
    );
    assert_eq!(told(&mut client), ["assigned_to"; 4]);
    client
        .batch_execute("SELECT FROM backfill('orders', 'property_id', ARRAY['legacy -> properties(id).id'], false)")
        .unwrap();
    assert_eq!(
        lines(&mut client, "SELECT id FROM orders WHERE property_id IS NOT NULL"),
        ["1"]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT cross_tenant, declaration FROM validate_tenant_fks() WHERE table_name = 'orders' AND column_name = 'property_id'"
        ),
        "0|postgres: orders.assigned_to is the tenant key"
    );
    // None: the rows are whose their parents are.
    assert_eq!(
        one(&mut client, "SELECT declare_tenant_key('orders', NULL)"),
        "no column of orders is a tenant key"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT string_agg(status || ' ' || path, ', ') FROM tenant_columns('profiles') WHERE table_name = 'orders'"
        ),
        "needs_column property_id -> properties.created_by"
    );
    // Only while its author has the rights of the owner, and by nobody else.
    let role = format!("declarer_{}", database.name);
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; SELECT grant_mend('{role}'); GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .unwrap();
    let mut other = database.connect_as(&role);
    for call in [
        "declare_tenant_key('orders', 'created_by')",
        "forget_tenant_key('orders')",
    ] {
        let failed = failure(&mut other, &format!("SELECT {call}"));
        assert_eq!(
            (failed.code.as_str(), failed.hint.is_empty()),
            ("42501", false),
            "{call}"
        );
    }
    client
        .batch_execute(&format!("ALTER TABLE orders OWNER TO {role}"))
        .unwrap();
    other
        .batch_execute("SELECT declare_tenant_key('orders', 'assigned_to')")
        .unwrap();
    assert_eq!(told(&mut client), ["assigned_to"; 4]);
    client.batch_execute("ALTER TABLE orders OWNER TO postgres").unwrap();
    assert_eq!(told(&mut client), ["created_by"; 4]);
    assert_eq!(one(&mut client, "SELECT in_force FROM mend.declared_tenant_keys"), "f");
    // Names and what is not there.
    client.batch_execute("SELECT forget_tenant_key('orders')").unwrap();
    assert_eq!(failure(&mut client, "SELECT forget_tenant_key('orders')").code, "42704");
    assert_eq!(
        failure(&mut client, "SELECT declare_tenant_key('orders', 'asigned_to')").code,
        "42703"
    );
    assert_eq!(
        failure(&mut client, "SELECT declare_tenant_key('order', 'assigned_to')").code,
        "42P01"
    );
    assert_eq!(
        failure(&mut client, "SELECT declare_tenant_key(NULL, 'assigned_to')").code,
        "22004"
    );
    drop(other);
    client
        .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .unwrap();
}
