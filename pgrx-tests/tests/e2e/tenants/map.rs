//! The map.

use pgrx_tests::database_with;
use pgrx_tests::example::{load_organizations, one};

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
    let (_database, mut client) = database_with(
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
