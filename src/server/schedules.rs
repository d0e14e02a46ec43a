//! Scenarios for `tests/schedules/`, of what cannot be seen from outside: replies that ride the log of a real engine, and
//! who is told what became of a position. Only with the feature `schedules`, for tests.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::drainer::Drainer;
use super::limits::Limits;
use super::outbox::Outbox;
use super::replies::Replies;
use crate::codec::Rng;
use crate::engine::{Db, Error, SeqNo, Waiter, WriteBatch};
use crate::protocol::{Dialect, Reply};
use crate::sync::thread;

/// Nobody is given up for being slow: that would be time's doing, not the schedule's.
const PATIENT: Limits = Limits {
    idle: None,
    incomplete: Duration::from_secs(600),
    output: 2 << 10,
    stuck: Duration::from_secs(600),
    output_in_all: 256 << 20,
};

/// So small that a pause of the reader fills it.
const SEND_BUFFER: usize = 4096;

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().spawn(work).unwrap()
}

/// A reply that was queued, and what it depends on.
struct Owed {
    text: String,
    seq: Option<SeqNo>,
    key: Option<Vec<u8>>,
}

/// One connection writes and reads, another thread writes too, the log may fail, the client reads slowly or leaves, the
/// database may be closed: every reply comes once, in order, and not before what it says is durable; what is answered with
/// an error never was.
pub fn replies_ride_the_log(db: &Db, rng: &mut Rng) {
    let (client, server) = UnixStream::pair().unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&server, SEND_BUFFER).unwrap();
    let drainer = Drainer::new(PATIENT).unwrap();
    let draining = drainer.start().unwrap();
    let asked = db.clone();
    let outbox = Outbox::new(server.into(), drainer.clone(), Box::new(move |seq| asked.is_durable(seq)));
    let owed: Arc<Mutex<Vec<Owed>>> = Arc::default();

    let leaves_after = if rng.chance(1, 6) { rng.below(4) as usize } else { usize::MAX };
    let reading = spawn({
        let (db, owed) = (db.clone(), owed.clone());
        move || read_replies(&db, client, &owed, leaves_after)
    });
    let writing = spawn({
        let db = db.clone();
        move || (0..2).for_each(|n| drop(db.put(b"shared", format!("other{n}").as_bytes())))
    });
    let closing = rng.chance(1, 5).then(|| {
        let db = db.clone();
        spawn(move || db.close().unwrap())
    });

    converse(db, &outbox, &owed, rng);
    outbox.finish();
    outbox.break_off();
    drop(outbox);
    let got = reading.join().unwrap();
    writing.join().unwrap();
    closing.into_iter().for_each(|thread| thread.join().unwrap());
    drainer.stop();
    draining.join().unwrap();
    assert!(!drainer.budget.is_exceeded(), "what was owed is no longer counted");

    let owed = owed.lock();
    assert!(got.len() == owed.len() || leaves_after < owed.len(), "{} of {} replies came", got.len(), owed.len());
    for (line, owed) in got.iter().zip(&*owed) {
        let Some(key) = &owed.key else { continue };
        let there = db.get(key).unwrap().is_some();
        assert_eq!(there, !line.starts_with('('), "{line}: {}", key.escape_ascii());
    }
}

