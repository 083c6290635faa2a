//! What is in the way of filling a table, whatever it is filled from: its kind, the column, what it enforces, what refers to it.

use pgrx::prelude::PgSqlErrorCode;
use serde_json::{Map, Value};

use super::Session;
use crate::catalog::{Column, Details, Table};
use crate::identifier::Literal;
use crate::problem::Problem;
use crate::rule::Source;
use crate::rule::check::Problems;

/// Adds why rows of this kind of relation cannot be written.
pub fn relation_can_be_filled(session: &Session, table: &Table, problems: &mut Problems) {
    let shown = session.catalog.display(table);
    let what = match table.kind {
        'r' | 'p' => {
            if table.of_extension {
                problems.push(
                    Problem::new(
                        PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                        format!("{shown} belongs to an extension"),
                    )
                    .hint("pg_mend fills tables of your own"),
                );
            }
            problems.keep(rows_are_here(session, table));
            return;
        }
        'v' => "a view",
        'm' => "a materialized view",
        'f' => "a foreign table",
        _ => "a composite type",
    };
    let problem = Problem::new(
        PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
        format!("{shown} is {what}, it cannot be filled"),
    );
    problems.push(match table.kind {
        'f' => problem
            .detail("its rows are on another server: what is written there cannot be proved or rolled back here")
            .hint("install pg_mend on that server and run it there"),
        'c' => problem.hint("name a table that uses the type"),
        _ => problem.hint("name the table below it"),
    });
}

/// Are the rows of a table on this server, and no other's business?
///
/// Citus keeps them in shards on several nodes: a lock, a snapshot and the ids of what was written hold on one node only, so that nothing
/// of it can be proved. A dry run is refused as well: it would promise what the real run cannot do.
///
/// Errors: 0A000 for a distributed or reference table, and for every table where this node is a worker.
pub fn rows_are_here(session: &Session, table: &Table) -> Result<(), Problem> {
    let shown = session.catalog.display(table);
    let refused = |message: String| Problem::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
    if session.placement.worker {
        return Err(
            refused(format!("this server is a worker of Citus: {shown} is not written here"))
                .detail("its tables are copies of the coordinator's, or shards of them")
                .hint("run the call on the coordinator"),
        );
    }
    match session.placement.tables.iter().find(|(oid, _)| *oid == table.oid) {
        None => Ok(()),
        Some((_, kind)) => Err(refused(format!("{shown} is a {kind} table of Citus, which pg_mend does not write yet"))
            .detail("its rows are on several nodes, each with snapshots and transaction ids of its own: what was written cannot be proved")
            .hint("SELECT undistribute_table(...) brings its rows back to the coordinator; or fill it before it is distributed")),
    }
}

/// Adds why nobody can write this column.
pub fn column_can_be_filled(session: &Session, table: &Table, column: &Column, problems: &mut Problems) {
    let name = format!("{}.{}", session.catalog.display(table), column.quoted);
    if column.generated {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS,
                format!("{name} is a generated column"),
            )
            .detail("Postgres computes its values from other columns of the row")
            .hint("fill the columns that its expression reads"),
        );
    } else if column.identity_always {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS,
                format!("{name} is GENERATED ALWAYS AS IDENTITY"),
            )
            .hint("an identity column is never NULL: there is nothing to fill"),
        );
    }
}

/// Adds what the table enforces in a way that cannot be predicted.
pub fn details_can_be_predicted(
    session: &Session,
    table: &Table,
    column: &Column,
    details: &Details,
    problems: &mut Problems,
) {
    let shown = session.catalog.display(table);
    let mut refuse = |message: String, hint: &str| {
        problems.push(Problem::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message).hint(hint));
    };
    if details.partition_key {
        refuse(
            format!("{}.{} is part of the partition key", shown, column.quoted),
            "filling it would move rows between partitions: create the table anew with the key filled",
        );
    }
    for exclusion in &details.exclusions {
        refuse(
            format!(
                "exclusion constraint {} uses {}: what it refuses cannot be predicted",
                exclusion.name, column.quoted
            ),
            "drop the constraint for the backfill and add it again afterwards",
        );
    }
    for rule in &details.update_rules {
        refuse(
            format!("rule {rule} rewrites every UPDATE of {shown}"),
            "disable it for the backfill: ALTER TABLE ... DISABLE RULE ...",
        );
    }
    for check in details.checks.iter().filter(|check| check.columns.contains(&0)) {
        refuse(
            format!(
                "CHECK {} of {shown} reads the whole row: what it refuses cannot be predicted",
                check.name
            ),
            "write the constraint over single columns",
        );
    }
    if !details.partition_only.is_empty() {
        refuse(
            format!(
                "single partitions of {shown} have constraints or triggers of their own: {}",
                details.partition_only.join(", ")
            ),
            "fill those partitions by their own names, one call each",
        );
    }
}

