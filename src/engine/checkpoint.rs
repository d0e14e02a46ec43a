//! Checkpoints: a second database directory that holds what this one held at a moment.
//!
//! Everything in memory is flushed, then one version is taken with the position up to which its tables have everything.
//! That is a prefix of history, and no log is needed to tell it. Tables never change, so the copy shares them: each
//! gets a second name, and its bytes stay until both are gone. Where the file system cannot do that, they are copied.
//! A manifest of the copy's own says the rest. While all this goes on the version is held, so that no compaction deletes
//! a table of it; nobody waits for anything but the flush.
//!
//! The copy gets its name last, when all of it is durable (see [`crate::fs::NewDirectory`]).

use std::path::Path;

use tracing::info;

use super::blobs;
use super::shared::Shared;
use super::{Error, Result};
use crate::codec::defect::{Defect, seeded};
use crate::fs::{Fs, NewDirectory};
use crate::storage;
use crate::storage::manifest::{Change, ManifestWriter};
use crate::storage::names::{FileName, FileNumber};

/// How much of a file is copied at a time.
const COPY_BYTES: usize = 1 << 20;

impl Shared {
    /// Makes a copy of the database at `path`, where nothing may be yet.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<()> {
        let started = std::time::Instant::now();
        // Before the flush: a name that is taken is told at once.
        let copy = begin(&*self.fs, path)?;
        self.flush_all()?;
        let (version, mut state) = self.catalog.without_log();
        for (_, table) in version.tables() {
            link_or_copy(&*self.fs, &*copy, &FileName::Table(table.meta.number).to_string())?;
        }
        for blob in blobs::uses(&version).into_keys() {
            link_or_copy(&*self.fs, &*copy, &FileName::Blob(blob).to_string())?;
        }
        let manifest = number_manifest(&mut state);
        finish(copy, path, manifest, self.options.entropy.draw(), &state)?;
        info!(path = %path.display(), tables = version.tables().count(), took = ?started.elapsed(), "checkpoint made");
        Ok(())
    }
}

/// Begins a directory for a copy of `fs`.
pub(crate) fn begin(fs: &dyn Fs, path: &Path) -> Result<Box<dyn NewDirectory>> {
    fs.new_directory(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::InvalidInput => {
            Error::InvalidArgument(source.to_string())
        }
        _ => Error::Io { file: path.display().to_string(), what: "make the directory", source },
    })
}

/// Gives `name` of `from` a second name in `to`, or copies it if that cannot be.
pub(crate) fn link_or_copy(from: &dyn Fs, to: &dyn NewDirectory, name: &str) -> Result<()> {
    match to.link(name) {
        Ok(()) => Ok(()),
        // Another file system, one without links, one link too many: whatever it is, copying finds out if it matters.
        Err(_) => copy_file(from, &*to.files(), name),
    }
}

/// Copies a file, synced.
pub(crate) fn copy_file(from: &dyn Fs, to: &dyn Fs, name: &str) -> Result<()> {
    let source = from.open(name).map_err(storage::Error::io(name, "open"))?;
    let target = to.create(name).map_err(storage::Error::io(name, "create the copy"))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    loop {
        let len = source.read_at(&mut buffer, at).map_err(storage::Error::io(name, "read"))?;
        if len == 0 {
            break;
        }
        target.write_at(&buffer[..len], at).map_err(storage::Error::io(name, "write the copy"))?;
        at += len as u64;
    }
    if seeded(Defect::CheckpointNotSynced) {
        return Ok(());
    }
    Ok(target.sync().map_err(storage::Error::io(name, "sync the copy"))?)
}

/// Takes the next file number of `state` for a manifest.
pub(crate) fn number_manifest(state: &mut [Change]) -> FileNumber {
    let mut number = FileNumber(1);
    for change in state {
        if let Change::NextFile(next) = change {
            number = *next;
            next.0 += 1;
        }
    }
    number
}

/// With all tables in place: writes the manifest and gives the copy its name.
pub(crate) fn finish(
    copy: Box<dyn NewDirectory>,
    path: &Path,
    manifest: FileNumber,
    salt: u64,
    state: &[Change],
) -> Result<()> {
    ManifestWriter::create(&*copy.files(), manifest, salt, state).map_err(|failure| failure.error)?;
    copy.publish().map_err(|source| Error::Io { file: path.display().to_string(), what: "finish", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SeqNo;

    #[test]
    fn the_manifest_of_a_copy_has_a_number_that_no_other_file_gets() {
        let mut state = [Change::Flushed(SeqNo(5)), Change::NextFile(FileNumber(7))];
        assert_eq!(number_manifest(&mut state), FileNumber(7));
        assert_eq!(state, [Change::Flushed(SeqNo(5)), Change::NextFile(FileNumber(8))]);
    }
}
