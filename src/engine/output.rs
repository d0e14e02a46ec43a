//! Writing tables: what flush and compaction have in common. Decides which versions are still needed, cuts the stream
//! into tables, and syncs them with their names.

use super::expiries::Expiries;
use super::options::{Compression, Options};
use super::retention::Retention;
use super::shared::Shared;
use super::version::LEVELS;
use super::{Result, SeqNo};
use crate::codec::Slice;
use crate::storage::manifest::{TableMeta, TableTimes};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::{TableOptions, TableWriter};
use crate::storage::{Charge, Error, Kind, TableId, Use, give_up};

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
/// that has expired, it says "nothing here", and goes too once nothing below the output can hold the key.
pub(crate) struct Keep {
    floor: SeqNo,
    now: u64,
    /// Whether a version of the current key at or below the floor has been seen.
    settled: bool,
}

impl Keep {
    pub(crate) fn new(retention: &Retention, now: u64) -> Keep {
        Keep { floor: retention.floor(), now, settled: false }
    }

    /// The stream comes to the next key.
    pub(crate) fn next_key(&mut self) {
        self.settled = false;
    }

    /// As what the version stays: itself, a tombstone in its place, or not at all. `is_bottom` tells whether nothing
    /// below the output can hold the key.
    pub(crate) fn version(&mut self, seq: SeqNo, kind: Kind, is_bottom: impl FnOnce() -> bool) -> Option<Kind> {
        if seq > self.floor {
            return Some(kind);
        }
        if std::mem::replace(&mut self.settled, true) {
            return None;
        }
        match kind {
            Kind::Put { expires_at } if expires_at.is_none_or(|at| at > self.now) => Some(kind),
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
    current: Option<(FileNumber, TableWriter, Expiries)>,
    charge: Charge,
    tables: Vec<TableMeta>,
    /// Every table begun, until all are finished.
    unfinished: Vec<FileNumber>,
}

impl Drop for TableOutput<'_> {
    fn drop(&mut self) {
        for &number in &self.unfinished {
            give_up(&*self.shared.fs, &FileName::Table(number).to_string());
        }
    }
}

impl<'a> TableOutput<'a> {
    pub(crate) fn new(shared: &'a Shared, level: usize, cut_at: u64, written: Option<u64>) -> TableOutput<'a> {
        let charge = Charge::new(&shared.cache, Use::Jobs);
        TableOutput {
            shared,
            level,
            cut_at,
            written,
            current: None,
            charge,
            tables: Vec::new(),
            unfinished: Vec::new(),
        }
    }

    /// All versions of a key go into one table: the ranges of a level's tables stay disjoint.
    pub(crate) fn next_key(&mut self) -> Result<()> {
        match &self.current {
            Some((_, writer, _)) if writer.estimated_size() >= self.cut_at => self.cut(),
            _ => Ok(()),
        }
    }

    pub(crate) fn add(&mut self, key: &[u8], seq: SeqNo, kind: Kind, value: &[u8]) -> Result<()> {
        if self.current.is_none() {
            let number = self.shared.catalog.new_file();
            let name = FileName::Table(number).to_string();
            let file = self.shared.fs.create(&name).map_err(Error::io(&name, "create"))?;
            self.unfinished.push(number);
            let options = table_options(&self.shared.options, self.level);
            let writer = TableWriter::new(file, &name, TableId(number.0), options);
            self.current = Some((number, writer, Expiries::default()));
        }
        let (_, writer, expiries) = self.current.as_mut().expect("one was just begun if there was none");
        if let Kind::Put { expires_at: Some(at) } = kind {
            expiries.add(at);
        }
        let memory = writer.memory() as u64;
        if memory.abs_diff(self.charge.bytes()) > CHARGED_IN_STEPS {
            self.charge.set(memory);
        }
        Ok(writer.add(key, seq, kind, value)?)
    }

    /// What comes next begins another table.
    pub(crate) fn cut(&mut self) -> Result<()> {
        if let Some((number, writer, expiries)) = self.current.take() {
            let expiring = expiries.count();
            let times = TableTimes { written: self.written, expiring, quartiles: expiries.quartiles() };
            self.tables.push(meta(number, writer.finish()?, times));
        }
        Ok(())
    }

    /// The finished tables, synced, their names too.
    pub(crate) fn finish(self) -> Result<Vec<TableMeta>> {
        TableOutput::finish_all(vec![self])
    }

    /// The finished tables of several outputs, all or none.
    pub(crate) fn finish_all(mut outputs: Vec<TableOutput<'a>>) -> Result<Vec<TableMeta>> {
        outputs.iter_mut().try_for_each(TableOutput::cut)?;
        if let Some(output) = outputs.iter().find(|output| !output.tables.is_empty()) {
            output.shared.fs.sync_dir().map_err(Error::io(".", "sync the directory"))?;
        }
        // From here on they are the caller's.
        let taken = |output: &mut TableOutput<'_>| {
            output.unfinished.clear();
            std::mem::take(&mut output.tables)
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

/// What the manifest keeps of a table.
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
        smallest: Slice::from(properties.smallest_key),
        largest: Slice::from(properties.largest_key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_can_still_read_stays() {
        let retention = Retention::default();
        retention.settle(SeqNo(10));
        let mut keep = Keep::new(&retention, 1000);
        let put = |expires_at| Kind::Put { expires_at };
        let forever = put(None);

        keep.next_key();
        assert_eq!(keep.version(SeqNo(12), Kind::Tombstone, || true), Some(Kind::Tombstone), "above the floor");
        assert_eq!(keep.version(SeqNo(11), forever, || true), Some(forever), "above the floor");
        assert_eq!(keep.version(SeqNo(9), forever, || true), Some(forever), "readable at the floor");
        assert_eq!(keep.version(SeqNo(8), forever, || true), None);

        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), Kind::Tombstone, || true), None, "nothing below to hide");
        assert_eq!(keep.version(SeqNo(8), forever, || true), None, "hidden by the tombstone that went");

        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), Kind::Tombstone, || false), Some(Kind::Tombstone));

        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), put(Some(1000)), || true), None, "expired");
        keep.next_key();
        let hiding = keep.version(SeqNo(10), put(Some(1000)), || false);
        assert_eq!(hiding, Some(Kind::Tombstone), "an expired value must not uncover an older one");
        keep.next_key();
        assert_eq!(keep.version(SeqNo(10), put(Some(1001)), || true), Some(put(Some(1001))));
    }
}
