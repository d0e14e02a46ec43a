//! The past: every time within the window shows exactly what was there then, whatever flushes, compactions, restarts and
//! crashes came in between; outside the window there is an error and never a guess; and the space comes back.
//!
//! `CHRONOS_HISTORY_RUNS=2000 CHRONOS_SEED=7 cargo test --release --test history` goes further or replays.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/held.rs"]
mod held;
#[path = "common/past.rs"]
mod past;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chronos::codec::Rng;
use chronos::engine::{Compression, Snapshot, Strategy};
use chronos::fs::SimFs;
use chronos::{Db, Error, Options, WriteBatch};
use common::{Change, Model, NOW, encode, number_from_env, random_batch, settle, tiny_options};
use held::{Call, HeldDisk};
use past::{Past, Time};

const RUNS: u64 = 60;
const OPERATIONS: u64 = 1_200;
const KEYS: u64 = 30;

fn open(disk: &SimFs, options: Options) -> Db {
    options.open_on(Arc::new(disk.clone())).unwrap()
}

fn key(n: u64) -> Vec<u8> {
    format!("key{n:04}").into_bytes()
}

fn put(db: &Db, key: &[u8], value: &[u8]) {
    db.put(key, value).unwrap();
}

fn collect(range: chronos::engine::Range) -> Model {
    range.map(|entry| entry.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).unwrap()).collect()
}

/// Some of the values expire soon.
fn some_until(mut batch: Vec<Change>, rng: &mut Rng, now: u64) -> Vec<Change> {
    for change in &mut batch {
        if let Change::Put(key, value) = change
            && rng.chance(1, 4)
        {
            *change = Change::PutUntil(key.clone(), value.clone(), now + 1 + rng.below(60));
        }
    }
    batch
}

struct Run {
    rng: Rng,
    time: Time,
    window: u64,
    past: Past,
}

impl Run {
    fn oldest(&self) -> u64 {
        NOW.max(self.time.now().saturating_sub(self.window))
    }

    fn some_time(&mut self) -> u64 {
        let (oldest, now) = (self.oldest(), self.time.now());
        // The ends are where things go wrong.
        match self.rng.below(6) {
            0 => oldest,
            1 => now,
            _ => oldest + self.rng.below(now - oldest + 1),
        }
    }

    fn some_range(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut ends = [self.rng.below(KEYS + 1), self.rng.below(KEYS + 1)];
        ends.sort_unstable();
        (key(ends[0]), key(ends[1]))
    }

    fn check_at(&self, db: &Db, when: u64) {
        let expected = self.past.all(when);
        assert_eq!(collect(db.range_at::<&[u8]>(when, ..).unwrap()), expected, "forward at {when}");
        let backward: Vec<_> = db.range_at::<&[u8]>(when, ..).unwrap().reversed().map(|e| e.unwrap().key).collect();
        assert!(backward.iter().map(|key| &**key).eq(expected.keys().rev().map(|key| &key[..])), "backward at {when}");
    }

    fn check_history(&self, db: &Db, key: &[u8]) {
        let told = db.history(key).unwrap().map(Result::unwrap);
        let told: Vec<_> =
            told.map(|version| (version.time, version.found.map(|found| found.value.to_vec()))).collect();
        assert_eq!(told, self.past.history(key, self.oldest()), "the history of {key:?}");
    }

