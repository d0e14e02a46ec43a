//! The range tombstones of a table: all in one stored block, read when the table is opened and held in memory.
//!
//! ```text
//! ranges   := 0: u32 | fragment+                                       // little-endian
//! fragment := start: bytes | end: bytes | seqs: varint | seq: varint * seqs
//! bytes    := length: varint | length bytes
//! ```
//!
//! Fragments ascend and do not overlap; `end` is not included, and one without bytes is none: all keys from `start` on.
//! The positions of the tombstones over a fragment descend. The zero in front tells the block from a data block, which
//! begins with the number of its entries: so it is found where no footer says where it is.
//!
//! A table has this block only if it has range tombstones.

use super::Malformed;
use crate::codec::cursor::Cursor;
use crate::codec::{SeqNo, varint};
use crate::storage::{Edge, Fragment, Fragments};

const MARK: u32 = 0;

pub(super) fn encode(fragments: &[Fragment]) -> Vec<u8> {
    let mut out = MARK.to_le_bytes().to_vec();
    for fragment in fragments {
        for edge in [&fragment.start[..], fragment.end.as_deref().unwrap_or_default()] {
            varint::put(&mut out, edge.len() as u64);
            out.extend_from_slice(edge);
        }
        varint::put(&mut out, fragment.seqs.len() as u64);
        fragment.seqs.iter().for_each(|seq| varint::put(&mut out, seq.0));
    }
    out
}

/// Whether it is such a block, and not one of data.
pub(super) fn is_ranges(bytes: &[u8]) -> bool {
    bytes.starts_with(&MARK.to_le_bytes())
}

pub(super) fn decode(bytes: &[u8]) -> Result<Fragments, Malformed> {
    const MALFORMED: Malformed = Malformed("range tombstones are not made of fragments");
    let mut cursor = Cursor::new(bytes);
    if cursor.u32() != Some(MARK) || cursor.is_empty() {
        return Err(MALFORMED);
    }
    let mut list: Vec<Fragment> = Vec::new();
    while !cursor.is_empty() {
        let fragment = fragment(&mut cursor).ok_or(MALFORMED)?;
        let in_order = list.last().is_none_or(|last| last.end.as_ref().is_some_and(|end| **end <= *fragment.start));
        if !in_order {
            return Err(Malformed("range tombstones come out of order"));
        }
        list.push(fragment);
    }
    Ok(Fragments::new(list))
}

fn fragment(cursor: &mut Cursor<'_>) -> Option<Fragment> {
    let start = Edge::from(cursor.prefixed()?);
    let end = Some(cursor.prefixed()?).filter(|end| !end.is_empty()).map(Edge::from);
    let count = cursor.varint()?;
    // Each takes a byte at least.
    let mut seqs = Vec::with_capacity(usize::try_from(count).ok().filter(|count| *count <= cursor.rest().len())?);
    for _ in 0..count {
        seqs.push(SeqNo(cursor.varint()?));
    }
    let descend = !seqs.is_empty() && seqs.windows(2).all(|pair| pair[0] > pair[1]);
    (descend && end.as_ref().is_none_or(|end| start < *end)).then_some(Fragment { start, end, seqs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(start: &[u8], end: &[u8], seqs: &[u64]) -> Fragment {
        let end = (!end.is_empty()).then(|| Edge::from(end));
        Fragment { start: Edge::from(start), end, seqs: seqs.iter().copied().map(SeqNo).collect() }
    }

    #[test]
    fn fragments_come_back_and_no_prefix_passes_for_them() {
        let list = vec![
            fragment(b"", b"b", &[9]),
            fragment(b"b", &[b'c'; 300], &[u64::MAX, 7, 0]),
            fragment(b"d", b"", &[5, 4]),
        ];
        let bytes = encode(&list);
        assert!(is_ranges(&bytes));
        assert_eq!(decode(&bytes), Ok(Fragments::new(list.clone())));
        for cut in 0..bytes.len() {
            assert_ne!(decode(&bytes[..cut]), Ok(Fragments::new(list.clone())));
        }
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let bad: [&[Fragment]; 7] = [
            &[],
            &[fragment(b"b", b"b", &[1])],
            &[fragment(b"b", b"a", &[1])],
            &[fragment(b"a", b"b", &[])],
            &[fragment(b"a", b"b", &[1, 1])],
            &[fragment(b"a", b"c", &[1]), fragment(b"b", b"d", &[1])],
            &[fragment(b"a", b"", &[1]), fragment(b"b", b"d", &[1])],
        ];
        for list in bad {
            assert!(decode(&encode(list)).is_err(), "{list:?}");
        }
        assert!(decode(&[&encode(&[])[..], &[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat()).is_err(), "a huge count");
    }
}
