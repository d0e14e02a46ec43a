//! Recovery: from the files of a directory to an open database.
//!
//! 1. Take the directory's lock.
//! 2. Read `CURRENT` and the manifest.
//! 3. Replay the log segments that it lists, in order, into memtables.
//! 4. Begin a new manifest in which every replayed segment is closed at its last valid byte.
//! 5. Begin a new segment.
//! 6. Delete what no longer belongs. Only then is the database open.
//!
//! What was replayed stays in its segments until a flush has it in tables, so a crash at any point of this, or soon
//! after, finds the same again. No table is opened: the manifest tells all that is needed.
//!
//! **Torn tail or damage?** A segment is synced whole before the next one gets a record, and every record tells what was
//! durable when it was written. So bytes that are no record are
//!
//! - damage, if the manifest says that the segment is longer, or a later segment has a record, or a valid record behind
//!   the bad bytes says that what they held was durable: acknowledged writes are gone, and the start is refused;
//! - an ordinary torn tail otherwise: what they held was never acknowledged. It is dropped, and the log says how much.

use std::sync::Arc;

use tracing::{info, warn};

use super::batch::Ops;
use super::catalog::Catalog;
use super::commit::Commit;
use super::memtable::Memtable;
use super::options::Options;
use super::shared::{Sealed, Shared, State};
use super::version::{Replayed, TableSource};
use super::{Error, Result, SeqNo};
use crate::fs::Fs;
use crate::storage::names::{FileName, FileNumber};
use crate::storage::wal::{SegmentReader, SegmentWriter};
use crate::storage::{BlockCache, manifest, read_whole};

/// What replaying the log has come to.
struct Replay {
    options: Options,
    flushed: SeqNo,
    active: Arc<Memtable>,
    sealed: Vec<Sealed>,
    /// Newest position known: in tables or replayed.
    last: SeqNo,
    /// Newest position that some record says was durable.
    watermark: SeqNo,
    changes: u64,
    /// Segments with changes that no table has: number, valid length, newest position.
    needed: Vec<(FileNumber, u64, SeqNo)>,
}

/// Opens the database in `fs`. The caller holds the directory's lock.
pub(crate) fn recover(fs: Arc<dyn Fs>, options: Options) -> Result<Shared> {
    let started = std::time::Instant::now();
    let cache = Arc::new(BlockCache::with_capacity(options.cache_bytes as u64));
    let source = Arc::new(TableSource { fs: fs.clone(), cache: cache.clone() });
    let names = fs.list().map_err(|source| Error::Io { file: fs.describe(), what: "list the directory", source })?;
    let files: Vec<FileName> = names.iter().filter_map(|name| FileName::parse(name)).collect();

    let replayed = match manifest::current(&*fs)? {
        Some(number) => Replayed::new(&manifest::read(&*fs, number)?, &source)?,
        None => {
            // A crash before the first CURRENT leaves at most a manifest; tables or logs mean that CURRENT was lost.
            let orphan = files.iter().find(|file| matches!(file, FileName::Table(_) | FileName::Wal(_)));
            if let Some(orphan) = orphan {
                let what = format!("it is missing, but {orphan} is there");
                return Err(Error::Corrupt { file: FileName::Current.to_string(), what, offset: 0 });
            }
            Replayed::default()
        }
    };
    let missing = |file: FileName| (!files.contains(&file)).then(|| missing(file));
    if let Some(error) = replayed.version.tables().find_map(|(_, table)| missing(FileName::Table(table.meta.number))) {
        return Err(error);
    }

    let mut replay = Replay::new(&options, &replayed);
    replay.segments(&*fs, &replayed)?;
    let last = replay.last.max(replayed.last_seq);
    if replay.watermark > last {
        let what = format!("it ends at sequence number {last}, but up to {} was durable", replay.watermark);
        return Err(Error::Corrupt { file: "the log".to_owned(), what, offset: 0 });
    }

    let highest = files.iter().filter_map(|file| file.number()).max().map_or(0, |number| number.0);
    let next_file = replayed.next_file.max(highest + 1);
    let catalog = Catalog::new(source, options.entropy.clone(), replayed, next_file, &replay.needed)?;
    let number = catalog.new_file();
    let segment = SegmentWriter::create(&*fs, number, options.entropy.draw(), options.first_segment_bytes())?;
    fs.sync_dir().map_err(|source| Error::Io { file: fs.describe(), what: "sync the directory", source })?;
    catalog.add_segment(number)?;
    catalog.delete_orphans()?;

    info!(changes = replay.changes, seq = last.0, took = ?started.elapsed(), "recovered");
    let commit = Commit::new(replay.active.clone(), segment, last);
    let state = State { active: replay.active, sealed: replay.sealed, version: catalog.version() };
    let shared = Shared::new(options, fs, catalog, cache, commit, state);
    shared.retention.settle(last);
    Ok(shared)
}

