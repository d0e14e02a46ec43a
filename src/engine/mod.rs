//! The LSM tree.

mod batch;
mod db;
mod error;
mod options;

pub use batch::WriteBatch;
pub use db::{Db, Entry, Found, Range, Snapshot};
pub(crate) use db::{Outcome, Read, Waiter};
pub use error::{Error, Result};
pub use options::{Clock, Durability, Options};

/// A position in the history of the database: one for each write, never reused. The one clock of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNo(pub u64);

impl std::fmt::Display for SeqNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Keys are 1 byte to 64 KiB: they are kept in indexes, and a longer one is a value in the wrong place.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// Values are at most 512 MiB, as with Redis.
pub const MAX_VALUE_BYTES: usize = 512 << 20;
