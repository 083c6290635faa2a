//! A script against the catalog.

pub mod actual;
pub mod compare;
pub mod world;
