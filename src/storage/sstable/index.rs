//! An index: for each of a run of stored blocks a separator and a length. Parsed when it is read, held in memory. The
//! blocks are the data blocks of a partition, or, in the top, the partitions.
//!
//! ```text
//! index := entry*                                                           // one for each block, in file order
//! entry := key_len: varint | key: [u8; key_len] | seq: varint | length: varint
//! ```
//!
//! A separator `(key, seq)` is not before the last entry of its block and before the first entry of the next, in the
//! order of entries (key ascending, seq descending). Usually two blocks meet between two keys; then `key` is the
//! shortest that tells them apart and `seq` is 0, "below all versions". When versions of one key go on in the next
//! block, the separator is the last entry itself. So *one* block can hold the newest version as of some sequence
//! number, however many blocks the versions of that key fill.
//!
//! `length` is that of the stored block. Where the first block starts is told beside the index, each other starts where
//! the one before ends.
//!
//! In memory a search goes over the *heads* of the separators: what all of them begin with is set aside, and the next
//! eight bytes of each stand as one number in one array. Numbers order as keys do, as far as they differ; only among
//! separators with the head of what is sought are whole keys compared. A second array with every 16th head is small
//! enough to stay in the processor's cache: a search leaves it for two cache lines of the first.

use super::Malformed;
use super::cut::Cut;
use crate::codec::cursor::Cursor;
use crate::codec::defect::{Defect, seeded};
use crate::codec::{SeqNo, varint};
use crate::storage::frame::{Handle, TRAILER_BYTES};

use super::block::common_prefix;

/// An index in memory.
pub(super) struct Index {
    /// Where the first block starts.
    start: u64,
    /// The longest prefix that all separator keys share.
    prefix: Vec<u8>,
    /// The head of each separator.
    heads: Vec<u64>,
    /// The last of every whole [`GROUP`] of heads.
    group_ends: Vec<u64>,
    /// All separator keys, one behind the other.
    keys: Vec<u8>,
    blocks: Vec<IndexEntry>,
}

/// Heads that are searched together: two cache lines, which a processor likes to fetch as a pair.
const GROUP: usize = 16;

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
    if seeded(Defect::SeparatorTooSmall) && len <= last_key.len() {
        return (&last_key[..len], SeqNo(0));
    }
    if len < next.len() && len < last_key.len() { (&next[..len], SeqNo(0)) } else { (last_key, SeqNo(0)) }
}

impl Index {
    fn empty(start: u64) -> Index {
        let (prefix, heads, group_ends, keys, blocks) = Default::default();
        Index { start, prefix, heads, group_ends, keys, blocks }
    }

    /// The index of blocks of which the first starts at `start`.
    pub(super) fn decode(bytes: &[u8], start: u64) -> Result<Index, Malformed> {
        const MALFORMED: Malformed = Malformed("index is not made of entries");
        let mut cursor = Cursor::new(bytes);
        let mut index = Index::empty(start);
        let mut offset = start;
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
        if let Some(last) = index.len().checked_sub(1) {
            // What the first and the last share, all between them share: separators ascend.
            let shared = common_prefix(index.key(0), index.key(last));
            index.prefix = index.key(0)[..shared].to_vec();
            index.heads = (0..index.len()).map(|n| head(index.key(n).get(shared..).unwrap_or_default())).collect();
            index.group_ends = index.heads.chunks_exact(GROUP).map(|group| group[GROUP - 1]).collect();
        }
        Ok(index)
    }

    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Where the n-th block is.
    pub(super) fn handle(&self, n: usize) -> Handle {
        Handle { offset: self.blocks[n].offset, length: self.blocks[n].length }
    }

    /// Where the first block starts.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Where the last block ends.
    pub(super) fn end(&self) -> u64 {
        self.blocks.last().map_or(self.start, |block| block.offset + u64::from(block.length))
    }

    /// What it takes in memory, besides itself.
    pub(super) fn bytes(&self) -> usize {
        let heads = (self.heads.capacity() + self.group_ends.capacity()) * size_of::<u64>();
        self.prefix.capacity() + heads + self.keys.capacity() + self.blocks.capacity() * size_of::<IndexEntry>()
    }

    /// What separates the n-th block from the one behind it.
    pub(super) fn separator(&self, n: usize) -> (&[u8], SeqNo) {
        (self.key(n), self.blocks[n].seq)
    }

    fn key(&self, n: usize) -> &[u8] {
        let start = if n == 0 { 0 } else { self.blocks[n - 1].key_end };
        &self.keys[start as usize..self.blocks[n].key_end as usize]
    }

    /// How many blocks, from the first, have a separator `before` what is sought. `key` is the key that is sought:
    /// every separator key below it is before, none above it is.
    #[inline]
    fn partition(&self, key: &[u8], before: impl Fn(&[u8], SeqNo) -> bool) -> usize {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            return if key < &self.prefix[..] { 0 } else { self.len() };
        };
        let sought = head(rest);
        let (start, group) = self.group(sought);
        let mut low = start + group.partition_point(|&head| head < sought);
        if self.heads.get(low) != Some(&sought) {
            return low;
        }
        let mut high = low + self.heads[low..].partition_point(|&head| head == sought);
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

