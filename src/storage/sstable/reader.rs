//! An open table: point reads, and blocks for the iterators.

use std::ops::Bound;
use std::sync::Arc;

use super::Malformed;
use super::block::Block;
use super::footer::{self, FOOTER_BYTES, Footer, HEADER_BYTES};
use super::index::Index;
use super::iter::{Backward, Forward};
use super::partition::Partition;
use super::properties::Properties;
use super::ranges;
use super::reads::Reads;
use crate::codec::hash::KeyHash;
use crate::codec::{SeqNo, Slice};
use crate::fs::File;
use crate::storage::cache::{Peek, Slots};
use crate::storage::frame::{self, Handle};
use crate::storage::{BlockCache, Charge, Error, Fragments, Result, TableId, Use, Version, read_exact};

/// An open table. The top is in memory; partitions and data blocks come from the cache or the file.
pub(crate) struct Table {
    file: Arc<dyn File>,
    name: String,
    id: TableId,
    cache: Arc<BlockCache>,
    top: Index,
    /// Where the cache keeps the partitions.
    slots: Arc<Slots<Arc<Partition>>>,
    /// Where the data blocks end.
    data_end: u64,
    smallest_seq: SeqNo,
    ranges: Fragments,
    /// For what of it stays in memory.
    _charge: Charge,
}

