//! Writes at full speed for as long as one likes: how long the slowest take, and why.
//!
//! ```text
//! cargo bench --bench overwrite
//! ```
//!
//! 5,000,000 keys of 16 bytes and values of 100 that do not compress, filled, and then overwritten in random order by two
//! threads, not synced. `CHRONOS_BENCH_SECONDS` sets for how long (default 120), `CHRONOS_BENCH_THREADS` by how many,
//! `CHRONOS_BENCH_KEYS` how many keys, `CHRONOS_BENCH_MEMORY` how many MiB of memory (default 256), `CHRONOS_BENCH_HISTORY`
//! how many seconds of history are kept (default 0).

use std::thread;
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::{Db, Options};
use hdrhistogram::Histogram;

const VALUE_BYTES: usize = 100;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn put(db: &Db, rng: &mut Rng, key: u64) {
    let mut value = [0; VALUE_BYTES];
    for chunk in value.chunks_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
    }
    db.put(format!("{key:016}").as_bytes(), &value).expect("put");
}

/// Puts random keys until the time is over: how long each put took, in microseconds.
fn overwrite(db: &Db, seed: u64, keys: u64, until: Instant) -> Histogram<u64> {
    let mut rng = Rng::new(seed);
    let mut micros = Histogram::new(3).expect("three digits are possible");
    let mut last = Instant::now();
    while last < until {
        let key = rng.below(keys);
        put(db, &mut rng, key);
        let now = Instant::now();
        micros.record((now - last).as_micros() as u64).expect("it grows as needed");
        last = now;
    }
    micros
}

/// Processor time of this process, user and system.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // In hundredths of a second, behind the name: state is field 0 here, utime 11, stime 12.
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn main() {
    let keys = setting("CHRONOS_BENCH_KEYS", 5_000_000);
    let threads = setting("CHRONOS_BENCH_THREADS", 2);
    let memory = setting("CHRONOS_BENCH_MEMORY", 256) as usize;
    let time = Duration::from_secs(setting("CHRONOS_BENCH_SECONDS", 120));

    let home = tempfile::tempdir().expect("a temporary directory");
    let history = Duration::from_secs(setting("CHRONOS_BENCH_HISTORY", 0));
    let options = Options::new().durability(Durability::Os).memory(memory << 20).history(history);
    let db = options.open(home.path()).expect("open");
    let mut rng = Rng::new(1);
    for key in 0..keys {
        put(&db, &mut rng, key);
    }
    db.compact().expect("compact");

    let (before, cpu_before, started) = (db.stats(), cpu(), Instant::now());
    let until = started + time;
    let micros = thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn({
                    let db = &db;
                    move || overwrite(db, n + 2, keys, until)
                })
            })
            .collect();
        let mut all: Histogram<u64> = Histogram::new(3).expect("three digits are possible");
        for writer in writers {
            all += writer.join().expect("a writer");
        }
        all
    });
    let (after, cpu, took) = (db.stats(), cpu() - cpu_before, started.elapsed());

    println!("{threads} threads overwrite {keys} keys for {} s, {memory} MiB of memory", time.as_secs());
    println!("{:<40}{:>12.0}", "writes/s", micros.len() as f64 / took.as_secs_f64());
    for quantile in [0.5, 0.99, 0.999, 0.9999, 1.0] {
        let name = if quantile == 1.0 { "worst, ms".to_owned() } else { format!("p{}, ms", quantile * 100.0) };
        println!("{name:<40}{:>12.3}", micros.value_at_quantile(quantile) as f64 / 1000.0);
    }
    for (name, before, after) in [
        ("slowed down", before.delays, after.delays),
        ("waited for flush", before.flush_waits, after.flush_waits),
        ("waited for log", before.log_waits, after.log_waits),
    ] {
        let (writes, seconds) = (after.count - before.count, (after.total_us - before.total_us) as f64 / 1e6);
        let longest = after.longest_us as f64 / 1000.0;
        println!("{name:<28}{writes:>12} writes, {seconds:>8.1} s together, {longest:>8.1} ms longest");
    }
    println!("{:<40}{:>12.2}", "processors busy", cpu.as_secs_f64() / took.as_secs_f64());
}
