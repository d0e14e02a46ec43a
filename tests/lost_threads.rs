//! A panic in the threads that write no files: the listener, the drainer, the expiry thread. (`injected.rs` has those that
//! do.) strace is attached to that thread alone, to which the kernel then claims nonsense: the length of an address, or of
//! what was sent, or what a wait has come to. The thread that waits for signals is left out: it asks nothing of the kernel
//! that Rust code looks at, and what the C library finds absurd is an abort.

#![allow(clippy::unwrap_used, reason = "a test may")]
#![cfg(target_os = "linux")]

mod common;
#[path = "common/needs.rs"]
mod needs;
#[path = "common/server.rs"]
mod server;
#[path = "common/wire.rs"]
mod wire;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use common::{in_time, until};
use needs::{has, skip};
use rustix::process::Signal;
use server::Server;
use wire::{Connection, Dialect, Reply, words};

/// What makes the thread do what it panics of; called until the server is gone.
type Provoke = fn(&Server);

const LOST: [(&str, &str, &str, Provoke); 3] = [
    // Longer than any address.
    ("listener", "accept4", "poke_exit=@arg3=ffffff00", connect),
    ("drainer", "sendto", "retval=100000000", flood),
    ("expiry", "futex", "retval=5", |_| std::thread::yield_now()),
];

fn connect(server: &Server) {
    let _ = TcpStream::connect(&server.addr);
}

/// Far more replies than fit into the sockets, and after a while they are read.
fn flood(server: &Server) {
    const VALUE: usize = 10_000;
    const REPLIES: usize = 5_000;
    let flood = || {
        let mut client = TcpStream::connect(&server.addr)?;
        client.write_all(format!("SET large {}\n", "x".repeat(VALUE)).as_bytes())?;
        // Replies to reads alone are sent by the thread that asks; those behind a write wait for the log.
        client.write_all("SET small x\nGET large\n".repeat(REPLIES).as_bytes())?;
        // Nothing tells from outside that the sockets are full. If they are not yet, there is another time.
        std::thread::sleep(Duration::from_millis(100));
        client.shutdown(std::net::Shutdown::Write)?;
        client.read_to_end(&mut Vec::new())
    };
    let _: std::io::Result<usize> = flood();
}

/// The thread of the server that has this name, or is about to give it to itself.
fn thread_of(server: &Server, name: &str) -> PathBuf {
    let mut found = None;
    until(|| {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid().as_raw_nonzero())).unwrap();
        let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
        found = tasks.map(|task| task.unwrap().path()).find(named);
        found.is_some()
    });
    found.unwrap()
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An strace that is attached, and goes when its thread does.
struct Tracer {
    strace: Process,
    /// It ends early if nobody hears it.
    _says: BufReader<ChildStderr>,
}

/// Attaches strace to a thread, which then is told `what` by each call of that kind; why it cannot, if so.
fn attach(server: &Server, name: &str, call: &str, what: &str) -> Result<Tracer, String> {
    let thread = thread_of(server, name);
    let mut command = Command::new("strace");
    command.args([&format!("--trace={call}"), &format!("--inject={call}:{what}"), "-o", "/dev/null", "-p"]);
    command.arg(thread.file_name().unwrap()).stderr(Stdio::piped());
    let mut strace = Process(command.spawn().unwrap());
    let mut says = BufReader::new(strace.0.stderr.take().unwrap());
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    if line.ends_with(" attached\n") { Ok(Tracer { strace, _says: says }) } else { Err(line) }
}

#[test]
fn a_panic_in_a_thread_that_waits_ends_the_server_with_a_clear_message_and_loses_nothing() {
    if !has(&["strace"]) {
        return;
    }
    for (name, call, what, provoke) in LOST {
        let lost = in_time(move || {
            let dir = tempfile::tempdir().unwrap();
            let server = Server::start(dir.path(), &[]);
            assert_eq!(server.converse("SET kept here\n"), "OK\n");
            let mut tracer = attach(&server, name, call, what)?;
            until(|| {
                provoke(&server);
                tracer.strace.0.try_wait().unwrap().is_some()
            });
            let (status, log) = server.wait_after_panic();
            assert_eq!(status.code(), Some(101), "{name}: {log}");
            let line = log.lines().find(|line| line.contains("internal error")).unwrap_or_else(|| panic!("{log}"));
            println!("{line}");
            let expected = format!("chronos-server: internal error in thread {name}: panicked at ");
            assert!(line.starts_with(&expected), "{name}: {line}");
            let server = Server::start(dir.path(), &[]);
            let mut client = Connection::open(&server.addr, Dialect::Resp).unwrap();
            assert_eq!(client.ask(&[words("GET kept")]), [Reply::One(b"here".to_vec())]);
            server.signal(Signal::TERM);
            assert_eq!(server.wait_in_peace().0.code(), Some(0));
            Ok::<(), String>(())
        });
        if let Err(why) = lost {
            return skip(&format!("strace cannot attach here: {why}"));
        }
    }
}
