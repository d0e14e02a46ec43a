//! Tests over the whole table, and golden scripts of requests and replies.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::spec::Spec;
use super::{Context, Ending, Environment, Session, dispatch, refusal, syntax, table, tail_argument};
use crate::engine::{self, SeqNo};
use crate::keyspace::testing::Fixture;
use crate::protocol::request::Span;
use crate::protocol::{Dialect, Reply, Request, Row};

/// One connection to a keyspace of its own, whose clock the test sets.
struct Client {
    fixture: Fixture,
    environment: Environment,
    session: Session,
    depends: SeqNo,
}

impl Client {
    fn new() -> Client {
        let fixture = Fixture::new();
        let environment = Environment {
            started: Instant::now(),
            started_at_unix_ms: 0,
            port: 6379,
            databases: 16,
            checkpoint_dir: Some(fixture.directory.path().join("checkpoints")),
            connected_clients: AtomicU64::new(1),
            total_connections: AtomicU64::new(1),
            rejected_connections: AtomicU64::new(0),
            total_commands: AtomicU64::new(0),
            config: vec![("save".into(), "".into()), ("maxclients".into(), "10000".into())],
            shutting_down: AtomicBool::new(false),
            request_shutdown: Box::new(|| {}),
        };
        let mut session = Session::new(1, "127.0.0.1:1".to_owned());
        session.dialect = Dialect::Resp2;
        Client { fixture, environment, session, depends: SeqNo(0) }
    }

    fn call(&mut self, words: &[&[u8]]) -> Reply {
        let buffer = words.concat();
        let mut start = 0;
        let span = |word: &&[u8]| {
            let from = start;
            start += word.len();
            Span { start: from, end: start, in_scratch: false }
        };
        let spans: Vec<Span> = words.iter().map(span).collect();
        let mut context = Context {
            keyspace: &self.fixture.keyspace,
            environment: &self.environment,
            session: &mut self.session,
            depends: SeqNo(0),
        };
        let reply = dispatch(&mut context, &Request { buffer: &buffer, scratch: b"", spans: &spans });
        self.depends = context.depends;
        reply
    }

    fn line(&mut self, line: &str) -> String {
        let words = words(line);
        let reply = self.call(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        show(&reply)
    }
}

/// The words of a script's line: blanks between, double quotes with `\n`, `\"`, `\\` and `\xHH`.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim().as_bytes();
    while let Some(&first) = rest.first() {
        let mut word = Vec::new();
        if first == b'"' {
            rest = &rest[1..];
            while rest[0] != b'"' {
                let (byte, used) = match rest {
                    [b'\\', b'x', high, low, ..] => {
                        let digits = [*high, *low];
                        (u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap(), 4)
                    }
                    [b'\\', b'n', ..] => (b'\n', 2),
                    [b'\\', other, ..] => (*other, 2),
                    _ => (rest[0], 1),
                };
                word.push(byte);
                rest = &rest[used..];
            }
            rest = &rest[1..];
        } else {
            let len = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
            word.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
        }
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    words
}

/// A reply as the scripts have it: what a RESP2 client would see, in one line.
fn show(reply: &Reply) -> String {
    let quoted = |bytes: &[u8]| format!("\"{}\"", bytes.escape_ascii());
    let list = |replies: Vec<String>| format!("[{}]", replies.join(", "));
    match reply {
        Reply::Status(text) => format!("+{text}"),
        Reply::Error(text) => format!("-{}", text.replace(['\r', '\n'], " ")),
        Reply::Int(value) => format!(":{value}"),
        Reply::Double(value) => quoted(value.to_string().as_bytes()),
        Reply::Bulk(bytes) => quoted(bytes),
        Reply::Text(text) | Reply::Lines(text) => quoted(text.as_bytes()),
        Reply::Nil => "nil".to_owned(),
        Reply::Array(replies) | Reply::Set(replies) => list(replies.iter().map(show).collect()),
        Reply::Map(fields) => list(fields.iter().flat_map(|field| [show(&field.0), show(&field.1)]).collect()),
        Reply::Rows(rows) => list(rows.iter().flat_map(Row::words).map(|word| quoted(word)).collect()),
        Reply::Deleted { count, .. } => format!(":{count}"),
        Reply::Stream(rows) => format!("{rows:?}"),
    }
}

/// Runs a script: lines `> request`, each followed by its reply; `# advance N` moves the clock by milliseconds, other
/// lines that begin with `#` are remarks. Each script begins with an empty keyspace. Tells the script as it should have
/// been, and what was wrong.
fn run_script(script: &str) -> (String, Vec<String>) {
    let mut client = Client::new();
    let (mut right, mut wrong) = (String::new(), Vec::new());
    let mut lines = script.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        right += &format!("{line}\n");
        if let Some(ms) = line.strip_prefix("# advance ") {
            client.fixture.advance(ms.parse().unwrap());
        }
        let Some(request) = line.strip_prefix("> ") else { continue };
        let is_reply = |line: &str| !(line.is_empty() || line.starts_with('#') || line.starts_with("> "));
        let expected = lines.next_if(|line| is_reply(line.1)).map_or("", |line| line.1);
        let got = client.line(request);
        if got != expected {
            wrong.push(format!("line {}: {request}\n  expected {expected}\n  got      {got}", number + 1));
        }
        right += &format!("{got}\n");
    }
    (right, wrong)
}

