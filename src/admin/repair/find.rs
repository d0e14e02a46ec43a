//! What of a damaged database can be read, and what is lost.

use std::io::Write;
use std::sync::Arc;

use super::Loss;
use crate::admin::Result;
use crate::admin::inventory::{Inventory, missing_or};
use crate::engine::batch::Ops;
use crate::engine::memtable::Memtable;
use crate::engine::range_tombstones::RangeTombstones;
use crate::engine::version::Listed;
use crate::engine::{Error, SeqNo};
use crate::fs::Fs;
use crate::storage::log::Piece;
use crate::storage::manifest::TableMeta;
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::{self, Parts};
use crate::storage::wal::SegmentReader;
use crate::storage::{self, Fragments, TableId, read_whole};

/// See the module's text.
pub(super) struct Findings {
    /// Those with readable entries.
    pub(super) tables: Vec<Found>,
    /// The range tombstones of tables.
    pub(super) ranges: RangeTombstones,
    /// What the log has.
    pub(super) log: Arc<Memtable>,
    /// The newest sequence number met.
    pub(super) last: SeqNo,
    pub(super) losses: Vec<Loss>,
}

/// A table, and the range of the keys that can be read of it.
pub(super) struct Found {
    pub(super) number: FileNumber,
    pub(super) smallest: Vec<u8>,
    pub(super) largest: Vec<u8>,
}

/// Reads everything once. Writes what is wrong with parts that hold no keys.
pub(super) fn find(fs: &Arc<dyn Fs>, out: &mut dyn Write) -> Result<Findings> {
    let inventory = Inventory::take(fs)?;
    if inventory.is_nothing() {
        return Err(Error::InvalidArgument(format!("{}: no database is here", fs.describe())).into());
    }
    for problem in inventory.current_problem.iter().chain(&inventory.manifest_problems) {
        writeln!(out, "damaged   {problem}")?;
    }
    let trusted = is_trusted(fs, &inventory);
    if !trusted {
        writeln!(out, "the manifest does not tell all: every file that it is not known to have dropped counts")?;
    }
    let counts = |number: FileNumber, listed: bool| listed || (!trusted && !inventory.dropped.contains(&number));
    let last = inventory.flushed.max(inventory.last_seq);
    let ranges = RangeTombstones::default();
    let mut findings = Findings { tables: Vec::new(), ranges, log: Arc::default(), last, losses: Vec::new() };
    let mut numbers: Vec<FileNumber> = inventory.tables.keys().copied().collect();
    numbers.extend(inventory.files.iter().filter_map(|file| match file {
        FileName::Table(number) if !inventory.tables.contains_key(number) => Some(*number),
        _ => None,
    }));
    for number in numbers {
        let listed = inventory.tables.get(&number).map(|(_, meta)| meta);
        if counts(number, listed.is_some()) {
            findings.table(fs, number, listed, out)?;
        }
    }
    // What is in tables is not taken from the log, unless tables have lost something.
    let mut from = if findings.losses.is_empty() { inventory.flushed } else { SeqNo(0) };
    let mut segments: Vec<FileNumber> = inventory.segments.keys().copied().collect();
    segments.extend(inventory.files.iter().filter_map(|file| match file {
        FileName::Wal(number) if !inventory.segments.contains_key(number) => Some(*number),
        _ => None,
    }));
    segments.sort();
    for number in segments {
        let listed = inventory.segments.get(&number).copied();
        if counts(number, listed.is_some()) {
            findings.segment(fs, number, listed, &mut from, out)?;
        }
    }
    Ok(findings)
}

/// From where to where a table's keys lie.
fn keys_of(meta: &TableMeta) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    (Some(meta.smallest.to_vec()), meta.largest.key().map(|key| key.to_vec()))
}

/// What it means that a table's range tombstones cannot be read, if it had any.
fn lost_ranges(file: String, parts: &Parts, listed: Option<&TableMeta>) -> Option<Loss> {
    let (offset, length) = match (parts.ranges_at, listed) {
        (Some(place), _) => place,
        (None, Some(meta)) if meta.range_tombstones > 0 => (parts.bytes(), meta.size.saturating_sub(parts.bytes())),
        (None, _) => return None,
    };
    let keys = listed.map_or((None, None), keys_of);
    let what = "range tombstones cannot be read, what they had deleted may be back".to_owned();
    Some(Loss { file, offset, length, keys, what })
}

