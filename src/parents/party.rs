//! `backfill_party_ids`: every column of the party model, parents first, in one transaction; contacts, organizations and users without
//! a party get one before others take theirs from them.
//!
//! ```text
//! who the row is     Contact.partyId, User.partyId    from its sources (User.contactId -> Contact.partyId); a row that names none gets a
//!                                                     party of its own
//! whose the row is   Invoice.clientPartyId            from its sources
//! ```

use pgrx::prelude::PgSqlErrorCode;
use serde_json::{Map, Value};

use super::ParentsRequest;
use super::execute::{Parents, PreparedParents, resolver};
use super::identity::needed;
use super::propose::namesake;
use crate::catalog::{Column, Table};
use crate::identifier::{Identifier, Literal};
use crate::infer::party::PartyColumn;
use crate::infer::tenancy::resolver::{RowTenant, TenantResolver};
use crate::names::{stem, words};
use crate::plan::expression::equal;
use crate::plan::{Overlays, Reason};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::rule::{Condition, OnConflict};
use crate::run::obstacles::required_columns;
use crate::run::{self, Origin, Outcome, PASSES, PartyRequest, RuleSequence, RuleStep, Session, record};

/// What was done with one column, or would be.
#[derive(Debug, Clone)]
pub struct OfParty {
    /// As of a backfill.
    pub outcome: Outcome,
    /// New parties.
    pub created: i64,
}

/// Fills (or counts) every party column that was asked for; one outcome each, in the order of the run.
///
/// All steps are checked before the first is executed. In a dry run each step sees what the steps before it would have
/// written, new parties included.
///
/// Errors: 42703 if the named table has no party column or none that can be derived; 22023 if parties are to be created for a table
/// whose rows are none; 23502 with everything that new parties need, of all tables; those of `backfill` and `backfill_parents`.
pub fn party(session: &Session, request: &PartyRequest) -> Result<Vec<OfParty>, Problem> {
    let columns = run::party(session, request)?;
    let mut creating = None;
    if request.create_missing {
        if request.mode.is_real() {
            run::may_write()?;
        }
        creating = creations(session, request, &columns)?;
        if let Some((resolver, wanted)) = &creating {
            let mut problems = Problems::default();
            for (_, one) in wanted {
                let work = PreparedParents::prepare(session, resolver, one, request.mode, Overlays::default());
                problems.keep(work.map_err(|problem| in_terms_of_party(session, one, problem)));
            }
            problems.into_result()?;
        }
    } else if !request.set.is_empty() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "set says what new parties get, and none are to be created",
        )
        .hint("create_missing => true creates a party for each contact, organization and user without one"));
    }
    run::together(session, request.mode, |sequence| {
        each_column(sequence, &columns, creating.as_ref())
    })
}

