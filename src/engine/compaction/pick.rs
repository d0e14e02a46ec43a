//! Picking: what to compact next, as a pure function of what is known. Each strategy has its own idea of what is due;
//! that tables full of garbage are rewritten is common to all that merge.

use std::sync::Arc;

use super::task::{MAX_L0_INPUTS, Task, Why};
use super::{Strategy, damage, fifo, garbage, leveled, tiered, values};
use crate::engine::options::Options;
use crate::engine::retention::Floor;
use crate::engine::version::{LEVELS, TableHandle, Version};

/// The deepest level.
pub(crate) const LAST: usize = LEVELS - 1;

/// Tables in level 0 that are merged down: fewer and the next level is rewritten too often, more and every read looks
/// into each of them.
pub(crate) const L0_TRIGGER: usize = 4;

/// All that picking depends on.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) version: &'a Version,
    pub(crate) options: &'a Options,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// The retention floor.
    pub(crate) floor: Floor,
    /// Whether nothing has been flushed for a while: then less is reason enough.
    pub(crate) idle: bool,
}

/// What to compact next, if anything is due. After finitely many tasks nothing is.
pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    let due = match view.options.compaction {
        Strategy::Leveled => leveled::pick(view),
        Strategy::Tiered => tiered::pick(view),
        Strategy::Fifo { max_age, max_bytes } => return fifo::pick(view, max_age, max_bytes),
    };
    let sound = |task: &Task| !task.meets_damage();
    due.filter(sound)
        .or_else(|| garbage::pick(view).filter(sound))
        .or_else(|| values::pick(view))
        .or_else(|| damage::pick(view))
}

impl View<'_> {
    /// Of level 0 what one task takes, if it is due or nothing else is: its oldest tables.
    pub(crate) fn level_0(&self, due: bool) -> Option<(Vec<Arc<TableHandle>>, Why)> {
        let tables = &self.version.levels[0];
        let why = if due { Why::Flushed } else { Why::Idle };
        (!tables.is_empty() && (due || self.idle)).then(|| (oldest(tables), why))
    }
}

/// As many of the oldest tables of level 0 as one task takes.
fn oldest(tables: &[Arc<TableHandle>]) -> Vec<Arc<TableHandle>> {
    tables[tables.len().saturating_sub(MAX_L0_INPUTS)..].to_vec()
}

/// For a compaction of everything: the next step that moves the tables of `level` into the next one with any, or the
/// last.
pub(crate) fn pick_from(version: &Version, table_bytes: u64, level: usize) -> Option<Task> {
    let tables = &version.levels[level];
    let target = (level + 1..LAST).find(|below| !version.levels[*below].is_empty()).unwrap_or(LAST);
    let task = |inputs| Task::descend(version, table_bytes, Why::Asked, vec![(level, inputs)], target);
    let sound = |task: &Task| !task.meets_damage();
    match level {
        0 => (!tables.is_empty()).then(|| task(oldest(tables))).filter(sound),
        _ => tables.iter().map(|table| task(vec![table.clone()])).find(sound),
    }
}
