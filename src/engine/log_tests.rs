//! Tests of the log, step by step on a simulated disk: when it is synced and marked, what it counts, what it keeps in
//! memory, and what a failure leaves.

use std::sync::Arc;

use super::*;
use crate::engine::WriteBatch;
use crate::engine::recovery::recover;
use crate::fs::SimFs;
use crate::fs::sim::{CallKind, CrashPolicy, Errno, Fault};

fn options() -> Options {
    Options::new().segment_bytes(4_000).stepped()
}

fn open(disk: &SimFs, options: Options) -> Shared {
    recover(Arc::new(disk.clone()), options).unwrap()
}

/// As a process that is killed leaves it.
fn killed(disk: &SimFs) -> SimFs {
    disk.image(disk.calls(), &CrashPolicy::All)
}

fn batch(keys: &[&[u8]], value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    keys.iter().for_each(|key| batch.put(key, value));
    batch
}

fn put(shared: &Shared, key: &[u8]) -> Result<SeqNo> {
    let seq = shared.submit(&batch(&[key], b"value"))?;
    shared.wait_durable(seq)?;
    Ok(seq)
}

fn has(shared: &Shared, key: &[u8]) -> bool {
    shared.state().get(key, SeqNo::MAX).unwrap().is_some()
}

#[test]
fn the_log_thread_wakes_when_there_is_something_to_sync_or_to_say() {
    const LONG: Duration = Duration::from_secs(1 << 30);
    let timeouts = |durability| {
        let shared = open(&SimFs::new(), options().durability(durability));
        let fresh = shared.idle_timeout();
        put(&shared, b"a").unwrap();
        shared.sync_all();
        let written = shared.idle_timeout();
        shared.mark_idle();
        [fresh, written, shared.idle_timeout()]
    };
    let marker_alone = [None, Some(IDLE_BEFORE_MARKER), None];
    assert_eq!(timeouts(Durability::Always), marker_alone);
    assert_eq!(timeouts(Durability::Interval(Duration::ZERO)), marker_alone, "each group is synced");
    assert_eq!(timeouts(Durability::Os), [None; 3]);
    let [fresh, written, marked] = timeouts(Durability::Interval(LONG));
    assert_eq!((fresh, marked), (None, None));
    assert!(written.is_some_and(|left| left <= LONG && left > LONG / 2), "what is left of the interval: {written:?}");
}

#[test]
fn an_idle_log_says_so_once() {
    let shared = open(&SimFs::new(), options());
    let len = || shared.commit.io.lock().segment.as_ref().map(SegmentWriter::len);
    let empty = len();
    shared.mark_idle();
    assert_eq!(len(), empty, "nothing was written");
    put(&shared, b"a").unwrap();
    put(&shared, b"b").unwrap();
    assert_eq!(shared.commit.groups(), 2);
    let written = len();
    shared.mark_idle();
    let marked = len();
    assert!(marked > written);
    shared.mark_idle();
    assert_eq!(len(), marked);
    assert_eq!(shared.commit.groups(), 2, "a marker is no group");
}

