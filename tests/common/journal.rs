//! Clients that go on writing while the disk under the server fails and recovers. Each has keys of its own and a journal
//! of what it asked and what became of it: acknowledged, refused, or never answered.
//!
//! What is asked of the server: an acknowledged write is there, now and after every restart. A refused one is not; only
//! if nothing was acknowledged behind it, a restart may find it. One without an answer is there whole or not at all.
//! Nobody else's values are there.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use parking_lot::{Condvar, Mutex};

use crate::wire::{Connection, Dialect, PATIENCE, Reply, encode, words};

/// Values of a client. Few, so that they are overwritten.
const VALUES: usize = 60;
/// Its counters: what was refused must not be counted.
const COUNTERS: usize = 4;

/// How long a client waits that was refused: it is to notice when writes resume, not to keep a core busy.
const AFTER_REFUSAL: Duration = Duration::from_millis(5);

/// What a refused write is answered.
pub const REFUSAL: &str = "(error) MISCONF not written, the database is read-only until its disk recovers: ";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Unanswered,
    Acknowledged,
    Refused,
}

#[derive(Clone, Debug)]
enum Change {
    Set(Option<Vec<u8>>),
    Add,
}

#[derive(Debug)]
struct Sent {
    /// Places of keys, and what becomes of them.
    changes: Vec<(usize, Change)>,
    fate: Fate,
    request: Vec<Vec<u8>>,
}

/// What all clients have been told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub acknowledged: u64,
    pub refused: u64,
    /// Since the last refusal of anybody.
    pub acknowledged_since: u64,
    /// Clients that have had a reply.
    at_work: usize,
    /// Clients that are no longer served.
    pub gone: usize,
    /// One of them has found something wrong.
    wrong: bool,
    stop: bool,
}

#[derive(Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    changed: Condvar,
}

impl Tally {
    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) -> bool {
        let mut counts = self.counts.lock();
        change(&mut counts);
        self.changed.notify_all();
        counts.stop
    }

    /// Lets the clients come to an end.
    pub fn stop(&self) {
        self.change(|counts| counts.stop = true);
    }

    /// Waits until `enough`, or for `time`: whether it came to that.
    pub fn wait(&self, time: Duration, enough: impl Fn(&Counts) -> bool) -> bool {
        let deadline = Instant::now() + time;
        let mut counts = self.counts.lock();
        while !enough(&counts) && !counts.wrong {
            if self.changed.wait_until(&mut counts, deadline).timed_out() {
                break;
            }
        }
        enough(&counts)
    }

    /// Waits until there are `more` acknowledgements than now.
    pub fn wait_for_more(&self, more: u64) {
        let before = self.counts().acknowledged;
        assert!(self.wait(PATIENCE, |counts| counts.acknowledged >= before + more), "writes hang: {:?}", self.counts());
    }
}

/// Tells that a client has come to its end, whatever end that is.
struct Gone<'a>(&'a Tally);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| {
            counts.gone += 1;
            counts.wrong |= std::thread::panicking();
        });
    }
}

/// Whether reads must be answered while the disk fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reads {
    GoOn,
    MayFail,
}

/// What may be found of refused writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refused {
    /// Nothing: the server has not been restarted.
    Gone,
    /// The newest.
    MayReturn,
}

type Values = Vec<Option<Vec<u8>>>;

pub struct Journal {
    id: usize,
    rng: Rng,
    /// What the keys held before the journal.
    base: Values,
    sent: Vec<Sent>,
    /// Requests in its whole life.
    count: u64,
    /// The different reasons that refusals gave.
    pub refusals: BTreeSet<String>,
}

fn changed(before: &Option<Vec<u8>>, change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Set(value) => value.clone(),
        Change::Add => Some((number(before) + 1).to_string().into_bytes()),
    }
}

fn apply(values: &mut Values, (at, change): &(usize, Change)) {
    values[*at] = changed(&values[*at], change);
}

fn number(value: &Option<Vec<u8>>) -> u64 {
    value.as_ref().map_or(0, |value| value.escape_ascii().to_string().parse().expect("a counter"))
}

impl Journal {
    /// The journals of `count` clients.
    pub fn of_clients(count: usize, seed: u64) -> Vec<Journal> {
        let mut rng = Rng::new(seed);
        let journal = |id| Journal {
            id,
            rng: Rng::new(rng.next_u64()),
            base: vec![None; VALUES + COUNTERS],
            sent: Vec::new(),
            count: 0,
            refusals: BTreeSet::new(),
        };
        (0..count).map(journal).collect()
    }

    fn key(&self, at: usize) -> Vec<u8> {
        format!("j{}:{at:03}", self.id).into_bytes()
    }

    /// What the keys hold if no request is without an answer.
    fn now(&self) -> Values {
        let mut values = self.base.clone();
        let acknowledged = self.sent.iter().filter(|sent| sent.fate == Fate::Acknowledged);
        acknowledged.flat_map(|sent| &sent.changes).for_each(|change| apply(&mut values, change));
        values
    }

