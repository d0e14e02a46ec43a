//! The server as its users meet it: the real binary, over TCP.
//!
//! Nothing here sleeps: a test waits for the line that says "ready", for a reply, or for an end.

#![allow(clippy::unwrap_used)] // A test may.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing on a loaded machine takes this long; a test that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running chronos-server on a port and a directory of its own.
struct Server {
    child: Child,
    stderr: Option<BufReader<ChildStderr>>,
    addr: String,
    dir: TempDir,
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos-server"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Server {
    fn start(flags: &[&str]) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut child = binary().args(["--port", "0", "--dir"]).arg(dir.path()).args(flags).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let addr = ready(&mut stderr);
        Server { child, stderr: Some(stderr), addr, dir }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(&self.addr).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Sends `input`, closes the sending side, and returns everything that is answered.
    fn converse(&self, input: &[u8]) -> Vec<u8> {
        let mut client = self.connect();
        client.write_all(input).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut output = Vec::new();
        client.read_to_end(&mut output).unwrap();
        output
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: how it ended, and what it still said.
    fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    fn stop(self) {
        self.signal(Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("bye"), "{log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log up to the line that says "ready": the address in it.
fn ready(stderr: &mut impl BufRead) -> String {
    let mut log = String::new();
    while stderr.read_line(&mut log).unwrap() > 0 {
        let line = log.lines().last().unwrap_or_default();
        if line.contains("ready") {
            let from = line.find("addr=").unwrap_or_else(|| panic!("no address in {line}")) + 5;
            return line[from..].split(' ').next().unwrap().to_owned();
        }
    }
    panic!("never ready: {log}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts the binary with arguments that it cannot work with: the exit code and the message.
fn refused(args: &[&str]) -> (i32, String) {
    let mut child = binary().args(args).spawn().unwrap();
    let mut message = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while stderr.read_line(&mut message).unwrap() > 0 {
        if message.contains("ready") {
            child.kill().unwrap();
        }
    }
    (child.wait().unwrap().code().unwrap_or_else(|| panic!("it started: {message}")), message)
}

/// What the server answers on a connection of its own to a script that is sent in the given pieces.
fn answers_to_pieces<'a>(server: &Server, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    for piece in pieces {
        client.write_all(piece).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut output = Vec::new();
    client.read_to_end(&mut output).unwrap();
    text(&output)
}

#[test]
fn a_person_with_netcat_is_served() {
    let server = Server::start(&[]);
    let output = server.converse(
        b"SET user:101 {\"name\": \"Venom\", \"role\": \"Symbiote\"}\nGET user:101\nGET nobody\nDEL user:101\n\
          DELETE user:101\nping\nCOMPACT\n",
    );
    let expected = "OK\n{\"name\": \"Venom\", \"role\": \"Symbiote\"}\n(nil)\nOK_DELETED\n(nil)\nPONG\nOK_COMPACTED\n";
    assert_eq!(text(&output), expected);
    server.stop();
}

#[test]
fn any_split_of_the_bytes_gives_one_reply_per_request() {
    let server = Server::start(&[]);
    let script: &[u8] =
        b"\r\n  \nSET k  v w \r\nGET k\nSET q \"a\\nb\" EX 100\nGET q\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nDEL k\n\
                          *1\r\n$4\r\nPING\r\nGET k\nPING";
    let whole = answers_to_pieces(&server, [script]);
    assert_eq!(whole, "OK\nv w \nOK\n\"a\\nb\"\nv w \nOK_DELETED\nPONG\n(nil)\n");
    for at in 0..=script.len() {
        let (front, back) = script.split_at(at);
        assert_eq!(answers_to_pieces(&server, [front, back]), whole, "split at {at}");
    }
    assert_eq!(answers_to_pieces(&server, script.chunks(1)), whole, "byte by byte");
    for size in 2..20 {
        assert_eq!(answers_to_pieces(&server, script.chunks(size)), whole, "in pieces of {size}");
    }
    server.stop();
}

#[test]
fn what_was_sent_before_the_client_closed_is_answered_but_not_a_line_that_was_cut() {
    let server = Server::start(&[]);
    assert_eq!(text(&server.converse(b"SET a 1\nSET a 12")), "OK\n");
    assert_eq!(text(&server.converse(b"GET a\n")), "1\n");
    assert_eq!(text(&server.converse(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\n")), "$1\r\n1\r\n");
    assert_eq!(text(&server.converse(b"")), "");
    server.stop();
}

#[test]
fn quit_answers_and_closes_and_what_follows_is_not_run() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.write_all(b"SET a 1\nQUIT\nSET a 2\n").unwrap();
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    assert_eq!(output, "OK\nOK\n");
    assert_eq!(text(&server.converse(b"GET a\n")), "1\n");
    server.stop();
}

#[test]
fn odd_input_is_answered_clearly_and_changes_nothing() {
    let server = Server::start(&["--max-line", "1KiB"]);
    let output = text(&server.converse(b"SET a \"unclosed\nSET a \"x\" y z\nGET a\n"));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines[0].starts_with("(error) ERR") && lines[1].starts_with("(error) ERR"), "{output}");
    assert_eq!(lines[2], "(nil)");

    let mut bytes = b"SET bin ".to_vec();
    bytes.extend((0..=255).filter(|byte| !b"\r\n".contains(byte)));
    bytes.extend(b"\nGET bin\n");
    let output = text(&server.converse(&bytes));
    assert!(output.starts_with("OK\n\"\\x00\\x01"), "{output}");

    for line in [2_000, 3 << 20] {
        let mut client = server.connect();
        let mut long = b"PING\nSET a ".to_vec();
        long.resize(line, b'x');
        long.extend(b"\nPING\n");
        client.write_all(&long).unwrap();
        let mut output = String::new();
        client.read_to_string(&mut output).unwrap();
        assert!(output.starts_with("PONG\n(error) ERR"), "{output}");
        assert_eq!(output.lines().count(), 2, "then it is closed: {output}");
    }
    assert_eq!(text(&server.converse(b"GET a\n")), "(nil)\n");
    server.stop();
}

#[test]
fn who_speaks_http_or_tls_is_hung_up_on() {
    let server = Server::start(&[]);
    for hello in
        [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a 1\n"[..], b"Host: x\r\n", b"\x16\x03\x01\x02\x00\x01\x00"]
    {
        let mut client = server.connect();
        client.write_all(hello).unwrap();
        let mut output = Vec::new();
        // A reset is as good as an end.
        let _ = client.read_to_end(&mut output);
        assert_eq!(text(&output), "", "{}", text(hello));
    }
    assert_eq!(text(&server.converse(b"GET a\n")), "(nil)\n");
    server.stop();
}

#[test]
fn a_thousand_commands_in_one_packet_get_a_thousand_replies() {
    let server = Server::start(&[]);
    let mut script = Vec::new();
    let mut expected = String::new();
    for at in 0..1000 {
        write!(script, "SET k{at} {at}\nGET k{at}\n").unwrap();
        expected += &format!("OK\n{at}\n");
    }
    assert_eq!(text(&server.converse(&script)), expected);
    server.stop();
}

#[test]
fn large_values_pass_through_whole() {
    let server = Server::start(&[]);
    let value = vec![b'v'; 20 << 20];
    let mut client = server.connect();
    let mut request = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()).into_bytes();
    request.extend(&value);
    request.extend(b"\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    client.write_all(&request).unwrap();
    let mut reply = vec![0; value.len() + 18];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(text(&reply[..16]), "+OK\r\n$20971520\r\n");
    assert!(reply[16..].starts_with(&value) && reply.ends_with(b"\r\n"));
    server.stop();
}

#[test]
fn a_client_that_never_reads_costs_little_and_harms_nobody() {
    let server = Server::start(&["--output-timeout", "100ms"]);
    let mut set = b"SET big ".to_vec();
    // The longest line there may be.
    set.resize(1 << 20, b'x');
    set.push(b'\n');
    assert_eq!(text(&server.converse(&set)), "OK\n");
    let mut deaf = server.connect();
    deaf.set_write_timeout(Some(PATIENCE)).unwrap();
    // Gigabytes of replies are asked for. The server stops reading, then gives up on the client: this fails.
    while deaf.write_all(&b"GET big\n".repeat(1000)).is_ok() {}
    assert_eq!(text(&server.converse(b"PING\n")), "PONG\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 100 << 10, "{peak} kB at the peak");
    }
    server.stop();
}

#[test]
fn beyond_the_limit_a_client_is_told_and_closed() {
    let server = Server::start(&["--max-clients", "2"]);
    let mut first = server.connect();
    let mut second = server.connect();
    let mut reply = [0; 5];
    for client in [&mut first, &mut second] {
        client.write_all(b"GET a\n").unwrap();
        client.read_exact(&mut reply).unwrap();
    }
    let mut third = String::new();
    server.connect().read_to_string(&mut third).unwrap();
    assert_eq!(third, "-ERR max number of clients reached\r\n");
    first.write_all(b"QUIT\n").unwrap();
    first.read_to_end(&mut Vec::new()).unwrap();
    drop(first);
    // Its thread is about to give the place back.
    let mut reply = [0; 5];
    while {
        let mut third = server.connect();
        third.write_all(b"PONG?\nGET a\n").is_err() || third.read_exact(&mut reply).is_err() || &reply == b"-ERR "
    } {
        thread::yield_now();
    }
    server.stop();
}

#[test]
fn a_request_that_stops_half_way_is_given_up_and_an_idle_client_if_so_wished() {
    let server = Server::start(&["--request-timeout", "50ms", "--idle-timeout", "200ms"]);
    let mut half = server.connect();
    half.write_all(b"*2\r\n$3\r\nGET\r\n").unwrap();
    let mut output = String::new();
    half.read_to_string(&mut output).unwrap();
    assert!(output.contains("timed out"), "{output}");
    let mut idle = server.connect();
    let mut output = String::new();
    idle.read_to_string(&mut output).unwrap();
    assert_eq!(output, "");
    server.stop();
}

#[test]
fn sigterm_under_load_ends_cleanly_and_every_reply_sent_is_whole() {
    let server = Server::start(&[]);
    let running = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|at| {
            let (mut client, running) = (server.connect(), running.clone());
            thread::spawn(move || {
                let batch = format!("SET k{at} v\nGET k{at}\n").repeat(16);
                let mut replies = BufReader::new(client.try_clone().unwrap());
                let mut line = String::new();
                while client.write_all(batch.as_bytes()).is_ok() {
                    for _ in 0..32 {
                        line.clear();
                        match replies.read_line(&mut line) {
                            Ok(1..) => assert!(line == "OK\n" || line == "v\n", "{line:?}"),
                            _ => return,
                        }
                    }
                    running.store(true, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while !running.load(Ordering::Relaxed) {
        thread::yield_now();
    }
    server.stop();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// SIGHUP is what a terminal sends that closes.
#[test]
fn each_of_the_signals_that_end_a_program_ends_it_in_good_order() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let server = Server::start(&[]);
        assert_eq!(text(&server.converse(b"SET a 1\n")), "OK\n");
        server.signal(signal);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{signal:?}: {log}");
        assert!(log.contains("bye"), "{signal:?}: {log}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&[]);
    let mut set = b"SET big ".to_vec();
    set.resize(1 << 20, b'x');
    set.push(b'\n');
    assert_eq!(text(&server.converse(&set)), "OK\n");
    // More than all buffers on the way hold: the orderly end has to wait for this client.
    let mut deaf = server.connect();
    deaf.write_all(&b"GET big\n".repeat(100)).unwrap();
    deaf.read_exact(&mut [0; 1]).unwrap();
    server.signal(Signal::TERM);
    let mut line = String::new();
    while !line.contains("shutting down") {
        line.clear();
        assert!(server.stderr.as_mut().unwrap().read_line(&mut line).unwrap() > 0);
    }
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(130), "{log}");
}

#[test]
fn shutdown_by_command_and_idle_clients_do_not_hold_it_up() {
    let server = Server::start(&[]);
    let mut idle = server.connect();
    idle.write_all(b"PING\n").unwrap();
    idle.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(text(&server.converse(b"PING\nSHUTDOWN FOO\nSHUTDOWN\nPING\n")), "PONG\n(error) ERR syntax error\n");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert_eq!(text(&rest), "");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_closed_stderr_and_stdout_do_not_matter() {
    let mut server = Server::start(&["--log-level", "trace"]);
    // The reading end goes: from now on every log line fails.
    server.stderr = None;
    assert_eq!(text(&server.converse(b"SET a 1\nGET a\n")), "OK\n1\n");
    server.signal(Signal::TERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_1() {
    let server = Server::start(&[]);
    let port = server.addr.rsplit(':').next().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (code, message) = refused(&["--port", port, "--dir", other.path().to_str().unwrap()]);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains(&server.addr) && message.contains("--port"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    server.stop();
}

#[test]
fn a_second_server_on_the_same_directory_names_the_first_and_exits_1() {
    let server = Server::start(&[]);
    let (code, message) = refused(&["--port", "0", "--dir", server.dir().to_str().unwrap()]);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains(&format!("process {}", server.child.id())) && message.contains("--dir"), "{message}");
    server.stop();
}

#[test]
fn a_directory_that_cannot_be_is_one_clear_line_and_exit_1() {
    let (code, message) = refused(&["--port", "0", "--dir", "/dev/null/data"]);
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("/dev/null/data"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn wrong_arguments_exit_2_and_name_the_nearest_right_one() {
    let (code, message) = refused(&["--prot", "1"]);
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("--port"), "{message}");
    assert_eq!(refused(&["--durability", "sometimes"]).0, 2);
    assert_eq!(refused(&["--databases", "0"]).0, 2);
    let (code, message) = refused(&["--bind", "0.0.0.0", "--port", "0"]);
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("--no-protected-mode"), "{message}");
}

#[test]
fn flags_are_environment_variables_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = binary()
        .env("CHRONOS_PORT", "0")
        .env("CHRONOS_DIR", dir.path())
        .env("CHRONOS_INLINE_REPLIES", "resp")
        .env("CHRONOS_LOG_FORMAT", "text")
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let server = Server { addr: ready(&mut stderr), child, stderr: Some(stderr), dir };
    assert_eq!(text(&server.converse(b"SET a 1\r\nGET a\r\n")), "+OK\r\n$1\r\n1\r\n");
    server.stop();
}
