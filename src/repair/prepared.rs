//! One reference with what is wrong about it, ready to be counted and repaired: the program of every repair.

use std::cell::Cell;

use pgrx::prelude::*;
use serde_json::json;

use super::request::{RepairRequest, Repaired};
use crate::catalog::Table;
use crate::infer::tenancy::resolver::TenantResolver;
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
use crate::run::{PASSES, Reader, Session, query};
use crate::validate::pass::{Conditions, Pass};
use crate::validate::reference::KeyReference;
use crate::validate::{Memory, reading};

/// One reference with what is wrong about it, ready to be counted and repaired.
pub(super) struct PreparedRepair<'a> {
    pub(super) session: &'a Session,
    pub(super) request: &'a RepairRequest,
    pub(super) reference: KeyReference<'a>,
    pub(super) pass: Pass<'a>,
    pub(super) conditions: Conditions,
    /// The rows to repair, as a condition of the pass; the caller's own included.
    pub(super) violating: String,
    /// The caller's condition, over `t`.
    pub(super) only_where: Option<String>,
    /// As Postgres would keep it.
    pub(super) typed: Option<String>,
    /// Who counts; known once it is known what the tables enforce.
    pub(super) reader: Cell<Reader>,
    /// Statements call functions of users.
    pub(super) calls_code: Cell<bool>,
    pub(super) resolver: &'a TenantResolver<'a>,
}

/// One strategy to repair.
pub(super) trait RepairStrategy {
    /// What each violating row comes to: [`Reason::Repaired`], or why not.
    fn judged(&self, work: &PreparedRepair) -> Statement;
    /// How many parents are to be created.
    fn parents(&self, work: &PreparedRepair) -> Result<i64, Problem>;
    /// Writes, complete; it keeps what was there before.
    fn write(&self, work: &PreparedRepair) -> Statement;
    /// The table whose rows are written, and what happens to them.
    fn change<'p>(&'p self, work: &'p PreparedRepair<'p>) -> (&'p Table, Change);
    /// Counts rows of which what was written does not hold any more: begin anew. `None`: there can be none.
    fn contradicted(&self, work: &PreparedRepair, run: i64) -> Option<Statement>;
    /// The statement, for the record.
    fn statement(&self, work: &PreparedRepair) -> String;
    /// What a reader should know.
    fn note(&self, work: &PreparedRepair, mode: Mode) -> Result<Option<String>, Problem>;
    /// What of the schema decided, for the record.
    fn fingerprint(&self, work: &PreparedRepair) -> String;
}

/// The name of the write of a repair.
const REPAIR: &str = "repair";

impl PreparedRepair<'_> {
    /// Says who counts, where `code` is what of `table` is code of its owner.
    pub(super) fn read_with(&self, table: &Table, code: &[String], others: &[u32], problems: &mut Problems) {
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

    pub(super) fn run(&self, strategy: &dyn RepairStrategy) -> Result<Repaired, Problem> {
        let (before, parents) = {
            let _reading = reading();
            let _memory = Memory::read()?.for_joins(self.pass.width());
            (self.tally(&strategy.judged(self))?, strategy.parents(self)?)
        };
        let mut result = self.outcome(&before);
        let rests_on = self.reference.declaration.as_ref();
        let rests_on = rests_on.map(|declaration| format!("the reference is one that was declared: {declaration}"));
        if !self.request.mode.is_real() {
            result.created = parents;
            result.note = joined(joined(result.note, strategy.note(self, Mode::Dry)?), rests_on);
            return Ok(result);
        }
        let (run, mut result) = interpret::run(self.session, self.program(strategy), |done| {
            let progress = done.progress;
            let mut result = self.outcome(&progress.found.counts.reasons);
            result.repaired = match strategy.change(self).1 {
                // Rows that are repaired now are no violations any more.
                Change::Created => progress.settled,
                _ => progress.written(REPAIR),
            };
            if strategy.change(self).1 == Change::Created {
                result.created = progress.written(REPAIR);
            }
            result.violations = result.repaired + result.reasons.total();
            result.note = joined(joined(result.note, strategy.note(self, Mode::Real)?), rests_on);
            let record = self.record(strategy, &result);
            Ok((result, record))
        })?;
        result.run_id = Some(run);
        Ok(result)
    }

    /// Rows are written until none is left that could be, and then they must hold.
    fn program<'p>(&'p self, strategy: &'p dyn RepairStrategy) -> Program<'p> {
        let (table, change) = strategy.change(self);
        let judged = || Reading::Reasons(strategy.judged(self));
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
            statement: Box::new(|_, _| strategy.write(self)),
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
            |progress| match strategy.contradicted(self, progress.run) {
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

    fn record(&self, strategy: &dyn RepairStrategy, result: &Repaired) -> Record {
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
                "root": self.resolver.root().map(record::qualified),
                "parents_created": result.created,
            }),
            statement: strategy.statement(self),
            counts: (
                0,
                result.repaired,
                result.reasons.to_json(),
                result.violations - result.repaired,
            ),
            note: result.note.clone(),
            fingerprint: strategy.fingerprint(self),
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
    pub(super) fn tally(&self, statement: &Statement) -> Result<Tally, Problem> {
        let _whole = pg::WholeFunctions::where_needed(self.calls_code.get());
        self.reader.get().run(|| query::tally(statement))
    }
}

fn joined(a: Option<String>, b: Option<String>) -> Option<String> {
    let parts: Vec<String> = a.into_iter().chain(b).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
