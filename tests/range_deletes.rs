//! Range deletes as somebody sees who uses the engine: what they cost, that the space comes back, that a scan does not walk
//! over what is gone, and that no snapshot loses anything.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;

use chronos::engine::{Clock, Compression, Strategy};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Options, WriteBatch};
use common::{Model, NOW, STRATEGIES, check, contents, settle};

const KEYS: u64 = 4_000;

fn options(strategy: Strategy) -> Options {
    Options::new()
        .stepped()
        .clock(Clock(Arc::new(|| NOW)))
        .memtable_bytes(20_000)
        .segment_bytes(8_000)
        .table_bytes(4_000)
        .level_bytes(20_000)
        .block_bytes(400)
        .compression(Compression::None)
        .compaction(strategy)
}

fn open(disk: &SimFs, strategy: Strategy) -> Db {
    options(strategy).open_on(Arc::new(disk.clone())).unwrap()
}

fn key(n: u64) -> Vec<u8> {
    format!("key{n:04}").into_bytes()
}

fn put(batch: &mut WriteBatch, model: &mut Model, n: u64, value: &str) {
    batch.put(&key(n), value.as_bytes());
    model.insert(key(n), value.as_bytes().to_vec());
}

/// Every key, in many tables, with background work between.
fn fill(db: &Db) -> Model {
    let mut model = Model::new();
    for n in 0..KEYS {
        let mut batch = WriteBatch::new();
        put(&mut batch, &mut model, n * 1_663 % KEYS, &format!("value {n:030}"));
        db.write(&batch).unwrap();
        if n % 16 == 0 {
            db.step().unwrap();
        }
    }
    model
}

fn bytes_of(disk: &SimFs, end: &str) -> u64 {
    let names = disk.list().unwrap();
    names.iter().filter(|name| name.ends_with(end)).map(|name| disk.open(name).unwrap().len().unwrap()).sum()
}

#[test]
fn deleting_everything_takes_one_record_and_gives_all_space_back_though_nobody_writes() {
    for strategy in STRATEGIES {
        let disk = SimFs::new();
        let db = open(&disk, strategy);
        fill(&db);
        settle(&db);
        assert!(bytes_of(&disk, ".sst") > KEYS * 40, "{strategy:?}");
        let (before, read) = (db.stats(), db.stats().compaction_read_bytes);
        db.delete_range(b"", None).unwrap();
        assert!(db.stats().user_bytes - before.user_bytes < 20, "{strategy:?}: one short change in the log");
        assert_eq!(db.stats().last_seq, before.last_seq + 1);
        assert_eq!(contents(&db).unwrap(), Model::new());
        settle(&db);
        let after = db.stats();
        assert!(after.compaction_read_bytes - read < 1_000, "{strategy:?}: nothing of it was read");
        assert!(bytes_of(&disk, ".sst") < 1_000, "{strategy:?}: {after:?}");
        if !matches!(strategy, Strategy::Fifo { .. }) {
            assert_eq!(bytes_of(&disk, ".sst"), 0, "{strategy:?}: not even the tombstone is left: {after:?}");
        }
        assert_eq!(contents(&db).unwrap(), Model::new());
        // What is put again is there, also after a restart.
        db.put(b"key0001", b"again").unwrap();
        db.close().unwrap();
        drop(db);
        let model = Model::from([(b"key0001".to_vec(), b"again".to_vec())]);
        check(&open(&disk, strategy), &model, 20);
    }
}

