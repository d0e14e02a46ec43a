//! The real server on a real file system that fails: an ext4 behind a loop device whose own disk has no room, that becomes
//! read-only, or that stands still. Afterwards it is mounted anew, so that nothing is read but what the disk has.
//!
//! `CHRONOS_DISK_FAILURES=100 CHRONOS_SEED=7 cargo test --release --test real_disk` does each as often, or replays the
//! choices (not the moments: those are the machine's).

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/disks.rs"]
mod disks;
#[path = "common/journal.rs"]
mod journal;
#[path = "common/needs.rs"]
mod needs;
#[path = "common/server.rs"]
mod server;
#[path = "common/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use common::number_from_env;
use disks::{Ext4, Frozen};
use journal::{Journal, Reads, Refused, audit, wait_for_writes, work};
use needs::has_root_and;
use rustix::process::Signal;
use server::Server;
use wire::{Connection, Dialect, PATIENCE, words};

/// How often each failure is brought about in the test command.
const FAILURES: u64 = 1;

const CLIENTS: usize = 4;

const FLAGS: &[&str] = &["--memory", "8MiB"];

/// How soon after the disk writes must be accepted: the longest pause between attempts, and some.
const RESUME: Duration = Duration::from_secs(5);

/// Megabytes of the file system (little enough for one group of blocks), and of the disk below, which has room for it until something else takes that.
const DISK: u32 = 120;
const ROOM: u32 = DISK + DISK / 4;

/// Room for the first segment of a log, a manifest, and not much more.
const FIRST_SEGMENT: u64 = 4 << 20;

/// What a life before the failure leaves behind.
const BEFORE: u64 = 1_000;

/// Refusals that show that writes are refused and not only one.
const REFUSALS: u64 = 20;

/// The seeds of the failures.
fn failures() -> std::ops::Range<u64> {
    let first = number_from_env("CHRONOS_SEED", std::process::id().into());
    println!("CHRONOS_SEED={first}");
    first..first + number_from_env("CHRONOS_DISK_FAILURES", FAILURES)
}

fn end(server: Server, signal: Signal) {
    server.signal(signal);
    let (status, log) = server.wait();
    // It may well say that it could not close the database.
    assert!(matches!(status.code(), None | Some(0 | 1)), "{status}: {log}");
}

fn reasons(journals: &[Journal]) -> String {
    let all: BTreeSet<&String> = journals.iter().flat_map(|journal| &journal.refusals).collect();
    all.into_iter().map(|why| format!("{why}\n")).collect()
}

/// A first life, so that the directory is there, and room for what keeps it.
fn begin(disk: &mut Ext4, journals: &mut [Journal]) {
    let server = Server::start(&disk.data(), FLAGS);
    work(&server.addr, journals, Reads::GoOn, |tally| tally.wait_for_more(BEFORE));
    end(server, Signal::TERM);
    disk.take_room_for_inodes().unwrap();
}

/// Mounts the disk anew, as after a boot, and holds what is there against the journals.
fn check_elsewhere(disk: &mut Ext4, journals: &mut [Journal]) {
    disk.unmount().unwrap();
    disk.mount(&[]).unwrap();
    let server = Server::start(&disk.data(), FLAGS);
    audit(&server.addr, journals, Refused::MayReturn);
    work(&server.addr, journals, Reads::GoOn, |tally| tally.wait_for_more(100));
    audit(&server.addr, journals, Refused::Gone);
    end(server, Signal::TERM);
}

/// The disk below runs out of room. Writes have succeeded, into memory; it is fdatasync that fails, once, and a second one
/// says that all is well. First it happens to the log, which has no next segment; later mostly to tables, as the
/// memtables are small. With room again, writes resume.
///
/// The restart is on the same mount. Mounted anew (`CHRONOS_DISK_REMOUNT=1`), in one of some thirty runs a log file was
/// shorter than what fdatasync had called durable; whether ext4 has lost that, whose own blocks may also have found no
/// room, is not known yet.
#[test]
fn an_fsync_that_really_fails_loses_nothing_that_was_acknowledged_and_writes_resume() {
    for seed in failures() {
        let Some(mut disk) = Ext4::mount_new(DISK, ROOM) else { return };
        let mut journals = Journal::of_clients(CLIENTS, seed);
        begin(&mut disk, &mut journals);
        disk.take_room_for_journal().unwrap();
        for (flags, left, failed) in [(&["--memory", "64MiB"][..], FIRST_SEGMENT, ".wal: sync"), (FLAGS, 0, ": sync")] {
            if left > 0 {
                disk.below.fill_but(left);
            }
            let server = Server::start(&disk.data(), flags);
            work(&server.addr, &mut journals, Reads::GoOn, |tally| {
                if left == 0 {
                    tally.wait_for_more(BEFORE);
                    disk.below.fill();
                }
                assert!(tally.wait(PATIENCE, |counts| counts.refused > REFUSALS), "{:?}", tally.counts());
                disk.below.free();
                println!("writes resumed {:?} after there was room", wait_for_writes(&server.addr, RESUME));
                tally.wait_for_more(BEFORE);
            });
            assert!(reasons(&journals).contains(failed), "{}", reasons(&journals));
            audit(&server.addr, &mut journals, Refused::Gone);
            end(server, if seed.is_multiple_of(2) { Signal::KILL } else { Signal::TERM });
            let server = Server::start(&disk.data(), FLAGS);
            audit(&server.addr, &mut journals, Refused::MayReturn);
            end(server, Signal::TERM);
            if number_from_env("CHRONOS_DISK_REMOUNT", 0) == 1 {
                check_elsewhere(&mut disk, &mut journals);
            }
        }
    }
}

