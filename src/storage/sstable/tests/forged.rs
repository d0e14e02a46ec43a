//! Tables that no writer writes, with checksums that are right: what a check tells of them, and what is read of them.

#![allow(clippy::single_range_in_vec_init, reason = "a table may have one partition")]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::super::block::{Block, common_prefix};
use super::super::block_builder::BlockBuilder;
use super::super::check::check;
use super::super::footer::{self, Footer, HEADER_BYTES};
use super::super::frame::{Handle, TRAILER_BYTES};
use super::super::partition::{Partition, PartitionBuilder};
use super::super::properties::Properties;
use super::super::salvage::{Piece, entries as entries_of};
use super::super::{Malformed, index};
use super::*;
use crate::codec::Slice;
use crate::fs::File;
use crate::storage::blob::Pointer;
use crate::storage::names::FileNumber;
use crate::storage::output::Output;

/// The content of a data block with these entries.
fn block_of(entries: &[Entry]) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    let mut last: &[u8] = b"";
    for entry in entries {
        let shared = common_prefix(last, &entry.key);
        builder.add(&entry.key, KeyHash::of(&entry.key), shared, entry.seq, entry.kind, &entry.value);
        last = &entry.key;
    }
    builder.finish().to_vec()
}

/// A partition over these data blocks with the last entries as separators, and a filter with such of their keys.
fn partition_of(blocks: &[Vec<Entry>], handles: &[Handle], filtered: impl Fn(&[u8]) -> bool) -> PartitionBuilder {
    let mut builder = PartitionBuilder::new(handles[0].offset, 10);
    for (entries, handle) in blocks.iter().zip(handles) {
        let keys = entries.iter().map(|entry| &entry.key[..]).filter(|key| filtered(key));
        keys.for_each(|key| builder.add_key(KeyHash::of(key)));
        let last = entries.last().unwrap();
        builder.add_block((&last.key, last.seq), handle.length);
    }
    builder
}

/// A table of these data blocks, with a partition over each of the `partitions`, whatever blocks those leave out.
fn table_of(blocks: &[Vec<Entry>], partitions: &[Range<usize>]) -> Arc<MemFile> {
    let file = MemFile::new();
    let mut output = Output::new(file.clone(), NAME.to_owned(), TABLE, 0, &footer::header(TABLE));
    let mut put = |content: &[u8]| output.block(content, Compression::None).unwrap();
    let mut properties = Properties::default();
    let handles: Vec<Handle> = blocks.iter().map(|entries| put(&block_of(entries))).collect();
    let mut last_key = None;
    for entry in blocks.iter().flatten() {
        properties.count(&entry.key, entry.seq, entry.kind, &entry.value, last_key == Some(&entry.key));
        last_key = Some(&entry.key);
    }
    properties.smallest_key = blocks[0][0].key.clone();
    properties.largest_key = last_key.unwrap().clone();
    properties.data_blocks = blocks.len() as u64;
    properties.data_bytes = handles.iter().map(|handle| u64::from(handle.length)).sum();
    let mut top = Vec::new();
    for range in partitions {
        let handle = put(&partition_of(&blocks[range.clone()], &handles[range.clone()], |_| true).encode());
        let last = blocks[range.end - 1].last().unwrap();
        index::put(&mut top, &last.key, last.seq, handle.length);
    }
    let partitions = handles.last().unwrap().end();
    let top = put(&top);
    let ranges = Handle { offset: top.offset, length: 0 };
    let properties = put(&properties.encode());
    output.finish(&Footer { partitions, ranges, top, properties }.encode(TABLE)).unwrap();
    file
}

/// Four blocks of three keys each.
fn four_blocks() -> Vec<Vec<Entry>> {
    let block = |n: u64| (0..3).map(|k| entry(format!("key{:x}", 3 * n + k), 100 - n, PUT, "value")).collect();
    (0..4).map(block).collect()
}

fn read(file: &Arc<MemFile>) -> Parts {
    Parts::read(file.clone(), NAME, TABLE)
}

/// What a check of the whole table tells.
fn told(parts: Parts) -> Vec<String> {
    let parts = Arc::new(parts);
    let mut told: Vec<String> = parts.problems.iter().map(ToString::to_string).collect();
    told.extend(check(&parts).problems);
    told
}

