//! A log that stands still, that fails while writes queue up behind it, or that is written now and then: what writers are
//! told, what they wait for, and what reaches the disk. As `tests/threads.rs`, with the moments held up that matter.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/held.rs"]
mod held;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chronos::engine::Durability;
use chronos::fs::SimFs;
use chronos::fs::sim::CrashPolicy;
use chronos::{Db, Error, Options};
use common::{Model, contents, in_time, until};
use held::{Call, HeldDisk};

fn open(disk: &SimFs, durability: Durability) -> Db {
    Options::new().durability(durability).open_on(Arc::new(disk.clone())).unwrap()
}

/// Writes that queue up behind a group whose write fails have failed with it: they are told so, and do not come back with
/// the next segment or after a restart.
#[test]
fn what_queues_up_behind_a_group_that_fails_fails_with_it() {
    in_time(|| {
        let disk = SimFs::new();
        let held = HeldDisk::new(&disk);
        let db = Options::new().open_on(held.clone()).unwrap();
        db.put(b"before", b"").unwrap();
        let write = held.hold(Call::WriteGroup, 0);
        let put = |key: &'static [u8]| {
            let db = db.clone();
            std::thread::spawn(move || db.put(key, b""))
        };
        let mut writers = vec![put(b"failing")];
        write.wait();
        for key in [&b"queued"[..], b"queued too"] {
            writers.push(put(key));
            until(|| db.get(key).unwrap().is_some());
        }
        write.fail();
        for writer in writers {
            let told = writer.join().unwrap();
            assert!(matches!(told, Err(Error::ReadOnly(_))), "{told:?}");
        }
        until(|| db.put(b"after", b"").is_ok());
        let expected = Model::from([(b"after".to_vec(), Vec::new()), (b"before".to_vec(), Vec::new())]);
        assert_eq!(contents(&db).unwrap(), expected);
        let image = disk.image(disk.calls(), &CrashPolicy::Synced);
        assert_eq!(contents(&open(&image, Durability::Always)).unwrap(), expected, "after a power cut");
    });
}

/// Whoever writes faster than the log waits for it: what a slow disk costs in memory is bounded.
#[test]
fn writers_wait_for_a_log_that_stands_still() {
    const VALUE: usize = 64 << 10;
    const MEMTABLE: usize = 8 << 20;
    /// More than may queue up, and less than the memtables that may wait for a flush.
    const WRITES: u64 = 160;
    in_time(|| {
        let disk = SimFs::new();
        let held = HeldDisk::new(&disk);
        let options = Options::new().durability(Durability::Os).memtable_bytes(MEMTABLE).segment_bytes(1 << 20);
        let db = options.open_on(held.clone()).unwrap();
        let write = held.hold(Call::WriteGroup, 0);
        let written = Arc::new(AtomicU64::new(0));
        let writer = {
            let (db, written) = (db.clone(), written.clone());
            std::thread::spawn(move || {
                for n in 0..WRITES {
                    db.put(&n.to_be_bytes(), &[n as u8; VALUE]).unwrap();
                    written.store(n + 1, Ordering::SeqCst);
                }
            })
        };
        write.wait();
        // It is given a while to go too far; where it should not, nothing depends on how far it gets.
        let patience = Instant::now();
        while !writer.is_finished() && patience.elapsed() < Duration::from_millis(300) {
            std::thread::yield_now();
        }
        // The group that is held up, half a memtable behind it, and the write that went over that.
        let most = (MEMTABLE / VALUE) as u64 + 2;
        let queued = written.load(Ordering::SeqCst);
        assert!(queued <= most, "{queued} writes went ahead of the log, not {most}");
        drop(write);
        writer.join().unwrap();
        assert_eq!(db.range::<&[u8]>(..).count() as u64, WRITES);
        db.close().unwrap();
    });
}

/// Where replies do not wait for the log, it is written all the same, however few writes come.
#[test]
fn a_single_write_reaches_the_disk_though_nothing_follows() {
    in_time(|| {
        for (durability, policy) in
            [(Durability::Interval(Duration::from_millis(1)), CrashPolicy::Synced), (Durability::Os, CrashPolicy::All)]
        {
            let disk = SimFs::new();
            let db = open(&disk, durability);
            // More than one: the first may come while the log thread is still awake.
            for n in 0..5u64 {
                db.put(&n.to_be_bytes(), b"").unwrap();
                until(|| {
                    let image = disk.image(disk.calls(), &policy);
                    contents(&open(&image, durability)).unwrap().len() as u64 == n + 1
                });
            }
        }
    });
}

/// While the interval has not passed, writes are written, and cost no sync.
#[test]
fn an_interval_that_has_not_passed_costs_no_sync() {
    in_time(|| {
        let disk = SimFs::new();
        let db = open(&disk, Durability::Interval(Duration::from_secs(3_600)));
        for n in 0..5u64 {
            db.put(&n.to_be_bytes(), b"").unwrap();
            until(|| db.stats().log.groups() == n + 1);
        }
        assert_eq!(db.stats().log.syncs.count, 0);
        let image = disk.image(disk.calls(), &CrashPolicy::Synced);
        assert!(contents(&open(&image, Durability::Os)).unwrap().is_empty());
    });
}

/// What was accepted while a sync took its time is not covered by it: the interval runs from the sync's beginning.
#[test]
fn an_interval_runs_while_a_sync_takes_its_time() {
    const INTERVAL: Duration = Duration::from_millis(200);
    in_time(|| {
        let disk = SimFs::new();
        let held = HeldDisk::new(&disk);
        let db = Options::new().durability(Durability::Interval(INTERVAL)).open_on(held.clone()).unwrap();
        let sync = held.hold(Call::SyncLog, 0);
        // On a slow machine it is this writer that syncs.
        let first = {
            let db = db.clone();
            std::thread::spawn(move || db.put(b"first", b"").unwrap())
        };
        sync.wait();
        let held_up = Instant::now();
        let last = db.put(b"while it is synced", b"").unwrap();
        until(|| held_up.elapsed() > INTERVAL);
        drop(sync);
        first.join().unwrap();
        until(|| db.stats().log.groups() == 2);
        assert_eq!(db.stats().log.synced, last, "it is written, and waits for another interval");
    });
}
