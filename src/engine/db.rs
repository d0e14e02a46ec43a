//! The database as its users see it.

use std::borrow::Cow;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::restore::{Along, Ranges};
use super::shared::Shared;
use super::snapshot::{Found, Range, Snapshot};
use super::stats::Stats;
use super::transact::{Outcome, Read};
use super::{Error, Options, Result, SeqNo, Waiter, WriteBatch, background, recovery};
use crate::codec::{Few, Slice};
use crate::fs::{Fs, LockError, OsFs};
use crate::storage::manifest::Change;

/// A database. Cloning gives another handle to the same one; dropping the last handle closes it.
#[derive(Clone)]
pub struct Db {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    open: Mutex<Option<Open>>,
}

/// What an open database holds and a closed one has given back.
struct Open {
    threads: Vec<JoinHandle<()>>,
    /// Of the directory.
    lock: Box<dyn Send + Sync>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the database was not closed cleanly; its log will be replayed");
        }
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        let Some(Open { threads, lock }) = self.open.lock().take() else { return Ok(()) };
        let shared = &self.shared;
        shared.stop_writes();
        background::stop(shared, threads);
        // A compaction that a caller of `compact` runs gives up now.
        let _turn = shared.compacting.lock();
        let result = (|| {
            let last = shared.seal_all();
            while shared.flush_oldest()? {}
            if !shared.state().sealed.is_empty() {
                return Err(Error::ReadOnly("the log has failed and not everything could be flushed".to_owned()));
            }
            shared.close_log();
            // With everything in tables this edit drops the log, so that the next start replays nothing.
            shared.catalog.commit(vec![Change::Flushed(last), Change::LastSeq(last)], |_| {})
        })();
        let result = match result {
            // What could not be flushed is in the log; whatever the durability, nobody will sync it later.
            Err(error @ (Error::Io { .. } | Error::ReadOnly(_))) if shared.log_has_everything() => {
                tracing::warn!(%error, "not everything could be flushed; the log has it, and the next start replays it");
                Ok(())
            }
            result => result,
        };
        shared.catalog.close();
        drop(lock);
        result
    }
}

