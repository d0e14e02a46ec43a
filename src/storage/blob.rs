//! Blob file: large values that entries of tables point to, so that compaction moves a pointer and not the value.
//!
//! ```text
//! blob file := header | record*
//! header    := magic: "CBLB" | version: u32 | file: u64                             // little-endian
//! record    := length: u32 | stored                                                 // of `stored`
//! stored    := a stored block (frame.rs) of file `file` at its own place; its content is the value
//! pointer   := file: varint | offset: varint | length: varint | value length: varint // of `stored`; what an entry has
//! ```
//!
//! Written once from front to back, synced before the first table points into it, and then only read: one read and one
//! checksum for each value. A pointer tells all that a reader needs. The length in front of a record is for those who
//! come without one: a dump, a check.
//!
//! Nothing in the file says which of its values are still needed. Each table counts how many bytes of each blob file it
//! points to (`BlobUse`, in the manifest), so what is garbage follows from the version alone, and a file that no table
//! points into is no longer part of the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frame::{self, Handle, Malformed};
use super::names::{FileName, FileNumber};
use super::output::Output;
use super::sstable::Compression;
use super::{Error, Result, TableId, read_exact};
use crate::codec::cursor::Cursor;
use crate::codec::{Slice, varint};
use crate::fs::File;

const MAGIC: [u8; 4] = *b"CBLB";

/// Goes up with every change that an older reader would misread.
const FORMAT_VERSION: u32 = 1;

const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>() + size_of::<u64>();
const LENGTH_BYTES: u64 = size_of::<u32>() as u64;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) file: FileNumber,
    pub(super) stored: Handle,
    /// Of the value, uncompressed.
    pub(crate) value_len: u64,
}

impl Pointer {
    /// The most that a pointer takes.
    pub(crate) const MAX_BYTES: usize = 4 * varint::MAX_LEN;

    /// Bytes of the file that would be garbage without it.
    pub(crate) fn bytes(self) -> u64 {
        LENGTH_BYTES + u64::from(self.stored.length)
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        for field in [self.file.0, self.stored.offset, u64::from(self.stored.length), self.value_len] {
            varint::put(out, field);
        }
    }

    /// The pointer that an entry has in the place of its value.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Pointer> {
        let mut cursor = Cursor::new(bytes);
        let file = FileNumber(cursor.varint()?);
        let (offset, length) = (cursor.varint()?, u32::try_from(cursor.varint()?).ok()?);
        let value_len = cursor.varint()?;
        let sane = file <= FileNumber::LIMIT && cursor.is_empty();
        sane.then_some(Pointer { file, stored: Handle { offset, length }, value_len })
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes in {} at {}", self.value_len, FileName::Blob(self.file), self.stored.offset)
    }
}

/// How much of a blob file a table points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobUse {
    pub(crate) file: FileNumber,
    /// Length of the file.
    pub(crate) file_bytes: u64,
    /// Of those, what this table's entries point to.
    pub(crate) used_bytes: u64,
}

impl BlobUse {
    /// Bytes of values in the file that these tables do not point to.
    pub(crate) fn garbage(self) -> u64 {
        self.file_bytes.saturating_sub(HEADER_BYTES as u64 + self.used_bytes)
    }
}

/// What several tables together point to, by file.
pub(crate) fn add_up<'a>(uses: impl Iterator<Item = &'a BlobUse>) -> BTreeMap<FileNumber, BlobUse> {
    let mut all: BTreeMap<FileNumber, BlobUse> = BTreeMap::new();
    for blob in uses {
        all.entry(blob.file).or_insert(BlobUse { used_bytes: 0, ..*blob }).used_bytes += blob.used_bytes;
    }
    all
}

/// A blob file being written.
pub(crate) struct BlobWriter {
    number: FileNumber,
    output: Output,
    compression: Compression,
}

impl BlobWriter {
    /// Begins `file`, which is new and empty.
    pub(crate) fn new(
        file: Arc<dyn File>,
        number: FileNumber,
        compression: Compression,
        sync_every: u64,
    ) -> BlobWriter {
        let name = FileName::Blob(number).to_string();
        let output = Output::new(file, name, TableId(number.0), sync_every, &header(number));
        BlobWriter { number, output, compression }
    }

    pub(crate) fn number(&self) -> FileNumber {
        self.number
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.output.position()
    }

    /// What it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        self.output.memory()
    }

    /// Appends a value.
    pub(crate) fn add(&mut self, value: &[u8]) -> Result<Pointer> {
        let stored = self.output.block_behind_its_length(value, self.compression)?;
        Ok(Pointer { file: self.number, stored, value_len: value.len() as u64 })
    }

    /// Everything is written and synced: the file's length.
    pub(crate) fn finish(self) -> Result<u64> {
        self.output.finish(&[])
    }
}

