//! A table of which nothing may be taken for granted, part by part and block by block: for checking, showing and
//! repairing. What can be read is told apart from what cannot, and no damage hides what lies behind it.
//!
//! Partitions that can be read say where their blocks are. Those of others are carved out of the file: see
//! [`super::carve`].

use std::sync::Arc;

use super::Malformed;
use super::block::{Block, common_prefix};
use super::carve::carve;
use super::footer::{self, FOOTER_BYTES, Footer, HEADER_BYTES};
use super::index::Index;
use super::partition::Partition;
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
    pub(super) top: Option<Index>,
    /// As many as the top has.
    pub(super) partitions: Vec<Option<Partition>>,
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
        let (top, partitions, properties) = (None, Vec::new(), None);
        let (name, problems) = (name.to_owned(), Vec::new());
        let (ranges, ranges_at, data_end) = (None, None, None);
        let mut parts =
            Parts { file, name, id, bytes: 0, problems, top, partitions, properties, ranges, ranges_at, data_end };
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
        self.data_end = Some(footer.partitions);
        self.ranges_at = Some((footer.ranges.offset, u64::from(footer.ranges.length)));
        self.ranges = match footer.ranges.length {
            0 => Some(Fragments::default()),
            _ => self.part(footer.ranges, ranges::decode),
        };
        self.top = self.part(footer.top, |bytes| match Index::decode(bytes, footer.partitions)? {
            top if top.end() == footer.ranges.offset => Ok(top),
            _ => Err(Malformed("top does not cover the partitions")),
        });
        self.read_partitions(footer.partitions);
        self.properties = self.part(footer.properties, Properties::decode);
        Ok(())
    }

    fn read_partitions(&mut self, data_end: u64) {
        let partitions = self.top.as_ref().map_or(0, Index::len);
        // Where the blocks of those that could be read end.
        let mut end = Some(HEADER_BYTES as u64);
        for p in 0..partitions {
            let Some(at) = self.top.as_ref().map(|top| top.handle(p)) else { return };
            let separator = self.top.as_ref().map(|top| (top.separator(p).0.to_vec(), top.separator(p).1));
            let partition = self.part(at, |bytes| {
                let partition = Partition::decode(bytes, data_end)?;
                let index = partition.index();
                if end.is_some_and(|end| index.start() != end) || (p + 1 == partitions && index.end() != data_end) {
                    return Err(Malformed("partitions do not cover the data blocks"));
                }
                let (key, seq) = index.separator(index.len() - 1);
                if separator.is_some_and(|(top_key, top_seq)| (&*top_key, top_seq) != (key, seq)) {
                    return Err(Malformed("partition does not end where the top says"));
                }
                Ok(partition)
            });
            end = partition.as_ref().map(|partition| partition.index().end());
            self.partitions.push(partition);
        }
    }

    /// Where the partitions are, and how many data blocks each leads to, if it can be read.
    pub(super) fn partitions_at(&self) -> impl Iterator<Item = (usize, Handle, Option<usize>)> {
        let top = self.top.iter().flat_map(|top| (0..top.len()).map(|p| top.handle(p)));
        let blocks = |partition: &Option<Partition>| partition.as_ref().map(|partition| partition.index().len());
        top.zip(&self.partitions).enumerate().map(move |(p, (at, partition))| (p, at, blocks(partition)))
    }

    /// What separates a block of a partition that can be read from the one before it.
    pub(super) fn separator_before(&self, (p, n): (usize, usize)) -> Option<(&[u8], SeqNo)> {
        match n.checked_sub(1) {
            Some(before) => Some(self.partitions[p].as_ref()?.index().separator(before)),
            None => Some(self.top.as_ref()?.separator(p.checked_sub(1)?)),
        }
    }

    /// What separates it from the one behind it.
    pub(super) fn separator(&self, (p, n): (usize, usize)) -> Option<(&[u8], SeqNo)> {
        Some(self.partitions.get(p)?.as_ref()?.index().separator(n))
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
        self.data_end.is_none()
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The data blocks in order, good and bad.
    pub(crate) fn pieces(self: &Arc<Self>) -> Pieces {
        Pieces { parts: self.clone(), places: self.places(), next: 0, last: None }
    }

    /// Where they are, and as which one of which partition each is known.
    pub(super) fn places(&self) -> Vec<(Place, Option<(usize, usize)>)> {
        let mut places = Vec::new();
        let mut end = HEADER_BYTES as u64;
        for (p, partition) in self.partitions.iter().enumerate() {
            let Some(index) = partition.as_ref().map(Partition::index) else { continue };
            self.carve(end, index.start(), &mut places);
            places.extend((0..index.len()).map(|n| (Place::Block(index.handle(n)), Some((p, n)))));
            end = index.end();
        }
        self.carve(end, self.data_end.unwrap_or(self.bytes), &mut places);
        places
    }

    /// Appends what data blocks can be made out between two places of the file.
    fn carve(&self, start: u64, end: u64, places: &mut Vec<(Place, Option<(usize, usize)>)>) {
        let carved = self.carved(start, end).into_iter().filter(|place| !self.is_ranges(place));
        places.extend(carved.map(|place| (place, None)));
    }

    /// Data blocks, and range tombstones.
    fn carved(&self, start: u64, end: u64) -> Vec<Place> {
        if start >= end {
            return Vec::new();
        }
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
        if self.file.read_at(&mut bytes, start).is_err() {
            // Not readable in one piece, and nothing says where the pieces are.
            return vec![Place::Gap { offset: start, length: end - start }];
        }
        let is_block = |stored: &[u8], offset| match frame::open(&Slice::copy_from(stored), self.id, offset) {
            Ok(content) if ranges::is_ranges(&content) => ranges::decode(&content).is_ok(),
            content => content.and_then(Block::parse).and_then(|block| entries(&block)).is_ok(),
        };
        carve(&bytes, start, self.id, is_block)
    }

    /// The range tombstones of a table that has lost its end.
    fn carved_ranges(&self) -> Option<Fragments> {
        let ranges = |place: Place| match place {
            Place::Block(at) => self.stored(at).ok().filter(|content| ranges::is_ranges(content)),
            Place::Gap { .. } => None,
        };
        let carved = self.carved(HEADER_BYTES as u64, self.bytes);
        carved.into_iter().find_map(ranges).and_then(|content| ranges::decode(&content).ok())
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
    places: Vec<(Place, Option<(usize, usize)>)>,
    next: usize,
    /// The last entry that was good.
    last: Option<(Vec<u8>, SeqNo)>,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let n = self.next;
        let (place, _) = *self.places.get(n)?;
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
        let Some(known_as) = self.places[n].1 else {
            let first_key = |(place, _): &(Place, _)| match place {
                Place::Block(at) => self.entries(*at).ok()?.into_iter().next().map(|entry| entry.key),
                Place::Gap { .. } => None,
            };
            return (self.last.as_ref().map(|(key, _)| key.clone()), self.places[n + 1..].iter().find_map(first_key));
        };
        let key = |separator: Option<(&[u8], SeqNo)>| separator.map(|(key, _)| key.to_vec());
        (key(self.parts.separator_before(known_as)), key(self.parts.separator(known_as)))
    }
}

/// The order of entries.
pub(super) fn comes_before(a: (&[u8], SeqNo), b: (&[u8], SeqNo)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 > b.1)
}

/// All entries of a block, if every byte of it is as a writer writes it.
pub(super) fn entries(block: &Block) -> std::result::Result<Vec<Entry>, Malformed> {
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
        if !comes_before(last, (&key, entry.seq)) {
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