    /// The heads among which the first is that is not below `sought`, or behind which it is, and where they start.
    #[inline]
    fn group(&self, sought: u64) -> (usize, &[u64]) {
        // Whole groups whose last head is below are below.
        let start = self.group_ends.partition_point(|&head| head < sought) * GROUP;
        (start, &self.heads[start..self.heads.len().min(start + GROUP)])
    }

    /// Words of what [`Index::find`] will read, one of each cache line.
    #[inline]
    pub(super) fn touch(&self, key: &[u8]) -> u64 {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else { return 0 };
        let (_, group) = self.group(head(rest));
        group.iter().step_by(GROUP / 2).fold(0, |all, head| all ^ head)
    }

    /// The one block that can hold the newest version of `key` as of `as_of`.
    #[inline]
    pub(super) fn find(&self, key: &[u8], as_of: SeqNo) -> Option<usize> {
        let n = self.partition(key, |separator, seq| separator < key || (separator == key && seq > as_of));
        (n < self.len()).then_some(n)
    }

    /// The first block that may have an entry behind the cut; `len()` if there is none. All blocks behind it have
    /// nothing before the cut.
    pub(super) fn block_at(&self, cut: &Cut) -> usize {
        match cut {
            Cut::Before(key) | Cut::After(key) => self.partition(key, |separator, _| !cut.precedes(separator)),
            Cut::End => self.len(),
        }
    }
}

/// The first eight bytes as a number that orders as they do, with zeros where there are fewer: of two numbers that
/// differ, the smaller one belongs to the smaller key.
#[inline]
fn head(bytes: &[u8]) -> u64 {
    const LEN: usize = size_of::<u64>();
    let mut head = [0; LEN];
    match bytes.first_chunk::<LEN>() {
        Some(chunk) => head = *chunk,
        None => head[..bytes.len()].copy_from_slice(bytes),
    }
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;
    use crate::codec::Rng;
    use crate::storage::testing::few_bytes;

    const START: u64 = 16;

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
        let index = Index::decode(&bytes, START).unwrap();
        assert_eq!(index.end(), START + 500);
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

    /// Against whole keys compared one by one: separators in many groups, few and many with equal heads, a shared
    /// prefix or none, keys that are prefixes of others, zeros at their ends.
    #[test]
    fn a_search_over_heads_agrees_with_one_over_keys() {
        let rng = &mut Rng::new(3);
        for round in 0..200 {
            let prefix = &b"prefix:\0:longer than a head"[..round % 28];
            let width = [1, 3, 9, 14][round / 28 % 4];
            let random_key = |rng: &mut Rng| {
                let len = rng.below(width) as usize + 1;
                [prefix, &few_bytes(rng, len), &[0; 2][..rng.below(3) as usize]].concat()
            };
            let mut separators: Vec<(Vec<u8>, Reverse<u64>)> =
                (0..rng.below(150)).map(|_| (random_key(rng), Reverse(rng.below(3)))).collect();
            separators.sort();
            separators.dedup();
            let mut bytes = Vec::new();
            separators.iter().for_each(|(key, seq)| put(&mut bytes, key, SeqNo(seq.0), 100));
            let index = Index::decode(&bytes, START).unwrap();
            let mut keys: Vec<Vec<u8>> = (0..50).map(|_| random_key(rng)).collect();
            keys.extend(separators.iter().map(|(key, _)| key.clone()));
            keys.extend([vec![], prefix[..prefix.len() / 2].to_vec(), b"prefix;".to_vec(), vec![0xff]]);
            for key in keys {
                for as_of in 0..4 {
                    let first = separators.iter().position(|separator| *separator >= (key.clone(), Reverse(as_of)));
                    assert_eq!(index.find(&key, SeqNo(as_of)), first, "{key:?} as of {as_of}");
                }
                for cut in [Cut::Before(key.clone()), Cut::After(key)] {
                    let first = separators.iter().position(|(separator, _)| cut.precedes(separator));
                    assert_eq!(index.block_at(&cut), first.unwrap_or(separators.len()), "{cut:?}");
                }
            }
        }
    }

    #[test]
    fn every_prefix_that_cuts_an_entry_is_refused() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"key", SeqNo(5), 100);
        assert!(Index::decode(&bytes, START).is_ok());
        for cut in 1..bytes.len() {
            assert!(Index::decode(&bytes[..cut], START).is_err());
        }
    }

    #[test]
    fn a_separator_is_before_what_follows_it_however_short_that_is() {
        assert_eq!(separator((b"apple", SeqNo(7)), Some(b"b")), (&b"apple"[..], SeqNo(0)));
        assert_eq!(separator((b"apple", SeqNo(7)), Some(b"applf")), (&b"apple"[..], SeqNo(0)));
    }

    #[test]
    fn a_block_has_room_for_its_checksum_at_least() {
        for (length, is_whole) in [(0, false), (4, false), (5, true), (6, true)] {
            let mut bytes = Vec::new();
            put(&mut bytes, b"key", SeqNo(1), length);
            assert_eq!(Index::decode(&bytes, START).is_ok(), is_whole, "{length} bytes");
        }
    }
}
