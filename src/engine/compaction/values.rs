//! Blob files with much garbage: the tables that point into them are rewritten where they are, and their values move to
//! new files. Each task leaves one table fewer that points into such a file, and new files have no garbage, so after
//! finitely many tasks there is nothing to do.
//!
//! Tables of level 0 are left out: they are merged down soon, and then their values move.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pick::View;
use super::task::{Task, Why};
use crate::engine::blobs::wasteful;
use crate::engine::version::{TableHandle, Version};
use crate::storage::names::FileNumber;

/// The table that points to most of wasteful files.
pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    let moving = wasteful(view.version, view.idle);
    let most = pointing(view.version, &moving).max_by_key(|(_, table)| points(table, &moving));
    let (level, table) = most.map(|(level, table)| (level, table.clone()))?;
    Some(move_values(Why::Garbage, level, &table, moving))
}

/// For a compaction of everything: all tables that point into files with some garbage.
pub(crate) fn pick_all(version: &Version) -> Vec<Task> {
    let moving = wasteful(version, true);
    pointing(version, &moving).map(|(level, table)| move_values(Why::Asked, level, table, moving.clone())).collect()
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

fn move_values(why: Why, level: usize, table: &Arc<TableHandle>, moving: BTreeSet<FileNumber>) -> Task {
    Task { moving, ..Task::merge(why, vec![(level, vec![table.clone()])], level) }
}
