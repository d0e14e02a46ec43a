//! Tests of the write path, step by step: whom a write wakes, when writers wait for the log, and what is too large.

use std::time::Duration;

use super::*;
use crate::engine::Options;
use crate::engine::recovery::recover;
use crate::engine::shared::Job;
use crate::fs::SimFs;
use crate::fs::sim::{CallKind, Errno, Fault};

fn open(options: Options) -> Shared {
    recover(Arc::new(SimFs::new()), options.segment_bytes(4_000).stepped()).unwrap()
}

fn one(key: &[u8], value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

fn range(start: &[u8], end: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.delete_range(start, Some(end));
    batch
}

/// Whether it was notified since the last look.
fn woken(signal: &Signal) -> bool {
    signal.is_set() && signal.wait(Some(Duration::ZERO))
}

#[test]
fn the_log_thread_is_woken_by_the_first_write_that_nobody_waits_for() {
    let shared = open(Options::new());
    shared.submit(&one(b"a", b"1")).unwrap();
    assert!(!woken(&shared.commit.log_work), "whoever waits for the reply syncs");
    let shared = open(Options::new().durability(Durability::Os));
    shared.submit(&one(b"a", b"1")).unwrap();
    assert!(woken(&shared.commit.log_work));
    shared.submit(&one(b"b", b"2")).unwrap();
    assert!(!woken(&shared.commit.log_work), "it is awake");
}

#[test]
fn the_flush_thread_is_woken_where_a_flush_may_be_due() {
    let shared = open(Options::new().memtable_bytes(1_000));
    let write = |batch: &WriteBatch| shared.submit(batch).unwrap();
    shared.wait_durable(write(&one(b"b", b"1"))).unwrap();
    assert!(!woken(&shared.flush_work), "nothing is full");
    shared.seal_all();
    assert!(shared.flush_oldest().unwrap() && woken(&shared.flush_work));
    write(&range(b"x", b"y"));
    write(&one(b"c", b"2"));
    assert!(!woken(&shared.flush_work), "no table lies there");
    write(&range(b"a", b"d"));
    assert!(woken(&shared.flush_work), "a table is deleted");
    let full = write(&one(b"e", &[7; 1_000]));
    assert!(woken(&shared.flush_work));
    assert!(!shared.flush_oldest().unwrap(), "it could still be taken back");
    shared.wait_durable(full).unwrap();
    assert!(woken(&shared.flush_work), "now it is settled");
}

#[test]
fn writers_wait_while_the_group_is_longer_than_it_may_be() {
    let shared = open(Options::new());
    let most = shared.options.group_bytes();
    let waits = || shared.stats().log_waits.count;
    // One byte for the kind of change, two for the key, four for the length of the value.
    shared.submit(&one(b"k", &vec![7; most - GROUP_PREFIX_LEN - 7])).unwrap();
    assert_eq!(shared.commit.writer().group.len(), most);
    shared.submit(&one(b"k", b"more")).unwrap();
    assert_eq!(waits(), 0, "it was not longer");
    shared.submit(&one(b"k", b"last")).unwrap();
    assert_eq!(waits(), 1);
    assert!(shared.commit.writer().group.len() < 100, "the log has taken the others");
}

#[test]
fn sizes_are_refused_from_the_first_byte_over_the_limit() {
    let refused = |result: Result<()>| match result {
        Err(Error::InvalidArgument(_)) => true,
        result => result.map(|()| false).unwrap(),
    };
    assert!(!refused(check_batch_len(MAX_BATCH_BYTES)) && refused(check_batch_len(MAX_BATCH_BYTES + 1)));
    for (key, value, too_large) in [
        (1, 0, false),
        (0, 0, true),
        (MAX_KEY_BYTES, MAX_VALUE_BYTES, false),
        (MAX_KEY_BYTES + 1, 0, true),
        (1, MAX_VALUE_BYTES + 1, true),
    ] {
        assert_eq!(refused(check_lens(key, value)), too_large, "{key} {value}");
    }
    let (longest, longer) = (vec![b'x'; MAX_KEY_BYTES], vec![b'x'; MAX_KEY_BYTES + 1]);
    for (start, end, wrong) in [
        (&b"a"[..], Some(&longest[..]), false),
        (&longest, None, false),
        (b"a", Some(&longer), true),
        (&longer, None, true),
        (b"a", Some(b"a"), false),
        (b"b", Some(b"a"), true),
    ] {
        assert_eq!(refused(check_range(start, end)), wrong, "{} {:?}", start.len(), end.map(<[u8]>::len));
    }
}

#[test]
fn a_flush_waits_for_what_was_sealed_although_later_positions_have_failed() {
    let disk = SimFs::new();
    // As a running database, but without its threads.
    let shared = recover(Arc::new(disk.clone()), Options::new().segment_bytes(4_000)).unwrap();
    let put = |key: &[u8]| shared.wait_durable(shared.submit(&one(key, b"1")).unwrap());
    put(b"a").unwrap();
    shared.seal_all();
    disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
    put(b"failed").unwrap_err();
    shared.resume().unwrap();
    shared.flush_work.wait(None);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| shared.flush_all().map(|()| shared.state().sealed.len()));
        // It asks for the flush, or has returned too early.
        shared.flush_work.wait(Some(Duration::from_secs(10)));
        if !flush.is_finished() {
            assert!(shared.flush_oldest().unwrap());
            shared.job_ended(Job::Flush, &Ok(()));
        }
        assert_eq!(flush.join().unwrap().unwrap(), 0, "memtables that are still not in tables");
    });
}
