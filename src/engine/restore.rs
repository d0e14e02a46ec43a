//! Bringing a key range back to what it was at a time, in one batch: what was there then is put, what came since is
//! deleted, and what has not changed is not written.
//!
//! The range is compared as of the time with what it is now, at two snapshots and without a lock. What is written to it
//! meanwhile is found under the Writer lock, as for a range delete: keys that changed are in memtables, or in tables that
//! were flushed since; a range delete names none, and the comparison begins anew. Each gets what it was at the time, too. That is looked up under the lock where memory has it;
//! where a file must be read, the lock is given back for it, and then what is left to do is looked for anew: it takes as
//! many rounds as there are blocks that nobody has read yet, and few.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use super::batch::WriteBatch;
use super::commit::{MAX_BATCH_BYTES, check};
use super::history::restorable;
use super::lookup::Cached;
use super::merge::{Direction, Source};
use super::range::Entry;
use super::shared::{Shared, State};
use super::snapshot::{Found, Snapshot};
use super::sources::{KeyRange, TablesSource};
use super::{Error, Outcome, Result, SeqNo};
use crate::storage::Fragments;
use crate::storage::sstable::ReadMode;

/// Ranges of keys, `start..end`; without an end, to the last key.
pub(crate) type Ranges<'a> = [(&'a [u8], Option<&'a [u8]>)];

/// What a restored value takes along, into the same batch.
pub(crate) type Along<'a> = dyn FnMut(&[u8], &Found, &mut WriteBatch) + 'a;

/// A restoration being gathered.
struct Restoration<'a, 'b> {
    past: Snapshot,
    when: u64,
    now: u64,
    batch: WriteBatch,
    /// The keys of the batch. Whatever else happens to one, it becomes what it was.
    keys: HashSet<Box<[u8]>>,
    along: &'a mut Along<'b>,
}

impl Shared {
    /// Makes the ranges what they were at `when`, atomically; how many keys were written. Does not wait for the log.
    pub(crate) fn restore(
        self: &Arc<Self>,
        when: u64,
        ranges: &Ranges<'_>,
        along: &mut Along<'_>,
    ) -> Result<Outcome<u64>> {
        self.slow_down()?;
        'again: loop {
            let taken_back = self.commit.taken_back();
            let past = Snapshot::at(self, "a restoration".into(), when)?;
            let now = self.options.clock.now();
            let mut restoration =
                Restoration { past, when, now, batch: WriteBatch::new(), keys: HashSet::new(), along };
            let compared = restoration.compare(self, ranges)?;
            let mut covered = compared;
            let mut flushes_wait = None;
            for round in 0.. {
                if round == 2 {
                    flushes_wait = Some(self.flushing.lock());
                }
                let mut writer = self.commit.writer();
                self.wait_for_room(&mut writer);
                writer.check_open()?;
                if taken_back != self.commit.taken_back() {
                    // What was read as the present may have failed since.
                    continue 'again;
                }
                let state = self.state();
                let flushed = state.version.last_seq();
                if flushed > covered {
                    drop(writer);
                    let changed = self.flushed_after(covered, ranges)?;
                    restoration.look_up(&changed)?;
                    covered = flushed;
                    continue;
                }
                if deletes_after(&state, compared, ranges)? {
                    // Of many keys at once, and none of them is named.
                    continue 'again;
                }
                let mut unknown = Vec::new();
                for memtable in state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]) {
                    for &(start, end) in ranges {
                        for key in memtable.keys_after(covered, start, end) {
                            if restoration.keys.contains(&*key) {
                                continue;
                            }
                            match state.get_cached(&[&key], restoration.past.seq()).pop() {
                                Some(Cached::Found(version)) => restoration.becomes(&key, Some(version)),
                                Some(Cached::Absent) => restoration.becomes(&key, None),
                                Some(Cached::Unknown) | None => unknown.push(key.to_vec()),
                            }
                        }
                    }
                }
                if !unknown.is_empty() {
                    drop(writer);
                    restoration.look_up(&unknown)?;
                    continue;
                }
                restoration.past.check()?;
                restoration.check_size()?;
                check(&restoration.batch)?;
                let seq = self.apply(&mut writer, &restoration.batch)?;
                drop(writer);
                drop(flushes_wait);
                return Ok(Outcome { value: restoration.keys.len() as u64, seq });
            }
        }
    }

    /// The keys that changed after `covered`, as far as tables have them.
    fn flushed_after(&self, covered: SeqNo, ranges: &Ranges<'_>) -> Result<Vec<Vec<u8>>> {
        let state = self.state();
        let mut keys = Vec::new();
        for (_, table) in state.version.tables().filter(|(_, table)| table.meta.last_seq > covered) {
            for &(start, end) in ranges {
                let upper = end.map_or(Bound::Unbounded, Bound::Excluded).map(<[u8]>::to_vec);
                let range = KeyRange { lower: Bound::Included(start.to_vec()), upper };
                let mut source =
                    TablesSource::new(vec![table.clone()], range.clone(), Direction::Forward, ReadMode::Streaming);
                while source.advance()? && !range.is_behind(source.key(), Direction::Forward) {
                    if source.seq() > covered {
                        keys.push(source.key().to_vec());
                    }
                }
            }
        }
        Ok(keys)
    }
}

