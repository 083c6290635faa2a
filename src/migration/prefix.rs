//! The number of steps that explains what is there with the fewest contradictions.
//!
//! Each name and each property of the script is a small history: from which step to which step it is taken, or has which value. What is
//! there contradicts every number of steps after which it would be otherwise; the numbers that are contradicted least are the answer. What
//! is so whether a step was run or not contradicts nothing: that something is absent is no evidence by itself.

use std::collections::BTreeMap;

/// How many steps of the script, from the first one on, explain what is there: between these two, nothing tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// At least so many.
    pub least: usize,
    /// At most so many.
    pub most: usize,
}

/// Something is not there, or not so. It outweighs any number of hints.
pub const ABSENT: i64 = 2 << 24;
/// Something is there that only a step makes: nobody does that by chance.
pub const THERE: i64 = 3 << 24;
/// A file is run as a whole, unless more than one step shows that it was not: that one thing is absent has simpler reasons.
const HALF_A_FILE: i64 = THERE;
/// What is so might have been so before.
pub const HINT: i64 = 1;

/// Of the steps of one file, the first counts for the file, the others for so much less.
const FURTHER: i64 = 1 << 12;

/// Which numbers of steps what is there speaks against.
pub struct Votes<'f> {
    /// The script of each step, where there are several.
    files: &'f [usize],
    /// By file or step, and weight, so that each counts once, however much it says: first and last number of steps.
    against: BTreeMap<(Unit, i64), Vec<(usize, usize)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    File(usize),
    Step(usize),
}

impl<'f> Votes<'f> {
    /// Nothing speaks against any number yet.
    ///
    /// * `files`: the script of each step, where there are several, each run as a whole; else empty.
    pub fn new(files: &'f [usize]) -> Self {
        let mut votes = Votes {
            files,
            against: BTreeMap::new(),
        };
        for (at, _) in files.windows(2).enumerate().filter(|(_, pair)| pair[0] == pair[1]) {
            votes.against(at, HALF_A_FILE, at + 1, at + 1);
        }
        votes
    }

    /// That exactly `from..=to` steps were run is contradicted by what `step` says.
    pub fn against(&mut self, step: usize, weight: i64, from: usize, to: usize) {
        if from > to {
            return;
        }
        let mut count = |unit: Unit, weight: i64| self.against.entry((unit, weight)).or_default().push((from, to));
        match self.files.get(step) {
            Some(file) => {
                count(Unit::File(*file), weight);
                // How much of a file is absent says nothing: a later one that drops some of it was not run for that.
                if weight != ABSENT {
                    count(Unit::Step(step), weight / FURTHER);
                }
            }
            None => count(Unit::Step(step), weight),
        }
    }

    /// * `steps`: how many there are.
    pub fn result(self, steps: usize) -> Prefix {
        let mut changes = vec![0; steps + 2];
        for ((_, weight), mut spans) in self.against {
            spans.sort_unstable();
            let mut end = 0;
            for (from, to) in spans {
                let from = from.max(end);
                if from <= to {
                    changes[from] += weight;
                    changes[to + 1] -= weight;
                    end = to + 1;
                }
            }
        }
        let mut sum = 0;
        let costs: Vec<i64> = changes[..=steps]
            .iter()
            .map(|change| {
                sum += change;
                sum
            })
            .collect();
        let best = costs.iter().min();
        Prefix {
            least: costs.iter().position(|cost| Some(cost) == best).unwrap_or(0),
            most: costs.iter().rposition(|cost| Some(cost) == best).unwrap_or(steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_contradicted_number_of_steps_is_taken() {
        // Five steps: the second makes something that is there, the fourth something that is not.
        let mut votes = Votes::new(&[]);
        votes.against(1, THERE, 0, 1);
        votes.against(3, ABSENT, 4, 5);
        // The same step counts once, whatever else it says.
        votes.against(3, ABSENT, 4, 5);
        assert_eq!(votes.result(5), Prefix { least: 2, most: 3 });
    }

    #[test]
    fn what_is_there_outweighs_what_is_absent() {
        let mut votes = Votes::new(&[]);
        votes.against(0, ABSENT, 1, 3);
        votes.against(2, THERE, 0, 2);
        assert_eq!(votes.result(3), Prefix { least: 3, most: 3 });
        let mut hint = Votes::new(&[]);
        hint.against(0, HINT, 0, 0);
        hint.against(1, ABSENT, 1, 2);
        assert_eq!(hint.result(2), Prefix { least: 0, most: 0 });
    }

    #[test]
    fn files_are_run_as_a_whole_unless_two_things_say_otherwise() {
        // Two files of two steps; of the second one, the first step is there and the second is not.
        let files = [0, 0, 1, 1];
        let mut votes = Votes::new(&files);
        votes.against(1, THERE, 0, 1);
        votes.against(2, THERE, 0, 2);
        votes.against(3, ABSENT, 4, 4);
        assert_eq!(votes.result(4), Prefix { least: 4, most: 4 });
        // Nothing speaks of the second file: whether it was run is open, half of it is not.
        let mut votes = Votes::new(&files);
        votes.against(1, THERE, 0, 1);
        assert_eq!(votes.result(4), Prefix { least: 2, most: 4 });
    }
}
