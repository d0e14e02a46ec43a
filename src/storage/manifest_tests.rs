//! Tests of the manifest: its encoding, what damage does to it, and beginning one.

use super::*;
use crate::fs::SimFs;
use crate::fs::sim::{CallKind, Errno, Fault};
use crate::storage::golden::{golden, hex, unhex};

fn edit() -> Edit {
    let table = TableMeta {
        number: FileNumber(9),
        size: 4096,
        entries: 10,
        tombstones: 2,
        older: 1,
        first_seq: SeqNo(5),
        last_seq: SeqNo(14),
        earliest_expiry: None,
        times: TableTimes::default(),
        range_tombstones: 0,
        smallest: Slice::copy_from(b"a"),
        largest: End::With(Slice::copy_from(&[0xff; 300])),
        blobs: Vec::new(),
    };
    let times = TableTimes { written: Some(50), expiring: 3, quartiles: [77, 80, 80, 99] };
    let blobs = vec![BlobUse { file: FileNumber(8), file_bytes: 9000, used_bytes: 4000 }];
    let expiring = TableMeta { earliest_expiry: Some(77), times, blobs, ..table.clone() };
    let ranged = |largest| TableMeta { range_tombstones: 3, largest, ..table.clone() };
    let before = ranged(End::before(Some(b"b")));
    let (with, never) = (ranged(table.largest.clone()), ranged(End::Never));
    vec![
        Change::NextFile(FileNumber(3)),
        Change::Flushed(SeqNo(14)),
        Change::AddTable { level: 0, table },
        Change::AddTable { level: 6, table: expiring },
        Change::AddTable { level: 2, table: before },
        Change::AddTable { level: 3, table: with },
        Change::AddTable { level: 4, table: never },
        Change::DropTable { level: 1, number: FileNumber(2) },
        Change::AddSegment { number: FileNumber(4), prepared: 4096 },
        Change::CloseSegment { number: FileNumber(4), len: 123 },
        Change::DropSegment { number: FileNumber(4) },
        Change::LastSeq(SeqNo(20)),
        Change::Committed(vec![(SeqNo(3), 1_000_000_000_000), (SeqNo(14), 1_000_000_000_000), (SeqNo(900), u64::MAX)]),
        Change::Oldest(SeqNo(3), 1_000_000_000_000),
    ]
}

#[test]
fn every_change_survives_its_encoding_and_no_prefix_passes_for_it() {
    let mut bytes = Vec::new();
    encode(&edit(), &mut bytes);
    assert_eq!(decode(&bytes), Some(edit()));
    for cut in 0..bytes.len() {
        assert_ne!(decode(&bytes[..cut]), Some(edit()));
    }
}

#[test]
fn a_table_of_an_older_manifest_has_no_times() {
    let edit = &edit()[2..3];
    let mut bytes = Vec::new();
    encode(edit, &mut bytes);
    bytes[0] = 3;
    bytes.truncate(bytes.len() - 6 * size_of::<u64>() - 1);
    assert_eq!(decode(&bytes).as_deref(), Some(edit));
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    for change in [
        Change::NextFile(FileNumber(u64::MAX)),
        Change::Flushed(SeqNo(u64::MAX)),
        Change::LastSeq(SeqNo(u64::MAX)),
        Change::DropSegment { number: FileNumber(u64::MAX) },
        Change::Committed(vec![(SeqNo(u64::MAX), 0)]),
        Change::Committed(vec![(SeqNo(0), 0)]),
        Change::Oldest(SeqNo(u64::MAX), 0),
    ] {
        let mut bytes = Vec::new();
        encode(std::slice::from_ref(&change), &mut bytes);
        assert_eq!(decode(&bytes), None, "{change:?}");
    }
}

#[test]
fn range_tombstones_that_are_none_and_an_end_that_says_two_things_are_refused() {
    let encoded = |nth: usize| {
        let mut bytes = Vec::new();
        encode(&edit()[nth..=nth], &mut bytes);
        bytes
    };
    // Behind everything else: how many range tombstones, and how the table ends.
    let mut none = encoded(4);
    let at = none.len() - 1 - size_of::<u64>();
    assert_eq!(none[at..], [3, 0, 0, 0, 0, 0, 0, 0, 1]);
    none[at] = 0;
    assert_eq!(decode(&none), None);
    let mut two = encoded(4);
    *two.last_mut().unwrap() = 2;
    assert_eq!(decode(&two), None, "it ends before b, and nowhere");
    assert_eq!(encoded(6).last(), Some(&2));
}

