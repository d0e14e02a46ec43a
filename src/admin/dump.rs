//! A file of a database as text, for people: what it says of itself, then piece by piece. What is damaged is said to be
//! so in its place.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::{Error, Health, Result, open_existing};
use crate::engine;
use crate::engine::batch::{Op, Ops};
use crate::fs::{Fs, OsFs};
use crate::storage::blob::BlobFile;
use crate::storage::log::Piece;
use crate::storage::manifest::{self, Change};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::{self, Parts};
use crate::storage::text::{shown, shown_deleted, shown_kind};
use crate::storage::wal::{Group, SegmentReader};
use crate::storage::{End, Kind, TableId, read_whole};

/// Writes the file at `path`, whose kind its name tells; of a table, with `entries`, every entry.
///
/// # Errors
///
/// [`engine::Error::InvalidArgument`] if it has no name of a database's file, [`engine::Error::Io`] if it cannot be
/// read.
pub fn dump(path: &Path, entries: bool, out: &mut dyn Write) -> Result<Health> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fs = open_existing(directory)?;
    let damaged = match FileName::parse(&name) {
        Some(FileName::Table(number)) => {
            let file = fs.open(&name).map_err(crate::storage::Error::io(&name, "open"))?;
            sstable::dump(&Arc::new(Parts::read(file, &name, TableId(number.0))), entries, out)?
        }
        Some(FileName::Blob(number)) => dump_blob(&fs, number, out)?,
        Some(FileName::Wal(number)) => {
            let bytes = read_whole(&fs, &name)?;
            let (pieces, problem) = SegmentReader::salvage(number, &bytes);
            writeln!(out, "{name}: log segment, {} bytes", bytes.len())?;
            pieces_of(pieces, problem, out, dump_group)?
        }
        Some(FileName::Manifest(number)) => {
            let bytes = read_whole(&fs, &name)?;
            let (pieces, problem) = manifest::salvage(number, &bytes);
            writeln!(out, "{name}: manifest, {} bytes", bytes.len())?;
            pieces_of(pieces, problem, out, |(offset, edit), out| {
                writeln!(out, "edit at {offset}")?;
                edit.iter().try_for_each(|change| dump_change(change, out))
            })?
        }
        Some(FileName::Current | FileName::CurrentTemp) => {
            let bytes = read_whole(&fs, &name)?;
            writeln!(out, "{name}: \"{}\"", shown(&bytes))?;
            match manifest::parse_current(&bytes) {
                Some(number) => writeln!(out, "names {}", FileName::Manifest(number))?,
                None => writeln!(out, "DAMAGED: it does not name a manifest")?,
            }
            manifest::parse_current(&bytes).is_none()
        }
        None => {
            let what = format!("{name} is none of CURRENT, NUMBER.manifest, NUMBER.wal, NUMBER.sst, NUMBER.blob");
            return Err(Error::Database(engine::Error::InvalidArgument(what)));
        }
    };
    Ok(if damaged { Health::Damaged } else { Health::Clean })
}

/// Whether anything is damaged. Bad bytes behind all good ones are mostly the mark of a crash.
fn pieces_of<T>(
    pieces: Vec<Piece<T>>,
    problem: Option<crate::storage::Error>,
    out: &mut dyn Write,
    mut show: impl FnMut(T, &mut dyn Write) -> io::Result<()>,
) -> io::Result<bool> {
    let mut damaged = problem.is_some() || pieces.is_empty();
    if let Some(problem) = problem {
        writeln!(out, "DAMAGED: {problem}")?;
    }
    let last_good = pieces.iter().rposition(|piece| matches!(piece, Piece::Valid(_)));
    for (n, piece) in pieces.into_iter().enumerate() {
        match piece {
            Piece::Valid(record) => show(record, out)?,
            Piece::Damage(place) if Some(n) > last_good => {
                writeln!(
                    out,
                    "at {}: {} bytes that are no record: torn by a crash, or damaged",
                    place.start,
                    place.end - place.start
                )?;
            }
            Piece::Damage(place) => {
                damaged = true;
                writeln!(out, "at {}: DAMAGED: {} bytes that are no record", place.start, place.end - place.start)?;
            }
            Piece::Blank(place) => writeln!(out, "at {}: {} zeros to the end", place.start, place.end - place.start)?,
        }
    }
    Ok(damaged)
}

