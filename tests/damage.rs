//! Damage at rest: every byte of every file of a small database flipped, every file cut to every length, extended,
//! missing, swapped with another, or an older copy of itself. The database then either opens and holds everything, or it
//! says which file is damaged and where. It never panics, and it never answers with less than was acknowledged; the one
//! thing that a log cannot tell from a torn write is rot in its very last group, before a marker says that it was durable.
//!
//! `CHRONOS_EVERY_BIT=1 cargo test --release --test damage --test repair` flips each bit, not one of each byte.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/story.rs"]
mod story;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use chronos::admin::{Directory, Health, dump, verify};
use chronos::fs::sim::{CallKind, Errno, Fault};
use chronos::{Db, Error};
use common::{Model, contents};
use story::{Files, Story, disk_with, flips, options, story};

fn open(files: &Files) -> Result<Model, Error> {
    let db: Db = options().open_on(Arc::new(disk_with(files)))?;
    contents(&db)
}

impl Story {
    /// That a damaged database opens with everything or names the damage. Whether it opened.
    fn check(&self, what: &str, files: &Files, damaged: &str, may_lose_last: bool) -> bool {
        let result = catch_unwind(AssertUnwindSafe(|| open(files))).unwrap_or_else(|panic| {
            eprintln!("{what}");
            resume_unwind(panic)
        });
        let mut told = Vec::new();
        let verdict = verify(&Directory::on(Arc::new(disk_with(files))), &mut told).unwrap();
        match result {
            Ok(found) => {
                let whole = found == self.model || (may_lose_last && found == self.before_last);
                assert!(whole, "{what}: {found:?}\nexpected {:?}", self.model);
                true
            }
            Err(Error::Corrupt { file, .. }) => {
                assert_eq!(verdict, Health::Damaged, "{what}: verify says\n{}", String::from_utf8_lossy(&told));
                // A gap in the log is met in the segment behind it; edits that are gone, where they lead: at files that
                // are gone too.
                let log = |name: &str| name.ends_with(".wal");
                let names_it = file == damaged || (log(&file) && log(damaged)) || !files.contains_key(&file);
                assert!(names_it, "{what}: it is said to be {file}");
                false
            }
            Err(other) => panic!("{what}: {other:?}"),
        }
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Files {
        let mut files = self.files.clone();
        change(files.get_mut(name).expect("it is there"));
        files
    }

    fn last_segment(&self) -> &str {
        // The spare one behind it is empty.
        let used = self
            .files
            .iter()
            .rev()
            .filter(|(name, bytes)| name.ends_with(".wal") && bytes[40..].iter().any(|&b| b != 0));
        used.map(|(name, _)| &**name).next().unwrap()
    }
}

#[test]
fn every_byte_flipped() {
    for marked in [true, false] {
        let story = story(marked);
        for (name, bytes) in &story.files {
            let (mut survived, mut tried) = (0, 0);
            let flipped = |at: usize| flips([0x01, 0x80, 0xff, 0x20][at % 4]).into_iter().map(move |xor| (at, xor));
            for (at, xor) in (0..bytes.len()).flat_map(flipped) {
                tried += 1;
                let files = story.with(name, |bytes| bytes[at] ^= xor);
                let may_lose_last = !marked && name == story.last_segment();
                let what = format!("{name}: byte {at} of {} flipped by {xor:#x}, marked: {marked}", bytes.len());
                survived += usize::from(story.check(&what, &files, name, may_lose_last));
            }
            if name.ends_with(".manifest") || name.starts_with("CURRENT") {
                // At most the last edit may be in doubt, where losing it loses nothing.
                assert!(survived < tried / 2, "{name}: {survived} of {tried} flips went unnoticed");
            }
        }
    }
}

#[test]
fn every_file_cut_to_every_length() {
    for marked in [true, false] {
        let story = story(marked);
        for (name, bytes) in story.files.iter().filter(|(name, _)| *name != "LOCK") {
            for len in 0..bytes.len() {
                let files = story.with(name, |bytes| bytes.truncate(len));
                let what = format!("{name}: cut from {} to {len}, marked: {marked}", bytes.len());
                story.check(&what, &files, name, !marked && name == story.last_segment());
            }
        }
    }
}

#[test]
fn every_byte_of_the_log_flipped_and_every_length_after_a_restart() {
    let story = story(false).restarted();
    let mut noticed = 0;
    for (name, bytes) in story.files.iter().filter(|(name, _)| name.ends_with(".wal")) {
        for at in 0..bytes.len() {
            for xor in flips(0x10) {
                let flipped = story.with(name, |bytes| bytes[at] ^= xor);
                let what = format!("{name}: byte {at} flipped by {xor:#x}");
                noticed += usize::from(!story.check(&what, &flipped, name, false));
            }
            let cut = story.with(name, |bytes| bytes.truncate(at));
            noticed += usize::from(!story.check(&format!("{name}: cut to {at}"), &cut, name, false));
        }
    }
    assert!(noticed > 1_000, "{noticed}");
}

#[test]
fn files_extended_by_zeros_or_rubbish() {
    let story = story(true);
    for name in story.files.keys() {
        for tail in [&[0; 700][..], &[0xa5; 700], b"x", &story.files[story.last_segment()]] {
            let files = story.with(name, |bytes| bytes.extend_from_slice(tail));
            story.check(&format!("{name}: extended"), &files, name, false);
        }
    }
}

#[test]
fn every_file_missing() {
    let story = story(true);
    for name in story.files.keys() {
        let mut files = story.files.clone();
        files.remove(name);
        let opened = story.check(&format!("{name}: missing"), &files, name, false);
        // A segment that was prepared and not used yet is listed all the same.
        assert_eq!(opened, name == "LOCK", "{name}");
    }
}

/// That a file cannot be opened does not say that it is gone: nobody should look for it in a backup.
#[test]
fn a_file_that_cannot_be_opened_is_not_said_to_be_missing() {
    let story = story(true);
    for nth in 0.. {
        let disk = disk_with(&story.files);
        disk.fail(Fault::new(CallKind::Open, nth, Errno::IO));
        match options().open_on(Arc::new(disk)) {
            Err(error) => assert!(matches!(error, Error::Io { .. }), "open {nth}: {error:?}"),
            Ok(_) => return assert!(nth > 2, "CURRENT, the manifest and the log are opened"),
        }
    }
}

#[test]
fn every_two_files_swapped() {
    let story = story(true);
    for one in story.files.keys().filter(|name| *name != "LOCK") {
        for other in story.files.keys().filter(|name| *name != "LOCK" && *name > one) {
            let mut files = story.files.clone();
            files.insert(one.clone(), story.files[other].clone());
            files.insert(other.clone(), story.files[one].clone());
            match open(&files) {
                Ok(found) => panic!("{one} and {other} swapped: {found:?}"),
                Err(Error::Corrupt { file, .. }) => assert!(file == *one || file == *other, "{one}, {other}: {file}"),
                Err(error) => panic!("{one} and {other} swapped: {error:?}"),
            }
        }
    }
}

/// A log that says of itself that more was durable than it has lacks its end, whatever the reason. No record that this
/// engine writes says so, since each tells only of what lies before it: so its checksum is made right here.
#[test]
fn every_record_of_the_log_telling_of_a_later_position() {
    let story = story(true);
    let mut refused = 0;
    // The last one is a marker: its own position is the one behind all that there is.
    let (name, at) = records(&story).pop().unwrap();
    let last = u64::from_le_bytes(story.files[&name][at + FIRST..][..8].try_into().unwrap()) - 1;
    for (name, at) in records(&story) {
        for (watermark, opens) in [(last, true), (last + 1, false), (last + 1_000, false)] {
            let files = story.with(&name, |bytes| {
                bytes[at + WATERMARK..][..8].copy_from_slice(&watermark.to_le_bytes());
                let crc = crc32fast::hash(&bytes[at + 4..][..record_len(bytes, at) - 4]);
                bytes[at..][..4].copy_from_slice(&crc.to_le_bytes());
            });
            let what = format!("{name}: the record at {at} says that {watermark} of {last} is durable");
            assert_eq!(story.check(&what, &files, &name, false), opens, "{what}");
            refused += u64::from(!opens);
        }
    }
    assert!(refused > 20, "{refused}");
}

/// Where a record of the log has its own position, and the newest that was durable: behind checksum, length, kind and salt.
const FIRST: usize = 4 + 4 + 1 + 8;
const WATERMARK: usize = FIRST + 8;

fn record_len(bytes: &[u8], at: usize) -> usize {
    FIRST + u32::from_le_bytes(bytes[at + 4..][..4].try_into().unwrap()) as usize
}

/// The records of all segments: file and offset, in order.
fn records(story: &Story) -> Vec<(String, usize)> {
    let mut records = Vec::new();
    for (name, bytes) in story.files.iter().filter(|(name, _)| name.ends_with(".wal")) {
        let mut at = 32;
        while bytes.get(at..at + WATERMARK + 8).is_some_and(|record| record.iter().any(|&byte| byte != 0)) {
            records.push((name.clone(), at));
            at += record_len(bytes, at);
        }
    }
    records
}

/// The last segment in use is left out: that a file is as it was a moment ago nobody can see in it.
#[test]
fn every_older_copy_in_the_place_of_a_file() {
    assert!(older_copies(&story(true)) > 20);
    // Not marked, the manifest does not know yet that the last segment but one is full.
    assert!(older_copies(&story(false)) > 20);
}

fn older_copies(story: &Story) -> u64 {
    let mut tried = 0;
    for (name, copies) in &story.copies {
        if name == story.last_segment() || !story.files.contains_key(name) {
            continue;
        }
        for copy in copies.iter().filter(|copy| **copy != story.files[name]) {
            let files = story.with(name, |bytes| bytes.clone_from(copy));
            let what = format!("{name}: an older copy of {} bytes instead of {}", copy.len(), story.files[name].len());
            // An old CURRENT or manifest is met where it leads: at files that are no longer there.
            match catch_unwind(AssertUnwindSafe(|| open(&files))) {
                Ok(Ok(found)) => assert!(found == story.model, "{what}: {found:?}"),
                Ok(Err(Error::Corrupt { .. })) => {}
                Ok(Err(other)) => panic!("{what}: {other:?}"),
                Err(panic) => {
                    eprintln!("{what}");
                    resume_unwind(panic);
                }
            }
            tried += 1;
        }
    }
    tried
}

/// Writes that went astray: a block is whole, and lies where another was.
#[test]
fn every_block_in_the_place_of_another() {
    let disk = disk_with(&Files::new());
    let db: Db = options().open_on(Arc::new(disk.clone())).unwrap();
    // Blocks as alike as can be.
    for round in 0..3u8 {
        for n in 0..40 {
            db.put(format!("key{n:04}").as_bytes(), &[round; 20]).unwrap();
        }
        db.flush().unwrap();
    }
    let model = contents(&db).unwrap();
    std::mem::forget(db);
    let files = story::files(&disk);
    let dir = tempfile::tempdir().unwrap();
    let mut blocks: Vec<(&str, Range<usize>)> = Vec::new();
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".sst")) {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let mut told = Vec::new();
        dump(&dir.path().join(name), false, &mut told).unwrap();
        // "block 0  at 16, 441 bytes, ..."
        for line in String::from_utf8(told).unwrap().lines().filter(|line| line.starts_with("block ")) {
            let (at, length) =
                line.split_once(" at ").unwrap().1.split_once(" bytes").unwrap().0.split_once(", ").unwrap();
            let at: usize = at.parse().unwrap();
            blocks.push((name, at..at + length.parse::<usize>().unwrap()));
        }
    }
    let mut tried = 0;
    for (name, place) in &blocks {
        let alike = |other: &&(&str, Range<usize>)| other.1.len() == place.len() && other != &&(*name, place.clone());
        for (other, from) in blocks.iter().filter(alike) {
            let mut files = files.clone();
            let astray = files[*other][from.clone()].to_vec();
            files.get_mut(*name).unwrap()[place.clone()].copy_from_slice(&astray);
            match open(&files) {
                // Of a table of which newer ones hide everything nobody reads it.
                Ok(found) => assert!(found == model, "{other} {from:?} in the place of {name} {place:?}: {found:?}"),
                Err(Error::Corrupt { file, .. }) => assert_eq!(file, *name),
                Err(error) => panic!("{other} {from:?} in the place of {name} {place:?}: {error:?}"),
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}
