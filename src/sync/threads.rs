//! Threads of a schedule, or real ones outside of it.

use std::time::Duration;
use std::{io, thread};

use rustix::event::{PollFd, Timespec};
use shuttle::rand::RngCore;

use super::is_scheduled;

/// Under a scheduler a poll with a limit ends after at most this many looks.
const MOST_LOOKS: u64 = 16;

#[derive(Debug, Default)]
pub(crate) struct Builder {
    name: String,
}

#[derive(Debug)]
pub(crate) enum JoinHandle<T> {
    Real(thread::JoinHandle<T>),
    Scheduled(shuttle::thread::JoinHandle<T>),
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder::default()
    }

    pub(crate) fn name(self, name: String) -> Builder {
        Builder { name }
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        if is_scheduled() {
            shuttle::thread::Builder::new().name(self.name).spawn(work).map(JoinHandle::Scheduled)
        } else {
            thread::Builder::new().name(self.name).spawn(work).map(JoinHandle::Real)
        }
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn join(self) -> thread::Result<T> {
        match self {
            JoinHandle::Real(thread) => thread.join(),
            JoinHandle::Scheduled(thread) => thread.join(),
        }
    }
}

pub(crate) fn step() {
    if is_scheduled() {
        // The scheduler knows no time: this is where it may choose another thread, and nothing else.
        shuttle::thread::sleep(Duration::ZERO);
    }
}

pub(crate) fn yield_now() {
    if is_scheduled() { shuttle::thread::yield_now() } else { thread::yield_now() }
}

pub(crate) fn sleep(duration: Duration) {
    if is_scheduled() { shuttle::thread::yield_now() } else { thread::sleep(duration) }
}

/// Waits for the kernel by looking again and again, others running in between.
pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> rustix::io::Result<usize> {
    if !is_scheduled() {
        return rustix::event::poll(fds, timeout);
    }
    let mut looks = timeout.map(|_| shuttle::rand::thread_rng().next_u64() % MOST_LOOKS);
    loop {
        let ready = rustix::event::poll(fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        match &mut looks {
            _ if ready > 0 => return Ok(ready),
            Some(0) => return Ok(0),
            Some(looks) => *looks -= 1,
            None => {}
        }
        yield_now();
    }
}
