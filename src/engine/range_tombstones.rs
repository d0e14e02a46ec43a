//! Range tombstones being gathered: those of a memtable as they are written, and those of a compaction's inputs.
//!
//! They are kept as fragments ([`crate::storage::Fragments`]) from the first moment: a new tombstone cuts those at its
//! ends in two and joins all between, and fills the gaps. So a look-up takes one search, whatever overlaps. Of the
//! positions over a fragment those stay that somebody can read: all above the retention floor, and the newest at or
//! below it; then neighbours that tell the same are made one, so that tombstones written again and again over the same
//! keys take no more room than one.
//!
//! **Taking back** is exact: a position that was let go had a newer one at or below the floor beside it, and the floor
//! never passes what can no longer fail.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::SeqNo;
use crate::storage::{Edge, Fragment, Fragments, Span};

/// What a fragment costs besides its ends and positions: its place in a tree that is between half full and full, and two
/// counts of references for each end.
const FRAGMENT_BYTES: usize = 3 * size_of::<(Edge, Piece)>() / 2 + 4 * size_of::<usize>();

/// A fragment without its start.
#[derive(Debug)]
struct Piece {
    end: Option<Edge>,
    /// Newest first.
    seqs: Vec<SeqNo>,
}

impl Piece {
    /// Bytes of its ends and positions. An end is about as long as the start.
    fn bytes(&self, start: &[u8]) -> usize {
        2 * start.len() + self.seqs.capacity() * size_of::<SeqNo>()
    }

    fn reaches_past(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| **end > *key)
    }

    fn newest(&self, as_of: SeqNo) -> Option<SeqNo> {
        self.seqs.iter().copied().find(|seq| *seq <= as_of)
    }

    /// Adds positions, and lets go of those that nobody at or above `floor` can read.
    fn add(&mut self, seqs: &[SeqNo], floor: SeqNo) {
        for seq in seqs {
            let at = self.seqs.partition_point(|other| other > seq);
            if self.seqs.get(at) != Some(seq) {
                self.seqs.insert(at, *seq);
            }
        }
        let above = self.seqs.partition_point(|seq| *seq > floor);
        self.seqs.truncate(above + 1);
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct RangeTombstones {
    /// By their starts; they do not overlap.
    pieces: BTreeMap<Edge, Piece>,
    /// All ends and positions.
    bytes: usize,
}

impl RangeTombstones {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.len() * FRAGMENT_BYTES + self.bytes
    }

    /// Adds the tombstones at `seqs` over `start..end`, which is not empty. Positions that nobody at or above `floor` can
    /// read are let go, there and nowhere else.
    pub(crate) fn add(&mut self, start: &[u8], end: Option<&[u8]>, seqs: &[SeqNo], floor: SeqNo) {
        self.cut(start);
        if let Some(end) = end {
            self.cut(end);
        }
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let mut gaps: Vec<(Edge, Option<Edge>)> = Vec::new();
        // The end of what has been dealt with; `None` behind the last key.
        let mut done = Some(Edge::from(start));
        for (at, piece) in self.pieces.range_mut::<[u8], _>(bounds) {
            gaps.extend(done.filter(|done| done < at).map(|done| (done, Some(at.clone()))));
            self.bytes -= piece.bytes(at);
            piece.add(seqs, floor);
            self.bytes += piece.bytes(at);
            done = piece.end.clone();
        }
        let end = end.map(Edge::from);
        gaps.extend(done.filter(|done| end.as_ref().is_none_or(|end| done < end)).map(|done| (done, end.clone())));
        for (start, end) in gaps {
            let mut piece = Piece { end, seqs: Vec::new() };
            piece.add(seqs, floor);
            self.insert(start, piece);
        }
        self.join(start, end.as_deref());
    }

    /// Makes two of a piece that has `key` inside.
    fn cut(&mut self, key: &[u8]) {
        let below = (Bound::Unbounded, Bound::Excluded(key));
        if let Some((_, piece)) = self.pieces.range_mut::<[u8], _>(below).next_back()
            && piece.reaches_past(key)
        {
            let key = Edge::from(key);
            let upper = Piece { end: piece.end.replace(key.clone()), seqs: piece.seqs.clone() };
            self.insert(key, upper);
        }
    }

    fn insert(&mut self, start: Edge, piece: Piece) {
        self.bytes += piece.bytes(&start);
        self.pieces.insert(start, piece);
    }

    /// Makes one of neighbours that tell the same, from the one before `start` to the one behind `end`.
    fn join(&mut self, start: &[u8], end: Option<&[u8]>) {
        let below = (Bound::Unbounded, Bound::Excluded(start));
        let first =
            self.pieces.range::<[u8], _>(below).next_back().map_or_else(|| Edge::from(start), |(at, _)| at.clone());
        let bounds = (Bound::Included(&*first), end.map_or(Bound::Unbounded, Bound::Included));
        let mut joined: Vec<Edge> = Vec::new();
        let mut last: Option<&mut Piece> = None;
        for (at, piece) in self.pieces.range_mut::<[u8], _>(bounds) {
            match &mut last {
                Some(last) if last.end.as_ref() == Some(at) && last.seqs == piece.seqs => {
                    last.end = piece.end.clone();
                    joined.push(at.clone());
                }
                _ => last = Some(piece),
            }
        }
        for at in joined {
            let gone = self.pieces.remove(&at);
            self.bytes -= gone.map_or(0, |piece| piece.bytes(&at));
        }
    }

    /// Takes back every tombstone above `after`.
    pub(crate) fn take_back(&mut self, after: SeqNo) {
        self.pieces.retain(|_, piece| {
            piece.seqs.retain(|seq| *seq <= after);
            !piece.seqs.is_empty()
        });
        self.bytes = self.pieces.iter().map(|(start, piece)| piece.bytes(start)).sum();
        self.join(b"", None);
    }

    fn at(&self, key: &[u8]) -> Option<(&Edge, &Piece)> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.pieces.range::<[u8], _>(upto).next_back()
    }

    /// The newest tombstone over `key` at or below `as_of`.
    pub(crate) fn newest(&self, key: &[u8], as_of: SeqNo) -> Option<SeqNo> {
        self.at(key).filter(|(_, piece)| piece.reaches_past(key))?.1.newest(as_of)
    }

    /// What is known of `key` and those around it, as of a position.
    pub(crate) fn span(&self, key: &[u8], as_of: SeqNo) -> Span {
        match self.at(key) {
            Some((start, piece)) if piece.reaches_past(key) => {
                Span { start: start.clone(), end: piece.end.clone(), newest: piece.newest(as_of) }
            }
            before => {
                let above = (Bound::Excluded(key), Bound::Unbounded);
                let next = self.pieces.range::<[u8], _>(above).next();
                Span {
                    start: before.and_then(|(_, piece)| piece.end.clone()).unwrap_or_default(),
                    end: next.map(|(at, _)| at.clone()),
                    newest: None,
                }
            }
        }
    }

    /// All of them, for whoever only looks.
    pub(crate) fn fragments(&self) -> Fragments {
        let fragment = |(start, piece): (&Edge, &Piece)| Fragment {
            start: start.clone(),
            end: piece.end.clone(),
            seqs: piece.seqs.clone(),
        };
        Fragments::new(self.pieces.iter().map(fragment).collect())
    }
}

