//! Any bytes as requests and as replies: however they are cut, the same is understood, and nothing is searched twice.

#![allow(clippy::unwrap_used, reason = "a fuzz target may")]

use super::quote::quote;
use super::reply_reader::ReplyReader;
use super::{Decoder, Dialect, InlineReplies, Limits, Reply, Step};
use crate::codec::Rng;
use crate::fuzz::Input;

/// ```text
/// input := options: u8 | cuts: u8 | stream             options: 1 small limits, 2 every line is read as Redis does
/// ```
pub(crate) fn requests(input: &[u8]) {
    let mut input = Input::new(input);
    let (options, cuts, stream) = (input.u8(), input.u8(), input.rest());
    let mut limits = if options & 1 != 0 { small_limits() } else { Limits::default() };
    if options & 2 != 0 {
        limits.inline_replies = InlineReplies::Resp;
    }
    let whole = understood(limits, stream, &[]);
    assert_eq!(understood(limits, stream, &random_cuts(cuts, stream.len())), whole, "in pieces");
    let each_byte: Vec<usize> = (0..stream.len().min(BYTE_BY_BYTE)).collect();
    assert_eq!(understood(limits, stream, &each_byte), whole, "byte by byte");
}

/// Each piece is a copy of all that was not consumed: more would be quadratic.
const BYTE_BY_BYTE: usize = 300;

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    [
        &b"PING\r\nGET user:101\r\nset k {\"a\": 1}\n"[..],
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\n*-1\r\n",
        b"HELLO 3\r\nSET k \"v\\x41\\n\" EX 60\r\n",
        b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\nSET k a\"b\" c\nGET 'it\\'s'\n",
        b"\xff\xf4\xff\xfd\x06ECHO \"open\r\n\xff\xfa\x18\0x\xff\xf0",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"\x16\x03\x01",
        b"*1\r\n$99999999999\r\n",
        b"*1048577\r\n",
    ]
    .iter()
    .flat_map(|stream| [0, 1, 2, 3].map(|options| [&[options, 1], *stream].concat()))
    .collect()
}

pub(super) fn small_limits() -> Limits {
    Limits { max_line: 48, max_inline: 24, max_args: 4, max_bulk: 16, max_request: 64, ..Limits::default() }
}

fn random_cuts(seed: u8, len: usize) -> Vec<usize> {
    let mut rng = Rng::new(seed.into());
    let mut cuts: Vec<usize> = (0..rng.below(8)).map(|_| rng.below(len as u64 + 1) as usize).collect();
    cuts.sort_unstable();
    cuts
}

/// The commands of these tests whose last argument takes the rest of the line.
pub(super) fn tail(name: &[u8]) -> Option<usize> {
    match name.to_ascii_lowercase().as_slice() {
        b"echo" => Some(1),
        b"set" => Some(2),
        b"setex" => Some(3),
        _ => None,
    }
}

pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    quote(bytes, &mut out);
    String::from_utf8(out).unwrap()
}

/// Feeds a stream in pieces and writes down what comes of it, one line a step; `pieces` are where the stream is cut.
/// HELLO does what a connection does when it has run it.
pub(super) fn understood(limits: Limits, stream: &[u8], pieces: &[usize]) -> Vec<String> {
    let mut decoder = Decoder::new(limits);
    let mut steps = Vec::new();
    let mut consumed = 0;
    for &received in pieces.iter().chain([&stream.len()]) {
        loop {
            // A fresh allocation for every call: nothing may depend on where the bytes lie.
            let buffer = stream[consumed..received].to_vec();
            let in_dialect = |answer_in: Option<Dialect>| match answer_in {
                Some(dialect) => format!("{dialect:?}: "),
                None => String::new(),
            };
            match decoder.decode(&buffer, &tail) {
                Step::Request { request, used, answer_in } => {
                    let words: Vec<String> = request.args(0).map(quoted).collect();
                    steps.push(format!("{}request {}", in_dialect(answer_in), words.join(" ")));
                    consumed += used;
                    if request.arg(0).eq_ignore_ascii_case(b"hello") {
                        decoder.switch_to_resp();
                    }
                }
                Step::Incomplete { at_least } => {
                    assert!(at_least > buffer.len(), "a hint that what is there is enough");
                    break;
                }
                Step::Nothing { used } => consumed += used,
                Step::Refused { reply, used, answer_in } => {
                    steps.push(format!("{}refused {}", in_dialect(answer_in), error_text(&reply)));
                    consumed += used;
                }
                Step::Broken { reply, answer_in } => {
                    steps.push(format!("{}broken {}", in_dialect(answer_in), error_text(&reply)));
                    return steps;
                }
                Step::Hangup { why } => {
                    steps.push(format!("hangup {why}"));
                    return steps;
                }
            }
        }
    }
    if consumed < stream.len() {
        steps.push(format!("left {} bytes", stream.len() - consumed));
    }
    // Headers that are cut in two are searched again.
    let most = SEARCHED_TIMES * stream.len() + SEARCHED_BESIDES;
    assert!(decoder.searched <= most, "{} bytes searched of {}", decoder.searched, stream.len());
    steps
}

const SEARCHED_TIMES: usize = 3;
const SEARCHED_BESIDES: usize = 64;

fn error_text(reply: &Reply) -> &str {
    match reply {
        Reply::Error(text) => text,
        other => panic!("an error is answered with {other:?}"),
    }
}

/// ```text
/// input := cuts: u8 | stream
/// ```
pub(crate) fn replies(input: &[u8]) {
    let mut input = Input::new(input);
    let (cuts, stream) = (input.u8(), input.rest());
    let whole = replies_in(stream, &[]);
    assert_eq!(replies_in(stream, &random_cuts(cuts, stream.len())), whole, "in pieces");
    let each_byte: Vec<usize> = (0..stream.len().min(BYTE_BY_BYTE)).collect();
    assert_eq!(replies_in(stream, &each_byte), whole, "byte by byte");
}

pub(crate) fn reply_seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x01+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*0\r\n_\r\n,3.5\r\n,-inf\r\n#t\r\n(123\r\n"
            .to_vec(),
        b"\x02*2\r\n=6\r\ntxt:hi\r\n!5\r\nERR x\r\n%2\r\n+a\r\n*1\r\n:1\r\n+b\r\n~1\r\n:2\r\n".to_vec(),
        b"\x03|1\r\n+ttl\r\n:1\r\n>1\r\n+p\r\n*9223372036854775807\r\n:1\r\n".to_vec(),
        b"\x04$9223372036854775807\r\nabc".to_vec(),
    ]
}

fn replies_in(stream: &[u8], pieces: &[usize]) -> Vec<String> {
    let mut reader = ReplyReader::new();
    let mut told = Vec::new();
    let mut consumed = 0;
    for &received in pieces.iter().chain([&stream.len()]) {
        loop {
            let buffer = stream[consumed..received].to_vec();
            match reader.read(&buffer) {
                Ok(None) => break,
                Ok(Some((value, used))) => {
                    assert!(used > 0 && used <= buffer.len(), "a reply of {used} bytes in {}", buffer.len());
                    // Not every number is equal to itself.
                    told.push(format!("{value:?}"));
                    consumed += used;
                }
                Err(error) => {
                    told.push(error.to_string());
                    return told;
                }
            }
        }
    }
    told.push(format!("left {} bytes", stream.len() - consumed));
    told
}
