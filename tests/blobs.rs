//! Large values in blob files: they read as any other, their garbage goes, and a file goes with the last table that points
//! into it.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use chronos::engine::{Clock, Compression, Strategy};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error, Options, WriteBatch};
use common::{Model, NOW, check, contents, settle};

const KEYS: u64 = 200;

/// What a value has at least that is put apart.
const LONG: usize = 300;

fn options() -> Options {
    Options::new()
        .stepped()
        .clock(Clock(Arc::new(|| NOW)))
        .memtable_bytes(20_000)
        .segment_bytes(20_000)
        .table_bytes(2_000)
        .level_bytes(8_000)
        .block_bytes(200)
        .cache_bytes(10_000)
        .compression(Compression::None)
        .blob_threshold(Some(LONG))
}

fn open(disk: &SimFs, options: Options) -> Db {
    options.open_on(Arc::new(disk.clone())).unwrap()
}

fn key(n: u64) -> Vec<u8> {
    format!("key{n:04}").into_bytes()
}

/// Every third value is short.
fn value(n: u64, round: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(3) { 20 } else { LONG + (n * 7 + round) as usize % 300 };
    let mut value = format!("{n} {round} ").into_bytes();
    value.resize(len, b'v');
    value
}

/// Puts every key once, in an order that looks random.
fn fill(db: &Db, model: &mut Model, round: u64) {
    for n in (0..KEYS).map(|n| n * 7919 % KEYS) {
        db.put(&key(n), &value(n, round)).unwrap();
        model.insert(key(n), value(n, round));
        if n % 16 == 0 {
            db.step().unwrap();
        }
    }
}

/// One tombstone for each key.
fn delete_all(db: &Db) {
    let mut batch = WriteBatch::new();
    (0..KEYS).for_each(|n| batch.delete(&key(n)));
    db.write(&batch).unwrap();
}

fn files(disk: &SimFs, end: &str) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(end)).collect()
}

fn bytes(disk: &SimFs, end: &str) -> u64 {
    files(disk, end).iter().map(|name| disk.read_file(name).unwrap().len() as u64).sum()
}

fn long_bytes(model: &Model) -> u64 {
    model.values().map(|value| value.len() as u64).filter(|len| *len >= LONG as u64).sum()
}

#[test]
fn values_read_the_same_wherever_they_are_and_whatever_the_next_start_chooses() {
    let disk = SimFs::new();
    let mut model = Model::new();
    for (round, threshold) in [Some(LONG), None, Some(1), Some(LONG)].into_iter().enumerate() {
        let db = open(&disk, options().blob_threshold(threshold));
        check(&db, &model, KEYS);
        fill(&db, &mut model, round as u64);
        let snapshot = db.snapshot();
        let before = model.clone();
        fill(&db, &mut model, round as u64 + 10);
        db.flush().unwrap();
        settle(&db);
        check(&db, &model, KEYS);
        let shown: Model = snapshot
            .range::<&[u8]>(..)
            .map(|e| e.map(|e| (e.key.to_vec(), e.value.to_vec())))
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(shown == before, "the snapshot shows its moment");
        let together: Vec<_> = (0..KEYS).map(key).collect();
        let found = db.get_many(&together).unwrap();
        assert!(together.iter().zip(&found).all(|(key, found)| found.as_deref() == model.get(key).map(Vec::as_slice)));
        drop(snapshot);
        settle(&db);
        db.compact().unwrap();
        check(&db, &model, KEYS);
        db.close().unwrap();
    }
    assert!(bytes(&disk, ".blob") >= long_bytes(&model), "they are apart");
    let tables = bytes(&disk, ".sst");
    assert!(tables * 4 < long_bytes(&model), "and not in tables: {tables}");
}

#[test]
fn what_is_overwritten_gives_its_space_back() {
    for strategy in [Strategy::Leveled, Strategy::Tiered] {
        let disk = SimFs::new();
        let db = open(&disk, options().compaction(strategy));
        let mut model = Model::new();
        for round in 0..6 {
            fill(&db, &mut model, round);
        }
        db.flush().unwrap();
        settle(&db);
        let (on_disk, live) = (bytes(&disk, ".blob"), long_bytes(&model));
        // A run that is not merged for a while points to what newer ones have overwritten.
        let percent = if strategy == Strategy::Leveled { 115 } else { 200 };
        assert!(on_disk * 100 <= live * percent, "{strategy:?}: {on_disk} bytes for {live}");
        check(&db, &model, KEYS);
        // Deleted, all of it goes.
        delete_all(&db);
        db.compact().unwrap();
        settle(&db);
        assert_eq!(files(&disk, ".blob"), Vec::<String>::new(), "{strategy:?}");
    }
}

