//! The memtable: the newest versions of recently written keys, in a hash table behind a `parking_lot::RwLock`.
//!
//! A key leads to its newest version, and that to the older ones while somebody may still read them (the *retention
//! floor*, see [`super::retention`]). Point reads and writes cost one hash look-up; the order of keys is known only
//! where a range scan asked for it:
//!
//! - an active memtable keeps an ordered index of its keys from its first range scan on ([`Memtable::keep_order`]);
//! - a sealed one never gains a key, so it is sorted once, when first asked.
//!
//! The table is `hashbrown`'s, on which the standard `HashMap` is built, because its slots can be as small as a hash and
//! the place of a [`super::records`] record: what a look-up touches of it is two cache lines, and one for the record.
//!
//! The lock is held for single look-ups, for applying one batch, or for one short step of a scan; never over I/O.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use super::SeqNo;
use super::batch::{Op, Ops};
use super::key_order::in_key_order;
use super::page::Page;
use super::range_tombstones::RangeTombstones;
use super::records::{At, Chain, Records, Stored};
use crate::codec::{Few, Slice};
use crate::storage::{Fragments, Kind, Span, Version};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, RwLock};

/// What a key costs besides its records: a slot of a hash table that is between half full and full, and its share of
/// what the table grows by.
const SLOT_BYTES: usize = 24;

/// What a key costs in the order of keys, besides its bytes if they do not fit: its place in a tree that is between half
/// full and full.
const ORDER_BYTES: usize = 2 * size_of::<Key>();

/// What a list of older versions costs besides their records.
const CHAIN_BYTES: usize = size_of::<VecDeque<At>>() + 4 * size_of::<At>();

/// A key in the order of an active memtable: most are in the tree itself, so that a search follows no pointer for each
/// comparison.
type Key = SmallVec<[u8; KEY_IN_PLACE]>;
const KEY_IN_PLACE: usize = 24;

/// A key: its hash, and where its newest version is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    newest: At,
}

/// What the hash table is given: half a hash, twice, since it takes its bits from both ends.
fn spread(hash: u32) -> u64 {
    u64::from(hash) | u64::from(hash) << 32
}

/// What `key` costs in the order of keys.
fn order_bytes_of(key: &[u8]) -> usize {
    ORDER_BYTES + if key.len() > KEY_IN_PLACE { key.len() } else { 0 }
}

