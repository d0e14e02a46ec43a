//! Outboxes under a fake log: every interleaving that a random schedule finds, readers that stop, and failures.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::protocol::{Dialect, Reply};
use crate::server::limits::Limits;
use crate::sync::thread::JoinHandle;

const PATIENT: Limits = Limits {
    idle: None,
    incomplete: Duration::from_secs(60),
    output: 64 << 10,
    stuck: Duration::from_secs(60),
    output_in_all: 256 << 20,
};

/// A drainer, one outbox, and the client's end of its socket.
struct Fixture {
    drainer: Arc<Drainer>,
    thread: Option<JoinHandle<()>>,
    outbox: Arc<Outbox>,
    client: UnixStream,
}

impl Fixture {
    fn new(limits: Limits) -> Fixture {
        Fixture::over(limits, Box::new(|_| true))
    }

    fn over(limits: Limits, is_durable: Box<IsDurable>) -> Fixture {
        let (client, server) = UnixStream::pair().unwrap();
        // Small, so that a pause of the reader is enough to fill it.
        rustix::net::sockopt::set_socket_send_buffer_size(&server, 4096).unwrap();
        let drainer = Drainer::new(limits).unwrap();
        let thread = Some(drainer.start().unwrap());
        let outbox = Outbox::new(server.into(), drainer.clone(), is_durable);
        Fixture { outbox, drainer, thread, client }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.outbox.break_off();
        self.drainer.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn batch(replies: &[(String, u64)]) -> Replies {
    let mut batch = Replies::new();
    for (text, seq) in replies {
        batch.push(&Reply::Status(text.clone().into()), Dialect::Text, (*seq > 0).then_some(SeqNo(*seq)));
    }
    batch
}

fn random(state: &mut u64) -> u64 {
    // SplitMix64, https://prng.di.unimi.it/splitmix64.c
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A log that settles positions when it likes, and keeps the engine's contract: positions settle in order, a failure
/// takes everything that is not durable, and who registers late is told the fate of that one position.
#[derive(Default)]
struct Log {
    issued: AtomicU64,
    settled: AtomicU64,
    waiting: Mutex<Vec<(u64, Arc<dyn Waiter>)>>,
    failures: Mutex<Vec<(u64, u64)>>,
    ended: AtomicBool,
}

impl Log {
    fn when_durable(&self, seq: u64, waiter: &Arc<dyn Waiter>) {
        let mut waiting = self.waiting.lock();
        let settled = self.settled.load(Ordering::SeqCst);
        if seq > settled {
            return waiting.push((seq, waiter.clone()));
        }
        drop(waiting);
        match self.failure(seq) {
            Some((after, upto)) => waiter.failed(SeqNo(after), SeqNo(upto), &engine::Error::Closed),
            None => waiter.durable(SeqNo(settled)),
        }
    }

    fn run(&self, mut seed: u64) {
        loop {
            for _ in 0..random(&mut seed) % 50 {
                thread::yield_now();
            }
            let (after, last) = (self.settled.load(Ordering::SeqCst), self.issued.load(Ordering::SeqCst));
            if after == last {
                if self.ended.load(Ordering::SeqCst) {
                    return;
                }
                continue;
            }
            let failed = random(&mut seed).is_multiple_of(8);
            let upto = if failed { last } else { after + 1 + random(&mut seed) % (last - after) };
            if failed {
                self.failures.lock().push((after, upto));
            }
            let settled: Vec<(u64, Arc<dyn Waiter>)> = {
                let mut waiting = self.waiting.lock();
                self.settled.store(upto, Ordering::SeqCst);
                waiting.extract_if(.., |(seq, _)| *seq <= upto).collect()
            };
            for (_, waiter) in settled {
                if failed {
                    waiter.failed(SeqNo(after), SeqNo(upto), &engine::Error::Closed);
                } else {
                    waiter.durable(SeqNo(upto));
                }
            }
        }
    }

    fn failure(&self, seq: u64) -> Option<(u64, u64)> {
        self.failures.lock().iter().copied().find(|(after, upto)| *after < seq && seq <= *upto)
    }

    fn has_failed(&self, seq: u64) -> bool {
        self.failure(seq).is_some()
    }
}

/// One connection's life on a random schedule: every reply comes once, in order, true, and not before its time.
fn live(seed: u64) {
    let log = Arc::new(Log::default());
    let fixture = Fixture::over(PATIENT, {
        let log = log.clone();
        Box::new(move |seq| seq.0 <= log.settled.load(Ordering::SeqCst) && !log.has_failed(seq.0))
    });
    let outbox = fixture.outbox.clone();
    let logging = thread::spawn({
        let log = log.clone();
        move || log.run(seed)
    });
    let reading = thread::spawn({
        let (log, client) = (log.clone(), fixture.client.try_clone().unwrap());
        let mut seed = seed + 1;
        move || {
            let mut lines = Vec::new();
            for line in BufReader::with_capacity(1 + random(&mut seed) as usize % 8192, client).lines() {
                let line = line.unwrap();
                let mut words = line.split(' ').skip(1);
                if let (Some(seq), false) = (words.next(), line.starts_with('(')) {
                    let seq: u64 = seq.parse().unwrap();
                    assert!(seq <= log.settled.load(Ordering::SeqCst), "seed {seed}: {seq} was answered too soon");
                }
                lines.push(line);
                if random(&mut seed).is_multiple_of(64) {
                    thread::sleep(Duration::from_micros(random(&mut seed) % 300));
                }
            }
            lines
        }
    });

    let waiter: Arc<dyn Waiter> = outbox.clone();
    let mut choices = seed + 2;
    let mut expected = Vec::new();
    let mut queued = false;
    for _ in 0..200 {
        let mut replies = Vec::new();
        for _ in 0..=random(&mut choices) % 20 {
            let seq = match random(&mut choices) % 4 {
                // A read of something recent, a read of something old, writes.
                0 => log.issued.load(Ordering::SeqCst),
                1 => 0,
                _ => log.issued.fetch_add(1, Ordering::SeqCst) + 1,
            };
            let padding = if random(&mut choices).is_multiple_of(50) { 20_000 } else { random(&mut choices) % 50 };
            let text = format!("{} {seq} {}", expected.len(), "x".repeat(padding as usize));
            expected.push((text.clone(), seq));
            replies.push((text, seq));
        }
        let mut batch = batch(&replies);
        let depends = batch.depends();
        queued = queued && !outbox.is_empty();
        if depends.is_none() && !queued {
            outbox.send_now(&batch.bytes).unwrap();
        } else {
            queued = true;
            outbox.queue(&mut batch);
            if let Some(seq) = depends {
                log.when_durable(seq.0, &waiter);
            }
        }
        assert!(outbox.wait_for_room(), "seed {seed}: the outbox broke");
    }
    outbox.finish();
    outbox.break_off();
    log.ended.store(true, Ordering::SeqCst);
    logging.join().unwrap();
    let got = reading.join().unwrap();
    assert_eq!(got.len(), expected.len(), "seed {seed}");
    for (got, (text, seq)) in got.iter().zip(&expected) {
        if *seq > 0 && log.has_failed(*seq) {
            assert!(got.starts_with("(error) MISCONF "), "seed {seed}: {got} for {text}");
        } else {
            assert_eq!(got, text, "seed {seed}");
        }
    }
    assert!(outbox.is_empty());
}

#[test]
fn every_reply_comes_once_in_order_true_and_in_time() {
    let base = std::env::var("CHRONOS_SEED").ok().map(|seed| seed.parse().unwrap());
    match base {
        Some(seed) => live(seed),
        None => (0..60).for_each(|at| live(at * 1000)),
    }
}

#[test]
fn what_the_socket_does_not_take_is_delivered_without_the_connections_thread() {
    let mut fixture = Fixture::new(PATIENT);
    let mut replies = batch(&[("a".repeat(3 << 20), 1), ("b".repeat(3 << 20), 2)]);
    fixture.outbox.queue(&mut replies);
    fixture.outbox.durable(SeqNo(1));
    assert!(!fixture.outbox.is_empty());
    let mut first = vec![0; (3 << 20) + 1];
    fixture.client.read_exact(&mut first).unwrap();
    fixture.outbox.durable(SeqNo(2));
    let mut second = vec![0; (3 << 20) + 1];
    fixture.client.read_exact(&mut second).unwrap();
    assert!(first.starts_with(b"aaa") && second.starts_with(b"bbb") && second.ends_with(b"b\n"));
    fixture.outbox.finish();
    assert!(fixture.outbox.wait_for_room());
}

#[test]
fn a_client_that_does_not_read_is_closed_and_nobody_waits_for_it() {
    let fixture = Fixture::new(Limits { stuck: Duration::from_millis(50), ..PATIENT });
    let mut replies = batch(&[("a".repeat(3 << 20), 1)]);
    fixture.outbox.queue(&mut replies);
    fixture.outbox.durable(SeqNo(1));
    assert!(!fixture.outbox.wait_for_room(), "it was given up");
    fixture.outbox.finish();
    let mut more = batch(&[("b".into(), 2)]);
    fixture.outbox.queue(&mut more);
    fixture.outbox.durable(SeqNo(2));
    assert!(fixture.outbox.is_empty());
    let error = fixture.outbox.send_now(b"c").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_direct_send_gives_up_on_a_client_that_does_not_read() {
    let fixture = Fixture::new(Limits { stuck: Duration::from_millis(50), ..PATIENT });
    let error = fixture.outbox.send_now(&vec![b'x'; 3 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_client_that_leaves_breaks_its_outbox_and_frees_what_waited_for_it() {
    let Fixture { drainer, outbox, client, .. } = &mut Fixture::new(PATIENT);
    let waiter: Arc<dyn Waiter> = outbox.clone();
    let mut replies = batch(&[("a".repeat(100_000), 1), ("b".repeat(3 << 20), 2)]);
    outbox.queue(&mut replies);
    client.shutdown(std::net::Shutdown::Both).unwrap();
    waiter.durable(SeqNo(1));
    outbox.finish();
    waiter.failed(SeqNo(1), SeqNo(2), &engine::Error::Closed);
    assert!(!outbox.wait_for_room() && outbox.is_empty());
    assert!(!drainer.budget.is_exceeded());
}

#[test]
fn over_budget_a_client_must_read_everything_before_it_is_asked_for_more() {
    let mut fixture = Fixture::new(Limits { output_in_all: 10_000, output: 1 << 20, ..PATIENT });
    let mut replies = batch(&[("a".repeat(20_000), 1)]);
    fixture.outbox.queue(&mut replies);
    let outbox = fixture.outbox.clone();
    let waiting = thread::spawn(move || outbox.wait_for_room());
    fixture.outbox.durable(SeqNo(1));
    let mut line = String::new();
    BufReader::new(&mut fixture.client).read_line(&mut line).unwrap();
    assert_eq!(line.len(), 20_001);
    assert!(waiting.join().unwrap());
    assert!(!fixture.drainer.budget.is_exceeded());
}
