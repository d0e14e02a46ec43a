//! What has expired is deleted for good: as a logged write, so that whoever follows the log sees it.
//!
//! The index holds an entry for each key that expires, in order of time. An entry may be outdated (the key was
//! overwritten since, or removed with its range), so each is checked against the key itself, in the same transaction
//! that deletes it. An outdated entry is dropped.
//!
//! `next_due` spares looking where nothing is due: it is never above the time of an entry whose write has returned.
//! Whoever writes an entry lowers it *afterwards*; the sweep raises it to infinity *before* it looks, and when it has
//! looked lowers it to what it has seen. So an entry that the sweep does not see yet is announced after the raise.

use std::sync::atomic::Ordering;

use super::layout::{self, parse_expiry_key};
use super::{Error, Keyspace, MAX_DATABASES, Result};
use crate::codec::Slice;

/// What one step of the sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Keys deleted.
    pub(crate) expired: u64,
    /// Outdated index entries dropped.
    pub(crate) outdated: u64,
    /// Whether the limit ended it, so that there may be more to do at once.
    pub(crate) more: bool,
}

impl Keyspace {
    /// Handles up to `limit` index entries whose time is not after `now` (milliseconds since 1970).
    pub(crate) fn sweep(&self, now: u64, limit: usize) -> Result<Swept> {
        if self.next_due.load(Ordering::Acquire) > now {
            return Ok(Swept::default());
        }
        self.next_due.store(u64::MAX, Ordering::SeqCst);
        let swept = self.sweep_due(now, limit);
        if !matches!(swept, Ok(Swept { more: false, .. })) {
            self.expires_at(now);
        }
        swept
    }

    /// A key expires at this time: to be called when that has been written.
    pub(super) fn expires_at(&self, time: u64) {
        self.next_due.fetch_min(time, Ordering::SeqCst);
    }

    fn sweep_due(&self, now: u64, limit: usize) -> Result<Swept> {
        let due = self.due(now, limit)?;
        let mut swept = Swept { more: due.len() == limit, ..Swept::default() };
        for entry in &due {
            match self.sweep_entry(entry, now)? {
                Fate::Expired => swept.expired += 1,
                Fate::Outdated => swept.outdated += 1,
            }
        }
        Ok(swept)
    }

    /// The index keys that are due, database by database.
    fn due(&self, now: u64, limit: usize) -> Result<Vec<Slice>> {
        let snapshot = self.db.snapshot_for("the sweep");
        let (_, end) = layout::expiry_bounds(MAX_DATABASES - 1);
        let mut due = Vec::new();
        let mut database = 0;
        while database < MAX_DATABASES {
            let (start, _) = layout::expiry_bounds(database);
            let mut next = MAX_DATABASES;
            for entry in snapshot.range(&start[..]..&end[..]) {
                let key = entry.map_err(Error::from)?.key;
                if due.len() == limit {
                    return Ok(due);
                }
                // What is no index entry was not written by this version; it is not ours to delete.
                let Some((of, expires_at, _)) = parse_expiry_key(&key) else { continue };
                if expires_at > now {
                    self.expires_at(expires_at);
                    // The rest of this database is for later. Seek to the next one that has entries at all.
                    next = of + 1;
                    break;
                }
                due.push(key);
            }
            database = next;
        }
        Ok(due)
    }

    fn sweep_entry(&self, entry: &[u8], now: u64) -> Result<Fate> {
        let Some((database, expires_at, key)) = parse_expiry_key(entry) else { return Ok(Fate::Outdated) };
        let engine_key = layout::user_key(database, key)?;
        let outcome = self.db.transact(&[&engine_key], |found, batch| {
            batch.delete(entry);
            match &found[0] {
                Some(found) if found.expires_at.is_none_or(|at| at != expires_at || at > now) => Fate::Outdated,
                // An expired value is hidden from us as from everybody: it cannot be told from none. Deleting a key
                // that is not there costs a tombstone and changes nothing.
                _ => {
                    batch.delete(&engine_key);
                    Fate::Expired
                }
            }
        })?;
        Ok(outcome.value)
    }
}

