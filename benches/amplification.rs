//! What compaction costs: space while everything is overwritten and after it has settled, bytes written for each byte
//! given, and memory while everything is merged.
//!
//! ```text
//! cargo bench --bench amplification [-- leveled | tiered]
//! ```
//!
//! Keys of 16 bytes and values of 100 that do not compress, in random order, not synced. Space is that of all tables and
//! blob files on disk, also those being written and those not deleted yet, beside those of a freshly filled and compacted
//! database. `CHRONOS_BENCH_KEYS` sets how many keys (default 5,000,000), `CHRONOS_BENCH_VALUE` how many bytes a value has,
//! `CHRONOS_BENCH_MEMORY` how many MiB of memory there are (default 256).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use chronos::engine::{Durability, Stats, Strategy};
use chronos::{Db, Options};

/// How often space and memory are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// After this time without flushes level 0 is emptied.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// A tree that has not changed for this long has settled.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Puts every key once, in an order that looks random.
fn put_all(db: &Db, keys: u64, value_bytes: usize, seed: u64) {
    // Primes: every key comes once, each time in another order.
    let step = [4_294_967_291, 4_294_967_279][seed as usize % 2];
    let mut rng = Rng::new(seed);
    let mut value = vec![0; value_bytes];
    for n in 0..keys {
        for chunk in value.chunks_mut(8) {
            chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
        }
        let key = format!("{:016}", (u128::from(n + seed) * step % u128::from(keys)) as u64);
        db.put(key.as_bytes(), &value).expect("put");
    }
}

fn settle(db: &Db, directory: &Path) {
    let shape = |stats: Stats| stats.levels.map(|level| (level.tables, level.written_bytes));
    let (mut last, mut since) = (shape(db.stats()), Instant::now());
    while since.elapsed() < SETTLED_AFTER {
        std::thread::sleep(LOOK_EVERY);
        let now = shape(db.stats());
        // A file that no version has is a compaction that runs.
        if now != last || bytes_on_disk(directory) != bytes_in_force(&db.stats()) {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Bytes of the files of the version in force.
fn bytes_in_force(stats: &Stats) -> u64 {
    stats.table_bytes() + stats.blobs.bytes
}

/// Bytes of all tables and blob files, whether a version has them or not.
fn bytes_on_disk(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).expect("a directory").filter_map(Result::ok);
    let data = files.filter(|file| file.path().extension().is_some_and(|end| end == "sst" || end == "blob"));
    data.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum()
}

/// What the process has in memory apart from files that it has mapped.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Does `work`; the most that `look` saw meanwhile, and its mean.
fn watched(look: impl Fn() -> u64 + Sync, work: impl FnOnce()) -> (u64, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = vec![look()];
            while !done.load(Ordering::Acquire) {
                std::thread::sleep(LOOK_EVERY);
                seen.push(look());
            }
            (seen.iter().copied().max().unwrap_or(0), seen.iter().sum::<u64>() / seen.len() as u64)
        });
        work();
        done.store(true, Ordering::Release);
        watcher.join().expect("the watcher")
    })
}

fn run(name: &str, strategy: Strategy) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let home = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new()
        .durability(Durability::Os)
        .memory((number("CHRONOS_BENCH_MEMORY", 256) << 20) as usize)
        .idle_after(IDLE_AFTER);
    let db = options.compaction(strategy).open(home.path()).expect("open");
    let (keys, value_bytes) = (number("CHRONOS_BENCH_KEYS", 5_000_000), number("CHRONOS_BENCH_VALUE", 100) as usize);
    let written = |stats: &Stats| (stats.user_bytes, stats.flushed_bytes + stats.compaction_written_bytes);
    let amplification = |before: &Stats, after: &Stats| {
        let ((given_before, before), (given, after)) = (written(before), written(after));
        (after - before) as f64 / (given - given_before) as f64
    };

    let empty = db.stats();
    put_all(&db, keys, value_bytes, 1);
    settle(&db, home.path());
    let filled = db.stats();
    let (most, _) = watched(resident_bytes, || db.compact().expect("compact"));
    let memory = mib(most);
    let compacted = db.stats();
    let base = bytes_in_force(&compacted);
    println!("{name}: {keys} keys, {:.0} MiB", mib(base));
    println!("  filled at random, bytes written for each byte given  {:>8.2}", amplification(&empty, &filled));
    println!("  memory while all of it is merged, most, MiB          {memory:>8.0}");

    let started = Instant::now();
    let (most, mean) = watched(|| bytes_on_disk(home.path()), || put_all(&db, keys, value_bytes, 2));
    let took = started.elapsed();
    let (most_after, _) = watched(|| bytes_on_disk(home.path()), || settle(&db, home.path()));
    let settled = db.stats();
    let times = |bytes: u64| bytes as f64 / base as f64;
    println!(
        "  overwritten in {:.1} s: space, mean and most          {:>8.2} {:>8.2}",
        took.as_secs_f64(),
        times(mean),
        times(most)
    );
    println!("  while it settles, most                               {:>8.2}", times(most_after));
    println!("  settled                                              {:>8.2}", times(bytes_on_disk(home.path())));
    println!("  bytes written for each byte given                    {:>8.2}", amplification(&compacted, &settled));
    for (level, is) in settled.levels.iter().enumerate().filter(|(_, is)| is.tables > 0) {
        println!(
            "  level {level}: {} tables, {:.0} MiB, {:.0} MiB written",
            is.tables,
            mib(is.bytes),
            mib(is.written_bytes)
        );
    }
    println!("  compactions: {:?}, {} of them moves", settled.compaction_reasons, settled.moves);

    // Half of the keys go; nobody writes after that.
    for n in (0..keys).step_by(2) {
        db.delete(format!("{n:016}").as_bytes()).expect("delete");
    }
    db.flush().expect("flush");
    settle(&db, home.path());
    println!("  every other key deleted, settled                     {:>8.2}", times(bytes_on_disk(home.path())));
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for (name, strategy) in [("leveled", Strategy::Leveled), ("tiered", Strategy::Tiered)] {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            run(name, strategy);
        }
    }
}
