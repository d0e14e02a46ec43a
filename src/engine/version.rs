//! A version: the tables that make up the tree at one moment, by level. Immutable; a manifest edit makes a new one.
//!
//! Level 0 holds flushed memtables, newest first; their key ranges overlap. In every deeper level the tables' key ranges
//! are disjoint and ascending. Of two versions of a key the newer one is never in a deeper place than the older.
//!
//! A range tombstone is a version of every key that it covers, and a table's key range has all of those: so whatever is
//! said here of versions and of tables that meet holds for range tombstones too, and what a search finds first, be it a
//! value or a tombstone of either kind, is the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::{Arc, OnceLock};

use tracing::warn;

use super::blobs::{BlobHandle, Blobs};
use super::reads::{ReadCounters, ReadsByLevel};
use super::times::Moment;
use super::{Error, Result, SeqNo};
use crate::codec::Slice;
use crate::codec::defect::{Defect, seeded};
use crate::codec::hash::KeyHash;
use crate::fs::Fs;
use crate::storage::blob::Pointer;
use crate::storage::manifest::{Change, TableMeta};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::{Reads, Table};
use crate::storage::{BlockCache, End, FilePool, Fragments, Kind, TableId, Version as KeyVersion};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Levels of the tree. With a factor of ten from level to level and 64 MiB in level 1, seven hold more than 6 PiB.
pub(crate) const LEVELS: usize = 7;

/// What is needed to open a table.
pub(crate) struct TableSource {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) cache: Arc<BlockCache>,
    /// Point reads of the tables.
    pub(crate) reads: ReadCounters,
    pub(crate) files: Arc<FilePool>,
    pub(crate) deleter: Arc<Deleter>,
    pub(crate) blobs: Blobs,
}

impl TableSource {
    pub(crate) fn new(fs: Arc<dyn Fs>, cache: Arc<BlockCache>) -> Arc<TableSource> {
        let files = FilePool::new(fs.clone());
        let deleter = Arc::new(Deleter { fs: fs.clone(), closed: Mutex::new(false) });
        Arc::new(TableSource { fs, cache, reads: ReadCounters::default(), files, deleter, blobs: Blobs::default() })
    }
}

/// Deletes the files of tables and values when nobody reads from them any more, until the directory is given back: then
/// another may have it, and one who still reads must not take a file away from him. The next start deletes those.
pub(crate) struct Deleter {
    fs: Arc<dyn Fs>,
    /// Held while a file is deleted: nothing is under way once it is set.
    closed: Mutex<bool>,
}

impl Deleter {
    pub(super) fn delete(&self, name: FileName) {
        let closed = self.closed.lock();
        if !*closed || seeded(Defect::DeletedAfterClose) {
            delete(&*self.fs, name);
        }
    }

    pub(super) fn close(&self) {
        *self.closed.lock() = true;
    }
}

/// A table of the tree: what the manifest says of it, and the table itself once somebody has read from it. All versions
/// that the table is in share one handle, also when it moves to another level, and the file is deleted when the last of
/// them is gone: a reader of an old version can still open it.
pub(crate) struct TableHandle {
    pub(crate) meta: TableMeta,
    source: Arc<TableSource>,
    table: OnceLock<Arc<Table>>,
    /// What it points into, as in `meta`.
    blobs: Box<[Arc<BlobHandle>]>,
    /// Whether an edit that drops the table is durable.
    obsolete: AtomicBool,
    /// What the first read that met damage said. Compaction leaves the table alone from then on.
    damage: OnceLock<String>,
}

impl TableHandle {
    pub(crate) fn new(meta: TableMeta, source: &Arc<TableSource>) -> TableHandle {
        TableHandle {
            blobs: source.blobs.handles(&source.deleter, &source.files, &meta.blobs),
            meta,
            source: source.clone(),
            table: OnceLock::new(),
            obsolete: AtomicBool::new(false),
            damage: OnceLock::new(),
        }
    }

