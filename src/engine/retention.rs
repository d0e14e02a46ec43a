//! The retention floor: the oldest position in history that anybody may still read.
//!
//! Memtable overwrites, flush and compaction obey one rule: a version may go once a newer one of its key is at or below
//! the floor. The floor is the oldest live snapshot or, with [`super::Options::history`], the beginning of the history
//! window; and it never passes the newest *settled* position (the one that can no longer fail), so that a failed log
//! group can be taken back exactly.
//!
//! A value that expires stays as long as somebody may look at a time before that: see [`Floor::expired`].
//!
//! Why a floor that was read a moment ago is safe to act on: every later snapshot shows a position at or above the
//! visible one of its moment, and the visible position is never below the settled one; or a position within the window,
//! which is checked under the lock under which the window moves on. So the floor in force for it can only be higher than
//! the one acted on.
//!
//! **Snapshots that get too old.** With [`super::Options::snapshot_max_age`] a snapshot is *released*: it is marked first,
//! and then the floor passes it. Its readers look for the mark after they have read: whoever read what a job had made of
//! the higher floor finds it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use super::times::{Moment, Times, Unrecorded};
use super::{Clock, Error, Options, Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Up to where jobs may drop what nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Of the versions of a key at or below this position only the newest can still be read.
    pub(crate) seq: SeqNo,
    /// Nobody looks at a time before this one (milliseconds since 1970): what has expired by then is as good as deleted.
    pub(crate) expired: u64,
}

/// Live snapshots and the history window, and what follows from them.
#[derive(Debug)]
pub(crate) struct Retention {
    inner: Mutex<Inner>,
    /// A copy of the floor, for the write path.
    floor: AtomicU64,
    clock: Clock,
    /// Whether there is a history window.
    keeps_history: bool,
    /// In milliseconds.
    snapshot_max_age: Option<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    snapshots: BTreeMap<(SeqNo, u64), Live>,
    last_id: u64,
    settled: SeqNo,
    times: Option<Times>,
}

/// What is known of a live snapshot.
#[derive(Debug)]
struct Live {
    ticket: Arc<Ticket>,
    owner: Cow<'static, str>,
    /// Milliseconds since 1970.
    taken: u64,
}

/// Keeps a position readable until it is given back, or released.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) seq: SeqNo,
    /// The time as of which the snapshot is read, if not the present.
    pub(crate) as_of: Option<u64>,
    id: u64,
    released: AtomicBool,
}

impl Ticket {
    /// To be asked after a read: whether what was read is what the position showed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.released.load(Ordering::Acquire) { Err(Error::SnapshotExpired) } else { Ok(()) }
    }
}

/// A live snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Who took it.
    pub owner: Cow<'static, str>,
    /// The position that it shows.
    pub seq: SeqNo,
    /// How long ago it was taken, in milliseconds.
    pub age_ms: u64,
}

/// What is kept of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryStats {
    /// How far the window reaches, in milliseconds.
    pub window_ms: u64,
    /// The oldest time that can be read, in milliseconds since 1970.
    pub oldest_ms: u64,
    /// The oldest position that can be read.
    pub oldest_seq: SeqNo,
    /// Positions of which the time is known.
    pub samples: u64,
}

