//! The tests are tested: with each of the seeded defects (`src/codec/defect.rs`) in the engine, the tests that `table.rs`
//! names must fail, and without one they must pass.
//!
//! They are the ordinary tests, compiled into this binary as they are; it runs itself, once for each defect and test. Seed
//! and order are those of `cargo test`, the amounts smaller, so what is found here is found there too.
//!
//! `cargo test --features seeded-defects,schedules --test defects seeded` runs them all; with
//! `CHRONOS_DEFECT=LogNotSynced cargo test --features seeded-defects,schedules --test defects crash::` one sees a failure.
//!
//! The feature `schedules` is there for `tests/schedules/`: outside of a schedule everything is as without it.

#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::duplicate_mod, reason = "each of the tests brings what it uses, as in its own binary")]

#[path = "../checkpoint.rs"]
mod checkpoint;
#[path = "../compaction.rs"]
mod compaction;
#[path = "../crash.rs"]
mod crash;
#[path = "../damage.rs"]
mod damage;
#[path = "../embed.rs"]
mod embed;
#[path = "../faults.rs"]
mod faults;
#[path = "../full_disk.rs"]
mod full_disk;
#[path = "../history.rs"]
mod history;
#[path = "../limits.rs"]
mod limits;
#[path = "../linearizability/main.rs"]
mod linearizability;
#[path = "../model.rs"]
mod model;
#[path = "../quarantine.rs"]
mod quarantine;
#[path = "../repair.rs"]
mod repair;
#[path = "../schedules/main.rs"]
mod schedules;
mod table;
#[path = "../threads.rs"]
mod threads;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use table::CAUGHT_BY;

/// Runs at a time. Some tests have threads of their own.
const WORKERS: usize = 2;

/// A run that takes longer hangs: the longest takes a few seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// So much of each test finds every defect of the table that it is there for.
const AMOUNTS: [(&str, &str); 7] = [
    ("CHRONOS_CRASH_IMAGES", "8000"),
    ("CHRONOS_FAULT_RUNS", "2000"),
    ("CHRONOS_FULL_RUNS", "400"),
    ("CHRONOS_HISTORY_RUNS", "10"),
    ("CHRONOS_MODEL_OPS", "100000"),
    ("CHRONOS_HISTORIES", "40"),
    ("CHRONOS_SCHEDULES", "12500"),
];

#[derive(Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    /// Killed at the limit, or ended by itself in another way than a test does.
    Other(String),
}

/// Ends with the test that waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(test: &str, defect: Option<&str>) -> (End, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--test-threads=1"]).envs(AMOUNTS).env("CHRONOS_SEED", "1");
        match defect {
            Some(defect) => command.env("CHRONOS_DEFECT", defect),
            None => command.env_remove("CHRONOS_DEFECT"),
        };
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        Running(command.spawn().unwrap())
    };
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut told = Vec::new();
        let _ = reader.read_to_end(&mut told);
        let _ = sender.send(String::from_utf8_lossy(&told).into_owned());
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(told) => {
            assert!(told.contains("running 1 test\n"), "there is no test {test}:\n{told}");
            let end = match child.0.wait().unwrap().code() {
                Some(0) => End::Passed,
                Some(101) if told.contains("test result: FAILED. 0 passed; 1 failed") => End::Failed,
                _ => End::Other("it died".to_owned()),
            };
            (end, told)
        }
        Err(RecvTimeoutError::Timeout) => (End::Other(format!("no end within {LIMIT:?}")), String::new()),
        Err(RecvTimeoutError::Disconnected) => (End::Other("its output cannot be read".to_owned()), String::new()),
    }
}

fn replay(test: &str, defect: Option<&str>) -> String {
    let amounts: String = AMOUNTS.iter().map(|(name, amount)| format!("{name}={amount} ")).collect();
    let defect = defect.map_or(String::new(), |defect| format!("CHRONOS_DEFECT={defect} "));
    format!(
        "{defect}CHRONOS_SEED=1 {amounts}cargo test --features seeded-defects,schedules --test defects -- --exact {test}"
    )
}

#[test]
fn every_seeded_defect_is_caught_by_the_tests_that_the_table_names() {
    let tests: BTreeSet<&str> = CAUGHT_BY.iter().flat_map(|(_, tests)| *tests).copied().collect();
    let sound = tests.iter().map(|test| (*test, None));
    let defective = CAUGHT_BY.iter().flat_map(|(defect, tests)| tests.iter().map(|test| (*test, Some(*defect))));
    // The last comes first: the runs without a defect are the longest.
    let mut work: Vec<(&str, Option<&str>)> = defective.chain(sound).collect();
    let all = work.len();
    work.reverse();
    let (work, complaints) = (Mutex::new(work.into_iter()), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((test, defect)) = work.lock().next() else { return };
                    let (end, told) = run(test, defect);
                    let complaint = match (&end, defect) {
                        (End::Passed, None) | (End::Failed, Some(_)) => continue,
                        (End::Passed, Some(defect)) => format!("{defect} is NOT caught by {test}"),
                        (_, None) => format!("{test} fails without a defect ({end:?}):\n{told}"),
                        (_, Some(defect)) => {
                            format!("{test} does not fail of {defect}, but otherwise: {end:?}\n{told}")
                        }
                    };
                    complaints.lock().insert((defect, test), format!("{complaint}\n  {}", replay(test, defect)));
                }
            });
        }
    });
    let complaints = complaints.into_inner();
    println!("{} defects, {} tests, {all} runs", CAUGHT_BY.len(), tests.len());
    assert!(complaints.is_empty(), "\n{}", complaints.into_values().collect::<Vec<_>>().join("\n"));
}
