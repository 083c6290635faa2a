//! Counts what would be created and linked; creates, links, and looks again.

use pgrx::prelude::*;

use super::ParentsRequest;
use super::groups;
use super::identity::Identity;
use super::propose::proposed;
use crate::infer::reference::Reference;
use crate::infer::tenancy::resolver::TenantResolver;
use crate::pg::{Settings, WholeFunctions};
use crate::plan::Share;
use crate::plan::expression::indent;
use crate::plan::{Blueprint, Counts, Mode, Moment, Overlays, Reason, Statement, Tally};
use crate::problem::Problem;
use crate::rule::{Condition, Hop, OnConflict, Overwrite, RuleSpec, Source};
use crate::run::record;
use crate::run::{self, Outcome, Part, Reader, Session, may_write, query, settings};
use crate::validate::tenants;

/// What was done, or would be.
#[derive(Debug, Clone)]
pub struct Parents {
    /// As of a backfill.
    pub outcome: Outcome,
    /// Parents that were there, to which rows are linked now.
    pub found: i64,
    /// New ones.
    pub created: i64,
    /// Rows that wait for the next call; they are `excluded`.
    pub(super) waiting: i64,
    /// The ids under which rows were linked.
    pub(super) parts: Vec<Part>,
}

/// One call, ready to be counted.
pub(super) struct PreparedParents<'a> {
    pub(super) session: &'a Session,
    pub(super) identity: Identity<'a>,
    /// Over all rows, no parent but those that are there.
    pub(super) plain: Blueprint<'a>,
    /// Over the rows of this page.
    pub(super) page: Blueprint<'a>,
    pub(super) on_conflict: OnConflict,
    /// How many rows this page has, where it is limited.
    pub(super) limited: Option<i64>,
    /// What the call has written of the table before, see [`Part`].
    pub(super) before: Vec<Share>,
}

/// What the rows come to, with a parent for each group that can be created.
pub(super) struct Predicted {
    pub(super) counts: Counts,
    found: i64,
    created: i64,
}

/// Creates the missing parents and links them, or counts what that would do.
///
/// Errors: those of `Identity::resolve` and `run::prepare`; 22004 for a real run whose `match` is not given; 21000 for a conflict
/// under `on_conflict => 'error'`; 25006; 40001; and whatever triggers raise.
pub fn backfill_parents(session: &Session, request: &ParentsRequest, mode: Mode) -> Result<Parents, Problem> {
    if mode.is_real() {
        may_write()?;
    }
    let resolver = resolver(session, request)?;
    let mut note = None;
    let mut request = request.clone();
    if request.matched.is_none() {
        let (guess, call) = proposed(session, &resolver, &request)?;
        if mode.is_real() {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "match is required: pg_mend does not guess how parents are identified",
            )
            .detail("same-named columns and the tenant are proposed in the hint; the dry run counts what they would do")
            .hint(call));
        }
        note = Some(format!("nothing was created; proposed call: {call}"));
        request = guess;
    }
    let mut work = PreparedParents::prepare(session, &resolver, &request, mode, Overlays::default())?;
    if request.on_conflict == OnConflict::AnyTwo {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "on_conflict => 'any_two' is for sources of one value, of which there are none here",
        )
        .hint("on_conflict is 'skip' (default), 'first' or 'error'"));
    }
    let mut parents = match mode.is_real() {
        false => {
            if let Some(most) = request.max_rows {
                work.limit(most)?;
            }
            work.simulate()?
        }
        true => work.create_and_link(&request)?,
    };
    parents.outcome.first.extend(note);
    parents.outcome.notes.extend(work.notes(parents.waiting, mode));
    Ok(parents)
}

/// The tenants; the guard of the run goes by the same ones.
///
/// Errors: those of `validate::tenants`.
pub(super) fn resolver<'a>(session: &'a Session, request: &ParentsRequest) -> Result<TenantResolver<'a>, Problem> {
    let resolver = TenantResolver::new(tenants(session, request.root.as_deref())?, true);
    if let Some(root) = resolver.root() {
        session.use_tenant_root(&record::qualified(root))?;
    }
    Ok(resolver)
}