/// The kernel finds an error in the file system and lets nobody write any more, whatever is open.
#[test]
fn a_file_system_that_the_kernel_makes_read_only_is_read_and_restarted_elsewhere() {
    for seed in failures() {
        let Some(mut disk) = Ext4::mount_new(DISK, ROOM) else { return };
        disk.unmount().unwrap();
        disk.mount(&["errors=remount-ro"]).unwrap();
        let mut journals = Journal::of_clients(CLIENTS, seed);
        let server = Server::start(&disk.data(), FLAGS);
        work(&server.addr, &mut journals, Reads::GoOn, |tally| {
            tally.wait_for_more(BEFORE);
            disk.find_error().unwrap();
            assert!(tally.wait(PATIENCE, |counts| counts.refused > REFUSALS), "{:?}", tally.counts());
        });
        assert!(reasons(&journals).contains("(os error "), "{}", reasons(&journals));
        audit(&server.addr, &mut journals, Refused::Gone);
        end(server, if seed.is_multiple_of(2) { Signal::KILL } else { Signal::TERM });
        check_elsewhere(&mut disk, &mut journals);
    }
}

/// Mounted read-only, as after an error at boot: everything is read, writes are refused while they come in, and accepted
/// once it is mounted for writing.
#[test]
fn on_a_read_only_file_system_it_starts_reads_and_resumes_when_that_is_remounted() {
    for seed in failures() {
        let Some(mut disk) = Ext4::mount_new(DISK, ROOM) else { return };
        let mut journals = Journal::of_clients(CLIENTS, seed);
        let server = Server::start(&disk.data(), FLAGS);
        work(&server.addr, &mut journals, Reads::GoOn, |tally| {
            tally.wait_for_more(BEFORE);
            server.signal(Signal::KILL);
        });
        server.wait();
        disk.remount("ro").unwrap();
        let server = Server::start(&disk.data(), FLAGS);
        audit(&server.addr, &mut journals, Refused::MayReturn);
        work(&server.addr, &mut journals, Reads::GoOn, |tally| {
            assert!(tally.wait(PATIENCE, |counts| counts.refused > REFUSALS), "{:?}", tally.counts());
            assert_eq!(tally.counts().acknowledged, 0);
            disk.remount("rw").unwrap();
            println!("writes resumed {:?} after the remount", wait_for_writes(&server.addr, RESUME));
            tally.wait_for_more(BEFORE);
        });
        assert!(reasons(&journals).contains("Read-only file system"), "{}", reasons(&journals));
        audit(&server.addr, &mut journals, Refused::Gone);
        end(server, Signal::KILL);
        check_elsewhere(&mut disk, &mut journals);
    }
}

/// A disk that answers nothing: who writes waits, who reads what is in memory does not, and afterwards all is well.
#[test]
fn on_a_disk_that_stands_still_reads_go_on_and_writes_wait() {
    if !has_root_and(&["fsfreeze"]) {
        return;
    }
    for seed in failures() {
        let Some(mut disk) = Ext4::mount_new(DISK, ROOM) else { return };
        let mut journals = Journal::of_clients(CLIENTS, seed);
        let server = Server::start(&disk.data(), FLAGS);
        let mut reader = Connection::open(&server.addr, Dialect::Resp).unwrap();
        reader.ask(&[words("SET probe here")]);
        work(&server.addr, &mut journals, Reads::GoOn, |tally| {
            tally.wait_for_more(BEFORE);
            let frozen = Frozen::freeze(disk.path());
            let before = tally.counts().acknowledged;
            // What is already written may still be on its way to the clients; then there is nothing more to come.
            while tally.wait(Duration::from_millis(200), |counts| counts.acknowledged > before + 1_000) {}
            for _ in 0..100 {
                assert_eq!(reader.ask(&[words("GET probe")]).remove(0).one(), b"here");
            }
            drop(frozen);
            tally.wait_for_more(BEFORE);
            assert_eq!(tally.counts().refused, 0);
        });
        audit(&server.addr, &mut journals, Refused::Gone);
        end(server, Signal::KILL);
        check_elsewhere(&mut disk, &mut journals);
    }
}