pub(super) fn header(number: FileNumber) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (magic, rest) = header.split_at_mut(MAGIC.len());
    let (version, file) = rest.split_at_mut(size_of::<u32>());
    magic.copy_from_slice(&MAGIC);
    version.copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    file.copy_from_slice(&number.0.to_le_bytes());
    header
}

/// An open blob file.
pub(crate) struct BlobFile {
    file: Arc<dyn File>,
    name: String,
    number: FileNumber,
    /// Its length.
    end: u64,
}

impl BlobFile {
    /// Opens `file`, which must be what a writer has finished under that number.
    pub(crate) fn open(file: Arc<dyn File>, number: FileNumber) -> Result<BlobFile> {
        let name = FileName::Blob(number).to_string();
        let mut bytes = [0; HEADER_BYTES];
        read_exact(&*file, &name, &mut bytes, 0)?;
        if bytes != header(number) {
            return Err(Error::corrupt(&name, "header is not that of this blob file", 0));
        }
        let end = file.len().map_err(Error::io(&name, "read the length"))?;
        Ok(BlobFile { file, name, number, end })
    }

    /// The value at `pointer`.
    pub(crate) fn read(&self, pointer: Pointer) -> Result<Slice> {
        let Handle { offset, length } = pointer.stored;
        // Nothing is allocated on the word of a table's bytes.
        if pointer.stored.end() > self.end {
            return Err(Error::corrupt(&self.name, "a pointer leads behind the end of the file", offset));
        }
        let stored = Slice::build(length as usize, |buffer| read_exact(&*self.file, &self.name, buffer, offset))?;
        let value = frame::open(&stored, TableId(self.number.0), offset).and_then(|value| {
            match value.len() as u64 == pointer.value_len {
                true => Ok(value),
                false => Err(Malformed("value is not as long as its pointer says")),
            }
        });
        value.map_err(|Malformed(what)| Error::corrupt(&self.name, what, offset))
    }

    /// Where the values are, from the first on. An error ends them: behind a length that cannot be believed nothing is
    /// found without a pointer.
    pub(crate) fn pointers(&self) -> Pointers<'_> {
        Pointers { file: self, next: Some(HEADER_BYTES as u64) }
    }

    /// The pointer to the record at `at`, and where the next one begins; `None` at the end of the file.
    fn record(&self, at: u64) -> Result<Option<(Pointer, u64)>> {
        if at == self.end {
            return Ok(None);
        }
        let mut length = [0; LENGTH_BYTES as usize];
        read_exact(&*self.file, &self.name, &mut length, at)?;
        let stored = Handle { offset: at + LENGTH_BYTES, length: u32::from_le_bytes(length) };
        if stored.end() > self.end {
            return Err(Error::corrupt(&self.name, "value is longer than the file", at));
        }
        let bytes =
            Slice::build(stored.length as usize, |buffer| read_exact(&*self.file, &self.name, buffer, stored.offset))?;
        let value = frame::open(&bytes, TableId(self.number.0), stored.offset)
            .map_err(|Malformed(what)| Error::corrupt(&self.name, what, stored.offset))?;
        let pointer = Pointer { file: self.number, stored, value_len: value.len() as u64 };
        Ok(Some((pointer, stored.end())))
    }
}

/// See [`BlobFile::pointers`].
pub(crate) struct Pointers<'a> {
    file: &'a BlobFile,
    next: Option<u64>,
}

