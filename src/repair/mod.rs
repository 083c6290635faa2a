//! Repairing references: rows without a parent, or with one of another tenant. Never deletes.
//!
//! ```text
//! which reference    by table and columns; several parents are an error that names them
//! preflight          everything that is in the way, at once
//! dry                counts what each violating row would come to
//! real               writes, keeps what was there before, counts again; an error leaves the data as it was
//! ```

mod create;
mod given;
mod missing;
mod nullify;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use serde_json::{Value, json};

use crate::catalog::Table;
use crate::identifier::Literal;
use crate::pg;
use crate::plan::expression::calls_user_code;
use crate::plan::kept::Change;
use crate::plan::program::{
    Attempt, Keep, Parts, Program, Reading, Repeat, Step, Surroundings, Trace, Verdict, Verify, Write,
};
use crate::plan::{Mode, Reason, Statement, Tally};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::interpret;
use crate::run::record::{self, Record};
use crate::run::{PASSES, Reader, Session, may_write, query};
use crate::validate::pass::{Conditions, Pass};
use crate::validate::reference::{Found, KeyReference, collect};
use crate::validate::sides::Sides;
use crate::validate::{Memory, declared, may_be_read, reading, tenants};

/// What is done to a row that violates its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The reference becomes NULL; the old values are kept.
    Nullify,
    /// As nullify, with a copy of the row.
    Quarantine,
    /// The missing parent is created.
    CreateParent,
}

/// Which rows are repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// No parent.
    Orphan,
    /// A parent of another tenant.
    CrossTenant,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct RepairRequest {
    /// As typed.
    pub table: String,
    /// As typed: `customer_id`, `(tenant_id, ref)`, or as `validate_tenant_fks` shows it.
    pub columns: String,
    /// What to do.
    pub action: Action,
    /// Count only.
    pub mode: Mode,
    /// Which parent, where the columns have more than one reference; as typed.
    pub parent: Option<String>,
    /// Which rows.
    pub violation: Violation,
    /// Values of the columns of new parents, a JSON object.
    pub set: Option<Value>,
    /// Only these rows.
    pub only_where: Option<String>,
    /// See `validate_tenant_fks`.
    pub root: Option<String>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// As displayed.
    pub table: String,
    /// As typed.
    pub columns: String,
    /// As displayed.
    pub parent: String,
    /// Rows that violate the reference: `repaired` and the sum of `reasons`.
    pub violations: i64,
    /// Rows that do no longer.
    pub repaired: i64,
    /// Parents that are new.
    pub created: i64,
    /// Rows left as they were, by reason.
    pub reasons: Tally,
    /// `mend.runs.run_id` of a real run.
    pub run_id: Option<i64>,
    /// What else there is to know.
    pub note: Option<String>,
}

impl Action {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Nullify => "nullify",
            Action::Quarantine => "quarantine",
            Action::CreateParent => "create_parent",
        }
    }
}

impl std::str::FromStr for Action {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let all = [Action::Nullify, Action::Quarantine, Action::CreateParent];
        all.into_iter().find(|action| action.as_str() == text).ok_or_else(|| {
            Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("there is no action \"{text}\""),
            )
            .hint("action is 'nullify', 'create_parent' or 'quarantine'; nothing ever deletes rows")
        })
    }
}

impl Violation {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Violation::Orphan => "orphan",
            Violation::CrossTenant => "cross_tenant",
        }
    }
}

impl std::str::FromStr for Violation {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let all = [Violation::Orphan, Violation::CrossTenant];
        all.into_iter()
            .find(|violation| violation.as_str() == text)
            .ok_or_else(|| {
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("there is no violation \"{text}\""),
                )
                .hint("violation is 'orphan' (default) or 'cross_tenant'")
            })
    }
}

/// One reference with what is wrong about it, ready to be counted and repaired.
struct Work<'a> {
    session: &'a Session,
    request: &'a RepairRequest,
    reference: KeyReference<'a>,
    pass: Pass<'a>,
    conditions: Conditions,
    /// The rows to repair, as a condition of the pass; the caller's own included.
    violating: String,
    /// The caller's condition, over `t`.
    only_where: Option<String>,
    /// As Postgres would keep it.
    typed: Option<String>,
    /// Who counts; known once it is known what the tables enforce.
    reader: Cell<Reader>,
    /// Statements call functions of users.
    calls_code: Cell<bool>,
    sides: &'a Sides<'a>,
}

