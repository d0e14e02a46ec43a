//! System calls of the real server that fail or lie: strace makes them, at the n-th call that each thread makes of a kind,
//! once or from then on. What the engine does about each is `faults.rs`'s; this is the door to the real disk
//! (`src/fs/os.rs`), the server around it, and what its clients are told.
//!
//! `CHRONOS_INJECTIONS=2000 CHRONOS_SEED=7 cargo test --release --test injected` goes further or replays the choices (not
//! which client's thread meets the fault: that is the machine's).

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/journal.rs"]
mod journal;
#[path = "common/needs.rs"]
mod needs;
#[path = "common/server.rs"]
mod server;
#[path = "common/wire.rs"]
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chronos::codec::Rng;
use common::number_from_env;
use journal::{Journal, Reads, Refused, Tally, audit, probe, wait_for_writes, work};
use needs::{has, skip};
use rustix::process::{Resource, Rlimit, Signal};
use server::{Server, command};
use wire::{Connection, Dialect, Reply, encode, words};

/// Injections in the test command.
const INJECTIONS: u64 = 30;

const CLIENTS: usize = 3;

/// Acknowledgements in one life, enough for a flush or two of the smallest memtable.
const LIFE: u64 = 800;

const FLAGS: &[&str] = &["--memory", "8MiB"];

/// How soon writes must be accepted again: the longest pause between two attempts, and some for a loaded machine. (A
/// thread that meets its own fault later may refuse them once more.)
const RESUME: Duration = Duration::from_secs(20);

/// A kind of call, and what it may fail with.
struct Call {
    name: &'static str,
    errors: &'static [&'static str],
    /// Reads may fail while it does.
    reads: Reads,
}

