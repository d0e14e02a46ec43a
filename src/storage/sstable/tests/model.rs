//! A table against a sorted list of what was put in.

use std::ops::{Bound, RangeBounds};

use super::*;
use crate::codec::Rng;
use crate::storage::Error;
use crate::storage::testing::few_bytes;

/// Keys with long common prefixes, up to six versions each, of all kinds.
fn random_entries(rng: &mut Rng) -> Vec<Entry> {
    let keys = rng.below(200);
    let mut entries = Vec::new();
    let mut seq = rng.below(1000) + 1;
    for _ in 0..keys {
        let len = rng.below(12) as usize + 1;
        let key = few_bytes(rng, len);
        for _ in 0..rng.below(6) + 1 {
            seq += rng.below(3) + 1;
            let longest = if rng.below(20) == 0 { 500 } else { 30 };
            let len = rng.below(longest) as usize;
            let (kind, value) = match rng.below(4) {
                0 => (Kind::Tombstone, Vec::new()),
                1 => (Kind::Put { expires_at: Some(rng.next_u64()) }, few_bytes(rng, len)),
                _ => (PUT, few_bytes(rng, len)),
            };
            entries.push(entry(&key, seq, kind, value));
        }
    }
    sort(&mut entries);
    entries
}

fn round_trip(seed: u64) {
    let rng = &mut Rng::new(seed);
    let entries = random_entries(rng);
    let options = TableOptions {
        block_bytes: *rng.pick(&[1, 64, 200, 1000, 4096]),
        partition_bytes: *rng.pick(&[1, 300, 2000, 64 << 10]),
        filter_bits_per_key: *rng.pick(&[0, 10]),
        compression: *rng.pick(&[Compression::None, Compression::Lz4, Compression::Zstd]),
        sync_every: 0,
    };
    let (file, meta) = build(&entries, TABLE, options);
    let table = open(&file).unwrap();
    let parts = Parts::read(file.clone(), NAME, TABLE);
    assert_eq!(parts.properties.as_ref(), Some(&meta.properties));
    assert_eq!(parts.bytes(), file.bytes().len() as u64);
    assert_eq!(meta.properties.entries, entries.len() as u64);

    let mut keys: Vec<Vec<u8>> = entries.iter().map(|entry| entry.key.clone()).collect();
    keys.extend((0..50).map(|n| few_bytes(rng, n % 10 + 1)));
    keys.extend([b"a".to_vec(), b"zz".to_vec(), vec![0], vec![0xff; 3]]);
    for mode in [ReadMode::Cached, ReadMode::Streaming] {
        let bounds =
            keys.iter().step_by(keys.len() / 12).flat_map(|key| [Bound::Included(&key[..]), Bound::Excluded(&key[..])]);
        for bound in bounds.chain([Bound::Unbounded]) {
            let behind = |entry: &&Entry| RangeBounds::<[u8]>::contains(&(bound, Bound::Unbounded), &entry.key[..]);
            let expected: Vec<Entry> = entries.iter().filter(behind).cloned().collect();
            assert_eq!(forward(&table, bound, mode).unwrap(), expected, "from {bound:?}");
            let before = |entry: &&Entry| RangeBounds::<[u8]>::contains(&(Bound::Unbounded, bound), &entry.key[..]);
            let expected: Vec<Entry> = entries.iter().rev().filter(before).cloned().collect();
            assert_eq!(backward(&table, bound, mode).unwrap(), expected, "back from {bound:?}");
        }
    }
    for key in &keys {
        for as_of in [0, 1, rng.below(2000), rng.below(2000), entries.first().map_or(1, |e| e.seq.0), u64::MAX] {
            assert_eq!(get(&table, key, as_of).unwrap(), newest(&entries, key, as_of), "{key:?} as of {as_of}");
        }
    }
}

#[test]
fn every_version_of_random_keys_comes_back_both_ways_and_as_of_any_time() {
    for seed in 0..150 {
        // `round_trip(seed)` alone replays it.
        round_trip(seed);
    }
}

#[test]
fn versions_of_one_key_that_fill_many_blocks_are_each_found_in_one_block() {
    let mut entries = vec![entry("a", 5, PUT, "before"), entry("z", 6, PUT, "behind")];
    entries.extend((0..500).map(|n| entry("hot", 1000 + 2 * n, PUT, format!("value {n}"))));
    sort(&mut entries);
    let (file, meta) = build(&entries, TABLE, small_blocks(Compression::None));
    assert!(meta.properties.data_blocks > 40);
    assert_eq!(meta.properties.older_versions, 499);
    let table = open(&file).unwrap();
    for as_of in 990..2010 {
        let reads = file.reads();
        assert_eq!(get(&table, b"hot", as_of).unwrap(), newest(&entries, b"hot", as_of));
        assert!(file.reads() <= reads + 2, "more than a partition and a block");
    }
    let hot = |bound| forward(&table, bound, ReadMode::Cached).unwrap().len();
    assert_eq!(hot(Bound::Included(&b"hot"[..])), 501);
    assert_eq!(hot(Bound::Excluded(&b"hot"[..])), 1);
    let back = |bound| backward(&table, bound, ReadMode::Cached).unwrap().len();
    assert_eq!(back(Bound::Included(&b"hot"[..])), 501);
    assert_eq!(back(Bound::Excluded(&b"hot"[..])), 1);
}