/// Repairs the rows that violate one reference, or counts what that would do.
///
/// Errors: 42P01, 42703 (names; no such reference), 42P08 (several), 23502 (NOT NULL; required columns of the parent), 42830
/// (no primary key), 0A000 (what cannot be predicted), 42501, 25006, 22P02 (values), 40001, and whatever triggers raise.
pub fn repair(session: &Session, request: &RepairRequest) -> Result<Repaired, Problem> {
    if request.mode.is_real() {
        may_write()?;
    }
    let keys = tenants(session, request.root.as_deref())?;
    let sides = Sides::new(keys, true);
    let reference = find(session, request)?;
    let mut problems = Problems::default();
    let only_where = request
        .only_where
        .as_ref()
        .filter(|text| !text.trim().is_empty())
        .and_then(|text| problems.keep(condition(session, reference.table, text)));
    let mut pass = Pass::over(&session.catalog, &sides, reference.table);
    let conditions = pass.conditions(&reference);
    let violating = match (request.violation, &conditions.tenants) {
        (Violation::Orphan, _) => conditions.orphan.clone(),
        (Violation::CrossTenant, Some(tenants)) => tenants.cross.clone(),
        (Violation::CrossTenant, None) => {
            problems.push(no_tenants(session, &reference));
            "false".into()
        }
    };
    let violating = match &only_where {
        Some(condition) => format!("({violating}) AND ({}) IS TRUE", condition.prefixed),
        None => violating,
    };
    let (only_where, typed) = only_where.map(|typed| (typed.prefixed, typed.tree)).unzip();
    let work = Work {
        session,
        request,
        reference,
        pass,
        conditions,
        violating,
        only_where,
        typed,
        reader: Cell::default(),
        calls_code: Cell::default(),
        sides: &sides,
    };
    may_be_read(session, &work.pass, &mut problems);
    if request.mode.is_real() && !session.may_record() {
        problems.push(
            Problem::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied to record the run in mend.runs",
            )
            .hint("one call by the extension's owner gives a role all that it needs: SELECT grant_mend('role')"),
        );
    }
    let reads = work.pass.reads().iter().map(|(table, _)| *table);
    let catalog = &session.catalog;
    let above = [work.reference.table, work.reference.parent];
    let above = above.map(|table| catalog.foreign_keys_of(table.oid).map(|key| key.parent));
    session.hold(
        reads
            .chain([work.reference.parent.oid])
            .chain(above.into_iter().flatten()),
    )?;
    match request.action {
        Action::CreateParent => {
            let plan = create::Creation::prepare(&work, &mut problems)?;
            problems.into_result()?;
            work.run(&plan)
        }
        Action::Nullify | Action::Quarantine => {
            let plan = nullify::Nullification::prepare(&work, &mut problems)?;
            problems.into_result()?;
            work.run(&plan)
        }
    }
}

/// One way to repair.
trait Way {
    /// What each violating row comes to: [`Reason::Repaired`], or why not.
    fn judged(&self, work: &Work) -> Statement;
    /// How many parents are to be created.
    fn parents(&self, work: &Work) -> Result<i64, Problem>;
    /// Writes, complete; it keeps what was there before.
    fn write(&self, work: &Work) -> Statement;
    /// The table whose rows are written, and what happens to them.
    fn change<'p>(&'p self, work: &'p Work<'p>) -> (&'p Table, Change);
    /// Counts rows of which what was written does not hold any more: begin anew. `None`: there can be none.
    fn contradicted(&self, work: &Work, run: i64) -> Option<Statement>;
    /// The statement, for the record.
    fn statement(&self, work: &Work) -> String;
    /// What a reader should know.
    fn note(&self, work: &Work, mode: Mode) -> Result<Option<String>, Problem>;
    /// What of the schema decided, for the record.
    fn fingerprint(&self, work: &Work) -> String;
}

/// The name of the write of a repair.
const REPAIR: &str = "repair";

