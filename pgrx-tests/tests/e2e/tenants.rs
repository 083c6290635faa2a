//! Tenant keys by inference: the example, every status, what is refused, what is replaced, the map.

use pgrx_tests::example::{failure, lines, load_organizations, load_party, one};
use pgrx_tests::{Cluster, Database, Options};
use postgres::Client;

fn client(setup: &str) -> (Database<'static>, Client) {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    client
        .batch_execute(setup)
        .unwrap_or_else(|error| panic!("{setup}: {error:?}"));
    (database, client)
}

const COLUMNS: &str =
    "SELECT table_name, tenant_column, status, path, alternatives, constraint_state FROM tenant_columns()";

#[test]
fn the_example_shows_every_table_its_key_and_its_path() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_organizations(&mut client);
    assert_eq!(
        lines(&mut client, COLUMNS),
        [
            "conversations|organization_id|needs_backfill|domain_id -> domains.organization_id|{}|valid",
            "customer_configs|organization_id|needs_backfill|domain_id -> domains.organization_id|{}|valid",
            "domains|organization_id|ready|-|{}|valid",
            "languages|-|shared|-|{}|-",
            "messages|organization_id|needs_backfill|conversation_id -> conversations.organization_id|{\"reply_to -> messages.organization_id\"}|valid",
            "organization_members|organization_id|ready|-|{}|valid",
            "organizations|id|root|-|{}|-",
            "page_embeddings|organization_id|needs_backfill|page_id -> scraped_pages.organization_id|{\"config_id -> customer_configs.organization_id\"}|valid",
            "profiles|-|shared|-|{}|-",
            "scraped_pages|organization_id|needs_backfill|domain_id -> domains.organization_id|{}|valid",
            "structured_extractions|organization_id|nullable|domain_id -> domains.organization_id|{}|missing",
            "website_content|-|needs_column|page_id -> scraped_pages.organization_id|{}|-",
        ]
    );
    let flags = "SELECT not_null, indexed, row_security, estimated_rows FROM tenant_columns() WHERE table_name = ";
    assert_eq!(lines(&mut client, &format!("{flags}'conversations'")), ["f|t|t|60"]);
    assert_eq!(lines(&mut client, &format!("{flags}'messages'")), ["f|f|f|180"]);
    assert_eq!(lines(&mut client, &format!("{flags}'website_content'")), ["-|-|f|12"]);
}

const COUNTS: &str = "table_name, total, already_set, filled, unfilled, reasons";

#[test]
fn the_example_is_filled_parents_first_exactly_as_the_dry_run_says() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_organizations(&mut client);
    let expected = [
        "conversations|60|5|49|6|{\"no_source\": 6}",
        "customer_configs|6|0|6|0|{}",
        "domains|6|6|0|0|{}",
        "organization_members|6|6|0|0|{}",
        "scraped_pages|48|0|48|0|{}",
        "structured_extractions|30|30|0|0|{}",
        "messages|180|0|162|18|{\"source_null\": 18}",
        "page_embeddings|240|0|228|12|{\"conflict\": 12}",
    ];
    client.batch_execute("BEGIN READ ONLY").unwrap();
    let dry = lines(&mut client, &format!("SELECT {COUNTS} FROM backfill_tenant_ids()"));
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(dry, expected);
    let real = lines(
        &mut client,
        &format!("SELECT {COUNTS} FROM backfill_tenant_ids(dry_run => false)"),
    );
    assert_eq!(real, expected);
    // Looked at without pg_mend: nothing is in another organization than its page, and the twelve are the ones that differ.
    assert_eq!(
        lines(
            &mut client,
            "SELECT count(*) FILTER (WHERE e.organization_id <> d.organization_id),
                    count(*) FILTER (WHERE e.organization_id IS NULL),
                    count(*) FILTER (WHERE d.organization_id <> c.organization_id)
             FROM page_embeddings e JOIN scraped_pages p ON p.id = e.page_id JOIN domains d ON d.id = p.domain_id
             JOIN customer_configs c ON c.id = e.config_id"
        ),
        ["0|12|12"]
    );
    let both = "SELECT DISTINCT detail ~ '^page_id = .* gives 0.*; config_id = .* gives 0' FROM backfill_unfilled('page_embeddings', 'organization_id')";
    assert_eq!(lines(&mut client, both), ["t"], "both values of a conflict are shown");
    assert_eq!(
        one(
            &mut client,
            "SELECT sum(filled) FROM backfill_tenant_ids(dry_run => false)"
        ),
        "0"
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, percent, disagrees FROM backfill_coverage() WHERE missing > 0 OR disagrees > 0"
        ),
        [
            "conversations|90.00|0",
            "messages|90.00|0",
            "page_embeddings|95.00|0",
            "structured_extractions|100.00|3",
        ]
    );
    // A conflict that somebody settles, and one table alone.
    assert_eq!(
        lines(
            &mut client,
            &format!(
                "SELECT {COUNTS} FROM backfill_tenant_ids(table_name => 'page_embeddings', on_conflict => 'first', dry_run => false)"
            )
        ),
        ["page_embeddings|240|228|12|0|{}"]
    );
}

