//! Whether a table is what a writer writes: every checksum, the order of entries, the index against the blocks, the
//! filter against the keys, the properties against the entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::properties::Properties;
use super::salvage::{Entry, Parts, Piece, comes_before};
use crate::codec::hash::KeyHash;
use crate::storage::blob::Pointer;
use crate::storage::names::FileNumber;
use crate::storage::text::shown_range;
use crate::storage::{Error, Fragments, Kind};

/// What a check has found.
pub(crate) struct Checked {
    /// Besides those of the parts themselves.
    pub(crate) problems: Vec<String>,
    /// Of the entries that could be read.
    pub(crate) counted: Properties,
    /// How many bytes of which blob files they point to.
    pub(crate) blobs: BTreeMap<FileNumber, u64>,
}

/// Reads all of a table.
pub(crate) fn check(parts: &Arc<Parts>) -> Checked {
    let mut counted = Properties::default();
    let mut problems = Vec::new();
    let mut blobs = BTreeMap::new();
    let mut whole = true;
    let mut last_key: Option<Vec<u8>> = None;
    for (piece, (_, known_as)) in parts.pieces().zip(parts.places()) {
        let (offset, length, entries) = match piece {
            Piece::Block { offset, length, entries } => (offset, length, entries),
            Piece::Lost { after, upto, error, .. } => {
                problems.push(format!("{error}: {}", shown_range(after.as_deref(), upto.as_deref())));
                whole = false;
                continue;
            }
        };
        let mut wrong = |what: String| problems.push(Error::corrupt(parts.name(), what, offset).to_string());
        if !known_as.is_none_or(|known_as| lies_between_its_separators(parts, known_as, &entries)) {
            wrong("block is not where the index says".to_owned());
        }
        let filter = known_as.and_then(|(p, _)| Some(parts.partitions.get(p)?.as_ref()?.filter()));
        let mut filtered: &[u8] = b"";
        for entry in &entries {
            let older = last_key.as_ref() == Some(&entry.key);
            counted.count(&entry.key, entry.seq, entry.kind, &entry.value, older);
            // Once for each key of the block: its versions may have begun in another partition.
            let first = std::mem::replace(&mut filtered, &entry.key) != entry.key;
            if first && filter.is_some_and(|filter| !filter.may_contain(KeyHash::of(&entry.key))) {
                wrong(format!("filter lacks the key \"{}\" of the block", entry.key.escape_ascii()));
            }
            if let Kind::PutFar { .. } = entry.kind {
                match Pointer::decode(&entry.value) {
                    Some(pointer) => *blobs.entry(pointer.file).or_default() += pointer.bytes(),
                    None => wrong("an entry has no readable pointer".to_owned()),
                }
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
        && parts.ranges.is_some()
        && let Some(told) = &parts.properties
        && *told != counted
    {
        let what = format!("properties are not those of the entries: {told:?} instead of {counted:?}");
        problems.push(Error::corrupt(parts.name(), what, 0).to_string());
    }
    Checked { problems, blobs, counted }
}

fn lies_between_its_separators(parts: &Parts, known_as: (usize, usize), entries: &[Entry]) -> bool {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return true };
    let before = parts.separator_before(known_as);
    let behind_the_one_before = before.is_none_or(|before| comes_before(before, (&first.key, first.seq)));
    let separator = parts.separator(known_as);
    behind_the_one_before && !separator.is_some_and(|separator| comes_before(separator, (&last.key, last.seq)))
}
