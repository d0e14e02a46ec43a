//! Merging the tables of a task into new ones.
//!
//! Everything streams: of each input a stride and a block are in memory, of the output one table's index and filter,
//! however large the task is. A large one is cut into key ranges at table boundaries, which are merged side by side;
//! nothing is installed before all of them are done.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::task::{Task, bytes};
use crate::engine::covers::Hidden;
use crate::engine::flush::value_of;
use crate::engine::merge::{Direction, Merge, Source};
use crate::engine::output::{Keep, TableOutput};
use crate::engine::range_tombstones::{Cursor, RangeTombstones};
use crate::engine::shared::Shared;
use crate::engine::sources::{KeyRange, TablesSource};
use crate::engine::version::{TableHandle, Tables, Version};
use crate::engine::{Error, Result, SeqNo};
use crate::storage::blob::Pointer;
use crate::storage::manifest::TableMeta;
use crate::storage::names::FileNumber;
use crate::storage::sstable::ReadMode;
use crate::storage::{Edge, End, Fragment, Fragments, Kind};

/// A part of a task has at least this many full tables of input: less is not worth a thread, and leaves small tables.
const PART_TABLES: u64 = 4;

/// A table meets about this part of the next level at most, or one table of it.
const MEETS_PART: u64 = 16;

impl Shared {
    /// The tables that a task's inputs become, synced. If one part fails, nothing is left of the others.
    pub(super) fn rewrite(&self, task: &Task, version: &Version) -> Result<Vec<TableMeta>> {
        let parts = split(task, worth(task.bytes(), self.options.table_bytes, self.threads()));
        let merge = |part| self.rewrite_part(task, version, part);
        let outputs: Vec<Result<TableOutput<'_>>> =
            if self.options.stepped { parts.iter().map(merge).collect() } else { side_by_side(&parts, merge) };
        // An output that is dropped unfinished deletes its tables.
        TableOutput::finish_all(outputs.into_iter().collect::<Result<_>>()?)
    }

    /// Threads that one task may use.
    fn threads(&self) -> usize {
        let wanted = self.options.compaction_threads;
        // A test that must be repeatable asks nothing of the machine.
        if self.options.stepped {
            wanted
        } else {
            wanted.min(std::thread::available_parallelism().map_or(1, usize::from))
        }
    }

    /// The part of a task's output whose keys are in `range`.
    fn rewrite_part(&self, task: &Task, version: &Version, range: &KeyRange) -> Result<TableOutput<'_>> {
        let mut keep = Keep::new(self.retention.floor_now());
        let floor = keep.floor();
        // Within level 0 one table comes of several, and below it, unseen, lie older ones.
        let within_flushed = task.target == 0;
        let ranges = gather(task, range, floor)?;
        let source = |tables: Vec<Arc<TableHandle>>| {
            Box::new(TablesSource::new(tables, range.clone(), Direction::Forward, ReadMode::Streaming))
        };
        let mut sources = Vec::new();
        for (level, tables) in &task.inputs {
            let is_read = |table: &&Arc<TableHandle>| range.meets(table) && !is_deleted(&table.meta, &ranges, floor);
            let within: Vec<_> = tables.iter().filter(is_read).cloned().collect();
            match level {
                0 => sources.extend(within.into_iter().map(|table| source(vec![table]))),
                _ => sources.push(source(within)),
            }
        }
        let mut merge = Merge::new(Direction::Forward, sources);
        let mut below = Below::new(version, task.target);
        let mut met = Met::new(version, task.target, self.options.table_bytes);
        let written = task.tables().filter_map(|(_, table)| table.meta.times.written).max();
        let cut_at = if within_flushed { u64::MAX } else { self.options.table_bytes };
        let needed = if within_flushed { ranges.clone() } else { below.still_needed(&ranges, floor) };
        let known = task.tables().flat_map(|(_, table)| &table.meta.blobs);
        let mut output = TableOutput::new(self, task.target, cut_at, written, needed, known);
        let moving = task.moving(version);
        let mut deleted = Cursor::new(&ranges, floor);
        let mut hidden = Hidden::default();
        let mut key: Vec<u8> = Vec::new();
        let mut more = merge.advance()?;
        while more {
            if *merge.key() != *key {
                if range.is_behind(merge.key(), Direction::Forward) {
                    break;
                }
                key.clear();
                key.extend_from_slice(merge.key());
                keep.next_key();
                output.next_key(&key)?;
                if !within_flushed && met.is_enough(&key) {
                    output.cut(&key)?;
                }
                if self.is_stopping() {
                    return Err(Error::Closed);
                }
            }
            let seq = merge.seq();
            let is_bottom = || !within_flushed && below.is_empty_at(&key);
            let span = deleted.span(&key);
            if let Some(kind) = keep.version(seq, merge.kind(), span.newest, is_bottom) {
                match kind {
                    Kind::PutFar { expires_at } if points_into(&moving, merge.stored()) => {
                        output.add(&key, seq, Kind::Put { expires_at }, &merge.value()?)?;
                    }
                    kind => output.add(&key, seq, kind, value_of(kind, merge.stored()))?,
                }
            }
            more = match span.newest.filter(|newest| seq < *newest && hidden.is_enough(span)) {
                Some(newest) => merge.skip(span.end.as_deref(), newest)?,
                None => merge.advance()?,
            };
        }
        Ok(output)
    }
}

