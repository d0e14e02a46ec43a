//! A partition: the filter and the index of a run of data blocks. A table has as many as its size asks for, and an index
//! of them, the *top*, which alone stays in memory with the open table: partitions come and go with the block cache.
//!
//! ```text
//! partition := first: u64 | filter_len: u32 | filter: [u8; filter_len] | index          // little-endian
//! top       := index, of partitions instead of data blocks
//! ```
//!
//! `first` is where the first of the data blocks starts; they tile the file. The last separator of a partition is that
//! of the partition in the top, so a point read goes to the one partition, and there to the one block, that can hold the
//! answer. The filter has every user key of the partition's blocks: a key whose versions go on from one partition to the
//! next is in both.

use std::sync::Arc;

use super::filter::Filter;
use super::index::{self, Index};
use super::{Block, Malformed};
use crate::codec::SeqNo;
use crate::codec::cursor::Cursor;
use crate::codec::defect::{Defect, seeded};
use crate::codec::hash::KeyHash;
use crate::storage::cache::Slots;

/// A partition in memory.
pub(crate) struct Partition {
    filter: Filter,
    index: Index,
    /// Where the cache keeps the data blocks.
    slots: Arc<Slots<Block>>,
}

impl Partition {
    /// A partition whose blocks lie before `data_end`.
    pub(super) fn decode(bytes: &[u8], data_end: u64) -> Result<Partition, Malformed> {
        const SHORT: Malformed = Malformed("partition is too short for its filter");
        let mut cursor = Cursor::new(bytes);
        let first = cursor.u64().ok_or(SHORT)?;
        let filter_len = cursor.u32().ok_or(SHORT)?;
        let filter = Filter::decode(cursor.bytes(filter_len as usize).ok_or(SHORT)?)?;
        let index = Index::decode(cursor.rest(), first)?;
        if index.len() == 0 || index.end() > data_end {
            return Err(Malformed("index does not cover data blocks"));
        }
        let slots = Slots::new(index.len());
        Ok(Partition { filter, index, slots })
    }

    /// A partition of so many blocks, for the tests of the cache.
    #[cfg(any(test, feature = "schedules"))]
    pub(crate) fn of_blocks(blocks: usize) -> Partition {
        let mut builder = PartitionBuilder::new(0, 10);
        for n in 0..blocks {
            builder.add_block((&n.to_be_bytes(), SeqNo(0)), 100);
        }
        Partition::decode(&builder.encode(), u64::MAX).expect("it was just made")
    }

    #[inline]
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    #[inline]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    #[inline]
    pub(crate) fn slots(&self) -> &Arc<Slots<Block>> {
        &self.slots
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Partition>() + self.filter.bytes() + self.index.bytes() + self.slots.bytes()
    }
}

/// A partition being written.
pub(super) struct PartitionBuilder {
    first: u64,
    index: Vec<u8>,
    blocks: usize,
    /// Of every user key once.
    hashes: Vec<KeyHash>,
    filter_bits_per_key: u8,
}

/// What a block takes in the index in memory besides its separator: head, place, slot.
const BLOCK_BYTES: usize = 80;

impl PartitionBuilder {
    /// A partition whose first block will start at `first`.
    pub(super) fn new(first: u64, filter_bits_per_key: u8) -> PartitionBuilder {
        PartitionBuilder { first, index: Vec::new(), blocks: 0, hashes: Vec::new(), filter_bits_per_key }
    }

    /// A key of the blocks to come, or of the one being written.
    pub(super) fn add_key(&mut self, hash: KeyHash) {
        self.hashes.push(hash);
    }

    /// The next block is `length` bytes long as stored.
    pub(super) fn add_block(&mut self, separator: (&[u8], SeqNo), length: u32) {
        let (key, seq) = separator;
        index::put(&mut self.index, key, seq, length);
        self.blocks += 1;
    }

    /// About what it will take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.encoded_len() + self.blocks * BLOCK_BYTES
    }

    /// What writing it takes in memory.
    pub(super) fn memory(&self) -> usize {
        self.hashes.capacity() * size_of::<KeyHash>() + self.index.capacity()
    }

    /// About how long it is in the file.
    pub(super) fn encoded_len(&self) -> usize {
        self.hashes.len() * usize::from(self.filter_bits_per_key) / 8 + self.index.len()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let without = usize::from(seeded(Defect::FilterWithoutLastKey)).min(self.hashes.len());
        let hashes = &self.hashes[..self.hashes.len() - without];
        let filter = Filter::build(hashes, self.filter_bits_per_key).encode();
        let filter_len = u32::try_from(filter.len()).expect("a filter is shorter than 4 GiB");
        [&self.first.to_le_bytes(), &filter_len.to_le_bytes()[..], &filter, &self.index].concat()
    }
}
