//! The block cache: decompressed, verified blocks of all tables and the partitions that lead to them, weighed in bytes.
//! Whoever else reads and writes tables takes its memory out of the same budget: see [`Charge`].
//!
//! A table has a slot for each of its partitions, and a partition one for each of its data blocks ([`Slots`]), so that
//! finding what is cached takes no hashing and one cache line: lock the slot, look, unlock. Only misses take the lock that
//! all share. The slots of a partition's blocks are a part of its weight.
//!
//! What goes when the cache is full is decided as in S3-FIFO (Yang and others, "FIFO queues are all you need for cache
//! eviction", SOSP 2023). A block enters a short queue of *young* ones. At the end of it those that were asked for
//! again go over to the *main* queue, the others go: a scan that reads everything once pushes nothing else out. A block
//! that comes back soon after it went was young for too short a time and enters the main queue. At the end of that,
//! blocks that were asked for since get another round. A partition goes only when none of its blocks is held.
//!
//! Invariants: a slot holds something exactly while it stands in one queue; both change under the lock of the queues. A
//! block is held only in slots of a partition that is held itself: nobody would find it elsewhere.
//! Lock order: queues, slot. What is of a table that is gone stays in its queue, is asked for by nobody, and ages out.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::sstable::{Block, Partition};
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

/// What one cached block takes besides its bytes and its slot: place in a queue, reference counts, the allocator's own.
const OVERHEAD: u64 = 64;

/// The part of the cache that young blocks may take before they have to leave.
const YOUNG_PART: u64 = 10;

/// A block that is heavier than this part of the cache would push out too much: it is not kept.
const LARGEST_PART: u64 = 8;

/// Counters are spread over this many cache lines, or every hit on every core would pull at the same one.
const STRIPES: usize = 16;

/// A shared cache of blocks and partitions.
pub(crate) struct BlockCache {
    capacity: u64,
    /// What of the capacity others use, by [`Use`].
    charged: [AtomicU64; Use::ALL.len()],
    queues: Mutex<Queues>,
    counters: [Counters; STRIPES],
}

/// What can be cached.
pub(crate) trait Cached: Clone {
    /// Whether looking for it is counted as a hit or a miss.
    const COUNTED: bool;

    /// What it takes in memory, in bytes.
    fn weight(&self) -> u64;
}

impl Cached for Block {
    const COUNTED: bool = true;

    fn weight(&self) -> u64 {
        self.len() as u64
    }
}

impl Cached for Arc<Partition> {
    // A block read asks for one each time, and nearly always finds it.
    const COUNTED: bool = false;

    fn weight(&self) -> u64 {
        self.bytes() as u64
    }
}

/// Where the blocks of one partition, or the partitions of one table, are while they are cached.
pub(crate) struct Slots<T> {
    slots: Box<[Slot<T>]>,
    /// Of a partition's blocks: whether the partition is held. Changes under the lock of the queues, as `held` does.
    open: AtomicBool,
    /// How many of the slots hold something.
    held: AtomicU32,
}

struct Slot<T> {
    content: RwLock<Content<T>>,
    /// Asked for since it came to where it stands in its queue.
    used: AtomicBool,
}

enum Content<T> {
    Held(T),
    /// If a number is given, it was pushed out while young, as the n-th of the cache.
    Empty(Option<NonZeroU32>),
}

/// What a slot holds, in its place.
pub(crate) type Peek<'a, T> = MappedRwLockReadGuard<'a, T>;

impl<T> Content<T> {
    fn held(&self) -> Option<&T> {
        match self {
            Content::Held(held) => Some(held),
            Content::Empty(_) => None,
        }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot { content: RwLock::new(Content::Empty(None)), used: AtomicBool::new(false) }
    }
}

