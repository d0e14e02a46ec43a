//! The index: for each data block a separator and a length. Parsed once when the table is opened, held in memory.
//!
//! ```text
//! index := entry*                                                      // one for each data block, in file order
//! entry := key_len: varint | key: [u8; key_len] | seq: varint | length: varint
//! ```
//!
//! A separator `(key, seq)` is not before the last entry of its block and before the first entry of the next, in the
//! order of entries (key ascending, seq descending). Usually two blocks meet between two keys; then `key` is the
//! shortest that tells them apart and `seq` is 0, "below all versions". When versions of one key go on in the next
//! block, the separator is the last entry itself. So *one* block can hold the newest version as of some sequence
//! number, however many blocks the versions of that key fill.
//!
//! `length` is that of the stored block. The first block starts behind the header, each other where the one before
//! ends.

use super::Malformed;
use super::cut::Cut;
use super::footer::HEADER_BYTES;
use super::frame::{Handle, TRAILER_BYTES};
use crate::codec::cursor::Cursor;
use crate::codec::{SeqNo, varint};

use super::block::common_prefix;

/// An index in memory.
pub(super) struct Index {
    /// All separator keys, one behind the other.
    keys: Vec<u8>,
    blocks: Vec<IndexEntry>,
}

struct IndexEntry {
    offset: u64,
    seq: SeqNo,
    length: u32,
    /// Where the separator's key ends in `keys`; it starts where the one before ends.
    key_end: u32,
}

/// Appends the index entry of a block.
pub(super) fn put(out: &mut Vec<u8>, key: &[u8], seq: SeqNo, length: u32) {
    varint::put(out, key.len() as u64);
    out.extend_from_slice(key);
    varint::put(out, seq.0);
    varint::put(out, u64::from(length));
}

/// The separator between a block that ends with `last` and one that starts with the key `next` (`None` for the last
/// block).
pub(super) fn separator<'a>(last: (&'a [u8], SeqNo), next: Option<&'a [u8]>) -> (&'a [u8], SeqNo) {
    let (last_key, last_seq) = last;
    let Some(next) = next else { return (last_key, SeqNo(0)) };
    if next == last_key {
        return (last_key, last_seq);
    }
    // One byte more of the next key than it has in common with the last is above the last, and below the next if that
    // goes on.
    let len = common_prefix(last_key, next) + 1;
    if len < next.len() && len < last_key.len() { (&next[..len], SeqNo(0)) } else { (last_key, SeqNo(0)) }
}

impl Index {
    pub(super) fn decode(bytes: &[u8]) -> Result<Index, Malformed> {
        const MALFORMED: Malformed = Malformed("index is not made of entries");
        let mut cursor = Cursor::new(bytes);
        let mut index = Index { keys: Vec::new(), blocks: Vec::new() };
        let mut offset = HEADER_BYTES as u64;
        while !cursor.is_empty() {
            let key = cursor.prefixed().ok_or(MALFORMED)?;
            let seq = SeqNo(cursor.varint().ok_or(MALFORMED)?);
            let length = cursor.varint().and_then(|length| u32::try_from(length).ok()).ok_or(MALFORMED)?;
            if (length as usize) < TRAILER_BYTES {
                return Err(Malformed("index has a block without room for its checksum"));
            }
            index.keys.extend_from_slice(key);
            let key_end = u32::try_from(index.keys.len()).map_err(|_| MALFORMED)?;
            index.blocks.push(IndexEntry { offset, seq, length, key_end });
            offset = offset.checked_add(u64::from(length)).ok_or(MALFORMED)?;
        }
        index.keys.shrink_to_fit();
        index.blocks.shrink_to_fit();
        Ok(index)
    }

    /// How many data blocks there are.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Where the n-th data block is.
    pub(super) fn handle(&self, n: usize) -> Handle {
        Handle { offset: self.blocks[n].offset, length: self.blocks[n].length }
    }

    /// Where the data blocks end.
    pub(super) fn data_end(&self) -> u64 {
        self.blocks.last().map_or(HEADER_BYTES as u64, |block| block.offset + u64::from(block.length))
    }

    /// What separates the n-th block from the one behind it.
    pub(super) fn separator(&self, n: usize) -> (&[u8], SeqNo) {
        (self.key(n), self.blocks[n].seq)
    }

    fn key(&self, n: usize) -> &[u8] {
        let start = if n == 0 { 0 } else { self.blocks[n - 1].key_end };
        &self.keys[start as usize..self.blocks[n].key_end as usize]
    }

    /// How many blocks, from the first, have a separator `before` what is sought.
    #[inline]
    fn partition(&self, before: impl Fn(&[u8], SeqNo) -> bool) -> usize {
        let (mut low, mut high) = (0, self.blocks.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(self.key(middle), self.blocks[middle].seq) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The one block that can hold the newest version of `key` as of `as_of`.
    pub(super) fn find(&self, key: &[u8], as_of: SeqNo) -> Option<usize> {
        let n = self.partition(|separator, seq| separator < key || (separator == key && seq > as_of));
        (n < self.len()).then_some(n)
    }

    /// The first block that may have an entry behind the cut; `len()` if there is none. All blocks behind it have
    /// nothing before the cut.
    pub(super) fn block_at(&self, cut: &Cut) -> usize {
        self.partition(|separator, _| !cut.precedes(separator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_is_short_and_lies_between_its_blocks() {
        let last = |key: &'static str| (key.as_bytes(), SeqNo(7));
        let below = SeqNo(0);
        assert_eq!(separator(last("apple"), Some(b"cherry")), (&b"c"[..], below));
        assert_eq!(separator(last("user:101"), Some(b"user:2000")), (&b"user:2"[..], below));
        assert_eq!(separator(last("user:101"), Some(b"user:102")), (&b"user:101"[..], below), "user:102 is not below");
        assert_eq!(separator(last("a"), Some(b"ab")), (&b"a"[..], below));
        assert_eq!(separator(last("key"), Some(b"key")), (&b"key"[..], SeqNo(7)), "its versions go on");
        assert_eq!(separator(last("zebra"), None), (&b"zebra"[..], below));
    }

    #[test]
    fn versions_that_fill_many_blocks_are_found_in_one() {
        let mut bytes = Vec::new();
        for (key, seq) in [("a", 0), ("k", 90), ("k", 60), ("k", 30), ("m", 0)] {
            put(&mut bytes, key.as_bytes(), SeqNo(seq), 100);
        }
        let index = Index::decode(&bytes).unwrap();
        assert_eq!(index.data_end(), HEADER_BYTES as u64 + 500);
        let find = |key: &str, as_of| index.find(key.as_bytes(), SeqNo(as_of));
        assert_eq!(find("k", 100), Some(1));
        assert_eq!(find("k", 90), Some(1));
        assert_eq!(find("k", 89), Some(2));
        assert_eq!(find("k", 30), Some(3));
        assert_eq!(find("k", 29), Some(4));
        assert_eq!(find("z", 100), None);
        assert_eq!(index.block_at(&Cut::Before(b"k".to_vec())), 1);
        assert_eq!(index.block_at(&Cut::After(b"k".to_vec())), 4);
        assert_eq!(index.block_at(&Cut::End), 5);
    }

    #[test]
    fn every_prefix_that_cuts_an_entry_is_refused() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"key", SeqNo(5), 100);
        assert!(Index::decode(&bytes).is_ok());
        for cut in 1..bytes.len() {
            assert!(Index::decode(&bytes[..cut]).is_err());
        }
    }
}
