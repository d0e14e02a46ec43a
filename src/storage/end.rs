//! Where a run of keys ends: with a key that is there, before one that need not be, or nowhere. A table ends with its
//! last key, or where its last range tombstone does, which is *before* a key; the table behind it may begin with that.

use std::cmp::Ordering;

use crate::codec::Slice;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// This key is the last.
    With(Slice),
    /// All keys below this one belong to it.
    Before(Slice),
    /// There is no end.
    Never,
}

impl End {
    /// The end of a range whose bound is excluded; `None` is no bound.
    pub(crate) fn before(bound: Option<&[u8]>) -> End {
        bound.map_or(End::Never, |bound| End::Before(Slice::copy_from(bound)))
    }

    /// Whether the run ends in front of `key`: it has neither that nor any above it.
    #[inline]
    pub(crate) fn precedes(&self, key: &[u8]) -> bool {
        match self {
            End::With(last) => **last < *key,
            End::Before(bound) => **bound <= *key,
            End::Never => false,
        }
    }

    /// The key that it is told by.
    pub(crate) fn key(&self) -> Option<&Slice> {
        match self {
            End::With(key) | End::Before(key) => Some(key),
            End::Never => None,
        }
    }

    /// The first key behind it, to be used as an excluded bound. It may be longer than a key can be.
    pub(crate) fn bound(&self) -> Option<Vec<u8>> {
        match self {
            End::With(last) => Some([last, &[0][..]].concat()),
            End::Before(bound) => Some(bound.to_vec()),
            End::Never => None,
        }
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &End) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for End {
    fn cmp(&self, other: &End) -> Ordering {
        let included = |end: &End| matches!(end, End::With(_));
        match (self.key(), other.key()) {
            (Some(a), Some(b)) => a.cmp(b).then(included(self).cmp(&included(other))),
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_ordered_by_the_keys_they_leave_in() {
        let with = |key: &str| End::With(Slice::copy_from(key.as_bytes()));
        let before = |key: &str| End::before(Some(key.as_bytes()));
        let ascending = [before("a"), with("a"), before("a\0\0"), before("b"), with("b"), End::Never];
        assert!(ascending.is_sorted());
        for pair in ascending.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
        for end in &ascending {
            for key in ["", "a", "a\0", "a\0\0", "b", "c"] {
                let bound = end.bound();
                assert_eq!(
                    end.precedes(key.as_bytes()),
                    bound.is_some_and(|bound| *bound <= *key.as_bytes()),
                    "{end:?}"
                );
            }
        }
    }
}
