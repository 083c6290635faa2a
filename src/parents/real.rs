//! The real run: parents created and rows linked, attempt by attempt, and looked at again with fresh eyes.

use std::cell::Cell;

use pgrx::prelude::*;
use serde_json::{Value, json};

use super::execute::{Parents, Work, wait};
use super::{Request, groups};
use crate::identifier::Literal;
use crate::infer::reference;
use crate::pg::{self, Settings};
use crate::plan::expression::{equal, equals_text};
use crate::plan::join::same_key;
use crate::plan::{Blueprint, Reason, Statement, Versions, written_as};
use crate::problem::Problem;
use crate::rule::OnConflict;
use crate::run::ledger::{self, Change};
use crate::run::record::{self, Record};
use crate::run::{self, PASSES, Write, Writes, attempts, lock, query, settings};
use crate::settings::CallersSettings;

/// What one attempt did.
struct Done {
    created: i64,
    filled: i64,
    found: i64,
    /// The ids under which rows were linked.
    writes: Vec<Write>,
}

impl Work<'_> {
    pub(super) fn real(&mut self, request: &Request) -> Result<Parents, Problem> {
        let _whole = self.whole_functions();
        let started = record::clock()?;
        lock(self.session, self.identity.table);
        let table = record::qualified(self.identity.table);
        let run = ledger::open(self.session, "backfill_parents", &table, &started)?;
        // With an id of its own, each statement sees what is committed by then.
        pg::current_transaction_id();
        if self.on_conflict == OnConflict::Error {
            self.predict(false)?;
        }
        // Without a condition, rows that were linked are set afterwards; with one, they may be excluded by it.
        let before = match self.plain.rule.only_where {
            Some(_) => Some(
                run::dry(self.session, &mut self.plain.clone(), false)?
                    .counts
                    .already_set,
            ),
            None => None,
        };
        // Whoever had the lock has linked rows: the page is told from what is there now.
        if let Some(most) = request.max_rows {
            self.limit(most)?;
        }
        let (mut filled, mut created, mut found) = (0, 0, 0);
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..PASSES {
            pgrx::check_for_interrupts!();
            let done = self.create_and_link(run)?;
            created += done.created;
            filled += done.filled;
            found += done.found;
            writes.extend(done.writes);
            // With fresh eyes: nothing may be left that could be linked.
            let (mut outcome, mut counts) = self.after_all()?;
            if counts.filled > 0 && self.limited.is_none() {
                if done.created == 0 && done.filled == 0 {
                    return Err(self.not_accepted(format!("{} rows are not linked", counts.filled)));
                }
                continue;
            }
            let waiting = wait(&mut counts, 0);
            // What was linked is set now, or excluded by a condition that speaks of the column itself.
            let set = before.map_or(filled, |before| (counts.already_set - before).clamp(0, filled));
            counts.already_set -= set;
            if counts.reasons.rows(&Reason::Excluded) > 0 {
                counts.reasons.add(Reason::Excluded, set - filled);
            }
            counts.filled = filled;
            outcome.counts = counts;
            outcome.dry_run = false;
            let mut parents = Parents {
                outcome,
                found,
                created,
                waiting,
                writes,
            };
            parents.outcome.run_id = Some(self.record(request, &parents, run)?);
            return Ok(parents);
        }
        Err(Problem::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!(
                "the rows of {} change faster than they can be linked",
                self.session.catalog.display(self.identity.table)
            ),
        )
        .detail("nothing was written")
        .hint("run it again at a quieter time, or LOCK TABLE ... IN SHARE MODE first in the same transaction"))
    }

    /// One attempt, rolled back as a whole where a parent would be left that no row is linked to; what only others caused is tried
    /// again.
    fn create_and_link(&self, run: i64) -> Result<Done, Problem> {
        let others = [
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION,
        ];
        attempts(&others, |again| {
            let creator = pg::current_transaction_id();
            self.hold()?;
            if self.identity.each.is_some() {
                let mut writes = Writes::of(&self.before);
                let created = writes.each(|versions| self.create(run, again, versions))?;
                let creators = writes.ids();
                writes.keep(run, self.identity.table.oid, Some(self.identity.column.number))?;
                self.keep_creators(run, &creators)?;
                if created > 0 {
                    self.adopts_nobody(&creators)?;
                }
                // Read back: as many rows as parents, each with its own, in its own tenant.
                let (parents, new) = self.parents_of(&creators, &creators)?;
                if created > 0 && (parents, new) != (created, created) {
                    return Err(self.not_accepted(format!(
                        "{created} new parents, and rows that were linked have {parents}, {new} of them new"
                    )));
                }
                let strangers = self.strangers(&creators)?;
                if strangers > 0 {
                    return Err(self.not_accepted(format!("{strangers} rows would have a parent of another tenant")));
                }
                return Ok(Done {
                    created,
                    filled: created,
                    found: 0,
                    writes: writes.done(),
                });
            }
            let created = self.create(run, again, &Versions::All)?;
            self.keep_creators(run, &[creator])?;
            if created > 0 {
                self.adopts_nobody(&[creator])?;
            }
            let linked = run::proved(self.session, &self.page, run, &self.before)?;
            let filled = linked.counts.filled;
            let linkers: Vec<u32> = linked.writes.iter().map(|write| write.id).collect();
            let (parents, new) = match filled > 0 {
                true => self.parents_of(&linkers, &[creator])?,
                false => (0, 0),
            };
            if new < created {
                again.set(true);
                return Err(self.not_accepted(format!("{} new parents would have no row", created - new)));
            }
            Ok(Done {
                created,
                filled,
                found: parents - new,
                writes: linked.writes,
            })
        })
    }

    fn not_accepted(&self, what: String) -> Problem {
        let catalog = &self.session.catalog;
        let mut triggers = self.identity.insertion.triggers.clone();
        triggers.extend(self.plain.details.triggers.iter().cloned());
        let by = match triggers.is_empty() {
            true => String::new(),
            false => format!(" (triggers: {})", triggers.join(", ")),
        };
        Problem::new(
            PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
            format!(
                "{} and {} do not come together; nothing was written",
                catalog.display(self.identity.table),
                catalog.display(self.identity.parent)
            ),
        )
        .detail(format!(
            "{what}: a trigger returns NULL or changes what is written{by}, or a condition reads the table of the parents"
        ))
        .hint("ALTER TABLE ... DISABLE TRIGGER ... for the run, in the same transaction; or say it without the parents' table")
    }

    /// Keeps the rows of this page as they are: what a parent is given is read from them before they are linked.
    fn hold(&self) -> Result<(), Problem> {
        let mut page = match &self.page.rule.only_where {
            Some(condition) => format!(" AND ({}) IS TRUE", condition.qualified),
            None => String::new(),
        };
        let mut parameters = vec![];
        // Rows of other tenants are none of our business, where the row itself says whose it is.
        if let (Some(path), Some(tenant)) = (&self.plain.restriction, &self.plain.rule.tenant)
            && let ([], Some(column)) = (path.hops.as_slice(), self.identity.table.column(path.column))
        {
            let own = format!("t.{}", column.sql());
            let same = equals_text(&self.session.catalog, &own, column.type_oid, "$1");
            page.push_str(&format!(" AND {same}"));
            parameters.push(tenant.clone());
        }
        let statement = Statement::new(format!(
            "SELECT pg_catalog.count(*) FROM (\n  SELECT FROM {} AS t WHERE t.{} IS NULL{page}\n  FOR UPDATE\n) AS held",
            self.identity.table.relation_sql(),
            self.identity.column.sql()
        ))
        .with_parameters(parameters)
        .under_callers_settings(&self.session.caller);
        // What the statement sets for its own execution ends with this guard.
        let _settings = settings(false);
        query::update(&statement).map(|_| ())
    }

    /// Creates what is missing; returns how many. With a parent for each row, the rows are linked as well.
    ///
    /// * `versions`: of the rows that are linked.
    fn create(&self, run: i64, again: &Cell<bool>, versions: &Versions) -> Result<i64, Problem> {
        let statement = self.creating(&self.session.caller, versions);
        let _settings = settings(false);
        let _hash = Settings::push(&[("enable_nestloop", "off")]);
        let table = record::qualified(self.identity.parent);
        let numbers = ledger::keep(run, Change::Created, &table, None, &statement)?;
        let (made, linked) = (numbers[0], numbers.get(1).copied());
        match linked.filter(|linked| *linked != made) {
            // A row changed or went after its parent was made from it; or it is a trigger, and will be again.
            Some(linked) => {
                again.set(true);
                Err(self.not_accepted(format!("{made} new parents, {linked} rows linked")))
            }
            None => Ok(made),
        }
    }

    /// Creates what is missing on this page, under the caller's settings for triggers and defaults.
    fn creating(&self, caller: &CallersSettings, versions: &Versions) -> Statement {
        let (overlays, groups) = self.overlays();
        let page = Blueprint {
            overlays: overlays.clone(),
            ..self.page.clone()
        };
        let (catalog, identity) = (&self.session.catalog, &self.identity);
        let complete = |statement: Statement| page.statement(statement).under_callers_settings(caller);
        match &identity.each {
            Some(default) => {
                let candidates = groups::candidates(identity, &page, &groups, versions);
                groups::create_each(catalog, identity, &overlays, default, complete(candidates))
            }
            None => {
                let fits = self.limited.is_none() && groups::every_row_fits(identity, &page);
                let insert = groups::insert(identity, &page, &groups, fits);
                groups::create(catalog, identity, &overlays, complete(insert))
            }
        }
    }

    /// Keeps under which ids parents were created.
    fn keep_creators(&self, run: i64, creators: &[u32]) -> Result<(), Problem> {
        for creator in creators {
            ledger::wrote(run, self.identity.parent.oid, None, *creator, &[run])?;
        }
        Ok(())
    }

    /// A row whose parent is gone must not find itself with the new one that happens to get the same key.
    ///
    /// Errors: 23000 with the rows that would.
    fn adopts_nobody(&self, creators: &[u32]) -> Result<(), Problem> {
        let catalog = &self.session.catalog;
        let (parent, key) = (self.identity.parent, self.identity.key);
        for table in catalog
            .tables
            .iter()
            .filter(|t| t.is_table() && !t.is_partition && t.may_select)
        {
            for column in &table.columns {
                let checked = catalog
                    .foreign_keys_of(table.oid)
                    .any(|k| k.columns == [column.number] && k.parent == parent.oid && k.validated && k.enforced);
                let refers = !checked
                    && reference::of(catalog, table, column)
                        .is_some_and(|r| r.parent == parent.oid && r.key == key.number);
                if !refers {
                    continue;
                }
                self.session.hold([table.oid])?;
                let own = format!("t.{}", column.sql());
                let same = same_key(catalog, &format!("p.{}", key.sql()), key, &own, Some(column));
                let sql = format!(
                    "SELECT pg_catalog.count(*) FROM {} AS t JOIN {} AS p ON {same}\nWHERE {} AND NOT {}",
                    table.relation_sql(),
                    parent.relation_sql(),
                    written_as("p", creators),
                    written_as("t", creators)
                );
                let _settings = settings(false);
                let rows = query::number(&Statement::new(sql))?;
                if rows > 0 {
                    let shown = catalog.display(table);
                    return Err(Problem::new(
                        PgSqlErrorCode::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
                        format!("{rows} rows of {shown} would find themselves with new rows of {}", catalog.display(parent)),
                    )
                    .detail(format!(
                        "{} holds keys whose rows are gone, and new rows got the same keys; nothing was written",
                        column.quoted
                    ))
                    .hint(format!(
                        "repair them first: SELECT * FROM repair_orphans({}, {}, 'nullify'); or move the key's sequence on",
                        Literal::new(&record::qualified(table)),
                        Literal::new(&column.quoted)
                    )));
                }
            }
        }
        Ok(())
    }

    /// Rows that were linked under these ids to a parent that is another tenant's.
    fn strangers(&self, linkers: &[u32]) -> Result<i64, Problem> {
        let identity = &self.identity;
        let (Some(tenant), Some(column)) = (
            identity.tenant_of_row(),
            identity.tenant_column.and_then(|c| identity.parent.column(c)),
        ) else {
            return Ok(0);
        };
        let catalog = &self.session.catalog;
        let linked = same_key(
            catalog,
            &format!("p.{}", identity.key.sql()),
            identity.key,
            &format!("t.{}", identity.column.sql()),
            Some(identity.column),
        );
        let same = equal(catalog, &format!("p.{}", column.sql()), column.type_oid, tenant);
        // Nobody's row has nobody's parent.
        let same = format!("({same}) OR (p.{} IS NULL AND ({tenant}) IS NULL)", column.sql());
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM {} AS t JOIN {} AS p ON {linked}",
            identity.table.relation_sql(),
            identity.parent.relation_sql(),
        );
        let conditions = [written_as("t", linkers), format!("({same}) IS NOT TRUE")];
        let _settings = settings(false);
        query::number(
            &Statement::new(sql)
                .filters(conditions)
                .under_callers_settings(&self.session.caller),
        )
    }

    /// Parents of the rows that were linked under some ids, and those of them that were created under others.
    fn parents_of(&self, linkers: &[u32], creators: &[u32]) -> Result<(i64, i64), Problem> {
        let (column, key) = (self.identity.column.sql(), self.identity.key.sql());
        let same = same_key(
            &self.session.catalog,
            &format!("p.{key}"),
            self.identity.key,
            &format!("linked.{column}"),
            Some(self.identity.column),
        );
        let sql = format!(
            "SELECT pg_catalog.count(*), pg_catalog.count(p.{key})\nFROM (SELECT DISTINCT t.{column} FROM {} AS t WHERE {}) AS linked\n\
             LEFT JOIN {} AS p ON {same} AND {}",
            self.identity.table.relation_sql(),
            written_as("t", linkers),
            self.identity.parent.relation_sql(),
            written_as("p", creators)
        );
        let _settings = settings(false);
        query::two_numbers(&Statement::new(sql))
    }

    fn record(&self, request: &Request, parents: &Parents, run: i64) -> Result<i64, Problem> {
        let counts = &parents.outcome.counts;
        let mut rule: Value = serde_json::to_value(request)?;
        rule["table"] = json!(record::qualified(self.identity.table));
        rule["parents_found"] = json!(parents.found);
        rule["parents_created"] = json!(parents.created);
        let record = Record {
            table: record::qualified(self.identity.table),
            column: self.identity.column.name.clone(),
            rule,
            statement: self.creating(&CallersSettings::default(), &Versions::All).for_review(),
            counts: (
                counts.already_set,
                counts.filled,
                counts.reasons.to_json(),
                counts.unfilled(),
            ),
            note: parents.outcome.note(),
            fingerprint: record::fingerprinted(
                &self.session.catalog,
                vec![self.identity.table.oid, self.identity.parent.oid],
                &self.plain.details,
            ),
        };
        ledger::close(run, &record)?;
        Ok(run)
    }
}