    fn restore(&mut self, db: &Db) {
        let (when, now) = (self.some_time(), self.time.now());
        let (from, to) = self.some_range();
        let mut changed = 0;
        for key in self.past.keys().into_iter().filter(|key| (&from..&to).contains(&key)) {
            let lasts = |held: past::Held, at: u64| {
                held.filter(|(_, expires_at)| expires_at.is_none_or(|expires_at| expires_at > at.max(now)))
            };
            let (was, is) = (lasts(self.past.held(&key, when), when), lasts(self.past.held(&key, now), now));
            if was != is {
                self.past.write(now, &key, was);
                changed += 1;
            }
        }
        assert_eq!(db.restore_at(when, from..to).unwrap(), changed, "restored as of {when}");
    }
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let window = *rng.pick(&[1, 20, 200, 5_000]);
    let mut run = Run { rng, time: Time::new(), window, past: Past::default() };
    let disk = SimFs::new();
    let options = tiny_options(seed).clock(run.time.clock()).history(Duration::from_millis(window));
    let mut db = open(&disk, options.clone());
    let mut held: Vec<(Snapshot, Model)> = Vec::new();
    for _ in 0..OPERATIONS {
        let now = run.time.now();
        match run.rng.below(1000) {
            0..=449 => {
                let batch = some_until(random_batch(&mut run.rng, KEYS), &mut run.rng, now);
                db.write(&encode(&batch)).unwrap();
                run.past.apply(now, &batch);
            }
            450..=599 => run.time.advance(run.rng.below(window / 8 + 2)),
            600..=699 => {
                let (key, when) = (key(run.rng.below(KEYS)), run.some_time());
                let found = db.get_at(&key, when).unwrap().map(|value| value.to_vec());
                assert_eq!(found, run.past.get(&key, when), "{key:?} at {when}");
                assert_eq!(db.get(&key).unwrap().map(|value| value.to_vec()), run.past.get(&key, now), "{key:?} now");
            }
            700..=729 => {
                let when = run.some_time();
                run.check_at(&db, when);
            }
            730..=759 => {
                let key = key(run.rng.below(KEYS));
                run.check_history(&db, &key);
            }
            760..=769 => run.restore(&db),
            770..=779 => {
                let oldest = run.oldest();
                for outside in [oldest - 1, now + 1] {
                    match db.get_at(b"any", outside) {
                        Err(Error::OutsideHistory { oldest: told }) => assert_eq!(told, oldest),
                        other => panic!("{outside} with oldest {oldest}: {other:?}"),
                    }
                }
                assert_eq!(db.stats().history.unwrap().oldest_ms, oldest);
            }
            780..=789 if held.len() < 3 => {
                let when = run.some_time();
                held.push((db.snapshot_at(when).unwrap(), run.past.all(when)));
            }
            790..=809 if !held.is_empty() => {
                let at = run.rng.below(held.len() as u64) as usize;
                assert_eq!(collect(held[at].0.range::<&[u8]>(..)), held[at].1, "a snapshot of the past");
                if run.rng.chance(1, 2) {
                    held.swap_remove(at);
                }
            }
            810..=969 => drop(db.step().unwrap()),
            970..=974 => db.flush().unwrap(),
            975..=978 => db.compact().unwrap(),
            979..=984 => {
                held.clear();
                let killed = run.rng.chance(1, 2);
                if killed {
                    std::mem::forget(db);
                    disk.kill();
                } else {
                    db.close().unwrap();
                    drop(db);
                }
                db = open(&disk, options.clone());
                assert_eq!(db.stats().history.unwrap().oldest_ms, run.oldest(), "killed: {killed}");
                let when = run.some_time();
                run.check_at(&db, when);
            }
            _ => {}
        }
    }
    for when in [run.oldest(), run.some_time(), run.time.now()] {
        run.check_at(&db, when);
    }
    (0..KEYS).for_each(|n| run.check_history(&db, &key(n)));
    drop(held);
    settle(&db);
    run.check_at(&db, run.oldest());
}

#[test]
fn every_time_within_the_window_shows_what_was_there() {
    let first = number_from_env("CHRONOS_SEED", 1);
    for seed in (first..).take(number_from_env("CHRONOS_HISTORY_RUNS", RUNS) as usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("replay: CHRONOS_SEED={seed} CHRONOS_HISTORY_RUNS=1 cargo test --test history");
            resume_unwind(panic);
        }
    }
}

fn options(time: &Time) -> Options {
    Options::new()
        .stepped()
        .clock(time.clock())
        .memtable_bytes(4_000)
        .segment_bytes(4_000)
        .table_bytes(1_000)
        .level_bytes(4_000)
        .block_bytes(100)
        .compression(Compression::None)
}

