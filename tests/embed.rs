//! What somebody who embeds the engine relies on beyond reading and writing: conditional writes that lose nothing, prefixes
//! that end where they should, ranges walked from both ends.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/held.rs"]
mod held;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chronos::codec::Rng;
use chronos::engine::{Clock, Durability, Entry, Found};
use chronos::fs::SimFs;
use chronos::fs::sim::CrashPolicy;
use chronos::{Db, Error, Options, WriteBatch};
use common::{tiny_options, until};
use held::{Call, HeldDisk};

fn number(found: &Option<Found>) -> u64 {
    found.as_ref().map_or(0, |found| std::str::from_utf8(&found.value).unwrap().parse().unwrap())
}

#[test]
fn updates_of_one_key_by_many_threads_are_all_counted() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let disk = SimFs::new();
    // Small memtables: many of the counts are read from tables.
    let db = Options::new().memtable_bytes(2_000).open_on(Arc::new(disk.clone())).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for round in 0..EACH {
                    let total = db.update(&[b"total", b"last"], |found, batch| {
                        let total = number(&found[0]) + 1;
                        batch.put(b"total", total.to_string().as_bytes());
                        batch.put(b"last", format!("{thread}{round:04}").as_bytes());
                        total
                    });
                    assert!(total.unwrap() > round);
                }
            });
        }
    });
    assert_eq!(db.get(b"total").unwrap().as_deref(), Some((THREADS * EACH).to_string().as_bytes()));
    // Acknowledged is durable: a machine that loses its power now has it all.
    let left = disk.image(disk.calls(), &CrashPolicy::Synced);
    let after = Options::new().open_on(Arc::new(left)).unwrap();
    assert_eq!(after.get(b"total").unwrap().as_deref(), Some((THREADS * EACH).to_string().as_bytes()));
}

#[test]
fn an_update_sees_what_was_written_while_it_read() {
    let disk = HeldDisk::new(&SimFs::new());
    let db = Options::new().stepped().open_on(disk.clone()).unwrap();
    db.put(b"total", b"1").unwrap();
    db.flush().unwrap();
    let read = disk.hold(Call::Read, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let add = |found: &[Option<Found>], batch: &mut WriteBatch| {
                batch.put(b"total", (number(&found[0]) + 1).to_string().as_bytes());
            };
            db.update(&[b"total"], add).unwrap();
        });
        read.wait();
        db.put(b"total", b"10").unwrap();
        drop(read);
    });
    assert_eq!(db.get(b"total").unwrap().as_deref(), Some(&b"11"[..]));
}

/// What an update has read below the active memtable may fail and be taken back before it decides.
#[test]
fn an_update_does_not_go_by_what_was_taken_back_while_it_read() {
    let disk = HeldDisk::new(&SimFs::new());
    let db = Options::new().memtable_bytes(2_000).open_on(disk.clone()).unwrap();
    db.put(b"total", b"1").unwrap();
    db.put(b"other", b"").unwrap();
    db.flush().unwrap();
    std::thread::scope(|scope| {
        let write = disk.hold(Call::WriteGroup, 0);
        let refused = [scope.spawn(|| db.put(b"total", b"10")), {
            write.wait();
            scope.spawn(|| db.put(b"filler", &[0; 3_000]))
        }];
        until(|| db.stats().sealed_memtables == 1);
        let read = disk.hold(Call::Read, 0);
        let update = scope.spawn(|| {
            db.update(&[b"total", b"other"], |found, batch| {
                batch.put(b"total", (number(&found[0]) + 1).to_string().as_bytes());
            })
        });
        // It has found the one key in the sealed memtable, and looks for the other in a table.
        read.wait();
        write.fail();
        for refused in refused {
            assert!(matches!(refused.join().unwrap(), Err(Error::ReadOnly(_))));
        }
        until(|| db.put(b"after", b"").is_ok());
        drop(read);
        update.join().unwrap().unwrap();
    });
    assert_eq!(db.get(b"total").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn compare_and_set_sets_once_of_all_who_try_and_takes_what_has_expired_for_absent() {
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = now.clone();
    let options = Options::new().clock(Clock(Arc::new(move || clock.load(Ordering::Relaxed))));
    let db = options.open_on(Arc::new(SimFs::new())).unwrap();
    let winners: u64 = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..4_u8)
            .map(|node| {
                let db = &db;
                scope.spawn(move || db.compare_and_set(b"leader", None, Some(&[node])).unwrap())
            })
            .collect();
        tries.into_iter().map(|one| u64::from(one.join().unwrap())).sum()
    });
    assert_eq!(winners, 1);
    let leader = db.get(b"leader").unwrap().unwrap();
    assert!(!db.compare_and_set(b"leader", Some(b"somebody else"), None).unwrap());
    assert!(db.compare_and_set(b"leader", Some(&leader), None).unwrap());
    assert_eq!(db.get(b"leader").unwrap(), None);

    let mut lease = WriteBatch::new();
    lease.put_expiring(b"lease", b"node-1", 2_000);
    db.write(&lease).unwrap();
    assert!(!db.compare_and_set(b"lease", None, Some(b"node-2")).unwrap());
    now.store(2_000, Ordering::Relaxed);
    assert!(db.compare_and_set(b"lease", None, Some(b"node-2")).unwrap());
    assert!(matches!(db.compare_and_set(b"", None, Some(b"x")), Err(Error::InvalidArgument(_))));
}