/// How many parts a task of so many bytes is worth.
pub(super) fn worth(bytes: u64, table_bytes: u64, threads: usize) -> u64 {
    (bytes / table_bytes.saturating_mul(PART_TABLES)).clamp(1, threads as u64)
}

/// Whether an entry with this pointer has its value in one of these files.
fn points_into(files: &BTreeSet<FileNumber>, pointer: &[u8]) -> bool {
    Pointer::decode(pointer).is_some_and(|pointer| files.contains(&pointer.file))
}

/// Does `work` for each part, the first on this thread and each other one on a thread of its own, or here too where no
/// thread can be had.
fn side_by_side<'a, P: Sync, T: Send>(parts: &'a [P], work: impl Fn(&'a P) -> T + Sync) -> Vec<T> {
    let Some((first, others)) = parts.split_first() else { return Vec::new() };
    let work = &work;
    std::thread::scope(|scope| {
        let spawn = |part| {
            let thread = std::thread::Builder::new().name("chronos-compact".to_owned());
            thread.spawn_scoped(scope, move || work(part)).map_err(|_| part)
        };
        let others: Vec<_> = others.iter().map(spawn).collect();
        let first = work(first);
        let others = others.into_iter().map(|begun| match begun {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(part) => work(part),
        });
        std::iter::once(first).chain(others).collect()
    })
}

/// Up to `parts` key ranges that together are everything, cut where tables of the task's largest level begin, so that
/// each part has about as many bytes of it.
pub(super) fn split(task: &Task, parts: u64) -> Vec<KeyRange> {
    let sorted = task.inputs.iter().filter(|(level, _)| *level > 0).map(|(_, tables)| tables);
    let mut ranges = vec![KeyRange::all()];
    if let Some(tables) = sorted.max_by_key(|tables| bytes(tables)) {
        let total = bytes(tables);
        let mut before = 0;
        for table in tables {
            if before * parts >= total * ranges.len() as u64 {
                let cut = table.meta.smallest.to_vec();
                if let Some(last) = ranges.last_mut() {
                    last.upper = Bound::Excluded(cut.clone());
                }
                ranges.push(KeyRange { lower: Bound::Included(cut), upper: Bound::Unbounded });
            }
            before += table.meta.size;
        }
    }
    ranges
}

/// What of the next level below the target the table being written meets. It is cut before that gets too much: the table
/// will be merged with all of it, and while that lasts the old and the new take space beside each other.
pub(super) struct Met<'a> {
    tables: std::iter::Peekable<std::slice::Iter<'a, Arc<TableHandle>>>,
    bytes: u64,
    enough: u64,
}

