//! Whether the process stays within what it was given: ten times the budget is loaded, scanned both ways, read at random
//! and merged, through the library and through a server.
//!
//! ```text
//! cargo bench --bench memory [-- library | server]
//! ```
//!
//! Keys of 16 bytes in random order, values of 400 bytes of which half compresses, not synced. The most that was resident
//! (`VmHWM`) may exceed the budget by [`SLACK`], or the bench fails. `CHRONOS_BENCH_MEMORY` sets one budget in MiB instead
//! of [`BUDGETS`], `CHRONOS_BENCH_TIMES` how many times the budget is loaded, `CHRONOS_BENCH_COMPRESSION` is `none`, `lz4`
//! or `zstd`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use chronos::engine::{Compression, Durability, Range};
use chronos::{Db, Options};

/// In MiB.
const BUDGETS: [u64; 2] = [64, 256];

/// What a process may take besides its budget.
const SLACK: u64 = 64 << 20;

const VALUE_BYTES: usize = 400;

/// Entries of a page that is asked of the server.
const PAGE: usize = 1000;

/// How many keys are read at random.
const READS: u64 = 20_000;

/// Set for the process that does the work.
const CHILD: &str = "CHRONOS_BENCH_CHILD";

fn setting(name: &str) -> Option<String> {
    std::env::var(format!("CHRONOS_BENCH_{name}")).ok()
}

fn number(name: &str) -> Option<u64> {
    setting(name)?.parse().ok()
}

fn keys(budget: u64) -> u64 {
    number("TIMES").unwrap_or(10) * (budget << 20) / (16 + VALUE_BYTES as u64)
}

fn compression() -> String {
    setting("COMPRESSION").unwrap_or_else(|| "lz4".to_owned())
}

/// The n-th of the keys, in an order that looks random.
fn key(n: u64, keys: u64) -> String {
    // A prime: every key comes once.
    format!("{:016}", (u128::from(n) * 4_294_967_291 % u128::from(keys)) as u64)
}

fn fill(value: &mut [u8; VALUE_BYTES], rng: &mut Rng) {
    for chunk in value[..VALUE_BYTES / 2].chunks_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
    }
    value[VALUE_BYTES / 2..].fill(b'v');
}

/// The most that was ever resident, of a process.
fn peak(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn report(what: &str, process: &str, started: Instant) {
    println!("  {what:<26} {:>8.1} s {:>8.0} MiB at most so far", started.elapsed().as_secs_f64(), mib(peak(process)));
}

/// Everything through the library, in this process.
fn library(budget: u64) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let compression = match &*compression() {
        "none" => Compression::None,
        "zstd" => Compression::Zstd,
        _ => Compression::Lz4,
    };
    let options = Options::new().durability(Durability::Os).memory((budget << 20) as usize).compression(compression);
    let db = options.open(home.path()).expect("open");
    let keys = keys(budget);
    let mut rng = Rng::new(1);
    let mut value = [0; VALUE_BYTES];
    let told = |db: &Db| {
        let memory = db.stats().memory;
        assert!(memory.total() <= memory.budget, "{memory:?}");
    };
    let started = Instant::now();
    for n in 0..keys {
        fill(&mut value, &mut rng);
        db.put(key(n, keys).as_bytes(), &value).expect("put");
        if n % 10_000 == 0 {
            told(&db);
        }
    }
    report("filled", "self", started);
    let started = Instant::now();
    assert_eq!(count(db.range::<&[u8]>(..)), keys);
    report("scanned", "self", started);
    let started = Instant::now();
    assert_eq!(count(db.range::<&[u8]>(..).reversed()), keys);
    report("scanned backward", "self", started);
    let started = Instant::now();
    for _ in 0..READS {
        assert!(db.get(key(rng.below(keys), keys).as_bytes()).expect("get").is_some());
    }
    report("read at random", "self", started);
    told(&db);
    let started = Instant::now();
    db.compact().expect("compact");
    report("merged", "self", started);
    let started = Instant::now();
    for _ in 0..READS {
        assert!(db.get(key(rng.below(keys), keys).as_bytes()).expect("get").is_some());
    }
    report("read at random again", "self", started);
    told(&db);
    let stats = db.stats();
    println!("  {} keys, {:.0} MiB of tables, {:?}", keys, mib(stats.table_bytes()), stats.memory);
    check(peak("self"), budget);
}

