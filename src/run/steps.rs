//! Several rules in one transaction, in order: what `backfill_party_ids` and `backfill_tenant_ids` have in common.

use super::{Outcome, Session, execute};
use crate::plan::{Blueprint, Overlays};
use crate::problem::Problem;

/// One rule of several.
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
}

impl<'a> Sequence<'a> {
    /// Nothing was done yet.
    pub fn new(session: &'a Session, dry_run: bool) -> Self {
        Sequence {
            session,
            dry_run,
            overlays: Overlays::default(),
            touched: vec![],
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
    pub fn step(&mut self, mut step: Step) -> Result<Outcome, Problem> {
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
            let outcome = execute::real(self.session, &step.blueprint)?;
            self.touched.extend(outcome.transaction);
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

/// Runs every step, or counts what it would do.
///
/// Errors: those of the steps; nothing of any of them is left then.
pub(super) fn run(session: &Session, steps: Vec<Step>, dry_run: bool) -> Result<Vec<Outcome>, Problem> {
    let mut sequence = Sequence::new(session, dry_run);
    steps.into_iter().map(|step| sequence.step(step)).collect()
}
