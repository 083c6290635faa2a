//! Random schemas and broken rows against one query per check, written row by row with scalar subqueries. `MEND_CASES` sets the
//! number of cases, `MEND_CASE` runs one.

use std::fmt::Write;

use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How a reference is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Valid,
    NotValid,
    /// Only its name says so.
    Named,
    /// (tenant_id, x) -> (tenant_id, id)
    Composite {
        full: bool,
    },
    /// To a column that is not unique, declared to pg_mend.
    Soft,
}

#[derive(Debug, Clone)]
struct Reference {
    column: String,
    parent: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
struct Table {
    name: String,
    /// It has a tenant_id; may be NULL?
    key: Option<bool>,
    /// Without a key: the tenant comes along `references[0]`, which is NOT NULL and valid.
    through: bool,
    references: Vec<Reference>,
}

struct Schema {
    tables: Vec<Table>,
    sql: String,
}

fn schema(seed: u64) -> Schema {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tables: Vec<Table> = Vec::new();
    let mut sql =
        String::from("CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2), (3);\n");
    for t in 0..random.random_range(2..6) {
        let keyed: Vec<usize> = (0..tables.len()).filter(|p| tables[*p].key.is_some()).collect();
        // The first two have keys, so that others have something to hang on; a few are everybody's.
        let (key, through) = match random.random_range(0..6) {
            _ if t < 1 => (Some(false), false),
            0 | 1 if !keyed.is_empty() => (None, true),
            2 => (None, false),
            n => (Some(n == 3), false),
        };
        let mut references = Vec::new();
        if through {
            references.push(Reference {
                column: "owner".into(),
                parent: keyed[random.random_range(0..keyed.len())],
                kind: Kind::Valid,
            });
        }
        // A table that is everybody's leads nowhere, but to others that are.
        let parents: Vec<usize> = (0..tables.len())
            .filter(|p| key.is_some() || through || (tables[*p].key.is_none() && !tables[*p].through))
            .filter(|p| !through || tables[*p].key.is_some() || !tables[*p].through)
            .collect();
        for r in 0..random.random_range(0..4) {
            if parents.is_empty() {
                break;
            }
            let parent = parents[random.random_range(0..parents.len())];
            let composite = key.is_some() && tables[parent].key.is_some();
            let kind = match random.random_range(0..7) {
                0 | 1 => Kind::Valid,
                2 => Kind::NotValid,
                3 => Kind::Named,
                4 if composite => Kind::Composite {
                    full: random.random_bool(0.5),
                },
                _ => Kind::Soft,
            };
            // A way that only a name knows would be a second one to the tenant.
            if through && kind == Kind::Named && tables[parent].key.is_some() {
                continue;
            }
            let column = match kind {
                Kind::Named
                    if references
                        .iter()
                        .any(|known: &Reference| known.column == format!("{}_id", tables[parent].name)) =>
                {
                    continue;
                }
                Kind::Named => format!("{}_id", tables[parent].name),
                _ => format!("r{r}"),
            };
            references.push(Reference { column, parent, kind });
        }
        let name = format!("item{}", char::from(b'a' + t as u8));
        let mut columns = vec!["id int PRIMARY KEY".to_string(), "code int".into()];
        let mut after = String::new();
        if let Some(nullable) = key {
            let not_null = if nullable { "" } else { " NOT NULL" };
            columns.push(format!("tenant_id int{not_null} REFERENCES tenants"));
            columns.push("UNIQUE (tenant_id, id)".into());
        }
        for (i, reference) in references.iter().enumerate() {
            let parent = &tables[reference.parent].name;
            let not_null = if through && i == 0 { " NOT NULL" } else { "" };
            columns.push(match reference.kind {
                Kind::Valid => format!("{} int{not_null} REFERENCES {parent}", reference.column),
                _ => format!("{} int", reference.column),
            });
            let column = &reference.column;
            let _ = match reference.kind {
                Kind::NotValid => writeln!(
                    after,
                    "ALTER TABLE {name} ADD FOREIGN KEY ({column}) REFERENCES {parent} NOT VALID;"
                ),
                Kind::Composite { full } => writeln!(
                    after,
                    "ALTER TABLE {name} ADD FOREIGN KEY (tenant_id, {column}) REFERENCES {parent} (tenant_id, id){};",
                    if full { " MATCH FULL" } else { "" }
                ),
                Kind::Soft => writeln!(
                    after,
                    "SELECT public.declare_reference('{name}', '{column}', '{parent}(code)');"
                ),
                _ => Ok(()),
            };
        }
        let _ = write!(sql, "CREATE TABLE {name} ({});\n{after}", columns.join(", "));
        let rows = if random.random_bool(0.1) {
            0
        } else {
            random.random_range(1..25)
        };
        sql.push_str("SET session_replication_role = replica;\n");
        for id in 1..=rows {
            let mut values = vec![id.to_string(), random.random_range(1..6).to_string()];
            if let Some(nullable) = key {
                values.push(match nullable && random.random_bool(0.2) {
                    true => "NULL".into(),
                    false => random.random_range(1..4).to_string(),
                });
            }
            for (i, _) in references.iter().enumerate() {
                let null = !(through && i == 0) && random.random_bool(0.2);
                values.push(if null {
                    "NULL".into()
                } else {
                    random.random_range(1..27).to_string()
                });
            }
            let _ = writeln!(sql, "INSERT INTO {name} VALUES ({});", values.join(", "));
        }
        sql.push_str("RESET session_replication_role;\n");
        tables.push(Table {
            name,
            key,
            through,
            references,
        });
    }
    Schema { tables, sql }
}

impl Schema {
    /// The tenant of the row `alias` of table `t`, as a scalar expression; `None`: everybody's.
    fn tenant(&self, t: usize, alias: &str) -> Option<String> {
        let table = &self.tables[t];
        if table.key.is_some() {
            return Some(format!("{alias}.tenant_id"));
        }
        if !table.through {
            return None;
        }
        // Along each valid reference to a table with a key, the first that gives one; behind one that always does, nobody asks.
        let mut ways = Vec::new();
        let mut order: Vec<&Reference> = table.references[1..]
            .iter()
            .filter(|r| matches!(r.kind, Kind::Valid | Kind::NotValid) && self.tables[r.parent].key.is_some())
            .collect();
        // Keys that cannot be NULL first, then the earlier column.
        order.sort_by_key(|r| self.tables[r.parent].key);
        for reference in [&table.references[0]].into_iter().chain(order) {
            let parent = &self.tables[reference.parent];
            ways.push(format!(
                "(SELECT w.tenant_id FROM {} w WHERE w.id = {alias}.{})",
                parent.name, reference.column
            ));
            if ways.len() == 1 && parent.key == Some(false) {
                break;
            }
        }
        Some(format!("coalesce({})", ways.join(", ")))
    }

