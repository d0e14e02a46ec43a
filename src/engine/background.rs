//! The engine's own threads: log, segments, flush, compaction. Each does one kind of work until the database is closed;
//! a job that fails is reported, and tried again after a pause that grows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::warn;

use super::shared::{Shared, Signal};
use super::{Error, Result};

/// Pauses between attempts of a job that fails: short enough to go on soon after the disk does, and never a busy loop.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How much the compaction thread gives way to others (a nice value): clients wait for the log, not for compaction.
const COMPACTION_NICE: i32 = 10;

/// Starts the threads.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, run: fn(&Shared)| {
        let shared = shared.clone();
        std::thread::Builder::new()
            .name(format!("chronos-{name}"))
            .spawn(move || run(&shared))
            .map_err(|source| Error::Io { file: "a background thread".to_owned(), what: "start", source })
    };
    Ok(vec![
        spawn("log", Shared::run_log)?,
        spawn("segments", |shared| {
            run_jobs(shared, &shared.commit.segment_work, "prepare a log segment", || {
                shared.prepare_segment().map(|()| false)
            });
        })?,
        spawn("flush", |shared| run_jobs(shared, &shared.flush_work, "flush", || shared.flush_oldest()))?,
        spawn("compact", |shared| {
            give_way();
            run_jobs(shared, &shared.compaction_work, "compact", || shared.compact_if_due());
        })?,
    ])
}

/// Stops the threads and waits for them.
pub(crate) fn stop(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    shared.stopping.store(true, Ordering::Release);
    for signal in [&shared.commit.log_work, &shared.commit.segment_work, &shared.flush_work, &shared.compaction_work] {
        signal.notify();
    }
    {
        let _progress = shared.progress.lock();
        shared.progressed.notify_all();
    }
    for thread in threads {
        // A panic has been reported by the panic hook; what it left undone is in the log.
        drop(thread.join());
    }
}

/// Does jobs whenever there is a signal, as long as there is another one.
fn run_jobs(shared: &Shared, signal: &Signal, what: &str, mut job: impl FnMut() -> Result<bool>) {
    let mut pause = PAUSES.0;
    let mut retry = false;
    while !shared.is_stopping() {
        signal.wait(retry.then_some(pause));
        loop {
            if shared.is_stopping() {
                return;
            }
            match job() {
                Ok(true) => {
                    pause = PAUSES.0;
                    shared.job_ended(&Ok(()));
                }
                Ok(false) => {
                    retry = false;
                    break;
                }
                Err(Error::Closed) => return,
                Err(error) => {
                    warn!(%error, retry_in = ?pause, "cannot {what}");
                    shared.job_ended(&Err(error));
                    if retry {
                        pause = (pause * 2).min(PAUSES.1);
                    }
                    retry = true;
                    break;
                }
            }
        }
    }
}

/// Lets other threads go first. Best effort: without it compaction is only less polite.
fn give_way() {
    // On Linux a nice value belongs to a thread, and "no process" is the calling one.
    let _ = rustix::process::setpriority_process(None, COMPACTION_NICE);
}
