//! Tests of what the engine tells of itself: sums are sums, and errors are told until they are over.

use std::sync::Arc;

use super::*;
use crate::engine::recovery::recover;
use crate::engine::shared::Job;
use crate::engine::{Error, Options, WriteBatch};
use crate::fs::SimFs;

fn open(options: Options) -> Shared {
    recover(Arc::new(SimFs::new()), options.segment_bytes(4_000).stepped()).unwrap()
}

fn level(bytes: u64, written_bytes: u64) -> LevelStats {
    LevelStats { bytes, written_bytes, ..LevelStats::default() }
}

#[test]
fn what_is_told_of_all_together_is_the_sum_of_its_parts() {
    let memory = MemoryStats {
        budget: 1 << 20,
        memtables: 1,
        blocks: 20,
        indexes: 300,
        tables: 4_000,
        scans: 50_000,
        jobs: 600_000,
    };
    assert_eq!(memory.total(), 654_321);
    let mut log = LogStats::default();
    log.group_sizes[..4].copy_from_slice(&[5, 0, 30, 2]);
    assert_eq!(log.groups(), 37);
    let mut stats = Stats { user_bytes: 100, flushed_bytes: 150, compaction_written_bytes: 250, ..Stats::default() };
    stats.levels[0] = level(7, 150);
    stats.levels[6] = level(80, 250);
    assert_eq!(stats.table_bytes(), 87);
    assert_eq!(stats.write_amplification(), 4.0);
    assert_eq!([0, 3, 6].map(|level| stats.write_amplification_of(level)), [1.5, 0.0, 2.5]);
    let nothing_given = Stats { flushed_bytes: 10, ..Stats::default() };
    assert_eq!(nothing_given.write_amplification(), 10.0);
}

#[test]
fn levels_and_blob_files_are_added_up_from_their_tables() {
    let shared = open(Options::new().blob_threshold(Some(100)));
    for n in 0..3u8 {
        let mut batch = WriteBatch::new();
        batch.put(&[n], &[n; 1_000]);
        batch.put(&[n, n], b"small");
        batch.delete(&[n + 1, 0]);
        batch.delete_range(&[100 + n], Some(&[101 + n]));
        let seq = shared.submit(&batch).unwrap();
        shared.wait_durable(seq).unwrap();
        shared.flush_all().unwrap();
    }
    let stats = shared.stats();
    let flushed = stats.levels[0];
    assert_eq!((flushed.tables, flushed.entries, flushed.tombstones, flushed.range_tombstones), (3, 9, 3, 3));
    let sizes: u64 = shared.state().version.tables().map(|(_, table)| table.meta.size).sum();
    assert_eq!((flushed.bytes, stats.table_bytes()), (sizes, sizes));
    assert_eq!((stats.blobs.files, stats.blobs.garbage_bytes), (3, 0));
    assert!(stats.blobs.bytes > 0);
    assert_eq!(flushed.written_bytes, flushed.bytes + stats.blobs.bytes, "all that flushing has written");
    assert_eq!((stats.flushes, stats.flushed_bytes), (3, flushed.written_bytes));
}

#[test]
fn point_reads_are_counted_where_they_went_however_many_were_asked_at_once() {
    let shared = open(Options::new());
    let mut batch = WriteBatch::new();
    (0..10u8).for_each(|n| batch.put(&[n], b"value"));
    let seq = shared.submit(&batch).unwrap();
    assert!(shared.state().get(&[0], seq).unwrap().is_some());
    assert_eq!(shared.stats().levels[0].reads.asked, 0, "the memtable had it");
    shared.wait_durable(seq).unwrap();
    shared.flush_all().unwrap();
    (0..3u8).for_each(|n| assert!(shared.state().get(&[n], seq).unwrap().is_some()));
    let read = shared.stats().levels[0].reads;
    assert_eq!((read.asked, read.read_blocks, read.cached_blocks), (3, 1, 2));
    let keys: Vec<[u8; 1]> = (0..10).map(|n| [n]).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    assert_eq!(shared.state().get_cached(&keys, seq).len(), 10);
    let read = shared.stats().levels[0].reads;
    assert_eq!((read.asked, read.read_blocks, read.cached_blocks), (13, 1, 12));
}

#[test]
fn the_budget_is_what_was_given() {
    for bytes in [8 << 20, 64 << 20, 1 << 30] {
        assert_eq!(open(Options::new().memory(bytes)).stats().memory.budget, bytes as u64);
    }
    assert_eq!(open(Options::new().memory(1)).stats().memory.budget, 8 << 20, "less is no use");
}

#[test]
fn the_error_of_a_job_is_told_until_one_of_its_kind_succeeds() {
    let shared = open(Options::new());
    let told = || shared.stats().background_error;
    assert_eq!(told(), None);
    let failure = Err(Error::Background("no room".to_owned()));
    let text = failure.as_ref().unwrap_err().to_string();
    shared.job_ended(Job::Flush, &failure);
    assert_eq!(told().as_ref(), Some(&text));
    assert_eq!(shared.progress.lock().error_of(Job::Flush), Some(&*text));
    assert_eq!(shared.progress.lock().error_of(Job::Compaction), None);
    shared.job_ended(Job::Compaction, &Ok(()));
    assert_eq!(told().as_ref(), Some(&text));
    shared.job_ended(Job::Flush, &Ok(()));
    assert_eq!(told(), None);
    assert_eq!(shared.progress.lock().jobs, 3);
    shared.tell_progress();
    assert_eq!(shared.progress.lock().jobs, 4, "whoever waits looks again");
}
