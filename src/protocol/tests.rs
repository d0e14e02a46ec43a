//! The protocol as a whole: golden scripts of what is sent and what is understood, and the promise that no split of the
//! bytes makes a difference.
//!
//! `UPDATE_GOLDEN=1 cargo test protocol::` writes the golden files anew; read the difference before you commit it.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::fuzz::{small_limits, tail, understood};
use super::*;
use crate::protocol::quote::unquote;
use crate::protocol::reply_reader::encode_command;

fn golden_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/protocol").join(name)
}

/// Compares with a golden file, or writes it.
pub(super) fn matches_golden(name: &str, actual: &str) {
    let path = golden_file(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    assert!(golden == actual, "{} differs; UPDATE_GOLDEN=1 shows how with git diff. Now:\n{actual}", path.display());
}

/// One connection of a golden script.
struct Conversation<'s> {
    /// The script's lines but for the outcome.
    lines: Vec<&'s str>,
    limits: Limits,
    stream: Vec<u8>,
}

/// What a `<` line stands for: the escapes of a double-quoted word, while a quote itself needs none.
fn bytes_of(sent: &str) -> Vec<u8> {
    let mut word = String::from("\"");
    let mut characters = sent.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => word += "\\\"",
            '\\' => word.extend(['\\'].into_iter().chain(characters.next())),
            other => word.push(other),
        }
    }
    unquote((word + "\"").as_bytes()).unwrap_or_else(|| panic!("no escapes: {sent}"))
}

/// Reads a script: blank lines separate connections, `#` comments, `%` options, `<` what is sent (see
/// [`bytes_of`]). Lines of `>` are the outcome, and skipped.
fn conversations(script: &str) -> Vec<Conversation<'_>> {
    let mut all = Vec::new();
    for block in script.split("\n\n") {
        let mut conversation = Conversation { lines: Vec::new(), limits: Limits::default(), stream: Vec::new() };
        for line in block.lines().filter(|line| !line.starts_with('>')) {
            conversation.lines.push(line);
            if let Some(sent) = line.strip_prefix("< ") {
                conversation.stream.extend(bytes_of(sent));
            } else if let Some(option) = line.strip_prefix("% ") {
                match option.split_once(' ') {
                    Some(("max-line", n)) => conversation.limits.max_line = n.parse().unwrap(),
                    Some(("max-inline", n)) => conversation.limits.max_inline = n.parse().unwrap(),
                    Some(("max-args", n)) => conversation.limits.max_args = n.parse().unwrap(),
                    Some(("max-bulk", n)) => conversation.limits.max_bulk = n.parse().unwrap(),
                    Some(("max-request", n)) => conversation.limits.max_request = n.parse().unwrap(),
                    Some(("inline-replies", "resp")) => conversation.limits.inline_replies = InlineReplies::Resp,
                    _ => panic!("unknown option: {line}"),
                }
            } else {
                assert!(line.starts_with('#') || line.is_empty(), "neither #, %, < nor >: {line}");
            }
        }
        all.push(conversation);
    }
    all
}

const SCRIPTS: [&str; 3] = ["text.txt", "resp.txt", "mixed.txt"];

#[test]
fn requests_are_understood_as_the_golden_scripts_say() {
    for name in SCRIPTS {
        let script = fs::read_to_string(golden_file(name)).unwrap();
        let mut blocks = Vec::new();
        for Conversation { mut lines, limits, stream } in conversations(&script) {
            let steps: Vec<String> =
                understood(limits, &stream, &[]).into_iter().map(|step| format!("> {step}")).collect();
            lines.extend(steps.iter().map(String::as_str));
            blocks.push(lines.join("\n"));
        }
        matches_golden(name, &(blocks.join("\n\n") + "\n"));
    }
}

#[test]
fn no_split_of_a_golden_script_makes_a_difference() {
    for name in SCRIPTS {
        let script = fs::read_to_string(golden_file(name)).unwrap();
        for Conversation { lines, limits, stream } in conversations(&script) {
            let whole = understood(limits, &stream, &[]);
            for cut in 0..stream.len() {
                assert_eq!(understood(limits, &stream, &[cut]), whole, "cut at {cut}: {lines:?}");
            }
            let each_byte: Vec<usize> = (0..stream.len()).collect();
            assert_eq!(understood(limits, &stream, &each_byte), whole, "byte by byte: {lines:?}");
        }
    }
}

/// Bytes that are likely to mean something, so that garbage gets far.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"*2\r\n",
        b"*1\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*99999999999\r\n",
        b"$4\r\nPING\r\n",
        b"$3\r\nGET\r\n",
        b"$1\r\nk\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$9\r\nhalf",
        b"PING\r\n",
        b"SET k \"v\\x41\" EX 60\r\n",
        b"SET k rest of the line \n",
        b"GET 'it\\'s'\n",
        b"ECHO \"open\r\n",
        b"ECHO \"a\"b\n",
        b"\r\n",
        b"\xff\xf4\xff\xfd\x06",
        b"\xff\xfa\x18\x00xterm\xff\xf0",
        b"\x16",
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\n",
        b" \t",
        b"\\",
        b"\"",
        b"\r",
        b"\n",
        b"*",
        b"$",
    ];
    prop_oneof![
        6 => proptest::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_chunking_of_any_stream_gives_the_same_steps(
        fragments in proptest::collection::vec(fragment(), 0..12),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        small: bool,
        resp: bool,
    ) {
        let stream = fragments.concat();
        let mut limits = if small { small_limits() } else { Limits::default() };
        if resp {
            limits.inline_replies = InlineReplies::Resp;
        }
        let mut pieces: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        pieces.sort_unstable();
        let whole = understood(limits, &stream, &[]);
        prop_assert_eq!(&understood(limits, &stream, &pieces), &whole);
        let each_byte: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&understood(limits, &stream, &each_byte), &whole);
    }

    #[test]
    fn what_a_client_encodes_is_what_is_understood(
        commands in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..6), 1..6),
    ) {
        let mut stream = Vec::new();
        for command in &commands {
            encode_command(command, &mut stream);
        }
        let mut decoder = Decoder::new(Limits::default());
        let mut rest = &stream[..];
        for command in &commands {
            let Step::Request { request, used, .. } = decoder.decode(rest, &tail) else { panic!("no request") };
            prop_assert_eq!(&request.args(0).map(<[u8]>::to_vec).collect::<Vec<_>>(), command);
            rest = &rest[used..];
        }
        prop_assert!(rest.is_empty());
    }
}

