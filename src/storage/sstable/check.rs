//! Whether a table is what a writer writes: every checksum, the order of entries, the index against the blocks, the
//! filter against the keys, the properties against the entries.

use std::sync::Arc;

use super::properties::Properties;
use super::salvage::{Entry, Parts, Piece, comes_before};
use crate::codec::hash::KeyHash;
use crate::storage::text::shown_range;
use crate::storage::{Error, Fragments};

/// What a check has found.
pub(crate) struct Checked {
    /// Besides those of the parts themselves.
    pub(crate) problems: Vec<String>,
    /// Of the entries that could be read.
    pub(crate) counted: Properties,
}

/// Reads all of a table.
pub(crate) fn check(parts: &Arc<Parts>) -> Checked {
    let mut counted = Properties::default();
    let mut problems = Vec::new();
    let mut whole = true;
    let mut last_key: Option<Vec<u8>> = None;
    for (n, piece) in parts.pieces().enumerate() {
        let (offset, length, entries) = match piece {
            Piece::Block { offset, length, entries } => (offset, length, entries),
            Piece::Lost { after, upto, error, .. } => {
                problems.push(format!("{error}: {}", shown_range(after.as_deref(), upto.as_deref())));
                whole = false;
                continue;
            }
        };
        let mut wrong = |what: String| problems.push(Error::corrupt(parts.name(), what, offset).to_string());
        if !lies_between_its_separators(parts, n, &entries) {
            wrong("block is not where the index says".to_owned());
        }
        for entry in &entries {
            let older = last_key.as_ref() == Some(&entry.key);
            counted.count(&entry.key, entry.seq, entry.kind, &entry.value, older);
            if !older && parts.filter.as_ref().is_some_and(|filter| !filter.may_contain(KeyHash::of(&entry.key))) {
                wrong(format!("filter lacks the key \"{}\" of the block", entry.key.escape_ascii()));
            }
            last_key = Some(entry.key.clone());
        }
        if counted.data_blocks == 0 {
            counted.smallest_key = entries.first().map_or(Vec::new(), |entry| entry.key.clone());
        }
        counted.data_blocks += 1;
        counted.data_bytes += length;
    }
    counted.largest_key = last_key.unwrap_or_default();
    parts.ranges.iter().flat_map(Fragments::iter).for_each(|fragment| counted.count_ranges(fragment));
    if whole
        && parts.index.is_some()
        && parts.ranges.is_some()
        && let Some(told) = &parts.properties
        && *told != counted
    {
        let what = format!("properties are not those of the entries: {told:?} instead of {counted:?}");
        problems.push(Error::corrupt(parts.name(), what, 0).to_string());
    }
    Checked { problems, counted }
}

fn lies_between_its_separators(parts: &Parts, n: usize, entries: &[Entry]) -> bool {
    let (Some(index), Some(first), Some(last)) = (&parts.index, entries.first(), entries.last()) else { return true };
    let behind_the_one_before = n == 0 || comes_before(index.separator(n - 1), (&first.key, first.seq));
    behind_the_one_before && !comes_before(index.separator(n), (&last.key, last.seq))
}