/// The rule by which rows find their parents.
fn blueprint<'a>(
    session: &'a Session,
    identity: &Identity<'a>,
    request: &ParentsRequest,
    mode: Mode,
) -> Result<Blueprint<'a>, Problem> {
    let spec = RuleSpec {
        table: record::qualified(identity.table),
        column: identity.column.quoted.clone(),
        sources: None,
        // Of the values of new parents; a row finds one parent or none.
        on_conflict: OnConflict::Skip,
        only_where: request.only_where.clone(),
        tenant_guard: true,
        tenant: request.tenant.clone(),
        overwrite: Overwrite::Nothing,
        references: None,
    };
    let source = Source {
        start: identity.operands(),
        hops: vec![Hop {
            parent: identity.parent.oid,
            key: identity.matched.iter().map(|g| g.column.number).collect(),
            columns: vec![identity.key.number],
        }],
    };
    let reference = Reference {
        parent: identity.parent.oid,
        key: identity.key.number,
        declared: identity.declared,
    };
    let prepared = run::PrepareOptions {
        inferred: Some((vec![source], reference)),
        further: identity.further(),
        mode,
        ..run::PrepareOptions::default()
    };
    let blueprint = run::prepare(session, &spec, prepared)?;
    if mode.is_real() && !identity.parent.may_insert {
        let shown = session.catalog.display(identity.parent);
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied to insert into {shown}"),
        )
        .hint(session.grant("INSERT", &shown)));
    }
    Ok(blueprint)
}

