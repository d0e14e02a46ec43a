//! Each rule of the model, one test a rule; and what the tests of the simulated disk share.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::*;
use crate::codec::Rng;
use crate::fs::{File, Fs};

pub(super) const SYNCED: &CrashPolicy = &CrashPolicy::Synced;
pub(super) const ALL: &CrashPolicy = &CrashPolicy::All;

/// A disk with one durable file, `a`, that holds `bytes`; and the file, open for writing.
pub(super) fn disk_with(bytes: &[u8]) -> (SimFs, Arc<dyn File>) {
    let disk = SimFs::new();
    let file = disk.create("a").unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir().unwrap();
    (disk, file)
}

/// Name and content of every file.
pub(super) fn files(disk: &SimFs) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().unwrap();
    names.into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

pub(super) fn names(disk: &SimFs) -> String {
    disk.list().unwrap().join(" ")
}

pub(super) fn now(disk: &SimFs, policy: &CrashPolicy) -> SimFs {
    disk.image(disk.calls(), policy)
}

/// What `look` sees on the disks that random crashes leave now.
pub(super) fn seen<T: Ord>(disk: &SimFs, look: impl Fn(&SimFs) -> T) -> BTreeSet<T> {
    let mut images = disk.images();
    images.advance_to(disk.calls());
    (0..3_000).map(|seed| look(&images.image(&CrashPolicy::Random { seed }))).collect()
}

pub(super) fn refusal<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("must be refused").kind()
}

/// Random calls on a few files, as wild as the interface allows.
pub(super) fn wild_run(disk: &SimFs, seed: u64, calls: usize) {
    let mut rng = Rng::new(seed);
    let mut open: Vec<Arc<dyn File>> = Vec::new();
    let name = |rng: &mut Rng| format!("f{}", rng.below(6));
    for _ in 0..calls {
        match rng.below(12) {
            0 | 1 => open.extend(disk.create(&name(&mut rng))),
            2 => drop(disk.rename(&name(&mut rng), &name(&mut rng))),
            3 => drop(disk.remove(&name(&mut rng))),
            4 => disk.sync_dir().unwrap(),
            _ if open.is_empty() => {}
            5 | 6 => rng.pick(&open).sync().unwrap(),
            _ => {
                let bytes = vec![rng.below(255) as u8 + 1; 1 + rng.below(2_000) as usize];
                rng.pick(&open).write_at(&bytes, rng.below(4_000)).unwrap();
            }
        }
    }
}

#[test]
fn what_was_synced_survives_every_crash() {
    let (disk, file) = disk_with(b"synced");
    let at = disk.calls();
    file.write_at(&[7; 5_000], 6).unwrap();
    disk.create("b").unwrap();
    disk.rename("b", "c").unwrap();
    for at in at..=disk.calls() {
        for seed in 0..300 {
            let found = disk.image(at, &CrashPolicy::Random { seed }).read_file("a").unwrap();
            assert_eq!(&found[..6], b"synced", "at {at}, seed {seed}");
        }
    }
}

#[test]
fn an_unsynced_write_may_be_kept_lost_or_torn_and_its_sectors_old_zero_or_stale() {
    let (disk, file) = disk_with(&[b'o'; 1024]);
    disk.write_file("b", [b's'; 4096]);
    file.write_at(&[b'n'; 1024], 0).unwrap();
    assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), [b'o'; 1024]);

    let found = seen(&disk, |image| {
        let bytes = image.read_file("a").unwrap();
        assert_eq!(bytes.len(), 1024);
        let sector = |bytes: &[u8]| {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a sector is never torn");
            bytes[0]
        };
        [sector(&bytes[..512]), sector(&bytes[512..])]
    });
    let expected: BTreeSet<[u8; 2]> =
        [b'o', b'n', 0, b's'].iter().flat_map(|&one| [b'o', b'n', 0, b's'].map(|other| [one, other])).collect();
    assert_eq!(found, expected);
}

#[test]
fn bytes_beside_a_write_stay_even_in_the_same_sector() {
    let (disk, file) = disk_with(&[b'o'; 600]);
    file.write_at(&[b'n'; 600], 100).unwrap();
    let heads = seen(&disk, |image| image.read_file("a").unwrap()[..100].to_vec());
    assert_eq!(heads, BTreeSet::from([vec![b'o'; 100]]));
}

#[test]
fn an_unsynced_extension_may_be_there_as_zeros_or_not_at_all() {
    let (disk, file) = disk_with(b"");
    // So many sectors that chance alone will not make zeros of them all.
    file.write_at(&[b'n'; 10_000], 0).unwrap();
    let found = seen(&disk, |image| image.read_file("a").unwrap());
    let new_then_zeros = |new, len| (0..len).map(|at| if at < new { b'n' } else { 0 }).collect::<Vec<u8>>();
    assert!(found.contains(&new_then_zeros(0, 0)), "bytes and length lost");
    assert!(found.contains(&new_then_zeros(0, 10_000)), "length kept, bytes lost");
    assert!(found.contains(&new_then_zeros(1024, 1024)), "cut at a sector");
    assert!(found.contains(&new_then_zeros(1024, 10_000)), "length kept, bytes cut at a sector");
    assert!(found.contains(&new_then_zeros(10_000, 10_000)), "all kept");
}

#[test]
fn unsynced_writes_arrive_in_any_subset() {
    let (disk, file) = disk_with(b"---");
    for (at, byte) in [b"a", b"b", b"c"].iter().enumerate() {
        file.write_at(*byte, at as u64).unwrap();
    }
    let found = seen(&disk, |image| String::from_utf8(image.read_file("a").unwrap()).unwrap());
    for expected in ["---", "a--", "-b-", "--c", "ab-", "a-c", "-bc", "abc"] {
        assert!(found.contains(expected), "{expected} of {found:?}");
    }
}