/// What is replaced must be found again.
pub fn overwriting_can_be_kept(session: &Session, table: &Table, column: Option<&Column>, problems: &mut Problems) {
    let shown = session.catalog.display(table);
    let Some(key) = table.primary_key() else {
        let next = match table.kind {
            'p' => format!("give {shown} a primary key (of a partitioned table it must contain the partition key)"),
            _ if table.column_named("id").is_some() => format!("ALTER TABLE {shown} ADD PRIMARY KEY (id)"),
            _ => format!("ALTER TABLE {shown} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
        };
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
                format!("{shown} has no primary key, so what is overwritten could not be put back"),
            )
            .hint(next),
        );
        return;
    };
    // ON UPDATE CASCADE and SET NULL would change rows of other tables, of which nothing would be kept.
    let catalog = &session.catalog;
    let referencing = catalog
        .foreign_keys
        .iter()
        .filter(|foreign| foreign.parent == table.oid);
    let by_column: Vec<String> = referencing
        .filter(|foreign| column.is_some_and(|column| foreign.parent_columns.contains(&column.number)))
        .filter_map(|foreign| {
            Some(format!(
                "{} of {}",
                foreign.name,
                catalog.display(catalog.table(foreign.table)?)
            ))
        })
        .collect();
    if let Some(column) = column.filter(|_| !by_column.is_empty()) {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "{shown}.{} is referenced by other rows, which would follow or stand in the way",
                    column.quoted
                ),
            )
            .detail(format!("foreign keys to it: {}", by_column.join(", ")))
            .hint("drop them first, repair both tables, and add them again NOT VALID, then VALIDATE"),
        );
    }
    if let Some(column) = column.filter(|column| key.columns.contains(&column.number)) {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "{shown}.{} is part of the primary key, by which a replaced value is found again",
                    column.quoted
                ),
            )
            .hint("move the rows by hand, or give the table a primary key without it"),
        );
    }
}

/// A source that leads through the column itself (up a tree) gives more values while the run goes on. There may be one,
/// which finds one row; it comes last, because what the others say does not change.
pub fn tree_can_be_followed(
    session: &Session,
    table: &Table,
    column: &Column,
    sources: &mut [Source],
    problems: &mut Problems,
) {
    let feeds = |source: &Source| source.reads(table.oid, column.number);
    let feeding: Vec<String> = sources
        .iter()
        .filter(|source| feeds(source))
        .map(|source| source.to_path(&session.catalog, table).to_string())
        .collect();
    let ends_there = |source: &Source| source.value(table.oid) == Some((table.oid, column.number));
    let simple = sources
        .iter()
        .filter(|source| feeds(source))
        .all(|source| ends_there(source) && source.is_unique(&session.catalog));
    let shown = session.catalog.display(table);
    if feeding.len() > 1 {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "{} sources lead through {shown}.{} itself",
                    feeding.len(),
                    column.quoted
                ),
            )
            .detail(format!(
                "{}: the result depends on the order in which these sources are used",
                feeding.join(", ")
            ))
            .hint("name one of them, and run again with another for the rows that are left"),
        );
    } else if !simple {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("{} leads through {shown}.{} itself", feeding.join(", "), column.quoted),
            )
            .detail("such a path can only be followed where it ends in the column, by keys that are unique")
            .hint("name a path up the tree, as in 'parent_id -> the_table.the_column'"),
        );
    }
    sources.sort_by_key(feeds);
}

/// Columns that a new row needs, with types and labels in words; and an example that gives each a value, as a JSON object.
///
/// * `expressions`: the values are SQL expressions, so that texts stand in quotes.
pub fn required_columns(session: &Session, missing: &[&Column], expressions: bool) -> (String, Map<String, Value>) {
    let type_of = |c: &Column| session.catalog.base_type(c.type_oid, c.type_modifier).map(|(t, _)| t);
    let text = |text: &str| match expressions {
        true => Literal::new(text).to_string(),
        false => text.to_string(),
    };
    let mut list: Vec<String> = Vec::new();
    let mut example = Map::new();
    for column in missing {
        let (change, value) = match type_of(column) {
            Some(t) if t.kind == 'e' => (
                format!("{} {} ({})", column.quoted, t.display, t.labels.join(", ")),
                text(t.labels.first().map_or("", String::as_str)),
            ),
            Some(t) if t.category == 'N' => (format!("{} {}", column.quoted, t.display), "0".into()),
            Some(t) => (format!("{} {}", column.quoted, t.display), text("...")),
            None => (column.quoted.clone(), text("...")),
        };
        list.push(change);
        example.insert(column.name.clone(), value.into());
    }
    (list.join(", "), example)
}
