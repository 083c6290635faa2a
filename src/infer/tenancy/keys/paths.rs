//! The paths to a key's value, and which of them is the best.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::rc::Rc;

use super::edge::ReferenceEdge;
use super::{TenantKey, TenantKeys};
use crate::catalog::{Column, State, Table};
use crate::infer::reference;
use crate::names;
use crate::rule::{Hop, Source};

/// At most this many paths of a table are compared with each other; more are counted.
pub const MOST_PATHS: usize = 12;

/// How many ways are followed from one table before the search gives up: schemas in which everything references
/// everything have more paths than anybody wants to compare.
const MOST_STEPS: usize = 4000;

/// A path to the value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSource {
    /// The path; the last hop's column is the key of the row that carries it.
    pub source: Source,
    /// What is weak about it, in words: a hop without foreign key, or one that is not valid.
    pub caution: Option<String>,
    pub(super) rank: Rank,
}

impl TenantSource {
    /// Every hop is a foreign key.
    pub fn declared(&self) -> bool {
        !self.rank.undeclared
    }

    /// No column on the way may be NULL, nor the key at its end, and every hop is a foreign key.
    pub fn always_gives(&self) -> bool {
        !self.rank.undeclared && !self.rank.nullable && !self.rank.nullable_further && !self.rank.key_nullable
    }

    /// It leads up the table's own tree.
    pub fn in_own_tree(&self) -> bool {
        self.rank.own_tree
    }
}

/// The signals of the head of this room; the smallest is the best.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    undeclared: bool,
    own_tree: bool,
    /// Where the path starts.
    nullable: bool,
    /// Further up.
    nullable_further: bool,
    not_named: bool,
    not_cascading: bool,
    key_nullable: bool,
    name_in_front: Reverse<usize>,
    hops: usize,
    columns: Vec<i16>,
    /// Where paths part only further up: the same signals there.
    further: Vec<Further>,
    /// Of several keys at the end, the earlier.
    value: i16,
}

/// Why a run does not follow a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFollowed {
    /// A better one leads up the table's own tree: along two, what is filled would depend on which was followed first.
    SecondTree,
    /// Several columns reference the root, and nothing says which of them this path gives.
    NobodysRole,
    /// Tables would be filled from each other.
    Circle,
}

impl NotFollowed {
    /// In words, to be put behind the path.
    pub fn as_str(self) -> &'static str {
        match self {
            NotFollowed::SecondTree => "is not followed: a tree is filled along one reference only",
            NotFollowed::NobodysRole => {
                "is not followed: the table has several tenant keys, and it is unclear for which of them this path is"
            }
            NotFollowed::Circle => {
                "is not followed in a run over all tables, where it would close a circle; with table_name it is"
            }
        }
    }
}

/// The signals of a hop that is not the first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Further {
    undeclared: bool,
    nullable: bool,
    not_cascading: bool,
    name_in_front: Reverse<usize>,
    columns: Vec<i16>,
}

/// The paths of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// The best first: a run fills from them and compares them.
    pub found: Vec<TenantSource>,
    /// Paths that a run does not follow, and why.
    pub not_followed: Vec<(TenantSource, NotFollowed)>,
    /// There are more than are compared.
    pub more: bool,
    /// Paths whose value the column cannot hold, in words.
    pub unfit: Vec<String>,
}

impl<'a> TenantKeys<'a> {
    /// The paths by which the rows of a table without a key of its own have their tenant: the best first, the next one where the one before
    /// gives nothing, up to one that always does.
    ///
    /// * `inferred`: also by names, and along what no foreign key declares.
    pub fn row_paths(&self, table: &Table, inferred: bool) -> Vec<Source> {
        let mut through = Vec::new();
        for path in self.paths(table, None).found {
            // The key at its end must be declared as well.
            let Some((owner, column)) = path.source.value(table.oid) else {
                continue;
            };
            let of_owner = |t: &'a Table| self.of(t).iter().any(|k| k.column == column && k.foreign_key.is_some());
            let known = owner == self.root.oid || self.catalog.table(owner).is_some_and(of_owner);
            if !(inferred || path.declared() && known) {
                continue;
            }
            // A hop that is not valid may dangle.
            let settles = path.always_gives() && path.caution.is_none();
            through.push(path.source);
            if settles {
                break;
            }
        }
        through
    }