#[test]
fn one_tenant_can_be_filled_by_itself() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_organizations(&mut client);
    let acme = "'00000000-0000-0000-0001-000000000001'";
    // Counted without pg_mend: rows that are still empty and whose own domain is Acme's.
    let by_hand = |from: &str| {
        format!("SELECT count(*) FROM {from} WHERE t.organization_id IS NULL AND d.organization_id = {acme}")
    };
    let expected = [
        one(
            &mut client,
            &by_hand("conversations t JOIN domains d ON d.id = t.domain_id"),
        ),
        one(
            &mut client,
            &by_hand("scraped_pages t JOIN domains d ON d.id = t.domain_id"),
        ),
        one(
            &mut client,
            &by_hand(
                "messages t JOIN conversations c ON c.id = t.conversation_id JOIN domains d ON d.id = c.domain_id",
            ),
        ),
    ];
    let call = format!("SELECT table_name, filled FROM backfill_tenant_ids(dry_run => false, tenant => {acme})");
    let filled = lines(&mut client, &call);
    for (table, rows) in ["conversations", "scraped_pages", "messages"].iter().zip(&expected) {
        assert!(
            rows != "0" && filled.contains(&format!("{table}|{rows}")),
            "{table} {rows}: {filled:?}"
        );
    }
    assert_eq!(
        one(&mut client, "SELECT count(DISTINCT organization_id) FROM scraped_pages"),
        "1"
    );
    assert_eq!(
        one(&mut client, "SELECT count(DISTINCT organization_id) FROM messages"),
        "1"
    );
}

#[test]
fn values_that_their_source_contradicts_are_replaced_only_when_asked_and_kept() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_organizations(&mut client);
    let fill = |how: &str| {
        format!(
            "SELECT already_set, filled, unfilled, note ~ 'replaced' FROM backfill('structured_extractions', 'organization_id'{how})"
        )
    };
    assert_eq!(lines(&mut client, &fill(", dry_run => false")), ["30|0|0|f"]);
    let before = lines(
        &mut client,
        "SELECT id, organization_id FROM structured_extractions WHERE id IN (4, 8, 15) ORDER BY id",
    );
    assert_eq!(lines(&mut client, &fill(", overwrite => 'mismatched'")), ["27|3|0|t"]);
    assert_eq!(
        lines(&mut client, &fill(", overwrite => 'mismatched', dry_run => false")),
        ["27|3|0|t"]
    );
    let kept = "SELECT row_key ->> 'id', old_value FROM mend.replaced_values JOIN mend.runs USING (run_id)
                WHERE column_name = 'organization_id' ORDER BY (row_key ->> 'id')::int";
    assert_eq!(lines(&mut client, kept), before);
    assert_eq!(
        one(
            &mut client,
            "SELECT disagrees FROM backfill_coverage() WHERE table_name = 'structured_extractions'"
        ),
        "0"
    );
    assert_eq!(
        lines(&mut client, &fill(", overwrite => 'mismatched', dry_run => false")),
        ["30|0|0|f"]
    );
    // What was replaced can be put back by hand from the record.
    client
        .batch_execute(
            "UPDATE structured_extractions s SET organization_id = k.old_value::uuid FROM mend.replaced_values k
             WHERE s.id = (k.row_key ->> 'id')::bigint",
        )
        .unwrap();
    let again = lines(
        &mut client,
        "SELECT id, organization_id FROM structured_extractions WHERE id IN (4, 8, 15) ORDER BY id",
    );
    assert_eq!(again, before);
    // The same by the recorded rule.
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill((SELECT rule FROM mend.runs WHERE filled = 3), false)"
        ),
        "3"
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('messages', 'organization_id', overwrite => 'all')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("22023", "overwrite cannot be \"all\"")
    );
}

