//! Iterators over all versions in a table, forward and backward.
//!
//! Both start before their first entry: `advance` moves to it, and says `false` behind the last. After an error they
//! stay where they were, and `advance` tries the same step again, so that an error is never taken for the end.

use std::ops::{Bound, Range};
use std::sync::Arc;

use super::block::{Block, Entry, MAX_INTERVAL};
use super::cut::Cut;
use super::footer::HEADER_BYTES;
use super::frame::Handle;
use super::{Malformed, Partition, ReadMode, Table};
use crate::codec::{SeqNo, Slice};
use crate::storage::{Charge, Error, Kind, Result, Use};

/// The most that is read at a time: about what a disk delivers in the time that it takes to be asked.
const STRIDE_BYTES: u64 = 256 << 10;

/// The least when streaming.
const LEAST_STRIDE_BYTES: u64 = 32 << 10;

/// A merge may have some dozens of strides in memory: each is at most this part of the cache that they are charged to.
const STRIDE_PART: u64 = 128;

/// How far a scan reads ahead that misses a second block; each time after that, twice as far.
const FIRST_AHEAD: u64 = 8 << 10;

/// A scan that has read this much from the file is a long one: what else it reads is not worth a place in the cache.
const LONG_SCAN: u64 = 1 << 20;

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Backward,
}

/// Where an iterator takes its blocks from.
struct Blocks {
    table: Arc<Table>,
    mode: ReadMode,
    direction: Direction,
    /// The one that the iterator is in, of which it has loaded blocks or is about to.
    partition: Option<Arc<Partition>>,
    /// The bytes of the file at `stride_at`.
    stride: Slice,
    stride_at: u64,
    /// How much the next read takes at least.
    ahead: u64,
    /// How much has been read.
    read: u64,
    charge: Charge,
}

impl Blocks {
    fn new(table: Arc<Table>, mode: ReadMode, direction: Direction) -> Blocks {
        let (ahead, to) = match mode {
            ReadMode::Cached => (0, Use::Scans),
            ReadMode::Streaming => {
                ((table.cache().capacity() / STRIDE_PART).clamp(LEAST_STRIDE_BYTES, STRIDE_BYTES), Use::Jobs)
            }
        };
        let charge = Charge::new(table.cache(), to);
        let (partition, stride) = (None, Slice::default());
        Blocks { table, mode, direction, partition, stride, stride_at: 0, ahead, read: 0, charge }
    }

    /// Goes into the p-th partition.
    fn enter(&mut self, p: usize) -> Result<&Partition> {
        let partition = match self.mode {
            ReadMode::Cached => self.table.partition(p)?,
            ReadMode::Streaming => Arc::new(self.table.read_partition(p)?),
        };
        Ok(self.partition.insert(partition))
    }

    /// How many blocks the partition has; 0 before the first.
    fn len(&self) -> usize {
        self.partition.as_ref().map_or(0, |partition| partition.index().len())
    }

    /// The n-th block of the partition.
    fn load(&mut self, n: usize) -> Result<Block> {
        let cached = self.mode == ReadMode::Cached;
        let partition = entered(&self.partition);
        if cached && let Some(block) = self.table.cached_block(partition, n) {
            return Ok(block);
        }
        let handle = partition.index().handle(n);
        let held = self.stride_at..self.stride_at + self.stride.len() as u64;
        if handle.offset < held.start || handle.end() > held.end {
            self.read(handle)?;
        }
        let partition = entered(&self.partition);
        let at = (handle.offset - self.stride_at) as usize;
        let stored = self.stride.slice(at, at + handle.length as usize);
        if !cached {
            return self.table.parse_block(partition, n, &stored);
        }
        // Whoever keeps the block, or a value of it, must not keep a whole stride.
        let stored = if stored.len() < self.stride.len() { Slice::copy_from(&stored) } else { stored };
        let block = self.table.parse_block(partition, n, &stored)?;
        if self.read <= LONG_SCAN {
            self.table.keep_block(partition, n, &block);
        }
        Ok(block)
    }

    /// Reads a stride that begins, in the iterator's direction, with a block.
    fn read(&mut self, block: Handle) -> Result<()> {
        let (start, end) = match self.direction {
            Direction::Forward => (block.offset, block.end().max(block.offset + self.ahead).min(self.table.data_end())),
            Direction::Backward => {
                let start = block.end().saturating_sub(self.ahead).max(HEADER_BYTES as u64);
                (start.min(block.offset), block.end())
            }
        };
        self.stride = Slice::default();
        let partition = match self.mode {
            // The cache is charged for it.
            ReadMode::Cached => 0,
            ReadMode::Streaming => entered(&self.partition).bytes() as u64,
        };
        self.charge.set(end - start + partition);
        self.stride = self.table.read(start, (end - start) as usize)?;
        self.stride_at = start;
        self.read += end - start;
        if self.mode == ReadMode::Cached {
            self.ahead = (self.ahead * 2).clamp(FIRST_AHEAD, STRIDE_BYTES);
        }
        Ok(())
    }