const CALLS: [Call; 8] = [
    Call { name: "pwrite64", errors: &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS"], reads: Reads::GoOn },
    Call { name: "fdatasync", errors: &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS"], reads: Reads::GoOn },
    Call { name: "openat", errors: &["EIO", "ENOSPC", "EINTR", "EROFS", "EMFILE", "ENFILE"], reads: Reads::MayFail },
    Call { name: "fsync", errors: &["EIO", "ENOSPC", "EDQUOT", "EINTR"], reads: Reads::GoOn },
    Call { name: "renameat,renameat2", errors: &["EIO", "ENOSPC", "EDQUOT", "EROFS"], reads: Reads::GoOn },
    Call { name: "unlinkat", errors: &["EIO", "EROFS"], reads: Reads::GoOn },
    Call { name: "pread64", errors: &["EIO", "EINTR"], reads: Reads::MayFail },
    Call { name: "ftruncate,flock,getdents64", errors: &["EIO", "EINTR", "ENOSPC"], reads: Reads::GoOn },
];

const KINDS: [&str; 4] = ["wal", "manifest", "sst", "blob"];

/// Files beyond this number are left alone: strace wants their names beforehand.
const NUMBERS: u64 = 300;

/// The server on `dir` under strace, which does `what` (see `--inject` in its manual) to calls that concern the directory
/// or files in it of these kinds or names, and writes down where it did.
fn traced(dir: &Path, files: &[&str], kinds: &[&str], calls: &str, what: &str, when: &str) -> Command {
    let mut arguments = vec![format!("--trace={calls}"), format!("--inject={calls}:{what}:when={when}")];
    let names = kinds.iter().flat_map(|kind| (0..NUMBERS).map(move |number| format!("/{number:06}.{kind}")));
    for name in files.iter().map(|name| (*name).to_owned()).chain(names) {
        arguments.push(format!("--trace-path={}{name}", dir.display()));
    }
    strace(dir, &arguments)
}

/// The server on `dir` under strace with these arguments. As a grandchild, so that the server is our child; only calls
/// that are traced stop at all.
fn strace(dir: &Path, arguments: &[String]) -> Command {
    let plain = command(dir, FLAGS);
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-q", "--seccomp-bpf", "-o"]).arg(dir.with_extension("trace")).args(arguments);
    command.arg(plain.get_program()).args(plain.get_args());
    command
}

/// Whether calls can be traced here at all.
fn can_inject() -> bool {
    if !has(&["strace"]) {
        return false;
    }
    let tried = Command::new("strace")
        .args(["-D", "-f", "-q", "--seccomp-bpf", "--trace=close", "-o", "/dev/null", "true"])
        .output();
    match tried {
        Ok(output) if output.status.success() && output.stderr.is_empty() => true,
        other => {
            skip(&format!("strace cannot trace here: {other:?}"));
            false
        }
    }
}

/// How often the trace says that something was injected.
fn injected(dir: &Path) -> usize {
    let trace = std::fs::read(dir.with_extension("trace")).unwrap_or_default();
    String::from_utf8_lossy(&trace).matches("(INJECTED)").count()
}

fn kill(server: Server) -> String {
    server.signal(Signal::KILL);
    server.wait().1
}

/// What is reported at the end.
#[derive(Debug, Default)]
struct Totals {
    runs: u64,
    injected: usize,
    acknowledged: u64,
    refused: u64,
    refused_to_start: u64,
    resumed: u64,
    /// Refused or unanswered, and there after the restart.
    extra: usize,
}

fn inject(seed: u64, totals: &mut Totals) {
    let mut rng = Rng::new(seed);
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().canonicalize().unwrap().join("data");
    let mut journals = Journal::of_clients(CLIENTS, rng.next_u64());
    // Mostly there is something to recover.
    if rng.chance(3, 4) {
        let server = Server::start(&dir, FLAGS);
        let enough = 1 + rng.below(LIFE);
        work(&server.addr, &mut journals, Reads::GoOn, |tally| tally.wait_for_more(enough));
        kill(server);
    } else {
        std::fs::create_dir(&dir).unwrap();
    }

    let call = rng.pick(&CALLS);
    let error = *rng.pick(call.errors);
    let nth = *rng.pick(&[1, 1, 2, 3, 4, 6, 9, 20, 60]);
    let for_ever = rng.chance(1, 3) && error != "EINTR";
    let when = if for_ever { format!("{nth}+") } else { nth.to_string() };
    let kinds = if rng.chance(1, 2) { &KINDS[..] } else { std::slice::from_ref(rng.pick(&KINDS)) };
    let what = format!("{} {error} from {when} of {kinds:?}", call.name);
    let command =
        traced(&dir, &["", "/CURRENT", "/CURRENT.tmp", "/LOCK"], kinds, call.name, &format!("error={error}"), &when);
    match Server::try_run(command) {
        Ok(server) => {
            if call.reads == Reads::GoOn {
                audit(&server.addr, &mut journals, Refused::Gone);
            }
            let refused = |tally: &Tally| tally.counts().refused > 0;
            work(&server.addr, &mut journals, call.reads, |tally| {
                tally.wait(Duration::from_secs(3), |counts| {
                    counts.acknowledged > LIFE || counts.refused > 20 && (for_ever || counts.acknowledged_since > 200)
                });
                let counts = tally.counts();
                assert!(counts.acknowledged + counts.refused > 0, "{what}: nobody is answered");
                totals.acknowledged += counts.acknowledged;
                totals.refused += counts.refused;
                totals.resumed += u64::from(refused(tally) && counts.acknowledged_since > 0);
            });
            if !for_ever {
                wait_for_writes(&server.addr, RESUME);
            } else {
                // Nobody waits for ever.
                probe(&server.addr);
            }
            if call.reads == Reads::GoOn {
                audit(&server.addr, &mut journals, Refused::Gone);
            }
            if rng.chance(1, 2) {
                work(&server.addr, &mut journals, call.reads, |tally| {
                    let enough = rng.below(200);
                    tally.wait(Duration::from_millis(200), |counts| counts.acknowledged > enough);
                    server.signal(Signal::KILL);
                });
                server.wait();
            } else {
                server.signal(Signal::TERM);
                let (status, log) = server.wait();
                assert!(matches!(status.code(), Some(0 | 1)), "{what}: {status}: {log}");
            }
        }
        Err((status, log)) => {
            let last = log.lines().last().unwrap_or_default();
            assert_eq!(status.code(), Some(1), "{what}: {log}");
            assert!(last.starts_with("chronos-server: ") && last.contains("os error"), "{what}: {log}");
            println!("{what}: {last}");
            totals.refused_to_start += 1;
        }
    }
    totals.runs += 1;
    totals.injected += injected(&dir);
    let server = Server::start(&dir, FLAGS);
    totals.extra += audit(&server.addr, &mut journals, Refused::MayReturn);
    work(&server.addr, &mut journals, Reads::GoOn, |tally| tally.wait_for_more(50));
    server.signal(Signal::TERM);
    let (status, log) = server.wait_in_peace();
    assert_eq!(status.code(), Some(0), "{what}: {log}");
}

#[test]
fn whatever_call_fails_nothing_acknowledged_is_lost_and_writes_resume() {
    if !can_inject() {
        return;
    }
    let first_seed = number_from_env("CHRONOS_SEED", u64::from(std::process::id()) << 20);
    let runs = number_from_env("CHRONOS_INJECTIONS", INJECTIONS);
    let mut totals = Totals::default();
    for seed in first_seed..first_seed + runs {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| inject(seed, &mut totals))) {
            eprintln!("replay: CHRONOS_SEED={seed} CHRONOS_INJECTIONS=1 cargo test --test injected whatever_call");
            resume_unwind(panic);
        }
    }
    println!("{totals:?}");
    assert!(runs < INJECTIONS || totals.injected > 0 && totals.refused > 0 && totals.resumed > 0, "{totals:?}");
}