    /// The paths to the value of `target` (a key of `table`; `None`: the table has none), the best first.
    pub fn paths(&self, table: &Table, target: Option<&TenantKey>) -> Paths {
        let column = target.and_then(|key| table.column(key.column));
        let mut result = Paths::default();
        // Where we are, how we got there.
        let mut queue: VecDeque<(u32, PartialPath)> = VecDeque::from([(table.oid, PartialPath::default())]);
        let mut followed = 0;
        while let Some((at, way)) = queue.pop_front() {
            let Some(here) = self.catalog.table(at) else { continue };
            for step in self.steps(here).iter() {
                followed += 1;
                let Some(parent) = self.catalog.table(step.parent) else {
                    continue;
                };
                let Some(step) = without_target(step, parent, column.filter(|_| way.hops.is_empty())) else {
                    continue;
                };
                let own_tree = step.parent == table.oid;
                if own_tree && (column.is_none() || !way.hops.is_empty())
                    || way.hops.iter().any(|hop| hop.parent == step.parent)
                {
                    continue;
                }
                let values = match own_tree {
                    true => column.into_iter().collect(),
                    false => self.carried(parent, column),
                };
                for value in &values {
                    let way = way.and(here, &step, parent);
                    self.arrive(table, target, column, parent, value, way, &mut result);
                }
                if values.is_empty() && self.leads(step.parent) && !own_tree {
                    queue.push_back((step.parent, way.and(here, &step, parent)));
                }
            }
            if followed > MOST_STEPS {
                result.more = true;
                break;
            }
        }
        result.found.sort_by(|a, b| a.rank.cmp(&b.rank));
        let mut seen: Vec<Source> = Vec::new();
        result.found.retain(|path| {
            let new = !seen.contains(&path.source);
            seen.push(path.source.clone());
            new
        });
        let mut trees = 0;
        let (found, second): (Vec<TenantSource>, Vec<TenantSource>) = result.found.into_iter().partition(|path| {
            trees += usize::from(path.in_own_tree());
            !path.in_own_tree() || trees == 1
        });
        result.found = found;
        result.not_followed.sort_by(|a, b| a.0.rank.cmp(&b.0.rank));
        result
            .not_followed
            .extend(second.into_iter().map(|path| (path, NotFollowed::SecondTree)));
        result.more |= result.found.len() > MOST_PATHS;
        result.found.truncate(MOST_PATHS);
        result
    }

    #[allow(clippy::too_many_arguments)]
    fn arrive(
        &self,
        table: &Table,
        target: Option<&TenantKey>,
        column: Option<&Column>,
        parent: &Table,
        value: &Column,
        way: PartialPath,
        result: &mut Paths,
    ) {
        let mut hops = way.hops;
        if let Some(last) = hops.last_mut() {
            last.columns = vec![value.number];
        }
        let source = Source::of_columns(&way.columns, hops);
        if let Some(column) = column
            && !crate::rule::check::fits(self.catalog, column, value)
        {
            let type_of = |c: &Column| {
                self.catalog
                    .type_of(c.type_oid)
                    .map(|t| t.display.clone())
                    .unwrap_or_default()
            };
            result.unfit.push(format!(
                "{} gives {}, {} is {}",
                source.to_path(self.catalog, table),
                type_of(value),
                column.quoted,
                type_of(column)
            ));
            return;
        }
        let named = match column {
            Some(column) => self.named_after_start(table, column, &source),
            None => false,
        };
        // Where several columns reference the root, only its own role says which of them a path gives.
        let nobodys = target.is_some_and(|key| key.one_of_several) && !named;
        let path = TenantSource {
            rank: Rank {
                undeclared: way.weakest == State::Missing,
                own_tree: parent.oid == table.oid,
                nullable: way.nullable,
                nullable_further: way.further.iter().any(|hop| hop.nullable),
                not_named: !named,
                not_cascading: !way.cascades,
                key_nullable: !value.never_null,
                name_in_front: Reverse(way.in_front),
                hops: source.hops.len(),
                columns: source.columns(),
                value: value.number,
                further: way.further,
            },
            caution: (!way.weak.is_empty()).then(|| way.weak.join(", ")),
            source,
        };
        match nobodys {
            true => result.not_followed.push((path, NotFollowed::NobodysRole)),
            false => result.found.push(path),
        }
    }

    /// `from_org_id` is named after `from_account_id`, `snippet_project_id` after `snippet_id`.
    fn named_after_start(&self, table: &Table, column: &Column, source: &Source) -> bool {
        let words = names::words(&column.name);
        let role = names::prefix_before(&column.name, &self.root.name).unwrap_or_else(|| {
            // org in from_org_id: whatever is left without the last word.
            let mut stem = names::column_stem(&column.name);
            stem.pop();
            stem
        });
        table.names_of(&source.columns()).iter().any(|start| {
            let start = names::column_stem(start);
            words.starts_with(&start) || (!role.is_empty() && start.starts_with(&role))
        })
    }