/// What a connection's thread does.
fn converse(db: &Db, outbox: &Arc<Outbox>, owed: &Mutex<Vec<Owed>>, rng: &mut Rng) {
    let waiter: Arc<dyn Waiter> = outbox.clone();
    let mut queued = false;
    for request in 0..1 + rng.below(3) {
        let mut batch = Replies::new();
        for part in 0..1 + rng.below(3) {
            let padding = if rng.chance(1, 4) { 3_000 } else { 3 };
            let padding = "x".repeat(padding);
            let key = format!("own:{request}:{part}").into_bytes();
            let (answer, seq, key) = match rng.below(4) {
                0 => ("PONG".to_owned(), None, None),
                1 => {
                    let read = db.read(b"shared").unwrap();
                    let shown = read.found.map(|found| String::from_utf8_lossy(&found.value).into_owned());
                    (format!("{shown:?}"), Some(read.seq), None)
                }
                _ => {
                    let mut changes = WriteBatch::new();
                    changes.put(&key, b"");
                    // In half of all batches the log comes back before the next request of it: the replies in front of
                    // that are of positions that were passed.
                    let patient = rng.chance(1, 2);
                    loop {
                        match db.submit(&changes) {
                            Ok(seq) => break ("OK".to_owned(), Some(seq), Some(key)),
                            Err(Error::ReadOnly(_)) if patient => thread::yield_now(),
                            Err(error) => break (format!("no: {error}"), None, None),
                        }
                    }
                }
            };
            let text = format!("{request}.{part} {answer} {padding}");
            let pending = seq.filter(|seq| !db.is_durable(*seq));
            batch.push(&Reply::Status(text.clone().into()), Dialect::Text, pending);
            owed.lock().push(Owed { text, seq, key });
        }
        let depends = batch.depends();
        queued = queued && !outbox.is_empty();
        if depends.is_none() && !queued {
            if outbox.send_now(&batch.bytes).is_err() {
                return;
            }
            continue;
        }
        queued = true;
        outbox.queue(&mut batch);
        if let Some(seq) = depends {
            db.when_durable(seq, &waiter);
        }
        if !outbox.wait_for_room() {
            return;
        }
    }
}

/// What a client does: each line as it comes is the next that is owed, and what it says is durable by then.
fn read_replies(db: &Db, mut client: UnixStream, owed: &Mutex<Vec<Owed>>, leaves_after: usize) -> Vec<String> {
    client.set_nonblocking(true).unwrap();
    let mut lines: Vec<String> = Vec::new();
    let mut bytes: Vec<u8> = Vec::new();
    let mut buffer = [0; 1_000];
    while lines.len() < leaves_after {
        match client.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => break,
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(bytes.drain(..=end).collect()).unwrap().trim_end().to_owned();
            let (text, seq) = {
                let owed = owed.lock();
                let owed = &owed[lines.len()];
                (owed.text.clone(), owed.seq)
            };
            if line.starts_with("(error) MISCONF") {
                assert!(!seq.is_some_and(|seq| db.is_durable(seq)), "{text} was answered with an error");
            } else {
                assert_eq!(line, text, "the next that is owed");
                assert!(seq.is_none_or(|seq| db.is_durable(seq)), "{line} came too soon");
            }
            lines.push(line);
        }
    }
    lines
}

/// What a waiter was told of its position.
#[derive(Default)]
struct Told(Mutex<Vec<Result<SeqNo, (SeqNo, SeqNo)>>>);

impl Waiter for Told {
    fn durable(&self, seq: SeqNo) {
        self.0.lock().push(Ok(seq));
    }

    fn failed(&self, after: SeqNo, upto: SeqNo, _: &Error) {
        self.0.lock().push(Err((after, upto)));
    }
}

/// Threads that register waiters, and do not wait, while the log may fail and the database is closed: each is told once,
/// and the truth.
pub fn waiters_are_told_once(db: &Db, rng: &mut Rng) {
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let (db, writes) = (db.clone(), 1 + rng.below(4));
            spawn(move || {
                let mut waiting = Vec::new();
                for n in 0..writes {
                    let key = format!("{thread}:{n}").into_bytes();
                    let mut changes = WriteBatch::new();
                    changes.put(&key, b"");
                    let Ok(seq) = db.submit(&changes) else { continue };
                    let told = Arc::new(Told::default());
                    db.when_durable(seq, &(told.clone() as Arc<dyn Waiter>));
                    waiting.push((key, seq, told));
                }
                waiting
            })
        })
        .collect();
    for _ in 0..rng.below(8) {
        thread::yield_now();
    }
    db.close().unwrap();
    for (key, seq, told) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
        let told = told.0.lock().clone();
        let there = db.get(&key).unwrap().is_some();
        match told[..] {
            [Ok(upto)] => assert!(upto >= seq && there, "{} at {seq:?}: {told:?}", key.escape_ascii()),
            [Err((after, upto))] => assert!(after < seq && seq <= upto && !there, "{seq:?}: {told:?}"),
            _ => panic!("{} at {seq:?} was told {told:?}", key.escape_ascii()),
        }
    }
}
