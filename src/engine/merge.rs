//! Merging: many sorted sources seen as one.
//!
//! Forward, entries come by key ascending and, for one key, newest first; backward is the exact reverse. Sources are
//! kept in a binary heap by their current entry, so a step costs a comparison or two for each doubling of their number,
//! and nothing is allocated.

use std::cmp::Ordering;

use super::{Result, SeqNo};
use crate::codec::Slice;
use crate::codec::defect::{Defect, seeded};
use crate::storage::Kind;

/// Which way a scan walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    pub(crate) fn opposite(self) -> Direction {
        match self {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        }
    }
}

/// A sorted source of versions. It stands before its first entry until it is advanced.
pub(crate) trait Source: Send {
    /// Goes to the next entry. `false` at the end; the rest may be asked only after `true`.
    fn advance(&mut self) -> Result<bool>;
    fn key(&self) -> &[u8];
    fn seq(&self) -> SeqNo;
    fn kind(&self) -> Kind;
    /// The value, wherever it is.
    fn value(&self) -> Result<Slice>;
    /// What the entry itself holds: with [`Kind::PutFar`] a pointer, else the value.
    fn stored(&self) -> &[u8];
    /// For a source that stands on an entry: leaves out what comes before `to` (forward: all below that key, `None` is
    /// all; backward: all from that key on) where everything is older than `older_than`. Whether it stands on an entry.
    /// Leaving out less is never wrong.
    fn skip(&mut self, to: Option<&[u8]>, older_than: SeqNo) -> Result<bool> {
        let _ = (to, older_than);
        Ok(true)
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn advance(&mut self) -> Result<bool> {
        (**self).advance()
    }

    fn key(&self) -> &[u8] {
        (**self).key()
    }

    fn seq(&self) -> SeqNo {
        (**self).seq()
    }

    fn kind(&self) -> Kind {
        (**self).kind()
    }

    fn value(&self) -> Result<Slice> {
        (**self).value()
    }

    fn stored(&self) -> &[u8] {
        (**self).stored()
    }

    fn skip(&mut self, to: Option<&[u8]>, older_than: SeqNo) -> Result<bool> {
        (**self).skip(to, older_than)
    }
}

/// Many sources as one.
pub(crate) struct Merge<S> {
    direction: Direction,
    /// A binary heap: the source at 0 has the next entry, and no source comes before its parent.
    sources: Vec<S>,
    started: bool,
    pending: Vec<S>,
}

impl<S: Source> Merge<S> {
    /// Sources change places: what is large should be in a box.
    pub(crate) fn new(direction: Direction, sources: Vec<S>) -> Merge<S> {
        Merge { direction, sources: Vec::with_capacity(sources.len()), started: false, pending: sources }
    }

    fn start(&mut self) -> Result<()> {
        for mut source in std::mem::take(&mut self.pending) {
            if source.advance()? {
                self.sources.push(source);
            }
        }
        self.order();
        self.started = true;
        Ok(())
    }

    fn order(&mut self) {
        for at in (0..self.sources.len() / 2).rev() {
            self.sink(at);
        }
    }

    fn comes_before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.sources[a], &self.sources[b]);
        // Newest first for equal keys.
        let (newer, older) = if seeded(Defect::OldestFirstInMerge) { (b, a) } else { (a, b) };
        let order = a.key().cmp(b.key()).then_with(|| older.seq().cmp(&newer.seq()));
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut first = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.sources.len() && self.comes_before(child, first) {
                    first = child;
                }
            }
            if first == at {
                return;
            }
            self.sources.swap(at, first);
            at = first;
        }
    }
}

impl<S: Source> Source for Merge<S> {
    fn advance(&mut self) -> Result<bool> {
        if !self.started {
            self.start()?;
            return Ok(!self.sources.is_empty());
        }
        if let Some(top) = self.sources.first_mut() {
            if !top.advance()? {
                self.sources.swap_remove(0);
            }
            self.sink(0);
        }
        Ok(!self.sources.is_empty())
    }

    fn key(&self) -> &[u8] {
        self.sources[0].key()
    }

    fn seq(&self) -> SeqNo {
        self.sources[0].seq()
    }

    fn kind(&self) -> Kind {
        self.sources[0].kind()
    }

    fn value(&self) -> Result<Slice> {
        self.sources[0].value()
    }

    fn stored(&self) -> &[u8] {
        self.sources[0].stored()
    }

    fn skip(&mut self, to: Option<&[u8]>, older_than: SeqNo) -> Result<bool> {
        let mut at = 0;
        while at < self.sources.len() {
            if self.sources[at].skip(to, older_than)? {
                at += 1;
            } else {
                self.sources.swap_remove(at);
            }
        }
        self.order();
        Ok(!self.sources.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries to come, the next one last, and the current one.
    struct List(Vec<(&'static str, u64)>, (&'static str, u64));

    fn list(entries: &[(&'static str, u64)]) -> List {
        List(entries.iter().rev().copied().collect(), ("", 0))
    }

    impl Source for List {
        fn advance(&mut self) -> Result<bool> {
            let next = self.0.pop();
            self.1 = next.unwrap_or(("", 0));
            Ok(next.is_some())
        }
        fn key(&self) -> &[u8] {
            self.1.0.as_bytes()
        }
        fn seq(&self) -> SeqNo {
            SeqNo(self.1.1)
        }
        fn kind(&self) -> Kind {
            Kind::Tombstone
        }
        fn value(&self) -> Result<Slice> {
            Ok(Slice::default())
        }
        fn stored(&self) -> &[u8] {
            b""
        }
    }

    fn drain(mut merge: Merge<List>) -> String {
        let mut seen = String::new();
        while merge.advance().unwrap() {
            seen += &format!("{}{} ", String::from_utf8_lossy(merge.key()), merge.seq());
        }
        seen
    }

    #[test]
    fn forward_is_by_key_then_newest_first_and_backward_the_exact_reverse() {
        let forward = [list(&[("a", 9), ("c", 1)]), list(&[]), list(&[("a", 4), ("b", 7), ("c", 8), ("c", 2)])];
        assert_eq!(drain(Merge::new(Direction::Forward, forward.into())), "a9 a4 b7 c8 c2 c1 ");
        let backward = [list(&[("c", 1), ("a", 9)]), list(&[]), list(&[("c", 2), ("c", 8), ("b", 7), ("a", 4)])];
        assert_eq!(drain(Merge::new(Direction::Backward, backward.into())), "c1 c2 c8 b7 a4 a9 ");
        assert_eq!(drain(Merge::new(Direction::Forward, Vec::new())), "");
    }
}