/// Where something was lost, how long that is, and between which keys it was.
type Lost = (u64, u64, Option<String>, Option<String>);

/// The keys that can be read, and what was lost.
fn pieces(parts: Parts) -> (Vec<String>, Vec<Lost>) {
    let text = |key: Vec<u8>| String::from_utf8(key).unwrap();
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for piece in Arc::new(parts).pieces() {
        match piece {
            Piece::Block { entries, .. } => found.extend(entries.into_iter().map(|entry| text(entry.key))),
            Piece::Lost { offset, length, after, upto, .. } => {
                lost.push((offset, length, after.map(text), upto.map(text)));
            }
        }
    }
    (found, lost)
}

fn keys(blocks: &[Vec<Entry>]) -> Vec<String> {
    blocks.iter().flatten().map(|entry| String::from_utf8(entry.key.clone()).unwrap()).collect()
}

#[test]
fn partitions_that_leave_blocks_out_are_told_and_cost_no_entry() {
    let blocks = four_blocks();
    assert_eq!(told(read(&table_of(&blocks, &[0..2, 2..4]))), [""; 0]);
    assert_eq!(told(read(&table_of(&blocks, &[0..1, 1..2, 2..4]))), [""; 0]);
    for partitions in [&[1..2, 2..4][..], &[0..1, 2..4], &[0..2, 2..3], &[0..2, 3..4], &[0..3], &[1..4]] {
        let file = table_of(&blocks, partitions);
        let told = told(read(&file));
        assert_eq!(told.len(), 1, "{partitions:?}: {told:?}");
        assert!(told[0].contains("partitions do not cover the data blocks"), "{partitions:?}: {told:?}");
        assert_eq!(pieces(read(&file)), (keys(&blocks), vec![]), "{partitions:?}");
    }
}

#[test]
fn a_block_before_the_one_in_front_of_it_is_lost_and_no_other() {
    let mut blocks = four_blocks();
    blocks.swap(1, 2);
    let (found, lost) = pieces(read(&table_of(&blocks, &[0..4])));
    assert_eq!(found, [keys(&blocks[..2]), keys(&blocks[3..])].concat());
    let length = (block_of(&blocks[0]).len() + TRAILER_BYTES) as u64;
    let key = |key: &str| Some(key.to_owned());
    // The separators are the last entries of the blocks.
    assert_eq!(lost, [(HEADER_BYTES as u64 + 2 * length, length, key("key8"), key("key5"))]);
}

#[test]
fn of_a_lost_block_it_is_told_between_which_keys_its_own_lie() {
    let blocks = four_blocks();
    let good = table_of(&blocks, &[0..2, 2..4]).bytes();
    let length = block_of(&blocks[0]).len() + TRAILER_BYTES;
    let key = |n: Option<usize>| Some(format!("key{:x}", n?));
    for n in 0..4 {
        let at = HEADER_BYTES + n * length;
        let mut bytes = good.clone();
        bytes[at + 7] ^= 1;
        let found = [keys(&blocks[..n]), keys(&blocks[n + 1..])].concat();
        let lost = |upto| vec![(at as u64, length as u64, key((3 * n).checked_sub(1)), key(upto))];
        // By the separators, which are the last entries of the blocks.
        assert_eq!(pieces(read(&MemFile::with(&bytes))), (found.clone(), lost(Some(3 * n + 2))), "block {n}");
        // Without an index by what stands next to it.
        bytes.truncate(HEADER_BYTES + 4 * length);
        let upto = (n < 3).then_some(3 * n + 3);
        assert_eq!(pieces(read(&MemFile::with(&bytes))), (found, lost(upto)), "block {n}, without an index");
    }
}

#[test]
fn damage_is_told_once() {
    let (file, _) = build_with(&four_blocks().concat(), &ranges(), TABLE, small_blocks(Compression::None));
    let (good, parts) = (file.bytes(), read(&file));
    let partition = parts.partitions_at().next().unwrap().1;
    let ranges_at = parts.ranges_at.unwrap().0;
    let places = [0, HEADER_BYTES as u64 + 8, partition.offset, ranges_at, ranges_at - 1];
    assert_eq!(told(parts), [""; 0]);
    for at in places {
        let mut bytes = good.clone();
        bytes[at as usize] ^= 1;
        let told = told(read(&MemFile::with(&bytes)));
        assert_eq!(told.len(), 1, "byte {at}: {told:?}");
    }
}

