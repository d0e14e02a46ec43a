//! Tests of whole tables, and what they share.

mod damage;
mod forged;
mod golden;
mod layout;
mod memory;
mod model;
mod range_tombstones;
mod reads;
mod salvage;

use std::ops::Bound;
use std::sync::Arc;

use super::{Compression, Parts, ReadMode, Reads, Table, TableMeta, TableOptions, TableWriter, dump};
use crate::codec::SeqNo;
use crate::codec::hash::KeyHash;
use crate::storage::testing::MemFile;
use crate::storage::{BlockCache, Edge, End, Fragment, Kind, Result, TableId, Version};

const TABLE: TableId = TableId(7);
const NAME: &str = "000007.sst";
const PUT: Kind = Kind::Put { expires_at: None };

/// An entry as the tests keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: Vec<u8>,
    seq: SeqNo,
    kind: Kind,
    value: Vec<u8>,
}

fn entry(key: impl AsRef<[u8]>, seq: u64, kind: Kind, value: impl AsRef<[u8]>) -> Entry {
    Entry { key: key.as_ref().to_vec(), seq: SeqNo(seq), kind, value: value.as_ref().to_vec() }
}

fn sort(entries: &mut [Entry]) {
    entries.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
}

/// Small blocks and partitions, so that few entries make many.
fn small_blocks(compression: Compression) -> TableOptions {
    TableOptions { block_bytes: 200, partition_bytes: 500, compression, ..TableOptions::default() }
}

fn build(entries: &[Entry], id: TableId, options: TableOptions) -> (Arc<MemFile>, TableMeta) {
    build_with(entries, &[], id, options)
}

/// Of a prefix that no entry of these tests has.
fn ranges() -> Vec<Fragment> {
    let fragment = |start: &str, end: &str, seqs: &[u64]| {
        let seqs = seqs.iter().copied().map(SeqNo).collect();
        Fragment { start: Edge::from(start.as_bytes()), end: Some(Edge::from(end.as_bytes())), seqs }
    };
    vec![fragment("del:a", "del:c", &[900, 20]), fragment("del:c", "del:d", &[20]), fragment("del:x", "del:y", &[7])]
}

fn build_with(entries: &[Entry], ranges: &[Fragment], id: TableId, options: TableOptions) -> (Arc<MemFile>, TableMeta) {
    let file = MemFile::new();
    let mut writer = TableWriter::new(file.clone(), NAME, id, options);
    for entry in entries {
        writer.add(&entry.key, entry.seq, entry.kind, &entry.value).unwrap();
    }
    ranges.iter().for_each(|fragment| writer.add_ranges(fragment.clone()).unwrap());
    let meta = writer.finish().unwrap();
    (file, meta)
}

fn open(file: &Arc<MemFile>) -> Result<Arc<Table>> {
    let cache = Arc::new(BlockCache::with_capacity(1 << 20));
    Table::open(file.clone(), NAME, TABLE, cache).map(Arc::new)
}

fn forward(table: &Arc<Table>, lower: Bound<&[u8]>, mode: ReadMode) -> Result<Vec<Entry>> {
    let mut iter = table.iter_forward(lower, mode);
    let mut entries = Vec::new();
    while iter.advance()? {
        assert_eq!(&*iter.value(), iter.value_bytes());
        entries.push(entry(iter.key(), iter.seq().0, iter.kind(), iter.value()));
    }
    Ok(entries)
}

fn backward(table: &Arc<Table>, upper: Bound<&[u8]>, mode: ReadMode) -> Result<Vec<Entry>> {
    let mut iter = table.iter_backward(upper, mode);
    let mut entries = Vec::new();
    while iter.advance()? {
        assert_eq!(&*iter.value(), iter.value_bytes());
        entries.push(entry(iter.key(), iter.seq().0, iter.kind(), iter.value()));
    }
    Ok(entries)
}

fn get(table: &Table, key: &[u8], as_of: u64) -> Result<Option<Version>> {
    table.get(key, SeqNo(as_of), KeyHash::of(key), &mut Reads::default())
}

/// What [`get`] must find.
fn newest(entries: &[Entry], key: &[u8], as_of: u64) -> Option<Version> {
    let entry = entries.iter().find(|entry| entry.key == key && entry.seq.0 <= as_of)?;
    Some(Version { seq: entry.seq, kind: entry.kind, value: entry.value.clone().into() })
}

/// What a person is shown of it.
fn dump_of(file: &Arc<MemFile>) -> String {
    let mut text = Vec::new();
    dump(&Arc::new(Parts::read(file.clone(), NAME, TABLE)), true, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}
