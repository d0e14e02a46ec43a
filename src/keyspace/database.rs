//! One numbered database: read, set, update and delete by key.
//!
//! A plain SET reads nothing: it cannot know the old expiry, so an index entry of an overwritten value stays behind
//! until its time comes and the sweep finds it outdated. Everything else goes through a read-modify-write and leaves
//! the index exact.

use std::cell::RefCell;

use super::edit::{Edit, index, put_stored};
use super::layout::{self, user_key};
use super::value::{Value, with_string};
use super::{Keyspace, Result};
use crate::codec::Few;
use crate::engine::{Db, Outcome, Read, SeqNo, WriteBatch};

/// A handle to one database.
#[derive(Clone, Copy)]
pub(crate) struct Database<'a> {
    pub(super) keyspace: &'a Keyspace,
    pub(super) number: u8,
}

/// Whether a SET happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    #[default]
    Always,
    IfAbsent,
    IfPresent,
}

/// How long the new value lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lifetime {
    #[default]
    Forever,
    /// As long as the old value would have.
    Keep,
    /// Milliseconds since 1970. A time that has passed removes the key.
    Until(u64),
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetOptions {
    pub(crate) condition: Condition,
    pub(crate) lifetime: Lifetime,
    /// Whether [`SetResult::previous`] is wanted.
    pub(crate) previous: bool,
}

pub(crate) struct SetResult {
    pub(crate) written: bool,
    /// What the key held before, if that was asked for.
    pub(crate) previous: Option<Value>,
}

impl<'a> Database<'a> {
    pub(super) fn db(&self) -> &'a Db {
        &self.keyspace.db
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Outcome<Option<Value>>> {
        let read = self.db().read(&user_key(self.number, key)?)?;
        Ok(Outcome { value: read.found.as_ref().map(Value::decode).transpose()?, seq: read.seq })
    }

