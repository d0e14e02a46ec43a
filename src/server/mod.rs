//! The server: the only floor that sees sockets.
//!
//! In reading order: [`Config`] (what can be chosen), [`Server`] (start and end), `listener` (the accept loop),
//! `connection` (the thread of one client) with its `input` and `replies`, `outbox` (replies that wait for the log) and
//! `drainer` (for clients that read slowly).

mod budget;
mod clients;
mod config;
pub mod config_file;
mod connection;
mod descriptors;
mod drainer;
mod error;
mod expiry;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gets;
mod input;
mod instance;
mod limits;
mod listener;
mod outbox;
mod replies;
#[cfg(feature = "schedules")]
pub mod schedules;
mod shutdown;
mod units;
mod wake;

pub use config::{Compaction, Config, InlineReplies};
pub use error::{Error, Result};
pub use instance::{Server, ShutdownHandle};
