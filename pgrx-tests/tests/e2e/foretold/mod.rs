//! A dry run says what the real run does: one harness through which every call that writes goes, on random schemas with domains, lengths,
//! numerics, collations, unique, partial and expression indexes, CHECKs, generated columns and triggers. `MEND_CASES` sets the number of
//! cases, `MEND_CASE` runs one.
//!
//! Each call is asked twice, first in a READ ONLY transaction. The results must be equal, or both must fail alike; the dry run must leave
//! every row as it was, the real run no new reference to another tenant. Then everything is taken back, the same way.

mod generate;

use std::collections::BTreeMap;

use pgrx_tests::Database;
use pgrx_tests::example::{crossing, lines, nothing_crosses_now, one};
use postgres::Client;

use generate::Case;

/// What a call says: its rows without what only one of the two can have, or how it fails; and its notes.
#[derive(Debug, PartialEq)]
struct Answer {
    rows: Result<Vec<String>, String>,
    notes: String,
}

/// What dry run and real run word differently.
fn asked(client: &mut Client, call: &str, dry_run: bool) -> Answer {
    let from = call.replace("DRY", &dry_run.to_string());
    let rows = format!(
        "SELECT to_jsonb(r) - '{{dry_run,run_id,restore_id,note}}'::text[], to_jsonb(r) ->> 'note' FROM public.{from} AS r"
    );
    match client.query(&rows, &[]) {
        Ok(rows) => {
            let texts = rows.iter().map(|row| row.get::<_, serde_json::Value>(0).to_string());
            let texts = texts.map(|text| {
                let pairs = [
                    ("objects would be dropped", "objects dropped"),
                    ("would be copied", "were copied"),
                    ("\"action\":\"drop\"", "\"action\":\"dropped\""),
                    ("\"action\":\"create\"", "\"action\":\"created\""),
                ];
                pairs.iter().fold(text, |text, (dry, real)| text.replace(dry, real))
            });
            let notes = rows.iter().filter_map(|row| row.get::<_, Option<String>>(1));
            Answer {
                notes: notes.collect::<Vec<_>>().join("; "),
                rows: Ok(texts.collect()),
            }
        }
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{from}: {error:?}"));
            Answer {
                rows: Err(format!("{} {}", error.code().code(), error.message())),
                notes: String::new(),
            }
        }
    }
}

/// Every row of every table, with the place of its version.
fn contents(client: &mut Client, versions: bool) -> String {
    let tables = lines(
        client,
        "SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = current_schema::regnamespace AND c.relkind = 'r' ORDER BY 1",
    );
    let version = if versions { "t.ctid::text || t.xmin::text" } else { "''" };
    let all: Vec<String> = tables
        .iter()
        .map(|table| format!("SELECT '{table}', {version}, t::text FROM {table} AS t"))
        .collect();
    lines(client, &format!("{} ORDER BY 1, 3, 2", all.join(" UNION ALL "))).join("\n")
}

/// How often what was tried, and what was let pass.
#[derive(Debug, Default)]
struct Seen {
    /// Calls that wrote something, by name.
    wrote: BTreeMap<String, usize>,
    /// Calls that refused something.
    refused: usize,
    /// Real runs that failed for what the dry run had said it cannot know.
    excused: usize,
    failed_alike: usize,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        for (name, times) in other.wrote {
            *self.wrote.entry(name).or_default() += times;
        }
        self.refused += other.refused;
        self.excused += other.excused;
        self.failed_alike += other.failed_alike;
    }
}

struct Harness<'a> {
    client: Client,
    case: &'a Case,
    seed: u64,
    seen: Seen,
}

