//! Carries out programs: the only place where a real run locks, writes, proves, begins anew and is recorded.

use std::cell::Cell;

use super::attempts::attempts;
use super::count::{classified, count_at};
use super::ledger;
use super::query;
use super::reader::Reader;
use super::record::{self, Record};
use super::session::Session;
use super::surroundings::{lock, may_write, settings};
use super::written_parts::{Part, WrittenParts};
use crate::pg::{self, Instant, Settings, Watch, WholeFunctions};
use crate::plan::kept::Change;
use crate::plan::program::{
    Attempt, Found, Keep, Mark, Parts, Program, Progress, Reading, Repeat, Step, Surroundings, Trace, Verdict, Verify,
    Write,
};
use crate::plan::{Blueprint, Counts};
use crate::problem::Problem;

/// What a program came to.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Its numbers.
    pub progress: Progress,
    /// What each write wrote, part by part.
    pub parts: Vec<(&'static str, Part)>,
}

impl Done {
    /// The parts of the write of this name.
    pub fn parts_of(&self, name: &str) -> Vec<Part> {
        let parts = self.parts.iter().filter(|(of, _)| *of == name);
        parts.map(|(_, part)| *part).collect()
    }
}

/// Carries out a program as a run of its own, and records it.
///
/// * `finish`: from what it came to, what the caller is told and what is recorded.
///
/// Returns the id of the run and what `finish` made.
///
/// Errors: those of [`may_write`], of its statements and its checks: nothing of it is left then.
pub fn run<T>(
    session: &Session,
    program: Program,
    finish: impl FnOnce(Done) -> Result<(T, Record), Problem>,
) -> Result<(i64, T), Problem> {
    may_write()?;
    let started = record::clock()?;
    if let Some(table) = program.lock {
        lock(session, table);
    }
    let id = ledger::open(session, program.operation, &program.object, &started)?;
    let done = carry_out(session, program, id)?;
    let (told, record) = finish(done)?;
    ledger::close(id, &record)?;
    Ok((id, told))
}

fn carry_out(session: &Session, program: Program, id: i64) -> Result<Done, Problem> {
    let _hash = by_hash(program.surroundings.joins_by_hash);
    let _whole = WholeFunctions::where_needed(program.surroundings.calls_user_code);
    let mut interpreter = Interpreter {
        session,
        reader: Reader::of_role(program.surroundings.reader),
    };
    let mut frame = Frame::of(id);
    let retry = Cell::new(false);
    interpreter.steps(&program.steps, &mut frame, &retry)?;
    frame.keep()?;
    Ok(Done {
        progress: frame.progress,
        parts: frame.done,
    })
}

fn by_hash(asked: bool) -> Option<Settings> {
    asked.then(|| Settings::push(&[("enable_nestloop", "off")]))
}

/// Whether a step is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// On to the next one.
    On,
    /// More rows have turned up: once more from the start of the repetition.
    Again,
}

/// One attempt: what it did is forgotten with it.
struct Frame<'p> {
    progress: Progress,
    /// What its writes wrote, with how that is found again.
    written: Vec<(&'static str, WrittenParts<'p>, Vec<Trace<'p>>)>,
    done: Vec<(&'static str, Part)>,
    /// The instant before the first write.
    before: Option<Instant>,
}

impl Frame<'_> {
    fn of(run: i64) -> Self {
        Frame {
            progress: Progress {
                run,
                ..Progress::default()
            },
            written: vec![],
            done: vec![],
            before: None,
        }
    }

    /// Keeps under which ids rows were written.
    fn keep(&mut self) -> Result<(), Problem> {
        for (name, written, traces) in std::mem::take(&mut self.written) {
            for trace in &traces {
                written.keep(self.progress.run, trace)?;
            }
            self.done.extend(written.done().into_iter().map(|part| (name, part)));
        }
        Ok(())
    }
}

struct Interpreter<'s> {
    session: &'s Session,
    reader: Reader,
}

