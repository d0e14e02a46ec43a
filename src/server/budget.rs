//! How much output may wait for clients in all.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// One counter for the whole server. It is a brake, not a ledger: outboxes report in steps of [`STEP`], so that small
/// replies under load never touch the shared cache line.
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// An outbox reports once it is this far from what it last reported: 10,000 clients hide at most 40 MB.
pub(crate) const STEP: usize = 4 << 10;

impl Budget {
    pub(crate) fn new(limit: usize) -> Budget {
        Budget { used: AtomicUsize::new(0), limit }
    }

    /// Whether more waits than should. Then nobody queues a second batch behind a first, and a client that does not
    /// read is given up soon.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit
    }

    /// Moves an account from what it last reported to `bytes`, unless the difference is too small to matter. Zero is
    /// always exact, so that an account that is left behind leaves nothing in the counter.
    pub(crate) fn settle(&self, reported: &mut usize, bytes: usize) {
        if bytes.abs_diff(*reported) < STEP && (bytes > 0 || *reported == 0) {
            return;
        }
        if bytes > *reported {
            self.used.fetch_add(bytes - *reported, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(*reported - bytes, Ordering::Relaxed);
        }
        *reported = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_not_reported_and_zero_is_exact() {
        let budget = Budget::new(10_000);
        let mut account = 0;
        budget.settle(&mut account, STEP - 1);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        budget.settle(&mut account, 20_000);
        assert!(budget.is_exceeded());
        budget.settle(&mut account, 20_001);
        assert_eq!(account, 20_000);
        budget.settle(&mut account, 0);
        assert_eq!((account, budget.used.load(Ordering::Relaxed)), (0, 0));
    }
}
