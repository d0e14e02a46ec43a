//! Blob files of the tree: one handle each, shared by all tables that point into it.
//!
//! **When a file goes.** A blob file is part of the database as long as a table of the version in force points into it;
//! nothing else is recorded of it. The edit that drops the last such table makes it obsolete, and it is deleted when the
//! last table handle that holds it is gone: whoever reads an older version still finds its values. A file that was being
//! written when the process ended is named by no table, and the next start deletes it.
//!
//! **What is garbage.** Each table knows how many bytes of a file it points to. The rest of the file belongs to entries
//! that compaction has dropped. Once that is too much, compaction writes the values that are still pointed to into a new
//! file, a few tables at a time, until no table points into the old one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, Weak};

use super::Result;
use super::stats::BlobStats;
use super::version::{Deleter, TableHandle, Version};
use crate::codec::Slice;
use crate::codec::defect::{Defect, seeded};
use crate::storage::blob::{BlobFile, BlobUse, Pointer, add_up};
use crate::storage::manifest::TableMeta;
use crate::storage::names::{FileName, FileNumber};
use crate::storage::{Error, FilePool};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// When this part of a file is garbage, compaction moves the values that it meets out of it, and goes and looks for them ...
const WASTE_PERCENT: u64 = 25;

/// ... or when this part of all files is, beginning with the worst. More would write less, and less take less space.
const TOTAL_WASTE_PERCENT: u64 = 15;

/// ... and this part of a file, when there is nothing better to do.
const IDLE_WASTE_PERCENT: u64 = 10;

/// Of all values such a part moves at a time, or one file: as long as a file is not empty, its values take space twice.
const MOVED_PART: u64 = 16;

/// A blob file that tables point into.
pub(crate) struct BlobHandle {
    number: FileNumber,
    deleter: Arc<Deleter>,
    files: Arc<FilePool>,
    opened: OnceLock<BlobFile>,
    /// Whether an edit that drops the last table that points into it is durable.
    obsolete: AtomicBool,
}

impl BlobHandle {
    pub(crate) fn number(&self) -> FileNumber {
        self.number
    }

    pub(crate) fn read(&self, pointer: Pointer) -> Result<Slice> {
        if let Some(blob) = self.opened.get() {
            return Ok(blob.read(pointer)?);
        }
        let name = FileName::Blob(self.number).to_string();
        let file = self.files.open(&name).map_err(Error::io(&name, "open"))?;
        let opened = BlobFile::open(file, self.number)?;
        // Two threads may both do so, one result is kept.
        Ok(self.opened.get_or_init(|| opened).read(pointer)?)
    }

    /// No table of a version that a restart could find points into it.
    fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for BlobHandle {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.deleter.delete(FileName::Blob(self.number));
        }
    }
}

/// The handles of all tables, so that two tables that point into one file share one.
#[derive(Default)]
pub(crate) struct Blobs {
    handles: Mutex<Handles>,
}

#[derive(Default)]
struct Handles {
    by_number: HashMap<FileNumber, Weak<BlobHandle>>,
    /// Those of files that are gone are let go once there are so many in all.
    clean_at: usize,
}

impl Blobs {
    /// The handles of the files that `uses` names.
    pub(crate) fn handles(
        &self,
        deleter: &Arc<Deleter>,
        files: &Arc<FilePool>,
        uses: &[BlobUse],
    ) -> Box<[Arc<BlobHandle>]> {
        if uses.is_empty() {
            return Box::default();
        }
        let mut handles = self.handles.lock();
        let Handles { by_number, clean_at } = &mut *handles;
        if by_number.len() >= *clean_at {
            by_number.retain(|_, handle| handle.strong_count() > 0);
            *clean_at = 2 * by_number.len() + 1;
        }
        let handle = |blob: &BlobUse| {
            by_number.get(&blob.file).and_then(Weak::upgrade).unwrap_or_else(|| {
                let handle = Arc::new(BlobHandle {
                    number: blob.file,
                    deleter: deleter.clone(),
                    files: files.clone(),
                    opened: OnceLock::new(),
                    obsolete: AtomicBool::new(false),
                });
                by_number.insert(blob.file, Arc::downgrade(&handle));
                handle
            })
        };
        uses.iter().map(handle).collect()
    }
}

/// What all tables of a version together point to.
pub(crate) fn uses(version: &Version) -> BTreeMap<FileNumber, BlobUse> {
    add_up(version.tables().flat_map(|(_, table)| &table.meta.blobs))
}

