//! Reading the past: any key, or the whole database, as of a time within the history window.
//!
//! A time becomes a position ([`super::times`]), and a position is read as any snapshot is. What has expired is judged by
//! the time that is asked for.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::merge::{Direction, Source};
use super::range::Range;
use super::shared::{Shared, State};
use super::snapshot::{Found, Snapshot, alive};
use super::sources::{KeyRange, TablesSource};
use super::times::Moment;
use super::version::{TableHandle, Version};
use super::{Db, Result, SeqNo};
use crate::codec::Slice;
use crate::storage::Version as KeyVersion;
use crate::storage::sstable::ReadMode;

/// Versions that are taken from a memtable under one lock.
const MEMTABLE_STEP: usize = 64;

/// What a key held from a time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastValue {
    /// The position of the change.
    pub seq: SeqNo,
    /// By when it was committed, in milliseconds since 1970; `None` if that was before the oldest time that can be read.
    pub time: Option<u64>,
    /// The value, or `None` if the key was deleted.
    pub found: Option<Found>,
}

impl Db {
    /// What `key` held at `when`, in milliseconds since 1970: what had not expired by then is there.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    ///
    /// let db = chronos::Options::new().history(Duration::from_secs(24 * 60 * 60)).open(dir.path())?;
    /// db.put(b"user:101", b"Venom")?;
    /// let then = db.present()?;
    /// # while db.present()? == then { std::thread::yield_now() }
    /// db.delete(b"user:101")?;
    /// assert_eq!(db.get(b"user:101")?, None);
    /// assert_eq!(db.get_at(b"user:101", then)?.as_deref(), Some(&b"Venom"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoHistory`] without [`Options::history`]; [`Error::OutsideHistory`] for a time before what is kept, or to
    /// come.
    ///
    /// [`Error::NoHistory`]: super::Error::NoHistory
    /// [`Error::OutsideHistory`]: super::Error::OutsideHistory
    /// [`Options::history`]: super::Options::history
    pub fn get_at(&self, key: &[u8], when: u64) -> Result<Option<Slice>> {
        Ok(self.snapshot_at(when)?.get(key)?.map(|found| found.value))
    }

    /// The entries of a key range at `when`; see [`Db::get_at`].
    pub fn range_at<K: AsRef<[u8]>>(&self, when: u64, range: impl RangeBounds<K>) -> Result<Range> {
        Ok(self.snapshot_at(when)?.range(range))
    }

    /// A consistent view of the database as it was at `when`; see [`Db::get_at`]. While it lives, what it shows is kept,
    /// also when the window has moved on.
    pub fn snapshot_at(&self, when: u64) -> Result<Snapshot> {
        Snapshot::at(self.shared(), "a read of the past".into(), when)
    }

    /// What `key` held, newest first: every change within the history window, and what it held when that begins. Memory
    /// and time are those of what is taken from the iterator.
    pub fn history(&self, key: &[u8]) -> Result<KeyHistory> {
        KeyHistory::new(self.shared(), key)
    }

    /// Makes a key range what it was at `when`, atomically: what was there then is put, with its expiry, and what came
    /// since is deleted. How many keys were written; returns when that is as durable as the options say.
    ///
    /// # Errors
    ///
    /// As [`Db::get_at`], and [`Error::InvalidArgument`], and nothing has changed, if what is to be written is more than
    /// one batch may have (1 GiB).
    ///
    /// [`Error::InvalidArgument`]: super::Error::InvalidArgument
    pub fn restore_at<K: AsRef<[u8]>>(&self, when: u64, range: impl RangeBounds<K>) -> Result<u64> {
        // The first key behind another one is that with a zero at its end.
        let behind = |key: &K| [key.as_ref(), &[0]].concat();
        let start = match range.start_bound() {
            Bound::Included(key) => key.as_ref().to_vec(),
            Bound::Excluded(key) => behind(key),
            Bound::Unbounded => Vec::new(),
        };
        let end = match range.end_bound() {
            Bound::Included(key) => Some(behind(key)),
            Bound::Excluded(key) => Some(key.as_ref().to_vec()),
            Bound::Unbounded => None,
        };
        let restored = self.restore(when, &[(&start, end.as_deref())], &mut |_, _, _| {})?;
        self.wait_durable(restored.seq)?;
        Ok(restored.value)
    }

