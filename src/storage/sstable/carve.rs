//! Finding the data blocks of a table whose index is gone.
//!
//! A stored block does not say how long it is, but its checksum says where it ends. To try each end for each start takes for
//! ever in a large file, so each gets a mark, and a block lies where two are equal.
//!
//! A CRC calculates with polynomials modulo a fixed one: a byte b makes the state (s + b) x^8 of the state s. Let p(n) be
//! the state after the first n bytes. A block that starts at a does so with the state s(a) that its table and its place
//! make, and before the checksum at e it has come to
//!
//! ```text
//! (s(a) + p(a)) x^8(e - a) + p(e)
//! ```
//!
//! which is to be the complement c(e) of the checksum that stands there. Divided by x^8e, with all starts on one side and
//! all ends on the other:
//!
//! ```text
//! (s(a) + p(a)) x^-8a = (c(e) + p(e)) x^-8e
//! ```
//!
//! So the ends are marked in one pass and sorted, and a second pass looks up the starts.

use super::salvage::Place;
use crate::codec::crc::crc32;
use crate::storage::TableId;
use crate::storage::frame::{Handle, LAST_COMPRESSION, TRAILER_BYTES};

/// How long a block may be that is looked for behind damage: ordinary ones hold 4 KiB, or one value. By chance alone each
/// start has an equal end within 4 GiB, and what lies between is looked at.
const SOUGHT_BYTES: usize = 1 << 20;

/// How many ends are tried for one start: more than one are equal to it by chance alone, and so hardly ever.
const TRIED_ENDS: usize = 4;

/// The blocks in `bytes`, which lie at `offset` of the file, and what lies between them. `is_data` tells whether bytes
/// with a good checksum, at their offset, are a data block.
pub(super) fn carve(bytes: &[u8], offset: u64, id: TableId, is_data: impl Fn(&[u8], u64) -> bool) -> Vec<Place> {
    search(bytes, offset, id, is_data).0
}

/// The places, and how many bytes were looked at for them, some of them more than once.
fn search(bytes: &[u8], offset: u64, id: TableId, is_data: impl Fn(&[u8], u64) -> bool) -> (Vec<Place>, usize) {
    let ends = ends(bytes);
    let mut places = Vec::new();
    let mut work = bytes.len();
    let mut prefix = Prefix::new(bytes);
    // Where the last block has ended.
    let mut end = 0;
    loop {
        let at = prefix.len;
        let place = offset + at as u64;
        let mark = prefix.mark(!crc32(&[&id.0.to_le_bytes(), &place.to_le_bytes()]));
        let behind = &ends[ends.partition_point(|other| *other <= (mark, at))..];
        let equal = behind.iter().take(TRIED_ENDS).take_while(|(other, _)| *other == mark);
        let mut lengths = equal.map(|(_, end)| end - at + TRAILER_BYTES - 1);
        let length = lengths.find(|length| {
            let tried = at == end || *length <= SOUGHT_BYTES;
            work += if tried { *length } else { 0 };
            tried && is_data(&bytes[at..at + length], place)
        });
        if length.is_some() || at == bytes.len() {
            if at > end {
                places.push(Place::Gap { offset: offset + end as u64, length: (at - end) as u64 });
            }
            end = at + length.unwrap_or(0);
        }
        if let Some(length) = length.and_then(|length| u32::try_from(length).ok()) {
            places.push(Place::Block(Handle { offset: place, length }));
        }
        if at == bytes.len() {
            return (places, work);
        }
        let next = end.max(at + 1);
        work += next - at;
        while prefix.len < next {
            prefix.step();
        }
    }
}

/// Where a checksum may stand, with the marks, in order.
///
/// Behind no compression that is not known; and not four zeros, which nearly always are what a disk has for lost bytes: so a
/// block that has that checksum, one in 2^32, is not found.
fn ends(bytes: &[u8]) -> Vec<(u32, usize)> {
    let mut ends = Vec::new();
    let mut prefix = Prefix::new(bytes);
    while prefix.len < bytes.len() {
        let known = bytes[prefix.len] <= LAST_COMPRESSION;
        prefix.step();
        if let Some(crc) = bytes[prefix.len..].first_chunk().filter(|crc| known && **crc != [0; 4]) {
            ends.push((prefix.mark(!u32::from_le_bytes(*crc)), prefix.len));
        }
    }
    ends.sort_unstable();
    ends
}

/// The first bytes.
struct Prefix<'a> {
    bytes: &'a [u8],
    len: usize,
    /// The state behind them, of a CRC that begins with 0.
    state: Polynomial,
    /// x^-8 for each of them.
    scale: Polynomial,
}

