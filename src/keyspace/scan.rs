//! A walk over a database in many calls, each of bounded work.
//!
//! Clients hold a cursor, a decimal number; the tree is ordered by key. So the keyspace remembers for each cursor the
//! last key that was looked at. **A key that is there from the start of the scan to its end is returned exactly
//! once**, whatever else is written meanwhile; one that comes or goes in between is returned at most once.
//!
//! Cursors are numbered upwards from the clock's time when the keyspace was opened, so that one from before a restart
//! is refused rather than taken for another scan's. Asking again with the same cursor gives the same place again.

use std::collections::VecDeque;

use super::layout;
use super::range::Order;
use super::{Database, Error, Kind, Result, glob};
use crate::codec::Slice;
use crate::engine::Outcome;

/// The newest so many cursors are remembered: many times more than there are scans at once.
const MAX_CURSORS: usize = 16 << 10;
/// And their keys' bytes, which long keys would make too many.
const MAX_CURSOR_BYTES: usize = 16 << 20;

/// Numbers left to a keyspace for each millisecond that it has been open: more scan calls than that cannot be
/// answered. Cursors stay below 2^53 this way, which is as far as JavaScript clients can count.
const CURSORS_PER_MS: u64 = 256;

/// What a scan looks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScanOptions<'a> {
    /// Only keys that match this glob.
    pub(crate) pattern: Option<&'a [u8]>,
    /// Only keys of this type; `Some(None)` is a type that no key has.
    pub(crate) kind: Option<Option<Kind>>,
    /// How many keys to look at in this call, at least 1.
    pub(crate) count: u64,
}

/// One call's part of a scan.
#[derive(Debug)]
pub(crate) struct ScanPage {
    /// What to go on with; 0 when the scan has ended.
    pub(crate) cursor: u64,
    pub(crate) keys: Vec<Slice>,
}

/// The newest cursors: for each the database and the last key that was looked at.
pub(super) struct Cursors {
    /// Consecutive numbers, the first being `oldest`.
    places: VecDeque<(u8, Slice)>,
    oldest: u64,
    bytes: usize,
}

impl Cursors {
    pub(super) fn starting_at(now: u64) -> Cursors {
        let oldest = now.saturating_mul(CURSORS_PER_MS).clamp(1, 1 << 60);
        Cursors { places: VecDeque::new(), oldest, bytes: 0 }
    }

    fn find(&self, cursor: u64, database: u8) -> Option<Slice> {
        let at = usize::try_from(cursor.checked_sub(self.oldest)?).ok()?;
        self.places.get(at).filter(|place| place.0 == database).map(|place| place.1.clone())
    }

    fn add(&mut self, database: u8, last: &[u8]) -> u64 {
        let cursor = self.oldest + self.places.len() as u64;
        // A copy: the key's slice would keep a whole block alive.
        self.places.push_back((database, Slice::copy_from(last)));
        self.bytes += last.len();
        while self.places.len() > MAX_CURSORS || self.bytes > MAX_CURSOR_BYTES {
            let Some((_, dropped)) = self.places.pop_front() else { break };
            self.bytes -= dropped.len();
            self.oldest += 1;
        }
        cursor
    }
}

