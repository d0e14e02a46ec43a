//! What single operations of the engine cost, in memory and from cached tables: `cargo bench --bench engine`.
//!
//! Keys of 16 bytes, values of 100 bytes, not synced (`Durability::Os`), so that the disk is left out; throughput with
//! the disk is what `--bench throughput` measures.

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::{Db, Options, WriteBatch};
use divan::{Bencher, black_box};

const KEYS: u64 = 200_000;

fn main() {
    divan::main();
}

/// Where the keys are when they are read.
#[derive(Debug)]
enum Place {
    Memtable,
    Tables,
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:016}").into_bytes()
}

/// The even numbers below `2 * KEYS`.
fn filled(place: &Place) -> (tempfile::TempDir, Db) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let db = Options::new().durability(Durability::Os).memory(1 << 30).open(home.path()).expect("open");
    for number in 0..KEYS {
        db.put(&key(2 * number), &[b'v'; 100]).expect("put");
    }
    if matches!(place, Place::Tables) {
        db.compact().expect("compact");
    }
    (home, db)
}

#[divan::bench(args = [Place::Memtable, Place::Tables])]
fn get_present(bencher: Bencher<'_, '_>, place: &Place) {
    let (_home, db) = filled(place);
    let mut rng = Rng::new(1);
    bencher.with_inputs(|| key(2 * rng.below(KEYS))).bench_local_refs(|key| db.get(black_box(key)).expect("get"));
}

#[divan::bench(args = [Place::Memtable, Place::Tables])]
fn get_absent(bencher: Bencher<'_, '_>, place: &Place) {
    let (_home, db) = filled(place);
    let mut rng = Rng::new(1);
    bencher.with_inputs(|| key(2 * rng.below(KEYS) + 1)).bench_local_refs(|key| db.get(black_box(key)).expect("get"));
}

/// The same beside a thousand range tombstones: newer than the keys, in the memtable, or in a flushed table above those
/// with the keys.
#[divan::bench(args = [Place::Memtable, Place::Tables])]
fn get_present_beside_1000_range_tombstones(bencher: Bencher<'_, '_>, place: &Place) {
    const RANGES: u64 = 1_000;
    let (_home, db) = filled(place);
    // Kept for a snapshot: otherwise what they hide would go, and they with it.
    let _keeps = db.snapshot();
    let every = 2 * KEYS / RANGES;
    for number in 0..RANGES {
        db.delete_range(&key(number * every), Some(&key(number * every + 4))).expect("delete");
    }
    if matches!(place, Place::Tables) {
        db.flush().expect("flush");
    }
    let mut rng = Rng::new(1);
    bencher
        .with_inputs(|| key(rng.below(RANGES) * every + 4 + 2 * rng.below(every / 2 - 2)))
        .bench_local_refs(|key| assert!(db.get(black_box(key)).expect("get").is_some()));
}

/// What the keys of a larger database look like.
#[derive(Debug)]
enum Shape {
    /// `key:000000123456`.
    Numbered,
    /// 16 random bytes.
    Random,
}

impl Shape {
    fn key(&self, number: u64) -> Vec<u8> {
        match self {
            Shape::Numbered => format!("key:{number:012}").into_bytes(),
            Shape::Random => {
                let mut rng = Rng::new(number);
                [rng.next_u64().to_le_bytes(), rng.next_u64().to_le_bytes()].concat()
            }
        }
    }
}

/// A million keys in tables, far more than the processor caches, all of them in the block cache: what is measured is
/// how few cache misses a read can do with.
#[divan::bench(args = [Shape::Numbered, Shape::Random])]
fn get_from_tables_cached(bencher: Bencher<'_, '_>, shape: &Shape) {
    let (_home, db) = cached(shape);
    let mut rng = Rng::new(1);
    bencher.with_inputs(|| shape.key(rng.below(MANY))).bench_local_refs(|key| db.get(black_box(key)).expect("get"));
}

/// The same, sixteen keys at a time: how far their cache misses overlap.
#[divan::bench(args = [Shape::Numbered, Shape::Random])]
fn get_16_from_tables_cached(bencher: Bencher<'_, '_>, shape: &Shape) {
    let (_home, db) = cached(shape);
    let mut rng = Rng::new(1);
    bencher
        .with_inputs(|| -> [Vec<u8>; 16] { std::array::from_fn(|_| shape.key(rng.below(MANY))) })
        .bench_local_refs(|keys| db.get_many(black_box(keys)).expect("get"));
}

const MANY: u64 = 1_000_000;

fn cached(shape: &Shape) -> (tempfile::TempDir, Db) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let db = Options::new().durability(Durability::Os).memory(1 << 30).open(home.path()).expect("open");
    for number in 0..MANY {
        db.put(&shape.key(number), &[b'v'; 100]).expect("put");
    }
    db.compact().expect("compact");
    (0..MANY).for_each(|number| assert!(db.get(&shape.key(number)).expect("get").is_some()));
    (home, db)
}

#[divan::bench(args = [Place::Memtable, Place::Tables])]
fn scan_of_50(bencher: Bencher<'_, '_>, place: &Place) {
    let (_home, db) = filled(place);
    let mut rng = Rng::new(1);
    bencher
        .with_inputs(|| key(2 * rng.below(KEYS)))
        .bench_local_refs(|from| db.range(black_box(&from[..])..).take(50).filter(|entry| entry.is_ok()).count());
}

#[divan::bench]
fn put(bencher: Bencher<'_, '_>) {
    let (_home, db) = filled(&Place::Memtable);
    let mut rng = Rng::new(1);
    bencher
        .with_inputs(|| key(rng.below(2 * KEYS)))
        .bench_local_refs(|key| db.put(black_box(key), &[b'w'; 100]).expect("put"));
}

#[divan::bench]
fn batch_of_100(bencher: Bencher<'_, '_>) {
    let (_home, db) = filled(&Place::Memtable);
    let mut rng = Rng::new(1);
    bencher
        .with_inputs(|| {
            let mut batch = WriteBatch::new();
            (0..100).for_each(|_| batch.put(&key(rng.below(2 * KEYS)), &[b'w'; 100]));
            batch
        })
        .bench_local_refs(|batch| db.write(black_box(batch)).expect("write"));
}
