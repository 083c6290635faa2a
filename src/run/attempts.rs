//! Trying again what somebody else got in the way of.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use crate::pg;
use crate::problem::Problem;

/// How often something is tried before whoever called is told.
const ATTEMPTS: usize = 5;

/// Seconds of the first pause behind a deadlock; each further one is twice as long (0.75 s in all). Without it, what was let go of is
/// taken again before the other one has woken up.
const PAUSE: f64 = 0.05;

/// Runs `attempt` in a subtransaction, and begins anew where it fails for what others did: nothing of it is left then.
///
/// * `codes`: SQLSTATEs that others may have caused, besides a deadlock.
/// * `attempt`: sets the flag it is given where its failure is one to begin anew for.
///
/// Errors: those of the last attempt.
pub fn attempts<T>(
    codes: &[PgSqlErrorCode],
    mut attempt: impl FnMut(&Cell<bool>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let mut left = ATTEMPTS;
    let mut pause = PAUSE;
    loop {
        let retry = Cell::new(false);
        let result = pg::subtransaction(AssertUnwindSafe(|| attempt(&retry)));
        left -= 1;
        match &result {
            Err(problem) if left > 0 => {
                let deadlock = problem.code == PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED;
                if !(retry.get() || deadlock || codes.contains(&problem.code)) {
                    return result;
                }
                if deadlock {
                    give_way(pause)?;
                    pause *= 2.0;
                }
            }
            _ => return result,
        }
    }
}

fn give_way(seconds: f64) -> Result<(), Problem> {
    let sql = "SELECT pg_catalog.pg_sleep($1)";
    Ok(Spi::connect(|client| {
        client.select(sql, None, &[seconds.into()]).map(|_| ())
    })?)
}
