//! What writers and readers say that they take is what they have from the allocator, and files get as long as is said.

use super::*;
use crate::codec::heap::{assert_near, held};
use crate::codec::{Rng, Slice};
use crate::fs::File;
use crate::storage::Use;
use crate::storage::blob::BlobWriter;
use crate::storage::names::FileNumber;

/// A file that keeps nothing.
struct Nowhere;

impl File for Nowhere {
    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> std::io::Result<usize> {
        Ok(0)
    }

    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn len(&self) -> std::io::Result<u64> {
        Ok(0)
    }
}

/// What nothing makes smaller.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.below(256) as u8).collect()
}

/// Tables of which one part or another takes the most.
struct Shape {
    what: &'static str,
    entries: u32,
    key_bytes: usize,
    value_bytes: usize,
    ranges: u32,
    options: TableOptions,
}

fn shapes() -> Vec<Shape> {
    let plain = TableOptions { compression: Compression::None, ..TableOptions::default() };
    let shape = |what, (entries, key_bytes, value_bytes, ranges), options| Shape {
        what,
        entries,
        key_bytes,
        value_bytes,
        ranges,
        options,
    };
    vec![
        shape("nothing", (0, 0, 0, 0), plain),
        shape("one large block", (20_000, 20, 30, 0), TableOptions { block_bytes: 8 << 20, ..plain }),
        shape("hashes of keys", (200_000, 8, 0, 0), TableOptions { partition_bytes: 8 << 20, ..plain }),
        shape(
            "separators",
            (10_000, 200, 0, 0),
            TableOptions { partition_bytes: 8 << 20, filter_bits_per_key: 0, block_bytes: 200, ..plain },
        ),
        shape(
            "filters",
            (200_000, 8, 0, 0),
            TableOptions { partition_bytes: 20_000, filter_bits_per_key: 40, ..plain },
        ),
        shape("range tombstones", (0, 40, 0, 20_000), plain),
    ]
}

impl Shape {
    fn file(&self, options: TableOptions) -> Arc<MemFile> {
        let file = MemFile::new();
        let mut writer = TableWriter::new(file.clone(), NAME, TABLE, options);
        self.write(&mut writer);
        writer.finish().unwrap();
        file
    }

    fn key(&self, n: u32) -> Vec<u8> {
        // The number in front: separators are long only if keys are long and differ late.
        let mut key = vec![b'k'; self.key_bytes.max(4)];
        let at = key.len() - 4;
        key[at..].copy_from_slice(&n.to_be_bytes());
        key
    }

    fn write(&self, writer: &mut TableWriter) {
        for n in 0..self.entries {
            writer.add(&self.key(n), SeqNo(1), PUT, &noise(self.value_bytes, n.into())).unwrap();
        }
        for n in 0..self.ranges {
            let (start, end) = (Edge::from(self.key(2 * n)), Some(Edge::from(self.key(2 * n + 1))));
            writer.add_ranges(Fragment { start, end, seqs: [3 << 40, 2 << 40, 1 << 40].map(SeqNo).to_vec() }).unwrap();
        }
    }
}

#[test]
fn a_writer_tells_what_it_takes() {
    for shape in shapes() {
        let (writer, held) = held(|| {
            let mut writer = TableWriter::new(Arc::new(Nowhere), NAME, TABLE, shape.options);
            shape.write(&mut writer);
            writer
        });
        assert_near(shape.what, writer.memory(), held);
    }
}

#[test]
fn a_writer_tells_how_long_its_file_will_be() {
    for shape in shapes() {
        let mut writer = TableWriter::new(Arc::new(Nowhere), NAME, TABLE, shape.options);
        shape.write(&mut writer);
        let told = writer.estimated_size() as usize;
        assert_near(shape.what, told, writer.finish().unwrap().file_bytes as usize);
    }
}

#[test]
fn a_partition_takes_what_it_is_allowed_to_and_tells_so() {
    for shape in shapes().into_iter().filter(|shape| shape.entries > 20_000) {
        for partition_bytes in [20_000, 200_000] {
            let options = TableOptions { partition_bytes, ..shape.options };
            let file = shape.file(options);
            let table = open(&file).unwrap();
            for p in 0..table.partitions().len() {
                let (partition, held) = held(|| Box::new(table.read_partition(p).unwrap()));
                assert_near(shape.what, partition.bytes(), held);
                assert!(held <= partition_bytes / 10 * 12, "{}: {held} bytes", shape.what);
                let is_last = p + 1 == table.partitions().len();
                assert!(is_last || held >= partition_bytes / 10 * 6, "{}: {held} bytes", shape.what);
            }
        }
    }
}

#[test]
fn an_open_table_is_charged_for_what_it_takes() {
    let many = TableOptions { partition_bytes: 100, block_bytes: 100, ..TableOptions::default() };
    for shape in shapes() {
        let file = shape.file(TableOptions { filter_bits_per_key: 0, ..many });
        for name in [NAME, &"a long name ".repeat(1000)] {
            let cache = Arc::new(BlockCache::with_capacity(1 << 30));
            let (table, held) = held(|| Box::new(Table::open(file.clone(), name, TABLE, cache.clone()).unwrap()));
            assert_near(shape.what, cache.charged(Use::Tables) as usize, held);
            drop(table);
            assert_eq!(cache.charged(Use::Tables), 0);
        }
    }
}

