//! Large values in tables and apart from them: bytes written for each byte given, space, and what a read costs.
//!
//! ```text
//! cargo bench --bench values
//! ```
//!
//! For each size of values: a database is filled in random order and overwritten three times in random order, not synced,
//! once with all values in tables and once with all in blob files. Space is the most that was seen while overwriting. Half of
//! each value compresses. Then values are read at random, from the page cache. `CHRONOS_BENCH_DATA` sets how many MiB the
//! data has (default 512), `CHRONOS_BENCH_MEMORY` how many MiB of memory (default 64).

use std::path::Path;
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::{Db, Options};

const SIZES: [usize; 5] = [256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];
const OVERWRITES: u64 = 3;
const READS: u64 = 50_000;
/// How often space is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SETTLED_AFTER: Duration = Duration::from_secs(3);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"key0000000000000";
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Half random, half not.
fn fill(value: &mut [u8], rng: &mut Rng) {
    let half = value.len() / 2;
    for chunk in value[..half].chunks_mut(8) {
        chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
    }
}

fn bytes_on_disk(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).expect("a directory").filter_map(Result::ok);
    let data = files.filter(|file| file.path().extension().is_some_and(|end| end == "sst" || end == "blob"));
    data.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum()
}

fn settle(db: &Db) {
    let shape = |db: &Db| db.stats().levels.map(|level| (level.tables, level.written_bytes));
    let (mut last, mut since) = (shape(db), Instant::now());
    while since.elapsed() < SETTLED_AFTER {
        std::thread::sleep(Duration::from_millis(50));
        let now = shape(db);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

fn run(size: usize, threshold: Option<usize>) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let memory = number("CHRONOS_BENCH_MEMORY", 64) << 20;
    let options = Options::new().durability(Durability::Os).memory(memory as usize).idle_after(Duration::from_secs(1));
    let db = options.blob_threshold(threshold).open(home.path()).expect("open");
    let keys = (number("CHRONOS_BENCH_DATA", 512) << 20) / size as u64;
    let mut rng = Rng::new(7);
    let mut value = vec![b'v'; size];
    let started = Instant::now();
    let (mut most, mut looked) = (0, started);
    for n in 0..keys * (1 + OVERWRITES) {
        fill(&mut value, &mut rng);
        db.put(&key(rng.below(keys)), &value).expect("put");
        if n >= keys && looked.elapsed() >= LOOK_EVERY {
            most = most.max(bytes_on_disk(home.path()));
            looked = Instant::now();
        }
    }
    let took = started.elapsed();
    let written = db.stats().write_amplification();
    settle(&db);
    let after = bytes_on_disk(home.path());
    db.compact().expect("compact");
    let least = bytes_on_disk(home.path());
    let started = Instant::now();
    let mut found = 0;
    for _ in 0..READS {
        found += u64::from(db.get(&key(rng.below(keys))).expect("get").is_some());
    }
    let read = started.elapsed() / READS as u32;
    let started = Instant::now();
    let scanned: usize = db.range::<&[u8]>(..).map(|entry| entry.expect("scan").value.len()).sum();
    let scan = scanned as f64 / started.elapsed().as_secs_f64() / 1e6;
    let place = if threshold.is_some() { "blobs" } else { "tables" };
    println!(
        "{size:>6}  {place:<6}  written {written:>5.2} (settled {:>5.2})  space {:>4.2} (settled {:>4.2})  {:>6.1} MB/s  \
         get {:>6.1} us ({} of {READS})  scan {scan:>6.0} MB/s",
        db.stats().write_amplification(),
        most as f64 / least as f64,
        after as f64 / least as f64,
        (keys * (1 + OVERWRITES) * size as u64) as f64 / took.as_secs_f64() / 1e6,
        read.as_secs_f64() * 1e6,
        found,
    );
}

fn main() {
    for size in SIZES {
        run(size, None);
        run(size, Some(1));
    }
}
