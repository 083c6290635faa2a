//! Small schemas, and what is found in them.

use super::*;
use crate::catalog::testing::Builder;

fn paths(catalog: &Catalog, root: &str, table: &str) -> Vec<String> {
    let keys = TenantKeys::find(catalog, catalog.resolve_table(root).unwrap()).unwrap();
    let table = catalog.resolve_table(table).unwrap();
    let found = keys.paths(table, keys.of(table).first());
    let shown = found.found.iter().map(|p| p.source.to_path(catalog, table).to_string());
    shown.collect()
}

fn columns(catalog: &Catalog, root: &str, table: &str) -> Vec<String> {
    let keys = TenantKeys::find(catalog, catalog.resolve_table(root).unwrap()).unwrap();
    let table = catalog.resolve_table(table).unwrap();
    let name = |key: &TenantKey| table.column(key.column).unwrap().name.clone();
    keys.of(table).iter().map(name).collect()
}

/// organizations → domains → conversations → messages, the last two without or with a column to fill.
fn chat() -> Builder {
    Builder::new()
        .table("organizations", &["id"])
        .table("domains", &["id", "organization_id"])
        .references("domains", "organization_id", "organizations")
        .table("conversations", &["id", "domain_id"])
        .references("conversations", "domain_id", "domains")
}

#[test]
fn a_path_ends_at_the_first_row_that_carries_the_key() {
    let catalog = chat()
        .table("messages", &["id", "conversation_id", "organization_id?"])
        .references("messages", "conversation_id", "conversations")
        .references("messages", "organization_id", "organizations")
        .table("attachments", &["id", "message_id"])
        .references("attachments", "message_id", "messages")
        .build();
    assert_eq!(
        paths(&catalog, "organizations", "messages"),
        ["conversation_id -> conversations.domain_id -> domains.organization_id"]
    );
    assert_eq!(
        paths(&catalog, "organizations", "attachments"),
        ["message_id -> messages.organization_id"]
    );
    assert!(paths(&catalog, "organizations", "domains").is_empty());
}

/// Two parents that carry the key; the first column leads to `first`.
fn two(first: &str, second: &str) -> Builder {
    Builder::new()
        .table("organizations", &["id"])
        .table("item", &["id", "organization_id"])
        .references("item", "organization_id", "organizations")
        .table("pack", &["id", "organization_id"])
        .references("pack", "organization_id", "organizations")
        .table("line", &["id", first, second, "organization_id?"])
        .references("line", "organization_id", "organizations")
}

#[test]
fn the_first_signal_that_differs_decides() {
    let plain = two("item_id", "pack_id")
        .references("line", "item_id", "item")
        .references("line", "pack_id", "pack")
        .build();
    assert_eq!(
        paths(&plain, "organizations", "line"),
        ["item_id -> item.organization_id", "pack_id -> pack.organization_id"],
        "the earlier column"
    );
    let cascading = two("item_id", "pack_id")
        .references("line", "item_id", "item")
        .cascades("line", "pack_id", "pack")
        .build();
    assert_eq!(
        paths(&cascading, "organizations", "line")[0],
        "pack_id -> pack.organization_id"
    );
    let nullable = two("item_id", "pack_id?")
        .references("line", "item_id", "item")
        .cascades("line", "pack_id", "pack")
        .build();
    assert_eq!(
        paths(&nullable, "organizations", "line")[0],
        "item_id -> item.organization_id",
        "NOT NULL before ON DELETE CASCADE"
    );
    let in_front = Builder::new()
        .table("projects", &["id"])
        .table("users", &["id", "project_id"])
        .references("users", "project_id", "projects")
        .table("issues", &["id", "project_id"])
        .references("issues", "project_id", "projects")
        .table("issue_links", &["id", "user_id", "issue_id"])
        .references("issue_links", "user_id", "users")
        .references("issue_links", "issue_id", "issues")
        .build();
    assert_eq!(
        paths(&in_front, "projects", "issue_links")[0],
        "issue_id -> issues.project_id"
    );
    let nullable_key = Builder::new()
        .table("projects", &["id"])
        .table("issues", &["id", "project_id?"])
        .references("issues", "project_id", "projects")
        .table("boards", &["id", "project_id"])
        .references("boards", "project_id", "projects")
        .table("issue_links", &["id", "issue_id", "board_id"])
        .references("issue_links", "issue_id", "issues")
        .references("issue_links", "board_id", "boards")
        .build();
    assert_eq!(
        paths(&nullable_key, "projects", "issue_links")[0],
        "board_id -> boards.project_id"
    );
}

