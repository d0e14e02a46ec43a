//! The block cache: decompressed, verified blocks of all tables, weighed in bytes.
//!
//! A table has a slot for each of its data blocks ([`Slots`]), so that finding a cached block takes no hashing and one
//! cache line: lock the slot, clone the block, unlock. Only misses take the lock that all share. An empty slot costs
//! its table 48 bytes, about as much as the block's index entry.
//!
//! What goes when the cache is full is decided as in S3-FIFO (Yang and others, "FIFO queues are all you need for cache
//! eviction", SOSP 2023). A block enters a short queue of *young* ones. At the end of it those that were asked for
//! again go over to the *main* queue, the others go: a scan that reads everything once pushes nothing else out. A block
//! that comes back soon after it went was young for too short a time and enters the main queue. At the end of that,
//! blocks that were asked for since get another round.
//!
//! Invariant: a slot holds a block exactly while it stands in one queue; both change under the lock of the queues.
//! Lock order: queues, slot. Blocks of a table that is gone stay in their queue, are asked for by nobody, and age out.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

use super::sstable::Block;

/// What one cached block takes besides its bytes: slot, place in a queue, reference counts, the allocator's own.
const OVERHEAD: u64 = 96;

/// The part of the cache that young blocks may take before they have to leave.
const YOUNG_PART: u64 = 10;

/// A block that is heavier than this part of the cache would push out too much: it is not kept.
const LARGEST_PART: u64 = 8;

/// Counters are spread over this many cache lines, or every hit on every core would pull at the same one.
const STRIPES: usize = 16;

/// A shared cache of blocks.
pub(crate) struct BlockCache {
    capacity: u64,
    queues: Mutex<Queues>,
    counters: [Counters; STRIPES],
}

/// Where the blocks of one table are while they are cached.
pub(crate) struct Slots(Box<[Slot]>);

#[derive(Default)]
struct Slot {
    content: RwLock<Content>,
    /// Asked for since it came to where it stands in its queue.
    used: AtomicBool,
}

enum Content {
    Held(Block),
    /// If a number is given, the block was pushed out while young, as the n-th of the cache.
    Empty(Option<NonZeroU32>),
}

/// A block in its slot.
pub(crate) type Peek<'a> = MappedRwLockReadGuard<'a, Block>;

impl Content {
    fn block(&self) -> Option<&Block> {
        match self {
            Content::Held(block) => Some(block),
            Content::Empty(_) => None,
        }
    }
}

impl Default for Content {
    fn default() -> Content {
        Content::Empty(None)
    }
}

