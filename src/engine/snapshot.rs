//! Snapshots and ranges: a consistent view of one moment, however long one looks.

use std::borrow::Cow;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use arc_swap::Guard;

use super::covers::{Covers, Hidden, Holder};
use super::merge::{Direction, Merge, Source};
use super::retention::Ticket;
use super::shared::{Shared, State};
use super::sources::{KeyRange, MemtableSource, TablesSource};
use super::times::Moment;
use super::{Result, SeqNo};
use crate::codec::Slice;
use crate::storage::Kind;
use crate::storage::sstable::ReadMode;

/// An active memtable with at most this many keys gets its order while writers wait (well under a millisecond); a larger
/// one is sealed instead, and sorted without anybody waiting.
const ORDER_IN_PLACE: usize = 1024;

/// What a key holds: a value, and when it expires.
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
        Kind::Put { expires_at } | Kind::PutFar { expires_at } if expires_at.is_none_or(|at| at > now) => {
            Some(Found { value: value(), expires_at })
        }
        _ => None,
    }
}

/// Keeps a position readable.
struct Pin {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
}

impl Pin {
    /// The time by which is decided what has expired.
    fn time(&self) -> u64 {
        self.ticket.as_of.unwrap_or_else(|| self.shared.options.clock.now())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.retention.give_back(&self.ticket);
    }
}

/// A consistent view of one moment, however much is written meanwhile. While it lives, no version that it shows is dropped,
/// which costs space on the disk; it costs nothing else, and writers do not wait for it. If it becomes older than
/// [`super::Options::snapshot_max_age`] allows, every read from it ends in [`super::Error::SnapshotExpired`]. It shows what was applied when
/// it was taken, which another thread's [`Db::write`](super::Db::write) may still be waiting to have synced.
///
/// ```
/// # fn main() -> Result<(), chronos::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = chronos::Options::new().open(dir.path())?;
/// db.put(b"user:101", b"Venom")?;
/// let snapshot = db.snapshot();
/// db.delete(b"user:101")?;
///
/// assert_eq!(snapshot.get(b"user:101")?.map(|found| found.value).as_deref(), Some(&b"Venom"[..]));
/// assert_eq!(db.get(b"user:101")?, None);
/// # Ok(())
/// # }
/// ```
pub struct Snapshot {
    pin: Arc<Pin>,
}

impl Snapshot {
    pub(crate) fn new(shared: &Arc<Shared>, owner: Cow<'static, str>) -> Snapshot {
        let ticket = shared.retention.acquire(owner, || shared.commit.visible());
        Snapshot { pin: Arc::new(Pin { shared: shared.clone(), ticket }) }
    }

    /// A view of what was the present at a time within the history window.
    pub(crate) fn at(shared: &Arc<Shared>, owner: Cow<'static, str>, when: u64) -> Result<Snapshot> {
        let ticket = shared.retention.acquire_at(owner, when)?;
        let snapshot = Snapshot { pin: Arc::new(Pin { shared: shared.clone(), ticket }) };
        // The log may be writing it just now; what is told of the past must not go with a crash.
        shared.wait_durable(snapshot.seq())?;
        Ok(snapshot)
    }

    /// A view of the oldest moment that can be read, and which one that is.
    pub(crate) fn oldest(shared: &Arc<Shared>, owner: Cow<'static, str>) -> Result<(Snapshot, Moment)> {
        let (ticket, oldest) = shared.retention.acquire_oldest(owner)?;
        Ok((Snapshot { pin: Arc::new(Pin { shared: shared.clone(), ticket }) }, oldest))
    }

    /// Whether it still keeps what it shows: to be asked after a read that did not go through it.
    pub(crate) fn check(&self) -> Result<()> {
        self.pin.ticket.check()
    }

    /// The position in history that this snapshot shows.
    pub fn seq(&self) -> SeqNo {
        self.pin.ticket.seq
    }

    /// What `key` held at this snapshot; `None` also if it has expired: by now, or by the time of a snapshot of
    /// the past.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](super::Error::Corrupt) if the bytes that it is in are damaged, [`Error::Io`](super::Error::Io)
    /// if they cannot be read. Other keys are not affected.
    pub fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        let version = self.pin.shared.state().get(key, self.seq())?;
        self.pin.ticket.check()?;
        Ok(version.and_then(|version| alive(version.kind, || version.value, self.pin.time())))
    }

    /// The entries of a key range, in the order of the keys' bytes; from the other end with
    /// [`rev`](Iterator::rev). An empty or inverted range has none. Reads nothing before the first entry is asked for.
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
    /// let last = snapshot.range::<&[u8]>(..).next_back().transpose()?;
    /// assert_eq!(last.map(|entry| entry.key).as_deref(), Some(&b"c"[..]));
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
            now: self.pin.time(),
            merge: None,
            hidden: Hidden::default(),
            done: false,
            other_end: None,
        }
    }

    /// The entries whose keys begin with `prefix`, in key order; all entries if it is empty.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// for key in ["user:101", "user:102", "visits"] {
    ///     db.put(key.as_bytes(), b"1")?;
    /// }
    /// assert_eq!(db.snapshot().prefix(b"user:").count(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn prefix(&self, prefix: &[u8]) -> Range {
        let upper = end_of_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.range((Bound::Included(prefix.to_vec()), upper))
    }
}

/// The smallest key above all that begin with `prefix`; `None` if there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Entries of a key range at a snapshot, in key order, from either end or from both: every entry comes once. Holds no lock
/// between entries. After an error, which is that of [`Snapshot::get`], it has ended.
pub struct Range {
    pin: Arc<Pin>,
    range: KeyRange,
    direction: Direction,
    now: u64,
    /// Made by the first `next`, and what range tombstones hide of it.
    merge: Option<(Merge, Covers)>,
    hidden: Hidden,
    done: bool,
    /// The walk from the other end, made by the first `next_back`.
    other_end: Option<Box<Range>>,
}