enum Fate {
    Expired,
    Outdated,
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, START};
    use super::super::{Lifetime, SetOptions};
    use super::*;

    fn set_until(fixture: &Fixture, database: u8, key: &[u8], at: u64) {
        let options = SetOptions { lifetime: Lifetime::Until(at), ..SetOptions::default() };
        fixture.keyspace.database(database).set(key, b"value", options).unwrap();
    }

    fn engine_keys(fixture: &Fixture) -> usize {
        fixture.keyspace.db.range::<&[u8]>(..).count()
    }

    #[test]
    fn what_is_due_is_deleted_and_the_rest_stays() {
        let fixture = Fixture::new();
        for database in [0, 5, 127] {
            for (key, after) in [(b"a", 10), (b"b", 20), (b"c", 30)] {
                set_until(&fixture, database, key, START + after);
            }
        }
        fixture.keyspace.database(0).put(b"for ever", b"value").unwrap();
        assert_eq!(fixture.keyspace.sweep(START, 100).unwrap(), Swept::default());
        fixture.advance(20);
        let swept = fixture.keyspace.sweep(START + 20, 100).unwrap();
        assert_eq!(swept, Swept { expired: 6, outdated: 0, more: false });
        for database in [0, 5, 127] {
            let database = fixture.keyspace.database(database);
            assert!(database.get(b"b").unwrap().value.is_none());
            assert!(database.get(b"c").unwrap().value.is_some());
        }
        // Three values that live on, their entries, and the one without.
        assert_eq!(engine_keys(&fixture), 3 + 3 + 1);
    }

    #[test]
    fn outdated_entries_are_dropped_and_their_keys_left_alone() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(0);
        set_until(&fixture, 0, b"overwritten", START + 10);
        database.put(b"overwritten", b"newer").unwrap();
        set_until(&fixture, 0, b"prolonged", START + 10);
        set_until(&fixture, 0, b"prolonged", START + 50);
        fixture.advance(30);
        let swept = fixture.keyspace.sweep(START + 30, 100).unwrap();
        assert_eq!(swept, Swept { expired: 0, outdated: 2, more: false });
        assert_eq!(&*database.get(b"overwritten").unwrap().value.unwrap().data, b"newer");
        assert!(database.get(b"prolonged").unwrap().value.is_some());
        assert_eq!(engine_keys(&fixture), 3);
    }

    #[test]
    fn updates_keep_the_index_exact() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(0);
        set_until(&fixture, 0, b"key", START + 10);
        database.update(b"key", |edit| edit.expire_at(Some(START + 20))).unwrap();
        assert_eq!(engine_keys(&fixture), 2);
        database.update(b"key", |edit| edit.put_keeping_expiry(&[b"x", b"y"])).unwrap().value.unwrap();
        assert_eq!(engine_keys(&fixture), 2);
        database.update(b"key", |edit| edit.expire_at(None)).unwrap();
        assert_eq!(engine_keys(&fixture), 1);
        assert_eq!(&*database.get(b"key").unwrap().value.unwrap().data, b"xy");
        set_until(&fixture, 0, b"key", START + 10);
        assert_eq!(database.delete([&b"key"[..], b"key"].into_iter()).unwrap().value, 1);
        assert_eq!(engine_keys(&fixture), 0);
    }

    #[test]
    fn the_limit_bounds_one_step_and_says_that_there_is_more() {
        let fixture = Fixture::new();
        for key in 0..10 {
            set_until(&fixture, key % 3, &[key], START + 1);
        }
        fixture.advance(1);
        let mut steps = Vec::new();
        loop {
            let swept = fixture.keyspace.sweep(START + 1, 4).unwrap();
            steps.push(swept.expired);
            if !swept.more {
                break;
            }
        }
        assert_eq!(steps, [4, 4, 2]);
        assert_eq!(engine_keys(&fixture), 0);
    }

    #[test]
    fn nothing_is_looked_for_before_something_is_due() {
        let fixture = Fixture::new();
        let next_due = || fixture.keyspace.next_due.load(Ordering::SeqCst);
        assert_eq!(next_due(), 0, "at first nobody knows");
        assert_eq!(fixture.keyspace.sweep(START, 2).unwrap(), Swept::default());
        assert_eq!(next_due(), u64::MAX);
        for (database, after) in [(3, 50), (0, 30), (7, 40)] {
            set_until(&fixture, database, b"key", START + after);
        }
        fixture.keyspace.database(9).put(b"key", b"value").unwrap();
        fixture.keyspace.database(9).update(b"key", |edit| edit.expire_at(Some(START + 20))).unwrap();
        assert_eq!(next_due(), START + 20);
        fixture.advance(40);
        let swept = |now| fixture.keyspace.sweep(now, 2).unwrap();
        assert_eq!(swept(START + 19), Swept::default());
        assert_eq!(swept(START + 40), Swept { expired: 2, outdated: 0, more: true });
        assert_eq!(swept(START + 40), Swept { expired: 1, outdated: 0, more: false });
        assert_eq!(next_due(), START + 50);
        assert_eq!(swept(START + 50), Swept { expired: 1, outdated: 0, more: false });
        assert_eq!(next_due(), u64::MAX);
    }

    #[test]
    fn a_flush_takes_the_index_along() {
        let fixture = Fixture::new();
        set_until(&fixture, 0, b"key", START + 10);
        set_until(&fixture, 1, b"key", START + 10);
        fixture.keyspace.database(0).delete_all().unwrap();
        assert_eq!(engine_keys(&fixture), 2);
        fixture.keyspace.delete_all().unwrap();
        assert_eq!(engine_keys(&fixture), 0);
    }
}
