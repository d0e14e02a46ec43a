//! The manifest: which tables and log segments make up the database, as an append-only log of version edits in the
//! framing of [`super::log`].
//!
//! ```text
//! manifest := log with magic "CHRONMAN"; records of kind 1, data = edit
//! edit     := field*
//! field    := 1: u8 | number: u64                       next file number: none at or above it has been used
//!           | 2: u8 | seq: u64                          flushed: every change up to here is in tables
//!           | 3: u8 | level: u8 | table                 a table joins a level
//!           | 4: u8 | level: u8 | number: u64           a table leaves a level
//!           | 5: u8 | number: u64                       a log segment is ready to be written to
//!           | 6: u8 | number: u64 | len: u64            a log segment ends at this length, whatever follows
//!           | 7: u8 | number: u64                       a log segment is no longer needed
//!           | 8: u8 | seq: u64                          no sequence number up to here may be given out again
//! table    := number: u64 | size: u64 | entries: u64 | tombstones: u64 | older: u64
//!           | first seq: u64 | last seq: u64 | earliest expiry: u64 (all ones: none) | smallest: bytes | largest: bytes
//! bytes    := length: varint | length bytes             // integers little-endian
//! ```
//!
//! The first record of a manifest is the whole state as one edit; `CURRENT` names the manifest in force as a line
//! `000007.manifest <crc32 of the name, 8 hex digits>`. A manifest is never appended to after a restart.

use std::sync::Arc;

use super::log::{LogId, LogReader, RECORD_HEADER_LEN};
use super::names::{FileName, FileNumber};
use super::{Error, Result, SeqNo};
use crate::codec::cursor::Cursor;
use crate::codec::{Slice, crc, varint};
use crate::fs::{File, Fs};

const MAGIC: [u8; 8] = *b"CHRONMAN";
const EDIT: u8 = 1;
const NO_EXPIRY: u64 = u64::MAX;

/// What the manifest knows of a table, so that opening a database opens none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableMeta {
    pub(crate) number: FileNumber,
    /// Bytes on disk.
    pub(crate) size: u64,
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// Entries that are not the newest of their key in this table.
    pub(crate) older: u64,
    pub(crate) first_seq: SeqNo,
    pub(crate) last_seq: SeqNo,
    /// Milliseconds since 1970.
    pub(crate) earliest_expiry: Option<u64>,
    pub(crate) smallest: Slice,
    pub(crate) largest: Slice,
}

/// One change of the database's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    NextFile(FileNumber),
    Flushed(SeqNo),
    AddTable { level: u8, table: TableMeta },
    DropTable { level: u8, number: FileNumber },
    AddSegment { number: FileNumber },
    CloseSegment { number: FileNumber, len: u64 },
    DropSegment { number: FileNumber },
    LastSeq(SeqNo),
}

/// Changes that take effect together.
pub(crate) type Edit = Vec<Change>;

fn encode(edit: &[Change], out: &mut Vec<u8>) {
    fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
    let ints = |out: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    for change in edit {
        match change {
            Change::NextFile(number) => {
                out.push(1);
                ints(out, &[number.0]);
            }
            Change::Flushed(seq) => {
                out.push(2);
                ints(out, &[seq.0]);
            }
            Change::AddTable { level, table } => {
                out.extend_from_slice(&[3, *level]);
                let expiry = table.earliest_expiry.unwrap_or(NO_EXPIRY);
                ints(out, &[table.number.0, table.size, table.entries, table.tombstones, table.older]);
                ints(out, &[table.first_seq.0, table.last_seq.0, expiry]);
                bytes(out, &table.smallest);
                bytes(out, &table.largest);
            }
            Change::DropTable { level, number } => {
                out.extend_from_slice(&[4, *level]);
                ints(out, &[number.0]);
            }
            Change::AddSegment { number } => {
                out.push(5);
                ints(out, &[number.0]);
            }
            Change::CloseSegment { number, len } => {
                out.push(6);
                ints(out, &[number.0, *len]);
            }
            Change::DropSegment { number } => {
                out.push(7);
                ints(out, &[number.0]);
            }
            Change::LastSeq(seq) => {
                out.push(8);
                ints(out, &[seq.0]);
            }
        }
    }
}

