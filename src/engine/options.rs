//! What can be chosen when a database is opened.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::commit::MAX_GROUP_BYTES;
use super::flush::MAX_SEALED;
use super::{Db, Error, Result, Strategy};
use crate::fs::Fs;
pub use crate::storage::sstable::Compression;
use crate::storage::wal::Room;

/// How far the first log segment after a start is filled ahead: the next one is ready long before it is full.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;

/// How large tables become: few files for much data, while what one step of compaction writes stays small beside it.
const TABLE_BYTES: u64 = 32 << 20;

/// However little memory there is: each table takes some hundred bytes of it, and a descriptor while it is read.
const LEAST_TABLE_BYTES: u64 = 2 << 20;

/// Half of what a memtable's records can be addressed in; a batch may come on top.
const MAX_MEMTABLE_BYTES: usize = 16 << 30;

/// A group of log records may always take this much before writers wait, however little memory there is. In tests of
/// schedules they wait sooner, or the tiny ones would never.
const LEAST_GROUP_BYTES: usize = if cfg!(feature = "schedules") { 150 } else { 1 << 20 };

const _: () = assert!(MAX_MEMTABLE_BYTES + super::commit::MAX_BATCH_BYTES < super::records::MAX_RECORD_BYTES);

/// Values of this size are put apart by default. Overwritten at random they then cost half the bytes written and come in at
/// nearly twice the rate, while reads cost the same and scans a sixth more; from 16 KiB on even that is gone. Values of
/// 1 KiB would gain as much, but scans of them take twice as long (`benches/values.rs`).
pub(crate) const BLOB_THRESHOLD: usize = 4 << 10;

/// What an acknowledged write has survived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every write is on disk before it is acknowledged.
    #[default]
    Always,
    /// The log is synced at this interval: a crash loses at most that much of the newest writes, as a suffix.
    Interval(Duration),
    /// Nothing is synced: the log thread hands each write to the operating system soon after it was acknowledged, and that
    /// writes back when it likes. A crash of the machine loses some of the newest writes, a killed process those of some
    /// microseconds, as a suffix.
    Os,
}

/// Where the time comes from: milliseconds since 1970.
#[derive(Clone)]
pub struct Clock(pub Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Clock {
        Clock(Arc::new(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64)
        }))
    }

    /// Milliseconds since 1970.
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Where randomness comes from (the salts of log files).
#[derive(Clone)]
pub struct Entropy(pub Arc<dyn Fn() -> u64 + Send + Sync>);

impl Entropy {
    /// The operating system's, by way of the standard library's hash keys.
    pub fn system() -> Entropy {
        Entropy(Arc::new(|| RandomState::new().hash_one(0)))
    }

    pub(crate) fn draw(&self) -> u64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) compression: Compression,
    pub(crate) memtable_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) table_bytes: u64,
    pub(crate) level_bytes: u64,
    pub(crate) block_bytes: usize,
    pub(crate) blob_threshold: Option<usize>,
    pub(crate) compaction: Strategy,
    pub(crate) compaction_threads: usize,
    pub(crate) idle_after: Duration,
    pub(crate) history: Option<Duration>,
    pub(crate) snapshot_max_age: Option<Duration>,
    pub(crate) stepped: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Always,
            clock: Clock::system(),
            entropy: Entropy::system(),
            compression: Compression::Lz4,
            memtable_bytes: 32 << 20,
            cache_bytes: 128 << 20,
            // Long enough that preparing the next one is rare, short enough that an empty database stays small.
            segment_bytes: 16 << 20,
            table_bytes: TABLE_BYTES,
            level_bytes: 128 << 20,
            block_bytes: 4 << 10,
            blob_threshold: Some(BLOB_THRESHOLD),
            compaction: Strategy::Leveled,
            compaction_threads: 2,
            idle_after: Duration::from_secs(5),
            history: None,
            snapshot_max_age: None,
            stepped: false,
        }
    }
}

impl Options {
    /// The defaults: every write synced before it is acknowledged, 256 MiB of memory.
    pub fn new() -> Options {
        Options::default()
    }

