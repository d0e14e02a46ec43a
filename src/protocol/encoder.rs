//! Replies to bytes, in the connection's dialect.
//!
//! In text, three rules make a reply exact for a script that reads lines:
//!
//! 1. a line that begins with `(` is a remark of the server: `(nil)`, `(error) ...`, `(3 entries)`, `(end)`;
//! 2. a line that begins with `"` begins with a quoted value;
//! 3. any other line is the value, the status or the number itself.
//!
//! A list is one line for each element, then how many there were. An element that is a list itself is still one line:
//! its words, blanks between, what lies deeper in brackets.

use super::number::{push_double, push_i64, push_u64};
use super::quote::{is_unprintable, needs_quotes, quote, word_needs_quotes};
use super::reply::{Dialect, Reply};
use super::rows::Row;

/// In the place of a list that is made row by row where a whole reply is needed.
const TOO_LONG: &str = "ERR the list is too long to be part of another reply; give it a LIMIT";

/// Appends `reply` to `out`.
pub(crate) fn encode(reply: &Reply, dialect: Dialect, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => text(reply, out),
        Dialect::Resp2 => resp(reply, Resp::Two, out),
        Dialect::Resp3 => resp(reply, Resp::Three, out),
    }
}

/// Appends what begins a list of so many words.
pub(super) fn encode_header(words: usize, dialect: Dialect, out: &mut Vec<u8>) {
    if dialect != Dialect::Text {
        header(b'*', words as u64, out);
    }
}

/// Appends a row of a list.
pub(super) fn encode_row(row: &Row, dialect: Dialect, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => text_row(row, out),
        _ => row.words().for_each(|word| bulk(word, out)),
    }
}

