//! SCAFFOLD: the engine's interface over a `BTreeMap`, so that the floors above can be built while the tree is.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::batch::Op;
use super::{Clock, Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Options, Result, SeqNo, WriteBatch};
use crate::codec::Slice;

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

/// Somebody who waits for the log. Called from the thread that synced: must not block.
pub(crate) trait Waiter: Send + Sync {
    /// Everything up to `seq` is durable. Never called with less than before.
    fn durable(&self, seq: SeqNo);
    /// Positions `after < seq <= upto` failed and were taken back; `error` says why.
    fn failed(&self, after: SeqNo, upto: SeqNo, error: &Error);
}

/// A database. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
}

struct Inner {
    map: BTreeMap<Vec<u8>, (SeqNo, Found)>,
    last: SeqNo,
}

/// A consistent view of one moment.
pub struct Snapshot {
    db: Db,
    map: BTreeMap<Vec<u8>, (SeqNo, Found)>,
    seq: SeqNo,
}

/// Entries of a key range at a snapshot, in key order.
pub struct Range {
    entries: std::vec::IntoIter<Entry>,
}

impl Range {
    /// The same entries from the last to the first. To be called before the first `next`.
    pub fn reversed(self) -> Range {
        let mut all: Vec<Entry> = self.entries.collect();
        all.reverse();
        Range { entries: all.into_iter() }
    }
}

impl Iterator for Range {
    type Item = Result<Entry>;
    fn next(&mut self) -> Option<Result<Entry>> {
        self.entries.next().map(Ok)
    }
}

impl Snapshot {
    /// The position in history that this snapshot shows.
    pub fn seq(&self) -> SeqNo {
        self.seq
    }

    /// The value of `key` at this snapshot (hidden if it has expired by now).
    pub fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        let now = self.db.clock.now();
        Ok(self.map.get(key).map(|(_, found)| found.clone()).filter(|found| found.expires_at.is_none_or(|at| at > now)))
    }

    /// The entries of a key range.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range {
        let now = self.db.clock.now();
        let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let entries: Vec<Entry> = self
            .map
            .range::<Vec<u8>, _>((own(range.start_bound()), own(range.end_bound())))
            .filter(|(_, (_, found))| found.expires_at.is_none_or(|at| at > now))
            .map(|(key, (_, found))| Entry {
                key: Slice::copy_from(key),
                value: found.value.clone(),
                expires_at: found.expires_at,
            })
            .collect();
        Range { entries: entries.into_iter() }
    }
}

impl Db {
    /// Opens the database in `directory`, creating both if needed.
    pub fn open(_directory: impl AsRef<Path>, options: Options) -> Result<Db> {
        let inner = Inner { map: BTreeMap::new(), last: SeqNo(0) };
        Ok(Db { inner: Arc::new(Mutex::new(inner)), clock: options.clock })
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(self.read(key)?.found.map(|found| found.value))
    }

    /// Sets `key` to `value`; returns when the write is as durable as the options say.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        self.write(&batch)
    }

    /// Removes `key`; returns when the write is as durable as the options say.
    pub fn delete(&self, key: &[u8]) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        batch.delete(key);
        self.write(&batch)
    }

    /// Writes a batch; returns when it is as durable as the options say.
    pub fn write(&self, batch: &WriteBatch) -> Result<SeqNo> {
        let seq = self.submit(batch)?;
        self.wait_durable(seq)?;
        Ok(seq)
    }

    /// A consistent view of this moment.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner.lock();
        Snapshot { db: self.clone(), map: inner.map.clone(), seq: inner.last }
    }

    /// The entries of a key range, at a snapshot taken now.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range {
        self.snapshot().range(range)
    }

    /// Writes what is in memory to tables.
    pub fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Compacts everything; returns when done.
    pub fn compact(&self) -> Result<()> {
        Ok(())
    }

    /// Flushes and closes; every later call fails with [`Error::Closed`].
    pub fn close(&self) -> Result<()> {
        Ok(())
    }

    /// Milliseconds since 1970 by the clock of the options.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The value of `key` and what the answer depends on.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Read> {
        let now = self.clock.now();
        let inner = self.inner.lock();
        Ok(match inner.map.get(key) {
            Some((seq, found)) => Read {
                found: Some(found.clone()).filter(|found| found.expires_at.is_none_or(|at| at > now)),
                seq: *seq,
            },
            None => Read { found: None, seq: SeqNo(0) },
        })
    }

    /// Applies a batch without waiting for the log: visible at once, to be acknowledged when the returned position is
    /// durable.
    pub(crate) fn submit(&self, batch: &WriteBatch) -> Result<SeqNo> {
        for op in batch.ops() {
            let (key, value): (&[u8], &[u8]) = match op {
                Op::Put { key, value, .. } => (key, value),
                Op::Delete { key } => (key, b""),
            };
            if key.is_empty() || key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
                return Err(Error::InvalidArgument("key or value out of bounds".into()));
            }
        }
        let mut inner = self.inner.lock();
        for op in batch.ops() {
            inner.last.0 += 1;
            let seq = inner.last;
            match op {
                Op::Put { key, value, expires_at } => {
                    inner.map.insert(key.to_vec(), (seq, Found { value: Slice::copy_from(value), expires_at }));
                }
                Op::Delete { key } => {
                    inner.map.remove(key);
                }
            }
        }
        Ok(inner.last)
    }

    /// Reads `keys` and lets `decide` fill a batch from what they hold; the batch is applied only if none of them
    /// changed meanwhile, else `decide` is asked again (it must have no other effect). An empty batch writes nothing.
    /// Does not wait for the log.
    pub(crate) fn transact<T>(
        &self,
        keys: &[&[u8]],
        mut decide: impl FnMut(&[Option<Found>], &mut WriteBatch) -> T,
    ) -> Result<Outcome<T>> {
        let mut batch = WriteBatch::new();
        let mut depends = SeqNo(0);
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let read = self.read(key)?;
            depends = depends.max(read.seq);
            found.push(read.found);
        }
        let value = decide(&found, &mut batch);
        if !batch.is_empty() {
            depends = self.submit(&batch)?;
        }
        Ok(Outcome { value, seq: depends })
    }

    /// Removes every key in `start..end` (end `None`: to the last key), atomically. Does not wait for the log.
    pub(crate) fn delete_range(&self, start: &[u8], end: Option<&[u8]>) -> Result<SeqNo> {
        let mut inner = self.inner.lock();
        inner.map.retain(|key, _| &key[..] < start || end.is_some_and(|end| &key[..] >= end));
        inner.last.0 += 1;
        Ok(inner.last)
    }

    /// The newest position that is durable.
    pub(crate) fn durable(&self) -> SeqNo {
        self.inner.lock().last
    }

    /// Calls `waiter` once `seq` is durable or has failed; at once, on this thread, if it already is. When the log is
    /// idle this thread syncs it first.
    pub(crate) fn when_durable(&self, seq: SeqNo, waiter: &Arc<dyn Waiter>) {
        waiter.durable(seq);
    }

    /// Blocks until `seq` is as durable as the options say.
    pub(crate) fn wait_durable(&self, _seq: SeqNo) -> Result<()> {
        Ok(())
    }
}
