//! The example databases of `examples/`, and helpers for looking at results.

use postgres::Client;

/// The party model half-way, every situation in every table.
pub const PARTY: &str = include_str!("../../examples/party.sql");

/// The organizations half-way: every status of a tenant key, trees, two paths that disagree, a view and a policy on top.
pub const ORGANIZATIONS: &str = include_str!("../../examples/organizations.sql");

/// Orders with an address, and properties to be created from them: seed data with every reason.
pub const PROPERTIES: &str = include_str!("../../examples/properties.sql");

/// The database in which a migration failed: users and reports, and no organizations.
pub const ASCORA: &str = include_str!("../../examples/ascora.sql");

/// Its migrations, by the names of their files.
pub const MIGRATIONS: &[(&str, &str)] = &[
    (
        "005_organizations.sql",
        include_str!("../../examples/migrations/005_organizations.sql"),
    ),
    (
        "006_ascora_integration.sql",
        include_str!("../../examples/migrations/006_ascora_integration.sql"),
    ),
];

/// Every table of the party model with the column to fill, in the order of a run over all of them.
pub const PARTY_COLUMNS: &[(&str, &str)] = &[
    ("Contact", "partyId"),
    ("Organization", "partyId"),
    ("User", "partyId"),
    ("Animal", "buyerPartyId"),
    ("AnimalOwner", "partyId"),
    ("BreedingAttempt", "studOwnerPartyId"),
    ("ContractParty", "partyId"),
    ("Invoice", "clientPartyId"),
    ("Message", "senderPartyId"),
    ("Offspring", "buyerPartyId"),
    ("OffspringContract", "buyerPartyId"),
    ("OffspringGroupBuyer", "buyerPartyId"),
    ("PlanParty", "partyId"),
    ("TagAssignment", "taggedPartyId"),
    ("WaitlistEntry", "clientPartyId"),
];

/// Loads the party example.
pub fn load_party(client: &mut Client) {
    client
        .batch_execute(PARTY)
        .unwrap_or_else(|error| panic!("examples/party.sql: {error:?}"));
}

/// Loads the organizations example.
pub fn load_organizations(client: &mut Client) {
    client
        .batch_execute(ORGANIZATIONS)
        .unwrap_or_else(|error| panic!("examples/organizations.sql: {error:?}"));
}

/// Loads the properties example.
pub fn load_properties(client: &mut Client) {
    client
        .batch_execute(PROPERTIES)
        .unwrap_or_else(|error| panic!("examples/properties.sql: {error:?}"));
}

/// Loads the example of a migration that failed: the database of before, and the scripts by name in the table `scripts`.
pub fn load_ascora(client: &mut Client) {
    client
        .batch_execute(ASCORA)
        .unwrap_or_else(|error| panic!("examples/ascora.sql: {error:?}"));
    client
        .batch_execute("CREATE TABLE scripts (name text PRIMARY KEY, script text NOT NULL)")
        .unwrap_or_else(|error| panic!("scripts: {error:?}"));
    for (name, script) in MIGRATIONS {
        client
            .execute("INSERT INTO scripts VALUES ($1, $2)", &[&name, &script])
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

/// One line per row of the query, values joined with `|`, NULL as `-`.
pub fn lines(client: &mut Client, sql: &str) -> Vec<String> {
    let messages = client
        .simple_query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .into_iter()
        .filter_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => {
                let cells: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("-")).collect();
                Some(cells.join("|"))
            }
            _ => None,
        })
        .collect()
}

/// The only value of the query.
pub fn one(client: &mut Client, sql: &str) -> String {
    let lines = lines(client, sql);
    assert_eq!(lines.len(), 1, "{sql}: {lines:?}");
    lines.into_iter().next().unwrap_or_default()
}

/// SQLSTATE, message, DETAIL and HINT that a statement fails with.
#[derive(Debug)]
pub struct Failure {
    /// Five letters.
    pub code: String,
    /// The message.
    pub message: String,
    /// DETAIL, empty if none.
    pub detail: String,
    /// HINT, empty if none.
    pub hint: String,
}

/// Runs a statement that must fail.
pub fn failure(client: &mut Client, sql: &str) -> Failure {
    match client.simple_query(sql) {
        Ok(_) => panic!("did not fail: {sql}"),
        Err(error) => {
            let error = error
                .as_db_error()
                .unwrap_or_else(|| panic!("{sql}: {error:?}"))
                .clone();
            Failure {
                code: error.code().code().into(),
                message: error.message().into(),
                detail: error.detail().unwrap_or_default().into(),
                hint: error.hint().unwrap_or_default().into(),
            }
        }
    }
}

/// Rows whose parent is another tenant's, for each reference of the tables on the search_path.
pub fn crossing(client: &mut Client, root: &str) -> std::collections::BTreeMap<String, i64> {
    let sql = format!(
        "SELECT concat_ws(' ', table_name, column_name, parent_table, parent_column) AS reference, cross_tenant::text
         FROM public.validate_tenant_fks('{root}', samples => 0)
         WHERE cross_tenant IS NOT NULL AND table_name <> 'total' AND to_regclass(table_name) IS NOT NULL"
    );
    let rows = client.simple_query(&sql).unwrap_or_else(|error| panic!("{error:?}"));
    let rows = rows.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => Some((
            row.get(0).unwrap_or_default().to_string(),
            row.get(1).unwrap_or_default().parse().unwrap_or(i64::MAX),
        )),
        _ => None,
    });
    rows.collect()
}

/// No reference leads to another tenant in more rows than before.
pub fn nothing_crosses_now(
    client: &mut Client,
    root: &str,
    before: &std::collections::BTreeMap<String, i64>,
    context: &str,
) {
    for (reference, rows) in crossing(client, root) {
        let was = before.get(&reference).copied().unwrap_or(0);
        assert!(
            rows <= was,
            "{reference}: {rows} rows lead to another tenant, {was} before; {context}"
        );
    }
}
