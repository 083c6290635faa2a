//! Random broken references, repaired in every way, against a model that goes row by row. `MEND_CASES` sets the number of cases,
//! `MEND_CASE` runs one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use pgrx_tests::example::{crossing, lines, nothing_crosses_now};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[derive(Debug, Clone)]
struct Row {
    id: i32,
    tenant: Option<i32>,
    holder: Option<i32>,
    flag: bool,
}

#[derive(Debug)]
struct Case {
    /// Key → tenant.
    holders: BTreeMap<i32, i32>,
    items: Vec<Row>,
    /// Rows of another table that mean the same keys.
    notes: Vec<Row>,
    foreign_key: bool,
    /// CHECK (NOT flag OR holder_id IS NOT NULL)
    flagged_must_have_one: bool,
    /// CHECK (id < limit) of the parents
    limit: Option<i32>,
    only_where: bool,
    cross_tenant: bool,
    action: &'static str,
}

fn case(seed: u64) -> Case {
    let mut random = StdRng::seed_from_u64(seed);
    let rows = |random: &mut StdRng, most: i32| -> Vec<Row> {
        (1..=random.random_range(0..most))
            .map(|id| Row {
                id,
                tenant: (!random.random_bool(0.15)).then(|| random.random_range(1..4)),
                holder: (!random.random_bool(0.15)).then(|| random.random_range(1..18)),
                flag: random.random_bool(0.3),
            })
            .collect()
    };
    let holders = (1..=random.random_range(0..9))
        .map(|id| (id, random.random_range(1..4)))
        .collect();
    let action = ["nullify", "quarantine", "create_parent"][random.random_range(0..3)];
    let items = rows(&mut random, 25);
    let notes = if random.random_bool(0.5) {
        rows(&mut random, 8)
    } else {
        vec![]
    };
    Case {
        holders,
        flagged_must_have_one: random.random_bool(0.5),
        limit: random.random_bool(0.4).then(|| random.random_range(9..18)),
        items,
        notes,
        foreign_key: random.random_bool(0.4),
        only_where: random.random_bool(0.3),
        cross_tenant: action != "create_parent" && random.random_bool(0.3),
        action,
    }
}

impl Case {
    fn sql(&self) -> String {
        let check = |wanted: bool, text: &str| if wanted { format!(", {text}") } else { String::new() };
        let mut sql = format!(
            "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2), (3);
             CREATE TABLE holder (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants{});
             CREATE TABLE item (id int PRIMARY KEY, tenant_id int REFERENCES tenants, holder_id int, flag bool{});
             CREATE TABLE note (id int PRIMARY KEY, tenant_id int REFERENCES tenants, holder_id int, flag bool);\n",
            check(
                self.limit.is_some(),
                &format!("CONSTRAINT small CHECK (id < {})", self.limit.unwrap_or(0))
            ),
            check(
                self.flagged_must_have_one,
                "CONSTRAINT flagged CHECK (NOT flag OR holder_id IS NOT NULL) NO INHERIT"
            ),
        );
        for (id, tenant) in &self.holders {
            let _ = writeln!(sql, "INSERT INTO holder VALUES ({id}, {tenant});");
        }
        let value = |v: Option<i32>| v.map_or("NULL".into(), |v| v.to_string());
        for (table, rows) in [("item", &self.items), ("note", &self.notes)] {
            for row in rows {
                // The CHECK holds for what is there.
                let flag = row.flag && (row.holder.is_some() || !self.flagged_must_have_one);
                let _ = writeln!(
                    sql,
                    "INSERT INTO {table} VALUES ({}, {}, {}, {flag});",
                    row.id,
                    value(row.tenant),
                    value(row.holder)
                );
            }
        }
        if self.foreign_key {
            sql.push_str("ALTER TABLE item ADD FOREIGN KEY (holder_id) REFERENCES holder NOT VALID;\n");
        }
        sql
    }

    fn is_orphan(&self, row: &Row) -> bool {
        row.holder.is_some_and(|key| !self.holders.contains_key(&key))
    }

