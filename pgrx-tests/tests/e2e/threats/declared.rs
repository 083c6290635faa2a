//! Declarations and rules count while their authors have the rights; a table beside it changes no meaning.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};

use super::{TABLES, role};

#[test]
fn a_declaration_counts_while_its_author_has_the_rights_of_the_tables_owner() {
    let (database, mut admin) = database_with(TABLES);
    let (app, other) = (role(&database, "app", ""), role(&database, "other", ""));
    admin
        .batch_execute(&format!(
            "SELECT grant_mend('{app}'), grant_mend('{other}'); ALTER TABLE orders OWNER TO {app};
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO {other}; CREATE TABLE empty (id int PRIMARY KEY); ALTER TABLE empty OWNER TO {other};
             ALTER TABLE orders ADD CONSTRAINT c FOREIGN KEY (customer_id) REFERENCES customers NOT VALID"
        ))
        .unwrap();
    let verdict = |client: &mut postgres::Client| {
        lines(
            client,
            "SELECT column_name, verdict, declaration FROM validate_tenant_fks('tenants', 'orders') WHERE column_name = 'customer_id' ORDER BY 1, 2",
        )
    };
    let before = verdict(&mut admin);
    assert_eq!(before, ["customer_id|violations|-"]);
    // Who may only read the table says nothing about it.
    let mut stranger = database.connect_as(&other);
    for call in [
        "SELECT declare_reference('orders', 'customer_id', NULL)",
        "SELECT declare_reference('orders', 'customer_id', 'empty(id)')",
        "SELECT declare_reference('orders', 'customer_id', 'customers(id)', may_cross_tenants => true)",
    ] {
        let failed = failure(&mut stranger, call);
        assert_eq!(
            (failed.code.as_str(), failed.hint.is_empty()),
            ("42501", false),
            "{call}"
        );
    }
    assert_eq!(verdict(&mut admin), before);
    // The owner does, and is named.
    let mut client = database.connect_as(&app);
    client
        .batch_execute("SELECT declare_reference('orders', 'customer_id', 'customers(id)', may_cross_tenants => true)")
        .unwrap();
    let with = verdict(&mut admin);
    assert!(
        with[0].starts_with("customer_id|violations|app_") && with[0].contains("also of another tenant"),
        "{with:?}"
    );
    let crossing =
        "SELECT cross_tenant FROM validate_tenant_fks('tenants', 'orders') WHERE column_name = 'customer_id'";
    assert_eq!(one(&mut admin, crossing), "-");
    // It is looked up when it is used: an owner that is none any more is not believed.
    admin
        .batch_execute(&format!("ALTER TABLE orders OWNER TO {other}"))
        .unwrap();
    assert_eq!(verdict(&mut admin), before);
    assert_eq!(one(&mut admin, crossing), "1");
    assert_eq!(one(&mut admin, "SELECT in_force FROM mend.declared_references"), "f");
    // And does not stand in the way of the next one.
    stranger
        .batch_execute("SELECT declare_reference('orders', 'customer_id', NULL)")
        .unwrap();
    assert_eq!(
        one(
            &mut admin,
            "SELECT declared_by LIKE 'other%' FROM mend.declared_references"
        ),
        "t"
    );
    admin
        .batch_execute(&format!("DROP OWNED BY {app}, {other}; DROP ROLE {app}, {other}"))
        .unwrap();
}

#[test]
fn a_view_of_another_role_is_neither_declared_nor_read() {
    let (database, mut admin) = database_with(TABLES);
    let hostile = role(&database, "att", "");
    admin
        .batch_execute(&format!(
            "SELECT grant_mend('{hostile}'); CREATE SCHEMA att AUTHORIZATION {hostile};
             SET ROLE {hostile}; CREATE VIEW att.v AS SELECT 1 AS id, 1 / 0 AS tenant_id;
             SELECT declare_reference('att.v', 'tenant_id', 'att.v(id)'); RESET ROLE"
        ))
        .unwrap();
    let row = one(
        &mut admin,
        "SELECT verdict, fix, declaration FROM validate_tenant_fks() WHERE table_name = 'att.v'",
    );
    assert!(
        row.starts_with("not_checked|att.v is a view or a foreign table of another role") && row.contains("|att_"),
        "{row}"
    );
    assert_eq!(
        failure(
            &mut admin,
            "SELECT declare_reference('orders', 'customer_id', 'att.v(id)')"
        )
        .code,
        "42501"
    );
    assert_eq!(failure(&mut admin, "SELECT * FROM att.v").code, "22012");
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}; DROP ROLE {hostile}"
        ))
        .unwrap();
}

#[test]
fn a_rule_that_another_role_has_recorded_is_not_taken_for_ones_own() {
    let (database, mut admin) = database_with(TABLES);
    let app = role(&database, "app", "");
    admin
        .batch_execute(&format!(
            "SELECT grant_mend('{app}'); GRANT ALL ON ALL TABLES IN SCHEMA public TO {app}; GRANT CREATE ON SCHEMA public TO {app}"
        ))
        .unwrap();
    let mut client = database.connect_as(&app);
    client
        .batch_execute("CREATE FUNCTION mine(int) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN true; END'")
        .unwrap();
    let call = |condition: &str| {
        format!(
            "SELECT run_id FROM backfill('orders', 'tenant_id', ARRAY['customer_id -> customers.tenant_id'], only_where => {condition}, dry_run => false)"
        )
    };
    let (hidden, plain) = (one(&mut client, &call("'mine(id)'")), one(&mut client, &call("NULL")));
    let again = |run: &str| format!("SELECT note FROM backfill((SELECT rule FROM mend.runs WHERE run_id = {run}))");
    let failed = failure(&mut admin, &again(&hidden));
    assert_eq!(failed.code, "42501");
    assert!(
        failed.message.contains("app_") && failed.detail.contains("mine(id)"),
        "{failed:?}"
    );
    assert!(one(&mut admin, &again(&plain)).contains("is one that app_"));
    // One's own is one's own.
    assert!(!one(&mut client, &again(&hidden)).contains("recorded"));
    let made = one(
        &mut client,
        r#"SELECT run_id FROM backfill_parents('orders', 'customer_id', match => '{"id": "customer_id"}', dry_run => false)"#,
    );
    let failed = failure(
        &mut admin,
        &format!("SELECT * FROM backfill_parents((SELECT rule FROM mend.runs WHERE run_id = {made}))"),
    );
    assert_eq!(failed.code, "42501");
    admin
        .batch_execute(&format!("DROP OWNED BY {app}; DROP ROLE {app}"))
        .unwrap();
}

#[test]
fn a_table_beside_it_does_not_hide_what_a_column_means() {
    let (database, mut admin) = database_with(
        "CREATE TABLE customers (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY, customer_id int); INSERT INTO orders VALUES (1, 7)",
    );
    let hostile = role(&database, "att", "");
    let orphans = "SELECT orphans FROM validate_tenant_fks('') WHERE table_name = 'orders'";
    assert_eq!(one(&mut admin, orphans), "1");
    admin
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {hostile}; SET ROLE {hostile}; CREATE TABLE public.\"Customer\" (id int PRIMARY KEY); RESET ROLE"
        ))
        .unwrap();
    assert_eq!(one(&mut admin, orphans), "1");
    admin
        .batch_execute(&format!("DROP OWNED BY {hostile}; DROP ROLE {hostile}"))
        .unwrap();
}
