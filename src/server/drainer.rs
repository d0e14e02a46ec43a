//! The one thread that waits for slow readers, so that nobody else has to.
//!
//! Whoever finds that a socket takes no more leaves that outbox here and goes on. The thread polls all such sockets
//! for room, sends, and lets an outbox go when nothing sendable is left in it, or its client has taken nothing for too
//! long. An outbox is here at most once at a time (its `draining` flag), so the number of clients bounds the work;
//! with no stuck client the thread sleeps without a timeout.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::budget::Budget;
use super::limits::Limits;
use super::outbox::Outbox;
use super::wake::Wake;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, poll};

/// How often the deadlines of stuck clients are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// Where stuck outboxes are left.
pub(crate) struct Drainer {
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    arrivals: Mutex<Vec<Arc<Outbox>>>,
    wake: Wake,
    stopping: AtomicBool,
}

impl Drainer {
    pub(crate) fn new(limits: Limits) -> io::Result<Arc<Drainer>> {
        Ok(Arc::new(Drainer {
            limits,
            budget: Budget::new(limits.output_in_all),
            arrivals: Mutex::new(Vec::new()),
            wake: Wake::new()?,
            stopping: AtomicBool::new(false),
        }))
    }

    /// Starts the thread.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let drainer = self.clone();
        thread::Builder::new().name("drainer".into()).spawn(move || drainer.run())
    }

    /// Takes over an outbox whose socket is full. Does not block. Called with the outbox locked: the lock order is
    /// outbox, then arrivals.
    pub(crate) fn adopt(&self, outbox: Arc<Outbox>) {
        self.arrivals.lock().push(outbox);
        self.wake.ring();
    }

    /// Ends the thread. What is still stuck stays unsent.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.ring();
    }

    fn run(&self) {
        let mut stuck: Vec<Arc<Outbox>> = Vec::new();
        while !self.stopping.load(Ordering::Acquire) {
            stuck.append(&mut self.arrivals.lock());
            let ready = self.wait(&stuck);
            let mut at = 0;
            stuck.retain(|outbox| {
                at += 1;
                !outbox.drain(ready[at - 1])
            });
        }
    }

    /// Sleeps until a socket has room, somebody rings, or a tick has passed: which sockets have room (or are broken).
    fn wait(&self, stuck: &[Arc<Outbox>]) -> Vec<bool> {
        let mut polled = Vec::with_capacity(stuck.len() + 1);
        polled.push(PollFd::new(self.wake.source(), PollFlags::IN));
        polled.extend(stuck.iter().map(|outbox| PollFd::from_borrowed_fd(outbox.socket(), PollFlags::OUT)));
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        if let Err(error) = poll(&mut polled, (!stuck.is_empty()).then_some(&tick)) {
            if error != rustix::io::Errno::INTR {
                // Only for want of kernel memory. Not to spin on it.
                tracing::warn!(%error, "cannot poll the sockets of slow readers");
                thread::sleep(TICK);
            }
            return vec![false; stuck.len()];
        }
        if !polled[0].revents().is_empty() {
            self.wake.silence();
        }
        polled[1..].iter().map(|fd| !fd.revents().is_empty()).collect()
    }
}
