//! A small database that was killed: tables, a manifest with several edits, several log segments; and what it held.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronos::Options;
use chronos::codec::Rng;
use chronos::engine::{Clock, Compression, Entropy};
use chronos::fs::{Fs, SimFs};
use parking_lot::Mutex;

use super::common::{Change, Model, NOW, apply, encode, number_from_env, random_batch};

const KEYS: u64 = 20;

/// What a directory holds.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Small segments, and a memtable that takes several of them.
pub fn options() -> Options {
    let salts = Mutex::new(Rng::new(7));
    Options::new()
        .stepped()
        .clock(Clock(Arc::new(|| NOW)))
        .entropy(Entropy(Arc::new(move || salts.lock().next_u64())))
        .memtable_bytes(100_000)
        .segment_bytes(400)
        .table_bytes(350)
        .level_bytes(1_500)
        .block_bytes(300)
        .compression(Compression::None)
}

pub fn files(disk: &SimFs) -> Files {
    let names = disk.list().unwrap();
    names.into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

pub fn disk_with(files: &Files) -> SimFs {
    let disk = SimFs::new();
    files.iter().for_each(|(name, bytes)| disk.write_file(name, bytes.clone()));
    disk
}

pub struct Story {
    /// What was killed: tables, a manifest with several edits, several log segments.
    pub files: Files,
    pub model: Model,
    /// As it was before the last batch.
    pub before_last: Model,
    /// All that was written, in order.
    pub batches: Vec<Vec<Change>>,
    /// Every content that a file ever had between two calls.
    pub copies: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

impl Story {
    /// The same, started and killed once more: the manifest tells where each segment with a change ends, and the log has
    /// nothing behind the last of them.
    pub fn restarted(mut self) -> Story {
        let disk = disk_with(&self.files);
        std::mem::forget(options().open_on(Arc::new(disk.clone())).unwrap());
        self.files = files(&disk);
        self
    }
}

/// `marked`: whether the log had become idle before the end, and says so.
pub fn story(marked: bool) -> Story {
    let disk = SimFs::new();
    let db = options().open_on(Arc::new(disk.clone())).unwrap();
    let mut rng = Rng::new(5);
    let (mut model, mut before_last) = (Model::new(), Model::new());
    let mut copies: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut batches = Vec::new();
    for n in 0..60 {
        let batch: Vec<Change> = match n {
            // One that a table has in the end, and one that only the log has.
            33 | 50 => {
                let key = |n| format!("key{n:04}").into_bytes();
                vec![Change::DeleteRange(key(n % 10), Some(key(n % 10 + 4)))]
            }
            // Others might leave nothing to be damaged.
            _ => loop {
                let batch = random_batch(&mut rng, KEYS);
                if !batch.iter().any(|change| matches!(change, Change::DeleteRange(..))) {
                    break batch;
                }
            },
        };
        before_last = model.clone();
        db.write(&encode(&batch)).unwrap();
        apply(&mut model, &batch);
        batches.push(batch);
        if n == 31 {
            // So that the tables keep what is deleted next, and the tombstone over it.
            std::mem::forget(db.snapshot());
        }
        match n {
            12 | 24 => db.flush().unwrap(),
            30 => db.compact().unwrap(),
            36 => db.flush().unwrap(),
            _ => {}
        }
        for (name, bytes) in files(&disk) {
            copies.entry(name).or_default().insert(bytes);
        }
    }
    if marked {
        db.step().unwrap();
    }
    let files = files(&disk);
    let count = |end: &str| files.keys().filter(|name| name.ends_with(end)).count();
    assert!(count(".wal") >= 4 && count(".sst") >= 2 && count(".manifest") == 1, "{disk:?}");
    // Nothing that happens to the database from here on matters.
    std::mem::forget(db);
    Story { files, model, before_last, batches, copies }
}

/// What a byte is changed by: as usual, or with `CHRONOS_EVERY_BIT=1` bit by bit.
pub fn flips(usual: u8) -> Vec<u8> {
    match number_from_env("CHRONOS_EVERY_BIT", 0) {
        0 => vec![usual],
        _ => (0..u8::BITS).map(|bit| 1 << bit).collect(),
    }
}