impl<'a> Met<'a> {
    pub(super) fn new(version: &'a Version, target: usize, table_bytes: u64) -> Met<'a> {
        let below = version.levels[target + 1..].iter().find(|tables| !tables.is_empty());
        let below = below.map_or(&[][..], |tables| &tables[..]);
        Met { tables: below.iter().peekable(), bytes: 0, enough: table_bytes.max(bytes(below) / MEETS_PART) }
    }

    /// Whether the table is to end before `key`; asked for ascending keys.
    pub(super) fn is_enough(&mut self, key: &[u8]) -> bool {
        while let Some(passed) = self.tables.next_if(|table| table.meta.largest.precedes(key)) {
            self.bytes += passed.meta.size;
        }
        let enough = self.bytes > self.enough;
        if enough {
            self.bytes = 0;
        }
        enough
    }
}

/// What can be in a level deeper than a task's target. Asked about keys, they must ascend: it only ever moves on.
pub(super) struct Below<'a> {
    deeper: &'a [Tables],
    levels: Vec<std::iter::Peekable<std::slice::Iter<'a, Arc<TableHandle>>>>,
}

impl<'a> Below<'a> {
    pub(super) fn new(version: &'a Version, target: usize) -> Below<'a> {
        let deeper = &version.levels[target + 1..];
        Below { deeper, levels: deeper.iter().map(|tables| tables.iter().peekable()).collect() }
    }

    pub(super) fn is_empty_at(&mut self, key: &[u8]) -> bool {
        self.levels.iter_mut().all(|tables| {
            while tables.next_if(|table| table.meta.largest.precedes(key)).is_some() {}
            tables.peek().is_none_or(|table| *table.meta.smallest > *key)
        })
    }

    /// What of range tombstones must stay for the sake of deeper levels, or of readers. The newest position at or below
    /// the floor hides nothing in the output: what it did hide there was left out. It stays where deeper tables can hold
    /// something to hide.
    fn still_needed(&self, ranges: &Fragments, floor: SeqNo) -> Fragments {
        let mut needed = Vec::new();
        for fragment in ranges.iter() {
            let above = fragment.seqs.partition_point(|seq| *seq > floor);
            let newer = Fragment { seqs: fragment.seqs[..above].to_vec(), ..fragment.clone() };
            let whole = self.part_with_tables(fragment);
            let mut add = |part: Option<Fragment>| needed.extend(part.filter(|part| !part.seqs.is_empty()));
            match whole {
                None => add(Some(newer)),
                Some(part) => {
                    add(newer.within(b"", Some(&part.start)));
                    let behind = part.end.as_deref().and_then(|end| newer.within(end, None));
                    add(Some(part));
                    add(behind);
                }
            }
        }
        Fragments::new(needed)
    }

    /// The fragment from the first deeper table that it meets to the last.
    fn part_with_tables(&self, fragment: &Fragment) -> Option<Fragment> {
        let end = End::before(fragment.end.as_deref());
        let met = |tables: &'a Tables| {
            let first = tables.partition_point(|table| table.meta.largest.precedes(&fragment.start));
            let behind = tables.partition_point(|table| !end.precedes(&table.meta.smallest));
            tables.get(first..behind).filter(|met| !met.is_empty())
        };
        let met = || self.deeper.iter().filter_map(met);
        let smallest = met().map(|tables| &tables[0].meta.smallest).min()?;
        let largest = met().map(|tables| &tables[tables.len() - 1].meta.largest).max()?;
        fragment.within(smallest, largest.bound().as_deref())
    }
}

/// The range tombstones of a task's inputs within `range`, without what nobody at or above `floor` can read.
fn gather(task: &Task, range: &KeyRange, floor: SeqNo) -> Result<Fragments> {
    let bound = |bound: Bound<&[u8]>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(Edge::from(key)),
        Bound::Unbounded => None,
    };
    // Parts of a task include their lower bound and not their upper one.
    let (lower, upper) = (bound(range.lower()).unwrap_or_default(), bound(range.upper()));
    let mut all = RangeTombstones::default();
    for (_, table) in task.tables().filter(|(_, table)| table.has_ranges()) {
        for part in table.ranges()?.iter().filter_map(|fragment| fragment.within(&lower, upper.as_deref())) {
            all.add(&part.start, part.end.as_deref(), &part.seqs, floor);
        }
    }
    Ok(all.fragments())
}

/// Whether nobody at or above `floor` can read anything of a table: newer range tombstones cover it from end to end. Its
/// own hide nothing that those do not.
pub(super) fn is_deleted(table: &TableMeta, ranges: &Fragments, floor: SeqNo) -> bool {
    !ranges.is_empty() && ranges.cover(&table.smallest, &table.largest, floor) > Some(table.last_seq)
}
