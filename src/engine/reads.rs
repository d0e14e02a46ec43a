//! Point reads by level, counted without threads getting in each other's way: every thread has its own cache lines, as
//! long as there are not too many threads.

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::version::LEVELS;
use crate::storage::sstable::Reads;

/// Threads beyond this share. Each costs the counters of all levels once.
const SHARDS: usize = 16;

/// What one read, or several together, came to, by level.
pub(crate) type ReadsByLevel = [Reads; LEVELS];

/// See the module's text.
#[derive(Default)]
pub(crate) struct ReadCounters {
    shards: [Shard; SHARDS],
}

#[derive(Default)]
#[repr(align(128))]
struct Shard {
    levels: [[AtomicU64; Reads::COUNTERS]; LEVELS],
}

impl ReadCounters {
    pub(crate) fn add(&self, reads: &ReadsByLevel) {
        let Shard { levels } = &self.shards[shard()];
        for (counters, reads) in levels.iter().zip(reads).filter(|(_, reads)| reads.asked > 0) {
            for (counter, more) in counters.iter().zip(reads.to_array()).filter(|(_, more)| *more > 0) {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn sum(&self) -> ReadsByLevel {
        array::from_fn(|level| {
            let counter =
                |n: usize| self.shards.iter().map(|shard| shard.levels[level][n].load(Ordering::Relaxed)).sum();
            Reads::from_array(array::from_fn(counter))
        })
    }
}

/// The calling thread's.
fn shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SHARD.with(|shard| {
        shard.get().unwrap_or_else(|| {
            let next = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
            shard.set(Some(next));
            next
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_threads_count_is_added_up() {
        let counters = ReadCounters::default();
        std::thread::scope(|scope| {
            for n in 1..=40 {
                let counters = &counters;
                scope.spawn(move || {
                    let mut reads = ReadsByLevel::default();
                    reads[n % LEVELS] = Reads { asked: 1, read_blocks: n as u64, ..Reads::default() };
                    counters.add(&reads);
                });
            }
        });
        let sum = counters.sum();
        assert_eq!(sum.iter().map(|reads| reads.asked).sum::<u64>(), 40);
        assert_eq!(sum.iter().map(|reads| reads.read_blocks).sum::<u64>(), (1..=40).sum());
        assert_eq!(sum[3].read_blocks, 3 + 10 + 17 + 24 + 31 + 38);
    }
}
