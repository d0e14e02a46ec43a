//! What all threads of one open database share.
//!
//! Readers take one immutable value, the [`State`], and hold no lock while they read. It is replaced as a whole: by a
//! writer that seals the active memtable, and by a flush or compaction that installs its version.
//!
//! Lock order, outermost first: `LogIo` (the log's file, held over I/O by whoever syncs), the catalog (manifest,
//! held over I/O by background work), `Writer` (the write path, never held over I/O), `replacing` (the state), what
//! is retained, a memtable's map.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::catalog::Catalog;
use super::commit::Commit;
use super::memtable::Memtable;
use super::options::Options;
use super::retention::Retention;
use super::stats::Counters;
use super::version::Version;
use super::{Error, Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::fs::Fs;
use crate::storage::{BlockCache, Version as KeyVersion};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, step};

/// A memtable that takes no more writes and waits to become a table.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) memtable: Arc<Memtable>,
    /// The newest position in it; it may be flushed once that is settled.
    pub(crate) last_seq: SeqNo,
}

/// Everything that can be read at one moment.
pub(crate) struct State {
    pub(crate) active: Arc<Memtable>,
    /// Oldest first.
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) version: Arc<Version>,
}

impl State {
    /// The newest version of `key` at or below `as_of`, wherever it is.
    pub(crate) fn get(&self, key: &[u8], as_of: SeqNo) -> Result<Option<KeyVersion>> {
        if let Some(found) = self.active.get(key, as_of) {
            return Ok(Some(found));
        }
        self.get_below_active(key, as_of)
    }

    /// As [`State::get`], without the active memtable.
    pub(crate) fn get_below_active(&self, key: &[u8], as_of: SeqNo) -> Result<Option<KeyVersion>> {
        for sealed in self.sealed.iter().rev().filter(|_| !seeded(Defect::SealedNotSearched)) {
            if let Some(found) = sealed.memtable.get(key, as_of) {
                return Ok(Some(found));
            }
        }
        self.version.get(key, as_of)
    }
}

/// Wakes one kind of background thread, and lets others wait for what it does.
#[derive(Default)]
pub(crate) struct Signal {
    work: Mutex<bool>,
    wake: Condvar,
}

impl Signal {
    /// There may be something to do.
    pub(crate) fn notify(&self) {
        *self.work.lock() = true;
        self.wake.notify_all();
    }

    /// Whether it was notified since the last wait.
    pub(crate) fn is_set(&self) -> bool {
        *self.work.lock()
    }

    /// Waits until notified since the last call, or until `timeout` has passed. Whether it was notified.
    pub(crate) fn wait(&self, timeout: Option<std::time::Duration>) -> bool {
        let mut work = self.work.lock();
        while !*work {
            match timeout {
                None => self.wake.wait(&mut work),
                Some(timeout) => {
                    if self.wake.wait_for(&mut work, timeout).timed_out() {
                        break;
                    }
                }
            }
        }
        std::mem::take(&mut work)
    }
}

/// One open database.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) catalog: Catalog,
    pub(crate) commit: Commit,
    pub(crate) retention: Arc<Retention>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) counters: Counters,
    /// How long each write waits for the tree, in nanoseconds.
    pub(super) delay: AtomicU64,
    /// Short delays that nobody has slept off yet, in nanoseconds.
    pub(super) saved_delay: AtomicU64,
    state: ArcSwap<State>,
    /// Held while the state is replaced.
    replacing: Mutex<()>,
    /// Wakes the flush thread.
    pub(crate) flush_work: Signal,
    /// Wakes the compaction thread.
    pub(crate) compaction_work: Signal,
    /// Counts what whoever waits for background work may wait for.
    pub(crate) progress: Mutex<Progress>,
    pub(crate) progressed: Condvar,
    pub(crate) stopping: AtomicBool,
    /// One flush at a time. Outermost of all locks.
    pub(crate) flushing: Mutex<()>,
    /// One compaction at a time: `COMPACT` and the compaction thread take turns.
    pub(crate) compacting: Mutex<()>,
}

/// A kind of background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Segment,
    Flush,
    Compaction,
}

/// What background work has come to.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) jobs: u64,
    /// The last error of each kind of job, until one of that kind succeeds.
    errors: [Option<String>; 3],
}

impl Progress {
    pub(crate) fn error_of(&self, job: Job) -> Option<&str> {
        self.errors[job as usize].as_deref()
    }

    /// The error of any job that does not get on.
    pub(crate) fn error(&self) -> Option<&str> {
        self.errors.iter().flatten().next().map(String::as_str)
    }
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        fs: Arc<dyn Fs>,
        catalog: Catalog,
        cache: Arc<BlockCache>,
        retention: Arc<Retention>,
        commit: Commit,
        state: State,
    ) -> Shared {
        let version = state.version.clone();
        let shared = Shared {
            options,
            fs,
            catalog,
            commit,
            retention,
            cache,
            counters: Counters::default(),
            delay: AtomicU64::new(0),
            saved_delay: AtomicU64::new(0),
            state: ArcSwap::from_pointee(state),
            replacing: Mutex::new(()),
            flush_work: Signal::default(),
            compaction_work: Signal::default(),
            progress: Mutex::default(),
            progressed: Condvar::new(),
            stopping: AtomicBool::new(false),
            flushing: Mutex::new(()),
            compacting: Mutex::new(()),
        };
        shared.set_delay(&version);
        shared
    }

    /// Everything that can be read now. Taking it writes to nothing that threads share.
    #[inline]
    pub(crate) fn state(&self) -> Guard<Arc<State>> {
        step();
        self.state.load()
    }

    /// Replaces the state by what `change` makes of it.
    pub(crate) fn replace_state(&self, change: impl FnOnce(&State) -> State) {
        let _turn = self.replacing.lock();
        let next = Arc::new(change(&self.state.load()));
        step();
        self.state.store(next);
    }

    /// Puts a version in force that an edit has made durable.
    pub(crate) fn install(&self, version: &Arc<Version>) {
        self.replace_state(|state| State {
            active: state.active.clone(),
            sealed: state.sealed.clone(),
            version: version.clone(),
        });
        self.set_delay(version);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A job has ended: tells everybody who waits for one.
    pub(crate) fn job_ended(&self, job: Job, result: &Result<()>) {
        let mut progress = self.progress.lock();
        progress.jobs += 1;
        progress.errors[job as usize] = result.as_ref().err().map(Error::to_string);
        self.progressed.notify_all();
    }

    /// Something happened that may decide whether waiting for a job makes sense.
    pub(crate) fn tell_progress(&self) {
        let mut progress = self.progress.lock();
        progress.jobs += 1;
        self.progressed.notify_all();
    }
}