#[test]
fn a_writer_of_values_tells_what_it_takes() {
    for compression in [Compression::None, Compression::Lz4] {
        let (mut writer, mut all) =
            held(|| BlobWriter::new(Arc::new(Nowhere), FileNumber(7), compression, TableOptions::default().sync_every));
        // Each needs more than what was there before, or so little that a large buffer is given back.
        for len in [100, 300_000, 3_000_000, 20_000, 30_000_000, 40_000] {
            let value = vec![7; len];
            let counts = allocation_counter::measure(|| _ = writer.add(&value).unwrap());
            all = (all as i64 + counts.bytes_current) as usize;
            // A table for the compressor is not counted.
            assert_near(&format!("{compression:?} {len}"), writer.memory() + (8 << 10), all);
        }
    }
}

/// A table of so many values of a thousand bytes that nothing makes smaller, about four to a block.
fn of_large_values(entries: u32) -> Arc<MemFile> {
    let entries: Vec<Entry> = (0..entries).map(|n| entry(n.to_be_bytes(), 1, PUT, noise(1_000, n.into()))).collect();
    build(&entries, TABLE, TableOptions { compression: Compression::None, ..TableOptions::default() }).0
}

/// Walks through a table, and calls `at_each` with each value.
fn walk(table: &Arc<Table>, is_forward: bool, mode: ReadMode, mut at_each: impl FnMut(u32, Slice)) {
    let mut n = 0;
    if is_forward {
        let mut iter = table.iter_forward(Bound::Unbounded, mode);
        while iter.advance().unwrap() {
            at_each(n, iter.value());
            n += 1;
        }
    } else {
        let mut iter = table.iter_backward(Bound::Unbounded, mode);
        while iter.advance().unwrap() {
            at_each(n, iter.value());
            n += 1;
        }
    }
}

#[test]
fn a_scan_reads_ahead_in_longer_and_longer_strides_and_is_charged_for_them() {
    const STRIDE: u64 = 256 << 10;
    let file = of_large_values(4_000);
    for (is_forward, mode, to) in [
        (true, ReadMode::Cached, Use::Scans),
        (false, ReadMode::Cached, Use::Scans),
        (true, ReadMode::Streaming, Use::Jobs),
        (false, ReadMode::Streaming, Use::Jobs),
    ] {
        // Nothing is kept in so small a cache, and strides of a stream are as long as they get in so large a one.
        let capacity = if mode == ReadMode::Cached { 1 } else { 1 << 30 };
        let cache = Arc::new(BlockCache::with_capacity(capacity));
        let table = Arc::new(Table::open(file.clone(), NAME, TABLE, cache.clone()).unwrap());
        let (before, mut charged) = (file.reads(), Vec::new());
        walk(&table, is_forward, mode, |_, _| charged.push(cache.charged(to)));
        // Some for the parts that lead to the blocks.
        let reads = file.reads() - before;
        assert!((16..32).contains(&reads), "{reads} reads of 4 MB");
        let most = *charged.iter().max().unwrap();
        assert!((STRIDE..STRIDE + (80 << 10)).contains(&most), "{most} bytes at a time");
        if mode == ReadMode::Cached {
            assert!(charged[0] > 4_000 && charged[0] < 4_200, "the first block is all that a short scan needs");
        }
        assert_eq!(cache.charged(to), 0);
    }
}

#[test]
fn whoever_keeps_a_value_of_a_scan_keeps_a_block_at_most() {
    let file = of_large_values(2_000);
    for is_forward in [true, false] {
        let cache = Arc::new(BlockCache::with_capacity(1));
        let table = Arc::new(Table::open(file.clone(), NAME, TABLE, cache).unwrap());
        let (kept, held) = held(|| {
            let mut kept = Vec::new();
            walk(&table, is_forward, ReadMode::Cached, |n, value| kept.extend((n % 400 == 0).then_some(value)));
            kept
        });
        assert_eq!(kept.len(), 5);
        assert!(held < 5 * 5_000, "{held} bytes");
    }
}

#[test]
fn a_short_scan_keeps_its_blocks_in_the_cache_and_a_long_one_the_first() {
    for (entries, expected) in [(500, 500_000..600_000), (4_000, 1_000_000..1_600_000)] {
        let file = of_large_values(entries);
        let cache = Arc::new(BlockCache::with_capacity(1 << 30));
        let table = Arc::new(Table::open(file.clone(), NAME, TABLE, cache.clone()).unwrap());
        walk(&table, true, ReadMode::Cached, |_, _| ());
        let (all, partitions) = cache.bytes();
        assert!(expected.contains(&(all - partitions)), "{} bytes are kept", all - partitions);
        let before = file.reads();
        walk(&table, true, ReadMode::Cached, |_, _| ());
        assert_eq!(file.reads() == before, entries == 500);
    }
}