    /// The keys that a row of `parent` carries, as far as `target` is concerned: the one of the same name; else the first;
    /// where nothing says which of several is the tenant, all of them, to be compared.
    fn carried(&self, parent: &'a Table, target: Option<&Column>) -> Vec<&'a Column> {
        if parent.oid == self.root.oid {
            return vec![self.key];
        }
        let keys = self.of(parent);
        let columns = || keys.iter().filter_map(|key| parent.column(key.column));
        if let Some(same) = columns().find(|column| target.is_some_and(|target| target.name == column.name)) {
            return vec![same];
        }
        match keys.iter().any(|key| key.one_of_several) {
            true => columns().collect(),
            false => columns().take(1).collect(),
        }
    }

    /// What a path can follow from `table`, but for its keys: they lead to the root itself.
    pub(super) fn steps(&self, table: &Table) -> Rc<Vec<ReferenceEdge>> {
        if let Some(steps) = self.found.steps.borrow().get(&table.oid) {
            return steps.clone();
        }
        let steps = Rc::new(self.find_steps(table));
        self.found.steps.borrow_mut().insert(table.oid, steps.clone());
        steps
    }

    fn find_steps(&self, table: &Table) -> Vec<ReferenceEdge> {
        let catalog = self.catalog;
        let to_root = |parent: u32, key: &[i16]| parent == self.root.oid && key == [self.key.number];
        let not_null = |columns: &[i16]| columns.iter().all(|c| table.column(*c).is_some_and(|c| c.never_null));
        let mut steps: Vec<ReferenceEdge> = catalog
            .foreign_keys_of(table.oid)
            .filter(|key| !to_root(key.parent, &key.parent_columns))
            .filter(|key| {
                catalog
                    .table(key.parent)
                    .is_some_and(|p| p.is_unique(&key.parent_columns))
            })
            .map(|key| ReferenceEdge {
                not_null: not_null(&key.columns),
                columns: key.columns.clone(),
                parent: key.parent,
                key: key.parent_columns.clone(),
                cascades: key.on_delete == 'c',
                state: key.state(),
            })
            .collect();
        // A tenant in its own key (tenant_id, customer_id): the row below can be found by the rest alone.
        let keys = self.of(table);
        for column in &table.columns {
            if keys.iter().any(|key| key.column == column.number) {
                continue;
            }
            if let Some(to) = reference::of(catalog, table, column)
                && !to_root(to.parent, &[to.key])
                && !steps.iter().any(|step| step.columns == [column.number])
                && !to.declared
            {
                steps.push(ReferenceEdge {
                    columns: vec![column.number],
                    parent: to.parent,
                    key: vec![to.key],
                    not_null: column.never_null,
                    cascades: false,
                    state: State::Missing,
                });
            }
        }
        steps
    }
}

/// A path that does not yet end in a tenant key.
#[derive(Debug, Clone, Default)]
struct PartialPath {
    columns: Vec<i16>,
    hops: Vec<Hop>,
    nullable: bool,
    cascades: bool,
    /// How many words of the table's name the first parent's name is.
    in_front: usize,
    further: Vec<Further>,
    weakest: State,
    weak: Vec<String>,
}

impl PartialPath {
    /// One hop further.
    fn and(&self, from: &Table, step: &ReferenceEdge, parent: &Table) -> PartialPath {
        let mut way = self.clone();
        let stem = names::stem(&parent.name);
        let in_front = match names::words(&from.name).starts_with(&stem) {
            true => stem.len(),
            false => 0,
        };
        match way.hops.last_mut() {
            Some(last) => {
                last.columns = step.columns.clone();
                way.further.push(Further {
                    undeclared: step.state == State::Missing,
                    nullable: !step.not_null,
                    not_cascading: !step.cascades,
                    name_in_front: Reverse(in_front),
                    columns: step.columns.clone(),
                });
            }
            None => {
                way.columns = step.columns.clone();
                way.nullable = !step.not_null;
                way.cascades = step.cascades;
                way.in_front = in_front;
            }
        }
        way.hops.push(Hop {
            parent: step.parent,
            key: step.key.clone(),
            columns: vec![],
        });
        let columns = from.names_of(&step.columns).join(", ");
        match step.state {
            State::Valid => {}
            State::NotValid => way.weak.push(format!(
                "the foreign key on {columns} of {} is not valid",
                from.quoted_name
            )),
            State::NotEnforced => {
                way.weak.push(format!(
                    "the foreign key on {columns} of {} is not enforced",
                    from.quoted_name
                ));
            }
            State::Missing => {
                way.weakest = State::Missing;
                way.weak
                    .push(format!("no foreign key on {columns} of {}", from.quoted_name));
            }
        }
        way
    }
}

/// A step that does not read the column to fill; where the key holds it, the rest may find the row by itself.
fn without_target(step: &ReferenceEdge, parent: &Table, target: Option<&Column>) -> Option<ReferenceEdge> {
    let Some(at) = target.and_then(|target| step.columns.iter().position(|c| *c == target.number)) else {
        return Some(step.clone());
    };
    let mut rest = step.clone();
    rest.columns.remove(at);
    rest.key.remove(at);
    (!rest.key.is_empty() && parent.is_unique(&rest.key)).then_some(rest)
}
