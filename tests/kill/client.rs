//! A client that writes and keeps a journal: what it sent, in order, and what of that was acknowledged.
//!
//! Its own keys are touched by nobody else, so it knows the answer to everything that it asks about them. The shared
//! keys are touched by all.

use std::collections::BTreeMap;
use std::time::Instant;

use chronos::codec::Rng;

use crate::progress::Progress;
use crate::wire::{Connection, Dialect, Reply, encode};

/// Shared keys of each kind.
pub const SHARED: usize = 3;

/// How many keys of each kind a client has: few counters, so that they grow, and values enough for several tables.
const VALUES: u64 = 300;
const COUNTERS: u64 = 20;
const TEXTS: u64 = 20;

/// From here on a value lies apart, in a blob file.
const LARGE: u64 = 4 << 10;

/// How long a text may grow before it is deleted.
const MAX_TEXT: usize = 4 << 10;

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub value: Vec<u8>,
    pub expires: bool,
}

pub type Keys = BTreeMap<Vec<u8>, Stored>;

/// A request's part in the keys that are shared.
#[derive(Clone, Debug, PartialEq)]
pub enum Shared {
    Nothing,
    /// Added one to a counter, or read it.
    Count {
        key: usize,
        added: bool,
        seen: u64,
    },
    /// Set a key to this request's name.
    Set {
        key: usize,
    },
    /// Read what another had set.
    Read {
        key: usize,
        seen: Vec<u8>,
    },
    /// Appended this request's name to the list.
    Append,
}

/// A request in the journal.
#[derive(Debug)]
pub struct Sent {
    pub at: Instant,
    pub acknowledged: Option<Instant>,
    /// What it does to the client's own keys.
    pub changes: Vec<(Vec<u8>, Option<Stored>)>,
    pub shared: Shared,
    request: String,
    /// The answer, unless that is up to others.
    expected: Option<Vec<u8>>,
}

pub struct Client {
    pub id: usize,
    rng: Rng,
    /// Its keys before the journal begins, and after its end.
    pub before: Keys,
    keys: Keys,
    pub journal: Vec<Sent>,
    only_looks: bool,
    /// How many requests came before the journal: a request's number is its place in the client's whole life.
    pub first: u64,
}

impl Client {
    pub fn new(id: usize, seed: u64) -> Client {
        Client {
            id,
            rng: Rng::new(seed),
            before: Keys::new(),
            keys: Keys::new(),
            journal: Vec::new(),
            only_looks: false,
            first: 0,
        }
    }

    /// All keys that it may have.
    pub fn own_keys(&self) -> impl Iterator<Item = Vec<u8>> {
        let id = self.id;
        let all = [('s', VALUES), ('n', COUNTERS), ('a', TEXTS), ('t', VALUES)];
        all.into_iter().flat_map(move |(kind, count)| (0..count).map(move |at| own_key(id, kind, at)))
    }

    pub fn acknowledged(&self) -> usize {
        self.journal.iter().take_while(|sent| sent.acknowledged.is_some()).count()
    }

    /// Goes on from what was found.
    pub fn settle(&mut self, found: Keys) {
        self.first += self.journal.len() as u64;
        self.journal.clear();
        self.keys = found.clone();
        self.before = found;
    }

    /// Writes until the server is gone, or its disk.
    pub fn run(&mut self, addr: &str, progress: &Progress) {
        let dialect = if self.rng.chance(1, 2) { Dialect::Resp } else { Dialect::Text };
        let Ok(mut connection) = Connection::open(addr, dialect) else { return };
        // Who writes nothing waits for nothing of his own: what he is shown must be durable nevertheless.
        self.only_looks = self.rng.chance(1, 4);
        let mut answered = 0;
        let mut bytes = Vec::new();
        loop {
            let depth = *self.rng.pick(&[1, 3, 16, 64, 256]);
            let outstanding = self.journal.len() - answered;
            if outstanding < depth {
                let from = self.journal.len();
                bytes.clear();
                for _ in 0..1 + self.rng.below((depth - outstanding) as u64) {
                    self.request(dialect, &mut bytes);
                }
                let now = Instant::now();
                self.journal[from..].iter_mut().for_each(|sent| sent.at = now);
            }
            let gone = outstanding < depth && connection.send(&bytes).is_err();
            let leave = if gone { 0 } else { self.rng.below(depth as u64) as usize };
            while self.journal.len() - answered > leave {
                let Some(reply) = connection.receive().map(Reply::one) else { return };
                if progress.disk_is_gone() && reply.starts_with(b"(error)") {
                    return;
                }
                self.take(answered, reply);
                answered += 1;
                progress.acknowledged();
            }
            if gone {
                return;
            }
        }
    }

