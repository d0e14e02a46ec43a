//! Words and quotes: how a line is split into words, and how bytes that are not plain text are written so that they
//! can be typed back. Shared by the decoder, the text replies and the command-line client.
//!
//! ```text
//! line   := [blanks] word (blanks word)* [blanks]         blanks: spaces and tabs
//! word   := plain | '"' (byte | escape)* '"' | "'" (byte | "\'")* "'"
//! escape := \n | \r | \t | \b | \a | \\ | \" | \xHH | \ and any other byte: that byte
//! ```
//!
//! A quote opens a quoted word only at the word's beginning: `it's` is a plain word. Redis differs there, see
//! [`split_like_redis`].

use memchr::{memchr, memchr2};

use super::request::Span;

/// Why a line cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuoteError {
    /// The line ends inside a quoted word.
    Unclosed,
    /// Text follows a closing quote without a blank between.
    Glued,
}

/// Tells which word of a command (its name is word 0) is a value that takes the rest of the line, if any.
pub(crate) type Tail<'t> = &'t dyn Fn(&[u8]) -> Option<usize>;

/// Splits `buffer[start..end]`, one line without its line end, as the text dialect does. Spans are appended to `spans`
/// and lie in `buffer`, or in `scratch` where a word had escapes.
pub(crate) fn split_line(
    buffer: &[u8],
    start: usize,
    end: usize,
    tail: Tail<'_>,
    spans: &mut Vec<Span>,
    scratch: &mut Vec<u8>,
) -> Result<(), QuoteError> {
    let line = &buffer[..end];
    let mut at = start;
    let mut tail_word = None;
    for word in 0.. {
        at += leading(&line[at..], is_blank);
        let Some(&first) = line.get(at) else { break };
        if is_quote(first) {
            let quoted = Quoted::find(line, at)?;
            at = quoted.next();
            if line.get(at).is_some_and(|&byte| !is_blank(byte)) {
                return Err(QuoteError::Glued);
            }
            spans.push(quoted.span(line, scratch));
        } else if tail_word == Some(word) {
            spans.push(Span { start: at, end, in_scratch: false });
            break;
        } else {
            let from = at;
            at += leading(&line[at..], |byte| !is_blank(byte));
            spans.push(Span { start: from, end: at, in_scratch: false });
        }
        if word == 0 {
            let name = spans[spans.len() - 1];
            tail_word =
                tail(if name.in_scratch { &scratch[name.start..name.end] } else { &line[name.start..name.end] });
        }
    }
    Ok(())
}

/// Splits a line as Redis splits an inline request: all of C's white space separates, and a quote in the middle of a
/// word opens a quoted part that ends the word (`foo"bar"` is `foobar`). No word takes the rest of the line.
pub(crate) fn split_like_redis(
    buffer: &[u8],
    start: usize,
    end: usize,
    spans: &mut Vec<Span>,
    scratch: &mut Vec<u8>,
) -> Result<(), QuoteError> {
    let line = &buffer[..end];
    let mut at = start;
    loop {
        at += leading(&line[at..], is_space);
        if at == end {
            return Ok(());
        }
        let from = at;
        at += leading(&line[at..], |byte| !is_space(byte) && !is_quote(byte));
        let quoted = if at < end && is_quote(line[at]) { Some(Quoted::find(line, at)?) } else { None };
        let Some(quoted) = quoted else {
            spans.push(Span { start: from, end: at, in_scratch: false });
            continue;
        };
        if line.get(quoted.next()).is_some_and(|&byte| !is_space(byte)) {
            return Err(QuoteError::Glued);
        }
        if from == at {
            spans.push(quoted.span(line, scratch));
        } else {
            let start = scratch.len();
            scratch.extend_from_slice(&line[from..at]);
            quoted.unescape(line, scratch);
            spans.push(Span { start, end: scratch.len(), in_scratch: true });
        }
        at = quoted.next();
    }
}

/// The words of one line, owned: for callers that have no buffer to borrow from.
pub(crate) fn split_words(line: &[u8], tail: Tail<'_>) -> Result<Vec<Vec<u8>>, QuoteError> {
    let (mut spans, mut scratch) = (Vec::new(), Vec::new());
    split_line(line, 0, line.len(), tail, &mut spans, &mut scratch)?;
    let bytes =
        |span: &Span| if span.in_scratch { &scratch[span.start..span.end] } else { &line[span.start..span.end] };
    Ok(spans.iter().map(|span| bytes(span).to_vec()).collect())
}

#[cfg(test)]
/// What a quoted word stands for; `None` unless `word` is exactly one quoted word.
pub(crate) fn unquote(word: &[u8]) -> Option<Vec<u8>> {
    let quoted = Quoted::find(word, 0).ok().filter(|quoted| is_quote(word[0]) && quoted.next() == word.len())?;
    let mut out = Vec::new();
    quoted.unescape(word, &mut out);
    Some(out)
}

