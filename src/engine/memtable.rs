//! The memtable: the newest versions of recently written keys, in a `HashMap` behind a `parking_lot::RwLock`.
//!
//! A key leads to its newest version, and that to the next older one while somebody may still read it (the *retention
//! floor*, see [`super::retention`]). Point reads and writes cost one hash look-up; the order of keys is known only
//! where a range scan asked for it:
//!
//! - an active memtable keeps an ordered index of its keys from its first range scan on ([`Memtable::keep_order`]);
//! - a sealed one never gains a key, so it is sorted once, when first asked.
//!
//! The lock is held for single look-ups, for applying one batch, or for one short step of a scan; never over I/O.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::quality::RandomState;
use parking_lot::RwLock;

use super::SeqNo;
use super::batch::{Op, Ops};
use crate::codec::Slice;
use crate::storage::{Kind, Version};

/// What an entry costs besides its key and value: hash table slot, version, and the headers of two allocations.
/// An estimate; it only decides when a memtable is full.
const ENTRY_OVERHEAD: usize = 120;

/// A key as the memtable shares it between its hash table and its order.
type Key = Arc<[u8]>;

/// A key's newest version and the older ones that may still be read, oldest first: a long-lived snapshot may keep many,
/// and neither adding nor dropping one may then cost more than one.
#[derive(Debug)]
struct Versions {
    newest: Version,
    older: VecDeque<Version>,
}

impl Versions {
    fn at(&self, as_of: SeqNo) -> Option<&Version> {
        if self.newest.seq <= as_of {
            return Some(&self.newest);
        }
        let readable = self.older.partition_point(|version| version.seq <= as_of);
        self.older.get(readable.checked_sub(1)?)
    }

    fn newest_first(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.newest).chain(self.older.iter().rev())
    }
}

#[derive(Debug, Default)]
struct Map {
    keys: HashMap<Key, Versions, RandomState>,
    order: Option<BTreeSet<Key>>,
}

/// An entry of a scan: a key and one of its versions.
#[derive(Clone, Debug)]
pub(crate) struct MemEntry {
    pub(crate) key: Arc<[u8]>,
    pub(crate) version: Version,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    map: RwLock<Map>,
    bytes: AtomicUsize,
    scanned: AtomicBool,
    /// All keys in order, made once after the memtable was sealed.
    sorted: OnceLock<Vec<Key>>,
}

