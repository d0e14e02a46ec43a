//! Blob files with much garbage: the tables that point into them are rewritten where they are, and their values move to
//! new files. Each task leaves one table fewer that points into such a file, and new files have no garbage, so after
//! finitely many tasks there is nothing to do.
//!
//! Only the worst files are emptied at a time. One whose values have moved in part is then worse than it was, so the tasks
//! that follow go on with it until it is empty and goes.
//!
//! Tables of level 0 are left out: they are merged down soon, and then their values move.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pick::View;
use super::task::{Task, Why};
use crate::engine::blobs::{wasteful, wasteful_of};
use crate::engine::version::{TableHandle, Version};
use crate::storage::names::FileNumber;

/// The table that points to most of wasteful files.
pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    move_values(view.version, Why::Garbage, wasteful(view.version, view.idle))
}

/// For a compaction of everything: the same among these files.
pub(crate) fn pick_of(version: &Version, files: &BTreeSet<FileNumber>) -> Option<Task> {
    move_values(version, Why::Asked, wasteful_of(version, files))
}

fn move_values(version: &Version, why: Why, moving: BTreeSet<FileNumber>) -> Option<Task> {
    let (level, table) = pointing(version, &moving).max_by_key(|(_, table)| points(table, &moving))?;
    let task = Task::merge(why, vec![(level, vec![table.clone()])], level);
    Some(Task { moving, ..task })
}

fn pointing<'a>(
    version: &'a Version,
    files: &'a BTreeSet<FileNumber>,
) -> impl Iterator<Item = (usize, &'a Arc<TableHandle>)> {
    let sound = |(level, table): &(usize, &Arc<TableHandle>)| *level > 0 && table.damage().is_none();
    version.tables().filter(sound).filter(|(_, table)| points(table, files) > 0)
}

/// Bytes of these files that the table points to.
fn points(table: &TableHandle, files: &BTreeSet<FileNumber>) -> u64 {
    table.meta.blobs.iter().filter(|blob| files.contains(&blob.file)).map(|blob| blob.used_bytes).sum()
}
