//! Random schemas and rows against a slow, obvious reference that works row by row on plain text.
//!
//! Every count, every written value and every reason must be the same in: the reference, the dry run, the real run, the
//! list of unfilled rows. A second run must change nothing. `MEND_CASES` sets the number of cases, `MEND_CASE` runs one.

mod generate;
mod reference;

use std::collections::{BTreeMap, HashMap};

use pgrx_tests::Database;
use pgrx_tests::example::{crossing, nothing_crosses_now};
use postgres::Client;

use generate::{Case, quoted};

type Value = Option<String>;
type Row = HashMap<String, Value>;

struct Result {
    total: i64,
    already_set: i64,
    filled: i64,
    unfilled: i64,
    reasons: BTreeMap<String, i64>,
}

impl Case {
    fn rule(&self) -> serde_json::Value {
        serde_json::json!({
            "table": quoted(&self.table), "column": quoted(&self.column), "sources": self.paths(),
            "on_conflict": self.on_conflict, "only_where": self.only_where.then_some("flag >= 1"),
            "tenant_guard": self.guard, "tenant": self.tenant, "overwrite": self.overwrite(),
        })
    }

    fn overwrite(&self) -> &'static str {
        if self.overwrite { "mismatched" } else { "nothing" }
    }

    fn call(&self, client: &mut Client, dry_run: bool) -> std::result::Result<Result, postgres::Error> {
        let row = client.query_one(
            "SELECT * FROM public.backfill($1::jsonb, $2)",
            &[&self.rule(), &dry_run],
        )?;
        let reasons: serde_json::Value = row.get("reasons");
        Ok(Result {
            total: row.get("total"),
            already_set: row.get("already_set"),
            filled: row.get("filled"),
            unfilled: row.get("unfilled"),
            reasons: reasons
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.clone(), v.as_i64().unwrap()))
                .collect(),
        })
    }

    fn contents(&self, client: &mut Client) -> BTreeMap<u32, (Value, String)> {
        let sql = format!(
            "SELECT id, {}::text, ctid::text || xmin::text FROM {}",
            quoted(&self.column),
            quoted(&self.table)
        );
        let rows = client.query(&sql, &[]).unwrap();
        rows.iter()
            .map(|r| (r.get::<_, i32>(0) as u32, (r.get(1), r.get(2))))
            .collect()
    }

    fn run(&self, database: &Database, seed: u64) {
        let mut client = database.connect();
        let schema = format!("case_{seed}");
        client
            .batch_execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}"))
            .unwrap();
        client
            .batch_execute(&self.sql)
            .unwrap_or_else(|e| panic!("case {seed}: {e:?}\n{}", self.sql));
        client
            .execute(
                "SELECT set_config('pg_mend.tenant_root', $1, false)",
                &[&quoted(&self.root)],
            )
            .unwrap();
        let explain = || {
            format!(
                "case {seed}: {}\n{}\nparty {} kind {:?} {:?}",
                self.rule(),
                self.sql,
                self.party,
                self.kind,
                self.checks
            )
        };
        let (reasons, values) = self.reference();
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        for reason in reasons.values() {
            *expected.entry(reason.clone()).or_default() += 1;
        }
        let already = expected.remove("already_set").unwrap_or(0);
        let filled = expected.remove("filled").unwrap_or(0);
        let before = self.contents(&mut client);
        let root = quoted(&self.root);
        let crossed = crossing(&mut client, &root);

        client.batch_execute("BEGIN READ ONLY").unwrap();
        let dry = self
            .call(&mut client, true)
            .unwrap_or_else(|e| panic!("{:?}\n{}", e.as_db_error(), explain()));
        let sql =
            "SELECT (key ->> 'id')::int, reason FROM public.backfill_unfilled($1, $2, $3, $4, $5, $6, $7, 10000, $8)";
        let arguments: [&(dyn postgres::types::ToSql + Sync); 8] = [
            &quoted(&self.table),
            &quoted(&self.column),
            &self.paths(),
            &self.on_conflict,
            &self.only_where.then_some("flag >= 1"),
            &self.guard,
            &self.tenant,
            &self.overwrite(),
        ];
        let listed = client
            .query(sql, &arguments)
            .unwrap_or_else(|e| panic!("{:?}\n{}", e.as_db_error(), explain()));
        client.batch_execute("COMMIT").unwrap();
        let listed: BTreeMap<u32, String> = listed.iter().map(|r| (r.get::<_, i32>(0) as u32, r.get(1))).collect();
        let left: BTreeMap<u32, String> = reasons
            .iter()
            .filter(|(_, r)| !matches!(r.as_str(), "filled" | "already_set"))
            .map(|(i, r)| (*i, r.clone()))
            .collect();
        assert_eq!(listed, left, "unfilled rows, {}", explain());
        assert_eq!(self.contents(&mut client), before, "the dry run wrote, {}", explain());

        let real = self
            .call(&mut client, false)
            .unwrap_or_else(|e| panic!("{:?}\n{}", e.as_db_error(), explain()));
        for (name, result) in [("dry", &dry), ("real", &real)] {
            let got = (result.already_set, result.filled, &result.reasons);
            assert_eq!(got, (already, filled, &expected), "{name} run, {}", explain());
            assert_eq!(result.total, self.rows.len() as i64, "{}", explain());
            assert_eq!(result.unfilled, expected.values().sum::<i64>(), "{}", explain());
        }
        if self.guard {
            nothing_crosses_now(&mut client, &root, &crossed, &explain());
        }
        let after = self.contents(&mut client);
        for (id, (value, version)) in &after {
            let (old, old_version) = &before[id];
            match values.get(id) {
                Some(new) => assert_eq!(value.as_ref(), Some(new), "row {id}, {}", explain()),
                None => assert_eq!(
                    (value, version),
                    (old, old_version),
                    "row {id} was touched, {}",
                    explain()
                ),
            }
        }

        // What was replaced is kept, and nothing else.
        let kept: BTreeMap<u32, (Value, Value)> = client
            .query(
                "SELECT (row_key ->> 'id')::int, old_value, new_value FROM mend.replaced_values
                 WHERE run_id = (SELECT max(run_id) FROM mend.runs)",
                &[],
            )
            .unwrap()
            .iter()
            .map(|r| (r.get::<_, i32>(0) as u32, (r.get(1), r.get(2))))
            .collect();
        let replaced: BTreeMap<u32, (Value, Value)> = values
            .iter()
            .filter(|(id, _)| before[id].0.is_some())
            .map(|(id, new)| (*id, (before[id].0.clone(), Some(new.clone()))))
            .collect();
        assert_eq!(kept, replaced, "replaced values, {}", explain());

        let again = self.call(&mut client, false).unwrap();
        assert_eq!(
            (again.filled, again.reasons),
            (0, expected),
            "second run, {}",
            explain()
        );
        assert_eq!(self.contents(&mut client), after, "the second run wrote, {}", explain());
        client
            .batch_execute(&format!(
                "SET client_min_messages = error; DROP SCHEMA {schema} CASCADE"
            ))
            .unwrap();
    }
}

