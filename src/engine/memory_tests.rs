//! What the engine says that it keeps in memory is what it has from the allocator.

use std::ops::Range;
use std::sync::Arc;

use super::memtable::Memtable;
use super::output::TableOutput;
use super::range_tombstones::RangeTombstones;
use super::recovery::recover;
use super::version::TableSource;
use super::{Options, SeqNo, WriteBatch};
use crate::codec::hash::KeyHash;
use crate::codec::heap::{assert_near, held};
use crate::fs::{OsFs, SimFs};
use crate::storage::blob::BlobUse;
use crate::storage::names::FileNumber;
use crate::storage::sstable::Compression;
use crate::storage::{BlockCache, Fragments, Kind, Use};

/// Keys in no order, so that what keeps them in order is as full as it usually is.
fn key(n: u64, len: usize) -> Vec<u8> {
    let mut key = KeyHash::of(&n.to_be_bytes()).0.to_be_bytes().to_vec();
    key.resize(len, b'k');
    key
}

/// Writes each key, the n-th at `seq + n`.
fn put_all(memtable: &Memtable, keys: Range<u64>, key_len: usize, value: &[u8], seq: u64) {
    for n in keys {
        let mut batch = WriteBatch::new();
        batch.put(&key(n, key_len), value);
        memtable.apply(batch.bytes(), SeqNo(seq + n), SeqNo(0));
    }
}

/// A memtable may say that it takes more than it does, since it is sealed by what it says, but hardly less.
#[track_caller]
fn assert_enough(what: &str, told: usize, held: usize) {
    assert!(held / 10 * 9 <= told && told <= 2 * held, "{what}: {told} bytes are told, {held} are held");
}

#[test]
fn a_memtable_tells_what_it_takes() {
    for (what, key_len, value_len, versions) in
        [("small", 8, 8, 1), ("long keys", 300, 0, 1), ("large values", 16, 5_000, 1), ("older versions", 8, 0, 4)]
    {
        let keys = 50_000_000 / (key_len + value_len + 400) as u64 / versions;
        let (memtable, held) = held(|| {
            let memtable = Memtable::new(false);
            (0..versions).for_each(|at| put_all(&memtable, 0..keys, key_len, &vec![7; value_len], 1 + at * keys));
            memtable
        });
        assert_enough(what, memtable.bytes(), held);
    }
}

#[test]
fn what_the_order_of_keys_takes_is_told_with_it_and_given_back() {
    const KEYS: u64 = 50_000;
    // Those that lie in the order itself, the longest of them, and longer ones.
    for key_len in [8, 24, 25, 100] {
        let memtable = Memtable::new(false);
        put_all(&memtable, 0..KEYS, key_len, b"", 1);
        let unordered = memtable.bytes();
        let ((), held) = held(|| memtable.keep_order());
        let ordered = memtable.bytes();
        assert_enough(&format!("keys of {key_len} bytes"), ordered - unordered, held);
        memtable.take_back(SeqNo(KEYS / 2));
        put_all(&memtable, KEYS / 2..KEYS, key_len, b"", 1);
        assert_eq!(memtable.bytes(), ordered, "with keys of {key_len} bytes");
    }
}

#[test]
fn range_tombstones_tell_what_they_take() {
    for (what, key_len, seqs) in [("many", 8, 1), ("long keys", 300, 1), ("many times", 8, 40)] {
        let (ranges, held) = held(|| {
            let mut ranges = RangeTombstones::default();
            for n in 0..3_000 {
                let (start, mut end) = (key(n, key_len), key(n, key_len));
                end.push(b'e');
                let seqs: Vec<SeqNo> = (1..=seqs).rev().map(SeqNo).collect();
                ranges.add(&start, Some(&end), &seqs, SeqNo(0));
            }
            ranges
        });
        assert_enough(what, ranges.bytes(), held);
    }
}

#[test]
fn what_writes_tables_and_values_is_charged_for_what_it_takes() {
    const STEP: usize = 64 << 10;
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().compression(Compression::Lz4).blob_threshold(Some(1 << 20)).stepped();
    let shared = recover(Arc::new(OsFs::open(dir.path()).unwrap()), options).unwrap();
    for value_len in [0, 2 << 20] {
        let count = if value_len == 0 { 100_000u32 } else { 3 };
        let value = vec![7; value_len];
        let (output, held) = held(|| {
            let mut output = TableOutput::new(&shared, 6, u64::MAX, None, Fragments::default(), std::iter::empty());
            for n in 0..count {
                output.add(&n.to_be_bytes(), SeqNo(1), Kind::Put { expires_at: None }, &value).unwrap();
            }
            output
        });
        let told = shared.cache.charged(Use::Jobs) as usize;
        assert!(told.abs_diff(held) <= STEP + held / 10, "{told} bytes are told, {held} are held");
        drop(output);
        assert_eq!(shared.cache.charged(Use::Jobs), 0);
    }
}

#[test]
fn handles_of_blob_files_are_shared_and_let_go() {
    let source = TableSource::new(Arc::new(SimFs::new()), Arc::new(BlockCache::with_capacity(1 << 20)));
    let handle = |n| {
        let blob = BlobUse { file: FileNumber(n), file_bytes: 100, used_bytes: 100 };
        source.blobs.handles(&source.deleter, &source.files, &[blob])[0].clone()
    };
    let kept = handle(1);
    let ((), held) = held(|| (2..10_000).for_each(|n| drop(handle(n))));
    assert!(Arc::ptr_eq(&kept, &handle(1)), "whoever still has one shares it");
    assert_near("those that are gone", 0, held);
}
