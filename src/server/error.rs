//! Why a server could not start, in one line that says what to do.

use std::io;

use crate::engine;

/// Why [`super::Server::start`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself, or asks for what would be unsafe.
    #[error("{0}")]
    Config(String),
    /// The address is taken.
    #[error(
        "{address} is in use by another program: stop that one (`ss -ltnp` shows it), or choose another port with --port"
    )]
    AddressInUse {
        /// What was asked for.
        address: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --bind and --port")]
    Listen {
        /// What was asked for.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Another process has the data.
    #[error("{source}: stop that server first, or choose another directory with --dir")]
    DirectoryInUse {
        /// Which directory, and by whom.
        #[source]
        source: engine::Error,
    },
    /// The database could not be opened.
    #[error("cannot open the database in {directory}: {source}")]
    Database {
        /// Where.
        directory: String,
        /// What is wrong.
        #[source]
        source: engine::Error,
    },
    /// The database could not be closed cleanly. What was acknowledged is in the log all the same.
    #[error("the database was not closed cleanly: {source}; the next start recovers from the log")]
    Close {
        /// What is wrong.
        #[source]
        source: engine::Error,
    },
    /// The operating system refused a thread or a descriptor.
    #[error("cannot start: {0}")]
    Resources(#[from] io::Error),
}

/// The server's result.
pub type Result<T> = std::result::Result<T, Error>;
