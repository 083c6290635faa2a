//! Which rows of a table a call has written, and for which of its rules.
//!
//! A row carries the id of its last writer only (xmin). Where two rules of a call write the same table, the second would hide which rows
//! are the first one's. So each later write is done in parts, one for the rows of every combination of rules before it, each under an id
//! of its own: from the id of a row one can always tell which rules have written it.

use std::collections::{BTreeSet, HashMap};

use super::Session;
use super::count::count_at;
use super::ledger;
use super::query;
use super::surroundings::settings;
use super::written_parts::{Part, as_one, runs_after};
use crate::pg::{Instant, WholeFunctions};
use crate::plan::Share;
use crate::plan::fill::{correct, may_correct, sources_change};
use crate::plan::{Blueprint, Counts, Moment};
use crate::problem::Problem;

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

/// Where the values that a step wrote come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From nowhere else: a row has it for itself.
    Own,
    /// From rows that others may change; then they are put right in place, or the call begins anew.
    Derived {
        /// Nothing else that was counted hangs on them.
        in_place: bool,
    },
}