#[test]
fn what_could_not_be_put_back_is_not_overwritten() {
    let (_database, mut client) = client(
        "CREATE TABLE organizations (id int PRIMARY KEY); CREATE TABLE sites (id int PRIMARY KEY, organization_id int REFERENCES organizations);
         CREATE TABLE logs (site_id int REFERENCES sites, organization_id int REFERENCES organizations);
         CREATE TABLE folders (id int PRIMARY KEY, parent_id int REFERENCES folders, organization_id int REFERENCES organizations);
         INSERT INTO organizations VALUES (1), (2); INSERT INTO sites VALUES (1, 1); INSERT INTO logs VALUES (1, 2);
         INSERT INTO folders VALUES (1, NULL, 1), (2, 1, 2)",
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('logs', 'organization_id', overwrite => 'mismatched')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        (
            "42830",
            "logs has no primary key, so what is overwritten could not be put back"
        )
    );
    client.batch_execute(&failed.hint).unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('logs', 'organization_id', overwrite => 'mismatched')"
        ),
        "1"
    );
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill('folders', 'organization_id', overwrite => 'mismatched')",
    );
    assert_eq!(failed.code, "0A000");
    // Over all tables, a tree keeps what it has, and the others are repaired.
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, already_set, filled FROM backfill_tenant_ids(overwrite => 'mismatched', dry_run => false) ORDER BY 1"
        ),
        ["folders|2|0", "logs|0|1", "sites|1|0"]
    );
}

#[test]
fn the_key_is_told_by_what_it_references_not_by_its_name() {
    // Seed 000's table.
    let (_database, mut client) = client(
        "CREATE TABLE profiles (id uuid PRIMARY KEY);
         CREATE TABLE properties (id int PRIMARY KEY, org_id uuid NOT NULL REFERENCES profiles);
         CREATE TABLE agent_settings (org_id uuid PRIMARY KEY REFERENCES profiles, model text);
         CREATE TABLE agent_runs (id int PRIMARY KEY, org_id uuid REFERENCES profiles, started_by uuid REFERENCES profiles);
         CREATE TABLE orders (id int PRIMARY KEY, created_by uuid NOT NULL REFERENCES profiles, property_id int REFERENCES properties);
         CREATE TABLE clients (id int PRIMARY KEY, created_by uuid REFERENCES profiles);
         CREATE TABLE contacts (id int PRIMARY KEY, client_id int NOT NULL REFERENCES clients)",
    );
    assert_eq!(
        lines(&mut client, COLUMNS),
        [
            "agent_runs|org_id|nullable|-|{}|valid",
            "agent_settings|org_id|ready|-|{}|valid",
            "clients|created_by|nullable|-|{}|valid",
            "contacts|-|needs_column|client_id -> clients.created_by|{}|-",
            "orders|created_by|ready|property_id -> properties.org_id|{}|valid",
            "profiles|id|root|-|{}|-",
            "properties|org_id|ready|-|{}|valid",
        ]
    );
    assert!(
        one(
            &mut client,
            "SELECT note FROM tenant_columns() WHERE table_name = 'agent_runs'"
        )
        .contains("also references profiles, in another role: started_by")
    );
}

