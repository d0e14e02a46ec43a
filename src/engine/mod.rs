//! The LSM tree.

mod batch;
mod db;
mod error;
mod options;

pub use crate::codec::SeqNo;
pub use batch::WriteBatch;
pub use db::{Db, Entry, Found, Range, Snapshot};
pub(crate) use db::{Outcome, Read, Waiter};
pub use error::{Error, Result};
pub use options::{Clock, Durability, Options};

/// Keys are 1 byte to 64 KiB: they are kept in indexes, and a longer one is a value in the wrong place.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// Values are at most 512 MiB, as with Redis.
pub const MAX_VALUE_BYTES: usize = 512 << 20;
