//! The threat model as tests; SECURITY.md says the same in words.
//!
//! Who may be hostile: a role with `grant_mend` and tables of its own (`att`, almost everywhere here), the owner of the database, a
//! role that may only CREATE in some schema of the search_path. What none of them may get: that a call of somebody else runs their
//! code with that one's rights, writes what they forged, or believes what they had no right to say.
//!
//! * `hooks`: every place for code, with a canary in it
//! * `forged`: state tables, records, run ids, locks
//! * `declared`: declarations and rules
//! * `limits`: texts without end, odd names, memory
//! * `types`: types of others, and values as they are
//! * `swapped`: names that mean something else in the middle of a call
//! * `undo`: what is in the way of an undo

mod declared;
mod forged;
mod hooks;
mod limits;
mod swapped;
mod types;
mod undo;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pgrx_tests::{Database, database};
use postgres::{Client, NoTls};

use hooks::{HOOKS, SHARED};

/// Tables of two tenants.
const TABLES: &str = "
    CREATE TABLE tenants (id int PRIMARY KEY);
    CREATE TABLE customers (id int PRIMARY KEY, tenant_id int REFERENCES tenants, UNIQUE (id, tenant_id));
    CREATE TABLE orders (id int PRIMARY KEY, tenant_id int REFERENCES tenants, customer_id int, is_admin boolean);
    INSERT INTO tenants VALUES (1), (2);
    INSERT INTO customers VALUES (1, 1), (2, 2);
    INSERT INTO orders VALUES (1, 1, 1), (2, 1, 2), (3, 2, 99), (4, NULL, 1);";

/// A role of its own for each test: roles belong to the whole cluster.
pub(crate) fn role(database: &Database, name: &str, options: &str) -> String {
    let role = format!("{name}_{}", database.name);
    let sql = format!("CREATE ROLE {role} LOGIN {options}");
    database.connect().batch_execute(&sql).unwrap();
    role
}

/// How far a hook goes, from harmless to not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Runs {
    Never,
    AsOwner,
    AsInPlainSql,
}

impl Runs {
    fn of(text: &str) -> Runs {
        match text {
            "never" => Runs::Never,
            "as its owner" => Runs::AsOwner,
            "as in plain SQL" => Runs::AsInPlainSql,
            other => panic!("SECURITY.md says {other}"),
        }
    }
}

/// What a canary says: its hook, the role that ran it, whether in a restricted operation.
pub(crate) type Song = (String, String, bool);

/// SQLSTATE and message of a call that failed, and what it ran.
pub(crate) type Heard = (Option<(String, String)>, Vec<Song>);

/// A session that hears canaries.
pub(crate) struct Listener {
    pub(crate) client: Client,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    pub(crate) fn connect(database: &Database, role: &str) -> Listener {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        let mut config = database.config();
        config.user(role).notice_callback(move |notice| {
            if let Some(song) = notice.message().strip_prefix("canary|") {
                ears.lock().unwrap().push(song.to_string());
            }
        });
        Listener {
            client: config.connect(NoTls).unwrap(),
            heard,
        }
    }

    /// Runs one call; its SQLSTATE if it failed, and the songs: hook, role, restricted.
    pub(crate) fn hear(&mut self, sql: &str) -> Heard {
        self.heard.lock().unwrap().clear();
        let failed = self.client.simple_query(sql).err().map(|error| {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
            (error.code().code().to_string(), error.message().to_string())
        });
        if failed.is_some() {
            let _ = self.client.simple_query("ROLLBACK");
        }
        let heard = self.heard.lock().unwrap();
        let songs = heard.iter().map(|song| {
            let parts: Vec<&str> = song.split('|').collect();
            (parts[0].to_string(), parts[1].to_string(), parts[2] == "t")
        });
        (failed, songs.collect())
    }
}

