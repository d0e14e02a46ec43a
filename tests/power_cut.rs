//! Power cuts of the real server on a real file system. An ext4 behind a loop device is shut down under pipelining clients
//! that keep journals: whatever was not synced is gone. It is mounted again, recovers its own journal, the server is
//! started on it, and everything is read back as after `kill -9` (see `tests/kill/`).
//!
//! `crash.rs` tries every order in which a disk may lose writes; this is to find what its simulated disk has wrong about a
//! real one.
//!
//! `CHRONOS_POWER_CUTS=2000 CHRONOS_SEED=7 cargo test --release --test power_cut` goes further or replays the choices (not
//! the moments: those are the machine's).

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "kill/audit.rs"]
mod audit;
#[path = "kill/client.rs"]
mod client;
mod common;
#[path = "common/disks.rs"]
mod disks;
#[path = "common/needs.rs"]
mod needs;
#[path = "common/progress.rs"]
mod progress;
#[path = "common/server.rs"]
mod server;
#[path = "common/wire.rs"]
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use audit::{Base, Promise, audit};
use chronos::codec::Rng;
use client::Client;
use common::number_from_env;
use disks::{Ext4, run};
use needs::has_root_and;
use progress::Progress;
use rustix::process::Signal;
use server::{Server, spawn};
use wire::{Connection, Dialect, encode, words};

/// Power cuts in the test command.
const CUTS: u64 = 10;
/// With an interval there is one more thing to show, which shows in fewer.
const INTERVAL_CUTS: u64 = 4;

const CLIENTS: usize = 6;

/// The least there is: a memtable of 1 MiB, so that flushes and compactions happen all the time.
const MEMORY: &[&str] = &["--memory", "8MiB"];

/// A life ends after at most so many acknowledgements, or so much time.
const MOST_ACKNOWLEDGED: u64 = 20_000;
const LONGEST_LIFE: Duration = Duration::from_millis(800);

/// Short beside the interval.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Megabytes: far more than what the clients write.
const DISK: u32 = 256;

/// How a shut down file system treats its own journal: what it holds in memory is written first, or lost as well.
const LOG_FLUSH: u32 = 1;
const NO_LOG_FLUSH: u32 = 2;

/// The `ioctl` that shuts a file system down, made by a program: this one has no unsafe code. The number is
/// `_IOR('X', 125, u32)`, which is what XFS, ext4 and F2FS know.
const SHUT_DOWN: &str = "
import fcntl, os, struct, sys
disk = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
how = sys.stdin.readline()
fcntl.ioctl(disk, 0x8004587d, struct.pack('I', int(how)))
print('cut', flush=True)
";

/// Stands by to cut the power.
struct Cutter {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Cutter {
    fn stand_by(disk: &Path) -> Cutter {
        let mut command = Command::new("python3");
        command.args(["-c", SHUT_DOWN]).arg(disk).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let says = BufReader::new(process.stdout.take().unwrap());
        let mut cutter = Cutter { process, says };
        cutter.hear("ready");
        cutter
    }

    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word, "the program that cuts the power has failed");
    }

    fn cut(mut self, how: u32) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{how}").unwrap();
        self.hear("cut");
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What is reported at the end.
#[derive(Default)]
struct Totals {
    acknowledged: usize,
    unacknowledged: usize,
    owed: usize,
    lost: usize,
    cut: u64,
    cut_while_starting: u64,
    replayed: u64,
    flushes: usize,
    compactions: usize,
}

/// What the server said of its log: when it was asked, how far it had come by then, and how much of that was synced.
struct Look {
    at: Instant,
    position: u64,
    synced: u64,
}

