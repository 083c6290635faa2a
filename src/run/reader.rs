//! With whose rights the statements that only read are run.
//!
//! What a table enforces may be code of its owner: CHECKs, domains, indexes and generated columns that call functions. Plain reading
//! does not run it; asking beforehand what the table would refuse does. As maintenance commands of Postgres do, it then runs as the owner
//! of the table, restricted, and with names looked up in pg_catalog only; or not at all.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use super::session::Session;
use crate::catalog::{Table, all_are_plain};
use crate::pg::{self, Confinement, Instant, Settings};
use crate::plan::Blueprint;
use crate::problem::Problem;
use crate::settings::SAFE_PATH;

/// Runs statements that only read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reader {
    /// The oid of the role; `None`: the caller.
    owner: Option<u32>,
}

impl Reader {
    /// Who reads where `tables` (each with the names of what of it is code) are asked what they would refuse.
    ///
    /// * `reads`: every table that the statements read, by oid.
    /// * `typed`: expressions of the caller in them, as Postgres would keep them: the caller's code is never run as somebody else.
    ///
    /// Errors: 42501 where the code is that of a role whom the caller does not trust, and that role cannot read all that is read.
    pub fn of(
        session: &Session,
        tables: &[(&Table, &[String])],
        reads: &[u32],
        typed: &[&str],
    ) -> Result<Reader, Problem> {
        let mut foreign = tables
            .iter()
            .filter(|(table, code)| !code.is_empty() && !table.owner_is_trusted);
        let Some((table, code)) = foreign.next() else {
            return Ok(Reader::default());
        };
        let shown = session.catalog.display(table);
        let owner = owner_name(table)?;
        let cannot = |why: String| {
            Problem::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!(
                    "{} of {shown} runs code of {owner}, which is not run with your rights",
                    code.join(", ")
                ),
            )
            .detail(why)
            .hint(format!("run it as {owner}: SET ROLE {owner}"))
        };
        if let Some((other, _)) = foreign.find(|(other, _)| other.owner != table.owner) {
            return Err(cannot(format!(
                "nor can it run with the rights of the owner: {} belongs to another role, and has code of that role",
                session.catalog.display(other)
            )));
        }
        if !all_are_plain(typed)? {
            return Err(cannot(
                "as the owner it cannot be run together with a condition or expression that calls functions or reads tables".into(),
            ));
        }
        let reader = Reader {
            owner: Some(table.owner),
        };
        match reader.unreadable(reads)? {
            None => Ok(reader),
            Some(unreadable) => Err(cannot(format!(
                "as the owner it cannot be run either: {owner} may not read {unreadable}, or does not trust its owner"
            ))),
        }
    }

    /// The role of this oid; `None`: the caller.
    pub fn of_role(owner: Option<u32>) -> Reader {
        Reader { owner }
    }

    /// Who reads for this blueprint.
    pub fn for_blueprint(blueprint: &Blueprint) -> Reader {
        Reader {
            owner: blueprint.reader,
        }
    }

    /// As a blueprint keeps it.
    pub fn role(self) -> Option<u32> {
        self.owner
    }

    /// Do statements run with the caller's own rights?
    pub fn is_caller(self) -> bool {
        self.owner.is_none()
    }

    /// Runs `work`, which reads.
    ///
    /// Errors: those of `work`.
    pub fn run<T>(self, work: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
        let Some(owner) = self.owner else { return work() };
        // In a subtransaction without an id of its own, a statement would see what its caller saw.
        let fresh = pg::has_transaction_id();
        // A subtransaction, to say more of an error: whose code it was, and under which settings.
        let result = pg::subtransaction(AssertUnwindSafe(|| {
            pg::as_role(owner, Confinement::Restricted, || {
                let _path = Settings::push(&[("search_path", SAFE_PATH)]);
                let _now = fresh.then(Instant::now);
                work()
            })
        }));
        result.map_err(|problem| {
            let where_it_ran =
                "while code of the table's owner ran as the owner, with search_path = pg_catalog, pg_temp";
            let detail = match &problem.detail {
                Some(detail) => format!("{detail}; {where_it_ran}"),
                None => where_it_ran.into(),
            };
            problem.detail(detail)
        })
    }

    /// What of these tables the owner may not read, or does not trust the owner of, as displayed.
    fn unreadable(self, reads: &[u32]) -> Result<Option<String>, Problem> {
        let sql = "SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY c.relname)
                   FROM pg_class c
                   WHERE c.oid = ANY ($1)
                     AND NOT (has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                              AND NOT row_security_active(c.oid)
                              -- Planning runs what indexes and statistics hold of constants, comparing what casts of types hold.
                              AND pg_has_role(c.relowner, CURRENT_USER, 'MEMBER')
                              AND NOT EXISTS (
                                SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                                  AND NOT pg_has_role(t.typowner, CURRENT_USER, 'MEMBER')))";
        let reads: Vec<pg_sys::Oid> = reads.iter().map(|oid| pg_sys::Oid::from(*oid)).collect();
        self.run(|| {
            Ok(Spi::connect(|client| {
                client.select(sql, None, &[reads.into()])?.first().get_one::<String>()
            })?)
        })
    }
}

fn owner_name(table: &Table) -> Result<String, Problem> {
    let sql = "SELECT quote_ident(pg_get_userbyid($1))";
    let arguments = [pg_sys::Oid::from(table.owner).into()];
    let name = Spi::connect(|client| client.select(sql, None, &arguments)?.first().get_one::<String>())?;
    Ok(name.unwrap_or_default())
}
