//! The real server where something has run out: the disk, file descriptors, threads. It says so clearly, goes on with
//! what it has, and takes up the rest again by itself.
//!
//! The full disk is a small tmpfs and the limit on threads needs a user of its own: both need root.
//!
//! `CHRONOS_EXHAUSTIONS=100 CHRONOS_SEED=7 cargo test --release --test exhaustion` goes further or replays what the clients
//! write.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/disks.rs"]
mod disks;
#[path = "common/journal.rs"]
mod journal;
#[path = "common/needs.rs"]
mod needs;
#[path = "common/server.rs"]
mod server;
#[path = "common/wire.rs"]
mod wire;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::number_from_env;
use disks::SmallDisk;
use journal::{Journal, Reads, Refused, audit, wait_for_writes, work};
use needs::{has, has_root_and};
use rustix::process::{Resource, Rlimit, Signal};
use server::{Server, command};
use wire::PATIENCE;

/// How soon after what had run out has come back writes must be accepted: the longest pause between attempts (of a
/// flush: two seconds), and some.
const RESUME: Duration = Duration::from_secs(5);

/// Runs a test once, or as often as it is told, with a seed each time.
fn each_time(test: impl Fn(u64)) {
    let first_seed = number_from_env("CHRONOS_SEED", std::process::id().into());
    for seed in first_seed..first_seed + number_from_env("CHRONOS_EXHAUSTIONS", 1) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            let name = thread::current().name().unwrap_or_default().to_owned();
            eprintln!("replay: CHRONOS_SEED={seed} cargo test --test exhaustion {name}");
            resume_unwind(panic);
        }
    }
}

/// A connection that sends a line and reads one.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(&server.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    /// The reply, or what the server said before it closed the connection; empty if it said nothing.
    fn ask(&mut self, line: &str) -> String {
        let _ = self.0.get_mut().write_all(format!("{line}\n").as_bytes());
        let mut reply = String::new();
        let _ = self.0.read_line(&mut reply);
        reply.trim_end().to_owned()
    }
}

fn value(n: usize) -> String {
    format!("{n:08}").repeat(1_000)
}

fn check_all(server: &Server, acknowledged: usize) {
    let mut client = Client::connect(server);
    for n in 0..acknowledged {
        assert_eq!(client.ask(&format!("GET key:{n}")), value(n), "key:{n} of {acknowledged}");
    }
}