/// Calls that read the whole database, and calls about one table, by the columns of the table in SECURITY.md.
fn calls() -> Vec<(&'static str, Vec<String>)> {
    let root = "'att.tenants'";
    let mut checks: Vec<String> = [
        "validate_tenant_fks()",
        "migration_report()",
        "backfill_coverage()",
        "tenant_columns()",
        "tenant_map()",
    ]
    .iter()
    .flat_map(|call| {
        let named = call.replace("()", &format!("({root})"));
        [format!("SELECT * FROM {call}"), format!("SELECT * FROM {named}")]
    })
    .collect();
    let mut dry = vec![format!("SELECT * FROM backfill_tenant_ids({root})")];
    let mut scripts = vec!["SELECT * FROM migration_drift('[{\"name\": \"1.sql\", \"script\": \"CREATE TABLE att.tenants (id int PRIMARY KEY)\"}]')".to_string()];
    let mut real = vec![format!(
        "BEGIN; SELECT * FROM backfill_tenant_ids({root}, dry_run => false); ROLLBACK"
    )];
    let parents = r#"match => '{"id": "p_id"}'"#;
    for table in HOOKS.iter().map(|hook| hook.table).filter(|table| !table.is_empty()) {
        let reference = if table == "att.h_view" { "v_ref" } else { "p_id" };
        checks.push(format!(
            "SELECT * FROM validate_tenant_fks({root}, '{table}', samples => 100)"
        ));
        dry.push(format!("SELECT assert_backfilled('{table}', 'tenant_id')"));
        dry.push(format!(
            "SELECT * FROM finalize_plan('{table}', 'tenant_id', root => {root})"
        ));
        dry.push(format!(
            "SELECT * FROM backfill_tenant_ids({root}, table_name => '{table}')"
        ));
        dry.push(format!(
            "SELECT * FROM backfill_tenant_ids({root}, table_name => '{table}', overwrite => 'mismatched')"
        ));
        for call in ["backfill", "backfill_unfilled", "backfill_sql"] {
            dry.push(format!(
                "SELECT * FROM {call}('{table}', 'tenant_id', ARRAY['{reference} -> att.p(id).tenant_id'])"
            ));
            dry.push(format!("SELECT * FROM {call}('{table}', 'tenant_id', ARRAY['{reference} -> att.p(id).tenant_id'], tenant => '1')"));
        }
        for action in ["nullify", "quarantine", "create_parent"] {
            let call = format!("SELECT * FROM repair_orphans('{table}', '{reference}', '{action}', root => {root}");
            dry.push(format!("{call})"));
            dry.push(format!("{call}, set => '{{\"name\": \"{{key}}\"}}')"));
            dry.push(format!("{call}, violation => 'cross_tenant')"));
            real.push(format!(
                "BEGIN; {call}, dry_run => false); SELECT * FROM restore_repaired((SELECT max(run_id) FROM mend.runs)); \
                 SELECT * FROM restore_repaired((SELECT max(run_id) FROM mend.runs), dry_run => false); \
                 SELECT * FROM undo_run((SELECT max(run_id) FROM mend.runs), dry_run => false); ROLLBACK"
            ));
        }
        dry.push(format!(
            "SELECT * FROM backfill_parents('{table}', '{reference}', {parents}, root => {root})"
        ));
        let undo = "SELECT * FROM undo_run((SELECT max(run_id) FROM mend.runs)); SELECT * FROM undo_run((SELECT max(run_id) FROM mend.runs), dry_run => false)";
        real.push(format!("BEGIN; SELECT * FROM backfill_parents('{table}', '{reference}', {parents}, root => {root}, dry_run => false); {undo}; ROLLBACK"));
        real.push(format!(
            "BEGIN; SELECT * FROM backfill_tenant_ids({root}, table_name => '{table}', overwrite => 'mismatched', dry_run => false); {undo}; ROLLBACK"
        ));
        for statement in [
            format!("ALTER TABLE {table} ADD CHECK (tenant_id > 0)"),
            format!("CREATE TABLE {table}_new PARTITION OF {table} FOR VALUES FROM (2) TO (3)"),
            format!("CREATE INDEX other ON {table} (tenant_id) WHERE tenant_id > 0"),
            format!("ALTER TABLE {table} ALTER tenant_id SET DEFAULT 7"),
            format!("UPDATE {table} SET tenant_id = 1 WHERE tenant_id IS NULL"),
        ] {
            scripts.push(format!("SELECT * FROM migration_status($s${statement}$s$)"));
            scripts.push(format!("SELECT * FROM migration_reset($s${statement}$s$)"));
        }
    }
    vec![
        ("checks", checks),
        ("dry runs", dry),
        ("scripts", scripts),
        ("real runs", real),
    ]
}

/// What SECURITY.md says: hook → how far it goes in each kind of call.
fn promised() -> BTreeMap<String, BTreeMap<String, Runs>> {
    let page = include_str!("../../../../SECURITY.md");
    let mut rows = page.lines().skip_while(|line| !line.starts_with("| hook |"));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_string())
            .collect()
    };
    let head = cells(rows.next().expect("the table of hooks in SECURITY.md"));
    rows.skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let row = cells(line);
            let runs = head[1..]
                .iter()
                .cloned()
                .zip(row[1..].iter().map(|cell| Runs::of(cell)));
            (row[0].clone(), runs.collect())
        })
        .collect()
}

