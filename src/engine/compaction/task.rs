//! A compaction to be done: which tables, to which level, and whether they are merged, only moved, or dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::blobs::wasteful;
use crate::engine::version::{TableHandle, Version};
use crate::storage::End;
use crate::storage::names::FileNumber;

/// Tables of level 0 that one task takes, so that its memory has a bound: each is a stream of its own.
pub(crate) const MAX_L0_INPUTS: usize = 32;

/// One task rewrites neighbours up to this many full tables together, so that what is left of them is one table again.
const BATCH_TABLES: u64 = 4;

/// A moved table should have this part of a full one. Smaller ones are merged with what is near them, lest they pile up.
const SMALL_PART: u64 = 4;

/// Why a task is done; for statistics and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Level 0 has too many tables.
    Flushed,
    /// A level has too many bytes, or should have none.
    Size,
    /// Too many of its entries are of no use any more.
    Garbage,
    /// Nothing is pressing, and reads will ask fewer tables.
    Idle,
    /// A limit of [`super::Strategy::Fifo`].
    Age,
    /// Somebody asked for it.
    Asked,
}

impl Why {
    /// In the order of their numbers.
    pub(crate) const ALL: [Why; 6] = [Why::Flushed, Why::Size, Why::Garbage, Why::Idle, Why::Age, Why::Asked];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Why::Flushed => "flushed",
            Why::Size => "size",
            Why::Garbage => "garbage",
            Why::Idle => "idle",
            Why::Age => "age",
            Why::Asked => "asked",
        }
    }
}

/// What becomes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// They are merged into new ones in the target level.
    Merge,
    /// They change their level by an edit alone.
    Move,
    /// They go, with what is in them.
    Drop,
}

/// A compaction to be done; always one edit of the manifest.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) why: Why,
    pub(crate) action: Action,
    /// Tables by level, from the newest data to the oldest; those of the target level come last.
    pub(crate) inputs: Vec<(usize, Vec<Arc<TableHandle>>)>,
    /// Where the tables go.
    pub(crate) target: usize,
    /// Blob files that the values of these tables are to leave, besides those that are wasteful anyway.
    pub(crate) moving: BTreeSet<FileNumber>,
}

impl Task {
    /// Brings tables down into `target`, together with what they meet there: by an edit alone if no range meets another,
    /// unless they are small and there is something to merge them with.
    pub(crate) fn descend(
        version: &Version,
        table_bytes: u64,
        why: Why,
        mut inputs: Vec<(usize, Vec<Arc<TableHandle>>)>,
        target: usize,
    ) -> Task {
        let moving: Vec<Arc<TableHandle>> =
            inputs.iter().filter(|(level, _)| *level != target).flat_map(|(_, tables)| tables.clone()).collect();
        let small = bytes(&moving) * SMALL_PART < table_bytes * moving.len() as u64;
        if let Some((smallest, largest)) = hull(&moving) {
            let mut met = version.overlapping(target, smallest, largest);
            if met.is_empty() && small {
                met.extend(small_neighbour(version, target, largest, table_bytes));
            }
            inputs.retain(|(level, _)| *level != target);
            inputs.push((target, met));
        }
        let all: Vec<Arc<TableHandle>> = inputs.iter().flat_map(|(_, tables)| tables.clone()).collect();
        let worth_merging = small && all.len() > 1 && bytes(&all) <= table_bytes;
        if apart(all) && !worth_merging {
            inputs.retain(|(level, _)| *level != target);
            return Task { why, action: Action::Move, inputs, target, moving: BTreeSet::new() };
        }
        inputs.retain(|(_, tables)| !tables.is_empty());
        Task::merge(why, inputs, target)
    }

    /// Whether a table that would be read or moved is known to be damaged: such a one is left where it is.
    pub(crate) fn meets_damage(&self) -> bool {
        self.action != Action::Drop && self.tables().any(|(_, table)| table.damage().is_some())
    }

    /// The blob files that the values of its tables leave.
    pub(crate) fn moving(&self, version: &Version) -> BTreeSet<FileNumber> {
        match self.tables().all(|(_, table)| table.meta.blobs.is_empty()) {
            true => BTreeSet::new(),
            false => wasteful(version, false).iter().chain(&self.moving).copied().collect(),
        }
    }