impl<'a> Prefix<'a> {
    fn new(bytes: &'a [u8]) -> Prefix<'a> {
        Prefix { bytes, len: 0, state: 0, scale: ONE }
    }

    /// One byte more.
    fn step(&mut self) {
        self.state ^= u32::from(self.bytes[self.len]);
        for _ in 0..8 {
            self.state = times_x(self.state);
            self.scale = by_x(self.scale);
        }
        self.len += 1;
    }

    /// Of a start or an end that has this state here.
    fn mark(&self, state: Polynomial) -> u32 {
        times(self.state ^ state, self.scale)
    }
}

/// As in CRC-32: the highest bit is the coefficient of x^0, the lowest that of x^31.
type Polynomial = u32;

const ONE: Polynomial = 1 << 31;

/// What is zero, without its x^32.
const MODULUS: Polynomial = 0xedb8_8320;

fn times_x(a: Polynomial) -> Polynomial {
    (a >> 1) ^ if a & 1 == 1 { MODULUS } else { 0 }
}

/// Divided by x. The modulus has an x^0, so what has one came to it by the modulus.
fn by_x(a: Polynomial) -> Polynomial {
    if a & ONE == 0 { a << 1 } else { ((a ^ MODULUS) << 1) | 1 }
}

fn times(a: Polynomial, mut b: Polynomial) -> Polynomial {
    let mut product = 0;
    for bit in (0..u32::BITS).rev() {
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = times_x(b);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Rng;
    use crate::storage::frame::trailer;
    use crate::storage::sstable::Compression;

    const TABLE: TableId = TableId(7);
    const OFFSET: u64 = 1 << 33;

    /// Blocks of these lengths, one behind the other.
    fn blocks(lengths: impl IntoIterator<Item = usize>) -> (Vec<u8>, Vec<Handle>) {
        let (mut bytes, mut handles, mut rng) = (Vec::new(), Vec::new(), Rng::new(1));
        for length in lengths {
            let offset = OFFSET + bytes.len() as u64;
            let content: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
            bytes.extend_from_slice(&content);
            bytes.extend_from_slice(&trailer(TABLE, offset, &content, Compression::None));
            handles.push(Handle { offset, length: (length + TRAILER_BYTES) as u32 });
        }
        (bytes, handles)
    }

    #[test]
    fn division_undoes_multiplication() {
        let mut rng = Rng::new(2);
        for a in (0..1_000).map(|_| rng.next_u64() as u32) {
            assert_eq!((by_x(times_x(a)), times_x(by_x(a)), times(a, ONE)), (a, a, a));
            assert_eq!(times(a, by_x(ONE)), by_x(a));
        }
    }

    #[test]
    fn blocks_of_any_length_are_found_where_they_are_and_nowhere_else() {
        let (bytes, handles) = blocks([0, 1, 5_000, 40, 300_000, 0, 17]);
        let places: Vec<_> = handles.iter().map(|handle| Place::Block(*handle)).collect();
        let is_block = |bytes: &[u8], offset| handles.contains(&Handle { offset, length: bytes.len() as u32 });
        assert_eq!(carve(&bytes, OFFSET, TABLE, is_block), places);
        let none = [Place::Gap { offset: OFFSET, length: bytes.len() as u64 }];
        assert_eq!(carve(&bytes, OFFSET, TABLE, |_, _| false), none);
        assert_eq!(carve(&bytes, OFFSET, TableId(8), is_block), none);
        let elsewhere = [Place::Gap { offset: OFFSET + 1, length: bytes.len() as u64 }];
        assert_eq!(carve(&bytes, OFFSET + 1, TABLE, is_block), elsewhere);
    }

    /// Repairing a large table must come to an end, whatever of it is damaged.
    #[test]
    fn the_work_is_a_few_looks_at_each_byte_however_many_blocks_are_damaged() {
        let (good, handles) = blocks((0..400).map(|n| if n % 50 == 7 { 30_000 } else { 2_000 + n }));
        for every in [1, 2, 3, 399] {
            let (mut bytes, mut expected) = (good.clone(), Vec::<Place>::new());
            for (n, handle) in handles.iter().enumerate() {
                let length = u64::from(handle.length);
                match expected.last_mut() {
                    _ if n % every > 0 => expected.push(Place::Block(*handle)),
                    Some(Place::Gap { length: before, .. }) => *before += length,
                    _ => expected.push(Place::Gap { offset: handle.offset, length }),
                }
                if n % every == 0 {
                    bytes[(handle.offset - OFFSET) as usize + n] ^= 1;
                }
            }
            let is_block = |bytes: &[u8], offset| handles.contains(&Handle { offset, length: bytes.len() as u32 });
            let (places, work) = search(&bytes, OFFSET, TABLE, is_block);
            assert_eq!(places, expected, "every {every}");
            assert!(work <= 8 * bytes.len(), "every {every}: {work} for {} bytes", bytes.len());
        }
        // Where every place may be an end, some are by chance.
        for (fill, most) in [(0, 2), (1, 64), (2, 64), (0xff, 2)] {
            let bytes = vec![fill; 512 << 10];
            let (places, work) = search(&bytes, OFFSET, TABLE, |_, _| false);
            assert_eq!(places.len(), 1);
            assert!(work <= most * bytes.len(), "filled with {fill}: {work}");
        }
    }
}
