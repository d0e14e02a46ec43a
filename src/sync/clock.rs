//! Time under a scheduler: a thread of its own, which lets one wait or another time out whenever it gets to run.
//!
//! Any wait with a limit may so end at any moment, however short or long its limit is. How often is bounded: if nothing
//! goes on any more and the bound is reached, the schedule has found a hang. The clock is the first thread that a test
//! starts, so a scheduler can tell it by its number, and let time pass rarely while others have something to do.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::rand::RngCore;

use super::condvar::{Waiter, Waiting};

/// The number of the clock's thread.
pub const TASK: usize = 1;

thread_local! {
    /// That of the schedule that runs: all its threads are one of the machine's.
    static CLOCK: RefCell<Option<Arc<Clock>>> = const { RefCell::new(None) };
}

struct Clock {
    timers: parking_lot::Mutex<Vec<(Arc<Waiter>, Waiting)>>,
    /// One for each timer that was armed, and one to stop.
    work: BatchSemaphore,
    /// Waits that may still time out.
    left: AtomicUsize,
    stopping: AtomicBool,
}

impl Clock {
    fn run(&self) {
        loop {
            // It is never closed.
            let _ = self.work.acquire_blocking(1);
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            // Timers of waits that are over stay until they are drawn.
            while self.left.load(Ordering::Relaxed) > 0 {
                let drawn = {
                    let mut timers = self.timers.lock();
                    if timers.is_empty() {
                        break;
                    }
                    let at = (shuttle::rand::thread_rng().next_u64() % timers.len() as u64) as usize;
                    timers.swap_remove(at)
                };
                let (waiter, waiting) = drawn;
                if waiter.time_out(&waiting) {
                    self.left.fetch_sub(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

/// A wait with a limit begins.
pub(super) fn arm(waiter: &Arc<Waiter>, waiting: &Waiting) {
    let clock = CLOCK.with_borrow(Clone::clone);
    if let Some(clock) = clock {
        clock.timers.lock().push((waiter.clone(), waiting.clone()));
        clock.work.release(1);
    }
}

/// Runs `work`, the whole of a test, with a clock by which up to `timeouts` waits time out. To be called from its first
/// thread before it starts another.
pub fn with<T>(timeouts: usize, work: impl FnOnce() -> T) -> T {
    let clock = Arc::new(Clock {
        timers: parking_lot::Mutex::default(),
        work: BatchSemaphore::new(0, Fairness::Unfair),
        left: AtomicUsize::new(timeouts),
        stopping: AtomicBool::new(false),
    });
    CLOCK.set(Some(clock.clone()));
    let thread = shuttle::thread::spawn({
        let clock = clock.clone();
        move || clock.run()
    });
    let result = work();
    clock.stopping.store(true, Ordering::Relaxed);
    clock.work.release(1);
    drop(thread.join());
    CLOCK.set(None);
    result
}