impl Harness<'_> {
    fn explain(&self, call: &str) -> String {
        format!("case {}: {call}\n{}", self.seed, self.case.sql)
    }

    /// Asks dry, then for real, and compares. True: something was written.
    fn try_call(&mut self, call: &str, may_cross: bool) -> bool {
        let crossed = crossing(&mut self.client, "tenants");
        let before = contents(&mut self.client, true);
        self.client.batch_execute("BEGIN READ ONLY").unwrap();
        let dry = asked(&mut self.client, call, true);
        self.client.batch_execute("ROLLBACK").unwrap();
        assert_eq!(
            contents(&mut self.client, true),
            before,
            "the dry run wrote, {}",
            self.explain(call)
        );
        let real = asked(&mut self.client, call, false);
        let after = contents(&mut self.client, true);
        let name = call.split('(').next().unwrap_or_default().to_string();
        match (&dry.rows, &real.rows) {
            (Ok(_), Ok(rows)) => {
                if rows.iter().any(|row| row.contains("constraint_failed")) {
                    self.seen.refused += 1;
                }
                if dry.rows != real.rows {
                    assert!(
                        self.case.refusing_trigger && dry.notes.contains("refuses"),
                        "dry and real differ\n dry {dry:?}\nreal {real:?}\n{}",
                        self.explain(call)
                    );
                }
            }
            (Err(dry), Err(real)) => {
                assert_eq!(dry, real, "they fail differently, {}", self.explain(call));
                self.seen.failed_alike += 1;
            }
            (Ok(_), Err(error)) => {
                let unknown = [
                    "cannot be checked in a dry run",
                    "checked with a placeholder instead of the new key",
                ];
                let said = unknown.iter().any(|words| dry.notes.contains(words));
                // A restore has no notes.
                let named = dry.notes.contains("refuses") || call.starts_with("restore_reset");
                let by_trigger = self.case.refusing_trigger && named;
                assert!(
                    said || by_trigger,
                    "not foretold: {error}\ndry {dry:?}\n{}",
                    self.explain(call)
                );
                self.seen.excused += 1;
            }
            (Err(error), Ok(_)) => panic!("only the dry run failed: {error}, {}", self.explain(call)),
        }
        if real.rows.is_err() {
            assert_eq!(after, before, "an error left something, {}", self.explain(call));
        }
        if !may_cross {
            let explain = self.explain(call);
            nothing_crosses_now(&mut self.client, "tenants", &crossed, &explain);
        }
        let wrote = after != before;
        if wrote {
            *self.seen.wrote.entry(name).or_default() += 1;
        }
        wrote
    }

    /// Locking in: what the plan says is what the procedure does.
    fn finalize(&mut self) {
        let plan =
            "SELECT state FROM public.finalize_plan('item', 'tenant_id', parent => 'tenants(id)', root => 'tenants')";
        let states = lines(&mut self.client, plan);
        let done = self.client.batch_execute(
            "CALL public.finalize_backfill('item', 'tenant_id', parent => 'tenants(id)', root => 'tenants')",
        );
        match done {
            Ok(()) => {
                assert!(
                    !states.iter().any(|s| s == "blocked"),
                    "{states:?}, {}",
                    self.explain("finalize")
                );
                let left = lines(&mut self.client, plan);
                assert!(
                    left.iter()
                        .all(|s| ["done", "optional", "by hand"].contains(&s.as_str())),
                    "{left:?}, {}",
                    self.explain("finalize")
                );
                *self.seen.wrote.entry("finalize_backfill".into()).or_default() += 1;
            }
            Err(error) => assert!(
                states.iter().any(|s| s == "blocked"),
                "{states:?}: {error:?}, {}",
                self.explain("finalize")
            ),
        }
    }

    /// A script that ran is taken back with what its table and column hold, run once more, and its rows are put back.
    fn reset(&mut self) {
        let (script, value) = (self.case.script.clone(), self.case.value);
        self.client.batch_execute(&script).unwrap();
        // A trigger that refuses rows is none of the script's; rows that an old CHECK refuses stay as they are.
        self.client
            .batch_execute(&format!(
                "SET session_replication_role = replica; INSERT INTO extra SELECT i, {value} FROM generate_series(1, 3) AS i;
                 DO $do$ DECLARE r int; BEGIN
                   FOR r IN SELECT id FROM item WHERE id % 2 = 0 LOOP
                     BEGIN UPDATE item SET added = {value} WHERE id = r; EXCEPTION WHEN check_violation THEN NULL; END;
                   END LOOP;
                 END $do$;
                 RESET session_replication_role"
            ))
            .unwrap();
        let before = contents(&mut self.client, false);
        let schema = one(&mut self.client, "SELECT current_schema");
        let call = format!(
            "migration_reset($script${script}$script$, DRY, include => ARRAY['{schema}.extra', '{schema}.item.added'])"
        );
        self.try_call(&call, true);
        let run = one(
            &mut self.client,
            "SELECT coalesce(max(run_id), 0) FROM mend.runs WHERE operation = 'migration_reset'",
        );
        if lines(&mut self.client, "SELECT to_regclass('extra')") != ["-"] || run == "0" {
            return;
        }
        self.client.batch_execute(&script).unwrap();
        self.try_call(&format!("restore_reset({run}, DRY)"), true);
        if !self.case.refusing_trigger {
            let columns = ["touched"];
            let without = |text: &str| text.lines().count();
            assert_eq!(
                without(&contents(&mut self.client, false)),
                without(&before),
                "{columns:?}, {}",
                self.explain("reset")
            );
            assert_eq!(
                one(
                    &mut self.client,
                    &format!("SELECT count(*) FROM extra WHERE v = {value}")
                ),
                "3",
                "{}",
                self.explain("reset")
            );
        }
    }
}

