//! The two ends of a table file.
//!
//! ```text
//! header := magic: "CSST" | version: u32 | table: u64                                       // little-endian
//! footer := partitions: u64 | ranges: handle | top: handle | properties: handle | table: u64 | version: u32
//!           | crc: u32 | magic: "CSST"                                                      // crc covers all before it
//! handle := offset: u64 | length: u32                                                       // of a stored block
//! ```
//!
//! `partitions` is where the data blocks end and the partitions start; these end where the range tombstones start, and
//! those where the top starts. The handle of range tombstones has the length 0 if there are none.
//!
//! The header needs no checksum: the reader knows every byte of it beforehand.

use super::Malformed;
use super::frame::Handle;
use crate::codec::crc::crc32;
use crate::codec::cursor::Cursor;
use crate::storage::TableId;

const MAGIC: [u8; 4] = *b"CSST";

/// Goes up with every change that an older reader would misread.
pub(super) const FORMAT_VERSION: u32 = 2;

pub(super) const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>() + size_of::<u64>();

const HANDLE_BYTES: usize = size_of::<u64>() + size_of::<u32>();
const COVERED_BYTES: usize = size_of::<u64>() + 3 * HANDLE_BYTES + size_of::<u64>() + size_of::<u32>();
pub(super) const FOOTER_BYTES: usize = COVERED_BYTES + size_of::<u32>() + MAGIC.len();

pub(super) fn header(TableId(table): TableId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (magic, rest) = header.split_at_mut(MAGIC.len());
    let (version, id) = rest.split_at_mut(size_of::<u32>());
    magic.copy_from_slice(&MAGIC);
    version.copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    id.copy_from_slice(&table.to_le_bytes());
    header
}

/// The table that a header names, for those who do not know it yet.
pub(super) fn table_of(header: &[u8; HEADER_BYTES]) -> Result<TableId, Malformed> {
    let mut cursor = Cursor::new(header);
    if cursor.bytes(MAGIC.len()) != Some(&MAGIC) {
        return Err(Malformed("file is no table"));
    }
    if cursor.u32() != Some(FORMAT_VERSION) {
        return Err(Malformed("table has a format version that this program does not read"));
    }
    cursor.u64().map(TableId).ok_or(Malformed("header is too short"))
}

/// Where the parts behind the data blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Where the data blocks end.
    pub(super) partitions: u64,
    pub(super) ranges: Handle,
    pub(super) top: Handle,
    pub(super) properties: Handle,
}

impl Footer {
    pub(super) fn encode(&self, TableId(table): TableId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&self.partitions.to_le_bytes());
        for handle in [self.ranges, self.top, self.properties] {
            bytes.extend_from_slice(&handle.offset.to_le_bytes());
            bytes.extend_from_slice(&handle.length.to_le_bytes());
        }
        bytes.extend_from_slice(&table.to_le_bytes());
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32(&[&bytes]).to_le_bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes
    }

    /// The footer that was read from `offset`, if it is of `table` and its handles tile the file up to itself.
    pub(super) fn decode(bytes: &[u8; FOOTER_BYTES], table: TableId, offset: u64) -> Result<Footer, Malformed> {
        const MALFORMED: Malformed = Malformed("footer is too short");
        if !bytes.ends_with(&MAGIC) {
            return Err(Malformed("file does not end like a table: it was cut short or is no table"));
        }
        let mut cursor = Cursor::new(bytes);
        let partitions = cursor.u64().ok_or(MALFORMED)?;
        let mut handle = || Some(Handle { offset: cursor.u64()?, length: cursor.u32()? });
        let ranges = handle().ok_or(MALFORMED)?;
        let top = handle().ok_or(MALFORMED)?;
        let properties = handle().ok_or(MALFORMED)?;
        let id = cursor.u64().map(TableId).ok_or(MALFORMED)?;
        let version = cursor.u32().ok_or(MALFORMED)?;
        if cursor.u32() != Some(crc32(&[&bytes[..COVERED_BYTES]])) {
            return Err(Malformed("footer does not match its checksum"));
        }
        if version != FORMAT_VERSION {
            return Err(Malformed("table has a format version that this program does not read"));
        }
        if id != table {
            return Err(Malformed("file belongs to another table"));
        }
        let tiled = partitions >= HEADER_BYTES as u64
            && partitions <= ranges.offset
            && ranges.end() == top.offset
            && top.end() == properties.offset
            && properties.end() == offset;
        if !tiled {
            return Err(Malformed("parts of the table do not meet"));
        }
        Ok(Footer { partitions, ranges, top, properties })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_do_not_tile_the_file_are_refused() {
        const TABLE: TableId = TableId(7);
        const AT: u64 = 1_000;
        let part = |offset, length| Handle { offset, length };
        let good = Footer { partitions: 400, ranges: part(500, 100), top: part(600, 150), properties: part(750, 250) };
        let decode = |footer: Footer, at| Footer::decode(footer.encode(TABLE).first_chunk().unwrap(), TABLE, at);
        assert_eq!(decode(good, AT), Ok(good));
        let smallest = Footer { partitions: HEADER_BYTES as u64, ..good };
        assert_eq!(decode(smallest, AT), Ok(smallest));
        assert_eq!(decode(Footer { partitions: 500, ..good }, AT), Ok(Footer { partitions: 500, ..good }));
        let bad = [
            ("data blocks that end within the header", Footer { partitions: HEADER_BYTES as u64 - 1, ..good }),
            ("data blocks that end behind the partitions", Footer { partitions: 501, ..good }),
            ("a gap before the top", Footer { ranges: part(500, 99), ..good }),
            ("range tombstones within the top", Footer { ranges: part(501, 100), ..good }),
            ("a gap before the properties", Footer { top: part(600, 149), ..good }),
            ("a top within the properties", Footer { top: part(600, 151), ..good }),
            ("a gap before the footer", Footer { properties: part(750, 249), ..good }),
            ("properties within the footer", Footer { properties: part(750, 251), ..good }),
        ];
        for (what, footer) in bad {
            assert_eq!(decode(footer, AT), Err(Malformed("parts of the table do not meet")), "{what}");
        }
        assert!(decode(good, AT + 1).is_err());
    }
}
