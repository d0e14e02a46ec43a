//! What every key should have held at every time: an oracle of the past.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronos::engine::Clock;

use super::common::{Change, Model, NOW};

/// A value and when it expires; `None`: deleted.
pub type Held = Option<(Vec<u8>, Option<u64>)>;

/// A clock that the test sets.
#[derive(Clone)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    /// It begins when the tests' clock stands still.
    pub fn new() -> Time {
        Time(Arc::new(AtomicU64::new(NOW)))
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }

    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let time = self.clone();
        Clock(Arc::new(move || time.now()))
    }
}

/// All versions of all keys with the time of each, oldest first.
#[derive(Clone, Default)]
pub struct Past(BTreeMap<Vec<u8>, Vec<(u64, Held)>>);

fn alive(held: &Held, when: u64) -> Option<&Vec<u8>> {
    held.as_ref().filter(|(_, expires_at)| expires_at.is_none_or(|at| at > when)).map(|(value, _)| value)
}

impl Past {
    pub fn write(&mut self, time: u64, key: &[u8], held: Held) {
        self.0.entry(key.to_vec()).or_default().push((time, held));
    }

    pub fn apply(&mut self, time: u64, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(key, value) => self.write(time, key, Some((value.clone(), None))),
                Change::PutExpired(key, value) => self.write(time, key, Some((value.clone(), Some(NOW - 1)))),
                Change::PutUntil(key, value, at) => self.write(time, key, Some((value.clone(), Some(*at)))),
                Change::Delete(key) => self.write(time, key, None),
                Change::DeleteRange(start, end) => {
                    let within = |key: &Vec<u8>| key >= start && end.as_ref().is_none_or(|end| key < end);
                    let held = |key: &Vec<u8>| alive(&self.held(key, time), time).is_some();
                    let gone: Vec<_> = self.keys().into_iter().filter(|key| within(key) && held(key)).collect();
                    for key in gone {
                        self.write(time, &key, None);
                    }
                }
            }
        }
    }

    /// What a key held at a time, expired or not.
    pub fn held(&self, key: &[u8], when: u64) -> Held {
        let versions = self.0.get(key).map_or(&[][..], Vec::as_slice);
        let after = versions.partition_point(|(time, _)| *time <= when);
        after.checked_sub(1).and_then(|at| versions[at].1.clone())
    }

    pub fn get(&self, key: &[u8], when: u64) -> Option<Vec<u8>> {
        alive(&self.held(key, when), when).cloned()
    }

    pub fn all(&self, when: u64) -> Model {
        let entries = self.0.keys().filter_map(|key| Some((key.clone(), self.get(key, when)?)));
        entries.collect()
    }

    /// As the engine tells the history of a key: newest first, values with the time of each.
    pub fn history(&self, key: &[u8], oldest: u64) -> Vec<(Option<u64>, Option<Vec<u8>>)> {
        let versions = self.0.get(key).map_or(&[][..], Vec::as_slice);
        let value = |held: &Held| held.as_ref().map(|(value, _)| value.clone());
        let fresh = versions.iter().rev().filter(|(time, _)| *time > oldest);
        let mut told: Vec<_> = fresh.map(|(time, held)| (Some(*time), value(held))).collect();
        told.extend(self.get(key, oldest).map(|value| (None, Some(value))));
        told
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.0.keys().cloned().collect()
    }
}
