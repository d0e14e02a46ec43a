//! The block cache: decompressed, verified blocks of all tables, weighed in bytes.
//!
//! Table numbers are never reused, so blocks of a deleted table need no removal: nobody asks for them and they age out.

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::TableId;
use super::sstable::Block;

/// What one cached block takes besides its bytes: key, [`Block`], reference counts and `quick_cache`'s own 21 bytes.
const OVERHEAD: u64 = 112;

/// What a block is expected to weigh, to size the cache's tables.
const EXPECTED_BLOCK_BYTES: u64 = 4 << 10;

/// Counters are spread over this many cache lines, or every hit on every core would pull at the same one.
const STRIPES: usize = 16;

/// A shared cache of blocks.
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, Block, Bytes>,
    counters: [Counters; STRIPES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BlockKey {
    table: TableId,
    offset: u64,
}

#[derive(Default)]
#[repr(align(64))]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<BlockKey, Block> for Bytes {
    fn weight(&self, _: &BlockKey, block: &Block) -> u64 {
        block.len() as u64 + OVERHEAD
    }
}

impl BlockCache {
    /// A cache that holds at most about `bytes`. A block heavier than a shard of the cache is not kept.
    pub(crate) fn with_capacity(bytes: u64) -> BlockCache {
        let blocks = usize::try_from(bytes / EXPECTED_BLOCK_BYTES).unwrap_or(usize::MAX).max(1);
        BlockCache { blocks: Cache::with_weighter(blocks, bytes, Bytes), counters: Default::default() }
    }

    pub(crate) fn get(&self, table: TableId, offset: u64) -> Option<Block> {
        let block = self.blocks.get(&BlockKey { table, offset });
        let counters = &self.counters[(offset / EXPECTED_BLOCK_BYTES) as usize % STRIPES];
        let counter = if block.is_some() { &counters.hits } else { &counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        block
    }

    pub(crate) fn insert(&self, table: TableId, offset: u64, block: Block) {
        self.blocks.insert(BlockKey { table, offset }, block);
    }

    /// What is held now, in bytes with overhead.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// How many lookups found their block.
    pub(crate) fn hits(&self) -> u64 {
        self.counters.iter().map(|counters| counters.hits.load(Ordering::Relaxed)).sum()
    }

    /// How many lookups had to go to the file.
    pub(crate) fn misses(&self) -> u64 {
        self.counters.iter().map(|counters| counters.misses.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sstable::one_entry_block;

    #[test]
    fn weighs_bytes_stays_within_its_capacity_and_counts() {
        let cache = BlockCache::with_capacity(1 << 20);
        for at in 0..1000 {
            cache.insert(TableId(1), at * 4096, one_entry_block(b"key", &[7; 4000]));
        }
        assert!(cache.bytes() <= 1 << 20, "{} bytes held", cache.bytes());
        assert!(cache.bytes() > 1 << 19, "{} bytes held", cache.bytes());
        let found = (0..1000).filter(|at| cache.get(TableId(1), at * 4096).is_some()).count() as u64;
        assert!(found > 100);
        assert_eq!((cache.hits(), cache.misses()), (found, 1000 - found));
        assert!(cache.get(TableId(2), 999 * 4096).is_none(), "another table's block at the same place");
    }
}
