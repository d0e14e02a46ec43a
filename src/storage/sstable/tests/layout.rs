//! What a writer makes of a table: how full its blocks are, which files it asks the disk to write and sync when.

use super::super::frame::TRAILER_BYTES;
use super::super::salvage::Piece;
use super::*;
use crate::codec::Rng;
use crate::storage::Error;
use crate::storage::testing::few_bytes;

/// The most that an entry takes besides its key and value, and what a writer may leave of a block for that.
const ENTRY_BYTES: usize = 60;

/// The data blocks, with their lengths.
fn blocks(file: &Arc<MemFile>) -> Vec<(usize, usize)> {
    let pieces = Arc::new(Parts::read(file.clone(), NAME, TABLE)).pieces();
    let block = |piece| match piece {
        Piece::Block { length, entries, .. } => (length as usize - TRAILER_BYTES, entries.len()),
        Piece::Lost { error, .. } => panic!("{error}"),
    };
    pieces.map(block).collect()
}

#[test]
fn a_block_is_closed_before_the_entry_that_would_carry_it_past_its_size_and_not_earlier() {
    let rng = &mut Rng::new(6);
    let options = TableOptions { compression: Compression::None, ..TableOptions::default() };
    for (prefix, value) in [(0, 100), (990, 10), (1_500, 0), (990, 3_000), (5_000, 10), (0, 5_000)] {
        let key = |n| format!("{}{n:04}", "k".repeat(prefix));
        let entries: Vec<Entry> = (0..200).map(|n| entry(key(n), n, PUT, few_bytes(rng, value))).collect();
        let blocks = blocks(&build(&entries, TABLE, options).0);
        // Each block begins with a whole key, and so does every fourth entry; the others have four bytes of theirs.
        let length = |entries: usize| entries * (4 + value) + entries.div_ceil(4) * prefix;
        for (n, &(len, count)) in blocks.iter().enumerate() {
            assert!(len <= options.block_bytes || count == 1, "block {n} has {len} bytes with {count} entries");
            let with_next = length(count + 1) + (count + 1) * ENTRY_BYTES;
            let is_last = n + 1 == blocks.len();
            assert!(is_last || with_next > options.block_bytes, "block {n} ends at {len} bytes with {count} entries");
        }
    }
}

#[test]
fn the_estimate_is_near_the_length_at_any_time() {
    let rng = &mut Rng::new(4);
    for (count, fragments) in [(0, 300), (1, 0), (50, 20), (400, 0), (400, 300), (3_000, 0)] {
        let mut writer = TableWriter::new(MemFile::new(), NAME, TABLE, small_blocks(Compression::None));
        for n in 0..count {
            writer.add(format!("{n:08}").as_bytes(), SeqNo(n), PUT, &few_bytes(rng, 50)).unwrap();
        }
        for n in 0..fragments {
            let edge = |n: usize| Edge::from(format!("del:{n:08}").as_bytes());
            let seqs = vec![SeqNo(9), SeqNo(3)];
            writer.add_ranges(Fragment { start: edge(n), end: Some(edge(n + 1)), seqs }).unwrap();
        }
        let estimate = writer.estimated_size();
        let length = writer.finish().unwrap().file_bytes;
        // The top and the properties are not in it, and range tombstones in memory take more than in the file.
        let most = if fragments == 0 { length / 25 + 300 } else { length / 2 };
        assert!(estimate.abs_diff(length) < most, "{count} entries, {fragments} fragments: {estimate} of {length}");
    }
}

#[test]
fn a_table_ends_before_every_key_behind_its_last() {
    let mut writer = TableWriter::new(MemFile::new(), NAME, TABLE, TableOptions::default());
    assert!(writer.ends_before(b"") && writer.ends_before(b"k"), "nothing was added");
    for key in ["k", "key"] {
        writer.add(key.as_bytes(), SeqNo(1), PUT, b"").unwrap();
    }
    let found = ["", "k", "ke", "key", "key\0", "l"].map(|key| writer.ends_before(key.as_bytes()));
    assert_eq!(found, [false, false, false, false, true, true]);
}

/// A call for each block would cost more than copying its bytes.
#[test]
fn blocks_are_written_in_chunks_and_synced_every_so_often() {
    let rng = &mut Rng::new(2);
    let entries: Vec<Entry> = (0..3_000).map(|n| entry(format!("{n:08}"), n, PUT, few_bytes(rng, 1_000))).collect();
    let options = TableOptions { compression: Compression::None, sync_every: 1 << 20, ..TableOptions::default() };
    let (file, meta) = build(&entries, TABLE, options);
    let (writes, syncs) = (meta.file_bytes as usize / (256 << 10) + 1, meta.file_bytes as usize / (1 << 20) + 1);
    assert!(meta.properties.data_blocks > 800);
    assert!(file.writes() <= writes, "{} writes instead of {writes}", file.writes());
    assert!(file.syncs() <= syncs && file.syncs() > 2, "{} syncs instead of {syncs}", file.syncs());
    assert_eq!(file.unsynced(), 0);
}

#[test]
fn a_table_of_which_one_write_failed_is_never_finished_though_the_disk_recovers() {
    let value = vec![7; 300_000];
    let options = TableOptions { compression: Compression::None, ..TableOptions::default() };
    let file = MemFile::new();
    let mut writer = TableWriter::new(file.clone(), NAME, TABLE, options);
    writer.add(b"a", SeqNo(1), PUT, &value).unwrap();
    file.set_failing(true);
    assert!(writer.add(b"b", SeqNo(1), PUT, &value).is_err(), "the first block goes out before the second begins");
    file.set_failing(false);
    assert!(matches!(writer.finish(), Err(Error::Io { .. })));
}

#[test]
fn an_entry_out_of_order_is_an_error_that_names_the_file() {
    let mut writer = TableWriter::new(MemFile::new(), NAME, TABLE, TableOptions::default());
    writer.add(b"b", SeqNo(5), PUT, b"").unwrap();
    let error = writer.add(b"a", SeqNo(6), PUT, b"").unwrap_err().to_string();
    assert!(error.starts_with(NAME) && error.contains("entry \"a\" seq 6 comes out of order"), "{error}");
    writer.add_ranges(ranges().remove(1)).unwrap();
    let error = writer.add_ranges(ranges().remove(0)).unwrap_err().to_string();
    assert!(error.starts_with(NAME) && error.contains("range tombstones from \"del:a\" on"), "{error}");
}