#[derive(Default)]
#[repr(align(64))]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlockCache {
    /// A cache that holds at most `bytes`.
    pub(crate) fn with_capacity(bytes: u64) -> BlockCache {
        BlockCache { capacity: bytes, queues: Mutex::default(), counters: Default::default() }
    }

    /// The n-th block of the table with these slots.
    pub(crate) fn get(&self, Slots(slots): &Slots, n: usize) -> Option<Block> {
        let slot = &slots[n];
        let block = slot.content.read().block().cloned();
        match block {
            Some(_) => self.hit(slot, n),
            None => _ = self.counters[n % STRIPES].misses.fetch_add(1, Ordering::Relaxed),
        }
        block
    }

    /// The n-th block where it is, in a slot that stays locked until the result is dropped; before that this thread must
    /// not call [`BlockCache::insert`]. Never waits, so that any number may be held: when somebody is changing the slot,
    /// there is no block in it. Only what is found is counted.
    pub(crate) fn peek<'a>(&self, Slots(slots): &'a Slots, n: usize) -> Option<Peek<'a>> {
        let slot = &slots[n];
        let block = RwLockReadGuard::try_map(slot.content.try_read()?, Content::block).ok()?;
        self.hit(slot, n);
        Some(block)
    }

    fn hit(&self, slot: &Slot, n: usize) {
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        self.counters[n % STRIPES].hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the n-th block of the table with these slots, unless somebody else was quicker.
    pub(crate) fn insert(&self, slots: &Arc<Slots>, n: usize, block: Block) {
        if weight(&block) > self.capacity / LARGEST_PART {
            return;
        }
        // Declared before the lock is taken, so freed after it is let go.
        let mut evicted = Vec::new();
        let mut queues = self.queues.lock();
        queues.insert(Place { slots: slots.clone(), n }, block);
        while queues.bytes() > self.capacity {
            evicted.extend(queues.evict(self.capacity));
        }
    }

    /// What is held now, in bytes with overhead.
    pub(crate) fn bytes(&self) -> u64 {
        self.queues.lock().bytes()
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

impl Slots {
    /// Slots for the blocks of a table, all empty.
    pub(crate) fn new(blocks: usize) -> Arc<Slots> {
        Arc::new(Slots((0..blocks).map(|_| Slot::default()).collect()))
    }
}

impl Slots {
    /// Words of what a look at the n-th slot will read; it may lie across two cache lines.
    #[inline]
    pub(crate) fn touch(&self, n: usize) -> u64 {
        let slot = &self.0[n];
        u64::from(slot.used.load(Ordering::Relaxed)) ^ u64::from(slot.content.is_locked())
    }
}

fn weight(block: &Block) -> u64 {
    block.len() as u64 + OVERHEAD
}

/// A slot with a block, as a queue knows it.
struct Place {
    slots: Arc<Slots>,
    n: usize,
}

impl Place {
    fn slot(&self) -> &Slot {
        &self.slots.0[self.n]
    }
}

/// Places in the order in which their blocks came.
#[derive(Default)]
struct Queue {
    places: VecDeque<Place>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, place: Place, weight: u64) {
        self.places.push_back(place);
        self.bytes += weight;
    }
}

#[derive(Default)]
struct Queues {
    young: Queue,
    main: Queue,
    /// Blocks that went young, so far; wraps around, and the one that would be number 0 is forgotten.
    gone_young: u32,
}

impl Queues {
    fn bytes(&self) -> u64 {
        self.young.bytes + self.main.bytes
    }

    fn len(&self) -> usize {
        self.young.places.len() + self.main.places.len()
    }

    fn insert(&mut self, place: Place, block: Block) {
        let weight = weight(&block);
        let slot = place.slot();
        let mut content = slot.content.write();
        let came_back = match *content {
            Content::Held(_) => return,
            // Soon: before as many others went as the cache holds. It stands for the paper's ghost queue.
            Content::Empty(nth) => {
                nth.is_some_and(|nth| (self.gone_young.wrapping_sub(nth.get()) as usize) < self.len())
            }
        };
        *content = Content::Held(block);
        slot.used.store(false, Ordering::Relaxed);
        drop(content);
        if came_back { self.main.push(place, weight) } else { self.young.push(place, weight) }
    }

    /// Takes one step towards less: the block that goes, or `None` if one has only changed its place. Each block gets at
    /// most one more round before it goes, unless it is asked for again.
    fn evict(&mut self, capacity: u64) -> Option<Block> {
        let from_young = self.young.bytes > capacity / YOUNG_PART || self.main.places.is_empty();
        let queue = if from_young { &mut self.young } else { &mut self.main };
        let place = queue.places.pop_front()?;
        let slot = place.slot();
        let mut content = slot.content.write();
        let Content::Held(block) = &*content else { return None };
        let weight = weight(block);
        queue.bytes -= weight;
        if slot.used.swap(false, Ordering::Relaxed) {
            drop(content);
            self.main.push(place, weight);
            return None;
        }
        let after = if from_young {
            self.gone_young = self.gone_young.wrapping_add(1);
            Content::Empty(NonZeroU32::new(self.gone_young))
        } else {
            Content::Empty(None)
        };
        match std::mem::replace(&mut *content, after) {
            Content::Held(block) => Some(block),
            Content::Empty(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::storage::sstable::one_entry_block;

    const CAPACITY: u64 = 1 << 20;

    fn block() -> Block {
        one_entry_block(b"key", &[7; 4000])
    }

    /// As a reader does: takes what is cached, or reads and keeps it. Whether it was cached.
    fn read(cache: &BlockCache, slots: &Arc<Slots>, n: usize) -> bool {
        let hit = cache.get(slots, n).is_some();
        if !hit {
            cache.insert(slots, n, block());
        }
        hit
    }

    /// How many of them were cached.
    fn read_all(cache: &BlockCache, slots: &Arc<Slots>, blocks: Range<usize>) -> usize {
        blocks.filter(|&n| read(cache, slots, n)).count()
    }

    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Slot>(), 48);
    }

    #[test]
    fn weighs_bytes_stays_within_its_capacity_and_counts() {
        let cache = BlockCache::with_capacity(CAPACITY);
        let slots = Slots::new(1000);
        for n in 0..1000 {
            cache.insert(&slots, n, block());
            cache.insert(&slots, n, block());
            assert!(cache.bytes() <= CAPACITY, "{} bytes held", cache.bytes());
        }
        assert!(cache.bytes() > CAPACITY - 8192, "{} bytes held", cache.bytes());
        let found = (0..1000).filter(|&n| cache.get(&slots, n).is_some()).count() as u64;
        assert_eq!(found * weight(&block()), cache.bytes());
        assert_eq!((cache.hits(), cache.misses()), (found, 1000 - found));
        assert!(cache.get(&Slots::new(1000), 999).is_none(), "another table's block at the same place");
    }

    #[test]
    fn what_is_read_again_and_again_survives_a_scan() {
        let cache = BlockCache::with_capacity(CAPACITY);
        let (hot, scanned) = (Slots::new(100), Slots::new(10_000));
        for _ in 0..3 {
            read_all(&cache, &hot, 0..100);
        }
        for n in 0..10_000 {
            read(&cache, &scanned, n);
            read(&cache, &hot, n % 100);
        }
        let hits = (0..100).filter(|&n| cache.get(&hot, n).is_some()).count();
        assert_eq!(hits, 100);
    }

    #[test]
    fn what_comes_back_soon_after_it_went_is_kept_longer() {
        let cache = BlockCache::with_capacity(CAPACITY);
        // A quarter of these fit in. Nothing is asked for twice while it is young, except that one comes back.
        let slots = Slots::new(1000);
        read_all(&cache, &slots, 0..700);
        assert!(!read(&cache, &slots, 400));
        read_all(&cache, &slots, 700..1000);
        assert!(cache.get(&slots, 400).is_some());
        assert!(cache.get(&slots, 699).is_none());
    }

    #[test]
    fn blocks_of_a_table_that_is_gone_make_room() {
        let cache = BlockCache::with_capacity(CAPACITY);
        let old = Slots::new(200);
        for _ in 0..2 {
            read_all(&cache, &old, 0..200);
        }
        let alive = Arc::downgrade(&old);
        drop(old);
        assert!(alive.upgrade().is_some(), "its blocks are still charged");
        let new = Slots::new(100);
        for _ in 0..20 {
            read_all(&cache, &new, 0..100);
        }
        assert!((0..100).all(|n| cache.get(&new, n).is_some()));
    }

    #[test]
    fn too_heavy_a_block_is_not_kept() {
        let cache = BlockCache::with_capacity(CAPACITY);
        let slots = Slots::new(2);
        cache.insert(&slots, 0, one_entry_block(b"key", &[7; 200_000]));
        cache.insert(&slots, 1, one_entry_block(b"key", &[7; 100_000]));
        assert!(cache.get(&slots, 0).is_none() && cache.get(&slots, 1).is_some());
    }
}
