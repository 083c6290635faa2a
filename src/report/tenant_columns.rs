//! `tenant_columns`: the tenant key of each table, how far it is, and the path to its value.
//!
//! From the catalog, with one look at the data: whether a nullable key has a NULL. Small tables and keys with an index
//! are asked themselves; of the others the statistics of ANALYZE can show that there are NULLs, never that there are none.

use std::collections::BTreeSet;

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use crate::catalog::{Column, State, Table};
use crate::identifier::Literal;
use crate::infer::InferError;
use crate::infer::tenancy::keys::{KeyPaths, Paths, TenantKey, TenantKeys, TenantSource, in_order};
use crate::pg::Settings;
use crate::problem::Problem;
use crate::run::{Session, tenant_keys};

/// A table of at most this many bytes is read to see whether its key has a NULL. (4 MiB: about a millisecond; a thousand
/// of them stay within what a catalog call may take.)
const SMALL: i64 = 4 << 20;

/// How many tables are asked by one statement.
const AT_ONCE: usize = 200;

/// How far a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It holds the tenants.
    Root,
    /// The key is NOT NULL and its foreign key valid.
    Ready,
    /// Nothing is NULL, but something may be.
    Nullable,
    /// The key is NOT NULL; a valid foreign key is missing.
    Unconstrained,
    /// The key is there, NULLs are possible or seen.
    NeedsBackfill,
    /// A path exists; a column that can hold the tenant does not.
    NeedsColumn,
    /// No path: the rows are everybody's.
    Shared,
    /// Several columns could be the key.
    Ambiguous,
    /// Only paths through references that no foreign key declares, or to a table that is gone.
    Unreachable,
}

impl Status {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Root => "root",
            Status::Ready => "ready",
            Status::Nullable => "nullable",
            Status::Unconstrained => "unconstrained",
            Status::NeedsBackfill => "needs_backfill",
            Status::NeedsColumn => "needs_column",
            Status::Shared => "shared",
            Status::Ambiguous => "ambiguous",
            Status::Unreachable => "unreachable",
        }
    }
}

/// One row of the report.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantColumn {
    /// pg_class.oid
    pub oid: u32,
    /// As displayed.
    pub table: String,
    /// The bare name of the key.
    pub column: Option<String>,
    /// How far it is.
    pub status: Status,
    /// The best path to its value.
    pub path: Option<String>,
    /// The others, best first.
    pub alternatives: Vec<String>,
    /// The foreign key to the root.
    pub constraint: Option<String>,
    /// `valid`, `not_valid`, `not_enforced`, `missing`.
    pub constraint_state: Option<&'static str>,
    /// Declared NOT NULL.
    pub not_null: Option<bool>,
    /// An index starts with it.
    pub indexed: Option<bool>,
    /// Row-level security is on for the table.
    pub row_security: bool,
    /// From ANALYZE; `None` where it never ran.
    pub estimated_rows: Option<i64>,
    /// The share of rows whose key is set, from ANALYZE (1 where a look at all rows found no NULL).
    pub filled: Option<f32>,
    /// What else there is to know.
    pub note: Option<String>,
    /// Where each path starts: the first parent, and the columns that lead there.
    pub parents: Vec<(u32, String)>,
}

/// What is known about NULLs in a key.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Nulls {
    /// All rows were looked at: is there one?
    seen: Option<bool>,
    /// pg_stats.null_frac
    fraction: Option<f32>,
}

/// One row per tenant key, and one per table without any; by schema and name.
///
/// * `named`: the root as typed, or several with commas between them, where rows belong to a project *or* a group; `None`: the
///   setting, else inferred.
///
/// Errors: those of `run::tenant_keys`.
pub fn of_roots(session: &Session, named: Option<&str>) -> Result<Vec<TenantColumn>, Problem> {
    let several = named.filter(|name| name.contains(',') && session.catalog.resolve_table(name).is_err());
    let Some(names) = several else {
        return tenant_columns(session, &tenant_keys(session, named)?);
    };
    let mut rows: Vec<TenantColumn> = Vec::new();
    for name in names.split(',') {
        let keys = tenant_keys(session, Some(name.trim()))?;
        if !rows
            .iter()
            .any(|row| row.oid == keys.root.oid && row.status == Status::Root)
        {
            rows.extend(tenant_columns(session, &keys)?);
        }
    }
    // What leads to none of the roots is shared; what leads to one need not lead to the others.
    let place = |row: &TenantColumn| session.catalog.tables.iter().position(|table| table.oid == row.oid);
    let hopeful = |row: &TenantColumn| match row.status {
        Status::NeedsColumn => 0,
        Status::Unreachable => 1,
        _ => 2,
    };
    rows.sort_by_key(|row| {
        (
            place(row),
            row.column.is_none(),
            row.column.is_none().then(|| hopeful(row)),
        )
    });
    let mut seen: Vec<u32> = Vec::new();
    rows.retain(|row| {
        let first = !seen.contains(&row.oid);
        seen.push(row.oid);
        first || row.column.is_some()
    });
    Ok(rows)
}

