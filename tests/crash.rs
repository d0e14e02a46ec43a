//! The crash enumerator. A random history runs on a simulated disk; then the power is cut after *every* call that
//! changed the disk, in many ways for each, and every disk that may be found is opened: it must open, hold every
//! acknowledged batch and nothing that was never sent, each batch whole, and leave no file behind. Some of those
//! openings are crashed again in the middle of their recovery, and some of those once more. Every other history is kept
//! for a while: then each time within the window must show what was there, too. And the same without a sync before each
//! reply: then the newest may be gone, but in what is left there is no hole.
//!
//! `CHRONOS_CRASH_IMAGES=1000000 CHRONOS_SEED=7 cargo test --release --test crash` goes further or replays.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/past.rs"]
mod past;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use chronos::Options;
use chronos::codec::Rng;
use chronos::engine::{Durability, Entropy};
use chronos::fs::sim::{CallKind, CrashPolicy, Errno, Fault, Times};
use chronos::fs::{Fs, SimFs};
use common::{
    Change, Model, NOW, STRATEGIES, apply, check, contents, encode, number_from_env, random_batch, tiny_options, until,
};
use parking_lot::Mutex;
use past::Time;

/// Disks to be opened by the test command.
const IMAGES: u64 = 20_000;

/// So many times fewer are of databases that do not sync before each reply.
const UNSYNCED_PART: u64 = 2;

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

fn options(seed: u64, durability: Durability, time: &Time) -> Options {
    let options = tiny_options(seed).clock(time.clock()).durability(durability);
    match durability {
        Durability::Always => options.history(Duration::from_millis(window(seed))),
        // Of what a crash takes it takes the time, too: that would be another oracle.
        _ => options,
    }
}

struct History {
    disk: SimFs,
    batches: Vec<Vec<Change>>,
    /// How many calls had been issued when each batch was answered.
    answered_at: Vec<usize>,
    /// How many batches no crash may take any more, and from how many calls on; ascending.
    kept_at: Vec<(usize, usize)>,
}

fn run_history(seed: u64, durability: Durability) -> History {
    let mut rng = Rng::new(seed);
    let disk = SimFs::new();
    let time = Time::new();
    let open =
        |strategy| options(seed, durability, &time).compaction(strategy).open_on(Arc::new(disk.clone())).unwrap();
    let mut db = open(*rng.pick(&STRATEGIES));
    let (disk_of, batches, answered_at, kept_at) = (disk.clone(), Vec::new(), Vec::new(), Vec::new());
    let mut history = History { disk: disk_of, batches, answered_at, kept_at };
    for n in 0..BATCHES {
        time.set(time_of(n));
        let batch = random_batch(&mut rng, KEYS);
        if rng.chance(1, 3) {
            db.update(&[b"key0000"], |_, out| *out = encode(&batch)).unwrap();
        } else {
            db.write(&encode(&batch)).unwrap();
        }
        history.batches.push(batch);
        history.answered_at.push(disk.calls());
        if durability == Durability::Always {
            history.kept_at.push((n + 1, disk.calls()));
        }
        match rng.below(40) {
            0..=9 => drop(db.step().unwrap()),
            10 => db.flush().unwrap(),
            11 => db.compact().unwrap(),
            12 => {
                db.close().unwrap();
                drop(db);
                db = open(*rng.pick(&STRATEGIES));
            }
            _ => continue,
        }
        // Whatever it was, it has synced the log or made tables of all.
        history.kept_at.push((n + 1, disk.calls()));
    }
    history
}

/// What is known about a crash.
#[derive(Clone, Copy)]
struct Expected<'a> {
    seed: u64,
    durability: Durability,
    /// What there was after each number of batches.
    states: &'a [Model],
    /// How many of them must be there ...
    least: usize,
    /// ... and how many may be: those answered, and the one on its way.
    most: usize,
    /// How many databases were opened. No two draw the same salts: a disk may give a new file the blocks of one that an
    /// earlier start had under the same number, and only by its salt is that known for what it is.
    opened: &'a Cell<u64>,
}

