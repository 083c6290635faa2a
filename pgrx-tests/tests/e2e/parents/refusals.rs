//! What a new parent is refused for, foretold: unique indexes of every shape, numbers that do not fit.

use pgrx_tests::database_with;
use pgrx_tests::example::{lines, one};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Already set, filled, parents found, parents created, reasons, and the note where something is not predicted.
fn called(client: &mut Client, rest: &str) -> String {
    one(
        client,
        &format!(
            "SELECT already_set, filled, parents_found, parents_created, reasons, substring(note FROM 'cannot be checked[^;]*') FROM backfill_parents('child', 'parent_id', {rest})"
        ),
    )
}

#[test]
fn unique_indexes_with_predicates_expressions_and_nulls() {
    let (_database, mut client) = database_with(
        "CREATE TABLE parent (id bigserial PRIMARY KEY, ref text NOT NULL UNIQUE, code text, active boolean, label text DEFAULT 'x');
         CREATE UNIQUE INDEX code_of_active ON parent (lower(code)) WHERE active;
         CREATE TABLE child (id int PRIMARY KEY, ref text, code text, active boolean, parent_id bigint REFERENCES parent);
         INSERT INTO parent (ref, code, active) VALUES ('there', 'A', true), ('asleep', 'B', false);
         INSERT INTO child (id, ref, code, active) VALUES
           (1, 'r1', 'a', true),    -- collides with what is there
           (2, 'r2', 'a', false),   -- does not apply
           (3, 'r3', 'b', true),    -- the other one is asleep
           (4, 'r4', 'c', true), (5, 'r5', 'C', true),   -- with each other
           (6, 'r6', 'C', false), (7, 'r7', NULL, true), (8, 'r8', NULL, true), (9, 'there', 'zz', true)",
    );
    let rule = r#"match => '{"ref": "ref"}', set => '{"code": "code", "active": "active"}'"#;
    let dry = called(&mut client, rule);
    assert_eq!(dry, r#"0|6|1|5|{"constraint_failed": 3}|-"#);
    assert_eq!(called(&mut client, &format!("{rule}, dry_run => false")), dry);
    assert_eq!(
        lines(&mut client, "SELECT id FROM child WHERE parent_id IS NULL ORDER BY 1"),
        ["1", "4", "5"]
    );
    // Not known before: the default decides.
    client
        .batch_execute("CREATE UNIQUE INDEX by_label ON parent ((label || code)); INSERT INTO child VALUES (10, 'r10', 'd', false)")
        .unwrap();
    let note = called(&mut client, rule);
    assert!(
        note.ends_with("|cannot be checked in a dry run, and would fail the whole run: by_label"),
        "{note}"
    );
}

#[test]
fn numbers_and_texts_that_do_not_fit_are_a_reason_and_not_an_error() {
    let (_database, mut client) = database_with(
        "CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ref text NOT NULL UNIQUE, small int2, n int, price numeric(5, 2), u uuid);
         CREATE TABLE child (id int PRIMARY KEY, ref text, small bigint, n text, price numeric, u text, parent_id int REFERENCES parent);
         INSERT INTO child (id, ref, small, n, price, u) VALUES
           (1, 'fits', 32767, ' -12 ', 999.994, '00000000-0000-0000-0000-000000000001'), (2, 'small', 32768, '1', 1, NULL), (3, 'text', 1, 'twelve', 1, NULL),
           (4, 'big', 1, '2147483648', 1, NULL), (5, 'price', 1, '1', 999.995, NULL), (6, 'uuid', 1, '1', 1, 'nobody'), (7, 'nulls', NULL, NULL, NULL, NULL),
           (8, 'edges', -32768, '-2147483648', -999.99, '{00000000000000000000000000000002}'), (9, 'nan', 1, '1', 'NaN', NULL)",
    );
    let rule = r#"match => '{"ref": "ref"}', set => '{"small": "small", "n": "n", "price": "price", "u": "u"}'"#;
    let dry = called(&mut client, rule);
    assert_eq!(dry, r#"0|4|0|4|{"constraint_failed": 5}|-"#);
    assert_eq!(called(&mut client, &format!("{rule}, dry_run => false")), dry);
    assert_eq!(
        lines(&mut client, "SELECT ref, small, n, price, u FROM parent ORDER BY ref"),
        [
            "edges|-32768|-2147483648|-999.99|00000000-0000-0000-0000-000000000002",
            "fits|32767|-12|999.99|00000000-0000-0000-0000-000000000001",
            "nan|1|1|NaN|-",
            "nulls|-|-|-|-",
        ]
    );
}

/// Random rows under a random unique index: what the dry run says is what the real run does, and what is refused would have been refused.
fn one_case(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (_database, mut client) = database_with(
        "CREATE TABLE parent (id serial PRIMARY KEY, ref int NOT NULL UNIQUE, a int, b text COLLATE \"C\", c boolean);
         CREATE TABLE child (id int PRIMARY KEY, ref int, a int, b text, c boolean, parent_id int REFERENCES parent)",
    );
    let keys = [
        "a, b",
        "(a % 3), b",
        "lower(b)",
        "b, (a IS NULL)",
        "(coalesce(a, 0) + 1), c",
    ];
    let index = format!(
        "CREATE UNIQUE INDEX odd ON parent ({}){}{}",
        keys[random.random_range(0..keys.len())],
        ["", " NULLS NOT DISTINCT"][random.random_range(0..2)],
        ["", " WHERE c", " WHERE a > 1 OR b IS NULL"][random.random_range(0..3)]
    );
    client.batch_execute(&index).unwrap();
    let value = |random: &mut StdRng, from: &[&str]| from[random.random_range(0..from.len())].to_string();
    let row = |random: &mut StdRng| {
        format!(
            "{}, {}, {}",
            value(random, &["NULL", "0", "1", "2", "3", "4"]),
            value(random, &["NULL", "'x'", "'X'", "'y'"]),
            value(random, &["NULL", "true", "false"])
        )
    };
    for n in 0..random.random_range(0..4) {
        let values = row(&mut random);
        client
            .batch_execute(&format!(
                "INSERT INTO parent (ref, a, b, c) VALUES ({}, {values}) ON CONFLICT DO NOTHING",
                100 + n
            ))
            .unwrap();
    }
    for n in 0..random.random_range(1..12) {
        let values = row(&mut random);
        client
            .batch_execute(&format!(
                "INSERT INTO child (id, ref, a, b, c) VALUES ({n}, {n}, {values})"
            ))
            .unwrap();
    }
    let rule = r#"match => '{"ref": "ref"}', set => '{"a": "a", "b": "b", "c": "c"}'"#;
    let dry = called(&mut client, rule);
    assert!(dry.ends_with("|-"), "case {seed}: {dry}");
    // Which rows no single INSERT could add, given what is there and all the other rows: those of the reference, one by one.
    let mut refused = Vec::new();
    let ids = lines(&mut client, "SELECT id FROM child ORDER BY id");
    for id in &ids {
        client.batch_execute("BEGIN").unwrap();
        let alone = "INSERT INTO parent (ref, a, b, c) SELECT ref, a, b, c FROM child WHERE id";
        let own = client.batch_execute(&format!("{alone} = {id}"));
        let mut collides = own.is_err();
        if !collides {
            for other in ids.iter().filter(|other| *other != id) {
                client.batch_execute("SAVEPOINT one").unwrap();
                collides |= client.batch_execute(&format!("{alone} = {other}")).is_err() && {
                    client
                        .batch_execute("ROLLBACK TO one; DELETE FROM parent WHERE ref < 100")
                        .unwrap();
                    // By itself the other one would fit, or it is what is there that refuses it.
                    let fits = client.batch_execute(&format!("{alone} = {other}")).is_ok();
                    client
                        .batch_execute(&format!(
                            "ROLLBACK TO one; DELETE FROM parent WHERE ref < 100; {alone} = {id}"
                        ))
                        .unwrap();
                    fits || {
                        client.batch_execute("SAVEPOINT two; DELETE FROM parent").unwrap();
                        client.batch_execute(&format!("{alone} = {id}")).unwrap();
                        let each_other = client.batch_execute(&format!("{alone} = {other}")).is_err();
                        client.batch_execute("ROLLBACK TO two").unwrap();
                        each_other
                    }
                };
                client
                    .batch_execute(&format!(
                        "ROLLBACK TO one; DELETE FROM parent WHERE ref < 100; {alone} = {id}"
                    ))
                    .unwrap();
            }
        }
        client.batch_execute("ROLLBACK").unwrap();
        if collides {
            refused.push(id.clone());
        }
    }
    assert_eq!(
        called(&mut client, &format!("{rule}, dry_run => false")),
        dry,
        "case {seed}: {index}"
    );
    assert_eq!(
        lines(&mut client, "SELECT id FROM child WHERE parent_id IS NULL ORDER BY id"),
        refused,
        "case {seed}: {index}\n{}",
        lines(&mut client, "SELECT * FROM child ORDER BY id").join("\n")
    );
}

#[test]
fn random_rows_under_random_unique_indexes() {
    for seed in 0..40 {
        one_case(seed);
    }
}
