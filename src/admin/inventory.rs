//! What a directory's `CURRENT` and manifest say, as far as they can be read: which files make up the database, and
//! what they should be like. Damage is a problem to be told, not the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::version::{LEVELS, Listed, Replayed, TableSource};
use crate::engine::{Error, Result};
use crate::fs::Fs;
use crate::storage::blob::{BlobUse, add_up};
use crate::storage::log::Piece;
use crate::storage::manifest::{self, Change, Edit, TableMeta};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::{self, BlockCache, SeqNo, read_whole};

/// See the module's text.
#[derive(Default)]
pub(crate) struct Inventory {
    /// All files with names of ours.
    pub(crate) files: Vec<FileName>,
    /// The manifest that was read.
    pub(crate) manifest: Option<FileNumber>,
    /// What is wrong with `CURRENT`, and with the manifest.
    pub(crate) current_problem: Option<Error>,
    pub(crate) manifest_problems: Vec<Error>,
    /// Bytes at the manifest's end that are no record: an edit that was being written when its writer ended, or damage.
    pub(crate) torn_bytes: u64,
    pub(crate) edits: usize,
    /// By level and what the manifest says of them.
    pub(crate) tables: BTreeMap<FileNumber, (u8, TableMeta)>,
    pub(crate) segments: BTreeMap<FileNumber, Listed>,
    /// Files that a later edit has dropped.
    pub(crate) dropped: BTreeSet<FileNumber>,
    pub(crate) flushed: SeqNo,
    pub(crate) last_seq: SeqNo,
    pub(crate) next_file: u64,
}

impl Inventory {
    /// Reads what is there. Only a directory that cannot be listed is an error.
    pub(crate) fn take(fs: &Arc<dyn Fs>) -> Result<Inventory> {
        let names =
            fs.list().map_err(|source| Error::Io { file: fs.describe(), what: "list the directory", source })?;
        let mut files: Vec<FileName> = names.iter().filter_map(|name| FileName::parse(name)).collect();
        files.sort_by_key(|file| file.number());
        let mut all = Inventory { files, ..Inventory::default() };
        let named = match manifest::current(&**fs) {
            Ok(Some(number)) => Some(number),
            Ok(None) => {
                all.current_problem = Some(Error::Corrupt {
                    file: FileName::Current.to_string(),
                    what: "it is missing".into(),
                    offset: 0,
                });
                None
            }
            Err(error) => {
                all.current_problem = Some(error.into());
                None
            }
        };
        let number = named.or_else(|| newest_manifest(&**fs, &all.files));
        if let Some(number) = number {
            all.manifest = Some(number);
            all.read_manifest(fs, number);
        }
        Ok(all)
    }

    /// Whether there is no database and never was one.
    pub(crate) fn is_nothing(&self) -> bool {
        self.files.iter().all(|file| matches!(file, FileName::CurrentTemp))
    }

