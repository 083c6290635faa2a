//! Where Citus keeps the rows of tables.

use pgrx::prelude::*;
use pgrx::spi::SpiError;

use crate::problem::Problem;

/// As SQL: its catalog can be read. Only a superuser can make something in pg_catalog.
pub const CITUS_IS_THERE: &str = "(pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL
    AND pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL)";

/// What Citus says of this server and its tables; nothing where it is not installed.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// This server holds shards for a coordinator.
    pub worker: bool,
    /// Tables whose rows are not here alone: `distributed` or `reference`.
    pub tables: Vec<(u32, &'static str)>,
}

impl Placement {
    /// Reads the catalog of Citus, where [`CITUS_IS_THERE`].
    ///
    /// Errors: those of SPI.
    pub fn load() -> Result<Placement, Problem> {
        // A local table that Citus only knows of has no distribution column either, but one placement that is streamed to nobody.
        let tables = "SELECT logicalrelid::pg_catalog.oid,
                             CASE WHEN partmethod OPERATOR(pg_catalog.=) 'n' THEN 'reference' ELSE 'distributed' END
                      FROM pg_catalog.pg_dist_partition
                      WHERE partmethod OPERATOR(pg_catalog.<>) 'n' OR repmodel OPERATOR(pg_catalog.=) 't'";
        let group = "SELECT pg_catalog.max(groupid) OPERATOR(pg_catalog.>) 0 FROM pg_catalog.pg_dist_local_group";
        let placement = Spi::connect(|client| {
            let mut found = vec![];
            for row in client.select(tables, None, &[])? {
                let kind = match row.get::<String>(2)?.as_deref() {
                    Some("reference") => "reference",
                    _ => "distributed",
                };
                found.extend(row.get::<pg_sys::Oid>(1)?.map(|oid| (oid.to_u32(), kind)));
            }
            Ok::<_, SpiError>(Placement {
                worker: client
                    .select(group, None, &[])?
                    .first()
                    .get_one::<bool>()?
                    .unwrap_or(false),
                tables: found,
            })
        })?;
        Ok(placement)
    }
}
