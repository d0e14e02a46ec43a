//! Leveled compaction with level sizes that follow the data.
//!
//! The last level holds nearly everything; each level above it may have a tenth of the one below. Going up, that ends
//! at the *base* level, whose size is about that of `level_bytes`; level 0 is merged into it, at the latest when it is as
//! large, and levels between stay empty. So what lies above the last level is at most a ninth of it: the space that overwritten data takes stays small
//! whatever the size of the database, and no table is written into a level that is nearly empty.
//!
//! ```text
//! 3 GiB of data, level_bytes 128 MiB:   0: flushed   1-4: empty   5: up to 307 MiB (base)   6: 3 GiB
//! ```
//!
//! Tables above the base are left from other days (a larger database, another strategy) and go down.

use super::pick::{L0_TRIGGER, LAST, View};
use super::task::{Task, Why, bytes};
use crate::engine::blobs::{level_bytes, stats};
use crate::engine::options::Options;
use crate::engine::version::{LEVELS, Version};

/// How much larger each level may be than the one above it.
const FACTOR: u64 = 10;

/// The base level may have up to this many times `level_bytes`; then there is another one above it. A base much smaller
/// than what is merged into it at once would only be written through.
const BASE_SLACK: u64 = 2;

/// Level 0 may point to this part of all values in blob files, or to those of one memtable.
const VALUES_PART: u64 = 12;

/// How large the levels should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Where level 0 is merged into.
    pub(crate) base: usize,
    /// The most bytes of each level; above the base none, in the last any number.
    pub(crate) limits: [u64; LEVELS],
}

impl Shape {
    pub(crate) fn of(version: &Version, level_bytes: u64) -> Shape {
        let mut size = (1..LEVELS).map(|level| version.level_bytes(level)).max().unwrap_or(0);
        let mut shape = Shape { base: LAST, limits: [0; LEVELS] };
        shape.limits[LAST] = u64::MAX;
        while shape.base > 1 && size > level_bytes.saturating_mul(BASE_SLACK) {
            shape.base -= 1;
            size /= FACTOR;
            shape.limits[shape.base] = size;
        }
        shape
    }

    /// Where tables of `level` go: into the next level with tables, at the latest into the base or the next one. What
    /// is skipped is empty, so nothing passes anything older.
    fn next(&self, version: &Version, level: usize) -> usize {
        (level + 1..LAST).find(|below| *below >= self.base || !version.levels[*below].is_empty()).unwrap_or(LAST)
    }
}

/// Bytes that are not where they should be: those of level 0, and those by which other levels are too large.
pub(crate) fn debt(version: &Version, options: &Options) -> u64 {
    let shape = Shape::of(version, options.level_bytes);
    (0..LAST).map(|level| version.level_bytes(level).saturating_sub(shape.limits[level])).sum()
}

/// Bytes of values in blob files that are garbage, or to which not the last level points: then that may still point to
/// what they have replaced.
pub(crate) fn replacing(version: &Version) -> u64 {
    stats(version).garbage_bytes + (0..LAST).map(|level| level_bytes(version, level)).sum::<u64>()
}

/// The level that is furthest over its limit.
pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    let View { version, options, .. } = *view;
    let shape = Shape::of(version, options.level_bytes);
    let score = |level: usize| {
        let bytes = version.level_bytes(level) as f64;
        match level {
            0 => {
                let tables = version.levels[0].len() as f64 / L0_TRIGGER as f64;
                // What is flushed has its share of the space, too: not more than the level it goes to, and of values in
                // blob files, where a merge costs little, not more than a part of all.
                let room = (level_bytes(version, LAST) / VALUES_PART).max(options.memtable_bytes as u64);
                let values = level_bytes(version, 0) as f64 / room as f64;
                match version.levels[0].len() {
                    0 | 1 => tables,
                    _ => tables.max(bytes / shape.limits[shape.base] as f64).max(values),
                }
            }
            // More than 1, unless it is empty.
            _ if level < shape.base => 1.0 + bytes / options.level_bytes as f64,
            _ => bytes / shape.limits[level] as f64,
        }
    };
    let (level, score) =
        (0..LAST).map(|level| (level, score(level))).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
    if level > 0 && score > 1.0 {
        return pick_of(view, &shape, level);
    }
    let (tables, why) = view.level_0(level == 0 && score >= 1.0)?;
    let target = shape.next(version, 0);
    Some(Task::descend(version, options.table_bytes, why, vec![(0, tables)], target))
}

/// From a level that is too large: all tables that meet nothing below, as far as the level is over its limit; else the
/// table that drags the fewest bytes of the next level along for each of its own.
fn pick_of(view: &View<'_>, shape: &Shape, level: usize) -> Option<Task> {
    let View { version, options, .. } = *view;
    let target = shape.next(version, level);
    let tables = &version.levels[level];
    let cost = |table: &crate::engine::version::TableHandle| {
        let met = version.overlapping(target, &table.meta.smallest, &table.meta.largest);
        if table.damage().is_some() || met.iter().any(|table| table.damage().is_some()) {
            return f64::INFINITY;
        }
        bytes(&met) as f64 / table.meta.size.max(1) as f64
    };
    let mut inputs = Vec::new();
    let mut over = version.level_bytes(level).saturating_sub(shape.limits[level]);
    for table in tables.iter() {
        if over > 0 && cost(table) == 0.0 {
            over = over.saturating_sub(table.meta.size);
            inputs.push(table.clone());
        }
    }
    if inputs.is_empty() {
        let best = tables.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        inputs.push(best.filter(|table| cost(table).is_finite())?.clone());
    }
    Some(Task::descend(version, options.table_bytes, Why::Size, vec![(level, inputs)], target))
}
