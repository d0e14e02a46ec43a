//! A table of which nothing may be taken for granted, part by part and block by block: for checking, showing and
//! repairing. What can be read is told apart from what cannot, and no damage hides what lies behind it.
//!
//! With an index that can be read, it says where the blocks are. Without one they are carved out of the file: see
//! [`super::carve`].

use std::sync::Arc;

use super::Malformed;
use super::block::{Block, common_prefix};
use super::carve::carve;
use super::filter::Filter;
use super::footer::{self, FOOTER_BYTES, Footer, HEADER_BYTES};
use super::index::Index;
use super::properties::Properties;
use super::ranges;
use crate::codec::hash::KeyHash;
use crate::codec::{SeqNo, Slice};
use crate::fs::File;
use crate::storage::frame::{self, Handle};
use crate::storage::{Error, Fragments, Kind, Result, TableId, read_exact};

/// What can be read of a table besides its data blocks.
pub(crate) struct Parts {
    file: Arc<dyn File>,
    name: String,
    id: TableId,
    bytes: u64,
    /// What is wrong with these parts.
    pub(crate) problems: Vec<Error>,
    pub(super) filter: Option<Filter>,
    pub(super) index: Option<Index>,
    pub(crate) properties: Option<Properties>,
    /// Its range tombstones, if they can be read or there are none; carved out of the file if no footer says where they are.
    pub(crate) ranges: Option<Fragments>,
    /// Where they are said to be, and how long they are.
    pub(crate) ranges_at: Option<(u64, u64)>,
    /// Where the data blocks end, if a footer says so.
    data_end: Option<u64>,
}

/// One entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) seq: SeqNo,
    pub(crate) kind: Kind,
    pub(crate) value: Slice,
}

/// A data block, or a place where one was.
#[derive(Debug)]
pub(crate) enum Piece {
    Block {
        offset: u64,
        length: u64,
        /// At least one.
        entries: Vec<Entry>,
    },
    /// Its keys lie behind `after` and not behind `upto`, as far as that is known.
    Lost { offset: u64, length: u64, after: Option<Vec<u8>>, upto: Option<Vec<u8>>, error: Error },
}

impl Parts {
    /// Reads the parts. What the disk refuses to read is a problem like any other.
    pub(crate) fn read(file: Arc<dyn File>, name: &str, id: TableId) -> Parts {
        let (filter, index, properties) = (None, None, None);
        let (name, problems) = (name.to_owned(), Vec::new());
        let (ranges, ranges_at, data_end) = (None, None, None);
        let mut parts =
            Parts { file, name, id, bytes: 0, problems, filter, index, properties, ranges, ranges_at, data_end };
        if let Err(error) = parts.read_ends() {
            parts.problems.push(error);
        }
        if parts.data_end.is_none() {
            parts.ranges = parts.carved_ranges();
        }
        parts
    }

    fn read_ends(&mut self) -> Result<()> {
        self.bytes = self.file.len().map_err(Error::io(&self.name, "read length of table"))?;
        let mut header = [0; HEADER_BYTES];
        let header = read_exact(&*self.file, &self.name, &mut header, 0).and_then(|()| {
            let found = footer::table_of(&header).map_err(|malformed| self.corrupt(malformed, 0))?;
            let foreign =
                || Error::corrupt(&self.name, format!("file belongs to table {found} instead of {}", self.id), 0);
            if found == self.id { Ok(()) } else { Err(foreign()) }
        });
        self.problems.extend(header.err());
        let at = self.bytes.checked_sub(FOOTER_BYTES as u64).filter(|&at| at >= HEADER_BYTES as u64);
        let at = at.ok_or_else(|| Error::corrupt(&self.name, "file is too short for a table", self.bytes))?;
        let mut bytes = [0; FOOTER_BYTES];
        read_exact(&*self.file, &self.name, &mut bytes, at)?;
        let footer = Footer::decode(&bytes, self.id, at).map_err(|malformed| self.corrupt(malformed, at))?;
        self.data_end = Some(footer.ranges.offset);
        self.ranges_at = Some((footer.ranges.offset, u64::from(footer.ranges.length)));
        self.ranges = match footer.ranges.length {
            0 => Some(Fragments::default()),
            _ => self.part(footer.ranges, ranges::decode),
        };
        self.filter = self.part(footer.filter, Filter::decode);
        self.index = self.part(footer.index, |bytes| match Index::decode(bytes)? {
            index if index.data_end() == footer.ranges.offset => Ok(index),
            _ => Err(Malformed("index does not cover the data blocks")),
        });
        self.properties = self.part(footer.properties, Properties::decode);
        Ok(())
    }

    fn part<T>(&mut self, at: Handle, decode: impl FnOnce(&[u8]) -> std::result::Result<T, Malformed>) -> Option<T> {
        let part = self
            .stored(at)
            .and_then(|content| decode(&content).map_err(|malformed| self.corrupt(malformed, at.offset)));
        part.map_err(|error| self.problems.push(error)).ok()
    }

    /// The content of a stored block.
    fn stored(&self, at: Handle) -> Result<Slice> {
        let read = |buffer: &mut [u8]| read_exact(&*self.file, &self.name, buffer, at.offset);
        let stored = Slice::build(at.length as usize, read)?;
        frame::open(&stored, self.id, at.offset).map_err(|malformed| self.corrupt(malformed, at.offset))
    }

