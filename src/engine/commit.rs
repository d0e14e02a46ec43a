//! The write path: how a batch becomes visible, and how many share one sync.
//!
//! ```text
//! writers                                                whoever syncs (log thread, or a writer when it is idle)
//!   [ Writer lock: take sequence numbers, append          [ LogIo lock:
//!     to the group buffer, apply to the memtable ]            swap the group buffer out (Writer lock, briefly)
//!   reply waits for "durable >= my position"                  one write, one fdatasync
//!                                                             publish `durable`, release whoever waited ]
//! ```
//!
//! - The Writer lock is never held across I/O.
//! - Positions, log order and memtable order are the same order, because all three are given out under one lock.
//! - `durable` only grows, and is published after the sync that it reports.
//! - Nobody is forgotten: whoever appends to the group afterwards either gets the LogIo lock and syncs, or finds it
//!   taken, and then its holder looks at the group buffer again *after* letting go of the lock ([`Shared::sync_some`]).
//! - A failed write or sync is final for that segment. What is not durable is taken back out of the memtables, the
//!   segment is closed in the manifest at its last durable length, everybody who waited gets the error, and writes are
//!   refused until a new segment exists ([`Shared::resume`]).
//!
//! With an interval, or with the operating system in charge, a reply waits for nothing: positions count as durable
//! once applied, and a failure takes nothing back; what the log has lost is flushed to tables instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::{error, info, warn};

use super::batch::{Op, WriteBatch};
use super::memtable::Memtable;
use super::options::Durability;
use super::shared::{Sealed, Shared, Signal, State};
use super::{Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SeqNo};
use crate::storage::wal::{GROUP_PREFIX_LEN, Position, SegmentWriter};

/// The most bytes of one batch: a log record's length is a `u32`, and a group is at most one batch over
/// [`MAX_GROUP_BYTES`].
pub const MAX_BATCH_BYTES: usize = 1 << 30;

/// Writers wait while the group buffer holds more than this: it bounds the memory that a slow disk can cost.
const MAX_GROUP_BYTES: usize = 32 << 20;

const _: () = assert!((MAX_BATCH_BYTES + MAX_GROUP_BYTES) < u32::MAX as usize);
const _: () = assert!(MAX_VALUE_BYTES + MAX_KEY_BYTES < MAX_BATCH_BYTES);

/// A buffer that one large value has blown up is not kept.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// How often the log thread yields the processor before it swaps the group out, so that a group can form: the
/// connections that the last group released get to run and bring their next requests.
const YIELDS_BEFORE_SWAP: usize = 2;

/// After this long without a group the log writes a marker, which makes the last group's durability part of the log.
const IDLE_BEFORE_MARKER: Duration = Duration::from_millis(100);

/// First and longest pause between attempts to begin a new segment after a failure. Writes resume at most this long
/// after the disk does.
const RESUME_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Failures that a late waiter can still ask about. Between two there is at least one successful start of a segment.
const REMEMBERED_FAILURES: usize = 64;

/// Somebody who waits for the log. Called from the thread that synced: must not block.
pub(crate) trait Waiter: Send + Sync {
    /// Everything up to `seq` is durable. Never called with less than before.
    fn durable(&self, seq: SeqNo);
    /// Positions `after < seq <= upto` failed and were taken back; `error` says why.
    fn failed(&self, after: SeqNo, upto: SeqNo, error: &Error);
}

/// The state of the write path, guarded by the Writer lock.
pub(crate) struct Writer {
    pub(crate) active: Arc<Memtable>,
    next_seq: SeqNo,
    /// Room for the record's header, then the batches that the log has not taken yet.
    group: Vec<u8>,
    /// Position of the first change in `group`.
    group_first: SeqNo,
    refusal: Option<Refusal>,
}

/// Why nothing can be written.
enum Refusal {
    LogFailed(String),
    Closed,
}

impl Writer {
    /// The newest position given out.
    pub(crate) fn last_seq(&self) -> SeqNo {
        SeqNo(self.next_seq.0 - 1)
    }

