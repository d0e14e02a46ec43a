//! What opening a database takes, by the number of its tables: time, files opened, bytes read.
//!
//! ```text
//! cargo bench --bench open [-- TABLES ...]
//! ```
//!
//! Databases of tiny tables (100, 1,000 and 20,000 of them by default) stand for large ones: opening knows tables only
//! by the manifest, so their size does not matter, only their number. Each is closed, so that there is no log to replay,
//! and opened several times; the file system's door counts. The first read opens the tables it asks.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chronos::engine::Durability;
use chronos::fs::{File, Fs, LockError, NewDirectory, OsFs};
use chronos::{Db, Options, WriteBatch};

/// Each key fills a block, and that a table of its own.
const TABLE_BYTES: u64 = 1;

const OPENINGS: usize = 7;

/// Reaches the next level only with more tables than are made here: what is made stays as it is.
const LEVEL_BYTES: u64 = 1 << 30;

#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    fn take(&self) -> [u64; 3] {
        [&self.opened, &self.reads, &self.bytes].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

/// The directory, with a count of what is asked of it.
struct Counting {
    inner: OsFs,
    counts: Arc<Counts>,
}

struct CountingFile {
    inner: Arc<dyn File>,
    counts: Arc<Counts>,
}

impl File for CountingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.inner.read_at(buffer, offset)?;
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

impl Fs for Counting {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.inner.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(CountingFile { inner: self.inner.open(name)?, counts: self.counts.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }

    fn lock(&self) -> Result<Box<dyn Send + Sync>, LockError> {
        self.inner.lock()
    }

    fn new_directory(&self, path: &Path) -> io::Result<Box<dyn NewDirectory>> {
        self.inner.new_directory(path)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

fn options() -> Options {
    let options = Options::new().durability(Durability::Os).level_bytes(LEVEL_BYTES);
    options.table_bytes(TABLE_BYTES).block_bytes(TABLE_BYTES as usize)
}

fn key(number: u64) -> String {
    format!("key{number:013}")
}

fn fill(directory: &Path, tables: u64) {
    let db = options().open(directory).expect("open");
    let mut batch = WriteBatch::new();
    for number in 0..tables {
        batch.put(key(number).as_bytes(), b"value");
    }
    // A flush makes one table; what merges two of them cuts the outcome into many.
    for _ in 0..2 {
        db.write(&batch).expect("write");
        db.flush().expect("flush");
    }
    db.compact().expect("compact");
    db.close().expect("close");
}

fn open(directory: &Path, counts: &Arc<Counts>) -> (Db, Duration) {
    let started = Instant::now();
    let inner = OsFs::open(directory).expect("the directory");
    let db = options().open_on(Arc::new(Counting { inner, counts: counts.clone() })).expect("open");
    (db, started.elapsed())
}

fn main() {
    let wanted: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let wanted = if wanted.is_empty() { vec![100, 1_000, 20_000] } else { wanted };
    println!(
        "| tables | manifest | opening, median | files opened | reads | bytes read | first get | files opened by it |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for tables in wanted {
        let home = tempfile::tempdir().expect("a temporary directory");
        fill(home.path(), tables);
        let counts = Arc::new(Counts::default());
        let (mut times, mut gets) = (Vec::new(), Vec::new());
        let (mut opening, mut getting, mut have, mut manifest) = ([0; 3], [0; 3], 0, 0);
        for _ in 0..OPENINGS {
            counts.take();
            let (db, time) = open(home.path(), &counts);
            opening = counts.take();
            have = db.stats().levels.iter().map(|level| level.tables).sum();
            manifest = manifest_bytes(home.path());
            let started = Instant::now();
            assert!(db.get(key(tables / 2).as_bytes()).expect("get").is_some());
            gets.push(started.elapsed());
            getting = counts.take();
            times.push(time);
            db.close().expect("close");
        }
        times.sort();
        gets.sort();
        let ms = |times: &[Duration]| times[OPENINGS / 2].as_secs_f64() * 1e3;
        assert_eq!(have, tables);
        println!(
            "| {have} | {manifest} | {:.2} ms | {} | {} | {} | {:.3} ms | {} |",
            ms(&times),
            opening[0],
            opening[1],
            opening[2],
            ms(&gets),
            getting[0]
        );
    }
}

fn manifest_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("the directory").flatten();
    let manifests = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "manifest"));
    manifests.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
