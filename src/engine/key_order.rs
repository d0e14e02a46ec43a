//! Many keys of a memtable brought into order at once.

use std::sync::Arc;

use super::records::{At, Records};

/// These records in the order of their keys.
///
/// Most comparisons are decided by eight bytes that lie beside the place: those behind what all keys share.
pub(super) fn in_key_order(records: &Records, mut places: Vec<At>) -> Arc<[At]> {
    // In the order of memory first: the keys are then read from front to back.
    places.sort_unstable();
    let first = places.first().map_or(&[][..], |at| records.key(*at));
    let shared = places.iter().fold(first, |shared, at| {
        let common = shared.iter().zip(records.key(*at)).take_while(|(a, b)| a == b).count();
        &shared[..common]
    });
    let mut keyed: Vec<(u64, At)> =
        places.iter().map(|at| (leading_bytes(&records.key(*at)[shared.len()..]), *at)).collect();
    keyed.sort_unstable_by(|(a, a_at), (b, b_at)| a.cmp(b).then_with(|| records.key(*a_at).cmp(records.key(*b_at))));
    keyed.into_iter().map(|(_, at)| at).collect()
}

/// The first eight bytes, such that numbers that differ are in the order of what they come from.
fn leading_bytes(bytes: &[u8]) -> u64 {
    let mut leading = [0; size_of::<u64>()];
    let len = bytes.len().min(leading.len());
    leading[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(leading)
}
