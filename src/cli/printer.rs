//! Replies to stdout, in the text dialect or as bytes.

use std::io::{self, BufWriter, Write};

use crate::protocol::{Dialect, Reply, Row, encode};

use super::failure::Failure;
use super::options::Format;

/// Enough that a bulk of small replies is written in few calls.
const BUFFER: usize = 64 << 10;

/// Where replies go. What is printed is seen only after [`flush`](Self::flush).
pub(crate) struct Printer {
    out: BufWriter<Box<dyn Write>>,
    format: Format,
    line: Vec<u8>,
}

impl Printer {
    pub(crate) fn new(out: impl Write + 'static, format: Format) -> Printer {
        Printer { out: BufWriter::with_capacity(BUFFER, Box::new(out)), format, line: Vec::new() }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Prints one reply, its line end included.
    pub(crate) fn reply(&mut self, reply: &Reply) -> Result<(), Failure> {
        match self.format {
            Format::Text => {
                self.line.clear();
                encode(reply, Dialect::Text, &mut self.line);
                self.out.write_all(&self.line).map_err(Failure::output)
            }
            Format::Raw => {
                self.bytes(reply)?;
                self.out.write_all(b"\n").map_err(Failure::output)
            }
        }
    }

    /// The bytes of a reply, with nothing before or behind. Errors are not among the bytes that were asked for: they
    /// go to stderr.
    pub(crate) fn bytes(&mut self, reply: &Reply) -> Result<(), Failure> {
        self.line.clear();
        raw(reply, &mut self.line);
        self.out.write_all(&self.line).map_err(Failure::output)?;
        each_error(reply, &mut |text| complain(text));
        Ok(())
    }

    /// One line that is no reply.
    pub(crate) fn note(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(Failure::output)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }
}

/// One line to stderr. If that is closed there is no one left to tell.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a reply is an error, or a transaction with one in it.
pub(crate) fn has_error(reply: &Reply) -> bool {
    let mut found = false;
    each_error(reply, &mut |_| found = true);
    found
}

/// Shows `see` the errors in a reply.
pub(crate) fn each_error(reply: &Reply, see: &mut dyn FnMut(&str)) {
    match reply {
        Reply::Error(text) => see(text),
        Reply::Array(items) => items.iter().for_each(|item| each_error(item, see)),
        _ => {}
    }
}

/// A list is its elements on a line each, a map its keys and values in turn.
fn raw(reply: &Reply, out: &mut Vec<u8>) {
    let mut separator: &[u8] = b"";
    let mut next = |out: &mut Vec<u8>| {
        out.extend_from_slice(separator);
        separator = b"\n";
    };
    match reply {
        Reply::Bulk(bytes) => out.extend_from_slice(bytes),
        Reply::Text(text) | Reply::Lines(text) => out.extend_from_slice(text.as_bytes()),
        Reply::Nil | Reply::Error(_) => {}
        Reply::Deleted { count, .. } => out.extend_from_slice(count.to_string().as_bytes()),
        Reply::Status(_) | Reply::Int(_) | Reply::Double(_) => {
            encode(reply, Dialect::Text, out);
            out.pop();
        }
        Reply::Array(items) | Reply::Set(items) => {
            for item in items {
                next(out);
                raw(item, out);
            }
        }
        Reply::Map(pairs) => {
            for (key, value) in pairs {
                next(out);
                raw(key, out);
                next(out);
                raw(value, out);
            }
        }
        // Only a server makes one.
        Reply::Stream(_) => {}
        Reply::Rows(rows) => {
            for word in rows.iter().flat_map(Row::words) {
                next(out);
                out.extend_from_slice(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Slice;

    fn raw_text(reply: &Reply) -> String {
        let mut out = Vec::new();
        raw(reply, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn raw_is_the_bytes_and_nothing_else() {
        let bulk = |text: &str| Reply::Bulk(Slice::copy_from(text.as_bytes()));
        assert_eq!(raw_text(&bulk("(nil)\n\"x")), "(nil)\n\"x");
        assert_eq!(raw_text(&Reply::Nil), "");
        assert_eq!(raw_text(&Reply::OK), "OK");
        assert_eq!(raw_text(&Reply::Int(-4)), "-4");
        assert_eq!(raw_text(&Reply::Deleted { count: 2, named: 2 }), "2");
        assert_eq!(raw_text(&Reply::Array(vec![bulk("a"), Reply::Nil, bulk("b c")])), "a\n\nb c");
        let row = Row::Pair(Slice::copy_from(b"k k"), Slice::copy_from(b"v"));
        assert_eq!(raw_text(&Reply::Rows(vec![row])), "k k\nv");
    }

    #[test]
    fn an_error_inside_a_transaction_is_an_error() {
        assert!(has_error(&Reply::Array(vec![Reply::OK, Reply::error("WRONGTYPE no")])));
        assert!(!has_error(&Reply::Array(vec![Reply::OK, Reply::Nil])));
    }
}
