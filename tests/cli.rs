//! `chronos-cli` as a process, against a server that is a thread of the test and says exactly what the test wrote.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

/// What the fake server does next.
enum Do {
    /// Reads exactly these bytes.
    Expect(Vec<u8>),
    Say(Vec<u8>),
    /// Reads all until the client closes, saying this for each line end it sees.
    SayPerLine(&'static str),
}

fn expect(bytes: impl AsRef<[u8]>) -> Do {
    Do::Expect(bytes.as_ref().to_vec())
}

fn say(bytes: impl AsRef<[u8]>) -> Do {
    Do::Say(bytes.as_ref().to_vec())
}

const HELLO_LINE: &str = "HELLO 3\r\n";
const HELLO_ARRAY: &str = "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
const WELCOME: &str = "%2\r\n$6\r\nserver\r\n$7\r\nchronos\r\n$5\r\nproto\r\n:3\r\n";

/// A server for one connection; joining it gives the bytes that were left unread, or panics with what was wrong.
fn server(script: Vec<Do>) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let run = move || {
        let (mut stream, _) = listener.accept().unwrap();
        for step in script {
            match step {
                Do::Expect(bytes) => {
                    let mut got = vec![0; bytes.len()];
                    stream.read_exact(&mut got).unwrap();
                    assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string());
                }
                Do::Say(bytes) => stream.write_all(&bytes).unwrap(),
                Do::SayPerLine(reply) => answer_lines(&mut stream, reply),
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    };
    (port, thread::spawn(run))
}

/// As a server with one thread does it: reads some, answers all of that, and reads no more before its answer is taken.
fn answer_lines(stream: &mut TcpStream, reply: &str) {
    let mut chunk = [0; 16 << 10];
    loop {
        let Ok(read @ 1..) = stream.read(&mut chunk) else { return };
        let lines = chunk[..read].iter().filter(|&&byte| byte == b'\n').count();
        if stream.write_all(reply.repeat(lines).as_bytes()).is_err() {
            return;
        }
    }
}

fn cli(port: u16, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos-cli"));
    command.env_remove("CHRONOS_HOST").env_remove("CHRONOS_PORT");
    command.args(["-p", &port.to_string()]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the client with `stdin` to its end.
fn run(port: u16, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = cli(port, args).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // A client that ends early closes its stdin; that is for the test to see in its output.
    let feed = thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// One command against one reply.
fn once(args: &[&str], stdin: &[u8], request: &[u8], reply: &[u8]) -> Output {
    let (port, server) = server(vec![expect(HELLO_ARRAY), say(WELCOME), expect(request), say(reply)]);
    let output = run(port, args, stdin);
    assert_eq!(server.join().unwrap(), b"");
    output
}

/// Lines against replies.
fn lines(args: &[&str], stdin: &str, requests: &str, replies: &str) -> Output {
    let (port, server) = server(vec![expect(HELLO_LINE), say(WELCOME), expect(requests), say(replies)]);
    let output = run(port, args, stdin.as_bytes());
    assert_eq!(server.join().unwrap(), b"");
    output
}

#[test]
fn words_are_sent_byte_for_byte_and_the_reply_is_text() {
    let output = once(
        &["SET", "a b", "{\"x\": \"y\"}", ""],
        b"",
        b"*4\r\n$3\r\nSET\r\n$3\r\na b\r\n$10\r\n{\"x\": \"y\"}\r\n$0\r\n\r\n",
        b"+OK\r\n",
    );
    assert_eq!((stdout(&output).as_str(), code(&output)), ("OK\n", 0));
}

#[test]
fn replies_are_written_as_in_the_text_dialect() {
    for (args, reply, text) in [
        (&["GET", "k"][..], "$5\r\nhello\r\n", "hello\n"),
        (&["GET", "k"], "_\r\n", "(nil)\n"),
        (&["GET", "k"], "$-1\r\n", "(nil)\n"),
        (&["GET", "k"], "$0\r\n\r\n", "\"\"\n"),
        (&["GET", "k"], "$5\r\n(nil)\r\n", "\"(nil)\"\n"),
        (&["GET", "k"], "$3\r\na\nb\r\n", "\"a\\nb\"\n"),
        (&["INCR", "k"], ":42\r\n", "42\n"),
        (&["del", "k"], ":1\r\n", "OK_DELETED\n"),
        (&["DEL", "k"], ":0\r\n", "(nil)\n"),
        (&["DELETE", "k", "l"], ":2\r\n", "OK_DELETED 2\n"),
        (&["EXISTS", "k"], ":1\r\n", "1\n"),
        (&["MGET", "a", "b"], "*2\r\n$1\r\nx\r\n_\r\n", "x\n(nil)\n(2 entries)\n"),
        (
            &["RANGE", "a", "b"],
            "*4\r\n$3\r\na b\r\n$3\r\nc d\r\n$1\r\ne\r\n$1\r\nf\r\n",
            "\"a b\" c d\ne f\n(2 entries)\n",
        ),
        (&["RANGE", "a", "b", "KEYS"], "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "a\nb\n(2 entries)\n"),
        (&["CONFIG", "GET", "save"], "%1\r\n$4\r\nsave\r\n$0\r\n\r\n", "save \"\"\n(1 entries)\n"),
        (&["INFO"], "=16\r\ntxt:# S\r\na:1\r\n\r\n\r\n", "# S\na:1\n\n(end)\n"),
    ] {
        let mut request = format!("*{}\r\n", args.len());
        args.iter().for_each(|arg| request += &format!("${}\r\n{arg}\r\n", arg.len()));
        let output = once(args, b"", request.as_bytes(), reply.as_bytes());
        assert_eq!((stdout(&output).as_str(), stderr(&output).as_str(), code(&output)), (text, "", 0), "{args:?}");
    }
}

#[test]
fn an_error_reply_is_printed_and_exits_with_one() {
    let output = once(&["FOO"], b"", b"*1\r\n$3\r\nFOO\r\n", b"-ERR unknown command 'FOO'\r\n");
    assert_eq!((stdout(&output).as_str(), code(&output)), ("(error) ERR unknown command 'FOO'\n", 1));
    let output = once(&["--raw", "FOO"], b"", b"*1\r\n$3\r\nFOO\r\n", b"-ERR no\r\n");
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str(), code(&output)), ("", "ERR no\n", 1));
}

#[test]
fn bytes_go_in_by_x_and_come_out_by_raw() {
    let bytes: Vec<u8> = (0..=255).chain([b'\n']).collect();
    let mut request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$257\r\n".to_vec();
    request.extend_from_slice(&bytes);
    request.extend_from_slice(b"\r\n");
    assert_eq!(code(&once(&["-x", "SET", "k"], &bytes, &request, b"+OK\r\n")), 0);

    let reply = [b"$257\r\n", bytes.as_slice(), b"\r\n"].concat();
    let output = once(&["--raw", "GET", "k"], b"", b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", &reply);
    assert_eq!(output.stdout, bytes);
}

#[test]
fn a_server_without_hello_is_spoken_to_in_resp2() {
    let (port, server) = server(vec![
        expect(HELLO_ARRAY),
        say("-ERR unknown command `HELLO`\r\n"),
        expect("*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"),
        say("+OK\r\n"),
        expect("*1\r\n$4\r\nPING\r\n"),
        say("+PONG\r\n"),
    ]);
    let output = run(port, &["-n", "3", "PING"], b"");
    server.join().unwrap();
    assert_eq!((stdout(&output).as_str(), code(&output)), ("PONG\n", 0));
}

#[test]
fn a_refusal_is_shown_in_either_dialect() {
    for refusal in ["-ERR max number of clients reached\r\n", "(error) ERR max number of clients reached\n"] {
        let (port, server) = server(vec![expect(HELLO_LINE), say(refusal)]);
        let output = run(port, &[], b"PING\n");
        server.join().unwrap();
        let text = format!("chronos-cli: 127.0.0.1:{port} refused: ERR max number of clients reached\n");
        assert_eq!((stderr(&output), code(&output)), (text, 1));
    }
}

#[test]
fn lines_are_sent_as_they_are_and_answered_one_by_one() {
    let output = lines(
        &[],
        "SET user:101 {\"name\": \"Venom\"}\r\n\n  \nGET user:101\nRANGE a b\nGET none",
        " SET user:101 {\"name\": \"Venom\"}\r\n GET user:101\r\n RANGE a b\r\n GET none\r\n",
        "+OK\r\n$17\r\n{\"name\": \"Venom\"}\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n_\r\n",
    );
    assert_eq!(stdout(&output), "OK\n{\"name\": \"Venom\"}\na b\n(1 entries)\n(nil)\n");
    assert_eq!((stderr(&output).as_str(), code(&output)), ("", 0));
}

#[test]
fn failed_lines_are_named_by_number() {
    let output = lines(
        &[],
        "PING\n\nFOO\nMULTI\nINCR a\nEXEC\n*1\n",
        " PING\r\n FOO\r\n MULTI\r\n INCR a\r\n EXEC\r\n *1\r\n",
        "+PONG\r\n-ERR no FOO\r\n+OK\r\n+QUEUED\r\n*1\r\n-ERR not an integer\r\n-ERR no *1\r\n",
    );
    assert_eq!(
        stdout(&output),
        "PONG\n(error) ERR no FOO\nOK\nQUEUED\n(error) ERR not an integer\n(1 entries)\n(error) ERR no *1\n"
    );
    assert_eq!((stderr(&output).as_str(), code(&output)), ("chronos-cli: 3 of 6 failed: lines 3, 6, 7\n", 1));
}

#[test]
fn a_connection_that_ends_names_the_first_line_without_an_answer() {
    let (port, server) =
        server(vec![expect(HELLO_LINE), say(WELCOME), expect(" PING\r\n PING\r\n PING\r\n"), say("+PONG\r\n")]);
    let output = run(port, &[], b"PING\n\nPING\nPING\n");
    server.join().unwrap();
    assert_eq!(stdout(&output), "PONG\n");
    let text = format!("chronos-cli: line 3 was not answered: 127.0.0.1:{port} closed the connection\n");
    assert_eq!((stderr(&output), code(&output)), (text, 1));
}

#[test]
fn neither_side_waits_for_the_other_in_a_circle() {
    // Both directions carry far more than the sockets' buffers hold.
    const LINES: usize = 400_000;
    let (port, server) =
        server(vec![expect(HELLO_LINE), say(WELCOME), Do::SayPerLine("$32\r\nabcdefghijklmnopqrstuvwxyz012345\r\n")]);
    let output = run(port, &[], "GET a_key_of_some_length_to_fill_the_buffers\n".repeat(LINES).as_bytes());
    server.join().unwrap();
    assert_eq!(output.stdout.len(), LINES * 33);
    assert_eq!(code(&output), 0);
}

#[test]
fn replies_are_shown_before_stdin_ends() {
    let (port, server) = server(vec![
        expect(HELLO_LINE),
        say(WELCOME),
        expect(" PING\r\n"),
        say("+PONG\r\n"),
        expect(" ECHO x\r\n"),
        say("$1\r\nx\r\n"),
    ]);
    let mut child = cli(port, &[]).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for (line, reply) in [("PING\n", b"PONG\n".as_slice()), ("ECHO x\n", b"x\n")] {
        input.write_all(line.as_bytes()).unwrap();
        let mut got = vec![0; reply.len()];
        output.read_exact(&mut got).unwrap();
        assert_eq!(got, reply);
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    server.join().unwrap();
}

#[test]
fn subscriptions_print_messages_until_they_end() {
    let output = lines(
        &[],
        "SUBSCRIBE a\nPING\nUNSUBSCRIBE\n",
        " SUBSCRIBE a\r\n PING\r\n UNSUBSCRIBE\r\n",
        ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n+PONG\r\n\
         >3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
    );
    let expected = "subscribe\na\n1\n(3 entries)\nmessage\na\nhi\n(3 entries)\nPONG\nunsubscribe\na\n0\n(3 entries)\n";
    assert_eq!((stdout(&output).as_str(), code(&output)), (expected, 0));
}

#[test]
fn a_bulk_load_counts_replies_and_shows_errors() {
    let load = "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$2\r\n\n\n\r\n*1\r\n$3\r\nFOO\r\n";
    let (port, server) =
        server(vec![expect(HELLO_ARRAY), say(WELCOME), expect(load), say("+PONG\r\n*1\r\n:1\r\n-ERR no FOO\r\n")]);
    let output = run(port, &["--pipe"], load.as_bytes());
    server.join().unwrap();
    let summary = format!("errors: 1, replies: 3, bytes: {}, ", load.len());
    assert!(stdout(&output).starts_with(&summary), "{}", stdout(&output));
    assert_eq!((stderr(&output).as_str(), code(&output)), ("request 3: ERR no FOO\n", 1));
}

#[test]
fn a_bulk_load_takes_lines_and_ends_the_last_one() {
    let (port, server) =
        server(vec![expect(HELLO_LINE), say(WELCOME), expect("SET a 1\n\nSET b 2\n"), say("+OK\r\n+OK\r\n")]);
    let output = run(port, &["--pipe"], b"SET a 1\n\nSET b 2");
    server.join().unwrap();
    assert!(stdout(&output).starts_with("errors: 0, replies: 2, "), "{}", stdout(&output));
    assert_eq!(code(&output), 0);
}

#[test]
fn a_bulk_load_that_is_cut_short_says_where() {
    let load = "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$2\r\n";
    let (port, server) = server(vec![expect(HELLO_ARRAY), say(WELCOME), expect(load), say("+PONG\r\n")]);
    let output = run(port, &["--pipe"], load.as_bytes());
    server.join().unwrap();
    assert!(stdout(&output).starts_with("errors: 0, replies: 1, "), "{}", stdout(&output));
    let text = "chronos-cli: stdin is damaged at byte 14: the request that begins here is cut short\n";
    assert_eq!((stderr(&output).as_str(), code(&output)), (text, 1));
}

#[test]
fn an_absent_server_is_named_with_the_next_step() {
    // Free a moment ago, and not given out again so soon.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = run(port, &["PING"], b"");
    let text =
        format!("chronos-cli: cannot connect to 127.0.0.1:{port}: Connection refused (is chronos-server running?)\n");
    assert_eq!((stderr(&output), code(&output)), (text, 1));
}

#[test]
fn a_closed_stdout_ends_the_run_quietly() {
    let (port, server) = server(vec![expect(HELLO_LINE), say(WELCOME), Do::SayPerLine("+PONG\r\n")]);
    let mut child = cli(port, &[]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    drop(child.stdout.take());
    while input.write_all(b"PING\n").is_ok() {}
    let output = child.wait_with_output().unwrap();
    assert_eq!((stderr(&output).as_str(), code(&output)), ("", 141));
    server.join().unwrap();
}

#[test]
fn wrong_arguments_exit_with_two() {
    let output = run(1, &["--bogus"], b"");
    assert_eq!((stdout(&output).as_str(), code(&output)), ("", 2));
    let output = run(1, &["--help"], b"");
    assert!(stdout(&output).contains("Exit codes:"));
    assert_eq!(code(&output), 0);
}
