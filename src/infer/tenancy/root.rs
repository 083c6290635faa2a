//! Which table holds the tenants, for the whole catalog: told by points, because no signal decides alone.
//!
//! | points | signal |
//! |---:|---|
//! | up to 6 | how many tables reach it by references, compared with the table that most reach; not through a table that is called what nothing but tenants is |
//! | 5 | the column that most tables reference it by is named after it |
//! | 5 | it is called what nothing but tenants is (tenant, organization); 3 for workspace, account, company, org |
//! | up to 3 | how many tables reference it directly by a column of one name |
//! | up to 2 | how many of those columns are NOT NULL |
//! | 1 | it does not reference another candidate itself |
//!
//! A lookup table (countries) is reached by as many, `users` is referenced as often, and in a half-done migration
//! `domains` is referenced more often than `organizations`. Less than 2.5 points between the first and the second is a
//! tie; so is a table above the first one on which others hang that do not hang on the first (teams above companies: users
//! would be nobody's). A tie is an error that names both: everything else rests on the root.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::catalog::{Catalog, Table};
use crate::infer::InferError;
use crate::infer::reference;
use crate::names::{self, prefix_before};

/// Points of a candidate, in thousandths.
pub type Points = i64;

/// Less than this between two candidates is a tie.
pub const CLEAR: Points = 2500;

/// What tenants are called, whatever stands in front (`saas_tenants`).
const TENANT_NAMES: [&str; 3] = ["tenant", "organization", "organisation"];

/// What tenants are called, where it is the whole name: a `user_account` or a `mailing_list_workspace` is none.
const WHOLE_NAMES: [&str; 4] = ["org", "workspace", "account", "company"];

/// A table that could hold the tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The table.
    pub table: u32,
    /// See the head of this file.
    pub points: Points,
    /// Tables that lead to it by references, directly or through others.
    pub reached_by: usize,
}

/// The table that holds the tenants.
///
/// Errors: 42P08 with the candidates where several are equally likely, 42704 where no table is referenced by others.
pub fn find(catalog: &Catalog) -> Result<&Table, InferError> {
    if let Some(root) = known(catalog) {
        return Ok(root);
    }
    let choices = likely(catalog)
        .iter()
        .filter_map(|c| Some((catalog.display(catalog.table(c.table)?), c.reached_by)))
        .collect();
    Err(InferError::NoSingleRoot { choices })
}

/// As [`find`], for those who can do without. Kept, because it is asked for every column.
pub fn known(catalog: &Catalog) -> Option<&Table> {
    let kept = *catalog.tenant_root.borrow();
    let root = kept.unwrap_or_else(|| {
        let found = match likely(catalog).as_slice() {
            [only] => Some(only.table),
            _ => None,
        };
        catalog.tenant_root.replace(Some(found));
        found
    });
    root.and_then(|oid| catalog.table(oid))
}

/// The candidates between which the points do not decide; one, if they do.
fn likely(catalog: &Catalog) -> Vec<Candidate> {
    let references = References::of(catalog);
    let ranked = rank(catalog, &references);
    let Some(first) = ranked.first() else {
        return vec![];
    };
    // Whose rows would be nobody's: tables that hang on a table above the first one, and not on it.
    let ours = references.below(first.table, |_| true);
    let above = |candidate: &Candidate| {
        let table = candidate.table;
        references.named.contains(&(first.table, table))
            && candidate.reached_by > first.reached_by
            && !ours.contains(&table)
            && references.children.get(&table).into_iter().flatten().any(|child| {
                *child != first.table && !ours.contains(child) && references.named.contains(&(*child, table))
            })
    };
    let tied = |c: &&Candidate| first.points - c.points < CLEAR || above(c);
    ranked.iter().filter(tied).cloned().collect()
}

/// Every table that two or more others reach, the likeliest first.
pub fn candidates(catalog: &Catalog) -> Vec<Candidate> {
    rank(catalog, &References::of(catalog))
}

