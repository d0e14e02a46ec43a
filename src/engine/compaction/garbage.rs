//! Tables with much garbage: deletes, of keys and of ranges, overwritten versions, and values that have expired. They are rewritten although
//! their level has the size it should have, so that the space comes back without anybody writing.
//!
//! Only a table whose every entry is at or below the retention floor is looked at: with nothing of its range below it,
//! rewriting it in place drops all of its garbage for certain; else it is merged into the first level below that its
//! range meets. So each task either ends the garbage or brings it deeper, and after finitely many there is none.

use std::sync::Arc;

use super::pick::View;
use super::task::{Task, Why, batch};
use crate::engine::retention::Floor;
use crate::engine::version::{LEVELS, TableHandle, Version};
use crate::storage::manifest::TableMeta;

/// A table is due when one of this many entries is garbage ...
const SHARE: u64 = 4;

/// ... and when there is nothing better to do, of this many.
const IDLE_SHARE: u64 = 20;

/// Entries that nobody needs, about; if not 0, then at least one.
fn garbage(meta: &TableMeta, floor: Floor) -> u64 {
    meta.tombstones + meta.range_tombstones + meta.older + meta.times.expired(floor.expired)
}

/// Of so many; no table is empty.
fn all(meta: &TableMeta) -> u64 {
    meta.entries + meta.range_tombstones
}

/// The table with the greatest share of garbage, if it is enough.
pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    let share = if view.idle { IDLE_SHARE } else { SHARE };
    let due = |meta: &TableMeta| {
        // How much a range tombstone hides nobody knows: with nothing better to do, one is enough.
        let much = garbage(meta, view.floor) * share >= all(meta) || view.idle && meta.range_tombstones > 0;
        much && meta.last_seq <= view.floor.seq
    };
    let part = |meta: &TableMeta| garbage(meta, view.floor) as f64 / all(meta) as f64;
    let sorted =
        view.version.tables().filter(|(level, table)| *level > 0 && table.damage().is_none() && due(&table.meta));
    let (level, worst) = sorted.max_by(|(_, a), (_, b)| part(&a.meta).total_cmp(&part(&b.meta)))?;
    if let Some((target, met)) = first_met(view.version, level, worst) {
        return Some(Task::merge(Why::Garbage, vec![(level, vec![worst.clone()]), (target, met)], target));
    }
    let joins = |table: &TableHandle| due(&table.meta) && first_met(view.version, level, table).is_none();
    let tables = batch(&view.version.levels[level], worst, view.options.table_bytes, joins);
    Some(Task::merge(Why::Garbage, vec![(level, tables)], level))
}

/// The first level below `level` that the table's range meets, and what of it.
fn first_met(version: &Version, level: usize, table: &TableHandle) -> Option<(usize, Vec<Arc<TableHandle>>)> {
    let met = |level| (level, version.overlapping(level, &table.meta.smallest, &table.meta.largest));
    (level + 1..LEVELS).map(met).find(|(_, met)| !met.is_empty())
}

/// For a compaction of everything: the tables of the deepest level that a rewrite would make smaller.
pub(crate) fn pick_all(version: &Version, floor: Floor) -> Vec<Task> {
    let bottom = version.bottom();
    if bottom == 0 {
        return Vec::new();
    }
    let wasteful = |table: &&Arc<TableHandle>| {
        let meta = &table.meta;
        let expired = meta.earliest_expiry.is_some_and(|at| at <= floor.expired);
        let deletes = meta.tombstones > 0 || meta.range_tombstones > 0;
        table.damage().is_none() && (deletes || meta.older > 0 || expired) && meta.first_seq <= floor.seq
    };
    let tables = version.levels[bottom].iter().filter(wasteful);
    tables.map(|table| Task::merge(Why::Asked, vec![(bottom, vec![table.clone()])], bottom)).collect()
}
