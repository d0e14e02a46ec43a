//! A stored block: how any part of a table, and any value of a blob file, lies in the file, with its checksum and maybe compressed.
//!
//! ```text
//! stored      := bytes | compression: u8 | crc: u32                           // little-endian
//! bytes       := content                                                      // compression 0: none
//!              | length: u32 | content as one LZ4 block                       // compression 1: lz4, `length` bytes
//!              | length: u32 | content as one zstd frame                      // compression 2: zstd, `length` bytes
//! crc         := CRC-32 of table: u64 | offset: u64 | bytes | compression     // offset: of `stored` in the file
//! ```
//!
//! The checksum covers which table the block belongs to and where it lies: a block read from the wrong place, or left
//! over from another file, fails like a damaged one.

use lz4_flex::block::{CompressTable, compress_into, compress_into_with_table, get_maximum_output_size};

use parking_lot::Mutex;
use zstd::bulk::{Compressor as Zstd, Decompressor as Unzstd};

use super::TableId;
use super::sstable::Compression;
use crate::codec::Slice;
use crate::codec::crc::crc32;
use crate::codec::defect::{Defect, seeded};

const NONE: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;

/// The highest code that is known.
pub(super) const LAST_COMPRESSION: u8 = ZSTD;

const CRC_BYTES: usize = size_of::<u32>();

/// What a stored block has behind its bytes.
pub(super) const TRAILER_BYTES: usize = 1 + CRC_BYTES;

/// Where the uncompressed length stands.
const LENGTH_BYTES: usize = size_of::<u32>();

/// A byte of LZ4 stands for at most 255 bytes of content, so a longer announced length is a lie and nothing is
/// allocated for it. What zstd makes smaller than that, all zeros or nearly so, is left to LZ4.
const MAX_RATIO: usize = 255;

/// How hard zstd tries. With blocks of 4 KiB, 3 is hardly smaller and 9 not at all worth its time.
const ZSTD_LEVEL: i32 = 1;

/// About what zstd keeps in memory to compress blocks of ordinary size.
const ZSTD_BYTES: usize = 1 << 20;

/// What zstd needs to decompress, some 100 KiB, is kept for as many threads as are likely to do so at a time: creating
/// it costs several times what a block does.
static UNZSTD: Mutex<Vec<Unzstd<'static>>> = Mutex::new(Vec::new());
const UNZSTD_KEPT: usize = 8;

/// Blocks beyond this (single huge values) stay as they are: compressing one takes more than twice its size in memory.
const COMPRESS_AT_MOST: usize = 64 << 20;

/// An allocation above this is given back after use.
const KEEP_BYTES: usize = 1 << 20;

/// Bytes passed their checksum, or have none, and still make no sense. Whoever knows the file makes an error of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Where a stored block is: `length` counts all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) offset: u64,
    pub(super) length: u32,
}

