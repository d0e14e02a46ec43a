//! Writing tables: what flush and compaction have in common. Decides which versions are still needed, cuts the stream
//! into tables, and syncs them with their names.
//!
//! **Range tombstones at a cut.** Tables of a level must not meet, and what a range tombstone covers counts. So a cut is
//! a key: everything below it, entries and what range tombstones cover, goes into the table before, and everything from it
//! on into the next. A tombstone over the cut is divided there; its end is not included, so the next table may begin
//! with the very key that the one before ends *before*.

use std::collections::VecDeque;

use super::expiries::Expiries;
use super::options::{Compression, Options};
use super::retention::Floor;
use super::shared::Shared;
use super::values::{Used, Values};
use super::version::LEVELS;
use super::{Result, SeqNo};
use crate::codec::defect::{Defect, seeded};
use crate::storage::blob::{BlobUse, Pointer};
use crate::storage::manifest::{TableMeta, TableTimes};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::{TableOptions, TableWriter};
use crate::storage::{Charge, Error, Fragment, Fragments, Kind, TableId, Use, give_up};

/// A partition takes as much memory as so many data blocks: one read, and little beside the blocks that it leads to,
/// which are hundreds.
const PARTITION_BLOCKS: usize = 16;

/// For the filters of the last level, about 1 % false positives.
const FILTER_BITS: u8 = 10;

/// For those above it, a third of a percent. A read that ends in the last level has asked all of them, the tables of level
/// 0 each; and they have a tenth of the keys, so half as many bits again cost a twentieth more in all. (The idea is that
/// of Dayan and others, "Monkey: Optimal Navigable Key-Value Store", SIGMOD 2017.)
const FILTER_BITS_ABOVE: u8 = 14;

/// A table's memory is charged when it has changed by more than this.
const CHARGED_IN_STEPS: u64 = 64 << 10;

/// The rule of which versions of a key stay, for a stream that brings them newest first.
///
/// Of the versions at or below the retention floor only the newest can still be read. If that is a tombstone, or a value
/// that has expired for everybody, it says "nothing here", and goes too once nothing below the output can hold the key. A range
/// tombstone is a version of every key it covers; it stays or goes by itself.
pub(crate) struct Keep {
    floor: Floor,
    /// Whether a version of the current key at or below the floor has been seen.
    settled: bool,
}

impl Keep {
    pub(crate) fn new(floor: Floor) -> Keep {
        let floor = if seeded(Defect::SnapshotForgotten) { Floor { seq: SeqNo::MAX, ..floor } } else { floor };
        Keep { floor, settled: false }
    }

    /// The floor that it goes by.
    pub(crate) fn floor(&self) -> SeqNo {
        self.floor.seq
    }

    /// The stream comes to the next key.
    pub(crate) fn next_key(&mut self) {
        self.settled = false;
    }

    /// As what the version stays: itself, a tombstone in its place, or not at all. `deleted` is the newest range tombstone
    /// over the key at or below the floor; `is_bottom` tells whether nothing below the output can hold the key.
    pub(crate) fn version(
        &mut self,
        seq: SeqNo,
        kind: Kind,
        deleted: Option<SeqNo>,
        is_bottom: impl FnOnce() -> bool,
    ) -> Option<Kind> {
        if seq > self.floor.seq {
            return Some(kind);
        }
        if std::mem::replace(&mut self.settled, true) || deleted > Some(seq) {
            return None;
        }
        match kind {
            Kind::Put { expires_at } | Kind::PutFar { expires_at }
                if expires_at.is_none_or(|at| at > self.floor.expired) =>
            {
                Some(kind)
            }
            Kind::Tombstone if seeded(Defect::TombstoneDroppedEarly) => None,
            Kind::Put { .. } | Kind::PutFar { .. } if seeded(Defect::ExpiredUncovers) => None,
            _ => (!is_bottom()).then_some(Kind::Tombstone),
        }
    }
}

/// Tables being written one after the other. If it is dropped unfinished, they are deleted again: nothing refers to them,
/// and a full disk has no room for them.
pub(crate) struct TableOutput<'a> {
    shared: &'a Shared,
    /// Where the tables will be.
    level: usize,
    /// A table is cut at the first key after it has reached this size.
    cut_at: u64,
    /// When the newest of what comes was flushed, if that is known.
    written: Option<u64>,
    current: Option<Current>,
    charge: Charge,
    /// Range tombstones to come.
    ranges: VecDeque<Fragment>,
    tables: Vec<(TableMeta, Used)>,
    values: Values<'a>,
    /// Every file begun, until all are finished.
    unfinished: Vec<FileName>,
}

/// The table being written.
struct Current {
    number: FileNumber,
    writer: TableWriter,
    expiries: Expiries,
    used: Used,
}

impl Drop for TableOutput<'_> {
    fn drop(&mut self) {
        for file in &self.unfinished {
            give_up(&*self.shared.fs, &file.to_string());
        }
    }
}