#[test]
fn properties_of_other_entries_are_told() {
    let file = table_of(&four_blocks(), &[0..4]);
    type Change = fn(&mut Properties);
    let changes: [Change; 5] = [
        |told| told.entries += 1,
        |told| told.smallest_key = b"key".to_vec(),
        |told| told.largest_key = b"keyc".to_vec(),
        |told| told.data_bytes += 1,
        |told| told.range_tombstones = 1,
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut parts = read(&file);
        change(parts.properties.as_mut().unwrap());
        let told = told(parts);
        assert!(told.len() == 1 && told[0].contains("properties are not those of the entries"), "{n}: {told:?}");
    }
}

#[test]
fn a_filter_without_a_key_is_told_once_for_the_key() {
    let mut blocks = four_blocks();
    let older = Entry { seq: SeqNo(1), ..blocks[1][1].clone() };
    blocks[1].insert(2, older);
    let file = table_of(&blocks, &[0..4]);
    let mut parts = read(&file);
    let index = parts.partitions[0].as_ref().unwrap().index();
    let handles: Vec<Handle> = (0..4).map(|n| index.handle(n)).collect();
    let partition = partition_of(&blocks, &handles, |key| key != b"key4" && key != b"key5").encode();
    parts.partitions[0] = Some(Partition::decode(&partition, u64::MAX).unwrap());
    let told = told(parts);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("filter lacks the key \"key4\" of the block"), "{told:?}");
    assert!(told[1].contains("filter lacks the key \"key5\" of the block"), "{told:?}");
}

#[test]
fn a_block_with_entries_beyond_its_separators_is_told() {
    let blocks = four_blocks();
    let file = table_of(&blocks, &[0..4]);
    // The separator behind the second block, and what is said of it and of the block behind it.
    let cases = [
        (("key5", 99), 0),
        (("key5", 0), 0),
        (("key55", 7), 0),
        (("key6", 99), 0),
        (("key5", 100), 1),
        (("key4", 0), 1),
        (("key6", 98), 1),
        (("key7", 0), 1),
    ];
    for ((key, seq), problems) in cases {
        let mut parts = read(&file);
        let index = parts.partitions[0].as_ref().unwrap().index();
        let mut builder = PartitionBuilder::new(HEADER_BYTES as u64, 10);
        for (n, block) in blocks.iter().enumerate() {
            block.iter().for_each(|entry| builder.add_key(KeyHash::of(&entry.key)));
            let separator = if n == 1 { (key.as_bytes(), SeqNo(seq)) } else { index.separator(n) };
            builder.add_block(separator, index.handle(n).length);
        }
        parts.partitions[0] = Some(Partition::decode(&builder.encode(), u64::MAX).unwrap());
        let told = told(parts);
        assert_eq!(told.len(), problems, "separator {key} {seq}: {told:?}");
        assert!(told.iter().all(|what| what.contains("block is not where the index says")), "{told:?}");
    }
}

#[test]
fn a_check_counts_what_a_table_points_to() {
    let far = |key: &str, file, length| {
        let mut pointer = Vec::new();
        let stored = Handle { offset: 20, length };
        Pointer { file: FileNumber(file), stored, value_len: 9 }.encode(&mut pointer);
        entry(key, 1, Kind::PutFar { expires_at: None }, pointer)
    };
    let blocks = [vec![far("a", 3, 100), far("b", 4, 70)], vec![entry("c", 1, PUT, "near"), far("d", 3, 1_000)]];
    let checked = check(&Arc::new(read(&table_of(&blocks, &[0..2]))));
    assert_eq!(checked.problems, [""; 0]);
    // Each value with the four bytes in front of it.
    assert_eq!(checked.blobs, BTreeMap::from([(FileNumber(3), 104 + 1_004), (FileNumber(4), 74)]));
    let unreadable = entry("d", 1, Kind::PutFar { expires_at: None }, "no pointer");
    let told = told(read(&table_of(&[vec![far("a", 3, 100), unreadable]], &[0..1])));
    assert!(told.len() == 1 && told[0].contains("an entry has no readable pointer"), "{told:?}");
}