impl<'a> PreparedParents<'a> {
    /// Looks everything up. `overlays`: what earlier steps of a dry run would have written.
    pub(super) fn prepare(
        session: &'a Session,
        resolver: &TenantResolver<'a>,
        request: &ParentsRequest,
        mode: Mode,
        overlays: Overlays,
    ) -> Result<PreparedParents<'a>, Problem> {
        let identity = Identity::resolve(session, resolver, request, &overlays)?;
        if !groups::has_placeholder_key(&session.catalog, &identity) {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!(
                    "pg_mend cannot predict new values of the key {} of {}: unsupported type",
                    identity.key.quoted,
                    session.catalog.display(identity.parent)
                ),
            )
            .hint("numbers, uuid and texts can; or give the key in match or set"));
        }
        let mut plain = Blueprint {
            overlays,
            ..blueprint(session, &identity, request, mode)?
        };
        plain.reader = run::who_reads(session, &plain, &[(identity.parent, &identity.insertion.code)])?.role();
        let catalog = &session.catalog;
        let above =
            [identity.table, identity.parent].map(|table| catalog.foreign_keys_of(table.oid).map(|key| key.parent));
        session.hold(
            above
                .into_iter()
                .flatten()
                .chain([identity.table.oid, identity.parent.oid]),
        )?;
        Ok(PreparedParents {
            session,
            page: plain.clone(),
            plain,
            identity,
            on_conflict: request.on_conflict,
            limited: None,
            before: vec![],
        })
    }

    /// The overlays with which a blueprint sees the parents that would be, and what the query of the groups is called.
    pub(super) fn overlays(&self) -> (Overlays, String) {
        let mut overlays = self.plain.overlays.clone();
        let groups = overlays.define(groups::groups(
            &self.session.catalog,
            &self.identity,
            &self.plain,
            self.on_conflict,
        ));
        overlays.push(
            self.identity.parent,
            groups::parents_after(&self.identity, &self.plain.overlays, &groups),
        );
        (overlays, groups)
    }

    /// The tables as they would be after this call: its parents, and the rows that are linked to them.
    pub(super) fn after(&self) -> Overlays {
        let (mut overlays, _) = self.overlays();
        let linked = Blueprint {
            overlays: overlays.clone(),
            ..self.page.clone()
        };
        overlays.push(self.identity.table, linked.after(Moment::Before));
        overlays
    }

    /// Only rows for which this holds, besides what the call says.
    pub(super) fn only(&mut self, condition: &Condition) {
        for blueprint in [&mut self.plain, &mut self.page] {
            let before = blueprint.rule.only_where.take();
            blueprint.rule.only_where = Some(Condition::and(before, condition));
        }
    }

    /// Statements call what users made as it is.
    pub(super) fn whole_functions(&self) -> WholeFunctions {
        WholeFunctions::where_needed(self.plain.asks_user_code() || !self.identity.insertion.code.is_empty())
    }

    /// Who runs the statements that read.
    pub(super) fn reader(&self) -> Reader {
        Reader::for_blueprint(&self.plain)
    }

    /// A statement that reads, with the queries that it names in front.
    pub(super) fn reading(&self, overlays: &Overlays, statement: Statement) -> Statement {
        let inner = overlays.before(statement).sql();
        let statement = Statement::new(format!("SELECT * FROM (\n{}\n) AS answer", indent(&inner, 2)));
        let statement = self.plain.statement(statement);
        let notices = self.plain.asks_user_code() || self.session.caller.texts_differ();
        match self.plain.reader.is_none() && notices {
            true => statement.under_callers_settings(&self.session.caller),
            false => statement,
        }
    }

    fn pairs(&self, overlays: &Overlays, statement: Statement) -> Result<Tally, Problem> {
        let statement = self.reading(overlays, statement);
        self.reader().run(|| query::tally(&statement))
    }

    /// What the rows come to, once what is missing was created: where no row lacks a parent there are no groups to look at.
    pub(super) fn after_all(&self) -> Result<(Outcome, Counts), Problem> {
        let plain = {
            // As in `predict`; parents that were just created have no statistics either.
            let _joins = Settings::push(&[("enable_nestloop", "off")]);
            run::simulate_run(self.session, &mut self.plain.clone(), false)?
        };
        if plain.counts.reasons.rows(&Reason::SourceMissing) == 0 {
            let counts = plain.counts.clone();
            return Ok((plain, counts));
        }
        let (outcome, predicted) = self.predict(false)?;
        Ok((outcome, predicted.counts))
    }

    /// What the rows come to. `parents`: and to how many parents they would be linked.
    pub(super) fn predict(&self, parents: bool) -> Result<(Outcome, Predicted), Problem> {
        // The groups have no statistics: of as many as there are rows, a nested loop would be quadratic.
        let _joins = Settings::push(&[("enable_nestloop", "off")]);
        let (overlays, groups) = self.overlays();
        let mut all = Blueprint {
            overlays: overlays.clone(),
            ..self.plain.clone()
        };
        let outcome = run::simulate_run(self.session, &mut all, false)?;
        let mut counts = outcome.counts.clone();
        let _settings = settings(true);
        // What finds no parent even then is what its group says.
        let left = self.pairs(
            &overlays,
            groups::left_over(&self.session.catalog, &self.identity, &all, &groups),
        )?;
        let missing = counts.reasons.take(&Reason::SourceMissing);
        if left.total() != missing || left.rows(&Reason::Create) > 0 {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("{missing} rows have no parent, but grouping them again gave {}", left.to_json()),
            )
            .detail("only_where or an expression returns different results each time it is evaluated (it is volatile)")
            .hint("say it without random(), clock_timestamp() and the like; a function of your own that always gives the same can be marked STABLE or IMMUTABLE"));
        }
        counts.reasons.extend(&left);
        let (mut all_parents, mut new_parents) = (0, 0);
        if parents {
            let page = Blueprint {
                overlays: overlays.clone(),
                ..self.page.clone()
            };
            let statement = self.reading(&overlays, groups::linked_parents(&page, &groups));
            let numbers = self.reader().run(|| query::numbers(&statement))?;
            (all_parents, new_parents) = (numbers[0], numbers[1]);
        }
        let conflicts = counts.reasons.rows(&Reason::Conflict);
        if self.on_conflict == OnConflict::Error && conflicts > 0 {
            return Err(self.conflict(conflicts));
        }
        let predicted = Predicted {
            counts,
            found: all_parents - new_parents,
            created: new_parents,
        };
        Ok((outcome, predicted))
    }

    fn conflict(&self, rows: i64) -> Problem {
        let shown = self.session.catalog.display(self.identity.table);
        Problem::new(
            PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION,
            format!("{rows} rows of {shown} would give the parent that they share different values"),
        )
        .detail("nothing was written")
        .hint("on_conflict => 'skip' leaves them, 'first' takes the values of the first row")
    }

    pub(super) fn simulate(&self) -> Result<Parents, Problem> {
        let _whole = self.whole_functions();
        let (outcome, mut predicted) = self.predict(true)?;
        let waiting = match self.limited {
            Some(rows) => wait(&mut predicted.counts, rows),
            None => 0,
        };
        Ok(Parents {
            outcome: Outcome {
                counts: predicted.counts,
                ..outcome
            },
            found: predicted.found,
            created: predicted.created,
            waiting,
            parts: vec![],
        })
    }

    /// What a reader should know besides the numbers.
    pub(super) fn notes(&self, waiting: i64, mode: Mode) -> Vec<String> {
        let identity = &self.identity;
        let shown = self.session.catalog.display(identity.parent);
        let mut note = vec![match identity.each {
            Some(_) => format!("a row of {shown} for each row"),
            None => format!("{shown} by {}", Identity::shown_assignments(&identity.matched)),
        }];
        if let Some(tenant) = identity
            .tenant
            .and_then(|c| identity.parent.column(c))
            .filter(|_| identity.each.is_none())
        {
            note[0].push_str(&format!(" ({}: its tenant)", tenant.quoted));
        }
        if !identity.set.is_empty() {
            note.push(format!("new ones with {}", Identity::shown_assignments(&identity.set)));
        }
        if self.limited.is_some() && waiting > 0 {
            note.push(format!(
                "{waiting} of the excluded rows wait for the next call (max_rows)"
            ));
        }
        let insertion = &identity.insertion;
        let given = |c: i16| {
            let judged = identity.each.is_none() || c != identity.key.number;
            judged && identity.value(c).is_some()
        };
        let mut unpredicted = insertion.unpredicted(identity.parent, &given);
        let known = |c: &i16| identity.value(*c).is_some() || *c == identity.key.number;
        unpredicted.extend(
            identity
                .parent
                .keys
                .iter()
                .filter(|key| {
                    key.name != identity.index.name
                        && key
                            .columns
                            .iter()
                            .any(|c| !known(c) && insertion.with_default.contains(c))
                })
                .map(|key| key.name.as_str()),
        );
        let judged: Vec<&str> = self
            .plain
            .details
            .checks
            .iter()
            .filter(|check| check.columns.contains(&identity.column.number))
            .chain(&self.plain.details.domain_checks)
            .map(|check| check.name.as_str())
            .collect();
        if !judged.is_empty()
            && identity
                .value(identity.key.number)
                .is_none_or(|_| identity.each.is_some())
        {
            note.push(format!(
                "checked with a placeholder instead of the new key: {}",
                judged.join(", ")
            ));
        }
        if !unpredicted.is_empty() {
            note.push(format!(
                "cannot be checked in a dry run, and would fail the whole run: {}",
                unpredicted.join(", ")
            ));
        }
        if !insertion.triggers.is_empty() {
            note.push(format!("triggers of {shown} fire: {}", insertion.triggers.join(", ")));
        }
        if !mode.is_real() && !identity.parent.may_insert {
            note.push(format!("the real run needs INSERT on {shown}"));
        }
        note
    }
}

/// Of the rows that could be linked, all but `now` wait for the next call, and are `excluded`; how many.
pub(super) fn wait(counts: &mut Counts, now: i64) -> i64 {
    let waiting = counts.filled - now;
    if waiting > 0 {
        counts.reasons.add(Reason::Excluded, waiting);
        counts.filled = now;
    }
    waiting.max(0)
}