    fn expected(&self, client: &mut Client, t: usize, reference: &Reference) -> Vec<Option<i64>> {
        let (child, parent) = (&self.tables[t], &self.tables[reference.parent]);
        let column = &reference.column;
        let (set, matches) = match reference.kind {
            Kind::Composite { full: true } => (
                format!("(c.tenant_id IS NOT NULL OR c.{column} IS NOT NULL)"),
                format!("p.tenant_id = c.tenant_id AND p.id = c.{column}"),
            ),
            Kind::Composite { full: false } => (
                format!("c.tenant_id IS NOT NULL AND c.{column} IS NOT NULL"),
                format!("p.tenant_id = c.tenant_id AND p.id = c.{column}"),
            ),
            Kind::Soft => (format!("c.{column} IS NOT NULL"), format!("p.code = c.{column}")),
            _ => (format!("c.{column} IS NOT NULL"), format!("p.id = c.{column}")),
        };
        let mut count = |condition: String| -> Option<i64> {
            let sql = format!("SELECT count(*) FROM {} c WHERE {condition}", child.name);
            Some(
                client
                    .query_one(&sql, &[])
                    .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
                    .get(0),
            )
        };
        let exists = |and: &str| format!("EXISTS (SELECT FROM {} p WHERE {matches} {and})", parent.name);
        let mut numbers = vec![count(set.clone()), count(format!("{set} AND NOT {}", exists("")))];
        match (self.tenant(t, "c"), self.tenant(reference.parent, "p")) {
            (Some(own), Some(other)) => {
                let same = exists(&format!("AND {other} = {own}"));
                let known = exists(&format!("AND {other} IS NOT NULL"));
                numbers.push(count(format!("{own} IS NOT NULL AND {known} AND NOT {same}")));
                numbers.push(count(format!("{set} AND {own} IS NULL")));
                numbers.push(count(format!("{} AND NOT {known}", exists(""))));
            }
            _ => numbers.extend([None, None, None]),
        }
        numbers
    }
}

#[test]
fn every_number_is_that_of_one_query_per_check_1() {
    every_number_is_that_of_one_query_per_check(0);
}

#[test]
fn every_number_is_that_of_one_query_per_check_2() {
    every_number_is_that_of_one_query_per_check(1);
}

fn every_number_is_that_of_one_query_per_check(part: u64) {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    let cases = pgrx_tests::cases(150, part);
    let many = cases.len() > 1;
    let mut seen = [0i64; 5];
    for seed in cases {
        let schema = schema(seed);
        let place = format!("validate_{seed}");
        client
            .batch_execute(&format!(
                "CREATE SCHEMA {place}; SET search_path = {place}; {}",
                schema.sql
            ))
            .unwrap_or_else(|e| panic!("case {seed}: {e:?}\n{}", schema.sql));
        let rows = client
            .query(
                "SELECT * FROM public.validate_tenant_fks('tenants', samples => 100)",
                &[],
            )
            .unwrap_or_else(|e| panic!("case {seed}: {e:?}\n{}", schema.sql));
        let mut references = 0;
        for (t, table) in schema.tables.iter().enumerate() {
            references += usize::from(table.key.is_some());
            for reference in &table.references {
                references += 1;
                let shown = match reference.kind {
                    Kind::Composite { .. } => format!("(tenant_id, {})", reference.column),
                    _ => reference.column.clone(),
                };
                let row = rows
                    .iter()
                    .find(|row| {
                        row.get::<_, String>("table_name") == table.name && row.get::<_, String>("column_name") == shown
                    })
                    .unwrap_or_else(|| panic!("case {seed}: {}.{shown} was not checked\n{}", table.name, schema.sql));
                let numbers: Vec<Option<i64>> = [
                    "rows_checked",
                    "orphans",
                    "cross_tenant",
                    "null_tenant",
                    "parent_null_tenant",
                ]
                .iter()
                .map(|name| row.get::<_, Option<i64>>(*name))
                .collect();
                let expected = schema.expected(&mut client, t, reference);
                assert_eq!(numbers, expected, "case {seed}: {}.{shown}\n{}", table.name, schema.sql);
                let bad = expected[1..].iter().flatten().sum::<i64>();
                let verdict = match (bad, expected[0]) {
                    (1.., _) => "violations",
                    (_, Some(0)) => "not_checked",
                    _ => "ok",
                };
                assert_eq!(
                    row.get::<_, String>("verdict"),
                    verdict,
                    "case {seed}: {}.{shown}",
                    table.name
                );
                let sample: Option<serde_json::Value> = row.get("sample");
                let keys = |kind: &str| {
                    sample
                        .as_ref()
                        .and_then(|s| s[kind].as_array())
                        .map_or(0, |keys| keys.len() as i64)
                };
                for (at, kind) in ["orphans", "cross_tenant", "null_tenant", "parent_null_tenant"]
                    .iter()
                    .enumerate()
                {
                    assert_eq!(
                        keys(kind),
                        expected[at + 1].unwrap_or(0),
                        "case {seed}: sample of {kind}, {}.{shown}",
                        table.name
                    );
                }
                for (total, number) in seen.iter_mut().zip(&expected) {
                    *total += number.unwrap_or(0);
                }
            }
        }
        let total = rows.last().unwrap();
        assert_eq!(total.get::<_, String>("table_name"), "total");
        assert_eq!(rows.len(), references + 1, "case {seed}: {}", schema.sql);
        client
            .batch_execute(&format!(
                "SET client_min_messages = error; DROP SCHEMA {place} CASCADE; DELETE FROM mend.ledger_references"
            ))
            .unwrap();
    }
    // Every kind of number occurred, or the test has proved nothing about it.
    assert!(!many || seen.iter().all(|n| *n > 0), "{seen:?}");
}
