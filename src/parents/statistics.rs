//! What a call would do, tenant by tenant: scanned, linked, created, skipped with why.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use super::ParentsRequest;
use super::execute::{PreparedParents, resolver};
use super::groups;
use crate::pg::Settings;
use crate::plan::{Blueprint, Counts, Mode, Overlays, Reason};
use crate::problem::Problem;
use crate::run::{Session, query, settings};

/// What would be done for one tenant.
#[derive(Debug, Clone, Default)]
pub struct OfTenant {
    /// Its key as text; `None`: rows without a tenant.
    pub tenant: Option<String>,
    /// Rows by reason.
    pub counts: Counts,
    /// Parents that are there, to which rows would be linked.
    pub found: i64,
    /// New ones.
    pub created: i64,
}

/// Counts for each tenant, by its key, what `backfill_parents` would do. Writes nothing.
///
/// Errors: those of `backfill_parents`; 22004 where `match` is not given; 22023 where the parent has no tenant.
pub fn by_tenant(session: &Session, request: &ParentsRequest) -> Result<Vec<OfTenant>, Problem> {
    let resolver = resolver(session, request)?;
    if request.matched.is_none() {
        return Err(
            Problem::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "match must be given")
                .hint("SELECT note FROM backfill_parents(table, column) proposes one"),
        );
    }
    let work = PreparedParents::prepare(session, &resolver, request, Mode::Dry, Overlays::default())?;
    let Some(tenant) = work.identity.tenant_of_row() else {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the rows have no tenant that their parents would get",
        )
        .hint("backfill_parents() counts all rows together; root => '...' names the table that holds the tenants"));
    };
    let (overlays, groups) = work.overlays();
    let all = Blueprint {
        overlays: overlays.clone(),
        ..work.plain.clone()
    };
    let statement = work.reading(
        &overlays,
        groups::by_tenant(&session.catalog, &work.identity, &all, &groups, tenant),
    );
    let _settings = settings(true);
    let _joins = Settings::push(&[("enable_nestloop", "off")]);
    let rows = work.reader().run(|| {
        Ok(Spi::connect(|client| {
            let mut rows = Vec::new();
            for row in client.select(&statement.sql(), None, &query::arguments(&statement))? {
                rows.push((
                    row.get::<String>(1)?,
                    row.get::<String>(2)?.unwrap_or_default(),
                    row.get::<i64>(3)?.unwrap_or(0),
                    row.get::<i64>(4)?.unwrap_or(0),
                    row.get::<i64>(5)?.unwrap_or(0),
                ));
            }
            Ok::<_, SpiError>(rows)
        })?)
    })?;
    let mut found: BTreeMap<Option<String>, OfTenant> = BTreeMap::new();
    for (tenant, outcome, rows, parents, new) in rows {
        let of = found.entry(tenant.clone()).or_default();
        of.tenant = tenant;
        let outcome = Reason::parse(&outcome).ok_or_else(|| query::not_a_number(&outcome))?;
        of.counts.add(&outcome, rows);
        if outcome == Reason::Filled {
            of.found = parents - new;
            of.created = new;
        }
    }
    Ok(found.into_values().collect())
}