    /// Merges exactly these tables.
    pub(crate) fn merge(why: Why, inputs: Vec<(usize, Vec<Arc<TableHandle>>)>, target: usize) -> Task {
        Task { why, action: Action::Merge, inputs, target, moving: BTreeSet::new() }
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableHandle>)> {
        self.inputs.iter().flat_map(|(level, tables)| tables.iter().map(move |table| (*level, table)))
    }

    /// Bytes of all inputs.
    pub(crate) fn bytes(&self) -> u64 {
        self.tables().map(|(_, table)| table.meta.size).sum()
    }

    /// Whether all inputs are still where they were.
    pub(crate) fn is_still_there(&self, version: &Version) -> bool {
        self.tables()
            .all(|(level, table)| version.levels[level].iter().any(|other| other.meta.number == table.meta.number))
    }

    /// What every task but a drop must keep: no version of a key comes to lie below an older one. A table that lies
    /// between an input and the target, or is older and stays behind in level 0, shares no key with the input.
    pub(crate) fn keeps_order(&self, version: &Version) -> bool {
        // Within level 0 nothing is passed but what is newer than the oldest input.
        let oldest = self.tables().map(|(_, table)| table.meta.last_seq).min().filter(|_| self.target == 0);
        let is_input =
            |table: &Arc<TableHandle>| self.tables().any(|(_, input)| input.meta.number == table.meta.number);
        self.action == Action::Drop
            || self.tables().all(|(level, input)| {
                let passed = version.levels[level..=self.target].iter().enumerate().flat_map(|(at, tables)| {
                    let older = move |table: &&Arc<TableHandle>| {
                        at > 0 || (table.meta.last_seq < input.meta.last_seq && Some(table.meta.last_seq) > oldest)
                    };
                    tables.iter().filter(older)
                });
                // In the target level a move meets nothing, a merge takes what it meets.
                passed
                    .into_iter()
                    .all(|table| is_input(table) || !table.overlaps(&input.meta.smallest, &input.meta.largest))
            })
    }
}

/// Bytes of these tables.
pub(crate) fn bytes(tables: &[Arc<TableHandle>]) -> u64 {
    tables.iter().map(|table| table.meta.size).sum()
}

/// A table of a level that is rewritten where it is, and those behind it for as long as they join and all are up to
/// [`BATCH_TABLES`] full ones: what is left of them may be fewer.
pub(crate) fn batch(
    tables: &[Arc<TableHandle>],
    first: &Arc<TableHandle>,
    table_bytes: u64,
    joins: impl Fn(&TableHandle) -> bool,
) -> Vec<Arc<TableHandle>> {
    let mut room = BATCH_TABLES * table_bytes;
    let mut fits = |table: &TableHandle| {
        let fits = table.meta.number == first.meta.number || table.meta.size <= room && joins(table);
        room = room.saturating_sub(table.meta.size);
        fits
    };
    let from = tables.iter().skip_while(|table| table.meta.number != first.meta.number);
    from.take_while(|table| fits(table)).cloned().collect()
}

/// The range that holds all of these tables.
fn hull(tables: &[Arc<TableHandle>]) -> Option<(&[u8], &End)> {
    let smallest = tables.iter().map(|table| &table.meta.smallest).min()?;
    let largest = tables.iter().map(|table| &table.meta.largest).max()?;
    Some((smallest, largest))
}

/// Whether no two of these tables can hold the same key.
fn apart(mut tables: Vec<Arc<TableHandle>>) -> bool {
    tables.sort_by(|a, b| a.meta.smallest.cmp(&b.meta.smallest));
    tables.windows(2).all(|pair| pair[0].meta.largest.precedes(&pair[1].meta.smallest))
}

/// Of the two tables beside the gap in which `end` lies one that is at most half full.
fn small_neighbour(version: &Version, level: usize, end: &End, table_bytes: u64) -> Option<Arc<TableHandle>> {
    let tables = &version.levels[level];
    let after = tables.partition_point(|table| !end.precedes(&table.meta.smallest));
    let beside = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|at| tables.get(at));
    let fits = |table: &&Arc<TableHandle>| table.meta.size <= table_bytes / 2 && table.damage().is_none();
    beside.filter(fits).min_by_key(|table| table.meta.size).cloned()
}
