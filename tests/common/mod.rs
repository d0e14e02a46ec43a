//! What the engine's tests share: small random histories, and the model that they are held against.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use chronos::engine::{Clock, Compression, Entropy, Strategy};
use chronos::{Db, Error, Options, WriteBatch};

/// A hang is a failure, not a stuck test run.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The time of the tests: it stands still, so that what expires is the history's own doing.
pub const NOW: u64 = 1_000_000;

/// What a database should hold.
pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// One change of a batch; a value that has expired already is as good as a delete.
#[derive(Clone, Debug)]
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    PutExpired(Vec<u8>, Vec<u8>),
    /// Only for tests whose clock moves: the model does not know time.
    PutUntil(Vec<u8>, Vec<u8>, u64),
    Delete(Vec<u8>),
    /// All keys from the first to before the second; without that, to the last.
    DeleteRange(Vec<u8>, Option<Vec<u8>>),
}

/// Waits until `done` says so.
pub fn until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < DEADLINE, "it never happened");
        std::thread::yield_now();
    }
}

/// Runs `work` with a deadline.
pub fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(DEADLINE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("it panicked"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

/// Changes that must appear together or not at all.
pub fn random_batch(rng: &mut Rng, keys: u64) -> Vec<Change> {
    let changes = if rng.chance(1, 5) { 1 + rng.below(4) } else { 1 };
    (0..changes).map(|_| random_change(rng, keys)).collect()
}

fn random_change(rng: &mut Rng, keys: u64) -> Change {
    // Mostly a few keys; now and then all behind one, or none at all.
    if rng.chance(1, 25) {
        let start = rng.below(keys + 1);
        let end = start + if rng.chance(1, 10) { rng.below(keys + 1) } else { rng.below(5) };
        let end = (!rng.chance(1, 40)).then(|| format!("key{end:04}").into_bytes());
        return Change::DeleteRange(format!("key{start:04}").into_bytes(), end);
    }
    let key = format!("key{:04}", rng.below(keys)).into_bytes();
    match rng.below(10) {
        0..=1 => Change::Delete(key),
        2 => Change::PutExpired(key, random_value(rng)),
        _ => Change::Put(key, random_value(rng)),
    }
}

fn random_value(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.chance(1, 20) { rng.below(700) } else { rng.below(24) };
    // Half of the values repeat one byte: something for the compression to find.
    match rng.chance(1, 2) {
        true => vec![rng.next_u64() as u8; len as usize],
        false => (0..len).map(|_| rng.next_u64() as u8).collect(),
    }
}

pub fn encode(changes: &[Change]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for change in changes {
        match change {
            Change::Put(key, value) => batch.put(key, value),
            Change::PutExpired(key, value) => batch.put_expiring(key, value, NOW - 1),
            Change::PutUntil(key, value, at) => batch.put_expiring(key, value, *at),
            Change::Delete(key) => batch.delete(key),
            Change::DeleteRange(start, end) => batch.delete_range(start, end.as_deref()),
        }
    }
    batch
}

pub fn apply(model: &mut Model, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) | Change::PutUntil(key, value, _) => drop(model.insert(key.clone(), value.clone())),
            Change::PutExpired(key, _) | Change::Delete(key) => drop(model.remove(key)),
            Change::DeleteRange(start, end) => {
                model.retain(|key, _| key < start || end.as_ref().is_some_and(|end| key >= end));
            }
        }
    }
}

/// Every strategy that loses nothing.
pub const STRATEGIES: [Strategy; 3] =
    [Strategy::Leveled, Strategy::Tiered, Strategy::Fifo { max_age: None, max_bytes: None }];

/// Options so small that a few hundred writes cross every boundary, with no thread and no chance of its own.
pub fn tiny_options(seed: u64) -> Options {
    let mut rng = Rng::new(seed);
    let salts = parking_lot::Mutex::new(Rng::new(seed ^ 0xdead_beef));
    Options::new()
        .stepped()
        .clock(Clock(std::sync::Arc::new(|| NOW)))
        .entropy(Entropy(std::sync::Arc::new(move || salts.lock().next_u64())))
        .memtable_bytes(*rng.pick(&[500, 2_000, 6_000]))
        .segment_bytes(*rng.pick(&[600, 1_500, 4_000]))
        .table_bytes(*rng.pick(&[300, 1_000, 5_000]))
        .level_bytes(*rng.pick(&[1_000, 4_000]))
        .block_bytes(*rng.pick(&[1, 64, 300, 4_096]))
        .cache_bytes(*rng.pick(&[0, 1_000, 1_000_000]))
        .compression(*rng.pick(&[Compression::None, Compression::Lz4, Compression::Zstd]))
        // Mostly the strategy that most databases have.
        .compaction(if rng.chance(1, 2) { Strategy::Leveled } else { *rng.pick(&STRATEGIES) })
        .compaction_threads(*rng.pick(&[1, 2, 5]))
        .blob_threshold(*rng.pick(&[None, None, Some(1), Some(15), Some(100)]))
}

/// Steps that a tree of these tests may take to settle at most.
const MAX_STEPS: usize = 2_000;

/// Does all background work of a stepped database: there is an end to it.
pub fn settle(db: &Db) {
    let mut steps = 0;
    while db.step().unwrap() {
        steps += 1;
        assert!(steps < MAX_STEPS, "it never settles: {:?}", db.stats());
    }
}

/// Everything that a range scan finds.
pub fn contents(db: &Db) -> Result<Model, Error> {
    db.range::<&[u8]>(..).map(|entry| entry.map(|entry| (entry.key.to_vec(), entry.value.to_vec()))).collect()
}

/// That scans in both directions and point reads agree with the model.
pub fn check(db: &Db, model: &Model, keys: u64) {
    assert_eq!(&contents(db).unwrap(), model, "a forward scan");
    let backward: Vec<Vec<u8>> = db.range::<&[u8]>(..).reversed().map(|entry| entry.unwrap().key.to_vec()).collect();
    assert!(backward.iter().eq(model.keys().rev()), "a backward scan");
    for key in 0..keys {
        let key = format!("key{key:04}").into_bytes();
        assert_eq!(db.get(&key).unwrap().as_deref(), model.get(&key).map(Vec::as_slice), "get {key:?}");
    }
}

/// A number from the environment, for replaying a failure or going further than the test command does.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}
