//! The n-th call to the disk fails, once or for ever, with and without a part of it done. Whatever happens: a write that
//! was acknowledged is there, one that was refused is not, reads go on and are right, writes resume by themselves when
//! the disk does, and a restart, clean or after a power cut, finds the same.
//!
//! `CHRONOS_FAULT_RUNS=100000 CHRONOS_SEED=7 cargo test --release --test faults` goes further or replays.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use chronos::Db;
use chronos::codec::Rng;
use chronos::fs::SimFs;
use chronos::fs::sim::{CallKind, CrashPolicy, Effect, Errno, Fault, Times};
use common::{Change, Model, apply, contents, encode, number_from_env, random_batch, tiny_options};

/// Runs done by the test command.
const RUNS: u64 = 10_000;

const KEYS: u64 = 30;
const BATCHES: u64 = 60;

fn random_fault(rng: &mut Rng) -> Fault {
    let call = *rng.pick(&[
        CallKind::Create,
        CallKind::Write,
        CallKind::Write,
        CallKind::Sync,
        CallKind::Sync,
        CallKind::Rename,
        CallKind::Remove,
        CallKind::SyncDir,
    ]);
    let prefix = Effect::Prefix(rng.below(200) as usize);
    let effect = match call {
        CallKind::Write => *rng.pick(&[Effect::Nothing, prefix]),
        CallKind::Sync | CallKind::SyncDir => *rng.pick(&[Effect::Nothing, Effect::Dropped]),
        _ => Effect::Nothing,
    };
    Fault {
        nth: rng.below(60) as usize,
        error: *rng.pick(&[Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::ROFS]),
        times: *rng.pick(&[Times::Once, Times::Forever]),
        effect,
        call,
    }
}

/// Changes of one batch. Often several of them are of one key, so that what failed has to be taken back from under each other.
fn changes(rng: &mut Rng) -> Vec<Change> {
    let mut batch = random_batch(rng, KEYS);
    if rng.chance(1, 3) {
        let key = format!("key{:04}", rng.below(KEYS)).into_bytes();
        for n in 0..2 + rng.below(3) {
            let change = match rng.below(4) {
                0 => Change::Delete(key.clone()),
                _ => Change::Put(key.clone(), format!("{n} of several").into_bytes()),
            };
            let at = rng.below(batch.len() as u64 + 1) as usize;
            batch.insert(at, change);
        }
    }
    batch
}

/// A batch that was sent, and which calls to the disk were made until it was answered.
struct Sent {
    batch: Vec<Change>,
    calls: Range<usize>,
    acknowledged: bool,
}

/// That a power cut after call `at` left what it may leave.
fn check_power_cut(disk: &SimFs, sent: &[Sent], at: usize, seed: u64, policy: &CrashPolicy) {
    let mut model = Model::new();
    // The group that the log failed with, and the one that was on its way.
    let mut maybe: Option<&Sent> = None;
    for sent in sent.iter().take_while(|sent| sent.calls.start <= at) {
        if sent.acknowledged && sent.calls.end <= at {
            apply(&mut model, &sent.batch);
            maybe = None;
        } else if maybe.is_none() || sent.acknowledged {
            maybe = Some(sent);
        }
    }
    let mut with_it = model.clone();
    if let Some(sent) = maybe {
        apply(&mut with_it, &sent.batch);
    }
    let image = disk.image(at, policy);
    let db = tiny_options(seed).open_on(Arc::new(image)).expect("it must open");
    let found = contents(&db).unwrap();
    assert!(
        found == model || found == with_it,
        "power cut after call {at} with {policy:?}: {found:?}\nmodel {model:?}"
    );
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimFs::new();
    let open = |disk: &SimFs| tiny_options(seed).open_on(Arc::new(disk.clone()));
    let db: Db = open(&disk).unwrap();
    disk.fail(random_fault(&mut rng));
    let heal_at = BATCHES / 2 + rng.below(BATCHES / 2);

    let mut model = Model::new();
    // Refused since writes last worked: a crash before the log is closed behind them may bring them back.
    let mut in_doubt: Vec<Vec<Change>> = Vec::new();
    let mut healed_refusals = 0;
    let mut sent: Vec<Sent> = Vec::new();
    let opened = disk.calls();
    for number in 0..BATCHES {
        if number == heal_at {
            disk.heal();
        }
        let batch = changes(&mut rng);
        let before = disk.calls();
        let result = db.write(&encode(&batch));
        let acknowledged = result.is_ok();
        sent.push(Sent { batch: batch.clone(), calls: before..disk.calls(), acknowledged });
        match result {
            Ok(_) => {
                apply(&mut model, &batch);
                in_doubt.clear();
            }
            Err(chronos::Error::ReadOnly(_)) => {
                if number > heal_at {
                    healed_refusals += 1;
                }
                in_doubt.push(batch);
            }
            Err(other) => panic!("a refused write says so: {other:?}"),
        }
        assert_eq!(contents(&db).unwrap(), model, "what is read after batch {number}");
        // The background's turn. It may fail as long as the fault lasts.
        let step = db.step();
        assert!(step.is_ok() || number <= heal_at, "{step:?} although the disk has recovered");
        if rng.chance(1, 20) {
            drop(db.flush());
        }
    }
    assert!(healed_refusals <= 1, "writes resume with the first step after the disk has recovered");

    for _ in 0..2 {
        let at = opened + rng.below((disk.calls() - opened) as u64 + 1) as usize;
        check_power_cut(&disk, &sent, at, seed, &CrashPolicy::Random { seed: rng.next_u64() });
    }
    let crashed = disk.image(disk.calls(), &CrashPolicy::Random { seed: rng.next_u64() });
    let found = contents(&open(&crashed).expect("it must open")).unwrap();
    let mut with_doubt = model.clone();
    // What was refused at most once: the group that the log failed with.
    in_doubt.iter().take(1).for_each(|batch| apply(&mut with_doubt, batch));
    assert!(found == model || found == with_doubt, "after a power cut: {found:?}\nmodel {model:?}");

    db.write(&encode(&[Change::Put(b"key0000".to_vec(), b"last".to_vec())])).unwrap();
    model.insert(b"key0000".to_vec(), b"last".to_vec());
    db.close().unwrap();
    drop(db);
    assert_eq!(contents(&open(&disk).unwrap()).unwrap(), model, "after a clean restart");
    check_file_numbers(&disk);
}

/// That no two files have had the same number: what a failed edit has named may still come back.
fn check_file_numbers(disk: &SimFs) {
    let mut numbers = BTreeSet::new();
    for name in (0..disk.calls()).filter_map(|call| disk.call(call)?.strip_prefix("create ").map(str::to_owned)) {
        let number = name.split('.').next().and_then(|number| number.parse::<u64>().ok());
        assert!(number.is_none_or(|number| numbers.insert(number)), "the number of {name} was given out before");
    }
}

#[test]
fn whatever_call_fails_nothing_acknowledged_is_lost_and_nothing_refused_appears() {
    let first_seed = number_from_env("CHRONOS_SEED", 1);
    for seed in (first_seed..).take(number_from_env("CHRONOS_FAULT_RUNS", RUNS) as usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("replay: CHRONOS_SEED={seed} CHRONOS_FAULT_RUNS=1 cargo test --test faults");
            resume_unwind(panic);
        }
    }
}
