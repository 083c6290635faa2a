//! How well what is there fits what a script says of an object.

use std::cmp::Ordering;

/// How well something fits: what does not, and whether the script makes it at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    differs: usize,
    made: bool,
}

impl Score {
    /// Nothing was compared yet.
    ///
    /// * `made`: the script makes it.
    pub fn of(made: bool) -> Self {
        Score { differs: 0, made }
    }

    /// One more thing was compared.
    pub fn expect(&mut self, fits: bool) {
        self.differs += usize::from(!fits);
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        other.differs.cmp(&self.differs).then(self.made.cmp(&other.made))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
