//! `ensure_tenant_root`: made where it is missing, compared where it is there.

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, one};

const COLUMNS: &str = r#"columns => '{"slug": "text NOT NULL UNIQUE", "name": "text NOT NULL"}'"#;

#[test]
fn made_once_with_the_key_of_the_users() {
    let (_database, mut client) = database_with(
        "CREATE TABLE users (user_id varchar(30) PRIMARY KEY, role text); INSERT INTO users VALUES ('u1', 'admin'), ('u2', 'user');
         CREATE TABLE jobs (id int, organization_id uuid); INSERT INTO jobs VALUES (1, NULL), (2, gen_random_uuid())",
    );
    let call = |rest: &str| {
        format!(
            "SELECT action, object, detail FROM ensure_tenant_root('organizations', users => 'users', members => 'organization_members', {COLUMNS}{rest})"
        )
    };
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = lines(&mut client, &call(""));
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(dry.len(), 3);
    let failed = failure(
        &mut client,
        &call(r#", first_tenant => '{"slug": "a", "name": "A"}', dry_run => false"#),
    );
    assert_eq!(failed.code, "22004", "{failed:?}");
    let first = r#", first_tenant => '{"slug": "a", "name": "A"}', first_owner => 'u2', dry_run => false"#;
    let failed = failure(&mut client, &call(&first.replace("u2", "nobody")));
    assert_eq!(failed.code, "23503", "{failed:?}");
    assert_eq!(one(&mut client, "SELECT to_regclass('organizations') IS NULL"), "t");
    let made = lines(&mut client, &call(first));
    assert!(made[..3].iter().all(|line| line.starts_with("created|")), "{made:?}");
    assert!(made[3].starts_with("inserted|organizations|id "), "{made:?}");
    assert_eq!(
        made[4..],
        [
            "checked|jobs.organization_id|no foreign key; 1 rows, 1 of them point at no tenant".to_string(),
            "checked|organization_members.organization_id|organization_members_organization_id_fkey valid; 1 rows, 0 of them point at no tenant".to_string(),
        ]
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT o.owner_id, m.user_id, m.role, pg_typeof(o.owner_id), format_type(a.atttypid, a.atttypmod) FROM organizations o JOIN organization_members m ON m.organization_id = o.id, pg_attribute a WHERE a.attrelid = 'organizations'::regclass AND a.attname = 'owner_id'"
        ),
        "u2|u2|owner|character varying|character varying(30)"
    );
    // Again: nothing is made, no second tenant either.
    let again = lines(&mut client, &call(first));
    assert!(again[..4].iter().all(|line| line.starts_with("present|")), "{again:?}");
    assert_eq!(one(&mut client, "SELECT count(*) FROM organizations"), "1");
    // Something else is there.
    let failed = failure(
        &mut client,
        "SELECT * FROM ensure_tenant_root('organizations', users => 'users', columns => '{\"slug\": \"integer\"}', dry_run => false)",
    );
    assert_eq!(failed.code, "42P07");
    assert!(failed.detail.contains("column slug: the type is text"), "{failed:?}");
}

#[test]
fn definitions_that_are_no_definitions_and_users_without_a_key() {
    let (_database, mut client) = database_with(
        "CREATE SCHEMA app; CREATE TABLE people (a int, b int, mail text, PRIMARY KEY (a, b)); CREATE UNIQUE INDEX ON people (mail);
         ALTER TABLE people ADD CONSTRAINT mail UNIQUE (mail)",
    );
    for (arguments, code) in [
        (r#"'t', columns => '{"a": "int); DROP TABLE people; --"}'"#, "42601"),
        (r#"'t', columns => '{"a": "int, b int"}'"#, "42601"),
        (r#"'t', columns => '{"a": "int, UNIQUE (a)"}'"#, "42601"),
        (r#"'t', columns => '{"a": 1}'"#, "22023"),
        ("'t', key => 'id uuid PRIMARY KEY, x int'", "42601"),
        ("'a.b.c'", "42602"),
        ("'t', users => 'people'", "42830"),
        ("'t', users => 'people(a)'", "42830"),
        ("'t', users => 'nobody'", "42P01"),
        ("'t', members => 'm'", "22004"),
        ("'nowhere.t'", "42704"),
        (r#"'t', columns => '{"a": "int) partition by list(a"}'"#, "42601"),
        (
            r#"'t', users => 'people(mail)', first_tenant => '{"nme": "x"}', first_owner => 'x'"#,
            "42703",
        ),
        ("'t', users => 'people(mail)', owner => 'name'", "22023"),
        ("'mails', users => 'people(mail)', members => 'mails'", "22023"),
        ("NULL", "22004"),
    ] {
        let failed = failure(
            &mut client,
            &format!("SELECT * FROM ensure_tenant_root({arguments}, dry_run => false)"),
        );
        assert_eq!(failed.code, code, "{arguments}: {failed:?}");
    }
    assert_eq!(one(&mut client, "SELECT count(*) FROM people"), "0");
    // Odd names, another schema, a unique key that is not the primary one, no roles.
    let call = r#"SELECT action FROM ensure_tenant_root('app."Ten;ants"', users => 'people(mail)', members => 'app."Mem''bers"', key => 'no bigint GENERATED ALWAYS AS IDENTITY',
        columns => '{"Odd \"name": "text"}', owner => 'Owner', roles => '{}', dry_run => false)"#;
    assert_eq!(lines(&mut client, call), ["created", "created", "created", "checked"]);
    assert_eq!(lines(&mut client, call), ["present", "present", "present", "checked"]);
    assert_eq!(
        one(
            &mut client,
            r#"SELECT count(*) FROM pg_constraint WHERE conrelid = 'app."Mem''bers"'::regclass AND contype = 'f'"#
        ),
        "2"
    );
}
