//! Log framing: how the WAL and the manifest put records into a file so that a reader knows exactly where the
//! truth ends.
//!
//! ```text
//! log    := header record*
//! header := magic: [u8; 8] | version: u32 | number: u64 | salt: u64 | crc: u32     crc over all before it
//! record := crc: u32 | len: u32 | kind: u8 | salt: u64 | data: [u8; len]           crc over all behind it
//! ```
//!
//! Integers are little-endian. `number` is the one in the file's name. `salt` is random, drawn for this file and known
//! to nobody outside: a record of another file, or bytes that a client chose and stored as a value, are never taken
//! for a record of this one when a reader looks for one behind a damaged place. A `kind` with the top bit set may be
//! skipped by a reader that does not know it; any other unknown kind is an error.
//!
//! Reading stops at the first bytes that are no valid record. Whether that is an ordinary torn tail or damage is for
//! the caller to judge, with the help of [`LogReader::later`], which finds valid records behind the bad place.

use std::ops::Range;

use super::{Error, Result};
use crate::codec::crc::crc32;
use crate::codec::cursor::Cursor;
use crate::codec::defect::{Defect, seeded};

/// Bytes of a log's header.
pub(crate) const HEADER_LEN: usize = 8 + 4 + 8 + 8 + 4;

/// Bytes of a record in front of its data.
pub(crate) const RECORD_HEADER_LEN: usize = 4 + 4 + 1 + 8;

/// The version of the framing and of what is framed.
const VERSION: u32 = 1;

/// Kinds with this bit may be skipped by a reader that does not know them.
pub(crate) const SKIPPABLE: u8 = 0x80;

/// What every record of one file has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogId {
    pub(crate) magic: [u8; 8],
    pub(crate) number: u64,
    pub(crate) salt: u64,
}

impl LogId {
    /// The bytes a log file begins with.
    pub(crate) fn header(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&self.magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32(&[&bytes[..28]]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Fills in the header of a record whose data already stands in `record` behind room for it. With the room in
    /// front, a group of any size goes from the commit buffer to the file without being copied.
    pub(crate) fn seal(&self, kind: u8, record: &mut [u8]) {
        let len = u32::try_from(record.len() - RECORD_HEADER_LEN).expect("callers keep records far below 4 GiB");
        record[4..8].copy_from_slice(&len.to_le_bytes());
        record[8] = kind;
        record[9..17].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32(&[&record[4..]]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// One valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Where its header starts, in bytes from the file's start.
    pub(crate) offset: u64,
    pub(crate) kind: u8,
    pub(crate) data: &'a [u8],
}

impl Record<'_> {
    /// Where it stands, header included.
    pub(crate) fn place(&self) -> Range<u64> {
        self.offset..self.offset + (RECORD_HEADER_LEN + self.data.len()) as u64
    }
}

/// A part of a file that may be damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece<T> {
    Valid(T),
    /// Bytes that are no record.
    Damage(Range<u64>),
    /// Zeros up to the end.
    Blank(Range<u64>),
}

/// Reads the records of one file's bytes in order.
#[derive(Debug)]
pub(crate) struct LogReader<'a> {
    id: LogId,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> LogReader<'a> {
    /// Checks the header. `file` is the name for messages, `number` the one in that name.
    pub(crate) fn open(file: &str, bytes: &'a [u8], magic: [u8; 8], number: u64) -> Result<LogReader<'a>> {
        let corrupt = |what: &str, offset| Error::Corrupt { file: file.to_owned(), what: what.to_owned(), offset };
        let header = bytes.get(..HEADER_LEN).ok_or_else(|| corrupt("the header is cut short", bytes.len() as u64))?;
        let mut cursor = Cursor::new(header);
        let fields = (|| Some((cursor.bytes(8)?, cursor.u32()?, cursor.u64()?, cursor.u64()?, cursor.u32()?)))();
        let (found, version, own, salt, crc) = fields.expect("the header's length was checked");
        if crc != crc32(&[&header[..HEADER_LEN - 4]]) {
            return Err(corrupt("the header's checksum does not match", 0));
        }
        if found != magic {
            return Err(corrupt("the file is of another kind", 0));
        }
        if version != VERSION {
            return Err(corrupt(&format!("format version {version} is not known to this Chronos"), 8));
        }
        if own != number {
            return Err(corrupt(&format!("the file says it is number {own}"), 12));
        }
        Ok(LogReader { id: LogId { magic, number, salt }, bytes, at: HEADER_LEN })
    }

    /// The next record, or `None` at the first bytes that are none.
    pub(crate) fn next(&mut self) -> Option<Record<'a>> {
        let record = self.record_at(self.at)?;
        self.at += RECORD_HEADER_LEN + record.data.len();
        Some(record)
    }

    /// Where the valid records end.
    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// Whether nothing but zeros follows: the untouched rest of a file that was filled ahead.
    pub(crate) fn at_blank_end(&self) -> bool {
        self.bytes[self.at..].iter().all(|&byte| byte == 0)
    }

    /// Valid records anywhere from the current place on, in order.
    pub(crate) fn later(&self) -> impl Iterator<Item = Record<'a>> + use<'_, 'a> {
        let mut from = self.at;
        std::iter::from_fn(move || {
            let salt = self.id.salt.to_le_bytes();
            loop {
                // The salt stands 9 bytes into a record: a quick look before a checksum is spent.
                let window = self.bytes.get(from + 9..)?;
                let hit = from + memchr::memmem::find(window, &salt)?;
                if let Some(record) = self.record_at(hit) {
                    from = hit + RECORD_HEADER_LEN + record.data.len();
                    return Some(record);
                }
                from = hit + 1;
            }
        })
    }

