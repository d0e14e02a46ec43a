//! Real threads on the simulated disk: writers, readers, flushes, compactions, a failing log, a closing database, all at
//! once. Which interleaving a run gets is chance; what must hold does not depend on it. Nothing here waits for time to
//! pass, and what should not hang has a deadline.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/held.rs"]
mod held;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::fs::sim::{CallKind, CrashPolicy, Effect, Errno, Fault, Times};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error, Options, WriteBatch};
use common::{Model, contents, in_time, until};
use held::{Call, HeldDisk};
use parking_lot::Mutex;

/// So small that every second of a test crosses every boundary many times.
fn options(durability: Durability) -> Options {
    Options::new()
        .durability(durability)
        .memtable_bytes(8_000)
        .segment_bytes(6_000)
        .table_bytes(5_000)
        .level_bytes(20_000)
        .block_bytes(300)
        .cache_bytes(50_000)
}

fn open(disk: &SimFs, durability: Durability) -> Db {
    options(durability).open_on(Arc::new(disk.clone())).unwrap()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

const OWNERS: u64 = 4;
const ACCOUNTS: u64 = 5;
const MONEY: u64 = 1_000;

fn account(owner: u64, account: u64) -> Vec<u8> {
    format!("account:{owner}:{account}").into_bytes()
}

/// Moves money between two of an owner's accounts, in one batch.
fn transfer(db: &Db, owner: u64, rng: &mut Rng) -> Result<(), Error> {
    let (from, to) = (account(owner, rng.below(ACCOUNTS)), account(owner, rng.below(ACCOUNTS)));
    if from == to {
        return Ok(());
    }
    let balance = |key: &[u8]| db.get(key).map(|value| number(&value.expect("an account")));
    let (rich, poor) = (balance(&from)?, balance(&to)?);
    let amount = rng.below(rich + 1);
    let mut batch = WriteBatch::new();
    batch.put(&from, &(rich - amount).to_le_bytes());
    batch.put(&to, &(poor + amount).to_le_bytes());
    // Something that comes and goes, so that there are tombstones, and tables in every level.
    let clutter = format!("clutter:{owner}:{}", rng.below(300)).into_bytes();
    if rng.chance(1, 3) {
        batch.delete(&clutter)
    } else {
        batch.put(&clutter, &[7; 40])
    }
    db.write(&batch).map(drop)
}

fn total(entries: impl Iterator<Item = Result<chronos::engine::Entry, Error>>) -> (u64, u64) {
    let balances: Vec<u64> = entries.map(|entry| number(&entry.unwrap().value)).collect();
    (balances.len() as u64, balances.iter().sum())
}

/// The bank: whoever looks, whenever, whichever way, sees all accounts and all the money.
#[test]
fn no_snapshot_shows_half_a_batch() {
    for durability in [Durability::Always, Durability::Os, Durability::Interval(Duration::from_millis(1))] {
        in_time(move || bank(durability));
    }
}

fn bank(durability: Durability) {
    let disk = SimFs::new();
    let db = open(&disk, durability);
    for owner in 0..OWNERS {
        for n in 0..ACCOUNTS {
            db.put(&account(owner, n), &MONEY.to_le_bytes()).unwrap();
        }
    }
    let whole = (OWNERS * ACCOUNTS, OWNERS * ACCOUNTS * MONEY);
    let writing = AtomicU64::new(OWNERS);
    let running = || writing.load(Ordering::SeqCst) > 0;
    std::thread::scope(|scope| {
        let running = &running;
        for owner in 0..OWNERS {
            let (db, writing) = (&db, &writing);
            scope.spawn(move || {
                let mut rng = Rng::new(owner);
                (0..1_500).for_each(|_| transfer(db, owner, &mut rng).unwrap());
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for backward in [false, true] {
            let db = &db;
            scope.spawn(move || {
                while running() {
                    let snapshot = db.snapshot();
                    let all = snapshot.range("account:".."account;");
                    let seen = if backward { total(all.reversed()) } else { total(all) };
                    assert_eq!(seen, whole, "a scan");
                    let keys = (0..OWNERS).flat_map(|owner| (0..ACCOUNTS).map(move |n| account(owner, n)));
                    let sum: u64 = keys.map(|key| number(&snapshot.get(&key).unwrap().unwrap().value)).sum();
                    assert_eq!(sum, whole.1, "point reads of a snapshot");
                }
            });
        }
        let db = &db;
        scope.spawn(move || {
            while running() {
                db.flush().unwrap();
            }
        });
        scope.spawn(move || {
            while running() {
                db.compact().unwrap();
            }
        });
    });
    db.close().unwrap();
    drop(db);
    let db = open(&disk, durability);
    assert_eq!(total(db.range("account:".."account;")), whole, "after a restart");
}

/// Keys that only grow in number, while memtables are sealed and scanned as fast as can be.
#[test]
fn a_scan_finds_every_write_that_was_acknowledged_before_it() {
    in_time(|| {
        let db = open(&SimFs::new(), Durability::Os);
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000u64 {
                    // Not in order, so that what is new is spread over what is old.
                    let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
                    db.put(&key, &n.to_le_bytes()).unwrap();
                    written.store(n + 1, Ordering::SeqCst);
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let before = written.load(Ordering::SeqCst);
                        let found = db.range::<&[u8]>(..).inspect(|entry| assert!(entry.is_ok())).count() as u64;
                        assert!(found >= before, "{before} were written, {found} are found");
                        if before == 20_000 {
                            return;
                        }
                    }
                });
            }
        });
    });
}

