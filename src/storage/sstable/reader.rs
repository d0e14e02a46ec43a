//! An open table: point reads, and blocks for the iterators.

use std::ops::Bound;
use std::sync::Arc;

use super::Malformed;
use super::block::Block;
use super::filter::Filter;
use super::footer::{self, FOOTER_BYTES, Footer, HEADER_BYTES};
use super::index::Index;
use super::iter::{Backward, Forward};
use super::properties::Properties;
use super::ranges;
use crate::codec::hash::KeyHash;
use crate::codec::{SeqNo, Slice};
use crate::fs::File;
use crate::storage::cache::{Peek, Slots};
use crate::storage::frame::{self, Handle};
use crate::storage::{BlockCache, Error, Fragments, Result, TableId, Version, read_exact};

/// An open table. Filter, index and properties are in memory; data blocks come from the cache or the file.
pub(crate) struct Table {
    file: Arc<dyn File>,
    name: String,
    id: TableId,
    cache: Arc<BlockCache>,
    /// Where the cache keeps the table's data blocks.
    slots: Arc<Slots>,
    filter: Filter,
    index: Index,
    properties: Properties,
    ranges: Fragments,
}

/// How an iterator comes by its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Through the block cache, one at a time: for reads that others may repeat.
    Cached,
    /// From the file, in long strides, leaving the cache alone: for compaction, which reads everything once. Values
    /// may keep a whole stride in memory.
    Streaming,
}

impl Table {
    /// Opens a table of which the manifest says that it is `id`; `name` is for messages. Reads everything but the data
    /// blocks and checks it.
    pub(crate) fn open(file: Arc<dyn File>, name: &str, id: TableId, cache: Arc<BlockCache>) -> Result<Table> {
        let corrupt = |offset| move |Malformed(what)| Error::corrupt(name, what, offset);
        let file_bytes = file.len().map_err(Error::io(name, "read length of table"))?;
        let footer_at = file_bytes
            .checked_sub(FOOTER_BYTES as u64)
            .filter(|&at| at >= HEADER_BYTES as u64)
            .ok_or_else(|| Error::corrupt(name, "file is too short for a table", file_bytes))?;
        let mut header = [0; HEADER_BYTES];
        read_exact(&*file, name, &mut header, 0)?;
        let found = footer::table_of(&header).map_err(corrupt(0))?;
        if found != id {
            return Err(Error::corrupt(name, format!("file belongs to table {found} instead of {id}"), 0));
        }
        let mut bytes = [0; FOOTER_BYTES];
        read_exact(&*file, name, &mut bytes, footer_at)?;
        let footer = Footer::decode(&bytes, id, footer_at).map_err(corrupt(footer_at))?;

        // The parts lie one behind the other and within the file, as the footer has checked: one read.
        let start = footer.ranges.offset;
        let len = usize::try_from(footer_at - start)
            .map_err(|_| Error::corrupt(name, "parts of the table exceed this machine's memory", footer_at))?;
        let parts = Slice::build(len, |buffer| read_exact(&*file, name, buffer, start))?;
        let part = |handle: Handle| {
            let at = (handle.offset - start) as usize;
            frame::open(&parts.slice(at, at + handle.length as usize), id, handle.offset)
                .map_err(corrupt(handle.offset))
        };
        let filter = Filter::decode(&part(footer.filter)?).map_err(corrupt(footer.filter.offset))?;
        let index = Index::decode(&part(footer.index)?).map_err(corrupt(footer.index.offset))?;
        let properties = part(footer.properties)?;
        let properties = Properties::decode(&properties).map_err(corrupt(footer.properties.offset))?;
        let ranges = match footer.ranges.length {
            0 => Fragments::default(),
            _ => ranges::decode(&part(footer.ranges)?).map_err(corrupt(footer.ranges.offset))?,
        };
        if ranges.count() != properties.range_tombstones {
            return Err(Error::corrupt(name, "range tombstones are not as many as there were", footer.ranges.offset));
        }
        if index.data_end() != footer.ranges.offset || index.len() as u64 != properties.data_blocks {
            return Err(Error::corrupt(name, "index does not cover the data blocks", footer.index.offset));
        }
        let slots = Slots::new(index.len());
        Ok(Table { file, name: name.to_owned(), id, cache, slots, filter, index, properties, ranges })
    }