#[test]
fn a_range_delete_gives_the_space_of_values_back_though_nobody_writes() {
    let disk = SimFs::new();
    // Few entries, long values: the tables are smaller than the memtable that has the range tombstone.
    let db = open(&disk, options());
    for n in 0..20 {
        db.put(&key(n), &[b'v'; 4_000]).unwrap();
    }
    db.flush().unwrap();
    settle(&db);
    assert!(bytes(&disk, ".blob") > 20 * 4_000);
    // What else is in the memtable is more than what is in the tables.
    for n in 100..140 {
        db.put(&key(n), &[b's'; 100]).unwrap();
    }
    db.delete_range(&key(0), Some(&key(50))).unwrap();
    settle(&db);
    assert_eq!(files(&disk, ".blob"), Vec::<String>::new());
    assert_eq!(contents(&db).unwrap().len(), 40);
}

#[test]
fn a_reader_keeps_the_files_that_it_needs() {
    let disk = SimFs::new();
    let db = open(&disk, options());
    let mut model = Model::new();
    fill(&db, &mut model, 0);
    db.flush().unwrap();
    settle(&db);
    let mut range = db.range::<&[u8]>(..);
    let first = range.next().unwrap().unwrap();
    let before = files(&disk, ".blob");
    delete_all(&db);
    // Tables that nothing needs to read again are dropped; the range holds the old version.
    db.compact().unwrap();
    settle(&db);
    assert!(contents(&db).unwrap().is_empty());
    assert_eq!(files(&disk, ".blob"), before);
    let rest = range.map(|entry| entry.map(|entry| (entry.key.to_vec(), entry.value.to_vec())));
    let shown: Model =
        std::iter::once(Ok((first.key.to_vec(), first.value.to_vec()))).chain(rest).collect::<Result<_, _>>().unwrap();
    assert!(shown == model);
    settle(&db);
    db.compact().unwrap();
    assert_eq!(files(&disk, ".blob"), Vec::<String>::new(), "the last reader is gone");
}

#[test]
fn a_compaction_moves_pointers_and_not_values() {
    let disk = SimFs::new();
    let db = open(&disk, options().level_bytes(1_000));
    let mut model = Model::new();
    fill(&db, &mut model, 0);
    db.flush().unwrap();
    settle(&db);
    let apart = db.stats().compaction_written_bytes;
    let disk = SimFs::new();
    let db = open(&disk, options().level_bytes(1_000).blob_threshold(None));
    fill(&db, &mut Model::new(), 0);
    db.flush().unwrap();
    settle(&db);
    let together = db.stats().compaction_written_bytes;
    assert!(apart * 4 < together, "{apart} and {together} bytes");
}

#[test]
fn a_damaged_value_is_an_error_for_its_key_alone() {
    let disk = SimFs::new();
    let db = open(&disk, options());
    let mut model = Model::new();
    fill(&db, &mut model, 0);
    db.flush().unwrap();
    settle(&db);
    let name = files(&disk, ".blob").remove(0);
    let mut bytes = disk.read_file(&name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.write_file(&name, bytes);
    let lost: BTreeSet<Vec<u8>> = model
        .iter()
        .filter(|(key, value)| match db.get(key) {
            Ok(found) => {
                assert_eq!(found.as_deref(), Some(&value[..]));
                false
            }
            Err(Error::Corrupt { file, .. }) => {
                assert_eq!(file, name);
                true
            }
            Err(error) => panic!("{error}"),
        })
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!(lost.len(), 1);
    assert!(db.stats().damage.iter().any(|what| what.contains(&name)));
    let key = lost.first().unwrap();
    db.put(key, b"anew").unwrap();
    assert_eq!(db.get(key).unwrap().as_deref(), Some(&b"anew"[..]));
    settle(&db);
}
