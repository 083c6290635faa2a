//! `backfill_party_ids(create_missing => true)`: contacts, organizations and users get a party first, then everything takes theirs.

use std::collections::BTreeMap;

use pgrx_tests::example::{failure, lines, load_party, one};
use pgrx_tests::{database, database_with};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SET: &str = r#"{"Contact": {"displayName": "name"}, "Organization": {"displayName": "name"},
                      "User": {"kind": "'CONTACT'", "displayName": "email"}}"#;
const RESULT: &str = "table_name, total, already_set, filled, unfilled, reasons, parents_created";

#[test]
fn a_fresh_import_in_one_call() {
    let database = database();
    let mut client = database.connect();
    load_party(&mut client);
    // Every key is ON DELETE SET NULL: as if nothing had ever been given a party.
    client.batch_execute("DELETE FROM \"Party\"").unwrap();
    client
        .batch_execute("INSERT INTO \"TenantMembership\" VALUES ('user_1_no_contact', 2)")
        .unwrap();
    let call = |dry_run: bool| {
        format!(
            "SELECT {RESULT} FROM backfill_party_ids(create_missing => true, set => $${SET}$$, dry_run => {dry_run})"
        )
    };
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = lines(&mut client, &call(true));
    client.batch_execute("COMMIT").unwrap();
    let real = lines(&mut client, &call(false));
    assert_eq!(dry, real);
    // Worked out by hand: ten contacts and four organizations a tenant; a user whose contact exists is that contact. One is a member of
    // two tenants now.
    assert_eq!(
        real[..3],
        [
            r#""Contact"|30|0|30|0|{}|30"#,
            r#""Organization"|12|0|12|0|{}|12"#,
            r#""User"|18|0|17|1|{"ambiguous": 1}|5"#
        ]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*), count(DISTINCT c.\"partyId\"), bool_and(p.\"tenantId\" = c.\"tenantId\" AND p.\"displayName\" = c.name AND p.kind = 'CONTACT')
             FROM \"Contact\" c JOIN \"Party\" p ON p.id = c.\"partyId\""
        ),
        "30|30|t"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*), bool_and(u.\"partyId\" = c.\"partyId\") FROM \"User\" u JOIN \"Contact\" c ON c.id = u.\"contactId\""
        ),
        "12|t"
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM \"Party\""), "47");
    // What was created is known, and a second run does nothing.
    assert_eq!(
        one(
            &mut client,
            "SELECT count(*), count(DISTINCT run_id) FROM mend.created_rows WHERE table_name ~ 'Party'"
        ),
        "47|3"
    );
    let again = lines(
        &mut client,
        &format!(
            "SELECT sum(filled), sum(parents_created) FROM backfill_party_ids(create_missing => true, set => $${SET}$$, dry_run => false)"
        ),
    );
    assert_eq!(again, ["0|0"]);
}

