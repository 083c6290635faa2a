//! What is inferred from realistic schemas, and above all what is not: a wrong guess would be silent.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, load_party, one};

/// The tenant key is still nullable, `created_by` is NOT NULL everywhere.
const SHOP: &str = "
    CREATE TABLE organizations (id bigint PRIMARY KEY);
    CREATE TABLE users (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations);
    CREATE TABLE customers (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations, created_by bigint NOT NULL REFERENCES users);
    CREATE TABLE contacts (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations, customer_id bigint REFERENCES customers);
    CREATE TABLE orders (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations, contact_id bigint REFERENCES contacts,
                         created_by bigint NOT NULL REFERENCES users, customer_id bigint REFERENCES customers);
    INSERT INTO organizations VALUES (1), (2); INSERT INTO users VALUES (1, 1);
    INSERT INTO customers VALUES (1, 1, 1), (2, 2, 1); INSERT INTO contacts VALUES (1, 1, 1), (2, 2, 2);
    INSERT INTO orders VALUES (1, 1, 1, 1), (2, 1, 2, 1);";

#[test]
fn a_nullable_tenant_key_is_still_the_tenant_key() {
    let (_database, mut client) = database_with(SHOP);
    let row = one(
        &mut client,
        "SELECT filled, reasons, note FROM backfill('orders', 'customer_id', dry_run => false)",
    );
    assert!(row.starts_with(r#"1|{"cross_tenant": 1}|tenant guard: organization_id must equal organization_id of customers (organizations)"#), "{row}");
}

#[test]
fn a_column_named_after_a_parent_and_its_key_is_a_copy_of_that_key() {
    let (_database, mut client) = database_with(
        r#"CREATE TABLE orgs (id int PRIMARY KEY); INSERT INTO orgs VALUES (1), (2);
           CREATE TABLE accounts (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs); INSERT INTO accounts VALUES (10, 1), (20, 2);
           CREATE TABLE invoices (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, account_id int REFERENCES accounts, region_id int, total int);
           INSERT INTO invoices VALUES (1, 1, 10, 7, 100), (2, 2, 20, 8, 200), (3, 1, NULL, NULL, 300);
           CREATE TABLE lines (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, invoice_id int REFERENCES invoices, account_id int REFERENCES accounts,
                               invoice_account_id int, invoice_region_id int, invoice_total int);
           INSERT INTO lines VALUES (1, 1, 1, 20), (2, 2, 2, 10), (3, 1, 3, 10), (4, 2, 1, 20), (5, 1, NULL, 10);
           CREATE TABLE "Note" (id int PRIMARY KEY, "invoiceId" int REFERENCES invoices, "invoiceAccountId" int);
           INSERT INTO "Note" VALUES (1, 1), (2, 2)"#,
    );
    let filled =
        |client: &mut postgres::Client, call: &str| one(client, &format!("SELECT filled, reasons FROM {call}"));
    // Another tenant's invoice gives nothing.
    assert_eq!(
        filled(&mut client, "backfill('lines', 'invoice_account_id', dry_run => false)"),
        r#"2|{"no_source": 1, "source_null": 1, "cross_tenant": 1}"#
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT string_agg(concat(id, ':', invoice_account_id), ',' ORDER BY id) FROM lines"
        ),
        "1:10,2:20,3:,4:,5:"
    );
    assert_eq!(
        filled(&mut client, "backfill('lines', 'invoice_region_id')"),
        r#"3|{"no_source": 1, "source_null": 1}"#
    );
    assert_eq!(filled(&mut client, "backfill('Note', 'invoiceAccountId')"), "2|{}");
    // A total is no key: nothing says that it is a copy.
    let refused = failure(&mut client, "SELECT * FROM backfill('lines', 'invoice_total')");
    assert_eq!(refused.code, "42703", "{refused:?}");
}

#[test]
fn a_path_finds_a_key_of_tenant_and_id_by_itself() {
    for (foreign_key, key) in [
        ("", "org_id, id"),
        ("", "id, org_id"),
        (
            ", FOREIGN KEY (org_id, domain_id) REFERENCES domains (org_id, id)",
            "org_id, id",
        ),
    ] {
        let (_database, mut client) = database_with(&format!(
            "CREATE TABLE orgs (id int PRIMARY KEY); INSERT INTO orgs VALUES (1), (2);
             CREATE TABLE domains (org_id int NOT NULL REFERENCES orgs, id int, owner_id int, PRIMARY KEY ({key}), UNIQUE (org_id, id));
             INSERT INTO domains VALUES (1, 10, 7), (2, 10, 8), (2, 20, 9);
             CREATE TABLE pages (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, domain_id int, owner_id int{foreign_key});
             INSERT INTO pages VALUES (1, 1, 10), (2, 2, 10), (3, 2, 20), (4, 1, NULL);
             CREATE TABLE visits (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, page_id int REFERENCES pages, owner_id int);
             INSERT INTO visits VALUES (1, 1, 1), (2, 2, 3)"
        ));
        let filled = one(
            &mut client,
            "SELECT filled, reasons, note FROM backfill('pages', 'owner_id', ARRAY['domain_id -> domains.owner_id'], dry_run => false)",
        );
        assert!(
            filled.starts_with(r#"3|{"no_source": 1}|"#) && filled.contains("(org_id, domain_id) -> domains"),
            "{filled}"
        );
        assert_eq!(
            one(
                &mut client,
                "SELECT string_agg(concat(id, ':', owner_id), ',' ORDER BY id) FROM pages"
            ),
            "1:7,2:8,3:9,4:"
        );
        // In the middle of a path as well.
        let through = one(
            &mut client,
            "SELECT filled FROM backfill('visits', 'owner_id', ARRAY['page_id -> pages.domain_id -> domains.owner_id'], dry_run => false)",
        );
        assert_eq!(through, "2");
        assert_eq!(
            one(
                &mut client,
                "SELECT string_agg(owner_id::text, ',' ORDER BY id) FROM visits"
            ),
            "7,9"
        );
    }
    // What is not named after the key says nothing of it.
    let (_database, mut client) = database_with(
        "CREATE TABLE domains (org_id int, id int, owner_id int, PRIMARY KEY (org_id, id));
         CREATE TABLE pages (id int PRIMARY KEY, org_id int, place int, owner_id int)",
    );
    let refused = failure(
        &mut client,
        "SELECT * FROM backfill('pages', 'owner_id', ARRAY['place -> domains.owner_id'])",
    );
    assert_eq!(refused.code, "42830", "{refused:?}");
}

#[test]
fn a_lookup_table_that_both_sides_share_is_never_silently_the_tenant() {
    // As often shared, as well named, and NOT NULL where the tenant key is not: between these two tables alone that cannot be told apart.
    // The table that stands out among all is the tenant, as for everybody else who asks.
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id int PRIMARY KEY); CREATE TABLE countries (id int PRIMARY KEY);
         CREATE TABLE customers (id int PRIMARY KEY, country_id int NOT NULL REFERENCES countries, organization_id int REFERENCES organizations);
         CREATE TABLE contacts (id int PRIMARY KEY, customer_id int REFERENCES customers, country_id int NOT NULL REFERENCES countries, organization_id int REFERENCES organizations);
         CREATE TABLE orders (id int PRIMARY KEY, contact_id int REFERENCES contacts, customer_id int REFERENCES customers, country_id int NOT NULL REFERENCES countries, organization_id int REFERENCES organizations)",
    );
    let note = one(&mut client, "SELECT note FROM backfill('orders', 'customer_id')");
    assert!(
        note.starts_with("tenant guard: organization_id must equal organization_id of customers (organizations)"),
        "{note}"
    );
}