#[test]
fn a_partition_has_blocks_and_they_lie_before_the_partitions() {
    let mut builder = PartitionBuilder::new(100, 10);
    assert!(Partition::decode(&builder.encode(), 1_000).is_err(), "without blocks");
    builder.add_block((b"a", SeqNo(0)), 50);
    builder.add_block((b"b", SeqNo(0)), 70);
    for (data_end, is_whole) in [(0, false), (219, false), (220, true), (1_000, true)] {
        assert_eq!(Partition::decode(&builder.encode(), data_end).is_ok(), is_whole, "blocks end at {data_end}");
    }
}

#[test]
fn a_block_that_no_writer_writes_is_refused() {
    let five: Vec<Entry> = (0..5).map(|n| entry(format!("a{n}"), 9, PUT, "")).collect();
    let parse = |bytes: &[u8]| Block::parse(Slice::copy_from(bytes)).and_then(|block| entries_of(&block));
    let good = block_of(&five);
    assert_eq!(parse(&good).unwrap().len(), 5);

    let twice = [five[0].clone(), five[0].clone()];
    assert_eq!(parse(&block_of(&twice)), Err(Malformed("entries come out of order")));
    let descending = [five[1].clone(), five[0].clone()];
    assert_eq!(parse(&block_of(&descending)), Err(Malformed("entries come out of order")));
    let newer_behind = [five[0].clone(), Entry { seq: SeqNo(10), ..five[0].clone() }];
    assert_eq!(parse(&block_of(&newer_behind)), Err(Malformed("entries come out of order")));

    // The head: a count of 4 bytes, the shift, five tags, two restart points.
    let second = 4 + 1 + 5 + 4;
    let misplaced = Err(Malformed("restart points are not where entries are"));
    let mut bytes = good.clone();
    bytes[second] -= 1;
    assert_eq!(parse(&bytes), misplaced, "a restart point beside its entry");
    // Two entries, each a restart point, of which the second shares a byte: shared, suffix and value length, kind, position.
    let tags = [KeyHash::of(b"a").tag(), KeyHash::of(b"ab").tag()];
    let head = [&[2, 0, 0, 0, 0][..], &tags, &[15, 0, 0, 0], &[21, 0, 0, 0]].concat();
    let sharing = [&head[..], &[0, 1, 0, 1, 9, b'a'], &[1, 1, 0, 1, 9, b'b']].concat();
    assert_eq!(parse(&sharing), misplaced, "a restart point that shares");
    let whole = [&head[..], &[0, 1, 0, 1, 9, b'a'], &[0, 2, 0, 1, 9, b'a', b'b']].concat();
    assert_eq!(parse(&whole).unwrap().len(), 2);

    // Of one entry any distance is the same, but not every one is allowed.
    let mut bytes = block_of(&five[..1]);
    for (shift, is_good) in [(0, true), (7, true), (8, false), (255, false)] {
        bytes[4] = shift;
        assert_eq!(parse(&bytes).is_ok(), is_good, "shift {shift}");
    }
}

/// A disk that does not read one of its bytes.
struct BadSpot(Arc<MemFile>, u64);

impl File for BadSpot {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let is_hit = (offset..offset + buffer.len() as u64).contains(&self.1);
        if is_hit { Err(io::Error::other("bad spot")) } else { self.0.read_at(buffer, offset) }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

#[test]
fn what_the_disk_does_not_read_is_told_to_be_lost_also_where_no_index_says_what_was_there() {
    let blocks = four_blocks();
    let file = table_of(&blocks, &[0..2, 2..4]);
    let length = (block_of(&blocks[0]).len() + TRAILER_BYTES) as u64;
    let (at, partition) = (HEADER_BYTES as u64 + 3 * length, read(&file).partitions_at().nth(1).unwrap().1);
    let read = |file: Arc<MemFile>| Parts::read(Arc::new(BadSpot(file, at + 1)), NAME, TABLE);
    let key = |key: &str| Some(key.to_owned());
    let (found, lost) = pieces(read(file.clone()));
    assert_eq!((found, lost), (keys(&blocks[..3]), vec![(at, length, key("key8"), key("keyb"))]));

    let mut bytes = file.bytes();
    bytes[partition.offset as usize] ^= 1;
    let (found, lost) = pieces(read(MemFile::with(&bytes)));
    assert_eq!((found, lost), (keys(&blocks[..2]), vec![(at - length, 2 * length, key("key5"), None)]));
}
