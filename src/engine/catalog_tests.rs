//! Tests of the catalog: when its manifest is rewritten, what it says of log segments, and what a failed edit leaves.

use std::path::Path;

use super::*;
use crate::engine::recovery::recover;
use crate::engine::shared::Shared;
use crate::engine::{Durability, Options, WriteBatch};
use crate::fs::SimFs;
use crate::fs::sim::{CallKind, Errno, Fault};
use crate::storage::manifest;

fn open(disk: &SimFs, options: Options) -> Shared {
    recover(Arc::new(disk.clone()), options.stepped()).unwrap()
}

fn put(shared: &Shared, key: &[u8]) -> Result<SeqNo> {
    let mut batch = WriteBatch::new();
    batch.put(key, b"value");
    let seq = shared.submit(&batch)?;
    shared.wait_durable(seq)?;
    Ok(seq)
}

#[test]
fn a_manifest_is_rewritten_when_it_has_eight_times_what_lives_and_a_mebibyte() {
    const MIB: u64 = 1 << 20;
    for (len, live, outgrown) in [
        (MIB, 0, false),
        (MIB + 1, 0, true),
        (MIB, MIB / 8, false),
        (MIB + 1, MIB / 8, true),
        (8 * MIB, MIB, false),
        (8 * MIB + 1, MIB, true),
    ] {
        assert_eq!(has_outgrown(len, live), outgrown, "{len} of which {live} live");
    }
}

#[test]
fn the_manifest_is_told_once_that_a_segment_is_closed_and_nothing_that_it_knows() {
    let disk = SimFs::new();
    let shared = open(&disk, Options::new().segment_bytes(200));
    for n in 0..20u8 {
        put(&shared, &[n]).unwrap();
    }
    shared.prepare_segment().unwrap();
    let current = manifest::current(&disk).unwrap().unwrap();
    let (edits, _) = manifest::read(&disk, current).unwrap();
    let (mut added, mut closed) = (Vec::new(), Vec::new());
    for change in edits.iter().flatten() {
        match change {
            Change::AddSegment { number, .. } => added.push(*number),
            Change::CloseSegment { number, .. } => closed.push(*number),
            _ => {}
        }
    }
    assert!(closed.len() > 3, "{closed:?}");
    assert_eq!(added[..added.len() - 2], closed, "all but the one in use and the next");
    let told = edits[1..].iter().flatten().filter(|change| matches!(change, Change::LastSeq(_)));
    assert_eq!(told.count(), 0, "no position has failed");
}

#[test]
fn a_segment_whose_edit_has_failed_goes_with_the_next_edit() {
    let disk = SimFs::new();
    let shared = open(&disk, Options::new().durability(Durability::Os));
    let segments = || disk.list().unwrap().into_iter().filter(|name| name.ends_with(".wal")).count();
    assert_eq!(segments(), 1);
    // The first write is of the segment's header, the second of the edit.
    disk.fail(Fault::new(CallKind::Write, 1, Errno::NOSPC));
    assert!(shared.prepare_segment().is_err());
    assert_eq!(segments(), 2, "a restart may find the edit, and then looks for the file");
    shared.catalog.record_last_seq(SeqNo(0)).unwrap();
    assert_eq!(segments(), 1);
}

#[test]
fn a_copy_without_a_log_knows_which_positions_have_failed() {
    let disk = SimFs::new();
    let shared = open(&disk, Options::new());
    put(&shared, b"a").unwrap();
    shared.flush_all().unwrap();
    disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
    assert!(matches!(put(&shared, b"failed"), Err(Error::ReadOnly(_))));
    shared.resume().unwrap();
    shared.checkpoint(Path::new("copy")).unwrap();
    let copy = open(&disk.directory("copy").unwrap(), Options::new());
    assert_eq!(put(&copy, b"b").unwrap(), SeqNo(3));
}

#[test]
fn after_a_close_nothing_is_changed() {
    let disk = SimFs::new();
    let shared = open(&disk, Options::new());
    shared.catalog.close();
    let calls = disk.calls();
    assert!(matches!(shared.catalog.record_last_seq(SeqNo(1)), Err(Error::Closed)));
    assert_eq!(disk.calls(), calls);
}

#[test]
fn a_table_that_moves_to_another_level_keeps_its_file() {
    let disk = SimFs::new();
    let shared = open(&disk, Options::new());
    put(&shared, b"a").unwrap();
    shared.flush_all().unwrap();
    let table = shared.state().version.levels[0][0].meta.clone();
    let number = table.number;
    let edit = vec![Change::DropTable { level: 0, number }, Change::AddTable { level: 6, table }];
    shared.catalog.commit(edit, |version| shared.install(version)).unwrap();
    // Not closed: what nobody needs goes with its last reader.
    drop(shared);
    let shared = open(&disk, Options::new());
    assert_eq!(shared.state().version.levels[6].len(), 1);
    assert!(shared.state().get(b"a", SeqNo::MAX).unwrap().is_some());
}
