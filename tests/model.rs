//! The model test: random operations against a `BTreeMap`, the same kind of list under random options, with and without
//! background threads, with reopenings, and with snapshots that must show for ever what they showed first.
//!
//! `CHRONOS_MODEL_OPS=100000000 CHRONOS_SEED=7 cargo test --release --test model` goes further or replays.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use chronos::codec::Rng;
use chronos::engine::{Clock, Durability, Entry, EntryRef, Snapshot};
use chronos::fs::SimFs;
use chronos::{Db, Options};
use common::{Model, NOW, STRATEGIES, apply, check, encode, number_from_env, random_batch, settle, tiny_options};

/// Operations done by the test command, over all histories together.
const OPERATIONS: u64 = 1_000_000;

const OPERATIONS_PER_HISTORY: u64 = 5_000;

/// A database with background threads on the simulated disk: the interleaving is not repeatable, the answers are.
fn threaded_options(rng: &mut Rng) -> Options {
    Options::new()
        .clock(Clock(Arc::new(|| NOW)))
        .durability(*rng.pick(&[Durability::Always, Durability::Os]))
        .memtable_bytes(*rng.pick(&[2_000, 20_000]))
        .segment_bytes(4_000)
        .table_bytes(*rng.pick(&[1_000, 10_000]))
        .level_bytes(*rng.pick(&[3_000, 30_000]))
        .block_bytes(*rng.pick(&[64, 4_096]))
        .cache_bytes(100_000)
        .compaction(*rng.pick(&STRATEGIES))
        .idle_after(Duration::from_millis(rng.below(5)))
}

fn random_range(rng: &mut Rng, keys: u64) -> (Vec<u8>, Vec<u8>) {
    let mut ends = [rng.below(keys + 1), rng.below(keys + 1)];
    ends.sort_unstable();
    (format!("key{:04}", ends[0]).into_bytes(), format!("key{:04}", ends[1]).into_bytes())
}

fn check_range(snapshot: &Snapshot, model: &Model, rng: &mut Rng, keys: u64) {
    let (from, to) = random_range(rng, keys);
    let expected: Vec<_> = model.range(from.clone()..to.clone()).collect();
    let found: Vec<_> = snapshot.range(from.clone()..to.clone()).map(|entry| entry.unwrap()).collect();
    assert!(
        found.iter().map(|entry| (&*entry.key, &*entry.value)).eq(expected.iter().map(|(k, v)| (&k[..], &v[..]))),
        "a range forward"
    );
    let limit = rng.below(5) as usize;
    let (mut both, mut front, mut back) = (snapshot.range(from.clone()..to.clone()), Vec::new(), Vec::new());
    let own = |entry: Entry| (entry.key.to_vec(), entry.value.to_vec());
    let lent = |entry: EntryRef<'_>| (entry.key.to_vec(), entry.value.to_vec());
    loop {
        let (next, side) = match rng.below(4) {
            0 => (both.next().map(|entry| entry.map(own)), &mut front),
            1 => (both.next_ref().map(|entry| entry.map(lent)), &mut front),
            _ => (both.next_back().map(|entry| entry.map(own)), &mut back),
        };
        let Some(entry) = next else { break };
        side.push(entry.unwrap());
    }
    front.extend(back.into_iter().rev());
    assert!(front.iter().map(|(k, v)| (k, v)).eq(expected.iter().copied()), "a range from both ends");
    let (mut backward, mut taken) = (snapshot.range(from..to).reversed(), Vec::new());
    while taken.len() < limit
        && let Some(entry) = backward.next_ref()
    {
        taken.push(lent(entry.unwrap()));
    }
    assert!(taken.iter().map(|(k, v)| (k, v)).eq(expected.iter().rev().take(limit).copied()), "a range backward");
}

/// A memtable may go so far beyond its size: by the batch that filled it.
const OVERSHOOT: u64 = 10_000;

/// Nothing runs meanwhile: what is accounted for is within the budget, or is nothing that could be let go. Here a write
/// does not wait for a flush, so memtables pile up until the test takes a step.
fn check_memory(db: &Db) {
    let stats = db.stats();
    let (memory, memtables) = (stats.memory, stats.sealed_memtables + 1);
    assert!(
        memory.total() <= memory.budget + memtables.max(4) * OVERSHOOT || memory.blocks + memory.indexes == 0,
        "more memory than there is: {memory:?} with {memtables} memtables"
    );
    assert_eq!((memory.scans, memory.jobs), (0, 0), "charged to nobody: {memory:?}");
}