/// Recorded by `tests/golden/record.py`, so that no Redis is needed here.
#[test]
fn replies_are_those_that_redis_gave() {
    let (_, wrong) = run_script(include_str!("../../tests/golden/commands-redis.txt"));
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// What Redis has not, or has otherwise. With `UPDATE_GOLDEN=1` the replies are written, to be read by somebody.
#[test]
fn chronos_replies_are_those_recorded() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/commands-chronos.txt");
    let (right, wrong) = run_script(&std::fs::read_to_string(path).unwrap());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, right).unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

fn every_spec() -> Vec<(String, &'static Spec, usize)> {
    let mut all = Vec::new();
    for spec in table::all() {
        all.push((spec.name.to_owned(), spec, 1));
        all.extend(spec.subcommands.iter().map(|sub| (format!("{} {}", spec.name, sub.name), sub, 2)));
    }
    all
}

#[test]
fn every_row_is_whole_and_its_arity_is_its_syntax() {
    let mut names = HashSet::new();
    for (name, spec, depth) in every_spec() {
        assert!(names.insert(name.clone()), "{name} is there twice");
        assert_eq!(spec.name, spec.name.to_uppercase());
        assert!(!spec.summary.is_empty() && !spec.summary.ends_with('.'), "{name}: {}", spec.summary);
        let (least, more) = syntax::words(&syntax::parse(spec.syntax));
        let least = (least + depth) as i32;
        // QUIT takes anything, as in Redis; a container's own arity is that of asking for a subcommand.
        if name != "QUIT" {
            assert_eq!(spec.arity, if more { -least } else { least }, "{name} {}", spec.syntax);
        }
        if let Some(tail) = spec.tail {
            assert!(tail < spec.arity.unsigned_abs() as usize, "{name}");
            assert_eq!(tail_argument(spec.name.to_lowercase().as_bytes()), Some(tail));
        }
        let example = words(spec.example);
        assert!(spec.example.to_uppercase().starts_with(&name), "{name}: {}", spec.example);
        match spec.tail {
            Some(tail) => assert!(example.len() > tail, "{name}"),
            None => assert!(spec.accepts(example.len()), "{name}: {}", spec.example),
        }
        for position in spec.keys.positions(example.len()) {
            assert!(position >= depth && position < example.len(), "{name}");
        }
    }
}