#[test]
fn what_is_missing_is_said_of_all_tables_at_once() {
    let database = database();
    let mut client = database.connect();
    load_party(&mut client);
    let failed = failure(&mut client, "SELECT * FROM backfill_party_ids(create_missing => true)");
    assert_eq!(failed.code, "23502");
    for part in [
        "\"Contact\": \"displayName\" text;",
        "\"User\": kind",
        "(CONTACT, ORGANIZATION)",
    ] {
        assert!(failed.detail.contains(part), "{failed:?}");
    }
    // The hint is a call that goes on, with values that are there as examples.
    let at = failed.hint.find("set => ").unwrap();
    let set = &failed.hint[at..];
    let call = format!("SELECT sum(parents_created) FROM backfill_party_ids(create_missing => true, {set})");
    assert_eq!(one(&mut client, &call), "12");
    let set = r#"{"Invoice": {"displayName": "'x'"}}"#;
    let refused = [
        (
            "create_missing => true, table_name => 'AnimalOwner'".to_string(),
            "22023",
        ),
        (
            format!("create_missing => true, set => '{}'", set.replace('\'', "''")),
            "22023",
        ),
        (
            r#"create_missing => true, set => '{"Nobody": {}}'"#.to_string(),
            "42P01",
        ),
        (r#"set => '{"Contact": {}}'"#.to_string(), "22023"),
        ("create_missing => NULL".to_string(), "22004"),
        ("create_missing => true, set => '[]'".to_string(), "22023"),
    ];
    for (arguments, code) in refused {
        let failed = failure(&mut client, &format!("SELECT * FROM backfill_party_ids({arguments})"));
        assert_eq!(failed.code, code, "{arguments}: {failed:?}");
        assert!(!failed.hint.is_empty(), "{arguments}");
    }
    assert_eq!(one(&mut client, "SELECT count(*) FROM mend.runs"), "0");
}

#[test]
fn one_table_one_tenant_and_a_condition() {
    let database = database();
    let mut client = database.connect();
    load_party(&mut client);
    let set = r#"{"Contact": {"displayName": "name"}, "User": {"kind": "'CONTACT'", "displayName": "email"}}"#;
    let call = |dry_run: bool, rest: &str, set: &str| {
        format!(
            "SELECT filled, reasons, parents_created FROM backfill_party_ids(create_missing => true, dry_run => {dry_run}, set => $${set}$${rest})"
        )
    };
    let contact = r#"{"Contact": {"displayName": "name"}}"#;
    for dry_run in [true, false] {
        assert_eq!(
            one(
                &mut client,
                &call(dry_run, ", table_name => 'Contact', tenant => '2'", contact)
            ),
            r#"1|{"excluded": 20}|1"#
        );
    }
    let failed = failure(&mut client, &call(true, ", table_name => 'Contact'", set));
    assert_eq!(failed.code, "22023", "{failed:?}");
    let user = r#"{"User": {"kind": "'CONTACT'", "displayName": "email"}}"#;
    // Those of tenants 1 and 3 whose contact is contact 9, which has no party, wait for it.
    for dry_run in [true, false] {
        assert_eq!(
            one(
                &mut client,
                &call(
                    dry_run,
                    ", table_name => 'User', only_where => $$id !~ 'user_2' OR email ~ '^linked' -- not them$$",
                    user
                )
            ),
            r#"10|{"excluded": 4, "source_null": 2}|4"#
        );
    }
}

#[test]
fn a_failing_trigger_takes_back_everything() {
    let database = database();
    let mut client = database.connect();
    load_party(&mut client);
    client
        .batch_execute(
            "DELETE FROM \"Party\";
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today' USING ERRCODE = '22000'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON \"WaitlistEntry\" FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let failed = failure(
        &mut client,
        &format!("SELECT * FROM backfill_party_ids(create_missing => true, dry_run => false, set => $${SET}$$)"),
    );
    assert_eq!(failed.code, "22000");
    assert_eq!(
        one(
            &mut client,
            "SELECT (SELECT count(*) FROM \"Party\"), (SELECT count(\"partyId\") FROM \"Contact\"), (SELECT count(*) FROM mend.runs)"
        ),
        "0|0|0"
    );
}

/// Random contacts, users and memberships; keys of several types; against a model that goes row by row.
#[test]
fn random_rows_against_a_model() {
    let cases: u64 = std::env::var("MEND_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(25);
    for seed in 0..cases.min(200) {
        one_case(seed);
    }
}

fn one_case(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (key, default) = [
        ("int", "GENERATED ALWAYS AS IDENTITY"),
        ("bigint", "GENERATED BY DEFAULT AS IDENTITY"),
        ("uuid", "DEFAULT gen_random_uuid()"),
        ("text", "DEFAULT 'p-' || gen_random_uuid()"),
    ][random.random_range(0..4)];
    let user_key = ["int", "text", "uuid"][random.random_range(0..3)];
    let user_id = |n: i32| match user_key {
        "uuid" => format!("00000000-0000-0000-0000-{n:012}"),
        _ => n.to_string(),
    };
    // Names of parties are unique in some cases: what two would share refuses both.
    let unique = random.random_bool(0.3);
    let mut sql = format!(
        "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2);
         CREATE TYPE party_kind AS ENUM ('CONTACT', 'PERSON');
         CREATE TABLE parties (id {key} {default} PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, kind party_kind NOT NULL, name text NOT NULL {});
         CREATE TABLE contacts (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, name text, party_id {key} REFERENCES parties);
         CREATE TABLE users (id {user_key} PRIMARY KEY, email text, contact_id int, party_id {key} REFERENCES parties);
         CREATE TABLE memberships (user_id {user_key} REFERENCES users, tenant_id int REFERENCES tenants, PRIMARY KEY (user_id, tenant_id));
         CREATE TABLE invoices (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, user_id {user_key} REFERENCES users, contact_id int, party_id {key} REFERENCES parties);
         -- Others have a contact and no user: the two are no alternatives, so that a user's contact says who the user is.
         CREATE TABLE calls (id int PRIMARY KEY, tenant_id int REFERENCES tenants, contact_id int, party_id {key} REFERENCES parties);
         CREATE TABLE visits (id int PRIMARY KEY, tenant_id int REFERENCES tenants, contact_id int, party_id {key} REFERENCES parties);",
        if unique { ", UNIQUE (tenant_id, name)" } else { "" },
    );
    // The model: who gets a party, by tenant and name.
    let mut party: BTreeMap<String, (i32, String)> = BTreeMap::new();
    let mut contacts: BTreeMap<i32, (i32, Option<String>, bool)> = BTreeMap::new();
    for id in 1..=random.random_range(0..7) {
        let tenant = random.random_range(1..3);
        let name = random
            .random_bool(0.85)
            .then(|| format!("n{}", random.random_range(0..6)));
        contacts.insert(id, (tenant, name, false));
    }
    let mut users: Vec<(i32, String, Option<i32>, Vec<i32>)> = Vec::new();
    for id in 1..=random.random_range(0..7) {
        let contact = random.random_bool(0.5).then(|| random.random_range(1..9));
        let members = (1..3).filter(|_| random.random_bool(0.6)).collect();
        users.push((id, format!("n{}", random.random_range(0..6)), contact, members));
    }
    for (id, (tenant, name, _)) in &contacts {
        let name = name.as_ref().map_or("NULL".into(), |name| format!("'{name}'"));
        sql += &format!("INSERT INTO contacts VALUES ({id}, {tenant}, {name});");
    }
    for (id, email, contact, members) in &users {
        let contact = contact.map_or("NULL".into(), |c| c.to_string());
        sql += &format!("INSERT INTO users VALUES ('{}', '{email}', {contact});", user_id(*id));
        for tenant in members {
            sql += &format!("INSERT INTO memberships VALUES ('{}', {tenant});", user_id(*id));
        }
    }
    let mut invoices = Vec::new();
    for id in 1..=random.random_range(0..8) {
        let user = (!users.is_empty() && random.random_bool(0.5)).then(|| random.random_range(1..=users.len()) as i32);
        let contact = random.random_bool(0.5).then(|| random.random_range(1..9));
        let tenant = random.random_range(1..3);
        let text = |value: Option<String>| value.map_or("NULL".to_string(), |v| format!("'{v}'"));
        sql += &format!(
            "INSERT INTO invoices VALUES ({id}, {tenant}, {}, {});",
            text(user.map(user_id)),
            text(contact.map(|c| c.to_string()))
        );
        invoices.push((id, tenant, user, contact));
    }
    // Two new rows of one step that would share a name refuse each other; of two steps, the second.
    let shared = |wanted: &BTreeMap<String, (i32, String)>, mine: &(i32, String)| {
        unique && wanted.values().filter(|other| *other == mine).count() > 1
    };
    let wanted: BTreeMap<String, (i32, String)> = contacts
        .iter()
        .filter_map(|(id, (tenant, name, _))| Some((format!("contact {id}"), (*tenant, name.clone()?))))
        .collect();
    for (who, mine) in &wanted {
        if !shared(&wanted, mine) {
            party.insert(who.clone(), mine.clone());
        }
    }
    let first = party.clone();
    let wanted: BTreeMap<String, (i32, String)> = users
        .iter()
        .filter(|(_, _, contact, members)| {
            members.len() == 1 && contact.is_none_or(|contact| !contacts.contains_key(&contact))
        })
        .map(|(id, email, _, members)| (format!("user {id}"), (members[0], email.clone())))
        .collect();
    for (who, mine) in &wanted {
        let taken = unique && first.values().any(|other| other == mine);
        if !taken && !shared(&wanted, mine) {
            party.insert(who.clone(), mine.clone());
        }
    }
    let of_contact = |id: i32| {
        party
            .contains_key(&format!("contact {id}"))
            .then(|| format!("contact {id}"))
    };
    let of_user = |id: i32| {
        let own = format!("user {id}");
        let (_, _, contact, _) = &users[id as usize - 1];
        match party.contains_key(&own) {
            true => Some(own),
            false => contact.filter(|c| contacts.contains_key(c)).and_then(of_contact),
        }
    };
    let mut expected: Vec<String> = Vec::new();
    for id in contacts.keys() {
        expected.push(format!("contact {id}|{}", of_contact(*id).unwrap_or("-".into())));
    }
    for (id, ..) in &users {
        expected.push(format!("user {id}|{}", of_user(*id).unwrap_or("-".into())));
    }
    for (id, tenant, user, contact) in &invoices {
        let (a, b) = (user.and_then(of_user), contact.and_then(of_contact));
        let value = match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => a.or(b),
        };
        // Another tenant's party is refused.
        let value = value.filter(|who| party[who].0 == *tenant);
        expected.push(format!("invoice {id}|{}", value.unwrap_or("-".into())));
    }
    expected.sort();

    let (_database, mut client) = database_with(&sql);
    let call = |dry_run: bool| {
        format!(
            "SELECT table_name, total, already_set, filled, unfilled, reasons, parents_created FROM backfill_party_ids(party_table => 'parties',
               create_missing => true, set => '{{\"users\": {{\"kind\": \"''PERSON''\", \"name\": \"email\"}}}}', dry_run => {dry_run})"
        )
    };
    client.batch_execute("SET pg_mend.tenant_root = 'tenants'").unwrap();
    let dry = lines(&mut client, &call(true));
    let real = lines(&mut client, &call(false));
    assert_eq!(dry, real, "case {seed}\n{sql}");
    let got = lines(
        &mut client,
        "WITH owner AS (SELECT party_id, 'contact ' || id AS who FROM contacts UNION ALL
                        SELECT u.party_id, 'user ' || right(u.id::text, 1) FROM users u
                        WHERE NOT EXISTS (SELECT FROM contacts c WHERE c.id = u.contact_id))
         SELECT what || '|' || coalesce(o.who, '-') FROM (
           SELECT 'contact ' || id AS what, party_id FROM contacts UNION ALL
           SELECT 'user ' || right(id::text, 1), party_id FROM users UNION ALL
           SELECT 'invoice ' || id, party_id FROM invoices) AS rows
         LEFT JOIN owner o USING (party_id) ORDER BY 1",
    );
    let mut got = got;
    got.sort();
    assert_eq!(got, expected, "case {seed}\n{sql}");
    let parties = lines(&mut client, "SELECT tenant_id, name FROM parties ORDER BY 1, 2");
    let mut model: Vec<String> = party
        .values()
        .map(|(tenant, name)| format!("{tenant}|{name}"))
        .collect();
    model.sort();
    assert_eq!(parties, model, "case {seed}\n{sql}");
    let again = one(
        &mut client,
        &call(false).replace(
            "table_name, total, already_set, filled, unfilled, reasons, parents_created",
            "sum(filled), sum(parents_created)",
        ),
    );
    assert_eq!(again, "0|0", "case {seed}\n{sql}");
}

