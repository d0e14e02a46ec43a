//! Closing a database that is in use: whoever waits is told, nothing hangs, nothing is let in afterwards.

use std::sync::Arc;

use chronos::codec::Rng;
use chronos::engine::Durability;
use chronos::fs::sim::{CallKind, CrashPolicy, Errno, Fault};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error};
use parking_lot::Mutex;
use shuttle::thread::{JoinHandle, yield_now};

use super::common::{Model, contents};
use super::explore::{explore, time_passes};
use super::{open, options, spawn, value};

/// Writes a thread does at most, should closing take its time.
const MOST_WRITES: u64 = 6;

/// Maybe somebody else closes the database, too; how much the disk had been told by then.
fn close(db: &Db, disk: &SimFs, rng: &mut Rng) -> Option<JoinHandle<usize>> {
    let closing = rng.chance(1, 2).then(|| {
        let (db, disk) = (db.clone(), disk.clone());
        spawn(move || {
            db.close().unwrap();
            disk.calls()
        })
    });
    for _ in 0..rng.below(4) {
        yield_now();
    }
    closing
}

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
    let closing = close(&db, &disk, rng);
    db.close().unwrap();
    let closed = disk.calls();
    assert!(closing.into_iter().all(|thread| thread.join().unwrap() == closed), "who came second has waited");
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
    explore("closing_tells_everybody_and_loses_nothing", 8, scenario);
}

/// So often somebody looks whether a table was begun.
const MOST_LOOKS: u64 = 300;

fn newest_table(disk: &SimFs) -> Option<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".sst")).max()
}

/// There is much to compact, and a caller is at it: the next to open the directory finds nobody at work there.
fn compacting(rng: &mut Rng) {
    let disk = SimFs::new();
    let options = options(rng).durability(Durability::Os);
    let db = open(&disk, &options);
    let mut model = Model::new();
    for n in 0..4 + rng.below(8) {
        let key = format!("key:{}", n % 5).into_bytes();
        db.put(&key, &value(n, 40)).unwrap();
        model.insert(key, value(n, 40));
        if n % 3 == 0 {
            db.flush().unwrap();
        }
    }
    db.flush().unwrap();
    let before = newest_table(&disk);
    let compacting = spawn({
        let db = db.clone();
        move || assert!(matches!(db.compact(), Ok(()) | Err(Error::Closed)))
    });
    // Mostly it is in the middle of a table by then.
    let looks = if rng.chance(1, 4) { rng.below(40) } else { MOST_LOOKS };
    for _ in 0..looks {
        if newest_table(&disk) > before {
            break;
        }
        yield_now();
    }
    let closing = close(&db, &disk, rng);
    db.close().unwrap();
    let calls = disk.calls();
    let another = open(&disk.image(calls, &CrashPolicy::All), &options.stepped());
    compacting.join().unwrap();
    assert!(closing.into_iter().all(|thread| thread.join().unwrap() == calls), "who came second has waited");
    assert!(disk.calls() == calls, "{:?}", (calls..disk.calls()).map(|n| disk.call(n)).collect::<Vec<_>>());
    assert!(contents(&another).unwrap() == model, "after a restart");
}

#[test]
fn who_compacts_while_another_closes_is_at_an_end_when_the_directory_is_free() {
    explore("who_compacts_while_another_closes_is_at_an_end_when_the_directory_is_free", 4, compacting);
}
