//! A data block: sorted entries whose keys share prefixes, with restart points to search by and tags to find by.
//!
//! ```text
//! block    := entries: u32 | shift: u8 | tag: u8 * entries | restart: u32 * restarts | entry * entries   // little-endian
//! tag      := the low eight bits of the hash of the entry's key
//! restart  := where an entry starts that shares nothing, in bytes from the block's start
//! restarts := entries / 2^shift, rounded up: the first entry is a restart point and every 2^shift-th after it
//! entry    := shared: varint | suffix_len: varint | value_len: varint | kind: u8 | seq: varint
//!             | [expires: u64] | suffix: [u8; suffix_len] | value: [u8; value_len]
//! kind     := 1 put | 2 put that expires: `expires` follows, milliseconds since 1970 | 3 tombstone
//!           | 6 as 1, 7 as 2, but the value is in a blob file: a `pointer` stands in its place
//! ```
//!
//! An entry's key is the first `shared` bytes of the key before it, then `suffix`. `shared` is *all* that the two have
//! in common, except at a restart point, where it is 0: a reader may conclude from it how two keys compare
//! ([`Block::find`] does).
//!
//! The tags are what a point read goes by. They stand in front, in the same cache line as the block's reference count,
//! which a reader touches anyway; a few vector instructions find the entries with the tag of the key, about one in 256
//! of the others among them, and only their restart intervals are looked at. A key that is not there costs nothing more
//! most of the time. A hash table with chained or marked collisions needs as much room, and more of it to be as exact.

use std::ops::Range;

use memchr::memchr;

use super::Malformed;
use super::cut::Cut;
use crate::codec::cursor::Cursor;
use crate::codec::hash::KeyHash;
use crate::codec::{SeqNo, Slice};
use crate::storage::{Kind, Version};

// The codes are those of a write batch in the log, in which 4 and 5 delete ranges; 6 is kept for a merge.
pub(super) const PUT: u8 = 1;
pub(super) const PUT_EXPIRING: u8 = 2;
pub(super) const TOMBSTONE: u8 = 3;
pub(super) const PUT_FAR: u8 = 6;
pub(super) const PUT_FAR_EXPIRING: u8 = 7;

/// What stands before the tags.
pub(super) const COUNT_BYTES: usize = size_of::<u32>() + size_of::<u8>();

/// The width of a restart offset.
pub(super) const RESTART_BYTES: usize = size_of::<u32>();

/// The most entries from one restart point to the next. A reader that goes backward holds the keys of a whole interval,
/// and this bounds what a block can ask of it.
pub(super) const MAX_INTERVAL: usize = 1 << MAX_SHIFT;
const MAX_SHIFT: u8 = 7;

/// A verified, decompressed data block. Cloning shares the bytes. Nothing of them is kept beside them: the cache holds
/// many blocks, and whoever looks into one begins where the counts are.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Slice,
}

/// What looking for a key in a run of entries came to.
enum Walk {
    Found(Entry),
    /// The key is there, in versions that are all too new.
    Newer,
    /// All entries are below the key.
    Below,
    /// An entry is above the key: it is not in this block from here on.
    Above,
}

/// One entry, as places in its block.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) shared: usize,
    pub(super) suffix: Range<usize>,
    /// The next entry starts where the value ends.
    pub(super) value: Range<usize>,
    pub(super) seq: SeqNo,
    pub(super) kind: Kind,
}

impl Block {
    pub(super) fn parse(bytes: Slice) -> Result<Block, Malformed> {
        let malformed = Malformed("block has no room for its tags and restart points");
        let (count, rest) = bytes.split_first_chunk::<4>().ok_or(malformed)?;
        let (&shift, _) = rest.split_first().ok_or(malformed)?;
        let entries = u32::from_le_bytes(*count) as usize;
        if entries == 0 {
            return Err(Malformed("block is empty"));
        }
        if shift > MAX_SHIFT {
            return Err(Malformed("restart points are too far apart"));
        }
        // Cannot overflow: an entry counts for one tag and at most one restart offset, and there are below 2^32.
        let head = COUNT_BYTES as u64 + entries as u64 + entries.div_ceil(1 << shift) as u64 * RESTART_BYTES as u64;
        if head >= bytes.len() as u64 {
            return Err(malformed);
        }
        let block = Block { bytes };
        // Every byte is accounted for: the head ends where the first entry starts.
        if block.restart(0) as u64 == head { Ok(block) } else { Err(Malformed("entries do not start behind the head")) }
    }

