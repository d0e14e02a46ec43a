//! Reads and read-modify-writes, with the position in history that their answers depend on.

use std::cell::LazyCell;
use std::sync::Arc;

use super::batch::WriteBatch;
use super::commit::{Writer, check};
use super::lookup::Cached;
use super::memtable::Memtable;
use super::shared::Shared;
use super::snapshot::{Found, alive};
use super::{Result, SeqNo};
use crate::codec::Few;
use crate::codec::defect::{Defect, seeded};
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
                let stale = known.is_some() && seeded(Defect::UpdateByStaleRead);
                versions.push(match (writer.active.get(key, SeqNo::MAX).filter(|_| !stale), &known) {
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
}
