//! Snapshots that are taken and given back, or released because of their age, while the floor moves and compaction drops
//! what lies below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chronos::Error;
use chronos::codec::Rng;
use chronos::engine::{Clock, Durability, Snapshot};
use chronos::fs::SimFs;

use super::common::NOW;
use super::explore::explore;
use super::{number, open, options, spawn, value};

/// What a look at the key through a snapshot has shown: its position, and what was there, if anything.
type Seen = (u64, Option<u64>);

fn look(snapshot: &Snapshot, scan: bool) -> Option<Seen> {
    let found = if scan {
        snapshot
            .range(&b"key"[..]..=&b"key"[..])
            .next()
            .transpose()
            .map(|entry| entry.map(|entry| number(&entry.value)))
    } else {
        snapshot.get(b"key").map(|found| found.map(|found| number(&found.value)))
    };
    match found {
        Ok(found) => Some((snapshot.seq().0, found)),
        Err(Error::SnapshotExpired) => None,
        Err(other) => panic!("{other:?}"),
    }
}

fn scenario(rng: &mut Rng) {
    let disk = SimFs::new();
    let now = Arc::new(AtomicU64::new(NOW));
    let clock = now.clone();
    let mut options = options(rng)
        .durability(*rng.pick(&[Durability::Always, Durability::Os]))
        .clock(Clock(Arc::new(move || clock.load(Ordering::SeqCst))));
    let ages = rng.chance(1, 2);
    if ages {
        options = options.snapshot_max_age(Duration::from_millis(3));
    }
    if rng.chance(1, 4) {
        options = options.history(Duration::from_millis(4));
    }
    let db = open(&disk, &options);
    let writer = spawn({
        let (db, len) = (db.clone(), 20 + rng.below(60) as usize);
        move || {
            (0..6u64)
                .map(|n| {
                    now.fetch_add(1, Ordering::SeqCst);
                    db.put(b"key", &value(n, len)).unwrap().0
                })
                .collect::<Vec<u64>>()
        }
    });
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (db, mut rng) = (db.clone(), Rng::new(rng.next_u64()));
            spawn(move || {
                let mut seen = Vec::new();
                let mut held: Vec<Snapshot> = Vec::new();
                for _ in 0..3 {
                    held.push(db.snapshot());
                    seen.extend(held.iter().filter_map(|snapshot| look(snapshot, rng.chance(1, 2))));
                    if held.len() > 1 {
                        held.swap_remove(rng.below(held.len() as u64) as usize);
                    }
                }
                seen.extend(held.iter().filter_map(|snapshot| look(snapshot, true)));
                seen
            })
        })
        .collect();
    if rng.chance(1, 2) {
        db.compact().unwrap();
    } else {
        db.flush().unwrap();
    }
    let written = writer.join().unwrap();
    let seen: Vec<Seen> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    assert!(ages || seen.len() == 2 * 6, "no snapshot was too old");
    for (seq, found) in seen {
        let expected = written.iter().rposition(|written| *written <= seq).map(|n| n as u64);
        assert_eq!(found, expected, "a snapshot of {seq} of {written:?}");
    }
    db.compact().unwrap();
    assert!(db.stats().snapshots.is_empty());
    assert_eq!(db.get(b"key").unwrap().map(|value| number(&value)), Some(5));
    db.close().unwrap();
}

#[test]
fn a_snapshot_shows_its_position_or_says_that_it_has_expired() {
    explore("a_snapshot_shows_its_position_or_says_that_it_has_expired", 12, scenario);
}

/// Overwrites under whoever takes a snapshot: had it the position before the floor knew of it, two of them would do.
fn taken(rng: &mut Rng) {
    let db = open(&SimFs::new(), &options(rng).durability(Durability::Always));
    let first = db.put(b"key", &value(0, 20)).unwrap().0;
    let writer = spawn({
        let db = db.clone();
        move || (1..=5).map(|n| db.put(b"key", &value(n, 20)).unwrap().0).collect::<Vec<u64>>()
    });
    // One at a time: what one keeps is kept for the next, too.
    let seen: Vec<Seen> = (0..4).filter_map(|_| look(&db.snapshot(), rng.chance(1, 4))).collect();
    let written = [vec![first], writer.join().unwrap()].concat();
    for (seq, found) in seen {
        let expected = written.iter().rposition(|written| *written <= seq).map(|n| n as u64);
        assert_eq!(found, expected, "a snapshot of {seq} of {written:?}");
    }
    db.close().unwrap();
}

#[test]
fn a_snapshot_that_is_taken_while_its_key_is_overwritten_shows_its_position() {
    explore("a_snapshot_that_is_taken_while_its_key_is_overwritten_shows_its_position", 6, taken);
}

/// A snapshot that has become too old is read, and what it shows is overwritten, while somebody looks at the clock.
fn released(rng: &mut Rng) {
    let now = Arc::new(AtomicU64::new(NOW));
    let clock = now.clone();
    let options = options(rng)
        .durability(Durability::Always)
        .clock(Clock(Arc::new(move || clock.load(Ordering::SeqCst))))
        .snapshot_max_age(Duration::from_millis(3));
    let db = open(&SimFs::new(), &options);
    db.put(b"key", &value(0, 20)).unwrap();
    let snapshot = db.snapshot();
    let shown = Some((snapshot.seq().0, Some(0)));
    db.put(b"key", &value(1, 20)).unwrap();
    now.fetch_add(10, Ordering::SeqCst);
    let writer = spawn({
        let db = db.clone();
        move || _ = db.put(b"key", &value(2, 20)).unwrap()
    });
    let reader = spawn({
        let mut rng = Rng::new(rng.next_u64());
        move || {
            let seen: Vec<Option<Seen>> = (0..3).map(|_| look(&snapshot, rng.chance(1, 4))).collect();
            (snapshot, seen)
        }
    });
    if rng.chance(3, 4) {
        assert!(db.stats().snapshots.is_empty(), "it is too old");
    } else {
        db.flush().unwrap();
    }
    writer.join().unwrap();
    let (snapshot, seen) = reader.join().unwrap();
    assert!(seen.is_sorted_by_key(Option::is_none), "released is released: {seen:?}");
    for seen in seen.into_iter().flatten() {
        assert_eq!(Some(seen), shown);
    }
    db.flush().unwrap();
    assert_eq!(look(&snapshot, true), None, "a flush looks at the clock");
    drop(snapshot);
    db.close().unwrap();
}

#[test]
fn a_snapshot_that_is_released_while_it_is_read_shows_its_position_or_nothing() {
    explore("a_snapshot_that_is_released_while_it_is_read_shows_its_position_or_nothing", 4, released);
}