const WINDOW: Duration = Duration::from_millis(1_000);

#[test]
fn history_begins_when_it_is_switched_on_and_ends_when_it_is_off() {
    let (disk, time) = (SimFs::new(), Time::new());
    let db = open(&disk, options(&time));
    db.put(b"a", b"1").unwrap();
    assert!(matches!(db.get_at(b"a", NOW), Err(Error::NoHistory)) && matches!(db.history(b"a"), Err(Error::NoHistory)));
    assert!(matches!(db.restore_at::<&[u8]>(NOW, ..), Err(Error::NoHistory)));
    for killed in [true, false] {
        let db = open(&disk.image(disk.calls(), &chronos::fs::sim::CrashPolicy::All), options(&time).history(WINDOW));
        time.advance(10);
        db.put(b"a", b"2").unwrap();
        assert_eq!(db.get_at(b"a", time.now() - 10).unwrap().as_deref(), Some(&b"1"[..]));
        assert!(matches!(db.get_at(b"a", time.now() - 11), Err(Error::OutsideHistory { .. })), "killed: {killed}");
    }
    db.close().unwrap();
    drop(db);
    let switch = |history: bool| {
        time.advance(10);
        open(&disk, if history { options(&time).history(WINDOW) } else { options(&time) })
    };
    let on = switch(true);
    let began = time.now();
    time.advance(10);
    on.put(b"a", b"2").unwrap();
    drop(on);
    let still_on = switch(true);
    assert_eq!(still_on.get_at(b"a", began).unwrap().as_deref(), Some(&b"1"[..]));
    drop(still_on);
    // A run without history keeps nothing, whatever it writes.
    drop(switch(false));
    let again = switch(true);
    assert!(matches!(again.get_at(b"a", began), Err(Error::OutsideHistory { oldest }) if oldest == time.now()));
    assert_eq!(again.get_at(b"a", time.now()).unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_clock_that_is_stepped_back_stops_time_and_one_that_is_far_behind_begins_history_anew() {
    for restart in [false, true] {
        let (disk, time) = (SimFs::new(), Time::new());
        let reopen = |db: Db| match restart {
            true => {
                std::mem::forget(db);
                disk.kill();
                open(&disk, options(&time).history(WINDOW))
            }
            false => db,
        };
        let db = open(&disk, options(&time).history(WINDOW));
        let put = |db: &Db, value: &[u8]| put(db, b"a", value);
        let at = |db: &Db, when| db.get_at(b"a", when).map(|value| value.map(|value| value.to_vec()));
        time.advance(500);
        put(&db, b"1");
        time.advance(100);
        put(&db, b"2");
        let newest = time.now();
        time.set(newest - 300);
        let db = reopen(db);
        put(&db, b"3");
        assert_eq!(db.present().unwrap(), newest);
        assert_eq!(at(&db, newest - 1).unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(at(&db, newest).unwrap().as_deref(), Some(&b"3"[..]), "time has stood still");
        time.set(newest + 5);
        put(&db, b"4");
        let db = reopen(db);
        assert_eq!(at(&db, newest + 4).unwrap().as_deref(), Some(&b"3"[..]));
        assert_eq!(at(&db, newest + 5).unwrap().as_deref(), Some(&b"4"[..]));

        time.set(newest - 2_000);
        put(&db, b"5");
        let db = reopen(db);
        assert!(matches!(at(&db, newest - 2_001), Err(Error::OutsideHistory { .. })), "restart {restart}");
        assert!(matches!(at(&db, newest), Err(Error::OutsideHistory { .. })), "it is to come again");
        assert_eq!(at(&db, newest - 2_000).unwrap().as_deref(), Some(&b"5"[..]));
        time.advance(5);
        put(&db, b"6");
        assert_eq!(at(&db, newest - 1_996).unwrap().as_deref(), Some(&b"5"[..]));
    }
}

#[test]
fn the_space_comes_back_when_the_window_has_passed_though_nobody_writes() {
    for strategy in [Strategy::Leveled, Strategy::Tiered] {
        let (disk, time) = (SimFs::new(), Time::new());
        let db = open(&disk, options(&time).compaction(strategy).history(WINDOW));
        for round in 0..5u64 {
            let mut batch = WriteBatch::new();
            (0..300).for_each(|n| batch.put(&key(n), &[round as u8; 40]));
            db.write(&batch).unwrap();
            db.flush().unwrap();
            time.advance(10);
        }
        settle(&db);
        let entries = |db: &Db| db.stats().levels.iter().map(|level| level.entries).sum::<u64>();
        assert_eq!(entries(&db), 5 * 300, "{strategy:?}: all of it is within the window");
        time.advance(965);
        settle(&db);
        // What came 25 ms ago has an older value at the beginning of the window.
        assert!(db.get_at(&key(7), time.now() - 1_000).unwrap().is_some());
        time.advance(1_000);
        settle(&db);
        assert_eq!(entries(&db), 300, "{strategy:?}: {:?}", db.stats());
        let mut batch = WriteBatch::new();
        (0..300).for_each(|n| batch.delete(&key(n)));
        db.write(&batch).unwrap();
        db.flush().unwrap();
        settle(&db);
        assert_eq!(collect(db.range_at::<&[u8]>(time.now() - 1, ..).unwrap()).len(), 300);
        time.advance(1_001);
        settle(&db);
        assert_eq!(db.stats().table_bytes(), 0, "{strategy:?}: {:?}", db.stats());
    }
}

#[test]
fn what_expired_within_the_window_stays_until_it_has_passed() {
    let (disk, time) = (SimFs::new(), Time::new());
    let db = open(&disk, options(&time).history(WINDOW));
    let mut batch = WriteBatch::new();
    batch.put_expiring(b"a", b"1", NOW + 100);
    db.write(&batch).unwrap();
    time.advance(500);
    db.compact().unwrap();
    settle(&db);
    assert_eq!(db.get(b"a").unwrap(), None);
    assert_eq!(db.get_at(b"a", NOW + 99).unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(db.get_at(b"a", NOW + 100).unwrap(), None);
    time.advance(1_000);
    settle(&db);
    assert_eq!(db.stats().table_bytes(), 0);
}

#[test]
fn a_snapshot_older_than_allowed_is_released_and_says_so() {
    let (disk, time) = (SimFs::new(), Time::new());
    let db = open(&disk, options(&time).snapshot_max_age(Duration::from_millis(100)));
    (0..200).for_each(|n| put(&db, &key(n), b"old"));
    let backup = db.snapshot_for("backup");
    let mut walk = backup.range::<&[u8]>(..);
    assert_eq!(*walk.next().unwrap().unwrap().key, *key(0));
    time.advance(60);
    let told = &db.stats().snapshots[0];
    assert_eq!((&*told.owner, told.age_ms, told.seq), ("backup", 60, backup.seq()));
    time.advance(41);
    (0..200).for_each(|n| put(&db, &key(n), b"new"));
    db.compact().unwrap();
    assert!(matches!(backup.get(&key(3)), Err(Error::SnapshotExpired)));
    assert!(matches!(walk.next(), Some(Err(Error::SnapshotExpired))) && walk.next().is_none());
    drop((backup, walk));
    assert!(db.stats().snapshots.is_empty());
    assert_eq!(*db.snapshot().get(&key(3)).unwrap().unwrap().value, *b"new");
}

/// Others write into the range all the time; whatever they write, what was there when the restoration began is as it was.
#[test]
fn a_range_is_restored_while_others_write_into_it() {
    let disk = SimFs::new();
    let small = Options::new().memtable_bytes(8_000).segment_bytes(8_000).table_bytes(4_000).level_bytes(20_000);
    let db = open(&disk, small.block_bytes(200).history(Duration::from_secs(3600)));
    (0..500).for_each(|n| put(&db, &key(n), b"as it was"));
    let then = db.present().unwrap();
    while db.present().unwrap() == then {
        std::thread::yield_now();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut n = 0u64;
                while !stop.load(Ordering::SeqCst) {
                    db.put(format!("key{thread}:{n}").as_bytes(), b"new").unwrap();
                    db.put(&key(n * 7 % 500), b"changed").unwrap();
                    db.delete(&key(n * 11 % 500)).unwrap();
                    n += 1;
                }
            });
        }
        let restored = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..10 {
                while db.range("key0:".."key1~").next().is_none() {
                    std::thread::yield_now();
                }
                let before: Vec<_> = db.range("key0:".."key1~").map(|entry| entry.unwrap().key).collect();
                assert!(db.restore_at(then, "key".."kez").unwrap() > 0);
                let left: std::collections::BTreeSet<_> =
                    db.range("key0:".."key1~").map(|entry| entry.unwrap().key).collect();
                assert!(!before.iter().any(|key| left.contains(key)), "what came since is gone");
            }
        }));
        stop.store(true, Ordering::SeqCst);
        restored.unwrap_or_else(|panic| resume_unwind(panic));
    });
    db.restore_at(then, "key".."kez").unwrap();
    let all = collect(db.range("key".."kez"));
    assert!(all.len() == 500 && all.values().all(|value| value == b"as it was"), "{}", all.len());
}

