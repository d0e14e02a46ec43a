//! Requests that are sent without waiting for replies.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/server.rs"]
mod server;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use chronos::codec::Rng;
use rustix::process::Signal;
use server::Server;

#[test]
fn reads_that_are_sent_together_are_answered_in_order_and_see_what_was_written_before_them() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    let mut rng = Rng::new(3);
    let mut model: HashMap<u64, String> = HashMap::new();
    let (mut script, mut expected) = (String::from("ECHO begin\r\n"), String::from("begin\n"));
    for step in 0..3_000 {
        let key = rng.below(30);
        let reads = rng.below(40);
        match rng.below(12) {
            0 => {
                // Longer than what is cached, from time to time.
                let value = "v".repeat(if rng.chance(1, 20) { 300_000 } else { 3 }) + &step.to_string();
                script += &format!("SET {key} {value}\r\n");
                expected += "OK\n";
                model.insert(key, value);
            }
            1 => {
                script += &format!("DEL {key}\r\n");
                expected += if model.remove(&key).is_some() { "OK_DELETED\n" } else { "(nil)\n" };
            }
            2 => script += "\r\n",
            3 if rng.chance(1, 30) => {
                script += "COMPACT\r\n";
                expected += "OK_COMPACTED\n";
            }
            4 => {
                script += "GET\r\n";
                expected += "(error) ERR wrong number of arguments for 'get' command\n";
            }
            5 => {
                let long = "k".repeat(70_000);
                script += &format!("GET {long}\r\n");
                expected += "(error) ERR key of 70000 bytes is too long, the limit is 65504 bytes\n";
            }
            _ => {
                for key in (0..reads).map(|_| rng.below(30)) {
                    script += &format!("GET {key}\r\n");
                    expected += model.get(&key).map_or("(nil)", String::as_str);
                    expected += "\n";
                }
            }
        }
    }
    let mut client = TcpStream::connect(&server.addr).unwrap();
    let mut reader = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let mut rest = script.as_bytes();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(1 + rng.below(20_000) as usize));
            client.write_all(piece).unwrap();
            rest = more;
        }
        client.shutdown(Shutdown::Write).unwrap();
    });
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    sender.join().unwrap();
    let output = String::from_utf8(output).unwrap();
    for (number, (line, wanted)) in output.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, wanted, "reply {number}");
    }
    assert_eq!(output.len(), expected.len());
    server.signal(Signal::TERM);
    assert!(server.wait_in_peace().0.success());
}
