//! Schedules: a few threads on a tiny database, on the simulated disk, under a scheduler that decides at every lock, atomic
//! and call of the disk who goes on (`src/sync/`). A third of the schedules are random, in a third threads are held up now and
//! then, a third are by priorities with a few changes (PCT). A schedule in which nobody can go on is a hang, and fails. See `explore.rs` for how one is drawn and replayed.
//!
//! `CHRONOS_SCHEDULES=1000000 cargo test --release --features schedules --test schedules` goes further.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod cache;
mod closing;
mod commit;
#[path = "../common/mod.rs"]
mod common;
mod explore;
mod replies;
mod snapshots;
mod tree;

use std::sync::Arc;

use chronos::codec::Rng;
use chronos::engine::{Clock, Entropy};
use chronos::fs::SimFs;
use chronos::fs::sim::CrashPolicy;
use chronos::{Db, Error, Options};
use common::{Model, NOW, contents};
use shuttle::thread;

/// So small that a handful of writes crosses every boundary.
fn options(rng: &mut Rng) -> Options {
    let salts = parking_lot::Mutex::new(rng.clone());
    Options::new()
        .clock(Clock(Arc::new(|| NOW)))
        .entropy(Entropy(Arc::new(move || salts.lock().next_u64())))
        .memtable_bytes(*rng.pick(&[250, 400, 1_000]))
        .segment_bytes(*rng.pick(&[300, 700, 4_000]))
        .table_bytes(*rng.pick(&[200, 1_000]))
        .level_bytes(500)
        .block_bytes(*rng.pick(&[1, 100]))
        .cache_bytes(*rng.pick(&[0, 400, 1_000_000]))
        .blob_threshold(*rng.pick(&[None, Some(30)]))
        .compaction_threads(1)
}

fn open(disk: &SimFs, options: &Options) -> Db {
    options.clone().open_on(Arc::new(disk.clone())).unwrap()
}

/// What is found after the power has gone, by a start without any thread.
fn after_power_cut(disk: &SimFs, options: &Options, policy: &CrashPolicy) -> Model {
    let image = disk.image(disk.calls(), policy);
    contents(&open(&image, &options.clone().stepped())).unwrap()
}

/// Starts a thread of the schedule.
fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(work)
}

/// Tries until it is written: the log comes back by itself.
fn put_at_last(db: &Db, key: &[u8], value: &[u8]) {
    loop {
        match db.put(key, value) {
            Ok(_) => return,
            Err(Error::ReadOnly(_)) => thread::yield_now(),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().trim_end_matches('.').parse().unwrap()
}

/// A value that tells `n`, of some length.
fn value(n: u64, len: usize) -> Vec<u8> {
    format!("{n:.<len$}").into_bytes()
}
