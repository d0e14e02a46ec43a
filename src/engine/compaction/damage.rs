//! What is left to do where damaged tables stand in the way. They stay where they are, for a repair to find all of them;
//! what is newer must not get below what is older, so what they hold up stays above.
//!
//! That is mostly level 0. Its tables are then merged within it, lest there be ever more for each read to look into: the
//! newest ones, as long as the next is not much larger than those before it together. So a byte is rewritten about once
//! for every doubling of what has piled up.

use std::sync::Arc;

use super::pick::{L0_TRIGGER, View};
use super::task::{Task, Why};
use crate::engine::version::TableHandle;

/// A table joins unless it is more than this many times what has been gathered.
const JOIN_RATIO: u64 = 2;

pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    view.version.damage().next()?;
    let mut gathered = 0;
    let joins = |table: &&Arc<TableHandle>| {
        let joins = table.damage().is_none() && (gathered == 0 || table.meta.size <= gathered * JOIN_RATIO);
        gathered += table.meta.size;
        joins
    };
    let newest: Vec<Arc<TableHandle>> = view.version.levels[0].iter().take_while(joins).cloned().collect();
    (newest.len() >= L0_TRIGGER).then(|| Task::merge(Why::Flushed, vec![(0, newest)], 0))
}
