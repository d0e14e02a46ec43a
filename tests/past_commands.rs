//! GETAT and its neighbours on the real server: an accident is undone by one command.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/server.rs"]
mod server;

use rustix::process::Signal;
use server::Server;

fn converse(server: &Server, input: &str) -> Vec<String> {
    server.converse(input).lines().map(str::to_owned).collect()
}

/// The server's time in milliseconds, once a millisecond has passed since.
fn now(server: &Server) -> u64 {
    let read = || {
        let lines = converse(server, "TIME\n");
        let [seconds, micros] = [0, 1].map(|n| lines[n].parse::<u64>().unwrap());
        seconds * 1000 + micros / 1000
    };
    let now = read();
    while read() == now {
        std::thread::yield_now();
    }
    now
}

#[test]
fn flushall_flushdb_and_del_are_undone() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--history", "1h", "--memory", "8MiB"];
    let mut server = Server::start(dir.path(), &flags);
    let mut setup: String = (0..500).map(|n| format!("SET user:{n:03} value {n}\n")).collect();
    setup += "SETEX session:1 1000 token\nSELECT 1\nSET other 1\n";
    converse(&server, &setup);
    let everything = "RANGE - +\nSELECT 1\nRANGE - +\nSELECT 0\nEXPIRETIME session:1\n";
    let before = converse(&server, everything);
    let then = now(&server);
    for (accident, restore, changed) in [
        ("FLUSHALL", format!("RESTOREAT {then} ALL"), 502),
        ("FLUSHDB", format!("RESTOREAT {then} RANGE - +"), 501),
        ("DEL user:007", format!("RESTOREAT {then} PREFIX user:"), 1),
        ("SET user:007 other", format!("RESTOREAT {then} RANGE user:007 user:008"), 1),
        ("SET user:new 1", format!("RESTOREAT {then} ALL"), 1),
    ] {
        assert_ne!(converse(&server, &format!("{accident}\n{everything}"))[1..], before, "{accident}");
        // What is restored is as durable as anything else, and so is the past that it comes from.
        server.signal(Signal::KILL);
        server.wait();
        server = Server::start(dir.path(), &flags);
        let restored = converse(&server, &format!("{restore}\n"));
        assert_eq!(restored, [changed.to_string()], "{accident}: {restore}");
        server.signal(Signal::KILL);
        server.wait();
        server = Server::start(dir.path(), &flags);
        assert_eq!(converse(&server, everything), before, "{accident}");
    }
    let history = converse(&server, "HISTORY user:007 LIMIT 2\nHISTORY user:007\n");
    assert!(history[0].ends_with(" \"value 7\"") && history[1].ends_with(" other"), "{history:?}");
    assert!(history.contains(&"(2 entries)".to_owned()) && history.contains(&"(9 entries)".to_owned()), "{history:?}");
    let past = converse(&server, &format!("GETAT user:007 {then}\nRANGEAT {then} user:1 user:2 REV LIMIT 1 VALUES\n"));
    assert_eq!(past, ["value 7", "value 199", "(1 entries)"]);
    let config = converse(&server, "CONFIG GET history\nINFO engine\n");
    assert_eq!(config[0], "history 1h");
    assert!(config.contains(&"history_window_ms:3600000".to_owned()), "{config:?}");
}

#[test]
fn without_history_the_flag_is_named_and_outside_it_the_oldest_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let lines = "GETAT a -10m\nRANGEAT 5 - +\nHISTORY a\nRESTOREAT yesterday ALL\n";
    for reply in converse(&server, lines) {
        assert!(reply.starts_with("(error) ERR no history is kept") && reply.contains("--history"), "{reply}");
    }
    server.signal(Signal::TERM);
    server.wait();
    let server = Server::start(dir.path(), &["--history", "10m"]);
    let replies = converse(&server, "GETAT a -1h\nGETAT a 2199-01-01T00:00:00Z\nGETAT a soon\n");
    for reply in &replies[..2] {
        assert!(reply.starts_with("(error) ERR that time is not in the history: the oldest that can be read is 20"));
    }
    assert!(replies[2].starts_with("(error) ERR a time is milliseconds since 1970, RFC 3339"), "{replies:?}");
}
