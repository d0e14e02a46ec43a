//! What is known of a table without reading it: counts and ranges, for picking compactions and for skipping tables.
//!
//! ```text
//! properties := entries: u64 | tombstones: u64 | expiring: u64 | earliest_expiry: u64 | older_versions: u64
//!               | smallest_seq: u64 | largest_seq: u64 | key_bytes: u64 | value_bytes: u64
//!               | data_blocks: u64 | data_bytes: u64 | range_tombstones: u64
//!               | smallest_key: bytes | largest_key: bytes                                      // little-endian
//! bytes      := length: varint | length bytes
//! ```

use super::Malformed;
use crate::codec::cursor::Cursor;
use crate::codec::{SeqNo, varint};
use crate::storage::{Fragment, Kind};

/// The properties of a table. Keys are those of entries: empty if there are none. Sequence numbers are also those of range
/// tombstones; without either they are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Entries of all kinds.
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// Entries that expire.
    pub(crate) expiring: u64,
    /// The first of them, in milliseconds since 1970; 0 if nothing expires.
    pub(crate) earliest_expiry: u64,
    /// Entries whose user key is also that of the entry before: what compaction may drop.
    pub(crate) older_versions: u64,
    pub(crate) smallest_seq: SeqNo,
    pub(crate) largest_seq: SeqNo,
    /// All user keys together, before prefixes are shared.
    pub(crate) key_bytes: u64,
    /// All values together, before compression; of those in blob files only the pointers.
    pub(crate) value_bytes: u64,
    pub(crate) data_blocks: u64,
    /// All data blocks together, as stored.
    pub(crate) data_bytes: u64,
    /// Of each fragment all.
    pub(crate) range_tombstones: u64,
    pub(crate) smallest_key: Vec<u8>,
    pub(crate) largest_key: Vec<u8>,
}

impl Properties {
    /// Counts an entry; smallest and largest key are left to the writer.
    #[inline]
    pub(super) fn count(&mut self, key: &[u8], seq: SeqNo, kind: Kind, value: &[u8], older_version: bool) {
        self.count_seq(seq);
        self.entries += 1;
        self.older_versions += u64::from(older_version);
        self.key_bytes += key.len() as u64;
        self.value_bytes += value.len() as u64;
        match kind {
            Kind::Put { expires_at: None } | Kind::PutFar { expires_at: None } => {}
            Kind::Put { expires_at: Some(at) } | Kind::PutFar { expires_at: Some(at) } => {
                self.earliest_expiry = if self.expiring == 0 { at } else { self.earliest_expiry.min(at) };
                self.expiring += 1;
            }
            Kind::Tombstone => self.tombstones += 1,
        }
    }

    /// Counts the range tombstones over a fragment.
    pub(super) fn count_ranges(&mut self, fragment: &Fragment) {
        for seq in &fragment.seqs {
            self.count_seq(*seq);
            self.range_tombstones += 1;
        }
    }

    #[inline]
    fn count_seq(&mut self, seq: SeqNo) {
        let first = self.entries == 0 && self.range_tombstones == 0;
        self.smallest_seq = if first { seq } else { self.smallest_seq.min(seq) };
        self.largest_seq = self.largest_seq.max(seq);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [
            self.entries,
            self.tombstones,
            self.expiring,
            self.earliest_expiry,
            self.older_versions,
            self.smallest_seq.0,
            self.largest_seq.0,
            self.key_bytes,
            self.value_bytes,
            self.data_blocks,
            self.data_bytes,
            self.range_tombstones,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for key in [&self.smallest_key, &self.largest_key] {
            varint::put(&mut bytes, key.len() as u64);
            bytes.extend_from_slice(key);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Properties, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let properties = Properties::read(&mut cursor).filter(|_| cursor.is_empty());
        properties.ok_or(Malformed("properties have the wrong length"))
    }

    fn read(cursor: &mut Cursor<'_>) -> Option<Properties> {
        // The fields of a struct expression are evaluated as they are written: in the order of the grammar.
        Some(Properties {
            entries: cursor.u64()?,
            tombstones: cursor.u64()?,
            expiring: cursor.u64()?,
            earliest_expiry: cursor.u64()?,
            older_versions: cursor.u64()?,
            smallest_seq: SeqNo(cursor.u64()?),
            largest_seq: SeqNo(cursor.u64()?),
            key_bytes: cursor.u64()?,
            value_bytes: cursor.u64()?,
            data_blocks: cursor.u64()?,
            data_bytes: cursor.u64()?,
            range_tombstones: cursor.u64()?,
            smallest_key: cursor.prefixed()?.to_vec(),
            largest_key: cursor.prefixed()?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_comes_back() {
        let mut properties = Properties::default();
        properties.count(b"a", SeqNo(9), Kind::Put { expires_at: Some(500) }, b"12", false);
        properties.count(b"a", SeqNo(7), Kind::Put { expires_at: Some(400) }, b"1", true);
        properties.count(b"bb", SeqNo(8), Kind::Tombstone, b"", false);
        properties.largest_key = b"bb".to_vec();
        assert_eq!((properties.entries, properties.tombstones, properties.older_versions), (3, 1, 1));
        assert_eq!((properties.expiring, properties.earliest_expiry), (2, 400));
        assert_eq!((properties.smallest_seq, properties.largest_seq), (SeqNo(7), SeqNo(9)));
        assert_eq!((properties.key_bytes, properties.value_bytes), (4, 3));
        let bytes = properties.encode();
        assert_eq!(Properties::decode(&bytes), Ok(properties));
        for cut in 0..bytes.len() {
            assert!(Properties::decode(&bytes[..cut]).is_err());
        }
        assert!(Properties::decode(&[&bytes[..], b"x"].concat()).is_err());
    }
}
