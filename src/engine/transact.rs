//! Reads and read-modify-writes, with the position in history that their answers depend on.

use std::cell::LazyCell;
use std::ops::Bound;
use std::sync::Arc;

use super::batch::WriteBatch;
use super::commit::{Writer, check};
use super::lookup::Cached;
use super::memtable::Memtable;
use super::merge::{Direction, Source};
use super::shared::Shared;
use super::snapshot::{Found, Snapshot, alive};
use super::sources::{KeyRange, TablesSource};
use super::version::Version;
use super::{Result, SeqNo};
use crate::codec::Few;
use crate::storage::sstable::ReadMode;
use crate::storage::{Kind, Version as KeyVersion};

/// What a read saw, and the position in history that the answer depends on: whoever is told the answer must not be
/// told before that position is durable. `SeqNo(0)` is always durable.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) found: Option<Found>,
    pub(crate) seq: SeqNo,
}

impl Read {
    fn of(version: Option<KeyVersion>, now: &LazyCell<u64, impl FnOnce() -> u64>) -> Read {
        let seq = version.as_ref().map_or(SeqNo(0), |version| version.seq);
        let found = version.and_then(|version| {
            let expires = matches!(version.kind, Kind::Put { expires_at: Some(_) });
            alive(version.kind, || version.value, if expires { **now } else { 0 })
        });
        Read { found, seq }
    }
}

/// What a read-modify-write decided, and the position that its answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) value: T,
    pub(crate) seq: SeqNo,
}

/// What keys hold below the active memtable, and what that reading relies on.
struct Below {
    active: Arc<Memtable>,
    taken_back: u64,
    versions: Vec<Option<KeyVersion>>,
}

impl Below {
    fn holds(&self, active: &Arc<Memtable>, taken_back: u64) -> bool {
        Arc::ptr_eq(&self.active, active) && self.taken_back == taken_back
    }
}