#[test]
fn a_declared_path_before_one_that_only_a_name_says() {
    let catalog = two("item_id", "pack_id?").references("line", "pack_id", "pack").build();
    assert_eq!(
        paths(&catalog, "organizations", "line"),
        ["pack_id -> pack.organization_id", "item_id -> item.organization_id"]
    );
}

#[test]
fn the_key_is_told_by_what_it_references() {
    let catalog = Builder::new()
        .table("profiles", &["id"])
        .table("properties", &["id", "org_id"])
        .references("properties", "org_id", "profiles")
        .table("agent_runs", &["id", "org_id", "started_by"])
        .references("agent_runs", "org_id", "profiles")
        .references("agent_runs", "started_by", "profiles")
        .table("orders", &["id", "created_by"])
        .references("orders", "created_by", "profiles")
        .table("notes", &["id", "org_id?"])
        .table("contacts", &["id", "order_id"])
        .references("contacts", "order_id", "orders")
        .build();
    assert_eq!(columns(&catalog, "profiles", "orders"), ["created_by"]);
    assert_eq!(
        columns(&catalog, "profiles", "agent_runs"),
        ["org_id"],
        "started_by is a role"
    );
    assert_eq!(
        columns(&catalog, "profiles", "notes"),
        ["org_id"],
        "named like the others"
    );
    assert_eq!(
        paths(&catalog, "profiles", "contacts"),
        ["order_id -> orders.created_by"]
    );
}

#[test]
fn several_keys_in_one_row_take_the_path_of_their_own_role() {
    let catalog = Builder::new()
        .table("organizations", &["id"])
        .table("accounts", &["id", "organization_id"])
        .references("accounts", "organization_id", "organizations")
        .table(
            "transfers",
            &["id", "from_account_id", "to_account_id", "from_org", "to_org"],
        )
        .references("transfers", "from_account_id", "accounts")
        .references("transfers", "to_account_id", "accounts")
        .references("transfers", "from_org", "organizations")
        .references("transfers", "to_org", "organizations")
        .build();
    assert_eq!(columns(&catalog, "organizations", "transfers"), ["from_org", "to_org"]);
    let keys = TenantKeys::find(&catalog, catalog.resolve_table("organizations").unwrap()).unwrap();
    let table = catalog.resolve_table("transfers").unwrap();
    let to = keys.paths(table, keys.of(table).last());
    let shown: Vec<String> = to
        .found
        .iter()
        .map(|p| p.source.to_path(&catalog, table).to_string())
        .collect();
    assert_eq!(shown, ["to_account_id -> accounts.organization_id"]);
}

#[test]
fn trees_cycles_composite_keys_and_other_keys_of_the_root() {
    let catalog = Builder::new()
        .table("organizations", &["id", "slug"])
        .table("folders", &["id", "parent_id?", "organization_id?"])
        .references("folders", "parent_id", "folders")
        .references("folders", "organization_id", "organizations")
        .table("chickens", &["id", "egg_id"])
        .table("eggs", &["id", "chicken_id"])
        .references("chickens", "egg_id", "eggs")
        .references("eggs", "chicken_id", "chickens")
        .table("sites", &["id", "org_slug"])
        .references_key("sites", &["org_slug"], "organizations", &[2], 'n')
        .table("files", &["id", "organization_id?", "folder_id"])
        .references_key("files", &["organization_id", "folder_id"], "folders", &[3, 1], 'n')
        .build();
    let mut catalog = catalog;
    for (table, columns) in [("organizations", vec![2]), ("folders", vec![3, 1])] {
        let table = catalog.tables.iter_mut().find(|t| t.name == table).unwrap();
        table.keys.push(crate::catalog::Key {
            name: "other".into(),
            columns,
            primary: false,
            immediate: true,
        });
    }
    assert_eq!(
        paths(&catalog, "organizations", "folders"),
        ["parent_id -> folders.organization_id"]
    );
    assert!(paths(&catalog, "organizations", "chickens").is_empty());
    assert_eq!(
        paths(&catalog, "organizations", "sites"),
        ["org_slug -> organizations(slug).id"]
    );
    assert_eq!(
        paths(&catalog, "organizations", "files"),
        ["folder_id -> folders.organization_id"],
        "the key to fill is no part of the way to it"
    );
}

