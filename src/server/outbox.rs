//! Replies ride the log: what a connection owes its client, in order, each reply held back until what it says is
//! durable.
//!
//! The connection's thread queues replies here and goes on reading. The thread that syncs the log calls
//! [`Waiter::durable`], which sends what has become true, without blocking; what the socket does not take is left to
//! the [`Drainer`]. So nobody who does work for others ever waits for one client, and the connection's thread is not
//! woken only to send.
//!
//! ```text
//!   bytes:  | sent | free to go | held back                |
//!           0     sent         free = start of the first open mark
//! ```
//!
//! A *mark* is a reply that depends on a position in history. Replies without one wait in order behind it.
//!
//! **The invariant.** Whenever the lock is free and the outbox is not broken, one of these holds:
//!
//! 1. everything free is sent (`sent == free`), and if anything is held back, then a call of `when_durable` for it is
//!    registered with the engine or about to be made by the connection's thread;
//! 2. `draining`: the drainer holds this outbox and polls its socket.
//!
//! Hence nothing is forgotten: held-back bytes become free by the engine's call, and whoever makes bytes free sends
//! them under the same lock or hands them to the drainer; the drainer lets go only under the lock and with
//! `sent == free`, or by breaking the outbox. Bytes leave in order because all sending from the queue happens under
//! the lock, and the connection's thread sends past the queue ([`Outbox::send_now`]) only while it is empty, which it
//! stays meanwhile, since only that thread fills it.
//!
//! *Close*: the connection's thread waits in [`Outbox::finish`] until nothing is owed. If the client goes away or takes
//! nothing for too long, the outbox breaks: the queue is dropped, the socket is shut down both ways (which wakes a
//! blocked `recv`), later calls of the engine find nothing to do, and the last of them drops the socket.
//!
//! *Truth*: the engine says "durable up to n" to whoever waited for n, and by then a lower position may have failed and
//! been passed: a batch takes its time between its first reply and its registration. So each mark is looked up once
//! more before its reply is let go.
//!
//! Lock order: engine, outbox, drainer. The only question to the engine under the lock is whether a position is
//! durable, for which it takes no lock that it holds when it calls a waiter.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use super::drainer::{Drainer, TICK};
use super::limits::FLUSH_BYTES;
use super::replies::Replies;
use crate::codec::defect::{Defect, seeded};
use crate::engine::{self, SeqNo, Waiter};
use crate::sync::{Condvar, Mutex, MutexGuard, poll};

/// One connection's queue of replies, and its socket.
pub(crate) struct Outbox {
    socket: OwnedFd,
    drainer: Arc<Drainer>,
    is_durable: Box<IsDurable>,
    me: Weak<Outbox>,
    state: Mutex<State>,
    /// Bytes have left, or the outbox broke, while the connection's thread was waiting for that.
    left: Condvar,
}

/// Whether a position is durable: not merely passed.
pub(crate) type IsDurable = dyn Fn(SeqNo) -> bool + Send + Sync;

struct State {
    queue: Replies,
    /// `queue.bytes[..sent]` are the kernel's.
    sent: usize,
    /// `queue.bytes[..free]` may be sent.
    free: usize,
    draining: bool,
    broken: bool,
    /// The connection's thread sleeps on `left`.
    waiting: bool,
    /// When the socket last took something; kept only while it is stuck.
    progress: Instant,
    /// What the budget has been told of.
    reported: usize,
}

impl State {
    fn owed(&self) -> usize {
        self.queue.bytes.len() - self.sent
    }
}

impl Outbox {
    pub(crate) fn new(socket: OwnedFd, drainer: Arc<Drainer>, is_durable: Box<IsDurable>) -> Arc<Outbox> {
        Arc::new_cyclic(|me| Outbox {
            socket,
            drainer,
            is_durable,
            me: me.clone(),
            state: Mutex::new(State {
                queue: Replies::new(),
                sent: 0,
                free: 0,
                draining: false,
                broken: false,
                waiting: false,
                progress: Instant::now(),
                reported: 0,
            }),
            left: Condvar::new(),
        })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether nothing is queued. For the connection's thread, which alone fills the queue, a `true` stays true.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().owed() == 0
    }

    /// Queues a batch and leaves it empty. If it has marks, the caller must call `when_durable` for the highest next.
    pub(crate) fn queue(&self, batch: &mut Replies) {
        let mut state = self.state.lock();
        if state.broken {
            batch.clear();
            return;
        }
        if state.queue.bytes.is_empty() {
            // The common case: two buffers change places, nothing is copied.
            std::mem::swap(&mut state.queue, batch);
        } else {
            if state.sent > FLUSH_BYTES {
                let sent = std::mem::take(&mut state.sent);
                state.free -= sent;
                state.queue.forget(sent);
            }
            state.queue.append(batch);
        }
        if state.queue.has_open_marks() {
            // What precedes the first mark goes with it: one send instead of two.
            self.account(&mut state);
        } else {
            state.free = state.queue.bytes.len();
            self.send_or_hand_over(&mut state);
        }
    }