    /// Writes and reads until told to stop, or until the server is gone.
    pub fn run(&mut self, addr: &str, tally: &Tally, reads: Reads) {
        let _gone = Gone(tally);
        self.converse(addr, tally, reads);
    }

    fn converse(&mut self, addr: &str, tally: &Tally, reads: Reads) {
        let Ok(mut connection) = Connection::open(addr, Dialect::Resp) else { return };
        let mut now = self.now();
        let first = self.sent.len();
        let mut depth = 1;
        loop {
            let from = self.sent.len();
            let mut bytes = Vec::new();
            for _ in 0..depth {
                self.request(&mut bytes);
            }
            let sent = connection.send(&bytes);
            let mut refused = false;
            let mut stop = false;
            for at in from..self.sent.len() {
                let Some(reply) = connection.receive() else { return };
                let was_refused = !self.take(at, &reply.one(), &mut now);
                stop = tally.change(|counts| match was_refused {
                    true => (counts.refused, counts.acknowledged_since) = (counts.refused + 1, 0),
                    false => {
                        counts.acknowledged += 1;
                        counts.acknowledged_since += 1;
                    }
                });
                refused |= was_refused;
            }
            if from == first {
                tally.change(|counts| counts.at_work += 1);
            }
            let looked = self.rng.below((VALUES + COUNTERS) as u64) as usize;
            if !self.look(&mut connection, looked, &now, reads) || stop || sent.is_err() {
                return;
            }
            depth = if refused { 1 } else { *self.rng.pick(&[1, 4, 16, 64]) };
            if refused {
                std::thread::sleep(AFTER_REFUSAL);
            }
        }
    }

    /// Reads a key of which all is known. Whether the server was there.
    fn look(&self, connection: &mut Connection, at: usize, now: &Values, reads: Reads) -> bool {
        let mut bytes = Vec::new();
        encode(&[b"GET".to_vec(), self.key(at)], Dialect::Resp, &mut Rng::new(0), &mut bytes);
        let _ = connection.send(&bytes);
        let Some(found) = connection.receive().map(Reply::one) else { return false };
        let right = now[at].as_deref().unwrap_or(b"(nil)") == found;
        let failed = found.starts_with(b"(error) ") && reads == Reads::MayFail;
        assert!(
            right || failed,
            "{}: {}, not {:?}",
            self.key(at).escape_ascii(),
            show(&found),
            now[at].as_deref().map(show)
        );
        true
    }

    /// Whether it was acknowledged.
    fn take(&mut self, at: usize, reply: &[u8], now: &mut Values) -> bool {
        let sent = &mut self.sent[at];
        let request = || sent.request[0].escape_ascii().to_string();
        if let Some(reason) = reply.strip_prefix(REFUSAL.as_bytes()) {
            let reason = reason.escape_ascii().to_string();
            assert!(reason.contains("os error") || reason.contains("failed"), "no reason is given: {reason}");
            self.refusals.insert(reason);
            sent.fate = Fate::Refused;
            return false;
        }
        let deleted = sent.changes.iter().filter(|(at, _)| now[*at].is_some()).count();
        sent.changes.iter().for_each(|change| apply(now, change));
        let expected = match &*sent.request[0] {
            b"INCR" => now[sent.changes[0].0].clone().unwrap_or_default(),
            b"DEL" => deleted.to_string().into_bytes(),
            _ => b"OK".to_vec(),
        };
        assert!(reply == expected, "{}: {}, not {}", request(), show(reply), show(&expected));
        sent.fate = Fate::Acknowledged;
        true
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        self.count += 1;
        let mut changes = Vec::new();
        let rng = &mut self.rng;
        let name = format!("{}-{}", self.id, self.count);
        let value = |rng: &mut Rng| {
            // Some of them large enough to be put apart.
            let len = if rng.chance(1, 10) { rng.below(8 << 10) } else { rng.below(1 << 10) } as usize;
            let mut value = format!("{name}:").into_bytes();
            value.extend((0..len).map(|_| rng.next_u64() as u8));
            value
        };
        let name = match rng.below(10) {
            0..5 => {
                changes.push((rng.below(VALUES as u64) as usize, Change::Set(Some(value(rng)))));
                "SET"
            }
            5..7 => {
                let from = rng.below(VALUES as u64 - 4) as usize;
                changes.extend((from..from + 4).map(|at| (at, Change::Set(Some(value(rng))))));
                "MSET"
            }
            7 => {
                changes.push((rng.below(VALUES as u64) as usize, Change::Set(None)));
                "DEL"
            }
            _ => {
                changes.push((VALUES + rng.below(COUNTERS as u64) as usize, Change::Add));
                "INCR"
            }
        };
        let mut request = vec![name.as_bytes().to_vec()];
        for (at, change) in &changes {
            request.push(self.key(*at));
            if let Change::Set(Some(value)) = change {
                request.push(value.clone());
            }
        }
        encode(&request, Dialect::Resp, &mut Rng::new(0), out);
        self.sent.push(Sent { changes, fate: Fate::Unanswered, request });
    }