    fn has_group(&self) -> bool {
        self.group.len() > GROUP_PREFIX_LEN
    }

    fn clear_group(&mut self) {
        self.group.truncate(GROUP_PREFIX_LEN);
    }

    fn is_refused(&self) -> bool {
        matches!(self.refusal, Some(Refusal::LogFailed(_)))
    }

    /// The log works again.
    fn allow(&mut self) {
        if self.is_refused() {
            self.refusal = None;
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        match &self.refusal {
            None => Ok(()),
            Some(Refusal::LogFailed(why)) => Err(Error::ReadOnly(why.clone())),
            Some(Refusal::Closed) => Err(Error::Closed),
        }
    }
}

/// The log's file, guarded by the LogIo lock; held over I/O.
pub(crate) struct LogIo {
    /// `None` after a failure, until a new one exists.
    segment: Option<SegmentWriter>,
    /// The group being written.
    buffer: Vec<u8>,
    /// Newest position that is written, and that is synced.
    written: SeqNo,
    synced: SeqNo,
    /// Length of the segment that is synced.
    synced_len: u64,
    last_sync: Instant,
    /// Whether anything was written since the last marker.
    unmarked: bool,
}

/// What has become of a position.
enum Fate {
    Pending,
    Durable(SeqNo),
    Failed(Failure),
}

/// Positions that were taken back.
#[derive(Clone)]
struct Failure {
    after: SeqNo,
    upto: SeqNo,
    why: String,
}

/// See the module's text.
pub(crate) struct Commit {
    writer: Mutex<Writer>,
    io: Mutex<LogIo>,
    /// Writers that wait for room in the group buffer.
    room: Condvar,
    /// A segment that is ready to be used, and a signal for the thread that prepares the next.
    spare: Mutex<Option<SegmentWriter>>,
    pub(crate) segment_work: Signal,
    /// Newest position applied: what a snapshot shows.
    visible: AtomicU64,
    /// Newest position that a reply may depend on.
    durable: AtomicU64,
    waiters: Mutex<Vec<(SeqNo, Arc<dyn Waiter>)>>,
    failures: Mutex<Vec<Failure>>,
    /// How often something was taken back out of the memtables; changes only under the Writer lock.
    taken_back: AtomicU64,
    /// Threads blocked in `wait_durable`.
    blocked: AtomicUsize,
    blocked_lock: Mutex<()>,
    unblocked: Condvar,
    pub(crate) log_work: Signal,
    /// Whether the log thread is about to look at the group by itself ...
    log_awake: AtomicBool,
    /// ... or at least will look soon whether the log has become idle.
    log_watching: AtomicBool,
    /// Groups written, to notice an idle log.
    groups: AtomicU64,
}

impl Commit {
    /// Goes on after `last`, which is durable, in an empty segment that the manifest lists.
    pub(crate) fn new(active: Arc<Memtable>, segment: SegmentWriter, last: SeqNo) -> Commit {
        let writer = Writer {
            active,
            next_seq: SeqNo(last.0 + 1),
            group: vec![0; GROUP_PREFIX_LEN],
            group_first: SeqNo(last.0 + 1),
            refusal: None,
        };
        let segment_len = segment.len();
        let io = LogIo {
            segment: Some(segment),
            buffer: vec![0; GROUP_PREFIX_LEN],
            written: last,
            synced: last,
            synced_len: segment_len,
            last_sync: Instant::now(),
            unmarked: false,
        };
        Commit {
            writer: Mutex::new(writer),
            io: Mutex::new(io),
            room: Condvar::new(),
            spare: Mutex::new(None),
            segment_work: Signal::default(),
            visible: AtomicU64::new(last.0),
            durable: AtomicU64::new(last.0),
            waiters: Mutex::default(),
            failures: Mutex::default(),
            taken_back: AtomicU64::new(0),
            blocked: AtomicUsize::new(0),
            blocked_lock: Mutex::new(()),
            unblocked: Condvar::new(),
            log_work: Signal::default(),
            log_awake: AtomicBool::new(false),
            log_watching: AtomicBool::new(false),
            groups: AtomicU64::new(0),
        }
    }

