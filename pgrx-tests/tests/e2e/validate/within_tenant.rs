//! Columns that mean a table whose key is (tenant, id), against a model, checked and repaired.

use pgrx_tests::database_with;
use pgrx_tests::example::one;
use postgres::Client;

use super::found;

#[test]
fn a_column_that_means_a_key_of_tenant_and_id_is_a_reference_of_its_own_tenant() {
    for seed in pgrx_tests::cases(12, 0) {
        // Keys in both orders, other types of the tenant, tenants that are not known; every third id is nobody's.
        let (key, tenant) = match seed % 3 {
            0 => ("org_id, id", "int"),
            1 => ("id, org_id", "bigint"),
            _ => ("org_id, id", "int NOT NULL"),
        };
        let unknown = if tenant == "int NOT NULL" { "1" } else { "NULL" };
        let (_database, mut client) = database_with(&format!(
            "SELECT setseed({seed} / 1000.0);
             CREATE TABLE orgs (id int PRIMARY KEY, name text);
             INSERT INTO orgs SELECT generate_series(1, 4);
             CREATE TABLE domains (org_id int NOT NULL REFERENCES orgs, id int, PRIMARY KEY ({key}));
             INSERT INTO domains SELECT DISTINCT 1 + floor(random() * 4)::int, 3 * floor(random() * 8)::int FROM generate_series(1, 20);
             CREATE TABLE pages (id int PRIMARY KEY, org_id {tenant} REFERENCES orgs, domain_id int);
             CREATE TABLE logs (id int, domain_id int); INSERT INTO logs VALUES (1, 0);
             INSERT INTO pages SELECT i, CASE WHEN random() < 0.1 THEN {unknown} ELSE 1 + floor(random() * 4)::int END,
                 CASE WHEN random() < 0.2 THEN NULL ELSE floor(random() * 24)::int END FROM generate_series(1, 200) AS i"
        ));
        let expected = one(
            &mut client,
            "SELECT concat_ws('|', count(*), count(*) FILTER (WHERE org_id IS NOT NULL AND NOT anybody),
                    count(*) FILTER (WHERE org_id IS NOT NULL AND anybody AND NOT own), count(*) FILTER (WHERE org_id IS NULL), 0)
             FROM (SELECT p.*, EXISTS (SELECT FROM domains d WHERE d.id = p.domain_id) AS anybody,
                          EXISTS (SELECT FROM domains d WHERE d.id = p.domain_id AND d.org_id = p.org_id) AS own FROM pages p) p
             WHERE domain_id IS NOT NULL",
        );
        let reference = |client: &mut Client, root: &str| {
            let all = found(client, root);
            all.into_iter()
                .find(|line| line.starts_with("pages.(org_id, domain_id)|missing|"))
        };
        let line = reference(&mut client, "").unwrap();
        assert_eq!(
            line,
            format!("pages.(org_id, domain_id)|missing|{expected}|violations"),
            "case {seed}"
        );
        // What cannot be checked is said.
        let logs = one(
            &mut client,
            "SELECT verdict || ': ' || fix FROM validate_tenant_fks() WHERE table_name = 'logs' AND column_name = 'domain_id'",
        );
        assert!(
            logs.starts_with("not_checked: the key of domains is (")
                && logs.contains("declare_tenant_key('logs', '...')"),
            "{logs}"
        );
        // Without tenants, a row that only another tenant has is no row.
        let alone = reference(&mut client, "''").unwrap();
        let orphans = one(
            &mut client,
            "SELECT count(*) FROM pages p WHERE domain_id IS NOT NULL AND org_id IS NOT NULL
               AND NOT EXISTS (SELECT FROM domains d WHERE d.id = p.domain_id AND d.org_id = p.org_id)",
        );
        assert_eq!(alone.split('|').nth(3), Some(orphans.as_str()), "case {seed}: {alone}");
        // Repaired one kind after the other, nothing is left but the tenants that are not known, and no tenant key was touched.
        let keys = one(
            &mut client,
            "SELECT md5(string_agg(concat(id, '-', org_id), ',' ORDER BY id)) FROM pages",
        );
        let orphans = one(
            &mut client,
            "SELECT repaired FROM repair_orphans('pages', 'domain_id', 'create_parent', dry_run => false)",
        );
        assert_eq!(Some(orphans.as_str()), expected.split('|').nth(1), "case {seed}");
        let crossing = one(
            &mut client,
            "SELECT repaired FROM repair_orphans('pages', '(org_id, domain_id)', 'nullify', violation => 'cross_tenant', dry_run => false)",
        );
        assert_eq!(Some(crossing.as_str()), expected.split('|').nth(2), "case {seed}");
        let line = reference(&mut client, "").unwrap();
        let left: Vec<&str> = line.split('|').skip(3).take(2).collect();
        assert_eq!(left, ["0", "0"], "case {seed}: {line}");
        let after = one(
            &mut client,
            "SELECT md5(string_agg(concat(id, '-', org_id), ',' ORDER BY id)) FROM pages",
        );
        assert_eq!(after, keys, "case {seed}");
    }
}
