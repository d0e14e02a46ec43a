//! A data block: sorted entries whose keys share prefixes, with restart points to search by.
//!
//! ```text
//! block    := entry+ | restart: u32 * restarts | restarts: u32                          // little-endian
//! entry    := shared: varint | suffix_len: varint | value_len: varint | kind: u8 | seq: varint
//!             | [expires: u64] | suffix: [u8; suffix_len] | value: [u8; value_len]
//! kind     := 1 put | 2 put that expires: `expires` follows, milliseconds since 1970 | 3 tombstone
//! restart  := where an entry starts that shares nothing, in bytes from the block's start; the first is 0
//! ```
//!
//! An entry's key is the first `shared` bytes of the key before it, then `suffix`. `shared` is *all* that the two have
//! in common, except at a restart point, where it is 0: a reader may conclude from it how two keys compare
//! ([`Block::find`] does).

use std::ops::Range;

use super::Malformed;
use super::cut::Cut;
use crate::codec::cursor::Cursor;
use crate::codec::{SeqNo, Slice};
use crate::storage::{Kind, Version};

// The codes are those of a write batch in the log; 4 and 5 are kept for a range tombstone and a merge.
pub(super) const PUT: u8 = 1;
pub(super) const PUT_EXPIRING: u8 = 2;
pub(super) const TOMBSTONE: u8 = 3;

/// The width of a restart offset and of their count.
pub(super) const RESTART_BYTES: usize = 4;

/// A verified, decompressed data block. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Slice,
    /// Where the entries end and the restart offsets begin.
    entries_end: usize,
    restarts: usize,
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
        let malformed = Malformed("block has no room for its restart points");
        let (rest, count) = bytes.split_last_chunk::<RESTART_BYTES>().ok_or(malformed)?;
        let restarts = u32::from_le_bytes(*count) as usize;
        let table = restarts.checked_mul(RESTART_BYTES).ok_or(malformed)?;
        let entries_end = rest.len().checked_sub(table).ok_or(malformed)?;
        if restarts == 0 || entries_end == 0 {
            return Err(Malformed("block is empty"));
        }
        Ok(Block { bytes, entries_end, restarts })
    }

    /// The size of the block in memory.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn entries_end(&self) -> usize {
        self.entries_end
    }

    pub(super) fn restarts(&self) -> usize {
        self.restarts
    }

    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.start..range.end]
    }

    /// A window into the block that keeps it alive.
    pub(super) fn slice(&self, range: &Range<usize>) -> Slice {
        self.bytes.slice(range.start, range.end)
    }

    /// Where the entry of the n-th restart point starts; for `restarts()`, where the entries end.
    pub(super) fn restart(&self, n: usize) -> usize {
        if n == self.restarts {
            return self.entries_end;
        }
        let at = self.entries_end + n * RESTART_BYTES;
        let offset = self.bytes[at..].first_chunk().expect("n is below the count that was checked");
        u32::from_le_bytes(*offset) as usize
    }

    /// The entry that starts at `at`. Its ranges lie within the block.
    #[inline]
    pub(super) fn entry_at(&self, at: usize) -> Result<Entry, Malformed> {
        Entry::decode(&self.bytes[..self.entries_end], at).ok_or(Malformed("entry does not fit its block"))
    }

    /// How many restart points, from the first, have an entry that is `before` what is sought.
    fn partition(&self, before: impl Fn(&[u8], SeqNo) -> bool) -> Result<usize, Malformed> {
        let (mut low, mut high) = (0, self.restarts);
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

    /// The newest version of `key` that is not newer than `as_of`, if it is in this block.
    ///
    /// No key is put together on the way. While the entries seen are below `key`, `matched` is how many bytes the last
    /// of them has in common with it. An entry that shares more with its predecessor than that is below `key` for the
    /// same byte; one that shares less is above it; only one that shares exactly as much has to be compared, from
    /// there on.
    pub(super) fn find(&self, key: &[u8], as_of: SeqNo) -> Result<Option<Version>, Malformed> {
        let not_after = |k: &[u8], seq| k < key || (k == key && seq >= as_of);
        let mut at = self.restart(self.partition(not_after)?.saturating_sub(1));
        let (mut matched, mut previous_len) = (0, 0);
        while at < self.entries_end {
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
                    (None, None) if entry.seq <= as_of => {
                        let value = self.slice(&entry.value);
                        return Ok(Some(Version { seq: entry.seq, kind: entry.kind, value }));
                    }
                    (None, _) => {}
                    (Some(_), None) => return Ok(None),
                    (Some(ours), Some(sought)) if ours > sought => return Ok(None),
                    (Some(_), Some(_)) => {}
                }
            } else if entry.shared < matched {
                return Ok(None);
            }
            at = entry.value.end;
        }
        Ok(None)
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
    use super::*;
    use crate::storage::sstable::block_builder::BlockBuilder;

    const PLAIN: Kind = Kind::Put { expires_at: None };

    fn block(entries: &[(&[u8], u64)]) -> Block {
        let mut builder = BlockBuilder::default();
        let mut last: &[u8] = b"";
        for &(key, seq) in entries {
            builder.add(key, common_prefix(last, key), SeqNo(seq), PLAIN, format!("{seq}").as_bytes());
            last = key;
        }
        Block::parse(Slice::copy_from(builder.finish())).unwrap()
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
                let found = block.find(key, SeqNo(as_of)).unwrap();
                assert_eq!(found.map(|version| version.seq.0), expected, "{} as of {as_of}", key.escape_ascii());
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = block(&[(b"aa", 3), (b"aab", 2), (b"b", 1)]).bytes;
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.to_vec();
                bytes[at] = byte;
                let Ok(block) = Block::parse(Slice::from(bytes)) else { continue };
                for key in [&b"a"[..], b"aab", b"zz"] {
                    let _ = block.find(key, SeqNo::MAX);
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
