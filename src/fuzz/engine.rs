//! The engine as a whole: operations on a database against a `BTreeMap`, and a database of which some files were changed.

use std::sync::{Arc, OnceLock};

use super::Input;
use super::common::{Change, Model, NOW, STRATEGIES, apply, contents, encode, tiny_options};
use crate::Options;
use crate::admin::{Directory, verify};
use crate::fs::sim::CrashPolicy;
use crate::fs::{Fs, SimFs};
use crate::storage::fuzz::seal_file;

/// Few, so that operations meet.
const KEYS: u8 = 12;

/// What an input may cost at most.
const MOST_OPERATIONS: usize = 100;

fn key(input: &mut Input<'_>) -> Vec<u8> {
    // Some are prefixes of others.
    let n = input.u8() % KEYS;
    [&b"key"[..], &[b'a'; 3][..usize::from(n % 4)], &[b'0' + n / 4]].concat()
}

fn change(input: &mut Input<'_>) -> Change {
    let kind = input.u8();
    let key_of = key(input);
    match kind % 8 {
        0 => Change::Delete(key_of),
        1 => {
            let end = key(input);
            let (start, end) = if key_of <= end { (key_of, end) } else { (end, key_of) };
            Change::DeleteRange(start, (kind < 250).then_some(end))
        }
        2 => Change::PutExpired(key_of, b"gone".to_vec()),
        3 => Change::Put(key_of, vec![kind; usize::from(input.u8()) * 4]),
        _ => Change::Put(key_of, input.bytes(usize::from(kind % 32)).to_vec()),
    }
}

/// ```text
/// input     := options: u8 | operation*
/// operation := what: u8 | what it needs
/// ```
///
/// Between operations the power may be cut: each is acknowledged only when it is durable.
pub(super) fn operations(input: &[u8]) {
    let mut input = Input::new(input);
    let options = tiny_options(input.u8().into());
    let mut disk = SimFs::new();
    let open = |disk: &SimFs, options: &Options| options.clone().open_on(Arc::new(disk.clone())).unwrap();
    let mut db = open(&disk, &options);
    let mut model = Model::new();
    let mut snapshot = None;
    for _ in 0..MOST_OPERATIONS {
        if input.is_empty() {
            break;
        }
        match input.u8() % 16 {
            0..=4 => {
                let batch = [change(&mut input)];
                db.write(&encode(&batch)).unwrap();
                apply(&mut model, &batch);
            }
            5 => {
                let batch: Vec<Change> = (0..input.u8() % 6).map(|_| change(&mut input)).collect();
                db.write(&encode(&batch)).unwrap();
                apply(&mut model, &batch);
            }
            6 | 7 => {
                let key = key(&mut input);
                assert_eq!(db.get(&key).unwrap().as_deref(), model.get(&key).map(Vec::as_slice), "get {key:?}");
            }
            8 => {
                let (a, b) = (key(&mut input), key(&mut input));
                let (from, to) = if a <= b { (a, b) } else { (b, a) };
                let found: Vec<_> =
                    db.range(from.clone()..to.clone()).map(|entry| entry.unwrap().key.to_vec()).collect();
                assert!(found.iter().eq(model.range(from..to).map(|(key, _)| key)), "a range");
            }
            9 | 10 => drop(db.step().unwrap()),
            11 => db.flush().unwrap(),
            12 => db.compact().unwrap(),
            13 => snapshot = Some((db.snapshot(), model.clone())),
            14 => {
                if let Some((snapshot, shown)) = snapshot.take() {
                    let found =
                        snapshot.range::<&[u8]>(..).map(|entry| entry.map(|e| (e.key.to_vec(), e.value.to_vec())));
                    assert_eq!(&found.collect::<Result<Model, _>>().unwrap(), &shown, "a snapshot");
                }
            }
            _ => {
                snapshot = None;
                let how = input.u8();
                if how.is_multiple_of(2) {
                    disk = disk.image(disk.calls(), &[CrashPolicy::Synced, CrashPolicy::All][usize::from(how / 2 % 2)]);
                } else {
                    db.close().unwrap();
                }
                drop(db);
                db = open(&disk, &options.clone().compaction(STRATEGIES[usize::from(how) % STRATEGIES.len()]));
                assert_eq!(contents(&db).unwrap(), model, "after a restart");
            }
        }
    }
    assert_eq!(contents(&db).unwrap(), model, "at the end");
    let backward = db.range::<&[u8]>(..).reversed().map(|entry| entry.unwrap().key.to_vec());
    assert!(backward.eq(model.keys().rev().cloned()), "backward");
    for key in model.keys() {
        assert_eq!(db.get(key).unwrap().as_deref(), model.get(key).map(Vec::as_slice), "get {key:?}");
    }
}