#[test]
fn examples_run_and_wrong_arity_is_refused() {
    for (name, spec, _) in every_spec() {
        let mut client = Client::new();
        let mut example = words(spec.example);
        if let Some(tail) = spec.tail {
            let rest = example.split_off(tail).join(&b' ');
            example.push(rest);
        }
        let call =
            |client: &mut Client, words: &[Vec<u8>]| client.call(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let reply = call(&mut client, &example);
        let refused = matches!(&reply, Reply::Error(_));
        let shall_refuse = spec.summary.starts_with("Refused") || spec.summary.ends_with("refused") || name == "AUTH";
        assert_eq!(refused, shall_refuse, "{} -> {reply:?}", spec.example);

        let name = name.to_lowercase().replace(' ', "|");
        let refusal = Reply::error(format!("ERR wrong number of arguments for '{name}' command"));
        let names = || name.split('|').map(|word| word.as_bytes().to_vec());
        let least = spec.arity.unsigned_abs() as usize;
        if least > names().count() {
            let short: Vec<Vec<u8>> =
                names().chain(std::iter::repeat_n(b"1".to_vec(), least)).take(least - 1).collect();
            assert_eq!(call(&mut client, &short), refusal, "{name}");
        }
        if spec.arity > 0 {
            let long: Vec<Vec<u8>> = names().chain(std::iter::repeat_n(b"1".to_vec(), least)).take(least + 1).collect();
            assert_eq!(call(&mut client, &long), refusal, "{name}");
        }
    }
}

#[test]
fn names_are_found_in_any_case_and_nothing_else_is() {
    for spec in table::all() {
        for name in [spec.name.to_owned(), spec.name.to_lowercase()] {
            assert!(std::ptr::eq(table::find(name.as_bytes()).unwrap(), spec));
        }
        assert!(table::find(&spec.name.as_bytes()[1..]).is_none_or(|other| other.name != spec.name));
    }
    for name in [&b""[..], b"GETT", b"\xff\xff", &[b'A'; 1000]] {
        assert!(table::find(name).is_none());
    }
}

#[test]
fn every_reply_depends_on_what_it_saw() {
    let mut client = Client::new();
    client.line("SET a 1");
    let first = client.depends;
    assert!(first > SeqNo(0));
    client.line("SET b 2");
    let second = client.depends;
    assert!(second > first);
    for (request, depends) in [
        ("GET a", first),
        ("GET none", SeqNo(0)),
        ("STRLEN a", first),
        ("MGET a none", first),
        ("EXISTS a b", second),
        ("KEYS a*", second),
        ("SCAN 0", second),
        ("DBSIZE", second),
        ("RANGE - +", second),
        ("RANGE.COUNT - +", second),
        ("INFO keyspace", second),
        ("TTL b", second),
        ("SET a 3 NX", first),
        ("DEL none", SeqNo(0)),
        ("PING", SeqNo(0)),
    ] {
        client.line(request);
        assert_eq!(client.depends, depends, "{request}");
    }
    // Even a refusal tells what the key holds.
    client.line("SET text abc");
    let third = client.depends;
    assert!(client.line("INCR text").starts_with("-ERR"));
    assert_eq!(client.depends, third);
}

#[test]
fn msetnx_of_many_threads_happens_once_as_a_whole() {
    let client = Client::new();
    let keyspace = &client.fixture.keyspace;
    let winners = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let winners = &winners;
            scope.spawn(move || {
                for round in 0..50u8 {
                    let (a, b) = ([b'a', round], [b'b', round]);
                    let value = [thread];
                    let pairs = [(&a[..], &value[..]), (&b[..], &value[..])];
                    if keyspace.database(0).put_many_if_absent(pairs.into_iter()).unwrap().value {
                        winners.lock().push((round, thread));
                    }
                }
            });
        }
    });
    let mut winners = winners.into_inner();
    winners.sort_unstable();
    assert!(winners.iter().map(|winner| winner.0).eq(0..50), "each round is won once");
    for (round, thread) in winners {
        for key in [b'a', b'b'] {
            let value = keyspace.database(0).get(&[key, round]).unwrap().value.unwrap();
            assert_eq!(&*value.data, [thread]);
        }
    }
}

#[test]
fn what_is_too_long_is_refused_and_changes_nothing() {
    let mut client = Client::new();
    let longest = vec![b'k'; crate::engine::MAX_KEY_BYTES - 32];
    let too_long = vec![b'k'; longest.len() + 1];
    assert_eq!(client.call(&[b"SET", &longest, b"v", b"PX", b"5"]), Reply::OK);
    assert_eq!(
        client.call(&[b"SETRANGE", &longest, b"536870911", b"xy"]),
        Reply::Error(refusal::Refusal::STRING_TOO_LONG.0)
    );
    for request in [&[&b"GET"[..], &too_long][..], &[b"SET", &too_long, b"v"], &[b"MSET", b"a", b"1", &too_long, b"v"]]
    {
        let Reply::Error(text) = client.call(request) else { panic!("a long key was taken") };
        assert_eq!(text, "ERR key of 65505 bytes is too long, the limit is 65504 bytes");
    }
    assert_eq!(client.line("DBSIZE"), ":1");
}