pub(crate) fn stats(version: &Version) -> BlobStats {
    let add = |all: BlobStats, blob: BlobUse| BlobStats {
        files: all.files + 1,
        bytes: all.bytes + blob.file_bytes,
        garbage_bytes: all.garbage_bytes + blob.garbage(),
    };
    uses(version).into_values().fold(BlobStats::default(), add)
}

/// Bytes of values in blob files to which the tables of a level point.
pub(crate) fn level_bytes(version: &Version, level: usize) -> u64 {
    version.levels[level].iter().flat_map(|table| &table.meta.blobs).map(|blob| blob.used_bytes).sum()
}

/// The files with so much garbage that their values should move: from the worst on as many as go at a time.
pub(crate) fn wasteful(version: &Version, idle: bool) -> Vec<FileNumber> {
    let all = stats(version);
    let percent = match idle {
        true => IDLE_WASTE_PERCENT,
        // Then one file at least has so much.
        false if all.garbage_bytes * 100 >= all.bytes * TOTAL_WASTE_PERCENT => TOTAL_WASTE_PERCENT,
        false => WASTE_PERCENT,
    };
    worst(with_garbage(version, percent), &all)
}

/// For a compaction of everything: of these files the worst, as many as go at a time.
pub(crate) fn wasteful_of(version: &Version, files: &BTreeSet<FileNumber>) -> Vec<FileNumber> {
    let there = with_garbage(version, IDLE_WASTE_PERCENT).into_iter().filter(|blob| files.contains(&blob.file));
    worst(there.collect(), &stats(version))
}

/// All files that a compaction of everything empties.
pub(crate) fn all_wasteful(version: &Version) -> BTreeSet<FileNumber> {
    with_garbage(version, IDLE_WASTE_PERCENT).into_iter().map(|blob| blob.file).collect()
}

fn with_garbage(version: &Version, percent: u64) -> Vec<BlobUse> {
    let much = |blob: &BlobUse| blob.garbage() * 100 >= blob.file_bytes * percent;
    uses(version).into_values().filter(much).collect()
}

fn worst(mut files: Vec<BlobUse>, all: &BlobStats) -> Vec<FileNumber> {
    let part = |blob: &BlobUse| blob.garbage() as f64 / blob.file_bytes as f64;
    files.sort_by(|a, b| part(b).total_cmp(&part(a)));
    let mut moved = 0;
    let mut fits = |blob: &BlobUse| {
        let first = moved == 0;
        moved += blob.used_bytes;
        first || moved <= (all.bytes - all.garbage_bytes) / MOVED_PART
    };
    files.into_iter().take_while(|blob| fits(blob)).map(|blob| blob.file).collect()
}

/// The files that these tables point into and no table of `version` does.
pub(crate) fn new_files<'a>(
    version: &Version,
    tables: impl Iterator<Item = &'a TableMeta>,
) -> BTreeMap<FileNumber, u64> {
    let mut files: BTreeMap<FileNumber, u64> =
        tables.flat_map(|table| &table.blobs).map(|blob| (blob.file, blob.file_bytes)).collect();
    if !files.is_empty() {
        version.tables().flat_map(|(_, table)| &table.meta.blobs).for_each(|blob| {
            files.remove(&blob.file);
        });
    }
    files
}

/// What was written for these tables, which are to join `version`: they themselves and the values put apart for them.
pub(crate) fn written_bytes(version: &Version, tables: &[TableMeta]) -> u64 {
    tables.iter().map(|table| table.size).sum::<u64>() + new_files(version, tables.iter()).values().sum::<u64>()
}

/// Marks the files of `dropped` into which no table of `version` points.
pub(crate) fn mark_obsolete<'a>(version: &Version, dropped: impl Iterator<Item = &'a Arc<TableHandle>>) {
    let mut files: HashMap<FileNumber, &Arc<BlobHandle>> =
        dropped.flat_map(|table| table.blobs()).map(|blob| (blob.number, blob)).collect();
    let early = seeded(Defect::BlobDeletedEarly);
    if !early {
        version.tables().flat_map(|(_, table)| &table.meta.blobs).for_each(|blob| {
            files.remove(&blob.file);
        });
    }
    for blob in files.into_values() {
        blob.mark_obsolete();
        if early {
            blob.deleter.delete(FileName::Blob(blob.number));
        }
    }
}
