//! Migration scripts: what they did, would do, and how to take back the half.

mod corpus;
mod generate;
mod property;