impl<'a> TableOutput<'a> {
    /// Tables with `ranges`, and with the entries to be added, whose values are in the `known` blob files or given.
    pub(crate) fn new<'b>(
        shared: &'a Shared,
        level: usize,
        cut_at: u64,
        written: Option<u64>,
        ranges: Fragments,
        known: impl Iterator<Item = &'b BlobUse>,
    ) -> TableOutput<'a> {
        TableOutput {
            shared,
            level,
            cut_at,
            written,
            current: None,
            charge: Charge::new(&shared.cache, Use::Jobs),
            ranges: ranges.into_vec().into(),
            tables: Vec::new(),
            values: Values::new(shared, known),
            unfinished: Vec::new(),
        }
    }

    /// All versions of a key go into one table: the ranges of a level's tables stay disjoint.
    pub(crate) fn next_key(&mut self, key: &[u8]) -> Result<()> {
        if !self.ranges.is_empty() {
            self.add_ranges(|fragment| *fragment.start < *key)?;
        }
        if self.is_full() { self.cut(key) } else { Ok(()) }
    }

    fn is_full(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.writer.estimated_size() >= self.cut_at)
    }

    /// Adds the next range tombstones, as long as `are_due` says so. They begin with the last key that was added, or behind.
    fn add_ranges(&mut self, are_due: impl Fn(&Fragment) -> bool) -> Result<()> {
        while let Some(next) = self.ranges.pop_front() {
            if !are_due(&next) {
                self.ranges.push_front(next);
                break;
            }
            if self.is_full() && self.current.as_ref().is_some_and(|current| current.writer.ends_before(&next.start)) {
                self.cut(&next.start)?;
            }
            self.current()?.writer.add_ranges(next)?;
        }
        Ok(())
    }

    /// The table being written; a new one if there is none.
    fn current(&mut self) -> Result<&mut Current> {
        if self.current.is_none() {
            let number = self.shared.catalog.new_file();
            let name = FileName::Table(number).to_string();
            let file = self.shared.fs.create(&name).map_err(Error::io(&name, "create"))?;
            self.unfinished.push(FileName::Table(number));
            let options = table_options(&self.shared.options, self.level);
            let writer = TableWriter::new(file, &name, TableId(number.0), options);
            self.current = Some(Current { number, writer, expiries: Expiries::default(), used: Used::new() });
        }
        Ok(self.current.as_mut().expect("one was just begun if there was none"))
    }

    /// Adds an entry that holds `stored`: a value, or a pointer to one.
    pub(crate) fn add(&mut self, key: &[u8], seq: SeqNo, kind: Kind, stored: &[u8]) -> Result<()> {
        self.account();
        match kind {
            Kind::Put { expires_at } if self.values.takes(stored) => {
                let pointer = self.values.add(stored, &mut self.unfinished)?;
                self.add_far(key, seq, expires_at, pointer)
            }
            Kind::PutFar { expires_at } => match Pointer::decode(stored) {
                Some(pointer) => self.add_far(key, seq, expires_at, pointer),
                None => Err(Error::corrupt("a table", "an entry has no readable pointer", 0).into()),
            },
            Kind::Put { .. } | Kind::Tombstone => {
                let Current { writer, expiries, .. } = self.current()?;
                if let Kind::Put { expires_at: Some(at) } = kind {
                    expiries.add(at);
                }
                Ok(writer.add(key, seq, kind, stored)?)
            }
        }
    }

    /// Charges what writing takes in memory.
    fn account(&mut self) {
        let table = self.current.as_ref().map_or(0, |current| current.writer.memory());
        let memory = (table + self.values.memory()) as u64;
        if memory.abs_diff(self.charge.bytes()) > CHARGED_IN_STEPS {
            self.charge.set(memory);
        }
    }

    fn add_far(&mut self, key: &[u8], seq: SeqNo, expires_at: Option<u64>, pointer: Pointer) -> Result<()> {
        let Current { writer, expiries, used, .. } = self.current()?;
        expires_at.into_iter().for_each(|at| expiries.add(at));
        *used.entry(pointer.file).or_default() += pointer.bytes();
        let mut bytes = Vec::with_capacity(Pointer::MAX_BYTES);
        pointer.encode(&mut bytes);
        Ok(writer.add(key, seq, Kind::PutFar { expires_at }, &bytes)?)
    }

    /// `key` and all behind it go into another table.
    pub(crate) fn cut(&mut self, key: &[u8]) -> Result<()> {
        if let Some(current) = &mut self.current
            && let Some(rest) = current.writer.cut_ranges(key)
        {
            self.ranges.push_front(rest);
        }
        self.end_table()
    }

    fn end_table(&mut self) -> Result<()> {
        if let Some(Current { number, writer, expiries, used }) = self.current.take() {
            let expiring = expiries.count();
            let times = TableTimes { written: self.written, expiring, quartiles: expiries.quartiles() };
            self.tables.push((meta(number, writer.finish()?, times), used));
        }
        Ok(())
    }

    /// The finished tables, synced, their names too.
    pub(crate) fn finish(self) -> Result<Vec<TableMeta>> {
        TableOutput::finish_all(vec![self])
    }

    /// The finished tables of several outputs, all or none.
    pub(crate) fn finish_all(mut outputs: Vec<TableOutput<'a>>) -> Result<Vec<TableMeta>> {
        for output in &mut outputs {
            output.add_ranges(|_| true)?;
            output.end_table()?;
            output.values.finish()?;
        }
        if let Some(output) = outputs.iter().find(|output| !output.tables.is_empty() && !seeded(Defect::TableNotNamed))
        {
            output.shared.fs.sync_dir().map_err(Error::io(".", "sync the directory"))?;
        }
        // From here on they are the caller's.
        let taken = |output: &mut TableOutput<'_>| {
            output.unfinished.clear();
            let tables = std::mem::take(&mut output.tables).into_iter();
            tables.map(|(table, used)| TableMeta { blobs: output.values.uses(&used), ..table }).collect::<Vec<_>>()
        };
        Ok(outputs.iter_mut().flat_map(taken).collect())
    }
}