/// What is wrong, without the place: a loss tells that itself.
fn reason(error: Error) -> String {
    match error {
        Error::Corrupt { what, .. } => what,
        error => error.to_string(),
    }
}

/// Whether the manifest can be read to its end, and nothing that is there or missing speaks against it.
fn is_trusted(fs: &Arc<dyn Fs>, inventory: &Inventory) -> bool {
    let settled = inventory.flushed.max(inventory.last_seq);
    let there = |file: &FileName| inventory.files.contains(file);
    let holds_newer = |file: &FileName| match file {
        FileName::Table(number) if !inventory.tables.contains_key(number) => {
            let properties = fs
                .open(&file.to_string())
                .ok()
                .and_then(|opened| Parts::read(opened, &file.to_string(), TableId(number.0)).properties);
            properties.is_some_and(|properties| properties.largest_seq > settled)
        }
        FileName::Wal(number) if !inventory.segments.contains_key(number) => {
            let bytes = read_whole(&**fs, &file.to_string()).unwrap_or_default();
            let (pieces, _) = SegmentReader::salvage(*number, &bytes);
            pieces.iter().any(|piece| matches!(piece, Piece::Valid(group) if group.position.first > settled && !group.batches.is_empty()))
        }
        _ => false,
    };
    inventory.manifest.is_some()
        && inventory.manifest_problems.is_empty()
        && inventory.torn_bytes == 0
        && inventory.tables.keys().all(|number| there(&FileName::Table(*number)))
        && inventory.segments.keys().all(|number| there(&FileName::Wal(*number)))
        && !inventory.files.iter().any(holds_newer)
}

impl Findings {
    /// The range tombstones of tables and log together.
    pub(super) fn all_ranges(&self) -> Fragments {
        let mut all = RangeTombstones::default();
        for fragment in self.ranges.fragments().iter().chain(self.log.ranges().iter()) {
            all.add(&fragment.start, fragment.end.as_deref(), &fragment.seqs, SeqNo::MAX);
        }
        all.fragments()
    }

    fn table(
        &mut self,
        fs: &Arc<dyn Fs>,
        number: FileNumber,
        listed: Option<&TableMeta>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let name = FileName::Table(number).to_string();
        let file = match fs.open(&name).map_err(storage::Error::io(&name, "open")) {
            Ok(file) => file,
            Err(error) => {
                let keys = listed.map_or((None, None), keys_of);
                let length = listed.map_or(0, |meta| meta.size);
                let what = reason(missing_or(FileName::Table(number), error));
                self.losses.push(Loss { file: name, offset: 0, length, keys, what });
                return Ok(());
            }
        };
        let parts = Arc::new(Parts::read(file, &name, TableId(number.0)));
        for problem in &parts.problems {
            writeln!(out, "damaged   {problem}")?;
        }
        let mut losses = Vec::new();
        let (mut smallest, mut largest, mut count) = (None, None, 0);
        for piece in parts.pieces() {
            match piece {
                sstable::Piece::Block { entries, .. } => {
                    count += entries.len() as u64;
                    self.last = entries.iter().fold(self.last, |last, entry| last.max(entry.seq));
                    smallest = smallest.or_else(|| entries.first().map(|entry| entry.key.clone()));
                    largest = entries.into_iter().next_back().map(|entry| entry.key);
                }
                sstable::Piece::Lost { offset, length, after, upto, error } => {
                    losses.push(Loss {
                        file: name.clone(),
                        offset,
                        length,
                        keys: (after, upto),
                        what: reason(error.into()),
                    });
                }
            }
        }
        let expected =
            parts.properties.as_ref().map(|properties| properties.entries).or(listed.map(|meta| meta.entries));
        if expected == Some(count) {
            // What could not be read held no entries.
            losses.clear();
        } else if losses.is_empty() && (expected.is_some() || parts.tail_is_lost()) {
            let length = listed.map_or(0, |meta| meta.size.saturating_sub(parts.bytes()));
            let keys = (largest.clone(), listed.and_then(|meta| keys_of(meta).1));
            let what = "the end of the table is missing".to_owned();
            losses.push(Loss { file: name.clone(), offset: parts.bytes(), length, keys, what });
        }
        match &parts.ranges {
            Some(ranges) => self.take_ranges(ranges),
            None => losses.extend(lost_ranges(name, &parts, listed)),
        }
        self.losses.extend(losses);
        if let (Some(smallest), Some(largest)) = (smallest, largest) {
            self.tables.push(Found { number, smallest, largest });
        }
        Ok(())
    }