impl Range {
    /// The same entries from the last to the first: [`rev`](Iterator::rev) for those who learn only at run time which
    /// way to go.
    ///
    /// # Panics
    ///
    /// If an entry was asked for before.
    pub fn reversed(mut self) -> Range {
        assert!(self.merge.is_none() && self.other_end.is_none(), "a range is reversed before it is walked");
        self.direction = Direction::Backward;
        self
    }

    /// The same entries once more, from the beginning; nothing has expired in between.
    pub(crate) fn again(&self) -> Range {
        Range {
            pin: self.pin.clone(),
            range: self.range.clone(),
            merge: None,
            hidden: Hidden::default(),
            done: false,
            other_end: None,
            ..*self
        }
    }

    fn step(&mut self) -> Result<Option<Entry>> {
        let (merge, covers) = match &mut self.merge {
            Some(both) => both,
            None => {
                let (mut merge, covers) = self.pin.shared.merge(&self.range, self.direction, self.pin.ticket.seq);
                self.done = !merge.advance()?;
                self.merge.insert((merge, covers))
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
            let span = covers.span(&key)?;
            let mut deleted = false;
            while !self.done && merge.key() == &*key {
                // Forward the first visible version is the newest, backward the last one is.
                let wanted = match self.direction {
                    Direction::Forward => newest.is_none(),
                    Direction::Backward => true,
                };
                if wanted && merge.seq() <= self.pin.ticket.seq {
                    // Of the versions of a key the deleted ones are the older ones.
                    match span.newest > Some(merge.seq()) {
                        true => deleted = true,
                        false => newest = Some((merge.kind(), merge.value()?)),
                    }
                }
                self.done = !merge.advance()?;
            }
            if let Some(found) = newest.and_then(|(kind, value)| alive(kind, || value, self.now)) {
                return Ok(Some(Entry { key, value: found.value, expires_at: found.expires_at }));
            }
            if deleted && !self.done && self.hidden.is_enough(span) {
                let to = match self.direction {
                    Direction::Forward => span.end.as_deref(),
                    Direction::Backward => Some(&*span.start),
                };
                self.done = !merge.skip(to, span.newest.unwrap_or_default())?;
            }
        }
        Ok(None)
    }
}

impl Range {
    /// The next entry of this walk, whatever the one from the other end has given.
    fn walk(&mut self) -> Option<Result<Entry>> {
        if self.done {
            return None;
        }
        let step = self.step().and_then(|entry| self.pin.ticket.check().map(|()| entry));
        self.done |= step.is_err();
        step.transpose()
    }

    /// Whether this walk has yet to come to `key`. Its merge stands on the first key that it has not dealt with.
    fn is_ahead_of(&self, key: &[u8]) -> bool {
        match (&self.merge, self.direction) {
            _ if self.done => false,
            (None, _) => true,
            (Some((merge, _)), Direction::Forward) => key >= merge.key(),
            (Some((merge, _)), Direction::Backward) => key <= merge.key(),
        }
    }
}

impl Iterator for Range {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let entry = self.walk()?;
        match (&self.other_end, &entry) {
            (Some(other), Ok(entry)) if !other.is_ahead_of(&entry.key) => {
                self.done = true;
                None
            }
            _ => Some(entry),
        }
    }
}

impl DoubleEndedIterator for Range {
    /// The walk from this end is one of its own, at the same snapshot; the two end where they meet.
    fn next_back(&mut self) -> Option<Result<Entry>> {
        let mut other = self
            .other_end
            .take()
            .unwrap_or_else(|| Box::new(Range { direction: self.direction.opposite(), ..self.again() }));
        let entry = other.walk();
        let entry = match entry {
            Some(Ok(entry)) if !self.is_ahead_of(&entry.key) => {
                other.done = true;
                None
            }
            entry => entry,
        };
        self.other_end = Some(other);
        entry
    }
}

impl std::iter::FusedIterator for Range {}

impl Shared {
    /// All versions of a key range at or below `as_of` (and from tables possibly newer ones), merged, and the range
    /// tombstones over them.
    fn merge(&self, range: &KeyRange, direction: Direction, as_of: SeqNo) -> (Merge, Covers) {
        let state = self.state_with_order();
        let sealed = state.sealed.iter().map(|sealed| (&sealed.memtable, sealed.last_seq));
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        let mut holders = Vec::new();
        for (memtable, newest) in sealed.chain([(&state.active, SeqNo::MAX)]) {
            let source = MemtableSource::new(memtable.clone(), range.clone(), direction, as_of).up_to(newest);
            sources.push(Box::new(source));
            // What comes after this look is above `as_of`.
            if memtable.has_ranges() {
                holders.push(Holder::Memtable(memtable.clone()));
            }
        }
        for level in 0..state.version.levels.len() {
            // Tables of level 0 overlap, each is a source of its own.
            let tables: Vec<_> = match level {
                0 => state.version.levels[0].iter().map(|table| vec![table.clone()]).collect(),
                _ => vec![state.version.within(level, range.lower(), range.upper()).to_vec()],
            };
            for tables in tables.into_iter().filter(|tables| !tables.is_empty()) {
                let ranged: Vec<_> = tables.iter().filter(|table| table.has_ranges()).cloned().collect();
                if !ranged.is_empty() {
                    holders.push(Holder::Tables(ranged));
                }
                sources.push(Box::new(TablesSource::new(tables, range.clone(), direction, ReadMode::Cached)));
            }
        }
        (Merge::new(direction, sources), Covers::new(as_of, holders))
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
