//! What the database looks like, for people: tables of findings and pictures. Reads only.

pub mod dead_columns;
pub mod migration;
mod party_columns;
pub mod tenant_columns;
pub mod tenant_map;
