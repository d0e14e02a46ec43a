//! Tests of what only the floors above see: read-modify-writes, range deletes, and waiting for the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Db, Durability, Error, Options, Outcome, SeqNo, Waiter, WriteBatch};
use crate::fs::SimFs;
use crate::fs::sim::{CallKind, Errno, Fault, Times};

const DEADLINE: Duration = Duration::from_secs(60);

fn until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < DEADLINE, "it never happened");
        std::thread::yield_now();
    }
}

fn tiny() -> Options {
    Options::new().memtable_bytes(4_000).segment_bytes(3_000).table_bytes(2_000).level_bytes(10_000).block_bytes(200)
}

fn open(disk: &SimFs, options: Options) -> Db {
    options.open_on(Arc::new(disk.clone())).unwrap()
}

/// Stops others when it is dropped, also by a panic: a failed test must not hang.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn read_number(db: &Db, key: &[u8]) -> u64 {
    db.get(key).unwrap().map_or(0, |value| number(&value))
}

/// Adds to a counter; what it was before.
fn add(db: &Db, key: &[u8], amount: u64) -> Result<Outcome<u64>, Error> {
    db.transact(&[key], |found, batch| {
        let before = found[0].as_ref().map_or(0, |found| number(&found.value));
        batch.put(key, &(before + amount).to_le_bytes());
        before
    })
}

#[test]
fn no_increment_is_lost_or_counted_twice() {
    const THREADS: u64 = 4;
    const EACH: u64 = 1_500;
    let disk = SimFs::new();
    let db = open(&disk, tiny());
    let done = AtomicBool::new(false);
    let seen: Mutex<Vec<u64>> = Mutex::default();
    std::thread::scope(|scope| {
        let adders: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (db, seen) = (&db, &seen);
                scope.spawn(move || {
                    let mut values = Vec::new();
                    for n in 0..EACH {
                        let outcome = add(db, b"shared", 1).unwrap();
                        values.push(outcome.value);
                        add(db, format!("own:{thread}").as_bytes(), n).unwrap();
                        // Fills memtables, so that the counters are found in tables, too.
                        db.submit(&filler(thread * EACH + n)).unwrap();
                        if n % 16 == 0 {
                            db.wait_durable(outcome.seq).unwrap();
                            assert!(db.is_durable(outcome.seq));
                        }
                    }
                    seen.lock().extend(values);
                })
            })
            .collect();
        for call in [Db::flush, Db::compact] {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    call(db).unwrap();
                }
            });
        }
        let _stopper = Stop(&done);
        adders.into_iter().for_each(|adder| adder.join().unwrap());
    });
    let mut seen = seen.into_inner();
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..THREADS * EACH), "each value was seen by exactly one");
    let check = |db: &Db| {
        assert_eq!(read_number(db, b"shared"), THREADS * EACH);
        for thread in 0..THREADS {
            assert_eq!(read_number(db, format!("own:{thread}").as_bytes()), (0..EACH).sum::<u64>());
        }
    };
    check(&db);
    db.close().unwrap();
    drop(db);
    check(&open(&disk, tiny()));
}

fn filler(n: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(format!("filler:{}", n % 500).as_bytes(), &[n as u8; 60]);
    batch
}

/// Money goes back and forth between accounts that all threads share.
#[test]
fn transactions_over_two_keys_keep_the_sum() {
    let db = open(&SimFs::new(), tiny().durability(Durability::Os));
    let accounts: Vec<Vec<u8>> = (0..6u8).map(|n| vec![b'a', n]).collect();
    for account in &accounts {
        db.put(account, &100u64.to_le_bytes()).unwrap();
    }
    let left = AtomicU64::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (db, accounts, left) = (&db, &accounts, &left);
            scope.spawn(move || {
                for n in 0..2_000u64 {
                    let (from, to) = (&accounts[((n + thread) % 6) as usize], &accounts[((n * 5 + 1) % 6) as usize]);
                    if from != to {
                        db.transact(&[from, to], |found, batch| {
                            let [rich, poor] = [&found[0], &found[1]].map(|f| number(&f.as_ref().unwrap().value));
                            let amount = rich.min(n % 7);
                            batch.put(from, &(rich - amount).to_le_bytes());
                            batch.put(to, &(poor + amount).to_le_bytes());
                        })
                        .unwrap();
                    }
                    db.submit(&filler(n)).unwrap();
                }
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while left.load(Ordering::SeqCst) > 0 {
                let sum: u64 = db.range(&b"a"[..]..&b"b"[..]).map(|entry| number(&entry.unwrap().value)).sum();
                assert_eq!(sum, 600);
                let values = db.get_many(&accounts).unwrap();
                let sum: u64 = values.iter().map(|value| number(value.as_ref().unwrap())).sum();
                assert_eq!(sum, 600);
            }
        });
    });
}

