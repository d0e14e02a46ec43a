//! Replies that ride the log, and whoever else waits for a position; what happens is in `src/server/schedules.rs`, since it
//! cannot be seen from outside.

use chronos::Db;
use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::fs::SimFs;
use chronos::fs::sim::{CallKind, Errno, Fault};
use chronos::server::schedules;

use super::explore::{explore, time_passes};
use super::{open, options};

/// A database of which the log may fail once.
fn with_db(rng: &mut Rng, scenario: fn(&Db, &mut Rng)) {
    let disk = SimFs::new();
    let db = open(&disk, &options(rng).durability(Durability::Always));
    if time_passes() && rng.chance(2, 3) {
        let call = *rng.pick(&[CallKind::Write, CallKind::Sync]);
        disk.fail(Fault::new(call, rng.below(6) as usize, Errno::IO));
    }
    scenario(&db, rng);
    db.close().unwrap();
}

#[test]
fn replies_come_once_in_order_and_true() {
    let scenario = |rng: &mut Rng| with_db(rng, schedules::replies_ride_the_log);
    explore("replies_come_once_in_order_and_true", 12, scenario);
}

#[test]
fn every_waiter_is_told_once() {
    explore("every_waiter_is_told_once", 4, |rng| with_db(rng, schedules::waiters_are_told_once));
}