/// Appends `bytes` in double quotes. Printable UTF-8 stays readable; everything else is escaped.
pub(crate) fn quote(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut utf8 = [0; 4];
            let encoded = character.encode_utf8(&mut utf8).as_bytes();
            match character {
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\x08' => out.extend_from_slice(b"\\b"),
                '\x07' => out.extend_from_slice(b"\\a"),
                '\\' => out.extend_from_slice(b"\\\\"),
                '"' => out.extend_from_slice(b"\\\""),
                _ if is_unprintable(character) => escape_hex(encoded, out),
                _ => out.extend_from_slice(encoded),
            }
        }
        escape_hex(chunk.invalid(), out);
    }
    out.push(b'"');
}

/// Must `value` be quoted where a value stands, that is up to the end of its line? Yes if it could be taken for a
/// remark of the server or for a quoted value, is empty, or is not one line of printable text.
pub(crate) fn needs_quotes(value: &[u8]) -> bool {
    matches!(value.first(), None | Some(b'(' | b'"')) || !is_printable(value)
}

/// Must `word` be quoted where something else follows on its line? A single quote at the front counts here, so that
/// the word means the same when it is typed back.
pub(crate) fn word_needs_quotes(word: &[u8]) -> bool {
    needs_quotes(word) || word[0] == b'\'' || memchr(b' ', word).is_some()
}

fn is_printable(bytes: &[u8]) -> bool {
    // Whole chunks without an early exit, so that the compiler uses vector instructions on long values.
    let ascii = |chunk: &[u8]| chunk.iter().fold(true, |plain, byte| plain & (0x20..0x7f).contains(byte));
    bytes.chunks(64).all(ascii) || std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(is_unprintable))
}

/// Control characters, and the two separators that some readers take for line ends: a reply must stay one line.
pub(crate) fn is_unprintable(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// A quoted word's place in a line: the indexes of its quotes, and whether it holds anything to unescape.
struct Quoted {
    open: usize,
    close: usize,
    escapes: bool,
}

impl Quoted {
    /// The quoted word whose opening quote is `line[open]`.
    fn find(line: &[u8], open: usize) -> Result<Quoted, QuoteError> {
        let quote = *line.get(open).ok_or(QuoteError::Unclosed)?;
        let mut at = open + 1;
        let mut escapes = false;
        loop {
            at += line.get(at..).and_then(|rest| memchr2(quote, b'\\', rest)).ok_or(QuoteError::Unclosed)?;
            if line[at] == quote {
                return Ok(Quoted { open, close: at, escapes });
            }
            // A backslash and the byte behind it belong together, except in single quotes, where only \' does.
            let pair = quote == b'"' || line.get(at + 1) == Some(&b'\'');
            escapes |= pair;
            at += if pair { 2 } else { 1 };
        }
    }

    fn next(&self) -> usize {
        self.close + 1
    }

    fn span(&self, line: &[u8], scratch: &mut Vec<u8>) -> Span {
        if !self.escapes {
            return Span { start: self.open + 1, end: self.close, in_scratch: false };
        }
        let start = scratch.len();
        self.unescape(line, scratch);
        Span { start, end: scratch.len(), in_scratch: true }
    }

    fn unescape(&self, line: &[u8], out: &mut Vec<u8>) {
        let double = line[self.open] == b'"';
        let mut rest = &line[self.open + 1..self.close];
        while let Some(at) = memchr(b'\\', rest) {
            out.extend_from_slice(&rest[..at]);
            // `find` has seen to it that in double quotes a byte follows every backslash.
            let (byte, used) = match &rest[at + 1..] {
                [b'x', high, low, ..] if double && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    (hex_digit(*high) << 4 | hex_digit(*low), 4)
                }
                [letter, ..] if double => (unescaped(*letter), 2),
                [b'\'', ..] => (b'\'', 2),
                _ => (b'\\', 1),
            };
            out.push(byte);
            rest = &rest[at + used..];
        }
        out.extend_from_slice(rest);
    }
}