fn count(range: Range) -> u64 {
    let mut entries = 0;
    for entry in range {
        entry.expect("entry");
        entries += 1;
    }
    entries
}

fn check(peak: u64, budget: u64) {
    assert!(peak <= (budget << 20) + SLACK, "{:.0} MiB resident with a budget of {budget} MiB", mib(peak));
}

/// A server, ended when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing else can be done about either.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything through a server of its own.
fn server(budget: u64) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let port = number("PORT").unwrap_or(7750).to_string();
    let memory = format!("{budget}MiB");
    let directory = home.path().join("data");
    let child = Command::new(env!("CARGO_BIN_EXE_chronos-server"))
        .args(["--port", &port, "--durability", "os", "--memory", &memory, "--compression", &compression(), "--dir"])
        .arg(&directory)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the server");
    let process = child.id().to_string();
    let _server = Server(child);
    let address = format!("127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(20);
    let socket = loop {
        match TcpStream::connect(&address) {
            Ok(socket) => break socket,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut replies = BufReader::new(socket.try_clone().expect("a second handle"));
    let mut requests = socket;

    let keys = keys(budget);
    let mut rng = Rng::new(1);
    let mut value = [0; VALUE_BYTES];
    let started = Instant::now();
    let mut n = 0;
    while n < keys {
        let page = (keys - n).min(PAGE as u64);
        let mut bytes = Vec::new();
        for n in n..n + page {
            fill(&mut value, &mut rng);
            put_request(&mut bytes, &[b"SET", key(n, keys).as_bytes(), &value]);
        }
        requests.write_all(&bytes).expect("send");
        for _ in 0..page {
            assert_eq!(line(&mut replies), "+OK");
        }
        n += page;
    }
    report("filled", &process, started);

    let started = Instant::now();
    let mut seen = 0;
    let mut start = b"-".to_vec();
    loop {
        let mut bytes = Vec::new();
        put_request(&mut bytes, &[b"RANGE", &start, b"+", b"LIMIT", PAGE.to_string().as_bytes()]);
        requests.write_all(&bytes).expect("send");
        let entries = array(&mut replies);
        seen += entries.len() as u64 / 2;
        let [.., last, _] = &entries[..] else { break };
        start = [last, &[0][..]].concat();
    }
    assert_eq!(seen, keys);
    report("scanned in pages", &process, started);

    let started = Instant::now();
    let mut bytes = Vec::new();
    put_request(&mut bytes, &[b"COMPACT"]);
    requests.write_all(&bytes).expect("send");
    assert!(line(&mut replies).starts_with('+'));
    report("merged", &process, started);
    check(peak(&process), budget);
}

fn put_request(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn line(replies: &mut impl BufRead) -> String {
    let mut line = String::new();
    replies.read_line(&mut line).expect("a reply");
    line.trim_end().to_owned()
}

/// An array of strings.
fn array(replies: &mut impl BufRead) -> Vec<Vec<u8>> {
    let head = line(replies);
    let len: usize = head.strip_prefix('*').and_then(|len| len.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    let string = |_| {
        let head = line(replies);
        let len: usize = head.strip_prefix('$').and_then(|len| len.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        let mut bytes = vec![0; len + 2];
        replies.read_exact(&mut bytes).expect("a reply");
        bytes.truncate(len);
        bytes
    };
    (0..len).map(string).collect()
}

fn main() {
    if let Some(budget) = std::env::var(CHILD).ok().and_then(|text| text.parse().ok()) {
        return library(budget);
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let budgets = number("MEMORY").map_or(BUDGETS.to_vec(), |budget| vec![budget]);
    for &budget in &budgets {
        if wanted("library") {
            println!("library, {budget} MiB");
            // A process of its own: what was once resident stays in its figure.
            let this = std::env::current_exe().expect("this program");
            let status = Command::new(this).env(CHILD, budget.to_string()).status().expect("a child");
            assert!(status.success(), "the library has failed with {budget} MiB");
        }
        if wanted("server") {
            println!("server, {budget} MiB");
            server(budget);
        }
    }
}
