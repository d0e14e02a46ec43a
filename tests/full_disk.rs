//! A start on a disk that can be read but takes no writes, because it is full or for worse reasons. It succeeds, serves
//! everything acknowledged, refuses writes, resumes when the disk does; and a crash at any moment of it loses nothing.
//!
//! `CHRONOS_FULL_RUNS=20000 CHRONOS_SEED=7 cargo test --release --test full_disk` goes further or replays. The same with
//! the real server and a real full disk is in `tests/exhaustion.rs`.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use chronos::codec::Rng;
use chronos::engine::{Durability, Entropy};
use chronos::fs::sim::{CallKind, CrashPolicy, Effect, Errno, Fault, Times};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error};
use common::{Change, Model, apply, contents, encode, number_from_env, random_batch, tiny_options};
use parking_lot::Mutex;

/// Runs done by the test command.
const RUNS: u64 = 400;

const KEYS: u64 = 30;

fn durability(seed: u64) -> Durability {
    if seed.is_multiple_of(4) { Durability::Os } else { Durability::Always }
}

/// With salts of its own for each opening: stale bytes of an older file must not look like this one's.
fn open(disk: &SimFs, seed: u64) -> Result<Db, Error> {
    let salts = Mutex::new(Rng::new(seed + ((disk.calls() as u64) << 32)));
    let entropy = Entropy(Arc::new(move || salts.lock().next_u64()));
    tiny_options(seed).entropy(entropy).durability(durability(seed)).open_on(Arc::new(disk.clone()))
}

/// From some call on nothing is written; or the directory is not synced once. A sync of what is already there goes on working, as it does on a full disk.
fn fill(disk: &SimFs, rng: &mut Rng) {
    let error = *rng.pick(&[Errno::NOSPC, Errno::DQUOT, Errno::IO]);
    let nth = *rng.pick(&[0, 0, 1, 2, 3, 4, 6, 9]);
    let lasting = |call| Fault { times: Times::Forever, ..Fault::new(call, nth, error) };
    match rng.below(5) {
        0 => disk.fail(lasting(CallKind::Create)),
        1 => disk.fail(lasting(CallKind::Rename)),
        2 => {
            let effect = *rng.pick(&[Effect::Nothing, Effect::Dropped]);
            disk.fail(Fault { effect, ..Fault::new(CallKind::SyncDir, rng.below(3) as usize, error) });
            return;
        }
        _ => disk.fail(Fault { effect: Effect::Prefix(rng.below(200) as usize), ..lasting(CallKind::Write) }),
    }
    if rng.chance(1, 4) {
        disk.fail(lasting(CallKind::Remove));
    }
}

/// A disk as a killed server leaves it, and what was acknowledged.
fn killed(seed: u64, rng: &mut Rng) -> (SimFs, Model) {
    let disk = SimFs::new();
    let mut db = open(&disk, seed).unwrap();
    let mut model = Model::new();
    for _ in 0..rng.below(80) {
        let batch = random_batch(rng, KEYS);
        db.write(&encode(&batch)).unwrap();
        apply(&mut model, &batch);
        match rng.below(20) {
            0..=5 => drop(db.step().unwrap()),
            6 => db.flush().unwrap(),
            7 => {
                db.close().unwrap();
                db = open(&disk, seed).unwrap();
            }
            _ => {}
        }
    }
    // Without a sync before each reply the newest may be in memory only.
    while db.step().unwrap() {}
    std::mem::forget(db);
    disk.kill();
    (disk, model)
}

