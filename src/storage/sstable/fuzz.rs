//! Any bytes as the parts of a table, and as a whole table with checksums that are right.

#![allow(clippy::unwrap_used, reason = "a fuzz target may")]

use std::ops::Bound;
use std::sync::Arc;

use super::block::Block;
use super::filter::Filter;
use super::footer::{self, FOOTER_BYTES, Footer};
use super::index::Index;
use super::partition::Partition;
use super::properties::Properties;
use super::salvage::{comes_before, entries};
use super::{
    Compression, Parts, Probe, ReadMode, Reads, Table, TableOptions, TableWriter, check, dump, get_cached, ranges,
};
use crate::codec::cursor::Cursor;
use crate::codec::hash::KeyHash;
use crate::codec::{Few, SeqNo, Slice};
use crate::fuzz::Input;
use crate::storage::frame::{self, Handle};
use crate::storage::fuzz::seal_stored;
use crate::storage::testing::MemFile;
use crate::storage::{BlockCache, Edge, Fragment, Kind, Result, TableId};

const TABLE: TableId = TableId(7);
const NAME: &str = "000007.sst";

/// The content of one part: `input := which: u8 | content`.
pub(crate) fn parts(input: &[u8]) {
    let mut input = Input::new(input);
    match (input.u8() % 5, input.rest()) {
        (0, content) => block(content),
        (1, content) => partition(content),
        (2, content) => {
            let Ok(filter) = Filter::decode(content) else { return };
            assert_eq!(filter.encode(), content);
            let _ = filter.may_contain(KeyHash::of(content));
        }
        (3, content) => {
            let Ok(properties) = Properties::decode(content) else { return };
            assert_eq!(Properties::decode(&properties.encode()), Ok(properties));
        }
        (_, content) => {
            let Ok(fragments) = ranges::decode(content) else { return };
            let list: Vec<Fragment> = fragments.iter().cloned().collect();
            assert!(ranges::decode(&ranges::encode(&list)).as_ref() == Ok(&fragments));
            for key in list.iter().flat_map(|fragment| [Some(&fragment.start), fragment.end.as_ref()]).flatten() {
                for as_of in [SeqNo(0), SeqNo(5), SeqNo::MAX] {
                    let covering = list.iter().filter(|fragment| fragment.contains(key));
                    let newest = covering.flat_map(|fragment| &fragment.seqs).filter(|seq| **seq <= as_of).max();
                    assert_eq!(fragments.newest(key, as_of), newest.copied());
                }
            }
        }
    }
}

fn block(content: &[u8]) {
    let Ok(block) = Block::parse(Slice::copy_from(content)) else { return };
    assert!(block.entries() < content.len());
    let all = entries(&block);
    let _ = block.clone().find(content, KeyHash::of(content), SeqNo::MAX);
    let Ok(all) = all else { return };
    for entry in &all {
        let found = block.clone().find(&entry.key, KeyHash::of(&entry.key), entry.seq).unwrap().unwrap();
        assert_eq!((found.seq, found.kind, found.value), (entry.seq, entry.kind, entry.value.clone()));
        let missing = [&entry.key, &b"\0"[..]].concat();
        let expected = all.iter().find(|entry| entry.key == missing).map(|entry| entry.seq);
        let found = block.clone().find(&missing, KeyHash::of(&missing), SeqNo::MAX).unwrap();
        assert_eq!(found.map(|found| found.seq), expected);
    }
}

fn partition(content: &[u8]) {
    let Ok(partition) = Partition::decode(content, u64::MAX) else { return };
    let index = partition.index();
    let separators: Vec<_> = (0..index.len()).map(|n| index.separator(n)).collect();
    let ascend = separators.windows(2).all(|pair| comes_before(pair[0], pair[1]));
    for n in 1..index.len() {
        assert_eq!(index.handle(n - 1).end(), index.handle(n).offset);
    }
    for (key, seq) in &separators {
        for key in [key, &key[..key.len() / 2], &[*key, b"\0"].concat()] {
            let found = index.find(key, *seq);
            assert!(found.is_none_or(|n| n < index.len()));
            let plainly = separators.iter().position(|separator| !comes_before(*separator, (key, *seq)));
            assert!(!ascend || found == plainly, "{found:?} instead of {plainly:?}");
        }
    }
    let _ = (partition.filter().may_contain(KeyHash::of(content)), index.touch(content), partition.bytes());
}

