//! Writes a table, entry by entry, in order.
//!
//! The caller gives a new, empty file, and makes its name durable and refers to it only after [`TableWriter::finish`]
//! has returned. A writer that failed or was dropped leaves a file that no reader opens.

use std::sync::Arc;

use super::block::common_prefix;
use super::block_builder::BlockBuilder;
use super::footer::{self, FOOTER_BYTES, Footer};
use super::partition::PartitionBuilder;
use super::properties::Properties;
use super::{Compression, TableOptions, index, ranges};
use crate::codec::defect::{Defect, seeded};
use crate::codec::hash::KeyHash;
use crate::codec::{SeqNo, Slice};
use crate::fs::File;
use crate::storage::frame::Handle;
use crate::storage::output::Output;
use crate::storage::{End, Error, Fragment, Fragments, Kind, Result, TableId};

/// The most that key and value of one entry take together. Block lengths are `u32`, and an entry's block holds no
/// other that matters; the engine's own limits (64 KiB and 512 MiB) lie well below.
const MAX_ENTRY_BYTES: usize = 1 << 30;

const _: () = assert!(MAX_ENTRY_BYTES < u32::MAX as usize / 2);

/// A table being written.
pub(crate) struct TableWriter {
    output: Output,
    table: TableId,
    options: TableOptions,
    block: BlockBuilder,
    /// Of the data blocks since the last one that was closed.
    partition: PartitionBuilder,
    /// Those that are closed, encoded; with what comes behind them in the order of entries.
    partitions: Vec<(Vec<u8>, Separator)>,
    partition_bytes: u64,
    last_key: Vec<u8>,
    last_hash: KeyHash,
    last_seq: SeqNo,
    properties: Properties,
    ranges: Vec<Fragment>,
    /// What they take in memory, besides themselves, and about in the file.
    range_bytes: usize,
    ranges_len: usize,
}

/// See [`index::separator`].
type Separator = (Vec<u8>, SeqNo);

/// A finished table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableMeta {
    pub(crate) table: TableId,
    /// The length of the file.
    pub(crate) file_bytes: u64,
    pub(crate) properties: Properties,
    pub(crate) bounds: Bounds,
}

/// From where to where the keys of a table lie, of entries and under range tombstones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) smallest: Slice,
    pub(crate) largest: End,
}

impl Bounds {
    /// Those of a table with these properties and range tombstones.
    pub(crate) fn of(properties: &Properties, ranges: &Fragments) -> Bounds {
        let entries = (properties.entries > 0)
            .then(|| (&properties.smallest_key[..], End::With(Slice::copy_from(&properties.largest_key))));
        let ranges = ranges.first().zip(ranges.last());
        let ranges = ranges.map(|(first, last)| (&first.start[..], End::before(last.end.as_deref())));
        let both = || entries.iter().chain(&ranges);
        let smallest = both().map(|(smallest, _)| *smallest).min().unwrap_or_default();
        let largest = both().map(|(_, largest)| largest).max().cloned();
        Bounds { smallest: Slice::copy_from(smallest), largest: largest.unwrap_or(End::With(Slice::default())) }
    }
}

impl TableWriter {
    /// Begins a table in an empty file; `name` is for messages.
    pub(crate) fn new(file: Arc<dyn File>, name: &str, table: TableId, options: TableOptions) -> TableWriter {
        let output = Output::new(file, name.to_owned(), table, options.sync_every, &footer::header(table));
        let partition = PartitionBuilder::new(output.position(), options.filter_bits_per_key);
        TableWriter {
            output,
            table,
            options,
            block: BlockBuilder::default(),
            partition,
            partitions: Vec::new(),
            partition_bytes: 0,
            last_key: Vec::new(),
            last_hash: KeyHash::of(b""),
            last_seq: SeqNo(0),
            properties: Properties::default(),
            ranges: Vec::new(),
            range_bytes: 0,
            ranges_len: 0,
        }
    }

    /// Adds the entry that comes after all others (key ascending, then seq descending). One that does not is refused
    /// as corrupt, for it can only come from tables that are not what was written.
    pub(crate) fn add(&mut self, key: &[u8], seq: SeqNo, kind: Kind, value: &[u8]) -> Result<()> {
        assert!(key.len() + value.len() <= MAX_ENTRY_BYTES, "an entry of {} + {} bytes", key.len(), value.len());
        let first = self.properties.entries == 0;
        let shared = common_prefix(&self.last_key, key);
        let same_key = !first && shared == key.len() && shared == self.last_key.len();
        let in_order = match (self.last_key.get(shared), key.get(shared)) {
            (Some(last), Some(next)) => last < next,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => first || seq < self.last_seq,
        };
        if !in_order {
            let what = format!("entry \"{}\" seq {seq} comes out of order", key.escape_ascii());
            return Err(Error::corrupt(self.output.name(), what, self.output.position()));
        }
        if self.block.len_with(key, shared, value) > self.options.block_bytes && !self.block.is_empty() {
            self.close_block(Some(key))?;
        }
        if !same_key {
            self.last_hash = KeyHash::of(key);
            self.partition.add_key(self.last_hash);
            self.last_key.truncate(shared);
            self.last_key.extend_from_slice(&key[shared..]);
        }
        if first {
            self.properties.smallest_key = key.to_vec();
        }
        self.last_seq = seq;
        self.block.add(key, self.last_hash, shared, seq, kind, value);
        self.properties.count(key, seq, kind, value, same_key);
        Ok(())
    }