    fn read_manifest(&mut self, fs: &Arc<dyn Fs>, number: FileNumber) {
        let name = FileName::Manifest(number).to_string();
        let bytes = match read_whole(&**fs, &name) {
            Ok(bytes) => bytes,
            Err(error) => return self.manifest_problems.push(missing_or(FileName::Manifest(number), error)),
        };
        let (pieces, problem) = manifest::salvage(number, &bytes);
        self.manifest_problems.extend(problem.map(Error::from));
        let last_good = pieces.iter().rposition(|piece| matches!(piece, Piece::Valid(_)));
        for (n, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Valid((_, edit)) => self.apply(edit),
                Piece::Damage(place) if Some(n) > last_good => self.torn_bytes += place.end - place.start,
                Piece::Damage(place) => {
                    let what = format!("{} bytes are no record, in front of good ones,", place.end - place.start);
                    self.manifest_problems.push(Error::Corrupt { file: name.clone(), what, offset: place.start });
                }
                Piece::Blank(_) => {}
            }
        }
        if last_good.is_none() && self.manifest_problems.is_empty() {
            let what = "it has no readable record".to_owned();
            self.manifest_problems.push(Error::Corrupt { file: name, what, offset: 0 });
        }
        // What no single record shows: tables that overlap, or that leave a level they are not in.
        if self.manifest_problems.is_empty() {
            let edits: Vec<Edit> = pieces.into_iter().filter_map(only_edit).collect();
            let source = TableSource::new(fs.clone(), Arc::new(BlockCache::with_capacity(0)));
            self.manifest_problems.extend(Replayed::new(&edits, &source).err());
        }
    }

    fn apply(&mut self, edit: &Edit) {
        self.edits += 1;
        for change in edit {
            match change {
                Change::NextFile(number) => self.next_file = self.next_file.max(number.0),
                Change::Flushed(seq) => self.flushed = self.flushed.max(*seq),
                Change::LastSeq(seq) => self.last_seq = self.last_seq.max(*seq),
                Change::DropTable { number, .. } => {
                    self.tables.remove(number);
                    self.dropped.insert(*number);
                }
                Change::AddSegment { number, prepared } => {
                    self.segments.insert(*number, Listed::Open { prepared: *prepared });
                }
                Change::CloseSegment { number, len } => {
                    self.segments.insert(*number, Listed::Closed { len: *len });
                }
                Change::DropSegment { number } => {
                    self.segments.remove(number);
                    self.dropped.insert(*number);
                }
                Change::AddTable { .. } | Change::Committed(_) | Change::Oldest(..) => {}
            }
        }
        // Behind the drops: a table that changes its level does both.
        for change in edit {
            if let Change::AddTable { level, table } = change {
                self.tables.insert(table.number, (*level, table.clone()));
                self.dropped.remove(&table.number);
            }
        }
    }

    /// The blob files that tables point into, their lengths, and what all tables together point to.
    pub(crate) fn blobs(&self) -> BTreeMap<FileNumber, BlobUse> {
        add_up(self.tables.values().flat_map(|(_, meta)| &meta.blobs))
    }

    /// The tables of each level, ascending by key.
    pub(crate) fn levels(&self) -> [Vec<&TableMeta>; LEVELS] {
        let mut levels: [Vec<&TableMeta>; LEVELS] = Default::default();
        for (level, table) in self.tables.values() {
            if let Some(tables) = levels.get_mut(usize::from(*level)) {
                tables.push(table);
            }
        }
        levels.iter_mut().for_each(|tables| tables.sort_by(|a, b| a.smallest.cmp(&b.smallest)));
        levels
    }
}

/// The manifest that `CURRENT` most likely named: the newest one with a good first record. One that was just being begun
/// when its writer ended may have none.
fn newest_manifest(fs: &dyn Fs, files: &[FileName]) -> Option<FileNumber> {
    let manifests = files.iter().rev().filter_map(|file| match file {
        FileName::Manifest(number) => Some(*number),
        _ => None,
    });
    let begins_well = |number: &FileNumber| {
        let bytes = read_whole(fs, &FileName::Manifest(*number).to_string()).unwrap_or_default();
        matches!(manifest::salvage(*number, &bytes).0.first(), Some(Piece::Valid(_)))
    };
    manifests.clone().find(begins_well).or(manifests.max())
}

fn only_edit(piece: Piece<(u64, Edit)>) -> Option<Edit> {
    match piece {
        Piece::Valid((_, edit)) => Some(edit),
        Piece::Damage(_) | Piece::Blank(_) => None,
    }
}

/// The error for a file that could not be read; in plain words if it is not there.
pub(crate) fn missing_or(file: FileName, error: storage::Error) -> Error {
    match error {
        storage::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::Corrupt { file: file.to_string(), what: "it is missing".to_owned(), offset: 0 }
        }
        error => error.into(),
    }
}

/// Whether the error says that the file is not there.
pub(crate) fn is_missing(error: &storage::Error) -> bool {
    matches!(error, storage::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}
