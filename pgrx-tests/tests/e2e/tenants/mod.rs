//! Tenant keys by inference: the example, every status, what is refused, what is replaced, the map.

mod map;
mod overwrite;
mod refusals;
mod trees;

use pgrx_tests::database_with;
use pgrx_tests::example::{failure, lines, load_organizations, load_party, one};
use pgrx_tests::{Cluster, Options};

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
fn the_key_is_told_by_what_it_references_not_by_its_name() {
    // Seed 000's table.
    let (_database, mut client) = database_with(
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
    let (_database, mut client) = database_with(
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
    assert!(note("replies").starts_with("thread_id looks like a reference to a table that does not exist"));
    assert!(note("unproved").contains("the foreign key on user_id of unproved is not valid"));
    assert!(note("transfers").starts_with("several columns reference organizations"));
    assert!(note("filled_by_name").starts_with("organization_id has no foreign key"));
    let wrong = note("wrong_type");
    // The next step that a note gives can be pasted.
    let statement = wrong
        .split("; ")
        .find_map(|part| part.find("ALTER TABLE").map(|at| &part[at..]))
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
fn a_row_may_belong_to_a_project_or_to_a_group() {
    let (_database, mut client) = database_with(
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
fn partitions_schemas_and_odd_names() {
    let (_database, mut client) = database_with(
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

#[test]
fn a_column_that_references_the_root_in_another_role_does_not_say_whose_the_row_is() {
    let (_database, mut client) = database_with(
        "CREATE TABLE organizations (id int PRIMARY KEY); CREATE TABLE partners (id int PRIMARY KEY, represents int REFERENCES organizations);
         CREATE TABLE sites (id int PRIMARY KEY, organization_id int NOT NULL REFERENCES organizations);
         CREATE TABLE tasks (id int PRIMARY KEY, organization_id int NOT NULL REFERENCES organizations, partner_id int REFERENCES partners,
                             assigned_to int REFERENCES organizations);
         INSERT INTO organizations VALUES (1), (2); INSERT INTO partners VALUES (1, 2); INSERT INTO tasks VALUES (1, 1, 1, NULL), (2, 2, 1, NULL)",
    );
    let row = one(
        &mut client,
        "SELECT filled, reasons, note FROM backfill('tasks', 'assigned_to', ARRAY['partner_id -> partners.represents'], tenant => '1')",
    );
    assert!(
        row.starts_with("1|{\"excluded\": 1}|restricted to organization_id = 1"),
        "{row}"
    );
}
