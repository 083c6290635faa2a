//! One reference that a path can follow.

use crate::catalog::State;

/// One reference that a path can follow.
#[derive(Debug, Clone)]
pub(super) struct ReferenceEdge {
    pub(super) columns: Vec<i16>,
    pub(super) parent: u32,
    pub(super) key: Vec<i16>,
    pub(super) not_null: bool,
    pub(super) cascades: bool,
    pub(super) state: State,
}
