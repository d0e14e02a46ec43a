//! The write-ahead log: segments in the framing of [`super::log`], one record for each group of batches that was
//! synced together.
//!
//! ```text
//! segment := log with magic "CHRONWAL"
//! group   := record of kind 1, data = position batch*                     batches as engine::batch writes them
//! marker  := record of kind 2, data = position                            nothing new, but tells what is durable
//! position := first: u64 | watermark: u64 | time: u64                     // little-endian
//! ```
//!
//! `first` is the sequence number of the group's first change; the others follow without gaps. `watermark` is the
//! newest sequence number known durable when the record was written, `time` the wall clock then, in milliseconds since
//! 1970. A segment is filled with zeros ahead of the writer, so that syncing a record needs no metadata commit; it is
//! never appended to after a restart and never recycled.

use std::sync::Arc;

use super::log::{LogId, LogReader, Piece, RECORD_HEADER_LEN, Record, SKIPPABLE};
use super::names::{FileName, FileNumber};
use super::{Error, Result, SeqNo};
use crate::codec::cursor::Cursor;
use crate::codec::defect::{Defect, seeded};
use crate::fs::{File, Fs};

pub(super) const MAGIC: [u8; 8] = *b"CHRONWAL";
const GROUP: u8 = 1;
const MARKER: u8 = 2;
const POSITION_LEN: usize = 8 + 8 + 8;

/// Room that a group's buffer keeps in front of its batches for the record's header and position.
pub(crate) const GROUP_PREFIX_LEN: usize = RECORD_HEADER_LEN + POSITION_LEN;

/// How much is zeroed in one write: large enough to be quick, small enough not to be one long burst.
const ZERO_CHUNK: usize = 1 << 20;

/// Where in history a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) first: SeqNo,
    pub(crate) watermark: SeqNo,
    pub(crate) time_ms: u64,
}

/// What a segment is given when it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Groups go into it up to this length.
    pub(crate) bytes: u64,
    /// Whether all of that is filled with zeros ahead of the records, so that a sync of them has only them to write, and not
    /// the file's new length. That writes each byte twice, and pays only where each group is synced.
    pub(crate) filled: bool,
}

/// A segment being written.
pub(crate) struct SegmentWriter {
    file: Arc<dyn File>,
    name: String,
    id: LogId,
    number: FileNumber,
    /// Where the next record goes.
    end: u64,
    /// The length of the file when it was begun.
    prepared: u64,
    /// Groups go into it up to here.
    capacity: u64,
}

impl SegmentWriter {
    /// Creates the segment, fills it with zeros if it is to be, and syncs it. Its name is not durable yet: the caller
    /// syncs the directory before it relies on it. After an error there is no file: a full disk has no room for a part
    /// of one.
    pub(crate) fn create(fs: &dyn Fs, number: FileNumber, salt: u64, room: Room) -> Result<SegmentWriter> {
        let name = FileName::Wal(number).to_string();
        let io = |what| Error::io(&name, what);
        let file = fs.create(&name).map_err(io("create"))?;
        let id = LogId { magic: MAGIC, number: number.0, salt };
        let header = id.header();
        let ahead = if room.filled { room.bytes } else { 0 };
        let fill = || {
            file.write_at(&header, 0).map_err(io("write the header"))?;
            let mut end = header.len() as u64;
            let zeros = vec![0; ZERO_CHUNK.min(ahead as usize)];
            while end < ahead {
                let len = (ahead - end).min(zeros.len() as u64);
                file.write_at(&zeros[..len as usize], end).map_err(io("fill ahead"))?;
                end += len;
            }
            file.sync().map_err(io("sync"))?;
            Ok(end)
        };
        match fill() {
            Ok(prepared) => {
                let end = header.len() as u64;
                Ok(SegmentWriter { file, number, id, end, prepared, capacity: room.bytes, name })
            }
            Err(error) => {
                super::give_up(fs, &name);
                Err(error)
            }
        }
    }

    pub(crate) fn number(&self) -> FileNumber {
        self.number
    }

    /// The length of what has been written.
    pub(crate) fn len(&self) -> u64 {
        self.end
    }

    /// The length of the file, until more than that is written.
    pub(crate) fn prepared(&self) -> u64 {
        self.prepared
    }

    /// Whether nothing has been written.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == self.id.header().len() as u64
    }

    /// Whether a group of `len` bytes, prefix included, goes into what it was given.
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.end + len as u64 <= self.capacity
    }

    /// Writes a group: `buffer` is [`GROUP_PREFIX_LEN`] bytes of room and then the batches. Not synced.
    pub(crate) fn write_group(&mut self, buffer: &mut [u8], position: Position) -> Result<()> {
        self.write(GROUP, buffer, position)
    }

    /// Writes a marker. Not synced.
    pub(crate) fn write_marker(&mut self, position: Position) -> Result<()> {
        self.write(MARKER, &mut [0; GROUP_PREFIX_LEN], position)
    }

    fn write(&mut self, kind: u8, buffer: &mut [u8], position: Position) -> Result<()> {
        let fields = &mut buffer[RECORD_HEADER_LEN..GROUP_PREFIX_LEN];
        fields[..8].copy_from_slice(&position.first.0.to_le_bytes());
        fields[8..16].copy_from_slice(&position.watermark.0.to_le_bytes());
        fields[16..].copy_from_slice(&position.time_ms.to_le_bytes());
        self.id.seal(kind, buffer);
        let mut written = self.file.write_at(buffer, self.end);
        if seeded(Defect::AppendedBehindFailure) && written.is_err() {
            self.end += buffer.len() as u64;
            written = self.file.write_at(buffer, self.end);
        }
        written.map_err(Error::io(&self.name, "append"))?;
        self.end += buffer.len() as u64;
        Ok(())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(Error::io(&self.name, "sync"))
    }
}