    /// How many entries there are; checked to have room for their tags.
    #[inline]
    pub(super) fn entries(&self) -> usize {
        let count = self.bytes.first_chunk().expect("checked when the block was parsed");
        u32::from_le_bytes(*count) as usize
    }

    #[inline]
    pub(super) fn shift(&self) -> u8 {
        self.bytes[COUNT_BYTES - 1]
    }

    #[inline]
    pub(super) fn tags(&self) -> &[u8] {
        &self.bytes[COUNT_BYTES..COUNT_BYTES + self.entries()]
    }

    /// A word of the front, where [`Block::find`] begins.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.shift())
    }

    /// A word of the first entry that [`Block::find`] will read.
    #[inline]
    pub(super) fn touch_tagged(&self, hash: KeyHash) -> u64 {
        let first = memchr(hash.tag(), self.tags());
        let start = first.map(|at| self.restart(at >> self.shift()));
        start.and_then(|start| self.bytes.get(start)).map_or(0, |&byte| byte.into())
    }

    /// The size of the block in memory.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where the last entry ends.
    pub(super) fn end(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn restarts(&self) -> usize {
        self.entries().div_ceil(1 << self.shift())
    }

    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.start..range.end]
    }

    /// A window into the block that keeps it alive.
    pub(super) fn slice(&self, range: &Range<usize>) -> Slice {
        self.bytes.slice(range.start, range.end)
    }

    /// Where the entry of the n-th restart point starts; for `restarts()`, where the entries end.
    #[inline]
    pub(super) fn restart(&self, n: usize) -> usize {
        if n == self.restarts() {
            return self.end();
        }
        let at = COUNT_BYTES + self.entries() + n * RESTART_BYTES;
        let offset = self.bytes[at..].first_chunk().expect("n is below the count that was checked");
        u32::from_le_bytes(*offset) as usize
    }

    /// The entry that starts at `at`. Its ranges lie within the block.
    #[inline]
    pub(super) fn entry_at(&self, at: usize) -> Result<Entry, Malformed> {
        Entry::decode(&self.bytes, at).ok_or(Malformed("entry does not fit its block"))
    }

    /// How many restart points, from the first, have an entry that is `before` what is sought.
    fn partition(&self, before: impl Fn(&[u8], SeqNo) -> bool) -> Result<usize, Malformed> {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry_at(self.restart(middle))?;
            if before(self.bytes(&entry.suffix), entry.seq) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// How many restart points have a key before the cut.
    pub(super) fn restarts_before(&self, cut: &Cut) -> Result<usize, Malformed> {
        self.partition(|key, _| !cut.precedes(key))
    }

    /// The newest version of `key` that is not newer than `as_of`, if it is in this block; `hash` is the hash of `key`.
    ///
    /// All versions of a key have its tag, and the newest of the block comes first: so the first interval with a tag
    /// and an entry of the key has the newest, and every older one is behind it.
    pub(super) fn find(self, key: &[u8], hash: KeyHash, as_of: SeqNo) -> Result<Option<Version>, Malformed> {
        let (tags, shift) = (self.tags(), self.shift());
        let mut from = 0;
        while let Some(at) = tags.get(from..).and_then(|rest| memchr(hash.tag(), rest)) {
            let interval = (from + at) >> shift;
            match self.walk(self.restart(interval), self.restart(interval + 1), key, as_of)? {
                Walk::Found(entry) => return Ok(Some(self.into_version(entry))),
                Walk::Above => return Ok(None),
                Walk::Newer => return Ok(self.search(key, as_of)?.map(|entry| self.into_version(entry))),
                Walk::Below => from = (interval + 1) << shift,
            }
        }
        Ok(None)
    }

    fn into_version(self, entry: Entry) -> Version {
        let value = self.bytes.into_slice(entry.value.start, entry.value.end);
        Version { seq: entry.seq, kind: entry.kind, value }
    }

    /// As [`Block::find`], by the order of entries: however many versions there are, few of them are looked at.
    fn search(&self, key: &[u8], as_of: SeqNo) -> Result<Option<Entry>, Malformed> {
        let not_after = |k: &[u8], seq| k < key || (k == key && seq >= as_of);
        let start = self.restart(self.partition(not_after)?.saturating_sub(1));
        match self.walk(start, self.end(), key, as_of)? {
            Walk::Found(entry) => Ok(Some(entry)),
            Walk::Newer | Walk::Below | Walk::Above => Ok(None),
        }
    }

    /// Looks for the newest version of `key` as of `as_of` among the entries from the restart point at `at` to `end`.
    ///
    /// No key is put together on the way. While the entries seen are below `key`, `matched` is how many bytes the last
    /// of them has in common with it. An entry that shares more with its predecessor than that is below `key` for the
    /// same byte; one that shares less is above it; only one that shares exactly as much has to be compared, from
    /// there on.
    #[inline]
    fn walk(&self, mut at: usize, end: usize, key: &[u8], as_of: SeqNo) -> Result<Walk, Malformed> {
        let (mut matched, mut previous_len) = (0, 0);
        let mut result = Walk::Below;
        while at < end {
            let entry = self.entry_at(at)?;
            if entry.shared > previous_len {
                return Err(Malformed("entry shares more than there is"));
            }
            previous_len = entry.shared + entry.suffix.len();
            // Sharing nothing may only mean that this is a restart point.
            if entry.shared == matched || entry.shared == 0 {
                let (suffix, rest) = (self.bytes(&entry.suffix), &key[entry.shared..]);
                let common = common_prefix(suffix, rest);
                matched = entry.shared + common;
                match (suffix.get(common), rest.get(common)) {
                    (None, None) if entry.seq <= as_of => return Ok(Walk::Found(entry)),
                    (None, None) => result = Walk::Newer,
                    (None, Some(_)) => {}
                    (Some(_), None) => return Ok(Walk::Above),
                    (Some(ours), Some(sought)) if ours > sought => return Ok(Walk::Above),
                    (Some(_), Some(_)) => {}
                }
            } else if entry.shared < matched {
                return Ok(Walk::Above);
            }
            at = entry.value.end;
        }
        Ok(result)
    }
}