fn decode(data: &[u8]) -> Option<Edit> {
    let mut cursor = Cursor::new(data);
    let mut edit = Edit::new();
    while !cursor.is_empty() {
        edit.push(match cursor.u8()? {
            1 => Change::NextFile(FileNumber(cursor.u64()?)),
            2 => Change::Flushed(SeqNo(cursor.u64()?)),
            3 => Change::AddTable {
                level: cursor.u8()?,
                table: TableMeta {
                    number: FileNumber(cursor.u64()?),
                    size: cursor.u64()?,
                    entries: cursor.u64()?,
                    tombstones: cursor.u64()?,
                    older: cursor.u64()?,
                    first_seq: SeqNo(cursor.u64()?),
                    last_seq: SeqNo(cursor.u64()?),
                    earliest_expiry: Some(cursor.u64()?).filter(|&at| at != NO_EXPIRY),
                    smallest: Slice::copy_from(cursor.prefixed()?),
                    largest: Slice::copy_from(cursor.prefixed()?),
                },
            },
            4 => Change::DropTable { level: cursor.u8()?, number: FileNumber(cursor.u64()?) },
            5 => Change::AddSegment { number: FileNumber(cursor.u64()?) },
            6 => Change::CloseSegment { number: FileNumber(cursor.u64()?), len: cursor.u64()? },
            7 => Change::DropSegment { number: FileNumber(cursor.u64()?) },
            8 => Change::LastSeq(SeqNo(cursor.u64()?)),
            _ => return None,
        });
    }
    Some(edit)
}

/// A manifest being written.
pub(crate) struct ManifestWriter {
    file: Arc<dyn File>,
    name: String,
    id: LogId,
    end: u64,
}

impl ManifestWriter {
    /// Creates a manifest that begins with `state` and makes it the one in force: file synced, name synced, `CURRENT`
    /// replaced by temp file, sync, rename and directory sync, in that order.
    pub(crate) fn create(fs: &dyn Fs, number: FileNumber, salt: u64, state: &[Change]) -> Result<ManifestWriter> {
        let name = FileName::Manifest(number).to_string();
        let file = fs.create(&name).map_err(Error::io(&name, "create"))?;
        let id = LogId { magic: MAGIC, number: number.0, salt };
        let header = id.header();
        file.write_at(&header, 0).map_err(Error::io(&name, "write the header"))?;
        let mut writer = ManifestWriter { file, id, end: header.len() as u64, name };
        writer.append(state)?;

        let temp = FileName::CurrentTemp.to_string();
        // A temp file is left behind when a crash or an error came between its creation and its renaming.
        match fs.remove(&temp) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&temp, "remove")(error));
            }
            _ => {}
        }
        let current = fs.create(&temp).map_err(Error::io(&temp, "create"))?;
        let line = format!("{} {:08x}\n", writer.name, crc::crc32(&[writer.name.as_bytes()]));
        current.write_at(line.as_bytes(), 0).map_err(Error::io(&temp, "write"))?;
        current.sync().map_err(Error::io(&temp, "sync"))?;
        // The manifest's own name must be durable before CURRENT can refer to it.
        fs.sync_dir().map_err(Error::io(".", "sync the directory"))?;
        fs.rename(&temp, &FileName::Current.to_string()).map_err(Error::io(&temp, "rename"))?;
        fs.sync_dir().map_err(Error::io(".", "sync the directory"))?;
        Ok(writer)
    }

    /// Appends an edit and makes it durable. After an error nothing more may be appended to this file.
    pub(crate) fn append(&mut self, edit: &[Change]) -> Result<()> {
        let mut record = vec![0; RECORD_HEADER_LEN];
        encode(edit, &mut record);
        self.id.seal(EDIT, &mut record);
        self.file.write_at(&record, self.end).map_err(Error::io(&self.name, "append"))?;
        self.file.sync().map_err(Error::io(&self.name, "sync"))?;
        self.end += record.len() as u64;
        Ok(())
    }

    pub(crate) fn number(&self) -> FileNumber {
        FileNumber(self.id.number)
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> u64 {
        self.end
    }
}

