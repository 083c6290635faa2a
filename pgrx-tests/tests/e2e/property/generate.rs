//! Random schemas and rows: odd names, keys of every kind, constraints that refuse some values.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Row, Value};

/// Names that a careless generator of SQL trips over.
pub(super) const NAMES: &[&str] = &[
    "Odd Name",
    "select",
    "Ünï",
    "a\"b",
    "x.y",
    "MixedCase",
    "lower_case",
    "semi;colon",
    "it's",
    "$1",
    "%s",
    "back\\slash",
    "a->b",
    "order",
    "trailing ",
    "(paren)",
    "comma,",
    "t",
    "found",
    "value",
    "outcome",
    "derived",
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Int,
    Text,
    Uuid,
}

impl Kind {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Kind::Int => "integer",
            Kind::Text => "text",
            Kind::Uuid => "uuid",
        }
    }

    /// The n-th value of the type, as Postgres prints it.
    pub(super) fn value(self, n: u32) -> String {
        match self {
            Kind::Int => n.to_string(),
            Kind::Text => format!("k{n}"),
            Kind::Uuid => format!("00000000-0000-0000-0000-{n:012}"),
        }
    }
}

/// One parent on a path.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) table: String,
    /// Names of the key columns (one, or tenant and reference).
    pub(super) key: Vec<String>,
    /// The column taken from it.
    pub(super) taken: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Source {
    /// Columns of the target.
    pub(super) columns: Vec<String>,
    pub(super) hops: Vec<Hop>,
}

#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) foreign_key: bool,
    pub(super) check: bool,
    /// `varchar(2)`, or a domain over text.
    pub(super) limited: bool,
    pub(super) domain: bool,
    pub(super) unique: bool,
    /// The unique index holds only where `flag` is not 0.
    pub(super) partial: bool,
}

/// A whole case: schema, rows, and the call.
pub(super) struct Case {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) tenant_column: Option<String>,
    pub(super) kind: Kind,
    pub(super) sources: Vec<Source>,
    pub(super) party: String,
    pub(super) party_rows: HashMap<String, Value>,
    /// Target table's parent that knows the tenant, if the target does not itself.
    pub(super) holder_rows: HashMap<String, Value>,
    pub(super) rows: Vec<Row>,
    pub(super) checks: Checks,
    pub(super) on_conflict: &'static str,
    pub(super) only_where: bool,
    pub(super) guard: bool,
    /// Values that are there may be replaced.
    pub(super) overwrite: bool,
    pub(super) tenant: Option<String>,
    pub(super) sql: String,
    pub(super) root: String,
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn literal(value: &Value) -> String {
    value.as_ref().map_or("NULL".into(), |v| {
        format!("E'{}'", v.replace('\\', "\\\\").replace('\'', "''"))
    })
}

pub(super) fn pick(rng: &mut StdRng, used: &mut HashSet<String>) -> String {
    let base = (*NAMES.choose(rng).unwrap()).to_string();
    let name = if used.contains(&base) {
        format!("{base}{}", used.len())
    } else {
        base
    };
    used.insert(name.clone());
    name
}

pub(super) fn maybe(rng: &mut StdRng, chance: f64, value: impl FnOnce(&mut StdRng) -> String) -> Value {
    if rng.random_bool(chance) {
        Some(value(rng))
    } else {
        None
    }
}