    /// What time it is in history, in milliseconds since 1970: the wall clock's, unless that was stepped back.
    pub fn present(&self) -> Result<u64> {
        self.shared().retention.present()
    }
}

/// The versions of a key, newest first: see [`Db::history`].
pub struct KeyHistory {
    shared: Arc<Shared>,
    /// Keeps what the window had when the walk began.
    _pin: Snapshot,
    oldest: Moment,
    key: Vec<u8>,
    /// Only what is below this position comes next.
    below: SeqNo,
    state: Arc<State>,
    /// Memtables to be asked, the next one last; then tables, likewise.
    memtables: usize,
    tables: Vec<Arc<TableHandle>>,
    step: std::vec::IntoIter<KeyVersion>,
    table: Option<TablesSource>,
    /// Where range tombstones over the key are.
    deletes: Vec<SeqNo>,
    /// Found, and to be told after the range tombstone that has deleted it.
    deleted: Option<KeyVersion>,
    done: bool,
}

impl KeyHistory {
    fn new(shared: &Arc<Shared>, key: &[u8]) -> Result<KeyHistory> {
        let (pin, oldest) = Snapshot::oldest(shared, "a key's history".into())?;
        let visible = shared.commit.visible();
        // What is told of must not go with a crash.
        shared.wait_durable(visible)?;
        let state = Arc::clone(&shared.state());
        let deletes = deletes(&state, key, visible)?;
        Ok(KeyHistory {
            shared: shared.clone(),
            _pin: pin,
            oldest,
            key: key.to_vec(),
            below: SeqNo(visible.0 + 1),
            memtables: state.sealed.len() + 1,
            tables: tables_for(&state.version, key),
            state,
            step: Vec::new().into_iter(),
            table: None,
            deletes,
            deleted: None,
            done: false,
        })
    }

    /// The newest version below the last one, wherever it is.
    fn older(&mut self) -> Result<Option<KeyVersion>> {
        loop {
            if let Some(version) = self.step.next() {
                return Ok(Some(version));
            }
            if let Some(at) = self.memtables.checked_sub(1) {
                let memtable = self.state.sealed.get(at).map_or(&self.state.active, |sealed| &sealed.memtable);
                let step = memtable.versions(&self.key, self.below, MEMTABLE_STEP);
                if step.len() < MEMTABLE_STEP {
                    self.memtables = at;
                }
                self.step = step.into_iter();
                continue;
            }
            if let Some(table) = &mut self.table
                && table.advance()?
                && *table.key() == *self.key
            {
                return Ok(Some(KeyVersion { seq: table.seq(), kind: table.kind(), value: table.value()? }));
            }
            let Some(next) = self.tables.pop() else { return Ok(None) };
            let range = KeyRange { lower: Bound::Included(self.key.clone()), upper: Bound::Included(self.key.clone()) };
            self.table = Some(TablesSource::new(vec![next], range, Direction::Forward, ReadMode::Cached));
        }
    }

    /// The next version to tell of: one of the key's own, or a range tombstone that has deleted one.
    fn next_version(&mut self) -> Result<Option<KeyVersion>> {
        if let Some(deleted) = self.deleted.take() {
            return Ok(Some(deleted));
        }
        let version = loop {
            match self.older()? {
                Some(version) if version.seq >= self.below => {}
                Some(version) => break version,
                None => return Ok(None),
            }
        };
        let between = self.deletes.iter().copied().filter(|at| version.seq < *at && *at < self.below);
        // The first of them deleted it, unless it had expired by then; the others found nothing.
        let lived = |at: &SeqNo| {
            let time = self.shared.retention.time_of(*at).unwrap_or(0);
            alive(version.kind, Slice::default, time).is_some()
        };
        match between.min().filter(lived) {
            Some(at) => {
                self.deleted = Some(version);
                Ok(Some(KeyVersion::deleted(at)))
            }
            _ => Ok(Some(version)),
        }
    }