/// Feeds `stream` in pieces of `piece` bytes without consuming; returns the bytes searched and the calls.
fn work(limits: Limits, stream: &[u8], piece: usize) -> (usize, usize) {
    let mut decoder = Decoder::new(limits);
    let mut calls = 0;
    for received in (0..stream.len()).step_by(piece).chain([stream.len()]) {
        calls += 1;
        match decoder.decode(&stream[..received], &tail) {
            Step::Incomplete { .. } => assert!(received < stream.len()),
            Step::Request { used, .. } => assert_eq!((received, used), (stream.len(), stream.len())),
            other => panic!("{other:?}"),
        }
    }
    (decoder.searched, calls)
}

#[test]
fn a_large_bulk_costs_its_header_however_small_the_pieces() {
    let mut stream = Vec::new();
    encode_command(&[&b"SET"[..], b"k", &vec![b'\n'; 64 << 20]], &mut stream);
    for piece in [1, 1000, 64 << 10] {
        let (searched, _) = work(Limits::default(), &stream, piece);
        // Headers that are cut in two are searched again: a few bytes each.
        assert!(searched < 200, "{searched} bytes searched in pieces of {piece}");
    }
}

#[test]
fn many_small_bulks_are_not_read_again() {
    let mut stream = Vec::new();
    encode_command(&vec![&b"abcdefgh"[..]; 20_000], &mut stream);
    let (searched, _) = work(Limits::default(), &stream, 1);
    assert!(searched < 2 * stream.len(), "{searched} bytes searched of {}", stream.len());
    assert_eq!(work(Limits::default(), &stream, stream.len()).0, 0, "whole headers take the short way");
}

#[test]
fn a_long_line_is_searched_once() {
    let mut stream = b"SET k ".to_vec();
    stream.resize(1 << 20, b'v');
    stream.push(b'\n');
    for piece in [1, 1000, 64 << 10] {
        let (searched, _) = work(Limits::default(), &stream, piece);
        assert_eq!(searched, stream.len(), "in pieces of {piece}");
    }
}

#[test]
fn an_endless_number_is_searched_once_and_then_given_up() {
    for before in ["*", "*1\r\n$"] {
        let stream = [before.as_bytes(), &b"1".repeat(64 << 10)].concat();
        let mut decoder = Decoder::new(Limits::default());
        for len in 1..stream.len() {
            assert!(matches!(decoder.decode(&stream[..len], &tail), Step::Incomplete { .. }), "{len}");
        }
        assert!(matches!(decoder.decode(&stream, &tail), Step::Broken { .. }));
        assert!(decoder.searched < 3 * stream.len(), "{} bytes searched behind {before:?}", decoder.searched);
    }
}

#[test]
fn a_quiet_connection_keeps_little_room() {
    let mut decoder = Decoder::new(Limits::default());
    let words = [&b"GET "[..], &br#""\n" "#.repeat(10_000), b"\n"].concat();
    let word = [&b"GET \""[..], &br"\n".repeat(10_000), b"\"\n"].concat();
    for stream in [words, word].iter().cycle().take(10) {
        assert!(matches!(decoder.decode(stream, &tail), Step::Request { used, .. } if used == stream.len()));
        assert!(matches!(decoder.decode(b"", &tail), Step::Incomplete { at_least: 1 }));
        assert!(decoder.room() <= 16 << 10, "{} bytes kept", decoder.room());
    }
}

#[test]
fn announced_lengths_allocate_nothing() {
    let mut decoder = Decoder::new(Limits::default());
    let step = decoder.decode(b"*1048576\r\n$536870912\r\n", &tail);
    assert!(matches!(step, Step::Incomplete { at_least } if at_least == 22 + (512 << 20) + 2), "{step:?}");
    assert!(format!("{decoder:?}").contains("spans: []"));
}

#[test]
fn hello_in_an_array_switches_to_the_lines_of_redis_and_on_a_line_keeps_those_of_text() {
    let words = |hello: &[u8]| {
        let mut decoder = Decoder::new(Limits::default());
        let step = decoder.decode(b"PING x\r\n", &tail);
        assert!(matches!(step, Step::Request { answer_in: Some(Dialect::Text), .. }), "{step:?}");
        let step = decoder.decode(hello, &tail);
        assert!(matches!(step, Step::Request { answer_in: None, .. }), "{step:?}");
        decoder.switch_to_resp();
        let Step::Request { request, answer_in: None, .. } = decoder.decode(b"SET k a\"b\" c\n", &tail) else {
            panic!()
        };
        request.args(0).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(words(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"), [&b"SET"[..], b"k", b"ab", b"c"]);
    assert_eq!(words(b"HELLO 3\r\n"), [&b"SET"[..], b"k", b"a\"b\" c"]);
}
