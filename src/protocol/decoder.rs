//! Bytes to requests: the incoming side of one connection.
//!
//! The caller keeps the bytes that were received and not yet consumed, and asks [`Decoder::decode`] for the next step
//! until it says [`Step::Incomplete`]. Arguments are borrowed from those bytes; only a quoted word with escapes is
//! copied. What has been looked at is not looked at again when more arrives, so that a request of n bytes costs O(n)
//! however it is cut; the decoder remembers offsets only, so the caller may move its bytes in memory between calls.
//! Every split of the stream gives the same steps. Nothing is allocated on the word of an announced length.
//!
//! ```text
//! stream := (request | blank line | telnet command)*
//! request := '*' count CRLF ('$' length CRLF bytes CRLF){count}      RESP
//!          | words [CR] LF                                           a line, see `quote`
//! ```

use std::borrow::Cow;
use std::mem;

use memchr::{memchr, memchr2};

use super::foreign::{self, FirstBytes};
use super::limits::{InlineReplies, Limits};
use super::quote::{self, QuoteError, Tail};
use super::reply::{Dialect, Reply};
use super::request::{Request, Span};

/// A `*` or `$` line longer than this is no number any more; Redis's bound.
const MAX_HEADER: usize = 64 << 10;
/// Room kept between requests; more, left by a large one, goes back to the allocator.
const SPANS_KEPT: usize = 256;
const SCRATCH_KEPT: usize = 4 << 10;
/// The shortest bulk string, `$0\r\n\r\n`.
const SHORTEST_BULK: usize = 6;