fn run_history(seed: u64) {
    let mut rng = Rng::new(seed);
    let stepped = rng.chance(3, 4);
    let keys = *rng.pick(&[3, 50, 400]);
    let disk = SimFs::new();
    let options = if stepped { tiny_options(seed) } else { threaded_options(&mut rng) };
    // The clock stands still, so that all versions are kept and the present is what is shown of the past.
    let history = rng.chance(1, 4);
    let options = if history { options.history(Duration::from_secs(60)) } else { options };
    let open = |options: &Options| options.clone().open_on(Arc::new(disk.clone())).unwrap();
    let mut db: Db = open(&options);
    let mut model = Model::new();
    let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
    for _ in 0..OPERATIONS_PER_HISTORY {
        match rng.below(1000) {
            0..=599 => {
                let batch = random_batch(&mut rng, keys);
                // Half of the conditional ones ask for what is not so.
                let key = format!("key{:04}", rng.below(keys)).into_bytes();
                let asked = rng.chance(1, 4).then(|| rng.chance(1, 2));
                let written = match asked {
                    None => db.write(&encode(&batch)).map(|_| true),
                    Some(asked) => db.update(&[&key], |found, out| {
                        let holds = found[0].is_some() == asked;
                        if holds {
                            *out = encode(&batch);
                        }
                        holds
                    }),
                };
                let holds = asked.is_none_or(|asked| model.contains_key(&key) == asked);
                assert_eq!(written.unwrap(), holds, "a write if {key:?} is there: {asked:?}");
                if holds {
                    apply(&mut model, &batch);
                }
            }
            600..=849 => {
                let key = format!("key{:04}", rng.below(keys)).into_bytes();
                assert_eq!(db.get(&key).unwrap().as_deref(), model.get(&key).map(Vec::as_slice), "get {key:?}");
            }
            850..=899 => {
                let keys: Vec<_> =
                    (0..rng.below(40)).map(|_| format!("key{:04}", rng.below(keys)).into_bytes()).collect();
                let found = db.get_many(&keys).unwrap();
                let expected = keys.iter().map(|key| model.get(key).map(Vec::as_slice));
                assert!(found.iter().map(Option::as_deref).eq(expected), "get {keys:?}");
            }
            900..=929 => check_range(&db.snapshot(), &model, &mut rng, keys),
            930..=944 if snapshots.len() < 4 => snapshots.push((db.snapshot(), model.clone())),
            945..=959 if !snapshots.is_empty() => {
                let at = rng.below(snapshots.len() as u64) as usize;
                let (snapshot, shown) = &snapshots[at];
                let key = format!("key{:04}", rng.below(keys)).into_bytes();
                let found = snapshot.get(&key).unwrap();
                assert_eq!(found.as_ref().map(|f| &*f.value), shown.get(&key).map(Vec::as_slice), "snapshot {key:?}");
                check_range(snapshot, shown, &mut rng, keys);
                if rng.chance(1, 2) {
                    snapshots.swap_remove(at);
                }
            }
            960..=994 if stepped => {
                db.step().unwrap();
                check_memory(&db);
            }
            995 => db.flush().unwrap(),
            996 => db.compact().unwrap(),
            997 => {
                check(&db, &model, keys);
                if stepped {
                    check_memory(&db);
                }
                // Without a sync before each answer, the log may not have written the newest yet.
                if history && stepped {
                    let found = db.range_at::<&[u8]>(NOW, ..).unwrap().map(|entry| entry.unwrap());
                    assert!(
                        found.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).eq(model.clone()),
                        "as of now"
                    );
                }
            }
            998 => {
                snapshots.clear();
                db.close().unwrap();
                drop(db);
                // What one strategy has left is any other's to go on with.
                let switched = options.clone().compaction(*rng.pick(&STRATEGIES));
                db = open(if rng.chance(1, 2) { &switched } else { &options });
                check(&db, &model, keys);
            }
            _ => {}
        }
    }
    for (snapshot, shown) in &snapshots {
        check_range(snapshot, shown, &mut rng, keys);
    }
    check(&db, &model, keys);
    drop(snapshots);
    if stepped {
        settle(&db);
        check(&db, &model, keys);
    }
}

#[test]
fn random_operations_give_what_the_model_gives() {
    let first_seed = number_from_env("CHRONOS_SEED", 1);
    let wanted = number_from_env("CHRONOS_MODEL_OPS", OPERATIONS);
    for seed in (first_seed..).take(wanted.div_ceil(OPERATIONS_PER_HISTORY) as usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run_history(seed))) {
            eprintln!("replay: CHRONOS_SEED={seed} CHRONOS_MODEL_OPS=1 cargo test --test model");
            resume_unwind(panic);
        }
    }
}