#[test]
fn engine_errors_become_replies_that_say_what_to_do() {
    let text = |error: engine::Error| refusal::Refusal::from(error).0.into_owned();
    assert_eq!(text(engine::Error::Closed), "ERR the server is shutting down");
    assert_eq!(
        text(engine::Error::ReadOnly("disk full".into())),
        "MISCONF not written, the database is read-only until its disk recovers: disk full"
    );
    let corrupt = engine::Error::Corrupt { file: "7.sst".into(), what: "bad checksum".into(), offset: 9 };
    assert_eq!(text(corrupt), "ERR 7.sst: bad checksum at byte 9");
}

#[test]
fn hello_changes_the_dialect_and_quit_closes() {
    let mut client = Client::new();
    client.session.dialect = Dialect::Text;
    assert!(matches!(client.call(&[b"HELLO"]), Reply::Map(_)));
    assert_eq!(client.session.dialect, Dialect::Text);
    assert!(matches!(client.call(&[b"hello", b"3", b"SETNAME", b"me"]), Reply::Map(_)));
    assert_eq!((client.session.dialect, &client.session.name[..]), (Dialect::Resp3, &b"me"[..]));
    client.line("SELECT 3");
    client.line("HELLO 2");
    assert_eq!(client.session.dialect, Dialect::Resp2);
    client.line("RESET");
    assert_eq!((client.session.database, client.session.name.len()), (0, 0));
    assert_eq!(client.session.ending, None);
    client.line("QUIT");
    assert_eq!(client.session.ending, Some(Ending::Answered));
}

#[test]
fn shutdown_asks_the_server_to_end() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    let mut client = Client::new();
    client.environment.request_shutdown = Box::new(|| ASKED.store(true, Ordering::SeqCst));
    assert_eq!(client.line("SHUTDOWN SAVE NOSAVE"), "-ERR syntax error");
    assert!(!ASKED.load(Ordering::SeqCst));
    assert_eq!(client.session.ending, None);
    client.line("SHUTDOWN NOSAVE");
    assert_eq!(client.session.ending, Some(Ending::Unanswered));
    assert!(ASKED.load(Ordering::SeqCst));
}

#[test]
fn info_has_the_fields_that_clients_ask_for() {
    let mut client = Client::new();
    client.line("SET a 1");
    client.line("SET b 1 PX 500");
    client.line("SAVE");
    let Reply::Lines(text) = client.call(&[b"INFO"]) else { panic!("INFO is no text") };
    for name in [
        "redis_version:7.2",
        "arch_bits:",
        "process_id:",
        "uptime_in_seconds:",
        "connected_clients:1",
        "blocked_clients:",
        "used_memory:",
        "total_connections_received:",
        "total_commands_processed:",
        "role:master",
        "cluster_enabled:0",
        "rdb_bgsave_in_progress:",
        "aof_enabled:",
        "aof_rewrite_in_progress:",
        "loading:0",
        "level0:tables=1,bytes=",
        "level6:tables=0,bytes=0,entries=0,tombstones=0,range_tombstones=0,written=0",
        "flushes:1",
        "compactions_for_flushed:0",
        "write_amplification:",
        "db0:keys=2,expires=1,avg_ttl=500",
    ] {
        assert!(text.contains(&format!("\r\n{name}")), "{name} is not in\n{text}");
    }
    assert!(text.lines().count() == text.matches("\r\n").count());
    let Reply::Lines(text) = client.call(&[b"INFO", b"keyspace"]) else { panic!("INFO is no text") };
    assert!(text.starts_with("# Keyspace\r\n") && !text.contains("redis_version"));
}

#[test]
fn docs_info_md_has_every_field() {
    let mut client = Client::new();
    client.line("SET key value");
    let _snapshot = client.fixture.keyspace.db.snapshot_for("the test");
    let written = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/info.md")).unwrap();
    let Reply::Lines(text) = client.call(&[b"INFO"]) else { panic!("INFO is text") };
    let named = |name: &str| written.contains(&format!("`{name}`"));
    let fields = text.lines().filter_map(|line| Some(line.split_once(':')?.0));
    let missing = fields.filter(|name| {
        let numbered = format!("{}N", name.trim_end_matches(|c: char| c.is_ascii_digit()));
        let by_reason = name.strip_prefix("compactions_for_").is_some_and(named);
        !named(name) && !named(&numbered) && !by_reason
    });
    assert_eq!(missing.collect::<Vec<_>>(), [""; 0]);
}