#[derive(Default)]
#[repr(align(64))]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlockCache {
    /// A cache that holds at most `bytes`, with what is charged to it.
    pub(crate) fn with_capacity(bytes: u64) -> BlockCache {
        let (charged, queues, counters) = Default::default();
        BlockCache { capacity: bytes, charged, queues, counters }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What is charged for one use.
    pub(crate) fn charged(&self, to: Use) -> u64 {
        self.charged[to as usize].load(Ordering::Relaxed)
    }

    /// What blocks and partitions may take now.
    fn room(&self) -> u64 {
        self.capacity.saturating_sub(Use::ALL.iter().map(|&to| self.charged(to)).sum())
    }

    /// What the n-th slot holds.
    pub(crate) fn get<T: Cached>(&self, slots: &Slots<T>, n: usize) -> Option<T> {
        let slot = &slots.slots[n];
        let held = slot.content.read().held().cloned();
        match held {
            Some(_) => self.hit(slot, n),
            None if T::COUNTED => _ = self.counters[n % STRIPES].misses.fetch_add(1, Ordering::Relaxed),
            None => {}
        }
        held
    }

    /// What the n-th slot holds, in its place; the slot stays locked until the result is dropped, and before that this
    /// thread must not insert anything. Never waits, so that any number may be held: when somebody is changing the slot,
    /// there is nothing in it. Only what is found is counted.
    pub(crate) fn peek<'a, T: Cached>(&self, slots: &'a Slots<T>, n: usize) -> Option<Peek<'a, T>> {
        let slot = &slots.slots[n];
        let held = RwLockReadGuard::try_map(slot.content.try_read()?, Content::held).ok()?;
        self.hit(slot, n);
        Some(held)
    }

    fn hit<T: Cached>(&self, slot: &Slot<T>, n: usize) {
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        if T::COUNTED {
            self.counters[n % STRIPES].hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps the n-th block of a partition with these slots, unless the partition is not held, or somebody else was
    /// quicker.
    pub(crate) fn insert_block(&self, slots: &Arc<Slots<Block>>, n: usize, block: Block) {
        let weight = weight(&block);
        self.insert(weight, |queues| {
            if slots.open.load(Ordering::Relaxed)
                && let Some(came_back) = fill(&slots.slots[n], block)
            {
                slots.held.fetch_add(1, Ordering::Relaxed);
                queues.push(Place::Block(slots.clone(), n), weight, came_back);
            }
        });
    }

    /// Keeps the n-th partition of a table with these slots, unless somebody else was quicker: then that one is to be
    /// used, which is the result.
    pub(crate) fn insert_partition(
        &self,
        slots: &Arc<Slots<Arc<Partition>>>,
        n: usize,
        partition: Arc<Partition>,
    ) -> Arc<Partition> {
        let weight = weight(&partition);
        let mut kept = partition.clone();
        self.insert(weight, |queues| match fill(&slots.slots[n], partition) {
            Some(came_back) => {
                kept.slots().open.store(true, Ordering::Relaxed);
                queues.push(Place::Partition(slots.clone(), n), weight, came_back);
            }
            None => kept = slots.slots[n].content.read().held().cloned().unwrap_or(kept.clone()),
        });
        kept
    }

    /// Inserts and makes room, unless what is to be inserted is too heavy.
    fn insert(&self, weight: u64, insert: impl FnOnce(&mut Queues)) {
        if weight > self.capacity / LARGEST_PART {
            return;
        }
        self.fit(insert);
    }

    /// Makes a change, and lets go what then is too much.
    fn fit(&self, change: impl FnOnce(&mut Queues)) {
        // Declared before the lock is taken, so freed after it is let go.
        let mut evicted = Vec::new();
        let mut queues = self.queues.lock();
        change(&mut queues);
        let room = self.room();
        while queues.bytes() > room {
            evicted.extend(queues.evict(room));
        }
    }

    /// What is held now, in bytes with overhead; and what of it are partitions.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let queues = self.queues.lock();
        (queues.bytes(), queues.partition_bytes)
    }

    /// How many lookups of blocks found them.
    pub(crate) fn hits(&self) -> u64 {
        self.counters.iter().map(|counters| counters.hits.load(Ordering::Relaxed)).sum()
    }

    /// How many lookups of blocks had to go to the file.
    pub(crate) fn misses(&self) -> u64 {
        self.counters.iter().map(|counters| counters.misses.load(Ordering::Relaxed)).sum()
    }
}

impl<T> Slots<T> {
    /// So many slots, all empty.
    pub(crate) fn new(len: usize) -> Arc<Slots<T>> {
        let slots = (0..len).map(|_| Slot::default()).collect();
        Arc::new(Slots { slots, open: AtomicBool::new(false), held: AtomicU32::new(0) })
    }

    /// What they take in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Slots<T>>() + size_of_val(&*self.slots)
    }

    /// Words of what a look at the n-th slot will read; it may lie across two cache lines.
    #[inline]
    pub(crate) fn touch(&self, n: usize) -> u64 {
        let slot = &self.slots[n];
        u64::from(slot.used.load(Ordering::Relaxed)) ^ u64::from(slot.content.is_locked())
    }
}

/// What takes memory out of the cache's budget besides blocks and partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Open tables.
    Tables,
    /// Scans: what they have read ahead.
    Scans,
    /// Flush and compaction: what they read from and write to.
    Jobs,
}

impl Use {
    pub(crate) const ALL: [Use; 3] = [Use::Tables, Use::Scans, Use::Jobs];
}

/// Memory that somebody uses; it is given back when this is dropped. Never refused: what was cached makes room for it.
pub(crate) struct Charge {
    cache: Arc<BlockCache>,
    to: Use,
    bytes: u64,
}

