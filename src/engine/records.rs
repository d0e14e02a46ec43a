//! Where a memtable keeps its versions: records of any size, packed into large chunks.
//!
//! ```text
//! record := seq: u64 | value_len: u32 | chain: u32 | key_len: u24 | kind: u8 | [expires: u64] | key | value
//! ```
//!
//! (In memory only, little-endian.) A key and its value lie side by side, so a look-up that has found the record has
//! found both, and a write allocates nothing: with an allocation for each key and each value, both cost twice as much.
//! Values over [`INLINE_BYTES`] are allocations of their own, which readers share instead of copying; the record has the
//! place of the value in their list instead.
//!
//! The space of a removed record is used again for one of the same size: overwriting a hot key needs no memory.

use super::SeqNo;
use crate::codec::Slice;
use crate::storage::{Kind, Version};

/// A value up to this size is copied when it is read, which takes about as long as counting a reference does.
const INLINE_BYTES: usize = 4 << 10;

/// Large enough that allocating one is rare, small enough that a half-empty last one does not matter.
const CHUNK_BYTES: usize = 1 << 20;

/// Records start at multiples of this, so that 32 bits address 32 GiB.
const UNIT: usize = 8;
const CHUNK_UNITS: usize = CHUNK_BYTES / UNIT;

/// The most that all records of a memtable may take. A memtable is sealed when it is full, so it grows past its size by
/// no more than a batch.
pub(super) const MAX_RECORD_BYTES: usize = (u32::MAX as usize + 1) * UNIT - CHUNK_BYTES;

const HEADER_BYTES: usize = 20;
const EXPIRY_BYTES: usize = size_of::<u64>();

const _: () = assert!(HEADER_BYTES + EXPIRY_BYTES + super::MAX_KEY_BYTES + INLINE_BYTES <= CHUNK_BYTES);
const _: () = assert!(super::MAX_KEY_BYTES < 1 << 24);

/// What `kind` says.
const EXPIRES: u8 = 1;
const TOMBSTONE: u8 = 2;
/// The record has no value but its place in the list of large ones.
const LARGE: u8 = 4;

/// Where a record is, in units from the first chunk's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At(u32);

/// The list of a key's older versions, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain(u32);

impl Chain {
    /// There are none.
    pub(super) const NONE: Chain = Chain(u32::MAX);

    pub(super) fn new(number: usize) -> Chain {
        Chain(u32::try_from(number).expect("fewer chains than records"))
    }

    pub(super) fn number(self) -> Option<usize> {
        (self != Chain::NONE).then_some(self.0 as usize)
    }
}

/// One version of one key, as it is stored.
pub(super) struct Record<'a> {
    pub(super) seq: SeqNo,
    pub(super) kind: Kind,
    pub(super) key: &'a [u8],
    pub(super) value: Stored<'a>,
}

/// A value in its place.
#[derive(Clone, Copy)]
pub(super) enum Stored<'a> {
    Inline(&'a [u8]),
    Large(&'a Slice),
}

impl Stored<'_> {
    pub(super) fn to_slice(self) -> Slice {
        match self {
            Stored::Inline(bytes) => Slice::copy_from(bytes),
            Stored::Large(value) => value.clone(),
        }
    }
}

impl Record<'_> {
    pub(super) fn version(&self) -> Version {
        Version { seq: self.seq, kind: self.kind, value: self.value.to_slice() }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// All but the last are full, up to where the next record did not fit.
    chunks: Vec<Vec<u8>>,
    /// Places of removed records, by their length in units.
    free: Vec<Vec<At>>,
    large: Vec<Slice>,
    large_free: Vec<u32>,
    /// What `chunks` and `large` take.
    bytes: usize,
}

impl Records {
    /// What has been allocated and not given back, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a version without older ones.
    pub(super) fn add(&mut self, key: &[u8], seq: SeqNo, kind: Kind, value: &[u8]) -> At {
        let large = (value.len() > INLINE_BYTES).then(|| self.add_large(value).to_le_bytes());
        let value_len = value.len() as u32;
        let stored = large.as_ref().map_or(value, |place| &place[..]);
        let (flags, expires) = match kind {
            // A value that is far is in a table; here it would be this one.
            Kind::Put { expires_at: None } | Kind::PutFar { expires_at: None } => (0, None),
            Kind::Put { expires_at: Some(at) } | Kind::PutFar { expires_at: Some(at) } => {
                (EXPIRES, Some(at.to_le_bytes()))
            }
            Kind::Tombstone => (TOMBSTONE, None),
        };
        let flags = flags | if large.is_some() { LARGE } else { 0 };
        let expires = expires.as_ref().map_or(&[][..], |at| &at[..]);

        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&seq.0.to_le_bytes());
        header[8..12].copy_from_slice(&value_len.to_le_bytes());
        header[12..16].copy_from_slice(&Chain::NONE.0.to_le_bytes());
        header[16..].copy_from_slice(&(key.len() as u32 | u32::from(flags) << 24).to_le_bytes());