    pub(crate) fn visible(&self) -> SeqNo {
        SeqNo(self.visible.load(Ordering::Acquire))
    }

    pub(crate) fn durable(&self) -> SeqNo {
        SeqNo(self.durable.load(Ordering::SeqCst))
    }

    pub(crate) fn taken_back(&self) -> u64 {
        self.taken_back.load(Ordering::SeqCst)
    }

    pub(crate) fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }
}

impl Shared {
    fn waits_for_sync(&self) -> bool {
        self.options.durability == Durability::Always
    }

    /// Applies a batch: visible at once, to be acknowledged when the returned position is durable. The caller then
    /// calls [`Shared::when_durable`] or [`Shared::wait_durable`], which see to it that the log is synced.
    pub(crate) fn submit(&self, batch: &WriteBatch) -> Result<SeqNo> {
        check(batch)?;
        self.slow_down();
        let mut writer = self.commit.writer();
        self.wait_for_room(&mut writer);
        self.apply(&mut writer, batch)
    }

    /// Applies a checked batch under the Writer lock. An empty batch changes nothing.
    pub(crate) fn apply(&self, writer: &mut Writer, batch: &WriteBatch) -> Result<SeqNo> {
        writer.check_open()?;
        if batch.is_empty() {
            return Ok(writer.last_seq());
        }
        let first = writer.next_seq;
        writer.next_seq.0 += batch.len();
        if !writer.has_group() {
            writer.group_first = first;
        }
        writer.group.extend_from_slice(batch.bytes());
        writer.active.apply(batch.bytes(), first, self.retention.floor());
        let last = writer.last_seq();
        // After the memtable has it all: a snapshot must never show half a batch.
        self.commit.visible.store(last.0, Ordering::Release);
        if !self.waits_for_sync() {
            self.commit.durable.store(last.0, Ordering::SeqCst);
            if !self.commit.log_awake.swap(true, Ordering::SeqCst) {
                self.commit.log_work.notify();
            }
        }
        if writer.active.bytes() >= self.options.memtable_bytes {
            self.seal(writer, None);
        }
        Ok(last)
    }

    /// Begins a new memtable and hands the full one to the flush thread. `ordered` says whether the new one keeps the
    /// order of its keys from the start; by default it does if the old one did.
    pub(crate) fn seal(&self, writer: &mut Writer, ordered: Option<bool>) {
        let ordered = ordered.unwrap_or_else(|| writer.active.was_scanned());
        let active = Arc::new(Memtable::new(ordered));
        let memtable = std::mem::replace(&mut writer.active, active.clone());
        let sealed = Sealed { memtable, last_seq: writer.last_seq() };
        self.replace_state(|state| State {
            active,
            sealed: state.sealed.iter().cloned().chain([sealed]).collect(),
            version: state.version.clone(),
        });
        self.flush_work.notify();
    }

    pub(crate) fn wait_for_room(&self, writer: &mut MutexGuard<'_, Writer>) {
        while writer.group.len() > MAX_GROUP_BYTES && writer.refusal.is_none() {
            if self.options.stepped {
                MutexGuard::unlocked(writer, || self.sync_some());
            } else {
                self.commit.log_work.notify();
                self.commit.room.wait(writer);
            }
        }
    }

    /// Calls `waiter` once `seq` is durable or has failed; at once, on this thread, if it already is. If the log is
    /// idle this thread syncs it first.
    pub(crate) fn when_durable(&self, seq: SeqNo, waiter: &Arc<dyn Waiter>) {
        {
            let mut waiters = self.commit.waiters.lock();
            // Under the lock: the publisher stores `durable` before it takes this lock, so either this sees the new
            // value or the publisher sees the new entry.
            match self.fate(seq) {
                Fate::Pending => {}
                Fate::Durable(durable) => {
                    drop(waiters);
                    return waiter.durable(durable);
                }
                Fate::Failed(failure) => {
                    drop(waiters);
                    return waiter.failed(failure.after, failure.upto, &Error::ReadOnly(failure.why));
                }
            }
            waiters.push((seq, waiter.clone()));
        }
        self.sync_some();
    }