#[test]
fn groups_are_counted_by_how_many_changes_they_have() {
    let shared = open(&SimFs::new(), options());
    let keys: Vec<[u8; 1]> = (0..9).map(|n| [n]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    for size in [9, 1, 3, 4, 2] {
        let seq = shared.submit(&batch(&keys[..size], b"value")).unwrap();
        shared.wait_durable(seq).unwrap();
    }
    assert_eq!(shared.stats().log.group_sizes[..5], [1, 2, 1, 1, 0]);
}

#[test]
fn a_buffer_that_one_large_value_has_blown_up_is_not_kept() {
    let shared = open(&SimFs::new(), options());
    let kept_of = |capacity: usize| {
        let mut group = Vec::with_capacity(capacity);
        group.resize(GROUP_PREFIX_LEN, 0);
        assert_eq!(group.capacity(), capacity);
        shared.commit.writer().group = group;
        put(&shared, b"a").unwrap();
        shared.commit.io.lock().buffer.capacity()
    };
    assert_eq!(kept_of(100_000), 100_000);
    assert_eq!(kept_of(KEPT_BUFFER_BYTES), KEPT_BUFFER_BYTES);
    assert!(kept_of(KEPT_BUFFER_BYTES + 1) < 1_000);
}

#[test]
fn a_log_longer_than_four_memtables_and_two_segments_flushes_the_memtable() {
    assert_eq!(log_limit(&Options::new().memtable_bytes(1_000).segment_bytes(1_999)), 4_000);
    assert_eq!(log_limit(&Options::new().memtable_bytes(1_000).segment_bytes(5_000)), 10_000);
    let shared = open(&SimFs::new(), options());
    put(&shared, b"a").unwrap();
    let number = shared.commit.io.lock().segment.as_ref().unwrap().number();
    for (longer, flushes) in [(0, false), (1, true)] {
        shared.catalog.close_segment(number, log_limit(&shared.options) + longer, SeqNo(1), SeqNo(1));
        shared.bound_log();
        assert_eq!(!shared.state().sealed.is_empty(), flushes, "{longer} bytes over the limit");
    }
}

#[test]
fn attempts_to_resume_come_less_often_up_to_a_bound() {
    let (first, longest) = RESUME_PAUSES;
    let pauses: Vec<Duration> = std::iter::successors(Some(first), |pause| Some(longer(*pause))).take(8).collect();
    assert_eq!(pauses[..3], [20, 40, 80].map(Duration::from_millis));
    assert_eq!(pauses[6..], [longest; 2]);
}

#[test]
fn what_has_failed_is_gone_for_a_restart_too_before_writes_resume() {
    let disk = SimFs::new();
    let shared = open(&disk, options());
    put(&shared, b"a").unwrap();
    disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
    // The bytes are written, and a restart could read them.
    assert!(matches!(put(&shared, b"failed"), Err(Error::ReadOnly(_))));
    let restarted = open(&killed(&disk), options());
    assert!(has(&restarted, b"a") && !has(&restarted, b"failed"));
    assert_eq!(put(&restarted, b"b").unwrap(), SeqNo(3), "nor is its position given out again");
}

#[test]
fn a_group_that_waited_when_the_log_failed_is_never_written() {
    let disk = SimFs::new();
    let shared = open(&disk, options());
    put(&shared, b"a").unwrap();
    let waiting = shared.submit(&batch(&[b"failed"], b"value")).unwrap();
    disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
    shared.mark_idle();
    assert!(matches!(shared.wait_durable(waiting), Err(Error::ReadOnly(_))));
    shared.resume().unwrap();
    put(&shared, b"b").unwrap();
    assert_eq!(shared.commit.taken_back(), 1, "it has failed once");
    let restarted = open(&killed(&disk), options());
    assert!(has(&restarted, b"a") && has(&restarted, b"b") && !has(&restarted, b"failed"));
}

#[test]
fn a_lazy_log_that_has_lost_nothing_resumes_without_a_flush() {
    let disk = SimFs::new();
    let shared = open(&disk, options().durability(Durability::Interval(Duration::from_secs(1 << 30))));
    put(&shared, b"a").unwrap();
    shared.sync_all();
    // That of the marker: what was written before it is synced by then.
    disk.fail(Fault::new(CallKind::Sync, 1, Errno::IO));
    shared.mark_idle();
    assert_eq!(disk.struck(), 1);
    assert!(matches!(put(&shared, b"refused"), Err(Error::ReadOnly(_))));
    shared.resume().unwrap();
    assert!(shared.state().sealed.is_empty());
    put(&shared, b"b").unwrap();
}

#[test]
fn a_writer_that_has_synced_wakes_the_log_thread_once_to_notice_when_the_log_falls_idle() {
    // As a running database, but without its threads.
    let shared = open(&SimFs::new(), Options { stepped: false, ..options() });
    put(&shared, b"a").unwrap();
    assert!(shared.commit.log_work.is_set() && shared.commit.log_work.wait(None));
    put(&shared, b"b").unwrap();
    assert!(!shared.commit.log_work.is_set(), "it is watching");
    assert_eq!(shared.commit.durable(), SeqNo(2));
}

#[test]
fn a_failure_that_the_manifest_could_not_be_told_of_is_told_by_its_next_edit() {
    let disk = SimFs::new();
    let shared = open(&disk, options());
    put(&shared, b"a").unwrap();
    // Of the log, and of the edit that says so.
    disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
    disk.fail(Fault::new(CallKind::Sync, 1, Errno::IO));
    assert!(matches!(put(&shared, b"failed"), Err(Error::ReadOnly(_))));
    assert_eq!(disk.struck(), 2);
    shared.catalog.commit(Vec::new(), |_| {}).unwrap();
    let restarted = open(&killed(&disk), options());
    assert!(has(&restarted, b"a") && !has(&restarted, b"failed"));
    assert_eq!(put(&restarted, b"b").unwrap(), SeqNo(3), "no position is given out twice");
}
