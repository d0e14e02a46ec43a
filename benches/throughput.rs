//! What the engine does for somebody who embeds it: fill, overwrite, read, scan, and durable writes.
//!
//! ```text
//! cargo bench --bench throughput [-- NAME ...]
//! ```
//!
//! Not a micro-benchmark harness: each row is one run over a database of its own in a temporary directory, in a
//! process that does nothing else, and prints operations per second. Sizes are those that `db_bench` uses: keys of 16
//! bytes, values of 100 bytes, half of which compress. `CHRONOS_BENCH_KEYS` sets how many (default 1,000,000).

use std::sync::Barrier;
use std::time::Instant;

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::{Db, Options};

const VALUE_BYTES: usize = 100;

fn keys() -> u64 {
    std::env::var("CHRONOS_BENCH_KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"0000000000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn value(rng: &mut Rng) -> [u8; VALUE_BYTES] {
    let mut value = [b'x'; VALUE_BYTES];
    for chunk in value[..VALUE_BYTES / 2].chunks_mut(8) {
        let bits = rng.next_u64().to_le_bytes();
        chunk.copy_from_slice(&bits[..chunk.len()]);
    }
    value
}

fn open(directory: &std::path::Path, durability: Durability) -> Db {
    Options::new().durability(durability).memory(1 << 30).open(directory).expect("open")
}

fn report(name: &str, operations: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{name:36}{:>12.0} /s{:>10.2} s", operations as f64 / seconds, seconds);
}

fn fill(db: &Db, order: impl Iterator<Item = u64>) {
    let mut rng = Rng::new(1);
    for number in order {
        // Even numbers only: the odd ones are absent, but not out of range.
        db.put(&key(2 * number), &value(&mut rng)).expect("put");
    }
}

fn durable(threads: u64, each: u64) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let db = open(home.path(), Durability::Always);
    let start = Barrier::new(threads as usize + 1);
    let mut started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (db, start) = (&db, &start);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                start.wait();
                for number in 0..each {
                    db.put(&key(thread * each + number), &value(&mut rng)).expect("put");
                }
            });
        }
        start.wait();
        started = Instant::now();
    });
    report(&format!("durable put, {threads} threads"), threads * each, started);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let keys = keys();
    println!("{keys} keys of 16 bytes, values of {VALUE_BYTES} bytes");
    let mut rng = Rng::new(7);

    if runs("fillseq") {
        let home = tempfile::tempdir().expect("a temporary directory");
        let db = open(home.path(), Durability::Os);
        let started = Instant::now();
        fill(&db, 0..keys);
        report("fillseq, not synced", keys, started);
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let db = open(home.path(), Durability::Os);
    if runs("random") || runs("scan") || runs("overwrite") {
        let started = Instant::now();
        fill(&db, (0..keys).map(|_| rng.below(keys)));
        report("fillrandom, not synced", keys, started);
    }
    if runs("readrandom") {
        db.compact().expect("compact");
        for (name, odd) in [("readrandom, first pass", 0), ("readrandom", 0), ("readrandom, absent", 1)] {
            let started = Instant::now();
            let found = (0..keys).filter(|_| db.get(&key(2 * rng.below(keys) + odd)).expect("get").is_some()).count();
            report(name, keys, started);
            assert_eq!(found == 0, odd == 1);
        }
    }
    if runs("scan") {
        let scans = keys / 100;
        let started = Instant::now();
        for _ in 0..scans {
            let from = key(2 * rng.below(keys));
            assert!(db.range(&from[..]..).take(50).all(|entry| entry.is_ok()));
        }
        report("scan of 50", scans, started);
    }
    if runs("overwrite") {
        let started = Instant::now();
        fill(&db, (0..2 * keys).map(|_| rng.below(keys)));
        report("overwrite, not synced", 2 * keys, started);
    }
    if runs("durable") {
        durable(1, keys / 200);
        durable(16, keys / 500);
    }
    let stats = db.stats();
    println!("delayed writes {}, for {} us in all", stats.delays.count, stats.delays.total_us);
}