#[test]
fn every_kind_of_half_done_table_has_its_status_and_its_next_step() {
    let (_database, mut client) = client(
        "CREATE TABLE organizations (id bigint PRIMARY KEY, slug text UNIQUE);
         CREATE TABLE users (id bigint PRIMARY KEY, organization_id bigint NOT NULL REFERENCES organizations);
         CREATE TABLE small_key (id int PRIMARY KEY, user_id bigint REFERENCES users, organization_id int);
         CREATE TABLE wrong_type (id int PRIMARY KEY, user_id bigint REFERENCES users, organization_id text);
         CREATE TABLE filled_by_name (id int PRIMARY KEY, organization_id bigint NOT NULL);
         CREATE TABLE sites (id int PRIMARY KEY, org_slug text REFERENCES organizations (slug));
         CREATE TABLE loose (id int PRIMARY KEY, user_id bigint);
         CREATE TABLE threads (id bigint PRIMARY KEY, organization_id bigint REFERENCES organizations);
         CREATE TABLE replies (id int PRIMARY KEY, thread_id bigint REFERENCES threads);
         CREATE TABLE unproved (id int PRIMARY KEY, user_id bigint, organization_id bigint NOT NULL);
         ALTER TABLE unproved ADD FOREIGN KEY (user_id) REFERENCES users NOT VALID;
         ALTER TABLE unproved ADD FOREIGN KEY (organization_id) REFERENCES organizations NOT VALID;
         CREATE TABLE transfers (id int PRIMARY KEY, from_org bigint REFERENCES organizations, to_org bigint REFERENCES organizations);
         CREATE TABLE countries (id int PRIMARY KEY, name text);
         INSERT INTO organizations VALUES (1, 'a'); INSERT INTO users VALUES (1, 1);
         INSERT INTO small_key VALUES (1, 1, NULL); INSERT INTO wrong_type VALUES (1, 1, NULL); INSERT INTO transfers VALUES (1, NULL, 1);
         DROP TABLE threads CASCADE",
    );
    let rows = lines(
        &mut client,
        "SELECT table_name, tenant_column, status, path, constraint_state FROM tenant_columns()",
    );
    assert_eq!(
        rows,
        [
            "countries|-|shared|-|-",
            "filled_by_name|organization_id|unconstrained|-|missing",
            "loose|-|unreachable|user_id -> users.organization_id|-",
            "organizations|id|root|-|-",
            "replies|-|unreachable|-|-",
            "sites|-|needs_column|org_slug -> organizations(slug).id|-",
            "small_key|organization_id|needs_backfill|user_id -> users.organization_id|missing",
            "transfers|from_org|ambiguous|-|valid",
            "transfers|to_org|nullable|-|valid",
            "unproved|organization_id|unconstrained|user_id -> users.organization_id|not_valid",
            "users|organization_id|ready|-|valid",
            "wrong_type|organization_id|needs_column|-|missing",
        ]
    );
    let mut note = |table: &str| {
        lines(
            &mut client,
            &format!("SELECT note FROM tenant_columns() WHERE table_name = '{table}'"),
        )
        .remove(0)
    };
    assert!(note("replies").starts_with("thread_id names no table that exists"));
    assert!(note("unproved").contains("the foreign key on user_id of unproved is not valid"));
    assert!(note("transfers").starts_with("several columns reference organizations"));
    assert!(note("filled_by_name").starts_with("organization_id has no foreign key"));
    let wrong = note("wrong_type");
    // The next step that a note gives can be pasted.
    let statement = wrong
        .split("; ")
        .find(|part| part.starts_with("ALTER"))
        .unwrap()
        .to_string();
    client.batch_execute(&statement).unwrap();
    let add = lines(
        &mut client,
        "SELECT note FROM tenant_columns() WHERE table_name = 'sites'",
    )
    .remove(0);
    client.batch_execute(add.split("; ").next().unwrap()).unwrap();
    client.batch_execute("INSERT INTO sites VALUES (1, 'a')").unwrap();
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, filled, reasons FROM backfill_tenant_ids(dry_run => false) WHERE filled > 0 ORDER BY 1"
        ),
        ["sites|1|{}", "small_key|1|{}", "wrong_type|1|{}"]
    );
}

#[test]
fn a_root_that_cannot_be_one_is_refused_with_the_next_call() {
    let (_database, mut client) = client(
        "CREATE TABLE alpha (id int PRIMARY KEY); CREATE TABLE beta (id int PRIMARY KEY); CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b));
         CREATE TABLE one (id int PRIMARY KEY, alpha_id int REFERENCES alpha, beta_id int REFERENCES beta);
         CREATE TABLE two (id int PRIMARY KEY, alpha_id int REFERENCES alpha, beta_id int REFERENCES beta);
         CREATE TABLE alone (id int PRIMARY KEY); CREATE VIEW seen AS SELECT * FROM alpha",
    );
    let failed = failure(&mut client, "SELECT * FROM tenant_columns()");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42P08", "the tenant root is ambiguous")
    );
    assert_eq!(
        failed.detail,
        "equally likely: alpha (reached by 2 tables), beta (reached by 2 tables)"
    );
    for call in ["backfill_tenant_ids()", "backfill_coverage()", "tenant_map()"] {
        assert_eq!(
            failure(&mut client, &format!("SELECT * FROM {call}")).code,
            "42P08",
            "{call}"
        );
    }
    client.batch_execute("SET pg_mend.tenant_root = 'alpha'").unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT table_name FROM tenant_columns() WHERE status = 'root'"
        ),
        "alpha"
    );
    // The argument wins over the setting.
    assert_eq!(
        one(
            &mut client,
            "SELECT table_name FROM tenant_columns('beta') WHERE status = 'root'"
        ),
        "beta"
    );
    let refused = |client: &mut Client, root: &str| {
        let failed = failure(client, &format!("SELECT * FROM tenant_columns('{root}')"));
        assert!(!failed.hint.is_empty(), "{failed:?}");
        (failed.code, failed.message)
    };
    let expect = |code: &str, message: &str| (code.to_string(), message.to_string());
    assert_eq!(
        refused(&mut client, "alone"),
        expect("42703", "no column references alone")
    );
    assert_eq!(
        refused(&mut client, "pair"),
        expect("42830", "pair has no key of a single column")
    );
    assert_eq!(
        refused(&mut client, "seen"),
        expect("42809", "seen is no table, it cannot hold the tenants")
    );
    assert_eq!(
        refused(&mut client, "alfa"),
        expect("42P01", "table \"alfa\" does not exist")
    );
    let failed = failure(&mut client, "SELECT tenant_map(format => 'svg')");
    assert_eq!(failed.code, "22023");
    let failed = failure(&mut client, "SELECT * FROM backfill_tenant_ids(dry_run => NULL)");
    assert_eq!(failed.code, "22004");
    let failed = failure(
        &mut client,
        "SELECT * FROM backfill_tenant_ids('alpha', table_name => 'alone')",
    );
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42703", "alone has no tenant column")
    );
}

