//! Which rows of a table a call has written, and for which of its rules.
//!
//! A row carries the id of its last writer only (xmin). Where two rules of a call write the same table, the second would hide which rows
//! are the first one's. So each later write is done in parts, one for the rows of every combination of rules before it, each under an id
//! of its own: from the id of a row one can always tell which rules have written it.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;

use super::Session;
use super::execute::{count_at, settings};
use super::ledger;
use super::query;
use super::steps::Origin;
use crate::pg::{self, Instant, WholeFunctions};
use crate::plan::Share;
use crate::plan::fill::{correct, may_correct, sources_change};
use crate::plan::program::Trace;
use crate::plan::{Blueprint, Counts, Moment, Versions};
use crate::problem::Problem;

/// One part of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which rows: those of this share of what was written before; `None`: of no share.
    pub of: Option<usize>,
    /// The id under which they are now.
    pub id: u32,
}

/// The ids under which one rule writes, part by part.
pub struct WrittenParts<'a> {
    before: &'a [Share],
    /// Rows of no share are written as well.
    others: bool,
    done: Vec<Part>,
}

impl<'a> WrittenParts<'a> {
    /// * `before`: the shares of the table.
    pub fn of(before: &'a [Share]) -> Self {
        WrittenParts {
            before,
            others: true,
            done: vec![],
        }
    }

    /// Only rows of these shares are written.
    pub fn of_these(shares: &'a [Share]) -> Self {
        WrittenParts {
            others: false,
            ..WrittenParts::of(shares)
        }
    }

    /// Runs `write` once per part; returns how many rows all of them wrote.
    ///
    /// Errors: those of `write`.
    pub fn each(&mut self, mut write: impl FnMut(&Versions) -> Result<i64, Problem>) -> Result<i64, Problem> {
        if self.before.is_empty() && self.others {
            let rows = write(&Versions::All)?;
            self.wrote(None, pg::current_transaction_id());
            return Ok(rows);
        }
        // A rule that writes in several passes can come to a row again.
        let ids_of = |done: &[Part], share: usize| {
            let mut ids = self.before[share].ids.clone();
            ids.extend(done.iter().filter(|w| w.of == Some(share)).map(|w| w.id));
            ids
        };
        let mut rows = 0;
        for share in 0..self.before.len() {
            let ids = ids_of(&self.done, share);
            rows += self.part(Some(share), || write(&Versions::WrittenAs(ids)))?;
        }
        if !self.others {
            return Ok(rows);
        }
        let all = (0..self.before.len()).flat_map(|share| ids_of(&self.done, share));
        let all = Versions::NotWrittenAs(all.collect());
        rows += self.part(None, || write(&all))?;
        Ok(rows)
    }

    /// Runs `write` once per part that was written: with the ids of its rows.
    ///
    /// Errors: those of `write`.
    pub fn again(&mut self, mut write: impl FnMut(&[u32]) -> Result<i64, Problem>) -> Result<(), Problem> {
        let parts: BTreeSet<Option<usize>> = self.done.iter().map(|write| write.of).collect();
        for of in parts {
            let ids: Vec<u32> = self.done.iter().filter(|w| w.of == of).map(|w| w.id).collect();
            match self.before.is_empty() {
                true => {
                    write(&ids)?;
                    self.wrote(of, pg::current_transaction_id());
                }
                false => {
                    self.part(of, || write(&ids))?;
                }
            }
        }
        Ok(())
    }

    /// One part, under an id of its own.
    fn part(&mut self, of: Option<usize>, write: impl FnOnce() -> Result<i64, Problem>) -> Result<i64, Problem> {
        let (rows, id) = as_one(write)?;
        if let Some(id) = id {
            self.wrote(of, id);
        }
        Ok(rows)
    }

    fn wrote(&mut self, of: Option<usize>, id: u32) {
        let write = Part { of, id };
        if !self.done.contains(&write) {
            self.done.push(write);
        }
    }

    /// Keeps what `run` wrote, to be found again.
    ///
    /// Errors: those of SPI only.
    pub fn keep(&self, run: i64, trace: &Trace) -> Result<(), Problem> {
        for part in &self.done {
            let mut runs = match trace.created {
                true => vec![run],
                false => runs_after(self.before, part, run),
            };
            runs.retain(|run| Some(*run) != trace.forgets);
            ledger::wrote(run, trace.table.oid, trace.column, part.id, &runs)?;
        }
        Ok(())
    }

    /// The ids so far.
    pub fn ids(&self) -> Vec<u32> {
        self.done.iter().map(|write| write.id).collect()
    }

    /// What was done.
    pub fn done(self) -> Vec<Part> {
        self.done
    }
}

/// Runs `write` in a subtransaction; rows, and the id under which it wrote, if it wrote any.
///
/// Errors: those of `write`.
pub fn as_one(write: impl FnOnce() -> Result<i64, Problem>) -> Result<(i64, Option<u32>), Problem> {
    pg::subtransaction(AssertUnwindSafe(|| {
        let rows = write()?;
        Ok((rows, (rows > 0).then(pg::current_transaction_id)))
    }))
}

/// The runs whose values the rows of this part hold after it was written.
fn runs_after(before: &[Share], write: &Part, run: i64) -> Vec<i64> {
    let earlier = write.of.and_then(|of| before.get(of));
    let mut runs = earlier.map(|share| share.runs.clone()).unwrap_or_default();
    if !runs.contains(&run) {
        runs.push(run);
    }
    runs
}