/// Which table references which.
#[derive(Default)]
struct References<'a> {
    /// (parent, column name) → how many tables reference it so, and how many of the columns are NOT NULL
    uses: HashMap<(u32, &'a str), (usize, usize)>,
    children: HashMap<u32, HashSet<u32>>,
    parents: HashMap<u32, HashSet<u32>>,
    /// (child, parent), where the column is named after the parent.
    named: HashSet<(u32, u32)>,
}

impl<'a> References<'a> {
    fn of(catalog: &'a Catalog) -> Self {
        let mut found = References::default();
        let tables = catalog
            .tables
            .iter()
            .filter(|t| t.is_table() && !t.is_partition && !t.of_extension);
        for table in tables {
            for column in &table.columns {
                let Some(to) = reference::of(catalog, table, column).filter(|r| r.parent != table.oid) else {
                    continue;
                };
                // A table whose key is another's key is a part of it (profiles.id -> auth.users.id): it leads nowhere new.
                if table.primary_key().is_some_and(|key| key.columns == [column.number]) {
                    continue;
                }
                let (all, not_null) = found.uses.entry((to.parent, column.name.as_str())).or_default();
                *all += 1;
                *not_null += usize::from(column.never_null);
                found.children.entry(to.parent).or_default().insert(table.oid);
                found.parents.entry(table.oid).or_default().insert(to.parent);
                if catalog
                    .table(to.parent)
                    .is_some_and(|parent| named_after(&column.name, &parent.name))
                {
                    found.named.insert((table.oid, to.parent));
                }
            }
        }
        found
    }

    /// The tables that lead to `oid`, directly or through others; itself included. `through`: is this other one followed?
    fn below(&self, oid: u32, through: impl Fn(u32) -> bool) -> HashSet<u32> {
        let mut seen: HashSet<u32> = HashSet::from([oid]);
        let mut next = vec![oid];
        while let Some(at) = next.pop() {
            if at == oid || through(at) {
                let children = self.children.get(&at).into_iter().flatten();
                next.extend(children.filter(|child| seen.insert(**child)));
            }
        }
        seen
    }
}

fn rank(catalog: &Catalog, references: &References) -> Vec<Candidate> {
    let (uses, parents) = (&references.uses, &references.parents);
    let counted = |through: &dyn Fn(u32) -> bool| -> HashMap<u32, usize> {
        let parents = references.children.keys();
        parents
            .map(|&oid| (oid, references.below(oid, through).len() - 1))
            .collect()
    };
    let all_reached = counted(&|_| true);
    // What a tenant itself references (its plan, its country) is no owner of what hangs on the tenant.
    let reached = counted(&|oid| {
        catalog
            .table(oid)
            .is_none_or(|table| called_tenant(&table.name) != SURE)
    });
    let most_reached = reached.values().copied().max().unwrap_or(1).max(1) as i64;
    let most_used = uses.values().map(|(all, _)| *all).max().unwrap_or(1) as i64;
    let below = |oid: u32| {
        let mut above = parents.get(&oid).into_iter().flatten();
        above.any(|parent| *parent != oid && reached.get(parent) >= reached.get(&oid))
    };
    let mut best: HashMap<u32, Points> = HashMap::new();
    for (&(parent, column), &(all, not_null)) in uses {
        let Some(table) = catalog.table(parent).filter(|_| all_reached[&parent] >= 2) else {
            continue;
        };
        let points = 6000 * reached[&parent] as i64 / most_reached
            + if named_after(column, &table.name) { 5000 } else { 0 }
            + called_tenant(&table.name)
            + 3000 * all as i64 / most_used
            + 2000 * not_null as i64 / all as i64
            + if below(parent) { 0 } else { 1000 };
        let known = best.entry(parent).or_default();
        *known = points.max(*known);
    }
    let mut ranked: Vec<Candidate> = best
        .into_iter()
        .map(|(table, points)| Candidate {
            table,
            points,
            reached_by: all_reached[&table],
        })
        .collect();
    ranked.sort_by_key(|c| (Reverse(c.points), c.table));
    ranked
}

