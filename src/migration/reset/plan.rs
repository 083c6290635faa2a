//! What can be taken back, in which order.

use std::collections::BTreeSet;

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::ResetObject;
use super::created_objects::{CreatedObjects, additions_by_others, column_additions_by_others, owner_to_ask};
use super::loss::{Copied, copied, loses};
use crate::migration::Compared;
use crate::migration::actual::Relation;
use crate::migration::compare::Entity;
use crate::migration::depend::{Address, Graph};
use crate::migration::expected::{Claim, ExpectedSchema, Id, class};
use crate::migration::shown::qualified;
use crate::migration::status::{State, Status, rows_of, status};
use crate::problem::Problem;
use crate::script::ast::Kind;

/// What would be dropped, in order, and what is kept.
pub struct Plan {
    /// In the order in which they are dropped.
    pub dropped: Vec<Drop>,
    /// In the order of the script.
    pub kept: Vec<ResetObject>,
}

/// Something that is dropped.
#[derive(Debug, Clone)]
pub struct Drop {
    /// What the result says.
    pub taken: ResetObject,
    /// Its table (itself, if it is one): schema and name; locked before anything is dropped.
    pub table: Option<(String, String)>,
    /// What is copied before.
    pub copied: Copied,
}

struct Candidate {
    id: Id,
    address: Address,
    drop: Drop,
    /// Why it is kept.
    reason: Option<String>,
    step: usize,
}

/// Plans a reset.
///
/// * `fresh`: rows and values as of now, not as of when the call began.
///
/// Errors: 42704 for something in `include` that is none of the script's; those of SPI.
pub fn plan(compared: &Compared, include: &[String], fresh: bool) -> Result<Plan, Problem> {
    let (expected, actual) = (&compared.expected, &compared.actual);
    // Rows are counted below, of what may go.
    let status = status(&compared.steps, expected, actual, &[], false)?;
    let own = CreatedObjects::of(expected, &status.judge);
    let mut kept = Vec::new();
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut named: BTreeSet<&String> = BTreeSet::new();
    for id in 0..expected.objects.len() {
        let object = &expected.objects[id];
        let (Some(step), Some(entity)) = (object.created, status.judge.found(id)) else {
            continue;
        };
        if object.implicit {
            continue;
        }
        // Parts go with what the script made as a whole.
        if object
            .on
            .is_some_and(|on| expected.objects[on].created.is_some() && status.judge.found(on).is_some())
        {
            continue;
        }
        let shown = status.judge.shown(id, usize::MAX);
        let Some((address, (statement, table))) = Address::of(entity).zip(dropping(object.kind, entity)) else {
            kept.push(ResetObject {
                kind: object.kind.as_str().into(),
                object: shown,
                statement: None,
                reason: Some(cannot_be_dropped(object.kind).into()),
                rows: None,
            });
            continue;
        };
        let names = names_of(&shown, entity);
        let included = include
            .iter()
            .find(|one| names.iter().any(|name| name.eq_ignore_ascii_case(one)));
        named.extend(included);
        let rows = match entity {
            Entity::Relation(relation) => rows_of(relation, fresh)?,
            _ => None,
        };
        let line = &status.lines[step];
        let mut reason = match line.state {
            State::Present | State::WouldFail => None,
            State::Differs => Some(format!(
                "it differs from what the script writes: {}",
                line.detail.clone().unwrap_or_default()
            )),
            state => Some(format!("step {} is {}", line.step, state.as_str())),
        };
        // An exception on purpose is for what would be lost, not for what is not the script's.
        let loss = match reason {
            None => loses(
                expected,
                &status.judge,
                id,
                entity,
                (rows, fresh),
                expected.effects[step].quiet,
            )?,
            Some(_) => None,
        };
        if included.is_none() {
            reason = reason.or(loss.clone());
        }
        if reason.is_none()
            && let Entity::Relation(relation) = entity
        {
            reason = additions_by_others(expected, &own, actual, id, relation);
        }
        if reason.is_none()
            && let Entity::Column(relation, column) = entity
        {
            reason = column_additions_by_others(expected, id, relation, column);
        }
        reason = reason.or_else(|| owner_to_ask(actual, entity));
        let mut copies = (Copied::Nothing, rows);
        if reason.is_none() && included.is_some() {
            match copied(expected, &status.judge, entity, (rows, fresh))? {
                Ok(found) => copies = found,
                Err(why) => reason = Some(why),
            }
        }
        if reason.is_none() && included.is_none() && replaces_dropped_object(expected, id) {
            reason = Some(
                "the script drops an older object of this name, which cannot be restored: its definition is unknown"
                    .into(),
            );
        }
        candidates.push(Candidate {
            id,
            address,
            drop: Drop {
                taken: ResetObject {
                    kind: object.kind.as_str().into(),
                    object: shown,
                    statement: Some(statement),
                    // What is not copied is said once more.
                    reason: loss.filter(|_| included.is_some() && copies.0 == Copied::Nothing),
                    rows: copies.1,
                },
                table,
                copied: copies.0,
            },
            reason,
            step,
        });
    }
    if let Some(unknown) = include.iter().find(|one| !named.contains(one)) {
        let known: Vec<&str> = candidates.iter().map(|c| c.drop.taken.object.as_str()).collect();
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("include names {unknown}, which the script did not create"),
        )
        .detail(format!(
            "it made {}",
            if known.is_empty() {
                "nothing".to_string()
            } else {
                known.join(", ")
            }
        ))
        .hint("name objects as migration_reset(script) shows them: include => ARRAY['ascora_jobs']"));
    }
    keep_objects_with_dependents(&mut candidates, &own)?;
    kept.extend(changes(expected, &status, compared));
    let (dropped, stay): (Vec<Candidate>, Vec<Candidate>) = candidates.into_iter().partition(|c| c.reason.is_none());
    kept.extend(stay.into_iter().map(|c| ResetObject {
        statement: None,
        reason: c.reason,
        ..c.drop.taken
    }));
    Ok(Plan {
        dropped: ordered(dropped)?,
        kept,
    })
}

