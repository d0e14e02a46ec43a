//! The cache as its readers use it.

use std::ops::Range;

use super::*;
use crate::storage::sstable::one_entry_block;

const CAPACITY: u64 = 1 << 20;

/// Blocks of a partition.
const BLOCKS: usize = 25;

fn block() -> Block {
    one_entry_block(b"key", &[7; 4000])
}

/// A table as its readers know it.
struct Table(Arc<Slots<Arc<Partition>>>);

impl Table {
    fn new(blocks: usize) -> Table {
        Table(Slots::new(blocks.div_ceil(BLOCKS)))
    }

    /// The partition of the n-th block, read if it has to be.
    fn partition(&self, cache: &BlockCache, n: usize) -> Arc<Partition> {
        let p = n / BLOCKS;
        let read = || cache.insert_partition(&self.0, p, Arc::new(Partition::of_blocks(BLOCKS)));
        cache.get(&self.0, p).unwrap_or_else(read)
    }

    /// Takes what is cached, or reads and keeps it. Whether it was cached.
    fn read(&self, cache: &BlockCache, n: usize) -> bool {
        let partition = self.partition(cache, n);
        let hit = cache.get(partition.slots(), n % BLOCKS).is_some();
        if !hit {
            cache.insert_block(partition.slots(), n % BLOCKS, block());
        }
        hit
    }

    /// How many of them were cached.
    fn read_all(&self, cache: &BlockCache, blocks: Range<usize>) -> usize {
        blocks.filter(|&n| self.read(cache, n)).count()
    }

    /// Whether the n-th block is cached; its partition stays what it is.
    fn holds(&self, cache: &BlockCache, n: usize) -> bool {
        let partition = cache.peek(&self.0, n / BLOCKS);
        partition.is_some_and(|partition| cache.peek(partition.slots(), n % BLOCKS).is_some())
    }

    fn held(&self, cache: &BlockCache, blocks: Range<usize>) -> usize {
        blocks.filter(|&n| self.holds(cache, n)).count()
    }

    fn partitions_held(&self, cache: &BlockCache) -> usize {
        (0..self.0.slots.len()).filter(|&p| cache.peek(&self.0, p).is_some()).count()
    }
}

#[test]
fn a_slot_is_small() {
    assert_eq!(size_of::<Slot<Block>>(), 48);
}

#[test]
fn weighs_bytes_stays_within_its_capacity_and_counts() {
    let cache = BlockCache::with_capacity(CAPACITY);
    let table = Table::new(1000);
    for n in 0..1000 {
        table.read(&cache, n);
        // Somebody else was slower.
        let partition = table.partition(&cache, n);
        cache.insert_block(partition.slots(), n % BLOCKS, block());
        assert!(cache.bytes().0 <= CAPACITY, "{} bytes held", cache.bytes().0);
    }
    assert!(cache.bytes().0 > CAPACITY - 8192, "{} bytes held", cache.bytes().0);
    assert_eq!((cache.hits(), cache.misses()), (0, 1000));
    let found = table.held(&cache, 0..1000) as u64;
    let partitions = table.partitions_held(&cache) as u64 * weight(&Arc::new(Partition::of_blocks(BLOCKS)));
    assert_eq!(cache.bytes().1, partitions);
    assert_eq!(found * weight(&block()) + partitions, cache.bytes().0);
    assert_eq!((cache.hits(), cache.misses()), (found, 1000));
    assert!(!Table::new(1000).holds(&cache, 999), "another table's block at the same place");
}

#[test]
fn what_is_read_again_and_again_survives_a_scan() {
    let cache = BlockCache::with_capacity(CAPACITY);
    let (hot, scanned) = (Table::new(100), Table::new(10_000));
    for _ in 0..3 {
        hot.read_all(&cache, 0..100);
    }
    for n in 0..10_000 {
        scanned.read(&cache, n);
        hot.read(&cache, n % 100);
    }
    assert_eq!(hot.held(&cache, 0..100), 100);
}

