//! The sources of a scan: memtables, tables, and the tables of a level one after the other.

use std::ops::Bound;
use std::sync::Arc;

use super::memtable::{MemEntry, Memtable};
use super::merge::{Direction, Source};
use super::version::TableHandle;
use super::{Error, Result, SeqNo};
use crate::codec::Slice;
use crate::storage::Kind;
use crate::storage::sstable::{Backward, Forward, ReadMode};

/// Keys that a scan takes from a memtable under one lock: long enough to pay for the lock, short enough that writers
/// hardly notice.
const MEMTABLE_STEP: usize = 64;

/// A key range that a source owns.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange {
    pub(crate) lower: Bound<Vec<u8>>,
    pub(crate) upper: Bound<Vec<u8>>,
}

impl KeyRange {
    pub(crate) fn all() -> KeyRange {
        KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded }
    }

    pub(crate) fn lower(&self) -> Bound<&[u8]> {
        self.lower.as_ref().map(Vec::as_slice)
    }

    pub(crate) fn upper(&self) -> Bound<&[u8]> {
        self.upper.as_ref().map(Vec::as_slice)
    }

    /// Whether `key`, met in `direction`, lies behind the end of the range.
    pub(crate) fn is_behind(&self, key: &[u8], direction: Direction) -> bool {
        match (direction, &self.lower, &self.upper) {
            (Direction::Forward, _, Bound::Included(upper)) => key > &upper[..],
            (Direction::Forward, _, Bound::Excluded(upper)) => key >= &upper[..],
            (Direction::Backward, Bound::Included(lower), _) => key < &lower[..],
            (Direction::Backward, Bound::Excluded(lower), _) => key <= &lower[..],
            _ => false,
        }
    }
}

/// A memtable's entries as of a position, taken a few at a time.
pub(crate) struct MemtableSource {
    memtable: Arc<Memtable>,
    direction: Direction,
    as_of: SeqNo,
    /// What is left of the range.
    rest: Option<KeyRange>,
    step: Vec<MemEntry>,
    at: usize,
}

impl MemtableSource {
    pub(crate) fn new(memtable: Arc<Memtable>, range: KeyRange, direction: Direction, as_of: SeqNo) -> MemtableSource {
        MemtableSource { memtable, direction, as_of, rest: Some(range), step: Vec::new(), at: 0 }
    }
}

impl Source for MemtableSource {
    fn advance(&mut self) -> Result<bool> {
        self.at += 1;
        while self.at >= self.step.len() {
            let Some(mut range) = self.rest.take() else { return Ok(false) };
            self.step.clear();
            self.at = 0;
            let backward = self.direction == Direction::Backward;
            let last =
                self.memtable.scan(range.lower(), range.upper(), backward, self.as_of, MEMTABLE_STEP, &mut self.step);
            if let Some(last) = last {
                match self.direction {
                    Direction::Forward => range.lower = Bound::Excluded(last.to_vec()),
                    Direction::Backward => range.upper = Bound::Excluded(last.to_vec()),
                }
                self.rest = Some(range);
            }
        }
        Ok(true)
    }

    fn key(&self) -> &[u8] {
        &self.step[self.at].key
    }

    fn seq(&self) -> SeqNo {
        self.step[self.at].version.seq
    }

    fn kind(&self) -> Kind {
        self.step[self.at].version.kind
    }

    fn value(&self) -> Slice {
        self.step[self.at].version.value.clone()
    }

    fn value_bytes(&self) -> &[u8] {
        &self.step[self.at].version.value
    }
}

/// The versions of tables with disjoint ranges, one table after the other; each is opened when its turn comes.
pub(crate) struct TablesSource {
    direction: Direction,
    mode: ReadMode,
    range: KeyRange,
    /// Tables to come, the next one last.
    rest: Vec<Arc<TableHandle>>,
    current: Option<TableIter>,
    /// The table of `current`.
    handle: Option<Arc<TableHandle>>,
}

impl TablesSource {
    /// `tables` ascending by key.
    pub(crate) fn new(
        mut tables: Vec<Arc<TableHandle>>,
        range: KeyRange,
        direction: Direction,
        mode: ReadMode,
    ) -> TablesSource {
        if direction == Direction::Forward {
            tables.reverse();
        }
        TablesSource { direction, mode, range, rest: tables, current: None, handle: None }
    }
}

impl TablesSource {
    /// The error, which the current table now knows of.
    fn note(&self, error: Error) -> Error {
        self.handle.iter().for_each(|handle| handle.note(&error));
        error
    }
}

enum TableIter {
    Forward(Forward),
    Backward(Backward),
}

/// Asks the iterator of the current table.
macro_rules! current {
    ($source:expr, $iter:ident => $ask:expr) => {
        match $source.current.as_ref().expect("a source is asked only after it has advanced") {
            TableIter::Forward($iter) => $ask,
            TableIter::Backward($iter) => $ask,
        }
    };
}

impl Source for TablesSource {
    fn advance(&mut self) -> Result<bool> {
        loop {
            let more = match &mut self.current {
                None => Ok(false),
                Some(TableIter::Forward(iter)) => iter.advance(),
                Some(TableIter::Backward(iter)) => iter.advance(),
            };
            if more.map_err(|error| self.note(error.into()))? {
                return Ok(true);
            }
            let Some(next) = self.rest.pop() else { return Ok(false) };
            self.handle = Some(next.clone());
            let table = next.open().map_err(|error| self.note(error))?.clone();
            self.current = Some(match self.direction {
                Direction::Forward => TableIter::Forward(table.iter_forward(self.range.lower(), self.mode)),
                Direction::Backward => TableIter::Backward(table.iter_backward(self.range.upper(), self.mode)),
            });
        }
    }

    fn key(&self) -> &[u8] {
        current!(self, iter => iter.key())
    }

    fn seq(&self) -> SeqNo {
        current!(self, iter => iter.seq())
    }

    fn kind(&self) -> Kind {
        current!(self, iter => iter.kind())
    }

    fn value(&self) -> Slice {
        current!(self, iter => iter.value())
    }

    fn value_bytes(&self) -> &[u8] {
        current!(self, iter => iter.value_bytes())
    }
}
