//! The thread of one connection: receive, run everything that came, send the replies at once.
//!
//! Everything that one read brought is run before the replies go out in one send. Replies that depend on what is not
//! durable yet go to the [`Outbox`], which delivers them without this thread; the others are sent from here.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use super::gets::Gets;
use super::input::{Input, Received};
use super::limits::{FLUSH_BYTES, KEEP_BYTES, Limits};
use super::outbox::Outbox;
use super::replies::Replies;
use crate::codec::defect::{Defect, seeded};
use crate::command::{self, Context, Ending, Environment, Session};
use crate::engine::{Outcome, SeqNo, Waiter};
use crate::keyspace::Keyspace;
use crate::protocol::{Decoder, Dialect, Reply, RowStream, Step};

/// A connection that was quiet for this long gives its memory back.
const QUIET: Duration = Duration::from_secs(1);

/// After the server has ended a conversation it listens on for this long, and throws away this much: closing a socket
/// with unread bytes would reset the connection and could take the last reply from the client.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// What every connection works on.
pub(crate) struct House {
    pub(crate) keyspace: Keyspace,
    pub(crate) environment: Environment,
    pub(crate) limits: Limits,
    pub(crate) decoding: crate::protocol::Limits,
}

/// One connection.
pub(crate) struct Connection {
    house: Arc<House>,
    session: Session,
    decoder: Decoder,
    input: Input,
    gets: Gets,
    replies: Replies,
    outbox: Arc<Outbox>,
    waiter: Arc<dyn Waiter>,
    /// Something was queued since the outbox was last seen empty.
    queued: bool,
    /// Since when the rest of a request is waited for.
    begun: Option<Instant>,
}

/// What is next, after what has been received was run.
enum Next {
    /// More must come: so many bytes in all.
    Receive(usize),
    /// No more is read; what is owed is delivered.
    Finish,
    /// Nothing more is said.
    Hangup,
}

impl Connection {
    pub(crate) fn new(house: Arc<House>, outbox: Arc<Outbox>, id: u64, peer: String) -> Connection {
        let session = Session::new(id, peer);
        Connection {
            decoder: Decoder::new(house.decoding),
            house,
            session,
            input: Input::new(),
            gets: Gets::default(),
            replies: Replies::new(),
            waiter: outbox.clone(),
            outbox,
            queued: false,
            begun: None,
        }
    }

    /// Serves the client until one of the two has had enough.
    pub(crate) fn serve(mut self) {
        let mut at_least = 1;
        let polite = loop {
            match self.receive(at_least) {
                Ok(Received::Bytes) => {}
                Ok(Received::End) => break true,
                Ok(Received::Nothing) => break self.give_up(),
                Err(error) => {
                    tracing::debug!(id = self.session.id, %error, "connection lost");
                    break false;
                }
            }
            let next = self.run();
            if !self.deliver() {
                break false;
            }
            match next {
                Next::Receive(_) if self.house.environment.shutting_down.load(Ordering::Relaxed) => break true,
                Next::Receive(more) => at_least = more,
                Next::Finish => break true,
                Next::Hangup => break false,
            }
        };
        if polite {
            self.outbox.finish();
            self.linger();
        }
        // Whoever still holds the outbox for a reply that nobody will read finds it broken.
        self.outbox.break_off();
    }

    /// Runs every whole request that has been received.
    fn run(&mut self) -> Next {
        let mut commands = 0;
        let received = self.input.bytes().len();
        let next = loop {
            let step = self.decoder.decode(self.input.bytes(), &command::tail_argument);
            if let Step::Request { request, used, answer_in: None } = &step
                && let Some(key) = command::key_to_get(request)
            {
                self.gets.push(key);
                self.input.consume(*used);
                commands += 1;
                if self.gets.is_full() && !self.run_gets() {
                    break Next::Hangup;
                }
                continue;
            }
            if !self.gets.is_empty() {
                // They come before what was just decoded. That is decoded again, to the same step: it is not the first
                // request, and only that decides anything.
                if !self.run_gets() {
                    break Next::Hangup;
                }
                continue;
            }
            let (used, answer_in, reply) = match step {
                Step::Request { request, used, answer_in } => {
                    if let Some(dialect) = answer_in {
                        self.session.dialect = dialect;
                    }
                    let dialect = self.session.dialect;
                    let mut context = context(&self.house, &mut self.session);
                    let reply = command::dispatch(&mut context, &request);
                    let depends = context.depends;
                    commands += 1;
                    if self.session.dialect != dialect {
                        self.decoder.switch_to_resp();
                    }
                    self.input.consume(used);
                    match reply {
                        _ if self.session.ending == Some(Ending::Unanswered) => {}
                        Reply::Stream(rows) => {
                            if !self.stream(rows, depends) {
                                break Next::Hangup;
                            }
                        }
                        reply => self.push(&reply, depends),
                    }
                    if self.session.ending.is_some() {
                        break Next::Finish;
                    }
                    if self.replies.bytes.len() >= FLUSH_BYTES && !self.deliver() {
                        break Next::Hangup;
                    }
                    continue;
                }
                Step::Incomplete { at_least } => break Next::Receive(at_least),
                Step::Nothing { used } => (used, None, None),
                Step::Refused { reply, used, answer_in } => (used, answer_in, Some(reply)),
                Step::Broken { reply, answer_in } => {
                    self.answer(&reply, answer_in);
                    break Next::Finish;
                }
                Step::Hangup { why } => {
                    tracing::debug!(id = self.session.id, why, "connection closed");
                    break Next::Hangup;
                }
            };
            self.input.consume(used);
            if let Some(reply) = reply {
                self.answer(&reply, answer_in);
            }
        };
        if self.input.bytes().len() < received {
            // What is left is another request.
            self.begun = None;
        }
        if commands > 0 {
            self.house.environment.total_commands.fetch_add(commands, Ordering::Relaxed);
        }
        next
    }