fn unescaped(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn escape_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// The value of an ASCII hex digit.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn leading(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&byte| !belongs(byte)).unwrap_or(bytes.len())
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

pub(crate) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// C's `isspace` in its plain locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Result<Vec<String>, QuoteError> {
        let tail = |name: &[u8]| name.eq_ignore_ascii_case(b"set").then_some(2);
        let words = split_words(line.as_bytes(), &tail)?;
        Ok(words.into_iter().map(|word| word.escape_ascii().to_string()).collect())
    }

    fn redis(line: &[u8]) -> Result<Vec<Vec<u8>>, QuoteError> {
        let (mut spans, mut scratch) = (Vec::new(), Vec::new());
        split_like_redis(line, 0, line.len(), &mut spans, &mut scratch)?;
        let bytes =
            |s: &Span| if s.in_scratch { scratch[s.start..s.end].to_vec() } else { line[s.start..s.end].to_vec() };
        Ok(spans.iter().map(bytes).collect())
    }

    #[test]
    fn a_tail_takes_the_rest_of_the_line_byte_for_byte_unless_it_is_quoted() {
        assert_eq!(words("set k \t a  b ").unwrap(), ["set", "k", "a  b "]);
        assert_eq!(words(r#"set k {"a": "b"}"#).unwrap(), ["set", "k", r#"{\"a\": \"b\"}"#]);
        assert_eq!(words(r#"set k "a  b" EX  60 "#).unwrap(), ["set", "k", "a  b", "EX", "60"]);
        assert_eq!(words("set k").unwrap(), ["set", "k"]);
        assert_eq!(words("set k  ").unwrap(), ["set", "k"]);
        assert_eq!(words(r#""s\x65t" k it's a value"#).unwrap(), ["set", "k", r"it\'s a value"]);
    }

    #[test]
    fn quotes_open_only_at_the_beginning_of_a_word() {
        assert_eq!(
            words(r#"get it's "" '' 'a\'b\n' "\x4a\xq\q""#).unwrap(),
            ["get", r"it\'s", "", "", r"a\'b\\n", "Jxqq"]
        );
        assert_eq!(words(r#"get "a"b"#), Err(QuoteError::Glued));
        assert_eq!(words(r#"set k "a"b"#), Err(QuoteError::Glued));
        for unclosed in [r#"get ""#, r#"get "a\"#, r#"get "a\""#, "get '", r"get 'a\'"] {
            assert_eq!(words(unclosed), Err(QuoteError::Unclosed), "{unclosed}");
        }
    }

    #[test]
    fn redis_splits_as_its_sdssplitargs_does() {
        assert_eq!(redis(b" a\x0bb foo\"b\\x41r\" 'x' ").unwrap(), [&b"a"[..], b"b", b"foobAr", b"x"]);
        assert_eq!(redis(b"foo\"bar\"baz"), Err(QuoteError::Glued));
        assert_eq!(redis(b"foo'bar"), Err(QuoteError::Unclosed));
        assert_eq!(redis(b" \t\r\x0b\x0c").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        for value in ["", "(nil)", "\"a\"", "a\tb", "a\x7fb", "a\u{85}b", "a\u{2028}b"] {
            assert!(needs_quotes(value.as_bytes()), "{value:?}");
        }
        assert!(needs_quotes(b"\xff"));
        for value in [" a b ", "{\"a\": 1}", "gr\u{fc}n", "'x'", "a(b)"] {
            assert!(!needs_quotes(value.as_bytes()), "{value:?}");
        }
        assert!(word_needs_quotes(b"a b") && word_needs_quotes(b"'a") && !word_needs_quotes(b"it's"));
    }

    #[test]
    fn quoting_is_readable() {
        let mut out = Vec::new();
        quote("gr\u{fc}n \"\\\n\r\t\x07\x08\x00\u{85}".as_bytes(), &mut out);
        quote(b"\xff", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "\"gr\u{fc}n \\\"\\\\\\n\\r\\t\\a\\b\\x00\\xc2\\x85\"\"\\xff\"");
        assert_eq!(unquote(b"\"a\" "), None);
        assert_eq!(unquote(b"a"), None);
        assert_eq!(unquote(b"aba"), None);
        assert_eq!(unquote(b""), None);
        assert_eq!(unquote(b"'a\\'b'").unwrap(), b"a'b");
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_is_one_printable_line_and_comes_back(bytes: Vec<u8>) {
            let mut quoted = Vec::new();
            quote(&bytes, &mut quoted);
            prop_assert!(is_printable(&quoted));
            prop_assert_eq!(unquote(&quoted), Some(bytes.clone()));
            prop_assert_eq!(split_words(&quoted, &|_| None), Ok(vec![bytes.clone()]));
            prop_assert_eq!(redis(&quoted), Ok(vec![bytes.clone()]));
            let mut line = b"set k ".to_vec();
            if needs_quotes(&bytes) { line.extend(&quoted) } else { line.extend(&bytes) }
            // Leading blanks and a leading single quote are the two things a value line shows and a request must quote.
            if !matches!(bytes.first(), Some(b' ' | b'\'')) {
                prop_assert_eq!(&split_words(&line, &|_| Some(2)).unwrap()[2], &bytes);
            }
        }

        #[test]
        fn no_line_makes_a_splitter_panic(line in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\''), Just(b'\\'), Just(b' '), Just(b'x'), any::<u8>()], 0..40))
        {
            let _ = split_words(&line, &|_| Some(1));
            let _ = redis(&line);
            let _ = unquote(&line);
        }
    }
}
