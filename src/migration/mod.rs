//! A script against the catalog: how far it got, what it would do now, how to take back the half.
//!
//! ```text
//! expected     what the script makes of the database, statement by statement: objects, their names, what is said of them; pure
//! actual    what is there under these names
//! compare   is what is there what was written?
//! lookup    what is there under a name of the script
//! matching  does what is there fit what the script says of an object?
//! score     how well does it fit?
//! explain   what speaks against each number of steps
//! prefix    the number of steps that explains what is there
//! judge     which object is which thing that is there; which claims hold
//! depend    who depends on what
//! again     what running it once more would raise
//! drift     several scripts in order, and where they contradict each other
//! rehearse  the script run for real, statement by statement, and taken back
//! reset     what the script made, taken back where that loses nothing
//! root      the table of the tenants and that of their members, made where they are missing
//! status    a state for each step
//! sum       what the states come to, and the next call
//! shown     what is there, as results show it
//! ```

pub mod actual;
pub mod compare;
mod depend;
pub mod drift;
pub mod expected;
mod explain;
pub mod judge;
pub mod line;
mod lookup;
mod matching;
mod prefix;
pub mod rehearse;
mod rerun;
pub mod reset;
pub mod root;
mod score;
mod shown;
pub mod status;
mod summary;

use std::collections::BTreeSet;

use crate::problem::Problem;
use crate::run::Session;
use crate::script::ScriptStatement;
use actual::ActualSchema;
use expected::ExpectedSchema;

/// What a script says and what is there.
pub struct Compared {
    /// Its statements.
    pub steps: Vec<ScriptStatement>,
    /// What they make of the database.
    pub expected: ExpectedSchema,
    /// What is there.
    pub actual: ActualSchema,
}

/// Where new objects go: what Postgres searches by itself is no such place.
fn path_of(session: &Session) -> Vec<String> {
    // Unless the caller says where it comes in.
    let said = session.search_path().contains("pg_catalog");
    let all = session.catalog.search_path.iter();
    all.filter(|name| (said || *name != "pg_catalog") && !name.starts_with("pg_temp"))
        .cloned()
        .collect()
}

/// What things are called in a script, without looking at anything.
fn names_in(steps: &[ScriptStatement], path: &[String]) -> BTreeSet<String> {
    let empty = ActualSchema::empty(path.to_vec());
    let blind = ExpectedSchema::of(steps, &empty);
    let mut names: BTreeSet<String> = BTreeSet::new();
    for object in &blind.objects {
        names.extend(object.names.iter().map(|(_, _, name)| name.clone()));
    }
    for effects in &blind.effects {
        for need in &effects.needs {
            match need {
                expected::Need::Function(name) => {
                    names.insert(name.name.clone());
                }
                expected::Need::Type(name) => {
                    names.insert(name.text.rsplit('.').next().unwrap_or_default().to_string());
                }
                _ => {}
            }
        }
    }
    names
}

/// Reads a script and the catalog.
///
/// Errors: those of `script::read` and of SPI.
pub fn compared(session: &Session, script: &str) -> Result<Compared, Problem> {
    let steps = crate::script::read(script)?;
    let path = path_of(session);
    let actual = ActualSchema::load(&names_in(&steps, &path), path)?;
    let expected = ExpectedSchema::of(&steps, &actual);
    Ok(Compared {
        steps,
        expected,
        actual,
    })
}
