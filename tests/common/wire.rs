//! The two dialects as a client writes and reads them. Written anew and not taken from the library: what is tested must
//! not be its own judge.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use chronos::codec::Rng;

/// Nothing on a loaded machine takes this long; a test that would hang fails instead.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a connection talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Resp,
    Text,
}

/// A reply: `(nil)` and `(error) ...` are written as the text dialect does, whatever the connection speaks.
#[derive(Debug, PartialEq)]
pub enum Reply {
    One(Vec<u8>),
    Many(Vec<Reply>),
}

impl Reply {
    pub fn one(self) -> Vec<u8> {
        match self {
            Reply::One(bytes) => bytes,
            Reply::Many(_) => panic!("one value was expected: {self:?}"),
        }
    }

    pub fn many(self) -> Vec<Vec<u8>> {
        match self {
            Reply::Many(replies) => replies.into_iter().map(Reply::one).collect(),
            Reply::One(bytes) => panic!("a list was expected: {}", bytes.escape_ascii()),
        }
    }
}

/// Appends a request. In a line the value of SET and APPEND takes all that is left, so that it may stand unquoted, and
/// must not if options follow.
pub fn encode(words: &[Vec<u8>], dialect: Dialect, rng: &mut Rng, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Resp => {
            write!(out, "*{}\r\n", words.len()).unwrap();
            for word in words {
                write!(out, "${}\r\n", word.len()).unwrap();
                out.extend_from_slice(word);
                out.extend_from_slice(b"\r\n");
            }
        }
        Dialect::Text => {
            let takes_rest = [b"SET".as_slice(), b"APPEND"].contains(&&*words[0]);
            for (at, word) in words.iter().enumerate() {
                if at > 0 {
                    out.push(b' ');
                }
                let plain = if takes_rest && at == 2 {
                    words.len() == 3 && rng.chance(1, 2) && !word.iter().any(|byte| b"\r\n".contains(byte))
                } else {
                    word.iter().all(|byte| byte.is_ascii_alphanumeric() || b":-;".contains(byte))
                };
                if plain {
                    out.extend_from_slice(word);
                } else {
                    quote(word, out);
                }
            }
            out.extend_from_slice(if rng.chance(1, 2) { b"\n" } else { b"\r\n" });
        }
    }
}

fn quote(word: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in word {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A connection to the server.
pub struct Connection {
    pub dialect: Dialect,
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(addr: &str, dialect: Dialect) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let replies = BufReader::new(stream.try_clone()?);
        Ok(Connection { dialect, stream, replies })
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply; `None` if the connection ended before all of it had come.
    pub fn receive(&mut self) -> Option<Reply> {
        let line = self.line()?;
        if self.dialect == Dialect::Text {
            return Some(Reply::One(line));
        }
        let rest = &line[1..];
        let length = || std::str::from_utf8(rest).unwrap().parse::<usize>().ok();
        match line[0] {
            b'+' | b':' => Some(Reply::One(rest.to_vec())),
            b'-' => Some(Reply::One([b"(error) ", rest].concat())),
            b'$' => {
                let Some(len) = length() else { return Some(Reply::One(b"(nil)".to_vec())) };
                let mut bulk = vec![0; len + 2];
                self.replies.read_exact(&mut bulk).ok()?;
                assert!(bulk.ends_with(b"\r\n"), "a bulk string ends with a line end");
                bulk.truncate(len);
                Some(Reply::One(bulk))
            }
            b'*' => (0..length().unwrap()).map(|_| self.receive()).collect::<Option<Vec<_>>>().map(Reply::Many),
            _ => panic!("no reply begins like this: {}", line.escape_ascii()),
        }
    }

    /// A whole line without its end.
    fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        // A reset is as good as an end; patience that ran out is not.
        match self.replies.read_until(b'\n', &mut line) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the server does not answer"),
            Err(_) => return None,
        }
        line.pop().filter(|&last| last == b'\n')?;
        if self.dialect == Dialect::Resp {
            assert_eq!(line.pop(), Some(b'\r'));
        }
        assert!(!line.is_empty(), "an empty reply");
        Some(line)
    }

    /// Sends requests in one pipeline: what they are answered.
    pub fn ask(&mut self, requests: &[Vec<Vec<u8>>]) -> Vec<Reply> {
        let mut answers = Vec::new();
        for requests in requests.chunks(1000) {
            let mut bytes = Vec::new();
            for words in requests {
                encode(words, self.dialect, &mut Rng::new(0), &mut bytes);
            }
            self.send(&bytes).unwrap();
            answers.extend(requests.iter().map(|_| self.receive().expect("the server went away")));
        }
        answers
    }
}

/// A request as words, for a person to write.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}