impl Shared {
    /// The newest value of `key`.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Read> {
        let version = self.state().get(key, SeqNo::MAX)?;
        Ok(Read::of(version, &self.clock_once()))
    }

    /// The newest value of each of `keys`, all as of one moment.
    pub(crate) fn read_many(&self, keys: &[&[u8]]) -> Result<Few<Read>> {
        let (state, now) = (self.state(), self.clock_once());
        let cached = state.get_cached(keys, SeqNo::MAX).into_iter().zip(keys);
        cached
            .map(|(cached, key)| match cached {
                Cached::Found(version) => Ok(Read::of(Some(version), &now)),
                Cached::Absent => Ok(Read::of(None, &now)),
                Cached::Unknown => Ok(Read::of(state.get_below_active(key, SeqNo::MAX)?, &now)),
            })
            .collect()
    }

    /// As [`Shared::read_many`], for those keys for which no file has to be read.
    pub(crate) fn read_cached(&self, keys: &[&[u8]]) -> Few<Option<Read>> {
        let now = self.clock_once();
        let cached = self.state().get_cached(keys, SeqNo::MAX).into_iter();
        cached
            .map(|cached| match cached {
                Cached::Found(version) => Some(Read::of(Some(version), &now)),
                Cached::Absent => Some(Read::of(None, &now)),
                Cached::Unknown => None,
            })
            .collect()
    }

    /// The time at the first call, and no look at the clock without one: most values never expire.
    fn clock_once(&self) -> LazyCell<u64, impl FnOnce() -> u64> {
        LazyCell::new(|| self.options.clock.now())
    }

    /// Reads `keys` and lets `decide` fill a batch from what they hold; the batch is applied only if none of them
    /// changed meanwhile, else `decide` is asked again (it must have no other effect). An empty batch writes nothing.
    /// Does not wait for the log.
    ///
    /// Optimistic, in at most a few rounds. Under the Writer lock: if the active memtable has every key, decide and apply
    /// there and then. If not, let go of the lock, read the others below it, and come back; what was read holds if the
    /// same memtable is still active, still without the key, and nothing was taken back meanwhile, because then nothing
    /// newer can exist below either.
    pub(crate) fn transact<T>(
        &self,
        keys: &[&[u8]],
        mut decide: impl FnMut(&[Option<Found>], &mut WriteBatch) -> T,
    ) -> Result<Outcome<T>> {
        self.slow_down()?;
        let mut below: Option<Below> = None;
        loop {
            let mut writer = self.commit.writer();
            self.wait_for_room(&mut writer);
            writer.check_open()?;
            let taken_back = self.commit.taken_back();
            let known = below.take().filter(|below| below.holds(&writer.active, taken_back));
            let mut versions: Vec<Option<KeyVersion>> = Vec::with_capacity(keys.len());
            let mut complete = true;
            for (at, key) in keys.iter().enumerate() {
                versions.push(match (writer.active.get(key, SeqNo::MAX), &known) {
                    (Some(version), _) => Some(version),
                    (None, Some(below)) => below.versions[at].clone(),
                    (None, None) => {
                        complete = false;
                        break;
                    }
                });
            }
            if complete {
                return self.decide(&mut writer, versions, &mut decide);
            }
            let state = self.state();
            let active = writer.active.clone();
            drop(writer);
            let versions = keys.iter().map(|key| state.get_below_active(key, SeqNo::MAX)).collect::<Result<_>>()?;
            below = Some(Below { active, taken_back, versions });
        }
    }

    fn decide<T>(
        &self,
        writer: &mut Writer,
        versions: Vec<Option<KeyVersion>>,
        decide: &mut impl FnMut(&[Option<Found>], &mut WriteBatch) -> T,
    ) -> Result<Outcome<T>> {
        let now = self.options.clock.now();
        let depends = versions.iter().flatten().map(|version| version.seq).max().unwrap_or_default();
        let found: Vec<Option<Found>> = versions
            .into_iter()
            .map(|version| version.and_then(|version| alive(version.kind, || version.value, now)))
            .collect();
        let mut batch = WriteBatch::new();
        let value = decide(&found, &mut batch);
        if batch.is_empty() {
            return Ok(Outcome { value, seq: depends });
        }
        check(&batch)?;
        let seq = self.apply(writer, &batch)?;
        Ok(Outcome { value, seq })
    }

    /// Removes every key of each `start..end` (`None`: to the last key) in one batch. Does not wait for the log.
    ///
    /// The keys are collected at a snapshot, without a lock; under the Writer lock only those are added that were
    /// put since and are still in memory. What was put since and is in tables already is read in another round, without
    /// the lock again. That round has little to read; the one after it has less, and flushes wait for it, so that there
    /// is no other.
    pub(crate) fn delete_ranges(self: &Arc<Self>, ranges: &[(&[u8], Option<&[u8]>)]) -> Result<SeqNo> {
        'again: loop {
            let mut batch = WriteBatch::new();
            let taken_back = self.commit.taken_back();
            let mut covered = self.delete_at_snapshot(ranges, &mut batch)?;
            let mut flushes_wait = None;
            for round in 0.. {
                if round == 2 {
                    flushes_wait = Some(self.flushing.lock());
                }
                let mut writer = self.commit.writer();
                self.wait_for_room(&mut writer);
                writer.check_open()?;
                if taken_back != self.commit.taken_back() {
                    // What was read may have shown a delete that then failed.
                    continue 'again;
                }
                let state = self.state();
                let flushed = state.version.last_seq();
                if flushed > covered {
                    drop(writer);
                    self.delete_flushed_after(covered, &state.version, ranges, &mut batch)?;
                    covered = flushed;
                    continue;
                }
                for memtable in state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]) {
                    for &(start, end) in ranges {
                        for key in memtable.keys_put_after(covered, start, end) {
                            batch.delete(&key);
                        }
                    }
                }
                check(&batch)?;
                let applied = self.apply(&mut writer, &batch);
                drop(writer);
                drop(flushes_wait);
                return applied;
            }
        }
    }

    /// Adds what the ranges hold at a snapshot taken now; up to which position that is everything.
    fn delete_at_snapshot(
        self: &Arc<Self>,
        ranges: &[(&[u8], Option<&[u8]>)],
        batch: &mut WriteBatch,
    ) -> Result<SeqNo> {
        let snapshot = Snapshot::new(self, "a range delete".into());
        for &(start, end) in ranges {
            let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
            for entry in snapshot.range::<&[u8]>((Bound::Included(start), upper)).with_expired() {
                batch.delete(&entry?.key);
            }
        }
        Ok(snapshot.seq())
    }

    /// Adds the keys that were put after `covered` and are in tables.
    fn delete_flushed_after(
        &self,
        covered: SeqNo,
        version: &Version,
        ranges: &[(&[u8], Option<&[u8]>)],
        batch: &mut WriteBatch,
    ) -> Result<()> {
        for (_, table) in version.tables().filter(|(_, table)| table.meta.last_seq > covered) {
            for &(start, end) in ranges {
                let upper = end.map_or(Bound::Unbounded, Bound::Excluded).map(<[u8]>::to_vec);
                let range = KeyRange { lower: Bound::Included(start.to_vec()), upper };
                let tables = vec![table.clone()];
                let mut source = TablesSource::new(tables, range.clone(), Direction::Forward, ReadMode::Streaming);
                while source.advance()? && !range.is_behind(source.key(), Direction::Forward) {
                    if source.seq() > covered && source.kind() != Kind::Tombstone {
                        batch.delete(source.key());
                    }
                }
            }
        }
        Ok(())
    }
}