    fn is_chosen(&self, row: &Row) -> bool {
        let violates = match self.cross_tenant {
            false => self.is_orphan(row),
            true => {
                let theirs = row.holder.and_then(|key| self.holders.get(&key));
                theirs.is_some_and(|theirs| row.tenant.is_some_and(|own| own != *theirs))
            }
        };
        violates && (!self.only_where || row.id % 2 == 0)
    }

    /// What becomes of each row that is to be repaired.
    fn outcome(&self, row: &Row) -> &'static str {
        if self.action != "create_parent" {
            return match row.flag && self.flagged_must_have_one {
                true => "constraint_failed",
                false => "repaired",
            };
        }
        // All rows that mean the key, wherever they are and whether they are to be repaired or not.
        let same = |other: &&Row| other.holder == row.holder;
        let all = self.items.iter().filter(same).chain(self.notes.iter().filter(same));
        let tenants: BTreeSet<i32> = all.filter_map(|other| other.tenant).collect();
        let mine: BTreeSet<i32> = self
            .items
            .iter()
            .filter(same)
            .filter(|other| self.is_chosen(other))
            .filter_map(|other| other.tenant)
            .collect();
        match (mine.len(), tenants.len()) {
            (0, _) => "tenant_unknown",
            (_, 2..) => "two_tenants",
            _ if self
                .limit
                .is_some_and(|limit| row.holder.is_some_and(|key| key >= limit)) =>
            {
                "constraint_failed"
            }
            _ => "repaired",
        }
    }

    fn expected(&self) -> String {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for row in self.items.iter().filter(|row| self.is_chosen(row)) {
            *reasons.entry(self.outcome(row)).or_default() += 1;
        }
        let violations: usize = reasons.values().sum();
        let repaired = reasons.remove("repaired").unwrap_or(0);
        let keys: BTreeSet<Option<i32>> = self
            .items
            .iter()
            .filter(|row| self.is_chosen(row) && self.outcome(row) == "repaired")
            .map(|row| row.holder)
            .collect();
        let created = if self.action == "create_parent" { keys.len() } else { 0 };
        format!(
            "{violations}|{repaired}|{created}|{}",
            serde_json::to_string(&reasons).unwrap()
        )
    }

    fn contents_expected(&self) -> Vec<String> {
        let shown = |v: Option<i32>| v.map_or("-".into(), |v| v.to_string());
        let mut lines: Vec<String> = self
            .items
            .iter()
            .map(|row| {
                let gone = self.action != "create_parent" && self.is_chosen(row) && self.outcome(row) == "repaired";
                let holder = if gone { None } else { row.holder };
                format!("item {}|{}|{}", row.id, shown(row.tenant), shown(holder))
            })
            .collect();
        let mut holders = self.holders.clone();
        if self.action == "create_parent" {
            for row in self
                .items
                .iter()
                .filter(|row| self.is_chosen(row) && self.outcome(row) == "repaired")
            {
                if let (Some(key), Some(tenant)) = (row.holder, row.tenant) {
                    holders.insert(key, tenant);
                }
            }
        }
        lines.extend(holders.iter().map(|(id, tenant)| format!("holder {id}|{tenant}|-")));
        lines.extend(
            self.notes
                .iter()
                .map(|row| format!("note {}|{}|{}", row.id, shown(row.tenant), shown(row.holder))),
        );
        lines.sort();
        lines
    }
}

fn contents(client: &mut Client) -> Vec<String> {
    let mut all = lines(
        client,
        "SELECT 'item ' || id, tenant_id, holder_id FROM item UNION ALL SELECT 'holder ' || id, tenant_id, NULL FROM holder
         UNION ALL SELECT 'note ' || id, tenant_id, holder_id FROM note",
    );
    all.sort();
    all
}

#[test]
fn every_repair_is_that_of_the_model_1() {
    every_repair_is_that_of_the_model(0);
}

#[test]
fn every_repair_is_that_of_the_model_2() {
    every_repair_is_that_of_the_model(1);
}

