//! Compaction: which tables to merge (a pure function), and merging them.
//!
//! Leveled: level 0 takes flushed memtables; once it has [`L0_TRIGGER`] of them they are merged into level 1. A deeper
//! level that outgrows its size gives the table that overlaps the next level least to it. A table that overlaps nothing
//! there just changes its level.
//!
//! One compaction runs at a time, so its inputs stay in the version until its own edit removes them; only flushes come
//! in between, and they add to level 0 what is newer than every input.

use std::sync::Arc;

use tracing::info;

use super::flush::value_of;
use super::merge::{Direction, Merge, Source};
use super::options::Options;
use super::output::{Keep, TableOutput};
use super::shared::Shared;
use super::sources::{KeyRange, TablesSource};
use super::version::{LEVELS, TableHandle, Version};
use super::{Error, Result, SeqNo};
use crate::storage::manifest::Change;
use crate::storage::sstable::ReadMode;

/// Tables in level 0 that are merged into level 1: fewer and level 1 is rewritten too often, more and every read looks
/// into each of them.
pub(crate) const L0_TRIGGER: usize = 4;

/// How much larger each level may be than the one above it.
const LEVEL_FACTOR: u64 = 10;

/// A compaction to be done.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Where the inputs are.
    pub(crate) level: usize,
    pub(crate) inputs: Vec<Arc<TableHandle>>,
    /// Where the output goes; the same level for a rewrite in place.
    pub(crate) target: usize,
    /// The tables of the target level that are merged in.
    pub(crate) overlap: Vec<Arc<TableHandle>>,
}

impl Task {
    fn new(version: &Version, level: usize, inputs: Vec<Arc<TableHandle>>, target: usize) -> Task {
        let smallest = inputs.iter().map(|table| &table.meta.smallest).min();
        let largest = inputs.iter().map(|table| &table.meta.largest).max();
        let overlap = match (smallest, largest) {
            (Some(smallest), Some(largest)) if target != level => version.overlapping(target, smallest, largest),
            _ => Vec::new(),
        };
        Task { level, inputs, target, overlap }
    }

    /// Whether the input only has to change its level.
    fn is_move(&self) -> bool {
        self.inputs.len() == 1 && self.overlap.is_empty() && self.target != self.level
    }
}

/// The most bytes that a level (1 or deeper) should hold.
fn level_limit(options: &Options, level: usize) -> u64 {
    options.level_bytes.saturating_mul(LEVEL_FACTOR.saturating_pow(level as u32 - 1))
}

/// What to compact next, if anything: the level that is furthest over its limit.
pub(crate) fn pick(version: &Version, options: &Options) -> Option<Task> {
    let score = |level: usize| match level {
        0 => version.levels[0].len() as f64 / L0_TRIGGER as f64,
        _ => version.level_bytes(level) as f64 / level_limit(options, level) as f64,
    };
    let (level, score) =
        (0..LEVELS - 1).map(|level| (level, score(level))).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
    if score < 1.0 || (level > 0 && score <= 1.0) {
        return None;
    }
    if level == 0 {
        return Some(Task::new(version, 0, version.levels[0].clone(), 1));
    }
    // The table that drags the fewest bytes of the next level along for each of its own.
    let cost = |table: &Arc<TableHandle>| {
        let overlap = version.overlapping(level + 1, &table.meta.smallest, &table.meta.largest);
        overlap.iter().map(|table| table.meta.size).sum::<u64>() as f64 / table.meta.size.max(1) as f64
    };
    let table = version.levels[level].iter().min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
    Some(Task::new(version, level, vec![table.clone()], level + 1))
}

/// For a compaction of everything: the next step that moves the tables of `level` into the one below.
pub(crate) fn pick_from(version: &Version, level: usize) -> Option<Task> {
    let tables = &version.levels[level];
    let inputs = if level == 0 { tables.clone() } else { tables.first().cloned().into_iter().collect() };
    (!inputs.is_empty()).then(|| Task::new(version, level, inputs, level + 1))
}

/// For a compaction of everything: the tables of the deepest level that a rewrite would make smaller.
pub(crate) fn pick_garbage(version: &Version, floor: SeqNo, now: u64) -> Vec<Task> {
    let bottom = version.bottom();
    if bottom == 0 {
        return Vec::new();
    }
    let wasteful = |table: &&Arc<TableHandle>| {
        let meta = &table.meta;
        let expired = meta.earliest_expiry.is_some_and(|at| at <= now);
        (meta.tombstones > 0 || meta.older > 0 || expired) && meta.first_seq <= floor
    };
    let tables = version.levels[bottom].iter().filter(wasteful);
    tables.map(|table| Task::new(version, bottom, vec![table.clone()], bottom)).collect()
}

impl Shared {
    /// Does one compaction if one is due. Whether it did.
    pub(crate) fn compact_if_due(&self) -> Result<bool> {
        let _turn = self.compacting.lock();
        match pick(&self.state().version, &self.options) {
            Some(task) => self.run(&task).map(|()| true),
            None => Ok(false),
        }
    }

