//! The client's side of RESP: replies from bytes, and commands to bytes.
//!
//! A reply is read in two passes. The first walks over the bytes, keeps its place when they end, and allocates no more
//! than one count for each level of nesting; the second builds the value once it is all there. So a large array that
//! arrives in small pieces costs time and memory in proportion to its bytes, whatever a server announces.

use memchr::memchr;

use super::number::push_u64;

/// No server nests deeper than a few levels; a deeper reply is garbage, and must not exhaust the stack.
const MAX_DEPTH: usize = 64;
/// Bytes in a reply's one-line part (`+`, `-`, `(`, counts). Redis's longest errors are a few hundred.
const MAX_LINE: usize = 1 << 20;

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Double(f64),
    Bool(bool),
    /// The digits, with a sign.
    BigNumber(Vec<u8>),
    Bulk(Vec<u8>),
    /// Text and its format, such as `txt`.
    Verbatim([u8; 3], Vec<u8>),
    Nil,
    Array(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Push(Vec<Value>),
}

/// The bytes are no RESP: the connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error("the server sent {0:#04x} where a reply's type should stand; is it a Redis-compatible server?")]
    Type(u8),
    #[error("the server sent a malformed number or length")]
    Number,
    #[error("the server's reply is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    #[error("the server sent a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    #[error("the server sent a string whose end is not where its length says")]
    Framing,
}

/// Reads replies from a growing buffer.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    /// Where the next element's first byte is.
    at: usize,
    /// No line end before this.
    searched: usize,
    /// For each open aggregate, how many elements are to come.
    open: Vec<u64>,
}

impl ReplyReader {
    pub(crate) fn new() -> ReplyReader {
        ReplyReader::default()
    }

    /// The first reply in `buffer` and its length, or `None` as long as it is incomplete. The next call gets the same
    /// bytes and more after `None`, and what follows the reply after `Some`.
    pub(crate) fn read(&mut self, buffer: &[u8]) -> Result<Option<(Value, usize)>, ReplyError> {
        if !self.walk(buffer)? {
            return Ok(None);
        }
        let len = self.at;
        *self = ReplyReader::default();
        let mut at = 0;
        Ok(Some((build(buffer, &mut at)?, len)))
    }

    /// Moves on to the end of the reply; `false` if the bytes end before it does.
    fn walk(&mut self, buffer: &[u8]) -> Result<bool, ReplyError> {
        loop {
            let Some(((kind, line), mut next)) = self.next_line(buffer)? else { return Ok(false) };
            let mut elements = 0;
            match Kind::of(kind)? {
                Kind::Line => {}
                Kind::Bulk => {
                    if let Some(len) = length(line)? {
                        let end = usize::try_from(len).ok().and_then(|len| next.checked_add(len));
                        let end = end.ok_or(ReplyError::Number)?;
                        let Some(tail) = buffer.get(end..).and_then(|rest| rest.get(..2)) else { return Ok(false) };
                        if tail != b"\r\n" {
                            return Err(ReplyError::Framing);
                        }
                        next = end + 2;
                    }
                }
                Kind::List => elements = length(line)?.unwrap_or(0),
                // A length is at most i64::MAX, so twice it and one fit.
                Kind::Map => elements = 2 * length(line)?.unwrap_or(0),
                // An attribute is a map, and then the value it is about: one element more.
                Kind::Attribute => elements = 2 * length(line)?.unwrap_or(0) + 1,
            }
            self.at = next;
            self.searched = next;
            if elements > 0 {
                if self.open.len() == MAX_DEPTH {
                    return Err(ReplyError::TooDeep);
                }
                self.open.push(elements);
                continue;
            }
            // One element is done, and with it every aggregate whose last it was.
            loop {
                let Some(left) = self.open.last_mut() else { return Ok(true) };
                *left -= 1;
                if *left > 0 {
                    break;
                }
                self.open.pop();
            }
        }
    }

    /// The type byte and the rest of its line at `at`, and where the next line begins.
    fn next_line<'b>(&mut self, buffer: &'b [u8]) -> Result<Option<(Line<'b>, usize)>, ReplyError> {
        let from = self.searched.max(self.at).min(buffer.len());
        let Some(end) = memchr(b'\n', &buffer[from..]).map(|at| from + at) else {
            if let Some(&kind) = buffer.get(self.at) {
                Kind::of(kind)?;
            }
            self.searched = buffer.len();
            return if buffer.len() - self.at > MAX_LINE { Err(ReplyError::LineTooLong) } else { Ok(None) };
        };
        split_line(&buffer[self.at..end]).map(|line| Some((line, end + 1)))
    }
}