    /// Holds what was found against the journal, and begins a new one. How many were there that were not acknowledged.
    fn check(&mut self, found: Values, refused: Refused) -> usize {
        let newest = self.sent.iter().rposition(|sent| sent.fate == Fate::Acknowledged);
        let possible = |at: usize, sent: &Sent| match sent.fate {
            Fate::Refused => refused == Refused::MayReturn && newest.is_none_or(|newest| at > newest),
            _ => true,
        };
        let mut states: Vec<Values> = self.base.iter().map(|value| vec![value.clone()]).collect();
        for (_, sent) in self.sent.iter().enumerate().filter(|(at, sent)| possible(*at, sent)) {
            for (at, change) in &sent.changes {
                let after = states[*at].iter().map(|before| changed(before, change)).collect();
                match sent.fate {
                    Fate::Acknowledged => states[*at] = after,
                    _ => states[*at].extend(after),
                }
            }
        }
        for (at, states) in states.iter().enumerate() {
            assert!(
                states.contains(&found[at]),
                "{} is {:?}, which is none of {:?}",
                self.key(at).escape_ascii(),
                found[at].as_deref().map(show),
                states.iter().map(|state| state.as_deref().map(show)).collect::<Vec<_>>()
            );
        }
        let extra = self.check_whole(&found, newest);
        self.sent.clear();
        self.base = found;
        extra
    }

    /// What is there of a request that was not acknowledged is there whole, as far as nothing later is.
    fn check_whole(&self, found: &Values, newest: Option<usize>) -> usize {
        let mut extra = 0;
        let in_doubt = self.sent.iter().enumerate().filter(|(at, _)| newest.is_none_or(|newest| *at > newest));
        let written = |at: usize| {
            self.sent.iter().rposition(|sent| {
                sent.changes.iter().any(|(of, change)| {
                    *of == at && matches!(change, Change::Set(Some(value)) if Some(value) == found[at].as_ref())
                })
            })
        };
        for (number, sent) in in_doubt {
            let there = |(at, _): &&(usize, Change)| found[*at].is_some() && written(*at) == Some(number);
            if !sent.changes.iter().any(|change| there(&change)) {
                continue;
            }
            extra += 1;
            for (at, _) in &sent.changes {
                // A delete leaves no name of who did it.
                let later = found[*at].is_none() || written(*at) >= Some(number);
                assert!(later, "a part of a request is there, {} is not", self.key(*at).escape_ascii());
            }
        }
        extra
    }
}

fn show(value: &[u8]) -> String {
    format!("{} ({} bytes)", value[..value.len().min(200)].escape_ascii(), value.len())
}

/// Lets the clients work until `enough` says so, which is asked when all have had a reply.
pub fn work(addr: &str, journals: &mut [Journal], reads: Reads, enough: impl FnOnce(&Tally)) {
    let tally = Tally::default();
    let clients = journals.len();
    std::thread::scope(|scope| {
        for journal in journals {
            scope.spawn(|| journal.run(addr, &tally, reads));
        }
        // A failed check must not leave the clients at work for ever.
        let done = catch_unwind(AssertUnwindSafe(|| {
            tally.wait(PATIENCE, |counts| counts.at_work + counts.gone >= clients);
            enough(&tally);
        }));
        tally.stop();
        done.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Reads everything and holds it against the journals. How many requests were there that nobody had acknowledged.
pub fn audit(addr: &str, journals: &mut [Journal], refused: Refused) -> usize {
    let mut connection = Connection::open(addr, Dialect::Resp).unwrap();
    let scan = connection.ask(&[words("RANGE - +")]).remove(0).many();
    let mut scanned: std::collections::BTreeMap<_, _> =
        scan.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    scanned.retain(|key, _| !key.starts_with(b"probe"));
    let mut extra = 0;
    for journal in &mut *journals {
        let keys = (0..VALUES + COUNTERS).map(|at| journal.key(at));
        let gets: Vec<_> = keys.clone().map(|key| vec![b"GET".to_vec(), key]).collect();
        let found = connection.ask(&gets).into_iter().map(Reply::one).map(|value| (value != b"(nil)").then_some(value));
        let found: Values = found.collect();
        for (key, value) in keys.zip(&found) {
            assert!(scanned.remove(&key) == *value, "{}: a scan and a get do not agree", key.escape_ascii());
        }
        extra += journal.check(found, refused);
    }
    assert!(scanned.is_empty(), "nobody wrote these: {:?}", scanned.keys());
    extra
}

/// What a write of nobody's key is answered.
pub fn probe(addr: &str) -> String {
    let mut connection = Connection::open(addr, Dialect::Resp).unwrap();
    connection.ask(&[words("SET probe here")]).remove(0).one().escape_ascii().to_string()
}

/// Waits until writes are accepted: how long that took.
pub fn wait_for_writes(addr: &str, at_most: Duration) -> Duration {
    let mut connection = Connection::open(addr, Dialect::Resp).unwrap();
    let since = Instant::now();
    loop {
        let reply = connection.ask(&[words("SET probe here")]).remove(0).one();
        if reply == b"OK" {
            return since.elapsed();
        }
        assert!(since.elapsed() < at_most, "writes are still refused: {}", show(&reply));
        std::thread::sleep(AFTER_REFUSAL);
    }
}
