//! kill -9. The real server is killed again and again under clients that pipeline and keep journals of what was
//! acknowledged; it is started on the same directory, everything is read back and held against the journals, and the
//! clients go on.
//!
//! A process that is killed loses what it has not yet given to the operating system, and nothing else: this finds
//! replies that went out before their log record, what a recovery mistakes, and what flushes and compactions break that
//! are interrupted anywhere. What power loss does is for `crash.rs` and its simulated disk.
//!
//! `CHRONOS_KILL_CYCLES=1000 CHRONOS_SEED=7 cargo test --release --test kill` goes further or replays the choices (not
//! the moments: those are the machine's).

#![allow(clippy::unwrap_used)] // A test may.

mod audit;
mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/progress.rs"]
mod progress;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use rustix::process::Signal;

use audit::{Base, Promise, audit};
use client::Client;
use common::number_from_env;
use progress::Progress;
use server::{Server, kill_while_starting};
use wire::{Connection, Dialect, words};

/// Lives of a server in the test command.
const CYCLES: u64 = 50;
/// A log that is synced now and then has one more thing to show, which it does in fewer.
const INTERVAL_CYCLES: u64 = 12;

/// Lives that are ended in order under load.
const TERMINATED_CYCLES: u64 = 5;

/// One of so many lives is ended in order where most are killed.
const TERMINATE: u64 = 7;

const CLIENTS: usize = 6;

/// The least there is: a memtable of 1 MiB, so that flushes and compactions happen all the time.
const MEMORY: &[&str] = &["--memory", "8MiB"];

/// Short enough that lives go beyond it: versions are kept, and dropped when it has passed.
const HISTORY: &str = "500ms";

/// A life ends after at most so many acknowledgements, or so much time on a slow disk.
const MOST_ACKNOWLEDGED: u64 = 20_000;
const LONGEST_LIFE: Duration = Duration::from_millis(1_500);

/// What is reported at the end.
#[derive(Default)]
struct Totals {
    acknowledged: usize,
    unacknowledged: usize,
    lost: usize,
    killed: u64,
    killed_while_starting: u64,
    terminated: u64,
    replayed: u64,
    flushes: usize,
    compactions: usize,
    /// Files of large values that were there at a start, and those of them that were gone at a later one.
    blobs: BTreeSet<String>,
    blobs_gone: BTreeSet<String>,
}

/// One directory, its clients, and one server life after the other.
struct Story<'a> {
    dir: &'a Path,
    flags: Vec<&'a str>,
    promise: Promise,
    rng: Rng,
    clients: Vec<Client>,
    base: Base,
    /// One of so many lives ends with SIGTERM, the others with SIGKILL.
    terminate: u64,
    /// When the last server ended, and whether that was in order.
    ended: Instant,
    in_order: bool,
    totals: Totals,
}

impl Story<'_> {
    /// Starts the server and checks what it has kept.
    fn begin(&mut self) -> Server {
        if self.rng.chance(1, 4) {
            let time = Duration::from_micros(self.rng.below(40_000));
            kill_while_starting(self.dir, &self.flags, time);
            self.totals.killed_while_starting += 1;
        }
        let server = Server::start(self.dir, &self.flags);
        self.count_blobs();
        let replayed = server.replayed();
        assert!(!self.in_order || replayed == 0, "after an orderly end {replayed} changes were replayed");
        self.totals.replayed += replayed;
        self.audit(&server);
        server
    }

    fn count_blobs(&mut self) {
        let names = std::fs::read_dir(self.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let now: BTreeSet<String> = names.filter(|name| name.ends_with(".blob")).collect();
        self.totals.blobs_gone.extend(self.totals.blobs.difference(&now).cloned());
        self.totals.blobs.extend(now);
    }

    fn audit(&mut self, server: &Server) {
        let counts = audit(&server.addr, &mut self.clients, &mut self.base, self.promise, self.ended);
        self.totals.acknowledged += counts.acknowledged;
        self.totals.unacknowledged += counts.unacknowledged;
        self.totals.lost += counts.lost;
    }

    /// Lets the clients write, and ends the server in the middle of it.
    fn live(&mut self, server: Server) {
        self.in_order = self.rng.chance(1, self.terminate);
        let signal = if self.in_order { Signal::TERM } else { Signal::KILL };
        let progress = Progress::new(1 + self.rng.below(MOST_ACKNOWLEDGED));
        // Counting acknowledgements alone would always end it just behind one.
        let pause = Duration::from_micros(self.rng.below(3_000));
        let clients = &mut self.clients;
        let (ended, (status, log)) = thread::scope(|scope| {
            // In here, so that the clients come to an end whatever happens.
            let server = server;
            for client in clients {
                let (addr, progress) = (server.addr.clone(), &progress);
                scope.spawn(move || client.run(&addr, progress));
            }
            progress.wait(Instant::now() + LONGEST_LIFE);
            thread::sleep(pause);
            let ended = Instant::now();
            server.signal(signal);
            (ended, server.wait_in_peace())
        });
        self.ended = ended;
        if self.in_order {
            assert_eq!(status.code(), Some(0), "{log}");
            self.totals.terminated += 1;
        } else {
            assert_eq!(status.code(), None, "killed, not ended: {log}");
            self.totals.killed += 1;
        }
        self.count_background_work(&log);
    }

    fn count_background_work(&mut self, log: &str) {
        self.totals.flushes += log.matches("memtable flushed").count();
        self.totals.compactions += log.matches("compaction finished").count();
    }

    /// The last life: whatever is merged, nothing changes; and then an end in order.
    fn end(&mut self) {
        let server = self.begin();
        let mut connection = Connection::open(&server.addr, Dialect::Resp).unwrap();
        connection.ask(&[words("COMPACT")]);
        self.audit(&server);
        server.signal(Signal::TERM);
        let (status, log) = server.wait_in_peace();
        assert_eq!(status.code(), Some(0), "{log}");
        self.count_background_work(&log);
        self.in_order = true;
        let server = self.begin();
        server.signal(Signal::TERM);
        server.wait_in_peace();
    }
}

