//! The example database.
