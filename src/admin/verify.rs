//! Whether a database is what its writer wrote: every checksum of every file that the manifest names, the order of keys,
//! filters and indexes against the keys, the tables against what the manifest says of them, the records of the log; and
//! whether a start would take it.

use std::io::Write;
use std::sync::Arc;

use super::inventory::{Inventory, is_missing, missing_or};
use super::{Directory, Health, Result};
use crate::engine::batch::Ops;
use crate::engine::recovery::survey;
use crate::engine::version::{Listed, TableSource};
use crate::engine::{Error, Options};
use crate::storage::log::Piece;
use crate::storage::manifest::TableMeta;
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::{Parts, Properties, check};
use crate::storage::wal::SegmentReader;
use crate::storage::{BlockCache, TableId, read_whole};

/// Checks everything and writes what it found: a line for each file, and a summary.
///
/// # Errors
///
/// Damage is none. [`Error::Io`] if the directory cannot be listed, [`super::Error::Output`] if `out` takes nothing.
pub fn verify(directory: &Directory, out: &mut dyn Write) -> Result<Health> {
    directory.introduce(out)?;
    let inventory = Inventory::take(&directory.fs)?;
    if inventory.is_nothing() {
        writeln!(out, "{}: no database is here", directory.fs.describe())?;
        return Ok(Health::Damaged);
    }
    let mut report = Report { out, files: 0, damaged: 0 };
    let named = inventory.manifest.map_or("nothing".to_owned(), |number| FileName::Manifest(number).to_string());
    report.file(FileName::Current, format!("names {named}"), inventory.current_problem.iter().map(Error::to_string))?;
    if let Some(number) = inventory.manifest {
        let torn = match inventory.torn_bytes {
            0 => String::new(),
            bytes => format!(", and {bytes} bytes of one that never took effect"),
        };
        let problems = inventory.manifest_problems.iter().map(Error::to_string);
        report.file(FileName::Manifest(number), format!("{} edits{torn}", inventory.edits), problems)?;
    }
    for (&number, (level, meta)) in &inventory.tables {
        table(directory, number, *level, meta, &mut report)?;
    }
    for (&number, &listed) in &inventory.segments {
        segment(directory, number, listed, &mut report)?;
    }
    if !directory.is_in_use() {
        leftovers(&inventory, &mut report)?;
        would_start(directory, &mut report)?;
    }
    let Report { out, files, damaged } = report;
    match damaged {
        0 => writeln!(out, "clean: {files} files")?,
        _ => writeln!(out, "DAMAGED: {damaged} of {files} files")?,
    }
    Ok(if damaged == 0 { Health::Clean } else { Health::Damaged })
}

struct Report<'a> {
    out: &'a mut dyn Write,
    files: usize,
    damaged: usize,
}

impl Report<'_> {
    fn file(
        &mut self,
        name: FileName,
        what: String,
        problems: impl IntoIterator<Item = String>,
    ) -> std::io::Result<()> {
        let mut problems = problems.into_iter().peekable();
        let verdict = if problems.peek().is_some() { "DAMAGED" } else { "ok" };
        self.files += 1;
        self.damaged += usize::from(problems.peek().is_some());
        writeln!(self.out, "{:<16} {verdict:<8} {what}", name.to_string())?;
        problems.try_for_each(|problem| writeln!(self.out, "    {problem}"))
    }
}

fn table(
    directory: &Directory,
    number: FileNumber,
    level: u8,
    meta: &TableMeta,
    report: &mut Report<'_>,
) -> Result<()> {
    let file = FileName::Table(number);
    let name = file.to_string();
    let opened = match directory.fs.open(&name).map_err(crate::storage::Error::io(&name, "open")) {
        Ok(opened) => opened,
        Err(error) => {
            if is_missing(&error) && directory.is_in_use() && is_gone(directory, number)? {
                writeln!(report.out, "{name:<16} gone     a compaction has replaced it meanwhile")?;
                return Ok(());
            }
            return Ok(report.file(file, format!("level {level}"), [missing_or(file, error).to_string()])?);
        }
    };
    let parts = Arc::new(Parts::read(opened, &name, TableId(number.0)));
    let checked = check(&parts);
    let mut problems: Vec<String> = parts.problems.iter().map(|problem| problem.to_string()).collect();
    problems.extend(checked.problems);
    // Of a damaged table the counts would differ for that alone.
    let told = if problems.is_empty() { Some(&checked.counted) } else { parts.properties.as_ref() };
    problems.extend(told.and_then(|properties| disagreement(meta, properties, parts.bytes())));
    let counted = &checked.counted;
    let what =
        format!("level {level}, {} blocks, {} entries, {} bytes", counted.data_blocks, counted.entries, parts.bytes());
    Ok(report.file(file, what, problems)?)
}

/// Whether the manifest in force no longer lists the file.
fn is_gone(directory: &Directory, number: FileNumber) -> Result<bool> {
    let now = Inventory::take(&directory.fs)?;
    Ok(!now.tables.contains_key(&number) && !now.segments.contains_key(&number))
}

