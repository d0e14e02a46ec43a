//! The manifest: which tables and log segments make up the database, as an append-only log of version edits in the
//! framing of [`super::log`].
//!
//! ```text
//! manifest := log with magic "CHRONMAN"; records of kind 1, data = edit
//! edit     := field*
//! field    := 1: u8 | number: u64                       next file number: none at or above it has been used
//!           | 2: u8 | seq: u64                          flushed: every change up to here is in tables
//!           | 3: u8 | level: u8 | table                 a table joins a level, nothing known of its times; only read
//!           | 4: u8 | level: u8 | number: u64           a table leaves a level
//!           | 5: u8 | number: u64 | prepared: u64       a log segment of at least that length is ready to be written to
//!           | 6: u8 | number: u64 | len: u64            a log segment ends at this length, whatever follows
//!           | 7: u8 | number: u64                       a log segment is no longer needed
//!           | 8: u8 | seq: u64                          no sequence number up to here may be given out again
//!           | 9: u8 | level: u8 | table | times | blobs a table joins a level
//!           | 10: u8 | level: u8 | table | times | blobs | ranges   ... that has range tombstones
//!           | 12: u8 | moments                          when positions that are in tables were committed
//!           | 13: u8 | seq: u64 | time: u64             of the past nothing before this is complete
//! table    := number: u64 | size: u64 | entries: u64 | tombstones: u64 | older: u64
//!           | first seq: u64 | last seq: u64 | earliest expiry: u64 (all ones: none) | smallest: bytes | largest: bytes
//! times    := written: u64 (all ones: unknown) | expiring: u64 | quartile: u64{4}
//! blobs    := count: varint | (blob file: u64 | its length: u64 | bytes that the table points to: u64){count}
//! ranges   := range tombstones: u64 | end: u8 (of the keys: 0 with `largest`, 1 before it, 2 nowhere; then that is empty)
//! moments  := see [`super::moments`]
//! bytes    := length: varint | length bytes             // integers little-endian
//! ```
//!
//! The first record of a manifest is the whole state as one edit; `CURRENT` names the manifest in force as a line
//! `000007.manifest <crc32 of the name, 8 hex digits>`. A manifest is never appended to after a restart.

use std::sync::Arc;

use super::blob::BlobUse;
use super::current::current_naming;
pub(crate) use super::current::{current, parse_current};
use super::log::{LogId, LogReader, Piece, RECORD_HEADER_LEN, Record};
use super::moments::{self, Moments};
use super::names::{FileName, FileNumber};
pub(crate) use super::table_times::TableTimes;
use super::{End, Error, Result, SeqNo};
use crate::codec::cursor::Cursor;
use crate::codec::defect::{Defect, seeded};
use crate::codec::{Slice, varint};
use crate::fs::{File, Fs};

pub(super) const MAGIC: [u8; 8] = *b"CHRONMAN";
const EDIT: u8 = 1;
const NO_EXPIRY: u64 = u64::MAX;
const NO_TIME: u64 = u64::MAX;

/// No table has so many bytes or entries; all tables of a tree together can be added up.
const MAX_AMOUNT: u64 = 1 << 48;

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
    pub(crate) times: TableTimes,
    /// Of each fragment all.
    pub(crate) range_tombstones: u64,
    /// Between these lie all keys that it has, and all that its range tombstones cover.
    pub(crate) smallest: Slice,
    pub(crate) largest: End,
    /// Blob files that it points into, each once.
    pub(crate) blobs: Vec<BlobUse>,
}

impl TableMeta {
    /// Bytes on disk that go with the table: its own, and what only it points to of blob files.
    pub(crate) fn bytes_with_values(&self) -> u64 {
        self.size + self.blobs.iter().map(|blob| blob.used_bytes).sum::<u64>()
    }
}