    /// As [`LogReader::open`], for a file of which nothing may be taken for granted: a reader if any record can be made
    /// out, and what is wrong with the header. The salt is then taken from where the header has it, or from where the
    /// first record has it: never from bytes that could be a client's.
    pub(crate) fn salvage(
        file: &str,
        bytes: &'a [u8],
        magic: [u8; 8],
        number: u64,
    ) -> (Option<LogReader<'a>>, Option<Error>) {
        let error = match LogReader::open(file, bytes, magic, number) {
            Ok(reader) => return (Some(reader), None),
            Err(error) => error,
        };
        let salt_at = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        let readers = [HEADER_LEN - 12, HEADER_LEN + 9].into_iter().filter_map(salt_at).map(|salt| LogReader {
            id: LogId { magic, number, salt },
            bytes,
            at: HEADER_LEN,
        });
        let mut readable = readers.filter(|reader| reader.later().next().is_some());
        (readable.next(), Some(error))
    }

    /// All that stands in the file, valid or not, to its end.
    pub(crate) fn pieces(mut self) -> impl Iterator<Item = Piece<Record<'a>>> + use<'a> {
        std::iter::from_fn(move || {
            if let Some(record) = self.next() {
                return Some(Piece::Valid(record));
            }
            let start = self.at;
            if start >= self.bytes.len() {
                return None;
            }
            let next = self.later().next().map(|record| record.offset as usize);
            // Zeros at the end are the part that was filled ahead.
            let written = || start + self.bytes[start..].iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            let end = next.unwrap_or_else(written);
            let (start, end, blank) = if end == start { (start, self.bytes.len(), true) } else { (start, end, false) };
            self.at = end;
            let place = start as u64..end as u64;
            Some(if blank { Piece::Blank(place) } else { Piece::Damage(place) })
        })
    }

