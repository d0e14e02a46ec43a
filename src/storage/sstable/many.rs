//! Point reads of many keys at once.
//!
//! A read of a cached table does little but wait for memory: six times or so, one wait behind the other. Here every
//! step is taken for all keys before the next one is taken for any. What one step loads for different keys does not
//! depend on one another, so the processor has many loads under way at a time. Locking and deciding would hold them up;
//! so before a step that does, a bare *touch* for each key has the memory come that the step will need.

use std::hint::black_box;
use std::sync::Arc;

use super::{Partition, Reads, Table};
use crate::codec::hash::KeyHash;
use crate::codec::{Few, SeqNo};
use crate::storage::Version;
use crate::storage::cache::Peek;

/// A key to look for in a table that may hold it.
pub(crate) struct Probe<'a> {
    pub(crate) table: &'a Table,
    pub(crate) key: &'a [u8],
    pub(crate) hash: KeyHash,
    /// What the caller knows it by.
    pub(crate) id: usize,
}

/// What the cache knows of [`Table::get`] for each probe. `found` is called, in any order, for those that their tables
/// hold, and with `None` for those of which only the file can tell; not for those that are surely in none. Those of which
/// only the file can tell are not counted: they will be read alone.
pub(crate) fn get_cached(
    mut probes: Few<Probe<'_>>,
    as_of: SeqNo,
    reads: &mut Reads,
    mut found: impl FnMut(usize, Option<Version>),
) {
    reads.asked += probes.len() as u64;
    let mut held: Few<Held<'_>> = Few::new();
    let mut held_by: Few<usize> = Few::new();
    probes.retain(|probe| {
        let Some(p) = probe.table.partition_for(probe.key, as_of) else { return false };
        let known = held.iter().rposition(|held| held.p == p && std::ptr::eq(held.table, probe.table));
        held_by.push(known.unwrap_or_else(|| {
            held.push(Held { table: probe.table, p, partition: probe.table.peek_partition(p) });
            held.len() - 1
        }));
        true
    });
    let mut asked: Few<(&Probe<'_>, &Partition)> = Few::new();
    for (probe, held_by) in probes.iter().zip(held_by) {
        match &held[held_by].partition {
            Some(partition) => asked.push((probe, partition)),
            None => {
                reads.asked -= 1;
                found(probe.id, None);
            }
        }
    }

    touch(&asked, |(probe, partition)| partition.filter().touch(probe.hash));
    let before = asked.len();
    asked.retain(|(probe, partition)| partition.filter().may_contain(probe.hash));

    reads.filtered += (before - asked.len()) as u64;

    touch(&asked, |(probe, partition)| partition.index().touch(probe.key));
    let places = asked.iter().map(|(probe, partition)| {
        let n = partition.index().find(probe.key, as_of)?;
        Some((*probe, *partition, n))
    });
    let places: Few<(&Probe<'_>, &Partition, usize)> = places.flatten().collect();

    touch(&places, |(_, partition, n)| partition.slots().touch(*n));
    let blocks: Few<_> = places.iter().map(|(probe, partition, n)| (*probe, probe.table.peek(partition, *n))).collect();
    let cached = || blocks.iter().filter_map(|(probe, block)| Some((probe, block.as_deref()?)));

    touch(cached(), |(_, block)| block.touch());
    touch(cached(), |(probe, block)| block.touch_tagged(probe.hash));
    for (probe, block) in &blocks {
        let version = block.as_deref().map(|block| block.clone().find(probe.key, probe.hash, as_of));
        match version {
            Some(Ok(version)) => {
                reads.cached_blocks += 1;
                match version {
                    Some(version) => found(probe.id, Some(version)),
                    None => reads.false_positives += 1,
                }
            }
            // Whoever reads it alone learns what is wrong.
            Some(Err(_)) | None => {
                reads.asked -= 1;
                found(probe.id, None);
            }
        }
    }
}

/// A partition that several probes may need: its slot is locked once for all of them, since that is a write to a cache
/// line which all threads share.
struct Held<'a> {
    table: &'a Table,
    p: usize,
    partition: Option<Peek<'a, Arc<Partition>>>,
}

/// Loads `word` of every item.
fn touch<I: IntoIterator>(items: I, word: impl Fn(I::Item) -> u64) {
    black_box(items.into_iter().fold(0, |all, item| all ^ word(item)));
}
