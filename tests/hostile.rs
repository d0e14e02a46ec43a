//! Hostile clients of the real server, a crowd at a time: who sends garbage, trickles, announces what never comes, asks for
//! floods that he does not read, speaks another protocol, asks with numbers at their limits and patterns that take their
//! time, or only sits there. Meanwhile an honest client is served, and when they have gone, so have their threads and
//! sockets; memory stays within its budget.
//!
//! `CHRONOS_HOSTILE_SECONDS=1800 CHRONOS_SEED=7 cargo test --release --test hostile` goes on for so long, or replays.

#![allow(clippy::unwrap_used, reason = "a test may")]
#![cfg(target_os = "linux")]

mod common;
#[path = "common/server.rs"]
mod server;
#[path = "common/wire.rs"]
mod wire;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use common::{number_from_env, until};
use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;
use server::Server;
use wire::{Connection, Dialect, Reply, words};

/// Servers in the test command.
const SERVERS: u64 = 1;

/// What each server has to bear.
const CROWDS: u64 = 4;
const CROWD: u64 = 24;

/// So short that a crowd has been got rid of soon.
const FLAGS: &[&str] = &[
    "--memory",
    "16MiB",
    "--max-line",
    "64KiB",
    "--max-clients",
    "80",
    "--request-timeout",
    "300ms",
    "--output-timeout",
    "300ms",
    "--output-limit",
    "256KiB",
    "--output-budget",
    "8MiB",
];

/// Both budgets, and what a process takes besides.
const MOST_MEMORY_KIB: u64 = (16 + 8 + 64) << 10;

/// Who waits for longer than this has seen enough.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Connections of one who only sits there: together with others, more than are allowed.
const SEATS: usize = 60;

const GREETINGS: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /cmd HTTP/1.1\r\nContent-Length: 11\r\n\r\nSET evil 1\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x00\x00\x00\x18ftypmp42\xff\xfe\x00\x00",
];

/// What never comes.
const ANNOUNCEMENTS: [&str; 8] = [
    "*1000000000\r\n$1000000000\r\n",
    "*2\r\n$3\r\nGET\r\n$536870912\r\nabc",
    "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$99999999999999999999\r\n",
    "*-5\r\n$-1\r\n",
    "*2147483648\r\n",
    "*1\r\n$-2147483649\r\n",
    "*1024\r\n$4\r\nMGET\r\n",
    "SET key \"never closed",
];

const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "4294967296",
    "1e308",
    "nan",
    "0x10",
];

/// Commands with a place for a number.
const WITH_NUMBERS: [&str; 13] = [
    "INCRBY hostile #",
    "DECRBY hostile #",
    "SET hostile \"1\" PX #",
    "SET hostile \"1\" EXAT #",
    "EXPIRE hostile #",
    "PEXPIREAT hostile #",
    "SCAN #",
    "SCAN 0 COUNT #",
    "RANGE - + LIMIT #",
    "GETRANGE hostile # #",
    "SETRANGE hostile # x",
    "SELECT #",
    "OBJECT # #",
];

/// Pieces of patterns, of which many together take their time.
const PATTERNS: [&str; 6] = ["*a", "?*", "[a-z]*", "*[^x]", "\\*", "**"];

/// How one of them behaves.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Garbage,
    Trickle,
    Announce,
    Flood,
    Foreign,
    Numbers,
    Patterns,
    Sit,
}

const MANNERS: [Manner; 8] = [
    Manner::Garbage,
    Manner::Trickle,
    Manner::Announce,
    Manner::Flood,
    Manner::Foreign,
    Manner::Numbers,
    Manner::Patterns,
    Manner::Sit,
];