        let parts = [&header[..], expires, key, stored];
        let units = parts.iter().map(|part| part.len()).sum::<usize>().div_ceil(UNIT);
        match self.free.get_mut(units).and_then(Vec::pop) {
            Some(at) => {
                let (chunk, mut start) = place(at);
                for part in parts {
                    self.chunks[chunk][start..start + part.len()].copy_from_slice(part);
                    start += part.len();
                }
                at
            }
            None => self.append(parts, units),
        }
    }

    fn append(&mut self, parts: [&[u8]; 4], units: usize) -> At {
        let len = units * UNIT;
        if self.chunks.last().is_none_or(|chunk| chunk.len() + len > CHUNK_BYTES) {
            // The first grows as needed: most databases that are open hold little.
            self.chunks.push(if self.chunks.is_empty() { Vec::new() } else { Vec::with_capacity(CHUNK_BYTES) });
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let start = chunk.len();
        for part in parts {
            chunk.extend_from_slice(part);
        }
        chunk.resize(start + len, 0);
        self.bytes += len;
        At(u32::try_from(number * CHUNK_UNITS + start / UNIT).expect("a memtable is sealed before it is that large"))
    }

    fn add_large(&mut self, value: &[u8]) -> u32 {
        self.bytes += value.len();
        let value = Slice::copy_from(value);
        match self.large_free.pop() {
            Some(place) => {
                self.large[place as usize] = value;
                place
            }
            None => {
                self.large.push(value);
                (self.large.len() - 1) as u32
            }
        }
    }

    /// Forgets a record, of which the caller keeps no place.
    pub(super) fn remove(&mut self, at: At) {
        let header = Header::read(self.from(at));
        if header.flags & LARGE != 0 {
            let place = header.large_place(self.from(at));
            self.bytes -= std::mem::take(&mut self.large[place]).len();
            self.large_free.push(place as u32);
        }
        let units = header.stored_len().div_ceil(UNIT);
        if self.free.len() <= units {
            self.free.resize_with(units + 1, Vec::new);
        }
        self.free[units].push(at);
    }

    /// What is stored at and behind a place.
    #[inline]
    fn from(&self, at: At) -> &[u8] {
        let (chunk, start) = place(at);
        &self.chunks[chunk][start..]
    }

    #[inline]
    pub(super) fn key(&self, at: At) -> &[u8] {
        let bytes = self.from(at);
        let header = Header::read(bytes);
        &bytes[header.key_start()..][..header.key_len]
    }

    #[inline]
    pub(super) fn seq(&self, at: At) -> SeqNo {
        Header::read(self.from(at)).seq
    }

    #[inline]
    pub(super) fn record(&self, at: At) -> Record<'_> {
        let bytes = self.from(at);
        let header = Header::read(bytes);
        let start = header.key_start();
        let kind = match header.flags & (EXPIRES | TOMBSTONE) {
            0 => Kind::Put { expires_at: None },
            EXPIRES => Kind::Put { expires_at: bytes[HEADER_BYTES..].first_chunk().map(|at| u64::from_le_bytes(*at)) },
            _ => Kind::Tombstone,
        };
        let (key, rest) = bytes[start..].split_at(header.key_len);
        let value = match header.flags & LARGE {
            0 => Stored::Inline(&rest[..header.value_len]),
            _ => Stored::Large(&self.large[header.large_place(bytes)]),
        };
        Record { seq: header.seq, kind, key, value }
    }

    /// The older versions of the key whose newest version this is.
    #[inline]
    pub(super) fn chain(&self, at: At) -> Chain {
        Chain(u32_at(self.from(at), 12))
    }

    pub(super) fn set_chain(&mut self, at: At, chain: Chain) {
        let (number, start) = place(at);
        self.chunks[number][start + 12..start + 16].copy_from_slice(&chain.0.to_le_bytes());
    }
}