    fn record_at(&self, at: usize) -> Option<Record<'a>> {
        let mut cursor = Cursor::new(self.bytes.get(at..)?);
        let crc = cursor.u32()?;
        let covered = cursor.rest();
        let len = cursor.u32()? as usize;
        let kind = cursor.u8()?;
        let salt = cursor.u64()?;
        let data = cursor.bytes(len)?;
        let covered = &covered[..RECORD_HEADER_LEN - 4 + len];
        let valid = (salt == self.id.salt || seeded(Defect::SaltIgnored)) && crc == crc32(&[covered]);
        valid.then_some(Record { offset: at as u64, kind, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LogId = LogId { magic: *b"TESTLOG\0", number: 7, salt: 0x1234_5678_9abc_def0 };

    fn log(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = ID.header().to_vec();
        for data in records {
            let mut record = vec![0; RECORD_HEADER_LEN];
            record.extend_from_slice(data);
            ID.seal(1, &mut record);
            bytes.extend(record);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = LogReader::open("test", bytes, ID.magic, ID.number).unwrap();
        std::iter::from_fn(|| reader.next().map(|record| record.data.to_vec())).collect()
    }

    #[test]
    fn reads_back_what_was_framed() {
        let bytes = log(&[b"one", b"", b"three"]);
        assert_eq!(read(&bytes), [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn stops_before_the_first_damaged_record_whichever_byte_is_hit() {
        let bytes = log(&[b"one", b"two"]);
        let second = HEADER_LEN + RECORD_HEADER_LEN + 3;
        for at in second..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(read(&damaged), [b"one".to_vec()], "byte {at}");
            assert_eq!(read(&bytes[..at]), [b"one".to_vec()], "cut at {at}");
        }
        for at in 0..HEADER_LEN {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(LogReader::open("test", &damaged, ID.magic, ID.number).is_err(), "byte {at}");
        }
    }

    #[test]
    fn pieces_tile_the_file_and_only_the_damaged_record_is_missing() {
        let mut bytes = log(&[b"one", b"two", b"three"]);
        bytes.extend([0; 50]);
        let second = HEADER_LEN + RECORD_HEADER_LEN + 3;
        let third = second + RECORD_HEADER_LEN + 3;
        let end = third + RECORD_HEADER_LEN + 5;
        for at in second..third {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let (reader, problem) = LogReader::salvage("test", &damaged, ID.magic, ID.number);
            assert!(problem.is_none());
            let pieces: Vec<Piece<&[u8]>> = reader.unwrap().pieces().map(data_of).collect();
            let range = |start, end| start as u64..end as u64;
            assert_eq!(
                pieces,
                [
                    Piece::Valid(&b"one"[..]),
                    Piece::Damage(range(second, third)),
                    Piece::Valid(b"three"),
                    Piece::Blank(range(end, end + 50))
                ],
                "byte {at}"
            );
        }
        for at in 0..HEADER_LEN {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let (reader, problem) = LogReader::salvage("test", &damaged, ID.magic, ID.number);
            assert!(problem.is_some());
            let valid = reader.unwrap().pieces().filter(|piece| matches!(piece, Piece::Valid(_)));
            assert_eq!(valid.count(), 3, "byte {at}");
        }
    }

    #[test]
    fn behind_a_header_and_a_first_record_that_are_damaged_the_rest_is_found() {
        let mut bytes = log(&[b"one", b"two"]);
        let second = (HEADER_LEN + RECORD_HEADER_LEN + 3) as u64;
        // The magic, and the salt of the first record: the header alone still has it.
        bytes[0] ^= 1;
        bytes[HEADER_LEN + 9] ^= 1;
        let (reader, problem) = LogReader::salvage("test", &bytes, ID.magic, ID.number);
        assert!(problem.is_some());
        let pieces: Vec<_> = reader.unwrap().pieces().map(data_of).collect();
        assert_eq!(pieces, [Piece::Damage(HEADER_LEN as u64..second), Piece::Valid(&b"two"[..])]);
    }

    fn data_of<'a>(piece: Piece<Record<'a>>) -> Piece<&'a [u8]> {
        match piece {
            Piece::Valid(record) => Piece::Valid(record.data),
            Piece::Damage(place) => Piece::Damage(place),
            Piece::Blank(place) => Piece::Blank(place),
        }
    }

    #[test]
    fn finds_valid_records_behind_a_damaged_one_but_none_that_a_client_wrote() {
        let other = LogId { salt: 1, ..ID };
        let mut forged = vec![0; RECORD_HEADER_LEN];
        forged.extend_from_slice(b"forged");
        other.seal(1, &mut forged);
        let mut bytes = log(&[b"one", &forged, b"three"]);
        let second = HEADER_LEN + RECORD_HEADER_LEN + 3;
        bytes[second] ^= 1;
        let mut reader = LogReader::open("test", &bytes, ID.magic, ID.number).unwrap();
        assert_eq!(reader.next().unwrap().data, b"one");
        assert!(reader.next().is_none());
        assert!(!reader.at_blank_end());
        let later: Vec<&[u8]> = reader.later().map(|record| record.data).collect();
        assert_eq!(later, [b"three"]);
    }
}