/// The statement that drops it, and the table (schema, name) that this locks.
type Dropping = (String, Option<(String, String)>);

/// How it is dropped.
fn dropping(kind: Kind, entity: Entity) -> Option<Dropping> {
    let name = |relation: &Relation| qualified(&relation.schema, &relation.name);
    let table = |relation: &Relation| Some((relation.schema.clone(), relation.name.clone()));
    Some(match entity {
        Entity::Relation(relation) => {
            let what = match relation.kind {
                'r' | 'p' => "TABLE",
                'f' => "FOREIGN TABLE",
                'v' => "VIEW",
                'm' => "MATERIALIZED VIEW",
                'S' => "SEQUENCE",
                _ => "INDEX",
            };
            let locked = matches!(relation.kind, 'r' | 'p').then(|| table(relation)).flatten();
            (format!("DROP {what} {}", name(relation)), locked)
        }
        Entity::Column(relation, column) => (
            format!(
                "ALTER TABLE {} DROP COLUMN {}",
                name(relation),
                quote_identifier(&column.name)
            ),
            table(relation),
        ),
        Entity::Constraint(relation, constraint) => (
            format!(
                "ALTER TABLE {} DROP CONSTRAINT {}",
                name(relation),
                quote_identifier(&constraint.name)
            ),
            table(relation),
        ),
        Entity::Trigger(relation, trigger) => (
            format!("DROP TRIGGER {} ON {}", quote_identifier(&trigger.name), name(relation)),
            table(relation),
        ),
        Entity::Policy(relation, policy) => (
            format!("DROP POLICY {} ON {}", quote_identifier(&policy.name), name(relation)),
            table(relation),
        ),
        Entity::Type(found) => {
            let what = if kind == Kind::Domain || found.kind == 'd' {
                "DOMAIN"
            } else {
                "TYPE"
            };
            (format!("DROP {what} {}", qualified(&found.schema, &found.name)), None)
        }
        Entity::Function(function) => (
            format!(
                "DROP ROUTINE {}({})",
                qualified(&function.schema, &function.name),
                function.signature
            ),
            None,
        ),
        Entity::Schema(schema) => (format!("DROP SCHEMA {}", quote_identifier(&schema.name)), None),
        Entity::Extension(name, _) => (format!("DROP EXTENSION {}", quote_identifier(name)), None),
        Entity::Plain => return None,
    })
}

/// Has the script dropped something of this name that was there before?
fn replaces_dropped_object(expected: &ExpectedSchema, id: Id) -> bool {
    let object = &expected.objects[id];
    let name = |(_, schema, name): &(usize, String, String)| (schema.clone(), name.clone());
    expected.objects.iter().any(|other| {
        other.created.is_none()
            && other.dropped.is_some()
            && class(other.kind) == class(object.kind)
            && (other.on == object.on || object.kind == Kind::Index)
            && other
                .names
                .iter()
                .any(|n| object.names.iter().any(|o| name(n) == name(o)))
    })
}

fn cannot_be_dropped(kind: Kind) -> &'static str {
    match kind {
        Kind::Label => "Postgres cannot take a label out of an enum",
        Kind::Grant => "whether the privilege was there before is not known",
        _ => "it cannot be taken back",
    }
}

/// By which names `include` may name it: as it is shown, bare, with its schema, and quoted.
fn names_of(shown: &str, entity: Entity) -> Vec<String> {
    let parts: Vec<&String> = match entity {
        Entity::Relation(relation) => vec![&relation.schema, &relation.name],
        Entity::Function(function) => vec![&function.schema, &function.name],
        Entity::Type(found) => vec![&found.schema, &found.name],
        Entity::Column(relation, column) => vec![&relation.schema, &relation.name, &column.name],
        _ => vec![],
    };
    let bare: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
    let quoted: Vec<String> = parts.iter().map(|part| quote_identifier(part.as_str())).collect();
    // As a person may type it, quotes where none are needed.
    let always: Vec<String> = parts
        .iter()
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect();
    let mut names = vec![shown.to_string()];
    for all in [bare, quoted, always] {
        names.extend((0..2.min(all.len())).map(|from| all[from..].join(".")));
    }
    names
}