#[test]
fn an_update_that_writes_nothing_takes_no_position() {
    let db = Options::new().open_on(Arc::new(SimFs::new())).unwrap();
    let before = db.put(b"a", b"1").unwrap();
    assert_eq!(db.update(&[b"a", b"b"], |found, _| number(&found[0]) + number(&found[1])).unwrap(), 1);
    assert_eq!(db.put(b"a", b"2").unwrap().0, before.0 + 1);
}

fn keys(entries: impl Iterator<Item = Result<chronos::engine::Entry, Error>>) -> Vec<Vec<u8>> {
    entries.map(|entry| entry.unwrap().key.to_vec()).collect()
}

#[test]
fn a_prefix_ends_before_the_next_key_also_at_the_highest_bytes() {
    let db = Options::new().open_on(Arc::new(SimFs::new())).unwrap();
    let all: [&[u8]; 8] = [b"a", b"a\0", b"a\xff", b"a\xff\xff1", b"b", b"\xff", b"\xff\xff", b"\xff\xffz"];
    for key in all {
        db.put(key, b"").unwrap();
    }
    for prefix in all.iter().copied().chain([&b""[..], b"a\xff\xff", b"c", b"\xff\xff\xff"]) {
        let expected: Vec<&[u8]> = all.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(keys(db.prefix(prefix)), expected, "{prefix:?}");
        let backward: Vec<&[u8]> = expected.into_iter().rev().collect();
        assert_eq!(keys(db.prefix(prefix).rev()), backward, "{prefix:?} backward");
    }
}

/// A database with entries in memory and in tables, with deleted keys and older versions among them.
fn mixed(seed: u64) -> (Db, BTreeMap<Vec<u8>, Vec<u8>>) {
    let db = tiny_options(seed).open_on(Arc::new(SimFs::new())).unwrap();
    let mut rng = Rng::new(seed);
    let mut model = BTreeMap::new();
    for _ in 0..300 {
        let key = format!("key{:03}", rng.below(60)).into_bytes();
        if rng.chance(1, 3) {
            db.delete(&key).unwrap();
            model.remove(&key);
        } else {
            let value = rng.next_u64().to_string().into_bytes();
            db.put(&key, &value).unwrap();
            model.insert(key, value);
        }
        if rng.chance(1, 20) {
            db.step().unwrap();
        }
    }
    (db, model)
}

#[test]
fn a_range_walked_from_both_ends_gives_every_entry_once() {
    for seed in 0..200 {
        let (db, model) = mixed(seed);
        let mut rng = Rng::new(seed);
        let mut ends = [rng.below(61), rng.below(61)].map(|number| format!("key{number:03}").into_bytes());
        ends.sort();
        let bounds = (Bound::Included(ends[0].clone()), Bound::Excluded(ends[1].clone()));
        let mut expected = model.range(bounds.clone());
        let mut found = db.range(bounds);
        let turned = rng.chance(1, 2);
        if turned {
            found = found.reversed();
        }
        let mut misses = 0;
        while misses < 3 {
            let front = rng.chance(1, 2);
            let next = if front { found.next() } else { found.next_back() }.map(|entry| entry.unwrap());
            let wanted = if front != turned { expected.next() } else { expected.next_back() };
            misses += u32::from(wanted.is_none());
            assert_eq!(
                next.as_ref().map(|entry| (&*entry.key, &*entry.value)),
                wanted.map(|(key, value)| (&key[..], &value[..])),
                "seed {seed}"
            );
        }
    }
}

/// A million keys on a real disk, and two threads that overwrite, delete and add some of them, so that memtables are flushed
/// and tables merged all the while.
#[test]
fn a_range_over_a_million_keys_shows_exactly_its_snapshot_while_others_write() {
    const KEYS: u64 = 1_000_000;
    const BATCH: u64 = 1_000;
    let home = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os).memory(16 << 20);
    let db = options.open(home.path()).unwrap();
    for first in (0..KEYS).step_by(BATCH as usize) {
        let mut batch = WriteBatch::new();
        (first..first + BATCH).for_each(|key| batch.put(&key.to_be_bytes(), &(!key).to_be_bytes()));
        db.write(&batch).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (snapshot, before) = (db.snapshot(), db.stats());
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let mut batch = WriteBatch::new();
                    for _ in 0..100 {
                        let key = rng.below(KEYS).to_be_bytes();
                        match rng.below(3) {
                            0 => batch.delete(&key),
                            1 => batch.put(&key, b"new"),
                            _ => batch.put(&[&key[..], b"more"].concat(), b"new"),
                        }
                    }
                    db.write(&batch).unwrap();
                }
            });
        }
        let exact = |key: u64, entry: Option<Result<Entry, Error>>| {
            let entry = entry.unwrap_or_else(|| panic!("{key} is missing")).unwrap();
            assert_eq!((&*entry.key, &*entry.value), (&key.to_be_bytes()[..], &(!key).to_be_bytes()[..]));
        };
        // As often as it takes for tables to have been merged below the ranges.
        let mut rounds = 0;
        while rounds == 0 || db.stats().compaction_written_bytes == before.compaction_written_bytes {
            let (mut forward, mut backward) = (snapshot.range::<&[u8]>(..), snapshot.range::<&[u8]>(..).reversed());
            for key in 0..KEYS {
                exact(key, forward.next());
                exact(KEYS - 1 - key, backward.next());
            }
            assert!(forward.next().is_none() && backward.next().is_none(), "nothing that came later");
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
}