/// Appends what ends a list of so many rows.
pub(super) fn encode_entries(rows: usize, dialect: Dialect, out: &mut Vec<u8>) {
    if dialect == Dialect::Text {
        entries(rows, out);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resp {
    Two,
    Three,
}

fn resp(reply: &Reply, version: Resp, out: &mut Vec<u8>) {
    match (reply, version) {
        (Reply::Status(text), _) => simple(b'+', text, out),
        (Reply::Error(text), _) => simple(b'-', text, out),
        (Reply::Int(value), _) => {
            out.push(b':');
            push_i64(*value, out);
            out.extend_from_slice(b"\r\n");
        }
        (Reply::Deleted { count, .. }, _) => header(b':', *count, out),
        (Reply::Bulk(bytes), _) => bulk(bytes, out),
        (Reply::Text(text), _) => bulk(text.as_bytes(), out),
        (Reply::Nil, Resp::Three) => out.extend_from_slice(b"_\r\n"),
        (Reply::Nil, Resp::Two) => out.extend_from_slice(b"$-1\r\n"),
        (Reply::Double(value), Resp::Three) => {
            out.push(b',');
            push_double(*value, out);
            out.extend_from_slice(b"\r\n");
        }
        (Reply::Double(value), Resp::Two) => {
            let mut text = Vec::with_capacity(32);
            push_double(*value, &mut text);
            bulk(&text, out);
        }
        (Reply::Array(items), _) => list(b'*', items, version, out),
        (Reply::Set(items), Resp::Three) => list(b'~', items, version, out),
        (Reply::Set(items), Resp::Two) => list(b'*', items, version, out),
        (Reply::Map(entries), _) => {
            match version {
                Resp::Three => header(b'%', entries.len() as u64, out),
                Resp::Two => header(b'*', 2 * entries.len() as u64, out),
            }
            for (key, value) in entries {
                resp(key, version, out);
                resp(value, version, out);
            }
        }
        (Reply::Rows(rows), _) => {
            header(b'*', rows.iter().flat_map(Row::words).count() as u64, out);
            rows.iter().flat_map(Row::words).for_each(|word| bulk(word, out));
        }
        (Reply::Stream(_), _) => simple(b'-', TOO_LONG, out),
        (Reply::Lines(text), Resp::Two) => bulk(text.as_bytes(), out),
        (Reply::Lines(text), Resp::Three) => {
            header(b'=', text.len() as u64 + 4, out);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn header(kind: u8, count: u64, out: &mut Vec<u8>) {
    out.push(kind);
    push_u64(count, out);
    out.extend_from_slice(b"\r\n");
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    // Once for all four appends; a header is at most 23 bytes.
    out.reserve(bytes.len() + 25);
    header(b'$', bytes.len() as u64, out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn list(kind: u8, items: &[Reply], version: Resp, out: &mut Vec<u8>) {
    header(kind, items.len() as u64, out);
    for item in items {
        resp(item, version, out);
    }
}

fn simple(kind: u8, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    push_harmless(text, out);
    out.extend_from_slice(b"\r\n");
}

/// One line that can neither forge a second reply nor steer a terminal: line ends become blanks, other control
/// characters question marks.
fn push_harmless(text: &str, out: &mut Vec<u8>) {
    if !text.contains(is_unprintable) {
        return out.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        match character {
            '\r' | '\n' => out.push(b' '),
            _ if is_unprintable(character) => out.push(b'?'),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn text(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Array(items) | Reply::Set(items) => {
            for item in items {
                text_line(item, out);
                out.push(b'\n');
            }
            entries(items.len(), out);
        }
        Reply::Map(pairs) => {
            for (key, value) in pairs {
                text_word(key, out);
                out.push(b' ');
                if is_list(value) {
                    text_word(value, out)
                } else {
                    text_line(value, out)
                }
                out.push(b'\n');
            }
            entries(pairs.len(), out);
        }
        Reply::Rows(rows) => {
            rows.iter().for_each(|row| text_row(row, out));
            entries(rows.len(), out);
        }
        Reply::Lines(lines) => {
            for line in lines.lines() {
                // A blank line separates sections; quoted it would only be noise.
                if !line.is_empty() {
                    push_value(line.as_bytes(), out);
                }
                out.push(b'\n');
            }
            out.extend_from_slice(b"(end)\n");
        }
        _ => {
            text_line(reply, out);
            out.push(b'\n');
        }
    }
}

fn text_row(row: &Row, out: &mut Vec<u8>) {
    match row {
        Row::One(word) => push_value(word, out),
        Row::Pair(key, value) => {
            push_word(key, out);
            out.push(b' ');
            push_value(value, out);
        }
    }
    out.push(b'\n');
}

fn entries(count: usize, out: &mut Vec<u8>) {
    out.push(b'(');
    push_u64(count as u64, out);
    out.extend_from_slice(b" entries)\n");
}

/// A reply as the rest of a line.
fn text_line(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Status(text) => push_harmless(text, out),
        Reply::Error(text) => {
            out.extend_from_slice(b"(error) ");
            push_harmless(text, out);
        }
        Reply::Int(value) => push_i64(*value, out),
        Reply::Double(value) => push_double(*value, out),
        Reply::Bulk(bytes) => push_value(bytes, out),
        Reply::Text(text) | Reply::Lines(text) => push_value(text.as_bytes(), out),
        Reply::Stream(_) => {
            out.extend_from_slice(b"(error) ");
            out.extend_from_slice(TOO_LONG.as_bytes());
        }
        Reply::Nil | Reply::Deleted { count: 0, .. } => out.extend_from_slice(b"(nil)"),
        Reply::Deleted { count, named } => {
            out.extend_from_slice(b"OK_DELETED");
            if *named != 1 {
                out.push(b' ');
                push_u64(*count, out);
            }
        }
        Reply::Array(_) | Reply::Set(_) | Reply::Map(_) | Reply::Rows(_) => {
            let from = out.len();
            text_words(reply, out);
            if out.len() == from {
                out.extend_from_slice(b"[]");
            }
        }
    }
}

/// The elements of a list, blanks between.
fn text_words(list: &Reply, out: &mut Vec<u8>) {
    let mut separator: &[u8] = b"";
    let mut next = |out: &mut Vec<u8>| {
        out.extend_from_slice(separator);
        separator = b" ";
    };
    match list {
        Reply::Array(items) | Reply::Set(items) => {
            for item in items {
                next(out);
                text_word(item, out);
            }
        }
        Reply::Map(pairs) => {
            for (key, value) in pairs {
                next(out);
                text_word(key, out);
                next(out);
                text_word(value, out);
            }
        }
        Reply::Rows(rows) => {
            for word in rows.iter().flat_map(Row::words) {
                next(out);
                push_nested_word(word, out);
            }
        }
        _ => {}
    }
}

/// A reply where something else may follow on the line.
fn text_word(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Bulk(bytes) => push_nested_word(bytes, out),
        Reply::Text(text) | Reply::Lines(text) => push_nested_word(text.as_bytes(), out),
        Reply::Status(text) => push_nested_word(text.as_bytes(), out),
        Reply::Error(text) => {
            out.extend_from_slice(b"(error) ");
            quote(text.as_bytes(), out);
        }
        _ if is_list(reply) => {
            out.push(b'[');
            text_words(reply, out);
            out.push(b']');
        }
        _ => text_line(reply, out),
    }
}

fn is_list(reply: &Reply) -> bool {
    matches!(reply, Reply::Array(_) | Reply::Set(_) | Reply::Map(_) | Reply::Rows(_))
}

fn push_value(value: &[u8], out: &mut Vec<u8>) {
    if needs_quotes(value) { quote(value, out) } else { out.extend_from_slice(value) }
}

fn push_word(word: &[u8], out: &mut Vec<u8>) {
    if word_needs_quotes(word) { quote(word, out) } else { out.extend_from_slice(word) }
}

/// A word among brackets.
fn push_nested_word(word: &[u8], out: &mut Vec<u8>) {
    if word.starts_with(b"[") || word.ends_with(b"]") { quote(word, out) } else { push_word(word, out) }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::Slice;
    use crate::protocol::quote::unquote;
    use crate::protocol::reply_reader::{Value, read_reply};
    use crate::protocol::tests::matches_golden;

    /// Every kind of reply, and what in it could be misread.
    fn replies() -> Vec<(&'static str, Reply)> {
        let bulk = |text: &str| Reply::Bulk(Slice::copy_from(text.as_bytes()));
        let slice = |text: &str| Slice::copy_from(text.as_bytes());
        let status = |text: &'static str| Reply::Status(Cow::Borrowed(text));
        vec![
            ("status", Reply::OK),
            ("error", Reply::error("ERR unknown command 'FOO', with args beginning with: 'a' ")),
            ("error that would forge a reply", Reply::error("ERR bad\r\n+OK\x1b[2J")),
            ("integer", Reply::Int(-42)),
            ("double", Reply::Double(3.5)),
            ("infinite double", Reply::Double(f64::INFINITY)),
            ("value", bulk("{\"name\": \"Venom\"}")),
            ("value with blanks around it", bulk("  a b  ")),
            ("value beyond ASCII", bulk("gr\u{fc}\u{df}e \u{2713}")),
            ("value like a remark", bulk("(nil)")),
            ("value like a quoted one", bulk("\"a\"")),
            ("empty value", bulk("")),
            ("value of two lines", bulk("a\r\nb")),
            ("value of bytes", Reply::Bulk(Slice::copy_from(b"\x00\xff\xe2\x82"))),
            ("text", Reply::Text("made on the spot".into())),
            ("nil", Reply::Nil),
            ("empty array", Reply::Array(vec![])),
            ("array", Reply::Array(vec![bulk("a"), Reply::Nil, bulk(""), Reply::Int(7), Reply::error("ERR no")])),
            ("set", Reply::Set(vec![bulk("a b"), bulk("c")])),
            (
                "map",
                Reply::Map(vec![
                    (bulk("server"), bulk("chronos")),
                    (bulk("proto"), Reply::Int(3)),
                    (bulk("a key"), bulk("a value")),
                    (bulk("modules"), Reply::Array(vec![])),
                    (bulk("list"), Reply::Array(vec![bulk("a b"), bulk("c")])),
                ]),
            ),
            (
                "pairs",
                Reply::Rows(vec![
                    Row::Pair(slice("user:1"), slice("{\"a\": [1, 2]}")),
                    Row::Pair(slice("a key"), slice("a value")),
                    Row::Pair(slice("'k"), slice("")),
                    Row::Pair(slice("(k"), slice("(v")),
                    Row::Pair(slice("it's"), slice("tab\there")),
                ]),
            ),
            (
                "nested array",
                Reply::Array(vec![
                    Reply::Array(vec![
                        bulk("get"),
                        Reply::Int(2),
                        Reply::Array(vec![status("readonly"), status("fast")]),
                        Reply::Array(vec![]),
                        Reply::Map(vec![(bulk("summary"), bulk("Returns the value [if any]"))]),
                        Reply::Nil,
                    ]),
                    Reply::Array(vec![]),
                    Reply::Rows(vec![Row::Pair(slice("k"), slice("a b")), Row::Pair(slice("[k]"), slice("v"))]),
                    Reply::Nil,
                ]),
            ),
            ("lines", Reply::Lines("# Server\r\nversion:1\r\n\r\n# (odd)\r\n(end)\r\n".into())),
            ("deleted, none of one", Reply::Deleted { count: 0, named: 1 }),
            ("deleted, one of one", Reply::Deleted { count: 1, named: 1 }),
            ("deleted, two of three", Reply::Deleted { count: 2, named: 3 }),
            ("deleted, none of three", Reply::Deleted { count: 0, named: 3 }),
        ]
    }

    #[test]
    fn replies_look_as_the_golden_file_says() {
        let mut golden =
            String::from("# Every kind of reply in the three dialects. Written by the tests, read by people.\n");
        for (name, reply) in replies() {
            golden += &format!("\n{name}\n");
            let mut out = Vec::new();
            encode(&reply, Dialect::Text, &mut out);
            for line in String::from_utf8(out).unwrap().split_terminator('\n') {
                golden += &format!("  text   {line}\n");
            }
            for (label, dialect) in [("resp2", Dialect::Resp2), ("resp3", Dialect::Resp3)] {
                let mut out = Vec::new();
                encode(&reply, dialect, &mut out);
                golden += &format!("  {label}  {}\n", out.escape_ascii());
            }
        }
        matches_golden("replies.txt", &golden);
    }

    #[test]
    fn a_client_reads_every_reply() {
        for (name, reply) in replies() {
            for dialect in [Dialect::Resp2, Dialect::Resp3] {
                let mut out = Vec::new();
                encode(&reply, dialect, &mut out);
                let (value, used) = read_reply(&out).unwrap().unwrap_or_else(|| panic!("{name} is incomplete"));
                assert_eq!(used, out.len(), "{name}");
                match (&reply, dialect, value) {
                    (Reply::Bulk(bytes), _, value) => assert_eq!(value, Value::Bulk(bytes.to_vec())),
                    (Reply::Map(entries), Dialect::Resp3, Value::Map(read)) => assert_eq!(read.len(), entries.len()),
                    (Reply::Map(entries), Dialect::Resp2, Value::Array(read)) => {
                        assert_eq!(read.len(), 2 * entries.len())
                    }
                    (Reply::Map(_), _, other) => panic!("{other:?}"),
                    (Reply::Lines(text), Dialect::Resp3, value) => {
                        assert_eq!(value, Value::Verbatim(*b"txt", text.as_bytes().to_vec()));
                    }
                    (Reply::Nil, _, value) => assert_eq!(value, Value::Nil),
                    (Reply::Double(double), Dialect::Resp3, value) => assert_eq!(value, Value::Double(*double)),
                    _ => {}
                }
            }
        }
    }

    proptest! {
        /// The three rules of the text dialect, from the side of a script that reads one line.
        #[test]
        fn a_value_in_text_is_one_line_and_exact(bytes: Vec<u8>) {
            let mut out = Vec::new();
            encode(&Reply::Bulk(Slice::copy_from(&bytes)), Dialect::Text, &mut out);
            prop_assert_eq!(out.pop(), Some(b'\n'));
            prop_assert!(!out.contains(&b'\n') && !out.starts_with(b"("));
            let read = if out.starts_with(b"\"") { unquote(&out).unwrap() } else { out };
            prop_assert_eq!(read, bytes);
        }
    }
}