impl Interpreter<'_> {
    /// * `retry`: set where it fails and another attempt may help.
    fn steps<'p>(&mut self, steps: &[Step<'p>], frame: &mut Frame<'p>, retry: &Cell<bool>) -> Result<Flow, Problem> {
        for step in steps {
            pgrx::check_for_interrupts!();
            let flow = match step {
                Step::Hold(statement) => {
                    let _settings = settings(false);
                    query::update(statement)?;
                    Flow::On
                }
                Step::Define(statement) => {
                    let _settings = settings(false);
                    // It may name what is not there any more, or not yet.
                    let _pause = Watch::pause();
                    query::update(statement)?;
                    Flow::On
                }
                Step::Count(read) => {
                    let reading = read(&frame.progress);
                    self.look(reading, &mut frame.progress)?;
                    Flow::On
                }
                Step::Remember => {
                    frame.before = Some(Instant::now());
                    Flow::On
                }
                Step::Write(write) => {
                    self.write(write, frame)?;
                    Flow::On
                }
                Step::Mark(mark) => {
                    let marked = self.mark(mark, frame.progress.run)?;
                    frame.progress.add("marked", &[marked]);
                    Flow::On
                }
                Step::Verify(verify) => self.verify(verify, frame, retry)?,
                Step::Repeat(repeat) => self.repeat(repeat, frame, retry)?,
                Step::Attempt(attempt) => self.attempt(attempt, frame)?,
            };
            if flow == Flow::Again {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn attempt<'p>(&mut self, attempt: &Attempt<'p>, outer: &mut Frame<'p>) -> Result<Flow, Problem> {
        let mut frame = attempts(&attempt.others, |retry| {
            // With an id of its own, each statement of this attempt sees what is committed by then, not what was when the call began.
            pg::current_transaction_id();
            let mut frame = Frame::of(outer.progress.run);
            self.steps(&attempt.steps, &mut frame, retry)?;
            frame.keep()?;
            // It ends with the attempt's subtransaction.
            frame.before = None;
            Ok(frame)
        })?;
        for (name, numbers) in &frame.progress.totals {
            outer.progress.add(name, numbers);
        }
        for (name, ids) in &frame.progress.ids {
            outer.progress.ids.entry(name).or_default().extend(ids);
        }
        outer.progress.found = frame.progress.found.clone();
        outer.progress.refused = outer.progress.refused.or(frame.progress.refused);
        outer.progress.settled += frame.progress.settled;
        outer.progress.wrote(frame.progress.rows);
        outer.done.append(&mut frame.done);
        Ok(Flow::On)
    }

    fn repeat<'p>(&mut self, repeat: &Repeat<'p>, frame: &mut Frame<'p>, retry: &Cell<bool>) -> Result<Flow, Problem> {
        for _ in 0..repeat.most {
            frame.progress.corrections = 0;
            if self.steps(&repeat.steps, frame, retry)? == Flow::On {
                return Ok(Flow::On);
            }
        }
        self.judged((repeat.exhausted)(), retry)
    }

    /// A verdict that needs nothing more to be done.
    fn judged(&self, verdict: Verdict, retry: &Cell<bool>) -> Result<Flow, Problem> {
        match verdict {
            Verdict::Anew(problem) => {
                retry.set(true);
                Err(problem)
            }
            Verdict::Wrong(problem) => Err(problem),
            Verdict::More => Ok(Flow::Again),
            Verdict::Proved | Verdict::Refused(_) | Verdict::Stale | Verdict::Contradicted { .. } => Ok(Flow::On),
        }
    }

    fn write<'p>(&mut self, write: &Write<'p>, frame: &mut Frame<'p>) -> Result<(), Problem> {
        let at = match frame.written.iter().position(|(name, ..)| *name == write.name) {
            Some(at) => at,
            None => {
                let parts = match write.parts {
                    Parts::Whole => WrittenParts::of(&[]),
                    Parts::ByShare(shares) => WrittenParts::of(shares),
                    Parts::Only(shares) => WrittenParts::of_these(shares),
                };
                frame.written.push((write.name, parts, write.traces.clone()));
                frame.written.len() - 1
            }
        };
        let (progress, written) = (&frame.progress, &mut frame.written[at].1);
        let mut numbers: Vec<i64> = vec![0];
        written.write_each(|versions| {
            let statement = (write.statement)(progress, versions);
            let _settings = settings(false);
            let _hash = by_hash(write.by_hash);
            let counted = match &write.keep {
                Keep::Nothing => vec![query::update(&statement)?],
                Keep::Undone => vec![ledger::mark_undone(progress.run, &statement)?],
                Keep::Changes { change, columns } => {
                    self.keep(progress.run, *change, write, columns.as_deref(), &statement)?
                }
            };
            if numbers.len() < counted.len() {
                numbers.resize(counted.len(), 0);
            }
            numbers
                .iter_mut()
                .zip(&counted)
                .for_each(|(sum, number)| *sum += number);
            Ok(counted.first().copied().unwrap_or(0))
        })?;
        frame.progress.ids.insert(write.name, frame.written[at].1.ids());
        frame.progress.add(write.name, &numbers);
        frame.progress.wrote(numbers[0]);
        frame.progress.numbers = numbers;
        Ok(())
    }

    fn keep(
        &self,
        run: i64,
        change: Change,
        write: &Write,
        columns: Option<&[String]>,
        statement: &crate::plan::Statement,
    ) -> Result<Vec<i64>, Problem> {
        let _own = Settings::of_one_statement();
        ledger::keep(run, change, &record::qualified(write.table), columns, statement)
    }

    fn mark(&self, mark: &Mark, run: i64) -> Result<i64, Problem> {
        match mark {
            Mark::Reversed => ledger::keep_reversed(run).map(|()| 0),
            Mark::Deleted { of, table } => ledger::mark_deleted(run, *of, table),
            Mark::MadeAgain { of, table } => ledger::mark_made_again(run, *of, table),
        }
    }

    /// Reads; what was found before is there to be compared with.
    fn look(&mut self, reading: Reading, progress: &mut Progress) -> Result<(), Problem> {
        let found = match reading {
            Reading::Nothing => {
                progress.found.numbers.clear();
                return Ok(());
            }
            Reading::Classified(blueprint, moment) => classified(self.session, &blueprint, moment)?,
            Reading::Reasons(statement) => {
                let _settings = settings(false);
                Found {
                    counts: Counts {
                        reasons: self.reader.run(|| query::tally(&statement))?,
                        ..Counts::default()
                    },
                    ..Found::default()
                }
            }
            Reading::Numbers(statement) => {
                let _settings = settings(false);
                progress.found.numbers = query::numbers(&statement)?;
                return Ok(());
            }
            Reading::Computed(read) => read()?,
        };
        progress.before = std::mem::replace(&mut progress.found, found);
        Ok(())
    }

    fn verify<'p>(&mut self, verify: &Verify<'p>, frame: &mut Frame<'p>, retry: &Cell<bool>) -> Result<Flow, Problem> {
        loop {
            let reading = (verify.read)(&frame.progress);
            if let Reading::Reasons(_) = reading {
                self.look(reading, &mut frame.progress)?;
                let (before, found) = (&frame.progress.before.counts, &frame.progress.found.counts);
                // Rows that others add meanwhile are none that were settled less.
                frame.progress.settled += (before.reasons.total() - found.reasons.total()).max(0);
            } else {
                self.look(reading, &mut frame.progress)?;
            }
            if frame.progress.corrections > 0
                && let Some((name, _)) = &verify.correct
            {
                // Rows whose sources no longer give a value are NULL again.
                let gone = frame.progress.before.written - frame.progress.found.written;
                frame.progress.add(name, &[-gone]);
            }
            match (verify.judge)(&frame.progress) {
                Verdict::Stale => self.correct(verify, frame)?,
                Verdict::Contradicted { again: helps } => {
                    retry.set(helps);
                    return Err(self.contradicted(verify, frame));
                }
                Verdict::Refused(rows) => {
                    frame.progress.refused = Some(rows);
                    return Ok(Flow::On);
                }
                verdict => {
                    let flow = self.judged(verdict, retry)?;
                    let numbers = frame.progress.found.numbers.clone();
                    frame.progress.add(verify.name, &numbers);
                    return Ok(flow);
                }
            }
        }
    }

    fn correct<'p>(&mut self, verify: &Verify<'p>, frame: &mut Frame<'p>) -> Result<(), Problem> {
        frame.progress.corrections += 1;
        let Some((name, correct)) = &verify.correct else {
            return Ok(());
        };
        for (of, written, _) in frame.written.iter_mut().filter(|(of, ..)| of == name) {
            written.rewrite_each(|ids| {
                let _settings = settings(false);
                query::update(&correct(ids))
            })?;
            frame.progress.ids.insert(of, written.ids());
        }
        Ok(())
    }

    /// What was written does not say what its sources say now. Where it did not say what they said before either, it was a trigger.
    fn contradicted(&self, verify: &Verify, frame: &Frame) -> Problem {
        let Some([by_others, by_trigger]) = &verify.contradiction else {
            return super::prepare::internal("a contradiction without a name");
        };
        let (Some(before), Reading::Classified(blueprint, moment)) = (&frame.before, (verify.read)(&frame.progress))
        else {
            return by_others();
        };
        before.with_own_writes();
        match count_at(self.session, &blueprint, moment, Some(before)) {
            Ok((_, numbers)) if numbers.written == numbers.proved => by_others(),
            Ok(_) => by_trigger(),
            Err(problem) => problem,
        }
    }
}

/// The surroundings of a rule's statements.
pub fn surroundings(blueprint: &Blueprint) -> Surroundings {
    Surroundings {
        calls_user_code: blueprint.asks_user_code(),
        joins_by_hash: false,
        reader: blueprint.reader,
    }
}