    fn take(&mut self, at: usize, reply: Vec<u8>) {
        let sent = &mut self.journal[at];
        let shown = || reply.escape_ascii().to_string();
        sent.acknowledged = Some(Instant::now());
        if let Some(expected) = &sent.expected {
            let wanted = expected.escape_ascii();
            assert!(reply == *expected, "client {}: {} -> {}, not {wanted}", self.id, sent.request, shown());
        }
        assert!(!reply.starts_with(b"(error)"), "client {}: {} -> {}", self.id, sent.request, shown());
        match &mut sent.shared {
            Shared::Count { seen, .. } if reply != b"(nil)" => {
                *seen = shown().parse().unwrap_or_else(|_| panic!("{} -> {}", sent.request, shown()));
            }
            Shared::Read { seen, .. } => *seen = reply,
            _ => {}
        }
    }

    /// Puts the next request into the journal and its bytes behind `out`.
    fn request(&mut self, dialect: Dialect, out: &mut Vec<u8>) {
        let number = self.first + self.journal.len() as u64;
        let name = format!("{}-{number}", self.id);
        let mut sent = Sent {
            at: Instant::now(),
            acknowledged: None,
            changes: Vec::new(),
            shared: Shared::Nothing,
            request: String::new(),
            expected: Some(b"OK".to_vec()),
        };
        let shared = self.rng.below(SHARED as u64) as usize;
        let stored = |value: Vec<u8>, expires| Some(Stored { value, expires });
        let words: Vec<Vec<u8>> = match if self.only_looks { 95 + self.rng.below(5) } else { self.rng.below(100) } {
            0..24 => {
                let (key, value) = (self.key('s', VALUES), self.value(&name));
                sent.changes.push((key.clone(), stored(value.clone(), false)));
                vec![b"SET".to_vec(), key, value]
            }
            24..27 => {
                let (start, end) = self.range();
                // One change on disk; here, one for each key that goes by it.
                let gone = self.keys.range(start.clone()..end.clone()).map(|(key, _)| (key.clone(), None));
                sent.changes.extend(gone);
                vec![b"RANGE.DEL".to_vec(), start, end]
            }
            27..30 => {
                // A time to live comes or goes, and the value stays.
                let (key, expires) = (self.key('s', VALUES), self.rng.chance(1, 2));
                let old = self.keys.get(&key).cloned();
                let done = old.as_ref().is_some_and(|old| expires || old.expires);
                sent.expected = Some(u8::from(done).to_string().into_bytes());
                sent.changes.extend(old.map(|old| (key.clone(), stored(old.value, expires))));
                match expires {
                    true => vec![b"EXPIRE".to_vec(), key, b"86400".to_vec()],
                    false => vec![b"PERSIST".to_vec(), key],
                }
            }
            30..37 => {
                let (key, value) = (self.key('s', VALUES), self.value(&name));
                sent.changes.push((key.clone(), stored(value.clone(), true)));
                vec![b"SET".to_vec(), key, value, b"EX".to_vec(), b"86400".to_vec()]
            }
            // Gone before anybody can look.
            37..41 => vec![b"SET".to_vec(), self.key('t', VALUES), self.value(&name), b"PX".to_vec(), b"1".to_vec()],
            41..49 => {
                let mut keys = vec![self.key('s', VALUES), self.key('n', COUNTERS), self.key('a', TEXTS)];
                keys.truncate(1 + self.rng.below(3) as usize);
                let count = keys.iter().filter(|&key| self.keys.contains_key(key)).count();
                sent.expected = Some(deleted(dialect, keys.len(), count));
                sent.changes.extend(keys.iter().map(|key| (key.clone(), None)));
                [vec![b"DEL".to_vec()], keys].concat()
            }
            49..59 => {
                let key = self.key('n', COUNTERS);
                let old = self.keys.get(&key).map_or(0, |old| old.value.escape_ascii().to_string().parse().unwrap());
                let new = (old + 1u64).to_string().into_bytes();
                sent.expected = Some(new.clone());
                sent.changes.push((key.clone(), stored(new, false)));
                vec![b"INCR".to_vec(), key]
            }
            59..69 => {
                let key = self.key('a', TEXTS);
                let mut text = self.keys.get(&key).map_or(Vec::new(), |old| old.value.clone());
                if text.len() > MAX_TEXT {
                    sent.expected = Some(deleted(dialect, 1, 1));
                    sent.changes.push((key.clone(), None));
                    vec![b"DEL".to_vec(), key]
                } else {
                    let piece = self.value(&name);
                    text.extend_from_slice(&piece);
                    sent.expected = Some(text.len().to_string().into_bytes());
                    sent.changes.push((key.clone(), stored(text, false)));
                    vec![b"APPEND".to_vec(), key, piece]
                }
            }
            69..77 => {
                let mut words = vec![b"MSET".to_vec()];
                for at in 0..2 + self.rng.below(4) {
                    let (key, value) = (self.key('s', VALUES), self.value(&format!("{name}-{at}")));
                    sent.changes.push((key.clone(), stored(value.clone(), false)));
                    words.extend([key, value]);
                }
                words
            }
            77..82 => {
                // Counters only: in the text dialect other values may come quoted.
                let key = self.key('n', COUNTERS);
                sent.expected = Some(self.keys.get(&key).map_or(b"(nil)".to_vec(), |old| old.value.clone()));
                vec![b"GET".to_vec(), key]
            }
            82..88 => {
                sent.expected = None;
                sent.shared = Shared::Count { key: shared, added: true, seen: 0 };
                vec![b"INCR".to_vec(), shared_key('n', shared)]
            }
            88..92 => {
                sent.shared = Shared::Set { key: shared };
                vec![b"SET".to_vec(), shared_key('s', shared), name.into_bytes()]
            }
            92..95 => {
                sent.expected = None;
                sent.shared = Shared::Append;
                vec![b"APPEND".to_vec(), shared_key('a', 0), format!("{name};").into_bytes()]
            }
            95..98 => {
                sent.expected = None;
                sent.shared = Shared::Count { key: shared, added: false, seen: 0 };
                vec![b"GET".to_vec(), shared_key('n', shared)]
            }
            _ => {
                sent.expected = None;
                sent.shared = Shared::Read { key: shared, seen: Vec::new() };
                vec![b"GET".to_vec(), shared_key('s', shared)]
            }
        };
        for (key, new) in &sent.changes {
            match new {
                Some(new) => self.keys.insert(key.clone(), new.clone()),
                None => self.keys.remove(key),
            };
        }
        sent.request = words.iter().take(2).map(|word| word.escape_ascii().to_string() + " ").collect();
        encode(&words, dialect, &mut self.rng, out);
        self.journal.push(sent);
    }

