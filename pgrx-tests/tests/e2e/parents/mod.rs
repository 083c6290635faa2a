//! `backfill_parents`: missing parents are created and linked.

mod property;