#[test]
fn smallest_and_largest_keys_and_values_come_back() {
    let rng = &mut Rng::new(1);
    let mut entries = vec![
        entry([0], 1, PUT, ""),
        entry([0xff], 2, PUT, few_bytes(rng, 1 << 20)),
        entry(vec![b'k'; 64 << 10], 3, PUT, "long key"),
        entry([&vec![b'k'; (64 << 10) - 1][..], b"l"].concat(), u64::MAX, PUT, vec![0; 1 << 20]),
        entry("mixed", 5, Kind::Put { expires_at: Some(u64::MAX) }, (0..=255).collect::<Vec<u8>>().repeat(3000)),
    ];
    entries.extend((0..100).map(|n| entry(format!("small{n:03}"), 100 + n, PUT, "x")));
    sort(&mut entries);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let options = TableOptions { compression, ..TableOptions::default() };
        let (file, _) = build(&entries, TABLE, options);
        let table = open(&file).unwrap();
        for mode in [ReadMode::Cached, ReadMode::Streaming] {
            assert!(forward(&table, Bound::Unbounded, mode).unwrap() == entries);
            let mut back = backward(&table, Bound::Unbounded, mode).unwrap();
            back.reverse();
            assert!(back == entries);
        }
        for entry in &entries {
            assert!(get(&table, &entry.key, u64::MAX).unwrap() == newest(&entries, &entry.key, u64::MAX));
        }
    }
}

#[test]
fn a_large_value_has_a_block_of_its_own() {
    let mut entries: Vec<Entry> = (0..20).map(|n| entry(format!("k{n:02}"), n, PUT, "small")).collect();
    entries[10].value = few_bytes(&mut Rng::new(3), 100_000);
    let (_, meta) = build(&entries, TABLE, TableOptions::default());
    assert_eq!(meta.properties.data_blocks, 3);
}

#[test]
fn a_table_without_entries_is_a_table() {
    let (file, meta) = build(&[], TABLE, TableOptions::default());
    assert_eq!(meta.properties, super::super::properties::Properties::default());
    let table = open(&file).unwrap();
    assert_eq!(get(&table, b"a", u64::MAX).unwrap(), None);
    assert_eq!(forward(&table, Bound::Unbounded, ReadMode::Cached).unwrap(), []);
    assert_eq!(backward(&table, Bound::Unbounded, ReadMode::Streaming).unwrap(), []);
}

#[test]
fn entries_out_of_order_are_refused_and_leave_the_table_whole() {
    let file = MemFile::new();
    let mut writer = TableWriter::new(file.clone(), NAME, TABLE, TableOptions::default());
    let good = [entry("b", 5, PUT, "1"), entry("b", 4, PUT, "2"), entry("bb", 9, PUT, "3")];
    for entry in &good {
        writer.add(&entry.key, entry.seq, entry.kind, &entry.value).unwrap();
    }
    for (key, seq) in [("bb", 9), ("bb", 10), ("b", 1), ("a", 100), ("", 1)] {
        assert!(matches!(writer.add(key.as_bytes(), SeqNo(seq), PUT, b""), Err(Error::Corrupt { .. })), "{key} {seq}");
    }
    writer.finish().unwrap();
    assert_eq!(forward(&open(&file).unwrap(), Bound::Unbounded, ReadMode::Cached).unwrap(), good);
}

#[test]
fn a_long_table_is_synced_on_the_way_and_at_its_end() {
    let rng = &mut Rng::new(2);
    let entries: Vec<Entry> = (0..5000).map(|n| entry(format!("{n:08}"), n, PUT, few_bytes(rng, 1000))).collect();
    let options = TableOptions { compression: Compression::None, sync_every: 1 << 20, ..TableOptions::default() };
    let (file, meta) = build(&entries, TABLE, options);
    assert!(meta.file_bytes > 4 << 20);
    assert_eq!(file.unsynced(), 0);
    assert!(file.most_unsynced() < (1 << 20) + (512 << 10), "{} bytes unsynced", file.most_unsynced());
    let (file, _) = build(&entries, TABLE, TableOptions { sync_every: 0, ..options });
    assert_eq!(file.unsynced(), 0);
    assert!(file.most_unsynced() > 4 << 20);
}

