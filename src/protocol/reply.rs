//! What a command answers, before any dialect.

use std::borrow::Cow;

use super::rows::{Row, RowStream};
use crate::codec::Slice;

/// How a connection is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Text,
    Resp2,
    Resp3,
}

/// One reply. The encoder turns it into the connection's dialect.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    /// `+OK`, `+PONG` / `OK`, `PONG`. One line, no line breaks.
    Status(Cow<'static, str>),
    /// `-ERR ...` / `(error) ERR ...`. The text starts with its code; line breaks in it are made blanks by the encoder.
    Error(Cow<'static, str>),
    /// `:42` / `42`
    Int(i64),
    /// `,3.5` in RESP3, a bulk string in RESP2 / `3.5`
    Double(f64),
    /// `$3 foo` / the value, quoted where it has to be.
    Bulk(Slice),
    /// A bulk string that was made on the spot.
    Text(String),
    /// `$-1`, `_` / `(nil)`
    Nil,
    /// RESP array / one line each, then `(n entries)`
    Array(Vec<Reply>),
    /// RESP3 set, RESP2 array / as Array
    Set(Vec<Reply>),
    /// RESP3 map, RESP2 flat array / `key value` lines, then `(n entries)`
    Map(Vec<(Reply, Reply)>),
    /// Flat array key value key value / `key value` lines (a key with blanks is quoted), then `(n entries)`
    Rows(Vec<Row>),
    /// Rows too many to be held: the connection sends them one by one. They cannot be part of another reply.
    Stream(RowStream),
    /// Several lines of text (with `\r\n` ends): a bulk in RESP2, verbatim in RESP3 / the lines, then `(end)`
    Lines(String),
    /// Deleted keys: `:n` / `(nil)` for none, `OK_DELETED` when one key was named, `OK_DELETED n` when several.
    Deleted { count: u64, named: usize },
}

impl Reply {
    pub(crate) const OK: Reply = Reply::Status(Cow::Borrowed("OK"));

    pub(crate) fn error(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply::Error(text.into())
    }
}