/// How an iterator comes by its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Through the block cache, and what is not there one at a time at first, then in longer and longer strides: for
    /// reads that others may repeat.
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
        let top = Index::decode(&part(footer.top)?, footer.partitions).map_err(corrupt(footer.top.offset))?;
        let properties = part(footer.properties)?;
        let properties = Properties::decode(&properties).map_err(corrupt(footer.properties.offset))?;
        let ranges = match footer.ranges.length {
            0 => Fragments::default(),
            _ => ranges::decode(&part(footer.ranges)?).map_err(corrupt(footer.ranges.offset))?,
        };
        if ranges.count() != properties.range_tombstones {
            return Err(Error::corrupt(name, "range tombstones are not as many as there were", footer.ranges.offset));
        }
        if top.end() != footer.ranges.offset {
            return Err(Error::corrupt(name, "top does not cover the partitions", footer.top.offset));
        }
        let slots = Slots::new(top.len());
        let (name, data_end, smallest_seq) = (name.to_owned(), footer.partitions, properties.smallest_seq);
        let mut charge = Charge::new(&cache, Use::Tables);
        charge.set((size_of::<Table>() + name.len() + top.bytes() + slots.bytes() + ranges.bytes()) as u64);
        Ok(Table { file, name, id, cache, top, slots, data_end, smallest_seq, ranges, _charge: charge })
    }

    /// The newest version of `key` that is not newer than `as_of`; a range tombstone over it is one. `hash` is the hash of
    /// `key`. Touches at most one partition and one data block.
    pub(crate) fn get(&self, key: &[u8], as_of: SeqNo, hash: KeyHash, reads: &mut Reads) -> Result<Option<Version>> {
        debug_assert_eq!(hash, KeyHash::of(key));
        let found = self.get_entry(key, as_of, hash, reads)?;
        if self.ranges.is_empty() {
            return Ok(found);
        }
        let deleted = self.ranges.newest(key, as_of);
        Ok(match deleted.filter(|deleted| found.as_ref().is_none_or(|found| found.seq < *deleted)) {
            Some(deleted) => Some(Version::deleted(deleted)),
            None => found,
        })
    }

    fn get_entry(&self, key: &[u8], as_of: SeqNo, hash: KeyHash, reads: &mut Reads) -> Result<Option<Version>> {
        reads.asked += 1;
        let Some(p) = self.partition_for(key, as_of) else { return Ok(None) };
        // With everything cached no reference to the partition is counted: other threads ask it, too.
        if let Some(partition) = self.peek_partition(p) {
            if !partition.filter().may_contain(hash) {
                reads.filtered += 1;
                return Ok(None);
            }
            let Some(n) = partition.index().find(key, as_of) else { return Ok(None) };
            if let Some(block) = self.cached_block(&partition, n) {
                reads.cached_blocks += 1;
                return Table::find_in(block, key, as_of, hash, reads)
                    .map_err(|what| self.corrupt(what, &partition, n));
            }
        }
        let partition = match self.cache.get(&self.slots, p) {
            Some(partition) => partition,
            None => {
                reads.read_indexes += 1;
                self.keep_partition(p)?
            }
        };
        if !partition.filter().may_contain(hash) {
            reads.filtered += 1;
            return Ok(None);
        }
        let Some(n) = partition.index().find(key, as_of) else { return Ok(None) };
        reads.read_blocks += 1;
        let handle = partition.index().handle(n);
        let block = self.parse_block(&partition, n, &self.read(handle.offset, handle.length as usize)?)?;
        self.keep_block(&partition, n, &block);
        Table::find_in(block, key, as_of, hash, reads).map_err(|what| self.corrupt(what, &partition, n))
    }

    fn find_in(
        block: Block,
        key: &[u8],
        as_of: SeqNo,
        hash: KeyHash,
        reads: &mut Reads,
    ) -> std::result::Result<Option<Version>, Malformed> {
        let found = block.find(key, hash, as_of)?;
        reads.false_positives += u64::from(found.is_none());
        Ok(found)
    }

    /// The one partition that can hold the newest version of `key` as of `as_of`.
    #[inline]
    pub(super) fn partition_for(&self, key: &[u8], as_of: SeqNo) -> Option<usize> {
        if as_of < self.smallest_seq {
            return None;
        }
        // Most tables that much is asked of are small, and the only partition knows better.
        if self.top.len() == 1 { Some(0) } else { self.top.find(key, as_of) }
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

    /// The index of the partitions.
    pub(super) fn top(&self) -> &Index {
        &self.top
    }

    /// The cache, to which what is read of the table is charged.
    pub(super) fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    /// Where the data blocks end.
    pub(super) fn data_end(&self) -> u64 {
        self.data_end
    }

    /// The p-th partition where the cache has it, if it does.
    #[inline]
    pub(super) fn peek_partition(&self, p: usize) -> Option<Peek<'_, Arc<Partition>>> {
        self.cache.peek(&self.slots, p)
    }

    /// A data block of a partition where the cache has it, if it does.
    #[inline]
    pub(super) fn peek<'a>(&self, partition: &'a Partition, n: usize) -> Option<Peek<'a, Block>> {
        self.cache.peek(partition.slots(), n)
    }

    /// The p-th partition, through the cache.
    pub(super) fn partition(&self, p: usize) -> Result<Arc<Partition>> {
        self.cache.get(&self.slots, p).map_or_else(|| self.keep_partition(p), Ok)
    }

    /// The p-th partition from the file, from now on in the cache.
    fn keep_partition(&self, p: usize) -> Result<Arc<Partition>> {
        let partition = Arc::new(self.read_partition(p)?);
        Ok(self.cache.insert_partition(&self.slots, p, partition))
    }

    /// The p-th partition from the file.
    pub(super) fn read_partition(&self, p: usize) -> Result<Partition> {
        let handle = self.top.handle(p);
        let stored = self.read(handle.offset, handle.length as usize)?;
        frame::open(&stored, self.id, handle.offset)
            .and_then(|content| Partition::decode(&content, self.data_end))
            .map_err(|Malformed(what)| Error::corrupt(&self.name, what, handle.offset))
    }

    /// The n-th data block of a partition, if it is cached.
    pub(super) fn cached_block(&self, partition: &Partition, n: usize) -> Option<Block> {
        self.cache.get(partition.slots(), n)
    }

    /// Keeps the n-th data block of a partition in the cache.
    pub(super) fn keep_block(&self, partition: &Partition, n: usize, block: &Block) {
        self.cache.insert_block(partition.slots(), n, block.clone());
    }

    /// Bytes of the file; `len` must come from the index or lie within the data blocks.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Slice> {
        Slice::build(len, |buffer| read_exact(&*self.file, &self.name, buffer, offset))
    }

    /// The n-th data block of a partition from its stored bytes.
    pub(super) fn parse_block(&self, partition: &Partition, n: usize, stored: &Slice) -> Result<Block> {
        frame::open(stored, self.id, partition.index().handle(n).offset)
            .and_then(Block::parse)
            .map_err(|malformed| self.corrupt(malformed, partition, n))
    }

    /// The error for the n-th data block of a partition.
    pub(super) fn corrupt(&self, Malformed(what): Malformed, partition: &Partition, n: usize) -> Error {
        Error::corrupt(&self.name, what, partition.index().handle(n).offset)
    }

    /// Where all data blocks are.
    #[cfg(test)]
    pub(super) fn data_blocks(&self) -> Vec<Handle> {
        let partitions = (0..self.top.len()).map(|p| self.read_partition(p).unwrap());
        partitions.flat_map(|p| (0..p.index().len()).map(|n| p.index().handle(n)).collect::<Vec<_>>()).collect()
    }

    /// Where all partitions are.
    #[cfg(test)]
    pub(super) fn partitions(&self) -> Vec<Handle> {
        (0..self.top.len()).map(|p| self.top.handle(p)).collect()
    }
}
