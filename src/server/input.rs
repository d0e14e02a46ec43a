//! The bytes that a connection has received and not yet consumed.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{self, Errno};
use rustix::net::{RecvFlags, recv};

use super::limits::KEEP_BYTES;

/// How often a thread looks for more before it lets the kernel put it to sleep, giving way to others between looks.
/// Under load the next request is there before the tries are used up, and nobody sleeps or is woken. Measured with
/// `redis-benchmark -c 50 -t get` on 2 cores (median of 7 runs in turn): 55 k requests/s with 1 try, 62 k with 10, 77 k
/// with 20, 81 k with 40 and 80 k with 100; Redis 70 k to 81 k beside it, its client being the bottleneck by then.
const TRIES: u32 = 20;

/// Reads are at most this large unless a single request is larger: it takes in any pipeline at once and stays within a
/// core's cache.
const READ_BYTES: usize = 64 << 10;

/// A read buffer. It grows with what really comes, never on the word of an announced length, and shrinks when idle.
pub(crate) struct Input {
    buffer: Vec<u8>,
    /// `buffer[..start]` is consumed.
    start: usize,
    /// How large the buffer should be for the next read.
    target: usize,
    /// The tries before the next sleep: all of them after one that succeeded, half as many after each that did not. So
    /// a busy connection stays awake, and an idle or slow one costs one extra look for each request.
    tries: u32,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes,
    /// The client has closed its sending side.
    End,
    /// Nothing, for as long as was allowed.
    Nothing,
}

impl Input {
    pub(crate) fn new() -> Input {
        Input { buffer: Vec::new(), start: 0, target: KEEP_BYTES, tries: TRIES }
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The first `used` bytes are done with.
    pub(crate) fn consume(&mut self, used: usize) {
        self.start += used;
        debug_assert!(self.start <= self.buffer.len());
    }

    /// Receives more, waiting up to `patience`. Nothing can happen before there are `at_least` bytes in all, as far as
    /// is known.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        at_least: usize,
        patience: Option<Duration>,
    ) -> io::Result<Received> {
        self.make_room(at_least);
        for _ in 0..self.tries {
            // Before the look, not after it: right after a reply the next request is rarely there.
            if self.tries > 1 {
                thread::yield_now();
            }
            if let Some(received) = self.take(socket, RecvFlags::DONTWAIT)? {
                self.tries = TRIES;
                return Ok(received);
            }
        }
        self.tries = (self.tries / 2).max(1);
        if patience.is_some() && !wait_readable(socket, patience)? {
            return Ok(Received::Nothing);
        }
        loop {
            if let Some(received) = self.take(socket, RecvFlags::empty())? {
                return Ok(received);
            }
        }
    }

    /// Whether there is memory to give back.
    pub(crate) fn is_large(&self) -> bool {
        self.buffer.capacity() > KEEP_BYTES
    }

    /// Gives back the memory of an empty buffer.
    pub(crate) fn release(&mut self) {
        if self.bytes().is_empty() {
            *self = Input { tries: self.tries, ..Input::new() };
        }
    }

    /// Room for a read of reasonable size: more if the last one filled the buffer, or a large request is under way;
    /// but never more than twice what has come.
    fn make_room(&mut self, at_least: usize) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        let len = self.buffer.len() - self.start;
        let missing = at_least.saturating_sub(len).max(1);
        let wanted = missing.min(len.max(self.target)).max(self.target.saturating_sub(len));
        if self.buffer.capacity() - self.buffer.len() < wanted {
            self.buffer.drain(..self.start);
            self.start = 0;
            // Where the end is known, exactly up to it; a line's is not, so it doubles.
            if missing > 1 { self.buffer.reserve_exact(wanted) } else { self.buffer.reserve(wanted) }
        }
    }

    /// One receive; `None`: try again.
    fn take(&mut self, socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<Received>> {
        match recv(socket, spare_capacity(&mut self.buffer), flags) {
            Ok((_, 0)) => Ok(Some(Received::End)),
            Ok(_) => {
                if self.buffer.len() == self.buffer.capacity() {
                    self.target = (2 * self.target).min(READ_BYTES);
                }
                Ok(Some(Received::Bytes))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether there is something to read before the time is over.
fn wait_readable(socket: BorrowedFd<'_>, patience: Option<Duration>) -> io::Result<bool> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_buffer_follows_what_comes_not_what_is_announced() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut input = Input::new();
        client.write_all(b"$536870912\r\n").unwrap();
        assert_eq!(input.receive(server.as_fd(), 1, None), Ok(Received::Bytes));
        client.write_all(b"x").unwrap();
        assert_eq!(input.receive(server.as_fd(), 512 << 20, None), Ok(Received::Bytes));
        assert!(input.buffer.capacity() <= 2 * KEEP_BYTES, "{}", input.buffer.capacity());
        let sender = std::thread::spawn(move || client.write_all(&vec![b'y'; 1 << 20]).unwrap());
        while input.bytes().len() < 13 + (1 << 20) {
            assert_eq!(input.receive(server.as_fd(), 512 << 20, None), Ok(Received::Bytes));
            assert!(input.buffer.capacity() <= 2 * input.bytes().len() + READ_BYTES);
        }
        sender.join().unwrap();
        let all = input.bytes().len();
        input.consume(all);
        input.release();
        assert!(!input.is_large());
        assert_eq!(input.receive(server.as_fd(), 1, None), Ok(Received::End));
    }

    #[test]
    fn what_is_not_consumed_stays_and_silence_ends() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut input = Input::new();
        for round in 0..1000 {
            client.write_all(b"0123456789").unwrap();
            assert_eq!(input.receive(server.as_fd(), 11, None), Ok(Received::Bytes));
            assert!(input.bytes().starts_with(&b"0123456789"[(round * 7) % 10..]), "round {round}");
            input.consume(7);
        }
        let left = input.bytes().len();
        assert_eq!(left, 3000);
        assert_eq!(input.receive(server.as_fd(), left + 1, Some(Duration::from_millis(5))), Ok(Received::Nothing));
    }
}
