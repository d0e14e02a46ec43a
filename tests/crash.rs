//! The crash enumerator. A random history runs on a simulated disk; then the power is cut after *every* call that
//! changed the disk, in many ways for each, and every disk that may be found is opened: it must open, hold every
//! acknowledged batch and nothing that was never sent, each batch whole, and leave no file behind. Some of those
//! openings are crashed again in the middle of their recovery, and some of those once more. Every other history is kept
//! for a while: then each time within the window must show what was there, too.
//!
//! `CHRONOS_CRASH_IMAGES=1000000 CHRONOS_SEED=7 cargo test --release --test crash` goes further or replays.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/past.rs"]
mod past;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use chronos::Options;
use chronos::codec::Rng;
use chronos::fs::sim::{CallKind, CrashPolicy, Errno, Fault, Times};
use chronos::fs::{Fs, SimFs};
use common::{
    Change, Model, NOW, STRATEGIES, apply, check, contents, encode, number_from_env, random_batch, tiny_options,
};
use past::Time;

/// Disks to be opened by the test command.
const IMAGES: u64 = 20_000;

/// Few keys, so that most writes overwrite and most deletes find something.
const KEYS: u64 = 40;

const BATCHES: usize = 220;

/// How deep crashes within recovery go.
const DEPTH: usize = 3;

/// When a batch is written: always two of them in one millisecond.
fn time_of(batch: usize) -> u64 {
    NOW + batch as u64 / 2
}

/// How far back the databases of this seed can be read, in milliseconds; 0: not at all.
fn window(seed: u64) -> u64 {
    [0, 20, 0, 1_000][seed as usize % 4]
}

fn options(seed: u64, time: &Time) -> Options {
    tiny_options(seed).clock(time.clock()).history(Duration::from_millis(window(seed)))
}

struct History {
    disk: SimFs,
    batches: Vec<Vec<Change>>,
    /// How many calls had been issued when each batch was acknowledged.
    acknowledged_at: Vec<usize>,
}

fn run_history(seed: u64) -> History {
    let mut rng = Rng::new(seed);
    let disk = SimFs::new();
    let time = Time::new();
    let open = |strategy| options(seed, &time).compaction(strategy).open_on(Arc::new(disk.clone())).unwrap();
    let mut db = open(*rng.pick(&STRATEGIES));
    let mut history = History { disk: disk.clone(), batches: Vec::new(), acknowledged_at: Vec::new() };
    for n in 0..BATCHES {
        time.set(time_of(n));
        let batch = random_batch(&mut rng, KEYS);
        if rng.chance(1, 3) {
            db.update(&[b"key0000"], |_, out| *out = encode(&batch)).unwrap();
        } else {
            db.write(&encode(&batch)).unwrap();
        }
        history.batches.push(batch);
        history.acknowledged_at.push(disk.calls());
        match rng.below(40) {
            0..=9 => drop(db.step().unwrap()),
            10 => db.flush().unwrap(),
            11 => db.compact().unwrap(),
            12 => {
                db.close().unwrap();
                drop(db);
                db = open(*rng.pick(&STRATEGIES));
            }
            _ => {}
        }
    }
    history
}

/// What is known about a crash: the model after everything acknowledged, and after the one batch that may be there too.
struct Expected<'a> {
    acknowledged: Model,
    with_next: Model,
    /// What there was after each number of batches, that one included, and how many are acknowledged.
    states: &'a [Model],
    count: usize,
}