/// Rows of a table that the same runs have written.
#[derive(Debug, Clone)]
struct Known {
    share: Share,
    /// Those of the rules whose values are looked at again.
    rules: BTreeSet<usize>,
}

/// What one rule of a call wrote.
struct Written<'a> {
    blueprint: Blueprint<'a>,
    run: i64,
    rows: i64,
    /// Rows where nothing could be compared, as the caller was told.
    unguarded: i64,
    /// May it be put right in place?
    correctable: bool,
}

/// How what was written looks some time later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// All of it says what its sources say.
    Holds,
    /// All of it is there, and some sources have changed.
    Stale,
    /// It is not what was counted.
    Differs,
}

/// What a call wrote so far, rule by rule.
#[derive(Default)]
pub struct WrittenRows<'a> {
    rules: Vec<Written<'a>>,
    shares: HashMap<u32, Vec<Known>>,
}

impl<'a> WrittenRows<'a> {
    /// The shares of a table.
    pub fn shares_of(&self, table: u32) -> Vec<Share> {
        let known = self.shares.get(&table).into_iter().flatten();
        known.map(|known| known.share.clone()).collect()
    }

    /// A rule wrote rows.
    ///
    /// * `run`: its run.
    /// * `counts`: as its caller is told.
    pub fn add(&mut self, blueprint: &Blueprint<'a>, run: i64, writes: &[Part], counts: &Counts, origin: Origin) {
        let rule = match origin {
            Origin::Own => None,
            Origin::Derived { in_place } => {
                self.rules.push(Written {
                    blueprint: blueprint.clone(),
                    run,
                    rows: counts.filled,
                    unguarded: counts.unguarded,
                    correctable: in_place && may_correct(blueprint),
                });
                Some(self.rules.len() - 1)
            }
        };
        let known = self.shares.entry(blueprint.table.oid).or_default();
        let before = known.clone();
        let shares: Vec<Share> = before.iter().map(|known| known.share.clone()).collect();
        for write in writes {
            let earlier = write.of.and_then(|of| before.get(of));
            let mut rules = earlier.map(|known| known.rules.clone()).unwrap_or_default();
            rules.extend(rule);
            let runs = runs_after(&shares, write, run);
            match known.iter_mut().find(|k| k.rules == rules && k.share.runs == runs) {
                Some(known) => known.share.ids.push(write.id),
                None => known.push(Known {
                    share: Share {
                        ids: vec![write.id],
                        runs,
                    },
                    rules,
                }),
            }
        }
    }

    /// Several rules wrote: what the first ones did can have become stale while the later ones went on.
    pub fn may_be_stale(&self) -> bool {
        self.rules.len() > 1
    }

    /// Looks at all that was written, as of one moment: the rules that do not hold.
    ///
    /// * `again`: some of it was put right since it was counted.
    fn look(&self, session: &Session, again: bool) -> Result<Vec<(usize, Look)>, Problem> {
        let now = Instant::now();
        let mut found = vec![];
        for (rule, written) in self.rules.iter().enumerate().filter(|(_, written)| written.rows > 0) {
            pgrx::check_for_interrupts!();
            let shares = self.shares.get(&written.blueprint.table.oid).into_iter().flatten();
            let of_rule = shares.filter(|known| known.rules.contains(&rule));
            let blueprint = Blueprint {
                written_as: of_rule.flat_map(|known| known.share.ids.iter().copied()).collect(),
                ..written.blueprint.clone()
            };
            let (counts, numbers) = count_at(session, &blueprint, Moment::After, Some(&now))?;
            let look = match numbers.written == written.rows {
                false => Look::Differs,
                true if numbers.proved != numbers.written => Look::Stale,
                true if again && counts.unguarded != written.unguarded => Look::Differs,
                true => Look::Holds,
            };
            if look != Look::Holds {
                found.push((rule, look));
            }
        }
        Ok(found)
    }

    /// Proves everything as of one moment after the last write, and puts right what sources have changed since.
    ///
    /// * `most`: how often.
    ///
    /// Errors: 40001 where something cannot be put right in place, or changes again each time.
    pub fn prove(&mut self, session: &Session, most: usize) -> Result<(), Problem> {
        let mut failed = 0;
        for pass in 0..most {
            let found = self.look(session, pass > 0)?;
            let Some((first, _)) = found.first() else {
                return Ok(());
            };
            failed = *first;
            for (rule, look) in found {
                if look == Look::Differs || !self.rules[rule].correctable {
                    return Err(sources_change(&self.rules[rule].blueprint));
                }
                self.correct(session, rule)?;
            }
        }
        Err(sources_change(&self.rules[failed].blueprint))
    }

    fn correct(&mut self, session: &Session, rule: usize) -> Result<(), Problem> {
        let Written { blueprint, run, .. } = &self.rules[rule];
        let known = self.shares.get_mut(&blueprint.table.oid).into_iter().flatten();
        for Known { share, .. } in known.filter(|known| known.rules.contains(&rule)) {
            let (_, id) = as_one(|| {
                let _settings = settings(false);
                let _whole = WholeFunctions::where_needed(blueprint.asks_user_code());
                query::update(&correct(blueprint, &session.caller, &share.ids))
            })?;
            if let Some(id) = id {
                let column = Some(blueprint.column.number);
                ledger::wrote(*run, blueprint.table.oid, column, id, &share.runs)?;
                share.ids.push(id);
            }
        }
        Ok(())
    }
}
