//! Random histories of migrations, in which names come again, run as people run them: up to some file, with one left out, with one half
//! run. `migration_drift` must tell them exactly. `MEND_CASES` sets the number of cases.

use pgrx_tests::database;
use pgrx_tests::example::{lines, one};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::property::SIGNATURE;

/// One file: its statements.
type File = Vec<String>;

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[random.random_range(0..from.len())]
}

/// A statement, or two that belong together; whether it can be run is seen when it is.
fn statement(random: &mut StdRng) -> String {
    let table = pick(random, &["t1", "t2", "t3", "t4"]);
    let other = pick(random, &["t1", "t2", "t3"]);
    let column = pick(random, &["a", "b", "c", "d"]);
    let constraint = pick(random, &["k1", "k2"]);
    let type_name = pick(random, &["int", "int", "text", "bigint"]);
    let default = pick(random, &["", "", " DEFAULT 1", " NOT NULL"]);
    let quiet = pick(random, &["", "", "IF NOT EXISTS "]);
    let gone = pick(random, &["", "IF EXISTS "]);
    let on_delete = pick(random, &["", " ON DELETE CASCADE", " ON DELETE SET NULL"]);
    let check = pick(random, &["id > 0", "id > 1"]);
    let policy = pick(random, &["p1", "p2"]);
    let function = pick(random, &["f1", "f2"]);
    let body = pick(random, &["RETURN NEW;", "RETURN NULL;", "RETURN OLD;"]);
    let label = pick(random, &["x", "y", "z"]);
    match random.random_range(0..34) {
        0..4 => format!("CREATE TABLE {quiet}{table} (id int PRIMARY KEY, a {type_name}{default}, b int)"),
        4 => format!("CREATE TABLE {table} (id int PRIMARY KEY, a int REFERENCES {other}{on_delete})"),
        5 => format!("DROP TABLE {gone}{table}"),
        6..9 => format!("ALTER TABLE {table} ADD COLUMN {quiet}{column} {type_name}{default}"),
        9 => format!("ALTER TABLE {table} DROP COLUMN {gone}{column}"),
        10 => format!(
            "ALTER TABLE {table} RENAME COLUMN {column} TO {}",
            pick(random, &["a", "b", "e"])
        ),
        11 => format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {type_name} USING NULL"),
        12 => format!(
            "ALTER TABLE {table} ALTER COLUMN {column} {} NOT NULL",
            pick(random, &["SET", "DROP"])
        ),
        13 => format!(
            "ALTER TABLE {table} ALTER COLUMN {column} {}",
            pick(random, &["SET DEFAULT NULL", "SET DEFAULT 2", "DROP DEFAULT"])
        ),
        14 | 15 => format!("ALTER TABLE {table} ADD CONSTRAINT {constraint} CHECK ({check})"),
        16 => format!("ALTER TABLE {table} ADD CONSTRAINT {constraint} FOREIGN KEY (b) REFERENCES {other}{on_delete}"),
        17 => format!("ALTER TABLE {table} ADD FOREIGN KEY (b) REFERENCES {other}{on_delete}"),
        18 => format!(
            "ALTER TABLE {table} DROP CONSTRAINT {gone}{}",
            pick(random, &["k1", "k2", "t1_b_fkey", "t2_b_fkey"])
        ),
        19 => format!("CREATE INDEX {quiet}i_{table} ON {table} ({column})"),
        20 => format!("CREATE INDEX ON {table} ({column})"),
        21 => format!("DROP INDEX {gone}i_{table}"),
        22 | 23 => {
            format!("DROP POLICY IF EXISTS {policy} ON {table}; CREATE POLICY {policy} ON {table} USING ({check})")
        }
        24 => format!("DROP POLICY {gone}{policy} ON {table}"),
        25 => format!("CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} END'"),
        26 => format!(
            "DROP TRIGGER IF EXISTS g1 ON {table}; CREATE TRIGGER g1 {} UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()",
            pick(random, &["BEFORE", "AFTER"])
        ),
        27 => format!(
            "ALTER TABLE {table} {} ROW LEVEL SECURITY",
            pick(random, &["ENABLE", "DISABLE"])
        ),
        28 => format!(
            "COMMENT ON TABLE {table} IS {}",
            pick(random, &["'one'", "'two'", "NULL"])
        ),
        29 => format!(
            "{} pg_monitor",
            pick(
                random,
                &[
                    "GRANT SELECT ON t1 TO",
                    "REVOKE SELECT ON t1 FROM",
                    "GRANT INSERT ON t1 TO"
                ]
            )
        ),
        30 => format!("CREATE TYPE e1 AS ENUM ('x', '{}')", pick(random, &["y", "w"])),
        31 => format!("ALTER TYPE e1 ADD VALUE {quiet}'{label}'"),
        32 => format!("ALTER TABLE {table} RENAME TO {}", pick(random, &["t4", "t5"])),
        _ => format!("UPDATE {table} SET id = id"),
    }
}