/// Is the column named after the table: `tenantId` after `Tenant`, `org_id` after `organizations`?
pub fn named_after(column: &str, table: &str) -> bool {
    if prefix_before(column, table).is_some_and(|role| role.is_empty()) {
        return true;
    }
    match (names::column_stem(column).as_slice(), names::stem(table).as_slice()) {
        ([short], [long]) => short.len() >= 3 && long.starts_with(short.as_str()),
        _ => false,
    }
}

/// Points for a name that nothing but tenants have.
const SURE: Points = 5000;

/// Points for a name that the customers of tenants have as well.
const LIKELY: Points = 3000;

fn called_tenant(table: &str) -> Points {
    let stem = names::stem(table);
    match stem.as_slice() {
        [only] if WHOLE_NAMES.contains(&only.as_str()) => LIKELY,
        words if words.last().is_some_and(|last| TENANT_NAMES.contains(&last.as_str())) => SURE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::Builder;

    fn root(catalog: &Catalog) -> Option<&str> {
        known(catalog).map(|t| t.name.as_str())
    }

    #[test]
    fn the_top_of_a_half_done_migration_although_a_table_below_is_referenced_more_often() {
        let mut builder = Builder::new()
            .table("organizations", &["id"])
            .table("domains", &["id", "organization_id"])
            .references("domains", "organization_id", "organizations");
        for table in ["conversations", "scraped_pages", "website_content", "configs"] {
            builder = builder
                .table(table, &["id", "domain_id"])
                .references(table, "domain_id", "domains");
        }
        assert_eq!(root(&builder.build()), Some("organizations"));
    }

    #[test]
    fn users_are_not_the_tenants_although_every_table_says_who_created_it() {
        let mut builder = Builder::new()
            .table("organizations", &["id", "plan_id"])
            .table("users", &["id", "organization_id?"])
            .table("plans", &["id"])
            .references("organizations", "plan_id", "plans")
            .references("users", "organization_id", "organizations");
        for table in ["orders", "invoices", "notes"] {
            builder = builder
                .table(table, &["id", "organization_id?", "user_id"])
                .references(table, "organization_id", "organizations")
                .references(table, "user_id", "users");
        }
        assert_eq!(root(&builder.build()), Some("organizations"));
    }

    #[test]
    fn a_table_of_any_name_that_the_others_reference_under_different_names() {
        let catalog = Builder::new()
            .table("auth_users", &["id"])
            .table("profiles", &["id"])
            .references("profiles", "id", "auth_users")
            .table("properties", &["id", "org_id"])
            .references("properties", "org_id", "profiles")
            .table("agent_runs", &["id", "org_id"])
            .references("agent_runs", "org_id", "profiles")
            .table("orders", &["id", "created_by?"])
            .references("orders", "created_by", "profiles")
            .build();
        assert_eq!(root(&catalog), Some("profiles"));
    }

    #[test]
    fn two_equals_are_an_error_that_names_both() {
        let mut builder = Builder::new().table("alpha", &["id"]).table("beta", &["id"]);
        for table in ["one", "two"] {
            builder = builder
                .table(table, &["id", "alpha_id", "beta_id"])
                .references(table, "alpha_id", "alpha")
                .references(table, "beta_id", "beta");
        }
        let catalog = builder.build();
        assert_eq!(
            find(&catalog).unwrap_err(),
            InferError::NoSingleRoot {
                choices: vec![("\"alpha\"".into(), 2), ("\"beta\"".into(), 2)]
            }
        );
    }

    #[test]
    fn a_company_of_a_crm_is_not_silently_the_tenant_of_the_team_that_keeps_it() {
        let mut builder = Builder::new()
            .table("teams", &["id"])
            .table("users", &["id", "team_id"])
            .references("users", "team_id", "teams")
            .table("companies", &["id", "team_id"])
            .references("companies", "team_id", "teams");
        for table in ["contacts", "deals", "notes", "calls"] {
            builder = builder
                .table(table, &["id", "company_id"])
                .references(table, "company_id", "companies");
        }
        let catalog = builder.build();
        let InferError::NoSingleRoot { choices } = find(&catalog).unwrap_err() else {
            panic!("another error");
        };
        assert_eq!(
            choices,
            [("\"companies\"".to_string(), 4), ("\"teams\"".to_string(), 6)]
        );
    }
}
