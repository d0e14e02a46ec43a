//! Builds a data block, entry by entry; the layout is described at [`super::block`].

use super::block::{PUT, PUT_EXPIRING, RESTART_BYTES, TOMBSTONE};
use crate::codec::{SeqNo, varint};
use crate::storage::Kind;

/// Every so many entries, one stands with its whole key. Fewer restart points make the block smaller, and a point read
/// steps over half of this many entries; 16 is what LevelDB found to be a good middle.
const RESTART_INTERVAL: usize = 16;

/// The most an entry has besides its key and value.
pub(super) const ENTRY_OVERHEAD: usize = 4 * varint::MAX_LEN + 1 + size_of::<u64>();

/// An allocation above this is given back when its block is done: one huge value should not be paid for until the
/// table is finished.
const KEEP_BYTES: usize = 1 << 20;

/// A block being built. Reused from block to block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    since_restart: usize,
}

impl BlockBuilder {
    pub(super) fn is_empty(&self) -> bool {
        self.restarts.is_empty()
    }

    /// How large the block would be if it were finished now.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + (self.restarts.len() + 1) * RESTART_BYTES
    }

    /// Adds an entry behind all others; `shared` is how many bytes its key has in common with the key before it.
    #[inline]
    pub(super) fn add(&mut self, key: &[u8], shared: usize, seq: SeqNo, kind: Kind, value: &[u8]) {
        let restart = self.restarts.is_empty() || self.since_restart == RESTART_INTERVAL;
        let shared = if restart { 0 } else { shared };
        if restart {
            let at = u32::try_from(self.bytes.len()).expect("a block over its target takes no further entry");
            self.restarts.push(at);
            self.since_restart = 0;
        }
        self.since_restart += 1;
        let (code, expires) = match kind {
            Kind::Put { expires_at: None } => (PUT, None),
            Kind::Put { expires_at } => (PUT_EXPIRING, expires_at),
            Kind::Tombstone => (TOMBSTONE, None),
        };
        let out = &mut self.bytes;
        out.reserve(ENTRY_OVERHEAD + key.len() - shared + value.len());
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
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let count = u32::try_from(self.restarts.len()).expect("fewer than entries, which are fewer than bytes");
        self.bytes.extend_from_slice(&count.to_le_bytes());
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.restarts.clear();
    }
}

#[cfg(test)]
pub(crate) fn one_entry_block(key: &[u8], value: &[u8]) -> super::Block {
    let mut builder = BlockBuilder::default();
    builder.add(key, 0, SeqNo(1), Kind::Put { expires_at: None }, value);
    super::Block::parse(crate::codec::Slice::copy_from(builder.finish())).unwrap()
}
