//! Tests of what is written to a range while it is being restored, and what is not undone with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::engine::recovery::recover;
use crate::engine::{Clock, Options};
use crate::fs::SimFs;

fn write(shared: &Shared, change: impl FnOnce(&mut WriteBatch)) {
    let mut batch = WriteBatch::new();
    change(&mut batch);
    let seq = shared.submit(&batch).unwrap();
    shared.wait_durable(seq).unwrap();
}

/// All keys with their values, such as `a=1 b=2`.
fn content(shared: &Arc<Shared>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entry =
        |entry: Result<Entry>| entry.map(|entry| format!("{}={}", text(&entry.key), text(&entry.value))).unwrap();
    Snapshot::new(shared, "a test".into()).range::<&[u8]>(..).map(entry).collect::<Vec<_>>().join(" ")
}

/// Restores `b..m` while `meanwhile` writes; flushed or not before the restoration goes on. What there is then, and how many
/// keys were written.
fn restored(flushed: bool, meanwhile: impl Fn(&mut WriteBatch)) -> (String, u64) {
    let now = Arc::new(AtomicU64::new(1_000));
    let time = now.clone();
    let options = Options::new().clock(Clock(Arc::new(move || time.load(Ordering::SeqCst))));
    let options = options.history(Duration::from_secs(3600)).segment_bytes(4_000).stepped();
    let shared = Arc::new(recover(Arc::new(SimFs::new()), options).unwrap());
    write(&shared, |batch| ["a", "b", "c", "l", "m"].iter().for_each(|key| batch.put(key.as_bytes(), b"1")));
    now.store(2_000, Ordering::SeqCst);
    write(&shared, |batch| batch.put(b"c", b"2"));
    // The newest position is that of a key that is what it was.
    write(&shared, |batch| batch.put(b"b", b"1"));
    let mut first = true;
    // Called when the comparison finds that `c` has changed.
    let mut along = |_: &[u8], _: &Found, _: &mut WriteBatch| {
        if std::mem::take(&mut first) {
            write(&shared, &meanwhile);
            if flushed {
                shared.flush_all().unwrap();
            }
        }
    };
    let outcome = shared.restore(1_500, &[(b"b", Some(b"m"))], &mut along).unwrap();
    (content(&shared), outcome.value)
}

#[test]
fn what_is_written_to_the_range_meanwhile_is_undone_and_nothing_beside_it() {
    for flushed in [false, true] {
        let all = |batch: &mut WriteBatch| {
            for key in ["a", "b", "bb", "k", "l", "m", "z"] {
                batch.put(key.as_bytes(), b"3");
            }
        };
        let told = |content: &str, keys| (content.to_owned(), keys);
        assert_eq!(restored(flushed, all), told("a=3 b=1 c=1 l=1 m=3 z=3", 5), "flushed: {flushed}");
        assert_eq!(restored(flushed, |batch| batch.delete(b"l")), told("a=1 b=1 c=1 l=1 m=1", 2));
        assert_eq!(restored(flushed, |batch| batch.delete_range(b"a", Some(b"c"))), told("b=1 c=1 l=1 m=1", 2));
    }
}

#[test]
fn what_is_overwritten_meanwhile_comes_back_with_its_expiry_unless_that_has_passed() {
    for flushed in [false, true] {
        let now = Arc::new(AtomicU64::new(1_000));
        let time = now.clone();
        let options = Options::new().clock(Clock(Arc::new(move || time.load(Ordering::SeqCst))));
        let options = options.history(Duration::from_secs(3600)).stepped();
        let shared = Arc::new(recover(Arc::new(SimFs::new()), options).unwrap());
        write(&shared, |batch| {
            batch.put(b"a", b"1");
            batch.put_expiring(b"later", b"1", 9_000);
            batch.put_expiring(b"passed", b"1", 1_900);
        });
        now.store(2_000, Ordering::SeqCst);
        write(&shared, |batch| batch.put(b"a", b"2"));
        let mut first = true;
        let mut along = |_: &[u8], _: &Found, _: &mut WriteBatch| {
            if std::mem::take(&mut first) {
                write(&shared, |batch| ["later", "passed"].iter().for_each(|key| batch.put(key.as_bytes(), b"3")));
                if flushed {
                    shared.flush_all().unwrap();
                }
            }
        };
        shared.restore(1_500, &[(b"", None)], &mut along).unwrap();
        assert_eq!(content(&shared), "a=1 later=1", "flushed: {flushed}");
        now.store(9_000, Ordering::SeqCst);
        assert_eq!(content(&shared), "a=1", "flushed: {flushed}");
    }
}
