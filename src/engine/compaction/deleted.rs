//! Tables of which range tombstones have left nothing: they are dropped without being read, so that a range delete gives
//! its space back at once, however large it was.
//!
//! A table goes if newer range tombstones, which nobody at or above the retention floor can look behind, cover it from end
//! to end. Those tombstones stay where they are, until compaction finds nothing below them: so nothing that lies deeper
//! is uncovered, neither by the entries that go nor by the table's own range tombstones, which hide nothing more.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rewrite::is_deleted;
use super::task::{Action, Task, Why};
use crate::codec::SeqNo;
use crate::engine::range_tombstones::RangeTombstones;
use crate::engine::version::{TableHandle, Version};

pub(crate) fn pick(version: &Version, floor: SeqNo) -> Option<Task> {
    let mut all = RangeTombstones::default();
    for (_, table) in version.tables().filter(|(_, table)| table.meta.first_seq <= floor) {
        // One that cannot be read hides nothing, for now; what is wrong with it is known from here on.
        let Ok(ranges) = table.ranges() else { continue };
        for fragment in ranges.iter() {
            all.add(&fragment.start, fragment.end.as_deref(), &fragment.seqs, floor);
        }
    }
    if all.is_empty() {
        return None;
    }
    let ranges = all.fragments();
    let gone = |tables: &[Arc<TableHandle>]| -> Vec<Arc<TableHandle>> {
        tables.iter().filter(|table| is_deleted(&table.meta, &ranges, floor)).cloned().collect()
    };
    let inputs = version.levels.iter().map(|tables| gone(tables)).enumerate();
    let inputs: Vec<_> = inputs.filter(|(_, tables)| !tables.is_empty()).collect();
    let target = inputs.last()?.0;
    Some(Task { why: Why::Garbage, action: Action::Drop, inputs, target, moving: BTreeSet::new() })
}