const SMALL: &str = "
    CREATE TYPE kind AS ENUM ('CONTACT', 'USER'); CREATE TABLE tenant (id int PRIMARY KEY); INSERT INTO tenant VALUES (1), (2);
    CREATE TABLE party (id serial PRIMARY KEY, tenant_id int REFERENCES tenant, kind kind);";

#[test]
fn nobodys_rows_dangling_keys_one_tenant_and_a_hostile_operator() {
    let call = |dry_run: bool, rest: &str| {
        format!(
            "SELECT table_name, filled, reasons, parents_created FROM backfill_party_ids(party_table => 'party', create_missing => true, dry_run => {dry_run}{rest})"
        )
    };
    // Without a tenant on either side: nobody's row gets nobody's party.
    let (_database, mut client) = database_with(&format!(
        "{SMALL} CREATE TABLE contact (id int PRIMARY KEY, tenant_id int REFERENCES tenant, party_id int REFERENCES party);
         INSERT INTO contact VALUES (1, 1), (2, NULL)"
    ));
    for dry_run in [true, false] {
        assert_eq!(one(&mut client, &call(dry_run, "")), "contact|2|{}|2");
    }

    // A key whose party is gone must not become the next one's.
    let (_database, mut client) = database_with(&format!(
        "{SMALL} CREATE TABLE contact (id int PRIMARY KEY, tenant_id int REFERENCES tenant, party_id int);
         INSERT INTO contact VALUES (1, 1, 1), (2, 2, NULL)"
    ));
    let failed = failure(&mut client, &call(false, ""));
    assert_eq!(failed.code, "23000", "{failed:?}");
    assert!(
        failed
            .hint
            .contains("repair_orphans('public.contact', 'party_id', 'nullify')"),
        "{failed:?}"
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM party"), "0");

    // One tenant only; users say theirs through a membership, which restricts nothing.
    let (_database, mut client) = database_with(&format!(
        "{SMALL} CREATE TABLE contact (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, party_id int REFERENCES party);
         CREATE TABLE usr (id int PRIMARY KEY, contact_id int REFERENCES contact, party_id int REFERENCES party);
         CREATE TABLE note (id int PRIMARY KEY, usr_id int REFERENCES usr, party_id int REFERENCES party);
         CREATE TABLE membership (usr_id int REFERENCES usr, tenant_id int REFERENCES tenant);
         INSERT INTO contact VALUES (1, 1), (2, 2); INSERT INTO usr VALUES (1, 1), (2, NULL); INSERT INTO membership VALUES (1, 1), (2, 2)"
    ));
    let dry = lines(&mut client, &call(true, ", tenant => '2'"));
    assert_eq!(dry[0], r#"contact|1|{"excluded": 1}|1"#);
    assert_eq!(lines(&mut client, &call(false, ", tenant => '2'")), dry);

    // What somebody else made of an operator is not asked, in the dry run neither.
    let (_database, mut client) = database_with(&format!(
        "{SMALL} CREATE TABLE contact (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenant, party_id int REFERENCES party);
         INSERT INTO contact VALUES (1, 1), (2, 2);
         CREATE SCHEMA evil;
         CREATE FUNCTION evil.never(int4, int4) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
         CREATE OPERATOR evil.= (LEFTARG = int4, RIGHTARG = int4, FUNCTION = evil.never);
         CREATE FUNCTION evil.mul(float8, int4) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;
         CREATE OPERATOR evil.* (LEFTARG = float8, RIGHTARG = int4, FUNCTION = evil.mul);"
    ));
    client
        .batch_execute("SET search_path = evil, public, pg_catalog")
        .unwrap();
    for dry_run in [true, false] {
        let called = call(dry_run, "").replace("backfill_party_ids", "public.backfill_party_ids");
        assert_eq!(one(&mut client, &called), "contact|2|{}|2");
    }
}
