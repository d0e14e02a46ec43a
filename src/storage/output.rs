//! A file of stored blocks being written: they are stored blocks appended in large chunks, synced every so often.

use std::sync::Arc;

use super::frame::{self, Compressor, Handle, TRAILER_BYTES};
use super::sstable::Compression;
use super::{Error, Result, TableId};
use crate::codec::defect::{Defect, seeded};
use crate::fs::File;

/// Bytes are gathered until there are this many: large enough that the cost of a write call is small beside copying
/// its bytes, small enough to stay in the processor's cache.
const CHUNK_BYTES: usize = 256 << 10;

pub(super) struct Output {
    file: Arc<dyn File>,
    name: String,
    table: TableId,
    /// Bytes of the file from `written` on that have not been written yet.
    pending: Vec<u8>,
    written: u64,
    synced: u64,
    sync_every: u64,
    compressor: Compressor,
    /// After a failed write or sync nobody knows what the file holds; a later sync that succeeds proves nothing.
    failed: bool,
}

impl Output {
    /// Starts the file with its header. `table` is the number of the file, whatever it is.
    pub(super) fn new(file: Arc<dyn File>, name: String, table: TableId, sync_every: u64, header: &[u8]) -> Output {
        let mut pending = Vec::with_capacity(2 * CHUNK_BYTES);
        pending.extend_from_slice(header);
        let compressor = Compressor::new();
        Output { file, name, table, pending, written: 0, synced: 0, sync_every, compressor, failed: false }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The length of the file so far.
    pub(super) fn position(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// What it takes in memory.
    pub(super) fn memory(&self) -> usize {
        self.pending.capacity() + self.compressor.memory()
    }

    /// Appends `content` as a stored block.
    pub(super) fn block(&mut self, content: &[u8], compression: Compression) -> Result<Handle> {
        self.append(content, compression, false)
    }

    /// Appends `content` as a stored block with its length in front.
    pub(super) fn block_behind_its_length(&mut self, content: &[u8], compression: Compression) -> Result<Handle> {
        self.append(content, compression, true)
    }

    fn append(&mut self, content: &[u8], compression: Compression, with_length: bool) -> Result<Handle> {
        let prefix_bytes = if with_length { size_of::<u32>() } else { 0 };
        let offset = self.position() + prefix_bytes as u64;
        let packed = self.compressor.compress(content, compression);
        let (bytes, compression) = packed.unwrap_or((content, Compression::None));
        let length = u32::try_from(bytes.len() + TRAILER_BYTES).expect("the writer keeps blocks below 4 GiB");
        let trailer = frame::trailer(self.table, offset, bytes, compression);
        self.pending.extend_from_slice(&length.to_le_bytes()[..prefix_bytes]);
        if bytes.len() < CHUNK_BYTES {
            self.pending.extend_from_slice(bytes);
        } else {
            // A large block goes out from where it is instead of being copied.
            Output::write(&*self.file, &self.name, &mut self.failed, &self.pending, self.written)?;
            self.written += self.pending.len() as u64;
            self.pending.clear();
            Output::write(&*self.file, &self.name, &mut self.failed, bytes, self.written)?;
            self.written += bytes.len() as u64;
        }
        self.pending.extend_from_slice(&trailer);
        if self.pending.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        if self.sync_every != 0 && self.written - self.synced >= self.sync_every {
            self.sync()?;
        }
        Ok(Handle { offset, length })
    }

    /// Ends the file with `footer`: everything is written and synced.
    pub(super) fn finish(mut self, footer: &[u8]) -> Result<u64> {
        self.pending.extend_from_slice(footer);
        self.flush()?;
        if !seeded(Defect::TableNotSynced) {
            self.sync()?;
        }
        Ok(self.written)
    }

    fn flush(&mut self) -> Result<()> {
        Output::write(&*self.file, &self.name, &mut self.failed, &self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn write(file: &dyn File, name: &str, failed: &mut bool, bytes: &[u8], offset: u64) -> Result<()> {
        Output::once(failed, name, "write", || file.write_at(bytes, offset))
    }

    fn sync(&mut self) -> Result<()> {
        Output::once(&mut self.failed, &self.name, "sync", || self.file.sync())?;
        self.synced = self.written;
        Ok(())
    }

    /// Makes a call to the disk, unless an earlier one failed.
    fn once(
        failed: &mut bool,
        name: &str,
        what: &'static str,
        call: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<()> {
        let result = if *failed { Err(std::io::Error::other("an earlier write to it failed")) } else { call() };
        *failed |= result.is_err();
        result.map_err(Error::io(name, what))
    }
}
