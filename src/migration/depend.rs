//! Who depends on what, as `pg_depend` says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::compare::Entity;
use crate::problem::Problem;

/// An object as `pg_depend` names it: catalog, oid, column (0: the whole).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// oid of the catalog.
    pub catalog: u32,
    /// Its oid.
    pub oid: u32,
    /// Of a column: its number.
    pub part: i32,
}

/// oid of the catalog pg_constraint (pg_constraint.h).
const PG_CONSTRAINT: pg_sys::Oid = pg_sys::Oid::from_u32(2606);

/// oid of the catalog pg_rewrite (pg_rewrite.h).
const PG_REWRITE: pg_sys::Oid = pg_sys::Oid::from_u32(2618);

/// oid of the catalog pg_policy (pg_policy.h).
const PG_POLICY: pg_sys::Oid = pg_sys::Oid::from_u32(3256);

impl Address {
    /// Of something that has one.
    pub fn of(entity: Entity) -> Option<Address> {
        let whole = |catalog: pg_sys::Oid, oid: u32| Address {
            catalog: catalog.to_u32(),
            oid,
            part: 0,
        };
        Some(match entity {
            Entity::Relation(relation) => whole(pg_sys::RelationRelationId, relation.oid),
            Entity::Column(relation, column) => Address {
                part: column.number,
                ..whole(pg_sys::RelationRelationId, relation.oid)
            },
            Entity::Constraint(_, constraint) => whole(PG_CONSTRAINT, constraint.oid),
            Entity::Trigger(_, trigger) => whole(pg_sys::TriggerRelationId, trigger.oid),
            Entity::Policy(_, policy) => whole(PG_POLICY, policy.oid),
            Entity::Type(found) => whole(pg_sys::TypeRelationId, found.oid),
            Entity::Function(function) => whole(pg_sys::ProcedureRelationId, function.oid),
            Entity::Schema(schema) => whole(pg_sys::NamespaceRelationId, schema.oid),
            Entity::Extension(_, oid) => whole(pg_sys::ExtensionRelationId, oid),
            Entity::Plain => return None,
        })
    }

    /// Is it a rule, as every view has one?
    pub fn is_rule(self) -> bool {
        self.catalog == PG_REWRITE.to_u32()
    }
}

/// One row of `pg_depend`.
#[derive(Debug, Clone)]
struct Edge {
    dependent: Address,
    on: Address,
    /// `n` normal: in the way of a DROP; others go along with it.
    normal: bool,
    /// The dependent in words.
    described: String,
    /// It is a table, view or materialized view, not an index or a sequence.
    is_table: bool,
    /// It goes along, but somebody has made it: an index, a sequence, a constraint, statistics, a trigger, a policy, a rule, a member of a
    /// publication.
    is_made: bool,
}

/// Everything that hangs on some objects.
#[derive(Debug, Default)]
pub struct Graph {
    edges: Vec<Edge>,
    /// By catalog and oid: the edges of what depends on it.
    on: HashMap<(u32, u32), Vec<usize>>,
}

impl Graph {
    /// Follows dependents from these objects on.
    ///
    /// Errors: those of SPI.
    pub fn from(roots: &[Address]) -> Result<Graph, Problem> {
        let mut graph = Graph::default();
        let mut seen: BTreeSet<(u32, u32)> = BTreeSet::new();
        let mut next: Vec<(u32, u32)> = roots.iter().map(|a| (a.catalog, a.oid)).collect();
        while !next.is_empty() {
            pgrx::check_for_interrupts!();
            next.retain(|object| seen.insert(*object));
            let found = dependents(&next)?;
            next = found
                .iter()
                .filter(|edge| !edge.normal)
                .map(|edge| (edge.dependent.catalog, edge.dependent.oid))
                .collect();
            graph.edges.extend(found);
        }
        for (at, edge) in graph.edges.iter().enumerate() {
            graph.on.entry((edge.on.catalog, edge.on.oid)).or_default().push(at);
        }
        Ok(graph)
    }

    /// What goes along when this is dropped, itself included.
    pub fn along(&self, root: Address) -> BTreeSet<Address> {
        let mut all = BTreeSet::from([root]);
        let mut next = vec![root];
        while let Some(address) = next.pop() {
            for edge in self.dependents_of(address).filter(|edge| !edge.normal) {
                if !covered(&all, edge.dependent) {
                    all.insert(edge.dependent);
                    next.push(edge.dependent);
                }
            }
        }
        all
    }

    /// What depends on this, or (of a whole) on a part of it.
    fn dependents_of(&self, address: Address) -> impl Iterator<Item = &Edge> {
        let edges = self.on.get(&(address.catalog, address.oid));
        edges
            .into_iter()
            .flatten()
            .map(|at| &self.edges[*at])
            .filter(move |edge| address.part == 0 || edge.on.part == address.part)
    }