#[test]
fn a_tenant_key_without_a_foreign_key_counts() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id uuid PRIMARY KEY); CREATE TABLE statuses (id int PRIMARY KEY);
         CREATE TABLE notes (id int PRIMARY KEY, tenant_id uuid NOT NULL); CREATE TABLE files (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE customers (id int PRIMARY KEY, status_id int NOT NULL REFERENCES statuses, tenant_id uuid NOT NULL);
         CREATE TABLE contacts (id int PRIMARY KEY, tenant_id uuid NOT NULL, customer_id int REFERENCES customers);
         CREATE TABLE orders (id int PRIMARY KEY, status_id int NOT NULL REFERENCES statuses, tenant_id uuid NOT NULL, contact_id int REFERENCES contacts, customer_id int REFERENCES customers)",
    );
    let note = one(&mut client, "SELECT note FROM backfill('orders', 'customer_id')");
    assert!(
        note.starts_with("tenant guard: tenant_id must equal tenant_id of customers (tenants)"),
        "{note}"
    );
}

#[test]
fn the_tenant_key_itself_is_not_guarded_by_something_else() {
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id bigint PRIMARY KEY, owner_id bigint);
         CREATE TABLE users (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations);
         ALTER TABLE organizations ADD FOREIGN KEY (owner_id) REFERENCES users;
         CREATE TABLE posts (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations, user_id bigint REFERENCES users);
         INSERT INTO organizations VALUES (1), (2); INSERT INTO users VALUES (1, 1), (2, 1), (3, 2);
         UPDATE organizations SET owner_id = CASE id WHEN 1 THEN 1 ELSE 3 END;
         INSERT INTO posts VALUES (1, NULL, 1), (2, NULL, 2), (3, NULL, 3)",
    );
    let row = one(
        &mut client,
        "SELECT filled, reasons, note FROM backfill('posts', 'organization_id')",
    );
    assert!(row.starts_with("3|{}|from user_id -> users.organization_id"), "{row}");
}

