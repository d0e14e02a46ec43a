//! A scenario for `tests/schedules/`: the block cache alone, of which neither its queues nor its slots can be seen from
//! outside. Only with the feature `schedules`, for tests.

#![allow(clippy::unwrap_used, reason = "a test may")]

use super::*;
use crate::codec::Rng;
use crate::storage::sstable::one_entry_block;
use crate::sync::thread::{self, JoinHandle};

/// Tables, and partitions of each.
const TABLES: usize = 2;
const PARTITIONS: usize = 2;

/// Blocks of a partition; the n-th of all has so many more, to be told from the others.
const BLOCKS: usize = 3;

/// What a thread does.
const OPERATIONS: u64 = 12;

/// What is on the disk, and every partition that was ever read from it.
struct Tables {
    cache: Arc<BlockCache>,
    slots: [Arc<Slots<Arc<Partition>>>; TABLES],
    read: parking_lot::Mutex<Vec<Arc<Partition>>>,
    /// Nothing ever has to go.
    is_roomy: bool,
    looked: AtomicU64,
    found: AtomicU64,
}

/// Of each block the length is its own.
fn block(table: usize, p: usize, n: usize) -> Block {
    let place = (table * PARTITIONS + p) * (BLOCKS + TABLES * PARTITIONS) + n;
    one_entry_block(b"key", &vec![7; 700 + place])
}

fn blocks_of(table: usize, p: usize) -> usize {
    BLOCKS + table * PARTITIONS + p
}

impl Tables {
    /// As a point read does: takes what is cached, or reads and keeps it.
    fn get(&self, table: usize, p: usize, n: usize) {
        let partition = self.cache.get(&self.slots[table], p).unwrap_or_else(|| {
            let read = Arc::new(Partition::of_blocks(blocks_of(table, p)));
            self.read.lock().push(read.clone());
            self.cache.insert_partition(&self.slots[table], p, read)
        });
        assert_eq!(partition.slots().slots.len(), blocks_of(table, p), "partition {p} of table {table}");
        if self.is_roomy {
            let _queues = self.cache.queues.lock();
            assert!(partition.slots().open.load(Ordering::Relaxed), "all use the one that is held");
        }
        self.looked.fetch_add(1, Ordering::Relaxed);
        match self.cache.get(partition.slots(), n) {
            Some(found) => self.is_right(&found, table, p, n),
            None => self.cache.insert_block(partition.slots(), n, block(table, p, n)),
        }
    }

    /// As a look-up of many keys does: several slots at once, and nothing is read.
    fn peek(&self, table: usize, p: usize) {
        let Some(partition) = self.cache.peek(&self.slots[table], p) else { return };
        let found: Vec<_> = (0..blocks_of(table, p)).map(|n| (n, self.cache.peek(partition.slots(), n))).collect();
        for (n, found) in found.iter().filter_map(|(n, found)| Some((*n, found.as_deref()?))) {
            self.looked.fetch_add(1, Ordering::Relaxed);
            self.is_right(found, table, p, n);
        }
    }

    fn is_right(&self, found: &Block, table: usize, p: usize, n: usize) {
        assert_eq!(found.len(), block(table, p, n).len(), "block {n} of partition {p} of table {table}");
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    /// With nobody at work: what is held is in a queue once, is weighed, and can be found.
    fn check(&self) {
        let (mut bytes, mut partition_bytes, mut held) = (0, 0, 0);
        for (slots, p) in self.slots.iter().flat_map(|slots| (0..PARTITIONS).map(move |p| (slots, p))) {
            let content = slots.slots[p].content.read();
            let Some(partition) = content.held() else { continue };
            partition_bytes += weight(partition);
            held += 1;
            assert!(partition.slots().open.load(Ordering::Relaxed), "a partition that is held takes blocks");
        }
        for partition in self.read.lock().iter() {
            let slots = partition.slots();
            let blocks = slots.slots.iter().filter_map(|slot| slot.content.read().held().map(weight));
            let blocks: Vec<u64> = blocks.collect();
            assert_eq!(slots.held.load(Ordering::Relaxed) as usize, blocks.len(), "blocks are counted");
            assert!(blocks.is_empty() || slots.open.load(Ordering::Relaxed), "nobody would find them");
            bytes += blocks.iter().sum::<u64>();
            held += blocks.len();
        }
        assert_eq!(self.cache.bytes(), (bytes + partition_bytes, partition_bytes), "what is held is weighed");
        assert_eq!(self.cache.queues.lock().len(), held, "what is held stands in a queue");
        let open = self.read.lock().iter().filter(|read| read.slots().open.load(Ordering::Relaxed)).count();
        let found =
            self.slots.iter().flat_map(|slots| &slots.slots).filter(|slot| slot.content.read().held().is_some());
        assert_eq!(open, found.count(), "of a partition that was read twice one is kept");
    }
}

/// A few threads read what does not fit into the cache, and others take from the same budget: what is found is what was
/// looked for, no more is held than may be, and all is counted.
pub fn what_is_cached_is_what_was_read(rng: &mut Rng) {
    let is_roomy = rng.chance(1, 4);
    let largest =
        weight(&Arc::new(Partition::of_blocks(blocks_of(TABLES - 1, PARTITIONS - 1)))).max(weight(&block(1, 1, 6)));
    let capacity = largest * if is_roomy { 1_000 } else { LARGEST_PART + rng.below(4) };
    let most = if is_roomy { largest } else { capacity / 2 };
    let tables = Arc::new(Tables {
        cache: Arc::new(BlockCache::with_capacity(capacity)),
        slots: std::array::from_fn(|_| Slots::new(PARTITIONS)),
        read: parking_lot::Mutex::default(),
        is_roomy,
        looked: AtomicU64::new(0),
        found: AtomicU64::new(0),
    });
    let threads: Vec<JoinHandle<()>> = (0..3)
        .map(|_| {
            let (tables, mut rng) = (tables.clone(), Rng::new(rng.next_u64()));
            let work = move || {
                let mut charge = Charge::new(&tables.cache, *rng.pick(&Use::ALL));
                for _ in 0..OPERATIONS {
                    let (table, p) = (rng.below(TABLES as u64) as usize, rng.below(PARTITIONS as u64) as usize);
                    match rng.below(8) {
                        0..=1 => charge.set(rng.below(most)),
                        2 => tables.peek(table, p),
                        _ => tables.get(table, p, rng.below(blocks_of(table, p) as u64) as usize),
                    }
                    let held = tables.cache.bytes().0;
                    assert!(held + charge.bytes() <= capacity, "{held} and {} of {capacity}", charge.bytes());
                }
            };
            thread::Builder::new().spawn(work).unwrap()
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    tables.check();
    let counted = (tables.looked.load(Ordering::Relaxed), tables.found.load(Ordering::Relaxed));
    assert_eq!((tables.cache.hits() + tables.cache.misses(), tables.cache.hits()), counted);
    assert!(Use::ALL.iter().all(|&to| tables.cache.charged(to) == 0), "what was taken is given back");
}