#[test]
fn every_number_and_value_is_that_of_the_reference_1() {
    every_number_and_value_is_that_of_the_reference(0);
}

#[test]
fn every_number_and_value_is_that_of_the_reference_2() {
    every_number_and_value_is_that_of_the_reference(1);
}

fn every_number_and_value_is_that_of_the_reference(part: u64) {
    let database = pgrx_tests::database();
    let cases = pgrx_tests::cases(200, part);
    let many = cases.len() > 1;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in cases {
        let case = Case::generate(seed);
        let (reasons, values) = case.reference();
        for reason in reasons.values() {
            *seen.entry(reason.clone()).or_default() += 1;
        }
        let replaced = case.rows.iter().filter(|row| {
            let id = row["id"].as_ref().unwrap().parse().unwrap();
            row[&case.column].is_some() && values.contains_key(&id)
        });
        *seen.entry("replaced".into()).or_default() += replaced.count();
        case.run(&database, seed);
    }
    // A generator that stopped making one of them would pass for nothing.
    for reason in [
        "already_set",
        "filled",
        "no_source",
        "source_missing",
        "source_null",
        "conflict",
        "ambiguous",
        "cross_tenant",
        "constraint_failed",
        "excluded",
        "replaced",
    ] {
        assert!(
            !many || seen.get(reason).copied().unwrap_or(0) > 10,
            "{reason} is too rare: {seen:?}"
        );
    }
}
