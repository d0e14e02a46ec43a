//! Finding the data blocks of a table whose index is gone.
//!
//! A stored block does not say how long it is, but its checksum says where it ends: the checksum over the table's
//! number, the place, and all bytes so far is carried along, and where it equals the four bytes that follow, and the bytes
//! before make a data block, one ends. One byte costs one step, so walking over good blocks takes one pass. Behind a
//! damaged block the next may start anywhere: every place is tried, for blocks of ordinary size, and not for ever.

use crc32fast::Hasher;

use super::salvage::Place;
use crate::storage::TableId;
use crate::storage::frame::{Handle, LAST_COMPRESSION, TRAILER_BYTES};

/// How long a block may be that is looked for behind damage: ordinary ones hold 4 KiB.
const SOUGHT_BYTES: usize = 8 << 10;

/// How many places in a row are tried before the rest is given up: a damaged block of this length is passed over.
const TRIED_PLACES: usize = 128 << 10;

/// The blocks in `bytes`, a file's from its start, from `start` on; and what lies between them. `is_data` tells whether
/// bytes with a good checksum, at their offset, are a data block.
pub(super) fn carve(bytes: &[u8], start: usize, id: TableId, is_data: impl Fn(&[u8], u64) -> bool) -> Vec<Place> {
    let mut places = Vec::new();
    let mut at = start;
    while at < bytes.len() {
        let block_at = |at: usize, most| {
            let length = block_length(&bytes[at..], at as u64, most, id)?;
            is_data(&bytes[at..at + length], at as u64).then_some((at, length))
        };
        let found = block_at(at, usize::MAX).or_else(|| {
            let last = bytes.len().min(at + TRIED_PLACES);
            (at + 1..last).find_map(|at| block_at(at, SOUGHT_BYTES))
        });
        let (found_at, length) = found.unwrap_or((bytes.len(), 0));
        if found_at > at {
            places.push(Place::Gap { offset: at as u64, length: (found_at - at) as u64 });
        }
        if let Ok(length) = u32::try_from(length)
            && length > 0
        {
            places.push(Place::Block(Handle { offset: found_at as u64, length }));
        }
        at = found_at + length;
    }
    places
}

/// The length of the stored block at the front of `bytes`, which lie at `offset`.
fn block_length(bytes: &[u8], offset: u64, most: usize, TableId(id): TableId) -> Option<usize> {
    let mut hasher = Hasher::new();
    hasher.update(&id.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    let most = most.min(bytes.len()).min(u32::MAX as usize);
    for (at, compression) in bytes[..most.checked_sub(TRAILER_BYTES - 1)?].iter().enumerate() {
        hasher.update(std::slice::from_ref(compression));
        // No other compression is known.
        let crc = bytes[at + 1..].first_chunk().filter(|_| *compression <= LAST_COMPRESSION);
        if crc.is_some_and(|crc| hasher.clone().finalize() == u32::from_le_bytes(*crc)) {
            return Some(at + TRAILER_BYTES);
        }
    }
    None
}