/// That the power may go after any call of a start from `from` on. Then either of `possible` is there, and what is
/// `shown` once it is.
fn check_power_cuts(disk: &SimFs, from: usize, possible: &[Model], shown: &Model, seed: u64, rng: &mut Rng) {
    let mut images = disk.images();
    images.advance_to(from);
    loop {
        for policy in [CrashPolicy::Synced, CrashPolicy::All, CrashPolicy::Random { seed: rng.next_u64() }] {
            let db = open(&images.image(&policy), seed).expect("it must open after a power cut");
            let found = contents(&db).unwrap();
            let fits = &found == shown || images.at() < disk.calls() && possible.contains(&found);
            assert!(fits, "power cut after call {} with {policy:?}: {found:?}\nshown {shown:?}", images.at());
        }
        if !images.advance() {
            return;
        }
    }
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let (disk, mut model) = killed(seed, &mut rng);
    // What the log failed with: the next start may find it, and then it stays.
    let mut in_doubt: Option<Vec<Change>> = None;
    for start in 0..3 {
        let full_from = disk.calls();
        disk.heal();
        fill(&disk, &mut rng);
        let db = open(&disk, seed).unwrap_or_else(|error| panic!("start {start} on a full disk: {error}"));
        let found = contents(&db).unwrap();
        let mut possible = vec![model.clone()];
        if let Some(batch) = in_doubt.take() {
            let mut with_it = model.clone();
            apply(&mut with_it, &batch);
            if found != model {
                model = with_it.clone();
            }
            possible.push(with_it);
        }
        assert_eq!(found, model, "start {start} on a full disk");
        check_power_cuts(&disk, full_from, &possible, &model, seed, &mut rng);
        // With replies that wait for nothing it takes a step until a full disk is found out.
        for _ in 0..if durability(seed) == Durability::Always { rng.below(4) } else { 0 } {
            let batch = random_batch(&mut rng, KEYS);
            match db.write(&encode(&batch)) {
                // What is full may be no more than the place for new files.
                Ok(_) => {
                    apply(&mut model, &batch);
                    in_doubt = None;
                }
                Err(Error::ReadOnly(why)) => {
                    assert!(why.contains("os error"), "{why}");
                    in_doubt.get_or_insert(batch);
                }
                Err(other) => panic!("a refused write says so: {other:?}"),
            }
            drop(db.step());
            assert_eq!(contents(&db).unwrap(), model);
        }
        if rng.chance(1, 2) {
            db.close().expect("nothing is lost by it");
        } else {
            std::mem::forget(db);
            disk.kill();
        }
    }
    let db = open(&disk, seed).unwrap();
    model = contents(&db).unwrap();
    disk.heal();
    while db.step().unwrap() {}
    let batch = random_batch(&mut rng, KEYS);
    db.write(&encode(&batch)).unwrap();
    apply(&mut model, &batch);
    assert_eq!(contents(&db).unwrap(), model, "after the disk has recovered");
    db.close().unwrap();
    drop(db);
    let db = open(&disk, seed).unwrap();
    assert_eq!(contents(&db).unwrap(), model, "after a clean restart");
    let files = |end: &str| disk.list().unwrap().iter().filter(|name| name.ends_with(end)).count() as u64;
    let tables = db.stats().levels.iter().map(|level| level.tables).sum();
    assert_eq!((files(".sst"), files(".manifest"), files(".wal"), files(".tmp")), (tables, 1, 1, 0), "{disk:?}");
}

#[test]
fn a_start_on_a_disk_that_takes_no_writes_serves_reads_and_resumes() {
    let first_seed = number_from_env("CHRONOS_SEED", 1);
    for seed in (first_seed..).take(number_from_env("CHRONOS_FULL_RUNS", RUNS) as usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("replay: CHRONOS_SEED={seed} CHRONOS_FULL_RUNS=1 cargo test --test full_disk");
            resume_unwind(panic);
        }
    }
}

/// A database that is not there yet has nothing to serve: who would create it is told why it cannot be, and what the attempt
/// left is in nobody's way.
#[test]
fn a_database_that_cannot_be_begun_is_an_error() {
    for call in [CallKind::Create, CallKind::Write, CallKind::Sync, CallKind::SyncDir, CallKind::Rename] {
        for nth in 0.. {
            let disk = SimFs::new();
            disk.fail(Fault { times: Times::Forever, ..Fault::new(call, nth, Errno::NOSPC) });
            match open(&disk, 1) {
                Err(error) => assert!(!matches!(error, Error::Corrupt { .. }), "{call:?} {nth}: {error:?}"),
                Ok(db) => {
                    assert_eq!(db.stats().writes_refused, None, "{call:?} {nth}");
                    assert!(nth > 0, "{call:?} was never asked for");
                    break;
                }
            }
            disk.heal();
            let db = open(&disk, 1).unwrap();
            assert_eq!(contents(&db).unwrap(), Model::new(), "{call:?} {nth}");
            db.put(b"a", b"").unwrap();
        }
    }
}