/// Keeps what something outside of the script depends on, and what that keeps.
fn keep_objects_with_dependents(candidates: &mut [Candidate], own: &CreatedObjects) -> Result<(), Problem> {
    let roots: Vec<Address> = candidates.iter().map(|c| c.address).collect();
    let graph = Graph::from(&roots)?;
    let along: Vec<BTreeSet<Address>> = roots.iter().map(|root| graph.along(*root)).collect();
    loop {
        let going: Vec<usize> = (0..candidates.len())
            .filter(|at| candidates[*at].reason.is_none())
            .collect();
        let dropped: BTreeSet<Address> = going.iter().flat_map(|at| along[*at].iter().copied()).collect();
        let roots: BTreeSet<Address> = going.iter().map(|at| candidates[*at].address).collect();
        let mut changed = false;
        for at in going {
            let in_the_way = graph.in_the_way(&along[at], &dropped, &roots, &own.addresses);
            if !in_the_way.is_empty() {
                candidates[at].reason = Some(format!("depends on it: {}", in_the_way.join(", ")));
                changed = true;
                continue;
            }
            // What is kept must not go with it (a sequence that it owns).
            let kept = candidates
                .iter()
                .find(|c| c.reason.is_some() && along[at].contains(&c.address))
                .map(|c| c.drop.taken.object.clone());
            if let Some(kept) = kept {
                candidates[at].reason = Some(format!("dropping it would also drop {kept}, which is kept"));
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
    }
}

/// Dependents first; tables that reference each other in one statement.
fn ordered(candidates: Vec<Candidate>) -> Result<Vec<Drop>, Problem> {
    let roots: Vec<Address> = candidates.iter().map(|c| c.address).collect();
    let graph = Graph::from(&roots)?;
    let along: Vec<BTreeSet<Address>> = roots.iter().map(|root| graph.along(*root)).collect();
    let mut order = graph.order(&along);
    // What would go along with another one goes first, as long as it is there.
    for (second, going) in along.iter().enumerate() {
        let first = (0..roots.len()).filter(|first| *first != second && going.contains(&roots[*first]));
        order.extend(first.map(|first| (first, second)));
    }
    let mut waiting: BTreeSet<usize> = (0..candidates.len()).collect();
    let mut done = Vec::new();
    while !waiting.is_empty() {
        let free = |at: &&usize| {
            !order
                .iter()
                .any(|(first, second)| second == *at && waiting.contains(first))
        };
        // What the script made last goes first.
        let next = waiting
            .iter()
            .filter(free)
            .max_by_key(|at| (candidates[**at].step, candidates[**at].id))
            .copied();
        if let Some(at) = next {
            waiting.remove(&at);
            done.push(candidates[at].drop.clone());
            continue;
        }
        let tables: Vec<usize> = waiting
            .iter()
            .copied()
            .filter(|at| candidates[*at].drop.taken.kind == Kind::Table.as_str())
            .collect();
        if tables.is_empty() {
            // Postgres would refuse such a circle when it is made.
            let at = waiting.pop_last().unwrap_or_default();
            done.push(candidates[at].drop.clone());
            continue;
        }
        let names: Vec<String> = tables
            .iter()
            .filter_map(|at| candidates[*at].drop.table.as_ref())
            .map(|(schema, name)| qualified(schema, name))
            .collect();
        let together = format!("DROP TABLE {}", names.join(", "));
        for (n, at) in tables.iter().enumerate() {
            waiting.remove(at);
            let mut drop = candidates[*at].drop.clone();
            drop.taken.statement = Some(together.clone());
            if n > 0 {
                drop.taken.reason = Some("with the one before: they reference each other".into());
            }
            done.push(drop);
        }
    }
    Ok(done)
}

/// What the script changed of things that were there before: what they were is not known.
fn changes(expected: &ExpectedSchema, status: &Status, compared: &Compared) -> Vec<ResetObject> {
    let mut kept = Vec::new();
    for (at, effects) in expected.effects.iter().enumerate() {
        let state = status.lines[at].state;
        if !state.is_done() && state != State::Unknown {
            continue;
        }
        let reason = effects.claims.iter().find_map(|claim| {
            let before = |id: Id| {
                let mut above = Some(id);
                while let Some(one) = above {
                    if expected.objects[one].created.is_some() {
                        return false;
                    }
                    above = expected.objects[one].on;
                }
                true
            };
            match *claim {
                Claim::Property(id, _) if before(id) => Some((
                    id,
                    "a change of something that was there before: what it was is not known",
                )),
                Claim::Named(id, _) if before(id) => {
                    Some((id, "it was called otherwise before: ALTER ... RENAME it back by hand"))
                }
                Claim::Dropped(id) if before(id) => Some((id, "the script dropped it; only a backup can restore it")),
                _ => None,
            }
        });
        if let Some((id, reason)) = reason {
            kept.push(ResetObject {
                kind: compared.steps[at].kind.clone(),
                object: status.judge.shown(id, at),
                statement: None,
                reason: Some(reason.into()),
                rows: None,
            });
        }
    }
    kept
}