/// Fills each column, with parties for who has none where `creating` says so.
fn each_column<'a>(
    sequence: &mut RuleSequence<'a>,
    columns: &[(PartyColumn, RuleStep<'a>)],
    creating: Option<&(TenantResolver<'a>, Creations)>,
) -> Result<Vec<OfParty>, Problem> {
    let mut all = Vec::new();
    for (column, step) in columns {
        let creation = creating.and_then(|(resolver, wanted)| {
            let mut all = wanted.iter();
            let found = all.find(|((table, number), _)| (*table, *number) == (column.table, column.column));
            found.map(|(_, one)| (resolver, one))
        });
        all.push(match creation {
            Some((resolver, one)) => filled_and_created(sequence, resolver, column, step.clone(), one)?,
            None => OfParty {
                outcome: sequence.step(step.clone())?,
                created: 0,
            },
        });
    }
    Ok(all)
}

/// Hints of `backfill_parents` speak of its own arguments.
fn in_terms_of_party(session: &Session, request: &ParentsRequest, problem: Problem) -> Problem {
    let table = session.catalog.resolve_table(&request.table);
    let shown = table.map(|table| typed_table(session, table)).unwrap_or_default();
    let hint = problem.hint.map(|hint| match hint.strip_prefix("say it in set: ") {
        Some(object) => format!(r#"say it in set: {{"{shown}": {object}}}"#),
        None => hint
            .replace(
                "leave it out; or name it in match, for a parent that is found by it",
                "leave it out",
            )
            .replace(
                "name in match what a parent is found by",
                "backfill_parents(table, column, match => ...) finds parents by what you name",
            ),
    });
    Problem {
        message: format!("{shown}: {}", problem.message),
        hint,
        ..problem
    }
}

/// For which columns parties are created, and the call that does it.
type Creations = Vec<((u32, i16), ParentsRequest)>;

fn creations<'a>(
    session: &'a Session,
    request: &PartyRequest,
    columns: &[(PartyColumn, RuleStep)],
) -> Result<Option<(TenantResolver<'a>, Creations)>, Problem> {
    let catalog = &session.catalog;
    let mut problems = Problems::default();
    let who: Vec<(&PartyColumn, &Table, &Column)> = columns
        .iter()
        .filter(|(column, _)| column.is_party)
        .filter_map(|(column, _)| {
            let table = catalog.table(column.table)?;
            Some((column, table, table.column(column.column)?))
        })
        .collect();
    let Some((first, ..)) = who.first() else {
        let (what, hint) = match &request.table {
            Some(named) => (
                format!("the rows of {named} do not represent parties"),
                "omit table_name: each contact, organization and user gets a party; the other tables take the party of the row that they reference",
            ),
            None => (
                "found no table whose rows represent parties".into(),
                "backfill_parents(table, column, match => '{}') creates one for each row of any table",
            ),
        };
        return Err(
            Problem::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, what)
                .detail("a table represents parties if its party column is named after the table, and either an enum column of the party table has a label with the name of the table, or other tables take their party from it")
                .hint(hint),
        );
    };
    let given = party_values(session, request, &who, &mut problems)?;
    let Some(parent) = catalog.table(first.reference.parent) else {
        return Ok(None);
    };
    let resolver = resolver(session, &asked(session, request, who[0], Map::new()))?;
    let insertion = catalog.insertion(parent)?;
    let tenant = match resolver.of(parent).as_ref() {
        RowTenant::Columns(columns) if columns.len() == 1 => Some(columns[0]),
        _ => None,
    };
    let mut found = Vec::new();
    let mut incomplete = Vec::new();
    let mut example = Map::new();
    for (at, (column, table, own)) in who.iter().enumerate() {
        let mut set = given[at].clone();
        let named = |set: &Map<String, Value>, of: &Column| {
            set.keys().any(|name| {
                catalog
                    .resolve_column(parent, name)
                    .is_ok_and(|c| c.number == of.number)
            })
        };
        for of in parent.columns.iter().filter(|of| !of.generated) {
            if of.number == column.reference.key || named(&set, of) {
                continue;
            }
            if let Some(label) = label(session, table, of) {
                set.insert(Identifier::new(&of.name).to_string(), label.into());
            }
        }
        let mut missing = Vec::new();
        for of in needed(parent, &insertion) {
            if of.number == column.reference.key || Some(of.number) == tenant || named(&set, of) {
                continue;
            }
            match namesake(catalog, table, own, of) {
                Some(same) => {
                    set.insert(Identifier::new(&of.name).to_string(), same.quoted.clone().into());
                }
                None => missing.push(of),
            }
        }
        let mut wanted = given[at].clone();
        if !missing.is_empty() {
            let (list, values) = required_columns(session, &missing, true);
            incomplete.push(format!("{}: {list}", catalog.display(table)));
            wanted.extend(values);
        }
        if !wanted.is_empty() {
            example.insert(typed_table(session, table), Value::Object(wanted));
        }
        found.push((
            (column.table, column.column),
            asked(session, request, (column, table, own), set),
        ));
    }
    if !incomplete.is_empty() {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
                format!(
                    "required columns of new rows of {} have no value",
                    catalog.display(parent)
                ),
            )
            .detail(format!(
                "NOT NULL without a default, and nothing of that name in the row: {}",
                incomplete.join("; ")
            ))
            .hint(format!(
                "give them values, expressions over the row: set => {}",
                Literal::new(&Value::Object(example).to_string())
            )),
        );
    }
    problems.into_result()?;
    Ok(Some((resolver, found)))
}

/// As people type it in `set`: the bare name, where that finds it.
fn typed_table(session: &Session, table: &Table) -> String {
    match session.catalog.resolve_table(&table.name) {
        Ok(found) if found.oid == table.oid => table.name.clone(),
        _ => record::qualified(table),
    }
}