impl Charge {
    pub(crate) fn new(cache: &Arc<BlockCache>, to: Use) -> Charge {
        Charge { cache: cache.clone(), to, bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It is so much from now on; to be called before the memory is taken.
    pub(crate) fn set(&mut self, bytes: u64) {
        let charged = &self.cache.charged[self.to as usize];
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes > before {
            charged.fetch_add(bytes - before, Ordering::Relaxed);
            self.cache.fit(|_| {});
        } else {
            charged.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn weight(cached: &impl Cached) -> u64 {
    cached.weight() + OVERHEAD
}

/// Puts something into an empty slot. Whether it comes back, as [`Content::Empty`] knows; `None` if the slot is taken.
fn fill<T>(slot: &Slot<T>, new: T) -> Option<Option<NonZeroU32>> {
    let mut content = slot.content.write();
    let Content::Empty(gone) = *content else { return None };
    *content = Content::Held(new);
    slot.used.store(false, Ordering::Relaxed);
    Some(gone)
}

/// Empties a slot. What it held.
fn clear<T>(slot: &Slot<T>, gone: Option<NonZeroU32>) -> Option<T> {
    match std::mem::replace(&mut *slot.content.write(), Content::Empty(gone)) {
        Content::Held(held) => Some(held),
        Content::Empty(_) => None,
    }
}

/// A slot that holds something, as a queue knows it.
enum Place {
    Block(Arc<Slots<Block>>, usize),
    Partition(Arc<Slots<Arc<Partition>>>, usize),
}

/// What went, to be freed outside the lock.
enum Evicted {
    Block(#[expect(dead_code, reason = "only dropped")] Block),
    Partition(#[expect(dead_code, reason = "only dropped")] Arc<Partition>),
}

/// Places in the order in which they were filled.
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
    partition_bytes: u64,
    /// What went young, so far; wraps around, and the one that would be number 0 is forgotten.
    gone_young: u32,
    /// Steps since something went.
    in_vain: usize,
}

impl Place {
    /// What it weighs, and whether it gets another round.
    fn look(&self) -> (u64, bool) {
        fn of<T: Cached>(slot: &Slot<T>) -> (u64, bool) {
            let weight = slot.content.read().held().map_or(0, weight);
            (weight, slot.used.swap(false, Ordering::Relaxed))
        }
        match self {
            Place::Block(slots, n) => of(&slots.slots[*n]),
            Place::Partition(slots, n) => {
                let slot = &slots.slots[*n];
                let blocks = slot.content.read().held().map_or(0, |held| held.slots().held.load(Ordering::Relaxed));
                let (weight, used) = of(slot);
                (weight, used || blocks > 0)
            }
        }
    }
}

impl Queues {
    fn bytes(&self) -> u64 {
        self.young.bytes + self.main.bytes
    }

    fn len(&self) -> usize {
        self.young.places.len() + self.main.places.len()
    }

    fn push(&mut self, place: Place, weight: u64, gone: Option<NonZeroU32>) {
        if matches!(place, Place::Partition(..)) {
            self.partition_bytes += weight;
        }
        // Soon: before as many others went as the cache holds. It stands for the paper's ghost queue.
        let came_back = gone.is_some_and(|nth| (self.gone_young.wrapping_sub(nth.get()) as usize) < self.len());
        if came_back { self.main.push(place, weight) } else { self.young.push(place, weight) }
    }

    /// Takes one step towards less: what goes, or `None` if something has only changed its place. A block gets at most
    /// one more round before it goes, unless it is asked for again; a partition as many as its blocks get.
    fn evict(&mut self, capacity: u64) -> Option<Evicted> {
        // If all of the main queue are partitions, what they wait for is young.
        let in_vain = self.in_vain > self.main.places.len() && !self.young.places.is_empty();
        let from_young = self.young.bytes > capacity / YOUNG_PART || self.main.places.is_empty() || in_vain;
        let queue = if from_young { &mut self.young } else { &mut self.main };
        let place = queue.places.pop_front()?;
        let (weight, stays) = place.look();
        queue.bytes -= weight;
        if stays {
            self.in_vain += 1;
            self.main.push(place, weight);
            return None;
        }
        self.in_vain = 0;
        let mut gone = None;
        if from_young {
            self.gone_young = self.gone_young.wrapping_add(1);
            gone = NonZeroU32::new(self.gone_young);
        }
        match place {
            Place::Block(slots, n) => {
                slots.held.fetch_sub(1, Ordering::Relaxed);
                clear(&slots.slots[n], gone).map(Evicted::Block)
            }
            Place::Partition(slots, n) => {
                self.partition_bytes -= weight;
                let partition = clear(&slots.slots[n], gone)?;
                partition.slots().open.store(false, Ordering::Relaxed);
                Some(Evicted::Partition(partition))
            }
        }
    }
}

#[cfg(feature = "schedules")]
#[path = "cache_schedules.rs"]
pub mod schedules;
#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