    /// Flushes, then merges everything down to the deepest level in use. Others get their turn between the steps.
    pub(crate) fn compact_all(&self) -> Result<()> {
        self.flush_all()?;
        let bottom = self.state().version.bottom().max(1);
        for level in 0..bottom {
            // What is flushed or moved here meanwhile is not this call's business, or it might never end.
            let upto = self.state().version.last_seq();
            loop {
                let _turn = self.compacting.lock();
                let version = self.state().version.clone();
                let Some(task) = pick_from(&version, level) else { break };
                if task.inputs.iter().all(|table| table.meta.first_seq > upto) {
                    break;
                }
                self.run(&task)?;
            }
        }
        let garbage = pick_garbage(&self.state().version, self.retention.floor(), self.options.clock.now());
        for task in garbage {
            let _turn = self.compacting.lock();
            let version = self.state().version.clone();
            let still_there = |table: &Arc<TableHandle>| {
                version.levels[task.level].iter().any(|other| other.meta.number == table.meta.number)
            };
            if task.inputs.iter().all(still_there) {
                self.run(&task)?;
            }
        }
        Ok(())
    }

    /// Merges the task's tables and installs the result in one edit. The caller holds the turn.
    fn run(&self, task: &Task) -> Result<()> {
        let started = std::time::Instant::now();
        let mut edit = Vec::new();
        for (level, tables) in [(task.level, &task.inputs), (task.target, &task.overlap)] {
            let drops = tables.iter().map(|table| Change::DropTable { level: level as u8, number: table.meta.number });
            edit.extend(drops);
        }
        let read: u64 = task.inputs.iter().chain(&task.overlap).map(|table| table.meta.size).sum();
        let target = task.target as u8;
        let mut written = 0;
        if task.is_move() {
            edit.push(Change::AddTable { level: target, table: task.inputs[0].meta.clone() });
        } else {
            let tables = self.merge_tables(task)?;
            written = tables.iter().map(|table| table.size).sum();
            edit.extend(tables.into_iter().map(|table| Change::AddTable { level: target, table }));
        }
        self.catalog.commit(edit, |version| self.install(version))?;
        super::stats::add(&self.counters.compactions, 1);
        super::stats::add(&self.counters.compaction_read_bytes, if task.is_move() { 0 } else { read });
        super::stats::add(&self.counters.compaction_written_bytes, written);
        info!(
            level = task.level,
            target = task.target,
            inputs = task.inputs.len(),
            overlap = task.overlap.len(),
            read,
            written,
            took = ?started.elapsed(),
            "compaction finished"
        );
        Ok(())
    }

    fn merge_tables(&self, task: &Task) -> Result<Vec<crate::storage::manifest::TableMeta>> {
        let version = self.state().version.clone();
        let source = |tables: Vec<Arc<TableHandle>>| -> Box<dyn Source> {
            Box::new(TablesSource::new(tables, KeyRange::all(), Direction::Forward, ReadMode::Streaming))
        };
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        match task.level {
            0 => sources.extend(task.inputs.iter().map(|table| source(vec![table.clone()]))),
            _ => sources.push(source(task.inputs.clone())),
        }
        sources.push(source(task.overlap.clone()));
        let mut merge = Merge::new(Direction::Forward, sources);

        let mut below = Below::new(&version, task);
        let mut keep = Keep::new(&self.retention, self.options.clock.now());
        let mut output = TableOutput::new(self, self.options.table_bytes);
        let mut key: Vec<u8> = Vec::new();
        let mut steps = 0u32;
        while merge.advance()? {
            if *merge.key() != *key {
                key.clear();
                key.extend_from_slice(merge.key());
                keep.next_key();
                output.next_key()?;
                steps = steps.wrapping_add(1);
                if steps.is_multiple_of(STEPS_BETWEEN_LOOKS) && self.is_stopping() {
                    return Err(Error::Closed);
                }
            }
            if let Some(kind) = keep.version(merge.seq(), merge.kind(), || below.is_empty_at(&key)) {
                output.add(&key, merge.seq(), kind, value_of(kind, merge.value_bytes()))?;
            }
        }
        output.finish()
    }
}

/// Keys after which a compaction looks whether the database is being closed.
const STEPS_BETWEEN_LOOKS: u32 = 4096;

/// Whether a key can be in a level deeper than a task's target. Asked for ascending keys, so it only ever moves on.
struct Below<'a> {
    levels: Vec<std::iter::Peekable<std::slice::Iter<'a, Arc<TableHandle>>>>,
}

impl<'a> Below<'a> {
    fn new(version: &'a Version, task: &Task) -> Below<'a> {
        Below { levels: version.levels[task.target + 1..].iter().map(|tables| tables.iter().peekable()).collect() }
    }

    fn is_empty_at(&mut self, key: &[u8]) -> bool {
        self.levels.iter_mut().all(|tables| {
            while tables.next_if(|table| *table.meta.largest < *key).is_some() {}
            tables.peek().is_none_or(|table| *table.meta.smallest > *key)
        })
    }
}
