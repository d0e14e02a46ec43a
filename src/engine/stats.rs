//! What the engine counts, and what it tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::compaction::Why;
use super::retention::{HistoryStats, SnapshotStats};
use super::shared::Shared;
use super::version::LEVELS;
use super::{SeqNo, blobs};
use crate::storage::Use;
use crate::storage::sstable::Reads;

/// Counters since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: AtomicU64,
    /// Keys and values as they were given, with a few bytes for each change.
    pub(crate) user_bytes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) moves: AtomicU64,
    pub(crate) drops: AtomicU64,
    /// Of all three together, by why.
    pub(crate) reasons: [AtomicU64; Why::ALL.len()],
    pub(crate) compaction_read_bytes: AtomicU64,
    /// By level: what flush (0) and compaction (the others) have written into it.
    pub(crate) written_bytes: [AtomicU64; LEVELS],
    pub(crate) delays: WaitCounter,
    pub(crate) flush_waits: WaitCounter,
    pub(crate) log_waits: WaitCounter,
    /// See [`LogStats::group_sizes`].
    pub(crate) group_sizes: [AtomicU64; GROUP_SIZES],
    pub(crate) log_written_bytes: AtomicU64,
    pub(crate) log_syncs: WaitCounter,
}

impl Counters {
    /// A log group of so many changes and bytes was written.
    pub(crate) fn add_group(&self, changes: u64, bytes: usize) {
        let size = changes.checked_ilog2().unwrap_or_default() as usize;
        add(&self.group_sizes[size.min(GROUP_SIZES - 1)], 1);
        add(&self.log_written_bytes, bytes as u64);
    }
}

/// Sizes of log groups that are told apart: more than this doubling of one change is one size.
const GROUP_SIZES: usize = 16;

/// Counts waits of one kind.
#[derive(Debug, Default)]
pub(crate) struct WaitCounter {
    count: AtomicU64,
    total_us: AtomicU64,
    longest_us: AtomicU64,
}

impl WaitCounter {
    /// Somebody has waited since `started`.
    pub(crate) fn add(&self, started: Instant) {
        let us = started.elapsed().as_micros() as u64;
        add(&self.count, 1);
        add(&self.total_us, us);
        self.longest_us.fetch_max(us, Ordering::Relaxed);
    }

    fn read(&self) -> Waits {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Waits { count: get(&self.count), total_us: get(&self.total_us), longest_us: get(&self.longest_us) }
    }
}

/// How often, and for how long, something had to be waited for, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// How often.
    pub count: u64,
    /// All times together.
    pub total_us: u64,
    /// The longest.
    pub longest_us: u64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// A level of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Tables.
    pub tables: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Entries, tombstones and older versions included.
    pub entries: u64,
    /// Of those, tombstones.
    pub tombstones: u64,
    /// Range tombstones, those that a cut between two tables has made two counted twice.
    pub range_tombstones: u64,
    /// Bytes that flush (level 0) or compaction (the others) have written into it since the database was opened.
    pub written_bytes: u64,
    /// Point reads of its tables since the database was opened. A read that needs the disk asks once what is cached and
    /// once all, and is counted twice in the levels above the one that it goes to the disk for.
    pub reads: Reads,
}

/// What uses how much of the memory that was given, in bytes. See [`super::Options::memory`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// What all of it together may be. Only a batch that is larger than a memtable goes beyond that for a while.
    pub budget: u64,
    /// Memtables.
    pub memtables: u64,
    /// Cached data blocks.
    pub blocks: u64,
    /// Cached partitions of indexes and filters.
    pub indexes: u64,
    /// What open tables always have in memory.
    pub tables: u64,
    /// What scans have read ahead.
    pub scans: u64,
    /// What flush and compaction read from and write to.
    pub jobs: u64,
}

impl MemoryStats {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.memtables + self.blocks + self.indexes + self.tables + self.scans + self.jobs
    }
}

/// Blob files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobStats {
    /// How many.
    pub files: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Of those, values that no table points to any more.
    pub garbage_bytes: u64,
}

/// The log, in which writes become durable in groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Groups written, by how many changes they had: first those of 1, then of 2 and 3, of 4 to 7, and so on; the last
    /// number is all larger ones. With [`super::Durability::Always`] each group is synced before anybody in it is
    /// answered, so these are the writes that one sync is shared by.
    pub group_sizes: [u64; GROUP_SIZES],
    /// Bytes of all groups.
    pub written_bytes: u64,
    /// Syncs of the log, and what they took.
    pub syncs: Waits,
    /// The newest change.
    pub position: SeqNo,
    /// The newest change that the log has on disk, synced.
    pub synced: SeqNo,
}

impl LogStats {
    /// How many groups were written.
    pub fn groups(&self) -> u64 {
        self.group_sizes.iter().sum()
    }
}

