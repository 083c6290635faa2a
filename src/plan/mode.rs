//! What a call is to do with what it finds.

/// How far a call goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Rows are counted as they are: nothing can be written, so nothing that would be in its way is asked.
    Count,
    /// What a real run would write is counted, and what would refuse it.
    #[default]
    Dry,
    /// Written, proved, recorded.
    Real,
}

impl Mode {
    /// As SQL says it: `dry_run => true`.
    pub fn of(dry_run: bool) -> Mode {
        match dry_run {
            true => Mode::Dry,
            false => Mode::Real,
        }
    }

    /// Is something written?
    pub fn is_real(self) -> bool {
        self == Mode::Real
    }

    /// Are rows only counted?
    pub fn is_count(self) -> bool {
        self == Mode::Count
    }

    /// This, or counting only where nothing can be written.
    pub fn only_if(self, can_be_written: bool) -> Mode {
        match can_be_written {
            true => self,
            false => Mode::Count,
        }
    }
}
