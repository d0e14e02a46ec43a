//! What must stay bounded, and what is allowed at the edges.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use chronos::engine::Durability;
use chronos::fs::sim::{CallKind, CrashPolicy, Errno, Fault, Times};
use chronos::fs::{Fs, SimFs};
use chronos::{Db, Error, Options, SeqNo, WriteBatch};
use common::{Model, contents, tiny_options};

fn stepped(disk: &SimFs) -> Db {
    let options = Options::new().stepped().memtable_bytes(5_000).segment_bytes(2_000).table_bytes(2_000);
    options.open_on(Arc::new(disk.clone())).unwrap()
}

fn files(disk: &SimFs, end: &str) -> usize {
    disk.list().unwrap().iter().filter(|name| name.ends_with(end)).count()
}

/// One hot key never fills a memtable. The log must not grow for ever because of that.
#[test]
fn a_log_that_outgrows_its_memtable_is_let_go_of() {
    let disk = SimFs::new();
    let db = stepped(&disk);
    let mut most = 0;
    for n in 0..5_000u64 {
        db.put(b"counter", &n.to_le_bytes()).unwrap();
        if n % 10 == 0 {
            db.step().unwrap();
        }
        most = most.max(files(&disk, ".wal"));
    }
    assert!(most < 25, "{most} log segments of 2,000 bytes for a memtable of 5,000");
    assert!(db.stats().log_bytes < 50_000, "{}", db.stats().log_bytes);
    let image = disk.image(disk.calls(), &CrashPolicy::Synced);
    assert_eq!(stepped(&image).get(b"counter").unwrap().unwrap(), 4_999u64.to_le_bytes().to_vec().into());
}

/// A manifest that has outgrown what it says is rewritten, and only then. What it lists of the log goes with it.
#[test]
fn a_manifest_that_outgrows_its_content_is_rewritten() {
    const MOST: usize = 1 << 20;
    /// Each table's first and last key stand in the manifest: few edits fill it.
    const KEY: usize = 3_000;
    let disk = SimFs::new();
    // Some segments have gone when the manifest is rewritten, and one is in use before and after.
    let options = Options::new().stepped().memtable_bytes(5_000).segment_bytes(20_000).table_bytes(2_000);
    let db = options.clone().open_on(Arc::new(disk.clone())).unwrap();
    let (mut manifests, mut model) = (BTreeSet::new(), Model::new());
    for n in 0..60u8 {
        for end in [0, 1] {
            let mut key = vec![end; KEY];
            key[KEY - 1] = n % 4;
            db.put(&key, &[n; 20]).unwrap();
            model.insert(key, vec![n; 20]);
        }
        db.flush().unwrap();
        while db.step().unwrap() {}
        let mut names = disk.list().unwrap();
        names.retain(|name| name.ends_with(".manifest"));
        let [name] = &names[..] else { panic!("{names:?}") };
        let len = disk.read_file(name).unwrap().len();
        // The edit that went over it, of a flush or of a compaction, has the keys of a few tables.
        assert!(len < MOST + 40 * KEY, "{n}: the manifest has {len} bytes");
        let rewritten = manifests.insert(name.clone());
        // What only the log has, in a segment that was listed before.
        db.put(b"log", &[n]).unwrap();
        model.insert(b"log".to_vec(), vec![n]);
        if rewritten {
            let image = disk.image(disk.calls(), &CrashPolicy::Synced);
            let found = contents(&options.clone().open_on(Arc::new(image)).unwrap()).unwrap();
            assert!(found == model, "{n}: a restart finds something else");
        }
    }
    assert!((2..10).contains(&manifests.len()), "{manifests:?}");
}

/// A disk that is full is not filled further by the attempts to go on.
#[test]
fn attempts_that_fail_leave_no_file_behind() {
    for call in [CallKind::Create, CallKind::Write, CallKind::Sync, CallKind::SyncDir, CallKind::Rename] {
        for nth in 0..12 {
            let disk = SimFs::new();
            let db = stepped(&disk);
            for n in 0..120u64 {
                db.put(&n.to_be_bytes(), &[1; 100]).unwrap();
            }
            disk.fail(Fault { times: Times::Forever, ..Fault::new(call, nth, Errno::NOSPC) });
            let mut most = 0;
            for n in 0..40u64 {
                drop(db.put(&n.to_be_bytes(), &[2; 100]));
                drop(db.step());
                most = most.max(disk.list().unwrap().len());
            }
            assert!(most < 40, "{most} files after {call:?} {nth}: {disk:?}");
            disk.heal();
            while db.step().unwrap() {}
            db.put(b"healed", b"").unwrap();
            db.flush().unwrap();
            while db.step().unwrap() {}
            let tables: u64 = db.stats().levels.iter().map(|level| level.tables).sum();
            assert_eq!(files(&disk, ".sst") as u64, tables, "{call:?} {nth}: {disk:?}");
            assert_eq!(files(&disk, ".manifest"), 1, "{call:?} {nth}: {disk:?}");
            assert!(files(&disk, ".wal") <= 3, "{call:?} {nth}: {disk:?}");
            assert_eq!(files(&disk, ".tmp"), 0, "{call:?} {nth}: {disk:?}");
        }
    }
}

