//! Ratios against hand-written SQL, all measured in the same run on a throwaway cluster. Asserts nothing about time.
//!
//! ```text
//! dev/bench [ROWS ...]           one column; default: 100000 1000000 3000000
//! dev/bench tenants [ROWS ...]   tenant keys of a chain of tables, default: 1000000; and of a schema of 1,000 tables
//! dev/bench validate [ROWS ...]  all references of four tables, default: 5000000; and of a schema of 800 tables
//! dev/bench parents [ROWS ...]   missing parents, default: 100000
//! dev/bench scripts [N ...]      a migration script of N statements, default: 5000
//! MEND_ROUNDS=3                  rounds per measurement; the median is used
//! ```

mod backfill;
mod parents;
mod scripts;
mod tenants;
mod validate;

use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, Table};
use pgrx_tests::{Cluster, Options};

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let what = match arguments.first().map(String::as_str) {
        Some("tenants" | "validate" | "parents" | "scripts") => arguments.remove(0),
        _ => "backfill".into(),
    };
    let mut sizes: Vec<i64> = arguments.iter().map(|a| a.parse()).collect::<Result<_, _>>()?;
    if sizes.is_empty() {
        sizes = match what.as_str() {
            "tenants" => vec![1_000_000],
            "validate" => vec![5_000_000],
            "parents" => vec![100_000],
            "scripts" => vec![5_000],
            _ => vec![100_000, 1_000_000, 3_000_000],
        };
    }
    let rounds: usize = std::env::var("MEND_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let options = Options {
        settings: vec![
            "shared_buffers = '2GB'".into(),
            "max_wal_size = '16GB'".into(),
            "checkpoint_timeout = '1h'".into(),
            // Nothing may run beside what is measured.
            "autovacuum = off".into(),
        ],
        durable: true,
    };
    let cluster = Cluster::start(options)?;
    match what.as_str() {
        "tenants" => tenants::run(&cluster, &sizes, rounds),
        "validate" => validate::run(&cluster, &sizes, rounds),
        "parents" => parents::run(&cluster, &sizes, rounds),
        "scripts" => scripts::run(&cluster, &sizes, rounds),
        _ => backfill::run(&cluster, &sizes, rounds),
    }
}

/// The middle one, in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn show(mut table: Table) {
    for i in 0..table.column_count() {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}