    /// Adds range tombstones, behind all others. They need not come in any order with entries.
    pub(crate) fn add_ranges(&mut self, fragment: Fragment) -> Result<()> {
        let reaches_into = |last: &Fragment| last.end.as_ref().is_none_or(|end| *end > fragment.start);
        if self.ranges.last().is_some_and(reaches_into) {
            let what = format!("range tombstones from \"{}\" on come out of order", fragment.start.escape_ascii());
            return Err(Error::corrupt(self.output.name(), what, self.output.position()));
        }
        self.range_bytes += fragment.bytes();
        self.ranges_len += fragment.encoded_len();
        self.ranges.push(fragment);
        Ok(())
    }

    /// Takes back what the last range tombstones cover from `key` on.
    pub(crate) fn cut_ranges(&mut self, key: &[u8]) -> Option<Fragment> {
        let last = self.ranges.pop()?;
        self.ranges.extend(last.within(b"", Some(key)));
        last.within(key, None)
    }

    /// Whether all entries so far lie before `key`.
    pub(crate) fn ends_before(&self, key: &[u8]) -> bool {
        self.properties.entries == 0
            || *self.last_key < *key
            || (seeded(Defect::RangeCutAtLastKey) && *self.last_key == *key)
    }

    /// About how long the file would be if it were finished now.
    pub(crate) fn estimated_size(&self) -> u64 {
        let rest = self.block.len() + self.partition.encoded_len() + FOOTER_BYTES + self.ranges_len;
        self.output.position() + self.partition_bytes + rest as u64
    }

    /// What writing it takes in memory now.
    pub(crate) fn memory(&self) -> usize {
        self.output.memory()
            + self.block.len()
            + self.partition.memory()
            + self.partition_bytes as usize
            + self.ranges.capacity() * size_of::<Fragment>()
            + self.range_bytes
    }

    /// Writes what is left and syncs the file.
    pub(crate) fn finish(mut self) -> Result<TableMeta> {
        if !self.block.is_empty() {
            self.close_block(None)?;
        }
        self.properties.largest_key = std::mem::take(&mut self.last_key);
        self.ranges.iter().for_each(|fragment| self.properties.count_ranges(fragment));
        let partitions = self.output.position();
        let mut top = Vec::new();
        for (partition, (key, seq)) in &self.partitions {
            // A good filter looks random: compressing it is a waste.
            let handle = self.output.block(partition, Compression::None)?;
            index::put(&mut top, key, *seq, handle.length);
        }
        let ranges = match &self.ranges[..] {
            [] => Handle { offset: self.output.position(), length: 0 },
            some => self.output.block(&ranges::encode(some), self.options.compression)?,
        };
        let top = self.output.block(&top, self.options.compression)?;
        let properties = self.output.block(&self.properties.encode(), self.options.compression)?;
        let footer = Footer { partitions, ranges, top, properties }.encode(self.table);
        let file_bytes = self.output.finish(&footer)?;
        let bounds = Bounds::of(&self.properties, &Fragments::new(self.ranges));
        Ok(TableMeta { table: self.table, file_bytes, properties: self.properties, bounds })
    }

    /// Ends the current data block; `next` is the key of the entry that will begin the one after it.
    fn close_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let handle = self.output.block(self.block.finish(), self.options.compression)?;
        self.block.clear();
        let (key, seq) = index::separator((&self.last_key, self.last_seq), next);
        self.partition.add_block((key, seq), handle.length);
        self.properties.data_blocks += 1;
        self.properties.data_bytes += u64::from(handle.length);
        if next.is_none() || self.partition.bytes() >= self.options.partition_bytes {
            let separator = (key.to_vec(), seq);
            let mut following = PartitionBuilder::new(handle.end(), self.options.filter_bits_per_key);
            if next == Some(&self.last_key) {
                // Its versions go on, and it is not going to be added as a new key.
                following.add_key(self.last_hash);
            }
            let closed = std::mem::replace(&mut self.partition, following).encode();
            self.partition_bytes += closed.len() as u64;
            self.partitions.push((closed, separator));
        }
        Ok(())
    }
}