/// The server as a shell starts it under `ulimit -f`, with the signal that comes with that limit ignored.
fn limited(dir: &Path) -> Command {
    let plain = command(dir, FLAGS);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    command
}

/// A limit on the length of files cuts a write short at any byte, and the rest of it fails.
#[test]
fn short_writes_refuse_what_they_cut_and_writes_resume() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(number_from_env("CHRONOS_SEED", std::process::id().into()));
    let mut journals = Journal::of_clients(CLIENTS, rng.next_u64());
    let server = Server::run(limited(dir.path()));
    let set = |limit: Option<u64>| {
        let limits = Rlimit { current: limit, maximum: None };
        rustix::process::prlimit(Some(server.pid()), Resource::Fsize, limits).unwrap();
    };
    for _ in 0..6 {
        let mut refusals = 0;
        work(&server.addr, &mut journals, Reads::GoOn, |tally| {
            tally.wait_for_more(1 + rng.below(300));
            // Somewhere in what the log is about to write, or in the next table.
            set(Some(rng.below(200_000)));
            assert!(
                tally.wait(wire::PATIENCE, |counts| counts.refused > 3),
                "no write is cut short: {:?}",
                tally.counts()
            );
            refusals = tally.counts().refused;
            set(None);
            wait_for_writes(&server.addr, RESUME);
            tally.wait_for_more(50);
        });
        audit(&server.addr, &mut journals, Refused::Gone);
        println!("refused {refusals} times");
    }
    assert!(journals.iter().any(|journal| journal.refusals.iter().any(|why| why.contains("File too large"))));
    kill(server);
    let server = Server::start(dir.path(), FLAGS);
    audit(&server.addr, &mut journals, Refused::MayReturn);
    kill(server);
}

/// What there is to do while a write is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    /// What the database finds to do by itself.
    None,
    /// Clients that keep journals.
    Journals,
    /// A client that has everything compacted, and does that itself.
    Compact,
    /// A client that does not care what is lost: without a sync before each reply, the log's thread alone writes the log.
    Unsynced,
}

/// For this many somebody has written more than a few groups.
const MOST_PROBES: usize = 10_000;

/// A panic: in which thread (how its name begins); the n-th write of a thread to files of a kind, which brings it about; and
/// how many tables there are that nobody has merged.
const PANICS: [(&[&str], &str, u64, Load, usize); 10] = [
    (&["main"], "manifest", 1, Load::None, 0),
    (&["main"], "wal", 2, Load::None, 0),
    // The first segment takes five writes, the others seventeen: header and zeros.
    (&["chronos-segments"], "wal", 10, Load::None, 0),
    // Whoever comes first writes for all.
    (&["client", "chronos-log"], "wal", 40, Load::Journals, 0),
    (&["chronos-log"], "wal", 3, Load::Unsynced, 0),
    (&["chronos-flush"], "sst", 1, Load::Journals, 0),
    (&["chronos-flush"], "blob", 1, Load::Journals, 0),
    (&["chronos-flush"], "blob", 3, Load::Journals, 0),
    (&["chronos-compact"], "sst", 1, Load::None, DUE),
    (&["client"], "sst", 1, Load::Compact, DUE - 1),
];

/// A compaction is due.
const DUE: usize = 4;

/// Lives that leave a table each, which none of them merges.
fn leave_tables(dir: &Path, journals: &mut [Journal], tables: usize) {
    for _ in 0..tables {
        let server = Server::start(dir, &[FLAGS, &["--compaction", "fifo", "--fifo-max-size", "1GiB"]].concat());
        work(&server.addr, journals, Reads::GoOn, |tally| tally.wait_for_more(20));
        server.signal(Signal::TERM);
        server.wait_in_peace();
    }
}