/// An error is that the server has hung up, as it may.
fn annoy(addr: &str, manner: Manner, rng: &mut Rng) -> std::io::Result<()> {
    let open = || {
        let client = TcpStream::connect(addr)?;
        client.set_read_timeout(Some(LONGEST_LOOK))?;
        client.set_write_timeout(Some(LONGEST_LOOK))?;
        Ok::<_, std::io::Error>(client)
    };
    let mut client = open()?;
    match manner {
        Manner::Garbage => {
            let alphabet: &[u8] = rng.pick::<&[u8]>(&[b"*$0123456789-\r\n", b"\" \\\n\0GETab", &[]]);
            for _ in 0..1 + rng.below(20) {
                let byte = |rng: &mut Rng| if alphabet.is_empty() { rng.next_u64() as u8 } else { *rng.pick(alphabet) };
                let bytes: Vec<u8> = (0..rng.below(5_000)).map(|_| byte(rng)).collect();
                client.write_all(&bytes)?;
            }
        }
        Manner::Trickle => {
            for byte in "SET hostile a-word-that-does-not-end".bytes().cycle().take(1_000) {
                client.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(rng.below(40)));
            }
        }
        Manner::Announce => client.write_all(rng.pick(&ANNOUNCEMENTS).as_bytes())?,
        Manner::Flood => {
            client.write_all(format!("SET hostile {}\n", "x".repeat(50_000)).as_bytes())?;
            let asks = ["GET hostile\n", "SET also x\nGET hostile\n", "RANGE - +\n", "KEYS *\n", "INFO\n", "COMMAND\n"];
            let ask = *rng.pick(&asks);
            client.write_all(ask.repeat(2_000).as_bytes())?;
            thread::sleep(Duration::from_millis(rng.below(600)));
            if rng.chance(1, 2) {
                return Ok(());
            }
        }
        Manner::Foreign => client.write_all(rng.pick::<&[u8]>(&GREETINGS))?,
        Manner::Numbers | Manner::Patterns => {
            let mut script = String::new();
            for _ in 0..1 + rng.below(60) {
                match manner {
                    Manner::Numbers => {
                        let mut command = (*rng.pick(&WITH_NUMBERS)).to_owned();
                        while command.contains('#') {
                            let number: &str = rng.pick::<&str>(&NUMBERS);
                            command = command.replacen('#', number, 1);
                        }
                        script += &command;
                    }
                    _ => {
                        let pattern: String = (0..rng.below(200)).map(|_| *rng.pick(&PATTERNS)).collect();
                        script += &format!("SET {} x\n", "a".repeat(1 + rng.below(300) as usize));
                        script += &format!("KEYS \"{}b\"", pattern.replace('\\', "\\\\"));
                    }
                }
                script.push('\n');
            }
            client.write_all(script.as_bytes())?;
            client.write_all(b"ECHO all-were-answered\n")?;
            client.shutdown(Shutdown::Write)?;
            let mut replies = Vec::new();
            // Who is slow to read, or one too many, may be hung up on. Otherwise this is the last reply.
            if client.read_to_end(&mut replies).is_ok() && !replies.starts_with(b"-ERR max number of clients") {
                let end = replies.escape_ascii().to_string();
                assert!(
                    replies.ends_with(b"all-were-answered\n"),
                    "{script}: {}",
                    &end[end.len().saturating_sub(300)..]
                );
            }
        }
        Manner::Sit => {
            let seats: Vec<_> = (0..SEATS).map_while(|_| open().ok()).collect();
            thread::sleep(Duration::from_millis(rng.below(400)));
            drop(seats);
        }
    }
    match rng.below(4) {
        0 => {}
        // A reset.
        1 => set_socket_linger(&client, Some(Duration::ZERO))?,
        2 => drop(client.read(&mut [0; 100])?),
        _ => {
            client.shutdown(Shutdown::Write)?;
            client.read_to_end(&mut Vec::new())?;
        }
    }
    Ok(())
}

/// Asks and is answered as if nobody else were there; how often.
fn behave(addr: &str, crowds_have_gone: &AtomicBool) -> u64 {
    let mut client = Connection::open(addr, Dialect::Resp).unwrap();
    let mut asked = 0;
    while !crowds_have_gone.load(Ordering::SeqCst) {
        let (key, value) = (format!("honest:{}", asked % 100), asked.to_string());
        let replies = client.ask(&[words(&format!("SET {key} {value}")), words(&format!("GET {key}"))]);
        assert_eq!(replies, [Reply::One(b"OK".to_vec()), Reply::One(value.into_bytes())]);
        asked += 1;
    }
    asked
}

/// Threads for clients and open sockets.
fn visitors(process: &Path) -> (usize, usize) {
    let entries = |of: &str| fs::read_dir(process.join(of)).unwrap().flatten().map(|entry| entry.path());
    let serves = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("client-"));
    let is_socket = |fd: &PathBuf| fs::read_link(fd).is_ok_and(|what| what.to_string_lossy().starts_with("socket:"));
    (entries("task").filter(serves).count(), entries("fd").filter(is_socket).count())
}

/// The most that the process has ever had in memory.
fn peak_kib(process: &Path) -> u64 {
    let status = fs::read_to_string(process.join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// One server and its crowds.
fn bear(seed: u64) {
    let mut rng = Rng::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), FLAGS);
    let process = PathBuf::from(format!("/proc/{}", server.pid().as_raw_nonzero()));
    let at_peace = visitors(&process);
    let (addr, have_gone) = (server.addr.clone(), AtomicBool::new(false));
    let asked = thread::scope(|scope| {
        let honest = scope.spawn(|| behave(&addr, &have_gone));
        let with_honest = (at_peace.0 + 1, at_peace.1 + 1);
        until(|| visitors(&process) == with_honest);
        let borne = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..CROWDS {
                thread::scope(|crowd| {
                    for _ in 0..CROWD {
                        let (manner, mut rng) = (*rng.pick(&MANNERS), Rng::new(rng.next_u64()));
                        let addr = &addr;
                        crowd.spawn(move || annoy(addr, manner, &mut rng));
                    }
                });
                until(|| visitors(&process) == with_honest);
                let peak = peak_kib(&process);
                assert!(peak <= MOST_MEMORY_KIB, "{peak} KiB");
            }
        }));
        have_gone.store(true, Ordering::SeqCst);
        borne.unwrap_or_else(|panic| resume_unwind(panic));
        honest.join().unwrap()
    });
    println!("seed {seed}: {asked} honest requests answered, at most {} KiB", peak_kib(&process));
    until(|| visitors(&process) == at_peace);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_in_peace().0.code(), Some(0));
}

#[test]
fn crowds_of_hostile_clients_harm_nobody_and_leave_nothing() {
    let first_seed = number_from_env("CHRONOS_SEED", u64::from(std::process::id()) << 20);
    let seconds = number_from_env("CHRONOS_HOSTILE_SECONDS", 0);
    let servers = if std::env::var_os("CHRONOS_SEED").is_some() { 1 } else { SERVERS };
    let began = Instant::now();
    let mut seed = first_seed;
    while seed < first_seed + servers || began.elapsed().as_secs() < seconds {
        if let Err(panic) = catch_unwind(|| bear(seed)) {
            eprintln!("replay: CHRONOS_SEED={seed} cargo test --test hostile");
            resume_unwind(panic);
        }
        seed += 1;
    }
    println!("{} servers, {} hostile clients each", seed - first_seed, CROWDS * CROWD);
}
