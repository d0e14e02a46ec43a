//! Snapshots: a consistent view of one moment, however long one looks.

use std::borrow::Cow;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::merge::Direction;
use super::range::Range;
use super::retention::Ticket;
use super::shared::Shared;
use super::sources::KeyRange;
use super::times::Moment;
use super::{Result, SeqNo};
use crate::codec::Slice;
use crate::storage::Kind;

/// What a key holds: a value, and when it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Slice,
    /// When it expires, milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// What a version means to a reader at `now`: a value, or nothing (deleted, or expired).
pub(crate) fn alive(kind: Kind, value: impl FnOnce() -> Slice, now: u64) -> Option<Found> {
    kind.expiry(now).map(|expires_at| Found { value: value(), expires_at })
}

/// Keeps a position readable.
pub(super) struct Pin {
    pub(super) shared: Arc<Shared>,
    pub(super) ticket: Arc<Ticket>,
}

impl Pin {
    /// The time by which is decided what has expired.
    fn time(&self) -> u64 {
        self.ticket.as_of.unwrap_or_else(|| self.shared.options.clock.now())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.retention.give_back(&self.ticket);
    }
}

/// A consistent view of one moment, however much is written meanwhile. While it lives, no version that it shows is dropped,
/// which costs space on the disk; it costs nothing else, and writers do not wait for it. If it becomes older than
/// [`super::Options::snapshot_max_age`] allows, every read from it ends in [`super::Error::SnapshotExpired`]. It shows what was applied when
/// it was taken, which another thread's [`Db::write`](super::Db::write) may still be waiting to have synced.
///
/// ```
/// # fn main() -> Result<(), chronos::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = chronos::Options::new().open(dir.path())?;
/// db.put(b"user:101", b"Venom")?;
/// let snapshot = db.snapshot();
/// db.delete(b"user:101")?;
///
/// assert_eq!(snapshot.get(b"user:101")?.map(|found| found.value).as_deref(), Some(&b"Venom"[..]));
/// assert_eq!(db.get(b"user:101")?, None);
/// # Ok(())
/// # }
/// ```
pub struct Snapshot {
    pin: Arc<Pin>,
}

impl Snapshot {
    pub(crate) fn new(shared: &Arc<Shared>, owner: Cow<'static, str>) -> Snapshot {
        let ticket = shared.retention.acquire(owner, || shared.commit.visible());
        Snapshot { pin: Arc::new(Pin { shared: shared.clone(), ticket }) }
    }

    /// A view of what was the present at a time within the history window.
    pub(crate) fn at(shared: &Arc<Shared>, owner: Cow<'static, str>, when: u64) -> Result<Snapshot> {
        let ticket = shared.retention.acquire_at(owner, when)?;
        let snapshot = Snapshot { pin: Arc::new(Pin { shared: shared.clone(), ticket }) };
        // The log may be writing it just now; what is told of the past must not go with a crash.
        shared.wait_durable(snapshot.seq())?;
        Ok(snapshot)
    }

    /// A view of the oldest moment that can be read, and which one that is.
    pub(crate) fn oldest(shared: &Arc<Shared>, owner: Cow<'static, str>) -> Result<(Snapshot, Moment)> {
        let (ticket, oldest) = shared.retention.acquire_oldest(owner)?;
        Ok((Snapshot { pin: Arc::new(Pin { shared: shared.clone(), ticket }) }, oldest))
    }

    /// Whether it still keeps what it shows: to be asked after a read that did not go through it.
    pub(crate) fn check(&self) -> Result<()> {
        self.pin.ticket.check()
    }

    /// The position in history that this snapshot shows.
    pub fn seq(&self) -> SeqNo {
        self.pin.ticket.seq
    }

    /// What `key` held at this snapshot; `None` also if it has expired: by now, or by the time of a snapshot of
    /// the past.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](super::Error::Corrupt) if the bytes that it is in are damaged, [`Error::Io`](super::Error::Io)
    /// if they cannot be read. Other keys are not affected.
    pub fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        let version = self.pin.shared.state().get(key, self.seq())?;
        self.pin.ticket.check()?;
        Ok(version.and_then(|version| alive(version.kind, || version.value, self.pin.time())))
    }

    /// The entries of a key range, in the order of the keys' bytes; from the other end with
    /// [`rev`](Iterator::rev). An empty or inverted range has none. Reads nothing before the first entry is asked for.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// for key in ["a", "b", "c"] {
    ///     db.put(key.as_bytes(), b"1")?;
    /// }
    /// let snapshot = db.snapshot();
    /// db.delete(b"a")?;
    /// let keys: Vec<_> = snapshot.range("a".."c").map(|entry| entry.map(|e| e.key)).collect::<Result<_, _>>()?;
    /// assert_eq!(keys.len(), 2);
    /// let last = snapshot.range::<&[u8]>(..).next_back().transpose()?;
    /// assert_eq!(last.map(|entry| entry.key).as_deref(), Some(&b"c"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Range {
        let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let range = KeyRange { lower: own(range.start_bound()), upper: own(range.end_bound()) };
        Range::new(self.pin.clone(), range, Direction::Forward, self.pin.time())
    }

    /// The entries whose keys begin with `prefix`, in key order; all entries if it is empty.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// for key in ["user:101", "user:102", "visits"] {
    ///     db.put(key.as_bytes(), b"1")?;
    /// }
    /// assert_eq!(db.snapshot().prefix(b"user:").count(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn prefix(&self, prefix: &[u8]) -> Range {
        let upper = end_of_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.range((Bound::Included(prefix.to_vec()), upper))
    }
}

/// The smallest key above all that begin with `prefix`; `None` if there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