impl Work<'_> {
    /// Says who counts, where `code` is what of `table` is code of its owner.
    fn read_with(&self, table: &Table, code: &[String], others: &[u32], problems: &mut Problems) {
        let mut reads: Vec<u32> = self.pass.reads().iter().map(|(table, _)| *table).collect();
        reads.push(table.oid);
        reads.extend(others);
        let typed: Vec<&str> = self.typed.iter().map(String::as_str).collect();
        self.calls_code
            .set(!code.is_empty() || self.only_where.as_ref().is_some_and(|c| calls_user_code(c)));
        if let Some(reader) = problems.keep(Reader::of(self.session, &[(table, code)], &reads, &typed)) {
            self.reader.set(reader);
        }
    }

    fn run(&self, way: &dyn Way) -> Result<Repaired, Problem> {
        let (before, parents) = {
            let _reading = reading();
            let _memory = Memory::read()?.for_joins(self.pass.width());
            (self.tally(&way.judged(self))?, way.parents(self)?)
        };
        let mut result = self.outcome(&before);
        let rests_on = self.reference.declaration.as_ref();
        let rests_on = rests_on.map(|declaration| format!("the reference is one that was declared: {declaration}"));
        if !self.request.mode.is_real() {
            result.created = parents;
            result.note = joined(joined(result.note, way.note(self, Mode::Dry)?), rests_on);
            return Ok(result);
        }
        let (run, mut result) = interpret::run(self.session, self.program(way), |done| {
            let progress = done.progress;
            let mut result = self.outcome(&progress.found.counts.reasons);
            result.repaired = match way.change(self).1 {
                // Rows that are repaired now are no violations any more.
                Change::Created => progress.settled,
                _ => progress.written(REPAIR),
            };
            if way.change(self).1 == Change::Created {
                result.created = progress.written(REPAIR);
            }
            result.violations = result.repaired + result.reasons.total();
            result.note = joined(joined(result.note, way.note(self, Mode::Real)?), rests_on);
            let record = self.record(way, &result);
            Ok((result, record))
        })?;
        result.run_id = Some(run);
        Ok(result)
    }

    /// Rows are written until none is left that could be, and then they must hold.
    fn program<'p>(&'p self, way: &'p dyn Way) -> Program<'p> {
        let (table, change) = way.change(self);
        let judged = || Reading::Reasons(way.judged(self));
        let write = Write {
            name: REPAIR,
            table,
            parts: Parts::Whole,
            keep: Keep::Changes { change, columns: None },
            traces: match change {
                Change::Created => vec![Trace {
                    table,
                    column: None,
                    created: true,
                    forgets: None,
                }],
                _ => vec![],
            },
            by_hash: false,
            statement: Box::new(|_, _| way.write(self)),
        };
        let left = Verify::new(
            "left",
            move |_| judged(),
            |progress| {
                let (before, found) = (&progress.before.counts.reasons, &progress.found.counts.reasons);
                match (found.rows(&Reason::Repaired), progress.last()) {
                    (0, _) => Verdict::Proved,
                    // Others may have repaired the rows between the count and the write.
                    (_, 0) if before.total() > found.total() => Verdict::Anew(self.not_accepted(before.total())),
                    (_, 0) => Verdict::Wrong(self.not_accepted(before.total())),
                    _ => Verdict::More,
                }
            },
        );
        let holds = Verify::new(
            "contradicted",
            |progress| match way.contradicted(self, progress.run) {
                Some(statement) => Reading::Numbers(statement),
                None => Reading::Nothing,
            },
            |progress| match progress.found.numbers[..] {
                [rows] if rows > 0 => Verdict::Anew(self.changes_too_fast()),
                _ => Verdict::Proved,
            },
        );
        let steps = vec![
            Step::Count(Box::new(move |_| judged())),
            Step::Repeat(Repeat {
                most: PASSES,
                steps: vec![Step::Write(write), Step::Verify(left)],
                exhausted: Box::new(|| Verdict::Anew(self.changes_too_fast())),
            }),
            Step::Verify(holds),
        ];
        Program {
            operation: "repair_orphans",
            object: record::qualified(self.reference.table),
            lock: Some(self.reference.table),
            surroundings: Surroundings {
                calls_user_code: self.calls_code.get(),
                joins_by_hash: false,
                reader: self.reader.get().role(),
            },
            // Somebody else may have been there first.
            steps: vec![Step::Attempt(Attempt {
                others: vec![PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION],
                steps,
            })],
        }
    }

    fn record(&self, way: &dyn Way, result: &Repaired) -> Record {
        Record {
            table: record::qualified(self.reference.table),
            column: result.columns.clone(),
            rule: json!({
                "action": self.request.action.as_str(),
                "violation": self.request.violation.as_str(),
                "parent": record::qualified(self.reference.parent),
                "columns": self.reference.table.names_of(&self.reference.columns),
                "key": self.reference.parent.names_of(&self.reference.key),
                "set": self.request.set,
                "only_where": self.request.only_where,
                "root": self.sides.root().map(record::qualified),
                "parents_created": result.created,
            }),
            statement: way.statement(self),
            counts: (
                0,
                result.repaired,
                result.reasons.to_json(),
                result.violations - result.repaired,
            ),
            note: result.note.clone(),
            fingerprint: way.fingerprint(self),
        }
    }

    fn changes_too_fast(&self) -> Problem {
        Problem::new(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!(
                "the rows of {} change faster than they can be repaired",
                self.session.catalog.display(self.reference.table)
            ),
        )
        .detail("nothing was written")
        .hint("run it again at a quieter time, or LOCK TABLE ... IN SHARE MODE first in the same transaction")
    }

    fn not_accepted(&self, violations: i64) -> Problem {
        Problem::new(
            PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
            format!(
                "a trigger keeps the {violations} violating rows of {} from being repaired; nothing was written",
                self.session.catalog.display(self.reference.table)
            ),
        )
        .hint("ALTER TABLE ... DISABLE TRIGGER ... for the repair, in the same transaction")
    }

    fn outcome(&self, counts: &Tally) -> Repaired {
        let mut reasons = counts.clone();
        let repaired = reasons.take(&Reason::Repaired);
        Repaired {
            table: self.session.catalog.display(self.reference.table),
            columns: self.reference.columns_shown(),
            parent: self.session.catalog.display(self.reference.parent),
            violations: counts.total(),
            repaired,
            created: 0,
            note: reasons.refused(),
            reasons,
            run_id: None,
        }
    }

    /// Runs a statement that counts rows by reason.
    fn tally(&self, statement: &Statement) -> Result<Tally, Problem> {
        let _whole = pg::WholeFunctions::where_needed(self.calls_code.get());
        self.reader.get().run(|| query::tally(statement))
    }
}