    /// Sends bytes past the empty queue, from the connection's thread, waiting as long as the client takes some.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.send_some(bytes)?;
        if sent == bytes.len() { Ok(()) } else { self.send_slowly(&bytes[sent..]) }
    }

    #[cold]
    fn send_slowly(&self, mut bytes: &[u8]) -> io::Result<()> {
        let budget = &self.drainer.budget;
        let mut reported = 0;
        let mut progress = Instant::now();
        let result = loop {
            budget.settle(&mut reported, bytes.len());
            let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&tick)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => break Err(error.into()),
            }
            match self.send_some(bytes) {
                Ok(0) if progress.elapsed() >= self.drainer.limits.patience(budget.is_exceeded()) => {
                    break Err(io::ErrorKind::TimedOut.into());
                }
                Ok(0) => {}
                Ok(sent) if sent == bytes.len() => break Ok(()),
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    progress = Instant::now();
                }
                Err(error) => break Err(error),
            }
        };
        budget.settle(&mut reported, 0);
        result
    }

    /// Waits until the client has read enough that it may be asked for more. `false`: it is gone.
    pub(crate) fn wait_for_room(&self) -> bool {
        let limit = self.drainer.limits.output;
        let mut state = self.state.lock();
        let over_budget = self.drainer.budget.is_exceeded();
        if state.owed() > if over_budget { 0 } else { limit } {
            // Down to half, so that one slow reader does not wake this thread for each packet.
            self.wait_until(&mut state, if over_budget { 0 } else { limit / 2 });
        }
        !state.broken
    }

    /// Waits until everything is sent, or the client is gone.
    pub(crate) fn finish(&self) {
        self.wait_until(&mut self.state.lock(), 0);
    }

    fn wait_until(&self, state: &mut MutexGuard<'_, State>, owed: usize) {
        // No deadline here: by the invariant each byte is with the engine, which answers, or with the drainer, which
        // has one.
        while state.owed() > owed && !state.broken {
            state.waiting = true;
            self.left.wait(state);
        }
        state.waiting = false;
    }

    /// Gives back the memory of an empty queue.
    pub(crate) fn release(&self) {
        self.state.lock().queue.release();
    }

    /// No more is received, what is owed is still delivered.
    pub(crate) fn stop_receiving(&self) {
        let _ = shutdown(&self.socket, Shutdown::Read);
    }

    /// Drops what is owed and ends the connection.
    pub(crate) fn break_off(&self) {
        self.break_locked(&mut self.state.lock());
    }

    fn break_locked(&self, state: &mut State) {
        state.broken = true;
        state.queue = Replies::new();
        state.sent = 0;
        state.free = 0;
        self.account(state);
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// For the drainer: sends more if there is room, gives the client up if it has had its time. `true`: done with it.
    pub(crate) fn drain(&self, has_room: bool) -> bool {
        let mut state = self.state.lock();
        if has_room {
            self.send_free(&mut state);
        }
        let patience = self.drainer.limits.patience(self.drainer.budget.is_exceeded());
        if state.sent < state.free && state.progress.elapsed() >= patience {
            tracing::info!(owed = state.owed(), "closing a client that does not read its replies");
            self.break_locked(&mut state);
        }
        state.draining = state.sent < state.free;
        !state.draining
    }

    /// Whether a position that was passed has failed. See the module's text.
    fn was_refuted(&self, seq: SeqNo) -> bool {
        !seeded(Defect::ReplyNotLookedUpAgain) && !(self.is_durable)(seq)
    }

    /// Everything up to `upto` has been decided.
    fn settle(&self, upto: SeqNo, has_failed: impl Fn(SeqNo) -> bool, why: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        if !state.broken {
            state.free = state.queue.settle(upto, has_failed, why);
            self.send_or_hand_over(&mut state);
        }
    }

    /// Sends what is free, unless the drainer is at it; what does not fit goes to the drainer.
    fn send_or_hand_over(&self, state: &mut State) {
        if state.draining {
            return;
        }
        self.send_free(state);
        if state.sent < state.free {
            // Whoever calls holds a reference, so this cannot fail; and if it did, nobody would be left to deliver to.
            if let Some(me) = self.me.upgrade() {
                state.draining = true;
                state.progress = Instant::now();
                self.drainer.adopt(me);
            }
        }
    }

    /// Sends what is free and fits.
    fn send_free(&self, state: &mut State) {
        while state.sent < state.free {
            match self.send_some(&state.queue.bytes[state.sent..state.free]) {
                Ok(0) => break,
                Ok(sent) => {
                    state.sent += sent;
                    if state.draining {
                        state.progress = Instant::now();
                    }
                }
                Err(_) => return self.break_locked(state),
            }
        }
        if state.sent == state.queue.bytes.len() {
            state.queue.clear();
            state.sent = 0;
            state.free = 0;
        }
        self.account(state);
    }

    /// One non-blocking send: how many bytes the kernel took, 0 if it has no room.
    fn send_some(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// After each change of what is owed: the budget hears of it, and the connection's thread if it waits.
    fn account(&self, state: &mut State) {
        let owed = state.owed();
        self.drainer.budget.settle(&mut state.reported, owed);
        if state.waiting {
            self.left.notify_one();
        }
    }
}

impl Waiter for Outbox {
    fn durable(&self, seq: SeqNo) {
        self.settle(
            seq,
            |seq| self.was_refuted(seq),
            || engine::Error::ReadOnly("the log failed".to_owned()).to_string(),
        );
    }

    fn failed(&self, after: SeqNo, upto: SeqNo, error: &engine::Error) {
        self.settle(upto, |seq| after < seq || self.was_refuted(seq), || error.to_string());
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.drainer.budget.settle(&mut self.state.get_mut().reported, 0);
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
