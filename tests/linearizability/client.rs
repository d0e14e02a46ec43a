//! A client of the hot keys, which writes down what it asked and was told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use chronos::codec::Rng;

use super::history::{Call, End, Moment};
use super::progress::Progress;
use super::register::{Condition, Operation, Reply};
use super::wire::{self, Connection, Dialect, encode};

/// So few that all clients are always at the same ones.
pub const HOT: usize = 8;

/// For so many events a key is hot: a few calls of each client.
const STAY: u64 = 20;

/// From 4 KiB on a value lies apart, in a blob file.
const LARGE: usize = 4 << 10;

/// How many requests a client has on their way at most: mostly one, as most clients do.
const DEPTHS: [usize; 6] = [1, 1, 1, 2, 3, 6];

/// Names the order of all events: the one thing that all clients share.
#[derive(Default)]
pub struct Events(AtomicU64);

impl Events {
    pub fn next(&self) -> Moment {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

pub fn hot_key(at: usize) -> Vec<u8> {
    format!("hot:{at}").into_bytes()
}

/// The request for an operation on a hot key.
fn words(operation: &Operation, at: usize) -> Vec<Vec<u8>> {
    let key = hot_key(at);
    let word = |word: &str| word.as_bytes().to_vec();
    // The key that comes next in order: what is before it is this key alone.
    let end = [&*key, b"\0"].concat();
    match operation {
        Operation::Get => vec![word("GET"), key],
        Operation::Scan => vec![word("RANGE"), key, end],
        Operation::Set { value, condition, get } => {
            let mut words = vec![word("SET"), key, value.to_vec()];
            match condition {
                Condition::Always => {}
                Condition::IfAbsent => words.push(word("NX")),
                Condition::IfPresent => words.push(word("XX")),
            }
            words.extend(get.then(|| word("GET")));
            words
        }
        Operation::Incr(1) => vec![word("INCR"), key],
        Operation::Incr(by) => vec![word("INCRBY"), key, word(&by.to_string())],
        Operation::Append(piece) => vec![word("APPEND"), key, piece.to_vec()],
        Operation::Del => vec![word("DEL"), key],
        Operation::GetDel => vec![word("GETDEL"), key],
        Operation::DelRange => vec![word("RANGE.DEL"), key, end],
    }
}

/// What an answer says. One that this operation never has is a failure by itself.
fn told(operation: &Operation, at: usize, reply: wire::Reply) -> Reply {
    let reply = match (operation, reply) {
        (Operation::Scan, reply) => {
            let mut words = reply.many();
            return match (words.pop(), words.pop(), words.is_empty()) {
                (None, None, true) => Reply::Nil,
                (Some(value), Some(key), true) if key == hot_key(at) => Reply::Value(value.into()),
                (value, key, _) => panic!("RANGE over key {at} alone has {key:?} and {value:?}"),
            };
        }
        (_, reply) => reply.one(),
    };
    let number = || Some(Reply::Number(std::str::from_utf8(&reply).ok()?.parse().ok()?));
    let told = match (operation, &*reply) {
        (Operation::Incr(_), b"(error) ERR value is not an integer or out of range") => Some(Reply::Refused),
        (_, error) if error.starts_with(b"(error)") => None,
        (Operation::Incr(_) | Operation::Append(_) | Operation::Del, _) => number(),
        (Operation::DelRange | Operation::Set { get: false, .. }, b"OK") => Some(Reply::Ok),
        (Operation::Set { condition: Condition::IfAbsent | Condition::IfPresent, .. }, b"(nil)") => Some(Reply::Nil),
        (Operation::DelRange | Operation::Set { get: false, .. }, _) => None,
        (_, b"(nil)") => Some(Reply::Nil),
        (_, value) => Some(Reply::Value(value.into())),
    };
    told.unwrap_or_else(|| panic!("{operation} of key {at} -> {}", reply.escape_ascii()))
}

/// One connection's life, and the calls of it by key.
pub struct Client<'a> {
    /// No other connection has it, before or after.
    pub session: u64,
    pub rng: Rng,
    pub events: &'a Events,
    pub calls: [Vec<Call>; HOT],
}

impl<'a> Client<'a> {
    pub fn new(session: u64, rng: Rng, events: &'a Events) -> Client<'a> {
        Client { session, rng, events, calls: Default::default() }
    }

    /// Asks and writes down until the server is gone.
    pub fn run(mut self, addr: &str, progress: &Progress) -> [Vec<Call>; HOT] {
        let Ok(mut connection) = Connection::open(addr, Dialect::Resp) else { return self.calls };
        let depth = *self.rng.pick(&DEPTHS);
        let mut waiting: VecDeque<(usize, usize)> = VecDeque::new();
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let room = (depth - waiting.len()) as u64;
            for _ in 0..if room > 0 { 1 + self.rng.below(room) } else { 0 } {
                let name = self.events.next();
                let operation = Operation::random(&mut self.rng, name, LARGE);
                // One key is always hot. What else is hot changes, for all clients at once: so they meet at keys that
                // are not in memory.
                let at = if self.rng.chance(1, 3) { 0 } else { (name / STAY) as usize % HOT };
                waiting.push_back(self.ask(operation, at, name, &mut bytes));
            }
            // Replies may have come although this fails.
            let gone = connection.send(&bytes).is_err();
            let leave = if gone { 0 } else { self.rng.below(depth as u64) as usize };
            while waiting.len() > leave {
                let Some(reply) = connection.receive() else { return self.calls };
                let (at, call) = waiting.pop_front().expect("it is not empty");
                self.answered(at, call, reply);
                progress.acknowledged();
            }
            if gone {
                return self.calls;
            }
        }
    }

    /// Looks at every hot key, alone.
    pub fn look(mut self, connection: &mut Connection) -> [Vec<Call>; HOT] {
        for at in 0..HOT {
            for operation in [Operation::Get, Operation::Scan] {
                let (mut bytes, begun) = (Vec::new(), self.events.next());
                let (_, call) = self.ask(operation, at, begun, &mut bytes);
                connection.send(&bytes).unwrap();
                let reply = connection.receive().expect("the server went away");
                self.answered(at, call, reply);
            }
        }
        self.calls
    }

    /// Writes a call down and its request behind `bytes`: the key, and which call on it this is.
    fn ask(&mut self, operation: Operation, at: usize, begun: Moment, bytes: &mut Vec<u8>) -> (usize, usize) {
        encode(&words(&operation, at), Dialect::Resp, &mut self.rng, bytes);
        // Until it is answered nobody knows; when the server has ended, it has an end.
        self.calls[at].push(Call { session: self.session, begun, operation, end: End::Unknown { until: Moment::MAX } });
        (at, self.calls[at].len() - 1)
    }

    fn answered(&mut self, at: usize, call: usize, reply: wire::Reply) {
        let call = &mut self.calls[at][call];
        call.end = End::Answered { at: self.events.next(), reply: told(&call.operation, at, reply) };
    }
}