impl Database<'_> {
    /// The next part of a scan; cursor 0 begins one.
    pub(crate) fn scan(&self, cursor: u64, options: ScanOptions<'_>) -> Result<Outcome<ScanPage>> {
        let mut range = self.prefixed(options.pattern.map_or(b"", glob::literal_prefix));
        if cursor != 0 {
            let last = self.keyspace.cursors.lock().find(cursor, self.number).ok_or(Error::UnknownCursor)?;
            range.start_at_least(layout::user_bound_after(self.number, &last));
        }
        let mut entries = self.entries(&range, Order::Forward);
        let seq = entries.seq;
        let mut keys = Vec::new();
        for looked_at in 1.. {
            let Some(entry) = entries.next() else { break };
            let (key, value) = entry?;
            let fits = options.kind.is_none_or(|kind| kind == Some(value.kind))
                && options.pattern.is_none_or(|pattern| glob::matches(pattern, &key));
            if fits {
                keys.push(key.clone());
            }
            if looked_at >= options.count {
                // Whether there is more is left to the next call: looking would be work beyond the count.
                let cursor = self.keyspace.cursors.lock().add(self.number, &key);
                return Ok(Outcome { value: ScanPage { cursor, keys }, seq });
            }
        }
        Ok(Outcome { value: ScanPage { cursor: 0, keys }, seq })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::testing::Fixture;
    use super::*;

    fn scan_all(database: Database<'_>, pattern: Option<&[u8]>, count: u64) -> Vec<Slice> {
        let (mut cursor, mut all) = (0, Vec::new());
        loop {
            let page = database.scan(cursor, ScanOptions { pattern, kind: None, count }).unwrap().value;
            all.extend(page.keys);
            cursor = page.cursor;
            if cursor == 0 {
                return all;
            }
        }
    }

    #[test]
    fn keys_that_stay_are_returned_exactly_once_while_others_come_and_go() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(0);
        for number in 0..500 {
            database.put(format!("stay:{number}").as_bytes(), b"").unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let keyspace = &fixture.keyspace;
            let done = &done;
            scope.spawn(move || {
                let database = keyspace.database(0);
                for round in 0u64.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("stay:{}:", round * 7919 % 500);
                    match round / 500 % 2 {
                        0 => drop(database.put(key.as_bytes(), b"").unwrap()),
                        _ => drop(database.delete([key.as_bytes()].into_iter()).unwrap()),
                    }
                }
            });
            for count in [1, 7, 100] {
                let mut stayed: Vec<Slice> = scan_all(database, Some(b"stay:*"), count)
                    .into_iter()
                    .filter(|key| key.iter().filter(|&&byte| byte == b':').count() == 1)
                    .collect();
                let all = stayed.len();
                stayed.sort();
                stayed.dedup();
                assert_eq!((all, stayed.len()), (500, 500));
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn count_bounds_the_keys_looked_at_and_a_literal_prefix_narrows_them() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(0);
        for key in ["a1", "a2", "b1", "b2", "b3", "c1"] {
            database.put(key.as_bytes(), b"").unwrap();
        }
        let options = ScanOptions { pattern: Some(b"*2"), kind: None, count: 1 };
        let page = database.scan(0, options).unwrap().value;
        assert!(page.keys.is_empty() && page.cursor != 0);
        let options = ScanOptions { pattern: Some(b"b*"), kind: None, count: 4 };
        let page = database.scan(0, options).unwrap().value;
        assert_eq!((page.keys.len(), page.cursor), (3, 0));
        let options = ScanOptions { pattern: None, kind: Some(None), count: 10 };
        assert!(database.scan(0, options).unwrap().value.keys.is_empty());
    }

    #[test]
    fn cursors_of_the_past_and_of_other_databases_are_refused() {
        let fixture = Fixture::new();
        let database = fixture.keyspace.database(0);
        for number in 0..3 {
            database.put(&[number], b"").unwrap();
        }
        let options = ScanOptions { pattern: None, kind: None, count: 1 };
        let first = database.scan(0, options).unwrap().value.cursor;
        assert_eq!(database.scan(first, options).unwrap().value.keys, [Slice::copy_from(&[1])]);
        assert_eq!(database.scan(first, options).unwrap().value.keys, [Slice::copy_from(&[1])]);
        assert!(matches!(fixture.keyspace.database(1).scan(first, options), Err(Error::UnknownCursor)));
        assert!(matches!(database.scan(1, options), Err(Error::UnknownCursor)));
        assert!(matches!(database.scan(u64::MAX, options), Err(Error::UnknownCursor)));
        let mut cursors = fixture.keyspace.cursors.lock();
        for _ in 0..MAX_CURSORS {
            cursors.add(0, b"key");
        }
        assert_eq!(cursors.find(first, 0), None);
        for _ in 0..2 * MAX_CURSOR_BYTES / 60_000 {
            cursors.add(0, &[7; 60_000]);
        }
        assert!(cursors.bytes <= MAX_CURSOR_BYTES);
    }
}