#[test]
fn no_hook_runs_with_the_rights_of_whoever_calls() {
    let database = database();
    let mut admin = database.connect();
    let (hostile, careful) = (role(&database, "att", ""), role(&database, "ops", "BYPASSRLS"));
    admin
        .batch_execute(&format!(
            "CREATE SCHEMA att AUTHORIZATION {hostile}; SELECT grant_mend('{hostile}'), grant_mend('{careful}');
             CREATE FOREIGN DATA WRAPPER without_handler; GRANT USAGE ON FOREIGN DATA WRAPPER without_handler TO {hostile}"
        ))
        .unwrap();
    let mut owner = database.connect_as(&hostile);
    owner.batch_execute("SET client_min_messages = error").unwrap();
    owner.batch_execute(SHARED).unwrap();
    for hook in HOOKS {
        owner
            .batch_execute(hook.setup)
            .unwrap_or_else(|error| panic!("{}: {error:?}", hook.name));
    }
    owner
        .batch_execute(&format!(
            "GRANT USAGE ON SCHEMA att TO {careful}; GRANT ALL ON ALL TABLES IN SCHEMA att TO {careful}"
        ))
        .unwrap();

    // The canaries sing: plain SQL runs each with the rights of whoever runs it.
    let mut listener = Listener::connect(&database, "postgres");
    for hook in HOOKS.iter().filter(|hook| !hook.plain.is_empty()) {
        let plain = hook.plain.replace("nobody_in_particular", &careful);
        let plain = match hook.name {
            // Who bypasses policies does not run them.
            "policy" => plain.replace(&careful, "pg_monitor"),
            _ => plain,
        };
        let (_, songs) = listener.hear(&format!("BEGIN; {plain}; ROLLBACK"));
        assert!(
            songs
                .iter()
                .any(|(name, role, restricted)| name == hook.name && role != &hostile && !restricted),
            "{}: {plain} runs nothing: {songs:?}",
            hook.name
        );
    }

    let promised = promised();
    let mut seen: BTreeMap<(String, String), Runs> = BTreeMap::new();
    for caller in ["postgres", &careful] {
        let mut listener = Listener::connect(&database, caller);
        listener
            .client
            .batch_execute("SET search_path = att, public, pg_catalog; SET statement_timeout = '60s'")
            .unwrap();
        for (kind, calls) in calls() {
            let mut done = 0;
            for call in &calls {
                let call = call.replace("SELECT * FROM ", "SELECT * FROM public.");
                let call = call.replace("SELECT assert", "SELECT public.assert");
                let (failed, songs) = listener.hear(&call);
                if let Some((code, message)) = &failed {
                    // A refusal is fine; a raw error of our own making is not. (Postgres's own check of a foreign key, which it makes of
                    // a row that is written twice in a transaction, stumbles over a cast of the type, as in plain SQL.)
                    let of_a_foreign_key = message.contains("e_text pg_catalog.= e_text");
                    assert!(
                        of_a_foreign_key || !matches!(code.as_str(), "XX000" | "42601" | "42883" | "42725"),
                        "{call}: {code} {message}"
                    );
                }
                done += usize::from(failed.is_none());
                for (hook, role, restricted) in songs {
                    let runs = match (role == hostile, restricted) {
                        (true, true) => Runs::AsOwner,
                        _ => Runs::AsInPlainSql,
                    };
                    let most = promised
                        .get(&hook)
                        .and_then(|row| row.get(kind))
                        .unwrap_or_else(|| panic!("SECURITY.md says nothing of {hook} in {kind}"));
                    assert!(
                        runs <= *most,
                        "{hook} runs as {role} (restricted: {restricted}), called by {caller}: {call}"
                    );
                    let seen = seen.entry((hook, kind.to_string())).or_insert(Runs::Never);
                    *seen = runs.max(*seen);
                }
            }
            assert!(
                done * 3 > calls.len(),
                "only {done} of {} {kind} did anything for {caller}",
                calls.len()
            );
        }
    }
    // Nothing is promised that could not be more: what SECURITY.md says is what was seen.
    for hook in HOOKS {
        for (kind, most) in &promised[hook.name] {
            let seen = seen
                .get(&(hook.name.to_string(), kind.clone()))
                .copied()
                .unwrap_or(Runs::Never);
            assert_eq!(seen, *most, "{} in {kind}", hook.name);
        }
    }
    drop(owner);
    drop(listener);
    admin
        .batch_execute(&format!(
            "DROP SCHEMA att CASCADE; DROP OWNED BY {hostile}, {careful}; DROP ROLE {hostile}, {careful}"
        ))
        .unwrap();
}
