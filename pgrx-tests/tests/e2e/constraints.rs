//! What a table enforces, and what its triggers do: predicted, or said.

use pgrx_tests::example::{failure, lines, one};

use crate::kinds::{SOURCE, client, filled};

#[test]
fn constraints_that_the_column_is_part_of_are_predicted() {
    // (what, definition of entry behind its columns, rows, expected)
    for (what, setup, expected) in [
        (
            "a NOT VALID check that does not name the column still refuses the row",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, n int); INSERT INTO entry VALUES (1, 1, NULL, -1), (2, 2, NULL, 1);
             ALTER TABLE entry ADD CONSTRAINT positive CHECK (n > 0) NOT VALID",
            r#"1|1|{"constraint_failed": 1}"#,
        ),
        (
            "a check over a generated column that is computed from the column",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, twice int GENERATED ALWAYS AS (party_id * 2) STORED, CHECK (twice < 10));
             INSERT INTO entry SELECT g, g FROM generate_series(1, 9) g",
            r#"4|5|{"constraint_failed": 5}"#,
        ),
        (
            "a check that would raise for rows that are never written",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, n int, CHECK (party_id IS NULL OR 1 / n > 0));
             INSERT INTO entry VALUES (1, 1, NULL, 1), (2, 99, NULL, 0), (3, NULL, NULL, 0)",
            r#"1|2|{"no_source": 1, "source_missing": 1}"#,
        ),
        (
            "a check that calls a function in SQL, which names its table as the session would",
            "CREATE TABLE allowed (party int); INSERT INTO allowed VALUES (1), (3);
             CREATE FUNCTION is_allowed(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 IS NULL OR EXISTS (SELECT FROM allowed WHERE party = $1)';
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int CHECK (is_allowed(party_id)));
             INSERT INTO entry SELECT g, g FROM generate_series(1, 4) g",
            r#"2|2|{"constraint_failed": 2}"#,
        ),
        (
            "a unique expression index",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int); CREATE UNIQUE INDEX ON entry ((party_id % 5));
             INSERT INTO entry VALUES (1, 1, NULL), (2, 2, NULL), (3, 6, NULL), (4, 8, NULL), (5, NULL, 8)",
            r#"1|3|{"constraint_failed": 3}"#,
        ),
        (
            "a unique index whose predicate the value decides",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, email text); CREATE UNIQUE INDEX ON entry (email) WHERE party_id IS NOT NULL;
             INSERT INTO entry VALUES (1, 1, NULL, 'a'), (2, 2, NULL, 'a'), (3, 3, NULL, 'b'), (4, 4, 9, 'c'), (5, 5, NULL, 'c')",
            r#"1|3|{"constraint_failed": 3}"#,
        ),
        (
            "a deferrable unique constraint",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO entry VALUES (1, 1), (2, 1), (3, 3)",
            r#"1|2|{"constraint_failed": 2}"#,
        ),
        (
            "NULLS NOT DISTINCT",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, grp int, UNIQUE NULLS NOT DISTINCT (grp, party_id));
             INSERT INTO entry VALUES (1, 1, NULL, 5), (2, 1, NULL, 7), (3, NULL, 2, NULL), (4, 2, NULL, NULL)",
            r#"2|1|{"constraint_failed": 1}"#,
        ),
        (
            "a composite foreign key, MATCH SIMPLE",
            "CREATE TABLE pair (a int, party_id int, UNIQUE (a, party_id)); INSERT INTO pair VALUES (1, 1);
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, a int, FOREIGN KEY (a, party_id) REFERENCES pair (a, party_id));
             INSERT INTO entry VALUES (1, 1, NULL, 1), (2, 2, NULL, 1), (3, 2, NULL, NULL)",
            r#"2|1|{"constraint_failed": 1}"#,
        ),
        (
            "a composite foreign key, MATCH FULL",
            "CREATE TABLE pair (a int, party_id int, UNIQUE (a, party_id)); INSERT INTO pair VALUES (1, 1);
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, a int);
             INSERT INTO entry VALUES (1, 1, NULL, 1), (2, 2, NULL, 1), (3, 2, NULL, NULL);
             ALTER TABLE entry ADD FOREIGN KEY (a, party_id) REFERENCES pair (a, party_id) MATCH FULL NOT VALID",
            r#"1|2|{"constraint_failed": 2}"#,
        ),
        (
            "two foreign keys on the column",
            "CREATE TABLE vip (id int PRIMARY KEY); INSERT INTO vip VALUES (1);
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int REFERENCES party, FOREIGN KEY (party_id) REFERENCES vip);
             INSERT INTO entry VALUES (1, 1), (2, 2)",
            r#"1|1|{"constraint_failed": 1}"#,
        ),
        (
            "a domain over a domain",
            "CREATE DOMAIN small AS int CHECK (VALUE < 8); CREATE DOMAIN tiny AS small CONSTRAINT even CHECK (VALUE % 2 = 0);
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id tiny); INSERT INTO entry SELECT g, g FROM generate_series(1, 9) g",
            r#"3|6|{"constraint_failed": 6}"#,
        ),
        (
            "a bigint that does not fit",
            "ALTER TABLE contact ALTER party_id TYPE bigint; INSERT INTO contact VALUES (10, 3000000000);
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int UNIQUE CHECK (party_id > 0)); INSERT INTO entry VALUES (1, 1), (2, 10)",
            r#"1|1|{"constraint_failed": 1}"#,
        ),
        (
            "a text that is too long",
            "ALTER TABLE contact ALTER party_id TYPE text USING repeat('x', party_id);
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id varchar(3)); INSERT INTO entry SELECT g, g FROM generate_series(1, 9) g",
            r#"3|6|{"constraint_failed": 6}"#,
        ),
        (
            "a unique generated column that is computed from the column",
            "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, twice int GENERATED ALWAYS AS (party_id * 2) STORED UNIQUE);
             INSERT INTO entry VALUES (1, 1), (2, 2), (3, 2)",
            r#"1|2|{"constraint_failed": 2}"#,
        ),
        (
            "a foreign key of a generated column",
            "CREATE TABLE even (id int PRIMARY KEY); INSERT INTO even VALUES (2);
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, twice int GENERATED ALWAYS AS (party_id * 2) STORED REFERENCES even);
             INSERT INTO entry VALUES (1, 1), (2, 2)",
            r#"1|1|{"constraint_failed": 1}"#,
        ),
        (
            "a unique index with a collation of its own",
            "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             ALTER TABLE contact ALTER party_id TYPE text USING CASE party_id WHEN 1 THEN 'A' WHEN 2 THEN 'a' ELSE party_id::text END;
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id text); CREATE UNIQUE INDEX ON entry (party_id COLLATE loose);
             INSERT INTO entry VALUES (1, 1), (2, 2), (3, 3)",
            r#"1|2|{"constraint_failed": 2}"#,
        ),
        (
            "char(n), which ignores trailing blanks",
            "ALTER TABLE contact ALTER party_id TYPE text USING 'ab' || party_id || ' ';
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id char(5)); INSERT INTO entry VALUES (1, 1), (2, 2)",
            "2|0|{}",
        ),
        (
            "a unique expression that would raise for what a check refuses",
            "ALTER TABLE contact ALTER party_id TYPE text USING CASE party_id WHEN 1 THEN 'A' ELSE party_id::text END;
             CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id text CHECK (party_id ~ '^[0-9]+$')); CREATE UNIQUE INDEX ON entry ((party_id::int));
             INSERT INTO entry VALUES (1, 1), (2, 2)",
            r#"1|1|{"constraint_failed": 1}"#,
        ),
    ] {
        let version = one(&mut pgrx_tests::database().connect(), "SELECT current_setting('server_version_num')");
        if what == "NULLS NOT DISTINCT" && version.as_str() < "150000" {
            continue;
        }
        let (_database, mut client) = client(setup);
        assert_eq!(filled(&mut client, "entry", SOURCE), expected, "{what}");
    }
}

