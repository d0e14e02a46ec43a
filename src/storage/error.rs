//! What can go wrong with a file: the disk refused, or the bytes are not what was written.

use std::io;

/// The result of everything that touches a file.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Errors by what the engine does about them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The disk refused.
    #[error("{file}: {what}: {source}")]
    Io {
        file: String,
        /// What was being done.
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{file}: {what} at byte {offset}")]
    Corrupt {
        file: String,
        /// What is wrong.
        what: String,
        /// Where, in bytes from the file's start.
        offset: u64,
    },
}

impl Error {
    /// For `map_err` behind a call to the disk.
    pub(crate) fn io(file: &str, what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { file: file.to_owned(), what, source }
    }

    pub(crate) fn corrupt(file: &str, what: impl Into<String>, offset: u64) -> Error {
        Error::Corrupt { file: file.to_owned(), what: what.into(), offset }
    }
}
