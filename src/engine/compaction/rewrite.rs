//! Merging the tables of a task into new ones.
//!
//! Everything streams: of each input a stride and a block are in memory, of the output one table's index and filter,
//! however large the task is. A large one is cut into key ranges at table boundaries, which are merged side by side;
//! nothing is installed before all of them are done.

use std::ops::Bound;
use std::sync::Arc;

use super::task::{Task, bytes};
use crate::engine::flush::value_of;
use crate::engine::merge::{Direction, Merge, Source};
use crate::engine::output::{Keep, TableOutput};
use crate::engine::shared::Shared;
use crate::engine::sources::{KeyRange, TablesSource};
use crate::engine::version::{TableHandle, Version};
use crate::engine::{Error, Result};
use crate::storage::manifest::TableMeta;
use crate::storage::sstable::ReadMode;

/// A part of a task has at least this many full tables of input: less is not worth a thread, and leaves small tables.
const PART_TABLES: u64 = 4;

/// A table meets about this part of the next level at most, or one table of it.
const MEETS_PART: u64 = 16;

impl Shared {
    /// The tables that a task's inputs become, synced. If one part fails, nothing is left of the others.
    pub(super) fn rewrite(&self, task: &Task, version: &Version) -> Result<Vec<TableMeta>> {
        let worth = task.bytes() / self.options.table_bytes.saturating_mul(PART_TABLES);
        let parts = split(task, worth.clamp(1, self.threads() as u64));
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
        let source = |tables: Vec<Arc<TableHandle>>| -> Box<dyn Source> {
            Box::new(TablesSource::new(tables, range.clone(), Direction::Forward, ReadMode::Streaming))
        };
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for (level, tables) in &task.inputs {
            let within: Vec<_> = tables.iter().filter(|table| meets(table, range)).cloned().collect();
            match level {
                0 => sources.extend(within.into_iter().map(|table| source(vec![table]))),
                _ => sources.push(source(within)),
            }
        }
        let mut merge = Merge::new(Direction::Forward, sources);
        let mut below = Below::new(version, task.target);
        let mut met = Met::new(version, task.target, self.options.table_bytes);
        let mut keep = Keep::new(&self.retention, self.options.clock.now());
        let written = task.tables().filter_map(|(_, table)| table.meta.times.written).max();
        // Within level 0 one table comes of several, and below it, unseen, lie older ones.
        let within_flushed = task.target == 0;
        let cut_at = if within_flushed { u64::MAX } else { self.options.table_bytes };
        let mut output = TableOutput::new(self, task.target, cut_at, written);
        let mut key: Vec<u8> = Vec::new();
        while merge.advance()? {
            if *merge.key() != *key {
                if range.is_behind(merge.key(), Direction::Forward) {
                    break;
                }
                key.clear();
                key.extend_from_slice(merge.key());
                keep.next_key();
                output.next_key()?;
                if !within_flushed && met.is_enough(&key) {
                    output.cut()?;
                }
                if self.is_stopping() {
                    return Err(Error::Closed);
                }
            }
            if let Some(kind) = keep.version(merge.seq(), merge.kind(), || !within_flushed && below.is_empty_at(&key)) {
                output.add(&key, merge.seq(), kind, value_of(kind, merge.value_bytes()))?;
            }
        }
        Ok(output)
    }
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

fn meets(table: &TableHandle, range: &KeyRange) -> bool {
    let above = match range.lower() {
        Bound::Included(lower) => *table.meta.largest >= *lower,
        Bound::Excluded(lower) => *table.meta.largest > *lower,
        Bound::Unbounded => true,
    };
    above && !range.is_behind(&table.meta.smallest, Direction::Forward)
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
            if before > 0 && before * parts >= total * ranges.len() as u64 {
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
struct Met<'a> {
    tables: std::iter::Peekable<std::slice::Iter<'a, Arc<TableHandle>>>,
    bytes: u64,
    enough: u64,
}

impl<'a> Met<'a> {
    fn new(version: &'a Version, target: usize, table_bytes: u64) -> Met<'a> {
        let below = version.levels[target + 1..].iter().find(|tables| !tables.is_empty());
        let below = below.map_or(&[][..], Vec::as_slice);
        Met { tables: below.iter().peekable(), bytes: 0, enough: table_bytes.max(bytes(below) / MEETS_PART) }
    }

    /// Whether the table is to end before `key`; asked for ascending keys.
    fn is_enough(&mut self, key: &[u8]) -> bool {
        while let Some(passed) = self.tables.next_if(|table| *table.meta.largest < *key) {
            self.bytes += passed.meta.size;
        }
        let enough = self.bytes > self.enough;
        if enough {
            self.bytes = 0;
        }
        enough
    }
}

/// Whether a key can be in a level deeper than a task's target. Asked for ascending keys, so it only ever moves on.
pub(super) struct Below<'a> {
    levels: Vec<std::iter::Peekable<std::slice::Iter<'a, Arc<TableHandle>>>>,
}

impl<'a> Below<'a> {
    pub(super) fn new(version: &'a Version, target: usize) -> Below<'a> {
        Below { levels: version.levels[target + 1..].iter().map(|tables| tables.iter().peekable()).collect() }
    }

    pub(super) fn is_empty_at(&mut self, key: &[u8]) -> bool {
        self.levels.iter_mut().all(|tables| {
            while tables.next_if(|table| *table.meta.largest < *key).is_some() {}
            tables.peek().is_none_or(|table| *table.meta.smallest > *key)
        })
    }
}