const NUMBER: FileNumber = FileNumber(12);
const NAME: &str = "000012.manifest";

/// A first record with the whole state, and an edit behind it.
fn written() -> SimFs {
    let fs = SimFs::new();
    let state = [Change::NextFile(FileNumber(13)), Change::Flushed(SeqNo(7)), Change::LastSeq(SeqNo(7))];
    let Ok(mut manifest) = ManifestWriter::create(&fs, NUMBER, 0x0123_4567_89ab_cdef, &state) else {
        panic!("a disk without faults")
    };
    manifest.append(&edit()).unwrap();
    fs
}

#[test]
fn the_format_is_what_it_was() {
    let fs = written();
    let said = "the format has changed: raise the log's VERSION and keep reading the old one";
    for (name, file) in [("manifest.hex", NAME), ("current.hex", "CURRENT")] {
        let text = hex(&fs.read_file(file).unwrap());
        let golden = golden(name, &text);
        assert_eq!(text, golden, "{said}");
        fs.write_file(file, unhex(&golden));
    }
    assert_eq!(current(&fs).unwrap(), Some(NUMBER));
    let (edits, end) = read(&fs, NUMBER).unwrap();
    assert_eq!(edits.len(), 2);
    assert_eq!(edits[1], edit());
    assert_eq!(end, fs.read_file(NAME).unwrap().len() as u64);
}

#[test]
fn current_is_right_to_the_last_byte_or_refused() {
    let fs = written();
    let line = fs.read_file("CURRENT").unwrap();
    for at in 0..line.len() {
        for bit in 0..8 {
            let mut damaged = line.clone();
            damaged[at] ^= 1 << bit;
            fs.write_file("CURRENT", damaged);
            assert!(matches!(current(&fs), Err(Error::Corrupt { .. })), "byte {at} bit {bit}");
        }
        fs.write_file("CURRENT", &line[..at]);
        assert!(matches!(current(&fs), Err(Error::Corrupt { .. })), "cut at {at}");
    }
}

#[test]
fn a_torn_last_edit_never_took_effect_and_any_other_damage_is_refused() {
    let fs = written();
    let bytes = fs.read_file(NAME).unwrap();
    let mut log = LogReader::open(NAME, &bytes, MAGIC, NUMBER.0).unwrap();
    log.next().unwrap();
    let second = log.offset() as usize;
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        for content in [damaged, bytes[..at].to_vec()] {
            fs.write_file(NAME, content);
            match read(&fs, NUMBER) {
                Ok((edits, end)) => assert!(at >= second && edits.len() == 1 && end == second as u64, "byte {at}"),
                Err(Error::Corrupt { .. }) => assert!(at < second, "byte {at}"),
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
    }
}

#[test]
fn a_manifest_that_cannot_be_begun_leaves_nothing_unless_current_may_name_it() {
    for (call, nth, left) in [
        (CallKind::Create, 0, 0),
        (CallKind::Write, 0, 0),
        (CallKind::Write, 1, 0),
        (CallKind::Sync, 0, 0),
        (CallKind::Remove, 0, 0),
        (CallKind::Create, 1, 0),
        (CallKind::Sync, 1, 0),
        (CallKind::SyncDir, 0, 0),
        (CallKind::Rename, 0, 1),
        (CallKind::SyncDir, 1, 1),
    ] {
        let fs = SimFs::new();
        fs.fail(Fault::new(call, nth, Errno::NOSPC));
        let failure = ManifestWriter::create(&fs, NUMBER, 1, &[]).err().expect("it was told to fail");
        assert_eq!(failure.left_behind, left == 1, "{call:?} {nth}");
        let names = fs.list().unwrap();
        assert_eq!(names.iter().filter(|name| *name == NAME).count(), left, "{call:?} {nth}: {names:?}");
    }
}
