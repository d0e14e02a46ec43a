//! The engines behind one small interface: what every one of them is asked to do, and with which settings.

mod chronos;
mod fjall;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocks;

use std::path::Path;

/// Whatever went wrong: a benchmark ends on it.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// By what name an engine is asked for, in the order of the table.
pub const NAMES: &[&str] = &[
    "chronos",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    "fjall",
    "redb",
];

/// The same for all engines, as far as they have it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The whole budget in bytes: half of it is block cache, an eighth one memtable, of which there may be four. An
    /// engine without memtables gets all of it as its cache.
    pub memory: usize,
    /// Whether a put returns only when it is on disk. If not, it may still be in the process: whoever kills that loses it.
    pub synced: bool,
}

impl Settings {
    pub fn cache(&self) -> usize {
        self.memory / 2
    }

    pub fn memtable(&self) -> usize {
        self.memory / 8
    }

    /// The first level below level 0 holds what the memtables hold.
    pub fn level(&self) -> usize {
        self.memory / 2
    }
}

/// Bits of Bloom filter for each key.
pub const BLOOM_BITS: u32 = 10;

/// Bytes of a data block before compression.
pub const BLOCK: usize = 4 << 10;

/// Bytes of a table.
pub const TABLE: u64 = 32 << 20;

/// Threads of one large compaction, where that can be chosen.
pub const COMPACTION_THREADS: u32 = 2;

/// One key and its value.
pub type Pair = ([u8; crate::work::KEY], [u8; crate::work::VALUE]);

/// An open database.
pub trait Engine: Sync {
    /// Sets one key; acknowledged as the settings say.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Sets many keys in the way that is quickest; for preparations, never timed.
    fn load(&self, pairs: &[Pair]) -> Result<()>;

    /// What is in memory written to tables; never timed.
    fn flush(&self) -> Result<()>;

    /// Everything merged into as few tables as it takes, nothing left in memory; never timed.
    fn compact(&self) -> Result<()>;

    /// Reads for one thread. The view may be one moment's until [`Reader::refresh`].
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;
}

/// How one thread reads.
pub trait Reader {
    /// From here on reads see what was acknowledged before.
    fn refresh(&mut self) -> Result<()>;

    /// The length of the key's value, all of whose bytes are in memory then; `None` if it is absent.
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>>;

    /// Up to `count` entries from `from` on, keys and values in memory; how many there were.
    fn scan(&mut self, from: &[u8], count: usize) -> Result<usize>;
}

/// Opens the engine called `name`.
pub fn open(name: &str, directory: &Path, settings: Settings) -> Result<Box<dyn Engine>> {
    match name {
        "chronos" => chronos::open(directory, settings),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => rocks::open(directory, settings),
        "fjall" => fjall::open(directory, settings),
        "redb" => redb::open(directory, settings),
        _ => Err(format!("no engine {name}").into()),
    }
}

/// What a read has found must really be looked at.
fn touch(value: &[u8]) -> usize {
    std::hint::black_box(value.first());
    std::hint::black_box(value.last());
    value.len()
}
