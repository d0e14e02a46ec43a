//! Linearizability with kills. Clients ask for a few hot keys of the real server all at once; it is killed at a random
//! moment, started on the same directory, and looked at. What the clients saw, before the kill and after it, must have
//! one explanation: an order in which every command took effect at one moment between its request and its answer, those
//! without an answer before the kill or never (`checker.rs`). So nothing that anybody was told may be lost, be undone, be
//! done twice or come back, whoever else was at it at the same time.
//!
//! From one look to the next, with a kill between, is one history of each key; what the look finds is where the next
//! begins. Order is told by a count of events that all clients share, not by a clock.
//!
//! `CHRONOS_HISTORIES=10000 CHRONOS_SEED=7 cargo test --release --test linearizability` goes further or replays the
//! choices (not the moments: those are the machine's).

#![allow(clippy::unwrap_used, reason = "a test may")]

mod checker;
mod checker_tests;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod history;
#[path = "../common/progress.rs"]
mod progress;
mod reference;
mod register;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/wire.rs"]
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use rustix::process::Signal;

use checker::{Verdict, check, shrink};
use client::{Client, Events, HOT, hot_key};
use common::number_from_env;
use history::{ANY_TIME, Call, End, History};
use progress::Progress;
use register::{Reply, State, shown_state};
use server::{Server, kill_while_starting};
use wire::{Connection, Dialect, words};

/// Lives of a server in the test command.
const HISTORIES: u64 = 200;

/// Servers at the same time: one that waits for the disk leaves the processors to the others.
const STORIES: u64 = 4;

const CLIENTS: usize = 5;

/// A life ends after at most so many answers, or so much time on a slow disk.
const MOST_ANSWERED: u64 = 400;
const LONGEST_LIFE: Duration = Duration::from_millis(1_500);

const FLAGS: &[&str] = &["--memory", "8MiB"];

/// What is reported at the end.
#[derive(Default)]
struct Totals {
    calls: usize,
    unknown: usize,
    flushes: usize,
    compactions: usize,
    killed_while_starting: u64,
}

/// One directory, and one server life after the other.
struct Story<'a> {
    dir: &'a Path,
    rng: Rng,
    events: Events,
    sessions: u64,
    /// What the keys held at the last look, and what has been asked since.
    before: [State; HOT],
    calls: [Vec<Call>; HOT],
    totals: Totals,
}

impl Story<'_> {
    fn client(&mut self) -> (u64, Rng) {
        self.sessions += 1;
        (self.sessions, Rng::new(self.rng.next_u64()))
    }

    /// Starts the server, looks at the keys, and asks for an explanation of all since the last look.
    fn begin(&mut self) -> Server {
        if self.rng.chance(1, 6) {
            let time = Duration::from_micros(self.rng.below(40_000));
            kill_while_starting(self.dir, FLAGS, time);
            self.totals.killed_while_starting += 1;
        }
        let server = Server::start(self.dir, FLAGS);
        let mut connection = Connection::open(&server.addr, Dialect::Resp).unwrap();
        if self.rng.chance(1, 2) {
            // From here on the keys are in tables, and not in memory.
            connection.ask(&[words("SAVE")]);
        }
        let (session, rng) = self.client();
        let looks = Client::new(session, rng, &self.events).look(&mut connection);
        for (at, mut looks) in looks.into_iter().enumerate() {
            let found = match looks[0].reply() {
                Some(Reply::Value(value)) => Some(value.clone()),
                _ => None,
            };
            let mut calls = std::mem::take(&mut self.calls[at]);
            self.totals.calls += calls.len();
            self.totals.unknown += calls.iter().filter(|call| call.reply().is_none()).count();
            calls.append(&mut looks);
            explain(at, &History::new(std::mem::replace(&mut self.before[at], found), calls));
        }
        server
    }

    /// Lets the clients at it, and ends the server in the middle of it.
    fn live(&mut self, server: Server) {
        let signal = if self.rng.chance(1, 10) { Signal::TERM } else { Signal::KILL };
        let progress = Progress::new(1 + self.rng.below(MOST_ANSWERED));
        // Counting answers alone would always end it just behind one.
        let pause = Duration::from_micros(self.rng.below(2_000));
        let stirred = self.rng.chance(1, 6).then(|| self.client().1);
        let clients: Vec<(u64, Rng)> = (0..CLIENTS).map(|_| self.client()).collect();
        let (addr, events) = (server.addr.clone(), &self.events);
        let (seen, log) = thread::scope(|scope| {
            // In here, so that the clients come to an end whatever happens.
            let server = server;
            let (addr, progress) = (&addr, &progress);
            let run = |(session, rng)| scope.spawn(move || Client::new(session, rng, events).run(addr, progress));
            let clients: Vec<_> = clients.into_iter().map(run).collect();
            stirred.map(|rng| scope.spawn(move || stir(addr, rng)));
            progress.wait(Instant::now() + LONGEST_LIFE);
            thread::sleep(pause);
            server.signal(signal);
            let (_, log) = server.wait_in_peace();
            let ended = events.next();
            let seen: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            let close = |mut call: Call| {
                if matches!(call.end, End::Unknown { until: ANY_TIME }) {
                    call.end = End::Unknown { until: ended };
                }
                call
            };
            let seen = seen.into_iter().map(|keys| keys.map(|calls| calls.into_iter().map(close).collect::<Vec<_>>()));
            (seen.collect::<Vec<_>>(), log)
        });
        for keys in seen {
            self.calls.iter_mut().zip(keys).for_each(|(all, mut calls)| all.append(&mut calls));
        }
        self.totals.flushes += log.matches("memtable flushed").count();
        self.totals.compactions += log.matches("compaction finished").count();
    }
}

