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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_ascend_up_to_the_last_position_that_there_can_be() {
        let read_back = |moments: &[(u64, u64)]| {
            let moments: Moments = moments.iter().map(|&(seq, time)| (SeqNo(seq), time)).collect();
            let mut out = Vec::new();
            put(&mut out, &moments);
            read(&mut Cursor::new(&out)).inspect(|read| assert_eq!(*read, moments)).is_some()
        };
        let last = SeqNo::LIMIT.0;
        assert!(read_back(&[]) && read_back(&[(1, 0)]) && read_back(&[(1, 5), (2, 5), (last, 6)]));
        assert!(!read_back(&[(last + 1, 6)]), "there is no such position");
        assert!(!read_back(&[(0, 5)]) && !read_back(&[(7, 5), (7, 6)]), "a position has one time");
    }
}
