//! `undo_run`: what any run changed is as it was before, where nobody has changed it since; dry = real; an undo can be taken back as well.

use pgrx_tests::example::{failure, lines, one};
use pgrx_tests::{Database, database_with};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// All rows of all tables, without what only moves.
fn contents(client: &mut Client) -> Vec<String> {
    let tables = lines(
        client,
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1",
    );
    let mut all = vec![];
    for table in tables {
        let rows = lines(
            client,
            &format!(
                "SELECT '{}', t::text FROM {table} AS t ORDER BY 1, 2",
                table.replace('\'', "''")
            ),
        );
        all.extend(rows);
    }
    all
}

/// Takes a run back: dry in a READ ONLY transaction, then for real. The rows of the result, which are the same both times.
fn undone(client: &mut Client, run: &str) -> Vec<String> {
    let call = |dry: bool| {
        format!(
            "SELECT table_name, column_name, change, total, undone, left_as_is, reasons FROM undo_run({run}, {dry})"
        )
    };
    let before = contents(client);
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = lines(client, &call(true));
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(contents(client), before, "a dry undo wrote");
    let sums = format!(
        "SELECT bool_and(total = undone + left_as_is AND left_as_is = (SELECT COALESCE(sum(value::bigint), 0) FROM jsonb_each_text(reasons))) FROM undo_run({run})"
    );
    assert_eq!(one(client, &sums), "t");
    let real = lines(client, &call(false));
    assert_eq!(dry, real, "dry and real undo of run {run} differ");
    real
}

fn runs(client: &mut Client) -> Vec<String> {
    lines(
        client,
        "SELECT run_id FROM mend.runs WHERE filled > 0 ORDER BY run_id DESC",
    )
}

const PARTIES: &str = r#"
    CREATE TABLE "Tenant" (id int PRIMARY KEY);
    CREATE TABLE "Party" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "tenantId" int NOT NULL REFERENCES "Tenant", name text, UNIQUE ("tenantId", name));
    CREATE TABLE "Contact" (id int PRIMARY KEY, "tenantId" int REFERENCES "Tenant", "partyId" int REFERENCES "Party", name text NOT NULL);
    CREATE TABLE "Deal" (id int PRIMARY KEY, "tenantId" int REFERENCES "Tenant", "buyerContactId" int REFERENCES "Contact", "buyerPartyId" int REFERENCES "Party",
      "sellerContactId" int REFERENCES "Contact", "sellerPartyId" int REFERENCES "Party");
    CREATE TABLE "Note" ("dealId" int REFERENCES "Deal", "tenantId" int REFERENCES "Tenant", text text);
    INSERT INTO "Tenant" VALUES (1), (2);
    INSERT INTO "Party" ("tenantId", name) SELECT 1 + g % 2, 'p' || g FROM generate_series(1, 10) g;
    INSERT INTO "Contact" SELECT g, 1 + g % 2, CASE WHEN g <= 10 THEN g END, 'p' || g FROM generate_series(1, 14) g;
    INSERT INTO "Deal" SELECT g, 1 + g % 2, g, NULL, CASE WHEN g > 4 THEN g - 4 END, CASE WHEN g = 6 THEN 2 END FROM generate_series(1, 10) g;
    INSERT INTO "Note" SELECT g % 10 + 1, NULL, 'n' FROM generate_series(1, 12) g;"#;

