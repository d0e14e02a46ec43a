//! The retention floor: the oldest position in history that anybody may still read.
//!
//! Memtable overwrites, flush and compaction obey one rule: a version may go once a newer one of its key is at or below
//! the floor. The floor is the oldest live snapshot, and never passes the newest *settled* position (the one that can
//! no longer fail), so that a failed log group can be taken back exactly.
//!
//! Why a floor that was read a moment ago is safe to act on: every later snapshot shows a position at or above the
//! visible one of its moment, and the visible position is never below the settled one; so the floor in force for it can
//! only be higher than the one acted on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::SeqNo;

/// Live snapshots and what follows from them.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    inner: Mutex<Inner>,
    /// A copy of the floor, for the write path.
    floor: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// How many snapshots show each position.
    snapshots: BTreeMap<SeqNo, usize>,
    settled: SeqNo,
}

impl Retention {
    /// The floor now.
    pub(crate) fn floor(&self) -> SeqNo {
        SeqNo(self.floor.load(Ordering::Acquire))
    }

    /// Registers a snapshot of the position that `visible` gives; it is asked under the lock, so that the floor cannot
    /// pass the position between its being read and its being registered.
    pub(crate) fn acquire(&self, visible: impl FnOnce() -> SeqNo) -> SeqNo {
        let mut inner = self.inner.lock();
        let seq = visible();
        *inner.snapshots.entry(seq).or_insert(0) += 1;
        self.update(&inner);
        seq
    }

    /// A snapshot is gone.
    pub(crate) fn release(&self, seq: SeqNo) {
        let mut inner = self.inner.lock();
        if let Some(count) = inner.snapshots.get_mut(&seq) {
            *count -= 1;
            if *count == 0 {
                inner.snapshots.remove(&seq);
            }
        }
        self.update(&inner);
    }

    /// Everything up to `seq` can no longer fail.
    pub(crate) fn settle(&self, seq: SeqNo) {
        let mut inner = self.inner.lock();
        inner.settled = inner.settled.max(seq);
        self.update(&inner);
    }

    /// How many snapshots are alive.
    pub(crate) fn snapshots(&self) -> usize {
        self.inner.lock().snapshots.values().sum()
    }

    fn update(&self, inner: &Inner) {
        let oldest = inner.snapshots.first_key_value().map_or(SeqNo(u64::MAX), |(seq, _)| *seq);
        self.floor.store(oldest.min(inner.settled).0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_oldest_snapshot_and_never_above_what_is_settled() {
        let retention = Retention::default();
        assert_eq!(retention.floor(), SeqNo(0));
        retention.settle(SeqNo(10));
        assert_eq!(retention.floor(), SeqNo(10));
        let ahead = retention.acquire(|| SeqNo(12));
        assert_eq!(retention.floor(), SeqNo(10), "not above the settled position");
        retention.settle(SeqNo(20));
        assert_eq!(retention.floor(), SeqNo(12));
        let again = retention.acquire(|| SeqNo(12));
        retention.release(ahead);
        assert_eq!(retention.floor(), SeqNo(12), "two snapshots of one position count twice");
        retention.release(again);
        assert_eq!(retention.floor(), SeqNo(20));
        assert_eq!(retention.snapshots(), 0);
    }
}