fn joined(a: Option<String>, b: Option<String>) -> Option<String> {
    let parts: Vec<String> = a.into_iter().chain(b).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The reference that the call means.
fn find<'a>(session: &'a Session, request: &RepairRequest) -> Result<KeyReference<'a>, Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(&request.table)?;
    let parent = request
        .parent
        .as_ref()
        .map(|name| catalog.resolve_table(name))
        .transpose()?;
    let declared = declared::load(session)?;
    let all: Vec<KeyReference> = collect(catalog, Some(table), true, &declared)
        .into_iter()
        .filter_map(|found| match found {
            Found::Reference(reference) => Some(reference),
            Found::Unchecked(_) => None,
        })
        .collect();
    let wanted = request.columns.trim();
    // As shown, else as typed: one name, or several in parentheses.
    let shown: Vec<&KeyReference> = all.iter().filter(|r| r.columns_shown() == wanted).collect();
    let mut found = shown;
    if found.is_empty() {
        let mut columns = Vec::new();
        for name in declared::columns_typed(wanted)? {
            columns.push(catalog.resolve_column(table, &name)?.number);
        }
        found = all
            .iter()
            .filter(|r| {
                let with_type: Vec<i16> = r
                    .discriminator
                    .iter()
                    .map(|(c, _)| *c)
                    .chain(r.columns.clone())
                    .collect();
                r.columns == columns || with_type == columns
            })
            .collect();
    }
    found.retain(|r| parent.is_none_or(|parent| parent.oid == r.parent.oid));
    // Two foreign keys that say the same.
    found.dedup_by(|a, b| (a.parent.oid, &a.key, &a.discriminator) == (b.parent.oid, &b.key, &b.discriminator));
    let display = catalog.display(table);
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            let list: Vec<String> = all.iter().map(KeyReference::columns_shown).collect();
            Err(Problem::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("nothing says what {wanted} of {display} references"),
            )
            .detail(match list.is_empty() {
                true => format!("{display} has no references"),
                false => format!("references of {display}: {}", list.join(", ")),
            })
            .hint(format!(
                "say it: SELECT declare_reference({}, {}, 'parent_table(key)')",
                Literal::new(&display),
                Literal::new(wanted)
            )))
        }
        several => {
            let list: Vec<String> = several
                .iter()
                .map(|r| format!("{} -> {}", r.columns_shown(), catalog.display(r.parent)))
                .collect();
            let first = catalog.display(several[0].parent);
            Err(Problem::new(
                PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
                format!("{wanted} of {display} has {} references", several.len()),
            )
            .detail(list.join(", "))
            .hint(match several.iter().all(|r| r.parent.oid == several[0].parent.oid) {
                true => format!(
                    "name the columns as shown: {}",
                    Literal::new(&several[0].columns_shown())
                ),
                false => format!("say which: parent_table => {}", Literal::new(&first)),
            }))
        }
    }
}

fn condition(session: &Session, table: &Table, typed: &str) -> Result<pg::Qualified, Problem> {
    let relation = table.relation_sql();
    let (oid, caller) = (table.oid, session.caller.as_pairs());
    // A subtransaction, so that Postgres's own complaint about the condition joins the list.
    let result = pg::subtransaction(AssertUnwindSafe(|| {
        pg::qualify_condition(typed, &relation, oid, "t", &caller)
    }));
    let result = result.and_then(|typed| {
        session.same_for_all_texts(&typed)?;
        session.hold(typed.relations.iter().copied()).map(|()| typed)
    });
    result.map_err(|problem| Problem {
        message: format!("only_where: {}", problem.message),
        ..problem
    })
}

fn no_tenants(session: &Session, reference: &KeyReference) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!(
            "whether {} of {} leads to another tenant cannot be told",
            reference.columns_shown(),
            session.catalog.display(reference.table)
        ),
    )
    .detail("the rows of one of the two tables are everybody's, or the reference was declared to cross tenants")
    .hint("SELECT * FROM tenant_columns() shows whose the rows of each table are")
}