    /// The error for the n-th block of the partition.
    fn corrupt(&self, malformed: Malformed, n: usize) -> Error {
        self.table.corrupt(malformed, entered(&self.partition), n)
    }
}

fn entered(partition: &Option<Arc<Partition>>) -> &Partition {
    partition.as_ref().expect("blocks are loaded only of a partition that was entered")
}

/// Key ascending, seq descending.
pub(crate) struct Forward {
    blocks: Blocks,
    lower: Cut,
    /// Until the first entry behind `lower` has been found.
    seeking: bool,
    /// How many partitions are done or being read; the current one is the last of them.
    entered: usize,
    /// How many blocks of it are done or being read; the current one is the last of them.
    begun: usize,
    block: Option<Block>,
    /// Where in the block the next entry starts.
    next: usize,
    key: Vec<u8>,
    entry: Entry,
}

impl Forward {
    pub(super) fn new(table: Arc<Table>, lower: Bound<&[u8]>, mode: ReadMode) -> Forward {
        let lower = Cut::lower(lower);
        let entered = table.top().block_at(&lower);
        let blocks = Blocks::new(table, mode, Direction::Forward);
        let (key, entry) = (Vec::new(), Entry::none());
        Forward { blocks, lower, seeking: true, entered, begun: 0, block: None, next: 0, key, entry }
    }

    /// Moves to the next entry; `false` if there is none.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        while self.step()? {
            if !self.seeking || self.lower.precedes(&self.key) {
                self.seeking = false;
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[inline]
    fn step(&mut self) -> Result<bool> {
        loop {
            if let Some(block) = &self.block
                && self.next < block.end()
            {
                let entry = block.entry_at(self.next).and_then(|entry| match entry.shared <= self.key.len() {
                    true => Ok(entry),
                    false => Err(Malformed("entry shares more than there is")),
                });
                let entry = entry.map_err(|malformed| self.blocks.corrupt(malformed, self.begun - 1))?;
                self.key.truncate(entry.shared);
                self.key.extend_from_slice(block.bytes(&entry.suffix));
                self.next = entry.value.end;
                self.entry = entry;
                return Ok(true);
            }
            if self.begun < self.blocks.len() {
                self.next_block()?;
            } else if self.entered < self.blocks.table.top().len() {
                let partition = self.blocks.enter(self.entered)?;
                self.begun = if self.seeking { partition.index().block_at(&self.lower) } else { 0 };
                self.entered += 1;
            } else {
                return Ok(false);
            }
        }
    }

    fn next_block(&mut self) -> Result<()> {
        let block = self.blocks.load(self.begun)?;
        let skip = if self.seeking {
            let before = block.restarts_before(&self.lower);
            before.map_err(|malformed| self.blocks.corrupt(malformed, self.begun))?.saturating_sub(1)
        } else {
            0
        };
        self.next = block.restart(skip);
        self.key.clear();
        self.block = Some(block);
        self.begun += 1;
        Ok(())
    }

    /// The user key of the current entry.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn seq(&self) -> SeqNo {
        self.entry.seq
    }

    pub(crate) fn kind(&self) -> Kind {
        self.entry.kind
    }

    /// The value, as a window into its block.
    pub(crate) fn value(&self) -> Slice {
        on_entry(&self.block).slice(&self.entry.value)
    }

    /// The value, for those who only look.
    pub(crate) fn value_bytes(&self) -> &[u8] {
        on_entry(&self.block).bytes(&self.entry.value)
    }
}

/// Key descending, seq ascending.
///
/// Keys can only be put together from a restart point onwards, so one restart interval at a time is decoded and then
/// walked from its end.
pub(crate) struct Backward {
    blocks: Blocks,
    upper: Cut,
    /// Until the first entry before `upper` has been found.
    seeking: bool,
    /// How many partitions, from the first, have not been entered.
    partitions_left: usize,
    /// How many blocks of the one that was entered, from the first, have not been begun.
    blocks_left: usize,
    block: Option<Block>,
    /// How many restart intervals of the block, from its first, have not been decoded.
    intervals_left: usize,
    interval: Interval,
}

/// A decoded restart interval.
#[derive(Default)]
struct Interval {
    /// All keys, one behind the other.
    keys: Vec<u8>,
    entries: Vec<Decoded>,
}