#[test]
fn tenant_restricts_by_the_tenant_or_not_at_all() {
    let (_database, mut client) = database_with(
        "CREATE TABLE tenants (id int PRIMARY KEY); CREATE TABLE currencies (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY, currency_id int NOT NULL REFERENCES currencies, tenant_id int REFERENCES tenants, a int, v int);
         INSERT INTO tenants VALUES (1), (2); INSERT INTO currencies VALUES (1), (2); INSERT INTO t VALUES (1, 1, 1, 5), (2, 1, 2, 5), (3, 2, 1, 5)",
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('t', 'v', ARRAY['a'], tenant => '1')",
    );
    assert_eq!(
        (
            failed.code.as_str(),
            failed.hint.contains("SET pg_mend.tenant_root = 'tenants'")
        ),
        ("42703", true),
        "{failed:?}"
    );
    client.batch_execute("SET pg_mend.tenant_root = 'tenants'").unwrap();
    let row = one(
        &mut client,
        "SELECT filled, reasons, note FROM backfill('t', 'v', ARRAY['a'], tenant => '1')",
    );
    assert!(
        row.starts_with(r#"2|{"excluded": 1}|"#) && row.contains("restricted to tenant_id = 1"),
        "{row}"
    );
}

#[test]
fn who_typed_it_is_not_whose_it_is() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_party(&mut client);
    client
        .batch_execute(
            "ALTER TABLE \"Invoice\" DROP \"contactId\", DROP \"organizationId\", ADD \"createdBy\" text REFERENCES \"User\";
             UPDATE \"Invoice\" SET \"createdBy\" = 'user_' || \"tenantId\" || '_linked';
             ALTER TABLE \"AnimalOwner\" DROP \"contactId\", DROP \"organizationId\";
             ALTER TABLE \"User\" DROP \"contactId\", ADD \"invitedById\" text REFERENCES \"User\"",
        )
        .unwrap();
    for table in ["Invoice", "AnimalOwner", "User"] {
        let row = one(
            &mut client,
            &format!("SELECT filled, note FROM backfill_party_ids() WHERE table_name = '\"{table}\"'"),
        );
        assert!(row.starts_with("0|nothing to fill it from"), "{table}: {row}");
        assert_eq!(
            failure(&mut client, &format!("SELECT * FROM backfill_party_ids('{table}')")).code,
            "42703"
        );
    }
}

#[test]
fn a_column_of_another_meaning_is_no_source() {
    let (_database, mut client) = database_with(
        "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE organizations (id int PRIMARY KEY, owner_id int REFERENCES users, parent_id int REFERENCES organizations);
         ALTER TABLE users ADD organization_id int REFERENCES organizations;
         CREATE TABLE orders (id int PRIMARY KEY, organization_id int REFERENCES organizations, approved_by_id int REFERENCES users)",
    );
    for (table, column) in [("orders", "approved_by_id"), ("organizations", "parent_id")] {
        let failed = failure(&mut client, &format!("SELECT * FROM backfill('{table}', '{column}')"));
        assert_eq!(failed.code, "42703", "{table}.{column}: {failed:?}");
    }
}

#[test]
fn a_recorded_rule_means_the_same_under_another_search_path() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE SCHEMA f; CREATE TABLE contact (id int PRIMARY KEY, party_id int); CREATE TABLE f.contact (id int PRIMARY KEY, party_id int);
             CREATE FUNCTION f.odd(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 % 2 = 1 $$;
             INSERT INTO contact VALUES (1, 1); INSERT INTO f.contact VALUES (1, 3);
             CREATE TABLE f.entry (id int PRIMARY KEY, contact_id int, party_id int); INSERT INTO f.entry VALUES (1, 1), (2, 1); SET search_path = f, public",
        )
        .unwrap();
    let call = "SELECT filled FROM backfill('entry', 'party_id', ARRAY['contact_id -> contact.party_id'], false, only_where => 'odd(id)')";
    assert_eq!(one(&mut client, call), "1");
    client
        .batch_execute("UPDATE entry SET party_id = NULL; SET search_path = public")
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT b.filled FROM mend.runs r, backfill(r.rule, false) b"
        ),
        "1"
    );
    assert_eq!(one(&mut client, "SELECT party_id FROM f.entry WHERE id = 1"), "3");
    // A reference that only the name says is part of the rule as well.
    client
        .batch_execute(
            "CREATE TABLE party (id int PRIMARY KEY); INSERT INTO party VALUES (1); INSERT INTO contact VALUES (2, 99);
             CREATE TABLE invoice (id int PRIMARY KEY, contact_id int, party_id int); INSERT INTO invoice VALUES (1, 1), (2, 2)",
        )
        .unwrap();
    let run = one(
        &mut client,
        "SELECT run_id FROM backfill('invoice', 'party_id', dry_run => false)",
    );
    assert_eq!(
        one(
            &mut client,
            &format!("SELECT filled, reasons FROM mend.runs WHERE run_id = {run}")
        ),
        r#"1|{"constraint_failed": 1}"#
    );
    client.batch_execute("UPDATE invoice SET party_id = NULL").unwrap();
    let again = format!("SELECT b.filled, b.reasons FROM mend.runs r, backfill(r.rule) b WHERE r.run_id = {run}");
    assert_eq!(one(&mut client, &again), r#"1|{"constraint_failed": 1}"#);
}