fn missing(file: FileName) -> Error {
    Error::Corrupt { file: file.to_string(), what: "the manifest lists it, but it is missing".to_owned(), offset: 0 }
}

impl Replay {
    fn new(options: &Options, replayed: &Replayed) -> Replay {
        Replay {
            options: options.clone(),
            flushed: replayed.flushed,
            active: Arc::default(),
            sealed: Vec::new(),
            last: replayed.flushed,
            watermark: SeqNo(0),
            changes: 0,
            needed: Vec::new(),
        }
    }

    fn segments(&mut self, fs: &dyn Fs, replayed: &Replayed) -> Result<()> {
        // A tail that was dropped, to be judged by what follows.
        let mut torn: Option<(FileNumber, u64)> = None;
        let mut gap_allowed = true;
        for (&number, &closed) in &replayed.segments {
            let name = FileName::Wal(number).to_string();
            let bytes = match read_whole(fs, &name) {
                Ok(bytes) => bytes,
                Err(crate::storage::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Err(missing(FileName::Wal(number)));
                }
                Err(error) => return Err(error.into()),
            };
            let mut reader = SegmentReader::open(number, &bytes)?;
            let corrupt = |what: String, offset| Error::Corrupt { file: name.clone(), what, offset };
            let before = self.changes;
            while closed.is_none_or(|len| reader.offset() < len) {
                let Some(group) = reader.next()? else { break };
                if let Some((number, offset)) = torn {
                    let file = FileName::Wal(number).to_string();
                    let what = format!("damaged records of acknowledged writes (log {name} goes on after them)");
                    return Err(Error::Corrupt { file, what, offset });
                }
                if group.position.first > SeqNo(self.last.0 + 1) && !gap_allowed {
                    let what =
                        format!("sequence numbers {} to {} are missing", self.last.0 + 1, group.position.first.0 - 1);
                    return Err(corrupt(what, group.offset));
                }
                gap_allowed = false;
                self.last = self.last.max(SeqNo(group.position.first.0.saturating_sub(1)));
                self.watermark = self.watermark.max(group.position.watermark);
                if !self.group(group.position.first, group.batches) {
                    return Err(corrupt("a record whose changes cannot be read".to_owned(), group.offset));
                }
            }
            match closed {
                Some(len) if reader.offset() != len => {
                    let what = format!("damaged: its records should end at byte {len}");
                    return Err(corrupt(what, reader.offset()));
                }
                // Behind a closed segment numbers may be missing: those of writes that failed and were taken back.
                Some(_) => gap_allowed = true,
                None if reader.at_blank_end() => {}
                None => {
                    let lost = SeqNo(self.last.0 + 1);
                    if let Some(later) = reader.later_that_covers(lost) {
                        let what = format!("damaged records of acknowledged writes (the record at {later} says so)");
                        return Err(corrupt(what, reader.offset()));
                    }
                    torn = Some((number, reader.offset()));
                    let dropped = bytes.len() as u64 - reader.offset();
                    warn!(file = %name, offset = reader.offset(), dropped, "the log ends in a torn tail: writes that were never acknowledged are dropped");
                }
            }
            if self.changes > before {
                self.needed.push((number, reader.offset(), self.last));
            }
        }
        Ok(())
    }

    /// Applies a group's changes. Whether all of its bytes were changes.
    fn group(&mut self, first: SeqNo, batches: &[u8]) -> bool {
        let mut ops = Ops::new(batches);
        let mut start = batches;
        let mut seq = first;
        // What tables have already is skipped; a group may straddle that line.
        while seq <= self.flushed && ops.next().is_some() {
            seq.0 += 1;
            start = ops.rest();
        }
        let count = ops.by_ref().count() as u64;
        if !ops.rest().is_empty() {
            return false;
        }
        if count > 0 {
            self.active.apply(start, seq, SeqNo::MAX);
            self.changes += count;
            self.last = self.last.max(SeqNo(seq.0 + count - 1));
            if self.active.bytes() >= self.options.memtable_bytes {
                let memtable = std::mem::take(&mut self.active);
                self.sealed.push(Sealed { memtable, last_seq: self.last });
            }
        }
        true
    }
}
