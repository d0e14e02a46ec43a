//! One file format per module: what the bytes are, who writes them, who reads them, and a dump for people. When files
//! are written, renamed and removed is the engine's business.

pub(crate) mod blob;
mod cache;
mod current;
mod end;
mod entry;
mod error;
mod file_pool;
mod fragments;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
pub(crate) mod golden;
pub(crate) mod log;
pub(crate) mod manifest;
mod moments;
pub(crate) mod names;
mod output;
pub(crate) mod sstable;
mod table_times;
#[cfg(any(test, fuzzing))]
mod testing;
pub(crate) mod text;
pub(crate) mod wal;

#[cfg(feature = "schedules")]
pub use cache::schedules as cache_schedules;
pub(crate) use cache::{BlockCache, Charge, Use};
pub(crate) use end::End;
pub(crate) use entry::{Kind, TableId, Version};
pub(crate) use error::{Error, Result};
pub(crate) use file_pool::FilePool;
pub(crate) use fragments::{Edge, Fragment, Fragments, Span};

pub(crate) use crate::codec::SeqNo;

use crate::fs::{File, Fs};

/// Deletes a file that an attempt has begun, and that nothing refers to. If that fails too, a later start does it.
pub(crate) fn give_up(fs: &dyn Fs, name: &str) {
    if let Err(error) = fs.remove(name) {
        tracing::warn!(file = name, %error, "cannot delete what a failed attempt has left behind");
    }
}

/// Makes durable what can be read of a file that another process may have written and not synced.
pub(crate) fn sync_file(fs: &dyn Fs, name: &str) -> Result<()> {
    let file = fs.open(name).map_err(Error::io(name, "open"))?;
    file.sync().map_err(Error::io(name, "sync"))
}

/// All bytes of a file.
pub(crate) fn read_whole(fs: &dyn Fs, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(fs, name, &mut bytes)?;
    Ok(bytes)
}

/// All bytes of a file in the place of what `bytes` held: its memory serves for file after file.
pub(crate) fn read_into(fs: &dyn Fs, name: &str, bytes: &mut Vec<u8>) -> Result<()> {
    let file = fs.open(name).map_err(Error::io(name, "open"))?;
    let len = file.len().map_err(Error::io(name, "read the length"))?;
    // The length of a real file, not a number that its bytes ask for.
    bytes.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
    let read = file.read_at(bytes, 0).map_err(Error::io(name, "read"))?;
    bytes.truncate(read);
    Ok(())
}

/// Fills `buffer` from `offset`. That the file ends before is damage: nobody asks for more than it was written with.
fn read_exact(file: &dyn File, name: &str, buffer: &mut [u8], offset: u64) -> Result<()> {
    let len = file.read_at(buffer, offset).map_err(Error::io(name, "read"))?;
    if len < buffer.len() {
        return Err(Error::corrupt(name, "file ends too early", offset + len as u64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::testing::MemFile;
    use super::*;

    #[test]
    fn a_file_that_ends_too_early_is_damaged_where_it_ends() {
        let file = MemFile::with(b"0123456789");
        let mut buffer = [0; 8];
        read_exact(&*file, "a file", &mut buffer, 2).unwrap();
        assert_eq!(&buffer, b"23456789");
        let error = read_exact(&*file, "a file", &mut buffer, 5).unwrap_err();
        assert!(matches!(error, Error::Corrupt { offset: 10, .. }), "{error}");
    }
}
