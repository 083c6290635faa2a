//! Every call is asked for the tenant of every table, of the examples and of random schemas: all answers must be that of `tenant_columns`.
//!
//! Which rows lead to another tenant is counted by hand from that answer, and compared with the check.

use std::collections::BTreeMap;

use pgrx_tests::database_with;
use pgrx_tests::example::{lines, load_organizations, load_party, load_properties, one};
use postgres::Client;

/// What `tenant_columns` says of one table.
struct Answer {
    table: String,
    column: Option<String>,
    path: Option<String>,
    alternatives: usize,
    is_root: bool,
}

fn answers(client: &mut Client, root: &str) -> Vec<Answer> {
    let rows = client
        .query(
            "SELECT table_name, tenant_column, path, cardinality(alternatives), status = 'root' FROM public.tenant_columns($1)",
            &[&root],
        )
        .unwrap();
    rows.iter()
        .map(|row| Answer {
            table: row.get(0),
            column: row.get(1),
            path: row.get(2),
            alternatives: row.get::<_, Option<i32>>(3).unwrap_or(0) as usize,
            is_root: row.get(4),
        })
        .collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.trim_matches('"').replace('"', "\"\""))
}

/// The tenant of the row `alias` of a table, as SQL: its column, else along the one path; `None` where several are compared, or keys are
/// composite.
fn tenant_sql(client: &mut Client, answer: &Answer, alias: &str) -> Option<String> {
    if let Some(column) = &answer.column {
        return Some(format!("{alias}.{}", quoted(column)));
    }
    let path = answer.path.as_ref().filter(|_| answer.alternatives == 0)?;
    if path.contains('(') {
        return None;
    }
    let mut hops = path.split(" -> ");
    let mut value = format!("{alias}.{}", quoted(hops.next()?));
    for (at, hop) in hops.enumerate() {
        let (table, column) = hop.rsplit_once('.')?;
        let table = quoted(table);
        let key = one(
            client,
            &format!(
                "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                 WHERE i.indrelid = '{table}'::regclass AND i.indisprimary"
            ),
        );
        value = format!(
            "(SELECT h{at}.{} FROM {table} AS h{at} WHERE h{at}.{} = {value})",
            quoted(column),
            quoted(&key)
        );
    }
    Some(value)
}

/// Asks every call.
pub fn all_calls_agree(client: &mut Client, root: &str, context: &str) {
    client
        .execute("SELECT set_config('pg_mend.tenant_root', $1, false)", &[&root])
        .unwrap();
    let answers = answers(client, root);
    // One row per key: coverage and backfill name the same columns.
    let mut keys: Vec<String> = answers
        .iter()
        .filter(|answer| !answer.is_root)
        .filter_map(|answer| Some(format!("{}|{}", answer.table, answer.column.as_ref()?)))
        .collect();
    keys.sort();
    for call in [
        format!("SELECT table_name, tenant_column FROM public.backfill_coverage('{root}')"),
        format!("SELECT table_name, column_name FROM public.backfill_tenant_ids('{root}')"),
    ] {
        match client.simple_query(&call) {
            Ok(_) => {
                let mut told = lines(client, &call);
                told.retain(|line| {
                    answers
                        .iter()
                        .any(|a| !a.is_root && line.starts_with(&format!("{}|", a.table)))
                });
                told.sort();
                assert_eq!(told, keys, "{call}, {context}");
            }
            // Tables that take their tenant from each other in a circle have no order.
            Err(error) => assert_eq!(
                error.code().map(|c| c.code()),
                Some("42P17"),
                "{call}: {error:?}, {context}"
            ),
        }
    }
    references_are_judged_alike(client, &answers, context);
    restrictions_and_guards_agree(client, root, &answers, context);
}

/// Rows that lead to another tenant, counted from the answers, are those of the check.
fn references_are_judged_alike(client: &mut Client, answers: &[Answer], context: &str) {
    let of: BTreeMap<&str, &Answer> = answers.iter().map(|answer| (answer.table.as_str(), answer)).collect();
    let checked = client
        .query(
            "SELECT table_name, column_name, parent_table, parent_column, cross_tenant FROM public.validate_tenant_fks(samples => 0)
             WHERE constraint_name IS NOT NULL AND column_name NOT LIKE '(%'",
            &[],
        )
        .unwrap();
    for row in checked {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let (Some(parent), Some(key)) = (row.get::<_, Option<String>>(2), row.get::<_, Option<String>>(3)) else {
            continue;
        };
        let (Some(child), Some(above)) = (of.get(table.as_str()), of.get(parent.as_str())) else {
            continue;
        };
        let sides = (tenant_sql(client, child, "t"), tenant_sql(client, above, "p"));
        let (Some(own), Some(theirs)) = sides else { continue };
        let by_hand = one(
            client,
            &format!(
                "SELECT count(*) FROM {table} AS t JOIN {parent} AS p ON p.{} = t.{} WHERE {own} <> {theirs}",
                quoted(&key),
                quoted(&column)
            ),
        );
        let found: Option<i64> = row.get(4);
        assert_eq!(
            found.map(|rows| rows.to_string()),
            Some(by_hand),
            "{table}.{column} -> {parent}, {context}"
        );
    }
}

