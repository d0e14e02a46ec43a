//! An entry: one version of one key, `(user key, seq, kind) -> value`.
//!
//! Entries are ordered by user key ascending, bytewise, and then by sequence number *descending*, so that the newest
//! version of a key comes first and "the newest as of a snapshot" is the first one that is not too new.

use crate::codec::defect::{Defect, seeded};
use crate::codec::{SeqNo, Slice};

/// The number of a table, and of its file. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TableId(pub(crate) u64);

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a version says about its key. A range tombstone, which says something of many, is none: see
/// [`super::Fragments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The key has this value, until `expires_at` (milliseconds since 1970) if given.
    Put { expires_at: Option<u64> },
    /// As [`Kind::Put`], but the value is in a blob file: what stands in its place is a [`super::blob::Pointer`]. Only
    /// tables have such entries, and only compaction sees them; a reader gets the value.
    PutFar { expires_at: Option<u64> },
    /// The key was deleted; the value is empty.
    Tombstone,
}

impl Kind {
    /// When the value expires, if there is one at `now`: neither deleted nor expired.
    pub(crate) fn expiry(self, now: u64) -> Option<Option<u64>> {
        match self {
            Kind::Put { expires_at } | Kind::PutFar { expires_at } => {
                let now = if seeded(Defect::ExpiryLate) { now.saturating_sub(1) } else { now };
                expires_at.is_none_or(|at| at > now).then_some(expires_at)
            }
            Kind::Tombstone => None,
        }
    }
}

/// A version found by a point read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) seq: SeqNo,
    pub(crate) kind: Kind,
    pub(crate) value: Slice,
}

impl Version {
    /// What a tombstone over many keys says of each.
    pub(crate) fn deleted(seq: SeqNo) -> Version {
        Version { seq, kind: Kind::Tombstone, value: Slice::default() }
    }
}
