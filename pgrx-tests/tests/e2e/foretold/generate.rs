//! Random schemas that refuse values in every way that is foretold, with rows that try it.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The type of the parties' key, the type of the columns that mean it, and values of both.
const KEYS: [(&str, &str, &[&str]); 10] = [
    ("int", "int", &["1", "2", "3", "4", "5", "6"]),
    ("int", "bigint", &["1", "2", "3", "4", "5", "3000000000"]),
    ("bigint", "int", &["1", "2", "3", "4", "5", "6"]),
    ("smallint", "int", &["1", "2", "3", "4", "5", "70000"]),
    ("numeric(3,1)", "numeric", &["1", "2.5", "3", "4", "99.95", "1000"]),
    ("varchar(3)", "text", &["'a'", "'b'", "'c'", "'d'", "'abc'", "'abcd'"]),
    ("char(3)", "text", &["'a'", "'b'", "'c'", "'d'", "'abc'", "'abcd'"]),
    (
        "text COLLATE \"C\"",
        "text COLLATE \"POSIX\"",
        &["'a'", "'b'", "'c'", "'d'", "'E'", "'e'"],
    ),
    ("small", "int", &["1", "2", "3", "4", "5", "11"]),
    (
        "uuid",
        "uuid",
        &[
            "'00000000-0000-0000-0000-000000000001'",
            "'00000000-0000-0000-0000-000000000002'",
            "'00000000-0000-0000-0000-000000000003'",
            "'00000000-0000-0000-0000-000000000004'",
        ],
    ),
];

/// What a table may refuse, of the rows of `item`.
const LIMITS: [&str; 10] = [
    "ALTER TABLE item ADD CONSTRAINT flagged CHECK (flag <> 1 OR party_id IS NOT NULL) NOT VALID",
    "ALTER TABLE item ADD CONSTRAINT short CHECK (length(party_id::text) < 3) NOT VALID",
    "ALTER TABLE item ADD CONSTRAINT told CHECK (is_fine(party_id::text)) NOT VALID",
    "CREATE UNIQUE INDEX one ON item (party_id) WHERE flag = 2",
    "CREATE UNIQUE INDEX per_tenant ON item (tenant_id, party_id)",
    "CREATE UNIQUE INDEX by_text ON item ((lower(party_id::text)), flag)",
    "CREATE UNIQUE INDEX nulls ON item (tenant_id, party_id, flag) NULLS NOT DISTINCT",
    "ALTER TABLE item ADD COLUMN shown text GENERATED ALWAYS AS (coalesce(party_id::text, 'none')) STORED, ADD CONSTRAINT computed CHECK (shown <> '2') NOT VALID",
    "ALTER TABLE item ADD CONSTRAINT item_party FOREIGN KEY (party_id) REFERENCES party NOT VALID",
    "CREATE UNIQUE INDEX of_parents ON party (n) WHERE n > 2",
];

/// What its triggers do: nothing that is seen, or refuse some rows.
const TRIGGERS: [&str; 2] = [
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END';
     CREATE TRIGGER touches BEFORE UPDATE ON item FOR EACH ROW EXECUTE FUNCTION touch()",
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF OLD.id % 3 = 0 THEN RETURN NULL; END IF; RETURN NEW; END';
     CREATE TRIGGER refuses BEFORE UPDATE ON item FOR EACH ROW EXECUTE FUNCTION refuse()",
];

/// One schema with its rows, and the calls that are tried on it.
pub struct Case {
    pub sql: String,
    /// Calls that write: a FROM item with `DRY` where it says whether it does.
    pub calls: Vec<String>,
    /// A trigger keeps rows from being written: no dry run knows.
    pub refusing_trigger: bool,
    /// A script that is run, filled, reset with what it holds, run once more and put back.
    pub script: String,
    /// What goes into its column.
    pub value: &'static str,
}

