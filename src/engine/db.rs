//! The database as its users see it.

use std::borrow::Cow;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use super::handle::Handle;
use super::range::Range;
use super::restore::{Along, Ranges};
use super::shared::Shared;
use super::snapshot::{Found, Snapshot};
use super::stats::Stats;
use super::transact::{Outcome, Read};
use super::{Error, Options, Result, SeqNo, Waiter, WriteBatch, background, recovery};
use crate::codec::{Few, Slice};
use crate::fs::{Fs, LockError, OsFs};

/// A database. Cloning gives another handle to the same one, for another thread; dropping the last handle closes it.
///
/// Keys are 1 byte to [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES), ordered by their bytes; values up to
/// [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES). Every write gets a position in history, its [`SeqNo`].
#[derive(Clone)]
pub struct Db {
    handle: Arc<Handle>,
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
        Ok(Db { handle: Arc::new(Handle::new(shared, threads, lock)) })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }

    /// The value of `key`, or `None` if it is not there or has expired: the newest, also one that another thread's
    /// [`Db::write`] is still waiting to have synced. A value out of a cached block shares that block's memory as long
    /// as it is held.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the bytes that it is in are damaged, [`Error::Io`] if they cannot be read. Other keys are
    /// not affected.
    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        Ok(self.read(key)?.found.map(|found| found.value))
    }

    /// The value of each of `keys`, all as of one moment. A look-up of many cached keys takes a fraction of the time of
    /// as many look-ups. The values come in the order of the keys.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// db.put(b"user:101", b"Venom")?;
    /// let found = db.get_many(&["user:101", "user:102"])?;
    /// assert_eq!(found[0].as_deref(), Some(&b"Venom"[..]));
    /// assert_eq!(found[1], None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Db::get`], if any of the keys cannot be read.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let keys: Few<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        Ok(self.read_many(&keys)?.into_iter().map(|read| read.found.map(|found| found.value)).collect())
    }

    /// Sets `key` to `value`; returns its position when the write is as durable as the options say. Threads that write at the
    /// same time share a sync.
    ///
    /// # Errors
    ///
    /// As [`Db::write`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<SeqNo> {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        self.write(&batch)
    }

    /// Removes `key`, whether it is there or not; returns the delete's position when it is as durable as the options say.
    ///
    /// # Errors
    ///
    /// As [`Db::write`].
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

    /// Writes a batch, whole or not at all, and no reader sees a part of it; returns the position of its last change when
    /// it is as durable as the options say.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// let mut batch = chronos::WriteBatch::new();
    /// batch.put(b"user:101", b"Venom");
    /// batch.put(b"by-name:Venom", b"101");
    /// batch.delete(b"by-name:Eddie");
    /// db.write(&batch)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for an empty or too long key or too large a value or batch, [`Error::ReadOnly`] if
    /// the log has failed: then nothing of the batch was applied. [`Error::Closed`] after [`Db::close`].
    pub fn write(&self, batch: &WriteBatch) -> Result<SeqNo> {
        let seq = self.submit(batch)?;
        self.wait_durable(seq)?;
        Ok(seq)
    }

    /// Reads `keys` and writes what `decide` puts into the batch, as one atomic step: between what it was shown and what
    /// it writes, nobody has changed any of `keys`. Whatever it returns is returned when the batch, and what it was shown,
    /// is as durable as the options say. An empty batch writes nothing.
    ///
    /// `decide` is given what each of `keys` holds, in their order, and may write any keys. It may be asked more than
    /// once, so it must have no other effect. Writers wait while it runs: it should be short, and must not use the
    /// database, or it would wait for itself.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// db.put(b"eddie", b"70")?;
    /// db.put(b"peter", b"30")?;
    ///
    /// let amount = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<u64>().ok();
    /// let paid = db.update(&[b"eddie", b"peter"], |found, batch| {
    ///     let [Some(from), Some(to)] = found else { return false };
    ///     let (Some(from), Some(to)) = (amount(&from.value), amount(&to.value)) else { return false };
    ///     let Some(rest) = from.checked_sub(50) else { return false };
    ///     batch.put(b"eddie", rest.to_string().as_bytes());
    ///     batch.put(b"peter", (to + 50).to_string().as_bytes());
    ///     true
    /// })?;
    /// assert!(paid);
    /// assert_eq!(db.get(b"peter")?.as_deref(), Some(&b"80"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Db::get`] for the keys, and those of [`Db::write`] for the batch: then nothing was written.
    pub fn update<T>(&self, keys: &[&[u8]], decide: impl FnMut(&[Option<Found>], &mut WriteBatch) -> T) -> Result<T> {
        let outcome = self.transact(keys, decide)?;
        self.wait_durable(outcome.seq)?;
        Ok(outcome.value)
    }

    /// Sets `key` to `new` (`None`: removes it) if it holds `expected` (`None`: if it is absent or has expired). Whether it
    /// did; if not, nothing was written. What was found is as durable as the options say, too.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// assert!(db.compare_and_set(b"leader", None, Some(b"node-1"))?);
    /// assert!(!db.compare_and_set(b"leader", None, Some(b"node-2"))?);
    /// assert!(db.compare_and_set(b"leader", Some(b"node-1"), None)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Db::update`].
    pub fn compare_and_set(&self, key: &[u8], expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool> {
        self.update(&[key], |found, batch| {
            let holds = found[0].as_ref().map(|found| &*found.value) == expected;
            match new {
                _ if !holds => {}
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
            holds
        })
    }

    /// A consistent view of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_for("")
    }

    /// As [`Db::snapshot`], with the name of who takes it: [`Stats::snapshots`] tells who keeps what from being dropped.
    pub fn snapshot_for(&self, owner: impl Into<Cow<'static, str>>) -> Snapshot {
        Snapshot::new(self.shared(), owner.into())
    }

    /// The entries of a key range in key order, at a snapshot taken now; see [`Snapshot::range`].
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// db.put(b"user:101", b"Venom")?;
    /// db.put(b"user:102", b"Carnage")?;
    /// for entry in db.range("user:101"..="user:199").rev().take(10) {
    ///     let entry = entry?;
    ///     println!("{:?} = {:?}", entry.key, entry.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range {
        self.snapshot_for("a range").range(range)
    }

    /// The entries whose keys begin with `prefix`, at a snapshot taken now; see [`Snapshot::prefix`].
    pub fn prefix(&self, prefix: &[u8]) -> Range {
        self.snapshot().prefix(prefix)
    }

    /// Writes what is in memory to tables; returns when that is done. Nobody needs it for durability: the log has
    /// everything. It shortens the next start.
    ///
    /// # Errors
    ///
    /// [`Error::Background`] if the disk does not take it; it is tried again without being asked.
    pub fn flush(&self) -> Result<()> {
        self.shared().flush_all()
    }

    /// Flushes and compacts everything, so that deleted and expired data is gone from the disk; returns when that is
    /// done. Reads and writes go on meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`Db::flush`], and [`Error::Io`] or [`Error::Corrupt`] if tables cannot be read or written; the old
    /// ones stay in force.
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

    /// What the engine tells of itself; takes some microseconds.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// db.put(b"user:101", b"Venom")?;
    /// let stats = db.stats();
    /// assert_eq!((stats.last_seq, stats.durable_seq), (1, 1));
    /// println!("{} bytes of tables, written {:.2} times", stats.table_bytes(), stats.write_amplification());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Stops writes, flushes, and gives the directory back; the next open replays nothing, or, if the disk did not take
    /// everything, the log. Reads go on until the last handle is dropped.
    ///
    /// Once it returns, to whoever called, the directory may be opened again: a second call, from another thread or later,
    /// waits for the first and returns the same.
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