/// In what a table is not as the manifest says.
fn disagreement(meta: &TableMeta, found: &Properties, bytes: u64) -> Option<String> {
    let expiry = (found.expiring > 0).then_some(found.earliest_expiry);
    let counts = [
        ("bytes", meta.size, bytes),
        ("entries", meta.entries, found.entries),
        ("tombstones", meta.tombstones, found.tombstones),
        ("older versions", meta.older, found.older_versions),
        ("as first sequence number", meta.first_seq.0, found.smallest_seq.0),
        ("as last sequence number", meta.last_seq.0, found.largest_seq.0),
        ("as earliest expiry", meta.earliest_expiry.unwrap_or(0), expiry.unwrap_or(0)),
    ];
    let count = counts.into_iter().find(|(_, said, is)| said != is);
    let differing = count.map(|(what, said, is)| format!("{said} {what}, but it has {is}"));
    let keys = *meta.smallest != *found.smallest_key || *meta.largest != *found.largest_key;
    let differing = differing.or_else(|| keys.then(|| "another key range than it has".to_owned()))?;
    Some(format!("{}: the manifest says {differing}", FileName::Table(meta.number)))
}

fn segment(directory: &Directory, number: FileNumber, listed: Listed, report: &mut Report<'_>) -> Result<()> {
    let file = FileName::Wal(number);
    let mut judged = judge(directory, number, listed);
    if directory.is_in_use() {
        if matches!(&judged, Err(error) if is_missing(error)) && is_gone(directory, number)? {
            writeln!(report.out, "{:<16} gone     what it held is in tables meanwhile", file.to_string())?;
            return Ok(());
        }
        // A record that was being written while it was read is whole now.
        if matches!(&judged, Ok((_, problems)) if !problems.is_empty()) {
            judged = judge(directory, number, listed);
        }
    }
    match judged {
        Ok((what, problems)) => report.file(file, what, problems)?,
        Err(error) => report.file(file, "log".to_owned(), [missing_or(file, error).to_string()])?,
    }
    Ok(())
}

/// What a segment holds, and what is wrong with it.
fn judge(directory: &Directory, number: FileNumber, listed: Listed) -> crate::storage::Result<(String, Vec<String>)> {
    let name = FileName::Wal(number).to_string();
    let bytes = read_whole(&*directory.fs, &name)?;
    let (pieces, problem) = SegmentReader::salvage(number, &bytes);
    let mut problems: Vec<String> = problem.iter().map(|problem| problem.to_string()).collect();
    let end = match listed {
        Listed::Closed { len } => len,
        Listed::Open { .. } => bytes.len() as u64,
    };
    let last_good = pieces.iter().rposition(|piece| matches!(piece, Piece::Valid(_)));
    let (mut records, mut changes, mut torn) = (0, 0, 0);
    for (n, piece) in pieces.iter().enumerate() {
        let wrong = |what: String, offset| Error::Corrupt { file: name.clone(), what, offset }.to_string();
        match piece {
            Piece::Valid(group) if group.offset < end => {
                let mut ops = Ops::new(group.batches);
                records += 1;
                changes += ops.by_ref().count();
                if !ops.rest().is_empty() {
                    problems.push(wrong("a record whose changes cannot be read".to_owned(), group.offset));
                }
            }
            Piece::Valid(_) => {}
            Piece::Damage(place) | Piece::Blank(place) if place.start < end => {
                let is_closed = matches!(listed, Listed::Closed { .. });
                if is_closed || Some(n) < last_good {
                    problems
                        .push(wrong(format!("{} bytes are no record", place.end.min(end) - place.start), place.start));
                } else if matches!(piece, Piece::Damage(_)) {
                    torn += place.end - place.start;
                }
            }
            Piece::Damage(_) | Piece::Blank(_) => {}
        }
    }
    if let Listed::Closed { len: short } | Listed::Open { prepared: short } = listed
        && (bytes.len() as u64) < short
    {
        problems.push(
            Error::Corrupt {
                file: name,
                what: format!("cut short: it was {short} bytes long"),
                offset: bytes.len() as u64,
            }
            .to_string(),
        );
    }
    let torn = if torn > 0 { format!(", and a torn tail of {torn} bytes") } else { String::new() };
    Ok((format!("log, {records} records, {changes} changes{torn}"), problems))
}

/// Files with names of ours that are no part of the database.
fn leftovers(inventory: &Inventory, report: &mut Report<'_>) -> std::io::Result<()> {
    for file in &inventory.files {
        let listed = match file {
            FileName::Current => true,
            FileName::CurrentTemp => false,
            FileName::Manifest(number) => inventory.manifest == Some(*number),
            FileName::Wal(number) => inventory.segments.contains_key(number),
            FileName::Table(number) => inventory.tables.contains_key(number),
        };
        if !listed {
            writeln!(report.out, "{:<16} not checked: the manifest does not list it", file.to_string())?;
        }
    }
    Ok(())
}

/// What a start would say: it sees what no file shows by itself, such as numbers missing between two segments.
fn would_start(directory: &Directory, report: &mut Report<'_>) -> std::io::Result<()> {
    let source = TableSource::new(directory.fs.clone(), Arc::new(BlockCache::with_capacity(0)));
    match survey(&directory.fs, &Options::new(), &Arc::new(source)) {
        Ok(_) => Ok(()),
        Err(error) => {
            report.damaged = report.damaged.max(1);
            writeln!(report.out, "a server refuses to start on it: {error}")
        }
    }
}
