//! GETs that a client has sent one behind the other, to be looked up together: while the processor waits for the memory
//! of one key, it can wait for that of the others too.

use crate::codec::Few;

/// So many are looked up together. More gain nothing: a core has about as many loads under way.
const TOGETHER: usize = 16;

/// The keys, copied: what they were received in goes on.
#[derive(Debug, Default)]
pub(crate) struct Gets {
    bytes: Vec<u8>,
    ends: Few<usize>,
}

impl Gets {
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.ends.len() >= TOGETHER
    }

    pub(crate) fn keys(&self) -> Few<&[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end]).collect()
    }

    /// Empties it; what unusually long keys took is given back.
    pub(crate) fn clear(&mut self) {
        const KEPT_BYTES: usize = TOGETHER * 256;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.ends.clear();
    }
}
