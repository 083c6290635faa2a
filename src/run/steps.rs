//! Several rules in one transaction, in order: what `backfill_party_ids` and `backfill_tenant_ids` have in common.

use super::{Outcome, Session, execute};
use crate::plan::{Blueprint, Overlays};
use crate::problem::Problem;

/// One rule of several.
pub(super) struct Step<'a> {
    pub(super) blueprint: Blueprint<'a>,
    /// Nothing can be written, only counted.
    pub(super) count_only: bool,
    /// Stands instead of the note that the numbers would get.
    pub(super) instead_of_note: Option<String>,
    /// Stands in front of it.
    pub(super) before_note: Option<String>,
}

/// Runs every step, or counts what it would do. In a dry run each step sees what the steps before it would have written.
///
/// Errors: those of the steps; nothing of any of them is left then.
pub(super) fn run(session: &Session, steps: Vec<Step>, dry_run: bool) -> Result<Vec<Outcome>, Problem> {
    let mut overlays = Overlays::default();
    let mut outcomes = Vec::new();
    let mut touched: Vec<u32> = Vec::new();
    for mut step in steps {
        pgrx::check_for_interrupts!();
        let mut outcome = if dry_run {
            step.blueprint.overlays = overlays;
            let outcome = execute::dry(session, &mut step.blueprint, true)?;
            overlays = std::mem::take(&mut step.blueprint.overlays);
            outcome
        } else if step.count_only {
            // A count is all there is to do, and no run to record.
            Outcome {
                dry_run: false,
                ..execute::dry(session, &mut step.blueprint, false)?
            }
        } else {
            step.blueprint.touched.extend(&touched);
            let outcome = execute::real(session, &step.blueprint)?;
            touched.extend(outcome.transaction);
            outcome
        };
        if let Some(note) = step.instead_of_note {
            outcome.note = Some(note);
        }
        if let Some(before) = step.before_note {
            let rest = outcome.note.map(|note| format!("; {note}")).unwrap_or_default();
            outcome.note = Some(format!("{before}{rest}"));
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