    fn corrupt(&self, Malformed(what): Malformed, offset: u64) -> Error {
        Error::corrupt(&self.name, what, offset)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> TableId {
        self.id
    }

    /// Whether nothing that can be read says where the data blocks end.
    pub(crate) fn tail_is_lost(&self) -> bool {
        self.index.is_none() && self.data_end.is_none()
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The data blocks in order, good and bad.
    pub(crate) fn pieces(self: &Arc<Self>) -> Pieces {
        let places = match &self.index {
            Some(index) => (0..index.len()).map(|n| Place::Block(index.handle(n))).collect(),
            None => self.carved().into_iter().filter(|place| !self.is_ranges(place)).collect(),
        };
        Pieces { parts: self.clone(), places, next: 0, last: None }
    }

    fn carved(&self) -> Vec<Place> {
        let end = self.data_end.unwrap_or(self.bytes);
        let mut bytes = vec![0; usize::try_from(end).unwrap_or(0)];
        match self.file.read_at(&mut bytes, 0) {
            Ok(len) => bytes.truncate(len),
            // Not readable in one piece, and nothing says where the pieces are.
            Err(_) => bytes.clear(),
        }
        let is_block = |stored: &[u8], offset| match frame::open(&Slice::copy_from(stored), self.id, offset) {
            Ok(content) if ranges::is_ranges(&content) => ranges::decode(&content).is_ok(),
            content => content.and_then(Block::parse).and_then(|block| entries(&block)).is_ok(),
        };
        carve(&bytes, HEADER_BYTES, self.id, is_block)
    }

    /// The range tombstones of a table that has lost its end.
    fn carved_ranges(&self) -> Option<Fragments> {
        let ranges = |place: Place| match place {
            Place::Block(at) => self.stored(at).ok().filter(|content| ranges::is_ranges(content)),
            Place::Gap { .. } => None,
        };
        self.carved().into_iter().find_map(ranges).and_then(|content| ranges::decode(&content).ok())
    }

    fn is_ranges(&self, place: &Place) -> bool {
        match place {
            Place::Block(at) => self.stored(*at).is_ok_and(|content| ranges::is_ranges(&content)),
            Place::Gap { .. } => false,
        }
    }
}

/// Where a block is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Block(Handle),
    /// Bytes between blocks that are none.
    Gap {
        offset: u64,
        length: u64,
    },
}

/// See [`Parts::pieces`].
pub(crate) struct Pieces {
    parts: Arc<Parts>,
    places: Vec<Place>,
    next: usize,
    /// The last entry that was good.
    last: Option<(Vec<u8>, SeqNo)>,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let n = self.next;
        let place = *self.places.get(n)?;
        self.next += 1;
        let (offset, length, found) = match place {
            Place::Block(at) => (at.offset, u64::from(at.length), self.entries(at)),
            Place::Gap { offset, length } => {
                let what = "no block can be made out of these bytes";
                (offset, length, Err(Error::corrupt(&self.parts.name, what, offset)))
            }
        };
        match found {
            Ok(entries) => {
                self.last = entries.last().map(|entry| (entry.key.clone(), entry.seq));
                Some(Piece::Block { offset, length, entries })
            }
            Err(error) => {
                let (after, upto) = self.range(n);
                Some(Piece::Lost { offset, length, after, upto, error })
            }
        }
    }
}

impl Pieces {
    fn entries(&self, at: Handle) -> Result<Vec<Entry>> {
        let malformed = |malformed| self.parts.corrupt(malformed, at.offset);
        let entries = Block::parse(self.parts.stored(at)?).and_then(|block| entries(&block)).map_err(malformed)?;
        match (&self.last, entries.first()) {
            (Some((key, seq)), Some(first)) if !comes_before((key, *seq), (&first.key, first.seq)) => {
                Err(malformed(Malformed("block comes out of order")))
            }
            _ => Ok(entries),
        }
    }

    /// Between which keys those of the n-th place lie.
    fn range(&self, n: usize) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let Some(index) = &self.parts.index else {
            let first_key = |place: &Place| match place {
                Place::Block(at) => self.entries(*at).ok()?.into_iter().next().map(|entry| entry.key),
                Place::Gap { .. } => None,
            };
            return (self.last.as_ref().map(|(key, _)| key.clone()), self.places[n + 1..].iter().find_map(first_key));
        };
        let separator = |n| index.separator(n).0.to_vec();
        (n.checked_sub(1).map(separator), Some(separator(n)))
    }
}

/// The order of entries.
pub(super) fn comes_before(a: (&[u8], SeqNo), b: (&[u8], SeqNo)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 > b.1)
}

/// All entries of a block, if every byte of it is as a writer writes it.
fn entries(block: &Block) -> std::result::Result<Vec<Entry>, Malformed> {
    let mut entries: Vec<Entry> = Vec::with_capacity(block.entries());
    let mut at = block.restart(0);
    for (n, tag) in block.tags().iter().enumerate() {
        let entry = block.entry_at(at)?;
        let last = entries.last().map_or((&b""[..], SeqNo::MAX), |last| (&last.key[..], last.seq));
        let head = last.0.get(..entry.shared).ok_or(Malformed("entry shares more than there is"))?;
        let key = [head, block.bytes(&entry.suffix)].concat();
        let restart = n.is_multiple_of(1 << block.shift());
        if restart && (entry.shared != 0 || block.restart(n >> block.shift()) != at) {
            return Err(Malformed("restart points are not where entries are"));
        }
        if !restart && entry.shared != common_prefix(last.0, &key) {
            return Err(Malformed("entry shares less than there is"));
        }
        if n > 0 && !comes_before(last, (&key, entry.seq)) {
            return Err(Malformed("entries come out of order"));
        }
        if KeyHash::of(&key).tag() != *tag {
            return Err(Malformed("entry has a tag that is not its key's"));
        }
        at = entry.value.end;
        entries.push(Entry { key, seq: entry.seq, kind: entry.kind, value: block.slice(&entry.value) });
    }
    if at == block.end() { Ok(entries) } else { Err(Malformed("entries do not end where the block does")) }
}