    /// The open table. Opening reads the top of its index; two threads may both do so, one result is kept.
    pub(crate) fn open(&self) -> Result<&Arc<Table>> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let name = FileName::Table(self.meta.number).to_string();
        let file = self.source.files.open(&name).map_err(crate::storage::Error::io(&name, "open"))?;
        let table = Table::open(file, &name, TableId(self.meta.number.0), self.source.cache.clone())?;
        Ok(self.table.get_or_init(|| Arc::new(table)))
    }

    /// The newest version of `key` at or below `as_of` in this table.
    fn get(&self, key: &[u8], as_of: SeqNo, hash: KeyHash, reads: &mut Reads) -> Result<Option<KeyVersion>> {
        let found = self
            .open()
            .and_then(|table| Ok(table.get(key, as_of, hash, reads)?))
            .inspect_err(|error| self.note(error))?;
        let Some(KeyVersion { seq, kind: kind @ Kind::PutFar { expires_at }, value }) = found else { return Ok(found) };
        let value = self.value(kind, value)?;
        Ok(Some(KeyVersion { seq, kind: Kind::Put { expires_at }, value }))
    }

    /// The value of an entry of this table that has `stored`.
    pub(crate) fn value(&self, kind: Kind, stored: Slice) -> Result<Slice> {
        let Kind::PutFar { .. } = kind else { return Ok(stored) };
        let pointer = Pointer::decode(&stored);
        let blob = pointer.and_then(|pointer| self.blobs.iter().find(|blob| blob.number() == pointer.file));
        let value = match (pointer, blob) {
            (Some(pointer), Some(blob)) => blob.read(pointer),
            _ => Err(Error::Corrupt {
                file: FileName::Table(self.meta.number).to_string(),
                what: "an entry points to no blob file of this table".to_owned(),
                offset: 0,
            }),
        };
        value.inspect_err(|error| self.note(error))
    }

    pub(crate) fn blobs(&self) -> &[Arc<BlobHandle>] {
        &self.blobs
    }

    /// Remembers an error of a read from this table, if it says that the table is damaged.
    pub(crate) fn note(&self, error: &Error) {
        if let Error::Corrupt { .. } = error
            && self.damage.set(error.to_string()).is_ok()
        {
            tracing::error!(%error, "a table is damaged: its readable keys are served, compaction leaves it alone");
        }
    }

    /// What is known to be wrong with the table.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// The table, if it is open.
    pub(crate) fn if_open(&self) -> Option<&Table> {
        self.table.get().map(|table| &**table)
    }

    /// The table is in no version that a restart could find: its file goes when nobody reads from it any more.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    /// Whether any key from `smallest` to `largest` may be in this table, or under a range tombstone of it.
    pub(crate) fn overlaps(&self, smallest: &[u8], largest: &End) -> bool {
        let missed = seeded(Defect::OverlapMissed) && *largest == End::With(self.meta.smallest.clone());
        !missed && !largest.precedes(&self.meta.smallest) && !self.meta.largest.precedes(smallest)
    }

    #[inline]
    pub(crate) fn may_hold(&self, key: &[u8]) -> bool {
        *self.meta.smallest <= *key
            && !self.meta.largest.precedes(key)
            && !(seeded(Defect::FirstKeyNotSearched) && *self.meta.smallest == *key)
    }

    pub(crate) fn has_ranges(&self) -> bool {
        self.meta.range_tombstones > 0
    }

    /// The range tombstones; where the manifest knows of none, nothing is opened for that.
    pub(crate) fn ranges(&self) -> Result<&Fragments> {
        const NONE: &Fragments = &Fragments::NONE;
        if !self.has_ranges() {
            return Ok(NONE);
        }
        self.open().map(|table| table.ranges()).inspect_err(|error| self.note(error))
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.source.deleter.delete(FileName::Table(self.meta.number));
        }
    }
}

/// Deletes a file that nothing refers to. A failure costs disk space until the next start, which tries again.
pub(crate) fn delete(fs: &dyn Fs, name: FileName) {
    if let Err(error) = fs.remove(&name.to_string()) {
        warn!(file = %name, %error, "cannot delete a file that is no longer needed");
    }
}

impl std::fmt::Debug for TableHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{:?}..{:?}]", self.meta.number.0, self.meta.smallest, self.meta.largest)
    }
}

fn invalid(what: String) -> Error {
    Error::Corrupt { file: "manifest".to_owned(), what, offset: 0 }
}

fn not_there(number: FileNumber) -> Error {
    invalid(format!("table {} leaves a level it is not in", number.0))
}

/// Tables in some order. Shared, so that a scan holds all that it may come to however many they are.
pub(crate) type Tables = Arc<Vec<Arc<TableHandle>>>;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    pub(crate) levels: [Tables; LEVELS],
    /// Those of each level that have range tombstones.
    pub(crate) ranged: [Tables; LEVELS],
}

