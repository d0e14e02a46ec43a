//! The LSM tree. Knows keys, values, sequence numbers and files; knows nothing of Redis.
//!
//! Read in this order: `batch` (what is written), `memtable`, `commit` (how writes become visible and durable),
//! `shared` (what readers see), `snapshot`, `range` and `merge` (scans), `flush`, `compaction`, `recovery`, and [`Db`], which
//! puts them together.

mod background;
mod backpressure;
pub(crate) mod batch;
mod blobs;
mod catalog;
pub(crate) mod checkpoint;
mod commit;
mod compaction;
mod covers;
mod db;
mod error;
pub(crate) mod expiries;
mod flush;
mod handle;
mod history;
mod key_order;
mod log;
mod lookup;
#[cfg(test)]
mod memory_tests;
pub(crate) mod memtable;
pub(crate) mod merge;
mod options;
pub(crate) mod output;
mod page;
mod range;
pub(crate) mod range_tombstones;
mod reads;
mod records;
pub(crate) mod recovery;
mod restore;
pub(crate) mod retention;
mod shared;
mod snapshot;
pub(crate) mod sources;
mod stats;
#[cfg(test)]
mod tests;
pub(crate) mod times;
mod transact;
mod values;
pub(crate) mod version;

pub use crate::codec::SeqNo;
pub(crate) use crate::fs::UNFINISHED;
pub use crate::storage::sstable::Reads;
pub use batch::WriteBatch;
pub(crate) use commit::Waiter;
pub use compaction::Strategy;
pub use db::Db;
pub use error::{Error, Result};
pub use history::{KeyHistory, PastValue};
pub use options::{Clock, Compression, Durability, Entropy, Options};
pub use range::{Entry, EntryRef, Range};
pub use retention::{HistoryStats, SnapshotStats};
pub use snapshot::{Found, Snapshot};
pub use stats::{BlobStats, LevelStats, LogStats, MemoryStats, Stats, Waits};
pub(crate) use transact::{Outcome, Read};

/// Keys are 1 byte to 64 KiB: they are kept in indexes, and a longer one is a value in the wrong place.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// Values are at most 512 MiB, as with Redis, and a little that whoever uses the engine may put beside them, such as a type.
pub const MAX_VALUE_BYTES: usize = (512 << 20) + 64;
