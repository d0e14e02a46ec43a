//! A write batch: changes that become visible, and durable, together or not at all.
//!
//! Its encoding is also the payload of the log:
//!
//! ```text
//! batch := op*
//! op    := 1: u8 | key: bytes | value: bytes                      put
//!        | 2: u8 | key: bytes | expires: u64 | value: bytes       put that expires, milliseconds since 1970
//!        | 3: u8 | key: bytes                                     delete
//!        | 4: u8 | start: bytes | end: bytes                      delete all keys from start to before end
//!        | 5: u8 | start: bytes                                   delete all keys from start on
//! bytes := length: varint | length bytes                          // integers little-endian
//! ```

use crate::codec::cursor::Cursor;
use crate::codec::varint;

const PUT: u8 = 1;
const PUT_EXPIRING: u8 = 2;
const DELETE: u8 = 3;
const DELETE_RANGE: u8 = 4;
const DELETE_FROM: u8 = 5;

/// Changes to be written together, in this order: of several to one key the last one counts. See
/// [`Db::write`](super::Db::write). Sizes of keys and values are checked when it is written, not here.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    count: u64,
    /// How many of them delete ranges.
    ranges: u64,
}

/// One change of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    Put {
        key: &'a [u8],
        value: &'a [u8],
        expires_at: Option<u64>,
    },
    Delete {
        key: &'a [u8],
    },
    /// Without an end: to the last key.
    DeleteRange {
        start: &'a [u8],
        end: Option<&'a [u8]>,
    },
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.op(PUT, key);
        self.prefixed(value);
    }

    /// Sets `key` to `value` until `expires_at`, in milliseconds since 1970 by the clock of the options: from then on no
    /// read shows it, and compaction gives its space back.
    pub fn put_expiring(&mut self, key: &[u8], value: &[u8], expires_at: u64) {
        self.op(PUT_EXPIRING, key);
        self.bytes.extend_from_slice(&expires_at.to_le_bytes());
        self.prefixed(value);
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: &[u8]) {
        self.op(DELETE, key);
    }

    /// Removes every key from `start` to before `end` (`None`: to the last key) that was put before, in this batch or
    /// earlier. However many there are, that takes one change. An empty range, whose ends are equal, is no change; one
    /// whose end lies below its start is refused when the batch is written.
    ///
    /// ```
    /// # fn main() -> Result<(), chronos::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = chronos::Options::new().open(dir.path())?;
    /// for key in ["log:2023", "log:2024", "user:101"] {
    ///     db.put(key.as_bytes(), b"1")?;
    /// }
    /// let mut batch = chronos::WriteBatch::new();
    /// batch.delete_range(b"log:", Some(b"log;"));
    /// batch.put(b"log:2025", b"2");
    /// db.write(&batch)?;
    /// let keys: Vec<_> = db.range::<&[u8]>(..).map(|entry| entry.map(|e| e.key)).collect::<Result<_, _>>()?;
    /// assert_eq!(keys, [b"log:2025"[..].to_vec().into(), b"user:101"[..].to_vec().into()]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>) {
        match end {
            Some(end) if end == start => return,
            None => self.op(DELETE_FROM, start),
            Some(end) => {
                self.op(DELETE_RANGE, start);
                self.prefixed(end);
            }
        }
        self.ranges += 1;
    }

    /// How many changes it has.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets all changes, keeping the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.ranges = 0;
    }

    fn op(&mut self, kind: u8, key: &[u8]) {
        self.bytes.push(kind);
        self.prefixed(key);
        self.count += 1;
    }

    fn prefixed(&mut self, bytes: &[u8]) {
        varint::put(&mut self.bytes, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether it deletes ranges.
    pub(crate) fn has_ranges(&self) -> bool {
        self.ranges > 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn ops(&self) -> Ops<'_> {
        Ops { cursor: Cursor::new(&self.bytes) }
    }
}

/// The changes in encoded bytes, in order; `None` ends it, and [`Ops::rest`] tells whether that was the end of the
/// bytes or something that is no change.
pub(crate) struct Ops<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Ops<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Ops<'a> {
        Ops { cursor: Cursor::new(bytes) }
    }

    /// Bytes that were not decoded (all of them from the first bad change on).
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }

    fn decode(cursor: &mut Cursor<'a>) -> Option<Op<'a>> {
        let kind = cursor.u8()?;
        let key = cursor.prefixed()?;
        match kind {
            PUT => Some(Op::Put { key, value: cursor.prefixed()?, expires_at: None }),
            PUT_EXPIRING => {
                let expires_at = Some(cursor.u64()?);
                Some(Op::Put { key, value: cursor.prefixed()?, expires_at })
            }
            DELETE => Some(Op::Delete { key }),
            DELETE_RANGE => Some(Op::DeleteRange { start: key, end: Some(cursor.prefixed()?) }),
            DELETE_FROM => Some(Op::DeleteRange { start: key, end: None }),
            _ => None,
        }
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Op<'a>;

    fn next(&mut self) -> Option<Op<'a>> {
        let mut cursor = self.cursor;
        let op = Self::decode(&mut cursor)?;
        self.cursor = cursor;
        Some(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_was_put_in_and_stops_at_the_first_bad_byte() {
        let mut batch = WriteBatch::new();
        batch.put(b"a", b"1");
        batch.put_expiring(b"b", b"", 77);
        batch.delete(b"c");
        batch.delete_range(b"c", Some(b"c"));
        batch.delete_range(b"", None);
        batch.delete_range(b"d", Some(b"e"));
        let ops: Vec<Op<'_>> = batch.ops().collect();
        assert_eq!(
            ops,
            [
                Op::Put { key: b"a", value: b"1", expires_at: None },
                Op::Put { key: b"b", value: b"", expires_at: Some(77) },
                Op::Delete { key: b"c" },
                Op::DeleteRange { start: b"", end: None },
                Op::DeleteRange { start: b"d", end: Some(b"e") },
            ]
        );
        for cut in 0..batch.bytes().len() {
            let mut ops = Ops::new(&batch.bytes()[..cut]);
            let whole = ops.by_ref().count();
            assert!(whole < 5);
            assert!(cut == 0 || whole > 0 || !ops.rest().is_empty());
        }
    }

    #[test]
    fn a_batch_knows_whether_it_deletes_ranges() {
        let mut batch = WriteBatch::new();
        assert!(!batch.has_ranges());
        batch.put(b"a", b"1");
        batch.delete(b"b");
        assert!(!batch.has_ranges());
        batch.delete_range(b"a", Some(b"c"));
        assert!(batch.has_ranges());
    }
}