/// Whether anything is damaged.
fn dump_blob(fs: &OsFs, number: FileNumber, out: &mut dyn Write) -> Result<bool> {
    let name = FileName::Blob(number).to_string();
    let file = fs.open(&name).map_err(crate::storage::Error::io(&name, "open"))?;
    let len = file.len().map_err(crate::storage::Error::io(&name, "read the length"))?;
    writeln!(out, "{name}: blob file, {len} bytes")?;
    let blob = match BlobFile::open(file, number) {
        Ok(blob) => blob,
        Err(error) => {
            writeln!(out, "DAMAGED: {error}")?;
            return Ok(true);
        }
    };
    for pointer in blob.pointers() {
        match pointer.and_then(|pointer| Ok((pointer, blob.read(pointer)?))) {
            Ok((pointer, value)) => writeln!(out, "{pointer}: \"{}\"", shown(&value))?,
            Err(error) => {
                writeln!(out, "DAMAGED: {error}: values behind it are found only by those who point to them")?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn dump_group(group: Group<'_>, out: &mut dyn Write) -> io::Result<()> {
    let position = group.position;
    let kind = if group.batches.is_empty() { "marker" } else { "group" };
    writeln!(
        out,
        "{kind} at {}: from sequence number {}, durable up to {}, at {} ms",
        group.offset, position.first, position.watermark, position.time_ms
    )?;
    let mut ops = Ops::new(group.batches);
    for (n, op) in ops.by_ref().enumerate() {
        let (key, text) = match op {
            Op::Put { key, value, expires_at } => (key, shown_kind(Kind::Put { expires_at }, value)),
            Op::Delete { key } => (key, shown_kind(Kind::Tombstone, b"")),
            Op::DeleteRange { start, end } => {
                writeln!(out, "  {} deleted: {}", position.first.0 + n as u64, shown_deleted(start, end))?;
                continue;
            }
        };
        writeln!(out, "  {} \"{}\"{text}", position.first.0 + n as u64, key.escape_ascii())?;
    }
    if !ops.rest().is_empty() {
        writeln!(out, "  DAMAGED: {} bytes that are no change", ops.rest().len())?;
    }
    Ok(())
}

fn dump_change(change: &Change, out: &mut dyn Write) -> io::Result<()> {
    match change {
        Change::NextFile(number) => writeln!(out, "  files are numbered from {}", number.0),
        Change::Flushed(seq) => writeln!(out, "  changes up to {seq} are in tables"),
        Change::LastSeq(seq) => writeln!(out, "  no number up to {seq} is given out again"),
        Change::Committed(moments) => {
            moments.iter().try_for_each(|(seq, time)| writeln!(out, "  up to {seq} committed at {time} ms"))
        }
        Change::Oldest(seq, time) => {
            writeln!(out, "  of the past, all from {seq} on is kept, as of {time} ms and later")
        }
        Change::AddTable { level, table } => writeln!(
            out,
            "  + level {level}: {}, {} bytes, {} entries, {} tombstones, sequence numbers {} .. {}, \"{}\" .. \"{}\"{}",
            FileName::Table(table.number),
            table.size,
            table.entries,
            table.tombstones,
            table.first_seq,
            table.last_seq,
            shown(&table.smallest),
            shown(table.largest.key().map_or(&[], |key| key)),
            match (&table.largest, table.range_tombstones) {
                (_, 0) => String::new(),
                (End::With(_), count) => format!(", {count} range tombstones"),
                (End::Before(_), count) => format!(" (not included), {count} range tombstones"),
                (End::Never, count) => format!(" (without end), {count} range tombstones"),
            }
        ),
        Change::DropTable { level, number } => writeln!(out, "  - level {level}: {}", FileName::Table(*number)),
        Change::AddSegment { number, prepared } => {
            writeln!(out, "  + log: {}, filled to {prepared} bytes", FileName::Wal(*number))
        }
        Change::CloseSegment { number, len } => writeln!(out, "  log: {} ends at {len}", FileName::Wal(*number)),
        Change::DropSegment { number } => writeln!(out, "  - log: {}", FileName::Wal(*number)),
    }
}
