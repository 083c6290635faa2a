//! What others wrote is believed only where they had the right: state tables, records, run ids, declarations; and nobody can hold the
//! locks of runs.

use pgrx_tests::database;
use pgrx_tests::example::{failure, lines, one};

use super::role;