    fn take_ranges(&mut self, ranges: &Fragments) {
        for fragment in ranges.iter() {
            self.last = fragment.seqs.iter().fold(self.last, |last, seq| last.max(*seq));
            // Of each key the newest version counts, and nothing else.
            self.ranges.add(&fragment.start, fragment.end.as_deref(), &fragment.seqs, SeqNo::MAX);
        }
    }

    /// Takes the changes above `from` out of a segment, and raises it to the last of them.
    fn segment(
        &mut self,
        fs: &Arc<dyn Fs>,
        number: FileNumber,
        listed: Option<Listed>,
        from: &mut SeqNo,
        out: &mut dyn Write,
    ) -> Result<()> {
        let name = FileName::Wal(number).to_string();
        let lost = |offset, length, what: String| Loss { file: name.clone(), offset, length, keys: (None, None), what };
        let bytes = match read_whole(&**fs, &name) {
            Ok(bytes) => bytes,
            Err(error) => {
                let what = reason(missing_or(FileName::Wal(number), error));
                self.losses.push(lost(0, 0, what));
                return Ok(());
            }
        };
        let (pieces, problem) = SegmentReader::salvage(number, &bytes);
        let nothing = pieces.is_empty();
        if let Some(problem) = problem {
            writeln!(out, "damaged   {problem}")?;
            // Zeros and nothing else: it was being created.
            if nothing && bytes.iter().any(|byte| *byte != 0) {
                self.losses.push(lost(0, bytes.len() as u64, "no record can be made out".to_owned()));
            }
        }
        let (end, is_closed) = match listed {
            Some(Listed::Closed { len }) => (len, true),
            _ => (bytes.len() as u64, false),
        };
        let least = match listed {
            Some(Listed::Closed { len: least } | Listed::Open { prepared: least }) => least,
            None => 0,
        };
        if least > bytes.len() as u64 {
            let length = least - bytes.len() as u64;
            self.losses.push(lost(bytes.len() as u64, length, "the end of the segment is missing".to_owned()));
        }
        let last_good = pieces.iter().rposition(|piece| matches!(piece, Piece::Valid(_)));
        for (n, piece) in pieces.into_iter().enumerate() {
            match piece {
                Piece::Valid(group) if group.offset < end => {
                    let mut ops = Ops::new(group.batches);
                    let (mut seq, mut rest) = (group.position.first, group.batches);
                    while seq <= *from && ops.next().is_some() {
                        seq.0 += 1;
                        rest = ops.rest();
                    }
                    let count = ops.by_ref().count() as u64;
                    if !ops.rest().is_empty() {
                        let length = ops.rest().len() as u64;
                        self.losses.push(lost(
                            group.offset,
                            length,
                            "a record with bytes that are no change".to_owned(),
                        ));
                        rest = &rest[..rest.len() - ops.rest().len()];
                    }
                    if count > 0 {
                        self.log.apply(rest, seq, SeqNo::MAX);
                        *from = SeqNo(seq.0 + count - 1);
                        self.last = self.last.max(*from);
                    }
                }
                Piece::Damage(place) if place.start < end => {
                    let torn = if is_closed || Some(n) < last_good { "" } else { ", or one torn by a crash" };
                    let what = format!("no record{torn}; sequence numbers from {} on", from.0 + 1);
                    self.losses.push(lost(place.start, place.end.min(end) - place.start, what));
                }
                Piece::Blank(place) if is_closed && place.start < end => {
                    let what = format!("zeros in the place of records; sequence numbers from {} on", from.0 + 1);
                    self.losses.push(lost(place.start, place.end.min(end) - place.start, what));
                }
                Piece::Valid(_) | Piece::Damage(_) | Piece::Blank(_) => {}
            }
        }
        Ok(())
    }
}
