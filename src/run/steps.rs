//! Several rules in one transaction, in order: what `backfill_party_ids` and `backfill_tenant_ids` have in common.

use std::cell::Cell;

use super::attempts::attempts;
use super::surroundings::may_write;
use super::written::{Origin, WrittenRows};
use super::written_parts::Part;
use super::{Outcome, Session, execute};
use crate::pg;
use crate::plan::Share;
use crate::plan::program::PASSES;
use crate::plan::{Blueprint, Mode, Overlays};
use crate::problem::Problem;

/// One rule of several.
#[derive(Clone)]
pub struct RuleStep<'a> {
    /// Ready to be counted.
    pub blueprint: Blueprint<'a>,
    /// [`Mode::Count`] where nothing can be written; else as the whole call.
    pub mode: Mode,
    /// Stands instead of the note that the numbers would get.
    pub instead_of_note: Option<String>,
    /// Stands in front of it.
    pub before_note: Option<String>,
}

/// How far a sequence of steps is: what those that follow must know of it.
pub struct RuleSequence<'a> {
    session: &'a Session,
    mode: Mode,
    /// In a dry run: the tables as they would be by now.
    pub overlays: Overlays,
    /// In a real run: the ids under which rows were written.
    pub touched: Vec<u32>,
    /// In a real run: what was written, to be looked at again at the end.
    written: WrittenRows<'a>,
}

impl<'a> RuleSequence<'a> {
    /// Nothing was done yet.
    pub fn new(session: &'a Session, mode: Mode) -> Self {
        RuleSequence {
            session,
            mode,
            overlays: Overlays::default(),
            touched: vec![],
            written: WrittenRows::default(),
        }
    }

    /// What is known of the database.
    pub fn session(&self) -> &'a Session {
        self.session
    }

    /// Is something written?
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Runs one step, or counts what it would do; in a dry run it sees what the steps before it would have written.
    ///
    /// Errors: those of the step.
    pub fn step(&mut self, mut step: RuleStep<'a>) -> Result<Outcome, Problem> {
        pgrx::check_for_interrupts!();
        let mut outcome = if !self.mode.is_real() {
            step.blueprint.overlays = std::mem::take(&mut self.overlays);
            let outcome = execute::simulate_run(self.session, &mut step.blueprint, true)?;
            self.overlays = std::mem::take(&mut step.blueprint.overlays);
            outcome
        } else if step.mode.is_count() {
            // A count is all there is to do, and no run to record.
            Outcome {
                dry_run: false,
                ..execute::simulate_run(self.session, &mut step.blueprint, false)?
            }
        } else {
            step.blueprint.touched.extend(&self.touched);
            let before = self.shares_of(step.blueprint.table.oid);
            let outcome = execute::execute_run(self.session, &step.blueprint, &before)?;
            let origin = Origin::Derived { in_place: true };
            self.wrote(&step.blueprint, &outcome, &outcome.parts, origin);
            outcome
        };
        if let Some(note) = step.instead_of_note {
            outcome.notes = vec![note];
        }
        outcome.first.extend(step.before_note);
        Ok(outcome)
    }
}

impl<'a> RuleSequence<'a> {
    /// What was written of a table so far, in shares, see [`Part`].
    pub fn shares_of(&self, table: u32) -> Vec<Share> {
        self.written.shares_of(table)
    }

    /// Rows of a table were written.
    ///
    /// * `outcome`: what the caller is told.
    /// * `origin`: what becomes of the values when others change what they come from.
    pub fn wrote(&mut self, blueprint: &Blueprint<'a>, outcome: &Outcome, writes: &[Part], origin: Origin) {
        self.touched.extend(writes.iter().map(|write| write.id));
        if let Some(run) = outcome.run_id {
            self.written.add(blueprint, run, writes, &outcome.counts, origin);
        }
    }

    /// Proves all that was written, as of one moment after the last write. What one step has proved, others may have changed while the
    /// later ones went on: it is put right in place where that can be done.
    ///
    /// Errors: 40001 where something does not say what its sources say; `again` is set then.
    fn prove(&mut self, retry: &Cell<bool>) -> Result<(), Problem> {
        // A single one was proved after its last write.
        if !self.written.may_be_stale() {
            return Ok(());
        }
        self.written
            .prove(self.session, PASSES)
            .inspect_err(|_| retry.set(true))
    }
}

/// Runs several steps as one: in a real run everything that was written is proved at the end, and what does not hold is begun anew.
///
/// * `steps`: runs them, from the first one on.
///
/// Errors: those of the steps; nothing of any of them is left then.
pub fn together<'a, T>(
    session: &'a Session,
    mode: Mode,
    mut steps: impl FnMut(&mut RuleSequence<'a>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    if !mode.is_real() {
        return steps(&mut RuleSequence::new(session, mode));
    }
    may_write()?;
    attempts(&[], |retry| {
        // With an id of its own, each statement sees what is committed by then.
        pg::current_transaction_id();
        let mut sequence = RuleSequence::new(session, mode);
        let result = steps(&mut sequence)?;
        sequence.prove(retry)?;
        Ok(result)
    })
}

/// Runs every step, or counts what it would do.
///
/// Errors: those of the steps; nothing of any of them is left then.
pub(super) fn run(session: &Session, steps: Vec<RuleStep>, mode: Mode) -> Result<Vec<Outcome>, Problem> {
    together(session, mode, |sequence| {
        steps.iter().map(|step| sequence.step(step.clone())).collect()
    })
}