/// As [`of_roots`], for one.
///
/// Errors: those of SPI only.
pub fn tenant_columns(session: &Session, keys: &TenantKeys) -> Result<Vec<TenantColumn>, Problem> {
    let catalog = &session.catalog;
    let tables = || {
        catalog
            .tables
            .iter()
            .filter(|t| t.is_table() && !t.is_partition && !t.of_extension)
    };
    let all = keys.all();
    let nulls = look_for_nulls(session, &all)?;
    // As a run over all tables would follow them.
    let (followed, circle) = match in_order(keys, all.clone(), |key| !is_not_null(session, key)) {
        Ok(ordered) => (ordered, vec![]),
        Err(InferError::TenantCycle { edges, .. }) => (vec![], edges),
        Err(_) => (vec![], vec![]),
    };
    let mut all = all;
    for key in &mut all {
        let same = |other: &&KeyPaths| (other.table, other.key.column) == (key.table, key.key.column);
        if let Some(ordered) = followed.iter().find(same) {
            key.paths = ordered.paths.clone();
        }
    }
    let mut rows = Vec::new();
    for table in tables() {
        let of_table: Vec<(&KeyPaths, Nulls)> = all
            .iter()
            .zip(&nulls)
            .filter(|(key, _)| key.table == table.oid)
            .map(|(key, n)| (key, *n))
            .collect();
        if table.oid == keys.root.oid {
            rows.push(root_row(session, keys));
        } else if of_table.is_empty() {
            rows.push(without_key(session, keys, table));
        }
        for (key, nulls) in of_table {
            let mut row = with_key(session, keys, table, key, nulls);
            if circle.iter().any(|(of, _, _)| *of == row.table) {
                let others = circle
                    .iter()
                    .map(|(of, _, _)| of.as_str())
                    .filter(|of| *of != row.table);
                let others: BTreeSet<&str> = others.collect();
                let (is, names) = match others.len() {
                    1 => ("is", others),
                    _ => ("are", others),
                };
                let names: Vec<&str> = names.into_iter().collect();
                let found = format!(
                    "it can only be filled from {}, which {is} filled from it in turn",
                    names.join(", ")
                );
                row.note = Some(row.note.map(|note| format!("{found}; {note}")).unwrap_or(found));
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

fn row(session: &Session, table: &Table, status: Status) -> TenantColumn {
    TenantColumn {
        oid: table.oid,
        table: session.catalog.display(table),
        column: None,
        status,
        path: None,
        alternatives: vec![],
        constraint: None,
        constraint_state: None,
        not_null: None,
        indexed: None,
        row_security: table.row_security,
        estimated_rows: (table.estimated_rows >= 0.0).then_some(table.estimated_rows as i64),
        filled: None,
        note: None,
        parents: vec![],
    }
}

fn root_row(session: &Session, keys: &TenantKeys) -> TenantColumn {
    TenantColumn {
        column: Some(keys.key.name.clone()),
        not_null: Some(keys.key.not_null),
        indexed: Some(keys.root.indexed.contains(&keys.key.number)),
        note: Some("its key is the tenant".into()),
        ..row(session, keys.root, Status::Root)
    }
}

fn without_key(session: &Session, keys: &TenantKeys, table: &Table) -> TenantColumn {
    let paths = keys.paths(table, None);
    let dangling = keys.dangling_names(table);
    let shown = session.catalog.display(table);
    let mut notes = Vec::new();
    let status = match paths.found.first() {
        Some(best) if best.declared() => {
            notes.push(format!("ALTER TABLE {shown} ADD COLUMN {}", keys.new_column()));
            Status::NeedsColumn
        }
        Some(best) => {
            let start = table.names_of(&best.source.columns()).join(", ");
            notes.push(format!("declare a foreign key on {start}, or name the path yourself"));
            Status::Unreachable
        }
        None if !dangling.is_empty() => {
            notes.push(format!(
                "{} looks like a reference to a table that does not exist; if that table was dropped, the tenant cannot be derived through it",
                dangling.join(", ")
            ));
            Status::Unreachable
        }
        None => {
            notes.push(format!("nothing leads to {}", session.catalog.display(keys.root)));
            Status::Shared
        }
    };
    describe_paths(session, table, &paths, &mut notes);
    with_paths(session, table, &paths, notes, row(session, table, status))
}

fn with_key(session: &Session, keys: &TenantKeys, table: &Table, key: &KeyPaths, nulls: Nulls) -> TenantColumn {
    let Some(column) = table.column(key.key.column) else {
        return row(session, table, Status::Ambiguous);
    };
    let mut notes = Vec::new();
    let status = status_of(column, &key.key, &key.paths, nulls);
    let root = session.catalog.display(keys.root);
    if !key.key.comparable {
        notes.push(keys.wrong_type(table, &key.key));
    } else if key.key.foreign_key.is_none() {
        notes.push(format!(
            "{} has no foreign key: only its name says that it is the tenant",
            column.quoted
        ));
    } else if key.key.state == State::NotValid {
        notes.push(format!(
            "the foreign key to {root} is not valid: rows from before it may be anything"
        ));
    }
    if column.never_null && !column.not_null {
        notes.push("a CHECK keeps NULLs out: SET NOT NULL needs no scan any more".into());
    }
    if column.generated {
        notes.push(format!(
            "{} is a generated column: it is filled by what it is computed from",
            column.quoted
        ));
    }
    if status == Status::Ambiguous {
        notes.push(format!(
            "several columns reference {root}, and nothing says from where {} is filled: name its source in backfill",
            column.quoted
        ));
    }
    if status == Status::NeedsBackfill {
        notes.push(match (nulls.seen, nulls.fraction) {
            (Some(true), _) => "NULLs seen".into(),
            (_, Some(fraction)) if fraction > 0.0 => {
                format!(
                    "NULLs seen by ANALYZE (about {:.0} % of the rows)",
                    (fraction * 100.0).max(1.0)
                )
            }
            (_, Some(_)) => "NULLs are possible (ANALYZE saw none in its sample); backfill_coverage() counts".into(),
            (_, None) => "NULLs are possible; backfill_coverage() counts".into(),
        });
    }
    if key.paths.found.is_empty() && key.key.comparable && status != Status::Ambiguous {
        notes.push(
            match (key.paths.unfit.is_empty(), keys.dangling_names(table).is_empty()) {
                (true, true) => "the application must set the tenant: no other reference of the row leads to it".into(),
                _ => keys.why_no_path(table, &key.paths),
            },
        );
    }
    if let Some(role) = &key.key.declared_by {
        notes.push(format!("{role} declared it to be the tenant key"));
    }
    let roles = keys.roles(table);
    if !roles.is_empty() {
        notes.push(format!("also references {root}, in another role: {}", roles.join(", ")));
    }
    describe_paths(session, table, &key.paths, &mut notes);
    let row = TenantColumn {
        column: Some(column.name.clone()),
        constraint: key.key.foreign_key.clone(),
        constraint_state: Some(key.key.state.as_str()),
        not_null: Some(column.not_null),
        indexed: Some(table.indexed.contains(&column.number)),
        filled: match (column.never_null, nulls.seen) {
            (true, _) | (_, Some(false)) => Some(1.0),
            _ => nulls.fraction.map(|fraction| 1.0 - fraction),
        },
        ..row(session, table, status)
    };
    with_paths(session, table, &key.paths, notes, row)
}

fn status_of(column: &Column, key: &TenantKey, paths: &Paths, nulls: Nulls) -> Status {
    let complete = column.never_null || nulls.seen == Some(false);
    match (column.not_null, key.state) {
        _ if !key.comparable => Status::NeedsColumn,
        (true, State::Valid) => Status::Ready,
        (true, _) => Status::Unconstrained,
        _ if key.one_of_several && paths.found.is_empty() && !complete => Status::Ambiguous,
        _ if complete => Status::Nullable,
        _ => Status::NeedsBackfill,
    }
}

/// What is weak about the paths, and that there are several.
fn describe_paths(session: &Session, table: &Table, paths: &Paths, notes: &mut Vec<String>) {
    if paths.found.len() > 1 {
        notes.push(format!(
            "{} paths{}: a run compares them, rows where they differ are conflicts",
            paths.found.len(),
            if paths.more {
                " (and more, which are not compared)"
            } else {
                ""
            }
        ));
    }
    for (path, why) in &paths.not_followed {
        notes.push(format!(
            "{} {}",
            path.source.to_path(&session.catalog, table),
            why.as_str()
        ));
    }
    for path in &paths.found {
        if let Some(caution) = path
            .caution
            .as_ref()
            .filter(|caution| !notes.iter().any(|n| n.contains(*caution)))
        {
            notes.push(caution.clone());
        }
    }
    if !paths.found.is_empty() && !paths.unfit.is_empty() {
        notes.push(format!("types do not fit: {}", paths.unfit.join(", ")));
    }
    let inherits = paths
        .found
        .iter()
        .flat_map(|p| &p.source.hops)
        .filter_map(|hop| session.catalog.table(hop.parent));
    if table.kind == 'r' && table.has_children || inherits.into_iter().any(|t| t.kind == 'r' && t.has_children) {
        notes.push("tables that inherit are separate tables here".into());
    }
}

fn with_paths(session: &Session, table: &Table, paths: &Paths, notes: Vec<String>, row: TenantColumn) -> TenantColumn {
    let shown = |path: &TenantSource| path.source.to_path(&session.catalog, table).to_string();
    let path = paths.found.first().map(shown);
    let others = paths
        .found
        .iter()
        .skip(1)
        .chain(paths.not_followed.iter().map(|(path, _)| path));
    let alternatives = others.map(shown).collect();
    TenantColumn {
        path,
        alternatives,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        parents: paths
            .found
            .iter()
            .filter_map(|p| {
                Some((
                    p.source.hops.first()?.parent,
                    table.names_of(&p.source.columns()).join(", "),
                ))
            })
            .collect(),
        ..row
    }
}

fn is_not_null(session: &Session, key: &KeyPaths) -> bool {
    let table = session.catalog.table(key.table);
    table
        .and_then(|table| table.column(key.key.column))
        .is_some_and(|column| column.never_null)
}

/// For each key, in the same order.
fn look_for_nulls(session: &Session, keys: &[KeyPaths]) -> Result<Vec<Nulls>, Problem> {
    let mut found = vec![Nulls::default(); keys.len()];
    let nullable: Vec<(usize, &Table, &Column)> = keys
        .iter()
        .enumerate()
        .filter_map(|(i, key)| {
            let table = session.catalog.table(key.table)?;
            Some((i, table, table.column(key.key.column)?))
        })
        .filter(|(_, _, column)| !column.never_null)
        .collect();
    // The planner must not read a large table because it hopes to meet a NULL soon.
    let _settings = Settings::push(&[
        ("row_security", "off"),
        ("jit", "off"),
        ("enable_seqscan", "off"),
        ("transaction_read_only", "on"),
    ]);
    let readable = |(_, table, column): &&(usize, &Table, &Column)| {
        table.may_use_schema && column.may_select && !table.row_security_active
    };
    let asked: Vec<&(usize, &Table, &Column)> = nullable.iter().filter(readable).collect();
    session.hold(asked.iter().map(|(_, table, _)| table.oid))?;
    for some in asked.chunks(AT_ONCE) {
        pgrx::check_for_interrupts!();
        let questions: Vec<String> = some
            .iter()
            .map(|(i, table, column)| question(*i, table, column))
            .collect();
        Spi::connect(|client| {
            for row in client.select(&questions.join("\nUNION ALL\n"), None, &[])? {
                if let Some(i) = row.get::<i32>(1)?.and_then(|i| found.get_mut(i as usize)) {
                    i.seen = row.get::<bool>(2)?;
                }
            }
            Ok::<_, SpiError>(())
        })?;
    }
    let names = |of: fn(&Table, &Column) -> String| -> Vec<String> {
        nullable.iter().map(|(_, table, column)| of(table, column)).collect()
    };
    let sql = "SELECT n.number::pg_catalog.int4, pg_catalog.max(s.null_frac)
FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS n(schema, name, attribute, number)
JOIN pg_catalog.pg_stats AS s ON s.schemaname = n.schema AND s.tablename = n.name AND s.attname = n.attribute
GROUP BY n.number";
    let arguments = [
        names(|table, _| table.schema.clone()).into(),
        names(|table, _| table.name.clone()).into(),
        names(|_, column| column.name.clone()).into(),
    ];
    Spi::connect(|client| {
        for row in client.select(sql, None, &arguments)? {
            let at = row.get::<i32>(1)?.and_then(|number| nullable.get(number as usize - 1));
            if let Some((i, _, _)) = at {
                found[*i].fraction = row.get::<f32>(2)?;
            }
        }
        Ok::<_, SpiError>(())
    })?;
    Ok(found)
}

/// `number, has a NULL`; NULL where finding out would take reading a large table.
fn question(number: usize, table: &Table, column: &Column) -> String {
    let name = Literal::new(&table.sql()).to_string();
    let size = match table.kind {
        'p' => format!(
            "(SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_relation_size(p.relid)), 0) FROM pg_catalog.pg_partition_tree({name}) AS p)"
        ),
        _ => format!("pg_catalog.pg_relation_size({name})"),
    };
    let cheap = match table.indexed.contains(&column.number) {
        true => "true".into(),
        false => format!("{size} <= {SMALL}"),
    };
    format!(
        "SELECT {number}, CASE WHEN {cheap} THEN EXISTS (SELECT FROM {} AS t WHERE t.{} IS NULL) END",
        table.relation_sql(),
        column.sql()
    )
}
