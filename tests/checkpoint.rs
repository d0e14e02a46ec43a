//! Checkpoints: complete or not there, whatever happens; a prefix of history with everything acknowledged; a database of
//! their own afterwards.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use chronos::codec::Rng;
use chronos::fs::sim::{CallKind, CrashPolicy, Errno, Fault, Times};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error, Options};
use common::{Model, apply, check, contents, encode, number_from_env, random_batch, tiny_options};

const KEYS: u64 = 40;

/// A database with tables in several levels and changes in memory.
fn grown(seed: u64) -> (SimFs, Db, Model, Rng) {
    let mut rng = Rng::new(seed);
    let disk = SimFs::new();
    let db = tiny_options(seed).open_on(Arc::new(disk.clone())).unwrap();
    let mut model = Model::new();
    grow(&db, &mut model, &mut rng, 60 + seed as usize % 40);
    (disk, db, model, rng)
}

fn grow(db: &Db, model: &mut Model, rng: &mut Rng, batches: usize) {
    for _ in 0..batches {
        let batch = random_batch(rng, KEYS);
        db.write(&encode(&batch)).unwrap();
        apply(model, &batch);
        if rng.chance(1, 3) {
            db.step().unwrap();
        }
    }
}

fn open(disk: &SimFs, seed: u64) -> Db {
    tiny_options(seed).open_on(Arc::new(disk.clone())).expect("it must open")
}

#[test]
fn a_crash_at_any_call_leaves_a_whole_checkpoint_or_none() {
    let (mut opened, mut without) = (0, 0);
    for seed in 1..=number_from_env("CHRONOS_CHECKPOINTS", 12) {
        let (disk, db, model, mut rng) = grown(seed);
        let begun = disk.calls();
        db.checkpoint("copy").unwrap();
        let done = disk.calls();
        // What comes later, compactions that drop the shared tables too, does not reach the copy.
        let mut later = model.clone();
        grow(&db, &mut later, &mut rng, 20);
        db.compact().unwrap();

        let mut images = disk.images();
        images.advance_to(begun);
        loop {
            let mut policies = images.systematic();
            policies.extend((0..4).map(|_| CrashPolicy::Random { seed: rng.next_u64() }));
            for policy in policies {
                let image = images.image(&policy);
                let place = format!("seed {seed}, after call {} with {policy:?}", images.at());
                match image.directory("copy") {
                    Some(copy) => {
                        opened += 1;
                        let db = open(&copy, seed);
                        assert_eq!(contents(&db).unwrap(), model, "{place}");
                        db.put(b"new", b"1").unwrap();
                        db.compact().unwrap();
                    }
                    None => {
                        without += 1;
                        assert!(images.at() < done, "{place}: it was told to be there");
                    }
                }
                if images.at() <= done {
                    assert_eq!(contents(&open(&image, seed)).unwrap(), model, "{place}: the original");
                }
            }
            if !images.advance() {
                break;
            }
        }
    }
    assert!(opened > 1_000 && without > 1_000, "{opened} with and {without} without");
}

#[test]
fn a_checkpoint_that_fails_leaves_nothing_and_one_that_cannot_link_copies() {
    let kinds = [
        CallKind::Create,
        CallKind::Write,
        CallKind::Sync,
        CallKind::Rename,
        CallKind::SyncDir,
        CallKind::MakeDirectory,
        CallKind::Link,
        CallKind::Open,
    ];
    let mut failed = [0; 8];
    for (kind, failed) in kinds.into_iter().zip(&mut failed) {
        for nth in 0..12 {
            let (disk, db, model, _) = grown(3);
            db.flush().unwrap();
            let times = if nth % 2 == 0 { Times::Once } else { Times::Forever };
            disk.fail(Fault { times, ..Fault::new(kind, nth, Errno::NOSPC) });
            let result = db.checkpoint("copy");
            disk.heal();
            match result {
                // Copied or linked, it is durable when it is told to be there.
                Ok(()) => {
                    let image = disk.image(disk.calls(), &CrashPolicy::Synced);
                    for disk in [&image, &disk] {
                        let copy = disk.directory("copy").expect("it was told to be there");
                        assert_eq!(contents(&open(&copy, 3)).unwrap(), model, "{kind:?} {nth}");
                    }
                }
                Err(error) => {
                    *failed += 1;
                    assert!(matches!(error, Error::Io { .. }), "{kind:?} {nth}: {error:?}");
                    let left: Vec<String> =
                        disk.list().unwrap().into_iter().filter(|name| name.contains("copy")).collect();
                    assert!(left.is_empty(), "{kind:?} {nth}: {left:?}");
                    db.checkpoint("copy").unwrap();
                }
            }
            check(&db, &model, KEYS);
        }
    }
    let [.., link, open] = failed;
    assert_eq!((link, open), (0, 0), "tables that cannot be linked are copied, and linking opens none");
    assert!(failed[..6].iter().all(|failed| *failed > 0), "{failed:?}");
}

