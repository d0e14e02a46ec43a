//! Where the values of tables being written go: short ones into the tables, long ones into blob files, and those that are
//! in blob files already stay where they are.

use std::collections::BTreeMap;

use super::Result;
use super::shared::Shared;
use crate::storage::Error;
use crate::storage::blob::{BlobUse, BlobWriter, Pointer};
use crate::storage::names::{FileName, FileNumber};
use crate::storage::sstable::TableOptions;

/// A blob file is ended at this many times the size of a table: its values are a tenth to a thousandth as many, and each
/// file costs a descriptor.
const TABLES_PER_FILE: u64 = 4;

/// The blob files of one output.
pub(crate) struct Values<'a> {
    shared: &'a Shared,
    current: Option<BlobWriter>,
    /// How long the files are that its tables point into: those that were there, and those that are finished.
    lengths: BTreeMap<FileNumber, u64>,
}

/// What a table points to: bytes by blob file.
pub(crate) type Used = BTreeMap<FileNumber, u64>;

impl<'a> Values<'a> {
    /// `known` are the files that entries may point into already.
    pub(crate) fn new<'b>(shared: &'a Shared, known: impl Iterator<Item = &'b BlobUse>) -> Values<'a> {
        let lengths = known.map(|blob| (blob.file, blob.file_bytes)).collect();
        Values { shared, current: None, lengths }
    }

    /// Whether a value is put apart.
    pub(crate) fn takes(&self, value: &[u8]) -> bool {
        self.shared.options.blob_threshold.is_some_and(|threshold| value.len() >= threshold)
    }

    /// Puts a value apart. A file that is begun for it is noted in `begun`.
    pub(crate) fn add(&mut self, value: &[u8], begun: &mut Vec<FileName>) -> Result<Pointer> {
        let full = TABLES_PER_FILE.saturating_mul(self.shared.options.table_bytes);
        if self.current.as_ref().is_some_and(|writer| writer.len() >= full) {
            self.finish()?;
        }
        let writer = match &mut self.current {
            Some(writer) => writer,
            none => {
                let number = self.shared.catalog.new_file();
                let name = FileName::Blob(number);
                let file = self.shared.fs.create(&name.to_string()).map_err(Error::io(&name.to_string(), "create"))?;
                begun.push(name);
                let (compression, sync_every) = (self.shared.options.compression, TableOptions::default().sync_every);
                none.insert(BlobWriter::new(file, number, compression, sync_every))
            }
        };
        Ok(writer.add(value)?)
    }

    /// What writing takes in memory.
    pub(crate) fn memory(&self) -> usize {
        self.current.as_ref().map_or(0, BlobWriter::memory)
    }

    /// Ends and syncs the file being written.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if let Some(writer) = self.current.take() {
            let number = writer.number();
            self.lengths.insert(number, writer.finish()?);
        }
        Ok(())
    }

    /// What the manifest is told of a table that points to so much; every file must be finished.
    pub(crate) fn uses(&self, used: &Used) -> Vec<BlobUse> {
        let length = |file: &FileNumber| self.lengths.get(file).copied().unwrap_or_default();
        used.iter().map(|(&file, &used_bytes)| BlobUse { file, file_bytes: length(&file), used_bytes }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::{Compression, Options};
    use crate::fs::{Fs, SimFs};

    #[test]
    fn values_share_blob_files_of_four_times_the_size_of_a_table() {
        let disk = SimFs::new();
        let options = Options::new().blob_threshold(Some(100)).table_bytes(2_000).compression(Compression::None);
        let db = options.stepped().open_on(Arc::new(disk.clone())).unwrap();
        for n in 0..40 {
            db.put(format!("{n}").as_bytes(), &[n; 1_000]).unwrap();
        }
        db.flush().unwrap();
        let names = disk.list().unwrap();
        let files: Vec<usize> = names
            .iter()
            .filter(|name| name.ends_with(".blob"))
            .map(|name| disk.read_file(name).unwrap().len())
            .collect();
        assert_eq!(files.len(), 5, "{files:?}");
        assert!(files.iter().all(|length| (8_000..9_100).contains(length)), "{files:?}");
    }
}