    /// Answers the GETs that were set aside. `false`: the client is gone.
    fn run_gets(&mut self) -> bool {
        let gets = mem::take(&mut self.gets);
        let keys = gets.keys();
        let cached = match keys[..] {
            [_] => std::iter::once(None).collect(),
            _ => command::get_cached(&context(&self.house, &mut self.session), &keys),
        };
        for (key, cached) in keys.iter().zip(cached) {
            match cached {
                Some(Outcome { value: reply, seq }) => self.push(&reply, seq),
                None => {
                    let mut context = context(&self.house, &mut self.session);
                    let reply = command::get(&mut context, key);
                    let depends = context.depends;
                    self.push(&reply, depends);
                }
            }
            if self.replies.bytes.len() >= FLUSH_BYTES && !self.deliver() {
                return false;
            }
        }
        drop(keys);
        self.gets = gets;
        self.gets.clear();
        true
    }

    /// Adds a reply that depends on a position.
    fn push(&mut self, reply: &Reply, depends: SeqNo) {
        let pending = !self.house.keyspace.db.is_durable(depends) && !seeded(Defect::ReplyNotHeldBack);
        self.replies.push(reply, self.session.dialect, pending.then_some(depends));
    }

    /// Sends a list that depends on a position, row by row. `false`: the client is gone, or cannot be told the rest.
    fn stream(&mut self, mut rows: RowStream, depends: SeqNo) -> bool {
        // One wait for all of it: its pieces cannot be taken back one by one.
        if let Err(error) = self.house.keyspace.db.wait_durable(depends) {
            self.push(&Reply::error(format!("MISCONF {error}")), SeqNo(0));
            return true;
        }
        let dialect = self.session.dialect;
        rows.begin(dialect, &mut self.replies.bytes);
        loop {
            match rows.next(dialect, &mut self.replies.bytes) {
                Ok(true) if self.replies.bytes.len() < FLUSH_BYTES => {}
                Ok(true) => {
                    if !self.deliver() {
                        return false;
                    }
                }
                Ok(false) => return true,
                Err(error) => {
                    tracing::warn!(id = self.session.id, %error, "closing a client in the middle of a list");
                    return false;
                }
            }
        }
    }

    fn answer(&mut self, reply: &Reply, answer_in: Option<Dialect>) {
        if let Some(dialect) = answer_in {
            self.session.dialect = dialect;
        }
        self.replies.push(reply, self.session.dialect, None);
    }

    /// Sends or queues the gathered replies, then waits until the client has read enough of what it is owed. `false`:
    /// it is gone.
    fn deliver(&mut self) -> bool {
        if !self.replies.bytes.is_empty() {
            let depends = self.replies.depends();
            self.queued = self.queued && !self.outbox.is_empty();
            if depends.is_none() && !self.queued {
                let sent = self.outbox.send_now(&self.replies.bytes);
                self.replies.clear();
                if let Err(error) = sent {
                    tracing::debug!(id = self.session.id, %error, "connection lost while replying");
                    return false;
                }
                return true;
            }
            self.queued = true;
            self.outbox.queue(&mut self.replies);
            if let Some(seq) = depends {
                self.house.keyspace.db.when_durable(seq, &self.waiter);
            }
        }
        !self.queued || self.outbox.wait_for_room()
    }

    /// Waits for more. A connection that goes quiet gives its memory back first.
    fn receive(&mut self, at_least: usize) -> rustix::io::Result<Received> {
        let limits = &self.house.limits;
        let socket = self.outbox.socket();
        let received = self.input.bytes().len();
        if received > 0 {
            // What is there is taken even when the time is over: it may have waited for this thread.
            let begun = self.begun.get_or_insert_with(Instant::now);
            let left = limits.for_request(received).saturating_sub(begun.elapsed());
            return self.input.receive(socket, at_least, Some(limits.incomplete.min(left)));
        }
        let mut patience = limits.idle;
        if (self.input.is_large() || self.replies.bytes.capacity() > KEEP_BYTES)
            && patience.is_none_or(|patience| patience > QUIET)
        {
            match self.input.receive(socket, at_least, Some(QUIET))? {
                Received::Nothing => {}
                received => return Ok(received),
            }
            self.input.release();
            self.replies.release();
            self.outbox.release();
            patience = patience.map(|patience| patience - QUIET);
        }
        self.input.receive(socket, at_least, patience)
    }

    /// Nothing came for as long as was allowed. Whether there is still something to deliver.
    fn give_up(&mut self) -> bool {
        if !self.input.bytes().is_empty() {
            let error = Reply::error("ERR timed out: the rest of the request did not come");
            self.replies.push(&error, self.session.dialect, None);
        }
        self.deliver()
    }

    /// Says that no more will come, and lets the client read what has.
    fn linger(&mut self) {
        let socket = self.outbox.socket();
        if shutdown(socket, Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut waste: Vec<u8> = Vec::with_capacity(FLUSH_BYTES);
        let mut wasted = 0;
        while wasted < LINGER_BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else { return };
            match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&left)) {
                Ok(0) => return,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            waste.clear();
            match recv(socket, spare_capacity(&mut waste), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return,
                Ok((_, more)) => wasted += more,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// What a command is given.
fn context<'a>(house: &'a House, session: &'a mut Session) -> Context<'a> {
    Context { keyspace: &house.keyspace, environment: &house.environment, session, depends: SeqNo(0) }
}