/// What the call says of each table.
fn party_values(
    session: &Session,
    request: &PartyRequest,
    who: &[(&PartyColumn, &Table, &Column)],
    problems: &mut Problems,
) -> Result<Vec<Map<String, Value>>, Problem> {
    let catalog = &session.catalog;
    let mut given = vec![Map::new(); who.len()];
    for (name, columns) in &request.set {
        let Some(table) = problems.keep(catalog.resolve_table(name)) else {
            continue;
        };
        let shown: Vec<String> = who.iter().map(|(_, table, _)| catalog.display(table)).collect();
        let hint = format!(
            r#"for example set => '{{"{}": {{"name": "an expression over the row"}}}}'; parties are created for {}"#,
            who.first().map(|(_, table, _)| table.name.as_str()).unwrap_or_default(),
            shown.join(", ")
        );
        let mine: Vec<usize> = (0..who.len()).filter(|at| who[*at].1.oid == table.oid).collect();
        match (mine.as_slice(), columns) {
            ([], _) => problems.push(Problem::invalid_parameter(
                format!("set: no parties are created for {name}"),
                hint,
            )),
            (mine, Value::Object(_)) if mine.iter().any(|at| !given[*at].is_empty()) => {
                problems.push(Problem::invalid_parameter(
                    format!("set: {name} is named twice"),
                    "name each table once",
                ));
            }
            (mine, Value::Object(columns)) => {
                for at in mine {
                    given[*at].extend(columns.clone());
                }
            }
            _ => problems.push(Problem::invalid_parameter(
                format!("set: {name} must have a JSON object of columns"),
                hint,
            )),
        }
    }
    Ok(given)
}

/// `'CONTACT'`, for a column of an enum that has a label for this table.
fn label(session: &Session, table: &Table, of: &Column) -> Option<String> {
    let (base, _) = session.catalog.base_type(of.type_oid, -1)?;
    let own = stem(&table.name);
    let label = base.labels.iter().find(|label| words(&label.to_lowercase()) == own)?;
    Some(Literal::new(label).to_string())
}

/// The call of `backfill_parents` for one table.
fn asked(
    session: &Session,
    request: &PartyRequest,
    (column, table, own): (&PartyColumn, &Table, &Column),
    set: Map<String, Value>,
) -> ParentsRequest {
    let parent = session.catalog.table(column.reference.parent);
    let parent = parent.map(|parent| {
        let key = parent.column(column.reference.key);
        let key = key.map(|key| key.quoted.clone()).unwrap_or_default();
        format!("{}({key})", record::qualified(parent))
    });
    ParentsRequest {
        table: record::qualified(table),
        column: own.quoted.clone(),
        matched: Some(Map::new()),
        set: Some(set),
        normalize: None,
        tenant: request.tenant.clone(),
        only_where: request.only_where.clone(),
        on_conflict: OnConflict::Skip,
        max_rows: None,
        parent,
        root: None,
    }
}

/// Rows of which no source names a row that exists: nobody else can say who they are. The others take their party from there, now or
/// when it has one.
fn nothing_named(session: &Session, column: &PartyColumn) -> Option<Condition> {
    let catalog = &session.catalog;
    let table = catalog.table(column.table)?;
    let sources = column.sources.as_ref().ok().filter(|sources| !sources.is_empty())?;
    let written = |row: &str| -> Option<String> {
        let mut all = Vec::new();
        for source in sources {
            let hop = source.hops.first()?;
            let parent = catalog.table(hop.parent)?;
            let mut on = Vec::new();
            for (own, key) in source.columns().iter().zip(&hop.key) {
                let (own, key) = (table.column(*own)?, parent.column(*key)?);
                let there = format!("mend_source.{}", key.sql());
                on.push(equal(catalog, &there, key.type_oid, &format!("{row}.{}", own.sql())));
            }
            let from = parent.relation_sql();
            all.push(format!(
                "NOT EXISTS (SELECT FROM {from} AS mend_source WHERE {})",
                on.join(" AND ")
            ));
        }
        Some(all.join(" AND "))
    };
    Some(Condition {
        qualified: written("t")?,
        portable: written(&record::qualified(table))?,
        trees: vec![],
    })
}

