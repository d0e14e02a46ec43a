//! Tests of what a start makes of what it finds.

use super::*;
use crate::engine::{Clock, WriteBatch};
use crate::fs::SimFs;
use crate::fs::sim::CrashPolicy;
use crate::storage::blob::BlobUse;
use crate::storage::manifest::{TableMeta, TableTimes};

fn options() -> Options {
    Options::new().segment_bytes(200).stepped()
}

fn open(disk: &SimFs, options: Options) -> Shared {
    recover(Arc::new(disk.clone()), options).unwrap()
}

fn put(shared: &Shared, key: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.put(key, b"value");
    let seq = shared.submit(&batch).unwrap();
    shared.wait_durable(seq).unwrap();
}

/// What a start finds after the power was lost.
fn found(disk: &SimFs, options: &Options) -> Survey {
    let fs: Arc<dyn Fs> = Arc::new(disk.image(disk.calls(), &CrashPolicy::Synced));
    let source = TableSource::new(fs.clone(), Arc::new(BlockCache::with_capacity(1 << 20)));
    survey(&fs, options, &source).unwrap()
}

#[test]
fn of_the_log_a_start_takes_what_no_table_has_and_syncs_what_nobody_has_closed() {
    let disk = SimFs::new();
    let shared = open(&disk, options());
    for n in 0..20 {
        put(&shared, &[n]);
    }
    // Its edit says that all but the one in use are closed.
    shared.prepare_segment().unwrap();
    let Survey { replay, replayed, .. } = found(&disk, &options());
    assert_eq!((replay.changes, replay.last), (20, SeqNo(20)));
    assert!(replay.sealed.is_empty(), "one memtable holds it");
    assert_eq!(replay.committed, [], "nobody keeps history");
    let with_records: Vec<FileNumber> = replay.needed.iter().map(|(number, ..)| *number).collect();
    let (open, closed): (Vec<FileNumber>, Vec<FileNumber>) =
        with_records.iter().partition(|number| matches!(replayed.segments[number], Listed::Open { .. }));
    assert!(closed.len() > 3 && open.len() == 1, "{closed:?} {open:?}");
    assert_eq!(replay.believed, open);
    let smaller = options().memtable_bytes(500);
    let replay = found(&disk, &smaller).replay;
    assert!(replay.sealed.len() > 1 && replay.sealed.iter().all(|sealed| sealed.memtable.bytes() >= 500));

    shared.flush_all().unwrap();
    let replay = found(&disk, &options()).replay;
    assert_eq!((replay.changes, replay.last), (0, SeqNo(20)));
    assert_eq!(replay.needed, [], "tables have it all");
}

#[test]
fn no_number_that_any_file_has_is_given_out_again() {
    let disk = SimFs::new();
    drop(open(&disk, options()));
    // What a run left behind that was killed before its first edit.
    disk.write_file("000050.sst", "half a table");
    put(&open(&disk, options()), b"a");
    let numbers = disk.list().unwrap().iter().filter_map(|name| FileName::parse(name)?.number()).collect::<Vec<_>>();
    assert!(numbers.iter().all(|number| *number > FileNumber(50)), "{numbers:?}");
}

#[test]
fn what_an_edit_names_stays_until_a_new_manifest_is_in_force() {
    let table = TableMeta {
        number: FileNumber(9),
        size: 4096,
        entries: 1,
        tombstones: 0,
        older: 0,
        first_seq: SeqNo(1),
        last_seq: SeqNo(1),
        earliest_expiry: None,
        times: TableTimes::default(),
        range_tombstones: 0,
        smallest: crate::codec::Slice::copy_from(b"a"),
        largest: crate::storage::End::With(crate::codec::Slice::copy_from(b"a")),
        blobs: vec![BlobUse { file: FileNumber(8), file_bytes: 1, used_bytes: 1 }],
    };
    let added = vec![Change::AddTable { level: 0, table }, Change::AddSegment { number: FileNumber(7), prepared: 0 }];
    let dropped = vec![
        Change::DropTable { level: 0, number: FileNumber(9) },
        Change::CloseSegment { number: FileNumber(6), len: 0 },
    ];
    let named = named(&[added, dropped]);
    let file = |number: u64| FileName::Table(FileNumber(number));
    let files = [4, 6, 7, 8, 9, 10].map(file).to_vec();
    let current = Some(FileNumber(5));
    let (at_once, later) = no_longer_needed(files, current, &named, &Replayed::default(), &[]);
    assert_eq!(at_once, [file(10)], "newer than the manifest, and never heard of");
    assert_eq!(later, [4, 6, 7, 8, 9].map(file));
}

#[test]
fn the_window_never_begins_behind_what_is_left() {
    let clock = Clock(Arc::new(|| 1_000));
    let options = options().clock(clock).history(std::time::Duration::from_secs(3600));
    let oldest = Moment { seq: SeqNo(10), time: 900 };
    let replayed = Replayed { oldest: Some(oldest), ..Replayed::default() };
    let replay = Replay::new(&options, &replayed);
    let oldest_of = |last| times(&options, &replayed, &replay, SeqNo(last)).unwrap().oldest();
    assert_eq!(oldest_of(12), oldest);
    assert_eq!(oldest_of(7), Moment { seq: SeqNo(7), ..oldest }, "a crash has lost the rest");
}