/// `tenant =>` and the guard go by the same column or path.
fn restrictions_and_guards_agree(client: &mut Client, root: &str, answers: &[Answer], context: &str) {
    let shown = |answer: &Answer| answer.column.clone().or(answer.path.clone());
    let of_root = answers.iter().find(|answer| answer.is_root).expect("a root");
    let tenant = one(
        client,
        &format!(
            "SELECT coalesce(min({}::text), '1') FROM {root}",
            quoted(of_root.column.as_ref().unwrap())
        ),
    );
    // A parent with a tenant of its own, to which every table gets a reference that only a declaration knows.
    let parent = answers.iter().find(|answer| {
        !answer.is_root
            && answer.column.is_some()
            && lines(
                client,
                &format!(
                    "SELECT 1 FROM pg_index WHERE indrelid = '{}'::regclass AND indisprimary AND indnkeyatts = 1",
                    answer.table
                ),
            )
            .len()
                == 1
    });
    for answer in answers.iter().filter(|answer| !answer.is_root) {
        let table = &answer.table;
        let is_table = one(
            client,
            &format!("SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = '{table}'::regclass"),
        );
        if is_table != "t" || table.contains('.') {
            continue;
        }
        client
            .batch_execute(&format!(
                "ALTER TABLE {table} ADD COLUMN mend_value int, ADD COLUMN mend_source int"
            ))
            .unwrap();
        let call = format!(
            "SELECT coalesce(substring(note FROM 'restricted to (.*?) = '), 'none') FROM public.backfill('{table}', 'mend_value', ARRAY['mend_source'], tenant => '{tenant}')"
        );
        match (client.query_one(&call, &[]), shown(answer)) {
            (Ok(row), Some(expected)) => {
                // Where the first path gives no tenant, another one may.
                let restricted: String = row.get(0);
                let first = restricted.split(", else ").next().unwrap();
                assert_eq!(first, expected, "tenant => of {table}, {context}")
            }
            (Ok(row), None) => panic!(
                "{table} is shared, and restricted to {}, {context}",
                row.get::<_, String>(0)
            ),
            // Of several paths none is the tenant by itself.
            (Err(error), expected) => assert!(
                expected.is_none() || answer.column.is_none(),
                "{table}: {error:?}, {context}"
            ),
        }
        if let (Some(parent), Some(column)) = (parent, &answer.column) {
            let key = lines(
                client,
                &format!(
                    "SELECT quote_ident(a.attname), format_type(a.atttypid, a.atttypmod) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                     WHERE i.indrelid = '{}'::regclass AND i.indisprimary",
                    parent.table
                ),
            );
            let (key, key_type) = key[0].split_once('|').unwrap();
            client
                .batch_execute(&format!(
                    "ALTER TABLE {table} ADD COLUMN mend_parent {key_type}, ADD COLUMN mend_legacy {key_type};
                     SELECT public.declare_reference('{table}', 'mend_parent', '{}({key})')",
                    parent.table.replace('\'', "''")
                ))
                .unwrap();
            let note = one(
                client,
                &format!("SELECT note FROM public.backfill('{table}', 'mend_parent', ARRAY['mend_legacy'])"),
            );
            let expected = format!(
                "tenant guard: {column} must equal {} of {} (",
                parent.column.as_ref().unwrap(),
                parent.table
            );
            assert!(
                note.contains(&expected),
                "{table}: {note}\nexpected {expected}, {context}"
            );
            // The repair of rows of another tenant goes by the same two sides.
            one(
                client,
                &format!(
                    "SELECT violations FROM public.repair_orphans('{table}', 'mend_parent', 'nullify', violation => 'cross_tenant')"
                ),
            );
            client
                .batch_execute(&format!("SELECT public.forget_reference('{table}', 'mend_parent')"))
                .unwrap();
        }
        client
            .batch_execute(&format!(
                "ALTER TABLE {table} DROP COLUMN mend_value, DROP COLUMN mend_source, DROP COLUMN IF EXISTS mend_parent, DROP COLUMN IF EXISTS mend_legacy"
            ))
            .unwrap();
    }
}

#[test]
fn all_calls_agree_on_the_examples() {
    type Load = fn(&mut Client);
    let examples: [(&str, Load, &str); 3] = [
        ("party", load_party, "\"Tenant\""),
        ("organizations", load_organizations, "organizations"),
        ("properties", load_properties, "profiles"),
    ];
    for (name, load, root) in examples {
        let (_database, mut client) = database_with("");
        load(&mut client);
        all_calls_agree(&mut client, root, name);
    }
}
