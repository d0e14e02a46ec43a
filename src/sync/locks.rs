//! `parking_lot`'s locks, each behind a gate of the scheduler's: whoever has passed the gate finds the lock free.
//!
//! The data lies in the real lock, so that guards can be mapped, and so that everything works outside of a schedule, where
//! there is no gate.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use super::is_scheduled;

/// Behind the gate nobody else holds the lock; unless a test that has failed left it so.
const FREE: &str = "a lock whose gate is passed is free";

#[derive(Default)]
pub(crate) struct Mutex<T> {
    gate: shuttle::sync::Mutex<()>,
    data: parking_lot::Mutex<T>,
}

/// The data is let go before the gate.
pub(crate) struct MutexGuard<'a, T> {
    pub(super) data: Option<parking_lot::MutexGuard<'a, T>>,
    gate: Option<shuttle::sync::MutexGuard<'a, ()>>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex { gate: shuttle::sync::Mutex::new(()), data: parking_lot::Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let mut guard = MutexGuard { data: None, gate: None, mutex: self };
        guard.take();
        guard
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        if !is_scheduled() {
            return Some(MutexGuard { data: Some(self.data.try_lock()?), gate: None, mutex: self });
        }
        let gate = self.gate.try_lock().ok()?;
        Some(MutexGuard { data: Some(self.data.try_lock().expect(FREE)), gate: Some(gate), mutex: self })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

impl<'a, T> MutexGuard<'a, T> {
    fn take(&mut self) {
        if is_scheduled() {
            self.gate = Some(self.mutex.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.data = Some(self.mutex.data.try_lock().expect(FREE));
        } else {
            self.data = Some(self.mutex.data.lock());
        }
    }

    /// Lets the lock go while `work` runs.
    pub(crate) fn unlocked<U>(guard: &mut MutexGuard<'a, T>, work: impl FnOnce() -> U) -> U {
        guard.data = None;
        guard.gate = None;
        let result = work();
        guard.take();
        result
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.as_mut().expect("locked")
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.fmt(f)
    }
}

#[derive(Default)]
pub(crate) struct RwLock<T> {
    gate: shuttle::sync::RwLock<()>,
    data: parking_lot::RwLock<T>,
}

pub(crate) struct RwLockReadGuard<'a, T> {
    data: parking_lot::RwLockReadGuard<'a, T>,
    gate: Option<shuttle::sync::RwLockReadGuard<'a, ()>>,
}

pub(crate) struct MappedRwLockReadGuard<'a, T> {
    data: parking_lot::MappedRwLockReadGuard<'a, T>,
    _gate: Option<shuttle::sync::RwLockReadGuard<'a, ()>>,
}

pub(crate) struct RwLockWriteGuard<'a, T> {
    data: parking_lot::RwLockWriteGuard<'a, T>,
    _gate: Option<shuttle::sync::RwLockWriteGuard<'a, ()>>,
}

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> RwLock<T> {
        RwLock { gate: shuttle::sync::RwLock::new(()), data: parking_lot::RwLock::new(value) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        if !is_scheduled() {
            return RwLockReadGuard { data: self.data.read(), gate: None };
        }
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        RwLockReadGuard { data: self.data.try_read().expect(FREE), gate: Some(gate) }
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        if !is_scheduled() {
            return Some(RwLockReadGuard { data: self.data.try_read()?, gate: None });
        }
        let gate = self.gate.try_read().ok()?;
        Some(RwLockReadGuard { data: self.data.try_read().expect(FREE), gate: Some(gate) })
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        if !is_scheduled() {
            return RwLockWriteGuard { data: self.data.write(), _gate: None };
        }
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        RwLockWriteGuard { data: self.data.try_write().expect(FREE), _gate: Some(gate) }
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.data.is_locked()
    }
}

impl<'a, T> RwLockReadGuard<'a, T> {
    pub(crate) fn try_map<U>(
        guard: RwLockReadGuard<'a, T>,
        part: impl FnOnce(&T) -> Option<&U>,
    ) -> Result<MappedRwLockReadGuard<'a, U>, RwLockReadGuard<'a, T>> {
        let RwLockReadGuard { data, gate } = guard;
        match parking_lot::RwLockReadGuard::try_map(data, part) {
            Ok(data) => Ok(MappedRwLockReadGuard { data, _gate: gate }),
            Err(data) => Err(RwLockReadGuard { data, gate }),
        }
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> Deref for MappedRwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.fmt(f)
    }
}