impl Version {
    /// The version after `edit`; tables that stay keep their handles.
    pub(crate) fn edited(&self, edit: &[Change], source: &Arc<TableSource>) -> Result<Version> {
        let mut next = self.clone();
        // A table that moves is dropped and added by one edit.
        let dropped = |change: &Change| match change {
            Change::DropTable { number, .. } => Some(*number),
            _ => None,
        };
        let dropped: BTreeSet<FileNumber> = edit.iter().filter_map(dropped).collect();
        for change in edit {
            match change {
                Change::AddTable { level, table } => {
                    let tables = next.levels.get_mut(usize::from(*level));
                    let tables = tables.ok_or_else(|| invalid(format!("a table in level {level}")))?;
                    let moves = dropped.contains(&table.number);
                    let moved = moves.then(|| self.tables().find(|(_, other)| other.meta.number == table.number));
                    let handle = match moved.flatten() {
                        Some((_, handle)) => handle.clone(),
                        None => Arc::new(TableHandle::new(table.clone(), source)),
                    };
                    Arc::make_mut(tables).push(handle);
                }
                Change::DropTable { level, number } => {
                    let tables = next.levels.get_mut(usize::from(*level));
                    let place = tables.and_then(|tables| {
                        let at = tables.iter().position(|table| table.meta.number == *number)?;
                        Some((tables, at))
                    });
                    let (tables, at) = place.ok_or_else(|| not_there(*number))?;
                    Arc::make_mut(tables).remove(at);
                }
                _ => {}
            }
        }
        let [flushed, sorted @ ..] = &mut next.levels;
        Arc::make_mut(flushed).sort_by_key(|table| std::cmp::Reverse(table.meta.last_seq));
        if seeded(Defect::OldestFirstInLevel0) {
            Arc::make_mut(flushed).reverse();
        }
        for tables in sorted {
            Arc::make_mut(tables).sort_by(|a, b| a.meta.smallest.cmp(&b.meta.smallest));
            if let Some(pair) = tables.windows(2).find(|pair| !pair[0].meta.largest.precedes(&pair[1].meta.smallest)) {
                return Err(invalid(format!("tables {pair:?} of one level overlap")));
            }
        }
        let ranged = |tables: &Tables| tables.iter().filter(|table| table.has_ranges()).cloned().collect::<Vec<_>>();
        next.ranged = next.levels.each_ref().map(|tables| Arc::new(ranged(tables)));
        Ok(next)
    }

    /// The newest version of `key` at or below `as_of`.
    pub(crate) fn get(&self, key: &[u8], as_of: SeqNo) -> Result<Option<KeyVersion>> {
        let mut reads = ReadsByLevel::default();
        let found = self.find(key, as_of, &mut reads);
        self.count(&reads);
        found
    }

    fn find(&self, key: &[u8], as_of: SeqNo, reads: &mut ReadsByLevel) -> Result<Option<KeyVersion>> {
        let [flushed, sorted @ ..] = &self.levels;
        let [reads_of_flushed, reads @ ..] = reads;
        let hash = KeyHash::of(key);
        for table in flushed.iter().filter(|table| table.may_hold(key)) {
            if let Some(found) = table.get(key, as_of, hash, reads_of_flushed)? {
                return Ok(Some(found));
            }
        }
        for (tables, reads) in sorted.iter().zip(reads) {
            if let Some(table) = Version::table_for(tables, key)
                && let Some(found) = table.get(key, as_of, hash, reads)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Counts point reads of the tables.
    pub(crate) fn count(&self, reads: &ReadsByLevel) {
        if let Some((_, any)) = self.tables().next() {
            any.source.reads.add(reads);
        }
    }

    /// The one of a sorted level's tables that may hold `key`.
    pub(crate) fn table_for<'a>(tables: &'a [Arc<TableHandle>], key: &[u8]) -> Option<&'a Arc<TableHandle>> {
        let at = tables.partition_point(|table| table.meta.largest.precedes(key));
        tables.get(at).filter(|table| table.may_hold(key))
    }

    /// The tables of `level` that may hold keys from `smallest` to `largest`.
    pub(crate) fn overlapping(&self, level: usize, smallest: &[u8], largest: &End) -> Vec<Arc<TableHandle>> {
        self.levels[level].iter().filter(|table| table.overlaps(smallest, largest)).cloned().collect()
    }

