//! The wall clock jumps under the real server, forward and back, while keys expire and clients write: what has no time to
//! live is there, and nobody is refused. The clock is libfaketime's, which reads its offset from a file.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/journal.rs"]
mod journal;
#[path = "common/needs.rs"]
mod needs;
#[path = "common/server.rs"]
mod server;
#[path = "common/wire.rs"]
mod wire;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use journal::{Journal, Reads, Refused, audit, work};
use needs::skip;
use rustix::process::Signal;
use server::{Server, command};
use wire::{Connection, Dialect, words};

const CLIENTS: usize = 3;

/// With history versions are kept and dropped by the clock, too.
const FLAGS: &[&str] = &["--memory", "8MiB", "--history", "1h"];

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A clock that is off by what a file says.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// `None` where the library is not installed.
    fn new(dir: &Path) -> Option<Clock> {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        let library = PathBuf::from(library);
        if !library.exists() {
            skip(&format!("libfaketime is not installed ({})", library.display()));
            return None;
        }
        Some(Clock { library, file: dir.join("offset") })
    }

    fn set(&self, offset: i64) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{offset:+}\n")).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    fn start(&self, dir: &Path) -> Server {
        let mut command = command(dir, FLAGS);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        // A jump of the wall clock is none of the time that waiting is measured by.
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Server::run(command)
    }
}

fn ask(connection: &mut Connection, line: &str) -> String {
    connection.ask(&[words(line)]).remove(0).one().escape_ascii().to_string()
}

#[test]
fn the_clock_may_jump_both_ways_and_only_what_expires_goes() {
    let place = tempfile::tempdir().unwrap();
    let Some(clock) = Clock::new(place.path()) else { return };
    let dir = place.path().join("data");
    let mut journals = Journal::of_clients(CLIENTS, std::process::id().into());
    clock.set(0);
    let mut server = clock.start(&dir);
    let mut connection = Connection::open(&server.addr, Dialect::Resp).unwrap();
    for (key, hours) in [("probe:hour", 1), ("probe:fortnight", 14 * 24)] {
        assert_eq!(ask(&mut connection, &format!("SET {key} here EX {}", hours * HOUR)), "OK");
    }
    for (n, offset) in [2 * HOUR, 2 * DAY, -HOUR, 10 * DAY, -300 * DAY, 0, 5 * DAY].into_iter().enumerate() {
        work(&server.addr, &mut journals, Reads::GoOn, |tally| {
            tally.wait_for_more(300);
            clock.set(offset);
            tally.wait_for_more(700);
            assert_eq!(tally.counts().refused, 0);
        });
        let mut connection = Connection::open(&server.addr, Dialect::Resp).unwrap();
        let shown: i64 = {
            let time = connection.ask(&[words("TIME")]).remove(0).many();
            time[0].escape_ascii().to_string().parse().unwrap()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!((shown - now - offset).abs() < HOUR / 2, "the clock of the server does not jump: {shown}, not {now}");
        assert_eq!(ask(&mut connection, "GET probe:fortnight"), "here");
        // What has expired is gone; once the clock is back it may be there again, if nobody has cleaned up.
        let hour = ask(&mut connection, "GET probe:hour");
        assert!(hour == "(nil)" || hour == "here" && offset < HOUR, "{hour} after {offset} seconds");
        if n % 2 == 0 {
            assert_eq!(ask(&mut connection, "COMPACT"), "OK_COMPACTED");
        }
        audit(&server.addr, &mut journals, Refused::Gone);
        if n % 3 == 1 {
            server.signal(Signal::KILL);
            server.wait();
            server = clock.start(&dir);
            audit(&server.addr, &mut journals, Refused::Gone);
        }
    }
    server.signal(Signal::TERM);
    let (status, log) = server.wait_in_peace();
    assert_eq!(status.code(), Some(0), "{log}");
}