/// One change of the database's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most changes are tables that join, and an edit does not live long")]
pub(crate) enum Change {
    NextFile(FileNumber),
    Flushed(SeqNo),
    AddTable { level: u8, table: TableMeta },
    DropTable { level: u8, number: FileNumber },
    AddSegment { number: FileNumber, prepared: u64 },
    CloseSegment { number: FileNumber, len: u64 },
    DropSegment { number: FileNumber },
    LastSeq(SeqNo),
    Committed(Moments),
    Oldest(SeqNo, u64),
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
                out.extend_from_slice(&[if table.range_tombstones > 0 { 10 } else { 9 }, *level]);
                let expiry = table.earliest_expiry.unwrap_or(NO_EXPIRY);
                ints(out, &[table.number.0, table.size, table.entries, table.tombstones, table.older]);
                ints(out, &[table.first_seq.0, table.last_seq.0, expiry]);
                bytes(out, &table.smallest);
                bytes(out, table.largest.key().map_or(&[], |key| key));
                ints(out, &[table.times.written.unwrap_or(NO_TIME), table.times.expiring]);
                ints(out, &table.times.quartiles);
                varint::put(out, table.blobs.len() as u64);
                for blob in &table.blobs {
                    ints(out, &[blob.file.0, blob.file_bytes, blob.used_bytes]);
                }
                if table.range_tombstones > 0 {
                    ints(out, &[table.range_tombstones]);
                    out.push(match &table.largest {
                        End::With(_) => 0,
                        End::Before(_) => 1,
                        End::Never => 2,
                    });
                }
            }
            Change::DropTable { level, number } => {
                out.extend_from_slice(&[4, *level]);
                ints(out, &[number.0]);
            }
            Change::AddSegment { number, prepared } => {
                out.push(5);
                ints(out, &[number.0, *prepared]);
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
            Change::Committed(moments) => {
                out.push(12);
                moments::put(out, moments);
            }
            Change::Oldest(seq, time) => {
                out.push(13);
                ints(out, &[seq.0, *time]);
            }
        }
    }
}

fn decode(data: &[u8]) -> Option<Edit> {
    let mut cursor = Cursor::new(data);
    let mut edit = Edit::new();
    fn number(cursor: &mut Cursor<'_>) -> Option<FileNumber> {
        cursor.u64().map(FileNumber).filter(|number| *number <= FileNumber::LIMIT)
    }
    fn seq(cursor: &mut Cursor<'_>) -> Option<SeqNo> {
        cursor.u64().map(SeqNo).filter(|seq| *seq <= SeqNo::LIMIT)
    }
    fn amount(cursor: &mut Cursor<'_>) -> Option<u64> {
        cursor.u64().filter(|amount| *amount <= MAX_AMOUNT)
    }
    while !cursor.is_empty() {
        edit.push(match cursor.u8()? {
            1 => Change::NextFile(number(&mut cursor)?),
            2 => Change::Flushed(seq(&mut cursor)?),
            tag @ (3 | 9 | 10) => {
                let level = cursor.u8()?;
                let mut table = TableMeta {
                    number: number(&mut cursor)?,
                    size: amount(&mut cursor)?,
                    entries: amount(&mut cursor)?,
                    tombstones: amount(&mut cursor)?,
                    older: amount(&mut cursor)?,
                    first_seq: seq(&mut cursor)?,
                    last_seq: seq(&mut cursor)?,
                    earliest_expiry: Some(cursor.u64()?).filter(|&at| at != NO_EXPIRY),
                    smallest: Slice::copy_from(cursor.prefixed()?),
                    largest: End::With(Slice::copy_from(cursor.prefixed()?)),
                    times: TableTimes::default(),
                    blobs: Vec::new(),
                    range_tombstones: 0,
                };
                if tag != 3 {
                    table.times.written = Some(cursor.u64()?).filter(|&at| at != NO_TIME);
                    table.times.expiring = amount(&mut cursor)?;
                    for quartile in &mut table.times.quartiles {
                        *quartile = cursor.u64()?;
                    }
                    for _ in 0..cursor.varint()? {
                        let file = number(&mut cursor)?;
                        let (file_bytes, used_bytes) = (amount(&mut cursor)?, amount(&mut cursor)?);
                        table.blobs.push(BlobUse { file, file_bytes, used_bytes });
                    }
                }
                if tag == 10 {
                    table.range_tombstones = amount(&mut cursor).filter(|count| *count > 0)?;
                    table.largest = match (cursor.u8()?, table.largest) {
                        (0, largest) => largest,
                        (1, End::With(bound)) => End::Before(bound),
                        (2, End::With(none)) if none.is_empty() => End::Never,
                        _ => return None,
                    };
                }
                Change::AddTable { level, table }
            }
            4 => Change::DropTable { level: cursor.u8()?, number: number(&mut cursor)? },
            5 => Change::AddSegment { number: number(&mut cursor)?, prepared: cursor.u64()? },
            6 => Change::CloseSegment { number: number(&mut cursor)?, len: cursor.u64()? },
            7 => Change::DropSegment { number: number(&mut cursor)? },
            8 => Change::LastSeq(seq(&mut cursor)?),
            12 => Change::Committed(moments::read(&mut cursor)?),
            13 => Change::Oldest(seq(&mut cursor)?, cursor.u64()?),
            _ => return None,
        });
    }
    Some(edit)
}