#[derive(Debug, Default)]
struct Map {
    slots: HashTable<Slot>,
    records: Records,
    /// For keys that were overwritten: the older versions that may still be read, oldest first. A long-lived snapshot
    /// may keep many, and neither adding nor dropping one may then cost more than one.
    chains: Vec<VecDeque<At>>,
    order: Option<BTreeSet<Key>>,
    ranges: RangeTombstones,
    /// What `order` takes.
    order_bytes: usize,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    map: RwLock<Map>,
    hasher: RandomState,
    bytes: AtomicUsize,
    scanned: AtomicBool,
    /// The newest versions in the order of their keys, made once after the memtable was sealed. Locked under the map's
    /// lock, read or write.
    sorted: Mutex<Option<Arc<[At]>>>,
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
        self.map.read().slots.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let map = self.map.read();
        map.slots.is_empty() && map.ranges.is_empty()
    }

    /// Whether nothing can be in it that whoever asks must see: what was applied before is counted by now. Spares a look-up
    /// the lock, whose cache line all readers write to.
    #[inline]
    fn is_bare(&self) -> bool {
        self.bytes() == 0
    }

    fn hash(&self, key: &[u8]) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// Applies encoded changes, the first at `first`, the others at the numbers after it. Versions that nobody at or
    /// above `floor` can read are let go.
    pub(crate) fn apply(&self, batch: &[u8], first: SeqNo, floor: SeqNo) {
        let mut map = self.map.write();
        let mut seq = first;
        for op in Ops::new(batch) {
            let (key, kind, value) = match op {
                Op::Put { key, value, expires_at } => (key, Kind::Put { expires_at }, value),
                Op::Delete { key } => (key, Kind::Tombstone, &[][..]),
                Op::DeleteRange { start, end } => {
                    map.ranges.add(start, end, &[seq], floor);
                    seq.0 += 1;
                    continue;
                }
            };
            let newest = map.records.add(key, seq, kind, value);
            map.insert(self.hash(key), key, newest, floor);
            seq.0 += 1;
        }
        self.bytes.store(map.bytes(), Ordering::Relaxed);
    }

    /// The newest version of `key` at or below `as_of`; a range tombstone over it is one.
    pub(crate) fn get(&self, key: &[u8], as_of: SeqNo) -> Option<Version> {
        if self.is_bare() {
            return None;
        }
        let hash = self.hash(key);
        let map = self.map.read();
        let at = map.find(hash, key).and_then(|newest| map.at(newest, as_of));
        if let Some(deleted) = map.deleted_since(key, at, as_of) {
            return Some(deleted);
        }
        Some(map.records.record(at?).version())
    }

    /// [`Memtable::get`] for each of `keys` that `wanted` names, all under one lock; `found` is called with those that are
    /// here.
    pub(crate) fn get_many(
        &self,
        keys: &[&[u8]],
        wanted: &[usize],
        as_of: SeqNo,
        mut found: impl FnMut(usize, Version),
    ) {
        if self.is_bare() {
            return;
        }
        let map = self.map.read();
        if !map.ranges.is_empty() {
            for &id in wanted {
                let at = map.find(self.hash(keys[id]), keys[id]).and_then(|newest| map.at(newest, as_of));
                let deleted = map.deleted_since(keys[id], at, as_of);
                if let Some(version) = deleted.or_else(|| Some(map.records.record(at?).version())) {
                    found(id, version);
                }
            }
            return;
        }
        if map.slots.is_empty() {
            return;
        }
        // Step by step for all of them, so that they wait for memory together.
        let hashes: Few<u32> = wanted.iter().map(|&id| self.hash(keys[id])).collect();
        let with_hash = |&hash: &u32| map.slots.find(spread(hash), |slot| slot.hash == hash);
        let slots: Few<Option<&Slot>> = hashes.iter().map(with_hash).collect();
        black_box(slots.iter().flatten().fold(0, |all, slot| all ^ map.records.seq(slot.newest).0));
        for ((&id, &hash), slot) in wanted.iter().zip(&hashes).zip(&slots) {
            if slot.is_some()
                && let Some(newest) = map.find(hash, keys[id])
                && let Some(at) = map.at(newest, as_of)
            {
                found(id, map.records.record(at).version());
            }
        }
    }

    /// What range tombstones say of `key` and those around it, as of a position.
    pub(crate) fn span(&self, key: &[u8], as_of: SeqNo) -> Span {
        self.map.read().ranges.span(key, as_of)
    }

    /// Whether there are range tombstones.
    pub(crate) fn has_ranges(&self) -> bool {
        !self.map.read().ranges.is_empty()
    }

    /// All range tombstones.
    pub(crate) fn ranges(&self) -> Fragments {
        self.map.read().ranges.fragments()
    }

    /// Up to `limit` versions of `key` below a position, newest first.
    pub(crate) fn versions(&self, key: &[u8], below: SeqNo, limit: usize) -> Vec<Version> {
        let map = self.map.read();
        let Some(newest) = map.find(self.hash(key), key) else { return Vec::new() };
        let all = std::iter::once(newest).chain(map.older(newest).iter().rev().copied());
        let wanted = all.skip_while(|at| map.records.seq(*at) >= below).take(limit);
        wanted.map(|at| map.records.record(at).version()).collect()
    }

    /// The keys of `lower..upper` whose newest version is above `after`.
    pub(crate) fn keys_after(&self, after: SeqNo, lower: &[u8], upper: Option<&[u8]>) -> Vec<Slice> {
        let within = |key: &[u8]| key >= lower && upper.is_none_or(|upper| key < upper);
        let map = self.map.read();
        let newest = map.slots.iter().map(|slot| map.records.record(slot.newest));
        let fresh = newest.filter(|newest| newest.seq > after && within(newest.key));
        fresh.map(|newest| Slice::copy_from(newest.key)).collect()
    }

    /// Takes back every version above `after`: those writes have failed and must never have been.
    pub(crate) fn take_back(&self, after: SeqNo) {
        let mut map = self.map.write();
        *self.sorted.lock() = None;
        let Map { slots, records, chains, order, order_bytes, ranges } = &mut *map;
        ranges.take_back(after);
        slots.retain(|slot| {
            while records.seq(slot.newest) > after {
                let chain = records.chain(slot.newest);
                match chain.number().and_then(|number| chains[number].pop_back()) {
                    Some(older) => {
                        records.set_chain(older, chain);
                        records.remove(std::mem::replace(&mut slot.newest, older));
                    }
                    None => {
                        if let Some(order) = order {
                            let key = records.key(slot.newest);
                            order.remove(key);
                            *order_bytes -= order_bytes_of(key);
                        }
                        records.remove(slot.newest);
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
        let Map { slots, records, order, order_bytes, .. } = &mut *map;
        if order.is_none() {
            let keys: BTreeSet<Key> = slots.iter().map(|slot| Key::from(records.key(slot.newest))).collect();
            *order_bytes = keys.iter().map(|key| order_bytes_of(key)).sum();
            *order = Some(keys);
        }
        self.bytes.store(map.bytes(), Ordering::Relaxed);
    }

    pub(crate) fn keeps_order(&self) -> bool {
        self.map.read().order.is_some()
    }

    /// Whether a range scan has read from it: its successor then keeps order from the start.
    pub(crate) fn was_scanned(&self) -> bool {
        self.scanned.load(Ordering::Relaxed)
    }

    /// Up to `limit` entries from `lower` on in ascending key order (`backward`: from `upper` on in descending order),
    /// each key's newest version at or below `as_of`, unless a range tombstone of this memtable hides it. The second value
    /// is the last key looked at, to go on behind it, or `None` if there is nothing behind.
    pub(crate) fn scan(
        &self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        backward: bool,
        as_of: SeqNo,
        limit: usize,
        out: &mut Page,
    ) -> Option<Vec<u8>> {
        if is_empty_range(lower, upper) {
            return None;
        }
        self.scanned.store(true, Ordering::Relaxed);
        let map = self.map.read();
        if let Some(order) = &map.order {
            let keys = order.range::<[u8], _>((lower, upper));
            let newest = keys.filter_map(|key| map.find(self.hash(key), key));
            return if backward {
                map.collect(newest.rev(), as_of, limit, out)
            } else {
                map.collect(newest, as_of, limit, out)
            };
        }
        let sorted = self.sorted(&map);
        let before = |end: &[u8]| sorted.partition_point(|at| map.records.key(*at) < end);
        let through = |end: &[u8]| sorted.partition_point(|at| map.records.key(*at) <= end);
        let start = match lower {
            Bound::Unbounded => 0,
            Bound::Included(key) => before(key),
            Bound::Excluded(key) => through(key),
        };
        let end = match upper {
            Bound::Unbounded => sorted.len(),
            Bound::Included(key) => through(key),
            Bound::Excluded(key) => before(key),
        };
        let newest = sorted[start..end.max(start)].iter().copied();
        if backward { map.collect(newest.rev(), as_of, limit, out) } else { map.collect(newest, as_of, limit, out) }
    }

    /// The newest versions of a sealed memtable in the order of their keys; `map` is its own, locked.
    fn sorted(&self, map: &Map) -> Arc<[At]> {
        self.sorted
            .lock()
            .get_or_insert_with(|| in_key_order(&map.records, map.slots.iter().map(|slot| slot.newest).collect()))
            .clone()
    }

    /// Every version of every key of a sealed memtable, ascending by key, newest version first.
    pub(crate) fn for_each<E>(
        &self,
        mut visit: impl FnMut(&[u8], SeqNo, Kind, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let sorted = self.sorted(&self.map.read());
        let mut versions: Vec<At> = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        for newest in sorted.iter() {
            versions.clear();
            versions.push(*newest);
            versions.extend(self.map.read().older(*newest).iter().rev());
            for at in &versions {
                // One short lock for each version, and no copy of a large value: readers of a sealed memtable never
                // wait for the table being written.
                let map = self.map.read();
                let record = map.records.record(*at);
                let (seq, kind, key_len) = (record.seq, record.kind, record.key.len());
                bytes.clear();
                bytes.extend_from_slice(record.key);
                let large = match record.value {
                    Stored::Inline(value) => {
                        bytes.extend_from_slice(value);
                        None
                    }
                    Stored::Large(value) => Some(value.clone()),
                };
                drop(map);
                let (key, value) = bytes.split_at(key_len);
                visit(key, seq, kind, large.as_deref().unwrap_or(value))?;
            }
        }
        Ok(())
    }
}

impl Map {
    fn bytes(&self) -> usize {
        let tables = self.slots.len() * SLOT_BYTES + self.chains.len() * CHAIN_BYTES;
        self.records.bytes() + tables + self.order_bytes + self.ranges.bytes()
    }

    /// The newest version of `key`.
    #[inline]
    fn find(&self, hash: u32, key: &[u8]) -> Option<At> {
        let is_key = |slot: &Slot| slot.hash == hash && self.records.key(slot.newest) == key;
        self.slots.find(spread(hash), is_key).map(|slot| slot.newest)
    }

    /// The versions older than the newest, oldest first.
    fn older(&self, newest: At) -> &VecDeque<At> {
        const NONE: &VecDeque<At> = &VecDeque::new();
        self.records.chain(newest).number().map_or(NONE, |number| &self.chains[number])
    }

    /// Of the versions of a key, the newest at or below `as_of`.
    #[inline]
    fn at(&self, newest: At, as_of: SeqNo) -> Option<At> {
        if self.records.seq(newest) <= as_of {
            return Some(newest);
        }
        let older = self.older(newest);
        let readable = older.partition_point(|at| self.records.seq(*at) <= as_of);
        older.get(readable.checked_sub(1)?).copied()
    }

    /// As a version of `key`, the newest range tombstone over it at or below `as_of`, if that is newer than the version at
    /// `at`.
    #[inline]
    fn deleted_since(&self, key: &[u8], at: Option<At>, as_of: SeqNo) -> Option<Version> {
        if self.ranges.is_empty() {
            return None;
        }
        let newest = self.ranges.newest(key, as_of)?;
        at.is_none_or(|at| self.records.seq(at) < newest).then(|| Version::deleted(newest))
    }

    /// Makes a record that was just added the newest version of its key.
    fn insert(&mut self, hash: u32, key: &[u8], newest: At, floor: SeqNo) {
        let Map { slots, records, chains, order, order_bytes, .. } = self;
        let is_key = |slot: &Slot| slot.hash == hash && records.key(slot.newest) == key;
        match slots.entry(spread(hash), is_key, |slot| spread(slot.hash)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { hash, newest });
                if let Some(order) = order {
                    order.insert(Key::from(key));
                    *order_bytes += order_bytes_of(key);
                }
            }
            Entry::Occupied(mut occupied) => {
                let before = std::mem::replace(&mut occupied.get_mut().newest, newest);
                let number = records.chain(before).number().unwrap_or_else(|| {
                    chains.push(VecDeque::new());
                    chains.len() - 1
                });
                records.set_chain(newest, Chain::new(number));
                let older = &mut chains[number];
                older.push_back(before);
                // Of the versions at or below the floor only the newest can still be read.
                while older.get(1).is_some_and(|next| records.seq(*next) <= floor) {
                    older.pop_front().into_iter().for_each(|unreadable| records.remove(unreadable));
                }
            }
        }
    }

    fn collect(&self, newest: impl Iterator<Item = At>, as_of: SeqNo, limit: usize, out: &mut Page) -> Option<Vec<u8>> {
        // What range tombstones say where the scan is.
        let mut span = (!self.ranges.is_empty()).then(|| self.ranges.span(b"", as_of));
        for (looked_at, newest) in newest.enumerate() {
            if let Some(span) = &mut span
                && !span.contains(self.records.key(newest))
            {
                *span = self.ranges.span(self.records.key(newest), as_of);
            }
            let deleted = span.as_ref().and_then(|span| span.newest);
            if let Some(at) = self.at(newest, as_of).filter(|at| deleted < Some(self.records.seq(*at))) {
                out.push(&self.records.record(at));
            }
            if looked_at + 1 == limit {
                return Some(self.records.key(newest).to_vec());
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
