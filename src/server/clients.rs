//! Who is connected.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::outbox::Outbox;

/// The connections there are, by number.
#[derive(Default)]
pub(crate) struct Clients {
    connected: Mutex<HashMap<u64, Arc<Outbox>>>,
    one_left: Condvar,
}

impl Clients {
    pub(crate) fn len(&self) -> usize {
        self.connected.lock().len()
    }

    pub(crate) fn add(&self, id: u64, outbox: Arc<Outbox>) {
        self.connected.lock().insert(id, outbox);
    }

    pub(crate) fn remove(&self, id: u64) {
        self.connected.lock().remove(&id);
        self.one_left.notify_all();
    }

    /// Tells every connection to finish what it has begun.
    pub(crate) fn stop_receiving(&self) {
        self.connected.lock().values().for_each(|outbox| outbox.stop_receiving());
    }

    /// Ends every connection, whatever it is owed.
    pub(crate) fn break_off(&self) {
        self.connected.lock().values().for_each(|outbox| outbox.break_off());
    }

    /// Waits until nobody is connected, at most for `patience`: how many still are.
    pub(crate) fn wait_until_gone(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let mut connected = self.connected.lock();
        while !connected.is_empty() {
            if self.one_left.wait_until(&mut connected, deadline).timed_out() {
                break;
            }
        }
        connected.len()
    }
}