#[test]
fn what_comes_back_soon_after_it_went_is_kept_longer() {
    let cache = BlockCache::with_capacity(CAPACITY);
    // A quarter of these fit in. Nothing is asked for twice while it is young, except that one comes back.
    let table = Table::new(1000);
    table.read_all(&cache, 0..700);
    assert!(!table.read(&cache, 400));
    table.read_all(&cache, 700..1000);
    assert!(table.holds(&cache, 400));
    assert!(!table.holds(&cache, 699));
}

#[test]
fn blocks_of_a_table_that_is_gone_make_room() {
    let cache = BlockCache::with_capacity(CAPACITY);
    let old = Table::new(200);
    for _ in 0..2 {
        old.read_all(&cache, 0..200);
    }
    let alive = Arc::downgrade(&old.0);
    drop(old);
    assert!(alive.upgrade().is_some(), "its blocks are still charged");
    let new = Table::new(100);
    for _ in 0..20 {
        new.read_all(&cache, 0..100);
    }
    assert_eq!(new.held(&cache, 0..100), 100);
}

#[test]
fn too_heavy_a_block_is_not_kept() {
    let cache = BlockCache::with_capacity(CAPACITY);
    let table = Table::new(2);
    let partition = table.partition(&cache, 0);
    cache.insert_block(partition.slots(), 0, one_entry_block(b"key", &[7; 200_000]));
    cache.insert_block(partition.slots(), 1, one_entry_block(b"key", &[7; 100_000]));
    assert!(!table.holds(&cache, 0) && table.holds(&cache, 1));
}

#[test]
fn a_partition_goes_only_after_its_blocks_and_then_takes_no_more() {
    let cache = BlockCache::with_capacity(CAPACITY);
    let table = Table::new(50 * BLOCKS);
    table.read(&cache, 0);
    let partition = table.partition(&cache, 0);
    // One block of each of the others: what is held is mostly partitions.
    for p in (1..50).cycle().take(2_000) {
        table.read(&cache, p * BLOCKS);
        let orphans = (0..50 * BLOCKS)
            .filter(|&n| partition.slots().held.load(Ordering::Relaxed) > 0 && n == 0 && !table.holds(&cache, n));
        assert_eq!(orphans.count(), 0, "a block is held of a partition that is not");
    }
    // Only heavy partitions, so that they fill the cache among themselves.
    let heavy: Arc<Slots<Arc<Partition>>> = Slots::new(100);
    for p in 0..100 {
        let partition = cache.insert_partition(&heavy, p, Arc::new(Partition::of_blocks(1000)));
        cache.insert_block(partition.slots(), 0, block());
        assert!(cache.bytes().0 <= CAPACITY);
    }
    assert!(!table.holds(&cache, 0));
    let bytes = cache.bytes().0;
    cache.insert_block(partition.slots(), 1, block());
    assert_eq!(cache.bytes().0, bytes, "nobody would find it");
}

#[test]
fn what_others_use_is_taken_from_the_same_budget() {
    let cache = Arc::new(BlockCache::with_capacity(CAPACITY));
    let table = Table::new(1000);
    let (mut scan, mut job) = (Charge::new(&cache, Use::Scans), Charge::new(&cache, Use::Jobs));
    let all = || cache.bytes().0 + Use::ALL.iter().map(|&to| cache.charged(to)).sum::<u64>();
    for n in 0..1000 {
        table.read(&cache, n);
        scan.set(n as u64 % 7 * 20_000);
        job.set(n as u64 % 5 * 50_000);
        assert!(all() <= CAPACITY, "{} bytes", all());
    }
    job.set(2 * CAPACITY);
    assert_eq!(cache.bytes().0, 0, "nothing is left to give");
    table.read(&cache, 0);
    assert_eq!(cache.bytes().0, 0);
    drop((scan, job));
    assert_eq!(all(), 0);
    table.read_all(&cache, 0..1000);
    assert!(all() > CAPACITY - 8192);
}
