//! Blob files with much garbage: the tables that point into them are rewritten where they are, and their values move to
//! new files. Each task leaves fewer tables that point into such a file, and new files have no garbage, so after finitely
//! many tasks there is nothing to do.
//!
//! Only the worst files are emptied at a time, and the very worst comes first. Once it has moved in part it is worse still,
//! so the tasks that follow go on with it until it is empty and goes: until then its values take space twice.
//!
//! Tables of level 0 are left out: they are merged down soon, and then their values move.

use std::collections::BTreeSet;

use super::pick::View;
use super::task::{Task, Why, batch};
use crate::engine::blobs::{wasteful, wasteful_of};
use crate::engine::version::{TableHandle, Version};
use crate::storage::names::FileNumber;

/// The tables that point to most of the worst file.
pub(crate) fn pick(view: &View<'_>) -> Option<Task> {
    move_values(view.version, view.options.table_bytes, Why::Garbage, wasteful(view.version, view.idle))
}

/// For a compaction of everything: the same among these files.
pub(crate) fn pick_of(version: &Version, table_bytes: u64, files: &BTreeSet<FileNumber>) -> Option<Task> {
    move_values(version, table_bytes, Why::Asked, wasteful_of(version, files))
}

/// Begins with the first file that a table in order points into. The neighbours that point into any of them join.
fn move_values(version: &Version, table_bytes: u64, why: Why, files: Vec<FileNumber>) -> Option<Task> {
    let (level, first) = files.iter().find_map(|file| {
        let pointing = version.tables().filter(|(level, table)| *level > 0 && may_move(table, &[*file]));
        pointing.max_by_key(|(_, table)| points(table, &[*file]))
    })?;
    let tables = batch(&version.levels[level], first, table_bytes, |table| may_move(table, &files));
    let task = Task::merge(why, vec![(level, tables)], level);
    Some(Task { moving: files.into_iter().collect(), ..task })
}

fn may_move(table: &TableHandle, files: &[FileNumber]) -> bool {
    points(table, files) > 0 && table.damage().is_none()
}

/// Bytes of these files that the table points to.
fn points(table: &TableHandle, files: &[FileNumber]) -> u64 {
    table.meta.blobs.iter().filter(|blob| files.contains(&blob.file)).map(|blob| blob.used_bytes).sum()
}
