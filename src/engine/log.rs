//! The log's side of the write path: groups go out, segments follow each other, a failed one gives way to a new one. See
//! [`super::commit`] for the whole.

use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::commit::{Failure, REMEMBERED_FAILURES};
use super::options::{Durability, Options};
use super::shared::Shared;
use super::{Error, Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::storage::wal::{GROUP_PREFIX_LEN, Position, Room, SegmentWriter};
use crate::sync::atomic::Ordering;
use crate::sync::thread;

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

/// How many times as long as a full memtable the closed segments may be before the memtable is flushed because of them.
/// It bounds what a start has to replay.
const LOG_FACTOR: u64 = 4;

/// The log's file, guarded by the LogIo lock; held over I/O.
pub(crate) struct LogIo {
    /// `None` after a failure, or a start without one, until a new one exists.
    segment: Option<SegmentWriter>,
    /// Whether changes that clients were told of are in no segment, and perhaps in no table yet.
    lost: bool,
    /// The group being written.
    buffer: Vec<u8>,
    /// Newest position that is written, and that is synced.
    written: SeqNo,
    synced: SeqNo,
    /// When the newest group that is written was taken over: what came later is in none.
    taken: Instant,
    /// Length of the segment that is synced.
    synced_len: u64,
    /// Whatever was accepted before then is synced. An interval runs from here, and not from the end of the sync: what was
    /// accepted while that took its time is not covered by it.
    synced_upto: Instant,
    /// Whether anything was written since the last marker; only where there is a segment.
    unmarked: bool,
}

impl LogIo {
    /// An empty segment, or none; everything up to `last` is durable.
    pub(super) fn new(segment: Option<SegmentWriter>, last: SeqNo) -> LogIo {
        let synced_len = segment.as_ref().map_or(0, SegmentWriter::len);
        let now = Instant::now();
        LogIo {
            segment,
            lost: false,
            buffer: vec![0; GROUP_PREFIX_LEN],
            written: last,
            synced: last,
            taken: now,
            synced_len,
            synced_upto: now,
            unmarked: false,
        }
    }
}

impl Shared {
    /// Syncs what there is if nobody else is syncing, and makes sure that somebody does.
    pub(super) fn sync_some(&self) {
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
        let (first, last, taken) = {
            let mut writer = self.commit.writer();
            if !writer.has_group() {
                return false;
            }
            let taken = Instant::now();
            std::mem::swap(&mut writer.group, &mut io.buffer);
            self.commit.room.notify_all();
            (writer.group_first, writer.last_seq(), taken)
        };
        if seeded(Defect::AcknowledgedUnwritten) {
            self.publish(last);
        }
        let result = self.write_group(io, first, last, taken);
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

    fn write_group(&self, io: &mut LogIo, first: SeqNo, last: SeqNo, taken: Instant) -> Result<()> {
        self.make_room(io)?;
        let watermark = if seeded(Defect::WatermarkTooHigh) { last } else { io.synced };
        let position = Position { first, watermark, time_ms: self.retention.stamp(last) };
        let segment = io.segment.as_mut().ok_or_else(|| Error::ReadOnly("there is no log".to_owned()))?;
        segment.write_group(&mut io.buffer, position)?;
        self.counters.add_group(last.0 - first.0 + 1, io.buffer.len());
        io.written = last;
        io.taken = taken;
        io.unmarked = true;
        let due = match self.options.durability {
            Durability::Always => !seeded(Defect::AcknowledgedUnsynced),
            Durability::Interval(interval) => io.synced_upto.elapsed() >= interval,
            Durability::Os => false,
        };
        if due { self.sync_log(io) } else { Ok(()) }
    }

    fn sync_log(&self, io: &mut LogIo) -> Result<()> {
        if let Some(segment) = &io.segment {
            let started = Instant::now();
            let mut synced = if seeded(Defect::LogNotSynced) { Ok(()) } else { segment.sync() };
            if seeded(Defect::SyncRetried) && synced.is_err() {
                synced = segment.sync();
            }
            synced?;
            self.counters.log_syncs.add(started);
            io.synced_len = segment.len();
        }
        io.synced = io.written;
        io.synced_upto = io.taken;
        self.commit.synced.store(io.synced.0, Ordering::Relaxed);
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
        if self.commit.spare.lock().is_none() {
            return Ok(());
        }
        // The old segment is whole on disk before the new one has a record, whatever the durability: recovery then
        // knows that only the last segment can end in a torn tail.
        if !seeded(Defect::SegmentLeftUnsynced) {
            self.sync_log(io)?;
        }
        let Some(next) = self.commit.spare.lock().take() else { return Ok(()) };
        io.synced_len = next.len();
        if let Some(old) = io.segment.replace(next) {
            self.catalog.close_segment(old.number(), old.len(), io.written, io.written);
        }
        self.commit.segment_work.notify();
        self.bound_log();
        Ok(())
    }

    /// Hands the active memtable over to be flushed when the closed segments outgrow it: a few hot keys may never fill
    /// it, and until a flush every segment stays, to be replayed by the next start.
    fn bound_log(&self) {
        if self.catalog.closed_log_bytes() > log_limit(&self.options) && self.state().sealed.is_empty() {
            self.seal_all();
        }
    }

    /// Makes the next segment ready if there is none. The edit that adds it tells the manifest of those that are closed.
    pub(crate) fn prepare_segment(&self) -> Result<()> {
        self.prepare_segment_of(self.options.segment_room())
    }

    fn prepare_segment_of(&self, room: Room) -> Result<()> {
        let _turn = self.commit.preparing.lock();
        if self.commit.spare.lock().is_none() {
            let segment = self.catalog.new_segment(room)?;
            *self.commit.spare.lock() = Some(segment);
        }
        Ok(())
    }

    /// The log has failed: see the module's text.
    fn log_failed(&self, io: &mut LogIo, cause: &Error) {
        let after = io.synced;
        let why = cause.to_string();
        error!(error = %why, durable = after.0, "the log has failed; reads go on, writes are refused until a new log file is safe");
        let upto = {
            let mut writer = self.commit.writer();
            writer.log_failure = Some(why.clone());
            writer.clear_group();
            self.commit.room.notify_all();
            if self.waits_for_sync() {
                let state = self.state();
                for memtable in state.sealed.iter().map(|sealed| &sealed.memtable).chain([&state.active]) {
                    if !seeded(Defect::FailedGroupKept) {
                        memtable.take_back(after);
                    }
                }
                self.commit.visible.store(after.0, Ordering::Release);
                self.retention.take_back(after);
                self.commit.taken_back.fetch_add(1, Ordering::SeqCst);
                let mut failures = self.commit.failures.lock();
                if failures.len() == REMEMBERED_FAILURES {
                    failures.remove(0);
                }
                failures.push(Failure { after, upto: writer.last_seq(), why: why.clone() });
                // Under the lock of the list: whoever sees it finds the failure there.
                self.commit.last_failed.store(writer.last_seq().0, Ordering::SeqCst);
            }
            writer.last_seq()
        };
        if let Some(segment) = io.segment.take() {
            // At the last durable length: a restart must not bring back what clients are about to be told has failed.
            let len = if seeded(Defect::FailedSegmentTooLong) { segment.len() } else { io.synced_len };
            if !seeded(Defect::FailedSegmentOpen) {
                self.catalog.close_segment(segment.number(), len, after, upto);
            }
        }
        io.written = after;
        io.unmarked = false;
        if !self.waits_for_sync() && after < upto {
            io.lost = true;
            // No group will tell when what stays was written.
            self.retention.stamp(upto);
        }
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
        // A flush may have to wait for the log now: who waits for the flush decides anew.
        self.tell_progress();
        self.commit.log_work.notify();
    }

    /// The log thread: syncs what writers leave to it, notices when the log is idle, begins a new segment after a
    /// failure.
    pub(crate) fn run_log(&self) {
        let mut pause = RESUME_PAUSES.0;
        loop {
            self.commit.log_awake.store(true, Ordering::SeqCst);
            self.sync_all();
            if self.commit.writer().log_failure.is_some() && !self.is_stopping() {
                match self.resume() {
                    Ok(()) => pause = RESUME_PAUSES.0,
                    Err(error) => {
                        warn!(%error, retry_in = ?pause, "writes stay refused");
                        self.commit.log_work.wait(Some(pause));
                        pause = longer(pause);
                    }
                }
                continue;
            }
            self.commit.log_awake.store(false, Ordering::SeqCst);
            self.commit.log_watching.store(false, Ordering::SeqCst);
            let timeout = self.idle_timeout();
            self.commit.log_watching.store(timeout.is_some(), Ordering::SeqCst);
            let groups = self.commit.groups();
            // After the flags, and after the last time that this thread holds the log: whoever appended before did not
            // wake it, or found the log taken and relies on this look.
            if self.commit.writer().has_group() {
                continue;
            }
            if self.is_stopping() {
                return;
            }
            if !self.commit.log_work.wait(timeout) && groups == self.commit.groups() {
                self.mark_idle();
            }
        }
    }

    /// Syncs group after group until there is none.
    pub(super) fn sync_all(&self) {
        let mut io = self.commit.io.lock();
        loop {
            for _ in 0..YIELDS_BEFORE_SWAP {
                thread::yield_now();
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
                Some(interval.saturating_sub(io.synced_upto.elapsed()))
            }
            Durability::Os => None,
            _ => io.unmarked.then_some(IDLE_BEFORE_MARKER),
        }
    }

    /// Nothing came for a while: syncs what an interval has left unsynced, then writes a marker, so that the log itself
    /// tells that its last group was durable.
    pub(crate) fn mark_idle(&self) {
        let mut io = self.commit.io.lock();
        if !io.unmarked || seeded(Defect::MarkerNotWritten) {
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

    /// After a failure, or a start that could not begin a segment: begins one, and lets writes in once it is known to
    /// work and the failed one is closed in the manifest.
    pub(crate) fn resume(&self) -> Result<()> {
        let lost = self.commit.io.lock().lost;
        if lost {
            self.flush_what_the_log_lost()?;
        }
        // A small one, as at a start: a disk that was full may have little room now.
        self.prepare_segment_of(self.options.first_segment_room())?;
        let Some(mut segment) = self.commit.spare.lock().take() else {
            return Err(Error::ReadOnly("the next log segment is gone".to_owned()));
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
            self.catalog.close_segment(segment.number(), empty_len, last, last);
            return Err(error.into());
        }
        io.synced_len = segment.len();
        io.segment = Some(segment);
        io.written = last;
        io.synced = last;
        io.unmarked = false;
        io.lost = false;
        self.commit.synced.store(last.0, Ordering::Relaxed);
        self.commit.durable.store(last.0, Ordering::SeqCst);
        self.retention.settle(last);
        self.commit.writer().log_failure = None;
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
        let refused = self.commit.writer().log_failure.is_some();
        if refused { self.resume().map(|()| true) } else { Ok(false) }
    }

    /// Syncs what the log holds. Whether everything that clients were told of is in it or in tables.
    pub(crate) fn log_has_everything(&self) -> bool {
        self.mark_idle();
        !self.commit.io.lock().lost
    }

    /// Gives up the log's files: everything in them is in tables. To be called before the last edit, which then drops
    /// them.
    pub(crate) fn close_log(&self) {
        let mut io = self.commit.io.lock();
        let last = io.written;
        for segment in io.segment.take().into_iter().chain(self.commit.spare.lock().take()) {
            self.catalog.close_segment(segment.number(), segment.len(), last, last);
        }
        io.unmarked = false;
    }
}

/// How long the closed segments may be together before a memtable is flushed because of them.
fn log_limit(options: &Options) -> u64 {
    (LOG_FACTOR * options.memtable_bytes as u64).max(2 * options.segment_bytes)
}

/// The pause after one that has not helped.
fn longer(pause: Duration) -> Duration {
    (pause * 2).min(RESUME_PAUSES.1)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