#[cfg(test)]
/// The first reply in `buffer` and its length: for callers that have all of it, or little.
pub(crate) fn read_reply(buffer: &[u8]) -> Result<Option<(Value, usize)>, ReplyError> {
    ReplyReader::new().read(buffer)
}

/// Appends one command as a RESP array.
pub(crate) fn encode_command<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.push(b'*');
    push_u64(args.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    for arg in args {
        let arg = arg.as_ref();
        out.push(b'$');
        push_u64(arg.len() as u64, out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// A type byte and the rest of its line.
type Line<'b> = (u8, &'b [u8]);

/// What follows a type byte's line.
enum Kind {
    Line,
    Bulk,
    List,
    Map,
    Attribute,
}

impl Kind {
    fn of(byte: u8) -> Result<Kind, ReplyError> {
        match byte {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => Ok(Kind::Line),
            b'$' | b'!' | b'=' => Ok(Kind::Bulk),
            b'*' | b'~' | b'>' => Ok(Kind::List),
            b'%' => Ok(Kind::Map),
            b'|' => Ok(Kind::Attribute),
            other => Err(ReplyError::Type(other)),
        }
    }
}

fn split_line(line: &[u8]) -> Result<Line<'_>, ReplyError> {
    let (&kind, rest) = line.split_first().ok_or(ReplyError::Type(b'\n'))?;
    Kind::of(kind)?;
    Ok((kind, rest.strip_suffix(b"\r").ok_or(ReplyError::Framing)?))
}

/// A length or count; `None` for RESP2's -1.
fn length(line: &[u8]) -> Result<Option<u64>, ReplyError> {
    match integer(line)? {
        -1 => Ok(None),
        len => u64::try_from(len).map(Some).map_err(|_| ReplyError::Number),
    }
}

fn integer(line: &[u8]) -> Result<i64, ReplyError> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(ReplyError::Number)
}

/// Builds the value at `at`, all of whose bytes `walk` has found to be there, in brackets no deeper than it allows.
fn build(buffer: &[u8], at: &mut usize) -> Result<Value, ReplyError> {
    let (kind, line) = take_line(buffer, at)?;
    Ok(match kind {
        b'+' => Value::Simple(line.to_vec()),
        b'-' => Value::Error(line.to_vec()),
        b':' => Value::Int(integer(line)?),
        b',' => Value::Double(double(line)?),
        b'#' => match line {
            b"t" => Value::Bool(true),
            b"f" => Value::Bool(false),
            _ => return Err(ReplyError::Number),
        },
        b'(' => Value::BigNumber(line.to_vec()),
        b'$' | b'!' | b'=' => {
            let Some(len) = length(line)? else { return Ok(Value::Nil) };
            let end = *at + len as usize;
            let bytes = &buffer[*at..end];
            *at = end + 2;
            match (kind, bytes) {
                (b'!', _) => Value::Error(bytes.to_vec()),
                (b'=', [a, b, c, b':', text @ ..]) => Value::Verbatim([*a, *b, *c], text.to_vec()),
                (b'=', _) => return Err(ReplyError::Framing),
                _ => Value::Bulk(bytes.to_vec()),
            }
        }
        b'*' | b'~' | b'>' => {
            let Some(count) = length(line)? else { return Ok(Value::Nil) };
            let items = (0..count).map(|_| build(buffer, at)).collect::<Result<_, _>>()?;
            match kind {
                b'~' => Value::Set(items),
                b'>' => Value::Push(items),
                _ => Value::Array(items),
            }
        }
        b'%' => {
            let Some(count) = length(line)? else { return Ok(Value::Nil) };
            let entry = |_| Ok((build(buffer, at)?, build(buffer, at)?));
            Value::Map((0..count).map(entry).collect::<Result<_, ReplyError>>()?)
        }
        b'|' => {
            // Nobody here asks for attributes: the value they are about counts.
            for _ in 0..2 * length(line)?.unwrap_or(0) {
                build(buffer, at)?;
            }
            build(buffer, at)?
        }
        _ => Value::Nil,
    })
}

fn take_line<'b>(buffer: &'b [u8], at: &mut usize) -> Result<Line<'b>, ReplyError> {
    let len = memchr(b'\n', &buffer[*at..]).ok_or(ReplyError::Framing)?;
    let line = &buffer[*at..*at + len];
    *at += len + 1;
    split_line(line)
}

