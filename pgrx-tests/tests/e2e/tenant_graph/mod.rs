//! Random graphs of tables against a slow, obvious reference: paths and their order, fills in the order of the graph,
//! conflicts, coverage. `MEND_CASES` sets the number of cases, `MEND_CASE` runs one.

mod generate;
mod reference;

use std::collections::BTreeMap;

use pgrx_tests::Database;
use pgrx_tests::example::lines;
use postgres::Client;

use generate::Graph;
use reference::Expected;

impl Graph {
    fn call(&self, client: &mut Client, dry_run: bool) -> Result<Vec<(String, Expected)>, postgres::Error> {
        let overwrite = if self.overwrite { "mismatched" } else { "nothing" };
        let tenant = self.tenant.map(|t| t.to_string());
        let rows = client.query(
            "SELECT * FROM public.backfill_tenant_ids('tenants', $1, on_conflict => $2, tenant => $3, overwrite => $4)",
            &[&dry_run, &self.on_conflict, &tenant, &overwrite],
        )?;
        Ok(rows
            .iter()
            .map(|row| {
                let reasons: serde_json::Value = row.get("reasons");
                let reasons = reasons.as_object().unwrap();
                let counts = Expected {
                    already_set: row.get("already_set"),
                    filled: row.get("filled"),
                    reasons: reasons.iter().map(|(k, v)| (k.clone(), v.as_i64().unwrap())).collect(),
                };
                let sum: i64 = counts.already_set + counts.filled + counts.reasons.values().sum::<i64>();
                assert_eq!(row.get::<_, i64>("total"), sum);
                (row.get("table_name"), counts)
            })
            .collect())
    }

    /// Table, row, tenant, version of the row.
    fn contents(&self, client: &mut Client) -> Vec<String> {
        let with_key = self.tables.iter().filter_map(|t| Some((t, t.key.as_ref()?)));
        let queries: Vec<String> = with_key
            .map(|(t, key)| format!("SELECT '{0}', id, \"{1}\", ctid, xmin FROM {0}", t.name, key.column))
            .collect();
        lines(client, &format!("{} ORDER BY 1, 2", queries.join(" UNION ALL ")))
    }

    fn tenants(&self) -> Vec<String> {
        let mut found = Vec::new();
        for table in self.tables.iter().filter(|t| t.key.is_some()) {
            for row in &table.rows {
                let tenant = row.tenant.map_or("-".into(), |t| t.to_string());
                found.push(format!("{}|{}|{tenant}", table.name, row.id));
            }
        }
        found
    }

    fn start(&self, client: &mut Client, seed: u64) -> String {
        let schema = format!("graph_{}{seed}", if self.circles { "c" } else { "" });
        client
            .batch_execute(&format!(
                "CREATE SCHEMA {schema}; SET search_path = {schema}; {}",
                self.sql()
            ))
            .unwrap_or_else(|e| panic!("graph {seed}: {e:?}\n{}", self.sql()));
        schema
    }

    fn explain(&self, seed: u64) -> String {
        format!(
            "graph {seed} ({}, overwrite {}, tenant {:?})\n{}",
            self.on_conflict,
            self.overwrite,
            self.tenant,
            self.sql()
        )
    }

    fn columns_are_those_of_the_reference(&self, client: &mut Client, seed: u64) {
        let sql = "SELECT table_name, tenant_column, status, path, alternatives, constraint_state FROM public.tenant_columns('tenants')";
        let rows = client.query(sql, &[]).unwrap();
        for row in rows
            .iter()
            .filter(|row| row.get::<_, String>("table_name") != "tenants")
        {
            let name: String = row.get("table_name");
            let t = self.tables.iter().position(|t| t.name == name).unwrap();
            let mut trees = 0;
            let (first, second): (Vec<_>, Vec<_>) = self.ways(t).into_iter().partition(|way| {
                let own = self.tables[t].references[way[0].1].parent == t;
                trees += usize::from(own);
                !own || trees == 1
            });
            let paths: Vec<String> = first.iter().take(12).chain(&second).map(|way| self.path(way)).collect();
            let shown: Vec<String> = row
                .get::<_, Option<String>>("path")
                .into_iter()
                .chain(row.get::<_, Vec<String>>("alternatives"))
                .collect();
            assert_eq!(shown, paths, "paths of {name}, {}", self.explain(seed));
            let status: String = row.get("status");
            let null = self.tables[t].rows.iter().any(|row| row.tenant.is_none());
            let expected = match &self.tables[t].key {
                None => self.status_without_key(t),
                Some(key) if key.not_null && key.declared => "ready",
                Some(key) if key.not_null => "unconstrained",
                Some(_) if null => "needs_backfill",
                Some(_) => "nullable",
            };
            assert_eq!(status, expected, "{name}, {}", self.explain(seed));
            let column: Option<String> = row.get("tenant_column");
            assert_eq!(column, self.tables[t].key.as_ref().map(|key| key.column.clone()));
        }
        assert_eq!(rows.len(), self.tables.len() + 1, "{}", self.explain(seed));
    }

    fn coverage_is_that_of_the_reference(&self, client: &mut Client, seed: u64) {
        let sql = "SELECT table_name, total, populated, missing, disagrees FROM public.backfill_coverage('tenants')";
        for row in client.query(sql, &[]).unwrap() {
            let name: String = row.get(0);
            let t = self.tables.iter().position(|t| t.name == name).unwrap();
            let got: (i64, i64, Option<i64>) = (row.get(1), row.get(2), row.get(4));
            assert_eq!(got, self.coverage(t), "coverage of {name}, {}", self.explain(seed));
            assert_eq!(row.get::<_, i64>(3), got.0 - got.1);
        }
    }

