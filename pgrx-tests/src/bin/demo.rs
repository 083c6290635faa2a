//! The guided example: a throwaway cluster, the party model half-way, dry run, real run, what was left and why, and an
//! independent check in plain SQL. `dev/demo` sets everything up and runs this.

use anyhow::Result;
use pgrx_tests::{Cluster, Options, example, print};
use postgres::Client;

fn main() -> Result<()> {
    say("starting a throwaway cluster");
    let cluster = Cluster::start(Options::default())?;
    let database = cluster.database()?;
    let mut client = database.connect();
    say("loading examples/party.sql: 3 tenants, 14 tables that point at clients, every situation in every table");
    example::load_party(&mut client);

    say("dry run over all tables: nothing is written");
    show(
        &mut client,
        "SELECT table_name, column_name, total, already_set, filled, unfilled FROM backfill_party_ids()",
    )?;
    say("one table, with the reasons");
    show(
        &mut client,
        "SELECT total, already_set, filled, unfilled, reasons FROM backfill_party_ids('WaitlistEntry', true)",
    )?;
    say("the real run, in one transaction: every number is read back before it returns");
    show(
        &mut client,
        "SELECT table_name, column_name, filled, unfilled, reasons FROM backfill_party_ids(NULL, false)",
    )?;
    say("what was left in one table, and why (one row of each reason)");
    show(
        &mut client,
        "SELECT DISTINCT ON (reason) key, reason, detail FROM backfill_unfilled('WaitlistEntry', 'clientPartyId') ORDER BY reason, key",
    )?;
    say("run again: nothing is left to do, nothing is written");
    show(
        &mut client,
        "SELECT sum(filled) AS filled FROM backfill_party_ids(NULL, false)",
    )?;
    say("the record");
    show(
        &mut client,
        "SELECT run_id, table_name, filled, run_by FROM mend.runs WHERE filled > 0 ORDER BY run_id LIMIT 5",
    )?;
    say("validated without pg_mend: rows that crossed a tenant, and rows that could have been filled and were not");
    show(
        &mut client,
        r#"SELECT count(*) FILTER (WHERE p."tenantId" <> w."tenantId") AS cross_tenant,
       count(*) FILTER (WHERE w."clientPartyId" IS NULL AND w.status = 'OPEN' AND cp."tenantId" = w."tenantId"
                          AND (o."partyId" IS NULL OR o."partyId" = c."partyId")) AS forgotten,
       count(*) FILTER (WHERE p.id IS NULL AND w."clientPartyId" IS NOT NULL) AS orphans
FROM "WaitlistEntry" w
LEFT JOIN "Party" p ON p.id = w."clientPartyId"
LEFT JOIN "Contact" c ON c.id = w."contactId"
LEFT JOIN "Party" cp ON cp.id = c."partyId"
LEFT JOIN "Organization" o ON o.id = w."organizationId""#,
    )?;
    say(
        "as after an import without any party: contacts, organizations and users get one first, all else takes theirs, in one call",
    );
    show(&mut client, "DELETE FROM \"Party\"")?;
    show(
        &mut client,
        r#"SELECT table_name, column_name, filled, unfilled, parents_created FROM backfill_party_ids(create_missing => true, dry_run => false,
  set => '{"Contact": {"displayName": "name"}, "Organization": {"displayName": "name"}, "User": {"displayName": "email", "kind": "''CONTACT''"}}')
WHERE filled > 0"#,
    )?;
    drop(client);
    drop(database);

    let database = cluster.database()?;
    let mut client = database.connect();
    say(
        "loading examples/organizations.sql: 3 organizations, 12 tables, organization_id in most of them, filled in few",
    );
    example::load_organizations(&mut client);
    say("the tenant key of every table, and the path to its value, from the catalog alone");
    show(
        &mut client,
        "SELECT table_name, tenant_column, status, path, alternatives FROM tenant_columns()",
    )?;
    say("dry run: children see what their parents would get");
    show(
        &mut client,
        "SELECT table_name, total, already_set, filled, unfilled, reasons FROM backfill_tenant_ids()",
    )?;
    say("the real run, parents before children");
    show(
        &mut client,
        "SELECT table_name, filled, unfilled, reasons FROM backfill_tenant_ids(dry_run => false)",
    )?;
    say("two paths that differ");
    show(
        &mut client,
        "SELECT * FROM backfill_unfilled('page_embeddings', 'organization_id', max_rows => 2)",
    )?;
    say("how far it is, and how right: 100 % filled with three rows in the wrong organization");
    show(&mut client, "SELECT * FROM backfill_coverage()")?;
    say("those three, repaired when asked by that name, the old values kept");
    show(
        &mut client,
        "SELECT filled, note FROM backfill('structured_extractions', 'organization_id', overwrite => 'mismatched', dry_run => false)",
    )?;
    show(
        &mut client,
        "SELECT row_key, old_value, new_value FROM mend.replaced_values",
    )?;
    say("columns that are empty, and what still uses them");
    show(
        &mut client,
        "SELECT table_name, column_name, verdict, rows_checked, used_by FROM dead_columns()",
    )?;
    say("the map; numbers with ~ come from ANALYZE");
    client.batch_execute("ANALYZE")?;
    println!("{}", example::one(&mut client, "SELECT tenant_map(format => 'tree')"));
    say("checked without pg_mend: messages and embeddings that are in another organization than their domain");
    show(
        &mut client,
        "SELECT count(*) FILTER (WHERE m.organization_id <> d.organization_id) AS messages,
       (SELECT count(*) FROM page_embeddings e JOIN scraped_pages p ON p.id = e.page_id JOIN domains d ON d.id = p.domain_id
        WHERE e.organization_id <> d.organization_id) AS embeddings
FROM messages m
JOIN conversations c ON c.id = m.conversation_id
JOIN domains d ON d.id = c.domain_id",
    )?;
    say("every reference against the rows: what is not ok");
    show(
        &mut client,
        "SELECT table_name, column_name, rows_checked, orphans, cross_tenant, null_tenant, verdict FROM validate_tenant_fks() WHERE verdict <> 'ok'",
    )?;
    say("the checklist");
    show(
        &mut client,
        "SELECT question, checked, found, verdict FROM migration_report() WHERE table_name IS NULL",
    )?;
    say("locked in with short locks: NOT NULL and the foreign key, each step a transaction of its own");
    show(
        &mut client,
        "CALL finalize_backfill('structured_extractions', 'organization_id')",
    )?;
    drop(client);
    drop(database);

    let database = cluster.database()?;
    let mut client = database.connect();
    say("loading examples/properties.sql: 120 orders with an address, properties to be created from them");
    example::load_properties(&mut client);
    let call = r#"SELECT filled, unfilled, reasons, parents_found, parents_created
