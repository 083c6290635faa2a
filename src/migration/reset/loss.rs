//! What would be lost with an object, and what of it is copied where it is dropped on purpose.

use std::collections::BTreeSet;

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use crate::migration::actual::{Column, Relation};
use crate::migration::compare::Entity;
use crate::migration::expected::{ExpectedSchema, Id};
use crate::migration::judge::Judge;
use crate::migration::shown::qualified;
use crate::migration::status::counted;
use crate::problem::Problem;
use crate::run::hold::{Found, hold};
use crate::script::ast::Kind;

/// What is copied before something is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    /// There is nothing to copy.
    Nothing,
    /// The rows of a table.
    Rows,
    /// The values of a column, each by the primary key of its row.
    Values {
        /// The table's oid.
        table: u32,
        /// The column.
        column: String,
        /// Its type, as it is written.
        type_name: String,
    },
}

/// What is copied of something that is dropped on purpose, and how many rows or values that are.
///
/// Errors: those of SPI. `Err` inside: why it cannot be copied, and so cannot be dropped.
pub fn copied(
    expected: &ExpectedSchema,
    judge: &Judge,
    entity: Entity,
    (rows, fresh): (Option<i64>, bool),
) -> Result<Result<(Copied, Option<i64>), String>, Problem> {
    let unseen = "cannot be counted, so that they cannot be copied: SELECT is not granted, or policies hide some";
    Ok(match entity {
        // Rows of a partitioned table are those of its partitions.
        Entity::Relation(relation) if relation.kind == 'r' => match rows {
            None => Err(format!("its rows {unseen}")),
            Some(0) => Ok((Copied::Nothing, rows)),
            Some(_) => Ok((Copied::Rows, rows)),
        },
        Entity::Column(relation, _) if relation.has_heirs => Err(
            "tables inherit from its table, whose keys are their own, so that its values could not be put back".into(),
        ),
        Entity::Column(relation, column) => match values(relation, column, fresh)? {
            None => Err(format!("its values {unseen}")),
            Some(0) => Ok((Copied::Nothing, None)),
            Some(values) => {
                let made = |name: &String| {
                    (0..expected.objects.len()).any(|id| match judge.found(id) {
                        Some(Entity::Column(table, found)) => {
                            table.oid == relation.oid && found.name == *name && expected.objects[id].created.is_some()
                        }
                        _ => false,
                    })
                };
                match relation.constraints.iter().find(|c| c.kind == 'p') {
                    None => Err("its table has no primary key, by which its values could be put back".into()),
                    Some(key) if key.columns.iter().any(made) => Err(
                        "the primary key of its table is the script's, so that its values could not be put back".into(),
                    ),
                    Some(_) => {
                        let copied = Copied::Values {
                            table: relation.oid,
                            column: column.name.clone(),
                            type_name: column.type_name.clone(),
                        };
                        Ok((copied, Some(values)))
                    }
                }
            }
        },
        _ => Ok((Copied::Nothing, rows)),
    })
}

