//! Locks, atomics and threads of everything that several threads share in the engine and in the outboxes.
//!
//! Normally these are parking_lot's and the standard library's, under their own names: nothing is added. With the feature
//! `schedules`, which is for tests only, they are stand-ins of the same shape, and a scheduler ([`shuttle`]) decides at each
//! of their calls which thread goes on: so a test (`tests/schedules/`) takes the interleavings that it wants, ten thousand
//! of them instead of the few that a machine happens to choose, and takes any of them again.
//!
//! What is modelled: each call of a lock, a condition variable, an atomic, and each sync or write of the simulated disk is a
//! place where any other thread may come between. Time passes when the schedule says so (`clock.rs`). What is not:
//! orderings weaker than sequential consistency; and `Arc`, `OnceLock` and `ArcSwap`, whose calls are one step each. Before
//! one that readers and writers race for there is a [`step`].
//!
//! [`shuttle`]: https://docs.rs/shuttle

#[cfg(feature = "schedules")]
mod atomics;
#[cfg(feature = "schedules")]
pub mod clock;
#[cfg(feature = "schedules")]
mod condvar;
#[cfg(feature = "schedules")]
mod locks;
#[cfg(feature = "schedules")]
mod threads;

#[cfg(not(feature = "schedules"))]
pub(crate) use parking_lot::{Condvar, MappedRwLockReadGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard};

#[cfg(feature = "schedules")]
pub(crate) use self::{
    condvar::Condvar,
    locks::{MappedRwLockReadGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard},
};

/// Atomics of which the value decides something; those that only count are the standard library's everywhere.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::Ordering;
    #[cfg(not(feature = "schedules"))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

    #[cfg(feature = "schedules")]
    pub(crate) use super::atomics::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
}

/// Threads that live as long as they like. Those of a scope are the standard library's everywhere: one compaction in several
/// parts is not modelled.
pub(crate) mod thread {
    #[cfg(not(feature = "schedules"))]
    pub(crate) use std::thread::{Builder, JoinHandle, sleep, yield_now};

    #[cfg(feature = "schedules")]
    pub(crate) use super::threads::{Builder, JoinHandle, sleep, yield_now};
}

#[cfg(not(feature = "schedules"))]
pub(crate) use rustix::event::poll;
#[cfg(feature = "schedules")]
pub(crate) use threads::poll;

/// A place where another thread may come between, although nothing says so.
#[cfg(not(feature = "schedules"))]
#[inline(always)]
pub(crate) fn step() {}

#[cfg(feature = "schedules")]
pub(crate) use threads::step;

/// Whether a scheduler decides. Outside of a test of schedules everything is as without the feature.
#[cfg(feature = "schedules")]
pub(crate) fn is_scheduled() -> bool {
    shuttle::current::try_get_current_task().is_some()
}
