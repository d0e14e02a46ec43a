//! CHECKPOINT on the real server: a copy under its name, and nothing anywhere else.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/server.rs"]
mod server;

use std::fs;

use server::Server;

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
    let replies = server.converse(&(lines.join("\n") + "\n"));
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
    assert_eq!(copy.converse("GET a\n"), "1\n");
    let refused = copy.converse("CHECKPOINT x\n");
    assert_eq!(refused, "(error) ERR no place for checkpoints: start the server with --checkpoint-dir\n");
}
