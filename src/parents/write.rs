//! The real run: parents created and rows linked, attempt by attempt, and looked at again with fresh eyes.

use std::cell::RefCell;

use pgrx::prelude::*;
use serde_json::{Value, json};

use super::execute::{Parents, PreparedParents, wait};
use super::{ParentsRequest, groups};
use crate::identifier::Literal;
use crate::infer::reference;
use crate::pg;
use crate::plan::expression::{equal, equals_text};
use crate::plan::fill::{FILL, fill};
use crate::plan::join::same_key;
use crate::plan::kept::Change;
use crate::plan::program::{
    Attempt, Found, Keep, Parts, Program, Progress, Reading, Repeat, Step, Surroundings, Trace, Verdict, Verify, Write,
};
use crate::plan::{Blueprint, Reason, Statement, Versions, written_as};
use crate::problem::Problem;
use crate::rule::OnConflict;
use crate::run::interpret::{self, Done};
use crate::run::record::{self, Record};
use crate::run::{self, Outcome, PASSES, lock, query, settings};
use crate::settings::CallersSettings;

/// The name of the write that creates parents (and, with a parent for each row, links them).
const CREATE: &str = "create";

/// The name of the reading of linked parents: all of them, and those that are new.
const PARENTS: &str = "parents";

impl PreparedParents<'_> {
    pub(super) fn create_and_link(&mut self, request: &ParentsRequest) -> Result<Parents, Problem> {
        let _whole = self.whole_functions();
        lock(self.session, self.identity.table);
        // With an id of its own, each statement sees what is committed by then.
        pg::current_transaction_id();
        if self.on_conflict == OnConflict::Error {
            self.predict(false)?;
        }
        // Without a condition, rows that were linked are set afterwards; with one, they may be excluded by it.
        let before = match self.plain.rule.only_where {
            Some(_) => Some(
                run::simulate_run(self.session, &mut self.plain.clone(), false)?
                    .counts
                    .already_set,
            ),
            None => None,
        };
        // Whoever had the lock has linked rows: the page is told from what is there now.
        if let Some(most) = request.max_rows {
            self.limit(most)?;
        }
        let work = &*self;
        let last = RefCell::new(None);
        let (run, mut parents) = interpret::run(work.session, work.program(&last), |done| {
            let parents = work.told(before, done, last.take())?;
            let record = work.record(request, &parents)?;
            Ok((parents, record))
        })?;
        parents.outcome.run_id = Some(run);
        Ok(parents)
    }

    /// Parents are created and rows linked, attempt by attempt, until nothing is left that could be linked.
    ///
    /// * `last`: what the last look at all rows said.
    fn program<'p>(&'p self, last: &'p RefCell<Option<Outcome>>) -> Program<'p> {
        let mut steps = vec![Step::Write(self.creation())];
        match self.identity.each {
            Some(_) => steps.extend([
                Step::Verify(self.each_is_linked()),
                Step::Verify(self.new_keys_have_no_orphans()),
                Step::Verify(self.each_has_its_own()),
                Step::Verify(self.links_stay_in_their_tenant()),
            ]),
            None => steps.extend([
                Step::Verify(self.new_keys_have_no_orphans()),
                fill(&self.page, &self.session.caller, &self.before),
                Step::Verify(self.each_parent_has_a_row()),
            ]),
        }
        steps.insert(0, Step::Hold(self.page_lock()));
        let attempt = Attempt {
            // A parent that is left without a row is rolled back; what only others caused is tried again.
            others: vec![
                PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
                PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION,
            ],
            steps,
        };
        let repeat = Repeat {
            most: PASSES,
            steps: vec![Step::Attempt(attempt), Step::Verify(self.nothing_is_left(last))],
            exhausted: Box::new(|| Verdict::Wrong(self.changes_too_fast())),
        };
        Program {
            operation: "backfill_parents",
            object: record::qualified(self.identity.table),
            lock: Some(self.identity.table),
            surroundings: Surroundings {
                reader: self.plain.reader,
                ..Surroundings::default()
            },
            steps: vec![Step::Repeat(repeat)],
        }
    }

    /// What is missing is created; with a parent for each row, the rows are linked as well, in the same statement.
    fn creation(&self) -> Write<'_> {
        let of_parent = Trace {
            table: self.identity.parent,
            column: None,
            created: true,
            forgets: None,
        };
        let of_row = Trace {
            table: self.identity.table,
            column: Some(self.identity.column.number),
            created: false,
            forgets: None,
        };
        let each = self.identity.each.is_some();
        Write {
            name: CREATE,
            table: self.identity.parent,
            parts: match each {
                true => Parts::ByShare(&self.before),
                false => Parts::Whole,
            },
            keep: Keep::Changes {
                change: Change::Created,
                columns: None,
            },
            traces: match each {
                true => vec![of_row, of_parent],
                false => vec![of_parent],
            },
            by_hash: true,
            statement: Box::new(|_, versions| self.creating(&self.session.caller, versions)),
        }
    }

    /// As many rows are linked as parents are new.
    fn each_is_linked(&self) -> Verify<'_> {
        Verify::new(
            "linked",
            |_| Reading::Nothing,
            |progress| match progress.numbers[..] {
                // A row changed or went after its parent was made from it; or it is a trigger, and will be again.
                [made, linked] if made != linked => {
                    Verdict::Anew(self.not_accepted(format!("{made} new parents, {linked} rows linked")))
                }
                _ => Verdict::Proved,
            },
        )
    }

    /// Read back: as many rows as parents, each with its own.
    fn each_has_its_own(&self) -> Verify<'_> {
        let read = |progress: &Progress| self.linked_parents(progress, CREATE);
        Verify::new(PARENTS, read, |progress| {
            let (created, found) = (progress.last(), &progress.found.numbers);
            match created > 0 && found[..] != [created, created] {
                true => Verdict::Wrong(self.not_accepted(format!(
                    "{created} new parents, and rows that were linked have {}, {} of them new",
                    found[0], found[1]
                ))),
                false => Verdict::Proved,
            }
        })
    }

    /// No row has a parent of another tenant.
    fn links_stay_in_their_tenant(&self) -> Verify<'_> {
        let read = |progress: &Progress| match self.cross_tenant_links(&progress.ids_of(CREATE)) {
            Some(statement) => Reading::Numbers(statement),
            None => Reading::Nothing,
        };
        Verify::new("strangers", read, |progress| match progress.found.numbers[..] {
            [strangers] if strangers > 0 => {
                Verdict::Wrong(self.not_accepted(format!("{strangers} rows would have a parent of another tenant")))
            }
            _ => Verdict::Proved,
        })
    }

    /// Every new parent has a row.
    fn each_parent_has_a_row(&self) -> Verify<'_> {
        let read = |progress: &Progress| match progress.written(FILL) {
            0 => Reading::Nothing,
            _ => self.linked_parents(progress, FILL),
        };
        Verify::new(PARENTS, read, |progress| {
            let new = match progress.written(FILL) {
                0 => 0,
                _ => progress.found.numbers.get(1).copied().unwrap_or(0),
            };
            match progress.written(CREATE) - new {
                0 => Verdict::Proved,
                alone => Verdict::Anew(self.not_accepted(format!("{alone} new parents would have no row"))),
            }
        })
    }

    /// With fresh eyes: nothing may be left that could be linked.
    fn nothing_is_left<'p>(&'p self, last: &'p RefCell<Option<Outcome>>) -> Verify<'p> {
        let read = move |_: &Progress| {
            Reading::Computed(Box::new(move || {
                let (outcome, counts) = self.after_all()?;
                last.replace(Some(outcome));
                Ok(Found {
                    counts,
                    ..Found::default()
                })
            }))
        };
        Verify::new("left", read, |progress| {
            let left = progress.found.counts.filled;
            match (left > 0 && self.limited.is_none(), progress.idle) {
                (false, _) => Verdict::Proved,
                (true, 0) => Verdict::More,
                (true, _) => Verdict::Wrong(self.not_accepted(format!("{left} rows are not linked"))),
            }
        })
    }

    /// What the caller is told.
    ///
    /// * `before`: rows that were set before, where that is known.
    fn told(&self, before: Option<i64>, done: Done, last: Option<Outcome>) -> Result<Parents, Problem> {
        let progress = &done.progress;
        let (created, each) = (progress.written(CREATE), self.identity.each.is_some());
        let filled = match each {
            true => created,
            false => progress.written(FILL),
        };
        let mut counts = progress.found.counts.clone();
        let waiting = wait(&mut counts, 0);
        // What was linked is set now, or excluded by a condition that speaks of the column itself.
        let set = before.map_or(filled, |before| (counts.already_set - before).clamp(0, filled));
        counts.already_set -= set;
        if counts.reasons.rows(&Reason::Excluded) > 0 {
            counts.reasons.add(Reason::Excluded, set - filled);
        }
        counts.filled = filled;
        Ok(Parents {
            outcome: Outcome {
                counts,
                dry_run: false,
                ..last.unwrap_or_default()
            },
            found: match each {
                true => 0,
                false => progress.total(PARENTS, 0) - progress.total(PARENTS, 1),
            },
            created,
            waiting,
            parts: done.parts_of(if each { CREATE } else { FILL }),
        })
    }

    fn changes_too_fast(&self) -> Problem {
        Problem::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!(
                "the rows of {} change faster than they can be linked",
                self.session.catalog.display(self.identity.table)
            ),
        )
        .detail("nothing was written")
        .hint("run it again at a quieter time, or LOCK TABLE ... IN SHARE MODE first in the same transaction")
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
                "the rows of {} cannot be linked to new rows of {}; nothing was written",
                catalog.display(self.identity.table),
                catalog.display(self.identity.parent)
            ),
        )
        .detail(format!(
            "{what}: a trigger returns NULL or changes what is written{by}, or a condition reads the table of the parents"
        ))
        .hint("ALTER TABLE ... DISABLE TRIGGER ... for the run, in the same transaction; or say it without the parents' table")
    }

    /// Locks the rows of this page: what a parent is given is read from them before they are linked.
    fn page_lock(&self) -> Statement {
        let mut page = match &self.page.rule.only_where {
            Some(condition) => format!(" AND ({}) IS TRUE", condition.qualified),
            None => String::new(),
        };
        let of_page = self
            .page
            .rows
            .condition(&self.session.catalog, self.identity.table, "t");
        page.extend(of_page.map(|of_page| format!(" AND {of_page}")));
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
        Statement::new(format!(
            "SELECT pg_catalog.count(*) FROM (\n  SELECT FROM {} AS t WHERE t.{} IS NULL{page}\n  FOR UPDATE\n) AS held",
            self.identity.table.relation_sql(),
            self.identity.column.sql()
        ))
        .with_parameters(parameters)
        .under_callers_settings(&self.session.caller)
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

    /// Existing rows that reference a deleted parent must not match a new parent that gets the same key.
    fn new_keys_have_no_orphans(&self) -> Verify<'_> {
        let read = move |progress: &Progress| match progress.last() {
            0 => Reading::Nothing,
            _ => {
                let creators = progress.ids_of(CREATE);
                Reading::Computed(Box::new(move || {
                    self.check_new_keys_have_no_orphans(&creators)
                        .map(|()| Found::default())
                }))
            }
        };
        Verify::new("orphans", read, |_| Verdict::Proved)
    }

    /// Errors: 23000 with the rows that would.
    fn check_new_keys_have_no_orphans(&self, creators: &[u32]) -> Result<(), Problem> {
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
                        format!("{rows} rows of {shown} without a parent would by accident reference the new rows of {}", catalog.display(parent)),
                    )
                    .detail(format!(
                        "{} contains keys of deleted rows, and new rows got the same keys; nothing was written",
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

    /// Counts rows that were linked under these ids to a parent that is another tenant's; `None` where parents have no tenant.
    fn cross_tenant_links(&self, linkers: &[u32]) -> Option<Statement> {
        let identity = &self.identity;
        let tenant = identity.tenant_of_row()?;
        let column = identity.parent.column(identity.tenant_column?)?;
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
        let statement = Statement::new(sql).filters(conditions);
        Some(statement.under_callers_settings(&self.session.caller))
    }

    /// Counts the parents of the rows that a write linked, and those of them that are new.
    fn linked_parents<'p>(&self, progress: &Progress, linked_by: &str) -> Reading<'p> {
        let (linkers, creators) = (progress.ids_of(linked_by), progress.ids_of(CREATE));
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
            written_as("t", &linkers),
            self.identity.parent.relation_sql(),
            written_as("p", &creators)
        );
        Reading::Numbers(Statement::new(sql))
    }

    fn record(&self, request: &ParentsRequest, parents: &Parents) -> Result<Record, Problem> {
        let counts = &parents.outcome.counts;
        let mut rule: Value = serde_json::to_value(request)?;
        rule["table"] = json!(record::qualified(self.identity.table));
        rule["parents_found"] = json!(parents.found);
        rule["parents_created"] = json!(parents.created);
        Ok(Record {
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
        })
    }
}