    /// Blocks until `seq` is durable, as far as the options ask for it.
    pub(crate) fn wait_durable(&self, seq: SeqNo) -> Result<()> {
        loop {
            match self.fate(seq) {
                Fate::Durable(_) => return Ok(()),
                Fate::Failed(failure) => return Err(Error::ReadOnly(failure.why)),
                Fate::Pending => {}
            }
            self.sync_some();
            let mut guard = self.commit.blocked_lock.lock();
            // Announce, then look once more: the publisher stores `durable`, then looks for the announcement.
            self.commit.blocked.fetch_add(1, Ordering::SeqCst);
            if matches!(self.fate(seq), Fate::Pending) {
                self.commit.unblocked.wait(&mut guard);
            }
            self.commit.blocked.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether `seq` and all before it are durable: a reply that depends on it may go out.
    pub(crate) fn is_durable(&self, seq: SeqNo) -> bool {
        matches!(self.fate(seq), Fate::Durable(_))
    }

    /// What has become of position `seq`. `durable` alone does not tell: it passes the positions of a failed group once
    /// writes have resumed behind them.
    fn fate(&self, seq: SeqNo) -> Fate {
        let durable = self.commit.durable();
        if self.commit.taken_back() > 0 {
            let failures = self.commit.failures.lock();
            if let Some(failure) = failures.iter().find(|failure| failure.after < seq && seq <= failure.upto) {
                return Fate::Failed(failure.clone());
            }
        }
        if seq <= durable { Fate::Durable(durable) } else { Fate::Pending }
    }

    /// Syncs what there is if nobody else is syncing, and makes sure that somebody does.
    fn sync_some(&self) {
        if let Some(mut io) = self.commit.io.try_lock() {
            self.sync_group(&mut io);
        } else {
            return;
        }
        // What queued up meanwhile found the lock taken and relies on this look.
        if self.commit.writer().has_group() {
            if self.options.stepped {
                return self.sync_some();
            }
            self.commit.log_work.notify();
        } else if !self.options.stepped && !self.commit.log_watching.swap(true, Ordering::SeqCst) {
            // So that the log thread notices when the log has become idle.
            self.commit.log_work.notify();
        }
    }

    /// Writes and syncs one group. Whether there was one.
    fn sync_group(&self, io: &mut LogIo) -> bool {
        let (first, last) = {
            let mut writer = self.commit.writer();
            if !writer.has_group() {
                return false;
            }
            std::mem::swap(&mut writer.group, &mut io.buffer);
            if io.buffer.len() > MAX_GROUP_BYTES {
                self.commit.room.notify_all();
            }
            (writer.group_first, writer.last_seq())
        };
        let result = self.write_group(io, first, last);
        if io.buffer.capacity() > KEPT_BUFFER_BYTES {
            io.buffer = Vec::new();
        }
        io.buffer.clear();
        io.buffer.resize(GROUP_PREFIX_LEN, 0);
        match result {
            Ok(()) => {
                self.commit.groups.fetch_add(1, Ordering::Relaxed);
                self.publish(last);
            }
            Err(error) => self.log_failed(io, &error),
        }
        true
    }

    fn write_group(&self, io: &mut LogIo, first: SeqNo, last: SeqNo) -> Result<()> {
        self.make_room(io)?;
        let position = Position { first, watermark: io.synced, time_ms: self.options.clock.now() };
        let segment = io.segment.as_mut().ok_or_else(|| Error::ReadOnly("there is no log".to_owned()))?;
        segment.write_group(&mut io.buffer, position)?;
        io.written = last;
        io.unmarked = true;
        let due = match self.options.durability {
            Durability::Always => true,
            Durability::Interval(interval) => io.last_sync.elapsed() >= interval,
            Durability::Os => false,
        };
        if due { self.sync_log(io) } else { Ok(()) }
    }

    fn sync_log(&self, io: &mut LogIo) -> Result<()> {
        if let Some(segment) = &io.segment {
            segment.sync()?;
            io.synced_len = segment.len();
        }
        io.synced = io.written;
        io.last_sync = Instant::now();
        Ok(())
    }

    /// Goes over to the next segment if the group does not fit into the filled part of this one and the next is
    /// ready. If it is not, this one just grows: slower to sync, but nobody waits.
    fn make_room(&self, io: &mut LogIo) -> Result<()> {
        let full = io.segment.as_ref().is_some_and(|segment| !segment.fits(io.buffer.len()) && !segment.is_empty());
        if !full {
            return Ok(());
        }
        if self.options.stepped {
            self.prepare_segment()?;
        }
        let Some(next) = self.commit.spare.lock().take() else { return Ok(()) };
        // The old segment is whole on disk before the new one has a record, whatever the durability: recovery then
        // knows that only the last segment can end in a torn tail.
        self.sync_log(io)?;
        io.synced_len = next.len();
        if let Some(old) = io.segment.replace(next) {
            self.catalog.close_segment(old.number(), old.len(), io.written);
        }
        self.commit.segment_work.notify();
        Ok(())
    }

    /// Makes the next segment ready if there is none, and tells the manifest of closed ones.
    pub(crate) fn prepare_segment(&self) -> Result<()> {
        if self.commit.spare.lock().is_none() {
            let segment = self.new_segment()?;
            *self.commit.spare.lock() = Some(segment);
        }
        self.catalog.record_closed_segments()
    }

    fn new_segment(&self) -> Result<SegmentWriter> {
        let number = self.catalog.new_file();
        let salt = self.options.entropy.draw();
        let segment = SegmentWriter::create(&*self.fs, number, salt, self.options.segment_bytes)?;
        self.fs.sync_dir().map_err(crate::storage::Error::io(".", "sync the directory"))?;
        self.catalog.add_segment(number)?;
        Ok(segment)
    }

    fn publish(&self, last: SeqNo) {
        if self.waits_for_sync() {
            self.commit.durable.store(last.0, Ordering::SeqCst);
        }
        self.retention.settle(last);
        let ready: Vec<Arc<dyn Waiter>> = {
            let mut waiters = self.commit.waiters.lock();
            waiters.extract_if(.., |(seq, _)| *seq <= last).map(|(_, waiter)| waiter).collect()
        };
        for waiter in ready {
            waiter.durable(last);
        }
        self.unblock();
        if !self.state().sealed.is_empty() {
            // A sealed memtable is flushed once its last position is settled.
            self.flush_work.notify();
        }
    }

    fn unblock(&self) {
        if self.commit.blocked.load(Ordering::SeqCst) > 0 {
            drop(self.commit.blocked_lock.lock());
            self.commit.unblocked.notify_all();
        }
    }

    /// The log has failed: see the module's text.
    fn log_failed(&self, io: &mut LogIo, cause: &Error) {
        let after = io.synced;
        let why = cause.to_string();
        error!(error = %why, durable = after.0, "the log has failed; reads go on, writes are refused until a new log file is safe");
        let upto = {
            let mut writer = self.commit.writer();
            writer.refusal = Some(Refusal::LogFailed(why.clone()));
            writer.clear_group();
            self.commit.room.notify_all();
            if self.waits_for_sync() {
                let state = self.state();
                for memtable in state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]) {
                    memtable.take_back(after);
                }
                self.commit.visible.store(after.0, Ordering::Release);
                self.commit.taken_back.fetch_add(1, Ordering::SeqCst);
                let mut failures = self.commit.failures.lock();
                if failures.len() == REMEMBERED_FAILURES {
                    failures.remove(0);
                }
                failures.push(Failure { after, upto: writer.last_seq(), why: why.clone() });
            }
            writer.last_seq()
        };
        if let Some(segment) = io.segment.take() {
            // At the last durable length: a restart must not bring back what clients are about to be told has failed.
            self.catalog.close_segment(segment.number(), io.synced_len, after);
        }
        io.written = after;
        io.unmarked = false;
        if let Err(error) = self.catalog.record_last_seq(upto) {
            warn!(%error, "the failed log file is not closed in the manifest yet; a restart now may still find its last writes");
        }
        if self.waits_for_sync() {
            let waiters = std::mem::take(&mut *self.commit.waiters.lock());
            for (_, waiter) in waiters {
                waiter.failed(after, upto, &Error::ReadOnly(why.clone()));
            }
            self.unblock();
        }
        self.commit.log_work.notify();
    }

