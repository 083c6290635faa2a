//! Missing parent keys, and the tenants of the rows that reference them: in whatever table, because a parent that is created for one
//! tenant is another tenant's for the rows of others that mean the same key.

use super::prepared::PreparedRepair;
use crate::catalog::{Catalog, Table};
use crate::plan::Statement;
use crate::plan::expression::{all_set, calls_user_code, indent};
use crate::plan::join::as_key;
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::validate::pass::Pass;
use crate::validate::reference::{Found, KeyReference, collect};
use crate::validate::{declared, may_be_read};

/// Who else references the parent by the same key.
pub(super) struct Others<'a> {
    /// References whose rows have tenants.
    references: Vec<KeyReference<'a>>,
    /// Those that could not be looked at, as displayed.
    pub(super) unread: Vec<String>,
}

impl<'a> Others<'a> {
    /// Finds them.
    ///
    /// Errors: 42501 where `mend.declared_references` may not be read.
    pub(super) fn find(work: &PreparedRepair<'a>) -> Result<Self, Problem> {
        let (session, own) = (work.session, &work.reference);
        let catalog = &session.catalog;
        let mut others = Others {
            references: vec![],
            unread: vec![],
        };
        let declared = declared::load(session)?;
        for found in collect(catalog, None, true, &declared) {
            let Found::Reference(other) = found else { continue };
            let itself = other.table.oid == own.table.oid
                && other.columns == own.columns
                && other.discriminator == own.discriminator;
            if itself || other.parent.oid != own.parent.oid || other.key != own.key {
                continue;
            }
            let shown = format!("{}.{}", catalog.display(other.table), other.columns_shown());
            let mut pass = Pass::over(catalog, work.resolver, other.table);
            if pass.conditions(&other).tenants.is_none() {
                continue;
            }
            let mut problems = Problems::default();
            may_be_read(session, &pass, &mut problems);
            session.hold(pass.reads().iter().map(|(table, _)| *table))?;
            match problems.is_empty() && same_types(catalog, &other, own) {
                true => others.references.push(other),
                false => others.unread.push(shown),
            }
        }
        Ok(others)
    }

    /// One row per missing key that a row to be repaired references: `key_1..`, `tenant` of those rows, `tenants` (how many, of
    /// all rows that reference it), `rows` to be repaired.
    ///
    /// * `with_tenant`: the parent belongs to a tenant.
    pub(super) fn missing(&self, work: &PreparedRepair, with_tenant: bool) -> Statement {
        let catalog = &work.session.catalog;
        let own = columns(work.reference.table, &work.reference.columns);
        let tenant = match (with_tenant, &work.conditions.tenants) {
            (true, Some(tenants)) => tenants.own.any.first(),
            _ => None,
        };
        let mut select = keys(catalog, &work.reference);
        select.push(format!(
            "{} AS tenant",
            tenant.map_or("NULL::pg_catalog.text", |t| t.as_str())
        ));
        // A row that is not to be repaired has its tenant all the same.
        let mine = match (&work.only_where, tenant) {
            (Some(condition), Some(_)) => format!("({condition}) IS TRUE"),
            _ => "true".into(),
        };
        select.push(format!("{mine} AS mine"));
        let condition = match tenant {
            Some(_) => &work.conditions.orphan,
            None => &work.violating,
        };
        let mut first = Statement::new(format!("SELECT {}\n{}", select.join(", "), work.pass.from()))
            .filter(format!("({condition})"))
            .filter(all_set(&own))
            .with_parameters(work.pass.parameters.clone());
        if work.only_where.as_ref().is_some_and(|c| calls_user_code(c)) {
            first = first.under_callers_settings(&work.session.caller.with_exact_texts());
        }
        let mut parameters = first.parameters().to_vec();
        let mut parts = vec![first];
        for other in self.references.iter().filter(|_| tenant.is_some()) {
            let mut pass = Pass::over(catalog, work.resolver, other.table);
            // Its parameters come after those of the others.
            pass.parameters = parameters;
            let conditions = pass.conditions(other);
            let theirs = columns(other.table, &other.columns);
            for tenant in conditions.tenants.iter().flat_map(|tenants| &tenants.own.any) {
                let mut select = keys(catalog, other);
                select.push(format!("{tenant} AS tenant, false AS mine"));
                let part = Statement::new(format!("SELECT {}\n{}", select.join(", "), pass.from()))
                    .filter(format!("({})", conditions.orphan))
                    .filter(all_set(&theirs));
                parts.push(part);
            }
            parameters = pass.parameters;
        }
        let all = Statement::union_all(parts).sql();
        let names: Vec<String> = (1..=own.len()).map(|i| format!("key_{i}")).collect();
        let numbers = match tenant {
            Some(_) => {
                "(pg_catalog.array_agg(DISTINCT tenant) FILTER (WHERE mine AND tenant IS NOT NULL))[1] AS tenant,\n  \
                 CASE WHEN pg_catalog.count(tenant) FILTER (WHERE mine) = 0 THEN 0 ELSE pg_catalog.count(DISTINCT tenant) END AS tenants"
            }
            None => "1::pg_catalog.int8 AS tenants",
        };
        Statement::new(format!(
            "SELECT {}, {numbers}, pg_catalog.count(*) FILTER (WHERE mine) AS rows\nFROM (\n{}\n) AS referencing\nGROUP BY {}\nHAVING pg_catalog.bool_or(mine)",
            names.join(", "),
            indent(&all, 2),
            names.join(", ")
        ))
        .with_parameters(parameters)
    }
}

fn columns(table: &Table, columns: &[i16]) -> Vec<String> {
    let columns = columns.iter().filter_map(|c| table.column(*c));
    columns.map(|c| format!("t.{}", c.sql())).collect()
}

/// The values of a reference as the parent's key has them, so that what would be one parent is one.
fn keys(catalog: &Catalog, reference: &KeyReference) -> Vec<String> {
    let own = reference.columns.iter().filter_map(|c| reference.table.column(*c));
    let of_parent = reference.key.iter().filter_map(|c| reference.parent.column(*c));
    own.zip(of_parent)
        .enumerate()
        .map(|(i, (c, key))| {
            let value = as_key(catalog, &format!("t.{}", c.sql()), c, key);
            format!("{value} AS key_{}", i + 1)
        })
        .collect()
}

/// Are keys of both grouped alike: of one type and collation, or integers?
fn same_types(catalog: &Catalog, a: &KeyReference, b: &KeyReference) -> bool {
    let of = |r: &KeyReference, at: usize| {
        let column = r.table.column(r.columns[at])?;
        let (base, _) = catalog.base_type(column.type_oid, -1)?;
        Some((base.oid, base.integer_range().is_some(), column.collation.clone()))
    };
    (0..b.columns.len()).all(|at| match (of(a, at), of(b, at)) {
        (Some(a), Some(b)) => (a.0 == b.0 || a.1 && b.1) && a.2 == b.2,
        _ => false,
    })
}