FROM backfill_parents('orders', 'property_id', match => '{"addr_key": "address"}',
  set => '{"city": "city", "state": "state", "postal_code": "postal_code"}',
  "normalize" => '{"addr_key": ["trim", "casefold", "spaces"]}'"#;
    say("dry run: one property for each organisation and address");
    show(&mut client, &format!("{call})"))?;
    say("the real run does exactly that");
    show(&mut client, &format!("{call}, dry_run => false)"))?;
    say("checked without pg_mend: orders whose property is another organisation's, addresses that have two");
    show(
        &mut client,
        "SELECT count(*) FILTER (WHERE o.created_by <> p.org_id) AS cross_tenant,
       count(DISTINCT p.id) - count(DISTINCT (p.org_id, p.addr_key)) AS twice
FROM orders o JOIN properties p ON p.id = o.property_id",
    )?;
    drop(client);
    drop(database);
    let database = cluster.database()?;
    let mut client = database.connect();
    say(
        "loading examples/ascora.sql: a database without organizations, and a migration that needs them (examples/migrations)",
    );
    example::load_ascora(&mut client);
    let script = "(SELECT script FROM scripts WHERE name = '006_ascora_integration.sql')";
    let run = || {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/migrations/006_ascora_integration.sql"
        );
        let printed = database.psql(&["-f", file], "");
        let errors: Vec<&str> = printed
            .lines()
            .filter_map(|line| line.split_once("ERROR:  "))
            .map(|(_, error)| error)
            .collect();
        println!(
            "psql -f examples/migrations/006_ascora_integration.sql: {} errors{}\n",
            errors.len(),
            errors
                .first()
                .map(|error| format!(", the first: {error}"))
                .unwrap_or_default()
        );
    };
    say("it is run, and fails");
    run();
    say("how far did it get, and why?");
    show(
        &mut client,
        &format!(
            "SELECT state, count(*), min(step) AS first_step, min(detail) AS detail FROM migration_status({script}) GROUP BY state ORDER BY first_step"
        ),
    )?;
    say("what a rehearsal raises: everything is rolled back");
    show(
        &mut client,
        &format!(
            "SELECT sqlstate, count(*), min(message) AS message FROM migration_rehearse({script}) WHERE step IS NOT NULL GROUP BY sqlstate ORDER BY sqlstate"
        ),
    )?;
    say("what the failed run left behind is taken back");
    show(
        &mut client,
        &format!("SELECT object, action, statement, reason FROM migration_reset({script}, dry_run => false)"),
    )?;
    say("the tenants that it needs, from a rule");
    show(
        &mut client,
        r#"SELECT object, action FROM ensure_tenant_root('organizations', users => 'users', members => 'organization_members',
  columns => '{"slug": "text NOT NULL UNIQUE", "name": "text NOT NULL"}', first_tenant => '{"slug": "acme", "name": "Acme"}', first_owner => 'user_2', dry_run => false)"#,
    )?;
    say("it is run again");
    run();
    show(
        &mut client,
        &format!(
            "SELECT state, count(*), min(detail) AS detail FROM migration_status({script}) GROUP BY state ORDER BY min(coalesce(step, 99))"
        ),
    )?;
    say("checked against the rows: what references the tenants");
    show(
        &mut client,
        "SELECT table_name, column_name, constraint_state, verdict FROM validate_tenant_fks('organizations', samples => 0) WHERE parent_table = 'organizations'",
    )?;
    drop(client);
    drop(database);
    say("removing the cluster");
    drop(cluster);
    Ok(())
}

fn say(what: &str) {
    println!("\n\x1b[1m-- {what}\x1b[0m");
}

fn show(client: &mut Client, sql: &str) -> Result<()> {
    println!("{sql};\n\n{}", print::table(client, sql)?);
    Ok(())
}
