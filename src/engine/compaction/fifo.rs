//! Compaction first in, first out: the oldest tables are dropped whole, nothing is rewritten.
//!
//! Tables stay in level 0, where they are ordered by age. What another strategy has left in deeper levels is older than
//! all of level 0 and goes first, the deepest level before those above it: nothing that is dropped uncovers an older
//! version.

use std::sync::Arc;
use std::time::Duration;

use super::pick::View;
use super::task::{Action, Task, Why};
use crate::engine::version::TableHandle;

pub(crate) fn pick(view: &View<'_>, max_age: Option<Duration>, max_bytes: Option<u64>) -> Option<Task> {
    let levels = &view.version.levels;
    let born = max_age.map(|age| view.now.saturating_sub(age.as_millis() as u64));
    let too_old = |table: &TableHandle| matches!((born, table.meta.times.written), (Some(born), Some(at)) if at < born);
    let total: u64 = view.version.tables().map(|(_, table)| table.meta.size).sum();
    let mut over = total.saturating_sub(max_bytes.unwrap_or(u64::MAX));
    let mut goes = |table: &TableHandle| {
        let goes = over > 0 || too_old(table);
        if goes {
            over = over.saturating_sub(table.meta.size);
        }
        goes
    };
    let level = view.version.bottom();
    let mut tables: Vec<Arc<TableHandle>> = levels[level].clone();
    tables.sort_by_key(|table| table.meta.last_seq);
    match level {
        // The tables behind one that stays stay too: they are younger.
        0 => {
            let stays = tables.iter().position(|table| !goes(table)).unwrap_or(tables.len());
            tables.truncate(stays);
        }
        _ => tables.retain(|table| goes(table)),
    }
    let inputs = (!tables.is_empty()).then(|| vec![(level, tables)])?;
    Some(Task { why: Why::Age, action: Action::Drop, inputs, target: level })
}