fn part_seeds(table: &[u8]) -> Vec<Vec<u8>> {
    let Some(at) = table.len().checked_sub(FOOTER_BYTES) else { return Vec::new() };
    let bytes = table.last_chunk().unwrap();
    let footer = Footer::decode(bytes, TABLE, at as u64).unwrap();
    let content = |handle: Handle| {
        let stored = Slice::copy_from(&table[handle.offset as usize..handle.end() as usize]);
        frame::open(&stored, TABLE, handle.offset).unwrap().to_vec()
    };
    let top = Index::decode(&content(footer.top), footer.partitions).unwrap();
    let partition = content(top.handle(0));
    let data = Partition::decode(&partition, footer.partitions).unwrap().index().handle(0);
    let filter = partition[12..12 + u32::from_le_bytes(*partition[8..].first_chunk().unwrap()) as usize].to_vec();
    let contents = [content(data), partition, filter, content(footer.properties), content(footer.ranges)];
    contents.iter().enumerate().map(|(which, content)| [&[which as u8], &content[..]].concat()).collect()
}

pub(crate) fn seeds_of_parts() -> Vec<Vec<u8>> {
    tables().iter().flat_map(|table| part_seeds(table)).collect()
}

/// Makes the ends and all checksums of a table right, and the parts behind the data blocks lie one behind the other.
pub(crate) fn seal(table: TableId, bytes: &mut [u8]) {
    let Some(at) = bytes.len().checked_sub(FOOTER_BYTES) else { return };
    let header = footer::header(table);
    if at < header.len() {
        return;
    }
    bytes[..header.len()].copy_from_slice(&header);
    let mut cursor = Cursor::new(&bytes[at..]);
    let fields = (|| {
        let partitions = cursor.u64()?;
        let mut length = || Some((cursor.u64()?, cursor.u32()?).1);
        Some((partitions, [length()?, length()?, length()?]))
    })();
    let Some((partitions, lengths)) = fields else { return };
    let mut end = at as u64;
    let [properties, top, ranges] = [lengths[2], lengths[1], lengths[0]].map(|length| {
        end = end.saturating_sub(length.into());
        Handle { offset: end, length }
    });
    bytes[at..].copy_from_slice(&Footer { partitions, ranges, top, properties }.encode(table));
    let seal_at = |bytes: &mut [u8], at: Handle| {
        seal_stored(table, bytes, at.offset as usize, at.length as usize);
        let stored = bytes.get(at.offset as usize..at.end() as usize)?;
        frame::open(&Slice::copy_from(stored), table, at.offset).ok()
    };
    seal_at(bytes, properties);
    seal_at(bytes, ranges);
    let Some(top) = seal_at(bytes, top).and_then(|content| Index::decode(&content, partitions).ok()) else { return };
    for p in 0..top.len() {
        let content = seal_at(bytes, top.handle(p));
        let Some(partition) = content.and_then(|content| Partition::decode(&content, u64::MAX).ok()) else { continue };
        for n in 0..partition.index().len() {
            seal_at(bytes, partition.index().handle(n));
        }
    }
}

