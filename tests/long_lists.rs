//! Lists that are longer than the server holds: made while they are sent, exact all the same.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/server.rs"]
mod server;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use server::Server;

const KEYS: usize = 30_000;

fn key(number: usize) -> String {
    format!("key:{number:06}")
}

fn value(number: usize) -> String {
    format!("{number}{}", "v".repeat(number % 1000))
}

fn resp(words: &[&str]) -> String {
    let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{words}", words.matches('$').count())
}

fn array(words: impl Iterator<Item = String>) -> String {
    let (mut count, mut body) = (0, String::new());
    for word in words {
        count += 1;
        body += &format!("${}\r\n{word}\r\n", word.len());
    }
    format!("*{count}\r\n{body}")
}

fn filled() -> (tempfile::TempDir, Server) {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &["--memory", "16MiB"]);
    let script: String = (0..KEYS).map(|n| format!("SET {} {}\n", key(n), value(n))).collect();
    assert_eq!(server.converse(&script), "OK\n".repeat(KEYS));
    (home, server)
}

#[test]
fn a_long_list_is_exact_in_each_dialect_and_what_follows_it_too() {
    let (_home, server) = filled();
    let rows: String = (0..KEYS).map(|n| format!("{} {}\n", key(n), value(n))).collect();
    let expected = format!("PONG\n{rows}({KEYS} entries)\n{}\n", value(7));
    assert!(server.converse("PING\nRANGE - +\nGET key:000007\n") == expected, "text");

    let both = |n: usize| [key(n), value(n)];
    let cases: [(&[&str], String); 5] = [
        (&["RANGE", "-", "+"], array((0..KEYS).flat_map(both))),
        (&["RANGE", "-", "+", "REV"], array((0..KEYS).rev().flat_map(both))),
        (&["RANGE", "key:000100", "+", "LIMIT", "20000"], array((100..20_100).flat_map(both))),
        (&["PREFIX", "key:", "VALUES"], array((0..KEYS).map(value))),
        (&["KEYS", "*[02468]"], array((0..KEYS).step_by(2).map(key))),
    ];
    for (request, expected) in cases {
        let hello = resp(&["PING"]);
        let replies = server.converse(&format!("{hello}{}{}", resp(request), resp(&["STRLEN", "key:000000"])));
        assert!(replies == format!("+PONG\r\n{expected}:1\r\n"), "{request:?}");
    }
}

#[test]
fn a_long_list_shows_one_moment_whatever_is_written_while_it_is_sent() {
    let (_home, server) = filled();
    let mut client = TcpStream::connect(&server.addr).unwrap();
    client.write_all(b"RANGE - +\n").unwrap();
    let mut lines = BufReader::with_capacity(1 << 10, client).lines();
    let first = lines.next().unwrap().unwrap();
    // The first row has come, and no socket holds the 15 MB of the others: the rest is made later.
    assert_eq!(server.converse("RANGE.DEL - +\nCOMPACT\nSET key:0 new\nDBSIZE\n"), "OK\nOK_COMPACTED\nOK\n1\n");
    let mut expected = (1..KEYS).map(|n| format!("{} {}", key(n), value(n))).chain([format!("({KEYS} entries)")]);
    assert_eq!(first, format!("{} {}", key(0), value(0)));
    for line in lines.by_ref().take(KEYS) {
        assert_eq!(Some(line.unwrap()), expected.next());
    }
    assert_eq!(expected.next(), None);
}