impl Entry {
    /// Stands where an iterator is before its first entry.
    pub(super) fn none() -> Entry {
        Entry { shared: 0, suffix: 0..0, value: 0..0, seq: SeqNo(0), kind: Kind::Tombstone }
    }

    #[inline]
    fn decode(entries: &[u8], at: usize) -> Option<Entry> {
        let mut cursor = Cursor::new(entries.get(at..)?);
        let shared = usize::try_from(cursor.varint()?).ok()?;
        let suffix_len = usize::try_from(cursor.varint()?).ok()?;
        let value_len = usize::try_from(cursor.varint()?).ok()?;
        let kind = cursor.u8()?;
        let seq = SeqNo(cursor.varint()?);
        let kind = match kind {
            PUT => Kind::Put { expires_at: None },
            PUT_EXPIRING => Kind::Put { expires_at: Some(cursor.u64()?) },
            PUT_FAR => Kind::PutFar { expires_at: None },
            PUT_FAR_EXPIRING => Kind::PutFar { expires_at: Some(cursor.u64()?) },
            TOMBSTONE => Kind::Tombstone,
            _ => return None,
        };
        let start = entries.len() - cursor.rest().len();
        let suffix_end = start.checked_add(suffix_len)?;
        let value_end = suffix_end.checked_add(value_len)?;
        if value_end > entries.len() {
            return None;
        }
        Some(Entry { shared, suffix: start..suffix_end, value: suffix_end..value_end, seq, kind })
    }
}