/// Whether a range tombstone above `covered` meets one of the ranges.
fn deletes_after(state: &State, covered: SeqNo, ranges: &Ranges<'_>) -> Result<bool> {
    let meets = |fragments: &Fragments| {
        let newer = fragments.iter().filter(|fragment| fragment.newest(SeqNo::MAX) > Some(covered));
        newer.into_iter().any(|fragment| ranges.iter().any(|(start, end)| fragment.within(start, *end).is_some()))
    };
    let memtables = state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]);
    if memtables.filter(|memtable| memtable.has_ranges()).any(|memtable| meets(&memtable.ranges())) {
        return Ok(true);
    }
    for (_, table) in state.version.tables().filter(|(_, table)| table.meta.last_seq > covered) {
        if meets(table.ranges()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Restoration<'_, '_> {
    /// Gathers where the past differs from the present; up to which position the present was looked at.
    fn compare(&mut self, shared: &Arc<Shared>, ranges: &Ranges<'_>) -> Result<SeqNo> {
        let present = Snapshot::new(shared, "a restoration".into());
        for &(start, end) in ranges {
            let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
            let mut past = self.past.range::<&[u8]>(bounds);
            let mut present = present.range::<&[u8]>(bounds);
            let (mut was, mut is) = (past.next().transpose()?, present.next().transpose()?);
            loop {
                let order = match (&was, &is) {
                    (None, None) => break,
                    (Some(_), None) => std::cmp::Ordering::Less,
                    (None, Some(_)) => std::cmp::Ordering::Greater,
                    (Some(was), Some(is)) => was.key.cmp(&is.key),
                };
                let then = if order.is_le() { std::mem::replace(&mut was, past.next().transpose()?) } else { None };
                let now = if order.is_ge() { std::mem::replace(&mut is, present.next().transpose()?) } else { None };
                self.differ(then, now)?;
            }
        }
        Ok(present.seq())
    }

    /// What one key was, and what it is.
    fn differ(&mut self, was: Option<Entry>, is: Option<Entry>) -> Result<()> {
        let lasting = was.filter(|entry| entry.expires_at.is_none_or(|at| at > self.now));
        if lasting == is {
            return Ok(());
        }
        match (lasting, is) {
            (Some(Entry { key, value, expires_at }), _) => self.put(&key, &Found { value, expires_at }),
            (None, Some(entry)) => self.delete(&entry.key),
            (None, None) => {}
        }
        self.check_size()
    }

    /// Looks up what keys were, and lets them become that.
    fn look_up(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        for key in keys {
            if !self.keys.contains(&**key) {
                let found = self.past.get(key)?.filter(|found| found.expires_at.is_none_or(|at| at > self.now));
                match found {
                    Some(found) => self.put(key, &found),
                    None => self.delete(key),
                }
            }
        }
        self.check_size()
    }

    fn becomes(&mut self, key: &[u8], version: Option<crate::storage::Version>) {
        match restorable(version, self.when, self.now) {
            Some(found) => self.put(key, &found),
            None => self.delete(key),
        }
    }

    fn put(&mut self, key: &[u8], found: &Found) {
        match found.expires_at {
            Some(at) => self.batch.put_expiring(key, &found.value, at),
            None => self.batch.put(key, &found.value),
        }
        (self.along)(key, found, &mut self.batch);
        self.keys.insert(key.into());
    }

    fn delete(&mut self, key: &[u8]) {
        self.batch.delete(key);
        self.keys.insert(key.into());
    }

    fn check_size(&self) -> Result<()> {
        if self.batch.bytes().len() > MAX_BATCH_BYTES {
            let what = format!(
                "to restore all of it at once takes more than the {MAX_BATCH_BYTES} bytes that one batch may have: \
                 nothing was changed; restore it range by range"
            );
            return Err(Error::InvalidArgument(what));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
