//! How fast a table is written and read, on one core and without a disk: `cargo bench --bench table`.
//!
//! One million entries, keys of 16 and values of 100 bytes that compress to about half. The lower floors are private
//! to the library, so they are compiled into this program; that this works shows that no arrow points up.

#![allow(dead_code, unused_imports, missing_docs)]

#[path = "../src/codec/mod.rs"]
mod codec;
#[path = "../src/fs/mod.rs"]
mod fs;
#[path = "../src/storage/mod.rs"]
mod storage;

use std::hint::black_box;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, LazyLock, RwLock};

use codec::hash::KeyHash;
use codec::{Rng, SeqNo};
use divan::Bencher;
use divan::counter::ItemsCount;
use fs::File;
use storage::sstable::{Compression, ReadMode, Table, TableOptions, TableWriter};
use storage::{BlockCache, Kind, TableId};

const ENTRIES: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;
const PUT: Kind = Kind::Put { expires_at: None };

fn main() {
    divan::main();
}

/// A file in memory.
#[derive(Default)]
struct Memory(RwLock<Vec<u8>>);

impl File for Memory {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.0.write().expect("no holder panics");
        assert_eq!(file.len() as u64, offset, "tables are written from front to back");
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.0.read().expect("no holder panics");
        let rest = &file[offset as usize..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().expect("no holder panics").len() as u64)
    }
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user:00000000000";
    let mut rest = n;
    for digit in key[5..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Values are windows into this: half of it random, half of it not.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::new(1);
    (0..1 << 20).map(|n| if n / 50 % 2 == 0 { rng.next_u64() as u8 } else { b'x' }).collect()
});

fn write(compression: Compression) -> Arc<Memory> {
    let file = Arc::new(Memory(RwLock::new(Vec::with_capacity(256 << 20))));
    let options = TableOptions { compression, ..TableOptions::default() };
    let mut writer = TableWriter::new(file.clone(), "bench.sst", TableId(1), options);
    for n in 0..ENTRIES {
        let at = (n as usize * 100) % (NOISE.len() - VALUE_BYTES);
        writer.add(&key(n), SeqNo(ENTRIES + n), PUT, &NOISE[at..at + VALUE_BYTES]).expect("memory takes all");
    }
    writer.finish().expect("memory takes all");
    file
}

fn open(compression: Compression, cache_bytes: u64) -> Arc<Table> {
    let cache = Arc::new(BlockCache::with_capacity(cache_bytes));
    Arc::new(Table::open(write(compression), "bench.sst", TableId(1), cache).expect("just written"))
}

#[divan::bench(args = [Compression::None, Compression::Lz4], sample_count = 5, sample_size = 1)]
fn build(bencher: Bencher<'_, '_>, compression: Compression) {
    LazyLock::force(&NOISE);
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| write(compression));
}

/// Random keys that are there, out of so many that lie side by side, all blocks cached: few stay in the processor's own
/// caches, many do not.
#[divan::bench(args = [10_000, ENTRIES], sample_count = 20, sample_size = 10_000)]
fn get_cached(bencher: Bencher<'_, '_>, among: u64) {
    let table = open(Compression::Lz4, 1 << 30);
    let mut rng = Rng::new(2);
    for n in 0..ENTRIES {
        get(&table, &key(n));
    }
    bencher.with_inputs(|| key(rng.below(among))).bench_local_refs(|key| assert!(get(&table, key)));
}

/// Random keys that are there, no block cached: one read, checksum and decompression each.
#[divan::bench(args = [Compression::None, Compression::Lz4], sample_count = 20, sample_size = 10_000)]
fn get_uncached(bencher: Bencher<'_, '_>, compression: Compression) {
    let table = open(compression, 0);
    let mut rng = Rng::new(2);
    bencher.with_inputs(|| key(rng.below(ENTRIES))).bench_local_refs(|key| assert!(get(&table, key)));
}

/// Keys within the table's range that are not there.
#[divan::bench(sample_count = 20, sample_size = 10_000)]
fn get_absent(bencher: Bencher<'_, '_>) {
    let table = open(Compression::Lz4, 1 << 30);
    let mut rng = Rng::new(2);
    let absent = |n| {
        let mut key = key(n);
        key[15] = b'x';
        key
    };
    bencher.with_inputs(|| absent(rng.below(ENTRIES))).bench_local_refs(|key| get(&table, key));
}

fn get(table: &Table, key: &[u8]) -> bool {
    table.get(black_box(key), SeqNo::MAX, KeyHash::of(key)).expect("just written").is_some()
}

#[divan::bench(args = [ReadMode::Cached, ReadMode::Streaming], sample_count = 5, sample_size = 1)]
fn scan_forward(bencher: Bencher<'_, '_>, mode: ReadMode) {
    let table = open(Compression::Lz4, 1 << 30);
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| {
        let mut iter = table.iter_forward(Bound::Unbounded, mode);
        let mut bytes = 0;
        while iter.advance().expect("just written") {
            bytes += black_box(iter.key()).len() + iter.value_bytes().len();
        }
        bytes
    });
}

#[divan::bench(args = [ReadMode::Cached, ReadMode::Streaming], sample_count = 5, sample_size = 1)]
fn scan_backward(bencher: Bencher<'_, '_>, mode: ReadMode) {
    let table = open(Compression::Lz4, 1 << 30);
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| {
        let mut iter = table.iter_backward(Bound::Unbounded, mode);
        let mut bytes = 0;
        while iter.advance().expect("just written") {
            bytes += black_box(iter.key()).len() + iter.value_bytes().len();
        }
        bytes
    });
}