fn tell(test: &str, cycles: u64, durability: &str, promise: Promise, terminate: u64) -> Totals {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(seed);
    let clients = (0..CLIENTS).map(|id| Client::new(id, rng.next_u64())).collect();
    let mut story = Story {
        dir: dir.path(),
        flags: [MEMORY, &["--durability", durability, "--history", HISTORY]].concat(),
        promise,
        rng,
        clients,
        base: Base::default(),
        terminate,
        ended: Instant::now(),
        in_order: false,
        totals: Totals::default(),
    };
    let mut cycle = 0;
    let told = catch_unwind(AssertUnwindSafe(|| {
        while cycle < cycles {
            cycle += 1;
            let server = story.begin();
            story.live(server);
        }
        story.end();
    }));
    if let Err(panic) = told {
        eprintln!(
            "cycle {cycle}; replay: CHRONOS_SEED={seed} CHRONOS_KILL_CYCLES={cycles} cargo test --test kill {test}\n\
             the directory as it was found: {}",
            dir.keep().display()
        );
        resume_unwind(panic);
    }
    let totals = story.totals;
    println!(
        "seed {seed}: {} acknowledged, {} more were there, {} lost; killed {} times and {} times while starting, \
         terminated {} times; {} changes replayed, {} flushes, {} compactions; {} blob files, {} of them gone again",
        totals.acknowledged,
        totals.unacknowledged,
        totals.lost,
        totals.killed,
        totals.killed_while_starting,
        totals.terminated,
        totals.replayed,
        totals.flushes,
        totals.compactions,
        totals.blobs.len(),
        totals.blobs_gone.len()
    );
    totals
}

/// From the environment, or another each time.
fn seed() -> u64 {
    number_from_env("CHRONOS_SEED", std::process::id().into())
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let cycles = number_from_env("CHRONOS_KILL_CYCLES", CYCLES);
    let totals = tell("kill_9_loses_nothing_that_was_acknowledged", cycles, "always", Promise::All, TERMINATE);
    assert_eq!(totals.lost, 0);
    if cycles >= CYCLES {
        // Else this would have tested little.
        assert!(totals.unacknowledged > 0 && totals.flushes > 0 && totals.compactions > 0);
        assert!(!totals.blobs_gone.is_empty(), "of {} blob files none was collected", totals.blobs.len());
    }
}

/// The log is written as soon as it can be, and synced every 100 ms: a killed process loses what waited for that. The
/// bound is tested generously, for machines on which a thread waits long for its turn.
#[test]
fn with_an_interval_only_the_newest_is_lost() {
    let cycles = number_from_env("CHRONOS_KILL_CYCLES", INTERVAL_CYCLES);
    let promise = Promise::AllBut(Duration::from_secs(1));
    tell("with_an_interval_only_the_newest_is_lost", cycles, "100ms", promise, TERMINATE);
}

/// SIGTERM under load: exit code 0, nothing to replay, and all that was acknowledged is there, whatever the durability.
#[test]
fn sigterm_under_load_ends_with_exit_code_0_and_loses_nothing() {
    let cycles = number_from_env("CHRONOS_KILL_CYCLES", TERMINATED_CYCLES);
    for durability in ["always", "1s"] {
        let test = "sigterm_under_load_ends_with_exit_code_0_and_loses_nothing";
        let totals = tell(test, cycles, durability, Promise::All, 1);
        assert_eq!((totals.lost, totals.killed), (0, 0));
        assert!(totals.acknowledged > 0);
    }
}