    /// What an acknowledged write has survived.
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// One budget in bytes. An eighth is the size at which a memtable is sealed; one is written to, and up to three wait
    /// to be flushed. The other half is for reading: blocks and indexes and filters that are cached, open tables, what
    /// scans read ahead, and what flush and compaction work on; the cache makes room for the others. At least 8 MiB are
    /// used. [`crate::engine::Stats::memory`] tells what uses how much. Besides it there are the buffers of the log (up
    /// to two of half a memtable) and what the process itself needs. Sets [`Options::level_bytes`] to what four
    /// memtables hold: as much as is merged down at once.
    pub fn memory(mut self, bytes: usize) -> Options {
        let bytes = bytes.max(8 << 20);
        self = self.memtable_bytes(bytes / 8).level_bytes(bytes as u64 / 2);
        self.cache_bytes = bytes / 2;
        self.table_bytes = (bytes as u64 / 8).clamp(LEAST_TABLE_BYTES, TABLE_BYTES);
        self
    }

    /// The size in bytes at which a memtable is sealed and flushed, at most 16 GiB; see [`Options::memory`].
    pub fn memtable_bytes(mut self, bytes: usize) -> Options {
        self.memtable_bytes = bytes.clamp(1, MAX_MEMTABLE_BYTES);
        self
    }

    /// The size in bytes of the block cache, with all that it makes room for; see [`Options::memory`].
    pub fn cache_bytes(mut self, bytes: usize) -> Options {
        self.cache_bytes = bytes;
        self
    }

    /// The size in bytes of a log segment; with [`Durability::Always`] it is filled ahead.
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// The size in bytes at which compaction begins the next table.
    pub fn table_bytes(mut self, bytes: u64) -> Options {
        self.table_bytes = bytes.max(1);
        self
    }

    /// The size in bytes, about, of the first level below level 0; each deeper level may have ten times as much. The
    /// exact sizes follow from that of the last level: see [`Strategy::Leveled`].
    pub fn level_bytes(mut self, bytes: u64) -> Options {
        self.level_bytes = bytes.max(1);
        self
    }

    /// The size in bytes that a table's data blocks aim at, before compression.
    pub fn block_bytes(mut self, bytes: usize) -> Options {
        self.block_bytes = bytes.max(1);
        self
    }

    /// From this many bytes on values are put apart, into blob files that tables point to, so that compaction does not
    /// rewrite them; 4 KiB by default, `None` for never. They are read through the operating system's cache, not the block
    /// cache. What was written with another choice stays as it is until compaction meets it.
    pub fn blob_threshold(mut self, bytes: Option<usize>) -> Options {
        self.blob_threshold = bytes.map(|bytes| bytes.max(1));
        self
    }

    /// How tables are merged; may be another than the last time.
    pub fn compaction(mut self, strategy: Strategy) -> Options {
        self.compaction = strategy;
        self
    }

    /// How many threads a large compaction may use, 2 by default; never more than the machine has processors.
    pub fn compaction_threads(mut self, threads: usize) -> Options {
        self.compaction_threads = threads.max(1);
        self
    }

    /// How long nothing has to be flushed until the tree is tidied although nothing presses: level 0 is emptied, and
    /// space comes back from tables with some garbage. 5 seconds by default.
    pub fn idle_after(mut self, duration: Duration) -> Options {
        self.idle_after = duration;
        self
    }

    /// How far back the database can be read: see [`Db::get_at`]. What was overwritten or deleted takes its space for as
    /// long; zero, the default, keeps nothing. May be another than the last time: what was not kept then is not there now.
    ///
    /// The times are those at which the log wrote the changes, exact to the millisecond while there are no more than 131,072
    /// of them within the window; of more, an answer may lack what came within the last 16,384th of the window before the
    /// time asked for. With [`Durability::Interval`] and [`Durability::Os`] that is some milliseconds after the write.
    pub fn history(mut self, window: Duration) -> Options {
        self.history = Some(window).filter(|window| !window.is_zero());
        self
    }

