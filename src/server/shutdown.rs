//! The wish that the server end, and who has to hear of it.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

use super::wake::Wake;

/// Set once, by a signal, the SHUTDOWN command or the owner of the server.
#[derive(Clone)]
pub(crate) struct Shutdown {
    shared: Arc<Shared>,
}

struct Shared {
    requested: Mutex<bool>,
    changed: Condvar,
    /// Rung once, and left ringing: the listener polls it.
    wake: Wake,
}

impl Shutdown {
    pub(crate) fn new() -> std::io::Result<Shutdown> {
        let shared = Shared { requested: Mutex::new(false), changed: Condvar::new(), wake: Wake::new()? };
        Ok(Shutdown { shared: Arc::new(shared) })
    }

    /// Asks the server to end; returns at once.
    pub(crate) fn request(&self) {
        *self.shared.requested.lock() = true;
        self.shared.changed.notify_all();
        self.shared.wake.ring();
    }

    pub(crate) fn is_requested(&self) -> bool {
        *self.shared.requested.lock()
    }

    /// Becomes readable when the end is asked for.
    pub(crate) fn wake(&self) -> &Wake {
        &self.shared.wake
    }

    /// Blocks until the end is asked for.
    pub(crate) fn wait(&self) {
        let mut requested = self.shared.requested.lock();
        while !*requested {
            self.shared.changed.wait(&mut requested);
        }
    }

    /// Sleeps, but not beyond the end: whether it was asked for.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let mut requested = self.shared.requested.lock();
        if !*requested {
            self.shared.changed.wait_for(&mut requested, time);
        }
        *requested
    }
}
