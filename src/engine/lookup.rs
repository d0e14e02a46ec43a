//! Point reads of several keys together, as far as no file has to be read for them: every place that may hold one is
//! asked for all keys that are still open at once.

use std::sync::Arc;

use super::SeqNo;
use super::memtable::Memtable;
use super::reads::ReadsByLevel;
use super::shared::State;
use super::version::{TableHandle, Version};
use crate::codec::Few;
use crate::codec::hash::KeyHash;
use crate::storage::sstable::{self, Probe, Reads};
use crate::storage::{Kind, Version as KeyVersion};

/// What memory says of a key.
#[derive(Clone, Debug)]
pub(crate) enum Cached {
    Found(KeyVersion),
    Absent,
    /// It is not in the active memtable. Below that a file has to be read, or something is wrong with one.
    Unknown,
}

/// Keys, and what has been found so far.
struct Lookup<'k> {
    keys: &'k [&'k [u8]],
    as_of: SeqNo,
    found: Few<Cached>,
    /// Those for which the places asked so far have nothing.
    open: Few<usize>,
}

impl State {
    /// What memory knows of [`State::get`] for each of `keys`, all as of one moment: the active memtable is asked for
    /// all of them under one lock, and of what it does not have, nothing below it can change.
    pub(crate) fn get_cached(&self, keys: &[&[u8]], as_of: SeqNo) -> Few<Cached> {
        let mut lookup = Lookup {
            keys,
            as_of,
            found: keys.iter().map(|_| Cached::Absent).collect(),
            open: (0..keys.len()).collect(),
        };
        lookup.ask_memtable(&self.active);
        for sealed in self.sealed.iter().rev() {
            lookup.ask_memtable(&sealed.memtable);
        }
        if !lookup.open.is_empty() {
            lookup.ask_tables(&self.version);
        }
        lookup.found
    }
}

impl Lookup<'_> {
    fn ask_memtable(&mut self, memtable: &Memtable) {
        let found = &mut self.found;
        memtable.get_many(self.keys, &self.open, self.as_of, |id, version| found[id] = Cached::Found(version));
        self.close();
    }

    fn ask_tables(&mut self, version: &Version) {
        let hashes: Few<KeyHash> = self.keys.iter().map(|key| KeyHash::of(key)).collect();
        let [flushed, sorted @ ..] = &version.levels;
        let mut reads = ReadsByLevel::default();
        let [reads_of_flushed, reads_of_sorted @ ..] = &mut reads;
        for table in flushed.iter() {
            self.ask(&hashes, reads_of_flushed, |key| table.may_hold(key).then_some(table));
        }
        for (tables, reads) in sorted.iter().zip(reads_of_sorted).filter(|(tables, _)| !tables.is_empty()) {
            self.ask(&hashes, reads, |key| Version::table_for(tables, key));
        }
        version.count(&reads);
    }

    /// Asks for each open key the table that may hold it, if one does.
    fn ask<'t>(
        &mut self,
        hashes: &[KeyHash],
        reads: &mut Reads,
        table_for: impl Fn(&[u8]) -> Option<&'t Arc<TableHandle>>,
    ) {
        let Lookup { keys, as_of, found, open } = self;
        let mut probes = Few::new();
        let mut deleted: Few<(usize, SeqNo)> = Few::new();
        for &id in &*open {
            let Some(handle) = table_for(keys[id]) else { continue };
            match handle.if_open() {
                Some(table) => {
                    probes.push(Probe { table, key: keys[id], hash: hashes[id], id });
                    if handle.has_ranges() {
                        deleted.extend(table.ranges().newest(keys[id], *as_of).map(|seq| (id, seq)));
                    }
                }
                None => found[id] = Cached::Unknown,
            }
        }
        sstable::get_cached(probes, *as_of, reads, |id, version| {
            found[id] = version.map_or(Cached::Unknown, Cached::Found);
        });
        for (id, seq) in deleted {
            let hides = match &found[id] {
                Cached::Found(version) => version.seq < seq,
                Cached::Absent => true,
                Cached::Unknown => false,
            };
            if hides {
                found[id] = Cached::Found(KeyVersion::deleted(seq));
            }
        }
        for &id in &*open {
            if let Cached::Found(KeyVersion { kind: Kind::PutFar { .. }, .. }) = found[id] {
                found[id] = Cached::Unknown;
            }
        }
        self.close();
    }

    /// What is found first is newest, and what is not known here must not be looked for below.
    fn close(&mut self) {
        let found = &self.found;
        self.open.retain(|&mut id| matches!(found[id], Cached::Absent));
    }
}