impl Handle {
    pub(super) fn end(self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// Compression with its memory kept from block to block.
pub(super) struct Compressor {
    table: CompressTable,
    /// Made by the first block that asks for it.
    zstd: Option<Zstd<'static>>,
    out: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> Compressor {
        Compressor { table: CompressTable::small(), zstd: None, out: Vec::new() }
    }

    /// What it takes in memory, besides a few KiB.
    pub(super) fn memory(&self) -> usize {
        self.out.capacity() + self.zstd.as_ref().map_or(0, |_| ZSTD_BYTES)
    }

    /// The `bytes` of a stored block and how they are compressed; `None` if that does not save at least an eighth.
    pub(super) fn compress(&mut self, content: &[u8], wanted: Compression) -> Option<(&[u8], Compression)> {
        let length = u32::try_from(content.len()).ok().filter(|_| content.len() <= COMPRESS_AT_MOST)?;
        let most =
            LENGTH_BYTES + get_maximum_output_size(content.len()).max(zstd::zstd_safe::compress_bound(content.len()));
        if self.out.len() < most || self.out.len() > KEEP_BYTES.max(most) {
            self.out = vec![0; most];
        }
        self.out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        let (len, compression) = match wanted {
            Compression::None => return None,
            Compression::Lz4 => (self.lz4(content), wanted),
            Compression::Zstd => match self.zstd(content).filter(|len| content.len() / MAX_RATIO <= *len) {
                Some(len) => (len, wanted),
                None => (self.lz4(content), Compression::Lz4),
            },
        };
        let len = LENGTH_BYTES + len;
        (len <= content.len() - content.len() / 8).then(|| (&self.out[..len], compression))
    }

    /// Compresses into the output, behind the length; how long it gets.
    fn lz4(&mut self, content: &[u8]) -> usize {
        let out = &mut self.out[LENGTH_BYTES..];
        let compressed = if content.len() < usize::from(u16::MAX) {
            compress_into_with_table(content, out, &mut self.table)
        } else {
            // A longer input would turn our table into a larger one for good.
            compress_into(content, out)
        };
        compressed.expect("the output has the room that LZ4 asks for")
    }

    /// As with LZ4; `None` if zstd cannot, for want of memory.
    fn zstd(&mut self, content: &[u8]) -> Option<usize> {
        if self.zstd.is_none() {
            self.zstd = Zstd::new(ZSTD_LEVEL).ok();
        }
        self.zstd.as_mut()?.compress_to_buffer(content, &mut self.out[LENGTH_BYTES..]).ok()
    }
}

/// What comes behind `bytes` in the file at `offset`.
pub(super) fn trailer(table: TableId, offset: u64, bytes: &[u8], compression: Compression) -> [u8; TRAILER_BYTES] {
    let compression = match compression {
        Compression::None => NONE,
        Compression::Lz4 => LZ4,
        Compression::Zstd => ZSTD,
    };
    let mut trailer = [compression; TRAILER_BYTES];
    trailer[1..].copy_from_slice(&checksum(table, offset, bytes, compression).to_le_bytes());
    trailer
}

fn checksum(TableId(table): TableId, offset: u64, bytes: &[u8], compression: u8) -> u32 {
    if seeded(Defect::ChecksumWithoutPlace) {
        return crc32(&[bytes, &[compression]]);
    }
    crc32(&[&table.to_le_bytes(), &offset.to_le_bytes(), bytes, &[compression]])
}

/// The content of a stored block that was read from `offset`, if it is the one that was written there.
pub(super) fn open(stored: &Slice, table: TableId, offset: u64) -> Result<Slice, Malformed> {
    let malformed = Malformed("block is too short for its checksum");
    let (rest, crc) = stored.split_last_chunk::<CRC_BYTES>().ok_or(malformed)?;
    let (&compression, bytes) = rest.split_last().ok_or(malformed)?;
    if u32::from_le_bytes(*crc) != checksum(table, offset, bytes, compression) && !seeded(Defect::ChecksumIgnored) {
        return Err(Malformed("block does not match its checksum"));
    }
    match compression {
        NONE => Ok(stored.slice(0, bytes.len())),
        LZ4 => decompress(bytes, |packed, content| lz4_flex::block::decompress_into(packed, content).ok()),
        ZSTD => decompress(bytes, unzstd),
        _ => Err(Malformed("block has an unknown compression")),
    }
}

fn unzstd(packed: &[u8], content: &mut [u8]) -> Option<usize> {
    let kept = UNZSTD.lock().pop();
    let mut unzstd = kept.or_else(|| Unzstd::new().ok())?;
    let len = unzstd.decompress_to_buffer(packed, content).ok();
    let mut kept = UNZSTD.lock();
    if kept.len() < UNZSTD_KEPT {
        kept.push(unzstd);
    }
    len
}

fn decompress(bytes: &[u8], unpack: impl FnOnce(&[u8], &mut [u8]) -> Option<usize>) -> Result<Slice, Malformed> {
    let (length, packed) = bytes.split_first_chunk().ok_or(Malformed("block is too short for its length"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length / MAX_RATIO > packed.len() {
        return Err(Malformed("block announces more than it can hold"));
    }
    Slice::build(length, |content| match unpack(packed, content) {
        Some(len) if len == content.len() => Ok(()),
        _ => Err(Malformed("block does not decompress to its length")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(7);

    fn stored(content: &[u8], offset: u64, wanted: Compression) -> Slice {
        let mut compressor = Compressor::new();
        let (bytes, compression) = compressor.compress(content, wanted).unwrap_or((content, Compression::None));
        Slice::from([bytes, &trailer(TABLE, offset, bytes, compression)].concat())
    }

    #[test]
    fn comes_back_whole_compressed_or_not() {
        let text = (0..5000).flat_map(|n: u32| format!("{n} ").into_bytes()).collect::<Vec<u8>>();
        for wanted in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for content in [&b""[..], b"short", &[7; 5000], &[7; 200_000], &[0x42; 1 << 20], &text] {
                let stored = stored(content, 99, wanted);
                assert!(stored.len() <= content.len() + TRAILER_BYTES);
                assert_eq!(&*open(&stored, TABLE, 99).unwrap(), content);
            }
            assert_eq!(stored(&[7; 5000], 0, wanted).len() < 100, wanted != Compression::None);
        }
        let len = |wanted| stored(&text, 0, wanted).len();
        assert!(len(Compression::Zstd) < len(Compression::Lz4));
    }

    #[test]
    fn any_other_table_place_bit_or_length_is_refused() {
        let cases = [
            (&b"some bytes that do not compress"[..], Compression::Lz4),
            (&[7; 500], Compression::Lz4),
            (&[7; 500], Compression::Zstd),
        ];
        for (content, wanted) in cases {
            let good = stored(content, 99, wanted);
            assert!(open(&good, TableId(8), 99).is_err());
            assert!(open(&good, TABLE, 100).is_err());
            for cut in 0..good.len() {
                assert!(open(&good.slice(0, cut), TABLE, 99).is_err());
            }
            for bit in 0..good.len() * 8 {
                let mut bytes = good.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&Slice::from(bytes), TABLE, 99).is_err());
            }
        }
    }

    #[test]
    fn a_block_is_stored_as_it_is_unless_that_saves_an_eighth() {
        let mut compressor = Compressor::new();
        let mut rng = crate::codec::Rng::new(3);
        let random: Vec<u8> = (0..1_007).map(|_| rng.next_u64() as u8).collect();
        for wanted in [Compression::Lz4, Compression::Zstd] {
            // The longer the random part, the less is saved: up to a point the block is compressed, from there on it is not.
            let packed = |zeros: usize| {
                let mut content = random.clone();
                content[..zeros].fill(0);
                compressor.compress(&content, wanted).map(|(bytes, _)| bytes.len())
            };
            let lengths: Vec<Option<usize>> = (0..=random.len()).map(packed).collect();
            let first = lengths.iter().position(Option::is_some).unwrap();
            assert!(lengths[first..].iter().all(|len| len.is_some_and(|len| len <= 1_007 - 1_007 / 8)), "{lengths:?}");
            // Compression itself costs some bytes.
            assert!((1_007 / 8..1_007 / 8 + 30).contains(&first), "{wanted:?}: from {first} zeros on");
        }
    }

    #[test]
    fn what_one_huge_block_took_is_given_back_with_the_next() {
        let mut compressor = Compressor::new();
        compressor.compress(&vec![7; 4 << 20], Compression::Lz4).unwrap();
        assert!(compressor.memory() > 4 << 20);
        compressor.compress(&[7; 4096], Compression::Lz4).unwrap();
        assert!(compressor.memory() <= KEEP_BYTES);
    }

    #[test]
    fn a_lying_length_with_a_good_checksum_allocates_nothing() {
        for (wanted, length) in [0u32, 499, 501, 255 * 40, u32::MAX]
            .into_iter()
            .flat_map(|length| [(Compression::Lz4, length), (Compression::Zstd, length)])
        {
            let mut compressor = Compressor::new();
            let (bytes, compression) = compressor.compress(&[7; 500], wanted).unwrap();
            assert_eq!(compression, wanted);
            let mut bytes = bytes.to_vec();
            bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            let trailer = trailer(TABLE, 99, &bytes, wanted);
            assert!(open(&Slice::from([&bytes[..], &trailer].concat()), TABLE, 99).is_err());
        }
    }
}
