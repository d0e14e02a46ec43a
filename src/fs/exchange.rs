//! One directory in the place of another, at one stroke: no crash finds neither.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::os::{open_directory, parent};

/// An error if anything is at `path`.
pub(crate) fn check_free(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists already", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// `new` gets the name `place`, and what was there the name `old`. All three are in one directory.
pub(crate) fn replace(place: &Path, new: &Path, old: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE)?;
    let directory = open_directory(parent(place))?;
    rustix::fs::fsync(&directory)?;
    rustix::fs::renameat_with(CWD, new, CWD, old, RenameFlags::NOREPLACE)?;
    Ok(rustix::fs::fsync(&directory)?)
}