/// Rows that name somebody take the party from there; the others get one.
fn filled_and_created<'a>(
    sequence: &mut RuleSequence<'a>,
    resolver: &TenantResolver<'a>,
    column: &PartyColumn,
    step: RuleStep<'a>,
    request: &ParentsRequest,
) -> Result<OfParty, Problem> {
    let session = sequence.session();
    let condition = nothing_named(session, column);
    let mut taken: Option<Outcome> = None;
    let (mut filled, mut created) = (0, 0);
    let mut blueprint = step.blueprint.clone();
    let no_sources = step.instead_of_note.clone();
    if let Some(condition) = &condition {
        let others = Condition {
            portable: format!("NOT ({})", condition.portable),
            qualified: format!("NOT ({})", condition.qualified),
            trees: condition.trees.clone(),
        };
        blueprint.rule.only_where = Some(Condition::and(blueprint.rule.only_where.take(), &others));
    }
    for _ in 0..PASSES {
        if condition.is_some() {
            let outcome = sequence.step(RuleStep {
                blueprint: blueprint.clone(),
                mode: step.mode,
                instead_of_note: None,
                before_note: None,
            })?;
            filled += outcome.counts.filled;
            taken = Some(outcome);
        }
        let parents = create(sequence, resolver, condition.as_ref(), request)?;
        filled += parents.outcome.counts.filled;
        created += parents.created;
        if let Some(mut outcome) = together(request, taken.as_ref(), parents, filled) {
            if let Some(why) = &no_sources {
                outcome.notes.push(why.clone());
            }
            return Ok(OfParty { outcome, created });
        }
    }
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("the rows of {} change faster than they can be counted", request.table),
    )
    .detail("nothing was written")
    .hint("run it again at a quieter time, or LOCK TABLE ... IN SHARE MODE first in the same transaction"))
}

/// Creates parties for the rows for which `condition` holds.
fn create<'a>(
    sequence: &mut RuleSequence<'a>,
    resolver: &TenantResolver<'a>,
    condition: Option<&Condition>,
    request: &ParentsRequest,
) -> Result<Parents, Problem> {
    let mode = sequence.mode();
    let mut work = PreparedParents::prepare(sequence.session(), resolver, request, mode, sequence.overlays.clone())?;
    if let Some(condition) = condition {
        work.only(condition);
    }
    let mut parents = match mode.is_real() {
        false => work.simulate()?,
        true => {
            work.plain.touched.extend(&sequence.touched);
            work.page.touched.extend(&sequence.touched);
            work.before = sequence.shares_of(work.identity.table.oid);
            let only_where = work.plain.rule.only_where.as_ref().map(|c| c.portable.clone());
            work.create_and_link(&ParentsRequest {
                only_where,
                ..request.clone()
            })?
        }
    };
    if !mode.is_real() && parents.outcome.counts.filled > 0 {
        sequence.overlays = work.after();
    }
    let origin = match work.identity.each {
        Some(_) => Origin::Own,
        // The parents were made for what the rows said.
        None => Origin::Derived { in_place: false },
    };
    sequence.wrote(&work.plain, &parents.outcome, &parents.parts, origin);
    parents.outcome.notes.extend(work.notes(0, mode));
    Ok(parents)
}

/// One outcome of both, every row in one reason; `None` where rows changed between the two counts.
///
/// * `taken`: rows that name somebody, in the last pass; the others are excluded there, as these are in `parents`.
/// * `filled`: by all passes.
fn together(request: &ParentsRequest, taken: Option<&Outcome>, parents: Parents, filled: i64) -> Option<Outcome> {
    let made = parents.outcome;
    let Some(taken) = taken else {
        return Some(made);
    };
    let mut counts = made.counts.clone();
    counts.filled = filled;
    // What earlier passes filled is set by now.
    let before = filled - taken.counts.filled - made.counts.filled;
    counts.already_set = taken.counts.already_set + made.counts.already_set - before;
    counts.unguarded += taken.counts.unguarded;
    counts.reasons.extend(&taken.counts.reasons);
    // Each of the two excludes what the other one counts.
    counts.reasons.take(&Reason::Excluded);
    let excluded = made.counts.total() - counts.total();
    let may_be = request.only_where.is_some() || request.tenant.is_some();
    if excluded < 0 || (excluded > 0 && !may_be) {
        return None;
    }
    if excluded > 0 {
        counts.reasons.add(Reason::Excluded, excluded);
    }
    let table = &taken.table;
    let mut note = vec![];
    let (first, second) = (taken.notes.join("; "), made.notes.join("; "));
    if !first.is_empty() {
        note.push(format!("rows of {table} that name somebody: {first}"));
    }
    if !second.is_empty() {
        note.push(format!("the others: {second}"));
    }
    if let Some(run) = taken.run_id.filter(|_| made.run_id.is_some()) {
        note.push(format!("two runs, {run} for the former"));
    }
    Some(Outcome {
        counts,
        notes: note,
        ..made
    })
}