struct Decoded {
    key: Range<usize>,
    value: Range<usize>,
    seq: SeqNo,
    kind: Kind,
}

impl Interval {
    fn decode(&mut self, block: &Block, n: usize) -> std::result::Result<(), Malformed> {
        self.keys.clear();
        self.entries.clear();
        let (mut at, end) = (block.restart(n), block.restart(n + 1));
        let mut last = 0..0;
        while at < end {
            let entry = block.entry_at(at)?;
            if entry.shared > last.len() {
                return Err(Malformed("entry shares more than there is"));
            }
            if self.entries.len() == MAX_INTERVAL {
                return Err(Malformed("restart points are too far apart"));
            }
            let start = self.keys.len();
            self.keys.extend_from_within(last.start..last.start + entry.shared);
            self.keys.extend_from_slice(block.bytes(&entry.suffix));
            last = start..self.keys.len();
            at = entry.value.end;
            self.entries.push(Decoded { key: last.clone(), value: entry.value, seq: entry.seq, kind: entry.kind });
        }
        // An empty interval, or one whose last entry runs into the next, would be skipped or read twice.
        let whole = at == end && !self.entries.is_empty();
        if whole { Ok(()) } else { Err(Malformed("restart points are out of order")) }
    }

    fn key(&self, entry: &Decoded) -> &[u8] {
        &self.keys[entry.key.clone()]
    }
}

impl Backward {
    pub(super) fn new(table: Arc<Table>, upper: Bound<&[u8]>, mode: ReadMode) -> Backward {
        let upper = Cut::upper(upper);
        let partitions_left = (table.top().block_at(&upper) + 1).min(table.top().len());
        let blocks = Blocks::new(table, mode, Direction::Backward);
        let (block, interval) = (None, Interval::default());
        Backward { blocks, upper, seeking: true, partitions_left, blocks_left: 0, block, intervals_left: 0, interval }
    }

    /// Moves to the next entry, going back; `false` if there is none.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if self.interval.entries.len() > 1 {
            self.interval.entries.pop();
            return Ok(true);
        }
        self.next_interval()
    }

    fn next_interval(&mut self) -> Result<bool> {
        loop {
            while self.intervals_left == 0 {
                if self.blocks_left > 0 {
                    self.next_block()?;
                } else if self.partitions_left > 0 {
                    let index = self.blocks.enter(self.partitions_left - 1)?.index();
                    let within = if self.seeking { index.block_at(&self.upper) + 1 } else { usize::MAX };
                    self.blocks_left = within.min(index.len());
                    self.partitions_left -= 1;
                } else {
                    return Ok(false);
                }
            }
            let Some(block) = &self.block else { return Ok(false) };
            let decoded = self.interval.decode(block, self.intervals_left - 1);
            decoded.map_err(|malformed| {
                // Nothing of a half decoded interval may be walked when the caller tries again.
                self.interval.entries.clear();
                self.blocks.corrupt(malformed, self.blocks_left)
            })?;
            self.intervals_left -= 1;
            if self.seeking {
                let Interval { keys, entries } = &mut self.interval;
                let within = entries.partition_point(|entry| !self.upper.precedes(&keys[entry.key.clone()]));
                entries.truncate(within);
            }
            if !self.interval.entries.is_empty() {
                self.seeking = false;
                return Ok(true);
            }
        }
    }

    fn next_block(&mut self) -> Result<()> {
        let n = self.blocks_left - 1;
        let block = self.blocks.load(n)?;
        self.intervals_left = if self.seeking {
            block.restarts_before(&self.upper).map_err(|malformed| self.blocks.corrupt(malformed, n))?
        } else {
            block.restarts()
        };
        self.block = Some(block);
        self.blocks_left = n;
        Ok(())
    }

    fn current(&self) -> &Decoded {
        self.interval.entries.last().expect("advance said true")
    }

    /// The user key of the current entry.
    pub(crate) fn key(&self) -> &[u8] {
        self.interval.key(self.current())
    }

    pub(crate) fn seq(&self) -> SeqNo {
        self.current().seq
    }

    pub(crate) fn kind(&self) -> Kind {
        self.current().kind
    }

    /// The value, as a window into its block.
    pub(crate) fn value(&self) -> Slice {
        on_entry(&self.block).slice(&self.current().value)
    }

    /// The value, for those who only look.
    pub(crate) fn value_bytes(&self) -> &[u8] {
        on_entry(&self.block).bytes(&self.current().value)
    }
}

fn on_entry(block: &Option<Block>) -> &Block {
    block.as_ref().expect("advance said true")
}