impl Iterator for Pointers<'_> {
    type Item = Result<Pointer>;

    fn next(&mut self) -> Option<Result<Pointer>> {
        let (pointer, next) = self
            .file
            .record(self.next.take()?)
            .transpose()?
            .map_or_else(|error| (Err(error), None), |(pointer, next)| (Ok(pointer), Some(next)));
        self.next = next;
        Some(pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{golden, hex, unhex};
    use super::super::testing::MemFile;
    use super::*;

    const NUMBER: FileNumber = FileNumber(7);

    fn values() -> Vec<Vec<u8>> {
        vec![b"a value".to_vec(), vec![b'r'; 3000], Vec::new(), (0..=255).collect(), vec![7; 700_000]]
    }

    fn write(values: &[Vec<u8>], compression: Compression) -> (Arc<MemFile>, Vec<Pointer>) {
        let file = MemFile::new();
        let mut writer = BlobWriter::new(file.clone(), NUMBER, compression, 0);
        let pointers = values.iter().map(|value| writer.add(value).unwrap()).collect();
        let len = writer.len();
        assert_eq!(writer.finish().unwrap(), len);
        assert_eq!(file.bytes().len() as u64, len);
        (file, pointers)
    }

    fn open(bytes: &[u8]) -> Result<BlobFile> {
        BlobFile::open(MemFile::with(bytes), NUMBER)
    }

    #[test]
    fn every_value_comes_back_by_its_pointer_and_the_pointers_by_a_walk() {
        for compression in [Compression::None, Compression::Lz4] {
            let (file, pointers) = write(&values(), compression);
            let blob = open(&file.bytes()).unwrap();
            for (value, pointer) in values().iter().zip(&pointers) {
                assert_eq!(&*blob.read(*pointer).unwrap(), value);
                let mut bytes = Vec::new();
                pointer.encode(&mut bytes);
                assert_eq!(Pointer::decode(&bytes), Some(*pointer));
                assert_eq!(Pointer::decode(&bytes[..bytes.len() - 1]), None);
            }
            assert_eq!(blob.pointers().collect::<Result<Vec<_>>>().unwrap(), pointers);
            let bytes: u64 = pointers.iter().map(|pointer| pointer.bytes()).sum();
            assert_eq!(bytes + HEADER_BYTES as u64, file.bytes().len() as u64, "every byte is accounted for");
        }
    }

    #[test]
    fn damage_is_noticed_and_costs_one_value() {
        let values = &values()[..4];
        let (file, pointers) = write(values, Compression::Lz4);
        let good = file.bytes();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let Ok(blob) = open(&bytes) else {
                assert!(at < HEADER_BYTES);
                continue;
            };
            let lost = pointers.iter().zip(values).filter(|(pointer, value)| match blob.read(**pointer) {
                Ok(read) => {
                    assert_eq!(&*read, &value[..]);
                    false
                }
                Err(_) => true,
            });
            // A record's length is not needed by those who have a pointer.
            assert!(lost.count() <= 1);
            assert!(blob.pointers().any(|pointer| pointer.is_err()), "a walk notices it");
        }
        for end in 0..good.len() {
            let whole = open(&good[..end]).and_then(|blob| blob.pointers().collect::<Result<Vec<_>>>());
            assert!(whole.is_err() || whole.unwrap().len() < pointers.len());
        }
    }

    #[test]
    fn a_pointer_beyond_the_file_is_refused_before_anything_is_allocated_for_it() {
        let (file, pointers) = write(&[vec![1; 50]], Compression::None);
        let blob = open(&file.bytes()).unwrap();
        let beyond = |stored| Pointer { stored, ..pointers[0] };
        for stored in [
            Handle { length: u32::MAX, ..pointers[0].stored },
            Handle { length: pointers[0].stored.length + 1, ..pointers[0].stored },
            Handle { offset: u64::MAX, ..pointers[0].stored },
        ] {
            let error = blob.read(beyond(stored)).unwrap_err();
            assert!(error.to_string().contains("behind the end"), "{error}");
        }
    }

    #[test]
    fn a_value_of_another_file_or_place_is_refused() {
        let (file, pointers) = write(&[vec![1; 50], vec![2; 50]], Compression::None);
        let blob = open(&file.bytes()).unwrap();
        let other = Pointer { value_len: 51, ..pointers[0] };
        assert!(blob.read(other).is_err());
        let mut swapped = file.bytes();
        let (a, b) = (pointers[0].stored, pointers[1].stored);
        for n in 0..a.length as usize {
            swapped.swap(a.offset as usize + n, b.offset as usize + n);
        }
        assert!(open(&swapped).unwrap().read(pointers[0]).is_err());
        assert!(BlobFile::open(MemFile::with(&file.bytes()), FileNumber(8)).is_err());
    }

    #[test]
    fn the_format_is_what_it_was() {
        let values = [b"a value".to_vec(), Vec::new(), (0..=40).collect()];
        let (file, pointers) = write(&values, Compression::None);
        let text = hex(&file.bytes());
        let golden = golden("blob.hex", &text);
        assert_eq!(text, golden, "the format has changed: raise FORMAT_VERSION and keep reading the old one");
        let blob = open(&unhex(&golden)).unwrap();
        for (value, pointer) in values.iter().zip(pointers) {
            assert_eq!(&*blob.read(pointer).unwrap(), value);
        }
    }

    #[test]
    fn a_pointer_has_the_number_of_a_file_and_nothing_behind_it() {
        let pointer = |file| Pointer { file, stored: Handle { offset: 20, length: 30 }, value_len: 40 };
        let mut bytes = Vec::new();
        pointer(FileNumber::LIMIT).encode(&mut bytes);
        assert_eq!(Pointer::decode(&bytes), Some(pointer(FileNumber::LIMIT)));
        bytes.push(0);
        assert_eq!(Pointer::decode(&bytes), None, "something behind it");
        bytes.clear();
        pointer(FileNumber(FileNumber::LIMIT.0 + 1)).encode(&mut bytes);
        assert_eq!(Pointer::decode(&bytes), None, "no file has this number");
    }
}