#[test]
fn a_checkpoint_under_load_is_a_prefix_with_everything_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().memtable_bytes(20_000).table_bytes(10_000).level_bytes(40_000);
    let db = options().open(dir.path().join("data")).unwrap();
    let acknowledged = AtomicU64::new(0);
    let number = |db: &Db, key: &[u8]| -> u64 {
        db.get(key).unwrap().map_or(0, |value| std::str::from_utf8(&value[..20]).unwrap().trim().parse().unwrap())
    };
    let rounds = 6;
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        // Each side has its end: when one fails the other hears of it.
        let reached = receiver;
        let writer = scope.spawn(|| {
            let told = sender;
            for n in 1.. {
                // First one, then the other: no prefix has `b` ahead of `a`, or two behind.
                for key in [b"a", b"b"] {
                    db.put(key, format!("{n:<120}").as_bytes()).unwrap();
                }
                db.put(format!("key{}", n % 500).as_bytes(), &[b'x'; 100]).unwrap();
                if acknowledged.swap(n, Ordering::SeqCst) == u64::MAX || told.send(n).is_err() {
                    break;
                }
            }
        });
        for round in 0..rounds {
            let goal = acknowledged.load(Ordering::SeqCst) + 300;
            while reached.recv().expect("the writer writes") < goal {}
            let before = acknowledged.load(Ordering::SeqCst);
            db.checkpoint(dir.path().join(format!("copy{round}"))).unwrap();
            let after = acknowledged.load(Ordering::SeqCst) + 1;
            let copy = options().open(dir.path().join(format!("copy{round}"))).unwrap();
            let (a, b) = (number(&copy, b"a"), number(&copy, b"b"));
            assert!(b <= a && a <= b + 1, "round {round}: a {a}, b {b}");
            assert!(before <= b && a <= after, "round {round}: {before} <= {b}, {a} <= {after}");
        }
        acknowledged.store(u64::MAX, Ordering::SeqCst);
        writer.join().unwrap();
    });
    // Each is still what it was, after all that was compacted since.
    db.compact().unwrap();
    let seen: Vec<u64> = (0..rounds)
        .map(|round| number(&options().open(dir.path().join(format!("copy{round}"))).unwrap(), b"a"))
        .collect();
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

#[test]
fn the_copy_and_the_original_live_without_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let db = Options::new().open(path("data")).unwrap();
    for n in 0..1000 {
        db.put(format!("key{n:04}").as_bytes(), &[b'v'; 50]).unwrap();
    }
    db.checkpoint(path("first")).unwrap();
    db.checkpoint(path("second")).unwrap();
    let refused = db.checkpoint(path("first")).unwrap_err();
    assert!(matches!(&refused, Error::InvalidArgument(what) if what.ends_with("first exists already")), "{refused}");

    // The original goes, one copy is changed, the other has what was there.
    drop(db);
    std::fs::remove_dir_all(path("data")).unwrap();
    let first = Options::new().open(path("first")).unwrap();
    for n in 0..1000 {
        first.delete(format!("key{n:04}").as_bytes()).unwrap();
    }
    first.compact().unwrap();
    assert_eq!(contents(&first).unwrap().len(), 0);
    let second = Options::new().open(path("second")).unwrap();
    assert_eq!(contents(&second).unwrap().len(), 1000);
    std::fs::remove_dir_all(path("first")).unwrap();
    second.put(b"more", b"1").unwrap();
    assert_eq!(contents(&second).unwrap().len(), 1001);
}

#[test]
fn an_empty_database_a_closed_one_and_one_of_the_interval_kind() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let db = Options::new().durability(chronos::engine::Durability::Os).open(path("data")).unwrap();
    db.checkpoint(path("empty")).unwrap();
    assert!(contents(&Options::new().open(path("empty")).unwrap()).unwrap().is_empty());
    db.put(b"a", b"1").unwrap();
    db.checkpoint(path("one")).unwrap();
    assert_eq!(contents(&Options::new().open(path("one")).unwrap()).unwrap().len(), 1);
    db.close().unwrap();
    assert!(matches!(db.checkpoint(path("late")), Err(Error::Closed)));
    assert!(!path("late").exists() && !path("late.unfinished").exists());
    assert!(Options::new().open(path("late.unfinished")).is_err());
}