pub(super) fn operation_seeds() -> Vec<Vec<u8>> {
    let mut rng = crate::codec::Rng::new(1);
    (0..12u8)
        .map(|options| {
            (0..300).fold(vec![options], |mut seed, _| {
                seed.push(rng.next_u64() as u8);
                seed
            })
        })
        .collect()
}

/// ```text
/// input := (file: u8 | offset: u16 | how: u8 | byte: u8)*
/// ```
///
/// Changes files of a database that was killed, and makes their checksums right again. Whatever they then say is an error,
/// or it is believed; nothing panics, and all of it comes to an end.
pub(super) fn files(input: &[u8]) {
    let mut input = Input::new(input);
    let mut files = killed().clone();
    let untouched = input.is_empty();
    let mut touched = std::collections::BTreeSet::new();
    for _ in 0..MOST_CHANGES {
        if input.is_empty() {
            break;
        }
        let n = usize::from(input.u8()) % files.len();
        touched.insert(n);
        let bytes = &mut files[n].1;
        let (offset, how, byte) = (usize::from(input.u16()) % bytes.len().max(1), input.u8(), input.u8());
        match how % 4 {
            0 => bytes.truncate(offset),
            1 => bytes.get_mut(offset).into_iter().for_each(|at| *at ^= byte),
            2 => bytes.get_mut(offset).into_iter().for_each(|at| *at = byte),
            _ => bytes.get_mut(offset..).into_iter().for_each(|rest| {
                let len = rest.len().min(usize::from(how / 4 % 9));
                rest[..len].fill(byte);
            }),
        }
    }
    let disk = SimFs::new();
    for (n, (name, bytes)) in files.iter_mut().enumerate() {
        if touched.contains(&n) {
            seal_file(name, bytes);
        }
        disk.write_file(name, bytes.clone());
    }
    let on_disk: Arc<dyn Fs> = Arc::new(disk.clone());
    let mut text = Vec::new();
    let _ = verify(&Directory::on(on_disk), &mut text);
    let Ok(db) = tiny_options(1).open_on(Arc::new(disk.clone())) else {
        assert!(!untouched);
        return;
    };
    let found = contents(&db);
    assert!(!untouched || found.unwrap().len() > 3);
    let _ = db.range::<&[u8]>(..).reversed().find(|entry| entry.is_err());
    let _ = (db.get(b"key0"), db.get_many(&[b"keya1", b"keyaa"]), db.put(b"key0", b"new"), db.stats());
    let _ = (db.flush(), db.compact(), db.close());
    drop(db);
    let _ = tiny_options(1).open_on(Arc::new(disk)).map(|db| contents(&db));
}

const MOST_CHANGES: usize = 12;

pub(super) fn file_seeds() -> Vec<Vec<u8>> {
    let each = (0..killed().len() as u8)
        .flat_map(|file| [vec![file, 60, 0, 1, 1], vec![file, 50, 0, 2, 200, file, 90, 0, 15, 0]]);
    each.chain([Vec::new()]).collect()
}

/// The files of a small database with tables in several levels, blob files and a log.
fn killed() -> &'static Vec<(String, Vec<u8>)> {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimFs::new();
        let options = tiny_options(1).memtable_bytes(2_000).segment_bytes(400).table_bytes(300).block_bytes(64);
        let options = options.compression(crate::engine::Compression::None).blob_threshold(Some(30)).level_bytes(1_000);
        let db = options.open_on(Arc::new(disk.clone())).unwrap();
        for n in 0..40u8 {
            let bytes = [n, n / 3, n, 7, n, 1, 2, 3, 4, 5, 6, 7, 8, 9];
            let mut batch = encode(&[change(&mut Input::new(&bytes)), change(&mut Input::new(&bytes[1..]))]);
            batch.put_expiring(b"expires", &[n; 20], NOW + u64::from(n));
            db.write(&batch).unwrap();
            match n {
                10 | 20 | 30 => db.flush().unwrap(),
                25 => db.compact().unwrap(),
                _ => {}
            }
        }
        let names = disk.list().unwrap();
        let mut files: Vec<_> = names.into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect();
        files.retain(|(name, _)| name != "LOCK");
        files.sort();
        std::mem::forget(db);
        files
    })
}