    fn key(&mut self, kind: char, count: u64) -> Vec<u8> {
        own_key(self.id, kind, self.rng.below(count))
    }

    /// Mostly a few values; now and then everything that this client has, and nobody else's.
    fn range(&mut self) -> (Vec<u8>, Vec<u8>) {
        if self.rng.chance(1, 50) {
            return (format!("c{}:", self.id).into_bytes(), format!("c{};", self.id).into_bytes());
        }
        let start = self.rng.below(VALUES);
        (own_key(self.id, 's', start), own_key(self.id, 's', start + self.rng.below(8)))
    }

    /// A value that nobody else writes and that this client never writes again.
    fn value(&mut self, name: &str) -> Vec<u8> {
        let len = match self.rng.below(40) {
            0 => self.rng.below(LARGE),
            1..3 => LARGE + self.rng.below(2 * LARGE),
            _ => self.rng.below(500),
        } as usize;
        let mut value = format!("{name}:").into_bytes();
        // Half of them repeat one byte: something for the compression to find.
        match self.rng.chance(1, 2) {
            true => value.resize(value.len() + len, self.rng.next_u64() as u8),
            false => value.extend((0..len).map(|_| self.rng.next_u64() as u8)),
        }
        value
    }
}

fn own_key(id: usize, kind: char, at: u64) -> Vec<u8> {
    format!("c{id}:{kind}:{at:04}").into_bytes()
}

pub fn shared_key(kind: char, at: usize) -> Vec<u8> {
    format!("shared:{kind}:{at}").into_bytes()
}

fn deleted(dialect: Dialect, keys: usize, count: usize) -> Vec<u8> {
    match (dialect, keys, count) {
        (Dialect::Resp, _, _) => count.to_string(),
        (Dialect::Text, _, 0) => "(nil)".to_owned(),
        (Dialect::Text, 1, _) => "OK_DELETED".to_owned(),
        (Dialect::Text, _, _) => format!("OK_DELETED {count}"),
    }
    .into_bytes()
}
