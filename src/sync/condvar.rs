//! A condition variable whose time-outs the schedule decides on.
//!
//! Nobody is woken without a reason: a wait that nobody ends stays one, and if nothing else can go on, the scheduler says
//! "deadlock". So a wake-up that got lost is found even where somebody else's would hide it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};

use super::locks::MutexGuard;
use super::{clock, is_scheduled, step};

/// Somebody who waits. Whoever takes it off its list wakes it.
pub(super) struct Waiter {
    woken: BatchSemaphore,
    timed_out: AtomicBool,
}

/// Those who wait, in the order in which they came.
pub(super) type Waiting = Arc<parking_lot::Mutex<Vec<Arc<Waiter>>>>;

#[derive(Default)]
pub(crate) struct Condvar {
    waiting: Waiting,
    /// Outside of a schedule.
    real: parking_lot::Condvar,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

impl Waiter {
    fn new() -> Arc<Waiter> {
        Arc::new(Waiter { woken: BatchSemaphore::new(0, Fairness::Unfair), timed_out: AtomicBool::new(false) })
    }

    /// The time is over, unless it was woken before. Whether that mattered.
    pub(super) fn time_out(self: &Arc<Self>, waiting: &Waiting) -> bool {
        {
            let mut waiting = waiting.lock();
            let Some(at) = waiting.iter().position(|other| Arc::ptr_eq(other, self)) else { return false };
            waiting.remove(at);
        }
        self.timed_out.store(true, Ordering::Relaxed);
        self.woken.release(1);
        true
    }
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if is_scheduled() {
            self.wait_as(&Waiter::new(), guard);
        } else if let Some(data) = &mut guard.data {
            self.real.wait(data);
        }
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> WaitTimeoutResult {
        if is_scheduled() {
            let waiter = Waiter::new();
            clock::arm(&waiter, &self.waiting);
            self.wait_as(&waiter, guard);
            return WaitTimeoutResult(waiter.timed_out.load(Ordering::Relaxed));
        }
        let timed_out = guard.data.as_mut().is_some_and(|data| self.real.wait_for(data, timeout).timed_out());
        WaitTimeoutResult(timed_out)
    }

    /// On the list before the lock is let go, so whoever notifies afterwards finds it.
    fn wait_as<T>(&self, waiter: &Arc<Waiter>, guard: &mut MutexGuard<'_, T>) {
        self.waiting.lock().push(waiter.clone());
        MutexGuard::unlocked(guard, || {
            // It is never closed.
            let _ = waiter.woken.acquire_blocking(1);
        });
    }

    pub(crate) fn notify_one(&self) {
        if !is_scheduled() {
            self.real.notify_one();
            return;
        }
        step();
        let first = {
            let mut waiting = self.waiting.lock();
            if waiting.is_empty() { None } else { Some(waiting.remove(0)) }
        };
        if let Some(waiter) = first {
            waiter.woken.release(1);
        }
    }

    pub(crate) fn notify_all(&self) {
        if !is_scheduled() {
            self.real.notify_all();
            return;
        }
        step();
        let all = std::mem::take(&mut *self.waiting.lock());
        for waiter in all {
            waiter.woken.release(1);
        }
    }
}
