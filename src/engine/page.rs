//! A page of a scan: entries copied out of a memtable under one lock, into memory that is used again for the next page.

use super::SeqNo;
use super::records::{Record, Stored};
use crate::codec::Slice;
use crate::storage::Kind;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    seq: SeqNo,
    kind: Kind,
    /// The key starts where the entry before ends.
    key_end: usize,
    end: usize,
    /// The value, if it is shared instead of copied.
    large: Option<Slice>,
}

impl Page {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push(&mut self, record: &Record<'_>) {
        self.bytes.extend_from_slice(record.key);
        let key_end = self.bytes.len();
        let large = match record.value {
            Stored::Inline(value) => {
                self.bytes.extend_from_slice(value);
                None
            }
            Stored::Large(value) => Some(value.clone()),
        };
        self.entries.push(Entry { seq: record.seq, kind: record.kind, key_end, end: self.bytes.len(), large });
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.entries[before].end);
        &self.bytes[start..self.entries[at].key_end]
    }

    pub(super) fn seq(&self, at: usize) -> SeqNo {
        self.entries[at].seq
    }

    pub(super) fn kind(&self, at: usize) -> Kind {
        self.entries[at].kind
    }

    pub(super) fn value(&self, at: usize) -> Slice {
        let shared = self.entries[at].large.clone();
        shared.unwrap_or_else(|| Slice::copy_from(self.value_bytes(at)))
    }

    pub(super) fn value_bytes(&self, at: usize) -> &[u8] {
        let Entry { key_end, end, large, .. } = &self.entries[at];
        large.as_deref().unwrap_or(&self.bytes[*key_end..*end])
    }
}