impl Expected<'_> {
    /// At the time of the crash.
    fn options(&self) -> Options {
        let time = Time::new();
        time.set(time_of(self.least));
        self.opened.set(self.opened.get() + 1);
        let salts = Mutex::new(Rng::new(self.opened.get() << 32 ^ self.seed));
        options(self.seed, self.durability, &time).entropy(Entropy(Arc::new(move || salts.lock().next_u64())))
    }

    /// Holds what is told of the past against what there was, `there` batches being there.
    fn verify_past(&self, db: &chronos::Db, there: usize, thorough: bool) {
        let Some(history) = db.stats().history else { return };
        let (oldest, now) = (history.oldest_ms, time_of(self.least));
        if self.least > 0 {
            assert_eq!(oldest, NOW.max(now.saturating_sub(window(self.seed))), "the oldest time");
        }
        let times = if thorough { (oldest..=now).collect() } else { vec![oldest, oldest.midpoint(now)] };
        for when in times {
            let written = (0..there).take_while(|&batch| time_of(batch) <= when).count();
            let shown = db.range_at::<&[u8]>(when, ..).unwrap().map(|entry| entry.unwrap());
            let shown: Model = shown.map(|entry| (entry.key.to_vec(), entry.value.to_vec())).collect();
            assert_eq!(shown, self.states[written.min(self.states.len() - 1)], "as of {when}, {there} batches");
        }
    }

    /// Opens the disk and holds it against what may be there.
    fn verify(&self, disk: &SimFs, thorough: bool) {
        let open = || self.options().open_on(Arc::new(disk.clone())).expect("it must open");
        let db = open();
        let found = contents(&db).unwrap();
        let there = (self.least..=self.most).rfind(|&count| self.states[count] == found).unwrap_or_else(|| {
            let (least, most) = (&self.states[self.least], &self.states[self.most]);
            panic!("found {found:?}\nafter {} batches {least:?}\nafter {} {most:?}", self.least, self.most)
        });
        no_leaked_files(disk, &db);
        self.verify_past(&db, there, thorough);
        if thorough {
            check(&db, &found, KEYS);
            // Killed again without a word, and then closed in order: nothing may change.
            let image = disk.image(disk.calls(), &CrashPolicy::All);
            drop(db);
            let db = self.options().open_on(Arc::new(image.clone())).expect("it must open again");
            assert_eq!(contents(&db).unwrap(), found, "the second opening");
            db.compact().unwrap();
            db.close().unwrap();
            drop(db);
            let db = self.options().open_on(Arc::new(image)).expect("it must open after a clean close");
            check(&db, &found, KEYS);
            self.verify_past(&db, there, true);
        }
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
fn crash_recovery(expected: &Expected<'_>, image: &SimFs, rng: &mut Rng, depth: usize) -> u64 {
    let db = expected.options().open_on(Arc::new(image.clone())).expect("it must open");
    // Of what it has done so far; nobody looks at the disk that it is then closed on.
    let mut images = image.images();
    drop(db);
    let mut opened = 0;
    while images.advance() {
        for policy in [CrashPolicy::Synced, CrashPolicy::All, CrashPolicy::Random { seed: rng.next_u64() }] {
            let again = images.image(&policy);
            expected.verify(&again, false);
            opened += 1;
            if depth > 1 && rng.chance(1, 20) {
                let fresh = images.image(&policy);
                opened += crash_recovery(expected, &fresh, rng, depth - 1);
            }
        }
    }
    opened
}

fn crash_everywhere(durability: Durability, wanted: u64) {
    let first_seed = number_from_env("CHRONOS_SEED", 1);
    let (mut opened, mut in_recovery) = (0, 0);
    for seed in first_seed.. {
        let history = run_history(seed, durability);
        let mut rng = Rng::new(!seed);
        let mut images = history.disk.images();
        let mut states = vec![Model::new()];
        for batch in &history.batches {
            let mut next = states[states.len() - 1].clone();
            apply(&mut next, batch);
            states.push(next);
        }
        let opened_here = Cell::new(0);
        let mut expected = Expected { seed, durability, states: &states, least: 0, most: 0, opened: &opened_here };
        let mut kept = history.kept_at.iter().peekable();
        loop {
            let at = images.at();
            while let Some((count, _)) = kept.next_if(|(_, kept_at)| *kept_at <= at) {
                expected.least = *count;
            }
            let answered = history.answered_at.partition_point(|&answered_at| answered_at <= at);
            expected.most = (answered + 1).min(states.len() - 1);
            let mut policies = images.systematic();
            // Of the many single losses a few at each point; over the whole history all kinds come up.
            while policies.len() > 6 {
                policies.swap_remove(2 + rng.below(policies.len() as u64 - 2) as usize);
            }
            policies.push(CrashPolicy::Random { seed: rng.next_u64() });
            for policy in policies {
                let told = catch_unwind(AssertUnwindSafe(|| {
                    expected.verify(&images.image(&policy), rng.chance(1, 8));
                    opened += 1;
                    if rng.chance(1, 3_000) {
                        let crashed = crash_recovery(&expected, &images.image(&policy), &mut rng, DEPTH);
                        in_recovery += crashed;
                        opened += crashed;
                    }
                }));
                if let Err(panic) = told {
                    eprintln!(
                        "replay: CHRONOS_SEED={seed} cargo test --test crash\nafter call {at} ({:?}) with {policy:?}, {} to {} batches",
                        at.checked_sub(1).and_then(|call| history.disk.call(call)),
                        expected.least,
                        expected.most,
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

#[test]
fn every_crash_point_keeps_what_was_acknowledged() {
    crash_everywhere(Durability::Always, number_from_env("CHRONOS_CRASH_IMAGES", IMAGES));
}

/// With replies that wait for nothing, or for an interval, a crash takes the newest: not one from between.
#[test]
fn without_a_sync_before_each_reply_a_crash_takes_only_the_newest() {
    let images = number_from_env("CHRONOS_CRASH_IMAGES", IMAGES) / UNSYNCED_PART;
    crash_everywhere(Durability::Os, images);
}

/// A log thread writes group after group and syncs none until it goes on in the next segment. Whatever writes the power
/// then takes, what is left ends where the first of them was.
#[test]
fn of_groups_that_were_not_synced_none_is_there_without_those_before() {
    let options = || Options::new().durability(Durability::Os).segment_bytes(1_000).memtable_bytes(1 << 20);
    let disk = SimFs::new();
    let db = options().open_on(Arc::new(disk.clone())).unwrap();
    let groups = || db.stats().log.group_sizes.iter().sum::<u64>();
    let segments = || disk.list().unwrap().iter().filter(|name| name.ends_with(".wal")).count();
    let mut written = 0u64;
    // A segment grows past its size while the next one is not ready yet.
    while segments() <= 6 {
        db.put(&written.to_be_bytes(), &[7; 20]).unwrap();
        written += 1;
        // The thread's turn: it writes this one by itself.
        until(|| groups() == written);
    }
    std::mem::forget(db);
    let (mut rng, mut images, mut shortened) = (Rng::new(1), disk.images(), 0);
    loop {
        let mut policies = images.systematic();
        while policies.len() > 6 {
            policies.swap_remove(2 + rng.below(policies.len() as u64 - 2) as usize);
        }
        policies.push(CrashPolicy::Random { seed: rng.next_u64() });
        for policy in policies {
            let what = format!("after call {} with {policy:?}", images.at());
            let db = options().stepped().open_on(Arc::new(images.image(&policy)));
            let found = contents(&db.unwrap_or_else(|error| panic!("{what}: {error}"))).unwrap();
            assert!(found.keys().zip(0u64..).all(|(key, n)| **key == n.to_be_bytes()), "{what}: {found:?}");
            shortened += usize::from(policy != CrashPolicy::All && (found.len() as u64) < written);
        }
        if !images.advance() {
            break;
        }
    }
    assert!(shortened > 100, "{shortened}");
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