/// The power may go at any moment: what had been acknowledged before is there.
#[test]
fn what_is_acknowledged_survives_a_power_cut_at_any_moment() {
    in_time(|| {
        let disk = SimFs::new();
        let db = open(&disk, Durability::Always);
        let acknowledged: Mutex<BTreeMap<Vec<u8>, u64>> = Mutex::default();
        let writing = AtomicU64::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (db, acknowledged, writing) = (&db, &acknowledged, &writing);
                scope.spawn(move || {
                    let mut last = 0;
                    for n in 0..800u64 {
                        let key = format!("{thread}:{}", n % 50).into_bytes();
                        let seq = db.put(&key, &n.to_le_bytes()).unwrap();
                        assert!(seq.0 > last, "positions of one thread's writes ascend");
                        last = seq.0;
                        acknowledged.lock().insert(key, n);
                    }
                    writing.fetch_sub(1, Ordering::SeqCst);
                });
            }
            while writing.load(Ordering::SeqCst) > 0 {
                let expected = acknowledged.lock().clone();
                let image = disk.image(disk.calls(), &CrashPolicy::Synced);
                let found = contents(&open(&image, Durability::Always)).unwrap();
                for (key, n) in expected {
                    let there = found.get(&key).map(|value| number(value));
                    assert!(there.is_some_and(|there| there >= n), "{key:?} was {n}, now {there:?}");
                }
            }
        });
    });
}

