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
use std::time::Instant;

use super::batch::{Op, WriteBatch};
use super::log::LogIo;
use super::memtable::Memtable;
use super::options::Durability;
use super::shared::{Sealed, Shared, Signal, State};
use super::stats::add;
use super::{Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::storage::wal::{GROUP_PREFIX_LEN, SegmentWriter};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The most bytes of one batch: a log record's length is a `u32`, and a group is at most one batch over
/// [`MAX_GROUP_BYTES`].
pub const MAX_BATCH_BYTES: usize = 1 << 30;

/// Writers wait while the group buffer holds more than this, or half of a memtable's size if that is less: it bounds the
/// memory that a slow disk can cost.
pub(super) const MAX_GROUP_BYTES: usize = 32 << 20;

const _: () = assert!((MAX_BATCH_BYTES + MAX_GROUP_BYTES) < u32::MAX as usize);
const _: () = assert!(MAX_VALUE_BYTES + MAX_KEY_BYTES < MAX_BATCH_BYTES);

/// Failures that a late waiter can still ask about. Between two there is at least one successful start of a segment.
pub(super) const REMEMBERED_FAILURES: usize = 64;

/// Somebody who waits for the log. Called from the thread that synced, which holds the log meanwhile: must not block,
/// write, or own the last handle of the database.
pub(crate) trait Waiter: Send + Sync {
    /// Everything up to `seq` is durable. Calls from several threads may overtake each other.
    fn durable(&self, seq: SeqNo);
    /// Positions `after < seq <= upto` failed and were taken back; `error` says why.
    fn failed(&self, after: SeqNo, upto: SeqNo, error: &Error);
}

/// The state of the write path, guarded by the Writer lock.
pub(crate) struct Writer {
    pub(crate) active: Arc<Memtable>,
    next_seq: SeqNo,
    /// Room for the record's header, then the batches that the log has not taken yet.
    pub(super) group: Vec<u8>,
    /// Position of the first change in `group`.
    pub(super) group_first: SeqNo,
    /// Why the log takes nothing, from its failure until a new segment is in use.
    pub(super) log_failure: Option<String>,
    /// For ever: a log that works again lets nothing in any more.
    closed: bool,
}

impl Writer {
    /// The newest position given out.
    pub(crate) fn last_seq(&self) -> SeqNo {
        SeqNo(self.next_seq.0 - 1)
    }

    pub(super) fn has_group(&self) -> bool {
        self.group.len() > GROUP_PREFIX_LEN
    }

    pub(super) fn clear_group(&mut self) {
        self.group.truncate(GROUP_PREFIX_LEN);
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        match &self.log_failure {
            _ if self.closed => Err(Error::Closed),
            Some(why) => Err(Error::ReadOnly(why.clone())),
            None => Ok(()),
        }
    }
}

/// What has become of a position.
enum Fate {
    Pending,
    Durable(SeqNo),
    Failed(Failure),
}

/// Positions that were taken back.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) after: SeqNo,
    pub(super) upto: SeqNo,
    pub(super) why: String,
}

/// See the module's text.
pub(crate) struct Commit {
    writer: Mutex<Writer>,
    pub(super) io: Mutex<LogIo>,
    /// Writers that wait for room in the group buffer.
    pub(super) room: Condvar,
    /// A segment that is ready to be used, and a signal for the thread that prepares the next.
    pub(super) spare: Mutex<Option<SegmentWriter>>,
    /// Held while a segment is prepared: segments become ready, and so are used, in the order of their numbers.
    pub(super) preparing: Mutex<()>,
    pub(crate) segment_work: Signal,
    /// Newest position applied: what a snapshot shows.
    pub(super) visible: AtomicU64,
    /// Newest position that a reply may depend on.
    pub(super) durable: AtomicU64,
    /// Newest position that the log has on disk, for statistics; stored under the LogIo lock.
    pub(super) synced: AtomicU64,
    pub(super) waiters: Mutex<Vec<(SeqNo, Arc<dyn Waiter>)>>,
    pub(super) failures: Mutex<Vec<Failure>>,
    /// How often something was taken back out of the memtables; changes only under the Writer lock.
    pub(super) taken_back: AtomicU64,
    /// The newest position that ever failed.
    pub(super) last_failed: AtomicU64,
    /// Threads blocked in `wait_durable`.
    blocked: AtomicUsize,
    blocked_lock: Mutex<()>,
    unblocked: Condvar,
    pub(crate) log_work: Signal,
    /// Whether the log thread is about to look at the group by itself ...
    pub(super) log_awake: AtomicBool,
    /// ... or at least will look soon whether the log has become idle.
    pub(super) log_watching: AtomicBool,
    /// Groups written, to notice an idle log.
    pub(super) groups: AtomicU64,
}