fn batch(client: &mut Client, sql: &str) -> bool {
    client.batch_execute("SAVEPOINT s").unwrap();
    match client.batch_execute(sql) {
        Ok(()) => {
            client.batch_execute("RELEASE s").unwrap();
            true
        }
        Err(_) => {
            client.batch_execute("ROLLBACK TO s; RELEASE s").unwrap();
            false
        }
    }
}

/// Files whose statements run one behind the other.
fn history(client: &mut Client, random: &mut StdRng) -> Vec<File> {
    client.batch_execute("BEGIN").unwrap();
    let mut files = vec![];
    for _ in 0..random.random_range(3..14) {
        let length = random.random_range(1..5);
        let mut file = File::new();
        for _ in 0..60 {
            let next = statement(random);
            if file.len() < length && batch(client, &next) {
                file.push(next);
            }
        }
        files.push(file);
    }
    client.batch_execute("ROLLBACK").unwrap();
    files
}

/// Runs each file as a whole; returns which could be run, and what is there then.
fn run(client: &mut Client, files: &[File], which: &[bool]) -> (Vec<bool>, String) {
    client.batch_execute("BEGIN").unwrap();
    let all = files.iter().zip(which);
    let done = all.map(|(file, run)| *run && batch(client, &file.join("; "))).collect();
    (done, one(client, SIGNATURE))
}

fn only(client: &mut Client, files: &[File], which: &[bool]) -> (Vec<bool>, String) {
    let result = run(client, files, which);
    client.batch_execute("ROLLBACK").unwrap();
    result
}

/// What `migration_drift` says of each file, and the states of the statements.
fn drift(client: &mut Client, files: &[File]) -> Vec<String> {
    let all: Vec<String> = files
        .iter()
        .enumerate()
        .map(|(at, file)| {
            format!(
                "jsonb_build_object('name', '{at}.sql', 'script', $mend${}$mend$)",
                file.join(";\n")
            )
        })
        .collect();
    let call = format!(
        "SELECT state FROM migration_drift(jsonb_build_array({})) WHERE ordinal IS NOT NULL ORDER BY ordinal",
        all.join(", ")
    );
    lines(client, &call)
}

/// Does it change anything that is not in the rows?
fn is_visible(file: &File) -> bool {
    file.iter().any(|statement| !statement.starts_with("UPDATE"))
}

/// What the statements of all files look like as one script.
fn steps(client: &mut Client, files: &[File]) -> String {
    let script = files.concat().join(";\n");
    let call = format!("SELECT step, state, kind, object, detail FROM migration_status($mend${script}$mend$)");
    lines(client, &call).join("\n")
}

fn shown(seed: u64, files: &[File], run: &[String], said: &[String]) -> String {
    let all = files.iter().zip(run).zip(said).enumerate();
    let text: Vec<String> = all
        .map(|(at, ((file, run), said))| format!("-- {at}: {run}, called {said}\n{};", file.join(";\n")))
        .collect();
    format!("case {seed}\n{}", text.join("\n"))
}

/// The first files, and no others.
fn prefix_case(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let database = database();
    let mut client = database.connect();
    let files = history(&mut client, &mut random);
    let upto = |count: usize| -> Vec<bool> { (0..files.len()).map(|at| at < count).collect() };
    let signatures: Vec<String> = (0..=files.len())
        .map(|count| only(&mut client, &files, &upto(count)).1)
        .collect();
    for count in 0..=files.len() {
        run(&mut client, &files, &upto(count));
        let said = drift(&mut client, &files);
        client.batch_execute("ROLLBACK").unwrap();
        // Between these, nothing tells how many were run.
        let same = |at: &usize| signatures[*at] == signatures[count];
        let least = (0..=files.len()).find(same).unwrap();
        let most = (0..=files.len()).rev().find(same).unwrap();
        let truth: Vec<String> = (0..files.len())
            .map(|at| match at {
                at if at < least => "in".into(),
                at if at >= most => "not in".into(),
                _ => "either".into(),
            })
            .collect();
        for (at, state) in said.iter().enumerate() {
            let right = match truth[at].as_str() {
                _ if !is_visible(&files[at]) => state == "unknown",
                "in" => state.starts_with("complete"),
                "not in" => state == "not started",
                _ => state == "unknown",
            };
            if !right {
                run(&mut client, &files, &upto(count));
                let steps = steps(&mut client, &files);
                panic!(
                    "{count} run, file {at}: {}\n{steps}",
                    shown(seed, &files, &truth, &said)
                );
            }
        }
    }
}

