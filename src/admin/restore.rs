//! A new data directory out of a checkpoint, by copy: what becomes of it does not reach the checkpoint. The copy is
//! checked as it lies on the disk before it gets its name.

use std::io::Write;
use std::path::Path;

use super::inventory::Inventory;
use super::{Directory, Health, Result, verify};
use crate::engine;
use crate::engine::checkpoint::{begin, copy_file};
use crate::fs::remove_if_empty;
use crate::storage::names::FileName;

/// Copies the database at `from`, which nobody may have open, to a new directory `to`. If anything of it is damaged,
/// there is no copy.
///
/// # Errors
///
/// [`engine::Error::Locked`] if `from` is in use, [`engine::Error::InvalidArgument`] if anything is at `to`,
/// [`engine::Error::Io`] if the disk refuses.
pub fn restore(from: &Path, to: &Path, out: &mut dyn Write) -> Result<Health> {
    let held = Directory::hold(from)?;
    let fs = &held.fs;
    remove_if_empty(to);
    let inventory = Inventory::take(fs)?;
    let copy = begin(&**fs, to)?;
    let mut files = vec![FileName::Current];
    files.extend(inventory.manifest.map(FileName::Manifest));
    files.extend(inventory.tables.keys().map(|number| FileName::Table(*number)));
    files.extend(inventory.blobs().into_keys().map(FileName::Blob));
    files.extend(inventory.segments.keys().map(|number| FileName::Wal(*number)));
    // What is not there is damage of the checkpoint, and the check says so.
    for file in files.iter().filter(|file| inventory.files.contains(file)) {
        copy_file(&**fs, &*copy.files(), &file.to_string())?;
    }
    let health = verify(&Directory::on(copy.files()), out)?;
    match health {
        Health::Clean => {
            let unpublished = |source| engine::Error::Io { file: to.display().to_string(), what: "finish", source };
            copy.publish().map_err(unpublished)?;
            writeln!(out, "{}: restored from {}", to.display(), from.display())?;
        }
        Health::Damaged => writeln!(out, "{}: not made", to.display())?,
    }
    Ok(health)
}