/// Every writing call: its runs taken back from the last to the first, then those undos.
#[test]
fn the_runs_of_every_call_are_taken_back_and_so_are_the_undos() {
    let calls = [
        r#"SELECT FROM backfill('Deal', 'buyerPartyId', dry_run => false)"#,
        r#"SELECT FROM backfill_party_ids(NULL, false)"#,
        r#"SELECT FROM backfill_tenant_ids('Tenant', false)"#,
        r#"SELECT FROM backfill('Deal', 'sellerPartyId', ARRAY['sellerContactId -> Contact.partyId'], false, overwrite => 'mismatched', tenant_guard => false)"#,
        r#"SELECT FROM backfill_parents('Contact', 'partyId', match => '{"name": "name"}', dry_run => false)"#,
    ];
    for vacuum in [
        "",
        r#"VACUUM (FREEZE) "Deal", "Contact", "Party", "Note"; VACUUM FULL "Deal"; CLUSTER "Contact" USING "Contact_pkey""#,
    ] {
        for call in calls {
            let (_database, mut client) = database_with(PARTIES);
            let before = contents(&mut client);
            client.batch_execute(call).unwrap();
            let after = contents(&mut client);
            assert_ne!(before, after, "{call}");
            for statement in vacuum.split("; ").filter(|statement| !statement.is_empty()) {
                client.batch_execute(statement).unwrap();
            }
            let of_call = runs(&mut client);
            for run in &of_call {
                undone(&mut client, run);
            }
            assert_eq!(contents(&mut client), before, "{call}");
            // Again: nothing is left to do.
            for run in &of_call {
                for row in undone(&mut client, run) {
                    assert_eq!(row.split('|').nth(4), Some("0"), "{call}: {row}");
                }
            }
            let undos: Vec<String> = runs(&mut client)
                .into_iter()
                .filter(|run| !of_call.contains(run))
                .collect();
            for run in &undos {
                // Rows without a key cannot be found again.
                match one(
                    &mut client,
                    &format!("SELECT table_name FROM mend.runs WHERE run_id = {run}"),
                )
                .contains("Note")
                {
                    true => assert_eq!(
                        failure(&mut client, &format!("SELECT * FROM undo_run({run})")).code,
                        "42704"
                    ),
                    false => drop(undone(&mut client, run)),
                }
            }
            let keyed = |rows: Vec<String>| rows.into_iter().filter(|row| !row.contains("Note")).collect::<Vec<_>>();
            assert_eq!(keyed(contents(&mut client)), keyed(after), "{call}");
        }
    }
}