#[test]
fn names_of_refusing_constraints_are_in_the_note() {
    let (_database, mut client) = client(
        "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, CONSTRAINT \"it's small\" CHECK (party_id < 3), CONSTRAINT only_one UNIQUE (party_id));
         INSERT INTO entry VALUES (1, 1), (2, 1), (3, 5), (4, 2)",
    );
    let note = one(
        &mut client,
        &format!("SELECT note FROM backfill('entry', 'party_id', ARRAY['{SOURCE}'])"),
    );
    assert!(note.starts_with("refused: 1 by it's small, 2 by only_one"), "{note}");
    let list = format!("SELECT detail FROM backfill_unfilled('entry', 'party_id', ARRAY['{SOURCE}']) ORDER BY key");
    assert!(lines(&mut client, &list)[0].starts_with("refused by only_one; contact_id = 1 gives 1"));
}

#[test]
fn triggers_are_named_and_what_they_do_is_not_hidden() {
    let (_database, mut client) = client(
        "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, changed int NOT NULL DEFAULT 0); INSERT INTO entry SELECT g, g FROM generate_series(1, 9) g;
         CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF TG_ARGV[0] = 'skip' AND NEW.id = 5 THEN RETURN NULL; END IF;
           IF TG_ARGV[0] = 'change' AND NEW.id = 5 THEN NEW.party_id := 1; END IF;
           IF TG_ARGV[0] = 'count' THEN NEW.changed := NEW.changed + 1; END IF;
           RETURN NEW; END $$;
         CREATE TRIGGER act BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION act('skip')",
    );
    let call = |dry_run: bool| {
        format!("SELECT filled, reasons, note FROM backfill('entry', 'party_id', ARRAY['{SOURCE}'], {dry_run})")
    };
    let dry = one(&mut client, &call(true));
    assert!(
        dry.contains("triggers fire when it is written and cannot be predicted: act"),
        "{dry}"
    );
    let real = one(&mut client, &call(false));
    assert!(
        real.starts_with(r#"8|{"constraint_failed": 1}|1 rows were refused by a trigger that returned NULL (act)"#),
        "{real}"
    );

    client
        .batch_execute(
            "UPDATE entry SET party_id = NULL; DROP TRIGGER act ON entry; UPDATE entry SET party_id = NULL;
             CREATE TRIGGER act BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION act('change')",
        )
        .unwrap();
    let failed = failure(&mut client, &call(false));
    assert_eq!(failed.code, "27000", "{failed:?}");
    assert_eq!(one(&mut client, "SELECT count(party_id) FROM entry"), "0");

    client
        .batch_execute("DROP TRIGGER act ON entry; CREATE TRIGGER act BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION act('count')")
        .unwrap();
    assert!(one(&mut client, &call(false)).starts_with("9|{}|"));
    assert_eq!(one(&mut client, "SELECT sum(changed) FROM entry"), "9");
}

#[test]
fn functions_of_the_user_run_under_the_users_own_settings() {
    let (_database, mut client) = client(
        "CREATE TABLE log (id int); CREATE TABLE secret (id int); ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
         CREATE FUNCTION small(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN $1 <= (SELECT max(id) FROM party); END $$;
         CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int CHECK (small(party_id))); INSERT INTO entry VALUES (1, 1), (2, 2);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.id); PERFORM FROM secret; RETURN NEW; END $$;
         CREATE TRIGGER note AFTER UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION note()",
    );
    let sql = "SELECT filled FROM backfill('entry', 'party_id', ARRAY['contact_id -> contact.party_id'], only_where => 'small(id)', dry_run => ";
    assert_eq!(one(&mut client, &format!("{sql} true)")), "2");
    let unfilled = "SELECT count(*) FROM backfill_unfilled('entry', 'party_id', ARRAY['contact_id -> contact.party_id'], only_where => 'small(id)')";
    assert_eq!(one(&mut client, unfilled), "0");
    assert_eq!(one(&mut client, &format!("{sql} false)")), "2");
    assert_eq!(one(&mut client, "SELECT count(*) FROM log"), "2");
    assert_eq!(
        one(
            &mut client,
            "SELECT current_setting('search_path'), current_setting('row_security')"
        ),
        "\"$user\", public|on"
    );
}

