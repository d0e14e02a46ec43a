//! CHECKPOINT on the real server: a copy under its name, and nothing anywhere else.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/server.rs"]
mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use server::Server;

fn converse(server: &Server, input: &str) -> String {
    let mut client = TcpStream::connect(&server.addr).unwrap();
    client.write_all(input.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    output
}

#[test]
fn a_checkpoint_is_made_under_its_name_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("copies");
    let server = Server::start(&dir.path().join("data"), &["--checkpoint-dir", place.to_str().unwrap()]);
    let lines = [
        "SET a 1",
        "CHECKPOINT monday",
        "SET a 2",
        "CHECKPOINT monday",
        "CHECKPOINT ../tuesday",
        "CHECKPOINT /tmp/x",
        "CHECKPOINT",
    ];
    let replies = converse(&server, &(lines.join("\n") + "\n"));
    let replies: Vec<&str> = replies.lines().collect();
    assert_eq!(replies[..3], ["OK", "OK", "OK"]);
    assert!(replies[3].starts_with("(error) ERR ") && replies[3].ends_with("monday exists already"), "{replies:?}");
    assert!(replies[4].starts_with("(error) ERR '../tuesday' cannot be a checkpoint's name: "), "{replies:?}");
    assert!(replies[5].starts_with("(error) ERR '/tmp/x' cannot be"), "{replies:?}");
    assert!(replies[6].starts_with("(error) ERR wrong number of arguments"), "{replies:?}");
    let made: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(made, ["monday"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the data and the copies");

    let copy = Server::start(&place.join("monday"), &[]);
    assert_eq!(converse(&copy, "GET a\n"), "1\n");
    let refused = converse(&copy, "CHECKPOINT x\n");
    assert_eq!(refused, "(error) ERR no place for checkpoints: start the server with --checkpoint-dir\n");
}
