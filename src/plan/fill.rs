//! The program of a backfill: written, read back, written again where more turned up, put right where sources changed meanwhile.

use std::rc::Rc;

use pgrx::PgSqlErrorCode;

use super::kept::Change;
use super::program::{Attempt, Keep, PASSES, Parts, Progress, Reading, Repeat, Step, Trace, Verdict, Verify, Write};
use super::{Blueprint, Moment, Share, Statement, Versions};
use crate::problem::Problem;
use crate::settings::CallersSettings;

/// The name of its write.
pub const FILL: &str = "fill";

/// May what a rule wrote be corrected in place, where its sources changed meanwhile? Correcting writes a row a second time: a trigger may
/// have changed what its value was derived from, and a foreign key that is NOT VALID would be checked now. Nor can it put back a value
/// that it replaced. There, everything is rolled back and begun anew instead.
pub fn may_correct(blueprint: &Blueprint) -> bool {
    blueprint.details.triggers.is_empty()
        && !blueprint.overwrites()
        && blueprint
            .catalog
            .foreign_keys_of(blueprint.table.oid)
            .all(|key| key.validated || !key.enforced)
}

/// Fills the target column of a rule.
///
/// * `caller`: settings under which its code runs.
/// * `before`: what the call has written of the table before.
pub fn fill<'p>(blueprint: &Blueprint<'p>, caller: &CallersSettings, before: &'p [Share]) -> Step<'p> {
    let rule = Rc::new(blueprint.clone());
    let mut steps = vec![];
    if !rule.details.triggers.is_empty() {
        steps.push(Step::Remember);
    }
    steps.push(Step::Repeat(Repeat {
        most: match rule.settles_in_levels() {
            true => usize::MAX,
            false => PASSES,
        },
        steps: vec![
            Step::Write(write(&rule, caller, before)),
            Step::Verify(verify(&rule, caller)),
        ],
        exhausted: {
            let rule = rule.clone();
            Box::new(move || Verdict::Wrong(never_pauses(&rule)))
        },
    }));
    // Whoever writes the same rows in another order can deadlock with us. The same where what was written cannot be corrected in place.
    Step::Attempt(Attempt { others: vec![], steps })
}

fn write<'p>(rule: &Rc<Blueprint<'p>>, caller: &CallersSettings, before: &'p [Share]) -> Write<'p> {
    let statement = {
        let (rule, caller) = (rule.clone(), caller.clone());
        move |_: &Progress, versions: &Versions| complete(&rule, &caller, versions)
    };
    Write {
        name: FILL,
        table: rule.table,
        parts: Parts::ByShare(before),
        keep: match rule.overwrites() {
            true => Keep::Changes {
                change: Change::Replaced,
                columns: None,
            },
            false => Keep::Nothing,
        },
        traces: vec![Trace {
            table: rule.table,
            column: Some(rule.column.number),
            created: false,
            forgets: None,
        }],
        by_hash: false,
        statement: Box::new(statement),
    }
}

/// The UPDATE with what it keeps: its numbers are the rows and, where the rule overwrites, those that had another value.
fn complete(rule: &Blueprint, caller: &CallersSettings, versions: &Versions) -> Statement {
    let write = rule.write(versions);
    match rule.overwrites() {
        true => rule.keeping_old_values(write.under_callers_settings(&caller.with_exact_texts())),
        false => write.under_callers_settings(caller),
    }
}

fn verify<'p>(rule: &Rc<Blueprint<'p>>, caller: &CallersSettings) -> Verify<'p> {
    let read = {
        let rule = rule.clone();
        move |progress: &Progress| {
            let written = Blueprint {
                written_as: progress.ids_of(FILL),
                ..(*rule).clone()
            };
            Reading::Classified(Box::new(written), Moment::After)
        }
    };
    let judged = rule.clone();
    let (stale, by_trigger, corrected) = (rule.clone(), rule.clone(), rule.clone());
    let caller = caller.clone();
    Verify {
        correct: Some((FILL, Box::new(move |ids| correct(&corrected, &caller, ids)))),
        contradiction: Some([
            Box::new(move || sources_change(&stale)),
            Box::new(move || trigger_changes(&by_trigger)),
        ]),
        ..Verify::new("proof", read, move |progress| judge(&judged, progress))
    }
}

/// Puts right what was written under these ids.
pub fn correct(rule: &Blueprint, caller: &CallersSettings, ids: &[u32]) -> Statement {
    let written = Blueprint {
        written_as: ids.to_vec(),
        ..rule.clone()
    };
    written.correct().under_callers_settings(caller)
}

fn judge(rule: &Blueprint, progress: &Progress) -> Verdict {
    let found = &progress.found;
    let triggers = !rule.details.triggers.is_empty();
    if found.written != found.counts.filled {
        return match may_correct(rule) {
            true if progress.corrections < PASSES => Verdict::Stale,
            correctable => Verdict::Contradicted { again: !correctable },
        };
    }
    let expected = progress.written(FILL);
    match (found.written == expected, found.left) {
        (false, _) => Verdict::Wrong(does_not_reconcile(rule, expected, found.written)),
        (true, 0) => Verdict::Proved,
        // Nobody else is writing them, and neither can we: a BEFORE trigger returns NULL.
        (true, left) if triggers && progress.idle == 2 => Verdict::Refused(left),
        (true, _) if progress.idle == PASSES => Verdict::Wrong(never_pauses(rule)),
        (true, _) => Verdict::More,
    }
}

/// What a caller is told where sources change, time and again.
pub fn sources_change(rule: &Blueprint) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!(
            "the sources of {} change faster than they can be read",
            rule.target_shown()
        ),
    )
    .hint("run it again at a quieter time")
}

fn never_pauses(rule: &Blueprint) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!(
            "other sessions write to {} faster than it can be filled",
            rule.target_shown()
        ),
    )
    .detail(format!(
        "after {PASSES} passes there still were new rows to fill; nothing was written"
    ))
    .hint("run it again at a quieter time, or LOCK TABLE ... IN SHARE MODE first in the same transaction")
}

fn trigger_changes(rule: &Blueprint) -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
        format!(
            "a trigger changes the values that are written to {}",
            rule.target_shown()
        ),
    )
    .detail(format!(
        "read back, they are not what the sources say; triggers on UPDATE: {}; nothing was written",
        rule.details.triggers.join(", ")
    ))
    .hint("ALTER TABLE ... DISABLE TRIGGER ... for the backfill, in the same transaction")
}

/// What was counted is not what was expected.
pub fn does_not_reconcile(rule: &Blueprint, expected: i64, found: i64) -> Problem {
    let triggers = &rule.details.triggers;
    let (code, triggers) = match triggers.is_empty() {
        true => (PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "none".to_string()),
        false => (
            PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
            triggers.join(", "),
        ),
    };
    Problem::new(
        code,
        format!(
            "the numbers of {} do not reconcile; nothing was written",
            rule.target_shown()
        ),
    )
    .detail(format!(
        "expected {expected} rows, reading back finds {found}; triggers on UPDATE: {triggers}"
    ))
    .hint("a trigger that writes or deletes the same rows must be disabled for the backfill")
}
