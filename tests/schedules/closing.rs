//! Closing a database that is in use: whoever waits is told, nothing hangs, nothing is let in afterwards.

use std::sync::Arc;

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::fs::sim::{CallKind, Errno, Fault};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error};
use parking_lot::Mutex;

use crate::common::{Model, contents};
use crate::explore::{explore, time_passes};
use crate::{open, options, spawn, value};

/// Writes a thread does at most, should closing take its time.
const MOST_WRITES: u64 = 6;

fn scenario(rng: &mut Rng) {
    let disk = SimFs::new();
    let durability = *rng.pick(&[Durability::Always, Durability::Always, Durability::Os]);
    let options = options(rng).durability(durability);
    let db = open(&disk, &options);
    let fails = durability == Durability::Always && time_passes() && rng.chance(1, 3);
    if fails {
        let call = *rng.pick(&[CallKind::Write, CallKind::Sync]);
        disk.fail(Fault::new(call, rng.below(10) as usize, Errno::IO));
    }
    let acknowledged: Arc<Mutex<Model>> = Arc::default();
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (db, acknowledged) = (db.clone(), acknowledged.clone());
            let len = 20 + rng.below(100) as usize;
            spawn(move || {
                for n in 0..MOST_WRITES {
                    let key = format!("{writer}:{n}").into_bytes();
                    match db.put(&key, &value(n, len)) {
                        Ok(_) => drop(acknowledged.lock().insert(key, value(n, len))),
                        Err(Error::Closed) => return,
                        Err(Error::ReadOnly(_)) if fails => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let call: fn(&Db) -> Result<(), Error> = *rng.pick(&[Db::flush as fn(&Db) -> _, Db::compact]);
    let working = spawn({
        let db = db.clone();
        move || match call(&db) {
            Ok(()) | Err(Error::Closed) => {}
            Err(Error::ReadOnly(_) | Error::Background(_) | Error::Io { .. }) if fails => {}
            Err(other) => panic!("{other:?}"),
        }
    });
    let snapshot = rng.chance(1, 2).then(|| db.snapshot());
    for _ in 0..rng.below(4) {
        shuttle::thread::yield_now();
    }
    if rng.chance(1, 4) {
        let db = db.clone();
        spawn(move || db.close().unwrap()).join().unwrap();
    } else {
        db.close().unwrap();
    }
    assert!(matches!(db.put(b"late", b""), Err(Error::Closed)));
    // The directory may be another's from now on.
    let guard = disk.lock().map_err(|_| "locked").unwrap();
    let calls = disk.calls();
    if let Some(snapshot) = &snapshot {
        assert!(snapshot.range::<&[u8]>(..).all(|entry| entry.is_ok()), "reads go on");
    }
    writers.into_iter().chain([working]).for_each(|thread| thread.join().unwrap());
    assert!(disk.calls() == calls, "{:?}", (calls..disk.calls()).map(|n| disk.call(n)).collect::<Vec<_>>());
    drop(guard);
    let acknowledged = acknowledged.lock().clone();
    assert!(contents(&db).unwrap() == acknowledged, "what is read");
    drop((snapshot, db));
    assert!(contents(&open(&disk, &options.stepped())).unwrap() == acknowledged, "after a restart");
}

#[test]
fn closing_tells_everybody_and_loses_nothing() {
    explore("closing_tells_everybody_and_loses_nothing", 10, scenario);
}
