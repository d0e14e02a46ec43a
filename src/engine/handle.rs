//! An open database as its handles hold it, and how it is closed: once, whoever asks, and whoever asks hears what came of it.
//!
//! Closing refuses writes, ends the threads and whatever else is at work, flushes, and gives the directory back last. What
//! is still readable then is read from files that nobody changes.

use std::sync::Arc;

use super::shared::Shared;
use super::{Error, Result, background};
use crate::codec::defect::{Defect, seeded};
use crate::storage::manifest::Change;
use crate::sync::Mutex;
use crate::sync::thread::JoinHandle;

/// An open database: closed by hand, or when it is dropped.
pub(super) struct Handle {
    shared: Arc<Shared>,
    lifecycle: Mutex<Lifecycle>,
}

/// Whether the database is open, and what came of closing it.
struct Lifecycle {
    open: Option<Open>,
    /// What every call of `close` is told.
    failure: Option<Error>,
}

/// What an open database holds and a closed one has given back.
struct Open {
    threads: Vec<JoinHandle<()>>,
    /// Of the directory.
    lock: Box<dyn Send + Sync>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Whoever has closed it was told.
        if self.lifecycle.get_mut().open.is_some()
            && let Err(error) = self.close()
        {
            tracing::error!(%error, "the database was not closed cleanly; its log will be replayed");
        }
    }
}

impl Handle {
    /// A database that has just been opened: its threads, and the lock of its directory.
    pub(super) fn new(shared: Arc<Shared>, threads: Vec<JoinHandle<()>>, lock: Box<dyn Send + Sync>) -> Handle {
        let lifecycle = Lifecycle { open: Some(Open { threads, lock }), failure: None };
        Handle { shared, lifecycle: Mutex::new(lifecycle) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// See [`super::Db::close`].
    pub(super) fn close(&self) -> Result<()> {
        // Held to the end: who comes second waits for the outcome. Nothing that closing waits for takes this lock.
        let mut lifecycle = self.lifecycle.lock();
        if let Some(open) = lifecycle.open.take() {
            lifecycle.failure = Some(Error::Background("a panic while it was being closed".to_owned()));
            lifecycle.failure = self.shut_down(open).err();
        }
        lifecycle.failure.as_ref().map_or(Ok(()), |failure| Err(failure.again()))
    }

    fn shut_down(&self, Open { threads, lock }: Open) -> Result<()> {
        let shared = &self.shared;
        shared.stop_writes();
        background::stop(shared, threads);
        // A compaction that a caller of `compact` runs gives up now, and deletes what it has begun: before the directory may
        // be another's.
        let _turn = (!seeded(Defect::CompactionOutlivesClose)).then(|| shared.compacting.lock());
        let result = (|| {
            let last = shared.seal_all();
            while shared.flush_oldest()? {}
            if !shared.state().sealed.is_empty() {
                return Err(Error::ReadOnly("the log has failed and not everything could be flushed".to_owned()));
            }
            shared.close_log();
            // With everything in tables this edit drops the log, so that the next start replays nothing.
            shared.catalog.commit(vec![Change::Flushed(last), Change::LastSeq(last)], |_| {})
        })();
        let result = match result {
            // What could not be flushed is in the log; whatever the durability, nobody will sync it later.
            Err(error @ (Error::Io { .. } | Error::ReadOnly(_))) if shared.log_has_everything() => {
                tracing::warn!(%error, "not everything could be flushed; the log has it, and the next start replays it");
                Ok(())
            }
            result => result,
        };
        shared.catalog.close();
        drop(lock);
        result
    }
}