/// Looks at the log until the disk is taken away.
fn watch_log(addr: &str, progress: &Progress) -> Vec<Look> {
    let mut looks = Vec::new();
    let Ok(mut connection) = Connection::open(addr, Dialect::Resp) else { return looks };
    loop {
        let at = Instant::now();
        let mut request = Vec::new();
        encode(&words("INFO engine"), Dialect::Resp, &mut Rng::new(0), &mut request);
        let reply = connection.send(&request).ok().and_then(|()| connection.receive());
        let Some(info) = reply.filter(|_| !progress.disk_is_gone()) else { return looks };
        let info = String::from_utf8(info.one()).unwrap();
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap();
        looks.push(Look { at, position: field("log_position:"), synced: field("log_synced_position:") });
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Since when the disk owes nothing: what was acknowledged before this was synced, as the server has said later on. So a
/// server that gets no turn to sync is not blamed, and one that says so and did not is.
fn synced_upto(looks: &[Look]) -> Option<Instant> {
    let synced = looks.last()?.synced;
    looks.iter().rev().find(|look| look.position <= synced).map(|look| look.at)
}

/// One disk, its clients, and one life of the server after the other.
struct Story {
    disk: Ext4,
    flags: Vec<&'static str>,
    promise: Promise,
    rng: Rng,
    clients: Vec<Client>,
    base: Base,
    /// Before which acknowledgements bind whoever lets replies go ahead of the disk.
    binding: Instant,
    totals: Totals,
}

impl Story {
    fn how(&mut self) -> u32 {
        if self.rng.chance(1, 3) { LOG_FLUSH } else { NO_LOG_FLUSH }
    }

    /// What was cut off is mounted again, as the next boot would.
    fn power_on(&mut self) {
        self.disk.unmount().unwrap();
        self.disk.mount(&[]).unwrap();
    }

    /// Starts the server and checks what it has kept; often the power goes once more while it starts.
    fn begin(&mut self) -> Server {
        if self.rng.chance(1, 3) {
            let cutter = Cutter::stand_by(self.disk.path());
            let time = Duration::from_micros(self.rng.below(40_000));
            let how = self.how();
            let starting = spawn(&self.disk.data(), &self.flags);
            // A random moment is no event that could be awaited.
            thread::sleep(time);
            cutter.cut(how);
            drop(starting);
            self.power_on();
            self.totals.cut_while_starting += 1;
        }
        let server = Server::start(&self.disk.data(), &self.flags);
        self.totals.replayed += server.replayed();
        let counts = audit(&server.addr, &mut self.clients, &mut self.base, self.promise, self.binding);
        self.totals.acknowledged += counts.acknowledged;
        self.totals.owed += counts.owed;
        self.totals.unacknowledged += counts.unacknowledged;
        self.totals.lost += counts.lost;
        server
    }

    /// Lets the clients write, and cuts the power in the middle of it.
    fn live(&mut self, server: Server) {
        let how = self.how();
        let progress = Progress::new(1 + self.rng.below(MOST_ACKNOWLEDGED));
        let pause = Duration::from_micros(self.rng.below(3_000));
        // The kernel may have written anything back by itself: here all there was, a moment before the end.
        let write_back = self.rng.chance(1, 4);
        let in_order = self.rng.chance(1, 4);
        let cutter = Cutter::stand_by(self.disk.path());
        let (clients, disk) = (&mut self.clients, self.disk.path());
        let began = Instant::now();
        let (looks, log) = thread::scope(|scope| {
            // In here, so that the clients come to an end whatever happens.
            let server = server;
            let watch = {
                let (addr, progress) = (server.addr.clone(), &progress);
                scope.spawn(move || watch_log(&addr, progress))
            };
            for client in clients {
                let (addr, progress) = (server.addr.clone(), &progress);
                scope.spawn(move || client.run(&addr, progress));
            }
            progress.wait(Instant::now() + LONGEST_LIFE);
            if write_back {
                run("sync", &["-f"], &[disk]).unwrap();
            }
            thread::sleep(pause);
            progress.take_disk_away();
            cutter.cut(how);
            // A server that goes on without its disk must not panic, nor tell anybody that all is well.
            server.signal(if in_order { Signal::TERM } else { Signal::KILL });
            let (status, log) = server.wait();
            assert!(!in_order || matches!(status.code(), Some(0 | 1)), "{status}: {log}");
            (watch.join().unwrap(), log)
        });
        self.binding = synced_upto(&looks).unwrap_or(began);
        self.totals.cut += 1;
        self.totals.flushes += log.matches("memtable flushed").count();
        self.totals.compactions += log.matches("compaction finished").count();
        self.power_on();
    }

    /// A copy of the files for whoever looks for the reason.
    fn keep(&self) -> String {
        let kept = tempfile::tempdir().unwrap().keep();
        let copied = run("cp", &["-a"], &[&self.disk.data(), &kept]);
        format!("{} ({copied:?})", kept.display())
    }
}

fn tell(test: &str, cuts: u64, durability: &'static str, promise: Promise) -> Option<Totals> {
    if !has_root_and(&["python3"]) {
        return None;
    }
    let disk = Ext4::mount_new(DISK, DISK + DISK / 4)?;
    let seed = number_from_env("CHRONOS_SEED", std::process::id().into());
    let mut rng = Rng::new(seed);
    let clients = (0..CLIENTS).map(|id| Client::new(id, rng.next_u64())).collect();
    let mut story = Story {
        disk,
        flags: [MEMORY, &["--durability", durability, "--history", "500ms"]].concat(),
        promise,
        rng,
        clients,
        base: Base::default(),
        binding: Instant::now(),
        totals: Totals::default(),
    };
    let mut cut = 0;
    let told = catch_unwind(AssertUnwindSafe(|| {
        while cut < cuts {
            cut += 1;
            let server = story.begin();
            story.live(server);
        }
        let server = story.begin();
        server.signal(Signal::TERM);
        let (status, log) = server.wait_in_peace();
        assert_eq!(status.code(), Some(0), "{log}");
    }));
    if let Err(panic) = told {
        eprintln!(
            "cut {cut}; replay: CHRONOS_SEED={seed} CHRONOS_POWER_CUTS={cuts} cargo test --test power_cut {test}\n\
             the directory as it was found: {}",
            story.keep()
        );
        resume_unwind(panic);
    }
    let totals = story.totals;
    println!(
        "seed {seed}: {} acknowledged, {} of them owed, {} more were there, {} lost; {} power cuts and {} while starting; {} changes \
         replayed, {} flushes, {} compactions",
        totals.acknowledged,
        totals.owed,
        totals.unacknowledged,
        totals.lost,
        totals.cut,
        totals.cut_while_starting,
        totals.replayed,
        totals.flushes,
        totals.compactions
    );
    Some(totals)
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let cuts = number_from_env("CHRONOS_POWER_CUTS", CUTS);
    let totals = tell("a_power_cut_loses_nothing_that_was_acknowledged", cuts, "always", Promise::All);
    if let Some(totals) = totals {
        assert_eq!(totals.lost, 0);
        // Else this would have tested little.
        assert!(totals.acknowledged > 0 && totals.replayed > 0 && totals.flushes > 0);
    }
}

/// What the interval has to do with it, `tests/slow_log.rs` shows: here it is what the server says is synced that counts.
#[test]
fn with_an_interval_a_power_cut_loses_only_the_newest() {
    let cuts = number_from_env("CHRONOS_POWER_CUTS", INTERVAL_CUTS);
    let promise = Promise::AllBut(Duration::ZERO);
    let totals = tell("with_an_interval_a_power_cut_loses_only_the_newest", cuts, "100ms", promise);
    // It is a power cut: what was not synced is gone.
    assert!(cuts < INTERVAL_CUTS || totals.is_none_or(|totals| totals.lost > 0 && totals.owed > 0));
}
