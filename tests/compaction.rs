//! Compaction as somebody sees who uses the engine: strategies changed on an existing database, space that comes back
//! without writes, and a large job of which a part fails.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chronos::engine::{Clock, Compression, Stats, Strategy};
use chronos::fs::sim::{CallKind, Errno, Fault};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Options, WriteBatch};
use common::{Model, NOW, STRATEGIES, check, contents, settle};

const KEYS: u64 = 400;

fn options() -> Options {
    Options::new()
        .clock(Clock(Arc::new(|| NOW)))
        .memtable_bytes(4_000)
        .segment_bytes(4_000)
        .table_bytes(1_000)
        .level_bytes(4_000)
        .block_bytes(100)
        .compression(Compression::None)
}

fn open(disk: &SimFs, options: Options) -> Db {
    options.open_on(Arc::new(disk.clone())).unwrap()
}

fn key(n: u64) -> Vec<u8> {
    format!("key{n:04}").into_bytes()
}

/// Puts every key `rounds` times, in an order that looks random.
fn fill(db: &Db, rounds: u64) -> Model {
    let mut model = Model::new();
    for n in 0..rounds * KEYS {
        let (key, value) = (key(n * 7919 % KEYS), format!("value {n:040}").into_bytes());
        db.put(&key, &value).unwrap();
        model.insert(key, value);
        if n % 16 == 0 {
            db.step().unwrap();
        }
    }
    model
}

fn entries(stats: &Stats) -> u64 {
    stats.levels.iter().map(|level| level.entries).sum()
}

fn tables_on(disk: &SimFs) -> usize {
    disk.list().unwrap().iter().filter(|name| name.ends_with(".sst")).count()
}

#[test]
fn a_database_goes_on_with_any_other_strategy() {
    for from in STRATEGIES {
        for to in STRATEGIES {
            let disk = SimFs::new();
            let db = open(&disk, options().stepped().compaction(from));
            let model = fill(&db, 5);
            db.close().unwrap();
            drop(db);
            let db = open(&disk, options().stepped().compaction(to));
            check(&db, &model, KEYS);
            settle(&db);
            check(&db, &model, KEYS);
            let levels = db.stats().levels;
            match to {
                Strategy::Leveled => {
                    let above: u64 = levels[..6].iter().map(|level| level.bytes).sum();
                    assert!(levels[0].tables == 0 && above * 8 <= levels[6].bytes, "{from:?}, {to:?}: {levels:?}");
                }
                Strategy::Tiered => {
                    let runs: Vec<u64> =
                        levels.map(|level| level.bytes).into_iter().filter(|bytes| *bytes > 0).collect();
                    assert!(levels[0].tables == 0 && !runs.is_empty(), "{from:?}, {to:?}: {levels:?}");
                }
                Strategy::Fifo { .. } => assert_eq!(db.stats().compactions, 0, "{from:?}, {to:?}"),
            }
        }
    }
}

#[test]
fn what_has_expired_or_was_deleted_gives_its_space_back_though_nobody_writes() {
    for strategy in [Strategy::Leveled, Strategy::Tiered] {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = now.clone();
        let clock = Clock(Arc::new(move || clock.load(Ordering::SeqCst)));
        let disk = SimFs::new();
        let db = open(&disk, options().stepped().compaction(strategy).clock(clock));
        let mut batch = WriteBatch::new();
        for n in 0..KEYS {
            batch.put_expiring(&key(n), &[b'x'; 50], NOW + 1 + n);
        }
        db.write(&batch).unwrap();
        db.flush().unwrap();
        settle(&db);
        let full = db.stats();
        now.store(NOW + KEYS / 2, Ordering::SeqCst);
        settle(&db);
        assert_eq!((entries(&full), entries(&db.stats())), (KEYS, KEYS / 2), "{strategy:?}: {:?}", db.stats());
        let garbage = |db: &Db| db.stats().compaction_reasons.iter().find(|(name, _)| *name == "garbage").unwrap().1;
        assert!(garbage(&db) > 0);
        let mut batch = WriteBatch::new();
        (0..KEYS - 4).for_each(|n| batch.delete(&key(n)));
        db.write(&batch).unwrap();
        db.flush().unwrap();
        settle(&db);
        assert_eq!(entries(&db.stats()), 4, "{strategy:?}: {:?}", db.stats());
        now.store(NOW + 2 * KEYS, Ordering::SeqCst);
        settle(&db);
        assert_eq!((db.stats().table_bytes(), tables_on(&disk)), (0, 0), "{strategy:?}: {:?}", db.stats());
    }
}

#[test]
fn fifo_drops_what_is_too_old() {
    let now = Arc::new(AtomicU64::new(NOW));
    let clock = now.clone();
    let clock = Clock(Arc::new(move || clock.load(Ordering::SeqCst)));
    let disk = SimFs::new();
    let strategy = Strategy::Fifo { max_age: Some(Duration::from_millis(100)), max_bytes: None };
    let db = open(&disk, options().stepped().compaction(strategy).clock(clock));
    for at in [0, 60, 120] {
        now.store(NOW + at, Ordering::SeqCst);
        db.put(format!("written at {at}").as_bytes(), b"").unwrap();
        db.flush().unwrap();
        settle(&db);
    }
    let left: Vec<Vec<u8>> = contents(&db).unwrap().into_keys().collect();
    assert_eq!(left, [b"written at 120".to_vec(), b"written at 60".to_vec()]);
    assert_eq!(tables_on(&disk), 2);
}

/// One thread after the other, and really side by side where the machine has more than one processor.
#[test]
fn a_large_job_of_which_a_part_fails_leaves_everything_as_it_was() {
    for stepped in [true, false] {
        for call in [CallKind::Create, CallKind::Write, CallKind::Sync] {
            let mut failed = 0;
            // Some 37 tables are written. After them comes the edit: of one that fails the tables stay until that is certain.
            for nth in (0..36).step_by(3) {
                let disk = SimFs::new();
                let options =
                    options().compaction_threads(4).memtable_bytes(1 << 20).idle_after(Duration::from_secs(3600));
                let db = open(&disk, if stepped { options.stepped() } else { options });
                let put_all = |value: &[u8]| {
                    let mut batch = WriteBatch::new();
                    (0..KEYS).for_each(|n| batch.put(&key(n), value));
                    db.write(&batch).unwrap();
                    db.flush().unwrap();
                };
                put_all(&[b'a'; 50]);
                db.compact().unwrap();
                put_all(&[b'b'; 50]);
                let (tables, levels) = (tables_on(&disk), db.stats().levels.map(|level| level.tables));
                disk.fail(Fault::new(call, nth, Errno::IO));
                if db.compact().is_err() {
                    failed += 1;
                    assert_eq!(db.stats().levels.map(|level| level.tables), levels, "{call:?} {nth}");
                    assert_eq!(tables_on(&disk), tables, "{call:?} {nth}");
                    disk.heal();
                    db.compact().unwrap();
                }
                let found = contents(&db).unwrap();
                assert!(found.len() as u64 == KEYS && found.values().all(|value| *value == [b'b'; 50]));
                assert_eq!(db.stats().levels[6].entries, KEYS);
            }
            assert!(failed > 2, "stepped {stepped}: {call:?} failed a compaction {failed} times");
        }
    }
}