/// Threads that write keys of their own until `stop`, or until an error that is not a refusal; what was acknowledged.
fn write_until(db: &Db, threads: u64, stop: &AtomicBool) -> (Model, u64) {
    let acknowledged: Mutex<Model> = Mutex::default();
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (acknowledged, refused) = (&acknowledged, &refused);
            scope.spawn(move || {
                for n in 0u64.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let key = format!("{thread}:{n:08}").into_bytes();
                    match db.put(&key, &n.to_le_bytes()) {
                        Ok(_) => drop(acknowledged.lock().insert(key, n.to_le_bytes().to_vec())),
                        Err(Error::ReadOnly(_)) => {
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(Error::Closed) => return,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    (acknowledged.into_inner(), refused.into_inner())
}

#[test]
fn when_the_log_fails_once_under_many_writers_exactly_the_acknowledged_writes_are_there() {
    for (seed, call) in (0..12).zip([CallKind::Write, CallKind::Sync].into_iter().cycle()) {
        in_time(move || fail_once(seed, call));
    }
}

fn fail_once(seed: u64, call: CallKind) {
    let disk = SimFs::new();
    let db = open(&disk, Durability::Always);
    let stop = AtomicBool::new(false);
    let mut rng = Rng::new(seed);
    let effect = match call {
        CallKind::Write => Effect::Prefix(rng.below(300) as usize),
        _ => *rng.pick(&[Effect::Nothing, Effect::Dropped]),
    };
    let (acknowledged, refused) = std::thread::scope(|scope| {
        let writers = scope.spawn(|| write_until(&db, 8, &stop));
        let progress = |more: u64| {
            let from = db.stats().last_seq;
            until(|| db.stats().last_seq > from + more);
        };
        progress(200);
        let nth = rng.below(100) as usize;
        disk.fail(Fault { effect, ..Fault::new(call, nth, Errno::IO) });
        until(|| disk.struck() > 0);
        // That they go on is the proof that writes have resumed.
        progress(500);
        stop.store(true, Ordering::SeqCst);
        writers.join().unwrap()
    });
    // The fault may have struck a flush or an edit instead of the log.
    println!("seed {seed}: {} acknowledged, {refused} refused", acknowledged.len());
    assert!(contents(&db).unwrap() == acknowledged, "what is read");
    let image = disk.image(disk.calls(), &CrashPolicy::Random { seed });
    assert!(contents(&open(&image, Durability::Always)).unwrap() == acknowledged, "after a power cut");
    db.flush().unwrap();
    db.compact().unwrap();
    db.close().unwrap();
    drop(db);
    assert!(contents(&open(&disk, Durability::Always)).unwrap() == acknowledged, "after a restart");
}

#[test]
fn closing_under_load_loses_nothing_that_was_acknowledged_and_lets_nothing_in_afterwards() {
    for round in 0..6 {
        in_time(move || close_under_load(round));
    }
}

fn close_under_load(round: u64) {
    let disk = SimFs::new();
    let durability = if round.is_multiple_of(2) { Durability::Always } else { Durability::Os };
    let db = open(&disk, durability);
    let (acknowledged, _) = std::thread::scope(|scope| {
        let writers = scope.spawn(|| write_until(&db, 4, &AtomicBool::new(false)));
        for call in [Db::compact, Db::flush] {
            let db = &db;
            scope.spawn(move || {
                loop {
                    match call(db) {
                        Ok(()) => {}
                        Err(Error::Closed) => return,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
        let snapshot = db.snapshot();
        until(|| db.stats().last_seq > 300 * round + 20);
        db.close().unwrap();
        let calls = disk.calls();
        assert!(matches!(db.put(b"late", b""), Err(Error::Closed)));
        // The directory may be another's from now on.
        let guard = disk.lock().unwrap();
        assert_eq!(snapshot.range::<&[u8]>(..).filter(|entry| entry.is_err()).count(), 0, "reads go on");
        let model = writers.join().unwrap();
        drop(guard);
        assert!(disk.calls() <= calls + 1, "{:?}", (calls..disk.calls()).map(|n| disk.call(n)).collect::<Vec<_>>());
        model
    });
    drop(db);
    assert!(contents(&open(&disk, durability)).unwrap() == acknowledged);
}

#[test]
fn a_snapshot_outlives_its_database_and_the_last_handle_may_be_dropped_anywhere() {
    in_time(|| {
        let disk = SimFs::new();
        let db = open(&disk, Durability::Always);
        for n in 0..300u64 {
            db.put(&n.to_be_bytes(), &[1; 100]).unwrap();
        }
        let snapshot = db.snapshot();
        for n in 0..300u64 {
            db.delete(&n.to_be_bytes()).unwrap();
        }
        let mut half = snapshot.range::<&[u8]>(..);
        let first: Vec<_> = half.by_ref().take(150).map(|entry| entry.unwrap()).collect();
        let handle = db.clone();
        drop(db);
        std::thread::spawn(move || drop(handle)).join().unwrap();
        let rest: Vec<_> = half.map(|entry| entry.unwrap()).collect();
        assert_eq!((first.len(), rest.len()), (150, 150));
        assert!(snapshot.get(&7u64.to_be_bytes()).unwrap().is_some());
        let again = open(&disk, Durability::Always);
        assert!(contents(&again).unwrap().is_empty());
        drop(snapshot);
        assert!(contents(&again).unwrap().is_empty());
    });
}

/// When the tables cannot be written, writers are told so instead of waiting for ever; they go on when the disk does.
#[test]
fn writers_hear_of_a_disk_that_takes_no_tables() {
    in_time(|| {
        let disk = SimFs::new();
        let db = open(&disk, Durability::Os);
        db.put(b"before", b"").unwrap();
        disk.fail(Fault { times: Times::Forever, ..Fault::new(CallKind::Create, 0, Errno::NOSPC) });
        let mut written = 0u64;
        let refusal = loop {
            match db.put(&written.to_be_bytes(), &[0; 500]) {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(&refusal, Error::ReadOnly(why) if why.contains("No space")), "{refusal:?}");
        let told = db.stats().writes_refused;
        assert!(told.as_ref().is_some_and(|why| why.contains("No space")), "{told:?}");
        assert!(db.get(b"before").unwrap().is_some(), "reads go on");
        disk.heal();
        until(|| db.put(b"after", b"").is_ok());
        assert_eq!(db.stats().writes_refused, None);
        assert_eq!(db.range::<&[u8]>(..).count() as u64, written + 2);
        db.close().unwrap();
    });
}

/// The next segment is being prepared, slowly, when the log fails and begins a new one: they are used in the order of
/// their numbers all the same, which is the order in which a restart reads them.
#[test]
fn segments_are_used_in_the_order_of_their_numbers_whatever_fails_meanwhile() {
    in_time(|| {
        let disk = SimFs::new();
        let held = HeldDisk::new(&disk);
        // The segment of the start passes, its successor waits.
        let creation = held.hold(Call::CreateSegment, 1);
        let options = Options::new().segment_bytes(2_000).memtable_bytes(1 << 20);
        let db = options.open_on(held).unwrap();
        creation.wait();
        let mut model = Model::new();
        db.put(b"a", b"first").unwrap();
        disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
        db.put(b"a", b"refused").unwrap_err();
        // Whether writes resume before the slow segment is there or wait for it is the engine's choice.
        let patience = Instant::now();
        while db.put(b"a", b"early").is_err() && patience.elapsed() < Duration::from_millis(500) {
            std::thread::yield_now();
        }
        drop(creation);
        until(|| db.put(b"a", b"early").is_ok());
        // Over several segments, looking at each moment at what a restart would find.
        for n in 0..100u64 {
            for key in [&b"a"[..], &b"b"[..]] {
                db.put(key, &[n as u8; 50]).unwrap();
                model.insert(key.to_vec(), vec![n as u8; 50]);
            }
            let image = disk.image(disk.calls(), &CrashPolicy::Synced);
            let found = contents(&Options::new().open_on(Arc::new(image)).unwrap()).unwrap();
            assert!(found == model, "after {n}: {found:?}");
        }
    });
}

#[test]
fn a_flush_ends_when_all_that_was_written_before_is_in_tables() {
    in_time(|| {
        let db = open(&SimFs::new(), Durability::Always);
        for n in 0..50u64 {
            db.put(&n.to_be_bytes(), b"").unwrap();
            db.flush().unwrap();
            let stats = db.stats();
            assert_eq!((stats.sealed_memtables, stats.flushes), (0, n + 1));
        }
    });
}

/// `INFO` tells what a flush works on while it does: the order of the keys, and what is written at once.
#[test]
fn the_memory_that_a_flush_takes_is_told_while_it_takes_it() {
    const KEYS: u64 = 100_000;
    /// What the order of keys takes for each, and no more than that again for the rest.
    const LEAST: u64 = 24 * KEYS;
    in_time(|| {
        let held = HeldDisk::new(&SimFs::new());
        let db = Options::new().open_on(held.clone()).unwrap();
        let mut batch = WriteBatch::new();
        (0..KEYS).for_each(|n| batch.put(&n.to_be_bytes(), b""));
        db.write(&batch).unwrap();
        assert_eq!(db.stats().memory.jobs, 0);
        let write = held.hold(Call::WriteTable, 0);
        std::thread::scope(|scope| {
            let flush = scope.spawn(|| db.flush());
            write.wait();
            let jobs = db.stats().memory.jobs;
            assert!((LEAST..2 * LEAST).contains(&jobs), "{jobs}");
            drop(write);
            flush.join().unwrap().unwrap();
        });
        assert_eq!(db.stats().memory.jobs, 0);
    });
}
