//! Range tombstones as they are looked up: cut into *fragments* that do not overlap, each with the positions of all
//! tombstones that cover it.
//!
//! ```text
//! written     a...............h  @9            fragments   a..c @9   c..f @9,7   f..h @9,7,4   h..k @4
//!                 c...........h  @7
//!                         f...........k  @4
//! ```
//!
//! A key lies in one fragment or in none, so that one binary search tells the newest tombstone over it as of any
//! position. A range tombstone is a version of every key that it covers: a version is hidden by a newer one.

use std::sync::Arc;

use super::end::End;
use crate::codec::SeqNo;

/// An end of a fragment; neighbours share it.
pub(crate) type Edge = Arc<[u8]>;

/// What one takes besides its bytes: two counts of references.
const EDGE_BYTES: usize = 2 * size_of::<usize>();

/// Keys that the same range tombstones cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) start: Edge,
    /// Not included; `None`: to the last key.
    pub(crate) end: Option<Edge>,
    /// Newest first, at least one.
    pub(crate) seqs: Vec<SeqNo>,
}

impl Fragment {
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && !self.precedes(key)
    }

    /// Whether it ends in front of `key`.
    fn precedes(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_some_and(|end| **end <= *key)
    }

    /// The newest of its tombstones at or below `as_of`.
    pub(crate) fn newest(&self, as_of: SeqNo) -> Option<SeqNo> {
        self.seqs.iter().copied().find(|seq| *seq <= as_of)
    }

    /// What it takes in memory, besides itself.
    pub(crate) fn bytes(&self) -> usize {
        let ends = self.end.iter().fold(EDGE_BYTES + self.start.len(), |all, end| all + EDGE_BYTES + end.len());
        ends + self.seqs.capacity() * size_of::<SeqNo>()
    }

    /// About how long it is in a table.
    pub(crate) fn encoded_len(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, |end| end.len()) + self.seqs.len() * size_of::<SeqNo>()
    }

    /// What of it lies in `start..end`.
    pub(crate) fn within(&self, start: &[u8], end: Option<&[u8]>) -> Option<Fragment> {
        let start = if *self.start < *start { Edge::from(start) } else { self.start.clone() };
        let end = match (&self.end, end) {
            (Some(own), Some(end)) if **own > *end => Some(Edge::from(end)),
            (None, Some(end)) => Some(Edge::from(end)),
            (own, _) => own.clone(),
        };
        end.as_ref().is_none_or(|end| start < *end).then(|| Fragment { start, end, seqs: self.seqs.clone() })
    }
}

/// Keys between two places where what covers them changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Edge,
    /// Not included; `None`: to the last key.
    pub(crate) end: Option<Edge>,
    /// The newest tombstone over all of them.
    pub(crate) newest: Option<SeqNo>,
}

impl Span {
    /// All keys, and nothing covers them.
    pub(crate) fn bare() -> Span {
        Span { start: Edge::default(), end: None, newest: None }
    }

    #[inline]
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// The keys in both, and the newer of their tombstones.
    pub(crate) fn both(&self, other: &Span) -> Span {
        let start = (&self.start).max(&other.start).clone();
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (a, b) => a.as_ref().or(b.as_ref()).cloned(),
        };
        Span { start, end, newest: self.newest.max(other.newest) }
    }
}

/// Fragments in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragments(Vec<Fragment>);

impl Fragments {
    pub(crate) const NONE: Fragments = Fragments(Vec::new());

    /// `list` ascending, without overlaps.
    pub(crate) fn new(list: Vec<Fragment>) -> Fragments {
        debug_assert!(list.windows(2).all(|pair| pair[0].precedes(&pair[1].start)), "{list:?}");
        Fragments(list)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they take in memory, besides themselves.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Fragment>() + self.iter().map(Fragment::bytes).sum::<usize>()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Fragment> {
        self.0.iter()
    }

    pub(crate) fn first(&self) -> Option<&Fragment> {
        self.0.first()
    }

    pub(crate) fn last(&self) -> Option<&Fragment> {
        self.0.last()
    }

    pub(crate) fn into_vec(self) -> Vec<Fragment> {
        self.0
    }

    /// How many tombstones, those over several fragments counted in each.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|fragment| fragment.seqs.len() as u64).sum()
    }

    /// The newest tombstone over `key` at or below `as_of`.
    pub(crate) fn newest(&self, key: &[u8], as_of: SeqNo) -> Option<SeqNo> {
        self.0.get(self.at(key)).filter(|fragment| fragment.contains(key))?.newest(as_of)
    }