impl Commit {
    /// Goes on after `last`, which is durable, in an empty segment that the manifest lists. Without one it is as after a
    /// failure of the log: writes are refused until [`Shared::resume`] has begun a segment.
    pub(crate) fn new(active: Arc<Memtable>, segment: Result<SegmentWriter>, last: SeqNo) -> Commit {
        let (segment, log_failure) = match segment {
            Ok(segment) => (Some(segment), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let writer = Writer {
            active,
            next_seq: SeqNo(last.0 + 1),
            group: vec![0; GROUP_PREFIX_LEN],
            group_first: SeqNo(last.0 + 1),
            log_failure,
            closed: false,
        };
        Commit {
            writer: Mutex::new(writer),
            io: Mutex::new(LogIo::new(segment, last)),
            room: Condvar::new(),
            spare: Mutex::new(None),
            preparing: Mutex::new(()),
            segment_work: Signal::default(),
            visible: AtomicU64::new(last.0),
            durable: AtomicU64::new(last.0),
            synced: AtomicU64::new(last.0),
            waiters: Mutex::default(),
            failures: Mutex::default(),
            taken_back: AtomicU64::new(0),
            last_failed: AtomicU64::new(0),
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

    pub(crate) fn synced(&self) -> SeqNo {
        SeqNo(self.synced.load(Ordering::Relaxed))
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
    pub(super) fn waits_for_sync(&self) -> bool {
        self.options.durability == Durability::Always
    }

    /// Applies a batch: visible at once, to be acknowledged when the returned position is durable. The caller then
    /// calls [`Shared::when_durable`] or [`Shared::wait_durable`], which see to it that the log is synced.
    pub(crate) fn submit(&self, batch: &WriteBatch) -> Result<SeqNo> {
        check(batch)?;
        self.slow_down()?;
        let mut writer = self.commit.writer();
        self.wait_for_room(&mut writer);
        self.apply(&mut writer, batch)
    }

    /// Applies a checked batch under the Writer lock. An empty batch changes nothing, and comes after all that is there.
    pub(crate) fn apply(&self, writer: &mut Writer, batch: &WriteBatch) -> Result<SeqNo> {
        writer.check_open()?;
        if batch.is_empty() {
            return Ok(self.commit.visible());
        }
        let first = writer.next_seq;
        writer.next_seq.0 += batch.len();
        if !writer.has_group() {
            writer.group_first = first;
        }
        writer.group.extend_from_slice(batch.bytes());
        add(&self.counters.user_bytes, batch.bytes().len() as u64);
        let last = writer.last_seq();
        if !self.waits_for_sync() {
            // Before anybody can read it: nobody then waits for it.
            self.commit.durable.store(last.0, Ordering::SeqCst);
        }
        let floor = if seeded(Defect::OverwrittenForgotten) { SeqNo::MAX } else { self.retention.floor() };
        writer.active.apply(batch.bytes(), first, floor);
        // After the memtable has it all: a snapshot must never show half a batch.
        self.commit.visible.store(last.0, Ordering::Release);
        if !self.waits_for_sync() && !self.commit.log_awake.swap(true, Ordering::SeqCst) {
            self.commit.log_work.notify();
        }
        if batch.has_ranges() && self.deletes_tables(batch) {
            self.flush_work.notify();
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
        let most = self.options.group_bytes();
        let mut started = None;
        while writer.group.len() > most && writer.check_open().is_ok() {
            started.get_or_insert_with(Instant::now);
            if self.options.stepped {
                MutexGuard::unlocked(writer, || self.sync_some());
            } else {
                self.commit.log_work.notify();
                self.commit.room.wait(writer);
            }
        }
        if let Some(started) = started {
            self.counters.log_waits.add(started);
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
        if seq > SeqNo(0) && seq <= SeqNo(self.commit.last_failed.load(Ordering::SeqCst)) {
            let failures = self.commit.failures.lock();
            if let Some(failure) = failures.iter().find(|failure| failure.after < seq && seq <= failure.upto)
                && !(seeded(Defect::FailureToldToOne) && seq < failure.upto)
            {
                return Fate::Failed(failure.clone());
            }
        }
        if seq <= durable { Fate::Durable(durable) } else { Fate::Pending }
    }

    pub(super) fn publish(&self, last: SeqNo) {
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

    pub(super) fn unblock(&self) {
        if self.commit.blocked.load(Ordering::SeqCst) > 0 {
            drop(self.commit.blocked_lock.lock());
            self.commit.unblocked.notify_all();
        }
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
        writer.closed = true;
        self.commit.room.notify_all();
        drop(writer);
        self.sync_all();
    }
}

/// What can be seen to be wrong with a batch before it is applied.
pub(crate) fn check(batch: &WriteBatch) -> Result<()> {
    check_batch_len(batch.bytes().len())?;
    for op in batch.ops() {
        match op {
            Op::Put { key, value, .. } => check_lens(key.len(), value.len())?,
            Op::Delete { key } => check_lens(key.len(), 0)?,
            Op::DeleteRange { start, end } => check_range(start, end)?,
        }
    }
    Ok(())
}

fn check_batch_len(len: usize) -> Result<()> {
    if len > MAX_BATCH_BYTES {
        let what = format!("a batch of {len} bytes is over the limit of {MAX_BATCH_BYTES}");
        return Err(Error::InvalidArgument(what));
    }
    Ok(())
}

fn check_lens(key: usize, value: usize) -> Result<()> {
    if key == 0 || key > MAX_KEY_BYTES {
        let what = format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {key}");
        return Err(Error::InvalidArgument(what));
    }
    if value > MAX_VALUE_BYTES {
        let what = format!("a value has at most {MAX_VALUE_BYTES} bytes, this one has {value}");
        return Err(Error::InvalidArgument(what));
    }
    Ok(())
}

/// A range may begin in front of every key. One without keys is left out of a batch from the start.
fn check_range(start: &[u8], end: Option<&[u8]>) -> Result<()> {
    let longest = start.len().max(end.map_or(0, <[u8]>::len));
    if longest > MAX_KEY_BYTES {
        let what = format!("the ends of a range have at most {MAX_KEY_BYTES} bytes, this one has {longest}");
        return Err(Error::InvalidArgument(what));
    }
    if end.is_some_and(|end| end < start) {
        return Err(Error::InvalidArgument("a range ends before it starts".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