#[test]
fn no_root_at_all_is_said() {
    let (_database, mut client) =
        client("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a_id int REFERENCES a)");
    let failed = failure(&mut client, "SELECT * FROM tenant_columns()");
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("42704", "no table stands out as the tenant root")
    );
}

#[test]
fn a_row_may_belong_to_a_project_or_to_a_group() {
    let (_database, mut client) = client(
        "CREATE TABLE groups (id bigint PRIMARY KEY); CREATE TABLE projects (id bigint PRIMARY KEY, group_id bigint NOT NULL REFERENCES groups);
         CREATE TABLE labels (id bigint PRIMARY KEY, project_id bigint REFERENCES projects, group_id bigint REFERENCES groups);
         CREATE TABLE label_links (id bigint PRIMARY KEY, label_id bigint NOT NULL REFERENCES labels);
         CREATE TABLE issues (id bigint PRIMARY KEY, project_id bigint REFERENCES projects,
                              CONSTRAINT filled CHECK (project_id IS NOT NULL)); CREATE TABLE settings (name text)",
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, tenant_column, status, path FROM tenant_columns('projects, groups')"
        ),
        [
            "groups|id|root|-",
            "issues|project_id|nullable|-",
            "label_links|-|needs_column|label_id -> labels.project_id",
            "labels|project_id|nullable|-",
            "labels|group_id|nullable|project_id -> projects.group_id",
            "projects|id|root|-",
            "projects|group_id|ready|-",
            "settings|-|shared|-",
        ]
    );
    assert!(
        one(
            &mut client,
            "SELECT note FROM tenant_columns('projects') WHERE table_name = 'issues'"
        )
        .starts_with("a CHECK keeps NULLs out")
    );
    assert_eq!(
        failure(&mut client, "SELECT * FROM tenant_columns('projects, grups')").hint,
        "did you mean 'groups'?"
    );
}

#[test]
fn a_circle_names_its_tables_and_the_edge_to_break() {
    let (_database, mut client) = client(
        "CREATE TABLE organizations (id int PRIMARY KEY);
         CREATE TABLE eggs (id int PRIMARY KEY, organization_id int REFERENCES organizations);
         CREATE TABLE hens (id int PRIMARY KEY, egg_id int REFERENCES eggs, organization_id int REFERENCES organizations);
         ALTER TABLE eggs ADD hen_id int NOT NULL REFERENCES hens;
         CREATE TABLE feathers (id int PRIMARY KEY, hen_id int REFERENCES hens, organization_id int REFERENCES organizations);
         INSERT INTO organizations VALUES (1); INSERT INTO hens VALUES (1, NULL, 1); INSERT INTO eggs VALUES (1, NULL, 1);
         INSERT INTO hens VALUES (2, 1, NULL); INSERT INTO feathers VALUES (1, 2, NULL)",
    );
    let failed = failure(&mut client, "SELECT * FROM backfill_tenant_ids()");
    assert_eq!(failed.code, "42P17");
    assert_eq!(failed.detail, "eggs.hen_id -> hens, hens.egg_id -> eggs");
    assert!(failed.hint.starts_with("break it at hens.egg_id"), "{}", failed.hint);
    let note = one(
        &mut client,
        "SELECT note FROM tenant_columns() WHERE table_name = 'hens'",
    );
    assert!(
        note.starts_with("it can only be filled from eggs, which is filled from it in turn"),
        "{note}"
    );
    // The calls of the hint, one after the other.
    let calls: Vec<&str> = failed
        .hint
        .split("backfill_tenant_ids(")
        .skip(1)
        .map(|c| c.split(')').next().unwrap())
        .collect();
    assert_eq!(calls.len(), 2);
    for arguments in calls {
        let filled = one(
            &mut client,
            &format!("SELECT filled FROM backfill_tenant_ids({arguments})"),
        );
        assert_eq!(filled, "1", "{arguments}");
    }
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill_tenant_ids(table_name => 'feathers', dry_run => false)"
        ),
        "1"
    );
}