/// Why a manifest could not be begun.
pub(crate) struct CreateError {
    pub(crate) error: Error,
    /// Whether the file is still there: `CURRENT` may name it already.
    pub(crate) left_behind: bool,
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
    pub(crate) fn create(
        fs: &dyn Fs,
        number: FileNumber,
        salt: u64,
        state: &[Change],
    ) -> std::result::Result<ManifestWriter, CreateError> {
        let name = FileName::Manifest(number).to_string();
        let file = fs.create(&name).map_err(Error::io(&name, "create"));
        let file = file.map_err(|error| CreateError { error, left_behind: false })?;
        let id = LogId { magic: MAGIC, number: number.0, salt };
        let mut writer = ManifestWriter { file, id, end: 0, name };
        if let Err(error) = writer.begin(state).and_then(|()| writer.prepare_current(fs)) {
            super::give_up(fs, &writer.name);
            return Err(CreateError { error, left_behind: false });
        }
        let temp = FileName::CurrentTemp.to_string();
        let renamed = fs.rename(&temp, &FileName::Current.to_string()).map_err(Error::io(&temp, "rename"));
        let sync_dir = || if seeded(Defect::CurrentNotNamed) { Ok(()) } else { fs.sync_dir() };
        match renamed.and_then(|()| sync_dir().map_err(Error::io(".", "sync the directory"))) {
            Ok(()) => Ok(writer),
            Err(error) => Err(CreateError { error, left_behind: true }),
        }
    }

    fn begin(&mut self, state: &[Change]) -> Result<()> {
        let header = self.id.header();
        self.file.write_at(&header, 0).map_err(Error::io(&self.name, "write the header"))?;
        self.end = header.len() as u64;
        self.append(state)
    }

    /// Writes the next `CURRENT`, ready to be renamed.
    fn prepare_current(&self, fs: &dyn Fs) -> Result<()> {
        let temp = FileName::CurrentTemp.to_string();
        // A temp file is left behind when a crash or an error came between its creation and its renaming.
        match fs.remove(&temp) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(&temp, "remove")(error));
            }
            _ => {}
        }
        let current = fs.create(&temp).map_err(Error::io(&temp, "create"))?;
        current.write_at(current_naming(&self.name).as_bytes(), 0).map_err(Error::io(&temp, "write"))?;
        if !seeded(Defect::CurrentNotSynced) {
            current.sync().map_err(Error::io(&temp, "sync"))?;
        }
        if seeded(Defect::ManifestNotNamed) {
            return Ok(());
        }
        // The manifest's own name must be durable before CURRENT can refer to it.
        fs.sync_dir().map_err(Error::io(".", "sync the directory"))
    }

    /// Appends an edit and makes it durable. After an error nothing more may be appended to this file.
    pub(crate) fn append(&mut self, edit: &[Change]) -> Result<()> {
        let mut record = vec![0; RECORD_HEADER_LEN];
        encode(edit, &mut record);
        self.id.seal(EDIT, &mut record);
        self.file.write_at(&record, self.end).map_err(Error::io(&self.name, "append"))?;
        if !seeded(Defect::EditNotSynced) {
            self.file.sync().map_err(Error::io(&self.name, "sync"))?;
        }
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

/// What can be made out of a manifest of which nothing may be taken for granted: edits with their offsets, in order, and
/// what is wrong with the header.
pub(crate) fn salvage(number: FileNumber, bytes: &[u8]) -> (Vec<Piece<(u64, Edit)>>, Option<Error>) {
    let name = FileName::Manifest(number).to_string();
    let (log, problem) = LogReader::salvage(&name, bytes, MAGIC, number.0);
    let edit = |piece: Piece<Record<'_>>| match piece {
        Piece::Valid(record) => match (record.kind == EDIT).then(|| decode(record.data)).flatten() {
            Some(edit) => Piece::Valid((record.offset, edit)),
            None => Piece::Damage(record.place()),
        },
        Piece::Damage(place) => Piece::Damage(place),
        Piece::Blank(place) => Piece::Blank(place),
    };
    (log.into_iter().flat_map(LogReader::pieces).map(edit).collect(), problem)
}

/// Reads all edits of a manifest in order, and tells where they end. A torn last record is an edit that never took effect; a bad record in front
/// of a valid one is damage, since each edit is durable before the next is written.
pub(crate) fn read(fs: &dyn Fs, number: FileNumber) -> Result<(Vec<Edit>, u64)> {
    let name = FileName::Manifest(number).to_string();
    let bytes = match super::read_whole(fs, &name) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corrupt(&name, "CURRENT names it, but it is missing", 0));
        }
        bytes => bytes?,
    };
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
    Ok((edits, log.offset()))
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