    /// The log thread: syncs what writers leave to it, notices when the log is idle, begins a new segment after a
    /// failure.
    pub(crate) fn run_log(&self) {
        let mut pause = RESUME_PAUSES.0;
        loop {
            self.commit.log_awake.store(true, Ordering::SeqCst);
            self.sync_all();
            if self.commit.writer().is_refused() && !self.is_stopping() {
                match self.resume() {
                    Ok(()) => pause = RESUME_PAUSES.0,
                    Err(error) => {
                        warn!(%error, retry_in = ?pause, "writes stay refused");
                        self.commit.log_work.wait(Some(pause));
                        pause = (pause * 2).min(RESUME_PAUSES.1);
                    }
                }
                continue;
            }
            self.commit.log_awake.store(false, Ordering::SeqCst);
            self.commit.log_watching.store(false, Ordering::SeqCst);
            // After the flags: whoever appended before them did not wake this thread.
            if self.commit.writer().has_group() {
                continue;
            }
            if self.is_stopping() {
                return;
            }
            let timeout = self.idle_timeout();
            self.commit.log_watching.store(timeout.is_some(), Ordering::SeqCst);
            let groups = self.commit.groups();
            if !self.commit.log_work.wait(timeout) && groups == self.commit.groups() {
                self.mark_idle();
            }
        }
    }