#[test]
fn a_circle_with_another_way_in_is_broken_where_it_says_least() {
    let (_database, mut client) = client(
        "CREATE TABLE organizations (id int PRIMARY KEY);
         CREATE TABLE accounts (id int PRIMARY KEY, organization_id int NOT NULL REFERENCES organizations);
         CREATE TABLE projects (id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts, organization_id int REFERENCES organizations);
         CREATE TABLE boards (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects, organization_id int REFERENCES organizations);
         ALTER TABLE projects ADD main_board_id int REFERENCES boards;
         INSERT INTO organizations VALUES (1); INSERT INTO accounts VALUES (1, 1); INSERT INTO projects VALUES (1, 1);
         INSERT INTO boards VALUES (1, 1); UPDATE projects SET main_board_id = 1",
    );
    let rows = lines(
        &mut client,
        "SELECT table_name, filled, note FROM backfill_tenant_ids(dry_run => false) WHERE filled > 0",
    );
    assert_eq!(
        rows,
        [
            "projects|1|main_board_id -> boards.organization_id is not followed: it would close a circle of tables; from account_id -> accounts.organization_id",
            "boards|1|from project_id -> projects.organization_id",
        ]
    );
}

#[test]
fn a_tree_is_filled_in_passes_and_the_tenant_may_be_part_of_other_keys() {
    let (_database, mut client) = client(
        "CREATE TABLE organizations (id int PRIMARY KEY);
         CREATE TABLE folders (id int PRIMARY KEY, parent_id int REFERENCES folders, organization_id int REFERENCES organizations, UNIQUE (organization_id, id));
         CREATE TABLE files (id int PRIMARY KEY, folder_id int NOT NULL, organization_id int, FOREIGN KEY (organization_id, folder_id) REFERENCES folders (organization_id, id));
         INSERT INTO organizations VALUES (1), (2);
         INSERT INTO folders SELECT g, CASE WHEN g > 2 THEN g - 2 END, CASE WHEN g <= 2 THEN g END FROM generate_series(1, 60) g;
         INSERT INTO files SELECT g, g FROM generate_series(1, 60) g",
    );
    let dry = lines(
        &mut client,
        "SELECT table_name, already_set, filled, unfilled FROM backfill_tenant_ids()",
    );
    let real = lines(
        &mut client,
        "SELECT table_name, already_set, filled, unfilled FROM backfill_tenant_ids(dry_run => false)",
    );
    assert_eq!(dry, ["folders|2|58|0", "files|0|60|0"]);
    assert_eq!(real, dry);
    assert_eq!(
        one(
            &mut client,
            "SELECT bool_and(organization_id = 2 - id % 2) FROM (SELECT * FROM folders UNION ALL SELECT id, 0, organization_id FROM files) x"
        ),
        "t"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT path FROM tenant_columns() WHERE table_name = 'files'"
        ),
        "folder_id -> folders.organization_id"
    );
}

