//! Tools for whoever looks after a database: check it, look into it, copy it, save what is left of a damaged one.
//! `chronos-admin` is this on a command line.
//!
//! The reading ones write nothing and hold no lock, so they work beside a running server too: tables never change, a
//! compaction that deletes one meanwhile is noticed, and of the log only what was there when it was read is judged.

mod dump;
mod inventory;
mod repair;
mod restore;
mod stats;
mod verify;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use dump::dump;
pub use repair::{Loss, Target, repair, repair_to};
pub use restore::restore;
pub use stats::stats;
pub use verify::verify;

use crate::fs::{Fs, LockError, OsFs};
use crate::{engine, storage};

/// Why a tool could not do its work. That it found damage is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused, or the database is another's.
    #[error(transparent)]
    Database(#[from] engine::Error),
    /// What it has to say could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// A tool's result.
pub type Result<T> = std::result::Result<T, Error>;

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        Error::Database(error.into())
    }
}

/// Whether all is as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Clean,
    /// It is not; the output says what.
    Damaged,
}

/// A database directory that is looked at from outside.
pub struct Directory {
    pub(crate) fs: Arc<dyn Fs>,
    /// That it is in use, and by whom.
    user: Option<engine::Error>,
}

impl Directory {
    /// The directory at `path`, which must be there. Asks for an instant whether somebody holds its lock.
    ///
    /// # Errors
    ///
    /// [`engine::Error::Io`] if it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Directory> {
        let path = path.as_ref();
        let fs = open_existing(path)?;
        let user = match fs.lock_for_reading() {
            Ok(_) => None,
            Err(LockError::Held(holder)) => Some(engine::Error::Locked { directory: fs.describe(), holder }),
            Err(LockError::Io(source)) => {
                return Err(engine::Error::Io { file: fs.describe(), what: "ask for the lock", source }.into());
            }
        };
        Ok(Directory { fs: Arc::new(fs), user })
    }

    /// On a file system of the caller's, which nobody else uses.
    pub fn on(fs: Arc<dyn Fs>) -> Directory {
        Directory { fs, user: None }
    }

    /// The directory at `path`, kept from being opened by anybody for as long as the guard lives.
    ///
    /// # Errors
    ///
    /// [`engine::Error::Locked`] if it is in use.
    fn hold(path: &Path) -> Result<Held> {
        let fs = open_existing(path)?;
        let guard = fs.lock_for_reading().map_err(|error| match error {
            LockError::Held(holder) => engine::Error::Locked { directory: fs.describe(), holder },
            LockError::Io(source) => engine::Error::Io { file: fs.describe(), what: "lock the directory", source },
        })?;
        Ok(Held { fs: Arc::new(fs), _guard: guard })
    }

    fn is_in_use(&self) -> bool {
        self.user.is_some()
    }

    /// For the first line of what is said of a directory.
    fn introduce(&self, out: &mut dyn io::Write) -> io::Result<()> {
        match &self.user {
            Some(user) => writeln!(out, "{user}: this is how it was found at one moment"),
            None => Ok(()),
        }
    }
}

/// See [`Directory::hold`].
struct Held {
    fs: Arc<dyn Fs>,
    /// `None` if no server has ever opened it.
    _guard: Option<Box<dyn Send + Sync>>,
}

fn open_existing(path: &Path) -> Result<OsFs> {
    OsFs::open_existing(path).map_err(|source| {
        engine::Error::Io { file: path.display().to_string(), what: "open the directory", source }.into()
    })
}