    /// What each of `keys` held at one moment.
    pub(crate) fn get_many<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
    ) -> Result<Outcome<Vec<Option<Value>>>> {
        let keys = EngineKeys::collect(self.number, keys)?;
        let read = self.db().read_many(&keys.slices())?;
        let seq = read.iter().map(|read| read.seq).max().unwrap_or_default();
        let values = read.iter().map(|read| read.found.as_ref().map(Value::decode).transpose());
        Ok(Outcome { value: values.collect::<Result<_>>()?, seq })
    }

    /// [`Database::get`] for each of `keys`, where that takes no reading of files; `None` where it does, or fails.
    pub(crate) fn get_cached<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
    ) -> Few<Option<Outcome<Option<Value>>>> {
        let count = keys.len();
        let Ok(keys) = EngineKeys::collect(self.number, keys) else { return (0..count).map(|_| None).collect() };
        let read = self.db().read_cached(&keys.slices()).into_iter();
        read.map(|read| {
            let Read { found, seq } = read?;
            Some(Outcome { value: found.as_ref().map(Value::decode).transpose().ok()?, seq })
        })
        .collect()
    }

    /// How many of `keys` exist, at one moment; one that is named twice counts twice.
    pub(crate) fn exists<'k>(&self, keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Result<Outcome<u64>> {
        let keys = EngineKeys::collect(self.number, keys)?;
        let read = self.db().read_many(&keys.slices())?;
        let seq = read.iter().map(|read| read.seq).max().unwrap_or_default();
        Ok(Outcome { value: read.iter().filter(|read| read.found.is_some()).count() as u64, seq })
    }

    /// Sets `key` to `data` and forgets its expiry.
    #[cfg(test)]
    pub(crate) fn put(&self, key: &[u8], data: &[u8]) -> Result<Outcome<()>> {
        self.put_until(key, data, None)
    }

    pub(crate) fn set(&self, key: &[u8], data: &[u8], options: SetOptions) -> Result<Outcome<SetResult>> {
        let blind = options.condition == Condition::Always && !options.previous;
        match options.lifetime {
            Lifetime::Forever if blind => return Ok(written(self.put_until(key, data, None)?)),
            Lifetime::Until(at) if blind && at > self.db().now() => {
                return Ok(written(self.put_until(key, data, Some(at))?));
            }
            _ => {}
        }
        let outcome = self.update(key, |edit| -> Result<SetResult> {
            let previous = edit.current().filter(|_| options.previous).cloned();
            let written = match options.condition {
                Condition::Always => true,
                Condition::IfAbsent => edit.current().is_none(),
                Condition::IfPresent => edit.current().is_some(),
            };
            if written {
                match options.lifetime {
                    Lifetime::Forever => edit.put(&[data], None)?,
                    Lifetime::Keep => edit.put_keeping_expiry(&[data])?,
                    Lifetime::Until(at) if at > self.db().now() => edit.put(&[data], Some(at))?,
                    Lifetime::Until(_) => edit.delete(),
                }
            }
            Ok(SetResult { written, previous })
        })?;
        Ok(Outcome { value: outcome.value?, seq: outcome.seq })
    }

    /// Sets all keys together; of equal keys the last counts.
    pub(crate) fn put_many<'k>(&self, pairs: impl Iterator<Item = (&'k [u8], &'k [u8])>) -> Result<Outcome<()>> {
        let mut batch = WriteBatch::new();
        for (key, data) in pairs {
            let key = user_key(self.number, key)?;
            with_string(&[data], |stored| batch.put(&key, stored))?;
        }
        Ok(Outcome { value: (), seq: self.db().submit(&batch)? })
    }

    /// Sets all keys together if none of them exists; tells whether it did.
    pub(crate) fn put_many_if_absent<'k>(
        &self,
        pairs: impl ExactSizeIterator<Item = (&'k [u8], &'k [u8])> + Clone,
    ) -> Result<Outcome<bool>> {
        let keys = EngineKeys::collect(self.number, pairs.clone().map(|(key, _)| key))?;
        let slices = keys.slices();
        let Outcome { value, seq } = self.db().transact(&slices, |found, batch| {
            if found.iter().any(Option::is_some) {
                return Ok(false);
            }
            for (key, (_, data)) in slices.iter().zip(pairs.clone()) {
                with_string(&[data], |stored| batch.put(key, stored))?;
            }
            Ok(true)
        })?;
        value.map(|value| Outcome { value, seq })
    }

    /// Asks `decide` what becomes of `key`, as often as needed until nobody came between.
    pub(crate) fn update<T>(&self, key: &[u8], mut decide: impl FnMut(&mut Edit<'_>) -> T) -> Result<Outcome<T>> {
        let key = user_key(self.number, key)?;
        let mut expires_at = None;
        let Outcome { value, seq } = self.db().transact(&[&key], |found, batch| {
            let mut edit = Edit::new(self.number, &key, found[0].as_ref(), batch)?;
            let value = decide(&mut edit);
            expires_at = edit.indexed();
            Ok(value)
        })?;
        if let Some(at) = expires_at {
            self.keyspace.expires_at(at);
        }
        value.map(|value| Outcome { value, seq })
    }

    /// Removes `keys` together; tells how many there were.
    pub(crate) fn delete<'k>(&self, keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Result<Outcome<u64>> {
        let keys = EngineKeys::collect(self.number, keys)?;
        let mut slices = keys.slices();
        // A key that is named twice is deleted once.
        slices.sort_unstable();
        slices.dedup();
        let Outcome { value, seq } = self.db().transact(&slices, |found, batch| {
            let mut deleted = 0;
            for (key, found) in slices.iter().zip(found).filter(|(_, found)| found.is_some()) {
                // Deleting needs no decoding, so that a value of an unknown type can be got rid of.
                batch.delete(key);
                if let Some(at) = found.as_ref().and_then(|found| found.expires_at) {
                    batch.delete(&layout::expiry_key(self.number, at, &key[1..]));
                }
                deleted += 1;
            }
            deleted
        })?;
        Ok(Outcome { value, seq })
    }

    /// Removes every key of this database.
    pub(crate) fn delete_all(&self) -> Result<Outcome<()>> {
        let (index_start, index_end) = layout::expiry_bounds(self.number);
        let start = layout::user_bound(self.number, b"");
        let end = layout::user_bound_after_prefix(self.number, b"");
        // In one batch: a crash leaves both or neither.
        let mut batch = WriteBatch::new();
        batch.delete_range(&index_start, Some(&index_end));
        batch.delete_range(&start, Some(&end));
        Ok(Outcome { value: (), seq: self.db().submit(&batch)? })
    }

    fn put_until(&self, key: &[u8], data: &[u8], expires_at: Option<u64>) -> Result<Outcome<()>> {
        thread_local! {
            static BATCH: RefCell<WriteBatch> = RefCell::default();
        }
        /// As for the value buffer: one large value must not hold its memory for ever.
        const KEPT_BYTES: usize = 64 << 10;

        let engine_key = user_key(self.number, key)?;
        let seq = BATCH.with_borrow_mut(|batch| -> Result<SeqNo> {
            batch.clear();
            with_string(&[data], |stored| put_stored(batch, &engine_key, stored, expires_at))?;
            if let Some(at) = expires_at {
                index(batch, self.number, at, key);
            }
            let seq = self.db().submit(batch);
            if batch.bytes().len() > KEPT_BYTES {
                *batch = WriteBatch::new();
            }
            Ok(seq?)
        })?;
        if let Some(at) = expires_at {
            self.keyspace.expires_at(at);
        }
        Ok(Outcome { value: (), seq })
    }
}

fn written(outcome: Outcome<()>) -> Outcome<SetResult> {
    Outcome { value: SetResult { written: true, previous: None }, seq: outcome.seq }
}

/// Engine keys of one request, in one allocation.
struct EngineKeys {
    bytes: Vec<u8>,
    ends: Few<usize>,
}

impl EngineKeys {
    fn collect<'k>(database: u8, keys: impl ExactSizeIterator<Item = &'k [u8]>) -> Result<EngineKeys> {
        /// Most keys are shorter.
        const USUAL_BYTES: usize = 48;
        let mut all = EngineKeys { bytes: Vec::with_capacity(keys.len() * USUAL_BYTES), ends: Few::new() };
        for key in keys {
            all.bytes.extend_from_slice(&user_key(database, key)?);
            all.ends.push(all.bytes.len());
        }
        Ok(all)
    }

    fn slices(&self) -> Few<&[u8]> {
        let mut start = 0;
        self.ends.iter().map(|&end| &self.bytes[std::mem::replace(&mut start, end)..end]).collect()
    }
}