    /// What is known of `key` and those around it, as of a position.
    pub(crate) fn span(&self, key: &[u8], as_of: SeqNo) -> Span {
        let at = self.at(key);
        match self.0.get(at) {
            Some(fragment) if fragment.contains(key) => {
                Span { start: fragment.start.clone(), end: fragment.end.clone(), newest: fragment.newest(as_of) }
            }
            next => {
                let before = at.checked_sub(1).and_then(|before| self.0[before].end.clone());
                Span { start: before.unwrap_or_default(), end: next.map(|next| next.start.clone()), newest: None }
            }
        }
    }

    /// A position at or below `as_of` such that a tombstone of that or a newer one covers each key from `start` to `end`.
    pub(crate) fn cover(&self, start: &[u8], end: &End, as_of: SeqNo) -> Option<SeqNo> {
        let mut next = start;
        let mut oldest = SeqNo::MAX;
        for fragment in &self.0[self.at(start)..] {
            if *fragment.start > *next {
                return None;
            }
            oldest = oldest.min(fragment.newest(as_of)?);
            match &fragment.end {
                // All up to the bound is covered.
                Some(bound) if *end > End::before(Some(bound)) => next = bound,
                _ => return Some(oldest),
            }
        }
        None
    }

    /// The first fragment that does not end in front of `key`.
    fn at(&self, key: &[u8]) -> usize {
        self.0.partition_point(|fragment| fragment.precedes(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(start: &str, end: &str, seqs: &[u64]) -> Fragment {
        let end = (!end.is_empty()).then(|| Edge::from(end.as_bytes()));
        Fragment { start: Edge::from(start.as_bytes()), end, seqs: seqs.iter().copied().map(SeqNo).collect() }
    }

    fn some() -> Fragments {
        Fragments::new(vec![
            fragment("b", "d", &[9, 4]),
            fragment("d", "f", &[7]),
            fragment("h", "k", &[5]),
            fragment("m", "", &[8]),
        ])
    }

    #[test]
    fn one_fragment_tells_all_about_a_key() {
        let newest = |key: &str, as_of| some().newest(key.as_bytes(), SeqNo(as_of)).map(|seq| seq.0);
        assert_eq!((newest("a", 99), newest("b", 99), newest("c", 8), newest("c", 3)), (None, Some(9), Some(4), None));
        assert_eq!((newest("d", 99), newest("f", 99), newest("zz", 99)), (Some(7), None, Some(8)));
        for key in ["", "a", "b", "c\0", "d", "f", "g", "h", "k", "l", "m", "z"] {
            for as_of in 3..10 {
                let span = some().span(key.as_bytes(), SeqNo(as_of));
                assert!(span.contains(key.as_bytes()), "{key}: {span:?}");
                assert_eq!(span.newest.map(|seq| seq.0), newest(key, as_of));
            }
        }
        let gap = some().span(b"g", SeqNo(9));
        assert_eq!((&*gap.start, gap.end.as_deref()), (&b"f"[..], Some(&b"h"[..])));
    }

    #[test]
    fn a_range_is_covered_if_every_key_of_it_is() {
        let cover = |start: &str, end: End, as_of| some().cover(start.as_bytes(), &end, SeqNo(as_of)).map(|seq| seq.0);
        let with = |key: &str| End::With(key.as_bytes().to_vec().into());
        let before = |key: &str| End::before(Some(key.as_bytes()));
        assert_eq!(cover("b", before("f"), 9), Some(7));
        assert_eq!(cover("b", with("e"), 9), Some(7));
        assert_eq!(cover("b", with("c"), 9), Some(9));
        assert_eq!(cover("b", before("d"), 8), Some(4));
        assert_eq!(cover("b", with("f"), 9), None, "the end is not included");
        assert_eq!(cover("a", with("c"), 9), None);
        assert_eq!(cover("e", with("i"), 9), None, "a gap");
        assert_eq!(cover("n", End::Never, 9), Some(8));
        assert_eq!(cover("i", End::Never, 9), None);
        assert_eq!(cover("n", End::Never, 7), None, "too new");
        assert_eq!(Fragments::default().cover(b"a", &with("a"), SeqNo(9)), None);
    }

    #[test]
    fn a_fragment_is_cut_to_a_range() {
        let all = fragment("b", "", &[3]);
        assert_eq!(all.within(b"a", Some(b"c")), Some(fragment("b", "c", &[3])));
        assert_eq!(all.within(b"d", None), Some(fragment("d", "", &[3])));
        assert_eq!(all.within(b"a", Some(b"b")), None);
        assert_eq!(fragment("b", "d", &[3]).within(b"d", None), None);
    }
}