impl Retention {
    pub(crate) fn new(options: &Options) -> Retention {
        Retention {
            inner: Mutex::default(),
            floor: AtomicU64::new(0),
            clock: options.clock.clone(),
            keeps_history: options.history.is_some(),
            snapshot_max_age: options.snapshot_max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Goes on after a start: everything up to `settled` is durable, and this is known of the past.
    pub(crate) fn begin(&self, settled: SeqNo, times: Option<Times>) {
        let mut inner = self.inner.lock();
        inner.settled = settled;
        inner.times = times;
        self.update(&inner);
    }

    /// The floor's position, as it was when something last moved it.
    pub(crate) fn floor(&self) -> SeqNo {
        SeqNo(self.floor.load(Ordering::Acquire))
    }

    /// The floor now, for a job that drops what lies below it; releases what is too old first.
    pub(crate) fn floor_now(&self) -> Floor {
        let mut inner = self.inner.lock();
        let now = self.refresh(&mut inner);
        let horizon = inner.times.as_ref().map_or(now, |times| times.oldest().time);
        let read_as_of = inner.snapshots.values().filter_map(|live| live.ticket.as_of).min();
        Floor { seq: self.floor(), expired: horizon.min(read_as_of.unwrap_or(u64::MAX)) }
    }

    /// Registers a snapshot of the position that `visible` gives; it is asked under the lock, so that the floor cannot
    /// pass the position between its being read and its being registered.
    pub(crate) fn acquire(&self, owner: Cow<'static, str>, visible: impl Fn() -> SeqNo) -> Arc<Ticket> {
        let early = seeded(Defect::SnapshotPositionEarly).then(&visible);
        let mut inner = self.inner.lock();
        let seq = early.unwrap_or_else(visible);
        self.register(&mut inner, owner, seq, None)
    }

    /// Registers a snapshot of what was the newest position at a time.
    pub(crate) fn acquire_at(&self, owner: Cow<'static, str>, when: u64) -> Result<Arc<Ticket>> {
        let mut inner = self.inner.lock();
        let now = self.refresh(&mut inner);
        let times = inner.times.as_mut().ok_or(Error::NoHistory)?;
        let oldest = times.oldest().time;
        let seq = times.position_at(when, now).ok_or(Error::OutsideHistory { oldest })?;
        Ok(self.register(&mut inner, owner, seq, Some(when)))
    }

    /// Registers a snapshot of the oldest moment that can be read.
    pub(crate) fn acquire_oldest(&self, owner: Cow<'static, str>) -> Result<(Arc<Ticket>, Moment)> {
        let mut inner = self.inner.lock();
        self.refresh(&mut inner);
        let oldest = inner.times.as_ref().map(Times::oldest).ok_or(Error::NoHistory)?;
        Ok((self.register(&mut inner, owner, oldest.seq, Some(oldest.time)), oldest))
    }

    fn register(&self, inner: &mut Inner, owner: Cow<'static, str>, seq: SeqNo, as_of: Option<u64>) -> Arc<Ticket> {
        inner.last_id += 1;
        let ticket = Arc::new(Ticket { seq, as_of, id: inner.last_id, released: AtomicBool::new(false) });
        let live = Live { ticket: ticket.clone(), owner, taken: self.clock.now() };
        inner.snapshots.insert((seq, inner.last_id), live);
        self.update(inner);
        ticket
    }

    /// A snapshot is gone.
    pub(crate) fn give_back(&self, ticket: &Ticket) {
        let mut inner = self.inner.lock();
        inner.snapshots.remove(&(ticket.seq, ticket.id));
        self.update(&inner);
    }

    /// Everything up to `seq` can no longer fail.
    pub(crate) fn settle(&self, seq: SeqNo) {
        let mut inner = self.inner.lock();
        inner.settled = inner.settled.max(seq);
        self.update(&inner);
    }

    /// The log is about to write everything up to `seq`: the time that goes with it.
    pub(crate) fn stamp(&self, seq: SeqNo) -> u64 {
        if !self.keeps_history {
            return self.clock.now();
        }
        let mut inner = self.inner.lock();
        // Under the lock: what is asked for before this time is then answered for good.
        let now = self.refresh(&mut inner);
        let late = u64::from(seeded(Defect::HistoryLate));
        inner.times.as_mut().map_or(now, |times| times.stamp(seq, now + late))
    }

    /// Positions after this one have failed.
    pub(crate) fn take_back(&self, after: SeqNo) {
        let mut inner = self.inner.lock();
        inner.times.iter_mut().for_each(|times| times.take_back(after));
        self.update(&inner);
    }

    /// By when a position was committed, now if the log has not written it yet; `None` if that was before the oldest that
    /// can be read.
    pub(crate) fn time_of(&self, seq: SeqNo) -> Option<u64> {
        let inner = self.inner.lock();
        let times = inner.times.as_ref()?;
        if seq <= times.oldest().seq {
            return None;
        }
        Some(times.time_of(seq).unwrap_or_else(|| times.present(self.clock.now())))
    }

    /// What time it is in history.
    pub(crate) fn present(&self) -> Result<u64> {
        let inner = self.inner.lock();
        inner.times.as_ref().map(|times| times.present(self.clock.now())).ok_or(Error::NoHistory)
    }

    /// What the manifest has to learn of the past with an edit that says that everything up to `flushed` is in tables.
    pub(crate) fn unrecorded(&self, flushed: SeqNo) -> Unrecorded {
        self.inner.lock().times.as_ref().map(|times| times.unrecorded(flushed)).unwrap_or_default()
    }

    /// The manifest has learned it.
    pub(crate) fn note_recorded(&self, recorded: &Unrecorded) {
        self.inner.lock().times.iter_mut().for_each(|times| times.note_recorded(recorded));
    }

    /// What the manifest has of the past.
    pub(crate) fn recorded(&self) -> Unrecorded {
        self.inner.lock().times.as_ref().map(Times::recorded).unwrap_or_default()
    }

    /// The live snapshots, those that show the oldest positions first.
    pub(crate) fn snapshots(&self) -> Vec<SnapshotStats> {
        let mut inner = self.inner.lock();
        let now = self.refresh(&mut inner);
        let stats = |live: &Live| SnapshotStats {
            owner: live.owner.clone(),
            seq: live.ticket.seq,
            age_ms: now.saturating_sub(live.taken),
        };
        inner.snapshots.values().map(stats).collect()
    }

    /// What is kept of the past, if anything.
    pub(crate) fn history(&self) -> Option<HistoryStats> {
        let mut inner = self.inner.lock();
        self.refresh(&mut inner);
        let times = inner.times.as_ref()?;
        let Moment { seq, time } = times.oldest();
        Some(HistoryStats { window_ms: times.window(), oldest_ms: time, oldest_seq: seq, samples: times.len() as u64 })
    }

    /// Lets time pass: the window moves on, and snapshots that have become too old are released. What time it is.
    fn refresh(&self, inner: &mut Inner) -> u64 {
        let now = self.clock.now();
        if let Some(times) = &mut inner.times {
            times.advance(now);
        }
        let mut unmarked: Vec<Arc<Ticket>> = Vec::new();
        if let Some(max_age) = self.snapshot_max_age {
            inner.snapshots.retain(|_, live| {
                let age_ms = now.saturating_sub(live.taken);
                let stays = age_ms <= max_age;
                if !stays {
                    warn!(owner = %live.owner, seq = live.ticket.seq.0, age_ms, "a snapshot has become too old and is released");
                    // Before the floor moves: see the module's text.
                    if seeded(Defect::ReleaseMarkedLate) {
                        unmarked.push(live.ticket.clone());
                    } else {
                        live.ticket.released.store(true, Ordering::Release);
                    }
                }
                stays
            });
        }
        self.update(inner);
        unmarked.iter().for_each(|ticket| ticket.released.store(true, Ordering::Release));
        now
    }

    fn update(&self, inner: &Inner) {
        let oldest = inner.snapshots.first_key_value().map_or(SeqNo(u64::MAX), |((seq, _), _)| *seq);
        let window = inner.times.as_ref().map_or(SeqNo(u64::MAX), |times| times.oldest().seq);
        self.floor.store(oldest.min(window).min(inner.settled).0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A clock to be set.
    fn clock() -> (Arc<AtomicU64>, Clock) {
        let now = Arc::new(AtomicU64::new(10_000));
        let shared = now.clone();
        (now, Clock(Arc::new(move || shared.load(Ordering::SeqCst))))
    }

    #[test]
    fn the_floor_is_the_oldest_snapshot_and_never_above_what_is_settled() {
        let retention = Retention::new(&Options::new());
        let acquire = |seq| retention.acquire("".into(), || SeqNo(seq));
        assert_eq!(retention.floor(), SeqNo(0));
        retention.settle(SeqNo(10));
        assert_eq!(retention.floor(), SeqNo(10));
        let ahead = acquire(12);
        assert_eq!(retention.floor(), SeqNo(10), "not above the settled position");
        retention.settle(SeqNo(20));
        assert_eq!(retention.floor(), SeqNo(12));
        let again = acquire(12);
        retention.give_back(&ahead);
        assert_eq!(retention.floor(), SeqNo(12), "two snapshots of one position count twice");
        retention.give_back(&again);
        assert_eq!(retention.floor(), SeqNo(20));
        assert!(retention.snapshots().is_empty());
    }

    #[test]
    fn the_window_holds_the_floor_down_and_what_has_expired_within_it() {
        let (now, clock) = clock();
        let retention = Retention::new(&Options::new().clock(clock).history(Duration::from_secs(1)));
        let times = Times::new(1_000, Moment { seq: SeqNo(5), time: 10_000 });
        retention.begin(SeqNo(5), Some(times));
        for seq in 6..=9 {
            now.fetch_add(300, Ordering::SeqCst);
            retention.stamp(SeqNo(seq));
            retention.settle(SeqNo(seq));
        }
        assert_eq!(retention.floor_now(), Floor { seq: SeqNo(5), expired: 10_200 });
        let past = retention.acquire_at("".into(), 10_600).unwrap();
        assert_eq!((past.seq, past.as_of), (SeqNo(7), Some(10_600)));
        now.store(12_000, Ordering::SeqCst);
        assert_eq!(retention.floor_now(), Floor { seq: SeqNo(7), expired: 10_600 }, "it is still being read");
        assert!(matches!(retention.acquire_at("".into(), 10_999), Err(Error::OutsideHistory { oldest: 11_000 })));
        retention.give_back(&past);
        assert_eq!(retention.floor_now(), Floor { seq: SeqNo(8), expired: 11_000 });
    }

    #[test]
    fn a_snapshot_that_is_too_old_is_marked_and_holds_nothing_down() {
        let (now, clock) = clock();
        let retention = Retention::new(&Options::new().clock(clock).snapshot_max_age(Duration::from_secs(1)));
        retention.settle(SeqNo(10));
        let old = retention.acquire("backup".into(), || SeqNo(10));
        now.fetch_add(600, Ordering::SeqCst);
        retention.settle(SeqNo(20));
        let young = retention.acquire("".into(), || SeqNo(20));
        retention.settle(SeqNo(30));
        now.fetch_add(401, Ordering::SeqCst);
        assert!(old.check().is_ok() && retention.floor() == SeqNo(10), "nobody has looked yet");
        assert_eq!(retention.floor_now().seq, SeqNo(20));
        assert!(matches!(old.check(), Err(Error::SnapshotExpired)) && young.check().is_ok());
        let left = retention.snapshots();
        assert_eq!(left, [SnapshotStats { owner: "".into(), seq: SeqNo(20), age_ms: 401 }]);
        retention.give_back(&old);
        assert_eq!(retention.floor(), SeqNo(20));
    }

    #[test]
    fn what_was_taken_back_was_never_there_at_any_time() {
        let (now, clock) = clock();
        let retention = Retention::new(&Options::new().clock(clock).history(Duration::from_secs(1)));
        retention.begin(SeqNo(5), Some(Times::new(1_000, Moment { seq: SeqNo(5), time: 10_000 })));
        now.store(10_300, Ordering::SeqCst);
        assert_eq!(retention.stamp(SeqNo(8)), 10_300);
        retention.take_back(SeqNo(5));
        now.store(10_900, Ordering::SeqCst);
        assert_eq!(retention.acquire_at("".into(), 10_600).unwrap().seq, SeqNo(5));
        assert_eq!(retention.stamp(SeqNo(6)), 10_900);
        assert_eq!(retention.time_of(SeqNo(6)), Some(10_900));
    }
}