/// A restoration is one moment: what others write while it reads is undone with the rest, wherever that is by then.
#[test]
fn what_is_written_while_a_restoration_reads_is_undone_with_the_rest() {
    for (flushed, ranges) in [(false, false), (true, false), (false, true), (true, true)] {
        let (disk, time) = (HeldDisk::new(&SimFs::new()), Time::new());
        let db = options(&time).history(WINDOW).open_on(disk.clone()).unwrap();
        for name in [&b"a"[..], b"b", b"c", b"e"] {
            put(&db, name, b"as it was");
        }
        db.flush().unwrap();
        time.advance(10);
        put(&db, b"b", b"changed before");
        let read = disk.hold(Call::Read, 0);
        std::thread::scope(|scope| {
            let restoration = scope.spawn(|| db.restore_at(NOW, "a".."f").unwrap());
            read.wait();
            put(&db, b"a", b"changed meanwhile");
            put(&db, b"d", b"new");
            db.delete(b"c").unwrap();
            if ranges {
                db.delete_range(b"e", Some(b"f")).unwrap();
            }
            put(&db, b"outside", b"stays");
            if flushed {
                db.flush().unwrap();
            }
            drop(read);
            restoration.join().unwrap();
        });
        let expected: Model = [&b"a"[..], b"b", b"c", b"e"].map(|name| (name.to_vec(), b"as it was".to_vec())).into();
        assert_eq!(collect(db.range("a".."f")), expected, "flushed: {flushed}, ranges: {ranges}");
        assert_eq!(db.get(b"outside").unwrap().as_deref(), Some(&b"stays"[..]));
    }
}

#[test]
fn a_checkpoint_has_the_past_with_it() {
    let (home, time) = (tempfile::tempdir().unwrap(), Time::new());
    let open = |name: &str| options(&time).history(WINDOW).open(home.path().join(name)).unwrap();
    let db = open("data");
    for value in [b"1", b"2", b"3"] {
        time.advance(10);
        put(&db, b"a", value);
    }
    db.checkpoint(home.path().join("copy")).unwrap();
    time.advance(10);
    put(&db, b"a", b"4");
    let copy = open("copy");
    for (ms, value) in [(10, b"1"), (29, b"2"), (30, b"3"), (40, b"3")] {
        assert_eq!(copy.get_at(b"a", NOW + ms).unwrap().as_deref(), Some(&value[..]), "after {ms} ms");
    }
    assert_eq!(copy.get_at(b"a", NOW).unwrap(), None);
}

#[test]
fn what_drops_data_whoever_reads_it_keeps_no_history() {
    let fifo = Strategy::Fifo { max_age: Some(WINDOW), max_bytes: None };
    let options = options(&Time::new()).history(WINDOW).compaction(fifo);
    assert!(matches!(options.open_on(Arc::new(SimFs::new())), Err(Error::InvalidArgument(_))));
}
