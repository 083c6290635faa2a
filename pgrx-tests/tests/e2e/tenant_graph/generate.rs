//! Random databases: a table of tenants, tables that hang on each other, rows that are half filled.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// A reference of one table to another (or to itself).
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) column: String,
    pub(super) parent: usize,
    pub(super) not_null: bool,
    pub(super) cascades: bool,
    /// There is a foreign key; else only the name says it, and values may dangle.
    pub(super) declared: bool,
}

/// One table; its first column is `id`, its key to the tenant (if it has one) the last.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) key: Option<Key>,
    pub(super) references: Vec<Reference>,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) column: String,
    pub(super) not_null: bool,
    pub(super) declared: bool,
}

/// A row: its references in the order of the table's, and its tenant.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i32,
    pub(super) references: Vec<Option<i32>>,
    pub(super) tenant: Option<i32>,
}

/// A whole database, and the call.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    pub(super) tables: Vec<Table>,
    pub(super) on_conflict: &'static str,
    pub(super) overwrite: bool,
    pub(super) tenant: Option<i32>,
    /// Tables may hang on each other in a circle.
    pub(super) circles: bool,
}

const TENANTS: i32 = 3;

impl Graph {
    pub(super) fn generate(seed: u64, circles: bool) -> Graph {
        let rng = &mut StdRng::seed_from_u64(seed);
        let count = rng.random_range(2..=8);
        let mut tables: Vec<Table> = Vec::new();
        for t in 0..count {
            let mut references: Vec<Reference> = Vec::new();
            for r in 0..rng.random_range(0..=3) {
                let others = if circles { count } else { t };
                let own = rng.random_bool(0.15);
                if !own && (others == 0 || circles && others == 1) {
                    continue;
                }
                let parent = if own { t } else { rng.random_range(0..others) };
                let declared = parent == t || rng.random_bool(0.7);
                references.push(Reference {
                    column: format!("r{r}_t{parent}_id"),
                    not_null: parent < t && rng.random_bool(0.4),
                    cascades: declared && rng.random_bool(0.3),
                    parent,
                    declared,
                });
            }
            // The first table always has one: something must reference the tenants.
            let key = (t == 0 || rng.random_bool(0.7)).then(|| Key {
                column: (*["tenant_id", "tenant_id", "tenantId", "Owner of it"]
                    .choose(rng)
                    .unwrap())
                .to_string(),
                not_null: rng.random_bool(0.2),
                declared: true,
            });
            let key = key.map(|key| Key {
                declared: key.column == "Owner of it" || t == 0 || rng.random_bool(0.8),
                ..key
            });
            tables.push(Table {
                name: format!("t{t}"),
                key,
                references,
                rows: vec![],
            });
        }
        for t in 0..count {
            let planned = rng.random_range(0..=12);
            for id in 1..=planned {
                let references = tables[t].references.clone();
                let values = references.iter().map(|r| {
                    // Rows of one table may hang on each other in any way, in circles too.
                    let parents = if r.parent == t {
                        planned
                    } else {
                        tables[r.parent].rows.len() as i32
                    };
                    let set = r.not_null || rng.random_bool(0.75);
                    match (set, r.declared, parents) {
                        (true, false, _) if rng.random_bool(0.4) => Some(900 + id),
                        (true, _, 1..) => Some(rng.random_range(1..=parents)),
                        _ => None,
                    }
                });
                let values: Vec<Option<i32>> = values.collect();
                // No row where a NOT NULL reference has nothing to point at.
                if references.iter().zip(&values).any(|(r, v)| r.not_null && v.is_none()) {
                    break;
                }
                let key = tables[t].key.clone();
                let tenant = key.filter(|k| k.not_null || rng.random_bool(if t == 0 { 0.8 } else { 0.3 }));
                let tenant = tenant.map(|_| rng.random_range(1..=TENANTS));
                tables[t].rows.push(Row {
                    id,
                    references: values,
                    tenant,
                });
            }
        }
        for (t, table) in tables.iter_mut().enumerate() {
            let last = table.rows.len() as i32;
            for (r, reference) in table
                .references
                .iter()
                .enumerate()
                .filter(|(_, r)| r.parent == t && r.declared)
            {
                assert!(!reference.not_null);
                for row in &mut table.rows {
                    row.references[r] = row.references[r].filter(|id| *id <= last);
                }
            }
        }
        Graph {
            tables,
            on_conflict: if rng.random_bool(0.7) { "skip" } else { "first" },
            overwrite: !circles && rng.random_bool(0.25),
            tenant: rng.random_bool(0.15).then(|| rng.random_range(1..=TENANTS)),
            circles,
        }
    }

    /// The statements that make it.
    pub(super) fn sql(&self) -> String {
        let mut sql = String::from("CREATE TABLE tenants (id integer PRIMARY KEY);\n");
        for t in 1..=TENANTS {
            writeln!(sql, "INSERT INTO tenants VALUES ({t});").unwrap();
        }
        for table in &self.tables {
            let mut columns = vec!["id integer PRIMARY KEY".to_string()];
            for r in &table.references {
                columns.push(format!(
                    "{} integer{}",
                    r.column,
                    if r.not_null { " NOT NULL" } else { "" }
                ));
            }
            if let Some(key) = &table.key {
                columns.push(format!(
                    "\"{}\" integer{}{}",
                    key.column,
                    if key.not_null { " NOT NULL" } else { "" },
                    if key.declared { " REFERENCES tenants" } else { "" }
                ));
            }
            writeln!(sql, "CREATE TABLE {} ({});", table.name, columns.join(", ")).unwrap();
        }
        let text = |value: &Option<i32>| value.map_or("NULL".into(), |v| v.to_string());
        for table in &self.tables {
            for row in &table.rows {
                let mut values = vec![row.id.to_string()];
                values.extend(row.references.iter().map(text));
                values.extend(table.key.as_ref().map(|_| text(&row.tenant)));
                writeln!(sql, "INSERT INTO {} VALUES ({});", table.name, values.join(", ")).unwrap();
            }
        }
        for table in &self.tables {
            for r in table.references.iter().filter(|r| r.declared) {
                let (column, parent) = (&r.column, &self.tables[r.parent].name);
                let action = if r.cascades { " ON DELETE CASCADE" } else { "" };
                writeln!(
                    sql,
                    "ALTER TABLE {} ADD FOREIGN KEY ({column}) REFERENCES {parent}{action};",
                    table.name
                )
                .unwrap();
            }
        }
        sql
    }
}