#[test]
fn partitions_schemas_and_odd_names() {
    let (_database, mut client) = client(
        "CREATE SCHEMA \"Other one\"; CREATE SCHEMA billing;
         CREATE TABLE \"Tenant\" (\"Id\" int PRIMARY KEY);
         CREATE TABLE \"Other one\".\"Ünits; DROP\" (\"Id\" int PRIMARY KEY, \"tenantId\" int REFERENCES \"Tenant\");
         CREATE TABLE events (id int, \"tenantId\" int NOT NULL REFERENCES \"Tenant\", unit int REFERENCES \"Other one\".\"Ünits; DROP\") PARTITION BY LIST (\"tenantId\");
         CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
         CREATE TABLE logs (id int, at int, unit int REFERENCES \"Other one\".\"Ünits; DROP\", \"tenantId\" int REFERENCES \"Tenant\") PARTITION BY RANGE (at);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (10); CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM (10) TO (20);
         CREATE TABLE billing.logs (id int PRIMARY KEY, \"tenantId\" int);
         CREATE TABLE after_step_1 (id int PRIMARY KEY, unit int REFERENCES \"Other one\".\"Ünits; DROP\", \"tenantId\" int REFERENCES \"Tenant\");
         INSERT INTO \"Tenant\" VALUES (1), (2); INSERT INTO \"Other one\".\"Ünits; DROP\" VALUES (1, 1), (2, NULL);
         INSERT INTO events VALUES (1, 1, 1); INSERT INTO logs VALUES (1, 5, 1), (2, 15, 1), (3, 15, 2); INSERT INTO after_step_1 VALUES (1, 1)",
    );
    assert_eq!(
        lines(
            &mut client,
            "SELECT table_name, tenant_column, status, path FROM tenant_columns()"
        ),
        [
            "\"Other one\".\"Ünits; DROP\"|tenantId|needs_backfill|-",
            "billing.logs|tenantId|nullable|-",
            "\"Tenant\"|Id|root|-",
            "after_step_1|tenantId|needs_backfill|unit -> Other one.Ünits; DROP.tenantId",
            "events|tenantId|ready|unit -> Other one.Ünits; DROP.tenantId",
            "logs|tenantId|needs_backfill|unit -> Other one.Ünits; DROP.tenantId",
        ]
    );
    let counts = "table_name, already_set, filled, reasons";
    let expected = [
        "\"Other one\".\"Ünits; DROP\"|1|0|{\"no_source\": 1}",
        "billing.logs|0|0|{}",
        "events|1|0|{}",
        "after_step_1|0|1|{}",
        "logs|0|2|{\"source_null\": 1}",
    ];
    let mut dry = lines(&mut client, &format!("SELECT {counts} FROM backfill_tenant_ids()"));
    let mut real = lines(
        &mut client,
        &format!("SELECT {counts} FROM backfill_tenant_ids(dry_run => false)"),
    );
    assert_eq!(dry, real);
    dry.sort();
    let mut expected = expected.map(str::to_string).to_vec();
    expected.sort();
    assert_eq!(dry, expected);
    real.clear();
    assert_eq!(
        one(
            &mut client,
            "SELECT sum(total) || '/' || sum(populated) FROM backfill_coverage()"
        ),
        "7/5"
    );
}

#[test]
fn rows_that_a_policy_hides_are_never_counted_less() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    load_organizations(&mut admin);
    let role = format!("reader_{}", database.name);
    admin
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT grant_mend('{role}'); GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; REVOKE SELECT ON messages FROM {role}"))
        .unwrap();
    let mut reader = database.connect_as(&role);
    // The catalog may be read; what it says of rows is no more than ANALYZE knows and the role may see.
    assert_eq!(
        lines(
            &mut reader,
            "SELECT status, note FROM tenant_columns() WHERE table_name IN ('conversations', 'messages') ORDER BY table_name"
        ),
        [
            "needs_backfill|NULLs are possible; backfill_coverage() counts",
            "needs_backfill|NULLs are possible; backfill_coverage() counts; 2 paths: a run compares them, rows where they differ are conflicts",
        ]
    );
    let failed = failure(&mut reader, "SELECT * FROM backfill_coverage()");
    assert_eq!(failed.code, "42501");
    assert!(
        failed
            .detail
            .contains("row-level security of conversations would hide rows from you")
            && failed.detail.contains("permission denied to read messages"),
        "{failed:?}"
    );
    let failed = failure(&mut reader, "SELECT * FROM backfill_tenant_ids(dry_run => false)");
    assert_eq!(failed.code, "42501");
    let not_checked = "SELECT table_name, checked FROM dead_columns() WHERE verdict = 'not_checked'";
    let not_checked = lines(&mut reader, not_checked);
    assert!(
        not_checked.len() == 2
            && not_checked[0].starts_with("conversations|row-level security")
            && not_checked[1].starts_with("messages|permission denied"),
        "{not_checked:?}"
    );
}

#[test]
fn a_role_sees_what_its_own_runs_replaced() {
    let database = pgrx_tests::database();
    let mut admin = database.connect();
    let (owner, other) = (format!("owner_{}", database.name), format!("other_{}", database.name));
    admin
        .batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {other} LOGIN; SELECT grant_mend('{owner}'); SELECT grant_mend('{other}');
             GRANT CREATE ON SCHEMA public TO {owner}"
        ))
        .unwrap();
    let mut client = database.connect_as(&owner);
    client
        .batch_execute(
            "CREATE TABLE organizations (id int PRIMARY KEY); CREATE TABLE sites (id int PRIMARY KEY, organization_id int REFERENCES organizations);
             CREATE TABLE pages (id int PRIMARY KEY, site_id int REFERENCES sites, organization_id int REFERENCES organizations);
             INSERT INTO organizations VALUES (1), (2); INSERT INTO sites VALUES (1, 1); INSERT INTO pages VALUES (1, 1, 2), (2, 1, 1)",
        )
        .unwrap();
    assert_eq!(
        one(
            &mut client,
            "SELECT filled FROM backfill('pages', 'organization_id', overwrite => 'mismatched', dry_run => false)"
        ),
        "1"
    );
    let kept = "SELECT row_key, old_value, new_value FROM mend.replaced_values";
    assert_eq!(lines(&mut client, kept), [r#"{"id": 1}|2|1"#]);
    assert!(lines(&mut database.connect_as(&other), kept).is_empty());
    assert_eq!(lines(&mut admin, kept).len(), 1);
}

#[test]
fn the_map_shows_the_tables_from_the_tenants_downwards() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_organizations(&mut client);
    let tree = one(&mut client, "SELECT tenant_map(format => 'tree')");
    assert!(
        tree.starts_with("organizations  (id: root; ~3 rows)\n├── domains  by organization_id"),
        "{tree}"
    );
    assert!(tree.contains("│   │   └── messages  by conversation_id"), "{tree}");
    assert!(tree.contains("without a path to the tenant:\n  languages"), "{tree}");
    let map = one(&mut client, "SELECT tenant_map()");
    assert!(map.starts_with("flowchart LR\n"), "{map}");
    // Every table is a node once, and every edge joins two nodes.
    let tables = one(&mut client, "SELECT count(*) FROM tenant_columns()");
    let nodes: Vec<&str> = map.lines().filter(|line| line.contains("[\"<b>")).collect();
    assert_eq!(nodes.len().to_string(), tables);
    let ids: Vec<&str> = nodes
        .iter()
        .map(|line| line.trim().split('[').next().unwrap())
        .collect();
    let edges = map.lines().filter(|line| line.contains("->|"));
    let mut count = 0;
    for edge in edges {
        let words: Vec<&str> = edge.split_whitespace().collect();
        assert!(ids.contains(&words[0]) && ids.contains(words.last().unwrap()), "{edge}");
        count += 1;
    }
    assert_eq!(count, 10, "{map}");
}

#[test]
fn names_in_the_map_cannot_break_out_of_their_labels() {
    let (_database, mut client) = client(
        "CREATE TABLE tenants (id int PRIMARY KEY);
         CREATE TABLE \"a\"\"]; click x --> end `<b>#quot;\" (id int PRIMARY KEY, \"tenant\"\" |-->|\" int REFERENCES tenants);
         CREATE TABLE \"end\" (id int PRIMARY KEY, tenant_id int REFERENCES tenants)",
    );
    let map = one(&mut client, "SELECT tenant_map()");
    let node = map.lines().find(|line| line.contains("click")).unwrap();
    assert_eq!(
        node,
        "  t0[\"<b>#34;a#34;#34;#93;#59; click x --#62; end #96;#60;b#62;#35;quot#59;#34;</b><br/>tenant#34; #124;--#62;#124;: nullable\"]:::is_nullable"
    );
}

#[test]
fn the_party_example_has_its_tenant_too() {
    let database = pgrx_tests::database();
    let mut client = database.connect();
    load_party(&mut client);
    assert_eq!(
        one(
            &mut client,
            "SELECT table_name FROM tenant_columns() WHERE status = 'root'"
        ),
        "\"Tenant\""
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT status || ': ' || path FROM tenant_columns() WHERE table_name = '\"AnimalOwner\"'"
        ),
        "needs_column: animalId -> Animal.tenantId"
    );
}

#[test]
fn a_standby_can_be_asked_everything_that_only_reads() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let database = cluster.database().unwrap();
    let mut client = database.connect();
    load_organizations(&mut client);
    let standby = cluster.standby().unwrap();
    let mut reader = standby.connect(&database.name, "postgres").unwrap();
    for call in [
        "tenant_columns()",
        "backfill_tenant_ids()",
        "backfill_coverage()",
        "tenant_map()",
        "dead_columns()",
    ] {
        assert!(
            !lines(&mut reader, &format!("SELECT * FROM {call}")).is_empty(),
            "{call}"
        );
    }
    assert_eq!(
        failure(&mut reader, "SELECT * FROM backfill_tenant_ids(dry_run => false)").code,
        "25006"
    );
}