impl Case {
    pub(super) fn generate(seed: u64) -> Case {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let mut tables = HashSet::new();
        let mut sql = String::new();
        let kind = *[Kind::Int, Kind::Text, Kind::Uuid].choose(rng).unwrap();
        let tenants = 3;
        // Not one of the names above: a column of the same name would be a tenant key of its own.
        let root = "Root of \"all\"".to_string();
        tables.insert(root.clone());
        let _ = writeln!(sql, "CREATE TABLE {} (id integer PRIMARY KEY);", quoted(&root));
        for t in 1..=tenants {
            let _ = writeln!(sql, "INSERT INTO {} VALUES ({t});", quoted(&root));
        }
        let tenant = |rng: &mut StdRng| rng.random_range(1..=tenants).to_string();

        // The row that a value means.
        let party = pick(rng, &mut tables);
        let party_tenant = pick(rng, &mut HashSet::from(["id".to_string()]));
        let _ = writeln!(
            sql,
            "CREATE TABLE {} (id {} PRIMARY KEY, {} integer REFERENCES {});",
            quoted(&party),
            kind.sql(),
            quoted(&party_tenant),
            quoted(&root)
        );
        let mut party_rows = HashMap::new();
        for n in 1..=14 {
            let own = maybe(rng, 0.9, tenant);
            let id = kind.value(n);
            let _ = writeln!(
                sql,
                "INSERT INTO {} VALUES ({}, {});",
                quoted(&party),
                literal(&Some(id.clone())),
                literal(&own)
            );
            party_rows.insert(id, own);
        }

        let checks = Checks {
            foreign_key: rng.random_bool(0.6),
            check: rng.random_bool(0.4),
            limited: kind == Kind::Text && rng.random_bool(0.3),
            domain: kind == Kind::Text && rng.random_bool(0.3),
            unique: rng.random_bool(0.4),
            partial: rng.random_bool(0.5),
        };

        // The target, and whose its rows are.
        let table = pick(rng, &mut tables);
        let mut columns = HashSet::from(["id".to_string(), "flag".into(), "grp".into(), "holder_id".into()]);
        let column = pick(rng, &mut columns);
        let direct = rng.random_bool(0.6);
        let tenant_column = direct.then(|| pick(rng, &mut columns));
        let holder = pick(rng, &mut tables);
        let mut holder_rows = HashMap::new();
        let _ = writeln!(
            sql,
            "CREATE TABLE {} (id integer PRIMARY KEY, whose integer REFERENCES {});",
            quoted(&holder),
            quoted(&root)
        );
        for n in 1..=4 {
            let own = maybe(rng, 0.9, tenant);
            let _ = writeln!(sql, "INSERT INTO {} VALUES ({n}, {});", quoted(&holder), literal(&own));
            holder_rows.insert(n.to_string(), own);
        }

        // Sources of one to three hops, keys of every type, some composite, some not unique.
        let mut sources = Vec::new();
        let mut source_columns: Vec<(String, Kind)> = Vec::new();
        for _ in 0..rng.random_range(1..=3) {
            let composite = tenant_column.is_some() && rng.random_bool(0.2);
            let mut from = Vec::new();
            let own = pick(rng, &mut columns);
            let mut key_kind = *[Kind::Int, Kind::Text, Kind::Uuid].choose(rng).unwrap();
            if composite {
                from.push(tenant_column.clone().unwrap());
            }
            from.push(own.clone());
            source_columns.push((own, key_kind));
            let mut hops = Vec::new();
            let length = if rng.random_bool(0.1) {
                0
            } else {
                rng.random_range(1..=3)
            };
            if length == 0 {
                // A column of the row itself: then it has the type of the target.
                source_columns.last_mut().unwrap().1 = kind;
                sources.push(Source {
                    columns: vec![from.pop().unwrap()],
                    hops,
                });
                continue;
            }
            for h in 0..length {
                let last = h == length - 1;
                let name = pick(rng, &mut tables);
                let mut names = HashSet::new();
                let mut key: Vec<String> = Vec::new();
                if composite && h == 0 {
                    key.push(pick(rng, &mut names));
                }
                key.push(pick(rng, &mut names));
                let taken = pick(rng, &mut names);
                let unique = rng.random_bool(0.75);
                let taken_kind = if last {
                    kind
                } else {
                    *[Kind::Int, Kind::Text, Kind::Uuid].choose(rng).unwrap()
                };
                let mut defined: Vec<String> = Vec::new();
                if key.len() == 2 {
                    defined.push(format!("{} integer NOT NULL", quoted(&key[0])));
                }
                defined.push(format!("{} {} NOT NULL", quoted(key.last().unwrap()), key_kind.sql()));
                defined.push(format!("{} {}", quoted(&taken), taken_kind.sql()));
                if unique {
                    let list: Vec<String> = key.iter().map(|k| quoted(k)).collect();
                    defined.push(format!(
                        "{} ({})",
                        if rng.random_bool(0.5) { "PRIMARY KEY" } else { "UNIQUE" },
                        list.join(", ")
                    ));
                }
                let _ = writeln!(sql, "CREATE TABLE {} ({});", quoted(&name), defined.join(", "));
                let mut rows: Vec<Row> = Vec::new();
                let mut seen = HashSet::new();
                for _ in 0..rng.random_range(0..10) {
                    let mut row = Row::new();
                    if key.len() == 2 {
                        row.insert(key[0].clone(), Some(tenant(rng)));
                    }
                    row.insert(
                        key.last().unwrap().clone(),
                        Some(key_kind.value(rng.random_range(1..7))),
                    );
                    let greatest = if last { 16 } else { 7 };
                    let value = maybe(rng, 0.85, |rng| taken_kind.value(rng.random_range(1..greatest)));
                    row.insert(taken.clone(), value);
                    let identity: Vec<Value> = key.iter().map(|k| row[k].clone()).collect();
                    if unique && !seen.insert(identity) {
                        continue;
                    }
                    let values: Vec<String> = key.iter().chain([&taken]).map(|c| literal(&row[c])).collect();
                    let _ = writeln!(sql, "INSERT INTO {} VALUES ({});", quoted(&name), values.join(", "));
                    rows.push(row);
                }
                hops.push(Hop {
                    table: name,
                    key,
                    taken,
                    rows,
                });
                key_kind = taken_kind;
            }
            sources.push(Source { columns: from, hops });
        }

        let column_type = match (checks.limited, checks.domain) {
            (true, _) => "varchar(2)".to_string(),
            (_, true) => {
                let _ = writeln!(
                    sql,
                    "CREATE DOMAIN \"Short Text\" AS text CONSTRAINT \"no three\" CHECK (VALUE NOT LIKE '%3');"
                );
                "\"Short Text\"".into()
            }
            _ => kind.sql().into(),
        };
        let mut defined = vec![
            "id integer PRIMARY KEY".to_string(),
            "flag integer".into(),
            "grp integer".into(),
            format!("holder_id integer REFERENCES {}", quoted(&holder)),
        ];
        if let Some(own) = &tenant_column {
            defined.push(format!("{} integer REFERENCES {}", quoted(own), quoted(&root)));
        }
        let at = rng.random_range(0..=defined.len());
        defined.insert(at, format!("{} {column_type}", quoted(&column)));
        defined.extend(
            source_columns
                .iter()
                .map(|(name, kind)| format!("{} {}", quoted(name), kind.sql())),
        );
        if checks.check {
            defined.push(format!(
                "CONSTRAINT \"odd check's\" CHECK ({} IS NULL OR flag <> 2)",
                quoted(&column)
            ));
        }
        let _ = writeln!(sql, "CREATE TABLE {} ({});", quoted(&table), defined.join(", "));
        if checks.unique {
            let predicate = if checks.partial { " WHERE flag <> 0" } else { "" };
            let _ = writeln!(
                sql,
                "CREATE UNIQUE INDEX one_each ON {} (grp, {}){predicate};",
                quoted(&table),
                quoted(&column)
            );
        }

        let mut rows: Vec<Row> = Vec::new();
        let mut taken: HashSet<(Value, Value)> = HashSet::new();
        for id in 1..=rng.random_range(0..45u32) {
            let mut row = Row::from([("id".to_string(), Some(id.to_string()))]);
            row.insert("flag".into(), maybe(rng, 0.9, |rng| rng.random_range(0..4).to_string()));
            row.insert("grp".into(), maybe(rng, 0.9, |rng| rng.random_range(1..4).to_string()));
            row.insert(
                "holder_id".into(),
                maybe(rng, 0.9, |rng| rng.random_range(1..=4).to_string()),
            );
            if let Some(own) = &tenant_column {
                row.insert(own.clone(), maybe(rng, 0.9, tenant));
            }
            for (name, kind) in &source_columns {
                row.insert(name.clone(), maybe(rng, 0.7, |rng| kind.value(rng.random_range(1..9))));
            }
            // What stands there already obeys the constraints.
            let mut present = maybe(rng, 0.15, |rng| kind.value(rng.random_range(1..10)));
            let bad = present.as_ref().is_some_and(|v| {
                (checks.check && row["flag"].as_deref() == Some("2"))
                    || (checks.limited && v.len() > 2)
                    || (checks.domain && v.ends_with('3'))
            });
            let in_index = !checks.partial || row["flag"].as_ref().is_some_and(|f| f != "0");
            if bad
                || (checks.unique
                    && in_index
                    && present.is_some()
                    && row["grp"].is_some()
                    && !taken.insert((row["grp"].clone(), present.clone())))
            {
                present = None;
            }
            row.insert(column.clone(), present);
            let (names, values): (Vec<String>, Vec<String>) = row.iter().map(|(c, v)| (quoted(c), literal(v))).unzip();
            let _ = writeln!(
                sql,
                "INSERT INTO {} ({}) VALUES ({});",
                quoted(&table),
                names.join(", "),
                values.join(", ")
            );
            rows.push(row);
        }
        if checks.foreign_key {
            let _ = writeln!(
                sql,
                "ALTER TABLE {} ADD CONSTRAINT \"to party\" FOREIGN KEY ({}) REFERENCES {};",
                quoted(&table),
                quoted(&column),
                quoted(&party)
            );
        }
        let guard = rng.random_bool(0.8);
        let overwrite = rng.random_bool(0.7);
        let tenant_filter = (checks.foreign_key && rng.random_bool(0.15)).then(|| tenant(rng));
        Case {
            on_conflict: ["skip", "first", "any_two"].choose(rng).unwrap(),
            only_where: rng.random_bool(0.3),
            tenant: tenant_filter,
            guard,
            overwrite,
            table,
            column,
            tenant_column,
            kind,
            sources,
            party,
            party_rows,
            holder_rows,
            rows,
            checks,
            sql,
            root,
        }
    }

    pub(super) fn paths(&self) -> Vec<String> {
        let list = |names: &[String]| {
            let all: Vec<String> = names.iter().map(|n| quoted(n)).collect();
            if all.len() == 1 {
                all[0].clone()
            } else {
                format!("({})", all.join(", "))
            }
        };
        self.sources
            .iter()
            .map(|source| {
                let mut path = list(&source.columns);
                for hop in &source.hops {
                    let key: Vec<String> = hop.key.iter().map(|k| quoted(k)).collect();
                    let _ = write!(
                        path,
                        " -> {}({}).{}",
                        quoted(&hop.table),
                        key.join(", "),
                        quoted(&hop.taken)
                    );
                }
                path
            })
            .collect()
    }
}
