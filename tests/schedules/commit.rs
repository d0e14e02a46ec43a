//! Group commit: writers, whoever syncs, a log that fails, a power cut at any moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::fs::SimFs;
use chronos::fs::sim::{CallKind, CrashPolicy, Effect, Errno, Fault};
use chronos::{Db, Error, WriteBatch};
use parking_lot::Mutex;

use super::common::{Model, contents};
use super::explore::{explore, time_passes};
use super::{after_power_cut, open, options, put_at_last, spawn, value};

/// What came of the writes.
#[derive(Default)]
struct Told {
    acknowledged: Model,
    refused: BTreeSet<Vec<u8>>,
}

/// Two keys at once, so that half a batch would show.
fn write(db: &Db, told: &Mutex<Told>, name: &str, value: &[u8]) -> Option<u64> {
    let keys = [format!("a:{name}").into_bytes(), format!("b:{name}").into_bytes()];
    let mut batch = WriteBatch::new();
    keys.iter().for_each(|key| batch.put(key, value));
    let result = db.write(&batch);
    let mut told = told.lock();
    match result {
        Ok(seq) => {
            told.acknowledged.extend(keys.map(|key| (key, value.to_vec())));
            Some(seq.0)
        }
        Err(Error::ReadOnly(_)) => {
            told.refused.extend(keys);
            None
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn check(found: &Model, told: &Told, when: &str) {
    for (key, value) in &told.acknowledged {
        assert!(found.get(key) == Some(value), "{when}: {} was acknowledged", key.escape_ascii());
    }
    for key in found.keys() {
        assert!(!told.refused.contains(key), "{when}: {} was refused", key.escape_ascii());
        let other = [if key[0] == b'a' { &b"b"[..] } else { b"a" }, &key[1..]].concat();
        assert!(key[1] != b':' || found.contains_key(&other), "{when}: half of {}", key.escape_ascii());
    }
}

fn scenario(rng: &mut Rng) {
    let disk = SimFs::new();
    let options = options(rng).durability(Durability::Always);
    let db = open(&disk, &options);
    if time_passes() && rng.chance(2, 3) {
        let nth = rng.below(8) as usize;
        let fault = match rng.below(3) {
            0 => Fault::new(CallKind::Write, nth, Errno::IO),
            1 => {
                Fault { effect: Effect::Prefix(rng.below(100) as usize), ..Fault::new(CallKind::Write, nth, Errno::IO) }
            }
            _ => Fault { effect: Effect::Dropped, ..Fault::new(CallKind::Sync, nth, Errno::IO) },
        };
        disk.fail(fault);
    }
    let told: Arc<Mutex<Told>> = Arc::default();
    let writers: Vec<_> = (0..2 + rng.below(2))
        .map(|writer| {
            let (db, told) = (db.clone(), told.clone());
            let (writes, len) = (1 + rng.below(3), 10 + rng.below(60) as usize);
            spawn(move || {
                let mut last = 0;
                for n in 0..writes {
                    if let Some(seq) = write(&db, &told, &format!("{writer}:{n}"), &value(n, len)) {
                        assert!(seq > last, "positions of one thread's writes ascend");
                        last = seq;
                    }
                }
            })
        })
        .collect();
    if rng.chance(1, 2) {
        // The power goes while they write.
        let acknowledged = told.lock().acknowledged.clone();
        let found = after_power_cut(&disk, &options, &CrashPolicy::Synced);
        check(&found, &Told { acknowledged, refused: BTreeSet::new() }, "power cut");
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let told = std::mem::take(&mut *told.lock());
    check(&contents(&db).unwrap(), &told, "at the end");
    for policy in [CrashPolicy::Synced, CrashPolicy::Random { seed: rng.next_u64() }] {
        check(&after_power_cut(&disk, &options, &policy), &told, "power cut at the end");
    }
    // Whatever has failed, writes come back.
    put_at_last(&db, b"last", b"");
    db.close().unwrap();
    drop(db);
    let found = contents(&open(&disk, &options.stepped())).unwrap();
    check(&found, &told, "after a restart");
    assert!(found.contains_key(&b"last"[..]) && found.len() == told.acknowledged.len() + 1, "nothing else is there");
}

#[test]
fn what_is_acknowledged_is_durable_and_what_is_refused_never_was() {
    explore("what_is_acknowledged_is_durable_and_what_is_refused_never_was", 16, scenario);
}
