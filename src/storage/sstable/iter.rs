//! Iterators over all versions in a table, forward and backward.
//!
//! Both start before their first entry: `advance` moves to it, and says `false` behind the last. After an error they
//! stay where they were, and `advance` tries the same step again, so that an error is never taken for the end.

use std::ops::{Bound, Range};
use std::sync::Arc;

use super::block::{Block, Entry, MAX_INTERVAL};
use super::cut::Cut;
use super::footer::HEADER_BYTES;
use super::{Malformed, ReadMode, Table};
use crate::codec::{SeqNo, Slice};
use crate::storage::{Kind, Result};

/// How much is read at a time when streaming: about what a disk delivers in the time that it takes to be asked.
const STRIDE_BYTES: u64 = 256 << 10;

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
    /// The bytes of the file at `stride_at`, when streaming.
    stride: Slice,
    stride_at: u64,
}

impl Blocks {
    fn new(table: Arc<Table>, mode: ReadMode, direction: Direction) -> Blocks {
        Blocks { table, mode, direction, stride: Slice::copy_from(&[]), stride_at: 0 }
    }

    fn load(&mut self, n: usize) -> Result<Block> {
        if self.mode == ReadMode::Cached {
            return self.table.cached_block(n);
        }
        let handle = self.table.index().handle(n);
        let held = self.stride_at..self.stride_at + self.stride.len() as u64;
        if handle.offset < held.start || handle.end() > held.end {
            let (start, end) = match self.direction {
                Direction::Forward => {
                    (handle.offset, handle.end().max(handle.offset + STRIDE_BYTES).min(self.table.index().data_end()))
                }
                Direction::Backward => {
                    let start = handle.end().saturating_sub(STRIDE_BYTES).max(HEADER_BYTES as u64);
                    (start.min(handle.offset), handle.end())
                }
            };
            self.stride = self.table.read(start, (end - start) as usize)?;
            self.stride_at = start;
        }
        let at = (handle.offset - self.stride_at) as usize;
        self.table.parse_block(n, &self.stride.slice(at, at + handle.length as usize))
    }
}

/// Key ascending, seq descending.
pub(crate) struct Forward {
    blocks: Blocks,
    lower: Cut,
    /// Until the first entry behind `lower` has been found.
    seeking: bool,
    /// How many blocks are done or being read; the current one is the last of them.
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
        let begun = table.index().block_at(&lower);
        let blocks = Blocks::new(table, mode, Direction::Forward);
        let (key, entry) = (Vec::new(), Entry::none());
        Forward { blocks, lower, seeking: true, begun, block: None, next: 0, key, entry }
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
                let entry = entry.map_err(|malformed| self.blocks.table.corrupt(malformed, self.begun - 1))?;
                self.key.truncate(entry.shared);
                self.key.extend_from_slice(block.bytes(&entry.suffix));
                self.next = entry.value.end;
                self.entry = entry;
                return Ok(true);
            }
            if self.begun == self.blocks.table.index().len() {
                return Ok(false);
            }
            self.next_block()?;
        }
    }

    fn next_block(&mut self) -> Result<()> {
        let block = self.blocks.load(self.begun)?;
        let skip = if self.seeking {
            let before = block.restarts_before(&self.lower);
            before.map_err(|malformed| self.blocks.table.corrupt(malformed, self.begun))?.saturating_sub(1)
        } else {
            0
        };
        self.next = block.restart(skip);
        self.key.clear();
        self.block = Some(block);
        self.begun += 1;
        Ok(())
    }

    /// The data block of the current entry.
    pub(super) fn block_number(&self) -> usize {
        self.begun - 1
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
    /// How many blocks, from the first, have not been begun.
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
        let blocks_left = (table.index().block_at(&upper) + 1).min(table.index().len());
        let blocks = Blocks::new(table, mode, Direction::Backward);
        let interval = Interval::default();
        Backward { blocks, upper, seeking: true, blocks_left, block: None, intervals_left: 0, interval }
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
                if self.blocks_left == 0 {
                    return Ok(false);
                }
                self.next_block()?;
            }
            let Some(block) = &self.block else { return Ok(false) };
            let decoded = self.interval.decode(block, self.intervals_left - 1);
            decoded.map_err(|malformed| {
                // Nothing of a half decoded interval may be walked when the caller tries again.
                self.interval.entries.clear();
                self.blocks.table.corrupt(malformed, self.blocks_left)
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
            block.restarts_before(&self.upper).map_err(|malformed| self.blocks.table.corrupt(malformed, n))?
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