#[test]
fn the_estimate_is_near_the_length() {
    let rng = &mut Rng::new(2);
    let mut writer = TableWriter::new(MemFile::new(), NAME, TABLE, TableOptions::default());
    for n in 0..10_000 {
        writer.add(format!("{n:08}").as_bytes(), SeqNo(n), PUT, &few_bytes(rng, 50)).unwrap();
    }
    let estimate = writer.estimated_size();
    let file_bytes = writer.finish().unwrap().file_bytes;
    assert!(estimate.abs_diff(file_bytes) < file_bytes / 20, "estimated {estimate} of {file_bytes}");
}

#[test]
fn streaming_reads_in_strides_and_leaves_the_cache_alone() {
    let rng = &mut Rng::new(2);
    let entries: Vec<Entry> = (0..10_000).map(|n| entry(format!("{n:08}"), n, PUT, few_bytes(rng, 200))).collect();
    let (file, meta) = build(&entries, TABLE, TableOptions::default());
    let cache = Arc::new(BlockCache::with_capacity(64 << 20));
    let table = Arc::new(Table::open(file.clone(), NAME, TABLE, cache.clone()).unwrap());
    let strides = meta.properties.data_bytes as usize / (256 << 10) + 2 + table.partitions().len();
    let reads = file.reads();
    assert!(forward(&table, Bound::Unbounded, ReadMode::Streaming).unwrap() == entries);
    assert!(file.reads() - reads <= strides);
    assert_eq!(backward(&table, Bound::Unbounded, ReadMode::Streaming).unwrap().len(), entries.len());
    assert!(file.reads() - reads <= 2 * strides);
    assert_eq!(cache.bytes(), (0, 0));
    // A long scan reads in strides, too, and what it reads once it is long is not kept.
    let (reads, blocks) = (file.reads(), meta.properties.data_blocks);
    assert!(forward(&table, Bound::Unbounded, ReadMode::Cached).unwrap() == entries);
    assert!(file.reads() - reads <= strides + 6, "{} reads", file.reads() - reads);
    assert_eq!((cache.hits(), cache.misses()), (0, blocks));
    assert_eq!(backward(&table, Bound::Unbounded, ReadMode::Cached).unwrap().len(), entries.len());
    assert_eq!(cache.hits() + cache.misses(), 2 * blocks);
    assert!(cache.hits() > blocks / 4 && cache.hits() < blocks, "{} of {blocks} kept", cache.hits());
    // A short one that begins anywhere keeps what it reads.
    let short = |table: &Arc<Table>| {
        let mut iter = table.iter_forward(Bound::Included(b"00009000"), ReadMode::Cached);
        (0..50).for_each(|_| assert!(iter.advance().unwrap()));
    };
    short(&table);
    let misses = cache.misses();
    short(&table);
    assert_eq!(cache.misses(), misses);
}

#[test]
fn after_a_failed_read_an_iterator_goes_on_where_it_was() {
    let entries: Vec<Entry> = (0..200).map(|n| entry(format!("{n:04}"), n, PUT, "some value".repeat(15))).collect();
    let (file, _) = build(&entries, TABLE, small_blocks(Compression::Lz4));
    let table = open(&file).unwrap();
    assert!(table.partitions().len() > 10);
    let (mut ahead, mut back) = (
        table.iter_forward(Bound::Excluded(b"0010"), ReadMode::Cached),
        table.iter_backward(Bound::Excluded(b"0190"), ReadMode::Cached),
    );
    let (mut there, mut here) = (Vec::new(), Vec::new());
    let mut failures = 0;
    let rng = &mut Rng::new(4);
    loop {
        file.set_failing(rng.below(2) == 0);
        let (forth, home) = (ahead.advance(), back.advance());
        failures += usize::from(forth.is_err()) + usize::from(home.is_err());
        if matches!(forth, Ok(true)) {
            there.push(ahead.seq().0);
        }
        if matches!(home, Ok(true)) {
            here.push(back.seq().0);
        }
        if matches!((forth, home), (Ok(false), Ok(false))) {
            break;
        }
    }
    assert!(failures > 5);
    assert_eq!(there, (11..200).collect::<Vec<u64>>());
    assert_eq!(here, (0..190).rev().collect::<Vec<u64>>());
}

#[test]
fn a_writer_that_failed_once_never_finishes() {
    let rng = &mut Rng::new(2);
    let file = MemFile::new();
    let mut writer = TableWriter::new(file.clone(), NAME, TABLE, TableOptions::default());
    file.set_failing(true);
    let mut failed = 0;
    for n in 0..5000 {
        failed += usize::from(writer.add(format!("{n:08}").as_bytes(), SeqNo(n), PUT, &few_bytes(rng, 1000)).is_err());
        file.set_failing(failed == 0);
    }
    assert!(failed > 0);
    assert!(matches!(writer.finish(), Err(Error::Io { .. })));
}