    /// Whether all keys of some table lie from `start` to `end`.
    pub(crate) fn has_table_within(&self, start: &[u8], end: &End) -> bool {
        let [flushed, sorted @ ..] = &self.levels;
        let within = |table: &Arc<TableHandle>| *table.meta.smallest >= *start && table.meta.largest <= *end;
        flushed.iter().any(within)
            || sorted.iter().any(|tables| {
                let first = tables.partition_point(|table| *table.meta.smallest < *start);
                tables.get(first).is_some_and(within)
            })
    }

    /// Where the tables of a sorted level are that may hold keys within the bounds.
    pub(crate) fn within(&self, level: usize, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Range<usize> {
        let tables = &self.levels[level];
        let start = match lower {
            Bound::Unbounded => 0,
            Bound::Included(key) | Bound::Excluded(key) => tables.partition_point(|t| t.meta.largest.precedes(key)),
        };
        let end = match upper {
            Bound::Unbounded => tables.len(),
            Bound::Included(key) | Bound::Excluded(key) => tables.partition_point(|t| *t.meta.smallest <= *key),
        };
        start..end.max(start)
    }

    /// Bytes of a level on disk.
    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.levels[level].iter().map(|table| table.meta.size).sum()
    }

    /// The newest position in any table.
    pub(crate) fn last_seq(&self) -> SeqNo {
        self.tables().map(|(_, table)| table.meta.last_seq).max().unwrap_or_default()
    }

    /// Every table with its level.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableHandle>)> {
        self.levels.iter().enumerate().flat_map(|(level, tables)| tables.iter().map(move |table| (level, table)))
    }

    /// What is known to be wrong with tables, by table.
    pub(crate) fn damage(&self) -> impl Iterator<Item = &str> {
        self.tables().filter_map(|(_, table)| table.damage())
    }

    /// The deepest level that holds a table.
    pub(crate) fn bottom(&self) -> usize {
        self.levels.iter().rposition(|tables| !tables.is_empty()).unwrap_or(0)
    }
}

/// What the manifest says of a log segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// It may be written to; the file has at least this length.
    Open { prepared: u64 },
    /// It ends here, whatever follows.
    Closed { len: u64 },
}

/// What a manifest's edits add up to.
#[derive(Default)]
pub(crate) struct Replayed {
    pub(crate) version: Version,
    pub(crate) next_file: u64,
    pub(crate) flushed: SeqNo,
    pub(crate) last_seq: SeqNo,
    /// Log segments that may hold changes.
    pub(crate) segments: BTreeMap<FileNumber, Listed>,
    /// When positions that are in tables were committed, and the oldest moment that can be read; `None` if the last run
    /// kept no history.
    pub(crate) committed: Vec<Moment>,
    pub(crate) oldest: Option<Moment>,
}

impl Replayed {
    pub(crate) fn new(edits: &[Vec<Change>], source: &Arc<TableSource>) -> Result<Replayed> {
        let mut all = Replayed::default();
        // One version in the end: one for each edit would take time in proportion to the edits times the tables.
        let mut tables: BTreeMap<(u8, FileNumber), &TableMeta> = BTreeMap::new();
        for edit in edits {
            for change in edit {
                match change {
                    Change::AddTable { level, table } => {
                        if tables.insert((*level, table.number), table).is_some() {
                            return Err(invalid(format!("table {} comes twice", table.number.0)));
                        }
                    }
                    Change::DropTable { level, number } => {
                        tables.remove(&(*level, *number)).ok_or_else(|| not_there(*number))?;
                    }
                    Change::NextFile(number) => all.next_file = all.next_file.max(number.0),
                    Change::Flushed(seq) => all.flushed = all.flushed.max(*seq),
                    Change::LastSeq(seq) => all.last_seq = all.last_seq.max(*seq),
                    Change::AddSegment { number, prepared } => {
                        all.segments.insert(*number, Listed::Open { prepared: *prepared });
                    }
                    Change::CloseSegment { number, len } => {
                        all.segments.insert(*number, Listed::Closed { len: *len });
                    }
                    Change::DropSegment { number } => {
                        all.segments.remove(number);
                    }
                    Change::Committed(moments) => {
                        all.committed.extend(moments.iter().map(|&(seq, time)| Moment { seq, time }));
                    }
                    Change::Oldest(seq, time) => all.oldest = Some(Moment { seq: *seq, time: *time }),
                }
            }
        }
        let add = |((level, _), table): (_, &TableMeta)| Change::AddTable { level, table: table.clone() };
        all.version = Version::default().edited(&tables.into_iter().map(add).collect::<Vec<_>>(), source)?;
        Ok(all)
    }
}