    /// The newest version of `key` that is not newer than `as_of`; a range tombstone over it is one. `hash` is the hash of
    /// `key`. Touches at most one data block.
    pub(crate) fn get(&self, key: &[u8], as_of: SeqNo, hash: KeyHash) -> Result<Option<Version>> {
        debug_assert_eq!(hash, KeyHash::of(key));
        let found = self.get_entry(key, as_of, hash)?;
        if self.ranges.is_empty() {
            return Ok(found);
        }
        let deleted = self.ranges.newest(key, as_of);
        Ok(match deleted.filter(|deleted| found.as_ref().is_none_or(|found| found.seq < *deleted)) {
            Some(deleted) => Some(Version::deleted(deleted)),
            None => found,
        })
    }

    fn get_entry(&self, key: &[u8], as_of: SeqNo, hash: KeyHash) -> Result<Option<Version>> {
        if !self.may_hold(hash, as_of) {
            return Ok(None);
        }
        let Some(n) = self.index.find(key, as_of) else { return Ok(None) };
        self.cached_block(n)?.find(key, hash, as_of).map_err(|malformed| self.corrupt(malformed, n))
    }

    /// `false`: surely no version of a key with this hash that is not newer than `as_of`.
    pub(super) fn may_hold(&self, hash: KeyHash, as_of: SeqNo) -> bool {
        as_of >= self.properties.smallest_seq && self.filter.may_contain(hash)
    }

    /// All versions of all keys from `lower` on: key ascending, seq descending.
    pub(crate) fn iter_forward(self: &Arc<Self>, lower: Bound<&[u8]>, mode: ReadMode) -> Forward {
        Forward::new(self.clone(), lower, mode)
    }

    /// All versions of all keys from `upper` back to the first: key descending, seq ascending.
    pub(crate) fn iter_backward(self: &Arc<Self>, upper: Bound<&[u8]>, mode: ReadMode) -> Backward {
        Backward::new(self.clone(), upper, mode)
    }

    /// Its range tombstones.
    pub(crate) fn ranges(&self) -> &Fragments {
        &self.ranges
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The n-th data block where the cache has it, if it does.
    pub(super) fn peek(&self, n: usize) -> Option<Peek<'_>> {
        self.cache.peek(&self.slots, n)
    }

    /// The n-th data block, through the cache.
    pub(super) fn cached_block(&self, n: usize) -> Result<Block> {
        if let Some(block) = self.cache.get(&self.slots, n) {
            return Ok(block);
        }
        let handle = self.index.handle(n);
        let block = self.parse_block(n, &self.read(handle.offset, handle.length as usize)?)?;
        self.cache.insert(&self.slots, n, block.clone());
        Ok(block)
    }

    /// Bytes of the file; `len` must come from the index or lie within the data blocks.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Slice> {
        Slice::build(len, |buffer| read_exact(&*self.file, &self.name, buffer, offset))
    }

    /// The n-th data block from its stored bytes.
    pub(super) fn parse_block(&self, n: usize, stored: &Slice) -> Result<Block> {
        frame::open(stored, self.id, self.index.handle(n).offset)
            .and_then(Block::parse)
            .map_err(|malformed| self.corrupt(malformed, n))
    }

    /// The error for the n-th data block.
    pub(super) fn corrupt(&self, Malformed(what): Malformed, n: usize) -> Error {
        Error::corrupt(&self.name, what, self.index.handle(n).offset)
    }
}