/// Two columns of one table, filled by one call: either of them can be taken back alone, in any order.
#[test]
fn columns_that_one_call_filled_are_taken_back_one_by_one() {
    for first in ["buyerPartyId", "sellerPartyId"] {
        let (_database, mut client) = database_with(PARTIES);
        client
            .batch_execute("SELECT FROM backfill_party_ids(NULL, false)")
            .unwrap();
        let run = |client: &mut Client, column: &str| {
            one(
                client,
                &format!(
                    "SELECT run_id FROM mend.runs WHERE column_name = '{column}' AND operation = 'backfill' AND table_name ~ 'Deal'"
                ),
            )
        };
        let other = if first == "buyerPartyId" {
            "sellerPartyId"
        } else {
            "buyerPartyId"
        };
        let filled =
            |client: &mut Client, column: &str| one(client, &format!(r#"SELECT count("{column}") FROM "Deal""#));
        let there = filled(&mut client, other);
        let id = run(&mut client, first);
        undone(&mut client, &id);
        let left = if first == "buyerPartyId" { "0" } else { "1" };
        assert_eq!(
            (filled(&mut client, first).as_str(), filled(&mut client, other)),
            (left, there)
        );
        let id = run(&mut client, other);
        undone(&mut client, &id);
        let left = if other == "buyerPartyId" { "0" } else { "1" };
        assert_eq!(filled(&mut client, other), left);
    }
}

#[test]
fn repairs_and_resets_are_taken_back_by_the_same_call() {
    let schema = "
        CREATE TABLE p (id int PRIMARY KEY, n text NOT NULL DEFAULT 'x');
        CREATE TABLE c (id int PRIMARY KEY, p_id int);
        INSERT INTO c VALUES (1, 7), (2, 7), (3, 8), (4, NULL);
        ALTER TABLE c ADD CONSTRAINT reference FOREIGN KEY (p_id) REFERENCES p NOT VALID";
    for action in ["nullify", "quarantine"] {
        let (_database, mut client) = database_with(schema);
        let before = contents(&mut client);
        client
            .batch_execute(&format!(
                "SELECT FROM repair_orphans('c', 'p_id', '{action}', dry_run => false)"
            ))
            .unwrap();
        assert_eq!(
            undone(&mut client, "1"),
            [r#"c|p_id|nullified|3|0|3|{"source_missing": 3}"#]
        );
        client.batch_execute("ALTER TABLE c DROP CONSTRAINT reference").unwrap();
        assert_eq!(undone(&mut client, "1"), ["c|p_id|nullified|3|3|0|{}"]);
        assert_eq!(contents(&mut client), before);
    }
    // New parents that rows refer to stay; the others go.
    let (_database, mut client) = database_with(schema);
    client
        .batch_execute("SELECT FROM repair_orphans('c', 'p_id', 'create_parent', dry_run => false); UPDATE c SET p_id = NULL WHERE p_id = 8")
        .unwrap();
    assert_eq!(undone(&mut client, "1"), [r#"p|-|created|2|1|1|{"referenced": 1}"#]);
    assert_eq!(lines(&mut client, "SELECT id FROM p"), ["7"]);
    assert_eq!(
        lines(
            &mut client,
            "SELECT row_key, row_values FROM mend.changes WHERE change = 'deleted'"
        ),
        [r#"{"id": 8}|{"n": "x", "id": "8"}"#]
    );
    // And of a reset.
    let script = "CREATE TABLE made (id int PRIMARY KEY, v text)";
    client
        .batch_execute(&format!("{script}; INSERT INTO made VALUES (1, 'a'), (2, 'b')"))
        .unwrap();
    client
        .batch_execute(&format!(
            "SELECT FROM migration_reset('{script}', dry_run => false, include => ARRAY['made'])"
        ))
        .unwrap();
    client.batch_execute(script).unwrap();
    let run = one(&mut client, "SELECT max(run_id) FROM mend.runs");
    let found = undone(&mut client, &run);
    assert_eq!(found, ["public.made|-|row_dropped|2|2|0|{}"]);
    assert_eq!(lines(&mut client, "SELECT id, v FROM made ORDER BY id"), ["1|a", "2|b"]);
}

#[test]
fn what_cannot_be_taken_back_is_a_reason_or_refused_before_anything_is_written() {
    let (database, mut client) = database_with(PARTIES);
    client
        .batch_execute("SELECT FROM backfill('Deal', 'buyerPartyId', dry_run => false)")
        .unwrap();
    client
        .batch_execute(
            r#"UPDATE "Deal" SET "buyerPartyId" = "buyerPartyId" WHERE id = 1;
               DELETE FROM "Deal" WHERE id = 10 AND NOT EXISTS (SELECT FROM "Note" WHERE "dealId" = 10);
               ALTER TABLE "Deal" ADD CONSTRAINT kept CHECK (id <> 2 OR "buyerPartyId" IS NOT NULL)"#,
        )
        .unwrap();
    assert_eq!(
        undone(&mut client, "1"),
        [r#"Deal|buyerPartyId|filled|10|8|2|{"changed_since": 1, "constraint_failed": 1}"#]
            .map(|row| row.replace("Deal|", "\"Deal\"|"))
    );
    // Locked in since.
    client
        .batch_execute("SELECT FROM backfill('Deal', 'buyerPartyId', dry_run => false)")
        .unwrap();
    client
        .batch_execute(r#"ALTER TABLE "Deal" ALTER COLUMN "buyerPartyId" SET NOT NULL"#)
        .unwrap();
    let run = one(&mut client, "SELECT max(run_id) FROM mend.runs");
    let found = undone(&mut client, &run);
    assert!(found[0].contains(r#"|8|0|8|{"constraint_failed": 8}"#), "{found:?}");
    assert!(one(&mut client, &format!("SELECT note FROM undo_run({run})")).contains("DROP NOT NULL"));
    // A trigger that changes what is put back.
    client
        .batch_execute(
            r#"ALTER TABLE "Deal" ALTER COLUMN "buyerPartyId" DROP NOT NULL;
               CREATE FUNCTION stubborn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW."buyerPartyId" := OLD."buyerPartyId"; RETURN NEW; END $$;
               CREATE TRIGGER stubborn BEFORE UPDATE ON "Deal" FOR EACH ROW EXECUTE FUNCTION stubborn()"#,
        )
        .unwrap();
    let before = contents(&mut client);
    assert_eq!(
        failure(&mut client, &format!("SELECT * FROM undo_run({run}, false)")).code,
        "27000"
    );
    assert_eq!(contents(&mut client), before);
    // No such run, of another role, one that changed nothing, a column that is gone.
    assert_eq!(failure(&mut client, "SELECT * FROM undo_run(99)").code, "42704");
    assert_eq!(failure(&mut client, "SELECT * FROM undo_run(NULL)").code, "22004");
    client
        .batch_execute("SELECT FROM backfill('Deal', 'buyerPartyId', dry_run => false)")
        .unwrap();
    let idle = one(&mut client, "SELECT max(run_id) FROM mend.runs WHERE filled = 0");
    let failed = failure(&mut client, &format!("SELECT * FROM undo_run({idle})"));
    assert_eq!((failed.code.as_str(), failed.hint.is_empty()), ("42704", false));
    stranger(&database, &mut client, &run);
    client
        .batch_execute(r#"DROP TRIGGER stubborn ON "Deal"; ALTER TABLE "Deal" DROP COLUMN "buyerPartyId" CASCADE"#)
        .unwrap();
    assert_eq!(
        failure(&mut client, &format!("SELECT * FROM undo_run({run})")).code,
        "42703"
    );
    // Without what tells the rows (it is in no dump), nothing is touched.
    client
        .batch_execute(
            r#"SELECT FROM backfill('Deal', 'sellerPartyId', dry_run => false); DELETE FROM mend.ledger_writes"#,
        )
        .unwrap();
    let run = one(&mut client, "SELECT max(run_id) FROM mend.runs");
    let before = contents(&mut client);
    let found = undone(&mut client, &run);
    assert!(found[0].ends_with(r#"|0|5|{"changed_since": 5}"#), "{found:?}");
    assert_eq!(contents(&mut client), before);
}

fn stranger(database: &Database, admin: &mut Client, run: &str) {
    let role = format!("stranger_{}", one(admin, "SELECT current_database()"));
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; SELECT grant_mend('{role}'); GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .unwrap();
    let mut client = database.connect_as(&role);
    assert_eq!(
        failure(&mut client, &format!("SELECT * FROM undo_run({run}, false)")).code,
        "42704"
    );
    drop(client);
    admin
        .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .unwrap();
}

/// Random rows, random changes since: each row is as before the run, or as somebody left it.
#[test]
fn rows_that_nobody_changed_are_as_before_and_all_others_as_they_were_left() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let rows = random.random_range(1..60);
        let overwrite = random.random_bool(0.5);
        let partitioned = random.random_bool(0.5);
        let (_database, mut client) = database_with(&format!(
            "CREATE TABLE source (id int PRIMARY KEY, v int);
             CREATE TABLE \"t\" (id int PRIMARY KEY, source_id int, v int, kept text){};
             {}
             INSERT INTO source SELECT g, g FROM generate_series(1, 20) g",
            if partitioned { " PARTITION BY RANGE (id)" } else { "" },
            if partitioned {
                "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (20); CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (20) TO (100);"
            } else {
                ""
            },
        ));
        for id in 0..rows {
            let source = random.random_range(0..25);
            let v = match random.random_range(0..3) {
                0 => "NULL".to_string(),
                _ => random.random_range(1..25).to_string(),
            };
            client
                .batch_execute(&format!("INSERT INTO t VALUES ({id}, {source}, {v}, 'k')"))
                .unwrap();
        }
        let of = |client: &mut Client| lines(client, "SELECT id, source_id, v, kept FROM t ORDER BY id");
        let before = of(&mut client);
        let how = if overwrite { "mismatched" } else { "nothing" };
        client
            .batch_execute(&format!(
                "SELECT FROM backfill('t', 'v', ARRAY['source_id -> source.v'], false, overwrite => '{how}')"
            ))
            .unwrap();
        let written = of(&mut client);
        let mut expected = before.clone();
        let mut deleted = vec![];
        for id in 0..rows {
            let at = id as usize;
            match random.random_range(0..6) {
                // Another column: of a replaced value it does not matter, a filled row is left alone.
                0 => {
                    client
                        .batch_execute(&format!("UPDATE t SET kept = 'changed' WHERE id = {id}"))
                        .unwrap();
                    let was_null = before[at].split('|').nth(2) == Some("-");
                    let base = if was_null { &written[at] } else { &before[at] };
                    expected[at] = base.replace("|k", "|changed");
                }
                // The value itself.
                1 => {
                    client
                        .batch_execute(&format!("UPDATE t SET v = 99 WHERE id = {id}"))
                        .unwrap();
                    let fields: Vec<&str> = written[at].split('|').collect();
                    let touched = before[at] != written[at];
                    let _ = touched;
                    expected[at] = format!("{}|{}|99|k", fields[0], fields[1]);
                }
                2 => {
                    client.batch_execute(&format!("DELETE FROM t WHERE id = {id}")).unwrap();
                    deleted.push(at);
                }
                _ => {}
            }
        }
        let expected: Vec<String> = expected
            .into_iter()
            .enumerate()
            .filter(|(at, _)| !deleted.contains(at))
            .map(|(_, row)| row)
            .collect();
        if written == before {
            assert_eq!(
                failure(&mut client, "SELECT * FROM undo_run(1)").code,
                "42704",
                "seed {seed}"
            );
            continue;
        }
        undone(&mut client, "1");
        assert_eq!(
            of(&mut client),
            expected,
            "seed {seed}, overwrite {overwrite}, partitioned {partitioned}"
        );
    }
}

/// A column is told by its number, not by its name; what references it keeps it; other runs of the same rows can be taken back as before.
#[test]
fn a_column_that_has_another_name_now_and_one_that_is_referenced() {
    let schema = "CREATE TABLE p (id int PRIMARY KEY, v int); INSERT INTO p SELECT g, g * 10 FROM generate_series(1, 4) g;
        CREATE TABLE w (id int PRIMARY KEY, p_id int REFERENCES p, c int, d int DEFAULT 5); INSERT INTO w (id, p_id) SELECT g, g FROM generate_series(1, 4) g;
        SELECT FROM backfill('w', 'c', ARRAY['p_id -> p.v'], false)";
    let (_database, mut client) = database_with(schema);
    client
        .batch_execute("ALTER TABLE w RENAME c TO x; ALTER TABLE w RENAME d TO c")
        .unwrap();
    assert_eq!(undone(&mut client, "1"), ["w|x|filled|4|4|0|{}"]);
    assert_eq!(one(&mut client, "SELECT count(x), count(c) FROM w"), "0|4");
    let (_database, mut client) = database_with(schema);
    client
        .batch_execute("ALTER TABLE w DROP COLUMN c; ALTER TABLE w ADD COLUMN c int DEFAULT 77")
        .unwrap();
    assert_eq!(failure(&mut client, "SELECT * FROM undo_run(1, false)").code, "42703");
    assert_eq!(one(&mut client, "SELECT count(c) FROM w"), "4");
    let (_database, mut client) = database_with(schema);
    client
        .batch_execute(
            "ALTER TABLE w ADD UNIQUE (c); CREATE TABLE k (c int REFERENCES w (c) ON UPDATE CASCADE); INSERT INTO k VALUES (10)",
        )
        .unwrap();
    assert_eq!(failure(&mut client, "SELECT * FROM undo_run(1)").code, "0A000");
    assert_eq!(failure(&mut client, "SELECT * FROM undo_run(1, false)").code, "0A000");
    assert_eq!(one(&mut client, "SELECT c FROM k"), "10");
}

#[test]
fn an_undo_of_an_undo_leaves_the_other_column_of_the_call_as_it_was_known() {
    let (_database, mut client) = database_with(PARTIES);
    client
        .batch_execute("SELECT FROM backfill_party_ids(NULL, false)")
        .unwrap();
    let run = |client: &mut Client, column: &str| {
        one(
            client,
            &format!(
                "SELECT run_id FROM mend.runs WHERE column_name = '{column}' AND operation = 'backfill' AND table_name ~ 'Deal'"
            ),
        )
    };
    let (buyer, seller) = (run(&mut client, "buyerPartyId"), run(&mut client, "sellerPartyId"));
    let before = contents(&mut client);
    undone(&mut client, &buyer);
    let undo = one(&mut client, "SELECT max(run_id) FROM mend.runs");
    undone(&mut client, &undo);
    assert_eq!(contents(&mut client), before);
    for row in undone(&mut client, &seller) {
        assert!(row.ends_with("|0|{}"), "{row}");
    }
}