impl<'a> Expected<'a> {
    fn of(states: &'a [Model], count: usize) -> Expected<'a> {
        let with_next = states[(count + 1).min(states.len() - 1)].clone();
        Expected { acknowledged: states[count].clone(), with_next, states, count }
    }

    /// At the time of the crash.
    fn options(&self, seed: u64) -> Options {
        let time = Time::new();
        time.set(time_of(self.count));
        options(seed, &time)
    }

    /// Holds what is told of the past against what there was.
    fn verify_past(&self, db: &chronos::Db, found: &Model, seed: u64, thorough: bool) {
        let Some(history) = db.stats().history else { return };
        let (oldest, now) = (history.oldest_ms, time_of(self.count));
        if self.count > 0 {
            assert_eq!(oldest, NOW.max(now.saturating_sub(window(seed))), "the oldest time");
        }
        let there = if *found == self.with_next { self.count + 1 } else { self.count };
        let times = if thorough { (oldest..=now).collect() } else { vec![oldest, oldest.midpoint(now)] };
        for when in times {
            let written = (0..there).take_while(|&batch| time_of(batch) <= when).count();
            let shown = db.range_at::<&[u8]>(when, ..).unwrap().map(|entry| entry.unwrap());
            let shown: Model = shown.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect();
            assert_eq!(shown, self.states[written.min(self.states.len() - 1)], "as of {when}, {there} batches");
        }
    }

    /// Opens the disk and holds it against what may be there; what was there.
    fn verify(&self, disk: &SimFs, seed: u64, thorough: bool) -> Model {
        let open = || self.options(seed).open_on(Arc::new(disk.clone())).expect("it must open");
        let db = open();
        let found = contents(&db).unwrap();
        assert!(
            found == self.acknowledged || found == self.with_next,
            "found {found:?}\nacknowledged {:?}\nor also {:?}",
            self.acknowledged,
            self.with_next
        );
        no_leaked_files(disk, &db);
        self.verify_past(&db, &found, seed, thorough);
        if thorough {
            check(&db, &found, KEYS);
            // Killed again without a word, and then closed in order: nothing may change.
            std::mem::forget(db);
            let image = disk.image(disk.calls(), &CrashPolicy::All);
            let db = self.options(seed).open_on(Arc::new(image.clone())).expect("it must open again");
            assert_eq!(contents(&db).unwrap(), found, "the second opening");
            db.compact().unwrap();
            db.close().unwrap();
            drop(db);
            let db = self.options(seed).open_on(Arc::new(image)).expect("it must open after a clean close");
            check(&db, &found, KEYS);
            self.verify_past(&db, &found, seed, true);
        }
        found
    }
}

fn no_leaked_files(disk: &SimFs, db: &chronos::Db) {
    let names = disk.list().unwrap();
    let count = |end: &str| names.iter().filter(|name| name.ends_with(end)).count() as u64;
    let tables: u64 = db.stats().levels.iter().map(|level| level.tables).sum();
    assert_eq!(count(".sst"), tables, "tables on disk: {names:?}");
    assert_eq!(count(".manifest"), 1, "{names:?}");
    assert_eq!(count(".tmp"), 0, "{names:?}");
}

/// Crashes a recovery at every one of its calls, and the recoveries after that.
fn crash_recovery(expected: &Expected<'_>, image: &SimFs, seed: u64, rng: &mut Rng, depth: usize) -> u64 {
    let db = expected.options(seed).open_on(Arc::new(image.clone())).expect("it must open");
    std::mem::forget(db);
    let mut images = image.images();
    let mut opened = 0;
    while images.advance() {
        for policy in [CrashPolicy::Synced, CrashPolicy::All, CrashPolicy::Random { seed: rng.next_u64() }] {
            let again = images.image(&policy);
            expected.verify(&again, seed, false);
            opened += 1;
            if depth > 1 && rng.chance(1, 20) {
                let fresh = images.image(&policy);
                opened += crash_recovery(expected, &fresh, seed, rng, depth - 1);
            }
        }
    }
    opened
}

#[test]
fn every_crash_point_keeps_what_was_acknowledged() {
    let first_seed = number_from_env("CHRONOS_SEED", 1);
    let wanted = number_from_env("CHRONOS_CRASH_IMAGES", IMAGES);
    let (mut opened, mut in_recovery) = (0, 0);
    for seed in first_seed.. {
        let history = run_history(seed);
        let mut rng = Rng::new(!seed);
        let mut images = history.disk.images();
        let mut states = vec![Model::new()];
        for batch in &history.batches {
            let mut next = states[states.len() - 1].clone();
            apply(&mut next, batch);
            states.push(next);
        }
        let mut count = 0;
        loop {
            while history.acknowledged_at.get(count).is_some_and(|&at| at <= images.at()) {
                count += 1;
            }
            let expected = Expected::of(&states, count);
            let mut policies = images.systematic();
            // Of the many single losses a few at each point; over the whole history all kinds come up.
            while policies.len() > 6 {
                policies.swap_remove(2 + rng.below(policies.len() as u64 - 2) as usize);
            }
            policies.push(CrashPolicy::Random { seed: rng.next_u64() });
            for policy in policies {
                let told = catch_unwind(AssertUnwindSafe(|| {
                    expected.verify(&images.image(&policy), seed, rng.chance(1, 8));
                    opened += 1;
                    if rng.chance(1, 3_000) {
                        let crashed = crash_recovery(&expected, &images.image(&policy), seed, &mut rng, DEPTH);
                        in_recovery += crashed;
                        opened += crashed;
                    }
                }));
                if let Err(panic) = told {
                    eprintln!(
                        "replay: CHRONOS_SEED={seed} cargo test --test crash\nafter call {} ({:?}) with {policy:?}, {count} batches acknowledged",
                        images.at(),
                        images.at().checked_sub(1).and_then(|call| history.disk.call(call)),
                    );
                    resume_unwind(panic);
                }
            }
            if opened >= wanted {
                println!(
                    "{opened} disks opened, {in_recovery} of them crashed in recovery; seeds {first_seed} to {seed}"
                );
                return;
            }
            if !images.advance() {
                break;
            }
        }
    }
}

/// A process killed between a write and its sync leaves a group that the next one reads. Its clients are told of it, so
/// it must not go when the power goes after that; nor may the start after that find a log shorter than recorded.
#[test]
fn what_a_killed_process_had_not_synced_is_durable_once_the_next_one_shows_it() {
    for policy in [CrashPolicy::Synced, CrashPolicy::All, CrashPolicy::Random { seed: 1 }] {
        let disk = SimFs::new();
        let open = |disk: &SimFs| tiny_options(1).open_on(Arc::new(disk.clone())).unwrap();
        let db = open(&disk);
        db.put(b"synced", b"").unwrap();
        disk.fail(Fault { times: Times::Forever, ..Fault::new(CallKind::Sync, 0, Errno::IO) });
        // After the group; or the manifest would learn where the log ends.
        disk.fail(Fault { times: Times::Forever, ..Fault::new(CallKind::Write, 1, Errno::IO) });
        db.put(b"unsynced", b"").unwrap_err();
        disk.heal();
        std::mem::forget(db);
        disk.kill();
        let db = open(&disk);
        let shown = contents(&db).unwrap();
        assert_eq!(shown.len(), 2, "the machine still has both: {shown:?}");
        let image = disk.image(disk.calls(), &policy);
        assert_eq!(contents(&open(&image)).unwrap(), shown, "{policy:?}");
    }
}
