//! A file in memory that remembers how it was used, for the tests of this floor.

#![cfg_attr(fuzzing, allow(dead_code, reason = "fuzz targets use a part of it"))]

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::Rng;
use crate::fs::File;

/// A file in memory that remembers how it was used.
#[derive(Default)]
pub(crate) struct MemFile {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    unsynced: usize,
    most_unsynced: usize,
    reads: usize,
    writes: usize,
    syncs: usize,
    fail: bool,
}

impl MemFile {
    pub(crate) fn new() -> Arc<MemFile> {
        Arc::new(MemFile::default())
    }

    pub(crate) fn with(bytes: &[u8]) -> Arc<MemFile> {
        let file = MemFile::new();
        file.state.lock().bytes = bytes.to_vec();
        file
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state.lock().bytes.clone()
    }

    /// Bytes written since the last sync.
    pub(crate) fn unsynced(&self) -> usize {
        self.state.lock().unsynced
    }

    /// The most that was ever written between two syncs.
    pub(crate) fn most_unsynced(&self) -> usize {
        self.state.lock().most_unsynced
    }

    pub(crate) fn reads(&self) -> usize {
        self.state.lock().reads
    }

    pub(crate) fn writes(&self) -> usize {
        self.state.lock().writes
    }

    pub(crate) fn syncs(&self) -> usize {
        self.state.lock().syncs
    }

    /// Lets every call fail, or succeed again.
    pub(crate) fn set_failing(&self, fail: bool) {
        self.state.lock().fail = fail;
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.fail { Err(io::Error::other("told to fail")) } else { Ok(()) }
    }
}

impl File for MemFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        let end = offset as usize + bytes.len();
        if state.bytes.len() < end {
            state.bytes.resize(end, 0);
        }
        state.bytes[offset as usize..end].copy_from_slice(bytes);
        state.writes += 1;
        state.unsynced += bytes.len();
        state.most_unsynced = state.most_unsynced.max(state.unsynced);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.check()?;
        state.reads += 1;
        let rest = state.bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        state.syncs += 1;
        state.unsynced = 0;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.bytes.len() as u64)
    }
}

/// `len` bytes, of few different values so that they compress and share prefixes.
pub(crate) fn few_bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| *rng.pick(b"abcd")).collect()
}
