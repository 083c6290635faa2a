//! End-to-end tests: real clients against a real cluster, for what a transaction that is rolled back cannot show.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod property;