/// What the engine tells of itself. Counters run from when the database was opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// By level, from 0.
    pub levels: [LevelStats; LEVELS],
    /// Files with values that are put apart, with [`super::Options::blob_threshold`].
    pub blobs: BlobStats,
    /// Bytes in memtables, about.
    pub memtable_bytes: u64,
    /// Memtables that wait to be flushed.
    pub sealed_memtables: u64,
    /// Bytes of closed log segments that are still needed.
    pub log_bytes: u64,
    /// What uses how much memory.
    pub memory: MemoryStats,
    /// Bytes in the block cache.
    pub cache_bytes: u64,
    /// Block reads that the cache answered.
    pub cache_hits: u64,
    /// Block reads that went to the disk.
    pub cache_misses: u64,
    /// What was written to the log, and how long that took.
    pub log: LogStats,
    /// Why writes are refused, if they are: the log has failed and no new one could be begun yet, or all memtables are full
    /// and the disk takes no tables. Both are tried again until they succeed.
    pub writes_refused: Option<String>,
    /// The newest position applied.
    pub last_seq: u64,
    /// The newest position that is durable.
    pub durable_seq: u64,
    /// Live snapshots, those that show the oldest positions first.
    pub snapshots: Vec<SnapshotStats>,
    /// What is kept of the past, with [`super::Options::history`].
    pub history: Option<HistoryStats>,
    /// Bytes that were given to be written: keys, values, and a few bytes for each change.
    pub user_bytes: u64,
    /// Memtables written to tables, and the bytes of those tables.
    pub flushes: u64,
    /// See `flushes`.
    pub flushed_bytes: u64,
    /// Compactions that merged tables, and the bytes they read and wrote.
    pub compactions: u64,
    /// See `compactions`.
    pub compaction_read_bytes: u64,
    /// See `compactions`.
    pub compaction_written_bytes: u64,
    /// Compactions that only moved tables to another level.
    pub moves: u64,
    /// Compactions that only dropped tables.
    pub drops: u64,
    /// Compactions of all kinds by their reason: `flushed` (level 0 was full), `size` (another level was), `garbage`
    /// (deleted, overwritten and expired entries), `idle` (nothing else to do), `age` (a limit of
    /// [`super::Strategy::Fifo`]), `asked` ([`super::Db::compact`]).
    pub compaction_reasons: [(&'static str, u64); Why::ALL.len()],
    /// Writes that were slowed down because compaction was behind.
    pub delays: Waits,
    /// Writes that waited because all memtables were full and none was flushed yet.
    pub flush_waits: Waits,
    /// Writes that waited because the log's buffer was full and the disk had not taken it yet.
    pub log_waits: Waits,
    /// Tables that reads have found to be damaged, and what the first such read of each said. What can be read of them is
    /// served; compaction leaves them alone.
    pub damage: Vec<String>,
    /// The last error of a flush, a compaction or the preparing of a log segment, until one of its kind succeeds.
    pub background_error: Option<String>,
}

impl Stats {
    /// Bytes written to tables and blob files, by flush and compaction, for each byte that was given to be written; 0 as long as none
    /// was. Below 1 where memtables take overwrites or compression pays. The log comes on top: once each byte.
    pub fn write_amplification(&self) -> f64 {
        (self.flushed_bytes + self.compaction_written_bytes) as f64 / self.user_bytes.max(1) as f64
    }

    /// As [`Stats::write_amplification`], of what one level was written.
    pub fn write_amplification_of(&self, level: usize) -> f64 {
        self.levels[level].written_bytes as f64 / self.user_bytes.max(1) as f64
    }

    /// Bytes of all tables.
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }
}

impl Shared {
    fn log_stats(&self) -> LogStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            group_sizes: self.counters.group_sizes.each_ref().map(get),
            written_bytes: get(&self.counters.log_written_bytes),
            syncs: self.counters.log_syncs.read(),
            // First: it never overtakes the other.
            synced: self.commit.synced(),
            position: self.commit.visible(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.state();
        let mut levels = [LevelStats::default(); LEVELS];
        for (level, table) in state.version.tables() {
            levels[level].tables += 1;
            levels[level].bytes += table.meta.size;
            levels[level].entries += table.meta.entries;
            levels[level].tombstones += table.meta.tombstones;
            levels[level].range_tombstones += table.meta.range_tombstones;
        }
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (level, written) in levels.iter_mut().zip(&self.counters.written_bytes) {
            level.written_bytes = get(written);
        }
        for (level, reads) in levels.iter_mut().zip(self.catalog.source.reads.sum()) {
            level.reads = reads;
        }
        let memtables = state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]);
        let memtable_bytes = memtables.map(|memtable| memtable.bytes() as u64).sum();
        let (cache_bytes, indexes) = self.cache.bytes();
        let memory = MemoryStats {
            budget: self.options.budget(),
            memtables: memtable_bytes,
            blocks: cache_bytes - indexes,
            indexes,
            tables: self.cache.charged(Use::Tables),
            scans: self.cache.charged(Use::Scans),
            jobs: self.cache.charged(Use::Jobs),
        };
        Stats {
            levels,
            blobs: blobs::stats(&state.version),
            memtable_bytes,
            sealed_memtables: state.sealed.len() as u64,
            log_bytes: self.catalog.closed_log_bytes(),
            memory,
            cache_bytes,
            cache_hits: self.cache.hits(),
            cache_misses: self.cache.misses(),
            log: self.log_stats(),
            writes_refused: self.refusal(),
            last_seq: self.commit.visible().0,
            durable_seq: self.commit.durable().0,
            snapshots: self.retention.snapshots(),
            history: self.retention.history(),
            user_bytes: get(&self.counters.user_bytes),
            flushes: get(&self.counters.flushes),
            flushed_bytes: levels[0].written_bytes,
            compactions: get(&self.counters.compactions),
            compaction_read_bytes: get(&self.counters.compaction_read_bytes),
            compaction_written_bytes: levels[1..].iter().map(|level| level.written_bytes).sum(),
            moves: get(&self.counters.moves),
            drops: get(&self.counters.drops),
            compaction_reasons: Why::ALL.map(|why| (why.name(), get(&self.counters.reasons[why as usize]))),
            delays: self.counters.delays.read(),
            flush_waits: self.counters.flush_waits.read(),
            log_waits: self.counters.log_waits.read(),
            damage: state.version.damage().map(str::to_owned).collect(),
            background_error: self.progress.lock().error().map(str::to_owned),
        }
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
