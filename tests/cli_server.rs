//! `chronos-cli` against `chronos-server`: whoever pipes lines through the client reads what `nc` would have shown.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

/// A server on a port and in a directory of its own. It ends with the test.
struct Server {
    child: Child,
    addr: String,
    _dir: TempDir,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos-server"));
        command.args(["--port", "0", "--log-format", "text", "--dir"]).arg(dir.path()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let addr = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended before it was ready");
            if line.contains("ready") {
                break line.split(' ').find_map(|word| word.strip_prefix("addr=")).unwrap().to_string();
            }
        };
        // A log that no one reads would fill its pipe and stop the server.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Server { child, addr, _dir: dir }
    }

    /// What `nc -N` shows.
    fn nc(&self, input: &str) -> String {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.write_all(input.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut output = String::new();
        stream.read_to_string(&mut output).unwrap();
        output
    }

    fn cli(&self, args: &[&str], stdin: &[u8]) -> Output {
        let port = self.addr.rsplit(':').next().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos-cli"));
        command.env_remove("CHRONOS_HOST").env_remove("CHRONOS_PORT").args(["-p", port]).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Requests of every shape of reply; they begin and end with an empty database.
const SCRIPT: &str = r#"PING
set user:101 Venom
SET "a b" "line\none" EX 100
SET user:102 ""
SET user:103 {"name": "Venom", "role": "Symbiote"}
GET user:103
SET k it's "a" value, NX
GET k
GET user:101
GET "a b"
GET user:102
GET none

INCR n
INCRBYFLOAT f 0.1
MGET user:101 none "a b"
RANGE - +
RANGE user: user:~ LIMIT 1
RANGE - + KEYS
PREFIX user: VALUES
EXISTS n f
TYPE n
HELP SET
HELP
COMMAND INFO get
COMMAND GETKEYS MSET a 1 b 2
CONFIG GET databases
CONFIG GET none
SELECT 3
DBSIZE
RESET
DBSIZE
CONFIG GET databases
NOSUCH thing
GET
SET k "v" BOGUS
GET "unclosed
*3
ECHO "(nil)"
DEL n
DEL n
DELETE user:101 user:102 none
COMPACT
FLUSHALL
QUIT
"#;

#[test]
fn the_client_prints_what_the_text_dialect_says() {
    let server = Server::start();
    // `*3` opens an array for nc; the client's lines are text whatever they begin with.
    let expected = server.nc(&SCRIPT.replace("\n*3\n", "\n *3\n"));
    let output = server.cli(&[], SCRIPT.as_bytes());
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = SCRIPT.lines().collect();
    let failed = text(&output.stderr).rsplit("lines ").next().unwrap().trim().split(", ");
    let failed: Vec<&str> = failed.map(|number| lines[number.parse::<usize>().unwrap() - 1]).collect();
    assert_eq!(failed, ["NOSUCH thing", "GET", "SET k \"v\" BOGUS", "GET \"unclosed", "*3"]);
}

#[test]
fn one_command_means_what_its_line_means() {
    let server = Server::start();
    for (words, line) in [
        (&["SET", "a b", "x \"y\""][..], "SET \"a b\" \"x \\\"y\\\"\"\n"),
        (&["GET", "a b"], "GET \"a b\"\n"),
        (&["RANGE", "-", "+"], "RANGE - +\n"),
        (&["CONFIG", "GET", "databases"], "CONFIG GET databases\n"),
        (&["HELP", "SET"], "HELP SET\n"),
        (&["DEL", "none"], "DEL none\n"),
        (&["NOSUCH"], "NOSUCH\n"),
        (&["RESET"], "RESET\n"),
    ] {
        let output = server.cli(words, b"");
        let expected = server.nc(line);
        assert_eq!(text(&output.stdout), expected, "{words:?}");
        assert_eq!(output.status.success(), !expected.starts_with("(error)"), "{words:?}");
    }
}

#[test]
fn a_value_of_any_bytes_survives_the_way_in_and_out() {
    let server = Server::start();
    let value: Vec<u8> = (0..2_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(text(&server.cli(&["-x", "SET", "k"], &value).stdout), "OK\n");
    assert!(server.cli(&["--raw", "GET", "k"], b"").stdout == value);
}

#[test]
fn bulk_loads_of_lines_and_of_arrays_arrive_whole() {
    const KEYS: usize = 20_000;
    let server = Server::start();
    let lines: String = (0..KEYS).map(|n| format!("SET line:{n:05} {n}\n")).collect();
    let arrays: String = (0..KEYS).map(|n| format!("*3\r\n$3\r\nSET\r\n$11\r\narray:{n:05}\r\n$1\r\nx\r\n")).collect();
    for load in [lines, arrays] {
        let output = server.cli(&["--pipe"], load.as_bytes());
        let summary = format!("errors: 0, replies: {KEYS}, bytes: {}, ", load.len());
        assert!(text(&output.stdout).starts_with(&summary), "{output:?}");
        assert!(output.status.success());
    }
    assert_eq!(text(&server.cli(&["DBSIZE"], b"").stdout), format!("{}\n", 2 * KEYS));
}