impl Case {
    pub fn generate(seed: u64) -> Case {
        let mut random = StdRng::seed_from_u64(seed);
        let (key, child, values) = KEYS[random.random_range(0..KEYS.len())];
        let same_type = key == child;
        let mut sql = format!(
            "CREATE DOMAIN small AS int CHECK (VALUE < 10);
             CREATE FUNCTION is_fine(t text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN t IS DISTINCT FROM ''3''; END';
             CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1), (2), (3);
             CREATE TABLE party (id {key} PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, code text, n int DEFAULT 1, CONSTRAINT coded UNIQUE (tenant_id, code));
             CREATE TABLE contact (id int PRIMARY KEY, tenant_id int REFERENCES tenants, party_id {child});
             CREATE TABLE item (id int PRIMARY KEY, tenant_id int REFERENCES tenants, contact_id int REFERENCES contact, party_id {child}, code text, flag int, touched int DEFAULT 0);\n"
        );
        if random.random_bool(0.3) {
            sql.push_str("ALTER TABLE party ADD CONSTRAINT coarse CHECK (code <> 'x');\n");
        }
        let fits = |value: &str| match key {
            "smallint" => value.len() < 5,
            "int" => value.len() < 6,
            "numeric(3,1)" => value.len() < 4,
            "varchar(3)" | "char(3)" => value.len() < 6,
            "small" => value.len() < 2,
            _ => true,
        };
        let parties: Vec<&str> = values
            .iter()
            .copied()
            .filter(|v| fits(v))
            .filter(|_| random.random_bool(0.6))
            .collect();
        for (at, value) in parties.iter().enumerate() {
            let _ = writeln!(
                sql,
                "INSERT INTO party VALUES ({value}, {}, 'p{at}', {});",
                random.random_range(1..4),
                at + 1
            );
        }
        let pick = |random: &mut StdRng, null: f64| match random.random_bool(null) {
            true => "NULL".to_string(),
            false => values[random.random_range(0..values.len())].to_string(),
        };
        let number = |random: &mut StdRng, null: f64, most: i32| match random.random_bool(null) {
            true => "NULL".to_string(),
            false => random.random_range(1..=most).to_string(),
        };
        for id in 1..=8 {
            let (tenant, party) = (number(&mut random, 0.2, 3), pick(&mut random, 0.2));
            let _ = writeln!(sql, "INSERT INTO contact VALUES ({id}, {tenant}, {party});");
        }
        for id in 1..=random.random_range(1..26) {
            let (tenant, contact) = (number(&mut random, 0.2, 3), number(&mut random, 0.2, 8));
            let (party, flag) = (pick(&mut random, 0.5), random.random_range(0..4));
            let code = ["NULL", "'p1'", "'p2'", "'new'", "'x'"][random.random_range(0..5)];
            let _ = writeln!(
                sql,
                "INSERT INTO item VALUES ({id}, {tenant}, {contact}, {party}, {code}, {flag});"
            );
        }
        // What the rows do not allow is not there.
        for limit in LIMITS {
            if random.random_bool(0.35) {
                let quoted = limit.replace('\'', "''");
                let _ = writeln!(
                    sql,
                    "DO $do$ BEGIN EXECUTE '{quoted}'; EXCEPTION WHEN unique_violation OR datatype_mismatch OR undefined_function THEN NULL; END $do$;"
                );
            }
        }
        if same_type && random.random_bool(0.4) {
            sql.push_str("ALTER TABLE contact ADD FOREIGN KEY (party_id) REFERENCES party NOT VALID;\n");
        }
        sql.push_str(
            "SELECT declare_reference('item', 'party_id', 'party(id)'); SELECT declare_reference('contact', 'party_id', 'party(id)');\n",
        );
        let refusing_trigger = random.random_bool(0.1);
        if random.random_bool(0.3) {
            sql.push_str(TRIGGERS[0]);
            sql.push_str(";\n");
        }
        if refusing_trigger {
            sql.push_str(TRIGGERS[1]);
            sql.push_str(";\n");
        }
        let overwrite = ["nothing", "mismatched"][random.random_range(0..2)];
        let conflict = ["skip", "first"][random.random_range(0..2)];
        let action = ["nullify", "quarantine", "create_parent"][random.random_range(0..3)];
        let guard = random.random_bool(0.8);
        let mut calls = vec![
            format!(
                "backfill('item', 'party_id', ARRAY['contact_id -> contact.party_id'], DRY, '{conflict}', overwrite => '{overwrite}', tenant_guard => {guard})"
            ),
            format!("backfill_tenant_ids('tenants', DRY, overwrite => '{overwrite}', on_conflict => '{conflict}')"),
            "backfill_party_ids(NULL, DRY, party_table => 'party')".to_string(),
            format!(
                r#"repair_orphans('item', 'party_id', '{action}', DRY, only_where => {}, set => {})"#,
                ["NULL", "'id > 3'"][random.random_range(0..2)],
                match action {
                    "create_parent" => r#"'{"code": "made {key}"}'"#,
                    _ => "NULL",
                }
            ),
            "repair_orphans('contact', 'party_id', 'nullify', DRY)".to_string(),
            "repair_orphans('item', 'party_id', 'quarantine', DRY, violation => 'cross_tenant')".to_string(),
        ];
        if matches!(key, "int" | "bigint" | "uuid") {
            let default = match key {
                "uuid" => "gen_random_uuid()",
                _ => "nextval('ids')",
            };
            let _ = writeln!(
                sql,
                "CREATE SEQUENCE ids START 500; ALTER TABLE party ALTER COLUMN id SET DEFAULT {default};"
            );
            calls.push(r#"backfill_parents('item', 'party_id', match => '{"code": "code"}', dry_run => DRY)"#.into());
        }
        for at in (1..calls.len()).rev() {
            calls.swap(at, random.random_range(0..=at));
        }
        let of_script = match child {
            "text COLLATE \"POSIX\"" => "text",
            plain => plain,
        };
        Case {
            sql,
            calls,
            refusing_trigger,
            script: format!(
                "CREATE TABLE extra (id int PRIMARY KEY, v {of_script}); ALTER TABLE item ADD COLUMN added {of_script};"
            ),
            value: values[random.random_range(0..values.len())],
        }
    }
}
