//! A damaged table answers with an error or the truth.

use super::super::footer::{FOOTER_BYTES, HEADER_BYTES};
use super::super::frame::TRAILER_BYTES;
use super::*;
use crate::codec::Rng;
use crate::codec::crc::crc32;
use crate::storage::Error;

fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        (0..60).map(|n| entry(format!("user:{:03}", n / 2), 200 - n, PUT, format!("value of {n}"))).collect();
    entries[7].kind = Kind::Put { expires_at: Some(1_700_000_000_000) };
    entries[11] = entry("user:005", 189, Kind::Tombstone, "");
    sort(&mut entries);
    entries
}

/// Many blocks of few entries in several partitions, and few blocks of several restart intervals in one.
fn shapes() -> Vec<TableOptions> {
    let shape = |(block_bytes, partition_bytes), compression| TableOptions {
        block_bytes,
        partition_bytes,
        compression,
        ..TableOptions::default()
    };
    let sizes = [(200, 500), (1500, 64 << 10)];
    sizes
        .iter()
        .flat_map(|&sizes| [Compression::None, Compression::Lz4, Compression::Zstd].map(|c| shape(sizes, c)))
        .collect()
}

/// Everything that can be asked of a table gives an error or what was written. How many errors there were.
fn errors_in(bytes: &[u8], entries: &[Entry]) -> usize {
    let check = |result: Result<bool>| match result {
        Ok(right) => {
            assert!(right, "a wrong answer");
            0
        }
        Err(Error::Corrupt { file, offset, .. }) => {
            assert_eq!(file, NAME);
            assert!(offset <= bytes.len() as u64);
            1
        }
        Err(error) => panic!("{error}"),
    };
    let file = MemFile::with(bytes);
    let table = match open(&file) {
        Ok(table) => table,
        Err(error) => return check(Err(error)),
    };
    let mut errors = 0;
    for mode in [ReadMode::Streaming, ReadMode::Cached] {
        errors += check(forward(&table, Bound::Unbounded, mode).map(|found| found == entries));
        errors += check(backward(&table, Bound::Unbounded, mode).map(|found| found.iter().rev().eq(entries)));
    }
    for entry in entries {
        let right = |found| found == newest(entries, &entry.key, entry.seq.0);
        errors += check(get(&table, &entry.key, entry.seq.0).map(right));
    }
    errors += check(get(&table, b"user:005x", 1000).map(|found| found.is_none()));
    errors += check(get(&table, b"del:b", 100).map(|found| found == Some(Version::deleted(SeqNo(20)))));
    errors
}

#[test]
fn every_flipped_byte_is_noticed() {
    let entries = entries();
    for options in shapes() {
        let (file, _) = build_with(&entries, &ranges(), TABLE, options);
        let good = file.bytes();
        assert_eq!(errors_in(&good, &entries), 0);
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                assert!(errors_in(&bytes, &entries) > 0, "byte {at} of {} flipped by {flip:#x}", good.len());
            }
        }
    }
}

#[test]
fn every_other_length_is_refused() {
    let (file, _) = build_with(&entries(), &ranges(), TABLE, small_blocks(Compression::Lz4));
    let good = file.bytes();
    for len in 0..good.len() {
        assert!(open(&MemFile::with(&good[..len])).is_err(), "cut to {len} bytes");
        assert!(open(&MemFile::with(&[&good[..], &good[len..]].concat())).is_err(), "its tail from {len} twice");
        assert!(open(&MemFile::with(&good[len + 1..])).is_err(), "without its first {} bytes", len + 1);
    }
    for len in [1, 4, 512, 4096] {
        assert!(open(&MemFile::with(&[&good[..], &vec![0; len]].concat())).is_err(), "{len} zeros behind it");
    }
    // A footer that is good, behind bytes that were not there when it was written.
    let footer = &good[good.len() - FOOTER_BYTES..];
    assert!(open(&MemFile::with(&[&good[..], footer].concat())).is_err());
}

#[test]
fn a_good_block_in_the_wrong_place_is_refused() {
    // Entries of one size, uncompressed: all full blocks have one length.
    let entries: Vec<Entry> = (0..60).map(|n| entry([n as u8], 1000 + n, PUT, "0123456789")).collect();
    let (file, meta) = build_with(&entries, &ranges(), TABLE, small_blocks(Compression::None));
    let good = file.bytes();
    let table = open(&file).unwrap();
    let block = |n| {
        let handle: super::super::frame::Handle = table.data_blocks()[n];
        handle.offset as usize..handle.end() as usize
    };
    assert_eq!(block(0).len(), block(1).len());
    let mut swapped = good.clone();
    swapped[block(0)].copy_from_slice(&good[block(1)]);
    swapped[block(1)].copy_from_slice(&good[block(0)]);
    assert!(errors_in(&swapped, &entries) > 0);

    // The same block at the same place in a table of another number.
    let (other, other_meta) = build_with(&entries, &ranges(), TableId(8), small_blocks(Compression::None));
    assert_eq!(other_meta.file_bytes, meta.file_bytes);
    assert!(open(&other).is_err(), "another table under this one's name");
    let mut mixed = good.clone();
    mixed[block(1)].copy_from_slice(&other.bytes()[block(1)]);
    assert!(errors_in(&mixed, &entries) > 0);
}

/// Damage that the checksums do not see: bytes changed and all checksums made right again. Answers may be wrong, but
/// nothing panics, loops or takes memory that the file's size does not bound.
#[test]
fn nothing_panics_when_checksums_are_right_and_bytes_are_not() {
    let entries = entries();
    for options in shapes() {
        let (file, _) = build_with(&entries, &ranges(), TABLE, options);
        let good = file.bytes();
        let table = open(&file).unwrap();
        let mut stored = [table.data_blocks(), table.partitions()].concat();
        let footer_at = good.len() - FOOTER_BYTES;
        // Range tombstones, top and properties follow the partitions; the footer's handles say where.
        for at in [8, 20, 32].map(|at| footer_at + at) {
            let offset = u64::from_le_bytes(good[at..at + 8].try_into().unwrap());
            let length = u32::from_le_bytes(good[at + 8..at + 12].try_into().unwrap());
            stored.push(super::super::frame::Handle { offset, length });
        }
        let rng = &mut Rng::new(5);
        for at in HEADER_BYTES..good.len() {
            for _ in 0..4 {
                let mut bytes = good.clone();
                bytes[at] = rng.next_u64() as u8;
                for handle in &stored {
                    let (start, end) = (handle.offset as usize, handle.end() as usize);
                    let covered = start..end - TRAILER_BYTES + 1;
                    let crc = crc32(&[&TABLE.0.to_le_bytes(), &handle.offset.to_le_bytes(), &bytes[covered]]);
                    bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());
                }
                let crc = crc32(&[&bytes[footer_at..good.len() - 8]]);
                let crc_at = good.len() - 8;
                bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
                walk(&bytes, &entries);
            }
        }
    }
}

fn walk(bytes: &[u8], entries: &[Entry]) {
    let file = MemFile::with(bytes);
    let _ = dump_of(&file);
    let Ok(table) = open(&file) else { return };
    for bound in [Bound::Unbounded, Bound::Included(&b"user:015"[..]), Bound::Excluded(b"user:020")] {
        let _ = forward(&table, bound, ReadMode::Cached);
        let _ = backward(&table, bound, ReadMode::Cached);
    }
    for entry in entries.iter().step_by(7) {
        let _ = get(&table, &entry.key, entry.seq.0);
    }
}