fn end(server: Server) {
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_server_starts_on_a_full_disk_reads_and_resumes_when_there_is_room() {
    each_time(|_| {
        let Some(disk) = SmallDisk::mount(64) else { return };
        let dir = disk.data();
        let ballast = disk.path().join("ballast");
        fs::write(&ballast, vec![b'x'; 36 << 20]).unwrap();
        let flags = ["--memory", "16MiB"];
        let server = Server::start(&dir, &flags);
        let mut client = Client::connect(&server);
        let mut acknowledged = 0;
        let refusal = loop {
            match client.ask(&format!("SET key:{acknowledged} {}", value(acknowledged))) {
                reply if reply == "OK" => acknowledged += 1,
                refusal => break refusal,
            }
        };
        assert!(refusal.starts_with("(error) MISCONF") && refusal.contains("No space left"), "{refusal}");
        assert!(acknowledged > 100, "{acknowledged}");
        server.signal(Signal::KILL);
        server.wait();

        // Not even the process id fits into the lock file.
        File::create(dir.join("LOCK")).unwrap();
        disk.fill();
        let mut there = "(nil)";
        for start in 0..2 {
            let server = Server::start(&dir, &flags);
            check_all(&server, acknowledged);
            let mut client = Client::connect(&server);
            let reply = client.ask("SET refused now");
            // The first start deletes what the killed server has left unfinished, and then there may be room.
            if start == 0 && reply == "OK" {
                there = "now";
            } else {
                assert!(reply.starts_with("(error) MISCONF") && reply.contains("No space left"), "{start}: {reply}");
            }
            assert_eq!(client.ask("GET refused"), there);
            end(server);
            // What the stop may have freed.
            disk.fill();
        }

        let server = Server::start(&dir, &flags);
        let mut client = Client::connect(&server);
        assert!(client.ask("SET refused now").starts_with("(error) MISCONF"));
        fs::remove_file(ballast).unwrap();
        let since = Instant::now();
        while client.ask("SET resumed now") != "OK" {
            assert!(since.elapsed() < RESUME, "there is room, and writes are still refused");
            thread::sleep(Duration::from_millis(20));
        }
        println!("{acknowledged} values; writes resumed {:?} after there was room", since.elapsed());
        check_all(&server, acknowledged);
        end(server);
        let server = Server::start(&dir, &flags);
        check_all(&server, acknowledged);
        assert_eq!(Client::connect(&server).ask("GET resumed"), "now");
        end(server);
    });
}

/// Under load, and in one life of the server: full, room again, full again.
#[test]
fn on_a_disk_that_becomes_full_reads_go_on_and_writes_resume_when_there_is_room() {
    each_time(|seed| {
        let Some(disk) = SmallDisk::mount(64) else { return };
        let flags = ["--memory", "8MiB"];
        let mut journals = Journal::of_clients(4, seed);
        let server = Server::start(&disk.data(), &flags);
        work(&server.addr, &mut journals, Reads::GoOn, |tally| {
            for _ in 0..3 {
                tally.wait_for_more(300);
                disk.fill();
                let refused = tally.counts().refused + 50;
                assert!(tally.wait(PATIENCE, |counts| counts.refused > refused), "{:?}", tally.counts());
                disk.free();
                println!("writes resumed {:?} after there was room", wait_for_writes(&server.addr, RESUME));
            }
            tally.wait_for_more(300);
        });
        let reasons: Vec<_> = journals.iter().flat_map(|journal| &journal.refusals).collect();
        assert!(reasons.iter().all(|why| why.contains("No space left")), "{reasons:?}");
        audit(&server.addr, &mut journals, Refused::Gone);
        server.signal(Signal::KILL);
        server.wait();
        let server = Server::start(&disk.data(), &flags);
        audit(&server.addr, &mut journals, Refused::MayReturn);
        end(server);
    });
}

#[test]
fn a_first_start_on_a_full_disk_is_one_clear_line_and_exit_1() {
    each_time(|_| {
        let Some(disk) = SmallDisk::mount(8) else { return };
        disk.fill();
        let output = command(&disk.data(), &["--log-level", "off"]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("No space left") && message.lines().count() == 1, "{message}");
    });
}

/// Numbers in a directory of `/proc`, such as open descriptors.
fn numbers(server: &Server, of: &str) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{}/{of}", server.pid().as_raw_nonzero())).unwrap();
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
}

/// Connects `count` clients of which `refusal` sends those away that find no room; those that were served.
fn crowd(server: &Server, count: usize, refusal: &str) -> Vec<Client> {
    let mut served = Vec::new();
    let mut told = 0;
    for n in 0..count {
        let mut client = Client::connect(server);
        match client.ask(&format!("SET crowd:{n} here")) {
            reply if reply == "OK" => served.push(client),
            // Who sends while he is sent away may find the connection reset.
            reply => {
                assert!(reply.is_empty() || reply == refusal, "{reply}");
                told += usize::from(reply == refusal);
            }
        }
    }
    assert!(told > 0, "nobody was told why");
    assert!(served.len() < count, "all of {count} were served");
    served
}

/// That `served` are still served, and that somebody else is when one of them leaves.
fn make_room(server: &Server, mut served: Vec<Client>) {
    assert!(!served.is_empty(), "nobody was served");
    for (n, client) in served.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("SET still:{n} here")), "OK");
        assert_eq!(client.ask(&format!("GET still:{n}")), "here");
    }
    served.pop();
    let since = Instant::now();
    // Its thread is about to give the place back.
    while Client::connect(server).ask("PING") != "PONG" {
        assert!(since.elapsed() < RESUME, "a place is free, and nobody gets it");
        thread::yield_now();
    }
    assert_eq!(served.first_mut().map_or("PONG".to_owned(), |client| client.ask("PING")), "PONG");
}

#[test]
#[cfg(target_os = "linux")]
fn without_descriptors_clients_are_sent_away_and_those_there_are_served() {
    each_time(|_| {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), &[]);
        assert_eq!(Client::connect(&server).ask("SET a 1"), "OK");
        let used = numbers(&server, "fd");
        let free_below = |limit: &u64| (0..*limit).filter(|fd| !used.contains(fd)).count();
        let limit = (0..).find(|limit| free_below(limit) == 4);
        let limits = Rlimit { current: limit, maximum: limit };
        rustix::process::prlimit(Some(server.pid()), Resource::Nofile, limits).unwrap();
        let served = crowd(&server, 60, "-ERR out of file descriptors");
        make_room(&server, served);
        server.signal(Signal::TERM);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("out of file descriptors"), "{log}");
    });
}

