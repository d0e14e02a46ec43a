//! A cheaply cloned, immutable run of bytes: a window into a shared allocation.
//!
//! A value read from the memtable or from a cached block is handed to the caller without copying its bytes;
//! the window keeps the whole allocation alive.

use std::ops::Deref;
use std::sync::Arc;

/// Immutable shared bytes. Cloning costs one reference count.
#[derive(Clone, Default)]
pub struct Slice {
    buffer: Arc<[u8]>,
    start: usize,
    len: usize,
}

impl Slice {
    /// Copies `bytes` into an allocation of its own.
    pub fn copy_from(bytes: &[u8]) -> Slice {
        Slice { buffer: Arc::from(bytes), start: 0, len: bytes.len() }
    }

    /// `len` bytes that `fill` writes in place (they are zero before), so that what is read or decompressed is not
    /// copied once more.
    pub(crate) fn build<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Slice, E> {
        let mut buffer: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        fill(Arc::get_mut(&mut buffer).expect("nobody else has seen it yet"))?;
        Ok(Slice { buffer, start: 0, len })
    }

    /// The bytes `start..end` of this slice, sharing its allocation. Panics if the range is out of bounds.
    pub fn slice(&self, start: usize, end: usize) -> Slice {
        assert!(start <= end && end <= self.len, "slice {start}..{end} of {} bytes", self.len);
        Slice { buffer: self.buffer.clone(), start: self.start + start, len: end - start }
    }

    /// As [`Slice::slice`], for those who need the whole no longer: no reference is counted.
    pub(crate) fn into_slice(self, start: usize, end: usize) -> Slice {
        assert!(start <= end && end <= self.len, "slice {start}..{end} of {} bytes", self.len);
        Slice { buffer: self.buffer, start: self.start + start, len: end - start }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        let len = bytes.len();
        Slice { buffer: Arc::from(bytes), start: 0, len }
    }
}

impl From<Arc<[u8]>> for Slice {
    fn from(buffer: Arc<[u8]>) -> Slice {
        let len = buffer.len();
        Slice { buffer, start: 0, len }
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        **self == **other
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Slice) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Slice) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shares_the_allocation_and_shows_only_its_bytes() {
        let whole = Slice::copy_from(b"hello world");
        let world = whole.slice(6, 11);
        assert_eq!(&*world, b"world");
        assert_eq!(&*world.slice(1, 3), b"or");
        assert_eq!(Arc::strong_count(&whole.buffer), 2);
    }
}