/// A table: `input := file`.
pub(crate) fn table(input: &[u8]) {
    let mut bytes = input.to_vec();
    seal(TABLE, &mut bytes);
    let file = MemFile::with(&bytes);
    let cache = Arc::new(BlockCache::with_capacity(1 << 20));
    let opened = Table::open(file.clone(), NAME, TABLE, cache).map(Arc::new);
    let parts = Arc::new(Parts::read(file, NAME, TABLE));
    let checked = check(&parts);
    let mut text = Vec::new();
    dump(&parts, true, &mut text).unwrap();
    let clean = parts.problems.is_empty() && checked.problems.is_empty();
    let table = match opened {
        Ok(table) => table,
        Err(error) => {
            assert!(!clean, "a check finds nothing wrong: {error}");
            return;
        }
    };
    let forward = |mode| {
        let mut iter = table.iter_forward(Bound::Unbounded, mode);
        walk(|| Ok(iter.advance()?.then(|| (iter.key().to_vec(), iter.seq(), iter.kind(), iter.value()))))
    };
    let backward = |mode| {
        let mut iter = table.iter_backward(Bound::Unbounded, mode);
        walk(|| Ok(iter.advance()?.then(|| (iter.key().to_vec(), iter.seq(), iter.kind(), iter.value()))))
    };
    let (entries, streamed) = (forward(ReadMode::Cached), forward(ReadMode::Streaming));
    assert_eq!(entries.as_ref().ok(), streamed.as_ref().ok(), "streaming");
    let mut reversed = backward(ReadMode::Cached);
    assert_eq!(backward(ReadMode::Streaming).ok(), reversed.as_ref().ok().cloned(), "streaming backward");
    let keys: Vec<Entry> = entries.as_ref().ok().cloned().unwrap_or_default();
    if clean {
        assert_eq!(entries.expect("a check finds nothing wrong").len() as u64, checked.counted.entries);
        reversed.as_mut().expect("a check finds nothing wrong").reverse();
        assert_eq!(reversed.unwrap(), keys, "backward");
    }
    for (key, seq, kind, value) in keys.iter().take(LOOKED_UP) {
        let hash = KeyHash::of(key);
        let got = table.get(key, *seq, hash, &mut Reads::default());
        let mut many = None;
        let probe = Probe { table: &table, key, hash, id: 0 };
        get_cached(Few::from_iter([probe]), *seq, &mut Reads::default(), |_, found| many = found);
        if clean {
            let got = got.unwrap().expect("a version or what deletes it");
            let deleted = table.ranges().newest(key, *seq).filter(|deleted| deleted > seq);
            match deleted {
                Some(deleted) => assert_eq!((got.seq, got.kind), (deleted, Kind::Tombstone)),
                None => assert_eq!((got.seq, got.kind, &got.value), (*seq, *kind, value)),
            }
            // Range tombstones are not its business.
            assert!(many.is_none_or(|many| (many.seq, many.kind) == (*seq, *kind)));
        }
    }
}

/// Entries that are looked for one by one.
const LOOKED_UP: usize = 50;

type Entry = (Vec<u8>, SeqNo, Kind, Slice);

fn walk<T>(mut next: impl FnMut() -> Result<Option<T>>) -> Result<Vec<T>> {
    let mut entries = Vec::new();
    while let Some(entry) = next()? {
        entries.push(entry);
    }
    Ok(entries)
}

pub(crate) fn tables() -> Vec<Vec<u8>> {
    [
        (Compression::None, 60, 120),
        (Compression::None, 400, 4000),
        (Compression::Lz4, 120, 300),
        (Compression::Zstd, 300, 300),
    ]
    .map(|(compression, block_bytes, partition_bytes)| {
        let options = TableOptions { block_bytes, partition_bytes, compression, ..TableOptions::default() };
        let file = MemFile::new();
        let mut writer = TableWriter::new(file.clone(), NAME, TABLE, options);
        for (key, seq, kind, value) in [
            (&b"a"[..], 4, Kind::Put { expires_at: None }, &b"1"[..]),
            (b"user:1", 9, Kind::Put { expires_at: Some(77) }, b"venom venom venom venom venom venom"),
            (b"user:1", 8, Kind::Tombstone, b""),
            (b"user:1", 3, Kind::Put { expires_at: None }, &[b'x'; 40]),
            (b"user:10", 2, Kind::PutFar { expires_at: None }, b"\x03\x10\x20\x40"),
            (b"user:2", 5, Kind::PutFar { expires_at: Some(9) }, b"\x03\x50\x20\x40"),
            (b"z", 1, Kind::Put { expires_at: None }, b""),
        ] {
            writer.add(key, SeqNo(seq), kind, value).unwrap();
        }
        for (start, end, seqs) in [(&b"b"[..], Some(&b"user:2"[..]), &[7, 3][..]), (b"y", None, &[2])] {
            let seqs = seqs.iter().map(|seq| SeqNo(*seq)).collect();
            writer.add_ranges(Fragment { start: Edge::from(start), end: end.map(Edge::from), seqs }).unwrap();
        }
        writer.finish().unwrap();
        file.bytes()
    })
    .to_vec()
}
