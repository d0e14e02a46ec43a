//! A connection to the server, answered in RESP.
//!
//! Two ways to open one, which differ in who takes a request apart:
//!
//! - **lines**: every request, the handshake included, is a line of the text dialect. The server splits it by its own
//!   rules, and alone knows which commands take the rest of the line as a value; but since the first line is `HELLO 3`
//!   it answers in RESP, where every reply tells its own length. So neither side guesses: no table of commands is
//!   copied into the client, and no sentinel is needed to find where a list of unknown length ends.
//! - **arrays**: every request is a RESP array, so words are exact bytes of any length.
//!
//! A server that refuses `HELLO 3` (Redis before 6) is spoken to in RESP2.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::protocol::reply_reader::{ReplyReader, Value, encode_command};

use super::failure::{Failure, reason};
use super::options::Server;

/// Long enough for a bad day on a far network, short enough that a person waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Many small replies in one read.
const READ_BYTES: usize = 64 << 10;

/// In which form requests will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requests {
    Lines,
    Arrays,
}

/// An open connection whose handshake is done.
pub(crate) struct Connection {
    name: String,
    stream: TcpStream,
    reader: ReplyReader,
    /// What was received; the first `used` bytes have been taken.
    received: Vec<u8>,
    used: usize,
}

impl Connection {
    /// Connects, asks for RESP3 and selects the database.
    pub(crate) fn open(server: &Server, requests: Requests) -> Result<Connection, Failure> {
        let stream =
            connect(server).map_err(|error| Failure::Connect { server: server.to_string(), why: reason(&error) })?;
        let mut connection = Connection {
            name: server.to_string(),
            stream,
            reader: ReplyReader::new(),
            received: Vec::with_capacity(READ_BYTES),
            used: 0,
        };
        // Whatever the refusal says (NOPROTO, NOAUTH, unknown command), RESP2 goes on; but a server that is full or
        // protected says so and hangs up, and that text is the one worth showing.
        let refusal = connection.ask_for_resp3(requests)?;
        if server.db != 0 {
            let db = server.db.to_string();
            match connection.handshake(&[b"SELECT", db.as_bytes()], requests) {
                Ok(None) => {}
                Ok(Some(text)) => return Err(connection.refused(text)),
                Err(failure) => return Err(refusal.map_or(failure, |text| connection.refused(text))),
            }
        } else if let Some(text) = refusal
            && !connection.is_alive()
        {
            return Err(connection.refused(text));
        }
        Ok(connection)
    }

    /// Asks for RESP3; the text of the refusal, if any.
    pub(crate) fn ask_for_resp3(&mut self, requests: Requests) -> Result<Option<String>, Failure> {
        self.handshake(&[b"HELLO", b"3"], requests)
    }

    /// Sends one request of the handshake; the text of the error it was answered with, if any.
    fn handshake(&mut self, words: &[&[u8]], requests: Requests) -> Result<Option<String>, Failure> {
        let mut out = Vec::new();
        match requests {
            Requests::Arrays => encode_command(words, &mut out),
            Requests::Lines => {
                out = words.join(&b' ');
                out.extend_from_slice(b"\r\n");
            }
        }
        self.send(&out)?;
        if let Some(text) = self.text_error()? {
            return Err(self.refused(text));
        }
        Ok(match self.receive()? {
            Value::Error(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            _ => None,
        })
    }

    /// A server that refuses HELLO on a line, for want of a password, may still take us for a person and say so in
    /// text: `(error) NOAUTH ...`. No reply in RESP to a handshake begins like that.
    fn text_error(&mut self) -> Result<Option<String>, Failure> {
        const MARK: &[u8] = b"(error) ";
        while !self.has_received() {
            self.fill()?;
        }
        while MARK.starts_with(&self.received[..self.received.len().min(MARK.len())]) && !self.received.contains(&b'\n')
        {
            self.fill()?;
        }
        let text = self.received.strip_prefix(MARK).map(|text| String::from_utf8_lossy(text).trim_end().to_string());
        Ok(text)
    }

    fn refused(&self, text: String) -> Failure {
        Failure::Refused { server: self.name.clone(), text }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(|error| self.lost(error))
    }

    /// The next frame, waiting for it.
    pub(crate) fn receive(&mut self) -> Result<Value, Failure> {
        loop {
            if let Some(value) = self.received()? {
                return Ok(value);
            }
            self.fill()?;
        }
    }

    /// The next frame, if all of it has been received.
    pub(crate) fn received(&mut self) -> Result<Option<Value>, Failure> {
        match self.reader.read(&self.received[self.used..]) {
            Ok(Some((value, len))) => {
                self.used += len;
                Ok(Some(value))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(Failure::Garbled { server: self.name.clone(), why: error.to_string() }),
        }
    }

    /// Whether bytes were received that are not taken yet.
    pub(crate) fn has_received(&self) -> bool {
        self.used < self.received.len()
    }

    /// Waits for more bytes.
    fn fill(&mut self) -> Result<(), Failure> {
        self.received.drain(..self.used);
        self.used = 0;
        let len = self.received.len();
        self.received.resize(len + READ_BYTES, 0);
        let read = loop {
            match self.stream.read(&mut self.received[len..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.received.truncate(len + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Failure::Closed { server: self.name.clone() }),
            Ok(_) => Ok(()),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Whether the server still holds its end. A person at a prompt is slow: servers restart between two lines, and a
    /// request that was never sent can be sent again, while one that lost its reply cannot.
    pub(crate) fn is_alive(&self) -> bool {
        if self.has_received() {
            return true;
        }
        if self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let peeked = self.stream.peek(&mut [0]);
        let blocking_again = self.stream.set_nonblocking(false).is_ok();
        blocking_again
            && match peeked {
                Ok(bytes) => bytes > 0,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            }
    }

    /// A second handle to the socket, to write from another thread or to close it from one.
    pub(crate) fn handle(&self) -> Result<TcpStream, Failure> {
        self.stream.try_clone().map_err(|error| self.lost(error))
    }

    fn lost(&self, error: io::Error) -> Failure {
        Failure::Lost { server: self.name.clone(), why: reason(&error) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Other handles of the socket may live on in a writing thread; it must learn of the end too. Nothing to do
        // about an error: the connection is being given up.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The first address of the host that accepts.
fn connect(server: &Server) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (server.host.as_str(), server.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