#[test]
fn a_snapshot_keeps_what_a_range_delete_took_and_lets_go_of_it_at_its_end() {
    for strategy in STRATEGIES {
        let disk = SimFs::new();
        let db = open(&disk, strategy);
        let mut model = fill(&db);
        let full = model.clone();
        let snapshot = db.snapshot();
        db.delete_range(&key(500), Some(&key(3_500))).unwrap();
        model.retain(|key_, _| *key_ < key(500) || *key_ >= key(3_500));
        let mut batch = WriteBatch::new();
        put(&mut batch, &mut model, 1_000, "put again");
        db.write(&batch).unwrap();
        for compacted in [false, true] {
            if compacted {
                db.compact().unwrap();
            }
            settle(&db);
            check(&db, &model, KEYS);
            let shown: Model = snapshot
                .range::<&[u8]>(..)
                .map(|entry| entry.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).unwrap())
                .collect();
            assert_eq!(shown, full, "{strategy:?}");
            for n in (0..KEYS).step_by(97) {
                assert_eq!(
                    snapshot.get(&key(n)).unwrap().map(|found| found.value.to_vec()),
                    full.get(&key(n)).cloned()
                );
            }
        }
        drop(snapshot);
        let before = bytes_of(&disk, ".sst");
        db.flush().unwrap();
        settle(&db);
        check(&db, &model, KEYS);
        if !matches!(strategy, Strategy::Fifo { .. }) {
            let after = bytes_of(&disk, ".sst");
            assert!(after * 2 < before, "{strategy:?}: {before} and then {after} bytes: {:?}", db.stats());
            let entries: u64 = db.stats().levels.iter().map(|level| level.entries).sum();
            assert_eq!(entries, model.len() as u64, "{strategy:?}: {:?}", db.stats());
        }
    }
}

/// The deleted keys are kept for a snapshot, so that a scan of what is left would have to walk over them.
#[test]
fn a_scan_seeks_over_what_is_deleted() {
    for reversed in [false, true] {
        let disk = SimFs::new();
        let db = open(&disk, Strategy::Leveled);
        let model = fill(&db);
        db.compact().unwrap();
        let _keeps = db.snapshot();
        db.delete_range(&key(10), Some(&key(KEYS - 10))).unwrap();
        db.flush().unwrap();
        let looked_up = |db: &Db| db.stats().cache_hits + db.stats().cache_misses;
        let all = {
            let before = looked_up(&db);
            assert_eq!(_keeps.range::<&[u8]>(..).count() as u64, KEYS);
            looked_up(&db) - before
        };
        let before = looked_up(&db);
        let range = db.range::<&[u8]>(..);
        let range = if reversed { range.reversed() } else { range };
        let found: Vec<Vec<u8>> = range.map(|entry| entry.unwrap().key.to_vec()).collect();
        assert_eq!(found.len(), 20);
        assert!(found.iter().all(|key| model.contains_key(key)));
        let blocks = looked_up(&db) - before;
        assert!(blocks * 20 < all, "{blocks} blocks for 20 entries, {all} for all");
    }
}

/// Tombstones that begin and end everywhere, overlap, and are divided where tables meet.
#[test]
fn many_range_deletes_over_each_other_are_divided_where_tables_meet() {
    for strategy in STRATEGIES {
        let disk = SimFs::new();
        let mut db = open(&disk, strategy);
        let mut model = fill(&db);
        for n in 0..600 {
            let (start, length) = (n * 7_919 % KEYS, 1 + n * 31 % 200);
            let end = key((start + length).min(9_999));
            db.delete_range(&key(start), Some(&end)).unwrap();
            model.retain(|key_, _| *key_ < key(start) || *key_ >= end);
            let mut batch = WriteBatch::new();
            (0..6).for_each(|more| put(&mut batch, &mut model, (n * 613 + more * 37) % KEYS, "put again"));
            db.write(&batch).unwrap();
            db.step().unwrap();
            if n % 200 == 199 {
                check(&db, &model, KEYS);
                let keys: Vec<Vec<u8>> = (0..KEYS).step_by(7).map(key).collect();
                let found = db.get_many(&keys).unwrap();
                assert!(
                    found.iter().map(Option::as_deref).eq(keys.iter().map(|key| model.get(key).map(Vec::as_slice)))
                );
                db.close().unwrap();
                drop(db);
                db = open(&disk, strategy);
            }
        }
        settle(&db);
        check(&db, &model, KEYS);
        db.compact().unwrap();
        check(&db, &model, KEYS);
    }
}