/// Numbers of writes that failed are nobody's: what comes after them asks only for what is there.
#[test]
fn a_flush_and_an_empty_batch_succeed_after_the_log_has_failed_and_come_back() {
    let disk = SimFs::new();
    let db = stepped(&disk);
    db.put(b"a", b"1").unwrap();
    disk.fail(Fault::new(CallKind::Sync, 0, Errno::IO));
    assert!(matches!(db.put(b"a", b"2"), Err(Error::ReadOnly(_))));
    assert!(matches!(db.write(&WriteBatch::new()), Err(Error::ReadOnly(_))), "nothing is accepted now");
    assert!(db.step().unwrap());
    assert_eq!(db.write(&WriteBatch::new()).unwrap(), SeqNo(1));
    db.flush().unwrap();
    db.compact().unwrap();
    assert_eq!(db.stats().flushes, 1);
    assert_eq!(db.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_closed_database_leaves_the_directory_alone() {
    let disk = SimFs::new();
    let db = stepped(&disk);
    for n in 0..300u64 {
        db.put(&(n % 40).to_be_bytes(), &[n as u8; 60]).unwrap();
        if n % 60 == 0 {
            db.flush().unwrap();
        }
    }
    db.close().unwrap();
    assert_eq!(files(&disk, ".wal"), 0, "all is in tables: the next start has nothing to replay");
    let (calls, before) = (disk.calls(), contents(&db).unwrap());
    let another = stepped(&disk);
    let opened = disk.calls();
    for result in [db.flush(), db.compact(), db.put(b"k", b"v").map(drop), db.write(&WriteBatch::new()).map(drop)] {
        assert!(matches!(result, Err(Error::Closed)), "{result:?}");
    }
    assert!(db.step().is_err());
    db.close().unwrap();
    assert_eq!(contents(&db).unwrap(), before, "reads go on");
    drop(db);
    let since: Vec<_> = (opened..disk.calls()).map(|n| disk.call(n)).collect();
    assert!(since.is_empty(), "{since:?}");
    assert!(opened > calls);
    assert_eq!(contents(&another).unwrap(), before);
}

/// Another may have the directory by then, and in it a file of that name: a backup that was put in its place.
#[test]
fn what_is_still_read_when_a_database_is_closed_is_left_to_the_next_start() {
    still_read_at_the_end(None, ".sst");
}

/// The same of values that lie apart.
#[test]
fn blob_files_that_are_still_read_when_a_database_is_closed_are_left_to_the_next_start() {
    still_read_at_the_end(Some(30), ".blob");
}

/// A range begins, then what it reads is moved: files of these ends stay until the next start.
fn still_read_at_the_end(blob_threshold: Option<usize>, end: &str) {
    const KEYS: u64 = 40;
    let disk = SimFs::new();
    let options = Options::new().stepped().memtable_bytes(5_000).table_bytes(2_000).blob_threshold(blob_threshold);
    let db = options.clone().open_on(Arc::new(disk.clone())).unwrap();
    let fill = |byte: u8, keys: u64| {
        (0..keys).for_each(|n| _ = db.put(&n.to_be_bytes(), &[byte; 60]).unwrap());
        db.flush().unwrap();
    };
    fill(1, KEYS);
    // Most of the first blob file is garbage, so that what is left of it is moved.
    fill(2, KEYS - 5);
    let mut half = db.range::<&[u8]>(..);
    let expected = contents(&db).unwrap();
    let first = half.next().unwrap().unwrap();
    db.compact().unwrap();
    while db.step().unwrap() {}
    db.close().unwrap();
    let (calls, before) = (disk.calls(), files(&disk, end));
    let rest = half.by_ref().map(|entry| entry.unwrap()).chain([first]).map(|e| (e.key.to_vec(), e.value.to_vec()));
    assert_eq!(rest.collect::<Model>(), expected, "reads go on");
    drop((half, db));
    assert_eq!(disk.calls(), calls, "{:?}", (calls..disk.calls()).map(|n| disk.call(n)).collect::<Vec<_>>());
    let db = options.open_on(Arc::new(disk.clone())).unwrap();
    assert_eq!(contents(&db).unwrap(), expected);
    assert!((1..before).contains(&files(&disk, end)), "of {before} files: {disk:?}");
}

/// What could not be written is lost when a database is closed without a sync before each reply: whoever closes it hears
/// of that, also who comes late, and nothing is tried again.
#[test]
fn a_close_that_fails_is_told_to_everybody_who_closes() {
    let disk = SimFs::new();
    let db = Options::new().stepped().durability(Durability::Os).open_on(Arc::new(disk.clone())).unwrap();
    db.put(b"a", b"1").unwrap();
    disk.fail(Fault { times: Times::Forever, ..Fault::new(CallKind::Write, 0, Errno::NOSPC) });
    let told = db.close().unwrap_err();
    assert!(matches!(&told, Error::Io { source, .. } if source.raw_os_error() == Some(28)), "{told:?}");
    disk.heal();
    let calls = disk.calls();
    assert_eq!(format!("{:?}", db.clone().close().unwrap_err()), format!("{told:?}"));
    drop(db);
    assert_eq!(disk.calls(), calls);
}

/// Where replies do not wait for the log, what it then fails to take is to be flushed. A close that can do neither says so.
#[test]
fn a_close_that_can_keep_acknowledged_writes_nowhere_is_an_error() {
    let disk = SimFs::new();
    let options = Options::new().stepped().durability(Durability::Os);
    let db = options.open_on(Arc::new(disk.clone())).unwrap();
    db.put(b"a", b"1").unwrap();
    disk.fail(Fault { times: Times::Forever, ..Fault::new(CallKind::Write, 0, Errno::NOSPC) });
    assert!(db.step().is_err());
    assert_eq!(db.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    let closed = db.close();
    assert!(matches!(closed, Err(Error::ReadOnly(_) | Error::Io { .. })), "{closed:?}");
}

#[test]
fn keys_and_values_may_have_every_length_up_to_their_limits() {
    let disk = SimFs::new();
    let open = || tiny_options(3).open_on(Arc::new(disk.clone())).unwrap();
    let db = open();
    let longest = vec![0xff; 64 << 10];
    let large: Vec<u8> = (0..3 << 20).map(|n: u32| (n.wrapping_mul(n) >> 7) as u8).collect();
    let pairs: [(&[u8], &[u8]); 5] =
        [(b"\0", b""), (&longest, &large), (&longest[1..], b"x"), (b"\xff", &longest), (&[0; 1000], &large[..70_000])];
    for (key, value) in pairs {
        db.put(key, value).unwrap();
    }
    let too_long = vec![0; (64 << 10) + 1];
    for refused in [db.put(b"", b"v"), db.put(&too_long, b"v"), db.delete(b""), db.delete(&too_long)] {
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }
    let holds = |db: &Db| {
        for (key, value) in pairs {
            assert!(db.get(key).unwrap().as_deref() == Some(value), "a key of {} bytes", key.len());
        }
        assert_eq!(db.range::<&[u8]>(..).count(), pairs.len());
        assert_eq!(db.range::<&[u8]>(..).reversed().count(), pairs.len());
    };
    holds(&db);
    let image = disk.image(disk.calls(), &CrashPolicy::Synced);
    holds(&tiny_options(3).open_on(Arc::new(image)).unwrap());
    db.compact().unwrap();
    holds(&db);
    db.close().unwrap();
    drop(db);
    holds(&open());
}

/// A file name that looks like ours but could never have been given out is foreign.
#[test]
fn a_planted_file_name_cannot_stop_the_start() {
    let disk = SimFs::new();
    let db = stepped(&disk);
    db.put(b"a", b"1").unwrap();
    db.close().unwrap();
    drop(db);
    let planted = "18446744073709551615.sst";
    disk.write_file(planted, *b"not ours");
    let db = stepped(&disk);
    db.put(b"b", b"2").unwrap();
    assert_eq!(contents(&db).unwrap().len(), 2);
    assert!(disk.read_file(planted).is_some(), "what is foreign stays");
}
