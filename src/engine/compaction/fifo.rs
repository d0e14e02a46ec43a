//! Compaction first in, first out: the oldest tables are dropped whole, nothing is rewritten.
//!
//! Tables stay in level 0, where they are ordered by age. What another strategy has left in deeper levels is older than
//! all of level 0 and goes first, the deepest level before those above it: nothing that is dropped uncovers an older
//! version.

use std::collections::BTreeSet;
use std::time::Duration;

use super::pick::View;
use super::task::{Action, Task, Why};
use crate::engine::version::TableHandle;

pub(crate) fn pick(view: &View<'_>, max_age: Option<Duration>, max_bytes: Option<u64>) -> Option<Task> {
    let version = view.version;
    let born = max_age.map(|age| view.now.saturating_sub(age.as_millis() as u64));
    let too_old = |table: &TableHandle| matches!((born, table.meta.times.written), (Some(born), Some(at)) if at < born);
    // Whatever is older than a flushed table that goes, goes too, also where nobody knows when it was written.
    let horizon = version.levels[0].iter().filter(|table| too_old(table)).map(|table| table.meta.last_seq).max();
    let total: u64 = version.tables().map(|(_, table)| table.meta.bytes_with_values()).sum();
    let mut over = total.saturating_sub(max_bytes.unwrap_or(u64::MAX));
    let level = version.bottom();
    let mut tables = version.levels[level].to_vec();
    tables.sort_by_key(|table| table.meta.last_seq);
    // Of level 0 that leaves the younger ones: what goes for its age or for the bytes is its oldest part.
    tables.retain(|table| {
        let goes = over > 0 || too_old(table) || Some(table.meta.last_seq) <= horizon;
        over = over.saturating_sub(if goes { table.meta.bytes_with_values() } else { 0 });
        goes
    });
    (!tables.is_empty()).then(|| Task {
        why: Why::Age,
        action: Action::Drop,
        inputs: vec![(level, tables)],
        target: level,
        moving: BTreeSet::new(),
    })
}
