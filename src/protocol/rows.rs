//! Lists that may be too long to be held: their rows are made, encoded and sent one after the other.
//!
//! RESP says at the beginning how many words will follow, so rows are counted before the first is made. If one cannot be
//! made after all, nothing that is said in its place would be understood: the connection has to be closed.

use std::borrow::Cow;

use super::encoder::{encode_entries, encode_header, encode_row};
use super::reply::Dialect;
use crate::codec::Slice;

/// A row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    One(Slice),
    /// A key and its value.
    Pair(Slice, Slice),
}

impl Row {
    pub(crate) fn words(&self) -> impl Iterator<Item = &Slice> {
        let (first, second) = match self {
            Row::One(word) => (word, None),
            Row::Pair(key, value) => (key, Some(value)),
        };
        std::iter::once(first).chain(second)
    }
}

/// Makes rows; an error is the text of an error reply.
pub(crate) type MakeRows = Box<dyn Iterator<Item = Result<Row, Cow<'static, str>>> + Send>;

/// A list that is still to be made.
pub(crate) struct RowStream {
    count: usize,
    made: usize,
    words: usize,
    rows: MakeRows,
}

impl RowStream {
    /// `count` rows of `words` words each.
    pub(crate) fn new(count: usize, words: usize, rows: MakeRows) -> RowStream {
        RowStream { count, made: 0, words, rows }
    }

    /// Appends what comes before the first row.
    pub(crate) fn begin(&self, dialect: Dialect, out: &mut Vec<u8>) {
        encode_header(self.count * self.words, dialect, out);
    }

    /// Appends the next row, or after the last what ends the list. Whether there is more.
    ///
    /// # Errors
    ///
    /// Why the list cannot be continued.
    pub(crate) fn next(&mut self, dialect: Dialect, out: &mut Vec<u8>) -> Result<bool, Cow<'static, str>> {
        let Some(row) = self.rows.next().transpose()? else {
            if self.made != self.count {
                return Err(format!("ERR {} rows instead of {}", self.made, self.count).into());
            }
            encode_entries(self.count, dialect, out);
            return Ok(false);
        };
        self.made += 1;
        encode_row(&row, dialect, out);
        Ok(true)
    }
}

impl std::fmt::Debug for RowStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows", self.count)
    }
}

/// RowStream are not known before they are made.
impl PartialEq for RowStream {
    fn eq(&self, _: &RowStream) -> bool {
        false
    }
}