#[test]
fn a_sync_covers_the_writes_before_it_and_none_behind() {
    let (disk, file) = disk_with(b"1");
    file.write_at(b"2", 1).unwrap();
    let before = disk.calls();
    disk.open("a").unwrap().sync().unwrap(); // through another handle: it is the file that is synced
    file.write_at(b"3", 2).unwrap();
    assert_eq!(disk.image(before, SYNCED).read_file("a").unwrap(), b"1");
    assert_eq!(disk.image(before + 1, SYNCED).read_file("a").unwrap(), b"12");
    assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"12");
}

#[test]
fn syncing_one_file_does_nothing_for_another() {
    let (disk, file) = disk_with(b"old");
    file.write_at(b"new", 0).unwrap();
    disk.create("b").unwrap().sync().unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"old");
}

#[test]
fn a_created_name_is_lost_without_a_directory_sync_though_the_file_was_synced() {
    let disk = SimFs::new();
    let file = disk.create("a").unwrap();
    file.write_at(b"synced", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(names(&now(&disk, SYNCED)), "");
    assert_eq!(seen(&disk, files), BTreeSet::from([vec![], vec![("a".to_owned(), b"synced".to_vec())]]));
    disk.sync_dir().unwrap();
    assert_eq!(seen(&disk, names), BTreeSet::from(["a".to_owned()]));
}

#[test]
fn a_synced_name_without_a_file_sync_may_be_an_empty_file() {
    let disk = SimFs::new();
    disk.create("a").unwrap().write_at(b"unsynced", 0).unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"");
}

#[test]
fn a_rename_is_atomic_and_may_be_undone() {
    let (disk, _) = disk_with(b"old");
    disk.write_file("b", "new");
    disk.rename("b", "a").unwrap();
    let file = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let undone = vec![file("a", b"old"), file("b", b"new")];
    let done = vec![file("a", b"new")];
    assert_eq!(files(&now(&disk, SYNCED)), undone);
    assert_eq!(seen(&disk, files), BTreeSet::from([undone, done.clone()]));
    disk.sync_dir().unwrap();
    assert_eq!(seen(&disk, files), BTreeSet::from([done]));
}

#[test]
fn a_removed_name_may_return() {
    let (disk, _) = disk_with(b"x");
    disk.remove("a").unwrap();
    assert_eq!(names(&now(&disk, SYNCED)), "a");
    assert_eq!(seen(&disk, names), BTreeSet::from([String::new(), "a".to_owned()]));
    disk.sync_dir().unwrap();
    assert_eq!(seen(&disk, names), BTreeSet::from([String::new()]));
}

#[test]
fn name_changes_survive_in_any_subset_and_a_file_never_has_two_names() {
    let (disk, _) = disk_with(b"a");
    disk.write_file("b", "b");
    disk.rename("a", "c").unwrap();
    disk.rename("c", "d").unwrap();
    disk.remove("b").unwrap();
    let expected = ["a", "a b", "b c", "c", "b d", "d"];
    assert_eq!(seen(&disk, names), BTreeSet::from(expected.map(str::to_owned)));
}

#[test]
fn a_renamed_file_may_be_there_though_its_creation_under_the_first_name_was_lost() {
    let disk = SimFs::new();
    let file = disk.create("new").unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    disk.rename("new", "a").unwrap();
    assert_eq!(seen(&disk, names), BTreeSet::from(["", "new", "a"].map(str::to_owned)));
}

#[test]
fn all_is_the_live_state_and_synced_after_syncing_everything_is_too() {
    for seed in 0..30 {
        let disk = SimFs::new();
        wild_run(&disk, seed, 200);
        assert_eq!(files(&now(&disk, ALL)), files(&disk), "seed {seed}");
        for name in disk.list().unwrap() {
            disk.open(&name).unwrap().sync().unwrap();
        }
        disk.sync_dir().unwrap();
        assert_eq!(files(&now(&disk, SYNCED)), files(&disk), "seed {seed}");
        assert_eq!(files(&now(&disk, &CrashPolicy::Random { seed })), files(&disk), "seed {seed}");
    }
}

#[test]
fn corruption_is_no_call_and_hits_whichever_version_survives() {
    let (disk, file) = disk_with(b"old");
    file.write_at(b"new", 0).unwrap();
    let calls = disk.calls();
    disk.corrupt("a", 1, 0x01);
    assert_eq!(disk.calls(), calls);
    assert_eq!(disk.read_file("a").unwrap(), b"ndw");
    assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"omd");
    assert_eq!(now(&disk, ALL).read_file("a").unwrap(), b"ndw");
    assert_eq!(disk.image(calls - 1, SYNCED).read_file("a").unwrap(), b"old", "but not an image of before");
    file.write_at(b"e", 1).unwrap();
    file.sync().unwrap();
    assert_eq!(now(&disk, SYNCED).read_file("a").unwrap(), b"new", "writing it again heals it");
}

#[test]
fn a_file_put_on_the_disk_has_always_been_there() {
    let disk = SimFs::new();
    disk.write_file("a", "planted");
    assert_eq!(disk.calls(), 0);
    assert_eq!(disk.image(0, SYNCED).read_file("a").unwrap(), b"planted");

    let file = disk.create("b").unwrap();
    file.write_at(b"pending", 0).unwrap();
    disk.write_file("b", "older copy");
    disk.remove("a").unwrap();
    disk.write_file("a", "again");
    assert_eq!(seen(&disk, files), BTreeSet::from([files(&disk)]));
    let mut buffer = [0; 5];
    file.read_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"older");
}
