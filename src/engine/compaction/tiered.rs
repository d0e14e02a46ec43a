//! Size-tiered compaction: every level below 0 is one sorted run, the deeper the older and the larger.
//!
//! When level 0 has enough tables they become a run, together with each next run that is not more than twice what has
//! been gathered so far; it goes right above the first run that stays, or into the last level. So each run that stays
//! is more than twice the one above it: there are few of them, all but the last together are smaller than the last, and
//! a byte is rewritten about once for every doubling of the data instead of ten times a level.

use super::pick::{L0_TRIGGER, LAST, View};
use super::task::{Task, bytes};

/// A run joins a merge unless it is more than this many times what has been gathered.
const JOIN_RATIO: u64 = 2;

pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    let (flushed, why) = view.level_0(view.version.levels[0].len() >= L0_TRIGGER)?;
    let mut gathered = bytes(&flushed);
    let mut inputs = vec![(0, flushed)];
    let mut target = LAST;
    for (level, run) in view.version.levels.iter().enumerate().skip(1).filter(|(_, run)| !run.is_empty()) {
        // Above level 1 there is no place for another run.
        if level > 1 && bytes(run) > gathered.saturating_mul(JOIN_RATIO) {
            target = level - 1;
            break;
        }
        gathered += bytes(run);
        inputs.push((level, run.to_vec()));
    }
    Some(Task::descend(view.version, view.options.table_bytes, why, inputs, target))
}
