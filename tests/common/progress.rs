//! How far the clients have come, for the test that waits to end the server in the middle of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Instant;

/// How far the clients have come together.
pub struct Progress {
    acknowledged: AtomicU64,
    /// At this many `waiting` is woken.
    enough: u64,
    waiting: Thread,
    disk_is_gone: AtomicBool,
}

impl Progress {
    pub fn new(enough: u64) -> Progress {
        let (acknowledged, disk_is_gone) = (AtomicU64::new(0), AtomicBool::new(false));
        Progress { acknowledged, enough, waiting: thread::current(), disk_is_gone }
    }

    /// To be called for each acknowledgement.
    pub fn acknowledged(&self) {
        if self.acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == self.enough {
            self.waiting.unpark();
        }
    }

    pub fn wait(&self, deadline: Instant) {
        while self.acknowledged.load(Ordering::Relaxed) < self.enough {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            thread::park_timeout(left);
        }
    }

    /// To be called before the disk is taken away: from now on a request may be answered with an error.
    #[allow(dead_code, reason = "not every test does that")]
    pub fn take_disk_away(&self) {
        self.disk_is_gone.store(true, Ordering::SeqCst);
    }

    #[allow(dead_code, reason = "not every test asks")]
    pub fn disk_is_gone(&self) -> bool {
        self.disk_is_gone.load(Ordering::SeqCst)
    }
}