#[test]
fn a_dry_run_lets_nobody_write() {
    let (_database, mut client) = client(
        "CREATE TABLE log (id int);
         CREATE FUNCTION logged(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ($1); RETURN true; END $$;
         CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int); INSERT INTO entry VALUES (1, 1);
         ALTER TABLE entry ADD CHECK (logged(party_id)); DELETE FROM log",
    );
    let failed = failure(
        &mut client,
        &format!("SELECT * FROM backfill('entry', 'party_id', ARRAY['{SOURCE}'])"),
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("25006", "cannot execute INSERT in a read-only transaction")
    );
    assert_eq!(one(&mut client, "SELECT count(*) FROM log"), "0");
    client.batch_execute("INSERT INTO log VALUES (1)").unwrap();
}

#[test]
fn a_trigger_that_takes_the_source_away_is_an_error_and_nothing_is_lost() {
    let (_database, mut client) = client(
        "CREATE TABLE entry (id int PRIMARY KEY, contact_id int, party_id int, updated_at int NOT NULL DEFAULT 0); INSERT INTO entry VALUES (1, 1), (2, 2);
         CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF TG_ARGV[0] = 'take' THEN NEW.contact_id := NULL; END IF; NEW.updated_at := 1; RETURN NEW; END $$;
         CREATE TRIGGER act BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION act('take')",
    );
    let call = format!(
        "SELECT filled FROM backfill('entry', 'party_id', ARRAY['{SOURCE}'], only_where => 'updated_at = 0', dry_run => false)"
    );
    assert_eq!(failure(&mut client, &call).code, "27000");
    assert_eq!(
        one(&mut client, "SELECT count(contact_id), count(party_id) FROM entry"),
        "2|0"
    );
    // One that only moves the row out of the condition is none of our business.
    client
        .batch_execute("DROP TRIGGER act ON entry; CREATE TRIGGER act BEFORE UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION act('stamp')")
        .unwrap();
    assert_eq!(one(&mut client, &call), "2");
}

