//! The catalog: the manifest being written, the version in force, the log segments, and the file numbers. Everything
//! that changes the shape of the database goes through [`Catalog::commit`], one at a time.
//!
//! Order, always: data file synced -> directory synced -> edit synced -> version installed -> old files deleted. A
//! file goes only after the edit that drops it is durable. A manifest whose append failed is never written to again:
//! the next commit begins a new one with the whole state. What became of the failed edit is unknown until then, so the
//! files it would have added stay until that is durable.
//!
//! **History.** When positions were committed is told by the log, and from the edit on that says that they are in tables,
//! by the manifest; only such an edit, or a later one, drops their log. Each edit also tells the oldest moment that can be
//! read: it is at or above the floor by which the tables that the edit adds were written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::info;

use super::blobs;
use super::options::Entropy;
use super::retention::Retention;
use super::times::Unrecorded;
use super::version::{Listed, Replayed, TableHandle, TableSource, Version, delete};
use super::{Error, Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::fs::Fs;
use crate::storage::give_up;
use crate::storage::manifest::{Change, Edit, ManifestWriter};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::wal::{Room, SegmentWriter};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A manifest is rewritten once it is this many times as long as its live content ...
const REWRITE_FACTOR: u64 = 8;

/// ... but not while it is shorter than this: a rewrite costs four syncs.
const REWRITE_MIN_BYTES: u64 = 1 << 20;

/// What is known of a log segment that may still hold changes which no table has.
#[derive(Clone, Copy, Debug)]
struct Segment {
    closed: Option<Closed>,
    /// Whether the manifest knows that it is closed.
    recorded: bool,
}

/// What is left to say of a segment that is no longer written to.
#[derive(Clone, Copy, Debug)]
struct Closed {
    /// Its final length.
    len: u64,
    /// The newest change in it.
    last: SeqNo,
    /// The newest position given out when it was closed: after a failure more than `last`, and what lies between must
    /// never be given out again.
    upto: SeqNo,
}

struct Inner {
    manifest: Option<ManifestWriter>,
    /// Length of the manifest right after it was begun.
    live_len: u64,
    version: Arc<Version>,
    flushed: SeqNo,
    last_seq: SeqNo,
    /// The segments that the manifest lists.
    listed: BTreeMap<FileNumber, Listed>,
    /// Files that no manifest of this run refers to, but one that a restart may still go by: what earlier runs left, and
    /// what only edits of unknown fate name. They go once a new manifest has settled that.
    doubtful: Vec<FileName>,
    /// The directory has been given back.
    closed: bool,
}

/// See the module's text. Lock order: `inner`, then `segments`; the log thread takes only `segments`.
pub(crate) struct Catalog {
    fs: Arc<dyn Fs>,
    entropy: Entropy,
    pub(crate) source: Arc<TableSource>,
    retention: Arc<Retention>,
    next_file: AtomicU64,
    inner: Mutex<Inner>,
    segments: Mutex<BTreeMap<FileNumber, Segment>>,
}

impl Catalog {
    /// Goes on from what recovery found. `segments` gives each log segment that still holds needed changes, its
    /// length and its newest change; `leftovers` are the files that go once a manifest of this run is in force, and
    /// not before: until then a restart still goes by the old one. Changes nothing on the disk.
    pub(crate) fn new(
        source: Arc<TableSource>,
        entropy: Entropy,
        retention: Arc<Retention>,
        replayed: Replayed,
        next_file: u64,
        segments: &[(FileNumber, u64, SeqNo)],
        leftovers: Vec<FileName>,
    ) -> Catalog {
        let listed = segments.iter().map(|&(number, len, _)| (number, Listed::Closed { len })).collect();
        let closed =
            |&(number, len, last)| (number, Segment { closed: Some(Closed { len, last, upto: last }), recorded: true });
        let inner = Inner {
            manifest: None,
            live_len: 0,
            version: Arc::new(replayed.version),
            flushed: replayed.flushed,
            last_seq: replayed.last_seq,
            listed,
            doubtful: leftovers,
            closed: false,
        };
        Catalog {
            fs: source.fs.clone(),
            entropy,
            source,
            retention,
            next_file: AtomicU64::new(next_file),
            inner: Mutex::new(inner),
            segments: Mutex::new(segments.iter().map(closed).collect()),
        }
    }

    /// Begins the first manifest of this run. If that fails, the next commit begins it.
    pub(crate) fn begin(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let mut edit = Edit::new();
        let unrecorded = self.note_history(inner.flushed, &mut edit);
        self.rewrite(&mut inner, &edit)?;
        self.retention.note_recorded(&unrecorded);
        Ok(())
    }

    /// A number that no file has had.
    pub(crate) fn new_file(&self) -> FileNumber {
        FileNumber(self.next_file.fetch_add(1, Ordering::Relaxed))
    }

    /// The version in force.
    pub(crate) fn version(&self) -> Arc<Version> {
        self.inner.lock().version.clone()
    }

    /// The version in force, and the state of a database that has its tables and no log.
    pub(crate) fn without_log(&self) -> (Arc<Version>, Edit) {
        let inner = self.inner.lock();
        (inner.version.clone(), self.tables_and_positions(&inner))
    }

    fn tables_and_positions(&self, inner: &Inner) -> Edit {
        let mut state = vec![
            Change::NextFile(FileNumber(self.next_file.load(Ordering::Relaxed))),
            Change::Flushed(inner.flushed),
            Change::LastSeq(inner.last_seq),
        ];
        state.extend(changes(&self.retention.recorded()));
        let tables = inner.version.tables();
        state.extend(tables.map(|(level, table)| Change::AddTable { level: level as u8, table: table.meta.clone() }));
        state
    }

    /// Makes `edit` durable, then lets `install` put the new version in force (still under the catalog's lock, so that
    /// versions are installed in the order of their edits), then deletes the files that the edit dropped.
    pub(crate) fn commit(&self, mut edit: Edit, install: impl FnOnce(&Arc<Version>)) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Error::Closed);
        }
        let next = inner.version.edited(&edit, &self.source)?;
        let flushed = edit.iter().fold(inner.flushed, |seq, change| match change {
            Change::Flushed(to) => seq.max(*to),
            _ => seq,
        });
        self.note_segments(flushed, &mut edit);
        let unrecorded = self.note_history(flushed, &mut edit);
        edit.push(Change::NextFile(FileNumber(self.next_file.load(Ordering::Relaxed))));
        let gone = |change: &Change| match change {
            Change::DropTable { number, .. } if !adds(&edit, *number) => Some(*number),
            _ => None,
        };
        let gone: BTreeSet<FileNumber> = edit.iter().filter_map(gone).collect();
        if seeded(Defect::TablesDeletedEarly) {
            gone.iter().for_each(|number| delete(&*self.fs, FileName::Table(*number)));
        }
        if let Err(error) = self.append(&mut inner, &edit) {
            let added = edit.iter().filter_map(|change| match change {
                Change::AddTable { table, .. } if !drops(&edit, table.number) => Some(table),
                _ => None,
            });
            let blobs = blobs::new_files(&inner.version, added.clone()).into_keys();
            let mut doubtful: Vec<FileName> = added.map(|table| FileName::Table(table.number)).collect();
            doubtful.extend(blobs.map(FileName::Blob));
            doubtful.extend(edit.iter().filter_map(|change| match change {
                Change::AddSegment { number, .. } => Some(FileName::Wal(*number)),
                _ => None,
            }));
            if seeded(Defect::DoubtfulDeletedEarly) {
                doubtful.drain(..).for_each(|file| delete(&*self.fs, file));
            }
            if seeded(Defect::FailedNumberReused)
                && let Some(first) = doubtful.iter().filter_map(|file| file.number()).min()
            {
                self.next_file.store(first.0, Ordering::Relaxed);
            }
            inner.doubtful.extend(doubtful);
            return Err(error);
        }
        self.retention.note_recorded(&unrecorded);

        let before = std::mem::replace(&mut inner.version, Arc::new(next));
        inner.flushed = flushed;
        install(&inner.version);
        let dropped: Vec<&Arc<TableHandle>> =
            before.tables().filter(|(_, table)| gone.contains(&table.meta.number)).map(|(_, table)| table).collect();
        dropped.iter().for_each(|table| table.mark_obsolete());
        blobs::mark_obsolete(&inner.version, dropped.into_iter());
        for change in &edit {
            if let Change::DropSegment { number } = change {
                self.segments.lock().remove(number);
                delete(&*self.fs, FileName::Wal(*number));
            }
        }
        Ok(())
    }

    /// Records that no sequence number up to `seq` may be given out again.
    pub(crate) fn record_last_seq(&self, seq: SeqNo) -> Result<()> {
        self.commit(vec![Change::LastSeq(seq)], |_| {})
    }

    /// Nothing is changed any more: the directory may soon be another's.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.source.deleter.close();
    }

    /// A new segment: durable, and listed in the manifest.
    pub(crate) fn new_segment(&self, room: Room) -> Result<SegmentWriter> {
        let number = self.new_file();
        let segment = SegmentWriter::create(&*self.fs, number, self.entropy.draw(), room)?;
        let named = if seeded(Defect::SegmentNotNamed) { Ok(()) } else { self.fs.sync_dir() };
        if let Err(error) = named {
            give_up(&*self.fs, &FileName::Wal(number).to_string());
            return Err(crate::storage::Error::io(".", "sync the directory")(error).into());
        }
        self.segments.lock().insert(number, Segment { closed: None, recorded: false });
        let added = self.commit(vec![Change::AddSegment { number, prepared: segment.prepared() }], |_| {});
        if let Err(error) = added {
            self.segments.lock().remove(&number);
            return Err(error);
        }
        Ok(segment)
    }

    /// A segment will not be written to any more. Only noted: the manifest learns of it with its next edit.
    /// Its final length is `len`, the newest change in it `last`, the newest position given out `upto`.
    pub(crate) fn close_segment(&self, number: FileNumber, len: u64, last: SeqNo, upto: SeqNo) {
        if let Some(segment) = self.segments.lock().get_mut(&number) {
            segment.closed = Some(Closed { len, last, upto });
        }
    }

    /// Bytes of log that a restart would have to read.
    pub(crate) fn closed_log_bytes(&self) -> u64 {
        self.segments.lock().values().filter_map(|segment| segment.closed).map(|closed| closed.len).sum()
    }

    /// Adds to `edit` what has become of the log segments: those whose every change is in tables go, those closed
    /// since the last edit get their final length.
    fn note_segments(&self, flushed: SeqNo, edit: &mut Edit) {
        for (number, segment) in self.segments.lock().iter() {
            match segment.closed {
                Some(Closed { last, .. }) if last <= flushed || seeded(Defect::SegmentDroppedEarly) => {
                    edit.push(Change::DropSegment { number: *number });
                }
                Some(Closed { len, .. }) if !segment.recorded => {
                    edit.push(Change::CloseSegment { number: *number, len });
                }
                _ => continue,
            }
            if let Some(Closed { last, upto, .. }) = segment.closed
                && last < upto
            {
                edit.push(Change::LastSeq(upto));
            }
        }
    }

    /// Adds to `edit` what the manifest does not know of the past, of what is in tables.
    fn note_history(&self, flushed: SeqNo, edit: &mut Edit) -> Unrecorded {
        let unrecorded = self.retention.unrecorded(flushed);
        edit.extend(changes(&unrecorded));
        unrecorded
    }

    fn append(&self, inner: &mut Inner, edit: &[Change]) -> Result<()> {
        let live_len = inner.live_len;
        match inner.manifest.take_if(|manifest| !has_outgrown(manifest.len(), live_len)) {
            Some(mut manifest) => {
                // Taken out before the append: after an error this file must never be appended to again.
                if let Err(error) = manifest.append(edit) {
                    inner.doubtful.push(FileName::Manifest(manifest.number()));
                    return Err(error.into());
                }
                inner.manifest = Some(manifest);
                self.note_listed(inner, edit);
                Ok(())
            }
            None => self.rewrite(inner, edit),
        }
    }

    /// Begins a new manifest with the whole state and `edit`, and makes it the one in force.
    fn rewrite(&self, inner: &mut Inner, edit: &[Change]) -> Result<()> {
        let old = inner.manifest.take().map(|manifest| FileName::Manifest(manifest.number()));
        // Until the new one is in force.
        inner.doubtful.extend(old);
        let number = self.new_file();
        let mut state = self.tables_and_positions(inner);
        for (&number, &listed) in &inner.listed {
            state.push(match listed {
                Listed::Closed { len } => Change::CloseSegment { number, len },
                Listed::Open { prepared } => Change::AddSegment { number, prepared },
            });
        }
        state.extend_from_slice(edit);
        let manifest = ManifestWriter::create(&*self.fs, number, self.entropy.draw(), &state)
            .inspect_err(|failure| inner.doubtful.extend(failure.left_behind.then_some(FileName::Manifest(number))))
            .map_err(|failure| failure.error)?;
        info!(file = number.0, bytes = manifest.len(), "manifest begun");
        inner.live_len = manifest.len();
        inner.manifest = Some(manifest);
        self.note_listed(inner, edit);
        for file in std::mem::take(&mut inner.doubtful) {
            delete(&*self.fs, file);
        }
        Ok(())
    }

    /// The manifest now has `edit`: what it lists of the segments follows.
    fn note_listed(&self, inner: &mut Inner, edit: &[Change]) {
        let mut segments = self.segments.lock();
        for change in edit {
            match change {
                Change::AddSegment { number, prepared } => {
                    inner.listed.insert(*number, Listed::Open { prepared: *prepared });
                }
                Change::CloseSegment { number, len } => {
                    inner.listed.insert(*number, Listed::Closed { len: *len });
                    if let Some(segment) = segments.get_mut(number) {
                        segment.recorded = true;
                    }
                }
                Change::DropSegment { number } => {
                    inner.listed.remove(number);
                }
                Change::LastSeq(seq) => inner.last_seq = inner.last_seq.max(*seq),
                _ => {}
            }
        }
    }
}

/// What is told of the past, as the manifest says it.
fn changes(history: &Unrecorded) -> impl Iterator<Item = Change> {
    let samples = history.samples.iter().map(|sample| (sample.seq, sample.time)).collect::<Vec<_>>();
    let committed = (!samples.is_empty()).then_some(Change::Committed(samples));
    committed.into_iter().chain(history.oldest.map(|oldest| Change::Oldest(oldest.seq, oldest.time)))
}

/// Whether the edit drops table `number`, so that it was there before.
fn drops(edit: &[Change], number: FileNumber) -> bool {
    edit.iter().any(|change| matches!(change, Change::DropTable { number: dropped, .. } if *dropped == number))
}

/// Whether the edit adds table `number` as well as dropping it: a table that moves to another level keeps its file.
fn adds(edit: &[Change], number: FileNumber) -> bool {
    edit.iter().any(|change| matches!(change, Change::AddTable { table, .. } if table.number == number))
}

/// Whether a manifest of `len` bytes is to be rewritten; that has left `live` of them the last time.
fn has_outgrown(len: u64, live: u64) -> bool {
    len > REWRITE_MIN_BYTES.max(REWRITE_FACTOR * live)
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