    fn check(&self, database: &Database, seed: u64, seen: &mut BTreeMap<String, i64>) {
        let mut client = database.connect();
        let schema = self.start(&mut client, seed);
        self.columns_are_those_of_the_reference(&mut client, seed);
        self.coverage_is_that_of_the_reference(&mut client, seed);
        if seed.is_multiple_of(5) {
            crate::ownership::all_calls_agree(&mut client, "tenants", &self.explain(seed));
        }
        let mut after = self.clone();
        let expected = after.run();
        for counts in expected.values() {
            *seen.entry("filled".into()).or_default() += counts.filled;
            counts
                .reasons
                .iter()
                .for_each(|(k, v)| *seen.entry(k.clone()).or_default() += v);
        }
        let before = self.contents(&mut client);
        client.batch_execute("BEGIN READ ONLY").unwrap();
        let dry = self
            .call(&mut client, true)
            .unwrap_or_else(|e| panic!("{e:?} {}", self.explain(seed)));
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(
            self.contents(&mut client),
            before,
            "the dry run wrote, {}",
            self.explain(seed)
        );
        let real = self
            .call(&mut client, false)
            .unwrap_or_else(|e| panic!("{e:?} {}", self.explain(seed)));
        assert_eq!(dry, real, "dry and real run differ, {}", self.explain(seed));
        assert_eq!(
            real.into_iter().collect::<BTreeMap<_, _>>(),
            expected,
            "{}",
            self.explain(seed)
        );
        let written = self.contents(&mut client);
        let short: Vec<String> = written
            .iter()
            .map(|line| line.split('|').take(3).collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(short, after.tenants(), "{}", self.explain(seed));
        after.coverage_is_that_of_the_reference(&mut client, seed);
        let again = self.call(&mut client, false).unwrap();
        assert!(
            again.iter().all(|(_, counts)| counts.filled == 0),
            "second run, {}",
            self.explain(seed)
        );
        assert_eq!(
            self.contents(&mut client),
            written,
            "the second run wrote, {}",
            self.explain(seed)
        );
        drop_schema(&mut client, &schema);
    }

    /// In circles there is no reference for the order; but what a run says must hold all the same, or it must refuse.
    fn check_circles(&self, database: &Database, seed: u64, refused: &mut i64) {
        let mut client = database.connect();
        let schema = self.start(&mut client, seed);
        let before = self.contents(&mut client);
        let dry = self.call(&mut client, true);
        match (dry, self.call(&mut client, false)) {
            (Ok(dry), Ok(real)) => {
                assert_eq!(dry, real, "dry and real run differ, {}", self.explain(seed));
                let written = self.contents(&mut client);
                let again = self.call(&mut client, false).unwrap();
                assert!(
                    again.iter().all(|(_, counts)| counts.filled == 0),
                    "second run, {}",
                    self.explain(seed)
                );
                assert_eq!(
                    self.contents(&mut client),
                    written,
                    "the second run wrote, {}",
                    self.explain(seed)
                );
            }
            (Err(dry), Err(real)) => {
                *refused += 1;
                let code = |error: &postgres::Error| error.code().map(|c| c.code().to_string());
                assert_eq!(code(&dry).as_deref(), Some("42P17"), "{dry:?} {}", self.explain(seed));
                assert_eq!(code(&dry), code(&real));
                assert_eq!(
                    self.contents(&mut client),
                    before,
                    "a refused run wrote, {}",
                    self.explain(seed)
                );
            }
            (dry, real) => panic!(
                "one refused, the other did not: {dry:?} {real:?} {}",
                self.explain(seed)
            ),
        }
        drop_schema(&mut client, &schema);
    }
}

fn drop_schema(client: &mut Client, schema: &str) {
    client
        .batch_execute(&format!(
            "SET client_min_messages = error; DROP SCHEMA {schema} CASCADE"
        ))
        .unwrap();
}

#[test]
fn every_path_count_and_value_is_that_of_the_reference_1() {
    every_path_count_and_value_is_that_of_the_reference(0);
}

#[test]
fn every_path_count_and_value_is_that_of_the_reference_2() {
    every_path_count_and_value_is_that_of_the_reference(1);
}

fn every_path_count_and_value_is_that_of_the_reference(part: u64) {
    let cases = pgrx_tests::cases(150, part);
    let database = pgrx_tests::database();
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    for seed in cases.iter().copied() {
        Graph::generate(seed, false).check(&database, seed, &mut seen);
    }
    if cases.len() > 1 {
        for reason in [
            "filled",
            "no_source",
            "source_missing",
            "source_null",
            "conflict",
            "excluded",
        ] {
            assert!(
                seen.get(reason).copied().unwrap_or(0) > 10,
                "{reason} is too rare: {seen:?}"
            );
        }
    }
}

#[test]
fn circles_are_broken_or_refused_and_never_half_filled_1() {
    circles_are_broken_or_refused_and_never_half_filled(0);
}

#[test]
fn circles_are_broken_or_refused_and_never_half_filled_2() {
    circles_are_broken_or_refused_and_never_half_filled(1);
}

fn circles_are_broken_or_refused_and_never_half_filled(part: u64) {
    let cases = pgrx_tests::cases(150, part);
    let database = pgrx_tests::database();
    let mut refused = 0;
    for seed in cases.iter().copied() {
        Graph::generate(seed, true).check_circles(&database, seed, &mut refused);
    }
    let all = cases.len() as i64;
    assert!(
        all < 2 || refused > 0 && refused < all,
        "{refused} of {all} were refused: both must be tried"
    );
}