/// A record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group<'a> {
    pub(crate) offset: u64,
    pub(crate) position: Position,
    /// Encoded changes; empty for a marker.
    pub(crate) batches: &'a [u8],
}

/// Reads one segment.
#[derive(Debug)]
pub(crate) struct SegmentReader<'a> {
    log: LogReader<'a>,
    name: String,
}

impl<'a> SegmentReader<'a> {
    /// Checks the header. A segment is listed in the manifest only once its header is durable, so a bad one is damage.
    pub(crate) fn open(number: FileNumber, bytes: &'a [u8]) -> Result<SegmentReader<'a>> {
        let name = FileName::Wal(number).to_string();
        let log = LogReader::open(&name, bytes, MAGIC, number.0)?;
        Ok(SegmentReader { log, name })
    }

    /// The next record, or `None` where the valid ones end.
    pub(crate) fn next(&mut self) -> Result<Option<Group<'a>>> {
        while let Some(record) = self.log.next() {
            if let Some(group) = self.decode(record)? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// Where the valid records end, in bytes from the file's start.
    pub(crate) fn offset(&self) -> u64 {
        self.log.offset()
    }

    /// Whether only the zeros of the filled-ahead part follow.
    pub(crate) fn at_blank_end(&self) -> bool {
        self.log.at_blank_end()
    }

    /// The first valid record behind the current place that says that `seq` was durable when it was written.
    pub(crate) fn later_that_covers(&self, seq: SeqNo) -> Option<u64> {
        self.log
            .later()
            .filter_map(|record| self.decode(record).ok().flatten())
            .find(|group| group.position.watermark >= seq)
            .map(|group| group.offset)
    }

    /// As [`SegmentReader::open`], for a segment of which nothing may be taken for granted: what can be made out, in
    /// order, and what is wrong with the header.
    pub(crate) fn salvage(number: FileNumber, bytes: &'a [u8]) -> (Vec<Piece<Group<'a>>>, Option<Error>) {
        let name = FileName::Wal(number).to_string();
        let (log, problem) = LogReader::salvage(&name, bytes, MAGIC, number.0);
        let Some(log) = log else { return (Vec::new(), problem) };
        let group = |piece: Piece<Record<'a>>| match piece {
            Piece::Valid(record) => match decode(&name, record) {
                Ok(Some(group)) => Some(Piece::Valid(group)),
                Ok(None) => None,
                Err(_) => Some(Piece::Damage(record.place())),
            },
            Piece::Damage(place) => Some(Piece::Damage(place)),
            Piece::Blank(place) => Some(Piece::Blank(place)),
        };
        (log.pieces().filter_map(group).collect(), problem)
    }

    fn decode(&self, record: Record<'a>) -> Result<Option<Group<'a>>> {
        decode(&self.name, record)
    }
}

fn decode<'a>(name: &str, record: Record<'a>) -> Result<Option<Group<'a>>> {
    let corrupt = |what: String| Error::Corrupt { file: name.to_owned(), what, offset: record.offset };
    if record.kind != GROUP && record.kind != MARKER {
        return match record.kind & SKIPPABLE {
            0 => Err(corrupt(format!("record kind {} is not known to this Chronos", record.kind))),
            _ => Ok(None),
        };
    }
    let mut cursor = Cursor::new(record.data);
    let fields = (|| Some((cursor.u64()?, cursor.u64()?, cursor.u64()?)))();
    let (first, watermark, time_ms) = fields.ok_or_else(|| corrupt("the record is too short".to_owned()))?;
    let position = Position { first: SeqNo(first), watermark: SeqNo(watermark), time_ms };
    if first == 0 || position.first > SeqNo::LIMIT || position.watermark > SeqNo::LIMIT {
        return Err(corrupt(format!("a record of position {first}, which cannot be")));
    }
    Ok(Some(Group { offset: record.offset, position, batches: cursor.rest() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::SimFs;
    use crate::storage::golden::{golden, hex, unhex};

    const NUMBER: FileNumber = FileNumber(7);
    const NAME: &str = "000007.wal";

    fn group(segment: &mut SegmentWriter, batches: &[u8], position: Position) {
        let mut buffer = vec![0; GROUP_PREFIX_LEN];
        buffer.extend_from_slice(batches);
        segment.write_group(&mut buffer, position).unwrap();
    }

    fn position(first: u64, watermark: u64) -> Position {
        Position { first: SeqNo(first), watermark: SeqNo(watermark), time_ms: 1_767_225_600_000 + first }
    }

    const PUT_AND_DELETE: &[u8] = b"\x01\x03key\x05value\x03\x04gone";
    const EXPIRING: &[u8] = b"\x02\x07session\x00\xa4\x86\x77\x9b\x01\x00\x00\x05token";

    /// Two groups and a marker, in a segment that is filled ahead.
    fn segment() -> Vec<u8> {
        let fs = SimFs::new();
        let mut segment =
            SegmentWriter::create(&fs, NUMBER, 0x0123_4567_89ab_cdef, Room { bytes: 240, filled: true }).unwrap();
        assert!(segment.is_empty() && segment.fits(208) && !segment.fits(209));
        group(&mut segment, PUT_AND_DELETE, position(101, 100));
        group(&mut segment, EXPIRING, position(103, 102));
        segment.write_marker(position(104, 103)).unwrap();
        fs.read_file(NAME).unwrap()
    }

    #[test]
    fn the_format_is_what_it_was() {
        let text = hex(&segment());
        let golden = golden("wal.hex", &text);
        assert_eq!(text, golden, "the format has changed: raise the log's VERSION and keep reading the old one");
        let bytes = unhex(&golden);
        let mut reader = SegmentReader::open(NUMBER, &bytes).unwrap();
        for (batches, position) in
            [(PUT_AND_DELETE, position(101, 100)), (EXPIRING, position(103, 102)), (&b""[..], position(104, 103))]
        {
            let group = reader.next().unwrap().unwrap();
            assert_eq!((group.batches, group.position), (batches, position));
        }
        assert_eq!(reader.next().unwrap(), None);
        assert!(reader.at_blank_end());
        assert_eq!(bytes.len(), 240);
    }

    /// A record of a kind that only a newer Chronos knows.
    fn with_kind(kind: u8) -> Vec<u8> {
        let fs = SimFs::new();
        let mut segment = SegmentWriter::create(&fs, NUMBER, 1, Room { bytes: 0, filled: true }).unwrap();
        segment.write(kind, &mut [0; GROUP_PREFIX_LEN], position(1, 0)).unwrap();
        group(&mut segment, PUT_AND_DELETE, position(1, 0));
        fs.read_file(NAME).unwrap()
    }

    #[test]
    fn unknown_kinds_are_skipped_or_refused_as_they_ask_for() {
        let bytes = with_kind(SKIPPABLE | 9);
        let mut reader = SegmentReader::open(NUMBER, &bytes).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().batches, PUT_AND_DELETE);
        let bytes = with_kind(9);
        let mut reader = SegmentReader::open(NUMBER, &bytes).unwrap();
        assert!(matches!(reader.next(), Err(Error::Corrupt { offset: 32, .. })));
    }

    #[test]
    fn of_a_record_that_cannot_be_read_all_of_its_bytes_are_damage() {
        let bytes = with_kind(9);
        let (pieces, problem) = SegmentReader::salvage(NUMBER, &bytes);
        assert!(problem.is_none());
        assert_eq!(pieces[0], Piece::Damage(32..32 + GROUP_PREFIX_LEN as u64));
        assert!(matches!(&pieces[1..], [Piece::Valid(group)] if group.batches == PUT_AND_DELETE), "{pieces:?}");
    }

    #[test]
    fn a_record_behind_damage_tells_what_was_durable() {
        let mut bytes = segment();
        bytes[32 + 20] ^= 1;
        let mut reader = SegmentReader::open(NUMBER, &bytes).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        assert_eq!(reader.offset(), 32);
        assert!(!reader.at_blank_end());
        let second = 32 + (GROUP_PREFIX_LEN + PUT_AND_DELETE.len()) as u64;
        assert_eq!(reader.later_that_covers(SeqNo(101)), Some(second));
        assert_eq!(reader.later_that_covers(SeqNo(103)), Some(second + (GROUP_PREFIX_LEN + EXPIRING.len()) as u64));
        assert_eq!(reader.later_that_covers(SeqNo(104)), None);
    }

    #[test]
    fn positions_that_cannot_be_are_damage() {
        let last = SeqNo::LIMIT.0;
        for (first, watermark, can_be) in
            [(0, 0, false), (last, 0, true), (last + 1, 0, false), (1, last, true), (1, last + 1, false)]
        {
            let fs = SimFs::new();
            let mut segment = SegmentWriter::create(&fs, NUMBER, 1, Room { bytes: 0, filled: true }).unwrap();
            let position = Position { first: SeqNo(first), watermark: SeqNo(watermark), time_ms: 0 };
            group(&mut segment, PUT_AND_DELETE, position);
            let bytes = fs.read_file(NAME).unwrap();
            assert_eq!(SegmentReader::open(NUMBER, &bytes).unwrap().next().is_ok(), can_be, "{first} {watermark}");
        }
    }
}