impl Db {
    /// Opens the database in `directory`, creating both if needed. After a crash this recovers everything that was
    /// acknowledged. If the disk can be read but takes no writes (it is full), a database that exists is opened all the
    /// same: reads work, writes are refused until the disk allows.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if another process has it open, [`Error::Corrupt`] if acknowledged data is damaged,
    /// [`Error::Io`] if the disk cannot be read, or nothing is there yet and nothing can be created.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Db> {
        let directory = directory.as_ref();
        let fs = OsFs::open(directory).map_err(|source| Error::Io {
            file: directory.display().to_string(),
            what: "open the directory",
            source,
        })?;
        Db::open_on(Arc::new(fs), options)
    }

    /// As [`Db::open`], on a file system of the caller's.
    pub fn open_on(fs: Arc<dyn Fs>, options: Options) -> Result<Db> {
        options.check()?;
        let lock = fs.lock().map_err(|error| match error {
            LockError::Held(holder) => Error::Locked { directory: fs.describe(), holder },
            LockError::Io(source) => Error::Io { file: fs.describe(), what: "lock the directory", source },
        })?;
        let stepped = options.stepped;
        let shared = Arc::new(recovery::recover(fs, options)?);
        let threads = if stepped { Vec::new() } else { background::start(&shared)? };
        for signal in [&shared.commit.segment_work, &shared.flush_work, &shared.compaction_work] {
            signal.notify();
        }
        Ok(Db { handle: Arc::new(Handle { shared, open: Mutex::new(Some(Open { threads, lock })) }) })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The value of `key`, or `None` if it is not there or has expired.
    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(self.read(key)?.found.map(|found| found.value))
    }

    /// The value of each of `keys`, all as of one moment. A look-up of many cached keys takes a fraction of the time of
    /// as many look-ups.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let keys: Few<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        Ok(self.read_many(&keys)?.into_iter().map(|read| read.found.map(|found| found.value)).collect())
    }

    /// Sets `key` to `value`; returns when the write is as durable as the options say.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        self.write(&batch)
    }

    /// Removes `key`; returns when the write is as durable as the options say.
    pub fn delete(&self, key: &[u8]) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        batch.delete(key);
        self.write(&batch)
    }

    /// Removes every key from `start` to before `end` (`None`: to the last key), however many there are, as one change;
    /// returns when it is as durable as the options say. Equal ends are an empty range: nothing is deleted.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// db.put(b"log:2023", b"Venom")?;
    /// db.put(b"user:101", b"Carnage")?;
    /// db.delete_range(b"log:", Some(b"log;"))?;
    /// assert!(db.get(b"log:2023")?.is_none() && db.get(b"user:101")?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if `end` lies below `start`, or one of them is longer than a key can be.
    pub fn delete_range(&self, start: &[u8], end: Option<&[u8]>) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        batch.delete_range(start, end);
        self.write(&batch)
    }

    /// Writes a batch, whole or not at all; returns when it is as durable as the options say.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for an empty or too long key or too large a value or batch, [`Error::ReadOnly`] if
    /// the log has failed: then nothing of the batch was applied.
    pub fn write(&self, batch: &WriteBatch) -> Result<SeqNo> {
        let seq = self.submit(batch)?;
        self.wait_durable(seq)?;
        Ok(seq)
    }

    /// A consistent view of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_for("")
    }

    /// As [`Db::snapshot`], with the name of who takes it: [`Stats::snapshots`] tells who keeps what from being dropped.
    pub fn snapshot_for(&self, owner: impl Into<Cow<'static, str>>) -> Snapshot {
        Snapshot::new(self.shared(), owner.into())
    }

    /// The entries of a key range in key order, at a snapshot taken now.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range {
        self.snapshot_for("a range").range(range)
    }

    /// Writes what is in memory to tables; returns when that is done.
    pub fn flush(&self) -> Result<()> {
        self.shared().flush_all()
    }

    /// Flushes and compacts everything, so that deleted and expired data is gone from the disk; returns when that is
    /// done. Reads and writes go on meanwhile.
    pub fn compact(&self) -> Result<()> {
        self.shared().compact_all()
    }

    /// Makes a copy of the database in a new directory at `path`: a prefix of history with everything acknowledged
    /// before the call, durable when this returns. It opens as any database does, and lives on when this one is changed
    /// or deleted. Tables are shared by hard links, so it takes little time and room; on another file system they are
    /// copied. Reads and writes go on meanwhile.
    ///
    /// After a crash there is either a complete copy, or none but a directory `path` + `.unfinished`, which does not open
    /// and may be deleted.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path();
    /// let db = chronos::Options::new().open(path.join("data"))?;
    /// db.put(b"user:101", b"Venom")?;
    /// db.checkpoint(path.join("monday"))?;
    /// db.put(b"user:101", b"Carnage")?;
    ///
    /// let monday = chronos::Options::new().open(path.join("monday"))?;
    /// assert_eq!(monday.get(b"user:101")?.as_deref(), Some(&b"Venom"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if there is something at `path` already; [`Error::Io`], and nothing is left behind, if
    /// the disk refuses; [`Error::ReadOnly`] if the log has failed.
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<()> {
        self.shared().checkpoint(path.as_ref())
    }

    /// What the engine tells of itself.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Stops writes, flushes, and gives the directory back; the next open replays nothing, or, if the disk did not take
    /// everything, the log. Reads go on until the last handle is dropped. A second call does nothing.
    ///
    /// # Errors
    ///
    /// If the disk has taken neither a flush nor the log's newest writes, which with [`Durability::Interval`] and
    /// [`Durability::Os`] may have been acknowledged.
    ///
    /// [`Durability::Interval`]: super::Durability::Interval
    /// [`Durability::Os`]: super::Durability::Os
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }

    /// For tests on a database opened with [`Options::stepped`]: does one piece of background work, at last what is done
    /// only when nothing is pressing. Whether there was one.
    pub fn step(&self) -> Result<bool> {
        let shared = self.shared();
        if shared.is_stopping() {
            return Err(Error::Closed);
        }
        shared.sync_all();
        shared.mark_idle();
        if shared.resume_if_refused()? {
            return Ok(true);
        }
        Ok(shared.flush_oldest()? || shared.compact_if_due(false)? || shared.compact_if_due(true)?)
    }

    /// Milliseconds since 1970 by the clock of the options.
    pub(crate) fn now(&self) -> u64 {
        self.shared().options.clock.now()
    }

    /// The value of `key` and what the answer depends on.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Read> {
        self.shared().read(key)
    }

    /// [`Db::read`] for each of `keys`, all as of one moment.
    pub(crate) fn read_many(&self, keys: &[&[u8]]) -> Result<Few<Read>> {
        self.shared().read_many(keys)
    }

    /// [`Db::read`] for each of `keys`, all as of one moment; `None` where a file would have to be read.
    pub(crate) fn read_cached(&self, keys: &[&[u8]]) -> Few<Option<Read>> {
        self.shared().read_cached(keys)
    }

    /// Applies a batch without waiting for the log: visible at once, to be acknowledged when the returned position is
    /// durable.
    pub(crate) fn submit(&self, batch: &WriteBatch) -> Result<SeqNo> {
        self.shared().submit(batch)
    }

    /// Reads `keys` and lets `decide` fill a batch from what they hold; the batch is applied only if none of them
    /// changed meanwhile, else `decide` is asked again (it must have no other effect). An empty batch writes nothing.
    /// Does not wait for the log.
    pub(crate) fn transact<T>(
        &self,
        keys: &[&[u8]],
        decide: impl FnMut(&[Option<Found>], &mut WriteBatch) -> T,
    ) -> Result<Outcome<T>> {
        self.shared().transact(keys, decide)
    }

    /// Makes each `start..end` what it was at `when`, all atomically: how many keys were written. `along` adds to the batch
    /// what a value takes with it. Does not wait for the log.
    pub(crate) fn restore(&self, when: u64, ranges: &Ranges<'_>, along: &mut Along<'_>) -> Result<Outcome<u64>> {
        self.shared().restore(when, ranges, along)
    }

    /// Whether `seq` and all before it are durable, and were not taken back: a reply that depends on it may go out.
    pub(crate) fn is_durable(&self, seq: SeqNo) -> bool {
        self.shared().is_durable(seq)
    }

    /// Calls `waiter` once `seq` is durable or has failed; at once, on this thread, if it already is. When the log is
    /// idle this thread syncs it first.
    pub(crate) fn when_durable(&self, seq: SeqNo, waiter: &Arc<dyn Waiter>) {
        self.shared().when_durable(seq, waiter);
    }

    /// Blocks until `seq` is as durable as the options say.
    pub(crate) fn wait_durable(&self, seq: SeqNo) -> Result<()> {
        self.shared().wait_durable(seq)
    }
}
