//! Reads and read-modify-writes, with the position in history that their answers depend on.

use std::ops::Bound;
use std::sync::Arc;

use super::batch::WriteBatch;
use super::commit::check;
use super::shared::Shared;
use super::snapshot::{Found, Snapshot, alive};
use super::{Result, SeqNo};
use crate::storage::{Kind, Version as KeyVersion};

/// What a read saw, and the position in history that the answer depends on: whoever is told the answer must not be
/// told before that position is durable. `SeqNo(0)` is always durable.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) found: Option<Found>,
    pub(crate) seq: SeqNo,
}

/// What a read-modify-write decided, and the position that its answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Outcome<T> {
    pub(crate) value: T,
    pub(crate) seq: SeqNo,
}

fn seq_of(version: &Option<KeyVersion>) -> SeqNo {
    version.as_ref().map_or(SeqNo(0), |version| version.seq)
}

impl Shared {
    /// The newest value of `key`.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Read> {
        let version = self.state().get(key, SeqNo::MAX)?;
        let seq = seq_of(&version);
        let found = version.and_then(|version| {
            // The clock is read only where something expires: most values never do.
            let expires = matches!(version.kind, Kind::Put { expires_at: Some(_) });
            let now = if expires { self.options.clock.now() } else { 0 };
            alive(version.kind, || version.value, now)
        });
        Ok(Read { found, seq })
    }

    /// Reads `keys` and lets `decide` fill a batch from what they hold; the batch is applied only if none of them
    /// changed meanwhile, else `decide` is asked again (it must have no other effect). An empty batch writes nothing.
    /// Does not wait for the log.
    ///
    /// Optimistic: a key that is in the active memtable is read and decided on under the Writer lock in one go. Any
    /// other is read before, without a lock; that reading holds if under the lock the same memtable is active, still
    /// without the key, and nothing was taken back meanwhile, because then nothing newer can exist below either.
    pub(crate) fn transact<T>(
        &self,
        keys: &[&[u8]],
        mut decide: impl FnMut(&[Option<Found>], &mut WriteBatch) -> T,
    ) -> Result<Outcome<T>> {
        self.slow_down();
        let mut batch = WriteBatch::new();
        let mut found = Vec::with_capacity(keys.len());
        'again: loop {
            let taken_back = self.commit.taken_back();
            let state = self.state();
            // `None` where the active memtable has the key.
            let mut below: Vec<Option<Option<KeyVersion>>> = Vec::with_capacity(keys.len());
            for key in keys {
                below.push(match state.active.newest_seq(key) {
                    Some(_) => None,
                    None => Some(state.get_below_active(key, SeqNo::MAX)?),
                });
            }

            let mut writer = self.commit.writer();
            self.wait_for_room(&mut writer);
            writer.check_open()?;
            if !Arc::ptr_eq(&writer.active, &state.active) || taken_back != self.commit.taken_back() {
                continue 'again;
            }
            let now = self.options.clock.now();
            let mut depends = SeqNo(0);
            found.clear();
            for (key, below) in keys.iter().zip(below) {
                let version = match (writer.active.get(key, SeqNo::MAX), below) {
                    (Some(version), _) => Some(version),
                    (None, Some(below)) => below,
                    (None, None) => continue 'again,
                };
                depends = depends.max(seq_of(&version));
                found.push(version.and_then(|version| alive(version.kind, || version.value, now)));
            }
            batch.clear();
            let value = decide(&found, &mut batch);
            if batch.is_empty() {
                return Ok(Outcome { value, seq: depends });
            }
            check(&batch)?;
            let seq = self.apply(&mut writer, &batch)?;
            return Ok(Outcome { value, seq });
        }
    }

    /// Removes every key of `start..end` (`None`: to the last key) in one batch. Does not wait for the log.
    ///
    /// The keys are collected at a snapshot, without a lock; under the Writer lock only those are added that were
    /// put since, all of which are still in memory.
    pub(crate) fn delete_range(self: &Arc<Self>, start: &[u8], end: Option<&[u8]>) -> Result<SeqNo> {
        loop {
            let mut batch = WriteBatch::new();
            let snapshot = Snapshot::new(self);
            let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
            for entry in snapshot.range::<&[u8]>((Bound::Included(start), upper)).with_expired() {
                batch.delete(&entry?.key);
            }
            let mut writer = self.commit.writer();
            self.wait_for_room(&mut writer);
            writer.check_open()?;
            let state = self.state();
            if state.version.last_seq() > snapshot.seq() {
                // Something newer than the snapshot is in tables already: it would have to be read under the lock.
                continue;
            }
            for memtable in state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]) {
                for key in memtable.keys_put_after(snapshot.seq(), start, end) {
                    batch.delete(&key);
                }
            }
            check(&batch)?;
            return self.apply(&mut writer, &batch);
        }
    }
}