/// How the tables of a level are written.
fn table_options(options: &Options, level: usize) -> TableOptions {
    let is_last = level == LEVELS - 1;
    TableOptions {
        block_bytes: options.block_bytes,
        partition_bytes: options.block_bytes * PARTITION_BLOCKS,
        filter_bits_per_key: if is_last { FILTER_BITS } else { FILTER_BITS_ABOVE },
        compression: match options.compression {
            Compression::Zstd if !is_last => Compression::Lz4,
            compression => compression,
        },
        ..TableOptions::default()
    }
}

/// What the manifest keeps of a table that points to no blob file.
pub(crate) fn meta(number: FileNumber, table: crate::storage::sstable::TableMeta, times: TableTimes) -> TableMeta {
    let properties = table.properties;
    TableMeta {
        number,
        size: table.file_bytes,
        entries: properties.entries,
        tombstones: properties.tombstones,
        older: properties.older_versions,
        first_seq: properties.smallest_seq,
        last_seq: properties.largest_seq,
        earliest_expiry: (properties.expiring > 0).then_some(properties.earliest_expiry),
        times,
        range_tombstones: properties.range_tombstones,
        smallest: table.bounds.smallest,
        largest: table.bounds.largest,
        blobs: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_can_still_read_stays() {
        let mut keep = Keep::new(Floor { seq: SeqNo(10), expired: 1000 });
        let put = |expires_at| Kind::Put { expires_at };
        let forever = put(None);

        keep.next_key();
        assert_eq!(keep.version(SeqNo(12), Kind::Tombstone, None, || true), Some(Kind::Tombstone), "above the floor");
        assert_eq!(keep.version(SeqNo(11), forever, None, || true), Some(forever), "above the floor");
        assert_eq!(keep.version(SeqNo(9), forever, None, || true), Some(forever), "readable at the floor");
        assert_eq!(keep.version(SeqNo(8), forever, None, || true), None);

        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), Kind::Tombstone, None, || true), None, "nothing below to hide");
        assert_eq!(keep.version(SeqNo(8), forever, None, || true), None, "hidden by the tombstone that went");

        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), Kind::Tombstone, None, || false), Some(Kind::Tombstone));

        keep.next_key();
        let deleted = Some(SeqNo(7));
        assert_eq!(keep.version(SeqNo(11), forever, deleted, || false), Some(forever), "above the floor");
        assert_eq!(keep.version(SeqNo(6), forever, deleted, || false), None, "deleted with its range");
        keep.next_key();
        assert_eq!(keep.version(SeqNo(8), forever, deleted, || false), Some(forever), "put again");
        assert_eq!(keep.version(SeqNo(6), forever, deleted, || false), None);

        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), put(Some(1000)), None, || true), None, "expired");
        keep.next_key();
        let hiding = keep.version(SeqNo(10), put(Some(1000)), None, || false);
        assert_eq!(hiding, Some(Kind::Tombstone), "an expired value must not uncover an older one");
        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), put(Some(1001)), None, || true), Some(put(Some(1001))));
    }

    #[test]
    fn above_the_last_level_filters_are_larger_and_compression_is_quick() {
        let options = Options::new().block_bytes(1_000);
        for (wanted, above) in [
            (Compression::None, Compression::None),
            (Compression::Lz4, Compression::Lz4),
            (Compression::Zstd, Compression::Lz4),
        ] {
            for level in 0..LEVELS {
                let options = table_options(&options.clone().compression(wanted), level);
                let (bits, compression) = if level == 6 { (10, wanted) } else { (14, above) };
                assert_eq!((options.filter_bits_per_key, options.compression), (bits, compression), "level {level}");
                assert_eq!((options.block_bytes, options.partition_bytes), (1_000, 16_000));
            }
        }
    }
}
