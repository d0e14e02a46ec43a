//! The data model over ordered bytes: databases, types, expiry. Knows no command names.
//!
//! In reading order: [`layout`] (which engine key is what), [`value`] (what an engine value holds), [`Database`] (one
//! numbered database: read, set, update, delete), [`edit`] (one key within a read-modify-write), [`range`] (keys in
//! order), [`scan`] (a walk in many calls), [`sweep`] (what has expired is deleted), [`census`] (counts that INFO can
//! afford), [`glob`] (patterns).
//!
//! Every answer comes as an [`Outcome`]: the value, and the position in history that it depends on. Whoever passes the
//! value on to a client must first see that position durable.

mod census;
mod database;
mod edit;
mod error;
pub(crate) mod glob;
mod layout;
mod range;
mod scan;
mod sweep;
mod value;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(crate) use database::{Condition, Database, Lifetime, SetOptions};
pub(crate) use error::{Error, Result};
pub(crate) use range::{Entries, KeyRange, Order};
pub(crate) use scan::ScanOptions;
pub(crate) use value::{Kind, MAX_STRING_BYTES, Value};

use crate::engine::{Db, Outcome};

/// How many databases there can be: one namespace byte each (see [`layout`]).
pub(crate) const MAX_DATABASES: u8 = layout::MAX_DATABASES;

/// All databases over one engine.
pub(crate) struct Keyspace {
    pub(crate) db: Db,
    cursors: Mutex<scan::Cursors>,
    counts: Mutex<census::Counts>,
    /// When [`Keyspace::flush`] last succeeded, milliseconds since 1970; at first, when the keyspace was opened.
    flushed_at: AtomicU64,
    /// No key expires before this time, milliseconds since 1970 (see [`sweep`]).
    next_due: AtomicU64,
}

impl Keyspace {
    pub(crate) fn new(db: Db) -> Keyspace {
        let now = db.now();
        Keyspace {
            cursors: Mutex::new(scan::Cursors::starting_at(now)),
            counts: Mutex::default(),
            flushed_at: AtomicU64::new(now),
            next_due: AtomicU64::new(0),
            db,
        }
    }

    /// Database `number`, which is below [`MAX_DATABASES`].
    pub(crate) fn database(&self, number: u8) -> Database<'_> {
        assert!(number < MAX_DATABASES, "database {number} has no namespace");
        Database { keyspace: self, number }
    }

    /// Removes every key of every database, atomically.
    pub(crate) fn delete_all(&self) -> Result<Outcome<()>> {
        let (start, end) = layout::everything();
        Ok(Outcome { value: (), seq: self.db.delete_ranges(&[(&start, end.as_deref())])? })
    }

    /// Writes what is in memory to tables. Nothing is safer afterwards (the log already holds it); a restart is
    /// shorter.
    pub(crate) fn flush(&self) -> Result<()> {
        self.db.flush()?;
        self.flushed_at.store(self.db.now(), Ordering::Relaxed);
        Ok(())
    }

    /// When the last flush that was asked for ended, milliseconds since 1970.
    pub(crate) fn flushed_at(&self) -> u64 {
        self.flushed_at.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A keyspace with a clock that the test sets.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Keyspace;
    use crate::engine::{Clock, Options};

    /// A time that is plainly not now: 2001-09-09.
    pub(crate) const START: u64 = 1_000_000_000_000;

    pub(crate) struct Fixture {
        pub(crate) keyspace: Keyspace,
        pub(crate) now: Arc<AtomicU64>,
        /// Beside the database there is room for more.
        pub(crate) directory: tempfile::TempDir,
    }

    impl Fixture {
        pub(crate) fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let now = Arc::new(AtomicU64::new(START));
            let clock = now.clone();
            let clock = Clock(Arc::new(move || clock.load(Ordering::SeqCst)));
            let db = Options::new().clock(clock).open(directory.path().join("data")).unwrap();
            Fixture { keyspace: Keyspace::new(db), now, directory }
        }

        pub(crate) fn advance(&self, ms: u64) {
            self.now.fetch_add(ms, Ordering::SeqCst);
        }
    }
}