fn every_repair_is_that_of_the_model(part: u64) {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    let cases = pgrx_tests::cases(150, part);
    let many = cases.len() > 1;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in cases {
        let case = case(seed);
        let place = format!("repair_{seed}");
        client
            .batch_execute(&format!(
                "CREATE SCHEMA {place}; SET search_path = {place}; {}",
                case.sql()
            ))
            .unwrap_or_else(|e| panic!("case {seed}: {e:?}\n{}", case.sql()));
        let before = contents(&mut client);
        let crossed = crossing(&mut client, "tenants");
        let call = |dry_run: bool| {
            format!(
                "SELECT violations, repaired, created, reasons::text, run_id FROM public.repair_orphans('item', 'holder_id', '{}', {dry_run},
                   root => 'tenants'{}{})",
                case.action,
                if case.cross_tenant { ", violation => 'cross_tenant'" } else { "" },
                if case.only_where { ", only_where => 'id % 2 = 0'" } else { "" },
            )
        };
        let run = |client: &mut Client, dry_run: bool| -> (String, Option<String>) {
            let line = lines(client, &call(dry_run)).remove(0);
            let (numbers, id) = line.rsplit_once('|').unwrap();
            (
                numbers.replace("\": ", "\":").replace(", \"", ",\""),
                (id != "-").then(|| id.to_string()),
            )
        };
        let context = || format!("case {seed}: {case:?}\n{}", case.sql());
        client.batch_execute("BEGIN READ ONLY").unwrap();
        assert_eq!(
            run(&mut client, true).0,
            sorted(&case.expected()),
            "dry run, {}",
            context()
        );
        client.batch_execute("COMMIT").unwrap();
        assert_eq!(contents(&mut client), before, "{}", context());
        let (numbers, id) = run(&mut client, false);
        assert_eq!(numbers, sorted(&case.expected()), "{}", context());
        assert_eq!(contents(&mut client), case.contents_expected(), "{}", context());
        nothing_crosses_now(&mut client, "tenants", &crossed, &context());
        // A second run finds what is left, and changes nothing.
        run(&mut client, false);
        assert_eq!(contents(&mut client), case.contents_expected(), "{}", context());
        let id = id.unwrap();
        let kept = lines(
            &mut client,
            &format!("SELECT row_values IS NOT NULL, count(*) FROM mend.repaired_rows WHERE run_id = {id} GROUP BY 1"),
        );
        let repaired: usize = numbers.split('|').nth(1).unwrap().parse().unwrap();
        match case.action {
            "create_parent" => assert!(kept.is_empty(), "{}", context()),
            _ if repaired == 0 => assert!(kept.is_empty(), "{}", context()),
            action => {
                let with_copy = if action == "quarantine" { "t" } else { "f" };
                assert_eq!(kept, [format!("{with_copy}|{repaired}")], "{}", context());
                if !case.foreign_key || case.cross_tenant {
                    client
                        .batch_execute(&format!("SELECT public.restore_repaired({id}, false)"))
                        .unwrap();
                    assert_eq!(contents(&mut client), before, "restored, {}", context());
                }
            }
        }
        for part in numbers.split(['{', '}', ',', ':', '"', '|']).filter(|p| p.len() > 5) {
            *seen.entry(part.to_string()).or_default() += 1;
        }
        *seen.entry(format!("{} {}", case.action, repaired > 0)).or_default() += 1;
        client
            .batch_execute(&format!("SET client_min_messages = error; DROP SCHEMA {place} CASCADE"))
            .unwrap();
    }
    // Every outcome occurred, or the test has proved nothing about it.
    for what in [
        "constraint_failed",
        "two_tenants",
        "tenant_unknown",
        "nullify true",
        "quarantine true",
        "create_parent true",
    ] {
        assert!(!many || seen.contains_key(what), "{what} did not occur: {seen:?}");
    }
}

/// jsonb orders keys by length first.
fn sorted(line: &str) -> String {
    let (numbers, reasons) = line.split_at(line.find('{').unwrap());
    let map: BTreeMap<String, usize> = serde_json::from_str(reasons).unwrap();
    let mut pairs: Vec<(&String, &usize)> = map.iter().collect();
    pairs.sort_by_key(|(name, _)| (name.len(), name.as_str()));
    let pairs: Vec<String> = pairs.iter().map(|(name, rows)| format!("\"{name}\":{rows}")).collect();
    format!("{numbers}{{{}}}", pairs.join(","))
}