/// What the engine held for a moment while the first crowd came, the next ones take.
const CROWDS: usize = 4;

/// Clients have taken all descriptors, and the engine needs some: for its next log segment, for tables.
#[test]
#[cfg(target_os = "linux")]
fn without_descriptors_the_engine_loses_nothing_and_resumes_when_clients_leave() {
    each_time(|seed| {
        let dir = tempfile::tempdir().unwrap();
        let flags = ["--memory", "8MiB"];
        let mut journals = Journal::of_clients(3, seed);
        let server = Server::start(dir.path(), &flags);
        work(&server.addr, &mut journals, Reads::MayFail, |tally| {
            tally.wait_for_more(100);
            let used = numbers(&server, "fd");
            let free_below = |limit: &u64| (0..*limit).filter(|fd| !used.contains(fd)).count();
            let limit = (0..).find(|limit| free_below(limit) == 8);
            let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
            let limits = |current| Rlimit { current, maximum };
            rustix::process::prlimit(Some(server.pid()), Resource::Nofile, limits(limit)).unwrap();
            let mut served = Vec::new();
            for _ in 0..CROWDS {
                served.extend(crowd(&server, 40, "-ERR out of file descriptors"));
                // More than the memtables hold: either it is refused, or the log takes it all.
                let before = tally.counts();
                let answered = |counts: &journal::Counts| counts.acknowledged + counts.refused;
                let more = tally.wait(PATIENCE, |counts| answered(counts) > answered(&before) + 4_000);
                assert!(more, "{:?}", tally.counts());
            }
            println!("{:?}", tally.counts());
            drop(served);
            rustix::process::prlimit(Some(server.pid()), Resource::Nofile, limits(Some(1024))).unwrap();
            wait_for_writes(&server.addr, RESUME);
            tally.wait_for_more(300);
        });
        let mut client = Client::connect(&server);
        for n in 0..40 {
            client.ask(&format!("DEL crowd:{n}"));
        }
        audit(&server.addr, &mut journals, Refused::Gone);
        server.signal(Signal::KILL);
        let (_, log) = server.wait();
        assert!(log.contains("Too many open files"), "the engine had all that it needed: {log}");
        let server = Server::start(dir.path(), &flags);
        audit(&server.addr, &mut journals, Refused::MayReturn);
        end(server);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn started_with_few_descriptors_it_allows_fewer_clients_and_says_so() {
    each_time(|_| {
        if !has(&["prlimit"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("prlimit");
        command.arg("--nofile=64:64").arg(env!("CARGO_BIN_EXE_chronos-server"));
        command.args(["--port", "0", "--dir"]).arg(dir.path());
        let server = Server::run(command);
        assert!(server.log.contains("raise `ulimit -n`"), "{}", server.log);
        let served = crowd(&server, 60, "-ERR max number of clients reached");
        make_room(&server, served);
        end(server);
    });
}

/// A user that nobody else is, so that a limit on its threads is one on the server's.
const NOBODY_ELSE: u32 = 1_934_567_123;

#[test]
#[cfg(target_os = "linux")]
fn without_threads_clients_are_sent_away_and_those_there_are_served() {
    each_time(|_| {
        // A server of a user of its own.
        if !has_root_and(&["prlimit"]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // Where that user can reach it.
        let binary = dir.path().join("chronos-server");
        fs::copy(env!("CARGO_BIN_EXE_chronos-server"), &binary).unwrap();
        for (path, mode) in [(dir.path(), 0o777), (&binary, 0o755)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let start = |threads: u64| {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nproc={threads}:{threads}")).arg(&binary);
            command.args(["--port", "0", "--dir"]).arg(dir.path().join("data")).uid(NOBODY_ELSE).gid(NOBODY_ELSE);
            Server::run(command)
        };
        let server = start(100);
        let threads = numbers(&server, "task").len() as u64;
        end(server);
        let server = start(threads + 4);
        let served = crowd(&server, 60, "-ERR no thread for another client");
        make_room(&server, served);
        server.signal(Signal::TERM);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("no thread for a client"), "{log}");
    });
}
