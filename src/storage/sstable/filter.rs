//! A Bloom filter over the user keys of a partition: answers "surely not here" or "maybe here".
//!
//! ```text
//! filter := line* | probes: u8                    // no lines: no filter, everything is "maybe"
//! line   := word: u64 * 8                         // one cache line, little-endian
//! ```
//!
//! All bits of a key lie in one line of 512 bits, so a question costs one cache miss. A plain Bloom filter spreads them
//! over all of memory for a slightly lower false positive rate: 0.8 % instead of 1.05 % at 10 bits a key. With `h` the
//! key's hash, its line is `(h >> 32) * lines >> 32`; its bits come from the low half `g`: `probes` times, the bit is
//! the top 9 bits of `g` and then `g *= 0x9E3779B9 mod 2^32`. (The scheme of RocksDB's `FastLocalBloom`.)

use super::Malformed;
use crate::codec::hash::KeyHash;

const WORDS: usize = 8;
const LINE_BYTES: usize = WORDS * size_of::<u64>();
const LINE_BITS: u64 = LINE_BYTES as u64 * 8;

/// The bits of `g` that choose a bit of the line, from the top.
const BIT_SHIFT: u32 = u32::BITS - LINE_BITS.trailing_zeros();

/// Odd, and near 2^32 / golden ratio: successive products spread evenly.
const MULTIPLIER: u32 = 0x9E37_79B9;

/// Beyond this, more probes cost time and gain nothing at any size one would choose.
const MAX_PROBES: u8 = 16;

// A line must start where a cache line starts, or each question would touch two.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; WORDS]);

const _: () = assert!(size_of::<Line>() == LINE_BYTES);

/// A filter in memory.
pub(super) struct Filter {
    lines: Vec<Line>,
    probes: u8,
}

impl Filter {
    /// A filter over `hashes`; empty when `bits_per_key` is 0.
    pub(super) fn build(hashes: &[KeyHash], bits_per_key: u8) -> Filter {
        let bits = hashes.len() as u64 * u64::from(bits_per_key);
        let lines = bits.div_ceil(LINE_BITS);
        let mut filter = Filter { lines: vec![Line::default(); lines as usize], probes: probes(bits_per_key) };
        if lines > 0 {
            for &hash in hashes {
                filter.insert(hash);
            }
        }
        filter
    }

    fn insert(&mut self, hash: KeyHash) {
        let line = line_of(hash, self.lines.len());
        let Line(words) = &mut self.lines[line];
        for bit in bits_of(hash, self.probes) {
            words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// What it takes in memory, besides itself.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }

    /// `false`: no entry of the partition has a key with this hash.
    #[inline]
    pub(super) fn may_contain(&self, hash: KeyHash) -> bool {
        if self.lines.is_empty() {
            return true;
        }
        let Line(words) = &self.lines[line_of(hash, self.lines.len())];
        bits_of(hash, self.probes).all(|bit| words[bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// A word of what [`Filter::may_contain`] will read.
    #[inline]
    pub(super) fn touch(&self, hash: KeyHash) -> u64 {
        if self.lines.is_empty() { 0 } else { self.lines[line_of(hash, self.lines.len())].0[0] }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.lines.len() * LINE_BYTES + 1);
        for word in self.lines.iter().flat_map(|Line(words)| words) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.push(self.probes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Filter, Malformed> {
        let (&probes, rest) = bytes.split_last().ok_or(Malformed("filter is empty"))?;
        let (lines, cut_short) = rest.as_chunks::<LINE_BYTES>();
        if !cut_short.is_empty() || probes > MAX_PROBES {
            return Err(Malformed("filter is not made of lines"));
        }
        let line = |bytes: &[u8; LINE_BYTES]| {
            let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
            Line(std::array::from_fn(|n| u64::from_le_bytes(words[n])))
        };
        Ok(Filter { lines: lines.iter().map(line).collect(), probes })
    }
}

/// The number of probes with the fewest false positives for a blocked filter: a little under `bits * ln 2`, because
/// bits crowd within a line.
fn probes(bits_per_key: u8) -> u8 {
    (u32::from(bits_per_key) * 6 / 10).clamp(1, u32::from(MAX_PROBES)) as u8
}

#[inline]
fn line_of(KeyHash(hash): KeyHash, lines: usize) -> usize {
    // As good as a remainder for an even hash, and a multiplication instead of a division.
    (((hash >> 32) * lines as u64) >> 32) as usize
}

#[inline]
fn bits_of(KeyHash(hash): KeyHash, probes: u8) -> impl Iterator<Item = usize> {
    let mut g = hash as u32;
    (0..probes).map(move |_| {
        let bit = (g >> BIT_SHIFT) as usize;
        g = g.wrapping_mul(MULTIPLIER);
        bit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> KeyHash {
        KeyHash::of(format!("key:{n:010}").as_bytes())
    }

    #[test]
    fn knows_every_key_and_takes_few_others_for_known() {
        let keys = 100_000;
        let hashes: Vec<KeyHash> = (0..keys).map(hash).collect();
        for (bits_per_key, limit) in [(5, 0.12), (8, 0.028), (10, 0.012), (14, 0.0035)] {
            let filter = Filter::build(&hashes, bits_per_key);
            assert!(hashes.iter().all(|&hash| filter.may_contain(hash)));
            let wrong = (keys..2 * keys).filter(|&n| filter.may_contain(hash(n))).count();
            let rate = wrong as f64 / keys as f64;
            assert!(rate <= limit, "{rate} false positives at {bits_per_key} bits a key");
        }
    }

    #[test]
    fn survives_encoding_and_refuses_what_is_no_filter() {
        let filter = Filter::build(&[hash(1), hash(2)], 10);
        let bytes = filter.encode();
        assert_eq!(bytes.len(), LINE_BYTES + 1);
        let decoded = Filter::decode(&bytes).unwrap();
        assert!(decoded.may_contain(hash(1)) && decoded.may_contain(hash(2)));
        assert_eq!(decoded.encode(), bytes);
        for (probes, is_filter) in [(0, true), (MAX_PROBES, true), (MAX_PROBES + 1, false), (u8::MAX, false)] {
            let other = [&bytes[..LINE_BYTES], &[probes]].concat();
            assert_eq!(Filter::decode(&other).is_ok(), is_filter, "{probes} probes");
        }
        assert!(Filter::decode(&bytes[1..]).is_err());
        assert!(Filter::decode(&[]).is_err());
    }

    #[test]
    fn without_lines_everything_may_be_there() {
        let none = Filter::build(&[hash(1)], 0);
        assert_eq!(none.encode().len(), 1);
        assert!(none.may_contain(hash(2)));
    }
}