    /// What stands on it by itself and is not among these.
    pub fn normal_dependents(&self, address: Address, but: &BTreeSet<Address>) -> Vec<Address> {
        self.dependents_of(address)
            .filter(|edge| edge.normal && !covered(but, edge.dependent))
            .map(|edge| edge.dependent)
            .collect()
    }

    /// What is in the way of dropping one, given all that is dropped: in words.
    pub fn in_the_way(
        &self,
        along: &BTreeSet<Address>,
        dropped: &BTreeSet<Address>,
        roots: &BTreeSet<Address>,
        own: &BTreeSet<Address>,
    ) -> Vec<String> {
        let mut found: BTreeSet<String> = BTreeSet::new();
        for edge in along.iter().flat_map(|address| self.dependents_of(*address)) {
            let outside = match edge.normal {
                true => !covered(dropped, edge.dependent),
                // A partition goes along without being asked: it must be the script's as well.
                false if edge.is_table => edge.dependent.part == 0 && !covered(roots, edge.dependent),
                false => edge.is_made && !covered(own, edge.dependent),
            };
            if outside {
                found.insert(edge.described.replace("rule _RETURN on ", ""));
            }
        }
        found.into_iter().collect()
    }

    /// Which of them must go before which: (first, second), by index.
    pub fn order(&self, along: &[BTreeSet<Address>]) -> BTreeSet<(usize, usize)> {
        let mut of: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
        for (at, set) in along.iter().enumerate() {
            for address in set {
                of.entry((address.catalog, address.oid)).or_default().push(at);
            }
        }
        let owners = |address: Address| -> Vec<usize> {
            let all = of.get(&(address.catalog, address.oid)).cloned().unwrap_or_default();
            all.into_iter().filter(|at| covered(&along[*at], address)).collect()
        };
        let mut order = BTreeSet::new();
        for edge in self.edges.iter().filter(|edge| edge.normal) {
            for first in owners(edge.dependent) {
                for second in owners(edge.on) {
                    if first != second && !covered(&along[second], edge.dependent) {
                        order.insert((first, second));
                    }
                }
            }
        }
        order
    }
}

fn covered(set: &BTreeSet<Address>, address: Address) -> bool {
    let whole = Address { part: 0, ..address };
    set.contains(&address) || set.contains(&whole)
}

fn dependents(objects: &[(u32, u32)]) -> Result<Vec<Edge>, Problem> {
    let catalogs: Vec<pg_sys::Oid> = objects.iter().map(|(catalog, _)| pg_sys::Oid::from(*catalog)).collect();
    let oids: Vec<pg_sys::Oid> = objects.iter().map(|(_, oid)| pg_sys::Oid::from(*oid)).collect();
    let sql = "SELECT d.classid, d.objid, d.objsubid, d.refclassid, d.refobjid, d.refobjsubid, d.deptype::pg_catalog.text,
                      pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid),
                      d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relkind IN ('r', 'p', 'f', 'v', 'm')),
                      d.deptype = 'a' AND (
                        d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                          AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relkind IN ('i', 'I', 'S') AND c.relnamespace <> 'pg_toast'::pg_catalog.regnamespace)
                          -- What comes with the index of a partitioned table is looked at there.
                          AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = d.objid)
                          -- That of a constraint is looked at as the constraint.
                          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend i WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i'
                                          AND i.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass)
                        OR d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
                          AND EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = d.objid AND k.contype <> 'n' AND k.contypid = 0 AND k.conparentid = 0)
                        OR d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
                          AND EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.oid = d.objid AND g.tgparentid = 0)
                        OR d.classid IN ('pg_catalog.pg_policy'::pg_catalog.regclass,
                                         'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass,
                                         'pg_catalog.pg_publication_rel'::pg_catalog.regclass))
               FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.oid[])) AS s (catalog, object)
               JOIN pg_catalog.pg_depend d ON d.refclassid = s.catalog AND d.refobjid = s.object";
    let arguments = [catalogs.into(), oids.into()];
    Ok(Spi::connect(|client| {
        let mut edges = Vec::new();
        for row in client.select(sql, None, &arguments)? {
            let oid = |column: usize| Ok::<_, SpiError>(row.get::<pg_sys::Oid>(column)?.map_or(0, |oid| oid.to_u32()));
            let dependent = Address {
                catalog: oid(1)?,
                oid: oid(2)?,
                part: row.get::<i32>(3)?.unwrap_or(0),
            };
            let on = Address {
                catalog: oid(4)?,
                oid: oid(5)?,
                part: row.get::<i32>(6)?.unwrap_or(0),
            };
            edges.push(Edge {
                dependent,
                on,
                normal: row.get::<String>(7)?.as_deref() == Some("n"),
                described: row.get::<String>(8)?.unwrap_or_default(),
                is_table: row.get::<bool>(9)?.unwrap_or(false),
                is_made: row.get::<bool>(10)?.unwrap_or(false),
            });
        }
        Ok::<_, SpiError>(edges)
    })?)
}