#[test]
fn a_range_delete_takes_everything_that_was_acknowledged_before_it_and_ends_while_others_write() {
    let db = open(&SimFs::new(), tiny().durability(Durability::Os));
    // Long enough for many flushes to come in between.
    for n in 0..3_000u64 {
        db.submit(&one(&format!("x:old:{n}"), n)).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopper = Stop(&stop);
        // They write into the range, too; each then finds its own keys all gone or all there.
        let writers: Vec<_> = (0..3u64)
            .map(|thread| {
                let (db, stop) = (&db, &stop);
                scope.spawn(move || {
                    let mut written = 0u64;
                    while !stop.load(Ordering::SeqCst) {
                        db.submit(&one(&format!("x:{thread}:{written:08}"), written)).unwrap();
                        db.submit(&filler(written)).unwrap();
                        written += 1;
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            let earlier = db.stats().last_seq;
            until(|| db.stats().last_seq > earlier + 200);
            let before = db.stats().last_seq;
            let snapshot_before = db.snapshot();
            let seq = db.submit(&range(b"x:", Some(b"x;"))).unwrap();
            assert!(seq.0 >= before);
            let there: std::collections::BTreeSet<_> =
                snapshot_before.range("x:".."x;").map(|entry| entry.unwrap().key).collect();
            let left = db.range("x:".."x;").map(|entry| entry.unwrap().key).filter(|key| there.contains(key)).count();
            assert_eq!(left, 0, "what was there before the delete is gone");
        }
        drop(stopper);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    assert!(db.range("filler".."fillers").count() > 0, "what lies outside stays");
    db.delete_range(b"", None).unwrap();
    assert_eq!(db.range::<&[u8]>(..).count(), 0);
}

#[test]
fn a_range_delete_is_empty_where_nothing_is() {
    let db = open(&SimFs::new(), tiny().stepped());
    db.put(b"a", b"1").unwrap();
    db.delete_range(b"b", Some(b"c")).unwrap();
    db.delete_range(b"x", None).unwrap();
    assert!(db.get(b"a").unwrap().is_some());
    let before = db.stats().last_seq;
    let seq = db.delete_range(b"a", Some(b"a")).unwrap();
    assert_eq!((seq.0, db.stats().last_seq), (before, before), "no change");
    assert!(db.get(b"a").unwrap().is_some());
    let long = vec![b'x'; super::MAX_KEY_BYTES + 1];
    for (start, end) in [(&b"b"[..], Some(&b"a"[..])), (b"b", Some(b"")), (&long, None), (b"a", Some(&long))] {
        assert!(matches!(db.delete_range(start, end), Err(Error::InvalidArgument(_))), "{start:?}");
    }
}

fn range(start: &[u8], end: Option<&[u8]>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.delete_range(start, end);
    batch
}

fn one(key: &str, value: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key.as_bytes(), &value.to_le_bytes());
    batch
}

/// What became of the positions that one waited for.
#[derive(Default)]
struct Told {
    fates: Mutex<Vec<(SeqNo, bool)>>,
}

impl Waiter for Told {
    fn durable(&self, seq: SeqNo) {
        self.fates.lock().push((seq, true));
    }
    fn failed(&self, after: SeqNo, upto: SeqNo, error: &Error) {
        assert!(after < upto && matches!(error, Error::ReadOnly(_)), "{after} {upto} {error}");
        self.fates.lock().push((upto, false));
    }
}

#[test]
fn whoever_waits_for_the_log_is_told_exactly_once_what_has_become_of_it() {
    let disk = SimFs::new();
    let db = open(&disk, tiny());
    let (ok, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (db, ok, failed) = (&db, &ok, &failed);
            scope.spawn(move || {
                let mut waiting: Vec<(SeqNo, Arc<Told>)> = Vec::new();
                for n in 0..400u64 {
                    let Ok(seq) = db.submit(&one(&format!("{thread}:{n}"), n)) else { continue };
                    let told = Arc::new(Told::default());
                    db.when_durable(seq, &(told.clone() as Arc<dyn Waiter>));
                    waiting.push((seq, told));
                }
                for (seq, told) in waiting {
                    until(|| !told.fates.lock().is_empty());
                    // A second call would come from the same group as the first.
                    let fates = told.fates.lock();
                    assert_eq!(fates.len(), 1, "{fates:?}");
                    let (upto, durable) = fates[0];
                    assert!(seq <= upto);
                    assert_eq!(db.wait_durable(seq).is_ok(), durable, "everybody is told the same");
                    assert_eq!(db.is_durable(seq), durable);
                    if durable { ok } else { failed }.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for nth in [20, 30] {
            until(|| db.stats().last_seq > nth * 5);
            disk.fail(Fault::new(CallKind::Sync, nth as usize, Errno::IO));
        }
    });
    let there = db.range::<&[u8]>(..).count() as u64;
    assert_eq!(there, ok.into_inner(), "{} failed", failed.into_inner());
}

#[test]
fn an_interval_reaches_the_disk_when_writers_fall_silent() {
    use crate::fs::sim::CrashPolicy;
    let disk = SimFs::new();
    let db = open(&disk, Options::new().durability(Durability::Interval(Duration::from_millis(20))));
    for n in 0..50u64 {
        db.put(&n.to_be_bytes(), b"v").unwrap();
    }
    assert!(db.is_durable(SeqNo(50)), "nobody waits");
    until(|| {
        let image = disk.image(disk.calls(), &CrashPolicy::Synced);
        open(&image, Options::new().stepped()).range::<&[u8]>(..).count() == 50
    });
}

/// Without syncs a log that fails takes nothing back: what it has lost goes to tables, and writes resume.
#[test]
fn what_a_lazy_log_has_lost_is_flushed() {
    for durability in [Durability::Os, Durability::Interval(Duration::from_secs(3600))] {
        let disk = SimFs::new();
        let db = open(&disk, Options::new().durability(durability));
        let mut written = 0u64;
        while written < 100 {
            db.put(&written.to_be_bytes(), b"v").unwrap();
            written += 1;
        }
        disk.fail(Fault { times: Times::Forever, ..Fault::new(CallKind::Write, 0, Errno::NOSPC) });
        until(|| match db.put(&written.to_be_bytes(), b"v") {
            Ok(_) => {
                written += 1;
                false
            }
            Err(error) => matches!(error, Error::ReadOnly(_)),
        });
        assert_eq!(db.range::<&[u8]>(..).count() as u64, written, "what was acknowledged stays readable");
        disk.heal();
        until(|| db.put(b"resumed", b"v").is_ok());
        use crate::fs::sim::CrashPolicy;
        let image = disk.image(disk.calls(), &CrashPolicy::Synced);
        let found = open(&image, Options::new().stepped()).range::<&[u8]>(..).count() as u64;
        assert!(found >= written, "{found} of {written}");
        db.close().unwrap();
        drop(db);
        let db = open(&disk, Options::new());
        assert_eq!(db.range::<&[u8]>(..).count() as u64, written + 1);
    }
}

#[test]
fn a_database_that_is_dropped_is_closed() {
    let disk = SimFs::new();
    let db = open(&disk, tiny());
    db.put(b"a", b"1").unwrap();
    let another = db.clone();
    drop(db);
    another.put(b"b", b"2").unwrap();
    drop(another);
    let names = crate::fs::Fs::list(&disk).unwrap();
    assert!(!names.iter().any(|name| name.ends_with(".wal")), "tables have it all: {names:?}");
    let db = open(&disk, tiny());
    assert_eq!((db.range::<&[u8]>(..).count(), db.stats().last_seq), (2, 2));
}
