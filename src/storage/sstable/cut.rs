//! A cut: a place between user keys, never between two versions of one key. Where an iterator starts.

use std::ops::Bound;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Before(Vec<u8>),
    After(Vec<u8>),
    End,
}

impl Cut {
    /// The cut that has everything within the lower bound behind it.
    pub(super) fn lower(bound: Bound<&[u8]>) -> Cut {
        match bound {
            Bound::Included(key) => Cut::Before(key.to_vec()),
            Bound::Excluded(key) => Cut::After(key.to_vec()),
            Bound::Unbounded => Cut::Before(Vec::new()),
        }
    }

    /// The cut that has everything within the upper bound before it.
    pub(super) fn upper(bound: Bound<&[u8]>) -> Cut {
        match bound {
            Bound::Included(key) => Cut::After(key.to_vec()),
            Bound::Excluded(key) => Cut::Before(key.to_vec()),
            Bound::Unbounded => Cut::End,
        }
    }

    /// Whether the cut lies before `key`.
    pub(super) fn precedes(&self, key: &[u8]) -> bool {
        match self {
            Cut::Before(cut) => cut.as_slice() <= key,
            Cut::After(cut) => cut.as_slice() < key,
            Cut::End => false,
        }
    }
}
