//! Repair gives back everything outside the damage, and nothing that never was: each kind of file is damaged at every
//! byte and cut at every length, and what comes back is held against what was written.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/story.rs"]
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chronos::Db;
use chronos::admin::{Loss, repair_to};
use chronos::fs::Fs;
use common::{Change, Model, apply, contents};
use story::{Files, Story, disk_with, files, flips, options};

/// What a story could have come to.
struct Oracle {
    story: Story,
    /// All that was written, without some batches in a row: what a log with a damaged place may hold.
    gaps: BTreeSet<Model>,
    /// Every value that a key ever had; `None` before the first and when it was deleted.
    values: BTreeMap<Vec<u8>, BTreeSet<Option<Vec<u8>>>>,
}

impl Oracle {
    fn new() -> Oracle {
        let story = story::story(true);
        let count = story.batches.len();
        let mut gaps = BTreeSet::new();
        for start in 0..count {
            for end in start..=count {
                let mut model = Model::new();
                let left = story.batches[..start].iter().chain(&story.batches[end..]);
                left.for_each(|batch| apply(&mut model, batch));
                gaps.insert(model);
            }
        }
        let mut values: BTreeMap<Vec<u8>, BTreeSet<Option<Vec<u8>>>> = BTreeMap::new();
        for change in story.batches.iter().flatten() {
            let (key, value) = match change {
                Change::Put(key, value) | Change::PutUntil(key, value, _) => (key, Some(value.clone())),
                Change::PutExpired(key, _) | Change::Delete(key) => (key, None),
                // Every key had no value at first, and may have none again.
                Change::DeleteRange(..) => continue,
            };
            values.entry(key.clone()).or_insert_with(|| BTreeSet::from([None])).insert(value);
        }
        Oracle { story, gaps, values }
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Files {
        let mut files = self.story.files.clone();
        change(files.get_mut(name).expect("it is there"));
        files
    }

    /// Repairs the damaged files and judges what comes back by the kind of file that was damaged.
    fn check(&self, what: &str, damaged: &str, all: &Files) -> Vec<Loss> {
        let disk = disk_with(all);
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let mut told = Vec::new();
        let losses = repair_to(&fs, Path::new("copy"), &mut told).unwrap_or_else(|error| panic!("{what}: {error}"));
        let told = String::from_utf8(told).unwrap();
        let copy = disk.directory("copy").expect("it was made");
        let db: Db = options().open_on(Arc::new(copy)).unwrap();
        let found = contents(&db).unwrap();
        let original: Files = all.keys().map(|name| (name.clone(), disk.read_file(name).unwrap())).collect();
        assert!(&original == all, "{what}: the original was changed");
        assert_eq!(told.matches("lost      ").count(), losses.len(), "{what}: {told}");

        let model = &self.story.model;
        if damaged.ends_with(".sst") {
            for (key, values) in &self.values {
                let is_lost = losses.iter().any(|loss| {
                    let (from, to) = &loss.keys;
                    from.as_ref().is_none_or(|from| from <= key) && to.as_ref().is_none_or(|to| key <= to)
                });
                if is_lost {
                    assert!(values.contains(&found.get(key).cloned()), "{what}: {key:?} never had this value");
                } else {
                    assert_eq!(found.get(key), model.get(key), "{what}: {key:?}\n{told}");
                }
            }
            assert!(found.keys().all(|key| self.values.contains_key(key)), "{what}");
        } else if damaged.ends_with(".wal") {
            assert!(self.gaps.contains(&found), "{what}: {found:?}\n{told}");
            assert!(&found == model || !losses.is_empty(), "{what}: lost, and not told\n{told}");
        } else {
            assert_eq!(&found, model, "{what}: all of the data is there\n{told}");
        }
        losses
    }
}

#[test]
fn what_is_whole_comes_back_whole() {
    let oracle = Oracle::new();
    assert!(oracle.check("undamaged", "CURRENT", &oracle.story.files).is_empty());
}

#[test]
fn every_byte_flipped_costs_no_more_than_its_block_or_record() {
    let oracle = Oracle::new();
    let (mut lossy, mut all) = (BTreeMap::new(), 0);
    for (name, bytes) in &oracle.story.files {
        let kind = name.rsplit('.').next().unwrap();
        let flipped = |at: usize| flips(1 << (at % 8)).into_iter().map(move |xor| (at, xor));
        for (at, xor) in (0..bytes.len()).flat_map(flipped) {
            let what = format!("{name}, byte {at} flipped by {xor:#x}");
            let losses = oracle.check(&what, name, &oracle.with(name, |bytes| bytes[at] ^= xor));
            all += 1;
            if kind != "manifest" {
                assert!(losses.len() <= 1, "{what}: {losses:?}");
                for loss in &losses {
                    assert_eq!(&loss.file, name, "{what}");
                    let place = loss.offset..loss.offset + loss.length;
                    assert!(place.contains(&(at as u64)) && loss.length < 1000, "{what}: {loss}");
                    *lossy.entry(kind).or_insert(0) += 1;
                }
            }
        }
    }
    assert!(lossy["sst"] > 300 && lossy["wal"] > 300, "{lossy:?} of {all}");
    assert!(!lossy.contains_key("CURRENT") && !lossy.contains_key("LOCK"), "{lossy:?}");
}

#[test]
fn every_file_cut_to_every_length_or_gone() {
    let oracle = Oracle::new();
    for (name, bytes) in &oracle.story.files {
        for len in 0..bytes.len() {
            oracle.check(&format!("{name} cut to {len}"), name, &oracle.with(name, |bytes| bytes.truncate(len)));
        }
        let mut files = oracle.story.files.clone();
        files.remove(name);
        oracle.check(&format!("without {name}"), name, &files);
    }
}

#[test]
fn without_current_and_manifest_the_tables_and_the_log_tell_all() {
    let oracle = Oracle::new();
    let mut left = oracle.story.files.clone();
    left.retain(|name, _| name.ends_with(".sst") || name.ends_with(".wal"));
    let losses = oracle.check("no manifest", "CURRENT", &left);
    assert!(losses.is_empty(), "{losses:?}");
    // And then each table without its end, where index, properties and footer are.
    for (name, bytes) in left.iter().filter(|(name, _)| name.ends_with(".sst")) {
        let mut cut = left.clone();
        cut.insert(name.clone(), bytes[..bytes.len() - 20].to_vec());
        let losses = oracle.check(&format!("no manifest, {name} without its footer"), name, &cut);
        assert!(losses.iter().all(|loss| &loss.file == name));
    }
}

#[test]
fn a_repaired_database_is_repaired_to_the_same_and_goes_on() {
    let oracle = Oracle::new();
    let disk = disk_with(&oracle.story.files);
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    repair_to(&fs, Path::new("copy"), &mut Vec::new()).unwrap();
    let copy = disk.directory("copy").unwrap();
    let db = options().open_on(Arc::new(copy.clone())).unwrap();
    for n in 0..200u32 {
        db.put(format!("more{n:03}").as_bytes(), &n.to_le_bytes()).unwrap();
        db.step().unwrap();
    }
    db.compact().unwrap();
    assert_eq!(contents(&db).unwrap().len(), oracle.story.model.len() + 200);
    assert!(files(&disk).keys().any(|name| name == "CURRENT"));
}
