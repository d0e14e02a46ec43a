//! Ranges: the entries of a key range at a snapshot, merged from all sources.

use std::sync::Arc;

use arc_swap::Guard;

use super::covers::{Covers, Hidden, Holder};
use super::merge::{Direction, Merge, Source};
use super::shared::{Shared, State};
use super::snapshot::Pin;
use super::sources::{KeyRange, MemtableSource, ScanSource, TablesSource};
use super::version::{LEVELS, Tables, Version};
use super::{Result, SeqNo};
use crate::codec::Slice;
use crate::storage::Kind;
use crate::storage::sstable::ReadMode;

/// An active memtable with at most this many keys gets its order while writers wait (well under a millisecond); a larger
/// one is sealed instead, and sorted without anybody waiting.
const ORDER_IN_PLACE: usize = 1024;

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

/// One entry of a range, lent by [`Range::next_ref`] until the next one is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// When it expires, milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// Entries of a key range at a snapshot, in key order, from either end or from both: every entry comes once. Holds no lock
/// between entries. After an error, which is that of [`Snapshot::get`](super::Snapshot::get), it has ended.
///
/// As an iterator it gives its entries away, each with a key of its own; [`Range::next_ref`] lends them, which takes half
/// the time.
pub struct Range {
    pin: Arc<Pin>,
    range: KeyRange,
    direction: Direction,
    now: u64,
    /// Made by the first step, and what range tombstones hide of it.
    merge: Option<(Merge<ScanSource>, Covers)>,
    hidden: Hidden,
    /// The key that was dealt with last; that of the entry, if the walk stands on one. Forward, the merge stands on the
    /// version that is shown and has the older ones still to come; backward it has passed them all.
    key: Vec<u8>,
    expires_at: Option<u64>,
    /// The value, where it is not what the merge has: backward, and of a blob file.
    value: Option<Slice>,
    done: bool,
    /// The walk from the other end, made by the first `next_back`.
    other_end: Option<Box<Range>>,
}

impl Range {
    pub(super) fn new(pin: Arc<Pin>, range: KeyRange, direction: Direction, now: u64) -> Range {
        Range {
            pin,
            range,
            direction,
            now,
            merge: None,
            hidden: Hidden::default(),
            key: Vec::new(),
            expires_at: None,
            value: None,
            done: false,
            other_end: None,
        }
    }

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
        Range::new(self.pin.clone(), self.range.clone(), self.direction, self.now)
    }

    /// As [`next`](Iterator::next), without giving anything away: no key is copied, and no value unless it lies in a blob
    /// file.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// db.put(b"user:101", b"Venom")?;
    /// db.put(b"user:102", b"Carnage")?;
    /// let mut users = db.range("user:".."user;");
    /// let mut bytes = 0;
    /// while let Some(user) = users.next_ref() {
    ///     bytes += user?.value.len();
    /// }
    /// assert_eq!(bytes, 12);
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_ref(&mut self) -> Option<Result<EntryRef<'_>>> {
        match self.advance() {
            Ok(true) => Some(self.entry_ref()),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Goes to the next entry, unless the walk from the other end has been there; `false` behind the last. Reads nothing
    /// that lies in a blob file: whoever counts entries needs none.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        let met = match (self.walk()?, &self.other_end) {
            (false, _) => return Ok(false),
            (true, None) => false,
            (true, Some(other)) => !other.is_ahead_of(&self.key),
        };
        self.done |= met;
        Ok(!met)
    }

    /// Goes to the next entry of this walk, whatever the one from the other end has given.
    fn walk(&mut self) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        let step = self.step().and_then(|there| self.pin.ticket.check().map(|()| there));
        self.done |= step.is_err();
        step
    }

    fn step(&mut self) -> Result<bool> {
        let as_of = self.pin.ticket.seq;
        let (merge, covers) = match &mut self.merge {
            Some(both) => both,
            None => {
                let (mut merge, covers) = self.pin.shared.merge(&self.range, self.direction, as_of);
                self.done = !merge.advance()?;
                self.merge.insert((merge, covers))
            }
        };
        loop {
            self.value = None;
            // What is left of the last key.
            while !self.done && merge.key() == self.key {
                self.done = !merge.advance()?;
            }
            if self.done || self.range.is_behind(merge.key(), self.direction) {
                self.done = true;
                return Ok(false);
            }
            self.key.clear();
            self.key.extend_from_slice(merge.key());
            let span = covers.span(&self.key)?;
            let (mut newest, mut deleted) = (None, false);
            loop {
                if merge.seq() <= as_of {
                    deleted = span.newest > Some(merge.seq());
                    newest = (!deleted).then(|| merge.kind());
                    match self.direction {
                        // The first that is old enough is the newest, backward the last.
                        Direction::Forward => break,
                        Direction::Backward if deleted => {}
                        Direction::Backward => self.value = Some(merge.value()?),
                    }
                }
                self.done = !merge.advance()?;
                if self.done || merge.key() != self.key {
                    break;
                }
            }
            if let Some(expires_at) = newest.and_then(|kind| kind.expiry(self.now)) {
                self.expires_at = expires_at;
                return Ok(true);
            }
            if deleted && !self.done && self.hidden.is_enough(span) {
                let to = match self.direction {
                    Direction::Forward => span.end.as_deref(),
                    Direction::Backward => Some(&*span.start),
                };
                self.done = !merge.skip(to, span.newest.unwrap_or_default())?;
            }
        }
    }

    /// Whether this walk has yet to come to `key`.
    fn is_ahead_of(&self, key: &[u8]) -> bool {
        match (&self.merge, self.direction) {
            _ if self.done => false,
            (None, _) => true,
            (Some(_), Direction::Forward) => key > &self.key[..],
            (Some(_), Direction::Backward) => key < &self.key[..],
        }
    }

    /// The entry that the walk stands on, lent.
    fn entry_ref(&mut self) -> Result<EntryRef<'_>> {
        if self.value.is_none() && matches!(self.source().kind(), Kind::PutFar { .. }) {
            self.value = Some(self.fetch()?);
        }
        let value = self.value.as_deref().unwrap_or_else(|| self.source().stored());
        Ok(EntryRef { key: &self.key, value, expires_at: self.expires_at })
    }

    /// The entry that the walk stands on, given away.
    fn entry(&mut self) -> Result<Entry> {
        let value = match self.value.take() {
            Some(value) => value,
            None => self.fetch()?,
        };
        Ok(Entry { key: Slice::copy_from(&self.key), value, expires_at: self.expires_at })
    }

    /// The value that the merge stands on, wherever it is.
    fn fetch(&mut self) -> Result<Slice> {
        let value = self.source().value();
        self.done |= value.is_err();
        value
    }

    fn source(&self) -> &impl Source {
        &self.merge.as_ref().expect("an entry is asked for only after the walk has come to one").0
    }
}

