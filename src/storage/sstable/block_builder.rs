//! Builds a data block, entry by entry; the layout is described at [`super::block`].

use super::block::{COUNT_BYTES, MAX_INTERVAL, PUT, PUT_EXPIRING, PUT_FAR, PUT_FAR_EXPIRING, RESTART_BYTES, TOMBSTONE};
use crate::codec::hash::KeyHash;
use crate::codec::{SeqNo, varint};
use crate::storage::Kind;

/// 2^this many entries from one that stands with its whole key to the next. A point read goes to a restart point and
/// steps over half of the entries that follow: each is a cache line or two, so 4 measures better than LevelDB's 16, for
/// tables that are about 2 % larger with keys of 16 bytes and values of 100.
const RESTART_SHIFT: u8 = 2;
const RESTART_INTERVAL: usize = 1 << RESTART_SHIFT;

const _: () = assert!(RESTART_INTERVAL <= MAX_INTERVAL);

/// The most an entry has besides its key and value.
const ENTRY_OVERHEAD: usize = 4 * varint::MAX_LEN + 1 + size_of::<u64>() + size_of::<u8>() + RESTART_BYTES;

/// An allocation above this is given back when its block is done: one huge value should not be paid for until the
/// table is finished.
const KEEP_BYTES: usize = 1 << 20;

/// A block being built. Reused from block to block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    tags: Vec<u8>,
    /// In bytes from the first entry, until it is known where that will be.
    restarts: Vec<u32>,
    /// The entries; the whole block once it is finished.
    bytes: Vec<u8>,
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// How large the block would be if it were finished now.
    pub(super) fn len(&self) -> usize {
        self.head_len() + self.bytes.len()
    }

    fn head_len(&self) -> usize {
        COUNT_BYTES + self.tags.len() + self.restarts.len() * RESTART_BYTES
    }

    /// How large it would be at most with one more entry, of which `shared` bytes of the key are those of the key before it.
    pub(super) fn len_with(&self, key: &[u8], shared: usize, value: &[u8]) -> usize {
        self.len() + ENTRY_OVERHEAD + key[self.shared(shared)..].len() + value.len()
    }

    fn is_at_restart(&self) -> bool {
        self.tags.len().is_multiple_of(RESTART_INTERVAL)
    }

    /// How many bytes of its key the next entry takes from the one before.
    fn shared(&self, shared: usize) -> usize {
        if self.is_at_restart() { 0 } else { shared }
    }

    /// Adds an entry behind all others; `hash` is the hash of its key, `shared` how many bytes that has in common with
    /// the key before it.
    #[inline]
    pub(super) fn add(&mut self, key: &[u8], hash: KeyHash, shared: usize, seq: SeqNo, kind: Kind, value: &[u8]) {
        let shared = self.shared(shared);
        if self.is_at_restart() {
            let at = u32::try_from(self.bytes.len()).expect("a block over its target takes no further entry");
            self.restarts.push(at);
        }
        self.tags.push(hash.tag());
        let (code, expires) = match kind {
            Kind::Put { expires_at: None } => (PUT, None),
            Kind::Put { expires_at } => (PUT_EXPIRING, expires_at),
            Kind::PutFar { expires_at: None } => (PUT_FAR, None),
            Kind::PutFar { expires_at } => (PUT_FAR_EXPIRING, expires_at),
            Kind::Tombstone => (TOMBSTONE, None),
        };
        let out = &mut self.bytes;
        varint::put(out, shared as u64);
        varint::put(out, (key.len() - shared) as u64);
        varint::put(out, value.len() as u64);
        out.push(code);
        varint::put(out, seq.0);
        if let Some(expires) = expires {
            out.extend_from_slice(&expires.to_le_bytes());
        }
        out.extend_from_slice(&key[shared..]);
        out.extend_from_slice(value);
    }

    /// The finished block; [`BlockBuilder::clear`] before the next.
    pub(super) fn finish(&mut self) -> &[u8] {
        const FEW: &str = "a block over its target takes no further entry";
        let head_len = u32::try_from(self.head_len()).expect(FEW);
        let count = u32::try_from(self.tags.len()).expect(FEW);
        let mut head = Vec::with_capacity(self.head_len());
        head.extend_from_slice(&count.to_le_bytes());
        head.push(RESTART_SHIFT);
        head.extend_from_slice(&self.tags);
        for restart in &self.restarts {
            head.extend_from_slice(&restart.checked_add(head_len).expect(FEW).to_le_bytes());
        }
        // Moves the entries once, which is little beside checking and writing them.
        self.bytes.splice(..0, head);
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.tags.clear();
        self.restarts.clear();
    }
}

#[cfg(any(test, feature = "schedules"))]
pub(crate) fn one_entry_block(key: &[u8], value: &[u8]) -> super::Block {
    let mut builder = BlockBuilder::default();
    builder.add(key, KeyHash::of(key), 0, SeqNo(1), Kind::Put { expires_at: None }, value);
    super::Block::parse(crate::codec::Slice::copy_from(builder.finish())).expect("it was just made")
}