/// What would be lost with it, beside what depends on it.
pub fn loses(
    expected: &ExpectedSchema,
    judge: &Judge,
    id: Id,
    entity: Entity,
    (rows, fresh): (Option<i64>, bool),
    quiet: bool,
) -> Result<Option<String>, Problem> {
    let kind = expected.objects[id].kind;
    let maybe_before = "it may have been there before, in another form";
    Ok(match (kind, entity) {
        (Kind::Table, Entity::Relation(relation)) if matches!(relation.kind, 'r' | 'p') => match rows {
            Some(0) => {
                let used = mentioned(&relation.name, false, judge, expected)?;
                (!used.is_empty()).then(|| format!("named in the body of {}", used.join(", ")))
            }
            Some(rows) => Some(format!("it has {rows} rows")),
            None => Some("its rows cannot be counted: SELECT is not granted, or policies hide some".into()),
        },
        (Kind::Table, _) => Some("its rows are on another server (foreign table)".into()),
        (Kind::Column, Entity::Column(relation, column)) => match values(relation, column, fresh)? {
            Some(0) => None,
            Some(rows) => Some(format!("{rows} rows have a value")),
            None => Some("its values cannot be counted: SELECT is not granted, or policies hide some".into()),
        },
        (Kind::Sequence, _) if quiet => Some(format!("IF NOT EXISTS: {maybe_before}")),
        (Kind::Sequence, Entity::Relation(relation)) => {
            let sql = "SELECT pg_catalog.pg_sequence_last_value($1)";
            let last = Spi::connect(|client| {
                client
                    .select(sql, None, &[pg_sys::Oid::from(relation.oid).into()])?
                    .first()
                    .get_one::<i64>()
            })?;
            last.map(|last| format!("it has been used, up to {last}"))
        }
        (Kind::Extension, _) => Some("other objects may use it without a recorded dependency".into()),
        (Kind::Schema, _) if quiet => Some(format!("IF NOT EXISTS: {maybe_before}")),
        (Kind::Function | Kind::View | Kind::Trigger, _) if quiet => Some(format!("OR REPLACE: {maybe_before}")),
        (Kind::Function, Entity::Function(function)) => {
            let used = mentioned(&function.name, true, judge, expected)?;
            (!used.is_empty()).then(|| format!("named in the body of {}", used.join(", ")))
        }
        _ => None,
    })
}

/// How many values of a column would go with it; `None` where the caller may not see all rows. What is computed is no value of its own.
fn values(relation: &Relation, column: &Column, fresh: bool) -> Result<Option<i64>, Problem> {
    if !column.generated.is_empty() {
        return Ok(Some(0));
    }
    let found = Found::named(relation.oid, &relation.schema, &relation.name, relation.kind);
    if hold(&[found]).is_err() {
        return Ok(None);
    }
    let sql = format!(
        "SELECT pg_catalog.count(t.{}) FROM {} AS t",
        quote_identifier(&column.name),
        qualified(&relation.schema, &relation.name)
    );
    counted(&sql, fresh)
}

/// Functions that are not the script's and use something of this name in their body: no dependency says so.
///
/// * `is_function`: it is called; else it is read or written.
fn mentioned(name: &str, is_function: bool, judge: &Judge, expected: &ExpectedSchema) -> Result<Vec<String>, Problem> {
    let own: BTreeSet<u32> = (0..expected.objects.len())
        .filter_map(|id| match judge.found(id) {
            Some(Entity::Function(function)) => Some(function.oid),
            _ => None,
        })
        .collect();
    let escaped: String = name
        .chars()
        .flat_map(|c| match c.is_alphanumeric() || c == '_' {
            true => vec![c],
            false => vec!['\\', c],
        })
        .collect();
    let pattern = match is_function {
        true => format!(r#"(^|[^[:alnum:]_]){escaped}"?\s*\("#),
        false => format!(
            r#"(^|[^[:alnum:]_])(from|join|into|update|table|only|using)\s+("?[[:alnum:]_]+"?\.)?"?{escaped}"?($|[^[:alnum:]_])"#
        ),
    };
    let sql = "SELECT p.oid, p.oid::pg_catalog.regprocedure::pg_catalog.text FROM pg_catalog.pg_proc p
               JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
               WHERE l.lanname NOT IN ('c', 'internal') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
                 AND p.prosrc ~* $1 ORDER BY 2";
    let found = Spi::connect(|client| {
        let mut found = Vec::new();
        for row in client.select(sql, None, &[pattern.as_str().into()])? {
            if let (Some(oid), Some(shown)) = (row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?) {
                found.push((oid.to_u32(), shown));
            }
        }
        Ok::<_, spi::SpiError>(found)
    })?;
    Ok(found
        .into_iter()
        .filter(|(oid, _)| !own.contains(oid))
        .map(|(_, shown)| shown)
        .collect())
}