/// Postgres checks all foreign keys of a row that the same transaction wrote before, also old ones that are NOT VALID.
#[test]
fn a_row_written_before_in_the_transaction_is_refused_where_an_old_key_dangles() {
    let (_database, mut client) = client(
        "CREATE TABLE \"Party\" (id int PRIMARY KEY); INSERT INTO \"Party\" VALUES (1), (2);
         CREATE TABLE \"Contact\" (id int PRIMARY KEY, \"partyId\" int UNIQUE REFERENCES \"Party\"); INSERT INTO \"Contact\" VALUES (1, 1), (2, 2);
         CREATE TABLE \"Deal\" (id int PRIMARY KEY, \"buyerContactId\" int, \"sellerContactId\" int, other int,
                              \"buyerPartyId\" int REFERENCES \"Party\", \"sellerPartyId\" int REFERENCES \"Party\");
         INSERT INTO \"Deal\" VALUES (1, 1, 2, NULL), (2, 1, 2, 99);
         ALTER TABLE \"Deal\" ADD FOREIGN KEY (\"buyerContactId\") REFERENCES \"Contact\", ADD FOREIGN KEY (\"sellerContactId\") REFERENCES \"Contact\",
           ADD CONSTRAINT old_key FOREIGN KEY (other) REFERENCES \"Contact\" NOT VALID",
    );
    let expected = ["buyerPartyId|2|{}", r#"sellerPartyId|1|{"constraint_failed": 1}"#];
    for dry_run in [true, false] {
        let sql = format!("SELECT column_name, filled, reasons FROM backfill_party_ids('Deal', {dry_run}) ORDER BY 1");
        assert_eq!(lines(&mut client, &sql), expected);
    }
    // In a transaction of its own, nothing is in the way.
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('Deal', 'sellerPartyId', dry_run => false)"
        ),
        "1"
    );
    client
        .batch_execute("UPDATE \"Deal\" SET \"sellerPartyId\" = NULL WHERE id = 1")
        .unwrap();
    client
        .batch_execute("BEGIN; UPDATE \"Deal\" SET \"sellerPartyId\" = NULL WHERE id = 2")
        .unwrap();
    for dry_run in [true, false] {
        let sql = format!("SELECT filled, reasons FROM backfill('Deal', 'sellerPartyId', dry_run => {dry_run})");
        assert_eq!(one(&mut client, &sql), r#"1|{"constraint_failed": 1}"#);
    }
    client.batch_execute("COMMIT").unwrap();
}
