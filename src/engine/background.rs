//! The engine's own threads: log, segments, flush, compaction. Each does one kind of work until the database is closed;
//! a job that fails is reported, and tried again after a pause that grows.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::shared::{Job, Shared, Signal};
use super::{Error, Result};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};

/// Pauses between attempts of a job that fails: short enough to go on soon after the disk does, and never a busy loop.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Where nothing is flushed, only time makes something due (expiry, age, a snapshot that is gone): that is looked for
/// this many times less often than whether flushes have ceased.
const IDLE_LOOKS: u32 = 12;

/// How much the compaction thread gives way to others (a nice value): clients wait for the log, not for compaction.
const COMPACTION_NICE: i32 = 10;

/// What a thread does until the database is closed.
type Work = fn(&Shared);

/// Starts the threads.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, run: Work| {
        let shared = shared.clone();
        thread::Builder::new().name(format!("chronos-{name}")).spawn(move || run(&shared)).map_err(|source| Error::Io {
            file: "a background thread".to_owned(),
            what: "start",
            source,
        })
    };
    let work: [(&str, Work); 4] = [
        ("log", Shared::run_log),
        ("segments", |shared| {
            let job = |_| shared.prepare_segment().map(|()| false);
            run_jobs(shared, &shared.commit.segment_work, Job::Segment, None, job);
        }),
        ("flush", |shared| run_jobs(shared, &shared.flush_work, Job::Flush, None, |_| shared.flush_oldest())),
        ("compact", |shared| {
            give_way();
            let idle_after = Some(shared.options.idle_after);
            let job = |idle| shared.compact_if_due(idle);
            run_jobs(shared, &shared.compaction_work, Job::Compaction, idle_after, job);
        }),
    ];
    let mut threads = Vec::with_capacity(work.len());
    for (name, run) in work {
        match spawn(name, run) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those that did start would work on a directory that the caller is about to give back.
                stop(shared, threads);
                return Err(error);
            }
        }
    }
    Ok(threads)
}

/// Stops the threads and waits for them.
pub(crate) fn stop(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    shared.stopping.store(true, Ordering::Release);
    for signal in [&shared.commit.log_work, &shared.commit.segment_work, &shared.flush_work, &shared.compaction_work] {
        signal.notify();
    }
    shared.tell_progress();
    for thread in threads {
        // A panic has been reported by the panic hook; what it left undone is in the log.
        drop(thread.join());
    }
}

/// Does jobs whenever there is a signal, as long as there is another one. If there was no signal for `idle_after`, the
/// job is told so, and again after longer times.
fn run_jobs(
    shared: &Shared,
    signal: &Signal,
    kind: Job,
    idle_after: Option<Duration>,
    mut job: impl FnMut(bool) -> Result<bool>,
) {
    let mut pause = PAUSES.0;
    let mut retry = false;
    let mut rest = idle_after;
    while !shared.is_stopping() {
        let signalled = signal.wait(if retry { Some(pause) } else { rest });
        let idle = !signalled && !retry;
        rest = idle_after.map(|after| if idle { after * IDLE_LOOKS } else { after });
        loop {
            if shared.is_stopping() {
                return;
            }
            match job(idle && !signal.is_set()) {
                Ok(true) => {
                    pause = PAUSES.0;
                    shared.job_ended(kind, &Ok(()));
                }
                Ok(false) => {
                    if std::mem::take(&mut retry) {
                        shared.job_ended(kind, &Ok(()));
                    }
                    break;
                }
                Err(Error::Closed) => return,
                Err(error) => {
                    warn!(job = ?kind, %error, retry_in = ?pause, "a background job has failed");
                    shared.job_ended(kind, &Err(error));
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