/// The first files but one, or the last of them by half. Where it makes a difference that a file was run, it must be told; where it makes
/// none, nothing is asked.
fn exception_case(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let database = database();
    let mut client = database.connect();
    let files = history(&mut client, &mut random);
    let count = random.random_range(1..=files.len());
    // Where a DROP TABLE is left out, CREATE TABLE IF NOT EXISTS of another table behind it keeps the old one: which one it is, and so
    // whether the file was run, cannot always be told.
    let can_be_left_out: Vec<usize> = (0..count)
        .filter(|at| !files[*at].concat().contains("DROP TABLE"))
        .collect();
    if can_be_left_out.is_empty() {
        return;
    }
    let left_out = can_be_left_out[random.random_range(0..can_be_left_out.len())];
    // Half of the last file, as psql leaves it behind.
    let half = random.random_bool(0.5) && files[count - 1].len() > 1;
    let mut run_files = files.clone();
    let mut which: Vec<bool> = (0..files.len()).map(|at| at < count).collect();
    match half {
        // That something is absent is no evidence of a half.
        true if files[count - 1].concat().contains("DROP TABLE") => return,
        true => run_files[count - 1].truncate(files[count - 1].len() / 2),
        false => which[left_out] = false,
    }
    let (done, signature) = run(&mut client, &run_files, &which);
    let said = drift(&mut client, &files);
    let steps = steps(&mut client, &files);
    client.batch_execute("ROLLBACK").unwrap();
    let truth: Vec<String> = (0..files.len())
        .map(|at| match () {
            () if half && at == count - 1 => "half".into(),
            () if done[at] => "in".into(),
            () => "not in".to_string(),
        })
        .collect();
    for (at, state) in said.iter().enumerate().filter(|(at, _)| is_visible(&files[*at])) {
        // Otherwise about this file, and the same about all others: those that were run, or those that could be run then.
        let differs = |client: &mut Client, file: &File, run: bool| {
            let mut other_files = run_files.clone();
            other_files[at] = file.clone();
            let (mut others, mut tried) = (done.clone(), which.clone());
            (others[at], tried[at]) = (run, run);
            let (now, with_others) = only(client, &other_files, &others);
            let (_, with_tried) = only(client, &other_files, &tried);
            (now != others || with_others != signature) && with_tried != signature
        };
        let (not_in, whole) = (
            differs(&mut client, &files[at], false),
            differs(&mut client, &files[at], true),
        );
        let wrong = match truth[at].as_str() {
            "in" => not_in && state == "not started",
            "not in" => whole && state.starts_with("complete"),
            _ => not_in && state == "not started" || whole && state.starts_with("complete"),
        };
        assert!(!wrong, "file {at}: {}\n{steps}", shown(seed, &files, &truth, &said));
    }
}

#[test]
fn what_is_also_so_without_a_step_is_no_evidence() {
    let (_database, mut client) = pgrx_tests::database_with(
        "CREATE TABLE u (id int PRIMARY KEY);
         CREATE TABLE m (id int, u_id int, CONSTRAINT m_fk FOREIGN KEY (u_id) REFERENCES u ON DELETE CASCADE);
         CREATE TYPE ft AS ENUM ('A', 'B')",
    );
    let script = "ALTER TABLE m DROP CONSTRAINT m_fk;
        ALTER TABLE m ADD CONSTRAINT m_fk FOREIGN KEY (u_id) REFERENCES u ON DELETE CASCADE;
        ALTER TYPE ft ADD VALUE 'B';
        CREATE TABLE o (id int, url text, tmp int);
        CREATE UNIQUE INDEX o_url ON o (url);
        ALTER TABLE m DROP CONSTRAINT m_fk;
        ALTER TABLE o DROP COLUMN tmp";
    let call = format!("SELECT step, state FROM migration_status($mend${script}$mend$) WHERE step IS NOT NULL");
    assert_eq!(
        lines(&mut client, &call),
        [
            "1|present",
            "2|present",
            "3|would_fail",
            "4|missing",
            "5|missing",
            "6|missing",
            "7|missing"
        ]
    );
    // Nothing of these tells whether it was run, until a later one does.
    for (script, state) in [
        ("DROP TABLE IF EXISTS gone", "unknown"),
        ("ALTER TABLE m DROP COLUMN IF EXISTS gone", "unknown"),
        ("INSERT INTO u VALUES (1)", "unknown"),
        ("DROP TABLE IF EXISTS gone; ALTER TYPE ft ADD VALUE 'C'", "not started"),
        (
            "DROP TABLE IF EXISTS gone; CREATE TABLE IF NOT EXISTS u (id int PRIMARY KEY)",
            "complete",
        ),
    ] {
        let call = format!("SELECT state FROM migration_status($mend${script}$mend$) WHERE step IS NULL");
        assert_eq!(one(&mut client, &call), state, "{script}");
    }
}

#[test]
fn a_file_left_out_and_half_a_file_are_told() {
    pgrx_tests::cases(40, 0).into_iter().for_each(exception_case);
}

#[test]
fn a_history_is_told_up_to_where_it_was_run_1() {
    pgrx_tests::cases(20, 0).into_iter().for_each(prefix_case);
}

#[test]
fn a_history_is_told_up_to_where_it_was_run_2() {
    pgrx_tests::cases(20, 1).into_iter().for_each(prefix_case);
}