/// A kernel that says it has written more than it was given breaks what the program takes for granted. That is how a
/// panic is brought about in a server that has no bug to offer: in the thread that opens the database, in a client's, and
/// in each of those that write in the background.
#[test]
fn a_panic_in_any_thread_ends_the_server_with_a_clear_message_and_loses_nothing() {
    if !can_inject() {
        return;
    }
    for (threads, kind, nth, load, tables) in PANICS {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().canonicalize().unwrap().join("data");
        let mut journals = Journal::of_clients(CLIENTS, nth);
        leave_tables(&dir, &mut journals, tables);
        if tables == 0 {
            let server = Server::start(&dir, FLAGS);
            work(&server.addr, &mut journals, Reads::GoOn, |tally| tally.wait_for_more(LIFE));
            kill(server);
        }
        let mut command = traced(&dir, &[], &[kind], "pwrite64", "retval=100000000", &nth.to_string());
        if load == Load::Unsynced {
            command.args(["--durability", "1s"]);
        }
        let (status, log) = match Server::try_run(command) {
            Err(ended) => ended,
            Ok(server) => {
                match load {
                    Load::None => ask_until_gone(&server.addr, "PING", 0),
                    // They go when the server does.
                    Load::Journals => work(&server.addr, &mut journals, Reads::MayFail, |tally| {
                        assert!(tally.wait(wire::PATIENCE, |counts| counts.gone == CLIENTS), "it lives on");
                    }),
                    Load::Compact => ask_until_gone(&server.addr, "COMPACT", 1),
                    Load::Unsynced => ask_until_gone(&server.addr, "SET probe here", MOST_PROBES),
                }
                server.wait_after_panic()
            }
        };
        let what = format!("write {nth} to a {kind}, {load:?}");
        assert_eq!(status.code(), Some(101), "{what}: {log}");
        let line = log.lines().find(|line| line.contains("internal error")).unwrap_or_else(|| panic!("{what}: {log}"));
        let (_, thread) = line.split_once("chronos-server: internal error in thread ").unwrap();
        println!("{what}: {thread}");
        assert!(threads.iter().any(|name| thread.starts_with(name)), "{what} is to be of {threads:?}: {line}");
        assert!(thread.contains(": panicked at "), "{what}: {line}");
        let server = Server::start(&dir, FLAGS);
        audit(&server.addr, &mut journals, Refused::MayReturn);
        kill(server);
    }
}

/// Asks up to so many times, and waits until nobody answers any more.
fn ask_until_gone(addr: &str, what: &str, times: usize) {
    let Ok(mut client) = Connection::open(addr, Dialect::Resp) else { return };
    let mut request = Vec::new();
    encode(&words(what), Dialect::Resp, &mut Rng::new(0), &mut request);
    for _ in 0..times {
        if client.send(&request).is_err() || client.receive().is_none() {
            return;
        }
    }
    assert!(client.receive().is_none(), "nothing was asked");
}

/// One of three attempts to accept a client fails. Whoever comes is served, sent away with a reason, or finds the connection
/// closed; and is served when he comes again.
#[test]
fn an_accept_that_fails_keeps_nobody_out_for_long() {
    if !can_inject() {
        return;
    }
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ECONNABORTED", "EINTR", "EPERM"] {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("data");
        let inject = format!("--inject=accept4:error={error}:when=1+3");
        let server = Server::run(strace(&dir, &["--trace=accept4".to_owned(), inject]));
        let mut served = 0;
        for _ in 0..20 {
            let mut client = Connection::open(&server.addr, Dialect::Resp).unwrap();
            let mut ping = Vec::new();
            encode(&words("PING"), Dialect::Resp, &mut Rng::new(0), &mut ping);
            let _ = client.send(&ping);
            match client.receive().map(Reply::one).as_deref() {
                Some(b"PONG") => served += 1,
                Some(other) => assert_eq!(other.escape_ascii().to_string(), "(error) ERR out of file descriptors"),
                None => {}
            }
        }
        assert!(served >= 5, "{error}: {served} of 20 were served");
        assert!(injected(&dir) >= 5, "{error}: {} were injected", injected(&dir));
        server.signal(Signal::TERM);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{error}: {log}");
    }
}