impl Iterator for Range {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        match self.advance() {
            Ok(true) => Some(self.entry()),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
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
        let entry = match other.walk() {
            Ok(true) if self.is_ahead_of(&other.key) => Some(other.entry()),
            Ok(there) => {
                other.done |= there;
                None
            }
            Err(error) => Some(Err(error)),
        };
        self.other_end = Some(other);
        entry
    }
}

impl std::iter::FusedIterator for Range {}

impl Shared {
    /// All versions of a key range at or below `as_of` (and from tables possibly newer ones), merged, and the range
    /// tombstones over them.
    fn merge(&self, range: &KeyRange, direction: Direction, as_of: SeqNo) -> (Merge<ScanSource>, Covers) {
        let state = self.state_with_order();
        let sealed = state.sealed.iter().map(|sealed| (&sealed.memtable, sealed.last_seq));
        let mut sources = Vec::new();
        let mut holders = Vec::new();
        for (memtable, newest) in sealed.chain([(&state.active, SeqNo::MAX)]) {
            let source = MemtableSource::new(memtable.clone(), range.clone(), direction, as_of).up_to(newest);
            sources.push(ScanSource::Memtable(Box::new(source)));
            // What comes after this look is above `as_of`.
            if memtable.has_ranges() {
                holders.push(Holder::Memtable(memtable.clone()));
            }
        }
        let Version { levels, ranged } = &*state.version;
        let mut add = |tables: Tables, which| {
            let source = TablesSource::of_some(tables, which, range.clone(), direction, ReadMode::Cached);
            sources.push(ScanSource::Tables(Box::new(source)));
        };
        // Tables of level 0 overlap: each is a source of its own.
        for table in levels[0].iter().filter(|table| range.meets(table)) {
            let table = Arc::new(vec![table.clone()]);
            if table[0].has_ranges() {
                holders.push(Holder::Tables(table.clone()));
            }
            add(table, 0..1);
        }
        for level in 1..LEVELS {
            let within = state.version.within(level, range.lower(), range.upper());
            if within.is_empty() {
                continue;
            }
            if !ranged[level].is_empty() {
                holders.push(Holder::Tables(ranged[level].clone()));
            }
            add(levels[level].clone(), within);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Db, Options};
    use crate::fs::SimFs;

    fn open(disk: &SimFs) -> Db {
        Options::new().blob_threshold(Some(100)).stepped().open_on(Arc::new(disk.clone())).unwrap()
    }

    #[test]
    fn after_a_value_that_cannot_be_read_a_walk_has_ended() {
        let disk = SimFs::new();
        let db = open(&disk);
        for (n, key) in ["a", "b", "c"].iter().enumerate() {
            db.put(key.as_bytes(), &(0..500).map(|at| (at * 7 + n * at * at) as u8).collect::<Vec<u8>>()).unwrap();
        }
        db.flush().unwrap();
        let blob = crate::fs::Fs::list(&disk).unwrap().into_iter().find(|name| name.ends_with(".blob")).unwrap();
        let length = disk.read_file(&blob).unwrap().len();
        disk.corrupt(&blob, length / 2, 1);
        let read = |entry: Result<Entry>| entry.ok().map(|entry| entry.key[0] as char);
        let forward: Vec<_> = db.range::<&[u8]>(..).map(read).collect();
        assert_eq!(forward, [Some('a'), None]);
        let backward: Vec<_> = db.range::<&[u8]>(..).rev().map(read).collect();
        assert_eq!(backward, [Some('c'), None]);
    }

    #[test]
    fn the_first_scan_seals_a_memtable_only_if_it_is_large() {
        for (keys, sealed) in [(1, 0), (ORDER_IN_PLACE, 0), (ORDER_IN_PLACE + 1, 1)] {
            let db = open(&SimFs::new());
            for n in 0..keys {
                db.put(format!("{n}").as_bytes(), b"").unwrap();
            }
            assert_eq!(db.range::<&[u8]>(..).count(), keys);
            assert_eq!(db.stats().sealed_memtables, sealed, "{keys} keys");
        }
    }
}