/// Without the positions that nobody at or above `floor` can read.
pub(crate) fn readable(fragments: Fragments, floor: SeqNo) -> Fragments {
    if fragments.is_empty() {
        return fragments;
    }
    let mut all = RangeTombstones::default();
    for fragment in fragments.iter() {
        all.add(&fragment.start, fragment.end.as_deref(), &fragment.seqs, floor);
    }
    all.fragments()
}

/// Walks along fragments as of one position, with keys that ascend or descend: what it knew of the last key mostly holds
/// for the next one.
pub(crate) struct Cursor<'a> {
    fragments: &'a Fragments,
    as_of: SeqNo,
    span: Span,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(fragments: &'a Fragments, as_of: SeqNo) -> Cursor<'a> {
        Cursor { fragments, as_of, span: fragments.span(b"", as_of) }
    }

    /// What is known of `key` and those around it.
    #[inline]
    pub(crate) fn span(&mut self, key: &[u8]) -> &Span {
        if !self.span.contains(key) {
            self.span = self.fragments.span(key, self.as_of);
        }
        &self.span
    }

    /// The newest tombstone over `key`.
    #[inline]
    pub(crate) fn at(&mut self, key: &[u8]) -> Option<SeqNo> {
        self.span(key).newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Rng;

    fn told(tombstones: &RangeTombstones) -> String {
        let fragments = tombstones.fragments();
        let one = |fragment: &Fragment| {
            let text = |edge: &Edge| String::from_utf8_lossy(edge).into_owned();
            let seqs: Vec<String> = fragment.seqs.iter().map(SeqNo::to_string).collect();
            format!("{}..{}@{}", text(&fragment.start), fragment.end.as_ref().map_or("".into(), text), seqs.join(","))
        };
        fragments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn of(list: &[(&str, &str, u64)], floor: u64) -> RangeTombstones {
        let mut all = RangeTombstones::default();
        for (start, end, seq) in list {
            let end = (!end.is_empty()).then_some(end.as_bytes());
            all.add(start.as_bytes(), end, &[SeqNo(*seq)], SeqNo(floor));
        }
        all
    }

    #[test]
    fn tombstones_that_overlap_are_cut_where_one_begins_or_ends() {
        assert_eq!(told(&of(&[("f", "k", 4), ("c", "h", 7), ("a", "h", 9)], 0)), "a..c@9 c..f@9,7 f..h@9,7,4 h..k@4");
        assert_eq!(
            told(&of(&[("b", "d", 1), ("f", "", 2), ("a", "g", 3)], 0)),
            "a..b@3 b..d@3,1 d..f@3 f..g@3,2 g..@2"
        );
    }

    #[test]
    fn what_nobody_can_read_is_let_go_and_neighbours_that_tell_the_same_are_one() {
        let many = [("c", "d", 1), ("f", "g", 2), ("a", "z", 3), ("a", "z", 4)];
        assert_eq!(told(&of(&many, 0)), "a..c@4,3 c..d@4,3,1 d..f@4,3 f..g@4,3,2 g..z@4,3");
        assert_eq!(told(&of(&many, 3)), "a..z@4,3");
        assert_eq!(told(&of(&many, 9)), "a..z@4");
        assert_eq!(told(&of(&[("a", "b", 1), ("b", "c", 1)], 0)), "a..c@1");
    }

    #[test]
    fn taking_back_leaves_what_was_before() {
        let mut all = of(&[("b", "d", 1), ("c", "e", 2)], 1);
        all.add(b"a", Some(b"z"), &[SeqNo(3)], SeqNo(2));
        all.add(b"c", None, &[SeqNo(4)], SeqNo(2));
        all.take_back(SeqNo(2));
        assert_eq!(told(&all), "b..c@1 c..e@2", "what position 2 hid for good is not needed");
        all.take_back(SeqNo(0));
        assert!(all.is_empty());
    }

    /// A tombstone for each key apart.
    #[test]
    fn fragments_tell_what_a_naive_model_tells() {
        const KEYS: u64 = 12;
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut all = RangeTombstones::default();
            let mut model: Vec<Vec<u64>> = vec![Vec::new(); KEYS as usize];
            let (mut floor, mut seq) = (0, 0);
            for _ in 0..rng.below(40) {
                seq += 1 + rng.below(2);
                if rng.chance(1, 8) {
                    let after = floor + rng.below(seq - floor + 1);
                    all.take_back(SeqNo(after));
                    model.iter_mut().for_each(|seqs| seqs.retain(|seq| *seq <= after));
                    continue;
                }
                let (start, length) = (rng.below(KEYS), 1 + rng.below(KEYS));
                let end = (start + length < KEYS).then(|| [(start + length) as u8]);
                all.add(&[start as u8], end.as_ref().map(|end| &end[..]), &[SeqNo(seq)], SeqNo(floor));
                for key in start..(start + length).min(KEYS) {
                    model[key as usize].push(seq);
                }
                if rng.chance(1, 4) {
                    floor += rng.below(seq - floor + 1);
                }
                let fragments = all.fragments();
                assert_eq!(all.bytes, all.pieces.iter().map(|(start, piece)| piece.bytes(start)).sum::<usize>());
                assert!(fragments.count() <= KEYS * seq);
                for key in 0..KEYS as u8 {
                    for as_of in floor..=seq {
                        let newest = model[usize::from(key)].iter().copied().filter(|seq| *seq <= as_of).max();
                        let as_of = SeqNo(as_of);
                        assert_eq!(all.newest(&[key], as_of).map(|seq| seq.0), newest, "seed {seed}");
                        assert_eq!(fragments.newest(&[key], as_of).map(|seq| seq.0), newest, "seed {seed}");
                        for span in [all.span(&[key], as_of), fragments.span(&[key], as_of)] {
                            assert!(span.contains(&[key]) && span.newest.map(|seq| seq.0) == newest, "seed {seed}");
                            for other in (0..KEYS as u8).filter(|other| span.contains(&[*other])) {
                                assert_eq!(all.newest(&[other], as_of), span.newest, "seed {seed}");
                            }
                        }
                    }
                }
                // Put together from others' fragments, as a compaction does, they tell the same.
                let mut again = RangeTombstones::default();
                for fragment in fragments.iter() {
                    again.add(&fragment.start, fragment.end.as_deref(), &fragment.seqs, SeqNo(0));
                }
                assert_eq!(again.fragments(), fragments, "seed {seed}");
            }
        }
    }
}
