//! A new database out of what was found: one sorted run in the deepest level, of each key its newest version.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Loss;
use super::find::{Findings, Found};
use crate::admin::Result;
use crate::admin::inventory::missing_or;
use crate::codec::Slice;
use crate::engine::checkpoint::number_manifest;
use crate::engine::expiries::Expiries;
use crate::engine::merge::{Direction, Merge, Source};
use crate::engine::output::meta;
use crate::engine::range_tombstones::Cursor;
use crate::engine::sources::{KeyRange, MemtableSource};
use crate::engine::version::LEVELS;
use crate::engine::{self, Options, SeqNo};
use crate::fs::Fs;
use crate::storage::blob::{BlobFile, Pointer};
use crate::storage::manifest::{Change, ManifestWriter, TableMeta, TableTimes};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::{Entry, Parts, Piece, Pieces, TableOptions, TableWriter};
use crate::storage::{Error, Kind, TableId};

/// What was written.
pub(super) struct Saved {
    pub(super) keys: u64,
    pub(super) tables: usize,
    /// Values that could not be read, although what points to them could.
    pub(super) losses: Vec<Loss>,
}

/// Writes tables, manifest and `CURRENT` to `to`.
pub(super) fn rebuild(from: &Arc<dyn Fs>, findings: &Findings, to: &Arc<dyn Fs>) -> Result<Saved> {
    let options = Options::new();
    let mut sources: Vec<Box<dyn Source>> = chains(&findings.tables)
        .into_iter()
        .map(|chain| {
            Box::new(ChainSource {
                fs: from.clone(),
                rest: chain,
                pieces: None,
                block: Vec::new().into_iter(),
                entry: None,
            }) as _
        })
        .collect();
    let (log, all) = (findings.log.clone(), KeyRange::all());
    sources.push(Box::new(MemtableSource::new(log, all, Direction::Forward, SeqNo::MAX)));
    let mut merge = Merge::new(Direction::Forward, sources);

    let mut output = Output { to: to.clone(), cut_at: options.table_bytes, next: 1, current: None, tables: Vec::new() };
    let mut keys = 0;
    let mut losses = Vec::new();
    let mut key: Option<Vec<u8>> = None;
    let ranges = findings.all_ranges();
    let mut deleted = Cursor::new(&ranges, SeqNo::MAX);
    while merge.advance()? {
        if key.as_deref() == Some(merge.key()) {
            continue;
        }
        // Nothing lies below that a tombstone would have to hide.
        if merge.kind() != Kind::Tombstone && deleted.at(merge.key()) < Some(merge.seq()) {
            match merge.value() {
                Ok(value) => output.add(&merge, &value)?,
                Err(error @ engine::Error::Corrupt { .. }) => {
                    // An older version may be readable.
                    lost_value(&mut losses, merge.key(), error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            keys += 1;
        }
        key = Some(merge.key().to_vec());
    }
    output.cut()?;
    let Output { next, tables, .. } = output;

    let last = findings.last.min(SeqNo::LIMIT);
    let mut state = vec![Change::NextFile(FileNumber(next)), Change::Flushed(last), Change::LastSeq(last)];
    let count = tables.len();
    state.extend(tables.into_iter().map(|table| Change::AddTable { level: LEVELS as u8 - 1, table }));
    let manifest = number_manifest(&mut state);
    ManifestWriter::create(&**to, manifest, options.entropy.draw(), &state).map_err(|failure| failure.error)?;
    Ok(Saved { keys, tables: count, losses })
}

/// Tables being written one after the other.
struct Output {
    to: Arc<dyn Fs>,
    cut_at: u64,
    next: u64,
    current: Option<(FileNumber, TableWriter, Expiries)>,
    tables: Vec<TableMeta>,
}

impl Output {
    fn add(&mut self, entry: &impl Source, value: &[u8]) -> Result<()> {
        if self.current.as_ref().is_some_and(|(_, writer, _)| writer.estimated_size() >= self.cut_at) {
            self.cut()?;
        }
        let (_, writer, expiries) = match &mut self.current {
            Some(current) => current,
            none => none.insert(begin(&*self.to, &mut self.next)?),
        };
        let kind = match entry.kind() {
            // Into the table: the next compaction puts it apart again.
            Kind::PutFar { expires_at } => Kind::Put { expires_at },
            kind => kind,
        };
        if let Kind::Put { expires_at: Some(at) } = kind {
            expiries.add(at);
        }
        Ok(writer.add(entry.key(), entry.seq(), kind, value)?)
    }

    fn cut(&mut self) -> Result<()> {
        if let Some((number, writer, expiries)) = self.current.take() {
            let times = TableTimes { written: None, expiring: expiries.count(), quartiles: expiries.quartiles() };
            self.tables.push(meta(number, writer.finish()?, times));
        }
        Ok(())
    }
}

fn begin(to: &dyn Fs, next: &mut u64) -> Result<(FileNumber, TableWriter, Expiries)> {
    let number = FileNumber(*next);
    *next += 1;
    let name = FileName::Table(number).to_string();
    let file = to.create(&name).map_err(Error::io(&name, "create"))?;
    let writer = TableWriter::new(file, &name, TableId(number.0), TableOptions::default());
    Ok((number, writer, Expiries::default()))
}

/// Adds a key whose value cannot be read; keys in a row that are lost for the same reason are one loss.
fn lost_value(losses: &mut Vec<Loss>, key: &[u8], error: engine::Error) {
    let (file, what, offset) = match error {
        engine::Error::Corrupt { file, what, offset } => (file, what, offset),
        error => (String::new(), error.to_string(), 0),
    };
    match losses.last_mut() {
        Some(last) if last.file == file && last.what == what => last.keys.1 = Some(key.to_vec()),
        _ => losses.push(Loss { file, offset, length: 0, keys: (Some(key.to_vec()), Some(key.to_vec())), what }),
    }
}

/// The tables in as few runs without overlaps as there can be: of each run one is open at a time.
fn chains(tables: &[Found]) -> Vec<VecDeque<FileNumber>> {
    let mut sorted: Vec<&Found> = tables.iter().collect();
    sorted.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    let mut chains: Vec<(&[u8], VecDeque<FileNumber>)> = Vec::new();
    for table in sorted {
        match chains.iter_mut().find(|(end, _)| *end < &*table.smallest) {
            Some((end, chain)) => {
                *end = &table.largest;
                chain.push_back(table.number);
            }
            None => chains.push((&table.largest, VecDeque::from([table.number]))),
        }
    }
    chains.into_iter().map(|(_, chain)| chain).collect()
}

/// What can be read of tables, one after the other.
struct ChainSource {
    fs: Arc<dyn Fs>,
    rest: VecDeque<FileNumber>,
    pieces: Option<Pieces>,
    block: std::vec::IntoIter<Entry>,
    entry: Option<Entry>,
}

impl ChainSource {
    fn entry(&self) -> &Entry {
        self.entry.as_ref().expect("a source is asked only after it has advanced")
    }
}

impl Source for ChainSource {
    fn advance(&mut self) -> engine::Result<bool> {
        loop {
            self.entry = self.block.next();
            if self.entry.is_some() {
                return Ok(true);
            }
            match self.pieces.as_mut().and_then(Iterator::next) {
                Some(Piece::Block { entries, .. }) => self.block = entries.into_iter(),
                // Listed when it was found.
                Some(Piece::Lost { .. }) => {}
                None => {
                    let Some(number) = self.rest.pop_front() else { return Ok(false) };
                    let name = FileName::Table(number).to_string();
                    let file = self.fs.open(&name).map_err(Error::io(&name, "open"))?;
                    self.pieces = Some(Arc::new(Parts::read(file, &name, TableId(number.0))).pieces());
                }
            }
        }
    }

    fn key(&self) -> &[u8] {
        &self.entry().key
    }

    fn seq(&self) -> SeqNo {
        self.entry().seq
    }

    fn kind(&self) -> Kind {
        self.entry().kind
    }

    fn value(&self) -> engine::Result<Slice> {
        let Entry { kind, value, .. } = self.entry();
        let Kind::PutFar { .. } = kind else { return Ok(value.clone()) };
        let pointer = Pointer::decode(value).ok_or_else(|| Error::corrupt("a table", "an unreadable pointer", 0))?;
        let name = FileName::Blob(pointer.file);
        let file = self.fs.open(&name.to_string()).map_err(Error::io(&name.to_string(), "open"));
        let file = file.map_err(|error| missing_or(name, error))?;
        Ok(BlobFile::open(file, pointer.file)?.read(pointer)?)
    }

    fn stored(&self) -> &[u8] {
        &self.entry().value
    }
}
