//! Moments as the manifest keeps them: positions, and the times by which everything up to them was committed.
//!
//! ```text
//! moments := count: varint | moment{count}
//! moment  := seq: varint | time: varint      each as what it adds to the moment before, the first to zeros
//! ```

use super::SeqNo;
use crate::codec::cursor::Cursor;
use crate::codec::varint;

/// Positions, ascending, and times in milliseconds since 1970, never descending.
pub(crate) type Moments = Vec<(SeqNo, u64)>;

pub(super) fn put(out: &mut Vec<u8>, moments: &[(SeqNo, u64)]) {
    varint::put(out, moments.len() as u64);
    let mut before = (0, 0);
    for &(SeqNo(seq), time) in moments {
        varint::put(out, seq - before.0);
        varint::put(out, time - before.1);
        before = (seq, time);
    }
}

pub(super) fn read(cursor: &mut Cursor<'_>) -> Option<Moments> {
    let mut moments = Vec::new();
    let mut before = (SeqNo(0), 0u64);
    // Grows with what is there, not with what is announced.
    for _ in 0..cursor.varint()? {
        let seq = SeqNo(before.0.0.checked_add(cursor.varint()?)?);
        let time = before.1.checked_add(cursor.varint()?)?;
        if seq <= before.0 || seq > SeqNo::LIMIT {
            return None;
        }
        before = (seq, time);
        moments.push(before);
    }
    Some(moments)
}