fn double(line: &[u8]) -> Result<f64, ReplyError> {
    // Rust reads "inf", "-inf" and "nan" as RESP3 writes them.
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(ReplyError::Number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn every_type_is_read_however_it_is_cut() {
        let bytes: &[u8] = b"*16\r\n+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n_\r\n,3.5\r\n,-inf\r\n\
            #t\r\n(123\r\n=6\r\ntxt:hi\r\n!5\r\nERR x\r\n%2\r\n+a\r\n*1\r\n:1\r\n+b\r\n~1\r\n|1\r\n+ttl\r\n:1\r\n>1\r\n+p\r\n+next";
        let expected = Value::Array(vec![
            Value::Simple(b"OK".to_vec()),
            Value::Error(b"ERR no".to_vec()),
            Value::Int(-7),
            bulk("a\r\n"),
            bulk(""),
            Value::Nil,
            Value::Nil,
            Value::Array(vec![]),
            Value::Nil,
            Value::Double(3.5),
            Value::Double(f64::NEG_INFINITY),
            Value::Bool(true),
            Value::BigNumber(b"123".to_vec()),
            Value::Verbatim(*b"txt", b"hi".to_vec()),
            Value::Error(b"ERR x".to_vec()),
            Value::Map(vec![
                (Value::Simple(b"a".to_vec()), Value::Array(vec![Value::Int(1)])),
                (Value::Simple(b"b".to_vec()), Value::Set(vec![Value::Push(vec![Value::Simple(b"p".to_vec())])])),
            ]),
        ]);
        let whole = bytes.len() - "+next".len();
        assert_eq!(read_reply(bytes), Ok(Some((expected.clone(), whole))));
        let mut reader = ReplyReader::new();
        for len in 0..whole {
            assert_eq!(reader.read(&bytes[..len]), Ok(None), "of {len} bytes");
        }
        assert_eq!(reader.read(bytes), Ok(Some((expected, whole))));
        assert_eq!(reader.read(&bytes[whole..]), Ok(None));
    }

    #[test]
    fn what_was_looked_at_is_not_looked_at_again() {
        let numbers = [&b"*1000\r\n"[..], &b":1234\r\n".repeat(1000)].concat();
        let line = [&b"+"[..], &[b'x'; 5000], b"\r\n"].concat();
        for bytes in [numbers, line] {
            let mut reader = ReplyReader::new();
            for len in 0..bytes.len() {
                assert_eq!(reader.read(&bytes[..len]), Ok(None));
                assert_eq!(reader.searched, len);
            }
            assert!(matches!(reader.read(&bytes), Ok(Some((_, len))) if len == bytes.len()));
        }
    }

    #[test]
    fn garbage_is_named() {
        for (bytes, error) in [
            (&b"HTTP/1.1 400\r\n"[..], ReplyError::Type(b'H')),
            (b"\r\n", ReplyError::Type(b'\r')),
            (b"\n", ReplyError::Type(b'\n')),
            (b":1\n", ReplyError::Framing),
            (b":x\r\n", ReplyError::Number),
            (b"$-2\r\n", ReplyError::Number),
            (b"$9223372036854775808\r\n", ReplyError::Number),
            (b"$1\r\nabc", ReplyError::Framing),
            (b"=2\r\nhi\r\n", ReplyError::Framing),
        ] {
            assert_eq!(read_reply(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        assert_eq!(read_reply(&b"*1\r\n".repeat(MAX_DEPTH)), Ok(None));
        assert_eq!(read_reply(&b"*1\r\n".repeat(MAX_DEPTH + 1)), Err(ReplyError::TooDeep));
        assert_eq!(read_reply(&[b'+'; MAX_LINE + 2]), Err(ReplyError::LineTooLong));
        assert_eq!(read_reply(b"*9223372036854775807\r\n:1\r\n"), Ok(None), "announced, not allocated");
        assert_eq!(read_reply(b"|9223372036854775807\r\n:1\r\n"), Ok(None), "announced, not allocated");
        assert_eq!(read_reply(b"$9223372036854775807\r\nabc"), Ok(None), "announced, not allocated");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(
            prop_oneof![proptest::sample::select(b"*$%|>~=!+-:,#(_123\r\n".to_vec()), any::<u8>()], 0..60))
        {
            let _ = read_reply(&bytes);
        }
    }
}