/// The number of the manifest in force, or `None` if there is no database here yet.
pub(crate) fn current(fs: &dyn Fs) -> Result<Option<FileNumber>> {
    let name = FileName::Current.to_string();
    let bytes = match super::read_whole(fs, &name) {
        Ok(bytes) => bytes,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let parsed = (|| {
        let line = std::str::from_utf8(&bytes).ok()?.strip_suffix('\n')?;
        let (manifest, sum) = line.split_once(' ')?;
        let FileName::Manifest(number) = FileName::parse(manifest)? else { return None };
        (sum == format!("{:08x}", crc::crc32(&[manifest.as_bytes()]))).then_some(number)
    })();
    match parsed {
        Some(number) => Ok(Some(number)),
        None => Err(Error::Corrupt { file: name, what: "it does not name a manifest".to_owned(), offset: 0 }),
    }
}

/// Reads all edits of a manifest in order. A torn last record is an edit that never took effect; a bad record in front
/// of a valid one is damage, since each edit is durable before the next is written.
pub(crate) fn read(fs: &dyn Fs, number: FileNumber) -> Result<Vec<Edit>> {
    let name = FileName::Manifest(number).to_string();
    let bytes = super::read_whole(fs, &name)?;
    let corrupt = |what: &str, offset| Error::Corrupt { file: name.clone(), what: what.to_owned(), offset };
    let mut log = LogReader::open(&name, &bytes, MAGIC, number.0)?;
    let mut edits = Vec::new();
    while let Some(record) = log.next() {
        let edit = (record.kind == EDIT).then(|| decode(record.data)).flatten();
        edits.push(edit.ok_or_else(|| corrupt("an edit that this Chronos does not understand", record.offset))?);
    }
    if let Some(later) = log.later().next() {
        return Err(corrupt(&format!("a damaged record before a good one at {}", later.offset), log.offset()));
    }
    if edits.is_empty() {
        // The first record is durable before CURRENT names the file.
        return Err(corrupt("the first record is damaged", log.offset()));
    }
    Ok(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_survives_its_encoding_and_no_prefix_passes_for_it() {
        let table = TableMeta {
            number: FileNumber(9),
            size: 4096,
            entries: 10,
            tombstones: 2,
            older: 1,
            first_seq: SeqNo(5),
            last_seq: SeqNo(14),
            earliest_expiry: None,
            smallest: Slice::copy_from(b"a"),
            largest: Slice::copy_from(&[0xff; 300]),
        };
        let expiring = TableMeta { earliest_expiry: Some(77), ..table.clone() };
        let edit = vec![
            Change::NextFile(FileNumber(3)),
            Change::Flushed(SeqNo(14)),
            Change::AddTable { level: 0, table },
            Change::AddTable { level: 6, table: expiring },
            Change::DropTable { level: 1, number: FileNumber(2) },
            Change::AddSegment { number: FileNumber(4) },
            Change::CloseSegment { number: FileNumber(4), len: 123 },
            Change::DropSegment { number: FileNumber(4) },
            Change::LastSeq(SeqNo(20)),
        ];
        let mut bytes = Vec::new();
        encode(&edit, &mut bytes);
        assert_eq!(decode(&bytes).as_ref(), Some(&edit));
        for cut in 0..bytes.len() {
            assert_ne!(decode(&bytes[..cut]).as_ref(), Some(&edit));
        }
    }
}
