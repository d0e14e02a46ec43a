//! Lists of entries: a short one is a reply like any other, a long one is made while it is sent.

use super::Context;
use super::spec::Answer;
use crate::keyspace::{self, Entries};
use crate::protocol::{MakeRows, Reply, Row, RowStream};

/// A list is held up to this size, which is that of a few packets and little beside the limits on output. Above it the
/// entries are read twice, once to be counted: twice the time, but no memory.
const HELD_BYTES: usize = 1 << 20;

/// Answers with the rows of `words` words that `rows` makes of `entries`. It may be asked several times, and must make the
/// same rows of the same entries.
pub(super) fn list<F>(context: &mut Context<'_>, entries: Entries, words: usize, rows: F) -> Answer
where
    F: Fn(Entries) -> Box<dyn Iterator<Item = keyspace::Result<Row>> + Send>,
{
    context.depends_on(entries.seq);
    let again = entries.again();
    let mut held = Vec::new();
    let mut bytes = 0;
    let mut all = rows(entries);
    for row in &mut all {
        let row = row?;
        bytes += size_of::<Row>() + row.words().map(|word| word.len()).sum::<usize>();
        held.push(row);
        if bytes > HELD_BYTES {
            drop(held);
            let mut count = 0;
            for row in rows(again.again()) {
                row?;
                count += 1;
            }
            let rows: MakeRows = Box::new(rows(again).map(|row| row.map_err(|error| super::Refusal::from(error).0)));
            return Ok(Reply::Stream(RowStream::new(count, words, rows)));
        }
    }
    Ok(Reply::Rows(held))
}