/// How many bytes `a` and `b` have in common from the front.
#[inline]
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let mut at = 0;
    // Eight bytes at a time: the lowest differing bit, read little-endian, lies in the first differing byte.
    while let (Some(x), Some(y)) = (a[at..].first_chunk::<WORD>(), b[at..].first_chunk::<WORD>()) {
        let difference = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if difference != 0 {
            return at + difference.trailing_zeros() as usize / 8;
        }
        at += WORD;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    use super::*;
    use crate::storage::sstable::block_builder::BlockBuilder;

    const PLAIN: Kind = Kind::Put { expires_at: None };

    fn block(entries: &[(&[u8], u64)]) -> Block {
        let mut builder = BlockBuilder::default();
        let mut last: &[u8] = b"";
        for &(key, seq) in entries {
            builder.add(
                key,
                KeyHash::of(key),
                common_prefix(last, key),
                SeqNo(seq),
                PLAIN,
                format!("{seq}").as_bytes(),
            );
            last = key;
        }
        Block::parse(Slice::copy_from(builder.finish())).unwrap()
    }

    fn find(block: &Block, key: &[u8], as_of: u64) -> Option<u64> {
        let found = block.clone().find(key, KeyHash::of(key), SeqNo(as_of)).unwrap()?;
        assert_eq!(&*found.value, format!("{}", found.seq).as_bytes());
        Some(found.seq.0)
    }

    #[test]
    fn finds_the_newest_version_as_of_every_sequence_number() {
        // 60 keys of 1 to 3 versions, more than three restart intervals, with keys that are prefixes of others.
        let mut entries = Vec::new();
        for n in 0..60u64 {
            let key = format!("{}{}", "k".repeat(n as usize % 5 + 1), n);
            for version in 0..=n % 3 {
                entries.push((key.clone().into_bytes(), n * 10 + version * 2));
            }
        }
        entries.sort_by(|a, b| (&a.0, std::cmp::Reverse(a.1)).cmp(&(&b.0, std::cmp::Reverse(b.1))));
        let borrowed: Vec<(&[u8], u64)> = entries.iter().map(|(key, seq)| (&key[..], *seq)).collect();
        let block = block(&borrowed);
        let mut sought: Vec<Vec<u8>> = entries.iter().map(|(key, _)| key.clone()).collect();
        sought.extend(entries.iter().map(|(key, _)| [key, &b"x"[..]].concat()));
        sought.extend(entries.iter().map(|(key, _)| key[..key.len() - 1].to_vec()));
        for key in &sought {
            for as_of in 0..=610 {
                let expected = entries.iter().filter(|(k, seq)| k == key && *seq <= as_of).map(|(_, seq)| *seq).max();
                assert_eq!(find(&block, key, as_of), expected, "{} as of {as_of}", key.escape_ascii());
            }
        }
    }

    /// Keys whose hashes have the tag of `key`'s.
    fn same_tag(key: &[u8], count: usize) -> Vec<Vec<u8>> {
        let named = (0u64..).map(|n| format!("{n:08}").into_bytes());
        named.filter(|other| KeyHash::of(other).tag() == KeyHash::of(key).tag()).take(count).collect()
    }

    #[test]
    fn keys_of_one_tag_are_told_apart_and_from_those_that_are_not_there() {
        let keys = same_tag(b"any", 60);
        // Every other one is there; all others pass every tag.
        let entries: Vec<(&[u8], u64)> = keys.iter().step_by(2).map(|key| (&key[..], 9)).collect();
        let block = block(&entries);
        assert!(block.tags().iter().all(|&tag| tag == KeyHash::of(b"any").tag()));
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(find(&block, key, 9), (n % 2 == 0).then_some(9));
            assert_eq!(find(&block, key, 8), None);
        }
        assert_eq!(find(&block, b"any", 9), None);
    }

    #[test]
    fn versions_over_many_restart_points_are_each_found_as_of_their_time() {
        // Neighbours with the tag of the hot key, below and above it.
        let neighbours = same_tag(b"00000100.", 6);
        let mut entries: Vec<(&[u8], u64)> = neighbours.iter().map(|key| (&key[..], 5)).collect();
        entries.extend((1..=100).rev().map(|n| (&b"00000100."[..], 10 * n)));
        entries.sort_by(|a, b| a.0.cmp(b.0));
        let block = block(&entries);
        assert!(block.restarts() > 20);
        for as_of in 0..1010 {
            let expected = (as_of >= 10).then_some(as_of / 10 * 10).map(|seq| seq.min(1000));
            assert_eq!(find(&block, b"00000100.", as_of), expected, "as of {as_of}");
        }
        assert!(neighbours.iter().all(|key| find(&block, key, 5) == Some(5)));
    }

    #[test]
    fn a_key_without_a_tag_is_not_looked_for() {
        let mut bytes = block(&[(b"aa", 1), (b"ab", 1)]).bytes.to_vec();
        // Entries that no reader can decode: only a look at them fails.
        let entries = bytes.len() - 6;
        bytes[entries..].fill(0xff);
        let block = Block::parse(Slice::from(bytes)).unwrap();
        let other = KeyHash(!KeyHash::of(b"aa").0);
        assert!(!block.tags().contains(&other.tag()));
        assert_eq!(block.clone().find(b"aa", other, SeqNo::MAX), Ok(None));
        assert!(block.find(b"ab", KeyHash::of(b"ab"), SeqNo::MAX).is_err());
    }

    proptest::proptest! {
        #[test]
        fn finds_what_a_map_has(
            versions in proptest::collection::btree_set((proptest::collection::vec(0u8..3, 1..7), 1u64..40), 1..200),
            sought in proptest::collection::vec((proptest::collection::vec(0u8..3, 0..8), 0u64..45), 50),
        ) {
            let sorted: BTreeMap<(Vec<u8>, Reverse<u64>), ()> =
                versions.iter().map(|(key, seq)| ((key.clone(), Reverse(*seq)), ())).collect();
            let entries: Vec<(&[u8], u64)> = sorted.keys().map(|(key, Reverse(seq))| (&key[..], *seq)).collect();
            let block = block(&entries);
            for (key, as_of) in versions.iter().chain(&sought) {
                let from = (key.clone(), Reverse(*as_of));
                let expected = sorted.range(from..).next().filter(|((found, _), ())| found == key);
                assert_eq!(find(&block, key, *as_of), expected.map(|((_, Reverse(seq)), ())| *seq));
            }
        }
    }

    #[test]
    fn a_head_that_does_not_fit_is_refused() {
        let good = block(&[(b"aa", 3), (b"b", 1)]).bytes;
        for len in 0..COUNT_BYTES + 2 + RESTART_BYTES + 1 {
            assert!(Block::parse(good.slice(0, len)).is_err(), "{len} bytes");
        }
        for (at, byte) in [(0, 0), (0, 1), (0, 3), (3, 0xff), (COUNT_BYTES - 1, 8), (COUNT_BYTES + 2, 0)] {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            assert!(Block::parse(Slice::from(bytes)).is_err(), "byte {at} is {byte}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Two restart intervals.
        let good = block(&[(b"aa", 3), (b"aab", 2), (b"b", 1), (b"zy", 7), (b"zz", 5), (b"zz", 4)]).bytes;
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.to_vec();
                bytes[at] = byte;
                let Ok(block) = Block::parse(Slice::from(bytes)) else { continue };
                for key in [&b"a"[..], b"aab", b"zz"] {
                    for as_of in [SeqNo::MAX, SeqNo(4)] {
                        let _ = block.clone().find(key, KeyHash::of(key), as_of);
                        let _ = block.clone().find(key, KeyHash(u64::from(byte)), as_of);
                    }
                    let _ = block.restarts_before(&Cut::After(key.to_vec()));
                }
            }
        }
    }

    #[test]
    fn common_prefix_counts_bytes_at_every_place() {
        for len in 0..40 {
            let a = vec![7; 40];
            let mut b = a.clone();
            b[len] = 8;
            assert_eq!(common_prefix(&a, &b), len);
            assert_eq!(common_prefix(&a, &a[..len]), len);
        }
    }
}
