//! The sources of a scan: memtables, tables, and the tables of a level one after the other.

use std::ops::{Bound, Range};
use std::sync::Arc;

use super::memtable::Memtable;
use super::merge::{Direction, Source};
use super::page::Page;
use super::version::{TableHandle, Tables};
use super::{Error, Result, SeqNo};
use crate::codec::Slice;
use crate::storage::Kind;
use crate::storage::sstable::{Backward, Forward, ReadMode};

/// Keys that a scan takes from a memtable under one lock: at first few, since most scans are short and have most of their
/// entries from tables; then more and more, to pay for the lock and for finding the place again; but never so many that
/// writers would notice.
const FIRST_PAGE: usize = 4;
const LARGEST_PAGE: usize = 64;

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

    /// What of the range comes not before `to`, if anything does.
    fn from(mut self, to: Option<&[u8]>, direction: Direction) -> Option<KeyRange> {
        let to = to?;
        match direction {
            Direction::Forward => {
                let further = match &self.lower {
                    Bound::Included(lower) | Bound::Excluded(lower) => lower[..] < *to,
                    Bound::Unbounded => true,
                };
                if further {
                    self.lower = Bound::Included(to.to_vec());
                }
            }
            Direction::Backward => {
                let further = match &self.upper {
                    Bound::Included(upper) | Bound::Excluded(upper) => upper[..] >= *to,
                    Bound::Unbounded => true,
                };
                if further {
                    self.upper = Bound::Excluded(to.to_vec());
                }
            }
        }
        Some(self)
    }

    /// Whether the table may have keys of the range, or range tombstones over some.
    pub(crate) fn meets(&self, table: &TableHandle) -> bool {
        let above = match self.lower() {
            Bound::Included(lower) | Bound::Excluded(lower) => !table.meta.largest.precedes(lower),
            Bound::Unbounded => true,
        };
        above && !self.is_behind(&table.meta.smallest, Direction::Forward)
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

/// Whether `key` comes before `to`: see [`Source::skip`].
fn comes_before(key: &[u8], to: Option<&[u8]>, direction: Direction) -> bool {
    match direction {
        Direction::Forward => to.is_none_or(|to| key < to),
        Direction::Backward => to.is_none_or(|to| key >= to),
    }
}

/// A memtable's entries as of a position, taken a page at a time.
pub(crate) struct MemtableSource {
    memtable: Arc<Memtable>,
    direction: Direction,
    as_of: SeqNo,
    /// Nothing in it is newer.
    newest: SeqNo,
    /// What is left of the range.
    rest: Option<KeyRange>,
    page: Page,
    at: usize,
    /// Keys of the next page.
    limit: usize,
}

impl MemtableSource {
    pub(crate) fn new(memtable: Arc<Memtable>, range: KeyRange, direction: Direction, as_of: SeqNo) -> MemtableSource {
        MemtableSource {
            memtable,
            direction,
            as_of,
            newest: SeqNo::MAX,
            rest: Some(range),
            page: Page::default(),
            at: 0,
            limit: FIRST_PAGE,
        }
    }

    /// Of a sealed memtable, in which nothing is newer than `newest`.
    pub(crate) fn up_to(self, newest: SeqNo) -> MemtableSource {
        MemtableSource { newest, ..self }
    }
}

impl Source for MemtableSource {
    fn advance(&mut self) -> Result<bool> {
        self.at += 1;
        while self.at >= self.page.len() {
            let Some(mut range) = self.rest.take() else { return Ok(false) };
            self.page.clear();
            self.at = 0;
            let backward = self.direction == Direction::Backward;
            let (lower, upper) = (range.lower(), range.upper());
            if let Some(last) = self.memtable.scan(lower, upper, backward, self.as_of, self.limit, &mut self.page) {
                match self.direction {
                    Direction::Forward => range.lower = Bound::Excluded(last),
                    Direction::Backward => range.upper = Bound::Excluded(last),
                }
                self.rest = Some(range);
            }
            self.limit = (self.limit * 2).min(LARGEST_PAGE);
        }
        Ok(true)
    }

    fn key(&self) -> &[u8] {
        self.page.key(self.at)
    }

    fn seq(&self) -> SeqNo {
        self.page.seq(self.at)
    }

    fn kind(&self) -> Kind {
        self.page.kind(self.at)
    }

    fn value(&self) -> Result<Slice> {
        Ok(self.page.value(self.at))
    }

    fn stored(&self) -> &[u8] {
        self.page.value_bytes(self.at)
    }

    fn skip(&mut self, to: Option<&[u8]>, older_than: SeqNo) -> Result<bool> {
        if self.newest >= older_than || !comes_before(self.key(), to, self.direction) {
            return Ok(true);
        }
        while self.at < self.page.len() && comes_before(self.key(), to, self.direction) {
            self.at += 1;
        }
        if self.at < self.page.len() {
            return Ok(true);
        }
        self.rest = self.rest.take().and_then(|range| range.from(to, self.direction));
        self.advance()
    }
}

/// The source of a scan. It stands in for `dyn Source`, whose calls would be most of a step over a cached block.
pub(crate) enum ScanSource {
    Memtable(Box<MemtableSource>),
    Tables(Box<TablesSource>),
}

/// Asks the source that it is.
macro_rules! each {
    ($source:expr, $inner:ident => $ask:expr) => {
        match $source {
            ScanSource::Memtable($inner) => $ask,
            ScanSource::Tables($inner) => $ask,
        }
    };
}

impl Source for ScanSource {
    #[inline]
    fn advance(&mut self) -> Result<bool> {
        each!(self, source => source.advance())
    }

    #[inline]
    fn key(&self) -> &[u8] {
        each!(self, source => source.key())
    }

    #[inline]
    fn seq(&self) -> SeqNo {
        each!(self, source => source.seq())
    }

    #[inline]
    fn kind(&self) -> Kind {
        each!(self, source => source.kind())
    }

    #[inline]
    fn value(&self) -> Result<Slice> {
        each!(self, source => source.value())
    }

    #[inline]
    fn stored(&self) -> &[u8] {
        each!(self, source => source.stored())
    }

    fn skip(&mut self, to: Option<&[u8]>, older_than: SeqNo) -> Result<bool> {
        each!(self, source => source.skip(to, older_than))
    }
}

/// The versions of tables with disjoint ranges, one table after the other; each is opened when its turn comes.
pub(crate) struct TablesSource {
    direction: Direction,
    mode: ReadMode,
    range: KeyRange,
    tables: Tables,
    /// Those to come.
    rest: Range<usize>,
    current: Option<TableIter>,
    /// The table of `current`.
    handle: Option<Arc<TableHandle>>,
}

impl TablesSource {
    /// `tables` ascending by key.
    pub(crate) fn new(
        tables: Vec<Arc<TableHandle>>,
        range: KeyRange,
        direction: Direction,
        mode: ReadMode,
    ) -> TablesSource {
        let all = 0..tables.len();
        TablesSource::of_some(Arc::new(tables), all, range, direction, mode)
    }

    /// Of `which` of the tables.
    pub(crate) fn of_some(
        tables: Tables,
        which: Range<usize>,
        range: KeyRange,
        direction: Direction,
        mode: ReadMode,
    ) -> TablesSource {
        TablesSource { direction, mode, range, tables, rest: which, current: None, handle: None }
    }
}

impl TablesSource {
    /// Opens the next table, of which what comes before `to` is left out if all of it is older than `older_than`.
    fn open_next(&mut self, skip: Option<(Option<&[u8]>, SeqNo)>) -> Result<bool> {
        loop {
            self.current = None;
            let next = match self.direction {
                Direction::Forward => self.rest.next(),
                Direction::Backward => self.rest.next_back(),
            };
            let Some(next) = next.map(|at| self.tables[at].clone()) else { return Ok(false) };
            let mut rest = None;
            if let Some((to, older_than)) = skip
                && next.meta.last_seq < older_than
            {
                let passed = match (self.direction, to) {
                    (Direction::Forward, Some(to)) => next.meta.largest.precedes(to),
                    (Direction::Backward, Some(to)) => *next.meta.smallest >= *to,
                    (_, None) => true,
                };
                rest = self.range.clone().from(to, self.direction).filter(|_| !passed);
                if rest.is_none() {
                    continue;
                }
            }
            self.handle = Some(next.clone());
            let table = next.open().map_err(|error| self.note(error))?;
            let range = rest.as_ref().unwrap_or(&self.range);
            self.current = Some(match self.direction {
                Direction::Forward => TableIter::Forward(table.iter_forward(range.lower(), self.mode)),
                Direction::Backward => TableIter::Backward(table.iter_backward(range.upper(), self.mode)),
            });
            return Ok(true);
        }
    }

    #[inline]
    fn step(&mut self) -> Result<bool> {
        let more = match &mut self.current {
            None => Ok(false),
            Some(TableIter::Forward(iter)) => iter.advance(),
            Some(TableIter::Backward(iter)) => iter.advance(),
        };
        more.map_err(|error| self.note(error.into()))
    }

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
            if self.step()? {
                return Ok(true);
            }
            if !self.open_next(None)? {
                return Ok(false);
            }
        }
    }

    fn skip(&mut self, to: Option<&[u8]>, older_than: SeqNo) -> Result<bool> {
        let is_old = self.handle.as_ref().is_some_and(|table| table.meta.last_seq < older_than);
        if !is_old || !comes_before(self.key(), to, self.direction) {
            return Ok(true);
        }
        // The current table once more, from there on; then those behind it, as far as need be.
        match self.direction {
            Direction::Forward => self.rest.start -= 1,
            Direction::Backward => self.rest.end += 1,
        }
        loop {
            if !self.open_next(Some((to, older_than)))? {
                return Ok(false);
            }
            if self.step()? {
                return Ok(true);
            }
        }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        current!(self, iter => iter.key())
    }

    #[inline]
    fn seq(&self) -> SeqNo {
        current!(self, iter => iter.seq())
    }

    #[inline]
    fn kind(&self) -> Kind {
        current!(self, iter => iter.kind())
    }

    fn value(&self) -> Result<Slice> {
        let (kind, stored) = current!(self, iter => (iter.kind(), iter.value()));
        match &self.handle {
            Some(handle) => handle.value(kind, stored),
            None => Ok(stored),
        }
    }

    #[inline]
    fn stored(&self) -> &[u8] {
        current!(self, iter => iter.value_bytes())
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
