//! Several rules in one transaction, in order: what `backfill_party_ids` and `backfill_tenant_ids` have in common.

use std::cell::Cell;

use super::attempts::attempts;
use super::execute::Written;
use super::{Outcome, Session, execute};
use crate::pg::{self, Instant};
use crate::plan::{Blueprint, Overlays};
use crate::problem::Problem;

/// One rule of several.
#[derive(Clone)]
pub struct Step<'a> {
    /// Ready to be counted.
    pub blueprint: Blueprint<'a>,
    /// Nothing can be written, only counted.
    pub count_only: bool,
    /// Stands instead of the note that the numbers would get.
    pub instead_of_note: Option<String>,
    /// Stands in front of it.
    pub before_note: Option<String>,
}

/// How far a sequence of steps is: what those that follow must know of it.
pub struct Sequence<'a> {
    session: &'a Session,
    dry_run: bool,
    /// In a dry run: the tables as they would be by now.
    pub overlays: Overlays,
    /// In a real run: the ids under which rows were written.
    pub touched: Vec<u32>,
    /// In a real run: what was written, to be looked at again at the end.
    written: Vec<Written<'a>>,
}

impl<'a> Sequence<'a> {
    /// Nothing was done yet.
    pub fn new(session: &'a Session, dry_run: bool) -> Self {
        Sequence {
            session,
            dry_run,
            overlays: Overlays::default(),
            touched: vec![],
            written: vec![],
        }
    }

    /// What is known of the database.
    pub fn session(&self) -> &'a Session {
        self.session
    }

    /// Nothing is written.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Runs one step, or counts what it would do; in a dry run it sees what the steps before it would have written.
    ///
    /// Errors: those of the step.
    pub fn step(&mut self, mut step: Step<'a>) -> Result<Outcome, Problem> {
        pgrx::check_for_interrupts!();
        let mut outcome = if self.dry_run {
            step.blueprint.overlays = std::mem::take(&mut self.overlays);
            let outcome = execute::dry(self.session, &mut step.blueprint, true)?;
            self.overlays = std::mem::take(&mut step.blueprint.overlays);
            outcome
        } else if step.count_only {
            // A count is all there is to do, and no run to record.
            Outcome {
                dry_run: false,
                ..execute::dry(self.session, &mut step.blueprint, false)?
            }
        } else {
            step.blueprint.touched.extend(&self.touched);
            self.will_write(step.blueprint.table.oid, step.blueprint.column.number)?;
            let outcome = execute::real(self.session, &step.blueprint)?;
            self.wrote(&step.blueprint, outcome.transaction, outcome.counts.filled);
            outcome
        };
        if let Some(note) = step.instead_of_note {
            outcome.note = Some(note);
        }
        if let Some(before) = step.before_note {
            let rest = outcome.note.map(|note| format!("; {note}")).unwrap_or_default();
            outcome.note = Some(format!("{before}{rest}"));
        }
        Ok(outcome)
    }
}

impl<'a> Sequence<'a> {
    /// A column is about to be written. (Rows of the same column are none that were written before: those are set.)
    ///
    /// Errors: those of SPI only.
    pub fn will_write(&mut self, table: u32, column: i16) -> Result<(), Problem> {
        let session = self.session;
        let before = self.written.iter_mut();
        for written in before.filter(|w| w.blueprint.table.oid == table && w.blueprint.column.number != column) {
            let now = Instant::now();
            written.give_way(session, &now)?;
        }
        Ok(())
    }

    /// Rows of a table were written under this id.
    ///
    /// * `rows`: how many; none are nothing to look at again.
    pub fn wrote(&mut self, blueprint: &Blueprint<'a>, transaction: Option<u32>, rows: i64) {
        self.touched.extend(transaction);
        if let Some(transaction) = transaction.filter(|_| rows > 0) {
            self.written.push(Written {
                blueprint: blueprint.clone(),
                transaction,
                rows,
                disagreed: None,
            });
        }
    }

    /// Looks at all that was written again, as of one moment after the last write. What one step has proved, others may have changed
    /// while the later ones went on.
    ///
    /// Errors: 40001 or 27000 where something does not say what its sources say; `again` is set then.
    fn prove(&self, again: &Cell<bool>) -> Result<(), Problem> {
        // A single one was proved after its last write.
        if self.written.len() < 2 {
            return Ok(());
        }
        let now = Instant::now();
        for written in &self.written {
            pgrx::check_for_interrupts!();
            if !written.holds(self.session, &now)? {
                again.set(true);
                return Err(written.changed());
            }
        }
        Ok(())
    }
}

/// Runs several steps as one: in a real run everything that was written is proved at the end, and what does not hold is begun anew.
///
/// * `steps`: runs them, from the first one on.
///
/// Errors: those of the steps; nothing of any of them is left then.
pub fn together<'a, T>(
    session: &'a Session,
    dry_run: bool,
    mut steps: impl FnMut(&mut Sequence<'a>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    if dry_run {
        return steps(&mut Sequence::new(session, true));
    }
    execute::may_write()?;
    attempts(&[], |again| {
        // With an id of its own, each statement sees what is committed by then.
        pg::current_transaction_id();
        let mut sequence = Sequence::new(session, false);
        let result = steps(&mut sequence)?;
        sequence.prove(again)?;
        Ok(result)
    })
}

/// Runs every step, or counts what it would do.
///
/// Errors: those of the steps; nothing of any of them is left then.
pub(super) fn run(session: &Session, steps: Vec<Step>, dry_run: bool) -> Result<Vec<Outcome>, Problem> {
    together(session, dry_run, |sequence| {
        steps.iter().map(|step| sequence.step(step.clone())).collect()
    })
}
