//! Chronos: a durable key-value store, as a server and as a library.
//!
//! The crate is a house of floors; arrows point down only (`tests/tidy.rs` holds that):
//!
//! | floor | what it is | what it does not know |
//! |---|---|---|
//! | [`cli`] | the REPL and one-shot client | the engine: it talks to a server over a socket |
//! | [`server`] | listener, one thread per connection, shutdown | how data is stored |
//! | `protocol` | bytes to requests, replies to bytes: text and RESP | any command |
//! | `command` | one table row and one function per command | RESP, sockets |
//! | `keyspace` | databases, types and expiry over ordered bytes | command names |
//! | [`admin`] | tools for whoever looks after a database: verify, dump, repair | keys' meaning |
//! | [`engine`] | the LSM tree: log, memtable, tables, compaction, recovery | Redis |
//! | `storage` | one file format per module | when files are written |
//! | [`fs`] | the only door to the disk, and a simulated disk behind it | what files mean |
//! | `sync` | locks, atomics and threads; under a scheduler in some tests | anything |
//! | [`codec`] | varints, checksums, byte slices: pure functions | files |
//!
//! Embed the engine with [`Db`]:
//!
//! ```
//! # fn main() -> Result<(), chronos::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path();
//! let db = chronos::Options::new().open(path)?;
//! db.put(b"user:101", b"Venom")?; // returns once it is on disk
//! assert_eq!(db.get(b"user:101")?.as_deref(), Some(&b"Venom"[..]));
//! db.close()?;
//! # Ok(())
//! # }
//! ```

// Helpers of the tests in `tests/`, which fuzz targets use too, know the crate by its name.
#[cfg(any(test, fuzzing))]
extern crate self as chronos;

pub mod admin;
pub mod cli;
pub mod codec;
mod command;
pub mod engine;
pub mod fs;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod keyspace;
mod protocol;
pub mod server;
mod storage;
#[cfg(feature = "schedules")]
pub mod sync;
#[cfg(not(feature = "schedules"))]
mod sync;

pub use codec::Slice;
pub use engine::{Db, Error, Options, SeqNo, WriteBatch};
#[cfg(feature = "schedules")]
pub use storage::cache_schedules;