fn run(case: &Case, database: &Database, seed: u64) -> Seen {
    let mut client = database.connect();
    let schema = format!("foretold_{seed}");
    client
        .batch_execute(&format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema}, public; SET pg_mend.tenant_root = 'tenants'"
        ))
        .unwrap();
    client
        .batch_execute(&case.sql)
        .unwrap_or_else(|error| panic!("case {seed}: {error:?}\n{}", case.sql));
    let first = one(&mut client, "SELECT coalesce(max(run_id), 0) FROM mend.runs");
    let mut harness = Harness {
        client,
        case,
        seed,
        seen: Seen::default(),
    };
    for call in &case.calls {
        harness.try_call(
            call,
            call.contains("tenant_guard => false") || call.starts_with("backfill_tenant_ids"),
        );
    }
    harness.reset();
    // Everything is taken back, the last run first; then that is, once.
    let runs = |client: &mut Client| {
        lines(
            client,
            &format!(
                "SELECT run_id FROM mend.runs WHERE run_id > {first} AND (filled > 0) AND operation NOT IN ('migration_reset', 'restore_reset') ORDER BY run_id DESC"
            ),
        )
    };
    let mut undone = runs(&mut harness.client);
    for run in &undone {
        harness.try_call(&format!("undo_run({run}, DRY)"), true);
    }
    undone = runs(&mut harness.client).into_iter().take(2).collect();
    for run in &undone {
        harness.try_call(&format!("undo_run({run}, DRY)"), true);
    }
    harness.finalize();
    let Harness { mut client, seen, .. } = harness;
    client
        .batch_execute(&format!(
            "SET client_min_messages = error; DROP SCHEMA {schema} CASCADE"
        ))
        .unwrap();
    seen
}

/// One of two parts of the cases, so that they run side by side.
fn dry_is_real(part: u64) {
    let database = pgrx_tests::database();
    let mut seen = Seen::default();
    let cases = pgrx_tests::cases(80, part);
    for seed in cases.iter().copied() {
        seen.add(run(&Case::generate(seed), &database, seed));
    }
    // A generator that stopped making one of them would pass for nothing.
    if cases.len() >= 40 {
        for name in [
            "backfill",
            "backfill_tenant_ids",
            "backfill_party_ids",
            "backfill_parents",
            "repair_orphans",
            "undo_run",
            "migration_reset",
            "restore_reset",
            "finalize_backfill",
        ] {
            assert!(
                seen.wrote.get(name).copied().unwrap_or(0) > 0,
                "{name} is too rare: {seen:?}"
            );
        }
        let wrote: usize = seen.wrote.values().sum();
        assert!(seen.refused > 10 && seen.excused * 20 < wrote, "{seen:?}");
    }
}

#[test]
fn a_dry_run_says_what_every_call_then_does_1() {
    dry_is_real(0);
}

#[test]
fn a_dry_run_says_what_every_call_then_does_2() {
    dry_is_real(1);
}