    /// Syncs group after group until there is none.
    fn sync_all(&self) {
        let mut io = self.commit.io.lock();
        loop {
            for _ in 0..YIELDS_BEFORE_SWAP {
                std::thread::yield_now();
            }
            if !self.sync_group(&mut io) {
                return;
            }
        }
    }

    /// How long the log may lie idle before [`Shared::mark_idle`] has something to do.
    fn idle_timeout(&self) -> Option<Duration> {
        let io = self.commit.io.lock();
        match self.options.durability {
            Durability::Interval(interval) if io.synced < io.written => {
                Some(interval.saturating_sub(io.last_sync.elapsed()))
            }
            Durability::Os => None,
            _ => io.unmarked.then_some(IDLE_BEFORE_MARKER),
        }
    }

    /// Nothing came for a while: syncs what an interval has left unsynced, then writes a marker, so that the log itself
    /// tells that its last group was durable.
    pub(crate) fn mark_idle(&self) {
        let mut io = self.commit.io.lock();
        if !io.unmarked || io.segment.is_none() {
            return;
        }
        let result = self.sync_log(&mut io).and_then(|()| {
            let position = self.position_after(io.synced);
            if let Some(segment) = &mut io.segment {
                segment.write_marker(position)?;
            }
            io.unmarked = false;
            self.sync_log(&mut io)
        });
        if let Err(error) = result {
            self.log_failed(&mut io, &error);
        }
    }

    fn position_after(&self, synced: SeqNo) -> Position {
        Position { first: SeqNo(synced.0 + 1), watermark: synced, time_ms: self.options.clock.now() }
    }