/// The number of a chunk, and the place in it.
#[inline]
fn place(At(units): At) -> (usize, usize) {
    (units as usize / CHUNK_UNITS, units as usize % CHUNK_UNITS * UNIT)
}

struct Header {
    seq: SeqNo,
    value_len: usize,
    key_len: usize,
    flags: u8,
}

impl Header {
    #[inline]
    fn read(bytes: &[u8]) -> Header {
        let seq = SeqNo(u64::from(u32_at(bytes, 0)) | u64::from(u32_at(bytes, 4)) << 32);
        let last = u32_at(bytes, 16);
        Header {
            seq,
            value_len: u32_at(bytes, 8) as usize,
            key_len: last as usize & 0xFF_FFFF,
            flags: (last >> 24) as u8,
        }
    }

    #[inline]
    fn key_start(&self) -> usize {
        HEADER_BYTES + if self.flags & EXPIRES != 0 { EXPIRY_BYTES } else { 0 }
    }

    fn large_place(&self, bytes: &[u8]) -> usize {
        u32_at(bytes, self.key_start() + self.key_len) as usize
    }

    fn stored_len(&self) -> usize {
        let value = if self.flags & LARGE != 0 { size_of::<u32>() } else { self.value_len };
        self.key_start() + self.key_len + value
    }
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a record is stored whole"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Rng;

    #[test]
    fn records_of_every_kind_and_size_come_back_and_their_space_is_used_again() {
        let mut rng = Rng::new(5);
        let mut records = Records::default();
        let mut live: Vec<(At, Vec<u8>, Version)> = Vec::new();
        let mut most = 0;
        for seq in 0..20_000 {
            if live.len() > 200 {
                let (at, ..) = live.swap_remove(rng.below(live.len() as u64) as usize);
                records.remove(at);
            }
            let kind = match rng.below(3) {
                0 => Kind::Put { expires_at: None },
                1 => Kind::Put { expires_at: Some(rng.below(u64::MAX)) },
                _ => Kind::Tombstone,
            };
            let sizes = [0, 1, 7, 8, 9, 100, INLINE_BYTES, INLINE_BYTES + 1, 20_000];
            let value = match kind {
                Kind::Tombstone => Vec::new(),
                _ => vec![seq as u8; sizes[rng.below(sizes.len() as u64) as usize]],
            };
            let keys = [1, 2, 16, 255, 256, 70 << 8];
            let key = vec![!seq as u8; keys[rng.below(keys.len() as u64) as usize]];
            let at = records.add(&key, SeqNo(seq << 40), kind, &value);
            live.push((at, key, Version { seq: SeqNo(seq << 40), kind, value: Slice::copy_from(&value) }));
            most = most.max(records.bytes());
            if seq % 97 == 0 {
                for (at, key, version) in &live {
                    let record = records.record(*at);
                    assert_eq!((records.key(*at), records.seq(*at), record.key), (&key[..], version.seq, &key[..]));
                    assert_eq!(record.version(), *version);
                    assert_eq!(records.chain(*at), Chain::NONE);
                }
            }
        }
        assert!(most < 8 << 20, "{most} bytes for 200 records");
    }

    #[test]
    fn a_record_never_straddles_two_chunks() {
        let mut records = Records::default();
        let places: Vec<At> = (0..5000)
            .map(|n| records.add(b"key", SeqNo(n), Kind::Put { expires_at: None }, &[n as u8; 3000]))
            .collect();
        assert!(records.chunks.len() > 10 && records.chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
        for (n, at) in places.into_iter().enumerate() {
            assert_eq!(*records.record(at).version().value, [n as u8; 3000]);
        }
    }

    #[test]
    fn a_large_value_lies_apart_and_its_space_is_given_back() {
        let mut records = Records::default();
        let put = Kind::Put { expires_at: None };
        let inline = records.add(b"inline", SeqNo(1), put, &[7; INLINE_BYTES]);
        assert!(matches!(records.record(inline).value, Stored::Inline(_)));
        let apart = records.add(b"apart", SeqNo(2), put, &[7; INLINE_BYTES + 1]);
        assert!(matches!(records.record(apart).value, Stored::Large(_)));
        let bytes = records.bytes();
        records.remove(apart);
        assert_eq!(bytes - records.bytes(), INLINE_BYTES + 1);
    }
}