    /// How old a snapshot may become: the engine then releases it, and reads from it end in [`Error::SnapshotExpired`].
    /// Any age by default. Who forgets a snapshot keeps everything from being dropped that it shows.
    ///
    /// [`Error::SnapshotExpired`]: super::Error::SnapshotExpired
    pub fn snapshot_max_age(mut self, age: Duration) -> Options {
        self.snapshot_max_age = Some(age);
        self
    }

    /// How blocks of tables are compressed; holds for those that are written from now on.
    pub fn compression(mut self, compression: Compression) -> Options {
        self.compression = compression;
        self
    }

    /// Where the time comes from (expiry, and the times in the log).
    pub fn clock(mut self, clock: Clock) -> Options {
        self.clock = clock;
        self
    }

    /// Where randomness comes from.
    pub fn entropy(mut self, entropy: Entropy) -> Options {
        self.entropy = entropy;
        self
    }

    /// For tests that must be repeatable: no background threads. Flushes and compactions happen only in
    /// [`Db::step`], one at a time.
    pub fn stepped(mut self) -> Options {
        self.stepped = true;
        self
    }

    /// What the options alone can tell to be wrong.
    pub(crate) fn check(&self) -> Result<()> {
        match self.compaction {
            Strategy::Fifo { max_age, max_bytes }
                if self.history.is_some() && (max_age.is_some() || max_bytes.is_some()) =>
            {
                let what = "history cannot be kept where Strategy::Fifo drops the oldest data whoever may read it";
                Err(Error::InvalidArgument(what.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// All that is accounted for stays within this.
    pub(crate) fn budget(&self) -> u64 {
        (self.memtable_bytes * (MAX_SEALED + 1) + self.cache_bytes) as u64
    }

    /// Writers wait while a group of log records is longer than this.
    pub(crate) fn group_bytes(&self) -> usize {
        (self.memtable_bytes / 2).clamp(LEAST_GROUP_BYTES, MAX_GROUP_BYTES)
    }

    /// What a log segment is given.
    pub(crate) fn segment_room(&self) -> Room {
        Room { bytes: self.segment_bytes, filled: self.durability == Durability::Always }
    }

    /// The first segment is zeroed while somebody waits for the start, so it is shorter.
    pub(crate) fn first_segment_room(&self) -> Room {
        Room { bytes: self.segment_bytes.min(FIRST_SEGMENT_BYTES), ..self.segment_room() }
    }

    /// Opens the database in `directory`, creating both if needed.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Db> {
        Db::open(directory, self)
    }

    /// Opens the database on a file system of the caller's, such as a [`crate::fs::SimFs`].
    pub fn open_on(self, fs: Arc<dyn Fs>) -> Result<Db> {
        Db::open_on(fs, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out_as_it_is_said() {
        for (given, memtable, cache, level, table, group) in [
            (0, 1 << 20, 4 << 20, 4 << 20, 2 << 20, LEAST_GROUP_BYTES.max(512 << 10)),
            (64 << 20, 8 << 20, 32 << 20, 32 << 20, 8 << 20, 4 << 20),
            (1 << 30, 128 << 20, 512 << 20, 512 << 20, 32 << 20, 32 << 20),
        ] {
            let options = Options::new().memory(given);
            assert_eq!((options.memtable_bytes, options.cache_bytes), (memtable, cache), "{given}");
            assert_eq!((options.level_bytes, options.table_bytes), (level, table), "{given}");
            assert_eq!(options.group_bytes(), group, "{given}");
        }
    }

    #[test]
    fn segments_are_filled_ahead_where_each_group_is_synced_and_the_first_is_short() {
        let rooms = |durability| {
            let options = Options::new().durability(durability).segment_bytes(16 << 20);
            [options.first_segment_room(), options.segment_room()].map(|room| (room.bytes, room.filled))
        };
        assert_eq!(rooms(Durability::Always), [(4 << 20, true), (16 << 20, true)]);
        for lazy in [Durability::Os, Durability::Interval(Duration::from_secs(1))] {
            assert_eq!(rooms(lazy), [(4 << 20, false), (16 << 20, false)]);
        }
        assert_eq!(Options::new().segment_bytes(1_000).first_segment_room().bytes, 1_000);
    }
}
