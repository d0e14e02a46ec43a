//! Clients that send slowly: for good reasons, and to hold the server's threads.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/server.rs"]
mod server;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use server::Server;

/// Sends a request of `pieces` times `piece`, with a pause before each: how many were sent before it was answered or
/// given up, and the first ten bytes of what the server says.
fn echo(addr: &str, piece: &[u8], pause: Duration, pieces: usize) -> std::io::Result<(usize, String)> {
    let mut client = TcpStream::connect(addr)?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(client, "*2\r\n$4\r\nECHO\r\n${}\r\n", piece.len() * pieces)?;
    let sent = (0..pieces).take_while(|_| {
        thread::sleep(pause);
        client.write_all(piece).is_ok()
    });
    let sent = sent.count();
    let _ = client.write_all(b"\r\n");
    let mut reply = [0; 10];
    client.read_exact(&mut reply)?;
    Ok((sent, String::from_utf8_lossy(&reply).into_owned()))
}

#[test]
fn a_request_that_trickles_in_is_given_up_but_not_one_that_keeps_coming() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--request-timeout", "1s"]);
    thread::scope(|scope| {
        let trickle = scope.spawn(|| echo(&server.addr, b"x", Duration::from_millis(20), 3_000));
        // Takes longer than a second, too.
        let upload = scope.spawn(|| echo(&server.addr, &[b'x'; 1_000], Duration::from_millis(80), 20));
        assert_eq!(upload.join().unwrap().unwrap(), (20, "$20000\r\nxx".to_owned()));
        match trickle.join().unwrap() {
            Ok((sent, reply)) => assert!(sent < 3_000 && reply == "(error) ER", "{sent}: {reply}"),
            // What was sent after the end may have reset the connection.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait_in_peace().0.code(), Some(0));
}
