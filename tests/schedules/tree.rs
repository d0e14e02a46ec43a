//! The tree changes under its readers: memtables are sealed and flushed, segments follow each other, compactions install
//! their versions, files go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chronos::codec::Rng;
use chronos::engine::{Durability, Snapshot};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error};

use super::common::{Model, contents};
use super::explore::explore;
use super::{number, open, options, spawn, value};

fn everything(snapshot: &Snapshot) -> Result<Model, Error> {
    snapshot.range::<&[u8]>(..).map(|entry| entry.map(|entry| (entry.key.to_vec(), entry.value.to_vec()))).collect()
}

/// Keys that count up: what is seen of one never goes back, whichever way one looks.
fn rotation(rng: &mut Rng) {
    const KEYS: u64 = 3;
    let disk = SimFs::new();
    let durability = *rng.pick(&[Durability::Always, Durability::Os]);
    let options = options(rng).durability(durability);
    let db = open(&disk, &options);
    let key = |writer: u64, n: u64| format!("key:{writer}:{n}").into_bytes();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let db = db.clone();
            let (rounds, len) = (2 + rng.below(2), 20 + rng.below(60) as usize);
            spawn(move || {
                for round in 0..rounds {
                    for n in 0..KEYS {
                        db.put(&key(writer, n), &value(round, len)).unwrap();
                        assert_eq!(number(&db.get(&key(writer, n)).unwrap().unwrap()), round, "one's own write");
                    }
                }
                rounds
            })
        })
        .collect();
    let reader = spawn({
        let (db, done) = (db.clone(), done.clone());
        let backward = rng.chance(1, 2);
        move || {
            let mut seen: Model = Model::new();
            let mut looks = 0;
            while looks == 0 || !done.load(Ordering::SeqCst) && looks < 4 {
                looks += 1;
                let snapshot = db.snapshot();
                let all = everything(&snapshot).unwrap();
                if backward {
                    let reversed = snapshot.range::<&[u8]>(..).reversed().count();
                    assert_eq!(reversed, all.len(), "backward");
                }
                for (key, before) in &seen {
                    let now = all.get(key).expect("it was there before");
                    assert!(number(now) >= number(before), "{} went back", key.escape_ascii());
                }
                for writer in 0..2 {
                    for n in 0..KEYS {
                        let one = snapshot.get(&key(writer, n)).unwrap().map(|found| found.value.to_vec());
                        assert_eq!(one.as_ref(), all.get(&key(writer, n)), "get and scan differ");
                    }
                }
                seen = all;
                shuttle::thread::yield_now();
            }
        }
    });
    if rng.chance(1, 2) {
        db.flush().unwrap();
    }
    let rounds: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    done.store(true, Ordering::SeqCst);
    reader.join().unwrap();
    let whole = |found: &Model| {
        assert_eq!(found.len() as u64, 2 * KEYS);
        for (writer, rounds) in rounds.iter().enumerate() {
            (0..KEYS).for_each(|n| assert_eq!(number(&found[&key(writer as u64, n)]), rounds - 1));
        }
    };
    whole(&contents(&db).unwrap());
    db.close().unwrap();
    drop(db);
    whole(&contents(&open(&disk, &options.stepped())).unwrap());
}

#[test]
fn what_was_seen_once_never_goes_back_while_memtables_are_sealed_and_flushed() {
    explore("what_was_seen_once_never_goes_back_while_memtables_are_sealed_and_flushed", 16, rotation);
}

/// Some of many keys written, overwritten or deleted.
fn churn(db: &Db, rng: &mut Rng, changes: u64) {
    for _ in 0..changes {
        let key = format!("key:{}", rng.below(8)).into_bytes();
        match rng.below(8) {
            0 => db.delete(&key).map(drop).unwrap(),
            1 => db.delete_range(&key, Some(b"key:9")).map(drop).unwrap(),
            _ => db.put(&key, &value(rng.below(1_000), 40)).map(drop).unwrap(),
        }
    }
}

fn compaction(rng: &mut Rng) {
    let disk = SimFs::new();
    let options = options(rng).durability(Durability::Os);
    let db = open(&disk, &options);
    let changes = 6 + rng.below(8);
    churn(&db, rng, changes);
    let readers: Vec<_> = (0..2)
        .map(|reader| {
            let db = db.clone();
            spawn(move || {
                let snapshot = db.snapshot();
                let first = everything(&snapshot).unwrap();
                if reader == 0 {
                    // Someone's work that this snapshot must not show.
                    db.put(b"key:3", &value(7, 40)).unwrap();
                }
                for n in 0..8 {
                    let key = format!("key:{n}").into_bytes();
                    let one = snapshot.get(&key).unwrap().map(|found| found.value.to_vec());
                    assert_eq!(one.as_ref(), first.get(&key), "get and scan differ");
                }
                assert!(everything(&snapshot).unwrap() == first, "a snapshot's answer has changed");
            })
        })
        .collect();
    let writer = spawn({
        let (db, mut rng) = (db.clone(), Rng::new(rng.next_u64()));
        move || churn(&db, &mut rng, 5)
    });
    db.compact().unwrap();
    readers.into_iter().chain([writer]).for_each(|thread| thread.join().unwrap());
    let last = contents(&db).unwrap();
    // With nobody reading, only what is in force is there.
    db.compact().unwrap();
    assert!(contents(&db).unwrap() == last, "compaction changes nothing");
    db.close().unwrap();
    let tables: u64 = db.stats().levels.iter().map(|level| level.tables).sum();
    drop(db);
    let found = disk.list().unwrap().iter().filter(|name| name.ends_with(".sst")).count();
    assert_eq!(found as u64, tables, "tables left behind: {disk:?}");
    assert!(contents(&open(&disk, &options.stepped())).unwrap() == last, "after a restart");
}

#[test]
fn a_snapshot_shows_the_same_whatever_compaction_does() {
    explore("a_snapshot_shows_the_same_whatever_compaction_does", 12, compaction);
}
