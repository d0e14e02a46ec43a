//! Fuzz targets: functions from any bytes. A fuzzer looks for bytes with which one of them panics, takes more memory than
//! the bytes account for, or does not come to an end. `fuzz/` is the package that runs them; `fuzz/corpus/` has the inputs
//! that reach different code, and the tests here replay those.
//!
//! Only tests and fuzzers see this module: it is no part of what ships. What a target needs of a floor's inside lies on
//! that floor, in a file `fuzz.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a fuzz target may")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[cfg(test)]
mod corpus;
mod engine;
mod glob;
mod input;

pub(crate) use input::Input;

use crate::protocol::fuzz as protocol;
use crate::storage::fuzz as storage;
use crate::storage::sstable::fuzz as sstable;

/// One function to be fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Of the program in `fuzz/`, and of the corpus.
    pub name: &'static str,
    /// What is to be true of any bytes.
    pub run: fn(&[u8]),
    /// Inputs that are well formed, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// About how much longer one run takes than one of a parser.
    pub cost: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "requests", run: protocol::requests, seeds: protocol::request_seeds, cost: 1 },
    Target { name: "replies", run: protocol::replies, seeds: protocol::reply_seeds, cost: 1 },
    Target { name: "wal", run: storage::wal, seeds: storage::wal_seeds, cost: 1 },
    Target { name: "manifest", run: storage::manifest, seeds: storage::manifest_seeds, cost: 1 },
    Target { name: "current", run: storage::current, seeds: storage::current_seeds, cost: 1 },
    Target { name: "blob", run: storage::blob, seeds: storage::blob_seeds, cost: 1 },
    Target { name: "stored", run: storage::stored, seeds: storage::stored_seeds, cost: 1 },
    Target { name: "parts", run: sstable::parts, seeds: sstable::seeds_of_parts, cost: 1 },
    Target { name: "table", run: sstable::table, seeds: sstable::tables, cost: 4 },
    Target { name: "files", run: engine::files, seeds: engine::file_seeds, cost: 20 },
    Target { name: "operations", run: engine::operations, seeds: engine::operation_seeds, cost: 20 },
    Target { name: "units", run: crate::server::fuzz::units, seeds: crate::server::fuzz::unit_seeds, cost: 1 },
    Target { name: "config", run: crate::server::fuzz::config, seeds: crate::server::fuzz::config_seeds, cost: 20 },
    Target { name: "words", run: crate::command::fuzz::words, seeds: crate::command::fuzz::word_seeds, cost: 1 },
    Target { name: "glob", run: glob::run, seeds: glob::seeds, cost: 1 },
];

/// The target of that name; there must be one.
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}
