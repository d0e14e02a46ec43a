//! What is read of a damaged table: all that lies outside the damage, and nothing that was never there; and a check
//! that notices every changed byte.

use super::super::check;
use super::super::salvage::Piece;
use super::*;
use crate::codec::Rng;

fn entries(rng: &mut Rng) -> Vec<Entry> {
    let mut entries = Vec::new();
    for n in 0..60u64 {
        for version in 0..1 + n % 2 {
            let kind = match rng.below(5) {
                0 => Kind::Tombstone,
                1 => Kind::Put { expires_at: Some(1_000 + n) },
                _ => PUT,
            };
            let len = if kind == Kind::Tombstone { 0 } else { rng.below(40) as usize };
            entries.push(entry(format!("key{n:03}"), 1 + n * 3 + version, kind, vec![b'a' + n as u8 % 26; len]));
        }
    }
    sort(&mut entries);
    entries
}

/// The entries that can be read, and where the places that cannot start and end.
fn salvage(file: &Arc<MemFile>) -> (Vec<Entry>, Vec<(u64, u64)>) {
    let (mut good, mut lost) = (Vec::new(), Vec::new());
    for piece in Arc::new(Parts::read(file.clone(), NAME, TABLE)).pieces() {
        match piece {
            Piece::Block { entries, .. } => {
                good.extend(entries.iter().map(|e| entry(&e.key, e.seq.0, e.kind, &e.value)));
            }
            Piece::Lost { offset, length, .. } => lost.push((offset, offset + length)),
        }
    }
    (good, lost)
}

fn problems(file: &Arc<MemFile>) -> usize {
    let parts = Arc::new(Parts::read(file.clone(), NAME, TABLE));
    parts.problems.len() + check(&parts).problems.len()
}

#[test]
fn a_flipped_byte_costs_at_most_its_own_block_and_is_noticed() {
    let rng = &mut Rng::new(7);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let entries = entries(rng);
        let (file, _) = build(&entries, TABLE, small_blocks(compression));
        let good = file.bytes();
        assert_eq!(problems(&file), 0);
        let table = open(&file).unwrap();
        let blocks = table.data_blocks();
        assert!(blocks.len() > 10);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << rng.below(8);
            let damaged = MemFile::with(&bytes);
            assert!(problems(&damaged) > 0, "byte {at} is not noticed");
            let (found, lost) = salvage(&damaged);
            match blocks.iter().position(|block| (block.offset..block.end()).contains(&(at as u64))) {
                // An end, a partition, the top or the properties: no entry is there.
                None => assert_eq!(found, entries, "byte {at}"),
                Some(n) => {
                    assert_eq!(lost, [(blocks[n].offset, blocks[n].end())], "byte {at}");
                    let missing: Vec<&Entry> = entries.iter().filter(|entry| !found.contains(entry)).collect();
                    assert_eq!(found.len() + missing.len(), entries.len(), "byte {at}: nothing is invented");
                    assert!(!missing.is_empty() && missing.len() < 12, "byte {at}: {missing:?}");
                    assert!(found.is_sorted_by(|a, b| (&a.key, b.seq) < (&b.key, a.seq)));
                }
            }
        }
    }
}

#[test]
fn without_its_index_a_damaged_table_gives_all_other_blocks_too() {
    let rng = &mut Rng::new(8);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let entries = entries(rng);
        let (file, _) = build(&entries, TABLE, small_blocks(compression));
        let blocks: Vec<_> = {
            let table = open(&file).unwrap();
            table.data_blocks()
        };
        let data_end = blocks.last().unwrap().end() as usize;
        for n in 0..blocks.len() {
            // The tail is cut off, and a byte of one block is changed.
            let mut bytes = file.bytes()[..data_end].to_vec();
            bytes[blocks[n].offset as usize + rng.below(u64::from(blocks[n].length)) as usize] ^= 0x10;
            let (found, lost) = salvage(&MemFile::with(&bytes));
            assert_eq!(lost, [(blocks[n].offset, blocks[n].end())]);
            assert!(found.iter().all(|entry| entries.contains(entry)));
            assert!(entries.len() - found.len() < 12);
        }
        // Cut anywhere: every whole block.
        for len in 0..data_end {
            let (found, _) = salvage(&MemFile::with(&file.bytes()[..len]));
            assert_eq!(found, entries[..found.len()]);
            let whole = blocks.iter().filter(|block| block.end() as usize <= len).count();
            let (all, _) =
                salvage(&MemFile::with(&file.bytes()[..blocks[..whole].last().map_or(0, |b| b.end() as usize)]));
            assert_eq!(found, all, "cut at {len}");
        }
    }
}
