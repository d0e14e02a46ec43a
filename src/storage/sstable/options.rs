//! How a table is written. Readers need none of it: the file says what it is.

/// What the engine chooses for each table it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableOptions {
    /// A data block is closed before the entry that would carry it past this, uncompressed. A larger entry gets a
    /// block of its own.
    pub(crate) block_bytes: usize,
    /// A partition is closed when it takes more than this in memory.
    pub(crate) partition_bytes: usize,
    /// Size of the filters; 0 for none.
    pub(crate) filter_bits_per_key: u8,
    /// Tried on every block, kept where it pays.
    pub(crate) compression: Compression,
    /// Sync after this many bytes, so that a large table does not pile up dirty pages which a foreground fdatasync
    /// then has to wait for; 0 syncs only at the end.
    pub(crate) sync_every: u64,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            block_bytes: 4 << 10,
            partition_bytes: 64 << 10,
            filter_bits_per_key: 10,
            compression: Compression::Lz4,
            sync_every: 2 << 20,
        }
    }
}

/// How a table's blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Blocks are stored as they are.
    None,
    /// LZ4, where it saves at least an eighth of the block.
    Lz4,
    /// zstd for the last level, which holds nearly everything, and LZ4 above it, where blocks are written again and again;
    /// each where it saves at least an eighth of the block.
    Zstd,
}