    /// After a failure: begins a new segment, and lets writes in once it is known to work and the failed one is closed
    /// in the manifest.
    pub(crate) fn resume(&self) -> Result<()> {
        if !self.waits_for_sync() {
            self.flush_what_the_log_lost()?;
        }
        let spare = self.commit.spare.lock().take();
        let mut segment = match spare {
            Some(segment) => segment,
            None => self.new_segment()?,
        };
        let mut io = self.commit.io.lock();
        let empty_len = segment.len();
        // Positions of failed writes are settled: they will never have been. The numbers go on behind them.
        let last = self.commit.writer().last_seq();
        // Before the new segment has a record: behind a segment that is not closed, a record means that the bytes between
        // them were durable.
        if let Err(error) = self.catalog.record_last_seq(last) {
            *self.commit.spare.lock() = Some(segment);
            return Err(error);
        }
        if let Err(error) = segment.write_marker(self.position_after(last)).and_then(|()| segment.sync()) {
            self.catalog.close_segment(segment.number(), empty_len, last);
            return Err(error.into());
        }
        io.synced_len = segment.len();
        io.segment = Some(segment);
        io.written = last;
        io.synced = last;
        io.unmarked = false;
        self.commit.durable.store(last.0, Ordering::SeqCst);
        self.retention.settle(last);
        self.commit.writer().allow();
        self.commit.segment_work.notify();
        self.flush_work.notify();
        info!("a new log file is in use; writes are accepted again");
        Ok(())
    }

    /// Without a sync before each reply, clients were told of changes that the log has now lost: they must be in
    /// tables before anything newer may be logged, or a crash would leave a hole instead of losing a suffix.
    fn flush_what_the_log_lost(&self) -> Result<()> {
        self.seal_all();
        match self.state().sealed.is_empty() {
            true => Ok(()),
            false => Err(Error::ReadOnly("what the log has lost is not in tables yet".to_owned())),
        }
    }

    /// As [`Shared::resume`], if there is a failure to resume from. Whether there was.
    pub(crate) fn resume_if_refused(&self) -> Result<bool> {
        let refused = self.commit.writer().is_refused();
        if refused { self.resume().map(|()| true) } else { Ok(false) }
    }

    /// Hands everything in memory over to be flushed; up to where that reaches.
    pub(crate) fn seal_all(&self) -> SeqNo {
        let mut writer = self.commit.writer();
        if !writer.active.is_empty() {
            self.seal(&mut writer, None);
        }
        writer.last_seq()
    }

    /// Refuses writes from now on and syncs what was accepted.
    pub(crate) fn stop_writes(&self) {
        let mut writer = self.commit.writer();
        if writer.refusal.is_none() {
            writer.refusal = Some(Refusal::Closed);
        }
        self.commit.room.notify_all();
        drop(writer);
        self.sync_all();
    }

    /// Gives up the log's files: everything in them is in tables. To be called before the last edit, which then drops
    /// them.
    pub(crate) fn close_log(&self) {
        let mut io = self.commit.io.lock();
        let last = io.written;
        for segment in io.segment.take().into_iter().chain(self.commit.spare.lock().take()) {
            self.catalog.close_segment(segment.number(), segment.len(), last);
        }
    }
}

/// What can be seen to be wrong with a batch before it is applied.
pub(crate) fn check(batch: &WriteBatch) -> Result<()> {
    if batch.bytes().len() > MAX_BATCH_BYTES {
        let what = format!("a batch of {} bytes is over the limit of {MAX_BATCH_BYTES}", batch.bytes().len());
        return Err(Error::InvalidArgument(what));
    }
    for op in batch.ops() {
        let (key, value): (&[u8], &[u8]) = match op {
            Op::Put { key, value, .. } => (key, value),
            Op::Delete { key } => (key, b""),
        };
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let what = format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", key.len());
            return Err(Error::InvalidArgument(what));
        }
        if value.len() > MAX_VALUE_BYTES {
            let what = format!("a value has at most {MAX_VALUE_BYTES} bytes, this one has {}", value.len());
            return Err(Error::InvalidArgument(what));
        }
    }
    Ok(())
}
