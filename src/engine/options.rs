//! What can be chosen when a database is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Db, Result};

/// What an acknowledged write has survived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every write is on disk before it is acknowledged.
    #[default]
    Always,
    /// The log is synced at this interval: a crash loses at most that much of the newest writes, as a suffix.
    Interval(Duration),
    /// The operating system writes back when it likes.
    Os,
}

/// Where the time comes from: milliseconds since 1970.
#[derive(Clone)]
pub struct Clock(pub Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Clock {
        Clock(Arc::new(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64)
        }))
    }

    /// Milliseconds since 1970.
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) clock: Clock,
}

impl Default for Options {
    fn default() -> Options {
        Options { durability: Durability::Always, clock: Clock::system() }
    }
}

impl Options {
    /// The defaults: every write synced before it is acknowledged.
    pub fn new() -> Options {
        Options::default()
    }

    /// What an acknowledged write has survived.
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// Where the time comes from (expiry, and the times in the log).
    pub fn clock(mut self, clock: Clock) -> Options {
        self.clock = clock;
        self
    }

    /// Opens the database in `directory`, creating both if needed.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Db> {
        Db::open(directory, self)
    }
}
