//! Snapshots and ranges: a consistent view of one moment, however long one looks.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use arc_swap::Guard;

use super::merge::{Direction, Merge, Source};
use super::shared::{Shared, State};
use super::sources::{KeyRange, MemtableSource, TablesSource};
use super::{Result, SeqNo};
use crate::codec::Slice;
use crate::storage::Kind;
use crate::storage::sstable::ReadMode;

/// An active memtable with at most this many keys gets its order while writers wait (well under a millisecond); a larger
/// one is sealed instead, and sorted without anybody waiting.
const ORDER_IN_PLACE: usize = 1024;

/// A value and when it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Slice,
    /// When it expires, milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// One entry of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Slice,
    /// The value.
    pub value: Slice,
    /// When it expires, milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// What a version means to a reader at `now`: a value, or nothing (deleted, or expired).
pub(crate) fn alive(kind: Kind, value: impl FnOnce() -> Slice, now: u64) -> Option<Found> {
    match kind {
        Kind::Put { expires_at } if expires_at.is_none_or(|at| at > now) => Some(Found { value: value(), expires_at }),
        _ => None,
    }
}

/// Keeps a position readable.
struct Pin {
    shared: Arc<Shared>,
    seq: SeqNo,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.retention.release(self.seq);
    }
}

/// A consistent view of one moment. While it lives, nothing that it shows is dropped.
pub struct Snapshot {
    pin: Arc<Pin>,
}

impl Snapshot {
    pub(crate) fn new(shared: &Arc<Shared>) -> Snapshot {
        let seq = shared.retention.acquire(|| shared.commit.visible());
        Snapshot { pin: Arc::new(Pin { shared: shared.clone(), seq }) }
    }

    /// The position in history that this snapshot shows.
    pub fn seq(&self) -> SeqNo {
        self.pin.seq
    }

    /// The value of `key` at this snapshot (hidden if it has expired by now).
    pub fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        let shared = &self.pin.shared;
        let version = shared.state().get(key, self.pin.seq)?;
        Ok(version.and_then(|version| alive(version.kind, || version.value, shared.options.clock.now())))
    }

    /// The entries of a key range, in key order.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// for key in ["a", "b", "c"] {
    ///     db.put(key.as_bytes(), b"1")?;
    /// }
    /// let snapshot = db.snapshot();
    /// db.delete(b"a")?;
    /// let keys: Vec<_> = snapshot.range("a".."c").map(|entry| entry.map(|e| e.key)).collect::<Result<_, _>>()?;
    /// assert_eq!(keys.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range {
        let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let range = KeyRange { lower: own(range.start_bound()), upper: own(range.end_bound()) };
        Range {
            pin: self.pin.clone(),
            range,
            direction: Direction::Forward,
            now: self.pin.shared.options.clock.now(),
            merge: None,
            done: false,
        }
    }
}

/// Entries of a key range at a snapshot, in key order. Holds no lock between entries.
pub struct Range {
    pin: Arc<Pin>,
    range: KeyRange,
    direction: Direction,
    now: u64,
    /// Made by the first `next`.
    merge: Option<Merge>,
    done: bool,
}

impl Range {
    /// The same entries from the last to the first. To be called before the first `next`.
    pub fn reversed(mut self) -> Range {
        assert!(self.merge.is_none(), "a range is reversed before it is walked");
        self.direction = Direction::Backward;
        self
    }

    /// The same entries once more, from the beginning; nothing has expired in between.
    pub(crate) fn again(&self) -> Range {
        Range { pin: self.pin.clone(), range: self.range.clone(), merge: None, done: false, ..*self }
    }

    /// With entries that have expired but are still there.
    pub(crate) fn with_expired(mut self) -> Range {
        self.now = 0;
        self
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        let merge = match &mut self.merge {
            Some(merge) => merge,
            None => {
                let mut merge = self.pin.shared.merge(&self.range, self.direction, self.pin.seq);
                self.done = !merge.advance()?;
                self.merge.insert(merge)
            }
        };
        // The merge stands on the first version of the next key.
        while !self.done {
            if self.range.is_behind(merge.key(), self.direction) {
                self.done = true;
                break;
            }
            let key = Slice::copy_from(merge.key());
            let mut newest: Option<(Kind, Slice)> = None;
            while !self.done && merge.key() == &*key {
                // Forward the first visible version is the newest, backward the last one is.
                let wanted = match self.direction {
                    Direction::Forward => newest.is_none(),
                    Direction::Backward => true,
                };
                if wanted && merge.seq() <= self.pin.seq {
                    newest = Some((merge.kind(), merge.value()));
                }
                self.done = !merge.advance()?;
            }
            if let Some(found) = newest.and_then(|(kind, value)| alive(kind, || value, self.now)) {
                return Ok(Some(Entry { key, value: found.value, expires_at: found.expires_at }));
            }
        }
        Ok(None)
    }
}

impl Iterator for Range {
    type Item = Result<Entry>;

    /// After an error the range has ended.
    fn next(&mut self) -> Option<Result<Entry>> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done |= step.is_err();
        step.transpose()
    }
}

impl Shared {
    /// All versions of a key range at or below `as_of` (and from tables possibly newer ones), merged.
    fn merge(&self, range: &KeyRange, direction: Direction, as_of: SeqNo) -> Merge {
        let state = self.state_with_order();
        let memtables = state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]);
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for memtable in memtables {
            sources.push(Box::new(MemtableSource::new(memtable.clone(), range.clone(), direction, as_of)));
        }
        for level in 0..state.version.levels.len() {
            // Tables of level 0 overlap, each is a source of its own.
            let tables: Vec<_> = match level {
                0 => state.version.levels[0].iter().map(|table| vec![table.clone()]).collect(),
                _ => vec![state.version.within(level, range.lower(), range.upper()).to_vec()],
            };
            for tables in tables.into_iter().filter(|tables| !tables.is_empty()) {
                sources.push(Box::new(TablesSource::new(tables, range.clone(), direction, ReadMode::Cached)));
            }
        }
        Merge::new(direction, sources)
    }

    /// The state, with an active memtable that keeps the order of its keys.
    fn state_with_order(&self) -> Guard<Arc<State>> {
        let state = self.state();
        if state.active.keeps_order() {
            return state;
        }
        let mut writer = self.commit.writer();
        if !writer.active.keeps_order() {
            if writer.active.len() <= ORDER_IN_PLACE {
                writer.active.keep_order();
            } else {
                self.seal(&mut writer, Some(true));
            }
        }
        // Still under the lock: a moment later another memtable, without order, may be the active one.
        self.state()
    }
}
