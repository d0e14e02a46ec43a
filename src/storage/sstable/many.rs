//! Point reads of many keys at once.
//!
//! A read of a cached table does little but wait for memory: six times or so, one wait behind the other. Here every
//! step is taken for all keys before the next one is taken for any. What one step loads for different keys does not
//! depend on one another, so the processor has many loads under way at a time. Locking and deciding would hold them up;
//! so before a step that does, a bare *touch* for each key has the memory come that the step will need.

use std::hint::black_box;

use super::Table;
use crate::codec::hash::KeyHash;
use crate::codec::{Few, SeqNo};
use crate::storage::Version;

/// A key to look for in a table that may hold it.
pub(crate) struct Probe<'a> {
    pub(crate) table: &'a Table,
    pub(crate) key: &'a [u8],
    pub(crate) hash: KeyHash,
    /// What the caller knows it by.
    pub(crate) id: usize,
}

/// What the cache knows of [`Table::get`] for each probe. `found` is called, in any order, for those that their tables
/// hold, and with `None` for those of which only the file can tell; not for those that are surely in none.
pub(crate) fn get_cached(mut probes: Few<Probe<'_>>, as_of: SeqNo, mut found: impl FnMut(usize, Option<Version>)) {
    touch(&probes, |probe| probe.table.filter().touch(probe.hash));
    probes.retain(|probe| probe.table.may_hold(probe.hash, as_of));

    touch(&probes, |probe| probe.table.index().touch(probe.key));
    let places = probes.iter().map(|probe| Some((probe, probe.table.index().find(probe.key, as_of)?)));
    let places: Few<(&Probe<'_>, usize)> = places.flatten().collect();

    touch(&places, |(probe, n)| probe.table.slots().touch(*n));
    let blocks: Few<_> = places.iter().map(|(probe, n)| (*probe, probe.table.peek(*n))).collect();
    let cached = || blocks.iter().filter_map(|(probe, block)| Some((probe, block.as_deref()?)));

    touch(cached(), |(_, block)| block.touch());
    touch(cached(), |(probe, block)| block.touch_tagged(probe.hash));
    for (probe, block) in &blocks {
        let version = block.as_deref().map(|block| block.clone().find(probe.key, probe.hash, as_of));
        match version {
            Some(Ok(None)) => {}
            Some(Ok(Some(version))) => found(probe.id, Some(version)),
            // Whoever reads it alone learns what is wrong.
            Some(Err(_)) | None => found(probe.id, None),
        }
    }
}

/// Loads `word` of every item.
fn touch<I: IntoIterator>(items: I, word: impl Fn(I::Item) -> u64) {
    black_box(items.into_iter().fold(0, |all, item| all ^ word(item)));
}