    fn advance(&mut self) -> Result<Option<PastValue>> {
        let Some(KeyVersion { seq, kind, value }) = self.next_version()? else { return Ok(None) };
        self.below = seq;
        self._pin.check()?;
        if seq > self.oldest.seq {
            let time = self.shared.retention.time_of(seq).or(Some(self.oldest.time));
            return Ok(Some(PastValue { seq, time, found: alive(kind, || value, 0) }));
        }
        // What the key held when the window begins. What it held before that may be gone or not.
        self.done = true;
        let found = alive(kind, || value, self.oldest.time);
        Ok(found.map(|found| PastValue { seq, time: None, found: Some(found) }))
    }
}

impl Iterator for KeyHistory {
    type Item = Result<PastValue>;

    /// After an error the walk has ended.
    fn next(&mut self) -> Option<Result<PastValue>> {
        if self.done {
            return None;
        }
        let next = self.advance();
        self.done |= !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// The positions at or below `visible` at which a range tombstone has deleted `key`.
fn deletes(state: &State, key: &[u8], visible: SeqNo) -> Result<Vec<SeqNo>> {
    let mut all = Vec::new();
    let mut gather = |newest: &dyn Fn(SeqNo) -> Option<SeqNo>| {
        let mut as_of = Some(visible);
        while let Some(at) = as_of.and_then(newest) {
            all.push(at);
            as_of = at.0.checked_sub(1).map(SeqNo);
        }
    };
    for memtable in state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]) {
        gather(&|as_of| memtable.span(key, as_of).newest);
    }
    for (_, table) in state.version.tables().filter(|(_, table)| table.may_hold(key)) {
        let ranges = table.ranges()?;
        gather(&|as_of| ranges.newest(key, as_of));
    }
    Ok(all)
}

/// The tables that may hold `key`, the newest last.
fn tables_for(version: &Version, key: &[u8]) -> Vec<Arc<TableHandle>> {
    let [flushed, sorted @ ..] = &version.levels;
    let mut tables: Vec<_> = flushed.iter().filter(|table| table.may_hold(key)).cloned().collect();
    tables.extend(sorted.iter().filter_map(|tables| Version::table_for(tables, key)).cloned());
    tables.reverse();
    tables
}

/// What a reader at `when` sees of a version, and does not see expired `now` either: what is to be there once more.
pub(super) fn restorable(version: Option<KeyVersion>, when: u64, now: u64) -> Option<Found> {
    let KeyVersion { kind, value, .. } = version?;
    alive(kind, || value, when.max(now))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::engine::{Clock, Error, Options};
    use crate::fs::SimFs;

    #[test]
    fn a_walk_that_takes_too_long_is_told_so_and_has_ended() {
        let now = Arc::new(AtomicU64::new(1_000));
        let time = now.clone();
        let options = Options::new().clock(Clock(Arc::new(move || time.load(Ordering::SeqCst)))).stepped();
        let options = options.history(Duration::from_secs(3600)).snapshot_max_age(Duration::from_secs(1));
        let db = options.open_on(Arc::new(SimFs::new())).unwrap();
        for value in 1..=3 {
            now.fetch_add(100, Ordering::SeqCst);
            db.put(b"key", &[value]).unwrap();
        }
        let mut walk = db.history(b"key").unwrap();
        assert_eq!(*walk.next().unwrap().unwrap().found.unwrap().value, [3]);
        now.store(2_301, Ordering::SeqCst);
        assert!(db.stats().snapshots.is_empty());
        assert!(matches!(walk.next(), Some(Err(Error::SnapshotExpired))));
        assert!(walk.next().is_none());
    }

    #[test]
    fn every_change_of_a_key_comes_once_however_many_there_are() {
        let now = Arc::new(AtomicU64::new(1_000));
        let time = now.clone();
        let options = Options::new().clock(Clock(Arc::new(move || time.load(Ordering::SeqCst)))).stepped();
        let db = options.history(Duration::from_secs(3600)).open_on(Arc::new(SimFs::new())).unwrap();
        for n in 0..3 * MEMTABLE_STEP {
            now.fetch_add(1, Ordering::SeqCst);
            db.put(b"key", &[n as u8]).unwrap();
            if n == MEMTABLE_STEP - 1 {
                db.flush().unwrap();
            }
        }
        let told: Vec<u8> = db.history(b"key").unwrap().map(|at| at.unwrap().found.unwrap().value[0]).collect();
        assert_eq!(told, (0..3 * MEMTABLE_STEP).rev().map(|n| n as u8).collect::<Vec<_>>());
    }
}