impl Memtable {
    /// An empty memtable; `ordered` if range scans are expected.
    pub(crate) fn new(ordered: bool) -> Memtable {
        let map = Map { order: ordered.then(BTreeSet::new), ..Map::default() };
        Memtable { map: RwLock::new(map), ..Memtable::default() }
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.read().keys.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies encoded changes, the first at `first`, the others at the numbers after it. Versions that nobody at or
    /// above `floor` can read are let go.
    pub(crate) fn apply(&self, batch: &[u8], first: SeqNo, floor: SeqNo) {
        let mut map = self.map.write();
        let mut seq = first;
        let mut grown = 0isize;
        for op in Ops::new(batch) {
            let (key, version) = match op {
                Op::Put { key, value, expires_at } => {
                    (key, Version { seq, kind: Kind::Put { expires_at }, value: Slice::copy_from(value) })
                }
                Op::Delete { key } => (key, Version { seq, kind: Kind::Tombstone, value: Slice::default() }),
            };
            grown += map.insert(key, version, floor);
            seq.0 += 1;
        }
        if grown >= 0 {
            self.bytes.fetch_add(grown.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(grown.unsigned_abs(), Ordering::Relaxed);
        }
    }

    /// The newest version of `key` at or below `as_of`.
    pub(crate) fn get(&self, key: &[u8], as_of: SeqNo) -> Option<Version> {
        self.map.read().keys.get(key)?.at(as_of).cloned()
    }

    /// The keys of `lower..upper` whose newest version is above `after` and no tombstone.
    pub(crate) fn keys_put_after(&self, after: SeqNo, lower: &[u8], upper: Option<&[u8]>) -> Vec<Key> {
        let within = |key: &[u8]| key >= lower && upper.is_none_or(|upper| key < upper);
        let map = self.map.read();
        let fresh = map.keys.iter().filter(|(key, versions)| {
            versions.newest.seq > after && versions.newest.kind != Kind::Tombstone && within(key)
        });
        fresh.map(|(key, _)| key.clone()).collect()
    }

    /// Takes back every version above `after`: those writes have failed and must never have been.
    pub(crate) fn take_back(&self, after: SeqNo) {
        let mut map = self.map.write();
        let Map { keys, order } = &mut *map;
        keys.retain(|key, versions| {
            while versions.newest.seq > after {
                match versions.older.pop_back() {
                    Some(older) => versions.newest = older,
                    None => {
                        if let Some(order) = order {
                            order.remove(key);
                        }
                        return false;
                    }
                }
            }
            true
        });
    }

    /// Keeps the order of keys from now on.
    pub(crate) fn keep_order(&self) {
        let mut map = self.map.write();
        if map.order.is_none() {
            map.order = Some(map.keys.keys().cloned().collect());
        }
    }

    pub(crate) fn keeps_order(&self) -> bool {
        self.map.read().order.is_some()
    }

    /// Whether a range scan has read from it: its successor then keeps order from the start.
    pub(crate) fn was_scanned(&self) -> bool {
        self.scanned.load(Ordering::Relaxed)
    }

    /// Up to `limit` entries from `lower` on in ascending key order, each key's newest version at or below `as_of`.
    /// The second value is the last key looked at, to go on behind it, or `None` if there is nothing behind.
    pub(crate) fn scan(
        &self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        backward: bool,
        as_of: SeqNo,
        limit: usize,
        out: &mut Vec<MemEntry>,
    ) -> Option<Key> {
        if is_empty_range(lower, upper) {
            return None;
        }
        self.scanned.store(true, Ordering::Relaxed);
        let map = self.map.read();
        match &map.order {
            Some(order) => {
                let keys = order.range::<[u8], _>((lower, upper));
                if backward { map.collect(keys.rev(), as_of, limit, out) } else { map.collect(keys, as_of, limit, out) }
            }
            None => {
                let sorted = self.sorted.get_or_init(|| {
                    let mut keys: Vec<Key> = map.keys.keys().cloned().collect();
                    keys.sort_unstable();
                    keys
                });
                let start = match lower {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => sorted.partition_point(|k| &**k < key),
                    Bound::Excluded(key) => sorted.partition_point(|k| &**k <= key),
                };
                let end = match upper {
                    Bound::Unbounded => sorted.len(),
                    Bound::Included(key) => sorted.partition_point(|k| &**k <= key),
                    Bound::Excluded(key) => sorted.partition_point(|k| &**k < key),
                };
                let keys = sorted[start..end.max(start)].iter();
                if backward { map.collect(keys.rev(), as_of, limit, out) } else { map.collect(keys, as_of, limit, out) }
            }
        }
    }

    /// Every version of every key of a sealed memtable, ascending by key, newest version first.
    pub(crate) fn for_each<E>(&self, mut visit: impl FnMut(&[u8], &Version) -> Result<(), E>) -> Result<(), E> {
        let mut keys: Vec<Key> = self.map.read().keys.keys().cloned().collect();
        keys.sort_unstable();
        for key in keys {
            // One short lock for each key: readers of a sealed memtable never wait for the table being written.
            let versions: Vec<Version> = match self.map.read().keys.get(&key) {
                Some(versions) => versions.newest_first().cloned().collect(),
                None => continue,
            };
            for version in &versions {
                visit(&key, version)?;
            }
        }
        Ok(())
    }
}

impl Map {
    /// Returns by how many bytes the memtable grew.
    fn insert(&mut self, key: &[u8], version: Version, floor: SeqNo) -> isize {
        let mut grown = version.value.len() as isize + ENTRY_OVERHEAD as isize;
        match self.keys.get_mut(key) {
            None => {
                grown += key.len() as isize;
                let key: Key = Arc::from(key);
                if let Some(order) = &mut self.order {
                    order.insert(key.clone());
                }
                self.keys.insert(key, Versions { newest: version, older: VecDeque::new() });
            }
            Some(versions) => {
                let before = std::mem::replace(&mut versions.newest, version);
                versions.older.push_back(before);
                // Of the versions at or below the floor only the newest can still be read.
                while versions.older.get(1).is_some_and(|next| next.seq <= floor) {
                    let dropped = versions.older.pop_front().expect("there are at least two");
                    grown -= (dropped.value.len() + ENTRY_OVERHEAD) as isize;
                }
            }
        }
        grown
    }

    fn collect<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a Key>,
        as_of: SeqNo,
        limit: usize,
        out: &mut Vec<MemEntry>,
    ) -> Option<Key> {
        for (looked_at, key) in keys.enumerate() {
            // A key of a sealed memtable's order is missing from the map when its only write was taken back.
            if let Some(version) = self.keys.get(key).and_then(|versions| versions.at(as_of)) {
                out.push(MemEntry { key: key.clone(), version: version.clone() });
            }
            if looked_at + 1 == limit {
                return Some(key.clone());
            }
        }
        None
    }
}

/// `BTreeSet::range` panics on a range that ends before it starts.
fn is_empty_range(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (Bound::Included(lower) | Bound::Excluded(lower), Bound::Excluded(upper) | Bound::Included(upper)) => {
            lower >= upper
        }
    }
}

#[cfg(test)]
#[path = "memtable_tests.rs"]
mod tests;
