//! Recovery: from the files of a directory to an open database.
//!
//! 1. Take the directory's lock.
//! 2. Read `CURRENT` and the manifest.
//! 3. Replay the log segments that it lists, in order, into memtables, and sync them.
//! 4. Delete files that were never a part of the database.
//! 5. Begin a new manifest in which every replayed segment is closed at its last valid byte, then delete what it does
//!    not list.
//! 6. Begin a new segment.
//!
//! What was replayed stays in its segments until a flush has it in tables, so a crash at any point of this, or soon
//! after, finds the same again. No table is opened: the manifest tells all that is needed.
//!
//! **A disk that takes no writes**, mostly because it is full, fails step 5 or 6. The database is then open all the
//! same, in the state that a failure of the log leaves a running one in: there is no segment, writes are refused, and
//! the log thread tries to begin one ([`Shared::resume`]); the first edit of whatever kind begins the manifest. Reads
//! need nothing of either. What makes this safe at every moment: until a manifest of this run is in force, nothing is
//! written to a file of an earlier run, and none that any prefix of the old manifest's edits names is deleted; and that
//! manifest is synced before anything is told of what it says. A crash finds what this start found. Afterwards it finds
//! the same as one state, with every segment closed.
//!
//! **Torn tail or damage?** A segment is synced whole before the next one gets a record, and every record tells what was
//! durable when it was written. So bytes that are no record are
//!
//! - damage, if the manifest says that the segment is longer, or a later segment has a record, or a valid record behind
//!   the bad bytes says that what they held was durable: acknowledged writes are gone, and the start is refused;
//! - an ordinary torn tail otherwise: what they held was never acknowledged. It is dropped, and the log says how much.
//!
//! **Synced before it is believed.** A process that was killed between a write and its sync leaves a group that can be
//! read, but would not survive the power. Clients will be told of it, and the manifest will say that the segment
//! reaches beyond it: so it is synced first.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::batch::Ops;
use super::blobs;
use super::catalog::Catalog;
use super::commit::Commit;
use super::memtable::Memtable;
use super::options::Options;
use super::retention::Retention;
use super::shared::{Sealed, Shared, State};
use super::times::{Moment, Times};
use super::version::{Listed, Replayed, TableSource, delete};
use super::{Error, Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::fs::Fs;
use crate::storage::manifest::{Change, Edit};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::wal::SegmentReader;
use crate::storage::{BlockCache, manifest, read_into, read_whole, sync_file};

/// What replaying the log has come to.
struct Replay {
    options: Options,
    flushed: SeqNo,
    /// Below this, versions that are overwritten are not needed.
    floor: SeqNo,
    active: Arc<Memtable>,
    sealed: Vec<Sealed>,
    /// When each group of the log was written.
    committed: Vec<Moment>,
    /// Newest position known: in tables or replayed.
    last: SeqNo,
    /// Newest position that a record of the log has told, in tables or not.
    logged: Option<SeqNo>,
    /// Newest position that some record says was durable.
    watermark: SeqNo,
    changes: u64,
    /// Segments with changes that no table has: number, valid length, newest position.
    needed: Vec<(FileNumber, u64, SeqNo)>,
    /// Segments that no manifest says are closed, and that have records: to be synced.
    believed: Vec<FileNumber>,
    /// Where the last segment with a record ends.
    end: (FileName, u64),
}

/// What a directory holds, judged and replayed.
pub(crate) struct Survey {
    files: Vec<FileName>,
    current: Option<FileNumber>,
    replayed: Replayed,
    /// See [`named`].
    named: BTreeSet<FileNumber>,
    replay: Replay,
    /// A number above all that files have had.
    next_file: u64,
}

/// Reads the database in `fs` and changes nothing.
pub(crate) fn survey(fs: &Arc<dyn Fs>, options: &Options, source: &Arc<TableSource>) -> Result<Survey> {
    let names = fs.list().map_err(|source| Error::Io { file: fs.describe(), what: "list the directory", source })?;
    let files: Vec<FileName> = names.iter().filter_map(|name| FileName::parse(name)).collect();

    let current = manifest::current(&**fs)?;
    let (replayed, named, manifest_end) = match current {
        Some(number) => {
            let (edits, end) = manifest::read(&**fs, number)?;
            (Replayed::new(&edits, source)?, named(&edits), end)
        }
        None => {
            // A crash before the first CURRENT leaves at most a manifest; tables or logs mean that CURRENT was lost.
            let orphan =
                files.iter().find(|file| matches!(file, FileName::Table(_) | FileName::Wal(_) | FileName::Blob(_)));
            if let Some(orphan) = orphan {
                let what = format!("it is missing, but {orphan} is there");
                return Err(Error::Corrupt { file: FileName::Current.to_string(), what, offset: 0 });
            }
            (Replayed::default(), BTreeSet::new(), 0)
        }
    };
    let present: BTreeSet<String> = names.into_iter().collect();
    let missing = |file: FileName| (!present.contains(&file.to_string())).then(|| missing(file));
    let mut needed = replayed.version.tables().flat_map(|(_, table)| {
        let blobs = table.meta.blobs.iter().map(|blob| FileName::Blob(blob.file));
        std::iter::once(FileName::Table(table.meta.number)).chain(blobs)
    });
    if let Some(error) = needed.find_map(missing) {
        return Err(error);
    }
    drop(needed);

    let mut replay = Replay::new(options, &replayed);
    replay.segments(&**fs, &replayed)?;
    let last = replay.last.max(replayed.last_seq);
    // No record that was written as it should be says so: it tells only of positions before its own, which were read before
    // it, or it would not have been taken.
    if replay.watermark > last && !seeded(Defect::LostEndAccepted) {
        let what = format!("the log ends at sequence number {last}, but up to {} was durable", replay.watermark);
        let (file, offset) = replay.end;
        return Err(Error::Corrupt { file: file.to_string(), what, offset });
    }
    if let Some(number) = current {
        let unlisted = files.iter().filter_map(|file| match file {
            FileName::Wal(number) if !replayed.segments.contains_key(number) => Some(*number),
            _ => None,
        });
        for segment in unlisted {
            if holds_newer(&**fs, segment, replayed.flushed.max(replayed.last_seq))?
                && !seeded(Defect::UnlistedSegmentAccepted)
            {
                let what = format!("an edit is missing: {} is in use, but not listed", FileName::Wal(segment));
                return Err(Error::Corrupt {
                    file: FileName::Manifest(number).to_string(),
                    what,
                    offset: manifest_end,
                });
            }
        }
    }

    let highest = files.iter().filter_map(|file| file.number()).max().map_or(0, |number| number.0);
    let next_file = if seeded(Defect::FileNumberReused) { 1 } else { replayed.next_file.max(highest + 1) };
    Ok(Survey { files, current, replayed, named, replay, next_file })
}

/// Opens the database in `fs`. The caller holds the directory's lock.
pub(crate) fn recover(fs: Arc<dyn Fs>, options: Options) -> Result<Shared> {
    let started = std::time::Instant::now();
    let cache = Arc::new(BlockCache::with_capacity(options.cache_bytes as u64));
    let source = TableSource::new(fs.clone(), cache.clone());
    let Survey { files, current, replayed, named, replay, next_file } = survey(&fs, &options, &source)?;
    for segment in replay.believed.iter().filter(|_| !seeded(Defect::ReplayNotSynced)) {
        sync_file(&*fs, &FileName::Wal(*segment).to_string())?;
    }
    let last = replay.last.max(replayed.last_seq);
    let (needless, leftovers) = no_longer_needed(files, current, &named, &replayed, &replay.needed);
    // First of all: on a full disk theirs is the only room for what follows.
    needless.into_iter().for_each(|file| delete(&*fs, file));
    if seeded(Defect::LeftoversDeletedEarly) {
        leftovers.iter().for_each(|file| delete(&*fs, *file));
    }
    let retention = Arc::new(Retention::new(&options));
    retention.begin(last, times(&options, &replayed, &replay, last));
    let catalog = Catalog::new(
        source,
        options.entropy.clone(),
        retention.clone(),
        replayed,
        next_file,
        &replay.needed,
        leftovers,
    );
    let begun = catalog.begin();
    if let (Err(_), Some(current)) = (&begun, current)
        && !seeded(Defect::OldManifestNotSynced)
    {
        // A restart goes by the manifest that this start went by: it must find the same edits in it.
        sync_file(&*fs, &FileName::Manifest(current).to_string())?;
        fs.sync_dir().map_err(|source| Error::Io { file: fs.describe(), what: "sync the directory", source })?;
    }
    let segment = match begun.and_then(|()| catalog.new_segment(options.first_segment_room())) {
        Err(error) if current.is_some() => {
            error!(%error, "the disk takes no writes: reads are served, writes are refused until a log file can be begun");
            Err(error)
        }
        // A database that has just been created has nothing to serve.
        segment => Ok(segment?),
    };

    info!(changes = replay.changes, seq = last.0, took = ?started.elapsed(), "recovered");
    let commit = Commit::new(replay.active.clone(), segment, last);
    let state = State { active: replay.active, sealed: replay.sealed, version: catalog.version() };
    Ok(Shared::new(options, fs, catalog, cache, retention, commit, state))
}

/// What is known of the past, if it is to be kept. If the last run kept none, history begins now.
fn times(options: &Options, replayed: &Replayed, replay: &Replay, last: SeqNo) -> Option<Times> {
    let window = u64::try_from(options.history?.as_millis()).unwrap_or(u64::MAX);
    let now = options.clock.now();
    let Some(oldest) = replayed.oldest else {
        return Some(Times::new(window, Moment { seq: last, time: now }));
    };
    // With a log that is not synced at once, the window may have reached what a crash has then lost.
    let mut times = Times::new(window, Moment { seq: oldest.seq.min(last), ..oldest });
    replayed.committed.iter().chain(&replay.committed).for_each(|moment| times.push(*moment));
    // Of what the log lost after it was flushed nobody knows the time.
    times.stamp_rest(replayed.flushed, now);
    times.advance(now);
    Some(times)
}

fn missing(file: FileName) -> Error {
    Error::Corrupt { file: file.to_string(), what: "the manifest lists it, but it is missing".to_owned(), offset: 0 }
}

/// Every table, blob file and segment that some edit names: what a restart may look for if the newest edits, never synced, are
/// lost.
fn named(edits: &[Edit]) -> BTreeSet<FileNumber> {
    let mut all = BTreeSet::new();
    for change in edits.iter().flatten() {
        match change {
            Change::AddTable { table, .. } => {
                all.insert(table.number);
                all.extend(table.blobs.iter().map(|blob| blob.file));
            }
            Change::AddSegment { number, .. } | Change::CloseSegment { number, .. } => {
                all.insert(*number);
            }
            _ => {}
        }
    }
    all
}

/// The files that can go: at once, and once a new manifest is in force. Foreign files are none of them.
///
/// At once goes what was being written when the last run ended: it is newer than the manifest in force, and so than any
/// that a lost sync could bring back, and no edit of that one names it.
fn no_longer_needed(
    files: Vec<FileName>,
    current: Option<FileNumber>,
    named: &BTreeSet<FileNumber>,
    replayed: &Replayed,
    needed: &[(FileNumber, u64, SeqNo)],
) -> (Vec<FileName>, Vec<FileName>) {
    let mut live: BTreeSet<FileNumber> = replayed.version.tables().map(|(_, table)| table.meta.number).collect();
    live.extend(blobs::uses(&replayed.version).into_keys());
    live.extend(needed.iter().map(|(number, ..)| *number));
    let gone = files.into_iter().filter(|file| file.number().is_some_and(|number| !live.contains(&number)));
    gone.partition(|file| {
        let number = file.number();
        number > current && number.is_some_and(|number| !named.contains(&number))
    })
}

/// Whether a segment that the manifest does not list holds changes above `settled`. A segment gets its first record only
/// after the edit that lists it is durable, and leaves the list only when all its changes are settled.
fn holds_newer(fs: &dyn Fs, number: FileNumber, settled: SeqNo) -> Result<bool> {
    let bytes = read_whole(fs, &FileName::Wal(number).to_string())?;
    // One that was being created has no good header yet.
    let Ok(mut reader) = SegmentReader::open(number, &bytes) else { return Ok(false) };
    while let Ok(Some(group)) = reader.next() {
        let newest = group.position.first.0 + Ops::new(group.batches).count() as u64 - 1;
        if newest > settled.0 && !group.batches.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Replay {
    fn new(options: &Options, replayed: &Replayed) -> Replay {
        Replay {
            options: options.clone(),
            flushed: replayed.flushed,
            floor: replayed.oldest.filter(|_| options.history.is_some()).map_or(SeqNo::MAX, |oldest| oldest.seq),
            active: Arc::default(),
            sealed: Vec::new(),
            committed: Vec::new(),
            last: replayed.flushed,
            logged: None,
            watermark: SeqNo(0),
            changes: 0,
            needed: Vec::new(),
            believed: Vec::new(),
            end: (FileName::Current, 0),
        }
    }

    fn segments(&mut self, fs: &dyn Fs, replayed: &Replayed) -> Result<()> {
        // A tail that was dropped, to be judged by what follows.
        let mut torn: Option<(FileNumber, u64)> = None;
        let mut gap_allowed = true;
        let mut bytes = Vec::new();
        for (&number, &listed) in &replayed.segments {
            let name = FileName::Wal(number).to_string();
            match read_into(fs, &name, &mut bytes) {
                Ok(()) => {}
                Err(crate::storage::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Err(missing(FileName::Wal(number)));
                }
                Err(error) => return Err(error.into()),
            }
            let corrupt = |what: String, offset| Error::Corrupt { file: name.clone(), what, offset };
            let mut reader = SegmentReader::open(number, &bytes)?;
            let closed = match listed {
                Listed::Closed { len } => Some(len),
                Listed::Open { prepared } if (bytes.len() as u64) < prepared => {
                    return Err(corrupt(format!("cut short: it was {prepared} bytes long"), bytes.len() as u64));
                }
                Listed::Open { .. } => None,
            };
            let before = self.changes;
            while closed.is_none_or(|len| reader.offset() < len) {
                let Some(group) = reader.next()? else { break };
                let first = group.position.first;
                if let Some((number, offset)) = torn {
                    let file = FileName::Wal(number).to_string();
                    let what = format!("damaged records of acknowledged writes (log {name} goes on after them)");
                    return Err(Error::Corrupt { file, what, offset });
                }
                // Missing are only numbers of writes that failed and were taken back, and those the manifest knows.
                let known = if gap_allowed { self.last.max(replayed.last_seq) } else { self.last };
                if first.0 > known.0 + 1 && !seeded(Defect::MissingPositionsAccepted) {
                    let what = format!("sequence numbers {} to {} are missing", known.0 + 1, first.0 - 1);
                    return Err(corrupt(what, group.offset));
                }
                if let Some(logged) = self.logged.filter(|logged| first <= *logged) {
                    let what = format!("sequence number {first} comes again after {logged}");
                    return Err(corrupt(what, group.offset));
                }
                gap_allowed = false;
                self.watermark = self.watermark.max(group.position.watermark);
                if !self.group(first, group.position.time_ms, group.batches) {
                    return Err(corrupt("a record whose changes cannot be read".to_owned(), group.offset));
                }
                self.end = (FileName::Wal(number), reader.offset());
            }
            match closed {
                Some(len) if reader.offset() != len && !seeded(Defect::ShortSegmentAccepted) => {
                    let what = format!("damaged: its records should end at byte {len}");
                    return Err(corrupt(what, reader.offset()));
                }
                // Behind a closed segment numbers may be missing: those of writes that failed and were taken back.
                Some(_) => gap_allowed = true,
                None if reader.at_blank_end() => {}
                None => {
                    // What the bad bytes held came right after what was read. (Numbers that failed lie before a segment.)
                    let lost = SeqNo(self.logged.unwrap_or(self.flushed).max(replayed.last_seq).0 + 1);
                    if let Some(later) = reader.later_that_covers(lost).filter(|_| !seeded(Defect::HoleAccepted)) {
                        let what = format!("damaged records of acknowledged writes (the record at {later} says so)");
                        return Err(corrupt(what, reader.offset()));
                    }
                    if seeded(Defect::TornTailRefused) {
                        return Err(corrupt("a torn tail".to_owned(), reader.offset()));
                    }
                    torn = Some((number, reader.offset()));
                    let dropped = bytes.len() as u64 - reader.offset();
                    warn!(file = %name, offset = reader.offset(), dropped, "the log ends in a torn tail: writes that were never acknowledged are dropped");
                }
            }
            if closed.is_none() && self.end.0 == FileName::Wal(number) {
                self.believed.push(number);
            }
            if self.changes > before {
                self.needed.push((number, reader.offset(), self.last));
            }
        }
        Ok(())
    }

    /// Applies a group's changes. Whether all of its bytes were changes.
    fn group(&mut self, first: SeqNo, time: u64, batches: &[u8]) -> bool {
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
        // Of a marker: the one before its own position.
        let newest = SeqNo(seq.0 + count - 1);
        self.logged = Some(newest);
        self.last = self.last.max(newest);
        if self.floor < SeqNo::MAX && !batches.is_empty() {
            self.committed.push(Moment { seq: newest, time });
        }
        self.active.apply(start, seq, self.floor);
        self.changes += count;
        if self.active.bytes() >= self.options.memtable_bytes {
            let memtable = std::mem::take(&mut self.active);
            self.sealed.push(Sealed { memtable, last_seq: self.last });
        }
        true
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