/// Flushes and compacts under the clients until the server is gone: hot keys alone would stay in memory.
fn stir(addr: &str, mut rng: Rng) {
    let Ok(mut connection) = Connection::open(addr, Dialect::Resp) else { return };
    loop {
        let request = if rng.chance(1, 3) { "COMPACT" } else { "SAVE" };
        let mut bytes = Vec::new();
        wire::encode(&words(request), Dialect::Resp, &mut rng, &mut bytes);
        if connection.send(&bytes).is_err() || connection.receive().is_none() {
            return;
        }
    }
}

fn explain(at: usize, history: &History) {
    match check(history) {
        Verdict::Linearizable => {}
        Verdict::TooHard => {
            panic!("{}: a history of {} calls is too hard", hot_key(at).escape_ascii(), history.calls().len())
        }
        Verdict::Wrong { .. } => {
            let smallest = shrink(history);
            let Verdict::Wrong { order, state } = check(&smallest) else {
                unreachable!("it was cut because it is wrong")
            };
            let left =
                smallest.calls().iter().enumerate().filter(|(at, call)| call.reply().is_some() && !order.contains(at));
            let left: String =
                left.map(|(_, call)| format!("    {} -> {}\n", call.operation, call.reply().unwrap())).collect();
            panic!(
                "{}: {} calls have no explanation; these have none either:\n{smallest}\
                 the longest order that was right takes {} of them and leads to {}; without\n{left}",
                hot_key(at).escape_ascii(),
                history.calls().len(),
                order.len(),
                shown_state(&state)
            );
        }
    }
}

fn tell(seed: u64, story: u64, lives: u64) -> Totals {
    let dir = tempfile::tempdir().unwrap();
    let mut story = Story {
        dir: dir.path(),
        rng: Rng::new(seed ^ story << 32),
        events: Events::default(),
        sessions: 0,
        before: Default::default(),
        calls: Default::default(),
        totals: Totals::default(),
    };
    let mut life = 0;
    let told = catch_unwind(AssertUnwindSafe(|| {
        while life < lives {
            life += 1;
            let server = story.begin();
            story.live(server);
        }
        let server = story.begin();
        server.signal(Signal::TERM);
        server.wait_in_peace();
    }));
    if let Err(panic) = told {
        eprintln!(
            "history {life} of a directory; replay: CHRONOS_SEED={seed} CHRONOS_HISTORIES={} cargo test --test \
             linearizability every_history\nthe directory as it was found: {}",
            lives * STORIES,
            dir.keep().display()
        );
        resume_unwind(panic);
    }
    story.totals
}

/// From the environment, or another each time.
fn seed() -> u64 {
    number_from_env("CHRONOS_SEED", std::process::id().into())
}

#[test]
fn every_history_has_an_explanation() {
    let (seed, histories) = (seed(), number_from_env("CHRONOS_HISTORIES", HISTORIES));
    let lives = histories.div_ceil(STORIES);
    let stories: Vec<Totals> = thread::scope(|scope| {
        let stories: Vec<_> = (0..STORIES).map(|story| scope.spawn(move || tell(seed, story, lives))).collect();
        stories.into_iter().map(|story| story.join().unwrap()).collect()
    });
    let sum = |of: fn(&Totals) -> usize| stories.iter().map(of).sum::<usize>();
    let (calls, unknown) = (sum(|story| story.calls), sum(|story| story.unknown));
    let (flushes, compactions) = (sum(|story| story.flushes), sum(|story| story.compactions));
    println!(
        "seed {seed}: {} histories of {HOT} keys, {calls} calls, {unknown} of them without an answer; {} times killed \
         while starting; {flushes} flushes, {compactions} compactions",
        lives * STORIES,
        sum(|story| story.killed_while_starting as usize),
    );
    if histories >= HISTORIES {
        // Else this would have tested little.
        assert!(unknown as u64 > histories && calls as u64 > 50 * histories && flushes > 0 && compactions > 0);
    }
}
