//! What can go wrong, by what the caller can do about it.

use std::io;

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors by the caller's reaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk refused. Reads of other keys go on.
    #[error("{file}: {what}: {source}")]
    Io {
        /// The file it happened to.
        file: String,
        /// What was being done.
        what: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Bytes of a file are not what was written. Never a wrong answer: the read or the start fails.
    #[error("{file}: {what} at byte {offset}")]
    Corrupt {
        /// The damaged file.
        file: String,
        /// What is wrong.
        what: String,
        /// Where, in bytes from the file's start.
        offset: u64,
    },
    /// Another process has the directory open.
    #[error("{directory} is in use by process {}", holder.map_or("unknown".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The database directory.
        directory: String,
        /// The process that holds it, where known.
        holder: Option<u32>,
    },
    /// The caller asked for something that cannot be (an empty key, a value over the limit).
    #[error("{0}")]
    InvalidArgument(String),
    /// The log has failed: this write was not applied, reads go on, writes resume when the disk allows.
    #[error("not written, the database is read-only until its disk recovers: {0}")]
    ReadOnly(String),
    /// A flush or compaction failed in the background; it is tried again.
    #[error("in the background: {0}")]
    Background(String),
    /// The snapshot is older than [`super::Options::snapshot_max_age`] allows: it keeps nothing any more.
    #[error("the snapshot has become too old and was released: take a new one")]
    SnapshotExpired,
    /// No history is kept.
    #[error("no history is kept: set Options::history, or start the server with --history DURATION")]
    NoHistory,
    /// The time lies before what is kept of the past, or has not come yet.
    #[error("that time is not in the history: the oldest that can be read is {oldest} (milliseconds since 1970)")]
    OutsideHistory {
        /// The oldest time that can be read, in milliseconds since 1970.
        oldest: u64,
    },
    /// The database has been closed.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// The same, for somebody else who is to be told of it.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Io { file, what, source } => {
                let told = || io::Error::new(source.kind(), source.to_string());
                let source = source.raw_os_error().map_or_else(told, io::Error::from_raw_os_error);
                Error::Io { file: file.clone(), what, source }
            }
            Error::Corrupt { file, what, offset } => {
                Error::Corrupt { file: file.clone(), what: what.clone(), offset: *offset }
            }
            Error::Locked { directory, holder } => Error::Locked { directory: directory.clone(), holder: *holder },
            Error::InvalidArgument(what) => Error::InvalidArgument(what.clone()),
            Error::ReadOnly(why) => Error::ReadOnly(why.clone()),
            Error::Background(why) => Error::Background(why.clone()),
            Error::SnapshotExpired => Error::SnapshotExpired,
            Error::NoHistory => Error::NoHistory,
            Error::OutsideHistory { oldest } => Error::OutsideHistory { oldest: *oldest },
            Error::Closed => Error::Closed,
        }
    }
}

impl From<crate::storage::Error> for Error {
    fn from(error: crate::storage::Error) -> Error {
        match error {
            crate::storage::Error::Io { file, what, source } => Error::Io { file, what, source },
            crate::storage::Error::Corrupt { file, what, offset } => Error::Corrupt { file, what, offset },
        }
    }
}