#[test]
fn a_dense_graph_does_not_take_forever() {
    let names: Vec<String> = (0..60).map(|i| format!("t{i}")).collect();
    let columns: Vec<String> = (0..60).map(|i| format!("c{i}")).collect();
    let mut all: Vec<&str> = vec!["id"];
    all.extend(columns.iter().map(String::as_str));
    let mut builder = Builder::new()
        .table("tenants", &["id"])
        .table("last", &["id", "tenant_id"]);
    builder = builder.references("last", "tenant_id", "tenants");
    for name in &names {
        builder = builder.table(name, &all);
    }
    for (i, name) in names.iter().enumerate() {
        for (j, other) in names.iter().enumerate().filter(|(j, _)| *j != i) {
            builder = builder.references(name, &columns[j], other);
        }
    }
    let catalog = builder.references("t59", "c59", "last").build();
    assert!(!paths(&catalog, "tenants", "t0").is_empty());
}

#[test]
fn a_row_with_two_tenants_gives_the_one_that_it_must_have_or_both() {
    let schema = |source: &str, target: &str| {
        Builder::new()
            .table("projects", &["id"])
            .table("merge_requests", &["id", source, target])
            .references("merge_requests", "source_project_id", "projects")
            .references("merge_requests", "target_project_id", "projects")
            .table("diffs", &["id", "merge_request_id"])
            .references("diffs", "merge_request_id", "merge_requests")
            .build()
    };
    let told = schema("source_project_id?", "target_project_id");
    assert_eq!(columns(&told, "projects", "merge_requests"), ["target_project_id"]);
    assert_eq!(
        paths(&told, "projects", "diffs"),
        ["merge_request_id -> merge_requests.target_project_id"]
    );
    let open = schema("source_project_id", "target_project_id");
    assert_eq!(
        columns(&open, "projects", "merge_requests"),
        ["source_project_id", "target_project_id"]
    );
    assert_eq!(
        paths(&open, "projects", "diffs"),
        [
            "merge_request_id -> merge_requests.source_project_id",
            "merge_request_id -> merge_requests.target_project_id"
        ]
    );
}

#[test]
fn a_missing_key_is_called_as_most_are_or_after_the_root() {
    let called = |builder: Builder, root: &str| {
        let catalog = builder.build();
        let keys = TenantKeys::find(&catalog, catalog.resolve_table(root).unwrap()).unwrap();
        let column = keys.new_column();
        column.split(' ').next().unwrap().to_string()
    };
    assert_eq!(called(chat(), "organizations"), "organization_id");
    // What one table calls its own way says nothing of the others.
    let profiles = || {
        Builder::new()
            .table("profiles", &["id"])
            .table("notes", &["id", "body"])
    };
    let orders = profiles()
        .table("orders", &["id", "assigned_to"])
        .references("orders", "assigned_to", "profiles");
    assert_eq!(called(orders, "profiles"), "profile_id");
    let by_most = ["orders", "properties", "photos"];
    let by_most = by_most.into_iter().fold(profiles(), |builder, table| {
        builder
            .table(table, &["id", "created_by"])
            .references(table, "created_by", "profiles")
    });
    assert_eq!(called(by_most, "profiles"), "\"created_by\"");
    let camel = Builder::new()
        .table("Tenant", &["id"])
        .table("Order", &["id", "ownedBy"])
        .references("Order", "ownedBy", "Tenant");
    assert_eq!(called(camel, "Tenant"), "\"tenantId\"");
}