/// What the front of the received bytes is. `used` bytes are to be consumed before the next call.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// One request. `answer_in` is there on the request that decides how the connection is answered (and on each PING
    /// answered `+PONG` before that): it becomes the session's dialect before the request is run.
    Request { request: Request<'a>, used: usize, answer_in: Option<Dialect> },
    /// A request's beginning. It cannot be whole before the buffer holds `at_least` bytes. The figure comes from the
    /// client: good for choosing how to read, not for how much to allocate.
    Incomplete { at_least: usize },
    /// Bytes that say nothing: a blank line, an empty array, a telnet command.
    Nothing { used: usize },
    /// A line that cannot be split into words. It is answered, and the connection goes on.
    Refused { reply: Reply, used: usize, answer_in: Option<Dialect> },
    /// The stream is out of step: the connection answers what it owes and then this, and closes.
    Broken { reply: Reply, answer_in: Option<Dialect> },
    /// Another protocol is spoken here: the connection closes at once, without a word.
    Hangup { why: &'static str },
}

/// The state of one connection's incoming side.
#[derive(Debug)]
pub(crate) struct Decoder {
    limits: Limits,
    spans: Vec<Span>,
    scratch: Vec<u8>,
    progress: Progress,
    lines: Lines,
    /// The first request has said how replies are written.
    decided: bool,
    /// The connection has sent an array: a quoting slip means that its stream is out of step.
    sent_array: bool,
    /// Bytes searched so far: a test holds it linear.
    #[cfg(any(test, fuzzing))]
    pub(super) searched: usize,
}

/// How far the request at the front of the buffer has been read.
#[derive(Clone, Copy, Debug)]
enum Progress {
    Boundary,
    /// No line end before `searched`.
    Line {
        searched: usize,
    },
    /// No line end before `searched` in the `*` line.
    Count {
        searched: usize,
    },
    /// `left` bulks to come, the next at `at`. `body` is its length if its `$` line is behind us; otherwise that has
    /// no line end before `searched`.
    Bulks {
        left: usize,
        at: usize,
        body: Option<usize>,
        searched: usize,
    },
}

/// How a line is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    Text,
    Redis,
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            spans: Vec::new(),
            scratch: Vec::new(),
            progress: Progress::Boundary,
            lines: match limits.inline_replies {
                InlineReplies::Text => Lines::Text,
                InlineReplies::Resp => Lines::Redis,
            },
            decided: false,
            sent_array: false,
            #[cfg(any(test, fuzzing))]
            searched: 0,
        }
    }

    /// HELLO has made this a RESP connection. If it has sent an array, lines are split as Redis splits them from the
    /// next request on. If it has not, HELLO was a line, and the lines behind it are still the text dialect's: so
    /// chronos-cli sends what a person typed as it is, and gets replies that tell their own length.
    pub(crate) fn switch_to_resp(&mut self) {
        self.decided = true;
        if self.sent_array {
            self.lines = Lines::Redis;
        }
    }

    /// The next step. `buffer` is all that was received and not consumed; it begins where the last step's `used`
    /// ended, and after [`Step::Incomplete`] it begins with the same bytes again. `tail` says which word of a command
    /// takes the rest of its line.
    pub(crate) fn decode<'a>(&'a mut self, buffer: &'a [u8], tail: Tail<'_>) -> Step<'a> {
        match mem::replace(&mut self.progress, Progress::Boundary) {
            Progress::Boundary => self.begin(buffer, tail),
            Progress::Line { searched } => self.line(buffer, searched, tail),
            Progress::Count { searched } => self.count(buffer, searched),
            Progress::Bulks { left, at, body, searched } => self.bulks(buffer, left, at, body, searched),
        }
    }

    /// A request's first bytes. Those that are no request are few, and are looked at again if they are cut.
    fn begin<'a>(&'a mut self, buffer: &'a [u8], tail: Tail<'_>) -> Step<'a> {
        self.spans.clear();
        self.spans.shrink_to(SPANS_KEPT);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT);
        match buffer {
            [] => Step::Incomplete { at_least: 1 },
            [b'*', ..] => {
                self.sent_array = true;
                self.count(buffer, 1)
            }
            _ => match foreign::first_bytes(buffer) {
                FirstBytes::Ours => self.line(buffer, 0, tail),
                FirstBytes::Undecided { at_least } => Step::Incomplete { at_least },
                FirstBytes::Telnet { used } => Step::Nothing { used },
                FirstBytes::Foreign { why } => Step::Hangup { why },
            },
        }
    }

    /// The `*` line.
    fn count<'a>(&'a mut self, buffer: &'a [u8], searched: usize) -> Step<'a> {
        match self.number(buffer, 1, searched) {
            Number::Value(count, at) => match usize::try_from(count) {
                // An empty array says nothing; so, in Redis, does one of negative length.
                Err(_) | Ok(0) => Step::Nothing { used: at },
                Ok(count) if count > self.limits.max_args => self.out_of_step("invalid multibulk length"),
                Ok(left) => self.bulks(buffer, left, at, None, at + 1),
            },
            Number::Incomplete => {
                self.progress = Progress::Count { searched: buffer.len() };
                Step::Incomplete { at_least: buffer.len() + 1 }
            }
            Number::Invalid => self.out_of_step("invalid multibulk length"),
            Number::TooLong => self.out_of_step("too big mbulk count string"),
        }
    }

    /// The bulk strings of an array, from where the last call stopped.
    fn bulks<'a>(
        &'a mut self,
        buffer: &'a [u8],
        left: usize,
        at: usize,
        body: Option<usize>,
        searched: usize,
    ) -> Step<'a> {
        let (mut left, mut at, mut body, mut searched) = (left, at, body, searched);
        loop {
            let len = match body {
                Some(len) => len,
                None => {
                    let number = match buffer.get(at) {
                        None => Number::Incomplete,
                        Some(b'$') => self.number(buffer, at + 1, searched),
                        Some(&other) => {
                            let got = other.escape_ascii();
                            return self.out_of_step(format!("expected '$', got '{got}'"));
                        }
                    };
                    let (len, body_at) = match number {
                        Number::Value(len, body_at) => (len, body_at),
                        Number::Incomplete => {
                            let searched = searched.max(buffer.len());
                            self.progress = Progress::Bulks { left, at, body, searched };
                            return Step::Incomplete { at_least: (at + SHORTEST_BULK).max(buffer.len() + 1) };
                        }
                        Number::Invalid => return self.out_of_step("invalid bulk length"),
                        Number::TooLong => return self.out_of_step("too big bulk count string"),
                    };
                    match usize::try_from(len) {
                        Ok(len) if len <= self.limits.max_bulk => {
                            if len > self.limits.max_request.saturating_sub(body_at) {
                                return self.out_of_step("too big request");
                            }
                            at = body_at;
                            len
                        }
                        _ => return self.out_of_step("invalid bulk length"),
                    }
                }
            };
            let end = at + len;
            match buffer.get(end..end + 2) {
                Some(b"\r\n") => self.spans.push(Span { start: at, end, in_scratch: false }),
                // Redis does not look. But a length that does not fit its bytes must not become a stored value.
                Some(_) => return self.out_of_step("expected CRLF after bulk"),
                None => {
                    self.progress = Progress::Bulks { left, at, body: Some(len), searched };
                    return Step::Incomplete { at_least: end + 2 };
                }
            }
            left -= 1;
            at = end + 2;
            if left == 0 {
                let answer_in = self.decide(Dialect::Resp2);
                return self.request(buffer, at, answer_in);
            }
            body = None;
            searched = at + 1;
        }
    }

    /// One line.
    fn line<'a>(&'a mut self, buffer: &'a [u8], searched: usize, tail: Tail<'_>) -> Step<'a> {
        let limit = match self.lines {
            Lines::Text => self.limits.max_line,
            Lines::Redis => self.limits.max_inline,
        };
        // A line of exactly the limit, and its line end.
        let longest = limit.saturating_add(2);
        let window = buffer.len().min(longest);
        let from = searched.min(window);
        let newline = memchr(b'\n', &buffer[from..window]).map(|at| from + at);
        self.note_searched(newline.map_or(window, |at| at + 1) - from);
        let Some(newline) = newline else {
            if buffer.len() >= longest {
                return self.line_too_long(limit);
            }
            self.progress = Progress::Line { searched: buffer.len() };
            return Step::Incomplete { at_least: buffer.len() + 1 };
        };
        let used = newline + 1;
        let line = &buffer[..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > limit {
            return self.line_too_long(limit);
        }
        if foreign::is_http(line) {
            return Step::Hangup { why: "HTTP on a Chronos port" };
        }
        if !self.decided && self.lines == Lines::Text && &buffer[..used] == b"PING\r\n" {
            // A load balancer's health check, or redis-benchmark's: decides nothing.
            self.spans.push(Span { start: 0, end: 4, in_scratch: false });
            return self.request(buffer, used, Some(Dialect::Resp2));
        }
        let (spans, scratch) = (&mut self.spans, &mut self.scratch);
        let split = match self.lines {
            Lines::Text => quote::split_line(buffer, 0, line.len(), tail, spans, scratch),
            Lines::Redis => quote::split_like_redis(buffer, 0, line.len(), spans, scratch),
        };
        match split {
            Ok(()) if self.spans.is_empty() => Step::Nothing { used },
            Ok(()) => {
                let answer_in = self.decide_by_line();
                self.request(buffer, used, answer_in)
            }
            Err(_) if self.sent_array || self.lines == Lines::Redis => {
                let answer_in = self.decide_by_line();
                Step::Broken { reply: protocol_error("unbalanced quotes in request".into()), answer_in }
            }
            Err(slip) => {
                let reply = Reply::error(match slip {
                    QuoteError::Unclosed => "ERR unbalanced quotes in request: a quote is not closed",
                    QuoteError::Glued => "ERR unbalanced quotes in request: a blank must follow a closing quote",
                });
                Step::Refused { reply, used, answer_in: self.decide_by_line() }
            }
        }
    }

    /// The decimal number at `from`, up to CRLF.
    #[inline]
    fn number(&mut self, buffer: &[u8], from: usize, searched: usize) -> Number {
        let digits = &buffer[from..];
        // Up to nine digits cannot overflow, and are nearly all there is.
        let mut value = 0;
        let mut len = 0;
        while let Some(digit @ b'0'..=b'9') = digits.get(len) {
            if len == 9 {
                break;
            }
            value = value * 10 + i64::from(digit - b'0');
            len += 1;
        }
        let canonical = len == 1 || (len > 1 && digits[0] != b'0');
        match digits.get(len..len + 2) {
            Some(b"\r\n") if canonical => Number::Value(value, from + len + 2),
            _ => self.unusual_number(buffer, from, searched),
        }
    }

    #[cold]
    fn unusual_number(&mut self, buffer: &[u8], from: usize, searched: usize) -> Number {
        let window = buffer.len().min(from + MAX_HEADER);
        // One byte back: it may have been a CR whose LF had not come.
        let start = searched.saturating_sub(1).clamp(from, window);
        let end = memchr2(b'\r', b'\n', &buffer[start..window]).map(|at| start + at);
        self.note_searched(end.map_or(window, |at| at + 1) - start);
        let Some(end) = end else {
            return if buffer.len() >= from + MAX_HEADER { Number::TooLong } else { Number::Incomplete };
        };
        match (buffer[end], buffer.get(end + 1)) {
            (b'\r', None) => Number::Incomplete,
            (b'\r', Some(b'\n')) => match canonical_i64(&buffer[from..end]) {
                Some(value) => Number::Value(value, end + 2),
                None => Number::Invalid,
            },
            _ => Number::Invalid,
        }
    }

    fn request<'a>(&'a self, buffer: &'a [u8], used: usize, answer_in: Option<Dialect>) -> Step<'a> {
        let request = Request { buffer, scratch: &self.scratch, spans: &self.spans };
        Step::Request { request, used, answer_in }
    }

    fn decide(&mut self, dialect: Dialect) -> Option<Dialect> {
        if self.decided {
            return None;
        }
        self.decided = true;
        self.lines = if dialect == Dialect::Text { Lines::Text } else { Lines::Redis };
        Some(dialect)
    }

    fn decide_by_line(&mut self) -> Option<Dialect> {
        self.decide(match self.lines {
            Lines::Text => Dialect::Text,
            Lines::Redis => Dialect::Resp2,
        })
    }

    #[cold]
    fn out_of_step<'a>(&mut self, what: impl Into<Cow<'static, str>>) -> Step<'a> {
        Step::Broken { reply: protocol_error(what.into()), answer_in: self.decide(Dialect::Resp2) }
    }

    #[cold]
    fn line_too_long<'a>(&mut self, limit: usize) -> Step<'a> {
        let reply = match self.lines {
            Lines::Text => Reply::error(format!("ERR line too long: a line has at most {limit} bytes")),
            Lines::Redis => protocol_error("too big inline request".into()),
        };
        Step::Broken { reply, answer_in: self.decide_by_line() }
    }

    /// Bytes allocated for the words of requests.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.scratch.capacity()
    }

    #[inline]
    fn note_searched(&mut self, _bytes: usize) {
        #[cfg(any(test, fuzzing))]
        {
            self.searched += _bytes;
        }
    }
}

enum Number {
    /// The number, and where the bytes behind its line begin.
    Value(i64, usize),
    Incomplete,
    Invalid,
    TooLong,
}

fn protocol_error(what: Cow<'static, str>) -> Reply {
    Reply::error(format!("ERR Protocol error: {what}"))
}

/// A number as Redis reads it in a header: no sign but a minus, no leading zero.
fn canonical_i64(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'1'..=b'9', ..] => true,
        _ => text == b"0",
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
